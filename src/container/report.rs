//! A container's state as the runtime specification prints it: for `state`, `list` and hooks.

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::container::state::{self, Record, Status};
use crate::error::Result;
use crate::judge::monitor;

/// The state of the runtime specification ("State"), with the additions that runc's callers know.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Report {
    /// Version of the runtime specification.
    #[serde(rename = "ociVersion")]
    pub oci_version: String,
    /// The container's id.
    pub id: String,
    /// Pid of its first process as the runtime sees it; 0 where it has none.
    pub pid: libc::pid_t,
    /// Its status.
    pub status: Status,
    /// Absolute path of its bundle.
    pub bundle: PathBuf,
    /// Absolute path of its root filesystem.
    pub rootfs: PathBuf,
    /// When it was created, RFC 3339.
    pub created: String,
    /// Annotations of its configuration.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Name or number of the user who created it.
    pub owner: String,
}

impl Report {
    /// The report of a recorded container in the status given.
    pub fn new(record: &Record, status: Status, pid: libc::pid_t) -> Report {
        Report {
            oci_version: record.oci_version.clone(),
            id: record.id.clone(),
            pid: if status == Status::Stopped { 0 } else { pid },
            status,
            bundle: record.bundle.clone(),
            rootfs: record.rootfs.clone(),
            created: record.created.clone(),
            annotations: record.annotations.clone(),
            owner: if record.owner == 0 { "root".to_owned() } else { record.owner.to_string() },
        }
    }

    /// The report of a container as it is now.
    ///
    /// # Errors
    /// As [`state::status`].
    pub fn of(dir: BorrowedFd<'_>, record: &Record) -> Result<Report> {
        let (status, live) = state::status(dir, record)?;
        let mut report = Report::new(record, status, live.map_or(0, |live| live.process.pid));
        report.annotations.extend(monitor::annotations(dir, record)?);
        Ok(report)
    }

    /// The report as a JSON value.
    pub fn value(&self) -> serde_json::Value {
        // A structure of strings and numbers always serialises.
        serde_json::to_value(self).unwrap_or_default()
    }

    /// The JSON text that a hook reads from its standard input.
    pub fn for_hooks(record: &Record, status: Status, pid: libc::pid_t) -> Vec<u8> {
        Report { pid, ..Report::new(record, status, pid) }.value().to_string().into_bytes()
    }
}
