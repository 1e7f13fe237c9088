//! The state root: one directory per container, found, claimed and locked by its id.
//!
//! A container's directory is built under a temporary name and published by `renameat2(RENAME_NOREPLACE)`, so an id is
//! claimed and recorded in one step. What is in it: [`state`](super::state).

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use oci_spec::runtime::Spec;

use crate::container::record::{Record, read_record};
use crate::container::state::{Directory, remove_files, write_new};
use crate::error::{At, Error, Result};
use crate::sys::lock::{FlockArg, Lock};
use crate::sys::{Errno, path};

/// First pause between two tries to lock a directory.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
/// Longest such pause.
const LAST_PAUSE: Duration = Duration::from_millis(20);

/// The directory that holds one directory per container.
#[derive(Debug)]
pub struct Root {
    path: PathBuf,
    fd: OwnedFd,
}

impl Root {
    /// Opens the state root, making it (mode 0700) where it is missing.
    ///
    /// # Errors
    /// What `mkdir(2)` and `open(2)` answer, with the path.
    pub fn open(path: &Path) -> Result<Root> {
        let flags = libc::O_RDONLY | libc::O_DIRECTORY;
        let fd = match path::open(path, flags) {
            Err(Errno::ENOENT) => {
                use std::os::unix::fs::DirBuilderExt;
                std::fs::DirBuilder::new()
                    .recursive(true)
                    .mode(0o700)
                    .create(path)
                    .at("make the state root", path.display())?;
                path::open(path, flags)
            }
            other => other,
        };
        Ok(Root { path: path.to_owned(), fd: fd.at("open the state root", path.display())? })
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its descriptor.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The ids of all containers, sorted.
    ///
    /// # Errors
    /// As `getdents64(2)`.
    pub fn ids(&self) -> Result<Vec<String>> {
        let entries = std::fs::read_dir(&self.path).at("read the state root", self.path.display())?;
        let mut ids = Vec::new();
        for entry in entries {
            let name = entry.at("read the state root", self.path.display())?.file_name();
            match name.into_string() {
                Ok(name) if !name.starts_with('.') => ids.push(name),
                _ => {}
            }
        }
        ids.sort();
        Ok(ids)
    }

    /// Records a container that does not exist yet and thereby claims its id.
    ///
    /// # Errors
    /// [`Error::State`] where the id is in use; else what the file system answers. Nothing stays behind.
    pub fn claim(&self, record: &Record, spec: &Spec) -> Result<Directory> {
        let id = &record.id;
        let temporary = CString::new(format!(".new-{}-{}", record.creator.pid, record.creator.start_time))
            .map_err(|_| Error::state(id, "has an id with a NUL byte"))?;
        let name = path::c_path(id).at("name", id)?;
        let place = self.path.join(id);
        path::mkdirat(self.fd(), &temporary, 0o711).at("make the state directory of", place.display())?;
        let built = self.build(&temporary, record, spec, &place).and_then(|fd| {
            path::rename_noreplace(self.fd(), &temporary, &name).map_err(|errno| match errno {
                Errno::EEXIST => Error::state(id, "exists already"),
                errno => Error::sys("publish the state directory", place.display(), errno),
            })?;
            Ok(fd)
        });
        match built {
            Ok(fd) => Ok(Directory { id: id.clone(), path: place, fd }),
            Err(error) => {
                if let Ok(dir) = path::openat(self.fd(), &temporary, libc::O_RDONLY | libc::O_DIRECTORY, 0) {
                    let _ = remove_files(dir.as_fd());
                }
                let _ = path::unlinkat(self.fd(), &temporary, libc::AT_REMOVEDIR);
                Err(error)
            }
        }
    }

    fn build(&self, name: &CString, record: &Record, spec: &Spec, place: &Path) -> Result<Lock> {
        let dir = path::openat(self.fd(), name, libc::O_RDONLY | libc::O_DIRECTORY, 0)
            .at("open the state directory", place.display())?;
        let json = |error: serde_json::Error| Error::Other(format!("serialise the state of `{}`: {error}", record.id));
        write_new(dir.as_fd(), c"state.json", &serde_json::to_vec(record).map_err(json)?)
            .at("write", place.join("state.json").display())?;
        write_new(dir.as_fd(), c"config.json", &serde_json::to_vec(spec).map_err(json)?)
            .at("write", place.join("config.json").display())?;
        if !record.ungated {
            for fifo in [c"gate", c"answer"] {
                path::mknodat(dir.as_fd(), fifo, libc::S_IFIFO | 0o600, 0).at("make a FIFO in", place.display())?;
            }
        }
        // Locked before it can be found, so nobody sees a container between its name and its making.
        Lock::take(dir, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| errno).at("lock", place.display())
    }

    /// Opens and locks an existing container's directory.
    ///
    /// # Errors
    /// [`Error::State`] where there is none; else what `open(2)` and `flock(2)` answer.
    pub fn lock(&self, id: &str) -> Result<Directory> {
        self.acquire(id, FlockArg::LockExclusive)
    }

    /// The same, where a command has the lock waiting for it no longer than `patience`; before each further try `meanwhile` is
    /// called. Nothing where the lock is still held then.
    ///
    /// # Errors
    /// As [`Root::lock`].
    pub fn lock_within(&self, id: &str, patience: Duration, mut meanwhile: impl FnMut()) -> Result<Option<Directory>> {
        let deadline = Instant::now() + patience;
        let mut pause = FIRST_PAUSE;
        loop {
            match self.acquire(id, FlockArg::LockExclusiveNonblock) {
                Err(error) if error.errno() == Some(Errno::EWOULDBLOCK) => {}
                other => return other.map(Some),
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
            meanwhile();
            std::thread::sleep(pause);
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }

    /// Opens an existing container's directory for reading, beside a command that may be changing it.
    ///
    /// # Errors
    /// As [`Root::lock`].
    pub fn look(&self, id: &str) -> Result<(OwnedFd, Record)> {
        let dir = self.open_directory(id)?;
        let record = read_record(dir.as_fd(), id)?;
        Ok((dir, record))
    }

    /// Opens an existing container's directory, without a lock.
    ///
    /// # Errors
    /// As [`Root::lock`].
    pub fn open_directory(&self, id: &str) -> Result<OwnedFd> {
        crate::spec::validate_id(id)?;
        let name = path::c_path(id).at("name", id)?;
        path::openat(self.fd(), &name, libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW, 0).map_err(|errno| {
            match errno {
                Errno::ENOENT => Error::state(id, "does not exist"),
                errno => Error::sys("open", self.path.join(id).display(), errno),
            }
        })
    }

    fn acquire(&self, id: &str, how: FlockArg) -> Result<Directory> {
        loop {
            if let Some(directory) = self.lock_opened(id, self.open_directory(id)?, how)? {
                return Ok(directory);
            }
        }
    }

    /// Locks a container's directory that was opened before; nothing where the command that held the lock has deleted the
    /// container, also where another has been created under the same id: then this lock is on a directory without a name.
    ///
    /// # Errors
    /// As `flock(2)`.
    pub fn lock_opened(&self, id: &str, dir: OwnedFd, how: FlockArg) -> Result<Option<Directory>> {
        let place = self.path.join(id);
        let fd = Lock::take(dir, how).map_err(|(_, errno)| errno).at("lock", place.display())?;
        let same = self.names(id, fd.as_fd())?;
        Ok(same.then_some(Directory { id: id.to_owned(), path: place, fd }))
    }

    /// Whether an open directory is still the container's of this id.
    ///
    /// # Errors
    /// For an id with a NUL byte.
    pub fn names(&self, id: &str, dir: BorrowedFd<'_>) -> Result<bool> {
        let name = path::c_path(id).at("name", id)?;
        Ok(path::openat(self.fd(), &name, libc::O_PATH | libc::O_NOFOLLOW, 0)
            .and_then(|now| Ok((path::fstat(now.as_fd())?, path::fstat(dir)?)))
            .is_ok_and(|(now, opened)| now.st_ino == opened.st_ino && now.st_dev == opened.st_dev))
    }
}
