//! The network namespace that the program's first instructions have begun, and making init in it.

use std::os::fd::{AsFd, OwnedFd};

use oci_spec::runtime::Spec;

use crate::container::namespaces::Namespaces;
use crate::container::spawn::refused;
use crate::error::{At, Result};
use crate::init::procfs::Procfs;
use crate::sys::clone::{Child, CloneArgs, clone3};
use crate::sys::wait::close_copies;
use crate::sys::{path, pidfd, process};

/// A network namespace that the creator enters for as long as it takes to make init.
#[derive(Debug)]
pub struct BirthNetwork {
    namespace: OwnedFd,
    own: OwnedFd,
}

impl BirthNetwork {
    /// Takes the namespace that was begun before all else, where it serves. It belongs to the creator's user namespace, so a
    /// container with one of its own gets it only where nothing in there can tell: a judge's, without capabilities, sysctls
    /// and a sysfs. It has to be another one than the creator's own, who may come back: the root of a user namespace that
    /// has the host's network could not.
    pub fn prepare(
        namespace: OwnedFd,
        namespaces: &Namespaces,
        spec: &Spec,
        procfs: &Procfs,
        judged: bool,
    ) -> Option<BirthNetwork> {
        let new = |flag: i32| namespaces.new & flag != 0;
        let owner = !new(libc::CLONE_NEWUSER) || (judged && cannot_tell(spec));
        if !new(libc::CLONE_NEWNET) || !owner {
            return None;
        }
        let own = path::openat(procfs.as_fd(), c"self/ns/net", libc::O_RDONLY, 0).ok()?;
        let number = |fd: &OwnedFd| path::fstat(fd.as_fd()).map(|stat| (stat.st_dev, stat.st_ino));
        // Going to where it is asks for what coming back will ask for.
        let may_return = process::setns(own.as_fd(), libc::CLONE_NEWNET).is_ok();
        let serves = may_return && number(&own).ok()? != number(&namespace).ok()?;
        serves.then_some(BirthNetwork { namespace, own })
    }

    /// Makes init in it.
    ///
    /// # Errors
    /// As `clone3(2)` and `setns(2)`; where the creator cannot come back, init has been ended.
    pub fn clone(&self, args: CloneArgs<'_>, init: impl FnOnce() -> i32) -> Result<Child> {
        process::setns(self.namespace.as_fd(), libc::CLONE_NEWNET).at("join", "the network namespace")?;
        let child = clone3(args, || {
            // Nobody in the container is to find the host's.
            close_copies(&[self.own.as_fd(), self.namespace.as_fd()]);
            init()
        });
        let child = child.map_err(refused);
        let back =
            process::setns(self.own.as_fd(), libc::CLONE_NEWNET).at("go back to", "the creator's network namespace");
        if let (Err(_), Ok(child)) = (&back, &child) {
            let _ = pidfd::send_signal(child.pidfd.as_fd(), libc::SIGKILL);
            let _ = pidfd::wait(child.pidfd.as_fd(), true);
        }
        back.and(child)
    }
}

/// Whether nothing in the container is affected by who owns its network namespace.
fn cannot_tell(spec: &Spec) -> bool {
    let sysfs = spec.mounts().iter().flatten().any(|mount| mount.typ().as_deref() == Some("sysfs"));
    let sysctl = spec.linux().as_ref().and_then(|linux| linux.sysctl().as_ref()).is_some_and(|all| !all.is_empty());
    let capabilities = spec.process().as_ref().and_then(|process| process.capabilities().as_ref());
    let capable = capabilities.is_some_and(|sets| {
        let sets = [sets.bounding(), sets.effective(), sets.inheritable(), sets.permitted(), sets.ambient()];
        sets.into_iter().flatten().any(|set| !set.is_empty())
    });
    !sysfs && !sysctl && !capable
}
