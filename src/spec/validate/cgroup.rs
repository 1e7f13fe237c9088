//! `linux.cgroupsPath`.

use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

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
    let Some(text) = path.to_str() else { return refuse("is not UTF-8".into()) };
    let parts: Vec<&str> = text.split(':').collect();
    let [slice, prefix, name] = parts[..] else {
        return refuse(format!("`{text}` is not of the shape `slice:prefix:name`, which the systemd driver needs"));
    };
    if name.is_empty() || name.contains('/') || prefix.contains('/') {
        return refuse(format!("`{text}` does not name a unit of systemd"));
    }
    match slice {
        "" | "-.slice" => Ok(()),
        _ if is_slice(slice) => Ok(()),
        _ => refuse(format!("`{slice}` is not the name of a slice")),
    }
}

/// systemd.slice(5): dashes separate the parents, so none may be empty.
fn is_slice(name: &str) -> bool {
    let stem = name.strip_suffix(".slice").unwrap_or_default();
    !stem.is_empty() && !stem.contains('/') && stem.split('-').all(|part| !part.is_empty())
}
