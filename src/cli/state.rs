//! `rustbox state`.

use std::os::fd::AsFd;

use crate::cli::{Global, say_json};
use crate::container::report::Report;
use crate::error::Result;

/// Print the state of a container
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name of the container
    #[arg(value_name = "ID")]
    pub id: String,
}

/// Runs `state`.
///
/// # Errors
/// Where there is no such container.
pub fn main(global: &Global, args: &Args) -> Result<()> {
    let (dir, record) = global.open_root()?.look(&args.id)?;
    say_json(&Report::of(dir.as_fd(), &record)?)
}
