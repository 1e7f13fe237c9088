//! The worker's health as it is now: its standing, and what a look over it finds.

use serde::Serialize;

use super::standing::{Change, Standing, Status};
use super::survey::Survey;
use crate::error::Result;

/// What `health` prints.
#[derive(Debug, Clone, Serialize)]
pub struct Health {
    /// Version of this document.
    pub schema_version: u32,
    /// The worst of the standing and of what was found.
    pub status: Status,
    /// Why it is not healthy, each reason in words.
    pub reasons: Vec<String>,
    /// Since when the standing is what it is, RFC 3339; `null` where it never changed.
    pub since: Option<String>,
    /// Work is let in.
    pub can_accept: bool,
    /// Failed cleanups in a row.
    pub consecutive_cleanup_failures: u32,
    /// What the last one left.
    pub last_cleanup_error: Option<String>,
    /// Containers that live.
    pub live: usize,
    /// Containers that have stopped and wait for `delete`.
    pub stopped: usize,
    /// Things that dead commands have left.
    pub leftovers: usize,
    /// The last change of the standing.
    pub last_change: Option<Change>,
}

impl Health {
    /// Puts it together.
    ///
    /// # Errors
    /// Where the history is there and cannot be read.
    pub fn of(standing: &Standing, survey: &Survey) -> Result<Health> {
        let mut reasons = Vec::new();
        let state = standing.state().unwrap_or_else(|error| {
            reasons.push(error.to_string());
            None
        });
        let (history, broken) = standing.history()?;
        reasons.extend(state.as_ref().map(|state| state.reason.clone()));
        if !survey.clean {
            reasons.push(format!("dead commands have left {}, see --verify-clean", survey.leftovers.len()));
        }
        if broken > 0 {
            reasons.push(format!("{broken} lines of the history cannot be understood"));
        }
        let last_change = history.into_iter().next_back();
        let since = state.as_ref().map(|state| state.since.clone());
        Ok(Health {
            schema_version: 1,
            status: match &state {
                Some(state) => state.status,
                None if reasons.is_empty() => Status::Healthy,
                None => Status::Unhealthy,
            },
            reasons,
            since: since.or_else(|| last_change.as_ref().map(|change| change.time.clone())),
            can_accept: standing.admit().is_ok(),
            consecutive_cleanup_failures: state.as_ref().map_or(0, |state| state.cleanup_failures),
            last_cleanup_error: state.and_then(|state| state.last_cleanup_error),
            live: survey.live.len(),
            stopped: survey.stopped.len(),
            leftovers: survey.leftovers.len(),
            last_change,
        })
    }

    /// For a person.
    pub fn table(&self) -> String {
        let status = serde_json::to_value(self.status).unwrap_or_default();
        let reasons = if self.reasons.is_empty() { "-".to_owned() } else { self.reasons.join("; ") };
        let rows = [
            ("status", status.as_str().unwrap_or_default().to_owned()),
            ("reason", reasons),
            ("since", self.since.clone().unwrap_or_else(|| "-".to_owned())),
            ("takes work", if self.can_accept { "yes" } else { "no" }.to_owned()),
            ("failed cleanups in a row", self.consecutive_cleanup_failures.to_string()),
            ("last cleanup error", self.last_cleanup_error.clone().unwrap_or_else(|| "-".to_owned())),
            ("containers", format!("{} live, {} stopped", self.live, self.stopped)),
            ("left by dead commands", self.leftovers.to_string()),
        ];
        rows.iter().fold(String::new(), |text, (name, value)| format!("{text}{name:<26}{value}\n"))
    }
}
