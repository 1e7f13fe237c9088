//! The hook that runs now in the runtime's namespaces, on record: if the runtime dies, nothing else leads to it.
//!
//! Hooks of the container's namespaces are processes of the container and end with it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use oci_spec::runtime::Hook;

use crate::container::hooks::{Kind, Runner, path_alone};
use crate::container::identity::{self, ProcessId};
use crate::container::state::{Record, overwrite};
use crate::error::{At, Error, Result};
use crate::sys::{Errno, path, pidfd};

/// The file in the container's directory: kind, pid and start time.
const FILE: &std::ffi::CStr = c"hook";

/// Runs a list of hooks in the caller's namespaces, each on record in the container's directory while it runs; what
/// failed without being fatal is returned.
///
/// # Errors
/// As [`Runner::run`]; a hook that cannot be recorded does not begin.
pub fn run(directory: BorrowedFd<'_>, kind: Kind, hooks: &[Hook], state: &[u8]) -> Result<Vec<Error>> {
    if hooks.is_empty() {
        return Ok(Vec::new());
    }
    let mut record = |pid| {
        let id = identity::identify(pid)?.ok_or_else(|| Error::Other("it has ended".to_owned()))?;
        overwrite(directory, FILE, format!("{} {id}", kind.name()).as_bytes()).at("record", "the hook")
    };
    let env = path_alone();
    let ran = Runner { kind, state, default_env: &env, prepare: None, on_start: &mut record, caller: None }.run(hooks);
    // Its process was waited for, whatever came of it.
    let _ = path::unlinkat(directory, FILE, 0);
    ran
}

/// The hook on record, in words, where it runs.
///
/// # Errors
/// Where it cannot be looked for.
pub fn running(directory: BorrowedFd<'_>, record: &Record) -> Result<Option<String>> {
    Ok(find(directory, record)?.map(|hook| hook.name))
}

/// A hook that runs.
struct Found {
    name: String,
    id: ProcessId,
    pidfd: OwnedFd,
}

fn find(directory: BorrowedFd<'_>, record: &Record) -> Result<Option<Found>> {
    let text = match path::read_at(directory, FILE, 128) {
        Ok(text) => text,
        Err(Errno::ENOENT) => return Ok(None),
        Err(errno) => return Err(Error::sys("read the hook's record of", &record.id, errno)),
    };
    // A record without words is of a hook whose program never began. Pids of another boot name nothing.
    let Some((kind, id)) = std::str::from_utf8(&text).ok().and_then(|text| text.split_once(' ')) else {
        return Ok(None);
    };
    let Ok(id) = id.parse::<ProcessId>() else { return Ok(None) };
    if record.boot_id != identity::boot_id()? {
        return Ok(None);
    }
    let Some(pidfd) = identity::open(id)? else { return Ok(None) };
    Ok(Some(Found { name: format!("{kind} hook, process {}", id.pid), id, pidfd }))
}

/// Ends a hook that a runtime which died has left running, with its process group. Says what was ended, if anything.
///
/// # Errors
/// Where it does not end by the deadline, or cannot be looked for.
pub fn end(directory: BorrowedFd<'_>, record: &Record, deadline: Instant) -> Result<Option<String>> {
    let Some(hook) = find(directory, record)? else { return Ok(None) };
    hook.kill()?;
    let wait = deadline.saturating_duration_since(Instant::now());
    let wait = i32::try_from(wait.as_millis()).unwrap_or(i32::MAX);
    if !pidfd::wait_end(hook.pidfd.as_fd(), wait).at("wait for", &hook.name)? {
        return Err(Error::Other(format!("{}, which SIGKILL has not ended", hook.name)));
    }
    Ok(Some(hook.name))
}

/// Kills a hook that a runtime waits for, with its process group. Not a poststop hook: there is nothing left to be waited for
/// but what it cleans up.
///
/// # Errors
/// Where it cannot be looked for, or signalled.
pub fn interrupt(directory: BorrowedFd<'_>, record: &Record) -> Result<()> {
    match find(directory, record)? {
        Some(hook) if !hook.name.starts_with(Kind::Poststop.name()) => hook.kill(),
        _ => Ok(()),
    }
}

impl Found {
    fn kill(&self) -> Result<()> {
        // Another failure means that it leads no group of its own yet, or not any more.
        if let Err(Errno::EINVAL) = pidfd::signal_group(self.pidfd.as_fd(), libc::SIGKILL) {
            // Before Linux 6.9. It was alive just now, and a pid is not given out again at once.
            let group = nix::unistd::Pid::from_raw(self.id.pid);
            let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
        }
        match pidfd::send_signal(self.pidfd.as_fd(), libc::SIGKILL) {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(errno) => Err(Error::sys("kill", &self.name, errno)),
        }
    }
}
