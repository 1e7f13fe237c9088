//! Release, and the proof that nothing remains.
//!
//! A release is finished when the kernel says so, not when the calls that should do it have
//! returned: the first process is dead by its handle (with a pid namespace of its own the kernel
//! then vouches for the rest; without one nobody is left in its mount namespace), no cgroup directory and so no
//! process in one is left, no mount below the container's rootfs or state directory is in sight, the state directory is gone.

pub mod mounts;
pub mod orphans;

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::Serialize;

use crate::cgroup::Cgroup;
use crate::container::root::Root;
use crate::container::running_hook;
use crate::container::state::{Directory, Record};
use crate::error::{At, Error, Result};
use crate::sys::{Errno, path, pidfd};
use crate::worker::metrics;

/// How long a release waits for processes and cgroups to go, in all.
pub const DEADLINE: Duration = Duration::from_secs(10);
/// Time until whoever is still in the cgroups of a dead init is killed, too.
const SOON: Duration = Duration::from_millis(200);
/// How long a process that is not frozen may take to die of SIGKILL before somebody looks, in milliseconds.
const UNFROZEN_MS: i32 = 500;

/// What was looked at after a release, and what was found.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Proof {
    /// The container's id.
    pub id: String,
    /// Nothing remains.
    pub clean: bool,
    /// The first process and, by its pid namespace or its cgroups, all others are dead.
    pub processes_dead: bool,
    /// How the death of all processes is known.
    pub processes_by: &'static str,
    /// Processes of the container that live, outside of its cgroups: left alone, because somebody has moved them there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub orphans: Vec<orphans::Orphan>,
    /// The hook that a runtime which died had left running, and that was ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hook_ended: Option<String>,
    /// Number of cgroup directories that were looked for and are gone.
    pub cgroups_gone: usize,
    /// No mount lies below the rootfs or the state directory.
    pub mounts_gone: bool,
    /// The state directory is gone.
    pub state_gone: bool,
    /// Each thing that remains, in words.
    pub left: Vec<String>,
    /// From the first signal to the last look, in microseconds.
    pub took_us: u64,
}

impl Proof {
    /// The proof as a result: an error where something remains.
    ///
    /// # Errors
    /// [`Error::Unclean`], naming each leftover.
    pub fn require(self) -> Result<Proof> {
        if self.clean {
            Ok(self)
        } else {
            Err(Error::Unclean { id: self.id, left: self.left, orphans: self.orphans.len() })
        }
    }

    /// The error that made the release necessary, with what remains where something does.
    pub fn after(self, error: Error) -> Error {
        match self.require() {
            Ok(_) => error,
            Err(unclean) => Error::Context { context: error.to_string(), source: Box::new(unclean) },
        }
    }
}

/// Ends what is left of a container and proves it gone. The state directory goes last, and stays
/// where something else does: it is the record by which recovery finds the leftover.
///
/// `init` is a handle of the first process, where one was made and may be alive; `before_state` runs
/// when all but the state directory is gone (the place of poststop hooks).
pub fn release(
    root: &Root,
    directory: Directory,
    record: &Record,
    init: Option<OwnedFd>,
    before_state: impl FnOnce(&Directory),
) -> Proof {
    let begun = Instant::now();
    let deadline = begun + DEADLINE;
    let mut left = Vec::new();

    // First, because it may be about to do something to what is released below.
    let hook_ended = match &record.hooks {
        Some(_) => running_hook::end(directory.fd(), record, deadline).unwrap_or_else(|error| {
            left.push(error.to_string());
            None
        }),
        None => None,
    };
    let (cgroup, known) = record.cgroup.open().owned();
    if let Err(error) = known {
        left.push(error.to_string());
    }
    let init_dead = match &init {
        Some(init) => end(init, &cgroup, deadline, &mut left),
        None => true,
    };
    let unit = record.cgroup.unit.is_some();
    if !record.own_pid_namespace || !init_dead || init.is_none() || unit {
        // Nothing vouches for processes that init has left behind, but their cgroup.
        if let Err(error) = cgroup.kill() {
            left.push(error.to_string());
        }
    }
    // Who is killed by now need not be asked by systemd to end.
    if let Err(error) = cgroup.stop_unit(deadline.saturating_duration_since(Instant::now())) {
        left.push(error.to_string());
    }
    let mut removed = cgroup.remove(SOON.min(deadline.saturating_duration_since(Instant::now())));
    if removed.is_err() {
        // Somebody is in there whose end the pid namespace's does not bring: an `exec` on its way into it.
        left.extend(cgroup.kill().err().map(|error| error.to_string()));
        removed = cgroup.remove(deadline.saturating_duration_since(Instant::now()));
    }
    let remaining = cgroup.remaining();
    // What counts is what is there: a read-only hierarchy refuses to remove what was never made.
    if let Err(error) = removed
        && !remaining.is_empty()
    {
        left.push(error.to_string());
    }
    left.extend(remaining.iter().map(|path| format!("cgroup `{}`", path.display())));
    let orphans = orphans::of(root, &directory, record).unwrap_or_else(|error| {
        left.push(format!("orphan processes are unknown: {error}"));
        Vec::new()
    });
    left.extend(orphans.iter().map(orphans::Orphan::words));
    if let Some(directories) = &record.resctrl
        && let Err(error) = crate::init::intel_rdt::remove(directories)
    {
        left.push(error.to_string());
    }
    before_state(&directory);
    // After the poststop hooks: what a hook has mounted, a hook may unmount.
    let mounts_gone = match mounts::below(&[directory.path(), &record.rootfs]) {
        Ok(mounts) => {
            let none = mounts.is_empty();
            left.extend(mounts);
            none
        }
        Err(error) => {
            left.push(format!("mounts are unknown: {error}"));
            false
        }
    };

    let state_gone = left.is_empty() && remove_state(root, directory, &mut left);
    let proof = Proof {
        id: record.id.clone(),
        clean: left.is_empty(),
        processes_dead: init_dead && remaining.is_empty() && orphans.is_empty(),
        processes_by: if record.own_pid_namespace && init.is_some() { "pid namespace" } else { "cgroup" },
        orphans,
        hook_ended,
        cgroups_gone: record.cgroup.directories.len().saturating_sub(remaining.len()),
        mounts_gone,
        state_gone,
        left,
        took_us: u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX),
    };
    metrics::released(&proof);
    proof
}

/// Kills a process by its handle and waits for its end; true where it is dead.
fn end(init: &OwnedFd, cgroup: &Cgroup, deadline: Instant, left: &mut Vec<String>) -> bool {
    match pidfd::send_signal(init.as_fd(), libc::SIGKILL) {
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(errno) => left.push(format!("kill the first process: {}", errno.desc())),
    }
    if pidfd::wait_end(init.as_fd(), UNFROZEN_MS) == Ok(false)
        && let Err(error) = cgroup.thaw_strays()
    {
        left.push(error.to_string());
    }
    let wait = deadline.saturating_duration_since(Instant::now());
    match pidfd::wait_end(init.as_fd(), i32::try_from(wait.as_millis()).unwrap_or(i32::MAX)) {
        Ok(true) => {
            // Where it is our own child, nobody else will reap it.
            let _ = pidfd::wait(init.as_fd(), false);
            true
        }
        Ok(false) => {
            left.push("the first process, which SIGKILL has not ended".to_owned());
            false
        }
        Err(errno) => {
            left.push(format!("wait for the first process: {}", errno.desc()));
            false
        }
    }
}

/// Removes the state directory; true where it is gone.
fn remove_state(root: &Root, directory: Directory, left: &mut Vec<String>) -> bool {
    match directory.remove(root).and_then(|()| is_there(&directory)) {
        Ok(false) => return true,
        Ok(true) => left.push(format!("state directory `{}`", directory.path().display())),
        Err(error) => left.push(error.to_string()),
    }
    false
}

/// Whether the name of a container's directory leads to it. Another container may have the same by now: its directory is
/// another inode, as long as this one is open.
fn is_there(directory: &Directory) -> Result<bool> {
    let place = directory.path().display();
    let found = match std::fs::symlink_metadata(directory.path()) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        found => found.at("look for the state directory", &place)?,
    };
    let own = path::fstat(directory.fd()).at("stat", &place)?;
    Ok((found.dev(), found.ino()) == (own.st_dev, own.st_ino))
}
