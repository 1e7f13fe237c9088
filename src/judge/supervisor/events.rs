//! What each event does to a supervised sandbox.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::epoll::EpollFlags;

use super::super::capture::{Capture, Stdin};
use super::super::evidence::{Fault, FaultKind, ForbiddenCall, Kill, KillCause};
use super::super::noise::Counters;
use super::pace::{MemoryPace, PIDS_CHECK};
use super::watch::{Container, DRAINING, DYING, Phase, SETUP, Source, Watch};
use crate::error::{Error, Result};
use crate::init::report::{Exec, Received, Report};
use crate::seccomp::judge as seccomp;
use crate::sys::{Errno, pidfd, wait};
use crate::worker::metrics;

impl Watch<'_> {
    pub(super) fn on(&mut self, source: Source, events: EpollFlags) -> Result<()> {
        match source {
            Source::Channel => self.on_channel()?,
            Source::Line => self.on_line()?,
            Source::Init => self.init_alive = false,
            Source::Stdout => {
                if drain(&mut self.stdout)? {
                    self.kill(KillCause::Stdout);
                }
            }
            Source::Stderr => {
                if drain(&mut self.stderr)? {
                    self.kill(KillCause::Stderr);
                }
            }
            Source::Stdin => {
                if let Stdin::Passed(passed) = &mut self.stdin {
                    passed.advance();
                }
            }
            Source::Listener if events.contains(EpollFlags::EPOLLIN) => self.on_forbidden_call(),
            // Nobody uses the filter any more.
            Source::Listener => self.listener = None,
            Source::Pids => self.on_pids(),
        }
        Ok(())
    }

    /// Init is ready, or has failed; later: the line of its set-up has ended, as it should, or tells of a failure.
    fn on_channel(&mut self) -> Result<()> {
        match self.container.take() {
            Some(Container::Making(pending)) => match pending.finish() {
                Ok(created) => {
                    let gate = created.open_gate();
                    self.container = Some(Container::Made(created));
                    match gate {
                        // Nobody is left to hear it: the line of the reports tells why.
                        Err(error) if error.errno() == Some(Errno::EPIPE) => {}
                        opened => opened?,
                    }
                    self.phase = Phase::Starting;
                    self.bound = Instant::now() + SETUP;
                }
                Err(error) => self.not_made(error),
            },
            Some(Container::Made(created)) => {
                self.channel_open = false;
                let heard = created.heard();
                self.container = Some(Container::Made(created));
                heard?;
                metrics::started(self.begun.elapsed());
            }
            other => self.container = other,
        }
        Ok(())
    }

    fn not_made(&mut self, error: Error) {
        self.container = Some(Container::Failed(error));
        self.give_up();
    }

    /// The supervision cannot go on: what is left of the sandbox is for its release to end.
    pub(super) fn lost(&mut self, error: &Error) {
        self.fault(FaultKind::Setup, error.to_string());
        self.give_up();
    }

    /// Ends without waiting for anything more.
    fn give_up(&mut self) {
        self.phase = Phase::Over;
        self.init_alive = false;
        self.close_streams();
    }

    fn close_streams(&mut self) {
        [&mut self.stdout, &mut self.stderr].into_iter().flatten().for_each(Capture::close);
    }

    fn on_line(&mut self) -> Result<()> {
        loop {
            match self.line.receive()? {
                Received::Nothing => return Ok(()),
                Received::Closed => {
                    self.line_open = false;
                    if self.phase != Phase::Over {
                        self.fault(FaultKind::SupervisorLost, "the sandbox's init has ended unexpectedly".to_owned());
                        self.over();
                    }
                    return Ok(());
                }
                Received::Report(report, fd) => self.on_report(report, fd),
            }
        }
    }

    fn on_report(&mut self, report: Report, fd: Option<OwnedFd>) {
        match report {
            Report::Listener => self.listener = fd,
            Report::Exec(exec) => {
                // A time namespace of the sandbox's own shows another clock: then the arrival counts.
                let now = wait::monotonic_ns();
                let at_ns = if exec.at_ns <= now && now - exec.at_ns < 5_000_000_000 { exec.at_ns } else { now };
                let exec = Exec { at_ns, ..exec };
                let wall = Duration::from_millis(self.limits.wall_time_ms + self.limits.extra_time_ms);
                let since = Duration::from_nanos(now - at_ns);
                self.meter.reset_peak(since);
                self.exec = Some(exec);
                self.phase = Phase::Running;
                self.wall_bound = Some(Instant::now() + wall.saturating_sub(since));
                self.bound = Instant::now() + wall + DYING;
                self.noise = Some(Counters::read(&self.meter));
                self.cpu_check = self.meter.cpu_us().map(|_| Instant::now() + self.cpu_pace.earliest(0));
                self.pids_check = self.meter.pids_events().map(|_| Instant::now() + PIDS_CHECK);
                self.memory_check = Some(MemoryPace::new());
            }
            Report::ExecFailed(errno, words) => {
                self.fault(FaultKind::Exec, words.clone());
                self.exec_failed = Some((errno, words));
            }
            Report::Ended(ended) => {
                self.ended = Some(ended);
                self.over();
                if ended.alone {
                    self.use_the_wait();
                }
            }
            Report::Artefact(missing) => match fd {
                Some(fd) => self.artefact = Some(fd),
                None => self.artefact_missing = Some(missing),
            },
            // Only ever sent the other way.
            Report::Kill => {}
        }
    }

    /// Records the call and kills. The caller stays blocked in it until then.
    fn on_forbidden_call(&mut self) {
        let Some(listener) = &self.listener else { return };
        match seccomp::supervise(listener.as_fd()) {
            Ok(Some(record)) => {
                self.evidence.seccomp.get_or_insert(ForbiddenCall {
                    number: record.nr,
                    name: Some(record.name),
                    arch: record.arch,
                    args: record.args,
                    pid: record.pid,
                });
                self.kill(KillCause::Seccomp);
            }
            // The caller died before it could be read.
            Ok(None) => {}
            Err(_) => self.listener = None,
        }
    }

    fn on_pids(&mut self) {
        let hits = self.meter.pids_limit_hits().unwrap_or(0);
        if self.pids_window.is_abuse(hits) {
            self.kill(KillCause::PidsRate);
        }
    }

    pub(super) fn on_time(&mut self) {
        let now = Instant::now();
        if self.wall_bound.is_some_and(|bound| bound <= now) {
            self.wall_bound = None;
            self.kill(KillCause::WallTime);
        }
        if self.cpu_check.is_some_and(|check| check <= now) {
            self.check_cpu();
        }
        if self.pids_check.is_some_and(|check| check <= now) {
            self.pids_check = Some(now + PIDS_CHECK);
            self.on_pids();
        }
        if let Some(pace) = self.memory_check.filter(|pace| pace.at() <= now) {
            self.sample_memory();
            self.memory_check = Some(pace.next(now));
        }
        if self.bound > now {
            return;
        }
        match self.phase {
            Phase::Making => {
                if let Some(Container::Making(pending)) = self.container.take() {
                    let error = Error::Other("the sandbox's init does not get ready".to_owned());
                    self.not_made(pending.abandon(error));
                }
            }
            Phase::Starting | Phase::Running => {
                // Init does not answer, or the payload cannot be killed through it: end init, and all with it.
                self.end_init();
                self.fault(FaultKind::SupervisorLost, "the sandbox's init does not answer".to_owned());
                self.over();
            }
            Phase::Over => {
                // What is still there now is found by the proof.
                self.end_init();
                self.give_up();
            }
        }
    }

    /// Looks at the CPU time, and decides when to look again: not before the rest can be used up.
    fn check_cpu(&mut self) {
        self.cpu_check = None;
        if self.phase != Phase::Running || self.evidence.kill.is_some() {
            return;
        }
        let Some(used) = self.meter.cpu_us() else { return };
        let used = used.saturating_sub(self.setup_cpu_us());
        if self.cpu_pace.is_over(used) {
            return self.kill(KillCause::CpuTime);
        }
        self.cpu_check = Some(Instant::now() + self.cpu_pace.earliest(used));
    }

    /// A level, not a sum: the last sample stays.
    fn sample_memory(&mut self) {
        if self.phase == Phase::Running {
            self.memory_split = self.meter.memory_split(self.since_exec_us().unwrap_or(0)).or(self.memory_split.take());
        }
    }

    /// Kills the payload and all it has started. The first cause stays.
    pub(super) fn kill(&mut self, cause: KillCause) {
        // What was written in the last moment is read after the end, and counts all the same.
        let output = matches!(cause, KillCause::Stdout | KillCause::Stderr);
        if self.evidence.kill.is_some() || (self.phase == Phase::Over && !output) {
            return;
        }
        self.evidence.kill =
            Some(Kill { cause, at_us: self.since_exec_us(), pids_limit_hits: self.meter.pids_limit_hits() });
        if self.phase == Phase::Over {
            return;
        }
        self.bound = Instant::now() + DYING;
        self.look_no_more();
        if self.line.send(&Report::Kill, None).is_err() {
            self.end_init();
        }
    }

    fn end_init(&self) {
        if let Some(init) = self.init() {
            let _ = pidfd::send_signal(init, libc::SIGKILL);
        }
    }

    fn over(&mut self) {
        self.phase = Phase::Over;
        self.bound = Instant::now() + DRAINING;
        self.look_no_more();
    }

    /// The payload's fate is decided.
    fn look_no_more(&mut self) {
        self.wall_bound = None;
        self.cpu_check = None;
        self.pids_check = None;
        self.memory_check = None;
    }

    fn fault(&mut self, kind: FaultKind, message: String) {
        self.evidence.fault.get_or_insert(Fault { kind, message });
    }
}

/// Takes what is there; whether it has become too much.
fn drain(capture: &mut Option<Capture>) -> Result<bool> {
    let Some(capture) = capture else { return Ok(false) };
    capture.drain()?;
    Ok(capture.over())
}
