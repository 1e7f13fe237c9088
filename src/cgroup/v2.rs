//! The v2 back end (kernel: `admin-guide/cgroup-v2`).

use std::os::fd::AsFd;

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxHugepageLimit, LinuxInterfacePriority, LinuxMemory};

use super::backend::{Backend, device, given};
use super::devices::{self, Rule};
use super::file::Dir;
use super::v1::{check_swap, check_usage};
use crate::error::{At, Error, Result};
use crate::sys::bpf;

pub(super) struct V2;

impl Backend for V2 {
    fn memory(&self, dir: &Dir, memory: &LinuxMemory) -> Result<()> {
        #[allow(deprecated)]
        let kernel = memory.kernel();
        refuse_if(given(kernel).is_some_and(|it| it > 0), "memory.kernel")?;
        refuse_if(given(memory.kernel_tcp()).is_some_and(|it| it > 0), "memory.kernelTCP")?;
        refuse_if(memory.swappiness().is_some(), "memory.swappiness")?;
        refuse_if(memory.disable_oom_killer() == Some(true), "memory.disableOOMKiller")?;
        let limit = given(memory.limit());
        let swap = swap_max(limit.or_else(|| present_limit(dir, memory)), given(memory.swap()))?;
        if let Some(limit) = limit
            && memory.check_before_update() == Some(true)
        {
            check_usage(dir, "memory.current", limit)?;
        }
        match swap {
            // Without swap accounting, unlimited is what it is already.
            Some(-1) => dir.write_if_there("memory.swap.max", "max").map(drop)?,
            Some(swap) => dir.set("memory.swap.max", swap)?,
            None => {}
        }
        if let Some(limit) = limit {
            dir.set("memory.max", or_max(limit))?;
        }
        match given(memory.reservation()) {
            Some(reservation) => dir.set("memory.low", or_max(reservation)),
            None => Ok(()),
        }
    }

    fn cpu(&self, dir: &Dir, cpu: &LinuxCpu) -> Result<()> {
        refuse_if(given(cpu.realtime_runtime()).is_some(), "cpu.realtimeRuntime")?;
        refuse_if(given(cpu.realtime_period()).is_some(), "cpu.realtimePeriod")?;
        if let Some(idle) = cpu.idle() {
            dir.set("cpu.idle", idle)?;
        }
        // An idle group has no weight to set: the kernel refuses it.
        if let Some(shares) = given(cpu.shares()).filter(|_| given(cpu.idle()).is_none()) {
            dir.set("cpu.weight", cpu_weight(shares))?;
        }
        let (quota, period) = (given(cpu.quota()), given(cpu.period()));
        let mut bandwidth = Vec::with_capacity(2);
        if quota.is_some() || period.is_some() {
            // One file holds both: keep the one that is not given.
            let old = dir.value("cpu.max")?;
            let (old_quota, old_period) = old.trim().split_once(' ').unwrap_or(("max", "100000"));
            let quota = quota.map_or(old_quota.to_owned(), or_max);
            let period = period.map_or(old_period.to_owned(), |it| it.to_string());
            bandwidth.push(("cpu.max", format!("{quota} {period}")));
        }
        if let Some(burst) = cpu.burst() {
            bandwidth.push(("cpu.max.burst", burst.to_string()));
        }
        dir.settle(&bandwidth)
    }

    fn block_io(&self, dir: &Dir, io: &LinuxBlockIo) -> Result<()> {
        refuse_if(given(io.leaf_weight()).is_some(), "blockIO.leafWeight")?;
        if let Some(weight) = given(io.weight())
            && !dir.write_if_there("io.bfq.weight", weight)?
        {
            dir.set("io.weight", io_weight(weight))?;
        }
        for entry in io.weight_device().iter().flatten() {
            refuse_if(given(entry.leaf_weight()).is_some(), "blockIO.weightDevice.leafWeight")?;
            let Some(weight) = given(entry.weight()) else { continue };
            let name = device(entry.major(), entry.minor());
            if !dir.write_if_there("io.bfq.weight", format!("{name} {weight}"))? {
                dir.set("io.weight", format!("{name} {}", io_weight(weight)))?;
            }
        }
        for (key, entries) in [
            ("rbps", io.throttle_read_bps_device()),
            ("wbps", io.throttle_write_bps_device()),
            ("riops", io.throttle_read_iops_device()),
            ("wiops", io.throttle_write_iops_device()),
        ] {
            for entry in entries.iter().flatten() {
                let rate = if entry.rate() == 0 { "max".to_owned() } else { entry.rate().to_string() };
                dir.set("io.max", format!("{} {key}={rate}", device(entry.major(), entry.minor())))?;
            }
        }
        Ok(())
    }

    fn hugepage(&self, dir: &Dir, limit: &LinuxHugepageLimit) -> Result<()> {
        dir.set(&format!("hugetlb.{}.max", limit.page_size()), or_max(limit.limit()))?;
        // Reservations are limited too where the kernel can (5.7): a limit on faults alone kills with SIGBUS.
        dir.write_if_there(&format!("hugetlb.{}.rsvd.max", limit.page_size()), or_max(limit.limit())).map(drop)
    }

    fn network_class(&self, _: &Dir, _: u32) -> Result<()> {
        refuse_if(true, "network.classID")
    }

    fn network_priorities(&self, _: &Dir, _: &[LinuxInterfacePriority]) -> Result<()> {
        refuse_if(true, "network.priorities")
    }

    fn devices(&self, dir: &Dir, rules: &[Rule]) -> Result<()> {
        let program =
            bpf::load_cgroup_device(&devices::compile(rules)).at("load the device program of", dir.path().display())?;
        let group = dir.open_self()?;
        bpf::attach_cgroup_device(group.as_fd(), program.as_fd())
            .at("attach the device program to", dir.path().display())
    }

    fn set_frozen(&self, dir: &Dir, frozen: bool) -> Result<()> {
        dir.write("cgroup.freeze", u8::from(frozen))
    }

    fn is_frozen(&self, dir: &Dir) -> Result<bool> {
        Ok(dir.keyed("cgroup.events", "frozen")? == Some(1))
    }

    fn is_freezing(&self, dir: &Dir) -> Result<bool> {
        Ok(dir.number("cgroup.freeze")? == 1)
    }
}

fn refuse_if(asked: bool, what: &str) -> Result<()> {
    if asked { Err(Error::Refused(format!("cgroup v2 has nothing for `linux.resources.{what}`"))) } else { Ok(()) }
}

fn or_max(value: i64) -> String {
    if value < 0 { "max".to_owned() } else { value.to_string() }
}

/// The limit that the cgroup has, for a sum with swap that comes without one (`update --memory-swap`).
fn present_limit(dir: &Dir, memory: &LinuxMemory) -> Option<i64> {
    given(memory.swap()).filter(|swap| *swap > 0)?;
    dir.number("memory.max").ok().and_then(|limit| i64::try_from(limit).ok())
}

/// `memory.swap.max` counts swap alone, the OCI field (and v1's memsw) memory and swap together.
/// -1 is unlimited; `None` leaves the file alone.
pub(super) fn swap_max(limit: Option<i64>, swap: Option<i64>) -> Result<Option<i64>> {
    check_swap(limit, swap)?;
    match (limit, swap) {
        (Some(limit), Some(swap)) if limit > 0 && swap > 0 => Ok(Some(swap - limit)),
        (_, Some(-1)) => Ok(Some(-1)),
        // Unlimited memory with swap not spoken of: on v1 this frees the sum too.
        (Some(-1), None) => Ok(Some(-1)),
        (_, None) => Ok(None),
        (_, Some(_)) => Err(Error::config("$.linux.resources.memory.swap", "needs memory.limit beside it")),
    }
}

/// `cpu.weight` (1–10000, default 100) from v1 shares (2–262144, default 1024).
///
/// `10^((l² + 125·l) / 612 − 7/34)` with `l = log2(shares)`: the curve through 2→1, 1024→100 and 262144→10000. The straight line that
/// runtimes used before turns the default 1024 into 39, so a container with default shares lost to every
/// neighbour with default weight. runc (since 1.3.2) and crun (since 1.24) use this curve.
pub(super) fn cpu_weight(shares: u64) -> u64 {
    let l = (shares.clamp(2, 262_144) as f64).log2();
    let exponent = (l * l + 125.0 * l) / 612.0 - 7.0 / 34.0;
    // Rounding noise must not lift the fixed points to the next integer.
    ((10f64.powf(exponent) - 1e-6).ceil() as u64).clamp(1, 10_000)
}

/// `io.weight` (1–10000) from v1's 10–1000, end to end. bfq's own file keeps v1's range and needs none.
pub(super) fn io_weight(weight: u16) -> u64 {
    1 + (u64::from(weight.clamp(10, 1000)) - 10) * 9999 / 990
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::*;

    use super::super::v1::V1;
    use super::*;

    /// A directory with empty files, to see what is written.
    fn fake(files: &[&str]) -> (tempfile::TempDir, Dir) {
        let temp = tempfile::tempdir().unwrap();
        for file in files {
            std::fs::write(temp.path().join(file), "").unwrap();
        }
        let dir = Dir::new(temp.path());
        (temp, dir)
    }

    fn values(dir: &Dir, files: &[&str]) -> Vec<String> {
        files.iter().map(|file| dir.read(file).unwrap()).collect()
    }

    fn memory(limit: i64, swap: Option<i64>) -> LinuxMemory {
        let mut memory = LinuxMemory::default();
        memory.set_limit(Some(limit)).set_swap(swap);
        memory
    }

    #[test]
    fn the_fixed_points_of_the_cpu_curve() {
        assert_eq!([0, 1, 2, 1024, 262_144, 1 << 40].map(cpu_weight), [1, 1, 1, 100, 10_000, 10_000]);
        assert!((2..2000).all(|shares| cpu_weight(shares) <= cpu_weight(shares + 1)));
    }

    #[test]
    fn the_ends_of_the_io_range() {
        assert_eq!([10, 500, 1000].map(io_weight), [1, 4950, 10_000]);
    }

    #[test]
    fn swap_is_the_sum_less_the_limit() {
        let files = ["memory.max", "memory.swap.max", "memory.low"];
        let (_temp, dir) = fake(&files);
        let mut both = memory(100, Some(150));
        both.set_reservation(Some(80));
        V2.memory(&dir, &both).unwrap();
        assert_eq!(values(&dir, &files), ["100", "50", "80"]);
        assert_eq!(swap_max(Some(100), Some(100)).unwrap(), Some(0));
        assert_eq!(swap_max(Some(-1), None).unwrap(), Some(-1));
        assert_eq!(swap_max(Some(100), None).unwrap(), None);
        assert_eq!(swap_max(Some(100), Some(-1)).unwrap(), Some(-1));
        for (limit, swap) in [(Some(100), 50), (None, 50), (Some(-1), 50)] {
            let error = swap_max(limit, Some(swap)).unwrap_err().to_string();
            assert!(error.starts_with("$.linux.resources.memory.swap: "), "{error}");
        }
    }

    #[test]
    fn v1_memory_speaks_of_the_sum() {
        let files = ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"];
        let (_temp, dir) = fake(&files);
        V1.memory(&dir, &memory(100, Some(150))).unwrap();
        assert_eq!(values(&dir, &files), ["100", "150"]);
    }

    #[test]
    fn a_control_without_a_file_is_refused_by_name() {
        let (_temp, dir) = fake(&["memory.limit_in_bytes"]);
        let error = V1.memory(&dir, &memory(100, Some(150))).unwrap_err();
        assert!(matches!(&error, Error::Refused(text) if text.contains("memory.memsw.limit_in_bytes")), "{error}");
        let mut swappy = LinuxMemory::default();
        swappy.set_swappiness(Some(5));
        assert!(matches!(V2.memory(&dir, &swappy), Err(Error::Refused(_))));
    }

    #[test]
    fn the_half_of_cpu_max_that_is_not_given_stays() {
        let (_temp, dir) = fake(&["cpu.max", "cpu.weight"]);
        std::fs::write(dir.file("cpu.max"), "20000 50000\n").unwrap();
        let mut cpu = LinuxCpu::default();
        cpu.set_quota(Some(-1)).set_shares(Some(1024));
        V2.cpu(&dir, &cpu).unwrap();
        assert!(dir.read("cpu.max").unwrap().starts_with("max 50000"));
        assert_eq!(dir.read("cpu.weight").unwrap(), "100");
    }

    #[test]
    fn throttles_and_weights_of_both_interfaces() {
        let throttle = LinuxThrottleDeviceBuilder::default().major(8).minor(0).rate(1000u64).build().unwrap();
        let mut io = LinuxBlockIo::default();
        io.set_weight(Some(500)).set_throttle_read_bps_device(Some(vec![throttle]));
        let (_temp, dir) = fake(&["io.weight", "io.max", "blkio.weight", "blkio.throttle.read_bps_device"]);
        V2.block_io(&dir, &io).unwrap();
        V1.block_io(&dir, &io).unwrap();
        let files = ["io.weight", "io.max", "blkio.weight", "blkio.throttle.read_bps_device"];
        assert_eq!(values(&dir, &files), ["4950", "8:0 rbps=1000", "500", "8:0 1000"]);
    }

    #[test]
    fn no_pids_limit_is_max() {
        let (_temp, dir) = fake(&["pids.max"]);
        V2.pids(&dir, 0).unwrap();
        assert_eq!(dir.read("pids.max").unwrap(), "max");
        std::fs::write(dir.file("pids.max"), "").unwrap();
        V1.pids(&dir, 64).unwrap();
        assert_eq!(dir.read("pids.max").unwrap(), "64");
    }
}
