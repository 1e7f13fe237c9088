//! The payload's cgroups, read: CPU time while it runs, all counters at the end, and the two events worth waking for.

use std::cell::Cell;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::eventfd::{EfdFlags, EventFd};

use super::evidence::{CgroupEvidence, MemorySplit, Oom};
use super::noise::some_total;
use super::supervisor::processors;
use crate::cgroup::{Controller, Plan, Version};
use crate::error::{At, Result};
use crate::spec::number_list;
use crate::sys::path;

/// The readings of one sandbox. The cgroups are new, so every counter is a delta since they were made; what the
/// set-up of the payload's process used is subtracted by the supervisor, who knows it.
#[derive(Debug)]
pub struct Meter {
    memory: Option<(Version, PathBuf)>,
    refusals: Refusals,
    /// `memory.max_usage_in_bytes` or `memory.peak`, opened once: on v2 a reset holds for the descriptor that made it.
    peak: Option<OwnedFd>,
    /// The peak that was forgotten.
    before: Cell<u64>,
    /// The largest usage that was seen, where the kernel keeps no peak (v2 before Linux 5.19): never too much, and less than
    /// the truth for what came and went between two samples.
    seen: Cell<u64>,
    pids_peak: Option<OwnedFd>,
    cpu: Option<(OwnedFd, Clock)>,
    oom_event: Option<EventFd>,
    pids_events: Option<OwnedFd>,
    /// `cpu.pressure` of the v2 hierarchy, which a hybrid host has too.
    pressure: Option<OwnedFd>,
    /// The `cpu` controller's, which says for how long the quota held the sandbox back.
    throttling: Option<(Version, PathBuf)>,
    cpuset: Option<PathBuf>,
}

/// What was counted before the payload, in cgroups that others have been in.
#[derive(Debug, Clone, Copy, Default)]
pub struct Baseline {
    /// CPU time, µs.
    pub cpu_us: u64,
    /// Refused forks.
    pub pids_limit_hits: u64,
    oom_kills: u64,
    local_oom: u64,
    failcnt: u64,
}

impl Baseline {
    /// Turns the counters that begin with the cgroup into deltas; the CPU time is one already.
    pub fn subtract(self, evidence: &mut CgroupEvidence) {
        let less = |counter: &mut Option<u64>, before: u64| {
            if let Some(counter) = counter {
                *counter = counter.saturating_sub(before);
            }
        };
        less(&mut evidence.pids_limit_hits, self.pids_limit_hits);
        match &mut evidence.oom {
            Oom::Unknown => {}
            Oom::V1 { kills, failcnt, .. } => {
                less(kills, self.oom_kills);
                less(failcnt, self.failcnt);
            }
            Oom::V2 { kills, local_oom } => {
                less(kills, self.oom_kills);
                less(local_oom, self.local_oom);
            }
        }
    }
}

/// A program can do something in this time.
const LATE: Duration = Duration::from_micros(500);
/// The limit is rounded down to a page, bytes.
const PAGE: u64 = 4096;
/// The largest charge that ends in an OOM kill when it is refused, bytes: 2³ pages (`PAGE_ALLOC_COSTLY_ORDER`; larger ones
/// just fail). A refused charge is not in the peak, so a peak this close to the limit has reached it: else a program that
/// charges in such steps would be taken for a victim of the host.
const LARGEST_CHARGE: u64 = 8 * PAGE;

/// What counts CPU time.
#[derive(Debug)]
enum Clock {
    /// `cpuacct.usage`, ns; `usage_user` and `usage_sys` are its parts.
    Nanoseconds { user: Option<OwnedFd>, system: Option<OwnedFd> },
    /// `usage_usec` of `cpu.stat`.
    CpuStat,
}

/// What counts charges of memory that were refused, and what came of them. Kept open, as everything that is read at the end:
/// a file is opened while init sets itself up and nobody waits for it.
#[derive(Debug)]
enum Refusals {
    Unknown,
    /// `memory.failcnt`, `memory.memsw.failcnt` where swap is accounted, `memory.oom_control`.
    V1 {
        failcnt: Option<OwnedFd>,
        with_swap: Option<OwnedFd>,
        control: OwnedFd,
    },
    /// `memory.events` and `memory.events.local`.
    V2 {
        events: Option<OwnedFd>,
        local: Option<OwnedFd>,
    },
}

impl Refusals {
    fn open(memory: Option<&(Version, PathBuf)>) -> Result<Refusals> {
        let Some((version, path)) = memory else { return Ok(Refusals::Unknown) };
        let open = |file: &str| self::open(&path.join(file));
        Ok(match version {
            Version::V1 => Refusals::V1 {
                failcnt: open("memory.failcnt").ok(),
                with_swap: open("memory.memsw.failcnt").ok(),
                control: open("memory.oom_control")?,
            },
            Version::V2 => Refusals::V2 { events: open("memory.events").ok(), local: open("memory.events.local").ok() },
        })
    }
}

impl Meter {
    /// Opens what is read while the payload runs, and registers for the OOM event. To be called when the cgroups exist
    /// and before its program starts. What the host lacks is left out: its evidence stays unknown.
    ///
    /// # Errors
    /// Where a file of a controller that is there cannot be opened.
    pub fn open(plan: &Plan) -> Result<Meter> {
        let place = |controller: Controller| {
            let directory = plan.directory(controller)?;
            let leaf = plan.payload_leaf && plan.is_unified();
            let path = if leaf { directory.path.join("payload") } else { directory.path.clone() };
            Some((directory.version, path))
        };
        let memory = place(Controller::Memory);
        let pids = place(Controller::Pids).map(|(_, path)| path);
        let cpu = match place(Controller::Cpuacct).or_else(|| place(Controller::Cpu).filter(|it| it.0 == Version::V2)) {
            Some((Version::V1, path)) => {
                let part = |file: &str| open(&path.join(file)).ok();
                let clock = Clock::Nanoseconds { user: part("cpuacct.usage_user"), system: part("cpuacct.usage_sys") };
                Some((open(&path.join("cpuacct.usage"))?, clock))
            }
            Some((Version::V2, path)) => Some((open(&path.join("cpu.stat"))?, Clock::CpuStat)),
            None => None,
        };
        let refusals = Refusals::open(memory.as_ref())?;
        let oom_event = match (&memory, &refusals) {
            (Some((_, path)), Refusals::V1 { control, .. }) => Some(oom_event(path, control.as_fd())?),
            _ => None,
        };
        let pids_events = match &pids {
            Some(path) => Some(open(&path.join("pids.events"))?),
            None => None,
        };
        let peak = memory.as_ref().and_then(|(version, path)| {
            let file = path.join(if *version == Version::V1 { "memory.max_usage_in_bytes" } else { "memory.peak" });
            path::open(&file, libc::O_RDWR).or_else(|_| path::open(&file, libc::O_RDONLY)).ok()
        });
        let pressure = plan.unified().map(|directory| {
            let leaf = plan.payload_leaf && plan.is_unified();
            directory.path.join(if leaf { "payload/cpu.pressure" } else { "cpu.pressure" })
        });
        Ok(Meter {
            refusals,
            memory,
            peak,
            before: Cell::new(0),
            seen: Cell::new(0),
            // Linux 6.1.
            pids_peak: pids.and_then(|path| open(&path.join("pids.peak")).ok()),
            cpu,
            oom_event,
            pids_events,
            // Not every kernel keeps it.
            pressure: pressure.and_then(|file| path::open(&file, libc::O_RDONLY).ok()),
            throttling: place(Controller::Cpu).map(|(version, path)| (version, path.join("cpu.stat"))),
            cpuset: place(Controller::Cpuset).map(|(version, path)| {
                path.join(if version == Version::V1 { "cpuset.effective_cpus" } else { "cpuset.cpus.effective" })
            }),
        })
    }

    /// CPU time used so far, µs.
    pub fn cpu_us(&self) -> Option<u64> {
        let (file, clock) = self.cpu.as_ref()?;
        let text = read_open(file.as_fd())?;
        match clock {
            Clock::Nanoseconds { .. } => text.trim().parse::<u64>().ok().map(|ns| ns / 1000),
            Clock::CpuStat => keyed(&text, "usage_usec"),
        }
    }

    /// Time in which a task of the sandbox was ready and did not run, µs.
    pub fn run_queue_us(&self) -> Option<u64> {
        some_total(&read_open(self.pressure.as_ref()?.as_fd())?)
    }

    /// Time for which the CPU quota has held the sandbox back, µs.
    pub fn throttled_us(&self) -> Option<u64> {
        let (version, file) = self.throttling.as_ref()?;
        let text = read(file)?;
        match version {
            Version::V1 => keyed(&text, "throttled_time").map(|ns| ns / 1000),
            Version::V2 => keyed(&text, "throttled_usec"),
        }
    }

    /// The number of processors that the sandbox can use.
    pub fn processors(&self) -> Option<u64> {
        let mask = self.cpuset.as_ref().and_then(|file| number_list::mask(read(file)?.trim()).ok());
        let count = |mask: Vec<u64>| mask.iter().map(|word| u64::from(word.count_ones())).sum();
        let own = mask.map(count).filter(|count| *count > 0);
        own.or_else(|| Some(processors() as u64))
    }

    /// How often a fork has failed for the pids limit.
    pub fn pids_limit_hits(&self) -> Option<u64> {
        keyed(&read_open(self.pids_events.as_ref()?.as_fd())?, "max")
    }

    /// Has a `POLLPRI` event when the pids limit was hit.
    pub fn pids_events(&self) -> Option<BorrowedFd<'_>> {
        self.pids_events.as_ref().map(AsFd::as_fd)
    }

    /// Forgets the peak of the set-up, so long after the exec. Where the kernel cannot (v2 before 6.12), or where it is so
    /// late that the peak may be the program's, the peak reported includes it.
    pub fn reset_peak(&self, after: Duration) {
        if let Some(peak) = self.peak.as_ref().filter(|_| after < LATE) {
            self.before.set(self.peak().unwrap_or(0));
            let _ = nix::sys::uio::pwrite(peak, b"0", 0);
        }
    }

    /// The current make-up of the memory charge.
    pub fn memory_split(&self, at_us: u64) -> Option<MemorySplit> {
        self.look();
        let (version, path) = self.memory.as_ref()?;
        let text = read(&path.join("memory.stat"))?;
        let get = |v1: &str, v2: &str| keyed(&text, if *version == Version::V1 { v1 } else { v2 });
        // On v1 `cache` counts shmem too.
        let shmem = get("shmem", "shmem")?;
        let file = get("cache", "file")?.saturating_sub(shmem);
        Some(MemorySplit { anon: get("rss", "anon")?, file, shmem, at_us })
    }

    /// The counters as they are before the payload runs.
    pub fn baseline(&self) -> Baseline {
        let (oom_kills, local_oom, failcnt) = match self.oom(u64::MAX) {
            Oom::Unknown => (None, None, None),
            Oom::V1 { kills, failcnt, .. } => (kills, None, failcnt),
            Oom::V2 { kills, local_oom } => (kills, local_oom, None),
        };
        Baseline {
            cpu_us: self.cpu_us().unwrap_or(0),
            pids_limit_hits: self.pids_limit_hits().unwrap_or(0),
            oom_kills: oom_kills.unwrap_or(0),
            local_oom: local_oom.unwrap_or(0),
            failcnt: failcnt.unwrap_or(0),
        }
    }

    /// All counters. To be called when the payload has ended and before the cgroups are removed.
    pub fn read(&self, setup_cpu_us: u64, memory_limit: u64) -> CgroupEvidence {
        let (cpu_user_us, cpu_system_us) = self.cpu_split();
        CgroupEvidence {
            cpu_us: self.cpu_us().map(|us| us.saturating_sub(setup_cpu_us)),
            cpu_user_us,
            cpu_system_us,
            memory_peak_bytes: self.peak(),
            oom: self.oom(memory_limit),
            pids_limit_hits: self.pids_limit_hits(),
            pids_peak: number(self.pids_peak.as_ref()),
            memory_split: None,
        }
    }

    fn cpu_split(&self) -> (Option<u64>, Option<u64>) {
        match &self.cpu {
            Some((_, Clock::Nanoseconds { user, system })) => {
                let us = |file: &Option<OwnedFd>| number(file.as_ref()).map(|ns| ns / 1000);
                (us(user), us(system))
            }
            Some((stat, Clock::CpuStat)) => {
                let text = read_open(stat.as_fd()).unwrap_or_default();
                (keyed(&text, "user_usec"), keyed(&text, "system_usec"))
            }
            None => (None, None),
        }
    }

    fn peak(&self) -> Option<u64> {
        if let Some(peak) = &self.peak {
            return read_open(peak.as_fd())?.trim().parse().ok();
        }
        self.look();
        Some(self.seen.get()).filter(|bytes| *bytes > 0)
    }

    /// Looks at the usage where the kernel keeps no peak.
    fn look(&self) {
        if let (None, Some((Version::V2, path))) = (&self.peak, &self.memory) {
            let now = read(&path.join("memory.current")).and_then(|text| text.trim().parse().ok()).unwrap_or(0);
            self.seen.set(self.seen.get().max(now));
        }
    }

    fn oom(&self, memory_limit: u64) -> Oom {
        let count = |file: Option<&OwnedFd>, key: &str| keyed(&read_open(file?.as_fd())?, key);
        match &self.refusals {
            Refusals::Unknown => Oom::Unknown,
            Refusals::V1 { failcnt, with_swap, control } => {
                // Without accounting of swap memory.failcnt alone counts.
                let with_swap = number(with_swap.as_ref()).unwrap_or(0);
                Oom::V1 {
                    kills: count(Some(control), "oom_kill"),
                    event_fired: self.oom_event.as_ref().map(|event| event.read().is_ok_and(|count| count > 0)),
                    failcnt: number(failcnt.as_ref()).map(|count| count + with_swap),
                    // The program may have been quicker than its supervisor.
                    peak_at_limit: self
                        .peak()
                        .map(|peak| peak.max(self.before.get()) + LARGEST_CHARGE + PAGE > memory_limit),
                }
            }
            Refusals::V2 { events, local } => {
                Oom::V2 { kills: count(events.as_ref(), "oom_kill"), local_oom: count(local.as_ref(), "oom") }
            }
        }
    }
}

/// cgroup v1: an eventfd that counts OOM situations in the cgroup or an ancestor
/// (`admin-guide/cgroup-v1/memory`, section 10).
fn oom_event(directory: &Path, control: BorrowedFd<'_>) -> Result<EventFd> {
    let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).at("make", "an eventfd")?;
    let line = format!("{} {}", event.as_fd().as_raw_fd(), control.as_raw_fd());
    let name = directory.join("cgroup.event_control");
    let file = path::open(&name, libc::O_WRONLY).at("open", name.display())?;
    path::write_once(file.as_fd(), line.as_bytes()).at("write to", name.display())?;
    Ok(event)
}

fn open(file: &Path) -> Result<OwnedFd> {
    path::open(file, libc::O_RDONLY).at("open", file.display())
}

/// The whole of a small file that is kept open, from its beginning.
pub(super) fn read_open(file: BorrowedFd<'_>) -> Option<String> {
    let mut buffer = [0u8; 1024];
    let length = nix::sys::uio::pread(file, &mut buffer, 0).ok()?;
    String::from_utf8(buffer[..length].to_vec()).ok()
}

fn read(file: &Path) -> Option<String> {
    std::fs::read_to_string(file).ok()
}

fn number(file: Option<&OwnedFd>) -> Option<u64> {
    read_open(file?.as_fd())?.trim().parse().ok()
}

/// The value of `key` in lines of `key value`.
fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_whole_words() {
        let text = "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n";
        assert_eq!(keyed(text, "oom_kill"), Some(3));
        assert_eq!(keyed(text, "oom"), None);
        assert_eq!(keyed("", "max"), None);
    }

    #[test]
    fn what_the_host_lacks_is_unknown() {
        let meter = Meter::open(&Plan::default()).unwrap();
        let evidence = meter.read(0, 0);
        assert_eq!((evidence.cpu_us, evidence.oom, evidence.pids_limit_hits), (None, Oom::Unknown, None));
    }
}
