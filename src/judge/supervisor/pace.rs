//! How often a running program is looked at, and what it must have done by then to be stopped: the same for the judge's own
//! sandboxes and for an engine's containers.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use super::super::limits::Limits;

/// This many refused forks within [`PIDS_WINDOW`] are abuse.
const PIDS_HITS: u64 = 2000;
const PIDS_WINDOW: Duration = Duration::from_secs(5);
/// cgroup v1 has no event for a refused fork (v2 has), so the count is looked at this often.
pub(in crate::judge) const PIDS_CHECK: Duration = Duration::from_millis(100);
/// What the memory is made of is sampled this long after the exec, and then each time after twice as long, up to
/// [`MEMORY_RARELY`]: a short program has its sample, and a long one pays next to nothing.
const MEMORY_SOON: Duration = Duration::from_millis(10);
const MEMORY_RARELY: Duration = Duration::from_secs(1);

/// The number of processors that this process may use, found out once: asking reads several files.
pub fn processors() -> usize {
    static PROCESSORS: OnceLock<usize> = OnceLock::new();
    *PROCESSORS.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from))
}

/// When the CPU time of a program is worth a look.
#[derive(Debug, Clone, Copy)]
pub(in crate::judge) struct CpuPace {
    limit_us: u64,
    processors: u64,
}

impl CpuPace {
    pub(in crate::judge) fn new(limits: &Limits) -> CpuPace {
        CpuPace {
            limit_us: (limits.cpu_time_ms + limits.extra_time_ms) * 1000,
            processors: (processors() as u64).min(limits.processes).max(1),
        }
    }

    /// Whether all of it is used up, the extra time too.
    pub(in crate::judge) fn is_over(self, used_us: u64) -> bool {
        used_us >= self.limit_us
    }

    /// How long what is left lasts at least.
    pub(in crate::judge) fn earliest(self, used_us: u64) -> Duration {
        let earliest = Duration::from_micros(self.limit_us.saturating_sub(used_us) / self.processors);
        earliest.clamp(Duration::from_millis(2), Duration::from_secs(2))
    }
}

/// The rate of refused forks.
#[derive(Debug, Clone, Copy)]
pub(in crate::judge) struct PidsWindow {
    since: Instant,
    before: u64,
}

impl PidsWindow {
    /// Begins now, with nothing counted.
    pub(in crate::judge) fn new() -> PidsWindow {
        PidsWindow { since: Instant::now(), before: 0 }
    }

    /// Told the count of refused forks now: whether no honest program has such a rate.
    pub(in crate::judge) fn is_abuse(&mut self, hits: u64) -> bool {
        if hits.saturating_sub(self.before) >= PIDS_HITS {
            return true;
        }
        if self.since.elapsed() > PIDS_WINDOW {
            *self = PidsWindow { since: Instant::now(), before: hits };
        }
        false
    }
}

/// When the make-up of the memory is sampled.
#[derive(Debug, Clone, Copy)]
pub(in crate::judge) struct MemoryPace {
    at: Instant,
    pause: Duration,
}

impl MemoryPace {
    /// From the exec on, which is now.
    pub(in crate::judge) fn new() -> MemoryPace {
        MemoryPace { at: Instant::now() + MEMORY_SOON, pause: MEMORY_SOON }
    }

    /// When the next sample is due.
    pub(in crate::judge) fn at(self) -> Instant {
        self.at
    }

    /// After a sample that was taken now.
    pub(in crate::judge) fn next(self, now: Instant) -> MemoryPace {
        let pause = (self.pause * 2).min(MEMORY_RARELY);
        MemoryPace { at: now + pause, pause }
    }
}
