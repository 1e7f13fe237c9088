//! `exec`: one more process in a running container, with the container's namespaces, cgroups and restrictions.

mod common;

use std::fs;

use common::*;
use serde_json::Value;

fn idle() -> Spec {
    spec().args(&["sleep", "1000"])
}

/// A process document like the default configuration's.
fn process(args: &[&str]) -> Value {
    spec().args(args).0["process"].clone()
}

// ---------------------------------------------------------------------------------------------------------------------
// command line

#[test]
fn exec_returns_the_exit_status_of_the_process() {
    let t = Test::new();
    let c = t.bundle(idle());
    c.up();
    for code in [0, 1, 42, 126, 127, 255] {
        c.exec(&["sh", "-c", &format!("exit {code}")]).code(code);
    }
    c.exec(&["sh", "-c", "kill -9 $$"]).code(137);
    c.exec(&["sh", "-c", "kill -TERM $$"]).code(143);
    assert_eq!(c.status(), "running");
    c.kill_and_delete();
    t.assert_nothing_left();
}

#[test]
fn exec_passes_options_after_the_id_to_the_program() {
    let t = Test::new();
    let c = t.bundle(idle());
    c.up();
    assert_eq!(c.exec(&["echo", "-n", "--help", "--user"]).ok().stdout, "--help --user");
    assert_eq!(c.exec(&["sh", "-c", "echo $#", "--", "-t", "-d"]).ok().line(), "2");
}

#[test]
fn exec_connects_stdin_stdout_and_stderr() {
    let t = Test::new();
    let c = t.bundle(idle());
    c.up();
    fs::write(t.path("input"), "to the process\n").unwrap();
    let out = t.shell("exec \"$@\" < input", &["exec", &c.id, "sh", "-c", "cat; echo problem >&2"]).ok();
    assert_eq!((out.stdout.as_str(), out.stderr.as_str()), ("to the process\n", "problem\n"));
}

#[test]
fn exec_inherits_the_containers_user_environment_and_cwd() {
    let t = Test::new();
    let c = t.bundle(
        idle()
            .env("FROM=container")
            .patch(json!({"process": {"cwd": "/etc", "user": {"uid": 1000, "gid": 1001, "additionalGids": [5]}}})),
    );
    c.up();
    assert_eq!(
        c.exec(&["sh", "-c", "id -u; id -g; id -G; pwd; echo $FROM"]).ok().stdout,
        "1000\n1001\n1001 5\n/etc\ncontainer\n"
    );
}

#[test]
fn exec_user_cwd_and_env_override() {
    let t = Test::new();
    let c = t.bundle(idle().env("KEEP=kept").env("CHANGE=old"));
    c.up();
    let out = c.exec_with(
        &["--user", "1234:4321", "--cwd", "/tmp", "--env", "CHANGE=new", "--env", "ADD=added"],
        &["sh", "-c", "id -u; id -g; pwd; echo $KEEP $CHANGE $ADD"],
    );
    assert_eq!(out.ok().stdout, "1234\n4321\n/tmp\nkept new added\n");
    assert_eq!(c.exec_with(&["--user", "77"], &["id", "-u"]).ok().line(), "77");
    assert_eq!(
        c.exec_with(&["-u", "5:6", "-e", "A=1"], &["sh", "-c", "id -u; id -g; echo $A"]).ok().stdout,
        "5\n6\n1\n"
    );
}

#[test]
fn exec_additional_gids_are_set() {
    let t = Test::new();
    let c = t.bundle(idle());
    c.up();
    not_under!(Crun, "has no such option");
    let out =
        c.exec_with(&["--user", "1000:1000", "--additional-gids", "100", "--additional-gids", "65534"], &["id", "-G"]);
    assert_eq!(out.ok().line(), "1000 100 65534");
}

#[test]
fn exec_of_a_user_drops_the_callers_groups_and_the_capabilities() {
    let t = Test::new();
    let c = t.bundle(idle());
    c.up();
    let out = c.exec_with(&["--user", "1000:1000"], &["cat", "/proc/self/status"]).ok();
    let line = |key: &str| {
        out.stdout
            .lines()
            .find_map(|line| line.strip_prefix(key))
            .unwrap()
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(line("CapEff:"), "0000000000000000");
    assert_eq!(line("CapPrm:"), "0000000000000000");
    assert!(["", "1000"].contains(&line("Groups:").as_str()), "{}", line("Groups:"));
    assert_eq!(line("NoNewPrivs:"), "1");
}

#[test]
fn exec_cap_adds_a_capability() {
    let t = Test::new();
    let c = t.bundle(idle().caps(&["CAP_KILL"]));
    c.up();
    let caps = |options: &[&str]| {
        let out = c.exec_with(options, &["grep", "CapEff", "/proc/self/status"]).ok();
        u64::from_str_radix(out.line().split_whitespace().last().unwrap(), 16).unwrap()
    };
    assert_eq!(caps(&[]), 1 << 5);
    assert_eq!(caps(&["--cap", "CAP_NET_ADMIN"]), 1 << 5 | 1 << 12);
}

#[test]
fn exec_detach_returns_at_once_and_writes_the_pid() {
    let t = Test::new();
    let c = t.bundle(idle());
    c.up();
    let file = t.path("exec.pid");
    c.exec_with(&["--detach", "--pid-file", file.to_str().unwrap()], &["sleep", "4001"]).ok();
    let pid: i32 = fs::read_to_string(&file).unwrap().parse().unwrap();
    t.remember(pid);
    until("the program", || fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap() == "sleep\x004001\0");
    assert!(c.cgroup_file("pids", "cgroup.procs").lines().any(|line| line == pid.to_string()));
    c.kill_and_delete();
    assert!(!alive(pid));
    t.assert_nothing_left();
}

#[test]
fn exec_pid_file_of_a_foreground_process_is_written_too() {
    let t = Test::new();
    let c = t.bundle(idle());
    c.up();
    let file = t.path("exec.pid");
    c.exec_with(&["--pid-file", file.to_str().unwrap()], &["true"]).ok();
    assert!(fs::read_to_string(&file).unwrap().parse::<i32>().unwrap() > 1);
}

#[test]
fn exec_preserve_fds_passes_descriptors() {
    let t = Test::new();
    let c = t.bundle(idle());
    c.up();
    fs::write(t.path("a"), "three\n").unwrap();
    let out = t.shell("exec 3<a; exec \"$@\"", &["exec", "--preserve-fds", "1", &c.id, "sh", "-c", "cat <&3"]).ok();
    assert_eq!(out.stdout, "three\n");
}

#[test]
fn exec_forwards_signals() {
    let t = Test::new();
    let c = t.bundle(idle());
    c.up();
    let mut command = std::process::Command::new(binary());
    command.arg("--root").arg(&t.root).args(["exec", &c.id, "sh", "-c"]);
    command.arg("trap 'exit 9' TERM; echo ready; while :; do sleep 0.02; done");
    let running = t.spawn(command, std::process::Stdio::null());
    running.wait_for("ready");
    running.signal(15);
    running.wait().code(9);
}

// ---------------------------------------------------------------------------------------------------------------------
// the process document

#[test]
fn a_process_document_sets_everything_it_says() {
    not_under!(Runc, "leaves out umask, rlimits and oomScoreAdj");
    let t = Test::new();
    let c = t.bundle(idle());
    c.up();
    let mut p = process(&[
        "sh",
        "-c",
        "id -u; id -g; id -G; pwd; echo $ONLY; umask; ulimit -Sn; ulimit -Hn; cat /proc/self/oom_score_adj",
    ]);
    p["user"] = json!({"uid": 12, "gid": 34, "additionalGids": [56], "umask": 0o077});
    p["cwd"] = json!("/tmp");
    p["env"] = json!(["PATH=/bin", "ONLY=this"]);
    p["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 33, "hard": 44}]);
    p["oomScoreAdj"] = json!(123);
    assert_eq!(c.exec_process(&p, &[]).ok().stdout, "12\n34\n34 56\n/tmp\nthis\n0077\n33\n44\n123\n");
}

#[test]
fn an_invalid_process_document_is_refused_with_the_path_of_its_fault() {
    rustbox_only!();
    let t = Test::new();
    let c = t.bundle(idle());
    c.up();
    for (member, value, path) in [
        ("args", json!([]), "$.args: "),
        ("cwd", json!("tmp"), "$.cwd: "),
        ("env", json!(["A=1", "B"]), "$.env[1]: "),
        ("user", json!({"uid": u32::MAX, "gid": 0}), "$.user.uid: "),
        ("user", json!({"uid": 0, "gid": 0, "umask": 0o1777}), "$.user.umask: "),
        ("capabilities", json!({"effective": ["CAP_KILL"]}), "$.capabilities.effective: "),
        ("rlimits", json!([{"type": "RLIMIT_CPU", "soft": 2, "hard": 1}]), "$.rlimits[0].soft: "),
        ("oomScoreAdj", json!(1001), "$.oomScoreAdj: "),
        ("ioPriority", json!({"class": "IOPRIO_CLASS_BE", "priority": 8}), "$.ioPriority.priority: "),
        ("scheduler", json!({"policy": "SCHED_FIFO"}), "$.scheduler.priority: "),
        ("execCPUAffinity", json!({"initial": "3-1"}), "$.execCPUAffinity.initial: "),
    ] {
        let mut document = process(&["true"]);
        document[member] = value;
        c.exec_process(&document, &[]).code(255).says(&[path]);
    }
    c.exec_process(&process(&["true"]), &[]).ok();
    c.kill_and_delete();
    t.assert_nothing_left();
}

#[test]
fn a_process_document_sets_capabilities_and_no_new_privileges() {
    let t = Test::new();
    let c = t.bundle(idle());
    c.up();
    let mut p = process(&["grep", "-e", "CapEff", "-e", "CapBnd", "-e", "NoNewPrivs", "/proc/self/status"]);
    p["capabilities"] = json!({"bounding": ["CAP_CHOWN"], "effective": ["CAP_CHOWN"], "permitted": ["CAP_CHOWN"]});
    p["noNewPrivileges"] = json!(false);
    let out = c.exec_process(&p, &[]).ok();
    assert_eq!(out.stdout, "CapEff:\t0000000000000001\nCapBnd:\t0000000000000001\nNoNewPrivs:\t0\n");
}

#[test]
fn a_process_document_works_detached_with_a_pid_file() {
    // What containerd's shim and conmon call.
    let t = Test::new();
    let c = t.bundle(idle());
    c.up();
    let file = t.path("pid");
    c.exec_process(&process(&["sleep", "4002"]), &["--detach", "--pid-file", file.to_str().unwrap()]).ok();
    let pid: i32 = fs::read_to_string(&file).unwrap().parse().unwrap();
    t.remember(pid);
    assert!(alive(pid));
}

// ---------------------------------------------------------------------------------------------------------------------
// where the process runs

#[test]
fn exec_joins_every_namespace_of_the_container() {
    let t = Test::new();
    let c = t.bundle(idle().namespace(json!({"type": "cgroup"})));
    c.up();
    let out =
        c.exec(&["sh", "-c", "for ns in pid net ipc uts mnt cgroup user; do readlink /proc/self/ns/$ns; done"]).ok();
    let inside: Vec<&str> = out.stdout.lines().collect();
    let pid = c.pid().to_string();
    let expected: Vec<String> =
        ["pid", "net", "ipc", "uts", "mnt", "cgroup", "user"].iter().map(|kind| namespace(&pid, kind)).collect();
    assert_eq!(inside, expected);
}

#[test]
fn exec_joins_a_user_namespace_with_its_mappings() {
    let t = Test::new();
    let c = t.bundle(idle().userns(700_000, 65536));
    for dir in ["", "proc", "sys", "dev", "etc", "tmp"] {
        std::os::unix::fs::lchown(c.rootfs().join(dir), Some(700_000), Some(700_000)).unwrap();
    }
    c.up();
    let out = c.exec(&["sh", "-c", "id -u; readlink /proc/self/ns/user; cat /proc/self/uid_map | tr -s ' '"]).ok();
    assert_eq!(out.stdout, format!("0\n{}\n 0 700000 65536\n", namespace(&c.pid().to_string(), "user")));
}

#[test]
fn exec_is_a_member_of_every_cgroup_of_the_container() {
    let t = Test::new();
    let c = t.bundle(idle());
    c.up();
    let own = c.exec(&["cat", "/proc/self/cgroup"]).ok().stdout;
    let container = fs::read_to_string(format!("/proc/{}/cgroup", c.pid())).unwrap();
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&own), sorted(&container));
    for controller in ["memory", "pids", "cpu", "freezer", "devices"] {
        assert_eq!(membership(&own, controller), format!("/{}", c.cgroup), "{controller}: {own}");
    }
}

#[test]
fn exec_is_held_by_the_containers_limits() {
    let t = Test::new();
    let c = t.bundle(idle().resources(json!({"memory": {"limit": 16 << 20, "swap": 16 << 20}})));
    c.up();
    let out = c.exec(&["sh", "-c", "head -c 100m /dev/zero | tail -c 100m | wc -c"]);
    assert!(!out.stdout.contains("104857600"), "{out:?}");
}

#[test]
fn seccomp_of_the_container_applies_to_exec() {
    let profile = json!({"linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}]}}});
    let t = Test::new();
    let c = t.bundle(idle().patch(profile).tmpfs("/tmp", &[]));
    c.up();
    for out in [c.exec(&["mkdir", "/tmp/x"]), c.exec_process(&process(&["mkdir", "/tmp/x"]), &[])] {
        assert_ne!(out.code, 0, "{out:?}");
        assert!(out.stderr.contains("not supported"), "{out:?}");
    }
    assert_eq!(c.exec(&["grep", "Seccomp:", "/proc/self/status"]).ok().line(), "Seccomp:\t2");
}

#[test]
fn masked_and_readonly_paths_hold_for_exec() {
    let t = Test::new();
    let c = t.bundle(idle());
    c.up();
    let out = c.exec(&["sh", "-c", "wc -c < /proc/timer_list; v=$(cat /proc/sys/kernel/panic); (echo $v > /proc/sys/kernel/panic) 2>&1 | grep -c Read-only"]);
    assert_eq!(out.ok().stdout, "0\n1\n");
}

#[test]
fn what_an_exec_started_ends_with_the_container() {
    let t = Test::new();
    let c = t.bundle(idle());
    c.up();
    c.exec(&["sh", "-c", "sleep 4003 >/dev/null 2>&1 & exit 0"]).ok();
    until("the orphan", || c.cgroup_file("pids", "cgroup.procs").lines().count() == 2);
    c.kill_and_delete();
    t.assert_nothing_left();
}

// ---------------------------------------------------------------------------------------------------------------------
// errors

#[test]
fn exec_of_a_missing_program_fails_and_names_it() {
    let t = Test::new();
    let c = t.bundle(idle());
    c.up();
    let out = c.exec(&["no-such-program"]).fails().says(&["no-such-program"]);
    if peer() == Peer::Rustbox {
        out.code(255);
    }
    c.exec(&["/etc/passwd"]).fails();
    c.exec_with(&["--detach"], &["no-such-program"]).fails().says(&["no-such-program"]);
    assert_eq!(c.cgroup_file("pids", "cgroup.procs").lines().count(), 1);
    assert_eq!(c.status(), "running");
}

#[test]
fn exec_of_a_script_without_its_interpreter_is_an_error_of_the_runtime() {
    rustbox_only!();
    let t = Test::new();
    let c = t.bundle(idle());
    executable(&c.file("script", ""), "#!/no/such/interpreter\n");
    c.up();
    c.exec(&["/script"]).code(255).says(&["/script", "o such file"]);
}

#[test]
fn exec_with_a_missing_cwd_fails() {
    let t = Test::new();
    let c = t.bundle(idle());
    c.up();
    c.exec_with(&["--cwd", "/no/such/dir"], &["true"]).fails().says(&["/no/such/dir"]);
}

#[test]
fn exec_into_a_created_or_stopped_container_is_an_error_as_runc_has_it() {
    let t = Test::new();
    let c = t.bundle(spec());
    c.up();
    c.wait_status("stopped");
    c.exec(&["true"]).fails().rustbox_says(&[&c.id, "stopped"]);
    c.delete().ok();
    t.assert_nothing_left();
}

#[test]
fn exec_into_a_paused_container_is_an_error() {
    let t = Test::new();
    let c = t.bundle(idle());
    c.up();
    t.runtime(&["pause", &c.id]).ok();
    not_under!(Crun, "hangs");
    c.exec(&["true"]).fails().rustbox_says(&["paused"]);
    t.runtime(&["resume", &c.id]).ok();
    c.exec(&["true"]).ok();
}

#[test]
fn ten_execs_at_once_all_succeed() {
    let t = Test::new();
    let c = t.bundle(idle());
    c.up();
    let all: Vec<_> = (0..10)
        .map(|n| {
            let mut command = std::process::Command::new(binary());
            command.arg("--root").arg(&t.root).args(["exec", &c.id, "sh", "-c", &format!("echo {n}; exit {n}")]);
            t.spawn(command, std::process::Stdio::null())
        })
        .collect();
    for (n, running) in all.into_iter().enumerate() {
        let out = running.wait();
        assert_eq!((out.code, out.line()), (n as i32, n.to_string().as_str()), "{out:?}");
    }
}

#[test]
fn exec_cap_warns_of_a_name_that_it_does_not_know() {
    let t = Test::new();
    let c = t.bundle(idle().caps(&["CAP_KILL"]));
    c.up();
    let out = c.exec_with(&["--cap", "CAP_NOSUCH"], &["grep", "CapEff", "/proc/self/status"]).ok();
    assert_eq!(out.line().split_whitespace().last().unwrap(), "0000000000000020");
    out.rustbox_says(&["warning", "CAP_NOSUCH"]);
}

#[test]
fn exec_into_a_paused_container_says_so_in_words_that_callers_know() {
    let t = Test::new();
    let c = t.bundle(idle());
    c.up();
    t.runtime(&["pause", &c.id]).ok();
    let out = c.exec(&["true"]).fails();
    if peer() != Peer::Crun {
        out.says(&["cannot exec in a paused container"]);
    }
}

fn signal_to(pid: i32, signal: i32) {
    let signal = nix::sys::signal::Signal::try_from(signal).unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).unwrap();
}

/// Of a frozen container, or of one whose root has stopped the process before it has executed anything.
#[test]
fn a_signal_ends_an_exec_whose_process_does_not_come_to_its_program() {
    rustbox_only!();
    let t = Test::new();
    let c = t.bundle(idle());
    c.up();
    let exec = |pid_file: &std::path::Path, options: &[&str]| {
        // Without -f its children are not traced.
        let mut command = std::process::Command::new("strace");
        command.args(["-qq", "-o", "/dev/null", "-e", "inject=rename,renameat,renameat2:delay_enter=500000"]);
        command.arg(binary()).arg("--root").arg(&t.root).arg("exec").arg("--pid-file").arg(pid_file);
        command.args(options).args([&c.id, "sleep", "1001"]);
        t.spawn(command, std::process::Stdio::null())
    };
    for (signal, frozen) in [(15, false), (2, false), (15, true), (1, true)] {
        let pid_file = t.path(&format!("pid-{signal}-{frozen}"));
        if frozen {
            t.runtime(&["pause", &c.id]).ok();
        }
        let tracer = exec(&pid_file, if frozen { &["--ignore-paused"] } else { &[] });
        let runtime = || children(tracer.pid()).first().copied();
        let stuck = || runtime().and_then(|runtime| children(runtime).first().copied());
        until("its process", || stuck().is_some());
        let (runtime, mut process) = (runtime().unwrap(), stuck().unwrap());
        if !frozen {
            // It waits until its pid is in the file, which this is about to become.
            let temporary = t.path(&format!("pid-{signal}-{frozen}.{runtime}"));
            until("its pid", || fs::read_to_string(&temporary).is_ok_and(|pid| !pid.is_empty()));
            process = fs::read_to_string(&temporary).unwrap().parse().unwrap();
            signal_to(process, 19);
            until("its pid in the file", || pid_file.exists());
        }
        let asked = std::time::Instant::now();
        signal_to(runtime, signal);
        let out = tracer.wait().code(255);
        assert!(asked.elapsed() < std::time::Duration::from_secs(5), "{:?}", asked.elapsed());
        out.says(&[&format!("signal {signal} came"), "killed"]);
        assert!(!alive(process), "the process is left");
        assert!(!pid_file.exists(), "its pid is left");
        if frozen {
            t.runtime(&["resume", &c.id]).ok();
        }
    }
    // It reaches a process that only takes its time.
    for options in [&[][..], &["--tty"]] {
        let pid_file = t.path(&format!("pid-{}", options.len()));
        let tracer = exec(&pid_file, options);
        let runtime = || children(tracer.pid()).first().copied();
        let temporary =
            || runtime().is_some_and(|runtime| t.path(&format!("pid-{}.{runtime}", options.len())).exists());
        until("its pid", temporary);
        signal_to(runtime().unwrap(), 15);
        tracer.wait().code(143);
    }
    c.kill_and_delete();
    t.assert_nothing_left();
}

/// Until init has its root the one of its mount namespace is the host's: nobody may follow it there.
/// Whoever makes the process is not counted beside it, and what the document asks for holds for the exec itself.
#[test]
fn a_limit_of_processes_counts_the_process_and_not_who_makes_it() {
    let t = Test::new();
    let c = t.bundle(
        sh("for i in 1 2 3 4; do sleep 600 & done; echo ready; wait")
            .patch(json!({"process": {"user": {"uid": 47_011, "gid": 0}}})),
    );
    c.up();
    c.wait_output("ready");
    let as_user = |uid: u32, limit: Value| json!({"args": ["true"], "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": uid, "gid": 0}, "rlimits": limit});
    let nproc = |most: u64| json!([{"type": "RLIMIT_NPROC", "soft": most, "hard": most}]);
    for nnp in [false, true] {
        let run = |mut process: Value| {
            process["noNewPrivileges"] = json!(nnp);
            c.exec_process(&process, &[])
        };
        run(as_user(47_012, nproc(1))).ok();
        run(as_user(47_011, nproc(6))).ok();
        let refused = run(as_user(47_011, nproc(3)));
        assert!(refused.code != 0 && refused.stderr.contains("/bin/true"), "{refused:?}");
    }
    // The caller's own, which it does not mean for itself.
    let own = t.shell("exec prlimit --nproc=1: \"$@\"", &["exec", "--user", "47012", &c.id, "true"]);
    own.ok();
    c.kill_and_delete();
    t.assert_nothing_left();
}

/// A filter may stand in the way of what the runtime does on the way to the program, and not of the program.
#[test]
fn a_filter_that_refuses_the_runtimes_own_calls_refuses_no_exec() {
    let rule = |name: &str, index: u32, value: u64| {
        json!({"names": [name], "action": "SCMP_ACT_ERRNO", "errnoRet": 13,
            "args": [{"index": index, "value": value, "op": "SCMP_CMP_EQ"}]})
    };
    // PR_SET_DUMPABLE; the size of clone_args; CLONE_PARENT and CLONE_PIDFD; TIOCSCTTY.
    let rules = [rule("prctl", 0, 4), rule("clone3", 1, 88), rule("clone", 0, 0x9000), rule("ioctl", 1, 0x540e)];
    let calls = ["setsid", "sendmsg", "recvmsg"].map(|name| json!({"names": [name], "action": "SCMP_ACT_ERRNO"}));
    for filter in rules.into_iter().chain(calls) {
        let t = Test::new();
        let seccomp = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [filter.clone()]});
        let c = t.bundle(idle().set("/linux/seccomp", seccomp));
        c.up();
        let out = c.exec(&["echo", "done"]);
        assert_eq!((out.code, out.stdout.as_str()), (0, "done\n"), "{filter}: {out:?}");
        c.kill_and_delete();
    }
}

#[test]
fn exec_into_a_container_that_is_being_made_is_refused() {
    rustbox_only!();
    let t = Test::new();
    let c = t.bundle(sh("true"));
    let script = "exec strace -f -qq -o /dev/null -e trace=pivot_root -e inject=pivot_root:delay_enter=1500000 \"$@\"";
    let mut command = std::process::Command::new("sh");
    command.args(["-c", script, "sh"]).arg(binary()).arg("--root").arg(&t.root);
    command.args(["run", "--bundle", c.bundle.to_str().unwrap(), &c.id]);
    let run = t.spawn(command, std::process::Stdio::null());
    until("its state", || c.state_out().code == 0);
    let begun = std::time::Instant::now();
    while begun.elapsed() < std::time::Duration::from_millis(700) {
        assert_eq!(c.status(), "creating");
        c.exec(&["true"]).fails();
    }
    run.wait().ok();
    t.assert_nothing_left();
}

/// There init is in its root by chroot(2) alone, and no namespace leads there.
#[test]
fn exec_into_a_container_without_a_mount_namespace_is_in_its_root() {
    rustbox_only!();
    let t = Test::new();
    let c = t.bundle(
        sh("sleep 60")
            .set("/linux/namespaces", json!([{"type": "ipc"}, {"type": "uts"}]))
            .set("/linux/maskedPaths", json!([]))
            .set("/linux/readonlyPaths", json!([]))
            .set("/mounts", json!([]))
            .writable(),
    );
    c.file("marker", "inside");
    c.up();
    for user in ["0", "1000"] {
        let out = c.exec_with(&["--user", user], &["/bin/busybox", "cat", "/marker"]).ok();
        assert_eq!(out.stdout, "inside");
        c.exec_with(&["--user", user], &["/bin/busybox", "ls", "/usr/bin/env"]).fails();
    }
    c.delete_force().ok();
    t.assert_nothing_left();
}
