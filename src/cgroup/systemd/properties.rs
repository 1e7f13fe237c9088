//! `linux.resources` as properties of a scope, so that systemd neither contradicts what the files say nor forgets it when it
//! writes them again (`systemd.resource-control(5)`, `org.freedesktop.systemd1(5)`).

use oci_spec::runtime::{LinuxCpu, LinuxMemory, LinuxResources};
use zvariant::Value;

use super::super::backend::given;
use super::super::devices::{self, Kind, Rule};
use super::super::layout::Version;
use super::super::v2::{cpu_weight, io_weight, swap_max};
use crate::error::{Error, Result};

/// One property: its name and value.
pub(super) type Property = (String, Value<'static>);

/// `CGROUP_LIMIT_MAX`, `USEC_INFINITY`: no limit.
const INFINITY: u64 = u64::MAX;
/// systemd keeps a quota as whole percents of a second.
const QUOTA_STEP: u64 = 10_000;

/// What the resources ask for, as far as systemd has a property for it: the files are written all the same. `weightless`
/// where this systemd knows the weight `idle`, from 252 on.
pub(super) fn limits(resources: &LinuxResources, version: Version, weightless: bool) -> Result<Vec<Property>> {
    let mut list = List::default();
    if let Some(memory) = resources.memory() {
        memory_limits(&mut list, memory, version)?;
    }
    if let Some(cpu) = resources.cpu() {
        cpu_limits(&mut list, cpu, version, weightless)?;
    }
    if let Some(pids) = resources.pids() {
        list.number("TasksMax", if pids.limit() > 0 { pids.limit().unsigned_abs() } else { INFINITY });
    }
    if let Some(weight) = resources.block_io().as_ref().and_then(|io| given(io.weight())) {
        match version {
            Version::V1 => list.number("BlockIOWeight", u64::from(weight)),
            Version::V2 => list.number("IOWeight", io_weight(weight)),
        }
    }
    if version == Version::V2 {
        // By name, and after the fields, as the files are written.
        let mut unified: Vec<_> = resources.unified().iter().flatten().collect();
        unified.sort_unstable();
        for (key, value) in unified {
            by_file(&mut list, key, value.trim())?;
        }
    }
    Ok(list.0)
}

#[derive(Default)]
struct List(Vec<Property>);

impl List {
    fn push(&mut self, name: &str, value: impl Into<Value<'static>>) {
        self.0.push((name.to_owned(), value.into()));
    }

    fn number(&mut self, name: &str, value: u64) {
        self.push(name, value);
    }

    /// A limit where below zero means none.
    fn limit(&mut self, name: &str, value: i64) {
        self.number(name, u64::try_from(value).unwrap_or(INFINITY));
    }

    fn quota(&mut self, quota: i64, period: u64) {
        let per_second = match u64::try_from(quota) {
            Ok(quota) => (u128::from(quota) * 1_000_000).div_ceil(u128::from(period.max(1))),
            Err(_) => u128::MAX,
        };
        let per_second = u64::try_from(per_second).ok().and_then(|it| it.checked_next_multiple_of(QUOTA_STEP));
        self.number("CPUQuotaPerSecUSec", per_second.unwrap_or(INFINITY));
    }
}

fn memory_limits(list: &mut List, memory: &LinuxMemory, version: Version) -> Result<()> {
    let limit = given(memory.limit());
    match version {
        Version::V1 => {
            if let Some(limit) = limit {
                list.limit("MemoryLimit", limit);
            }
        }
        Version::V2 => {
            if let Some(limit) = limit {
                list.limit("MemoryMax", limit);
            }
            if let Some(swap) = swap_max(limit, given(memory.swap()))? {
                list.limit("MemorySwapMax", swap);
            }
            if let Some(reservation) = given(memory.reservation()) {
                list.limit("MemoryLow", reservation);
            }
        }
    }
    Ok(())
}

fn cpu_limits(list: &mut List, cpu: &LinuxCpu, version: Version, weightless: bool) -> Result<()> {
    match (given(cpu.shares()), version) {
        _ if given(cpu.idle()).is_some() => {
            if weightless && version == Version::V2 {
                list.number("CPUWeight", 0);
            }
        }
        (Some(shares), Version::V1) => list.number("CPUShares", shares.clamp(2, 262_144)),
        (Some(shares), Version::V2) => list.number("CPUWeight", cpu_weight(shares)),
        (None, _) => {}
    }
    if let Some(period) = given(cpu.period()) {
        list.number("CPUQuotaPeriodUSec", period);
    }
    if let Some(quota) = given(cpu.quota()) {
        list.quota(quota, given(cpu.period()).unwrap_or(100_000));
    }
    if version == Version::V2 {
        for (name, pointer, set) in [
            ("AllowedCPUs", "$.linux.resources.cpu.cpus", cpu.cpus()),
            ("AllowedMemoryNodes", "$.linux.resources.cpu.mems", cpu.mems()),
        ] {
            if let Some(set) = set.as_deref().filter(|set| !set.is_empty()) {
                list.push(
                    name,
                    bits(set).ok_or_else(|| Error::config(pointer, format!("`{set}` is no list of numbers")))?,
                );
            }
        }
    }
    Ok(())
}

/// The v2 files that systemd has a property for.
fn by_file(list: &mut List, file: &str, value: &str) -> Result<()> {
    let fault = || Error::config(format!("$.linux.resources.unified.{file}"), format!("`{value}` is no value of it"));
    let number = |text: &str| match text {
        "max" => Some(INFINITY),
        text => text.parse().ok(),
    };
    let name = match file {
        "cpu.max" => {
            let (quota, period) = value.split_once(' ').unwrap_or((value, "100000"));
            let period = period.trim().parse().map_err(|_| fault())?;
            list.number("CPUQuotaPeriodUSec", period);
            list.quota(if quota == "max" { -1 } else { quota.parse().map_err(|_| fault())? }, period);
            return Ok(());
        }
        "cpuset.cpus" | "cpuset.mems" => {
            let name = if file == "cpuset.cpus" { "AllowedCPUs" } else { "AllowedMemoryNodes" };
            list.push(name, bits(value).ok_or_else(fault)?);
            return Ok(());
        }
        "cpu.weight" => "CPUWeight",
        "io.weight" if value.parse::<u64>().is_ok() => "IOWeight",
        "memory.min" => "MemoryMin",
        "memory.low" => "MemoryLow",
        "memory.high" => "MemoryHigh",
        "memory.max" => "MemoryMax",
        "memory.swap.max" => "MemorySwapMax",
        "pids.max" => "TasksMax",
        _ => return Ok(()),
    };
    list.number(name, number(value).ok_or_else(fault)?);
    Ok(())
}

/// A list such as `0-3,7` as systemd's mask: bit n of byte n / 8.
fn bits(set: &str) -> Option<Vec<u8>> {
    /// The kernel's largest number of CPUs is 8192.
    const LAST: usize = 8191;
    let mut mask = Vec::new();
    for range in set.split(',').map(str::trim).filter(|range| !range.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if first > last || last > LAST {
            return None;
        }
        mask.resize(mask.len().max(last / 8 + 1), 0);
        (first..=last).for_each(|bit| mask[bit / 8] |= 1 << (bit % 8));
    }
    Some(mask)
}

/// The device rules, as far as systemd can say them: it must not deny what they allow, and what it allows beyond them the
/// runtime's own program denies. `names` is `/proc/devices`.
pub(super) fn devices(rules: &[Rule], names: &str) -> Vec<Property> {
    let mut policy = "auto";
    let mut allowed: Vec<(String, String)> = Vec::new();
    if let Ok(exceptions) = devices::exceptions(rules)
        && !exceptions.allow
    {
        policy = "strict";
        for rule in &exceptions.rules {
            match device(rule, names) {
                Device::Node(node) => allowed.push((node, rule.letters())),
                Device::None => {}
                Device::Unspeakable => {
                    policy = "auto";
                    allowed.clear();
                    break;
                }
            }
        }
    }
    let mut list = List::default();
    list.push("DevicePolicy", policy);
    list.push("DeviceAllow", allowed);
    list.0
}

enum Device {
    Node(String),
    /// No driver of this host has the number.
    None,
    Unspeakable,
}

fn device(rule: &Rule, names: &str) -> Device {
    let (kind, section) = match rule.kind {
        Some(Kind::Char) => ("char", "Character devices:"),
        Some(Kind::Block) => ("block", "Block devices:"),
        None => return Device::Unspeakable,
    };
    match (rule.major, rule.minor) {
        (None, None) => Device::Node(format!("{kind}-*")),
        (Some(major), Some(minor)) => Device::Node(format!("/dev/{kind}/{major}:{minor}")),
        (None, Some(_)) => Device::Unspeakable,
        (Some(major), None) => {
            let lines = names.lines().skip_while(|line| *line != section).skip(1).take_while(|line| !line.is_empty());
            let mut drivers = lines.filter_map(|line| line.trim().split_once(' '));
            match drivers.find(|(number, _)| number.parse() == Ok(major)) {
                Some((_, name)) => Device::Node(format!("{kind}-{name}")),
                None => Device::None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(resources: serde_json::Value, version: Version) -> Vec<Property> {
        limits(&serde_json::from_value(resources).unwrap(), version, true).unwrap()
    }

    fn expected(list: &[(&str, u64)]) -> Vec<Property> {
        list.iter().map(|(name, value)| ((*name).to_owned(), Value::U64(*value))).collect()
    }

    #[test]
    fn fields_have_the_names_of_their_version() {
        let resources = serde_json::json!({
            "memory": {"limit": 100, "swap": 150, "reservation": 80}, "cpu": {"shares": 1024, "quota": 5000, "period": 10000},
            "pids": {"limit": 7}, "blockIO": {"weight": 500}
        });
        assert_eq!(
            of(resources.clone(), Version::V2),
            expected(&[
                ("MemoryMax", 100),
                ("MemorySwapMax", 50),
                ("MemoryLow", 80),
                ("CPUWeight", 100),
                ("CPUQuotaPeriodUSec", 10_000),
                ("CPUQuotaPerSecUSec", 500_000),
                ("TasksMax", 7),
                ("IOWeight", 4950),
            ])
        );
        assert_eq!(
            of(resources, Version::V1),
            expected(&[
                ("MemoryLimit", 100),
                ("CPUShares", 1024),
                ("CPUQuotaPeriodUSec", 10_000),
                ("CPUQuotaPerSecUSec", 500_000),
                ("TasksMax", 7),
                ("BlockIOWeight", 500),
            ])
        );
    }

    #[test]
    fn no_limit_is_infinity_and_a_quota_is_rounded_up_to_a_percent() {
        let none = serde_json::json!({"memory": {"limit": -1}, "cpu": {"quota": -1}, "pids": {"limit": -1}});
        let names = ["MemoryMax", "MemorySwapMax", "CPUQuotaPerSecUSec", "TasksMax"].map(|name| (name, INFINITY));
        assert_eq!(of(none, Version::V2), expected(&names));
        let odd = serde_json::json!({"cpu": {"quota": 12345}});
        assert_eq!(of(odd, Version::V2), expected(&[("CPUQuotaPerSecUSec", 130_000)]));
    }

    #[test]
    fn an_idle_group_has_the_weight_that_systemd_knows_it_by() {
        let idle = serde_json::json!({"cpu": {"idle": 1, "shares": 1024}});
        assert_eq!(of(idle.clone(), Version::V2), expected(&[("CPUWeight", 0)]));
        assert_eq!(limits(&serde_json::from_value(idle).unwrap(), Version::V2, false).unwrap(), []);
    }

    #[test]
    fn files_of_v2_have_properties_too() {
        let unified = serde_json::json!({"unified": {
            "memory.high": "1000", "memory.max": "max", "cpu.max": "20000 50000", "cpuset.cpus": "0-1,9", "io.max": "8:0 rbps=1",
            "io.weight": "default 5", "hugetlb.2MB.max": "0"
        }});
        let mut list = expected(&[("CPUQuotaPeriodUSec", 50_000), ("CPUQuotaPerSecUSec", 400_000)]);
        list.push(("AllowedCPUs".to_owned(), Value::from(vec![3_u8, 2])));
        list.extend(expected(&[("MemoryHigh", 1000), ("MemoryMax", INFINITY)]));
        assert_eq!(of(unified, Version::V2), list);
        let wrong = serde_json::json!({"unified": {"pids.max": "many"}});
        let error = limits(&serde_json::from_value(wrong).unwrap(), Version::V2, true).unwrap_err().to_string();
        assert!(error.starts_with("$.linux.resources.unified.pids.max: "), "{error}");
    }

    #[test]
    fn masks() {
        assert_eq!(bits("0"), Some(vec![1]));
        assert_eq!(bits("1-2,15"), Some(vec![6, 0x80]));
        assert!(["x", "3-1", "-1", "0-", "9000"].into_iter().all(|set| bits(set).is_none()));
    }

    #[test]
    fn device_rules_that_systemd_can_say_and_others() {
        let names = "Character devices:\n  1 mem\n136 pts\n\nBlock devices:\n  8 sd\n";
        let rule = |major, minor| Rule { allow: true, kind: Some(Kind::Char), major, minor, access: 6 };
        fn value(list: &[(&'static str, &'static str)]) -> Value<'static> {
            Value::from(list.to_vec())
        }
        let list =
            devices(&[rule(Some(1), Some(3)), rule(Some(136), None), rule(Some(77), None), rule(None, None)], names);
        assert_eq!(list[0].1, Value::from("strict"));
        assert_eq!(list[1].1, value(&[("/dev/char/1:3", "rw"), ("char-pts", "rw"), ("char-*", "rw")]));
        let list = devices(&[rule(None, Some(3))], names);
        assert_eq!((&list[0].1, &list[1].1), (&Value::from("auto"), &value(&[])));
        let everything = Rule { allow: true, kind: None, major: None, minor: None, access: 7 };
        assert_eq!(devices(&[everything], names)[0].1, Value::from("auto"));
    }
}
