//! What `process` asks for, as a plan (no privileges) and as a real process (root; each in a child of its own).

use std::process::Command;

use oci_spec::runtime::Process;
use rustbox::Error;
use rustbox::init::process::{ProcessPlan, Setting};
use serde_json::{Value, json};

fn process(change: Value) -> Process {
    let mut document =
        json!({"user": {"uid": 0, "gid": 0}, "args": ["true"], "cwd": "/", "env": ["PATH=/bin:/usr/bin"]});
    let fields = document.as_object_mut().unwrap();
    for (key, value) in change.as_object().unwrap() {
        fields.insert(key.clone(), value.clone());
    }
    serde_json::from_value(document).unwrap()
}

fn plan(change: Value) -> rustbox::Result<ProcessPlan> {
    ProcessPlan::new(&process(change), None, &Setting::default())
}

#[test]
fn missing_capabilities_are_none_and_an_exec_gets_the_containers() {
    assert_eq!(plan(json!({})).unwrap().capabilities.permitted, 0);
    let container = process(json!({"capabilities": {"permitted": ["CAP_KILL"]}}));
    let setting = Setting { container_capabilities: container.capabilities().as_ref(), ..Setting::default() };
    let exec = ProcessPlan::new(&process(json!({})), None, &setting).unwrap();
    assert_eq!(exec.capabilities.permitted, 1 << 5);
    let own = process(json!({"capabilities": {}}));
    assert_eq!(ProcessPlan::new(&own, None, &setting).unwrap().capabilities.permitted, 0);
}

#[test]
fn what_cannot_be_given_is_a_warning() {
    let asked =
        json!({"capabilities": {"permitted": ["CAP_KILL", "CAP_CHOWN"], "effective": ["CAP_KILL", "CAP_SYS_ADMIN"]}});
    let setting = Setting { have: Some(1), ..Setting::default() };
    let plan = ProcessPlan::new(&process(asked), None, &setting).unwrap();
    assert_eq!(plan.warnings.len(), 2, "{:?}", plan.warnings);
    assert_eq!((plan.capabilities.permitted, plan.capabilities.effective), (1, 0));
}

#[test]
fn socket_activation_is_announced() {
    let setting = Setting { listen_fds: 2, preserve_fds: 2, ..Setting::default() };
    let plan = ProcessPlan::new(&process(json!({})), None, &setting).unwrap();
    let words: Vec<_> = plan.envp.iter().map(|word| word.to_str().unwrap()).collect();
    assert_eq!(words, ["PATH=/bin:/usr/bin", "LISTEN_FDS=2", "LISTEN_PID=1"]);
}

/// The process that the cases below apply a plan to: this test binary again, with the document in its environment.
#[test]
fn child() {
    let Ok(document) = std::env::var("RUSTBOX_TEST_PROCESS") else { return };
    let process: Process = serde_json::from_str(&document).unwrap();
    let have = Some(rustbox::init::process::capabilities::permitted().unwrap());
    let setting = Setting { have, own_stdio: true, ..Setting::default() };
    let filtered = std::env::var_os("RUSTBOX_TEST_FILTER").is_some();
    let run = || -> rustbox::Result<()> {
        let mut load = load_filter;
        let mut plan = ProcessPlan::new(&process, None, &setting)?;
        plan.outside(None, None)?;
        plan.apply(None, if filtered { Some(&mut load) } else { None })?;
        plan.resolve()?;
        Err(plan.exec(if filtered { Some(&mut load) } else { None }))
    };
    eprintln!("FAILED: {}", run().unwrap_err());
    std::process::exit(77);
}

/// A filter that denies one harmless call; it does not set no_new_privs by itself.
fn load_filter() -> rustbox::Result<()> {
    use libseccomp::{ScmpAction, ScmpFilterContext, ScmpSyscall};
    let load = || -> Result<(), libseccomp::error::SeccompError> {
        let mut filter = ScmpFilterContext::new(ScmpAction::Allow)?;
        filter.set_ctl_nnp(false)?;
        filter.add_rule(ScmpAction::Errno(libc::EPERM), ScmpSyscall::from_name("acct")?)?;
        filter.load()
    };
    load().map_err(|error| Error::Other(format!("seccomp: {error}")))
}

struct Ran {
    out: String,
    err: String,
}

impl Ran {
    fn field(&self, name: &str) -> &str {
        let line = self.out.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_else(|| panic!("no {name} in {}\n{}", self.out, self.err)).trim()
    }
}

fn run(change: Value, prepare: impl FnOnce(&mut Command)) -> Ran {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "child", "--nocapture", "--test-threads=1"])
        .env("RUSTBOX_TEST_PROCESS", serde_json::to_string(&process(change)).unwrap());
    prepare(&mut command);
    let output = command.output().unwrap();
    Ran { out: String::from_utf8_lossy(&output.stdout).into(), err: String::from_utf8_lossy(&output.stderr).into() }
}

fn status(mut change: Value) -> Ran {
    change["args"] = json!(["cat", "/proc/self/status"]);
    run(change, |_| {})
}

fn groups() -> Vec<u32> {
    // The test's caller may have none, so the child's parent takes some.
    vec![7, 8]
}

#[test]
fn empty_additional_gids_drop_the_callers() {
    use std::os::unix::process::CommandExt;
    let wanted = json!({"args": ["cat", "/proc/self/status"]});
    let with = |change: Value| {
        run(change, |command| {
            // `setpriv` gives the child groups that it must lose.
            let mut wrapped = Command::new("setpriv");
            wrapped.arg("--groups").arg(groups().iter().map(u32::to_string).collect::<Vec<_>>().join(","));
            wrapped.arg(command.get_program());
            wrapped.args(command.get_args()).envs(command.get_envs().filter_map(|(key, value)| Some((key, value?))));
            wrapped.arg0("setpriv");
            *command = wrapped;
        })
    };
    assert_eq!(with(wanted.clone()).field("Groups"), "");
    let mut some = wanted;
    some["user"] = json!({"uid": 0, "gid": 0, "additionalGids": [5, 9]});
    assert_eq!(with(some).field("Groups"), "5 9");
}

#[test]
fn without_capabilities_there_are_none_for_root_and_others() {
    for uid in [0, 1000] {
        let ran = status(json!({"user": {"uid": uid, "gid": uid}}));
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(ran.field(set), "0000000000000000", "{set} of {uid}");
        }
        assert_eq!(ran.field("Uid"), format!("{uid}\t{uid}\t{uid}\t{uid}"));
        assert_eq!(ran.field("Umask"), "0022");
    }
}

#[test]
fn the_five_sets_reach_root_and_others() {
    let kill = json!(["CAP_KILL"]);
    let all = json!({"bounding": kill, "effective": kill, "permitted": kill, "inheritable": kill, "ambient": kill});
    let none = json!({"bounding": kill, "effective": kill, "permitted": kill});
    for uid in [0, 1000] {
        let ran = status(json!({"user": {"uid": uid, "gid": uid}, "capabilities": all}));
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(ran.field(set), "0000000000000020", "{set} of {uid}");
        }
    }
    // Root keeps them through exec by its bounding set, another user does not without ambient ones.
    assert_eq!(status(json!({"capabilities": none})).field("CapEff"), "0000000000000020");
    let other = status(json!({"user": {"uid": 1000, "gid": 1000}, "capabilities": none}));
    assert_eq!((other.field("CapEff"), other.field("CapBnd")), ("0000000000000000", "0000000000000020"));
}

#[test]
fn a_filter_loads_with_and_without_no_new_privileges() {
    for (uid, no_new_privileges) in [(0, true), (0, false), (1000, true), (1000, false)] {
        let change = json!({
            "user": {"uid": uid, "gid": uid}, "noNewPrivileges": no_new_privileges,
            "args": ["cat", "/proc/self/status"],
        });
        let ran = run(change, |command| {
            command.env("RUSTBOX_TEST_FILTER", "1");
        });
        assert_eq!(ran.field("Seccomp"), "2");
        assert_eq!(ran.field("NoNewPrivs"), if no_new_privileges { "1" } else { "0" });
        assert_eq!(ran.field("CapPrm"), "0000000000000000", "CAP_SYS_ADMIN must not stay");
    }
}

#[test]
fn limits_mask_and_scheduling() {
    let ran = run(
        json!({
            "args": ["/bin/sh", "-c", "echo start; ulimit -n; ulimit -c; umask; cat /proc/self/oom_score_adj; nice"],
            "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 77, "hard": 99}, {"type": "RLIMIT_CORE", "soft": 0, "hard": 0}],
            "user": {"uid": 1000, "gid": 1000, "umask": 0o077},
            "oomScoreAdj": 900,
            "scheduler": {"policy": "SCHED_BATCH", "nice": 7, "flags": ["SCHED_RESET_ON_FORK"]},
            "ioPriority": {"class": "IOPRIO_CLASS_IDLE", "priority": 0},
        }),
        |_| {},
    );
    let lines: Vec<&str> = ran.out.lines().skip_while(|line| !line.ends_with("start")).skip(1).collect();
    assert_eq!(lines, ["77", "0", "0077", "900", "7"], "{}{}", ran.out, ran.err);
}

#[test]
fn the_environment_is_the_documents() {
    let ran = run(
        json!({"args": ["/usr/bin/env"], "env": ["A=1", "ü=ß", "A=2", "EMPTY="], "user": {"uid": 1, "gid": 1}}),
        |_| {},
    );
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap();
    let home = passwd.lines().find(|line| line.split(':').nth(2) == Some("1")).and_then(|line| line.split(':').nth(5));
    let expected = format!("A=2\nü=ß\nEMPTY=\nHOME={}\n", home.unwrap_or("/"));
    assert!(ran.out.ends_with(&expected), "{}", ran.out);
}

#[test]
fn exec_errors_are_precise() {
    let directory = tempfile::tempdir_in("/tmp").unwrap();
    let path = directory.path();
    let world = |path: &std::path::Path, mode: u32| {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    world(path, 0o755);
    for (name, content, mode) in [("noexec", "", 0o644), ("format", "text", 0o755), ("lost", "#!/no/such\n", 0o755)] {
        std::fs::write(path.join(name), content).unwrap();
        world(&path.join(name), mode);
    }
    std::fs::create_dir(path.join("dir")).unwrap();
    let at = |name: &str| path.join(name).to_str().unwrap().to_owned();
    let in_path = json!([format!("PATH={}", path.display())]);
    let cases = [
        (
            json!({"args": ["foo"]}),
            "exec: `foo`: executable file not found in $PATH: No such file or directory".to_owned(),
        ),
        (
            json!({"args": ["dir"], "env": in_path}),
            "exec: `dir`: executable file not found in $PATH: No such file or directory".into(),
        ),
        (json!({"args": ["noexec"], "env": in_path}), format!("exec `{}`: permission denied", at("noexec"))),
        (json!({"args": [at("none")]}), format!("exec `{}`: no such file or directory", at("none"))),
        (json!({"args": [at("noexec")]}), format!("exec `{}`: permission denied", at("noexec"))),
        (json!({"args": [at("dir")]}), format!("exec `{}`: permission denied", at("dir"))),
        (json!({"args": [at("format/x")]}), format!("exec `{}`: not a directory", at("format/x"))),
        (json!({"args": [at("format")]}), format!("exec `{}`: exec format error", at("format"))),
        (json!({"args": [at("lost")]}), format!("exec `{}`: no such file or directory", at("lost"))),
        (json!({"cwd": at("format")}), format!("chdir to cwd `{}`: Not a directory", at("format"))),
    ];
    for (change, expected) in cases {
        let ran = run(change.clone(), |_| {});
        assert!(ran.err.contains(&format!("FAILED: {expected}\n")), "{change}: {}", ran.err);
    }
}

#[test]
fn an_absolute_program_needs_no_path_and_a_lone_name_has_the_default_one() {
    for program in ["/bin/echo", "echo"] {
        let ran = run(json!({"args": [program, "found"], "env": []}), |_| {});
        assert!(ran.out.ends_with("found\n"), "{}{}", ran.out, ran.err);
    }
}

#[test]
fn inherited_descriptors_do_not_reach_the_program() {
    use std::os::fd::AsRawFd;
    let leak = std::fs::File::open("/").unwrap();
    nix::fcntl::fcntl(leak.as_raw_fd(), nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).unwrap();
    let ran = run(json!({"args": ["/bin/sh", "-c", "ls /proc/self/fd"]}), |_| {});
    let numbers: Vec<u32> = ran.out.lines().filter_map(|line| line.parse().ok()).collect();
    // The fourth is ls's own.
    assert!(numbers.len() <= 4 && numbers.iter().all(|fd| *fd <= 3), "{}", ran.out);
}

/// A bug class of crun 1.8.1: `exec --user 1000:1000 </dev/null` made /dev/null the user's.
#[test]
fn stdio_that_is_not_a_pipe_keeps_its_owner() {
    use std::os::unix::fs::MetadataExt;
    let before = std::fs::metadata("/dev/null").unwrap().uid();
    let file = tempfile::NamedTempFile::new().unwrap();
    let change =
        json!({"args": ["stat", "-L", "-c", "owner:%u", "/proc/self/fd/1"], "user": {"uid": 1000, "gid": 1000}});
    let ran = run(change.clone(), |command| {
        command.stdin(std::process::Stdio::null()).stderr(std::process::Stdio::from(file.reopen().unwrap()));
    });
    assert!(ran.out.ends_with("owner:1000\n"), "a pipe becomes the user's: {}", ran.out);
    assert_eq!(std::fs::metadata("/dev/null").unwrap().uid(), before);
    assert_eq!(file.as_file().metadata().unwrap().uid(), 0, "{}", ran.out);
}
