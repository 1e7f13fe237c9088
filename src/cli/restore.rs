//! `rustbox restore`.

use std::os::fd::AsFd;
use std::path::PathBuf;

use crate::cli::checkpoint::ImageArgs;
use crate::cli::create::BundleArgs;
use crate::cli::{Global, report};
use crate::container::checkpoint::{Restore, Restored, restore};
use crate::container::console;
use crate::container::delete::release;
use crate::container::foreground::{Signals, wait};
use crate::container::run::wants_terminal;
use crate::error::Result;

/// Bring a container back from CRIU's images
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    images: ImageArgs,
    /// Directory of the bundle: config.json and, by its word, the root filesystem
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    bundle: PathBuf,
    /// Unix socket that gets the master end of the container's terminal
    #[arg(long, value_name = "SOCKET")]
    console_socket: Option<PathBuf>,
    /// File that gets the pid of the container's first process
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// Accepted for runc's callers: criu decides how the root is entered
    #[arg(long)]
    no_pivot: bool,
    /// Be no subreaper of the container's processes (it never is one)
    #[arg(long)]
    no_subreaper: bool,
    /// Return once the processes run again
    #[arg(short, long)]
    detach: bool,
    /// Security profile that replaces the one in the images
    #[arg(long, value_name = "TYPE:NAME")]
    lsm_profile: Option<String>,
    /// SELinux context of mounts that replaces the one in the images
    #[arg(long, value_name = "CONTEXT")]
    lsm_mount_context: Option<String>,
    /// Name of the container
    #[arg(value_name = "ID")]
    id: String,
}

/// Runs `restore`: in the foreground the program's exit status is the command's.
pub fn main(global: &Global, args: &Args) -> u8 {
    match run(global, args) {
        Ok(status) => status,
        Err(error) => report(global, &error),
    }
}

fn run(global: &Global, args: &Args) -> Result<u8> {
    global.standing().admit()?;
    let bundle = BundleArgs {
        bundle: args.bundle.clone(),
        config: PathBuf::from("config.json"),
        console_socket: args.console_socket.clone(),
        ..BundleArgs::default()
    };
    let bundle = bundle.load(global)?;
    let mut asked = Restore {
        images: args.images.images(global)?,
        pid_file: args.pid_file.clone(),
        console_socket: args.console_socket.as_deref().map(super::create::connect_to).transpose()?,
        systemd_cgroup: global.systemd_cgroup(),
        lsm_profile: args.lsm_profile.clone(),
        lsm_mount_context: args.lsm_mount_context.clone(),
    };
    let root = global.open_root()?;
    if args.detach {
        return restore(&root, &args.id, &bundle, &asked).map(|_| 0);
    }
    let signals = Signals::take()?;
    let mut terminal = None;
    if asked.console_socket.is_none() && wants_terminal(&bundle) {
        let (theirs, ours) = console::socket()?;
        asked.console_socket = Some(theirs);
        terminal = Some(ours);
    }
    let Restored { directory, record, pidfd } = restore(&root, &args.id, &bundle, &asked)?;
    let ended = match terminal {
        Some(socket) => console::wait(&pidfd, &signals, socket.as_fd()),
        None => wait(&pidfd, &signals),
    };
    let deleted = release(&root, directory, &record, Some(pidfd));
    deleted.warnings.iter().for_each(|warning| global.log().warn(&warning.to_string()));
    let status = ended?.status();
    deleted.proof.require().map(|_| status)
}
