//! The worker's standing, which survives commands and reboots: healthy, unhealthy, quarantined.
//!
//! | file of the state directory | holds |
//! |---|---|
//! | `health.json` | why the worker is not healthy; there is none while it is, so that asking costs one `open(2)` |
//! | `history.jsonl` | every change, one JSON object a line, appended |
//!
//! Changes take turns by a lock on the directory. The state is replaced by rename and brought to disk first; a quarantine is
//! in effect before the history says so, and lifted after.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::error::{At, Error, Result};
use crate::sys::path;
use crate::worker::metrics::{self, Quarantine};

/// The layout that this program writes; another one is refused.
const SCHEMA_VERSION: u32 = 1;
/// So many failed cleanups in a row quarantine the worker.
pub const CLEANUP_FAILURES: u32 = 3;
const STATE: &str = "health.json";
const HISTORY: &str = "history.jsonl";

/// Whether the worker can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It can.
    Healthy,
    /// Something is wrong; it still takes work.
    Unhealthy,
    /// It takes no work.
    Quarantined,
}

/// Why a worker is not healthy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// Version of this layout.
    pub schema_version: u32,
    /// Never healthy: then there is no state.
    pub status: Status,
    /// In words.
    pub reason: String,
    /// Since when, RFC 3339.
    pub since: String,
    /// No operator has said so.
    pub automatic: bool,
    /// Failed cleanups in a row.
    pub cleanup_failures: u32,
    /// What the last one left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_cleanup_error: Option<String>,
}

/// One line of the history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// When, RFC 3339.
    pub time: String,
    /// The status before.
    pub from: Status,
    /// The status after.
    pub to: Status,
    /// In words.
    pub reason: String,
    /// What was seen, where something was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<String>,
    /// `operator` or `automatic`.
    pub by: String,
}

/// The directory that holds a worker's standing.
#[derive(Debug, Clone)]
pub struct Standing {
    directory: PathBuf,
}

impl Standing {
    /// That of this directory, which need not exist.
    pub fn new(directory: PathBuf) -> Standing {
        Standing { directory }
    }

    /// Why the worker is not healthy; `None` where it is.
    ///
    /// # Errors
    /// Where the state is there and cannot be understood: never taken for healthy.
    pub fn state(&self) -> Result<Option<State>> {
        let file = self.directory.join(STATE);
        let text = match std::fs::read(&file) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            text => text.at("read", file.display())?,
        };
        let state: State = serde_json::from_slice(&text)
            .map_err(|error| Error::Other(format!("`{}` cannot be understood: {error}", file.display())))?;
        if state.schema_version != SCHEMA_VERSION {
            let version = state.schema_version;
            return Err(Error::Other(format!(
                "`{}` is of version {version}, this is {SCHEMA_VERSION}",
                file.display()
            )));
        }
        Ok(Some(state))
    }

    /// Lets work in. Whether the worker is healthy: where it is not, a cleanup that succeeds is to be counted.
    ///
    /// # Errors
    /// [`Error::Quarantined`] where the worker is quarantined, or it cannot be told whether it is.
    pub fn admit(&self) -> Result<bool> {
        match self.state() {
            Ok(Some(state)) if state.status == Status::Quarantined => {
                Err(Error::Quarantined(format!("since {}: {}", state.since, state.reason)))
            }
            Ok(state) => Ok(state.is_none()),
            Err(error) => Err(Error::Quarantined(error.to_string())),
        }
    }

    /// Quarantines the worker on an operator's word.
    ///
    /// # Errors
    /// What the file system answers.
    pub fn quarantine(&self, reason: &str) -> Result<()> {
        let _turn = self.lock()?;
        let before = self.state().unwrap_or(None);
        let (failures, last) =
            before.as_ref().map_or((0, None), |it| (it.cleanup_failures, it.last_cleanup_error.clone()));
        self.enter(before.as_ref(), Status::Quarantined, reason, false, (failures, last))
    }

    /// Ends any quarantine on an operator's word, and replaces a state that cannot be understood.
    ///
    /// # Errors
    /// What the file system answers.
    pub fn unquarantine(&self, reason: &str) -> Result<()> {
        let _turn = self.lock()?;
        match self.state() {
            Ok(None) => Ok(()),
            Ok(Some(state)) => self.leave(state.status, reason, None, "operator"),
            Err(error) => self.leave(Status::Quarantined, reason, Some(error.to_string()), "operator"),
        }
    }

    /// Counts a failed cleanup; enough of them in a row quarantine the worker.
    ///
    /// # Errors
    /// What the file system answers.
    pub fn cleanup_failed(&self, left: &str) -> Result<()> {
        let _turn = self.lock()?;
        let before = self.state()?;
        let failures = before.as_ref().map_or(0, |state| state.cleanup_failures) + 1;
        let enough = failures >= CLEANUP_FAILURES;
        if let Some(state) = &before
            && (state.status == Status::Quarantined || !enough)
        {
            let last_cleanup_error = Some(left.to_owned());
            return self.write(&State { cleanup_failures: failures, last_cleanup_error, ..state.clone() });
        }
        let (status, reason) = match enough {
            true => (Status::Quarantined, format!("{failures} cleanups in a row have failed")),
            false => (Status::Unhealthy, "a cleanup has failed".to_owned()),
        };
        self.enter(before.as_ref(), status, &reason, true, (failures, Some(left.to_owned())))
    }

    /// A cleanup has succeeded: failures before it are no longer in a row. Does not lift a quarantine.
    ///
    /// # Errors
    /// What the file system answers.
    pub fn cleanup_succeeded(&self) -> Result<()> {
        // The healthy worker's only cost.
        if self.state()?.is_none() {
            return Ok(());
        }
        let _turn = self.lock()?;
        match self.state()? {
            Some(state) if state.status == Status::Unhealthy => {
                self.leave(state.status, "a cleanup has succeeded", None, "automatic")
            }
            _ => Ok(()),
        }
    }

    /// The changes, oldest first, and the number of lines that cannot be understood.
    ///
    /// # Errors
    /// As `read(2)`.
    pub fn history(&self) -> Result<(Vec<Change>, usize)> {
        let file = self.directory.join(HISTORY);
        let text = match std::fs::read(&file) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok((Vec::new(), 0)),
            text => text.at("read", file.display())?,
        };
        let lines: Vec<_> = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
        let changes: Vec<Change> = lines.iter().filter_map(|line| serde_json::from_slice(line).ok()).collect();
        let broken = lines.len() - changes.len();
        Ok((changes, broken))
    }

    fn enter(
        &self,
        before: Option<&State>,
        status: Status,
        reason: &str,
        automatic: bool,
        (cleanup_failures, last_cleanup_error): (u32, Option<String>),
    ) -> Result<()> {
        let since = now()?;
        let from = before.map_or(Status::Healthy, |state| state.status);
        let evidence = last_cleanup_error.clone().filter(|_| automatic);
        self.write(&State {
            schema_version: SCHEMA_VERSION,
            status,
            reason: reason.to_owned(),
            since: since.clone(),
            automatic,
            cleanup_failures,
            last_cleanup_error,
        })?;
        if status == Status::Quarantined {
            metrics::quarantined(if automatic { Quarantine::CleanupFailures } else { Quarantine::Operator });
        }
        let by = if automatic { "automatic" } else { "operator" };
        self.append(&Change { time: since, from, to: status, reason: reason.to_owned(), evidence, by: by.to_owned() })
    }

    fn leave(&self, from: Status, reason: &str, evidence: Option<String>, by: &str) -> Result<()> {
        let (reason, by) = (reason.to_owned(), by.to_owned());
        self.append(&Change { time: now()?, from, to: Status::Healthy, reason, evidence, by })?;
        let file = self.directory.join(STATE);
        std::fs::remove_file(&file).at("remove", file.display())?;
        self.sync()
    }

    /// Replaces the state, whole or not at all.
    fn write(&self, state: &State) -> Result<()> {
        let text = serde_json::to_vec(state).map_err(|error| Error::Other(format!("serialise the health: {error}")))?;
        let (new, file) = (self.directory.join("health.json.new"), self.directory.join(STATE));
        std::fs::File::create(&new)
            .and_then(|mut out| out.write_all(&text).and_then(|()| out.sync_all()))
            .at("write", new.display())?;
        std::fs::rename(&new, &file).at("replace", file.display())?;
        self.sync()
    }

    fn append(&self, change: &Change) -> Result<()> {
        let file = self.directory.join(HISTORY);
        let mut line =
            serde_json::to_vec(change).map_err(|error| Error::Other(format!("serialise the history: {error}")))?;
        line.push(b'\n');
        // A line that a crash has cut short spoils itself only.
        if std::fs::read(&file).is_ok_and(|text| text.last().is_some_and(|last| *last != b'\n')) {
            line.insert(0, b'\n');
        }
        std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&file)
            .and_then(|mut out| out.write_all(&line).and_then(|()| out.sync_data()))
            .at("append to", file.display())
    }

    fn sync(&self) -> Result<()> {
        let place = self.directory.display();
        std::fs::File::open(&self.directory).and_then(|directory| directory.sync_all()).at("sync", place)
    }

    fn lock(&self) -> Result<Flock<OwnedFd>> {
        let place: &Path = &self.directory;
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(place).at("make", place.display())?;
        let directory = path::open(place, libc::O_RDONLY | libc::O_DIRECTORY).at("open", place.display())?;
        Flock::lock(directory, FlockArg::LockExclusive).map_err(|(_, errno)| errno).at("lock", place.display())
    }
}

fn now() -> Result<String> {
    use time::format_description::well_known::Rfc3339;
    let now = time::OffsetDateTime::now_utc().format(&Rfc3339);
    now.map_err(|error| Error::Other(format!("format the time: {error}")))
}
