//! `type: cgroup`: what the container sees of the cgroups, on each kind of host.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;

use libc::{MS_BIND, MS_RDONLY, MS_REC};

use super::bind;
use super::cgroup_view::CgroupHierarchy;
use super::mounts::mount_on;
use super::plan::PlannedMount;
use super::tree::{Kind, Tree, c_string};
use crate::error::{At, Result};
use crate::sys::Errno;
use crate::sys::mount::{MOUNT_ATTR_RDONLY, MountAttr, OPEN_TREE_CLONE, mount, mount_setattr, move_mount, open_tree};
use crate::sys::mount_at::{fchdir, move_mount_at};
use crate::sys::path::{CWD, c_path, mkdirat, symlinkat};

/// A tmpfs with one directory for each v1 hierarchy: a mount of it where the cgroup namespace limits what that shows,
/// else a bind of the container's own directory.
///
/// `ro` holds for every one of them: a writable hierarchy lets root in the container raise its own limits.
pub(super) fn v1(
    tree: &mut Tree,
    planned: &PlannedMount,
    hierarchies: &[CgroupHierarchy],
    namespaced: bool,
) -> Result<Option<Rc<OwnedFd>>> {
    let object = format!("/{}", planned.destination);
    let place = tree.place(&planned.destination, Kind::Directory, true).at("create mount point", &object)?;
    let flags = planned.options.flags & !(MS_BIND | MS_REC);
    mount_on(&place.handle, Some(c"tmpfs"), Some(c"tmpfs"), flags & !MS_RDONLY, Some(c"mode=755"))
        .at("mount", format!("tmpfs` on `{object}"))?;
    let top = tree.find(&planned.destination, libc::O_DIRECTORY).at("open", &object)?;
    fchdir(top.as_fd()).at("enter", &object)?;
    for hierarchy in hierarchies {
        let Some(name) = hierarchy.mountpoint.file_name() else { continue };
        one(&top, name, hierarchy, planned, namespaced)?;
        // `cpu,cpuacct` is reached as `cpu` and as `cpuacct` too.
        let text = name.to_string_lossy();
        if text.contains(',') {
            let target = c_path(name).at("create link", &object)?;
            for alias in text.split(',') {
                let alias = c_string(alias).at("create link", &object)?;
                match symlinkat(&target, top.as_fd(), &alias) {
                    Ok(()) | Err(Errno::EEXIST) => {}
                    Err(errno) => return Err(crate::Error::sys("create link in", &object, errno)),
                }
            }
        }
    }
    bind::set_tree_attributes(&top, &planned.options, &object)?;
    bind::set_propagation(&top, &planned.options, &object)?;
    Ok((flags & MS_RDONLY != 0).then(|| Rc::new(top)))
}

fn one(
    top: &OwnedFd,
    name: &OsStr,
    hierarchy: &CgroupHierarchy,
    planned: &PlannedMount,
    namespaced: bool,
) -> Result<()> {
    let c_name = c_path(name).at("create", name.display())?;
    let object = || format!("cgroup` on `/{}/{}", planned.destination, name.display());
    mkdirat(top.as_fd(), &c_name, 0o755).at("create mount point of", name.display())?;
    let flags = planned.options.flags & !(MS_BIND | MS_REC);
    if namespaced {
        // The tmpfs is the working directory, and nobody else has seen it: the name is the directory just made.
        let mounted = if hierarchy.is_v2() {
            mount(Some(c"cgroup2"), &c_name, Some(c"cgroup2"), flags, None)
        } else {
            let data = c_string(&hierarchy.mount_data()).at("mount", object())?;
            mount(Some(c"cgroup"), &c_name, Some(c"cgroup"), flags, Some(&data))
        };
        match mounted {
            Ok(()) => return Ok(()),
            // In a user namespace only hierarchies mounted nowhere else with other options can be mounted.
            Err(Errno::EPERM | Errno::EBUSY | Errno::EINVAL) => {}
            Err(errno) => return Err(crate::Error::sys("mount", object(), errno)),
        }
    }
    let source = bind::open_source(&hierarchy.directory, false)?;
    bind::set_attributes(&source, &planned.options, &object())?;
    move_mount_at(source.as_fd(), top.as_fd(), &c_name).at("mount", object())
}

/// A mount of the unified hierarchy, or a bind of the container's own directory of it.
pub(super) fn v2(tree: &mut Tree, planned: &PlannedMount, directory: &Path, namespaced: bool) -> Result<()> {
    let object = format!("/{}", planned.destination);
    let what = || format!("cgroup` on `{object}");
    let place = tree.place(&planned.destination, Kind::Directory, true).at("create mount point", &object)?;
    let flags = planned.options.flags & !(MS_BIND | MS_REC);
    if namespaced {
        match mount_on(&place.handle, Some(c"cgroup2"), Some(c"cgroup2"), flags, None) {
            Ok(()) => {
                let mounted = tree.find(&planned.destination, libc::O_DIRECTORY).at("open", &object)?;
                bind::set_tree_attributes(&mounted, &planned.options, &object)?;
                return bind::set_propagation(&mounted, &planned.options, &object);
            }
            // Not allowed in a user namespace that does not own the cgroup namespace.
            Err(Errno::EPERM | Errno::EBUSY) => {}
            Err(errno) => return Err(crate::Error::sys("mount", what(), errno)),
        }
    }
    let source = match bind::open_source(directory, false) {
        Ok(source) => source,
        // The directory is out of reach: the host's whole view, read-only.
        Err(_) => {
            let path = c_path("/sys/fs/cgroup").at("open", "/sys/fs/cgroup")?;
            let tree = open_tree(CWD, &path, OPEN_TREE_CLONE | crate::sys::mount::AT_RECURSIVE)
                .at("open bind source", "/sys/fs/cgroup")?;
            let attr = MountAttr { attr_set: MOUNT_ATTR_RDONLY, ..MountAttr::default() };
            mount_setattr(tree.as_fd(), crate::sys::mount::AT_RECURSIVE, &attr)
                .at("make read-only", "/sys/fs/cgroup")?;
            tree
        }
    };
    bind::set_attributes(&source, &planned.options, &object)?;
    move_mount(source.as_fd(), place.handle.as_fd()).at("mount", what())?;
    bind::set_propagation(&source, &planned.options, &object)
}
