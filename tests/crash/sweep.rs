//! Every command, struck at its n-th call of each kind, or at that of a process that it has made:
//!
//! - killed with SIGKILL as it enters the call; then `health --recover`, after which nothing is left;
//! - the call fails, each with every errno of [`ERRNOS`]; then the command says so or does without, and leaves nothing, or
//!   says what it leaves, and `health --recover` removes that.
//!
//! After each the id is usable again. `RUSTBOX_CRASH_SWEEP=all` tries every point (`make crash-sweep`), the name of a call in
//! its place every point of that call; without it a sample of all is tried.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, Stdio};

use serde_json::Value;

use super::common::*;

/// About as many points of each command are tried where not all are asked for.
const SAMPLE: usize = 30;

/// What a call fails with: memory, descriptors, disk, permission, a signal.
const ERRNOS: [&str; 5] = ["ENOMEM", "EMFILE", "ENOSPC", "EPERM", "EINTR"];

/// Calls that are not made to fail: the kernel never lets them, or not without doing what they are asked for, so that only
/// the injection itself would be tested; and those of a process's start, before its program begins.
const INFALLIBLE: &[&str] = &[
    "exit",
    "exit_group",
    "rt_sigreturn",
    "restart_syscall",
    "close",
    "munmap",
    "brk",
    "getpid",
    "gettid",
    "getppid",
    "getuid",
    "geteuid",
    "getgid",
    "getegid",
    "umask",
    "sched_yield",
    "arch_prctl",
    "set_tid_address",
    "set_robust_list",
    "rseq",
    "mprotect",
    "rt_sigaction",
    "rt_sigprocmask",
    "sigaltstack",
    "clock_gettime",
    "alarm",
    // Since Linux 5.6 it always has something to give.
    "getrandom",
];

/// Whether the kernel may answer so: poll(2) has two reasons to fail, and the start of every Rust program relies on it.
fn answers(call: &str, errno: &str) -> bool {
    match call {
        "poll" => ["ENOMEM", "EINTR"].contains(&errno),
        "flock" => !["EMFILE", "ENOSPC", "EPERM"].contains(&errno),
        call => !INFALLIBLE.contains(&call),
    }
}

/// One command under the sweep.
pub struct Swept<'t> {
    t: &'t Test,
    name: &'static str,
    /// Brings about what the command works on.
    prepare: Box<dyn Fn() + 't>,
    /// Its arguments.
    args: Vec<String>,
    /// Ends what the command, or its preparation, has rightly left; then nothing may remain.
    end: Box<dyn Fn() + 't>,
    /// Its exit status may be the payload's, which says what it likes.
    payloads_status: bool,
    /// Waits until what it leaves to work on is struck, or past that.
    settle: Box<dyn Fn() + 't>,
}

impl Swept<'_> {
    /// The command under strace, which follows its children and is not its parent.
    fn traced(&self, options: &[String]) -> Out {
        let mut command = Command::new("strace");
        command.args(["-D", "-f", "-qq"]).args(options).arg(binary()).arg("--root").arg(&self.t.root).args(&self.args);
        self.t.spawn(command, Stdio::null()).wait()
    }

    fn struck(&self, inject: String) -> Out {
        let out = self.traced(&["-o".to_owned(), "/dev/null".to_owned(), "-e".to_owned(), inject]);
        (self.settle)();
        out
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

    fn points(&self) -> Vec<(String, u32)> {
        let one = asked().filter(|asked| asked != "all");
        let calls = self.calls().into_iter().filter(|(call, _)| one.as_ref().is_none_or(|one| one == call));
        calls.flat_map(|(call, most)| (1..=most).map(move |n| (call.clone(), n))).collect()
    }

    pub fn kill(&self) {
        let points = self.points();
        let mut tried = 0;
        let mut killed = 0;
        for (call, n) in points.iter().step_by(step(points.len())) {
            (self.prepare)();
            let out = self.struck(format!("inject={call}:signal=KILL:when={n}"));
            tried += 1;
            killed += u32::from(out.signal == Some(9));
            let at = format!("{} killed at {call} #{n}: {out:?}", self.name);
            self.recover(&at).unwrap();
            self.afterwards(&at).unwrap();
        }
        println!(
            "{}: {tried} of {} points tried, {killed} deaths of the command itself, 0 failures",
            self.name,
            points.len()
        );
        // Far fewer would mean that nothing was killed. A process that outlives the command makes most of the calls with it.
        let share = if self.name == "judged start" { 20 } else { 3 };
        assert!(killed * share > tried || asked().is_some(), "{}: of {tried} only {killed}", self.name);
    }

    pub fn fail(&self) {
        let calls = self.points();
        let points: Vec<_> = calls.iter().flat_map(|point| ERRNOS.iter().map(move |errno| (point, errno))).collect();
        let points: Vec<_> = points.into_iter().filter(|((call, _), errno)| answers(call, errno)).collect();
        let mut tried = 0;
        let mut refused = 0;
        let mut wrong = Vec::new();
        for ((call, n), errno) in points.iter().step_by(step(points.len())) {
            (self.prepare)();
            tried += 1;
            let at = format!("{} with {errno} at {call} #{n}", self.name);
            // A command that hangs is a finding like any other.
            let done = catch_unwind(AssertUnwindSafe(|| self.struck(format!("inject={call}:error={errno}:when={n}"))));
            let judged = match &done {
                Err(_) => Err("hangs".to_owned()),
                Ok(out) => {
                    refused += u32::from(out.code != 0);
                    // The write that fails may be that of the message.
                    self.judge(out, call == "write")
                }
            };
            let cleaned = self.recover(&at).and_then(|()| {
                catch_unwind(AssertUnwindSafe(|| self.afterwards(&at)))
                    .unwrap_or_else(|panic| Err(panic.downcast_ref::<String>().cloned().unwrap_or_default()))
            });
            if let Err(why) = judged.and(cleaned) {
                println!("{at}: {why}: {done:?}");
                wrong.push(format!("{at}: {why}: {done:?}"));
            }
        }
        println!(
            "{}: {tried} of {} failing calls tried, {refused} made the command fail, {} failures",
            self.name,
            points.len(),
            wrong.len()
        );
        assert!(refused > 0 || asked().is_some(), "{}: nothing has ever failed", self.name);
        assert!(wrong.is_empty(), "{} of {tried}:\n{}", wrong.len(), wrong.join("\n"));
    }

    /// A command whose call has failed: it has done without, or says in words what is wrong; and what it leaves it tells of.
    fn judge(&self, out: &Out, mute: bool) -> Result<(), String> {
        let silent = out.stderr.trim().is_empty() && !mute;
        // Rust's own start needs a stack for signals before it begins; memory for a message is memory, too. Both say so, and
        // abort.
        let aborted = ["alternative stack", "memory allocation"].iter().any(|it| out.stderr.contains(it));
        if out.stderr.contains("panicked") && !aborted {
            return Err("panics".to_owned());
        }
        if out.signal.is_some() && !aborted {
            return Err("dies of a signal".to_owned());
        }
        if out.code != 0 && silent && !self.payloads_status {
            return Err("fails without a word".to_owned());
        }
        let look = self.t.runtime(&["health", "--verify-clean"]);
        if look.code != 0 && silent {
            return Err(format!("leaves something without a word: {look:?}"));
        }
        // What the proof of a cleanup names, and what a failed removal names, is told.
        let told =
            ["proved", "remove", "unmount", "release", "warning", "left"].iter().any(|it| out.stderr.contains(it));
        if look.code != 0 && !told && !aborted && !mute {
            return Err(format!("leaves something and does not say what: {look:?}"));
        }
        Ok(())
    }

    /// Recovers; then nothing is left.
    fn recover(&self, at: &str) -> Result<(), String> {
        // Cleanups that have failed are rightly counted, and are not what is tested here.
        let _ = fs::remove_dir_all(self.t.path("worker"));
        for args in [&["health", "--recover", "--json"][..], &["health", "--verify-clean"]] {
            let out = self.t.runtime(args);
            if out.code != 0 {
                return Err(format!("{at}: {args:?}: {out:#?}"));
            }
        }
        Ok(())
    }

    fn afterwards(&self, at: &str) -> Result<(), String> {
        (self.end)();
        let left = leftovers::find(&self.t.tag, &self.t.dir, &self.t.root);
        let own = |left: &String| !left.contains("strace");
        until(&format!("{at}: {left:#?} to go"), || {
            !leftovers::find(&self.t.tag, &self.t.dir, &self.t.root).iter().any(own)
        });
        Ok(())
    }
}

/// Every how many points one is tried.
fn step(points: usize) -> usize {
    if asked().is_some() {
        return 1;
    }
    let step = points.div_ceil(SAMPLE).max(1);
    // Never a multiple of the number of errnos, or only one of them would be tried.
    if step.is_multiple_of(ERRNOS.len()) { step + 1 } else { step }
}

/// `all`, or the name of a call.
fn asked() -> Option<String> {
    std::env::var("RUSTBOX_CRASH_SWEEP").ok().filter(|value| !value.is_empty())
}

fn words(args: &[&str]) -> Vec<String> {
    args.iter().map(|it| (*it).to_owned()).collect()
}

/// Sweeps a command on a container, which is there afterwards in whatever state, or is not.
fn sweep(
    how: fn(&Swept<'_>),
    name: &'static str,
    spec: Spec,
    prepare: impl Fn(&Container<'_>),
    args: impl Fn(&Container<'_>) -> Vec<String>,
    settle: impl Fn(&Container<'_>),
) {
    rustbox_only!();
    let t = Test::new();
    let c = t.bundle(spec);
    let end = || {
        c.delete_force().ok();
        // The id is usable again.
        c.create().ok();
        c.delete_force().ok();
    };
    how(&Swept {
        t: &t,
        name,
        prepare: Box::new(|| prepare(&c)),
        args: args(&c),
        end: Box::new(end),
        payloads_status: ["run", "exec"].contains(&name),
        settle: Box::new(|| settle(&c)),
    });
}

fn on_bundle(command: &str, c: &Container<'_>) -> Vec<String> {
    words(&[command, "--bundle", c.bundle.to_str().unwrap(), &c.id])
}

fn create(how: fn(&Swept<'_>)) {
    sweep(how, "create", sh("sleep 600").hook("createRuntime", ":"), |_| {}, |c| on_bundle("create", c), |_| {});
}

fn start(how: fn(&Swept<'_>)) {
    let created = |c: &Container<'_>| drop(c.create().ok());
    sweep(how, "start", sh("sleep 600").hook("poststart", ":"), created, |c| words(&["start", &c.id]), |_| {});
}

/// The start of a container that is to be judged, and the monitor that it makes.
fn judged_start(how: fn(&Swept<'_>)) {
    let created = |c: &Container<'_>| drop(c.create().ok());
    let spec = sh("sleep 600").patch(json!({"annotations": {"org.rustbox.limit.wall-time": "0.2"}}));
    // Its monitor lives on: until it has had its last word, or has died.
    let settle = |c: &Container<'_>| {
        until("the end of the monitor", || {
            let verdict = c.test.runtime(&["verdict", "--json", &c.id]);
            verdict.code != 0 || !verdict.stdout.contains("\"running\"")
        });
        // After its last word it leaves, and may still be killed on the way.
        until("its way out", || match fs::read(c.test.root.join(&c.id).join("monitor")) {
            Ok(standing) => match serde_json::from_slice::<Value>(&standing) {
                Ok(standing) => !alive(standing["process"]["pid"].as_i64().expect("a pid") as i32),
                // Killed as it wrote it.
                Err(_) => true,
            },
            Err(_) => true,
        });
    };
    sweep(how, "judged start", spec, created, |c| words(&["start", &c.id]), settle);
}

fn run(how: fn(&Swept<'_>)) {
    sweep(how, "run", sh("true").hook("poststop", ":"), |_| {}, |c| on_bundle("run", c), |_| {});
}

fn exec(how: fn(&Swept<'_>)) {
    let up = |c: &Container<'_>| {
        c.up();
    };
    sweep(how, "exec", sh("sleep 600"), up, |c| words(&["exec", &c.id, "true"]), |_| {});
}

fn delete(how: fn(&Swept<'_>)) {
    let stopped = |c: &Container<'_>| {
        c.up();
        c.kill("KILL").ok();
        c.wait_status("stopped");
    };
    sweep(how, "delete", sh("sleep 600").hook("poststop", ":"), stopped, |c| words(&["delete", &c.id]), |_| {});
}

fn judged_run(how: fn(&Swept<'_>)) {
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
    how(&Swept {
        t: &t,
        name: "judged run",
        prepare: Box::new(|| {}),
        args,
        end: Box::new(end),
        payloads_status: false,
        settle: Box::new(|| {}),
    });
}

macro_rules! tests {
    ($($module:ident $how:ident: $($command:ident)*;)*) => { $(
        mod $module {
            $(#[test]
            fn $command() {
                super::$command(|swept| swept.$how());
            })*
        }
    )* };
}

tests! {
    killed kill: create start judged_start run exec delete judged_run;
    failing fail: create start judged_start run exec delete judged_run;
}
