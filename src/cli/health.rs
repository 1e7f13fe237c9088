//! `rustbox health`: what dead commands have left of this worker, and its removal.

use std::fmt::Write;
use std::process::ExitCode;

use crate::cli::{Global, say, say_json};
use crate::error::{Error, Result};
use crate::worker::survey::open_root;
use crate::worker::{Leftover, Recovered, Survey, recover, survey};

/// Exit status of a usage error.
pub const USAGE: u8 = 64;

/// Find what dead commands have left of this worker, or remove it and prove it gone
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("what").required(true).args(["verify_clean", "recover"])))]
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
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Runs `health`. Exit status 0: clean; 1: something is left, or the worker cannot be looked at.
pub fn main(global: &Global, args: &Args) -> ExitCode {
    match run(global, args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            global.log().error(&error.to_string());
            ExitCode::from(if matches!(error, Error::Usage(_)) { USAGE } else { 1 })
        }
    }
}

fn run(global: &Global, args: &Args) -> Result<bool> {
    let place = global.root_path();
    let Some(root) = open_root(&place)? else {
        let nothing = Survey { clean: true, root: place, ..Survey::default() };
        print(args, &nothing, || lines(&nothing))?;
        return Ok(true);
    };
    if args.recover {
        let recovered = recover(&root, args.cleanup)?;
        for words in recovered.warnings.iter().chain(&recovered.failures) {
            global.log().warn(words);
        }
        print(args, &recovered, || removed(&recovered) + &lines(&recovered.after))?;
        return Ok(recovered.after.clean && recovered.failures.is_empty());
    }
    let survey = survey(&root)?;
    print(args, &survey, || lines(&survey))?;
    Ok(survey.clean)
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
