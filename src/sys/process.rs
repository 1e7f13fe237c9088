//! Processes: handles, waiting, namespaces, identities, limits, exec.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::{Errno, Result, check, path, proc_handle};

/// Whether the caller lives in a user namespace other than the machine's first, by its map of user ids.
pub fn in_user_namespace() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.split_whitespace().ne(["0", "0", "4294967295"])
}

/// Who the effective user is outside of the caller's user namespace; `None` where procfs does not tell.
pub fn user_outside() -> Option<u32> {
    let user = nix::unistd::geteuid().as_raw();
    let map = std::fs::read_to_string("/proc/self/uid_map").ok()?;
    map.lines().find_map(|line| {
        let mut words = line.split_whitespace().map(|word| word.parse::<u32>().ok());
        let (inside, outside, size) = (words.next()??, words.next()??, words.next()??);
        let offset = user.checked_sub(inside).filter(|offset| *offset < size)?;
        outside.checked_add(offset)
    })
}

/// `pidfd_open(2)`; where it is missing or blocked, a handle of the process's directory in procfs.
///
/// # Errors
/// `ESRCH` where there is no such process, `EINVAL` for a thread.
pub fn pidfd_open(pid: libc::pid_t) -> Result<OwnedFd> {
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
pub fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> Result<()> {
    // SAFETY: a valid descriptor; a null siginfo is allowed.
    let sent = check(unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, std::ptr::null::<libc::siginfo_t>(), 0)
    });
    match sent {
        // Missing, or kept from the caller: by a filter, or by the process's owner, and then the old call says so too.
        Err(Errno::ENOSYS | Errno::EPERM) => proc_handle::kill(pidfd, signal),
        sent => sent.map(drop),
    }
}

/// Sends a signal to the process group that the process of the pidfd leads (`PIDFD_SIGNAL_PROCESS_GROUP`).
///
/// # Errors
/// `ESRCH` where there is no such group, `EPERM`, `EINVAL` before Linux 6.9.
pub fn pidfd_signal_group(pidfd: BorrowedFd<'_>, signal: i32) -> Result<()> {
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
pub fn pidfd_getfd(pidfd: BorrowedFd<'_>, fd: i32) -> Result<OwnedFd> {
    // SAFETY: a valid descriptor; no memory is passed.
    let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), fd, 0) })?;
    // SAFETY: the kernel has just made this descriptor for us; it is close-on-exec.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// How a process ended, as the kernel says it: never `128 + n`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It called `exit` with this status.
    Exited(i32),
    /// This signal killed it; `true` where it dumped core.
    Signaled(i32, bool),
}

impl Ended {
    /// The status that a shell (and runc) reports: the exit status, or 128 + the signal's number.
    pub fn status(self) -> u8 {
        // The kernel keeps eight bits of an exit status, and the last signal is 64.
        match self {
            Ended::Exited(status) => status as u8,
            Ended::Signaled(signal, _) => 128 + signal as u8,
        }
    }
}

/// Waits for a child by its handle and reaps it; `None` where it still runs and `block` is false.
///
/// # Errors
/// `ECHILD` where the process is no child of the caller.
pub fn wait_pidfd(pidfd: BorrowedFd<'_>, block: bool) -> Result<Option<Ended>> {
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
pub fn pidfd_exit_status(pidfd: BorrowedFd<'_>) -> Result<Option<i32>> {
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

/// `setns(2)` by a namespace descriptor or a pidfd; `flags` are `CLONE_NEW*` (0: any, for a namespace descriptor).
///
/// # Errors
/// As `setns(2)`.
pub fn setns(fd: BorrowedFd<'_>, flags: i32) -> Result<()> {
    // SAFETY: a valid descriptor.
    check(unsafe { libc::setns(fd.as_raw_fd(), flags) }.into()).map(drop)
}

/// `unshare(2)`; `flags` are `CLONE_NEW*`.
///
/// # Errors
/// As `unshare(2)`.
pub fn unshare(flags: i32) -> Result<()> {
    // SAFETY: only namespaces are unshared; CLONE_FILES and CLONE_FS would be harmless in a single thread.
    check(unsafe { libc::unshare(flags) }.into()).map(drop)
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
        // SAFETY: only looked at.
        if looked.is_ok() && unsafe { libc::fcntl(size as i32, libc::F_GETFD) } < 0 {
            break;
        }
        size *= 2;
    }
    size
}

/// Clears close-on-exec of `fd`, so that an executed program inherits it.
///
/// # Errors
/// As `fcntl(2)`.
pub fn keep_on_exec(fd: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: a valid descriptor.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, 0) }.into()).map(drop)
}

/// A set of NUL-terminated strings in the shape that `execve(2)` wants.
#[derive(Debug)]
pub struct StringVector {
    pointers: Vec<*const libc::c_char>,
    _strings: Vec<CString>,
}

impl StringVector {
    /// Takes the strings.
    pub fn new(strings: Vec<CString>) -> Self {
        let pointers = strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect();
        StringVector { pointers, _strings: strings }
    }
}

/// `execve(2)`: returns only where it fails.
pub fn execve(path: &CStr, argv: &StringVector, envp: &StringVector) -> Errno {
    // SAFETY: NUL-terminated strings in NULL-terminated vectors that are alive during the call.
    unsafe { libc::execve(path.as_ptr(), argv.pointers.as_ptr(), envp.pointers.as_ptr()) };
    Errno::last()
}

/// Executes the file that `fd` is a handle of (`execveat(2)`, `AT_EMPTY_PATH`): returns only where it fails.
pub fn execve_fd(fd: BorrowedFd<'_>, argv: &StringVector, envp: &StringVector) -> Errno {
    // SAFETY: as for `execve`, with a valid descriptor.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            fd.as_raw_fd(),
            c"".as_ptr(),
            argv.pointers.as_ptr(),
            envp.pointers.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    Errno::last()
}

/// `prctl(2)` with up to four plain numbers.
///
/// # Errors
/// As `prctl(2)`. Options that take addresses are refused with `EINVAL` so that this stays safe.
pub fn prctl(option: i32, a: u64, b: u64, c: u64, d: u64) -> Result<i32> {
    let plain = matches!(
        option,
        libc::PR_SET_PDEATHSIG
            | libc::PR_SET_DUMPABLE
            | libc::PR_SET_KEEPCAPS
            | libc::PR_CAPBSET_READ
            | libc::PR_CAPBSET_DROP
            | libc::PR_CAP_AMBIENT
            | libc::PR_SET_NO_NEW_PRIVS
            | libc::PR_GET_NO_NEW_PRIVS
            | libc::PR_SET_CHILD_SUBREAPER
            | libc::PR_SET_SECUREBITS
            | libc::PR_GET_DUMPABLE
    );
    if !plain {
        return Err(Errno::EINVAL);
    }
    // SAFETY: none of the options above reads or writes memory of ours.
    check(unsafe { libc::prctl(option, a, b, c, d) }.into()).map(|value| value as i32)
}

/// Sets the supplementary groups of the calling thread, which is the only one.
///
/// # Errors
/// `EPERM` without `CAP_SETGID` or where `/proc/self/setgroups` says `deny`.
pub fn setgroups(groups: &[libc::gid_t]) -> Result<()> {
    // SAFETY: a buffer of the length given. The raw call is right in a single-threaded process.
    check(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) }).map(drop)
}

/// Sets real, effective and saved group ids.
///
/// # Errors
/// `EPERM` without `CAP_SETGID`, `EINVAL` for an id that the user namespace does not map.
pub fn setresgid(gid: libc::gid_t) -> Result<()> {
    // SAFETY: no memory is passed. The raw call is right in a single-threaded process.
    check(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) }).map(drop)
}

/// Sets real, effective and saved user ids.
///
/// # Errors
/// `EPERM` without `CAP_SETUID`, `EINVAL` for an id that the user namespace does not map.
pub fn setresuid(uid: libc::uid_t) -> Result<()> {
    // SAFETY: no memory is passed. The raw call is right in a single-threaded process.
    check(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) }).map(drop)
}

/// `ioprio_set(2)` of the calling thread; `value` is class << 13 | priority.
///
/// # Errors
/// As `ioprio_set(2)`.
pub fn ioprio_set(value: i32) -> Result<()> {
    const IOPRIO_WHO_PROCESS: i32 = 1;
    // SAFETY: no memory is passed.
    check(unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, value) }).map(drop)
}

/// `personality(2)`: the execution domain and its flags.
///
/// # Errors
/// As `personality(2)`.
pub fn personality(persona: u64) -> Result<()> {
    // SAFETY: no memory is passed.
    check(unsafe { libc::personality(persona) }.into()).map(drop)
}

/// Joins a new session keyring of the name given (`KEYCTL_JOIN_SESSION_KEYRING`); its serial number.
///
/// # Errors
/// `ENOSYS` without keyrings, `EDQUOT` where the user has too many keys.
pub fn join_session_keyring(name: &CStr) -> Result<i32> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_long = 1;
    // SAFETY: a NUL-terminated string that outlives the call.
    check(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr()) }).map(|id| id as i32)
}

/// Sets the file mode creation mask; the old one.
pub fn umask(mask: u32) -> u32 {
    // SAFETY: no memory is passed; it cannot fail.
    unsafe { libc::umask(mask) }
}

/// Makes the caller the leader of a new session.
///
/// # Errors
/// `EPERM` where it already leads a process group.
pub fn setsid() -> Result<()> {
    // SAFETY: no memory is passed.
    check(unsafe { libc::setsid() }.into()).map(drop)
}

/// Puts `fd` at the number `target` (inherited by exec); where it is there already, only clears close-on-exec.
///
/// # Errors
/// As `dup3(2)`.
pub fn dup_to(fd: BorrowedFd<'_>, target: i32) -> Result<()> {
    if fd.as_raw_fd() == target {
        return keep_on_exec(fd);
    }
    // SAFETY: a valid descriptor. Callers name 0, 1, 2 or numbers they have planned for; an `OwnedFd`
    // of this process at `target` would silently change what it names, as with any dup2.
    check(unsafe { libc::dup3(fd.as_raw_fd(), target, 0) }.into()).map(drop)
}

/// The descriptor of this number that the caller of the program has left open for it.
///
/// # Errors
/// `EBADF` where there is none.
pub fn inherited(fd: std::os::fd::RawFd) -> Result<BorrowedFd<'static>> {
    // SAFETY: no memory is passed.
    check(unsafe { libc::fcntl(fd, libc::F_GETFD) }.into())?;
    // SAFETY: it is open (just checked), and descriptors given by the caller are never closed by this program.
    Ok(unsafe { BorrowedFd::borrow_raw(fd) })
}

impl StringVector {
    /// The arguments of a program.
    ///
    /// # Errors
    /// An argument with a NUL byte, which the kernel could not have given.
    pub fn from_os(arguments: impl Iterator<Item = std::ffi::OsString>) -> crate::Result<Self> {
        use crate::error::At;
        let strings: Result<Vec<CString>> = arguments.map(super::path::c_path).collect();
        strings.map(StringVector::new).at("copy", "the arguments")
    }

    /// An environment.
    ///
    /// # Errors
    /// As [`StringVector::from_os`].
    pub fn from_environment(
        variables: impl Iterator<Item = (std::ffi::OsString, std::ffi::OsString)>,
    ) -> crate::Result<Self> {
        Self::from_os(variables.map(|(mut name, value)| {
            name.push("=");
            name.push(value);
            name
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
