//! Boxes on disk: `<state directory>/isolate/<id>/box` is what a program finds as `/box`, from `--init` to `--cleanup`.
//!
//! A box is locked by `<id>.lock` beside it, which also says whose it is. While a program runs its files belong to an
//! id that only this run has; afterwards they are given back.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::error::{At, Error, Result};
use crate::subtree;
use crate::sys::Errno;
use crate::sys::directory::Kind;
use crate::sys::mount_at::chown_at;
use crate::sys::path::{CWD, c_path, open, unlinkat};

/// Whose a box is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// A box, locked.
#[derive(Debug)]
pub struct Locked {
    place: PathBuf,
    lock: Flock<File>,
    owner: Option<Owner>,
}

impl Locked {
    /// Locks the box `id` below `state`; with `wait`, after whoever has it.
    ///
    /// # Errors
    /// [`Error::Refused`] where another process has it.
    pub fn take(state: &Path, id: u32, wait: bool) -> Result<Locked> {
        let directory = state.join("isolate");
        std::fs::DirBuilder::new().recursive(true).mode(0o755).create(&directory).at("make", directory.display())?;
        let name = directory.join(format!("{id}.lock"));
        let file = File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(&name);
        let how = if wait { FlockArg::LockExclusive } else { FlockArg::LockExclusiveNonblock };
        let mut lock = Flock::lock(file.at("open", name.display())?, how).map_err(|(_, errno)| match errno {
            Errno::EWOULDBLOCK => Error::Refused("this box is in use by another process".to_owned()),
            errno => Error::sys("lock", name.display(), errno),
        })?;
        let mut text = String::new();
        lock.read_to_string(&mut text).at("read", name.display())?;
        Ok(Locked { place: directory.join(id.to_string()), lock, owner: serde_json::from_str(&text).ok() })
    }

    /// The directory of the box; the program's own is `box` in it.
    pub fn place(&self) -> &Path {
        &self.place
    }

    /// Whose it is, if it was initialised.
    pub fn owner(&self) -> Option<Owner> {
        self.owner
    }

    /// Makes it anew, empty.
    ///
    /// # Errors
    /// What the file system answers.
    pub fn init(&mut self, owner: Owner) -> Result<()> {
        self.remove()?;
        let inner = self.place.join("box");
        std::fs::DirBuilder::new().mode(0o711).create(&self.place).at("make", self.place.display())?;
        std::fs::DirBuilder::new().mode(0o700).create(&inner).at("make", inner.display())?;
        std::os::unix::fs::chown(&inner, Some(owner.uid), Some(owner.gid)).at("chown", inner.display())?;
        self.note(Some(owner))
    }

    /// Removes it.
    ///
    /// # Errors
    /// What the file system answers.
    pub fn cleanup(&mut self) -> Result<()> {
        self.remove()?;
        self.note(None)
    }

    fn remove(&self) -> Result<()> {
        subtree::remove(&self.place).at("remove", self.place.display()).map(drop)
    }

    fn note(&mut self, owner: Option<Owner>) -> Result<()> {
        self.owner = owner;
        let text = owner.map(|owner| serde_json::to_string(&owner)).transpose();
        let text = text.map_err(|error| Error::Other(format!("print JSON: {error}")))?.unwrap_or_default();
        self.lock
            .set_len(0)
            .and_then(|()| self.lock.rewind())
            .and_then(|()| self.lock.write_all(text.as_bytes()))
            .at("write", self.place.with_extension("lock").display())
    }

    /// Gives everything in the box to somebody. With `only_plain`, what is neither a directory nor a regular file is removed.
    ///
    /// # Errors
    /// What the file system answers.
    pub fn give(&self, owner: Owner, only_plain: bool) -> Result<()> {
        let inner = self.place.join("box");
        let ids = (Some(owner.uid), Some(owner.gid));
        let top = open(&inner, libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW).at("open", inner.display())?;
        subtree::visit(top, |parent, name, kind| match kind {
            Kind::Other if only_plain => unlinkat(parent, name, 0),
            _ => chown_at(parent, name, ids.0, ids.1),
        })
        .at("give away the files in", inner.display())?;
        c_path(&inner).and_then(|name| chown_at(CWD, &name, ids.0, ids.1)).at("chown", inner.display())
    }

    /// The program's own directory, opened.
    ///
    /// # Errors
    /// As `open(2)`.
    pub fn open_box(&self) -> Result<OwnedFd> {
        let inner = self.place.join("box");
        open(&inner, libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW).at("open", inner.display())
    }
}

impl AsFd for Locked {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.lock.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_box_is_made_given_away_and_removed() {
        use std::os::unix::fs::MetadataExt;
        let state = tempfile::tempdir().unwrap();
        let me = Owner { uid: nix::unistd::getuid().as_raw(), gid: nix::unistd::getgid().as_raw() };
        let mut taken = Locked::take(state.path(), 7, false).unwrap();
        assert!(matches!(Locked::take(state.path(), 7, false), Err(Error::Refused(_))), "one at a time");
        assert_eq!(taken.owner(), None);
        taken.init(me).unwrap();
        let inner = taken.place().join("box");
        std::fs::create_dir(inner.join("d")).unwrap();
        std::fs::write(inner.join("d/f"), "x").unwrap();
        std::os::unix::fs::symlink("/etc", inner.join("d/link")).unwrap();
        if me.uid == 0 {
            taken.give(Owner { uid: 12345, gid: 12346 }, false).unwrap();
            assert_eq!(std::fs::metadata(inner.join("d/f")).unwrap().uid(), 12345);
            assert_eq!(std::fs::metadata("/etc").unwrap().uid(), 0, "never through a link");
        }
        taken.give(me, true).unwrap();
        assert!(inner.join("d/f").exists() && std::fs::symlink_metadata(inner.join("d/link")).is_err());
        drop(taken);
        let mut again = Locked::take(state.path(), 7, false).unwrap();
        assert_eq!(again.owner(), Some(me), "it is remembered");
        again.cleanup().unwrap();
        assert!(again.owner().is_none() && !again.place().exists());
    }
}
