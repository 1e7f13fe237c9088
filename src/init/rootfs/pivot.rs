//! Entering the root: `pivot_root(2)` by handle, `MS_MOVE` for a root that cannot be pivoted, or a bare `chroot(2)`.

use std::os::fd::BorrowedFd;

use libc::{MNT_DETACH, MS_MOVE, MS_REC, MS_SLAVE};

use crate::error::{At, Error, Result};
use crate::sys::Errno;
use crate::sys::mount::{mount, pivot_root_here, umount2};
use crate::sys::mount_at::fchdir;
use crate::sys::mountinfo::{self, Mounted};
use crate::sys::path::c_path;

/// How the root is entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    /// `pivot_root(2)`; the old root is detached.
    Pivot,
    /// The root is moved over `/` (`--no-pivot`: the host's root is an initramfs).
    Move,
    /// The mount namespace is not the container's own.
    Chroot,
}

impl Entry {
    /// Makes `root` the root and the working directory of this process.
    pub fn enter(self, root: BorrowedFd<'_>, shares: bool) -> Result<()> {
        fchdir(root).at("enter", "root.path")?;
        match self {
            Entry::Pivot => pivot(shares),
            Entry::Move => {
                detach_proc_and_sys()?;
                mount(Some(c"."), c"/", None, MS_MOVE, None).at("move mount", "root.path")?;
                chroot_here()
            }
            Entry::Chroot => chroot_here(),
        }
    }
}

/// The old root ends up on top of the new one, at the same place, so no directory is needed to put it in.
fn pivot(shares: bool) -> Result<()> {
    let old = match shares {
        true => Some(crate::sys::path::open("/", libc::O_PATH | libc::O_DIRECTORY).at("open", "the old root")?),
        false => None,
    };
    match pivot_root_here() {
        Err(Errno::EINVAL) => {
            return Err(Error::sys("pivot_root (is the host's root an initramfs? see --no-pivot)", ".", Errno::EINVAL));
        }
        done => done.at("pivot_root", ".")?,
    }
    if let Some(old) = old {
        // The unmount below must not propagate to the host. By its handle: `.` is still the new root, which the
        // old one only covers.
        nix::unistd::fchdir(std::os::fd::AsRawFd::as_raw_fd(&old)).at("chdir", "the old root")?;
        mount(None, c".", None, MS_SLAVE | MS_REC, None).at("set propagation of", "the old root")?;
    }
    umount2(c".", MNT_DETACH).at("unmount", "the old root")?;
    nix::unistd::chdir(c"/").at("chdir", "/")
}

fn chroot_here() -> Result<()> {
    nix::unistd::chroot(c".").at("chroot", "root.path")?;
    nix::unistd::chdir(c"/").at("chdir", "/")
}

/// Without a pivot the host's mounts stay reachable for who escapes the chroot: at least its procfs and sysfs go.
fn detach_proc_and_sys() -> Result<()> {
    let here = std::env::current_dir().at("read the path of", "root.path")?;
    const FILE: &str = "/proc/self/mountinfo";
    let table = std::fs::read(FILE).at("read", FILE)?;
    let mounts =
        mountinfo::parse(&table).map_err(|line| Error::Other(format!("read `{FILE}`: line {line} is no mount")))?;
    for Mounted { point, fstype, .. } in mounts.into_iter().rev() {
        if !(fstype == "proc" || fstype == "sysfs") || point.starts_with(&here) {
            continue;
        }
        let path = c_path(&point).at("unmount", point.display())?;
        mount(None, &path, None, MS_SLAVE | MS_REC, None).at("set propagation of", point.display())?;
        match umount2(&path, MNT_DETACH) {
            Ok(()) => {}
            // Locked by a more privileged namespace: an empty file system covers it.
            Err(Errno::EINVAL | Errno::EPERM) => {
                mount(Some(c"tmpfs"), &path, Some(c"tmpfs"), 0, None).at("cover", point.display())?;
            }
            Err(errno) => return Err(Error::sys("unmount", point.display(), errno)),
        }
    }
    Ok(())
}
