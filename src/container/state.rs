//! A container on disk: `<root>/<id>/`.
//!
//! | file | written | says |
//! |---|---|---|
//! | `state.json` | once, before the directory gets its name | what exists or will: bundle, cgroups, creator, hooks |
//! | `config.json` | with it | the configuration as created; later changes to the bundle do not matter |
//! | `init` | made before the first process, once its cgroups are as recorded; written when it is created | its pid and start time, and without a pid namespace of its own its mount namespace |
//! | `hook` | while a hook of the runtime's namespaces runs | its kind, pid and start time |
//! | `monitor`, `killed`, `verdict.json` | of a container that an engine runs and that is judged | see [`monitor`] |
//! | `gate`, `answer` | with `state.json` | FIFOs: `start` opens the gate; init answers how the exec went |
//!
//! The directory is built under a temporary name and published by `renameat2(RENAME_NOREPLACE)`, so
//! an id is claimed and recorded in one step. Its lock is `flock` on the directory itself.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::container::identity::{self, ProcessId};
use crate::container::record::STARTING;
pub use crate::container::record::{Record, new_record, read_init, read_record, read_spec, streams};
use crate::error::{At, Error, Result};
use crate::judge::monitor;
use crate::sys::lock::{FlockArg, Lock};
use crate::sys::{self, Errno, path};

/// The directory that holds one directory per container.
#[derive(Debug)]
pub struct Root {
    path: PathBuf,
    fd: OwnedFd,
}

/// The states of the runtime specification, and runc's `paused`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// The container is being created.
    Creating,
    /// The runtime has finished `create`; the program has not been started.
    Created,
    /// The program runs.
    Running,
    /// The program runs and its cgroup is frozen.
    Paused,
    /// The program has ended.
    Stopped,
}

impl Status {
    /// The word of the runtime specification.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Creating => "creating",
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        }
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A container's directory, opened and locked.
#[derive(Debug)]
pub struct Directory {
    id: String,
    path: PathBuf,
    fd: Lock,
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
        let name = path::c_path(id).at("name", id)?;
        let same = path::openat(self.fd(), &name, libc::O_PATH | libc::O_NOFOLLOW, 0)
            .and_then(|now| Ok((path::fstat(now.as_fd())?, path::fstat(fd.as_fd())?)))
            .is_ok_and(|(now, locked)| now.st_ino == locked.st_ino && now.st_dev == locked.st_dev);
        Ok(same.then_some(Directory { id: id.to_owned(), path: place, fd }))
    }
}

impl Directory {
    /// The container's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The directory's path, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Gives up the lock and keeps the directory open, for [`Root::lock_opened`].
    ///
    /// # Errors
    /// As `flock(2)`.
    pub fn unlock(self) -> Result<OwnedFd> {
        self.fd.unlock().at("unlock", self.path.display())
    }

    /// The directory's descriptor.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// What was recorded before the container was made.
    ///
    /// # Errors
    /// [`Error::State`] for a record that cannot be read or is of another layout.
    pub fn record(&self) -> Result<Record> {
        read_record(self.fd(), &self.id)
    }

    /// Replaces the record, whole or not at all.
    ///
    /// # Errors
    /// As `write(2)` and `rename(2)`.
    pub fn rewrite(&self, record: &Record) -> Result<()> {
        let json = serde_json::to_vec(record)
            .map_err(|error| Error::Other(format!("serialise the state of `{}`: {error}", record.id)))?;
        write_new(self.fd(), c"state.json.new", &json).at("write", self.path.join("state.json.new").display())?;
        path::rename(self.fd(), c"state.json.new", c"state.json").at("replace", self.path.join("state.json").display())
    }

    /// Makes the file that records the container's first process, empty, which reads as "creating". It being there says
    /// that the record of the cgroups is final and that a process may have entered them.
    ///
    /// # Errors
    /// As `open(2)`, for instance `ENOSPC`.
    pub fn begin_init(&self) -> Result<OwnedFd> {
        path::openat(self.fd(), c"init", libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL, 0o600)
            .at("make", self.path.join("init").display())
    }

    /// Records an unattended first process, which is about to start.
    ///
    /// # Errors
    /// As [`Directory::record_init`].
    pub fn record_starting(&self, file: &OwnedFd, init: ProcessId) -> Result<()> {
        path::write_once(file.as_fd(), format!("{init} {STARTING}").as_bytes())
            .at("write", self.path.join("init").display())
    }

    /// Records that it has executed its program.
    ///
    /// # Errors
    /// As `ftruncate(2)`.
    pub fn record_start(&self, file: &OwnedFd, init: ProcessId) -> Result<()> {
        let length = init.to_string().len() as libc::off_t;
        nix::unistd::ftruncate(file, length).at("write", self.path.join("init").display())
    }

    /// Records the container's first process: from now on it is created.
    ///
    /// # Errors
    /// As `write(2)`, for instance `ENOSPC`.
    pub fn record_init(&self, file: &OwnedFd, init: ProcessId, mount_namespace: Option<u64>) -> Result<()> {
        let namespace = mount_namespace.map(|number| format!(" {number}")).unwrap_or_default();
        // One write of a few bytes: a crash leaves all of it or nothing.
        path::write_once(file.as_fd(), format!("{init}{namespace}").as_bytes())
            .at("write", self.path.join("init").display())
    }

    /// Whether a first process has ever been made.
    pub fn was_entered(&self) -> bool {
        path::openat(self.fd(), c"init", libc::O_PATH, 0).is_ok()
    }

    /// Opens one of the two FIFOs for init's end, which outlives this process.
    ///
    /// # Errors
    /// As `open(2)`.
    pub fn open_fifo(&self, name: &std::ffi::CStr) -> Result<OwnedFd> {
        path::openat(self.fd(), name, libc::O_RDWR, 0)
            .at("open", self.path.join(name.to_string_lossy().as_ref()).display())
    }

    /// Removes the directory and everything in it; the record goes last, and stays where something else does.
    ///
    /// # Errors
    /// As `unlinkat(2)`, naming the directory.
    pub fn remove(self, root: &Root) -> Result<()> {
        remove_files(self.fd()).at("remove the files of", self.path.display())?;
        let name = path::c_path(&self.id).at("name", &self.id)?;
        path::unlinkat(root.fd(), &name, libc::AT_REMOVEDIR).at("remove the state directory", self.path.display())
    }
}

/// A container's status now, and a handle of its first process where that lives.
///
/// Nothing is remembered that the kernel can be asked: a dead init is `stopped`; an open reader of
/// the gate is an init that waits, so `created`; an unattended init that has executed nothing is `creating`; a frozen cgroup
/// is `paused`.
///
/// # Errors
/// As the look-ups.
pub fn status(dir: BorrowedFd<'_>, record: &Record) -> Result<(Status, Option<Live>)> {
    // Pids of another boot name nothing.
    if record.boot_id != identity::boot_id()? {
        return Ok((Status::Stopped, None));
    }
    let Some(init) = read_init(dir, &record.id)? else {
        let creating = identity::open(record.creator)?.is_some();
        return Ok((if creating { Status::Creating } else { Status::Stopped }, None));
    };
    let Some(pidfd) = identity::open(init)? else { return Ok((Status::Stopped, None)) };
    if record.unattended && !identity::has_executed(init)? {
        return Ok((Status::Creating, None));
    }
    let live = Live { process: init, pidfd };
    let waiting = !record.ungated && path::openat(dir, c"gate", libc::O_WRONLY | libc::O_NONBLOCK, 0).is_ok();
    let status = if waiting {
        Status::Created
    } else if record.cgroup.open().is_frozen()? {
        Status::Paused
    } else {
        Status::Running
    };
    Ok((status, Some(live)))
}

/// A container's first process, alive when looked at, and its handle.
#[derive(Debug)]
pub struct Live {
    /// Its pid and start time.
    pub process: ProcessId,
    /// Names this very process, whatever becomes of its pid.
    pub pidfd: OwnedFd,
}

fn write_new(dir: BorrowedFd<'_>, name: &std::ffi::CStr, content: &[u8]) -> sys::Result<()> {
    write(dir, name, libc::O_EXCL, content)
}

/// Writes a file of a container's directory anew. A crash in between may leave it empty.
///
/// # Errors
/// As `open(2)` and `write(2)`.
pub fn overwrite(dir: BorrowedFd<'_>, name: &std::ffi::CStr, content: &[u8]) -> sys::Result<()> {
    write(dir, name, libc::O_TRUNC, content)
}

fn write(dir: BorrowedFd<'_>, name: &std::ffi::CStr, how: i32, content: &[u8]) -> sys::Result<()> {
    let file = path::openat(dir, name, libc::O_WRONLY | libc::O_CREAT | how, 0o600)?;
    let mut rest = content;
    while !rest.is_empty() {
        match nix::unistd::write(&file, rest) {
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
            Ok(n) => rest = &rest[n..],
        }
    }
    Ok(())
}

/// Removes the files of a container's directory, the record last: a crash in between leaves a
/// directory that still says what it is.
fn remove_files(dir: BorrowedFd<'_>) -> sys::Result<()> {
    let monitors = [monitor::FILE, monitor::KILLED, monitor::VERDICT, monitor::NEW];
    let own = [c"gate", c"answer", c"init", c"hook", c"config.json", c"state.json.new", c"state.json"];
    for name in monitors.into_iter().chain(own) {
        match path::unlinkat(dir, name, 0) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}
