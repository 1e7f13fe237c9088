//! What a run came to, in isolate's words: the meta-file, the status line, the exit code.

use std::fmt::Write;

use crate::init::report::Ended;
use crate::judge::evidence::{KillCause, Oom, WaitStatus};
use crate::judge::limits::Limits;
use crate::judge::output::Step;
use crate::judge::verdict::{Cause, Status};

/// isolate's statuses; none where the program has ended well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It exited with 0.
    Fine,
    /// `RE`: it exited with another status.
    Exited(i32),
    /// `SG`: a signal ended it.
    Signaled(i32, Option<String>),
    /// `TO`: out of CPU time, or (`true`) of wall time.
    TimedOut(bool),
    /// `XX`: the sandbox failed.
    Internal(String),
}

impl Outcome {
    /// What a judged run came to.
    pub fn of(run: &Step, detail: Option<&str>, limits: &Limits) -> Outcome {
        let evidence = &run.evidence;
        match evidence.kill.as_ref().map(|kill| kill.cause) {
            Some(KillCause::WallTime) => return Outcome::TimedOut(true),
            Some(KillCause::CpuTime) => return Outcome::TimedOut(false),
            Some(KillCause::Cancelled) => return Outcome::Internal("Stopped by a signal".to_owned()),
            _ => {}
        }
        if run.status == Status::Sv {
            let name = evidence.seccomp.as_ref().and_then(|call| call.name.clone()).unwrap_or_default();
            return Outcome::Signaled(libc::SIGSYS, Some(format!("Forbidden system call {name}")));
        }
        let host = matches!(run.cause, Cause::IeHostOom | Cause::IeOomAmbiguous);
        if run.status == Status::Ie && !host {
            return Outcome::Internal(detail.map_or_else(|| run.cause.explain().to_owned(), str::to_owned));
        }
        let over = |us: Option<u64>, limit: u64| us.is_some_and(|us| us > limit * 1000);
        if over(evidence.cgroup.cpu_us.or(evidence.payload.rusage_cpu_us), limits.cpu_time_ms) {
            return Outcome::TimedOut(false);
        }
        if over(evidence.payload.wall_us, limits.wall_time_ms) {
            return Outcome::TimedOut(true);
        }
        match evidence.payload.wait_status {
            Some(WaitStatus::Exited { code: 0 }) => Outcome::Fine,
            Some(WaitStatus::Exited { code }) => Outcome::Exited(code),
            Some(WaitStatus::Signaled { signal, .. }) => Outcome::Signaled(signal, None),
            None => Outcome::Internal("How the program has ended is unknown".to_owned()),
        }
    }

    /// The two letters.
    pub fn status(&self) -> Option<&'static str> {
        match self {
            Outcome::Fine => None,
            Outcome::Exited(_) => Some("RE"),
            Outcome::Signaled(..) => Some("SG"),
            Outcome::TimedOut(_) => Some("TO"),
            Outcome::Internal(_) => Some("XX"),
        }
    }

    /// In words; nothing where the program has ended well.
    pub fn message(&self) -> Option<String> {
        Some(match self {
            Outcome::Fine => return None,
            Outcome::Exited(code) => format!("Exited with error status {code}"),
            Outcome::Signaled(_, Some(words)) => words.clone(),
            Outcome::Signaled(signal, None) => format!("Caught fatal signal {signal}"),
            Outcome::TimedOut(false) => "Time limit exceeded".to_owned(),
            Outcome::TimedOut(true) => "Time limit exceeded (wall clock)".to_owned(),
            Outcome::Internal(words) => words.clone(),
        })
    }

    /// 0: ended well; 1: failed, or over a limit; 2: the sandbox failed.
    pub fn exit_code(&self) -> u8 {
        match self {
            Outcome::Fine => 0,
            Outcome::Internal(_) => 2,
            _ => 1,
        }
    }

    /// What isolate says on stderr.
    pub fn line(&self, run: &Step) -> String {
        self.message().unwrap_or_else(|| {
            let seconds = |ms: Option<f64>| ms.unwrap_or(0.0) / 1000.0;
            format!("OK ({:.3} sec real, {:.3} sec wall)", seconds(run.cpu_time_ms), seconds(run.wall_time_ms))
        })
    }
}

/// The meta-file of a run that the sandbox itself has failed.
pub fn failed(message: &str) -> String {
    format!("status:XX\nmessage:{}\n", message.replace('\n', " "))
}

/// The meta-file of a run. The keys `cg-…` only where control groups were asked for; `not_returned` says why the files in
/// the box are not its owner's again.
pub fn file(outcome: &Outcome, run: &Step, ended: Option<&Ended>, cg: bool, not_returned: Option<&str>) -> String {
    let mut text = String::new();
    let mut key = |name: &str, value: &dyn std::fmt::Display| {
        let _ = writeln!(text, "{name}:{value}");
    };
    let seconds = |ms: f64| format!("{:.3}", ms / 1000.0);
    if let Some(ms) = run.cpu_time_ms {
        key("time", &seconds(ms));
    }
    if let Some(ms) = run.wall_time_ms {
        key("time-wall", &seconds(ms));
    }
    if let Some(ended) = ended {
        key("max-rss", &ended.max_rss_kib);
        key("csw-voluntary", &ended.voluntary_switches);
        key("csw-forced", &ended.forced_switches);
    }
    if cg {
        if let Some(bytes) = run.memory_peak_bytes {
            key("cg-mem", &(bytes / 1024));
        }
        let kills = match run.evidence.cgroup.oom {
            Oom::V1 { kills, .. } | Oom::V2 { kills, .. } => kills.unwrap_or(0),
            Oom::Unknown => 0,
        };
        if kills > 0 {
            key("cg-oom-killed", &1);
        }
    }
    match outcome {
        Outcome::Fine => key("exitcode", &0),
        Outcome::Exited(code) => key("exitcode", code),
        Outcome::Signaled(signal, _) => key("exitsig", signal),
        Outcome::TimedOut(_) | Outcome::Internal(_) => {}
    }
    if run.evidence.kill.is_some() {
        key("killed", &1);
    }
    if let (Some(status), Some(message)) = (outcome.status(), outcome.message()) {
        key("status", &status);
        key("message", &message.replace('\n', " "));
    }
    if let Some(why) = not_returned {
        key("box-error", &why.replace('\n', " "));
    }
    text
}
