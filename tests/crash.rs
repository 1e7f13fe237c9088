//! A create that is killed at a system call: whatever it had made by then, `delete --force` proves gone, and nothing of
//! anybody else's is touched.

mod common;

#[path = "crash/sweep.rs"]
mod sweep;

use std::process::{Command, Stdio};

use common::*;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The calls that make something, or come between two that do.
const CALLS: &[&str] = &["mkdirat", "renameat2", "renameat", "clone3", "write", "sendmsg", "recvmsg", "openat"];

/// Kills `create` as it enters each of these calls for the first time, the second, and so on; after each death calls
/// `check` with what was killed where.
fn killed_everywhere(c: &Container<'_>, mut check: impl FnMut(&str)) {
    let mut killed = 0;
    for call in CALLS {
        for n in 1.. {
            let mut command = Command::new("strace");
            command.args(["-qq", "-o", "/dev/null", "-e", &format!("inject={call}:signal=KILL:when={n}")]);
            command.arg(binary()).arg("--root").arg(&c.test.root).args(["create", "--bundle"]);
            let out = c.test.spawn(with(command, c), Stdio::null()).wait();
            check(&format!("{call} #{n}"));
            if out.signal != Some(9) {
                out.ok();
                break;
            }
            killed += 1;
        }
    }
    // Far fewer would mean that the calls have other names by now.
    assert!(killed > 40, "killed only {killed} times");
}

fn with(mut command: Command, c: &Container<'_>) -> Command {
    command.arg(&c.bundle).arg(&c.id);
    command
}

#[test]
fn a_create_killed_at_any_call_is_proved_gone_by_delete() {
    rustbox_only!();
    let t = Test::new();
    let c = t.bundle(sh("sleep 600").hook("createRuntime", ":").hook("createContainer", ":"));
    killed_everywhere(&c, |_| {
        c.delete_force().ok();
        t.assert_nothing_left();
    });
}

/// The youngest child of a process that executes the binary under test.
fn child(pid: i32) -> Option<i32> {
    let child = children(pid).pop()?;
    let name = std::fs::read_to_string(format!("/proc/{child}/cmdline")).ok()?;
    name.starts_with(binary().to_str()?).then_some(child)
}

fn found<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let mut seen = None;
    until(what, || {
        seen = look();
        seen.is_some()
    });
    seen.unwrap()
}

/// On cgroup v1 alone init enters by its first write, which is slow here. Its creator is dead by then: a `delete` that did not wait
/// would find nobody.
#[test]
fn an_init_that_is_in_no_cgroup_yet_is_waited_for() {
    rustbox_only!();
    if std::fs::read_to_string("/proc/self/mountinfo").unwrap().contains(" - cgroup2 ") {
        skip!("where the v2 hierarchy is mounted init is born in its cgroup");
    }
    let t = Test::new();
    let c = t.bundle(sh("sleep 600"));
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o", "/dev/null", "-e", "inject=write:delay_enter=1500000:when=1"]);
    command.arg(binary()).arg("--root").arg(&t.root).args(["create", "--bundle"]);
    let strace = t.spawn(with(command, &c), Stdio::null());
    let creator = found("the creator", || child(strace.pid()));
    let init = found("init", || child(creator).filter(|_| t.root.join(&c.id).join("init").exists()));
    kill(Pid::from_raw(creator), Signal::SIGKILL).unwrap();
    c.delete_force().ok();
    let stat = std::fs::read_to_string(format!("/proc/{init}/stat")).unwrap_or_default();
    let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
    assert!(matches!(state, None | Some('Z' | 'X')), "init {init} lives on: {stat}");
    strace.wait();
    t.assert_nothing_left();
}

/// The second message of a `run` is `Start`: it comes late here, and to nobody.
#[test]
fn a_container_whose_init_ends_before_it_is_started_has_not_started() {
    ends_before_its_start(&["-e", "inject=sendmsg:delay_enter=1000000:when=2"]);
}

/// The second message that init receives: it has said that it is ready by then, and never reads what it was told.
#[test]
fn a_container_whose_init_ends_before_it_hears_of_its_start_has_not_started() {
    ends_before_its_start(&["-f", "-e", "inject=recvmsg:delay_enter=1000000:when=2"]);
}

/// The last that init does before its exec is to unblock signals.
#[test]
fn a_container_whose_init_ends_before_its_exec_has_not_started() {
    rustbox_only!();
    let t = Test::new();
    let c = t.bundle(sh("sleep 600").hook("poststart", &format!("touch {}", t.path("started").display())));
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o", "/dev/null", "-e", "inject=rt_sigprocmask:signal=KILL:when=1"]);
    command.arg(binary()).arg("--root").arg(&t.root).args(["run", "--detach", "--bundle"]);
    let out = t.spawn(with(command, &c), Stdio::null()).wait().fails();
    assert!(out.stderr.contains("before it executed the program"), "{out:?}");
    assert!(!t.path("started").exists(), "a hook ran");
    t.assert_nothing_left();
}

/// An unattended init is on record while the root of its mount namespace is still the host's. Its creator's death makes it
/// nobody's to join, and a container that never started.
#[test]
fn an_init_whose_creator_died_before_its_root_is_entered_is_nobodys_to_join() {
    rustbox_only!();
    let t = Test::new();
    let c = t.bundle(sh("sleep 600"));
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o", "/dev/null", "-e", "inject=pivot_root:delay_enter=2000000"]);
    command.arg(binary()).arg("--root").arg(&t.root).args(["run", "--detach", "--bundle"]);
    let strace = t.spawn(with(command, &c), Stdio::null());
    let creator = found("the creator", || child(strace.pid()));
    let record = t.root.join(&c.id).join("init");
    until("the record", || std::fs::read_to_string(&record).is_ok_and(|text| text.ends_with(" starting")));
    kill(Pid::from_raw(creator), Signal::SIGKILL).unwrap();
    until("its end", || !std::path::Path::new(&format!("/proc/{creator}")).exists());
    assert_eq!(c.status(), "creating");
    c.exec(&["/bin/true"]).fails().says(&["creating"]);
    strace.wait();
    assert_eq!(c.status(), "stopped");
    let health = t.runtime(&["health", "--recover", "--json"]).ok().json();
    assert_eq!(health["removed"].as_array().map(Vec::len), Some(1), "{health:#}");
    t.assert_nothing_left();
}

#[track_caller]
fn ends_before_its_start(slowly: &[&str]) {
    rustbox_only!();
    let t = Test::new();
    let c = t.bundle(sh("sleep 600").hook("poststart", &format!("touch {}", t.path("started").display())));
    let mut command = Command::new("strace");
    command.args(["-qq", "-o", "/dev/null"]).args(slowly);
    command.arg(binary()).arg("--root").arg(&t.root).args(["run", "--detach", "--bundle"]);
    let strace = t.spawn(with(command, &c), Stdio::null());
    let creator = found("the creator", || child(strace.pid()));
    let record = t.root.join(&c.id).join("init");
    let init = found("init", || {
        let text = std::fs::read_to_string(&record).ok()?;
        text.split(' ').next()?.parse::<i32>().ok()
    });
    assert_eq!(child(creator), Some(init));
    // It has done all that it does before it waits.
    std::thread::sleep(std::time::Duration::from_millis(400));
    kill(Pid::from_raw(init), Signal::SIGKILL).unwrap();
    let out = strace.wait().fails();
    assert!(!out.stderr.is_empty(), "{out:?}");
    assert!(!t.path("started").exists(), "a hook ran: {out:?}");
    t.assert_nothing_left();
}

#[test]
fn a_create_killed_at_any_call_leaves_those_alone_whose_cgroup_it_shares() {
    rustbox_only!();
    let t = Test::new();
    let host = t.bundle(sh("sleep 600"));
    host.up();
    let neighbours = host.cgroup_file("memory", "cgroup.procs");
    let guest = t.bundle(sh("sleep 600").patch(json!({"linux": {"cgroupsPath": format!("/{}", host.cgroup)}})));
    killed_everywhere(&guest, |at| {
        guest.delete_force().ok();
        assert_eq!(host.status(), "running", "killed with the guest, whose create was killed at {at}");
        until(&format!("the guest killed at {at} to be gone"), || {
            host.cgroup_file("memory", "cgroup.procs") == neighbours
        });
    });
    host.delete_force().ok();
    t.assert_nothing_left();
}

#[test]
fn a_create_that_fails_leaves_those_alone_whose_cgroup_it_shares() {
    rustbox_only!();
    let t = Test::new();
    let host = t.bundle(sh("sleep 600"));
    host.up();
    let shared = |spec: Spec| t.bundle(spec.patch(json!({"linux": {"cgroupsPath": format!("/{}", host.cgroup)}})));
    // At its limits, before any process of its own; by init; by a hook.
    let no_such_cpu = json!({"cpu": {"cpus": "4095"}});
    shared(sh("true").resources(no_such_cpu)).create().denied().says(&["cpuset.cpus"]);
    shared(spec().args(&["/no/such"])).create().denied().says(&["/no/such"]);
    shared(sh("true").without_namespace("pid").hook("createRuntime", "exit 7")).create().denied().says(&["status 7"]);
    assert_eq!(host.status(), "running");
    host.delete_force().ok();
    t.assert_nothing_left();
}

#[test]
fn a_create_in_a_joined_pid_namespace_killed_at_any_call_or_failing_is_proved_gone() {
    rustbox_only!();
    let t = Test::new();
    let host = t.bundle(sh("sleep 600"));
    host.up();
    let joined = |spec: Spec| {
        let path = format!("/proc/{}/ns/pid", host.pid());
        t.bundle(spec.namespace(json!({"type": "pid", "path": path})))
    };
    // Zombies are for this machine's process 1 to reap.
    let members = || {
        let own = namespace(&host.pid().to_string(), "pid");
        let pids = std::fs::read_dir("/proc").unwrap().flatten();
        let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        let inside =
            |pid: &i32| std::fs::read_link(format!("/proc/{pid}/ns/pid")).is_ok_and(|link| link.to_str() == Some(&own));
        pids.filter(|pid| alive(*pid) && inside(pid)).count()
    };
    let guest = joined(sh("sleep 600"));
    killed_everywhere(&guest, |at| {
        guest.delete_force().ok();
        until(&format!("the guest killed at {at} to be gone"), || members() == 1);
        assert_eq!(host.status(), "running");
    });
    for (spec, words) in [
        (spec().args(&["/no/such"]), "/no/such"),
        (sh("true").hook("createRuntime", "exit 7"), "status 7"),
        (sh("true").bind("/no/such", "/x", &["bind"]), "/no/such"),
    ] {
        let guest = joined(spec);
        guest.create().denied().says(&[words]);
        guest.state_out().fails();
        until("the guest that could not be made to be gone", || members() == 1);
    }
    host.delete_force().ok();
    t.assert_nothing_left();
}

#[test]
fn a_message_that_cannot_be_written_ends_nothing_in_the_middle() {
    rustbox_only!();
    let t = Test::new();
    let full = "exec \"$@\" 2>/dev/full";
    let c = t.bundle(spec().args(&["/no/such"]));
    let bundle = c.bundle.to_str().unwrap();
    let out = t.shell(full, &["create", "--bundle", bundle, &c.id]);
    assert_eq!((out.signal, out.code), (None, 1), "{out:?}");
    // A warning in the middle of a release.
    let c = t.bundle(sh("true").hook("poststop", "exit 7"));
    c.up();
    c.wait_status("stopped");
    t.shell(full, &["delete", &c.id]).ok();
    let id = format!("rbt-{}-judge", t.tag);
    let out = t.shell(full, &["run", "--code", "echo x >&2; exit 3", &id]);
    assert_eq!(out.signal, None, "{out:?}");
    t.runtime(&["health", "--verify-clean"]).ok();
    t.assert_nothing_left();
}

/// On v1 alone it is the cgroup that says who belongs to a container whose init is not on record yet, and a mount may take
/// as long as it likes.
#[test]
fn init_is_found_by_its_cgroup_while_it_mounts_and_its_creator_is_dead() {
    rustbox_only!();
    if !std::path::Path::new("/sys/fs/cgroup/freezer").exists() {
        report_skip("there is no cgroup v1 here");
        return;
    }
    let t = Test::new();
    let c = t.bundle(spec().args(&["sleep", "1000"]));
    let trace = t.path("trace");
    let script = format!(
        "! mountpoint -q /sys/fs/cgroup/unified || umount /sys/fs/cgroup/unified || exit 9; \
        exec strace -D -f -qq -e trace=write,move_mount -e inject=move_mount:delay_enter=4000000 -o {} {} --root {} create -b {} {}",
        trace.display(),
        binary().display(),
        t.root.display(),
        c.bundle.display(),
        c.id,
    );
    let mut command = Command::new("unshare");
    command.args(["-m", "--propagation", "private", "sh", "-c", &script]);
    let creator = t.spawn(command, Stdio::null());
    let procs = || std::fs::read_to_string(c.cgroup_dir("freezer").join("cgroup.procs")).unwrap_or_default();
    until("init in its cgroup", || !procs().is_empty());
    let init: i32 = procs().trim().parse().unwrap();
    until("a mount", || std::fs::read_to_string(&trace).is_ok_and(|calls| calls.contains("move_mount")));
    let calls = std::fs::read_to_string(&trace).unwrap();
    let first = |what: &str| calls.find(what).unwrap_or_else(|| panic!("no {what}: {calls}"));
    assert!(first(", \"0\", 1") < first("move_mount"), "it mounts before it has entered: {calls}");
    creator.signal(libc::SIGKILL);
    creator.wait();
    c.delete_force().ok();
    until("the end of init", || !alive(init));
    t.assert_nothing_left();
}
