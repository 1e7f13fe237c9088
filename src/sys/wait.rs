//! `wait4(2)` with the resources used, clocks, and `ptrace(2)` as far as an exec is watched with it.

use std::os::fd::{AsRawFd, BorrowedFd};

use super::{Errno, Result, check, descriptors};

/// A child that changed state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waited {
    /// Its pid.
    pub pid: libc::pid_t,
    /// The raw status, as `WIFEXITED` and the like read it.
    pub status: i32,
    /// CPU time in user mode, of it and of the children it waited for, µs.
    pub user_us: u64,
    /// The same in the kernel, µs.
    pub system_us: u64,
    /// The largest resident set of any of them, KiB.
    pub max_rss_kib: u64,
    /// How often they gave up the processor.
    pub voluntary_switches: u64,
    /// How often it was taken from them.
    pub forced_switches: u64,
}

/// The next child, of any kind, that ended or (traced) stopped; `None` where none has yet.
///
/// # Errors
/// `ECHILD` where there is no child.
pub fn wait_any_now() -> Result<Option<Waited>> {
    let mut status = 0;
    // SAFETY: all-zero is a valid rusage.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: room for one status and one rusage.
        let pid = unsafe { libc::wait4(-1, &raw mut status, libc::WNOHANG | libc::__WALL, &raw mut usage) };
        match check(pid.into()) {
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
            Ok(0) => return Ok(None),
            Ok(_) => {
                let us = |time: libc::timeval| time.tv_sec as u64 * 1_000_000 + time.tv_usec as u64;
                return Ok(Some(Waited {
                    pid,
                    status,
                    user_us: us(usage.ru_utime),
                    system_us: us(usage.ru_stime),
                    max_rss_kib: usage.ru_maxrss as u64,
                    voluntary_switches: usage.ru_nvcsw as u64,
                    forced_switches: usage.ru_nivcsw as u64,
                }));
            }
        }
    }
}

/// Kills everything that the caller may signal, except itself (`kill(-1, SIGKILL)`): for PID 1 of a pid namespace all
/// of the namespace. Refused with `EINVAL` to any other process.
///
/// # Errors
/// `ESRCH` where nothing was left.
pub fn kill_namespace() -> Result<()> {
    // SAFETY: neither call passes memory. Guarded so that it can only reach the caller's own pid namespace; a copy
    // of the caller in the host's namespace has another pid.
    unsafe {
        if libc::getpid() != 1 {
            return Err(Errno::EINVAL);
        }
        check(libc::kill(-1, libc::SIGKILL).into()).map(drop)
    }
}

/// CLOCK_MONOTONIC in nanoseconds.
pub fn monotonic_ns() -> u64 {
    clock_ns(libc::CLOCK_MONOTONIC)
}

/// CPU time of the calling process in nanoseconds.
pub fn process_cpu_ns() -> u64 {
    clock_ns(libc::CLOCK_PROCESS_CPUTIME_ID)
}

fn clock_ns(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: room for one timespec; both clocks exist on every Linux.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Ends the process at once: no destructor runs, nothing is flushed.
pub fn exit_now(status: i32) -> ! {
    // SAFETY: passes no memory and does not return.
    unsafe { libc::_exit(status) }
}

/// Closes descriptors in a copy of the process that owns them, which ends by [`exit_now`] or execve(2): their owners in its
/// memory are never dropped.
pub fn close_copies(fds: &[BorrowedFd<'_>]) {
    for fd in fds {
        // SAFETY: the caller has given them up (see above). Linux frees the number whatever close(2) answers.
        unsafe { libc::close(fd.as_raw_fd()) };
    }
}

/// Closes every descriptor but the ones kept, for a process that will not touch any other again and ends by
/// [`exit_now`]: owners elsewhere in its memory are never dropped.
/// Before Linux 5.9, and where a filter keeps the caller from `close_range(2)`, one by one.
///
/// # Errors
/// None that a valid call can meet.
pub fn close_all_but(keep: &[BorrowedFd<'_>]) -> Result<()> {
    let mut keep: Vec<u32> = keep.iter().map(|fd| fd.as_raw_fd() as u32).collect();
    keep.sort_unstable();
    let mut from = 0;
    for fd in keep.into_iter().chain([u32::MAX]) {
        if from < fd {
            let last = if fd == u32::MAX { fd } else { fd - 1 };
            // SAFETY: the caller has given up all of them (see above).
            match check(unsafe { libc::syscall(libc::SYS_close_range, from, last, 0) }) {
                Err(Errno::ENOSYS | Errno::EPERM) => {
                    descriptors::each_open(from, last, |fd| {
                        // SAFETY: the same.
                        unsafe { libc::close(fd) };
                    });
                }
                other => other.map(drop)?,
            }
        }
        from = fd.saturating_add(1);
    }
    Ok(())
}

/// Lets the parent watch the caller's exec (`PTRACE_TRACEME`).
///
/// # Errors
/// `EPERM` where a security module forbids it.
pub fn watch_me() -> Result<()> {
    // SAFETY: PTRACE_TRACEME ignores the other arguments.
    check(unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) }).map(drop)
}

/// Lets a stopped, watched child go on unwatched, with `signal` (0: none) delivered.
///
/// # Errors
/// `ESRCH` where it is not stopped.
pub fn unwatch(pid: libc::pid_t, signal: i32) -> Result<()> {
    // SAFETY: PTRACE_DETACH reads no memory: its last argument is the signal's number.
    check(unsafe { libc::ptrace(libc::PTRACE_DETACH, pid, 0, signal as libc::c_long) }).map(drop)
}
