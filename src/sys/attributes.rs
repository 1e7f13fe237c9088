//! Attributes of the calling process that [`super::process`] does not set: memory policy, scheduling with utilisation clamps, keys, working directory, signal dispositions.

use std::ffi::CStr;
use std::os::fd::AsRawFd;

use super::{Errno, Result, check};

/// Limits a resource of another process (`prlimit64(2)`); `resource` is `RLIMIT_*`.
///
/// # Errors
/// `EPERM` for a hard limit above the present one without `CAP_SYS_RESOURCE`, `EINVAL` where soft is above hard.
pub fn prlimit(pid: libc::pid_t, resource: u32, soft: u64, hard: u64) -> Result<()> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    // SAFETY: one valid rlimit64; nothing is read back.
    check(unsafe {
        libc::syscall(libc::SYS_prlimit64, pid, resource, &raw const limit, std::ptr::null_mut::<libc::rlimit64>())
    })
    .map(drop)
}

/// The kernel's `struct sched_attr`, with the utilisation clamps of Linux 5.3 (56 bytes).
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SchedAttr {
    /// The size of this structure, filled in by [`sched_setattr`].
    pub size: u32,
    /// `SCHED_*`.
    pub policy: u32,
    /// `SCHED_FLAG_*`.
    pub flags: u64,
    /// For `SCHED_OTHER` and `SCHED_BATCH`, -20 to 19.
    pub nice: i32,
    /// For `SCHED_FIFO` and `SCHED_RR`, 1 to 99.
    pub priority: u32,
    /// For `SCHED_DEADLINE`, nanoseconds.
    pub runtime: u64,
    /// For `SCHED_DEADLINE`, nanoseconds.
    pub deadline: u64,
    /// For `SCHED_DEADLINE`, nanoseconds.
    pub period: u64,
    /// With `SCHED_FLAG_UTIL_CLAMP_MIN`, 0 to 1024.
    pub util_min: u32,
    /// With `SCHED_FLAG_UTIL_CLAMP_MAX`, 0 to 1024.
    pub util_max: u32,
}

/// `sched_setattr(2)` of the calling thread.
///
/// # Errors
/// As `sched_setattr(2)`.
pub fn sched_setattr(attr: SchedAttr) -> Result<()> {
    // The clamps' fields are passed only when asked for: a kernel before 5.3 refuses the longer structure.
    let clamps = libc::SCHED_FLAG_UTIL_CLAMP_MIN | libc::SCHED_FLAG_UTIL_CLAMP_MAX;
    let size = if attr.flags & clamps as u64 == 0 { 48 } else { size_of::<SchedAttr>() as u32 };
    let attr = SchedAttr { size, ..attr };
    // SAFETY: a sched_attr that says its own size.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0) }).map(drop)
}

/// `sched_setaffinity(2)` of a process (0: the caller); bit n of the mask is processor n.
///
/// # Errors
/// `EINVAL` where none of the processors may be used.
pub fn sched_setaffinity(pid: libc::pid_t, mask: &[u64]) -> Result<()> {
    // SAFETY: a buffer of the length given.
    check(unsafe { libc::syscall(libc::SYS_sched_setaffinity, pid, size_of_val(mask), mask.as_ptr()) }).map(drop)
}

/// `set_mempolicy(2)` of the calling thread: the mode with its flags, and the mask of nodes (empty: none).
///
/// # Errors
/// As `set_mempolicy(2)`.
pub fn set_mempolicy(mode: i32, nodes: &[u64]) -> Result<()> {
    // The kernel takes one from maxnode before it counts the bits (mm/mempolicy.c, get_nodes), hence the plus one.
    let maxnode = if nodes.is_empty() { 0 } else { nodes.len() * 64 + 1 };
    let mask = if nodes.is_empty() { std::ptr::null() } else { nodes.as_ptr() };
    // SAFETY: the mask has maxnode - 1 bits, or is null with maxnode 0.
    check(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, mask, maxnode) }).map(drop)
}

/// The kernel's own words for the working directory: a path that begins with `/` only if it is reachable from
/// the root directory, else `(unreachable)…`. (The C library's `getcwd` hides that by searching upwards.)
///
/// # Errors
/// `ENOENT` where the directory has been removed.
pub fn getcwd() -> Result<Vec<u8>> {
    let mut buffer = vec![0_u8; libc::PATH_MAX as usize];
    // SAFETY: a buffer of the length given.
    let length = check(unsafe { libc::syscall(libc::SYS_getcwd, buffer.as_mut_ptr(), buffer.len()) })? as usize;
    buffer.truncate(length.saturating_sub(1));
    Ok(buffer)
}

/// `chdir(2)`.
///
/// # Errors
/// As `chdir(2)`.
pub fn chdir(path: &CStr) -> Result<()> {
    // SAFETY: a NUL-terminated string that outlives the call.
    check(unsafe { libc::chdir(path.as_ptr()) }.into()).map(drop)
}

/// Whether the effective ids may do `mode` (`X_OK`, `W_OK` …) with `path`: `faccessat2(2)` with `AT_EACCESS`.
///
/// # Errors
/// As `faccessat2(2)`.
pub fn may_access(path: &CStr, mode: i32) -> Result<()> {
    // SAFETY: a NUL-terminated string that outlives the call.
    let done =
        check(unsafe { libc::syscall(libc::SYS_faccessat2, libc::AT_FDCWD, path.as_ptr(), mode, libc::AT_EACCESS) });
    match done {
        // Before Linux 5.8 there is only the check of the real ids, which are the effective ones here.
        // SAFETY: as above.
        Err(Errno::ENOSYS | Errno::EPERM) => check(unsafe { libc::access(path.as_ptr(), mode) }.into()).map(drop),
        done => done.map(drop),
    }
}

/// `stat(2)`: only the mode (type and permissions).
///
/// # Errors
/// As `stat(2)`.
pub fn mode_of(path: &CStr) -> Result<u32> {
    let mut stat = std::mem::MaybeUninit::<libc::stat>::uninit();
    // SAFETY: a NUL-terminated string and room for one `stat`.
    check(unsafe { libc::stat(path.as_ptr(), stat.as_mut_ptr()) }.into())?;
    // SAFETY: the call succeeded, so the kernel has filled it in.
    Ok(unsafe { stat.assume_init() }.st_mode)
}

/// Gives every signal its default action: what the caller ignores (a shell's background job SIGINT, a Python program SIGXFSZ,
/// the Rust runtime SIGPIPE) would stay ignored over the exec (`signal(7)`), and a limit without effect.
///
/// # Errors
/// None that a valid call can meet.
pub fn default_signals() -> Result<()> {
    // What the kernel takes, which glibc's own structure is not: handler, flags, restorer, mask.
    let default = [0_usize; 4];
    for signal in (1..=LAST_SIGNAL).filter(|it| ![libc::SIGKILL, libc::SIGSTOP].contains(it)) {
        // The call itself and not the library's, which hides the two signals that it uses.
        // SAFETY: SIG_DFL (0) installs no handler; the kernel reads one sigaction and a mask of eight bytes.
        check(unsafe {
            libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), std::ptr::null::<usize>(), size_of::<u64>())
        })?;
    }
    Ok(())
}

/// Unblocks every signal: what is blocked stays so over an exec.
///
/// # Errors
/// None that a valid call can meet.
pub fn unblock_signals() -> Result<()> {
    let mut none = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset initialises the set before it is read; the old mask is not asked for.
    check(
        unsafe {
            libc::sigemptyset(none.as_mut_ptr());
            libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut())
        }
        .into(),
    )
    .map(drop)
}

/// `_NSIG` of the kernel.
const LAST_SIGNAL: i32 = 64;

/// The permission mask of a key, from its description `type;uid;gid;perm;name`.
///
/// # Errors
/// As `keyctl(2)`.
pub fn key_permissions(serial: i32) -> Result<u32> {
    let mut text = [0_u8; 512];
    // SAFETY: a buffer of the length given.
    let length = check(unsafe {
        libc::syscall(libc::SYS_keyctl, libc::KEYCTL_DESCRIBE, serial, text.as_mut_ptr(), text.len())
    })? as usize;
    let words = String::from_utf8_lossy(&text[..length.min(text.len())]);
    words.split(';').nth(3).and_then(|mask| u32::from_str_radix(mask, 16).ok()).ok_or(Errno::EINVAL)
}

/// Sets the permission mask of a key.
///
/// # Errors
/// As `keyctl(2)`.
pub fn set_key_permissions(serial: i32, mask: u32) -> Result<()> {
    // SAFETY: no memory is passed.
    check(unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_SETPERM, serial, mask) }).map(drop)
}

/// Sets the NIS domain name of the current UTS namespace.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN` there, `EINVAL` for more than 64 bytes.
pub fn setdomainname(name: &str) -> Result<()> {
    // SAFETY: a buffer of the length given.
    check(unsafe { libc::setdomainname(name.as_ptr().cast(), name.len()) }.into()).map(drop)
}

/// Sets the host name of the current UTS namespace.
///
/// # Errors
/// As [`setdomainname`].
pub fn sethostname(name: &str) -> Result<()> {
    // SAFETY: a buffer of the length given.
    check(unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) }.into()).map(drop)
}

/// `fchown(2)`.
///
/// # Errors
/// As `fchown(2)`.
pub fn fchown(fd: std::os::fd::BorrowedFd<'_>, uid: u32, gid: u32) -> Result<()> {
    use std::os::fd::AsRawFd;
    // SAFETY: a valid descriptor.
    check(unsafe { libc::fchown(fd.as_raw_fd(), uid, gid) }.into()).map(drop)
}

/// Standard input, output or error (`number` 0, 1, 2) as a descriptor, if it is open.
pub fn standard(number: usize) -> Option<std::os::fd::BorrowedFd<'static>> {
    let raw = i32::try_from(number).ok().filter(|raw| *raw < 3)?;
    // SAFETY: no memory is passed.
    check(unsafe { libc::fcntl(raw, libc::F_GETFD) }.into()).ok()?;
    // SAFETY: it is open now, and nothing in this program closes 0, 1 or 2; they are only replaced in place.
    Some(unsafe { std::os::fd::BorrowedFd::borrow_raw(raw) })
}

/// How an open file may be used: `O_RDONLY`, `O_WRONLY` or `O_RDWR` (`fcntl(2)`).
///
/// # Errors
/// None for a descriptor that is open.
pub fn access_mode(fd: std::os::fd::BorrowedFd<'_>) -> Result<i32> {
    // SAFETY: only looked at.
    let flags = check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) }.into())?;
    Ok(flags as i32 & libc::O_ACCMODE)
}

/// Sets the flags of a network interface of the current network namespace to "up", over what they are:
/// `SIOCGIFFLAGS` is not needed for a fresh loopback, whose only other flag the kernel keeps by itself.
///
/// # Errors
/// As `netdevice(7)`.
pub fn interface_up(name: &CStr) -> Result<()> {
    let bytes = name.to_bytes();
    if bytes.len() >= libc::IFNAMSIZ {
        return Err(Errno::ENAMETOOLONG);
    }
    // SAFETY: no memory is passed.
    let socket = check(unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) }.into())?;
    // SAFETY: the kernel has just made this descriptor for us.
    let socket = unsafe { <std::os::fd::OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(socket as i32) };
    // SAFETY: all-zero is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(bytes) {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    // SAFETY: a valid descriptor and a live ifreq that names the interface; any socket takes SIOCSIFFLAGS.
    check(
        unsafe { libc::ioctl(std::os::fd::AsRawFd::as_raw_fd(&socket), libc::SIOCSIFFLAGS as _, &raw const request) }
            .into(),
    )
    .map(drop)
}
