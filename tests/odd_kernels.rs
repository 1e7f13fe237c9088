//! Old kernels and outer filters: each newer system call is answered by ENOSYS, as a kernel without it answers, and by EPERM, as a
//! filter of an older engine does. What can be done otherwise is, with the same result; the rest is refused by the call's name.

mod common;

use std::process::Command;

use common::*;

/// The runtime where a call fails with an errno, in it and in all that it starts.
fn without(test: &Test, call: &str, errno: &str, args: &[&str]) -> Out {
    let mut command = Command::new("strace");
    command.args(["-D", "-f", "-qq", "-o", "/dev/null", "-e", &format!("inject={call}:error={errno}")]);
    command.arg(binary()).arg("--root").arg(&test.root).args(args);
    test.finish(command)
}

macro_rules! strace_only {
    () => {
        rustbox_only!();
        if !std::path::Path::new("/usr/bin/strace").exists() {
            skip!("there is no strace to make calls fail");
        }
    };
}

/// What a process sees of what the calls are for: mounts and their options, descriptors, ids, capabilities, cgroups.
const VIEW: &str = "cut -d' ' -f4- /proc/self/mountinfo | sed 's/ [a-z]*:[0-9]* / /; s/rustbox-test[^ ]*//g'; \
    grep -E '^(Cap|NoNewPrivs|Seccomp|Uid|Gid|Groups)' /proc/self/status; ls /proc/self/fd | head -n 4; cat /proc/1/cgroup | \
    sed 's/rustbox-test[^/]*//'";

fn configuration(volume: &std::path::Path, script: &str) -> Spec {
    sh(script)
        .bind(volume.to_str().unwrap(), "/link/volume", &["rbind", "ro"])
        .tmpfs("/made/below", &["nosuid", "size=1m"])
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

/// A life in commands, and a process beside: the view of each.
fn life(t: &Test, run: &dyn Fn(&[&str]) -> Out) -> String {
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

fn same_life_without(call: &str) {
    let expected = {
        let t = Test::new();
        life(&t, &|args| t.runtime(args))
    };
    for errno in ["ENOSYS", "EPERM"] {
        let t = Test::new();
        assert_eq!(life(&t, &|args| without(&t, call, errno, args)), expected, "{call} with {errno}");
    }
}

#[test]
fn without_clone3_a_container_lives_the_same() {
    strace_only!();
    same_life_without("clone3");
}

#[test]
fn without_openat2_a_container_lives_the_same() {
    strace_only!();
    same_life_without("openat2");
}

#[test]
fn without_close_range_a_container_lives_the_same() {
    strace_only!();
    same_life_without("close_range");
}

#[test]
fn without_faccessat2_a_container_lives_the_same() {
    strace_only!();
    same_life_without("faccessat2");
}

#[test]
fn without_all_that_can_be_done_otherwise_a_container_lives_the_same() {
    strace_only!();
    same_life_without("clone3,openat2,close_range,faccessat2");
}

#[test]
fn without_openat2_no_path_leads_out_of_the_root() {
    strace_only!();
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
    strace_only!();
    for call in ["clone3", "openat2", "close_range", "faccessat2", "clone3,openat2,close_range,faccessat2"] {
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
    strace_only!();
    for call in ["mount_setattr", "move_mount", "open_tree", "fsopen", "fsmount"] {
        for errno in ["ENOSYS", "EPERM"] {
            let t = Test::new();
            let c = prepared(&t, "true");
            let bundle = c.bundle.to_str().unwrap().to_owned();
            let out = without(&t, call, errno, &["create", "--bundle", &bundle, &c.id]).code(1);
            let how = if errno == "ENOSYS" { "missing" } else { "blocked" };
            out.says(&[&format!("{call} is {how} (needs Linux 5.")]);
            t.assert_nothing_left();
        }
    }
}

#[test]
fn a_container_can_be_ended_where_its_processes_cannot_be_held() {
    strace_only!();
    for call in ["pidfd_open", "pidfd_send_signal"] {
        let t = Test::new();
        let c = t.bundle(spec().args(&["sleep", "1000"]));
        c.up();
        without(&t, call, "ENOSYS", &["kill", &c.id, "KILL"])
            .fails()
            .says(&[&format!("{call} is missing (needs Linux 5.")]);
        assert_eq!(c.status(), "running");
        c.kill_and_delete();
        t.assert_nothing_left();
    }
}

#[test]
fn reports_name_the_calls_that_are_not_there_and_what_is_done_instead() {
    strace_only!();
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
