//! Hooks as real processes. Each list runs in a single-threaded process of its own (this test binary again), because the
//! runtime is one: it clones without threads. So there is no test harness, which would make one.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use oci_spec::runtime::Hook;
use rustbox::container::hooks::{Kind, Runner};
use serde_json::{Value, json};

/// The process that runs the hooks of its environment and prints what came of them.
fn child(document: &str) {
    let document: Value = serde_json::from_str(document).unwrap();
    let hooks: Vec<Hook> = serde_json::from_value(document["hooks"].clone()).unwrap();
    let kind = if document["kind"] == "poststop" { Kind::Poststop } else { Kind::CreateRuntime };
    let state = vec![b'x'; document["size"].as_u64().unwrap_or(3) as usize];
    let mut pids = Vec::new();
    let mut on_start = |pid| {
        pids.push(pid);
        if document["refuse"] == true { Err(rustbox::Error::Other("cannot be recorded".into())) } else { Ok(()) }
    };
    let default_env = ["DEFAULT=1".to_owned()];
    let result =
        Runner { kind, state: &state, default_env: &default_env, prepare: None, on_start: &mut on_start, caller: None }
            .run(&hooks);
    match result {
        Ok(warnings) => warnings.iter().for_each(|warning| eprintln!("WARNING: {warning}")),
        Err(error) => eprintln!("FAILED: {error}"),
    }
    eprintln!("STARTED: {}", pids.len());
    for pid in pids {
        assert!(!Path::new(&format!("/proc/{pid}")).exists(), "hook {pid} is left");
    }
    let children = std::fs::read_to_string(format!("/proc/self/task/{}/children", std::process::id())).unwrap();
    assert_eq!(children, "", "no zombies");
}

fn run(document: Value) -> String {
    let output = Command::new(std::env::current_exe().unwrap())
        .env("RUSTBOX_TEST_HOOKS", document.to_string())
        .output()
        .unwrap();
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{err}");
    err
}

fn sh(script: &str) -> Value {
    json!({"path": "/bin/sh", "args": ["sh", "-c", script]})
}

fn they_run_in_order_and_the_first_failure_ends_them() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    let note = |word: &str, end: &str| sh(&format!("echo {word} >>{}; {end}", log.display()));
    let hooks = json!([note("one", ""), note("two", "echo why >&2; exit 3"), note("three", "")]);
    let err = run(json!({ "hooks": hooks }));
    assert!(err.contains("FAILED: createRuntime hook #1 `/bin/sh`: exit status 3: why\n"), "{err}");
    assert_eq!(std::fs::read_to_string(&log).unwrap(), "one\ntwo\n");

    std::fs::remove_file(&log).unwrap();
    let err = run(json!({"kind": "poststop", "hooks": hooks}));
    assert!(err.contains("WARNING: poststop hook #1 `/bin/sh`: exit status 3: why\n"), "{err}");
    assert_eq!(std::fs::read_to_string(&log).unwrap(), "one\ntwo\nthree\n", "the others still run");
}

fn the_state_comes_on_stdin_whole() {
    for size in [0, 3, 64 << 10, (64 << 10) + 1, 1 << 20] {
        let directory = tempfile::tempdir().unwrap();
        let copy = directory.path().join("copy");
        let err = run(json!({"size": size, "hooks": [sh(&format!("/bin/cat >{}", copy.display()))]}));
        assert!(!err.contains("FAILED"), "{err}");
        assert_eq!(std::fs::metadata(&copy).unwrap().len(), size);
    }
}

fn a_hook_that_ignores_or_closes_its_stdin_is_no_failure() {
    for script in ["exec <&-; /bin/sleep 0.1", "true", "exec <&- >&- 2>&-"] {
        for size in [3, 1 << 20] {
            let err = run(json!({"size": size, "hooks": [sh(script)]}));
            assert!(!err.contains("FAILED"), "{err}");
        }
    }
}

fn a_hook_that_hangs_is_killed_with_its_children() {
    let marker = format!("3600.{}", std::process::id());
    let begin = Instant::now();
    let mut hook = sh(&format!("/bin/sleep {marker} & /bin/sleep {marker}"));
    hook["timeout"] = json!(1);
    let err = run(json!({"hooks": [hook]}));
    assert!(err.contains("createRuntime hook #0 `/bin/sh`: timed out after 1 s and was killed"), "{err}");
    assert!(begin.elapsed() >= Duration::from_secs(1) && begin.elapsed() < Duration::from_secs(4));
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        let command = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        assert!(!String::from_utf8_lossy(&command).ends_with(&format!("{marker}\0")), "{:?} is left", process.path());
    }
}

fn a_daemon_that_keeps_the_output_open_does_not_hold_the_container() {
    let begin = Instant::now();
    let err = run(json!({"hooks": [sh("/bin/sleep 2 & exit 0")]}));
    assert!(!err.contains("FAILED"), "{err}");
    // The test's own pipes end with the runtime, which the daemon does not share.
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
}

fn a_flood_of_output_is_bounded() {
    let err = run(json!({"hooks": [sh("/usr/bin/head -c 3000000 /dev/zero | /usr/bin/tr '\\0' e >&2; exit 1")]}));
    assert!(err.contains("exit status 1: eeee") && err.len() < 20_000, "{}", err.len());
}

fn the_environment_and_arguments_are_exact() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("out");
    let script = directory.path().join("hook");
    let text =
        format!("#!/bin/sh\n/usr/bin/tr '\\0' '\\n' </proc/self/environ >{0}; echo \"$# $0\" >>{0}\n", out.display());
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    for (env, expected) in [(json!(["A=ü"]), "A=ü\n"), (json!([]), ""), (Value::Null, "DEFAULT=1\n")] {
        let err = run(json!({"hooks": [{"path": script, "env": env}]}));
        assert!(!err.contains("FAILED"), "{err}");
        let seen = std::fs::read_to_string(&out).unwrap();
        // The shell itself adds PWD for its child.
        let seen: String =
            seen.lines().filter(|line| !line.starts_with("PWD=")).map(|line| format!("{line}\n")).collect();
        assert_eq!(seen, format!("{expected}0 {}\n", script.display()));
    }
}

fn what_cannot_begin_says_why() {
    let cases = [
        (json!({"path": "/no/such"}), "`/no/such`: exec: No such file or directory"),
        (json!({"path": "/etc/passwd"}), "`/etc/passwd`: exec: Permission denied"),
        (json!({"path": "true"}), "`true`: the path is not absolute"),
        (json!({"path": "/bin/true", "timeout": 0}), "`/bin/true`: the timeout is not above zero"),
        (json!({"path": "/bin/sh", "args": ["sh", "-c", "kill -9 $$"]}), "`/bin/sh`: killed by signal 9"),
    ];
    for (hook, expected) in cases {
        let err = run(json!({"hooks": [hook]}));
        assert!(err.contains(&format!("FAILED: createRuntime hook #0 {expected}\n")), "{err}");
    }
}

fn a_hook_that_cannot_be_recorded_does_not_begin() {
    let directory = tempfile::tempdir().unwrap();
    let mark = directory.path().join("mark");
    let err = run(json!({"refuse": true, "hooks": [sh(&format!("echo >{}", mark.display()))]}));
    assert!(err.contains("cannot be recorded"), "{err}");
    assert!(!mark.exists());
}

fn main() {
    if let Ok(document) = std::env::var("RUSTBOX_TEST_HOOKS") {
        return child(&document);
    }
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    let tests: &[(&str, fn())] = &[
        ("they_run_in_order_and_the_first_failure_ends_them", they_run_in_order_and_the_first_failure_ends_them),
        ("the_state_comes_on_stdin_whole", the_state_comes_on_stdin_whole),
        (
            "a_hook_that_ignores_or_closes_its_stdin_is_no_failure",
            a_hook_that_ignores_or_closes_its_stdin_is_no_failure,
        ),
        ("a_hook_that_hangs_is_killed_with_its_children", a_hook_that_hangs_is_killed_with_its_children),
        (
            "a_daemon_that_keeps_the_output_open_does_not_hold_the_container",
            a_daemon_that_keeps_the_output_open_does_not_hold_the_container,
        ),
        ("a_flood_of_output_is_bounded", a_flood_of_output_is_bounded),
        ("the_environment_and_arguments_are_exact", the_environment_and_arguments_are_exact),
        ("what_cannot_begin_says_why", what_cannot_begin_says_why),
        ("a_hook_that_cannot_be_recorded_does_not_begin", a_hook_that_cannot_be_recorded_does_not_begin),
    ];
    let (mut passed, mut failed) = (0, 0);
    for (name, test) in tests.iter().filter(|(name, _)| name.contains(&filter)) {
        let ok = std::panic::catch_unwind(test).is_ok();
        println!("test {name} ... {}", if ok { "ok" } else { "FAILED" });
        *(if ok { &mut passed } else { &mut failed }) += 1;
    }
    let word = if failed == 0 { "ok" } else { "FAILED" };
    println!("\ntest result: {word}. {passed} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out\n");
    std::process::exit(if failed == 0 { 0 } else { 101 });
}
