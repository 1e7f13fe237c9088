//! `hooks`: the six points, their order, their namespaces, the state on stdin, timeouts, and what a failure does.

mod common;

use std::fs;
use std::time::{Duration, Instant};

use common::*;
use serde_json::Value;

const POINTS: &[&str] = &["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// The points whose hooks run in the runtime's namespaces; the others run in the container's.
const IN_RUNTIME: &[&str] = &["prestart", "createRuntime", "poststart", "poststop"];

/// Appends a line to the test's journal. Hooks in the container's namespaces see the host's file through a bind mount.
fn journal(t: &Test, mut spec: Spec, script: impl Fn(&str) -> String) -> (Spec, std::path::PathBuf) {
    let dir = t.path("journal");
    fs::create_dir_all(&dir).unwrap();
    spec = spec.bind(dir.to_str().unwrap(), "/journal", &["bind", "rw"]).writable();
    let host = dir.join("log");
    for point in POINTS {
        // createContainer runs in the container's namespaces before the pivot: the host's paths are still there.
        let file = if *point == "startContainer" { "/journal/log" } else { host.to_str().unwrap() };
        spec = spec.hook(point, &format!("({}) >> {file}", script(point)));
    }
    (spec, host)
}

fn lines(path: &std::path::Path) -> Vec<String> {
    fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

#[test]
fn hooks_run_in_the_order_of_the_life_cycle() {
    not_under!(Runc, "runs poststart during create");
    let t = Test::new();
    let (spec, log) = journal(&t, sh("echo program >> /journal/log"), |point| format!("echo {point}"));
    let c = t.bundle(spec);
    c.create().ok();
    assert_eq!(lines(&log), ["prestart", "createRuntime", "createContainer"]);
    c.start().ok();
    c.wait_status("stopped");
    let after: Vec<String> = lines(&log);
    assert_eq!(after[3], "startContainer");
    assert!(after[4..].contains(&"program".to_owned()) && after[4..].contains(&"poststart".to_owned()), "{after:?}");
    assert!(!after.contains(&"poststop".to_owned()), "{after:?}");
    c.delete().ok();
    assert_eq!(lines(&log).last().unwrap(), "poststop");
    assert_eq!(lines(&log).len(), 7);
    t.assert_nothing_left();
}

#[test]
fn hooks_of_one_point_run_in_their_order() {
    let t = Test::new();
    let log = t.path("log");
    let mut spec = spec();
    for n in 0..5 {
        spec = spec.hook("createRuntime", &format!("echo {n} >> {}", log.display()));
    }
    t.bundle(spec).run().ok();
    assert_eq!(lines(&log), ["0", "1", "2", "3", "4"]);
}

#[test]
fn hooks_run_during_run_as_well() {
    not_under!(Runc, "runs poststart during create");
    let t = Test::new();
    let (spec, log) = journal(&t, spec(), |point| format!("echo {point}"));
    t.bundle(spec).run().ok();
    let seen = lines(&log);
    assert_eq!(seen, POINTS, "{seen:?}");
    t.assert_nothing_left();
}

#[test]
fn each_hook_runs_in_the_namespaces_of_its_point() {
    let t = Test::new();
    let (spec, log) = journal(&t, spec().args(&["sleep", "1000"]), |point| {
        format!("for ns in mnt pid net uts ipc; do echo {point} $ns $(readlink /proc/self/ns/$ns); done")
    });
    let c = t.bundle(spec);
    c.up();
    let pid = c.pid().to_string();
    let inside: Vec<(&str, String)> = ["mnt", "pid", "net", "uts", "ipc"].map(|ns| (ns, namespace(&pid, ns))).to_vec();
    c.kill("KILL").ok();
    c.wait_status("stopped");
    c.delete().ok();
    let seen = lines(&log);
    for point in POINTS {
        for (ns, container) in &inside {
            let prefix = format!("{point} {ns} ");
            let actual =
                seen.iter().find_map(|line| line.strip_prefix(&prefix)).unwrap_or_else(|| panic!("{prefix}: {seen:?}"));
            let host = namespace("self", ns);
            if IN_RUNTIME.contains(point) {
                assert_eq!(actual, host, "{point} runs in the runtime's {ns}");
            } else {
                assert_eq!(actual, container, "{point} runs in the container's {ns}");
            }
        }
    }
    t.assert_nothing_left();
}

#[test]
fn the_state_is_on_stdin_with_the_status_and_pid_of_the_moment() {
    let t = Test::new();
    let dir = t.path("states");
    fs::create_dir(&dir).unwrap();
    let mut spec = spec().args(&["sleep", "1000"]).bind(dir.to_str().unwrap(), "/states", &["bind", "rw"]).writable();
    spec = spec.patch(json!({"annotations": {"org.example": "annotated"}}));
    for point in POINTS {
        let place = if *point == "startContainer" { "/states" } else { dir.to_str().unwrap() };
        spec = spec.hook(point, &format!("cat > {place}/{point}"));
    }
    let c = t.bundle(spec);
    c.up();
    let pid = c.pid();
    c.kill_and_delete();
    for (point, status) in [
        ("prestart", "creating"),
        ("createRuntime", "creating"),
        ("createContainer", "creating"),
        ("startContainer", "created"),
        ("poststart", if peer() == Peer::Runc { "created" } else { "running" }),
        ("poststop", "stopped"),
    ] {
        let text = fs::read_to_string(dir.join(point)).unwrap_or_else(|e| panic!("{point}: {e}"));
        let state: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{point}: {e}: {text}"));
        assert!(state["ociVersion"].is_string(), "{point}: {state}");
        assert_eq!(state["id"], c.id.as_str(), "{point}");
        assert_eq!(state["bundle"], c.bundle.to_str().unwrap(), "{point}");
        assert_eq!(state["annotations"]["org.example"], "annotated", "{point}");
        assert_eq!(state["status"], status, "{point}");
        match point {
            "poststop" => assert!(state["pid"].as_i64().unwrap_or(0) == 0, "{point}: {state}"),
            // Some runtimes show the pid as the container's own namespace sees it.
            "startContainer" | "createContainer" => {
                assert!([pid as i64, 1].contains(&state["pid"].as_i64().unwrap()), "{point}: {state}")
            }
            _ => assert_eq!(state["pid"], pid, "{point}"),
        }
    }
}

#[test]
fn a_hook_gets_its_args_and_only_its_environment() {
    let t = Test::new();
    let log = t.path("log");
    let script = format!("echo \"$0 $1 $2 [$VAR] [$RUSTBOX_LEAK]\" > {}", log.display());
    let hook =
        json!({"path": "/bin/sh", "args": ["sh", "-c", script, "zero", "one", "two words"], "env": ["VAR=a value"]});
    let c = t.bundle(spec().patch(json!({"hooks": {"createRuntime": [hook]}})));
    let out =
        t.shell("export RUSTBOX_LEAK=leaked; exec \"$@\"", &["run", "--bundle", c.bundle.to_str().unwrap(), &c.id]);
    out.ok();
    assert_eq!(lines(&log), ["zero one two words [a value] []"]);
}

#[test]
fn the_runtime_namespace_exists_and_the_rootfs_is_reachable_when_create_runtime_runs() {
    // What network plugins do: enter the container's network namespace by its pid.
    let t = Test::new();
    let log = t.path("log");
    let script = format!(
        "pid=$(sed -n 's/.*\"pid\": *\\([0-9]*\\).*/\\1/p' | head -1); readlink /proc/$pid/ns/net > {0}; nsenter -t $pid -n ip link set lo up && echo entered >> {0}",
        log.display()
    );
    let c = t.bundle(spec().args(&["sleep", "1000"]).hook("createRuntime", &script));
    c.create().ok();
    assert_eq!(lines(&log)[0], namespace(&c.pid().to_string(), "net"));
    if std::path::Path::new("/usr/sbin/ip").exists() || std::path::Path::new("/sbin/ip").exists() {
        assert_eq!(lines(&log)[1], "entered");
    }
}

#[test]
fn create_container_hooks_see_the_mounts_and_may_add_to_them() {
    // runtime-spec: createContainer hooks run after the mounts and before pivot_root.
    let t = Test::new();
    let source = t.path("extra");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), "from a hook\n").unwrap();
    let c = t.bundle(sh("cat /tmp/file").writable());
    let script = format!("mount --bind {} {}/tmp", source.display(), c.rootfs().display());
    let config: Value = serde_json::from_slice(&fs::read(c.bundle.join("config.json")).unwrap()).unwrap();
    c.write_config(&Spec(config).hook("createContainer", &script).0);
    assert_eq!(c.run().ok().line(), "from a hook");
    t.assert_nothing_left();
}

// ---------------------------------------------------------------------------------------------------------------------
// failure

#[test]
fn a_failing_hook_before_the_program_fails_create_or_start_and_leaves_nothing() {
    for point in ["prestart", "createRuntime", "createContainer", "startContainer"] {
        let t = Test::new();
        let log = t.path("poststop");
        let stop = format!("echo ran > {}", log.display());
        let c = t.bundle(sh("echo program").hook(point, "echo reason of the hook >&2; exit 7").hook("poststop", &stop));
        let created = c.create();
        if peer() == Peer::Runc && point == "startContainer" {
            continue; // start does not hear of it
        }
        let out = if point == "startContainer" {
            created.ok();
            c.start()
        } else {
            created
        };
        out.denied().rustbox_says(&[point, "7"]);
        assert!(!c.output().contains("program"), "{point}: the program ran");
        if point == "startContainer" {
            // runtime-spec, lifecycle 8: "the runtime MUST generate an error, stop the container, and continue the
            // lifecycle at step 12": the container is stopped; delete ends it.
            c.delete_force().ok();
        }
        t.assert_nothing_left();
        if peer() != Peer::Crun {
            assert_eq!(lines(&log), ["ran"], "{point}: poststop must run after a failed {point}");
        }
        c.run().denied();
        t.assert_nothing_left();
    }
}

#[test]
fn a_failing_poststart_hook_fails_start_and_stops_the_container() {
    // runtime-spec 1.2 and later, lifecycle 9: "the runtime MUST generate an error, stop the container, and continue the
    // lifecycle at step 12". (1.0 and 1.1 wanted a warning; every engine's runtime stopped it then, too.)
    not_under!(Runc, "runs the hooks during create");
    let t = Test::new();
    let c = t.bundle(spec().args(&["sleep", "1000"]).hook("poststart", "exit 7"));
    c.create().ok();
    not_under!(Crun, "only warns");
    c.start().denied().rustbox_says(&["poststart", "7"]);
    if c.state_out().code == 0 {
        c.wait_status("stopped");
        c.delete().ok();
    }
    t.assert_nothing_left();
}

#[test]
fn a_failing_poststop_hook_does_not_keep_the_container() {
    // runtime-spec: "log a warning, but the remaining hooks and lifecycle continue as if the hook had succeeded".
    let t = Test::new();
    let log = t.path("log");
    let c = t.bundle(spec().hook("poststop", "exit 7").hook("poststop", &format!("echo second > {}", log.display())));
    c.up();
    c.wait_status("stopped");
    let out = c.delete().ok();
    if peer() == Peer::Rustbox {
        assert!(out.stderr.contains("poststop"), "a warning: {out:?}");
        assert_eq!(lines(&log), ["second"]);
    }
    t.assert_nothing_left();
}

#[test]
fn a_missing_hook_program_fails_create_and_names_it() {
    let t = Test::new();
    let c = t.bundle(spec().patch(json!({"hooks": {"createRuntime": [{"path": "/no/such/hook"}]}})));
    c.create().denied().says(&["/no/such/hook"]);
    t.assert_nothing_left();
}

#[test]
fn a_hook_killed_by_a_signal_has_failed() {
    let t = Test::new();
    t.bundle(spec().hook("createRuntime", "kill -9 $$")).create().denied();
    t.assert_nothing_left();
}

#[test]
fn a_hanging_hook_is_killed_at_its_timeout_and_nothing_is_left() {
    let t = Test::new();
    let hook = json!({"path": "/bin/sh", "args": ["sh", "-c", "exec sleep 1000"], "timeout": 1, "env": ["PATH=/bin:/usr/bin", format!("RUSTBOX_TEST={}", t.tag)]});
    let c = t.bundle(spec().patch(json!({"hooks": {"createRuntime": [hook]}})));
    let start = Instant::now();
    c.create().denied().rustbox_says(&["createRuntime", "timed out"]);
    assert!((Duration::from_millis(900)..Duration::from_secs(4)).contains(&start.elapsed()), "{:?}", start.elapsed());
    t.assert_nothing_left();
}

#[test]
fn a_hook_that_closes_its_stdin_or_never_reads_it_is_no_error() {
    let t = Test::new();
    let big = "x".repeat(300_000);
    let c = t.bundle(
        spec()
            .patch(json!({"annotations": {"big": big}}))
            .hook("createRuntime", "exec 0<&-; exit 0")
            .hook("createRuntime", "true")
            .hook("poststop", "exec 0<&-; exit 0"),
    );
    c.run().ok();
    t.assert_nothing_left();
}

#[test]
fn a_hook_that_floods_its_output_is_no_trouble() {
    let t = Test::new();
    t.bundle(spec().hook("createRuntime", "head -c 3000000 /dev/zero; head -c 3000000 /dev/zero >&2")).run().ok();
    t.assert_nothing_left();
}

#[test]
fn a_hook_whose_child_holds_its_output_open_does_not_block() {
    rustbox_only!();
    let t = Test::new();
    let start = Instant::now();
    t.bundle(spec().hook("createRuntime", &format!("RUSTBOX_TEST={} sleep 6 & exit 0", t.tag))).run().ok();
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
}

#[test]
fn hooks_do_not_inherit_the_runtimes_descriptors() {
    let t = Test::new();
    let log = t.path("log");
    fs::write(t.path("a"), "").unwrap();
    let c = t.bundle(
        spec().hook("createRuntime", &format!("ls -l /proc/self/fd | grep -v total | wc -l > {}", log.display())),
    );
    not_under!(Crun, "passes all on");
    t.shell("exec 7<a; exec \"$@\"", &["run", "--bundle", c.bundle.to_str().unwrap(), &c.id]).ok();
    // stdin, stdout, stderr, and the directory that `ls` reads.
    assert_eq!(lines(&log), ["4"]);
}

/// Starts a command of the runtime on the container, and ends it by SIGKILL once the file is there.
#[track_caller]
fn killed_at(c: &Container<'_>, command: &[&str], file: &std::path::Path) {
    let mut runtime = std::process::Command::new(binary());
    runtime.arg("--root").arg(&c.test.root).args(command).arg(&c.id);
    let running = c.test.spawn(runtime, std::process::Stdio::null());
    until("the hook to run", || std::fs::read_to_string(file).is_ok_and(|text| text.ends_with('\n')));
    running.signal(9);
    assert_eq!(running.wait().signal, Some(9));
}

#[test]
fn a_hook_that_outlives_its_runtime_is_ended_by_delete_force_which_says_so() {
    rustbox_only!();
    for point in ["prestart", "createRuntime", "createContainer", "poststart", "poststop"] {
        let t = Test::new();
        let mark = t.path("mark");
        // It hangs, with a child, the first time only: delete runs poststop hooks again.
        let script = format!("[ -e {0} ] || {{ echo $$ >{0}; sleep 600 & sleep 600; }}", mark.display());
        let c = t.bundle(sh("sleep 600").hook(point, &script));
        let bundle = c.bundle.to_str().unwrap();
        match point {
            "poststart" => {
                c.create().ok();
                killed_at(&c, &["start"], &mark);
            }
            "poststop" => {
                c.up();
                c.kill("KILL").ok();
                c.wait_status("stopped");
                killed_at(&c, &["delete"], &mark);
            }
            _ => killed_at(&c, &["create", "--bundle", bundle], &mark),
        }
        let proof = t.runtime(&["delete", "--force", "--json", &c.id]).ok().json();
        let hook = format!("{point} hook, process {}", std::fs::read_to_string(&mark).unwrap().trim());
        // One of the container's own namespaces ends with the container.
        let ended = if point == "createContainer" { Value::Null } else { hook.into() };
        assert_eq!(proof["hook_ended"], ended, "{point}: {proof:#}");
        t.assert_nothing_left();
    }
}

/// The command under test on this container, on its own.
fn spawn(c: &Container<'_>, words: &[&str]) -> Running {
    let mut command = std::process::Command::new(binary());
    command.arg("--root").arg(&c.test.root).args(words).arg(&c.id);
    c.test.spawn(command, std::process::Stdio::null())
}

#[test]
fn delete_force_does_not_wait_for_a_hook_that_hangs() {
    not_under!(Runc, "knows no container that is being created");
    not_under!(Crun, "knows no container that is being created");
    for point in &POINTS[..5] {
        for whole in [true, false] {
            let t = Test::new();
            let begun = t.path("begun");
            // In the container `/tmp` is its own.
            let say = if *point == "startContainer" { "/begun" } else { begun.to_str().unwrap() };
            let c =
                t.bundle(spec().args(&["sleep", "1000"]).hook(point, &format!("echo >{say}; sleep 1000")).writable());
            let bundle = c.bundle.to_str().unwrap();
            let command = if whole {
                spawn(&c, &["run", "--detach", "--bundle", bundle])
            } else if ["startContainer", "poststart"].contains(point) {
                c.create().ok();
                spawn(&c, &["start"])
            } else {
                spawn(&c, &["create", "--bundle", bundle])
            };
            let said = if *point == "startContainer" { c.rootfs().join("begun") } else { begun };
            until("the hook", || said.exists());
            let asked = Instant::now();
            c.delete_force().ok();
            assert!(asked.elapsed() < Duration::from_secs(3), "{point}: {:?}", asked.elapsed());
            let out = command.wait();
            // After an init that was killed in its hook nobody can tell what it has executed.
            if *point != "startContainer" {
                out.denied();
            }
            // Nobody waits for what the hook had started, which was killed with it.
            until("the end of all", || leftovers::find(&t.tag, &t.dir, &t.root).is_empty());
        }
    }
}

#[test]
fn delete_force_leaves_a_poststop_hook_that_runs_alone() {
    let t = Test::new();
    let log = t.path("log");
    let c = t.bundle(spec().hook("poststop", &format!("echo begun >>{0}; sleep 1; echo done >>{0}", log.display())));
    c.up();
    c.wait_status("stopped");
    let first = spawn(&c, &["delete"]);
    until("the hook", || log.exists());
    c.delete_force().ok();
    first.wait().ok();
    assert_eq!(lines(&log), ["begun", "done"]);
    t.assert_nothing_left();
}

#[test]
fn delete_force_of_a_container_that_a_command_holds_fails_and_names_the_command() {
    rustbox_only!();
    let t = Test::new();
    let c = t.bundle(spec().args(&["sleep", "1000"]));
    c.create().ok();
    let directory = fs::File::open(t.root.join(&c.id)).unwrap();
    let lock = nix::fcntl::Flock::lock(directory, nix::fcntl::FlockArg::LockExclusive).unwrap();
    let asked = Instant::now();
    let out = c.delete_force().denied();
    let took = asked.elapsed();
    assert!(took > Duration::from_secs(9) && took < Duration::from_secs(15), "{took:?}");
    out.says(&[&c.id, &format!("process {}", std::process::id()), "10 s", "again"]);
    drop(lock);
    c.delete_force().ok();
    t.assert_nothing_left();
}

#[test]
fn without_a_runtime_a_container_being_created_ends_by_itself() {
    rustbox_only!();
    for (point, namespace) in [("createRuntime", "pid"), ("createContainer", "pid"), ("createContainer", "uts")] {
        let t = Test::new();
        let mark = t.path("mark");
        let script = format!("echo >{}; sleep 600", mark.display());
        // In a time namespace of its own a helper stands between the runtime and the container's first process.
        let spec = sh("sleep 600").hook(point, &script).without_namespace("pid").namespace(json!({"type": namespace}));
        let spec = if namespace == "uts" { spec.namespace(json!({"type": "time"})) } else { spec };
        let c = t.bundle(spec);
        killed_at(&c, &["create", "--bundle", c.bundle.to_str().unwrap()], &mark);
        let procs = || c.cgroup_file("pids", "cgroup.procs");
        until(&format!("the container to end ({point})"), || procs().is_empty());
        assert_eq!(c.status(), "stopped");
        c.delete_force().ok();
        t.assert_nothing_left();
    }
}

#[test]
fn a_recorded_hook_whose_pid_is_anothers_now_is_left_alone() {
    rustbox_only!();
    let t = Test::new();
    let mark = t.path("mark");
    let c = t.bundle(sh("sleep 600").hook("createRuntime", &format!("echo $$ >{}; sleep 600", mark.display())));
    killed_at(&c, &["create", "--bundle", c.bundle.to_str().unwrap()], &mark);
    let record = t.root.join(&c.id).join("hook");
    let text = std::fs::read_to_string(&record).unwrap();
    let (before, start_time) = text.rsplit_once(' ').unwrap();
    std::fs::write(&record, format!("{before} {}", start_time.parse::<u64>().unwrap() + 1)).unwrap();
    let pid = std::fs::read_to_string(&mark).unwrap().trim().parse().unwrap();
    t.remember(pid);
    let proof = t.runtime(&["delete", "--force", "--json", &c.id]).ok().json();
    assert_eq!(proof["hook_ended"], Value::Null);
    assert!(alive(pid), "a process that was not recorded was ended");
}

#[test]
fn no_hook_is_on_record_after_its_end() {
    rustbox_only!();
    let t = Test::new();
    let seen = t.path("seen");
    let look = format!("cat {}/*/hook >>{1}; echo >>{1}", t.root.display(), seen.display());
    let c = t.bundle(sh("sleep 600").hook("createRuntime", &look).hook("poststart", &look));
    c.create().ok();
    assert!(!t.root.join(&c.id).join("hook").exists());
    c.start().ok();
    assert!(!t.root.join(&c.id).join("hook").exists());
    let kinds: Vec<String> = lines(&seen).iter().map(|line| line.split(' ').next().unwrap().to_owned()).collect();
    assert_eq!(kinds, ["createRuntime", "poststart"]);
    c.delete_force().ok();
    t.assert_nothing_left();
}

#[test]
fn a_hook_without_an_environment_has_the_path_alone() {
    let t = Test::new();
    let dir = t.path("found");
    fs::create_dir(&dir).unwrap();
    for point in ["prestart", "createRuntime", "createContainer"] {
        let script = format!("/usr/bin/tr '\\0' '\\n' < /proc/self/environ > {}/{point}", dir.display());
        let hook = json!({"path": "/bin/sh", "args": ["sh", "-c", script]});
        t.bundle(spec().patch(json!({"hooks": {point: [hook]}}))).run().ok();
        let found = lines(&dir.join(point));
        // Hooks of the other runtimes have more of it, or nothing.
        if peer() == Peer::Rustbox {
            assert_eq!(found, ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], "{point}");
        }
    }
}

#[test]
fn create_container_hooks_begin_in_the_root_file_system() {
    let t = Test::new();
    let dir = t.path("found");
    fs::create_dir(&dir).unwrap();
    let script = format!("stat -c %i . > {}/cwd; echo made > ./from-a-hook", dir.display());
    let c = t.bundle(sh("cat /from-a-hook").writable().hook("createContainer", &script));
    assert_eq!(c.run().ok().line(), "made");
    let root = std::os::unix::fs::MetadataExt::ino(&fs::metadata(c.rootfs()).unwrap());
    assert_eq!(lines(&dir.join("cwd")), [root.to_string()]);
}

#[test]
fn what_a_create_container_hook_mounts_below_the_roots_path_is_in_the_container() {
    for mapped in [false, true] {
        let t = Test::new();
        let spec = sh("ls /tmp");
        let c = t.bundle(if mapped { spec.userns(700_000, 65_536) } else { spec });
        let place = c.rootfs().join("tmp");
        let script = format!("mount -t tmpfs none {0} && touch {0}/by-the-hook", place.display());
        let mut config: serde_json::Value =
            serde_json::from_slice(&fs::read(c.bundle.join("config.json")).unwrap()).unwrap();
        config["hooks"] = json!({ "createContainer": [{ "path": "/bin/sh", "args": ["sh", "-c", script] }] });
        c.write_config(&config);
        assert_eq!(c.run().ok().line(), "by-the-hook");
        t.assert_nothing_left();
    }
}

#[test]
fn start_container_hooks_are_held_to_the_filter() {
    let t = Test::new();
    let profile = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}],
    });
    for no_new_privileges in [true, false] {
        for (point, held) in [("startContainer", true), ("createContainer", false)] {
            let place = if held { "/dev/shm/made".into() } else { t.path(&format!("made{no_new_privileges}")) };
            let made = format!("mkdir {}", place.display());
            let spec = spec()
                .set("/process/noNewPrivileges", json!(no_new_privileges))
                .set("/linux/seccomp", profile.clone())
                .hook(point, &made);
            let out = t.bundle(spec).run();
            if held {
                out.fails().rustbox_says(&["startContainer hook #0", "Function not implemented"]);
            } else {
                out.ok();
            }
        }
    }
    let profile = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_KILL_PROCESS"}],
    });
    let script = "exec mkdir /dev/shm/made";
    let spec = spec().set("/linux/seccomp", profile).hook("startContainer", script);
    t.bundle(spec).run().fails().rustbox_says(&["startContainer hook #0", "bad system call"]);
    t.assert_nothing_left();
}
