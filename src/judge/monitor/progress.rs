//! How far a judged container that runs has come.

use schemars::JsonSchema;
use serde::Serialize;

use crate::cgroup::Controller;
use crate::container::state::Record;
use crate::error::Result;
use crate::judge::limits::Limits;
use crate::judge::output::SCHEMA_VERSION;
use crate::sys::wait;

/// How far a container that runs has come.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Progress {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The container's id.
    pub id: String,
    /// It runs: there is no verdict yet.
    pub running: bool,
    /// CPU time so far, ms; `null`: unknown.
    pub cpu_time_ms: Option<f64>,
    /// Wall time since the exec, ms.
    pub wall_time_ms: f64,
    /// Memory charged now, bytes; `null`: unknown.
    pub memory_bytes: Option<u64>,
    /// Processes and threads now; `null`: unknown.
    pub processes: Option<u64>,
    /// The limits that hold.
    pub limits: Limits,
}

impl Progress {
    pub(super) fn read(record: &Record, limits: Limits, exec_ns: u64, setup_cpu_us: u64) -> Result<Progress> {
        let stats = record.cgroup.open().stats()?;
        let has = |controller| record.cgroup.directory(controller).is_some();
        let cpu_us = (stats.cpu.usage.total / 1000).saturating_sub(setup_cpu_us);
        Ok(Progress {
            schema_version: SCHEMA_VERSION,
            id: record.id.clone(),
            running: true,
            cpu_time_ms: Some(cpu_us as f64 / 1000.0).filter(|_| has(Controller::Cpuacct) || has(Controller::Cpu)),
            wall_time_ms: wait::monotonic_ns().saturating_sub(exec_ns) as f64 / 1e6,
            memory_bytes: Some(stats.memory.usage.usage).filter(|_| has(Controller::Memory)),
            processes: Some(stats.pids.current).filter(|_| has(Controller::Pids)),
            limits,
        })
    }
}
