//! `linux.intelRdt`: cache and memory bandwidth allocation through resctrl (Documentation/filesystems/resctrl.rst).
//!
//! libcontainer does the work; here is what it takes for granted.

use std::path::PathBuf;

use libcontainer::process::intel_rdt::{cleanup_intel_rdt, find_resctrl_mount_point, setup_intel_rdt};
use nix::unistd::Pid;
use oci_spec::runtime::LinuxIntelRdt;

use crate::error::{At, Error, Result};

/// The directories that the runtime may make for a container, to be recorded before [`set_up`] makes them and to be
/// removed at the end.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Directories {
    /// The class of service, unless it is shared by `closID`.
    pub group: Option<PathBuf>,
    /// The monitoring group.
    pub monitoring: Option<PathBuf>,
}

/// Names the directories; refuses what this host cannot give.
///
/// # Errors
/// [`Error::Config`] for a closID that is no directory name, [`Error::Refused`] without a mounted resctrl.
pub fn plan(id: &str, document: &LinuxIntelRdt) -> Result<Directories> {
    let class = document.clos_id().as_deref();
    if let Some(name) = class
        && (name.is_empty() || name.contains(['/', '\0', '\n']) || name == "." || name == "..")
    {
        return Err(Error::config("$.linux.intelRdt.closID", "is no directory name"));
    }
    let mount = find_resctrl_mount_point()
        .map_err(|_| Error::Refused("intelRdt: no resctrl file system is mounted on this host".into()))?;
    let group = mount.join(class.unwrap_or(id));
    Ok(Directories {
        monitoring: document.enable_monitoring().unwrap_or(false).then(|| group.join("mon_groups").join(id)),
        group: class.is_none().then_some(group),
    })
}

/// Puts process `pid` into its class, making and configuring that where needed. Its children follow.
///
/// # Errors
/// What libcontainer's step says.
pub fn set_up(id: &str, document: &LinuxIntelRdt, pid: libc::pid_t) -> Result<()> {
    setup_intel_rdt(Some(id), &Pid::from_raw(pid), document)
        .map(drop)
        .map_err(|error| Error::Other(format!("intelRdt of `{id}`: {error}")))
}

/// Removes the directories; one that is gone is no error.
///
/// # Errors
/// `EBUSY` and the like, naming what remains.
pub fn remove(id: &str, directories: &Directories) -> Result<()> {
    cleanup_intel_rdt(directories.group.as_deref(), directories.monitoring.as_deref(), None, id)
        .map_err(|error| Error::Other(format!("intelRdt of `{id}`: {error}")))
}

/// A container's class of service that is in force.
#[derive(Debug)]
pub struct Class(PathBuf);

/// The class of a container that was created with this document.
///
/// # Errors
/// [`Error::Refused`] where the container has none.
pub fn class(id: &str, document: Option<&LinuxIntelRdt>) -> Result<Class> {
    let document =
        document.ok_or_else(|| Error::Refused(format!("container `{id}` was created without `linux.intelRdt`")))?;
    let mount = find_resctrl_mount_point()
        .map_err(|_| Error::Refused("intelRdt: no resctrl file system is mounted on this host".into()))?;
    Ok(Class(mount.join(document.clos_id().as_deref().unwrap_or(id))))
}

impl Class {
    /// The lines of `schemata`.
    ///
    /// # Errors
    /// As `read(2)`.
    pub fn schemata(&self) -> Result<String> {
        let file = self.0.join("schemata");
        std::fs::read_to_string(&file).at("read", file.display())
    }

    /// Writes one line of `schemata`, such as `L3:0=ff`.
    ///
    /// # Errors
    /// As `write(2)`: `EINVAL` for a schema that the processor cannot have.
    pub fn set(&self, schema: &str) -> Result<()> {
        let file = self.0.join("schemata");
        std::fs::write(&file, format!("{schema}\n")).at("write to", file.display())
    }
}
