//! `rustbox create`.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use crate::cli::Global;
use crate::container::create;
use crate::container::notify_socket;
use crate::container::options::Options;
use crate::container::run::wants_terminal;
use crate::error::{At, Error, Result};
use crate::judge::monitor;
use crate::spec;
use crate::sys::socket;

/// Options of `create` and `run` alike.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct BundleArgs {
    /// Directory of the bundle: config.json and, by its word, the root filesystem
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    pub bundle: PathBuf,
    /// Name of the configuration in the bundle, or a path of its own
    #[arg(short = 'f', long, value_name = "FILE", default_value = "config.json")]
    pub config: PathBuf,
    /// Unix socket that gets the master end of the container's terminal
    #[arg(long, value_name = "SOCKET")]
    pub console_socket: Option<PathBuf>,
    /// File that gets the pid of the container's first process
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// Number of file descriptors, from 3 on, that the program inherits
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub preserve_fds: u32,
    /// Do not use pivot_root (for a root that is a ramdisk)
    #[arg(long)]
    pub no_pivot: bool,
    /// Stay in the caller's session keyring
    #[arg(long)]
    pub no_new_keyring: bool,
    /// Be no subreaper of the container's processes (it never is one)
    #[arg(long)]
    pub no_subreaper: bool,
}

/// Create a container from a bundle; its program waits for `start`
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Options of the bundle.
    #[command(flatten)]
    pub bundle: BundleArgs,
    /// Name of the container, unique on this host
    #[arg(value_name = "ID")]
    pub id: String,
}

impl BundleArgs {
    /// Loads the bundle.
    ///
    /// # Errors
    /// What is wrong with it; a fault in the configuration names the file besides the JSON path. A console socket for
    /// a process without a terminal is a usage error, as with runc.
    pub fn load(&self, global: &Global) -> Result<spec::Bundle> {
        let load = || {
            let mut bundle = spec::load_from(&self.bundle, &self.config)?;
            if !global.annotation.is_empty() {
                let mut annotations = bundle.spec.annotations().clone().unwrap_or_default();
                annotations.extend(global.annotation.iter().cloned());
                bundle.spec.set_annotations(Some(annotations));
            }
            monitor::enforce(&mut bundle.spec)?;
            Ok(bundle)
        };
        let bundle = load().map_err(|error| match error {
            Error::Config { .. } => {
                Error::Context { context: self.config.display().to_string(), source: Box::new(error) }
            }
            error => error,
        })?;
        if self.console_socket.is_some() && !wants_terminal(&bundle) {
            return Err(Error::Usage("--console-socket is for a process with a terminal".to_owned()));
        }
        Ok(bundle)
    }

    /// The options in the library's terms.
    ///
    /// # Errors
    /// Where the console socket cannot be connected to.
    pub fn options<'a>(&self, global: &Global) -> Result<Options<'a>> {
        Ok(Options {
            pid_file: self.pid_file.clone(),
            console_socket: self.console_socket.as_deref().map(connect_to).transpose()?,
            preserve_fds: self.preserve_fds,
            no_pivot: self.no_pivot,
            no_new_keyring: self.no_new_keyring,
            systemd_cgroup: global.systemd_cgroup(),
            rootless: global.rootless(),
            verdicts: global.verdicts(),
            ..Options::default()
        })
    }
}

/// Connects to a unix socket.
///
/// # Errors
/// As `connect(2)`, with the path.
pub fn connect_to(path: &Path) -> Result<OwnedFd> {
    socket::connect(path, None).at("connect to the console socket", path.display())
}

/// Runs `create`.
///
/// # Errors
/// What is wrong with the bundle, or refused by the kernel.
pub fn main(global: &Global, args: Args) -> Result<()> {
    spec::validate_id(&args.id)?;
    global.standing().admit()?;
    let mut bundle = args.bundle.load(global)?;
    super::exe::protect(&bundle.spec)?;
    let notify = notify_socket::offer(&mut bundle.spec);
    let log = global.log();
    let mut warn = |text: String| log.warn(&text);
    let options = Options { notify, warn: Some(&mut warn), ..args.bundle.options(global)? };
    create::create(&global.open_root()?, &args.id, &bundle, options).map(drop)
}
