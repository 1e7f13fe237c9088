//! `rustbox features`.

use crate::cli::say_json;
use crate::error::Result;
use crate::spec::features;

/// Print what this runtime can do
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs `features`.
///
/// # Errors
/// Where stdout cannot be written.
pub fn main() -> Result<()> {
    say_json(&features::features())
}
