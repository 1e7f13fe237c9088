//! Entering the root: `pivot_root(2)` by handle, `MS_MOVE` for a root that cannot be pivoted, or a bare `chroot(2)`.

use std::os::fd::BorrowedFd;

use libc::{MNT_DETACH, MS_MOVE, MS_REC, MS_SLAVE};

use crate::error::{At, Error, Result};
use crate::sys::Errno;
use crate::sys::mount::{mount, pivot_root_here, umount2};
use crate::sys::mount_at::fchdir;

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
    let table = std::fs::read("/proc/self/mountinfo").at("read", "/proc/self/mountinfo")?;
    for line in String::from_utf8_lossy(&table).lines().rev() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let Some(point) = left.split(' ').nth(4) else { continue };
        let point = unescape(point);
        if !(right.starts_with("proc ") || right.starts_with("sysfs "))
            || std::path::Path::new(&point).starts_with(&here)
        {
            continue;
        }
        let path = super::tree::c_string(&point).at("unmount", &point)?;
        mount(None, &path, None, MS_SLAVE | MS_REC, None).at("set propagation of", &point)?;
        match umount2(&path, MNT_DETACH) {
            Ok(()) => {}
            // Locked by a more privileged namespace: an empty file system covers it.
            Err(Errno::EINVAL | Errno::EPERM) => {
                mount(Some(c"tmpfs"), &path, Some(c"tmpfs"), 0, None).at("cover", &point)?;
            }
            Err(errno) => return Err(Error::sys("unmount", point, errno)),
        }
    }
    Ok(())
}

/// Decodes the octal escapes of mountinfo (`\040` is a space).
fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        plain.push_str(&rest[..at]);
        match rest.get(at + 1..at + 4).and_then(|octal| u8::from_str_radix(octal, 8).ok()) {
            Some(byte) => {
                plain.push(byte.into());
                rest = &rest[at + 4..];
            }
            None => {
                plain.push('\\');
                rest = &rest[at + 1..];
            }
        }
    }
    plain.push_str(rest);
    plain
}

#[cfg(test)]
mod tests {
    #[test]
    fn octal_escapes_of_mountinfo_are_decoded() {
        assert_eq!(super::unescape(r"/a\040b\134c"), r"/a b\c");
        assert_eq!(super::unescape(r"/plain\"), r"/plain\");
    }
}
