//! The container's file tree by handle: every path is resolved inside the root, and created by handle.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use crate::sys::path::{
    RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, mkdirat, mknodat, openat, openat2, readlinkat,
};
use crate::sys::{Errno, Result};

/// Links followed while creating a path before it counts as a loop, as in the kernel.
const MAX_LINKS: usize = 40;

/// What a mount point is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Directory,
    File,
}

/// A mount point found or made.
#[derive(Debug)]
pub(super) struct Place {
    pub handle: Rc<OwnedFd>,
    /// Whether it was there before.
    pub existed: bool,
}

/// The root of the container and the directories that were made by us a moment ago.
#[derive(Debug)]
pub(super) struct Tree {
    pub root: Rc<OwnedFd>,
    /// Handles of fresh file systems: what is created right below them needs no look-up from the root.
    fresh: Vec<(String, Rc<OwnedFd>)>,
    /// Whether every directory looked up is remembered, because no mount follows that could cover it.
    settled: bool,
}

impl Tree {
    pub fn new(root: OwnedFd) -> Self {
        Tree { root: Rc::new(root), fresh: Vec::new(), settled: false }
    }

    /// Opens an existing path with `O_PATH | flags`; symbolic links resolve inside the root.
    pub fn find(&self, path: &str, flags: i32) -> Result<OwnedFd> {
        self.open(path, libc::O_PATH | flags, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
    }

    /// As [`Tree::find`], but a symbolic link anywhere in the path is `ELOOP`.
    pub fn find_without_links(&self, path: &str, flags: i32) -> Result<OwnedFd> {
        self.open(path, libc::O_PATH | flags, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS)
    }

    fn open(&self, path: &str, flags: i32, resolve: u64) -> Result<OwnedFd> {
        let path = if path.is_empty() { c".".to_owned() } else { c_string(path)? };
        openat2(self.root.as_fd(), &path, flags, 0, resolve)
    }

    /// A handle of the directory `path`, created with its parents (mode 0755) where missing.
    pub fn directory(&mut self, path: &str) -> Result<Rc<OwnedFd>> {
        if let Some((_, handle)) = self.fresh.iter().find(|(base, _)| base == path) {
            return Ok(handle.clone());
        }
        let handle = self.walk(path, Kind::Directory, 0)?.handle;
        if self.settled {
            self.fresh.push((path.to_owned(), handle.clone()));
        }
        Ok(handle)
    }

    /// No mount to come covers a directory that is looked up here: they keep their handles from now on.
    pub fn keep_directories(&mut self) {
        self.settled = true;
    }

    /// The mount point `path`, created where missing. Forgets fresh handles that the coming mount could cover.
    ///
    /// # Errors
    /// `ELOOP` for a symbolic link in the path where `links` is false.
    pub fn place(&mut self, path: &str, kind: Kind, links: bool) -> Result<Place> {
        if path.is_empty() {
            self.fresh.clear();
            return Ok(Place { handle: self.root.clone(), existed: true });
        }
        let (parent, name) = split(path);
        if let Some((_, dir)) = self.fresh.iter().find(|(base, _)| base == parent) {
            let name = c_string(name)?;
            match create(dir, &name, kind) {
                Ok(handle) => return Ok(Place { handle: Rc::new(handle), existed: false }),
                Err(Errno::EEXIST) => {}
                Err(errno) => return Err(errno),
            }
        }
        // The look-up may end anywhere, over a link even on top of a fresh directory.
        self.fresh.clear();
        if !links {
            match self.find_without_links(path, 0) {
                Err(Errno::ENOENT) => {}
                Err(errno) => return Err(errno),
                Ok(handle) => return Ok(Place { handle: Rc::new(handle), existed: true }),
            }
            let place = self.walk(path, kind, 0)?;
            // Creating follows links in the parents; only what the plain path says is accepted.
            return Ok(Place { handle: Rc::new(self.find_without_links(path, 0)?), ..place });
        }
        self.walk(path, kind, 0)
    }

    /// Remembers the file system that was just mounted at `path`.
    pub fn remember(&mut self, path: &str) -> Result<Rc<OwnedFd>> {
        let handle = Rc::new(self.find(path, libc::O_DIRECTORY)?);
        self.fresh.push((path.to_owned(), handle.clone()));
        Ok(handle)
    }

    /// Replaces the root by what was mounted on it.
    pub fn set_root(&mut self, root: OwnedFd) {
        self.fresh.clear();
        self.root = Rc::new(root);
    }

    fn walk(&self, path: &str, kind: Kind, links: usize) -> Result<Place> {
        let flags = if kind == Kind::Directory { libc::O_DIRECTORY } else { 0 };
        match self.find(path, flags) {
            Ok(handle) => return Ok(Place { handle: Rc::new(handle), existed: true }),
            Err(Errno::ENOENT) if !path.is_empty() => {}
            Err(errno) => return Err(errno),
        }
        let (parent, name) = split(path);
        let dir = self.walk(parent, Kind::Directory, links)?.handle;
        let c_name = c_string(name)?;
        match create(&dir, &c_name, kind) {
            Ok(handle) => Ok(Place { handle: Rc::new(handle), existed: false }),
            Err(Errno::EEXIST) if links < MAX_LINKS => {
                // A link whose target is missing: the target is created, inside the root.
                let target = match readlinkat(dir.as_fd(), &c_name) {
                    Ok(target) => String::from_utf8(target).map_err(|_| Errno::EILSEQ)?,
                    // No link: another container that starts on the same root has made it since the look.
                    Err(Errno::EINVAL) => return self.walk(path, kind, links + 1),
                    Err(_) => return Err(Errno::ENOENT),
                };
                let next = match target.strip_prefix('/') {
                    Some(absolute) => absolute.trim_start_matches('/').to_owned(),
                    None => format!("{parent}/{target}"),
                };
                self.walk(next.trim_end_matches('/').trim_start_matches('/'), kind, links + 1)
            }
            Err(Errno::EEXIST) => Err(Errno::ELOOP),
            Err(errno) => Err(errno),
        }
    }
}

/// Makes `name` below `dir` and opens what was made, never a link put in its place.
fn create(dir: &OwnedFd, name: &CString, kind: Kind) -> Result<OwnedFd> {
    let dir = dir.as_fd();
    let flags = libc::O_PATH | libc::O_NOFOLLOW;
    match kind {
        Kind::Directory => {
            mkdirat(dir, name, 0o755)?;
            openat(dir, name, flags | libc::O_DIRECTORY, 0)
        }
        Kind::File => {
            mknodat(dir, name, libc::S_IFREG | 0o755, 0)?;
            openat(dir, name, flags, 0)
        }
    }
}

/// Parent and last component of a clean relative path.
pub(super) fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

/// A path of the container, cleaned lexically and made relative to its root: `/dev//./pts/` is `dev/pts`.
pub(super) fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// The string with a NUL; `EINVAL` where it holds one.
pub(super) fn c_string(text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| Errno::EINVAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_are_cleaned_inside_the_root() {
        assert_eq!(clean("/dev//./pts/"), "dev/pts");
        assert_eq!(clean("../../etc"), "etc");
        assert_eq!(clean("/a/../../b"), "b");
        assert_eq!(clean("/"), "");
        assert_eq!(split("dev/pts"), ("dev", "pts"));
        assert_eq!(split("dev"), ("", "dev"));
    }
}
