//! Old kernels and outer filters: each newer system call is answered by ENOSYS, as a kernel without it answers, and by EPERM, as a
//! filter of an older engine does. What can be done otherwise is, with the same result; the rest is refused by the call's name.
//! `integration/kernels/run` holds whole suites where all of them fail at once.

mod common;

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use common::*;

/// The runtime where calls fail with an errno, in it and in all that it starts.
fn without(test: &Test, calls: &str, errno: &str, args: &[&str]) -> Out {
    test.finish(filtered(test, calls, errno, args))
}

fn filtered(test: &Test, calls: &str, errno: &str, args: &[&str]) -> Command {
    let mut command = Command::new(filter().unwrap());
    command.args([errno, calls]).arg(binary()).arg("--root").arg(&test.root).args(args);
    command
}

/// The program that installs the filter; nothing where there is no compiler for it.
fn filter() -> Option<&'static Path> {
    static FILTER: OnceLock<Option<PathBuf>> = OnceLock::new();
    let build = || {
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/integration/kernels/without.c");
        let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("without");
        let built = Command::new("gcc").args(["-D_GNU_SOURCE", "-O2", "-o"]).arg(&program).arg(source).output().ok()?;
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        Some(program)
    };
    FILTER.get_or_init(build).as_deref()
}

macro_rules! filter_only {
    () => {
        rustbox_only!();
        if filter().is_none() {
            skip!("there is no compiler for the filter that makes calls fail");
        }
    };
}

/// The calls that mount what is detached.
const MOUNTS: &str = "mount_setattr,move_mount,open_tree,fsopen,fsmount";
/// All that a judged run can do without.
const JUDGED: &str =
    "clone3,openat2,close_range,faccessat2,statx,pidfd_open,mount_setattr,move_mount,open_tree,fsopen,fsmount";
/// All that a container can do without.
const ALL: &str = "clone3,openat2,close_range,faccessat2,statx,pidfd_open,pidfd_send_signal,pidfd_getfd,mount_setattr,\
    move_mount,open_tree,fsopen,fsmount";

/// What a process sees of what the calls are for: mounts and their options, descriptors, ids, capabilities, cgroups. A file is masked
/// by the host's null device, or by the container's where that of the host can be kept no longer.
const VIEW: &str = "cut -d' ' -f4- /proc/self/mountinfo | sed 's/ [a-z]*:[0-9]* / /; s/rustbox-test[^ ]*//g; \
    s/^.null \\(.proc[^ ]*\\) .*/null \\1/' | sort; \
    grep -E '^(Cap|NoNewPrivs|Uid|Gid|Groups)' /proc/self/status; ls /proc/self/fd | head -n 4; cat /proc/1/cgroup | \
    sed 's/rustbox-test[^/]*//'";

fn configuration(volume: &std::path::Path, script: &str) -> Spec {
    sh(script)
        .bind(volume.to_str().unwrap(), "/link/volume", &["rbind", "ro"])
        // With whatever the host has mounted below.
        .bind("/sys", "/made/sys", &["rbind", "rro", "rnosuid", "noexec", "rslave"])
        .bind("/etc/hostname", "/made/file", &["bind", "nodev", "noatime"])
        .tmpfs("/made/below", &["nosuid", "size=1m"])
        .tmpfs("/etc", &["tmpcopyup", "size=1m", "ro"])
        .writable()
}

/// A root file system with a link on the way to a mount point, and one that would lead out.
fn prepared<'t>(t: &'t Test, script: &str) -> Container<'t> {
    let volume = t.path("volume");
    std::fs::create_dir_all(&volume).unwrap();
    std::fs::write(volume.join("file"), "here\n").unwrap();
    let c = t.bundle(configuration(&volume, script));
    std::fs::create_dir(c.rootfs().join("inside")).unwrap();
    std::os::unix::fs::symlink("/../../../inside", c.rootfs().join("link")).unwrap();
    c
}

/// Runs the runtime with arguments, with all calls or without some.
type Run<'r> = dyn Fn(&[&str]) -> Out + 'r;

/// A life in commands, and a process beside: the view of each.
fn life(t: &Test, run: &Run<'_>) -> String {
    let c = prepared(t, &format!("{VIEW}; cat /link/volume/file; sleep 1000"));
    let bundle = c.bundle.to_str().unwrap().to_owned();
    // The container's output goes where the command's goes.
    let created = run(&["create", "--bundle", &bundle, &c.id]).ok();
    assert_eq!(created.stderr, "");
    t.remember(c.pid());
    run(&["start", &c.id]).ok();
    let seen = || {
        let files = std::fs::read_dir(t.path("io")).unwrap().flatten();
        files.filter_map(|file| std::fs::read_to_string(file.path()).ok()).find(|text| text.contains("here\n"))
    };
    until("the view", || seen().is_some());
    let added = run(&["exec", &c.id, "sh", "-c", VIEW]).ok().stdout;
    run(&["kill", &c.id, "KILL"]).ok();
    c.wait_status("stopped");
    run(&["delete", &c.id]).ok();
    t.assert_nothing_left();
    // Each look has a directory of its own open.
    format!("{}--- exec\n{added}", seen().unwrap())
}

fn same_life_without(calls: &str) {
    same_without(&[calls], &life);
}

/// What `look` sees by the runtime alone it sees without each of the sets of calls, however they fail.
fn same_without(sets: &[&str], look: &dyn Fn(&Test, &Run<'_>) -> String) {
    let t = Test::new();
    let expected = look(&t, &|args| t.runtime(args));
    for calls in sets {
        for errno in ["ENOSYS", "EPERM"] {
            let t = Test::new();
            assert_eq!(look(&t, &|args| without(&t, calls, errno, args)), expected, "{calls} with {errno}");
        }
    }
}

#[test]
fn without_clone3_a_container_lives_the_same() {
    filter_only!();
    same_life_without("clone3");
}

#[test]
fn without_openat2_a_container_lives_the_same() {
    filter_only!();
    same_life_without("openat2");
}

#[test]
fn without_close_range_a_container_lives_the_same() {
    filter_only!();
    same_life_without("close_range");
}

#[test]
fn without_faccessat2_a_container_lives_the_same() {
    filter_only!();
    same_life_without("faccessat2");
}

#[test]
fn without_detached_mounts_a_container_lives_the_same() {
    filter_only!();
    same_without(&["mount_setattr", "move_mount", "open_tree", "fsopen", "fsmount", MOUNTS], &life);
}

#[test]
fn without_pidfds_of_others_a_container_lives_the_same() {
    filter_only!();
    same_without(&["pidfd_open", "pidfd_send_signal", "pidfd_open,pidfd_send_signal", "pidfd_getfd", "statx"], &life);
}

#[test]
fn without_all_that_can_be_done_otherwise_a_container_lives_the_same() {
    filter_only!();
    same_life_without(ALL);
}

/// In a user namespace whose ids may search no directory on the way to the root file system and to a source.
#[test]
fn without_detached_mounts_a_user_namespace_gets_what_it_cannot_reach() {
    filter_only!();
    let life = |t: &Test, run: &Run<'_>| {
        let closed = t.path("closed");
        std::fs::create_dir_all(closed.join("volume")).unwrap();
        std::fs::write(closed.join("volume/file"), "here\n").unwrap();
        std::fs::set_permissions(&closed, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        let volume = closed.join("volume");
        let script = format!("{VIEW}; cat /volume/file; touch /volume/no; ls -l /dev/null /dev/tty; ls -a /..");
        let c =
            t.bundle(sh(&script).bind(volume.to_str().unwrap(), "/volume", &["bind", "ro"]).userns(700_000, 65_536));
        std::fs::create_dir(c.rootfs().join("volume")).unwrap();
        let inside = closed.join("bundle");
        std::fs::rename(&c.bundle, &inside).unwrap();
        let out = run(&["run", "--bundle", inside.to_str().unwrap(), &c.id]);
        assert!(!out.stderr.contains("cleanup"), "{}", out.stderr);
        t.assert_nothing_left();
        assert!(out.stdout.contains("here\n") && out.stderr.contains("Read-only file system"), "{out:?}");
        out.stdout
    };
    same_without(&["mount_setattr", "open_tree", MOUNTS, ALL], &life);
}

#[test]
fn without_detached_mounts_nothing_of_the_host_is_behind_the_root() {
    filter_only!();
    for spec in [spec(), spec().userns(700_000, 65_536), spec().set("/linux/rootfsPropagation", json!("rshared"))] {
        let t = Test::new();
        let c = t.bundle(spec.args(&["sleep", "1000"]));
        let bundle = c.bundle.to_str().unwrap().to_owned();
        without(&t, MOUNTS, "ENOSYS", &["create", "--bundle", &bundle, &c.id]).ok();
        // Who enters its mount namespace stands on what is mounted last on the root.
        let root = |entered: &[&str]| {
            let pid = c.pid().to_string();
            let out = Command::new("nsenter").args(["-t", &pid, "-m"]).args(entered).output().unwrap();
            String::from_utf8(out.stdout).unwrap()
        };
        assert_eq!(root(&["/bin/busybox", "ls", "/"]), root(&["/bin/busybox", "ls", "/.."]));
        assert!(!root(&["/bin/busybox", "ls", "/"]).contains("boot"));
        let mounts = root(&["/bin/busybox", "cat", &format!("/proc/{}/mountinfo", 1)]);
        assert!(!mounts.contains(" - tmpfs tmpfs rw,mode=700"), "{mounts}");
        c.kill_and_delete();
        t.assert_nothing_left();
    }
}

#[test]
fn without_detached_mounts_nobody_in_a_container_stands_in_the_hosts_procfs() {
    filter_only!();
    let stands_in_root = |pid: &str| {
        let place = |link: &str| {
            let stat = std::fs::metadata(format!("/proc/{pid}/{link}")).unwrap();
            (stat.dev(), stat.ino())
        };
        assert_eq!(place("cwd"), place("root"));
    };
    for call in ["mount_setattr", MOUNTS, JUDGED] {
        let t = Test::new();
        // As a judged sandbox, whose first process stays, and as a container that waits to be started.
        let c = t.bundle(sh("sleep 1000").hook("startContainer", "pwd > /dev/shm/at; ls -a ../.. > /dev/shm/above"));
        let bundle = c.bundle.to_str().unwrap().to_owned();
        without(&t, call, "ENOSYS", &["create", "--bundle", &bundle, &c.id]).ok();
        stands_in_root(&c.pid().to_string());
        without(&t, call, "ENOSYS", &["start", &c.id]).ok();
        let seen =
            c.exec(&["sh", "-c", "cat /dev/shm/at; ls -a / | cmp - /dev/shm/above && echo the root"]).ok().stdout;
        assert_eq!(seen, "/\nthe root\n", "{call}");
        c.kill_and_delete();

        let args = ["run", "--json", "--language", "sh", "--code", "sleep 2"];
        let judge = t.spawn(filtered(&t, call, "ENOSYS", &args), std::process::Stdio::null());
        // The outermost that is inside.
        let root = |pid: &str| std::fs::metadata(format!("/proc/{pid}/root")).ok().map(|it| it.ino());
        let mut first = None;
        until("the first process of the sandbox", || {
            let mut all = children(judge.pid());
            while first.is_none() && !all.is_empty() {
                first =
                    all.iter().find(|pid| root(&pid.to_string()).is_some_and(|it| Some(it) != root("self"))).copied();
                all = all.into_iter().flat_map(children).collect();
            }
            first.is_some_and(|pid| !children(pid).is_empty())
        });
        stands_in_root(&first.unwrap().to_string());
        judge.wait().ok();
        t.assert_nothing_left();
    }
}

fn children(pid: i32) -> Vec<i32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

#[test]
fn without_detached_mounts_the_hosts_root_is_no_containers() {
    filter_only!();
    let t = Test::new();
    let before = std::fs::read_dir("/").unwrap().count();
    let c = t.bundle(spec().args(&["/bin/true"]).set("/root/path", json!("/")));
    let bundle = c.bundle.to_str().unwrap().to_owned();
    let out = without(&t, MOUNTS, "ENOSYS", &["run", "--bundle", &bundle, &c.id]).fails();
    out.says(&["$.root.path: `/` needs a kernel with detached mounts"]);
    assert_eq!(std::fs::read_dir("/").unwrap().count(), before);
    t.assert_nothing_left();
}

#[test]
fn without_detached_mounts_the_stage_stays_out_of_the_callers_namespace() {
    filter_only!();
    let t = Test::new();
    let mut spec = sh("echo in").set("/linux/rootfsPropagation", json!("rshared")).unset("/linux/resources");
    for point in ["/sys/fs/cgroup", "/dev/pts"] {
        spec = spec.without_mount(point);
    }
    let c = t.bundle(spec);
    // In a user namespace of its own, and below a mount that is not that of the root.
    let script = format!(
        "mount --make-rshared / && mount -t tmpfs none {0} && cp -a {1} {0}/b && mount --make-private {0} && \
        {2} ENOSYS {MOUNTS} {3} --root {4} --rootless=true run -b {0}/b {5} 2>&1; grep -c mode=700 /proc/self/mountinfo; ls /..",
        t.path("io").display(),
        c.bundle.display(),
        filter().unwrap().display(),
        binary().display(),
        t.root.display(),
        c.id,
    );
    let mut command = Command::new("unshare");
    command.args(["-U", "-r", "-m", "--propagation", "unchanged", "/bin/sh", "-c", &script]);
    let out = t.finish(command);
    assert!(out.stdout.starts_with("in\n0\n") && out.stdout.contains("\nusr\n"), "{out:?}");
}

#[test]
fn without_openat2_no_path_leads_out_of_the_root() {
    filter_only!();
    for errno in ["ENOSYS", "EPERM"] {
        let t = Test::new();
        std::fs::create_dir(t.path("outside")).unwrap();
        let c = t.bundle(spec().writable().tmpfs("/trap/made", &[]).args(&["ls", "-d", "/inside/made"]));
        let out = format!("/../../../../../../{}/outside", t.dir.display());
        std::os::unix::fs::symlink(&out, c.rootfs().join("trap")).unwrap();
        let bundle = c.bundle.to_str().unwrap().to_owned();
        without(&t, "openat2", errno, &["run", "--bundle", &bundle, &c.id]).fails();
        assert_eq!(std::fs::read_dir(t.path("outside")).unwrap().count(), 0);
        // The link was taken for one inside the root.
        assert!(c.rootfs().join(t.dir.strip_prefix("/").unwrap()).join("outside/made").is_dir());
        t.assert_nothing_left();
    }
}

#[test]
fn a_judged_run_has_the_same_verdict() {
    filter_only!();
    for call in ["clone3", "openat2", "close_range", "faccessat2", "statx", "pidfd_open", MOUNTS, JUDGED] {
        for errno in ["ENOSYS", "EPERM"] {
            let t = Test::new();
            let out = without(&t, call, errno, &["run", "--json", "--code", "cat; echo 7", "--language", "sh"]);
            let verdict = out.ok().json();
            assert_eq!(
                (&verdict["status"], &verdict["stdout"]),
                (&"OK".into(), &"7\n".into()),
                "{call} {errno}: {verdict:#}"
            );
            assert_eq!(verdict["cleanup"]["proved"], true);
            t.assert_nothing_left();
        }
    }
}

#[test]
fn what_cannot_be_done_otherwise_is_refused_by_its_name_and_leaves_nothing() {
    filter_only!();
    for errno in ["ENOSYS", "EPERM"] {
        let how = if errno == "ENOSYS" { "missing" } else { "blocked" };
        let t = Test::new();
        let source = t.path("source");
        std::fs::create_dir(&source).unwrap();
        let mappings = json!([{ "containerID": 0, "hostID": 700_000, "size": 65_536 }]);
        let mount = json!({ "destination": "/mapped", "source": source, "options": ["bind", "idmap"],
            "uidMappings": mappings, "gidMappings": mappings });
        for spec in [spec().mount(mount.clone()), spec().mount(mount).userns(700_000, 65_536)] {
            let c = t.bundle(spec);
            let bundle = c.bundle.to_str().unwrap().to_owned();
            let out = without(&t, "mount_setattr", errno, &["create", "--bundle", &bundle, &c.id]).code(1);
            out.says(&[&format!("mount_setattr is {how} (instead remounts; ids of mounts cannot be mapped)")]);
            t.assert_nothing_left();
        }

        // A signal that could reach another process is none that a judge sends.
        let out = without(&t, "pidfd_send_signal", errno, &["run", "--code", "true", "--language", "sh"]).code(4);
        out.says(&["no pidfd_send_signal: a pid may be another's by then"]);
        t.assert_nothing_left();
    }
}

#[test]
fn reports_name_the_calls_that_are_not_there_and_what_is_done_instead() {
    filter_only!();
    let t = Test::new();
    let table = without(&t, "clone3", "EPERM", &["--dry-run", "run", "--", "/bin/true"]).ok();
    assert!(
        table.stdout.contains("clone3 is blocked (instead clone, and the child enters its v2 cgroup itself)"),
        "{}",
        table.stdout
    );
    let report = without(&t, "openat2", "ENOSYS", &["--dry-run", "run", "--json", "--", "/bin/true"]).ok().json();
    assert_eq!(report["calls"], "openat2 is missing (instead the path's components one by one)");
    let plain = t.runtime(&["--dry-run", "run", "--json", "--", "/bin/true"]).ok().json();
    assert_eq!(plain["calls"], serde_json::Value::Null);

    t.runtime(&["health", "--check"]).ok();
    let health = without(&t, "close_range", "ENOSYS", &["health", "--json"]).json();
    assert_eq!(health["backends"]["calls"], json!({"close_range": "missing"}));
    let changed = health["changed"].to_string();
    assert!(changed.contains("system call close_range was there and is missing"), "{changed}");
    let metrics = without(&t, "clone3", "ENOSYS", &["metrics"]).ok().stdout;
    assert!(metrics.contains("rustbox_backend_call{call=\"clone3\"} 0\n"), "{metrics}");
    assert!(metrics.contains("rustbox_backend_call{call=\"openat2\"} 1\n"), "{metrics}");
}
