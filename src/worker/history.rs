//! The history of a worker's standing: every change, one JSON object a line.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::standing::State;
use super::status::Status;
use crate::error::{Error, Result};

/// One line of the history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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

/// The history as it could be read.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// The changes, oldest first.
    pub changes: Vec<Change>,
    /// Lines that cannot be understood.
    pub broken: usize,
}

impl History {
    /// Whether it ends with the change that has led to this state.
    pub fn tells_of(&self, state: &State) -> bool {
        let leads = |change: &Change| change.to == state.status && change.time == state.since;
        // News of the baseline change nothing.
        self.changes.iter().rev().find(|change| change.from != change.to || leads(change)).is_some_and(leads)
    }
}

/// The changes in a history, and the lines that are none.
pub(super) fn parse(text: &[u8]) -> (Vec<Change>, Vec<&[u8]>) {
    let mut changes = Vec::new();
    let mut broken = Vec::new();
    for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        match serde_json::from_slice(line) {
            Ok(change) => changes.push(change),
            Err(_) => broken.push(line),
        }
    }
    (changes, broken)
}

/// The change as a line, without its line feed.
pub(super) fn line(change: &Change) -> Result<Vec<u8>> {
    serde_json::to_vec(change).map_err(|error| Error::Other(format!("serialise the history: {error}")))
}
