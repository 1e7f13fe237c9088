//! Which directories a container's cgroup consists of: decided, printable and stored before any is made.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::layout::{Controller, Hierarchy, Layout, Version, safe_relative};
use super::systemd;
use crate::error::{Error, Result};
use crate::sys::{attributes, path};

/// What the caller wants a cgroup for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Request<'a> {
    /// `linux.cgroupsPath`.
    pub cgroups_path: Option<&'a Path>,
    /// The container's id, for the default path.
    pub id: &'a str,
    /// `--systemd-cgroup`: `cgroups_path` is `slice:prefix:name`.
    pub systemd: bool,
    /// Only these v1 controllers; every one the host has where it is `None`. The v2 hierarchy is always taken:
    /// it gives birth inside the cgroup, `cgroup.kill` and `cgroup.freeze`.
    pub controllers: Option<&'a [Controller]>,
    /// The first process stays outside the limits, which apply to a second one that it starts
    /// (see [`Plan::payload_leaf`]).
    pub payload_leaf: bool,
    /// The caller lacks privilege on the host. Where no path is asked for, the hierarchies that it may not write to are
    /// then left out, as runc leaves them: only a limit that needs one of them is refused.
    pub unprivileged: bool,
    /// The container's annotations, of which `org.systemd.property.*` are for the systemd driver.
    pub annotations: Option<&'a HashMap<String, String>>,
}

/// One directory of the container, in one hierarchy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Directory {
    /// Which back end drives it.
    pub version: Version,
    /// Where the hierarchy is mounted.
    pub root: PathBuf,
    /// The container's directory, below `root`.
    pub path: PathBuf,
    /// The controllers this directory answers for.
    pub controllers: Vec<Controller>,
    /// It was there before the container. Known after [`Plan::survey`].
    #[serde(default)]
    pub existed: bool,
    /// It was there with processes in it: they are not the container's, so nothing in it may be killed.
    /// Known after [`Plan::survey`].
    #[serde(default)]
    pub shared: bool,
}

/// The directories of a container. Stored in its state before they are made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// One directory per hierarchy, v1 first.
    pub directories: Vec<Directory>,
    /// The first process (a judge's tiny init) stays outside of what limits the payload, so that an OOM kill or a
    /// full pids limit never takes the process that reports it.
    /// On v1 it joins every hierarchy but `memory`, `pids`, `cpu` and `cpuacct`; on v2 alone the
    /// directory gets two leaves, `init` and `payload`, and the limits are the payload's.
    #[serde(default)]
    pub payload_leaf: bool,
    /// Device rules are applied even where the bundle gives none (every controller was asked for, or this one).
    #[serde(default)]
    pub devices: bool,
    /// Where the container stays in the caller's cgroup ([`Request::unprivileged`]), with that cgroup's directory.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub callers: Vec<Directory>,
    /// The scope of systemd whose cgroup the directories are, with the systemd driver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<systemd::Unit>,
    /// No process of the container has ever entered: see [`Plan::unentered`].
    #[serde(skip)]
    pub(super) unentered: bool,
}

/// The v1 controllers that only the payload enters.
pub(super) const PAYLOAD: [Controller; 4] =
    [Controller::Memory, Controller::Pids, Controller::Cpu, Controller::Cpuacct];

/// Decides the directories.
///
/// An absolute path is taken below each hierarchy's root as the caller sees it, a relative one below the
/// caller's own cgroup, as runc does. (On v2 it is below the *parent* of the caller's own: a cgroup with processes
/// in it cannot give controllers to its children.) Without a path it is `/rustbox-<id>`.
///
/// # Errors
/// [`Error::Config`] for a path that climbs or a name the kernel would not take; [`Error::Refused`] where the
/// host has no cgroups, or for the systemd driver where systemd is not to be had.
pub fn plan(request: &Request<'_>, layout: &Layout) -> Result<Plan> {
    if layout.hierarchies.is_empty() {
        return Err(Error::Refused("this host has no cgroup hierarchy mounted".to_owned()));
    }
    if request.systemd {
        return systemd::plan(request, layout);
    }
    let asked = request.cgroups_path.filter(|path| !path.as_os_str().is_empty());
    let (relative, below) = match asked {
        Some(path) => (!path.is_absolute(), container_path(path)?),
        None => (false, container_path(Path::new(&format!("/rustbox-{}", request.id)))?),
    };
    let mut directories = Vec::with_capacity(layout.hierarchies.len());
    let mut callers = Vec::new();
    for hierarchy in &layout.hierarchies {
        if !selected(hierarchy, request.controllers) {
            continue;
        }
        let stays = request.unprivileged && asked.is_none() && !writable(&hierarchy.root);
        let mut path = hierarchy.root.clone();
        if stays {
            // Only looked at; where it is out of sight, the hierarchy as a whole is what the caller sees.
            path.push(layout.own(hierarchy).unwrap_or_default());
        } else if relative {
            let mut own = layout.own(hierarchy)?;
            if layout.is_unified() {
                own.pop();
            }
            path.push(own);
        }
        if !stays {
            path.push(&below);
        }
        let list = if stays { &mut callers } else { &mut directories };
        list.push(Directory {
            version: hierarchy.version,
            root: hierarchy.root.clone(),
            path,
            controllers: hierarchy.controllers.clone(),
            existed: false,
            shared: false,
        });
    }
    let devices = request.controllers.is_none_or(|wanted| wanted.contains(&Controller::Devices));
    Ok(Plan { directories, payload_leaf: request.payload_leaf, devices, callers, ..Plan::default() })
}

fn writable(root: &Path) -> bool {
    path::c_path(root).is_ok_and(|root| attributes::may_access(&root, libc::W_OK).is_ok())
}

fn selected(hierarchy: &Hierarchy, controllers: Option<&[Controller]>) -> bool {
    match controllers {
        Some(wanted) if hierarchy.version == Version::V1 => hierarchy.controllers.iter().any(|it| wanted.contains(it)),
        _ => true,
    }
}

/// `cgroupsPath` as a path below a root. It may not climb, and may not be the root itself: that would limit, and at
/// the end kill, the whole host.
fn container_path(path: &Path) -> Result<PathBuf> {
    let refuse = |reason: &str| Error::config("$.linux.cgroupsPath", format!("`{}` {reason}", path.display()));
    let below = safe_relative(path).ok_or_else(|| refuse("climbs with `..`"))?;
    if below.as_os_str().is_empty() {
        return Err(refuse("is the root of the hierarchy"));
    }
    for name in &below {
        let bytes = name.as_encoded_bytes();
        // kernfs allows no newline in a name, and no name over NAME_MAX (cgroup_mkdir()).
        if bytes.contains(&b'\n') || bytes.len() > 255 {
            return Err(refuse("has a name that no cgroup can have"));
        }
    }
    Ok(below)
}

impl Plan {
    /// The v2 directory, where there is one.
    pub fn unified(&self) -> Option<&Directory> {
        self.directories.iter().find(|directory| directory.version == Version::V2)
    }

    /// The directory that knows every member, by its place: v2, else the freezer, else the first.
    pub(super) fn census(&self) -> Option<usize> {
        let find = |wanted: &dyn Fn(&Directory) -> bool| self.directories.iter().position(wanted);
        find(&|it| it.version == Version::V2)
            .or_else(|| find(&|it| it.controllers.contains(&Controller::Freezer)))
            .or(if self.directories.is_empty() { None } else { Some(0) })
    }

    /// The same for a container of which no process has entered yet, so that whoever is there now is another's, even
    /// where that was made after [`Plan::survey`]: nobody is killed, and a directory with a
    /// process in it is not the container's to remove.
    pub fn unentered(&self) -> Plan {
        let mut plan = Plan { unentered: true, ..self.clone() };
        for directory in &mut plan.directories {
            // What cannot be looked into is left, and the proof says so.
            directory.shared = super::tree::any_process(&directory.path).unwrap_or(false);
        }
        plan
    }

    /// Words of warning where others are in the container's cgroup: they share its limits.
    pub fn occupied(&self) -> Option<String> {
        let directory = self.directories.iter().find(|directory| directory.shared)?;
        Some(format!("container's cgroup is not empty: `{}` has processes of others", directory.path.display()))
    }

    /// Words of warning where a caller without privilege gets no cgroup of its own at all.
    pub fn without(&self) -> Option<String> {
        let none = self.directories.is_empty() && !self.callers.is_empty();
        none.then(|| {
            "the container has no cgroup of its own, because this user may make none: no limits, no pause, no statistics".to_owned()
        })
    }

    /// Whether all of it is the one v2 hierarchy.
    pub fn is_unified(&self) -> bool {
        self.directories.iter().chain(&self.callers).all(|directory| directory.version == Version::V2)
    }

    /// The directory that answers for a controller.
    pub fn directory(&self, controller: Controller) -> Option<&Directory> {
        self.directories.iter().find(|directory| directory.controllers.contains(&controller)).or_else(|| {
            // On v2 these two belong to the core.
            self.unified().filter(|_| matches!(controller, Controller::Devices | Controller::Freezer))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hybrid() -> Layout {
        let v1 = |name: &str, controllers: &[Controller]| Hierarchy {
            version: Version::V1,
            root: Path::new("/sys/fs/cgroup").join(name),
            controllers: controllers.to_vec(),
        };
        Layout::new(vec![
            v1("cpu,cpuacct", &[Controller::Cpu, Controller::Cpuacct]),
            v1("memory", &[Controller::Memory]),
            v1("systemd", &[Controller::Systemd]),
            Hierarchy {
                version: Version::V2,
                root: "/sys/fs/cgroup/unified".into(),
                controllers: vec![Controller::Hugetlb],
            },
        ])
    }

    fn at(path: &str) -> Result<Plan> {
        plan(&Request { cgroups_path: Some(Path::new(path)), id: "c", ..Request::default() }, &hybrid())
    }

    #[test]
    fn an_absolute_path_is_below_every_root() {
        let plan = at("/pod/c1").unwrap();
        let paths: Vec<_> = plan.directories.iter().map(|it| it.path.to_str().unwrap()).collect();
        assert_eq!(
            paths,
            [
                "/sys/fs/cgroup/cpu,cpuacct/pod/c1",
                "/sys/fs/cgroup/memory/pod/c1",
                "/sys/fs/cgroup/systemd/pod/c1",
                "/sys/fs/cgroup/unified/pod/c1"
            ]
        );
        assert_eq!(plan.directory(Controller::Cpuacct).unwrap().root, Path::new("/sys/fs/cgroup/cpu,cpuacct"));
        assert_eq!(plan.directory(Controller::Hugetlb).unwrap().version, Version::V2);
        assert_eq!(plan.directory(Controller::Rdma), None);
    }

    #[test]
    fn without_a_path_the_id_names_the_cgroup() {
        let plan = plan(&Request { id: "web", ..Request::default() }, &hybrid()).unwrap();
        assert_eq!(plan.directories[1].path, Path::new("/sys/fs/cgroup/memory/rustbox-web"));
    }

    #[test]
    fn escapes_and_impossible_names_are_refused_by_json_path() {
        for path in ["/../x", "a/../../b", "/", "/.", "/a\nb", &format!("/{}", "x".repeat(256))] {
            let error = at(path).unwrap_err().to_string();
            assert!(error.starts_with("$.linux.cgroupsPath: "), "{path}: {error}");
        }
    }

    #[test]
    fn fewer_controllers_take_fewer_hierarchies_and_keep_v2() {
        let request = Request { id: "j", controllers: Some(&[Controller::Memory]), ..Request::default() };
        let plan = plan(&request, &hybrid()).unwrap();
        let roots: Vec<_> = plan.directories.iter().map(|it| it.root.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(roots, ["memory", "unified"]);
    }

    #[test]
    fn a_plan_survives_its_record() {
        let plan = at("/pod/c1").unwrap();
        let text = serde_json::to_string(&plan).unwrap();
        assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan);
    }
}
