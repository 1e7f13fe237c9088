//! The lock of a container that another command works on, for `delete --force`.
//!
//! Whoever has the lock waits for something of the container, as a rule: for a hook, or for init to come so far. That is
//! killed, the command sees it, takes back what it has made, or leaves it, and lets go. The command itself is never killed: it
//! may be the supervisor of many.

use std::os::fd::{AsFd, BorrowedFd};

use crate::cleanup::DEADLINE;
use crate::container::identity;
use crate::container::record::{read_init, read_record};
use crate::container::root::Root;
use crate::container::running_hook;
use crate::container::state::{Directory, Record, is_frozen};
use crate::error::{Error, Result};
use crate::judge::monitor;
use crate::sys::{Errno, lock, path, pidfd};

/// Locks an existing container's directory; where a command has the lock, ends what that waits for, again and again, until
/// it lets go. Nothing where there is no such container any more.
///
/// # Errors
/// [`Error::Other`] where the command does not let go in ten seconds, naming it; as [`Root::lock`].
pub fn lock(root: &Root, id: &str) -> Result<Option<Directory>> {
    let mut trouble = None;
    match root.lock_within(id, DEADLINE, || trouble = end_all(root, id).err()) {
        Ok(Some(directory)) => Ok(Some(directory)),
        Ok(None) => Err(held(root, id, trouble)),
        Err(Error::State { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Kills what the command that has the lock may be waiting for.
fn end_all(root: &Root, id: &str) -> Result<()> {
    let dir = root.open_directory(id)?;
    let dir = dir.as_fd();
    // The record of the cgroups is final once this file is there: they are read in this order.
    let entered = path::openat(dir, c"init", libc::O_PATH, 0).is_ok();
    let record = read_record(dir, id)?;
    if record.boot_id != identity::boot_id()? {
        return Ok(());
    }
    running_hook::interrupt(dir, &record)?;
    let known = kill_init(dir, &record)?;
    if entered && !(known && record.own_pid_namespace) {
        let (cgroup, ours) = record.cgroup.open().owned();
        ours.and_then(|()| cgroup.kill())?;
    }
    // By the v1 freezer even who is killed stays.
    if known && is_frozen(&record)? { record.cgroup.open().thaw() } else { Ok(()) }
}

/// Kills init, and says whether it is on record.
fn kill_init(dir: BorrowedFd<'_>, record: &Record) -> Result<bool> {
    let Some(init) = read_init(dir, &record.id)? else { return Ok(false) };
    let Some(init) = identity::open(init.process)? else { return Ok(true) };
    monitor::signalled(dir, record, libc::SIGKILL)?;
    match pidfd::send_signal(init.as_fd(), libc::SIGKILL) {
        Ok(()) | Err(Errno::ESRCH) => Ok(true),
        Err(errno) => Err(Error::sys("kill the first process of", &record.id, errno)),
    }
}

fn held(root: &Root, id: &str, trouble: Option<Error>) -> Error {
    let holder = root.open_directory(id).ok().and_then(|dir| lock::holder(dir.as_fd()));
    let name = |pid| std::fs::read_to_string(format!("/proc/{pid}/comm"));
    let (who, next) = match holder.map(|pid| (pid, name(pid))) {
        Some((pid, Ok(name))) => (format!("process {pid} `{}`", name.trim()), "end it"),
        Some((pid, Err(_))) => (format!("a process that process {pid} has left behind"), "end it"),
        None => ("a process that /proc/locks does not name".to_owned(), "end the command that works on it"),
    };
    let seconds = DEADLINE.as_secs();
    let trouble = trouble.map(|error| format!(" ({error})")).unwrap_or_default();
    Error::Other(format!(
        "container `{id}` cannot be deleted: {who} works on it and has not let go of it in {seconds} s{trouble}; {next}, and \
         delete the container again"
    ))
}
