//! Where a container's cgroups are, and what stands in their files, on every layout of the host.
//!
//! Tests name the files of v1. Where v2 rules alone they are given what its files say, in v1's terms.

use std::fs;
use std::path::{Path, PathBuf};

use super::Container;

/// Whether the host has cgroup v2 alone.
pub fn unified() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// The root of the hierarchy that has a controller.
pub fn hierarchy(controller: &str) -> PathBuf {
    let root = Path::new("/sys/fs/cgroup");
    if unified() { root.to_owned() } else { root.join(controller) }
}

/// The path of a process's cgroup in the hierarchy of a controller, out of the text of its `/proc/PID/cgroup`.
#[track_caller]
pub fn membership<'t>(text: &'t str, controller: &str) -> &'t str {
    let names = if unified() { "" } else { controller };
    let line = text.lines().map(|line| line.splitn(3, ':').collect::<Vec<_>>());
    let mut found = line.filter(|fields| fields.len() == 3 && fields[1].split(',').any(|name| name == names));
    found.next().unwrap_or_else(|| panic!("no {controller}: {text}"))[2]
}

/// The file that freezes a container: of v2 where it is beside v1, too.
pub fn freezer_file(container: &Container<'_>) -> PathBuf {
    let v2 = if unified() { hierarchy("") } else { hierarchy("unified") };
    let file = v2.join(&container.cgroup).join("cgroup.freeze");
    if file.exists() { file } else { hierarchy("freezer").join(&container.cgroup).join("freezer.state") }
}

/// Freezes a container, or what there is of it yet, as somebody else would.
pub fn freeze(container: &Container<'_>) {
    let file = freezer_file(container);
    fs::write(&file, if file.ends_with("cgroup.freeze") { "1" } else { "FROZEN" }).unwrap();
}

/// A file of a cgroup, trimmed.
#[track_caller]
pub fn read(dir: &Path, file: &str) -> String {
    let path = dir.join(file);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).trim().to_owned()
}

/// What v1 means by no limit: the largest number of whole pages.
const UNLIMITED: u64 = 0x7fff_ffff_ffff_f000;

/// Weights that the shares of the tests become (`10^((l² + 125·l) / 612 − 7/34)`, `l = log2(shares)`, rounded up).
const WEIGHTS: [(&str, &str); 10] = [
    ("17", "100"),
    ("20", "120"),
    ("21", "130"),
    ("22", "140"),
    ("31", "222"),
    ("39", "300"),
    ("59", "512"),
    ("83", "800"),
    ("91", "900"),
    ("100", "1024"),
];

/// What v2's files say of what a file of v1 would.
#[track_caller]
fn in_v1_terms(dir: &Path, file: &str) -> String {
    let bytes = |file| read(dir, file).parse().unwrap_or(UNLIMITED);
    let bandwidth = |index| read(dir, "cpu.max").split(' ').nth(index).unwrap().replace("max", "-1");
    match file {
        "memory.limit_in_bytes" => bytes("memory.max").to_string(),
        "memory.memsw.limit_in_bytes" => {
            bytes("memory.max").saturating_add(bytes("memory.swap.max")).min(UNLIMITED).to_string()
        }
        "memory.soft_limit_in_bytes" => bytes("memory.low").to_string(),
        "cpu.shares" => {
            let weight = read(dir, "cpu.weight");
            let known = WEIGHTS.iter().find(|(known, _)| *known == weight);
            known.unwrap_or_else(|| panic!("which shares are the weight {weight}?")).1.to_owned()
        }
        "cpu.cfs_quota_us" => bandwidth(0),
        "cpu.cfs_period_us" => bandwidth(1),
        "cpu.cfs_burst_us" => read(dir, "cpu.max.burst"),
        // Empty is the parent's there, and v1 has that written down.
        "cpuset.cpus" | "cpuset.mems" => read(dir, &format!("{file}.effective")),
        _ => read(dir, file),
    }
}

/// A file of v1 in any cgroup, or what v2 has instead.
#[track_caller]
pub fn value(dir: &Path, file: &str) -> String {
    if unified() { in_v1_terms(dir, file) } else { read(dir, file) }
}

impl Container<'_> {
    /// The container's directory in the hierarchy of a controller (or in `unified`, or `systemd`).
    pub fn cgroup_dir(&self, controller: &str) -> PathBuf {
        hierarchy(controller).join(&self.cgroup)
    }

    /// A file of the container's cgroup by its name in v1, trimmed.
    #[track_caller]
    pub fn cgroup_file(&self, controller: &str, file: &str) -> String {
        value(&self.cgroup_dir(controller), file)
    }
}
