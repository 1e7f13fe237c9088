//! Joining another container's pid namespace: nobody in there may see the host through a process of ours.
//!
//! Whoever has CAP_SYS_PTRACE in the host's user namespace looks into every process that its pid namespace shows, dumpable
//! or not: root directory, working directory, descriptors (the class of CVE-2016-9962). So init is set up outside, enters
//! the root file system, closes what it holds of the host, and only then has a child born into the namespace, which goes
//! on in its place. What must be done by a member before that, mounting procfs, is done by one that has nothing either.
//!
//! With a *new* user namespace that order is not to be had: in there init has no privilege over the pid namespace.

use std::os::fd::{AsFd, BorrowedFd};

use crate::container::namespaces::Join;
use crate::error::{At, Result};
use crate::sys::clone::{CloneArgs, clone3};
use crate::sys::mount_at::fchdir;
use crate::sys::process::{self, Ended};
use crate::sys::{Errno, pidfd, wait};

/// Runs `act` in a process of the pid namespace whose root directory is `root`, whose working directory is `cwd` and
/// which has no descriptor.
///
/// # Errors
/// The errno of `act`, or of the call that fails on the way to it.
pub fn run_inside(
    pid_namespace: BorrowedFd<'_>,
    root: BorrowedFd<'_>,
    cwd: BorrowedFd<'_>,
    act: impl FnOnce() -> std::result::Result<(), Errno>,
) -> std::result::Result<(), Errno> {
    // This one only has a child there, and is itself outside.
    let middle = clone3(CloneArgs::default(), || status(go_inside(pid_namespace, root, cwd, act)))?;
    ended(middle.pidfd.as_fd())
}

fn go_inside(
    pid_namespace: BorrowedFd<'_>,
    root: BorrowedFd<'_>,
    cwd: BorrowedFd<'_>,
    act: impl FnOnce() -> std::result::Result<(), Errno>,
) -> std::result::Result<(), Errno> {
    process::setns(pid_namespace, libc::CLONE_NEWPID)?;
    fchdir(root)?;
    nix::unistd::chroot(c".")?;
    fchdir(cwd)?;
    wait::close_all_but(&[])?;
    let member = clone3(CloneArgs::default(), || status(act()))?;
    ended(member.pidfd.as_fd())
}

/// An errno fits into an exit status.
fn status(done: std::result::Result<(), Errno>) -> i32 {
    done.err().map_or(0, |errno| errno as i32)
}

fn ended(child: BorrowedFd<'_>) -> std::result::Result<(), Errno> {
    match pidfd::wait(child, true)? {
        Some(Ended::Exited(0)) => Ok(()),
        Some(Ended::Exited(errno)) => Err(Errno::from_raw(errno)),
        // Killed by a member of the namespace, for example.
        _ => Err(Errno::ECANCELED),
    }
}

/// In a process that has entered its root file system: closes all descriptors but those in `keep`; its next child is born
/// into the namespace.
///
/// # Errors
/// As `setns(2)` and `close_range(2)`.
pub fn leave_host(join: &Join, keep: &[BorrowedFd<'_>]) -> Result<()> {
    process::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0).at("make", "the container's first process undumpable")?;
    join.enter()?;
    wait::close_all_but(keep).at("close", "the descriptors of the host")
}
