//! Metrics: what commands count for the operator's monitoring, without a daemon.
//!
//! A command says where it counts ([`count_in`]); the modules that see something happen add it, by one of the functions
//! here, to a file that all commands share ([`file`]). Nothing that goes wrong with that fails a command: it is counted
//! nowhere, and [`trouble`] says why, once. Who names no place counts nothing.

mod exposition;
pub mod file;
pub mod serve;
pub mod table;

use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use self::file::Trouble;
use self::table::{Kind, Metric};
use crate::cleanup::Proof;
use crate::judge::output::{Judgement, Step};
use crate::judge::verdict::Cause;
use crate::sys::words::Words;
use crate::worker::standing;
pub use exposition::{Format, Now, expose};

static PLACE: OnceLock<Box<dyn Fn() -> PathBuf + Send + Sync>> = OnceLock::new();
static COUNTS: OnceLock<Result<Words, Trouble>> = OnceLock::new();

/// Says in which file this process counts. Only the first call has an effect; the file is asked for at the first count.
pub fn count_in(file: impl Fn() -> PathBuf + Send + Sync + 'static) {
    let _ = PLACE.set(Box::new(file));
}

/// Why nothing was counted, where something was to be.
pub fn trouble() -> Option<&'static Trouble> {
    COUNTS.get().and_then(|counts| counts.as_ref().err())
}

/// Counts the start of a program, by what it took from the begin of `run`, or from the opening of its gate.
pub fn started(took: Duration) {
    observe(&table::START_LATENCY, u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
}

/// Counts a release by its proof: what has outlived the container, and what was found outside of it.
pub fn released(proof: &Proof) {
    add(&table::CLEANUP, if proof.clean { "success" } else { "failure" }, 1);
    observe(&table::CLEANUP_DURATION, proof.took_us);
    if !proof.processes_dead {
        orphans(proof.orphans.len().max(1) as u64);
    }
    let outside = proof.orphans.len() as u64 + u64::from(!proof.mounts_gone);
    if outside > 0 {
        contained_not(outside);
    }
}

/// Counts processes that have outlived what they belong to.
pub fn orphans(count: u64) {
    add(&table::ORPHANS, "", count);
}

/// Counts things of a container that were found outside of it.
pub fn contained_not(count: u64) {
    add(&table::CONTAINMENT, "", count);
}

/// Counts a quarantine by what it is for.
pub fn quarantined(cause: standing::Cause) {
    add(&table::QUARANTINE, cause.as_str(), 1);
}

/// Counts a judged run by its verdict.
pub fn judged(judgement: &Judgement) {
    let run = &judgement.run;
    add(&table::EXECUTIONS, "", 1);
    add(&table::BY_STATUS, run.status.as_str(), 1);
    add(&table::BY_CAUSE, &word(run.cause), 1);
    add(&table::BY_ACTOR, &word(run.actor), 1);
    if let Some(wall_us) = run.evidence.payload.wall_us {
        observe(&table::EXECUTION_DURATION, wall_us);
    }
    // What comes from the cache was counted when it was made.
    let compiled = judgement.compile.iter().filter(|compile| !compile.cached).map(|compile| &compile.step);
    let steps = || std::iter::once(run).chain(compiled.clone());
    steps().for_each(ended);
    // Where the compile step is all there was, the run step's evidence holds nothing.
    let degraded = steps().map(|step| &step.evidence.control_degraded);
    for control in degraded.max_by_key(|degraded| degraded.len()).into_iter().flatten() {
        add(&table::CONTROL_DEGRADED, control, 1);
    }
}

/// Counts the limit or the abuse that has ended a step.
fn ended(step: &Step) {
    let (metric, value) = match step.cause {
        Cause::TleCpuJudge | Cause::TleCpuKernel => (&table::LIMIT_VIOLATIONS, "cpu"),
        Cause::TleWallJudge => (&table::LIMIT_VIOLATIONS, "wall"),
        Cause::MleKernelOom | Cause::MleExec => (&table::LIMIT_VIOLATIONS, "memory"),
        Cause::OleOutput => (&table::LIMIT_VIOLATIONS, "output"),
        Cause::FseLimitExceeded => (&table::LIMIT_VIOLATIONS, "file_size"),
        Cause::PleCgroupPids => (&table::LIMIT_VIOLATIONS, "processes"),
        Cause::AbusePidsRate => (&table::ABUSE, "pids_rate"),
        _ => return,
    };
    add(metric, value, 1);
}

/// As it is written in the JSON of a verdict.
fn word(value: impl serde::Serialize) -> String {
    let value = serde_json::to_value(value).unwrap_or_default();
    value.as_str().unwrap_or_default().to_owned()
}

/// The file, opened once.
fn counts() -> Option<&'static Words> {
    let place = PLACE.get()?;
    COUNTS.get_or_init(|| file::open(&place())).as_ref().ok()
}

fn add(metric: &Metric, value: &str, amount: u64) {
    // What has no word is a value that the table lacks: its tests hold it against the words of the verdicts.
    if let (Some(counts), Some(index)) = (counts(), metric.word(value)) {
        counts.add(index, amount);
    }
}

fn observe(metric: &Metric, us: u64) {
    if let (Some(counts), Kind::Histogram(words, bounds)) = (counts(), &metric.kind) {
        counts.add(words.start + bounds.partition_point(|bound| *bound < us), 1);
        counts.add(words.start + bounds.len() + 1, us);
    }
}
