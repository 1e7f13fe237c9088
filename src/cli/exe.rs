//! The runtime's own binary, as the container may come to see it (CVE-2019-5736).
//!
//! A process that enters a container is, until it executes the program, a process of this binary:
//! `/proc/<pid>/exe` names it, and root in the container could reopen it for writing, or have it executed
//! by naming `/proc/self/exe` as its program. So for a container whose root is the host's root, the
//! runtime first executes itself from a private, detached, read-only mount of its own file: whatever
//! the container reopens cannot be written. Containers with a user namespace of their own do not own the
//! file and do not pay for this.
//!
//! [`protect`] decides it, by the parsed configuration. Nearly always it finds it done: the `rustbox-entry` crate looks at
//! the words of the command line before the program has started, because what comes before an execution is done twice.

use std::os::fd::AsFd;

use oci_spec::runtime::{LinuxNamespaceType, Spec};

use crate::error::{At, Result};
use crate::sys::mount::{MOUNT_ATTR_RDONLY, MountAttr, OPEN_TREE_CLONE, mount_setattr, open_tree};
use crate::sys::{Errno, path, process};

/// Executes this program again from a read-only mount, unless the container needs no such protection
/// or this is already the second time.
///
/// # Errors
/// Where the host offers no way to do so.
pub fn protect(spec: &Spec) -> Result<()> {
    let namespaces = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
    let user_namespace = namespaces.into_iter().flatten().any(|ns| ns.typ() == LinuxNamespaceType::User);
    if user_namespace { Ok(()) } else { execute_read_only() }
}

/// [`protect`] for a command that does not know yet which containers it will make, and cannot begin again later.
///
/// # Errors
/// As [`protect`].
pub fn protect_always() -> Result<()> {
    execute_read_only()
}

fn execute_read_only() -> Result<()> {
    const SELF: &std::ffi::CStr = c"/proc/self/exe";
    if !nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    let exe = path::openat(path::CWD, SELF, libc::O_PATH, 0).at("open", "/proc/self/exe")?;
    if path::is_read_only(exe.as_fd()).at("statvfs", "/proc/self/exe")? {
        return Ok(());
    }
    let tree = match open_tree(path::CWD, SELF, OPEN_TREE_CLONE) {
        // Root of a user namespace, which does not own the file in the first place.
        Err(Errno::EPERM) => return Ok(()),
        other => other.at("clone the mount of", "/proc/self/exe")?,
    };
    let read_only = MountAttr { attr_set: MOUNT_ATTR_RDONLY, ..MountAttr::default() };
    mount_setattr(tree.as_fd(), 0, &read_only).at("make read-only", "/proc/self/exe")?;
    let argv = process::StringVector::from_os(std::env::args_os())?;
    let envp = process::StringVector::from_environment(std::env::vars_os())?;
    Err(crate::Error::sys("execute", "/proc/self/exe", process::execve_fd(tree.as_fd(), &argv, &envp)))
}
