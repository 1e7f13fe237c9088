//! `rustbox health`: whether this worker can be trusted, what dead commands have left of it, and its removal.

use std::fmt::Write;
use std::process::ExitCode;

use crate::cli::{Global, say, say_json};
use crate::error::{Error, Result};
use crate::worker::health::Health;
use crate::worker::standing::Status;
use crate::worker::survey::open_root;
use crate::worker::{Leftover, Recovered, Survey, recover, survey};

/// Exit status of a usage error.
pub const USAGE: u8 = 64;

/// Tell whether this worker can be trusted, find what dead commands have left of it, remove it and prove it gone
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("what").args(["verify_clean", "recover", "quarantine", "unquarantine"])))]
pub struct Args {
    /// List what was left, and change nothing
    #[arg(long)]
    pub verify_clean: bool,
    /// Remove what is provably stale and prove it gone; safe at any time
    #[arg(long)]
    pub recover: bool,
    /// With --recover: stopped containers too, poststop hooks included
    #[arg(long, requires = "recover")]
    pub cleanup: bool,
    /// Take no more work: create and judged runs are refused
    #[arg(long, requires = "reason")]
    pub quarantine: bool,
    /// Take work again
    #[arg(long, requires = "reason")]
    pub unquarantine: bool,
    /// With --unquarantine: also while something is left
    #[arg(long, requires = "unquarantine")]
    pub force: bool,
    /// Why, for the history
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub reason: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Runs `health`. Exit status 0: healthy, or clean; 1: unhealthy, something is left, or the worker cannot be looked at; 2:
/// quarantined.
pub fn main(global: &Global, args: &Args) -> ExitCode {
    match run(global, args) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            global.log().error(&error.to_string());
            ExitCode::from(if matches!(error, Error::Usage(_)) { USAGE } else { 1 })
        }
    }
}

fn run(global: &Global, args: &Args) -> Result<u8> {
    let root = open_root(&global.root_path())?;
    let look = || match &root {
        Some(root) => survey(root),
        None => Ok(Survey { clean: true, root: global.root_path(), ..Survey::default() }),
    };
    let reason = args.reason.as_deref().unwrap_or_default();
    if args.quarantine {
        global.standing().quarantine(reason)?;
        return Ok(0);
    }
    if args.unquarantine {
        let left = look()?.leftovers.len();
        if left > 0 && !args.force {
            return Err(Error::Other(format!("{left} left, see --verify-clean; --recover, or --force")));
        }
        global.standing().unquarantine(reason)?;
        return Ok(0);
    }
    if args.recover
        && let Some(root) = &root
    {
        let recovered = recover(root, args.cleanup)?;
        for words in recovered.warnings.iter().chain(&recovered.failures) {
            global.log().warn(words);
        }
        print(args, &recovered, || removed(&recovered) + &lines(&recovered.after))?;
        return Ok(u8::from(!recovered.after.clean || !recovered.failures.is_empty()));
    }
    let survey = look()?;
    if args.recover || args.verify_clean {
        print(args, &survey, || lines(&survey))?;
        return Ok(u8::from(!survey.clean));
    }
    let health = Health::of(&global.standing(), &survey)?;
    print(args, &health, || health.table())?;
    Ok(match health.status {
        Status::Healthy => 0,
        Status::Unhealthy => 1,
        Status::Quarantined => 2,
    })
}

fn print(args: &Args, value: &impl serde::Serialize, table: impl FnOnce() -> String) -> Result<()> {
    if args.json { say_json(value) } else { say(&table()) }
}

fn removed(recovered: &Recovered) -> String {
    recovered.removed.iter().fold(String::new(), |text, leftover| text + "removed " + &line(leftover))
}

fn lines(survey: &Survey) -> String {
    let mut text = survey.leftovers.iter().fold(String::new(), |text, leftover| text + "left    " + &line(leftover));
    let verdict = match survey.leftovers.len() {
        0 => "clean".to_owned(),
        left => format!("not clean: {left} left"),
    };
    let (live, stopped) = (survey.live.len(), survey.stopped.len());
    let _ = writeln!(text, "{verdict} in `{}`; {live} live, {stopped} stopped", survey.root.display());
    text
}

/// One leftover in words, with its owner and age.
fn line(leftover: &Leftover) -> String {
    let kind = serde_json::to_value(leftover.kind).unwrap_or_default();
    let mut text = format!("{} `{}`: {}", kind.as_str().unwrap_or_default(), leftover.name, leftover.reason);
    if let Some(owner) = leftover.owner.as_ref().filter(|owner| **owner != leftover.name) {
        let _ = write!(text, "; of `{owner}`");
    }
    if let Some(process) = leftover.process {
        let _ = write!(text, "; made by process {} (start time {})", process.pid, process.start_time);
    }
    if let Some(age) = leftover.age_s {
        let _ = write!(text, "; {age} s old");
    }
    text + "\n"
}
