//! `update`: every option, the resources document, and that one which fails changes nothing.

mod common;

use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};

use common::*;

fn up(t: &Test) -> Container<'_> {
    let c = t.bundle(spec().args(&["sleep", "1000"]));
    c.up();
    c
}

fn update(c: &Container<'_>, options: &[&str]) -> Out {
    c.test.runtime(&[&["update"], options, &[&c.id]].concat())
}

#[test]
fn every_option_reaches_its_file() {
    let t = Test::new();
    let c = up(&t);
    for (option, value, controller, file, expected) in [
        ("--memory", "67108864", "memory", "memory.limit_in_bytes", "67108864"),
        ("--memory", "96m", "memory", "memory.limit_in_bytes", "100663296"),
        ("--memory-swap", "200M", "memory", "memory.memsw.limit_in_bytes", "209715200"),
        ("--memory-reservation", "32MiB", "memory", "memory.soft_limit_in_bytes", "33554432"),
        ("--cpu-share", "512", "cpu", "cpu.shares", "512"),
        ("--cpu-period", "50000", "cpu", "cpu.cfs_period_us", "50000"),
        ("--cpu-quota", "20000", "cpu", "cpu.cfs_quota_us", "20000"),
        ("--cpu-quota", "-1", "cpu", "cpu.cfs_quota_us", "-1"),
        ("--cpuset-cpus", "0", "cpuset", "cpuset.cpus", "0"),
        ("--cpuset-mems", "0", "cpuset", "cpuset.mems", "0"),
        ("--pids-limit", "40", "pids", "pids.max", "40"),
        ("--pids-limit", "-1", "pids", "pids.max", "max"),
    ] {
        update(&c, &[option, value]).ok();
        assert_eq!(c.cgroup_file(controller, file), expected, "{option} {value}");
    }
    assert_eq!(c.status(), "running");
    c.kill_and_delete();
    t.assert_nothing_left();
}

#[test]
fn several_options_are_one_update_and_the_rest_stays() {
    let t = Test::new();
    let c = up(&t);
    update(&c, &["--memory", "64m", "--cpu-quota", "5000", "--cpu-period", "10000", "--pids-limit", "9"]).ok();
    update(&c, &["--cpu-share", "300", "--memory", "0", "--pids-limit", "0"]).ok();
    assert_eq!(c.cgroup_file("memory", "memory.limit_in_bytes"), "67108864");
    assert_eq!(c.cgroup_file("cpu", "cpu.cfs_quota_us"), "5000");
    assert_eq!(c.cgroup_file("cpu", "cpu.shares"), "300");
    assert_eq!(c.cgroup_file("pids", "pids.max"), "9");
    update(&c, &[]).ok();
    c.kill_and_delete();
}

#[test]
fn unlimited_memory_frees_the_sum_with_swap_too() {
    let t = Test::new();
    let c = up(&t);
    update(&c, &["--memory", "64m", "--memory-swap", "64m"]).ok();
    update(&c, &["--memory", "-1"]).ok();
    for file in ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"] {
        assert!(c.cgroup_file("memory", file).parse::<u64>().unwrap() > 1 << 60, "{file}");
    }
    c.kill_and_delete();
}

#[test]
fn a_resources_document_comes_from_a_file_or_from_stdin() {
    let t = Test::new();
    let c = up(&t);
    let file = t.path("resources.json");
    fs::write(&file, r#"{"memory": {"limit": 50331648}, "cpu": {"shares": 222}}"#).unwrap();
    update(&c, &["-r", file.to_str().unwrap()]).ok();
    assert_eq!(c.cgroup_file("memory", "memory.limit_in_bytes"), "50331648");
    assert_eq!(c.cgroup_file("cpu", "cpu.shares"), "222");

    let mut command = Command::new(binary());
    command.arg("--root").arg(&t.root).args(["update", "--resources=-", &c.id]);
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(br#"{"pids": {"limit": 77}}"#).unwrap();
    drop(writer);
    t.spawn(command, Stdio::from(reader)).wait().ok();
    assert_eq!(c.cgroup_file("pids", "pids.max"), "77");
    assert_eq!(c.cgroup_file("cpu", "cpu.shares"), "222");
    c.kill_and_delete();
}

#[test]
fn garbage_in_a_resources_document_is_an_error_that_names_it() {
    let t = Test::new();
    let c = up(&t);
    let file = t.path("resources.json");
    for (text, words) in [
        ("garbage", &["resources.json", "is not JSON"][..]),
        ("", &["is not JSON"]),
        ("[]", &["resources.json"]),
        (r#"{"memory": {"limit": "lots"}}"#, &["$.memory.limit"]),
        (r#"{"memory": {"limit": 1.5}}"#, &["$.memory.limit"]),
        (r#"{"pids": {"limit": -5}}"#, &["$.pids.limit"]),
        (r#"{"memory": {"limit": 100, "swap": 50}}"#, &["memory.swap"]),
    ] {
        fs::write(&file, text).unwrap();
        not_crash(update(&c, &["--resources", file.to_str().unwrap()]), text).rustbox_says(words);
    }
    update(&c, &["--resources", "/nonexistent/file"]).denied().rustbox_says(&["/nonexistent/file", "No such file"]);
    assert_eq!(c.status(), "running");
    c.kill_and_delete();
}

/// Under a peer that takes it there is nothing to hold.
#[track_caller]
fn not_crash(out: Out, text: &str) -> Out {
    assert!(peer() != Peer::Rustbox || out.code == 1, "{text}: {out:#?}");
    out
}

#[test]
fn values_that_are_none_are_usage_errors_that_name_the_option() {
    let t = Test::new();
    let c = up(&t);
    for (option, value) in [
        ("--memory", "lots"),
        ("--memory", "-7"),
        ("--memory-swap", "1x"),
        ("--memory-reservation", "99999999999999999999"),
        ("--cpu-period", "foo"),
        ("--cpu-quota", "1.5"),
        ("--cpu-share", "-3"),
        ("--pids-limit", "many"),
        ("--blkio-weight", "heavy"),
    ] {
        update(&c, &[&format!("{option}={value}")]).usage().rustbox_says(&[option, value]);
    }
    update(&c, &["--no-such-limit", "1"]).usage();
    c.kill_and_delete();
}

#[test]
fn an_update_that_fails_half_way_changes_nothing() {
    let t = Test::new();
    let c = up(&t);
    update(&c, &["--memory", "64m", "--cpu-share", "100", "--pids-limit", "50"]).ok();
    if unified() {
        // v2 takes any memory limit, and kills for it. A device that is not there has no throttle, and comes late.
        let file = t.path("resources.json");
        let throttle = json!([{"major": 4095, "minor": 0, "rate": 1}]);
        let resources = json!({"cpu": {"shares": 900}, "pids": {"limit": 60}, "memory": {"limit": 32 << 20},
                               "blockIO": {"throttleReadBpsDevice": throttle}});
        fs::write(&file, resources.to_string()).unwrap();
        update(&c, &["--resources", file.to_str().unwrap()]).denied().rustbox_says(&["io.max", "4095:0"]);
    } else {
        // The memory that is in use cannot be reclaimed: CPU shares are written before.
        update(&c, &["--cpu-share", "900", "--pids-limit", "60", "--memory", "4096"])
            .denied()
            .rustbox_says(&["memory limit"]);
    }
    assert_eq!(c.cgroup_file("memory", "memory.limit_in_bytes"), "67108864");
    if peer() == Peer::Rustbox {
        assert_eq!(c.cgroup_file("cpu", "cpu.shares"), "100");
        assert_eq!(c.cgroup_file("pids", "pids.max"), "50");
    }
    // Several files of one controller, two of which constrain each other.
    update(&c, &["--cpu-share", "800", "--cpu-quota", "5000", "--cpuset-cpus", "4000"]).denied();
    assert_eq!(c.cgroup_file("cpuset", "cpuset.cpus"), cgroup::value(&hierarchy("cpuset"), "cpuset.cpus"));
    if peer() == Peer::Rustbox {
        assert_eq!(c.cgroup_file("cpu", "cpu.shares"), "100");
        assert_eq!(c.cgroup_file("cpu", "cpu.cfs_quota_us"), "-1");
    }
    c.kill_and_delete();
    t.assert_nothing_left();
}

#[test]
fn created_and_paused_containers_can_be_updated_and_stopped_ones_cannot() {
    let t = Test::new();
    let c = t.bundle(spec().args(&["sleep", "1000"]));
    c.create().ok();
    update(&c, &["--cpu-share", "120"]).ok();
    c.start().ok();
    t.runtime(&["pause", &c.id]).ok();
    update(&c, &["--cpu-share", "130"]).ok();
    assert_eq!(c.cgroup_file("cpu", "cpu.shares"), "130");
    assert_eq!(c.status(), "paused");
    t.runtime(&["resume", &c.id]).ok();
    c.kill("KILL").ok();
    c.wait_status("stopped");
    update(&c, &["--cpu-share", "140"]).denied().rustbox_says(&[&c.id, "stopped"]);
    assert_eq!(c.cgroup_file("cpu", "cpu.shares"), "130");
    c.delete().ok();
    update(&c, &["--cpu-share", "140"]).denied().rustbox_says(&[&c.id, "does not exist"]);
}

#[test]
fn a_control_that_the_host_lacks_is_refused_and_changes_nothing() {
    rustbox_only!();
    let t = Test::new();
    let c = up(&t);
    let shares = c.cgroup_file("cpu", "cpu.shares");
    update(&c, &["--cpu-share", "99", "--l3-cache-schema", "L3:0=f"]).denied().says(&["intelRdt"]);
    assert_eq!(c.cgroup_file("cpu", "cpu.shares"), shares);
    let weights = ["blkio.weight", "blkio.bfq.weight", "io.weight", "io.bfq.weight"];
    if !weights.iter().any(|file| c.cgroup_dir("blkio").join(file).exists()) {
        update(&c, &["--cpu-share", "99", "--blkio-weight", "500"]).denied().says(&[if unified() {
            "io.weight"
        } else {
            "blkio.weight"
        }]);
        assert_eq!(c.cgroup_file("cpu", "cpu.shares"), shares);
    }
    c.kill_and_delete();
}
