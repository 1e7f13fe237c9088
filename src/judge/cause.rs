//! The words of a verdict: status, actor and cause. Contracts of the JSON: names are never changed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The verdicts. `WA` and `PE` come from a checker, never from [`classify`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[allow(missing_docs)]
pub enum Status {
    Ok,
    Ce,
    Tle,
    Mle,
    Re,
    Sig,
    Ple,
    Fse,
    Ole,
    Sv,
    Abuse,
    Ie,
    Wa,
    Pe,
}

impl Status {
    /// As it is written in the JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Ok => "OK",
            Status::Ce => "CE",
            Status::Tle => "TLE",
            Status::Mle => "MLE",
            Status::Re => "RE",
            Status::Sig => "SIG",
            Status::Ple => "PLE",
            Status::Fse => "FSE",
            Status::Ole => "OLE",
            Status::Sv => "SV",
            Status::Abuse => "ABUSE",
            Status::Ie => "IE",
            Status::Wa => "WA",
            Status::Pe => "PE",
        }
    }

    /// The exit status of `rustbox run` for this verdict: 0 OK, 3 IE, 1 any other.
    pub fn exit_status(self) -> i32 {
        match self {
            Status::Ok => 0,
            Status::Ie => 3,
            _ => 1,
        }
    }
}

/// Who decided the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Actor {
    Judge,
    Kernel,
    Payload,
    Runtime,
}

/// The cause beside the verdict. A contract: names are never changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Cause {
    NormalExit,
    ReNonzeroExit,
    ReFatalSignal,
    TleCpuJudge,
    TleCpuKernel,
    TleWallJudge,
    MleKernelOom,
    MleExec,
    OleOutput,
    FseLimitExceeded,
    PleCgroupPids,
    SvSeccomp,
    AbusePidsRate,
    CeNonzeroExit,
    CeFatalSignal,
    CeTimeLimit,
    CeMemoryLimit,
    CeOutputLimit,
    CeFileSizeLimit,
    CeProcessLimit,
    CeForbiddenCall,
    CeAbuse,
    CeNoArtefact,
    WaChecker,
    PeChecker,
    IeCheckerFailed,
    TleIdle,
    ReNotExecutable,
    IeSetupFailed,
    IeExecFailed,
    IeEvidenceMissing,
    IeSupervisorLost,
    IeCancelled,
    IeNotProvedGone,
    IeHostOom,
    IeOomAmbiguous,
}

impl Cause {
    /// One line for a person.
    pub fn explain(self) -> &'static str {
        match self {
            Cause::NormalExit => "exited with 0",
            Cause::ReNonzeroExit => "exited with a non-zero code",
            Cause::ReNotExecutable => "what it was compiled to cannot be executed",
            Cause::ReFatalSignal => "killed by a signal",
            Cause::TleCpuJudge => "CPU time limit exceeded",
            Cause::TleCpuKernel => "CPU time limit exceeded (RLIMIT_CPU)",
            Cause::TleWallJudge => "wall time limit exceeded",
            Cause::MleKernelOom => "memory limit exceeded",
            Cause::MleExec => "the program's image is larger than the memory limit",
            Cause::OleOutput => "output limit exceeded",
            Cause::FseLimitExceeded => "file size or disk space limit exceeded",
            Cause::PleCgroupPids => "process limit exceeded",
            Cause::SvSeccomp => "forbidden system call",
            Cause::AbusePidsRate => "abuse: processes created far beyond the limit",
            Cause::CeNonzeroExit => "the compiler reported errors",
            Cause::CeFatalSignal => "the compiler was killed by a signal",
            Cause::CeTimeLimit => "the compiler exceeded its time limit",
            Cause::CeMemoryLimit => "the compiler exceeded its memory limit",
            Cause::CeOutputLimit => "the compiler exceeded its output limit",
            Cause::CeFileSizeLimit => "the compiler exceeded its file size limit",
            Cause::CeProcessLimit => "the compiler exceeded its process limit",
            Cause::CeForbiddenCall => "the compiler made a forbidden system call",
            Cause::CeAbuse => "the compiler was stopped for abuse",
            Cause::CeNoArtefact => "the compiler left no program",
            Cause::WaChecker => "the answer is wrong",
            Cause::PeChecker => "the answer is not in the form that was asked for",
            Cause::IeCheckerFailed => "the checker failed",
            Cause::TleIdle => "wall time limit exceeded while the program and the interactor waited for each other",
            Cause::IeSetupFailed => "the sandbox could not be set up",
            Cause::IeExecFailed => "the program could not be executed",
            Cause::IeEvidenceMissing => "evidence is missing",
            Cause::IeSupervisorLost => "the sandbox's init was lost",
            Cause::IeCancelled => "cancelled",
            Cause::IeNotProvedGone => "the sandbox could not be proved gone",
            Cause::IeHostOom => "killed for want of memory outside the sandbox",
            Cause::IeOomAmbiguous => "killed for want of memory, inside or outside the sandbox",
        }
    }

    /// Whether the same run may well end differently on a healthier machine.
    pub fn retryable(self) -> bool {
        matches!(self, Cause::IeHostOom | Cause::IeOomAmbiguous | Cause::IeSupervisorLost | Cause::IeCancelled)
    }
}
