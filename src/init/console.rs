//! The container's end of `process.terminal`: a pseudo-terminal of the container's own devpts.
//!
//! The pair is made inside, after the root file system is entered, so that the terminal has a name there. It is
//! opened by handle throughout: the image cannot slip another device in (CVE-2025-52565). The master goes to whoever
//! holds the other end of the console socket, as one descriptor with its name as the message, which is what every engine
//! that speaks to runc expects.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use oci_spec::runtime::Box as ConsoleSize;

use super::process::ProcessPlan;
use crate::error::{At, Error, Result};
use crate::sys::path::{self, RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS};
use crate::sys::{attributes, process, tty};

/// Where devpts keeps its multiplexer, below the container's root; also the name that the receiver is told.
pub const MULTIPLEXER: &str = "/dev/pts/ptmx";
/// `DEVPTS_SUPER_MAGIC` of `<linux/magic.h>`.
const DEVPTS_MAGIC: libc::__fsword_t = 0x1cd1;

/// A pseudo-terminal.
#[derive(Debug)]
pub struct Pair {
    /// The end that an engine or [`crate::container::console`] reads and writes.
    pub master: OwnedFd,
    /// The end that the program has as its terminal.
    pub slave: OwnedFd,
}

impl Pair {
    /// Makes a pair in the devpts of the container whose root is the caller's root directory.
    ///
    /// # Errors
    /// `ENOENT` without a devpts on `/dev/pts`; [`Error::Refused`] where something else is there.
    pub fn open() -> Result<Pair> {
        let root = path::open("/", libc::O_PATH | libc::O_DIRECTORY).at("open", "/")?;
        let resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS;
        // Looked at before it is opened for use: opening a device can do things.
        let place = path::openat2(root.as_fd(), c"dev/pts", libc::O_PATH | libc::O_DIRECTORY, 0, resolve)
            .at("open", "/dev/pts")?;
        if path::fstatfs(place.as_fd()).at("statfs", "/dev/pts")?.f_type != DEVPTS_MAGIC {
            return Err(Error::Refused("`/dev/pts` is not devpts".into()));
        }
        let flags = libc::O_RDWR | libc::O_NOCTTY;
        let resolve = resolve | path::RESOLVE_NO_XDEV;
        let master = path::openat2(place.as_fd(), c"ptmx", flags, 0, resolve).at("open", MULTIPLEXER)?;
        let slave = tty::peer(master.as_fd()).at("open the peer of", MULTIPLEXER)?;
        Ok(Pair { master, slave })
    }

    /// Sets the size that the document asks for.
    ///
    /// # Errors
    /// As `ioctl(2)`.
    pub fn resize(&self, size: ConsoleSize) -> Result<()> {
        // The kernel's structure has 16 bits for each.
        let fit = |length: u64| u16::try_from(length).unwrap_or(u16::MAX);
        let size = tty::Size { rows: fit(size.height()), columns: fit(size.width()) };
        tty::set_size(self.slave.as_fd(), size).at("resize", "the terminal")
    }

    /// Sends the master over the console socket.
    ///
    /// # Errors
    /// As `sendmsg(2)`: `EPIPE` where the receiver is gone.
    pub fn send(&self, socket: BorrowedFd<'_>) -> Result<()> {
        crate::sys::socket::send(socket, MULTIPLEXER.as_bytes(), &[self.master.as_fd()])
            .at("send the terminal over", "the console socket")
            .map(drop)
    }

    /// Makes the slave the caller's stdin, stdout and stderr. The slave then belongs to `uid`; its group stays what devpts' `gid` option says.
    ///
    /// # Errors
    /// As the calls named.
    pub fn take(&self, uid: u32) -> Result<()> {
        let slave = self.slave.as_fd();
        let stat = path::fstat(slave).at("stat", "the terminal")?;
        if stat.st_uid != uid {
            attributes::fchown(slave, uid, stat.st_gid).at("chown", "the terminal")?;
        }
        (0..3).try_for_each(|number| process::dup_to(slave, number)).at("take", "the standard streams")
    }
}

/// Makes the terminal on stdin the controlling one of the caller, which leads a session without one.
///
/// # Errors
/// As `ioctl(2)`.
pub fn control() -> Result<()> {
    let stdin = process::inherited(0).at("find", "the terminal")?;
    tty::control(stdin).at("control", "the terminal")
}

/// All of the above but [`control`] for a planned process: makes the pair, sends the master over `socket`, takes the
/// slave. Returns the slave, for `/dev/console`.
///
/// # Errors
/// The first step that fails.
pub fn attach(plan: &ProcessPlan, socket: BorrowedFd<'_>) -> Result<OwnedFd> {
    let pair = Pair::open()?;
    if let Some(size) = plan.console_size {
        pair.resize(size)?;
    }
    pair.take(plan.uid)?;
    pair.send(socket)?;
    Ok(pair.slave)
}
