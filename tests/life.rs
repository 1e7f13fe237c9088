//! The life of a container: create, start, state, kill, delete, run, list, ps, and the command line around them.

mod common;

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use common::*;
use serde_json::Value;

const FOREVER: &[&str] = &["sleep", "1000"];

/// A program that says `ready`, then ends with 7 on SIGTERM, 8 on SIGHUP, 9 on SIGUSR1.
const LISTENER: &str = "trap 'echo term; exit 7' TERM; trap 'exit 8' HUP; trap 'exit 9' USR1; echo ready; \
                        while :; do sleep 0.02; done";

// ---------------------------------------------------------------------------------------------------------------------
// create, start, state, kill, delete

#[test]
fn create_makes_a_created_container_whose_program_does_not_run_yet() {
    let t = Test::new();
    let c = t.bundle(sh("echo ran; sleep 1000"));
    c.create().ok();
    assert_eq!(c.status(), "created");
    assert!(alive(c.pid()));
    std::thread::sleep(std::time::Duration::from_millis(30));
    assert_eq!(c.output(), "", "the program ran before start");
    c.start().ok();
    assert_eq!(c.status(), "running");
    c.wait_output("ran");
    c.kill_and_delete();
    t.assert_nothing_left();
}

#[test]
fn a_container_in_the_foreground_can_be_deleted_from_elsewhere() {
    let t = Test::new();
    let c = t.bundle(sh("echo ready; sleep 1000"));
    let running = c.spawn_run(&[], Stdio::null());
    running.wait_for("ready");
    c.delete_force().ok();
    c.state_out().fails();
    assert_eq!(running.wait().code, 137);
    t.assert_nothing_left();
}

#[test]
fn a_container_in_the_foreground_leaves_its_successor_of_the_same_name_alone() {
    let t = Test::new();
    let c = t.bundle(sh("echo ready; sleep 1000"));
    let running = c.spawn_run(&[], Stdio::null());
    running.wait_for("ready");
    // Refused when the run has let go of the container, whose program may be quicker.
    c.start().fails();
    // Stopped, it cannot notice the end of its container before there is another one.
    running.signal(libc::SIGSTOP);
    c.delete_force().ok();
    c.create().ok();
    running.signal(libc::SIGCONT);
    assert_eq!(running.wait().code, 137);
    assert_eq!(c.status(), "created");
    c.kill_and_delete();
    t.assert_nothing_left();
}

#[test]
fn status_goes_from_created_to_running_to_stopped() {
    let t = Test::new();
    let c = t.bundle(spec().args(FOREVER));
    c.create().ok();
    assert_eq!(c.status(), "created");
    c.start().ok();
    assert_eq!(c.status(), "running");
    c.kill("KILL").ok();
    c.wait_status("stopped");
    c.delete().ok();
    c.state_out().fails();
    t.assert_nothing_left();
}

#[test]
fn state_has_the_keys_and_types_of_the_specification() {
    let t = Test::new();
    let c = t.bundle(spec().args(FOREVER).patch(json!({"annotations": {"org.example.key": "value", "empty": ""}})));
    c.create().ok();
    let state = c.state();
    let version = state["ociVersion"].as_str().expect("ociVersion is a string");
    assert_eq!(
        version.split(['-', '+']).next().unwrap().split('.').filter(|part| part.parse::<u32>().is_ok()).count(),
        3,
        "{version}"
    );
    assert_eq!(state["id"], c.id.as_str());
    assert_eq!(state["status"], "created");
    assert!(state["pid"].as_i64().unwrap() > 1);
    assert_eq!(state["bundle"], c.bundle.canonicalize().unwrap().to_str().unwrap(), "bundle is an absolute path");
    assert_eq!(state["annotations"]["org.example.key"], "value");
    assert_eq!(state["annotations"]["empty"], "");
    let pid = state["pid"].as_i64().unwrap();
    assert_ne!(namespace(&pid.to_string(), "pid"), namespace("self", "pid"), "the pid is the container's");
}

#[test]
fn state_of_a_stopped_container_has_no_living_pid() {
    let t = Test::new();
    let c = t.bundle(spec());
    c.create().ok();
    let pid = c.pid();
    c.start().ok();
    c.wait_status("stopped");
    let after = c.state()["pid"].as_i64().unwrap_or(0);
    assert_eq!(after, 0, "pid {pid} is not the container's any more");
    c.delete().ok();
    t.assert_nothing_left();
}

#[test]
fn state_shows_a_relative_bundle_as_an_absolute_path() {
    let t = Test::new();
    let c = t.bundle(spec().args(FOREVER));
    let name = c.bundle.file_name().unwrap().to_str().unwrap();
    t.runtime(&["create", "--bundle", name, &c.id]).ok();
    assert_eq!(c.state()["bundle"], c.bundle.to_str().unwrap());
    assert!(Path::new(c.state()["bundle"].as_str().unwrap()).is_absolute());
}

#[test]
fn the_bundle_defaults_to_the_working_directory() {
    let t = Test::new();
    let c = t.bundle(sh("echo here"));
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "cd \"$1\" && shift && exec \"$@\"", "sh"]).arg(&c.bundle);
    command.arg(binary()).arg("--root").arg(&t.root).args(["run", &c.id]);
    assert_eq!(t.finish(command).ok().line(), "here");
    t.assert_nothing_left();
}

#[test]
fn a_changed_config_after_create_has_no_effect_on_the_container() {
    // runtime-spec, lifecycle: "Any updates to config.json after this step MUST NOT affect the container."
    let t = Test::new();
    let c = t.bundle(sh("echo first"));
    c.create().ok();
    c.write_config(&sh("echo second").finish(&t.tag));
    c.start().ok();
    c.wait_status("stopped");
    assert_eq!(c.output(), "first\n");
    c.delete().ok();
    t.assert_nothing_left();
}

#[test]
fn start_twice_is_an_error_and_leaves_the_container_running() {
    let t = Test::new();
    let c = t.bundle(spec().args(FOREVER));
    c.up();
    c.start().fails().rustbox_says(&[&c.id, "running"]);
    assert_eq!(c.status(), "running");
}

#[test]
fn start_of_a_stopped_container_is_an_error() {
    let t = Test::new();
    let c = t.bundle(spec());
    c.up();
    c.wait_status("stopped");
    c.start().fails().rustbox_says(&[&c.id, "stopped"]);
    c.delete().ok();
    t.assert_nothing_left();
}

#[test]
fn delete_of_a_running_container_is_an_error_and_has_no_effect() {
    let t = Test::new();
    let c = t.bundle(spec().args(FOREVER));
    c.up();
    let pid = c.pid();
    c.delete().fails().rustbox_says(&[&c.id, "running"]);
    assert_eq!(c.status(), "running");
    assert!(alive(pid));
    c.kill_and_delete();
    t.assert_nothing_left();
}

#[test]
fn delete_of_a_created_container_ends_it() {
    // containerd deletes a task that was created and never started without --force, and every runtime obeys.
    let t = Test::new();
    let c = t.bundle(spec().args(FOREVER));
    c.create().ok();
    let pid = c.pid();
    not_under!(Crun, "refuses");
    c.delete().ok();
    assert!(!alive(pid));
    t.assert_nothing_left();
}

#[test]
fn delete_force_kills_a_running_container_first() {
    let t = Test::new();
    let c = t.bundle(sh("sleep 1001 & sleep 1002 & echo up; wait"));
    c.up();
    c.wait_output("up");
    let pid = c.pid();
    c.delete_force().ok();
    assert!(!alive(pid));
    t.assert_nothing_left();
}

#[test]
fn delete_force_of_an_unknown_container_succeeds() {
    let t = Test::new();
    t.runtime(&["delete", "--force", "nobody"]).ok();
    t.runtime(&["delete", "-f", "nobody"]).ok();
}

#[test]
fn delete_force_of_a_created_container_leaves_nothing() {
    let t = Test::new();
    let c = t.bundle(spec().args(FOREVER));
    c.create().ok();
    c.delete_force().ok();
    t.assert_nothing_left();
}

#[test]
fn delete_kills_what_a_container_without_its_own_pid_namespace_left_behind() {
    let t = Test::new();
    let c = t.bundle(sh("sleep 1003 >/dev/null 2>&1 & sleep 1004 >/dev/null 2>&1 & exit 0").without_namespace("pid"));
    c.up();
    c.wait_status("stopped");
    not_under!(Crun, "does not kill what is left");
    c.delete().ok();
    t.assert_nothing_left();
}

#[test]
fn delete_removes_child_cgroups_that_the_container_made() {
    let t = Test::new();
    let c = t.bundle(spec().args(FOREVER));
    c.up();
    for controller in ["memory", "pids", "freezer"] {
        fs::create_dir_all(c.cgroup_dir(controller).join("a/b")).unwrap();
    }
    c.kill_and_delete();
    t.assert_nothing_left();
}

#[test]
fn unknown_ids_are_errors_of_every_command() {
    let t = Test::new();
    for args in [
        &["state", "nobody"][..],
        &["start", "nobody"],
        &["kill", "nobody", "TERM"],
        &["delete", "nobody"],
        &["exec", "nobody", "true"],
        &["ps", "nobody"],
        &["pause", "nobody"],
        &["resume", "nobody"],
    ] {
        t.runtime(args).fails().rustbox_says(&["nobody", "does not exist"]);
    }
}

#[test]
fn an_id_in_use_is_an_error_and_leaves_its_container_alone() {
    let t = Test::new();
    let c = t.bundle(spec().args(FOREVER));
    c.up();
    let pid = c.pid();
    c.create().fails().rustbox_says(&[&c.id]);
    c.run().fails();
    assert_eq!((c.status().as_str(), c.pid()), ("running", pid));
    assert!(alive(pid));
    c.exec(&["true"]).ok();
}

#[test]
fn an_id_is_free_again_after_delete() {
    let t = Test::new();
    let c = t.bundle(spec());
    for _ in 0..3 {
        c.up();
        c.wait_status("stopped");
        c.delete().ok();
        t.assert_nothing_left();
    }
}

#[test]
fn of_two_creates_at_once_with_one_id_exactly_one_succeeds() {
    let t = Test::new();
    let c = t.bundle(spec().args(FOREVER));
    let other = t.bundle(spec().args(FOREVER));
    let spawn = |bundle: &Path| {
        let mut command = Command::new(binary());
        command.arg("--root").arg(&t.root).args(["create", "--bundle"]).arg(bundle).arg(&c.id);
        t.spawn(command, Stdio::null())
    };
    let (a, b) = (spawn(&c.bundle), spawn(&other.bundle));
    let (a, b) = (a.wait(), b.wait());
    assert_eq!((a.code == 0) as u32 + (b.code == 0) as u32, 1, "{a:#?}\n{b:#?}");
    assert_eq!(c.status(), "created");
    c.start().ok();
    c.kill_and_delete();
    t.assert_nothing_left();
}

// ---------------------------------------------------------------------------------------------------------------------
// kill

#[test]
fn kill_takes_signals_by_number_and_by_every_spelling_of_the_name() {
    for (signal, code) in [("15", 7), ("TERM", 7), ("SIGTERM", 7), ("1", 8), ("HUP", 8), ("sigusr1", 9), ("USR1", 9)] {
        if peer() == Peer::Crun && signal == "sigusr1" {
            continue;
        }
        let t = Test::new();
        let c = t.bundle(sh(LISTENER));
        let run = c.spawn_run(&[], Stdio::null());
        run.wait_for("ready");
        c.kill(signal).ok();
        let out = run.wait();
        assert_eq!(out.code, code, "{signal}: {out:#?}");
        t.assert_nothing_left();
    }
}

#[test]
fn kill_without_a_signal_sends_sigterm() {
    let t = Test::new();
    let c = t.bundle(sh(LISTENER));
    let run = c.spawn_run(&[], Stdio::null());
    run.wait_for("ready");
    t.runtime(&["kill", &c.id]).ok();
    run.wait().code(7);
}

#[test]
fn kill_takes_9_and_kill_and_sigkill() {
    for signal in ["9", "KILL", "SIGKILL"] {
        let t = Test::new();
        let c = t.bundle(spec().args(FOREVER));
        c.up();
        c.kill(signal).ok();
        c.wait_status("stopped");
        c.delete().ok();
        t.assert_nothing_left();
    }
}

#[test]
fn kill_with_an_unknown_signal_is_an_error() {
    not_under!(Crun, "takes any word");
    let t = Test::new();
    let c = t.bundle(spec().args(FOREVER));
    c.up();
    for signal in ["NOSUCH", "SIGNOSUCH", "9x", "1000"] {
        c.kill(signal).fails();
    }
    assert_eq!(c.status(), "running");
}

#[test]
fn kill_of_a_stopped_container_is_an_error() {
    let t = Test::new();
    let c = t.bundle(spec());
    c.up();
    c.wait_status("stopped");
    c.kill("TERM").fails().rustbox_says(&[&c.id, "container not running"]);
    c.kill("KILL").fails();
    c.delete().ok();
    t.assert_nothing_left();
}

#[test]
fn kill_ends_a_created_container() {
    let t = Test::new();
    let c = t.bundle(spec().args(FOREVER));
    c.create().ok();
    c.kill("KILL").ok();
    c.wait_status("stopped");
    c.start().fails();
    c.delete().ok();
    t.assert_nothing_left();
}

#[test]
fn a_harmless_signal_to_a_created_container_leaves_it_startable() {
    let t = Test::new();
    let c = t.bundle(spec().args(FOREVER));
    c.create().ok();
    c.kill("CONT").ok();
    c.kill("WINCH").ok();
    assert_eq!(c.status(), "created");
    c.start().ok();
    assert_eq!(c.status(), "running");
    c.kill_and_delete();
    t.assert_nothing_left();
}

#[test]
fn kill_all_reaches_every_process_with_a_pid_namespace() {
    let t = Test::new();
    let c = t.bundle(sh("sleep 1005 & sleep 1006 & echo up; wait"));
    c.up();
    c.wait_output("up");
    t.runtime(&["kill", "--all", &c.id, "9"]).ok();
    c.wait_status("stopped");
    c.delete().ok();
    t.assert_nothing_left();
}

#[test]
fn kill_all_reaches_every_process_without_a_pid_namespace() {
    let t = Test::new();
    let c = t.bundle(sh("sleep 1007 & sleep 1008 & echo up; wait").without_namespace("pid"));
    c.up();
    c.wait_output("up");
    let procs = c.cgroup_file("pids", "cgroup.procs");
    assert_eq!(procs.lines().count(), 3, "{procs}");
    t.runtime(&["kill", "--all", &c.id, "KILL"]).ok();
    c.wait_status("stopped");
    until("an empty cgroup", || c.cgroup_file("pids", "cgroup.procs").is_empty());
    c.delete().ok();
    t.assert_nothing_left();
}

#[test]
fn kill_reaches_only_the_container_and_never_its_neighbour() {
    let t = Test::new();
    let (a, b) = (t.bundle(spec().args(FOREVER)), t.bundle(spec().args(FOREVER)));
    a.up();
    b.up();
    a.kill_and_delete();
    assert_eq!(b.status(), "running");
    b.kill_and_delete();
    t.assert_nothing_left();
}

// ---------------------------------------------------------------------------------------------------------------------
// run

#[test]
fn run_returns_the_exit_status_of_the_program() {
    for code in [0, 1, 2, 42, 125, 126, 127, 128, 137, 255] {
        let t = Test::new();
        t.bundle(sh(&format!("exit {code}"))).run().code(code);
        t.assert_nothing_left();
    }
}

#[test]
fn run_returns_128_plus_the_signal_that_ended_the_program() {
    // Without a pid namespace of its own the program is no init and dies of its own signals.
    for (signal, number) in [("KILL", 9), ("TERM", 15), ("ABRT", 6), ("SEGV", 11)] {
        let t = Test::new();
        t.bundle(sh(&format!("kill -{signal} $$")).without_namespace("pid")).run().code(128 + number);
        t.assert_nothing_left();
    }
}

#[test]
fn run_passes_stdin_stdout_and_stderr_through() {
    let t = Test::new();
    let c = t.bundle(sh("cat; echo oops >&2"));
    let input = t.path("input");
    fs::write(&input, "one\ntwo\n").unwrap();
    let out = c.spawn_run(&[], fs::File::open(&input).unwrap().into()).wait().ok();
    assert_eq!((out.stdout.as_str(), out.stderr.as_str()), ("one\ntwo\n", "oops\n"));
    t.assert_nothing_left();
}

#[test]
fn run_forwards_signals_to_the_program() {
    for (signal, code) in [(15, 7), (1, 8), (10, 9)] {
        let t = Test::new();
        let c = t.bundle(sh(LISTENER));
        let run = c.spawn_run(&[], Stdio::null());
        run.wait_for("ready");
        run.signal(signal);
        run.wait().code(code);
        t.assert_nothing_left();
    }
}

#[test]
fn run_ends_when_the_program_ends_though_a_child_holds_its_output() {
    let t = Test::new();
    let c = t.bundle(sh("sleep 1009 & exit 5"));
    c.run().code(5);
    t.assert_nothing_left();
}

#[test]
fn run_detach_returns_while_the_program_runs() {
    let t = Test::new();
    let c = t.bundle(sh("echo up; exec sleep 1000"));
    c.run_detached().ok();
    assert_eq!(c.status(), "running");
    c.wait_output("up");
    c.kill_and_delete();
    t.assert_nothing_left();
}

#[test]
fn run_removes_the_container_at_its_end() {
    let t = Test::new();
    let c = t.bundle(spec());
    c.run().ok();
    c.state_out().fails();
    t.assert_nothing_left();
}

#[test]
fn run_keep_leaves_a_stopped_container() {
    not_under!(Crun, "has no such option yet");
    let t = Test::new();
    let c = t.bundle(sh("exit 3"));
    c.run_with(&["--keep"]).code(3);
    assert_eq!(c.status(), "stopped");
    c.delete().ok();
    t.assert_nothing_left();
}

#[test]
fn detached_containers_outlive_the_command_and_have_no_parent_of_it() {
    let t = Test::new();
    let c = t.bundle(spec().args(FOREVER));
    c.run_detached().ok();
    let stat = fs::read_to_string(format!("/proc/{}/stat", c.pid())).unwrap();
    let parent: i32 = stat.rsplit(')').next().unwrap().split_whitespace().nth(1).unwrap().parse().unwrap();
    let name = fs::read_to_string(format!("/proc/{parent}/comm")).unwrap();
    assert!(!name.contains("rustbox"), "a {name} stays behind");
}

// ---------------------------------------------------------------------------------------------------------------------
// pid file, descriptors

#[test]
fn pid_file_holds_the_pid_of_the_container() {
    let t = Test::new();
    let c = t.bundle(spec().args(FOREVER));
    let file = t.path("pid");
    c.create_with(&["--pid-file", file.to_str().unwrap()]).ok();
    assert_eq!(fs::read_to_string(&file).unwrap(), c.pid().to_string());
    c.delete_force().ok();
    c.run_with(&["--detach", "--pid-file", file.to_str().unwrap()]).ok();
    assert_eq!(fs::read_to_string(&file).unwrap(), c.pid().to_string());
}

#[test]
fn an_unwritable_pid_file_fails_create_and_leaves_nothing() {
    let t = Test::new();
    let c = t.bundle(spec().args(FOREVER));
    let file = t.path("missing/pid");
    c.create_with(&["--pid-file", file.to_str().unwrap()]).fails().says(&["missing"]).rustbox_says(&["missing/pid"]);
    t.assert_nothing_left();
}

#[test]
fn preserve_fds_passes_descriptors_from_3_on() {
    let t = Test::new();
    let c = t.bundle(sh("cat <&3; cat <&4"));
    fs::write(t.path("a"), "three\n").unwrap();
    fs::write(t.path("b"), "four\n").unwrap();
    let out = t
        .shell(
            "exec 3<a 4<b; exec \"$@\"",
            &["run", "--preserve-fds", "2", "--bundle", c.bundle.to_str().unwrap(), &c.id],
        )
        .ok();
    assert_eq!(out.stdout, "three\nfour\n");
    t.assert_nothing_left();
}

#[test]
fn descriptors_that_are_not_preserved_do_not_reach_the_program() {
    let t = Test::new();
    let c = t.bundle(sh("ls /proc/self/fd | wc -l; (cat <&5) 2>/dev/null && echo leaked; true"));
    fs::write(t.path("a"), "x").unwrap();
    let out = t
        .shell(
            "exec 3<a 5<a 9<a; exec \"$@\"",
            &["run", "--preserve-fds", "1", "--bundle", c.bundle.to_str().unwrap(), &c.id],
        )
        .ok();
    // 0, 1, 2, the preserved 3, and the directory that `ls` reads.
    assert_eq!(out.stdout, "5\n");
}

#[test]
fn no_handle_of_the_runtimes_takes_the_place_of_a_closed_descriptor() {
    not_under!(Crun, "opens what is missing");
    let t = Test::new();
    let c = t.bundle(sh("for link in fd/0 ns/net fd/3; do readlink /proc/self/$link; done; true"));
    let run = ["run", "--preserve-fds", "1", "--bundle", c.bundle.to_str().unwrap(), &c.id];
    for _ in 0..20 {
        let out = t.shell("exec 0<&- 3<&-; exec \"$@\"", &run).ok();
        let links: Vec<_> = out.stdout.lines().collect();
        assert_eq!((links.len(), links[0]), (2, "/dev/null"), "{out:?}");
        assert_ne!(links[1], namespace("self", "net"));
    }
    t.assert_nothing_left();
}

#[test]
fn listen_fds_reach_the_program_with_listen_pid_1() {
    not_under!(Crun, "sets no LISTEN_PID");
    let t = Test::new();
    let c = t.bundle(sh("echo $LISTEN_FDS $LISTEN_PID; cat <&3"));
    fs::write(t.path("a"), "socket\n").unwrap();
    let out = t
        .shell(
            "exec 3<a; export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$@\"",
            &["run", "--bundle", c.bundle.to_str().unwrap(), &c.id],
        )
        .ok();
    assert_eq!(out.stdout, "1 1\nsocket\n");
    t.assert_nothing_left();
}

// ---------------------------------------------------------------------------------------------------------------------
// exec errors

#[test]
fn a_missing_program_fails_create_or_start_and_names_it() {
    let t = Test::new();
    for program in ["no-such-program", "/bin/no-such-program", "./no-such-program"] {
        let c = t.bundle(spec().args(&[program]));
        let created = c.create();
        let refused = if created.code == 0 { c.start() } else { created };
        refused.fails().says(&["no-such-program"]).rustbox_says(&["o such file or directory"]);
        c.delete_force().ok();
        t.assert_nothing_left();
    }
}

#[test]
fn a_program_that_may_not_be_executed_fails_create_or_start_and_names_it() {
    let t = Test::new();
    for program in ["/etc/passwd", "/etc", "/bin"] {
        let c = t.bundle(spec().args(&[program]));
        let created = c.create();
        let refused = if created.code == 0 { c.start() } else { created };
        refused.fails().rustbox_says(&[program, "ermission denied"]);
        c.delete_force().ok();
        t.assert_nothing_left();
    }
}

#[test]
fn a_missing_program_fails_run_and_leaves_nothing() {
    let t = Test::new();
    let c = t.bundle(spec().args(&["no-such-program"]));
    c.run().fails().says(&["no-such-program"]);
    t.assert_nothing_left();
}

/// A container whose program is found, and cannot be executed all the same.
fn without_interpreter(t: &Test) -> Container<'_> {
    let c = t.bundle(spec().args(&["/script"]));
    executable(&c.file("script", ""), "#!/no/such/interpreter\n");
    c
}

#[test]
fn a_script_whose_interpreter_is_missing_fails_start_and_names_it() {
    rustbox_only!();
    let t = Test::new();
    let c = without_interpreter(&t);
    let created = c.create();
    let refused = if created.code == 0 { c.start() } else { created };
    refused.fails().says(&["/script", "o such file or directory"]);
    c.delete_force().ok();
    t.assert_nothing_left();
}

/// Init has been told to start before it is ready; what it meets after that is told all the same.
#[test]
fn a_script_whose_interpreter_is_missing_fails_run_and_leaves_nothing() {
    rustbox_only!();
    let t = Test::new();
    let c = without_interpreter(&t);
    c.run().fails().says(&["/script", "o such file or directory"]);
    t.assert_nothing_left();
}

#[test]
fn a_program_does_not_run_where_its_pid_file_cannot_be_written() {
    rustbox_only!();
    let t = Test::new();
    let shared = t.path("shared");
    std::fs::create_dir(&shared).unwrap();
    let c = t.bundle(sh("echo ran >/shared/ran").bind(shared.to_str().unwrap(), "/shared", &["rbind", "rw"]));
    c.run_with(&["--pid-file", t.path("no/such/file").to_str().unwrap()]).fails().says(&["no/such/file"]);
    assert!(!shared.join("ran").exists());
    t.assert_nothing_left();
    c.run().ok();
    assert!(shared.join("ran").exists());
}

#[test]
fn a_failed_start_leaves_a_deletable_container() {
    rustbox_only!();
    let t = Test::new();
    let c = without_interpreter(&t);
    if c.create().code == 0 {
        c.start().fails();
        c.wait_status("stopped");
        c.delete().ok();
    }
    t.assert_nothing_left();
}

// ---------------------------------------------------------------------------------------------------------------------
// list, ps

#[test]
fn list_shows_every_container_in_a_table_as_json_and_as_bare_ids() {
    let t = Test::new();
    assert_eq!(t.runtime(&["list", "--quiet"]).ok().stdout, "");
    let (a, b) = (t.bundle(spec().args(FOREVER)), t.bundle(spec().args(FOREVER)));
    a.create().ok();
    b.up();
    let mut ids: Vec<String> = t.runtime(&["list", "-q"]).ok().stdout.lines().map(str::to_owned).collect();
    ids.sort();
    assert_eq!(ids, [a.id.clone(), b.id.clone()]);

    let list = t.runtime(&["list", "--format", "json"]).ok().json();
    let list = list.as_array().expect("an array");
    assert_eq!(list.len(), 2);
    let find = |id: &str| list.iter().find(|entry| entry["id"] == id).unwrap_or_else(|| panic!("no {id} in {list:?}"));
    assert_eq!(find(&a.id)["status"], "created");
    assert_eq!(find(&b.id)["status"], "running");
    assert_eq!(find(&b.id)["pid"], b.pid());
    assert_eq!(find(&b.id)["bundle"], b.bundle.to_str().unwrap());
    assert!(find(&b.id)["created"].as_str().unwrap().contains('T'));

    let table = t.runtime(&["list"]).ok().stdout;
    let head = table.lines().next().unwrap();
    for column in ["PID", "STATUS", "BUNDLE", "CREATED"] {
        assert!(head.contains(column), "{table}");
    }
    let row = table.lines().find(|line| line.starts_with(&b.id)).unwrap_or_else(|| panic!("{table}"));
    assert!(row.contains("running") && row.contains(&b.pid().to_string()), "{table}");
}

#[test]
fn list_of_a_missing_root_is_empty() {
    let t = Test::new();
    let out = t.runtime(&["list", "--format", "json"]).ok();
    let list: String = out.stdout.split_whitespace().collect();
    assert!(matches!(list.as_str(), "null" | "[]"), "{out:?}");
}

#[test]
fn ps_shows_the_processes_of_a_container() {
    let t = Test::new();
    let c = t.bundle(sh("sleep 1010 & sleep 1010 & echo up; wait"));
    c.up();
    c.wait_output("up");
    let pids = t.runtime(&["ps", "--format", "json", &c.id]).ok().json();
    let mut pids: Vec<i64> = pids.as_array().unwrap().iter().map(|pid| pid.as_i64().unwrap()).collect();
    pids.sort_unstable();
    assert_eq!(pids.len(), 3);
    assert!(pids.contains(&c.pid().into()));
    let mut cgroup: Vec<i64> = c.cgroup_file("pids", "cgroup.procs").lines().map(|pid| pid.parse().unwrap()).collect();
    cgroup.sort_unstable();
    assert_eq!(pids, cgroup);

    not_under!(Crun, "lists bare pids");
    let table = t.runtime(&["ps", &c.id]).ok().stdout;
    assert!(table.lines().next().unwrap().contains("PID"), "{table}");
    assert_eq!(table.lines().filter(|line| line.ends_with(" sleep 1010")).count(), 2, "{table}");
}

// ---------------------------------------------------------------------------------------------------------------------
// the command line

#[test]
fn log_file_gets_json_lines_of_the_shape_that_engines_read() {
    let t = Test::new();
    let log = t.path("log.json");
    let logged = ["--log", log.to_str().unwrap(), "--log-format", "json"];
    t.runtime(&[&logged[..], &["state", "nobody"]].concat()).fails();
    let text = fs::read_to_string(&log).unwrap();
    let line: Value = serde_json::from_str(text.lines().last().expect("a line")).unwrap();
    assert_eq!(line["level"], "error");
    assert!(line["msg"].as_str().unwrap().contains("nobody"), "{line}");
    let time = line["time"].as_str().unwrap();
    let shape: String = time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert!(shape.starts_with("0000-00-00T00:00:00") && shape.ends_with(['Z', '0']), "not an RFC 3339 time: {time}");
}

#[test]
fn log_file_gets_the_reason_of_a_failed_create_and_is_appended_to() {
    let t = Test::new();
    let c = t.bundle(spec().args(&["no-such-program"]));
    let log = t.path("log.json");
    for _ in 0..2 {
        let logged =
            ["--log", log.to_str().unwrap(), "--log-format=json", "run", "--bundle", c.bundle.to_str().unwrap(), &c.id];
        t.runtime(&logged).fails();
    }
    let text = fs::read_to_string(&log).unwrap();
    let errors: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}")))
        .filter(|line: &Value| line["level"] == "error")
        .collect();
    assert!(errors.len() >= 2, "{text}");
    assert!(errors.iter().all(|line| line["msg"].as_str().is_some_and(|msg| !msg.is_empty())));
    assert!(text.contains("no-such-program"), "{text}");
}

#[test]
fn log_file_defaults_to_text_lines() {
    let t = Test::new();
    let log = t.path("log.txt");
    t.runtime(&["--log", log.to_str().unwrap(), "state", "nobody"]).fails();
    let text = fs::read_to_string(&log).unwrap();
    assert!(text.contains("nobody"), "{text}");
    assert!(serde_json::from_str::<Value>(text.lines().next().unwrap()).is_err(), "{text}");
    if peer() != Peer::Crun {
        assert!(text.contains("level=error") && text.contains("msg="), "{text}");
    }
}

#[test]
fn errors_stand_on_stderr_also_when_they_are_logged() {
    let t = Test::new();
    let log = t.path("log.json");
    t.runtime(&["--log", log.to_str().unwrap(), "--log-format", "json", "state", "nobody"])
        .fails()
        .rustbox_says(&["does not exist"]);
}

#[test]
fn a_warning_that_is_logged_is_not_on_stderr_which_may_be_the_containers() {
    let t = Test::new();
    let c = t.bundle(sh("sleep 60"));
    c.up();
    not_under!(Crun, "a name that it does not know is an error");
    let log = t.path("log");
    let exec = ["exec", "--cap", "CAP_NOSUCH", &c.id, "true"];
    let out = t.runtime(&[&["--log", log.to_str().unwrap()], &exec[..]].concat()).ok();
    assert_eq!(out.stderr, "");
    assert!(fs::read_to_string(&log).unwrap().contains("CAP_NOSUCH"));
    c.kill_and_delete();
}

#[test]
fn debug_logs_more_than_errors() {
    let t = Test::new();
    let c = t.bundle(spec());
    let log = t.path("log.json");
    let bundle = c.bundle.to_str().unwrap();
    t.runtime(&["--debug", "--log", log.to_str().unwrap(), "--log-format", "json", "run", "--bundle", bundle, &c.id])
        .ok();
    not_under!(Crun, "has nothing to say");
    let text = fs::read_to_string(&log).unwrap();
    assert!(text.lines().any(|line| serde_json::from_str::<Value>(line).unwrap()["level"] == "debug"), "{text}");
}

#[test]
fn version_has_two_lines_that_engines_parse() {
    let t = Test::new();
    let out = t.bare(&["--version"]).ok();
    let mut lines = out.stdout.lines();
    if peer() == Peer::Rustbox {
        let version = lines.next().unwrap();
        assert_eq!(version, format!("rustbox version {}", env!("CARGO_PKG_VERSION")));
    }
    let specification = out.stdout.lines().find_map(|line| line.strip_prefix("spec: ")).expect("a `spec:` line");
    assert!(specification.starts_with("1."), "{out:?}");
}

#[test]
fn help_names_every_command() {
    let t = Test::new();
    let out = t.bare(&["--help"]).ok();
    for command in ["create", "start", "state", "kill", "delete", "run", "exec", "list", "ps", "spec"] {
        assert!(out.stdout.contains(command), "{command}: {}", out.stdout);
    }
}

#[test]
fn the_reference_of_the_command_line_is_the_committed_one() {
    rustbox_only!();
    let reference = Test::new().bare(&["reference"]).ok().stdout;
    let committed = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/cli.md")).unwrap();
    let stale = reference.lines().zip(committed.lines()).find(|(now, then)| now != then);
    assert!(reference == committed, "docs/cli.md is stale, run `make cli`: {stale:?}");
    for command in ["create", "run", "exec", "verdict"] {
        assert!(reference.contains(&format!("\n## `rustbox {command}`\n")), "{command}");
    }
}

#[test]
fn global_options_take_both_spellings() {
    let t = Test::new();
    let root = format!("--root={}", t.root.display());
    assert_eq!(t.bare(&[&root, "list", "--quiet"]).ok().stdout, "");
    let c = t.bundle(spec().args(FOREVER));
    let bundle = format!("--bundle={}", c.bundle.display());
    let pid_file = format!("--pid-file={}", t.path("pid").display());
    t.bare(&[&root, "create", &bundle, &pid_file, &c.id]).ok();
    assert_eq!(c.status(), "created");
    t.bare(&[&root, "kill", &c.id, "9"]).ok();
    c.wait_status("stopped");
    t.bare(&[&root, "delete", &c.id]).ok();
    t.assert_nothing_left();
}

#[test]
fn spec_writes_a_valid_configuration_that_runs() {
    let t = Test::new();
    let c = t.bundle(spec());
    fs::remove_file(c.bundle.join("config.json")).unwrap();
    let in_bundle = |args: &[&str]| {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "cd \"$1\" && shift && exec \"$@\"", "sh"]).arg(&c.bundle).arg(binary()).args(args);
        t.finish(command)
    };
    in_bundle(&["spec"]).ok();
    let text = fs::read_to_string(c.bundle.join("config.json")).unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    assert!(config["ociVersion"].as_str().unwrap().starts_with("1."));
    assert_eq!(config["process"]["args"], json!(["sh"]));
    assert_eq!(config["process"]["terminal"], json!(true));
    assert_eq!(config["process"]["cwd"], "/");
    assert_eq!(config["root"]["path"], "rootfs");
    assert!(config["mounts"].as_array().unwrap().iter().any(|mount| mount["destination"] == "/proc"));
    // It does not overwrite what is there.
    not_under!(Crun, "overwrites");
    in_bundle(&["spec"]).fails();
    assert_eq!(fs::read_to_string(c.bundle.join("config.json")).unwrap(), text);
    config["process"]["terminal"] = json!(false);
    config["process"]["args"] = json!(["/bin/echo", "from the default configuration"]);
    config["linux"]["cgroupsPath"] = json!(format!("/{}", c.cgroup));
    c.write_config(&config);
    assert_eq!(c.run().ok().line(), "from the default configuration");
    t.assert_nothing_left();
}

#[test]
fn spec_takes_a_bundle_and_rootless() {
    not_under!(Crun, "differs");
    let t = Test::new();
    let c = t.bundle(spec());
    fs::remove_file(c.bundle.join("config.json")).unwrap();
    t.bare(&["spec", "--bundle", c.bundle.to_str().unwrap(), "--rootless"]).ok();
    let config: Value = serde_json::from_slice(&fs::read(c.bundle.join("config.json")).unwrap()).unwrap();
    let namespaces: Vec<&str> =
        config["linux"]["namespaces"].as_array().unwrap().iter().map(|ns| ns["type"].as_str().unwrap()).collect();
    assert!(namespaces.contains(&"user"), "{namespaces:?}");
    assert!(!namespaces.contains(&"network"), "{namespaces:?}");
    assert_eq!(config["linux"]["uidMappings"][0]["containerID"], 0);
    assert_eq!(config["linux"]["gidMappings"][0]["size"], 1);
}

#[test]
fn features_is_a_features_document_of_the_specification() {
    not_under!(Crun, "has no such command yet");
    let t = Test::new();
    let features = t.bare(&["features"]).ok().json();
    assert!(features["ociVersionMin"].as_str().unwrap().starts_with("1."));
    assert!(features["ociVersionMax"].as_str().unwrap().starts_with("1."));
    let strings = |pointer: &str| -> Vec<String> {
        let list =
            features.pointer(pointer).and_then(Value::as_array).unwrap_or_else(|| panic!("{pointer} of {features}"));
        list.iter().map(|entry| entry.as_str().unwrap().to_owned()).collect()
    };
    for hook in ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"] {
        assert!(strings("/hooks").contains(&hook.to_owned()), "{hook}");
    }
    for option in ["ro", "rw", "bind", "rbind", "nosuid", "noexec", "rslave", "rro"] {
        assert!(strings("/mountOptions").contains(&option.to_owned()), "{option}");
    }
    for namespace in ["cgroup", "ipc", "mount", "network", "pid", "user", "uts"] {
        assert!(strings("/linux/namespaces").contains(&namespace.to_owned()), "{namespace}");
    }
    assert!(strings("/linux/capabilities").contains(&"CAP_SYS_ADMIN".to_owned()));
    assert_eq!(features["linux"]["cgroup"]["v1"], true);
    assert_eq!(features["linux"]["cgroup"]["v2"], true);
    assert_eq!(features["linux"]["seccomp"]["enabled"], true);
    assert!(strings("/linux/seccomp/actions").contains(&"SCMP_ACT_NOTIFY".to_owned()));
    assert!(strings("/linux/seccomp/operators").contains(&"SCMP_CMP_MASKED_EQ".to_owned()));
    assert!(strings("/linux/seccomp/archs").contains(&"SCMP_ARCH_X86_64".to_owned()));
}

// ---------------------------------------------------------------------------------------------------------------------
// pause, resume

#[test]
fn pause_freezes_and_resume_thaws() {
    let t = Test::new();
    let c = t.bundle(sh("i=0; while :; do i=$((i+1)); echo $i; sleep 0.01; done"));
    c.up();
    c.wait_output("2");
    t.runtime(&["pause", &c.id]).ok();
    assert_eq!(c.status(), "paused");
    let seen = c.output();
    std::thread::sleep(std::time::Duration::from_millis(60));
    assert_eq!(c.output(), seen, "it went on while paused");
    t.runtime(&["resume", &c.id]).ok();
    assert_eq!(c.status(), "running");
    until("more output", || c.output() != seen);
}

#[test]
fn delete_force_ends_a_paused_container() {
    let t = Test::new();
    let c = t.bundle(spec().args(FOREVER));
    c.up();
    t.runtime(&["pause", &c.id]).ok();
    c.delete_force().ok();
    t.assert_nothing_left();
}

#[test]
fn a_created_container_that_is_paused_is_started_only_after_it_is_resumed() {
    not_under!(Crun, "its answer is not known");
    let t = Test::new();
    let c = t.bundle(sh("echo went on; sleep 1000"));
    c.create().ok();
    t.runtime(&["pause", &c.id]).ok();
    assert_eq!(c.status(), "paused");
    c.start().denied().rustbox_says(&[&c.id, "paused", "resume"]);
    t.runtime(&["pause", &c.id]).denied().rustbox_says(&["paused"]);
    c.delete().denied().rustbox_says(&["paused"]);
    if peer() == Peer::Rustbox {
        let images = t.path("images");
        let out = t.runtime(&["checkpoint", "--image-path", images.to_str().unwrap(), &c.id]).denied();
        out.says(&["cannot be checkpointed", "before it was started"]);
    }
    t.runtime(&["resume", &c.id]).ok();
    assert_eq!(c.status(), "created");
    c.start().ok();
    c.wait_output("went on");
    c.kill_and_delete();
    t.assert_nothing_left();
}

/// A container whose `run --detach` waits for a hook of the container, with its init on record.
fn stuck_run(c: &Container<'_>) -> Running {
    let running = c.spawn_run(&["--detach"], Stdio::null());
    let init = c.test.root.join(&c.id).join("init");
    until("init on record", || fs::read_to_string(&init).is_ok_and(|text| text.contains("starting")));
    running
}

#[test]
fn a_container_that_is_frozen_while_it_is_made_is_paused_and_can_be_resumed_or_killed() {
    rustbox_only!();
    let t = Test::new();
    for resume in [true, false] {
        let c = t.bundle(sh("sleep 1000").hook("startContainer", "while ! test -e /go; do sleep 0.01; done"));
        let running = stuck_run(&c);
        assert_eq!(c.status(), "creating");
        t.runtime(&["pause", &c.id]).denied().says(&["creating"]);
        freeze(&c);
        assert_eq!(c.status(), "paused");
        c.exec_with(&["--ignore-paused"], &["true"]).fails().says(&["creation is paused", "resume"]);
        if resume {
            t.runtime(&["resume", &c.id]).ok();
            assert_eq!(c.status(), "creating");
            c.file("go", "");
            running.wait().ok();
            assert_eq!(c.status(), "running");
            c.kill_and_delete();
        } else {
            c.kill("KILL").ok();
            let _ = t.runtime(&["resume", &c.id]);
            running.wait().denied();
        }
        t.assert_nothing_left();
    }
}

#[test]
fn a_container_that_is_frozen_before_its_init_is_on_record_can_be_resumed() {
    rustbox_only!();
    let t = Test::new();
    let go = t.path("go");
    let c =
        t.bundle(sh("true").hook("createRuntime", &format!("while ! test -e {}; do sleep 0.01; done", go.display())));
    let running = c.spawn_run(&[], Stdio::null());
    until("the hook", || t.root.join(&c.id).join("hook").exists());
    freeze(&c);
    fs::write(&go, "").unwrap();
    until("the hook's end", || !t.root.join(&c.id).join("hook").exists());
    assert_eq!(c.status(), "creating");
    t.runtime(&["resume", &c.id]).ok();
    running.wait().ok();
    t.assert_nothing_left();
}

// ---------------------------------------------------------------------------------------------------------------------
// cleanup

#[test]
fn the_state_directory_is_private() {
    let t = Test::new();
    let c = t.bundle(spec().args(FOREVER));
    c.create().ok();
    let mode = fs::metadata(t.root.join(&c.id)).unwrap().mode();
    assert_eq!(mode & 0o022, 0, "{mode:o}: others may write it");
}

#[test]
fn delete_json_prints_the_proof_that_nothing_remains() {
    rustbox_only!();
    let t = Test::new();
    let c = t.bundle(spec());
    c.up();
    c.wait_status("stopped");
    let proof = t.runtime(&["delete", "--json", &c.id]).ok().json();
    assert!(proof.is_object(), "{proof}");
    t.assert_nothing_left();
}

#[test]
fn ten_containers_live_side_by_side() {
    let t = Test::new();
    let all: Vec<_> = (0..10).map(|_| t.bundle(spec().args(FOREVER))).collect();
    for c in &all {
        c.create().ok();
    }
    for c in &all {
        c.start().ok();
    }
    for c in &all {
        assert_eq!(c.status(), "running");
        c.delete_force().ok();
    }
    t.assert_nothing_left();
}

#[test]
fn the_whole_life_leaves_the_cgroup_of_another_container_below_alone() {
    // Two containers in nested cgroups: deleting the inner one must not disturb the outer one.
    let t = Test::new();
    let outer = t.bundle(spec().args(FOREVER));
    outer.up();
    let inner =
        t.bundle(spec().args(FOREVER).patch(json!({"linux": {"cgroupsPath": format!("/{}/inner", outer.cgroup)}})));
    inner.up();
    inner.kill_and_delete();
    assert_eq!(outer.status(), "running");
    assert!(outer.cgroup_dir("memory").exists());
    outer.kill_and_delete();
    t.assert_nothing_left();
}

#[test]
fn debug_lines_go_to_stderr_where_there_is_no_log() {
    not_under!(Crun, "has nothing to say");
    let t = Test::new();
    let c = t.bundle(sh("echo output"));
    let out = t.runtime(&["--debug", "run", "--bundle", c.bundle.to_str().unwrap(), &c.id]).ok();
    assert_eq!(out.stdout, "output\n");
    out.says(&["level=debug"]);
    let quiet = t.bundle(spec()).run().ok();
    assert_eq!(quiet.stderr, "");
}

#[test]
fn signal_zero_asks_whether_there_is_somebody() {
    let t = Test::new();
    let c = t.bundle(sh("trap 'echo signalled' HUP; while :; do sleep 0.1; done"));
    c.up();
    c.kill("0").ok();
    c.kill("KILL").ok();
    c.wait_status("stopped");
    c.kill("0").fails();
    // All of nobody are signalled.
    t.runtime(&["kill", "--all", &c.id, "0"]).ok();
    assert_eq!(c.output(), "");
}

#[test]
fn a_container_in_the_cgroup_of_another_is_warned_of() {
    not_under!(Crun, "says nothing");
    let t = Test::new();
    let path = format!("/rbt-{}-both", t.tag);
    let both = || spec().args(&["sleep", "1000"]).set("/linux/cgroupsPath", json!(path));
    let first = t.bundle(both());
    assert_eq!(first.run_detached().ok().stderr, "");
    let second = t.bundle(both());
    second.run_detached().ok().says(&["container's cgroup is not empty"]);
    second.delete_force().ok();
    assert_eq!(first.status(), "running");
}

#[test]
fn a_process_that_was_frozen_elsewhere_dies_with_its_container() {
    not_under!(Runc, "waits for it and gives up");
    not_under!(Crun, "leaves it");
    let freezer = Path::new("/sys/fs/cgroup/freezer");
    if !freezer.join("cgroup.procs").exists() {
        skip!("no v1 freezer, whose frozen processes no signal ends");
    }
    let t = Test::new();
    let c = t.bundle(spec().args(&["sleep", "1000"]));
    c.up();
    let elsewhere = freezer.join(format!("{}-elsewhere", t.tag));
    fs::create_dir(&elsewhere).unwrap();
    fs::write(elsewhere.join("cgroup.procs"), c.pid().to_string()).unwrap();
    fs::write(elsewhere.join("freezer.state"), "FROZEN").unwrap();
    let out = c.delete_force();
    fs::write(elsewhere.join("freezer.state"), "THAWED").unwrap();
    out.ok();
    until("the other cgroup to be empty", || fs::remove_dir(&elsewhere).is_ok());
    t.assert_nothing_left();
}

/// As an `exec` is on its way into the container's namespaces: no end of theirs brings its own.
#[test]
fn who_is_in_the_cgroups_and_not_in_the_namespaces_does_not_keep_the_container() {
    rustbox_only!();
    let t = Test::new();
    let c = t.bundle(sh("sleep 600"));
    c.up();
    let mut guest = std::process::Command::new("sleep").arg("600").spawn().unwrap();
    let memory = c.cgroup_dir("memory");
    let hierarchies =
        if cgroup::unified() { vec![] } else { memory.ancestors().nth(2).unwrap().read_dir().unwrap().collect() };
    let others = hierarchies.into_iter().map(|it| it.unwrap().path().join(memory.file_name().unwrap()));
    for cgroup in others.filter(|it| it.is_dir()).chain([memory.clone()]) {
        fs::write(cgroup.join("cgroup.procs"), guest.id().to_string()).unwrap();
    }
    let asked = std::time::Instant::now();
    let proof = c.test.runtime(&["delete", "--force", "--json", &c.id]).ok().json();
    assert_eq!(proof["clean"], true, "{proof:#}");
    assert!(asked.elapsed() < std::time::Duration::from_secs(5), "{:?}", asked.elapsed());
    assert!(!guest.wait().unwrap().success(), "it is killed");
    t.assert_nothing_left();
}
