//! `rustbox health`: whether this worker can be trusted, what dead commands have left of it, and its removal.

use crate::cli::{Global, say, say_json};
use crate::error::{Error, Result};
use crate::worker::check::{absolve, check};
use crate::worker::health::{Health, Host};
use crate::worker::standing::Status;
use crate::worker::survey::{self, open_root};
use crate::worker::{Recovered, recover};

/// Exit status of a usage error.
pub const USAGE: u8 = 64;

/// Tell whether this worker can be trusted, find what dead commands have left of it, remove it and prove it gone
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("what").args(["check", "verify_clean", "recover", "quarantine", "unquarantine"])))]
pub struct Args {
    /// Judge programs whose verdicts are known, too, and quarantine the worker for what is wrong
    #[arg(long)]
    pub check: bool,
    /// List what was left, and change nothing
    #[arg(long)]
    pub verify_clean: bool,
    /// Remove what is provably stale and prove it gone; end an automatic quarantine where all is well; safe at any time
    #[arg(long)]
    pub recover: bool,
    /// With --recover: stopped containers too, poststop hooks included
    #[arg(long, requires = "recover")]
    pub cleanup: bool,
    /// Take no more work: create, run and batch are refused
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
/// quarantined, also after a recovery that has left nothing.
pub fn main(global: &Global, args: &Args) -> u8 {
    match run(global, args) {
        Ok(status) => status,
        Err(error) => {
            global.log().error(&error.to_string());
            if matches!(error, Error::Usage(_)) { USAGE } else { 1 }
        }
    }
}

fn run(global: &Global, args: &Args) -> Result<u8> {
    let look = || survey::look(&global.root_path());
    let standing = global.standing();
    let reason = args.reason.as_deref().unwrap_or_default();
    if args.quarantine {
        standing.quarantine(reason)?;
        return Ok(0);
    }
    if args.unquarantine {
        let left = look()?.leftovers.len();
        if left > 0 && !args.force {
            return Err(Error::Other(format!("{left} left, see --verify-clean; --recover, or --force")));
        }
        standing.unquarantine(reason)?;
        return Ok(0);
    }
    if args.recover {
        let recovered = match open_root(&global.root_path())? {
            Some(root) => recover(&root, args.cleanup)?,
            None => Recovered { after: look()?, ..Recovered::default() },
        };
        for words in recovered.warnings.iter().chain(&recovered.failures) {
            global.log().warn(words);
        }
        let absolved = absolve(|| global.open_root(), &standing, recovered, global.systemd_cgroup())?;
        for words in &absolved.kept {
            global.log().warn(&format!("the worker stays {}: {words}", absolved.status.as_str()));
        }
        print(args, &absolved, || absolved.recovered.table())?;
        return Ok(if absolved.recovered.is_clean() { status(absolved.status) } else { 1 });
    }
    let survey = look()?;
    if args.verify_clean {
        print(args, &survey, || survey.table())?;
        return Ok(u8::from(!survey.clean));
    }
    let host = match args.check {
        true => check(&global.open_root()?, &standing, &survey, global.systemd_cgroup())?,
        false => Host::look(&standing, &survey)?,
    };
    let health = Health::of(&standing, &survey, host)?;
    print(args, &health, || health.table())?;
    Ok(status(health.status))
}

fn status(status: Status) -> u8 {
    match status {
        Status::Healthy => 0,
        Status::Unhealthy => 1,
        Status::Quarantined => 2,
    }
}

fn print(args: &Args, value: &impl serde::Serialize, table: impl FnOnce() -> String) -> Result<()> {
    if args.json { say_json(value) } else { say(&table()) }
}
