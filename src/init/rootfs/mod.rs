//! The container's root file system: mounts, devices, masks, and the way into it.
//!
//! [`Rootfs`] is planned from the spec (pure), opened by the creator (what the child will not be able to open), and
//! then made by the child in three steps, between which the engine runs hooks:
//!
//! 1. [`Rootfs::mount`]: propagation, the root bound onto itself, `mounts` in their order, devices, links of `/dev` (before
//!    mounts that cannot cover them);
//! 2. [`Rootfs::enter`]: `pivot_root(2)`, or what replaces it;
//! 3. [`Rootfs::finish`]: final propagation (an unbindable one at the very end), `/dev/console`, read-only mounts, masked
//!    and read-only paths, the read-only root.
//!
//! No path inside the root is ever handed to the kernel as a string from `/`: it is resolved by
//! `openat2(RESOLVE_IN_ROOT)` to a handle, and the handle is what is mounted on. Filesystems are made by `mount(2)`
//! on `.` with the handle as the working directory (two calls, where `fsopen(2)` takes six); binds by `open_tree(2)`,
//! `mount_setattr(2)` and `move_mount(2)`; where those are missing or blocked, by `mount(2)` too (`sys::stage`).

mod bind;
mod cgroup_mount;
mod cgroup_view;
mod console;
mod device_node;
mod devices;
mod idmap;
mod lend;
mod masks;
mod mounts;
mod open;
mod pivot;
mod plan;
mod propagation;
mod tmpcopyup;
mod tree;

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use oci_spec::runtime::Spec;

use crate::error::{At, Error, Result};
use crate::sys::mount::{AT_RECURSIVE, OPEN_TREE_CLONE, move_mount, open_tree};
use crate::sys::path::{
    CWD, RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, c_path, fstatfs, mount_id, mount_id_of, openat2,
};
use crate::sys::process::umask;
use crate::sys::{Errno, calls, stage};
pub use cgroup_view::{CgroupHierarchy, CgroupView};
use open::Opened;
use plan::{MountKind, Plan};
use tree::Tree;

/// What the engine knows and the spec alone does not say.
#[derive(Debug, Clone, Default)]
pub struct RootfsContext {
    /// Init runs in a user namespace that is not the machine's first: its own, or the creator's.
    pub userns: bool,
    /// That namespace, where it is joined by path.
    pub userns_path: Option<PathBuf>,
    /// Init has a mount namespace of its own (new, or joined by path).
    pub new_mount_ns: bool,
    /// Init has a cgroup namespace of its own.
    pub cgroup_ns: bool,
    /// `--no-pivot`.
    pub no_pivot: bool,
    /// The container's cgroups, for mounts of `type: cgroup`.
    pub cgroup: CgroupView,
}

/// The root file system of one container, from plan to use.
#[derive(Debug)]
pub struct Rootfs {
    plan: Plan,
    context: RootfsContext,
    opened: Opened,
    /// What the creator cannot open it lends, once there is init's mount namespace.
    lent: bool,
    ways: Vec<OwnedFd>,
    tree: Option<Tree>,
    null: Option<OwnedFd>,
    /// Mounts that become read-only at the end, with their destinations.
    late: Vec<(Rc<OwnedFd>, String)>,
}

impl Rootfs {
    /// Plans the root file system of `spec`; `bundle` is the bundle's absolute path. Touches nothing.
    ///
    /// # Errors
    /// Of contradictions in the spec, with their JSON path.
    pub fn plan(spec: &Spec, bundle: &Path, context: &RootfsContext) -> Result<Rootfs> {
        let plan = Plan::new(spec, bundle, context)?;
        let context = context.clone();
        Ok(Rootfs {
            plan,
            context,
            opened: Opened::default(),
            lent: false,
            ways: Vec::new(),
            tree: None,
            null: None,
            late: Vec::new(),
        })
    }

    /// Absolute path of the root file system on the host.
    pub fn path(&self) -> &Path {
        &self.plan.rootfs
    }

    /// Makes the mount points that lie on the root file system itself or in the source of a bind mount: CRIU does not.
    ///
    /// # Errors
    /// As `mkdirat(2)` and `mknodat(2)`, with the mount point.
    pub fn make_mount_points(&self) -> Result<()> {
        let mounts = &self.plan.mounts;
        // What a path lies on: of the mounts above it the nearest, and the last there.
        let below = |path: &str| {
            let mut parents = Path::new(path).ancestors().skip(1).filter_map(Path::to_str).filter(|it| !it.is_empty());
            parents.find_map(|it| mounts.iter().rev().find(|mount| mount.destination == it))
        };
        for planned in mounts {
            let (root, path) = match below(&planned.destination).map(|parent| (parent, &parent.kind)) {
                None => (open_rootfs(&self.plan.rootfs)?, planned.destination.as_str()),
                Some((parent, MountKind::Bind { source, .. })) => {
                    let name = c_path(source).at("open", source.display())?;
                    let opened = openat2(CWD, &name, libc::O_PATH | libc::O_DIRECTORY, 0, 0);
                    let path = &planned.destination[parent.destination.len() + 1..];
                    (opened.at("open", source.display())?, path)
                }
                // CRIU restores the directories of a file system that it mounts.
                Some(_) => continue,
            };
            let kind = match &planned.kind {
                MountKind::Bind { source, .. } if !source.is_dir() => tree::Kind::File,
                _ => tree::Kind::Directory,
            };
            Tree::new(root).place(path, kind, true).at("create mount point", format!("/{}", planned.destination))?;
        }
        Ok(())
    }

    /// Where a destination leads in the root file system, through the links that are there; itself where nothing is there.
    pub fn resolve(&self, destination: &Path) -> PathBuf {
        let resolve = || {
            let root = open_rootfs(&self.plan.rootfs).ok()?;
            let name = c_path(destination).ok()?;
            let place = openat2(root.as_fd(), &name, libc::O_PATH, 0, RESOLVE_IN_ROOT).ok()?;
            let path = |fd: &OwnedFd| std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).ok();
            Some(Path::new("/").join(path(&place)?.strip_prefix(path(&root)?).ok()?))
        };
        resolve().unwrap_or_else(|| destination.to_owned())
    }

    /// In the child: everything up to the `createContainer` hooks. `pid_namespace` is the one that it has yet to enter.
    /// `enter_cgroups` is called before each mount that shows them or is charged to them: only the first enters.
    ///
    /// # Errors
    /// Of the first step that fails, with the mount's JSON path where it is one.
    pub fn mount(
        &mut self,
        pid_namespace: Option<BorrowedFd<'_>>,
        enter_cgroups: &mut dyn FnMut() -> Result<()>,
    ) -> Result<()> {
        let mut tree = Tree::new(self.bind_root()?);
        let old_umask = umask(0);
        let mut sources = std::mem::take(&mut self.opened.mounts).into_iter();
        let mut devices_made = false;
        for (at, planned) in self.plan.mounts.iter().enumerate() {
            if at == self.plan.devices_before && is_plain(&tree) {
                self.make_devices(&mut tree)?;
                devices_made = true;
            }
            if planned.needs_cgroups() {
                enter_cgroups()?;
            }
            let late = mounts::make(&mut tree, planned, sources.next().flatten(), &self.context, pid_namespace)?;
            if let Some(mount) = late {
                self.late.push((mount, format!("/{}", planned.destination)));
            }
        }
        if !devices_made {
            self.make_devices(&mut tree)?;
        }
        self.opened.devices.clear();
        umask(old_umask);
        if stage::is_used() {
            stage::strike(self.covers_stage()).at("unmount", "the stage of the mounts")?;
        } else if !self.plan.masked.is_empty() {
            self.null = Some(masks::open_null(&tree)?);
        }
        self.tree = Some(tree);
        Ok(())
    }

    /// Makes the devices and the links of `/dev`.
    fn make_devices(&self, tree: &mut Tree) -> Result<()> {
        // Nothing that is mounted from here on covers a directory of theirs: one found once stays the same.
        tree.keep_directories();
        for (at, device) in self.plan.devices.iter().enumerate() {
            let own = if self.plan.userns && self.opened.devices.is_empty() { device.open_host()? } else { None };
            device.make(tree, self.opened.devices.get(at).map_or(own.as_ref(), Option::as_ref))?;
        }
        if self.plan.links { devices::make_links(tree) } else { Ok(()) }
    }

    /// Starts the propagation and binds the root onto itself; returns the handle of the container's root.
    fn bind_root(&mut self) -> Result<OwnedFd> {
        if !self.context.new_mount_ns {
            return open_rootfs(&self.plan.rootfs);
        }
        self.plan.propagation.start(&self.plan.rootfs)?;
        if self.opened.rootfs.is_none() && !calls::can_mount_detached() {
            return self.bind_staged();
        }
        let Some(tree) = self.opened.rootfs.take() else {
            let place = open_rootfs(&self.plan.rootfs)?;
            let tree = open_tree(place.as_fd(), c"", OPEN_TREE_CLONE | AT_RECURSIVE).at("bind", "root.path")?;
            move_mount(tree.as_fd(), place.as_fd()).at("mount", "root.path")?;
            return Ok(tree);
        };
        match open_rootfs(&self.plan.rootfs) {
            Ok(place) => move_mount(tree.as_fd(), place.as_fd()).at("mount", "root.path")?,
            // A parent that only the creator may search. On `/` it serves as well: hooks see it by its handle only.
            Err(error) if error.errno() == Some(Errno::EACCES) => {
                let place = open_host_root()?;
                move_mount(tree.as_fd(), place.as_fd()).at("mount root.path on", "/")?;
            }
            Err(error) => return Err(error),
        }
        Ok(tree)
    }

    /// In the child, between [`Rootfs::mount`] and [`Rootfs::enter`]: makes the container's root the working directory.
    ///
    /// # Errors
    /// Of the system call that fails.
    pub fn change_directory(&self) -> Result<()> {
        let tree = self.tree.as_ref().ok_or_else(unmounted)?;
        crate::sys::mount_at::fchdir(tree.root.as_fd()).at("chdir to", "the root file system")
    }

    /// Whether a process that is made between [`Rootfs::mount`] and [`Rootfs::enter`] gets the container's root with the
    /// caller: pivot_root(2) changes it for all that have the old one.
    pub fn takes_others_along(&self) -> bool {
        self.plan.entry == pivot::Entry::Pivot && !stage::is_used()
    }

    /// In such a process: that it has.
    ///
    /// # Errors
    /// [`Error::Refused`] where its root is another.
    pub fn check_entered(&self) -> Result<()> {
        let tree = self.tree.as_ref().ok_or_else(unmounted)?;
        let ids = mount_id(tree.root.as_fd()).and_then(|own| Ok((own, mount_id_of(c"/")?)));
        match ids.at("look at", "the root file system")? {
            (own, here) if own == here => Ok(()),
            _ => Err(Error::Refused("the payload's root is not the container's".to_owned())),
        }
    }

    /// In the child: makes the container's root this process's root.
    ///
    /// # Errors
    /// Of the system call that fails; [`Rootfs::mount`] must have succeeded.
    pub fn enter(&mut self) -> Result<()> {
        let tree = self.tree.as_ref().ok_or_else(unmounted)?;
        self.plan.entry.enter(tree.root.as_fd(), self.plan.propagation.shares())
    }

    /// In the child, inside the root and before it is read-only: makes a directory that is missing, and those above it, as the
    /// container's root. By handle: no link in the image leads out of it. What cannot be looked up so is left as it is.
    ///
    /// # Errors
    /// As `mkdirat(2)`.
    pub fn make_directory(&mut self, path: &[u8]) -> Result<()> {
        let tree = self.tree.as_mut().ok_or_else(unmounted)?;
        let path = String::from_utf8_lossy(path);
        match tree.place(&tree::clean(&path), tree::Kind::Directory, true) {
            Err(Errno::ELOOP) => Ok(()),
            made => made.at("mkdir", path).map(drop),
        }
    }

    /// Covers masked and read-only paths.
    fn cover(&mut self) -> Result<()> {
        if self.plan.masked.is_empty() && self.plan.readonly_paths.is_empty() {
            return Ok(());
        }
        let tree = self.tree.as_ref().ok_or_else(unmounted)?;
        let proc = masks::Proc::open(tree);
        for path in &self.plan.readonly_paths {
            masks::make_readonly(tree, &proc, path)?;
        }
        if !self.plan.masked.is_empty() {
            let mut masks = masks::Masks::new(self.null.take(), tree)?;
            for path in &self.plan.masked {
                masks.cover(tree, &proc, path)?;
            }
        }
        Ok(())
    }

    /// In the child, inside the root: what must come last. Closes every handle.
    ///
    /// # Errors
    /// Of the first step that fails; [`Rootfs::enter`] must have succeeded.
    pub fn finish(&mut self, console: Option<BorrowedFd<'_>>) -> Result<()> {
        let propagation = self.plan.propagation;
        if self.context.new_mount_ns && propagation.shares() {
            propagation.end()?;
        }
        let tree = self.tree.as_mut().ok_or_else(unmounted)?;
        if let Some(console) = console {
            console::bind(tree, console)?;
        }
        for (mount, destination) in self.late.drain(..) {
            mounts::make_readonly(&mount, &destination)?;
        }
        self.cover()?;
        let tree = self.tree.take().ok_or_else(unmounted)?;
        if self.plan.readonly && self.context.new_mount_ns {
            mounts::make_readonly(&tree.root, "/")?;
        }
        // Only now: nothing of an unbindable tree can be bound onto itself to be read-only or a mask.
        if self.context.new_mount_ns && !propagation.shares() {
            propagation.end()?;
        }
        stage::end().at("chdir to", "/")
    }
}

/// Whether a mount on `/sys/fs/cgroup` comes to lie in a sysfs, and `/dev` on no link.
fn is_plain(tree: &Tree) -> bool {
    const SYSFS_MAGIC: libc::c_long = 0x6265_6572;
    let directory = |path| tree.find_without_links(path, libc::O_DIRECTORY);
    let is_sysfs = |place: OwnedFd| fstatfs(place.as_fd()).is_ok_and(|fs| fs.f_type == SYSFS_MAGIC);
    directory("dev").is_ok() && directory("sys/fs/cgroup").is_ok_and(is_sysfs)
}

/// The root of the host's tree, not what is mounted on it: that `/..` leads to.
fn open_host_root() -> Result<OwnedFd> {
    openat2(CWD, c"/", libc::O_PATH | libc::O_DIRECTORY, 0, 0).at("open", "/")
}

fn unmounted() -> Error {
    Error::Other("the root file system is not mounted".to_owned())
}

/// Opens `root.path` by a path without symbolic links.
fn open_rootfs(path: &Path) -> Result<OwnedFd> {
    let name = c_path(path).at("open root.path", path.display())?;
    let resolve = RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
    match openat2(CWD, &name, libc::O_PATH | libc::O_DIRECTORY, 0, resolve) {
        Err(Errno::ELOOP) => Err(Error::config(
            "$.root.path",
            format!("`{}` is a symbolic link, or reached through one", path.display()),
        )),
        Err(Errno::ENOENT) => {
            Err(Error::config("$.root.path", format!("`{}`: No such file or directory", path.display())))
        }
        Err(Errno::ENOTDIR) => Err(Error::config("$.root.path", format!("`{}` is not a directory", path.display()))),
        done => done.at("open root.path", path.display()),
    }
}
