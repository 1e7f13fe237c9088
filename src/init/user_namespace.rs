//! `linux.uidMappings` and `linux.gidMappings`: written by the parent of a process in a new user namespace.

use std::path::PathBuf;

use oci_spec::runtime::{HookBuilder, Linux, LinuxIdMapping};

use super::procfs::Procfs;
use crate::container::hooks;
use crate::error::{Context, Error, Result};
use crate::sys::Errno;

/// How long newuidmap and newgidmap may take, in seconds: they may ask a directory service for the user's ranges.
const HELPER_TIMEOUT: i64 = 30;

/// Which of the two maps.
#[derive(Debug, Clone, Copy)]
enum Map {
    Uid,
    Gid,
}

impl Map {
    const fn file(self) -> &'static str {
        match self {
            Map::Uid => "uid_map",
            Map::Gid => "gid_map",
        }
    }

    const fn helper(self) -> &'static str {
        match self {
            Map::Uid => "newuidmap",
            Map::Gid => "newgidmap",
        }
    }
}

/// Gives the user namespace of process `pid` its mappings.
///
/// A caller that may map anything writes them itself. One that may not (`rootless`) can map its own ids only, after
/// it has given up setgroups(2) for the namespace (user_namespaces(7)): anything else is for the setuid helpers
/// newuidmap(1) and newgidmap(1), which check /etc/subuid and /etc/subgid.
///
/// # Errors
/// [`Error::Config`] without mappings, the errno of the write, or what the helper says.
pub fn write_mappings(procfs: &Procfs, pid: libc::pid_t, linux: Option<&Linux>, rootless: bool) -> Result<()> {
    let uids = linux.and_then(|linux| linux.uid_mappings().as_deref()).unwrap_or_default();
    let gids = linux.and_then(|linux| linux.gid_mappings().as_deref()).unwrap_or_default();
    for (list, pointer) in [(uids, "$.linux.uidMappings"), (gids, "$.linux.gidMappings")] {
        if list.is_empty() {
            return Err(Error::config(pointer, "is empty, and a new user namespace needs it"));
        }
    }
    write_map(procfs, pid, Map::Uid, uids, rootless)?;
    write_map(procfs, pid, Map::Gid, gids, rootless)
}

fn write_map(procfs: &Procfs, pid: libc::pid_t, map: Map, mappings: &[LinuxIdMapping], rootless: bool) -> Result<()> {
    let lines: String = mappings
        .iter()
        .map(|range| format!("{} {} {}\n", range.container_id(), range.host_id(), range.size()))
        .collect();
    let file = format!("{pid}/{}", map.file());
    if !rootless {
        return procfs.write(&file, lines.as_bytes());
    }
    let own = match map {
        Map::Uid => nix::unistd::geteuid().as_raw(),
        Map::Gid => nix::unistd::getegid().as_raw(),
    };
    if let [only] = mappings
        && only.host_id() == own
        && only.size() == 1
    {
        if matches!(map, Map::Gid) {
            deny_setgroups(procfs, pid)?;
        }
        return procfs.write(&file, lines.as_bytes());
    }
    // "Rootless" may still be a caller with the privilege, such as root in a user namespace of its own.
    match procfs.write(&file, lines.as_bytes()) {
        Err(error) if error.errno() == Some(Errno::EPERM) => run_helper(pid, map, mappings),
        written => written,
    }
}

/// Gives setgroups(2) up in the namespace. A kernel without the file (before Linux 3.19) does not ask for it.
fn deny_setgroups(procfs: &Procfs, pid: libc::pid_t) -> Result<()> {
    match procfs.write(&format!("{pid}/setgroups"), b"deny") {
        Err(error) if error.errno() == Some(Errno::ENOENT) => Ok(()),
        written => written,
    }
}

fn run_helper(pid: libc::pid_t, map: Map, mappings: &[LinuxIdMapping]) -> Result<()> {
    let path = find(map.helper())
        .ok_or_else(|| Error::Refused(format!("`{}` is not installed, and the mappings need it", map.helper())))?;
    let mut args = vec![map.helper().to_owned(), pid.to_string()];
    for range in mappings {
        args.extend([range.container_id(), range.host_id(), range.size()].map(|number| number.to_string()));
    }
    let helper = HookBuilder::default()
        .path(path.clone())
        .args(args)
        .env(Vec::new())
        .timeout(HELPER_TIMEOUT)
        .build()
        .map_err(|error| Error::Other(error.to_string()))?;
    hooks::run_program(&helper, b"", &[], None, &mut |_| Ok(()), None).context(|| format!("`{}`", path.display()))
}

/// A helper in the caller's PATH.
fn find(name: &str) -> Option<PathBuf> {
    let directories = std::env::var_os("PATH").unwrap_or_else(|| "/usr/sbin:/usr/bin:/sbin:/bin".into());
    std::env::split_paths(&directories)
        .filter(|directory| directory.is_absolute())
        .map(|directory| directory.join(name))
        .find(|path| path.is_file())
}
