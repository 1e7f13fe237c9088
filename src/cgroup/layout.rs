//! How this host mounts its cgroups: one v1 hierarchy per controller, v2 alone, or both ("hybrid").

use std::cell::OnceCell;
use std::fmt;
use std::os::fd::AsFd;
use std::path::{Component, Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::file::Dir;
use crate::error::{At, Error, Result};
use crate::sys::path;

/// Where systemd, OpenRC and every engine mount cgroups.
const MOUNT_POINT: &str = "/sys/fs/cgroup";

/// Which of the two kernel interfaces a hierarchy speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Version {
    /// `cgroup`: a hierarchy per controller or group of controllers.
    V1,
    /// `cgroup2`: the unified hierarchy.
    V2,
}

/// What a hierarchy can control, by the name of the v2 kernel interface where the two differ
/// (`io` is `blkio` on v1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Controller {
    /// CPU time and weight.
    Cpu,
    /// CPU accounting; v1 only, part of `cpu` on v2.
    Cpuacct,
    /// Which CPUs and memory nodes.
    Cpuset,
    /// Memory.
    Memory,
    /// Access to devices; a v1 controller, an eBPF program on v2.
    Devices,
    /// Freezing; a v1 controller, part of the core on v2.
    Freezer,
    /// Block I/O.
    Io,
    /// The number of tasks.
    Pids,
    /// Huge pages.
    Hugetlb,
    /// The class of outgoing packets; v1 only.
    NetCls,
    /// The priority of outgoing packets; v1 only.
    NetPrio,
    /// Per-cgroup perf events.
    PerfEvent,
    /// RDMA resources.
    Rdma,
    /// Miscellaneous scalar resources.
    Misc,
    /// The named v1 hierarchy `name=systemd`: no controller, but systemd and engines look for containers there.
    Systemd,
}

impl Controller {
    /// Parses a name as it stands in a v1 mount's options or in `cgroup.controllers`.
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "cpu" => Self::Cpu,
            "cpuacct" => Self::Cpuacct,
            "cpuset" => Self::Cpuset,
            "memory" => Self::Memory,
            "devices" => Self::Devices,
            "freezer" => Self::Freezer,
            "blkio" | "io" => Self::Io,
            "pids" => Self::Pids,
            "hugetlb" => Self::Hugetlb,
            "net_cls" => Self::NetCls,
            "net_prio" => Self::NetPrio,
            "perf_event" => Self::PerfEvent,
            "rdma" => Self::Rdma,
            "misc" => Self::Misc,
            "systemd" | "name=systemd" => Self::Systemd,
            _ => return None,
        })
    }

    /// The name under which the given interface knows it.
    pub fn name(self, version: Version) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cpuacct => "cpuacct",
            Self::Cpuset => "cpuset",
            Self::Memory => "memory",
            Self::Devices => "devices",
            Self::Freezer => "freezer",
            Self::Io if version == Version::V1 => "blkio",
            Self::Io => "io",
            Self::Pids => "pids",
            Self::Hugetlb => "hugetlb",
            Self::NetCls => "net_cls",
            Self::NetPrio => "net_prio",
            Self::PerfEvent => "perf_event",
            Self::Rdma => "rdma",
            Self::Misc => "misc",
            Self::Systemd => "name=systemd",
        }
    }
}

impl fmt::Display for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name(Version::V2))
    }
}

/// One mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    /// Which interface it speaks.
    pub version: Version,
    /// Where it is mounted.
    pub root: PathBuf,
    /// What it controls; for v2 what its root offers, enabled or not.
    pub controllers: Vec<Controller>,
}

/// The hierarchies of this host.
#[derive(Debug, Clone, Default)]
pub struct Layout {
    /// v1 hierarchies by name, then v2.
    pub hierarchies: Vec<Hierarchy>,
    /// `/proc/self/cgroup`, read when a relative path needs it.
    own: OnceCell<String>,
}

impl Layout {
    /// Looks at `/sys/fs/cgroup`: `statfs` of it and of what it holds. Only where that shows nothing is
    /// mountinfo read, whose cost grows with the number of mounts on the host.
    pub fn probe() -> Result<Self> {
        let layout = Self::probe_at(Path::new(MOUNT_POINT))?;
        if layout.hierarchies.is_empty() {
            Self::from_mountinfo(&read_file("/proc/self/mountinfo")?)
        } else {
            Ok(layout)
        }
    }

    /// A layout given by the caller.
    pub fn new(hierarchies: Vec<Hierarchy>) -> Self {
        Self { hierarchies, own: OnceCell::new() }
    }

    fn probe_at(mount_point: &Path) -> Result<Self> {
        match magic(mount_point) {
            Some(libc::CGROUP2_SUPER_MAGIC) => return Ok(Self::new(vec![unified(mount_point.to_owned())?])),
            None => return Ok(Self::default()),
            Some(_) => {}
        }
        let mut names = Vec::new();
        for entry in std::fs::read_dir(mount_point).at("read directory", mount_point.display())? {
            let entry = entry.at("read directory", mount_point.display())?;
            // A symbolic link (`cpu` → `cpu,cpuacct`) is a second name of a hierarchy that has its own entry.
            if entry.file_type().is_ok_and(|kind| kind.is_dir())
                && let Ok(name) = entry.file_name().into_string()
            {
                names.push(name);
            }
        }
        names.sort_unstable();
        let mut hierarchies = Vec::with_capacity(names.len());
        let mut v2 = None;
        for name in names {
            let root = mount_point.join(&name);
            match magic(&root) {
                Some(libc::CGROUP2_SUPER_MAGIC) => v2 = Some(unified(root)?),
                Some(libc::CGROUP_SUPER_MAGIC) => hierarchies.extend(v1(root, &name)),
                _ => {}
            }
        }
        hierarchies.extend(v2);
        Ok(Self::new(hierarchies))
    }

    /// The layout by a table of mounts (proc(5)).
    ///
    /// # Errors
    /// Where a v2 hierarchy cannot be read.
    pub fn from_mountinfo(text: &str) -> Result<Self> {
        let mut hierarchies: Vec<Hierarchy> = Vec::new();
        let mut v2 = None;
        for mount in text.lines().filter_map(Mount::parse) {
            let known = |hierarchy: &Hierarchy| hierarchy.root == mount.point;
            match mount.fstype {
                "cgroup" if !hierarchies.iter().any(known) => hierarchies.extend(v1(mount.point, mount.options)),
                "cgroup2" if v2.is_none() => v2 = Some(unified(mount.point)?),
                _ => {}
            }
        }
        hierarchies.extend(v2);
        Ok(Self::new(hierarchies))
    }

    /// v2 alone.
    pub fn is_unified(&self) -> bool {
        self.hierarchies.len() == 1 && self.hierarchies[0].version == Version::V2
    }

    /// How the layout is called: `v1`, `v2`, `hybrid` or `none`.
    pub fn name(&self) -> &'static str {
        let has = |version| self.hierarchies.iter().any(|hierarchy| hierarchy.version == version);
        match (has(Version::V1), has(Version::V2)) {
            (true, true) => "hybrid",
            (true, false) => "v1",
            (false, true) => "v2",
            (false, false) => "none",
        }
    }

    /// Whether any hierarchy offers the controller. On v2 freezing and device rules need none.
    pub fn offers(&self, controller: Controller) -> bool {
        self.hierarchies.iter().any(|hierarchy| {
            hierarchy.controllers.contains(&controller)
                || hierarchy.version == Version::V2 && matches!(controller, Controller::Devices | Controller::Freezer)
        })
    }

    /// The caller's own cgroup in a hierarchy, as a path below the hierarchy's mount point.
    pub(super) fn own(&self, hierarchy: &Hierarchy) -> Result<PathBuf> {
        if self.own.get().is_none() {
            let text = format!("{}\n\n{}", read_file("/proc/self/cgroup")?, read_file("/proc/self/mountinfo")?);
            self.own.get_or_init(|| text);
        }
        let text = self.own.get().map(String::as_str).unwrap_or_default();
        let (groups, mounts) = text.split_once("\n\n").unwrap_or((text, ""));
        let own = own_path(groups, hierarchy)
            .ok_or_else(|| Error::Other(format!("`/proc/self/cgroup` does not name `{}`", hierarchy.root.display())))?;
        // Without a cgroup namespace of its own, a container sees its subtree bind-mounted at the mount point,
        // while /proc/self/cgroup gives the path from the host's root.
        let mounted = mounts.lines().filter_map(Mount::parse).find(|mount| mount.point == hierarchy.root);
        let below = match &mounted {
            Some(mount) => own.strip_prefix(mount.root).unwrap_or(own),
            None => own,
        };
        safe_relative(below).ok_or_else(|| {
            Error::Refused(format!("the caller's own cgroup `{}` is outside of what it sees", own.display()))
        })
    }
}

/// Strips the leading `/` and refuses a path that climbs.
pub(super) fn safe_relative(path: &Path) -> Option<PathBuf> {
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) => out.push(name),
            Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    Some(out)
}

fn own_path<'a>(groups: &'a str, hierarchy: &Hierarchy) -> Option<&'a Path> {
    groups.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (names, path) = (fields.next()?, fields.next()?);
        let matches = match hierarchy.version {
            Version::V2 => names.is_empty(),
            Version::V1 => names.split(',').filter_map(Controller::parse).any(|it| hierarchy.controllers.contains(&it)),
        };
        matches.then(|| Path::new(path))
    })
}

/// The file system type, or nothing where the path is not there.
fn magic(path: &Path) -> Option<libc::c_long> {
    nix::sys::statfs::statfs(path).ok().map(|found| found.filesystem_type().0)
}

fn unified(root: PathBuf) -> Result<Hierarchy> {
    let text = Dir::new(&root).value("cgroup.controllers")?;
    let controllers = text.split_whitespace().filter_map(Controller::parse).collect();
    Ok(Hierarchy { version: Version::V2, root, controllers })
}

/// A v1 hierarchy by its directory's name or its mount options; nothing for one that no container joins
/// (`name=` hierarchies other than systemd's).
fn v1(root: PathBuf, names: &str) -> Option<Hierarchy> {
    let controllers: Vec<_> = names.split(',').filter_map(Controller::parse).collect();
    (!controllers.is_empty()).then_some(Hierarchy { version: Version::V1, root, controllers })
}

/// As large as mountinfo gets.
const LARGEST: usize = 256 << 20;

fn read_file(path: &str) -> Result<String> {
    let fd = path::open(path, libc::O_RDONLY).at("open", path)?;
    let bytes = path::read_all(fd.as_fd(), LARGEST).at("read", path)?;
    // Somebody's mount point may be no text; a cgroup's is.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The fields of a mountinfo line (proc(5)) that matter here.
struct Mount<'a> {
    root: &'a str,
    point: PathBuf,
    fstype: &'a str,
    options: &'a str,
}

impl<'a> Mount<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ').skip(3);
        let (root, point) = (left.next()?, left.next()?);
        let mut right = right.split(' ');
        let (fstype, options) = (right.next()?, right.nth(1)?);
        fstype.starts_with("cgroup").then(|| Mount { root, point: PathBuf::from(unescape(point)), fstype, options })
    }
}

/// mountinfo writes space, tab, newline and backslash as three octal digits.
fn unescape(field: &str) -> String {
    field.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOINT: &str = "\
30 23 0:26 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755
31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct
32 30 0:28 / /sys/fs/cgroup/systemd rw,nosuid shared:10 - cgroup cgroup rw,xattr,name=systemd
33 30 0:29 / /sys/fs/cgroup/blkio rw,nosuid - cgroup cgroup rw,blkio
34 30 0:30 / /sys/fs/cgroup/elogind rw,nosuid - cgroup cgroup rw,name=elogind
";

    #[test]
    fn mountinfo_gives_joint_and_named_hierarchies() {
        let layout = Layout::from_mountinfo(JOINT).unwrap();
        let found: Vec<_> =
            layout.hierarchies.iter().map(|it| (it.root.to_str().unwrap(), &it.controllers[..])).collect();
        assert_eq!(
            found,
            [
                ("/sys/fs/cgroup/cpu,cpuacct", &[Controller::Cpu, Controller::Cpuacct][..]),
                ("/sys/fs/cgroup/systemd", &[Controller::Systemd]),
                ("/sys/fs/cgroup/blkio", &[Controller::Io]),
            ]
        );
        assert_eq!(layout.name(), "v1");
        assert!(layout.offers(Controller::Io) && !layout.offers(Controller::Memory));
    }

    #[test]
    fn own_path_is_found_by_controller_and_by_the_empty_name() {
        let groups = "4:memory:/user/a\n3:cpu,cpuacct:/b\n1:name=systemd:/init.scope\n0::/u\n";
        let hierarchy = |version, controllers| Hierarchy { version, root: PathBuf::new(), controllers };
        let path =
            |version, controllers| own_path(groups, &hierarchy(version, controllers)).map(|it| it.to_str().unwrap());
        assert_eq!(path(Version::V1, vec![Controller::Cpuacct]), Some("/b"));
        assert_eq!(path(Version::V1, vec![Controller::Systemd]), Some("/init.scope"));
        assert_eq!(path(Version::V1, vec![Controller::Pids]), None);
        assert_eq!(path(Version::V2, vec![Controller::Memory]), Some("/u"));
    }

    #[test]
    fn own_path_is_relative_to_a_bind_mounted_subtree() {
        let layout = Layout::new(vec![]);
        let text =
            "4:memory:/docker/abc/x\n\n\n31 30 0:27 /docker/abc /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
        layout.own.set(text.to_owned()).unwrap();
        let root = PathBuf::from("/sys/fs/cgroup/memory");
        let memory = Hierarchy { version: Version::V1, root, controllers: vec![Controller::Memory] };
        assert_eq!(layout.own(&memory).unwrap(), PathBuf::from("x"));
    }

    #[test]
    fn a_path_that_climbs_is_not_safe() {
        assert_eq!(safe_relative(Path::new("/a/./b//c")), Some("a/b/c".into()));
        assert_eq!(safe_relative(Path::new("/a/../../etc")), None);
        assert_eq!(safe_relative(Path::new("/..")), None);
    }
}
