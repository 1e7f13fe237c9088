//! `batch` through the real binary: right verdicts, nothing left, and what happens when it is stopped, killed, or not read.

mod common;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{Out, Test, binary, json, rustbox_only, until};
use serde_json::Value;

/// A batch that may run for longer than other commands.
fn command(test: &Test, args: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.arg("--root").arg(&test.root).arg("batch").args(args);
    command
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("RUSTBOX_TEST", &test.tag)
        .env("RUSTBOX_STATE_DIR", test.path("worker"))
        .current_dir(&test.dir);
    command
}

/// Runs a batch over these lines, to its end.
#[track_caller]
fn batch(test: &Test, args: &[&str], lines: &str) -> Out {
    let jobs = test.path("jobs.jsonl");
    std::fs::write(&jobs, lines).unwrap();
    let out = test.runtime(&[&["batch"], args, &[jobs.to_str().unwrap()]].concat());
    assert_clean(test);
    out
}

/// A batch with pipes of the test's.
fn start(test: &Test, args: &[&str]) -> Child {
    command(test, args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[track_caller]
fn finish(mut child: Child) -> (i32, String) {
    let begun = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if begun.elapsed() > Duration::from_secs(20) {
            child.kill().unwrap();
            panic!("the batch does not end");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    (child.wait().unwrap().code().unwrap_or(-1), stderr)
}

fn signal(child: &Child, signal: nix::sys::signal::Signal) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id() as i32), signal).unwrap();
}

fn results(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

/// No process, cgroup, mount, stage or lease is left, by the test's own look and by rustbox's.
#[track_caller]
fn assert_clean(test: &Test) {
    test.assert_nothing_left();
    for directory in [".judge", ".ids", ".cpus"] {
        let left: Vec<_> = std::fs::read_dir(test.root.join(directory)).into_iter().flatten().flatten().collect();
        assert!(left.is_empty(), "left in {directory}: {left:?}");
    }
    test.runtime(&["health", "--verify-clean"]).ok();
}

/// Jobs of every kind, light ones most often, each with the status and the cause it must come to.
fn mixed(count: usize) -> Vec<(Value, &'static str, &'static str)> {
    let kinds: [(Value, &str, &str); 14] = [
        (json!({"code": "cat; exit 3", "stdin": "x"}), "RE", "re_nonzero_exit"),
        (json!({"argv": ["/bin/true"]}), "OK", "normal_exit"),
        (json!({"code": "kill -SEGV $$"}), "SIG", "re_fatal_signal"),
        (json!({"code": "while :; do :; done", "time": 0.05, "wall_time": 20}), "TLE", "tle_cpu_judge"),
        (json!({"code": "exit 137"}), "RE", "re_nonzero_exit"),
        (json!({"code": "sleep 9", "wall_time": "100ms"}), "TLE", "tle_wall_judge"),
        (json!({"code": "head -c 100000 /dev/zero", "output": "64K"}), "OLE", "ole_output"),
        (json!({"code": "unshare -U true"}), "SV", "sv_seccomp"),
        (json!({"code": "head -c 40m /dev/zero | tail", "memory": "16M", "time": 10}), "MLE", "mle_kernel_oom"),
        (json!({"code": "head -c 100000 /dev/zero >/work/x", "file_size": "64K"}), "FSE", "fse_limit_exceeded"),
        (
            json!({"language": "python", "code": "print(int(input()) + 1)", "stdin": "1", "time": 10}),
            "OK",
            "normal_exit",
        ),
        (json!({"language": "c", "code": "int main(void) { return 1 }"}), "CE", "ce_nonzero_exit"),
        (json!({"language": "c", "code": "int main(void) { return 5; }"}), "RE", "re_nonzero_exit"),
        (json!({"argv": ["/bin/sh", "-c", "sleep 20 & sleep 20 & exit 0"]}), "OK", "normal_exit"),
    ];
    (0..count)
        .map(|n| {
            // Two of three are a line of shell whose output says which job it was.
            let (mut job, status, cause) = match n % 3 {
                0 => kinds[n / 3 % kinds.len()].clone(),
                _ => (json!({"code": format!("echo $(cat) {n}"), "stdin": format!("in{n}")}), "OK", "normal_exit"),
            };
            job["id"] = format!("job-{n}").into();
            (job, status, cause)
        })
        .collect()
}

fn text(jobs: &[(Value, &str, &str)]) -> String {
    jobs.iter().map(|(job, ..)| format!("{job}\n")).collect()
}

/// Every job has the result that was expected, once.
#[track_caller]
fn assert_right(jobs: &[(Value, &str, &str)], results: &[Value]) {
    let mut by_id: BTreeMap<&str, &Value> = BTreeMap::new();
    for result in results {
        assert!(by_id.insert(result["id"].as_str().unwrap(), result).is_none(), "twice: {result}");
    }
    let mut wrong = Vec::new();
    for (n, (job, status, cause)) in jobs.iter().enumerate() {
        let result = by_id.get(job["id"].as_str().unwrap()).copied().unwrap_or(&Value::Null);
        let said = n % 3 == 0 || result["stdout"] == format!("in{n} {n}\n");
        let proved = result["cleanup"]["proved"] == true;
        if result["status"] != *status || result["cause"] != *cause || !said || !proved {
            wrong.push(format!("{job}: wanted {status} {cause}, got {result}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {} are wrong:\n{}", wrong.len(), jobs.len(), wrong.join("\n"));
    assert_eq!(by_id.len(), jobs.len());
}

/// 300 jobs take about 10 s; `make batch-soak` runs 2,000.
#[test]
fn mixed_jobs_have_their_verdicts_and_leave_nothing() {
    rustbox_only!();
    let test = Test::new();
    let count = std::env::var("RUSTBOX_BATCH_JOBS").map_or(300, |text| text.parse().unwrap());
    let jobs = mixed(count);
    std::fs::write(test.path("jobs.jsonl"), text(&jobs)).unwrap();
    let out = command(&test, &["-j", "4", "jobs.jsonl"]).output().unwrap();
    let stderr = String::from_utf8_lossy(&out.stderr);
    assert_right(&jobs, &results(&String::from_utf8_lossy(&out.stdout)));
    assert_eq!(out.status.code(), Some(0), "{stderr}");
    assert!(stderr.contains(&format!("{count} jobs: ")), "{stderr}");
    assert_clean(&test);
}

#[test]
fn a_result_is_what_run_prints_with_the_id_of_the_job() {
    rustbox_only!();
    let test = Test::new();
    let out = batch(&test, &["-j", "1"], "{\"id\":\"Ä b/c\",\"code\":\"echo hi; exit 4\"}\n").code(0);
    let mut result = results(&out.stdout).remove(0);
    assert_eq!((&result["id"], &result["exit_code"]), (&"Ä b/c".into(), &4.into()));
    let mut run = test.runtime(&["run", "--json", "--code", "echo hi; exit 4"]).code(1).json();
    // What differs from run to run.
    for value in [&mut result, &mut run] {
        for key in ["id", "cpu_time_ms", "wall_time_ms", "memory_peak_bytes", "evidence", "cleanup"] {
            assert!(value.as_object_mut().unwrap().remove(key).is_some(), "{key}");
        }
    }
    assert_eq!(result, run);
}

/// What fails before anything runs has an end to be told, as any other, before its number may be another's.
#[test]
fn a_job_that_fails_at_once_loses_no_result() {
    rustbox_only!();
    let test = Test::new();
    let (bad, good) = ("{\"id\":\"bad\",\"time\":0,\"code\":\"true\"}\n", "{\"id\":\"good\",\"code\":\"true\"}\n");
    for (lines, ids) in [
        (bad.to_owned(), &["bad"][..]),
        (bad.to_owned() + good, &["bad", "good"]),
        (good.to_owned() + bad, &["bad", "good"]),
        (bad.to_owned() + bad + good + good + bad, &["bad", "bad", "bad", "good", "good"]),
    ] {
        let out = batch(&test, &["-j", "4"], &lines).code(1);
        let results = results(&out.stdout);
        let mut found: Vec<_> = results.iter().map(|result| result["id"].as_str().unwrap_or_default()).collect();
        found.sort_unstable();
        assert_eq!(found, ids, "{out:?}");
        for result in &results {
            assert_eq!(result["error"].is_object(), result["id"] == "bad", "{result}");
        }
    }
}

#[test]
fn a_broken_line_has_an_error_and_the_others_run() {
    rustbox_only!();
    let test = Test::new();
    let lines = "{\"id\":\"a\",\"code\":\"true\"}\n\n{\"id\":\"b\",\"code\":\n{\"id\":\"c\",\"code\":\"x\",\"tme\":1}\n\
                 {\"id\":\"d\",\"argv\":[\"/no/such/program\"]}\n{\"id\":\"e\",\"source\":\"/nowhere.py\"}\n\
                 {\"id\":\"f\",\"time\":0,\"code\":\"true\"}\n{\"code\":\"true\"}";
    let out = batch(&test, &["-j", "2"], lines).code(1);
    let mut errors: Vec<(u64, Option<String>, String)> = Vec::new();
    let mut judged = Vec::new();
    for result in results(&out.stdout) {
        match result["error"].as_object() {
            Some(error) => {
                assert_eq!(error["kind"], "invalid", "{result}");
                let id = result["id"].as_str().map(str::to_owned);
                errors.push((result["line"].as_u64().unwrap(), id, error["message"].as_str().unwrap().to_owned()));
            }
            None => judged.push(result["id"].as_str().unwrap().to_owned()),
        }
    }
    errors.sort();
    judged.sort();
    assert_eq!(judged, ["8", "a"], "a job without an id is known by its line: {}", out.stdout);
    let said =
        [(3, None, "JSON"), (4, Some("c"), "`tme`"), (5, Some("d"), "/no/such/program"), (6, Some("e"), "/nowhere.py")];
    for (error, (line, id, words)) in errors.iter().zip(said.into_iter().chain([(7, Some("f"), "--time")])) {
        assert_eq!((error.0, error.1.as_deref()), (line, id));
        assert!(error.2.contains(words), "{error:?}");
    }
    assert_eq!(errors.len(), 5);
}

#[test]
fn usage() {
    rustbox_only!();
    let test = Test::new();
    for (args, words) in [
        (&["batch", "-j", "0"][..], "at least 1"),
        (&["batch", "--cpus", "0"], "at least 1"),
        (&["batch", "--exclusive-cores"], "--cpus"),
        (&["batch", "/nowhere.jsonl"], "/nowhere.jsonl"),
        (&["batch", "/tmp"], "is a directory"),
        (&["batch", "--journal", "/dev/null"], "not a regular file"),
        (&["batch", "--journal", "/proc/version"], "/proc/version"),
    ] {
        test.runtime(args).code(2).says(&[words]);
    }
    assert_eq!(batch(&test, &[], "").code(0).stdout, "");
    std::fs::write(test.path("not-a-journal"), "hello\n").unwrap();
    let journal = test.path("not-a-journal");
    test.runtime(&["batch", "--journal", journal.to_str().unwrap()]).code(2).says(&["not of a journal"]);
    assert_eq!(std::fs::read_to_string(journal).unwrap(), "hello\n");
}

/// A grader that asks one at a time and keeps the pipe open.
#[test]
fn a_job_is_answered_while_the_next_is_not_there_yet() {
    rustbox_only!();
    let test = Test::new();
    let mut child = start(&test, &["-j", "4"]);
    let (mut to, from) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut from = BufReader::new(from);
    for n in 0..3 {
        let job = format!("{{\"id\":\"{n}\",\"code\":\"echo {n}\"}}\n");
        // In two pieces: half a line is no line.
        to.write_all(&job.as_bytes()[..9]).unwrap();
        std::thread::sleep(Duration::from_millis(20));
        to.write_all(&job.as_bytes()[9..]).unwrap();
        let mut line = String::new();
        from.read_line(&mut line).unwrap();
        assert_eq!(results(&line)[0]["stdout"], format!("{n}\n"));
    }
    drop(to);
    assert_eq!(finish(child).0, 0);
    assert_clean(&test);
}

/// With one slot that is taken, a batch reads no more than the pipe and its buffer hold.
#[test]
fn input_is_read_only_when_there_is_room() {
    rustbox_only!();
    let test = Test::new();
    let mut child = start(&test, &["-j", "1"]);
    let to = child.stdin.take().unwrap();
    nix::fcntl::fcntl(
        std::os::fd::AsRawFd::as_raw_fd(&to),
        nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK),
    )
    .unwrap();
    let mut to = std::fs::File::from(std::os::fd::OwnedFd::from(to));
    to.write_all(b"{\"code\":\"sleep 20\",\"wall_time\":30}\n").unwrap();
    let line = format!("{{\"code\":\"true\",\"env\":[\"A={}\"]}}\n", "x".repeat(1000));
    let (mut sent, begun) = (0, Instant::now());
    while begun.elapsed() < Duration::from_millis(700) {
        match to.write(line.as_bytes()) {
            Ok(count) => sent += count,
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
    assert!(sent < 1 << 20, "{sent} bytes were read ahead");
    signal(&child, nix::sys::signal::Signal::SIGTERM);
    assert_eq!(finish(child).0, 3);
    assert_clean(&test);
}

#[test]
fn a_signal_ends_what_runs_with_a_verdict_and_a_second_one_changes_nothing() {
    rustbox_only!();
    let test = Test::new();
    let journal = test.path("journal");
    let jobs = "{\"id\":\"quick\",\"code\":\"true\"}\n\
                {\"id\":\"a\",\"code\":\"trap '' TERM INT; sleep 30 & sleep 30\",\"wall_time\":60}\n\
                {\"id\":\"b\",\"code\":\"sleep 30\",\"wall_time\":60}\n{\"id\":\"c\",\"code\":\"true\"}\n";
    std::fs::write(test.path("jobs.jsonl"), jobs).unwrap();
    for second in [false, true] {
        let mut child = start(&test, &["-j", "2", "--journal", "journal", "jobs.jsonl"]);
        until("two sandboxes", || {
            let ids = std::fs::read_dir(test.root.join(".judge")).into_iter().flatten().count();
            ids == 2 && std::fs::read_to_string(&journal).is_ok_and(|text| text.contains("quick"))
        });
        signal(&child, nix::sys::signal::Signal::SIGTERM);
        if second {
            signal(&child, nix::sys::signal::Signal::SIGINT);
            signal(&child, nix::sys::signal::Signal::SIGTERM);
        }
        let mut text = String::new();
        child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        let (code, stderr) = finish(child);
        assert_eq!(code, 3, "{stderr}");
        let mut ends: Vec<String> = results(&text)
            .iter()
            .filter(|result| result["id"] != "quick")
            .map(|result| format!("{} {} {}", result["id"], result["cause"], result["cleanup"]["proved"]))
            .collect();
        ends.sort();
        assert_eq!(ends, ["\"a\" \"ie_cancelled\" true", "\"b\" \"ie_cancelled\" true"]);
        let done = std::fs::read_to_string(&journal).unwrap();
        assert_eq!(done.lines().count(), 1, "what was cancelled is not done: {done}");
        assert_clean(&test);
    }
}

#[test]
fn a_batch_whose_results_nobody_reads_ends_and_leaves_nothing() {
    rustbox_only!();
    let test = Test::new();
    let mut child = start(&test, &["-j", "2"]);
    let mut to = child.stdin.take().unwrap();
    to.write_all(b"{\"id\":\"a\",\"code\":\"sleep 30\",\"wall_time\":60}\n").unwrap();
    until("a sandbox", || std::fs::read_dir(test.root.join(".judge")).into_iter().flatten().count() == 1);
    drop(child.stdout.take());
    let (code, stderr) = finish(child);
    assert_eq!(code, 3, "{stderr}");
    assert!(stderr.contains("nobody reads"), "{stderr}");
    assert_clean(&test);
}

/// A reader that is slow holds up the batch, not its memory: at most a few results wait.
#[test]
fn a_slow_reader_is_waited_for() {
    rustbox_only!();
    let test = Test::new();
    let jobs: String = (0..40).map(|n| format!("{{\"id\":\"{n}\",\"code\":\"head -c 1m /dev/zero\"}}\n")).collect();
    std::fs::write(test.path("jobs.jsonl"), jobs).unwrap();
    let mut child = start(&test, &["-j", "2", "jobs.jsonl"]);
    let status = format!("/proc/{}/status", child.id());
    std::thread::sleep(Duration::from_millis(1500));
    let text = std::fs::read_to_string(status).unwrap();
    let peak: u64 =
        text.lines().find_map(|it| it.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok()).unwrap();
    assert!(peak < 120 << 10, "{peak} KiB for results of 6 MiB each");
    let mut text = String::new();
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(finish(child).0, 0);
    assert_eq!(results(&text).iter().filter(|result| result["status"] == "OK").count(), 40);
    assert_clean(&test);
}

/// kill -9 of the supervisor at moments of all kinds; recovery; the same journal again: every job once.
#[test]
fn a_killed_batch_goes_on_with_its_journal() {
    rustbox_only!();
    let test = Test::new();
    let jobs = mixed(60);
    std::fs::write(test.path("jobs.jsonl"), text(&jobs)).unwrap();
    let journal: PathBuf = test.path("journal");
    let lines = || std::fs::read_to_string(&journal).map_or(0, |text| text.lines().count());
    for stop in [3, 17, 30] {
        let mut child = start(&test, &["-j", "3", "--journal", "journal", "jobs.jsonl"]);
        drop(child.stdout.take().map(|mut out| std::thread::spawn(move || out.read_to_end(&mut Vec::new()))));
        until("jobs in the journal", || lines() >= stop);
        child.kill().unwrap();
        child.wait().unwrap();
        test.runtime(&["health", "--recover"]).ok();
        assert_clean(&test);
    }
    // As a crash of the machine may leave it.
    let whole = std::fs::read(&journal).unwrap();
    std::fs::write(&journal, [&whole[..], b"{\"job\":\"0123"].concat()).unwrap();
    let out = command(&test, &["-j", "3", "--journal", "journal", "jobs.jsonl"]).output().unwrap();
    assert_eq!(out.status.code(), Some(0), "{}", String::from_utf8_lossy(&out.stderr));
    assert!(String::from_utf8_lossy(&out.stderr).contains("done before"));
    let all = results(&std::fs::read_to_string(&journal).unwrap());
    let all: Vec<Value> = all.into_iter().map(|mut entry| entry["result"].take()).collect();
    assert_right(&jobs, &all);
    assert_clean(&test);
    let again = batch(&test, &["--journal", journal.to_str().unwrap()], &text(&jobs)).code(0);
    assert_eq!(again.stdout, "", "everything is done");
    // A job that was changed is another job.
    let changed =
        batch(&test, &["--journal", journal.to_str().unwrap()], "{\"id\":\"job-1\",\"code\":\"echo new\"}").code(0);
    assert_eq!(results(&changed.stdout)[0]["stdout"], "new\n");
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[test]
fn slots_have_cores_of_their_own_which_a_program_cannot_leave() {
    rustbox_only!();
    let test = Test::new();
    let count = cores();
    if count < 2 {
        common::skip!("one core cannot be divided");
    }
    let show = "grep Cpus_allowed_list /proc/self/status; taskset -p -c 0-63 $$ >/dev/null 2>&1; \
                grep Cpus_allowed_list /proc/self/status; sleep 0.2";
    let jobs: String = (0..count * 2).map(|_| format!("{}\n", json!({"code": show}))).collect();
    let all = count.to_string();
    let out = batch(&test, &["-j", &all, "--cpus", "1", "--exclusive-cores"], &jobs).code(0);
    let mut seen = std::collections::BTreeSet::new();
    for result in results(&out.stdout) {
        let said = result["stdout"].as_str().unwrap();
        let lists: Vec<&str> = said.lines().filter_map(|line| line.split_whitespace().nth(1)).collect();
        assert_eq!(lists.len(), 2, "{result}");
        assert_eq!(lists[0], lists[1], "taskset widened it");
        assert!(lists[0].parse::<usize>().is_ok(), "one core: {said}");
        seen.insert(lists[0].to_owned());
    }
    assert_eq!(seen.len(), count, "{seen:?}");
    let more = (count + 1).to_string();
    let refused = batch(&test, &["-j", &more, "--cpus", "1", "--exclusive-cores"], &jobs).code(4);
    assert!(refused.stderr.contains("slots of 1 cores"), "{refused:?}");
    batch(&test, &["-j", &more, "--cpus", "1"], &jobs).code(0);
    batch(&test, &["-j", "1", "--cpus", &more], &jobs).code(4);
}

#[test]
fn two_batches_never_have_the_same_core_and_a_dead_one_has_none() {
    rustbox_only!();
    let test = Test::new();
    let all = cores().to_string();
    let exclusive = ["-j", &all, "--cpus", "1", "--exclusive-cores"];
    let mut first = start(&test, &exclusive);
    first.stdin.as_mut().unwrap().write_all(b"{\"code\":\"sleep 30\",\"wall_time\":60}\n").unwrap();
    until("a sandbox", || std::fs::read_dir(test.root.join(".judge")).into_iter().flatten().count() == 1);
    std::fs::write(test.path("jobs.jsonl"), "{\"code\":\"true\"}\n").unwrap();
    let second = test.runtime(&[&["batch"], &exclusive[..], &["jobs.jsonl"]].concat()).code(4);
    assert!(second.stderr.contains("0 are free"), "{second:?}");
    first.kill().unwrap();
    first.wait().unwrap();
    assert!(
        test.runtime(&["health", "--verify-clean"]).code(1).stdout.contains(".cpus"),
        "a dead batch's cores are left"
    );
    test.runtime(&[&["batch"], &exclusive[..], &["jobs.jsonl"]].concat()).ok();
    test.runtime(&["health", "--recover"]).ok();
    assert_clean(&test);
}

/// What one job leaves in every place that it can write to, the next job of the slot must not find.
#[test]
fn nothing_of_a_job_reaches_the_next_one_of_its_slot() {
    rustbox_only!();
    let test = Test::new();
    let program = r#"
import ctypes, os, socket
libc = ctypes.CDLL(None)
found = []
for place in ("/tmp", "/work", "/dev/shm"):
    found += [place + "/" + name for name in os.listdir(place)]
    open(place + "/left", "w").close()
lo = [line.split() for line in open("/proc/net/dev") if line.strip().startswith("lo:")][0]
if lo[1] != "0":
    found.append("lo counted " + lo[1])
for name, family, address in (("abstract", socket.AF_UNIX, "\0left"), ("tcp", socket.AF_INET, ("127.0.0.1", 4711))):
    probe = socket.socket(family)
    try:
        probe.connect(address)
        found.append(name)
    except OSError:
        pass
    server = socket.socket(family)
    server.bind(address)
    server.listen(1)
    client = socket.socket(family)
    client.connect(address)
    peer, _ = server.accept()
    peer.close()
if len(open("/proc/net/tcp").readlines()) > 5:
    found.append("connections")
if libc.shmget(4711, 4096, 0) != -1:
    found.append("shm")
libc.shmget(4711, 4096, 0o1600)
if libc.msgget(4711, 0) != -1:
    found.append("msg")
libc.msgget(4711, 0o1600)
if len([name for name in os.listdir("/proc") if name.isdigit()]) > 2:
    found.append("processes")
if os.fork() == 0:
    os.setsid()
    libc.pause()
print(found, os.getpid())
"#;
    let job = json!({"language": "python", "code": program, "time": 10});
    let out = batch(&test, &["-j", "1"], &format!("{job}\n{job}\n{job}\n")).code(0);
    let said: Vec<Value> = results(&out.stdout).into_iter().map(|mut result| result["stdout"].take()).collect();
    assert_eq!(said, ["[] 2\n", "[] 2\n", "[] 2\n"], "{}", out.stdout);
}

/// The snippet of docs/judge.md, as it stands there.
#[test]
fn the_pipeline_of_the_documentation_gives_rewards() {
    rustbox_only!();
    let test = Test::new();
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/judge.md")).unwrap();
    let (_, snippet) = text.split_once("```python\n").expect("a snippet");
    let (snippet, _) = snippet.split_once("```").unwrap();
    let program = format!(
        "{snippet}\nprint(rewards(['print(int(input()) * 2)', 'print(4)', 'while True: pass', 'syntax error('], \
         [('2', '4'), ('3', '6')], 2))\n"
    );
    let bin = test.path("bin");
    std::fs::create_dir(&bin).unwrap();
    common::executable(
        &bin.join("rustbox"),
        &format!("#!/bin/sh\nexec {} --root {} \"$@\"\n", binary().display(), test.root.display()),
    );
    let mut python = Command::new("/usr/bin/python3");
    python.args(["-c", &program]);
    python.env_clear().env("RUSTBOX_TEST", &test.tag).env("RUSTBOX_STATE_DIR", test.path("worker"));
    python.env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", bin.display()));
    let out = python.output().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&out.stdout),
        "[1.0, 0.5, 0.0, 0.0]\n",
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    assert_clean(&test);
}
