//! The published schemas are those of the types that are printed, and what is printed fits them.

mod common;

use common::json_schema::{assert_fits, published};
use common::*;
use serde_json::Value;

#[test]
fn the_published_schemas_are_the_generated_ones() {
    rustbox_only!();
    let test = Test::new();
    let listed = test.runtime(&["schema"]).ok().stdout;
    let names: Vec<&str> = listed.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert!(names.len() > 10, "{listed}");
    for name in &names {
        let schema = test.runtime(&["schema", name]).ok().json();
        assert_eq!(schema, published(name), "docs/schemas/{name}.schema.json is stale: `make schemas` writes it");
    }
    let places = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/schemas")).unwrap();
    assert_eq!(places.count(), names.len(), "a schema of what is not printed any more");
    test.runtime(&["schema", "nothing"]).usage().says(&["`nothing`", "lists them"]);
}

/// Holds what a command prints against a schema.
#[track_caller]
fn prints(test: &Test, schema: &str, args: &[&str]) -> Value {
    let printed = test.runtime(args).json();
    assert_fits(&published(schema), &printed);
    printed
}

#[test]
fn what_is_printed_of_containers_fits() {
    rustbox_only!();
    let test = Test::new();
    let c = test.bundle(sh("sleep 60").patch(json!({"annotations": {"org.rustbox.limit.time": "1", "a": "b"}})));
    c.up();
    let running = prints(&test, "verdict", &["verdict", "--json", &c.id]);
    assert_eq!(running["running"], true);
    prints(&test, "state", &["state", &c.id]);
    assert_eq!(prints(&test, "list", &["list", "--format", "json"]).as_array().unwrap().len(), 1);
    assert_eq!(prints(&test, "ps", &["ps", "--format", "json", &c.id]).as_array().unwrap().len(), 1);
    let event = prints(&test, "events", &["events", "--stats", &c.id]);
    assert!(event["data"]["memory"].is_object(), "{event:#}");
    prints(&test, "health", &["health", "--json"]);
    prints(&test, "health", &["health", "--check", "--json"]);
    prints(&test, "verify-clean", &["health", "--verify-clean", "--json"]);
    prints(&test, "recover", &["health", "--recover", "--json"]);
    prints(&test, "delete", &["delete", "--force", "--json", &c.id]);
    let ended = prints(&test, "verdict", &["verdict", "--json", &c.id]);
    assert_eq!(ended["status"], "IE");
}

#[test]
fn what_is_printed_of_judged_runs_fits() {
    rustbox_only!();
    let test = Test::new();
    let stored = test.path("evidence.json");
    let stored = stored.to_str().unwrap();
    for args in [
        &["--language", "c", "--code", "int main(void) { return 1; }"][..],
        &["--language", "c", "--code", "int main(void) {"],
        &["--code", "printf '\\377'; kill -9 $$"],
        &["--wall-time", "0.2", "--code", "sleep 5"],
        &["--code", "mount -t tmpfs x /tmp"],
        &["--evidence", stored, "--", "/bin/true"],
    ] {
        prints(&test, "run", &[&["run", "--json"], args].concat());
    }
    assert_fits(&published("run"), &serde_json::from_str(&std::fs::read_to_string(stored).unwrap()).unwrap());
    prints(&test, "replay", &["verdict", "--json", "--replay", stored]);
    prints(&test, "dry-run", &["--dry-run", "run", "--json", "--language", "c", "--code", ""]);
    prints(&test, "languages", &["languages", "--json"]);
    prints(&test, "calibrate", &["calibrate", "--json", "--runs", "2"]);

    let problem = test.path("problem");
    std::fs::create_dir(&problem).unwrap();
    for (name, text) in [("1.in", "1"), ("1.out", "1"), ("2.in", "2"), ("2.out", "3")] {
        std::fs::write(problem.join(name), text).unwrap();
    }
    let problem = problem.to_str().unwrap();
    let whole = prints(&test, "tests", &["run", "--json", "--code", "cat", "--tests", problem]);
    assert_eq!(whole["passed"], 1);
    let lines = test.runtime(&["run", "--json-lines", "--code", "cat", "--tests", problem]).stdout;
    let lines: Vec<Value> = serde_json::Deserializer::from_str(&lines).into_iter().collect::<Result<_, _>>().unwrap();
    assert_eq!(lines.len(), 3);
    lines[..2].iter().for_each(|line| assert_fits(&published("test"), line));

    let jobs = test.path("jobs.jsonl");
    std::fs::write(&jobs, "{\"id\": \"good\", \"code\": \"true\"}\nnot a job\n").unwrap();
    let lines = test.runtime(&["batch", jobs.to_str().unwrap()]).code(1).stdout;
    assert_eq!(lines.lines().count(), 2, "{lines}");
    lines.lines().for_each(|line| assert_fits(&published("batch"), &serde_json::from_str(line).unwrap()));
}
