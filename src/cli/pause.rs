//! `rustbox pause` and `rustbox resume`.

use crate::cli::Global;
use crate::container::pause as container;
use crate::error::Result;

/// Freeze or thaw the processes of a container
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name of the container
    #[arg(value_name = "ID")]
    pub id: String,
}

/// Runs `pause`, or `resume`.
///
/// # Errors
/// Where the container is neither running nor created, or not paused.
pub fn main(global: &Global, args: &Args, pause: bool) -> Result<()> {
    let root = global.open_root()?;
    if pause { container::pause(&root, &args.id) } else { container::resume(&root, &args.id) }
}
