//! The runtime's own binary, as the container may come to see it (CVE-2019-5736).
//!
//! A process that enters a container is, until it executes the program, a process of this binary:
//! `/proc/<pid>/exe` names it, and root in the container could reopen it for writing, or have it executed
//! by naming `/proc/self/exe` as its program. So for a container whose root is the host's root, the
//! runtime first executes itself from a private, detached, read-only mount of its own file, or, where such mounts are
//! missing or blocked, from a sealed copy in memory: whatever the container reopens cannot be written. Containers whose new
//! user namespace does not have the host's root do not own the file and do not pay for this.
//!
//! [`protect`] decides it, by the parsed configuration. Nearly always it finds it done: the `rustbox-entry` crate looks at
//! the words of the command line before the program has started, and maps it from such a mount, because what comes before an
//! execution is done twice.

use std::ffi::CStr;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MemFdCreateFlag, memfd_create};
use oci_spec::runtime::{LinuxNamespaceType, Spec};

use crate::error::{At, Result};
use crate::sys::mount::{MOUNT_ATTR_RDONLY, MountAttr, OPEN_TREE_CLONE, mount_setattr, open_tree};
use crate::sys::{self, Errno, path, process};

/// Executes this program again from a read-only mount, unless the container needs no such protection
/// or this is already the second time.
///
/// # Errors
/// Where the host offers no way to do so.
pub fn protect(spec: &Spec) -> Result<()> {
    if owned_by_nobody_inside(spec) { Ok(()) } else { execute_read_only() }
}

/// Whether the container's user namespace is new and gives no id of it the host's root, whose the file is.
fn owned_by_nobody_inside(spec: &Spec) -> bool {
    let Some(linux) = spec.linux() else { return false };
    let mut namespaces = linux.namespaces().iter().flatten();
    let new = namespaces.any(|ns| ns.typ() == LinuxNamespaceType::User && ns.path().is_none());
    new && !linux.uid_mappings().iter().flatten().any(|mapping| mapping.host_id() == 0 && mapping.size() > 0)
}

/// [`protect`] for a command that does not know yet which containers it will make, and cannot begin again later.
///
/// # Errors
/// As [`protect`].
pub fn protect_always() -> Result<()> {
    execute_read_only()
}

fn execute_read_only() -> Result<()> {
    const SELF: &CStr = c"/proc/self/exe";
    if !nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    let exe = path::openat(path::CWD, SELF, libc::O_RDONLY, 0).at("open", "/proc/self/exe")?;
    if path::is_read_only(exe.as_fd()).at("statvfs", "/proc/self/exe")? || is_sealed(exe.as_fd()) {
        return Ok(());
    }
    let argv = process::StringVector::from_os(std::env::args_os())?;
    let envp = process::StringVector::from_environment(std::env::vars_os())?;
    let file = match read_only_mount(SELF) {
        // Root of a user namespace, which does not own the file in the first place.
        Err(Errno::EPERM) if process::in_user_namespace() => return Ok(()),
        Err(Errno::ENOSYS | Errno::EPERM) => sealed_copy(exe),
        mount => mount,
    };
    let file = file.at("make an unchangeable copy of", "/proc/self/exe")?;
    // The next program begins its own.
    drop(sys::entry::network());
    Err(crate::Error::sys("execute", "/proc/self/exe", process::execve_fd(file.as_fd(), &argv, &envp)))
}

fn read_only_mount(name: &CStr) -> sys::Result<OwnedFd> {
    let tree = open_tree(path::CWD, name, OPEN_TREE_CLONE)?;
    let read_only = MountAttr { attr_set: MOUNT_ATTR_RDONLY, ..MountAttr::default() };
    mount_setattr(tree.as_fd(), 0, &read_only)?;
    Ok(tree)
}

/// What nobody may do to the copy any more, whoever opens it.
const SEALS: SealFlag =
    SealFlag::F_SEAL_WRITE.union(SealFlag::F_SEAL_SHRINK).union(SealFlag::F_SEAL_GROW).union(SealFlag::F_SEAL_SEAL);

/// A copy of the file in memory, where there is no mount that nobody else sees (memfd_create(2)).
fn sealed_copy(exe: OwnedFd) -> sys::Result<OwnedFd> {
    /// `MFD_EXEC` of `<linux/memfd.h>` (Linux 6.3): to be executed where `vm.memfd_noexec` is 1.
    const EXEC: MemFdCreateFlag = MemFdCreateFlag::from_bits_retain(0x10);
    let flags = MemFdCreateFlag::MFD_CLOEXEC | MemFdCreateFlag::MFD_ALLOW_SEALING;
    let copy = match memfd_create(c"rustbox", flags | EXEC) {
        Err(Errno::EINVAL) => memfd_create(c"rustbox", flags),
        copy => copy,
    };
    let mut copy = File::from(copy?);
    std::io::copy(&mut File::from(exe), &mut copy)
        .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))?;
    fcntl(copy.as_raw_fd(), FcntlArg::F_ADD_SEALS(SEALS))?;
    // A file that is open for writing cannot be executed.
    path::open(format!("/proc/self/fd/{}", copy.as_raw_fd()), libc::O_RDONLY)
}

fn is_sealed(exe: BorrowedFd<'_>) -> bool {
    fcntl(exe.as_raw_fd(), FcntlArg::F_GET_SEALS).is_ok_and(|seals| SealFlag::from_bits_truncate(seals).contains(SEALS))
}
