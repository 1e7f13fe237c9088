//! `linux.cgroupsPath`.

use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use crate::cgroup::systemd::{Manager, Unit};
use crate::error::{Error, Result};

/// Checks the path; for the systemd driver it has the shape `slice:prefix:name`.
pub(super) fn check_path(path: &Path, systemd: bool) -> Result<()> {
    let refuse = |why: String| Err(Error::config("$.linux.cgroupsPath", why));
    let bytes = path.as_os_str().as_bytes();
    if bytes.contains(&0) || bytes.contains(&b'\n') {
        return refuse("has a NUL byte or a line break".into());
    }
    if path.components().any(|component| component == Component::ParentDir) {
        return refuse("has a `..`, which could lead out of the hierarchy".into());
    }
    if !systemd {
        return Ok(());
    }
    Unit::parse(Some(path), "id", Manager::System).map(drop)
}
