//! The files of a judge sandbox on the host: its bundle directory and its root file system, a tree of empty mount points,
//! links as the host has them, and what goes in.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::sandbox::{Kind, Place, Share};
use crate::error::{At, Error, Result};
use crate::subtree;

/// The staged files of one sandbox: its bundle directory, and the root file system it uses.
///
/// The root file system holds nothing but mount points and the links that the host has, so sandboxes share one,
/// `<root>/.rootfs/<hash>`, which is made once and never changed; it is read-only in every sandbox and belongs to the
/// host's root. What goes into `/box` lies in the bundle directory and is bound. A sandbox with shares has mount points of
/// its own, and where the state root forbids execution `/box` must be copied into the sandbox: those get a private root.
#[derive(Debug)]
pub struct Stage {
    directory: PathBuf,
    rootfs: PathBuf,
    private: bool,
    boxed: std::cell::Cell<bool>,
}

/// How `/box` comes into a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BoxMount<'a> {
    /// It is empty, or part of the root file system.
    None,
    /// This directory is bound.
    Bind(&'a Path),
    /// What the root file system has there is copied up into a tmpfs.
    CopyUp,
}

impl Stage {
    /// Makes the bundle directory `<root>/.judge/<id>`, which must not exist, and the root file system where needed.
    ///
    /// # Errors
    /// [`Error::State`] where it exists: its id is in use; else what the file system answers.
    pub fn make(root: &Path, id: &str, places: &[Place], shares: &[Share]) -> Result<Stage> {
        // The sandbox's user is another one: what is made here must be open to it, whatever the caller's umask says.
        let umask = crate::sys::process::umask(0o022);
        let made = Stage::make_all(root, id, places, shares);
        crate::sys::process::umask(umask);
        made
    }

    fn make_all(root: &Path, id: &str, places: &[Place], shares: &[Share]) -> Result<Stage> {
        let directory = Stage::place(root, id);
        make_directory(directory.parent().unwrap_or(root))?;
        match std::fs::create_dir(&directory) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                return Err(Error::state(id, "is in use"));
            }
            made => made.at("make", directory.display())?,
        }
        // From here on a failure takes back what was made.
        let private = !shares.is_empty() || forbids_exec(&directory);
        let rootfs = match private {
            true => directory.join("rootfs"),
            false => root.join(".rootfs").join(skeleton_name(places)),
        };
        let stage = Stage { directory, rootfs, private, boxed: false.into() };
        let filled = match private {
            true => fill(&stage.rootfs, places, shares),
            false => stage.share_skeleton(root, places),
        };
        match filled {
            Ok(()) => Ok(stage),
            Err(error) => {
                let _ = stage.remove();
                Err(error)
            }
        }
    }

    /// The bundle directory of the sandbox `id`.
    pub fn place(root: &Path, id: &str) -> PathBuf {
        root.join(".judge").join(id)
    }

    /// Makes the shared root file system under a name of its own, unless it is there, and publishes it by rename.
    fn share_skeleton(&self, root: &Path, places: &[Place]) -> Result<()> {
        if self.rootfs.exists() {
            return Ok(());
        }
        make_directory(&root.join(".rootfs"))?;
        let new = self.directory.join("rootfs");
        fill(&new, places, &[])?;
        match std::fs::rename(&new, &self.rootfs) {
            // Another run was faster. Neither is empty, so neither replaces the other.
            Err(_) if self.rootfs.exists() => subtree::remove(&new).at("remove", new.display()).map(drop),
            published => published.at("publish", self.rootfs.display()),
        }
    }

    /// The bundle directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The root file system.
    pub fn rootfs(&self) -> &Path {
        &self.rootfs
    }

    /// How `/box` comes into the sandbox.
    pub fn box_mount(&self) -> BoxMount<'_> {
        match (self.boxed.get(), self.private) {
            (false, _) => BoxMount::None,
            (true, false) => BoxMount::Bind(&self.directory),
            (true, true) if forbids_exec(&self.directory) => BoxMount::CopyUp,
            (true, true) => BoxMount::None,
        }
    }

    /// Puts a file into `/box`.
    ///
    /// # Errors
    /// What the file system answers.
    pub fn put_into_box(&self, name: &str, content: &[u8], executable: bool) -> Result<()> {
        use std::io::Write;
        self.new_in_box(name, executable)?.write_all(content).at("write", name)
    }

    /// Puts a copy of a file into `/box`.
    ///
    /// # Errors
    /// What the file system answers.
    pub fn copy_into_box(&self, name: &str, from: &Path, executable: bool) -> Result<()> {
        let mut file = std::fs::File::open(from).at("open", from.display())?;
        let mut copy = self.new_in_box(name, executable)?;
        std::io::copy(&mut file, &mut copy).at("copy", from.display()).map(drop)
    }

    fn new_in_box(&self, name: &str, executable: bool) -> Result<std::fs::File> {
        self.boxed.set(true);
        let directory = if self.private { self.rootfs.join("box") } else { self.directory.clone() };
        new_file(&directory.join(name), if executable { 0o555 } else { 0o444 })
    }

    /// Removes the stage of a sandbox whose supervisor died: for `delete`, which knows only the id.
    ///
    /// # Errors
    /// What the file system answers.
    pub fn discard(directory: &Path) -> Result<()> {
        subtree::remove(directory).at("remove", directory.display()).map(drop)
    }

    /// Removes what belongs to this sandbox alone.
    ///
    /// # Errors
    /// What the file system answers.
    pub fn remove(self) -> Result<()> {
        match self.boxed.get() || self.private {
            true => subtree::remove(&self.directory).at("remove", self.directory.display()).map(drop),
            false => std::fs::remove_dir(&self.directory).at("remove", self.directory.display()),
        }
    }
}

/// How a shared root file system is filled: another number for another way.
const FORMAT: u8 = 1;

/// The name of the shared root file system: changes whenever its content would. Nobody but the host chooses what is hashed; and
/// SHA-256 would ask the processor first whether it has instructions for it, which takes as long as all else here.
fn skeleton_name(places: &[Place]) -> String {
    use std::hash::{DefaultHasher, Hasher as _};
    let mut hash = DefaultHasher::new();
    hash.write_u8(FORMAT);
    hash.write([PASSWD, GROUP].concat().as_bytes());
    for place in places {
        let (kind, target): (&[u8], _) = match &place.kind {
            Kind::Missing => continue,
            Kind::Link(target) => (b"l", target.as_path()),
            Kind::Directory => (b"d", Path::new("")),
            Kind::File => (b"f", Path::new("")),
        };
        for part in [place.inside.as_os_str().as_bytes(), kind, target.as_os_str().as_bytes()] {
            hash.write(part);
            hash.write_u8(0);
        }
    }
    format!("{:016x}", hash.finish())
}

const PASSWD: &str = "root:x:0:0:root:/:/usr/sbin/nologin\nbox:x:1000:1000:box:/work:/bin/sh\n";
const GROUP: &str = "root:x:0:\nbox:x:1000:\n";

/// Makes a root file system: mount points, the host's links, the user database.
fn fill(rootfs: &Path, places: &[Place], shares: &[Share]) -> Result<()> {
    for name in ["", "proc", "dev", "tmp", "work", "box", "etc"] {
        let path = rootfs.join(name);
        std::fs::create_dir(&path).at("make", path.display())?;
    }
    put(&rootfs.join("etc/passwd"), PASSWD.as_bytes(), 0o444)?;
    put(&rootfs.join("etc/group"), GROUP.as_bytes(), 0o444)?;
    for shown in places {
        match &shown.kind {
            Kind::Missing => {}
            Kind::Link(target) => {
                let at = place(rootfs, &shown.inside)?;
                std::os::unix::fs::symlink(target, &at).at("make the link", at.display())?;
            }
            kind => mount_point(rootfs, &shown.inside, *kind == Kind::Directory)?,
        }
    }
    for share in shares {
        let metadata = std::fs::metadata(&share.outside).at("stat", share.outside.display())?;
        mount_point(rootfs, &share.inside, metadata.is_dir())?;
    }
    Ok(())
}

/// A directory or an empty file to mount on. One that is there already will do.
fn mount_point(rootfs: &Path, path: &Path, directory: bool) -> Result<()> {
    let place = place(rootfs, path)?;
    if directory {
        return make_directory(&place);
    }
    match std::fs::OpenOptions::new().write(true).create_new(true).mode(0o444).open(&place) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        made => made.at("make", place.display()).map(drop),
    }
}

/// A path's place in the root file system, its parents made. Never through a link: then it could lie elsewhere.
fn place(rootfs: &Path, path: &Path) -> Result<PathBuf> {
    let mut place = rootfs.to_owned();
    let mut parts = path.strip_prefix("/").unwrap_or(path).components().peekable();
    while let Some(part) = parts.next() {
        place.push(part);
        if parts.peek().is_some() {
            make_directory(&place)?;
            if std::fs::symlink_metadata(&place).at("stat", place.display())?.is_symlink() {
                return Err(Error::Usage(format!("`{}` leads through a link of the toolchain", path.display())));
            }
        }
    }
    Ok(place)
}

/// Makes a directory; one that is there already will do.
fn make_directory(path: &Path) -> Result<()> {
    match std::fs::create_dir(path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        made => made.at("make", path.display()),
    }
}

fn put(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    use std::io::Write;
    new_file(path, mode)?.write_all(content).at("write", path.display())
}

fn new_file(path: &Path, mode: u32) -> Result<std::fs::File> {
    std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path).at("make", path.display())
}

/// Whether programs on this file system may be executed at all (`/run` often forbids it).
fn forbids_exec(directory: &Path) -> bool {
    use nix::sys::statvfs::{FsFlags, statvfs};
    statvfs(directory).is_ok_and(|fs| fs.flags().contains(FsFlags::ST_NOEXEC))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_has_links_as_the_host_and_mount_points() {
        let root = tempfile::tempdir().unwrap();
        let host = root.path().join("host");
        std::fs::create_dir(&host).unwrap();
        std::os::unix::fs::symlink("usr/bin", host.join("bin")).unwrap();
        std::fs::write(host.join("file"), "").unwrap();
        std::fs::create_dir_all(host.join("usr/bin")).unwrap();
        let elsewhere = Place::elsewhere(host.join("bin/.."), "/toolchain/x".into());
        let paths = [host.join("file"), host.join("missing"), host.join("bin")].map(Place::same);
        let places: Vec<Place> = paths.into_iter().chain([elsewhere]).collect();
        let share = |inside: &str| Share { inside: inside.into(), outside: host.clone(), writable: false };
        let stage = Stage::make(root.path(), "a", &places, &[share("/data/here")]).unwrap();
        let at = |name: &str| stage.rootfs().join(host.strip_prefix("/").unwrap()).join(name);
        assert_eq!(std::fs::read_link(at("bin")).unwrap(), Path::new("usr/bin"));
        assert!(at("file").is_file() && !at("missing").exists());
        assert!(stage.rootfs().join("data/here").is_dir() && stage.rootfs().join("toolchain/x").is_dir());
        let through = mount_point(stage.rootfs(), &host.join("bin/x"), true);
        assert!(matches!(through, Err(Error::Usage(_))), "never through a link");
        stage.put_into_box("main.sh", b"true", false).unwrap();
        assert!(stage.put_into_box("main.sh", b"x", false).is_err(), "never over something");
        assert!(matches!(Stage::make(root.path(), "a", &[], &[]), Err(Error::State { .. })));
        stage.remove().unwrap();
        assert!(!Stage::place(root.path(), "a").exists());
    }

    #[test]
    fn stages_share_a_root_file_system_as_long_as_the_host_is_the_same() {
        let root = tempfile::tempdir().unwrap();
        let shown = root.path().join("dir");
        let make = |id: &str| Stage::make(root.path(), id, &[Place::same(shown.clone())], &[]).unwrap();
        let (first, second) = (make("a"), make("b"));
        assert_eq!(first.rootfs(), second.rootfs());
        assert_eq!(first.box_mount(), BoxMount::None);
        first.put_into_box("x", b"", true).unwrap();
        assert_eq!(first.box_mount(), BoxMount::Bind(first.directory()));
        let rootfs = first.rootfs().to_owned();
        first.remove().unwrap();
        assert!(rootfs.join("proc").is_dir(), "it outlives its maker");
        std::fs::create_dir(&shown).unwrap();
        assert_ne!(make("c").rootfs(), second.rootfs());
    }
}
