//! What went wrong in other runtimes, each held through the binary by what it would have done. Ways out of the container
//! are in `escape.rs`.

mod common;

use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::*;

fn inodes_below(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// Exchanges two names again and again until it is dropped.
struct Swapper {
    stop: std::sync::Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Swapper {
    fn of(one: &Path, other: &Path) -> Self {
        use nix::fcntl::{RenameFlags, renameat2};
        let stop = std::sync::Arc::new(AtomicBool::new(false));
        let (one, other, stopped) = (one.to_owned(), other.to_owned(), stop.clone());
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                renameat2(None, &one, None, &other, RenameFlags::RENAME_EXCHANGE).unwrap();
            }
        });
        Swapper { stop, thread: Some(thread) }
    }
}

impl Drop for Swapper {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().unwrap().join();
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// capabilities

#[test]
fn cve_2022_29162_no_capability_is_inheritable_that_nobody_has_asked_for() {
    let t = Test::new();
    let c = t.bundle(spec().args(&["sleep", "1000"]));
    c.up();
    let sets = |out: Out| -> Vec<String> {
        let lines = out.stdout.lines().filter(|line| line.starts_with("CapInh") || line.starts_with("CapAmb"));
        lines.map(|line| line.split_whitespace().nth(1).unwrap().to_owned()).collect()
    };
    let none = vec!["0000000000000000".to_owned(); 2];
    let status = ["cat", "/proc/self/status"];
    assert_eq!(sets(c.exec(&["cat", "/proc/1/status"]).ok()), none, "create");
    assert_eq!(sets(c.exec(&status).ok()), none, "exec");
    assert_eq!(sets(c.exec_with(&["--cap", "CAP_NET_RAW"], &status).ok()), none, "exec --cap");
    assert_eq!(sets(c.exec_with(&["--cap", "CAP_NET_RAW", "--user", "1000"], &status).ok()), none, "exec --cap --user");
    c.kill_and_delete();

    not_under!(Runc, "its default configuration has ambient capabilities, which need inheritable ones");
    t.bare(&["spec", "--bundle", t.dir.to_str().unwrap()]).ok();
    let config: serde_json::Value = serde_json::from_str(&fs::read_to_string(t.path("config.json")).unwrap()).unwrap();
    for set in ["inheritable", "ambient"] {
        let list = &config["process"]["capabilities"][set];
        assert!(list.is_null() || list == &json!([]), "spec: {set} {list}");
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// paths in the root file system

#[test]
fn cve_2024_45310_nothing_is_made_outside_while_a_parent_of_a_mount_point_is_exchanged() {
    not_under!(Runc, "makes directories there (before 1.1.14)");
    // A volume that somebody else writes to: its directory becomes a link to the host and back while mount points are
    // made below it.
    let t = Test::new();
    let (shared, victim) = (t.path("shared"), t.path("victim"));
    fs::create_dir_all(shared.join("inner")).unwrap();
    fs::create_dir(&victim).unwrap();
    symlink(&victim, shared.join("link")).unwrap();
    let source = t.path("source");
    fs::write(&source, "").unwrap();
    let swapper = Swapper::of(&shared.join("inner"), &shared.join("link"));
    for round in 0..30 {
        let volume = shared.to_str().unwrap();
        let spec = spec()
            .writable()
            .bind(volume, "/volume", &["rbind", "rw"])
            .tmpfs(&format!("/volume/inner/directory{round}/below"), &[])
            .bind(source.to_str().unwrap(), &format!("/volume/inner/file{round}"), &["bind"]);
        let out = t.bundle(spec).run();
        let made = inodes_below(&victim);
        assert!(made.is_empty(), "made on the host: {made:?}: {out:?}");
    }
    drop(swapper);
    t.assert_nothing_left();
}

#[test]
fn cve_2023_27561_and_28642_a_proc_that_is_a_link_in_a_volume_is_not_mounted_on() {
    // With /proc somewhere else, the kernel's files for labels and limits are whatever the image says.
    let t = Test::new();
    let volume = t.path("volume");
    fs::create_dir_all(volume.join("fake")).unwrap();
    let c = t.bundle(sh("cat /proc/self/status").writable());
    fs::remove_dir(c.rootfs().join("proc")).unwrap();
    symlink("/volume/fake", c.rootfs().join("proc")).unwrap();
    let mut config: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(c.bundle.join("config.json")).unwrap()).unwrap();
    let mount = json!({"destination": "/volume", "type": "bind", "source": volume, "options": ["rbind"]});
    config["mounts"].as_array_mut().unwrap().insert(0, mount);
    c.write_config(&config);
    c.run().denied().rustbox_says(&["/proc"]);
    assert!(inodes_below(&volume.join("fake")).is_empty());
    t.assert_nothing_left();
}

#[test]
fn cve_2025_52565_a_console_that_is_a_link_gets_no_mount_where_it_points() {
    not_under!(Runc, "follows it (before 1.2.8)");
    let t = Test::new();
    let victim = t.path("victim");
    fs::write(&victim, "host").unwrap();
    let volume = t.path("dev");
    fs::create_dir(&volume).unwrap();
    // Absolute for the container and for the host.
    symlink(&victim, volume.join("console")).unwrap();
    let spec = sh("ls -l /dev/console; echo x > /dev/console")
        .without_mount("/dev")
        .without_mount("/dev/pts")
        .without_mount("/dev/shm")
        .without_mount("/dev/mqueue")
        .bind(volume.to_str().unwrap(), "/dev", &["rbind", "rw"])
        .mount(json!({"destination": "/dev/pts", "type": "devpts", "source": "devpts",
            "options": ["newinstance", "ptmxmode=0666", "mode=0620"]}))
        .set("/process/terminal", json!(true));
    let c = t.bundle(spec);
    let socket = t.path("console");
    let listener = UnixListener::bind(&socket).unwrap();
    listener.set_nonblocking(true).unwrap();
    c.run_with(&["--console-socket", socket.to_str().unwrap()]);
    assert_eq!(fs::read_to_string(&victim).unwrap(), "host");
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(victim.to_str().unwrap()), "mounted over the host's file");
    t.assert_nothing_left();
}

#[test]
fn cve_2025_52881_an_exec_writes_into_no_file_that_stands_in_for_procfs() {
    not_under!(Runc, "writes there (before 1.2.8)");
    not_under!(Crun, "refuses hybrid");
    let t = Test::new();
    // The container itself puts a tmpfs over /proc and files of its own into it.
    let c = t.bundle(
        sh("mount -t tmpfs none /proc && mkdir -p /proc/self/attr /proc/thread-self/attr /proc/sys &&
            echo fake > /proc/self/oom_score_adj && echo fake > /proc/self/attr/exec && echo up; sleep 1000")
        .caps(&["CAP_SYS_ADMIN"])
        .writable(),
    );
    c.up();
    c.wait_output("up");
    let process = json!({"args": ["cat", "/proc/self/oom_score_adj", "/proc/self/attr/exec"], "cwd": "/",
        "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}, "oomScoreAdj": 321});
    let out = c.exec_process(&process, &[]);
    if out.code == 0 {
        assert_eq!(out.stdout, "fake\nfake\n");
    }
    assert_eq!(c.exec(&["cat", "/proc/self/oom_score_adj"]).stdout, "fake\n");
    c.kill_and_delete();
    t.assert_nothing_left();
}

#[test]
fn cve_2019_19921_a_volume_over_proc_is_refused_or_holds_nothing_of_the_runtimes_writes() {
    let t = Test::new();
    let volume = t.path("volume");
    fs::create_dir_all(volume.join("self/attr")).unwrap();
    for file in ["self/attr/exec", "self/attr/current", "self/oom_score_adj"] {
        fs::write(volume.join(file), "fake").unwrap();
    }
    let spec = sh("true")
        .without_mount("/proc")
        .bind(volume.to_str().unwrap(), "/proc", &["rbind", "rw"])
        .patch(json!({"process": {"oomScoreAdj": 77}}));
    t.bundle(spec).run();
    for file in ["self/attr/exec", "self/attr/current", "self/oom_score_adj"] {
        assert_eq!(fs::read_to_string(volume.join(file)).unwrap(), "fake", "{file} was written");
    }
    t.assert_nothing_left();
}

// ---------------------------------------------------------------------------------------------------------------------
// defects of a runtime library

#[test]
fn an_environment_that_is_not_utf_8_is_an_error_or_arrives_and_never_a_panic() {
    rustbox_only!();
    let t = Test::new();
    let c = t.bundle(sh("true"));
    let path = c.bundle.join("config.json");
    let mut text = fs::read(&path).unwrap();
    let at = text.windows(9).position(|window| window == b"TERM=xter").unwrap();
    text[at + 5] = 0xff;
    fs::write(&path, text).unwrap();
    c.run().denied().says(&["config.json"]);
    // The caller's own environment may hold anything.
    let good = t.bundle(sh("echo ok"));
    let mut command = Command::new("/usr/bin/env");
    command.arg(std::ffi::OsString::from_vec(b"ODD=\xff\xfe".to_vec())).arg(binary()).arg("--root").arg(&t.root);
    command.args(["run", "--bundle", good.bundle.to_str().unwrap(), &good.id]);
    assert_eq!(t.finish(command).ok().line(), "ok");
    t.assert_nothing_left();
}

#[test]
fn empty_arguments_are_an_error_of_create_and_of_exec() {
    let t = Test::new();
    t.bundle(spec().args(&[])).create().denied().rustbox_says(&["process.args"]);
    let c = t.bundle(spec().args(&["sleep", "1000"]));
    c.up();
    let mut document = json!({"args": [], "cwd": "/", "user": {"uid": 0, "gid": 0}});
    c.exec_process(&document, &[]).fails().rustbox_says(&["args"]);
    document["args"] = json!([""]);
    c.exec_process(&document, &[]).fails();
    assert_eq!(c.status(), "running");
    c.kill_and_delete();
    t.assert_nothing_left();
}

#[test]
fn forty_foreground_runs_all_end_and_leave_no_child() {
    let t = Test::new();
    let begun = Instant::now();
    for round in 0..40 {
        let c = t.bundle(sh("(sleep 0 &) ; exit 5"));
        c.run().code(5);
        assert!(begun.elapsed() < Duration::from_secs(60), "round {round} hung");
    }
    t.assert_nothing_left();
}

#[test]
fn no_command_ever_has_a_second_thread() {
    // libcontainer deadlocks in a caller with threads: what clones, forks or changes credentials here must be alone.
    rustbox_only!();
    let t = Test::new();
    let c = t.bundle(spec().args(&["true"]));
    let trace = |step: &str, words: &[&str]| {
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-o"]).arg(t.path(step));
        command.arg(binary()).arg("--root").arg(&t.root).arg(step).args(words);
        t.spawn(command, std::process::Stdio::null())
    };
    // Traced, `create` ends with its container.
    let create = trace("create", &["--bundle", c.bundle.to_str().unwrap(), &c.id]);
    until("the container", || c.state_out().code == 0 && c.status() == "created");
    trace("start", &[&c.id]).wait().ok();
    create.wait().ok();
    trace("delete", &[&c.id]).wait().ok();
    for step in ["create", "start", "delete"] {
        let calls = fs::read_to_string(t.path(step)).unwrap();
        assert!(step != "create" || calls.contains("clone"), "nothing was traced");
        assert!(!calls.contains("CLONE_THREAD") && !calls.contains("CLONE_VM"), "{step}: {calls}");
    }
    // What makes the network namespace does nothing else, and has been waited for before init is made.
    let calls = fs::read_to_string(t.path("create")).unwrap();
    let helper = calls.lines().find(|line| line.contains("unshare(CLONE_NEWNET")).expect("its work");
    let helper = helper.split(' ').next().unwrap();
    for line in calls.lines().filter(|line| line.split(' ').next() == Some(helper)) {
        let call = line[helper.len()..].trim_start().trim_start_matches("<... ");
        let known = ["unshare", "socket", "ioctl", "fcntl", "close", "exit", "+++ exited"];
        assert!(known.iter().any(|known| call.starts_with(known)), "{line}");
    }
    let line = |what: &dyn Fn(&str) -> bool| calls.lines().position(what).unwrap_or_else(|| panic!("{calls}"));
    let waited =
        line(&|line| line.contains("wait4") && line.contains("WIFEXITED") && line.contains(&format!("= {helper}")));
    assert!(waited < line(&|line| line.contains("clone3(")), "{calls}");
    t.assert_nothing_left();
}

#[test]
fn a_signal_goes_to_the_containers_process_and_never_to_the_one_that_has_its_pid_now() {
    rustbox_only!();
    let t = Test::new();
    let c = t.bundle(spec().args(&["sleep", "1000"]));
    c.up();
    let pid = c.pid();
    // As if the first process had ended and another had been given its pid: the pid is alive, its start time differs.
    let mut innocent = Command::new("sleep").arg("1000").spawn().unwrap();
    let record = t.root.join(&c.id).join("init");
    let text = fs::read_to_string(&record).unwrap();
    let (_, start) = text.split_once(' ').unwrap();
    fs::write(&record, format!("{} {start}", innocent.id())).unwrap();
    assert_eq!(c.status(), "stopped");
    c.kill("KILL").fails();
    assert!(alive(innocent.id() as i32), "a stranger was killed");
    c.delete_force().ok();
    assert!(alive(innocent.id() as i32), "a stranger was killed by delete");
    innocent.kill().unwrap();
    innocent.wait().unwrap();
    until("the end of the container's own process", || !alive(pid));
    t.assert_nothing_left();
}

/// Who may mount a FUSE file system may call its mount point anything; the proof must neither fail at that nor overlook a mount
/// whose name the kernel has escaped.
#[test]
fn a_mount_point_that_is_no_text_stops_no_cleanup_and_one_with_a_space_is_not_overlooked() {
    rustbox_only!();
    let t = Test::new();
    let bundle = t.path("bun dle\\");
    std::fs::create_dir(&bundle).unwrap();
    let c = t.bundle(spec().args(&["/bin/true"]));
    std::fs::rename(c.bundle.join("rootfs"), bundle.join("rootfs")).unwrap();
    std::fs::copy(c.bundle.join("config.json"), bundle.join("config.json")).unwrap();
    // `$0` is the bundle, `"$@"` the runtime.
    let script = r#"
        odd=$(printf '%s/a\377b' "$0") && mkdir "$odd" && mount -t tmpfs none "$odd" || exit 90
        "$@" create --bundle "$0" "$id" || exit 91
        mkdir "$0/rootfs/left" && mount -t tmpfs none "$0/rootfs/left" || exit 92
        umount "$odd"
        "$@" delete --force --json "$id" && exit 93
        umount "$0/rootfs/left"
        mount -t tmpfs none "$odd"
        "$@" delete --force --json "$id" || exit 94
        "$@" run --json --code true "$id" || exit 95"#;
    let place = bundle.to_str().unwrap();
    let around = format!("id={} exec unshare -m sh -c '{}' '{place}' \"$@\"", c.id, script.replace('\'', "'\\''"));
    let out = t.shell(&around, &[]).ok();
    assert!(out.stdout.contains("rootfs/left"), "{out:#?}");
    assert!(out.stdout.contains("\"proved\": true"), "{out:#?}");
    t.assert_nothing_left();
}
