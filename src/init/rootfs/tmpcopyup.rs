//! `tmpcopyup`: a new tmpfs starts with what the image holds at its destination.
//!
//! The handle of the mount point still shows the directory below the tmpfs, so nothing is mounted elsewhere and moved.

use std::ffi::{CStr, OsStr};
use std::fmt::Write;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use crate::error::{At, Result};
use crate::subtree::Way;
use crate::sys::directory::{Entry, entries};
use crate::sys::path::{c_path, fstat, fstatat, mkdirat, mknodat, openat, readlinkat, symlinkat};
use crate::sys::{self, Errno, mount_at, xattr};

const READ: i32 = libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK;

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
    tree(from, to, object)
}

/// A directory being copied.
struct Level {
    /// What of it is still to be copied.
    left: Vec<Entry>,
    /// What it becomes in the end; the top has become it.
    stat: Option<libc::stat>,
    /// The length of its path.
    path: usize,
}

/// However deep it is: the image may be anybody's.
fn tree(from: OwnedFd, to: OwnedFd, object: &str) -> Result<()> {
    copy_attributes(from.as_fd(), to.as_fd()).at("tmpcopyup", object)?;
    // For messages alone.
    let mut path = object.to_owned();
    let mut levels =
        vec![Level { left: entries(from.as_fd()).at("tmpcopyup", object)?, stat: None, path: object.len() }];
    let (mut from, mut to) = (Way::new(from), Way::new(to));
    while let Some(level) = levels.last_mut() {
        path.truncate(level.path);
        let Some(entry) = level.left.pop() else {
            if let Some(stat) = &level.stat {
                finish(to.here(), stat).at("tmpcopyup", &path)?;
            }
            levels.pop();
            from.up().and_then(|_| to.up()).at("tmpcopyup", &path)?;
            continue;
        };
        let _ = write!(path, "/{}", entry.name.to_string_lossy());
        let stat = fstatat(from.here(), &entry.name, libc::AT_SYMLINK_NOFOLLOW).at("tmpcopyup", &path)?;
        if stat.st_mode & libc::S_IFMT == libc::S_IFDIR {
            let left = directory(&mut from, &mut to, &entry.name).at("tmpcopyup", &path)?;
            levels.push(Level { left, stat: Some(stat), path: path.len() });
        } else {
            one(from.here(), to.here(), &entry.name, &stat, &path)?;
        }
    }
    Ok(())
}

/// Goes down to a directory, and to a new one like it; gives what it holds.
fn directory(from: &mut Way, to: &mut Way, name: &CStr) -> sys::Result<Vec<Entry>> {
    let source = openat(from.here(), name, READ | libc::O_DIRECTORY, 0)?;
    mkdirat(to.here(), name, 0o700)?;
    let target = openat(to.here(), name, READ | libc::O_DIRECTORY, 0)?;
    copy_attributes(source.as_fd(), target.as_fd())?;
    let left = entries(source.as_fd())?;
    from.down(source)?;
    to.down(target)?;
    Ok(left)
}

fn one(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr, stat: &libc::stat, object: &str) -> Result<()> {
    match stat.st_mode & libc::S_IFMT {
        libc::S_IFREG => {
            let mut source = File::from(openat(from, name, READ, 0).at("tmpcopyup", object)?);
            let create = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW;
            let mut target = File::from(openat(to, name, create, 0o600).at("tmpcopyup", object)?);
            std::io::copy(&mut source, &mut target).at("tmpcopyup", object)?;
            finish(target.as_fd(), stat).at("tmpcopyup", object)?;
            // After the owner: changing that drops file capabilities.
            copy_attributes(source.as_fd(), target.as_fd()).at("tmpcopyup", object)
        }
        libc::S_IFLNK => {
            let target = readlinkat(from, name).at("tmpcopyup", object)?;
            let target = c_path(OsStr::from_bytes(&target)).at("tmpcopyup", object)?;
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
