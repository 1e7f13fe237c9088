//! `process` of config.json, and the settings of `linux` that belong to the process: user, capabilities, rlimits,
//! scheduling, sysctl.

mod common;

use common::*;

/// One line of /proc/self/status in the container.
#[track_caller]
fn status_line(spec: Spec, key: &str) -> String {
    let status = output_of(spec.args(&["cat", "/proc/self/status"]));
    let line =
        status.lines().find_map(|line| line.strip_prefix(&format!("{key}:"))).unwrap_or_else(|| panic!("no {key}"));
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn caps(spec: Spec, key: &str) -> u64 {
    u64::from_str_radix(&status_line(spec, key), 16).unwrap()
}

const CHOWN: u64 = 1 << 0;
const KILL: u64 = 1 << 5;
const NET_BIND: u64 = 1 << 10;
const NET_ADMIN: u64 = 1 << 12;

// ---------------------------------------------------------------------------------------------------------------------
// args, env, cwd

#[test]
fn args_reach_the_program_verbatim() {
    let args = ["printf", "%s|", "a b", "", "*", "$HOME", "--flag", "-n", "ünï", "tab\there", "line\nfeed"];
    assert_eq!(output_of(spec().args(&args)), "a b||*|$HOME|--flag|-n|ünï|tab\there|line\nfeed|");
}

#[test]
fn args_0_is_looked_up_in_the_path_of_the_environment() {
    let t = Test::new();
    let c = t.bundle(spec().args(&["hello"]).set("/process/env", json!(["PATH=/nowhere:/opt:/bin"])));
    executable(&c.file("opt/hello", ""), "#!/bin/sh\necho from opt: $0\n");
    assert_eq!(c.run().ok().line(), "from opt: /opt/hello");
}

#[test]
fn an_absolute_program_needs_no_path() {
    assert_eq!(output_of(spec().args(&["/bin/echo", "x"]).set("/process/env", json!([]))), "x");
    assert_eq!(output_of(spec().args(&["/bin/echo", "y"]).unset("/process/env")), "y");
}

#[test]
fn a_program_relative_to_the_cwd_is_found_there() {
    let t = Test::new();
    let c = t.bundle(spec().args(&["./hello"]).set("/process/cwd", json!("/opt")));
    executable(&c.file("opt/hello", ""), "#!/bin/sh\npwd\n");
    assert_eq!(c.run().ok().line(), "/opt");
}

#[test]
fn env_is_exactly_what_the_configuration_says() {
    let spec = spec().args(&["env"]).set("/process/env", json!(["PATH=/bin", "A=b=c", "EMPTY=", "SPACE=x y"]));
    let env = output_of(spec);
    let mut lines: Vec<&str> = env.lines().filter(|line| !line.starts_with("RUSTBOX_TEST=")).collect();
    lines.sort_unstable();
    // Runtimes may add HOME.
    lines.retain(|line| !line.starts_with("HOME="));
    assert_eq!(lines, ["A=b=c", "EMPTY=", "PATH=/bin", "SPACE=x y"]);
}

#[test]
fn home_is_taken_from_the_passwd_file_of_the_rootfs_unless_given() {
    assert_eq!(output_of(sh("echo $HOME")), "/root");
    assert_eq!(output_of(sh("echo $HOME").patch(json!({"process": {"user": {"uid": 1000, "gid": 1000}}}))), "/tmp");
    assert_eq!(output_of(sh("echo $HOME").env("HOME=/given")), "/given");
}

#[test]
fn a_large_argument_list_and_environment_arrive_whole() {
    let big = "x".repeat(100_000);
    assert_eq!(
        output_of(spec().args(&["sh", "-c", "echo ${#0} ${#BIG}", &big]).env(&format!("BIG={big}"))),
        "100000 100000"
    );
}

#[test]
fn cwd_is_where_the_program_starts() {
    assert_eq!(output_of(spec().args(&["pwd"]).set("/process/cwd", json!("/etc"))), "/etc");
}

#[test]
fn a_cwd_that_only_the_user_can_enter_works() {
    let t = Test::new();
    let c = t.bundle(
        spec().args(&["pwd"]).patch(json!({"process": {"cwd": "/private", "user": {"uid": 1000, "gid": 1000}}})),
    );
    let dir = c.rootfs().join("private");
    std::fs::create_dir(&dir).unwrap();
    std::os::unix::fs::chown(&dir, Some(1000), Some(1000)).unwrap();
    std::fs::set_permissions(&dir, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    assert_eq!(c.run().ok().line(), "/private");
}

#[test]
fn stdin_is_empty_and_stdio_are_the_callers() {
    assert_eq!(output_of(sh("cat; echo done")), "done");
}

#[test]
fn the_program_is_pid_1_and_leads_its_own_session() {
    assert_eq!(
        output_of(sh("echo $$; cut -d' ' -f1,5,6 /proc/self/stat >/dev/null; awk '{print $1, $5, $6}' /proc/1/stat")),
        "1\n1 1 1"
    );
}

#[test]
fn signals_are_neither_blocked_nor_ignored() {
    let t = Test::new();
    let c = t.bundle(spec().args(&["grep", "-E", "^Sig(Blk|Ign):", "/proc/self/status"]));
    // What the caller ignores: a background job of a shell SIGINT, a Python program SIGXFSZ.
    let run = t.shell(
        "trap '' INT QUIT XFSZ USR1 RTMIN; exec \"$@\"",
        &["run", "--bundle", c.bundle.to_str().unwrap(), &c.id],
    );
    assert_eq!(run.ok().line(), "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000");
    t.assert_nothing_left();
}

// ---------------------------------------------------------------------------------------------------------------------
// user

#[test]
fn uid_and_gid_are_set_in_all_four_flavours() {
    let user = || spec().patch(json!({"process": {"user": {"uid": 1234, "gid": 5678}}}));
    assert_eq!(status_line(user(), "Uid"), "1234 1234 1234 1234");
    assert_eq!(status_line(user(), "Gid"), "5678 5678 5678 5678");
}

#[test]
fn additional_gids_are_exactly_those_of_the_configuration() {
    let user = |gids: serde_json::Value| {
        spec().patch(json!({"process": {"user": {"uid": 1, "gid": 1, "additionalGids": gids}}}))
    };
    assert_eq!(status_line(user(json!([10, 20, 30])), "Groups"), "10 20 30");
    assert_eq!(status_line(user(json!([])), "Groups"), "");
    assert_eq!(status_line(user(json!(null)), "Groups"), "");
}

#[test]
fn supplementary_groups_of_the_caller_are_dropped() {
    let t = Test::new();
    let c = t.bundle(spec().args(&["grep", "Groups", "/proc/self/status"]));
    let out = t.shell("exec setpriv --groups 7,8,9 -- \"$@\"", &["run", "--bundle", c.bundle.to_str().unwrap(), &c.id]);
    let out = out.ok();
    assert_eq!(out.line().split_whitespace().collect::<Vec<_>>(), ["Groups:"], "{out:?}");
}

#[test]
fn umask_of_the_configuration_is_set() {
    let umask = |umask: u32| sh("umask").patch(json!({"process": {"user": {"umask": umask}}}));
    assert_eq!(output_of(umask(0o027)), "0027");
    assert_eq!(output_of(umask(0)), "0000");
    assert_eq!(output_of(umask(0o777)), "0777");
}

#[test]
fn the_default_umask_is_022_whatever_the_caller_has() {
    let t = Test::new();
    let c = t.bundle(sh("umask"));
    let out = t.shell("umask 077; exec \"$@\"", &["run", "--bundle", c.bundle.to_str().unwrap(), &c.id]).ok();
    not_under!(Runc, "lets the caller's through");
    assert_eq!(out.line(), "0022");
}

#[test]
fn a_strict_umask_of_the_caller_does_not_harm_the_rootfs() {
    let t = Test::new();
    let c = t.bundle(spec().args(&["ls", "-ld", "/dev/shm", "/new"]).tmpfs("/new", &["mode=0711"]).writable());
    let out = t.shell("umask 077; exec \"$@\"", &["run", "--bundle", c.bundle.to_str().unwrap(), &c.id]).ok();
    assert!(out.stdout.contains("drwxrwxrwt") && out.stdout.contains("drwx--x--x"), "{out:?}");
}

// ---------------------------------------------------------------------------------------------------------------------
// capabilities

#[test]
fn each_capability_set_is_exactly_that_of_the_configuration() {
    let sets = || {
        spec()
            .set(
                "/process/capabilities",
                json!({
                    "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_ADMIN", "CAP_NET_BIND_SERVICE"],
                    "permitted": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_BIND_SERVICE"],
                    "inheritable": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_BIND_SERVICE"],
                    "effective": ["CAP_KILL", "CAP_NET_BIND_SERVICE"],
                    "ambient": ["CAP_NET_BIND_SERVICE"]
                }),
            )
            .patch(json!({"process": {"user": {"uid": 1000, "gid": 1000}}}))
    };
    assert_eq!(caps(sets(), "CapBnd"), CHOWN | KILL | NET_ADMIN | NET_BIND);
    assert_eq!(caps(sets(), "CapInh"), CHOWN | KILL | NET_BIND);
    assert_eq!(caps(sets(), "CapAmb"), NET_BIND);
    // A file without capabilities run by an ordinary user: permitted and effective become the ambient set.
    assert_eq!(caps(sets(), "CapPrm"), NET_BIND);
    assert_eq!(caps(sets(), "CapEff"), NET_BIND);
}

#[test]
fn root_gets_no_more_than_the_bounding_set() {
    assert_eq!(caps(spec().caps(&["CAP_KILL", "CAP_CHOWN"]), "CapEff"), KILL | CHOWN);
    assert_eq!(caps(spec().caps(&["CAP_KILL", "CAP_CHOWN"]), "CapBnd"), KILL | CHOWN);
}

#[test]
fn missing_or_empty_capabilities_mean_none() {
    for spec in
        [spec().unset("/process/capabilities"), spec().set("/process/capabilities", json!({})), spec().caps(&[])]
    {
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            if peer() == Peer::Runc && spec.0["process"]["capabilities"].is_null() {
                continue; // keeps all
            }
            assert_eq!(caps(spec.clone(), set), 0, "{set}");
        }
    }
}

#[test]
fn an_ordinary_user_without_ambient_capabilities_has_none() {
    let user = || spec().patch(json!({"process": {"user": {"uid": 1000, "gid": 1000}}}));
    assert_eq!(caps(user(), "CapEff"), 0);
    assert_eq!(caps(user(), "CapPrm"), 0);
}

#[test]
fn capabilities_are_really_gone() {
    assert_eq!(
        output_of(sh("chown 1000 /tmp/x 2>/dev/null || echo denied").tmpfs("/tmp", &[]).args(&[
            "sh",
            "-c",
            "touch /tmp/x; chown 1000 /tmp/x 2>/dev/null || echo denied"
        ])),
        "denied"
    );
    let allowed = sh("touch /tmp/x && chown 1000 /tmp/x && stat -c %u /tmp/x").tmpfs("/tmp", &[]).caps(&["CAP_CHOWN"]);
    assert_eq!(output_of(allowed), "1000");
}

#[test]
fn a_capability_that_the_kernel_does_not_know_is_no_error() {
    // runtime-spec, process: "Runtimes SHOULD NOT fail if the container configuration requests capabilities that cannot
    // be granted". CAP_SYS_RESOURCE is unknown to nobody but may be out of the caller's bounding set.
    assert_eq!(caps(spec().caps(&["CAP_KILL", "CAP_NONSENSE"]), "CapBnd"), KILL);
}

#[test]
fn no_new_privileges_is_set_and_unset() {
    assert_eq!(status_line(spec(), "NoNewPrivs"), "1");
    assert_eq!(status_line(spec().set("/process/noNewPrivileges", json!(false)), "NoNewPrivs"), "0");
    assert_eq!(status_line(spec().unset("/process/noNewPrivileges"), "NoNewPrivs"), "0");
}

// ---------------------------------------------------------------------------------------------------------------------
// rlimits, oom score, scheduling

#[test]
fn rlimits_are_set_soft_and_hard() {
    let limits = json!([
        {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200},
        {"type": "RLIMIT_CORE", "soft": 0, "hard": 4096},
        {"type": "RLIMIT_FSIZE", "soft": 1048576, "hard": 1048576},
        {"type": "RLIMIT_NPROC", "soft": 1000, "hard": 1001},
        {"type": "RLIMIT_STACK", "soft": 1048576, "hard": 2097152},
        {"type": "RLIMIT_CPU", "soft": 10, "hard": 20}
    ]);
    let out = output_of(spec().args(&["cat", "/proc/self/limits"]).set("/process/rlimits", limits));
    for (name, soft, hard) in [
        ("Max open files", "100", "200"),
        ("Max core file size", "0", "4096"),
        ("Max file size", "1048576", "1048576"),
        ("Max processes", "1000", "1001"),
        ("Max stack size", "1048576", "2097152"),
        ("Max cpu time", "10", "20"),
    ] {
        let line = out.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{name}: {out}"));
        let values: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(values[..2], [soft, hard], "{name}");
    }
}

#[test]
fn rlimits_that_are_not_named_are_the_callers() {
    let t = Test::new();
    let c = t.bundle(sh("ulimit -Sc; ulimit -Hc"));
    let bundle = c.bundle.to_str().unwrap();
    let out = t.shell("ulimit -Hc 512; ulimit -Sc 256; exec \"$@\"", &["run", "--bundle", bundle, &c.id]).ok();
    assert_eq!(out.stdout, "256\n512\n");
}

#[test]
fn oom_score_adj_is_set_before_the_program_runs() {
    assert_eq!(output_of(sh("cat /proc/self/oom_score_adj").patch(json!({"process": {"oomScoreAdj": 321}}))), "321");
}

#[test]
fn oom_score_adj_of_the_caller_stays_when_none_is_asked_for() {
    let t = Test::new();
    let c = t.bundle(sh("cat /proc/self/oom_score_adj"));
    let out = t
        .shell(
            "echo 77 > /proc/self/oom_score_adj; exec \"$@\"",
            &["run", "--bundle", c.bundle.to_str().unwrap(), &c.id],
        )
        .ok();
    assert_eq!(out.line(), "77");
}

#[test]
fn scheduler_policy_and_nice_are_set() {
    rustbox_only!();
    let batch = sh("awk '{print $41, $19}' /proc/1/stat")
        .patch(json!({"process": {"scheduler": {"policy": "SCHED_BATCH", "nice": 7}}}));
    let out = output_of(batch);
    assert_eq!(out, format!("{} 7", libc::SCHED_BATCH));
    let idle = output_of(
        sh("awk '{print $41}' /proc/1/stat").patch(json!({"process": {"scheduler": {"policy": "SCHED_IDLE"}}})),
    );
    assert_eq!(idle, libc::SCHED_IDLE.to_string());
}

#[test]
fn scheduler_real_time_priority_is_set() {
    rustbox_only!();
    let fifo = json!({"process": {"scheduler": {"policy": "SCHED_FIFO", "priority": 3, "flags": ["SCHED_FLAG_RESET_ON_FORK"]}}});
    // With real-time group scheduling a cgroup has no real-time runtime unless it is given some.
    let runtime = json!({"linux": {"resources": {"cpu": {"realtimeRuntime": 10000, "realtimePeriod": 1_000_000}}}});
    let grouped = std::path::Path::new("/sys/fs/cgroup/cpu/cpu.rt_runtime_us").exists();
    let spec = sh("awk '{print $41, $40}' /proc/1/stat").patch(fifo);
    let out = output_of(if grouped { spec.patch(runtime) } else { spec });
    assert_eq!(out, format!("{} 3", libc::SCHED_FIFO));
}

#[test]
fn io_priority_is_set() {
    rustbox_only!();
    let class = |class: &str, priority: u32| {
        output_of(sh("ionice -p $$").patch(json!({"process": {"ioPriority": {"class": class, "priority": priority}}})))
    };
    assert_eq!(class("IOPRIO_CLASS_BE", 6), "best-effort: prio 6");
    assert!(class("IOPRIO_CLASS_IDLE", 0).starts_with("idle"));
}

#[test]
fn cpu_affinity_of_exec_and_initial_process_is_the_callers() {
    // CPUs come from the cpuset; the runtime itself must not narrow them.
    let t = Test::new();
    let c = t.bundle(sh("grep Cpus_allowed_list /proc/self/status"));
    let out = t.shell("exec taskset -c 0 \"$@\"", &["run", "--bundle", c.bundle.to_str().unwrap(), &c.id]).ok();
    assert!(out.line().ends_with("\t0") || out.line().ends_with("-1"), "{out:?}");
}

#[test]
fn personality_is_set() {
    not_under!(Runc, "has no such setting yet");
    let out = output_of(spec().args(&["uname", "-m"]).patch(json!({"linux": {"personality": {"domain": "LINUX32"}}})));
    assert_eq!(out, "i686");
    let out = output_of(spec().args(&["uname", "-m"]).patch(json!({"linux": {"personality": {"domain": "LINUX"}}})));
    assert_eq!(out, "x86_64");
}

// ---------------------------------------------------------------------------------------------------------------------
// hostname, domainname, sysctl

#[test]
fn hostname_is_set_in_the_container_only() {
    let before = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(output_of(spec().args(&["hostname"]).set("/hostname", json!("a-name.example"))), "a-name.example");
    assert_eq!(std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap(), before);
}

#[test]
fn domainname_is_set() {
    not_under!(Runc, "has no such setting yet");
    assert_eq!(
        output_of(sh("cat /proc/sys/kernel/domainname").patch(json!({"domainname": "example.org"}))),
        "example.org"
    );
}

#[test]
fn sysctls_are_set_in_the_containers_namespaces() {
    let sysctl = json!({"linux": {"sysctl": {
        "net.ipv4.ip_forward": "1",
        "net.ipv4.ping_group_range": "0 1000",
        "kernel.msgmax": "9999",
        "kernel.shm_rmid_forced": "1",
        "fs.mqueue.msg_max": "17"
    }}});
    let script = "cd /proc/sys; cat net/ipv4/ip_forward net/ipv4/ping_group_range kernel/msgmax kernel/shm_rmid_forced fs/mqueue/msg_max";
    assert_eq!(output_of(sh(script).patch(sysctl)), "1\n0\t1000\n9999\n1\n17");
}

#[test]
fn sysctls_may_be_written_with_slashes() {
    let sysctl = json!({"linux": {"sysctl": {"net/ipv4/ip_forward": "1"}}});
    not_under!(Crun, "takes dots only");
    assert_eq!(output_of(sh("cat /proc/sys/net/ipv4/ip_forward").patch(sysctl)), "1");
}

#[test]
fn loopback_is_up_in_a_new_network_namespace() {
    let out = output_of(sh("ip addr show lo"));
    assert!(out.contains("UP") && out.contains("127.0.0.1/8"), "{out}");
}

#[test]
fn a_new_session_keyring_keeps_the_callers_keys_away() {
    let t = Test::new();
    let c = t.bundle(sh("cat /proc/keys").patch(json!({"linux": {"maskedPaths": []}})));
    let keys = c.run().ok().stdout;
    not_under!(Crun, "names it otherwise");
    assert!(keys.contains(&format!("_ses.{}", c.id)), "{keys}");
    // A container of another id: the kernel collects the first one's keyring only some time after its end.
    let c = t.bundle(sh("cat /proc/keys").patch(json!({"linux": {"maskedPaths": []}})));
    let keys = c.run_with(&["--no-new-keyring"]).ok().stdout;
    assert!(!keys.contains(&format!("_ses.{}", c.id)), "{keys}");
}

#[test]
fn the_callers_groups_stay_where_an_annotation_asks_for_it() {
    not_under!(Runc, "knows no such annotation");
    let t = Test::new();
    let groups = |spec: Spec| {
        let c = t.bundle(spec.args(&["grep", "Groups", "/proc/self/status"]));
        let bundle = c.bundle.to_str().unwrap().to_owned();
        let script = r#"exec setpriv --groups 7,4711 "$@""#;
        let out = t.shell(script, &["run", "--bundle", &bundle, &c.id]).ok();
        out.line().split_whitespace().skip(1).map(str::to_owned).collect::<Vec<_>>()
    };
    let keep = json!({"annotations": {"run.oci.keep_original_groups": "1"}});
    assert_eq!(groups(spec()), [""; 0]);
    assert_eq!(groups(spec().patch(keep.clone())), ["7", "4711"]);

    let c = t.bundle(spec().args(&["sleep", "1000"]).patch(keep));
    c.up();
    let script = r#"exec setpriv --groups 7 "$@""#;
    let out = t.shell(script, &["exec", &c.id, "grep", "Groups", "/proc/self/status"]).ok();
    assert_eq!(out.line().split_whitespace().last(), Some("7"));
}
