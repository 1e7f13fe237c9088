//! `delete`: releases what is left of a container and proves it gone.

use std::os::fd::{AsFd, OwnedFd};

use crate::cleanup::{self, Proof};
use crate::container::force;
use crate::container::hooks::Kind;
use crate::container::identity;
use crate::container::report::Report;
use crate::container::root::Root;
use crate::container::running_hook;
use crate::container::state::{Directory, Live, Record, Status, read_init, status};
use crate::error::{Error, Result};
use crate::judge::monitor;

/// What a delete did.
#[derive(Debug)]
pub struct Deleted {
    /// That nothing remains, or what.
    pub proof: Proof,
    /// Failures of poststop hooks, which do not keep a container from being deleted.
    pub warnings: Vec<Error>,
}

/// Deletes a stopped or created container; with `force`, one in any state, also where another command is working on it.
///
/// # Errors
/// [`Error::State`] where it is running, or does not exist and `force` is not given; with `force`, where a command does not
/// let go of it.
pub fn delete(root: &Root, id: &str, force: bool) -> Result<Option<Deleted>> {
    let directory = match force {
        false => root.lock(id)?,
        true => match force::lock(root, id)? {
            Some(directory) => directory,
            None => return Ok(None),
        },
    };
    let record = directory.record()?;
    let (now, live) = status(directory.fd(), &record)?;
    if !force && matches!(now, Status::Running | Status::Paused | Status::Creating) {
        return Err(Error::state(id, format!("cannot be deleted: it is {now}; use --force, or kill it first")));
    }
    delete_known(root, directory, record, (now, live)).map(Some)
}

/// Deletes a container in any state.
///
/// # Errors
/// Where its status cannot be told, or it cannot be thawed. What remains after that is in the proof.
pub fn delete_locked(root: &Root, directory: Directory, record: Record) -> Result<Deleted> {
    let known = status(directory.fd(), &record)?;
    delete_known(root, directory, record, known)
}

fn delete_known(
    root: &Root,
    directory: Directory,
    mut record: Record,
    (now, live): (Status, Option<Live>),
) -> Result<Deleted> {
    // Whoever has its pids, or is in its cgroups, is another one.
    let other_boot = record.boot_id != identity::boot_id()?;
    if let (Status::Paused, Some(live)) = (now, &live) {
        // A frozen process dies when it is thawed.
        let _ = crate::sys::pidfd::send_signal(live.pidfd.as_fd(), libc::SIGKILL);
        record.cgroup.open().thaw()?;
    }
    let mut pidfd = live.map(|live| live.pidfd);
    if pidfd.is_none()
        && !other_boot
        && let Some(init) = read_init(directory.fd(), &record.id)?
    {
        // A dead init still vouches for its pid namespace, where it was one.
        let dead = |fd: &OwnedFd| crate::sys::pidfd::wait_end(fd.as_fd(), 0).unwrap_or(false);
        pidfd = match identity::open(init.process)? {
            None => crate::sys::pidfd::open(init.process.pid).ok().filter(dead),
            creating => creating,
        };
    }
    if pidfd.is_none() && (other_boot || !directory.was_entered()) {
        record.cgroup = record.cgroup.unentered();
    }
    let mut deleted = release(root, directory, &record, pidfd);
    if deleted.proof.clean {
        deleted.warnings.extend(crate::judge::run::discard(root, &record.id).err());
    }
    Ok(deleted)
}

/// Releases a container whose directory is locked, poststop hooks included.
pub fn release(root: &Root, directory: Directory, record: &Record, init: Option<OwnedFd>) -> Deleted {
    let mut warnings = Vec::new();
    let last_word = monitor::end(&directory, record, init.as_ref().map(AsFd::as_fd)).unwrap_or_else(|error| {
        warnings.push(error);
        None
    });
    let proof = cleanup::release(root, directory, record, init, |directory| {
        warnings.extend(poststop(directory, record).unwrap_or_else(|error| vec![error]))
    });
    if let Some(Err(error)) = last_word.map(|last_word| last_word.complete(root, &record.id, &proof)) {
        warnings.push(error);
    }
    Deleted { proof, warnings }
}

/// Runs the poststop hooks of a container.
///
/// # Errors
/// None; what failed is returned, and all of them have run ("poststop", runtime specification).
pub fn poststop(directory: &Directory, record: &Record) -> Result<Vec<Error>> {
    let hooks = record.hooks.as_ref().and_then(|hooks| hooks.poststop().as_deref()).unwrap_or_default();
    let state = Report::for_hooks(record, Status::Stopped, 0);
    running_hook::run(directory.fd(), Kind::Poststop, hooks, &state)
}
