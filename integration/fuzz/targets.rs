//! What is fuzzed: everything that reads what somebody else has written. Each target panics where a promise is broken; what
//! it refuses is fine. The same functions run over the corpus in `cargo test` (`tests/fuzz_corpus.rs`).

use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::os::fd::AsFd;
use std::path::{Component, Path, PathBuf};

use arbitrary::Unstructured;
use clap::{Args as _, FromArgMatches as _};
use libseccomp::{ScmpAction, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};
use oci_spec::runtime::{LinuxSeccomp, Spec};
use rustbox::cgroup::stats::{Psi, network_interfaces};
use rustbox::cgroup::{self, Controller, Hierarchy, Layout, Version};
use rustbox::cli::batch_job::Reader;
use rustbox::cli::isolate;
use rustbox::container::identity::{self, ProcessId};
use rustbox::container::namespaces::Namespaces;
use rustbox::container::root::Root;
use rustbox::container::state::status;
use rustbox::init::process::{ProcessPlan, Setting};
use rustbox::init::{intel_rdt, sysctl, time_offsets};
use rustbox::judge::batch::journal::Journal;
use rustbox::judge::capability::Accounting;
use rustbox::judge::evidence::{Evidence, Ruling};
use rustbox::judge::isolate::rules::Kind;
use rustbox::judge::limits::{LimitSource, Limits, parse_size, parse_time};
use rustbox::judge::noise::some_total;
use rustbox::judge::replay::replay;
use rustbox::judge::sandbox::{Resources, Share, restrict, writable_tmpfs};
use rustbox::judge::suite::compare::Comparison;
use rustbox::judge::verdict::classify;
use rustbox::seccomp::{bpf, enosys, profile};
use rustbox::spec::mount_options::MountOptions;
use rustbox::spec::{self, Host};
use rustbox::sys::mountinfo;
use rustbox::sys::seccomp::Data;
use rustbox::worker::metrics::file as metrics;
use rustbox::worker::standing::Standing;

/// Feeds one input.
pub type Target = fn(&[u8]);

/// Every target by its name, which is its corpus's as well.
pub const TARGETS: [(&str, Target); 12] = [
    ("annotations", annotations),
    ("compare", compare),
    ("config", config),
    ("evidence", evidence),
    ("isolate", isolate_options),
    ("job", job),
    ("journal", journal),
    ("mounts", mounts),
    ("proc", proc),
    ("record", record),
    ("seccomp", seccomp),
    ("worker", worker),
];

/// `config.json`: refused, or planned down to the directories of its cgroups; and read again from what it is stored as.
fn config(data: &[u8]) {
    let _ = spec::parse_process(data);
    let _ = spec::parse_resources(data);
    let Ok(spec) = spec::parse_spec(data) else { return };
    let stored = serde_json::to_vec(&spec).expect("what was read can be written");
    assert!(spec::parse_spec(&stored).is_ok(), "what was understood is understood again");
    let _ = spec::validate(&spec, &Host::capable());
    let _ = writable_tmpfs(&spec);
    let namespaces = Namespaces::plan(&spec);
    plan_cgroups(&spec);
    let linux = spec.linux().as_ref();
    if let Some(process) = spec.process() {
        let user_namespace = namespaces.has(libc::CLONE_NEWUSER);
        let _ = ProcessPlan::new(process, linux, &Setting { user_namespace, own_stdio: true, ..Setting::default() });
    }
    if let Some(linux) = linux {
        for parameter in sysctl::plan(linux).into_iter().flatten() {
            assert!(!climbs(Path::new(&parameter.path)), "sysctl `{}`", parameter.path);
        }
        let _ = time_offsets::text(linux);
        if let Some(document) = linux.intel_rdt() {
            let _ = intel_rdt::plan("x", document);
        }
        if let Some(profile) = linux.seccomp() {
            decided(profile);
        }
    }
    let mut judged = spec.clone();
    let restricted = restrict(
        &mut judged,
        &Limits::default(),
        Resources { memory: Some(Accounting { swap: true, sockets: true }), pids: true },
    );
    assert_eq!(restricted.is_ok(), spec.process().is_some());
    assert!(judged.process().as_ref().is_none_or(|process| process.no_new_privileges() == Some(true)));
}

/// No cgroup lies outside of its hierarchy, or is the whole of it.
fn plan_cgroups(spec: &Spec) {
    let hierarchy = |version, root: &str, controller| Hierarchy {
        version,
        root: PathBuf::from(root),
        controllers: vec![controller],
    };
    let unified = Layout::new(vec![hierarchy(Version::V2, "/unified", Controller::Memory)]);
    let joint = Layout::new(vec![
        hierarchy(Version::V1, "/memory", Controller::Memory),
        hierarchy(Version::V1, "/pids", Controller::Pids),
        hierarchy(Version::V2, "/unified", Controller::Cpu),
    ]);
    let linux = spec.linux().as_ref();
    for (layout, systemd) in [(&unified, false), (&joint, false), (&unified, true)] {
        let request = cgroup::Request {
            cgroups_path: linux.and_then(|linux| linux.cgroups_path().as_deref()),
            id: "x",
            systemd,
            annotations: spec.annotations().as_ref(),
            ..cgroup::Request::default()
        };
        for directory in cgroup::plan(&request, layout).iter().flat_map(|plan| &plan.directories) {
            let below = directory.path.strip_prefix(&directory.root).expect("below its hierarchy");
            assert!(!climbs(below) && below.components().next().is_some(), "{}", directory.path.display());
        }
    }
}

fn climbs(path: &Path) -> bool {
    path.components().any(|part| part == Component::ParentDir)
}

/// A profile in JSON: refused, or a program that the kernel takes and that answers every call.
fn decided(profile: &LinuxSeccomp) {
    let Ok(filter) = profile::compile(profile) else { return };
    for nr in [0, 1, 59, 101, 435, 600, i32::MAX] {
        for arch in [bpf::NATIVE, 0x4000_0003, 7] {
            let data = Data { nr, arch, instruction_pointer: 0, args: [nr as u64; 6] };
            assert!(bpf::run(&filter.program, &data).is_some(), "call {nr} of {arch:#x} has no answer");
        }
    }
}

/// `NAME=VALUE` lines as annotations, and each as a time and a size.
fn annotations(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for line in text.lines() {
        if let Ok(time) = parse_time(line) {
            assert!(time <= 7 * 24 * 3600 * 1000, "{line}: {time}");
        }
        let _ = parse_size(line);
    }
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    let all: HashMap<String, String> =
        pairs.map(|(name, value)| (format!("org.rustbox.limit.{name}"), value.to_owned())).collect();
    if let Ok(source) = LimitSource::from_annotations(&all) {
        assert_eq!(source.is_empty(), all.is_empty());
        if let Ok(limits) = source.resolve() {
            assert!(limits.cpu_time_ms > 0 && limits.memory_bytes >= 1 << 20 && limits.processes >= 1);
        }
    }
}

/// A line of a batch.
fn job(data: &[u8]) {
    thread_local! {
        static READER: std::cell::RefCell<Reader> = std::cell::RefCell::new(Reader::new(false));
    }
    // Names of files would be opened, and a fuzzer may come to name a pipe that nobody writes to.
    let Ok(mut line) = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(data) else {
        READER.with_borrow_mut(|reader| assert!(reader.job(data).request.is_err()));
        return;
    };
    for key in ["bundle", "source", "stdin_file"] {
        if line.contains_key(key) {
            line.insert(key.to_owned(), "/nowhere".into());
        }
    }
    let text = serde_json::to_vec(&line).expect("JSON");
    let done = READER.with_borrow_mut(|reader| reader.job(&text));
    if let Ok(request) = done.request {
        let _ = request.limits.resolve();
        assert!(line.get("id").is_none_or(serde_json::Value::is_string));
        assert_eq!(done.id.as_deref(), line.get("id").and_then(serde_json::Value::as_str));
    }
}

/// Words, one on each line, as isolate's options.
fn isolate_options(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let words: Vec<OsString> = std::iter::once("isolate").chain(text.lines()).map(OsString::from).collect();
    let words = isolate::rewrite(words);
    let command = isolate::Args::augment_args(clap::Command::new("isolate").no_binary_name(true));
    let Ok(mut matches) = command.try_get_matches_from(words.into_iter().skip(2)) else { return };
    let Ok(args) = isolate::Args::from_arg_matches_mut(&mut matches) else { return };
    let Ok(program) = isolate::program(&args) else { return };
    let _ = program.bounds.limits();
    let mut seen = HashSet::new();
    for rule in program.rules.all() {
        assert!(!climbs(&rule.inside) && rule.inside.is_relative(), "{rule:?}");
        assert!(seen.insert(&rule.inside), "{rule:?} twice");
        if let Kind::Bind(outside) = &rule.kind {
            assert!(outside.is_absolute() || !climbs(outside), "{rule:?}");
        }
    }
    let names = program.env.iter().map(|variable| variable.split('=').next());
    assert_eq!(names.clone().count(), names.collect::<HashSet<_>>().len(), "{:?}", program.env);
}

/// A stored run, and evidence by itself: one verdict, and the same one again from what is stored.
fn evidence(data: &[u8]) {
    if let Ok(replayed) = replay(data) {
        let same = replayed.run.same && replayed.compile.as_ref().is_none_or(|compile| compile.same);
        assert_eq!(same, replayed.differences().is_empty());
    }
    if let Ok(known) = serde_json::from_slice::<Evidence>(data) {
        let limits = Limits::default();
        let stored = serde_json::to_vec(&known).expect("what was read can be written");
        let again = serde_json::from_slice(&stored).expect("what was written can be read");
        assert_eq!(classify(&known, &limits), classify(&again, &limits));
    }
}

/// An output and the expected one, apart by a byte 0; what a strict checker takes, a lenient one takes.
fn compare(data: &[u8]) {
    let Some(at) = data.iter().position(|byte| *byte == 0) else {
        let name = String::from_utf8_lossy(data);
        if let Some(Ok(known)) = Comparison::named(&name) {
            assert_eq!(Comparison::named(&known.to_string()), Some(Ok(known)));
        }
        return;
    };
    let (output, answer) = (&data[..at], &data[at + 1..]);
    let checked = |comparison: Comparison| comparison.check(output, answer);
    let accepts = |comparison| checked(comparison).ruling == Ruling::Accepted;
    let (exact, tokens, float) = (Comparison::Exact, Comparison::Tokens, Comparison::Float(1e-6));
    assert_eq!(accepts(exact), output == answer);
    assert_eq!(accepts(tokens), [Ruling::Accepted, Ruling::Presentation].contains(&checked(exact).ruling));
    assert!(accepts(float) || !accepts(tokens));
    assert!(accepts(Comparison::Float(1e-3)) || !accepts(float));
    for comparison in [exact, tokens, float] {
        assert!(!checked(comparison).message.contains(|c: char| c.is_control()), "a message is one line");
    }
}

/// Mount options, one on each line, and a share of the judge.
fn mounts(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = MountOptions::parse(&text.lines().collect::<Vec<_>>());
    for line in text.lines() {
        if let Ok(share) = line.parse::<Share>() {
            assert!(share.inside.is_absolute() && share.outside.is_absolute(), "{line}");
            assert!(!climbs(&share.inside) && !climbs(&share.outside), "{line}");
        }
    }
}

/// What the kernel prints: mountinfo, cgroups, pressure, interfaces, a process's stat.
fn proc(data: &[u8]) {
    if let Ok(table) = mountinfo::parse(data) {
        assert_eq!(table.len(), data.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count());
        assert!(table.iter().all(|mount| mount.point.is_absolute() && !mount.fstype.is_empty()));
    }
    assert!(mountinfo::unescape(data).len() <= data.len());
    for number in [0, 1, 2, 3, 22, 52, usize::MAX] {
        let _ = identity::field(data, number);
    }
    let text = String::from_utf8_lossy(data);
    let _ = (Psi::parse(&text), some_total(&text), network_interfaces(&text), text.parse::<ProcessId>());
    if let Ok(layout) = Layout::from_mountinfo(&text) {
        let _ = (layout.name(), layout.is_unified(), layout.offers(Controller::Memory));
    }
}

/// A directory of this thread's own.
fn place() -> PathBuf {
    struct Place(PathBuf);
    impl Drop for Place {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
    thread_local! {
        static PLACE: OnceCell<Place> = const { OnceCell::new() };
    }
    PLACE.with(|place| {
        let made = place.get_or_init(|| {
            let name = format!("rustbox-fuzz-{}-{:?}", std::process::id(), std::thread::current().id());
            let path = std::env::temp_dir().join(name);
            std::fs::create_dir_all(&path).expect("a directory");
            Place(path)
        });
        made.0.clone()
    })
}

/// A container's files: the first byte says which.
fn record(data: &[u8]) {
    let [which, data @ ..] = data else { return };
    let place = place();
    let directory = place.join("x");
    std::fs::create_dir_all(&directory).expect("a directory");
    for (bit, name) in ["state.json", "config.json", "init", "hooks", "gate"].iter().enumerate() {
        let file = directory.join(name);
        if which & (1 << bit) == 0 {
            let _ = std::fs::remove_file(&file);
        } else {
            std::fs::write(&file, data).expect("a file");
        }
    }
    let root = Root::open(&place).expect("a root");
    let _ = root.ids();
    if let Ok((fd, record)) = root.look("x") {
        let _ = status(fd.as_fd(), &record);
    }
}

/// A worker's files, likewise: its state, its history, its metrics.
fn worker(data: &[u8]) {
    let [which, data @ ..] = data else { return };
    let place = place().join("worker");
    std::fs::create_dir_all(&place).expect("a directory");
    for (bit, name) in
        ["state.json", "state", "history", "history.jsonl", "baseline.json", "failures"].iter().enumerate()
    {
        let file = place.join(name);
        if which & (1 << bit) == 0 {
            let _ = std::fs::remove_file(&file);
        } else {
            std::fs::write(&file, data).expect("a file");
        }
    }
    let standing = Standing::new(place.clone());
    let _ = (standing.state(), standing.admit(), standing.history(), standing.mend_history());
    let _ = standing.baseline::<serde_json::Value>();
    let file = place.join("metrics");
    std::fs::write(&file, data).expect("a file");
    let _ = metrics::read(&file);
}

/// A journal of a batch: what is torn is cut off, and what was read once is read again.
fn journal(data: &[u8]) {
    let file = place().join("journal");
    std::fs::write(&file, data).expect("a file");
    let Ok(first) = Journal::open(&file) else { return };
    let known = first.len();
    drop(first);
    let again = Journal::open(&file).expect("it could be read before");
    assert_eq!(again.len(), known);
}

/// A rule that libseccomp and the profile's JSON both get: a call, an action, and for arguments an operator and its values.
type Rule = (u8, u8, Vec<(u8, u8, u64, u64)>);

const CALLS: [&str; 12] = [
    "read",
    "getpriority",
    "personality",
    "clone",
    "socket",
    "ioctl",
    "prctl",
    "mmap",
    "unshare",
    "openat2",
    "bpf",
    "keyctl",
];
const ACTIONS: [&str; 7] = [
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_TRAP",
    "SCMP_ACT_LOG",
    "SCMP_ACT_TRACE",
];
const OPERATORS: [&str; 7] =
    ["SCMP_CMP_NE", "SCMP_CMP_LT", "SCMP_CMP_LE", "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_MASKED_EQ"];

fn action(index: u8) -> ScmpAction {
    match index as usize % ACTIONS.len() {
        0 => ScmpAction::Allow,
        1 => ScmpAction::Errno(libc::EPERM),
        2 => ScmpAction::KillProcess,
        3 => ScmpAction::KillThread,
        4 => ScmpAction::Trap,
        5 => ScmpAction::Log,
        _ => ScmpAction::Trace(libc::EPERM as u16),
    }
}

fn operator(index: u8, mask: u64) -> ScmpCompareOp {
    match index as usize % OPERATORS.len() {
        0 => ScmpCompareOp::NotEqual,
        1 => ScmpCompareOp::Less,
        2 => ScmpCompareOp::LessOrEqual,
        3 => ScmpCompareOp::Equal,
        4 => ScmpCompareOp::GreaterEqual,
        5 => ScmpCompareOp::Greater,
        _ => ScmpCompareOp::MaskedEqual(mask),
    }
}

/// A profile in JSON and the same by libseccomp's own calls: the same answer to every call, but where the profile's numbers
/// end and the runtime answers ENOSYS.
fn seccomp(data: &[u8]) {
    let mut data = Unstructured::new(data);
    let (Ok(default), Ok(mut rules), Ok(calls)) =
        (data.arbitrary::<u8>(), data.arbitrary::<Vec<Rule>>(), data.arbitrary::<Vec<(u8, [u64; 6])>>())
    else {
        return;
    };
    // A call has one rule, and a rule each argument once: of several, which one counts is libseccomp's business.
    let mut seen = HashSet::new();
    rules.retain(|(call, ..)| seen.insert(*call as usize % CALLS.len()));
    for (_, _, compares) in &mut rules {
        let mut seen = HashSet::new();
        compares.retain(|(index, ..)| seen.insert(index % 6));
    }
    let Ok(mut theirs) = ScmpFilterContext::new(action(default)) else { return };
    if rules.len() > 32 {
        let _ = theirs.set_ctl_optimize(2);
    }
    let mut listed = Vec::new();
    for (call, answer, compares) in &rules {
        let name = CALLS[*call as usize % CALLS.len()];
        let compares: Vec<_> =
            compares.iter().map(|(index, op, value, two)| (index % 6, op, *value, two & value)).collect();
        let args: Vec<_> = compares
            .iter()
            .map(|(index, op, value, two)| {
                serde_json::json!({"index": index, "op": OPERATORS[**op as usize % OPERATORS.len()], "value": value, "valueTwo": two})
            })
            .collect();
        listed.push(
            serde_json::json!({"names": [name], "action": ACTIONS[*answer as usize % ACTIONS.len()], "args": args}),
        );
        if action(*answer) == action(default) {
            continue;
        }
        let compares: Vec<_> = compares
            .iter()
            .map(|(index, op, value, two)| {
                let masked = **op as usize % OPERATORS.len() == 6;
                ScmpArgCompare::new(u32::from(*index), operator(**op, *value), if masked { *two } else { *value })
            })
            .collect();
        let number = ScmpSyscall::from_name(name).expect("a call of Linux");
        theirs.add_rule_conditional(action(*answer), number, &compares).expect("a rule");
    }
    let document = serde_json::json!({"defaultAction": ACTIONS[default as usize % ACTIONS.len()], "syscalls": listed});
    let document: LinuxSeccomp = serde_json::from_value(document).expect("a profile");
    let ours = profile::compile(&document).expect("a profile that libseccomp took").program;
    let newer = enosys::prologue(&document);
    let theirs = profile::export(&theirs).expect("a program");
    for (call, args) in calls {
        let name = CALLS[call as usize % CALLS.len()];
        let nr = if call > 250 { 600 } else { ScmpSyscall::from_name(name).expect("a call").into() };
        let data = Data { nr, arch: bpf::NATIVE, instruction_pointer: 0, args };
        let answer = bpf::run(&ours, &data);
        // The prologue falls through into the profile's own program, so alone it answers nothing but ENOSYS.
        let want = bpf::run(&newer, &data).or_else(|| bpf::run(&theirs, &data));
        assert_eq!(answer, want, "{name} {args:x?} {document:#?}");
    }
}
