//! Without privilege: a user runs containers with its own id alone or with the ranges that it was given, with a cgroup that was
//! delegated to it or with none, and below a user namespace of its own.

mod common;

use std::os::unix::fs::{PermissionsExt as _, chown};
use std::process::Command;

use common::*;

/// Nobody's on any machine that runs tests.
const USER: u32 = 4321;

/// A test whose state belongs to the user, and whose files it may read.
fn test() -> Test {
    let t = Test::new();
    for dir in [&t.root, &t.path("worker"), &t.path("run")] {
        std::fs::create_dir_all(dir).unwrap();
        chown(dir, Some(USER), Some(USER)).unwrap();
    }
    std::fs::set_permissions(&t.dir, std::fs::Permissions::from_mode(0o755)).unwrap();
    t
}

/// A command of the user's, after what a shell does as root in a mount namespace of its own.
fn as_user(t: &Test, before: &str, args: &[&str]) -> Out {
    let mut command = Command::new("unshare");
    let own = format!("{before}\nexec setpriv --reuid {USER} --regid {USER} --clear-groups \"$@\"");
    command
        .args(["--mount", "sh", "-ec", &own, "sh", "env"])
        .arg(format!("XDG_RUNTIME_DIR={}", t.path("run").display()));
    command.arg(binary()).arg("--root").arg(&t.root).args(args);
    t.finish(command)
}

fn user(t: &Test, args: &[&str]) -> Out {
    as_user(t, "", args)
}

/// One mapping of ids, the same for users and groups.
fn mapped(spec: Spec, mappings: &[(u32, u32, u32)]) -> Spec {
    let list: Vec<_> =
        mappings.iter().map(|(id, host, size)| json!({"containerID": id, "hostID": host, "size": size})).collect();
    spec.namespace(json!({"type": "user"}))
        .patch(json!({"linux": {"uidMappings": list, "gidMappings": list, "cgroupsPath": ""}}))
}

fn alone(spec: Spec) -> Spec {
    mapped(spec, &[(0, USER, 1)]).without_mount("/dev/pts")
}

fn run(t: &Test, c: &Container<'_>, options: &[&str]) -> Out {
    let words = [options, &["run", "--bundle", c.bundle.to_str().unwrap(), &c.id]].concat();
    user(t, &words)
}

#[test]
fn a_user_runs_with_its_own_id_alone_and_is_told_what_it_has_not() {
    rustbox_only!();
    let t = test();
    let c = t.bundle(alone(sh("id -u; cat /proc/self/uid_map /proc/self/setgroups | tr -s ' '")));
    for option in [&[][..], &["--rootless", "auto"], &["--rootless", "true"], &["--rootless=true"]] {
        let out = run(&t, &c, option).ok();
        assert_eq!(out.stdout, format!("0\n 0 {USER} 1\ndeny\n"), "{option:?}");
        assert!(out.stderr.contains("no cgroup of its own"), "{out:#?}");
    }
    t.assert_nothing_left();
}

#[test]
fn whoever_says_that_there_is_privilege_is_believed_and_refused_by_the_kernel() {
    rustbox_only!();
    let t = test();
    let c = t.bundle(mapped(sh("true"), &[(0, USER, 1)]));
    run(&t, &c, &["--rootless", "false"]).fails();
    user(&t, &["--rootless", "sometimes", "list"]).usage();
    t.assert_nothing_left();
}

#[test]
fn the_words_of_a_program_are_its_own() {
    rustbox_only!();
    let t = test();
    let c = t.bundle(alone(spec().args(&["sleep", "1000"])));
    user(&t, &["create", "--bundle", c.bundle.to_str().unwrap(), &c.id]).ok();
    t.remember(c.pid());
    user(&t, &["start", &c.id]).ok();
    assert_eq!(user(&t, &["exec", &c.id, "echo", "--rootless", "true"]).ok().line(), "--rootless true");
    user(&t, &["delete", "--force", &c.id]).ok();
    t.assert_nothing_left();
}

/// The life of a container, each command the user's.
fn life(t: &Test, c: &Container<'_>, before: &str) {
    as_user(t, before, &["create", "--bundle", c.bundle.to_str().unwrap(), &c.id]).ok();
    t.remember(c.pid());
    user(t, &["start", &c.id]).ok();
    assert_eq!(user(t, &["state", &c.id]).ok().json()["status"], "running");
    assert_eq!(user(t, &["exec", &c.id, "id", "-u"]).ok().line(), "0");
    user(t, &["kill", &c.id, "KILL"]).ok();
    c.wait_status("stopped");
    user(t, &["delete", &c.id]).ok();
    t.assert_nothing_left();
}

#[test]
fn a_users_container_has_a_whole_life() {
    rustbox_only!();
    let t = test();
    life(&t, &t.bundle(alone(spec().args(&["sleep", "1000"]))), "");
}

/// A user database in which the user has ranges of ids, for one mount namespace.
fn with_ranges(t: &Test, range: &str) -> String {
    let dir = t.dir.display();
    let users = std::fs::read_to_string("/etc/passwd").unwrap() + &format!("ranger:x:{USER}:{USER}::/:/bin/sh\n");
    std::fs::write(t.path("passwd"), users).unwrap();
    std::fs::write(t.path("subid"), format!("ranger:{range}\n")).unwrap();
    let binds = [("passwd", "passwd"), ("subid", "subuid"), ("subid", "subgid")];
    let lines = binds.map(|(from, to)| format!("[ -e /etc/{to} ] && mount --bind {dir}/{from} /etc/{to}\n"));
    format!("mount --make-rprivate /\n{}", lines.concat())
}

fn newuidmap() -> bool {
    let there = std::path::Path::new("/usr/bin/newuidmap").exists() && std::path::Path::new("/etc/subuid").exists();
    if !there {
        report_skip("newuidmap is not installed");
    }
    there
}

#[test]
fn ranges_of_ids_are_mapped_by_the_helpers() {
    rustbox_only!();
    if !newuidmap() {
        return;
    }
    let t = test();
    let ranges = with_ranges(&t, "200000:1000");
    let spec = mapped(sh("tr -s ' ' < /proc/self/uid_map; id -u; sleep 1000"), &[(0, USER, 1), (1, 200_000, 1000)]);
    let c = t.bundle(spec);
    life(&t, &c, &ranges);
    // A user of the container beyond its own.
    let spec = mapped(sh("tr -s ' ' < /proc/self/uid_map; id -u; id -g"), &[(0, USER, 1), (1, 200_000, 1000)]);
    let c = t.bundle(spec.set("/process/user", json!({"uid": 7, "gid": 8})));
    let out = as_user(&t, &ranges, &["run", "--bundle", c.bundle.to_str().unwrap(), &c.id]).ok();
    assert_eq!(out.stdout, format!(" 0 {USER} 1\n 1 200000 1000\n7\n8\n"));
    t.assert_nothing_left();
}

#[test]
fn ids_that_are_not_the_users_are_refused_and_nothing_is_left() {
    rustbox_only!();
    if !newuidmap() {
        return;
    }
    let t = test();
    let ranges = with_ranges(&t, "200000:1000");
    for foreign in [(1, 0, 1), (1, 300_000, 10), (1, 200_000, 1001)] {
        let c = t.bundle(mapped(sh("true"), &[(0, USER, 1), foreign]).without_mount("/dev/pts"));
        let out = as_user(&t, &ranges, &["run", "--bundle", c.bundle.to_str().unwrap(), &c.id]);
        out.fails().says(&["newuidmap"]);
    }
    t.assert_nothing_left();
}

#[test]
fn below_a_user_namespace_root_is_as_good_as_its_user() {
    rustbox_only!();
    let t = test();
    let c = t.bundle(mapped(sh("id -u; tr -s ' ' < /proc/self/uid_map"), &[(0, 0, 1)]).without_mount("/dev/pts"));
    let mut command = Command::new("setpriv");
    command.args([
        "--reuid",
        "4321",
        "--regid",
        "4321",
        "--clear-groups",
        "unshare",
        "--user",
        "--map-root-user",
        "--mount",
        "env",
    ]);
    command.arg(format!("XDG_RUNTIME_DIR={}", t.path("run").display())).arg(binary()).arg("--root").arg(&t.root);
    command.args(["run", "--bundle"]).arg(&c.bundle).arg(&c.id);
    assert_eq!(t.finish(command).ok().stdout, "0\n 0 0 1\n");
    t.assert_nothing_left();
}

#[test]
fn a_limit_without_a_cgroup_is_refused_with_the_way_to_one() {
    rustbox_only!();
    let t = test();
    for (limit, field) in
        [(json!({"memory": {"limit": 33_554_432}}), "memory"), (json!({"pids": {"limit": 9}}), "pids")]
    {
        let c = t.bundle(alone(sh("true")).resources(limit));
        run(&t, &c, &[]).fails().says(&[field, "may not write to", "delegated"]);
    }
    t.assert_nothing_left();
}

/// Gives the user a subtree of every hierarchy, its own process inside where v2 wants it so.
fn delegate(t: &Test) -> (String, Vec<std::path::PathBuf>) {
    let name = format!("rustbox-test-{}-delegated", t.tag);
    let unified = std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let roots: Vec<_> = if unified {
        vec!["/sys/fs/cgroup".into()]
    } else {
        let entries = std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten();
        // `cpu` may be a second name of `cpu,cpuacct`.
        let hierarchies =
            entries.filter(|it| it.file_type().unwrap().is_dir() && it.path().join("cgroup.procs").exists());
        hierarchies.map(|it| it.path()).collect()
    };
    let mut made = Vec::new();
    for root in roots {
        let dir: std::path::PathBuf = root.join(&name);
        std::fs::create_dir(&dir).unwrap();
        for file in ["", "cgroup.procs", "tasks", "cgroup.threads", "cgroup.subtree_control"] {
            let file = dir.join(file);
            if file.exists() {
                chown(file, Some(USER), Some(USER)).unwrap();
            }
        }
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if dir.join("tasks").exists() && dir.join(file).exists() {
                std::fs::write(dir.join(file), std::fs::read_to_string(root.join(file)).unwrap()).unwrap();
            }
        }
        made.push(dir);
    }
    (name, made)
}

#[test]
fn a_delegated_cgroup_gives_limits_and_is_left_as_it_was() {
    rustbox_only!();
    let t = test();
    let (name, made) = delegate(&t);
    let unified = made.len() == 1;
    let limits = json!({"memory": {"limit": 33_554_432}, "pids": {"limit": 20}});
    let spec = alone(spec().args(&["sleep", "1000"])).resources(limits);
    let c = t.bundle(spec.set("/linux/cgroupsPath", json!(format!("/{name}/c"))));
    // The kernel lets a user move a process only within what is its own (cgroup-v2, "Delegation Containment").
    let join = made.iter().map(|dir| {
        if dir.join("tasks").exists() {
            String::new()
        } else {
            format!("mkdir -p {0}/own; echo $$ > {0}/own/cgroup.procs\n", dir.display())
        }
    });
    let before: String =
        join.collect::<String>() + &format!("chown -R {USER} {}/own 2>/dev/null || true\n", made[0].display());
    let at = |words: &[&str]| as_user(&t, &before, words);
    let out = at(&["create", "--bundle", c.bundle.to_str().unwrap(), &c.id]).ok();
    assert_eq!(out.stderr, "");
    t.remember(c.pid());
    at(&["start", &c.id]).ok();
    let place = |controller: &str| {
        if unified {
            made[0].join("c")
        } else {
            std::path::Path::new("/sys/fs/cgroup").join(controller).join(&name).join("c")
        }
    };
    let file =
        |controller: &str, file: &str| std::fs::read_to_string(place(controller).join(file)).unwrap().trim().to_owned();
    assert_eq!(file("pids", "pids.max"), "20");
    assert_eq!(file("memory", if unified { "memory.max" } else { "memory.limit_in_bytes" }), "33554432");
    at(&["update", "--pids-limit", "30", &c.id]).ok();
    assert_eq!(file("pids", "pids.max"), "30");
    at(&["pause", &c.id]).ok();
    assert_eq!(c.status(), "paused");
    at(&["resume", &c.id]).ok();
    assert_eq!(at(&["exec", &c.id, "id", "-u"]).ok().line(), "0");
    at(&["delete", "--force", &c.id]).ok();
    assert!(made.iter().all(|dir| !dir.join("c").exists() && dir.exists()));
    for dir in made {
        let _ = std::fs::remove_dir(dir.join("own"));
        std::fs::remove_dir(&dir).unwrap();
    }
    t.assert_nothing_left();
}

#[test]
fn a_judge_without_privilege_refuses_and_says_why() {
    rustbox_only!();
    let t = test();
    let out = user(&t, &["run", "--code", "true"]).code(4);
    out.says(&["privilege", "not root"]);
    user(&t, &["run", "--permissive", "--code", "true"]).code(4).says(&["judging needs root"]);
    let report = user(&t, &["--dry-run", "run", "--json", "--", "/bin/true"]).json();
    assert_eq!(report["missing"], json!(["privilege"]));
    assert_eq!(report["calls"], serde_json::Value::Null);
    t.assert_nothing_left();
}
