//! `linux.resources` and `linux.cgroupsPath`, read back from the container's cgroups.

mod common;

use std::fs;
use std::path::Path;

use common::*;
use serde_json::Value;

const MIB: u64 = 1 << 20;

/// Creates a container with these resources and reads its cgroup files; `-` in front of a file name skips what the
/// kernel lacks.
#[track_caller]
fn resources(resources: Value, expected: &[(&str, &str, &str)]) {
    let t = Test::new();
    let c = t.bundle(spec().args(&["sleep", "1000"]).resources(resources));
    c.create().ok();
    for (controller, file, value) in expected {
        assert_eq!(c.cgroup_file(controller, file), *value, "{controller}/{file}");
    }
    c.delete_force().ok();
    t.assert_nothing_left();
}

// ---------------------------------------------------------------------------------------------------------------------
// membership

#[test]
fn the_container_is_in_its_cgroup_in_every_hierarchy() {
    let t = Test::new();
    let c = t.bundle(spec().args(&["sleep", "1000"]));
    c.create().ok();
    let pid = c.pid().to_string();
    for controller in ["cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids"] {
        assert_eq!(c.cgroup_file(controller, "cgroup.procs"), pid, "{controller} after create");
    }
    c.start().ok();
    for controller in ["memory", "pids", "freezer"] {
        assert_eq!(c.cgroup_file(controller, "cgroup.procs"), pid, "{controller} after start");
    }
    let own = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert_eq!(membership(&own, "memory"), format!("/{}", c.cgroup));
    c.kill_and_delete();
    t.assert_nothing_left();
}

#[test]
fn on_hybrid_the_named_systemd_and_the_unified_hierarchy_are_joined_too() {
    not_under!(Crun, "refuses hybrid");
    let t = Test::new();
    let c = t.bundle(spec().args(&["sleep", "1000"]));
    c.create().ok();
    let pid = c.pid().to_string();
    for hierarchy in ["systemd", "unified"] {
        if !Path::new("/sys/fs/cgroup").join(hierarchy).join("cgroup.procs").exists() {
            skip!("no {hierarchy} hierarchy on this host");
        }
        assert_eq!(c.cgroup_file(hierarchy, "cgroup.procs"), pid, "{hierarchy}");
    }
    c.delete_force().ok();
    t.assert_nothing_left();
}

#[test]
fn children_of_the_program_are_in_the_cgroup() {
    let t = Test::new();
    let c = t.bundle(sh("sleep 3001 & sleep 3002 & echo up; wait"));
    c.up();
    c.wait_output("up");
    assert_eq!(c.cgroup_file("memory", "cgroup.procs").lines().count(), 3);
    assert_eq!(c.cgroup_file("pids", "pids.current"), "3");
}

#[test]
fn without_a_cgroups_path_the_container_has_a_cgroup_of_its_own_that_delete_removes() {
    let t = Test::new();
    let c = t.bundle(spec().args(&["sleep", "1000"]).patch(json!({"linux": {"cgroupsPath": ""}})));
    c.up();
    let cgroups = fs::read_to_string(format!("/proc/{}/cgroup", c.pid())).unwrap();
    let pids = membership(&cgroups, "pids");
    assert!(pids.contains(&c.id), "{cgroups}");
    c.kill_and_delete();
    assert!(!hierarchy("pids").join(&pids[1..]).exists());
    t.assert_nothing_left();
}

#[test]
fn a_nested_cgroups_path_is_made_whole_and_removed() {
    let t = Test::new();
    let name = format!("rustbox-test-{}-nested", t.tag);
    let c = t.bundle(spec().args(&["sleep", "1000"]).patch(json!({"linux": {"cgroupsPath": format!("/{name}/a/b")}})));
    c.up();
    let dir = hierarchy("memory").join(name).join("a/b");
    assert_eq!(cgroup::read(&dir, "cgroup.procs"), c.pid().to_string());
    c.kill_and_delete();
    assert!(!dir.exists());
}

#[test]
fn a_relative_cgroups_path_lands_below_a_place_of_the_runtimes_choice() {
    let t = Test::new();
    let name = format!("rustbox-test-{}-relative", t.tag);
    let c = t.bundle(spec().args(&["sleep", "1000"]).patch(json!({"linux": {"cgroupsPath": name}})));
    c.up();
    let cgroups = fs::read_to_string(format!("/proc/{}/cgroup", c.pid())).unwrap();
    assert!(membership(&cgroups, "pids").ends_with(&name), "{cgroups}");
    c.kill_and_delete();
    t.assert_nothing_left();
}

#[test]
fn two_containers_may_share_a_parent_cgroup() {
    let t = Test::new();
    let parent = format!("rustbox-test-{}-parent", t.tag);
    let path = |name: &str| json!({"linux": {"cgroupsPath": format!("/{parent}/{name}")}});
    let a = t.bundle(spec().args(&["sleep", "1000"]).patch(path("a")));
    let b = t.bundle(spec().args(&["sleep", "1000"]).patch(path("b")));
    a.up();
    b.up();
    a.kill_and_delete();
    assert_eq!(b.status(), "running");
    let place = hierarchy("memory").join(parent).join("b");
    assert!(place.exists());
    b.kill_and_delete();
    assert!(!place.exists());
}

#[test]
fn a_failed_create_in_a_cgroup_with_a_stranger_in_it_leaves_the_stranger_alone() {
    let t = Test::new();
    let c = t.bundle(spec().args(&["sleep", "1000"]));
    c.up();
    let pid = c.pid();
    let path = json!({"linux": {"cgroupsPath": format!("/{}", c.cgroup)}});
    let second = t.bundle(spec().args(&["no-such-program"]).patch(path));
    second.create();
    second.start();
    second.delete_force();
    assert!(alive(pid), "a failed create killed what was in the cgroup before");
    assert_eq!(c.status(), "running");
}

#[test]
fn sigkill_reaches_the_container_and_not_a_stranger_in_its_cgroup() {
    // Without a pid namespace the whole container is to die, and its cgroup says who that is; but not this one.
    rustbox_only!();
    let t = Test::new();
    let stranger = t.bundle(spec().args(&["sleep", "1000"]));
    stranger.up();
    let path = json!({"linux": {"cgroupsPath": format!("/{}", stranger.cgroup)}});
    for all in [false, true] {
        let c = t.bundle(spec().args(&["sleep", "1000"]).without_namespace("pid").patch(path.clone()));
        c.up();
        let mut kill = vec!["kill", &c.id, "KILL"];
        if all {
            kill.push("--all");
        }
        t.runtime(&kill).ok();
        c.wait_status("stopped");
        c.delete().ok();
        assert_eq!(stranger.status(), "running", "all: {all}");
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// memory

#[test]
fn memory_limits_are_written() {
    resources(
        json!({"memory": {"limit": 64 * MIB, "reservation": 32 * MIB}}),
        &[("memory", "memory.limit_in_bytes", "67108864"), ("memory", "memory.soft_limit_in_bytes", "33554432")],
    );
}

#[test]
fn memory_swap_is_the_sum_of_memory_and_swap() {
    let t = Test::new();
    let c =
        t.bundle(spec().args(&["sleep", "1000"]).resources(json!({"memory": {"limit": 64 * MIB, "swap": 96 * MIB}})));
    if !unified() && !Path::new("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes").exists() {
        skip!("the kernel does not account for swap");
    }
    c.create().ok();
    assert_eq!(c.cgroup_file("memory", "memory.limit_in_bytes"), "67108864");
    assert_eq!(c.cgroup_file("memory", "memory.memsw.limit_in_bytes"), "100663296");
}

#[test]
fn memory_minus_one_is_unlimited() {
    resources(json!({"memory": {"limit": -1}}), &[("memory", "memory.limit_in_bytes", "9223372036854771712")]);
}

#[test]
fn memory_swappiness_and_oom_killer_are_written() {
    if unified() {
        // v2 has neither: what is asked for and cannot be had is refused.
        return refused(vec![
            (spec().resources(json!({"memory": {"swappiness": 7}})), &["memory.swappiness"]),
            (spec().resources(json!({"memory": {"disableOOMKiller": true}})), &["memory.disableOOMKiller"]),
        ]);
    }
    let t = Test::new();
    let c = t.bundle(
        spec()
            .args(&["sleep", "1000"])
            .resources(json!({"memory": {"limit": 64 * MIB, "swappiness": 7, "disableOOMKiller": true}})),
    );
    c.create().ok();
    assert_eq!(c.cgroup_file("memory", "memory.swappiness"), "7");
    assert!(c.cgroup_file("memory", "memory.oom_control").contains("oom_kill_disable 1"));
}

#[test]
fn the_memory_limit_kills() {
    let t = Test::new();
    let c = t.bundle(
        sh("head -c 100m /dev/zero | tail -c 100m | wc -c; exit 0")
            .resources(json!({"memory": {"limit": 16 * MIB, "swap": 16 * MIB}})),
    );
    let out = c.run();
    assert!(!out.stdout.contains("104857600"), "{out:?}");
    t.assert_nothing_left();
}

// ---------------------------------------------------------------------------------------------------------------------
// cpu, cpuset, pids

#[test]
fn cpu_shares_quota_and_period_are_written() {
    resources(
        json!({"cpu": {"shares": 512, "quota": 20000, "period": 50000}}),
        &[("cpu", "cpu.shares", "512"), ("cpu", "cpu.cfs_quota_us", "20000"), ("cpu", "cpu.cfs_period_us", "50000")],
    );
    resources(json!({"cpu": {"quota": -1}}), &[("cpu", "cpu.cfs_quota_us", "-1")]);
    resources(json!({"cpu": {"period": 200000}}), &[("cpu", "cpu.cfs_period_us", "200000")]);
}

#[test]
fn a_quota_that_only_fits_the_new_period_is_written_in_the_right_order() {
    resources(
        json!({"cpu": {"quota": 1_500_000, "period": 1_000_000}}),
        &[("cpu", "cpu.cfs_quota_us", "1500000"), ("cpu", "cpu.cfs_period_us", "1000000")],
    );
    resources(
        json!({"cpu": {"quota": 1000, "period": 1000}}),
        &[("cpu", "cpu.cfs_quota_us", "1000"), ("cpu", "cpu.cfs_period_us", "1000")],
    );
}

#[test]
fn cpu_burst_and_idle_are_written() {
    not_under!(Runc, "does not know them yet");
    not_under!(Crun, "does not know them yet");
    resources(
        json!({"cpu": {"quota": 20000, "period": 50000, "burst": 10000}}),
        &[("cpu", "cpu.cfs_burst_us", "10000")],
    );
    resources(json!({"cpu": {"idle": 1}}), &[("cpu", "cpu.idle", "1")]);
}

#[test]
fn cpuset_is_written_and_holds() {
    resources(
        json!({"cpu": {"cpus": "0", "mems": "0"}}),
        &[("cpuset", "cpuset.cpus", "0"), ("cpuset", "cpuset.mems", "0")],
    );
    assert_eq!(output_of(spec().args(&["nproc"]).resources(json!({"cpu": {"cpus": "0"}}))), "1");
}

#[test]
fn without_a_cpuset_the_parents_is_inherited() {
    let t = Test::new();
    let c = t.bundle(spec().args(&["sleep", "1000"]));
    c.create().ok();
    assert!(!c.cgroup_file("cpuset", "cpuset.cpus").is_empty());
    assert!(!c.cgroup_file("cpuset", "cpuset.mems").is_empty());
}

/// Linux 6.2 keeps a mask that a process has been given, also where its cpuset gets more processors: the runtime must not have
/// made one of what it may use itself.
#[test]
fn the_creators_cpuset_is_no_mask_of_the_container() {
    let root = std::path::Path::new("/sys/fs/cgroup/cpuset");
    let allowed = |status: &str| status.lines().find(|line| line.starts_with("Cpus_allowed_list:")).map(str::to_owned);
    let all = allowed(&std::fs::read_to_string("/proc/self/status").unwrap()).unwrap();
    if !root.exists() || !all.contains(['-', ',']) {
        return report_skip("there is no cpuset of cgroup v1 here, or only one processor");
    }
    let t = Test::new();
    let narrow = root.join(format!("narrow-{}", t.tag));
    let c = t.bundle(spec().args(&["grep", "Cpus_allowed_list", "/proc/self/status"]));
    let script = "mkdir $0 && echo 0 >$0/cpuset.cpus && cat $0/../cpuset.mems >$0/cpuset.mems && echo $$ >$0/tasks || exit 9; exec \"$@\"";
    let script = script.replace("$0", narrow.to_str().unwrap());
    let run = t.shell(&script, &["run", "--bundle", c.bundle.to_str().unwrap(), &c.id]);
    std::fs::remove_dir(&narrow).unwrap();
    assert_eq!(run.ok().line(), all);
    t.assert_nothing_left();
}

#[test]
fn the_pids_limit_is_written_and_holds() {
    resources(json!({"pids": {"limit": 17}}), &[("pids", "pids.max", "17")]);
    resources(json!({"pids": {"limit": -1}}), &[("pids", "pids.max", "max")]);
    let t = Test::new();
    let script = "n=0; for i in 1 2 3 4 5 6 7 8 9; do (sleep 5 & ) 2>/dev/null || break; done; cat /sys/fs/cgroup/pids/pids.current || cat /sys/fs/cgroup/pids.current";
    let c = t.bundle(sh(script).resources(json!({"pids": {"limit": 5}})));
    let out = c.run();
    let count: u32 = out.stdout.trim().parse().unwrap_or_else(|_| panic!("{out:?}"));
    assert!(count <= 5, "{out:?}");
    t.assert_nothing_left();
}

// ---------------------------------------------------------------------------------------------------------------------
// the rest

#[test]
fn network_rdma_hugepage_and_blkio_are_written_where_the_kernel_has_them() {
    let t = Test::new();
    let throttle = json!({"blockIO": {"throttleReadBpsDevice": [{"major": 254, "minor": 0, "rate": 1048576}]}});
    let c = t.bundle(spec().args(&["sleep", "1000"]).resources(throttle));
    if !Path::new("/sys/fs/cgroup/blkio/blkio.throttle.read_bps_device").exists() {
        skip!("no blkio throttling in this kernel");
    }
    if !Path::new("/sys/dev/block/254:0").exists() {
        skip!("no block device 254:0");
    }
    c.create().ok();
    assert_eq!(c.cgroup_file("blkio", "blkio.throttle.read_bps_device"), "254:0 1048576");
}

#[test]
fn a_controller_that_the_host_lacks_is_refused_by_name_when_it_is_asked_for() {
    rustbox_only!();
    if Path::new("/sys/fs/cgroup/net_cls").exists() {
        skip!("this host has net_cls");
    }
    refused(vec![(spec().resources(json!({"network": {"classID": 1048577}})), &["net_cls"])]);
}

#[test]
fn a_unified_setting_beside_v1_is_written_or_refused_and_never_ignored() {
    rustbox_only!();
    let unified = Path::new("/sys/fs/cgroup/unified");
    if !unified.join("cgroup.procs").exists() {
        skip!("no v2 hierarchy beside v1 on this host");
    }
    let t = Test::new();
    let c = t.bundle(
        spec()
            .args(&["sleep", "1000"])
            .resources(json!({"unified": {"cgroup.max.descendants": "3", "cgroup.max.depth": "2"}})),
    );
    c.create().ok();
    assert_eq!(c.cgroup_file("unified", "cgroup.max.descendants"), "3");
    assert_eq!(c.cgroup_file("unified", "cgroup.max.depth"), "2");
    c.delete_force().ok();
    t.assert_nothing_left();
    // What only a controller has that v1 has taken, and what nothing has.
    if !fs::read_to_string(unified.join("cgroup.controllers")).unwrap().contains("memory") {
        refused(vec![(spec().resources(json!({"unified": {"memory.high": "1000000"}})), &["memory.high"])]);
    }
    refused(vec![(spec().resources(json!({"unified": {"no.such": "1"}})), &["no.such"])]);
}

#[test]
fn devices_are_denied_by_default_and_allowed_by_rule() {
    let try_kmsg = "mknod /tmp/full c 1 7 2>/dev/null; (echo x > /tmp/full) 2>&1 | grep -q 'No space' && echo allowed; \
                    mknod /tmp/mem c 1 1 2>/dev/null && echo made; (head -c 1 /tmp/mem >/dev/null) 2>/dev/null && echo read; echo end";
    let spec = |rules: Value| {
        sh(try_kmsg)
            .tmpfs("/tmp", &["dev"])
            .caps(&["CAP_MKNOD", "CAP_SYS_RAWIO"])
            .set("/linux/resources/devices", rules)
    };
    let deny = json!([{"allow": false, "access": "rwm"}]);
    assert_eq!(output_of(spec(deny)), "allowed\nmade\nend", "default devices and mknod are allowed, /dev/mem is not");
    let allow =
        json!([{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 1, "minor": 1, "access": "r"}]);
    let out = output_of(spec(allow));
    assert!(out.contains("made"), "{out}");
}

#[test]
fn device_rules_are_in_the_kernels_list() {
    if unified() {
        skip!("cgroup v2 keeps no list of device rules, tests/cgroup_v2.rs tries them");
    }
    let rules = json!([
        {"allow": false, "access": "rwm"},
        {"allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw"},
        {"allow": true, "type": "b", "major": 7, "access": "r"}
    ]);
    let t = Test::new();
    let c = t.bundle(spec().args(&["sleep", "1000"]).set("/linux/resources/devices", rules));
    c.create().ok();
    let list = c.cgroup_file("devices", "devices.list");
    for line in ["c 10:229 rw", "b 7:* r", "c 1:3 rwm", "c 5:0 rwm"] {
        assert!(list.lines().any(|other| other == line), "{line}: {list}");
    }
    assert!(!list.contains("a *:* rwm"), "{list}");
}

#[test]
fn an_empty_device_list_denies_unknown_devices_too() {
    if unified() {
        skip!("cgroup v2 keeps no list of device rules, tests/cgroup_v2.rs tries them");
    }
    let t = Test::new();
    let c = t.bundle(spec().args(&["sleep", "1000"]).set("/linux/resources/devices", json!([])));
    c.create().ok();
    let list = c.cgroup_file("devices", "devices.list");
    assert!(!list.contains("a *:* rwm"), "{list}");
}

#[test]
fn update_changes_a_running_container() {
    let t = Test::new();
    let c = t.bundle(
        spec().args(&["sleep", "1000"]).resources(json!({"memory": {"limit": 64 * MIB}, "pids": {"limit": 10}})),
    );
    c.up();
    let file = t.path("resources.json");
    fs::write(&file, json!({"memory": {"limit": 32 * MIB}, "pids": {"limit": 20}, "cpu": {"shares": 100}}).to_string())
        .unwrap();
    t.runtime(&["update", "--resources", file.to_str().unwrap(), &c.id]).ok();
    assert_eq!(c.cgroup_file("memory", "memory.limit_in_bytes"), (32 * MIB).to_string());
    assert_eq!(c.cgroup_file("pids", "pids.max"), "20");
    assert_eq!(c.cgroup_file("cpu", "cpu.shares"), "100");
}
