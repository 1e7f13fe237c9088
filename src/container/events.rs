//! `events`: a container's counters, now and then, and its OOM situations as they happen.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::PollTimeout;
use schemars::JsonSchema;
use serde::Serialize;

use crate::cgroup::OomWatch;
use crate::cgroup::stats::{NetworkInterface, Stats, network_interfaces};
use crate::container::root::Root;
use crate::container::state::{Live, Record, Status, read_spec, status};
use crate::error::{At, Error, Result};
use crate::init::intel_rdt;
use crate::sys::pidfd;

/// One line of `events`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Event<'a> {
    /// `stats` or `oom`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The container's id.
    pub id: &'a str,
    /// The counters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<Stats>,
}

/// A container that is watched.
#[derive(Debug)]
pub struct Watched {
    record: Record,
    live: Live,
    /// The schemata file of its class of service.
    class: Option<intel_rdt::Class>,
}

impl Watched {
    /// Opens a container that has processes.
    ///
    /// # Errors
    /// [`Error::State`] where it has none, or does not exist.
    pub fn open(root: &Root, id: &str) -> Result<Watched> {
        let (dir, record) = root.look(id)?;
        let (now, live) = status(dir.as_fd(), &record)?;
        let Some(live) = live.filter(|_| now != Status::Stopped) else {
            return Err(Error::state(id, format!("is not running ({now})")));
        };
        let class = match &record.resctrl {
            Some(_) => {
                let spec = read_spec(dir.as_fd(), id)?;
                Some(intel_rdt::class(id, spec.linux().as_ref().and_then(|linux| linux.intel_rdt().as_ref()))?)
            }
            None => None,
        };
        Ok(Watched { record, live, class })
    }

    /// Its counters now.
    ///
    /// # Errors
    /// As `read(2)`.
    pub fn stats(&self) -> Result<Event<'_>> {
        let mut stats = self.record.cgroup.open().stats()?;
        stats.network_interfaces = self.interfaces();
        if let Some(class) = &self.class {
            let schemata = class.schemata()?;
            let lines =
                |kind| Some(schemata.lines().map(str::trim).filter(|line| line.starts_with(kind)).collect::<Vec<_>>());
            let join = |lines: Vec<&str>| (!lines.is_empty()).then(|| lines.join("\n"));
            stats.intel_rdt.l3_cache_schema = lines("L3").and_then(join);
            stats.intel_rdt.mem_bw_schema = lines("MB").and_then(join);
        }
        Ok(Event { kind: "stats", id: &self.record.id, data: Some(stats) })
    }

    /// The interfaces of a network namespace that is not the caller's.
    fn interfaces(&self) -> Option<Vec<NetworkInterface>> {
        let pid = self.live.process.pid;
        let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/net")).ok();
        if namespace(&pid.to_string())? == namespace("self")? {
            return None;
        }
        let text = std::fs::read_to_string(format!("/proc/{pid}/net/dev")).ok()?;
        // The handle vouches that the pid still was this process's.
        if pidfd::wait_end(self.live.pidfd.as_fd(), 0).unwrap_or(true) {
            return None;
        }
        Some(network_interfaces(&text)).filter(|list| !list.is_empty())
    }

    /// Says the counters every `interval` and each OOM situation when it happens, until the container's first process ends.
    ///
    /// # Errors
    /// As the calls, and what `say` returns.
    pub fn follow(&self, interval: Duration, say: &mut dyn FnMut(&Event<'_>) -> Result<()>) -> Result<()> {
        let mut oom = self.record.cgroup.open().watch_oom()?;
        let mut next = Instant::now() + interval;
        loop {
            let left = next.saturating_duration_since(Instant::now());
            // Rounded up, so that the last part of a millisecond is not spent polling.
            let timeout = PollTimeout::try_from(left + Duration::from_micros(999)).unwrap_or(PollTimeout::MAX);
            let others: Vec<_> = oom.as_ref().map(OomWatch::poll_fd).into_iter().collect();
            let ended = pidfd::wait_end_or(self.live.pidfd.as_fd(), &others, timeout);
            let ended = ended.at("poll", "the container's events")?;
            if let Some(oom) = &mut oom {
                for _ in 0..oom.take()? {
                    say(&Event { kind: "oom", id: &self.record.id, data: None })?;
                }
            }
            if ended {
                return Ok(());
            }
            if Instant::now() >= next {
                next = Instant::now() + interval;
                say(&self.stats()?)?;
            }
        }
    }
}
