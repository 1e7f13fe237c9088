//! Bad input: a clear error that names the object, a documented exit status, and nothing that remains.

mod common;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use common::*;
use serde_json::Value;

/// `create` and `run` of the bundle are refused with these words, and nothing is left.
#[track_caller]
fn bundle_refused(t: &Test, c: &Container, words: &[&str]) {
    c.create().denied().rustbox_says(words);
    t.assert_nothing_left();
    c.run().denied().rustbox_says(words);
    t.assert_nothing_left();
}

// ---------------------------------------------------------------------------------------------------------------------
// the command line

#[test]
fn unknown_options_and_commands_are_usage_errors() {
    let t = Test::new();
    for args in [
        &["--no-such-option"][..],
        &["no-such-command"],
        &["create", "--no-such-option", "x"],
        &["run", "--no-such-option", "x"],
        &["state", "--no-such-option", "x"],
        &["kill", "--no-such-option", "x"],
        &["delete", "--no-such-option", "x"],
        &["exec", "--no-such-option", "x", "true"],
        &["list", "--no-such-option"],
        &["list", "--format", "no-such-format"],
    ] {
        let named = args.iter().find(|arg| arg.contains("no-such")).unwrap();
        if peer() == Peer::Runc && args.len() == 1 {
            continue; // runc prints its help and succeeds.
        }
        t.runtime(args).usage().rustbox_says(&[named]);
    }
    t.assert_nothing_left();
}

#[test]
fn missing_and_superfluous_arguments_are_usage_errors() {
    let t = Test::new();
    for args in [&["create"][..], &["start"], &["state"], &["kill"], &["delete"], &["exec"], &["exec", "x"], &["ps"]] {
        t.runtime(args).usage();
    }
    for args in [&["state", "a", "b"][..], &["start", "a", "b"]] {
        t.runtime(args).fails();
    }
    t.assert_nothing_left();
}

#[test]
fn bad_values_of_global_options_are_errors() {
    let t = Test::new();
    t.runtime(&["--log-format", "xml", "list"]).fails().rustbox_says(&["xml"]);
    not_under!(Crun, "ignores a log that it cannot open");
    t.runtime(&["--log", "/no/such/directory/log", "list"]).fails().says(&["/no/such/directory/log"]);
}

// ---------------------------------------------------------------------------------------------------------------------
// ids

#[test]
fn bad_ids_are_refused() {
    let t = Test::new();
    let c = t.bundle(spec());
    let bundle = c.bundle.to_str().unwrap();
    let long = "x".repeat(1025);
    for id in ["", "../x", "..", ".", "a/b", "/x", "a b", "a\nb", "ä", "a:b", "a*", &long] {
        if peer() == Peer::Crun && !id.contains('/') && !id.is_empty() {
            continue; // takes almost anything
        }
        t.runtime(&["create", "--bundle", bundle, id]).fails();
        t.runtime(&["run", "--bundle", bundle, id]).fails();
        t.runtime(&["state", id]).fails();
        t.runtime(&["delete", id]).fails();
        let made: Vec<_> = fs::read_dir(&t.root).into_iter().flatten().flatten().collect();
        assert!(made.iter().all(|entry| entry.file_name().to_string_lossy().starts_with('.')), "{id:?} made {made:?}");
        assert!(!t.dir.join("x").exists(), "{id:?} escaped from the root");
        t.assert_nothing_left();
    }
}

#[test]
fn an_id_that_begins_with_a_dot_is_refused_by_every_command() {
    rustbox_only!();
    let t = Test::new();
    let c = t.bundle(spec());
    let bundle = c.bundle.to_str().unwrap();
    fs::create_dir_all(t.root.join(".seccomp")).unwrap();
    for id in [".x", "...", ".new-1-2", ".seccomp", ".judge", ".ids"] {
        for words in [
            &["create", "--bundle", bundle, id][..],
            &["run", "--bundle", bundle, id],
            &["run", "--detach", "--bundle", bundle, id],
            &["run", "--code", "exit 0", id],
            &["restore", "--bundle", bundle, id],
            &["start", id],
            &["state", id],
            &["exec", id, "true"],
            &["exec", "--detach", id, "true"],
            &["kill", id],
            &["pause", id],
            &["delete", id],
            &["delete", "--force", id],
        ] {
            let out = t.runtime(words).fails().says(&[&format!("container id `{id}`"), "begins with a dot"]);
            assert_eq!(out.code, 2, "{words:?}");
        }
    }
    let names = fs::read_dir(&t.root).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(names.into_iter().all(|name| name == ".seccomp" || name == ".metrics"), "something was made");
    t.assert_nothing_left();
}

#[test]
fn delete_force_of_a_bad_id_touches_nothing_outside_the_root() {
    let t = Test::new();
    fs::create_dir_all(&t.root).unwrap();
    let victim = t.path("victim");
    fs::create_dir(&victim).unwrap();
    fs::write(victim.join("file"), "precious").unwrap();
    t.runtime(&["delete", "--force", "../victim"]);
    t.runtime(&["delete", "--force", "..//victim"]);
    t.runtime(&["delete", "--force", ".."]);
    assert_eq!(fs::read_to_string(victim.join("file")).unwrap(), "precious");
}

#[test]
fn every_character_that_runc_allows_in_an_id_is_allowed() {
    let t = Test::new();
    let c = t.bundle(spec());
    let id = format!("{}.A_b-c+d", c.id);
    t.runtime(&["run", "--bundle", c.bundle.to_str().unwrap(), &id]).ok();
    t.assert_nothing_left();
}

#[test]
fn a_state_directory_that_is_not_ours_is_not_taken_for_a_container() {
    rustbox_only!();
    let t = Test::new();
    fs::create_dir_all(t.root.join("stranger")).unwrap();
    fs::write(t.root.join("stranger/file"), "precious").unwrap();
    t.runtime(&["state", "stranger"]).denied();
    t.runtime(&["list"]).ok();
    t.runtime(&["delete", "stranger"]).denied();
    assert_eq!(fs::read_to_string(t.root.join("stranger/file")).unwrap(), "precious");
}

#[test]
fn a_damaged_state_file_is_an_error_that_names_it() {
    rustbox_only!();
    let t = Test::new();
    let c = t.bundle(spec().args(&["sleep", "1000"]));
    c.create().ok();
    let path = t.root.join(&c.id).join("state.json");
    let whole = fs::read_to_string(&path).unwrap();
    for damaged in ["", "{", "[]", "{\"version\": 1}", &whole[..whole.len() / 2]] {
        fs::write(&path, damaged).unwrap();
        c.state_out().denied().says(&["state.json"]);
        c.kill("KILL").denied();
    }
    fs::write(&path, whole).unwrap();
    c.delete_force().ok();
    t.assert_nothing_left();
}

// ---------------------------------------------------------------------------------------------------------------------
// bundles

#[test]
fn a_missing_bundle_is_refused() {
    let t = Test::new();
    for bundle in ["/no/such/bundle", "no-such-bundle"] {
        t.runtime(&["create", "--bundle", bundle, "x"]).denied().rustbox_says(&[bundle, "No such file"]);
        t.runtime(&["run", "--bundle", bundle, "x"]).denied().rustbox_says(&[bundle, "No such file"]);
    }
    t.assert_nothing_left();
}

#[test]
fn a_bundle_without_a_readable_config_is_refused() {
    let t = Test::new();
    let c = t.bundle(spec());
    let config = c.bundle.join("config.json");
    fs::remove_file(&config).unwrap();
    bundle_refused(&t, &c, &["config.json", "No such file"]);
    fs::create_dir(&config).unwrap();
    bundle_refused(&t, &c, &["config.json"]);
    fs::remove_dir(&config).unwrap();
    symlink("nowhere", &config).unwrap();
    bundle_refused(&t, &c, &["config.json"]);
}

#[test]
fn bad_json_is_refused_and_placed() {
    let t = Test::new();
    let c = t.bundle(spec());
    let config = c.bundle.join("config.json");
    let deep = "[".repeat(200_000);
    for (text, words) in [
        ("", &["config.json"][..]),
        ("{", &["config.json", "line 1"]),
        ("{\n\"ociVersion\": \"1.0.2\",\n}", &["config.json", "line 3"]),
        ("not json", &["config.json"]),
        ("null", &["config.json"]),
        ("[]", &["config.json"]),
        ("{} trailing", &["config.json"]),
        ("\u{feff}{}", &["config.json"]),
        ("{\"ociVersion\": \"1.0.2\", \"process\"", &["config.json"]),
        (&deep, &["config.json"]),
    ] {
        fs::write(&config, text).unwrap();
        bundle_refused(&t, &c, words);
    }
    fs::write(&config, [0xff, 0xfe, 0x00]).unwrap();
    bundle_refused(&t, &c, &["config.json"]);
}

#[test]
fn a_value_of_the_wrong_type_is_refused_with_its_json_path() {
    refused(vec![
        (spec().set("/process/args", json!("true")), &["process.args"]),
        (spec().set("/process/user", json!("root")), &["process.user"]),
        (spec().set("/process/user/uid", json!(-1)), &["process.user.uid"]),
        (spec().set("/process/user/uid", json!(1u64 << 33)), &["process.user.uid"]),
        (spec().set("/process/args/0", json!(1)), &["process.args[0]"]),
        (spec().set("/mounts/1/options", json!("ro")), &["mounts[1].options"]),
        (spec().set("/linux/namespaces", json!({})), &["linux.namespaces"]),
        (spec().set("/linux/namespaces/1/type", json!("netwrk")), &["linux.namespaces[1].type"]),
        (spec().resources(json!({"memory": {"limit": "1g"}})), &["linux.resources.memory.limit"]),
        (spec().patch(json!({"annotations": {"a": 1}})), &["annotations"]),
        (spec().patch(json!({"hooks": {"poststart": [{"args": []}]}})), &["hooks.poststart[0]"]),
    ]);
}

#[test]
fn an_unknown_specification_version_is_refused() {
    rustbox_only!();
    for version in [json!("2.0.0"), json!("0.9.0"), json!("banana"), json!(""), json!("1"), json!("1.0")] {
        refused(vec![(spec().set("/ociVersion", version), &["ociVersion"])]);
    }
    refused(vec![(spec().unset("/ociVersion"), &["ociVersion"])]);
}

#[test]
fn every_published_version_1_of_the_specification_is_accepted() {
    for version in ["1.0.0", "1.0.1", "1.0.2", "1.0.2-dev", "1.1.0", "1.2.0", "1.2.1"] {
        if peer() == Peer::Rustbox || version < "1.1" {
            output_of(spec().set("/ociVersion", json!(version)));
        }
    }
}

#[test]
fn unknown_properties_are_ignored() {
    // runtime-spec, extensibility: "Runtimes MUST NOT generate an error if they encounter an unknown property."
    output_of(spec().patch(json!({"unknown": {"a": 1}, "process": {"unknown": []}, "linux": {"unknown": true}})));
}

// ---------------------------------------------------------------------------------------------------------------------
// root

#[test]
fn a_rootfs_that_is_missing_or_no_directory_is_refused() {
    refused(vec![
        (spec().set("/root/path", json!("missing")), &["missing", "No such file"]),
        (spec().set("/root/path", json!("config.json")), &["config.json"]),
        (spec().set("/root/path", json!("")), &["root.path"]),
        (spec().unset("/root/path"), &["root"]),
        (spec().unset("/root"), &["root"]),
    ]);
}

#[test]
fn a_rootfs_that_is_a_symlink_is_refused() {
    let t = Test::new();
    let c = t.bundle(spec().set("/root/path", json!("link")));
    not_under!(Crun, "follows it");
    symlink("rootfs", c.bundle.join("link")).unwrap();
    bundle_refused(&t, &c, &["link"]);
    fs::remove_file(c.bundle.join("link")).unwrap();
    symlink("/", c.bundle.join("link")).unwrap();
    bundle_refused(&t, &c, &["link"]);
}

// ---------------------------------------------------------------------------------------------------------------------
// process

#[test]
fn a_bad_process_is_refused() {
    refused(vec![
        (spec().unset("/process/args"), &["process.args"]),
        (spec().set("/process/args", json!([])), &["process.args"]),
        (spec().set("/process/cwd", json!("")), &["process.cwd"]),
        (spec().set("/process/cwd", json!("relative")), &["process.cwd"]),
        (spec().unset("/process/cwd"), &["cwd"]),
    ]);
}

#[test]
fn bad_rlimits_are_refused() {
    // runtime-spec, process: an unmappable type and duplicated types MUST be errors.
    refused(vec![
        (
            spec().set("/process/rlimits", json!([{"type": "RLIMIT_NONSENSE", "soft": 1, "hard": 1}])),
            &["process.rlimits"],
        ),
        (
            spec().set(
                "/process/rlimits",
                json!([{"type": "RLIMIT_CORE", "soft": 1, "hard": 1}, {"type": "RLIMIT_CORE", "soft": 2, "hard": 2}]),
            ),
            &["process.rlimits[1]"],
        ),
        (spec().set("/process/rlimits", json!([{"type": "RLIMIT_CORE", "soft": 2, "hard": 1}])), &["RLIMIT_CORE"]),
    ]);
}

#[test]
fn a_bad_scheduler_io_priority_or_personality_is_refused() {
    rustbox_only!();
    refused(vec![
        (spec().patch(json!({"process": {"scheduler": {"policy": "SCHED_NONSENSE"}}})), &["process.scheduler"]),
        (
            spec().patch(json!({"process": {"scheduler": {"policy": "SCHED_OTHER", "nice": 99}}})),
            &["process.scheduler"],
        ),
        (
            spec().patch(json!({"process": {"ioPriority": {"class": "IOPRIO_CLASS_NONSENSE", "priority": 4}}})),
            &["process.ioPriority"],
        ),
        (
            spec().patch(json!({"process": {"ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 8}}})),
            &["process.ioPriority"],
        ),
        (spec().patch(json!({"process": {"oomScoreAdj": 1001}})), &["process.oomScoreAdj"]),
        (spec().patch(json!({"process": {"oomScoreAdj": -1001}})), &["process.oomScoreAdj"]),
        (spec().patch(json!({"linux": {"personality": {"domain": "SOLARIS"}}})), &["linux.personality"]),
    ]);
}

#[test]
fn a_missing_cwd_is_made_or_refused_but_never_ignored() {
    let t = Test::new();
    let c = t.bundle(sh("pwd").set("/process/cwd", json!("/new/dir")).writable());
    let out = c.run();
    if out.code == 0 {
        assert_eq!(out.line(), "/new/dir");
    } else {
        out.fails().says(&["/new/dir"]);
    }
    t.assert_nothing_left();
}

// ---------------------------------------------------------------------------------------------------------------------
// namespaces

#[test]
fn bad_namespaces_are_refused() {
    // runtime-spec, namespaces: duplicates and paths that do not fit MUST be errors.
    let twice = |kind: &str| {
        let mut spec = spec();
        spec.0["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": kind}));
        spec
    };
    refused(vec![
        (twice("pid"), &["linux.namespaces[5]", "pid"]),
        (twice("mount"), &["linux.namespaces[5]", "mount"]),
        (spec().namespace(json!({"type": "nonsense"})), &["linux.namespaces"]),
        (spec().namespace(json!({"type": "network", "path": "/no/such/ns"})), &["/no/such/ns", "No such file"]),
        (spec().namespace(json!({"type": "network", "path": "/proc/self/ns/uts"})), &["/proc/self/ns/uts"]),
        (spec().namespace(json!({"type": "network", "path": "/etc/passwd"})), &["/etc/passwd"]),
    ]);
}

#[test]
fn settings_without_their_namespace_are_refused() {
    refused(vec![
        (spec().without_namespace("uts"), &["hostname"]),
        (spec().patch(json!({"linux": {"sysctl": {"kernel.sysrq": "0"}}})), &["kernel.sysrq"]),
        (
            spec().without_namespace("network").patch(json!({"linux": {"sysctl": {"net.ipv4.ip_forward": "1"}}})),
            &["net.ipv4.ip_forward"],
        ),
        (
            spec().without_namespace("ipc").patch(json!({"linux": {"sysctl": {"kernel.msgmax": "8192"}}})),
            &["kernel.msgmax"],
        ),
    ]);
    rustbox_only!();
    refused(vec![
        (spec().without_namespace("uts").unset("/hostname").patch(json!({"domainname": "x"})), &["domainname"]),
        (spec().patch(json!({"linux": {"timeOffsets": {"boottime": {"secs": 1}}}})), &["timeOffsets"]),
        (
            spec().patch(json!({"linux": {"uidMappings": [{"containerID": 0, "hostID": 0, "size": 1}]}})),
            &["uidMappings"],
        ),
        (spec().namespace(json!({"type": "user"})), &["uidMappings"]),
    ]);
}

#[test]
fn bad_sysctls_are_refused() {
    refused(vec![
        (spec().patch(json!({"linux": {"sysctl": {"net.no_such_setting": "1"}}})), &["net"]),
        (spec().patch(json!({"linux": {"sysctl": {"net.ipv4.ip_forward": "banana"}}})), &["ip_forward"]),
        (spec().patch(json!({"linux": {"sysctl": {"net.../kernel.sysrq": "1"}}})), &["sysctl"]),
        (spec().patch(json!({"linux": {"sysctl": {"net/../../kernel/sysrq": "1"}}})), &["sysctl"]),
    ]);
}

// ---------------------------------------------------------------------------------------------------------------------
// mounts

#[test]
fn bad_mounts_are_refused() {
    refused(vec![
        (spec().bind("/no/such/source", "/mnt", &["bind"]).writable(), &["/no/such/source", "No such file"]),
        (
            spec().mount(json!({"destination": "/mnt", "type": "no-such-fs", "source": "x"})).writable(),
            &["no-such-fs", "/mnt"],
        ),
        (spec().tmpfs("/tmp", &["no-such-option=1"]), &["/tmp"]),
        (spec().tmpfs("/tmp", &["size=banana"]), &["/tmp"]),
    ]);
    rustbox_only!();
    refused(vec![
        // A relative one "MUST be interpreted as relative to /" (config.md, "Mounts"): it is no fault.
        (spec().tmpfs("", &[]), &["mounts[7].destination"]),
        (spec().patch(json!({"linux": {"rootfsPropagation": "sideways"}})), &["rootfsPropagation"]),
    ]);
}

#[test]
fn a_directory_cannot_be_bound_over_a_file() {
    refused(vec![(spec().bind("/usr", "/etc/passwd", &["bind", "ro"]), &["/etc/passwd"])]);
}

#[test]
fn proc_onto_a_symlink_is_refused() {
    let t = Test::new();
    let c = t.bundle(spec());
    fs::remove_dir(c.rootfs().join("proc")).unwrap();
    fs::create_dir(c.rootfs().join("elsewhere")).unwrap();
    symlink("/elsewhere", c.rootfs().join("proc")).unwrap();
    not_under!(Crun, "follows it inside the rootfs");
    bundle_refused(&t, &c, &["/proc"]);
}

// ---------------------------------------------------------------------------------------------------------------------
// linux

#[test]
fn bad_devices_are_refused() {
    refused(vec![
        (
            spec().patch(json!({"linux": {"devices": [{"path": "/dev/x", "type": "z", "major": 1, "minor": 3}]}})),
            &["linux.devices[0].type"],
        ),
        (
            spec().resources(json!({"devices": [{"allow": true, "type": "z", "access": "rwm"}]})),
            &["linux.resources.devices[0].type"],
        ),
    ]);
    rustbox_only!();
    refused(vec![(
        spec().resources(json!({"devices": [{"allow": true, "access": "xyz"}]})),
        &["linux.resources.devices[0].access"],
    )]);
}

#[test]
fn bad_seccomp_is_refused() {
    let seccomp = |profile: Value| spec().patch(json!({"linux": {"seccomp": profile}}));
    refused(vec![
        (seccomp(json!({"defaultAction": "SCMP_ACT_NONSENSE"})), &["linux.seccomp.defaultAction"]),
        (
            seccomp(json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_NONSENSE"]})),
            &["linux.seccomp.architectures"],
        ),
        (
            seccomp(
                json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["getcwd"], "action": "SCMP_ACT_NONSENSE"}]}),
            ),
            &["linux.seccomp.syscalls[0].action"],
        ),
        (
            seccomp(
                json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["getcwd"], "action": "SCMP_ACT_ERRNO",
                "args": [{"index": 0, "value": 0, "op": "SCMP_CMP_NONSENSE"}]}]}),
            ),
            &["linux.seccomp.syscalls[0].args[0].op"],
        ),
    ]);
    rustbox_only!();
    refused(vec![
        (
            seccomp(
                json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["getcwd"], "action": "SCMP_ACT_ERRNO",
                "args": [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]}]}),
            ),
            &["linux.seccomp.syscalls[0].args[0]"],
        ),
        (
            seccomp(
                json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["getcwd"], "action": "SCMP_ACT_NOTIFY"}]}),
            ),
            &["listenerPath"],
        ),
    ]);
}

#[test]
fn bad_hooks_are_refused() {
    // runtime-spec, hooks: the path MUST be absolute, a timeout MUST be greater than zero.
    rustbox_only!();
    refused(vec![
        (spec().patch(json!({"hooks": {"createRuntime": [{"path": "relative"}]}})), &["hooks.createRuntime[0].path"]),
        (
            spec().patch(json!({"hooks": {"poststop": [{"path": "/bin/true", "timeout": 0}]}})),
            &["hooks.poststop[0].timeout"],
        ),
        (
            spec().patch(json!({"hooks": {"poststop": [{"path": "/bin/true", "timeout": -1}]}})),
            &["hooks.poststop[0].timeout"],
        ),
    ]);
}

#[test]
fn bad_resources_are_refused() {
    refused(vec![
        (spec().resources(json!({"memory": {"limit": 1024}})), &["memory"]),
        (spec().resources(json!({"cpu": {"cpus": "banana"}})), &["cpu"]),
        (spec().resources(json!({"cpu": {"quota": 1}})), &["cpu"]),
    ]);
}

#[test]
fn a_cgroups_path_that_climbs_out_is_refused_or_kept_inside() {
    let t = Test::new();
    let path = format!("/../../../../../../../../../tmp/rustbox-test-{}-climbs", t.tag);
    let c = t.bundle(spec().patch(json!({"linux": {"cgroupsPath": path}})));
    c.run();
    assert!(!Path::new(&format!("/tmp/rustbox-test-{}-climbs", t.tag)).exists());
    for controller in ["memory", "pids"] {
        let outside = hierarchy(controller).join("tmp");
        assert!(!outside.exists() || peer() != Peer::Rustbox);
        let _ = fs::remove_dir(outside);
    }
    t.assert_nothing_left();
}

// ---------------------------------------------------------------------------------------------------------------------
// the host refuses

#[test]
fn a_full_disk_for_state_is_an_error_that_leaves_nothing() {
    let t = Test::new();
    let c = t.bundle(spec().args(&["sleep", "1000"]));
    fs::create_dir_all(&t.root).unwrap();
    let flags = nix::mount::MsFlags::empty();
    for options in ["size=4k", "size=16k,nr_inodes=2"] {
        nix::mount::mount(Some("tmpfs"), &t.root, Some("tmpfs"), flags, Some(options)).unwrap();
        if options == "size=4k" {
            fs::write(t.root.join("filler"), [0; 4096]).unwrap();
        }
        c.create().denied().rustbox_says(&["No space left on device"]);
        c.run().denied();
        let names: Vec<_> = fs::read_dir(&t.root).unwrap().flatten().map(|entry| entry.file_name()).collect();
        assert!(names.iter().all(|name| name == "filler" || name.to_string_lossy().starts_with('.')), "{names:?}");
        nix::mount::umount(&t.root).unwrap();
        t.assert_nothing_left();
    }
}

#[test]
fn a_state_root_that_is_a_file_or_read_only_is_an_error() {
    let t = Test::new();
    let c = t.bundle(spec());
    fs::write(&t.root, "file").unwrap();
    bundle_refused(&t, &c, &[t.root.to_str().unwrap()]);
    fs::remove_file(&t.root).unwrap();
    fs::create_dir(&t.root).unwrap();
    let flags = nix::mount::MsFlags::MS_RDONLY;
    nix::mount::mount(Some("tmpfs"), &t.root, Some("tmpfs"), flags, None::<&str>).unwrap();
    c.create().denied().rustbox_says(&["Read-only file system"]);
    nix::mount::umount(&t.root).unwrap();
    t.assert_nothing_left();
}

#[test]
fn no_permission_for_cgroups_is_an_error_that_leaves_nothing() {
    let t = Test::new();
    let c = t.bundle(spec());
    let script = "for h in /sys/fs/cgroup /sys/fs/cgroup/*; do mountpoint -q $h && mount -o bind,remount,ro $h; done; exec \"$@\"";
    let script = format!("exec unshare -m sh -c '{script}' sh \"$@\"");
    for command in ["create", "run"] {
        let out = t.shell(&script, &[command, "--bundle", c.bundle.to_str().unwrap(), &c.id]);
        out.denied().rustbox_says(&["cgroup", "Read-only file system"]);
        t.assert_nothing_left();
    }
}

#[test]
fn no_free_descriptors_is_an_error_that_leaves_nothing() {
    let t = Test::new();
    let c = t.bundle(spec());
    for limit in [4, 8, 12, 16] {
        let out = t
            .shell(&format!("ulimit -n {limit}; exec \"$@\""), &["run", "--bundle", c.bundle.to_str().unwrap(), &c.id]);
        if out.code != 0 {
            assert!(!out.stderr.is_empty() || out.signal.is_some(), "{out:?}");
        }
        if peer() == Peer::Rustbox {
            t.assert_nothing_left();
        }
    }
}

#[test]
fn a_bad_process_document_fails_exec_and_the_container_lives_on() {
    let t = Test::new();
    let c = t.bundle(spec().args(&["sleep", "1000"]));
    c.up();
    c.exec_with(&["--process", "/no/such/process.json"], &[]).fails().rustbox_says(&["/no/such/process.json"]);
    let file = t.path("bad.json");
    for text in ["", "{", "[]", "{\"args\": []}", "{\"args\": \"true\", \"cwd\": \"/\"}"] {
        fs::write(&file, text).unwrap();
        c.exec_with(&["--process", file.to_str().unwrap()], &[]).fails();
    }
    assert_eq!(c.status(), "running");
    c.exec(&["true"]).ok();
}
