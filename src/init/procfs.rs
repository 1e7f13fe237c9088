//! A handle on procfs that is known to be procfs.
//!
//! Whoever controls an image or a volume may put something else where `/proc` should be, or a bind mount on one of its
//! files, so that the runtime's privileged write lands elsewhere (CVE-2025-31133, CVE-2025-52565, CVE-2025-52881).
//! So the root is checked by `fstatfs`, and everything below is opened by `openat2` without crossing a mount point or
//! following a magic link.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::error::{At, Error, Result};
use crate::sys::path::{self, RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_XDEV};

/// The inode number of the root of every procfs (`PROC_ROOT_INO`).
const ROOT_INODE: u64 = 1;

/// A directory descriptor of the root of a procfs.
#[derive(Debug)]
pub struct Procfs {
    root: OwnedFd,
}

impl Procfs {
    /// Opens `/proc` and checks that it is the root of a procfs: three system calls.
    ///
    /// # Errors
    /// The errno of `open`, or [`Error::Refused`] when something else is mounted there.
    pub fn open() -> Result<Procfs> {
        let root = path::open("/proc", libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW).at("open", "/proc")?;
        Procfs::verified(root)
    }

    /// Takes a descriptor, for example of a detached mount, after checking that it is the root of a procfs.
    ///
    /// # Errors
    /// [`Error::Refused`] when it is something else.
    pub fn verified(root: OwnedFd) -> Result<Procfs> {
        if path::fstatfs(root.as_fd()).at("statfs", "/proc")?.f_type != libc::PROC_SUPER_MAGIC {
            return Err(Error::Refused("`/proc` is not procfs".into()));
        }
        if path::fstat(root.as_fd()).at("stat", "/proc")?.st_ino != ROOT_INODE {
            return Err(Error::Refused("`/proc` is not the root of a procfs".into()));
        }
        Ok(Procfs { root })
    }

    /// The root's descriptor.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Opens a file below the root; no mount point is crossed, no magic link is followed.
    ///
    /// # Errors
    /// As `openat2(2)`: `EXDEV` where something is mounted on it, `ELOOP` for a magic link.
    pub fn open_file(&self, name: &str, flags: i32) -> Result<OwnedFd> {
        let resolve = RESOLVE_BENEATH | RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS;
        path::c_path(name)
            .and_then(|c_name| path::openat2(self.root.as_fd(), &c_name, flags | libc::O_NOCTTY, 0, resolve))
            .at("open", format_args!("/proc/{name}"))
    }

    /// Writes a file in one `write`, as procfs wants it.
    ///
    /// # Errors
    /// As [`Procfs::open_file`] and `write(2)`.
    pub fn write(&self, name: &str, value: &[u8]) -> Result<()> {
        let file = self.open_file(name, libc::O_WRONLY)?;
        path::write_once(file.as_fd(), value).at("write", format_args!("/proc/{name}"))
    }

    /// Reads a file of at most `limit` bytes.
    ///
    /// # Errors
    /// As [`Procfs::open_file`] and `read(2)`; `EFBIG` where there is more.
    pub fn read(&self, name: &str, limit: usize) -> Result<Vec<u8>> {
        let file = self.open_file(name, libc::O_RDONLY)?;
        path::read_all(file.as_fd(), limit).at("read", format_args!("/proc/{name}"))
    }
}

/// Writes `value` (−1000 to 1000) to the `oom_score_adj` of `pid`, or of the caller.
///
/// Lowering it needs CAP_SYS_RESOURCE in the first user namespace, so for a container with a user namespace
/// the parent does it.
///
/// # Errors
/// As [`Procfs::write`].
pub fn write_oom_score_adj(procfs: &Procfs, pid: Option<i32>, value: i32) -> Result<()> {
    let value = value.to_string();
    match pid {
        Some(pid) => procfs.write(&format!("{pid}/oom_score_adj"), value.as_bytes()),
        None => procfs.write("self/oom_score_adj", value.as_bytes()),
    }
}
