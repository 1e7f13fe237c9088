//! Every command, killed with SIGKILL as it, or a process that it has made, enters its n-th call of each kind; then
//! `health --recover`, after which nothing is left and the id is usable again.
//!
//! `RUSTBOX_CRASH_SWEEP=all` tries every point (`make crash-sweep`); without it a sample of them is tried.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::process::{Command, Stdio};

use super::common::*;

/// About as many points of each command are tried where not all are asked for.
const SAMPLE: usize = 30;

/// One command under the sweep.
struct Swept<'t> {
    t: &'t Test,
    /// Brings about what the command works on.
    prepare: Box<dyn Fn() + 't>,
    /// Its arguments.
    args: Vec<String>,
    /// Ends what the command, or its preparation, has rightly left; then nothing may remain.
    end: Box<dyn Fn() + 't>,
}

impl Swept<'_> {
    /// The command under strace, which follows its children and is not its parent.
    fn traced(&self, options: &[String]) -> Out {
        let mut command = Command::new("strace");
        command.args(["-D", "-f", "-qq"]).args(options).arg(binary()).arg("--root").arg(&self.t.root).args(&self.args);
        self.t.spawn(command, Stdio::null()).wait()
    }

    /// The most calls of each kind that one process makes.
    fn calls(&self) -> BTreeMap<String, u32> {
        let log = self.t.path("calls");
        (self.prepare)();
        self.traced(&["-o".to_owned(), log.to_str().unwrap().to_owned()]).ok();
        (self.end)();
        let mut counts: HashMap<(String, String), u32> = HashMap::new();
        let mut most = BTreeMap::new();
        for line in fs::read_to_string(&log).unwrap().lines() {
            let Some((pid, rest)) = line.split_once(' ') else { continue };
            let name = rest.trim_start().split('(').next().unwrap_or_default();
            if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
                continue;
            }
            let count = counts.entry((pid.to_owned(), name.to_owned())).or_default();
            *count += 1;
            let most = most.entry(name.to_owned()).or_default();
            *most = (*count).max(*most);
        }
        most
    }

    fn sweep(&self, name: &str) {
        let calls = self.calls();
        let points: Vec<_> = calls.iter().flat_map(|(call, most)| (1..=*most).map(move |n| (call, n))).collect();
        let all = std::env::var_os("RUSTBOX_CRASH_SWEEP").is_some_and(|value| value == "all");
        let step = if all { 1 } else { points.len().div_ceil(SAMPLE) };
        let mut tried = 0;
        let mut killed = 0;
        for (call, n) in points.iter().step_by(step) {
            (self.prepare)();
            let inject = format!("inject={call}:signal=KILL:when={n}");
            let out = self.traced(&["-o".to_owned(), "/dev/null".to_owned(), "-e".to_owned(), inject]);
            tried += 1;
            killed += u32::from(out.signal == Some(9));
            let at = format!("{name} killed at {call} #{n}: {out:?}");
            let recovered = self.t.runtime(&["health", "--recover", "--json"]);
            assert_eq!(recovered.code, 0, "{at}: {recovered:#?}");
            let verified = self.t.runtime(&["health", "--verify-clean"]);
            assert_eq!(verified.code, 0, "{at}: {verified:#?}");
            (self.end)();
            let left = leftovers::find(&self.t.tag, &self.t.dir, &self.t.root);
            let own = |left: &String| !left.contains("strace");
            until(&format!("{at}: {left:#?} to go"), || {
                !leftovers::find(&self.t.tag, &self.t.dir, &self.t.root).iter().any(own)
            });
        }
        println!("{name}: {tried} of {} points tried, {killed} deaths of the command itself", points.len());
        // Far fewer would mean that nothing was killed.
        assert!(killed * 3 > tried, "{name}: of {tried} only {killed}");
    }
}

fn words(args: &[&str]) -> Vec<String> {
    args.iter().map(|it| (*it).to_owned()).collect()
}

/// Sweeps a command on a container, which is there afterwards in whatever state, or is not.
fn sweep(name: &str, spec: Spec, prepare: impl Fn(&Container<'_>), args: impl Fn(&Container<'_>) -> Vec<String>) {
    let t = Test::new();
    let c = t.bundle(spec);
    let end = || {
        c.delete_force().ok();
        // The id is usable again.
        c.create().ok();
        c.delete_force().ok();
    };
    Swept { t: &t, prepare: Box::new(|| prepare(&c)), args: args(&c), end: Box::new(end) }.sweep(name);
}

fn on_bundle(command: &str, c: &Container<'_>) -> Vec<String> {
    words(&[command, "--bundle", c.bundle.to_str().unwrap(), &c.id])
}

#[test]
fn create() {
    rustbox_only!();
    sweep("create", sh("sleep 600").hook("createRuntime", ":"), |_| {}, |c| on_bundle("create", c));
}

#[test]
fn start() {
    rustbox_only!();
    let created = |c: &Container<'_>| drop(c.create().ok());
    sweep("start", sh("sleep 600").hook("poststart", ":"), created, |c| words(&["start", &c.id]));
}

#[test]
fn run() {
    rustbox_only!();
    sweep("run", sh("true").hook("poststop", ":"), |_| {}, |c| on_bundle("run", c));
}

#[test]
fn exec() {
    rustbox_only!();
    sweep(
        "exec",
        sh("sleep 600"),
        |c| {
            c.up();
        },
        |c| words(&["exec", &c.id, "true"]),
    );
}

#[test]
fn delete() {
    rustbox_only!();
    let stopped = |c: &Container<'_>| {
        c.up();
        c.kill("KILL").ok();
        c.wait_status("stopped");
    };
    sweep("delete", sh("sleep 600").hook("poststop", ":"), stopped, |c| words(&["delete", &c.id]));
}

#[test]
fn judged_run() {
    rustbox_only!();
    let t = Test::new();
    let id = format!("rbt-{}-judge", t.tag);
    let args = words(&["run", "--code", "true", &id]);
    let end = || {
        t.runtime(&["run", "--code", "true", &id]).ok();
        for directory in [".judge", ".ids"] {
            assert_eq!(fs::read_dir(t.root.join(directory)).unwrap().count(), 0, "{directory}");
        }
    };
    Swept { t: &t, prepare: Box::new(|| {}), args, end: Box::new(end) }.sweep("judged run");
}
