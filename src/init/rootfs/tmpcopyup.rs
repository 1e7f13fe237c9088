//! `tmpcopyup`: a new tmpfs starts with what the image holds at its destination.
//!
//! The handle of the mount point still shows the directory below the tmpfs, so nothing is mounted elsewhere and moved.

use std::ffi::CStr;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::dir::Dir;

use super::tree::c_string;
use crate::error::{At, Error, Result};
use crate::sys::path::{fstat, mkdirat, mknodat, openat, readlinkat, symlinkat};
use crate::sys::{self, Errno, mount_at, xattr};

/// Directories deeper than this are refused: the image is not ours, our stack and descriptors are.
const MAX_DEPTH: usize = 256;

/// Copies the directory `below` into the `tmpfs` on top of it: content, modes, owners, times, links, nodes and
/// extended attributes. `options` is the tmpfs's data, whose `uid=` and `gid=` win over the directory's owner.
pub(super) fn copy(below: &OwnedFd, tmpfs: &OwnedFd, object: &str, options: &str) -> Result<()> {
    let open = |dir: BorrowedFd<'_>| openat(dir, c".", libc::O_RDONLY | libc::O_DIRECTORY, 0);
    let from = open(below.as_fd()).at("open for tmpcopyup", object)?;
    let to = open(tmpfs.as_fd()).at("open for tmpcopyup", object)?;
    let stat = fstat(from.as_fd()).at("stat for tmpcopyup", object)?;
    let named = |option: &str| options.split(',').any(|word| word.starts_with(option));
    let owner = |option: &str, id: u32| if named(option) { u32::MAX } else { id };
    xattr::chown(to.as_fd(), owner("uid=", stat.st_uid), owner("gid=", stat.st_gid)).at("tmpcopyup chown", object)?;
    directory(from, to.as_fd(), object, 0)
}

fn directory(from: OwnedFd, to: BorrowedFd<'_>, object: &str, depth: usize) -> Result<()> {
    if depth > MAX_DEPTH {
        return Err(Error::sys("tmpcopyup", object, Errno::ELOOP));
    }
    copy_attributes(from.as_fd(), to).at("tmpcopyup", object)?;
    let mut entries = Dir::from(from.try_clone().at("tmpcopyup", object)?).at("tmpcopyup", object)?;
    let dir = from.as_raw_fd();
    let names: Vec<_> = entries.iter().map(|entry| entry.map(|entry| entry.file_name().to_owned())).collect();
    for name in names {
        let name = name.at("tmpcopyup", object)?;
        if name.as_c_str() == c"." || name.as_c_str() == c".." {
            continue;
        }
        let child = format!("{object}/{}", name.to_string_lossy());
        let stat = nix::sys::stat::fstatat(Some(dir), name.as_c_str(), nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW);
        one(from.as_fd(), to, &name, &stat.at("tmpcopyup", &child)?, &child, depth)?;
    }
    Ok(())
}

fn one(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    name: &CStr,
    stat: &libc::stat,
    object: &str,
    depth: usize,
) -> Result<()> {
    let read = libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let kind = stat.st_mode & libc::S_IFMT;
    match kind {
        libc::S_IFDIR => {
            let source = openat(from, name, read | libc::O_DIRECTORY, 0).at("tmpcopyup", object)?;
            mkdirat(to, name, 0o700).at("tmpcopyup", object)?;
            let target = openat(to, name, read | libc::O_DIRECTORY, 0).at("tmpcopyup", object)?;
            directory(source, target.as_fd(), object, depth + 1)?;
            finish(target.as_fd(), stat).at("tmpcopyup", object)
        }
        libc::S_IFREG => {
            let mut source = File::from(openat(from, name, read, 0).at("tmpcopyup", object)?);
            let create = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW;
            let mut target = File::from(openat(to, name, create, 0o600).at("tmpcopyup", object)?);
            std::io::copy(&mut source, &mut target).at("tmpcopyup", object)?;
            finish(target.as_fd(), stat).at("tmpcopyup", object)?;
            // After the owner: changing that drops file capabilities.
            copy_attributes(source.as_fd(), target.as_fd()).at("tmpcopyup", object)
        }
        libc::S_IFLNK => {
            let target = readlinkat(from, name).at("tmpcopyup", object)?;
            let target = c_string(&String::from_utf8_lossy(&target)).at("tmpcopyup", object)?;
            symlinkat(&target, to, name).at("tmpcopyup", object)?;
            mount_at::chown_at(to, name, Some(stat.st_uid), Some(stat.st_gid)).at("tmpcopyup", object)
        }
        _ => {
            mknodat(to, name, stat.st_mode, stat.st_rdev).at("tmpcopyup", object)?;
            mount_at::chown_at(to, name, Some(stat.st_uid), Some(stat.st_gid)).at("tmpcopyup", object)
        }
    }
}

/// Owner first: changing it clears the set-id bits of the mode.
fn finish(file: BorrowedFd<'_>, stat: &libc::stat) -> sys::Result<()> {
    xattr::chown(file, stat.st_uid, stat.st_gid)?;
    xattr::chmod(file, stat.st_mode & 0o7777)?;
    xattr::set_times(file, stat)
}

/// Copies what the tmpfs can keep; it may lack `user.*` (before Linux 6.6), and a user namespace `trusted.*`.
fn copy_attributes(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> sys::Result<()> {
    let names = match xattr::list(from) {
        Err(Errno::ENOTSUP) => return Ok(()),
        names => names?,
    };
    for name in names {
        match xattr::set(to, &name, &xattr::get(from, &name)?) {
            Ok(()) | Err(Errno::ENOTSUP | Errno::EPERM) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}
