//! `metrics`: what commands count, that nothing is lost, that nothing that is wrong with it breaks a command, and its ways out.
//! Takes some seconds.

mod common;

#[path = "metrics/http.rs"]
mod http;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use common::*;

/// The names that are promised to dashboards and alerts.
const PROMISED: [&str; 18] = [
    "rustbox_worker_health{status=\"healthy\"}",
    "rustbox_cleanup_total{outcome=\"failure\"}",
    "rustbox_cleanup_duration_seconds_count",
    "rustbox_executions_total",
    "rustbox_executions_by_status{status=\"IE\"}",
    "rustbox_verdict_cause_total{cause=\"normal_exit\"}",
    "rustbox_verdict_actor_total{actor=\"judge\"}",
    "rustbox_limit_violations_total{resource=\"memory\"}",
    "rustbox_control_degraded_total{control=\"seccomp\"}",
    "rustbox_backend_cgroup{version=\"v2\"}",
    "rustbox_backend_pidfd{mode=\"pidfd\"}",
    "rustbox_active_containers",
    "rustbox_start_latency_seconds_bucket{le=\"+Inf\"}",
    "rustbox_execution_duration_seconds_sum",
    "rustbox_orphan_processes_total",
    "rustbox_containment_violations_total",
    "rustbox_quarantine_total{reason=\"cleanup_failures\"}",
    "rustbox_abuse_pattern_total{pattern=\"pids_rate\"}",
];

/// The samples of an exposition.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| line.rsplit_once(' ').map(|(name, value)| (name.to_owned(), value.parse().unwrap())).unwrap())
        .collect()
}

fn metrics(t: &Test) -> BTreeMap<String, f64> {
    samples(&t.runtime(&["metrics"]).ok().stdout)
}

/// The file of the counts.
fn file(t: &Test) -> PathBuf {
    t.path("worker").join("metrics")
}

#[test]
fn a_worker_that_never_worked_has_every_metric_at_zero_and_stays_unmade() {
    rustbox_only!();
    let t = Test::new();
    let text = t.runtime(&["metrics"]).ok().stdout;
    let samples = samples(&text);
    for name in PROMISED {
        let at = if name.contains("healthy") || name.contains("pidfd") { 1.0 } else { 0.0 };
        // How cgroups are mounted depends on the host.
        let value = samples.get(name).unwrap_or_else(|| panic!("no {name} in {text}"));
        assert!(*value == at || name.contains("cgroup"), "{name} {value}");
    }
    let versions: f64 =
        samples.iter().filter(|(name, _)| name.starts_with("rustbox_backend_cgroup")).map(|it| it.1).sum();
    assert_eq!(versions, 1.0);
    assert!(!t.root.exists() && !file(&t).exists());
}

#[test]
fn a_containers_life_is_counted() {
    rustbox_only!();
    let t = Test::new();
    let c = t.bundle(sh("sleep 600"));
    c.create().ok();
    c.start().ok();
    let now = metrics(&t);
    assert_eq!(now["rustbox_active_containers"], 1.0);
    assert_eq!(now["rustbox_start_latency_seconds_count"], 1.0);
    assert_eq!(now["rustbox_start_latency_seconds_bucket{le=\"+Inf\"}"], 1.0);
    assert!(now["rustbox_start_latency_seconds_sum"] > 0.0);
    assert_eq!(now["rustbox_cleanup_total{outcome=\"success\"}"], 0.0);
    c.delete_force().ok();
    let c = t.bundle(sh("exit 3"));
    c.run().code(3);
    // A create that fails releases what it has made.
    let c = t.bundle(sh("true").set("/process/cwd", json!("/etc/passwd")));
    c.create().fails();
    let now = metrics(&t);
    assert_eq!(now["rustbox_active_containers"], 0.0);
    assert_eq!(now["rustbox_start_latency_seconds_count"], 2.0);
    assert_eq!(now["rustbox_cleanup_total{outcome=\"success\"}"], 3.0);
    assert_eq!(now["rustbox_cleanup_total{outcome=\"failure\"}"], 0.0);
    assert_eq!(now["rustbox_cleanup_duration_seconds_count"], 3.0);
    assert_eq!(now["rustbox_executions_total"], 0.0);
    assert_eq!(fs::metadata(file(&t)).unwrap().permissions().mode() & 0o7777, 0o600);
}

#[test]
fn judged_runs_are_counted_by_what_they_came_to() {
    rustbox_only!();
    let t = Test::new();
    let run = |code: i32, options: &[&str], text: &str| {
        let id = format!("rbt-{}-metrics", t.tag);
        t.runtime(&[&["run"], options, &["--code", text, &id]].concat()).code(code);
    };
    run(0, &[], "true");
    run(1, &[], "exit 3");
    run(1, &["--wall-time", "0.2"], "sleep 5");
    run(1, &["--output", "4K"], "while :; do echo more; done");
    run(1, &["--language", "c"], "int main(void) { return");
    let now = metrics(&t);
    let expected = [
        ("rustbox_executions_total", 5.0),
        ("rustbox_executions_by_status{status=\"OK\"}", 1.0),
        ("rustbox_executions_by_status{status=\"RE\"}", 1.0),
        ("rustbox_executions_by_status{status=\"TLE\"}", 1.0),
        ("rustbox_executions_by_status{status=\"OLE\"}", 1.0),
        ("rustbox_executions_by_status{status=\"CE\"}", 1.0),
        ("rustbox_executions_by_status{status=\"IE\"}", 0.0),
        ("rustbox_verdict_cause_total{cause=\"normal_exit\"}", 1.0),
        ("rustbox_verdict_cause_total{cause=\"tle_wall_judge\"}", 1.0),
        ("rustbox_verdict_cause_total{cause=\"ce_nonzero_exit\"}", 1.0),
        ("rustbox_verdict_actor_total{actor=\"judge\"}", 2.0),
        ("rustbox_verdict_actor_total{actor=\"payload\"}", 3.0),
        ("rustbox_limit_violations_total{resource=\"wall\"}", 1.0),
        ("rustbox_limit_violations_total{resource=\"output\"}", 1.0),
        ("rustbox_limit_violations_total{resource=\"cpu\"}", 0.0),
        ("rustbox_execution_duration_seconds_count", 4.0),
        ("rustbox_start_latency_seconds_count", 5.0),
        ("rustbox_cleanup_total{outcome=\"success\"}", 5.0),
    ];
    for (name, value) in expected {
        assert_eq!(now[name], value, "{name}");
    }
    assert!(now["rustbox_execution_duration_seconds_sum"] > 0.2);
}

#[test]
fn a_quarantine_is_counted_and_shown() {
    rustbox_only!();
    let t = Test::new();
    t.runtime(&["health", "--quarantine", "--reason", "a test"]).ok();
    let now = metrics(&t);
    assert_eq!(now["rustbox_quarantine_total{reason=\"operator\"}"], 1.0);
    assert_eq!(now["rustbox_worker_health{status=\"quarantined\"}"], 1.0);
    assert_eq!(now["rustbox_worker_health{status=\"healthy\"}"], 0.0);
    t.runtime(&["health", "--unquarantine", "--reason", "it is over"]).ok();
    let now = metrics(&t);
    assert_eq!(now["rustbox_quarantine_total{reason=\"operator\"}"], 1.0);
    assert_eq!(now["rustbox_worker_health{status=\"healthy\"}"], 1.0);
}

#[test]
fn failed_cleanups_are_counted_until_they_quarantine() {
    rustbox_only!();
    let t = Test::new();
    let c = t.bundle(sh("true"));
    c.up();
    c.wait_status("stopped");
    // A mount below its root file system that is not the container's: nobody unmounts it.
    let place = c.rootfs().join("tmp");
    fs::create_dir_all(&place).unwrap();
    nix::mount::mount(Some("tmpfs"), &place, Some("tmpfs"), nix::mount::MsFlags::empty(), None::<&str>).unwrap();
    for failures in [1.0, 2.0, 3.0] {
        c.delete().denied();
        let now = metrics(&t);
        assert_eq!(now["rustbox_cleanup_total{outcome=\"failure\"}"], failures);
        assert_eq!(now["rustbox_containment_violations_total"], failures);
        assert_eq!(now["rustbox_consecutive_cleanup_failures"], failures);
        assert_eq!(now["rustbox_stopped_containers"], 1.0);
        let status = if failures < 3.0 { "unhealthy" } else { "quarantined" };
        assert_eq!(now[&format!("rustbox_worker_health{{status=\"{status}\"}}")], 1.0);
    }
    nix::mount::umount(&place).unwrap();
    c.delete().ok();
    let now = metrics(&t);
    assert_eq!(now["rustbox_quarantine_total{reason=\"cleanup_failures\"}"], 1.0);
    assert_eq!(now["rustbox_cleanup_total{outcome=\"success\"}"], 1.0);
    assert_eq!(now["rustbox_orphan_processes_total"], 0.0);
    t.assert_nothing_left();
}

#[test]
fn a_process_that_has_left_its_containers_cgroups_is_counted() {
    rustbox_only!();
    let t = Test::new();
    if t.runtime(&["health", "--json"]).ok().json()["backends"]["orphans"] == "none" {
        skip!("this kernel numbers no mount namespaces (Linux 6.11)");
    }
    let c = t.bundle(sh("sleep 600 & exec sleep 601").without_namespace("pid"));
    c.up();
    let init = c.pid();
    until("a child", || children(init).len() == 1);
    let orphan = children(init)[0];
    t.remember(orphan);
    for hierarchy in fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
        let _ = fs::write(hierarchy.path().join("cgroup.procs"), orphan.to_string());
    }
    c.kill("KILL").ok();
    c.wait_status("stopped");
    c.delete().denied();
    let now = metrics(&t);
    assert_eq!(now["rustbox_orphan_processes_total"], 1.0);
    assert_eq!(now["rustbox_containment_violations_total"], 1.0);
    assert_eq!(now["rustbox_quarantine_total{reason=\"orphan_process\"}"], 1.0);
    t.runtime(&["health", "--recover", "--cleanup"]).ok();
    assert_eq!(metrics(&t)["rustbox_orphan_processes_total"], 1.0);
    t.assert_nothing_left();
}

#[test]
fn abuse_and_missing_controls_are_counted() {
    rustbox_only!();
    let t = Test::new();
    let id = format!("rbt-{}-metrics", t.tag);
    let bomb = "#include <unistd.h>\nint main(void) { for (;;) fork(); }";
    t.runtime(&["run", "--language", "c", "--processes", "20", "--time", "5", "--code", bomb, &id]).code(1);
    let now = metrics(&t);
    assert_eq!(now["rustbox_abuse_pattern_total{pattern=\"pids_rate\"}"], 1.0);
    assert_eq!(now["rustbox_executions_by_status{status=\"ABUSE\"}"], 1.0);
    assert_eq!(now["rustbox_limit_violations_total{resource=\"processes\"}"], 0.0);

    fs::write(t.path("zero"), "0").unwrap();
    let hide = "unshare -m sh -c 'mount --bind zero /proc/sys/user/max_user_namespaces && exec \"$@\"' sh \"$@\"";
    t.shell(hide, &["run", "--code", "true", &id]).code(4);
    t.shell(hide, &["run", "--permissive", "--code", "true", &id]).ok();
    let now = metrics(&t);
    assert_eq!(now["rustbox_control_degraded_total{control=\"user_namespace\"}"], 1.0);
    // What was refused has come to no verdict.
    assert_eq!(now["rustbox_executions_total"], 2.0);
}

#[test]
fn what_dead_commands_left_is_shown() {
    rustbox_only!();
    let t = Test::new();
    fs::create_dir_all(t.root.join("emptied")).unwrap();
    assert_eq!(metrics(&t)["rustbox_stale_objects"], 1.0);
    t.runtime(&["health", "--recover"]).ok();
    assert_eq!(metrics(&t)["rustbox_stale_objects"], 0.0);
}

#[test]
fn a_hundred_commands_at_once_lose_no_count() {
    rustbox_only!();
    let t = Test::new();
    let containers: Vec<_> = (0..100).map(|_| t.bundle(sh("true"))).collect();
    // The file is made by whoever comes first.
    let running: Vec<_> = containers.iter().map(|c| c.spawn_run(&[], Stdio::null())).collect();
    for run in running {
        run.wait().ok();
    }
    let now = metrics(&t);
    assert_eq!(now["rustbox_cleanup_total{outcome=\"success\"}"], 100.0);
    assert_eq!(now["rustbox_cleanup_duration_seconds_count"], 100.0);
    assert_eq!(now["rustbox_start_latency_seconds_count"], 100.0);
}

#[test]
fn what_a_killed_command_has_counted_stays() {
    rustbox_only!();
    let t = Test::new();
    for round in 1..=5 {
        let c = t.bundle(sh("echo up; sleep 600"));
        let run = c.spawn_run(&[], Stdio::null());
        run.wait_for("up");
        t.remember(c.pid());
        until("the start to be counted", || metrics(&t)["rustbox_start_latency_seconds_count"] == f64::from(round));
        run.signal(libc::SIGKILL);
        assert_eq!(run.wait().signal, Some(9));
        c.delete_force().ok();
    }
    let now = metrics(&t);
    assert_eq!(now["rustbox_start_latency_seconds_count"], 5.0);
    assert_eq!(now["rustbox_cleanup_total{outcome=\"success\"}"], 5.0);
}

#[test]
fn counting_costs_six_system_calls_and_no_more_where_more_is_counted() {
    rustbox_only!();
    let t = Test::new();
    for args in [&["run", "--code", "true"][..], &["run", "--language", "c", "--code", "int main(void) { return 0; }"]]
    {
        let log = t.path("strace");
        let mut command = Command::new("strace");
        command
            .args(["-qq", "-y", "-o"])
            .arg(&log)
            .args(["-e", "trace=openat,fstat,newfstatat,mmap,madvise,pread64,pwrite64,flock,mkdir"]);
        command.arg(binary()).arg("--root").arg(&t.root).args(args).arg(format!("rbt-{}-cost", t.tag));
        // The first one makes the file.
        t.finish(command).ok();
        let name = file(&t);
        let text = fs::read_to_string(&log).unwrap();
        let lines: Vec<_> = text.lines().collect();
        let mut calls: Vec<_> = lines.iter().filter(|line| line.contains(name.to_str().unwrap())).collect();
        if args.len() == 3 {
            continue;
        }
        let mapped =
            lines.iter().position(|line| line.starts_with("mmap") && line.contains(name.to_str().unwrap())).unwrap();
        let advice = lines[mapped + 1..].iter().take_while(|line| line.starts_with("madvise")).collect::<Vec<_>>();
        calls.extend(&advice);
        // With the close(2) that is not traced, six.
        assert_eq!(calls.len(), 5, "{calls:#?}");
    }
}

/// Something is in the place of the file: the command works and warns, `metrics` says why, and it stays as it is.
#[track_caller]
fn is_refused(t: &Test, words: &str) {
    let before = fs::read(file(t)).ok();
    let c = t.bundle(sh("echo works"));
    let out = c.run().ok();
    assert_eq!(out.stdout, "works\n");
    out.says(&["warning: nothing is counted", words, "worker/metrics"]);
    c.create().ok();
    c.start().ok().says(&["nothing is counted"]);
    c.wait_status("stopped");
    c.delete().ok();
    t.runtime(&["metrics"]).denied().says(&[words, "worker/metrics"]);
    t.runtime(&["metrics", "--textfile", t.path("out.prom").to_str().unwrap()]).denied().says(&[words]);
    assert!(!t.path("out.prom").exists());
    assert_eq!(fs::read(file(t)).ok(), before);
    t.assert_nothing_left();
}

#[test]
fn a_file_that_is_not_ours_is_refused_and_breaks_no_command() {
    rustbox_only!();
    let t = Test::new();
    let place = file(&t);
    fs::create_dir(t.path("worker")).unwrap();

    fs::write(&place, "# TYPE x counter\n").unwrap();
    is_refused(&t, "is 17 bytes long, not 4096; it is no file of rustbox's metrics");
    fs::write(&place, vec![b'x'; 4096]).unwrap();
    is_refused(&t, "does not begin as it should");
    fs::write(&place, [&b"rustboxM"[..], &99u64.to_ne_bytes(), &[0; 4080]].concat()).unwrap();
    is_refused(&t, "is of version 99, this is 1");
    fs::remove_file(&place).unwrap();

    fs::create_dir(&place).unwrap();
    is_refused(&t, "worker/metrics");
    fs::remove_dir(&place).unwrap();
    symlink("/dev/null", &place).unwrap();
    is_refused(&t, "Too many symbolic links");
    fs::remove_file(&place).unwrap();

    t.bundle(sh("true")).run().ok();
    assert_eq!(metrics(&t)["rustbox_start_latency_seconds_count"], 1.0);
    fs::set_permissions(&place, fs::Permissions::from_mode(0o666)).unwrap();
    is_refused(&t, "can be written by others (mode 666)");
    fs::set_permissions(&place, fs::Permissions::from_mode(0o600)).unwrap();
    if fs::metadata(&place).unwrap().uid() != 0 {
        skip!("only root can give a file away");
    }
    std::os::unix::fs::chown(&place, Some(12345), None).unwrap();
    is_refused(&t, "belongs to user 12345, not to 0");
    std::os::unix::fs::chown(&place, Some(0), None).unwrap();
    assert_eq!(metrics(&t)["rustbox_start_latency_seconds_count"], 1.0);
}

#[test]
fn a_full_or_forbidden_place_breaks_no_command() {
    rustbox_only!();
    let t = Test::new();
    // No room for a page: one is all that there is.
    let script = |options: &str, fill: &str| {
        format!("mkdir -p {0} && mount -t tmpfs -o {options} tmpfs {0} && {fill} && \"$@\"", t.path("worker").display())
    };
    let inside = |script: &str, args: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["-m", "/bin/sh", "-c", script, "sh"]).arg(binary()).arg("--root").arg(&t.root).args(args);
        t.finish(command)
    };
    let c = t.bundle(sh("echo works"));
    let run = ["run", "--bundle", c.bundle.to_str().unwrap(), &c.id];
    let fill = format!("head -c 4096 /dev/zero >{}/full", t.path("worker").display());
    let out = inside(&script("size=4k", &fill), &run).ok();
    assert_eq!(out.stdout, "works\n");
    out.says(&["nothing is counted", "No space left on device"]);
    // Where nothing may be made, nobody is told at every command.
    let out = inside(&script("ro", "true"), &run).ok();
    assert_eq!((out.stdout.as_str(), out.stderr.as_str()), ("works\n", ""));
    t.assert_nothing_left();
}

#[test]
fn the_textfile_is_replaced_as_a_whole() {
    rustbox_only!();
    let t = Test::new();
    let out = t.path("rustbox.prom");
    let write = || t.runtime(&["metrics", "--textfile", out.to_str().unwrap()]);
    fs::write(&out, "old").unwrap();
    write().ok();
    let first = fs::read_to_string(&out).unwrap();
    assert_eq!(samples(&first)["rustbox_worker_health{status=\"healthy\"}"], 1.0);
    assert_eq!(fs::metadata(&out).unwrap().permissions().mode() & 0o777, 0o644);
    let names = || fs::read_dir(&t.dir).unwrap().map(|it| it.unwrap().file_name().into_string().unwrap());
    assert_eq!(names().filter(|name| name.contains("prom")).collect::<Vec<_>>(), ["rustbox.prom"]);
    t.runtime(&["metrics", "--textfile", t.path("no/such").to_str().unwrap()])
        .denied()
        .says(&["/no/.such", "No such file"]);
    t.runtime(&["metrics", "--textfile", "/"]).usage().says(&["names no file"]);
    // A directory in its place cannot be replaced; nothing is left beside it.
    fs::remove_file(&out).unwrap();
    fs::create_dir(&out).unwrap();
    write().denied().says(&["Is a directory"]);
    assert_eq!(names().filter(|name| name.contains("prom")).collect::<Vec<_>>(), ["rustbox.prom"]);
}

#[test]
fn the_documentation_has_the_table() {
    rustbox_only!();
    let t = Test::new();
    let table = t.bare(&["metrics", "--describe"]).ok().stdout;
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md")).unwrap();
    let at = text.find("| metric |").expect("a table");
    assert_eq!(&text[at..], table, "run `make metrics-docs`");
    // And what is promised is in it.
    for name in PROMISED {
        let name = name.split('{').next().unwrap();
        let name =
            ["_bucket", "_count", "_sum"].iter().fold(name, |name, suffix| name.strip_suffix(suffix).unwrap_or(name));
        assert!(table.contains(&format!("| `{name}` |")), "{name}");
    }
}

#[test]
fn promtool_finds_nothing_to_say() {
    rustbox_only!();
    let t = Test::new();
    let promtool = std::env::var_os("RUSTBOX_PROMTOOL").unwrap_or_else(|| "promtool".into());
    t.bundle(sh("true")).run().ok();
    let text = t.path("metrics.txt");
    fs::write(&text, t.runtime(&["metrics"]).ok().stdout).unwrap();
    let mut command = Command::new(promtool);
    command.args(["check", "metrics"]);
    if command.arg("--help").output().is_err() {
        skip!("no promtool: make deps-test unpacks one, RUSTBOX_PROMTOOL names it");
    }
    let mut command = Command::new(command.get_program());
    command.args(["check", "metrics"]);
    let out = t.spawn(command, fs::File::open(&text).unwrap().into()).wait().ok();
    assert_eq!((out.stdout.as_str(), out.stderr.as_str()), ("", ""));
}
