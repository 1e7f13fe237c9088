//! What is left of the resources that every sandbox needs: disk, inodes, memory, descriptors, pids.
//!
//! Two thresholds each. Below *low* the worker is unhealthy: somebody should look. Below *exhausted* a check quarantines it:
//! sandboxes would fail, or be judged by what the host lacks. Of a disk both a share and an amount must be undercut, so
//! that neither a small nor a large one is condemned for its size.

use std::path::Path;

use schemars::JsonSchema;
use serde::Serialize;

use crate::error::{At, Error, Result};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Below which free amount a resource is low, and exhausted: in per cent of all, and as an amount.
#[derive(Debug, Clone, Copy)]
pub struct Threshold {
    /// What it is for.
    pub resource: &'static str,
    /// Low: per cent and amount, both undercut.
    pub low: (u64, u64),
    /// Exhausted: the same.
    pub exhausted: (u64, u64),
}

/// The thresholds, in the order in which they are printed. Memory is short by its amount alone: a judged run takes 256 MiB
/// by default.
pub const THRESHOLDS: [Threshold; 5] = [
    Threshold { resource: "disk", low: (10, GIB), exhausted: (2, 64 * MIB) },
    Threshold { resource: "inodes", low: (10, 10_000), exhausted: (2, 1000) },
    Threshold { resource: "memory", low: (100, 512 * MIB), exhausted: (100, 64 * MIB) },
    Threshold { resource: "descriptors", low: (20, 10_000), exhausted: (5, 1000) },
    Threshold { resource: "pids", low: (20, 2000), exhausted: (5, 200) },
];

/// How much is left of a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Enough.
    Ok,
    /// Somebody should look.
    Low,
    /// Too little to work with.
    Exhausted,
}

/// One resource as it is now.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Headroom {
    /// `disk`, `inodes`, `memory`, `descriptors` or `pids`.
    pub resource: &'static str,
    /// The directory whose file system it is of; `null` for what is the host's.
    pub of: Option<String>,
    /// How much is left: bytes, or a number.
    pub free: u64,
    /// Of how much.
    pub total: u64,
    /// By the thresholds.
    pub level: Level,
}

impl Headroom {
    fn new(resource: &'static str, of: Option<&Path>, free: u64, total: u64) -> Headroom {
        let of = of.map(|of| of.display().to_string());
        Headroom { resource, of, free, total, level: level(resource, free, total) }
    }

    /// In words: `disk of /run/rustbox: 12 of 64 MiB are free`.
    pub fn words(&self) -> String {
        let of = self.of.as_ref().map(|of| format!(" of `{of}`")).unwrap_or_default();
        let (free, total) = (self.amount(self.free), self.amount(self.total));
        format!("{}{of}: {free} of {total} are free", self.resource)
    }

    fn amount(&self, number: u64) -> String {
        match (self.resource, number) {
            ("disk" | "memory", GIB..) => format!("{:.1} GiB", number as f64 / GIB as f64),
            ("disk" | "memory", MIB..) => format!("{} MiB", number / MIB),
            ("disk" | "memory", _) => format!("{} KiB", number / KIB),
            _ => number.to_string(),
        }
    }
}

fn level(resource: &str, free: u64, total: u64) -> Level {
    let Some(threshold) = THRESHOLDS.iter().find(|it| it.resource == resource) else { return Level::Ok };
    let below =
        |(share, amount): (u64, u64)| free < amount && u128::from(free) * 100 < u128::from(total) * u128::from(share);
    match () {
        () if below(threshold.exhausted) => Level::Exhausted,
        () if below(threshold.low) => Level::Low,
        () => Level::Ok,
    }
}

/// Looks at all of them; the disks are those of these directories, or of the next one above that exists.
///
/// # Errors
/// Where `/proc` or a file system cannot be asked.
pub fn look(directories: &[&Path]) -> Result<Vec<Headroom>> {
    let mut found = Vec::new();
    let mut seen = Vec::new();
    for directory in directories {
        let (place, stat) = file_system(directory)?;
        let device = stat.filesystem_id();
        if seen.contains(&device) {
            continue;
        }
        seen.push(device);
        let unit = stat.fragment_size().max(1);
        found.push(Headroom::new("disk", Some(place), stat.blocks_available() * unit, stat.blocks() * unit));
        // Some file systems make inodes as they go, and say 0.
        if stat.files() > 0 {
            found.push(Headroom::new("inodes", Some(place), stat.files_available(), stat.files()));
        }
    }
    found.push(memory()?);
    found.push(descriptors()?);
    found.push(pids()?);
    Ok(found)
}

fn file_system(directory: &Path) -> Result<(&Path, nix::sys::statvfs::Statvfs)> {
    let mut place = directory;
    loop {
        match nix::sys::statvfs::statvfs(place) {
            Err(crate::sys::Errno::ENOENT) => match place.parent() {
                Some(above) => place = above,
                None => return Err(crate::sys::Errno::ENOENT).at("statvfs", directory.display()),
            },
            stat => return stat.at("statvfs", place.display()).map(|stat| (place, stat)),
        }
    }
}

fn memory() -> Result<Headroom> {
    let text = read("/proc/meminfo")?;
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim_matches([':', ' ']).split(' ').next()?.parse::<u64>().ok()
    };
    match (field("MemAvailable"), field("MemTotal")) {
        (Some(free), Some(total)) => Ok(Headroom::new("memory", None, free * KIB, total * KIB)),
        _ => Err(unknown("/proc/meminfo")),
    }
}

fn descriptors() -> Result<Headroom> {
    let (used, total) = numbers("/proc/sys/fs/file-nr", 0, 2)?;
    Ok(Headroom::new("descriptors", None, total.saturating_sub(used), total))
}

/// Tasks that may still be made: by the limit on pids, and by that on threads.
fn pids() -> Result<Headroom> {
    let (pids, _) = numbers("/proc/sys/kernel/pid_max", 0, 0)?;
    let (threads, _) = numbers("/proc/sys/kernel/threads-max", 0, 0)?;
    let text = read("/proc/loadavg")?;
    let tasks = text.split(' ').nth(3).and_then(|field| field.split_once('/')).and_then(|(_, all)| all.parse().ok());
    let tasks: u64 = tasks.ok_or_else(|| unknown("/proc/loadavg"))?;
    let total = pids.min(threads);
    Ok(Headroom::new("pids", None, total.saturating_sub(tasks), total))
}

/// Two fields of a file of numbers.
fn numbers(file: &str, first: usize, second: usize) -> Result<(u64, u64)> {
    let text = read(file)?;
    let field = |n: usize| text.split_whitespace().nth(n).and_then(|field| field.parse().ok());
    field(first).zip(field(second)).ok_or_else(|| unknown(file))
}

fn read(file: &str) -> Result<String> {
    std::fs::read_to_string(file).at("read", file)
}

fn unknown(file: &str) -> Error {
    Error::Other(format!("`{file}` does not say what it should"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_condemned_by_share_and_amount_together() {
        for (free, total, expected) in [
            // 5 % of a large disk is plenty, and so is half of a small one.
            (50 * GIB, 1000 * GIB, Level::Ok),
            (512 * KIB, MIB, Level::Ok),
            (60 * KIB, MIB, Level::Low),
            (512 * MIB, 100 * GIB, Level::Low),
            (10 * KIB, MIB, Level::Exhausted),
            (0, 100 * GIB, Level::Exhausted),
        ] {
            assert_eq!(level("disk", free, total), expected, "{free} of {total}");
        }
    }

    #[test]
    fn every_resource_of_this_host_is_told() {
        let found = look(&[Path::new("/tmp/no/such/directory"), Path::new("/tmp")]).unwrap();
        let resources: Vec<_> = found.iter().map(|it| it.resource).collect();
        assert!(resources.ends_with(&["memory", "descriptors", "pids"]), "{resources:?}");
        assert_eq!(resources.iter().filter(|it| **it == "disk").count(), 1, "one file system is told once");
        assert!(found.iter().all(|it| it.free <= it.total && it.total > 0), "{found:?}");
    }
}
