//! The worker's standing, which survives commands and reboots: healthy, unhealthy, quarantined.
//!
//! The files are those of [`super::store`]. A quarantine is in effect before the history says so, and lifted after; a change
//! that a crash has kept from the history is added to it by the next one.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use super::history::{Change, History};
use super::history::{line, parse};
use super::metrics;
pub use super::status::{Cause, Status};
use super::store::{Store, Turn};
use crate::error::{Error, Result};

/// The layout that this program writes; another one is refused.
const SCHEMA_VERSION: u32 = 1;
/// So many failed cleanups in a row quarantine the worker.
pub const CLEANUP_FAILURES: u32 = 3;
const STATE: &str = "health.json";
const HISTORY: &str = "history.jsonl";
const BROKEN: &str = "history.broken";
const BASELINE: &str = "baseline.json";

/// Why a worker is not healthy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// Version of this layout.
    pub schema_version: u32,
    /// Never healthy: then there is no state.
    pub status: Status,
    /// What made it so.
    pub cause: Cause,
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
    /// Containers whose cleanup has failed and not succeeded since.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub unproved: BTreeSet<String>,
}

/// A worker's standing.
#[derive(Debug, Clone)]
pub struct Standing {
    store: Store,
}

impl Standing {
    /// That of this directory, which need not exist.
    pub fn new(directory: PathBuf) -> Standing {
        Standing { store: Store::new(directory) }
    }

    /// Its directory.
    pub fn directory(&self) -> &Path {
        self.store.directory()
    }

    /// Why the worker is not healthy; `None` where it is.
    ///
    /// # Errors
    /// Where the state is there and cannot be understood: never taken for healthy.
    pub fn state(&self) -> Result<Option<State>> {
        let Some(text) = self.store.read(STATE)? else { return Ok(None) };
        let file = self.store.file(STATE);
        // The version first: another layout may have other fields.
        let version =
            serde_json::from_slice::<serde_json::Value>(&text).ok().and_then(|it| it["schema_version"].as_u64());
        if let Some(version) = version.filter(|version| *version != u64::from(SCHEMA_VERSION)) {
            let file = file.display();
            return Err(Error::Other(format!("`{file}` is of version {version}, this is {SCHEMA_VERSION}")));
        }
        let state: State = serde_json::from_slice(&text)
            .map_err(|error| Error::Other(format!("`{}` cannot be understood: {error}", file.display())))?;
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
    /// What the file system answers, or where the state cannot be understood: it is evidence, and is kept.
    pub fn quarantine(&self, reason: &str) -> Result<()> {
        let turn = self.store.turn()?;
        let before = self.state()?;
        self.enter(&turn, before, Status::Quarantined, Cause::Operator, reason, None)
    }

    /// Quarantines the worker for what was seen; whether it was not quarantined before.
    ///
    /// # Errors
    /// As [`Standing::quarantine`].
    pub fn condemn(&self, cause: Cause, reason: &str, evidence: &str) -> Result<bool> {
        let turn = self.store.turn()?;
        let before = self.state()?;
        if before.as_ref().is_some_and(|state| state.status == Status::Quarantined) {
            return Ok(false);
        }
        self.enter(&turn, before, Status::Quarantined, cause, reason, Some(evidence.to_owned())).map(|()| true)
    }

    /// Ends any quarantine on an operator's word, and replaces a state that cannot be understood.
    ///
    /// # Errors
    /// What the file system answers.
    pub fn unquarantine(&self, reason: &str) -> Result<()> {
        let turn = self.store.turn()?;
        match self.state() {
            Ok(None) => Ok(()),
            Ok(Some(state)) => self.leave(&turn, Some(&state), reason, None, "operator"),
            Err(error) => self.leave(&turn, None, reason, Some(error.to_string()), "operator"),
        }
    }

    /// Ends what the worker itself has found, which is gone now; whether there was such a thing.
    ///
    /// # Errors
    /// What the file system answers, or where the state cannot be understood.
    pub fn lift(&self, reason: &str) -> Result<bool> {
        if self.state()?.is_none_or(|state| !state.automatic) {
            return Ok(false);
        }
        let turn = self.store.turn()?;
        // Another recovery may have had its turn.
        match self.state()? {
            Some(state) if state.automatic => self.leave(&turn, Some(&state), reason, None, "automatic").map(|()| true),
            _ => Ok(false),
        }
    }

    /// Counts a failed cleanup; enough of them in a row quarantine the worker. Says whether this one has.
    ///
    /// # Errors
    /// As [`Standing::quarantine`].
    pub fn cleanup_failed(&self, id: &str, left: &str) -> Result<bool> {
        let left = &format!("`{id}`: {left}");
        let turn = self.store.turn()?;
        let before = self.state()?;
        let failures = before.as_ref().map_or(0, |state| state.cleanup_failures).saturating_add(1);
        let enough = failures >= CLEANUP_FAILURES;
        let counted = |mut state: State| {
            state.unproved.insert(id.to_owned());
            State { cleanup_failures: failures, last_cleanup_error: Some(left.to_owned()), ..state }
        };
        match before {
            Some(state) if state.status == Status::Quarantined || !enough => {
                self.write(&turn, &counted(state)).map(|()| false)
            }
            before => {
                let (status, reason) = match enough {
                    true => (Status::Quarantined, format!("{failures} cleanups in a row have failed")),
                    false => (Status::Unhealthy, "a cleanup has failed".to_owned()),
                };
                let before = before.map(counted).or_else(|| Some(counted(State::healthy())));
                self.enter(&turn, before, status, Cause::CleanupFailures, &reason, Some(left.to_owned()))?;
                Ok(enough)
            }
        }
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
        let turn = self.store.turn()?;
        match self.state()? {
            Some(state) if state.status == Status::Unhealthy => {
                self.leave(&turn, Some(&state), "a cleanup has succeeded", None, "automatic")
            }
            _ => Ok(()),
        }
    }

    /// The history.
    ///
    /// # Errors
    /// As `read(2)`.
    pub fn history(&self) -> Result<History> {
        let look = || -> Result<History> {
            let text = self.store.read(HISTORY)?.unwrap_or_default();
            let (changes, broken) = parse(&text);
            Ok(History { changes, broken: broken.len() })
        };
        match look()? {
            // It may be a line that is being written.
            history if history.broken > 0 => match self.store.turn() {
                Ok(_turn) => look(),
                // Somebody who may only look.
                Err(_) => Ok(history),
            },
            history => Ok(history),
        }
    }

    /// Sets the lines of the history aside that nobody can understand; how many there were.
    ///
    /// # Errors
    /// What the file system answers.
    pub fn mend_history(&self) -> Result<usize> {
        if self.history()?.broken == 0 {
            return Ok(0);
        }
        let turn = self.store.turn()?;
        let text = self.store.read(HISTORY)?.unwrap_or_default();
        let (changes, broken) = parse(&text);
        // Kept before they are taken out: a crash in between leaves them twice, never not at all.
        for line in &broken {
            self.store.append(&turn, BROKEN, line)?;
        }
        let mut whole = Vec::with_capacity(text.len());
        for change in &changes {
            whole.extend(line(change)?);
            whole.push(b'\n');
        }
        // Line by line, not by the file's bytes: the last one may lack its line feed.
        self.store.replace(&turn, HISTORY, &whole)?;
        Ok(broken.len())
    }

    /// Sets room aside for the day when the disk is full; false where there is none left.
    ///
    /// # Errors
    /// Where the directory cannot be made.
    pub fn reserve(&self) -> Result<bool> {
        self.store.turn().map(|turn| self.store.reserve(&turn))
    }

    /// What the last check that passed has found of the host; `None` where none has.
    ///
    /// # Errors
    /// Where it is there and cannot be understood.
    pub fn baseline<T: serde::de::DeserializeOwned>(&self) -> Result<Option<T>> {
        let Some(text) = self.store.read(BASELINE)? else { return Ok(None) };
        let file = self.store.file(BASELINE);
        serde_json::from_slice(&text)
            .map(Some)
            .map_err(|error| Error::Other(format!("`{}` cannot be understood: {error}", file.display())))
    }

    /// Remembers what a check that passed has found of the host, and says in the history what is new.
    ///
    /// # Errors
    /// What the file system answers.
    pub fn set_baseline(&self, baseline: &impl Serialize, news: Option<String>) -> Result<()> {
        let text =
            serde_json::to_vec(baseline).map_err(|error| Error::Other(format!("serialise the baseline: {error}")))?;
        let turn = self.store.turn()?;
        if let Some(news) = news {
            let now = self.state()?.map_or(Status::Healthy, |state| state.status);
            let reason = "the baseline has changed, and the check has passed".to_owned();
            self.log(
                &turn,
                &Change {
                    time: crate::worker::now()?,
                    from: now,
                    to: now,
                    reason,
                    evidence: Some(news),
                    by: "automatic".to_owned(),
                },
            )?;
        }
        self.store.replace(&turn, BASELINE, &text)
    }

    fn enter(
        &self,
        turn: &Turn,
        before: Option<State>,
        status: Status,
        cause: Cause,
        reason: &str,
        evidence: Option<String>,
    ) -> Result<()> {
        let since = crate::worker::now()?;
        let automatic = cause != Cause::Operator;
        let before = before.unwrap_or_else(State::healthy);
        self.complete(turn, &before)?;
        let from = before.status;
        self.write(
            turn,
            &State { status, cause, reason: reason.to_owned(), since: since.clone(), automatic, ..before },
        )?;
        if status == Status::Quarantined {
            metrics::quarantined(cause);
        }
        let by = if automatic { "automatic" } else { "operator" };
        self.log(
            turn,
            &Change { time: since, from, to: status, reason: reason.to_owned(), evidence, by: by.to_owned() },
        )
    }

    fn leave(
        &self,
        turn: &Turn,
        before: Option<&State>,
        reason: &str,
        evidence: Option<String>,
        by: &str,
    ) -> Result<()> {
        if let Some(before) = before {
            self.complete(turn, before)?;
        }
        let from = before.map_or(Status::Quarantined, |state| state.status);
        let (reason, by) = (reason.to_owned(), by.to_owned());
        self.log(turn, &Change { time: crate::worker::now()?, from, to: Status::Healthy, reason, evidence, by })?;
        self.store.remove(turn, STATE)?;
        self.store.reserve(turn);
        Ok(())
    }

    /// Adds the change to the history that has led to this state, where a crash has kept it from there.
    fn complete(&self, turn: &Turn, state: &State) -> Result<()> {
        let (changes, _) = parse(&self.store.read(HISTORY)?.unwrap_or_default());
        let history = History { changes, broken: 0 };
        if state.status == Status::Healthy || history.tells_of(state) {
            return Ok(());
        }
        let evidence = "added later: the history did not have it".to_owned();
        self.log(
            turn,
            &Change {
                time: state.since.clone(),
                from: history.changes.last().map_or(Status::Healthy, |change| change.to),
                to: state.status,
                reason: state.reason.clone(),
                evidence: Some(evidence),
                by: if state.automatic { "automatic" } else { "operator" }.to_owned(),
            },
        )
    }

    fn write(&self, turn: &Turn, state: &State) -> Result<()> {
        let text = serde_json::to_vec(state).map_err(|error| Error::Other(format!("serialise the health: {error}")))?;
        self.store.replace(turn, STATE, &text)
    }

    fn log(&self, turn: &Turn, change: &Change) -> Result<()> {
        self.store.append(turn, HISTORY, &line(change)?)
    }
}

impl State {
    /// What an unhealthy state is made from.
    fn healthy() -> State {
        State {
            schema_version: SCHEMA_VERSION,
            status: Status::Healthy,
            cause: Cause::Operator,
            reason: String::new(),
            since: String::new(),
            automatic: false,
            cleanup_failures: 0,
            last_cleanup_error: None,
            unproved: BTreeSet::new(),
        }
    }
}
