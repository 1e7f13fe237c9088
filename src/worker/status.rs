//! The words of a worker's standing: contracts of the JSON, the history and the metrics.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Whether the worker can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It can.
    Healthy,
    /// Something is wrong; it still takes work.
    Unhealthy,
    /// It takes no work.
    Quarantined,
}

impl Status {
    /// The word that is printed.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Healthy => "healthy",
            Status::Unhealthy => "unhealthy",
            Status::Quarantined => "quarantined",
        }
    }
}

/// What made a worker not healthy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Cleanups in a row were not proved.
    CleanupFailures,
    /// A process outlived its container's release.
    OrphanProcess,
    /// A canary came to another verdict than it must.
    Baseline,
    /// Disk, inodes, memory, descriptors or pids have run out.
    Resources,
    /// An operator has said so.
    Operator,
}

impl Cause {
    /// Every cause.
    pub const ALL: [Cause; 5] =
        [Cause::CleanupFailures, Cause::OrphanProcess, Cause::Baseline, Cause::Resources, Cause::Operator];

    /// The word that is printed, and that a metric's label has.
    pub fn as_str(self) -> &'static str {
        match self {
            Cause::CleanupFailures => "cleanup_failures",
            Cause::OrphanProcess => "orphan_process",
            Cause::Baseline => "baseline",
            Cause::Resources => "resources",
            Cause::Operator => "operator",
        }
    }
}
