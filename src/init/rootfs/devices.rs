//! `linux.devices`, the default devices, and the links of `/dev`.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxDevice, LinuxDeviceType, LinuxIdMapping, Spec};

use super::device_node;
use super::tree::{Tree, c_string, clean, split};
use crate::container::namespaces::host_id;
use crate::error::{At, Error, Result};
use crate::sys::mount::{
    MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY, MountAttr, OPEN_TREE_CLONE, mount_setattr, move_mount, open_tree,
};
use crate::sys::mount_at::{chown_at, move_mount_at};
use crate::sys::path::{CWD, c_path, fstat, mknodat, openat, symlinkat, unlinkat};
use crate::sys::{self, Errno};

/// A device node to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Device {
    /// Clean and relative to the root.
    pub path: String,
    /// Type and permissions.
    pub mode: u32,
    pub number: u64,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    /// What the owner is on the host, where the container's user namespace is made with mappings that have it.
    pub host_owner: Option<(u32, u32)>,
    /// Nobody has asked for it: it is one of those that every container has.
    pub default: bool,
}

/// The default devices, each replaced where `linux.devices` names the same path, and the rest of that list.
pub(super) fn plan(spec: &Spec) -> Result<Vec<Device>> {
    let listed = spec.linux().as_ref().and_then(|linux| linux.devices().as_deref()).unwrap_or_default();
    let listed: Vec<Device> =
        listed.iter().enumerate().map(|(index, device)| Device::new(index, device)).collect::<Result<_>>()?;
    let mut devices = Vec::new();
    for (index, device) in libcontainer::rootfs::utils::default_devices().iter().enumerate() {
        let device = Device { default: true, ..Device::new(index, device)? };
        if !listed.iter().any(|other| other.path == device.path) {
            devices.push(device);
        }
    }
    devices.extend(listed);
    if let Some(linux) = spec.linux() {
        let mapped = |mappings: &Option<Vec<LinuxIdMapping>>, id: Option<u32>| {
            host_id(mappings.as_deref().unwrap_or_default(), id.unwrap_or(0))
        };
        for device in &mut devices {
            let owner = (mapped(linux.uid_mappings(), device.uid), mapped(linux.gid_mappings(), device.gid));
            device.host_owner = owner.0.zip(owner.1);
        }
    }
    Ok(devices)
}

impl Device {
    fn new(index: usize, device: &LinuxDevice) -> Result<Self> {
        let pointer = |field: &str| format!("$.linux.devices[{index}].{field}");
        let path = device.path().to_str().map(clean).filter(|path| !path.is_empty() && !path.contains('\0'));
        let path = path.ok_or_else(|| Error::config(pointer("path"), "is no path of a file"))?;
        let kind = match device.typ() {
            LinuxDeviceType::B => libc::S_IFBLK,
            LinuxDeviceType::C | LinuxDeviceType::U => libc::S_IFCHR,
            LinuxDeviceType::P => libc::S_IFIFO,
            LinuxDeviceType::A => return Err(Error::config(pointer("type"), "`a` is no type of a device node")),
        };
        let part = |value: i64, field: &str| {
            u32::try_from(value).map_err(|_| Error::config(pointer(field), format!("{value} is out of range")))
        };
        let number = match kind {
            libc::S_IFIFO => 0,
            _ => libc::makedev(part(device.major(), "major")?, part(device.minor(), "minor")?),
        };
        let mode = kind | device.file_mode().unwrap_or(0o666) & 0o7777;
        Ok(Device { path, mode, number, uid: device.uid(), gid: device.gid(), host_owner: None, default: false })
    }

    /// Whether it is a node that a host has, and no FIFO.
    pub fn is_node(&self) -> bool {
        self.mode & libc::S_IFMT != libc::S_IFIFO
    }

    /// Where the host has it.
    pub fn host_path(&self) -> PathBuf {
        Path::new("/").join(&self.path)
    }

    fn is(&self, stat: &libc::stat) -> bool {
        stat.st_mode & libc::S_IFMT == self.mode & libc::S_IFMT && (!self.is_node() || stat.st_rdev == self.number)
    }

    /// A detached mount of a node, for a user namespace, where nodes cannot be made: the host's, or one made for the
    /// container where the host has none or the container's is to have another owner.
    pub fn open(&self) -> Result<Option<OwnedFd>> {
        let host = self.open_host();
        let Some(owner) = self.host_owner else { return host };
        let wanted = match &host {
            Ok(None) => false,
            Ok(Some(node)) if self.uid.is_some() || self.gid.is_some() => {
                let stat = fstat(node.as_fd()).at("stat device", &self.path)?;
                (stat.st_uid, stat.st_gid) != owner
            }
            Ok(Some(_)) => false,
            Err(error) => error.errno() == Some(Errno::ENOENT),
        };
        if !wanted {
            return host;
        }
        match device_node::make(self.mode, self.number, owner, &self.host_path().display().to_string()) {
            // Without the privilege for it what the host has must do.
            Err(error) if error.errno() == Some(Errno::EPERM) => host,
            made => made.map(Some),
        }
    }

    /// A detached mount of the host's node.
    pub fn open_host(&self) -> Result<Option<OwnedFd>> {
        if !self.is_node() {
            return Ok(None);
        }
        let path = self.host_path();
        let node = open_tree(CWD, &c_path(&path).at("open device", path.display())?, OPEN_TREE_CLONE);
        self.checked(node.at("open device", path.display())?).map(Some)
    }

    /// The mount of a node of the host, if it is the device asked for. A default device works as ever, and its node is not to be
    /// changed through the mount: times, mode, owner and attributes are the host's.
    pub fn checked(&self, node: OwnedFd) -> Result<OwnedFd> {
        let stat = fstat(node.as_fd()).at("stat device", self.host_path().display())?;
        if !self.is(&stat) {
            return Err(self.differs());
        }
        if self.default {
            protect(&node).at("protect device", self.host_path().display())?;
        }
        Ok(node)
    }

    fn differs(&self) -> Error {
        Error::Other(format!("device `/{}`: what is there is not the device asked for", self.path))
    }

    /// Makes the node, or accepts the same one.
    ///
    /// # Errors
    /// Where something else is at its path (runtime spec, "Devices"), and as `mknod(2)`.
    pub fn make(&self, tree: &mut Tree, host: Option<&OwnedFd>) -> Result<()> {
        let (parent, name) = split(&self.path);
        let object = || format!("/{}", self.path);
        let dir = tree.directory(parent).at("create directory of device", object())?;
        let name = c_string(name).at("create device", object())?;
        let mode = if host.is_some() { libc::S_IFREG | 0o666 } else { self.mode };
        match mknodat(dir.as_fd(), &name, mode, self.number) {
            Ok(()) => {}
            Err(Errno::EEXIST) => {
                let there =
                    openat(dir.as_fd(), &name, libc::O_PATH | libc::O_NOFOLLOW, 0).at("open device", object())?;
                let stat = fstat(there.as_fd()).at("stat device", object())?;
                return match host {
                    _ if self.is(&stat) => Ok(()),
                    Some(host) if stat.st_mode & libc::S_IFMT == libc::S_IFREG => {
                        move_mount(host.as_fd(), there.as_fd()).at("bind device", object())
                    }
                    _ => Err(self.differs()),
                };
            }
            Err(errno) => return Err(Error::sys("create device", object(), errno)),
        }
        if let Some(host) = host {
            return move_mount_at(host.as_fd(), dir.as_fd(), &name).at("bind device", object());
        }
        if self.uid.unwrap_or(0) != 0 || self.gid.unwrap_or(0) != 0 {
            chown_at(dir.as_fd(), &name, self.uid, self.gid).at("chown device", object())?;
        }
        Ok(())
    }
}

/// Makes the mount of a node of the host read-only: data still goes to and from the device, but nothing of the node changes.
pub(super) fn protect(node: &OwnedFd) -> sys::Result<()> {
    // Not NOEXEC: memory of /dev/zero may be mapped to be executed.
    let attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID;
    mount_setattr(node.as_fd(), 0, &MountAttr { attr_set, ..MountAttr::default() })
}

/// The links that the spec asks for in every `/dev`.
pub(super) fn make_links(tree: &mut Tree) -> Result<()> {
    let dev = tree.directory("dev").at("create directory", "/dev")?;
    let link = |target: &std::ffi::CStr, name: &std::ffi::CStr| match symlinkat(target, dev.as_fd(), name) {
        Err(Errno::EEXIST) | Ok(()) => Ok(()),
        Err(errno) => Err(Error::sys("create link", format!("/dev/{}", name.to_string_lossy()), errno)),
    };
    link(c"/proc/self/fd", c"fd")?;
    link(c"/proc/self/fd/0", c"stdin")?;
    link(c"/proc/self/fd/1", c"stdout")?;
    link(c"/proc/self/fd/2", c"stderr")?;
    if Path::new("/proc/kcore").exists() {
        link(c"/proc/kcore", c"core")?;
    }
    // The container's own devpts, never a node of the image.
    if symlinkat(c"pts/ptmx", dev.as_fd(), c"ptmx") == Err(Errno::EEXIST) {
        unlinkat(dev.as_fd(), c"ptmx", 0).at("remove", "/dev/ptmx")?;
        symlinkat(c"pts/ptmx", dev.as_fd(), c"ptmx").at("create link", "/dev/ptmx")?;
    }
    Ok(())
}
