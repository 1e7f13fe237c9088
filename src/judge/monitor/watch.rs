//! The monitor's process: it waits for the end of a container that is not its child, holds it to its time limits, and has
//! one last word, the verdict.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::Value;

use super::{FILE, KILLED, Standing, VERDICT, Word, log, write};
use crate::cgroup::Controller;
use crate::cleanup::Proof;
use crate::container::identity::{self, ProcessId};
use crate::container::root::Root;
use crate::container::state::{Record, read_init};
use crate::error::{At, Error, Result};
use crate::judge::evidence::{Cleanup, Evidence, Fault, FaultKind, Kill, KillCause, MemorySplit, WaitStatus};
use crate::judge::limits::Limits;
use crate::judge::meter::{Baseline, Meter};
use crate::judge::noise::Counters;
use crate::judge::output::{Controls, Judgement, SCHEMA_VERSION, Step};
use crate::judge::supervisor::pace::{CpuPace, MemoryPace, PIDS_CHECK, PidsWindow};
use crate::judge::verdict::classify;
use crate::sys::socket::{self, MsgFlags};
use crate::sys::{Errno, path, pidfd, wait};

/// How long a killed container may take to end.
const DYING: Duration = Duration::from_secs(10);
/// How long the kernel may take to say how the program has ended: between its last moment and that of its reaping.
const REAPING: Duration = Duration::from_secs(3);
const LOOK_AGAIN: Duration = Duration::from_millis(1);
/// How long after the death of `start` the program may still begin, where that has just opened the gate.
const GRACE: Duration = Duration::from_secs(1);

/// Runs the monitor; the exit status of its process.
pub(super) fn main(
    root: &Path,
    record: &Record,
    limits: &Limits,
    log: &Path,
    resumed: Option<Standing>,
    line: BorrowedFd<'_>,
) -> i32 {
    let (mut watch, pidfd) = match Watch::begin(root, record, limits, log, resumed) {
        Ok(begun) => begun,
        Err(error) => {
            let _ = socket::send(line, error.to_string().as_bytes(), &[]);
            return 1;
        }
    };
    if socket::send(line, b"ready", &[]).is_err() {
        return 1;
    }
    let done = match watch.see(&pidfd, line) {
        Ok(true) => watch.last_word(),
        Ok(false) => Ok(()),
        Err(error) => Err(error),
    };
    let Err(error) = done else { return 0 };
    // Nobody listens any more, and nothing runs without the limits that were asked for.
    let _ = watch.kill(&pidfd);
    let _ = pidfd::wait_end(pidfd.as_fd(), DYING.as_millis() as i32);
    watch.lost(&error);
    1
}

struct Watch<'a> {
    root: Root,
    dir: OwnedFd,
    record: &'a Record,
    limits: &'a Limits,
    init: ProcessId,
    standing: Standing,
    meter: Meter,
    before: Baseline,
    evidence: Evidence,
    memory_split: Option<MemorySplit>,
}

impl<'a> Watch<'a> {
    fn begin(
        root: &Path,
        record: &'a Record,
        limits: &'a Limits,
        log: &Path,
        resumed: Option<Standing>,
    ) -> Result<(Watch<'a>, OwnedFd)> {
        let root = Root::open(root)?;
        let dir = root.open_directory(&record.id)?;
        let init = read_init(dir.as_fd(), &record.id)?;
        let gone = || Error::state(&record.id, "has no first process");
        let init = init.ok_or_else(gone)?.process;
        let pidfd = identity::open(init)?.ok_or_else(gone)?;
        let meter = Meter::open(&record.cgroup)?;
        let before = meter.baseline();
        let standing = Standing {
            process: identity::this_process()?,
            exec_ns: resumed.as_ref().and_then(|lost| lost.exec_ns),
            setup_cpu_us: resumed.as_ref().map_or(before.cpu_us, |lost| lost.setup_cpu_us),
            log: log.to_owned(),
        };
        write(dir.as_fd(), FILE, &record.id, &standing)?;
        let fault = resumed.map(|_| Fault {
            kind: FaultKind::SupervisorLost,
            message: "an earlier monitor was lost, and with it what it had seen".to_owned(),
        });
        let watch = Watch {
            root,
            dir,
            record,
            limits,
            init,
            standing,
            meter,
            before,
            evidence: Evidence { monitored: true, fault, ..Evidence::default() },
            memory_split: None,
        };
        Ok((watch, pidfd))
    }

    /// The evidence, from the start to the end; false where there was no start.
    fn see(&mut self, pidfd: &OwnedFd, line: BorrowedFd<'_>) -> Result<bool> {
        let exec_ns = match self.hear(line, pidfd)? {
            Some(Word::Started(exec_ns)) => exec_ns,
            Some(Word::Failed(message)) => {
                self.evidence.fault = Some(Fault { kind: FaultKind::Exec, message });
                return Ok(true);
            }
            // The start has died before it opened the gate: the next one makes a monitor of its own.
            None => {
                path::unlinkat(self.dir.as_fd(), FILE, 0).at("leave", &self.record.id)?;
                return Ok(false);
            }
        };
        self.meter.reset_peak(Duration::from_nanos(wait::monotonic_ns().saturating_sub(exec_ns)));
        self.standing.exec_ns = Some(exec_ns);
        write(self.dir.as_fd(), FILE, &self.record.id, &self.standing)?;
        // Whoever is gone meanwhile does not wait for it.
        let _ = socket::send(line, b"noted", &[]);
        let noise = Counters::read(&self.meter);
        self.watch(pidfd, exec_ns)?;
        let ended_ns = wait::monotonic_ns();
        // Before anything else: once the container is gone, so are its cgroups.
        self.evidence.cgroup = self.meter.read(self.standing.setup_cpu_us, self.limits.memory_bytes);
        self.before.subtract(&mut self.evidence.cgroup);
        self.evidence.cgroup.memory_split = self.memory_split.take();
        self.evidence.noise = noise.since(&self.meter);
        self.evidence.payload.wall_us = Some(ended_ns.saturating_sub(exec_ns) / 1000);
        self.evidence.payload.wait_status = self.how_it_ended(pidfd)?.and_then(WaitStatus::from_raw);
        self.blame_the_runtime();
        Ok(true)
    }

    /// What the creator says, or nothing where it has died without having begun.
    fn hear(&self, line: BorrowedFd<'_>, pidfd: &OwnedFd) -> Result<Option<Word>> {
        let mut buffer = [0; 8192];
        let (length, _) = match socket::receive(line, &mut buffer, MsgFlags::empty()) {
            Err(Errno::ECONNRESET) => (0, Vec::new()),
            received => received.at("hear", "the start")?,
        };
        if length > 0 {
            let word = serde_json::from_slice(&buffer[..length]);
            return word.map(Some).map_err(|error| Error::Other(format!("hear the start: {error}")));
        }
        let until = Instant::now() + GRACE;
        let waiting = || path::openat(self.dir.as_fd(), c"gate", libc::O_WRONLY | libc::O_NONBLOCK, 0).is_ok();
        while waiting() && Instant::now() < until {
            if pidfd::wait_end(pidfd.as_fd(), 10).at("wait for", &self.record.id)? {
                break;
            }
        }
        let begun = !waiting() && !pidfd::wait_end(pidfd.as_fd(), 0).at("wait for", &self.record.id)?;
        Ok(begun.then(|| Word::Started(wait::monotonic_ns())))
    }

    /// Until the container has ended.
    fn watch(&mut self, pidfd: &OwnedFd, exec_ns: u64) -> Result<()> {
        let since = Duration::from_nanos(wait::monotonic_ns().saturating_sub(exec_ns));
        let now = Instant::now();
        let wall = Duration::from_millis(self.limits.wall_time_ms + self.limits.extra_time_ms);
        let mut wall_bound = Some(now + wall.saturating_sub(since));
        let cpu_pace = CpuPace::new(self.limits);
        let mut cpu_check = self.meter.cpu_us().map(|_| now + cpu_pace.earliest(0));
        let mut pids_check = self.meter.pids_limit_hits().map(|_| now + PIDS_CHECK);
        let mut pids_window = PidsWindow::new();
        let mut memory_pace = MemoryPace::new();
        let mut dying = None;
        loop {
            let next =
                [wall_bound, cpu_check, pids_check, dying].into_iter().flatten().fold(memory_pace.at(), Instant::min);
            if ended(pidfd, next)? {
                return Ok(());
            }
            let now = Instant::now();
            if memory_pace.at() <= now {
                self.memory_split = self.meter.memory_split(since_us(exec_ns)).or(self.memory_split.take());
                memory_pace = memory_pace.next(now);
            }
            let mut kill = None;
            if wall_bound.is_some_and(|bound| bound <= now) {
                kill = Some(KillCause::WallTime);
            }
            if cpu_check.is_some_and(|check| check <= now) {
                let used = self.meter.cpu_us().unwrap_or(0).saturating_sub(self.standing.setup_cpu_us);
                cpu_check = Some(now + cpu_pace.earliest(used));
                if cpu_pace.is_over(used) {
                    kill = Some(KillCause::CpuTime);
                }
            }
            if pids_check.is_some_and(|check| check <= now) {
                pids_check = Some(now + PIDS_CHECK);
                if pids_window.is_abuse(self.pids_limit_hits()) {
                    kill = Some(KillCause::PidsRate);
                }
            }
            if let Some(cause) = kill {
                let pids_limit_hits = Some(self.pids_limit_hits());
                self.evidence.kill = Some(Kill { cause, at_us: Some(since_us(exec_ns)), pids_limit_hits });
                (wall_bound, cpu_check, pids_check) = (None, None, None);
                dying = Some(now + DYING);
                self.kill(pidfd)?;
            } else if dying.is_some_and(|bound| bound <= now) {
                return Err(Error::Other(format!("`{}` does not end of SIGKILL", self.record.id)));
            }
        }
    }

    fn pids_limit_hits(&self) -> u64 {
        self.meter.pids_limit_hits().unwrap_or(0).saturating_sub(self.before.pids_limit_hits)
    }

    fn kill(&self, pidfd: &OwnedFd) -> Result<()> {
        let sent = pidfd::send_signal(pidfd.as_fd(), libc::SIGKILL);
        let cgroup = self.record.cgroup.open();
        let alone = self.record.own_pid_namespace && matches!(sent, Ok(()) | Err(Errno::ESRCH));
        if !alone && !cgroup.is_shared() {
            cgroup.kill()?;
        }
        // What is frozen dies when it is thawed.
        cgroup.thaw()
    }

    /// The raw wait status of a process that has ended and is not ours to wait for; `None` where the kernel does not tell.
    fn how_it_ended(&self, pidfd: &OwnedFd) -> Result<Option<i32>> {
        let until = Instant::now() + REAPING;
        loop {
            // Linux before 6.15 does not know, or has forgotten.
            let untold = match pidfd::exit_status(pidfd.as_fd()) {
                Ok(Some(status)) => return Ok(Some(status)),
                Ok(None) => false,
                Err(Errno::ENOTTY | Errno::EINVAL | Errno::EOPNOTSUPP | Errno::ESRCH) => true,
                Err(errno) => return Err(errno).at("ask for", "the end of the container"),
            };
            if let Some(status) = identity::status_of_zombie(self.init, pidfd.as_fd())? {
                return Ok(Some(status));
            }
            let reaped = pidfd::send_signal(pidfd.as_fd(), 0) == Err(Errno::ESRCH);
            if Instant::now() >= until || (reaped && untold) {
                return Ok(None);
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    /// An end by a signal that came through the runtime is somebody's wish.
    fn blame_the_runtime(&mut self) {
        let signals = path::read_at(self.dir.as_fd(), KILLED, 1 << 16).unwrap_or_default();
        let signal = self.evidence.payload.wait_status.and_then(WaitStatus::signal);
        let wished = match self.evidence.payload.wait_status {
            Some(_) => signal.is_some_and(|signal| signals.iter().any(|sent| i32::from(*sent) == signal)),
            None => signals.iter().any(|sent| i32::from(*sent) == libc::SIGKILL),
        };
        if wished && self.evidence.kill.is_none() {
            self.evidence.kill = Some(Kill { cause: KillCause::Cancelled, at_us: None, pids_limit_hits: None });
        }
    }

    /// The monitor cannot go on. Where even this cannot be written down, its absence says so.
    fn lost(mut self, error: &Error) {
        let message = format!("its monitor could not go on: {error}");
        self.evidence.fault.get_or_insert(Fault { kind: FaultKind::SupervisorLost, message });
        let _ = self.last_word();
    }

    fn last_word(&self) -> Result<()> {
        let verdict = value(judgement(self.record, self.limits, self.evidence.clone()))?;
        // First where it outlives the container: a crash in between costs nothing.
        log::keep(&self.standing.log, self.root.path(), &self.record.id, &verdict)?;
        write(self.dir.as_fd(), VERDICT, &self.record.id, &verdict)
    }
}

fn since_us(exec_ns: u64) -> u64 {
    wait::monotonic_ns().saturating_sub(exec_ns) / 1000
}

/// Whether the process has ended; waits until `until`, at most.
fn ended(pidfd: &OwnedFd, until: Instant) -> Result<bool> {
    let left = until.saturating_duration_since(Instant::now());
    let timeout = i32::try_from(left.as_micros().div_ceil(1000)).unwrap_or(i32::MAX);
    pidfd::wait_end(pidfd.as_fd(), timeout).at("wait for", "the container")
}

/// The verdict of a container whose monitor is gone without a last word.
pub(super) fn lost(record: &Record, limits: &Limits, standing: &Standing) -> Result<Value> {
    let message = format!("its monitor, process {}, was lost", standing.process.pid);
    let fault = Some(Fault { kind: FaultKind::SupervisorLost, message });
    value(judgement(record, limits, Evidence { monitored: true, fault, ..Evidence::default() }))
}

/// The verdict, judged again with what the release has proved.
pub(super) fn with_proof(verdict: Value, proof: &Proof) -> Result<Value> {
    let broken = |error: serde_json::Error| Error::Other(format!("a stored verdict cannot be read: {error}"));
    let stored: Stored = serde_json::from_value(verdict).map_err(broken)?;
    let cleanup = Some(Cleanup::from(proof));
    value(judge(stored.id, stored.limits, stored.controls, Evidence { cleanup, ..stored.evidence }))
}

#[derive(Deserialize)]
struct Stored {
    id: String,
    limits: Limits,
    controls: Controls,
    evidence: Evidence,
}

fn judgement(record: &Record, limits: &Limits, mut evidence: Evidence) -> Judgement {
    let has = |controller| record.cgroup.directory(controller).is_some();
    let cpu = has(Controller::Cpuacct) || has(Controller::Cpu);
    let mut controls = Controls::new();
    for (name, enforced) in [("cpuacct", cpu), ("memory", has(Controller::Memory)), ("pids", has(Controller::Pids))] {
        controls.insert(name.into(), if enforced { "enforced" } else { "degraded" }.into());
        if !enforced {
            evidence.control_degraded.push(name.to_owned());
        }
    }
    // The streams are the engine's.
    controls.insert("output".into(), "unsupported".into());
    judge(record.id.clone(), limits.clone(), controls, evidence)
}

fn judge(id: String, limits: Limits, controls: Controls, evidence: Evidence) -> Judgement {
    let verdict = classify(&evidence, &limits);
    let run = Step::new(&verdict, evidence, limits, controls, b"", b"");
    Judgement {
        schema_version: SCHEMA_VERSION,
        id,
        language: None,
        run,
        compile: None,
        provisional: verdict.provisional,
        detail: verdict.detail,
    }
}

fn value(judgement: Judgement) -> Result<Value> {
    serde_json::to_value(judgement).map_err(|error| Error::Other(format!("serialise a verdict: {error}")))
}
