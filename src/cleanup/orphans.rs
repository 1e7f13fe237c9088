//! Orphans: processes of a container that have left its cgroups, and that no pid namespace ends.
//!
//! With a pid namespace of its own the kernel ends every process of a container with the first one. Without, the cgroup
//! says who belongs to it, and whoever was moved out of that is found by the container's mount namespace: its number
//! (`NS_GET_MNTNS_ID`, Linux 6.11) is recorded with the first process, and is never given out again during a boot.

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::time::Instant;

use schemars::JsonSchema;
use serde::Serialize;

use crate::container::identity::{self, ProcessId};
use crate::container::record::{read_init, read_record};
use crate::container::root::Root;
use crate::container::state::{Directory, Record};
use crate::error::{At, Error, Result};
use crate::sys::{Errno, namespace, path, pidfd};

/// A process that has outlived its container's release, or is about to.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Orphan {
    /// Which.
    #[serde(flatten)]
    pub process: ProcessId,
    /// The name of its program (`/proc/<pid>/comm`).
    pub name: String,
}

impl Orphan {
    /// In words.
    pub fn words(&self) -> String {
        format!("orphan process {} `{}`, outside of its container's cgroups", self.process.pid, self.name)
    }
}

/// The number of a process's mount namespace; `None` where it has ended, or the kernel gives namespaces no numbers.
pub fn mount_namespace(pid: libc::pid_t) -> Option<u64> {
    let namespace = path::open(format!("/proc/{pid}/ns/mnt"), libc::O_RDONLY).ok()?;
    namespace::mount_namespace_id(namespace.as_fd()).ok()
}

/// The orphans of a container, of those processes that its cgroups do not hold; none where it has a pid namespace of its
/// own, or no mount namespace on record. Members of other containers of this root, which may have joined the namespace,
/// are none.
///
/// # Errors
/// Where `/proc` cannot be read.
pub fn of(root: &Root, directory: &Directory, record: &Record) -> Result<Vec<Orphan>> {
    find(root, directory.fd(), record)
}

/// The same of a directory that is only looked at.
///
/// # Errors
/// As [`of`].
pub fn find(root: &Root, directory: std::os::fd::BorrowedFd<'_>, record: &Record) -> Result<Vec<Orphan>> {
    if record.own_pid_namespace || record.boot_id != identity::boot_id()? {
        return Ok(Vec::new());
    }
    let init = read_init(directory, &record.id)?;
    let Some(wanted) = init.and_then(|init| init.mount_namespace) else { return Ok(Vec::new()) };
    let mut pids = inside(wanted)?;
    if pids.is_empty() {
        return Ok(Vec::new());
    }
    let members = members(root, record)?;
    pids.retain(|pid| !members.contains(pid));
    let mut orphans = Vec::new();
    for pid in pids {
        // Looked at again by what the pid names now.
        if let Some(process) = identity::identify(pid)?.filter(|_| mount_namespace(pid) == Some(wanted)) {
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            orphans.push(Orphan { process, name: name.trim_end().to_owned() });
        }
    }
    Ok(orphans)
}

/// Every process in a mount namespace.
fn inside(wanted: u64) -> Result<Vec<libc::pid_t>> {
    let own = std::fs::read_link("/proc/self/ns/mnt").at("read", "/proc/self/ns/mnt")?;
    let mut pids = Vec::new();
    for entry in std::fs::read_dir("/proc").at("read", "/proc")? {
        let name = entry.at("read", "/proc")?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        // Most are in the runtime's own.
        let other = std::fs::read_link(format!("/proc/{pid}/ns/mnt")).is_ok_and(|namespace| namespace != own);
        if other && mount_namespace(pid) == Some(wanted) {
            pids.push(pid);
        }
    }
    Ok(pids)
}

/// Who is in the cgroups of this container, and of all others.
fn members(root: &Root, record: &Record) -> Result<BTreeSet<libc::pid_t>> {
    let mut members: BTreeSet<_> = record.cgroup.open().procs()?.into_iter().collect();
    for id in root.ids()?.into_iter().filter(|id| *id != record.id) {
        // One that is gone by now has no members.
        let other = root.open_directory(&id).and_then(|directory| read_record(directory.as_fd(), &id));
        if let Ok(other) = other {
            members.extend(other.cgroup.open().procs()?);
        }
    }
    Ok(members)
}

/// Kills an orphan by its handle and waits for its end; false where it has ended before.
///
/// # Errors
/// Where it does not end by the deadline.
pub fn end(orphan: ProcessId, deadline: Instant) -> Result<bool> {
    let Some(pidfd) = identity::open(orphan)? else { return Ok(false) };
    match pidfd::send_signal(pidfd.as_fd(), libc::SIGKILL) {
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(errno) => return Err(Error::sys("kill process", orphan.pid, errno)),
    }
    let wait = deadline.saturating_duration_since(Instant::now());
    match pidfd::wait_end(pidfd.as_fd(), i32::try_from(wait.as_millis()).unwrap_or(i32::MAX)) {
        Ok(true) => Ok(true),
        Ok(false) => Err(Error::Other(format!("process {}, which SIGKILL has not ended", orphan.pid))),
        Err(errno) => Err(Error::sys("wait for process", orphan.pid, errno)),
    }
}
