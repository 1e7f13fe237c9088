//! Verdicts for containers that an engine runs: what `create`, `start`, `kill` and `delete` make of a configuration with
//! `org.rustbox.limit.*` annotations, and what `verdict` and `state` say of it.

mod common;

use std::time::{Duration, Instant};

use common::*;
use serde_json::Value;

/// Skips the test where the monitor, which is not the parent, may come too late to hear how the program has ended.
macro_rules! needs_the_end_of_a_stranger {
    () => {
        if kernel() < (6, 15) {
            skip!("Linux before 6.15 does not tell how a stranger ended that was reaped");
        }
    };
}

/// A configuration with limits, by annotation.
fn limited(script: &str, limits: &[(&str, &str)]) -> Spec {
    let annotations: serde_json::Map<String, Value> =
        limits.iter().map(|(name, value)| (format!("org.rustbox.limit.{name}"), json!(value))).collect();
    sh(script).patch(json!({"annotations": annotations}))
}

fn verdict(c: &Container<'_>) -> Value {
    c.test.runtime(&["verdict", "--json", &c.id]).ok().json()
}

/// The verdict, once there is one.
#[track_caller]
fn judged(c: &Container<'_>) -> Value {
    until("the verdict", || verdict(c)["status"].is_string());
    verdict(c)
}

/// The verdict of a container that ends by itself, which must come to `status` and `cause`: as `verdict` and `state` give it
/// before the deletion, as `verdict` does afterwards, and as its evidence gives it again.
#[track_caller]
fn ends_as(script: &str, limits: &[(&str, &str)], (status, cause, actor): (&str, &str, &str)) -> Value {
    let test = Test::new();
    let c = test.bundle(limited(script, limits));
    c.up();
    let before = judged(&c);
    let words = [&before["status"], &before["cause"], &before["actor"]];
    assert_eq!(words, [status, cause, actor], "{before:#}");
    let annotations = &c.state()["annotations"];
    let told = ["status", "cause", "actor"].map(|word| &annotations[format!("org.rustbox.verdict.{word}")]);
    assert_eq!(told, words, "{annotations:#}");
    assert!(before["cleanup"].is_null(), "nothing is proved before the deletion: {before:#}");
    c.delete().ok();
    test.assert_nothing_left();
    let after = verdict(&c);
    assert_eq!([&after["status"], &after["cause"], &after["actor"]], words, "{after:#}");
    assert_eq!(after["cleanup"]["proved"], true, "{after:#}");
    let stored = test.path("verdict.json");
    std::fs::write(&stored, after.to_string()).unwrap();
    test.runtime(&["verdict", "--replay", stored.to_str().unwrap()]).ok();
    after
}

#[test]
fn a_program_that_exits_is_judged_by_its_status() {
    rustbox_only!();
    needs_the_end_of_a_stranger!();
    let good = ends_as("exit 0", &[("time", "1")], ("OK", "normal_exit", "payload"));
    assert_eq!(good["exit_code"], 0);
    assert_eq!(good["evidence"]["streams"]["stdout_bytes"], Value::Null, "its output is the engine's");
    assert_eq!(good["controls"]["output"], "unsupported");
    let bad = ends_as("exit 137", &[("time", "1")], ("RE", "re_nonzero_exit", "payload"));
    assert_eq!(bad["exit_code"], 137);
}

#[test]
fn time_limits_are_kept() {
    rustbox_only!();
    let begun = Instant::now();
    let cpu = ends_as("while :; do :; done", &[("time", "0.3")], ("TLE", "tle_cpu_judge", "judge"));
    assert!((300.0..500.0).contains(&cpu["cpu_time_ms"].as_f64().unwrap()), "{cpu:#}");
    let wall = ends_as("sleep 60", &[("wall-time", "0.3")], ("TLE", "tle_wall_judge", "judge"));
    assert!((300.0..1500.0).contains(&wall["wall_time_ms"].as_f64().unwrap()), "{wall:#}");
    assert!(begun.elapsed() < Duration::from_secs(15));
}

#[test]
fn the_memory_limit_is_kept_and_a_child_killed_for_it_tells() {
    rustbox_only!();
    let script = "dd if=/dev/zero of=/dev/shm/x bs=1048576 count=60; exit 0";
    let mle = ends_as(script, &[("memory", "16M")], ("MLE", "mle_kernel_oom", "kernel"));
    assert_eq!(mle["limits"]["memory_bytes"], 16 << 20);
    assert!(mle["memory_peak_bytes"].as_u64().unwrap() <= 16 << 20, "{mle:#}");
}

#[test]
fn the_process_limit_is_kept() {
    rustbox_only!();
    needs_the_end_of_a_stranger!();
    let script = "i=0; while [ $i -lt 20 ]; do sleep 60 & i=$((i+1)); done; exit 1";
    ends_as(script, &[("processes", "8")], ("PLE", "ple_cgroup_pids", "kernel"));
}

#[test]
fn whoever_ends_it_through_the_runtime_cancels_it() {
    rustbox_only!();
    let test = Test::new();
    let killed = test.bundle(limited("sleep 60", &[("time", "1")]));
    killed.up();
    killed.kill("KILL").ok();
    assert_eq!(judged(&killed)["cause"], "ie_cancelled");
    killed.delete().ok();
    let deleted = test.bundle(limited("sleep 60", &[("time", "1")]));
    deleted.up();
    deleted.delete_force().ok();
    let verdict = verdict(&deleted);
    assert_eq!((&verdict["status"], &verdict["cause"]), (&json!("IE"), &json!("ie_cancelled")), "{verdict:#}");
    assert_eq!(verdict["cleanup"]["proved"], true);
    assert!(verdict["evidence"]["cgroup"]["cpu_us"].is_u64(), "read before the cgroups were removed: {verdict:#}");
    test.assert_nothing_left();
}

#[test]
fn a_signal_of_the_programs_own_making_is_its_own() {
    rustbox_only!();
    needs_the_end_of_a_stranger!();
    let test = Test::new();
    let c = test.bundle(limited("sleep 60", &[("time", "1")]).without_namespace("pid"));
    c.up();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(c.pid()), nix::sys::signal::Signal::SIGSEGV).unwrap();
    let verdict = judged(&c);
    assert_eq!((&verdict["status"], &verdict["signal"]), (&json!("SIG"), &json!(11)), "{verdict:#}");
    c.delete().ok();
    test.assert_nothing_left();
}

#[test]
fn while_it_runs_the_verdict_says_how_far_it_has_come() {
    rustbox_only!();
    let test = Test::new();
    let c = test.bundle(limited("sleep 60", &[("time", "1"), ("wall-time", "30")]));
    c.create().ok();
    test.runtime(&["verdict", &c.id]).denied().says(&["has not been started"]);
    c.start().ok();
    let now = verdict(&c);
    assert_eq!((&now["running"], &now["limits"]["wall_time_ms"]), (&json!(true), &json!(30_000)), "{now:#}");
    assert!(now["memory_bytes"].as_u64().unwrap() > 0 && now["processes"].as_u64().unwrap() > 0, "{now:#}");
    let text = test.runtime(&["verdict", &c.id]).ok().stdout;
    assert!(text.starts_with("running\n") && text.contains("of 30.000"), "{text}");
    assert!(c.state()["annotations"].get("org.rustbox.verdict.status").is_none());
    c.delete_force().ok();
}

#[test]
fn the_kernel_keeps_what_it_can_of_the_limits() {
    rustbox_only!();
    let test = Test::new();
    let limits = [("memory", "32M"), ("processes", "9"), ("open-files", "33"), ("file-size", "1M"), ("stack", "2M")];
    // The engine's own limit is lower than the annotation's.
    let spec = limited("cat /proc/self/limits; sleep 60", &limits);
    let c = test.bundle(spec.patch(json!({"linux": {"resources": {"pids": {"limit": 7}}}})));
    c.up();
    assert_eq!(c.cgroup_file("memory", "memory.limit_in_bytes"), (32 << 20).to_string());
    assert_eq!(c.cgroup_file("pids", "pids.max"), "7");
    c.wait_output("Max realtime timeout");
    for (name, value) in [("Max open files", "33"), ("Max file size", "1048576"), ("Max stack size", "2097152")] {
        let output = c.output();
        let line = output.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{output}"));
        assert!(line.split_whitespace().any(|word| word == value), "{line}");
    }
    c.delete_force().ok();
}

#[test]
fn wrong_limits_are_refused_by_their_path() {
    rustbox_only!();
    let cases: Vec<(Spec, &[&str])> = vec![
        (limited("true", &[("time", "soon")]), &["$.annotations['org.rustbox.limit.time']", "`soon`"]),
        (limited("true", &[("colour", "1")]), &["$.annotations['org.rustbox.limit.colour']", "is not a limit"]),
        (limited("true", &[("memory", "10")]), &["$.annotations", "1 MiB"]),
    ];
    refused(cases);
}

#[test]
fn what_is_not_judged_has_no_verdict() {
    rustbox_only!();
    let test = Test::new();
    let c = test.bundle(sh("sleep 60"));
    c.up();
    test.runtime(&["verdict", &c.id]).denied().says(&["is not judged", "org.rustbox.limit"]);
    c.delete_force().ok();
    test.runtime(&["verdict", &c.id]).denied().says(&["does not exist", "no verdict"]);
    test.runtime(&["verdict"]).usage();
    test.runtime(&["verdict", &c.id, "--replay", "-"]).usage();
}

/// The monitor's pid.
fn monitor(c: &Container<'_>) -> i32 {
    let text = std::fs::read_to_string(c.test.root.join(&c.id).join("monitor")).unwrap();
    let standing: Value = serde_json::from_str(&text).unwrap();
    standing["process"]["pid"].as_i64().unwrap() as i32
}

/// A judged container whose monitor is killed; the monitor's pid.
#[track_caller]
fn without_monitor(c: &Container<'_>) -> i32 {
    c.up();
    let lost = monitor(c);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(lost), nix::sys::signal::Signal::SIGKILL).unwrap();
    until("the end of the monitor", || !alive(lost));
    lost
}

#[test]
fn the_monitor_holds_nothing_of_the_callers_and_is_outside_of_the_container() {
    rustbox_only!();
    let test = Test::new();
    let c = test.bundle(limited("sleep 60", &[("time", "1")]));
    c.create().ok();
    // `$(…)` waits for the end of the pipe, whoever holds it; `start` itself has a descriptor of the caller's.
    let out = test.shell("exec 9</etc/passwd; x=$(\"$@\" 2>&1); echo \"said: $x\"", &["start", &c.id]).ok();
    assert_eq!(out.line(), "said: ");
    let pid = monitor(&c);
    let held: Vec<String> = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        // One that it has closed since is not held.
        .filter_map(|fd| Some(std::fs::read_link(fd.unwrap().path()).ok()?.to_string_lossy().into_owned()))
        .collect();
    let own = |link: &String| {
        link == "/dev/null"
            || link.starts_with("anon_inode:")
            || link.starts_with("pidfd:")
            || link.starts_with("socket:")
            || link.contains("/cgroup/")
            || link.starts_with("/proc/pressure/")
            || link.starts_with(test.root.to_str().unwrap())
    };
    assert!(held.iter().all(own), "{held:?}");
    assert!(!c.cgroup_file("memory", "cgroup.procs").lines().any(|line| line == pid.to_string()));
    for kind in ["pid", "mnt", "net"] {
        assert_eq!(namespace(&pid.to_string(), kind), namespace("self", kind), "{kind}");
    }
    c.delete_force().ok();
    until("the end of the monitor", || !alive(pid));
    test.assert_nothing_left();
}

#[test]
fn a_lost_monitor_is_found_and_another_one_goes_on() {
    rustbox_only!();
    let test = Test::new();
    let c = test.bundle(limited("sleep 60", &[("wall-time", "4")]));
    let lost = without_monitor(&c);
    assert_eq!(verdict(&c)["cause"], "ie_supervisor_lost");
    assert_eq!(c.state()["annotations"]["org.rustbox.verdict.status"], "IE");
    let found = test.runtime(&["health", "--verify-clean", "--json"]).code(1).stdout;
    assert!(found.contains("\"monitor\"") && found.contains(&c.id), "{found}");
    test.runtime(&["health", "--recover"]).ok();
    assert_ne!(monitor(&c), lost);
    test.runtime(&["health", "--verify-clean"]).ok();
    // The limit counts from the start of the program, not from that of the new monitor.
    c.wait_status("stopped");
    until("the verdict", || verdict(&c)["evidence"]["kill"]["cause"] == "wall_time");
    let told = verdict(&c);
    assert_eq!(told["cause"], "ie_supervisor_lost", "{told:#}");
    assert!((4000.0..8000.0).contains(&told["wall_time_ms"].as_f64().unwrap()), "{told:#}");
    c.delete().ok();
    test.assert_nothing_left();
}

#[test]
fn a_monitor_lost_for_good_costs_the_verdict_and_nothing_else() {
    rustbox_only!();
    let test = Test::new();
    let c = test.bundle(limited("sleep 60", &[("time", "1")]));
    without_monitor(&c);
    c.delete_force().ok();
    assert_eq!(verdict(&c)["cause"], "ie_supervisor_lost");
    test.assert_nothing_left();
}

#[test]
fn run_judges_too_in_the_foreground_and_detached() {
    rustbox_only!();
    needs_the_end_of_a_stranger!();
    let test = Test::new();
    let c = test.bundle(limited("exit 5", &[("time", "1")]));
    // The status is the container's: nobody has asked `run` for a verdict.
    c.run().code(5);
    assert_eq!(verdict(&c)["cause"], "re_nonzero_exit");
    let detached = test.bundle(limited("sleep 60", &[("wall-time", "0.3")]));
    detached.run_detached().ok();
    assert_eq!(judged(&detached)["status"], "TLE");
    detached.delete().ok();
    test.assert_nothing_left();
}

#[test]
fn a_program_that_cannot_be_executed_is_an_internal_error() {
    rustbox_only!();
    let test = Test::new();
    let spec = limited("", &[("time", "1")]).args(&["/bin/broken"]);
    let c = test.bundle(spec);
    executable(&c.rootfs().join("bin/broken"), "#!/nowhere\n");
    c.create().ok();
    c.start().fails();
    // The monitor hears of it when `start` has ended.
    until("the verdict", || test.runtime(&["verdict", &c.id]).code == 0);
    assert_eq!(verdict(&c)["cause"], "ie_exec_failed");
    c.delete_force().ok();
    test.assert_nothing_left();
}

#[test]
fn the_same_id_again_has_a_verdict_of_its_own() {
    rustbox_only!();
    needs_the_end_of_a_stranger!();
    let test = Test::new();
    let c = test.bundle(limited("exit 1", &[("time", "1")]));
    c.run().code(1);
    assert_eq!(verdict(&c)["status"], "RE");
    c.write_config(&limited("exit 0", &[("time", "1")]).0);
    c.create().ok();
    test.runtime(&["verdict", &c.id]).denied();
    c.start().ok();
    assert_eq!(judged(&c)["status"], "OK");
    c.delete().ok();
    test.assert_nothing_left();
}

#[test]
fn a_start_that_is_over_is_known_to_the_monitor() {
    rustbox_only!();
    for _ in 0..20 {
        let test = Test::new();
        let c = test.bundle(limited("sleep 60", &[("wall-time", "50")]));
        c.up();
        assert_eq!(verdict(&c)["running"], true);
        c.delete_force().ok();
    }
}

/// A monitor that does not go on does not keep others from the container, and nobody believes it.
#[test]
fn a_monitor_that_hangs_is_ended_with_its_container() {
    rustbox_only!();
    let test = Test::new();
    let c = test.bundle(limited("sleep 60", &[("wall-time", "50")]));
    c.create().ok();
    let mut strace = std::process::Command::new("strace");
    strace.args(["-f", "-qq", "-o", "/dev/null", "-e", "inject=renameat:signal=STOP:when=2"]);
    strace.arg(binary()).arg("--root").arg(&test.root).args(["start", &c.id]);
    let strace = test.spawn(strace, std::process::Stdio::null());
    until("the start", || c.status() == "running");
    let begun = Instant::now();
    c.delete_force().ok();
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    strace.wait();
    test.assert_nothing_left();
    assert_eq!(verdict(&c)["status"], "IE");
}

#[test]
fn a_quota_that_holds_it_back_is_in_the_evidence() {
    rustbox_only!();
    let test = Test::new();
    let quota = json!({"linux": {"resources": {"cpu": {"quota": 10_000, "period": 100_000}}}});
    let c = test.bundle(limited("while :; do :; done", &[("wall-time", "0.6")]).patch(quota));
    c.up();
    let told = judged(&c);
    assert_eq!(told["status"], "TLE");
    let noise = &told["evidence"]["noise"];
    assert!(noise["throttled_us"].as_u64().unwrap() > 100_000, "{noise:#}");
    c.delete().ok();
}

#[test]
fn an_annotation_comes_by_the_command_line_where_an_engine_passes_none() {
    rustbox_only!();
    let test = Test::new();
    let c = test.bundle(sh("sleep 60").patch(json!({"annotations": {"org.rustbox.limit.wall-time": "50", "a": "b"}})));
    let bundle = c.bundle.to_str().unwrap();
    test.runtime(&[
        "--annotation",
        "org.rustbox.limit.wall-time=0.3",
        "--annotation=x=y=z",
        "run",
        "-d",
        "-b",
        bundle,
        &c.id,
    ])
    .ok();
    let told = judged(&c);
    assert_eq!((&told["status"], &told["limits"]["wall_time_ms"]), (&json!("TLE"), &json!(300)), "{told:#}");
    let annotations = &c.state()["annotations"];
    assert_eq!((&annotations["a"], &annotations["x"]), (&json!("b"), &json!("y=z")));
    c.delete().ok();
    test.runtime(&["--annotation", "nothing", "run", "-b", bundle, &c.id]).usage().says(&["`nothing`"]);
    test.runtime(&["--annotation", "org.rustbox.limit.time=soon", "run", "-b", bundle, &c.id])
        .denied()
        .says(&["`soon`"]);
    test.assert_nothing_left();
}
