//! The trait that the two kernel interfaces implement, and which of them answers for a controller.

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxHugepageLimit, LinuxInterfacePriority, LinuxMemory, LinuxRdma};

use super::devices::Rule;
use super::file::Dir;
use super::layout::{Controller, Version};
use super::stats::Counters;
use super::{v1, v2};
use crate::error::{Error, Result};
use crate::sys::Errno;

/// One kernel interface: every call writes the files of one controller in one directory.
///
/// Values of 0 mean "not set" where the kernel gives 0 no meaning, as engines send it so; -1 means unlimited.
pub(super) trait Backend: Counters {
    /// `resources.memory`.
    fn memory(&self, dir: &Dir, memory: &LinuxMemory) -> Result<()>;
    /// `resources.cpu`, but for the CPU set.
    fn cpu(&self, dir: &Dir, cpu: &LinuxCpu) -> Result<()>;
    /// `resources.blockIO`.
    fn block_io(&self, dir: &Dir, io: &LinuxBlockIo) -> Result<()>;
    /// One of `resources.hugepageLimits`.
    fn hugepage(&self, dir: &Dir, limit: &LinuxHugepageLimit) -> Result<()>;
    /// `resources.network.classID`.
    fn network_class(&self, dir: &Dir, class: u32) -> Result<()>;
    /// `resources.network.priorities`.
    fn network_priorities(&self, dir: &Dir, priorities: &[LinuxInterfacePriority]) -> Result<()>;
    /// `resources.devices`, with the defaults appended.
    fn devices(&self, dir: &Dir, rules: &[Rule]) -> Result<()>;
    /// Asks for freezing or thawing.
    fn set_frozen(&self, dir: &Dir, frozen: bool) -> Result<()>;
    /// Whether everything is at rest now.
    fn is_frozen(&self, dir: &Dir) -> Result<bool>;
    /// Whether freezing has been asked for.
    fn is_freezing(&self, dir: &Dir) -> Result<bool>;

    /// `resources.cpu.cpus` and `mems`: the same files in both.
    fn cpuset(&self, dir: &Dir, cpu: &LinuxCpu) -> Result<()> {
        let set = |file, value: &Option<String>| match value.as_deref() {
            Some(value) if !value.is_empty() => dir.set(file, value),
            _ => Ok(()),
        };
        set("cpuset.cpus", cpu.cpus())?;
        set("cpuset.mems", cpu.mems())
    }

    /// `resources.pids.limit`. Zero and below is no limit, as crun has it and as docker and podman mean it.
    fn pids(&self, dir: &Dir, limit: i64) -> Result<()> {
        if limit > 0 { dir.set("pids.max", limit) } else { dir.set("pids.max", "max") }
    }

    /// One of `resources.rdma`: the same file in both.
    fn rdma(&self, dir: &Dir, device: &str, limit: &LinuxRdma) -> Result<()> {
        let mut line = device.to_owned();
        if let Some(handles) = limit.hca_handles() {
            line.push_str(&format!(" hca_handle={handles}"));
        }
        if let Some(objects) = limit.hca_objects() {
            line.push_str(&format!(" hca_object={objects}"));
        }
        dir.set("rdma.max", line)
    }
}

pub(super) fn backend(version: Version) -> &'static dyn Backend {
    match version {
        Version::V1 => &v1::V1,
        Version::V2 => &v2::V2,
    }
}

impl Dir {
    /// Writes a limit. A file that is not there is a control that this kernel, or on v2 the cgroup above, does not give.
    pub(super) fn set(&self, file: &str, value: impl std::fmt::Display) -> Result<()> {
        self.write(file, value).map_err(|error| match error.errno() {
            Some(Errno::ENOENT) if self.path().exists() => Error::Refused(
                self.withheld(file)
                    .unwrap_or_else(|| format!("this kernel has no `{file}` in `{}`", self.path().display())),
            ),
            _ => error,
        })
    }

    /// Why a v2 cgroup lacks the controller that a file belongs to; `None` where it has it, and on v1.
    pub(super) fn withheld(&self, file: &str) -> Option<String> {
        let controller = file.split('.').next().filter(|name| Controller::parse(name).is_some())?;
        let has = |dir: &Dir, file| Some(dir.try_read(file).ok()?.split_whitespace().any(|name| name == controller));
        if has(self, "cgroup.controllers")? {
            return None;
        }
        let parent = Dir::new(self.path().parent()?);
        let why = if parent.has_strangers() {
            "it has processes of its own, and cgroup v2 then gives no controller on: choose another `linux.cgroupsPath`, or \
             move them into a cgroup beside"
        } else if has(&parent, "cgroup.controllers") == Some(true) {
            "whoever owns it has not delegated it (`cgroup.subtree_control`)"
        } else {
            "it has not got it"
        };
        Some(format!(
            "`{file}` in `{}` needs the controller `{controller}`, which the cgroup `{}` does not give: {why}",
            self.path().display(),
            parent.path().display()
        ))
    }

    /// Whether this v2 cgroup has processes of its own, and is not the root of all, which may.
    pub(super) fn has_strangers(&self) -> bool {
        // The root has no type.
        self.has("cgroup.type") && self.read("cgroup.procs").is_ok_and(|procs| !procs.trim().is_empty())
    }

    /// Writes several limits that constrain each other (`limit ≤ memsw`, `burst ≤ quota`): what the kernel does not take
    /// yet is tried again after the others, until all are set or nothing moves. So raising and lowering both work
    /// without reading first what is there.
    pub(super) fn settle(&self, limits: &[(&str, String)]) -> Result<()> {
        let mut pending: Vec<_> = limits.iter().collect();
        while !pending.is_empty() {
            let mut refused = Vec::new();
            let mut first = None;
            for limit in &pending {
                match self.set(limit.0, &limit.1) {
                    Ok(()) => {}
                    Err(error) if error.errno() == Some(Errno::EINVAL) => {
                        first.get_or_insert(error);
                        refused.push(*limit);
                    }
                    Err(error) => return Err(error),
                }
            }
            match first {
                Some(error) if refused.len() == pending.len() => return Err(error),
                _ => pending = refused,
            }
        }
        Ok(())
    }
}

/// A field that is set to something: `Some`, and not the 0 by which engines say "leave it".
pub(super) fn given<T: Default + PartialEq + Copy>(value: Option<T>) -> Option<T> {
    value.filter(|value| *value != T::default())
}

/// A limit in v1's words: -1 is unlimited there too.
pub(super) fn device(major: i64, minor: i64) -> String {
    format!("{major}:{minor}")
}
