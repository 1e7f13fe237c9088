//! `rustbox verdict`.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::cli::{Global, say, say_json};
use crate::error::{At, Result};
use crate::judge::replay::{Replay, Words, replay};

/// Judge a stored run again, by its evidence
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What `run --json` printed; `-` reads it from stdin
    #[arg(long, value_name = "FILE", required = true)]
    pub replay: PathBuf,
    /// Print the verdict as one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Judges again: 0 where the evidence gives the stored verdict, 1 where it gives another, 2 for usage and for what is no
/// stored run.
pub fn main(global: &Global, args: &Args) -> ExitCode {
    let judged = read(&args.replay).and_then(|judged| print(args, &judged).map(|()| judged));
    ExitCode::from(match judged {
        Ok(judged) => {
            let differences = judged.differences();
            differences.iter().for_each(|difference| global.log().error(difference));
            u8::from(!differences.is_empty())
        }
        Err(error) => {
            global.log().error(&format!("{}: {error}", args.replay.display()));
            2
        }
    })
}

fn read(path: &Path) -> Result<Replay> {
    match path.as_os_str() == "-" {
        true => replay(std::io::stdin().lock()),
        false => replay(File::open(path).at("open", path.display())?),
    }
}

fn print(args: &Args, judged: &Replay) -> Result<()> {
    if args.json {
        return say_json(judged);
    }
    let verdict = &judged.run.verdict;
    let detail = verdict.detail.as_ref().map(|detail| format!(": {detail}")).unwrap_or_default();
    say(&format!("{}\n    {}{detail}", Words::from(verdict), verdict.cause.explain()))
}
