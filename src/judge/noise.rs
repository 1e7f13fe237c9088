//! How disturbed a run was: by whom it had to wait for a processor, and whether that may have cost it its verdict.
//!
//! Noise never changes a verdict. It can mark one as worth another try: where a program has exceeded a time limit by so
//! little that its own waiting explains it, and it cannot have been waiting for itself.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::OnceLock;

use super::cause::{Cause, Status};
use super::evidence::{Evidence, Noise};
use super::limits::Limits;
use super::meter::{Meter, read_open};
use super::verdict::Verdict;
use crate::sys::path;

/// A share of the wall limit, 1/10: a program that has waited for less was over the limit by its own doing.
const WALL_SHARE: u64 = 10;
/// A share of the wall time, 1/4: whoever waits for as long shares the caches of a processor with others.
const CPU_SHARE: u64 = 4;
/// CPU time this close to its limit, 1/10 above, may be less on a quiet machine.
const CPU_EXCESS: u64 = 10;

/// The counters of disturbance at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Counters {
    /// `some total` of the machine's CPU, memory and I/O pressure, µs.
    machine: [Option<u64>; 3],
    run_queue_us: Option<u64>,
    throttled_us: Option<u64>,
}

/// The machine's pressure files, kept open: each run reads them twice.
static MACHINE: OnceLock<[Option<OwnedFd>; 3]> = OnceLock::new();

impl Counters {
    /// Now.
    pub fn read(meter: &Meter) -> Counters {
        let open =
            |resource: &str| path::open(Path::new("/proc/pressure").join(resource).as_path(), libc::O_RDONLY).ok();
        let files = MACHINE.get_or_init(|| ["cpu", "memory", "io"].map(open));
        let machine = files.each_ref().map(|file| some_total(&read_open(file.as_ref()?.as_fd())?));
        Counters { machine, run_queue_us: meter.run_queue_us(), throttled_us: meter.throttled_us() }
    }

    /// What has been since.
    pub fn since(self, meter: &Meter) -> Noise {
        let now = Counters::read(meter);
        let delta = |now: Option<u64>, before: Option<u64>| Some(now?.saturating_sub(before?));
        let machine = |index: usize| delta(now.machine[index], self.machine[index]);
        Noise {
            run_queue_us: delta(now.run_queue_us, self.run_queue_us),
            throttled_us: delta(now.throttled_us, self.throttled_us),
            cpu_pressure_us: machine(0),
            memory_pressure_us: machine(1),
            io_pressure_us: machine(2),
            processors: meter.processors(),
        }
    }
}

/// The `total` of the line `some` of a pressure file, µs (`accounting/psi`).
pub fn some_total(text: &str) -> Option<u64> {
    let some = text.lines().next()?.strip_prefix("some ")?;
    some.split(' ').find_map(|word| word.strip_prefix("total="))?.parse().ok()
}

/// Marks the verdict where noise may have decided it.
pub fn mark(verdict: &mut Verdict, evidence: &Evidence, limits: &Limits) {
    if let Some(waited_us) = decisive(verdict, evidence, limits) {
        verdict.retryable = true;
        let words = format!("it waited {} ms for a processor: worth another try", waited_us / 1000);
        verdict.detail = Some(match verdict.detail.take() {
            Some(detail) => format!("{detail}; {words}"),
            None => words,
        });
    }
}

/// How long the program waited for a processor, µs, where that may have cost it the verdict.
fn decisive(verdict: &Verdict, evidence: &Evidence, limits: &Limits) -> Option<u64> {
    if verdict.status != Status::Tle {
        return None;
    }
    let noise = &evidence.noise;
    let (waited, wall) = (noise.run_queue_us?, evidence.payload.wall_us?);
    // More tasks than processors wait for each other.
    if evidence.cgroup.pids_peak? > noise.processors? {
        return None;
    }
    let wall_limit = limits.wall_time_ms.saturating_mul(1000);
    let cpu_limit = limits.cpu_time_ms.saturating_mul(1000);
    let decisive = match verdict.cause {
        Cause::TleWallJudge => waited >= wall_limit / WALL_SHARE && wall.saturating_sub(waited) <= wall_limit,
        Cause::TleCpuJudge | Cause::TleCpuKernel => {
            let cpu = evidence.cgroup.cpu_us.or(evidence.payload.rusage_cpu_us)?;
            waited >= wall / CPU_SHARE && cpu <= cpu_limit + cpu_limit / CPU_EXCESS
        }
        _ => false,
    };
    decisive.then_some(waited)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::evidence::{CgroupEvidence, Kill, KillCause, Oom, Payload, WaitStatus};
    use crate::judge::verdict::classify;

    /// A program that was killed at its wall or CPU limit of a second, having waited for so long.
    fn killed(cause: KillCause, wall_us: u64, cpu_us: u64, waited_us: Option<u64>, tasks: u64) -> Verdict {
        let evidence = Evidence {
            payload: Payload {
                wait_status: Some(WaitStatus::Signaled { signal: 9, core: false }),
                wall_us: Some(wall_us),
                ..Payload::default()
            },
            kill: Some(Kill { cause, at_us: Some(wall_us), pids_limit_hits: Some(0) }),
            cgroup: CgroupEvidence {
                cpu_us: Some(cpu_us),
                pids_limit_hits: Some(0),
                pids_peak: Some(tasks),
                oom: Oom::V2 { kills: Some(0), local_oom: Some(0) },
                ..CgroupEvidence::default()
            },
            noise: Noise { run_queue_us: waited_us, processors: Some(2), ..Noise::default() },
            monitored: true,
            ..Evidence::default()
        };
        let limits = Limits { cpu_time_ms: 1000, wall_time_ms: 1000, ..Limits::default() };
        classify(&evidence, &limits)
    }

    #[test]
    fn only_waiting_that_explains_the_excess_makes_a_verdict_retryable() {
        use KillCause::{CpuTime, WallTime};
        for (cause, wall_us, cpu_us, waited_us, tasks, retryable) in [
            (WallTime, 1_001_000, 500_000, Some(400_000), 1, true),
            (WallTime, 1_001_000, 500_000, Some(90_000), 1, false),
            // Killed with a second of extra time: its own excess is more than it has waited.
            (WallTime, 2_000_000, 500_000, Some(400_000), 1, false),
            (WallTime, 1_001_000, 500_000, Some(400_000), 3, false),
            (WallTime, 1_001_000, 500_000, None, 1, false),
            (CpuTime, 2_000_000, 1_002_000, Some(900_000), 1, true),
            (CpuTime, 1_010_000, 1_002_000, Some(5_000), 1, false),
            (CpuTime, 3_000_000, 1_500_000, Some(900_000), 1, false),
        ] {
            let verdict = killed(cause, wall_us, cpu_us, waited_us, tasks);
            assert_eq!(verdict.status, Status::Tle);
            assert_eq!(verdict.retryable, retryable, "{cause:?} {wall_us} {cpu_us} {waited_us:?} {tasks}");
            assert_eq!(verdict.detail.is_some(), retryable);
        }
    }

    #[test]
    fn the_total_of_a_pressure_file_is_that_of_some() {
        let text =
            "some avg10=0.00 avg60=0.00 avg300=0.00 total=12345\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=1\n";
        assert_eq!(some_total(text), Some(12345));
        assert_eq!(some_total(""), None);
    }
}
