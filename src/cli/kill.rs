//! `rustbox kill`.

use crate::cli::Global;
use crate::container::kill::{kill, parse_signal};
use crate::error::Result;

/// Send a signal to a container's first process, or to all
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Send it to every process of the container
    #[arg(short, long)]
    pub all: bool,
    /// Name of the container
    #[arg(value_name = "ID")]
    pub id: String,
    /// The signal: a number or a name, with or without SIG
    #[arg(value_name = "SIGNAL", default_value = "SIGTERM", allow_negative_numbers = true)]
    pub signal: String,
}

/// Runs `kill`.
///
/// # Errors
/// Where there is no such signal, or no process to send it to.
pub fn main(global: &Global, args: &Args) -> Result<()> {
    kill(&global.open_root()?, &args.id, parse_signal(&args.signal)?, args.all)
}
