//! `rustbox pause` and `rustbox resume`.

use std::os::fd::AsFd;

use crate::cli::Global;
use crate::container::state::{Status, status};
use crate::error::{Error, Result};

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
/// Where the container is not running, or not paused.
pub fn main(global: &Global, args: &Args, pause: bool) -> Result<()> {
    let (dir, record) = global.open_root()?.look(&args.id)?;
    let (now, _) = status(dir.as_fd(), &record)?;
    let cgroup = record.cgroup.open();
    match (pause, now) {
        (true, Status::Running | Status::Created) => cgroup.freeze(),
        (false, Status::Paused) => cgroup.thaw(),
        (true, _) => Err(Error::state(&args.id, format!("cannot be paused: it is {now}"))),
        (false, _) => Err(Error::state(&args.id, format!("cannot be resumed: it is {now}"))),
    }
}
