//! The shape of the statistics: that of runc's package `types`, version 1.1; `psi` is as runc 1.2 has it. Fields that runc
//! leaves out when they are zero are left out here.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

/// The counters of one container.
#[derive(Debug, Clone, Default, Serialize, JsonSchema)]
pub struct Stats {
    /// CPU time, in nanoseconds.
    pub cpu: Cpu,
    /// Which CPUs and memory nodes.
    pub cpuset: Cpuset,
    /// Memory, in bytes.
    pub memory: Memory,
    /// The number of tasks.
    pub pids: Pids,
    /// Block I/O.
    pub blkio: Blkio,
    /// Huge pages by size, such as `2MB`.
    pub hugetlb: BTreeMap<String, Hugetlb>,
    /// Cache and memory bandwidth by resctrl.
    pub intel_rdt: IntelRdt,
    /// Interfaces of the network namespace, `lo` aside; nothing where that is the host's.
    pub network_interfaces: Option<Vec<NetworkInterface>>,
}

/// CPU time and pressure.
#[derive(Debug, Clone, Default, Serialize, JsonSchema)]
pub struct Cpu {
    /// Time that was used.
    pub usage: CpuUsage,
    /// How often the quota held the container back.
    pub throttling: Throttling,
    /// Pressure stall information, where the kernel keeps it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Psi>,
}

/// CPU time in nanoseconds.
#[derive(Debug, Clone, Default, Serialize, JsonSchema)]
pub struct CpuUsage {
    /// Of all CPUs.
    #[serde(skip_serializing_if = "is_zero")]
    pub total: u64,
    /// By CPU.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu: Vec<u64>,
    /// In the kernel, by CPU.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu_kernel: Vec<u64>,
    /// In programs, by CPU.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu_user: Vec<u64>,
    /// In the kernel.
    pub kernel: u64,
    /// In programs.
    pub user: u64,
}

/// The CPU quota at work.
#[derive(Debug, Clone, Default, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Throttling {
    /// Periods that have passed.
    #[serde(skip_serializing_if = "is_zero")]
    pub periods: u64,
    /// Periods in which the quota was used up.
    #[serde(skip_serializing_if = "is_zero")]
    pub throttled_periods: u64,
    /// Time for which the container was held back, in nanoseconds.
    #[serde(skip_serializing_if = "is_zero")]
    pub throttled_time: u64,
}

/// Files of the v1 controller `cpuset`.
#[derive(Debug, Clone, Default, Serialize, JsonSchema)]
pub struct Cpuset {
    /// The CPUs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cpus: Vec<u32>,
    /// `cpuset.cpu_exclusive`.
    pub cpu_exclusive: u64,
    /// The memory nodes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mems: Vec<u32>,
    /// `cpuset.mem_hardwall`.
    pub mem_hardwall: u64,
    /// `cpuset.mem_exclusive`.
    pub mem_exclusive: u64,
    /// `cpuset.memory_migrate`.
    pub memory_migrate: u64,
    /// `cpuset.memory_spread_page`.
    pub memory_spread_page: u64,
    /// `cpuset.memory_spread_slab`.
    pub memory_spread_slab: u64,
    /// `cpuset.memory_pressure`.
    pub memory_pressure: u64,
    /// `cpuset.sched_load_balance`.
    pub sched_load_balance: u64,
    /// `cpuset.sched_relax_domain_level`.
    pub sched_relax_domain_level: i64,
}

/// Memory in bytes.
#[derive(Debug, Clone, Default, Serialize, JsonSchema)]
pub struct Memory {
    /// The page cache.
    #[serde(skip_serializing_if = "is_zero")]
    pub cache: u64,
    /// Memory.
    pub usage: MemoryEntry,
    /// Memory and swap together, on v2 too.
    pub swap: MemoryEntry,
    /// Memory of the kernel; v1 only.
    pub kernel: MemoryEntry,
    /// TCP buffers; v1 only.
    #[serde(rename = "kernelTCP")]
    pub kernel_tcp: MemoryEntry,
    /// `memory.stat`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub raw: BTreeMap<String, u64>,
    /// Pressure stall information, where the kernel keeps it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Psi>,
}

/// One kind of memory.
#[derive(Debug, Clone, Default, Serialize, JsonSchema)]
pub struct MemoryEntry {
    /// The limit; the largest number where there is none.
    pub limit: u64,
    /// What is used now.
    #[serde(skip_serializing_if = "is_zero")]
    pub usage: u64,
    /// The most that was used.
    #[serde(skip_serializing_if = "is_zero")]
    pub max: u64,
    /// How often the limit was hit.
    pub failcnt: u64,
}

/// The number of tasks.
#[derive(Debug, Clone, Default, Serialize, JsonSchema)]
pub struct Pids {
    /// Now.
    #[serde(skip_serializing_if = "is_zero")]
    pub current: u64,
    /// The limit, where there is one.
    #[serde(skip_serializing_if = "is_zero")]
    pub limit: u64,
}

/// Block I/O, by device and operation.
#[derive(Debug, Clone, Default, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Blkio {
    /// Bytes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_service_bytes_recursive: Vec<BlkioEntry>,
    /// Operations.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_serviced_recursive: Vec<BlkioEntry>,
    /// Operations that wait.
    #[serde(rename = "ioQueueRecursive", skip_serializing_if = "Vec::is_empty")]
    pub io_queued_recursive: Vec<BlkioEntry>,
    /// Nanoseconds in the device.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_service_time_recursive: Vec<BlkioEntry>,
    /// Nanoseconds in the queue.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_wait_time_recursive: Vec<BlkioEntry>,
    /// Operations that were merged.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_merged_recursive: Vec<BlkioEntry>,
    /// Milliseconds of disk time.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_time_recursive: Vec<BlkioEntry>,
    /// Sectors.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sectors_recursive: Vec<BlkioEntry>,
    /// Pressure stall information, where the kernel keeps it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Psi>,
}

/// One number of one device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct BlkioEntry {
    /// The device.
    #[serde(skip_serializing_if = "is_zero")]
    pub major: u64,
    /// The device.
    #[serde(skip_serializing_if = "is_zero")]
    pub minor: u64,
    /// `Read`, `Write` and the like.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub op: String,
    /// The number.
    #[serde(skip_serializing_if = "is_zero")]
    pub value: u64,
}

/// Huge pages of one size, in bytes.
#[derive(Debug, Clone, Default, Serialize, JsonSchema)]
pub struct Hugetlb {
    /// Now.
    #[serde(skip_serializing_if = "is_zero")]
    pub usage: u64,
    /// The most that was used; v1 only.
    #[serde(skip_serializing_if = "is_zero")]
    pub max: u64,
    /// How often the limit was hit.
    pub failcnt: u64,
}

/// The schemata of the container's class of service.
#[derive(Debug, Clone, Default, Serialize, JsonSchema)]
pub struct IntelRdt {
    /// Lines of the L3 cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub l3_cache_schema: Option<String>,
    /// Lines of the memory bandwidth.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mem_bw_schema: Option<String>,
}

/// Counters of one interface. The names are those of runc, which gives no others.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
#[expect(missing_docs, reason = "the columns of /proc/net/dev")]
pub struct NetworkInterface {
    pub name: String,
    pub rx_bytes: u64,
    pub rx_packets: u64,
    pub rx_errors: u64,
    pub rx_dropped: u64,
    pub tx_bytes: u64,
    pub tx_packets: u64,
    pub tx_errors: u64,
    pub tx_dropped: u64,
}

/// Pressure stall information (kernel: `accounting/psi`).
#[derive(Debug, Clone, Default, PartialEq, Serialize, JsonSchema)]
pub struct Psi {
    /// Time in which some task waited.
    pub some: PsiData,
    /// Time in which all did.
    pub full: PsiData,
}

impl Psi {
    /// Reads a pressure file's text; what it lacks is 0.
    pub fn parse(text: &str) -> Psi {
        let mut psi = Psi::default();
        for line in text.lines() {
            let mut words = line.split(' ');
            let data = match words.next() {
                Some("some") => &mut psi.some,
                Some("full") => &mut psi.full,
                _ => continue,
            };
            for (key, value) in words.filter_map(|word| word.split_once('=')) {
                match key {
                    "avg10" => data.avg10 = value.parse().unwrap_or_default(),
                    "avg60" => data.avg60 = value.parse().unwrap_or_default(),
                    "avg300" => data.avg300 = value.parse().unwrap_or_default(),
                    "total" => data.total = value.parse().unwrap_or_default(),
                    _ => {}
                }
            }
        }
        psi
    }
}

/// Shares of the last 10, 60 and 300 seconds, in percent, and the total in microseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, JsonSchema)]
#[expect(missing_docs, reason = "the words of the kernel's file")]
pub struct PsiData {
    pub avg10: f64,
    pub avg60: f64,
    pub avg300: f64,
    pub total: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}
