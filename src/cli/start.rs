//! `rustbox start`.

use crate::cli::Global;
use crate::container::start;
use crate::error::Result;

/// Start the program of a created container
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name of the container
    #[arg(value_name = "ID")]
    pub id: String,
}

/// Runs `start`.
///
/// # Errors
/// Where the container is not `created`, its program cannot be executed, or a poststart hook fails.
pub fn main(global: &Global, args: &Args) -> Result<()> {
    start::start(&global.open_root()?, &args.id, &global.verdicts())
}
