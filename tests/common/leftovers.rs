//! What a test may have left behind: how to find it and how to sweep it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A process, by pid and start time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    pub pid: i32,
    start: String,
}

impl Process {
    pub fn of(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let start = stat.rsplit(')').next()?.split_whitespace().nth(19)?.to_owned();
        Some(Process { pid, start })
    }

    fn kill(&self) {
        if Process::of(self.pid).as_ref() == Some(self) {
            let _ = kill(Pid::from_raw(self.pid), Signal::SIGKILL);
        }
    }
}

/// Where cgroup hierarchies are mounted.
fn hierarchies() -> Vec<PathBuf> {
    let info = fs::read_to_string("/proc/self/mountinfo").unwrap();
    info.lines()
        .filter(|line| line.contains(" - cgroup ") || line.contains(" - cgroup2 "))
        .filter_map(|line| line.split(' ').nth(4))
        .map(PathBuf::from)
        .collect()
}

/// The cgroup directories of a test in every hierarchy, parents first.
fn cgroups(tag: &str) -> Vec<PathBuf> {
    let (prefix, id) = (format!("rustbox-test-{tag}-"), format!("rbt-{tag}-"));
    let mut found = Vec::new();
    for hierarchy in hierarchies() {
        for dir in fs::read_dir(hierarchy).into_iter().flatten().flatten() {
            let name = dir.file_name();
            let name = name.to_string_lossy();
            if name.starts_with(&prefix) || name.contains(&id) {
                descend(dir.path(), &mut found);
            }
        }
    }
    found
}

fn descend(dir: PathBuf, found: &mut Vec<PathBuf>) {
    found.push(dir.clone());
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            descend(entry.path(), found);
        }
    }
}

/// Every process that carries the test's mark in its environment: runtime commands and containers.
fn marked(tag: &str) -> Vec<i32> {
    let mark = format!("RUSTBOX_TEST={tag}");
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| {
            fs::read(format!("/proc/{pid}/environ"))
                .is_ok_and(|environ| environ.split(|byte| *byte == 0).any(|entry| entry == mark.as_bytes()))
        })
        .collect()
}

fn in_cgroups(tag: &str) -> Vec<i32> {
    cgroups(tag)
        .iter()
        .filter_map(|dir| fs::read_to_string(dir.join("cgroup.procs")).ok())
        .flat_map(|procs| procs.lines().filter_map(|line| line.parse().ok()).collect::<Vec<i32>>())
        .collect()
}

/// Mount points below the test's directory, deepest last.
fn mounts(dir: &Path) -> Vec<PathBuf> {
    let prefix = format!("{}/", dir.display());
    let info = fs::read_to_string("/proc/self/mountinfo").unwrap();
    info.lines()
        .filter_map(|line| line.split(' ').nth(4))
        .filter(|point| point.starts_with(&prefix))
        .map(PathBuf::from)
        .collect()
}

/// Describes everything that is left of a test that should have ended.
pub fn find(tag: &str, dir: &Path, root: &Path) -> Vec<String> {
    let mut left = Vec::new();
    for pid in in_cgroups(tag) {
        left.push(format!("process {pid} in a cgroup"));
    }
    for pid in marked(tag) {
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        left.push(format!("process {pid}: {}", String::from_utf8_lossy(&command).replace('\0', " ")));
    }
    left.extend(cgroups(tag).iter().map(|dir| format!("cgroup {}", dir.display())));
    left.extend(mounts(dir).iter().map(|point| format!("mount {}", point.display())));
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        // Caches and locks of the root itself are no container's state; a container's directory names it.
        if entry.file_name().to_string_lossy().contains(&format!("rbt-{tag}-")) {
            left.push(format!("state {}", entry.path().display()));
        }
    }
    left
}

/// Kills, unmounts and removes whatever a test made.
pub fn sweep(tag: &str, dir: &Path, recorded: &[Process]) {
    let start = Instant::now();
    loop {
        for cgroup in cgroups(tag) {
            let _ = fs::write(cgroup.join("freezer.state"), "THAWED");
            let _ = fs::write(cgroup.join("cgroup.freeze"), "0");
        }
        for process in recorded {
            process.kill();
        }
        let mut pids = in_cgroups(tag);
        pids.extend(marked(tag));
        pids.retain(|pid| *pid != std::process::id() as i32);
        for process in pids.iter().filter_map(|pid| Process::of(*pid)) {
            process.kill();
        }
        for cgroup in cgroups(tag).iter().rev() {
            if fs::remove_dir(cgroup).is_err_and(|error| error.kind() == std::io::ErrorKind::InvalidFilename) {
                // Its path is too long for the kernel: find(1) goes by handles.
                let thaw =
                    ["(", "-name", "freezer.state", "-execdir", "sh", "-c", "echo THAWED >freezer.state", ";", ")"];
                let remove = ["-o", "-type", "d", "-delete"];
                let parent = cgroup.parent().unwrap();
                let _ = Command::new("find").arg(parent).arg("-depth").args(thaw).args(remove).output();
            }
        }
        if (pids.is_empty() && cgroups(tag).is_empty()) || start.elapsed() > Duration::from_secs(5) {
            break;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    for point in mounts(dir).iter().rev() {
        let _ = umount2(point, MntFlags::MNT_DETACH);
    }
    // Never delete through a mount that could not be detached.
    if mounts(dir).is_empty() {
        let _ = fs::remove_dir_all(dir);
    }
}
