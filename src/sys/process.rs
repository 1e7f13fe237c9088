//! Processes: namespaces, identities, limits, exec.

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd};

use std::sync::atomic::{AtomicU8, Ordering};

use super::{Errno, Result, check};

/// What [`in_user_namespace`] has found in this process: 0 nothing yet, 1 no, 2 yes.
static IN_USER_NAMESPACE: AtomicU8 = AtomicU8::new(0);

/// Whether the caller lives in a user namespace other than the machine's first, by its map of user ids. It is looked at once.
pub fn in_user_namespace() -> bool {
    match IN_USER_NAMESPACE.load(Ordering::Relaxed) {
        0 => {
            let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
            let inside = map.split_whitespace().ne(["0", "0", "4294967295"]);
            IN_USER_NAMESPACE.store(1 + u8::from(inside), Ordering::Relaxed);
            inside
        }
        known => known == 2,
    }
}

/// Has [`in_user_namespace`] look again: for a new process, and where one changes its namespace.
pub(super) fn forget_user_namespace() {
    IN_USER_NAMESPACE.store(0, Ordering::Relaxed);
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

/// `setns(2)` by a namespace descriptor or a pidfd; `flags` are `CLONE_NEW*` (0: any, for a namespace descriptor).
///
/// # Errors
/// As `setns(2)`.
pub fn setns(fd: BorrowedFd<'_>, flags: i32) -> Result<()> {
    // SAFETY: a valid descriptor.
    check(unsafe { libc::setns(fd.as_raw_fd(), flags) }.into())?;
    changed(flags);
    Ok(())
}

/// `unshare(2)`; `flags` are `CLONE_NEW*`.
///
/// # Errors
/// As `unshare(2)`.
pub fn unshare(flags: i32) -> Result<()> {
    // SAFETY: only namespaces are unshared; CLONE_FILES and CLONE_FS would be harmless in a single thread.
    check(unsafe { libc::unshare(flags) }.into())?;
    changed(flags);
    Ok(())
}

fn changed(namespaces: i32) {
    if namespaces & libc::CLONE_NEWUSER != 0 {
        forget_user_namespace();
    }
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
            | libc::PR_GET_SECUREBITS
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

/// Overwrites the environment that this program was started with. Whoever may look into one of its processes, by
/// `/proc/PID/environ` or otherwise, finds nothing of it there; nor does this process itself.
pub fn wipe_environment() {
    // SAFETY: the C library's vector of NUL-terminated strings, which lie in memory of this process that may be written to,
    // up to a null pointer; nobody changes it meanwhile, because the process has one thread. Each string keeps its end.
    unsafe {
        let mut at = environ;
        while !at.is_null() && !(*at).is_null() {
            std::ptr::write_bytes(*at, 0, libc::strlen(*at));
            at = at.add(1);
        }
    }
}

unsafe extern "C" {
    /// environ(7).
    static environ: *const *mut libc::c_char;
}

/// Another effective user id of the calling thread, with all its capabilities, until it is given back.
#[derive(Debug)]
#[must_use]
pub struct EffectiveUser {
    before: libc::uid_t,
    dumpable: libc::c_ulong,
    securebits: libc::c_ulong,
}

impl EffectiveUser {
    /// Takes it; nothing where the caller lacks `CAP_SETPCAP` or `CAP_SETUID`. The real and the saved one stay, so that nobody
    /// else becomes the caller's equal (ptrace(2), kill(2)).
    ///
    /// # Errors
    /// `EINVAL` for an id that the user namespace does not map.
    pub fn take(uid: libc::uid_t) -> Result<Option<EffectiveUser>> {
        match Self::try_take(uid) {
            Err(Errno::EPERM) => Ok(None),
            taken => taken.map(Some),
        }
    }

    fn try_take(uid: libc::uid_t) -> Result<EffectiveUser> {
        const SECBIT_NO_SETUID_FIXUP: libc::c_ulong = 1 << 2;
        // The third value there is cannot be set.
        let dumpable = libc::c_ulong::from(prctl(libc::PR_GET_DUMPABLE, 0, 0, 0, 0)? == 1);
        let securebits = prctl(libc::PR_GET_SECUREBITS, 0, 0, 0, 0)? as libc::c_ulong;
        prctl(libc::PR_SET_SECUREBITS, securebits | SECBIT_NO_SETUID_FIXUP, 0, 0, 0)?;
        let taken = EffectiveUser { before: nix::unistd::geteuid().as_raw(), dumpable, securebits };
        match taken.change(uid) {
            Ok(()) => Ok(taken),
            Err(errno) => taken.give_back().and(Err(errno)),
        }
    }

    /// The change takes the dumpable flag away, which decides who owns the files of `/proc/self`.
    fn change(&self, uid: libc::uid_t) -> Result<()> {
        const SAME: libc::uid_t = libc::uid_t::MAX;
        // SAFETY: no memory is passed. The raw call is right in a single-threaded process.
        check(unsafe { libc::syscall(libc::SYS_setresuid, SAME, uid, SAME) })?;
        prctl(libc::PR_SET_DUMPABLE, self.dumpable, 0, 0, 0).map(drop)
    }

    /// Becomes who it was, which its real user id allows.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn give_back(self) -> Result<()> {
        let back = self.change(self.before);
        prctl(libc::PR_SET_SECUREBITS, self.securebits, 0, 0, 0).and(back)
    }
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
        return super::descriptors::keep_on_exec(fd);
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

/// The descriptors below `end` that the caller of the program hands down: those that it has left open, and none that this
/// program has opened, which an exec closes.
pub fn handed_down<'a>(end: u32) -> impl Iterator<Item = BorrowedFd<'a>> {
    let stays = |fd: &BorrowedFd<'_>| {
        // SAFETY: no memory is passed.
        check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFD) }.into())
            .is_ok_and(|flags| flags & i64::from(libc::FD_CLOEXEC) == 0)
    };
    (0..end).filter_map(move |fd| inherited(fd as std::os::fd::RawFd).ok().filter(stays))
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
