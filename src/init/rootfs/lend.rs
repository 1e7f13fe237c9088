//! The root file system and the sources of mounts where nothing is mounted detached: found first, then copied to the stage.
//!
//! Only what lies in a process's own mount namespace can be bound by `mount(2)`, and a user namespace of the container's may
//! search no directory that its ids have no right to. There the creator, which has it, looks up each path below init's root
//! (`/proc/<pid>/root`) and sends the handles over the line; else init finds all itself, before the stage is there.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use super::devices::Device;
use super::plan::MountKind;
use super::{Rootfs, bind, open_host_root};
use crate::error::{At, Context, Error, Result};
use crate::sys::clone::Child;
use crate::sys::mount::{AT_RECURSIVE, OPEN_TREE_CLONE, mount, move_mount, open_tree};
use crate::sys::path::{
    CWD, RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, c_path, mount_id, open, openat2,
};
use crate::sys::{self, pidfd, stage};

/// Looks up a path, with flags of `open(2)` and `RESOLVE_*`.
type Find<'f> = dyn Fn(&Path, i32, u64) -> sys::Result<OwnedFd> + 'f;

impl Rootfs {
    /// Whether init waits for handles.
    pub fn is_lent(&self) -> bool {
        self.lent
    }

    /// In the creator, once init has its mount namespace: the root file system, the sources of bind mounts, the devices.
    ///
    /// # Errors
    /// Where one of them is missing; [`Error::Refused`] where `/proc` is of another pid namespace.
    pub fn lend(&self, init: &Child) -> Result<Vec<OwnedFd>> {
        let name = format!("/proc/{}/root", init.pid);
        if pidfd::pid(init.pidfd.as_fd()) != Ok(init.pid) {
            return Err(Error::Refused("`/proc` does not show the processes of this pid namespace".to_owned()));
        }
        let root = open(&name, libc::O_PATH | libc::O_DIRECTORY).at("open", name)?;
        self.find(&|path, flags, resolve| {
            let inside = path.strip_prefix("/").unwrap_or(path);
            let inside = if inside.as_os_str().is_empty() { Path::new(".") } else { inside };
            openat2(root.as_fd(), &c_path(inside)?, libc::O_PATH | flags, 0, RESOLVE_IN_ROOT | resolve)
        })
    }

    fn find(&self, find: &Find<'_>) -> Result<Vec<OwnedFd>> {
        let strict = RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
        let rootfs = &self.plan.rootfs;
        let mut ways = vec![find(rootfs, libc::O_DIRECTORY, strict).at("open root.path", rootfs.display())?];
        for planned in &self.plan.mounts {
            if let MountKind::Bind { source, .. } = &planned.kind {
                let found = find(source, 0, 0).at("open bind source", source.display());
                ways.push(found.context(|| format!("$.mounts[{}]", planned.index))?);
            }
        }
        for device in self.plan.devices.iter().filter(|device| self.binds(device)) {
            let path = device.host_path();
            ways.push(find(&path, 0, 0).at("open device", path.display())?);
        }
        Ok(ways)
    }

    /// Whether the host's node of a device is bound: where nodes cannot be made.
    fn binds(&self, device: &Device) -> bool {
        self.plan.userns && device.is_node()
    }

    /// Whether the container's root is mounted on the stage. Where it shares its mounts, only the mount that it lies on is
    /// private; else the stage lies on the host's root, where no look-up leads that is not through `..`.
    pub(super) fn covers_stage(&self) -> bool {
        self.plan.propagation.shares() && !self.lent
    }

    /// In init: binds the root onto itself, and copies every source, from a stage.
    pub(super) fn bind_staged(&mut self) -> Result<OwnedFd> {
        if !self.lent {
            self.ways =
                self.find(&|path, flags, resolve| openat2(CWD, &c_path(path)?, libc::O_PATH | flags, 0, resolve))?;
        }
        let place = self.ways.first().ok_or_else(missing)?.try_clone().at("duplicate", "root.path")?;
        let top =
            std::fs::read_link(format!("/proc/self/fd/{}", place.as_raw_fd())).at("read the path of", "root.path")?;
        let host = open_host_root()?;
        if top == Path::new("/") && mount_id(place.as_fd()) == mount_id(host.as_fd()) {
            return Err(Error::config("$.root.path", "`/` needs a kernel with detached mounts (Linux 5.12)"));
        }
        let begun = if self.covers_stage() {
            stage::begin(place.as_fd(), &c_path(&top).at("open", "root.path")?)
        } else {
            if self.plan.propagation.shares() {
                mount(None, c"/", None, libc::MS_PRIVATE, None).at("make private", "/")?;
            }
            stage::begin(host.as_fd(), c"/..")
        };
        begun.at("make a stage for", "the mounts")?;
        let tree = self.copy()?;
        move_mount(tree.as_fd(), place.as_fd()).at("mount", "root.path")?;
        Ok(tree)
    }

    /// In init: takes the handles, in the order in which they were opened.
    pub fn borrow(&mut self, ways: Vec<OwnedFd>) {
        self.ways = ways;
    }

    /// Copies of all that was found; gives that of the root file system.
    fn copy(&mut self) -> Result<OwnedFd> {
        let mut ways = std::mem::take(&mut self.ways).into_iter();
        let mut next = || ways.next().ok_or_else(missing);
        let copy = |way: BorrowedFd<'_>, flags: u32| open_tree(way, c"", OPEN_TREE_CLONE | flags);
        let root = copy(next()?.as_fd(), AT_RECURSIVE).at("bind", "root.path")?;
        for planned in &self.plan.mounts {
            let MountKind::Bind { source, recursive } = &planned.kind else {
                self.opened.mounts.push(None);
                continue;
            };
            let way = next()?;
            let make = || -> Result<OwnedFd> {
                let flags = if *recursive { AT_RECURSIVE } else { 0 };
                let tree = copy(way.as_fd(), flags).at("open bind source", source.display())?;
                bind::set_attributes(&tree, &planned.options, &format!("/{}", planned.destination))?;
                Ok(tree)
            };
            self.opened.mounts.push(Some(make().context(|| format!("$.mounts[{}]", planned.index))?));
        }
        for device in &self.plan.devices {
            let node = if self.binds(device) {
                let node = copy(next()?.as_fd(), 0).at("open device", device.host_path().display())?;
                Some(device.checked(node)?)
            } else {
                None
            };
            self.opened.devices.push(node);
        }
        Ok(root)
    }
}

fn missing() -> Error {
    Error::Other("not every way to the mounts has arrived".to_owned())
}
