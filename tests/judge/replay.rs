//! `verdict --replay`: a stored run judged again by its evidence.

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::common::{Out, Test, binary};
use super::{fresh_id, rustbox_only};

/// What `run --json` prints of a submission.
#[track_caller]
fn stored(test: &Test, language: &str, code: &str) -> Value {
    test.runtime(&["run", "--json", "--language", language, "--code", code, &fresh_id(test)]).json()
}

fn replay(test: &Test, stored: &Value) -> Out {
    let file = test.path("run.json");
    std::fs::write(&file, stored.to_string()).unwrap();
    test.bare(&["verdict", "--replay", file.to_str().unwrap()])
}

#[test]
fn the_evidence_gives_the_stored_verdict_and_a_person_reads_it() {
    rustbox_only!();
    let test = Test::new();
    let out = replay(&test, &stored(&test, "sh", "kill -SEGV $$")).ok();
    assert_eq!(out.line(), "SIG (re_fatal_signal, by the payload)\n    killed by a signal: SIGSEGV");
    assert_eq!(out.stderr, "");
}

#[test]
fn a_stored_run_is_read_from_stdin() {
    rustbox_only!();
    let test = Test::new();
    let file = test.path("run.json");
    std::fs::write(&file, stored(&test, "sh", "exit 3").to_string()).unwrap();
    let mut command = Command::new(binary());
    command.args(["verdict", "--json", "--replay", "-"]);
    let out = test.spawn(command, Stdio::from(std::fs::File::open(&file).unwrap())).wait().ok().json();
    assert_eq!((&out["status"], &out["rule"], &out["stored"]["status"]), (&json!("RE"), &json!(11), &json!("RE")));
}

#[test]
fn evidence_that_gives_another_verdict_is_status_1_and_names_both() {
    rustbox_only!();
    let test = Test::new();
    let mut run = stored(&test, "sh", "exit 3");
    run["evidence"]["cgroup"]["cpu_us"] = json!(3_000_000);
    let both = ["RE (re_nonzero_exit, by the payload)", "TLE (tle_cpu_judge, by the judge)"];
    let out = replay(&test, &run).denied().says(&both);
    assert!(out.stdout.starts_with("TLE"), "{out:?}");
    // An actor alone is a difference, too, and so is the compile step's verdict, which the run's follows from.
    let mut run = stored(&test, "sh", "true");
    run["actor"] = json!("kernel");
    replay(&test, &run).denied().says(&["OK (normal_exit, by the kernel)"]);
    let mut run = stored(&test, "c", "int main(void) { return 0; }");
    run["compile"]["evidence"]["payload"]["wait_status"] = json!({"exited": {"code": 1}});
    replay(&test, &run).denied().says(&["of the compile step is OK", "gives RE", "of the run is OK", "gives CE"]);
}

#[test]
fn what_is_no_stored_run_is_invalid_input() {
    rustbox_only!();
    let test = Test::new();
    let run = stored(&test, "sh", "true");
    replay(&test, &run).ok();
    let mut faults = vec![(json!({}), "$.schema_version: is missing"), (json!(3), "$: is no stored run")];
    let mut fault = |pointer: &str, value: Option<Value>, words| {
        let mut run = run.clone();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        let parent = run.pointer_mut(parent).unwrap().as_object_mut().unwrap();
        match value {
            Some(value) => parent.insert(key.to_owned(), value),
            None => parent.shift_remove(key),
        }
        .expect("it was there");
        faults.push((run, words));
    };
    fault("/schema_version", Some(json!(2)), "$.schema_version: is 2, not 1");
    fault("/status", Some(json!("FINE")), "$.status: unknown variant `FINE`");
    fault("/evidence", None, "$.evidence: ");
    // Evidence that is not there is not evidence that nothing was seen.
    fault("/evidence/seccomp", None, "$.evidence.seccomp: is missing");
    fault("/evidence/cgroup/oom/kills", None, "$.evidence.cgroup.oom.kills: is missing");
    fault("/evidence/cgroup/cpu_us", Some(json!("soon")), "$.evidence.cgroup.cpu_us: invalid type");
    fault("/limits/memory_bytes", Some(json!(-1)), "$.limits.memory_bytes: invalid value");
    fault("/limits/processes", None, "$.limits: missing field `processes`");
    for (document, words) in faults {
        let out = replay(&test, &document).usage().says(&[words]);
        assert_eq!(out.stdout, "", "{words}");
    }
    let mut largest = run;
    largest["limits"]["cpu_time_ms"] = json!(u64::MAX);
    replay(&test, &largest).ok();
}

#[test]
fn what_cannot_be_read_is_named() {
    rustbox_only!();
    let test = Test::new();
    let cut = test.path("cut.json");
    std::fs::write(&cut, "{\"schema_version\": 1,").unwrap();
    let twice = test.path("twice.json");
    std::fs::write(&twice, "{} {}").unwrap();
    for (path, words) in [
        ("/nonexistent/run.json", "No such file or directory"),
        ("/", "Is a directory"),
        ("/dev/zero", "expected value"),
        (cut.to_str().unwrap(), "EOF while parsing"),
        (twice.to_str().unwrap(), "trailing characters"),
    ] {
        test.bare(&["verdict", "--replay", path]).usage().says(&[path, words]);
    }
    test.bare(&["verdict"]).usage().says(&["--replay", "ID"]);
    test.bare(&["verdict", "some-id", "--replay", "/"]).usage();
}
