//! Which descriptors a program inherits, and closing what it shall not.

use std::os::fd::{AsRawFd, BorrowedFd};

use super::{Errno, Result, check};

/// Opens `/dev/null` in place of each standard stream that is closed, so that no descriptor of the program's own is taken
/// for one. Ends the program where it cannot.
pub(super) fn fill_standard_streams() {
    for stream in 0..3 {
        // SAFETY: only looked at.
        if unsafe { libc::fcntl(stream, libc::F_GETFD) } < 0 && Errno::last() == Errno::EBADF {
            // SAFETY: a string; the lowest number that is free is this stream's, and it stays open in what is executed.
            let opened = unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR) };
            if opened != stream {
                std::process::abort();
            }
        }
    }
}

/// Marks every descriptor from `first` on as close-on-exec (`close_range(2)`).
/// Before Linux 5.11, and where a filter keeps the caller from that, one by one.
///
/// # Errors
/// None that a valid call can meet.
pub fn close_on_exec_from(first: u32) -> Result<()> {
    const CLOSE_RANGE_CLOEXEC: u32 = 4;
    // SAFETY: only flags change; no descriptor is closed under its owner.
    match check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, CLOSE_RANGE_CLOEXEC) }) {
        Err(Errno::ENOSYS | Errno::EPERM | Errno::EINVAL) => {
            each_open(first, u32::MAX, |fd| {
                // SAFETY: the same.
                unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
            });
            Ok(())
        }
        other => other.map(drop),
    }
}

/// Calls `with` for every open descriptor from `first` to `last`, where there is no `close_range(2)`. Procfs may be the
/// container's by now, and the process's own limit lower than when it opened them: so each place of the kernel's table is
/// asked for. (`poll(2)` would ask for many at once, and takes one opened with `O_PATH` for none.)
pub(super) fn each_open(first: u32, last: u32, mut with: impl FnMut(i32)) {
    for fd in first..last.saturating_add(1).min(table_size()) {
        // SAFETY: only looked at.
        if unsafe { libc::fcntl(fd as i32, libc::F_GETFD) } >= 0 {
            with(fd as i32);
        }
    }
}

/// A power of two that no open descriptor of this process reaches: as far as the kernel's table of them goes. `pselect(2)` tells,
/// as it looks at the table's own bits: a place that is not open is `EBADF`, one beyond the end is not looked at.
fn table_size() -> u32 {
    const FIRST: u32 = 64;
    const MOST: u32 = 1 << 31;
    /// What `fs.nr_open` is where nobody has changed it.
    const NR_OPEN: u32 = 1 << 20;
    let mut size = FIRST;
    while size < MOST {
        let mut set = vec![0_u64; size as usize / 64 + 1];
        set[size as usize / 64] = 1;
        let at_once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let none = std::ptr::null_mut::<u64>();
        // SAFETY: a set of as many bits as it is told and more, and a time to read; the rest is null.
        let looked = check(unsafe {
            libc::syscall(libc::SYS_pselect6, size + 1, set.as_mut_ptr(), none, none, &raw const at_once, none)
        });
        match looked {
            Err(Errno::EBADF) => {}
            // SAFETY: only looked at.
            Ok(_) if unsafe { libc::fcntl(size as i32, libc::F_GETFD) } >= 0 => {}
            Ok(_) => return size,
            // A filter keeps the caller even from that: as far as any descriptor may go.
            Err(_) => break,
        }
        size *= 2;
    }
    let limit = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE);
    limit.map_or(MOST, |(_, hard)| hard.clamp(NR_OPEN.into(), MOST.into()) as u32)
}

/// Clears close-on-exec of `fd`, so that an executed program inherits it.
///
/// # Errors
/// As `fcntl(2)`.
pub fn keep_on_exec(fd: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: a valid descriptor.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, 0) }.into()).map(drop)
}

#[cfg(test)]
mod tests {
    use std::os::fd::{FromRawFd, OwnedFd};

    use super::*;
    use crate::sys::path;

    #[test]
    fn every_open_descriptor_is_found_one_opened_as_a_path_too() {
        let directory = path::open("/", libc::O_PATH | libc::O_DIRECTORY).expect("/");
        // SAFETY: no memory is passed.
        let high =
            check(unsafe { libc::fcntl(directory.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 900) }.into()).expect("a copy");
        // SAFETY: it is new, and nobody else's.
        let high = unsafe { OwnedFd::from_raw_fd(high as i32) };
        let mut found = Vec::new();
        each_open(0, u32::MAX, |fd| found.push(fd));
        assert!(found.contains(&directory.as_raw_fd()) && found.contains(&high.as_raw_fd()), "{found:?}");
        assert!(table_size() > high.as_raw_fd() as u32);
        found.clear();
        each_open(3, high.as_raw_fd() as u32 - 1, |fd| found.push(fd));
        assert!(!found.contains(&0) && !found.contains(&high.as_raw_fd()), "{found:?}");
    }
}
