//! `health --check` and what follows from it: canaries, back ends, headroom; automatic quarantine, and its end.

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use common::*;
use serde_json::Value;

/// `health …`; the harness gives every test a state directory of its own.
fn health(t: &Test, args: &[&str]) -> Out {
    t.runtime(&[&["health"], args].concat())
}

fn history(t: &Test) -> Vec<Value> {
    let text = fs::read_to_string(t.path("worker/history.jsonl")).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A new container and a judged run are refused, with the reason.
#[track_caller]
fn refuses_work(t: &Test, reason: &str) {
    let c = t.bundle(sh("true"));
    c.create().fails().code(4).says(&["quarantined", reason]);
    let bundle = c.bundle.to_str().unwrap();
    t.runtime(&["restore", "--bundle", bundle, "--image-path", "/no/such", &c.id]).fails().code(4).says(&[reason]);
    t.runtime(&["run", "--code", "true", &format!("rbt-{}-code", t.tag)]).fails().code(4).says(&[reason]);
}

#[track_caller]
fn takes_work(t: &Test) {
    t.runtime(&["run", "--code", "true", &format!("rbt-{}-code", t.tag)]).ok();
}

/// The command line after `"$@"` was prepared by a script in a mount namespace of its own.
fn within(t: &Test, script: &str, args: &[&str]) -> Out {
    let script = format!("exec unshare --mount --propagation private /bin/sh -c '{script}\nexec \"$@\"' sh \"$@\"");
    t.shell(&script, args)
}

/// A library of languages whose shell does nothing, whatever it is given.
fn deaf_shell(t: &Test) -> String {
    let bundles = t.path("bundles");
    let status =
        Command::new("cp").arg("-r").arg(concat!(env!("CARGO_MANIFEST_DIR"), "/bundles")).arg(&bundles).status();
    assert!(status.unwrap().success());
    fs::write(bundles.join("sh/run.json"), r#"{ "process": { "args": ["/bin/true"] } }"#).unwrap();
    format!("export RUSTBOX_BUNDLES={}; ", bundles.display())
}

fn mount_tmpfs(place: &Path, options: &str) {
    fs::create_dir_all(place).unwrap();
    let flags = nix::mount::MsFlags::empty();
    nix::mount::mount(Some("tmpfs"), place, Some("tmpfs"), flags, Some(options)).unwrap();
}

/// Writes a file until the disk is full.
fn fill(place: &Path) {
    use std::io::Write;
    let mut file = fs::File::create(place).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
}

#[test]
fn a_check_runs_canaries_whose_verdicts_come_out_right() {
    rustbox_only!();
    let t = Test::new();
    let checked = health(&t, &["--check", "--json"]).ok().json();
    let canaries = checked["canaries"].as_array().unwrap();
    let names: Vec<_> = canaries.iter().map(|it| it["canary"].as_str().unwrap()).collect();
    assert_eq!(names, ["ok", "tle", "mle", "re", "ple", "sv"]);
    assert!(canaries.iter().all(|it| it["outcome"] == "passed"), "{canaries:#?}");
    let text = health(&t, &["--check"]).ok();
    assert!(text.stdout.contains("tle passed: TLE"), "{text:?}");
    // Without a check nothing is run.
    let looked = health(&t, &["--json"]).ok().json();
    assert_eq!((&looked["canaries"], &looked["changed"]), (&Value::Null, &json!([])));
    assert_eq!(history(&t).len(), 0, "a healthy worker that is checked has not changed");
    let counts = t.runtime(&["metrics"]).ok();
    assert!(counts.stdout.contains("rustbox_executions_total 0\n"), "a canary is nobody's submission: {counts:?}");
    t.assert_nothing_left();
}

#[test]
fn back_ends_and_headroom_are_told() {
    rustbox_only!();
    let t = Test::new();
    let now = health(&t, &["--json"]).ok().json();
    let backends = &now["backends"];
    for controller in ["memory", "pids", "cpuset"] {
        let version = if Path::new("/sys/fs/cgroup").join(controller).exists() { "v1" } else { "v2" };
        assert_eq!(backends["controllers"][controller], version, "{backends:#}");
    }
    assert_eq!((&backends["pidfd"], &backends["seccomp"]), (&json!("pidfd"), &json!("notify")));
    assert_eq!(backends["namespaces"]["user"], true);
    assert_eq!(now["degraded"], json!([]));
    let headroom = now["headroom"].as_array().unwrap();
    for resource in ["disk", "memory", "descriptors", "pids"] {
        let found = headroom.iter().find(|it| it["resource"] == resource).unwrap_or_else(|| panic!("{now:#}"));
        assert_eq!(found["level"], "ok");
        assert!(found["free"].as_u64() <= found["total"].as_u64(), "{found}");
    }
}

#[test]
fn a_wrong_verdict_of_a_canary_quarantines_the_worker_until_all_are_right() {
    rustbox_only!();
    let t = Test::new();
    let deaf = deaf_shell(&t);
    let checked = t.shell(&format!("{deaf}\"$@\""), &["health", "--check", "--json"]).code(2).json();
    assert_eq!((&checked["status"], &checked["cause"]), (&json!("quarantined"), &json!("baseline")));
    let failed = checked["canaries"].as_array().unwrap().iter().filter(|it| it["outcome"] == "failed").count();
    assert_eq!(failed, 5, "all but the one that is OK anyway: {checked:#}");
    refuses_work(&t, "a canary came to a wrong verdict");
    let change = history(&t).pop().unwrap();
    assert_eq!((&change["by"], &change["to"]), (&json!("automatic"), &json!("quarantined")));
    assert!(change["evidence"].as_str().unwrap().contains("tle came to OK"), "{change:#}");
    // Nothing is left, but the canaries are still wrong.
    let kept = t.shell(&format!("{deaf}\"$@\""), &["health", "--recover", "--json"]).code(2);
    assert_eq!(kept.json()["lifted"], false);
    kept.says(&["stays quarantined", "mle came to OK"]);
    let lifted = health(&t, &["--recover", "--json"]).ok().json();
    assert_eq!((&lifted["lifted"], &lifted["status"]), (&json!(true), &json!("healthy")));
    takes_work(&t);
    assert_eq!(history(&t).len(), 2);
}

#[test]
fn an_operators_quarantine_is_not_ended_by_a_recovery() {
    rustbox_only!();
    let t = Test::new();
    health(&t, &["--quarantine", "--reason", "maintenance"]).ok();
    health(&t, &["--recover"]).code(2).says(&["an operator", "maintenance"]);
    health(&t, &["--check"]).code(2);
    refuses_work(&t, "maintenance");
    health(&t, &["--unquarantine", "--reason", "done"]).ok();
    takes_work(&t);
}

#[test]
fn one_orphan_quarantines_the_worker_until_it_is_recovered() {
    rustbox_only!();
    let t = Test::new();
    if health(&t, &["--json"]).ok().json()["backends"]["orphans"] == "none" {
        skip!("this kernel numbers no mount namespaces (Linux 6.11)");
    }
    let c = t.bundle(sh("sleep 600 & exec sleep 601").without_namespace("pid"));
    c.up();
    let init = c.pid();
    until("a child", || children(init).len() == 1);
    let orphan = children(init)[0];
    t.remember(orphan);
    // A neighbour in the same mount namespace is none.
    let neighbour = t.bundle(
        sh("sleep 600")
            .without_namespace("pid")
            .namespace(json!({"type": "mount", "path": format!("/proc/{init}/ns/mnt")}))
            .patch(json!({"root": {"path": "/", "readonly": false}, "mounts": [], "hostname": null}))
            .patch(json!({"linux": {"maskedPaths": null, "readonlyPaths": null}})),
    );
    neighbour.create().ok();
    for hierarchy in fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
        let _ = fs::write(hierarchy.path().join("cgroup.procs"), orphan.to_string());
    }
    c.kill("KILL").ok();
    c.wait_status("stopped");
    let out = c.delete().denied().says(&["orphan process", &orphan.to_string(), "sleep"]);
    assert!(!out.stderr.contains("orphan process") || out.stderr.matches("orphan process").count() == 1, "{out:?}");
    assert!(alive(orphan), "what somebody has moved is evidence");
    let now = health(&t, &["--json"]).code(2).json();
    assert_eq!((&now["status"], &now["cause"]), (&json!("quarantined"), &json!("orphan_process")));
    refuses_work(&t, "has outlived its container");
    let left = health(&t, &["--verify-clean", "--json"]).code(1).json();
    let found = &left["leftovers"][0];
    assert_eq!((&found["kind"], &found["owner"]), (&json!("process"), &json!(c.id)));
    assert!(found["age_s"].is_u64() && found["process"]["start_time"].is_u64(), "{found:#}");
    // Its container waits for its engine, and keeps the quarantine.
    let recovered = health(&t, &["--recover", "--json"]).code(2).json();
    assert_eq!((&recovered["removed"][0]["kind"], &recovered["lifted"]), (&json!("process"), &json!(false)));
    assert!(!alive(orphan));
    c.delete().ok();
    neighbour.delete_force().ok();
    assert_eq!(health(&t, &["--recover", "--json"]).ok().json()["lifted"], true);
    t.assert_nothing_left();
}

#[test]
fn a_full_disk_quarantines_the_worker_and_the_quarantine_is_on_record() {
    rustbox_only!();
    let t = Test::new();
    let state = t.path("worker");
    mount_tmpfs(&state, "size=256k");
    health(&t, &["--check"]).ok();
    fill(&state.join("ballast"));
    let checked = health(&t, &["--check", "--json"]).code(2).json();
    assert_eq!(checked["cause"], "resources", "{checked:#}");
    refuses_work(&t, "resources are exhausted");
    assert!(history(&t).pop().unwrap()["evidence"].as_str().unwrap().contains("disk of"), "{:#?}", history(&t));
    // What was given up for the record is no room.
    health(&t, &["--recover"]).code(2).says(&["stays quarantined", "no room"]);
    fs::remove_file(state.join("ballast")).unwrap();
    assert_eq!(health(&t, &["--recover", "--json"]).ok().json()["lifted"], true);
    health(&t, &["--check"]).ok();
    takes_work(&t);
}

#[test]
fn a_change_that_does_not_fit_on_the_disk_is_refused_whole() {
    rustbox_only!();
    let t = Test::new();
    let state = t.path("worker");
    mount_tmpfs(&state, "size=64k");
    health(&t, &["--quarantine", "--reason", "first"]).ok();
    let before = fs::read(state.join("history.jsonl")).unwrap();
    let _ = fs::remove_file(state.join("reserve"));
    fill(&state.join("ballast"));
    health(&t, &["--quarantine", "--reason", "second"]).denied().says(&["No space left on device"]);
    health(&t, &["--unquarantine", "--reason", &"long ".repeat(2000)]).denied().says(&["No space left on device"]);
    assert_eq!(fs::read(state.join("history.jsonl")).unwrap(), before, "half a line");
    assert_eq!(health(&t, &["--json"]).code(2).json()["reasons"][0], "first");
    fs::remove_file(state.join("ballast")).unwrap();
    health(&t, &["--unquarantine", "--reason", "room"]).ok();
    takes_work(&t);
}

#[test]
fn a_missing_controller_is_told_refused_and_by_permissive_degraded() {
    rustbox_only!();
    if !Path::new("/sys/fs/cgroup/pids").exists() {
        skip!("the pids controller is in the one v2 hierarchy, which cannot be unmounted alone");
    }
    let t = Test::new();
    health(&t, &["--check"]).ok();
    let lost = "umount /sys/fs/cgroup/pids";
    let now = within(&t, lost, &["health", "--json"]).code(1).json();
    assert_eq!(now["changed"], json!(["controller pids was cgroup v1 and is none"]));
    assert_eq!(now["degraded"][0]["control"], "pids");
    assert_eq!(now["can_accept"], true);
    let id = format!("rbt-{}-code", t.tag);
    within(&t, lost, &["run", "--code", "true", &id]).code(4).says(&["pids"]);
    let degraded = within(&t, lost, &["run", "--permissive", "--json", "--code", "true", &id]).ok().json();
    assert_eq!(degraded["evidence"]["control_degraded"], json!(["pids"]));
    // A host that refuses to judge gets nothing wrong: no reason for a quarantine, and no new baseline.
    let checked = within(&t, lost, &["health", "--check", "--json"]).code(1).json();
    assert!(checked["canaries"].as_array().unwrap().iter().all(|it| it["outcome"] == "refused"), "{checked:#}");
    health(&t, &[]).ok();
    takes_work(&t);
}

#[test]
fn a_baseline_that_cannot_be_understood_is_told_and_taken_anew_by_a_check() {
    rustbox_only!();
    let t = Test::new();
    health(&t, &["--check"]).ok();
    let file = t.path("worker/baseline.json");
    fs::write(&file, "").unwrap();
    assert!(health(&t, &[]).code(1).stdout.contains("baseline.json"));
    takes_work(&t);
    health(&t, &["--check"]).code(0);
    health(&t, &[]).ok();
    let change = history(&t).pop().unwrap();
    assert!(change["evidence"].as_str().unwrap().contains("baseline.json"), "{change:#}");
}

#[test]
fn a_container_whose_cleanup_has_failed_keeps_the_worker_unhealthy_while_it_is_there() {
    rustbox_only!();
    let t = Test::new();
    // What a hook has mounted, a hook may unmount, and then the cleanup is proved.
    let place = t.path("bundle-0/rootfs/tmp");
    let hooked = sh("true")
        .hook("createRuntime", &format!("mount -t tmpfs tmpfs {}", place.display()))
        .hook("poststop", &format!("umount {}", place.display()));
    let c = t.bundle(hooked);
    c.up();
    c.wait_status("stopped");
    let held = fs::File::open(&place).unwrap();
    c.delete().denied().says(&["not proved: mount `tmpfs` on"]);
    health(&t, &["--recover"]).code(1).says(&["stays unhealthy", &c.id, "whose cleanup has failed"]);
    drop(held);
    c.delete().ok();
    health(&t, &[]).ok();
    t.assert_nothing_left();
}
