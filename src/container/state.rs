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
//! [`Root::claim`](super::root::Root::claim) makes the directory; its lock is `flock` on the directory itself.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::container::identity::{self, ProcessId};
use crate::container::record::InitRecord;
pub use crate::container::record::{Record, new_record, read_init, read_record, read_spec, streams};
use crate::container::root::Root;
use crate::error::{At, Error, Result};
use crate::judge::monitor;
use crate::sys::lock::Lock;
use crate::sys::{self, Errno, path};

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
    /// It is created, or the program runs, and its cgroup is frozen.
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
    pub(super) id: String,
    pub(super) path: PathBuf,
    pub(super) fd: Lock,
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

    /// Records the container's first process: from now on it is created, or, where it is unattended, about to start.
    ///
    /// # Errors
    /// As `write(2)`, for instance `ENOSPC`.
    pub fn record_init(&self, file: &OwnedFd, init: InitRecord) -> Result<()> {
        // One write of a few bytes: a crash leaves all of it or nothing.
        path::write_once(file.as_fd(), init.to_string().as_bytes()).at("write", self.path.join("init").display())
    }

    /// Records that an unattended first process has executed its program.
    ///
    /// # Errors
    /// As `ftruncate(2)`.
    pub fn record_start(&self, file: &OwnedFd, init: ProcessId) -> Result<()> {
        let length = init.to_string().len() as libc::off_t;
        nix::unistd::ftruncate(file, length).at("write", self.path.join("init").display())
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
    pub fn remove(&self, root: &Root) -> Result<()> {
        remove_files(self.fd()).at("remove the files of", self.path.display())?;
        let name = path::c_path(&self.id).at("name", &self.id)?;
        path::unlinkat(root.fd(), &name, libc::AT_REMOVEDIR).at("remove the state directory", self.path.display())
    }
}

/// A container's status now, and a handle of its first process where that lives.
///
/// Nothing is remembered that the kernel can be asked: a dead init is `stopped`; a frozen cgroup is `paused`, however far init
/// has come; an unattended init that has executed nothing is `creating`; an open reader of the gate is an init that waits, so
/// `created`.
///
/// # Errors
/// As the look-ups.
pub fn status(dir: BorrowedFd<'_>, record: &Record) -> Result<(Status, Option<Live>)> {
    // Pids of another boot name nothing.
    if record.boot_id != identity::boot_id()? {
        return Ok((Status::Stopped, None));
    }
    let Some(InitRecord { process: init, .. }) = read_init(dir, &record.id)? else {
        let creating = identity::open(record.creator)?.is_some();
        return Ok((if creating { Status::Creating } else { Status::Stopped }, None));
    };
    let Some(pidfd) = identity::open(init)? else { return Ok((Status::Stopped, None)) };
    let live = Live { process: init, pidfd };
    if is_frozen(record)? {
        return Ok((Status::Paused, Some(live)));
    }
    if record.unattended && !identity::has_executed(init)? {
        return Ok((Status::Creating, None));
    }
    Ok((if waits(dir, record) { Status::Created } else { Status::Running }, Some(live)))
}

/// Whether init stands at the gate: it is an open reader of it.
pub fn waits(dir: BorrowedFd<'_>, record: &Record) -> bool {
    !record.ungated && path::openat(dir, c"gate", libc::O_WRONLY | libc::O_NONBLOCK, 0).is_ok()
}

/// Whether the container's cgroup is frozen; one that is not there is not.
///
/// # Errors
/// As `read(2)`.
pub fn is_frozen(record: &Record) -> Result<bool> {
    match record.cgroup.open().is_frozen() {
        Err(error) if error.errno() == Some(Errno::ENOENT) => Ok(false),
        frozen => frozen,
    }
}

/// A container's first process, alive when looked at, and its handle.
#[derive(Debug)]
pub struct Live {
    /// Its pid and start time.
    pub process: ProcessId,
    /// Names this very process, whatever becomes of its pid.
    pub pidfd: OwnedFd,
}

pub(super) fn write_new(dir: BorrowedFd<'_>, name: &std::ffi::CStr, content: &[u8]) -> sys::Result<()> {
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
pub(super) fn remove_files(dir: BorrowedFd<'_>) -> sys::Result<()> {
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
