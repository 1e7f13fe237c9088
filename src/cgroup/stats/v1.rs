//! The counters of v1 (kernel: `admin-guide/cgroup-v1/`).

use super::super::file::{Dir, keyed};
use super::super::v1::V1;
use super::{Blkio, BlkioEntry, Counters, CpuUsage, Cpuset, Hugetlb, Memory, MemoryEntry, Throttling};
use crate::error::Result;

/// Nanoseconds of one tick of `cpuacct.stat`: USER_HZ is 100 on every architecture that Linux runs containers on.
const TICK: u64 = 10_000_000;

impl Counters for V1 {
    fn cpu_usage(&self, dir: &Dir) -> Result<CpuUsage> {
        let ticks = dir.table("cpuacct.stat")?;
        let ticks = |key: &str| ticks.get(key).copied().unwrap_or(0) * TICK;
        let percpu = dir.text("cpuacct.usage_percpu")?;
        let mut usage = CpuUsage {
            total: dir.count("cpuacct.usage")?,
            percpu: percpu.split_whitespace().filter_map(|word| word.parse().ok()).collect(),
            user: ticks("user"),
            kernel: ticks("system"),
            ..CpuUsage::default()
        };
        for line in dir.text("cpuacct.usage_all")?.lines().skip(1) {
            let mut words = line.split(' ').skip(1).filter_map(|word| word.parse().ok());
            if let (Some(user), Some(kernel)) = (words.next(), words.next()) {
                usage.percpu_user.push(user);
                usage.percpu_kernel.push(kernel);
            }
        }
        Ok(usage)
    }

    fn throttling(&self, dir: &Dir) -> Result<Throttling> {
        let text = dir.text("cpu.stat")?;
        let number = |key| keyed(&text, key).unwrap_or(0);
        Ok(Throttling {
            periods: number("nr_periods"),
            throttled_periods: number("nr_throttled"),
            throttled_time: number("throttled_time"),
        })
    }

    fn memory_stats(&self, dir: &Dir) -> Result<Memory> {
        let raw = dir.table("memory.stat")?;
        let entry = |prefix: &str| {
            let number = |name| dir.count(&format!("{prefix}.{name}"));
            Ok::<_, crate::Error>(MemoryEntry {
                limit: number("limit_in_bytes")?,
                usage: number("usage_in_bytes")?,
                max: number("max_usage_in_bytes")?,
                failcnt: number("failcnt")?,
            })
        };
        Ok(Memory {
            cache: raw.get("cache").copied().unwrap_or(0),
            usage: entry("memory")?,
            swap: entry("memory.memsw")?,
            kernel: entry("memory.kmem")?,
            kernel_tcp: entry("memory.kmem.tcp")?,
            raw,
            psi: None,
        })
    }

    /// The counters of the I/O scheduler that keeps them, else of the throttling layer, which always does.
    fn blkio_stats(&self, dir: &Dir) -> Result<Blkio> {
        let read = |name: &str| -> Result<Vec<BlkioEntry>> {
            for prefix in ["blkio.bfq", "blkio", "blkio.throttle"] {
                let entries = parse(&dir.text(&format!("{prefix}.{name}_recursive"))?);
                if !entries.is_empty() {
                    return Ok(entries);
                }
            }
            Ok(Vec::new())
        };
        Ok(Blkio {
            io_service_bytes_recursive: read("io_service_bytes")?,
            io_serviced_recursive: read("io_serviced")?,
            io_queued_recursive: read("io_queued")?,
            io_service_time_recursive: read("io_service_time")?,
            io_wait_time_recursive: read("io_wait_time")?,
            io_merged_recursive: read("io_merged")?,
            io_time_recursive: read("time")?,
            sectors_recursive: read("sectors")?,
            psi: None,
        })
    }

    fn hugetlb_stats(&self, dir: &Dir, size: &str) -> Result<Option<Hugetlb>> {
        if !dir.has(&format!("hugetlb.{size}.usage_in_bytes")) {
            return Ok(None);
        }
        let number = |name| dir.count(&format!("hugetlb.{size}.{name}"));
        let (usage, max, failcnt) = (number("usage_in_bytes")?, number("max_usage_in_bytes")?, number("failcnt")?);
        Ok(Some(Hugetlb { usage, max, failcnt }))
    }

    fn cpuset_stats(&self, dir: &Dir) -> Result<Cpuset> {
        let number = |name| dir.count(&format!("cpuset.{name}"));
        Ok(Cpuset {
            cpus: list(&dir.text("cpuset.cpus")?),
            cpu_exclusive: number("cpu_exclusive")?,
            mems: list(&dir.text("cpuset.mems")?),
            mem_hardwall: number("mem_hardwall")?,
            mem_exclusive: number("mem_exclusive")?,
            memory_migrate: number("memory_migrate")?,
            memory_spread_page: number("memory_spread_page")?,
            memory_spread_slab: number("memory_spread_slab")?,
            memory_pressure: number("memory_pressure")?,
            sched_load_balance: number("sched_load_balance")?,
            sched_relax_domain_level: dir.text("cpuset.sched_relax_domain_level")?.trim().parse().unwrap_or(0),
        })
    }
}

/// Lines `8:0 Read 4096` or `8:0 12`; the sum line `Total 4096` names no device.
fn parse(text: &str) -> Vec<BlkioEntry> {
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        let (major, minor) = words.next()?.split_once(':')?;
        let (op, value) = match (words.next()?, words.next()) {
            (op, Some(value)) => (op.to_owned(), value),
            (value, None) => (String::new(), value),
        };
        Some(BlkioEntry { major: major.parse().ok()?, minor: minor.parse().ok()?, op, value: value.parse().ok()? })
    };
    text.lines().filter_map(line).collect()
}

/// `0-2,7` as numbers.
fn list(text: &str) -> Vec<u32> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse().ok()?..=last.parse().ok()?)
    };
    text.trim().split(',').filter_map(range).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_ranges_and_numbers() {
        assert_eq!(list("0-2,7\n"), [0, 1, 2, 7]);
        assert!(list("\n").is_empty());
    }

    #[test]
    fn block_io_is_by_device_and_operation() {
        let entry = |op: &str, value| BlkioEntry { major: 8, minor: 16, op: op.to_owned(), value };
        assert_eq!(parse("8:16 Read 4096\n8:16 Write 0\nTotal 4096\n"), [entry("Read", 4096), entry("Write", 0)]);
        assert_eq!(parse("8:16 12\n"), [entry("", 12)]);
    }
}
