//! What cgroup v2 alone has: each resource in its file and, where it can be seen, in force; the rules by which v2 places
//! processes; nesting, delegation, statistics. On other hosts each test skips itself; `make test-vm` brings such a machine.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::*;
use serde_json::Value;

const MIB: u64 = 1 << 20;

macro_rules! v2_only {
    () => {
        rustbox_only!();
        if !unified() {
            skip!("this host has not cgroup v2 alone");
        }
    };
}

fn idle(t: &Test, resources: Value) -> Container<'_> {
    t.bundle(spec().args(&["sleep", "1000"]).resources(resources))
}

/// A file of the container's cgroup.
#[track_caller]
fn file(c: &Container<'_>, name: &str) -> String {
    cgroup::read(&c.cgroup_dir(""), name)
}

#[track_caller]
fn files(c: &Container<'_>, expected: &[(&str, &str)]) {
    for (name, value) in expected {
        assert_eq!(file(c, name), *value, "{name}");
    }
}

/// The number behind a key in a file of `key value` lines.
#[track_caller]
fn counted(c: &Container<'_>, name: &str, key: &str) -> u64 {
    let text = file(c, name);
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {key}: {text}")).parse().unwrap()
}

#[track_caller]
fn update(c: &Container<'_>, resources: &Value) -> Out {
    let document = c.test.path("resources.json");
    fs::write(&document, resources.to_string()).unwrap();
    c.test.runtime(&["update", "--resources", document.to_str().unwrap(), &c.id])
}

/// A cgroup of the test's own, outside of any container, which goes with the test.
fn own_cgroup(t: &Test, name: &str) -> PathBuf {
    let path = Path::new("/sys/fs/cgroup").join(format!("rustbox-test-{}-{name}", t.tag));
    fs::create_dir(&path).unwrap();
    path
}

/// Removes the test's own cgroups, which must be empty by now.
#[track_caller]
fn remove(places: &[&Path]) {
    for place in places.iter().filter(|place| place.exists()) {
        until(&format!("{} to be empty", place.display()), || fs::remove_dir(place).is_ok());
    }
}

/// A process of the test in a cgroup, until it is dropped.
struct Stranger(std::process::Child);

impl Stranger {
    fn new(place: &Path) -> Self {
        let child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        fs::write(place.join("cgroup.procs"), child.id().to_string()).unwrap();
        Stranger(child)
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// memory

#[test]
fn memory_and_swap_have_their_files_and_high_is_left_alone() {
    v2_only!();
    let t = Test::new();
    let c = idle(&t, json!({"memory": {"limit": 64 * MIB, "swap": 96 * MIB, "reservation": 32 * MIB}}));
    c.up();
    files(&c, &[("memory.max", "67108864"), ("memory.swap.max", "33554432"), ("memory.low", "33554432")]);
    assert_eq!(file(&c, "memory.high"), "max");
    // Somebody else's, such as the kubelet's.
    fs::write(c.cgroup_dir("").join("memory.high"), "50331648").unwrap();
    update(&c, &json!({"memory": {"limit": 80 * MIB, "swap": 100 * MIB}})).ok();
    files(&c, &[("memory.max", "83886080"), ("memory.swap.max", "20971520"), ("memory.high", "50331648")]);
    // The sum alone is held against the limit that stands.
    t.runtime(&["update", "--memory-swap", "120m", &c.id]).ok();
    files(&c, &[("memory.max", "83886080"), ("memory.swap.max", "41943040")]);
    t.runtime(&["update", "--memory", "-1", &c.id]).ok();
    files(&c, &[("memory.max", "max"), ("memory.swap.max", "max"), ("memory.low", "33554432")]);
    // v2 would take it, and kill for it.
    update(&c, &json!({"memory": {"limit": 4096, "checkBeforeUpdate": true}})).denied().says(&["memory"]);
    assert_eq!((file(&c, "memory.max").as_str(), c.status().as_str()), ("max", "running"));
    // There is no limit to hold a sum against.
    t.runtime(&["update", "--memory-swap", "120m", &c.id]).denied().says(&["memory.swap", "needs memory.limit"]);
    c.kill_and_delete();
    t.assert_nothing_left();
}

#[test]
fn the_oom_killer_takes_one_or_by_the_groups_own_word_all() {
    v2_only!();
    let t = Test::new();
    let limits = json!({"memory": {"limit": 16 * MIB, "swap": 16 * MIB}});
    let script = "tail -c 50000000 /dev/zero; echo survived";
    let one = t.bundle(sh(script).resources(limits.clone())).run().ok();
    assert_eq!(one.stdout, "survived\n");
    let group = json!({"unified": {"memory.oom.group": "1"}});
    let all = t.bundle(sh(script).resources(limits).resources(group)).run();
    assert_eq!((all.code, all.stdout.as_str()), (137, ""), "{all:#?}");
    t.assert_nothing_left();
}

#[test]
fn an_oom_kill_is_the_containers_own_or_an_ancestors() {
    v2_only!();
    let t = Test::new();
    let parent = own_cgroup(&t, "parent");
    fs::write("/sys/fs/cgroup/cgroup.subtree_control", "+memory").unwrap();
    fs::write(parent.join("memory.max"), (24 * MIB).to_string()).unwrap();
    fs::write(parent.join("memory.swap.max"), "0").unwrap();
    let judged = |limit: &str, name: &str| {
        let c = t.bundle(sh("tail -c 60000000 /dev/zero").userns(700_000, 65536).patch(json!({
            "annotations": {"org.rustbox.limit.memory": limit, "org.rustbox.limit.wall-time": "20"},
            "linux": {"cgroupsPath": format!("/{}/{name}", parent.file_name().unwrap().to_str().unwrap())},
        })));
        let verdict =
            t.runtime(&["run", "--json", "--judge", "-b", c.bundle.to_str().unwrap(), &format!("{}-{name}", c.id)]);
        let verdict = verdict.json();
        (verdict["cause"].clone(), verdict["evidence"]["cgroup"]["oom"].clone(), verdict)
    };
    let (cause, oom, verdict) = judged("16M", "own");
    assert_eq!(cause, "mle_kernel_oom", "{verdict:#}");
    assert!(oom["local_oom"].as_u64().unwrap() > 0, "{oom}");
    let (cause, oom, verdict) = judged("200M", "ancestor");
    assert_eq!(cause, "ie_host_oom", "{verdict:#}");
    assert_eq!((oom["local_oom"].as_u64(), oom["kills"].as_u64().map(|kills| kills > 0)), (Some(0), Some(true)));
    remove(&[&parent]);
    t.assert_nothing_left();
}

#[test]
fn peak_memory_is_the_kernels() {
    v2_only!();
    let t = Test::new();
    let c = t.bundle(
        sh("head -c 20000000 /dev/zero | tail -c 20000000 >/dev/null; echo over; sleep 1000")
            .resources(json!({"memory": {"limit": 64 * MIB}})),
    );
    c.up();
    c.wait_output("over");
    if !c.cgroup_dir("").join("memory.peak").exists() {
        skip!("Linux before 5.19 has no memory.peak");
    }
    let memory = t.runtime(&["events", "--stats", &c.id]).ok().json()["data"]["memory"]["usage"].clone();
    let peak = memory["max"].as_u64().unwrap();
    assert!(peak > 19 * MIB && peak <= 64 * MIB, "{memory}");
    assert!(memory["usage"].as_u64().unwrap() < 10 * MIB, "{memory}");
}

#[test]
fn without_the_kernels_peak_the_largest_sample_is_the_peak() {
    v2_only!();
    if !Path::new("/usr/bin/strace").exists() {
        skip!("no strace, which hides memory.peak as Linux before 5.19 lacks it");
    }
    let t = Test::new();
    let id = format!("rbt-{}-sampled", t.tag);
    let peak = format!("/sys/fs/cgroup/rustbox-{id}/payload/memory.peak");
    let hidden = format!(
        "exec strace -f -qq -o {} -P {peak} -e inject=openat,openat2:error=ENOENT \"$@\"",
        t.path("calls").display()
    );
    let code = "dd if=/dev/zero of=/tmp/x bs=1048576 count=20 && sleep 0.5";
    let verdict = t.shell(&hidden, &["run", "--json", "--wall-time", "15", "--time", "10", "--code", code, &id]).json();
    let calls = fs::read_to_string(t.path("calls")).unwrap();
    assert!(calls.contains("ENOENT") && calls.contains("INJECTED"), "memory.peak was not hidden: {calls}");
    let bytes = verdict["memory_peak_bytes"].as_u64().unwrap_or_else(|| panic!("{verdict:#}"));
    assert_eq!(verdict["status"], "OK", "{verdict:#}");
    assert!(bytes > 19_000_000 && bytes < 64 * MIB, "{verdict:#}");
    t.assert_nothing_left();
}

// ---------------------------------------------------------------------------------------------------------------------
// cpu, io, pids, huge pages, rdma, misc, unified

#[test]
fn cpu_has_its_files_and_the_quota_holds() {
    v2_only!();
    let t = Test::new();
    let cpu = json!({"shares": 512, "quota": 10000, "period": 50000, "burst": 5000, "cpus": "0", "mems": "0"});
    let c = t.bundle(sh("while :; do :; done").resources(json!({"cpu": cpu})));
    c.up();
    files(&c, &[("cpu.weight", "59"), ("cpu.max", "10000 50000"), ("cpu.max.burst", "5000")]);
    files(&c, &[("cpuset.cpus", "0"), ("cpuset.cpus.effective", "0"), ("cpuset.mems", "0")]);
    until("throttling", || counted(&c, "cpu.stat", "nr_throttled") > 2);
    let throttling = t.runtime(&["events", "--stats", &c.id]).ok().json()["data"]["cpu"]["throttling"].clone();
    let number = |key: &str| throttling[key].as_u64().unwrap();
    assert!(number("throttledPeriods") > 2 && number("periods") >= number("throttledPeriods"), "{throttling}");
    assert!(number("throttledTime") > 1_000_000, "{throttling}");
    update(&c, &json!({"cpu": {"quota": -1, "burst": 0}})).ok();
    files(&c, &[("cpu.max", "max 50000"), ("cpu.max.burst", "0"), ("cpu.weight", "59")]);
    update(&c, &json!({"cpu": {"idle": 1}})).ok();
    assert_eq!(file(&c, "cpu.idle"), "1");
    update(&c, &json!({"cpu": {"cpus": "4000"}})).denied().says(&["cpuset.cpus", "4000"]);
    c.kill_and_delete();
    t.assert_nothing_left();
}

#[test]
fn real_time_and_what_else_v1_alone_has_is_refused() {
    v2_only!();
    refused(vec![
        (spec().resources(json!({"cpu": {"realtimeRuntime": 1000}})), &["cpu.realtimeRuntime"]),
        (spec().resources(json!({"blockIO": {"leafWeight": 100}})), &["blockIO.leafWeight"]),
        (spec().resources(json!({"memory": {"kernelTCP": 1_000_000}})), &["memory.kernelTCP"]),
        (spec().resources(json!({"network": {"classID": 7}})), &["net_cls"]),
    ]);
}

#[test]
fn io_limits_are_by_device() {
    v2_only!();
    let disk = fs::read_dir("/sys/block").unwrap().flatten().find_map(|disk| {
        let name = disk.file_name().into_string().ok()?;
        if ["loop", "ram", "zram"].iter().any(|kind| name.starts_with(kind)) {
            return None;
        }
        let number = fs::read_to_string(disk.path().join("dev")).ok()?;
        let (major, minor) = number.trim().split_once(':')?;
        Some((major.parse::<u64>().ok()?, minor.parse::<u64>().ok()?))
    });
    let Some((major, minor)) = disk else { skip!("no disk on this host") };
    let t = Test::new();
    let rate = |rate: u64| json!([{"major": major, "minor": minor, "rate": rate}]);
    let c = idle(&t, json!({"blockIO": {"throttleReadBpsDevice": rate(1 << 20), "throttleWriteIOPSDevice": rate(77)}}));
    c.up();
    assert_eq!(file(&c, "io.max"), format!("{major}:{minor} rbps=1048576 wbps=max riops=max wiops=77"));
    // 0 takes a throttle away, what is not named stays.
    update(&c, &json!({"blockIO": {"throttleReadBpsDevice": rate(0)}})).ok();
    assert_eq!(file(&c, "io.max"), format!("{major}:{minor} rbps=max wbps=max riops=max wiops=77"));
    update(&c, &json!({"blockIO": {"throttleReadBpsDevice": [{"major": 4095, "minor": 7, "rate": 1}]}}))
        .denied()
        .says(&["io.max", "4095:7"]);
    let weights = ["io.bfq.weight", "io.weight"];
    let out = update(&c, &json!({"blockIO": {"weight": 500}}));
    match weights.iter().find(|name| c.cgroup_dir("").join(name).exists()) {
        Some(name) => {
            out.ok();
            let value = if *name == "io.weight" { "default 4950" } else { "default 500" };
            assert_eq!(file(&c, name).lines().next(), Some(value));
        }
        None => drop(out.denied().says(&["this kernel has no `io.weight`"])),
    }
    c.kill_and_delete();
    t.assert_nothing_left();
}

#[test]
fn the_process_limit_holds_and_is_counted() {
    v2_only!();
    let t = Test::new();
    let c = t.bundle(
        sh("(for i in 1 2 3 4 5 6; do sleep 1000 & done); exec sleep 1000").resources(json!({"pids": {"limit": 5}})),
    );
    c.up();
    until("the limit", || counted(&c, "pids.events", "max") > 0);
    assert!(file(&c, "pids.current").parse::<u32>().unwrap() <= 5);
    let pids = t.runtime(&["events", "--stats", &c.id]).ok().json()["data"]["pids"].clone();
    assert_eq!(pids["limit"], 5);
    c.delete_force().ok();
    t.assert_nothing_left();
}

#[test]
fn huge_pages_are_limited_by_use_and_by_reservation() {
    v2_only!();
    if !Path::new("/sys/kernel/mm/hugepages/hugepages-2048kB").exists() {
        skip!("no huge pages of 2 MiB on this host");
    }
    let t = Test::new();
    let c = idle(&t, json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 4 * MIB}]}));
    c.up();
    files(&c, &[("hugetlb.2MB.max", "4194304"), ("hugetlb.2MB.rsvd.max", "4194304")]);
    let stats = t.runtime(&["events", "--stats", &c.id]).ok().json();
    assert_eq!(stats["data"]["hugetlb"]["2MB"]["usage"].as_u64().unwrap_or(0), 0, "{stats}");
    c.kill_and_delete();
    t.assert_nothing_left();
}

#[test]
fn rdma_and_misc_are_given_to_the_container_and_the_kernel_judges_the_device() {
    v2_only!();
    let controllers = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap();
    if !["rdma", "misc"].iter().all(|name| controllers.split_whitespace().any(|it| it == *name)) {
        skip!("this kernel has not both controllers");
    }
    let t = Test::new();
    let c = idle(&t, json!({}));
    c.up();
    assert_eq!((file(&c, "rdma.max"), file(&c, "misc.max")), (String::new(), String::new()));
    let own = file(&c, "cgroup.controllers");
    assert!(own.contains("rdma") && own.contains("misc"), "{own}");
    c.kill_and_delete();
    refused(vec![
        (
            spec().resources(json!({"rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 10000}}})),
            &["rdma.max", "mlx5_1"],
        ),
        (spec().resources(json!({"unified": {"misc.max": "sev 1"}})), &["misc.max", "sev 1"]),
    ]);
    t.assert_nothing_left();
}

#[test]
fn unified_settings_reach_their_files_by_name_and_not_those_of_the_runtime() {
    v2_only!();
    let t = Test::new();
    let c = idle(
        &t,
        json!({
            "memory": {"limit": 64 * MIB},
            "unified": {"memory.high": "50331648", "memory.max": "33554432", "cpu.weight": "7", "cgroup.max.depth": "2"},
        }),
    );
    c.up();
    // The more particular word is the last.
    files(
        &c,
        &[("memory.high", "50331648"), ("memory.max", "33554432"), ("cpu.weight", "7"), ("cgroup.max.depth", "2")],
    );
    update(&c, &json!({"unified": {"pids.max": "31", "memory.high": "max"}})).ok();
    files(&c, &[("pids.max", "31"), ("memory.high", "max"), ("cpu.weight", "7")]);
    c.kill_and_delete();
    refused(vec![
        (spec().resources(json!({"unified": {"no.such": "1"}})), &["no.such"]),
        (spec().resources(json!({"unified": {"cgroup.procs": "1"}})), &["cgroup.procs", "belongs to the runtime"]),
        (spec().resources(json!({"unified": {"cgroup.subtree_control": "+memory"}})), &["belongs to the runtime"]),
        (spec().resources(json!({"unified": {"../memory.max": "1"}})), &["has a `/`"]),
        (spec().resources(json!({"unified": {"memory.max": "much"}})), &["memory.max", "much"]),
    ]);
    t.assert_nothing_left();
}

// ---------------------------------------------------------------------------------------------------------------------
// devices, freezer, kill

#[test]
fn device_rules_are_enforced_the_last_one_wins_and_update_replaces_them() {
    v2_only!();
    // There is no driver for these: who may open one hears that there is no device, who may not hears EPERM.
    let script = "for n in 'c 230 1' 'c 230 2' 'c 231 1' 'b 230 1'; do rm -f /tmp/x; mknod /tmp/x $n; \
                  (: < /tmp/x) 2>&1 | grep -q 'No such device' && echo \"r $n\"; \
                  (: >> /tmp/x) 2>&1 | grep -q 'No such device' && echo \"w $n\"; done; echo end";
    let rule = |allow: bool, kind: &str, major: u32, minor: Option<u32>, access: &str| {
        let mut rule = json!({"allow": allow, "type": kind, "major": major, "access": access});
        if let Some(minor) = minor {
            rule["minor"] = minor.into();
        }
        rule
    };
    let deny = json!({"allow": false, "access": "rwm"});
    let rules = json!([
        deny,
        rule(true, "c", 230, None, "rw"),
        rule(false, "c", 230, Some(2), "w"),
        rule(true, "c", 231, Some(1), "w")
    ]);
    let t = Test::new();
    let spec = spec().args(&["sleep", "1000"]).tmpfs("/tmp", &["dev"]).caps(&["CAP_MKNOD"]);
    let c = t.bundle(spec.set("/linux/resources/devices", rules));
    c.up();
    let seen = || c.exec(&["sh", "-c", script]).ok().stdout;
    assert_eq!(seen(), "r c 230 1\nw c 230 1\nr c 230 2\nw c 231 1\nend\n");
    update(&c, &json!({"devices": [deny, rule(true, "b", 230, None, "r")]})).ok();
    assert_eq!(seen(), "r b 230 1\nend\n");
    update(&c, &json!({"devices": [{"allow": true, "access": "rwm"}, rule(false, "a", 230, None, "rwm")]})).ok();
    assert_eq!(seen(), "r c 231 1\nw c 231 1\nend\n");
    // What says nothing of devices leaves them.
    update(&c, &json!({"pids": {"limit": 40}})).ok();
    assert_eq!(seen(), "r c 231 1\nw c 231 1\nend\n");
    c.kill_and_delete();
    t.assert_nothing_left();
}

#[test]
fn pause_freezes_what_the_container_has_put_below_its_cgroup_too() {
    v2_only!();
    let t = Test::new();
    let script = "mkdir /sys/fs/cgroup/below; sleep 1000 & echo $! > /sys/fs/cgroup/below/cgroup.procs; echo up; wait";
    let mount = json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["rw"]});
    let c = t.bundle(sh(script).without_mount("/sys/fs/cgroup").mount(mount).namespace(json!({"type": "cgroup"})));
    c.up();
    c.wait_output("up");
    let below = c.cgroup_dir("").join("below");
    assert_eq!(cgroup::read(&below, "cgroup.procs").lines().count(), 1);
    t.runtime(&["pause", &c.id]).ok();
    assert_eq!((c.status().as_str(), counted(&c, "cgroup.events", "frozen")), ("paused", 1));
    assert!(cgroup::read(&below, "cgroup.events").contains("frozen 1"));
    t.runtime(&["resume", &c.id]).ok();
    assert_eq!((c.status().as_str(), counted(&c, "cgroup.events", "frozen")), ("running", 0));
    // Frozen again, it is killed with all that is below.
    t.runtime(&["pause", &c.id]).ok();
    c.delete_force().ok();
    assert!(!below.exists());
    t.assert_nothing_left();
}

#[test]
fn a_bomb_without_a_pid_namespace_is_killed_by_its_cgroup() {
    v2_only!();
    let t = Test::new();
    let bomb = "i=0; while [ $i -lt 20 ]; do (while :; do sleep 60 & wait; done) & i=$((i+1)); done; echo up; exit 0";
    let c = t.bundle(sh(bomb).without_namespace("pid"));
    c.up();
    c.wait_output("up");
    c.wait_status("stopped");
    assert!(file(&c, "cgroup.procs").lines().count() >= 20);
    c.delete().ok();
    t.assert_nothing_left();
}

// ---------------------------------------------------------------------------------------------------------------------
// where processes may be

#[test]
fn below_a_cgroup_with_processes_there_are_no_limits_and_it_stays_what_it_was() {
    v2_only!();
    let t = Test::new();
    let outer = idle(&t, json!({}));
    outer.up();
    let inner = |resources: Value| {
        let path = json!({"linux": {"cgroupsPath": format!("/{}/inner", outer.cgroup)}});
        t.bundle(spec().args(&["sleep", "1000"]).patch(path).resources(resources))
    };
    for (resources, file, controller) in [
        (json!({"memory": {"limit": 64 * MIB}}), "memory.max", "memory"),
        (json!({"pids": {"limit": 5}}), "pids.max", "pids"),
        (json!({"cpu": {"shares": 5}}), "cpu.weight", "cpu"),
        (json!({"unified": {"io.max": "8:0 rbps=1"}}), "io.max", "io"),
    ] {
        let refused = inner(resources);
        let out = refused.create().denied().says(&[file, &format!("`{controller}`"), &outer.cgroup]);
        out.says(&["has processes of its own", "cgroupsPath"]);
        assert!(!outer.cgroup_dir("").join("inner").exists());
    }
    files(&outer, &[("cgroup.type", "domain"), ("cgroup.subtree_control", "")]);
    let free = inner(json!({}));
    free.up();
    update(&free, &json!({"pids": {"limit": 5}})).denied().says(&["pids.max", "has processes of its own"]);
    files(&outer, &[("cgroup.type", "domain"), ("cgroup.subtree_control", "")]);
    free.kill_and_delete();
    outer.kill_and_delete();
    t.assert_nothing_left();
}

#[test]
fn a_cgroup_that_takes_no_process_is_named() {
    v2_only!();
    let t = Test::new();
    let at = |path: &Path| {
        let below = path.strip_prefix("/sys/fs/cgroup").unwrap();
        t.bundle(spec().patch(json!({"linux": {"cgroupsPath": format!("/{}", below.display())}})))
    };
    // It gives its controllers away.
    let inner = own_cgroup(&t, "inner");
    fs::create_dir(inner.join("leaf")).unwrap();
    fs::write(inner.join("cgroup.subtree_control"), "+memory").unwrap();
    let stranger = Stranger::new(&inner.join("leaf"));
    at(&inner).create().denied().says(&[inner.to_str().unwrap(), "gives controllers to its children"]);
    assert!(inner.join("leaf").exists(), "another's");
    drop(stranger);
    // A threaded cgroup's children are no domains until they are told to be threaded.
    let threaded = own_cgroup(&t, "threaded");
    fs::create_dir(threaded.join("t")).unwrap();
    fs::write(threaded.join("t/cgroup.type"), "threaded").unwrap();
    let c = at(&threaded.join("t/x"));
    c.create().denied().says(&[threaded.to_str().unwrap(), "is below a threaded one"]);
    assert!(!threaded.join("t/x").exists());
    remove(&[&inner.join("leaf"), &inner, &threaded.join("t"), &threaded]);
    t.assert_nothing_left();
}

// ---------------------------------------------------------------------------------------------------------------------
// delegation and nesting

/// Skips the test where the shell cannot make a cgroup namespace.
macro_rules! needs_unshare {
    () => {
        if !std::process::Command::new("unshare").args(["-C", "true"]).status().is_ok_and(|it| it.success()) {
            skip!("the `unshare` of this host makes no cgroup namespaces");
        }
    };
}

/// The cgroup that delegates.
fn above(t: &Test) -> PathBuf {
    Path::new("/sys/fs/cgroup").join(format!("rustbox-test-{}-above", t.tag))
}

/// Runs a container by a runtime in a cgroup namespace of its own, whose root is a fresh cgroup that has been given these
/// controllers; in a leaf of it, or in that root itself.
fn delegated(c: &Container<'_>, controllers: &str, leaf: bool) -> Out {
    let above = above(c.test);
    if !above.exists() {
        fs::create_dir(&above).unwrap();
        fs::write(above.join("cgroup.subtree_control"), controllers).unwrap();
    }
    let root = above.join(&c.id);
    fs::create_dir(&root).unwrap();
    let leaf = if leaf { "mkdir /sys/fs/cgroup/leaf && echo 0 > /sys/fs/cgroup/leaf/cgroup.procs &&" } else { "" };
    let inside = format!("umount /sys/fs/cgroup && mount -t cgroup2 cgroup2 /sys/fs/cgroup && {leaf} exec \"$@\"");
    let script = format!("echo 0 > {}/cgroup.procs && exec unshare -m -C sh -c '{inside}' sh \"$@\"", root.display());
    c.test.shell(&script, &["run", "--bundle", c.bundle.to_str().unwrap(), &c.id])
}

/// Nothing is left, the cgroup that delegates among it.
#[track_caller]
fn nothing_delegated_left(t: &Test) {
    let above = above(t);
    for root in fs::read_dir(&above).unwrap().flatten().filter(|entry| entry.path().is_dir()) {
        remove(&[&root.path().join("leaf"), &root.path()]);
    }
    remove(&[&above]);
    t.assert_nothing_left();
}

#[test]
fn a_controller_that_is_not_delegated_is_refused_and_the_others_work() {
    v2_only!();
    needs_unshare!();
    let t = Test::new();
    let mount = json!({"destination": "/cg", "type": "cgroup", "source": "cgroup", "options": ["ro"]});
    let pids = t.bundle(sh("cat /cg/pids.max").mount(mount).resources(json!({"pids": {"limit": 17}})));
    assert_eq!(delegated(&pids, "+pids", true).ok().line(), "17");
    let memory = t.bundle(spec().resources(json!({"memory": {"limit": 64 * MIB}})));
    delegated(&memory, "+pids", true).denied().says(&["memory", "does not offer"]);
    nothing_delegated_left(&t);
}

#[test]
fn with_the_runtime_in_the_root_of_its_namespace_only_limits_are_refused() {
    v2_only!();
    needs_unshare!();
    let t = Test::new();
    assert_eq!(delegated(&t.bundle(sh("echo ran")), "+pids +memory", false).ok().line(), "ran");
    delegated(&t.bundle(spec().resources(json!({"pids": {"limit": 5}}))), "+pids +memory", false)
        .denied()
        .says(&["pids.max", "has processes of its own"]);
    nothing_delegated_left(&t);
}

#[test]
fn a_container_in_a_container_has_limits_of_its_own() {
    v2_only!();
    let t = Test::new();
    let mount = json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["rw"]});
    let inner = t.bundle(sh("cat /sys/fs/cgroup/pids.max; echo deep").resources(json!({"pids": {"limit": 9}})));
    let script = "mkdir /sys/fs/cgroup/leaf && echo 1 > /sys/fs/cgroup/leaf/cgroup.procs && \
                  RUSTBOX_STATE_DIR=/tmp/worker /tmp/rustbox --root /tmp/state run -b /tmp/bundle inner && \
                  ls -d /sys/fs/cgroup/*/ && cat /sys/fs/cgroup/pids.max";
    let mut outer = sh(script)
        .without_mount("/sys/fs/cgroup")
        .mount(mount)
        .namespace(json!({"type": "cgroup"}))
        .tmpfs("/tmp", &["exec", "dev"])
        .bind(inner.bundle.to_str().unwrap(), "/tmp/bundle", &["bind", "rw"])
        .bind(binary().to_str().unwrap(), "/tmp/rustbox", &["bind", "ro"])
        .resources(json!({"pids": {"limit": 50}, "devices": [{"allow": true, "access": "rwm"}]}))
        .unset("/linux/maskedPaths")
        .unset("/linux/readonlyPaths");
    outer = outer.caps(&[
        "CAP_SYS_ADMIN",
        "CAP_SETUID",
        "CAP_SETGID",
        "CAP_SETPCAP",
        "CAP_MKNOD",
        "CAP_CHOWN",
        "CAP_DAC_OVERRIDE",
        "CAP_FOWNER",
        "CAP_KILL",
        "CAP_NET_ADMIN",
        "CAP_SYS_CHROOT",
        "CAP_SYS_RESOURCE",
        "CAP_BPF",
        "CAP_NET_BIND_SERVICE",
        "CAP_AUDIT_WRITE",
    ]);
    let outer = t.bundle(outer);
    let out = outer.run().ok();
    assert_eq!(out.stdout, "9\ndeep\n/sys/fs/cgroup/leaf/\n50\n", "{out:#?}");
    t.assert_nothing_left();
}

#[test]
fn a_container_that_gives_its_controllers_away_is_entered_limited_frozen_and_ended() {
    v2_only!();
    let t = Test::new();
    let mount = json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["rw"]});
    let script = "cd /sys/fs/cgroup && mkdir leaf work && echo 1 > leaf/cgroup.procs && echo +pids > cgroup.subtree_control && \
                  echo 3 > work/pids.max && { sleep 1000 & echo $! > work/cgroup.procs; } && echo up; exec sleep 1000";
    let spec = sh(script).without_mount("/sys/fs/cgroup").mount(mount).namespace(json!({"type": "cgroup"}));
    let c = t.bundle(spec.resources(json!({"pids": {"limit": 30}})));
    c.up();
    c.wait_output("up");
    // Its own cgroup takes no process any more: who comes is beside the first one.
    assert_eq!(c.exec(&["cat", "/proc/self/cgroup"]).ok().line(), "0::/leaf");
    assert_eq!(c.exec_with(&["--cgroup", "work"], &["cat", "/proc/self/cgroup"]).ok().line(), "0::/work");
    update(&c, &json!({"pids": {"limit": 20}})).ok();
    assert_eq!((file(&c, "pids.max").as_str(), file(&c, "pids.current").as_str()), ("20", "2"));
    t.runtime(&["pause", &c.id]).ok();
    assert_eq!(counted(&c, "cgroup.events", "frozen"), 1);
    t.runtime(&["resume", &c.id]).ok();
    let pids = t.runtime(&["ps", "--format", "json", &c.id]).ok().json();
    assert_eq!(pids.as_array().map(Vec::len), Some(2), "{pids}");
    c.kill_and_delete();
    t.assert_nothing_left();
}

// ---------------------------------------------------------------------------------------------------------------------
// statistics

#[test]
fn statistics_are_runcs_with_pressure() {
    v2_only!();
    let t = Test::new();
    let c = t.bundle(sh("i=0; while [ $i -lt 3000 ]; do i=$((i+1)); done; echo up; sleep 1000").resources(
        json!({"memory": {"limit": 64 * MIB, "swap": 96 * MIB}, "pids": {"limit": 30}, "cpu": {"shares": 100}}),
    ));
    c.up();
    c.wait_output("up");
    let event = t.runtime(&["events", "--stats", &c.id]).ok().json();
    let data = &event["data"];
    let number =
        |pointer: &str| data.pointer(pointer).and_then(Value::as_u64).unwrap_or_else(|| panic!("{pointer}: {data}"));
    assert_eq!((number("/memory/usage/limit"), number("/memory/swap/limit")), (64 * MIB, 96 * MIB));
    assert!(number("/memory/swap/usage") >= number("/memory/usage/usage"), "both together, as v1 has it");
    // In nanoseconds, of the kernel's microseconds.
    let total = number("/cpu/usage/total");
    assert!(total > 1_000_000 && total / 1000 <= counted(&c, "cpu.stat", "usage_usec"), "{data}");
    assert!(number("/cpu/usage/user") + number("/cpu/usage/kernel") > 0);
    for key in ["anon", "file", "kernel_stack", "slab", "pgfault", "inactive_file"] {
        number(&format!("/memory/raw/{key}"));
    }
    if Path::new("/proc/pressure/cpu").exists() {
        for kind in ["cpu", "memory", "blkio"] {
            for pointer in ["some/avg10", "some/avg60", "some/avg300", "some/total", "full/total"] {
                let value = data.pointer(&format!("/{kind}/psi/{pointer}"));
                assert!(value.is_some_and(Value::is_number), "{kind} {pointer}: {data}");
            }
        }
    }
    c.kill_and_delete();
    t.assert_nothing_left();
}

#[test]
fn a_cgroup_with_a_stranger_is_shared_and_the_stranger_lives_on() {
    v2_only!();
    let t = Test::new();
    let shared = own_cgroup(&t, "shared");
    let mut stranger = Stranger::new(&shared);
    let name = shared.file_name().unwrap().to_str().unwrap();
    let c = t.bundle(spec().args(&["sleep", "1000"]).patch(json!({"linux": {"cgroupsPath": format!("/{name}")}})));
    c.create().ok().says(&["is not empty"]);
    c.start().ok();
    c.kill_and_delete();
    assert!(stranger.0.try_wait().unwrap().is_none(), "the stranger was killed");
    drop(stranger);
    remove(&[&shared]);
    t.assert_nothing_left();
}
