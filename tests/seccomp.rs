//! Filters on the real kernel: each program below is started under a filter and makes real calls.
//!
//! The test binary starts itself again as the [`launcher`], which attaches the filter and becomes the program.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Instant;

use rustbox::seccomp::judge::{JudgeFilter, Record, supervise};
use rustbox::seccomp::{Filter, cached, compile};
use rustbox::sys::pidfd;
use rustbox::sys::seccomp::Instruction;

const LAUNCH: &str = "RUSTBOX_TEST_LAUNCH";

/// Not a test of its own: does nothing unless it is started by [`launch`].
#[test]
fn launcher() {
    let Ok(launch) = std::env::var(LAUNCH) else { return };
    let launch: serde_json::Value = serde_json::from_str(&launch).expect("launch");
    let argv: Vec<&str> =
        launch["argv"].as_array().expect("argv").iter().map(|arg| arg.as_str().expect("text")).collect();
    let listener = match &launch["profile"] {
        serde_json::Value::Null => Some(JudgeFilter::new().expect("built").load().expect("loaded")),
        profile => compile(&serde_json::from_value(profile.clone()).expect("profile"))
            .expect("compiled")
            .load()
            .expect("loaded"),
    };
    if let Some(listener) = &listener {
        writeln!(std::io::stderr(), "listener {}", listener.as_raw_fd()).expect("told");
        std::io::stdin().read_exact(&mut [0]).expect("taken");
    }
    let error = Command::new(argv[0]).args(&argv[1..]).env_remove(LAUNCH).exec();
    panic!("{}: {error}", argv[0]);
}

struct Outcome {
    status: ExitStatus,
    output: String,
    record: Option<Record>,
}

/// Runs `argv` under `profile`, or under the judge's filters, which kill at the first record as the judge does.
fn launch(profile: Option<serde_json::Value>, argv: &[&str]) -> Outcome {
    let launch = serde_json::json!({ "profile": profile, "argv": argv }).to_string();
    let mut child = Command::new(std::env::current_exe().expect("exe"))
        .args(["--exact", "launcher", "--nocapture", "--test-threads=1"])
        .env(LAUNCH, launch)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    let pidfd = pidfd::open(child.id() as i32).expect("pidfd");
    let mut record = None;
    if profile.is_none() {
        let mut line = String::new();
        let mut stderr = BufReader::new(child.stderr.take().expect("piped"));
        while !line.starts_with("listener ") {
            line.clear();
            assert_ne!(stderr.read_line(&mut line).expect("reads"), 0, "the launcher died");
        }
        let number: i32 = line["listener ".len()..].trim().parse().expect("a number");
        let listener = pidfd::getfd(pidfd.as_fd(), number).expect("listener");
        child.stdin.take().expect("piped").write_all(b"!").expect("told");
        let drain = std::thread::spawn(move || stderr.read_to_end(&mut Vec::new()));
        record = watch(&listener, &pidfd);
        if record.is_some() {
            pidfd::send_signal(pidfd.as_fd(), 9).expect("killed");
        }
        let output = child.wait_with_output().expect("ends");
        drain.join().expect("joined").expect("drained");
        let output_text = String::from_utf8_lossy(&output.stdout).into_owned();
        return Outcome { status: output.status, output: output_text, record };
    }
    let output = child.wait_with_output().expect("ends");
    Outcome { status: output.status, output: String::from_utf8_lossy(&output.stdout).into_owned(), record }
}

fn watch(listener: &OwnedFd, pidfd: &OwnedFd) -> Option<Record> {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    loop {
        let mut fds = [PollFd::new(listener.as_fd(), PollFlags::POLLIN), PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::NONE).expect("poll");
        if fds[0].revents().is_some_and(|events| events.contains(PollFlags::POLLIN))
            && let Some(record) = supervise(listener.as_fd()).expect("received")
        {
            return Some(record);
        }
        if pidfd::wait_end(pidfd.as_fd(), 0).expect("poll") {
            return None;
        }
    }
}

/// Python that makes one raw call and prints what it gave: `-ERRNO` or the value.
fn raw_call(call: &str) -> [String; 3] {
    let script = format!(
        "import ctypes, os\n\
         libc = ctypes.CDLL(None, use_errno=True)\n\
         libc.syscall.restype = ctypes.c_long\n\
         r = libc.syscall(*[ctypes.c_long(v) for v in ({call},)])\n\
         print('result', -ctypes.get_errno() if r == -1 else r, flush=True)"
    );
    ["/usr/bin/python3".into(), "-c".into(), script]
}

fn call(profile: Option<serde_json::Value>, call: &str) -> Outcome {
    let argv = raw_call(call);
    launch(profile, &argv.each_ref().map(String::as_str))
}

fn result(outcome: &Outcome) -> Option<i64> {
    // The test harness leaves its own `test launcher ... ` before it.
    outcome.output.split_once("result ")?.1.lines().next()?.parse().ok()
}

fn rule(action: &str) -> serde_json::Value {
    serde_json::json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": [{"names": ["getpriority"], "action": action}],
    })
}

#[test]
fn each_action_does_what_it_says() {
    const GETPRIORITY: &str = "140, 0, 0";
    // 20 minus the nice value with which the tests run.
    let allowed = result(&call(None, GETPRIORITY)).expect("a priority");
    assert!((1..=40).contains(&allowed), "{allowed}");
    assert_eq!(result(&call(Some(rule("SCMP_ACT_ALLOW")), GETPRIORITY)), Some(allowed));
    assert_eq!(result(&call(Some(rule("SCMP_ACT_LOG")), GETPRIORITY)), Some(allowed));
    assert_eq!(result(&call(Some(rule("SCMP_ACT_ERRNO")), GETPRIORITY)), Some(-1));
    assert_eq!(result(&call(Some(rule("SCMP_ACT_TRACE")), GETPRIORITY)), Some(-38), "no tracer");
    for action in ["SCMP_ACT_KILL", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_TRAP"] {
        let outcome = call(Some(rule(action)), GETPRIORITY);
        assert_eq!(outcome.status.signal(), Some(libc::SIGSYS), "{action}");
    }
}

#[test]
fn docker_clone_rule_refuses_a_user_namespace() {
    // The shape of the rule in the engines' default profiles; libcontainer's masked comparison lets the call through.
    let profile = serde_json::json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [
            {"names": ["clone"], "action": "SCMP_ACT_ERRNO", "args": [
                {"index": 0, "value": 0x1000_0000u64, "valueTwo": 0x1000_0000u64, "op": "SCMP_CMP_MASKED_EQ"}]},
        ],
    });
    assert_eq!(result(&call(Some(profile), "56, 0x10000011, 0, 0, 0, 0")), Some(-1));
    let allowing = serde_json::json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [
            {"names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": [
                {"index": 0, "value": 0x7e02_0000u64, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]},
            {"names": known_names(&["clone", "clone3", "unshare"]), "action": "SCMP_ACT_ALLOW"},
        ],
    });
    assert_eq!(result(&call(Some(allowing.clone()), "56, 0x10000011, 0, 0, 0, 0")), Some(-1));
    let outcome = launch(Some(allowing), &["/bin/sh", "-c", "/bin/true; (echo forked)"]);
    assert!(outcome.output.contains("forked"), "an ordinary clone is allowed: {}", outcome.output);
}

/// Every call that libseccomp knows on this machine, but `without`.
fn known_names(without: &[&str]) -> Vec<String> {
    (0..460)
        .filter_map(|nr| libseccomp::ScmpSyscall::from_raw_syscall(nr).get_name().ok())
        .filter(|name| !without.contains(&name.as_str()))
        .collect()
}

#[test]
fn flags_are_accepted_by_the_kernel() {
    for flag in ["TSYNC", "LOG", "SPEC_ALLOW"] {
        let mut profile = rule("SCMP_ACT_ERRNO");
        profile["flags"] = serde_json::json!([format!("SECCOMP_FILTER_FLAG_{flag}")]);
        assert_eq!(result(&call(Some(profile), "140, 0, 0")), Some(-1), "{flag}");
    }
}

#[test]
fn a_cached_profile_of_an_engines_size_loads_at_once() {
    let profile = serde_json::from_value(serde_json::json!({
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1,
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": [
            {"names": known_names(&["clone", "personality", "socket"]), "action": "SCMP_ACT_ALLOW"},
            {"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}]},
            {"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 40, "op": "SCMP_CMP_NE"}]},
            {"names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": [
                {"index": 0, "value": 2114060288u64, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]},
        ],
    }))
    .expect("profile");
    let dir = tempfile::tempdir().expect("tempdir");
    let start = Instant::now();
    let first = cached(dir.path(), &profile).expect("compiled");
    let compiling = start.elapsed();
    let mut hits: Vec<_> = (0..50)
        .map(|_| {
            let start = Instant::now();
            assert_eq!(cached(dir.path(), &profile).expect("cached").program, first.program);
            start.elapsed()
        })
        .collect();
    hits.sort();
    println!("{} instructions: compiled in {compiling:?}, from the cache in {:?}", first.program.len(), hits[25]);
    assert!(hits[25] * 10 < compiling, "{:?} against {compiling:?}", hits[25]);
}

#[cfg(target_arch = "x86_64")]
#[test]
fn each_hostile_call_leaves_a_record() {
    let calls = [
        ("ptrace", "101, 0, 0, 0, 0"),
        ("process_vm_readv", "310, 1, 0, 0, 0, 0, 0"),
        ("process_vm_writev", "311, 1, 0, 0, 0, 0, 0"),
        ("mount", "165, 0, 0, 0, 0, 0"),
        ("umount2", "166, 0, 0"),
        ("pivot_root", "155, 0, 0"),
        ("chroot", "161, 0"),
        ("setns", "308, -1, 0"),
        ("unshare", "272, 0x10000000"),
        ("clone", "56, 0x10000011, 0, 0, 0, 0"),
        ("open_tree", "428, -1, 0, 0"),
        ("move_mount", "429, -1, 0, -1, 0, 0"),
        ("fsopen", "430, 0, 0"),
        ("mount_setattr", "442, -1, 0, 0, 0, 0"),
        ("open_tree_attr", "467, -1, 0, 0, 0, 0"),
        ("bpf", "321, 0, 0, 0"),
        ("perf_event_open", "298, 0, 0, 0, 0, 0"),
        ("kexec_load", "246, 0, 0, 0, 0"),
        ("init_module", "175, 0, 0, 0"),
        ("finit_module", "313, -1, 0, 0"),
        ("delete_module", "176, 0, 0"),
        ("reboot", "169, 0, 0, 0, 0"),
        ("swapon", "167, 0, 0"),
        ("swapoff", "168, 0"),
        ("keyctl", "250, 99, 0, 0, 0, 0"),
        ("add_key", "248, 0, 0, 0, 0, 0"),
        ("request_key", "249, 0, 0, 0, 0"),
        ("userfaultfd", "323, 0"),
        ("open_by_handle_at", "304, -1, 0, 0"),
        ("iopl", "172, 0"),
        ("ioperm", "173, 0, 0, 0"),
        ("clock_settime", "227, 99, 0"),
        ("settimeofday", "164, 1, 1"),
        ("quotactl", "179, 0, 0, 0, 0"),
        ("acct", "163, 1"),
        ("syslog", "103, 99, 0, 0"),
        ("sethostname", "170, 0, -1"),
        ("personality", "135, 0x0020000"),
        ("fanotify_init", "300, -1, 0"),
        ("pidfd_getfd", "438, -1, 0, 0"),
        ("kcmp", "312, 0, 0, 99, 0, 0"),
        ("socket", "41, 17, 3, 0"),
        ("socket", "41, 0x100000011, 3, 0"),
        ("socket", "41, 40, 1, 0"),
    ];
    for (name, arguments) in calls {
        let outcome = call(None, arguments);
        let record = outcome.record.as_ref().unwrap_or_else(|| panic!("{name} left no record: {}", outcome.output));
        assert_eq!(record.name, name);
        assert_eq!(record.arch, "x86_64");
        assert_ne!(record.pid, 0);
        assert_eq!(outcome.status.signal(), Some(libc::SIGKILL), "{name}");
        assert_eq!(result(&outcome), None, "{name} never returned");
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn each_harmless_probe_gets_an_errno_and_no_record() {
    const EPERM: i64 = -1;
    const ENOSYS: i64 = -38;
    let calls = [
        ("clone3", "435, 0, 0", ENOSYS),
        ("io_uring_setup", "425, 1, 0", ENOSYS),
        ("seccomp", "317, 2, 0, 0", ENOSYS),
        ("name_to_handle_at", "303, -1, 0, 0, 0, 0", ENOSYS),
        ("landlock_create_ruleset", "444, 0, 0, 1", ENOSYS),
        ("a number that nobody has", "999, 0", ENOSYS),
        ("x32 getpid", "0x40000027", ENOSYS),
        ("get_mempolicy", "239, 0, 0, 0, 0, 0", EPERM),
        ("set_mempolicy", "238, 0, 0, 0", EPERM),
        ("mbind", "237, 0, 0, 0, 0, 0, 0", EPERM),
        ("sync", "162", EPERM),
        ("netlink audit", "41, 16, 3, 9", EPERM),
        ("AF_ALG", "41, 38, 5, 0", EPERM),
        ("TIOCSTI", "16, 0, 0x5412, 0", EPERM),
        ("TIOCSTI, upper half set", "16, 0, 0x100005412, 0", EPERM),
        ("PR_SET_SECCOMP", "157, 22, 2, 0, 0, 0", EPERM),
        ("PR_SCHED_CORE", "157, 62, 1, 0, 0, 0", EPERM),
        ("a SCTP socket", "41, 2, 5, 132", EPERM),
        ("a MPTCP socket", "41, 10, 1, 262", EPERM),
        ("a TCP socket", "41, 2, 0x80001, 6", 1),
        ("MAP_HUGETLB", "9, 0, 0x200000, 3, 0x40022, -1, 0", EPERM),
        ("MFD_HUGETLB", "319, 0, 4", EPERM),
        ("SHM_HUGETLB", "29, 0, 0x200000, 0o5600", EPERM),
        ("RLIMIT_CORE by its old name", "160, 4, 0", EPERM),
        ("RLIMIT_CORE", "302, 0, 4, 1, 0", EPERM),
        ("cachestat", "451, 0, 0, 0, 0", ENOSYS),
        ("personality query", "135, 0xffffffff", 0),
        ("unshare without a namespace", "272, 0x400", 0),
        ("getpid", "39 if os.getpid() else 0", 1),
    ];
    for (name, arguments, want) in calls {
        let outcome = call(None, arguments);
        assert_eq!(outcome.record, None, "{name}");
        assert!(outcome.status.success(), "{name}: {:?}", outcome.status);
        let got = result(&outcome).unwrap_or_else(|| panic!("{name}: {}", outcome.output));
        assert!(got == want || (want == 1 && got > 0), "{name}: {got}");
    }
}

#[test]
fn a_raised_sigsys_is_no_record() {
    let outcome = launch(None, &["/usr/bin/python3", "-c", "import os, signal; os.kill(os.getpid(), signal.SIGSYS)"]);
    assert_eq!(outcome.status.signal(), Some(libc::SIGSYS));
    assert_eq!(outcome.record, None);
}

/// A 32-bit call by the old entry point, made by machine code in a page of its own.
#[cfg(target_arch = "x86_64")]
#[test]
fn a_foreign_call_is_refused() {
    // mov eax, 20 (i386 getpid); push rbx; int 0x80; pop rbx; ret
    let script = "import ctypes, mmap\n\
        m = mmap.mmap(-1, 4096, prot=7)\n\
        m.write(bytes.fromhex('b81400000053cd805bc3'))\n\
        f = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(m)))\n\
        print('result', f(), flush=True)\n";
    let outcome = launch(None, &["/usr/bin/python3", "-c", script]);
    if outcome.status.signal() == Some(libc::SIGSEGV) {
        // A kernel without 32-bit entry points.
        return;
    }
    assert_eq!(result(&outcome), Some(-38), "{:?}", outcome.status);
    assert_eq!(outcome.record, None);
}

#[test]
fn languages_start_under_the_judges_filters() {
    let java = std::path::Path::new("/usr/bin/java").exists();
    let node = std::path::Path::new("/usr/bin/node").exists();
    let dir = tempfile::tempdir().expect("tempdir");
    let source = dir.path().join("a.c");
    std::fs::write(&source, "#include <stdio.h>\nint main(void) { puts(\"compiled\"); }\n").expect("source");
    let compile = format!("gcc -o {0}/a {0}/a.c && {0}/a", dir.path().display());
    let python = "import subprocess, threading, socket, asyncio, multiprocessing.pool, time\n\
        t = threading.Thread(target=lambda: time.sleep(0)); t.start(); t.join()\n\
        print(subprocess.run(['/bin/echo', 'child'], capture_output=True).stdout.decode(), end='')\n\
        print(sum(multiprocessing.pool.ThreadPool(2).map(int, '123')))\n\
        asyncio.run(asyncio.sleep(0)); socket.socket().close()\n\
        print('python works')";
    let mut programs = vec![
        (vec!["/bin/sh", "-c", "ls / | wc -l >/dev/null; sleep 0; echo shell works"], "shell works"),
        (vec!["/usr/bin/python3", "-c", python], "python works"),
        (vec!["/bin/sh", "-c", &compile], "compiled"),
    ];
    if node {
        let script = "require('fs').readFile('/etc/passwd', () => { require('child_process').execSync('true'); \
                      new (require('worker_threads').Worker)('', {eval: true}).on('exit', () => console.log('node works')) })";
        programs.push((vec!["/usr/bin/node", "-e", script], "node works"));
    }
    if java {
        programs.push((vec!["/bin/sh", "-c", "java -version 2>&1 && echo java works"], "java works"));
    }
    for (argv, want) in programs {
        let outcome = launch(None, &argv);
        assert_eq!(outcome.record, None, "{argv:?}");
        assert!(outcome.output.contains(want), "{argv:?}: {:?} {}", outcome.status, outcome.output);
    }
}

#[test]
fn the_judges_filters_are_built_and_attached_in_no_time() {
    let mut builds: Vec<_> = (0..50)
        .map(|_| {
            let start = Instant::now();
            let filter = JudgeFilter::new().expect("built");
            let built = start.elapsed();
            drop(filter);
            built
        })
        .collect();
    builds.sort();
    // Attached in a thread of its own, which then ends; the floor is what one instruction costs, twice.
    let (floor, attached) = std::thread::spawn(|| {
        let one = Filter { program: vec![Instruction { code: 6, jt: 0, jf: 0, k: 0x7fff_0000 }], ..Filter::default() };
        let filter = JudgeFilter::new().expect("built");
        let start = Instant::now();
        for _ in 0..2 {
            one.load().expect("loaded");
        }
        let floor = start.elapsed();
        let start = Instant::now();
        let listener = filter.load().expect("loaded");
        let attached = start.elapsed();
        drop(listener);
        (floor, attached)
    })
    .join()
    .expect("joined");
    println!("built in {:?}, attached in {attached:?}, two one-instruction filters in {floor:?}", builds[25]);
    assert!(builds[25].as_millis() < 5, "{:?}", builds[25]);
}
