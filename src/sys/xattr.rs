//! Extended attributes and time stamps of open files.

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd};

use super::{Result, check};

/// The names of a file's extended attributes (`flistxattr(2)`).
///
/// # Errors
/// As `flistxattr(2)`: `ENOTSUP` where the file system has none; `ERANGE` above 64 KiB, the kernel's own limit.
pub fn list(file: BorrowedFd<'_>) -> Result<Vec<CString>> {
    let mut names = vec![0u8; 65536];
    // SAFETY: a valid descriptor and a buffer of the length given.
    let length = unsafe { libc::flistxattr(file.as_raw_fd(), names.as_mut_ptr().cast(), names.len()) };
    let length = check(length as i64)? as usize;
    let names = names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    Ok(names.filter_map(|name| CString::new(name).ok()).collect())
}

/// The value of an extended attribute (`fgetxattr(2)`).
///
/// # Errors
/// As `fgetxattr(2)`: `ENODATA` where the file has no such attribute.
pub fn get(file: BorrowedFd<'_>, name: &CStr) -> Result<Vec<u8>> {
    let mut value = vec![0u8; 65536];
    // SAFETY: a valid descriptor, a NUL-terminated string and a buffer of the length given.
    let length = unsafe { libc::fgetxattr(file.as_raw_fd(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
    value.truncate(check(length as i64)? as usize);
    Ok(value)
}

/// Sets an extended attribute (`fsetxattr(2)`).
///
/// # Errors
/// As `fsetxattr(2)`: `ENOTSUP` for a kind of attribute that the file system does not keep.
pub fn set(file: BorrowedFd<'_>, name: &CStr, value: &[u8]) -> Result<()> {
    // SAFETY: a valid descriptor, a NUL-terminated string and a buffer of the length given.
    let done = unsafe { libc::fsetxattr(file.as_raw_fd(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    check(done.into()).map(drop)
}

/// Gives an open file the access and modification times of `stat` (`futimens(2)`).
///
/// # Errors
/// As `futimens(2)`.
pub fn set_times(file: BorrowedFd<'_>, stat: &libc::stat) -> Result<()> {
    let times = [
        libc::timespec { tv_sec: stat.st_atime, tv_nsec: stat.st_atime_nsec },
        libc::timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec },
    ];
    // SAFETY: a valid descriptor and an array of two timespecs, as the call reads.
    check(unsafe { libc::futimens(file.as_raw_fd(), times.as_ptr()) }.into()).map(drop)
}

/// `fchown(2)`.
///
/// # Errors
/// As `fchown(2)`: `EINVAL` for an id that the user namespace does not map.
pub fn chown(file: BorrowedFd<'_>, uid: u32, gid: u32) -> Result<()> {
    // SAFETY: a valid descriptor.
    check(unsafe { libc::fchown(file.as_raw_fd(), uid, gid) }.into()).map(drop)
}

/// `fchmod(2)`.
///
/// # Errors
/// As `fchmod(2)`.
pub fn chmod(file: BorrowedFd<'_>, mode: u32) -> Result<()> {
    // SAFETY: a valid descriptor.
    check(unsafe { libc::fchmod(file.as_raw_fd(), mode) }.into()).map(drop)
}
