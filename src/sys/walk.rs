//! `openat2(2)` component by component, where the kernel has no such call or a filter keeps the caller from it.
//!
//! Nothing is ever looked up that could lead out: each step opens one name by `O_PATH | O_NOFOLLOW`, links are read and their
//! words walked like the path's own, `..` goes back to a directory that the walk came through. What the kernel checks at the end of a
//! scoped look-up is checked here too: that the place still lies below the root, wherever others have moved it meanwhile.

use std::collections::VecDeque;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::path::{
    CWD, RESOLVE_BENEATH, RESOLVE_IN_ROOT, RESOLVE_NO_SYMLINKS, RESOLVE_NO_XDEV, fstat, fstatfs, mount_id, openat,
    readlinkat,
};
use super::{Errno, Result};

/// Links followed before it counts as a loop, as in the kernel.
const MAX_LINKS: usize = 40;
/// Deeper than any path of PATH_MAX bytes.
const DEEPEST: usize = 2048;
/// The inode of the root of every procfs, whose links are words like any other's.
const PROC_ROOT_INO: u64 = 1;
const HANDLE: i32 = libc::O_PATH | libc::O_NOFOLLOW;

/// As [`openat2`](super::path::openat2). A magic link of procfs is never followed.
///
/// # Errors
/// As `openat2(2)`; `ENOSYS` for `RESOLVE_NO_XDEV` where the kernel does not tell mounts apart (before Linux 5.8).
pub(super) fn openat2(dir: BorrowedFd<'_>, path: &CStr, flags: i32, mode: u32, resolve: u64) -> Result<OwnedFd> {
    if resolve == 0 {
        return openat(dir, path, flags, mode);
    }
    if path.is_empty() {
        return Err(Errno::ENOENT);
    }
    let mut walk = Walk { rest: VecDeque::new(), resolve, links: 0, came: Vec::new(), mount: None };
    let start = if path.to_bytes()[0] == b'/' && resolve & (RESOLVE_IN_ROOT | RESOLVE_BENEATH) == 0 {
        openat(CWD, c"/", libc::O_PATH | libc::O_DIRECTORY, 0)?
    } else {
        openat(dir, c".", libc::O_PATH | libc::O_DIRECTORY, 0)?
    };
    if resolve & RESOLVE_NO_XDEV != 0 {
        walk.mount = Some(mount_id(start.as_fd())?);
    }
    walk.came.push(start);
    walk.follow(path.to_bytes())?;
    walk.open(flags, mode)
}

struct Walk {
    /// The components to come.
    rest: VecDeque<Vec<u8>>,
    resolve: u64,
    links: usize,
    /// The directories from the root to here.
    came: Vec<OwnedFd>,
    /// The mount that may not be left.
    mount: Option<u64>,
}

impl Walk {
    fn scoped(&self) -> bool {
        self.resolve & (RESOLVE_IN_ROOT | RESOLVE_BENEATH) != 0
    }

    fn here(&self) -> BorrowedFd<'_> {
        self.came[self.came.len() - 1].as_fd()
    }

    /// Puts the words of a path, or of a link, before what is to come.
    fn follow(&mut self, path: &[u8]) -> Result<()> {
        if path.starts_with(b"/") {
            if self.resolve & RESOLVE_BENEATH != 0 {
                return Err(Errno::EXDEV);
            }
            self.came.truncate(1);
            if !self.scoped() {
                self.came[0] = openat(CWD, c"/", libc::O_PATH | libc::O_DIRECTORY, 0)?;
                self.stays(0)?;
            }
        }
        let mut names: Vec<_> = path.split(|byte| *byte == b'/').map(<[u8]>::to_vec).collect();
        // A slash at the end, or a link that stands where a directory has to be, asks for a directory: as `.` does.
        names.iter_mut().filter(|name| name.is_empty()).for_each(|name| name.push(b'.'));
        if path.starts_with(b"/") {
            names.remove(0);
        }
        names.into_iter().rev().for_each(|name| self.rest.push_front(name));
        Ok(())
    }

    fn open(mut self, flags: i32, mode: u32) -> Result<OwnedFd> {
        while let Some(name) = self.rest.pop_front() {
            let last = self.rest.is_empty();
            let name = CString::new(name).map_err(|_| Errno::EINVAL)?;
            match name.to_bytes() {
                b"." => {}
                b".." => self.back()?,
                _ => {
                    let child = match openat(self.here(), &name, HANDLE, 0) {
                        Err(Errno::ENOENT) if last && flags & libc::O_CREAT != 0 => {
                            let made = openat(self.here(), &name, flags | libc::O_NOFOLLOW, mode)?;
                            return self.below(self.here()).map(|()| made);
                        }
                        other => other?,
                    };
                    self.came.push(child);
                    self.stays(self.came.len() - 1)?;
                    match fstat(self.here())?.st_mode & libc::S_IFMT {
                        libc::S_IFLNK if last && flags & libc::O_NOFOLLOW != 0 => {
                            return if flags & libc::O_PATH != 0 && flags & libc::O_DIRECTORY == 0 {
                                self.take()
                            } else if flags & libc::O_DIRECTORY != 0 {
                                Err(Errno::ENOTDIR)
                            } else {
                                Err(Errno::ELOOP)
                            };
                        }
                        libc::S_IFLNK => self.link()?,
                        libc::S_IFDIR => {}
                        _ if !last => return Err(Errno::ENOTDIR),
                        _ => return self.file(&name, flags, mode),
                    }
                }
            }
            if self.came.len() > DEEPEST {
                return Err(Errno::ENAMETOOLONG);
            }
        }
        if flags & libc::O_CREAT != 0 {
            return Err(Errno::EISDIR);
        }
        if flags & libc::O_PATH != 0 {
            return self.take();
        }
        let opened = openat(self.here(), c".", flags, 0)?;
        self.below(self.here()).map(|()| opened)
    }

    fn back(&mut self) -> Result<()> {
        match self.came.len() {
            1 if self.resolve & RESOLVE_BENEATH != 0 => Err(Errno::EXDEV),
            1 if self.scoped() => Ok(()),
            1 => {
                let parent = openat(self.here(), c"..", libc::O_PATH | libc::O_DIRECTORY, 0)?;
                self.came[0] = parent;
                self.stays(0)
            }
            _ => {
                self.came.pop();
                Ok(())
            }
        }
    }

    /// Replaces the link that was come to by its words.
    fn link(&mut self) -> Result<()> {
        let Some(link) = self.came.pop() else { return Err(Errno::ENOENT) };
        self.links += 1;
        if self.links > MAX_LINKS || self.resolve & RESOLVE_NO_SYMLINKS != 0 {
            return Err(Errno::ELOOP);
        }
        let magic =
            fstatfs(link.as_fd())?.f_type == libc::PROC_SUPER_MAGIC && fstat(self.here())?.st_ino != PROC_ROOT_INO;
        if magic {
            return Err(Errno::ELOOP);
        }
        let words = readlinkat(link.as_fd(), c"")?;
        self.follow(&words)
    }

    /// Opens a file that is no link and no directory, the last of the path; here is its handle.
    fn file(mut self, name: &CStr, flags: i32, mode: u32) -> Result<OwnedFd> {
        if flags & libc::O_DIRECTORY != 0 {
            return Err(Errno::ENOTDIR);
        }
        if flags & libc::O_PATH != 0 {
            return self.take();
        }
        let Some(handle) = self.came.pop() else { return Err(Errno::ENOENT) };
        let opened = openat(self.here(), name, flags | libc::O_NOFOLLOW, mode)?;
        let (found, seen) = (fstat(opened.as_fd())?, fstat(handle.as_fd())?);
        if (found.st_dev, found.st_ino) != (seen.st_dev, seen.st_ino) {
            // Somebody has put another in its place meanwhile.
            return Err(Errno::EAGAIN);
        }
        self.on_mount(opened.as_fd())?;
        self.below(self.here()).map(|()| opened)
    }

    /// What was come to, where it is still below the root.
    fn take(mut self) -> Result<OwnedFd> {
        let Some(found) = self.came.pop() else { return Err(Errno::ENOENT) };
        let directory = fstat(found.as_fd())?.st_mode & libc::S_IFMT == libc::S_IFDIR;
        match self.came.last() {
            // The root itself.
            None => {}
            Some(_) if directory => self.below(found.as_fd())?,
            Some(parent) => self.below(parent.as_fd())?,
        }
        Ok(found)
    }

    fn stays(&self, at: usize) -> Result<()> {
        self.on_mount(self.came[at].as_fd())
    }

    fn on_mount(&self, fd: BorrowedFd<'_>) -> Result<()> {
        match self.mount {
            Some(mount) if mount_id(fd)? != mount => Err(Errno::EXDEV),
            _ => Ok(()),
        }
    }

    /// Whether a directory is below the root, by going up from it.
    fn below(&self, directory: BorrowedFd<'_>) -> Result<()> {
        let Some(root) = self.came.first().filter(|_| self.scoped()) else { return Ok(()) };
        let identity = |fd: BorrowedFd<'_>| fstat(fd).map(|stat| (stat.st_dev, stat.st_ino));
        let root = identity(root.as_fd())?;
        let mut at = openat(directory, c".", libc::O_PATH | libc::O_DIRECTORY, 0)?;
        for _ in 0..DEEPEST {
            let here = identity(at.as_fd())?;
            if here == root {
                return Ok(());
            }
            let parent = openat(at.as_fd(), c"..", libc::O_PATH | libc::O_DIRECTORY, 0)?;
            if identity(parent.as_fd())? == here {
                break;
            }
            at = parent;
        }
        Err(Errno::EXDEV)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use proptest::prelude::*;

    use super::super::path::{self, RESOLVE_NO_MAGICLINKS, c_path};
    use super::*;

    /// What both give: the inode, or the errno.
    fn both(root: BorrowedFd<'_>, path: &CStr, flags: i32, resolve: u64) -> [Result<(u64, u64)>; 2] {
        let found = |fd: Result<OwnedFd>| fd.and_then(|fd| fstat(fd.as_fd()).map(|stat| (stat.st_dev, stat.st_ino)));
        [found(path::openat2(root, path, flags, 0, resolve)), found(openat2(root, path, flags, 0, resolve))]
    }

    const NAMES: [&str; 4] = ["a", "b", "c", "d"];

    fn some_path() -> impl Strategy<Value = String> {
        let word = prop::sample::select(&["a", "b", "c", "d", "..", ".", ""][..]);
        (any::<bool>(), prop::collection::vec(word, 1..6)).prop_map(|(absolute, words)| {
            let path = words.join("/");
            if absolute {
                format!("/{path}")
            } else if path.is_empty() {
                ".".to_owned()
            } else {
                path
            }
        })
    }

    #[derive(Debug, Clone)]
    enum Made {
        Directory(String),
        File(String),
        Link(String, String),
    }

    fn some_tree() -> impl Strategy<Value = Vec<Made>> {
        let place = prop::collection::vec(prop::sample::select(&NAMES[..]), 1..4).prop_map(|names| names.join("/"));
        let made = (0..3, place, some_path()).prop_map(|(kind, place, target)| match kind {
            0 => Made::Directory(place),
            1 => Made::File(place),
            _ => Made::Link(place, target),
        });
        prop::collection::vec(made, 0..24)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

        /// In any tree any path leads where the kernel's own look-up leads, or fails as it fails.
        #[test]
        fn it_leads_where_the_kernel_leads(
            tree in some_tree(),
            paths in prop::collection::vec(some_path(), 1..12),
            resolve in prop::sample::select(&[
                RESOLVE_IN_ROOT, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS, RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS,
                RESOLVE_BENEATH, RESOLVE_BENEATH | RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS,
            ][..]),
            flags in prop::sample::select(&[
                libc::O_PATH, libc::O_PATH | libc::O_DIRECTORY, HANDLE, libc::O_RDONLY, libc::O_RDONLY | libc::O_NOFOLLOW,
                libc::O_RDONLY | libc::O_DIRECTORY, HANDLE | libc::O_DIRECTORY, libc::O_RDWR,
            ][..]),
        ) {
            let here = tempfile::tempdir().unwrap();
            let root = here.path().join("root");
            std::fs::create_dir(&root).unwrap();
            for made in &tree {
                // What cannot be made at its place is not; nothing is made through a link, which may lead out.
                let (Made::Directory(place) | Made::File(place) | Made::Link(place, _)) = made;
                if std::path::Path::new(place).ancestors().any(|above| root.join(above).is_symlink()) {
                    continue;
                }
                let _ = match made {
                    Made::Directory(place) => std::fs::create_dir_all(root.join(place)),
                    Made::File(place) => std::fs::write(root.join(place), ""),
                    Made::Link(place, target) => symlink(target, root.join(place)),
                };
            }
            let root = path::open(&root, libc::O_PATH | libc::O_DIRECTORY).unwrap();
            for path in &paths {
                let [kernel, own] = both(root.as_fd(), &c_path(path).unwrap(), flags, resolve);
                prop_assert_eq!(kernel, own, "{} in {:?}", path, tree);
            }
        }
    }

    #[test]
    fn procfs_is_walked_as_the_kernel_walks_it() {
        let proc = path::open("/proc", libc::O_PATH | libc::O_DIRECTORY).unwrap();
        let strict = RESOLVE_BENEATH | RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS;
        for (name, fails) in [
            (c"self/status", None),
            (c"thread-self/attr/current", None),
            (c"sys/kernel/hostname", None),
            (c"self/exe", Some(Errno::ELOOP)),
            (c"self/fd/0", Some(Errno::ELOOP)),
            (c"self/root/etc", Some(Errno::ELOOP)),
            (c"../etc", Some(Errno::EXDEV)),
        ] {
            let results = both(proc.as_fd(), name, libc::O_PATH, strict);
            assert_eq!(results.map(|it| it.err()), [fails; 2], "{name:?}");
        }
    }

    #[test]
    fn a_mount_is_not_crossed_where_it_may_not_be() {
        let root = path::open("/", libc::O_PATH | libc::O_DIRECTORY).unwrap();
        let results = both(root.as_fd(), c"proc/version", libc::O_PATH, RESOLVE_BENEATH | RESOLVE_NO_XDEV);
        assert_eq!(results, [Err(Errno::EXDEV); 2]);
    }

    #[test]
    fn what_is_made_is_made_inside() {
        let here = tempfile::tempdir().unwrap();
        std::fs::create_dir(here.path().join("root")).unwrap();
        symlink("/../../out", here.path().join("root/link")).unwrap();
        let root = path::open(here.path().join("root"), libc::O_PATH | libc::O_DIRECTORY).unwrap();
        let make = |path: &CStr| openat2(root.as_fd(), path, libc::O_CREAT | libc::O_WRONLY, 0o600, RESOLVE_IN_ROOT);
        make(c"/../../new").unwrap();
        make(c"link").unwrap();
        assert!(here.path().join("root/new").exists() && here.path().join("root/out").exists());
        assert!(!here.path().join("out").exists());
    }

    #[test]
    fn a_directory_that_has_been_moved_out_is_noticed() {
        let here = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(here.path().join("root/in")).unwrap();
        let root = path::open(here.path().join("root"), libc::O_PATH | libc::O_DIRECTORY).unwrap();
        let moved = path::open(here.path().join("root/in"), libc::O_PATH | libc::O_DIRECTORY).unwrap();
        std::fs::rename(here.path().join("root/in"), here.path().join("gone")).unwrap();
        let walk = Walk { rest: VecDeque::new(), resolve: RESOLVE_IN_ROOT, links: 0, came: vec![root], mount: None };
        assert_eq!(walk.below(moved.as_fd()), Err(Errno::EXDEV));
    }
}
