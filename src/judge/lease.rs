//! Host ids for judged sandboxes: each concurrent sandbox maps to a range of its own, never to host 0.
//!
//! Slot *n* is the 65,536 host ids from 1,879,048,192 + 65,536 × *n* (0x70000000 on: above the ranges that
//! distributions give to users, to `subuid(5)` by default and to systemd's DynamicUser and containers, below 2³¹).
//! A lease is the symbolic link `<root>/.ids/<slot>` whose text names the sandbox and its supervisor, pid and start time:
//! made in one step, or not at all. A lease is stale, and is taken over, when its supervisor is dead and its sandbox has
//! neither state nor stage any more. (A live supervisor may have neither yet, or neither between two steps.)

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use crate::container::identity::{self, ProcessId};
use crate::error::{At, Error, Result};
use crate::sys::{Errno, path};

/// The first host id of slot 0.
pub const FIRST: u32 = 0x7000_0000;
/// Ids in a slot.
pub const SIZE: u32 = 65_536;
/// Slots.
pub const SLOTS: u32 = 2048;
/// The directory of the leases, below the state root.
pub const IDS: &str = ".ids";

/// A range of host ids that one sandbox owns. Released by [`Lease::release`], after the proof that the sandbox is
/// gone; a lease that is merely dropped stays, and is reclaimed when its owner's state directory is gone.
#[derive(Debug)]
pub struct Lease {
    directory: OwnedFd,
    slot: u32,
    text: CString,
}

/// Who has leased a range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The sandbox's id.
    pub id: String,
    /// Its supervisor.
    pub supervisor: ProcessId,
}

impl Owner {
    /// The owner that a lease's text names.
    fn parse(text: &str) -> Option<Owner> {
        let (id, supervisor) = text.split_once(' ')?;
        Some(Owner { id: id.to_owned(), supervisor: supervisor.parse().ok()? })
    }

    /// Whether the supervisor lives.
    ///
    /// # Errors
    /// Where pidfds or `/proc` do not work.
    pub fn lives(&self) -> Result<bool> {
        Ok(identity::open(self.supervisor)?.is_some())
    }
}

/// A lease as found on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The link's name in `.ids`.
    pub name: std::ffi::OsString,
    /// Whose it is; `None` where its text names nobody.
    pub owner: Option<Owner>,
}

/// Every lease of ids of a state root.
///
/// # Errors
/// What the file system answers.
pub fn all(root: &Path) -> Result<Vec<Found>> {
    all_in(root, IDS)
}

/// Every lease in this directory of a state root.
///
/// # Errors
/// What the file system answers.
pub fn all_in(root: &Path, place: &str) -> Result<Vec<Found>> {
    let place = root.join(place);
    let entries = match std::fs::read_dir(&place) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.at("read", place.display())?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.at("read", place.display())?;
        let owner = match std::fs::read_link(entry.path()) {
            Ok(text) => text.to_str().and_then(Owner::parse),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(_) => None,
        };
        found.push(Found { name: entry.file_name(), owner });
    }
    Ok(found)
}

/// Drops one lease in this directory, if it is still the one that was found.
///
/// # Errors
/// What the file system answers.
pub fn drop_found_in(root: &Path, place: &str, found: &Found) -> Result<()> {
    let directory = open(root, place)?;
    let name = path::c_path(&found.name).at("name", found.name.display())?;
    take_away(&directory, &name, |text| std::str::from_utf8(text).ok().and_then(Owner::parse) == found.owner)
        .at("release", root.join(place).join(&found.name).display())
        .map(drop)
}

impl Lease {
    /// Leases a slot to the sandbox `id` of this process. `alive` says whether the owner of another lease still lives or has
    /// state.
    ///
    /// # Errors
    /// [`Error::Refused`] where all slots are taken; else what the file system answers.
    pub fn take(root: &Path, id: &str, alive: impl Fn(&Owner) -> bool) -> Result<Lease> {
        let directory = open(root, IDS)?;
        let text = format!("{id} {}", identity::this_process()?);
        let text = CString::new(text).map_err(|_| Error::Usage(format!("id `{id}` holds a NUL byte")))?;
        // Start at a place of the process's own, so that concurrent runs seldom meet.
        let start = std::process::id() % SLOTS;
        for slot in (start..SLOTS).chain(0..start) {
            let name = name(slot);
            match path::symlinkat(&text, directory.as_fd(), &name) {
                Ok(()) => return Ok(Lease { directory, slot, text }),
                Err(Errno::EEXIST) => {}
                Err(errno) => return Err(errno).at("lease ids in", root.join(".ids").display()),
            }
            if stale(&directory, &name, &alive) && path::symlinkat(&text, directory.as_fd(), &name).is_ok() {
                return Ok(Lease { directory, slot, text });
            }
        }
        Err(Error::Refused(format!("all {SLOTS} ranges of host ids are leased in `{}`", root.join(".ids").display())))
    }

    /// The first host id of the range.
    pub fn base(&self) -> u32 {
        FIRST + self.slot * SIZE
    }

    /// Gives the range back. Only after the proof: whoever has the range next must meet nobody with these ids.
    ///
    /// # Errors
    /// What `unlinkat(2)` answers.
    pub fn release(self) -> Result<()> {
        let name = name(self.slot);
        match path::readlinkat(self.directory.as_fd(), &name) {
            Ok(text) if text == self.text.as_bytes() => path::unlinkat(self.directory.as_fd(), &name, 0),
            // Somebody else's by now.
            Ok(_) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(errno),
        }
        .at("release the ids of", self.text.to_string_lossy())
    }
}

/// A number that this process has to itself, of those in a directory of the state root. Given back when it is dropped, and by
/// the death of the process.
#[derive(Debug)]
pub struct Claim {
    directory: OwnedFd,
    name: CString,
    text: CString,
}

/// Claims a number; `None` where another process that lives has it.
///
/// # Errors
/// What the file system answers.
pub fn claim(root: &Path, place: &str, number: usize) -> Result<Option<Claim>> {
    let directory = open(root, place)?;
    let text = format!("{} {}", place.trim_start_matches('.'), identity::this_process()?);
    let [text, name] = [text, number.to_string()].map(|text| CString::new(text).unwrap_or_default());
    for _ in 0..2 {
        match path::symlinkat(&text, directory.as_fd(), &name) {
            Ok(()) => return Ok(Some(Claim { directory, name, text })),
            Err(Errno::EEXIST) => {}
            Err(errno) => return Err(errno).at("claim", root.join(place).join(number.to_string()).display()),
        }
        // Who cannot be asked counts as alive.
        if !stale(&directory, &name, &|owner: &Owner| owner.lives().unwrap_or(true)) {
            break;
        }
    }
    Ok(None)
}

impl Drop for Claim {
    fn drop(&mut self) {
        // What cannot be given back is stale when this process has ended.
        let _ = take_away(&self.directory, &self.name, |text| text == self.text.as_bytes());
    }
}

/// Drops the lease of the sandbox `id`, if there is one: for `delete` and recovery, which know only the id.
///
/// # Errors
/// What the file system answers.
pub fn release_of(root: &Path, id: &str) -> Result<()> {
    let own = |found: &Found| found.owner.as_ref().is_some_and(|owner| owner.id == id);
    all(root)?.iter().filter(|found| own(found)).try_for_each(|found| drop_found_in(root, IDS, found))
}

fn name(slot: u32) -> CString {
    CString::new(slot.to_string()).unwrap_or_default()
}

fn open(root: &Path, place: &str) -> Result<OwnedFd> {
    use std::os::unix::fs::DirBuilderExt;
    let path = root.join(place);
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW;
    match path::open(&path, flags) {
        Err(Errno::ENOENT) => {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&path).at("make", path.display())?;
            path::open(&path, flags).at("open", path.display())
        }
        other => other.at("open", path.display()),
    }
}

/// Removes a lease whose owner is gone; whether the slot is free now.
fn stale(directory: &OwnedFd, name: &CString, alive: &impl Fn(&Owner) -> bool) -> bool {
    let Ok(text) = path::readlinkat(directory.as_fd(), name) else { return true };
    if std::str::from_utf8(&text).ok().and_then(Owner::parse).is_some_and(|owner| alive(&owner)) {
        return false;
    }
    take_away(directory, name, |now| now == text).unwrap_or(false)
}

/// Removes a link that is still as `expected`. Renamed aside first: of several who try, one removes this very link, and a
/// link that a newcomer has made meanwhile is put back.
fn take_away(directory: &OwnedFd, name: &CString, expected: impl Fn(&[u8]) -> bool) -> crate::sys::Result<bool> {
    let aside = format!("{}.stale.{}", name.to_string_lossy(), std::process::id());
    let aside = CString::new(aside).map_err(|_| Errno::EINVAL)?;
    match path::rename_noreplace(directory.as_fd(), name, &aside) {
        Ok(()) => {}
        Err(Errno::ENOENT) => return Ok(false),
        Err(errno) => return Err(errno),
    }
    if !expected(&path::readlinkat(directory.as_fd(), &aside).unwrap_or_default()) {
        path::rename_noreplace(directory.as_fd(), &aside, name)?;
        return Ok(false);
    }
    path::unlinkat(directory.as_fd(), &aside, 0).map(|()| true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn concurrent_sandboxes_have_ranges_of_their_own() {
        let root = tempfile::tempdir().unwrap();
        let first = Lease::take(root.path(), "a", |_| true).unwrap();
        let second = Lease::take(root.path(), "b", |_| true).unwrap();
        assert_ne!(first.base(), second.base());
        assert!(first.base() >= FIRST && first.base().is_multiple_of(SIZE));
        let base = first.base();
        first.release().unwrap();
        let third = Lease::take(root.path(), "c", |_| true).unwrap();
        assert_eq!(third.base(), base, "a released range is used again");
    }

    #[test]
    fn a_lease_of_a_sandbox_without_state_is_reclaimed() {
        let root = tempfile::tempdir().unwrap();
        let lost = Lease::take(root.path(), "lost", |_| true).unwrap();
        let base = lost.base();
        drop(lost);
        let next = Lease::take(root.path(), "next", |owner| owner.id != "lost").unwrap();
        assert_eq!(next.base(), base);
        assert_eq!(std::fs::read_dir(root.path().join(".ids")).unwrap().count(), 1);
        release_of(root.path(), "next").unwrap();
        assert_eq!(std::fs::read_dir(root.path().join(".ids")).unwrap().count(), 0);
        // Releasing what another has taken meanwhile does nothing.
        let other = Lease::take(root.path(), "other", |_| true).unwrap();
        assert_eq!(other.base(), next.base());
        next.release().unwrap();
        assert_eq!(std::fs::read_dir(root.path().join(".ids")).unwrap().count(), 1);
    }
}
