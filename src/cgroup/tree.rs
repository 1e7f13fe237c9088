//! What a container has made below a cgroup of its own: who is in there, and removing it.
//!
//! Where it may write to its cgroups, the container says how deep they go: deeper than a path may be long, a stack high and
//! a process's descriptors many. So the cgroups below are walked by handles, of which few are open at a time ([`Way`]).

use std::collections::BTreeSet;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use super::file::{self, Dir};
use crate::error::{At, Error, Result};
use crate::subtree::Way;
use crate::sys::directory::{Kind, entries};
use crate::sys::path::{fstat, openat, unlinkat};
use crate::sys::{self, Errno, path};

const DIRECTORY: i32 = libc::O_RDONLY | libc::O_DIRECTORY;

/// A walk over the cgroups below one, each before and again after those below it.
struct Walk {
    way: Way,
    /// The cgroups in this one that are yet to be gone into.
    ahead: Vec<CString>,
    /// From the top to the one above this.
    above: Vec<Level>,
}

/// A cgroup that the walk is somewhere below.
struct Level {
    ahead: Vec<CString>,
    /// The cgroup in it that was gone into.
    taken: CString,
}

enum Step {
    /// Into a cgroup.
    Down,
    /// Back, out of the cgroup of this name in the one that is come to.
    Up(CString),
}

impl Walk {
    /// Begins at a cgroup; nothing where it is gone.
    fn begin(top: &Path) -> Result<Option<Walk>> {
        let here = match path::open(top, DIRECTORY) {
            Err(Errno::ENOENT) => return Ok(None),
            other => other.at("open", top.display())?,
        };
        let ahead = children(here.as_fd()).at("read directory", top.display())?;
        Ok(Some(Walk { way: Way::new(here), ahead, above: Vec::new() }))
    }

    fn step(&mut self) -> sys::Result<Option<Step>> {
        while let Some(name) = self.ahead.pop() {
            let child = match openat(self.way.here(), &name, DIRECTORY | libc::O_NOFOLLOW, 0) {
                Err(Errno::ENOENT) => continue,
                other => other?,
            };
            if fstat(child.as_fd())?.st_dev != fstat(self.way.here())?.st_dev {
                // Something that is mounted there is no cgroup of this hierarchy.
                continue;
            }
            let ahead = std::mem::replace(&mut self.ahead, children(child.as_fd())?);
            self.above.push(Level { ahead, taken: name });
            self.way.down(child)?;
            return Ok(Some(Step::Down));
        }
        let Some(level) = self.above.pop() else { return Ok(None) };
        // Out of one that has been removed meanwhile, too.
        self.way.up()?;
        self.ahead = level.ahead;
        Ok(Some(Step::Up(level.taken)))
    }

    /// Removes those in this one that nobody is in, nor below; the others are gone into.
    fn remove_empty(&mut self) -> sys::Result<()> {
        for name in std::mem::take(&mut self.ahead) {
            if !rmdir_at(self.way.here(), &name)? {
                self.ahead.push(name);
            }
        }
        Ok(())
    }

    /// Removes all below the top; whether nothing of it is left.
    fn remove(mut self) -> sys::Result<bool> {
        let mut all = true;
        // How many levels from the top down to here are known to stay, because something below them does.
        let mut stay = 0;
        self.remove_empty()?;
        while let Some(step) = self.step()? {
            match step {
                Step::Down => self.remove_empty()?,
                Step::Up(name) => {
                    let level = self.above.len() + 1;
                    if stay >= level || !rmdir_at(self.way.here(), &name)? {
                        (all, stay) = (false, level - 1);
                    }
                }
            }
        }
        Ok(all)
    }
}

/// The cgroups in one, none where it has been removed. cgroupfs tells the type of every name.
fn children(cgroup: BorrowedFd<'_>) -> sys::Result<Vec<CString>> {
    match entries(cgroup) {
        Err(Errno::ENOENT) => Ok(Vec::new()),
        found => Ok(found?.into_iter().filter(|it| it.kind == Some(Kind::Directory)).map(|it| it.name).collect()),
    }
}

/// Whether the directory is gone. `false` means busy.
fn rmdir_at(dir: BorrowedFd<'_>, name: &CStr) -> sys::Result<bool> {
    match unlinkat(dir, name, libc::AT_REMOVEDIR) {
        // Without a device it is somebody else's who is removing it.
        Ok(()) | Err(Errno::ENOENT | Errno::ENODEV) => Ok(true),
        Err(Errno::EBUSY | Errno::ENOTEMPTY) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// `rmdir(2)`: whether the directory is gone. `false` means busy.
pub(super) fn rmdir(path: &Path) -> Result<bool> {
    match std::fs::remove_dir(path) {
        Ok(()) => Ok(true),
        Err(error) => match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ENOENT) => Ok(true),
            Some(Errno::EBUSY | Errno::ENOTEMPTY) => Ok(false),
            _ => Err(Error::io("rmdir", path.display(), &error)),
        },
    }
}

/// Removes a directory; where it is busy, first the ones below it, deepest first.
pub(super) fn remove(path: &Path) -> Result<bool> {
    if rmdir(path)? {
        return Ok(true);
    }
    let all = match Walk::begin(path)? {
        Some(walk) => walk.remove().at("rmdir", below(path))?,
        None => true,
    };
    if all { rmdir(path) } else { Ok(false) }
}

/// Adds the processes of a cgroup and of those below it.
pub(super) fn collect(path: &Path, pids: &mut BTreeSet<libc::pid_t>) -> Result<()> {
    let add = |procs: &str| {
        pids.extend(procs.lines().filter_map(|line| line.parse().ok()).filter(|pid: &libc::pid_t| *pid > 0));
        false
    };
    search(path, add).map(drop)
}

/// Whether any process is in a cgroup or below it, visible or not.
pub(super) fn any_process(path: &Path) -> Result<bool> {
    search(path, |procs| !procs.trim().is_empty())
}

/// Looks at the processes of a cgroup, then at those of each below it, until `found`; whether that came about.
fn search(path: &Path, mut found: impl FnMut(&str) -> bool) -> Result<bool> {
    const PROCS: &str = "cgroup.procs";
    let mut look = |procs: sys::Result<String>| match procs {
        Ok(procs) => Ok(found(&procs)),
        // Gone between two looks, or a threaded v2 cgroup, whose processes its domain lists.
        Err(Errno::ENOENT | Errno::ENODEV | Errno::EOPNOTSUPP) => Ok(false),
        Err(errno) => Err(errno),
    };
    if look(Dir::new(path).try_read(PROCS)).at("read", path.join(PROCS).display())? {
        return Ok(true);
    }
    let Some(mut walk) = Walk::begin(path)? else { return Ok(false) };
    while let Some(step) = walk.step().at("walk over", below(path))? {
        let Step::Down = step else { continue };
        let procs = openat(walk.way.here(), c"cgroup.procs", libc::O_RDONLY | libc::O_NOCTTY, 0);
        if look(procs.and_then(|procs| file::read(procs.as_fd()))).at("read", format!("{}/{PROCS}", below(path)))? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The cgroups below one, in words: the path of any may be too long to be one.
fn below(path: &Path) -> String {
    format!("{}/…", path.display())
}
