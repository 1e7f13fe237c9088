//! Real cgroups of this host, through the library. Needs root; every cgroup made here is named
//! `rustbox-test-<pid>-…` and removed, also when a test fails.

use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use oci_spec::runtime::LinuxResources;
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
fn what_nobody_is_in_goes_round_a_process_that_stays() {
    let (_guard, plan) = planned("round");
    let cgroup = plan.create(None).unwrap();
    let guest = spawn(cgroup.entry().unwrap(), "exec sleep 60");
    // Until it has entered its cgroups, it would come back to them.
    let comm = format!("/proc/{}/comm", guest.0.id());
    wait_for("the guest", || std::fs::read_to_string(&comm).is_ok_and(|name| name == "sleep\n"));
    let top = &plan.directories.last().unwrap().path;
    for below in ["a/1", "b/1", "c/a/1", "c/b/1", "c/c/1", "c/d/1", "c/e/1", "d/1", "e/1"] {
        std::fs::create_dir_all(top.join(below)).unwrap();
    }
    std::fs::write(top.join("c/c/cgroup.procs"), guest.0.id().to_string()).unwrap();
    cgroup.remove(Duration::ZERO).unwrap_err();
    let below = |place: &str| std::fs::read_dir(top.join(place)).unwrap().map(|it| it.unwrap().path());
    let left = |place| below(place).filter(|it| it.is_dir()).collect::<Vec<_>>();
    assert_eq!([left(""), left("c"), left("c/c")], [vec![top.join("c")], vec![top.join("c/c")], vec![]]);
    drop(guest);
    cgroup.remove(Duration::from_secs(5)).unwrap();
}

#[test]
fn without_a_v2_hierarchy_a_process_deeper_than_any_path_is_found_and_killed_too() {
    let (_guard, mut plan) = planned("dig");
    plan.directories.retain(|directory| directory.version == Version::V1);
    let Some(freezer) = plan.directory(Controller::Freezer) else {
        return; // As above.
    };
    let (top, name) = (freezer.path.display(), "a".repeat(250));
    let dig = format!(
        "cd -P {top}; for i in $(seq 20); do mkdir {name} && cd -P {name} || exit 1; done; echo 0 >cgroup.procs; exec sleep 60"
    );
    let cgroup = plan.create(None).unwrap();
    let mut guest = spawn(cgroup.entry().unwrap(), &dig);
    let comm = format!("/proc/{}/comm", guest.0.id());
    wait_for("sleep", || std::fs::read_to_string(&comm).unwrap() == "sleep\n");
    assert_eq!(std::fs::read_to_string(freezer.path.join("cgroup.procs")).unwrap(), "");
    assert_eq!(cgroup.procs().unwrap(), [guest.0.id() as i32]);
    assert!(cgroup.kill().unwrap());
    guest.0.wait().unwrap();
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
    // It enters one hierarchy after the other.
    let comm = format!("/proc/{}/comm", guest.0.id());
    wait_for("sleep", || std::fs::read_to_string(&comm).unwrap() == "sleep\n");
    let second = plan.create(None).unwrap();
    assert!(second.plan().directories.iter().all(|directory| directory.existed && directory.shared));
    assert!(!second.kill().unwrap());
    second.remove(Duration::from_millis(50)).unwrap();
    assert!(second.remaining().is_empty(), "what was there before is no leftover");
    assert!(guest.0.try_wait().unwrap().is_none(), "the neighbour was killed");
}

#[test]
fn missing_parents_are_made_and_stay() {
    let (guard, plan) = planned("deep");
    let mut deep = plan.clone();
    for directory in &mut deep.directories {
        directory.path.push("x/y");
    }
    let cgroup = deep.create(None).unwrap();
    let guest = spawn(cgroup.entry().unwrap(), "exec sleep 60");
    let file = format!("/proc/{}/cgroup", guest.0.id());
    wait_for("entry", || std::fs::read_to_string(&file).unwrap().lines().all(|line| line.ends_with("/x/y")));
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
    let (first, payload) = (cgroup.entry().unwrap(), cgroup.payload_entry(None).unwrap());
    assert_eq!(first.into.is_some(), plan.unified().is_some());
    if plan.directory(Controller::Memory).unwrap().version == Version::V1 {
        assert!(first.tasks.is_empty() && payload.tasks.len() >= 3 && payload.into.is_none());
    }
}

fn resources(json: serde_json::Value) -> LinuxResources {
    serde_json::from_value(json).unwrap()
}

fn read(plan: &Plan, controller: Controller, file: &str) -> String {
    std::fs::read_to_string(plan.directory(controller).unwrap().path.join(file)).unwrap().trim().to_owned()
}

fn is_v1(plan: &Plan, controller: Controller) -> bool {
    plan.directory(controller).is_some_and(|directory| directory.version == Version::V1)
}

#[test]
fn limits_stand_in_the_kernels_files_and_can_be_raised_and_lowered() {
    let (_guard, plan) = planned("limits");
    if !is_v1(&plan, Controller::Memory) {
        return; // The values of v2 are held against plain files in the unit tests.
    }
    let cgroup = plan
        .create(Some(&resources(serde_json::json!({
            "memory": {"limit": 33554432, "swap": 33554432, "reservation": 16777216, "swappiness": 0, "disableOOMKiller": true},
            "cpu": {"shares": 512, "quota": 20000, "period": 50000, "burst": 10000, "cpus": "0", "mems": "0"},
            "pids": {"limit": 20},
        }))))
        .unwrap();
    let memory = |file| read(&plan, Controller::Memory, file);
    let cpu = |file| read(&plan, Controller::Cpu, file);
    let both = || (memory("memory.limit_in_bytes"), memory("memory.memsw.limit_in_bytes"));
    assert_eq!(both(), ("33554432".to_owned(), "33554432".to_owned()));
    assert_eq!(memory("memory.soft_limit_in_bytes"), "16777216");
    assert!(memory("memory.oom_control").starts_with("oom_kill_disable 1"));
    assert_eq!((cpu("cpu.shares"), cpu("cpu.cfs_quota_us")), ("512".to_owned(), "20000".to_owned()));
    assert_eq!((cpu("cpu.cfs_period_us"), cpu("cpu.cfs_burst_us")), ("50000".to_owned(), "10000".to_owned()));
    assert_eq!(read(&plan, Controller::Cpuset, "cpuset.cpus"), "0");
    assert_eq!(read(&plan, Controller::Pids, "pids.max"), "20");

    let set = |limit: i64, swap: i64| {
        cgroup.update(&resources(serde_json::json!({"memory": {"limit": limit, "swap": swap}}))).unwrap();
        both()
    };
    assert_eq!(set(67108864, 134217728), ("67108864".to_owned(), "134217728".to_owned()), "raised");
    assert_eq!(set(16777216, 33554432), ("16777216".to_owned(), "33554432".to_owned()), "lowered");
    cgroup.update(&resources(serde_json::json!({"memory": {"limit": -1}}))).unwrap();
    assert_eq!(both().0, both().1, "unlimited");
    // The burst may not exceed the quota: the order of writing has to turn round.
    cgroup.update(&resources(serde_json::json!({"cpu": {"quota": 5000, "burst": 1000}}))).unwrap();
    assert_eq!((cpu("cpu.cfs_quota_us"), cpu("cpu.cfs_burst_us")), ("5000".to_owned(), "1000".to_owned()));
    cgroup.update(&resources(serde_json::json!({"pids": {"limit": -1}}))).unwrap();
    assert_eq!(read(&plan, Controller::Pids, "pids.max"), "max");
    let fault = cgroup.update(&resources(serde_json::json!({"memory": {"limit": 100, "swap": 50}}))).unwrap_err();
    assert!(fault.to_string().starts_with("$.linux.resources.memory.swap: "), "{fault}");
}

#[test]
fn a_limit_that_cannot_be_given_is_refused_and_leaves_nothing() {
    for (json, word) in [
        (serde_json::json!({"unified": {"no.such": "1"}}), "no.such"),
        (serde_json::json!({"network": {"classID": 7}}), "net_cls"),
        (serde_json::json!({"rdma": {"mlx5_0": {"hcaHandles": 1}}}), "rdma"),
        (serde_json::json!({"hugepageLimits": [{"pageSize": "7MB", "limit": 1}]}), "7MB"),
    ] {
        let (_guard, plan) = planned("refuse");
        if word == "net_cls" && plan.directory(Controller::NetCls).is_some() {
            continue; // This host can give it.
        }
        let word = if word == "no.such" && plan.unified().is_none() { "needs cgroup v2" } else { word };
        let error = plan.create(Some(&resources(json))).unwrap_err().to_string();
        // A host that has the controller lacks the device, which is the kernel's word.
        let no_device = word == "rdma" && error.contains("rdma.max") && error.contains("No such device");
        assert!((error.starts_with("refused: ") || no_device) && error.contains(word), "{error}");
        assert!(plan.open().remaining().is_empty());
    }
}

#[test]
fn a_controller_that_only_v2_has_is_used_there() {
    let (_guard, plan) = planned("huge");
    if plan.directory(Controller::Hugetlb).is_none_or(|directory| directory.version == Version::V1) {
        return;
    }
    let sizes = std::fs::read_dir("/sys/kernel/mm/hugepages").into_iter().flatten().flatten();
    if !sizes.into_iter().any(|entry| entry.file_name() == "hugepages-2048kB") {
        return;
    }
    let limits = serde_json::json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 4194304}], "unified": {"cgroup.max.depth": "3"}});
    plan.create(Some(&resources(limits))).unwrap();
    assert_eq!(read(&plan, Controller::Hugetlb, "hugetlb.2MB.max"), "4194304");
    assert_eq!(read(&plan, Controller::Hugetlb, "hugetlb.2MB.rsvd.max"), "4194304");
    assert_eq!(read(&plan, Controller::Hugetlb, "cgroup.max.depth"), "3");
}

/// Whether a process in the cgroup can open the kernel log (`c 1:11`, which no default rule allows) and /dev/null.
fn opens(cgroup: &Cgroup) -> (bool, bool) {
    let script =
        "r=0; (exec 3</dev/kmsg) 2>/dev/null && r=$((r+1)); (exec 3</dev/null) 2>/dev/null && r=$((r+2)); exit $r";
    let code = spawn(cgroup.entry().unwrap(), script).0.wait().unwrap().code().unwrap();
    assert!(code < 4, "the process did not enter: {code}");
    (code & 1 != 0, code & 2 != 0)
}

fn device_rules_rule(cgroup: &Cgroup) {
    assert_eq!(opens(cgroup), (false, true), "default");
    let devices = |json: serde_json::Value| cgroup.update(&resources(serde_json::json!({"devices": json}))).unwrap();
    devices(
        serde_json::json!([{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 1, "minor": 11, "access": "r"}]),
    );
    assert_eq!(opens(cgroup), (true, true), "one more allowed");
    devices(
        serde_json::json!([{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 1, "minor": 11, "access": "w"}]),
    );
    assert_eq!(opens(cgroup), (false, true), "another kind of access");
    devices(serde_json::json!([{"allow": true, "access": "rwm"}]));
    assert_eq!(opens(cgroup), (true, true), "everything");
}

#[test]
fn device_rules_of_v1_rule() {
    let (_guard, mut plan) = planned("dev1");
    plan.directories.retain(|directory| directory.controllers.contains(&Controller::Devices));
    if !plan.directories.is_empty() {
        device_rules_rule(&plan.create(None).unwrap());
    }
}

#[test]
fn device_rules_of_v2_rule_by_a_program() {
    let (_guard, mut plan) = planned("dev2");
    plan.directories.retain(|directory| directory.version == Version::V2);
    if !plan.directories.is_empty() {
        device_rules_rule(&plan.create(None).unwrap());
    }
}

#[test]
fn a_fork_bomb_stops_at_its_limit() {
    let (_guard, plan) = planned("pids");
    let cgroup = plan.create(Some(&resources(serde_json::json!({"pids": {"limit": 8}})))).unwrap();
    let _guest = spawn(cgroup.entry().unwrap(), BOMB);
    let hits = || read(&plan, Controller::Pids, "pids.events") != "max 0";
    wait_for("the limit", hits);
    assert!(cgroup.procs().unwrap().len() <= 8);
    cgroup.kill().unwrap();
    cgroup.remove(Duration::from_secs(5)).unwrap();
}

#[test]
fn a_frozen_cgroup_is_not_taken_over() {
    let (_guard, plan) = planned("ice");
    let cgroup = plan.create(None).unwrap();
    cgroup.freeze().unwrap();
    let error = plan.create(None).unwrap_err().to_string();
    assert!(error.contains("unexpectedly frozen"), "{error}");
    assert_eq!(cgroup.remaining().len(), plan.directories.len(), "what was there stays");
}
