//! `linux.maskedPaths` and `linux.readonlyPaths`.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use super::devices;
use super::tree::{Tree, c_string, split};
use crate::error::{At, Error, Result};
use crate::sys::mount::{
    AT_RECURSIVE, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY, MountAttr,
    OPEN_TREE_CLONE, bind_file, mount_setattr, move_mount, new_filesystem, open_tree,
};
use crate::sys::mount_at::move_mount_at;
use crate::sys::path::{CWD, fstat, fstatat, fstatfs, mount_id, openat};
use crate::sys::{self, Errno, stage};

const PROC_SUPER_MAGIC: libc::c_long = 0x9fa0;

/// What covers a masked path: the first use attaches it, later ones attach copies of it.
///
/// Copies are made from the attached one because a detached mount can be cloned only since Linux 6.15.
#[derive(Debug)]
struct Cover {
    mount: OwnedFd,
    attached: bool,
}

impl Cover {
    fn new(mount: OwnedFd) -> Self {
        Cover { mount, attached: false }
    }

    /// Attaches it, or a copy of it, by `attach`.
    fn put(&mut self, attach: impl FnOnce(BorrowedFd<'_>) -> sys::Result<()>) -> sys::Result<()> {
        if !self.attached {
            attach(self.mount.as_fd())?;
            self.attached = true;
            return Ok(());
        }
        let copy = open_tree(self.mount.as_fd(), c"", OPEN_TREE_CLONE)?;
        attach(copy.as_fd())
    }
}

/// Masks and read-only paths in the making.
#[derive(Debug)]
pub(super) struct Masks {
    null: Cover,
    empty: Option<Cover>,
}

/// What covers files: the container's own null device; where it has none the host's, to be opened while the host's tree is
/// still there.
///
/// What lies at the container's `/dev/null` may be anything, also a link: its handle is asked what it is, and only then is it
/// bound (CVE-2025-31133). The container's root may be the host's, so that the host's node must not change by a mask.
///
/// # Errors
/// Where neither is the null device.
pub(super) fn open_null(tree: &Tree) -> Result<OwnedFd> {
    if let Ok(own) = containers_null(tree) {
        return open_tree(own.as_fd(), c"", OPEN_TREE_CLONE).at("open", "the container's /dev/null");
    }
    let null = verified(open_tree(CWD, c"/dev/null", OPEN_TREE_CLONE).at("open", "/dev/null")?, "the host's")?;
    devices::protect(&null).at("protect", "/dev/null")?;
    Ok(null)
}

/// The container's: its very handle is bound, once it is known.
fn containers_null(tree: &Tree) -> Result<OwnedFd> {
    verified(tree.find_without_links("dev/null", 0).at("open", "the container's /dev/null")?, "the container's")
}

fn verified(null: OwnedFd, whose: &str) -> Result<OwnedFd> {
    let stat = fstat(null.as_fd()).at("stat", "/dev/null")?;
    if stat.st_mode & libc::S_IFMT != libc::S_IFCHR || stat.st_rdev != libc::makedev(1, 3) {
        return Err(Error::Refused(format!("{whose} `/dev/null` is not the null device")));
    }
    Ok(null)
}

/// Where a path lies: below procfs, where links in the last component are the kernel's own and are not followed, so
/// the name alone will do; or anywhere else, where only a handle will.
enum Spot {
    Proc(Rc<OwnedFd>, std::ffi::CString),
    Elsewhere(OwnedFd),
}

/// The procfs of the container, opened once.
#[derive(Debug)]
pub(super) struct Proc(Option<Rc<OwnedFd>>);

impl Proc {
    pub fn open(tree: &Tree) -> Self {
        let proc = tree.find_without_links("proc", libc::O_DIRECTORY).ok();
        Proc(proc.filter(|proc| fstatfs(proc.as_fd()).is_ok_and(|fs| fs.f_type == PROC_SUPER_MAGIC)).map(Rc::new))
    }

    fn spot(&self, tree: &Tree, path: &str) -> sys::Result<Spot> {
        match (&self.0, split(path)) {
            (Some(proc), ("proc", name)) => Ok(Spot::Proc(proc.clone(), c_string(name)?)),
            _ => tree.find(path, 0).map(Spot::Elsewhere),
        }
    }
}

impl Spot {
    fn attach(&self, mount: BorrowedFd<'_>) -> sys::Result<()> {
        match self {
            Spot::Proc(dir, name) => move_mount_at(mount, dir.as_fd(), name),
            Spot::Elsewhere(handle) => move_mount(mount, handle.as_fd()),
        }
    }

    /// What is there now, with what is mounted on it.
    fn look(&self, tree: &Tree, path: &str) -> sys::Result<OwnedFd> {
        match self {
            Spot::Proc(dir, name) => openat(dir.as_fd(), name, libc::O_PATH | libc::O_NOFOLLOW, 0),
            Spot::Elsewhere(_) => tree.find(path, 0),
        }
    }

    /// The file type bits of its mode.
    fn kind(&self) -> sys::Result<libc::mode_t> {
        let stat = match self {
            Spot::Proc(dir, name) => fstatat(dir.as_fd(), name, libc::AT_SYMLINK_NOFOLLOW)?,
            Spot::Elsewhere(handle) => fstat(handle.as_fd())?,
        };
        Ok(stat.st_mode & libc::S_IFMT)
    }

    fn clone_tree(&self) -> sys::Result<OwnedFd> {
        let flags = OPEN_TREE_CLONE | AT_RECURSIVE;
        match self {
            Spot::Proc(dir, name) => open_tree(dir.as_fd(), name, flags | libc::AT_SYMLINK_NOFOLLOW as u32),
            Spot::Elsewhere(handle) => open_tree(handle.as_fd(), c"", flags),
        }
    }
}

impl Masks {
    /// `null` is what [`open_null`] gave, where anything could be kept.
    pub fn new(null: Option<OwnedFd>, tree: &Tree) -> Result<Self> {
        let null = null.map_or_else(|| containers_null(tree), Ok)?;
        Ok(Masks { null: Cover::new(null), empty: None })
    }

    /// Covers `path`: a file by the null device, a directory by one shared, empty, read-only tmpfs. What does not
    /// exist needs no mask.
    pub fn cover(&mut self, tree: &Tree, proc: &Proc, path: &str) -> Result<()> {
        let object = || format!("/{path}");
        let spot = match proc.spot(tree, path) {
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(()),
            spot => spot.at("open masked path", object())?,
        };
        if stage::is_used() {
            return match spot.look(tree, path) {
                Err(Errno::ENOENT) => Ok(()),
                target => self.cover_at_once(target.at("open masked path", object())?.as_fd()).at("mask", object()),
            };
        }
        // Asked first: a cover that could not be attached is a mount of its own, and its end waits for an RCU grace period.
        let cover = match spot.kind() {
            Err(Errno::ENOENT) => return Ok(()),
            kind => match kind.at("stat masked path", object())? {
                libc::S_IFDIR => match &mut self.empty {
                    Some(empty) => empty,
                    none => none.insert(Cover::new(empty_tmpfs().at("mount tmpfs for masked path", object())?)),
                },
                _ => &mut self.null,
            },
        };
        cover.put(|mount| spot.attach(mount)).at("mask", object())
    }

    /// Without detached mounts: each directory by a tmpfs of its own.
    fn cover_at_once(&self, target: BorrowedFd<'_>) -> sys::Result<()> {
        match fstat(target)?.st_mode & libc::S_IFMT {
            libc::S_IFDIR => stage::mount_on(target, c"tmpfs", &EMPTY, CLOSED),
            _ => bind_file(self.null.mount.as_fd(), target),
        }
    }
}

const EMPTY: [(&CStr, Option<&CStr>); 2] = [(c"ro", None), (c"mode", Some(c"555"))];
const CLOSED: u64 = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;

/// An empty, read-only directory, attached nowhere yet.
pub(super) fn empty_tmpfs() -> sys::Result<OwnedFd> {
    new_filesystem(c"tmpfs", &EMPTY, CLOSED)
}

/// Makes `path` and what is mounted below it read-only, by a bind of it onto itself. What does not exist is left out.
pub(super) fn make_readonly(tree: &Tree, proc: &Proc, path: &str) -> Result<()> {
    let object = || format!("/{path}");
    let missing = [Errno::ENOENT, Errno::ENOTDIR];
    let spot = match proc.spot(tree, path) {
        Err(errno) if missing.contains(&errno) => return Ok(()),
        spot => spot.at("open read-only path", object())?,
    };
    if stage::is_used() {
        return readonly_at_once(tree, &spot, path).at("make read-only", object());
    }
    let copy = match spot.clone_tree() {
        Err(errno) if missing.contains(&errno) => return Ok(()),
        copy => copy.at("bind read-only path", object())?,
    };
    let attr = MountAttr { attr_set: MOUNT_ATTR_RDONLY, ..MountAttr::default() };
    mount_setattr(copy.as_fd(), AT_RECURSIVE, &attr).at("make read-only", object())?;
    spot.attach(copy.as_fd()).at("mount read-only path", object())
}

/// Without detached mounts: bound first, and read-only then. What was bound must be what is found there afterwards.
fn readonly_at_once(tree: &Tree, spot: &Spot, path: &str) -> sys::Result<()> {
    let identity = |fd: BorrowedFd<'_>| fstat(fd).map(|stat| (stat.st_dev, stat.st_ino));
    let before = match spot.look(tree, path) {
        Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(()),
        before => before?,
    };
    stage::bind_on_itself(before.as_fd())?;
    let after = spot.look(tree, path)?;
    let same = identity(before.as_fd())? == identity(after.as_fd())?;
    if !same || mount_id(before.as_fd())? == mount_id(after.as_fd())? {
        return Err(Errno::ESTALE);
    }
    let attr = MountAttr { attr_set: MOUNT_ATTR_RDONLY, ..MountAttr::default() };
    mount_setattr(after.as_fd(), AT_RECURSIVE, &attr)
}
