//! Commands that meet at one container: each ends, with success or with a reason, and nothing is lost or left.

mod common;

use std::fs;
use std::process::{Command, Stdio};

use common::*;
use nix::fcntl::{Flock, FlockArg};

/// The same command several times at once.
fn at_once(t: &Test, count: usize, args: &[&str]) -> Vec<Out> {
    let start = || {
        let mut command = Command::new(binary());
        command.arg("--root").arg(&t.root).args(args);
        t.spawn(command, Stdio::null())
    };
    let running: Vec<_> = (0..count).map(|_| start()).collect();
    running.into_iter().map(Running::wait).collect()
}

fn successes(outs: &[Out]) -> usize {
    outs.iter().filter(|out| out.code == 0).count()
}

#[test]
fn of_many_deletes_at_once_one_deletes_and_the_others_say_that_it_is_gone() {
    for _ in 0..5 {
        let t = Test::new();
        let c = t.bundle(spec());
        c.up();
        c.wait_status("stopped");
        let outs = at_once(&t, 6, &["delete", &c.id]);
        if peer() == Peer::Rustbox {
            assert_eq!(successes(&outs), 1, "{outs:#?}");
        }
        for out in outs.into_iter().filter(|out| out.code != 0) {
            out.denied().rustbox_says(&["does not exist"]);
        }
        t.assert_nothing_left();
    }
}

#[test]
fn of_many_forced_deletes_at_once_of_a_running_container_all_succeed() {
    not_under!(Runc, "some fail over what another has removed");
    for _ in 0..5 {
        let t = Test::new();
        let c = t.bundle(sh("sleep 1001 & sleep 1002"));
        c.up();
        let outs = at_once(&t, 6, &["delete", "--force", &c.id]);
        assert_eq!(successes(&outs), 6, "{outs:#?}");
        t.assert_nothing_left();
    }
}

#[test]
fn of_many_starts_at_once_exactly_one_succeeds() {
    rustbox_only!();
    let t = Test::new();
    let c = t.bundle(sh("echo once; sleep 1000"));
    c.create().ok();
    let outs = at_once(&t, 5, &["start", &c.id]);
    assert_eq!(successes(&outs), 1, "{outs:#?}");
    c.wait_output("once");
    assert_eq!(c.output(), "once\n");
    c.kill_and_delete();
    t.assert_nothing_left();
}

#[test]
fn an_exec_into_a_container_that_is_being_killed_ends() {
    let t = Test::new();
    for round in 0..10 {
        let c = t.bundle(sh("sleep 1000"));
        c.up();
        let execs: Vec<_> = (0..3)
            .map(|_| {
                let mut command = Command::new(binary());
                command.arg("--root").arg(&t.root).args(["exec", &c.id, "sh", "-c", "sleep 1000"]);
                t.spawn(command, Stdio::null())
            })
            .collect();
        std::thread::sleep(std::time::Duration::from_millis(round));
        c.kill("KILL").ok();
        for exec in execs {
            assert_ne!(exec.wait().code, 0);
        }
        c.delete_force().ok();
    }
    t.assert_nothing_left();
}

#[test]
fn looking_at_a_container_while_it_is_made_and_deleted_gives_an_answer_or_a_reason() {
    not_under!(Runc, "lists half-made containers with an error");
    let t = Test::new();
    let c = t.bundle(spec());
    let looks = || {
        for args in [&["list", "--format", "json"][..], &["list", "--quiet"]] {
            t.runtime(args).ok();
        }
        let out = c.state_out();
        if out.code != 0 {
            out.denied().rustbox_says(&["does not exist"]);
        }
    };
    std::thread::scope(|scope| {
        let life = scope.spawn(|| {
            for _ in 0..15 {
                let bundle = c.bundle.to_str().unwrap();
                let run =
                    |args: &[&str]| Command::new(binary()).arg("--root").arg(&t.root).args(args).output().unwrap();
                let out = run(&["run", "--bundle", bundle, &c.id]);
                assert!(out.status.success(), "{out:?}");
            }
        });
        while !life.is_finished() {
            looks();
        }
    });
    t.assert_nothing_left();
}

#[test]
fn a_pause_does_not_stay_on_the_container_that_has_come_after_the_one_it_was_meant_for() {
    rustbox_only!();
    let t = Test::new();
    for locked_by_another in [false, true] {
        let c = t.bundle(sh("sleep 1000").hook("startContainer", "while ! test -e /go; do sleep 0.01; done"));
        let go = c.file("go", "");
        c.run_detached().ok();
        let directory = fs::File::open(t.root.join(&c.id)).unwrap();
        let lock = locked_by_another.then(|| Flock::lock(directory, FlockArg::LockExclusive).unwrap());
        // It is slow between its look and the freezing: the second time that it opens the file.
        let mut command = Command::new("strace");
        command.args(["-qq", "-o"]).arg(t.path("trace")).arg("-P").arg(freezer_file(&c));
        command.args(["-e", "inject=openat,openat2:delay_enter=1500000:when=2"]);
        command.arg(binary()).arg("--root").arg(&t.root).args(["pause", &c.id]);
        let pause = t.spawn(command, Stdio::null());
        until("the look", || fs::read_to_string(t.path("trace")).is_ok_and(|trace| trace.contains("open")));
        drop(lock);
        c.delete_force().ok();
        fs::remove_file(&go).unwrap();
        let successor = c.spawn_run(&["--detach"], Stdio::null());
        until("it", || fs::read_to_string(t.root.join(&c.id).join("init")).is_ok_and(|text| text.contains("starting")));
        let paused = pause.wait();
        if locked_by_another {
            paused.denied().says(&[&c.id, "cannot be paused", "stopped"]);
        }
        assert_eq!(c.status(), "creating");
        fs::write(&go, "").unwrap();
        successor.wait().ok();
        assert_eq!(c.status(), "running");
        c.kill_and_delete();
        fs::remove_file(t.path("trace")).unwrap();
    }
    t.assert_nothing_left();
}

#[test]
fn what_a_dead_create_has_left_of_its_record_is_no_container_and_keeps_no_id() {
    rustbox_only!();
    let t = Test::new();
    let c = t.bundle(spec().args(&["sleep", "1000"]));
    // The record is built under another name: this is how it looks when its maker has died on the way.
    fs::create_dir_all(t.root.join(".new-1-1")).unwrap();
    fs::write(t.root.join(".new-1-1/state.json"), "{\"layout\":").unwrap();
    assert_eq!(t.runtime(&["list", "--quiet"]).ok().stdout, "");
    c.up();
    assert_eq!(t.runtime(&["list", "--quiet"]).ok().line(), c.id);
    c.kill_and_delete();
    fs::remove_dir_all(t.root.join(".new-1-1")).unwrap();
    t.assert_nothing_left();
}

#[test]
fn a_record_that_lacks_files_can_be_looked_at_and_deleted() {
    rustbox_only!();
    for missing in [&["config.json"][..], &["init"], &["gate", "answer"], &["config.json", "init", "gate", "answer"]] {
        let t = Test::new();
        let c = t.bundle(spec().args(&["sleep", "1000"]));
        c.create().ok();
        let pid = c.pid();
        for file in missing {
            let _ = fs::remove_file(t.root.join(&c.id).join(file));
        }
        c.state_out().ok();
        t.runtime(&["list", "--format", "json"]).ok();
        let start = c.start();
        if missing.contains(&"gate") || missing.contains(&"init") {
            start.denied();
        }
        c.delete_force().ok();
        c.state_out().denied().says(&["does not exist"]);
        if !missing.contains(&"init") {
            assert!(!alive(pid), "without {missing:?}");
            t.assert_nothing_left();
        }
        // Without a word on who its first process is, that is another's: it is waited for by nobody here.
        if alive(pid) {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
        }
    }
}

#[test]
fn containers_that_start_at_once_on_one_root_share_the_mount_points_that_they_make() {
    rustbox_only!();
    let t = Test::new();
    // Each has its mount points missing once.
    for _ in 0..12 {
        let spec = (0..20).fold(sh("true"), |spec, n| spec.tmpfs(&format!("/made/{n}"), &[])).writable();
        // A cgroup of its own for each.
        let c = t.bundle(spec.patch(json!({"linux": {"cgroupsPath": ""}})));
        let start = |n: i32| {
            let mut command = Command::new(binary());
            command.arg("--root").arg(&t.root).args(["run", "--bundle"]).arg(&c.bundle).arg(format!("{}-{n}", c.id));
            t.spawn(command, Stdio::null())
        };
        let running: Vec<_> = (0..6).map(start).collect();
        running.into_iter().for_each(|running| drop(running.wait().ok()));
    }
    t.assert_nothing_left();
}

#[test]
fn a_delete_is_proved_though_another_container_has_the_id_at_once() {
    rustbox_only!();
    let t = Test::new();
    let c = t.bundle(spec());
    let traced = |options: &[&str]| {
        c.up();
        c.wait_status("stopped");
        let mut command = Command::new("strace");
        command.args(["-qq", "-e", "trace=unlinkat"]).args(options).arg(binary()).arg("--root").arg(&t.root);
        command.args(["delete", "--json", &c.id]);
        t.spawn(command, Stdio::null())
    };
    let log = t.path("calls");
    traced(&["-o", log.to_str().unwrap()]).wait().ok();
    let calls = fs::read_to_string(&log).unwrap();
    let (last, _) = calls.lines().enumerate().find(|(_, call)| call.contains(&format!("\"{}\"", c.id))).unwrap();
    // Held up where it has just removed the state directory.
    let pause = format!("inject=unlinkat:delay_exit={}s:when={}", 2 * slowness(), last + 1);
    let deleting = traced(&["-o", "/dev/null", "-e", &pause]);
    until("the state directory to be gone", || !t.root.join(&c.id).exists());
    c.create().ok();
    let proof = deleting.wait().ok().json();
    assert!(proof["clean"] == true && proof["state_gone"] == true, "{proof}");
    c.delete_force().ok();
    t.assert_nothing_left();
}
