//! Trees that others have made, as deep as they like: walked with few descriptors and no recursion, never through a link.
//!
//! A program can make directories within directories until its disk is full. Whoever holds a descriptor for each of them
//! runs out of descriptors, whoever calls itself for each out of stack. So of the directories above only the nearest
//! and the top stay open; to another `..` leads back, and counts only if it is the one that was left.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use crate::sys::directory::{Entry, Kind, entries};
use crate::sys::path::{
    CWD, RESOLVE_NO_SYMLINKS, RESOLVE_NO_XDEV, c_path, fstat, fstatat, open, openat, openat2, unlinkat,
};
use crate::sys::{Errno, Result};

/// How many of the directories above stay open: ordinary trees are less deep, and cost nothing more.
const OPEN: usize = 8;
const DIRECTORY: i32 = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW;

/// The way from a directory down to one below it, and back.
#[derive(Debug)]
pub struct Way {
    here: OwnedFd,
    above: Vec<Above>,
}

#[derive(Debug)]
enum Above {
    Open(OwnedFd),
    /// Device and inode.
    Closed((u64, u64)),
}

impl Way {
    /// At its top.
    pub fn new(top: OwnedFd) -> Way {
        Way { here: top, above: Vec::new() }
    }

    /// The directory that it has come to.
    pub fn here(&self) -> BorrowedFd<'_> {
        self.here.as_fd()
    }

    /// Goes down to a directory that lies in this one.
    ///
    /// # Errors
    /// As `fstat(2)`.
    pub fn down(&mut self, child: OwnedFd) -> Result<()> {
        // The top stays open: what has been mounted on it since would be what `..` leads to.
        if let Some(far @ 1..) = self.above.len().checked_sub(OPEN)
            && let Above::Open(directory) = &self.above[far]
        {
            self.above[far] = Above::Closed(identity(directory.as_fd())?);
        }
        self.above.push(Above::Open(std::mem::replace(&mut self.here, child)));
        Ok(())
    }

    /// Goes back up; false at the top.
    ///
    /// # Errors
    /// `ESTALE` where the directory has been moved elsewhere meanwhile; as `openat(2)`.
    pub fn up(&mut self) -> Result<bool> {
        self.here = match self.above.pop() {
            None => return Ok(false),
            Some(Above::Open(directory)) => directory,
            Some(Above::Closed(left)) => {
                let parent = openat(self.here(), c"..", DIRECTORY, 0)?;
                if identity(parent.as_fd())? != left {
                    return Err(Errno::ESTALE);
                }
                parent
            }
        };
        Ok(true)
    }
}

fn identity(directory: BorrowedFd<'_>) -> Result<(u64, u64)> {
    fstat(directory).map(|stat| (stat.st_dev, stat.st_ino))
}

/// Calls `each` for every name in and below a directory, for a directory's own after all that it holds. Neither links nor
/// mount points are entered.
///
/// # Errors
/// The first one of `each`; `EXDEV` for a mount point; as `openat2(2)`.
pub fn visit(top: OwnedFd, mut each: impl FnMut(BorrowedFd<'_>, &CStr, Kind) -> Result<()>) -> Result<()> {
    // What is still to be visited on each level. A directory stays the last of its level until all in it has been.
    let mut levels = vec![entries(top.as_fd())?];
    let mut way = Way::new(top);
    while let Some(level) = levels.last_mut() {
        let Some(entry) = level.last() else {
            levels.pop();
            way.up()?;
            if let Some(Entry { name, .. }) = levels.last_mut().and_then(Vec::pop) {
                each(way.here(), &name, Kind::Directory)?;
            }
            continue;
        };
        let kind = match entry.kind {
            Some(kind) => kind,
            None => Kind::of(fstatat(way.here(), &entry.name, libc::AT_SYMLINK_NOFOLLOW)?.st_mode),
        };
        if kind == Kind::Directory {
            let resolve = RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS;
            let child = match openat2(way.here(), &entry.name, DIRECTORY, 0, resolve) {
                Err(Errno::ENOENT) => {
                    level.pop();
                    continue;
                }
                opened => opened?,
            };
            levels.push(entries(child.as_fd())?);
            way.down(child)?;
        } else {
            each(way.here(), &entry.name, kind)?;
            level.pop();
        }
    }
    Ok(())
}

/// Removes a directory with all that it holds; false where there is none.
///
/// # Errors
/// As [`visit`] and `unlinkat(2)`.
pub fn remove(directory: &Path) -> Result<bool> {
    let top = match open(directory, DIRECTORY) {
        Err(Errno::ENOENT) => return Ok(false),
        opened => opened?,
    };
    visit(top, |parent, name, kind| {
        let flags = if kind == Kind::Directory { libc::AT_REMOVEDIR } else { 0 };
        gone(unlinkat(parent, name, flags))
    })?;
    gone(unlinkat(CWD, &c_path(directory)?, libc::AT_REMOVEDIR)).map(|()| true)
}

/// Somebody else may remove the same.
fn gone(removed: Result<()>) -> Result<()> {
    match removed {
        Err(Errno::ENOENT) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A chain of directories `d`, with the way to its end.
    fn chain(top: &Path, depth: usize) -> Way {
        let mut way = Way::new(open(top, DIRECTORY).unwrap());
        for _ in 0..depth {
            crate::sys::path::mkdirat(way.here(), c"d", 0o700).unwrap();
            way.down(openat(way.here(), c"d", DIRECTORY, 0).unwrap()).unwrap();
        }
        way
    }

    #[test]
    fn a_way_leads_back_through_the_directories_that_it_came_through() {
        let top = tempfile::tempdir().unwrap();
        let mut way = chain(top.path(), 3 * OPEN);
        assert_eq!(way.above.iter().filter(|above| matches!(above, Above::Open(_))).count(), OPEN + 1);
        let mut steps = 0;
        while way.up().unwrap() {
            steps += 1;
        }
        assert_eq!(steps, 3 * OPEN);
        let top = open(top.path(), DIRECTORY).unwrap();
        assert_eq!(identity(way.here()), identity(top.as_fd()));
    }

    #[test]
    fn a_directory_that_has_been_moved_out_leads_nowhere() {
        let top = tempfile::tempdir().unwrap();
        let mut way = chain(top.path(), OPEN + 3);
        std::fs::create_dir(top.path().join("elsewhere")).unwrap();
        std::fs::rename(top.path().join("d/d/d"), top.path().join("elsewhere/d")).unwrap();
        let end = std::iter::repeat_with(|| way.up()).find(|went| *went != Ok(true));
        assert_eq!(end, Some(Err(Errno::ESTALE)));
    }

    #[test]
    fn everything_is_visited_once_and_what_a_directory_holds_before_it() {
        let top = tempfile::tempdir().unwrap();
        let at = |name: &str| top.path().join(name);
        std::fs::create_dir_all(at("a/b")).unwrap();
        std::fs::create_dir(at("empty")).unwrap();
        std::fs::write(at("a/b/file"), "").unwrap();
        std::fs::write(at("file"), "").unwrap();
        symlink("/etc", at("a/link")).unwrap();
        let mut seen = Vec::new();
        let visited = visit(open(top.path(), DIRECTORY).unwrap(), |_, name, kind| {
            seen.push((name.to_str().unwrap().to_owned(), kind));
            Ok(())
        });
        assert_eq!(visited, Ok(()));
        let place = |name: &str| seen.iter().position(|(seen, _)| seen == name).unwrap();
        assert!(place("b") < place("a") && place("link") < place("a"));
        seen.sort_by(|one, other| one.0.cmp(&other.0));
        let (directory, file) = (Kind::Directory, Kind::File);
        let all = [("a", directory), ("b", directory), ("empty", directory), ("file", file), ("file", file)];
        let all = all.into_iter().chain([("link", Kind::Other)]).map(|(name, kind)| (name.to_owned(), kind));
        assert_eq!(seen, all.collect::<Vec<_>>());
    }

    #[test]
    fn a_tree_is_removed_and_what_its_links_lead_to_is_not() {
        let top = tempfile::tempdir().unwrap();
        let (tree, kept) = (top.path().join("tree"), top.path().join("kept"));
        std::fs::create_dir(&kept).unwrap();
        std::fs::write(kept.join("file"), "").unwrap();
        std::fs::create_dir(&tree).unwrap();
        drop(chain(&tree, 3 * OPEN));
        for number in 0..2000 {
            std::fs::write(tree.join(format!("d/{number}-{}", "x".repeat(200))), "").unwrap();
        }
        symlink(&kept, tree.join("d/link")).unwrap();
        symlink(&tree, top.path().join("link")).unwrap();
        assert_eq!(remove(&top.path().join("link")), Err(Errno::ENOTDIR), "never through a link");
        assert_eq!(remove(&tree), Ok(true));
        assert!(!tree.exists() && kept.join("file").exists());
        assert_eq!(remove(&tree), Ok(false));
    }
}
