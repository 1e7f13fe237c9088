//! What init cannot reach, where nothing detached can be handed to it: the creator opens it in init's mount namespace.
//!
//! Only what lies in a process's own mount namespace can be bound by `mount(2)`, and a user namespace of the container's may
//! search no directory that its ids have no right to. So the creator, which has it, looks up each path below init's root
//! (`/proc/<pid>/root`) and sends the handles over the line.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use super::plan::MountKind;
use super::{Rootfs, bind};
use crate::error::{At, Context, Error, Result};
use crate::sys::mount::{AT_RECURSIVE, OPEN_TREE_CLONE, open_tree};
use crate::sys::path::{RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, c_path, open, openat2};

impl Rootfs {
    /// Whether init waits for handles.
    pub fn is_lent(&self) -> bool {
        self.lent
    }

    /// In the creator, once init has its mount namespace: the root file system, the sources of bind mounts, the devices.
    ///
    /// # Errors
    /// Where one of them is missing.
    pub fn lend(&self, init: libc::pid_t) -> Result<Vec<OwnedFd>> {
        let name = format!("/proc/{init}/root");
        let root = open(&name, libc::O_PATH | libc::O_DIRECTORY).at("open", name)?;
        let find = |path: &Path, flags: i32, resolve: u64| {
            let inside = path.strip_prefix("/").unwrap_or(path);
            let inside = if inside.as_os_str().is_empty() { Path::new(".") } else { inside };
            openat2(root.as_fd(), &c_path(inside)?, libc::O_PATH | flags, 0, RESOLVE_IN_ROOT | resolve)
        };
        let strict = RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
        let mut ways =
            vec![find(&self.plan.rootfs, libc::O_DIRECTORY, strict).at("open root.path", self.plan.rootfs.display())?];
        for planned in &self.plan.mounts {
            if let MountKind::Bind { source, .. } = &planned.kind {
                let found = find(source, 0, 0).at("open bind source", source.display());
                ways.push(found.context(|| format!("$.mounts[{}]", planned.index))?);
            }
        }
        for device in self.plan.devices.iter().filter(|device| device.is_node()) {
            let path = device.host_path();
            ways.push(find(&path, 0, 0).at("open device", path.display())?);
        }
        Ok(ways)
    }

    /// In init: takes the handles, in the order in which they were opened.
    pub fn borrow(&mut self, ways: Vec<OwnedFd>) {
        self.ways = ways;
    }

    /// In init, with a stage set: copies of all that was lent; gives that of the root file system.
    pub(super) fn copy_lent(&mut self) -> Result<OwnedFd> {
        let mut ways = std::mem::take(&mut self.ways).into_iter();
        let mut next = || ways.next().ok_or_else(|| Error::Other("not every way to the mounts has arrived".to_owned()));
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
            let node = if device.is_node() {
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
