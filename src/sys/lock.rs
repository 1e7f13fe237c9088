//! Locks on open files (`flock(2)`), held until they are dropped.

use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

pub use nix::fcntl::FlockArg;

use super::{Errno, Result};

/// A descriptor whose file is locked. Dropping it unlocks the file for everybody who has a copy of the descriptor, and
/// whatever the kernel says to that is no reason to panic: closing the last copy unlocks it, too.
#[derive(Debug)]
pub struct Lock {
    fd: ManuallyDrop<OwnedFd>,
}

impl Lock {
    /// Locks, waiting where `how` says so, through any signal.
    ///
    /// # Errors
    /// As `flock(2)`, with the descriptor: `EWOULDBLOCK` where another has the lock and `how` does not wait.
    pub fn take(fd: OwnedFd, how: FlockArg) -> Result<Lock, (OwnedFd, Errno)> {
        match flock(fd.as_raw_fd(), how) {
            Ok(()) => Ok(Lock { fd: ManuallyDrop::new(fd) }),
            Err(errno) => Err((fd, errno)),
        }
    }

    /// Unlocks and gives the descriptor back.
    ///
    /// # Errors
    /// As `flock(2)`.
    pub fn unlock(self) -> Result<OwnedFd> {
        let mut lock = ManuallyDrop::new(self);
        // SAFETY: the lock is forgotten, so nobody uses or drops its descriptor again.
        let fd = unsafe { ManuallyDrop::take(&mut lock.fd) };
        flock(fd.as_raw_fd(), FlockArg::Unlock).map(|()| fd)
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = flock(self.fd.as_raw_fd(), FlockArg::Unlock);
        // SAFETY: this is the drop of its owner, after which nobody uses it.
        unsafe { ManuallyDrop::drop(&mut self.fd) };
    }
}

impl AsFd for Lock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The process that has a lock on the file, by `/proc/locks`: as far as it is of this pid namespace.
pub fn holder(file: BorrowedFd<'_>) -> Option<libc::pid_t> {
    let stat = super::path::fstat(file).ok()?;
    let (major, minor) = (nix::sys::stat::major(stat.st_dev), nix::sys::stat::minor(stat.st_dev));
    let place = format!("{major:02x}:{minor:02x}:{}", stat.st_ino);
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    let pid = |line: &str| match line.split_whitespace().collect::<Vec<_>>()[..] {
        // In the line of one who waits an arrow comes before the kind.
        [_, "FLOCK", _, _, pid, file, ..] if file == place => pid.parse().ok().filter(|pid| *pid > 0),
        _ => None,
    };
    locks.lines().find_map(pid)
}

#[allow(deprecated)] // The type that nix has instead panics when it cannot unlock.
fn flock(fd: RawFd, how: FlockArg) -> Result<()> {
    loop {
        match nix::fcntl::flock(fd, how) {
            Err(Errno::EINTR) => {}
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_gone_with_its_owner_also_where_somebody_has_a_copy_of_the_descriptor() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let open = || OwnedFd::from(std::fs::File::open(file.path()).unwrap());
        let first = Lock::take(open(), FlockArg::LockExclusive).unwrap();
        let copy = first.as_fd().try_clone_to_owned().unwrap();
        let (second, errno) = Lock::take(open(), FlockArg::LockExclusiveNonblock).unwrap_err();
        assert_eq!(errno, Errno::EWOULDBLOCK);
        drop(first);
        let second = Lock::take(second, FlockArg::LockExclusiveNonblock).unwrap();
        let opened = second.unlock().unwrap();
        drop(Lock::take(copy, FlockArg::LockExclusiveNonblock).unwrap());
        Lock::take(opened, FlockArg::LockExclusiveNonblock).unwrap();
    }
}
