//! The root file system of a box: mount points made by its rules, and what is mounted on them.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use serde_json::{Value, json};

use super::rules::{Kind as Show, Rules};
use crate::error::{At, Error, Result};
use crate::sys::directory::Kind;
use crate::sys::path::{self, RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS};
use crate::sys::{Errno, calls};

/// What a sandbox is shown.
pub(super) struct Shown {
    /// Entries of `mounts` of config.json.
    pub mounts: Vec<Value>,
    /// Descriptors that their sources name: they stay open until all is mounted.
    pub held: Vec<OwnedFd>,
}

/// Makes the mount points in a new directory; `place` is the box's own, which relative sources are of.
pub(super) fn make(rootfs: &Path, place: &Path, rules: &Rules) -> Result<Shown> {
    std::fs::create_dir(rootfs).at("make", rootfs.display())?;
    let (mut mounts, mut held) = (Vec::new(), Vec::new());
    for rule in rules.all() {
        let target = rootfs.join(&rule.inside);
        let inside = Path::new("/").join(&rule.inside);
        let mut options = vec!["nosuid"];
        if !rule.devices {
            options.push("nodev");
        }
        if rule.noexec {
            options.push("noexec");
        }
        let (kind, source) = match &rule.kind {
            // The host's /dev would show its terminals and its shared memory: a private one has the harmless devices.
            Show::Bind(source) if rule.devices && source == Path::new("/dev") && inside == Path::new("/dev") => {
                options.extend(["mode=755", "size=64k"]);
                ("tmpfs", "tmpfs".into())
            }
            Show::Bind(source) => {
                let found = match find(place, source) {
                    Err(error) if rule.maybe && error.errno() == Some(Errno::ENOENT) => continue,
                    found => found?,
                };
                if !found.directory {
                    file(&target)?;
                }
                held.extend(found.held);
                options.push(if rule.writable { "rw" } else { "ro" });
                options.push(if rule.single { "bind" } else { "rbind" });
                ("bind", found.source)
            }
            Show::FileSystem(kind) => {
                options.push(if rule.writable { "rw" } else { "ro" });
                (kind.as_str(), kind.into())
            }
            Show::Temporary => {
                options.push("mode=1777");
                ("tmpfs", "tmpfs".into())
            }
        };
        if !target.exists() {
            std::fs::create_dir_all(&target).at("make", target.display())?;
        }
        mounts.push(json!({"destination": inside, "type": kind, "source": source, "options": options}));
    }
    if !rules.all().iter().any(|rule| rule.inside == Path::new("dev")) {
        // The engine makes the harmless devices in any case.
        let target = rootfs.join("dev");
        std::fs::create_dir_all(&target).at("make", target.display())?;
        let options = ["nosuid", "noexec", "mode=755", "size=64k"];
        mounts.push(json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": options}));
    }
    Ok(Shown { mounts, held })
}

fn file(target: &Path) -> Result<()> {
    if let Some(parent) = target.parent() {
        std::fs::create_dir_all(parent).at("make", parent.display())?;
    }
    std::fs::write(target, "").at("make", target.display())
}

/// The source of a bind mount.
struct Found {
    source: PathBuf,
    directory: bool,
    held: Option<OwnedFd>,
}

/// Looks a source up. What lies in the box may be whatever an earlier program has left: no link of it is followed, and what was
/// found is what is bound.
fn find(place: &Path, source: &Path) -> Result<Found> {
    let Some(below) = in_box(place, source) else {
        let source = if source.is_absolute() { source.to_owned() } else { place.join(plain(source)) };
        let directory = std::fs::metadata(&source).at("stat", source.display())?.is_dir();
        return Ok(Found { source, directory, held: None });
    };
    let whole = place.join(&below);
    let top = path::open(place, libc::O_PATH | libc::O_DIRECTORY).at("open", place.display())?;
    let name = path::c_path(&below).at("open", whole.display())?;
    let resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
    let handle = match path::openat2(top.as_fd(), &name, libc::O_PATH, 0, resolve) {
        Err(Errno::ELOOP | Errno::EXDEV) => {
            let why = format!("`{}` leads through a link in the box, or out of it", source.display());
            return Err(Error::Refused(why));
        }
        opened => opened.at("open", whole.display())?,
    };
    let directory = Kind::of(path::fstat(handle.as_fd()).at("stat", whole.display())?.st_mode) == Kind::Directory;
    // Without detached mounts the engine looks sources up below a root, where no descriptor can be named. Nobody but the box's
    // owner can have put another in its place.
    let source = match calls::can_mount_detached() {
        true => PathBuf::from(format!("/proc/self/fd/{}", handle.as_raw_fd())),
        false => whole,
    };
    Ok(Found { source, directory, held: Some(handle) })
}

/// Where a source lies in the box, if it does. The box's own directory can be replaced by nobody.
fn in_box(place: &Path, source: &Path) -> Option<PathBuf> {
    let below = if source.is_absolute() { source.strip_prefix(place).ok()?.to_owned() } else { plain(source) };
    below.starts_with("box").then_some(below).filter(|below| below != Path::new("box"))
}

/// Without `.`; there is no `..`, which [`Rules::set`] refuses.
fn plain(source: &Path) -> PathBuf {
    source.components().filter(|part| matches!(part, Component::Normal(_))).collect()
}
