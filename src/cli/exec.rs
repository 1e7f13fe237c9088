//! `rustbox exec`.

use std::os::fd::AsFd;
use std::path::PathBuf;

use oci_spec::runtime::{Capabilities, LinuxCapabilities, Process, Spec, User};

use crate::cgroup::SubCgroups;
use crate::cli::create::connect_to;
use crate::cli::{Global, report};
use crate::container::console;
use crate::container::exec::{Options, Target, exec};
use crate::container::foreground::{Signals, wait};
use crate::error::{Error, Result};
use crate::spec;

/// Run one more process in a container
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Unix socket that gets the master end of the process's terminal
    #[arg(long, value_name = "SOCKET")]
    console_socket: Option<PathBuf>,
    /// Working directory in the container
    #[arg(long, value_name = "DIR")]
    cwd: Option<PathBuf>,
    /// Add to the environment
    #[arg(short, long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Give the process a terminal
    #[arg(short, long, value_name = "WHETHER", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, hide_default_value = true, hide_possible_values = true, action = clap::ArgAction::Set)]
    tty: bool,
    /// Run as this user, by number
    #[arg(short, long, value_name = "UID[:GID]")]
    user: Option<String>,
    /// Add supplementary groups, by number
    #[arg(short = 'g', long, value_name = "GID")]
    additional_gids: Vec<u32>,
    /// Take the whole process from this JSON document
    #[arg(short, long, value_name = "FILE")]
    process: Option<PathBuf>,
    /// Return once the process is started
    #[arg(short, long)]
    detach: bool,
    /// File that gets the pid of the process
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// Label of the process for SELinux
    #[arg(long, value_name = "LABEL")]
    process_label: Option<String>,
    /// Profile of the process for AppArmor
    #[arg(long, value_name = "PROFILE")]
    apparmor: Option<String>,
    /// Set no_new_privs
    #[arg(long)]
    no_new_privs: bool,
    /// Add a capability to the bounding, effective and permitted sets
    #[arg(short, long, value_name = "CAP")]
    cap: Vec<String>,
    /// Number of file descriptors, from 3 on, that the process inherits
    #[arg(long, value_name = "N", default_value_t = 0)]
    preserve_fds: u32,
    /// Put the process into a cgroup below the container's, of some v1 controllers or of all
    #[arg(long, value_name = "[CONTROLLER:]PATH")]
    cgroup: Vec<String>,
    /// Allow it in a paused container
    #[arg(long)]
    ignore_paused: bool,
    /// Name of the container
    #[arg(value_name = "ID")]
    id: String,
    /// The program and its arguments
    #[arg(value_name = "COMMAND", trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// Runs `exec`. A process that could not be started is status 255, as with runc.
pub fn main(global: &Global, args: Args) -> u8 {
    match run(global, &args) {
        Ok(status) => status,
        Err(error @ Error::Usage(_)) => report(global, &error),
        Err(error) => {
            report(global, &error);
            255
        }
    }
}

fn run(global: &Global, args: &Args) -> Result<u8> {
    if args.command.is_empty() && args.process.is_none() {
        return Err(Error::Usage("exec needs a COMMAND, or --process FILE".to_owned()));
    }
    let root = global.open_root()?;
    let target = Target::open(&root, &args.id)?;
    let log = global.log();
    let mut process = args.document(&target.spec, &mut |text| log.warn(&text))?;
    super::exe::protect(&target.spec)?;
    let mut options = Options {
        pid_file: args.pid_file.clone(),
        console_socket: args.console_socket.as_deref().map(connect_to).transpose()?,
        preserve_fds: args.preserve_fds,
        ignore_paused: args.ignore_paused,
        cgroups: SubCgroups::parse(&args.cgroup)?,
    };
    if args.detach {
        return exec(&root, &target, &process, &options, None).map(|_| 0);
    }
    let signals = Signals::take()?;
    let mut terminal = None;
    if options.console_socket.is_none() && process.terminal() == Some(true) {
        console::size_like_the_callers(&mut process);
        let (theirs, ours) = console::socket()?;
        options.console_socket = Some(theirs);
        terminal = Some(ours);
    }
    let child = exec(&root, &target, &process, &options, Some(&signals.ending()?))?;
    let ended = match terminal {
        Some(socket) => console::wait(&child.pidfd, &signals, socket.as_fd())?,
        None => wait(&child.pidfd, &signals)?,
    };
    Ok(ended.status())
}

impl Args {
    /// The process document: the file's, or the container's own process changed by the options.
    fn document(&self, spec: &Spec, warn: &mut dyn FnMut(String)) -> Result<Process> {
        if let Some(path) = &self.process {
            if !self.command.is_empty() {
                return Err(Error::Usage("exec takes a COMMAND or --process, not both".to_owned()));
            }
            return spec::load_process(path);
        }
        let mut process = spec.process().clone().unwrap_or_default();
        process.set_args(Some(self.command.clone()));
        process.set_terminal(Some(self.tty));
        if let Some(cwd) = &self.cwd {
            process.set_cwd(cwd.clone());
        }
        if !self.env.is_empty() {
            let mut env = process.env().clone().unwrap_or_default();
            env.extend(self.env.iter().cloned());
            process.set_env(Some(env));
        }
        if let Some(user) = &self.user {
            process.set_user(self.parse_user(user, process.user())?);
        }
        if !self.additional_gids.is_empty() {
            let mut user = process.user().clone();
            let mut gids = user.additional_gids().clone().unwrap_or_default();
            gids.extend(&self.additional_gids);
            user.set_additional_gids(Some(gids));
            process.set_user(user);
        }
        if self.process_label.is_some() {
            process.set_selinux_label(self.process_label.clone());
        }
        if self.apparmor.is_some() {
            process.set_apparmor_profile(self.apparmor.clone());
        }
        if self.no_new_privs {
            process.set_no_new_privileges(Some(true));
        }
        if !self.cap.is_empty() {
            let capabilities = process.capabilities().clone().unwrap_or_default();
            process.set_capabilities(Some(self.with_capabilities(capabilities, warn)));
        }
        Ok(process)
    }

    fn parse_user(&self, text: &str, present: &User) -> Result<User> {
        let number = |part: &str| {
            part.parse::<u32>().map_err(|_| Error::Usage(format!("--user `{text}` is not UID or UID:GID in numbers")))
        };
        let mut user = present.clone();
        match text.split_once(':') {
            Some((uid, gid)) => {
                user.set_uid(number(uid)?);
                user.set_gid(number(gid)?);
            }
            None => {
                user.set_uid(number(text)?);
            }
        }
        Ok(user)
    }

    /// Neither inheritable nor ambient: a program with inheritable file capabilities would hand them on (CVE-2022-29162).
    /// A name that is unknown here may be known to a newer kernel's tools: a warning, as in a configuration.
    fn with_capabilities(&self, mut all: LinuxCapabilities, warn: &mut dyn FnMut(String)) -> LinuxCapabilities {
        for name in &self.cap {
            let Ok(capability) = serde_json::from_value(serde_json::Value::String(name.to_ascii_uppercase())) else {
                warn(format!("--cap: ignoring `{name}`, which is no capability such as CAP_NET_RAW"));
                continue;
            };
            let with = |set: &Option<Capabilities>| {
                let mut set = set.clone().unwrap_or_default();
                set.insert(capability);
                Some(set)
            };
            all.set_bounding(with(all.bounding()));
            all.set_effective(with(all.effective()));
            all.set_permitted(with(all.permitted()));
        }
        all
    }
}
