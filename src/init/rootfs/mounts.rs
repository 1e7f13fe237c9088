//! `mounts`, in the order of the list.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use libc::{MS_BIND, MS_RDONLY, MS_REC, MS_REMOUNT};

use super::bind;
use super::plan::{MountKind, PlannedMount};
use super::tmpcopyup;
use super::tree::{Kind, Place, Tree, c_string};
use super::{CgroupView, RootfsContext};
use super::{cgroup_mount, masks};
use crate::error::{At, Context, Error, Result};
use crate::init::pid_namespace::run_inside;
use crate::sys::Errno;
use crate::sys::mount::{MOUNT_ATTR_RDONLY, MountAttr, mount, mount_setattr, move_mount};
use crate::sys::mount_at::fchdir;
use crate::sys::path::{CWD, RESOLVE_IN_ROOT, RESOLVE_NO_SYMLINKS, c_path, fstat, mount_id, openat2};

/// Makes one mount. `source` is its tree where it was opened before the clone (attributes already set).
/// `pid_namespace` is the one that a procfs is to show, where it is not the caller's. Returns a handle of the mount that is
/// still to become read-only.
pub(super) fn make(
    tree: &mut Tree,
    planned: &PlannedMount,
    source: Option<OwnedFd>,
    context: &RootfsContext,
    pid_namespace: Option<BorrowedFd<'_>>,
) -> Result<Option<Rc<OwnedFd>>> {
    make_one(tree, planned, source, context, pid_namespace).context(|| format!("$.mounts[{}]", planned.index))
}

fn make_one(
    tree: &mut Tree,
    planned: &PlannedMount,
    source: Option<OwnedFd>,
    context: &RootfsContext,
    pid_namespace: Option<BorrowedFd<'_>>,
) -> Result<Option<Rc<OwnedFd>>> {
    match &planned.kind {
        MountKind::Bind { source: path, recursive } => {
            let prepared = source.is_some();
            if !prepared && planned.idmap.is_some() {
                // Only the creator can have done it.
                return Err(Error::sys("map ids of the mount on", format!("/{}", planned.destination), Errno::EPERM));
            }
            let source = source.map_or_else(|| bind::open_source(path, *recursive), Ok)?;
            bind::attach(tree, planned, source, prepared)?;
            Ok(None)
        }
        MountKind::Remount { data } => remount(tree, planned, data.as_deref()).map(|()| None),
        MountKind::Filesystem { fstype, source, data } => {
            let pid_namespace = pid_namespace.filter(|_| fstype.as_c_str() == c"proc");
            filesystem(tree, planned, (fstype, source, data.as_deref()), context, pid_namespace)
        }
        MountKind::Cgroup => match &context.cgroup {
            CgroupView::V1 { hierarchies } => cgroup_mount::v1(tree, planned, hierarchies, context.cgroup_ns),
            CgroupView::V2 { directory } => {
                cgroup_mount::v2(tree, planned, directory, context.cgroup_ns).map(|()| None)
            }
            CgroupView::None => Ok(None),
        },
    }
}

fn filesystem(
    tree: &mut Tree,
    planned: &PlannedMount,
    (fstype, source, data): (&CStr, &CStr, Option<&CStr>),
    context: &RootfsContext,
    pid_namespace: Option<BorrowedFd<'_>>,
) -> Result<Option<Rc<OwnedFd>>> {
    let object = format!("/{}", planned.destination);
    // A procfs or sysfs that an image's link moves elsewhere would leave the masks on the wrong tree
    // (CVE-2019-19921, CVE-2023-27561).
    let links = !matches!(fstype.to_bytes(), b"proc" | b"sysfs");
    let place = match tree.place(&planned.destination, Kind::Directory, links) {
        Err(Errno::ELOOP) if !links => {
            let name = fstype.to_string_lossy();
            let why = format!("`{name}` must be mounted on ordinary directory: `{object}` is a link, or behind one");
            return Err(Error::Refused(why));
        }
        found => found.at("create mount point", &object)?,
    };
    let mut flags = planned.options.flags & !(MS_BIND | MS_REC);
    if planned.late_readonly() {
        flags &= !MS_RDONLY;
    }
    let data = tmpfs_data(fstype, data, &place, &object)?;
    let mounted = match pid_namespace {
        Some(namespace) => run_inside(namespace, tree.root.as_fd(), place.handle.as_fd(), || {
            mount(Some(source), c".", Some(fstype), flags, data.as_deref())
        }),
        None => mount_on(&place.handle, Some(source), Some(fstype), flags, data.as_deref()),
    };
    match mounted {
        Ok(()) => {}
        // A user namespace without a network namespace of its own may not mount sysfs: the host's is shown.
        Err(Errno::EPERM) if context.userns && fstype == c"sysfs" => hosts_sysfs(planned, &place, &object)?,
        Err(errno) => return Err(Error::sys("mount", format!("{}` on `{object}", planned.what()), errno)),
    }
    settle(tree, planned, &place)
}

/// Binds the host's /sys. The host's cgroups come with it: they are covered, as nothing but their owners protects them.
fn hosts_sysfs(planned: &PlannedMount, place: &Place, object: &str) -> Result<()> {
    let host = bind::open_source(std::path::Path::new("/sys"), true)?;
    bind::set_attributes(&host, &planned.options, object)?;
    move_mount(host.as_fd(), place.handle.as_fd()).at("mount", format!("sysfs` on `{object}"))?;
    match openat2(host.as_fd(), c"fs/cgroup", libc::O_PATH | libc::O_DIRECTORY, 0, RESOLVE_IN_ROOT) {
        Err(Errno::ENOENT) => Ok(()),
        cgroups => {
            let cgroups = cgroups.at("open", format!("{object}/fs/cgroup"))?;
            let empty = masks::empty_tmpfs().at("make a tmpfs for", format!("{object}/fs/cgroup"))?;
            move_mount(empty.as_fd(), cgroups.as_fd()).at("mask", format!("{object}/fs/cgroup"))
        }
    }
}

/// Does what a mount needs once it is in place, and keeps the handles that come after.
pub(super) fn settle(tree: &mut Tree, planned: &PlannedMount, place: &Place) -> Result<Option<Rc<OwnedFd>>> {
    let options = &planned.options;
    let needed = planned.parent_of_later
        || planned.late_readonly()
        || options.tmpcopyup
        || !options.propagation.is_empty()
        || options.has_tree_attributes();
    if planned.destination.is_empty() {
        let root = top(&tree.root).at("open", "/")?;
        tree.set_root(root);
    }
    if !needed {
        return Ok(None);
    }
    let object = format!("/{}", planned.destination);
    let mounted = if planned.destination.is_empty() {
        tree.root.clone()
    } else if planned.parent_of_later {
        tree.remember(&planned.destination).at("open", &object)?
    } else {
        Rc::new(tree.find(&planned.destination, libc::O_DIRECTORY).at("open", &object)?)
    };
    if options.tmpcopyup {
        tmpcopyup::copy(&place.handle, &mounted, &object, &options.data)?;
    }
    bind::set_tree_attributes(&mounted, options, &object)?;
    bind::set_propagation(&mounted, options, &object)?;
    Ok(planned.late_readonly().then_some(mounted))
}

/// What is mounted on a root.
fn top(root: &OwnedFd) -> std::result::Result<OwnedFd, Errno> {
    let directory = libc::O_PATH | libc::O_DIRECTORY;
    // `..` at the root stays there, and then steps onto what is mounted on it.
    let top = openat2(root.as_fd(), c"..", directory, 0, RESOLVE_IN_ROOT)?;
    if mount_id(top.as_fd())? != mount_id(root.as_fd())? {
        return Ok(top);
    }
    // Without openat2(2) it only stays: the place is looked up anew.
    let path = std::fs::read_link(format!("/proc/self/fd/{}", root.as_raw_fd())).map_err(|_| Errno::ENOENT)?;
    let top = openat2(CWD, &c_path(path)?, directory, 0, RESOLVE_NO_SYMLINKS)?;
    if mount_id(top.as_fd())? == mount_id(root.as_fd())? { Err(Errno::ESTALE) } else { Ok(top) }
}

/// A tmpfs over an existing directory takes its mode, unless the options name one.
fn tmpfs_data(fstype: &CStr, data: Option<&CStr>, place: &Place, object: &str) -> Result<Option<std::ffi::CString>> {
    let text = data.map(CStr::to_string_lossy).unwrap_or_default();
    let named = text.split(',').any(|option| option.starts_with("mode="));
    if fstype != c"tmpfs" || named || !place.existed {
        return Ok(data.map(CStr::to_owned));
    }
    let mode = fstat(place.handle.as_fd()).at("stat", object)?.st_mode & 0o7777;
    let separator = if text.is_empty() { "" } else { "," };
    c_string(&format!("mode={mode:o}{separator}{text}")).map(Some).at("mount", object)
}

/// `mount(2)` on a handle: the handle becomes the working directory, so no path is looked up.
pub(super) fn mount_on(
    target: &OwnedFd,
    source: Option<&CStr>,
    fstype: Option<&CStr>,
    flags: u64,
    data: Option<&CStr>,
) -> std::result::Result<(), Errno> {
    fchdir(target.as_fd())?;
    mount(source, c".", fstype, flags, data)
}

fn remount(tree: &mut Tree, planned: &PlannedMount, data: Option<&CStr>) -> Result<()> {
    let object = format!("/{}", planned.destination);
    let there = if planned.destination.is_empty() {
        tree.root.clone()
    } else {
        Rc::new(tree.find(&planned.destination, 0).at("open", &object)?)
    };
    if planned.options.flags & MS_BIND != 0 {
        bind::set_attributes(&there, &planned.options, &object)?;
    } else {
        let flags = planned.options.flags & !MS_REC | MS_REMOUNT;
        mount_on(&there, None, None, flags, data).at("remount", &object)?;
        bind::set_tree_attributes(&there, &planned.options, &object)?;
    }
    bind::set_propagation(&there, &planned.options, &object)
}

/// Makes a mount read-only, whatever its other flags are.
pub(super) fn make_readonly(mount: &OwnedFd, object: &str) -> Result<()> {
    let attr = MountAttr { attr_set: MOUNT_ATTR_RDONLY, ..MountAttr::default() };
    mount_setattr(mount.as_fd(), 0, &attr).at("make read-only", object)
}
