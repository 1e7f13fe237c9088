//! `run --tests`: many tests of one submission, checkers, interactors; and the cache of compiled programs.

use std::path::Path;

use serde_json::{Value, json};

use super::common::json_schema::{assert_fits, published};
use super::common::{Out, Test, binary, executable, until};
use super::programs::{at_home, missing};
use super::{assert_clean, fresh_id, rustbox_only};

/// Adds two numbers, unless told to do otherwise by the first.
const ADD: &str =
    "read a b\ncase $a in\n-1) exit 3 ;;\n-2) sleep 60 ;;\n-3) echo $((a + b + 1)) ;;\n*) echo $((a + b)) ;;\nesac\n";

fn write(directory: &Path, name: &str, text: &str) {
    let path = directory.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

/// A problem: its tests, as name, input and answer.
fn problem(test: &Test, cases: &[(&str, &str, &str)]) -> String {
    let directory = test.path("tests");
    for (name, input, answer) in cases {
        write(&directory, &format!("{name}.in"), input);
        write(&directory, &format!("{name}.out"), answer);
    }
    directory.to_str().unwrap().to_owned()
}

#[track_caller]
fn run(test: &Test, args: &[&str]) -> Out {
    let id = fresh_id(test);
    let all = [&["run"], args, &[&id]].concat();
    let out = test.runtime(&all);
    assert_clean(test);
    out
}

fn words(result: &Value) -> Vec<String> {
    let tests = result["tests"].as_array().unwrap();
    tests.iter().map(|it| format!("{} {}", it["test"].as_str().unwrap(), it["status"].as_str().unwrap())).collect()
}

/// The whole is as its schema says.
#[track_caller]
fn in_schema(result: &Value) {
    assert_fits(&published("tests"), result);
}

#[test]
fn each_test_each_group_and_all_have_a_result() {
    rustbox_only!();
    let test = Test::new();
    let tests = problem(
        &test,
        &[
            ("1", "1 2", "3\n"),
            ("10", "4 5", "9"),
            ("2", "2 2", "4"),
            ("a/1", "-1 0", "-1"),
            ("a/2", "1 1", "2"),
            ("b/1", "-3 0", "-3"),
        ],
    );
    let args = ["--json", "--code", ADD, "--tests", &tests, "--wall-time", "5"];
    let result = run(&test, &args).code(1).json();
    assert_eq!(words(&result), ["1 OK", "2 OK", "10 OK", "a/1 RE", "a/2 OK", "b/1 WA"]);
    let verdict = ["status", "cause", "decided_by", "checker"].map(|key| result[key].as_str().unwrap());
    assert_eq!(verdict, ["RE", "re_nonzero_exit", "a/1", "tokens"]);
    let counts = ["total", "passed", "skipped"].map(|key| result[key].as_u64().unwrap());
    assert_eq!((counts, &result["score"]), ([6, 4, 0], &json!(4.0)));
    let group = |name: &str| {
        let groups = result["groups"].as_array().unwrap();
        groups.iter().find(|group| group["group"] == name).unwrap().clone()
    };
    assert_eq!((&group("")["all"], &group("")["min"], &group("")["status"]), (&true.into(), &json!(1.0), &"OK".into()));
    assert_eq!(
        (&group("a")["all"], &group("a")["min"], &group("a")["status"]),
        (&false.into(), &json!(0.0), &"RE".into())
    );
    let wrong = &result["tests"][5];
    assert_eq!((&wrong["cause"], &wrong["actor"]), (&"wa_checker".into(), &"judge".into()));
    assert_eq!(wrong["evidence"]["checker"]["message"], "word 1 is `-2`, not `-3`");
    in_schema(&result);
    // Each test can be judged again by its evidence.
    for one in result["tests"].as_array().unwrap() {
        std::fs::write(test.path("one.json"), one.to_string()).unwrap();
        let again = test.bare(&["verdict", "--json", "--replay", test.path("one.json").to_str().unwrap()]).ok().json();
        assert_eq!((&again["status"], &again["same"]), (&one["status"], &true.into()));
    }
    // For a person, a row each.
    let out = run(&test, &args[1..]).code(1);
    assert!(out.stdout.starts_with("TEST  VERDICT"), "{out:#?}");
    assert!(out.stdout.contains("b/1   WA") && out.stdout.contains("word 1 is `-2`, not `-3`"), "{out:#?}");
    assert!(
        out.stdout.ends_with("RE: exited with a non-zero code, in test a/1\n    4 of 6 tests passed\n"),
        "{out:#?}"
    );
    // For a machine that does not want to wait, a line each.
    let out = run(&test, &[&["--json-lines"], &args[1..]].concat()).code(1);
    let lines: Vec<Value> = out.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((lines.len(), &lines[0]["test"], &lines[6]["passed"]), (7, &"1".into(), &4.into()));
}

#[test]
fn a_failure_may_end_all_or_its_group() {
    rustbox_only!();
    let test = Test::new();
    let tests = problem(&test, &[("a/1", "-1 0", "0"), ("a/2", "1 1", "2"), ("b/1", "1 1", "2"), ("b/2", "-3 1", "0")]);
    let run = |option: &str| {
        let args = ["--json", "--code", ADD, "--tests", &tests, option];
        run(&test, &args[..if option.is_empty() { 5 } else { 6 }]).code(1).json()
    };
    assert_eq!(words(&run("")).len(), 4);
    let group = run("--fail-fast=group");
    assert_eq!(words(&group), ["a/1 RE", "b/1 OK", "b/2 WA"]);
    assert_eq!((&group["skipped"], &group["groups"][0]["skipped"]), (&1.into(), &1.into()));
    assert_eq!(words(&run("--fail-fast")), ["a/1 RE"]);
}

#[test]
fn the_built_in_checkers() {
    rustbox_only!();
    let test = Test::new();
    let tests = problem(&test, &[("1", "x", "0.333333 a\n")]);
    for (checker, code, status) in [
        ("tokens", "echo ' 0.333333   a'", "OK"),
        ("tokens", "echo 0.333334 a", "WA"),
        ("exact", "echo 0.333333 a", "OK"),
        ("exact", "echo '0.333333  a'", "PE"),
        ("exact", "echo 0.333333 b", "WA"),
        ("float:1e-5", "echo 0.333334 a", "OK"),
        ("float:1e-7", "echo 0.333334 a", "WA"),
        ("float:1e-5", "echo 0.333333 a a", "WA"),
        ("exact", "echo 0.333333 a; exit 1", "RE"),
    ] {
        let out = run(&test, &["--json", "--code", code, "--tests", &tests, "--checker", checker]);
        assert_eq!(words(&out.json()), [format!("1 {status}")], "{checker}: {code}");
    }
}

/// Rules by what the output says, and checks how it is called.
const CHECKER: &str = "#!/bin/sh
test \"$(cat \"$1\")\" = in -a \"$(cat \"$3\")\" = ans || exit 3
word=$(cat \"$2\")
echo \"said $word\" >&2
case $word in
ok) exit 0 ;; wa) exit 1 ;; pe) exit 2 ;; fail) exit 3 ;; seven) echo 'points 12.5' >&2; exit 7 ;; nothing) echo 'points 0' >&2; exit 7 ;;
crash) kill -SEGV $$ ;; hang) while :; do :; done ;; other) exit 77 ;; escape) touch /box/x 2>/dev/null && exit 0; exit 1 ;; trace) mount -t tmpfs x /tmp ;;
esac
";

#[test]
fn a_checker_of_the_jurys_speaks_by_its_exit_code_and_is_itself_in_a_sandbox() {
    rustbox_only!();
    let test = Test::new();
    let tests = problem(&test, &[("1", "in", "ans")]);
    executable(&test.path("check"), CHECKER);
    let checker = test.path("check").to_str().unwrap().to_owned();
    let judged = |word: &str| {
        let code = format!("echo {word}");
        run(&test, &["--json", "--code", &code, "--tests", &tests, "--checker", &checker])
    };
    for (word, status, cause, score) in [
        ("ok", "OK", "normal_exit", 1.0),
        ("wa", "WA", "wa_checker", 0.0),
        ("pe", "PE", "pe_checker", 0.0),
        ("seven", "OK", "normal_exit", 12.5),
        ("nothing", "WA", "wa_checker", 0.0),
        ("fail", "IE", "ie_checker_failed", 0.0),
        ("crash", "IE", "ie_checker_failed", 0.0),
        ("other", "IE", "ie_checker_failed", 0.0),
        ("escape", "WA", "wa_checker", 0.0),
        ("trace", "IE", "ie_checker_failed", 0.0),
    ] {
        let out = judged(word);
        let result = &out.json()["tests"][0];
        assert_eq!(
            (&result["status"], &result["cause"], &result["score"]),
            (&status.into(), &cause.into(), &score.into()),
            "{word}"
        );
        assert_eq!(
            out.code,
            match status {
                "OK" => 0,
                "IE" => 3,
                _ => 1,
            },
            "{word}"
        );
        if status != "IE" {
            assert!(result["evidence"]["checker"]["message"].as_str().unwrap().starts_with(&format!("said {word}")));
        }
    }
    let crashed = judged("crash").json()["tests"][0].take();
    assert_eq!(crashed["evidence"]["checker"]["message"], "the checker ended with SIG: killed by a signal");
}

#[test]
fn a_checker_that_hangs_is_ended_by_its_own_limits() {
    rustbox_only!();
    let test = Test::new();
    let tests = problem(&test, &[("1", "in", "ans")]);
    executable(&test.path("check"), CHECKER);
    // The jury's limits are the base's: shorter ones for this test.
    let bundles = test.path("bundles");
    let copy = format!(
        "cp -r {}/bundles {1} && sed -i 's/^time = 10/time = 0.2/' {1}/base.toml",
        env!("CARGO_MANIFEST_DIR"),
        bundles.display()
    );
    assert!(std::process::Command::new("sh").args(["-c", &copy]).status().unwrap().success());
    let set = format!("RUSTBOX_BUNDLES={} exec \"$@\"", bundles.display());
    let id = fresh_id(&test);
    let out = test
        .shell(&set, &["run", "--json", "--code", "echo hang", "--tests", &tests, "--checker", "check", &id])
        .code(3);
    let checker = &out.json()["tests"][0]["evidence"]["checker"].take();
    assert_eq!(
        (&checker["ruling"], &checker["message"]),
        (&"failed".into(), &"the checker ended with TLE: CPU time limit exceeded".into())
    );
    assert_clean(&test);
}

#[test]
fn a_checker_may_be_a_source() {
    rustbox_only!();
    let test = Test::new();
    let tests = problem(&test, &[("1", "5", ""), ("2", "6", "")]);
    let checker = "#include <fstream>\nint main(int n, char **v) { std::ifstream i(v[1]), o(v[2]); int a, b; i >> a; return !(o >> b && b > a); }";
    std::fs::write(test.path("check.cpp"), checker).unwrap();
    let result =
        run(&test, &["--json", "--code", "echo 6", "--tests", &tests, "--checker", "check.cpp"]).code(1).json();
    assert_eq!(words(&result), ["1 OK", "2 WA"]);
    std::fs::write(test.path("bad.cpp"), "int main() { return x; }").unwrap();
    let out = run(&test, &["--code", "echo 6", "--tests", &tests, "--checker", "bad.cpp"]).code(2);
    out.says(&["checker `bad.cpp` cannot be compiled", "error:"]);
}

#[test]
fn one_compile_for_all_tests_and_none_where_it_was_compiled_before() {
    rustbox_only!();
    let test = Test::new();
    let cases: Vec<(String, String)> = (0..12).map(|n| (n.to_string(), format!("{n} {n}"))).collect();
    let cases: Vec<(&str, &str, &str)> =
        cases.iter().map(|(name, input)| (name.as_str(), input.as_str(), "")).collect();
    let tests = problem(&test, &cases);
    for (name, input, _) in &cases {
        let n: u32 = input.split(' ').next().unwrap().parse().unwrap();
        write(Path::new(&tests), &format!("{name}.out"), &(2 * n).to_string());
    }
    let code = "#include <stdio.h>\nint main(void) { int a, b; scanf(\"%d %d\", &a, &b); printf(\"%d\\n\", a + b); }";
    let args = ["--json", "--language", "c", "--code", code, "--tests", &tests];
    let first = run(&test, &args).ok().json();
    assert_eq!(
        (&first["passed"], &first["compile"]["status"], &first["compile"]["cached"]),
        (&12.into(), &"OK".into(), &false.into())
    );
    assert!(first["tests"][3].get("compile").is_none());
    let cache = test.path("worker/compiled");
    let entries = || std::fs::read_dir(&cache).map_or(0, |entries| entries.count());
    assert_eq!(entries(), 1);
    let second = run(&test, &args).ok().json();
    assert_eq!((&second["passed"], &second["compile"]["cached"]), (&12.into(), &true.into()));
    assert_eq!(second["compile"]["cpu_time_ms"], first["compile"]["cpu_time_ms"], "as it was then");
    // A single run of it too, and it can be judged again.
    let single = |options: &[&str]| run(&test, &[&args[..5], options].concat()).ok();
    let out = single(&[]);
    assert_eq!(out.json()["compile"]["cached"], true);
    std::fs::write(test.path("one.json"), &out.stdout).unwrap();
    test.bare(&["verdict", "--replay", test.path("one.json").to_str().unwrap()]).ok();
    // Whatever it depends on makes it another one.
    assert_eq!(single(&["--no-cache"]).json()["compile"]["cached"], false);
    assert_eq!(single(&["--env", "A=b"]).json()["compile"]["cached"], false);
    let shared = format!("/data={}", test.dir.display());
    assert_eq!(single(&["--dir", &shared]).json()["compile"]["cached"], false, "what is shared may be included");
    assert_eq!(single(&["--dir", &shared]).json()["compile"]["cached"], false);
    assert_eq!(entries(), 2);
    // A damaged entry is compiled again.
    for entry in std::fs::read_dir(&cache).unwrap() {
        std::fs::write(entry.unwrap().path(), "damaged").unwrap();
    }
    assert_eq!(single(&[]).json()["compile"]["cached"], false);
    assert_eq!(single(&[]).json()["compile"]["cached"], true);
}

#[test]
fn what_does_not_compile_is_ce_for_all_tests_and_not_kept() {
    rustbox_only!();
    let test = Test::new();
    let tests = problem(&test, &[("1", "", ""), ("2", "", "")]);
    let result = run(&test, &["--json", "--language", "c", "--code", "int main(", "--tests", &tests]).code(1).json();
    assert_eq!((&result["status"], &result["total"], &result["skipped"]), (&"CE".into(), &2.into(), &2.into()));
    assert!(result["compile"]["stderr"].as_str().unwrap().contains("error"));
    assert!(std::fs::read_dir(test.path("worker/compiled")).map_or(0, |entries| entries.count()) == 0);
}

/// Thinks of a number, answers guesses; its input file holds the number.
const INTERACTOR: &str = "import signal, sys, time
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
number = int(open(sys.argv[1]).read())
for turn in range(20):
    line = sys.stdin.readline()
    if not line:
        time.sleep(0.3)
        print('unexpected end', file=sys.stderr); sys.exit(2)
    guess = int(line)
    if guess == number:
        print('=', flush=True)
        print(turn + 1, file=open(sys.argv[2], 'w'))
        sys.exit(0)
    print('<' if number < guess else '>', flush=True)
print('too many guesses', file=sys.stderr)
sys.exit(1)
";

/// What a program that fails does first. Like the interactor it takes its time when the other has ended: a process has closed its
/// pipes a moment before its end is known, and on a busy machine that is long enough for the other to end, too.
const LINGER: &str = "import sys, time
complain = sys.excepthook
sys.excepthook = lambda *failure: (time.sleep(0.3), complain(*failure))
";

const GUESSER: &str = "low, high = 1, 1000
while True:
    guess = (low + high) // 2
    print(guess, flush=True)
    answer = input()
    if answer == '=':
        break
    if answer == '<':
        high = guess - 1
    else:
        low = guess + 1
";

#[test]
fn a_program_and_an_interactor_talk_and_the_first_to_break_it_off_is_to_blame() {
    rustbox_only!();
    let test = Test::new();
    let tests = problem(&test, &[("1", "617", "")]);
    std::fs::write(test.path("interactor.py"), INTERACTOR).unwrap();
    let judged = |code: &str, interactor: &str| {
        // On a busy machine a program that spins must have time to use up its own.
        let wall = if code.contains("while True: pass") { "15" } else { "3" };
        let code = format!("{LINGER}{code}");
        let program = ["--json", "--language", "python", "--code", &code, "--time", "0.5", "--wall-time", wall];
        let args = [&program[..], &["--tests", &tests, "--interactor", interactor]].concat();
        let mut result = run(&test, &args).json();
        in_schema(&result);
        result["tests"][0].take()
    };
    for (what, code, status, cause) in [
        ("guesses", GUESSER, "OK", "normal_exit"),
        ("guesses badly", "while True:\n    print(1, flush=True)\n    input()", "WA", "wa_checker"),
        ("ends early", "print(1, flush=True)", "PE", "pe_checker"),
        ("says what is no number", "print('x', flush=True)\ninput()", "WA", "wa_checker"),
        ("crashes", "print(1, flush=True)\ninput()\nraise ValueError", "RE", "re_nonzero_exit"),
        ("says nothing", "input()", "TLE", "tle_idle"),
        ("does not flush", "import sys\nprint(1)\nsys.stdin.readline()", "TLE", "tle_idle"),
        ("closes its output and waits", "import os, time\nos.close(1)\ntime.sleep(60)", "PE", "pe_checker"),
        ("spins", "while True: pass", "TLE", "tle_cpu_judge"),
        ("mounts", "import ctypes\nctypes.CDLL(None).mount(0, 0, 0, 0, 0)", "SV", "sv_seccomp"),
    ] {
        let result = judged(code, "interactor.py");
        let got = (&result["status"], &result["cause"]);
        assert_eq!(got, (&status.into(), &cause.into()), "a program that {what}: {result:#}");
        assert_eq!(result["cleanup"]["proved"], true);
        std::fs::write(test.path("one.json"), result.to_string()).unwrap();
        test.bare(&["verdict", "--replay", test.path("one.json").to_str().unwrap()]).ok();
    }
    for (what, text, status, cause) in [
        ("crashes", "import os\nos.abort()", "IE", "ie_checker_failed"),
        ("cannot go on", "import sys\nsys.exit(3)", "IE", "ie_checker_failed"),
        ("is content at once", "pass", "OK", "normal_exit"),
        ("gives points", "import sys\nprint('points 3', file=sys.stderr)\nsys.exit(7)", "OK", "normal_exit"),
    ] {
        std::fs::write(test.path("other.py"), text).unwrap();
        let program = if status == "OK" { "import sys\nsys.stdin.read()" } else { GUESSER };
        let result = judged(program, "other.py");
        let got = (&result["status"], &result["cause"]);
        assert_eq!(got, (&status.into(), &cause.into()), "an interactor that {what}: {result:#}");
    }
}

#[test]
fn bad_input_is_status_2_and_runs_nothing() {
    rustbox_only!();
    let test = Test::new();
    let tests = problem(&test, &[("1", "", "")]);
    let empty = test.path("empty");
    std::fs::create_dir(&empty).unwrap();
    let unanswered = test.path("unanswered");
    write(&unanswered, "1.in", "");
    nix::unistd::mkfifo(&test.path("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    std::fs::write(test.path("plain"), "no program").unwrap();
    let (empty, unanswered) = (empty.to_str().unwrap(), unanswered.to_str().unwrap());
    for (args, words) in [
        (&["--code", "true", "--tests", "/nowhere"][..], &["/nowhere"][..]),
        (&["--code", "true", "--tests", empty], &["empty", "no tests"]),
        (&["--code", "true", "--tests", unanswered], &["`1`", "no answer"]),
        (&["--code", "true", "--tests", &tests, "--checker", "/nowhere"], &["/nowhere"]),
        (&["--code", "true", "--tests", &tests, "--checker", "float:x"], &["float:x"]),
        (&["--code", "true", "--tests", &tests, "--checker", "plain"], &["plain", "executable"]),
        (&["--code", "true", "--tests", &tests, "--checker", "fifo"], &["fifo", "regular"]),
        (&["--code", "true", "--tests", &tests, "--checker", "exact", "--interactor", "x"], &["--interactor"]),
        (&["--code", "true", "--tests", &tests, "--stdin", "plain"], &["--stdin"]),
        (&["--code", "true", "--checker", "exact"], &["--checker", "--tests"]),
        (&["--code", "true", "--interactor", "plain"], &["--interactor", "--tests"]),
        (&["--tests", &tests], &["--source"]),
        (&["--code", "true", "--tests", &tests, "--time", "0"], &["--time"]),
    ] {
        run(&test, args).fails().code(2).says(words);
    }
    run(&test, &["--tests", &tests, "--fail-fast=never", "--source", "/nowhere.c"]).code(2);
}

#[test]
fn garbage_and_giants_as_source_get_a_verdict_or_a_word() {
    rustbox_only!();
    let test = Test::new();
    let noise: Vec<u8> = (0..100_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    for name in ["a.c", "a.cpp", "a.py", "a.sh"] {
        std::fs::write(test.path(name), &noise).unwrap();
        let verdict = run(&test, &["--json", "--source", name]).code(1).json();
        let expected: &[&str] = if name.starts_with("a.c") { &["CE"] } else { &["RE", "SIG"] };
        assert!(expected.contains(&verdict["status"].as_str().unwrap()), "{name}: {verdict:#}");
    }
    for (name, language) in
        [("a.rs", "rust"), ("a.go", "go"), ("Main.java", "java"), ("a.js", "javascript"), ("a.ts", "typescript")]
    {
        if let Some(reason) = missing(&test, language) {
            super::common::report_skip(&reason);
            continue;
        }
        std::fs::write(test.path(name), &noise).unwrap();
        let verdict = at_home(&test, &["run", "--json", "--source", name, &fresh_id(&test)]).code(1).json();
        let expected = if language == "javascript" { "RE" } else { "CE" };
        assert_eq!(verdict["status"], expected, "{name}: {verdict:#}");
        assert_clean(&test);
    }
    // 64 MiB, compiled or not, and one byte more.
    let giant = [&b"int main(void) { return 5; }\n//"[..], &vec![b'x'; (64 << 20) - 31]].concat();
    std::fs::write(test.path("big.c"), giant).unwrap();
    let verdict = run(&test, &["--json", "--source", "big.c"]).code(1).json();
    assert_eq!((&verdict["status"], &verdict["exit_code"]), (&"RE".into(), &5.into()), "{:#}", verdict["compile"]);
    let size = 64 << 20;
    std::fs::write(test.path("big.sh"), [&b"exit 5\n"[..], &vec![b'#'; size - 7]].concat()).unwrap();
    assert_eq!(run(&test, &["--json", "--source", "big.sh"]).code(1).json()["exit_code"], 5);
    std::fs::OpenOptions::new().append(true).open(test.path("big.sh")).unwrap().set_len(size as u64 + 1).unwrap();
    run(&test, &["--source", "big.sh"]).code(2).says(&["big.sh", "64 MiB"]);
}

#[test]
fn a_missing_toolchain_is_refused_with_what_to_install() {
    rustbox_only!();
    let test = Test::new();
    let hide = "unshare -m sh -c 'mount --bind /dev/null /usr/bin/gcc && exec \"$@\"' sh \"$@\"";
    let out = test.shell(hide, &["run", "--language", "c", "--code", "int main(void) {}"]).code(4);
    out.says(&["toolchain of language `c` is missing", "gcc", "install gcc, libc6-dev"]);
    assert!(test.shell(hide, &["languages", "c"]).code(1).stdout.contains("MISSING"));
    assert_clean(&test);
}

#[test]
fn a_cancelled_run_of_many_tests_ends_with_the_test_that_runs() {
    rustbox_only!();
    let test = Test::new();
    let tests = problem(&test, &[("1", "1 1", "2"), ("2", "-2 0", ""), ("3", "1 1", "2")]);
    let id = fresh_id(&test);
    let mut command = std::process::Command::new(binary());
    command.arg("--root").arg(&test.root);
    command.args(["run", "--json-lines", "--code", ADD, "--tests", &tests, "--wall-time", "15", &id]);
    let running = test.spawn(command, std::process::Stdio::null());
    running.wait_for("\"test\":\"1\"");
    until("the second sandbox", || test.root.join(&id).join("init").exists());
    running.signal(15);
    let out = running.wait().code(3);
    let lines: Vec<Value> = out.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((lines.len(), &lines[1]["cause"], &lines[2]["skipped"]), (3, &"ie_cancelled".into(), &1.into()));
    assert_clean(&test);
}

#[test]
fn nothing_survives_a_conversation_whose_judge_is_killed() {
    rustbox_only!();
    let test = Test::new();
    let tests = problem(&test, &[("1", "617", "")]);
    std::fs::write(test.path("interactor.py"), INTERACTOR).unwrap();
    let id = fresh_id(&test);
    let mut command = std::process::Command::new(binary());
    command.arg("--root").arg(&test.root).args(["run", "--code", "sleep 15", "--tests", &tests, "--wall-time", "15"]);
    command.args(["--interactor", "interactor.py", &id]);
    let running = test.spawn(command, std::process::Stdio::null());
    until("both sandboxes", || {
        [id.clone(), format!("{id}-interactor")].iter().all(|id| test.root.join(id).join("init").exists())
    });
    running.signal(9);
    let _ = running.wait();
    test.runtime(&["health", "--recover"]).ok();
    assert_clean(&test);
}
