//! Verdicts for containers that somebody else runs: podman, containerd, Docker, a kubelet.
//!
//! A container with an `org.rustbox.limit.*` annotation is watched from its start by a small process of its own, the
//! monitor. It is not the program's parent and its standard streams are the engine's, so it knows less than the judge's
//! supervisor: the end by `PIDFD_GET_INFO` (Linux 6.15), no bytes of output. What it does know is judged as ever.
//!
//! | file of the state directory | written | says |
//! |---|---|---|
//! | `monitor` | by the monitor, before the program runs, and again when it does | who watches, since when, where its verdict is kept |
//! | `killed` | by `kill` and `delete`, before they do it | the signals that came through the runtime: an end by one is nobody's fault |
//! | `verdict.json` | by the monitor, when the container has ended and before its cgroups are removed | the verdict |
//!
//! The memory and process limits hold in the container's own cgroup and rlimits, whatever becomes of the monitor. Where it
//! dies, the verdict is an internal error, and `health --recover` has another one go on with the time limits.

mod limits;
pub mod log;
mod progress;
mod watch;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::poll::{PollFd, PollFlags, poll};
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use limits::{enforce, limits};
pub use progress::Progress;

use crate::cleanup::Proof;
use crate::container::identity::{self, ProcessId};
use crate::container::record::read_spec;
use crate::container::root::Root;
use crate::container::state::{Directory, Record, overwrite};
use crate::error::{At, Error, Result};
use crate::judge::limits::ANNOTATION_PREFIX;
use crate::sys::clone::{CloneArgs, clone3};
use crate::sys::socket::{self, MsgFlags};
use crate::sys::{Errno, path, pidfd, process, wait};

/// The prefix of the annotations by which `state` tells of a verdict.
pub const ANNOTATION: &str = "org.rustbox.verdict.";
/// How long the monitor may take to have its last word once the container has ended, in milliseconds.
const LAST_WORD: i32 = 5000;
/// How long it may take to write down what it is told, in milliseconds.
const NOTED: u16 = 1000;
/// More than any file of the monitor's.
const LIMIT: usize = 1 << 20;

/// Files of the state directory.
pub(crate) const FILE: &std::ffi::CStr = c"monitor";
pub(crate) const KILLED: &std::ffi::CStr = c"killed";
pub(crate) const VERDICT: &std::ffi::CStr = c"verdict.json";
pub(crate) const NEW: &std::ffi::CStr = c"verdict.new";

/// Who watches a container.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Standing {
    /// The monitor.
    process: ProcessId,
    /// When the program was executed, CLOCK_MONOTONIC, ns; not yet where there is none.
    exec_ns: Option<u64>,
    /// CPU time of the container's cgroups before, µs.
    setup_cpu_us: u64,
    /// Where its verdict is kept.
    log: PathBuf,
}

/// What the creator tells the monitor.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Word {
    /// The program was executed then, CLOCK_MONOTONIC, ns.
    Started(u64),
    /// It could not be.
    Failed(String),
}

/// A monitor that waits for the start of its container's program.
#[derive(Debug)]
#[must_use]
pub struct Monitor {
    line: OwnedFd,
}

/// Whether a container is to be judged.
pub fn asked(record: &Record) -> bool {
    record.annotations.keys().any(|key| key.starts_with(ANNOTATION_PREFIX))
}

impl Monitor {
    /// Makes the monitor of a container that is about to be started, where it is to be judged. It is on record when this
    /// returns. `log` is the directory of the verdicts.
    ///
    /// # Errors
    /// Why it cannot watch; then the container is not to be started.
    pub fn begin(root: &Root, directory: &Directory, record: &Record, log: &Path) -> Result<Option<Monitor>> {
        if !asked(record) {
            return Ok(None);
        }
        Monitor::make(root, directory, record, log, None).map(Some)
    }

    fn make(
        root: &Root,
        directory: &Directory,
        record: &Record,
        log: &Path,
        resumed: Option<Standing>,
    ) -> Result<Monitor> {
        let limits = limits(&read_spec(directory.fd(), &record.id)?)?
            .ok_or_else(|| Error::state(&record.id, "has no limits to be judged by"))?;
        let (ours, theirs) = socket::line().at("make", "a line to the monitor")?;
        let child = clone3(CloneArgs::default(), || {
            let _ = process::setsid();
            let _ = nix::sys::prctl::set_name(c"rustbox-monitor");
            // The engine waits for the end of its pipes, others for the container's lock.
            if wait::close_all_but(&[theirs.as_fd()]).is_err() || null_streams().is_err() {
                return 1;
            }
            watch::main(root.path(), record, &limits, log, resumed, theirs.as_fd())
        })
        .map_err(|errno| Error::sys("clone", "the monitor of the container", errno))?;
        drop(theirs);
        let mut buffer = [0; 4096];
        let (length, _) = socket::receive(ours.as_fd(), &mut buffer, MsgFlags::empty()).at("hear of", "the monitor")?;
        match &buffer[..length] {
            b"ready" => Ok(Monitor { line: ours }),
            words => {
                let _ = pidfd::wait(child.pidfd.as_fd(), true);
                let words = if words.is_empty() { "it has ended".into() } else { String::from_utf8_lossy(words) };
                Err(Error::Other(format!("the monitor of `{}` cannot watch: {words}", record.id)))
            }
        }
    }

    /// Tells it that the program was executed just now.
    pub fn started(self) {
        self.tell(&Word::Started(wait::monotonic_ns()));
    }

    /// Tells it that the program could not be executed.
    pub fn failed(self, error: &Error) {
        self.tell(&Word::Failed(error.to_string()));
    }

    /// Returns when it is on record, for the container's caller may ask at once. Where the monitor does not listen any
    /// more, its record says so.
    fn tell(&self, word: &Word) {
        if socket::send(self.line.as_fd(), &serde_json::to_vec(word).unwrap_or_default(), &[]).is_ok() {
            // Not for ever: the container's lock is held meanwhile.
            let _ = poll(&mut [PollFd::new(self.line.as_fd(), PollFlags::POLLIN)], NOTED);
        }
    }
}

/// Standard streams that lead nowhere.
fn null_streams() -> Result<()> {
    let null = path::open(Path::new("/dev/null"), libc::O_RDWR).at("open", "/dev/null")?;
    (0..3).try_for_each(|number| process::dup_to(null.as_fd(), number)).at("take", "the standard streams")
}

/// A judged container that runs, has ended, or has lost its monitor.
#[derive(Debug)]
pub enum Look {
    /// It has not been started.
    Waiting,
    /// It runs, and so far it has come.
    Running(Box<Progress>),
    /// Its verdict, as it is stored.
    Ended(Box<Value>),
}

/// What is known of a judged container's verdict; `None` where the container is not to be judged.
///
/// # Errors
/// Where its files cannot be read.
pub fn look(dir: BorrowedFd<'_>, record: &Record) -> Result<Option<Look>> {
    if !asked(record) {
        return Ok(None);
    }
    if let Some(verdict) = verdict(dir, &record.id)? {
        return Ok(Some(Look::Ended(Box::new(verdict))));
    }
    let Some(limits) = limits(&read_spec(dir, &record.id)?)? else { return Ok(None) };
    let Some(standing) = standing(dir, record)? else { return Ok(Some(Look::Waiting)) };
    if identity::open(standing.process)?.is_none() {
        // It may have had its last word since.
        let verdict = match verdict(dir, &record.id)? {
            Some(verdict) => verdict,
            None => watch::lost(record, &limits, &standing)?,
        };
        return Ok(Some(Look::Ended(Box::new(verdict))));
    }
    Ok(Some(match standing.exec_ns {
        None => Look::Waiting,
        Some(exec_ns) => Look::Running(Box::new(Progress::read(record, limits, exec_ns, standing.setup_cpu_us)?)),
    }))
}

/// The annotations by which `state` tells of the verdict of a container, once there is one.
///
/// # Errors
/// As [`look`].
pub fn annotations(dir: BorrowedFd<'_>, record: &Record) -> Result<Vec<(String, String)>> {
    let Some(Look::Ended(verdict)) = look(dir, record)? else {
        return Ok(Vec::new());
    };
    let words = ["status", "cause", "actor"].map(|word| (word, verdict.get(word).and_then(Value::as_str)));
    let found = words.into_iter().filter_map(|(word, value)| Some((word, value?)));
    Ok(found.map(|(word, value)| (format!("{ANNOTATION}{word}"), value.to_owned())).collect())
}

/// The monitor of a container that is gone, although it has not had its last word.
///
/// # Errors
/// Where the files cannot be read.
pub fn missing(dir: BorrowedFd<'_>, record: &Record) -> Result<Option<ProcessId>> {
    let Some(standing) = standing(dir, record)? else { return Ok(None) };
    let ended = verdict(dir, &record.id)?.is_some() || identity::open(standing.process)?.is_some();
    Ok(if ended { None } else { Some(standing.process) })
}

/// Has another monitor go on for one that was lost, from where that one was.
///
/// # Errors
/// As [`Monitor::begin`].
pub fn resume(root: &Root, directory: &Directory, record: &Record) -> Result<()> {
    let Some(lost) = standing(directory.fd(), record)? else { return Ok(()) };
    let log = lost.log.clone();
    let exec_ns = lost.exec_ns;
    let monitor = Monitor::make(root, directory, record, &log, Some(lost))?;
    monitor.tell(&Word::Started(exec_ns.unwrap_or_else(wait::monotonic_ns)));
    Ok(())
}

/// Notes a signal that comes through the runtime, before it is sent.
///
/// # Errors
/// As `write(2)`.
pub fn signalled(dir: BorrowedFd<'_>, record: &Record, signal: i32) -> Result<()> {
    let (Ok(signal), true) = (u8::try_from(signal), asked(record)) else { return Ok(()) };
    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_APPEND;
    let file = path::openat(dir, KILLED, flags, 0o600).at("open the signals of", &record.id)?;
    path::write_once(file.as_fd(), &[signal]).at("note a signal to", &record.id)
}

/// The last word of a container's monitor, before the release that ends what it reads.
#[derive(Debug)]
pub struct LastWord {
    log: PathBuf,
    verdict: Value,
}

/// Waits for the monitor's last word where a container has one; a container that still runs is ended for it. Gives what
/// is to be completed by [`LastWord::complete`].
///
/// # Errors
/// Where the monitor neither ends nor can be ended.
pub fn end(directory: &Directory, record: &Record, init: Option<BorrowedFd<'_>>) -> Result<Option<LastWord>> {
    let Some(standing) = standing(directory.fd(), record)? else { return Ok(None) };
    if let Some(init) = init {
        if pidfd::wait_end(init, 0) == Ok(false) {
            signalled(directory.fd(), record, libc::SIGKILL)?;
            let _ = pidfd::send_signal(init, libc::SIGKILL);
        }
        let _ = pidfd::wait_end(init, LAST_WORD);
        // Where it is the caller's child, nobody else will reap it, and until then nobody learns of its end.
        let _ = pidfd::wait(init, false);
    }
    if let Some(monitor) = identity::open(standing.process)? {
        if !pidfd::wait_end(monitor.as_fd(), LAST_WORD).at("wait for", "the monitor")? {
            let _ = pidfd::send_signal(monitor.as_fd(), libc::SIGKILL);
            if !pidfd::wait_end(monitor.as_fd(), LAST_WORD).at("wait for", "the monitor")? {
                let pid = standing.process.pid;
                return Err(Error::Other(format!("the monitor of `{}`, process {pid}, does not end", record.id)));
            }
        }
        let _ = pidfd::wait(monitor.as_fd(), false);
    }
    let verdict = match verdict(directory.fd(), &record.id)? {
        Some(verdict) => verdict,
        None => match limits(&read_spec(directory.fd(), &record.id)?)? {
            Some(limits) => watch::lost(record, &limits, &standing)?,
            None => return Ok(None),
        },
    };
    Ok(Some(LastWord { log: standing.log, verdict }))
}

impl LastWord {
    /// Adds what the release has proved, and keeps the verdict.
    ///
    /// # Errors
    /// Where it cannot be kept.
    pub fn complete(self, root: &Root, id: &str, proof: &Proof) -> Result<()> {
        let verdict = watch::with_proof(self.verdict, proof)?;
        log::keep(&self.log, root.path(), id, &verdict)
    }
}

/// Nothing is read of a container that is not to be judged.
fn standing(dir: BorrowedFd<'_>, record: &Record) -> Result<Option<Standing>> {
    if asked(record) { read(dir, FILE, &record.id) } else { Ok(None) }
}

fn verdict(dir: BorrowedFd<'_>, id: &str) -> Result<Option<Value>> {
    read(dir, VERDICT, id)
}

fn read<T: serde::de::DeserializeOwned>(dir: BorrowedFd<'_>, name: &std::ffi::CStr, id: &str) -> Result<Option<T>> {
    match path::read_at(dir, name, LIMIT) {
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(Error::sys("read the verdict of", id, errno)),
        // A crash in between may leave it empty.
        Ok(text) if text.is_empty() => Ok(None),
        Ok(text) => serde_json::from_slice(&text).map(Some).map_err(|error| {
            Error::state(id, format!("has a {} that cannot be read: {error}", name.to_string_lossy()))
        }),
    }
}

/// Replaces a file of the state directory, whole or not at all.
fn write(dir: BorrowedFd<'_>, name: &std::ffi::CStr, id: &str, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_vec(value).map_err(|error| Error::Other(format!("serialise a verdict: {error}")))?;
    overwrite(dir, NEW, &text).and_then(|()| path::rename(dir, NEW, name)).at("write the verdict of", id)
}
