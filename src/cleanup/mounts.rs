//! Mounts that a container may have left in the runtime's own mount namespace.

use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::error::{At, Error, Result};
use crate::sys::mountinfo::{self, Mounted};
use crate::sys::path;

/// No table of mounts is longer: the kernel has at most 100,000 in a namespace (`fs.mount-max`).
const LARGEST: usize = 256 << 20;

/// Mount points strictly below the directories, in words. A mount *on* such a directory is the
/// engine's own (an overlay that it made before `create` and removes after `delete`).
///
/// # Errors
/// Where mountinfo cannot be read.
pub fn below(directories: &[&Path]) -> Result<Vec<String>> {
    let words = |mount: &Mounted| format!("mount `{}` on `{}`", mount.fstype, mount.point.display());
    Ok(find(directories)?.iter().map(words).collect())
}

/// The same as paths, in the order in which they were mounted.
///
/// # Errors
/// As [`below`].
pub fn points_below(directories: &[&Path]) -> Result<Vec<PathBuf>> {
    Ok(find(directories)?.into_iter().map(|mount| mount.point).collect())
}

fn find(directories: &[&Path]) -> Result<Vec<Mounted>> {
    const FILE: &str = "/proc/self/mountinfo";
    let file = path::open(FILE, libc::O_RDONLY).at("open", FILE)?;
    let table = path::read_all(file.as_fd(), LARGEST).at("read", FILE)?;
    // By components, as a kernel writes them: most mounts are then seen at a glance not to be below.
    let plain: Vec<PathBuf> = directories.iter().map(|directory| directory.components().collect()).collect();
    let may_be_below = |point: &[u8]| {
        point.contains(&b'\\') || plain.iter().any(|directory| point.starts_with(directory.as_os_str().as_bytes()))
    };
    let mounts = mountinfo::parse_where(&table, may_be_below)
        .map_err(|line| Error::Other(format!("read `{FILE}`: line {line} is no mount")))?;
    let below = |mount: &Mounted| {
        directories.iter().any(|directory| {
            // A container whose rootfs is `/` has the whole host below it.
            *directory != Path::new("/") && mount.point != **directory && mount.point.starts_with(directory)
        })
    };
    Ok(mounts.into_iter().filter(below).collect())
}
