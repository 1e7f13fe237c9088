//! The same configurations by rustbox and by another runtime: what a container sees is the same, or the difference is on
//! the reviewed list with its reason.
//!
//! `RUSTBOX_DIFFERENTIAL=N` takes N configurations instead of a few, and from 300 on names the entries of the list that
//! nothing needed; `RUSTBOX_DIFFERENTIAL_SEED=TEXT` takes others; with `RUSTBOX_DIFFERENTIAL_SMALLER=1` what fails is shown made
//! smaller. About 0.1 s per configuration and peer.
//!
//! Its own harness, as libcontainer wants one thread only. Arguments are filters by the peer's name; each configuration
//! counts as a test.

mod common;
#[path = "differential/configurations.rs"]
mod configurations;
#[path = "differential/libcontainer.rs"]
mod libcontainer;
#[path = "differential/review.rs"]
mod review;
#[path = "differential/view.rs"]
mod view;

use std::env;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Stdio};

use common::*;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use oci_spec::runtime::Spec;
use proptest::strategy::{Strategy as _, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use configurations::{Surroundings, configurations};
use review::{Difference, List};
use view::{Runtime, Stage};

/// What `make test` holds against each peer, in some ten seconds; the whole is for `make differential`.
const FEW: [(&str, usize); 2] = [("crun", 30), ("libcontainer", 10)];
/// With so many each entry of the reviewed list should have been of use.
const WHOLE: usize = 300;
/// How often a configuration is made smaller to find what its first unknown difference is about.
const SMALLER: usize = 60;

/// A process whose namespaces containers may join.
struct Holder(Child);

impl Holder {
    fn start(t: &Test) -> Self {
        let mut command = Command::new("unshare");
        command.args(["--net", "--ipc", "--uts", "sleep", "1000"]).env_clear().env("PATH", "/usr/bin:/bin");
        let child = command.env("RUSTBOX_TEST", &t.tag).stdin(Stdio::null()).spawn().unwrap();
        let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/uts")).unwrap();
        until("the namespaces of the holder", || namespace(&child.id().to_string()) != namespace("self"));
        Holder(child)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A mount namespace for this thread and what it starts, without the v2 hierarchy: crun refuses one beside v1.
fn without_hybrid() {
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
    let unified = "/sys/fs/cgroup/unified";
    if umount2(unified, MntFlags::empty()).is_ok() {
        // crun makes directories where it was.
        mount(Some("tmpfs"), unified, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
    }
}

/// A /dev/null of the test's own: crun gives the caller's away to the container's user.
fn with_own_null(t: &Test) {
    let place = t.path("dev");
    std::fs::create_dir(&place).unwrap();
    mount(Some("tmpfs"), &place, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
    let null = place.join("null");
    mknod(&null, SFlag::S_IFCHR, Mode::empty(), makedev(1, 3)).unwrap();
    std::fs::set_permissions(&null, std::fs::Permissions::from_mode(0o666)).unwrap();
    mount(Some(&null), "/dev/null", None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
}

/// One configuration as it is written down for a container of this number.
fn text(t: &Test, spec: &Spec, number: usize) -> String {
    let mut config = serde_json::to_value(spec).unwrap();
    config["linux"]["cgroupsPath"] = format!("/rustbox-test-{}-{number}", t.tag).into();
    serde_json::to_string_pretty(&config).unwrap()
}

/// What a peer's run over all configurations came to.
#[derive(Debug, Default)]
struct Tally {
    equal: usize,
    reviewed: usize,
    refused: usize,
    failed: usize,
}

/// The configurations, and what two runtimes make of each.
struct Comparison<'t> {
    t: &'t Test,
    stage: Stage<'t>,
    rustbox: Runtime,
    peer: &'t Runtime,
    number: usize,
}

impl Comparison<'_> {
    /// The words of a refusal by both, and the differences.
    fn of(&mut self, spec: &Spec) -> (Option<String>, Vec<Difference>) {
        self.number += 1;
        let config = text(self.t, &self.within_reach(spec), self.number);
        let ours = self.stage.view(&self.rustbox, self.number, &config);
        let theirs = self.stage.view(self.peer, self.number, &config);
        let both = theirs.get("refused").and(ours.get("refused")).cloned();
        (both, review::differences(&ours, &theirs))
    }

    /// Without what this build of the peer cannot be asked for.
    fn within_reach(&self, spec: &Spec) -> Spec {
        let mut spec = spec.clone();
        if self.peer.name == "libcontainer" {
            // Its seccomp is a feature that rustbox does not build: docs/decisions/0004-seccomp.md.
            spec.linux_mut().as_mut().unwrap().set_seccomp(None);
            // It sets the sets one by one and fails on the way where they are not one and the same.
            let process = spec.process_mut().as_mut().unwrap();
            if let Some(mut sets) = process.capabilities().clone() {
                let all = sets.bounding().clone();
                sets.set_effective(all.clone())
                    .set_permitted(all.clone())
                    .set_inheritable(all.clone())
                    .set_ambient(all);
                process.set_capabilities(Some(sets));
            }
        }
        spec
    }

    /// Makes the configuration smaller as long as the same key differs.
    fn smaller(&mut self, tree: &mut impl ValueTree<Value = Spec>, wanted: &Difference) -> Spec {
        let mut last = tree.current();
        for _ in 0..SMALLER {
            if self.of(&tree.current()).1.iter().any(|it| it.key == wanted.key) {
                last = tree.current();
                if !tree.simplify() {
                    break;
                }
            } else if !tree.complicate() {
                break;
            }
        }
        last
    }
}

fn compare(peer: &Runtime, count: usize, seed: &str) -> Tally {
    let t = Test::new();
    with_own_null(&t);
    let holder = Holder::start(&t);
    let around = Surroundings {
        holder: holder.0.id(),
        source: t.path("source").display().to_string(),
        mark: format!("RUSTBOX_TEST={}", t.tag),
    };
    let rustbox = Runtime { name: "rustbox", program: binary().to_owned(), words: &[] };
    let mut comparison = Comparison { t: &t, stage: Stage::new(&t, holder.0.id()), rustbox, peer, number: 0 };
    let list = List::read();

    let mut bytes = [0; 32];
    for (at, byte) in seed.bytes().enumerate() {
        bytes[at % 32] ^= byte;
    }
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(Config { failure_persistence: None, ..Config::default() }, rng);
    let strategy = configurations(&around);
    let mut tally = Tally::default();
    for index in 1..=count {
        let mut tree = strategy.new_tree(&mut runner).unwrap();
        let (refused, found) = comparison.of(&tree.current());
        let equal = found.is_empty();
        let unknown = list.unknown(peer.name, found);
        match refused {
            _ if !unknown.is_empty() => {
                tally.failed += 1;
                println!("{}, configuration {index}: differences that nobody has looked at:", peer.name);
                unknown.iter().for_each(|it| println!("  {it}"));
                let small = match env::var_os("RUSTBOX_DIFFERENTIAL_SMALLER") {
                    Some(_) => comparison.smaller(&mut tree, &unknown[0]),
                    None => tree.current(),
                };
                println!("{}", brief(&t, &comparison.within_reach(&small)));
            }
            Some(reason) => {
                tally.refused += 1;
                println!("{}, configuration {index}: both refuse it; rustbox: {reason}", peer.name);
            }
            None if equal => tally.equal += 1,
            None => tally.reviewed += 1,
        }
    }
    drop(holder);
    println!(
        "{}: {count} configurations: {} equal, {} with reviewed differences only, {} with others, {} refused by both",
        peer.name, tally.equal, tally.reviewed, tally.failed, tally.refused
    );
    if tally.refused * 20 > count {
        println!("too many that no runtime takes: they are to be valid ones");
        tally.failed += 1;
    }
    for entry in list.unused(peer.name).into_iter().filter(|_| count >= WHOLE) {
        println!("reviewed.toml: nothing needed the entry against {}: {} (`{}`)", peer.name, entry.key, entry.peer);
    }
    tally
}

/// The configuration without the probe's arguments.
fn brief(t: &Test, spec: &Spec) -> String {
    let mut spec = spec.clone();
    spec.process_mut().as_mut().unwrap().set_args(None);
    text(t, &spec, 0)
}

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if arguments.first().is_some_and(|it| it == "libcontainer-peer") {
        if let Err(error) = libcontainer::main(&arguments[1..]) {
            let causes = std::iter::successors(Some(error.as_ref() as &dyn std::error::Error), |it| it.source());
            eprintln!("{}", causes.map(ToString::to_string).collect::<Vec<_>>().join(": "));
            std::process::exit(1);
        }
        return;
    }
    let crun = Runtime { name: "crun", program: "/usr/bin/crun".into(), words: &[] };
    let itself = env::current_exe().unwrap();
    let libcontainer = Runtime { name: "libcontainer", program: itself, words: &["libcontainer-peer"] };
    let filter = arguments.iter().find(|it| !it.starts_with('-'));
    let peers = [crun, libcontainer].into_iter().filter(|peer| filter.is_none_or(|it| peer.name.contains(it.as_str())));
    if arguments.iter().any(|it| it == "--list") {
        peers.for_each(|peer| println!("{}: test", peer.name));
        return;
    }
    let all = env::var("RUSTBOX_DIFFERENTIAL").ok().map(|it| it.parse().expect("a number of configurations"));
    let seed = env::var("RUSTBOX_DIFFERENTIAL_SEED").unwrap_or_else(|_| "rustbox".to_owned());
    println!("seed {seed}");
    without_hybrid();
    let (mut passed, mut failed, mut ignored) = (0, 0, 0);
    for runtime in peers {
        if peer() != Peer::Rustbox || !runtime.program.exists() {
            println!("{}: skipped: it is not here, or rustbox is not under test", runtime.name);
            ignored += 1;
            continue;
        }
        let few = FEW.iter().find(|(name, _)| *name == runtime.name).map_or(0, |(_, few)| *few);
        let tally = compare(&runtime, all.unwrap_or(few), &seed);
        passed += tally.equal + tally.reviewed;
        ignored += tally.refused;
        failed += tally.failed;
    }
    let word = if failed == 0 { "ok" } else { "FAILED" };
    println!("\ntest result: {word}. {passed} passed; {failed} failed; {ignored} ignored\n");
    std::process::exit(if failed == 0 { 0 } else { 101 });
}
