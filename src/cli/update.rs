//! `rustbox update`.

use std::os::fd::AsFd;
use std::path::PathBuf;

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxPids, LinuxResources};

use crate::cli::Global;
use crate::cli::units::{number, size};
use crate::container::state::{Status, read_spec, status};
use crate::error::{Context, Error, Result};
use crate::init::intel_rdt;
use crate::spec;

/// Change the resource limits of a container
///
/// What is not given stays as it is, and so does what is given as 0. Where one limit cannot be had, those already
/// written are put back.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The limits, as linux.resources of config.json; `-` reads them from stdin. Other limits are then ignored
    #[arg(short, long, value_name = "FILE")]
    pub resources: Option<PathBuf>,
    /// The limits as options.
    #[command(flatten)]
    limits: Limits,
    /// Schema of the L3 cache (Intel RDT), such as L3:0=ff
    #[arg(long, value_name = "SCHEMA")]
    l3_cache_schema: Option<String>,
    /// Schema of the memory bandwidth (Intel RDT), such as MB:0=50
    #[arg(long, value_name = "SCHEMA")]
    mem_bw_schema: Option<String>,
    /// Name of the container
    #[arg(value_name = "ID")]
    pub id: String,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Limits")]
struct Limits {
    /// Weight for block I/O, 10 to 1000
    #[arg(long, value_name = "WEIGHT")]
    blkio_weight: Option<String>,
    /// Period of the CPU quota, in microseconds
    #[arg(long, value_name = "US")]
    cpu_period: Option<String>,
    /// CPU time in a period, in microseconds; -1 is no limit
    #[arg(long, value_name = "US", allow_hyphen_values = true)]
    cpu_quota: Option<String>,
    /// CPU time that may be saved up beyond the quota, in microseconds
    #[arg(long, value_name = "US")]
    cpu_burst: Option<String>,
    /// Relative share of the CPU
    #[arg(long, value_name = "SHARES")]
    cpu_share: Option<String>,
    /// Whether the container only gets the CPU that nobody else wants, 0 or 1
    #[arg(long, value_name = "WHETHER")]
    cpu_idle: Option<String>,
    /// Period of the real-time quota, in microseconds
    #[arg(long, value_name = "US")]
    cpu_rt_period: Option<String>,
    /// Real-time CPU time in a period, in microseconds
    #[arg(long, value_name = "US")]
    cpu_rt_runtime: Option<String>,
    /// The CPUs, such as 0-3,5
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    /// The memory nodes
    #[arg(long, value_name = "LIST")]
    cpuset_mems: Option<String>,
    /// Memory, in bytes or with a suffix such as 64m; -1 is no limit
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    memory: Option<String>,
    /// Memory that is left to the container when the host is short of it
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    memory_reservation: Option<String>,
    /// Memory and swap together; -1 is no limit
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    memory_swap: Option<String>,
    /// Memory of the kernel for the container (not limited by kernels from 5.16 on)
    #[arg(long, value_name = "SIZE")]
    kernel_memory: Option<String>,
    /// Memory of TCP buffers
    #[arg(long, value_name = "SIZE")]
    kernel_memory_tcp: Option<String>,
    /// Number of processes and threads; -1 is no limit
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pids_limit: Option<String>,
}

/// Runs `update`.
///
/// # Errors
/// Where the container has ended, or the kernel refuses a limit: then none has changed, or those that have are named.
pub fn main(global: &Global, args: &Args) -> Result<()> {
    let resources = match &args.resources {
        Some(path) => spec::load_resources(path)
            .and_then(|resources| spec::validate_resources(&resources).map(|()| resources))
            .context(|| format!("resources `{}`", path.display()))?,
        None => args.limits.resources()?,
    };
    let (dir, record) = global.open_root()?.look(&args.id)?;
    let (now, _) = status(dir.as_fd(), &record)?;
    if now == Status::Stopped {
        return Err(Error::state(&args.id, "cannot be updated: it is stopped"));
    }
    let schemata: Vec<_> = [&args.l3_cache_schema, &args.mem_bw_schema].into_iter().flatten().collect();
    if schemata.is_empty() {
        return record.cgroup.open().update(&resources);
    }
    let spec = read_spec(dir.as_fd(), &args.id)?;
    let document = spec.linux().as_ref().and_then(|linux| linux.intel_rdt().as_ref());
    let class = intel_rdt::class(&args.id, document)?;
    record.cgroup.open().update(&resources)?;
    schemata.into_iter().try_for_each(|schema| class.set(schema))
}

impl Limits {
    fn resources(&self) -> Result<LinuxResources> {
        let mut cpu = LinuxCpu::default();
        cpu.set_shares(number("cpu-share", &self.cpu_share)?)
            .set_quota(number("cpu-quota", &self.cpu_quota)?)
            .set_period(number("cpu-period", &self.cpu_period)?)
            .set_burst(number("cpu-burst", &self.cpu_burst)?)
            .set_idle(number("cpu-idle", &self.cpu_idle)?)
            .set_realtime_period(number("cpu-rt-period", &self.cpu_rt_period)?)
            .set_realtime_runtime(number("cpu-rt-runtime", &self.cpu_rt_runtime)?)
            .set_cpus(self.cpuset_cpus.clone())
            .set_mems(self.cpuset_mems.clone());
        let mut memory = LinuxMemory::default();
        memory
            .set_limit(size("memory", &self.memory)?)
            .set_reservation(size("memory-reservation", &self.memory_reservation)?)
            .set_swap(size("memory-swap", &self.memory_swap)?)
            .set_kernel_tcp(size("kernel-memory-tcp", &self.kernel_memory_tcp)?);
        #[allow(deprecated)]
        memory.set_kernel(size("kernel-memory", &self.kernel_memory)?);
        let mut resources = LinuxResources::default();
        resources.set_devices(None).set_cpu(Some(cpu)).set_memory(Some(memory));
        if let Some(limit) = number::<i64>("pids-limit", &self.pids_limit)?.filter(|limit| *limit != 0) {
            let mut pids = LinuxPids::default();
            pids.set_limit(limit);
            resources.set_pids(Some(pids));
        }
        if let Some(weight) = number("blkio-weight", &self.blkio_weight)? {
            let mut block_io = LinuxBlockIo::default();
            block_io.set_weight(Some(weight));
            resources.set_block_io(Some(block_io));
        }
        spec::validate_resources(&resources)?;
        Ok(resources)
    }
}
