//! `mounts`, `root`, `linux.devices`, `linux.rootfsPropagation` of config.json.

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};

use common::*;

/// The mountinfo line of one mount point in the container: per-mount options, propagation tags, filesystem, superblock options.
#[derive(Debug)]
struct Mount {
    options: Vec<String>,
    tags: Vec<String>,
    fs: String,
    super_options: Vec<String>,
}

#[track_caller]
fn mount_at(spec: Spec, point: &str) -> Mount {
    parse(&output_of(spec.args(&["cat", "/proc/self/mountinfo"])), point)
}

#[track_caller]
fn parse(mountinfo: &str, point: &str) -> Mount {
    // The last mount on a point is the one that shows.
    let line = mountinfo
        .lines()
        .rfind(|line| line.split(' ').nth(4) == Some(point))
        .unwrap_or_else(|| panic!("nothing on {point}: {mountinfo}"));
    let (left, right) = line.split_once(" - ").unwrap();
    let left: Vec<&str> = left.split(' ').collect();
    let right: Vec<&str> = right.split(' ').collect();
    let split = |text: &str| text.split(',').map(str::to_owned).collect();
    Mount {
        options: split(left[5]),
        tags: left[6..].iter().map(|tag| tag.to_string()).collect(),
        fs: right[0].to_owned(),
        super_options: split(right[2]),
    }
}

impl Mount {
    fn has(&self, option: &str) -> bool {
        self.options.iter().any(|other| other == option)
    }

    fn tagged(&self, tag: &str) -> bool {
        self.tags.iter().any(|other| other.starts_with(tag))
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// root

#[test]
fn a_readonly_root_cannot_be_written() {
    assert_eq!(output_of(sh("touch /x 2>&1 | grep -o 'Read-only file system'")), "Read-only file system");
    assert!(mount_at(spec(), "/").has("ro"));
}

#[test]
fn a_writable_root_can_be_written() {
    let t = Test::new();
    let c = t.bundle(sh("echo content > /x").writable());
    c.run().ok();
    assert_eq!(fs::read_to_string(c.rootfs().join("x")).unwrap(), "content\n");
    assert!(mount_at(spec().writable(), "/").has("rw"));
}

#[test]
fn an_absolute_root_path_works() {
    let t = Test::new();
    let c = t.bundle(sh("echo absolute"));
    let mut config: serde_json::Value =
        serde_json::from_slice(&fs::read(c.bundle.join("config.json")).unwrap()).unwrap();
    config["root"]["path"] = c.rootfs().to_str().unwrap().into();
    c.write_config(&config);
    assert_eq!(c.run().ok().line(), "absolute");
}

#[test]
fn no_pivot_works_too() {
    let t = Test::new();
    let c = t.bundle(sh("ls / | tr '\\n' ' '"));
    assert_eq!(c.run_with(&["--no-pivot"]).ok().line(), "bin dev etc proc sys tmp ");
    let c = t.bundle(sh("ls / | tr '\\n' ' '").userns(700_000, 65_536));
    assert_eq!(c.run_with(&["--no-pivot"]).ok().line(), "bin dev etc proc sys tmp ");
    t.assert_nothing_left();
}

#[test]
fn a_root_path_with_dots_is_the_directory_that_they_lead_to() {
    let c_path = |path: &str| spec().args(&["ls", "/"]).set("/root/path", json!(path));
    let t = Test::new();
    let c = t.bundle(c_path("rootfs/tmp/.."));
    assert!(c.run().ok().stdout.contains("bin\n"));
    t.assert_nothing_left();
}

#[test]
fn what_is_mounted_on_the_root_is_the_root_for_what_follows() {
    for mapped in [false, true] {
        let t = Test::new();
        let volume = t.path("volume");
        common::rootfs::make(&volume);
        fs::create_dir(volume.join("later")).unwrap();
        for dir in ["", "dev", "proc", "later"] {
            std::os::unix::fs::lchown(volume.join(dir), Some(700_000), Some(700_000)).unwrap();
        }
        let mounts = json!([
            { "destination": "/", "source": volume, "options": ["bind"] },
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/later", "type": "tmpfs", "source": "tmpfs" },
        ]);
        let spec = sh("echo here > /later/file; ls / /later").set("/mounts", mounts);
        let c = t.bundle(if mapped { spec.userns(700_000, 65_536) } else { spec });
        let out = c.run().ok().stdout;
        assert!(out.contains("later\n") && out.ends_with("/later:\nfile\n"), "{out}");
        t.assert_nothing_left();
        assert_eq!(fs::read_dir(volume.join("later")).unwrap().count(), 0);
    }
}

#[test]
fn the_directory_of_a_program_is_made_below_a_readonly_path() {
    let out = output_of(
        sh("pwd; touch x 2>&1; true")
            .writable()
            .set("/linux/readonlyPaths", json!(["/tmp"]))
            .set("/process/cwd", json!("/tmp/made")),
    );
    assert_eq!(out, "/tmp/made\ntouch: x: Read-only file system");
}

#[test]
fn the_old_root_is_gone_after_the_pivot() {
    let out = output_of(sh("ls -a / | tr '\\n' ' '; ls /.. | wc -l; cd ..; pwd"));
    assert_eq!(out, ". .. bin dev etc proc sys tmp 6\n/");
}

#[test]
fn an_id_mapped_or_separate_rootfs_on_tmpfs_works() {
    let t = Test::new();
    let c = t.bundle(sh("echo on tmpfs"));
    let other = c.bundle.join("other");
    fs::create_dir(&other).unwrap();
    let flags = nix::mount::MsFlags::empty();
    nix::mount::mount(Some("tmpfs"), &other, Some("tmpfs"), flags, None::<&str>).unwrap();
    rootfs::make(&other.join("root"));
    let mut config: serde_json::Value =
        serde_json::from_slice(&fs::read(c.bundle.join("config.json")).unwrap()).unwrap();
    config["root"]["path"] = "other/root".into();
    c.write_config(&config);
    let out = c.run();
    nix::mount::umount(&other).unwrap();
    assert_eq!(out.ok().line(), "on tmpfs");
    t.assert_nothing_left();
}

#[test]
fn rootfs_propagation_is_set_on_the_root_mount() {
    for (propagation, tag) in [("private", ""), ("slave", "master:"), ("unbindable", "unbindable")] {
        if peer() == Peer::Runc && propagation == "unbindable" {
            continue; // makes the host's root unbindable before it binds the rootfs
        }
        let root = mount_at(spec().patch(json!({"linux": {"rootfsPropagation": propagation}})), "/");
        match tag {
            "" => assert!(root.tags.is_empty(), "{propagation}: {root:?}"),
            // A slave of a private mount has no master to name.
            "master:" => assert!(!root.tagged("shared:"), "{propagation}: {root:?}"),
            tag => assert!(root.tagged(tag), "{propagation}: {root:?}"),
        }
    }
    not_under!(Runc, "sets it on the mount that the pivot hides");
    let root = mount_at(spec().patch(json!({"linux": {"rootfsPropagation": "shared"}})), "/");
    assert!(root.tagged("shared:"), "{root:?}");
}

#[test]
fn an_unbindable_root_has_its_masked_and_readonly_paths() {
    not_under!(Runc, "makes the host's root unbindable before it binds the rootfs");
    for propagation in ["unbindable", "runbindable"] {
        let script = "cat /etc/group; (echo x > /etc/passwd) 2>/dev/null || echo refused; (echo x > /proc/sys/kernel/panic) 2>/dev/null || echo refused; \
                      echo x > /etc/new; grep -c unbindable /proc/self/mountinfo";
        let spec = sh(script).writable().patch(json!({"linux": {
            "rootfsPropagation": propagation, "readonlyPaths": ["/etc/passwd", "/proc/sys"], "maskedPaths": ["/etc/group"]}}));
        let out = output_of(spec);
        let unbindable = out.strip_prefix("refused\nrefused\n").unwrap_or_else(|| panic!("{propagation}: {out}"));
        let unbindable: u32 = unbindable.parse().unwrap();
        assert!(if propagation == "unbindable" { unbindable == 1 } else { unbindable > 5 }, "{propagation}: {out}");
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// mount options

#[test]
fn tmpfs_options_are_applied() {
    let mount = mount_at(
        spec().tmpfs("/tmp", &["nosuid", "nodev", "noexec", "noatime", "size=128k", "mode=0751", "nr_inodes=20"]),
        "/tmp",
    );
    assert_eq!(mount.fs, "tmpfs");
    for option in ["rw", "nosuid", "nodev", "noexec", "noatime"] {
        assert!(mount.has(option), "{option}: {mount:?}");
    }
    for option in ["size=128k", "mode=751", "nr_inodes=20"] {
        assert!(mount.super_options.iter().any(|other| other == option), "{option}: {mount:?}");
    }
    assert!(mount_at(spec().tmpfs("/tmp", &["ro"]), "/tmp").has("ro"));
}

#[test]
fn every_flag_of_the_mount_table_shows_or_is_undone_by_its_opposite() {
    for (option, opposite) in [
        ("ro", "rw"),
        ("nosuid", "suid"),
        ("nodev", "dev"),
        ("noexec", "exec"),
        ("noatime", "atime"),
        ("nodiratime", "diratime"),
    ] {
        assert!(mount_at(spec().tmpfs("/tmp", &[option]), "/tmp").has(option), "{option}");
        let undone = mount_at(spec().tmpfs("/tmp", &[option, opposite]), "/tmp");
        assert!(!undone.has(option), "{option},{opposite}: {undone:?}");
    }
    assert!(mount_at(spec().tmpfs("/tmp", &["relatime"]), "/tmp").has("relatime"));
    assert!(!mount_at(spec().tmpfs("/tmp", &["strictatime"]), "/tmp").has("relatime"));
    let sync = mount_at(spec().tmpfs("/tmp", &["sync", "dirsync", "lazytime"]), "/tmp");
    assert!(sync.has("rw"), "{sync:?}");
}

#[test]
fn defaults_means_no_flag() {
    not_under!(Runc, "hands the word to the filesystem");
    let mount = mount_at(spec().tmpfs("/tmp", &["defaults"]), "/tmp");
    assert!(mount.has("rw") && !mount.has("nosuid"), "{mount:?}");
}

#[test]
fn nosymfollow_is_applied() {
    not_under!(Runc, "does not know it yet");
    assert!(mount_at(spec().tmpfs("/tmp", &["nosymfollow"]), "/tmp").has("nosymfollow"));
}

#[test]
fn a_bind_mount_shows_the_source_and_ro_holds() {
    let t = Test::new();
    let source = t.path("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), "from the host\n").unwrap();
    let path = source.to_str().unwrap();
    let read =
        t.bundle(sh("cat /tmp/file; touch /tmp/new 2>/dev/null || echo refused").bind(path, "/tmp", &["bind", "ro"]));
    assert_eq!(read.run().ok().stdout, "from the host\nrefused\n");
    let write = t.bundle(sh("echo new > /tmp/new").bind(path, "/tmp", &["bind", "rw"]));
    write.run().ok();
    assert_eq!(fs::read_to_string(source.join("new")).unwrap(), "new\n");
    t.assert_nothing_left();
}

#[test]
fn a_bind_mount_without_type_works() {
    let t = Test::new();
    fs::write(t.path("file"), "content").unwrap();
    let c = t.bundle(
        spec()
            .args(&["cat", "/etc/passwd"])
            .mount(json!({"source": t.path("file"), "destination": "/etc/passwd", "options": ["bind", "ro"]})),
    );
    assert_eq!(c.run().ok().line(), "content");
}

#[test]
fn a_relative_bind_source_is_relative_to_the_bundle() {
    // runtime-spec, mounts: "For bind mounts ... the path SHOULD be either absolute or relative to the bundle."
    let t = Test::new();
    let c = t.bundle(spec().args(&["cat", "/etc/passwd"]).bind("data", "/etc/passwd", &["bind"]));
    fs::write(c.bundle.join("data"), "beside the config").unwrap();
    assert_eq!(c.run().ok().line(), "beside the config");
}

#[test]
fn bind_flags_are_applied_by_a_remount() {
    let t = Test::new();
    let source = t.path("source");
    fs::create_dir(&source).unwrap();
    let options = ["bind", "ro", "nosuid", "nodev", "noexec", "noatime"];
    let mount = mount_at(spec().bind(source.to_str().unwrap(), "/tmp", &options), "/tmp");
    for option in &options[1..] {
        assert!(mount.has(option), "{option}: {mount:?}");
    }
}

#[test]
fn rbind_brings_submounts_and_bind_does_not() {
    let t = Test::new();
    let source = t.path("source");
    fs::create_dir_all(source.join("sub")).unwrap();
    let flags = nix::mount::MsFlags::empty();
    nix::mount::mount(Some("tmpfs"), &source.join("sub"), Some("tmpfs"), flags, None::<&str>).unwrap();
    fs::write(source.join("sub/file"), "").unwrap();
    let path = source.to_str().unwrap();
    let run = |option: &str| t.bundle(sh("ls /tmp/sub").bind(path, "/tmp", &[option])).run().ok().stdout;
    let (recursive, plain) = (run("rbind"), run("bind"));
    nix::mount::umount(&source.join("sub")).unwrap();
    assert_eq!((recursive.as_str(), plain.as_str()), ("file\n", ""));
}

#[test]
fn recursive_attributes_reach_submounts_and_plain_ones_do_not() {
    let t = Test::new();
    let source = t.path("source");
    fs::create_dir_all(source.join("sub")).unwrap();
    let flags = nix::mount::MsFlags::empty();
    nix::mount::mount(Some("tmpfs"), &source.join("sub"), Some("tmpfs"), flags, None::<&str>).unwrap();
    let path = source.to_str().unwrap();
    let info = |options: &[&str]| {
        t.bundle(spec().args(&["cat", "/proc/self/mountinfo"]).bind(path, "/tmp", options)).run().ok().stdout
    };
    let plain = info(&["rbind", "ro"]);
    assert!(parse(&plain, "/tmp").has("ro") && parse(&plain, "/tmp/sub").has("rw"), "{plain}");
    let recursive = info(&["rbind", "rro", "rnosuid", "rnodev", "rnoexec"]);
    for option in ["ro", "nosuid", "nodev", "noexec"] {
        assert!(parse(&recursive, "/tmp").has(option), "{option}: {recursive}");
        assert!(parse(&recursive, "/tmp/sub").has(option), "{option}: {recursive}");
    }
    nix::mount::umount(&source.join("sub")).unwrap();
}

/// A shared mount of the host, to be unmounted at the end.
fn shared_tmpfs(t: &Test) -> std::path::PathBuf {
    let source = t.path("source");
    fs::create_dir(&source).unwrap();
    let flags = nix::mount::MsFlags::empty();
    nix::mount::mount(Some("tmpfs"), &source, Some("tmpfs"), flags, None::<&str>).unwrap();
    nix::mount::mount(None::<&str>, &source, None::<&str>, nix::mount::MsFlags::MS_SHARED, None::<&str>).unwrap();
    source
}

#[test]
fn propagation_options_are_applied() {
    let t = Test::new();
    let source = shared_tmpfs(&t);
    let path = source.to_str().unwrap();
    for option in ["shared", "slave", "private", "unbindable", "rshared", "rslave", "rprivate", "runbindable"] {
        let spec = spec().args(&["cat", "/proc/self/mountinfo"]).bind(path, "/tmp", &["bind", option]);
        // The root must not be unbindable or private for a shared mount to keep its peer group.
        let spec = if option.ends_with("shared") {
            spec.patch(json!({"linux": {"rootfsPropagation": "shared"}}))
        } else {
            spec
        };
        let mount = parse(&t.bundle(spec).run().ok().stdout, "/tmp");
        match option.strip_prefix('r').unwrap_or(option) {
            "shared" => assert!(mount.tagged("shared:"), "{option}: {mount:?}"),
            "slave" => assert!(mount.tagged("master:") && !mount.tagged("shared:"), "{option}: {mount:?}"),
            "private" => assert!(mount.tags.is_empty(), "{option}: {mount:?}"),
            _ => assert!(mount.tagged("unbindable"), "{option}: {mount:?}"),
        }
    }
    nix::mount::umount(&source).unwrap();
}

#[test]
fn an_rslave_mount_receives_what_the_host_mounts_later() {
    let t = Test::new();
    let source = shared_tmpfs(&t);
    fs::create_dir(source.join("late")).unwrap();
    let spec = sh("until [ -e /tmp/late/file ]; do sleep 0.01; done; echo arrived")
        .bind(source.to_str().unwrap(), "/tmp", &["rbind", "rslave"])
        .patch(json!({"linux": {"rootfsPropagation": "rslave"}}));
    let c = t.bundle(spec);
    c.up();
    nix::mount::mount(Some("tmpfs"), &source.join("late"), Some("tmpfs"), nix::mount::MsFlags::empty(), None::<&str>)
        .unwrap();
    fs::write(source.join("late/file"), "").unwrap();
    c.wait_output("arrived");
    nix::mount::umount(&source.join("late")).unwrap();
    c.wait_status("stopped");
    c.delete().ok();
    nix::mount::umount(&source).unwrap();
    t.assert_nothing_left();
}

#[test]
fn tmpcopyup_keeps_what_the_rootfs_has_there() {
    let t = Test::new();
    let c = t.bundle(sh("cat /opt/data/file; ls -l /opt/link | sed 's/.* //'; stat -c %a /opt/data; touch /opt/new && echo writable").tmpfs("/opt", &["tmpcopyup"]));
    c.file("opt/data/file", "copied up\n");
    symlink("data/file", c.rootfs().join("opt/link")).unwrap();
    assert_eq!(c.run().ok().stdout, "copied up\ndata/file\n755\nwritable\n");
    assert!(!c.rootfs().join("opt/new").exists());
    t.assert_nothing_left();
}

/// Names and the words of links are bytes, of whatever encoding.
#[test]
fn tmpcopyup_keeps_names_that_are_not_utf8() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;
    rustbox_only!();
    let t = Test::new();
    let c = t.bundle(
        sh("readlink /opt/link | od -An -tx1; cd /opt/dir*; echo * | od -An -tx1").tmpfs("/opt", &["tmpcopyup"]),
    );
    let name = |bytes: &'static [u8]| c.rootfs().join("opt").join(OsStr::from_bytes(bytes));
    fs::create_dir_all(name(b"dir\xfe")).unwrap();
    fs::write(name(b"dir\xfe/f\xff"), "").unwrap();
    symlink(OsStr::from_bytes(b"to\xff"), name(b"link")).unwrap();
    assert_eq!(c.run().ok().stdout, " 74 6f ff 0a\n 66 ff 0a\n");
    t.assert_nothing_left();
}

#[test]
fn tmpcopyup_copies_a_tree_however_deep_it_is() {
    rustbox_only!();
    let t = Test::new();
    // The longest path that a program can still say.
    let deep = "/d".repeat(2000);
    let c = t.bundle(sh(&format!("cat /opt{deep}/file; stat -c '%a %Y' /opt/d")).tmpfs("/opt", &["tmpcopyup"]));
    fs::create_dir_all(c.rootfs().join("opt")).unwrap();
    let make =
        "import os\nfor i in range(2000): os.mkdir('d', 0o750); os.chdir('d')\nopen('file', 'w').write('deep\\n')";
    let made = std::process::Command::new("python3").args(["-c", make]).current_dir(c.rootfs().join("opt")).status();
    assert!(made.unwrap().success());
    fs::File::open(c.rootfs().join("opt/d")).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    let bundle = c.bundle.to_str().unwrap();
    let out = t.shell("ulimit -Sn 256; exec \"$@\"", &["run", "--bundle", bundle, &c.id]);
    assert_eq!(out.ok().stdout, "deep\n750 0\n");
    t.assert_nothing_left();
}

#[test]
fn a_missing_mount_point_is_made() {
    let t = Test::new();
    fs::write(t.path("file"), "bound").unwrap();
    let c = t.bundle(sh("touch /a/deep/dir/x && cat /b/deep/file").tmpfs("/a/deep/dir", &[]).bind(
        t.path("file").to_str().unwrap(),
        "/b/deep/file",
        &["bind"],
    ));
    assert_eq!(c.run().ok().line(), "bound");
    assert!(c.rootfs().join("a/deep/dir").is_dir());
    assert!(c.rootfs().join("b/deep/file").is_file());
}

#[test]
fn mounts_are_made_in_the_order_of_the_configuration() {
    let t = Test::new();
    let c = t.bundle(sh("ls /tmp /tmp/inner").tmpfs("/tmp", &[]).tmpfs("/tmp/inner", &[]));
    assert_eq!(c.run().ok().stdout, "/tmp:\ninner\n\n/tmp/inner:\n");
}

#[test]
fn a_mount_point_that_is_a_symlink_resolves_inside_the_rootfs() {
    let t = Test::new();
    let outside = t.path("outside");
    fs::create_dir(&outside).unwrap();
    let c = t.bundle(sh("touch /link/file && ls /target").tmpfs("/link", &[]));
    fs::create_dir(c.rootfs().join("target")).unwrap();
    symlink("/target", c.rootfs().join("link")).unwrap();
    assert_eq!(c.run().ok().line(), "file");
    // The link now names a directory of the host by its absolute path: inside the rootfs that is another place.
    fs::remove_file(c.rootfs().join("link")).unwrap();
    symlink(&outside, c.rootfs().join("link")).unwrap();
    let out = c.run();
    assert!(fs::read_dir(&outside).unwrap().next().is_none(), "escaped: {out:?}");
    t.assert_nothing_left();
}

#[test]
fn proc_sys_and_devpts_are_what_they_say() {
    let out =
        output_of(sh("stat -f -c '%n %T' /proc /sys /dev/pts /dev/shm /dev/mqueue; ls -l /dev/ptmx | sed 's/.* //'"));
    assert!(out.contains("/proc proc\n/sys sysfs\n"), "{out}");
    assert!(out.contains("/dev/pts devpts\n/dev/shm tmpfs\n"), "{out}");
    assert!(out.ends_with("pts/ptmx"), "{out}");
}

#[test]
fn id_mapped_mounts_shift_ownership() {
    not_under!(Runc, "does not know them yet");
    not_under!(Crun, "spells them otherwise");
    let t = Test::new();
    let source = t.path("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), "").unwrap();
    std::os::unix::fs::chown(source.join("file"), Some(1000), Some(1000)).unwrap();
    let c = t.bundle(sh("stat -c '%u %g' /tmp/file").mount(json!({
        "source": source, "destination": "/tmp", "type": "bind", "options": ["bind"],
        "uidMappings": [{"containerID": 1000, "hostID": 2000, "size": 1}],
        "gidMappings": [{"containerID": 1000, "hostID": 2001, "size": 1}]
    })));
    assert_eq!(c.run().ok().line(), "2000 2001");
    t.assert_nothing_left();
}

// ---------------------------------------------------------------------------------------------------------------------
// cgroup mounts

#[test]
fn the_cgroup_mount_shows_the_containers_own_cgroups() {
    let t = Test::new();
    if unified() {
        let script = "cat /sys/fs/cgroup/memory.max; head -n 1 /sys/fs/cgroup/cgroup.procs";
        let out = t.bundle(sh(script).resources(json!({"memory": {"limit": 64 << 20}}))).run().ok();
        assert_eq!(out.stdout, format!("{}\n1\n", 64 << 20), "{out:?}");
        return t.assert_nothing_left();
    }
    let c = t.bundle(
        sh("ls /sys/fs/cgroup | grep -e '^memory$' -e '^pids$'; cat /sys/fs/cgroup/memory/memory.limit_in_bytes; cat /sys/fs/cgroup/pids/cgroup.procs | head -1")
            .resources(json!({"memory": {"limit": 64 << 20}})),
    );
    let out = c.run().ok();
    assert_eq!(out.stdout, format!("memory\npids\n{}\n1\n", 64 << 20), "{out:?}");
    t.assert_nothing_left();
}

#[test]
fn the_cgroup_mount_works_with_a_cgroup_namespace() {
    let files = if unified() {
        "cat /sys/fs/cgroup/memory.max; head -n 1 /sys/fs/cgroup/cgroup.procs"
    } else {
        "cat /sys/fs/cgroup/memory/memory.limit_in_bytes; head -n 1 /sys/fs/cgroup/pids/cgroup.procs"
    };
    let out =
        output_of(sh(files).namespace(json!({"type": "cgroup"})).resources(json!({"memory": {"limit": 64 << 20}})));
    assert_eq!(out, format!("{}\n1", 64 << 20));
}

// ---------------------------------------------------------------------------------------------------------------------
// devices

#[test]
fn the_default_devices_and_links_exist_and_work() {
    let script = "for d in null zero full random urandom tty; do stat -c '%n %F %a' /dev/$d; done; \
                  for l in fd stdin stdout stderr ptmx; do echo $l $(readlink /dev/$l); done; \
                  echo x > /dev/null && head -c 2 /dev/zero | wc -c && head -c 2 /dev/urandom | wc -c; \
                  echo x 2>/dev/null > /dev/full || echo full";
    let out = output_of(sh(script));
    for device in ["null", "zero", "full", "random", "urandom", "tty"] {
        assert!(out.contains(&format!("/dev/{device} character special file 666\n")), "{device}: {out}");
    }
    for (link, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ] {
        assert!(out.contains(&format!("{link} {target}\n")), "{link}: {out}");
    }
    assert!(out.ends_with("2\n2\nfull"), "{out}");
}

/// Devices may be made before a last mount only where that cannot cover them: through a link of a volume it can.
#[test]
fn devices_are_made_in_what_covers_dev_through_a_link_of_a_volume() {
    let t = Test::new();
    let (volume, fake) = (t.path("volume"), t.path("fake"));
    fs::create_dir(&volume).unwrap();
    fs::create_dir(&fake).unwrap();
    symlink("/dev", volume.join("link")).unwrap();
    fs::write(fake.join("null"), "").unwrap();
    let show = || {
        let spec = sh("stat -c %F /dev/null").without_mount("/sys/fs/cgroup");
        spec.bind(volume.to_str().unwrap(), "/sys/fs/cgroup", &["bind"])
    };
    let covered = t.bundle(show().tmpfs("/sys/fs/cgroup/link", &[]));
    assert_eq!(covered.run().ok().line(), "character special file");
    let faked = t.bundle(show().bind(fake.to_str().unwrap(), "/sys/fs/cgroup/link", &["bind"]));
    faked.run().fails().rustbox_says(&["/dev/null", "not the device asked for"]);
    // The mount of the cgroups itself may lead there.
    fs::create_dir(t.path("fs")).unwrap();
    symlink("/dev", t.path("fs/cgroup")).unwrap();
    let cgroups = json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"]});
    let spec = sh("stat -c %F /dev/null").without_mount("/sys/fs/cgroup");
    let led = t.bundle(spec.bind(t.path("fs").to_str().unwrap(), "/sys/fs", &["bind"]).mount(cgroups));
    assert_eq!(led.run().ok().line(), "character special file");
    t.assert_nothing_left();
}

#[test]
fn a_device_behind_a_link_of_the_image_lies_in_the_mount_that_it_leads_to() {
    let t = Test::new();
    let node = json!({"linux": {"devices": [{"path": "/volume/node", "type": "c", "major": 1, "minor": 3}]}});
    let spec =
        sh("stat -c '%F %t:%T' /sys/fs/cgroup/node").without_mount("/sys/fs/cgroup").tmpfs("/sys/fs/cgroup", &[]);
    let c = t.bundle(spec.patch(node));
    symlink("/sys/fs/cgroup", c.rootfs().join("volume")).unwrap();
    assert_eq!(c.run().ok().line(), "character special file 1:3");
    t.assert_nothing_left();
}

#[test]
fn configured_devices_are_made_with_mode_and_owner() {
    let devices = json!({"linux": {"devices": [
        {"path": "/dev/special", "type": "c", "major": 1, "minor": 5, "fileMode": 0o640, "uid": 11, "gid": 22},
        {"path": "/dev/sub/dir/block", "type": "b", "major": 7, "minor": 0, "fileMode": 0o600},
        {"path": "/dev/pipe", "type": "p", "fileMode": 0o622}
    ]}});
    let out = output_of(sh("stat -c '%n %F %t:%T %a %u %g' /dev/special /dev/sub/dir/block /dev/pipe").patch(devices));
    assert_eq!(
        out,
        "/dev/special character special file 1:5 640 11 22\n/dev/sub/dir/block block special file 7:0 600 0 0\n/dev/pipe fifo 0:0 622 0 0"
    );
}

#[test]
fn an_existing_node_of_the_same_device_is_kept() {
    let t = Test::new();
    let c = t.bundle(
        sh("stat -c '%F %t:%T' /dev/null; echo x > /dev/null && echo works")
            .without_mount("/dev")
            .without_mount("/dev/pts")
            .without_mount("/dev/shm")
            .without_mount("/dev/mqueue")
            .writable(),
    );
    let path = c.rootfs().join("dev/null");
    let mode = nix::sys::stat::Mode::from_bits_truncate(0o666);
    nix::sys::stat::mknod(&path, nix::sys::stat::SFlag::S_IFCHR, mode, nix::sys::stat::makedev(1, 3)).unwrap();
    assert_eq!(c.run().ok().stdout, "character special file 1:3\nworks\n");
    assert_eq!(fs::metadata(&path).unwrap().rdev(), nix::sys::stat::makedev(1, 3));
    t.assert_nothing_left();
}

/// Nobody asks for the default devices, so nobody can ask for more than that they work; a device of the list is as listed.
#[test]
fn in_a_user_namespace_a_default_device_is_no_way_to_the_hosts_node() {
    rustbox_only!();
    let t = Test::new();
    let script = "touch /dev/null && echo changed; echo x > /dev/null && cat /proc/self/mountinfo";
    let zero = json!([{"path": "/dev/zero", "type": "c", "major": 1, "minor": 5, "fileMode": 0o666}]);
    let c = t.bundle(sh(script).userns(700_000, 65536).set("/linux/devices", zero));
    let out = c.run().ok();
    assert!(!out.stdout.contains("changed"), "{out:?}");
    let options = |point: &str| parse(&out.stdout, point).options;
    for (option, is_set) in [("ro", true), ("nosuid", true), ("noexec", false)] {
        assert_eq!(options("/dev/null").iter().any(|it| it == option), is_set, "{option}: {out:?}");
    }
    assert!(options("/dev/zero").iter().any(|option| option == "rw"), "{out:?}");
    t.assert_nothing_left();
}

#[test]
fn devices_in_a_user_namespace_are_bound_from_the_host() {
    let t = Test::new();
    let c = t.bundle(sh("stat -c '%t:%T' /dev/null /dev/zero; head -c 1 /dev/zero | wc -c").userns(700_000, 65536));
    for dir in ["", "proc", "sys", "dev", "etc", "tmp"] {
        std::os::unix::fs::lchown(c.rootfs().join(dir), Some(700_000), Some(700_000)).unwrap();
    }
    assert_eq!(c.run().ok().stdout, "1:3\n1:5\n1\n");
}

#[test]
fn a_file_on_a_directory_is_named_as_that() {
    let t = Test::new();
    let file = t.path("file");
    fs::write(&file, "").unwrap();
    let c = t.bundle(sh("true").bind(file.to_str().unwrap(), "/tmp", &["bind"]));
    c.run().fails().says(&["/tmp", "ot a directory"]);
    t.assert_nothing_left();
}

#[test]
fn proc_goes_on_an_ordinary_directory_only() {
    let t = Test::new();
    for name in ["proc", "sys"] {
        let c = t.bundle(sh("true"));
        let place = c.rootfs().join(name);
        fs::remove_dir(&place).unwrap();
        std::os::unix::fs::symlink("/elsewhere", &place).unwrap();
        let out = c.run().fails();
        if peer() == Peer::Rustbox {
            out.says(&["must be mounted on ordinary directory"]);
        }
    }
    t.assert_nothing_left();
}

#[test]
fn a_device_in_a_user_namespace_that_the_host_lacks_is_made_with_its_owner() {
    not_under!(Runc, "binds the host's node, and there is none");
    let t = Test::new();
    let device = |path: &str, major: u32, minor: u32| json!({"path": path, "type": "c", "major": major, "minor": minor, "fileMode": 0o644, "uid": 10, "gid": 11});
    let script =
        "stat -c '%t:%T %u:%g %a' /dev/elsewhere /dev/zero; stat -c %u:%g /dev/null; head -c 1 /dev/elsewhere | wc -c";
    let list = json!([device("/dev/elsewhere", 1, 5), device("/dev/zero", 1, 5)]);
    let allow = json!([{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 1, "minor": 5, "access": "rw"}]);
    let spec =
        sh(script).userns(700_000, 65536).patch(json!({"linux": {"devices": list, "resources": {"devices": allow}}}));
    let c = t.bundle(spec);
    for dir in ["", "proc", "sys", "dev", "etc", "tmp"] {
        std::os::unix::fs::lchown(c.rootfs().join(dir), Some(700_000), Some(700_000)).unwrap();
    }
    assert_eq!(c.run().ok().stdout, "1:5 10:11 644\n1:5 10:11 644\n65534:65534\n1\n");
    let host = fs::metadata("/dev/zero").unwrap();
    assert_eq!((host.uid(), host.gid()), (0, 0), "the host's node is not touched");
    t.assert_nothing_left();
}

#[test]
fn an_idmap_option_with_mappings_maps_the_owners() {
    not_under!(Runc, "knows no id-mapped mounts");
    let t = Test::new();
    let volume = t.path("volume");
    fs::create_dir(&volume).unwrap();
    fs::write(volume.join("file"), "").unwrap();
    std::os::unix::fs::chown(volume.join("file"), Some(3), Some(4)).unwrap();
    let bind = |option: &str| {
        let mount = json!({"destination": "/tmp", "type": "bind", "source": volume, "options": ["bind", option]});
        let c = t.bundle(sh("stat -c %u:%g /tmp/file").userns(700_000, 65536).mount(mount));
        for dir in ["", "proc", "sys", "dev", "etc", "tmp"] {
            std::os::unix::fs::lchown(c.rootfs().join(dir), Some(700_000), Some(700_000)).unwrap();
        }
        c.run()
    };
    assert_eq!(bind("idmap=uids=0-700020-10;gids=4-700100-1").ok().line(), "23:100");
    assert_eq!(bind("idmap=uids=@0-20-10;gids=@0-1-10").ok().line(), "23:5");
    if peer() == Peer::Rustbox {
        bind("idmap=uids=0-1").fails().says(&["$.mounts[", "idmap=uids="]);
    }
    t.assert_nothing_left();
}
