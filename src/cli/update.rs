//! `rustbox update`.

use std::os::fd::AsFd;
use std::path::PathBuf;

use crate::cli::Global;
use crate::container::state::{Status, status};
use crate::error::{Error, Result};
use crate::spec;

/// Change the resource limits of a container
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The limits, as linux.resources of config.json; `-` reads them from stdin
    #[arg(short, long, value_name = "FILE")]
    pub resources: PathBuf,
    /// Name of the container
    #[arg(value_name = "ID")]
    pub id: String,
}

/// Runs `update`.
///
/// # Errors
/// Where the container has ended, or the kernel refuses a limit.
pub fn main(global: &Global, args: &Args) -> Result<()> {
    let (dir, record) = global.open_root()?.look(&args.id)?;
    let (now, _) = status(dir.as_fd(), &record)?;
    if now == Status::Stopped {
        return Err(Error::state(&args.id, "cannot be updated: it is stopped"));
    }
    record.cgroup.open().update(&spec::load_resources(&args.resources)?)
}
