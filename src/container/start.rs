//! `start`: opens the gate of a created container.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::time::Instant;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::container::created::never_executed;
use crate::container::hooks::Kind;
use crate::container::identity;
use crate::container::notify_socket::Proxy;
use crate::container::report::Report;
use crate::container::root::Root;
use crate::container::running_hook;
use crate::container::state::{Directory, Record, Status, status};
use crate::error::{At, Error, Result};
use crate::judge::monitor::Monitor;
use crate::spec::missing_process;
use crate::sys::{Errno, path, pidfd};
use crate::worker::metrics;

/// How long the death of a container is waited for whose poststart hook has failed, in milliseconds.
const DEATH: i32 = 5000;

/// Starts a created container and returns once its program is executed and its poststart hooks have run, and, where systemd is
/// to hear of it, the program says that it is ready. `verdicts` is where the verdict of a judged container is kept.
///
/// # Errors
/// [`Error::State`] where it is not `created`; why the program could not be executed; or the poststart hook that has
/// failed: then the container is stopped ("Lifecycle" 9, runtime specification).
pub fn start(root: &Root, id: &str, verdicts: &Path) -> Result<()> {
    let directory = root.lock(id)?;
    let record = directory.record()?;
    let (now, live) = status(directory.fd(), &record)?;
    let (Status::Created, Some(live)) = (now, live) else {
        let next = if now == Status::Paused { "; resume it first" } else { "" };
        return Err(Error::state(id, format!("cannot be started: it is {now}{next}")));
    };
    if record.no_process {
        return Err(missing_process());
    }
    let open = |name, flags| path::openat(directory.fd(), name, flags | libc::O_NONBLOCK, 0);
    let answer = open(c"answer", libc::O_RDONLY).at("open the answer of", id)?;
    let gate = match open(c"gate", libc::O_WRONLY) {
        Err(Errno::ENXIO) => return Err(Error::state(id, "cannot be started: its first process has ended")),
        other => other.at("open the gate of", id)?,
    };
    let proxy = Proxy::open(&record, live.process.pid)?;
    let monitor = Monitor::begin(root, &directory, &record, verdicts)?;
    let begun = Instant::now();
    path::write_once(gate.as_fd(), b"s").at("open the gate of", id)?;
    drop(gate);
    let words = hear(&answer).at("hear of the start of", id)?;
    for name in [c"gate", c"answer"] {
        // Left behind by a crash, a gate without a reader means the same as none.
        let _ = path::unlinkat(directory.fd(), name, 0);
    }
    let executed = words.is_empty() && identity::has_executed(live.process)?;
    if !executed {
        let error = match words.is_empty() {
            true => never_executed(),
            false => Error::Other(String::from_utf8_lossy(&words).into_owned()),
        };
        monitor.into_iter().for_each(|monitor| monitor.failed(&error));
        return Err(error);
    }
    monitor.into_iter().for_each(Monitor::started);
    metrics::started(begun.elapsed());
    poststart(&directory, &record, live.process.pid).inspect_err(|_| {
        // The hook's failure is the error to tell; what cannot be stopped here shows in `state` and `delete`.
        let _ = pidfd::send_signal(live.pidfd.as_fd(), libc::SIGKILL);
        if !record.own_pid_namespace {
            let _ = record.cgroup.open().kill();
        }
        let _ = pidfd::wait_end(live.pidfd.as_fd(), DEATH);
    })?;
    // Others may do with the container what they like meanwhile.
    drop(directory);
    proxy.map_or(Ok(()), |proxy| proxy.wait(live.pidfd.as_fd()))
}

/// Runs the poststart hooks.
///
/// # Errors
/// The first failure.
pub fn poststart(directory: &Directory, record: &Record, pid: libc::pid_t) -> Result<()> {
    let hooks = record.hooks.as_ref().and_then(|hooks| hooks.poststart().as_deref()).unwrap_or_default();
    let state = Report::for_hooks(record, Status::Running, pid);
    running_hook::run(directory.fd(), Kind::Poststart, hooks, &state).map(drop)
}

/// Reads until init's end closes: by a successful exec with nothing said, else after words of failure.
fn hear(answer: &OwnedFd) -> crate::sys::Result<Vec<u8>> {
    let mut words = Vec::new();
    let mut buffer = [0u8; 4096];
    loop {
        let mut poll_fd = [PollFd::new(answer.as_fd(), PollFlags::POLLIN)];
        match poll(&mut poll_fd, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
        match nix::unistd::read(answer.as_raw_fd(), &mut buffer) {
            Ok(0) => return Ok(words),
            Ok(n) => words.extend_from_slice(&buffer[..n]),
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}
