//! `linux.rootfsPropagation`: what the mount namespace starts with, and what the container's root ends with.

use std::path::Path;

use libc::{MS_PRIVATE, MS_REC, MS_SHARED, MS_SLAVE, MS_UNBINDABLE};

use crate::error::{At, Error, Result};
use crate::sys::Errno;
use crate::sys::mount::mount;
use crate::sys::path::open;

/// Propagation before the mounts and after the root was entered, as `MS_` flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Propagation {
    /// For the whole tree that the namespace was born with.
    pub initial: u64,
    /// For the container's root mount, where it must differ from what binding it gives.
    pub last: Option<u64>,
}

impl Propagation {
    /// Reads the word of the spec. Without one nothing leaks out, and the host's mounts still come in.
    ///
    /// # Errors
    /// Of a word that the spec does not know.
    pub fn of(word: Option<&str>) -> Result<Self> {
        let (initial, last) = match word.unwrap_or_default() {
            "" | "slave" | "rslave" => (MS_SLAVE | MS_REC, None),
            "private" | "rprivate" => (MS_PRIVATE | MS_REC, None),
            // Nothing of an unbindable tree can be bound, so it becomes so at the end.
            "unbindable" => (MS_PRIVATE | MS_REC, Some(MS_UNBINDABLE)),
            "runbindable" => (MS_PRIVATE | MS_REC, Some(MS_UNBINDABLE | MS_REC)),
            "shared" => (MS_SHARED, Some(MS_SHARED)),
            "rshared" => (MS_SHARED | MS_REC, Some(MS_SHARED | MS_REC)),
            other => return Err(Error::config("$.linux.rootfsPropagation", format!("`{other}` is unknown"))),
        };
        Ok(Propagation { initial, last })
    }

    /// Whether mounts made in the container's namespace could reach the host's.
    pub fn shares(self) -> bool {
        self.initial & MS_SHARED != 0
    }

    /// Applies [`Propagation::initial`] to the whole namespace.
    pub fn start(self, rootfs: &Path) -> Result<()> {
        mount(None, c"/", None, self.initial, None).at("set propagation of", "/")?;
        if self.shares() { private_parent(rootfs) } else { Ok(()) }
    }

    /// Applies [`Propagation::last`] to the current root.
    pub fn end(self) -> Result<()> {
        match self.last {
            Some(flags) => mount(None, c"/", None, flags, None).at("set propagation of", "/"),
            None => Ok(()),
        }
    }
}

/// Makes the mount that the root file system lies on private: binding the root must not reach the host, and
/// `pivot_root(2)` refuses a shared parent.
fn private_parent(rootfs: &Path) -> Result<()> {
    for dir in rootfs.ancestors() {
        let handle = open(dir, libc::O_PATH | libc::O_DIRECTORY).at("open", dir.display())?;
        match super::mounts::mount_on(&handle, None, None, MS_PRIVATE, None) {
            // Not the root of a mount: the parent is looked at.
            Err(Errno::EINVAL) => continue,
            done => return done.at("make private", dir.display()),
        }
    }
    Err(Error::Other(format!("no mount holds `{}`", rootfs.display())))
}
