//! One small program per line: what it does, and the verdict that it must get.

use serde_json::Value;

use super::common::{Out, Test, skip, slowness};

/// Judges a program; its id, and what came of it.
fn run(test: &Test, language: &str, code: &str, options: &[&str]) -> (String, Out) {
    let id = super::fresh_id(test);
    let mut args = vec!["run", "--json", "--language", language, "--code", code];
    args.extend(options);
    args.push(&id);
    let out = test.runtime(&args);
    (id, out)
}

/// On a slow machine a program has more CPU time, unless it is to run out of it.
fn patient(options: &[&str], runs_out: bool) -> Vec<String> {
    let mut options: Vec<String> = options.iter().map(|&option| option.to_owned()).collect();
    let slowness = f64::from(slowness());
    if slowness > 1.0 && !runs_out {
        match options.iter().position(|option| option == "--time") {
            Some(at) => options[at + 1] = (options[at + 1].parse::<f64>().unwrap() * slowness).to_string(),
            None => options.extend(["--time".to_owned(), (2.0 * slowness).to_string()]),
        }
    }
    options
}

/// Judges a program and checks verdict, cause, actor, exit status, proof and leftovers.
#[track_caller]
pub fn judged(test: &Test, language: &str, code: &str, options: &[&str], expected: [&str; 3]) -> Value {
    let options = patient(options, expected == CPU);
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let (id, out) = run(test, language, code, &options);
    let verdict = out.json();
    let got = ["status", "cause", "actor"].map(|key| verdict[key].as_str().unwrap_or("?").to_owned());
    assert_eq!(got, expected, "{language}: {code}\n{options:?}\n{verdict:#}");
    let status = match expected[0] {
        "OK" => 0,
        "IE" => 3,
        _ => 1,
    };
    assert_eq!(out.code, status, "{out:#?}");
    assert_eq!(verdict["cleanup"]["proved"], true, "{verdict:#}");
    super::assert_clean(test);
    // Judging the stored evidence again gives the same answer.
    let stored = test.path("stored.json");
    std::fs::write(&stored, &out.stdout).unwrap();
    let again = test.bare(&["verdict", "--json", "--replay", stored.to_str().unwrap()]).ok().json();
    assert_eq!(["status", "cause", "actor"].map(|key| &again[key]), expected);
    assert_eq!((&again["same"], &again["id"]), (&true.into(), &id.into()));
    verdict
}

pub const OK: [&str; 3] = ["OK", "normal_exit", "payload"];
const RE: [&str; 3] = ["RE", "re_nonzero_exit", "payload"];
const SIG: [&str; 3] = ["SIG", "re_fatal_signal", "payload"];
const SV: [&str; 3] = ["SV", "sv_seccomp", "judge"];
const CPU: [&str; 3] = ["TLE", "tle_cpu_judge", "judge"];
const WALL: [&str; 3] = ["TLE", "tle_wall_judge", "judge"];
const MLE: [&str; 3] = ["MLE", "mle_kernel_oom", "kernel"];
const PLE: [&str; 3] = ["PLE", "ple_cgroup_pids", "kernel"];
const OLE: [&str; 3] = ["OLE", "ole_output", "judge"];
const FSE: [&str; 3] = ["FSE", "fse_limit_exceeded", "kernel"];
const CE: [&str; 3] = ["CE", "ce_nonzero_exit", "payload"];

/// A program with the headers that these tests need.
pub fn c(body: &str) -> String {
    let headers = [
        "errno.h",
        "fcntl.h",
        "pthread.h",
        "sched.h",
        "signal.h",
        "stdio.h",
        "stdlib.h",
        "string.h",
        "sys/mman.h",
        "sys/ptrace.h",
        "sys/resource.h",
        "sys/stat.h",
        "sys/syscall.h",
        "sys/wait.h",
        "time.h",
        "unistd.h",
    ];
    let includes: String = headers.iter().map(|header| format!("#include <{header}>\n")).collect();
    format!("#define _GNU_SOURCE\n{includes}{body}")
}

fn main_of(body: &str) -> String {
    c(&format!("int main(void) {{ {body} }}"))
}

macro_rules! cases {
    ($($name:ident: $language:literal, $code:expr, [$($option:literal),*] => $expected:expr;)*) => {
        $(#[test]
        fn $name() {
            super::rustbox_only!();
            let test = Test::new();
            judged(&test, $language, $code.as_ref(), &[$($option),*], $expected);
        })*
    };
}

cases! {
    // ---- OK
    sh_says_something: "sh", "echo hello", [] => OK;
    python_prints: "python", "print(sum(range(1000)))", [] => OK;
    c_prints: "c", main_of("puts(\"c\"); return 0;"), [] => OK;
    cpp_prints: "cpp", "#include <iostream>\nint main() { std::cout << \"cpp\\n\"; }", [] => OK;
    sleeping_costs_no_cpu: "sh", "sleep 0.4", ["--time", "0.2"] => OK;
    closes_its_stdin: "python", "import os; os.close(0); print('still here')", [] => OK;
    closes_its_output: "sh", "exec >&- 2>&-; sleep 0.2; exit 0", [] => OK;
    ignores_sigterm_and_ends: "sh", "trap '' TERM; sleep 0.1; exit 0", [] => OK;
    threads_within_the_limit: "c", c("void *f(void *x) { return x; } int main(void) { pthread_t t[8];
        for (int i = 0; i < 8; i++) if (pthread_create(t + i, 0, f, 0)) return 1;
        for (int i = 0; i < 8; i++) pthread_join(t[i], 0); return 0; }"), [] => OK;
    children_waited_for: "python", "import os\nfor i in range(8):\n  if os.fork() == 0: os._exit(0)\n  os.wait()", [] => OK;
    memory_below_the_limit: "c", main_of("char *p = malloc(40 << 20); memset(p, 1, 40 << 20); return p[77] - 1;"),
        ["--memory", "64M"] => OK;
    address_space_far_above_the_limit: "c",
        main_of("return mmap(0, 1ul << 40, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0) == MAP_FAILED;"),
        ["--memory", "64M"] => OK;
    exactly_the_output_limit: "sh", "head -c 1000 /dev/zero", ["--output", "1000"] => OK;
    a_full_disk_and_exit_0: "sh", "cat /dev/zero > /work/f 2>/dev/null; trap '' XFSZ; cat /dev/zero > /work/g 2>/dev/null; exit 0",
        ["--file-size", "1M"] => OK;
    the_pids_limit_hit_and_exit_0: "python",
        "import os, signal, time\nkids = []\ntry:\n  while True:\n    p = os.fork()\n    if p == 0: time.sleep(60)\n    kids.append(p)\nexcept BlockingIOError: pass\nfor p in kids: os.kill(p, 9); os.waitpid(p, 0)",
        ["--processes", "10"] => OK;
    harmless_probes_are_refused_and_survived: "c",
        main_of("return !(syscall(SYS_mbind, 0, 0, 0, 0, 0, 0) < 0 && syscall(SYS_io_uring_setup, 1, 0) < 0 && errno == ENOSYS);"), [] => OK;
    the_payload_is_not_process_1: "sh", "test $$ != 1", [] => OK;
    the_payload_has_no_privileges: "sh", "test $(id -u) = 1000 && grep -q 'CapEff:.0000000000000000' /proc/self/status && grep -q 'NoNewPrivs:.1' /proc/self/status", [] => OK;
    no_terminal_and_a_session_of_its_own: "python",
        "import os\nassert os.getsid(0) == os.getpid()\ntry: os.open('/dev/tty', 2)\nexcept OSError: pass\nelse: raise SystemExit(1)", [] => OK;
    devices_work_and_their_nodes_stay_as_they_are: "python",
        include_str!("devices.py"), [] => OK;
    the_host_is_not_to_be_seen: "sh", "test ! -e /etc/shadow -a ! -e /root -a ! -e /home -a \"$(ls /proc | grep -c '^[0-9]')\" -lt 6", [] => OK;
    no_network_but_loopback: "python",
        "import socket\nassert [n for _, n in socket.if_nameindex()] == ['lo']\ns = socket.create_server(('127.0.0.1', 0)); socket.create_connection(s.getsockname())", [] => OK;
    nothing_but_its_own_places_is_writable: "sh",
        "for d in / /box /usr /etc /dev; do touch $d/x 2>/dev/null && exit 1; done; touch /work/x /tmp/x", [] => OK;
    python_makes_processes_and_locks: "python",
        "import multiprocessing as m\nif __name__ == '__main__':\n  with m.Pool(2) as p: assert p.map(abs, [-1, -2]) == [1, 2]", [] => OK;
    its_own_binary_runs_from_tmp: "sh", "cp /bin/true /tmp/t && /tmp/t", [] => OK;

    // ---- CE
    c_that_is_no_c: "c", "int main( {", [] => CE;
    cpp_that_is_no_cpp: "cpp", "int main() { return undeclared; }", [] => CE;
    c_that_does_not_link: "c", "int missing(void); int main(void) { return missing(); }", [] => CE;
    c_with_an_error_directive: "c", "#error no\nint main(void) { return 0; }", [] => CE;
    cpp_that_recurses_in_templates: "cpp", "template<int N> struct S { static const int v = S<N + 1>::v; };\nint main() { return S<0>::v; }", [] => CE;
    c_that_includes_a_file_of_the_host: "c", "#include \"/etc/shadow\"\nint main(void) { return 0; }", [] => CE;
    c_that_floods_the_compiler: "c",
        "#define A _Pragma(\"message \\\"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\\\"\")\n#define B A A A A A A A A A A\n#define C B B B B B B B B B B\n#define D C C C C C C C C C C\n#define E D D D D D D D D D D\nE E\nint main(void) { return 0; }",
        [] => ["CE", "ce_output_limit", "payload"];

    // ---- RE: what it was compiled to
    c_whose_loader_has_no_name: "c", "const char x[5000] __attribute__((section(\".interp\"))) = \"x\"; int main(void) { return 0; }",
        [] => ["RE", "re_not_executable", "payload"];

    // ---- TLE
    c_spins: "c", main_of("for (volatile long i = 0;; i++);"), ["--time", "0.3"] => CPU;
    python_spins: "python", "while True: pass", ["--time", "0.3"] => CPU;
    sh_spins: "sh", "while :; do :; done", ["--time", "0.3"] => CPU;
    children_spin_while_the_parent_waits: "python",
        "import os\nfor i in range(3):\n  if os.fork() == 0:\n    while True: pass\nos.wait()", ["--time", "0.3"] => CPU;
    threads_spin: "c", c("void *f(void *x) { for (volatile long i = 0;; i++); } int main(void) { pthread_t t;
        pthread_create(&t, 0, f, 0); f(0); return 0; }"), ["--time", "0.3"] => CPU;
    many_short_children_add_up: "sh", "while :; do /bin/true; done", ["--time", "0.3"] => CPU;
    sigxcpu_is_ignored: "c", main_of("signal(SIGXCPU, SIG_IGN); for (volatile long i = 0;; i++);"), ["--time", "0.3"] => CPU;
    sleeps_too_long: "sh", "sleep 30", ["--wall-time", "0.3"] => WALL;
    ignores_sigterm_and_sleeps: "sh", "trap '' TERM INT HUP; sleep 30", ["--wall-time", "0.3"] => WALL;
    sleeps_after_closing_its_output: "sh", "exec >&- 2>&-; sleep 30", ["--wall-time", "0.3"] => WALL;
    stops_itself: "sh", "kill -STOP $$", ["--wall-time", "0.3"] => WALL;
    deadlocks: "c", main_of("pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER; pthread_mutex_lock(&m); pthread_mutex_lock(&m); return 0;"),
        ["--wall-time", "0.3"] => WALL;

    // ---- MLE
    c_fills_its_memory: "c", main_of("for (;;) memset(malloc(1 << 20), 1, 1 << 20);"), ["--memory", "32M"] => MLE;
    python_fills_its_memory: "python", "x = b'a' * (200 << 20)", ["--memory", "32M"] => MLE;
    a_child_is_killed_and_the_parent_exits_0: "python",
        "import os\nif os.fork() == 0:\n  x = b'a' * (200 << 20)\nos.wait()", ["--memory", "32M"] => MLE;
    a_child_is_killed_and_the_parent_fails: "python",
        "import os\nif os.fork() == 0:\n  x = b'a' * (200 << 20)\nos.wait()\nraise SystemExit(3)", ["--memory", "32M"] => MLE;
    a_bss_that_no_machine_has: "c", c("volatile char b[1ul << 38]; int main(void) { return b[1]; }"), ["--memory", "32M"]
        => ["MLE", "mle_exec", "kernel"];
    a_bss_that_is_touched: "c", c("volatile char b[200 << 20]; int main(void) { for (long i = 0; i < sizeof b; i += 4096) b[i] = 1; return 0; }"),
        ["--memory", "32M"] => MLE;
    files_in_tmpfs_are_memory: "python", "f = open('/work/f', 'wb')\nfor i in range(100): f.write(b'x' * (1 << 20))",
        ["--memory", "32M", "--file-size", "128M"] => MLE;
    many_children_fill_it_together: "python",
        "import os, time\nfor i in range(10):\n  if os.fork() == 0:\n    x = b'a' * (20 << 20); time.sleep(2); os._exit(0)\nfor i in range(10): os.wait()",
        ["--memory", "64M"] => MLE;

    // ---- RE
    exits_1: "sh", "exit 1", [] => RE;
    exits_137_by_itself: "sh", "exit 137", [] => RE;
    exits_255: "c", main_of("return 255;"), [] => RE;
    python_raises: "python", "raise ValueError('x')", [] => RE;
    a_child_is_killed_by_a_signal: "sh", "sh -c 'kill -9 $$'; exit $?", [] => RE;
    asks_for_more_than_there_is_and_notices: "c", main_of("return malloc(1ul << 46) == 0;"), [] => RE;

    // ---- SIG
    dereferences_null: "c", main_of("return *(volatile int *)0;"), [] => SIG;
    aborts: "c", main_of("abort();"), [] => SIG;
    divides_by_zero: "c", main_of("volatile int x = 0; return 77 / x;"), [] => SIG;
    throws: "cpp", "int main() { throw 1; }", [] => SIG;
    kills_itself: "sh", "kill -KILL $$", [] => SIG;
    terminates_itself: "sh", "kill -TERM $$", [] => SIG;
    an_alarm_rings: "c", main_of("alarm(1); pause(); return 0;"), [] => SIG;
    raises_sigsys_without_a_forbidden_call: "c", main_of("raise(SIGSYS); return 0;"), [] => SIG;
    raises_sigxcpu_without_using_cpu: "c", main_of("raise(SIGXCPU); return 0;"), [] => SIG;
    raises_a_real_time_signal: "c", main_of("raise(SIGRTMIN + 3); return 0;"), [] => SIG;
    overflows_its_stack: "c", c("int f(int n) { volatile char b[4096]; b[n % 4096] = 1; return f(n + 1) + b[0]; } int main(void) { return f(0); }"),
        ["--stack", "1M"] => SIG;

    // ---- PLE, ABUSE
    forks_until_it_fails: "c", main_of("for (;;) { pid_t p = fork(); if (p < 0) return 1; if (p == 0) { pause(); } }"),
        ["--processes", "10"] => PLE;
    a_python_fork_bomb: "python", "import os\nwhile True: os.fork()", ["--processes", "20"] => PLE;
    threads_beyond_the_limit: "c", c("void *f(void *x) { pause(); return x; } int main(void) { pthread_t t;
        for (int i = 0; i < 100; i++) if (pthread_create(&t, 0, f, 0)) return 1; return 0; }"), ["--processes", "10"] => PLE;
    a_fork_bomb_that_sleeps: "c", main_of("for (int i = 0; i < 20; i++) fork(); pause(); return 0;"),
        ["--processes", "10", "--wall-time", "0.5"] => ["PLE", "ple_cgroup_pids", "judge"];

    // ---- OLE
    floods_stdout: "sh", "yes", ["--output", "100K"] => OLE;
    floods_stderr: "sh", "yes >&2", ["--output", "100K"] => OLE;
    one_byte_too_much: "sh", "head -c 1001 /dev/zero", ["--output", "1000"] => OLE;
    a_child_floods: "python", "import os\nif os.fork() == 0:\n  while True: os.write(1, b'x' * 4096)\nos.wait()", ["--output", "100K"] => OLE;

    // ---- FSE
    a_file_too_large: "c", main_of("static char b[65536]; int f = open(\"f\", O_CREAT | O_WRONLY, 0600); for (;;) write(f, b, sizeof b);"),
        ["--file-size", "1M"] => FSE;
    a_file_too_large_with_sigxfsz_ignored: "python", "f = open('f', 'wb', 0)\nwhile True: f.write(b'x' * 65536)", ["--file-size", "1M"] => FSE;
    a_full_work_directory: "python",
        "import itertools\nfor i in itertools.count():\n  with open(str(i), 'wb') as f: f.write(b'x' * 4096)", ["--file-size", "256K"] => FSE;
    no_inodes_left: "python", "import itertools\nfor i in itertools.count(): open(str(i), 'wb').close()", ["--time", "5"] => FSE;

    // ---- SV
    traces: "c", main_of("return ptrace(PTRACE_TRACEME, 0, 0, 0);"), [] => SV;
    traces_after_exec_of_another: "sh", "exec /bin/mount -t tmpfs none /tmp", [] => SV;
    unshares_a_user_namespace: "c", main_of("return unshare(CLONE_NEWUSER);"), [] => SV;
    clones_into_a_namespace: "c", main_of("return syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0) < 0;"), [] => SV;
    loads_a_bpf_program: "c", main_of("return syscall(SYS_bpf, 0, 0, 0);"), [] => SV;
    joins_a_namespace: "c", main_of("return setns(0, 0);"), [] => SV;
    counts_performance_events: "c", main_of("return syscall(SYS_perf_event_open, 0, 0, 0, 0, 0);"), [] => SV;
    reads_keys: "c", main_of("return syscall(SYS_keyctl, 0, 0, 0, 0, 0);"), [] => SV;
    reboots: "c", main_of("return syscall(SYS_reboot, 0xfee1dead, 672274793, 0x1234567, 0);"), [] => SV;
    reads_another_process: "c", main_of("return syscall(SYS_process_vm_readv, 1, 0, 0, 0, 0, 0);"), [] => SV;
    opens_a_packet_socket: "python", "import socket\nsocket.socket(17, 3, 0)", [] => SV;
    a_child_makes_the_forbidden_call: "c", main_of("if (fork() == 0) ptrace(PTRACE_TRACEME, 0, 0, 0); wait(0); return 0;"), [] => SV;
    a_forbidden_call_in_a_thread_while_main_spins: "c", c("void *f(void *x) { ptrace(PTRACE_TRACEME, 0, 0, 0); return x; }
        int main(void) { pthread_t t; pthread_create(&t, 0, f, 0); for (volatile long i = 0;; i++); }"), [] => SV;
}

#[test]
fn a_fork_bomb_that_spins() {
    super::rustbox_only!();
    let test = Test::new();
    let (bomb, options) = (main_of("for (;;) fork();"), ["--processes", "20", "--time", "8"]);
    let evidence = &run(&test, "c", &bomb, &options).1.json()["evidence"];
    // 2,000 refused forks in 5 s are abuse.
    let pace =
        evidence["kill"]["pids_limit_hits"].as_f64().unwrap() / (evidence["kill"]["at_us"].as_f64().unwrap() / 1e6);
    if pace < 400.0 {
        skip!("this processor refuses {pace:.0} forks a second, which is below what is abuse");
    }
    judged(&test, "c", &bomb, &options, ["ABUSE", "abuse_pids_rate", "judge"]);
}

#[test]
fn work_in_the_background_ends_with_the_program() {
    super::rustbox_only!();
    let test = Test::new();
    for (language, code) in [
        ("sh", "(sleep 60; echo late) & exit 0".to_owned()),
        ("sh", "setsid sh -c 'sleep 60' </dev/null >/dev/null 2>&1 & exit 0".to_owned()),
        (
            "c",
            main_of(
                "if (fork() == 0) { setsid(); if (fork() == 0) { signal(SIGTERM, SIG_IGN); sleep(60); } _exit(0); } return 0;",
            ),
        ),
    ] {
        let verdict = judged(&test, language, &code, &[], OK);
        assert!(verdict["wall_time_ms"].as_f64().unwrap() < 2000.0, "{verdict:#}");
    }
}

#[test]
fn extra_time_measures_but_never_pardons() {
    super::rustbox_only!();
    let test = Test::new();
    let spin = "import time\nt = time.process_time()\nwhile time.process_time() - t < 0.5: pass";
    let verdict = judged(&test, "python", spin, &["--time", "0.2", "--extra-time", "5"], CPU);
    assert_eq!(verdict["exit_code"], 0);
    assert!(verdict["evidence"]["kill"].is_null());
    let verdict = judged(&test, "sh", "sleep 0.5", &["--wall-time", "0.2", "--extra-time", "5"], WALL);
    assert_eq!(verdict["exit_code"], 0);
}

#[test]
fn the_raw_end_is_reported_beside_the_verdict() {
    super::rustbox_only!();
    let test = Test::new();
    let verdict = judged(&test, "sh", "exit 137", &[], RE);
    assert_eq!((&verdict["exit_code"], &verdict["signal"]), (&137.into(), &Value::Null));
    let verdict = judged(&test, "sh", "kill -SEGV $$", &[], SIG);
    assert_eq!((&verdict["exit_code"], &verdict["signal"]), (&Value::Null, &11.into()));
}

#[test]
fn the_forbidden_call_is_on_record() {
    super::rustbox_only!();
    let test = Test::new();
    let verdict = judged(&test, "c", &main_of("return syscall(SYS_ptrace, 77, 88, 99, 11);"), &[], SV);
    let call = &verdict["evidence"]["seccomp"];
    assert_eq!((&call["name"], &call["number"]), (&"ptrace".into(), &101.into()), "{verdict:#}");
    assert_eq!(call["args"][0], 77);
    assert!(call["pid"].as_u64().unwrap() > 1);
}

/// The kernel charges the slots of a pipe four pages at a time, and the peak stays up to that much below the limit: a
/// different gap for each limit. However it falls, nobody but the program has used the memory up.
#[test]
fn kernel_memory_charged_in_steps_is_never_the_hosts_fault() {
    super::rustbox_only!();
    let test = Test::new();
    let code = main_of(
        "if (fork() == 0) for (;;) { int p[2]; if (pipe(p)) pause(); fcntl(p[1], F_SETPIPE_SZ, 1 << 20); }
        wait(0); return 0;",
    );
    std::fs::write(test.path("pipes.c"), code).unwrap();
    let gcc = ["-static", "-o", "bin/pipes", "pipes.c"];
    std::fs::create_dir(test.path("bin")).unwrap();
    assert!(std::process::Command::new("gcc").args(gcc).current_dir(&test.dir).status().unwrap().success());
    let share = format!("/pipes={}", test.path("bin").display());
    for kib in (1100..1400).step_by(8) {
        let id = super::fresh_id(&test);
        let memory = format!("{kib}K");
        let args = ["run", "--json", "--memory", &memory, "--dir", &share, &id, "--", "/pipes/pipes"];
        let verdict = test.runtime(&args).code(1).json();
        assert_eq!(verdict["cause"], "mle_kernel_oom", "{memory}: {verdict:#}");
    }
    super::assert_clean(&test);
}

/// Page cache is charged to whoever reads first, and given back when the limit is met: charges were refused, and nobody
/// was killed.
#[test]
fn a_file_larger_than_the_memory_limit_can_be_read() {
    super::rustbox_only!();
    let test = Test::new();
    let file = test.path("large");
    let written = std::process::Command::new("dd")
        .args(["if=/dev/zero", "bs=1M", "count=96", "oflag=direct", "status=none"])
        .arg(format!("of={}", file.display()))
        .status();
    if !written.unwrap().success() {
        super::common::skip!("the test directory's file system cannot write past the page cache");
    }
    let share = format!("/large={}", file.display());
    let options = ["--memory", "32M", "--time", "10", "--dir", &share];
    let verdict = judged(&test, "sh", "wc -c < /large; cat /large > /dev/null", &options, OK);
    assert!(verdict["memory_peak_bytes"].as_u64().unwrap() > 16 << 20, "it was charged: {verdict:#}");
}
