//! isolate's box on the engine of this program: an OCI bundle made of isolate's options, run and supervised as every judged
//! run is. What differs from isolate itself is in `docs/isolate.md`.

pub mod meta;
mod root;
pub mod rules;
pub mod store;

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{PosixRlimitType, Spec};
use serde_json::{Value, json};

use self::root::Shown;
use self::rules::Rules;
use self::store::{Locked, Owner};
use super::capability::Accounting;
use super::lease::{self, Lease};
use super::limits::{LimitSource, Limits};
use super::run::{Judge, Judged, Ready, Request, Subject, fresh_id};
use super::sandbox;
use crate::container::root::Root;
use crate::error::{At, Context, Error, Result};
use crate::subtree;
use crate::sys::{Errno, attributes, path};

/// The user that isolate's box 0 has; the others follow.
const FIRST_UID: u32 = 60_000;
/// As good as no limit, and still a number that the kernel can count.
const UNLIMITED: u64 = 1 << 61;
const WEEK_MS: u64 = 7 * 24 * 3600 * 1000;

/// Limits as isolate has them; `None`: none. Times in milliseconds, sizes in bytes.
#[derive(Debug, Clone, Default)]
pub struct Bounds {
    /// CPU time.
    pub time: Option<u64>,
    /// Wall time.
    pub wall_time: Option<u64>,
    /// How long past a time limit the program lives.
    pub extra_time: Option<u64>,
    /// Address space of each process.
    pub address_space: Option<u64>,
    /// Memory of all together.
    pub memory: Option<u64>,
    /// Stack.
    pub stack: Option<u64>,
    /// Open files of each process.
    pub open_files: Option<u64>,
    /// Size of a file.
    pub file_size: Option<u64>,
    /// Size of a core dump.
    pub core: u64,
    /// Processes and threads.
    pub processes: Option<u64>,
}

/// The program's standard streams; `None`: the caller's own.
#[derive(Debug, Clone, Default)]
pub struct Streams {
    /// Standard input, a file of the box.
    pub stdin: Option<PathBuf>,
    /// Standard output.
    pub stdout: Option<PathBuf>,
    /// Standard error.
    pub stderr: Option<PathBuf>,
    /// Standard error goes where standard output goes.
    pub stderr_to_stdout: bool,
}

/// A program to be run in a box.
#[derive(Debug, Clone)]
pub struct Program {
    /// The box's number.
    pub id: u32,
    /// The program and its arguments.
    pub args: Vec<String>,
    /// Its environment, `K=V`.
    pub env: Vec<String>,
    /// Its working directory, below `/box` where it is relative.
    pub chdir: Option<PathBuf>,
    /// Its limits.
    pub bounds: Bounds,
    /// Its streams.
    pub streams: Streams,
    /// What it sees of the host.
    pub rules: Rules,
    /// It has the host's network.
    pub share_net: bool,
    /// How many descriptors from 3 on it inherits.
    pub inherit: u32,
    /// Links, pipes, sockets and devices that it leaves in the box stay.
    pub special_files: bool,
}

impl Bounds {
    /// In the judge's terms.
    ///
    /// # Errors
    /// [`Error::Usage`], naming the limit.
    pub fn limits(&self) -> Result<Limits> {
        let most = |value: Option<u64>, most: u64| Some(value.unwrap_or(most).min(most));
        LimitSource {
            time: most(self.time, WEEK_MS),
            wall_time: most(self.wall_time, WEEK_MS),
            extra_time: most(Some(self.extra_time.unwrap_or(0)), WEEK_MS),
            memory: most(self.memory, UNLIMITED),
            processes: most(self.processes, 1 << 22),
            output: Some(UNLIMITED),
            file_size: most(self.file_size, UNLIMITED),
            open_files: most(self.open_files, 1 << 20),
            stack: most(self.stack, UNLIMITED),
        }
        .resolve()
    }
}

/// What a run came to.
#[derive(Debug)]
pub struct Ran {
    /// The judge's word.
    pub judged: Judged,
    /// The limits that it was held to.
    pub limits: Limits,
    /// Why the box is not its owner's again. The verdict stands all the same.
    pub not_returned: Option<Error>,
}

/// Runs a program in an initialised box.
///
/// # Errors
/// What kept it from running; then the box is its owner's again.
pub fn run(
    root: &Root,
    locked: &Locked,
    program: &Program,
    systemd_cgroup: bool,
    cancel: Option<std::os::fd::BorrowedFd<'_>>,
) -> Result<Ran> {
    let Some(owner) = locked.owner() else {
        let id = program.id;
        return Err(Error::Usage(format!("box {id} is not initialised: isolate -b {id} --init")));
    };
    let limits = program.bounds.limits()?;
    let id = fresh_id();
    let alive = |owner: &lease::Owner| owner.lives().unwrap_or(true) || root.path().join(&owner.id).exists();
    let lease = Lease::take(root.path(), &id, alive)?;
    let uid = FIRST_UID + program.id % 1000;
    let host = Owner { uid: lease.base() + uid, gid: lease.base() + uid };
    locked.give(host, false)?;
    let judged = Judge::new(root, systemd_cgroup).and_then(|judge| {
        let (ready, _held) = prepare(locked, program, &limits, host, uid, judge.accounting())?;
        judge.judge(Request::new(id, Subject::Ready(Box::new(ready))), cancel)
    });
    let proved = judged
        .as_ref()
        .map_or(true, |judged| judged.judgement.run.cleanup.as_ref().is_none_or(|cleanup| cleanup.proved));
    // The ids go back in any case: no process has them, and what still belongs to them lies where no other sandbox sees it.
    let returned = || [locked.give(owner, !program.special_files), lease.release()].into_iter().find_map(Result::err);
    let not_returned = if proved { returned() } else { None };
    judged.map(|judged| Ran { judged, limits, not_returned })
}

/// Makes the root file system, opens the streams, and puts the configuration together. With it come descriptors that it names.
fn prepare(
    locked: &Locked,
    program: &Program,
    limits: &Limits,
    host: Owner,
    uid: u32,
    accounting: Accounting,
) -> Result<(Ready, Vec<OwnedFd>)> {
    let rootfs = locked.place().join("root");
    subtree::remove(&rootfs).at("remove", rootfs.display())?;
    let umask = crate::sys::process::umask(0o022);
    let shown = root::make(&rootfs, locked.place(), &program.rules);
    crate::sys::process::umask(umask);
    let Shown { mounts, held } = shown?;
    let [stdin, stdout, stderr] = open_streams(locked, program, host)?;
    let ready = Ready {
        spec: configure(program, (limits, accounting), &rootfs, mounts, (host.uid - uid, uid))?,
        limits: limits.clone(),
        bundle: locked.place().to_owned(),
        stdin,
        stdout,
        stderr,
        inherit: program.inherit,
    };
    Ok((ready, held))
}

fn configure(
    program: &Program,
    (limits, accounting): (&Limits, Accounting),
    rootfs: &Path,
    mut mounts: Vec<Value>,
    (base, uid): (u32, u32),
) -> Result<Spec> {
    // What is mounted in another comes after it.
    mounts.sort_by_key(|mount| mount["destination"].as_str().map_or(0, |path| path.matches('/').count()));
    let mut namespaces = vec!["user", "pid", "mount", "ipc", "uts", "cgroup"];
    if !program.share_net {
        namespaces.push("network");
    }
    let namespaces: Vec<Value> = namespaces.iter().map(|kind| json!({"type": kind})).collect();
    let mapping = json!([{"containerID": 0, "hostID": base, "size": lease::SIZE}]);
    let config = json!({
        "ociVersion": "1.2.0",
        "hostname": "box",
        "root": {"path": rootfs, "readonly": true},
        "process": {
            "terminal": false,
            "user": {"uid": uid, "gid": uid},
            "cwd": Path::new("/box").join(program.chdir.as_deref().unwrap_or(Path::new(""))),
            "args": program.args,
            "env": program.env,
            "capabilities": {"bounding": [], "effective": [], "inheritable": [], "permitted": [], "ambient": []},
        },
        "mounts": mounts,
        "linux": {"namespaces": namespaces, "uidMappings": mapping, "gidMappings": mapping, "maskedPaths": ["/proc/pressure"]},
    });
    let mut spec: Spec = serde_json::from_value(config).map_err(|error| Error::config("$", error.to_string()))?;
    let bounds = &program.bounds;
    let host =
        sandbox::Resources { memory: bounds.memory.is_some().then_some(accounting), pids: bounds.processes.is_some() };
    sandbox::restrict(&mut spec, limits, host)?;
    let given = |typ| match typ {
        PosixRlimitType::RlimitCpu => bounds.time.is_some(),
        PosixRlimitType::RlimitFsize => bounds.file_size.is_some(),
        PosixRlimitType::RlimitNofile => bounds.open_files.is_some(),
        PosixRlimitType::RlimitStack => bounds.stack.is_some(),
        PosixRlimitType::RlimitCore => bounds.core == 0,
        _ => false,
    };
    if let Some(process) = spec.process_mut() {
        let mut rlimits = process.rlimits().clone().unwrap_or_default();
        rlimits.retain(|limit| given(limit.typ()));
        let both = |typ, value: u64| sandbox::rlimit(typ, value, value);
        rlimits.extend(bounds.address_space.map(|bytes| both(PosixRlimitType::RlimitAs, bytes)).transpose()?);
        rlimits.extend((bounds.core > 0).then(|| both(PosixRlimitType::RlimitCore, bounds.core)).transpose()?);
        process.set_rlimits(Some(rlimits));
    }
    Ok(spec)
}

/// Opens the streams: files of the box, by a look-up that cannot leave it, or the caller's own.
fn open_streams(locked: &Locked, program: &Program, host: Owner) -> Result<[OwnedFd; 3]> {
    let streams = &program.streams;
    let own = |number: usize| -> Result<OwnedFd> {
        let fd = attributes::standard(number).ok_or_else(|| Error::Other(format!("descriptor {number} is closed")));
        fd?.try_clone_to_owned().at("take", format!("descriptor {number}"))
    };
    let write = libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC;
    let place = locked.open_box()?;
    let open = |file: &Option<PathBuf>, number: usize, flags: i32| match file {
        None => own(number),
        Some(file) => open_inside(&place, program.chdir.as_deref(), file, flags, host)
            .context(|| format!("standard {}", ["input", "output", "error"][number])),
    };
    let stdin = open(&streams.stdin, 0, libc::O_RDONLY)?;
    let stdout = open(&streams.stdout, 1, write)?;
    let stderr = if streams.stderr_to_stdout {
        stdout.as_fd().try_clone_to_owned().at("take", "standard output")?
    } else {
        open(&streams.stderr, 2, write)?
    };
    Ok([stdin, stdout, stderr])
}

fn open_inside(place: &OwnedFd, chdir: Option<&Path>, file: &Path, flags: i32, host: Owner) -> Result<OwnedFd> {
    if file == Path::new("/dev/null") {
        return path::open(file, flags & !(libc::O_CREAT | libc::O_TRUNC)).at("open", file.display());
    }
    let whole = Path::new("/box").join(chdir.unwrap_or(Path::new(""))).join(file);
    let Ok(below) = whole.strip_prefix("/box") else {
        return Err(Error::Usage(format!("`{}` is not in /box", file.display())));
    };
    let name =
        CString::new(below.as_os_str().as_bytes()).map_err(|_| Error::Usage("a name holds a NUL byte".into()))?;
    let mode = if flags & libc::O_CREAT == 0 { 0 } else { 0o644 };
    // Never waiting for the other end of a FIFO that a program has left there.
    let resolve = path::RESOLVE_IN_ROOT | path::RESOLVE_NO_MAGICLINKS;
    let opened = path::openat2(place.as_fd(), &name, flags | libc::O_NONBLOCK | libc::O_NOCTTY, mode, resolve);
    let opened = opened.at("open", file.display())?;
    if path::fstat(opened.as_fd()).at("stat", file.display())?.st_mode & libc::S_IFMT != libc::S_IFREG {
        return Err(Error::Usage(format!("`{}` is not a regular file", file.display())));
    }
    if flags & libc::O_CREAT != 0 {
        match attributes::fchown(opened.as_fd(), host.uid, host.gid) {
            Ok(()) | Err(Errno::EPERM) => {}
            Err(errno) => return Err(errno).at("chown", file.display()),
        }
    }
    Ok(opened)
}
