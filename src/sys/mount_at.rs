//! Mount calls that name the place as one component below a descriptor, and the working directory by descriptor.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use super::{Result, check, path, stage};

/// Attaches the detached mount `from` at `name` below `dir`. A symbolic link at `name` is not followed.
///
/// # Errors
/// As `move_mount(2)`: `EINVAL` where one is a directory and the other is not.
pub fn move_mount_at(from: BorrowedFd<'_>, dir: BorrowedFd<'_>, name: &CStr) -> Result<()> {
    const F_EMPTY_PATH: u32 = 0x4;
    let staged =
        stage::with(|stage| stage.attach(from, path::openat(dir, name, libc::O_PATH | libc::O_NOFOLLOW, 0)?.as_fd()));
    if let Some(attached) = staged {
        return attached;
    }
    // SAFETY: valid descriptors and NUL-terminated strings that outlive the call.
    check(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            from.as_raw_fd(),
            c"".as_ptr(),
            dir.as_raw_fd(),
            name.as_ptr(),
            F_EMPTY_PATH,
        )
    })
    .map(drop)
}

/// `fchdir(2)`.
///
/// # Errors
/// As `fchdir(2)`.
pub fn fchdir(dir: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: a valid descriptor.
    check(unsafe { libc::fchdir(dir.as_raw_fd()) }.into()).map(drop)
}

/// `fchownat(2)` of `name` below `dir`, not following a symbolic link; `None` leaves the id as it is.
///
/// # Errors
/// As `fchownat(2)`.
pub fn chown_at(dir: BorrowedFd<'_>, name: &CStr, uid: Option<u32>, gid: Option<u32>) -> Result<()> {
    let (uid, gid) = (uid.unwrap_or(u32::MAX), gid.unwrap_or(u32::MAX));
    // SAFETY: a valid descriptor and a NUL-terminated string that outlive the call.
    let done = unsafe { libc::fchownat(dir.as_raw_fd(), name.as_ptr(), uid, gid, libc::AT_SYMLINK_NOFOLLOW) };
    check(done.into()).map(drop)
}
