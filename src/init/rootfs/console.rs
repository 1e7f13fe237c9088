//! `/dev/console`: the container's end of its terminal.

use std::os::fd::{AsFd, BorrowedFd};

use super::tree::Tree;
use crate::error::{At, Error, Result};
use crate::sys::Errno;
use crate::sys::mount::bind_file;
use crate::sys::path::{fstat, mknodat, openat};

/// Binds the terminal on `/dev/console`, a plain file or node there, never through a link (CVE-2025-52565).
pub(super) fn bind(tree: &mut Tree, terminal: BorrowedFd<'_>) -> Result<()> {
    let object = "/dev/console";
    let dev = tree.directory("dev").at("create directory", "/dev")?;
    match mknodat(dev.as_fd(), c"console", libc::S_IFREG | 0o600, 0) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(errno) => return Err(Error::sys("create", object, errno)),
    }
    let place = openat(dev.as_fd(), c"console", libc::O_PATH | libc::O_NOFOLLOW, 0).at("open", object)?;
    let stat = fstat(place.as_fd()).at("stat", object)?;
    if stat.st_mode & libc::S_IFMT == libc::S_IFLNK {
        return Err(Error::Refused(format!("`{object}` is a symbolic link")));
    }
    bind_file(terminal, place.as_fd()).at("bind the terminal on", object)
}
