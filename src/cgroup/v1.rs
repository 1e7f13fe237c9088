//! The v1 back end (kernel: `admin-guide/cgroup-v1/`).

use std::os::fd::AsFd;

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxHugepageLimit, LinuxInterfacePriority, LinuxMemory};

use super::backend::{Backend, device, given};
use super::devices::{self, Rule};
use super::file::Dir;
use crate::error::{At, Error, Result};
use crate::sys::{Errno, path};

pub(super) struct V1;

impl Backend for V1 {
    fn memory(&self, dir: &Dir, memory: &LinuxMemory) -> Result<()> {
        let limit = given(memory.limit());
        let swap = given(memory.swap());
        check_swap(limit, swap)?;
        let mut limits = Vec::with_capacity(2);
        if let Some(limit) = limit {
            if memory.check_before_update() == Some(true) {
                check_usage(dir, "memory.usage_in_bytes", limit)?;
            }
            limits.push(("memory.limit_in_bytes", limit.to_string()));
        }
        match (limit, swap) {
            // The field is memory and swap together, which is what memsw counts.
            (_, Some(swap)) => limits.push(("memory.memsw.limit_in_bytes", swap.to_string())),
            // Unlimited memory under a limited sum would not be unlimited.
            (Some(-1), None) if dir.has("memory.memsw.limit_in_bytes") => {
                limits.push(("memory.memsw.limit_in_bytes", "-1".to_owned()));
            }
            _ => {}
        }
        dir.settle(&limits).map_err(|error| busy(dir, error, limit))?;
        if let Some(reservation) = given(memory.reservation()) {
            dir.set("memory.soft_limit_in_bytes", reservation)?;
        }
        #[allow(deprecated)]
        if let Some(kernel) = given(memory.kernel()).filter(|kernel| *kernel > 0) {
            limit_or_refuse(dir, "memory.kmem.limit_in_bytes", kernel)?;
        }
        if let Some(tcp) = given(memory.kernel_tcp()) {
            limit_or_refuse(dir, "memory.kmem.tcp.limit_in_bytes", tcp)?;
        }
        if let Some(swappiness) = memory.swappiness() {
            dir.set("memory.swappiness", swappiness)?;
        }
        if memory.use_hierarchy() == Some(true) {
            dir.set("memory.use_hierarchy", 1)?;
        }
        match memory.disable_oom_killer() {
            Some(disable) => dir.set("memory.oom_control", u8::from(disable)),
            None => Ok(()),
        }
    }

    fn cpu(&self, dir: &Dir, cpu: &LinuxCpu) -> Result<()> {
        if let Some(idle) = cpu.idle() {
            dir.set("cpu.idle", idle)?;
        }
        // An idle group has no shares to set: the kernel refuses them.
        if let Some(shares) = given(cpu.shares()).filter(|_| given(cpu.idle()).is_none()) {
            dir.set("cpu.shares", shares)?;
        }
        let number = |file: &'static str, value: Option<String>| value.map(|value| (file, value));
        let realtime = [
            number("cpu.rt_period_us", given(cpu.realtime_period()).map(|it| it.to_string())),
            number("cpu.rt_runtime_us", given(cpu.realtime_runtime()).map(|it| it.to_string())),
        ];
        dir.settle(&realtime.into_iter().flatten().collect::<Vec<_>>())?;
        let bandwidth = [
            number("cpu.cfs_period_us", given(cpu.period()).map(|it| it.to_string())),
            number("cpu.cfs_quota_us", given(cpu.quota()).map(|it| it.to_string())),
            number("cpu.cfs_burst_us", cpu.burst().map(|it| it.to_string())),
        ];
        dir.settle(&bandwidth.into_iter().flatten().collect::<Vec<_>>())
    }

    fn block_io(&self, dir: &Dir, io: &LinuxBlockIo) -> Result<()> {
        if let Some(weight) = given(io.weight()) {
            either(dir, "blkio.bfq.weight", "blkio.weight", weight.to_string())?;
        }
        if let Some(weight) = given(io.leaf_weight()) {
            dir.set("blkio.leaf_weight", weight)?;
        }
        for entry in io.weight_device().iter().flatten() {
            let name = device(entry.major(), entry.minor());
            if let Some(weight) = given(entry.weight()) {
                either(dir, "blkio.bfq.weight_device", "blkio.weight_device", format!("{name} {weight}"))?;
            }
            if let Some(weight) = given(entry.leaf_weight()) {
                dir.set("blkio.leaf_weight_device", format!("{name} {weight}"))?;
            }
        }
        for (file, entries) in [
            ("blkio.throttle.read_bps_device", io.throttle_read_bps_device()),
            ("blkio.throttle.write_bps_device", io.throttle_write_bps_device()),
            ("blkio.throttle.read_iops_device", io.throttle_read_iops_device()),
            ("blkio.throttle.write_iops_device", io.throttle_write_iops_device()),
        ] {
            for entry in entries.iter().flatten() {
                dir.set(file, format!("{} {}", device(entry.major(), entry.minor()), entry.rate()))?;
            }
        }
        Ok(())
    }

    fn hugepage(&self, dir: &Dir, limit: &LinuxHugepageLimit) -> Result<()> {
        dir.set(&format!("hugetlb.{}.limit_in_bytes", limit.page_size()), limit.limit())?;
        // Reservations are limited too where the kernel can (5.7): a limit on faults alone kills with SIGBUS.
        dir.write_if_there(&format!("hugetlb.{}.rsvd.limit_in_bytes", limit.page_size()), limit.limit()).map(drop)
    }

    fn network_class(&self, dir: &Dir, class: u32) -> Result<()> {
        dir.set("net_cls.classid", class)
    }

    fn network_priorities(&self, dir: &Dir, priorities: &[LinuxInterfacePriority]) -> Result<()> {
        for entry in priorities {
            dir.set("net_prio.ifpriomap", format!("{} {}", entry.name(), entry.priority()))?;
        }
        Ok(())
    }

    fn devices(&self, dir: &Dir, rules: &[Rule]) -> Result<()> {
        let list = devices::exceptions(rules)?;
        let (reset, other) = if list.allow { ("allow", "deny") } else { ("deny", "allow") };
        dir.set(&format!("devices.{reset}"), "a")?;
        let file = format!("devices.{other}");
        let fd = dir.open(&file, libc::O_WRONLY)?;
        for rule in &list.rules {
            // One rule per write: the kernel parses no second line.
            path::write_once(fd.as_fd(), rule.to_string().as_bytes())
                .at("write device rule to", format_args!("{}` `{rule}", dir.file(&file).display()))?;
        }
        Ok(())
    }

    fn set_frozen(&self, dir: &Dir, frozen: bool) -> Result<()> {
        dir.write("freezer.state", if frozen { "FROZEN" } else { "THAWED" })
    }

    fn is_frozen(&self, dir: &Dir) -> Result<bool> {
        Ok(dir.value("freezer.state")?.trim() == "FROZEN")
    }

    fn is_freezing(&self, dir: &Dir) -> Result<bool> {
        Ok(dir.value("freezer.state")?.trim() != "THAWED")
    }
}

/// The sum may not be below its part.
pub(super) fn check_swap(limit: Option<i64>, swap: Option<i64>) -> Result<()> {
    const POINTER: &str = "$.linux.resources.memory.swap";
    match (limit, swap) {
        (Some(limit), Some(swap)) if limit > 0 && swap > 0 && swap < limit => {
            Err(Error::config(POINTER, format!("is the sum of memory and swap: {swap} is below memory.limit {limit}")))
        }
        (Some(-1), Some(swap)) if swap > 0 => Err(Error::config(POINTER, "limits what memory.limit leaves unlimited")),
        _ => Ok(()),
    }
}

/// `checkBeforeUpdate`: refuse a limit below the usage rather than reclaim and perhaps kill.
pub(super) fn check_usage(dir: &Dir, file: &str, limit: i64) -> Result<()> {
    let usage = dir.number(file)?;
    match u64::try_from(limit) {
        Ok(limit) if limit < usage => {
            Err(Error::Refused(format!("memory limit {limit} is below the usage of {usage} bytes")))
        }
        _ => Ok(()),
    }
}

/// EBUSY on a limit means that the kernel could not reclaim enough; say how much there is.
fn busy(dir: &Dir, error: Error, limit: Option<i64>) -> Error {
    match (error.errno(), limit) {
        (Some(Errno::EBUSY), Some(limit)) => Error::Context {
            context: format!(
                "memory limit {limit} (usage {}, peak {})",
                dir.number("memory.usage_in_bytes").unwrap_or_default(),
                dir.number("memory.max_usage_in_bytes").unwrap_or_default()
            ),
            source: Box::new(error),
        },
        _ => error,
    }
}

/// The kernel keeps the files of limits it no longer enforces and answers ENOTSUPP, which has no user-space name.
fn limit_or_refuse(dir: &Dir, file: &str, value: i64) -> Result<()> {
    match dir.try_write(file, &value.to_string()) {
        Ok(()) => Ok(()),
        Err(Errno::ENOENT | Errno::EOPNOTSUPP | Errno::UnknownErrno) => {
            Err(Error::Refused(format!("this kernel does not limit `{file}`")))
        }
        Err(errno) => Err(Error::sys("write to", dir.file(file).display(), errno)),
    }
}

/// Writes the file that the kernel's I/O scheduler has.
fn either(dir: &Dir, first: &str, second: &str, value: String) -> Result<()> {
    if dir.write_if_there(first, &value)? { Ok(()) } else { dir.set(second, value) }
}
