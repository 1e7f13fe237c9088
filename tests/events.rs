//! `events`: statistics in runc's shape, OOM notifications, and when it ends.

mod common;

use std::process::{Command, Stdio};

use common::*;
use serde_json::Value;

fn events(c: &Container<'_>, options: &[&str]) -> Out {
    c.test.runtime(&[&["events"], options, &[&c.id]].concat())
}

fn follow(c: &Container<'_>, options: &[&str]) -> Running {
    let mut command = Command::new(binary());
    command.arg("--root").arg(&c.test.root).arg("events").args(options).arg(&c.id);
    c.test.spawn(command, Stdio::null())
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

#[test]
fn stats_are_one_line_of_runcs_shape() {
    not_under!(Crun, "has no events");
    let t = Test::new();
    let c = t.bundle(sh("i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; sleep 1001 & sleep 1002 & echo up; wait").resources(
        json!({"memory": {"limit": 67_108_864}, "pids": {"limit": 30}, "cpu": {"quota": 90_000, "period": 100_000, "cpus": "0"}}),
    ));
    c.up();
    c.wait_output("up");
    let out = events(&c, &["--stats"]).ok();
    assert_eq!(out.stdout.lines().count(), 1, "{out:#?}");
    let event = out.json();
    assert_eq!((event["type"].as_str(), event["id"].as_str()), (Some("stats"), Some(c.id.as_str())));
    let data = &event["data"];
    for key in ["cpu", "cpuset", "memory", "pids", "blkio", "hugetlb", "intel_rdt"] {
        assert!(data[key].is_object(), "{key}: {data}");
    }
    assert!(data.as_object().unwrap().contains_key("network_interfaces"), "{data}");
    let number =
        |pointer: &str| data.pointer(pointer).and_then(Value::as_u64).unwrap_or_else(|| panic!("{pointer}: {data}"));
    assert!(number("/cpu/usage/total") > 1_000_000);
    if unified() {
        // v2 counts by cgroup alone, and has no hierarchical limit. tests/cgroup_v2.rs holds what it has instead.
        assert_eq!(data["cpu"]["usage"].get("percpu"), None, "{data}");
        assert_eq!(data.pointer("/memory/raw/hierarchical_memory_limit"), None, "{data}");
    } else {
        let per_cpu: u64 = data["cpu"]["usage"]["percpu"].as_array().unwrap().iter().filter_map(Value::as_u64).sum();
        assert!(per_cpu >= number("/cpu/usage/total") / 2, "{data}");
        assert_eq!(data["cpuset"]["cpus"], json!([0]));
        assert_eq!(number("/memory/raw/hierarchical_memory_limit"), 67_108_864);
    }
    number("/cpu/usage/kernel");
    number("/cpu/usage/user");
    assert!(data["cpu"]["throttling"].is_object());
    assert_eq!(number("/memory/usage/limit"), 67_108_864);
    assert!((1..67_108_864).contains(&number("/memory/usage/usage")));
    assert!(number("/memory/usage/max") >= number("/memory/usage/usage"));
    assert_eq!(number("/memory/usage/failcnt"), 0);
    for kind in ["swap", "kernel", "kernelTCP"] {
        number(&format!("/memory/{kind}/limit"));
        number(&format!("/memory/{kind}/failcnt"));
    }
    assert_eq!((number("/pids/current"), number("/pids/limit")), (3, 30));
    c.kill_and_delete();
}

#[test]
fn interfaces_are_those_of_the_containers_own_namespace() {
    rustbox_only!();
    let t = Test::new();
    let own = t.bundle(spec().args(&["sleep", "1000"]));
    own.up();
    assert_eq!(events(&own, &["--stats"]).ok().json()["data"]["network_interfaces"], Value::Null, "only lo");
    let host = t.bundle(spec().args(&["sleep", "1000"]).without_namespace("network"));
    host.up();
    assert_eq!(events(&host, &["--stats"]).ok().json()["data"]["network_interfaces"], Value::Null, "the host's");
    let ip = Command::new("nsenter")
        .args([
            "-t",
            &own.pid().to_string(),
            "-n",
            "ip",
            "link",
            "add",
            "veth-a",
            "type",
            "veth",
            "peer",
            "name",
            "veth-b",
        ])
        .output();
    if !ip.is_ok_and(|ip| ip.status.success()) {
        skip!("no veth on this host");
    }
    let event = events(&own, &["--stats"]).ok().json();
    let mut names: Vec<_> =
        event["data"]["network_interfaces"].as_array().unwrap().iter().map(|it| it["Name"].as_str().unwrap()).collect();
    names.sort_unstable();
    // The `ip` of busybox leaves the other end's name to the kernel.
    assert!(matches!(names[..], ["veth-a", "veth-b" | "veth0"]), "{names:?}");
    assert_eq!(event["data"]["network_interfaces"][0]["TxBytes"], 0);
    own.kill_and_delete();
    host.kill_and_delete();
}

#[test]
fn statistics_come_every_interval_until_the_container_ends() {
    not_under!(Crun, "has no events");
    let t = Test::new();
    let c = t.bundle(spec().args(&["sleep", "1000"]));
    c.up();
    let running = follow(&c, &["--interval", "50ms"]);
    until("three lines", || running.stdout_now().matches('\n').count() >= 3);
    c.kill("KILL").ok();
    if peer() == Peer::Runc {
        // runc goes on until the cgroup is gone.
        c.wait_status("stopped");
        c.delete().ok();
    }
    let out = running.wait().ok();
    let events = lines(&out.stdout);
    assert!(events.len() >= 3 && events.iter().all(|event| event["type"] == "stats"), "{out:#?}");
}

#[test]
fn an_oom_is_an_event_of_its_own() {
    not_under!(Crun, "has no events");
    let t = Test::new();
    // The shell survives: the kernel kills the child that has the memory. One child alone takes memory: with a pipe, its
    // writer needs pages while the killed reader still holds its own, and then the kernel kills the next, the shell.
    let c = t.bundle(
        sh("mkfifo /dev/shm/go; read go < /dev/shm/go; tail -c 50000000 /dev/zero; echo over; sleep 1000")
            .resources(json!({"memory": {"limit": 16_777_216, "swap": 16_777_216}})),
    );
    c.create().ok();
    c.start().ok();
    let running = follow(&c, &["--interval", "1h"]);
    // The watch is in place once the eventfd, or the file that v2 counts in, is open.
    let fds = format!("/proc/{}/fd", running.pid());
    until("the watch", || {
        std::fs::read_dir(&fds).is_ok_and(|fds| {
            fds.flatten().any(|fd| {
                let to = std::fs::read_link(fd.path()).unwrap_or_default();
                to.to_string_lossy().contains("eventfd") || to.ends_with("memory.events")
            })
        })
    });
    std::thread::sleep(std::time::Duration::from_millis(50));
    c.exec(&["sh", "-c", "echo go > /dev/shm/go"]).ok();
    c.wait_output("over");
    running.wait_for("oom");
    let event = &lines(&running.stdout_now())[0];
    assert_eq!(*event, json!({"type": "oom", "id": c.id}));
    c.kill("KILL").ok();
    c.wait_status("stopped");
    c.delete().ok();
    let out = running.wait().ok();
    assert!(lines(&out.stdout).iter().all(|event| event["type"] == "oom"), "{out:#?}");
    t.assert_nothing_left();
}

#[test]
fn a_container_without_processes_has_no_events() {
    not_under!(Crun, "has no events");
    let t = Test::new();
    let c = t.bundle(spec());
    events(&c, &["--stats"]).denied().says(&["does not exist"]);
    c.up();
    c.wait_status("stopped");
    events(&c, &["--stats"]).denied().says(&[&c.id, "not running"]);
    events(&c, &[]).denied().says(&[&c.id, "not running"]);
    c.delete().ok();
}

#[test]
fn an_interval_that_is_none_is_a_usage_error() {
    not_under!(Crun, "has no events");
    let t = Test::new();
    let c = t.bundle(spec().args(&["sleep", "1000"]));
    c.up();
    for interval in ["foo", "5", "-5s", "0s", "0", ""] {
        events(&c, &["--interval", interval, "--stats"]).usage().rustbox_says(&["--interval"]);
    }
    c.kill_and_delete();
}
