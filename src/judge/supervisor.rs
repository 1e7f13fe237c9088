//! The supervisor of one sandbox: one thread that waits for whatever happens first, and never without a bound.
//!
//! | source | what it does |
//! |---|---|
//! | the line to init | the exec, the payload's end, the listener, the artefact; closing means that init is lost |
//! | stdout, stderr | counted and kept; over the limit the payload is killed |
//! | stdin | passed on, where it is a pipe of the caller's |
//! | the seccomp listener | the forbidden call is recorded, then the payload is killed |
//! | `pids.events` | a rate of refused forks that no honest program has |
//! | init's pidfd | nothing of the pid namespace is left, so the counters are final |
//! | signals | SIGINT, SIGTERM and SIGHUP cancel |
//! | deadlines | wall time from exec; CPU time, looked at when it can be used up at the earliest |
//!
//! A kill goes through init, which kills its whole namespace in one call and still reports the payload's own wait
//! status. The first cause stays.

mod events;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::capture::{Capture, Stdin};
use super::evidence::{Evidence, Files, MemorySplit, Noise, Payload, Streams, WaitStatus};
use super::limits::Limits;
use super::meter::Meter;
use crate::error::{At, Result};
use crate::init::report::{Ended, Exec, Line};
use crate::sys::{Errno, wait};

/// How long the payload's process may take from the start to its exec.
const SETUP: Duration = Duration::from_secs(10);
/// How long a killed payload may take to be reaped.
const DYING: Duration = Duration::from_secs(5);
/// How long what is left of the sandbox may take to go, and its streams to end.
const DRAINING: Duration = Duration::from_secs(5);
/// This many refused forks within [`PIDS_WINDOW`] are abuse.
const PIDS_HITS: u64 = 2000;
const PIDS_WINDOW: Duration = Duration::from_secs(5);
/// cgroup v1 has no event for a refused fork (v2 has), so the count is looked at this often.
const PIDS_CHECK: Duration = Duration::from_millis(100);

/// What is supervised.
#[derive(Debug)]
pub struct Job<'a> {
    /// The supervisor's end of the line to init.
    pub line: Line,
    /// A handle of init.
    pub init: BorrowedFd<'a>,
    /// The payload's cgroups.
    pub meter: &'a Meter,
    /// The limits.
    pub limits: &'a Limits,
    /// The payload's standard input.
    pub stdin: Stdin,
    /// The payload's standard output.
    pub stdout: Capture,
    /// The payload's standard error.
    pub stderr: Capture,
    /// Readable when the run is to be cancelled.
    pub cancel: Option<BorrowedFd<'a>>,
}

/// How the supervision ended. The evidence lacks only what comes later: the proof, and what the caller knows.
#[derive(Debug)]
pub struct Outcome {
    /// What was seen.
    pub evidence: Evidence,
    /// The first bytes of stdout.
    pub stdout: Vec<u8>,
    /// The first bytes of stderr.
    pub stderr: Vec<u8>,
    /// The artefact's handle.
    pub artefact: Option<OwnedFd>,
    /// Why there is none, where one was asked for.
    pub artefact_missing: Option<String>,
    /// The errno and the words of a failed exec.
    pub exec_failed: Option<(i32, String)>,
}

/// Supervises until the payload has ended and nothing of it is left, or cannot be waited for any longer.
///
/// # Errors
/// Only where the supervisor itself cannot go on; whatever the sandbox does is evidence.
pub fn supervise(job: Job<'_>) -> Result<Outcome> {
    let mut watch = Watch::new(job);
    while !watch.done() {
        watch.wait()?;
    }
    Ok(watch.finish())
}

/// Where the payload is.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Phase {
    /// Not yet executed.
    Starting,
    /// Executed.
    Running,
    /// Ended, or init is lost.
    Over,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Source {
    Line,
    Init,
    Stdin,
    Stdout,
    Stderr,
    Listener,
    Pids,
    Cancel,
}

#[derive(Debug)]
struct Watch<'a> {
    job: Job<'a>,
    phase: Phase,
    line_open: bool,
    init_alive: bool,
    listener: Option<OwnedFd>,
    exec: Option<Exec>,
    ended: Option<Ended>,
    /// When the phase, or the dying in it, ends at the latest.
    bound: Instant,
    wall_bound: Option<Instant>,
    cpu_check: Option<Instant>,
    pids_check: Option<Instant>,
    pids_window: (Instant, u64),
    processors: u64,
    pressure: Option<[Option<u64>; 3]>,
    memory_split: Option<MemorySplit>,
    evidence: Evidence,
    artefact: Option<OwnedFd>,
    artefact_missing: Option<String>,
    exec_failed: Option<(i32, String)>,
}

impl<'a> Watch<'a> {
    fn new(job: Job<'a>) -> Self {
        let now = Instant::now();
        let processors = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
        Watch {
            processors: processors.min(job.limits.processes).max(1),
            job,
            phase: Phase::Starting,
            line_open: true,
            init_alive: true,
            listener: None,
            exec: None,
            ended: None,
            bound: now + SETUP,
            wall_bound: None,
            cpu_check: None,
            pids_check: None,
            pids_window: (now, 0),
            pressure: None,
            memory_split: None,
            evidence: Evidence::default(),
            artefact: None,
            artefact_missing: None,
            exec_failed: None,
        }
    }

    fn done(&self) -> bool {
        let streams_open = self.job.stdout.is_open() || self.job.stderr.is_open();
        self.phase == Phase::Over && !self.init_alive && !streams_open
    }

    /// Waits for the next event or deadline, and handles it.
    fn wait(&mut self) -> Result<()> {
        let next = [Some(self.bound), self.wall_bound, self.cpu_check, self.pids_check].into_iter().flatten().min();
        let left = next.map_or(Duration::ZERO, |next| next.saturating_duration_since(Instant::now()));
        // Rounded up, so that a deadline has passed when the wait for it ends.
        let timeout = PollTimeout::try_from(left.as_micros().div_ceil(1000)).unwrap_or(PollTimeout::MAX);
        let ready: Vec<(Source, PollFlags)> = {
            let sources = self.sources();
            let mut fds: Vec<PollFd> = sources.iter().map(|(_, fd, events)| PollFd::new(*fd, *events)).collect();
            match poll(&mut fds, timeout) {
                Ok(_) => {}
                Err(Errno::EINTR) => return Ok(()),
                Err(errno) => return Err(errno).at("poll", "the sandbox"),
            }
            let fired = fds.iter().zip(&sources).map(|(fd, (source, ..))| (*source, fd.revents()));
            fired.filter_map(|(source, events)| Some((source, events.filter(|events| !events.is_empty())?))).collect()
        };
        for (source, events) in ready {
            self.on(source, events)?;
        }
        self.on_time();
        Ok(())
    }

    fn sources(&self) -> Vec<(Source, BorrowedFd<'_>, PollFlags)> {
        let mut sources = Vec::with_capacity(8);
        if self.line_open {
            sources.push((Source::Line, self.job.line.as_fd(), PollFlags::POLLIN));
        }
        if self.init_alive {
            sources.push((Source::Init, self.job.init, PollFlags::POLLIN));
        }
        for (source, capture) in [(Source::Stdout, &self.job.stdout), (Source::Stderr, &self.job.stderr)] {
            if capture.is_open() {
                sources.push((source, capture.as_fd(), PollFlags::POLLIN));
            }
        }
        if self.phase != Phase::Over {
            if let Stdin::Passed(passed) = &self.job.stdin
                && let Some((fd, to_payload)) = passed.awaited()
            {
                let events = if to_payload { PollFlags::POLLOUT } else { PollFlags::POLLIN };
                sources.push((Source::Stdin, fd, events));
            }
            if let Some(listener) = &self.listener {
                sources.push((Source::Listener, listener.as_fd(), PollFlags::POLLIN));
            }
            if let Some(events) = self.job.meter.pids_events().filter(|_| self.evidence.kill.is_none()) {
                sources.push((Source::Pids, events, PollFlags::POLLPRI));
            }
            if let Some(cancel) = self.job.cancel.filter(|_| self.evidence.kill.is_none()) {
                sources.push((Source::Cancel, cancel, PollFlags::POLLIN));
            }
        }
        sources
    }

    fn setup_cpu_us(&self) -> u64 {
        self.exec.map_or(0, |exec| exec.setup_cpu_ns / 1000)
    }

    fn since_exec_us(&self) -> Option<u64> {
        self.exec.map(|exec| wait::monotonic_ns().saturating_sub(exec.at_ns) / 1000)
    }

    fn finish(mut self) -> Outcome {
        let setup_cpu_us = self.setup_cpu_us();
        let limits = self.job.limits;
        if let (Some(exec), Some(ended)) = (self.exec, self.ended) {
            self.evidence.payload = Payload {
                wait_status: WaitStatus::from_raw(ended.status),
                wall_us: Some(ended.at_ns.saturating_sub(exec.at_ns) / 1000),
                rusage_cpu_us: Some((ended.user_us + ended.system_us).saturating_sub(setup_cpu_us)),
                image_bytes: Some(exec.image_bytes).filter(|bytes| *bytes > 0),
                entered_user_mode: exec.watched.then_some(ended.exec_completed),
            };
            // After a good end nobody looks.
            let seen = ended.files;
            self.evidence.files = Files {
                at_size_limit: seen.map(|files| files.at_size_limit && limits.file_size_bytes > 0),
                no_free_blocks: seen.map(|files| files.no_free_blocks),
                no_free_inodes: seen.map(|files| files.no_free_inodes),
            };
        }
        self.evidence.cgroup = self.job.meter.read(setup_cpu_us, limits.memory_bytes);
        self.evidence.cgroup.memory_split = self.memory_split;
        self.evidence.streams = Streams {
            stdin_bytes: self.job.stdin.bytes(),
            stdout_bytes: Some(self.job.stdout.total()),
            stderr_bytes: Some(self.job.stderr.total()),
        };
        if let Some(before) = self.pressure {
            let after = pressure();
            let delta = |index: usize| Some(after[index]?.saturating_sub(before[index]?));
            self.evidence.noise = Noise {
                cpu_pressure_us: delta(0),
                memory_pressure_us: delta(1),
                io_pressure_us: delta(2),
                ..Noise::default()
            };
        }
        Outcome {
            evidence: self.evidence,
            stdout: self.job.stdout.into_kept(),
            stderr: self.job.stderr.into_kept(),
            artefact: self.artefact,
            artefact_missing: self.artefact_missing,
            exec_failed: self.exec_failed,
        }
    }
}

/// `some total` of the machine's CPU, memory and I/O pressure, µs.
fn pressure() -> [Option<u64>; 3] {
    ["cpu", "memory", "io"].map(|resource| {
        let text = std::fs::read_to_string(format!("/proc/pressure/{resource}")).ok()?;
        text.lines().next()?.rsplit_once("total=")?.1.parse().ok()
    })
}
