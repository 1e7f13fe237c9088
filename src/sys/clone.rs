//! `clone3(2)`: the one way this program makes processes; before Linux 5.7 `clone(2)`, whose child enters its cgroup itself.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::process::EffectiveUser;
use super::{Errno, Result, path};

/// What the new process gets (`clone3(2)`).
#[derive(Debug, Default, Clone, Copy)]
pub struct CloneArgs<'a> {
    /// `CLONE_NEW*` flags; `CLONE_PIDFD` is always added.
    pub namespaces: u64,
    /// The cgroup v2 directory the child is born in (`CLONE_INTO_CGROUP`).
    pub cgroup: Option<BorrowedFd<'a>>,
    /// The child becomes a child of the caller's parent (`CLONE_PARENT`).
    pub sibling: bool,
    /// Who owns the new user namespace, where the caller may say so and it is not itself: what the kernel counts by user (inotify, pending signals,
    /// message queues) is counted for its owner too (user_namespaces(7), `/proc/sys/user`).
    pub owner: Option<libc::uid_t>,
}

/// A process made by [`clone3`], seen from its creator.
#[derive(Debug)]
pub struct Child {
    /// Its pid in the creator's pid namespace.
    pub pid: libc::pid_t,
    /// A handle that keeps naming this very process after it has ended.
    pub pidfd: OwnedFd,
}

/// Makes a process that runs `child` and ends with the status it returns.
///
/// The child is a copy of the caller, as with `fork(2)`: memory is not shared. Its signal to the
/// parent at the end is `SIGCHLD`.
///
/// # Errors
/// `EPERM` without the privilege for the namespaces, `EBUSY`/`EOPNOTSUPP` for the cgroup; `EDEADLK` where the caller has more than one thread: a copy of it could then hold
/// locks that nobody will release.
pub fn clone3(args: CloneArgs<'_>, child: impl FnOnce() -> i32) -> Result<Child> {
    // SAFETY: glibc's documented flag; reading a byte that only glibc writes, before a second thread exists.
    if unsafe { __libc_single_threaded } == 0 {
        return Err(Errno::EDEADLK);
    }
    let mut pidfd: libc::c_int = -1;
    let mut raw = RawArgs {
        flags: args.namespaces | libc::CLONE_PIDFD as u64,
        pidfd: &raw mut pidfd as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..RawArgs::default()
    };
    if args.sibling {
        // With CLONE_PARENT the exit signal is the caller's own and must not be given.
        raw.flags |= libc::CLONE_PARENT as u64;
        raw.exit_signal = 0;
    }
    if let Some(cgroup) = args.cgroup {
        raw.flags |= CLONE_INTO_CGROUP;
        raw.cgroup = cgroup.as_raw_fd() as u64;
    }
    let owner = args.owner.map_or(Ok(None), EffectiveUser::take)?;
    let made = make(&mut raw, args.cgroup);
    let back = match (&made, owner) {
        // The child has ids of its own, which nobody has mapped yet.
        (Ok((0, _)), _) | (_, None) => Ok(()),
        (_, Some(owner)) => owner.give_back(),
    };
    match made? {
        (0, procs) => {
            super::entry::let_go();
            super::process::forget_user_namespace();
            let entered = procs.is_none_or(|procs| path::write_once(procs.as_fd(), b"0").is_ok());
            let status = if entered { child() } else { 127 };
            // SAFETY: ends the child without running the parent's exit handlers or flushing its buffers.
            unsafe { libc::_exit(status) }
        }
        (pid, _) => {
            // Linux before 5.2 takes no notice of CLONE_PIDFD.
            let usable = if pidfd == -1 { Err(Errno::ENOSYS) } else { back };
            // SAFETY: the kernel has just stored a fresh descriptor there, which nobody else owns.
            let pidfd = (pidfd != -1).then(|| unsafe { OwnedFd::from_raw_fd(pidfd) });
            match (usable, pidfd) {
                (Ok(()), Some(pidfd)) => Ok(Child { pid: pid as libc::pid_t, pidfd }),
                (usable, _) => {
                    // The child is its creator's, and not reaped yet.
                    // SAFETY: no memory is passed but a null status, which is allowed.
                    unsafe {
                        libc::kill(pid as libc::pid_t, libc::SIGKILL);
                        libc::waitpid(pid as libc::pid_t, std::ptr::null_mut(), 0);
                    }
                    Err(usable.err().unwrap_or(Errno::ENOSYS))
                }
            }
        }
    }
}

/// The call, or the older one; with that the child has to enter its cgroup by itself, through the file that comes back.
fn make(raw: &mut RawArgs, cgroup: Option<BorrowedFd<'_>>) -> Result<(libc::c_long, Option<OwnedFd>)> {
    // SAFETY: `raw` is a valid clone_args of the size given and what its `pidfd` points to outlives the call. Without
    // CLONE_VM the child has its own copy of all memory, and the process had one thread (checked
    // by the caller), so no lock of the allocator or of std is held by a thread the child does not have.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut *raw, size_of::<RawArgs>()) };
    match pid {
        -1 => match Errno::last() {
            // No such call, one without cgroups, or a filter's answer: where the privilege is missing, the old one says so too.
            Errno::ENOSYS | Errno::E2BIG | Errno::EPERM => {
                // Opened with the creator's privileges and names, as the kernel would look at it.
                let procs = cgroup.map(|it| path::openat(it, c"cgroup.procs", libc::O_WRONLY, 0)).transpose()?;
                Ok((old_clone(raw)?, procs))
            }
            errno => Err(errno),
        },
        pid => Ok((pid, None)),
    }
}

/// `clone(2)` with the flags that it has, too; the cgroup is left to the child.
fn old_clone(raw: &RawArgs) -> Result<libc::c_long> {
    /// The old call has its exit signal where newer flags are (`CLONE_NEWTIME`).
    const CSIGNAL: u64 = 0xff;
    if raw.flags & CSIGNAL != 0 {
        return Err(Errno::ENOSYS);
    }
    let flags = raw.flags & !CLONE_INTO_CGROUP | raw.exit_signal;
    // SAFETY: as for clone3; a null stack means the caller's own, copied, and the third argument is where CLONE_PIDFD writes.
    super::check(unsafe { libc::syscall(libc::SYS_clone, flags, 0, raw.pidfd, 0, 0) })
}

/// `CLONE_INTO_CGROUP` of `<linux/sched.h>` (Linux 5.7).
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

unsafe extern "C" {
    /// glibc's documented flag (`<sys/single_threaded.h>`), true until a second thread is made.
    static __libc_single_threaded: libc::c_char;
}

/// The size that `clone3(2)` is told.
pub const CLONE3_SIZE: u64 = size_of::<RawArgs>() as u64;

/// `struct clone_args` of `<linux/sched.h>`, version 2 (88 bytes).
#[repr(C)]
#[derive(Debug, Default)]
struct RawArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}
