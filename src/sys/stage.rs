//! Mounting by `mount(2)` alone: where a kernel has no detached mounts (before Linux 5.2; 5.12 for their attributes), or an
//! outer filter keeps the caller from them.
//!
//! What is detached elsewhere lies here on a tmpfs of the caller's mount namespace, the stage, each mount at a place of its
//! own, until it is moved to where it belongs. Every place is named to the kernel by its descriptor's link in a procfs that was
//! checked and opened before, so no path of the container is ever looked up.
//!
//! [`super::mount`] asks here first; nothing is staged until [`begin`], and no copies are made any more after [`strike`].

use std::cell::{Cell, RefCell};
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use super::mount::{AT_RECURSIVE, MOUNT_ATTR_IDMAP, MountAttr, mount, umount2};
use super::path::{self, CWD, RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, mkdirat, mknodat, openat, openat2};
use super::{Errno, Result, mount_at, mountinfo};

/// A stage of the caller's mount namespace.
#[derive(Debug)]
pub(super) struct Stage {
    /// The root of its tmpfs; none once it has been struck.
    root: Option<OwnedFd>,
    /// `/proc/self/fd` of the host.
    links: OwnedFd,
    places: Cell<u32>,
}

thread_local! {
    static STAGE: RefCell<Option<Stage>> = const { RefCell::new(None) };
}

/// Mounts a tmpfs where `place` is a handle of, and begins to stage mounts on it, in this thread. `top` is a path of what is
/// mounted there last, which must not lead through a symbolic link.
///
/// # Errors
/// `ENOENT` or `ENOTSUP` where `/proc` is no procfs that shows the caller; `ESTALE` where the path leads elsewhere; as `mount(2)`.
pub fn begin(place: BorrowedFd<'_>, top: &CStr) -> Result<()> {
    let links = openat(CWD, c"/proc/self/fd", libc::O_PATH | libc::O_DIRECTORY, 0)?;
    if path::fstatfs(links.as_fd())?.f_type != libc::PROC_SUPER_MAGIC {
        return Err(Errno::ENOTSUP);
    }
    mount_at::fchdir(links.as_fd())?;
    let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    mount(Some(c"none"), &link(place)?, Some(c"tmpfs"), flags, Some(c"mode=700"))?;
    let root = openat2(CWD, top, libc::O_PATH | libc::O_DIRECTORY, 0, RESOLVE_NO_SYMLINKS)?;
    let is_tmpfs = path::fstatfs(root.as_fd())?.f_type == libc::TMPFS_MAGIC;
    if !is_tmpfs || path::mount_id(root.as_fd())? == path::mount_id(place)? {
        return Err(Errno::ESTALE);
    }
    // A copy of what the stage is mounted on does not have it.
    mount(None, &link(root.as_fd())?, None, libc::MS_UNBINDABLE, None)?;
    STAGE.set(Some(Stage { root: Some(root), links, places: Cell::new(0) }));
    Ok(())
}

/// Whether mounts are staged.
pub fn is_used() -> bool {
    STAGE.with_borrow(Option::is_some)
}

/// Everything is at its place: unmounts the stage, unless it is `covered` and goes with what covers it. From here on mounts only
/// change. The working directory is the root again.
///
/// # Errors
/// As `umount2(2)`.
pub fn strike(covered: bool) -> Result<()> {
    let root = STAGE.with_borrow_mut(|stage| stage.as_mut().and_then(|stage| stage.root.take()));
    let Some(root) = root else { return Ok(()) };
    if !covered {
        mount_at::fchdir(root.as_fd())?;
        umount2(c".", libc::MNT_DETACH)?;
    }
    nix::unistd::chdir(c"/")
}

/// Closes what is held. The working directory, which was the host's procfs, is the root again.
///
/// # Errors
/// As `chdir(2)`.
pub fn end() -> Result<()> {
    if STAGE.take().is_some() { nix::unistd::chdir(c"/") } else { Ok(()) }
}

/// Mounts a filesystem, as [`super::mount::new_filesystem`] makes it, at once where `target` is a handle of.
///
/// # Errors
/// As `mount(2)`; `ENOSYS` where nothing is staged.
pub fn mount_on(
    target: BorrowedFd<'_>,
    fstype: &CStr,
    options: &[(&CStr, Option<&CStr>)],
    attributes: u64,
) -> Result<()> {
    with(|stage| stage.mount_on(target, fstype, options, attributes)).unwrap_or(Err(Errno::ENOSYS))
}

/// Binds a tree onto itself.
///
/// # Errors
/// As `mount(2)`; `ENOSYS` where nothing is staged.
pub fn bind_on_itself(target: BorrowedFd<'_>) -> Result<()> {
    with(|stage| stage.bind(target, target, libc::MS_REC)).unwrap_or(Err(Errno::ENOSYS))
}

/// What the stage answers; nothing where there is none.
pub(super) fn with<T>(act: impl FnOnce(&Stage) -> Result<T>) -> Option<Result<T>> {
    STAGE.with_borrow(|stage| stage.as_ref().map(act))
}

fn link(fd: BorrowedFd<'_>) -> Result<CString> {
    CString::new(fd.as_raw_fd().to_string()).map_err(|_| Errno::EINVAL)
}

impl Stage {
    /// In place of `open_tree(OPEN_TREE_CLONE)`.
    pub fn copy(&self, dir: BorrowedFd<'_>, path: &CStr, flags: u32) -> Result<OwnedFd> {
        let follow = if flags & libc::AT_SYMLINK_NOFOLLOW as u32 == 0 { 0 } else { libc::O_NOFOLLOW };
        let opened = if path.is_empty() { None } else { Some(openat(dir, path, libc::O_PATH | follow, 0)?) };
        let source = opened.as_ref().map_or(dir, AsFd::as_fd);
        let directory = path::fstat(source)?.st_mode & libc::S_IFMT == libc::S_IFDIR;
        let recursive = if flags & AT_RECURSIVE == 0 { 0 } else { libc::MS_REC };
        self.place(directory, |place| self.bind(source, place, recursive))
    }

    /// In place of `fsopen(2)`, `fsconfig(2)` and `fsmount(2)`. `attributes` are `MOUNT_ATTR_*`.
    pub fn filesystem(&self, fstype: &CStr, options: &[(&CStr, Option<&CStr>)], attributes: u64) -> Result<OwnedFd> {
        self.place(true, |place| self.mount_on(place, fstype, options, attributes))
    }

    fn mount_on(
        &self,
        target: BorrowedFd<'_>,
        fstype: &CStr,
        options: &[(&CStr, Option<&CStr>)],
        attributes: u64,
    ) -> Result<()> {
        let mut flags = flags(attributes);
        let mut data = Vec::new();
        for (key, value) in options {
            match value {
                // An option of every filesystem, and so a flag.
                None if *key == c"ro" => flags |= libc::MS_RDONLY,
                None => data.push(key.to_bytes().to_vec()),
                Some(value) => data.push([key.to_bytes(), b"=", value.to_bytes()].concat()),
            }
        }
        let data = CString::new(data.join(b",".as_slice())).map_err(|_| Errno::EINVAL)?;
        self.mount(Some(c"none"), target, Some(fstype), flags, Some(&data))
    }

    /// `mount(2)` on what `target` is a handle of; links of other descriptors are names in the working directory, too.
    fn mount(
        &self,
        source: Option<&CStr>,
        target: BorrowedFd<'_>,
        fstype: Option<&CStr>,
        flags: u64,
        data: Option<&CStr>,
    ) -> Result<()> {
        mount_at::fchdir(self.links.as_fd())?;
        mount(source, &link(target)?, fstype, flags, data)
    }

    /// Makes a place, mounts on it, and gives the mount.
    fn place(&self, directory: bool, make: impl FnOnce(BorrowedFd<'_>) -> Result<()>) -> Result<OwnedFd> {
        let root = self.root.as_ref().ok_or(Errno::ENOSYS)?.as_fd();
        let name = CString::new(self.places.get().to_string()).map_err(|_| Errno::EINVAL)?;
        self.places.set(self.places.get() + 1);
        if directory {
            mkdirat(root, &name, 0o700)?;
        } else {
            mknodat(root, &name, libc::S_IFREG | 0o600, 0)?;
        }
        let open = || openat(root, &name, libc::O_PATH | libc::O_NOFOLLOW, 0);
        make(open()?.as_fd())?;
        open()
    }

    /// In place of `move_mount(2)`.
    pub fn attach(&self, from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
        self.mount(Some(&link(from)?), to, None, libc::MS_MOVE, None)
    }

    /// Binds at once, with `MS_REC` or 0.
    pub fn bind(&self, source: BorrowedFd<'_>, target: BorrowedFd<'_>, recursive: u64) -> Result<()> {
        self.mount(Some(&link(source)?), target, None, libc::MS_BIND | recursive, None)
    }

    /// What procfs tells of a descriptor.
    pub fn info(&self, fd: BorrowedFd<'_>) -> Result<OwnedFd> {
        let name = CString::new(format!("../fdinfo/{}", fd.as_raw_fd())).map_err(|_| Errno::EINVAL)?;
        openat(self.links.as_fd(), &name, libc::O_RDONLY | libc::O_NOFOLLOW, 0)
    }

    /// In place of `mount_setattr(2)`, but for the mapping of ids, which only that call can do.
    pub fn set_attributes(&self, mounted: BorrowedFd<'_>, recursive: bool, attr: &MountAttr) -> Result<()> {
        if attr.attr_set & MOUNT_ATTR_IDMAP != 0 {
            return Err(Errno::ENOSYS);
        }
        if attr.propagation != 0 {
            let flags = attr.propagation | if recursive { libc::MS_REC } else { 0 };
            self.mount(None, mounted, None, flags, None)?;
        }
        if attr.attr_set == 0 && attr.attr_clr == 0 {
            return Ok(());
        }
        self.remount(mounted, attr)?;
        if recursive {
            for below in self.below(mounted)? {
                self.remount(below.as_fd(), attr)?;
            }
        }
        Ok(())
    }

    /// Every other flag stays: a remount that named fewer would drop those that a more privileged namespace has locked.
    fn remount(&self, mounted: BorrowedFd<'_>, attr: &MountAttr) -> Result<()> {
        let now = attributes(path::mount_flags(mounted)?);
        let flags = flags(now & !attr.attr_clr | attr.attr_set);
        self.mount(None, mounted, None, libc::MS_REMOUNT | libc::MS_BIND | flags, None)
    }

    /// The mounts below a mount. One that another covers cannot be reached, and must not stay as it is unnoticed: `EBUSY`.
    fn below(&self, top: BorrowedFd<'_>) -> Result<Vec<OwnedFd>> {
        const LONGEST: usize = 64 << 20;
        let file = openat(self.links.as_fd(), c"../mountinfo", libc::O_RDONLY, 0)?;
        let table = mountinfo::parse(&path::read_all(file.as_fd(), LONGEST)?).map_err(|_| Errno::EINVAL)?;
        let id = path::mount_id(top)?;
        let here = table.iter().find(|mount| mount.id == id).ok_or(Errno::EINVAL)?;
        let mut within = vec![id];
        let mut handles = Vec::new();
        // Whoever is mounted on another may stand before it, once one has been moved.
        while let Some(parent) = within.pop() {
            for mount in table.iter().filter(|mount| mount.parent == parent && mount.id != parent) {
                within.push(mount.id);
                let relative = mount.point.strip_prefix(&here.point).map_err(|_| Errno::EBUSY)?;
                let name = if relative.as_os_str().is_empty() { c".".to_owned() } else { path::c_path(relative)? };
                let handle = openat2(top, &name, libc::O_PATH, 0, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)?;
                if path::mount_id(handle.as_fd())? != mount.id {
                    return Err(Errno::EBUSY);
                }
                handles.push(handle);
            }
        }
        Ok(handles)
    }
}

/// Pairs of a `MOUNT_ATTR_*` and the `MS_*` of `mount(2)` for it, but for those of the access time.
const FLAGS: [(u64, u64); 6] = [
    (libc::MOUNT_ATTR_RDONLY, libc::MS_RDONLY),
    (libc::MOUNT_ATTR_NOSUID, libc::MS_NOSUID),
    (libc::MOUNT_ATTR_NODEV, libc::MS_NODEV),
    (libc::MOUNT_ATTR_NOEXEC, libc::MS_NOEXEC),
    (libc::MOUNT_ATTR_NODIRATIME, libc::MS_NODIRATIME),
    (libc::MOUNT_ATTR_NOSYMFOLLOW, libc::MS_NOSYMFOLLOW),
];

/// `MOUNT_ATTR_*` as the `MS_*` that say the same.
fn flags(attributes: u64) -> u64 {
    let access_time = match attributes & libc::MOUNT_ATTR__ATIME {
        libc::MOUNT_ATTR_NOATIME => libc::MS_NOATIME,
        libc::MOUNT_ATTR_STRICTATIME => libc::MS_STRICTATIME,
        _ => libc::MS_RELATIME,
    };
    FLAGS.iter().filter(|(attribute, _)| attributes & attribute != 0).fold(access_time, |all, (_, flag)| all | flag)
}

/// The `ST_*` flags of `fstatvfs(3)` as `MOUNT_ATTR_*`.
fn attributes(st: u64) -> u64 {
    /// `ST_RELATIME` and `ST_NOSYMFOLLOW` of `<linux/statfs.h>`, which differ from their `MS_*`.
    const ST_RELATIME: u64 = 0x1000;
    const ST_NOSYMFOLLOW: u64 = 0x2000;
    let access_time = if st & libc::MS_NOATIME != 0 {
        libc::MOUNT_ATTR_NOATIME
    } else if st & ST_RELATIME != 0 {
        libc::MOUNT_ATTR_RELATIME
    } else {
        libc::MOUNT_ATTR_STRICTATIME
    };
    let is_set = |flag: u64| st & if flag == libc::MS_NOSYMFOLLOW { ST_NOSYMFOLLOW } else { flag } != 0;
    FLAGS.iter().filter(|(_, flag)| is_set(*flag)).fold(access_time, |all, (attribute, _)| all | attribute)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_and_attributes_say_the_same() {
        use libc::*;
        let all = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC | MOUNT_ATTR_NOSYMFOLLOW;
        assert_eq!(
            flags(all | MOUNT_ATTR_NOATIME | MOUNT_ATTR_NODIRATIME),
            MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_NOSYMFOLLOW | MS_NOATIME | MS_NODIRATIME
        );
        assert_eq!(flags(0), MS_RELATIME);
        assert_eq!(attributes(0x1000 | 0x2000 | 0xf), all);
        assert_eq!(attributes(0), MOUNT_ATTR_STRICTATIME);
        assert_eq!(attributes(MS_NOATIME | MS_NODIRATIME), MOUNT_ATTR_NOATIME | MOUNT_ATTR_NODIRATIME);
    }
}
