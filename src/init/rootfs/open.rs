//! What the creator opens before the clone.

use std::os::fd::{AsFd, OwnedFd};

use super::plan::MountKind;
use super::{Rootfs, bind, idmap, open_rootfs};
use crate::error::{At, Context, Result};
use crate::sys::mount::{AT_RECURSIVE, MountAttr, OPEN_TREE_CLONE, mount_setattr, open_tree};
use crate::sys::{Errno, calls};

/// Detached mounts, inherited by the clone.
#[derive(Debug, Default)]
pub(super) struct Opened {
    /// A copy of the root file system, where the child may not be able to reach it.
    pub rootfs: Option<OwnedFd>,
    /// For each mount its source, where the child may not be able to reach it.
    pub mounts: Vec<Option<OwnedFd>>,
    /// For each device the host's node, where nodes cannot be made.
    pub devices: Vec<Option<OwnedFd>>,
}

impl Rootfs {
    /// Opens, in the creator and before the clone, what the child cannot: with a user namespace the root file system,
    /// the sources of bind mounts and the host's device nodes.
    /// Without the privilege for it nothing is opened, and init opens all; without the calls for it all is lent to init in
    /// the mount namespace that is made for it in a user namespace of the container's (`own_mounts`).
    ///
    /// # Errors
    /// Where `root.path` is missing, no directory, or reached through a symbolic link; where a source is missing; where ids
    /// of a mount are to be mapped, and the calls for that are not there.
    pub fn open(&mut self, own_mounts: bool) -> Result<()> {
        let rootfs = open_rootfs(&self.plan.rootfs)?;
        let userns = self.plan.userns;
        if userns {
            let mapped = self.plan.mounts.iter().any(|planned| planned.idmap.is_some());
            let tree = match open_tree(rootfs.as_fd(), c"", OPEN_TREE_CLONE | AT_RECURSIVE) {
                Ok(tree) if mapped || calls::can_mount_detached() => tree,
                // The creator has no privilege in its mount namespace either, and what init cannot reach, nobody can; or it
                // lacks the calls.
                Ok(_) | Err(Errno::EPERM | Errno::ENOSYS) if !mapped => {
                    self.lent = own_mounts && is_privileged();
                    return Ok(());
                }
                opened => opened.at("open", "root.path")?,
            };
            self.detach_from_host(&tree)?;
            self.opened.rootfs = Some(tree);
        }
        let mut namespaces = idmap::Namespaces::default();
        for planned in &self.plan.mounts {
            let opened = match &planned.kind {
                MountKind::Bind { source, recursive } if userns || planned.idmap.is_some() => {
                    let object = format!("/{}", planned.destination);
                    let mut open = || -> Result<OwnedFd> {
                        let tree = bind::open_source(source, *recursive)?;
                        self.detach_from_host(&tree)?;
                        if let Some(idmap) = &planned.idmap {
                            namespaces.map(&tree, idmap, &object)?;
                        }
                        bind::set_attributes(&tree, &planned.options, &object)?;
                        Ok(tree)
                    };
                    Some(open().context(|| format!("$.mounts[{}]", planned.index))?)
                }
                _ => None,
            };
            self.opened.mounts.push(opened);
        }
        for device in &self.plan.devices {
            self.opened.devices.push(if userns { device.open()? } else { None });
        }
        Ok(())
    }

    /// A copy made in the creator's namespace is a peer of the host's mount: it gets the propagation that it would
    /// have had if the child had made it.
    fn detach_from_host(&self, tree: &OwnedFd) -> Result<()> {
        let propagation = self.plan.propagation;
        if propagation.shares() {
            return Ok(());
        }
        let attr = MountAttr { propagation: propagation.initial & !libc::MS_REC, ..MountAttr::default() };
        mount_setattr(tree.as_fd(), AT_RECURSIVE, &attr).at("set propagation of", "a bind source")
    }
}

fn is_privileged() -> bool {
    caps::has_cap(None, caps::CapSet::Effective, caps::Capability::CAP_SYS_ADMIN).unwrap_or(false)
}
