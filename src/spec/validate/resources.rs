//! `linux.resources`, of a configuration or of an update.

use std::collections::HashMap;

use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxDeviceCgroup, LinuxDeviceType, LinuxHugepageLimit, LinuxMemory, LinuxNetwork,
    LinuxRdma, LinuxResources,
};

use super::{member, sorted};
use crate::error::{Error, Result};
use crate::spec::number_list;

/// Checks the resources document of an update; JSON paths start at the document.
///
/// # Errors
/// [`Error::Config`] for the first fault.
pub fn validate_resources(resources: &LinuxResources) -> Result<()> {
    check(resources, "$", true)
}

/// `update`: what is not given stays as it is, so that rules between two members hold only where both are given.
pub(super) fn check(resources: &LinuxResources, at: &str, update: bool) -> Result<()> {
    devices(resources.devices().as_deref().unwrap_or_default(), at)?;
    if let Some(memory) = resources.memory() {
        self::memory(memory, at, update)?;
    }
    if let Some(cpu) = resources.cpu() {
        self::cpu(cpu, at)?;
    }
    if let Some(pids) = resources.pids()
        && !(-1..=4_194_304).contains(&pids.limit())
    {
        let why = format!("{} is not between -1 and the kernel's 4194304", pids.limit());
        return Err(Error::config(format!("{at}.pids.limit"), why));
    }
    if let Some(block_io) = resources.block_io() {
        self::block_io(block_io, at)?;
    }
    hugepages(resources.hugepage_limits().as_deref().unwrap_or_default(), at)?;
    if let Some(network) = resources.network() {
        self::network(network, at)?;
    }
    if let Some(devices) = resources.rdma() {
        rdma(devices, at)?;
    }
    resources.unified().as_ref().map_or(Ok(()), |files| unified(files, at))
}

/// The devices controller knows block and character devices, or all.
fn devices(rules: &[LinuxDeviceCgroup], at: &str) -> Result<()> {
    for (index, rule) in rules.iter().enumerate() {
        let refuse = |member: &str, why: String| Err(Error::config(format!("{at}.devices[{index}].{member}"), why));
        if let Some(kind @ (LinuxDeviceType::U | LinuxDeviceType::P)) = rule.typ() {
            return refuse("type", format!("`{}` is not `a`, `b` or `c`", kind.as_str()));
        }
        for (name, number) in [("major", rule.major()), ("minor", rule.minor())] {
            if number.is_some_and(|number| !(-1..=i64::from(u32::MAX)).contains(&number)) {
                return refuse(name, format!("{} is no device number or -1", number.unwrap_or_default()));
            }
        }
        if let Some(access) = rule.access().as_deref()
            && (access.len() > 3 || !access.bytes().all(|letter| b"rwm".contains(&letter)))
        {
            return refuse("access", format!("`{access}` is not made of `r`, `w` and `m`"));
        }
    }
    Ok(())
}

/// In bytes; 0 leaves a limit alone, -1 lifts it.
fn memory(memory: &LinuxMemory, at: &str, update: bool) -> Result<()> {
    let refuse = |member: &str, why: String| Err(Error::config(format!("{at}.memory.{member}"), why));
    let limits = [
        ("limit", memory.limit()),
        ("reservation", memory.reservation()),
        ("swap", memory.swap()),
        ("kernel", memory.kernel()),
        ("kernelTCP", memory.kernel_tcp()),
    ];
    if let Some((name, Some(bytes))) = limits.into_iter().find(|(_, bytes)| bytes.is_some_and(|bytes| bytes < -1)) {
        return refuse(name, format!("{bytes} is below -1"));
    }
    // `swap` is the sum of memory and swap, so it cannot stand alone nor be the smaller one.
    let (limit, swap) = (memory.limit().unwrap_or(0), memory.swap().unwrap_or(0));
    if swap > 0 && limit > 0 && swap < limit {
        return refuse("swap", format!("{swap} is below the limit {limit}; it counts memory and swap together"));
    }
    if swap > 0 && (limit == -1 || (limit == 0 && !update)) {
        return refuse("swap", "is set without `limit`".into());
    }
    if memory.swappiness().is_some_and(|percent| percent > 100) {
        return refuse("swappiness", "is not between 0 and 100".into());
    }
    Ok(())
}

/// Times in microseconds; 0 leaves a setting alone.
fn cpu(cpu: &LinuxCpu, at: &str) -> Result<()> {
    let refuse = |member: &str, why: String| Err(Error::config(format!("{at}.cpu.{member}"), why));
    if let Some(shares) = cpu.shares()
        && shares != 0
        && !(2..=262_144).contains(&shares)
    {
        return refuse("shares", format!("{shares} is not between 2 and 262144"));
    }
    let quota = cpu.quota().unwrap_or(0);
    if quota < -1 || (1..1000).contains(&quota) {
        return refuse("quota", format!("{quota} is neither -1 nor at least 1000"));
    }
    if let Some(period) = cpu.period()
        && period != 0
        && !(1000..=1_000_000).contains(&period)
    {
        return refuse("period", format!("{period} is not between 1000 and 1000000"));
    }
    if let Some(burst) = cpu.burst()
        && quota > 0
        && burst > quota as u64
    {
        return refuse("burst", format!("{burst} is above the quota {quota}"));
    }
    if cpu.idle().is_some_and(|idle| !(0..=1).contains(&idle)) {
        return refuse("idle", "is not 0 or 1".into());
    }
    if let Some(runtime) = cpu.realtime_runtime() {
        if runtime < -1 {
            return refuse("realtimeRuntime", format!("{runtime} is below -1"));
        }
        if let Some(period) = cpu.realtime_period()
            && period != 0
            && runtime > 0
            && runtime as u64 > period
        {
            return refuse("realtimeRuntime", format!("{runtime} is above the period {period}"));
        }
    }
    for (name, list) in [("cpus", cpu.cpus()), ("mems", cpu.mems())] {
        if let Some(list) = list.as_deref().filter(|list| !list.is_empty()) {
            number_list::check(list).or_else(|why| refuse(name, why))?;
        }
    }
    Ok(())
}

fn block_io(block_io: &LinuxBlockIo, at: &str) -> Result<()> {
    let at = format!("{at}.blockIO");
    let weight = |weight: Option<u16>, at: String| match weight {
        Some(weight) if weight != 0 && !(10..=1000).contains(&weight) => {
            Err(Error::config(at, format!("{weight} is not between 10 and 1000")))
        }
        _ => Ok(()),
    };
    let numbers = |major: i64, minor: i64, at: &str| {
        let bad = [("major", major), ("minor", minor)].into_iter().find(|(_, number)| !(0..1 << 32).contains(number));
        bad.map_or(Ok(()), |(name, number)| {
            Err(Error::config(format!("{at}.{name}"), format!("{number} is no device number")))
        })
    };
    weight(block_io.weight(), format!("{at}.weight"))?;
    weight(block_io.leaf_weight(), format!("{at}.leafWeight"))?;
    for (index, device) in block_io.weight_device().iter().flatten().enumerate() {
        let at = format!("{at}.weightDevice[{index}]");
        numbers(device.major(), device.minor(), &at)?;
        weight(device.weight(), format!("{at}.weight"))?;
        weight(device.leaf_weight(), format!("{at}.leafWeight"))?;
    }
    let lists = [
        ("throttleReadBpsDevice", block_io.throttle_read_bps_device()),
        ("throttleWriteBpsDevice", block_io.throttle_write_bps_device()),
        ("throttleReadIOPSDevice", block_io.throttle_read_iops_device()),
        ("throttleWriteIOPSDevice", block_io.throttle_write_iops_device()),
    ];
    for (name, list) in lists {
        for (index, device) in list.iter().flatten().enumerate() {
            numbers(device.major(), device.minor(), &format!("{at}.{name}[{index}]"))?;
        }
    }
    Ok(())
}

fn hugepages(limits: &[LinuxHugepageLimit], at: &str) -> Result<()> {
    for (index, limit) in limits.iter().enumerate() {
        let refuse =
            |member: &str, why: String| Err(Error::config(format!("{at}.hugepageLimits[{index}].{member}"), why));
        let size = limit.page_size();
        let digits = ["KB", "MB", "GB"].iter().find_map(|unit| size.strip_suffix(unit)).unwrap_or_default();
        let number = !digits.is_empty() && !digits.starts_with('0') && digits.bytes().all(|byte| byte.is_ascii_digit());
        if !number {
            return refuse("pageSize", format!("`{size}` is not a size such as `2MB`"));
        }
        if limits[..index].iter().any(|other| other.page_size() == size) {
            return refuse("pageSize", format!("`{size}` is given twice"));
        }
        if limit.limit() < 0 {
            return refuse("limit", format!("{} is below zero", limit.limit()));
        }
    }
    Ok(())
}

fn network(network: &LinuxNetwork, at: &str) -> Result<()> {
    for (index, entry) in network.priorities().iter().flatten().enumerate() {
        let name = entry.name();
        if name.is_empty() || name.len() > 15 || name.contains(['/', '\0']) || name.contains(char::is_whitespace) {
            let at = format!("{at}.network.priorities[{index}].name");
            return Err(Error::config(at, format!("`{}` is not the name of a network device", name.escape_debug())));
        }
    }
    Ok(())
}

fn rdma(devices: &HashMap<String, LinuxRdma>, at: &str) -> Result<()> {
    for (name, limits) in sorted(devices) {
        let refuse = |why: &str| Err(Error::config(format!("{at}.rdma{}", member(name)), why));
        if name.is_empty() || name.contains(['/', '\0']) || name.contains(char::is_whitespace) {
            return refuse("is not the name of a device");
        }
        if limits.hca_handles().is_none() && limits.hca_objects().is_none() {
            return refuse("has neither `hcaHandles` nor `hcaObjects`");
        }
    }
    Ok(())
}

/// Files of the container's cgroup, `CONTROLLER.PARAMETER`: a key must not reach another directory.
fn unified(files: &HashMap<String, String>, at: &str) -> Result<()> {
    for (name, value) in sorted(files) {
        let refuse = |why: &str| Err(Error::config(format!("{at}.unified{}", member(name)), why));
        if name.contains('/') {
            return refuse("has a `/`; it must be the name of a file");
        }
        let shaped = name.split_once('.').is_some_and(|(controller, file)| !controller.is_empty() && !file.is_empty());
        if !shaped || name.contains('\0') || name.contains("..") {
            return refuse("is not of the shape `CONTROLLER.PARAMETER`");
        }
        if value.contains('\0') {
            return refuse("has a NUL byte in its value");
        }
    }
    Ok(())
}
