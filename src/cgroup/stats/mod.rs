//! What a container has used, in the shape that `runc events` prints (its package `types`, version 1.1) and
//! containerd and its callers read.

mod types;
mod v1;
mod v2;

use std::collections::BTreeMap;

use super::backend::backend;
use super::create::Cgroup;
use super::file::Dir;
use super::layout::Controller;
use super::plan::Directory;
use crate::error::Result;
use crate::sys::Errno;
pub use types::*;

/// What the two kernel interfaces count. A file that is not there counts nothing.
pub(super) trait Counters {
    /// CPU time, from the directory of `cpuacct` (which on v2 is that of `cpu`).
    fn cpu_usage(&self, dir: &Dir) -> Result<CpuUsage>;
    /// The quota, from the directory of `cpu`.
    fn throttling(&self, dir: &Dir) -> Result<Throttling>;
    /// Memory.
    fn memory_stats(&self, dir: &Dir) -> Result<Memory>;
    /// Block I/O.
    fn blkio_stats(&self, dir: &Dir) -> Result<Blkio>;
    /// Huge pages of one size, where they are counted.
    fn hugetlb_stats(&self, dir: &Dir, size: &str) -> Result<Option<Hugetlb>>;
    /// The CPUs and memory nodes; v1 only, as with runc.
    fn cpuset_stats(&self, dir: &Dir) -> Result<Cpuset>;

    /// The number of tasks: the same files in both.
    fn pids_stats(&self, dir: &Dir) -> Result<Pids> {
        let limit = dir.count("pids.max")?;
        Ok(Pids { current: dir.count("pids.current")?, limit: if limit == u64::MAX { 0 } else { limit } })
    }
}

impl Cgroup {
    /// What its processes have used.
    ///
    /// # Errors
    /// As `read(2)`; a controller or a counter that this host lacks is none.
    pub fn stats(&self) -> Result<Stats> {
        let mut stats = Stats::default();
        let find = |controller| self.plan.directory(controller);
        let at = |directory: &Directory| (backend(directory.version), self.plan.limits_dir(directory));
        if let Some((backend, dir)) = find(Controller::Cpuacct).or_else(|| find(Controller::Cpu)).map(at) {
            stats.cpu.usage = backend.cpu_usage(&dir)?;
        }
        if let Some((backend, dir)) = find(Controller::Cpu).map(at) {
            stats.cpu.throttling = backend.throttling(&dir)?;
        }
        if let Some((backend, dir)) = find(Controller::Cpuset).map(at) {
            stats.cpuset = backend.cpuset_stats(&dir)?;
        }
        if let Some((backend, dir)) = find(Controller::Memory).map(at) {
            stats.memory = backend.memory_stats(&dir)?;
        }
        if let Some((backend, dir)) = find(Controller::Pids).map(at) {
            stats.pids = backend.pids_stats(&dir)?;
        }
        if let Some((backend, dir)) = find(Controller::Io).map(at) {
            stats.blkio = backend.blkio_stats(&dir)?;
        }
        if let Some((backend, dir)) = find(Controller::Hugetlb).map(at) {
            for size in page_sizes() {
                if let Some(pages) = backend.hugetlb_stats(&dir, &size)? {
                    stats.hugetlb.insert(size, pages);
                }
            }
        }
        if let Some(unified) = self.plan.unified() {
            let dir = self.plan.limits_dir(unified);
            stats.cpu.psi = psi(&dir, "cpu.pressure")?;
            stats.memory.psi = psi(&dir, "memory.pressure")?;
            stats.blkio.psi = psi(&dir, "io.pressure")?;
        }
        Ok(stats)
    }
}

impl Dir {
    /// A file's text; empty where there is no such file.
    fn text(&self, name: &str) -> Result<String> {
        match self.read(name) {
            // ENOTSUP is what the kernel answers where it was started without the accounting.
            Err(error) if matches!(error.errno(), Some(Errno::ENOENT | Errno::ENODEV | Errno::EOPNOTSUPP)) => {
                Ok(String::new())
            }
            other => other,
        }
    }

    /// A file's number; 0 where there is no such file.
    fn count(&self, name: &str) -> Result<u64> {
        Ok(super::file::parse_number(self.text(name)?.trim()).unwrap_or(0))
    }

    /// A file of `key value` lines.
    fn table(&self, name: &str) -> Result<BTreeMap<String, u64>> {
        let text = self.text(name)?;
        let line = |line: &str| {
            let (key, value) = line.split_once(' ')?;
            Some((key.to_owned(), super::file::parse_number(value.trim())?))
        };
        Ok(text.lines().filter_map(line).collect())
    }
}

/// Reads a pressure file, where there is one.
fn psi(dir: &Dir, file: &str) -> Result<Option<Psi>> {
    let text = dir.text(file)?;
    Ok((!text.is_empty()).then(|| Psi::parse(&text)))
}

/// The huge page sizes of this kernel, by the names of its cgroup files.
fn page_sizes() -> Vec<String> {
    let entries = std::fs::read_dir("/sys/kernel/mm/hugepages").into_iter().flatten().flatten();
    let kib = entries.filter_map(|entry| {
        entry.file_name().to_str()?.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse::<u64>().ok()
    });
    kib.map(|kib| match kib {
        kib if kib >= 1 << 20 => format!("{}GB", kib >> 20),
        kib if kib >= 1 << 10 => format!("{}MB", kib >> 10),
        kib => format!("{kib}KB"),
    })
    .collect()
}

/// The interfaces in the text of `/proc/<pid>/net/dev`, but for the loopback.
pub fn network_interfaces(text: &str) -> Vec<NetworkInterface> {
    let line = |line: &str| {
        let (name, counters) = line.split_once(':')?;
        let name = name.trim();
        let counters: Vec<u64> = counters.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let &[rx_bytes, rx_packets, rx_errors, rx_dropped, _, _, _, _, tx_bytes, tx_packets, tx_errors, tx_dropped, ..] =
            &counters[..]
        else {
            return None;
        };
        (name != "lo").then(|| NetworkInterface {
            name: name.to_owned(),
            rx_bytes,
            rx_packets,
            rx_errors,
            rx_dropped,
            tx_bytes,
            tx_packets,
            tx_errors,
            tx_dropped,
        })
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_is_read_by_its_words() {
        let psi = Psi::parse(
            "some avg10=1.50 avg60=0.20 avg300=0.00 total=51024\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n",
        );
        assert_eq!((psi.some.avg10, psi.some.avg60, psi.some.total, psi.full.total), (1.5, 0.2, 51_024, 7));
    }

    #[test]
    fn interfaces_are_the_kernels_columns_without_the_loopback() {
        let text = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:     100       1    0    0    0     0          0         0      100       1    0    0    0     0       0          0
  eth0:    1000      10    1    2    0     0          0         0     2000      20    3    4    0     0       0          0
";
        let [eth0] = &network_interfaces(text)[..] else { panic!() };
        assert_eq!(eth0.name, "eth0");
        let rx = (eth0.rx_bytes, eth0.rx_packets, eth0.rx_errors, eth0.rx_dropped);
        let tx = (eth0.tx_bytes, eth0.tx_packets, eth0.tx_errors, eth0.tx_dropped);
        assert_eq!((rx, tx), ((1000, 10, 1, 2), (2000, 20, 3, 4)));
    }
}
