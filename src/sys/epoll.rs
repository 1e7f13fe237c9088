//! What nix's epoll set lacks: taking a descriptor out by its number, when its owner is no longer at hand.

use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use super::{Errno, Result};

/// Takes a descriptor out of an epoll set.
///
/// # Errors
/// `ENOENT` where it is not in it, `EBADF` where it is closed.
pub fn remove(epoll: BorrowedFd<'_>, fd: RawFd) -> Result<()> {
    // SAFETY: EPOLL_CTL_DEL reads no memory (the event may be null since Linux 2.6.9), and a number that names no
    // descriptor is refused.
    let done = unsafe { libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_DEL, fd, std::ptr::null_mut()) };
    Errno::result(done).map(drop)
}
