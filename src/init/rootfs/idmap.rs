//! Id-mapped mounts (`idmap`, `ridmap`, `uidMappings`, `gidMappings`).

use std::fmt::Write as _;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use oci_spec::runtime::LinuxIdMapping;

use super::plan::{IdmapPlan, IdmapSource};
use crate::error::{At, Error, Result};
use crate::init::procfs::Procfs;
use crate::sys::clone::{CloneArgs, clone3};
use crate::sys::mount::{AT_RECURSIVE, MOUNT_ATTR_IDMAP, MountAttr, mount_setattr};
use crate::sys::path::open;
use crate::sys::pidfd;

/// The user namespaces made for the mounts of one container; mounts with the same mapping share one.
#[derive(Debug, Default)]
pub(super) struct Namespaces {
    made: Vec<(String, String, Rc<OwnedFd>)>,
}

impl Namespaces {
    /// Maps the ids of a detached mount.
    ///
    /// # Errors
    /// `EINVAL` where the file system cannot be id-mapped, `EPERM` where it is already.
    pub fn map(&mut self, mount: &OwnedFd, plan: &IdmapPlan, object: &str) -> Result<()> {
        let namespace = match &plan.mapping {
            IdmapSource::Namespace(path) => Rc::new(open(path, libc::O_RDONLY).at("open", path.display())?),
            IdmapSource::Mappings { uids, gids } => self.of(&lines(uids), &lines(gids))?,
        };
        let attr = MountAttr {
            attr_set: MOUNT_ATTR_IDMAP,
            userns_fd: std::os::fd::AsRawFd::as_raw_fd(&*namespace) as u64,
            ..MountAttr::default()
        };
        let flags = if plan.recursive { AT_RECURSIVE } else { 0 };
        mount_setattr(mount.as_fd(), flags, &attr).at("map ids of the mount on", object)
    }

    fn of(&mut self, uids: &str, gids: &str) -> Result<Rc<OwnedFd>> {
        if let Some((_, _, made)) = self.made.iter().find(|(u, g, _)| u == uids && g == gids) {
            return Ok(made.clone());
        }
        let namespace = Rc::new(new_namespace(uids, gids)?);
        self.made.push((uids.to_owned(), gids.to_owned(), namespace.clone()));
        Ok(namespace)
    }
}

/// Mappings as `uid_map` takes them. A mount's mapping reads the other way round than a namespace's, and the kernel
/// does that itself: `containerID` is the id on disk, `hostID` what it becomes (runtime spec, "uidMappings").
fn lines(mappings: &[LinuxIdMapping]) -> String {
    let mut text = String::new();
    for mapping in mappings {
        let _ = writeln!(text, "{} {} {}", mapping.container_id(), mapping.host_id(), mapping.size());
    }
    text
}

/// A user namespace with these mappings: made by a process that lives until its handle is open.
fn new_namespace(uids: &str, gids: &str) -> Result<OwnedFd> {
    let object = "the id mapping of a mount";
    let (mut gate, opener) = std::io::pipe().at("make a pipe for", object)?;
    // The child's copy of the other end must be closed there, or it would wait for itself.
    let mut opener = Some(opener);
    let args = CloneArgs { namespaces: libc::CLONE_NEWUSER as u64, ..CloneArgs::default() };
    let child = clone3(args, || {
        opener = None;
        let _ = gate.read(&mut [0]);
        0
    })
    .at("make a user namespace for", object)?;
    let made = || -> Result<OwnedFd> {
        let proc = Procfs::open()?;
        proc.write(&format!("{}/uid_map", child.pid), uids.as_bytes())?;
        proc.write(&format!("{}/gid_map", child.pid), gids.as_bytes())?;
        let namespace = format!("/proc/{}/ns/user", child.pid);
        open(&namespace, libc::O_RDONLY).at("open", namespace)
    };
    let namespace = made();
    drop(opener.take());
    pidfd::wait(child.pidfd.as_fd(), true).at("wait for", object)?;
    if uids.is_empty() || gids.is_empty() {
        return Err(Error::Other(format!("{object} is empty")));
    }
    namespace
}
