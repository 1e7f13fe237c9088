//! Mounts by handle: `open_tree`, `move_mount`, `fsopen`, `mount_setattr`; the old calls, where only they will do, and where
//! only they are there ([`super::stage`]).

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::{Result, check, stage};

pub use libc::{MOUNT_ATTR_IDMAP, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY};

/// `open_tree(2)` flag: clone the mount instead of only opening it.
pub const OPEN_TREE_CLONE: u32 = 1;
/// Applies to the whole subtree (`open_tree`, `mount_setattr`).
pub const AT_RECURSIVE: u32 = 0x8000;

/// `struct mount_attr` of `mount_setattr(2)`.
#[repr(C)]
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct MountAttr {
    /// `MOUNT_ATTR_*` to set.
    pub attr_set: u64,
    /// `MOUNT_ATTR_*` to clear.
    pub attr_clr: u64,
    /// `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE`, `MS_UNBINDABLE` or 0.
    pub propagation: u64,
    /// A user namespace descriptor for `MOUNT_ATTR_IDMAP`.
    pub userns_fd: u64,
}

/// Opens the mount at `path` below `dir` (`""` for `dir` itself); with [`OPEN_TREE_CLONE`] a detached copy of it.
///
/// # Errors
/// As `open_tree(2)`: `ENOSYS` before Linux 5.2, `EPERM` without `CAP_SYS_ADMIN` for a clone.
pub fn open_tree(dir: BorrowedFd<'_>, path: &CStr, flags: u32) -> Result<OwnedFd> {
    if flags & OPEN_TREE_CLONE != 0
        && let Some(copy) = stage::with(|stage| stage.copy(dir, path, flags))
    {
        return copy;
    }
    let mut flags = flags | libc::O_CLOEXEC as u32;
    if path.is_empty() {
        flags |= libc::AT_EMPTY_PATH as u32;
    }
    // SAFETY: a valid descriptor and a NUL-terminated string that outlive the call.
    let fd = check(unsafe { libc::syscall(libc::SYS_open_tree, dir.as_raw_fd(), path.as_ptr(), flags) })?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Attaches the detached mount `from` at the place that `to` is a handle of.
///
/// # Errors
/// As `move_mount(2)`.
pub fn move_mount(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
    const F_EMPTY_PATH: u32 = 0x4;
    const T_EMPTY_PATH: u32 = 0x40;
    if let Some(attached) = stage::with(|stage| stage.attach(from, to)) {
        return attached;
    }
    let empty = c"".as_ptr();
    // SAFETY: valid descriptors and a constant string.
    check(unsafe {
        libc::syscall(libc::SYS_move_mount, from.as_raw_fd(), empty, to.as_raw_fd(), empty, F_EMPTY_PATH | T_EMPTY_PATH)
    })
    .map(drop)
}

/// Changes the attributes of the mount that `mount` is a handle of; `flags` is 0 or [`AT_RECURSIVE`].
///
/// # Errors
/// As `mount_setattr(2)`: `ENOSYS` before Linux 5.12, `EPERM` for locked flags, `EINVAL` where ids cannot be mapped.
pub fn mount_setattr(mount: BorrowedFd<'_>, flags: u32, attr: &MountAttr) -> Result<()> {
    if let Some(set) = stage::with(|stage| stage.set_attributes(mount, flags & AT_RECURSIVE != 0, attr)) {
        return set;
    }
    let flags = flags | libc::AT_EMPTY_PATH as u32;
    // SAFETY: a valid descriptor, a constant string and a mount_attr of the size given.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(attr),
            size_of::<MountAttr>(),
        )
    })
    .map(drop)
}

/// Binds the file that `source` is a handle of at the place that `target` is a handle of.
///
/// # Errors
/// As [`open_tree`] and [`move_mount`].
pub fn bind_file(source: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<()> {
    if let Some(bound) = stage::with(|stage| stage.bind(source, target, 0)) {
        return bound;
    }
    move_mount(open_tree(source, c"", OPEN_TREE_CLONE)?.as_fd(), target)
}

/// A new filesystem of the type named, with options as a mount command has them after `-o`, and `MOUNT_ATTR_*` for the mount:
/// detached (`fsopen(2)`, `fsconfig(2)`, `fsmount(2)`).
///
/// # Errors
/// `ENODEV` for an unknown type, `EINVAL` for an option that it does not know, `ENOSYS` before Linux 5.2, `EPERM` without
/// `CAP_SYS_ADMIN`.
pub fn new_filesystem(fstype: &CStr, options: &[(&CStr, Option<&CStr>)], attributes: u64) -> Result<OwnedFd> {
    if let Some(made) = stage::with(|stage| stage.filesystem(fstype, options, attributes)) {
        return made;
    }
    let context = FsContext::open(fstype)?;
    for (key, value) in options {
        match value {
            Some(value) => context.set_string(key, value)?,
            None => context.set_flag(key)?,
        }
    }
    context.mount(attributes)
}

/// A filesystem being configured (`fsopen(2)`).
#[derive(Debug)]
struct FsContext(OwnedFd);

impl FsContext {
    fn open(fstype: &CStr) -> Result<Self> {
        const FSOPEN_CLOEXEC: u32 = 1;
        // SAFETY: a NUL-terminated string that outlives the call.
        let fd = check(unsafe { libc::syscall(libc::SYS_fsopen, fstype.as_ptr(), FSOPEN_CLOEXEC) })?;
        // SAFETY: the kernel has just made this descriptor for us.
        Ok(FsContext(unsafe { OwnedFd::from_raw_fd(fd as i32) }))
    }

    fn set_string(&self, key: &CStr, value: &CStr) -> Result<()> {
        self.config(1, key.as_ptr(), value.as_ptr())
    }

    fn set_flag(&self, key: &CStr) -> Result<()> {
        self.config(0, key.as_ptr(), std::ptr::null())
    }

    fn mount(self, attributes: u64) -> Result<OwnedFd> {
        const FSMOUNT_CLOEXEC: u32 = 1;
        self.config(6, std::ptr::null(), std::ptr::null())?;
        // SAFETY: a valid descriptor; no memory is passed.
        let fd =
            check(unsafe { libc::syscall(libc::SYS_fsmount, self.0.as_raw_fd(), FSMOUNT_CLOEXEC, attributes as u32) })?;
        // SAFETY: the kernel has just made this descriptor for us.
        Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
    }

    fn config(&self, command: u32, key: *const libc::c_char, value: *const libc::c_char) -> Result<()> {
        // SAFETY: callers pass null or pointers to NUL-terminated strings that outlive the call.
        check(unsafe { libc::syscall(libc::SYS_fsconfig, self.0.as_raw_fd(), command, key, value, 0) }).map(drop)
    }
}

/// `mount(2)`, for what the handle-based calls cannot do. `flags` are `MS_*`.
///
/// # Errors
/// As `mount(2)`.
pub fn mount(
    source: Option<&CStr>,
    target: &CStr,
    fstype: Option<&CStr>,
    flags: u64,
    data: Option<&CStr>,
) -> Result<()> {
    let or_null = |s: Option<&CStr>| s.map_or(std::ptr::null(), CStr::as_ptr);
    // SAFETY: every pointer is null or a NUL-terminated string that outlives the call.
    let done = unsafe {
        libc::mount(or_null(source), target.as_ptr(), or_null(fstype), flags, or_null(data).cast::<libc::c_void>())
    };
    check(done.into()).map(drop)
}

/// `umount2(2)`; `flags` are `MNT_*` and `UMOUNT_NOFOLLOW`.
///
/// # Errors
/// As `umount2(2)`.
pub fn umount2(target: &CStr, flags: i32) -> Result<()> {
    // SAFETY: a NUL-terminated string that outlives the call.
    check(unsafe { libc::umount2(target.as_ptr(), flags) }.into()).map(drop)
}

/// Makes the current directory the root mount and stacks the old root on top of it (`pivot_root(".", ".")`).
///
/// # Errors
/// As `pivot_root(2)`: `EINVAL` where the current root is no mount point (an initramfs).
pub fn pivot_root_here() -> Result<()> {
    // SAFETY: constant strings.
    check(unsafe { libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()) }).map(drop)
}
