//! Handles of processes: pidfds, and where they cannot be had directories of procfs ([`super::proc_handle`]).

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::process::{Ended, setns};
use super::{Errno, Result, calls, check, path, proc_handle};

/// `pidfd_open(2)`; where it is missing or blocked, a handle of the process's directory in procfs.
///
/// # Errors
/// `ESRCH` where there is no such process, `EINVAL` for a thread.
pub fn open(pid: libc::pid_t) -> Result<OwnedFd> {
    // SAFETY: no memory is passed.
    let fd = match check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) }) {
        Err(Errno::ENOSYS | Errno::EPERM) => return proc_handle::open(pid),
        fd => fd?,
    };
    // SAFETY: the kernel has just made this descriptor for us; pidfds are always close-on-exec.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// `pidfd_send_signal(2)`; signal 0 only asks.
///
/// # Errors
/// `ESRCH` where the process has ended and was waited for, `EPERM`, `EINVAL`.
pub fn send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> Result<()> {
    // SAFETY: a valid descriptor; a null siginfo is allowed.
    let sent = check(unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, std::ptr::null::<libc::siginfo_t>(), 0)
    });
    match sent {
        // By a filter, not by the process's owner.
        Err(Errno::ENOSYS | Errno::EPERM) if !calls::is_there("pidfd_send_signal") => proc_handle::kill(pidfd, signal),
        sent => sent.map(drop),
    }
}

/// Sends a signal to the process group that the process of the pidfd leads (`PIDFD_SIGNAL_PROCESS_GROUP`).
///
/// # Errors
/// `ESRCH` where there is no such group, `EPERM`, `EINVAL` before Linux 6.9.
pub fn signal_group(pidfd: BorrowedFd<'_>, signal: i32) -> Result<()> {
    const PROCESS_GROUP: u32 = 1 << 2;
    let info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a valid descriptor; a null siginfo is allowed.
    check(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, info, PROCESS_GROUP) })
        .map(drop)
}

/// A copy of descriptor `fd` of another process (`pidfd_getfd(2)`).
///
/// # Errors
/// `EPERM` without ptrace permission, `EBADF` where that process has no such descriptor.
pub fn getfd(pidfd: BorrowedFd<'_>, fd: i32) -> Result<OwnedFd> {
    // SAFETY: a valid descriptor; no memory is passed.
    let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), fd, 0) })?;
    // SAFETY: the kernel has just made this descriptor for us; it is close-on-exec.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Waits for a child by its handle and reaps it; `None` where it still runs and `block` is false.
///
/// # Errors
/// `ECHILD` where the process is no child of the caller.
pub fn wait(pidfd: BorrowedFd<'_>, block: bool) -> Result<Option<Ended>> {
    const P_PIDFD: libc::idtype_t = 3;
    let flags = libc::WEXITED | if block { 0 } else { libc::WNOHANG };
    loop {
        // SAFETY: all-zero is a valid siginfo_t, and the kernel says below whether it filled it in.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        // SAFETY: a valid descriptor and room for one siginfo_t.
        let done = unsafe { libc::waitid(P_PIDFD, pidfd.as_raw_fd() as libc::id_t, &raw mut info, flags) };
        match check(done.into()) {
            Err(Errno::EINTR) => continue,
            Err(errno) => return Err(errno),
            Ok(_) => {}
        }
        // SAFETY: waitid has filled in the SIGCHLD part, or left it zero when nothing has ended.
        let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
        if pid == 0 {
            return Ok(None);
        }
        return Ok(Some(match info.si_code {
            libc::CLD_EXITED => Ended::Exited(status),
            code => Ended::Signaled(status, code == libc::CLD_DUMPED),
        }));
    }
}

/// The raw wait status of a process, child or not, that has ended and was reaped (`PIDFD_GET_INFO` with `PIDFD_INFO_EXIT`,
/// Linux 6.15); `None` where it lives or waits to be reaped.
///
/// # Errors
/// `ENOTTY` or `EINVAL` from kernels that do not know the question.
pub fn exit_status(pidfd: BorrowedFd<'_>) -> Result<Option<i32>> {
    /// `struct pidfd_info` of `<linux/pidfd.h>`, its first version.
    #[repr(C)]
    #[derive(Default)]
    struct Info {
        mask: u64,
        cgroup: u64,
        ids: [u32; 11],
        exit_code: i32,
    }
    const EXIT: u64 = 1 << 3;
    /// `_IOWR(0xFF, 11, struct pidfd_info)`.
    const PIDFD_GET_INFO: libc::c_ulong = 3 << 30 | (size_of::<Info>() as libc::c_ulong) << 16 | 0xff << 8 | 11;
    let mut info = Info { mask: EXIT, ..Info::default() };
    // SAFETY: a valid descriptor and room for the structure whose size is in the request.
    check(unsafe { libc::ioctl(pidfd.as_raw_fd(), PIDFD_GET_INFO, &raw mut info) }.into())?;
    Ok((info.mask & EXIT != 0).then_some(info.exit_code))
}

/// Waits until a process (child or not) has ended, at most `timeout_ms` (negative: for ever); true where it has.
///
/// # Errors
/// As `poll(2)`.
pub fn wait_end(pidfd: BorrowedFd<'_>, timeout_ms: i32) -> Result<bool> {
    // What cannot be waited for, a directory, is always ready for both.
    let mut poll = libc::pollfd { fd: pidfd.as_raw_fd(), events: libc::POLLIN | libc::POLLOUT, revents: 0 };
    loop {
        // SAFETY: one valid pollfd.
        match check(unsafe { libc::poll(&raw mut poll, 1, timeout_ms) }.into()) {
            Err(Errno::EINTR) => continue,
            Err(errno) => return Err(errno),
            Ok(_) if poll.revents & libc::POLLOUT != 0 => return proc_handle::wait_end(pidfd, timeout_ms),
            Ok(n) => return Ok(n > 0),
        }
    }
}

/// Waits until a process has ended, or one of `others` has an event, or `timeout`; true where it has ended. May return before
/// that with nothing to tell.
///
/// # Errors
/// As `poll(2)`.
pub fn wait_end_or(process: BorrowedFd<'_>, others: &[PollFd<'_>], timeout: PollTimeout) -> Result<bool> {
    /// Between two looks at a process that cannot be polled.
    const LOOK: u8 = 10;
    let mut all = vec![PollFd::new(process, PollFlags::POLLIN | PollFlags::POLLOUT)];
    all.extend(others);
    let poll = |fds: &mut [PollFd<'_>], timeout| match poll(fds, timeout) {
        Err(Errno::EINTR) => Ok(()),
        polled => polled.map(drop),
    };
    poll(&mut all, timeout)?;
    // As in `wait_end`.
    if all[0].revents().is_some_and(|events| events.contains(PollFlags::POLLOUT)) {
        let look = PollTimeout::from(LOOK);
        poll(&mut all[1..], if timeout.is_none() || timeout > look { look } else { timeout })?;
        return proc_handle::wait_end(process, 0);
    }
    Ok(all[0].any() == Some(true))
}

/// The pid of a process, in the pid namespace that `/proc` shows.
///
/// # Errors
/// `ESRCH` where it has been reaped, or is not shown.
pub fn pid(process: BorrowedFd<'_>) -> Result<libc::pid_t> {
    proc_handle::pid(process)
}

/// Joins the namespaces of a process that `flags` (`CLONE_NEW*`) name: by its pidfd, or, before Linux 5.8 and by the other kind
/// of handle, one by one, the user namespace first.
///
/// # Errors
/// As `setns(2)`; `ESRCH` where the process has ended.
pub fn join_namespaces(process: BorrowedFd<'_>, flags: i32) -> Result<()> {
    /// In the order in which they are joined: the first gives the privilege for the rest, the mount namespace hides the host's procfs.
    const NAMES: [(i32, &CStr); 8] = [
        (libc::CLONE_NEWUSER, c"ns/user"),
        (libc::CLONE_NEWCGROUP, c"ns/cgroup"),
        (libc::CLONE_NEWIPC, c"ns/ipc"),
        (libc::CLONE_NEWUTS, c"ns/uts"),
        (libc::CLONE_NEWNET, c"ns/net"),
        (libc::CLONE_NEWPID, c"ns/pid"),
        (libc::CLONE_NEWTIME, c"ns/time"),
        (libc::CLONE_NEWNS, c"ns/mnt"),
    ];
    match setns(process, flags) {
        Err(Errno::EINVAL | Errno::EBADF) => {}
        joined => return joined,
    }
    let opened = proc_handle::directory(process)?;
    let directory = opened.as_ref().map_or(process, AsFd::as_fd);
    let open = |(flag, name): &(i32, &CStr)| Ok((*flag, path::openat(directory, name, libc::O_RDONLY, 0)?));
    let namespaces = NAMES.iter().filter(|(flag, _)| flags & flag != 0).map(open).collect::<Result<Vec<_>>>()?;
    namespaces.iter().try_for_each(|(flag, namespace)| setns(namespace.as_fd(), *flag))
}
