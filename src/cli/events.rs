//! `rustbox events`.

use std::time::Duration;

use crate::cli::{Global, say, units};
use crate::container::events::{Event, Watched};
use crate::error::{Error, Result};

/// Print what a container uses, and its OOM situations, as lines of JSON
///
/// Ends with the container.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Time between two lines of statistics, such as 500ms, 5s or 1m30s
    #[arg(long, value_name = "DURATION", default_value = "5s", allow_hyphen_values = true, value_parser = units::duration)]
    pub interval: Duration,
    /// Print the statistics once
    #[arg(long)]
    pub stats: bool,
    /// Name of the container
    #[arg(value_name = "ID")]
    pub id: String,
}

/// Runs `events`.
///
/// # Errors
/// Where the container has no processes.
pub fn main(global: &Global, args: &Args) -> Result<()> {
    if args.interval.is_zero() {
        return Err(Error::Usage("--interval must be greater than 0".to_owned()));
    }
    let watched = Watched::open(&global.open_root()?, &args.id)?;
    if args.stats {
        return line(&watched.stats()?);
    }
    watched.follow(args.interval, &mut line)
}

fn line(event: &Event<'_>) -> Result<()> {
    say(&serde_json::to_string(event).map_err(|error| Error::Other(format!("print JSON: {error}")))?)
}
