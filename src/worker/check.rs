//! The check, which condemns, and the absolution, which lifts what was found once it is gone.

use schemars::JsonSchema;
use serde::Serialize;

use super::canary::{self, Sung};
use super::health::{Host, condemnations};
use super::recover::Recovered;
use super::standing::{Standing, Status};
use super::survey::Survey;
use crate::container::root::Root;
use crate::error::Result;
use crate::worker::backends::Backends;

/// Looks at the host, runs the canaries, and quarantines the worker for what is wrong. What passes becomes the baseline.
///
/// # Errors
/// Where the host cannot be looked at, or the outcome cannot be written down.
pub fn check(root: &Root, standing: &Standing, survey: &Survey, systemd_cgroup: bool) -> Result<Host> {
    let host = examine(root, standing, survey, systemd_cgroup)?;
    let condemnations = condemnations(&host, survey);
    for (cause, reason, evidence) in &condemnations {
        standing.condemn(*cause, reason, &evidence.join("; "))?;
    }
    if condemnations.is_empty() && host.judges_right() {
        keep(standing, &host.backends)?;
    }
    Ok(host)
}

fn examine(root: &Root, standing: &Standing, survey: &Survey, systemd_cgroup: bool) -> Result<Host> {
    // First, so that what was given up when the disk was full does not look like room.
    let no_reserve = match standing.reserve()? {
        true => None,
        false => Some(format!("disk of `{}`: no room for the reserve", standing.directory().display())),
    };
    let canaries = Some(canary::sing(root, systemd_cgroup));
    Ok(Host { canaries, no_reserve, ..Host::look(standing, survey)? })
}

/// Makes these back ends the baseline, where they are not.
fn keep(standing: &Standing, backends: &Backends) -> Result<()> {
    let news = match standing.baseline::<Backends>() {
        Ok(Some(before)) if before == *backends => return Ok(()),
        Ok(None) => None,
        Ok(Some(before)) => Some(backends.differences(&before).join("; ")),
        Err(error) => Some(error.to_string()),
    };
    standing.set_baseline(backends, news)
}

/// What `health --recover` prints.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Absolved {
    /// What the recovery did.
    #[serde(flatten)]
    pub recovered: Recovered,
    /// The standing afterwards.
    pub status: Status,
    /// What the worker had found of itself is gone, and lifted.
    pub lifted: bool,
    /// Lines of the history that were set aside, because nobody can understand them.
    pub history_lines_set_aside: usize,
    /// The canaries' verdicts, where something was to be lifted.
    pub canaries: Option<Vec<Sung>>,
    /// What keeps the standing from being lifted, in words.
    pub kept: Vec<String>,
}

/// After a recovery: lifts an automatic quarantine, or counted failures, where all is clean, every canary passes and no
/// resource is exhausted. An operator's quarantine stays.
///
/// # Errors
/// Where the standing cannot be read or written, or the host cannot be looked at.
pub fn absolve(
    root: impl FnOnce() -> Result<Root>,
    standing: &Standing,
    recovered: Recovered,
    systemd_cgroup: bool,
) -> Result<Absolved> {
    let history_lines_set_aside = standing.mend_history()?;
    let mut done = Absolved {
        recovered,
        status: Status::Healthy,
        lifted: false,
        history_lines_set_aside,
        canaries: None,
        kept: Vec::new(),
    };
    let Some(state) = standing.state()? else { return Ok(done) };
    done.status = state.status;
    if !state.automatic {
        done.kept.push(format!("an operator has quarantined this worker: {}", state.reason));
        return Ok(done);
    }
    if !done.recovered.is_clean() {
        done.kept.push("something is left".to_owned());
        return Ok(done);
    }
    let after = &done.recovered.after;
    let there = after.stopped.iter().chain(&after.live).filter(|id| state.unproved.contains(*id));
    let words =
        there.map(|id| format!("`{id}`, whose cleanup has failed, is still there; delete it, or --recover --cleanup"));
    done.kept = words.collect();
    if !done.kept.is_empty() {
        return Ok(done);
    }
    let host = examine(&root()?, standing, &done.recovered.after, systemd_cgroup)?;
    done.kept.extend(host.exhausted());
    if !host.judges_right() {
        let sung = host.canaries.iter().flatten();
        done.kept.extend(sung.filter(|it| it.outcome != canary::Outcome::Passed).map(Sung::words));
    }
    done.canaries = host.canaries;
    if done.kept.is_empty() {
        done.lifted = standing.lift("all is clean, and every canary has passed")?;
        done.status = standing.state()?.map_or(Status::Healthy, |state| state.status);
    }
    Ok(done)
}
