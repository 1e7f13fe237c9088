//! The files of the worker's standing: crashes, power loss, corruption, and many commands at once lose nothing.

mod common;

use std::fs;
use std::process::{Command, Stdio};

use common::*;
use serde_json::Value;

fn health(t: &Test, args: &[&str]) -> Out {
    t.runtime(&[&["health"], args].concat())
}

fn spawned(t: &Test, args: &[&str]) -> Running {
    let mut command = Command::new(binary());
    command.arg("--root").arg(&t.root).arg("health").args(args);
    t.spawn(command, Stdio::null())
}

/// The history, in which every line is whole and begins where the one before has ended.
#[track_caller]
fn history(t: &Test) -> Vec<Value> {
    let text = fs::read_to_string(t.path("worker/history.jsonl")).unwrap_or_default();
    let changes: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut status = json!("healthy");
    for change in &changes {
        assert_eq!(change["from"], status, "{changes:#?}");
        status = change["to"].clone();
    }
    changes
}

/// Quarantined by the worker itself, with nothing left to quarantine it for.
fn quarantine_automatically(t: &Test) {
    let c = t.bundle(sh("true"));
    c.up();
    c.wait_status("stopped");
    let place = c.rootfs().join("tmp");
    fs::create_dir_all(&place).unwrap();
    let flags = nix::mount::MsFlags::empty();
    nix::mount::mount(Some("tmpfs"), &place, Some("tmpfs"), flags, None::<&str>).unwrap();
    for _ in 0..3 {
        c.delete().denied();
    }
    nix::mount::umount(&place).unwrap();
    c.delete().ok();
    assert_eq!(health(t, &["--json"]).code(2).json()["cause"], "cleanup_failures");
}

/// The calls by which files are made, written, replaced, removed and brought to disk.
const CALLS: &[&str] = &[
    "openat",
    "read",
    "statx",
    "mkdir",
    "flock",
    "write",
    "fsync",
    "fdatasync",
    "rename",
    "unlink",
    "ftruncate",
    "close",
    "fstat",
];

#[test]
fn a_change_killed_at_any_call_has_happened_or_not() {
    rustbox_only!();
    let t = Test::new();
    let mut killed = 0;
    for call in CALLS {
        for n in 1.. {
            let mut ends = 0;
            for args in [["--quarantine", "--reason", "a"], ["--unquarantine", "--reason", "b"]] {
                let before = health(&t, &["--json"]).json()["status"].clone();
                let mut command = Command::new("strace");
                command.args(["-qq", "-o", "/dev/null", "-e", &format!("inject={call}:signal=KILL:when={n}")]);
                command.arg(binary()).arg("--root").arg(&t.root).arg("health").args(args);
                let out = t.spawn(command, Stdio::null()).wait();
                if out.signal != Some(9) {
                    ends += 1;
                } else {
                    killed += 1;
                }
                // Whatever has happened by then, it is understood, and is one of the two.
                let now = health(&t, &["--json"]).json();
                let wanted = if args[0] == "--quarantine" { "quarantined" } else { "healthy" };
                assert!(now["status"] == wanted || now["status"] == before, "{call} #{n}: {now:#}");
                assert_eq!(now["can_accept"], now["status"] != "quarantined", "{call} #{n}: {now:#}");
                health(&t, &args).ok();
                assert_eq!(health(&t, &["--json"]).json()["status"], wanted, "{call} #{n}");
            }
            if ends == 2 {
                break;
            }
        }
    }
    assert!(killed > 40, "killed only {killed} times");
    assert!(history(&t).len() > 40);
}

#[test]
fn what_a_power_cut_leaves_of_the_history_is_told_and_set_aside() {
    rustbox_only!();
    let t = Test::new();
    health(&t, &["--quarantine", "--reason", "first"]).ok();
    health(&t, &["--unquarantine", "--reason", "second"]).ok();
    let file = t.path("worker/history.jsonl");
    let whole = fs::read(&file).unwrap();
    let last = whole[..whole.len() - 1].iter().rposition(|byte| *byte == b'\n').unwrap() + 1;
    let torn: Vec<Vec<u8>> = (1..whole.len() - last).step_by(7).map(|n| whole[..last + n].to_vec()).collect();
    // A tail of zeros is what some file systems leave.
    let zeros = [&whole[..], &[0; 512]].concat();
    for broken in torn.into_iter().chain([zeros]) {
        fs::write(&file, &broken).unwrap();
        // The last line without its line feed is whole.
        let code = if broken.len() == whole.len() - 1 { 0 } else { 1 };
        let now = health(&t, &[]).code(code);
        assert_eq!(now.stdout.contains("1 lines of the history"), code == 1, "{now:?}");
        health(&t, &["--recover"]).ok();
        health(&t, &[]).ok();
        assert_eq!(history(&t)[0]["reason"], "first");
    }
    assert!(fs::metadata(t.path("worker/history.broken")).unwrap().len() > 512, "what was set aside is kept");
}

#[test]
fn a_history_that_is_gone_is_told_while_the_worker_is_quarantined_and_begun_anew() {
    rustbox_only!();
    let t = Test::new();
    health(&t, &["--quarantine", "--reason", "first"]).ok();
    fs::write(t.path("worker/history.jsonl"), "").unwrap();
    assert!(health(&t, &[]).code(2).stdout.contains("does not tell of the last change"));
    health(&t, &["--unquarantine", "--reason", "second"]).ok();
    let reasons: Vec<_> = history(&t).iter().map(|it| it["reason"].clone()).collect();
    assert_eq!(reasons, ["first", "second"]);
    health(&t, &[]).ok();
}

#[test]
fn a_half_written_state_beside_the_whole_one_does_no_harm() {
    rustbox_only!();
    let t = Test::new();
    health(&t, &["--quarantine", "--reason", "first"]).ok();
    fs::write(t.path("worker/health.json.new"), "{\"schema_").unwrap();
    assert_eq!(health(&t, &["--json"]).code(2).json()["reasons"], json!(["first"]));
    health(&t, &["--quarantine", "--reason", "second"]).ok();
    assert_eq!(health(&t, &["--json"]).code(2).json()["reasons"], json!(["second"]));
    assert!(!t.path("worker/health.json.new").exists());
}

#[test]
fn a_state_that_cannot_be_understood_is_evidence_and_is_not_overwritten() {
    rustbox_only!();
    let t = Test::new();
    health(&t, &["--quarantine", "--reason", "first"]).ok();
    let file = t.path("worker/health.json");
    for (broken, word) in
        [("", "cannot be understood"), ("{}", "cannot be understood"), (r#"{"schema_version":7}"#, "version 7")]
    {
        fs::write(&file, broken).unwrap();
        for args in [&["--quarantine", "--reason", "x"][..], &["--recover"]] {
            health(&t, args).denied().says(&["health.json", word]);
        }
        // A check tells of everything else, too, and condemns nothing that it cannot write down.
        assert!(health(&t, &["--check"]).code(1).stdout.contains(word));
        assert_eq!(fs::read_to_string(&file).unwrap(), broken);
    }
    health(&t, &["--unquarantine", "--reason", "looked at it"]).ok();
    let change = history(&t).pop().unwrap();
    assert!(change["evidence"].as_str().unwrap().contains("version 7"), "{change:#}");
    health(&t, &[]).ok();
}

#[test]
fn recoveries_at_once_lift_a_quarantine_once() {
    rustbox_only!();
    let t = Test::new();
    quarantine_automatically(&t);
    let before = history(&t).len();
    let recoveries: Vec<_> = (0..4).map(|_| spawned(&t, &["--recover", "--json"])).collect();
    let lifted = recoveries.into_iter().map(|it| it.wait().ok().json()).filter(|it| it["lifted"] == true).count();
    assert_eq!(lifted, 1);
    assert_eq!(history(&t).len(), before + 1);
    health(&t, &[]).ok();
    t.assert_nothing_left();
}

#[test]
fn a_hundred_commands_at_once_lose_no_change() {
    rustbox_only!();
    let t = Test::new();
    let reason = |n: usize| format!("change {n}");
    let running: Vec<_> = (0..100)
        .map(|n| match n % 4 {
            0 | 1 => spawned(&t, &["--quarantine", "--reason", &reason(n)]),
            2 => spawned(&t, &["--unquarantine", "--reason", &reason(n)]),
            _ => spawned(&t, &["--json"]),
        })
        .collect();
    for (n, command) in running.into_iter().enumerate() {
        let out = command.wait();
        if n % 4 == 3 {
            // Whoever looks meanwhile sees a state that is whole.
            assert!(matches!(out.code, 0 | 2), "{out:#?}");
            out.json();
        } else {
            out.ok();
        }
    }
    let reasons: Vec<_> = history(&t).iter().map(|it| it["reason"].as_str().unwrap().to_owned()).collect();
    for n in (0..100).filter(|n| n % 4 < 2) {
        assert_eq!(reasons.iter().filter(|it| **it == reason(n)).count(), 1, "change {n}");
    }
}
