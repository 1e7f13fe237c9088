//! What a container is created with, beyond its bundle.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;

use crate::cgroup;
use crate::init::{Loader, Reaper};

/// What `create` and `run` are asked for, beyond the bundle.
#[derive(Default)]
#[expect(missing_debug_implementations, reason = "holds functions")]
pub struct Options<'a> {
    /// File that gets the pid of the container's first process.
    pub pid_file: Option<PathBuf>,
    /// Socket that gets the master of the container's terminal.
    pub console_socket: Option<OwnedFd>,
    /// Number of descriptors from 3 on that the program inherits.
    pub preserve_fds: u32,
    /// Move the mount and `chroot` instead of `pivot_root`.
    pub no_pivot: bool,
    /// Stay in the creator's session keyring.
    pub no_new_keyring: bool,
    /// `cgroupsPath` is `slice:prefix:name` for systemd.
    pub systemd_cgroup: bool,
    /// Without privilege on the host.
    pub rootless: bool,
    /// Nobody else will start the container: no gate is made.
    pub ungated: bool,
    /// Where the verdict of a container is kept that [`launch`](crate::container::run::launch) starts and that is judged.
    pub verdicts: PathBuf,
    /// For the judge.
    pub judge: Option<JudgeOptions<'a>>,
    /// The directory in the container where its program says that it is ready: [`offer`](crate::container::notify_socket::offer).
    pub notify: Option<String>,
    /// Takes what was skipped and is worth a line in the log.
    pub warn: Option<&'a mut dyn FnMut(String)>,
}

/// What the judge adds to a container.
#[expect(missing_debug_implementations, reason = "holds functions")]
pub struct JudgeOptions<'a> {
    /// Standard input, output and error of the program.
    pub stdio: [BorrowedFd<'a>; 3],
    /// The process 1 under which the program runs.
    pub reaper: &'a dyn Reaper,
    /// Loads the judge's filters.
    pub seccomp: &'a Loader<'a>,
    /// Which cgroups the sandbox gets.
    pub cgroup: cgroup::Plan,
}

/// How many sockets the caller passes by the protocol of sd_listen_fds(3).
pub(super) fn listen_fds() -> u32 {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
    match (number("LISTEN_FDS"), number("LISTEN_PID")) {
        (Some(count), Some(pid)) if pid == std::process::id() => count,
        _ => 0,
    }
}
