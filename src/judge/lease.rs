//! Host ids for judged sandboxes: each concurrent sandbox maps to a range of its own, never to host 0.
//!
//! Slot *n* is the 65,536 host ids from 1,879,048,192 + 65,536 × *n* (0x70000000 on: above the ranges that
//! distributions give to users, to `subuid(5)` by default and to systemd's DynamicUser and containers, below 2³¹).
//! A lease is the symbolic link `<root>/.ids/<slot>` whose text names the sandbox: made in one step, or not at all.
//! A lease whose owner has no state directory any more is stale and is taken over.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use crate::error::{At, Error, Result};
use crate::sys::{Errno, path};

/// The first host id of slot 0.
pub const FIRST: u32 = 0x7000_0000;
/// Ids in a slot.
pub const SIZE: u32 = 65_536;
/// Slots.
pub const SLOTS: u32 = 2048;

/// A range of host ids that one sandbox owns. Released by [`Lease::release`], after the proof that the sandbox is
/// gone; a lease that is merely dropped stays, and is reclaimed when its owner's state directory is gone.
#[derive(Debug)]
pub struct Lease {
    directory: OwnedFd,
    slot: u32,
    owner: String,
}

impl Lease {
    /// Leases a slot to the sandbox `owner`. `alive` says whether the owner of another lease still has state.
    ///
    /// # Errors
    /// [`Error::Refused`] where all slots are taken; else what the file system answers.
    pub fn take(root: &Path, owner: &str, alive: impl Fn(&str) -> bool) -> Result<Lease> {
        let directory = open(root)?;
        let text = CString::new(owner).map_err(|_| Error::Usage(format!("id `{owner}` holds a NUL byte")))?;
        // Start at a place of the process's own, so that concurrent runs seldom meet.
        let start = std::process::id() % SLOTS;
        for slot in (start..SLOTS).chain(0..start) {
            let name = name(slot);
            match path::symlinkat(&text, directory.as_fd(), &name) {
                Ok(()) => return Ok(Lease { directory, slot, owner: owner.to_owned() }),
                Err(Errno::EEXIST) => {}
                Err(errno) => return Err(errno).at("lease ids in", root.join(".ids").display()),
            }
            if stale(&directory, &name, &alive) && path::symlinkat(&text, directory.as_fd(), &name).is_ok() {
                return Ok(Lease { directory, slot, owner: owner.to_owned() });
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
            Ok(owner) if owner == self.owner.as_bytes() => {
                path::unlinkat(self.directory.as_fd(), &name, 0).at("release the ids of", &self.owner)
            }
            _ => Ok(()),
        }
    }
}

/// Drops the lease of `owner`, if there is one: for `delete` and recovery, which know only the id.
///
/// # Errors
/// What the file system answers.
pub fn release_of(root: &Path, owner: &str) -> Result<()> {
    let directory = match path::open(root.join(".ids"), libc::O_RDONLY | libc::O_DIRECTORY) {
        Ok(directory) => directory,
        Err(Errno::ENOENT) => return Ok(()),
        Err(errno) => return Err(errno).at("open", root.join(".ids").display()),
    };
    for entry in std::fs::read_dir(root.join(".ids")).at("read", root.join(".ids").display())?.flatten() {
        let target = std::fs::read_link(entry.path()).unwrap_or_default();
        if target.as_os_str() == owner {
            let name = path::c_path(entry.file_name()).at("name", entry.path().display())?;
            path::unlinkat(directory.as_fd(), &name, 0).at("release the ids of", owner)?;
        }
    }
    Ok(())
}

fn name(slot: u32) -> CString {
    CString::new(slot.to_string()).unwrap_or_default()
}

fn open(root: &Path) -> Result<OwnedFd> {
    use std::os::unix::fs::DirBuilderExt;
    let path = root.join(".ids");
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW;
    match path::open(&path, flags) {
        Err(Errno::ENOENT) => {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&path).at("make", path.display())?;
            path::open(&path, flags).at("open", path.display())
        }
        other => other.at("open", path.display()),
    }
}

/// Removes a lease whose owner is gone. Renamed aside first: of several who try, one removes this very link, and a
/// link that a newcomer has made meanwhile is put back.
fn stale(directory: &OwnedFd, name: &CString, alive: &impl Fn(&str) -> bool) -> bool {
    let Ok(owner) = path::readlinkat(directory.as_fd(), name) else { return true };
    let owner = String::from_utf8_lossy(&owner).into_owned();
    if alive(&owner) {
        return false;
    }
    let aside = format!("{}.stale.{}", name.to_string_lossy(), std::process::id());
    let Ok(aside) = CString::new(aside) else { return false };
    if path::rename_noreplace(directory.as_fd(), name, &aside).is_err() {
        return false;
    }
    let taken = path::readlinkat(directory.as_fd(), &aside).unwrap_or_default();
    if taken != owner.as_bytes() {
        let _ = path::rename_noreplace(directory.as_fd(), &aside, name);
        return false;
    }
    path::unlinkat(directory.as_fd(), &aside, 0).is_ok()
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
        let next = Lease::take(root.path(), "next", |owner| owner != "lost").unwrap();
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
