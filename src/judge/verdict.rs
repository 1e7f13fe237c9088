//! From evidence to verdict: a pure function, the first matching rule decides.
//!
//! | rule | condition | verdict |
//! |---|---|---|
//! | 0 | set-up or exec failed, evidence missing, supervisor lost, cancelled, not proved gone | IE |
//! | 1 | OOM kill without the sandbox's own limit being hit, or that cannot be told apart | IE, retryable |
//! | 2 | compile step failed | CE |
//! | 3 | forbidden call, by the notification record | SV |
//! | 4 | OOM kill at the own limit, whatever the exit code | MLE |
//! | 5 | exec died before user mode and the image exceeds the memory limit | MLE |
//! | 6 | killed by the judge: output, abuse, CPU, wall (PLE if the pids limit was hit before the wall kill) | OLE ABUSE TLE PLE |
//! | 7 | over a time limit in the end, even with exit 0 | TLE |
//! | 8 | SIGXFSZ, or an abnormal end with a file or a work tmpfs at its limit | FSE |
//! | 9 | pids limit hit and abnormal end | PLE |
//! | 10 | killed by a signal | SIG |
//! | 11 | non-zero exit, or what the submission was compiled to cannot be executed | RE |
//! | 12 | otherwise | OK |
//! | 13 | OK, and a checker says otherwise | WA PE; IE where the checker failed |
//! |    | with an interactor: it ended first, so that the program's RE, SIG or wall TLE is its doing | what it says |
//! |    | with an interactor: both wait for the other, until the wall time is over | TLE (idle) |

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use super::cause::{Actor, Cause, Status};
use super::evidence::{Checked, Evidence, FaultKind, KillCause, Oom, Ruling, WaitStatus};
use super::limits::Limits;
use super::noise;

/// What [`classify`] says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Verdict {
    /// The verdict.
    pub status: Status,
    /// Why.
    pub cause: Cause,
    /// Who ended it.
    pub actor: Actor,
    /// The rule that matched, 0–13.
    pub rule: u8,
    /// Whether trying again makes sense.
    pub retryable: bool,
    /// In words, where there is more to say: the missing evidence, the forbidden call, what remains.
    pub detail: Option<String>,
    /// What the verdict would have been without the internal error.
    pub provisional: Option<Box<Verdict>>,
}

impl Verdict {
    fn new(rule: u8, status: Status, cause: Cause, actor: Actor) -> Self {
        Verdict { status, cause, actor, rule, retryable: cause.retryable(), detail: None, provisional: None }
    }

    fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }
}

/// The verdict that the evidence supports. Total: every evidence has exactly one verdict.
pub fn classify(evidence: &Evidence, limits: &Limits) -> Verdict {
    match internal_error(evidence) {
        None => match (judged(evidence, limits), &evidence.checker) {
            (mut verdict, None) => {
                noise::mark(&mut verdict, evidence, limits);
                verdict
            }
            (verdict, Some(checked)) => match checked.ended_first {
                Some(first) => conversed(verdict, checked, first, evidence),
                None if verdict.status == Status::Ok => ruled(verdict, checked),
                None => verdict,
            },
        },
        Some(mut error) => {
            // Kept only when there is something to judge; never itself an internal error of rule 0.
            if evidence.fault.is_none() && missing(evidence).is_none() {
                error.provisional = Some(Box::new(judged(evidence, limits)));
            }
            error
        }
    }
}

/// Rule 0.
fn internal_error(e: &Evidence) -> Option<Verdict> {
    let ie = |cause| Verdict::new(0, Status::Ie, cause, Actor::Runtime);
    if let Some(fault) = &e.fault {
        let cause = match fault.kind {
            FaultKind::Setup => Cause::IeSetupFailed,
            FaultKind::Exec => Cause::IeExecFailed,
            FaultKind::SupervisorLost => Cause::IeSupervisorLost,
            FaultKind::Cancelled => Cause::IeCancelled,
        };
        return Some(ie(cause).detail(&fault.message));
    }
    if e.kill.as_ref().is_some_and(|kill| kill.cause == KillCause::Cancelled) {
        return Some(ie(Cause::IeCancelled));
    }
    if let Some(compile) = &e.compile
        && compile.verdict.status == Status::Ie
    {
        return Some(Verdict { provisional: None, ..(*compile.verdict).clone() });
    }
    if let Some(what) = missing(e) {
        return Some(ie(Cause::IeEvidenceMissing).detail(format!("{what} is unknown")));
    }
    match &e.cleanup {
        Some(cleanup) if cleanup.proved => None,
        Some(cleanup) => Some(ie(Cause::IeNotProvedGone).detail(cleanup.left.join("; "))),
        // An engine's container is still to be deleted.
        None if e.monitored => None,
        None => Some(ie(Cause::IeNotProvedGone).detail("no proof was made")),
    }
}

/// The first piece of evidence that an enforced control should have given and did not.
fn missing(e: &Evidence) -> Option<&'static str> {
    if compile_failed(e) {
        return None; // the run step never was
    }
    if e.payload.not_executable.is_some() {
        return None; // nothing ran
    }
    let enforced = |control: &str| !e.control_degraded.iter().any(|degraded| degraded == control);
    if e.payload.wait_status.is_none() && !(e.monitored && decided_without_status(e)) {
        return Some("the payload's wait status");
    }
    if e.payload.wall_us.is_none() {
        return Some("the wall time");
    }
    if !e.monitored && !e.streams.joined && (e.streams.stdout_bytes.is_none() || e.streams.stderr_bytes.is_none()) {
        return Some("the size of the output");
    }
    if cpu_us(e).is_none() || (enforced("cpuacct") && e.cgroup.cpu_us.is_none()) {
        return Some("the CPU time");
    }
    let oom_known = match &e.cgroup.oom {
        Oom::Unknown => false,
        Oom::V1 { kills, .. } | Oom::V2 { kills, .. } => kills.is_some(),
    };
    if enforced("memory") && !oom_known {
        return Some("the count of OOM kills");
    }
    if enforced("pids") && e.cgroup.pids_limit_hits.is_none() {
        return Some("the count of pids limit hits");
    }
    if e.seccomp.is_none() && e.kill.as_ref().is_some_and(|kill| kill.cause == KillCause::Seccomp) {
        return Some("the forbidden call");
    }
    None
}

/// Whether the verdict is the same however the payload ended.
fn decided_without_status(e: &Evidence) -> bool {
    e.kill.is_some() || oom_kill(&e.cgroup.oom) != OomKill::None
}

fn cpu_us(e: &Evidence) -> Option<u64> {
    e.cgroup.cpu_us.or(e.payload.rusage_cpu_us)
}

fn compile_failed(e: &Evidence) -> bool {
    e.compile.as_ref().is_some_and(|c| c.verdict.status != Status::Ok || c.artefact != Some(true))
}

/// Whose out-of-memory kill it was.
#[derive(PartialEq)]
enum OomKill {
    None,
    Own,
    Host,
    Ambiguous,
}

fn oom_kill(oom: &Oom) -> OomKill {
    match *oom {
        Oom::Unknown => OomKill::None,
        Oom::V1 { kills, event_fired, failcnt, peak_at_limit } => {
            let own_limit_hit = match (failcnt, peak_at_limit) {
                (Some(1..), _) | (_, Some(true)) => Some(true),
                (Some(0), Some(false)) => Some(false),
                _ => None,
            };
            match (kills.unwrap_or(0), event_fired, own_limit_hit) {
                (0, _, _) => OomKill::None,
                (_, _, Some(false)) => OomKill::Host,
                (_, Some(true), Some(true)) => OomKill::Own,
                _ => OomKill::Ambiguous,
            }
        }
        Oom::V2 { kills, local_oom } => match (kills.unwrap_or(0), local_oom) {
            (0, _) => OomKill::None,
            (_, Some(0)) => OomKill::Host,
            (_, Some(_)) => OomKill::Own,
            (_, None) => OomKill::Ambiguous,
        },
    }
}

/// Rules 1 to 12, in order.
fn judged(e: &Evidence, limits: &Limits) -> Verdict {
    use Actor::*;
    let status = e.payload.wait_status;
    let signal = status.and_then(WaitStatus::signal);
    let normal = status.and_then(WaitStatus::code) == Some(0);
    let pids_limit_hits = e.cgroup.pids_limit_hits.unwrap_or(0);
    let oom = oom_kill(&e.cgroup.oom);

    if oom == OomKill::Host {
        return Verdict::new(1, Status::Ie, Cause::IeHostOom, Kernel);
    }
    if oom == OomKill::Ambiguous {
        return Verdict::new(1, Status::Ie, Cause::IeOomAmbiguous, Kernel);
    }
    if compile_failed(e) {
        return compile_error(e);
    }
    if let Some(call) = &e.seccomp {
        let name = call.name.as_deref().unwrap_or("system call");
        return Verdict::new(3, Status::Sv, Cause::SvSeccomp, Judge).detail(format!("{name} ({})", call.number));
    }
    if oom == OomKill::Own {
        return Verdict::new(4, Status::Mle, Cause::MleKernelOom, Kernel);
    }
    let oversized = e.payload.image_bytes.is_some_and(|bytes| bytes > limits.memory_bytes);
    if oversized && e.payload.entered_user_mode == Some(false) && !normal {
        return Verdict::new(5, Status::Mle, Cause::MleExec, Kernel);
    }
    if let Some(kill) = &e.kill {
        let pids_first = kill.pids_limit_hits.unwrap_or(0) > 0;
        let verdict = match kill.cause {
            KillCause::Stdout => Some((Status::Ole, Cause::OleOutput)),
            KillCause::Stderr => Some((Status::Ole, Cause::OleOutput)),
            KillCause::PidsRate => Some((Status::Abuse, Cause::AbusePidsRate)),
            KillCause::CpuTime => Some((Status::Tle, Cause::TleCpuJudge)),
            KillCause::WallTime if pids_first => Some((Status::Ple, Cause::PleCgroupPids)),
            KillCause::WallTime => Some((Status::Tle, Cause::TleWallJudge)),
            KillCause::Seccomp | KillCause::Cancelled => None,
        };
        if let Some((status, cause)) = verdict {
            return Verdict::new(6, status, cause, Judge);
        }
    }
    let cpu = cpu_us(e).unwrap_or(0);
    let cpu_limit = limits.cpu_time_ms.saturating_mul(1000);
    if signal == Some(libc::SIGXCPU) && cpu >= cpu_limit {
        return Verdict::new(7, Status::Tle, Cause::TleCpuKernel, Kernel);
    }
    if cpu > cpu_limit {
        return Verdict::new(7, Status::Tle, Cause::TleCpuJudge, Judge);
    }
    if e.payload.wall_us.is_some_and(|wall| wall > limits.wall_time_ms.saturating_mul(1000)) {
        return Verdict::new(7, Status::Tle, Cause::TleWallJudge, Judge);
    }
    let full = [e.files.at_size_limit, e.files.no_free_blocks, e.files.no_free_inodes].contains(&Some(true));
    if signal == Some(libc::SIGXFSZ) || (full && !normal) {
        return Verdict::new(8, Status::Fse, Cause::FseLimitExceeded, Kernel);
    }
    if pids_limit_hits > 0 && !normal {
        return Verdict::new(9, Status::Ple, Cause::PleCgroupPids, Kernel);
    }
    if let Some(why) = &e.payload.not_executable {
        return Verdict::new(11, Status::Re, Cause::ReNotExecutable, Payload).detail(why);
    }
    if let Some(signal) = signal {
        return Verdict::new(10, Status::Sig, Cause::ReFatalSignal, Payload).detail(signal_name(signal));
    }
    if !normal {
        return Verdict::new(11, Status::Re, Cause::ReNonzeroExit, Payload);
    }
    Verdict::new(12, Status::Ok, Cause::NormalExit, Payload)
}

/// Rule 13: the program did its part, and a checker has looked at what it wrote.
fn ruled(verdict: Verdict, checked: &Checked) -> Verdict {
    let nothing = checked.ruling == Ruling::Points && checked.points.is_none_or(|points| points <= 0.0);
    let (status, cause) = match checked.ruling {
        Ruling::Failed => (Status::Ie, Cause::IeCheckerFailed),
        Ruling::Wrong => (Status::Wa, Cause::WaChecker),
        Ruling::Presentation => (Status::Pe, Cause::PeChecker),
        Ruling::Points if nothing => (Status::Wa, Cause::WaChecker),
        Ruling::Accepted | Ruling::Points => return verdict,
    };
    let actor = if status == Status::Ie { Actor::Runtime } else { Actor::Judge };
    let detail = Some(checked.message.clone()).filter(|message| !message.is_empty());
    Verdict { detail, ..Verdict::new(13, status, cause, actor) }
}

/// Rule 13 with an interactor: whoever has left the conversation first is to blame for what became of the other.
fn conversed(verdict: Verdict, checked: &Checked, first: bool, e: &Evidence) -> Verdict {
    let accepted = matches!(checked.ruling, Ruling::Accepted | Ruling::Points);
    match (verdict.status, verdict.cause) {
        (Status::Ok, _) => ruled(verdict, checked),
        (Status::Tle, Cause::TleWallJudge) if first && !accepted => ruled(verdict, checked),
        // Who waits uses no CPU.
        (Status::Tle, Cause::TleWallJudge) if cpu_us(e).unwrap_or(0) < e.payload.wall_us.unwrap_or(0) / 10 => {
            Verdict::new(13, Status::Tle, Cause::TleIdle, Actor::Judge)
        }
        // It was still talking when there was nobody to listen.
        (Status::Sig, _)
            if first && accepted && e.payload.wait_status.and_then(WaitStatus::signal) == Some(libc::SIGPIPE) =>
        {
            ruled(Verdict::new(13, Status::Ok, Cause::NormalExit, Actor::Payload), checked)
        }
        (Status::Re | Status::Sig, _) if first && !accepted => ruled(verdict, checked),
        _ => verdict,
    }
}

/// Rule 2: the compiler's own verdict becomes the cause's detail.
fn compile_error(e: &Evidence) -> Verdict {
    let own = e.compile.as_ref().map(|compile| &compile.verdict);
    let cause = match own.map(|verdict| verdict.status) {
        Some(Status::Sig) => Cause::CeFatalSignal,
        Some(Status::Tle) => Cause::CeTimeLimit,
        Some(Status::Mle) => Cause::CeMemoryLimit,
        Some(Status::Ole) => Cause::CeOutputLimit,
        Some(Status::Fse) => Cause::CeFileSizeLimit,
        Some(Status::Ple) => Cause::CeProcessLimit,
        Some(Status::Sv) => Cause::CeForbiddenCall,
        Some(Status::Abuse) => Cause::CeAbuse,
        Some(Status::Ok) => Cause::CeNoArtefact,
        _ => Cause::CeNonzeroExit,
    };
    let verdict = Verdict::new(2, Status::Ce, cause, Actor::Payload);
    match own {
        Some(own) => verdict.detail(format!("compile step: {} ({})", own.status.as_str(), own.cause.explain())),
        None => verdict,
    }
}

/// `SIGSEGV`, or the number where it has no name.
pub fn signal_name(signal: i32) -> String {
    match nix::sys::signal::Signal::try_from(signal) {
        Ok(signal) => signal.as_str().to_owned(),
        Err(_) => format!("signal {signal}"),
    }
}

#[cfg(test)]
#[path = "verdict_tests.rs"]
mod tests;
