//! `health`: whether the worker can be trusted; what dead commands leave is found, removed and proved gone; what lives is
//! left alone.

mod common;

use std::fs;
use std::process::{Command, Stdio};

use common::*;
use serde_json::Value;

/// The kinds of what is left, sorted, without repetition; nothing is changed by looking.
#[track_caller]
fn left(t: &Test) -> Vec<String> {
    let look = |status| t.runtime(&["health", "--verify-clean", "--json"]).code(status).json();
    let first = look(1);
    assert_eq!(without_ages(&first), without_ages(&look(1)), "looking has changed something");
    assert_eq!(first["clean"], false);
    let leftovers = first["leftovers"].as_array().unwrap();
    assert!(leftovers.iter().all(|it| it["age_s"].is_u64() || it["kind"] == "mount"), "{first:#}");
    let mut kinds: Vec<_> = leftovers.iter().map(|it| it["kind"].as_str().unwrap().to_owned()).collect();
    kinds.sort();
    kinds.dedup();
    kinds
}

fn without_ages(survey: &Value) -> Value {
    let mut survey = survey.clone();
    for leftover in survey["leftovers"].as_array_mut().unwrap() {
        leftover.as_object_mut().unwrap().remove("age_s");
    }
    survey
}

/// Recovers; then the worker is clean, and a second recovery has nothing to do.
#[track_caller]
fn recover(t: &Test) -> Value {
    let recovered = t.runtime(&["health", "--recover", "--json"]).ok().json();
    assert_eq!(recovered["clean"], true, "{recovered:#}");
    let again = t.runtime(&["health", "--recover", "--json"]).ok().json();
    assert_eq!(again["removed"], json!([]), "{again:#}");
    t.runtime(&["health", "--verify-clean"]).ok();
    recovered
}

/// The runtime, killed as it enters a system call for the n-th time.
fn killed(t: &Test, call: &str, n: u32, args: &[&str]) {
    let mut command = Command::new("strace");
    command.args(["-qq", "-o", "/dev/null", "-e", &format!("inject={call}:signal=KILL:when={n}")]);
    command.arg(binary()).arg("--root").arg(&t.root).args(args);
    assert_eq!(t.spawn(command, Stdio::null()).wait().signal, Some(9), "{call} #{n} is not called");
}

fn judged_id(t: &Test) -> String {
    format!("rbt-{}-judge", t.tag)
}

#[test]
fn a_worker_that_never_worked_is_clean_and_stays_unmade() {
    rustbox_only!();
    let t = Test::new();
    assert_eq!(t.runtime(&["health", "--verify-clean", "--json"]).ok().json()["clean"], true);
    assert_eq!(t.runtime(&["health", "--recover", "--json"]).ok().json()["clean"], true);
    assert!(!t.root.exists());
    let out = t.runtime(&["health", "--verify-clean"]).ok();
    assert!(out.line().starts_with("clean in "), "{out:?}");
}

#[test]
fn usage_errors_have_status_64() {
    rustbox_only!();
    let t = Test::new();
    for args in [
        &["health", "--no-such"][..],
        &["health", "--quarantine"],
        &["health", "--quarantine", "--reason", ""],
        &["health", "--force"],
        &["health", "--cleanup"],
        &["health", "--recover", "--verify-clean"],
    ] {
        t.runtime(args).fails().code(64);
    }
    t.runtime(&["kill", "--no-such"]).fails().code(2);
}

#[test]
fn what_a_killed_create_leaves_is_recovered_beside_live_containers() {
    rustbox_only!();
    let t = Test::new();
    let neighbour = t.bundle(sh("sleep 600"));
    neighbour.up();
    let waiting = t.bundle(sh("sleep 600"));
    waiting.create().ok();
    let c = t.bundle(sh("sleep 600"));
    let args = ["create", "--bundle", c.bundle.to_str().unwrap(), &c.id];
    for (call, kind) in [("mknodat", "half-written"), ("clone3", "container"), ("recvmsg", "container")] {
        killed(&t, call, 1, &args);
        assert_eq!(left(&t), [kind], "{call}");
        let text = t.runtime(&["health", "--verify-clean"]).code(1);
        assert!(text.stdout.contains(kind) && text.stdout.contains("made by process"), "{text:?}");
        let recovered = recover(&t);
        assert_eq!(recovered["live"].as_array().unwrap().len(), 2);
        assert_eq!(recovered["removed"][0]["kind"], kind);
        if kind == "container" {
            assert_eq!(recovered["proofs"][0]["clean"], true);
        }
        c.create().ok();
        c.delete_force().ok();
    }
    assert_eq!((neighbour.status(), waiting.status()), ("running".to_owned(), "created".to_owned()));
    neighbour.delete_force().ok();
    waiting.delete_force().ok();
    t.assert_nothing_left();
}

#[test]
fn a_judged_sandbox_whose_supervisor_was_killed_is_recovered() {
    rustbox_only!();
    let t = Test::new();
    let id = judged_id(&t);
    let mut command = Command::new(binary());
    command.arg("--root").arg(&t.root).args(["run", "--wall-time", "60", "--code", "while :; do sleep 1; done", &id]);
    let mut run = t.spawn(command, Stdio::null());
    until("the sandbox to run", || t.root.join(&id).join("init").metadata().is_ok_and(|it| it.len() > 0));
    // Beside a live supervisor nothing is stale.
    assert_eq!(recover(&t)["live"], json!([id]));
    run.child.kill().unwrap();
    assert_eq!(run.wait().signal, Some(9));
    assert!(left(&t).contains(&"container".to_owned()));
    recover(&t);
    nothing_judged_left(&t);
    t.runtime(&["run", "--code", "true", &id]).ok();
    nothing_judged_left(&t);
}

#[track_caller]
fn nothing_judged_left(t: &Test) {
    t.assert_nothing_left();
    for directory in [".judge", ".ids"] {
        assert_eq!(fs::read_dir(t.root.join(directory)).unwrap().count(), 0, "{directory}");
    }
}

#[test]
fn files_and_ids_of_a_judged_run_that_died_before_its_container_are_recovered() {
    rustbox_only!();
    let t = Test::new();
    let id = judged_id(&t);
    killed(&t, "mknodat,renameat2", 1, &["run", "--code", "true", &id]);
    assert_eq!(left(&t), ["half-written", "ids", "stage"]);
    // A cgroup of its name, as if its record had been lost.
    let cgroup = hierarchy("memory").join(format!("rustbox-{id}"));
    fs::create_dir(&cgroup).unwrap();
    assert_eq!(left(&t), ["cgroup", "half-written", "ids", "stage"]);
    recover(&t);
    assert!(!cgroup.exists());
    nothing_judged_left(&t);
}

#[test]
fn a_container_of_another_boot_is_stale_whatever_has_its_pid_now() {
    rustbox_only!();
    let t = Test::new();
    let c = t.bundle(sh("true").hook("poststop", &format!("echo stopped >>{}", t.path("log").display())));
    c.up();
    c.wait_status("stopped");
    let file = t.root.join(&c.id).join("state.json");
    let mut record: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    record["boot_id"] = json!("00000000-0000-0000-0000-000000000000");
    fs::write(&file, record.to_string()).unwrap();
    // The pid on record is now a bystander's.
    let bystander = t.bundle(sh("sleep 600"));
    bystander.up();
    fs::copy(t.root.join(&bystander.id).join("init"), t.root.join(&c.id).join("init")).unwrap();
    assert_eq!(left(&t), ["container"]);
    recover(&t);
    assert_eq!(fs::read_to_string(t.path("log")).unwrap(), "stopped\n");
    assert_eq!(bystander.status(), "running");
    bystander.delete_force().ok();
    t.assert_nothing_left();
}

#[test]
fn a_stopped_container_waits_for_its_engine_unless_cleanup_is_asked_for() {
    rustbox_only!();
    let t = Test::new();
    let c = t.bundle(sh("true").hook("poststop", &format!("echo stopped >>{}", t.path("log").display())));
    c.up();
    c.wait_status("stopped");
    assert_eq!(t.runtime(&["health", "--verify-clean", "--json"]).ok().json()["stopped"], json!([c.id]));
    recover(&t);
    assert_eq!(c.status(), "stopped");
    t.runtime(&["health", "--recover", "--cleanup"]).ok();
    c.state_out().denied();
    assert_eq!(fs::read_to_string(t.path("log")).unwrap(), "stopped\n");
    t.assert_nothing_left();
}

#[test]
fn a_hook_whose_runtime_is_dead_is_ended_and_its_container_kept() {
    rustbox_only!();
    let t = Test::new();
    let running = t.path("running");
    let c = t.bundle(sh("sleep 600").hook("poststart", &format!("touch {}; sleep 600", running.display())));
    c.create().ok();
    let mut command = Command::new(binary());
    command.arg("--root").arg(&t.root).args(["start", &c.id]);
    let mut start = t.spawn(command, Stdio::null());
    // Its record is there before it is.
    until("the hook to run", || running.exists() && t.root.join(&c.id).join("hook").exists());
    t.runtime(&["health", "--verify-clean"]).ok();
    start.child.kill().unwrap();
    assert_eq!(start.wait().signal, Some(9));
    assert_eq!(left(&t), ["hook"]);
    recover(&t);
    assert_eq!(c.status(), "running");
    c.delete_force().ok();
    t.assert_nothing_left();
}

#[test]
fn what_cannot_be_understood_is_named_and_left_to_a_person() {
    rustbox_only!();
    let t = Test::new();
    let c = t.bundle(sh("true"));
    c.up();
    let file = t.root.join(&c.id).join("state.json");
    let record = fs::read(&file).unwrap();
    fs::write(&file, "{").unwrap();
    assert_eq!(left(&t), ["unreadable-state"]);
    let out = t.runtime(&["health", "--recover"]).code(1).says(&[&c.id, "left to a person"]);
    assert!(out.stdout.contains("not clean: 1 left"), "{out:?}");
    assert_eq!(fs::read(&file).unwrap(), b"{");
    fs::write(&file, record).unwrap();
    recover(&t);
    c.delete_force().ok();
    // A delete that died between its last two steps.
    fs::create_dir(t.root.join("emptied")).unwrap();
    assert_eq!(left(&t), ["empty-state"]);
    recover(&t);
    t.assert_nothing_left();
}

#[test]
fn mounts_below_the_root_go_first_and_the_deepest_first() {
    rustbox_only!();
    let t = Test::new();
    let stage = t.root.join(".judge/lost");
    fs::create_dir_all(stage.join("a")).unwrap();
    let mount = |place: &std::path::Path| {
        let flags = nix::mount::MsFlags::empty();
        nix::mount::mount(Some("tmpfs"), place, Some("tmpfs"), flags, None::<&str>).unwrap();
    };
    mount(&stage.join("a"));
    fs::create_dir(stage.join("a/b")).unwrap();
    mount(&stage.join("a/b"));
    assert_eq!(left(&t), ["mount", "stage"]);
    let recovered = recover(&t);
    let names: Vec<_> =
        recovered["removed"].as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap()).collect();
    let expected = [stage.join("a/b"), stage.join("a"), stage];
    assert_eq!(names, expected.each_ref().map(|path| path.to_str().unwrap()));
    t.assert_nothing_left();
}

#[test]
fn a_stage_is_removed_however_deep_it_is() {
    rustbox_only!();
    let t = Test::new();
    let stages = t.root.join(".judge/lost");
    fs::create_dir_all(&stages).unwrap();
    let deep = "import os\nfor i in range(5000): os.mkdir('d'); os.chdir('d')";
    let made = std::process::Command::new("python3").args(["-c", deep]).current_dir(&stages).status().unwrap();
    assert!(made.success());
    let few = t.shell("ulimit -n 256; exec \"$@\"", &["health", "--recover", "--json"]).ok().json();
    assert_eq!(few["failures"], json!([]), "{few:#}");
    assert_eq!(few["removed"][0]["name"], stages.to_str().unwrap());
    t.assert_nothing_left();
}

#[test]
fn recoveries_at_once_take_turns_and_disturb_no_run() {
    rustbox_only!();
    let t = Test::new();
    let command = |args: &[&str]| {
        let mut command = Command::new(binary());
        command.arg("--root").arg(&t.root).args(args);
        t.spawn(command, Stdio::null())
    };
    killed(&t, "mknodat,renameat2", 1, &["run", "--code", "true", &judged_id(&t)]);
    let mut recoveries = Vec::new();
    let mut runs = Vec::new();
    for n in 0..8 {
        runs.push(command(&["run", "--language", "sh", "--code", "sleep 0.1", &format!("rbt-{}-{n}", t.tag)]));
        recoveries.push(command(&["health", "--recover", "--json"]));
    }
    for recovery in recoveries {
        let recovered = recovery.wait().ok().json();
        assert_eq!(recovered["failures"], json!([]), "{recovered:#}");
    }
    for run in runs {
        run.wait().ok();
    }
    recover(&t);
    nothing_judged_left(&t);
}

/// `health …`; the harness gives every test a state directory of its own.
fn health(t: &Test, args: &[&str]) -> Out {
    t.runtime(&[&["health"], args].concat())
}

fn history(t: &Test) -> Vec<Value> {
    let text = fs::read_to_string(t.path("worker/history.jsonl")).unwrap();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// `create`, `run` and a judged `run` with the same state directory.
fn work(t: &Test) -> [Out; 3] {
    let c = t.bundle(sh("true"));
    let state = t.path("worker");
    let (state, bundle) = (state.to_str().unwrap(), c.bundle.to_str().unwrap());
    let id = format!("rbt-{}-code", t.tag);
    let created = t.runtime(&["--state-dir", state, "create", "-b", bundle, &c.id]);
    c.delete_force().ok();
    let run = t.runtime(&["--state-dir", state, "run", "-b", bundle, &c.id]);
    [created, run, t.runtime(&["--state-dir", state, "run", "--code", "true", &id])]
}

#[test]
fn a_quarantined_worker_takes_no_work_until_an_operator_says_so() {
    rustbox_only!();
    let t = Test::new();
    let before = health(&t, &["--json"]).ok().json();
    assert_eq!((&before["status"], &before["can_accept"]), (&json!("healthy"), &json!(true)));
    assert!(!t.path("worker").exists(), "asking has made something");
    let c = t.bundle(sh("sleep 600"));
    c.up();
    health(&t, &["--quarantine", "--reason", "disk is odd"]).ok();
    for out in work(&t) {
        out.fails().code(4).says(&["quarantined", "disk is odd"]);
    }
    let now = health(&t, &["--json"]).code(2).json();
    assert_eq!((&now["status"], &now["can_accept"]), (&json!("quarantined"), &json!(false)));
    assert_eq!((&now["reasons"][0], &now["live"]), (&json!("disk is odd"), &json!(1)));
    assert!(health(&t, &[]).code(2).stdout.contains("disk is odd"));
    // What is there can still be seen and ended.
    let state = t.path("worker");
    for args in [&["state", &c.id][..], &["kill", &c.id, "KILL"], &["delete", "--force", &c.id]] {
        t.runtime(&[&["--state-dir", state.to_str().unwrap()], args].concat()).ok();
    }
    health(&t, &[]).code(2);
    health(&t, &["--unquarantine", "--reason", "new disk"]).ok();
    health(&t, &[]).ok();
    for out in work(&t) {
        out.ok();
    }
    let changes: Vec<_> =
        history(&t).iter().map(|it| (it["to"].clone(), it["reason"].clone(), it["by"].clone())).collect();
    let expected = [("quarantined", "disk is odd"), ("healthy", "new disk")];
    assert_eq!(changes, expected.map(|(to, reason)| (json!(to), json!(reason), json!("operator"))));
    t.assert_nothing_left();
}

#[test]
fn three_failed_cleanups_in_a_row_quarantine_the_worker() {
    rustbox_only!();
    let t = Test::new();
    let c = t.bundle(sh("true"));
    c.up();
    c.wait_status("stopped");
    let state = t.path("worker");
    let delete = || t.runtime(&["--state-dir", state.to_str().unwrap(), "delete", &c.id]);
    // A mount below its root file system that is not the container's: nobody unmounts it.
    let place = c.rootfs().join("tmp");
    let flags = nix::mount::MsFlags::empty();
    fs::create_dir_all(&place).unwrap();
    nix::mount::mount(Some("tmpfs"), &place, Some("tmpfs"), flags, None::<&str>).unwrap();
    for n in 1..=2 {
        delete().denied();
        let now = health(&t, &["--json"]).code(1).json();
        assert_eq!((&now["status"], &now["consecutive_cleanup_failures"]), (&json!("unhealthy"), &json!(n)));
        assert!(now["last_cleanup_error"].as_str().unwrap().contains(&c.id), "{now:#}");
    }
    for out in work(&t) {
        out.ok();
    }
    // The judged run has cleaned up: no longer in a row.
    health(&t, &[]).ok();
    for _ in 0..3 {
        delete().denied();
    }
    let now = health(&t, &["--json"]).code(2).json();
    assert_eq!((&now["last_change"]["by"], &now["consecutive_cleanup_failures"]), (&json!("automatic"), &json!(3)));
    for out in work(&t) {
        out.fails().code(4);
    }
    nix::mount::umount(&place).unwrap();
    delete().ok();
    health(&t, &[]).code(2);
    health(&t, &["--unquarantine", "--reason", "unmounted"]).ok();
    let seen: Vec<_> = history(&t).iter().map(|it| it["to"].as_str().unwrap().to_owned()).collect();
    assert_eq!(seen, ["unhealthy", "healthy", "unhealthy", "quarantined", "healthy"]);
    t.assert_nothing_left();
}

#[test]
fn leftovers_make_the_worker_unhealthy_and_keep_a_quarantine() {
    rustbox_only!();
    let t = Test::new();
    fs::create_dir_all(t.root.join("emptied")).unwrap();
    assert!(health(&t, &[]).code(1).stdout.contains("--verify-clean"));
    health(&t, &["--quarantine", "--reason", "look"]).ok();
    health(&t, &["--unquarantine", "--reason", "done"]).denied().says(&["1 left"]);
    health(&t, &[]).code(2);
    health(&t, &["--unquarantine", "--force", "--reason", "done"]).ok();
    health(&t, &["--recover"]).ok();
    health(&t, &[]).ok();
}

#[test]
fn a_state_that_cannot_be_understood_is_never_taken_for_healthy() {
    rustbox_only!();
    let t = Test::new();
    health(&t, &["--quarantine", "--reason", "x"]).ok();
    let file = t.path("worker/health.json");
    let sound = fs::read_to_string(&file).unwrap();
    let newer = sound.replace("\"schema_version\":1", "\"schema_version\":2");
    for broken in ["", "{", "[]", "{}", newer.as_str()] {
        fs::write(&file, broken).unwrap();
        let now = health(&t, &["--json"]).code(1).json();
        assert_eq!((&now["status"], &now["can_accept"]), (&json!("unhealthy"), &json!(false)), "{broken}");
        assert!(now["reasons"][0].as_str().unwrap().contains("health.json"), "{now:#}");
        for out in work(&t) {
            out.fails().code(4).says(&["health.json"]);
        }
        assert_eq!(fs::read_to_string(&file).unwrap(), broken, "silently replaced");
    }
    health(&t, &["--unquarantine", "--reason", "looked at it"]).ok();
    health(&t, &[]).ok();
    // A last line that a crash has cut short is counted, and spoils no other.
    let file = t.path("worker/history.jsonl");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, format!("{text}{{\"time\":")).unwrap();
    health(&t, &["--quarantine", "--reason", "y"]).ok();
    health(&t, &["--unquarantine", "--reason", "z"]).ok();
    assert!(health(&t, &[]).code(1).stdout.contains("1 lines of the history"));
    assert_eq!(history(&t).last().unwrap()["reason"], "z");
    t.assert_nothing_left();
}

#[test]
fn a_hundred_changes_at_once_are_all_in_the_history() {
    rustbox_only!();
    let t = Test::new();
    let command = |n: u32| {
        let mut command = Command::new(binary());
        command.arg("--root").arg(&t.root).arg("--state-dir").arg(t.path("worker"));
        command.args(["health", "--quarantine", "--reason", &format!("change {n}")]);
        t.spawn(command, Stdio::null())
    };
    let running: Vec<_> = (0..100).map(command).collect();
    for change in running {
        change.wait().ok();
    }
    let mut reasons: Vec<_> = history(&t).iter().map(|it| it["reason"].as_str().unwrap().to_owned()).collect();
    let last = reasons.last().unwrap().clone();
    assert_eq!(health(&t, &["--json"]).code(2).json()["reasons"][0], last.as_str());
    reasons.sort();
    reasons.dedup();
    assert_eq!(reasons.len(), 100);
}
