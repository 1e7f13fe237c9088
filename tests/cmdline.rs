//! The command line against those of runc and crun, as these print it themselves, and what the options do that no other
//! suite holds.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use common::*;

/// Options that only crun has and that are different here on purpose (docs/compatibility.md).
const DIFFERENT: [(&str, &str); 3] = [("kill", "--regex"), ("delete", "--regex"), ("", "--usage")];

/// The long and short options in a help text; `,` and `=` end a name in both programs' texts.
fn options(help: &str) -> BTreeSet<String> {
    let lines = help.lines().map(str::trim_start).filter(|line| line.starts_with('-'));
    let words = lines.flat_map(|line| line.split("  ").next().unwrap_or_default().split([' ', ',', '=', '[']));
    words.filter(|word| word.len() > 1 && word.starts_with('-')).map(str::to_owned).collect()
}

fn help(program: &str, command: &str) -> Option<String> {
    let mut process = Command::new(program);
    if !command.is_empty() {
        process.arg(command);
    }
    let out = process.arg("--help").output().ok()?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    (!text.trim().is_empty()).then_some(text)
}

#[track_caller]
fn has_the_options_of(peer: &str, commands: &[&str]) {
    rustbox_only!();
    if help(peer, "").is_none() {
        skip!("no {peer} on this host");
    }
    let mut wrong = Vec::new();
    for command in commands {
        let theirs = options(&help(peer, command).unwrap_or_default());
        let ours = options(&help(binary().to_str().unwrap(), command).unwrap());
        let different = |option: &str| {
            DIFFERENT.iter().any(|(at, it)| (at.is_empty() || at == command) && *it == option)
                // The short forms of those, and of help; the help shows -V as another form of -v.
                || matches!((*command, option), ("kill" | "delete", "-r") | (_, "-?") | ("", "-V"))
        };
        assert!(*command == "state" || !theirs.is_empty(), "{peer} {command} has no help");
        wrong.extend(
            theirs.iter().filter(|it| !ours.contains(*it) && !different(it)).map(|it| format!("{command} {it}")),
        );
    }
    assert!(wrong.is_empty(), "{peer} has, and we have not: {wrong:#?}");
}

#[test]
fn every_option_of_runc_is_an_option_here() {
    has_the_options_of(
        "runc",
        &[
            "",
            "create",
            "run",
            "exec",
            "events",
            "update",
            "ps",
            "list",
            "kill",
            "delete",
            "checkpoint",
            "restore",
            "spec",
        ],
    );
}

#[test]
fn every_option_of_crun_is_an_option_here() {
    has_the_options_of(
        "crun",
        &["", "create", "run", "exec", "update", "ps", "list", "kill", "delete", "spec", "start", "pause", "resume"],
    );
}

#[test]
fn the_version_has_runcs_short_option_too() {
    let t = Test::new();
    let long = t.bare(&["--version"]).ok().stdout;
    assert_eq!(t.bare(&["-v"]).ok().stdout, long);
    not_under!(Runc, "has only one");
    assert_eq!(t.bare(&["-V"]).ok().stdout, long);
}

/// A line is first parsed for the command that it seems to call, by its first word that is any command's name.
#[test]
fn a_commands_name_elsewhere_in_the_line_calls_nothing() {
    rustbox_only!();
    let t = Test::new();
    let root = t.path("create");
    let root = root.to_str().unwrap();
    // As the value of an option, before the command and after it; as an argument.
    t.bare(&["--root", "create", "state", "delete"]).fails().says(&["delete"]);
    t.bare(&["--log", "delete", "--root", root, "list", "--quiet"]).ok();
    fs::remove_file(t.path("delete")).unwrap();
    t.bare(&["state", "--root", root, "create"]).fails().says(&["`create`"]);
    // Two commands are one too many; help is about what it is asked for.
    t.bare(&["--root", root, "state", "create", "list"]).usage().says(&["unexpected argument 'list'"]);
    assert!(t.bare(&["help", "create"]).ok().stdout.contains("Usage: rustbox create"));
    assert!(t.bare(&["create", "--help"]).ok().stdout.contains("Global options"));
    let version = t.bare(&["--version"]).ok().stdout;
    assert!(version.starts_with("rustbox version "), "{version}");
    assert_eq!(t.bare(&["-V", "list"]).ok().stdout, version);
    t.bare(&[]).usage().says(&["Usage: rustbox"]);
    t.bare(&["creat", "x"]).usage().says(&["unrecognized subcommand 'creat'", "create"]);
}

#[test]
fn a_configuration_may_have_another_name() {
    not_under!(Runc, "has no --config");
    let t = Test::new();
    let c = t.bundle(sh("echo other"));
    fs::rename(c.bundle.join("config.json"), c.bundle.join("other.json")).unwrap();
    assert_eq!(c.run_with(&["--config", "other.json"]).ok().line(), "other");
    let elsewhere = t.path("elsewhere.json");
    fs::rename(c.bundle.join("other.json"), &elsewhere).unwrap();
    assert_eq!(c.run_with(&["-f", elsewhere.to_str().unwrap()]).ok().line(), "other");
    c.run_with(&["--config", "missing.json"]).denied().rustbox_says(&["missing.json", "No such file"]);
    fs::write(&elsewhere, "{}").unwrap();
    c.create_with(&["--config", elsewhere.to_str().unwrap()])
        .denied()
        .rustbox_says(&["elsewhere.json", "$.ociVersion"]);
}

#[test]
fn no_subreaper_changes_nothing_that_a_container_sees() {
    let t = Test::new();
    let c = t.bundle(sh("sleep 0.01 & exit 3"));
    c.run_with(&["--no-subreaper"]).code(3);
    t.assert_nothing_left();
}

#[test]
fn the_cgroup_manager_can_be_named() {
    not_under!(Runc, "has no --cgroup-manager");
    let t = Test::new();
    let c = t.bundle(sh("true"));
    let bundle = ["--bundle", c.bundle.to_str().unwrap()];
    t.runtime(&[&["--cgroup-manager", "cgroupfs", "run"], &bundle[..], &[&c.id]].concat()).ok();
    if !std::path::Path::new("/run/systemd/system").exists() {
        let out = t.runtime(&[&["--cgroup-manager=systemd", "run"], &bundle[..], &[&c.id]].concat());
        out.denied().rustbox_says(&["slice:prefix:name"]);
    }
    t.runtime(&["--cgroup-manager", "astrology", "list"]).fails();
}

#[test]
fn spec_takes_a_file_name() {
    not_under!(Runc, "has no --file");
    let t = Test::new();
    t.bare(&["spec", "--bundle", t.dir.to_str().unwrap(), "--file", "mine.json"]).ok();
    let text = fs::read_to_string(t.path("mine.json")).unwrap();
    assert!(text.contains("ociVersion"));
    t.bare(&["spec", "-b", t.dir.to_str().unwrap(), "-f", "mine.json"]).fails();
    assert_eq!(fs::read_to_string(t.path("mine.json")).unwrap(), text);
}

#[test]
fn exec_tty_takes_a_word_as_crun_has_it() {
    not_under!(Runc, "its flag library takes `--tty=false` too, but not crun's short form");
    let t = Test::new();
    let c = t.bundle(spec().args(&["sleep", "1000"]));
    c.up();
    c.exec_with(&["--tty=false"], &["tty"]).code(1);
    c.kill_and_delete();
}

// ---------------------------------------------------------------------------------------------------------------------
// exec --cgroup

fn with_cgroups(t: &Test) -> Container<'_> {
    let c = t.bundle(spec().args(&["sleep", "1000"]));
    c.up();
    for controller in
        ["memory", "pids", "cpu", "cpuacct", "cpuset", "devices", "freezer", "blkio", "systemd", "unified"]
    {
        let below = c.cgroup_dir(controller).join("below");
        if c.cgroup_dir(controller).exists() {
            fs::create_dir(&below).unwrap();
        }
        if controller == "cpuset" {
            for file in ["cpuset.cpus", "cpuset.mems"] {
                fs::write(below.join(file), c.cgroup_file("cpuset", file)).unwrap();
            }
        }
    }
    c
}

#[test]
fn exec_enters_a_cgroup_below_the_containers() {
    not_under!(Crun, "refuses hybrid");
    let t = Test::new();
    let c = with_cgroups(&t);
    let own = format!("/{}", c.cgroup);
    let seen = |options: &[&str]| {
        let out = c.exec_with(options, &["cat", "/proc/self/cgroup"]).ok();
        let path = |controller: &str| {
            let line = out.stdout.lines().find(|line| line.contains(&format!(":{controller}:"))).unwrap_or_default();
            line.rsplit(':').next().unwrap_or_default().to_owned()
        };
        (path("memory"), path("pids"))
    };
    assert_eq!(seen(&[]), (own.clone(), own.clone()));
    assert_eq!(seen(&["--cgroup", "below"]), (format!("{own}/below"), format!("{own}/below")));
    assert_eq!(seen(&["--cgroup", "memory:below"]), (format!("{own}/below"), own.clone()));
    assert_eq!(
        seen(&["--cgroup", "memory:below", "--cgroup", "pids:/below"]),
        (format!("{own}/below"), format!("{own}/below"))
    );
    c.kill_and_delete();
    t.assert_nothing_left();
}

#[test]
fn exec_enters_no_cgroup_that_is_missing_or_outside() {
    let t = Test::new();
    let c = with_cgroups(&t);
    for path in ["nowhere", "memory:nowhere"] {
        c.exec_with(&["--cgroup", path], &["true"]).fails().rustbox_says(&["nowhere", "No such file"]);
    }
    for path in ["..", "../..", "memory:../..", "below/../../x"] {
        c.exec_with(&["--cgroup", path], &["true"]).usage().rustbox_says(&["--cgroup", path]);
    }
    c.exec_with(&["--cgroup", "astrology:below"], &["true"]).fails();
    c.exec(&["true"]).ok();
    c.kill_and_delete();
    t.assert_nothing_left();
}

#[test]
fn spec_asks_for_a_cgroup_namespace_on_v2_alone() {
    not_under!(Crun, "asks for one everywhere");
    let t = Test::new();
    t.bare(&["spec", "--bundle", t.dir.to_str().unwrap()]).ok();
    let config: serde_json::Value = serde_json::from_str(&fs::read_to_string(t.path("config.json")).unwrap()).unwrap();
    let namespaces = config["linux"]["namespaces"].as_array().unwrap();
    let asked = namespaces.iter().any(|namespace| namespace["type"] == "cgroup");
    assert_eq!(asked, std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists(), "{namespaces:?}");
}
