//! Removing what is provably stale, and proving it gone.
//!
//! Everything is looked at again, under its lock where it has one, right before it is removed: a finding of the survey may
//! be old by then. Two recoveries take turns.

use std::path::Path;
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, umount2};
use schemars::JsonSchema;
use serde::Serialize;

use super::survey::{Finding, Kind, Leftover, Survey, judge, survey};
use crate::cleanup::{DEADLINE, Proof, orphans};
use crate::container::delete::delete_locked;
use crate::container::root::Root;
use crate::container::running_hook;
use crate::container::state::Directory;
use crate::error::{At, Error, Result};
use crate::judge::batch::cores::PLACE;
use crate::judge::{lease, monitor};
use crate::subtree;
use crate::sys::lock::{FlockArg, Lock};
use crate::sys::path;

/// How often the worker is looked over: removing one thing may uncover another (a container's end, its ids).
const ROUNDS: usize = 3;

/// What a recovery did.
#[derive(Debug, Clone, Default, Serialize, JsonSchema)]
pub struct Recovered {
    /// What was left and is gone, in the order of removal.
    pub removed: Vec<Leftover>,
    /// What each container's release proved.
    pub proofs: Vec<Proof>,
    /// What could not be removed, and why.
    pub failures: Vec<String>,
    /// Failures of poststop hooks, which keep nothing from being removed.
    pub warnings: Vec<String>,
    /// The look over the worker afterwards.
    #[serde(flatten)]
    pub after: Survey,
}

impl Recovered {
    /// Nothing is left, and nothing has failed.
    pub fn is_clean(&self) -> bool {
        self.after.clean && self.failures.is_empty()
    }

    /// For a person: a line for each thing removed, and the look afterwards.
    pub fn table(&self) -> String {
        let removed: String = self.removed.iter().map(|leftover| format!("removed {leftover}\n")).collect();
        removed + &self.after.table()
    }
}

/// Removes what is stale; with `cleanup`, stopped containers too, as `delete` does.
///
/// # Errors
/// Where the state root cannot be read. What cannot be removed is in the result.
pub fn recover(root: &Root, cleanup: bool) -> Result<Recovered> {
    let _turn = take_turn(root)?;
    let mut done = Recovered { after: survey(root)?, ..Recovered::default() };
    for _ in 0..ROUNDS {
        let before = done.removed.len();
        let mut left = std::mem::take(&mut done.after.leftovers);
        done.failures.clear();
        if cleanup {
            left.extend(done.after.stopped.iter().map(|id| stopped(id)));
        }
        for leftover in left {
            match remove(root, &leftover, cleanup, &mut done) {
                Ok(true) => done.removed.push(leftover),
                Ok(false) => {}
                Err(error) => done.failures.push(error.to_string()),
            }
        }
        done.after = survey(root)?;
        if done.after.clean || done.removed.len() == before {
            break;
        }
    }
    Ok(done)
}

fn stopped(id: &str) -> Leftover {
    Leftover {
        kind: Kind::Container,
        name: id.to_owned(),
        reason: "it has stopped".to_owned(),
        owner: Some(id.to_owned()),
        process: None,
        age_s: None,
    }
}

/// One recovery at a time, by a lock on a descriptor of its own of the root directory.
fn take_turn(root: &Root) -> Result<Lock> {
    let place = root.path().display();
    let dir = path::open(root.path(), libc::O_RDONLY | libc::O_DIRECTORY).at("open", &place)?;
    Lock::take(dir, FlockArg::LockExclusive).map_err(|(_, errno)| errno).at("lock", &place)
}

/// Removes one leftover; false where it is none any more.
fn remove(root: &Root, leftover: &Leftover, cleanup: bool, done: &mut Recovered) -> Result<bool> {
    let place = Path::new(&leftover.name);
    match leftover.kind {
        Kind::Container | Kind::Hook | Kind::Monitor => return container(root, &leftover.name, cleanup, done),
        Kind::Process => {
            return leftover.process.map_or(Ok(false), |orphan| orphans::end(orphan, Instant::now() + DEADLINE));
        }
        Kind::UnreadableState => {
            let place = root.path().join(&leftover.name);
            return Err(Error::Other(format!("`{}` is left to a person: {}", place.display(), leftover.reason)));
        }
        Kind::EmptyState => {
            let place = root.path().join(&leftover.name);
            return done_or_gone(std::fs::remove_dir(&place)).at("remove", place.display());
        }
        Kind::Mount => {
            return done_or_gone(umount2(place, MntFlags::UMOUNT_NOFOLLOW).map_err(Into::into))
                .at("unmount", place.display());
        }
        Kind::HalfWritten => return subtree::remove(place).at("remove", place.display()),
        Kind::Temporary => return done_or_gone(std::fs::remove_file(place)).at("remove", place.display()),
        Kind::Cgroup => return done_or_gone(std::fs::remove_dir(place)).at("remove", place.display()),
        Kind::Stage | Kind::Ids | Kind::Cores => {}
    }
    // Somebody may have taken the same id since.
    let still = survey(root)?.leftovers.into_iter().any(|it| it.kind == leftover.kind && it.name == leftover.name);
    if !still {
        return Ok(false);
    }
    if leftover.kind == Kind::Stage {
        return subtree::remove(place).at("remove", place.display());
    }
    let directory = if leftover.kind == Kind::Cores { PLACE } else { lease::IDS };
    let leases = lease::all_in(root.path(), directory)?;
    let found = leases.iter().find(|found| place.file_name() == Some(found.name.as_os_str()));
    let process = |found: &lease::Found| found.owner.as_ref().map(|owner| owner.supervisor);
    match found.filter(|found| process(found) == leftover.process) {
        Some(found) => lease::drop_found_in(root.path(), directory, found).map(|()| true),
        None => Ok(false),
    }
}

/// Deletes a container that is stale, or has stopped where that is asked for, or ends the hook that its runtime has left, or
/// has another monitor go on.
fn container(root: &Root, id: &str, cleanup: bool, done: &mut Recovered) -> Result<bool> {
    let Some(directory) = lock(root, id)? else { return Ok(false) };
    let record = directory.record()?;
    match judge(directory.fd(), &record)? {
        Finding::Left(Kind::Hook, _) => {
            return Ok(running_hook::end(directory.fd(), &record, Instant::now() + DEADLINE)?.is_some());
        }
        Finding::Left(Kind::Monitor, _) => {
            monitor::resume(root, &directory, &record)?;
            return Ok(true);
        }
        Finding::Left(..) => {}
        Finding::Stopped if cleanup => {}
        _ => return Ok(false),
    }
    let deleted = delete_locked(root, directory, record)?;
    done.warnings.extend(deleted.warnings.iter().map(ToString::to_string));
    done.proofs.push(deleted.proof.clone());
    deleted.proof.require().map(|_| true)
}

/// Locks a container's directory; nothing where it is gone, or a command works on it. Somebody who only looks has the
/// lock for a moment.
fn lock(root: &Root, id: &str) -> Result<Option<Directory>> {
    match root.lock_within(id, Duration::from_millis(100), || {}) {
        Err(Error::State { .. }) => Ok(None),
        other => other,
    }
}

/// What is gone already was removed by somebody else.
fn done_or_gone(done: std::io::Result<()>) -> std::io::Result<bool> {
    match done {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
