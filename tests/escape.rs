//! Known ways out of a container, each named after what it would have done.

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;

use common::*;

/// Enough capabilities that only the sandbox itself stands in the way.
const POWERFUL: &[&str] = &[
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_CHOWN",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_SYS_ADMIN",
    "CAP_SYS_PTRACE",
    "CAP_SYS_CHROOT",
];

// ---------------------------------------------------------------------------------------------------------------------
// descriptors (CVE-2024-21626, CVE-2016-9962)

#[test]
fn a_cwd_through_a_leaked_descriptor_does_not_reach_the_host() {
    // CVE-2024-21626: cwd = /proc/self/fd/N, where N is a directory of the host that the runtime has left open.
    for n in 3..16 {
        let t = Test::new();
        let cwd = format!("/proc/self/fd/{n}");
        let c = t.bundle(
            sh("pwd -P; ls -d ../../../../../../../../tmp/rustbox-test-* 2>/dev/null").set("/process/cwd", json!(cwd)),
        );
        let out = t.shell("exec 7</ 9</tmp; exec \"$@\"", &["run", "--bundle", c.bundle.to_str().unwrap(), &c.id]);
        assert!(!out.stdout.contains("rustbox-test"), "cwd {cwd} is on the host: {out:?}");
        if peer() == Peer::Rustbox {
            out.denied();
        }
        t.assert_nothing_left();
    }
}

/// The program's path, by a link in the image, leads through a descriptor that the runtime may still hold when it looks it up.
#[test]
fn a_program_through_a_symlink_to_a_descriptor_is_not_one_of_the_host() {
    rustbox_only!();
    let t = Test::new();
    let victim = t.path("victim");
    fs::copy("/bin/busybox", &victim).unwrap();
    for uid in [0, 1000] {
        let user = json!({"process": {"user": {"uid": uid, "gid": uid}}});
        let c = t.bundle(spec().args(&["/door/echo", "reached"]).patch(user));
        let bundle = c.bundle.to_str().unwrap();
        fs::create_dir(c.rootfs().join("door")).unwrap();
        for n in 3..64 {
            let link = c.rootfs().join("door/echo");
            let _ = fs::remove_file(&link);
            symlink(format!("/proc/self/fd/{n}/../../../../../../../..{}", victim.display()), &link).unwrap();
            let judged = t.runtime(&["run", "--judge", "-b", bundle]);
            let run = t.runtime(&["run", "-b", bundle, &c.id]);
            let handed_down = t.runtime(&["run", "--preserve-fds", "9", "-b", bundle, &c.id]);
            for out in [judged, run, handed_down] {
                assert!(out.code != 0 && !out.stdout.contains("reached"), "{n} as {uid}: {out:?}");
            }
            c.create().fails();
        }
        t.assert_nothing_left();
    }
}

/// The same for a hook that is executed in a judged container before its program.
#[test]
fn a_hook_through_a_symlink_to_a_descriptor_is_not_one_of_the_host() {
    rustbox_only!();
    let t = Test::new();
    let victim = t.path("victim");
    fs::copy("/bin/busybox", &victim).unwrap();
    let hooks = json!({"hooks": {"startContainer": [{"path": "/door/true"}]}});
    let c = t.bundle(sh("true").patch(hooks));
    fs::create_dir(c.rootfs().join("door")).unwrap();
    let link = c.rootfs().join("door/true");
    symlink("/bin/busybox", &link).unwrap();
    t.runtime(&["run", "--judge", "-b", c.bundle.to_str().unwrap()]).ok();
    for (process, n) in ["self", "1"].iter().flat_map(|process| (3..40).map(move |n| (process, n))) {
        fs::remove_file(&link).unwrap();
        symlink(format!("/proc/{process}/fd/{n}/../../../../../../../..{}", victim.display()), &link).unwrap();
        let out = t.runtime(&["run", "--judge", "-b", c.bundle.to_str().unwrap()]);
        assert_ne!(out.code, 0, "by descriptor {n} of {process}");
    }
    // Nor does it find a directory in the processes that are there.
    let look =
        "for fd in /proc/[0-9]*/fd/*; do case $fd in /proc/$$/*) ;; *) [ -d $fd/ ] && exit 1;; esac; done; exit 0";
    let hooks = json!({"hooks": {"startContainer": [{"path": "/bin/sh", "args": ["sh", "-c", look]}]}});
    let c = t.bundle(sh("true").caps(POWERFUL).patch(hooks));
    t.runtime(&["run", "--judge", "-b", c.bundle.to_str().unwrap()]).ok();
    t.assert_nothing_left();
}

/// A judged program that may look into its init finds nothing of the host there, however late that is to close it.
#[test]
fn the_init_of_a_judged_program_holds_nothing_of_the_host() {
    rustbox_only!();
    let t = Test::new();
    let c = t.bundle(sh("for fd in /proc/1/fd/*; do [ -d $fd/ ] && readlink $fd; done; true").caps(POWERFUL));
    // Init calls it for each capability first, its payload once or twice in all.
    let slow = "inject=prctl:delay_enter=100000:when=25+";
    let mut command = std::process::Command::new("strace");
    command.args(["-f", "-qq", "-o", "/dev/null", "-e", slow]).arg(binary()).arg("--root").arg(&t.root);
    command.args(["run", "--json", "--wall-time", "20", "--judge", "-b", c.bundle.to_str().unwrap()]);
    let out = t.spawn(command, std::process::Stdio::null()).wait().ok().json();
    assert_eq!((&out["status"], &out["stdout"]), (&json!("OK"), &json!("")), "{out:#}");
    t.assert_nothing_left();
}

/// The same for a working directory that the runtime makes.
#[test]
fn a_directory_through_a_symlink_to_a_descriptor_is_not_made_on_the_host() {
    rustbox_only!();
    let t = Test::new();
    let c = t.bundle(sh("true").writable().set("/process/cwd", json!("/door/made")));
    for n in 3..64 {
        let door = c.rootfs().join("door");
        let _ = fs::remove_file(&door);
        symlink(format!("/proc/self/fd/{n}/../../../../../../../..{}", t.path("").display()), &door).unwrap();
        c.run();
        assert!(!t.path("made").exists(), "by descriptor {n}");
    }
    t.assert_nothing_left();
}

#[test]
fn an_exec_with_a_cwd_through_a_leaked_descriptor_does_not_reach_the_host() {
    let t = Test::new();
    let c = t.bundle(spec().args(&["sleep", "1000"]));
    c.up();
    for n in 3..16 {
        let out = c.exec_with(
            &["--cwd", &format!("/proc/self/fd/{n}")],
            &["sh", "-c", "ls -d ../../../../../../../../tmp/rustbox-test-*"],
        );
        assert_ne!(out.code, 0, "{out:?}");
        assert!(!out.stdout.contains("rustbox-test"), "{out:?}");
    }
    assert_eq!(c.status(), "running");
}

#[test]
fn a_cwd_through_a_symlink_to_a_descriptor_does_not_reach_the_host() {
    let t = Test::new();
    let c = t.bundle(
        sh("ls -d ../../../../../../../../tmp/rustbox-test-* 2>/dev/null; true").set("/process/cwd", json!("/door")),
    );
    for n in 3..14 {
        let door = c.rootfs().join("door");
        let _ = fs::remove_file(&door);
        symlink(format!("/proc/self/fd/{n}"), &door).unwrap();
        let out = t.shell("exec 7</ 9</tmp; exec \"$@\"", &["run", "--bundle", c.bundle.to_str().unwrap(), &c.id]);
        assert!(!out.stdout.contains("rustbox-test"), "{out:?}");
        t.assert_nothing_left();
    }
}

#[test]
fn the_program_has_no_descriptor_but_its_three() {
    let t = Test::new();
    let c = t.bundle(spec().args(&["ls", "/proc/self/fd"]));
    let out =
        t.shell("exec 5</ 8</etc/passwd; exec \"$@\"", &["run", "--bundle", c.bundle.to_str().unwrap(), &c.id]).ok();
    // 3 is the directory that ls reads.
    assert_eq!(out.stdout, "0\n1\n2\n3\n");
    // And the same of PID 1 itself, seen from the host, while it waits for its start and after.
    let c = t.bundle(spec().args(&["sleep", "1000"]));
    c.up();
    until("the program", || fs::read_to_string(format!("/proc/{}/comm", c.pid())).unwrap() == "sleep\n");
    let mut fds: Vec<_> =
        fs::read_dir(format!("/proc/{}/fd", c.pid())).unwrap().map(|fd| fd.unwrap().file_name()).collect();
    fds.sort();
    assert_eq!(fds, ["0", "1", "2"]);
}

#[test]
fn an_exec_has_no_descriptor_but_its_three() {
    let t = Test::new();
    let c = t.bundle(spec().args(&["sleep", "1000"]));
    c.up();
    let out = t.shell("exec 5</ 8</etc/passwd; exec \"$@\"", &["exec", &c.id, "ls", "/proc/self/fd"]).ok();
    assert_eq!(out.stdout, "0\n1\n2\n3\n");
}

/// Looks into every process that it sees, for ever, and says what of the host it has found.
const SPY: &str = "echo ready; while :; do ls -d /proc/[0-9]*/root/tmp/rustbox-test-* /proc/[0-9]*/cwd/tmp/rustbox-test-* 2>/dev/null \
     && echo \"leak of the host's files\"; for f in /proc/[0-9]*/fd/*; do l=$(readlink $f 2>/dev/null); \
     case $l in /dev/null|pipe:*|socket:*|/proc/[0-9]*|/tmp/rustbox-test-*/io/*|'') ;; *) echo \"leak $f $l\";; esac; done; done";

/// A container that spies: as the host's root, as the same with CAP_SYS_PTRACE, and as root of its own user namespace.
fn spies() -> [Spec; 3] {
    [
        sh(SPY).caps(&["CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_KILL", "CAP_SYS_ADMIN"]),
        sh(SPY).caps(&["CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_SYS_PTRACE", "CAP_SYS_ADMIN"]),
        sh(SPY).caps(&["CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE", "CAP_SYS_ADMIN"]).userns(700_000, 65536),
    ]
}

/// Starts a spy in a container of its own, whose root file system belongs to the spy's user.
fn spying(t: &Test, spec: Spec) -> Container<'_> {
    let c = t.bundle(spec);
    for dir in ["", "proc", "sys", "dev", "etc", "tmp"] {
        std::os::unix::fs::lchown(c.rootfs().join(dir), Some(700_000), Some(700_000)).unwrap();
    }
    // An exec looks into it for HOME: a file of the container's own.
    fs::remove_file(c.rootfs().join("etc/passwd")).unwrap();
    c.up();
    c.wait_output("ready");
    c
}

#[test]
fn a_process_of_the_container_cannot_read_an_execs_descriptors() {
    // CVE-2016-9962: between joining the pid namespace and exec, the runtime could be looked into and had descriptors of
    // the host, and the host's root. CAP_SYS_PTRACE in the host's user namespace overrides whatever a process does to
    // hide, so there must be nothing to see but the line to the runtime, which is a socket.
    for spec in spies() {
        let t = Test::new();
        let c = spying(&t, spec);
        for _ in 0..15 {
            c.exec(&["true"]).ok();
        }
        assert!(!c.output().contains("leak"), "{}", c.output());
    }
}

/// Whoever has CAP_SYS_PTRACE in the host's user namespace can make a process that it sees do anything that this one may do.
#[test]
fn an_exec_has_no_more_privilege_in_the_container_than_its_program() {
    rustbox_only!();
    const SPY: &str = "while read k v; do [ $k = CapPrm: ] && own=$v; done </proc/self/status; echo ready; while :; do \
        for p in /proc/[0-9]*; do { while read k v; do if [ $k = CapPrm: ] && [ $v != $own ]; then echo leak $p $v; fi; \
        done <$p/status; read -r e <$p/environ; case $e in *OF_THE_HOST*) echo leak $p $e;; esac; } 2>/dev/null; done; done";
    let caps = &["CAP_CHOWN", "CAP_SETUID", "CAP_SETGID", "CAP_KILL", "CAP_SYS_PTRACE"];
    // As an engine writes them: with what the kernel is said not to have, and loaded before the capabilities are dropped.
    let profile = json!({"linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38},
        {"names": ["mount", "bpf"], "action": "SCMP_ACT_ERRNO"}]}}});
    for (filtered, locked) in [(false, true), (false, false), (true, true), (true, false)] {
        let t = Test::new();
        let spec = sh(SPY).caps(caps).patch(if filtered { profile.clone() } else { json!({}) });
        let c = spying(&t, spec.set("/process/noNewPrivileges", json!(locked)));
        for _ in 0..40 {
            t.shell("OF_THE_HOST=secret \"$@\"", &["exec", &c.id, "true"]).ok();
        }
        assert!(!c.output().contains("leak"), "filter {filtered}, no_new_privs {locked}: {}", c.output());
    }
}

#[test]
fn a_process_of_the_container_cannot_look_into_another_being_created_in_its_pid_namespace() {
    // The same for a container that joins the pid namespace: its first process is in sight while it is set up.
    rustbox_only!();
    for spec in spies() {
        let t = Test::new();
        let c = spying(&t, spec);
        let path = |kind: &str| format!("/proc/{}/ns/{kind}", c.pid());
        for n in 0..12 {
            let guest =
                sh("readlink /proc/self/ns/pid; echo $$").namespace(json!({"type": "pid", "path": path("pid")}));
            // Also with hooks, which make its set-up longer, and with the spy's user namespace.
            let guest = if n % 3 == 1 { guest.hook("createContainer", "sleep 0.05") } else { guest };
            let userns = n % 3 == 2 && namespace(&c.pid().to_string(), "user") != namespace("self", "user");
            let guest = if userns { guest.namespace(json!({"type": "user", "path": path("user")})) } else { guest };
            let guest = t.bundle(guest);
            for dir in ["", "proc", "sys", "dev"] {
                std::os::unix::fs::lchown(guest.rootfs().join(dir), Some(700_000), Some(700_000)).unwrap();
            }
            fs::remove_file(guest.rootfs().join("etc/passwd")).unwrap();
            let out = guest.run().ok();
            // It is where it should be, and its procfs shows that namespace: there its pid is another than 1.
            let (in_namespace, pid) = out.line().split_once('\n').unwrap();
            assert_eq!(in_namespace, namespace(&c.pid().to_string(), "pid"));
            assert!(pid.parse::<i32>().unwrap() > 1);
        }
        assert!(!c.output().contains("leak"), "{}", c.output());
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// the runtime's binary (CVE-2019-5736)

#[test]
fn the_runtimes_binary_cannot_be_opened_for_writing_from_inside() {
    let t = Test::new();
    let c = t.bundle(spec().args(&["/proc/self/exe"]).caps(POWERFUL).writable());
    let before = fs::metadata(binary()).unwrap();
    // The program *is* the runtime: it runs `/proc/self/exe` inside, where it must not be a file one can write.
    c.run();
    t.assert_nothing_left();

    // An exec'd `#!/proc/self/exe` script keeps the runtime's binary open; a process in the container tries to write it.
    let attack = "echo ready; while :; do for e in /proc/[0-9]*/exe; do [ \"$(readlink $e)\" = /bin/busybox ] && continue; \
                  (: >> $e) 2>/dev/null && echo \"opened $(readlink $e)\"; done; done";
    let c = t.bundle(sh(attack).caps(POWERFUL).writable());
    executable(&c.file("script", ""), "#!/proc/self/exe\n");
    c.up();
    c.wait_output("ready");
    for _ in 0..10 {
        c.exec(&["/script"]);
        c.exec(&["true"]).ok();
    }
    let after = fs::metadata(binary()).unwrap();
    assert_eq!(
        (before.len(), before.mtime(), before.ino()),
        (after.len(), after.mtime(), after.ino()),
        "the runtime was changed"
    );
    for line in c.output().lines().filter(|line| line.starts_with("opened")) {
        assert!(!line.contains(binary().to_str().unwrap()), "{line}");
    }
}

/// Has the kernel refuse what the runtime does first to become one of a read-only mount.
const NO_MAPPING: &[&str] = &["-e", "inject=prctl:error=EPERM:when=1"];

/// What a container could reopen of its init is on a read-only mount: the executable, and every part of it that is mapped.
#[test]
fn nothing_that_init_is_mapped_from_can_be_opened_for_writing() {
    rustbox_only!();
    for refused in [&[][..], NO_MAPPING] {
        let t = Test::new();
        let c = t.bundle(spec().args(&["/bin/true"]).caps(POWERFUL));
        let mut command = std::process::Command::new("strace");
        command.args(["-qq", "-o", "/dev/null"]).args(refused).arg(binary());
        command.arg("--root").arg(&t.root).args(["create", "-b", c.bundle.to_str().unwrap(), &c.id]);
        t.finish(command).ok();
        let (pid, own) = (c.pid(), fs::metadata(binary()).unwrap());
        let mapped = fs::read_dir(format!("/proc/{pid}/map_files")).unwrap().map(|entry| entry.unwrap().path());
        let ours = mapped.filter(|file| {
            fs::metadata(file).is_ok_and(|mapped| (mapped.dev(), mapped.ino()) == (own.dev(), own.ino()))
        });
        let files: Vec<_> = ours.chain([format!("/proc/{pid}/exe").into()]).collect();
        assert!(files.len() > 3, "{files:?}");
        for file in files {
            // Who opens it for writing hears that it is busy, until the last process has ended that executes it.
            let flags = nix::sys::statvfs::fstatvfs(fs::File::open(&file).unwrap()).unwrap().flags();
            assert!(flags.contains(nix::sys::statvfs::FsFlags::ST_RDONLY), "{}: {flags:?}", file.display());
        }
        c.delete_force().ok();
        t.assert_nothing_left();
    }
}

/// Where a command becomes one of a read-only mount, it does so before the C library has started (which names its
/// thread): by mapping itself from there, or, without the privilege for that, by executing itself, as what has started
/// twice is slow. Those that need no such mount do neither.
#[test]
fn the_runtime_is_made_read_only_before_it_has_started() {
    rustbox_only!();
    let t = Test::new();
    let host = t.bundle(sh("true"));
    let mapped = t.bundle(sh("true").userns(700_000, 65_536));
    let (host, mapped) = (host.bundle.to_str().unwrap(), mapped.bundle.to_str().unwrap());
    let trace = t.path("trace");
    let traced = |refused: &[&str], line: &[&str]| {
        let mut command = std::process::Command::new("strace");
        command
            .args(["-qq", "-e", "trace=set_tid_address,execveat,prctl", "-o"])
            .arg(&trace)
            .args(refused)
            .arg(binary());
        command.arg("--root").arg(&t.root).args(line);
        t.finish(command);
        let trace = fs::read_to_string(&trace).unwrap();
        let before = &trace[..trace.find("set_tid_address(").unwrap()];
        let is_mapped = before.lines().any(|line| line.starts_with("prctl(PR_SET_MM,") && line.ends_with(" = 0"));
        let executed = before.matches("execveat(").count();
        assert_eq!(trace.matches("execveat(").count(), executed, "{trace}");
        (trace, is_mapped, executed)
    };
    for (wanted, line) in [
        (true, vec!["create", "-b", host, "no/id"]),
        (true, vec!["run", "no/id", "--bundle", host]),
        (true, vec!["run", &format!("--bundle={host}"), "no/id"]),
        (true, vec!["exec", "no/id", "true"]),
        (false, vec!["create", "-b", mapped, "no/id"]),
        (false, vec!["create", "-b", "/nowhere", "no/id"]),
        (false, vec!["run", "-b", host, "--no-such-option", "--", "/bin/true"]),
        (false, vec!["run", "-b", host, "--no-such-option", "--code=true"]),
        (false, vec!["state", "-b", host, "no/id"]),
        (false, vec!["--version"]),
    ] {
        let (trace, is_mapped, executed) = traced(&[], &line);
        assert_eq!((is_mapped, executed), (wanted, 0), "{line:?}: {trace}");
        let (trace, is_mapped, executed) = traced(NO_MAPPING, &line);
        assert_eq!((is_mapped, executed), (false, usize::from(wanted)), "{line:?}: {trace}");
    }
    // Root of a user namespace that is the host's root owns the file.
    let same = t.bundle(sh("true").userns(0, 65_536));
    let mut command = std::process::Command::new("strace");
    command.args(["-qq", "-e", "trace=execveat", "-o"]).arg(&trace).arg(binary()).arg("--root").arg(&t.root);
    command.args(["run", "-b", same.bundle.to_str().unwrap(), &same.id]);
    t.finish(command);
    assert_eq!(fs::read_to_string(&trace).unwrap().matches("execveat(").count(), 1);
    // The descriptor that keeps the mount until init has something to do is seen by nobody.
    let c = t.bundle(sh("ls -l /proc/self/fd /proc/1/fd").caps(POWERFUL));
    let out = c.run_with(&["--preserve-fds", "0"]).ok();
    assert!(!out.stdout.contains(" 61"), "{out:?}");
    let c = t.bundle(sh("sleep 60").caps(POWERFUL));
    c.up();
    let out = c.exec(&["ls", "-l", "/proc/self/fd"]).ok();
    assert!(!out.stdout.contains(" 61"), "{out:?}");
}

/// A handle of one of the host's namespaces is a way into it (the class of CVE-2024-21626).
#[test]
fn init_holds_no_handle_of_a_namespace() {
    let t = Test::new();
    for spec in [sh("sleep 60"), sh("sleep 60").userns(700_000, 1000)] {
        let c = t.bundle(spec);
        c.create().ok();
        let pid = c.pid();
        let held: Vec<_> = fs::read_dir(format!("/proc/{pid}/fd"))
            .unwrap()
            .filter_map(|entry| fs::read_link(entry.unwrap().path()).ok())
            .collect();
        assert!(!held.is_empty());
        for link in held {
            let link = link.to_str().unwrap();
            assert!(!["net:", "mnt:", "user:", "pid:", "cgroup:"].iter().any(|kind| link.starts_with(kind)), "{link}");
        }
        c.delete_force().ok();
    }
    t.assert_nothing_left();
}

// ---------------------------------------------------------------------------------------------------------------------
// symlinks in the rootfs (CVE-2019-16884, CVE-2021-30465, CVE-2025-31133, CVE-2025-52565, CVE-2025-52881)

#[test]
fn symlinked_parents_of_mount_points_stay_inside_the_rootfs() {
    let t = Test::new();
    let victim = t.path("victim");
    fs::create_dir(&victim).unwrap();
    let source = t.path("source");
    fs::create_dir(&source).unwrap();
    for target in [
        victim.to_str().unwrap().to_owned(),
        format!("../../../../../../../..{}", victim.display()),
        "/proc/self/root".to_owned(),
    ] {
        let c = t.bundle(
            spec().bind(source.to_str().unwrap(), "/a/link/made", &["bind"]).tmpfs("/a/link/tmp", &[]).writable(),
        );
        fs::create_dir(c.rootfs().join("a")).unwrap();
        symlink(&target, c.rootfs().join("a/link")).unwrap();
        let out = c.run();
        assert!(fs::read_dir(&victim).unwrap().next().is_none(), "{target}: {out:?}");
        t.assert_nothing_left();
    }
}

#[test]
fn dot_dot_in_mount_points_stays_inside_the_rootfs() {
    let t = Test::new();
    let name = format!("rustbox-test-{}-escaped", t.tag);
    let c = t.bundle(spec().tmpfs(&format!("/../../../../../../../tmp/{name}"), &[]).writable());
    c.run();
    assert!(!Path::new("/tmp").join(&name).exists());
    t.assert_nothing_left();
}

#[test]
fn device_nodes_are_not_made_through_symlinks() {
    let t = Test::new();
    let victim = t.path("victim");
    fs::create_dir(&victim).unwrap();
    let devices =
        json!({"linux": {"devices": [{"path": "/link/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o666}]}});
    let c = t.bundle(spec().patch(devices).writable());
    symlink(&victim, c.rootfs().join("link")).unwrap();
    c.run();
    assert!(fs::read_dir(&victim).unwrap().next().is_none());
    t.assert_nothing_left();
}

#[test]
fn a_masked_path_that_is_a_symlink_masks_nothing_of_the_host() {
    let t = Test::new();
    let victim = t.path("victim");
    fs::write(&victim, "host").unwrap();
    let spec = sh("true")
        .set("/linux/maskedPaths", json!(["/link"]))
        .set("/linux/readonlyPaths", json!(["/link2"]))
        .writable();
    let c = t.bundle(spec);
    symlink(&victim, c.rootfs().join("link")).unwrap();
    symlink(&victim, c.rootfs().join("link2")).unwrap();
    c.run();
    assert_eq!(fs::read_to_string(&victim).unwrap(), "host");
    fs::write(&victim, "still writable").unwrap();
    t.assert_nothing_left();
}

#[test]
fn a_mask_over_a_dev_null_that_the_image_has_replaced_still_masks() {
    // CVE-2025-31133: /dev/null of the container is a symlink; a mask that binds it would expose what it points to.
    let t = Test::new();
    let spec = sh("cat /secret; echo end").set("/linux/maskedPaths", json!(["/secret"])).writable();
    let spec =
        spec.without_mount("/dev").without_mount("/dev/pts").without_mount("/dev/shm").without_mount("/dev/mqueue");
    let c = t.bundle(spec);
    c.file("secret", "the secret");
    c.file("decoy", "the decoy");
    symlink("/decoy", c.rootfs().join("dev/null")).unwrap();
    let out = c.run();
    assert!(!out.stdout.contains("the secret") && !out.stdout.contains("the decoy"), "{out:?}");
    if peer() == Peer::Rustbox && out.code != 0 {
        // Refusing a device that is not the one asked for is as good.
        out.denied().says(&["/dev/null"]);
    }
    t.assert_nothing_left();
}

/// What masks a file is a null device, and the container's root may be the host's: it is the container's own node, or one that
/// cannot be changed.
#[test]
fn a_mask_is_no_way_to_the_hosts_dev_null() {
    let t = Test::new();
    // To the mode and owner that a null device has anyway.
    let attack = "stat -c %d:%i /secret; echo x > /secret && cat /secret && echo works; \
                  chmod 666 /secret && echo changed; chown 0:0 /secret && echo changed; touch -c /secret && echo changed";
    let node = fs::metadata("/dev/null").unwrap();
    for userns in [false, true] {
        let spec = sh(attack).set("/linux/maskedPaths", json!(["/secret"])).caps(&["CAP_CHOWN", "CAP_FOWNER"]);
        let c = t.bundle(if userns { spec.userns(700_000, 65536) } else { spec });
        c.file("secret", "the secret");
        let out = c.run();
        let (masked, rest) = out.stdout.split_once('\n').unwrap();
        assert!(rest.starts_with("works\n"), "{out:?}");
        if masked == format!("{}:{}", node.dev(), node.ino()) {
            not_under!(Runc, "the times of the host's node can be changed in a user namespace");
            assert_eq!(rest, "works\n", "the host's node was changed: {out:?}");
        }
    }
    t.assert_nothing_left();
}

/// Whoever starts a container may give it the host's null device as a standard stream: the container gets its own instead, since
/// its root may own the host's.
#[test]
fn a_standard_stream_is_no_way_to_the_hosts_dev_null() {
    not_under!(Runc, "its exec hands the caller's descriptor on");
    let t = Test::new();
    let same = "[ $(stat -L -c %d:%i /proc/self/fd/0) = $(stat -c %d:%i /dev/null) ] && cat && echo own";
    let c = t.bundle(sh(&format!("{same}; sleep 1000")));
    c.up();
    c.wait_output("own\n");
    assert_eq!(c.exec(&["sh", "-c", same]).ok().stdout, "own\n");
    assert_eq!(c.exec_with(&["--user", "1000:1000"], &["sh", "-c", same]).ok().stdout, "own\n");
    c.delete_force().ok();
    // In a user namespace both are the host's node, and the container's way to it lets nothing be changed.
    let c = t.bundle(sh("touch -c /proc/self/fd/0 && echo changed; cat && echo kept").userns(700_000, 65536));
    assert_eq!(c.run().ok().stdout, "kept\n");
    // An image that has put something else there changes nothing.
    let spec = sh("stat -L -c %t:%T /proc/self/fd/0; cat && echo end").set("/linux/maskedPaths", json!([])).writable();
    let spec = spec.without_mount("/dev/pts").without_mount("/dev/shm").without_mount("/dev/mqueue");
    let c = t.bundle(spec.hook("createContainer", "rm dev/null && mkfifo dev/null"));
    assert_eq!(c.run().ok().stdout, "1:3\nend\n");
    t.assert_nothing_left();
}

#[test]
fn a_dev_that_is_a_symlink_leads_nowhere() {
    not_under!(Runc, "makes devices there (before 1.2.8)");
    let t = Test::new();
    let victim = t.path("victim");
    fs::create_dir(&victim).unwrap();
    let spec = spec()
        .without_mount("/dev")
        .without_mount("/dev/pts")
        .without_mount("/dev/shm")
        .without_mount("/dev/mqueue")
        .writable();
    let c = t.bundle(spec);
    fs::remove_dir(c.rootfs().join("dev")).unwrap();
    symlink(&victim, c.rootfs().join("dev")).unwrap();
    c.run();
    assert!(fs::read_dir(&victim).unwrap().next().is_none());
    t.assert_nothing_left();
}

#[test]
fn a_proc_that_is_no_procfs_gets_no_writes() {
    not_under!(Runc, "writes sysctls there (before 1.2.8)");
    // CVE-2019-16884, CVE-2025-52881: labels, oom scores and sysctls written to files that the image has put there.
    let t = Test::new();
    let spec = sh("true")
        .without_mount("/proc")
        .patch(json!({"process": {"oomScoreAdj": 100}, "linux": {"sysctl": {"net.ipv4.ip_forward": "1"}, "maskedPaths": [], "readonlyPaths": []}}))
        .writable();
    let c = t.bundle(spec);
    let fakes = [
        "proc/self/oom_score_adj",
        "proc/sys/net/ipv4/ip_forward",
        "proc/self/attr/exec",
        "proc/thread-self/attr/exec",
    ];
    for fake in fakes {
        c.file(fake, "fake");
    }
    c.run();
    for fake in fakes {
        assert_eq!(fs::read_to_string(c.rootfs().join(fake)).unwrap(), "fake", "{fake} was written");
    }
    t.assert_nothing_left();
}

#[test]
fn a_sysctl_does_not_follow_what_is_mounted_over_proc_sys() {
    let t = Test::new();
    let victim = t.path("victim");
    fs::write(&victim, "host").unwrap();
    let spec = spec()
        .bind(victim.to_str().unwrap(), "/proc/sys/net/ipv4/ip_forward", &["bind"])
        .patch(json!({"linux": {"sysctl": {"net.ipv4.ip_forward": "1"}}}));
    let c = t.bundle(spec);
    c.run();
    assert_eq!(fs::read_to_string(&victim).unwrap(), "host", "a write to /proc/sys went into a file");
    t.assert_nothing_left();
}

#[test]
fn mounts_over_proc_are_refused_or_harmless() {
    // A bind over /proc/self or /proc/1 redirects what the runtime writes later.
    for destination in ["/proc", "/proc/self", "/proc/1", "/proc/self/attr", "/proc/sys"] {
        let t = Test::new();
        let source = t.path("source");
        fs::create_dir(&source).unwrap();
        let c = t.bundle(
            spec()
                .bind(source.to_str().unwrap(), destination, &["bind"])
                .patch(json!({"process": {"oomScoreAdj": 100}})),
        );
        c.run();
        assert!(
            fs::read_dir(&source).unwrap().next().is_none(),
            "{destination}: something was written into the bind source"
        );
        t.assert_nothing_left();
    }
}

#[test]
fn two_containers_that_swap_a_symlink_while_mounting_cannot_leave_the_rootfs() {
    // CVE-2021-30465: a volume shared with a running container, which swaps a directory and a symlink to the host.
    let t = Test::new();
    let shared = t.path("shared");
    let victim = t.path("victim");
    fs::create_dir_all(shared.join("inner")).unwrap();
    fs::create_dir(&victim).unwrap();
    symlink(&victim, shared.join("trap")).unwrap();
    let path = shared.to_str().unwrap();
    let swap = "cd /tmp; echo ready; while :; do mv inner x && mv trap inner && mv x trap; mv inner x && mv trap inner && mv x trap; done 2>/dev/null";
    let attacker = t.bundle(sh(swap).bind(path, "/tmp", &["bind", "rw"]).caps(POWERFUL));
    attacker.up();
    attacker.wait_output("ready");
    for _ in 0..20 {
        let target = t.bundle(spec().bind(path, "/tmp", &["bind", "rw"]).tmpfs("/tmp/inner/sub", &[]).writable());
        let out = target.run();
        assert!(fs::read_dir(&victim).unwrap().next().is_none(), "{out:?}");
    }
    attacker.delete_force().ok();
    t.assert_nothing_left();
}

// ---------------------------------------------------------------------------------------------------------------------
// cgroups and devices

#[test]
fn a_readonly_cgroup_mount_cannot_raise_the_containers_own_limits() {
    let (files, directory, limit) = if unified() {
        ("memory.max memory.high pids.max cpu.weight cgroup.procs cgroup.subtree_control", "sub", "memory.max")
    } else {
        (
            "memory/memory.limit_in_bytes pids/pids.max cpu/cpu.shares devices/devices.allow",
            "memory/sub",
            "memory/memory.limit_in_bytes",
        )
    };
    for namespace in [false, true] {
        let script = format!(
            "cd /sys/fs/cgroup; for f in {files}; do [ -e $f ] || echo \"no $f\"; (echo 999 > $f) 2>/dev/null && echo \"wrote $f\"; \
             done; mkdir {directory} 2>/dev/null && echo made; cat {limit}"
        );
        let mut spec = sh(&script).caps(&["CAP_DAC_OVERRIDE"]).resources(json!({"memory": {"limit": 64 << 20}}));
        if namespace {
            spec = spec.namespace(json!({"type": "cgroup"}));
        }
        assert_eq!(output_of(spec), (64 << 20).to_string());
    }
}

#[test]
fn the_release_agent_of_a_cgroup_cannot_be_set() {
    // CVE-2022-0492
    let spec = sh("find /sys/fs/cgroup -name release_agent 2>/dev/null | while read f; do (echo /x > $f) 2>/dev/null && echo \"wrote $f\"; done; echo end")
        .caps(&["CAP_DAC_OVERRIDE"]);
    assert_eq!(output_of(spec), "end");
}

/// A program that makes cgroups in its own, each in the one before, in these hierarchies, and goes into the deepest; what it
/// writes to descriptor 3 then goes to the freezer of v1.
fn digging(hierarchies: &str, directories: &str, times: usize, then: &str) -> Spec {
    let script = format!(
        "for procs in /sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/{hierarchies}/cgroup.procs; do [ -e $procs ] || continue; \
         cd -P ${{procs%/*}}; for i in $(seq {times}); do mkdir -p {directories} && cd -P {directories} || exit 1; done; \
         echo 0 >cgroup.procs || [ -e cpuset.mems ] || exit 1; [ -e freezer.state ] && exec 3>freezer.state; done 2>/dev/null; echo deep; {then}"
    );
    let options = ["nosuid", "noexec", "nodev", "relatime"];
    sh(&script)
        .without_mount("/sys/fs/cgroup")
        .mount(json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": options}))
}

#[test]
fn a_container_that_digs_cgroups_deeper_than_any_path_is_found_killed_and_proved_gone() {
    rustbox_only!();
    let long = "a".repeat(250);
    let short = "dddd/".repeat(500);
    for (hierarchies, directories, times, own_pids) in
        [("*", &long, 20, true), ("*", &long, 20, false), ("[fu]*", &short, 2, false)]
    {
        let t = Test::new();
        let spec = digging(hierarchies, directories, times, "exec sleep 1000");
        let c = t.bundle(if own_pids { spec } else { spec.without_namespace("pid") });
        c.up();
        c.wait_output("deep");
        assert_eq!(t.runtime(&["ps", "--format", "json", &c.id]).ok().json(), json!([c.pid()]));
        let delete = if own_pids {
            t.runtime(&["kill", "--all", &c.id, "KILL"]).ok();
            c.wait_status("stopped");
            &["delete", "--json", &c.id][..]
        } else {
            &["delete", "--json", "--force", &c.id]
        };
        // Neither a descriptor nor a frame of the stack for each level.
        let proof = t.shell("ulimit -n 32; ulimit -s 256; exec \"$@\"", delete).ok().json();
        assert_eq!(proof["clean"], true, "{proof}");
        t.assert_nothing_left();
    }
}

#[test]
fn a_process_that_has_frozen_itself_deeper_than_any_path_dies_with_its_container() {
    rustbox_only!();
    if !Path::new("/sys/fs/cgroup/freezer/cgroup.procs").exists() {
        skip!("no v1 freezer, whose frozen processes no signal ends");
    }
    let t = Test::new();
    let c = t.bundle(digging("*", &"a".repeat(250), 20, "echo FROZEN >&3"));
    c.up();
    c.wait_output("deep");
    let stat = format!("/proc/{}/stat", c.pid());
    until("the process to be frozen", || fs::read_to_string(&stat).unwrap().contains(") D "));
    c.delete_force().ok();
    t.assert_nothing_left();
}

#[test]
fn device_access_is_denied_by_default_though_nodes_can_be_made() {
    let script = "mknod /tmp/mem c 1 1; mknod /tmp/kmsg c 1 11; mknod /tmp/disk b 254 0; mknod /tmp/fuse c 10 229; \
                  for d in mem kmsg disk fuse; do (exec 3</tmp/$d) 2>/dev/null && echo \"opened $d\"; done; echo end";
    let spec = sh(script).tmpfs("/tmp", &["dev"]).caps(&[
        "CAP_MKNOD",
        "CAP_SYS_ADMIN",
        "CAP_DAC_OVERRIDE",
        "CAP_SYS_RAWIO",
        "CAP_SYSLOG",
    ]);
    assert_eq!(output_of(spec), "end");
}

// ---------------------------------------------------------------------------------------------------------------------
// the host's files and processes

#[test]
fn exec_as_another_user_does_not_chown_the_hosts_dev_null() {
    // Seen in a published runtime: `exec --user` with stdin from /dev/null gave the host's /dev/null away.
    let before = fs::metadata("/dev/null").unwrap();
    let t = Test::new();
    let c = t.bundle(spec().args(&["sleep", "1000"]));
    c.up();
    let out = c.exec_with(&["--user", "1000:1000"], &["id", "-u"]).ok();
    assert_eq!(out.line(), "1000");
    let after = fs::metadata("/dev/null").unwrap();
    // Put it right before the assertion, for the host's sake.
    if (after.uid(), after.gid()) != (before.uid(), before.gid()) {
        std::os::unix::fs::chown("/dev/null", Some(before.uid()), Some(before.gid())).unwrap();
    }
    assert_eq!((after.uid(), after.gid(), after.mode()), (before.uid(), before.gid(), before.mode()));
}

#[test]
fn running_as_another_user_does_not_chown_the_hosts_files_given_as_stdio() {
    let t = Test::new();
    let input = t.path("input");
    fs::write(&input, "words").unwrap();
    fs::set_permissions(&input, fs::Permissions::from_mode(0o600)).unwrap();
    let before = (fs::metadata("/dev/null").unwrap().uid(), fs::metadata(&input).unwrap().uid());
    let c = t.bundle(sh("cat").patch(json!({"process": {"user": {"uid": 1000, "gid": 1000}}})));
    let bundle = c.bundle.to_str().unwrap();
    t.shell("exec \"$@\" < input", &["run", "--bundle", bundle, &c.id]).ok();
    c.run().ok();
    let null = fs::metadata("/dev/null").unwrap().uid();
    if null != before.0 {
        std::os::unix::fs::chown("/dev/null", Some(before.0), None).unwrap();
    }
    assert_eq!(null, before.0, "the host's /dev/null was given away");
    not_under!(Runc, "chowns its stdio on purpose");
    not_under!(Crun, "chowns its stdio on purpose");
    assert_eq!(fs::metadata(&input).unwrap().uid(), before.1, "a file of the host was given away");
}

#[test]
fn chroot_and_dot_dot_do_not_leave_the_pivoted_root() {
    // The classic: chroot into a subdirectory with an open handle of the real root, then climb.
    let script = "mkdir -p /tmp/jail/bin && cp /bin/busybox /tmp/jail/bin/ && cd / && chroot /tmp/jail /bin/busybox ls -d ../../../../../../proc/1 2>/dev/null; \
                  ls -d /proc/1/root/tmp/rustbox-test-* 2>/dev/null; ls /proc/1/cwd/../../../../tmp/ 2>/dev/null | grep rustbox-test; echo end";
    assert_eq!(output_of(sh(script).caps(POWERFUL).tmpfs("/tmp", &["exec"])), "end");
}

#[test]
fn processes_of_the_host_can_be_neither_seen_nor_signalled() {
    let t = Test::new();
    let me = std::process::id();
    let c = t.bundle(
        sh(&format!("kill -0 {me} 2>/dev/null && echo signalled; ls -d /proc/{me} 2>/dev/null; echo end"))
            .caps(&["CAP_KILL", "CAP_SYS_PTRACE"]),
    );
    assert_eq!(c.run().ok().line(), "end");
}

#[test]
fn the_hosts_abstract_sockets_and_interfaces_are_out_of_reach() {
    let out = output_of(sh("cat /proc/net/unix | wc -l; cat /proc/net/dev | grep -c :"));
    let mut lines = out.lines();
    assert_eq!(lines.next(), Some("1"), "a header and nothing else");
    assert!(lines.next().unwrap().parse::<u32>().unwrap() <= 4, "{out}");
}

#[test]
fn the_setgroups_and_session_keyring_of_the_host_do_not_come_along() {
    let t = Test::new();
    let c = t.bundle(
        sh("cat /proc/keys 2>/dev/null | grep -v _ses | grep -c rustbox-secret; true")
            .set("/linux/maskedPaths", json!([])),
    );
    let out = t.shell(
        "command -v keyctl >/dev/null && keyctl add user rustbox-secret x @s >/dev/null 2>&1; exec \"$@\"",
        &["run", "--bundle", c.bundle.to_str().unwrap(), &c.id],
    );
    assert_eq!(out.ok().line(), "0");
}
