//! `kill`: a signal to the first process, or to all.

use std::os::fd::AsFd;

use crate::container::root::Root;
use crate::container::state::{Status, status};
use crate::error::{At, Error, Result};
use crate::judge::monitor;
use crate::sys::{Errno, pidfd};

/// Sends `signal` to the container's first process; with `all`, to every process of its cgroups. In a cgroup that
/// others were in before, nobody but the first process is known to be the container's.
///
/// # Errors
/// [`Error::State`] where the container has no process ("kill", runtime specification).
pub fn kill(root: &Root, id: &str, signal: i32, all: bool) -> Result<()> {
    let (dir, record) = root.look(id)?;
    let (now, live) = status(dir.as_fd(), &record)?;
    // Without a pid namespace of its own, the death of the first process ends nobody else.
    let cgroup = record.cgroup.open();
    monitor::signalled(dir.as_fd(), &record, signal)?;
    if (all || (signal == libc::SIGKILL && !record.own_pid_namespace)) && !cgroup.is_shared() {
        if signal == libc::SIGKILL {
            return cgroup.kill().map(drop);
        }
        return cgroup.signal(signal).map(drop);
    }
    match live {
        Some(live) if matches!(now, Status::Created | Status::Running | Status::Paused) => {
            send(&live.pidfd, signal, live.process.pid)
        }
        // containerd knows a container that has ended by these words of runc.
        _ => Err(Error::state(id, format!("cannot be signalled: container not running (it is {now})"))),
    }
}

fn send(pidfd: &std::os::fd::OwnedFd, signal: i32, pid: libc::pid_t) -> Result<()> {
    match pidfd::send_signal(pidfd.as_fd(), signal) {
        Err(Errno::ESRCH) => Ok(()),
        other => other.at("signal process", pid),
    }
}

/// The number of a signal given as `9`, `KILL`, `SIGKILL` or `SIGRTMIN+3`; 0 asks whether there is somebody to signal, as
/// with kill(2).
///
/// # Errors
/// [`Error::Usage`] where there is no such signal.
pub fn parse_signal(text: &str) -> Result<i32> {
    let unknown = || Error::Usage(format!("unknown signal `{text}`"));
    if let Ok(number) = text.parse::<i32>() {
        return if (0..=64).contains(&number) { Ok(number) } else { Err(unknown()) };
    }
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    for (base, start) in [("RTMIN", libc::SIGRTMIN()), ("RTMAX", libc::SIGRTMAX())] {
        if let Some(rest) = name.strip_prefix(base) {
            let offset = if rest.is_empty() { 0 } else { rest.parse::<i32>().map_err(|_| unknown())? };
            let number = start + offset;
            return if (libc::SIGRTMIN()..=libc::SIGRTMAX()).contains(&number) { Ok(number) } else { Err(unknown()) };
        }
    }
    let name = match name {
        "CLD" => "CHLD",
        "POLL" => "IO",
        "IOT" => "ABRT",
        name => name,
    };
    format!("SIG{name}").parse::<nix::sys::signal::Signal>().map(|signal| signal as i32).map_err(|_| unknown())
}

#[cfg(test)]
mod tests {
    use super::parse_signal;

    #[test]
    fn signals_are_named_as_people_name_them() {
        for (text, number) in [
            ("9", 9),
            ("KILL", 9),
            ("SIGKILL", 9),
            ("sigterm", 15),
            ("hup", 1),
            ("SIGCLD", 17),
            ("RTMIN+1", 35),
            ("0", 0),
        ] {
            assert_eq!(parse_signal(text).unwrap(), number, "{text}");
        }
        for text in ["65", "-1", "", "SIG", "SIGNOPE", "RTMIN+99", "9x"] {
            assert!(parse_signal(text).is_err(), "{text}");
        }
    }
}
