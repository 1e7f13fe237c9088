//! The worker's health as it is now: its standing, and what a look over it finds.

use std::fmt::Write;

use schemars::JsonSchema;
use serde::Serialize;

use super::backends::{self, Backends, Degraded};
use super::canary::{Outcome, Sung};
use super::headroom::{self, Headroom, Level};
use super::standing::{Cause, Change, Standing, Status};
use super::survey::{Kind, Survey};
use crate::error::Result;

/// What `health` prints.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Health {
    /// Version of this document.
    pub schema_version: u32,
    /// The worst of the standing and of what was found.
    pub status: Status,
    /// Why it is not healthy, each reason in words.
    pub reasons: Vec<String>,
    /// What made the standing what it is; `null` where that is healthy.
    pub cause: Option<Cause>,
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
    /// The back ends that this host gives.
    pub backends: Backends,
    /// How they differ from those with which the last check passed.
    pub changed: Vec<String>,
    /// Controls of a judged run that cannot be had.
    pub degraded: Vec<Degraded>,
    /// What is left of disk, inodes, memory, descriptors and pids.
    pub headroom: Vec<Headroom>,
    /// The canaries' verdicts; `null` where none was run.
    pub canaries: Option<Vec<Sung>>,
    /// The last change of the standing.
    pub last_change: Option<Change>,
}

/// What is found of the host itself, with what a check makes of it.
#[derive(Debug, Clone)]
pub struct Host {
    /// The back ends.
    pub backends: Backends,
    /// Missing controls.
    pub degraded: Vec<Degraded>,
    /// Resources.
    pub headroom: Vec<Headroom>,
    /// Verdicts of canaries, where they were run.
    pub canaries: Option<Vec<Sung>>,
    /// The state directory has no room left to be set aside, in words.
    pub no_reserve: Option<String>,
}

impl Host {
    /// Looks at the host, without canaries.
    ///
    /// # Errors
    /// Where it cannot be looked at.
    pub fn look(standing: &Standing, survey: &Survey) -> Result<Host> {
        let (backends, degraded) = backends::look()?;
        let headroom = headroom::look(&[&survey.root, standing.directory()])?;
        Ok(Host { backends, degraded, headroom, canaries: None, no_reserve: None })
    }

    /// What is exhausted, in words.
    pub fn exhausted(&self) -> Vec<String> {
        let exhausted = self.headroom.iter().filter(|it| it.level == Level::Exhausted).map(Headroom::words);
        exhausted.chain(self.no_reserve.clone()).collect()
    }

    /// Canaries that came to a wrong verdict, in words.
    pub fn wrong(&self) -> Vec<String> {
        self.sung(Outcome::Failed).map(Sung::words).collect()
    }

    /// Whether every canary was run and passed.
    pub fn judges_right(&self) -> bool {
        self.canaries.as_ref().is_some_and(|sung| sung.iter().all(|it| it.outcome == Outcome::Passed))
    }

    fn sung(&self, outcome: Outcome) -> impl Iterator<Item = &Sung> {
        self.canaries.iter().flatten().filter(move |it| it.outcome == outcome)
    }

    fn reasons(&self) -> Vec<String> {
        let scarce = self.headroom.iter().filter(|it| it.level != Level::Ok).map(Headroom::words);
        // Who has no privileges runs containers only: that nothing is judged there is no fault.
        let judges = !self.degraded.iter().any(|it| it.control == "privilege");
        let missing = self
            .degraded
            .iter()
            .filter(|_| judges)
            .map(|it| format!("this host cannot give {} ({})", it.control, it.reason));
        let refused = self.sung(Outcome::Refused).take(1).map(Sung::words);
        scarce.chain(self.no_reserve.clone()).chain(missing).chain(self.wrong()).chain(refused).collect()
    }
}

/// What a check of the host is to quarantine the worker for.
pub fn condemnations(host: &Host, survey: &Survey) -> Vec<(Cause, &'static str, Vec<String>)> {
    let orphans = survey.leftovers.iter().filter(|it| it.kind == Kind::Process);
    let orphans = orphans.map(|it| format!("process {}: {}", it.name, it.reason)).collect();
    let found = [
        (Cause::OrphanProcess, "a process has outlived its container", orphans),
        (Cause::Baseline, "a canary came to a wrong verdict", host.wrong()),
        (Cause::Resources, "resources are exhausted", host.exhausted()),
    ];
    found.into_iter().filter(|(_, _, evidence): &(_, _, Vec<String>)| !evidence.is_empty()).collect()
}

impl Health {
    /// Puts it together.
    ///
    /// # Errors
    /// Where the history is there and cannot be read.
    pub fn of(standing: &Standing, survey: &Survey, host: Host) -> Result<Health> {
        let mut reasons = Vec::new();
        let state = standing.state().unwrap_or_else(|error| {
            reasons.push(error.to_string());
            None
        });
        let history = standing.history()?;
        reasons.extend(state.as_ref().map(|state| state.reason.clone()));
        if !survey.clean {
            reasons.push(format!("dead commands have left {}, see --verify-clean", survey.leftovers.len()));
        }
        if history.broken > 0 {
            reasons.push(format!("{} lines of the history cannot be understood", history.broken));
        }
        if state.as_ref().is_some_and(|state| !history.tells_of(state)) {
            reasons.push("the history does not tell of the last change".to_owned());
        }
        let changed = match standing.baseline::<Backends>() {
            Ok(before) => before.map(|before| host.backends.differences(&before)).unwrap_or_default(),
            Err(error) => {
                reasons.push(error.to_string());
                Vec::new()
            }
        };
        reasons.extend(changed.iter().map(|change| format!("since the last check that passed: {change}")));
        reasons.extend(host.reasons());
        let last_change = history.changes.into_iter().next_back();
        let since = state.as_ref().map(|state| state.since.clone());
        Ok(Health {
            schema_version: 1,
            status: match &state {
                Some(state) => state.status,
                None if reasons.is_empty() => Status::Healthy,
                None => Status::Unhealthy,
            },
            reasons,
            cause: state.as_ref().map(|state| state.cause),
            since: since.or_else(|| last_change.as_ref().map(|change| change.time.clone())),
            can_accept: standing.admit().is_ok(),
            consecutive_cleanup_failures: state.as_ref().map_or(0, |state| state.cleanup_failures),
            last_cleanup_error: state.and_then(|state| state.last_cleanup_error),
            live: survey.live.len(),
            stopped: survey.stopped.len(),
            leftovers: survey.leftovers.len(),
            backends: host.backends,
            changed,
            degraded: host.degraded,
            headroom: host.headroom,
            canaries: host.canaries,
            last_change,
        })
    }

    /// For a person.
    pub fn table(&self) -> String {
        let or_none = |words: &[String]| if words.is_empty() { "-".to_owned() } else { words.join("; ") };
        let degraded: Vec<_> = self.degraded.iter().map(|it| it.control.to_owned()).collect();
        let mut text = String::new();
        let mut row = |name: &str, value: &str| {
            let _ = writeln!(text, "{name:<26}{value}");
        };
        row("status", self.status.as_str());
        row("reason", &or_none(&self.reasons));
        row("since", self.since.as_deref().unwrap_or("-"));
        row("takes work", if self.can_accept { "yes" } else { "no" });
        row("failed cleanups in a row", &self.consecutive_cleanup_failures.to_string());
        row("last cleanup error", self.last_cleanup_error.as_deref().unwrap_or("-"));
        row("containers", &format!("{} live, {} stopped", self.live, self.stopped));
        row("left by dead commands", &self.leftovers.to_string());
        row("back ends", &self.backends.line());
        row("missing controls", &or_none(&degraded));
        for (n, resource) in self.headroom.iter().enumerate() {
            let level = match resource.level {
                Level::Ok => "",
                Level::Low => " (low)",
                Level::Exhausted => " (exhausted)",
            };
            row(if n == 0 { "headroom" } else { "" }, &(resource.words() + level));
        }
        for (n, canary) in self.canaries.iter().flatten().enumerate() {
            let outcome = match canary.outcome {
                Outcome::Passed => "passed",
                Outcome::Failed => "FAILED",
                Outcome::Refused => "refused",
            };
            let name = if n == 0 { "canaries" } else { "" };
            row(name, &format!("{} {outcome}: {} in {} ms", canary.canary, canary.got, canary.took_ms));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lacking(controls: &[&'static str]) -> Host {
        let (backends, _) = backends::look().unwrap();
        let lack = |control: &&'static str| Degraded { control, reason: "a test".to_owned() };
        let degraded = controls.iter().map(lack).collect();
        Host { backends, degraded, headroom: Vec::new(), canaries: None, no_reserve: None }
    }

    #[test]
    fn a_missing_control_is_a_reason_but_for_who_has_no_privileges_to_judge_with() {
        assert!(lacking(&[]).reasons().is_empty());
        assert_eq!(lacking(&["pids", "memory"]).reasons().len(), 2);
        assert!(lacking(&["pids", "privilege"]).reasons().is_empty());
    }

    #[test]
    fn a_host_is_condemned_for_what_is_exhausted_and_for_nothing_that_is_only_missing() {
        let survey = Survey { clean: true, ..Survey::default() };
        assert!(condemnations(&lacking(&["pids"]), &survey).is_empty());
        let full = Host { no_reserve: Some("no room".to_owned()), ..lacking(&[]) };
        let found = condemnations(&full, &survey);
        assert_eq!(found.iter().map(|(cause, ..)| *cause).collect::<Vec<_>>(), [Cause::Resources]);
    }
}
