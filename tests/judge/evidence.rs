//! `--evidence`, and what noise does to a verdict: nothing but to say that another try is worth it.

use std::process::{Command, Stdio};

use serde_json::Value;

use super::common::Test;
use super::{assert_clean, fresh_id, rustbox_only};

#[test]
fn the_stored_evidence_gives_the_verdict_again() {
    rustbox_only!();
    let test = Test::new();
    let file = test.path("evidence.json");
    let path = file.to_str().unwrap();
    test.runtime(&["run", "--evidence", path, "--code", "exit 3", &fresh_id(&test)]).code(1);
    let stored: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    assert_eq!(
        (&stored["cause"], &stored["evidence"]["payload"]["wait_status"]["exited"]["code"]),
        (&"re_nonzero_exit".into(), &3.into())
    );
    test.runtime(&["verdict", "--replay", path]).ok();
    // A second run replaces it, whole.
    test.runtime(&["run", "--evidence", path, "--code", "exit 0", &fresh_id(&test)]).ok();
    let out = test.runtime(&["verdict", "--replay", path]).ok();
    assert!(out.stdout.starts_with("OK"), "{out:?}");
    let beside: Vec<_> = std::fs::read_dir(&test.dir).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert!(!beside.iter().any(|name| name.to_string_lossy().starts_with(".evidence")), "{beside:?}");
    assert_clean(&test);
}

#[test]
fn evidence_that_cannot_be_stored_is_refused_before_anything_runs() {
    rustbox_only!();
    let test = Test::new();
    let ran = test.path("ran");
    let code = format!("echo > {}", ran.display());
    let args = ["run", "--evidence", "/nonexistent/e.json", "--code", &code, &fresh_id(&test)];
    test.runtime(&args).usage().says(&["/nonexistent/e.json"]);
    test.runtime(&["run", "--evidence", "/dev/null", "--tests", "/", "--code", "true"]).usage();
    assert!(!ran.exists());
}

/// Programs that want every processor several times over, for as long as this lives.
struct Load(Vec<std::process::Child>);

impl Load {
    fn new() -> Load {
        let count = std::thread::available_parallelism().unwrap().get() * 4;
        let busy = || {
            let mut command = Command::new("/bin/sh");
            command.args(["-c", "while :; do :; done"]).stdin(Stdio::null()).stdout(Stdio::null());
            command.spawn().unwrap()
        };
        Load((0..count).map(|_| busy()).collect())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
fn a_verdict_that_noise_may_have_decided_is_marked_and_not_changed() {
    rustbox_only!();
    let test = Test::new();
    // One program, which never asks for a second processor: busybox's sh does nothing by another process here.
    let args = ["--json", "--time", "30", "--wall-time", "1", "--code", "while :; do :; done"];
    let judge = || test.runtime(&[&["run"], &args[..], &[fresh_id(&test).as_str()]].concat()).code(1).json();
    let noisy = {
        let _load = Load::new();
        judge()
    };
    let words = |verdict: &Value| format!("{} {}", verdict["status"], verdict["cause"]);
    assert_eq!(words(&noisy), "\"TLE\" \"tle_wall_judge\"", "{noisy:#}");
    let noise = &noisy["evidence"]["noise"];
    assert!(noise["run_queue_us"].as_u64().unwrap() >= 100_000, "{noise:#}");
    assert!(noise["cpu_pressure_us"].as_u64().unwrap() > 0 && noise["processors"].as_u64().unwrap() > 0, "{noise:#}");
    assert_eq!(noisy["retryable"], true, "{noisy:#}");
    // Who waits for nothing but the time is late by its own doing, also on a busy machine.
    let _load = Load::new();
    let slept =
        test.runtime(&["run", "--json", "--wall-time", "0.5", "--code", "sleep 60", &fresh_id(&test)]).code(1).json();
    assert_eq!(
        (words(&slept).as_str(), &slept["retryable"]),
        ("\"TLE\" \"tle_wall_judge\"", &Value::Bool(false)),
        "{slept:#}"
    );
    assert_clean(&test);
}
