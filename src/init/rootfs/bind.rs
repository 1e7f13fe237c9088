//! Bind mounts: cloned as a detached tree, given their attributes, then attached.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use super::plan::PlannedMount;
use super::tree::{Kind, Place, Tree};
use crate::error::{At, Result};
use crate::spec::mount_options::{MOUNT_ATTR_ATIME_MASK, MountOptions, attributes};
use crate::sys::Errno;
use crate::sys::mount::{AT_RECURSIVE, MountAttr, OPEN_TREE_CLONE, mount_setattr, move_mount, open_tree};
use crate::sys::path::{CWD, c_path, fstat};

/// A detached copy of the host's tree at `source`.
pub(super) fn open_source(source: &Path, recursive: bool) -> Result<OwnedFd> {
    let flags = OPEN_TREE_CLONE | if recursive { AT_RECURSIVE } else { 0 };
    let path = c_path(source).at("open bind source", source.display())?;
    open_tree(CWD, &path, flags).at("open bind source", source.display())
}

/// The attributes that the options give to the mount alone.
///
/// Only what is named changes: a `nosuid` of the source stays, unless `suid` drops it. So flags that a more
/// privileged namespace has locked are kept without being asked for.
fn own_attributes(options: &MountOptions) -> Option<MountAttr> {
    let named = options.flags | options.cleared;
    let access_time = libc::MS_NOATIME | libc::MS_RELATIME | libc::MS_STRICTATIME;
    let mut attr = MountAttr {
        attr_set: attributes(options.flags),
        attr_clr: attributes(options.cleared) & !MOUNT_ATTR_ATIME_MASK,
        ..MountAttr::default()
    };
    if named & access_time != 0 {
        attr.attr_clr |= MOUNT_ATTR_ATIME_MASK;
    }
    (attr.attr_set != 0 || attr.attr_clr != 0).then_some(attr)
}

/// Applies the flags of the options and their recursive attributes to a mount.
pub(super) fn set_attributes(mount: &OwnedFd, options: &MountOptions, object: &str) -> Result<()> {
    if let Some(attr) = own_attributes(options) {
        mount_setattr(mount.as_fd(), 0, &attr).at("set mount attributes of", object)?;
    }
    set_tree_attributes(mount, options, object)
}

/// Applies the recursive attributes (`rro`, `rnosuid` …).
pub(super) fn set_tree_attributes(mount: &OwnedFd, options: &MountOptions, object: &str) -> Result<()> {
    if !options.has_tree_attributes() {
        return Ok(());
    }
    let attr = MountAttr { attr_set: options.tree_set, attr_clr: options.tree_clear, ..MountAttr::default() };
    mount_setattr(mount.as_fd(), AT_RECURSIVE, &attr).at("set recursive mount attributes of", object)
}

/// Applies the propagation options, in their order, to an attached mount.
pub(super) fn set_propagation(mount: &OwnedFd, options: &MountOptions, object: &str) -> Result<()> {
    for kind in &options.propagation {
        let attr = MountAttr { propagation: kind & !libc::MS_REC, ..MountAttr::default() };
        let flags = if kind & libc::MS_REC != 0 { AT_RECURSIVE } else { 0 };
        mount_setattr(mount.as_fd(), flags, &attr).at("set propagation of", object)?;
    }
    Ok(())
}

/// What `mount(2)` says of a directory on a file, or the other way round, where `move_mount(2)` says only `EINVAL`.
/// Engines show it to their users.
fn mismatch(source: Kind, place: &Place) -> Option<Errno> {
    let there = fstat(place.handle.as_fd()).ok()?.st_mode & libc::S_IFMT;
    match source {
        Kind::Directory if there != libc::S_IFDIR => Some(Errno::ENOTDIR),
        Kind::File if there == libc::S_IFDIR => Some(Errno::ENOTDIR),
        _ => None,
    }
}

/// Attaches a bind mount at its destination.
pub(super) fn attach(tree: &mut Tree, mount: &PlannedMount, source: OwnedFd, prepared: bool) -> Result<()> {
    let object = format!("/{}", mount.destination);
    if !prepared {
        set_attributes(&source, &mount.options, &object)?;
    }
    let stat = fstat(source.as_fd()).at("stat bind source of", &object)?;
    let kind = if stat.st_mode & libc::S_IFMT == libc::S_IFDIR { Kind::Directory } else { Kind::File };
    let place = tree.place(&mount.destination, kind, true).at("create mount point", &object)?;
    move_mount(source.as_fd(), place.handle.as_fd())
        .map_err(|errno| if errno == Errno::EINVAL { mismatch(kind, &place).unwrap_or(errno) } else { errno })
        .at("mount", format!("{}` on `{object}", mount.what()))?;
    set_propagation(&source, &mount.options, &object)?;
    if mount.destination.is_empty() {
        tree.set_root(source);
    }
    Ok(())
}
