//! Mounts that a container may have left in the runtime's own mount namespace.

use std::io::BufReader;
use std::path::{Path, PathBuf};

use procfs::FromBufRead;
use procfs::process::{MountInfo, MountInfos};

use crate::error::{At, Error, Result};

/// Mount points strictly below the directories, in words. A mount *on* such a directory is the
/// engine's own (an overlay that it made before `create` and removes after `delete`).
///
/// # Errors
/// Where mountinfo cannot be read.
pub fn below(directories: &[&Path]) -> Result<Vec<String>> {
    let words = |mount: &MountInfo| format!("mount `{}` on `{}`", mount.fs_type, mount.mount_point.display());
    Ok(find(directories)?.iter().map(words).collect())
}

/// The same as paths, in the order in which they were mounted.
///
/// # Errors
/// As [`below`].
pub fn points_below(directories: &[&Path]) -> Result<Vec<PathBuf>> {
    Ok(find(directories)?.into_iter().map(|mount| mount.mount_point).collect())
}

fn find(directories: &[&Path]) -> Result<Vec<MountInfo>> {
    const FILE: &str = "/proc/self/mountinfo";
    let file = std::fs::File::open(FILE).at("open", FILE)?;
    let mounts = MountInfos::from_buf_read(BufReader::with_capacity(32 << 10, file))
        .map_err(|error| Error::Other(format!("read `{FILE}`: {error}")))?;
    let below = |mount: &MountInfo| {
        directories.iter().any(|directory| {
            // A container whose rootfs is `/` has the whole host below it.
            *directory != Path::new("/") && mount.mount_point != **directory && mount.mount_point.starts_with(directory)
        })
    };
    Ok(mounts.0.into_iter().filter(below).collect())
}
