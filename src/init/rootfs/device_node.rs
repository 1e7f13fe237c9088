//! A device node for a user namespace, in which none can be made: made outside, on a file system of its own, and bound.

use std::os::fd::{AsFd, OwnedFd};

use libc::{MS_PRIVATE, MS_REC};

use crate::error::{At, Error, Result};
use crate::sys::clone::{CloneArgs, clone3};
use crate::sys::mount::{OPEN_TREE_CLONE, mount, move_mount, new_filesystem, open_tree};
use crate::sys::mount_at::chown_at;
use crate::sys::path::{CWD, mknodat, openat2};
use crate::sys::process::{Ended, umask};
use crate::sys::{self, Errno, pidfd, socket};

const MOUNT_ATTR_NOSUID: u64 = 0x2;
const MOUNT_ATTR_NOEXEC: u64 = 0x8;

/// Makes a node and gives a detached mount of it. `owner` are ids of the caller's user namespace.
///
/// Only a file that lies in a process's mount namespace can be bound, so a process of its own makes the file system in one,
/// and hands the node over; nothing of it is seen by anyone else.
///
/// # Errors
/// As `mknod(2)`: `EPERM` without CAP_MKNOD.
pub(super) fn make(mode: u32, number: u64, (uid, gid): (u32, u32), object: &str) -> Result<OwnedFd> {
    let (ours, theirs) = socket::line().at("make a socket for device", object)?;
    let node = || -> sys::Result<()> {
        mount(None, c"/", None, MS_REC | MS_PRIVATE, None)?;
        let files = new_filesystem(c"tmpfs", &[], MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC)?;
        let root = openat2(CWD, c"/", libc::O_PATH | libc::O_DIRECTORY, 0, 0)?;
        move_mount(files.as_fd(), root.as_fd())?;
        umask(0);
        mknodat(files.as_fd(), c"node", mode, number)?;
        chown_at(files.as_fd(), c"node", Some(uid), Some(gid))?;
        let node = open_tree(files.as_fd(), c"node", OPEN_TREE_CLONE)?;
        socket::send(theirs.as_fd(), b"n", &[node.as_fd()]).map(drop)
    };
    let args = CloneArgs { namespaces: libc::CLONE_NEWNS as u64, ..CloneArgs::default() };
    let child = clone3(args, || node().err().map_or(0, |errno| errno as i32)).at("clone for device", object)?;
    match pidfd::wait(child.pidfd.as_fd(), true).at("wait for the maker of device", object)? {
        Some(Ended::Exited(0)) => {}
        Some(Ended::Exited(errno)) => return Err(Error::sys("make device", object, Errno::from_raw(errno))),
        _ => return Err(Error::Other(format!("the maker of device `{object}` has been killed"))),
    }
    let flags = nix::sys::socket::MsgFlags::MSG_DONTWAIT;
    let (_, mut handles) = socket::receive(ours.as_fd(), &mut [0], flags).at("receive device", object)?;
    handles.pop().ok_or_else(|| Error::Other(format!("device `{object}` has not arrived")))
}
