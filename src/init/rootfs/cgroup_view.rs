//! The container's cgroups as mounts of `type: cgroup` show them.

use std::path::PathBuf;

use crate::cgroup;

/// The container's cgroups as the host has them mounted.
#[derive(Debug, Clone, Default)]
pub enum CgroupView {
    /// The host has no cgroups mounted.
    #[default]
    None,
    /// Version 1, or hybrid: every hierarchy by itself.
    V1 {
        /// In the order of the host's mounts.
        hierarchies: Vec<CgroupHierarchy>,
    },
    /// The unified hierarchy alone.
    V2 {
        /// The container's own directory in it.
        directory: PathBuf,
    },
}

impl CgroupView {
    /// The view of the container's cgroups as they are planned.
    pub fn of(plan: &cgroup::Plan) -> CgroupView {
        let unified = plan.is_unified();
        let mut directories = plan.directories.iter().chain(&plan.callers);
        let hierarchies = directories.clone().map(|directory| CgroupHierarchy {
            mountpoint: directory.root.clone(),
            controllers: match directory.version {
                cgroup::Version::V2 => String::new(),
                version => {
                    let names: Vec<&str> =
                        directory.controllers.iter().map(|controller| controller.name(version)).collect();
                    names.join(",")
                }
            },
            directory: directory.path.clone(),
        });
        match directories.next() {
            None => CgroupView::None,
            Some(only) if unified => CgroupView::V2 { directory: only.path.clone() },
            Some(_) => CgroupView::V1 { hierarchies: hierarchies.collect() },
        }
    }
}

/// One mounted hierarchy.
#[derive(Debug, Clone)]
pub struct CgroupHierarchy {
    /// Where the host has it, such as `/sys/fs/cgroup/cpu,cpuacct`; its last component names it in the container too.
    pub mountpoint: PathBuf,
    /// What identifies it: `cpu,cpuacct`, `name=systemd`; empty for the unified hierarchy of a hybrid host.
    pub controllers: String,
    /// The container's own directory in it (the mount point where it has none).
    pub directory: PathBuf,
}

impl CgroupHierarchy {
    pub(super) fn is_v2(&self) -> bool {
        self.controllers.is_empty()
    }

    pub(super) fn mount_data(&self) -> String {
        match self.controllers.strip_prefix("name=") {
            Some(name) => format!("none,name={name}"),
            None => self.controllers.clone(),
        }
    }
}
