//! `pause` and `resume`: freezes and thaws a container's cgroup.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use crate::container::record::Record;
use crate::container::root::Root;
use crate::container::state::{Directory, Status, is_frozen, status};
use crate::error::{Error, Result};

/// How long a command that works on the container is waited for. One that takes longer waits itself: for a hook, or for
/// what is frozen.
const PATIENCE: Duration = Duration::from_millis(100);

/// Freezes a container that is created or runs.
///
/// # Errors
/// [`Error::State`] where it is neither; as [`Cgroup::freeze`](crate::cgroup::Cgroup::freeze).
pub fn pause(root: &Root, id: &str) -> Result<()> {
    let (lock, dir, record) = open(root, id)?;
    let refused = |now: Status| Error::state(id, format!("cannot be paused: it is {now}"));
    let live = match status(dir.as_fd(), &record)? {
        (Status::Running | Status::Created, Some(live)) => live,
        (now, _) => return Err(refused(now)),
    };
    record.cgroup.open().freeze()?;
    if lock.is_some() {
        return Ok(());
    }
    // Without the lock it may have been deleted, and what is frozen now be another's that has come to its name and its cgroup.
    let now = match status(dir.as_fd(), &record)? {
        (Status::Paused, Some(now)) if now.process == live.process && root.names(id, dir.as_fd())? => return Ok(()),
        (Status::Paused, _) => Status::Stopped,
        (now, _) => now,
    };
    if is_frozen(&record)? {
        record.cgroup.open().thaw()?;
    }
    Err(refused(now))
}

/// Thaws a container that is paused, also one that was frozen while it was created.
///
/// # Errors
/// [`Error::State`] where it is not; as `write(2)`.
pub fn resume(root: &Root, id: &str) -> Result<()> {
    let (_lock, dir, record) = open(root, id)?;
    match status(dir.as_fd(), &record)? {
        (Status::Paused, _) => record.cgroup.open().thaw(),
        (Status::Creating, _) if is_frozen(&record)? => record.cgroup.open().thaw(),
        (now, _) => Err(Error::state(id, format!("cannot be resumed: it is {now}"))),
    }
}

/// A container, and its lock: where that is not held for long, nobody else can take the container's place.
fn open(root: &Root, id: &str) -> Result<(Option<Directory>, OwnedFd, Record)> {
    let lock = root.lock_within(id, PATIENCE, || {})?;
    let (dir, record) = root.look(id)?;
    Ok((lock, dir, record))
}
