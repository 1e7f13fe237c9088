//! `checkpoint` and `restore`: a container's processes into a directory of images and back, by CRIU.
//!
//! CRIU runs as a child (`criu swrk`) and is spoken to in its own protocol (`rpc.proto` of its source). What the
//! container has of the host, and CRIU therefore cannot save, are mounts: bind mounts, v1 cgroups, masks. They are found by
//! comparing the container's mounts with the host's, named in the images, and bound again at the restore.

mod criu;
mod dump;
mod external;
mod restore;
mod wire;

use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

pub use dump::{Dump, checkpoint};
pub use restore::{Restore, Restored, restore};

use crate::error::{At, Error, Result};
use crate::sys::{path, process};
use wire::Message;

/// Our own file beside CRIU's images.
const DESCRIPTION: &str = "rustbox.json";
/// The labels under which joined namespaces stand in the images: those of runc.
const EXTERNAL_NAMESPACES: [(i32, &str, &str); 2] =
    [(libc::CLONE_NEWNET, "net", "extRootNetNS"), (libc::CLONE_NEWPID, "pid", "extRootPidNS")];

/// What CRIU does with cgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CgroupsMode {
    /// Nothing.
    Ignore,
    /// Properties are restored where it made the cgroup.
    Soft,
    /// Properties are always restored.
    Full,
    /// The cgroups must not be there.
    Strict,
}

impl CgroupsMode {
    /// `criu_cg_mode` of `rpc.proto`.
    fn number(self) -> i64 {
        match self {
            CgroupsMode::Ignore => 0,
            CgroupsMode::Soft => 3,
            CgroupsMode::Full => 4,
            CgroupsMode::Strict => 5,
        }
    }
}

/// What both commands are asked for.
#[derive(Debug, Clone)]
pub struct Images {
    /// The program.
    pub criu: OsString,
    /// Directory of the images.
    pub directory: PathBuf,
    /// Directory of the log and of other files of CRIU's work; the images' where it is `None`.
    pub work: Option<PathBuf>,
    /// Established TCP connections are kept.
    pub tcp_established: bool,
    /// Unix sockets may have their other end outside.
    pub ext_unix_sk: bool,
    /// The processes may belong to a session that began outside.
    pub shell_job: bool,
    /// File locks are kept.
    pub file_locks: bool,
    /// What is done with cgroups.
    pub cgroups: CgroupsMode,
    /// The network namespace is made empty, whatever it held.
    pub empty_network: bool,
    /// Memory images are deduplicated.
    pub auto_dedup: bool,
    /// Memory comes when it is touched, by userfaultfd.
    pub lazy_pages: bool,
}

/// The images' directory and the working one, open as long as CRIU works.
struct Opened {
    images: (OwnedFd, PathBuf),
    work: Option<(OwnedFd, PathBuf)>,
    /// Path of CRIU's log.
    log: PathBuf,
}

impl Opened {
    /// In CRIU's process: opens the directories anew, by the same numbers, in the mount namespace that this is in now. CRIU
    /// mounts in its working directory.
    fn open_again(&self) -> Result<()> {
        for (fd, path) in std::iter::once(&self.images).chain(&self.work) {
            let again = directory(path)?;
            process::dup_to(again.as_fd(), fd.as_raw_fd()).at("keep", path.display())?;
        }
        Ok(())
    }
}

impl Images {
    /// Opens the directories; with `make`, makes the images' where it is missing. The working one is always made.
    fn open(&self, make: bool, log: &str) -> Result<Opened> {
        if make {
            make_directory(&self.directory)?;
        }
        let work = self.work.as_deref();
        work.map(make_directory).transpose()?;
        let open = |path: &Path| Ok::<_, Error>((directory(path)?, path.to_owned()));
        Ok(Opened {
            images: open(&self.directory)?,
            work: work.map(open).transpose()?,
            log: work.unwrap_or(&self.directory).join(log),
        })
    }

    /// The options that both requests share (`criu_opts` of `rpc.proto`).
    fn message(&self, opened: &Opened) -> Message {
        let log = opened.log.file_name().unwrap_or_default().as_encoded_bytes();
        let mut options = Message::default();
        options
            .number(1, opened.images.0.as_raw_fd().into())
            .flag(4, self.ext_unix_sk)
            .flag(5, self.tcp_established)
            .flag(7, self.shell_job)
            .flag(8, self.file_locks)
            .number(9, 4)
            .bytes(10, log)
            .flag(12, true)
            .flag(16, self.auto_dedup)
            .flag(24, true)
            .number(34, self.cgroups.number())
            .flag(48, self.lazy_pages)
            .flag(50, true);
        if let Some((work, _)) = &opened.work {
            options.number(17, work.as_raw_fd().into());
        }
        if self.empty_network {
            options.number(38, libc::CLONE_NEWNET.into());
        }
        options
    }
}

/// CRIU reads and writes whatever it is told to, and enters namespaces.
fn require_root() -> Result<()> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    Err(Error::Refused("checkpoint and restore need root: criu does".to_owned()))
}

fn make_directory(path: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).at("make", path.display())
}

fn directory(path: &Path) -> Result<OwnedFd> {
    path::open(path, libc::O_RDONLY | libc::O_DIRECTORY).at("open", path.display())
}
