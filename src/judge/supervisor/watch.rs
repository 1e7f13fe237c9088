//! One sandbox under supervision, as a state machine: what it waits for, and what is known of it so far.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::epoll::EpollFlags;

use super::super::capture::{Capture, Stdin};
use super::super::evidence::{Evidence, Files, MemorySplit, Payload, Streams, WaitStatus};
use super::super::limits::Limits;
use super::super::meter::Meter;
use super::super::noise::Counters;
use super::pace::{CpuPace, MemoryPace, PidsWindow};
use crate::container::created::Created;
use crate::container::pending::Pending;
use crate::error::Error;
use crate::init::report::{Ended, Exec, Line};
use crate::sys::wait;

/// How long the payload's process may take from the start to its exec.
pub(super) const SETUP: Duration = Duration::from_secs(10);
/// How long a killed payload may take to be reaped.
pub(super) const DYING: Duration = Duration::from_secs(5);
/// How long what is left of the sandbox may take to go, and its streams to end.
pub(super) const DRAINING: Duration = Duration::from_secs(5);

/// What is supervised: a sandbox whose init sets itself up, and everything that is looked at meanwhile.
#[derive(Debug)]
pub struct Job<'a> {
    /// When it was begun to be made.
    pub begun: Instant,
    /// The sandbox.
    pub container: Pending<'a>,
    /// The supervisor's end of the line to init.
    pub line: Line,
    /// The payload's cgroups.
    pub meter: Meter,
    /// The limits.
    pub limits: Limits,
    /// The payload's standard input.
    pub stdin: Stdin,
    /// The payload's standard output, where it is not another sandbox's input.
    pub stdout: Option<Capture>,
    /// The payload's standard error.
    pub stderr: Option<Capture>,
}

/// The engine's part of a sandbox.
#[derive(Debug)]
pub enum Container<'a> {
    /// Init sets itself up.
    Making(Pending<'a>),
    /// Init has been told to go on.
    Made(Created),
    /// It could not be made, and what was made is released.
    Failed(Error),
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
    /// When the payload was reaped, CLOCK_MONOTONIC: of two that talk to each other, who was first.
    pub ended_ns: Option<u64>,
    /// How the payload ended, as its init saw it.
    pub ended: Option<Ended>,
}

/// Where the payload is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Phase {
    /// Init sets itself up.
    Making,
    /// Not yet executed.
    Starting,
    /// Executed.
    Running,
    /// Ended, or init is lost.
    Over,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Source {
    Channel,
    Line,
    Init,
    Stdin,
    Stdout,
    Stderr,
    Listener,
    Pids,
}

/// One sandbox under supervision.
#[derive(Debug)]
pub struct Watch<'a> {
    pub(super) begun: Instant,
    /// `None` only while it changes.
    pub(super) container: Option<Container<'a>>,
    /// Init still holds the line of its set-up.
    pub(super) channel_open: bool,
    pub(super) line: Line,
    pub(super) meter: Meter,
    pub(super) limits: Limits,
    pub(super) stdin: Stdin,
    pub(super) stdout: Option<Capture>,
    pub(super) stderr: Option<Capture>,
    pub(super) phase: Phase,
    pub(super) line_open: bool,
    pub(super) init_alive: bool,
    pub(super) listener: Option<OwnedFd>,
    pub(super) exec: Option<Exec>,
    pub(super) ended: Option<Ended>,
    /// When the phase, or the dying in it, ends at the latest.
    pub(super) bound: Instant,
    pub(super) wall_bound: Option<Instant>,
    pub(super) cpu_check: Option<Instant>,
    pub(super) pids_check: Option<Instant>,
    /// When the memory is sampled next.
    pub(super) memory_check: Option<MemoryPace>,
    pub(super) pids_window: PidsWindow,
    pub(super) cpu_pace: CpuPace,
    /// How disturbed it was at the exec.
    pub(super) noise: Option<Counters>,
    /// The counters have been read for the last time.
    pub(super) counted: bool,
    pub(super) memory_split: Option<MemorySplit>,
    pub(super) evidence: Evidence,
    pub(super) artefact: Option<OwnedFd>,
    pub(super) artefact_missing: Option<String>,
    pub(super) exec_failed: Option<(i32, String)>,
}

impl<'a> Watch<'a> {
    /// Begins.
    pub fn new(job: Job<'a>) -> Self {
        let now = Instant::now();
        Watch {
            cpu_pace: CpuPace::new(&job.limits),
            begun: job.begun,
            container: Some(Container::Making(job.container)),
            channel_open: true,
            line: job.line,
            meter: job.meter,
            limits: job.limits,
            stdin: job.stdin,
            stdout: job.stdout,
            stderr: job.stderr,
            phase: Phase::Making,
            line_open: true,
            init_alive: true,
            listener: None,
            exec: None,
            ended: None,
            bound: now + SETUP,
            wall_bound: None,
            cpu_check: None,
            pids_check: None,
            memory_check: None,
            pids_window: PidsWindow::new(),
            noise: None,
            counted: false,
            memory_split: None,
            evidence: Evidence::default(),
            artefact: None,
            artefact_missing: None,
            exec_failed: None,
        }
    }

    /// Whether there is nothing more to wait for.
    pub(super) fn done(&self) -> bool {
        let streams_open = [&self.stdout, &self.stderr].into_iter().flatten().any(Capture::is_open);
        self.phase == Phase::Over && !self.init_alive && !streams_open
    }

    /// When something is to be done even if nothing happens.
    pub(super) fn deadline(&self) -> Instant {
        let memory_check = self.memory_check.map(MemoryPace::at);
        [self.wall_bound, self.cpu_check, self.pids_check, memory_check]
            .into_iter()
            .flatten()
            .fold(self.bound, Instant::min)
    }

    /// A handle of init, while there is one.
    pub(super) fn init(&self) -> Option<BorrowedFd<'_>> {
        match self.container.as_ref()? {
            Container::Making(pending) => Some(pending.init()),
            Container::Made(created) => Some(created.pidfd.as_fd()),
            Container::Failed(_) => None,
        }
    }

    /// What is waited for.
    pub(super) fn sources(&self) -> Vec<(Source, BorrowedFd<'_>, EpollFlags)> {
        let mut sources = Vec::with_capacity(8);
        match &self.container {
            Some(Container::Making(pending)) => sources.push((Source::Channel, pending.channel(), EpollFlags::EPOLLIN)),
            Some(Container::Made(created)) if self.channel_open => {
                sources.push((Source::Channel, created.channel(), EpollFlags::EPOLLIN));
            }
            _ => {}
        }
        if self.phase == Phase::Making {
            return sources;
        }
        if self.line_open {
            sources.push((Source::Line, self.line.as_fd(), EpollFlags::EPOLLIN));
        }
        if let Some(init) = self.init().filter(|_| self.init_alive) {
            sources.push((Source::Init, init, EpollFlags::EPOLLIN));
        }
        for (source, capture) in [(Source::Stdout, &self.stdout), (Source::Stderr, &self.stderr)] {
            if let Some(capture) = capture.as_ref().filter(|it| it.is_open()) {
                sources.push((source, capture.as_fd(), EpollFlags::EPOLLIN));
            }
        }
        if self.phase != Phase::Over {
            if let Stdin::Passed(passed) = &self.stdin
                && let Some((fd, to_payload)) = passed.awaited()
            {
                sources.push((Source::Stdin, fd, if to_payload { EpollFlags::EPOLLOUT } else { EpollFlags::EPOLLIN }));
            }
            if let Some(listener) = &self.listener {
                sources.push((Source::Listener, listener.as_fd(), EpollFlags::EPOLLIN));
            }
            if let Some(events) = self.meter.pids_events().filter(|_| self.evidence.kill.is_none()) {
                sources.push((Source::Pids, events, EpollFlags::EPOLLPRI));
            }
        }
        sources
    }

    pub(super) fn setup_cpu_us(&self) -> u64 {
        self.exec.map_or(0, |exec| exec.setup_cpu_ns / 1000)
    }

    pub(super) fn since_exec_us(&self) -> Option<u64> {
        self.exec.map(|exec| wait::monotonic_ns().saturating_sub(exec.at_ns) / 1000)
    }

    /// Reads all counters, once: they are final when nobody of the payload is left, but for the last microseconds of CPU
    /// time, in which the kernel takes a process that has been reaped off its processor.
    fn count(&mut self) {
        if !std::mem::replace(&mut self.counted, true) {
            self.evidence.cgroup = self.meter.read(self.setup_cpu_us(), self.limits.memory_bytes);
            if let Some(before) = self.noise {
                self.evidence.noise = before.since(&self.meter);
            }
        }
    }

    /// What the end would have to do otherwise, while init dies and nobody else is left: the kernel takes as long for that
    /// as for all of this.
    pub(super) fn use_the_wait(&mut self) {
        self.count();
        let streams_open = [&self.stdout, &self.stderr].into_iter().flatten().any(Capture::is_open);
        if let Some(Container::Made(created)) = self.container.as_ref().filter(|_| !streams_open) {
            created.record.cgroup.open().remove_payload();
        }
    }

    /// The end: the container, which is still to be released, and what was seen.
    pub(super) fn finish(mut self) -> (Option<Container<'a>>, Outcome) {
        self.count();
        let setup_cpu_us = self.setup_cpu_us();
        let limits = &self.limits;
        if let (Some(exec), Some(ended)) = (self.exec, self.ended) {
            self.evidence.payload = Payload {
                wait_status: WaitStatus::from_raw(ended.status),
                wall_us: Some(ended.at_ns.saturating_sub(exec.at_ns) / 1000),
                rusage_cpu_us: Some((ended.user_us + ended.system_us).saturating_sub(setup_cpu_us)),
                image_bytes: Some(exec.image_bytes).filter(|bytes| *bytes > 0),
                entered_user_mode: exec.watched.then_some(ended.exec_completed),
                not_executable: None,
            };
            // After a good end nobody looks.
            let seen = ended.files;
            self.evidence.files = Files {
                at_size_limit: seen.map(|files| files.at_size_limit && limits.file_size_bytes > 0),
                no_free_blocks: seen.map(|files| files.no_free_blocks),
                no_free_inodes: seen.map(|files| files.no_free_inodes),
            };
        }
        self.evidence.cgroup.memory_split = self.memory_split;
        self.evidence.streams = Streams {
            stdin_bytes: self.stdin.bytes(),
            stdout_bytes: self.stdout.as_ref().map(Capture::total),
            stderr_bytes: self.stderr.as_ref().map(Capture::total),
            joined: false,
        };
        let kept = |capture: Option<Capture>| capture.map(Capture::into_kept).unwrap_or_default();
        let outcome = Outcome {
            evidence: self.evidence,
            stdout: kept(self.stdout),
            stderr: kept(self.stderr),
            artefact: self.artefact,
            artefact_missing: self.artefact_missing,
            exec_failed: self.exec_failed,
            ended_ns: self.ended.map(|ended| ended.at_ns),
            ended: self.ended,
        };
        (self.container, outcome)
    }
}
