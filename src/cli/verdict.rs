//! `rustbox verdict`.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::cli::{Global, say, say_json};
use crate::error::{At, Error, Result};
use crate::judge::cause::{Cause, Status};
use crate::judge::monitor::{self, Look, Progress};
use crate::judge::replay::{Replay, Words, replay};

/// Print the verdict of a container that an engine runs, or judge a stored run again
///
/// A container is judged that was created with an annotation org.rustbox.limit.*: its verdict can be asked for while it
/// runs, when it has ended, and after its deletion.
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("what").required(true).args(["id", "replay"])))]
pub struct Args {
    /// Name of the container
    #[arg(value_name = "ID")]
    pub id: Option<String>,
    /// Judge again what `run --json`, `run --evidence` or `verdict --json` has stored; `-` reads it from stdin
    #[arg(long, value_name = "FILE")]
    pub replay: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Of a container: 0 where there is a verdict or it runs, 1 where there is none. Judging again: 0 where the evidence gives
/// the stored verdict, 1 where it gives another. 2 for usage and for what is no stored run.
pub fn main(global: &Global, args: &Args) -> u8 {
    match &args.replay {
        Some(file) => judge_again(global, args, file),
        // The one or the other is given.
        None => match container(global, args, args.id.as_deref().unwrap_or_default()) {
            Ok(()) => 0,
            Err(error) => super::report(global, &error),
        },
    }
}

fn container(global: &Global, args: &Args, id: &str) -> Result<()> {
    let root = global.open_root()?;
    let found = match root.look(id) {
        Ok((dir, record)) => monitor::look(dir.as_fd(), &record)?.ok_or_else(|| {
            let reason = "is not judged: it was created without an annotation org.rustbox.limit.*";
            Error::state(id, reason)
        })?,
        Err(error @ Error::State { .. }) => match monitor::log::find(&global.verdicts(), root.path(), id)? {
            Some(verdict) => Look::Ended(Box::new(verdict)),
            None => {
                let place = global.verdicts();
                let context = format!("there is no verdict of it in `{}` either", place.display());
                return Err(Error::Context { context, source: Box::new(error) });
            }
        },
        Err(error) => return Err(error),
    };
    match found {
        Look::Waiting => Err(Error::state(id, "has no verdict yet: it has not been started")),
        Look::Running(progress) if args.json => say_json(&progress),
        Look::Running(progress) => say(&running(&progress)),
        Look::Ended(verdict) if args.json => say_json(&verdict),
        Look::Ended(verdict) => say(&ended(&verdict)),
    }
}

fn running(progress: &Progress) -> String {
    let s = |ms: f64| ms / 1000.0;
    let mut figures =
        vec![format!("wall {:.3} s of {:.3}", s(progress.wall_time_ms), s(progress.limits.wall_time_ms as f64))];
    if let Some(ms) = progress.cpu_time_ms {
        figures.push(format!("CPU {:.3} s of {:.3}", s(ms), s(progress.limits.cpu_time_ms as f64)));
    }
    if let Some(bytes) = progress.memory_bytes {
        figures.push(format!("memory {:.1} MiB of {:.0}", mib(bytes as f64), mib(progress.limits.memory_bytes as f64)));
    }
    if let Some(count) = progress.processes {
        figures.push(format!("{count} processes of {}", progress.limits.processes));
    }
    format!("running\n    {}", figures.join(", "))
}

fn mib(bytes: f64) -> f64 {
    bytes / f64::from(1 << 20)
}

fn ended(verdict: &Value) -> String {
    let word = |name: &str| verdict.get(name).cloned().unwrap_or_default();
    let status = serde_json::from_value(word("status")).map_or("?", Status::as_str);
    let cause = serde_json::from_value(word("cause")).map_or("", Cause::explain);
    let number = |name: &str| verdict.get(name).and_then(Value::as_f64);
    let mut figures = Vec::new();
    for (name, label) in [("exit_code", "exit code"), ("signal", "signal")] {
        figures.extend(number(name).filter(|value| *value != 0.0).map(|value| format!("{label} {value}")));
    }
    figures.extend(number("cpu_time_ms").map(|ms| format!("CPU {:.3} s", ms / 1000.0)));
    figures.extend(number("wall_time_ms").map(|ms| format!("wall {:.3} s", ms / 1000.0)));
    figures.extend(number("memory_peak_bytes").map(|bytes| format!("memory {:.1} MiB", mib(bytes))));
    let figures = if figures.is_empty() { String::new() } else { format!("\n    {}", figures.join(", ")) };
    format!("{status}: {cause}{figures}")
}

fn judge_again(global: &Global, args: &Args, file: &Path) -> u8 {
    let judged = read(file).and_then(|judged| print(args, &judged).map(|()| judged));
    match judged {
        Ok(judged) => {
            let differences = judged.differences();
            differences.iter().for_each(|difference| global.log().error(difference));
            u8::from(!differences.is_empty())
        }
        Err(error) => {
            global.log().error(&format!("{}: {error}", file.display()));
            2
        }
    }
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
