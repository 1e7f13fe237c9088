//! What was seen of one judged step: everything the classifier may look at, and nothing it may not.
//!
//! Captured before the cgroup is removed. Counters are deltas since exec. What cannot be known is `null` (`None`),
//! never a default: the classifier treats an unknown that an enforced control should have given as an internal error.
//! The types are serialised as they are, so that a stored run can be judged again.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::verdict::Verdict;
use crate::cleanup::Proof;

/// Everything known about one step.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Evidence {
    /// What kept the runtime from running or judging the step, if anything did.
    pub fault: Option<Fault>,
    /// The verdict of the compile step before this one, where there was one.
    pub compile: Option<Compile>,
    /// The payload's end.
    pub payload: Payload,
    /// Who killed the sandbox first, and why; set once.
    pub kill: Option<Kill>,
    /// The counters of the payload's cgroups.
    pub cgroup: CgroupEvidence,
    /// Bytes through the payload's standard streams.
    pub streams: Streams,
    /// The forbidden call, from the kernel's notification.
    pub seccomp: Option<ForbiddenCall>,
    /// What the payload left in the places it may write to.
    pub files: Files,
    /// How disturbed the machine was.
    pub noise: Noise,
    /// Controls that were asked for and could not be given; only `--permissive` lets such a run happen.
    pub control_degraded: Vec<String>,
    /// What the cleanup proof found.
    pub cleanup: Option<Cleanup>,
    /// What the checker said of the output, where one was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checker: Option<Checked>,
    /// Who watched is not the program's parent, and its streams are somebody else's: an engine's container.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub monitored: bool,
}

/// What a checker, or an interactor, said.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Checked {
    /// Its ruling.
    pub ruling: Ruling,
    /// What it said, or why it could not rule.
    pub message: String,
    /// Its exit code; `null` for a built-in one, or where it did not exit.
    pub exit_code: Option<i32>,
    /// The points it gave; `null` where it gave none.
    pub points: Option<f64>,
    /// Of an interactor: it ended before the program did. `null` for a checker, which runs afterwards.
    pub ended_first: Option<bool>,
}

/// What a checker can say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Ruling {
    /// The output is right.
    Accepted,
    /// It is wrong.
    Wrong,
    /// It is not of the form that was asked for.
    Presentation,
    /// It is worth some points.
    Points,
    /// The checker could not rule: nothing was learned about the output.
    Failed,
}

impl Eq for Checked {}

/// What the compile step came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Compile {
    /// Its own verdict.
    pub verdict: Box<Verdict>,
    /// Whether it left an artefact: a regular file, checked by its handle.
    pub artefact: Option<bool>,
}

/// Why there can be no verdict about the program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Fault {
    /// Its class.
    pub kind: FaultKind,
    /// In words, for the operator.
    pub message: String,
}

/// The classes of faults of the runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// The sandbox could not be set up.
    Setup,
    /// The program could not be executed.
    Exec,
    /// Init or the supervisor ended before the payload's status was known.
    SupervisorLost,
    /// An operator or the batch stopped the run.
    Cancelled,
}

/// How the payload (never PID 1) ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Payload {
    /// The raw wait status.
    pub wait_status: Option<WaitStatus>,
    /// Wall time from exec to exit, µs.
    pub wall_us: Option<u64>,
    /// CPU time of the payload and of its waited-for descendants (getrusage), set-up subtracted, µs.
    pub rusage_cpu_us: Option<u64>,
    /// Sum of the PT_LOAD segments of the executed ELF file, bytes; unknown for scripts.
    pub image_bytes: Option<u64>,
    /// Whether the exec completed, so that user instructions ran. Only observed when `image_bytes` exceeds the memory limit.
    pub entered_user_mode: Option<bool>,
    /// Why what the submission was compiled to could not be executed: then nothing else is known of it, because nothing ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_executable: Option<String>,
}

/// The two ways a process ends; never folded into one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WaitStatus {
    /// It called `_exit`.
    Exited {
        /// 0–255.
        code: i32,
    },
    /// A signal ended it.
    Signaled {
        /// The signal's number.
        signal: i32,
        /// Whether a core was dumped.
        core: bool,
    },
}

impl WaitStatus {
    /// Reads what `wait4` returned; `None` for a stop or a continuation.
    pub fn from_raw(status: i32) -> Option<Self> {
        let signal = status & 0x7f;
        match signal {
            0 => Some(WaitStatus::Exited { code: status >> 8 & 0xff }),
            0x7f => None,
            _ => Some(WaitStatus::Signaled { signal, core: status & 0x80 != 0 }),
        }
    }

    /// The exit code, if it exited.
    pub fn code(self) -> Option<i32> {
        match self {
            WaitStatus::Exited { code } => Some(code),
            WaitStatus::Signaled { .. } => None,
        }
    }

    /// The signal, if one ended it.
    pub fn signal(self) -> Option<i32> {
        match self {
            WaitStatus::Exited { .. } => None,
            WaitStatus::Signaled { signal, .. } => Some(signal),
        }
    }
}

/// The judge's decision to kill.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Kill {
    /// Why.
    pub cause: KillCause,
    /// µs after exec; unknown if the payload never got there.
    pub at_us: Option<u64>,
    /// How often the pids limit had been hit by then.
    pub pids_limit_hits: Option<u64>,
}

/// Why the judge killed. The first cause stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KillCause {
    /// The cgroup's CPU time reached the limit.
    CpuTime,
    /// The wall clock reached the limit.
    WallTime,
    /// More was written to stdout than allowed.
    Stdout,
    /// More was written to stderr than allowed.
    Stderr,
    /// A forbidden call was notified.
    Seccomp,
    /// The pids limit was hit at a rate no honest program has.
    PidsRate,
    /// The run was cancelled.
    Cancelled,
}

/// The payload's cgroups, as deltas since exec.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CgroupEvidence {
    /// CPU time, set-up subtracted, µs.
    pub cpu_us: Option<u64>,
    /// Of it in user mode, µs.
    pub cpu_user_us: Option<u64>,
    /// Of it in the kernel, µs.
    pub cpu_system_us: Option<u64>,
    /// The highest memory charge, bytes: a level, not a delta.
    pub memory_peak_bytes: Option<u64>,
    /// Out-of-memory counters.
    pub oom: Oom,
    /// How often a fork failed for the pids limit.
    pub pids_limit_hits: Option<u64>,
    /// The most processes seen at once.
    pub pids_peak: Option<u64>,
    /// The last sample of what the memory was made of.
    pub memory_split: Option<MemorySplit>,
}

/// Out-of-memory counters. The two versions count differently and are kept apart.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "version", rename_all = "snake_case")]
pub enum Oom {
    /// No memory controller.
    #[default]
    Unknown,
    /// cgroup v1.
    V1 {
        /// `oom_kill` in `memory.oom_control`.
        kills: Option<u64>,
        /// Whether the OOM eventfd fired (it also fires for ancestors).
        event_fired: Option<bool>,
        /// `memory.failcnt` plus `memory.memsw.failcnt` (charges refused at the own limit: not a kill by itself).
        failcnt: Option<u64>,
        /// The peak has come so near to the own limit that a refused charge explains the kill. Newer kernels (seen on 6.18) leave both failcnt at 0; there this stands in.
        peak_at_limit: Option<bool>,
    },
    /// cgroup v2.
    V2 {
        /// `oom_kill` in `memory.events`, hierarchical: child cgroups count.
        kills: Option<u64>,
        /// `oom` in `memory.events.local`: the own limit was hit.
        local_oom: Option<u64>,
    },
}

/// What memory was charged for, bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MemorySplit {
    /// Anonymous.
    pub anon: u64,
    /// Page cache.
    pub file: u64,
    /// tmpfs and shared memory.
    pub shmem: u64,
    /// When it was sampled, µs after exec.
    pub at_us: u64,
}

/// Bytes through the standard streams, counted past what was kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Streams {
    /// Bytes offered on stdin and taken by the payload's end of the pipe; unknown for a memfd.
    pub stdin_bytes: Option<u64>,
    /// Bytes written to stdout.
    pub stdout_bytes: Option<u64>,
    /// Bytes written to stderr.
    pub stderr_bytes: Option<u64>,
    /// stdin and stdout were another sandbox's, or all streams the caller's own, and were not counted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub joined: bool,
}

/// A call that the judge's filter handed to the supervisor instead of the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ForbiddenCall {
    /// The system call's number.
    pub number: i32,
    /// Its name on that architecture, where known.
    pub name: Option<String>,
    /// Its entry point: `x86_64`, or the `AUDIT_ARCH_*` number in hexadecimal.
    pub arch: String,
    /// Its arguments.
    pub args: [u64; 6],
    /// The caller, in the supervisor's pid namespace.
    pub pid: u32,
}

/// What the payload left behind in writable places, looked at before the mounts went.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Files {
    /// A regular file has reached the file size limit.
    pub at_size_limit: Option<bool>,
    /// A writable tmpfs has no free block left.
    pub no_free_blocks: Option<bool>,
    /// A writable tmpfs has no free inode left.
    pub no_free_inodes: Option<bool>,
}

/// How disturbed the machine was while the payload ran. Never decides a verdict; explains one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Noise {
    /// Time in which a task of the sandbox was ready and did not run, µs: `some` of its cgroup's CPU pressure.
    pub run_queue_us: Option<u64>,
    /// Time the cgroup was throttled by its CPU quota, µs.
    pub throttled_us: Option<u64>,
    /// CPU pressure (`some total`) of the machine, µs.
    pub cpu_pressure_us: Option<u64>,
    /// Memory pressure (`some total`) of the machine, µs.
    pub memory_pressure_us: Option<u64>,
    /// I/O pressure (`some total`) of the machine, µs.
    pub io_pressure_us: Option<u64>,
    /// Processors that the sandbox could use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processors: Option<u64>,
}

/// Whether the sandbox is proved gone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Cleanup {
    /// Nothing remains.
    pub proved: bool,
    /// What remains, in words.
    pub left: Vec<String>,
    /// What was checked and found gone, in words.
    pub checked: Vec<String>,
}

impl From<&Proof> for Cleanup {
    fn from(proof: &Proof) -> Cleanup {
        Cleanup {
            proved: proof.clean,
            left: proof.left.clone(),
            checked: vec![
                format!("processes, by the {}", proof.processes_by),
                format!("{} cgroups", proof.cgroups_gone),
                "mounts".to_owned(),
                "state directory".to_owned(),
            ],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raw_wait_statuses_are_never_folded() {
        assert_eq!(WaitStatus::from_raw(0), Some(WaitStatus::Exited { code: 0 }));
        assert_eq!(WaitStatus::from_raw(137 << 8), Some(WaitStatus::Exited { code: 137 }));
        assert_eq!(WaitStatus::from_raw(9), Some(WaitStatus::Signaled { signal: 9, core: false }));
        assert_eq!(WaitStatus::from_raw(11 | 0x80), Some(WaitStatus::Signaled { signal: 11, core: true }));
        assert_eq!(WaitStatus::from_raw(0x137f), None);
    }

    #[test]
    fn unknown_is_written_as_null_and_read_back() {
        let json = serde_json::to_value(Evidence::default()).unwrap();
        assert!(json["payload"]["wait_status"].is_null());
        assert!(json["cgroup"]["cpu_us"].is_null());
        assert_eq!(serde_json::from_value::<Evidence>(json).unwrap(), Evidence::default());
    }
}
