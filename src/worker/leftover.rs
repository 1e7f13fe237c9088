//! One thing that a dead command has left.

use std::path::Path;
use std::time::SystemTime;

use schemars::JsonSchema;
use serde::Serialize;

use crate::container::identity::ProcessId;

/// What kind of thing was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A process that has left its container's cgroups and outlived its first process.
    Process,
    /// A mount below the state root.
    Mount,
    /// A container, with everything on its record.
    Container,
    /// A state directory without a record: nothing but itself was left of its container.
    EmptyState,
    /// A container's directory whose record cannot be read: only a person can tell what it means.
    UnreadableState,
    /// A hook whose runtime is dead.
    Hook,
    /// The monitor of a judged container, which runs on without its time limits.
    Monitor,
    /// A state directory that was never published.
    HalfWritten,
    /// The files of a judged sandbox.
    Stage,
    /// The host ids of a judged sandbox.
    Ids,
    /// The cores of a batch.
    Cores,
    /// A cgroup of a judged sandbox without a record.
    Cgroup,
    /// A temporary file of the filter cache.
    Temporary,
}

/// One thing that was left, and what is known of its owner.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Leftover {
    /// What it is.
    pub kind: Kind,
    /// Its path, or the container's id.
    pub name: String,
    /// Why it is stale.
    pub reason: String,
    /// The container or sandbox it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// The process that made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<ProcessId>,
    /// Seconds since it was made or last changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age_s: Option<u64>,
}

impl Leftover {
    pub(super) fn new(kind: Kind, name: impl std::fmt::Display, reason: impl Into<String>) -> Leftover {
        Leftover { kind, name: name.to_string(), reason: reason.into(), owner: None, process: None, age_s: None }
    }

    pub(super) fn of(self, owner: &str, process: Option<ProcessId>) -> Leftover {
        Leftover { owner: Some(owner.to_owned()), process, ..self }
    }

    pub(super) fn aged(self, path: &Path) -> Leftover {
        let changed = std::fs::symlink_metadata(path).and_then(|metadata| metadata.modified()).ok();
        let age = changed.and_then(|time| SystemTime::now().duration_since(time).ok());
        Leftover { age_s: age.map(|age| age.as_secs()), ..self }
    }
}

/// `kind `name`: why it is stale`, with its owner and age.
impl std::fmt::Display for Leftover {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = serde_json::to_value(self.kind).unwrap_or_default();
        write!(f, "{} `{}`: {}", kind.as_str().unwrap_or_default(), self.name, self.reason)?;
        if let Some(owner) = self.owner.as_ref().filter(|owner| **owner != self.name) {
            write!(f, "; of `{owner}`")?;
        }
        match self.process {
            Some(process) if self.kind == Kind::Process => write!(f, "; start time {}", process.start_time)?,
            Some(process) => write!(f, "; made by process {} (start time {})", process.pid, process.start_time)?,
            None => {}
        }
        self.age_s.map_or(Ok(()), |age| write!(f, "; {age} s old"))
    }
}
