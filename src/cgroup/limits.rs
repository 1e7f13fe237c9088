//! `linux.resources`, handed to the back end of each controller it asks for.

use oci_spec::runtime::LinuxResources;

use super::backend::{Backend, backend, given};
use super::create::{Cgroup, PAYLOAD_LEAF};
use super::devices;
use super::file::{Dir, Journal};
use super::layout::{Controller, Version};
use super::plan::{Directory, Plan};
use super::systemd;
use crate::error::{At, Error, Result};
use crate::sys::{Errno, process};

/// What a v2 hierarchy that rules alone enables for its children: all that limits or statistics need.
const V2_CONTROLLERS: [Controller; 8] = [
    Controller::Cpu,
    Controller::Cpuset,
    Controller::Memory,
    Controller::Io,
    Controller::Pids,
    Controller::Hugetlb,
    Controller::Rdma,
    Controller::Misc,
];

/// Files of the v2 core through which `unified` would move, kill or re-type what the runtime answers for.
const CORE: [&str; 6] =
    ["cgroup.procs", "cgroup.threads", "cgroup.kill", "cgroup.freeze", "cgroup.type", "cgroup.subtree_control"];

/// When limits are applied.
#[derive(Clone, Copy)]
pub(super) enum Occasion<'a> {
    Create,
    /// With a journal of what the files held before.
    Update(&'a Journal),
}

impl<'a> Occasion<'a> {
    fn journal(self) -> Option<&'a Journal> {
        match self {
            Occasion::Create => None,
            Occasion::Update(journal) => Some(journal),
        }
    }
}

impl Cgroup {
    /// Changes limits. What `resources` does not name stays as it is, and everything does where one of them cannot be
    /// had: what was written is put back. (Device rules are written last; they are not put back.)
    ///
    /// # Errors
    /// [`Error::Refused`] for a controller or file that is not there; else as `write(2)`, naming file and value. What
    /// could not be put back is named.
    pub fn update(&self, resources: &LinuxResources) -> Result<()> {
        let journal = Journal::default();
        let applied = apply(&self.plan, resources, Occasion::Update(&journal)).and_then(|()| match &self.plan.unit {
            // systemd writes the files as it understands its properties, in whole percents of a CPU: the last word is ours.
            Some(unit) => systemd::update(unit, &self.plan, resources)
                .and_then(|()| apply(&self.plan, resources, Occasion::Update(&journal))),
            None => Ok(()),
        });
        applied.map_err(|error| {
            let changed = journal.undo();
            if changed.is_empty() {
                return error;
            }
            let files: Vec<_> = changed.iter().map(|file| format!("`{}`", file.display())).collect();
            let context = format!("not every limit could be put back, {} stay changed", files.join(", "));
            Error::Context { context, source: Box::new(error) }
        })
    }
}

impl Plan {
    /// The directory whose limits and counters are the container's (the payload's, where it has its own).
    pub(super) fn limits_dir(&self, directory: &Directory) -> Dir {
        if self.payload_leaf && self.is_unified() {
            Dir::new(directory.path.join(PAYLOAD_LEAF))
        } else {
            Dir::new(&directory.path)
        }
    }

    /// The back end and directory of a controller that is asked for.
    fn controller(
        &self,
        controller: Controller,
        asked: &str,
        occasion: Occasion<'_>,
    ) -> Result<(&'static dyn Backend, Dir)> {
        let directory = self.directory(controller).ok_or_else(|| self.missing(controller, asked))?;
        Ok((backend(directory.version), self.limits_dir(directory).noted(occasion.journal())))
    }

    fn missing(&self, controller: Controller, asked: &str) -> Error {
        let name = controller.name(Version::V1);
        let why = if self.callers.iter().any(|directory| directory.controllers.contains(&controller)) {
            "whose cgroups this user may not write to: have one delegated, or use `--systemd-cgroup` where the user's systemd runs"
        } else {
            "which this host does not offer"
        };
        Error::Refused(format!("`linux.resources.{asked}` needs the `{name}` cgroup controller, {why}"))
    }
}

/// Writes every limit that is asked for.
pub(super) fn apply(plan: &Plan, resources: &LinuxResources, occasion: Occasion<'_>) -> Result<()> {
    let update = matches!(occasion, Occasion::Update(_));
    if update {
        enable(plan, Some(resources))?;
    }
    let controller = |controller, asked| plan.controller(controller, asked, occasion);
    if let Some(cpu) = resources.cpu() {
        if cpu.cpus().as_deref().is_some_and(|it| !it.is_empty())
            || cpu.mems().as_deref().is_some_and(|it| !it.is_empty())
        {
            let (backend, dir) = controller(Controller::Cpuset, "cpu.cpus")?;
            backend.cpuset(&dir, cpu)?;
        }
        let asked = given(cpu.shares()).is_some()
            || given(cpu.quota()).is_some()
            || given(cpu.period()).is_some()
            || cpu.burst().is_some()
            || cpu.idle().is_some()
            || given(cpu.realtime_period()).is_some()
            || given(cpu.realtime_runtime()).is_some();
        if asked {
            let (backend, dir) = controller(Controller::Cpu, "cpu")?;
            backend.cpu(&dir, cpu)?;
        }
    }
    if let Some(memory) = resources.memory() {
        #[allow(deprecated)]
        let asked = given(memory.limit()).is_some()
            || given(memory.swap()).is_some()
            || given(memory.reservation()).is_some()
            || given(memory.kernel()).is_some()
            || given(memory.kernel_tcp()).is_some()
            || memory.swappiness().is_some()
            || memory.disable_oom_killer() == Some(true);
        if asked {
            let (backend, dir) = controller(Controller::Memory, "memory")?;
            backend.memory(&dir, memory)?;
        }
    }
    if let Some(pids) = resources.pids() {
        // No limit is what a fresh cgroup has.
        if pids.limit() > 0 || update && plan.directory(Controller::Pids).is_some() {
            let (backend, dir) = controller(Controller::Pids, "pids")?;
            backend.pids(&dir, pids.limit())?;
        }
    }
    if let Some(io) = resources.block_io() {
        let empty = given(io.weight()).is_none()
            && given(io.leaf_weight()).is_none()
            && [io.throttle_read_bps_device(), io.throttle_write_bps_device()].into_iter().flatten().all(Vec::is_empty)
            && [io.throttle_read_iops_device(), io.throttle_write_iops_device()]
                .into_iter()
                .flatten()
                .all(Vec::is_empty)
            && io.weight_device().iter().flatten().next().is_none();
        if !empty {
            let (backend, dir) = controller(Controller::Io, "blockIO")?;
            backend.block_io(&dir, io)?;
        }
    }
    for (index, limit) in resources.hugepage_limits().iter().flatten().enumerate() {
        if !page_size(limit.page_size()) {
            let pointer = format!("$.linux.resources.hugepageLimits[{index}].pageSize");
            return Err(Error::config(pointer, format!("`{}` is no size such as `2MB`", limit.page_size())));
        }
        let (backend, dir) = controller(Controller::Hugetlb, "hugepageLimits")?;
        backend.hugepage(&dir, limit)?;
    }
    if let Some(network) = resources.network() {
        if let Some(class) = given(network.class_id()) {
            let (backend, dir) = controller(Controller::NetCls, "network.classID")?;
            backend.network_class(&dir, class)?;
        }
        if let Some(priorities) = network.priorities().as_ref().filter(|it| !it.is_empty()) {
            let (backend, dir) = controller(Controller::NetPrio, "network.priorities")?;
            backend.network_priorities(&dir, priorities)?;
        }
    }
    for (device, limit) in resources.rdma().iter().flatten() {
        let (backend, dir) = controller(Controller::Rdma, "rdma")?;
        backend.rdma(&dir, device, limit)?;
    }
    apply_unified(plan, resources, occasion)?;
    if update && resources.devices().is_none() {
        return Ok(());
    }
    apply_devices(plan, resources.devices().as_deref().unwrap_or_default())
}

/// Device rules: always applied where the container's plan takes the controller, as every runtime does; the default
/// without any rule is to deny all but the specification's default devices.
pub(super) fn apply_devices(plan: &Plan, devices: &[oci_spec::runtime::LinuxDeviceCgroup]) -> Result<()> {
    if !plan.devices && devices.is_empty() {
        return Ok(());
    }
    let Some(directory) = plan.directory(Controller::Devices) else {
        // An unprivileged caller's container has a user namespace: no device node can be made in it, and no file system
        // with devices mounted, so the rules are moot.
        let moot = devices.is_empty() || !plan.callers.is_empty();
        return if moot { Ok(()) } else { Err(plan.missing(Controller::Devices, "devices")) };
    };
    let rules = devices::rules(devices)?;
    match backend(directory.version).devices(&Dir::new(&directory.path), &rules) {
        // The kernel lets only root of the initial user namespace rule devices. Anybody else's container has a user namespace
        // of its own, in which no device node can be made and no file system with devices mounted: nothing is lost.
        Err(error) if error.errno() == Some(Errno::EPERM) && !host_root() => Ok(()),
        other => other,
    }
}

fn host_root() -> bool {
    nix::unistd::geteuid().is_root() && !process::in_user_namespace()
}

/// `unified`: v2 files by name.
fn apply_unified(plan: &Plan, resources: &LinuxResources, occasion: Occasion<'_>) -> Result<()> {
    let Some(unified) = resources.unified().as_ref().filter(|it| !it.is_empty()) else { return Ok(()) };
    let Some(directory) = plan.unified() else {
        return Err(Error::Refused(
            "`linux.resources.unified` needs cgroup v2, which this host does not mount".to_owned(),
        ));
    };
    let dir = plan.limits_dir(directory).noted(occasion.journal());
    // The document gives no order: by name, so that each run does the same.
    let mut keys: Vec<_> = unified.iter().collect();
    keys.sort_unstable();
    for (key, value) in keys {
        let pointer = || format!("$.linux.resources.unified.{key}");
        if !key.contains('.') || key.contains('/') || key.starts_with('.') {
            return Err(Error::config(pointer(), "is no name of a cgroup v2 file"));
        }
        if CORE.contains(&key.as_str()) {
            return Err(Error::config(pointer(), "belongs to the runtime"));
        }
        for line in value.lines().filter(|line| !line.is_empty()) {
            dir.write(key, line).map_err(|error| match error.errno() {
                Some(Errno::ENOENT) => Error::Refused(dir.withheld(key).unwrap_or_else(|| {
                    format!(
                        "invalid configuration for this host: `linux.resources.unified.{key}`: the v2 hierarchy at `{}` offers no such file",
                        directory.root.display()
                    )
                })),
                _ => error,
            })?;
        }
    }
    Ok(())
}

/// A page size as the kernel names its files: `64KB`, `2MB`, `1GB`.
fn page_size(text: &str) -> bool {
    let digits = text.trim_end_matches(|it: char| !it.is_ascii_digit());
    matches!(text.strip_prefix(digits), Some("KB" | "MB" | "GB"))
        && !digits.starts_with('0')
        && !digits.is_empty()
        && digits.bytes().all(|it| it.is_ascii_digit())
}

/// Enables v2 controllers from the root down to the parent of the limits' directory.
///
/// Where v2 rules alone, all that are useful; on a hybrid host only those that the resources ask for and
/// that no v1 hierarchy answers: enabling one touches the whole host's tree.
pub(super) fn enable(plan: &Plan, resources: Option<&LinuxResources>) -> Result<()> {
    let Some(directory) = plan.unified() else { return Ok(()) };
    let all = plan.is_unified();
    let wanted: Vec<Controller> = V2_CONTROLLERS
        .into_iter()
        .filter(|it| directory.controllers.contains(it))
        .filter(|it| all || resources.is_some_and(|resources| asks_v2(plan, resources, *it)))
        .collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let limits = plan.limits_dir(directory);
    let mut parents: Vec<_> =
        limits.path().ancestors().skip(1).take_while(|path| path.starts_with(&directory.root)).collect();
    parents.reverse();
    for parent in parents {
        let parent = Dir::new(parent);
        let names = wanted.iter().map(|it| format!("+{}", it.name(Version::V2))).collect::<Vec<_>>();
        match parent.try_write("cgroup.subtree_control", &names.join(" ")) {
            Ok(()) => continue,
            // A cgroup with processes gives no controllers of domains to its children. It would give those of threads, and
            // with that forbid its children to have processes: they stay without, and what is missed is noticed.
            Err(Errno::EBUSY) if all => return Ok(()),
            Err(_) if all && parent.has_strangers() => return Ok(()),
            Err(_) => {}
        }
        // One that cannot be had must not take the others away: what is missed is noticed by whoever asked for it.
        for name in &names {
            match parent.try_write("cgroup.subtree_control", name) {
                Ok(()) => {}
                // The ancestor does not have it: the limit's file will be missing, and that is what is reported.
                Err(Errno::ENOENT | Errno::EINVAL | Errno::EOPNOTSUPP | Errno::EACCES | Errno::EPERM) if all => {}
                Err(errno) => {
                    return Err(errno).at(
                        "enable cgroup controller",
                        format_args!("{}` in `{}", &name[1..], parent.path().display()),
                    );
                }
            }
        }
    }
    Ok(())
}

/// Whether the resources need a controller of v2 on a hybrid host.
fn asks_v2(plan: &Plan, resources: &LinuxResources, controller: Controller) -> bool {
    let unified = resources.unified().iter().flatten();
    let by_name =
        || unified.clone().any(|(key, _)| key.split('.').next().and_then(Controller::parse) == Some(controller));
    let v2 = plan.directory(controller).is_some_and(|directory| directory.version == Version::V2);
    let by_field = match controller {
        Controller::Hugetlb => resources.hugepage_limits().iter().flatten().next().is_some(),
        Controller::Rdma => resources.rdma().iter().flatten().next().is_some(),
        Controller::Memory => resources.memory().is_some(),
        Controller::Cpu | Controller::Cpuset => resources.cpu().is_some(),
        Controller::Pids => resources.pids().is_some(),
        Controller::Io => resources.block_io().is_some(),
        _ => false,
    };
    v2 && by_field || by_name()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_sizes_are_the_kernels() {
        assert!(["64KB", "2MB", "1GB"].into_iter().all(page_size));
        assert!(["", "MB", "02MB", "2mb", "2", "../2MB", "2 MB", "2MB/"].into_iter().all(|it| !page_size(it)));
    }

    #[test]
    fn a_limit_without_its_controller_is_refused_by_name() {
        let mut network = oci_spec::runtime::LinuxNetwork::default();
        network.set_class_id(Some(7));
        let mut resources = LinuxResources::default();
        resources.set_network(Some(network));
        let error = apply(&Plan::default(), &resources, Occasion::Create).unwrap_err().to_string();
        assert!(error.contains("`linux.resources.network.classID` needs the `net_cls` cgroup controller"), "{error}");
    }
}
