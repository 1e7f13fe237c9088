//! The counters of v2 (kernel: `admin-guide/cgroup-v2`), told in v1's terms as runc tells them.

use super::super::file::{Dir, keyed};
use super::super::v2::V2;
use super::{Blkio, BlkioEntry, Counters, CpuUsage, Cpuset, Hugetlb, Memory, MemoryEntry, Throttling};
use crate::error::Result;

/// Nanoseconds of a microsecond.
const MICRO: u64 = 1000;

impl Counters for V2 {
    fn cpu_usage(&self, dir: &Dir) -> Result<CpuUsage> {
        let text = dir.text("cpu.stat")?;
        let time = |key| keyed(&text, key).unwrap_or(0) * MICRO;
        Ok(CpuUsage {
            total: time("usage_usec"),
            user: time("user_usec"),
            kernel: time("system_usec"),
            ..CpuUsage::default()
        })
    }

    fn throttling(&self, dir: &Dir) -> Result<Throttling> {
        let text = dir.text("cpu.stat")?;
        let number = |key| keyed(&text, key).unwrap_or(0);
        Ok(Throttling {
            periods: number("nr_periods"),
            throttled_periods: number("nr_throttled"),
            throttled_time: number("throttled_usec") * MICRO,
        })
    }

    fn memory_stats(&self, dir: &Dir) -> Result<Memory> {
        let raw = dir.table("memory.stat")?;
        let usage = MemoryEntry {
            limit: dir.count("memory.max")?,
            usage: dir.count("memory.current")?,
            max: dir.count("memory.peak")?,
            failcnt: keyed(&dir.text("memory.events")?, "max").unwrap_or(0),
        };
        // v1 counts memory and swap together; callers that know only that must read the same here.
        let swap = MemoryEntry {
            limit: dir.count("memory.swap.max")?.saturating_add(usage.limit),
            usage: dir.count("memory.swap.current")?.saturating_add(usage.usage),
            max: 0,
            failcnt: keyed(&dir.text("memory.swap.events")?, "max").unwrap_or(0),
        };
        Ok(Memory { cache: raw.get("file").copied().unwrap_or(0), usage, swap, raw, ..Memory::default() })
    }

    fn blkio_stats(&self, dir: &Dir) -> Result<Blkio> {
        let mut blkio = Blkio::default();
        for line in dir.text("io.stat")?.lines() {
            let mut words = line.split(' ');
            let Some((major, minor)) = words.next().and_then(|device| device.split_once(':')) else { continue };
            let (Ok(major), Ok(minor)) = (major.parse(), minor.parse()) else { continue };
            for (key, value) in words.filter_map(|word| word.split_once('=')) {
                let (op, list) = match key {
                    "rbytes" => ("Read", &mut blkio.io_service_bytes_recursive),
                    "wbytes" => ("Write", &mut blkio.io_service_bytes_recursive),
                    "dbytes" => ("Discard", &mut blkio.io_service_bytes_recursive),
                    "rios" => ("Read", &mut blkio.io_serviced_recursive),
                    "wios" => ("Write", &mut blkio.io_serviced_recursive),
                    "dios" => ("Discard", &mut blkio.io_serviced_recursive),
                    _ => continue,
                };
                let Ok(value) = value.parse() else { continue };
                list.push(BlkioEntry { major, minor, op: op.to_owned(), value });
            }
        }
        Ok(blkio)
    }

    fn hugetlb_stats(&self, dir: &Dir, size: &str) -> Result<Option<Hugetlb>> {
        if !dir.has(&format!("hugetlb.{size}.current")) {
            return Ok(None);
        }
        Ok(Some(Hugetlb {
            usage: dir.count(&format!("hugetlb.{size}.current"))?,
            max: 0,
            failcnt: keyed(&dir.text(&format!("hugetlb.{size}.events"))?, "max").unwrap_or(0),
        }))
    }

    fn cpuset_stats(&self, _: &Dir) -> Result<Cpuset> {
        Ok(Cpuset::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(files: &[(&str, &str)]) -> (tempfile::TempDir, Dir) {
        let temp = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(temp.path().join(name), text).unwrap();
        }
        let dir = Dir::new(temp.path());
        (temp, dir)
    }

    #[test]
    fn cpu_time_is_told_in_nanoseconds() {
        let (_temp, dir) = files(&[(
            "cpu.stat",
            "usage_usec 30\nuser_usec 20\nsystem_usec 10\nnr_periods 4\nnr_throttled 2\nthrottled_usec 7\n",
        )]);
        let usage = V2.cpu_usage(&dir).unwrap();
        assert_eq!((usage.total, usage.user, usage.kernel), (30_000, 20_000, 10_000));
        let throttling = V2.throttling(&dir).unwrap();
        assert_eq!((throttling.periods, throttling.throttled_periods, throttling.throttled_time), (4, 2, 7_000));
    }

    #[test]
    fn swap_is_told_as_the_sum() {
        let (_temp, dir) = files(&[
            ("memory.stat", "anon 5\nfile 6\n"),
            ("memory.max", "100\n"),
            ("memory.current", "40\n"),
            ("memory.peak", "70\n"),
            ("memory.events", "low 0\nhigh 0\nmax 3\noom 1\n"),
            ("memory.swap.max", "max\n"),
            ("memory.swap.current", "2\n"),
        ]);
        let memory = V2.memory_stats(&dir).unwrap();
        assert_eq!((memory.cache, memory.raw["anon"]), (6, 5));
        let MemoryEntry { limit, usage, max, failcnt } = memory.usage;
        assert_eq!((limit, usage, max, failcnt), (100, 40, 70, 3));
        assert_eq!((memory.swap.limit, memory.swap.usage), (u64::MAX, 42));
    }

    #[test]
    fn block_io_is_split_by_operation() {
        let (_temp, dir) = files(&[("io.stat", "8:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0\n")]);
        let blkio = V2.blkio_stats(&dir).unwrap();
        let first = &blkio.io_service_bytes_recursive[0];
        assert_eq!((first.major, first.minor, first.op.as_str(), first.value), (8, 0, "Read", 4096));
        assert_eq!(blkio.io_serviced_recursive.len(), 3);
    }

    #[test]
    fn what_is_not_there_counts_nothing() {
        let (_temp, dir) = files(&[]);
        assert_eq!(V2.cpu_usage(&dir).unwrap().total, 0);
        assert_eq!(V2.memory_stats(&dir).unwrap().usage.usage, 0);
        assert!(V2.blkio_stats(&dir).unwrap().io_serviced_recursive.is_empty());
    }
}
