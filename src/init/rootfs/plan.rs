//! The plan: everything about the root file system that can be decided from the spec, without touching anything.

use std::ffi::CString;
use std::path::{Path, PathBuf};

use libc::{MS_BIND, MS_RDONLY, MS_REC, MS_REMOUNT};
use oci_spec::runtime::{LinuxIdMapping, Mount, Spec};

use super::devices::Device;
use super::pivot::Entry;
use super::propagation::Propagation;
use super::tree::{c_string, clean, split};
use super::{CgroupView, RootfsContext};
use crate::error::{At, Error, Result};
use crate::spec::mount_options::{Idmap, MountOptions};

/// The plan of a whole root file system.
#[derive(Debug)]
pub(super) struct Plan {
    /// Absolute path of `root.path`.
    pub rootfs: PathBuf,
    pub readonly: bool,
    pub propagation: Propagation,
    pub entry: Entry,
    pub mounts: Vec<PlannedMount>,
    /// Empty, like `links`, where `/dev` is a bind mount: then it is the bundle's own affair.
    pub devices: Vec<Device>,
    /// Whether `/dev/fd`, `/dev/ptmx` and their kin are made.
    pub links: bool,
    /// Before which of `mounts` the devices and links are made: behind all that may cover a place of theirs, if `/dev` is on no
    /// link and `/sys/fs/cgroup` a sysfs's own.
    pub devices_before: usize,
    pub masked: Vec<String>,
    pub readonly_paths: Vec<String>,
    pub userns: bool,
}

/// One entry of `mounts`.
#[derive(Debug)]
pub(super) struct PlannedMount {
    /// Its place in the list, for messages.
    pub index: usize,
    /// Clean and relative to the root; empty for the root itself.
    pub destination: String,
    pub kind: MountKind,
    pub options: MountOptions,
    /// The id mapping of the mount: its mappings and how far they reach.
    pub idmap: Option<IdmapPlan>,
    /// Whether a later mount or device is created right below: then its handle is kept.
    pub parent_of_later: bool,
}

/// What a mount does.
#[derive(Debug)]
pub(super) enum MountKind {
    /// A new instance of a file system.
    Filesystem { fstype: CString, source: CString, data: Option<CString> },
    /// A part of the host's tree.
    Bind { source: PathBuf, recursive: bool },
    /// Changes what is mounted there already.
    Remount { data: Option<CString> },
    /// `type: cgroup`, whatever the host's cgroups are.
    Cgroup,
}

/// How a mount's ids are mapped.
#[derive(Debug)]
pub(super) struct IdmapPlan {
    pub mapping: IdmapSource,
    pub recursive: bool,
}

/// Where an id mapping comes from.
#[derive(Debug)]
pub(super) enum IdmapSource {
    Mappings { uids: Vec<LinuxIdMapping>, gids: Vec<LinuxIdMapping> },
    Namespace(PathBuf),
}

impl Plan {
    pub fn new(spec: &Spec, bundle: &Path, context: &RootfsContext) -> Result<Self> {
        let root = spec.root().as_ref().ok_or_else(|| Error::config("$.root", "is missing"))?;
        if root.path().as_os_str().is_empty() {
            return Err(Error::config("$.root.path", "is empty"));
        }
        let linux = spec.linux().as_ref();
        let label = linux.and_then(|linux| linux.mount_label().as_deref()).filter(|label| !label.is_empty());
        let label = label.filter(|_| Path::new("/sys/fs/selinux/enforce").exists());

        let mut mounts = Vec::new();
        for (index, mount) in spec.mounts().iter().flatten().enumerate() {
            mounts.push(PlannedMount::new(index, mount, spec, bundle, context, label)?);
        }
        if !context.new_mount_ns && !mounts.is_empty() {
            return Err(Error::config("$.mounts", "needs a mount namespace of the container's own"));
        }
        let own_dev = !mounts.iter().any(|mount| mount.destination == "dev" && mount.is_bind());
        let devices = if own_dev { super::devices::plan(spec)? } else { Vec::new() };

        for at in 0..mounts.len() {
            let base = mounts[at].destination.clone();
            mounts[at].parent_of_later = mounts[at + 1..]
                .first()
                .is_some_and(|later| !base.is_empty() && super::tree::split(&later.destination).0 == base);
        }

        let paths = |list: Option<&Vec<String>>| -> Vec<String> {
            list.into_iter().flatten().map(|path| clean(path)).filter(|path| !path.is_empty()).collect()
        };
        let masked = paths(linux.and_then(|linux| linux.masked_paths().as_ref()));
        let readonly_paths = paths(linux.and_then(|linux| linux.readonly_paths().as_ref()));
        if !context.new_mount_ns {
            for (list, pointer) in [(&masked, "$.linux.maskedPaths"), (&readonly_paths, "$.linux.readonlyPaths")] {
                if !list.is_empty() {
                    return Err(Error::config(pointer, "needs a mount namespace of the container's own"));
                }
            }
        }
        Ok(Plan {
            rootfs: bundle.join(root.path()),
            readonly: root.readonly().unwrap_or(false),
            propagation: Propagation::of(linux.and_then(|linux| linux.rootfs_propagation().as_deref()))?,
            entry: match (context.new_mount_ns, context.no_pivot) {
                (false, _) => Entry::Chroot,
                (true, true) => Entry::Move,
                (true, false) => Entry::Pivot,
            },
            devices_before: devices_before(&mounts, &devices),
            mounts,
            devices,
            links: own_dev,
            masked,
            readonly_paths,
            userns: context.userns,
        })
    }
}

impl PlannedMount {
    fn new(
        index: usize,
        mount: &Mount,
        spec: &Spec,
        bundle: &Path,
        context: &RootfsContext,
        label: Option<&str>,
    ) -> Result<Self> {
        let pointer = |field: &str| format!("$.mounts[{index}].{field}");
        let destination =
            mount.destination().to_str().ok_or_else(|| Error::config(pointer("destination"), "is not UTF-8"))?;
        if destination.contains('\0') {
            return Err(Error::config(pointer("destination"), "holds a NUL byte"));
        }
        let mut options = MountOptions::parse(mount.options().as_deref().unwrap_or_default());
        let fstype = mount.typ().as_deref().unwrap_or_default();
        if fstype == "bind" {
            options.flags |= MS_BIND;
        }
        if options.tmpcopyup && fstype != "tmpfs" {
            return Err(Error::config(pointer("options"), "`tmpcopyup` is for tmpfs only"));
        }
        let data = || -> Result<Option<CString>> {
            let text = match label {
                Some(label) if options.data.is_empty() => format!("context=\"{label}\""),
                Some(label) => format!("{},context=\"{label}\"", options.data),
                None if options.data.is_empty() => return Ok(None),
                None => options.data.clone(),
            };
            c_string(&text).map(Some).at("read", pointer("options"))
        };
        let kind = if options.flags & MS_REMOUNT != 0 {
            MountKind::Remount { data: data()? }
        } else if options.flags & MS_BIND != 0 {
            let source = mount.source().as_ref().filter(|source| !source.as_os_str().is_empty());
            let source =
                source.ok_or_else(|| Error::config(pointer("source"), "is missing, and a bind mount needs it"))?;
            MountKind::Bind { source: bundle.join(source), recursive: options.flags & MS_REC != 0 }
        } else if fstype == "cgroup" {
            match context.cgroup {
                CgroupView::None => {
                    return Err(Error::config(pointer("type"), "is `cgroup`, but the host has no cgroups mounted"));
                }
                CgroupView::V1 { .. } | CgroupView::V2 { .. } => MountKind::Cgroup,
            }
        } else if fstype.is_empty() || fstype == "none" {
            return Err(Error::config(pointer("type"), "is missing, and this is not a bind mount"));
        } else {
            let source = mount.source().as_ref().and_then(|source| source.to_str()).filter(|source| !source.is_empty());
            MountKind::Filesystem {
                fstype: c_string(fstype).at("read", pointer("type"))?,
                source: c_string(source.unwrap_or(fstype)).at("read", pointer("source"))?,
                data: data()?,
            }
        };
        let idmap = idmap_plan(index, mount, &options, spec, context)?;
        if idmap.is_some() && !matches!(kind, MountKind::Bind { .. }) {
            return Err(Error::config(pointer("options"), "id mappings are for bind mounts only"));
        }
        Ok(PlannedMount { index, destination: clean(destination), kind, options, idmap, parent_of_later: false })
    }

    pub fn is_bind(&self) -> bool {
        matches!(self.kind, MountKind::Bind { .. })
    }

    /// Whether the mount may show the container's cgroups, or be charged to them with more than itself.
    pub fn needs_cgroups(&self) -> bool {
        match &self.kind {
            MountKind::Bind { .. } => false,
            MountKind::Filesystem { fstype, .. } => {
                let light: [&[u8]; 5] = [b"proc", b"sysfs", b"tmpfs", b"devpts", b"mqueue"];
                self.options.tmpcopyup || !light.contains(&fstype.as_bytes())
            }
            MountKind::Remount { .. } | MountKind::Cgroup => true,
        }
    }

    /// A tmpfs becomes read-only last: mount points and devices may have to be made in it.
    pub fn late_readonly(&self) -> bool {
        self.options.flags & MS_RDONLY != 0
            && matches!(&self.kind, MountKind::Filesystem { fstype, .. } if fstype.as_bytes() == b"tmpfs")
    }

    /// What it mounts, for messages.
    pub fn what(&self) -> String {
        match &self.kind {
            MountKind::Filesystem { fstype, .. } => fstype.to_string_lossy().into_owned(),
            MountKind::Bind { source, .. } => source.display().to_string(),
            MountKind::Remount { .. } => "remount".to_owned(),
            MountKind::Cgroup => "cgroup".to_owned(),
        }
    }
}

/// Devices need not wait for the cgroups, whose mount usually comes last and covers none of them, if it comes to lie in a sysfs.
/// Any other mount might, through a link in what was mounted before it.
fn devices_before(mounts: &[PlannedMount], devices: &[Device]) -> usize {
    match mounts {
        [rest @ .., cgroups]
            if matches!(cgroups.kind, MountKind::Cgroup)
                && cgroups.destination == "sys/fs/cgroup"
                && devices.iter().all(|device| split(&device.path).0 == "dev") =>
        {
            rest.len()
        }
        _ => mounts.len(),
    }
}

fn idmap_plan(
    index: usize,
    mount: &Mount,
    options: &MountOptions,
    spec: &Spec,
    context: &RootfsContext,
) -> Result<Option<IdmapPlan>> {
    let uids = mount.uid_mappings().as_deref().unwrap_or_default();
    let gids = mount.gid_mappings().as_deref().unwrap_or_default();
    let recursive = options.idmap == Some(Idmap::Tree);
    if uids.is_empty() != gids.is_empty() {
        return Err(Error::config(
            format!("$.mounts[{index}].{}", if uids.is_empty() { "uidMappings" } else { "gidMappings" }),
            "is missing: an id-mapped mount maps both",
        ));
    }
    if !uids.is_empty() {
        let mapping = IdmapSource::Mappings { uids: uids.to_vec(), gids: gids.to_vec() };
        return Ok(Some(IdmapPlan { mapping, recursive }));
    }
    if options.idmap.is_none() {
        return Ok(None);
    }
    if let Some(path) = &context.userns_path {
        return Ok(Some(IdmapPlan { mapping: IdmapSource::Namespace(path.clone()), recursive }));
    }
    let linux = spec.linux().as_ref();
    let uids = linux.and_then(|linux| linux.uid_mappings().clone()).unwrap_or_default();
    let gids = linux.and_then(|linux| linux.gid_mappings().clone()).unwrap_or_default();
    if !context.userns || uids.is_empty() || gids.is_empty() {
        return Err(Error::config(
            format!("$.mounts[{index}].options"),
            "`idmap` needs the mount's own mappings or a user namespace of the container",
        ));
    }
    Ok(Some(IdmapPlan { mapping: IdmapSource::Mappings { uids, gids }, recursive }))
}
