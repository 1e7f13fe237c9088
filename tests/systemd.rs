//! The systemd driver, through the binary: with a manager that lives in the test, on a hybrid host, for what goes wrong; and
//! with the real one where systemd is process 1.

mod common;
#[path = "systemd/fake.rs"]
mod fake;

use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use common::*;
use fake::{Fake, Trouble};

const SLEEP: [&str; 2] = ["sleep", "1000"];

/// A container with a scope of its own below `slice`, whose name has the test's tag.
fn scoped<'t>(test: &'t Test, slice: &str, spec: Spec) -> (Container<'t>, String) {
    let prefix = format!("rustbox-test-{}", test.tag);
    let container = test.bundle(spec.set("/linux/cgroupsPath", json!(format!("{slice}:{prefix}:c"))));
    (container, format!("{prefix}-c.scope"))
}

// ---------------------------------------------------------------------------------------------------------------------
// with a manager that lives in the test

fn fake(test: &Test, trouble: Trouble) -> Option<Fake> {
    let hybrid = ["systemd", "unified"].iter().all(|it| std::path::Path::new("/sys/fs/cgroup").join(it).is_dir());
    if !hybrid || std::path::Path::new("/run/systemd/system").is_dir() {
        report_skip("the manager that lives in the test keeps its books as on a hybrid host without systemd");
        return None;
    }
    Some(Fake::listen(&test.path("bus"), trouble))
}

/// The runtime, with the bus in its environment: the harness gives a command none of its own.
fn with_bus(test: &Test, fake: &Fake, words: &[&str]) -> Command {
    let mut command = Command::new("/usr/bin/env");
    command.arg(format!("DBUS_SYSTEM_BUS_ADDRESS={}", fake.address)).arg(binary()).arg("--root").arg(&test.root);
    command.args(words);
    command
}

/// A command for a container, with the systemd driver.
fn driven(container: &Container<'_>, fake: &Fake, command: &str, options: &[&str]) -> Out {
    let words: Vec<_> = ["--systemd-cgroup", command].iter().chain(options).copied().chain([&*container.id]).collect();
    container.test.finish(with_bus(container.test, fake, &words))
}

fn create(container: &Container<'_>, fake: &Fake) -> Out {
    driven(container, fake, "create", &["--bundle", container.bundle.to_str().unwrap()])
}

#[test]
fn a_scope_is_made_updated_and_ended() {
    rustbox_only!();
    let t = Test::new();
    let Some(fake) = fake(&t, Trouble::None) else { return };
    let resources = json!({"memory": {"limit": 33_554_432}, "cpu": {"shares": 512, "quota": 20_000, "period": 50_000},
        "pids": {"limit": 50}});
    let (c, scope) = scoped(&t, "-.slice", spec().args(&SLEEP).resources(resources));
    create(&c, &fake).ok();
    driven(&c, &fake, "start", &[]).ok();
    let unit = fake.books.lock().unwrap().units[&scope].clone();
    let expected = [
        ("Slice", "-.slice"),
        ("Delegate", "true"),
        ("DefaultDependencies", "false"),
        ("MemoryLimit", "33554432"),
        ("CPUShares", "512"),
        ("CPUQuotaPerSecUSec", "400000"),
        ("TasksMax", "50"),
        ("DevicePolicy", "strict"),
    ];
    for (name, value) in expected {
        assert_eq!(unit[name], value, "{name}");
    }
    // The process is where the record says, and under the limits of the files.
    let pid = c.pid();
    let place = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert!(place.lines().all(|line| line.ends_with(&format!("/{scope}"))), "{place}");
    let file = |path: &str| std::fs::read_to_string(format!("/sys/fs/cgroup/{path}")).unwrap().trim().to_owned();
    assert_eq!(file(&format!("memory/{scope}/memory.limit_in_bytes")), "33554432");

    driven(&c, &fake, "update", &["--memory", "64M", "--pids-limit", "70", "--cpu-quota", "-1"]).ok();
    let unit = fake.books.lock().unwrap().units[&scope].clone();
    assert_eq!(
        (&*unit["MemoryLimit"], &*unit["TasksMax"], &*unit["CPUQuotaPerSecUSec"]),
        ("67108864", "70", "infinity")
    );
    assert_eq!(file(&format!("memory/{scope}/memory.limit_in_bytes")), "67108864");

    driven(&c, &fake, "kill", &[]).ok();
    driven(&c, &fake, "delete", &["--force"]).ok();
    assert!(fake.books.lock().unwrap().units.is_empty() && fake.calls().contains(&"StopUnit".to_owned()));
    t.assert_nothing_left();
}

#[test]
fn a_job_that_fails_and_a_manager_that_dies_leave_nothing() {
    rustbox_only!();
    for (trouble, words) in [
        (Trouble::JobFails, "the job's result is `failed`"),
        (Trouble::DiesBefore, "systemd has closed the connection"),
        (Trouble::DiesAfter, "systemd has closed the connection"),
        (Trouble::Garbage, "no message of D-Bus"),
    ] {
        let t = Test::new();
        let Some(fake) = fake(&t, trouble) else { return };
        let (c, _) = scoped(&t, "-.slice", spec().args(&SLEEP));
        create(&c, &fake).code(1).says(&[words]);
        assert!(fake.books.lock().unwrap().units.is_empty(), "{trouble:?}");
        t.assert_nothing_left();
    }
}

#[test]
fn a_unit_of_another_is_refused_and_let_be() {
    rustbox_only!();
    let t = Test::new();
    let Some(fake) = fake(&t, Trouble::None) else { return };
    let (one, scope) = scoped(&t, "-.slice", spec().args(&SLEEP));
    create(&one, &fake).ok();
    let pid = one.pid();
    *fake.trouble.lock().unwrap() = Trouble::Exists;
    let (two, _) = scoped(&t, "-.slice", spec().args(&SLEEP));
    create(&two, &fake).code(1).says(&[&scope, "exists already"]);
    // Its end has touched neither the other's process nor its scope.
    assert!(alive(pid) && fake.books.lock().unwrap().units.contains_key(&scope));
    *fake.trouble.lock().unwrap() = Trouble::None;
    driven(&one, &fake, "delete", &["--force"]).ok();
    t.assert_nothing_left();
}

#[test]
fn a_create_that_is_killed_while_it_waits_is_found_by_recovery() {
    rustbox_only!();
    let t = Test::new();
    let Some(fake) = fake(&t, Trouble::SaysNothing) else { return };
    let (c, scope) = scoped(&t, "-.slice", spec().args(&SLEEP));
    let command = with_bus(&t, &fake, &["--systemd-cgroup", "create", "--bundle", c.bundle.to_str().unwrap(), &c.id]);
    let waiting = t.spawn(command, Stdio::null());
    until("the scope", || fake.books.lock().unwrap().units.contains_key(&scope));
    waiting.signal(libc::SIGKILL);
    assert_eq!(waiting.wait().signal, Some(libc::SIGKILL));
    *fake.trouble.lock().unwrap() = Trouble::None;
    let recovered = t.finish(with_bus(&t, &fake, &["health", "--recover", "--json"]));
    assert!(recovered.stdout.contains(&c.id), "{recovered:#?}");
    assert!(fake.books.lock().unwrap().units.is_empty(), "{recovered:#?}");
    t.assert_nothing_left();
}

#[test]
fn where_systemd_is_out_of_reach_at_the_end_the_record_stays() {
    rustbox_only!();
    let t = Test::new();
    let Some(fake) = fake(&t, Trouble::None) else { return };
    let (c, scope) = scoped(&t, "-.slice", spec().args(&SLEEP));
    create(&c, &fake).ok();
    let nobody =
        Fake { address: "unix:path=/nonexistent/bus".to_owned(), ..Fake::listen(&t.path("other"), Trouble::None) };
    driven(&c, &nobody, "delete", &["--force"]).fails().says(&["/nonexistent/bus"]);
    assert!(fake.books.lock().unwrap().units.contains_key(&scope));
    driven(&c, &fake, "delete", &["--force"]).ok();
    assert!(fake.books.lock().unwrap().units.is_empty());
    t.assert_nothing_left();
}

#[test]
fn without_a_bus_the_refusal_says_where_it_looked() {
    rustbox_only!();
    let t = Test::new();
    if std::path::Path::new("/run/systemd/private").exists() {
        skip!("systemd runs here");
    }
    let (c, _) = scoped(&t, "-.slice", spec());
    let bundle = c.bundle.to_str().unwrap().to_owned();
    let out = t.runtime(&["--systemd-cgroup", "create", "--bundle", &bundle, &c.id]);
    out.code(1).says(&[
        "systemd cannot be reached",
        "/run/systemd/private",
        "/run/dbus/system_bus_socket",
        "cgroupfs driver",
    ]);
    t.assert_nothing_left();
}

#[test]
fn a_path_or_property_that_systemd_would_not_take_is_refused_before_anything_is_made() {
    rustbox_only!();
    let t = Test::new();
    for (path, annotation, pointer) in [
        ("/a/b", None, "$.linux.cgroupsPath"),
        ("a.slice:p", None, "$.linux.cgroupsPath"),
        ("a--b.slice:p:n", None, "$.linux.cgroupsPath"),
        ("a:p:n", None, "$.linux.cgroupsPath"),
        ("a.slice:p:../../n", None, "$.linux.cgroupsPath"),
        ("a.slice:p:n.slice", None, "$.linux.cgroupsPath"),
        ("a.slice:p:n", Some(("org.systemd.property.Slice", "'b.slice'")), "$.annotations.org.systemd.property.Slice"),
        (
            "a.slice:p:n",
            Some(("org.systemd.property.MemoryHigh", "lots")),
            "$.annotations.org.systemd.property.MemoryHigh",
        ),
    ] {
        let mut spec = spec().set("/linux/cgroupsPath", json!(path));
        if let Some((name, value)) = annotation {
            spec = spec.set("/annotations", json!({name: value}));
        }
        let c = t.bundle(spec);
        let bundle = c.bundle.to_str().unwrap().to_owned();
        t.runtime(&["--systemd-cgroup", "create", "--bundle", &bundle, &c.id]).code(1).says(&[pointer]);
    }
    t.assert_nothing_left();
}

// ---------------------------------------------------------------------------------------------------------------------
// with systemd

macro_rules! systemd_only {
    () => {
        rustbox_only!();
        if !std::path::Path::new("/run/systemd/private").exists() {
            skip!("systemd does not run here");
        }
    };
}

fn unified() -> bool {
    std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

fn systemd(container: &Container<'_>, command: &str, options: &[&str]) -> Out {
    let mut words = vec!["--systemd-cgroup", command];
    words.extend(options);
    words.push(&container.id);
    container.test.runtime(&words)
}

fn up(container: &Container<'_>) {
    systemd(container, "create", &["--bundle", container.bundle.to_str().unwrap()]).ok();
    container.test.remember(container.pid());
    container.start().ok();
}

/// A property as `systemctl` shows it.
fn shown(unit: &str, property: &str) -> String {
    let out = Command::new("systemctl").args(["show", "--value", "-p", property, unit]).output().unwrap();
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}

/// Whether systemd knows the unit.
fn loaded(unit: &str) -> bool {
    shown(unit, "LoadState") == "loaded" && shown(unit, "ActiveState") != "inactive"
}

fn limits() -> serde_json::Value {
    json!({"memory": {"limit": 67_108_864, "swap": 67_108_864, "reservation": 16_777_216},
        "cpu": {"shares": 512, "quota": 20_000, "period": 50_000, "cpus": "0"}, "pids": {"limit": 50}})
}

#[test]
fn create_makes_a_scope_with_its_limits_and_delete_takes_it_away() {
    systemd_only!();
    let t = Test::new();
    let (c, scope) = scoped(&t, "rustbox-test.slice", spec().args(&SLEEP).resources(limits()));
    up(&c);
    assert!(loaded(&scope));
    let common = [
        ("Slice", "rustbox-test.slice"),
        ("Delegate", "yes"),
        ("TasksMax", "50"),
        ("CPUQuotaPerSecUSec", "400ms"),
        ("CPUQuotaPeriodUSec", "50ms"),
        ("DevicePolicy", "strict"),
        ("ActiveState", "active"),
    ];
    let versioned: &[(&str, &str)] = if unified() {
        &[
            ("MemoryMax", "67108864"),
            ("MemorySwapMax", "0"),
            ("MemoryLow", "16777216"),
            ("CPUWeight", "59"),
            ("AllowedCPUs", "0"),
        ]
    } else {
        &[("MemoryLimit", "67108864"), ("CPUShares", "512")]
    };
    for (name, value) in common.iter().chain(versioned) {
        assert_eq!(shown(&scope, name), *value, "{name}");
    }
    assert!(shown(&scope, "DeviceAllow").contains("/dev/char/1:3 rwm"), "{}", shown(&scope, "DeviceAllow"));
    let place = std::fs::read_to_string(format!("/proc/{}/cgroup", c.pid())).unwrap();
    let path = format!("/rustbox.slice/rustbox-test.slice/{scope}");
    assert!(place.lines().all(|line| line.ends_with(&path)), "{place}");
    // A process that is added is in it too.
    let added = c.exec(&["cat", "/proc/self/cgroup"]).ok();
    assert!(!added.stdout.is_empty() && added.stdout.lines().all(|line| line.ends_with(&path)), "{added:#?}");
    c.kill_and_delete();
    assert!(!loaded(&scope));
    t.assert_nothing_left();
}

#[test]
fn update_is_to_be_seen_in_the_unit_and_in_the_files() {
    systemd_only!();
    let t = Test::new();
    let (c, scope) = scoped(&t, "system.slice", spec().args(&SLEEP).resources(limits()));
    up(&c);
    let options = [
        "--memory",
        "128M",
        "--memory-swap",
        "160M",
        "--memory-reservation",
        "32M",
        "--pids-limit",
        "70",
        "--cpu-share",
        "2048",
        "--cpu-quota",
        "10000",
        "--cpu-period",
        "100000",
        "--cpuset-cpus",
        "0-1",
    ];
    systemd(&c, "update", &options).ok();
    assert_eq!((shown(&scope, "TasksMax"), shown(&scope, "CPUQuotaPerSecUSec")), ("70".to_owned(), "100ms".to_owned()));
    let dir = |controller: &str| {
        let root = if unified() { "/sys/fs/cgroup".to_owned() } else { format!("/sys/fs/cgroup/{controller}") };
        format!("{root}/system.slice/{scope}")
    };
    let file = |controller: &str, name: &str| {
        std::fs::read_to_string(format!("{}/{name}", dir(controller))).unwrap().trim().to_owned()
    };
    if unified() {
        for (name, value) in [
            ("MemoryMax", "134217728"),
            ("MemorySwapMax", "33554432"),
            ("MemoryLow", "33554432"),
            ("CPUWeight", "174"),
            ("AllowedCPUs", "0-1"),
        ] {
            assert_eq!(shown(&scope, name), value, "{name}");
        }
        for (name, value) in [
            ("memory.max", "134217728"),
            ("memory.low", "33554432"),
            ("pids.max", "70"),
            ("cpu.max", "10000 100000"),
            ("cpu.weight", "174"),
            ("cpuset.cpus", "0-1"),
        ] {
            assert_eq!(file("", name), value, "{name}");
        }
    } else {
        assert_eq!(
            (shown(&scope, "MemoryLimit"), shown(&scope, "CPUShares")),
            ("134217728".to_owned(), "2048".to_owned())
        );
        assert_eq!(file("memory", "memory.limit_in_bytes"), "134217728");
        assert_eq!(file("cpu,cpuacct", "cpu.cfs_quota_us"), "10000");
        assert_eq!(file("cpuset", "cpuset.cpus"), "0-1");
    }
    // No limit at all is a limit that can be asked for.
    systemd(&c, "update", &["--memory", "-1", "--cpu-quota", "-1"]).ok();
    let memory = if unified() { "MemoryMax" } else { "MemoryLimit" };
    assert_eq!(
        (shown(&scope, memory), shown(&scope, "CPUQuotaPerSecUSec")),
        ("infinity".to_owned(), "infinity".to_owned())
    );
    // What cannot be had changes nothing.
    systemd(&c, "update", &["--pids-limit", "33", "--cpuset-cpus", "4000"]).fails();
    assert_eq!((shown(&scope, "TasksMax"), file("pids", "pids.max")), ("70".to_owned(), "70".to_owned()));
    c.kill_and_delete();
    t.assert_nothing_left();
}

#[test]
fn a_reload_of_systemd_takes_no_limit_away() {
    systemd_only!();
    let t = Test::new();
    let script = "read go < /dev/shm/go; echo x > /dev/null && echo null; mknod /dev/shm/kmsg c 1 11; cat /dev/shm/kmsg && echo leak; echo end";
    let c = sh(&format!("mkfifo /dev/shm/go; {script}; sleep 1000")).resources(limits()).caps(&["CAP_MKNOD"]);
    let (c, scope) = scoped(&t, "system.slice", c);
    up(&c);
    assert!(Command::new("systemctl").arg("daemon-reload").status().unwrap().success());
    // systemd writes its properties again when one of them changes.
    assert!(
        Command::new("systemctl")
            .args(["set-property", "--runtime", &scope, "CPUWeight=77", "CPUShares=77"])
            .status()
            .unwrap()
            .success()
    );
    let (memory, pids) = if unified() {
        (
            format!("/sys/fs/cgroup/system.slice/{scope}/memory.max"),
            format!("/sys/fs/cgroup/system.slice/{scope}/pids.max"),
        )
    } else {
        let file = |controller: &str, name: &str| format!("/sys/fs/cgroup/{controller}/system.slice/{scope}/{name}");
        (file("memory", "memory.limit_in_bytes"), file("pids", "pids.max"))
    };
    assert_eq!(std::fs::read_to_string(memory).unwrap().trim(), "67108864");
    assert_eq!(std::fs::read_to_string(pids).unwrap().trim(), "50");
    c.exec(&["sh", "-c", "echo go > /dev/shm/go"]).ok();
    until("the end", || {
        c.exec(&["true"]).code == 0 && std::fs::read_to_string(t.path("io/0.out")).unwrap().contains("end")
    });
    let said = std::fs::read_to_string(t.path("io/0.out")).unwrap();
    assert!(said.contains("null") && !said.contains("leak"), "{said}");
    c.kill_and_delete();
    t.assert_nothing_left();
}

#[test]
fn annotations_are_properties_of_the_scope() {
    systemd_only!();
    let t = Test::new();
    let annotations = json!({"org.systemd.property.TimeoutStopSec": "7", "org.systemd.property.MemoryHigh": "uint64 33554432",
        "org.systemd.property.After": "['dbus.socket']"});
    let (c, scope) = scoped(&t, "system.slice", spec().args(&SLEEP).set("/annotations", annotations));
    up(&c);
    assert_eq!(shown(&scope, "TimeoutStopUSec"), "7s");
    assert_eq!(shown(&scope, "MemoryHigh"), "33554432");
    assert!(shown(&scope, "After").contains("dbus.socket"));
    c.kill_and_delete();
    t.assert_nothing_left();
}

#[test]
fn a_unit_that_is_there_is_refused() {
    systemd_only!();
    let t = Test::new();
    let (one, scope) = scoped(&t, "system.slice", spec().args(&SLEEP));
    up(&one);
    let (two, _) = scoped(&t, "system.slice", spec().args(&SLEEP));
    systemd(&two, "create", &["--bundle", two.bundle.to_str().unwrap()]).code(1).says(&[&scope, "exists already"]);
    assert_eq!((one.status(), loaded(&scope)), ("running".to_owned(), true));
    one.kill_and_delete();
    t.assert_nothing_left();
}

#[test]
fn a_scope_pauses_runs_in_the_foreground_and_ends_by_itself() {
    systemd_only!();
    let t = Test::new();
    let (c, scope) = scoped(&t, "system.slice", spec().args(&SLEEP));
    up(&c);
    t.runtime(&["pause", &c.id]).ok();
    assert_eq!(c.status(), "paused");
    t.runtime(&["resume", &c.id]).ok();
    t.runtime(&["pause", &c.id]).ok();
    c.delete_force().ok();
    assert!(!loaded(&scope));
    let (c, scope) = scoped(&t, "system.slice", sh("exit 7"));
    let mut command = Command::new(binary());
    command.arg("--root").arg(&t.root).args(["--systemd-cgroup", "run", "--bundle"]).arg(&c.bundle).arg(&c.id);
    t.finish(command).code(7);
    assert!(!loaded(&scope));
    t.assert_nothing_left();
}

#[test]
fn a_create_that_fails_later_takes_its_scope_back() {
    systemd_only!();
    let t = Test::new();
    let (c, scope) = scoped(&t, "system.slice", spec().args(&["/nothing/there"]));
    systemd(&c, "create", &["--bundle", c.bundle.to_str().unwrap()]).fails();
    assert!(!loaded(&scope));
    t.assert_nothing_left();
}

#[test]
fn the_users_manager_makes_a_scope_for_who_has_no_privilege() {
    systemd_only!();
    if !unified() {
        skip!("on cgroup v1 systemd delegates nothing to users");
    }
    if !std::path::Path::new("/run/user/1000/systemd/private").exists() {
        skip!("no manager of user 1000 runs here");
    }
    let t = Test::new();
    let spec =
        spec().args(&SLEEP).resources(json!({"memory": {"limit": 67_108_864}, "pids": {"limit": 50}})).patch(json!({
            "linux": {"uidMappings": [{"containerID": 0, "hostID": 1000, "size": 1}],
                "gidMappings": [{"containerID": 0, "hostID": 1000, "size": 1}]}
        }));
    let spec = spec.namespace(json!({"type": "user"})).without_mount("/dev/pts");
    let (c, scope) = scoped(&t, "user.slice", spec);
    for dir in [&t.dir, &c.bundle, &c.bundle.join("rootfs"), &t.path("io")] {
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    std::fs::create_dir(&t.root).unwrap();
    std::os::unix::fs::chown(&t.root, Some(1000), Some(1000)).unwrap();
    let user = |words: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "1000", "--regid", "1000", "--clear-groups", "env", "XDG_RUNTIME_DIR=/run/user/1000"]);
        command.arg(binary()).arg("--root").arg(&t.root).arg("--systemd-cgroup").args(words);
        t.finish(command)
    };
    user(&["create", "--bundle", c.bundle.to_str().unwrap(), &c.id]).ok();
    let pid = c.pid();
    t.remember(pid);
    user(&["start", &c.id]).ok();
    let place = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let path = format!("/user.slice/user-1000.slice/user@1000.service/user.slice/{scope}");
    assert_eq!(place.trim(), format!("0::{path}"));
    let file = |name: &str| std::fs::read_to_string(format!("/sys/fs/cgroup{path}/{name}")).unwrap().trim().to_owned();
    assert_eq!((file("memory.max"), file("pids.max")), ("67108864".to_owned(), "50".to_owned()));
    user(&["update", "--pids-limit", "60", &c.id]).ok();
    assert_eq!(file("pids.max"), "60");
    user(&["delete", "--force", &c.id]).ok();
    t.assert_nothing_left();
}
