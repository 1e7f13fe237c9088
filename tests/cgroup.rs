//! Real cgroups of this host, through the library. Needs root; every cgroup made here is named
//! `rustbox-test-<pid>-…` and removed, also when a test fails.

use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustbox::cgroup::{Cgroup, Controller, Entry, Layout, Plan, Request, Version, plan};

/// A process that entered a cgroup and waits there; killed when dropped.
struct Guest(std::process::Child);

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Kills and removes what a test made.
struct Guard(Plan);

impl Drop for Guard {
    fn drop(&mut self) {
        let cgroup = self.0.open();
        let _ = cgroup.kill();
        let _ = cgroup.remove(Duration::from_secs(5));
    }
}

fn unique(name: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("/rustbox-test-{}-{}-{name}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

fn planned(name: &str) -> (Guard, Plan) {
    let path = unique(name);
    let request = Request { cgroups_path: Some(path.as_ref()), id: "test", ..Request::default() };
    let plan = plan(&request, &Layout::probe().unwrap()).unwrap();
    (Guard(plan.clone()), plan)
}

/// Runs a shell command that enters through the descriptors of `entry`, as the engine's child does. (The engine
/// is born in the v2 directory; a shell has to move there.)
fn spawn(entry: Entry, script: &str) -> Guest {
    let inherit =
        |fd: &OwnedFd| nix::fcntl::fcntl(fd.as_raw_fd(), nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty()));
    let mut enter = String::new();
    for tasks in &entry.tasks {
        inherit(tasks).unwrap();
        enter.push_str(&format!("echo 0 > /proc/self/fd/{} || exit 99\n", tasks.as_raw_fd()));
    }
    if let Some(into) = &entry.into {
        inherit(into).unwrap();
        enter.push_str(&format!("echo 0 > /proc/self/fd/{}/cgroup.procs || exit 98\n", into.as_raw_fd()));
    }
    let mut command = std::process::Command::new("/bin/sh");
    command.arg("-c").arg(format!("{enter}\n{script}")).process_group(0);
    Guest(command.spawn().unwrap())
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < deadline, "timed out: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn wait_for_procs(cgroup: &Cgroup, at_least: usize) {
    wait_for("processes in the cgroup", || cgroup.procs().unwrap().len() >= at_least);
}

const BOMB: &str = "i=0; while [ $i -lt 50 ]; do (while :; do sleep 60 & wait; done) & i=$((i+1)); done; wait";

#[test]
fn every_hierarchy_is_entered_and_all_is_removed() {
    let (_guard, plan) = planned("enter");
    let cgroup = plan.create(None).unwrap();
    let guest = spawn(cgroup.entry().unwrap(), "exec sleep 60");
    let name = plan.directories[0].path.file_name().unwrap().to_str().unwrap();
    let file = format!("/proc/{}/cgroup", guest.0.id());
    wait_for("entry into every hierarchy", || {
        std::fs::read_to_string(&file).unwrap().lines().all(|line| line.ends_with(name))
    });
    assert_eq!(cgroup.procs().unwrap(), [guest.0.id() as i32]);
    assert!(cgroup.kill().unwrap());
    cgroup.remove(Duration::from_secs(5)).unwrap();
    assert_eq!(cgroup.remaining(), Vec::<PathBuf>::new());
}

#[test]
fn a_fork_bomb_of_fifty_is_killed_at_once() {
    let (_guard, plan) = planned("bomb");
    let cgroup = plan.create(None).unwrap();
    let _guest = spawn(cgroup.entry().unwrap(), BOMB);
    wait_for_procs(&cgroup, 51);
    assert!(cgroup.kill().unwrap());
    cgroup.remove(Duration::from_secs(5)).unwrap();
    assert!(cgroup.remaining().is_empty() && cgroup.procs().unwrap().is_empty());
}

#[test]
fn without_a_v2_hierarchy_freezing_and_signalling_kills_the_same_bomb() {
    let (_guard, mut plan) = planned("v1");
    plan.directories.retain(|directory| directory.version == Version::V1);
    if plan.directories.is_empty() {
        return; // A host with cgroup v2 alone has nothing to show here.
    }
    let cgroup = plan.create(None).unwrap();
    let _guest = spawn(cgroup.entry().unwrap(), BOMB);
    wait_for_procs(&cgroup, 51);
    assert!(cgroup.kill().unwrap());
    cgroup.remove(Duration::from_secs(5)).unwrap();
    assert!(cgroup.remaining().is_empty());
}

#[test]
fn cgroups_that_the_container_made_go_too() {
    let (_guard, plan) = planned("nest");
    let cgroup = plan.create(None).unwrap();
    for directory in &plan.directories {
        std::fs::create_dir_all(directory.path.join("a/b")).unwrap();
    }
    cgroup.remove(Duration::from_secs(1)).unwrap();
    assert!(cgroup.remaining().is_empty());
}

#[test]
fn a_living_process_makes_remove_time_out_and_is_named() {
    let (_guard, plan) = planned("busy");
    let cgroup = plan.create(None).unwrap();
    let guest = spawn(cgroup.entry().unwrap(), "echo; exec sleep 60");
    let comm = format!("/proc/{}/comm", guest.0.id());
    wait_for("sleep", || std::fs::read_to_string(&comm).unwrap() == "sleep\n");
    let start = Instant::now();
    let error = cgroup.remove(Duration::from_millis(100)).unwrap_err().to_string();
    assert!(start.elapsed() < Duration::from_secs(5));
    assert!(error.contains(&format!("process {} `sleep`", guest.0.id())), "{error}");
    assert_eq!(cgroup.remaining().len(), plan.directories.len());
}

#[test]
fn a_shared_cgroup_is_joined_and_outlives_the_container() {
    let (_guard, plan) = planned("shared");
    let first = plan.create(None).unwrap();
    let mut guest = spawn(first.entry().unwrap(), "exec sleep 60");
    wait_for_procs(&first, 1);
    let second = plan.create(None).unwrap();
    assert!(second.plan().directories.iter().all(|directory| directory.existed && directory.shared));
    assert!(!second.kill().unwrap());
    second.remove(Duration::from_millis(50)).unwrap();
    assert!(second.remaining().is_empty(), "what was there before is no leftover");
    assert!(guest.0.try_wait().unwrap().is_none(), "the neighbour was killed");
}

#[test]
fn missing_parents_are_made_and_recorded() {
    let (guard, plan) = planned("deep");
    let mut deep = plan.clone();
    for directory in &mut deep.directories {
        directory.path.push("x/y");
    }
    let cgroup = deep.create(None).unwrap();
    let guest = spawn(cgroup.entry().unwrap(), "exec sleep 60");
    let file = format!("/proc/{}/cgroup", guest.0.id());
    wait_for("entry", || std::fs::read_to_string(&file).unwrap().lines().all(|line| line.ends_with("/x/y")));
    assert!(cgroup.plan().directories.iter().all(|directory| directory.parents.len() == 2));
    cgroup.kill().unwrap();
    cgroup.remove(Duration::from_secs(5)).unwrap();
    assert_eq!(guard.0.open().remaining().len(), plan.directories.len(), "parents stay");
}

#[test]
fn a_failed_create_leaves_nothing() {
    let (_guard, mut plan) = planned("fail");
    plan.directories.last_mut().unwrap().path = "/proc/no/such/place".into();
    assert!(plan.create(None).is_err());
    assert!(plan.open().remaining().is_empty());
}

#[test]
fn a_frozen_cgroup_can_still_be_killed() {
    let (_guard, plan) = planned("freeze");
    let cgroup = plan.create(None).unwrap();
    let _guest = spawn(cgroup.entry().unwrap(), "while :; do :; done");
    wait_for_procs(&cgroup, 1);
    assert!(!cgroup.is_frozen().unwrap());
    cgroup.freeze().unwrap();
    assert!(cgroup.is_frozen().unwrap());
    cgroup.thaw().unwrap();
    assert!(!cgroup.is_frozen().unwrap());
    cgroup.freeze().unwrap();
    cgroup.kill().unwrap();
    cgroup.remove(Duration::from_secs(5)).unwrap();
}

#[test]
fn the_first_process_stays_outside_the_payloads_limits() {
    let path = unique("judge");
    let controllers = [Controller::Memory, Controller::Pids, Controller::Cpu, Controller::Cpuacct];
    let request = Request {
        cgroups_path: Some(path.as_ref()),
        controllers: Some(&controllers),
        payload_leaf: true,
        ..Request::default()
    };
    let plan = plan(&request, &Layout::probe().unwrap()).unwrap();
    let _guard = Guard(plan.clone());
    let cgroup = plan.create(None).unwrap();
    let (first, payload) = (cgroup.entry().unwrap(), cgroup.payload_entry().unwrap());
    assert!(first.into.is_some());
    if plan.directory(Controller::Memory).unwrap().version == Version::V1 {
        assert!(first.tasks.is_empty() && payload.tasks.len() >= 3 && payload.into.is_none());
    }
}
