//! Which process a number on disk means: a pid, its start time, the boot.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{At, Error, Result};
pub use crate::sys::proc_handle::field;
use crate::sys::{Errno, capability, path, pidfd, process};

/// A process: its pid and when it started. The pair never names two processes of one boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct ProcessId {
    /// Its pid in the runtime's pid namespace.
    pub pid: libc::pid_t,
    /// Clock ticks since boot when it started (`proc_pid_stat(5)`, field 22).
    pub start_time: u64,
}

impl std::fmt::Display for ProcessId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.pid, self.start_time)
    }
}

impl std::str::FromStr for ProcessId {
    type Err = ();

    fn from_str(text: &str) -> std::result::Result<Self, ()> {
        let (pid, start_time) = text.split_once(' ').ok_or(())?;
        Ok(ProcessId { pid: pid.parse().map_err(drop)?, start_time: start_time.parse().map_err(drop)? })
    }
}

/// The calling process.
///
/// # Errors
/// Where `/proc` cannot be read.
pub fn this_process() -> Result<ProcessId> {
    identify(std::process::id() as libc::pid_t)?.ok_or_else(|| Error::sys("read", "/proc/self/stat", Errno::ENOENT))
}

/// The process that has this pid now, or `None`.
///
/// # Errors
/// Where `/proc` cannot be read.
pub fn identify(pid: libc::pid_t) -> Result<Option<ProcessId>> {
    Ok(locate(pid)?.map(|(process, _)| process))
}

/// The same, and the processor that it was last on, or waits for.
///
/// # Errors
/// Where `/proc` cannot be read.
pub fn locate(pid: libc::pid_t) -> Result<Option<(ProcessId, usize)>> {
    let Some(stat) = stat(pid)? else { return Ok(None) };
    let number = |which, name: &str| {
        let number = field(&stat, which).and_then(|text| text.parse::<u64>().ok());
        number.ok_or_else(|| Error::Other(format!("`/proc/{pid}/stat` has no {name}")))
    };
    Ok(Some((ProcessId { pid, start_time: number(22, "start time")? }, number(39, "processor")? as usize)))
}

/// Whether a process has executed a program since its clone; true of one that is gone.
///
/// # Errors
/// Where `/proc` cannot be read.
pub fn has_executed(process: ProcessId) -> Result<bool> {
    /// Forked, but not executed anything (`include/linux/sched.h`).
    const PF_FORKNOEXEC: u64 = 0x40;
    let Some(stat) = stat(process.pid)? else { return Ok(true) };
    let number = |which| field(&stat, which).and_then(|text| text.parse::<u64>().ok());
    let another = number(22) != Some(process.start_time);
    Ok(another || number(9).is_none_or(|flags| flags & PF_FORKNOEXEC == 0))
}

/// The raw wait status of a process that has ended and waits to be reaped by its parent; `None` where it does not, or this
/// process may not look.
///
/// # Errors
/// Where `/proc` cannot be read.
pub fn status_of_zombie(process: ProcessId, pidfd: BorrowedFd<'_>) -> Result<Option<i32>> {
    let Some(stat) = stat(process.pid)? else { return Ok(None) };
    // Until it is reaped nobody else has its pid.
    let zombie = field(&stat, 3) == Some("Z") && pidfd::send_signal(pidfd, 0).is_ok();
    // To whom may not look, the kernel shows 0.
    let trusted = |status: &i32| *status != 0 || (may_trace() && !process::in_user_namespace());
    Ok(field(&stat, 52).and_then(|text| text.parse().ok()).filter(trusted).filter(|_| zombie))
}

fn may_trace() -> bool {
    const SYS_PTRACE: u64 = 1 << 19;
    capability::capget().is_ok_and(|(effective, ..)| effective & SYS_PTRACE != 0)
}

fn stat(pid: libc::pid_t) -> Result<Option<Vec<u8>>> {
    let file = format!("/proc/{pid}/stat");
    match path::read_at(path::CWD, &path::c_path(&file).at("name", &file)?, 4096) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::ENOENT | Errno::ESRCH) => Ok(None),
        Err(errno) => Err(Error::sys("read", file, errno)),
    }
}

/// A handle of this very process, or `None` where it has ended (a zombie has).
///
/// # Errors
/// Where pidfds or `/proc` do not work.
pub fn open(process: ProcessId) -> Result<Option<OwnedFd>> {
    let pidfd = match pidfd::open(process.pid) {
        Ok(pidfd) => pidfd,
        // EINVAL: the pid is in use, but by a thread.
        Err(Errno::ESRCH | Errno::EINVAL) => return Ok(None),
        Err(errno) => return Err(Error::sys("open a pidfd of", process.pid, errno)),
    };
    // The handle comes first, so that the start time read next is of the process it names, or of
    // nobody where that has ended meanwhile.
    if identify(process.pid)? != Some(process) || pidfd::wait_end(pidfd.as_fd(), 0).at("poll", process.pid)? {
        return Ok(None);
    }
    Ok(Some(pidfd))
}

/// The boot's id (`/proc/sys/kernel/random/boot_id`).
///
/// # Errors
/// Where `/proc` cannot be read.
pub fn boot_id() -> Result<String> {
    const FILE: &std::ffi::CStr = c"/proc/sys/kernel/random/boot_id";
    let bytes = path::read_at(path::CWD, FILE, 64).at("read", FILE.to_string_lossy())?;
    Ok(String::from_utf8_lossy(&bytes).trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_time_is_found_behind_any_process_name() {
        let rest = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20";
        for name in ["cat", "a) b (c", ")))", "\u{1b}[31m"] {
            assert_eq!(field(format!("12 ({name}) {rest}").as_bytes(), 22), Some("4711"), "{name}");
        }
        assert_eq!(field(b"12 (cat) S 1", 22), None);
    }

    #[test]
    fn a_recycled_pid_is_not_the_process_recorded() {
        let me = this_process().unwrap();
        assert!(open(me).unwrap().is_some());
        assert!(open(ProcessId { start_time: me.start_time + 1, ..me }).unwrap().is_none());
    }
}
