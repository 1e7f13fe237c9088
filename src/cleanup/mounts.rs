//! Mounts that a container may have left in the runtime's own mount namespace.

use std::io::BufReader;
use std::path::Path;

use procfs::FromBufRead;
use procfs::process::MountInfos;

use crate::error::{At, Error, Result};

/// Mount points strictly below the directories, in words. A mount *on* such a directory is the
/// engine's own (an overlay that it made before `create` and removes after `delete`).
pub fn below(directories: &[&Path]) -> Result<Vec<String>> {
    const FILE: &str = "/proc/self/mountinfo";
    let file = std::fs::File::open(FILE).at("open", FILE)?;
    let mounts = MountInfos::from_buf_read(BufReader::with_capacity(32 << 10, file))
        .map_err(|error| Error::Other(format!("read `{FILE}`: {error}")))?;
    Ok(mounts
        .0
        .iter()
        .filter(|mount| {
            directories.iter().any(|directory| {
                // A container whose rootfs is `/` has the whole host below it.
                *directory != Path::new("/")
                    && mount.mount_point != **directory
                    && mount.mount_point.starts_with(directory)
            })
        })
        .map(|mount| format!("mount `{}` on `{}`", mount.fs_type, mount.mount_point.display()))
        .collect())
}
