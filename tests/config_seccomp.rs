//! `linux.seccomp`: actions, operators, architectures, flags, and the listener of SCMP_ACT_NOTIFY.

mod common;

use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixListener;

use common::*;
use serde_json::Value;

fn filtered(script: &str, syscalls: Value) -> Spec {
    sh(script)
        .tmpfs("/tmp", &[])
        .patch(json!({"linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": syscalls}}}))
}

/// A profile that answers `names` with an errno.
fn denied(script: &str, names: &[&str], errno: u32) -> Spec {
    filtered(script, json!([{"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": errno}]))
}

#[test]
fn errno_is_the_one_of_the_profile_or_eperm() {
    let out = output_of(denied("mkdir /tmp/x 2>&1; rmdir /tmp 2>&1 | head -1; echo on", &["mkdir", "mkdirat"], 95));
    assert!(out.contains("Operation not supported") && out.ends_with("on"), "{out}");
    let default = json!([{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]);
    let out = output_of(filtered("mkdir /tmp/x 2>&1; echo on", default));
    assert!(out.contains("Operation not permitted") && out.ends_with("on"), "{out}");
}

#[test]
fn the_default_errno_belongs_to_the_default_action() {
    // Everything but a list is answered with ENOSYS; the list is what a shell needs.
    let profile = json!({"linux": {"seccomp": {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["sethostname"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}]
    }}});
    let out = output_of(sh("hostname x 2>&1; echo on").caps(&["CAP_SYS_ADMIN"]).patch(profile));
    assert!(out.contains("not implemented") && out.ends_with("on"), "{out}");
}

#[test]
fn an_allow_list_denies_everything_else() {
    let names = [
        "execve",
        "brk",
        "arch_prctl",
        "set_tid_address",
        "set_robust_list",
        "rseq",
        "prlimit64",
        "readlink",
        "readlinkat",
        "getrandom",
        "mprotect",
        "mmap",
        "munmap",
        "write",
        "writev",
        "exit_group",
        "exit",
        "read",
        "open",
        "openat",
        "close",
        "fstat",
        "newfstatat",
        "getuid",
        "getgid",
        "geteuid",
        "getegid",
        "rt_sigaction",
        "rt_sigprocmask",
        "ioctl",
        "prctl",
        "uname",
        "lseek",
        "futex",
        "capget",
        "capset",
        "setuid",
        "setgid",
        "setgroups",
        "chdir",
        "fchdir",
        "getpid",
        "getppid",
        "fcntl",
        "dup2",
        "dup3",
        "poll",
        "ppoll",
        "epoll_ctl",
        "epoll_pwait",
        "sigaltstack",
        "nanosleep",
        "clock_nanosleep",
        "sched_getaffinity",
        "sched_yield",
        "tgkill",
        "gettid",
        "stat",
        "statx",
        "close_range",
        "fstatfs",
        "getdents64",
        "faccessat",
        "faccessat2",
        "access",
        "madvise",
        "clone",
        "wait4",
        "recvmsg",
        "sendmsg",
        "rt_sigreturn",
        "seccomp",
        "setresuid",
        "setresgid",
        "setsid",
        "umask",
        "getcwd",
    ];
    let profile = json!({"linux": {"seccomp": {
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1, "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{"names": names.to_vec(), "action": "SCMP_ACT_ALLOW"}]
    }}});
    let out = output_of(sh("echo hello; mkdir /tmp/x 2>&1; echo on").tmpfs("/tmp", &[]).patch(profile));
    assert!(out.starts_with("hello\n") && out.contains("not permitted") && out.ends_with("on"), "{out}");
}

#[test]
fn kill_process_ends_the_program_with_sigsys() {
    for action in ["SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_TRAP"] {
        let t = Test::new();
        let c = t.bundle(
            filtered("", json!([{"names": ["mkdir", "mkdirat"], "action": action}]))
                .args(&["mkdir", "/tmp/x"])
                .without_namespace("pid"),
        );
        let out = c.run();
        assert_eq!(out.code, 128 + 31, "{action}: {out:?}");
        t.assert_nothing_left();
    }
}

#[test]
fn log_and_allow_let_the_call_through() {
    for action in ["SCMP_ACT_LOG", "SCMP_ACT_ALLOW"] {
        let spec = filtered("mkdir /tmp/x && echo made", json!([{"names": ["mkdir", "mkdirat"], "action": action}]));
        assert_eq!(output_of(spec), "made", "{action}");
    }
}

#[test]
fn trace_without_a_tracer_is_enosys() {
    let spec = filtered(
        "mkdir /tmp/x 2>&1; echo on",
        json!([{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_TRACE", "errnoRet": 1}]),
    );
    let out = output_of(spec);
    assert!(out.contains("not implemented") && out.ends_with("on"), "{out}");
}

/// Whether `kill -N $$`-style calls with the second argument `signal` are denied by a rule on it. Signal 0 tests only.
#[track_caller]
fn denies(op: &str, value: u64, value_two: u64, signal: u32) -> bool {
    let rule = json!([{"names": ["kill"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95,
        "args": [{"index": 1, "value": value, "valueTwo": value_two, "op": op}]}]);
    // The target is a sleeper that survives none of it; only the answer counts.
    let out = output_of(filtered(
        &format!("sleep 5 & kill -{signal} $! 2>&1 && echo allowed; kill -9 $! 2>/dev/null; true"),
        rule,
    ));
    match (out.contains("allowed"), out.contains("not supported")) {
        (true, false) => false,
        (false, true) => true,
        _ => panic!("{op} {value} {value_two} on {signal}: {out}"),
    }
}

#[test]
fn every_operator_compares_as_its_name_says() {
    for (op, denied, allowed) in [
        ("SCMP_CMP_EQ", vec![10], vec![12]),
        ("SCMP_CMP_NE", vec![12], vec![10]),
        ("SCMP_CMP_LT", vec![2], vec![10, 12]),
        ("SCMP_CMP_LE", vec![2, 10], vec![12]),
        ("SCMP_CMP_GE", vec![10, 12], vec![2]),
        ("SCMP_CMP_GT", vec![12], vec![2, 10]),
    ] {
        for signal in denied {
            assert!(denies(op, 10, 0, signal), "{op} 10 must match {signal}");
        }
        for signal in allowed {
            assert!(!denies(op, 10, 0, signal), "{op} 10 must not match {signal}");
        }
    }
}

#[test]
fn masked_equal_takes_value_as_the_mask_and_value_two_as_the_datum() {
    // Docker's rule against clone(CLONE_NEWUSER) depends on it: mask 2, wanted 2.
    assert!(denies("SCMP_CMP_MASKED_EQ", 0b0010, 0b0010, 10), "10 & 2 == 2");
    assert!(!denies("SCMP_CMP_MASKED_EQ", 0b0010, 0b0010, 12), "12 & 2 != 2");
    assert!(denies("SCMP_CMP_MASKED_EQ", 0b0010, 0, 12), "12 & 2 == 0");
}

#[test]
fn the_clone_rule_of_engines_stops_new_user_namespaces() {
    // As in the default profile of engines: clone is allowed where flags & 0x7e020000 == 0; unshare is not named.
    let profile = json!([
        {"names": ["clone"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1,
         "args": [{"index": 0, "value": 0x1000_0000u64, "valueTwo": 0x1000_0000u64, "op": "SCMP_CMP_MASKED_EQ"}]},
        {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38},
        {"names": ["unshare"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1,
         "args": [{"index": 0, "value": 0x1000_0000u64, "valueTwo": 0x1000_0000u64, "op": "SCMP_CMP_MASKED_EQ"}]}
    ]);
    let out = output_of(filtered("unshare -U true 2>&1 | grep -c 'not permitted'; (true); echo forked", profile));
    assert_eq!(out, "1\nforked");
}

#[test]
fn several_rules_for_one_call_are_alternatives_and_several_args_are_all_needed() {
    let rule = |args: Value| json!({"names": ["kill"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95, "args": args});
    let eq = |value: u64| json!({"index": 1, "value": value, "op": "SCMP_CMP_EQ"});
    let script = "sleep 5 & for s in 10 12; do kill -$s $! 2>&1 | grep -o 'not supported'; done; kill -9 $!; true";
    assert_eq!(
        output_of(filtered(script, json!([rule(json!([eq(10)])), rule(json!([eq(12)]))]))),
        "not supported\nnot supported"
    );
    let both = json!([{"index": 1, "value": 9, "op": "SCMP_CMP_GT"}, {"index": 0, "value": 0, "op": "SCMP_CMP_EQ"}]);
    assert_eq!(output_of(filtered(script, json!([rule(both)]))), "");
}

#[test]
fn unknown_call_names_are_ignored() {
    let spec = filtered(
        "mkdir /tmp/x 2>&1 | grep -c supported",
        json!([
        {"names": ["no_such_call_at_all", "mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}]),
    );
    assert_eq!(output_of(spec), "1");
}

#[test]
fn foreign_architectures_are_accepted() {
    let profile = json!({"linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}]}}});
    assert_eq!(output_of(sh("mkdir /tmp/x 2>&1 | grep -c supported").tmpfs("/tmp", &[]).patch(profile)), "1");
}

#[test]
fn flags_are_accepted() {
    for flags in [
        json!([]),
        json!(["SECCOMP_FILTER_FLAG_LOG"]),
        json!(["SECCOMP_FILTER_FLAG_SPEC_ALLOW"]),
        json!(["SECCOMP_FILTER_FLAG_TSYNC"]),
    ] {
        let profile = json!({"linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "flags": flags,
            "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}]}}});
        if peer() == Peer::Runc && flags != json!([]) {
            continue;
        }
        assert_eq!(output_of(sh("mkdir /tmp/x 2>&1 | grep -c supported").tmpfs("/tmp", &[]).patch(profile)), "1");
    }
}

#[test]
fn a_filter_works_without_no_new_privileges_and_for_an_ordinary_user() {
    for no_new_privileges in [true, false] {
        let spec = denied(
            "mkdir /tmp/x 2>&1 | grep -c supported; id -u; grep NoNewPrivs /proc/self/status",
            &["mkdir", "mkdirat"],
            95,
        )
        .patch(json!({"process": {"noNewPrivileges": no_new_privileges, "user": {"uid": 1000, "gid": 1000}}}))
        .caps(&[]);
        assert_eq!(output_of(spec), format!("1\n1000\nNoNewPrivs:\t{}", no_new_privileges as u8));
    }
}

#[test]
fn without_seccomp_there_is_no_filter_and_with_it_every_process_has_it() {
    assert_eq!(output_of(sh("grep Seccomp: /proc/self/status")), "Seccomp:\t0");
    assert_eq!(output_of(denied("grep Seccomp: /proc/self/status", &["mkdir"], 1)), "Seccomp:\t2");
    assert_eq!(output_of(denied("(sh -c 'grep Seccomp: /proc/self/status')", &["mkdir"], 1)), "Seccomp:\t2");
}

#[test]
fn the_cache_of_compiled_filters_gives_the_same_answer_and_no_other_profiles() {
    let t = Test::new();
    for (names, supported) in [(["mkdir", "mkdirat"], "1"), (["mkdir", "mkdirat"], "1"), (["rmdir", "unlinkat"], "0")] {
        let c = t.bundle(denied("mkdir /tmp/x 2>&1 | grep -c supported; true", &names, 95));
        assert_eq!(c.run().ok().line(), supported, "{names:?}");
    }
    t.assert_nothing_left();
}

#[test]
fn a_damaged_cache_entry_is_compiled_anew() {
    rustbox_only!();
    let t = Test::new();
    let run = || {
        t.bundle(denied("mkdir /tmp/x 2>&1 | grep -c supported", &["mkdir", "mkdirat"], 95))
            .run()
            .ok()
            .line()
            .to_owned()
    };
    assert_eq!(run(), "1");
    let mut damaged = 0;
    let mut pending = vec![t.root.clone()];
    while let Some(dir) = pending.pop() {
        for entry in std::fs::read_dir(dir).unwrap().flatten() {
            if entry.file_type().unwrap().is_dir() {
                pending.push(entry.path());
            } else if entry.metadata().unwrap().len() > 8 {
                std::fs::write(entry.path(), [0x06, 0, 0, 0, 0, 0, 0xff, 0x7f]).unwrap(); // one instruction: allow all
                damaged += 1;
            }
        }
    }
    if damaged == 0 {
        skip!("the cache is not below the state root");
    }
    assert_eq!(run(), "1", "a filter that allows everything was taken from the cache");
}

#[test]
fn notify_hands_the_listener_and_the_state_to_the_agent() {
    let t = Test::new();
    let path = t.path("agent.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let profile = json!({"linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": path, "listenerMetadata": "hello agent",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}]}}});
    let c = t.bundle(sh("echo up; mkdir /tmp/x; echo done").tmpfs("/tmp", &[]).patch(profile));
    not_under!(Crun, "sends it during start");
    c.create().ok();
    let (connection, _) = listener.accept().unwrap();
    let (bytes, fds) = received(&connection);
    let state: Value = serde_json::from_slice(&bytes).unwrap();
    // runtime-spec, "The Container Process State".
    assert_eq!(state["metadata"], "hello agent");
    assert_eq!(state["state"]["id"], c.id.as_str());
    assert_eq!(state["pid"], c.pid());
    let names: Vec<&str> = state["fds"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    assert_eq!(names.len(), fds.len());
    let position = names.iter().position(|name| *name == "seccompFd").expect("a seccompFd");
    let link = std::fs::read_link(format!("/proc/self/fd/{}", fds[position].as_raw_fd())).unwrap();
    assert_eq!(link.to_str().unwrap(), "anon_inode:seccomp notify");
    // The agent goes away: the call that waits for it gets ENOSYS.
    c.start().ok();
    c.wait_output("up");
    drop(fds);
    c.wait_output("done");
    assert!(c.error_output().contains("not implemented"), "{}", c.error_output());
    c.wait_status("stopped");
    c.delete().ok();
    t.assert_nothing_left();
}

/// An agent that takes one listener: the state that came with it, and the listener.
fn agent(socket: UnixListener) -> std::thread::JoinHandle<(Value, std::os::fd::OwnedFd)> {
    socket.set_nonblocking(true).unwrap();
    std::thread::spawn(move || {
        let mut accepted = None;
        until("a process to send its listener", || {
            accepted = socket.accept().ok();
            accepted.is_some()
        });
        let (bytes, mut fds) = received(&accepted.unwrap().0);
        (serde_json::from_slice(&bytes).unwrap(), fds.remove(0))
    })
}

#[test]
fn notify_hands_an_execs_listener_to_the_agent_too() {
    not_under!(Crun, "sends no listener of an exec");
    for no_new_privileges in [true, false] {
        let t = Test::new();
        let path = t.path("agent.sock");
        let socket = UnixListener::bind(&path).unwrap();
        let profile = json!({"linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": path, "listenerMetadata": "hello",
            "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}]}},
            "process": {"noNewPrivileges": no_new_privileges}});
        let c = t.bundle(sh("echo up; sleep 60").tmpfs("/tmp", &[]).patch(profile));
        let init = agent(socket.try_clone().unwrap());
        c.create().ok();
        let (_, inits_listener) = init.join().unwrap();
        c.start().ok();
        c.wait_output("up");

        // The agent of the exec goes away: the call that waits for it gets ENOSYS.
        let execs = agent(socket.try_clone().unwrap());
        let pid_file = t.path("pid");
        let options = ["--pid-file", pid_file.to_str().unwrap()];
        let mut exec = std::process::Command::new(binary());
        exec.arg("--root").arg(&t.root).arg("exec").args(options);
        exec.args([&c.id, "sh", "-c", "mkdir /tmp/x 2>&1; echo done"]);
        let running = t.spawn(exec, std::process::Stdio::null());
        let (state, listener) = execs.join().unwrap();
        let pid: i64 = std::fs::read_to_string(&pid_file).unwrap().trim().parse().unwrap();
        assert_eq!(
            (&state["pid"], &state["metadata"], &state["state"]["pid"], &state["state"]["status"]),
            (&pid.into(), &"hello".into(), &c.pid().into(), &"running".into())
        );
        let link = std::fs::read_link(format!("/proc/self/fd/{}", listener.as_raw_fd())).unwrap();
        assert_eq!(link.to_str().unwrap(), "anon_inode:seccomp notify");
        drop(listener);
        let out = running.wait().ok();
        assert!(out.stdout.contains("not implemented") && out.stdout.ends_with("done\n"), "{out:?}");
        drop(inits_listener);

        // Without an agent there is no exec, and nothing of it stays.
        drop(socket);
        std::fs::remove_file(&path).unwrap();
        let out = c.exec_with(&options, &["true"]).fails().says(&["agent.sock"]);
        assert!(peer() != Peer::Rustbox || out.code == 255, "{out:?}");
        c.delete_force().ok();
        t.assert_nothing_left();
    }
}

#[test]
fn a_missing_agent_fails_create_and_leaves_nothing() {
    let t = Test::new();
    let profile = json!({"linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": t.path("no-agent.sock"),
        "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]}}});
    let c = t.bundle(spec().patch(profile));
    c.run().denied().says(&["no-agent.sock"]);
    t.assert_nothing_left();
}

#[test]
fn notify_of_the_calls_that_hand_the_listener_over_is_refused() {
    // The runtime could never send the listener: a deadlock, not a container.
    let t = Test::new();
    let path = t.path("agent.sock");
    let _listener = UnixListener::bind(&path).unwrap();
    let profile = json!({"linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": path,
        "syscalls": [{"names": ["write"], "action": "SCMP_ACT_NOTIFY"}]}}});
    not_under!(Crun, "does not look");
    t.bundle(spec().patch(profile)).run().denied().rustbox_says(&["write"]);
    t.assert_nothing_left();
}
