//! Options of every command. They stand before or after the command's name.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::cli::Command;
use crate::cli::log::Log;
use crate::container::root::Root;
use crate::error::Result;
use crate::judge::monitor;
use crate::sys::process;
use crate::worker::{Standing, metrics};

/// How lines of the log are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// `time="…" level=error msg="…"`
    Text,
    /// `{"level":"error","msg":"…","time":"…"}`
    Json,
}

/// Whether the runtime lacks privilege on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Rootless {
    /// As its user id says.
    Auto,
    /// Yes.
    True,
    /// No.
    False,
}

/// Who makes cgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CgroupManager {
    /// The runtime, by cgroupfs.
    Cgroupfs,
    /// systemd.
    Systemd,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Directory of the containers' states [default: /run/rustbox, or $XDG_RUNTIME_DIR/rustbox]
    #[arg(long, global = true, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Directory of the worker's health, which survives reboots [default: $RUSTBOX_STATE_DIR, /var/lib/rustbox, or $XDG_STATE_HOME/rustbox]
    #[arg(long, global = true, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Append the log to this file; errors also go to stderr
    #[arg(long, global = true, value_name = "FILE")]
    log: Option<PathBuf>,
    /// How lines of the log are written
    #[arg(long, global = true, value_name = "FORMAT", default_value = "text")]
    log_format: LogFormat,
    /// Log what is done, too
    #[arg(long, global = true)]
    debug: bool,
    /// Make cgroups through systemd; cgroupsPath is then slice:prefix:name
    #[arg(long, global = true)]
    systemd_cgroup: bool,
    /// Who makes cgroups: the runtime by itself, or systemd (as --systemd-cgroup)
    #[arg(long, global = true, value_name = "MANAGER", default_value = "cgroupfs")]
    cgroup_manager: CgroupManager,
    /// The criu program, for checkpoint and restore
    #[arg(long, global = true, value_name = "PROGRAM", default_value = "criu")]
    pub criu: std::ffi::OsString,
    /// Of `create` and `run`: an annotation of the configuration, in place of its own of that name; for engines that pass none on
    #[arg(long, global = true, value_name = "NAME=VALUE", value_parser = annotation)]
    pub annotation: Vec<(String, String)>,
    /// Of a judged `run`: say what this host can do for it, and run nothing
    #[arg(long, global = true)]
    pub dry_run: bool,
    /// Whether the runtime lacks privilege on the host
    #[arg(long, global = true, value_name = "WHETHER", default_value = "auto", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    rootless: Rootless,
}

impl Global {
    /// The state root, made where it is missing.
    ///
    /// # Errors
    /// As [`Root::open`].
    pub fn open_root(&self) -> Result<Root> {
        Root::open(&self.root_path())
    }

    /// Path of the state root.
    pub fn root_path(&self) -> PathBuf {
        match &self.root {
            Some(root) => std::path::absolute(root).unwrap_or_else(|_| root.clone()),
            None => match std::env::var_os("XDG_RUNTIME_DIR") {
                Some(dir) if self.rootless() || in_users_namespace() => PathBuf::from(dir).join("rustbox"),
                _ => PathBuf::from("/run/rustbox"),
            },
        }
    }

    /// The worker's standing.
    pub fn standing(&self) -> Standing {
        Standing::new(self.worker_path())
    }

    /// The file of the worker's counts.
    pub fn metrics_file(&self) -> PathBuf {
        self.worker_path().join(metrics::file::NAME)
    }

    /// Directory of what survives reboots.
    pub fn worker_path(&self) -> PathBuf {
        let home = |name: &str, below: &str| std::env::var_os(name).map(|dir| PathBuf::from(dir).join(below));
        let given = self.state_dir.clone().or_else(|| std::env::var_os("RUSTBOX_STATE_DIR").map(PathBuf::from));
        match given {
            Some(dir) => dir,
            None if self.rootless() || in_users_namespace() => home("XDG_STATE_HOME", "rustbox")
                .or_else(|| home("HOME", ".local/state/rustbox"))
                .or_else(|| Some(users_home()?.join(".local/state/rustbox")))
                .unwrap_or_else(|| PathBuf::from("/var/lib/rustbox")),
            None => PathBuf::from("/var/lib/rustbox"),
        }
    }

    /// Where the verdicts of engines' containers are kept.
    pub fn verdicts(&self) -> PathBuf {
        self.worker_path().join(monitor::log::PLACE)
    }

    /// Where compiled programs are kept.
    pub fn cache_directory(&self) -> PathBuf {
        self.standing().directory().join("compiled")
    }

    /// Whether the runtime lacks privilege on the host.
    pub fn rootless(&self) -> bool {
        match self.rootless {
            Rootless::Auto => !nix::unistd::geteuid().is_root(),
            Rootless::True => true,
            Rootless::False => false,
        }
    }

    /// Whether systemd makes the cgroups.
    pub fn systemd_cgroup(&self) -> bool {
        self.systemd_cgroup || self.cgroup_manager == CgroupManager::Systemd
    }

    /// Whether `--rootless` was given, whatever the user id.
    pub fn asks_rootless(&self) -> bool {
        self.rootless == Rootless::True
    }

    /// Where to say things.
    pub fn log(&self) -> Log<'_> {
        Log { file: self.log.as_deref(), format: self.log_format, debug: self.debug }
    }
}

/// `--rootless true` as runc takes it: before the command the value may be a word of its own. After it the option needs
/// none, as in `spec --rootless`, and a word may be the container's.
pub fn join_rootless(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let before = Command::position(&arguments).unwrap_or(arguments.len());
    let option = arguments[..before].iter().position(|word| word == "--rootless");
    if let Some(at) = option
        && let Some(value) =
            arguments.get(at + 1).filter(|value| ["auto", "true", "false"].iter().any(|it| value == it))
    {
        let mut joined = OsString::from("--rootless=");
        joined.push(value);
        arguments.splice(at..=at + 1, [joined]);
    }
    arguments
}

fn annotation(text: &str) -> std::result::Result<(String, String), String> {
    let pair = text.split_once('=').filter(|(name, _)| !name.is_empty());
    pair.map(|(name, value)| (name.to_owned(), value.to_owned())).ok_or_else(|| format!("`{text}` is not NAME=VALUE"))
}

/// The home that /etc/passwd names: podman gives some commands no HOME, and others one.
fn users_home() -> Option<PathBuf> {
    let user = process::user_outside()?.to_string();
    let passwd = std::fs::read_to_string("/etc/passwd").ok()?;
    let home = passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields.get(2) == Some(&user.as_str()))?;
    home.get(5).filter(|home| !home.is_empty()).map(PathBuf::from)
}

/// Whether root is only the root of a user namespace, as below a rootless engine: /run and /var are not its own.
/// Who is called root there (`$USER`, which runc reads, too) has the namespace to themselves, with a /run.
fn in_users_namespace() -> bool {
    std::env::var_os("USER").is_none_or(|user| user != "root") && process::in_user_namespace()
}
