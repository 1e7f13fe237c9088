//! What is on record of one container, and how it is read back.

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{Hooks, Spec};
use serde::{Deserialize, Serialize};

use crate::cgroup;
use crate::container::identity::{self, ProcessId};
use crate::error::{At, Context, Error, Result};
use crate::sys::{Errno, path, process};
use crate::worker;

/// The layout that this program writes; another one is refused.
const LAYOUT: u32 = 1;
/// More than any `state.json` or `config.json` that this program writes.
const LIMIT: usize = 64 << 20;

/// What is recorded of a container before anything of it is made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// Version of this layout.
    pub layout: u32,
    /// The container's id.
    pub id: String,
    /// Version of the runtime specification that its configuration follows.
    pub oci_version: String,
    /// Absolute path of its bundle.
    pub bundle: PathBuf,
    /// Absolute path of its root filesystem.
    pub rootfs: PathBuf,
    /// When it was created, RFC 3339.
    pub created: String,
    /// User id of its creator.
    pub owner: u32,
    /// Boot during which it was created (`/proc/sys/kernel/random/boot_id`).
    pub boot_id: String,
    /// The process that creates it.
    pub creator: ProcessId,
    /// Its cgroups.
    pub cgroup: cgroup::Plan,
    /// Its first process is PID 1 of a pid namespace of its own.
    pub own_pid_namespace: bool,
    /// Hooks still to be run: startContainer, poststart, poststop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hooks: Option<Hooks>,
    /// Annotations of its configuration.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// It was created by `run`, which starts it without a gate.
    #[serde(default)]
    pub ungated: bool,
    /// Its first process goes on to the program without a word from its creator once that has recorded it.
    #[serde(default)]
    pub unattended: bool,
    /// Its configuration has no `process`, so `start` has nothing to run.
    #[serde(default)]
    pub no_process: bool,
    /// The directories of resctrl that `delete` releases (`linux.intelRdt`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resctrl: Option<crate::init::intel_rdt::Directories>,
    /// The directory in the container where its program says that it is ready (NOTIFY_SOCKET).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notify: Option<String>,
    /// Its standard streams as they were given to it ([`streams`]): by now it may have others in their places.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub streams: Vec<String>,
}

/// Reads the record in a container's directory.
///
/// # Errors
/// [`Error::State`] for a record that cannot be read or is of another layout.
pub fn read_record(dir: BorrowedFd<'_>, id: &str) -> Result<Record> {
    let bytes = path::read_at(dir, c"state.json", LIMIT).map_err(|errno| match errno {
        Errno::ENOENT => Error::state(id, "does not exist"),
        errno => Error::sys("read the state of", id, errno),
    })?;
    let record: Record = serde_json::from_slice(&bytes)
        .map_err(|error| Error::state(id, format!("has a state.json that cannot be read: {error}")))?;
    if record.layout != LAYOUT {
        return Err(Error::state(id, format!("has a state of layout {}, this is {LAYOUT}", record.layout)));
    }
    Ok(record)
}

/// Reads the configuration in a container's directory.
///
/// # Errors
/// [`Error::State`] for a configuration that cannot be read.
pub fn read_spec(dir: BorrowedFd<'_>, id: &str) -> Result<Spec> {
    let bytes = path::read_at(dir, c"config.json", LIMIT).at("read the configuration of", id)?;
    serde_json::from_slice(&bytes)
        .map_err(|error| Error::state(id, format!("has a config.json that cannot be read: {error}")))
}

/// What is on record of a container's first process: `<pid> <start time> [<mount namespace> | starting]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InitRecord {
    /// Its pid and start time.
    pub process: ProcessId,
    /// The number of the mount namespace that it was made in; none with a pid namespace of its own: then nobody has to be
    /// looked for by it.
    pub mount_namespace: Option<u64>,
    /// It is unattended, and not known to have executed its program.
    pub starting: bool,
}

const STARTING: &str = "starting";

impl std::fmt::Display for InitRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.process.fmt(f)?;
        match self.mount_namespace {
            Some(number) => write!(f, " {number}"),
            None if self.starting => write!(f, " {STARTING}"),
            None => Ok(()),
        }
    }
}

impl InitRecord {
    fn parse(text: &str) -> Option<InitRecord> {
        let end = text.match_indices(' ').nth(1).map_or(text.len(), |(at, _)| at);
        let (process, rest) = text.split_at(end);
        let rest = rest.trim_start();
        Some(InitRecord {
            process: process.parse().ok()?,
            mount_namespace: rest.parse().ok(),
            starting: rest == STARTING,
        })
    }
}

/// The recorded first process, or `None` while the container is being created.
///
/// # Errors
/// As `read(2)`.
pub fn read_init(dir: BorrowedFd<'_>, id: &str) -> Result<Option<InitRecord>> {
    match path::read_at(dir, c"init", 128) {
        Ok(bytes) => Ok(std::str::from_utf8(&bytes).ok().and_then(InitRecord::parse)),
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(Error::sys("read the init record of", id, errno)),
    }
}

/// Whether no program of the container's has ever been executed: it has no first process on record, or one whose creator
/// was to find out whether it has, and that has not, or has ended.
///
/// # Errors
/// As [`read_init`], and as [`identity::open`].
pub fn never_started(dir: BorrowedFd<'_>, id: &str) -> Result<bool> {
    Ok(match read_init(dir, id)? {
        None => true,
        Some(init) => {
            init.starting && (identity::open(init.process)?.is_none() || !identity::has_executed(init.process)?)
        }
    })
}

/// The record of a container about to be made now by this process.
///
/// # Errors
/// Where `/proc` cannot be read.
pub fn new_record(
    id: &str,
    bundle: &Path,
    rootfs: PathBuf,
    spec: &Spec,
    cgroup: cgroup::Plan,
    own_pid_namespace: bool,
) -> Result<Record> {
    Ok(Record {
        layout: LAYOUT,
        id: id.to_owned(),
        oci_version: spec.version().clone(),
        bundle: bundle.to_owned(),
        rootfs,
        created: worker::now()?,
        owner: nix::unistd::geteuid().as_raw(),
        boot_id: identity::boot_id()?,
        creator: identity::this_process().context(|| "identify this process".to_owned())?,
        cgroup,
        own_pid_namespace,
        hooks: spec.hooks().clone(),
        annotations: spec.annotations().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect(),
        ungated: false,
        unattended: false,
        no_process: spec.process().is_none(),
        resctrl: None,
        notify: None,
        streams: Vec::new(),
    })
}

/// This process's standard streams in CRIU's words, by which `checkpoint` and `restore` know those of a container that got
/// them: `pipe:[4711]`, `file[MOUNT:INODE]` in hexadecimal for what has a path, and what `/proc` calls it for the rest.
/// None for a program with a terminal, which is made in the container.
pub fn streams(spec: &Spec) -> Vec<String> {
    if spec.process().as_ref().and_then(oci_spec::runtime::Process::terminal) == Some(true) {
        return Vec::new();
    }
    (0..3).map(stream).collect()
}

fn stream(fd: i32) -> String {
    let file = format!("/proc/self/fd/{fd}");
    let link = std::fs::read_link(&file).unwrap_or_default().to_string_lossy().into_owned();
    let key = || {
        let stat = nix::sys::stat::fstat(fd).ok()?;
        let mount = path::mount_id(process::inherited(fd).ok()?).ok()?;
        Some(format!("file[{mount:x}:{:x}]", stat.st_ino))
    };
    if link.starts_with('/') { key().unwrap_or(link) } else { link }
}
