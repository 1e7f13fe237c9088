//! `rustbox delete`.

use crate::cli::{Global, say_json};
use crate::container::delete::delete;
use crate::error::Result;

/// Delete a container and prove that nothing of it remains
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Also a running container, which is killed; no error where there is none
    #[arg(short, long)]
    pub force: bool,
    /// Print the proof: what was looked at and what was found
    #[arg(long)]
    pub json: bool,
    /// Name of the container
    #[arg(value_name = "ID")]
    pub id: String,
}

/// Runs `delete`.
///
/// # Errors
/// Where the container is running, or something of it remains.
pub fn main(global: &Global, args: &Args) -> Result<()> {
    let Some(deleted) = delete(&global.open_root()?, &args.id, args.force)? else { return Ok(()) };
    for warning in &deleted.warnings {
        global.log().warn(&warning.to_string());
    }
    if args.json {
        say_json(&deleted.proof)?;
    }
    let proof = || serde_json::to_string(&deleted.proof).unwrap_or_default();
    global.log().debug(|| format!("deleted {}: {}", args.id, proof()));
    deleted.proof.require()?;
    // It is deleted, whatever becomes of the count.
    if let Err(error) = global.standing().cleanup_succeeded() {
        global.log().warn(&error.to_string());
    }
    Ok(())
}
