//! The harness of the behaviour tests: every test drives the real binary, in a directory, a state root, container ids
//! and cgroups of its own, and leaves nothing behind even when it panics.
//!
//! `RUSTBOX_BIN` replaces the binary under test, so that the same assertions can be held against other runtimes.

#![allow(dead_code, unused_imports, unused_macros)]

pub mod cgroup;
pub mod json_schema;
pub mod leftovers;
pub mod rootfs;
pub mod spec;

use std::cell::{Cell, RefCell};
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

pub use cgroup::{freeze, freezer_file, hierarchy, membership, unified};
pub use serde_json::json;
pub use spec::{Spec, sh, spec};

/// No command of a runtime takes longer than this; one that does is killed and its test fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// How many times as long as elsewhere a program takes here, by the clock and of CPU time: `RUSTBOX_TEST_SLOWNESS`, which is
/// set where the processor is emulated.
pub fn slowness() -> u32 {
    std::env::var("RUSTBOX_TEST_SLOWNESS").map_or(1, |text| text.parse().expect("RUSTBOX_TEST_SLOWNESS is a number"))
}

/// Ends the test and says why; `make test` counts the lines.
macro_rules! skip {
    ($($reason:tt)*) => {{
        $crate::common::report_skip(&format!($($reason)*));
        return;
    }};
}
pub(crate) use skip;

/// Skips the test under another runtime, for what only rustbox promises.
macro_rules! rustbox_only {
    () => {
        if $crate::common::peer() != $crate::common::Peer::Rustbox {
            $crate::common::skip!("a promise of rustbox alone");
        }
    };
}
pub(crate) use rustbox_only;

/// Skips the test under one peer that is known to differ, with the reason.
macro_rules! not_under {
    ($peer:ident, $($reason:tt)*) => {
        if $crate::common::peer() == $crate::common::Peer::$peer {
            $crate::common::skip!($($reason)*);
        }
    };
}
pub(crate) use not_under;

/// Which runtime `RUSTBOX_BIN` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    Rustbox,
    Runc,
    Crun,
}

/// The binary under test.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| match std::env::var_os("RUSTBOX_BIN") {
        Some(path) => path.into(),
        None => env!("CARGO_BIN_EXE_rustbox").into(),
    })
}

/// The kind of the binary under test, by its file name.
pub fn peer() -> Peer {
    match binary().file_name().and_then(|name| name.to_str()) {
        Some("runc") => Peer::Runc,
        Some("crun") => Peer::Crun,
        _ => Peer::Rustbox,
    }
}

/// Writes `SKIP name: reason` past the test harness's capture, and to the file that `RUSTBOX_SKIP_LOG` names.
pub fn report_skip(reason: &str) {
    let line = format!("SKIP {}: {reason}\n", std::thread::current().name().unwrap_or("?"));
    let _ = std::io::stderr().write_all(line.as_bytes());
    if let Some(log) = std::env::var_os("RUSTBOX_SKIP_LOG")
        && let Ok(mut log) = File::options().append(true).create(true).open(log)
    {
        let _ = log.write_all(line.as_bytes());
    }
}

/// What a finished command said.
#[derive(Debug)]
pub struct Out {
    /// The exit status, or 128 + the signal that ended the command.
    pub code: i32,
    pub signal: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    what: String,
}

impl Out {
    #[track_caller]
    pub fn ok(self) -> Self {
        self.code(0)
    }

    #[track_caller]
    pub fn code(self, code: i32) -> Self {
        assert!(self.signal.is_none(), "killed by a signal: {self:#?}");
        assert_eq!(self.code, code, "{self:#?}");
        self
    }

    /// The command refused: it exited by itself, non-zero, with something on stderr that is not a panic.
    #[track_caller]
    pub fn fails(self) -> Self {
        assert!(self.signal.is_none(), "killed by a signal: {self:#?}");
        assert_ne!(self.code, 0, "should have failed: {self:#?}");
        assert_ne!(self.code, 101, "panicked: {self:#?}");
        assert!(!self.stderr.trim().is_empty(), "failed without a word: {self:#?}");
        assert!(!self.stderr.contains("panicked at"), "panicked: {self:#?}");
        self
    }

    /// The command line was refused: exit status 2 of rustbox (docs/exit-status.md).
    #[track_caller]
    pub fn usage(self) -> Self {
        let out = self.fails();
        if peer() == Peer::Rustbox { out.code(2) } else { out }
    }

    /// The request was refused or failed: exit status 1 of rustbox (docs/exit-status.md).
    #[track_caller]
    pub fn denied(self) -> Self {
        let out = self.fails();
        if peer() == Peer::Rustbox { out.code(1) } else { out }
    }

    /// Each of the words stands on stderr.
    #[track_caller]
    pub fn says(self, words: &[&str]) -> Self {
        for word in words {
            assert!(self.stderr.contains(word), "stderr lacks `{word}`: {self:#?}");
        }
        self
    }

    /// Like [`Out::says`], but only held against rustbox: other runtimes word things differently.
    #[track_caller]
    pub fn rustbox_says(self, words: &[&str]) -> Self {
        if peer() == Peer::Rustbox { self.says(words) } else { self }
    }

    /// Standard output without its last line feed.
    pub fn line(&self) -> &str {
        self.stdout.trim_end_matches('\n')
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("stdout is not JSON: {e}: {self:#?}"))
    }
}

/// One test's world.
#[derive(Debug)]
pub struct Test {
    /// `<pid>-<n>`, in every name that the test makes.
    pub tag: String,
    pub dir: PathBuf,
    pub root: PathBuf,
    containers: Cell<u32>,
    commands: Cell<u32>,
    pids: RefCell<Vec<leftovers::Process>>,
}

impl Test {
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let tag = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
        let dir = std::env::temp_dir().join(format!("rustbox-test-{tag}"));
        fs::create_dir(&dir).unwrap_or_else(|e| panic!("mkdir {}: {e}", dir.display()));
        let root = dir.join("state");
        fs::create_dir(dir.join("io")).unwrap();
        Test { tag, dir, root, containers: Cell::new(0), commands: Cell::new(0), pids: RefCell::default() }
    }

    /// A bundle with this configuration and a rootfs of its own, and the id and cgroup that its container will have.
    pub fn bundle(&self, spec: Spec) -> Container<'_> {
        let n = self.containers.replace(self.containers.get() + 1);
        let id = format!("rbt-{}-{n}", self.tag);
        let bundle = self.dir.join(format!("bundle-{n}"));
        fs::create_dir(&bundle).unwrap();
        rootfs::make(&bundle.join("rootfs"));
        let cgroup = format!("rustbox-test-{}-{n}", self.tag);
        let container =
            Container { test: self, id, bundle, cgroup, stdout: RefCell::default(), stderr: RefCell::default() };
        let mut spec = spec.finish(&self.tag);
        if spec.pointer("/linux/cgroupsPath").is_none() && spec.get("linux").is_some_and(Value::is_object) {
            spec["linux"]["cgroupsPath"] = format!("/{}", container.cgroup).into();
        }
        container.write_config(&spec);
        container
    }

    /// A path in the test's directory, for logs, pid files and sockets.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The runtime with `--root` of this test, then these arguments.
    pub fn runtime(&self, args: &[&str]) -> Out {
        let mut command = Command::new(binary());
        command.arg("--root").arg(&self.root).args(args);
        self.finish(command)
    }

    /// The runtime with exactly these arguments.
    pub fn bare(&self, args: &[&str]) -> Out {
        let mut command = Command::new(binary());
        command.args(args);
        self.finish(command)
    }

    /// A shell script in which `"$@"` is the runtime's command line: for descriptors, limits and namespaces around it.
    pub fn shell(&self, script: &str, args: &[&str]) -> Out {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script, "sh"]).arg(binary()).arg("--root").arg(&self.root).args(args);
        self.finish(command)
    }

    /// Starts a command with stdout and stderr in files (a container may hold them open for longer than the command lives).
    pub fn spawn(&self, mut command: Command, stdin: Stdio) -> Running {
        let n = self.commands.replace(self.commands.get() + 1);
        let stdout = self.dir.join(format!("io/{n}.out"));
        let stderr = self.dir.join(format!("io/{n}.err"));
        let what = format!("{command:?}");
        command
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("RUSTBOX_TEST", &self.tag)
            // A slow machine's own: its compilers have more time.
            .envs(std::env::var_os("RUSTBOX_BUNDLES").map(|bundles| ("RUSTBOX_BUNDLES", bundles)))
            .env("RUSTBOX_STATE_DIR", self.path("worker"))
            .current_dir(&self.dir)
            .stdin(stdin)
            .stdout(File::create(&stdout).unwrap())
            .stderr(File::create(&stderr).unwrap());
        let child = command.spawn().unwrap_or_else(|e| panic!("{what}: {e}"));
        Running { child, stdout, stderr, what, ended: false }
    }

    pub fn finish(&self, command: Command) -> Out {
        self.spawn(command, Stdio::null()).wait()
    }

    /// Remembers a process so that it is killed at the end whatever happens.
    pub fn remember(&self, pid: i32) {
        if let Some(process) = leftovers::Process::of(pid) {
            self.pids.borrow_mut().push(process);
        }
    }

    /// Nothing of what this test made exists any more: processes, cgroups, mounts, state.
    #[track_caller]
    pub fn assert_nothing_left(&self) {
        let left = leftovers::find(&self.tag, &self.dir, &self.root);
        assert!(left.is_empty(), "left behind: {left:#?}");
    }
}

impl Drop for Test {
    fn drop(&mut self) {
        leftovers::sweep(&self.tag, &self.dir, &self.pids.borrow());
    }
}

/// A command that has been started.
#[derive(Debug)]
pub struct Running {
    pub child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
    what: String,
    ended: bool,
}

impl Running {
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// The file that the command's standard output, and that of what it leaves behind, goes to.
    pub fn stdout_path(&self) -> PathBuf {
        self.stdout.clone()
    }

    pub fn signal(&self, signal: i32) {
        let signal = nix::sys::signal::Signal::try_from(signal).unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.pid()), signal).unwrap();
    }

    /// What the command has written to stdout so far.
    pub fn stdout_now(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.stdout).unwrap()).into_owned()
    }

    /// Waits until stdout contains the text.
    #[track_caller]
    pub fn wait_for(&self, text: &str) {
        until(&format!("`{text}` on stdout of {}", self.what), || self.stdout_now().contains(text));
    }

    pub fn wait(mut self) -> Out {
        let start = Instant::now();
        let mut pause = Duration::from_micros(500);
        let patience = PATIENCE * slowness();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if start.elapsed() > patience {
                let _ = self.child.kill();
                let _ = self.child.wait();
                self.ended = true;
                let stderr = fs::read_to_string(&self.stderr).unwrap_or_default();
                panic!("still running after {patience:?}: {}: {stderr}", self.what);
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(8));
        };
        self.ended = true;
        Out {
            code: status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)),
            signal: status.signal(),
            stdout: String::from_utf8_lossy(&fs::read(&self.stdout).unwrap()).into_owned(),
            stderr: String::from_utf8_lossy(&fs::read(&self.stderr).unwrap()).into_owned(),
            what: std::mem::take(&mut self.what),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.ended {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// A bundle and the container made of it.
#[derive(Debug)]
pub struct Container<'t> {
    pub test: &'t Test,
    pub id: String,
    pub bundle: PathBuf,
    pub cgroup: String,
    stdout: RefCell<PathBuf>,
    stderr: RefCell<PathBuf>,
}

impl Container<'_> {
    pub fn write_config(&self, config: &Value) {
        fs::write(self.bundle.join("config.json"), serde_json::to_vec_pretty(config).unwrap()).unwrap();
    }

    pub fn rootfs(&self) -> PathBuf {
        self.bundle.join("rootfs")
    }

    /// Puts a file into the rootfs, with its directories.
    pub fn file(&self, path: &str, content: &str) -> PathBuf {
        let path = self.rootfs().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    fn command(&self, sub: &str, options: &[&str], rest: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.arg("--root").arg(&self.test.root).arg(sub).args(options).arg(&self.id).args(rest);
        command
    }

    fn bundle_options<'a>(&'a self, options: &[&'a str]) -> Vec<&'a str> {
        [&["--bundle", self.bundle.to_str().unwrap()], options].concat()
    }

    pub fn create(&self) -> Out {
        self.create_with(&[])
    }

    pub fn create_with(&self, options: &[&str]) -> Out {
        let options = self.bundle_options(options);
        self.detached("create", &options)
    }

    /// A command that leaves the container behind, whose streams and first process are remembered.
    fn detached(&self, command: &str, options: &[&str]) -> Out {
        let running = self.test.spawn(self.command(command, options, &[]), Stdio::null());
        self.stdout.replace(running.stdout.clone());
        self.stderr.replace(running.stderr.clone());
        let out = running.wait();
        if out.code == 0 {
            self.test.remember(self.pid());
        }
        out
    }

    pub fn start(&self) -> Out {
        self.test.finish(self.command("start", &[], &[]))
    }

    /// `run` in the foreground, to its end.
    pub fn run(&self) -> Out {
        self.run_with(&[])
    }

    pub fn run_with(&self, options: &[&str]) -> Out {
        let options = self.bundle_options(options);
        self.test.finish(self.command("run", &options, &[]))
    }

    /// `run` in the foreground, to be signalled or watched.
    pub fn spawn_run(&self, options: &[&str], stdin: Stdio) -> Running {
        let options = self.bundle_options(options);
        self.test.spawn(self.command("run", &options, &[]), stdin)
    }

    /// `run --detach`; the container's output is in [`Container::output`].
    pub fn run_detached(&self) -> Out {
        let options = self.bundle_options(&["--detach"]);
        self.detached("run", &options)
    }

    pub fn exec(&self, argv: &[&str]) -> Out {
        self.exec_with(&[], argv)
    }

    pub fn exec_with(&self, options: &[&str], argv: &[&str]) -> Out {
        self.test.finish(self.command("exec", options, argv))
    }

    /// `exec --process FILE` with this process document.
    pub fn exec_process(&self, process: &Value, options: &[&str]) -> Out {
        let file = self.test.path("process.json");
        fs::write(&file, process.to_string()).unwrap();
        self.exec_with(&[&["--process", file.to_str().unwrap()], options].concat(), &[])
    }

    pub fn kill(&self, signal: &str) -> Out {
        self.test.finish(self.command("kill", &[], &[signal]))
    }

    pub fn delete(&self) -> Out {
        self.test.finish(self.command("delete", &[], &[]))
    }

    pub fn delete_force(&self) -> Out {
        self.test.finish(self.command("delete", &["--force"], &[]))
    }

    pub fn state_out(&self) -> Out {
        self.test.finish(self.command("state", &[], &[]))
    }

    #[track_caller]
    pub fn state(&self) -> Value {
        self.state_out().ok().json()
    }

    #[track_caller]
    pub fn status(&self) -> String {
        self.state()["status"].as_str().expect("a status").to_owned()
    }

    #[track_caller]
    pub fn pid(&self) -> i32 {
        self.state()["pid"].as_i64().expect("a pid") as i32
    }

    #[track_caller]
    pub fn wait_status(&self, status: &str) {
        until(&format!("status {status} of {}", self.id), || self.status() == status);
    }

    /// What `create` or `run --detach`, and later the container, wrote to stdout.
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&fs::read(&*self.stdout.borrow()).unwrap_or_default()).into_owned()
    }

    pub fn error_output(&self) -> String {
        String::from_utf8_lossy(&fs::read(&*self.stderr.borrow()).unwrap_or_default()).into_owned()
    }

    #[track_caller]
    pub fn wait_output(&self, text: &str) {
        until(&format!("`{text}` on stdout of {}: {}", self.id, self.error_output()), || self.output().contains(text));
    }

    /// Kills the container and deletes it, in the orderly way.
    #[track_caller]
    pub fn kill_and_delete(&self) {
        self.kill("KILL").ok();
        self.wait_status("stopped");
        self.delete().ok();
    }

    /// create and start, with the container left running.
    #[track_caller]
    pub fn up(&self) -> &Self {
        self.create().ok();
        self.start().ok();
        self
    }
}

/// Runs the configuration in the foreground and wants exit status 0; nothing may be left. Returns stdout.
#[track_caller]
pub fn output_of(spec: Spec) -> String {
    let test = Test::new();
    let out = test.bundle(spec).run().ok();
    test.assert_nothing_left();
    out.line().to_owned()
}

/// Configurations that must be refused by `create` and by `run` before anything is made, each with the words that its
/// error has to contain. All cases are tried; the failures are shown together.
#[track_caller]
pub fn refused(cases: Vec<(Spec, &[&str])>) {
    let mut wrong = Vec::new();
    for (spec, words) in cases {
        let test = Test::new();
        let container = test.bundle(spec);
        for out in [container.create(), container.run()] {
            let silent = peer() == Peer::Rustbox && !words.iter().all(|word| out.stderr.contains(word));
            let status = if peer() == Peer::Rustbox { out.code == 1 } else { out.code != 0 };
            if !status || out.stderr.trim().is_empty() || out.stderr.contains("panicked") || silent {
                wrong.push(format!("{words:?}: exit status {}, {:?}", out.code, out.stderr));
            }
        }
        let left = leftovers::find(&test.tag, &test.dir, &test.root);
        if !left.is_empty() {
            wrong.push(format!("{words:?} left {left:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} cases are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// Polls until the condition holds; panics after ten seconds.
#[track_caller]
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    let patience = Duration::from_secs(10) * slowness();
    while !condition() {
        assert!(start.elapsed() < patience, "timed out waiting for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The children of a process, oldest first; none where there is no such process.
pub fn children(pid: i32) -> Vec<i32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().map(|child| child.parse().unwrap()).collect()
}

/// The kernel's version.
pub fn kernel() -> (u32, u32) {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split('.').map_while(|part| part.parse().ok());
    (numbers.next().expect("a version"), numbers.next().expect("a version"))
}

/// Whether a process exists and is not a zombie.
pub fn alive(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit(')').next().is_some_and(|rest| !rest.trim_start().starts_with(['Z', 'X'])))
}

/// A namespace's identity as `type:[inode]`.
#[track_caller]
pub fn namespace(pid: &str, kind: &str) -> String {
    fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap().to_str().unwrap().to_owned()
}

pub fn executable(path: &Path, content: &str) {
    fs::write(path, content).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// What comes over a unix socket in one message: its bytes and all its descriptors.
#[track_caller]
pub fn received(connection: &std::os::unix::net::UnixStream) -> (Vec<u8>, Vec<std::os::fd::OwnedFd>) {
    use rustbox::sys::socket::{MsgFlags, receive};
    let mut bytes = vec![0; 64 << 10];
    let (length, fds) = receive(std::os::fd::AsFd::as_fd(connection), &mut bytes, MsgFlags::empty()).unwrap();
    bytes.truncate(length);
    (bytes, fds)
}
