//! A handle of a process where `pidfd_open(2)` is missing or blocked: its directory in procfs.
//!
//! What is opened below that directory is of that very process, or fails with `ESRCH` once it has been reaped: as a pidfd, it
//! never names another one that has got its pid since. It cannot be polled, so its end is looked for; and where
//! `pidfd_send_signal(2)`, which takes such a directory too, is also missing, the signal goes by `kill(2)` to a process that was
//! there a moment ago.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use super::path::{self, CWD, openat};
use super::{Errno, Result, check};

/// Opens the directory of a process.
///
/// # Errors
/// `ESRCH` where there is no such process, `EINVAL` for a thread, as `pidfd_open(2)`; `ENOTSUP` where `/proc` is no procfs.
pub(super) fn open(pid: libc::pid_t) -> Result<OwnedFd> {
    let name = path::c_path(format!("/proc/{pid}"))?;
    let handle = openat(CWD, &name, libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW, 0).map_err(gone)?;
    if path::fstatfs(handle.as_fd())?.f_type != libc::PROC_SUPER_MAGIC {
        return Err(Errno::ENOTSUP);
    }
    let status = path::read_at(handle.as_fd(), c"status", 1 << 16).map_err(gone)?;
    let leader =
        String::from_utf8_lossy(&status).lines().find_map(|line| line.strip_prefix("Tgid:")?.trim().parse().ok());
    if leader == Some(pid) { Ok(handle) } else { Err(Errno::EINVAL) }
}

fn gone(errno: Errno) -> Errno {
    if errno == Errno::ENOENT { Errno::ESRCH } else { errno }
}

/// A field of `/proc/<pid>/stat` after the second, by its number in proc_pid_stat(5). The name in field 2 may hold anything,
/// also `)`: the last one counts.
pub fn field(stat: &[u8], number: usize) -> Option<&str> {
    let after_name = stat.iter().rposition(|&byte| byte == b')')? + 1;
    std::str::from_utf8(&stat[after_name..]).ok()?.split_ascii_whitespace().nth(number.checked_sub(3)?)
}

/// Whether a handle is such a directory.
pub(super) fn is(handle: BorrowedFd<'_>) -> Result<bool> {
    Ok(path::fstat(handle)?.st_mode & libc::S_IFMT == libc::S_IFDIR)
}

/// Waits for the end of its process, as [`super::pidfd::wait_end`].
pub(super) fn wait_end(handle: BorrowedFd<'_>, timeout_ms: i32) -> Result<bool> {
    /// Between two looks: about what a short-lived process lives.
    const LOOK: Duration = Duration::from_millis(1);
    let deadline = u64::try_from(timeout_ms).ok().map(|ms| Instant::now() + Duration::from_millis(ms));
    loop {
        if has_ended(handle)? {
            return Ok(true);
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Ok(false);
        }
        std::thread::sleep(LOOK);
    }
}

/// A leader that has ended before its threads has not.
fn has_ended(handle: BorrowedFd<'_>) -> Result<bool> {
    let stat = match path::read_at(handle, c"stat", 4096) {
        Err(Errno::ESRCH | Errno::ENOENT) => return Ok(true),
        stat => stat?,
    };
    let threads = field(&stat, 20).and_then(|text| text.parse::<u32>().ok()).unwrap_or(0);
    Ok(matches!(field(&stat, 3), Some("Z" | "X")) && threads <= 1)
}

/// The pid of a handle of either kind, in the pid namespace of `/proc`.
///
/// # Errors
/// `ESRCH` where the process has been reaped.
pub(super) fn pid(handle: BorrowedFd<'_>) -> Result<libc::pid_t> {
    if !is(handle)? {
        // None (-1) once it has been reaped, 0 where this pid namespace does not show it.
        let pid = path::info(handle, "Pid:")?;
        return pid.try_into().ok().filter(|pid| *pid > 0).ok_or(Errno::ESRCH);
    }
    let stat = path::read_at(handle, c"stat", 4096).map_err(gone)?;
    let word = stat.split(|byte| *byte == b' ').next().and_then(|word| std::str::from_utf8(word).ok());
    word.and_then(|word| word.parse().ok()).ok_or(Errno::ESRCH)
}

/// Sends a signal by `kill(2)`, where `pidfd_send_signal(2)` is missing or blocked.
///
/// # Errors
/// As `kill(2)`.
pub(super) fn kill(handle: BorrowedFd<'_>, signal: i32) -> Result<()> {
    let pid = pid(handle)?;
    // SAFETY: no memory is passed.
    check(unsafe { libc::kill(pid, signal) }.into()).map(drop)
}

/// The directory of the process of a handle of either kind: `None` where the handle is one itself.
///
/// # Errors
/// `ESRCH` where the process has been reaped.
pub(super) fn directory(handle: BorrowedFd<'_>) -> Result<Option<OwnedFd>> {
    if is(handle)? {
        return Ok(None);
    }
    let directory = open(pid(handle)?)?;
    // Only now is it known to be of the process that the handle names, which has not been reaped yet.
    if pid(handle).is_ok() { Ok(Some(directory)) } else { Err(Errno::ESRCH) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_held_waited_for_and_signalled_by_its_directory() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().expect("sleep");
        let handle = open(child.id() as libc::pid_t).expect("its directory");
        assert_eq!(pid(handle.as_fd()), Ok(child.id() as libc::pid_t));
        assert_eq!(wait_end(handle.as_fd(), 5), Ok(false));
        kill(handle.as_fd(), libc::SIGKILL).expect("killed");
        assert_eq!(wait_end(handle.as_fd(), 5000), Ok(true), "a zombie has ended");
        child.wait().expect("reaped");
        assert_eq!(wait_end(handle.as_fd(), 0), Ok(true));
        assert_eq!(kill(handle.as_fd(), 0), Err(Errno::ESRCH));
        assert_eq!(open(child.id() as libc::pid_t).err(), Some(Errno::ESRCH));
    }

    #[test]
    fn a_thread_is_no_process() {
        let (say, heard) = std::sync::mpsc::channel();
        let (end, wait) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            say.send(nix::unistd::gettid().as_raw()).expect("heard");
            let _ = wait.recv();
        });
        assert_eq!(open(heard.recv().expect("a tid")).err(), Some(Errno::EINVAL));
        drop(end);
        thread.join().expect("ended");
    }
}
