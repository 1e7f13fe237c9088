//! `linux.namespaces`: new, joined by path, inherited; user mappings, time offsets, the cgroup namespace.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use common::*;

const KINDS: &[(&str, &str)] = &[
    ("pid", "pid"),
    ("network", "net"),
    ("ipc", "ipc"),
    ("uts", "uts"),
    ("mount", "mnt"),
    ("cgroup", "cgroup"),
    ("user", "user"),
    ("time", "time"),
];

const HOST_ID: u32 = 700_000;

fn long(spec: Spec) -> Spec {
    spec.args(&["sleep", "1000"])
}

#[test]
fn each_namespace_that_is_listed_is_new() {
    for (kind, file) in KINDS {
        if peer() == Peer::Runc && *kind == "time" {
            continue;
        }
        let t = Test::new();
        let spec = match *kind {
            "user" => long(spec()).userns(HOST_ID, 1000),
            kind => long(spec()).namespace(json!({"type": kind})),
        };
        let c = t.bundle(spec);
        c.up();
        assert_ne!(namespace(&c.pid().to_string(), file), namespace("self", file), "{kind}");
        c.kill_and_delete();
        t.assert_nothing_left();
    }
}

#[test]
fn each_namespace_that_is_not_listed_is_the_runtimes_own() {
    for kind in ["pid", "network", "ipc", "uts", "cgroup", "user", "time"] {
        let t = Test::new();
        let mut spec = long(spec()).without_namespace(kind);
        if kind == "uts" {
            spec = spec.unset("/hostname");
        }
        let c = t.bundle(spec);
        c.up();
        let file = KINDS.iter().find(|(name, _)| *name == kind).unwrap().1;
        assert_eq!(namespace(&c.pid().to_string(), file), namespace("self", file), "{kind}");
        c.kill_and_delete();
        t.assert_nothing_left();
    }
}

#[test]
fn namespaces_are_joined_by_path() {
    let t = Test::new();
    let first = t.bundle(long(spec()).set("/hostname", json!("first")));
    first.up();
    let pid = first.pid();
    for (kind, file) in [("network", "net"), ("ipc", "ipc"), ("uts", "uts"), ("pid", "pid")] {
        let path = format!("/proc/{pid}/ns/{file}");
        let mut spec = long(spec()).namespace(json!({"type": kind, "path": path}));
        if kind == "uts" {
            spec = spec.unset("/hostname");
        }
        let second = t.bundle(spec);
        second.up();
        assert_eq!(namespace(&second.pid().to_string(), file), namespace(&pid.to_string(), file), "{kind}");
        second.kill("KILL").ok();
        second.wait_status("stopped");
        second.delete().ok();
        assert_eq!(first.status(), "running", "{kind}: the namespace's owner lives on");
    }
}

#[test]
fn a_pod_shares_the_namespaces_of_its_first_container() {
    let t = Test::new();
    let pause = t.bundle(long(spec()).set("/hostname", json!("pod")));
    pause.up();
    let path = |file: &str| format!("/proc/{}/ns/{file}", pause.pid());
    let worker = t.bundle(
        sh("hostname; ip link show lo | grep -c UP; echo $$ > /dev/null; ls -d /proc/1/ns")
            .unset("/hostname")
            .namespace(json!({"type": "network", "path": path("net")}))
            .namespace(json!({"type": "ipc", "path": path("ipc")}))
            .namespace(json!({"type": "uts", "path": path("uts")}))
            .namespace(json!({"type": "pid", "path": path("pid")})),
    );
    let out = worker.run().ok();
    assert!(out.stdout.starts_with("pod\n1\n"), "{out:?}");
    assert_eq!(pause.status(), "running");
    pause.kill_and_delete();
    t.assert_nothing_left();
}

#[test]
fn a_container_in_a_joined_pid_namespace_is_killed_and_proved_gone_without_harm_to_the_owner() {
    let t = Test::new();
    let owner = t.bundle(long(spec()));
    owner.up();
    let path = format!("/proc/{}/ns/pid", owner.pid());
    let guest = t.bundle(
        sh("sleep 2001 >/dev/null & sleep 2002 >/dev/null & exec sleep 2003")
            .namespace(json!({"type": "pid", "path": path})),
    );
    guest.up();
    guest.delete_force().ok();
    assert!(!guest.cgroup_dir("pids").exists());
    assert_eq!(owner.status(), "running");
    owner.kill_and_delete();
    t.assert_nothing_left();
}

#[test]
fn a_new_pid_namespace_makes_the_program_pid_1_and_hides_the_host() {
    let out = output_of(sh("echo $$; ls -d /proc/[0-9]* | wc -l"));
    let mut lines = out.lines();
    assert_eq!(lines.next(), Some("1"));
    assert!(lines.next().unwrap().parse::<u32>().unwrap() <= 4, "{out}");
}

#[test]
fn a_new_network_namespace_has_only_loopback() {
    assert_eq!(output_of(sh("ls /sys/class/net | grep -v -e sit0 -e tunl0 -e ip6tnl0")), "lo");
}

/// What is begun before the configuration is parsed must not decide what the container gets.
#[test]
fn a_network_namespace_is_what_the_parsed_configuration_says() {
    let t = Test::new();
    let owner = t.bundle(long(spec()));
    owner.up();
    let theirs = namespace(&owner.pid().to_string(), "net");
    let path = format!("/proc/{}/ns/net", owner.pid());
    // A new one in words that only a parser knows, a joined one with the path on either side, none at all.
    for (entry, joined) in [
        (r#"{"type": "n\u0065twork"}"#.to_owned(), None),
        (format!(r#"{{"type": "network", "path": "{path}"}}"#), Some(theirs.clone())),
        (format!(r#"{{"path": "{path}", "type" : "network"}}"#), Some(theirs)),
        (String::new(), Some(namespace("self", "net"))),
    ] {
        let c = t.bundle(sh("readlink /proc/self/ns/net; ip addr show lo").without_namespace("network"));
        let config = fs::read_to_string(c.bundle.join("config.json")).unwrap();
        let list = if entry.is_empty() {
            config
        } else {
            config.replacen("\"namespaces\": [", &format!("\"namespaces\": [{entry},"), 1)
        };
        // The words by which a new one is begun ahead, where they mean nothing.
        let list = list.replacen('{', r#"{"annotations": {"type": "network"},"#, 1);
        fs::write(c.bundle.join("config.json"), list).unwrap();
        let out = c.run().ok().stdout;
        let (found, lo) = out.split_once('\n').unwrap();
        match joined {
            Some(joined) => assert_eq!(found, joined, "{entry}"),
            None => {
                assert_ne!(found, namespace("self", "net"), "{entry}");
                assert!(lo.contains("UP"), "{entry}: {out}");
            }
        }
    }
    owner.kill_and_delete();
    t.assert_nothing_left();
}

#[test]
fn a_user_namespace_owns_its_network_namespace_however_it_is_spelled() {
    rustbox_only!();
    let t = Test::new();
    let sysctl = json!({"linux": {"sysctl": {"net.ipv4.ip_unprivileged_port_start": "1"}}});
    let spec = sh("ip addr add 127.0.0.9/8 dev lo && cat /proc/sys/net/ipv4/ip_unprivileged_port_start")
        .without_mount("/sys")
        .without_mount("/sys/fs/cgroup")
        .caps(&["CAP_NET_ADMIN"])
        .patch(sysctl);
    // Elsewhere there is another configuration, which has no user namespace.
    let other = t.bundle(sh("true"));
    let c = t.bundle(spec.userns(HOST_ID, 1000));
    own(&c, HOST_ID);
    let config = c.bundle.join("config.json");
    let text = fs::read_to_string(&config).unwrap();
    assert_eq!(c.run().ok().stdout, "1\n");
    fs::write(&config, text.replace("\"user\"", "\"us\\u0065r\"")).unwrap();
    assert_eq!(c.run().ok().stdout, "1\n");
    let attached = format!(
        "cd {} && exec \"$0\" --root {} run -b{} {}",
        other.bundle.display(),
        t.root.display(),
        c.bundle.display(),
        c.id
    );
    let mut command = std::process::Command::new("sh");
    command.arg("-c").arg(attached).arg(binary());
    assert_eq!(t.finish(command).ok().stdout, "1\n");
    t.assert_nothing_left();
}

#[test]
fn a_new_mount_namespace_hides_the_hosts_mounts() {
    let out = output_of(sh("cut -d' ' -f5 /proc/self/mountinfo"));
    assert_eq!(out.lines().next(), Some("/"));
    for point in out.lines() {
        assert!(
            ["/", "/proc", "/dev", "/sys"].iter().any(|top| point == *top || point.starts_with(&format!("{top}/"))),
            "{point}"
        );
        assert!(!point.contains("rustbox-test") || point.starts_with("/sys/fs/cgroup"), "{point}");
    }
}

#[test]
fn nothing_is_mounted_in_the_hosts_namespace() {
    let t = Test::new();
    let before =
        fs::read_to_string("/proc/self/mountinfo").unwrap().lines().filter(|line| line.contains(&t.tag)).count();
    let c = t.bundle(long(spec()));
    c.up();
    let during =
        fs::read_to_string("/proc/self/mountinfo").unwrap().lines().filter(|line| line.contains(&t.tag)).count();
    assert_eq!(before, during);
}

#[test]
fn a_cgroup_namespace_is_rooted_at_the_containers_cgroup() {
    let out = output_of(sh("cat /proc/self/cgroup").namespace(json!({"type": "cgroup"})));
    for controller in ["memory", "pids", "freezer"] {
        assert_eq!(membership(&out, controller), "/", "{out}");
    }
}

#[test]
fn without_a_cgroup_namespace_the_real_path_shows() {
    let t = Test::new();
    let c = t.bundle(sh("cat /proc/self/cgroup"));
    let out = c.run().ok();
    assert_eq!(membership(&out.stdout, "memory"), format!("/{}", c.cgroup));
}

#[test]
fn time_offsets_move_the_clocks() {
    rustbox_only!();
    time_offsets_move_the_clocks_of(spec());
}

/// There the container's first process does not own its own files of /proc.
#[test]
fn time_offsets_move_the_clocks_in_a_new_user_namespace() {
    rustbox_only!();
    time_offsets_move_the_clocks_of(spec().userns(HOST_ID, 65536));
}

fn time_offsets_move_the_clocks_of(spec: Spec) {
    let t = Test::new();
    let offsets = json!({"linux": {"timeOffsets": {"boottime": {"secs": 1_000_000, "nanosecs": 5}, "monotonic": {"secs": 2_000_000}}}});
    let script = "cut -d. -f1 /proc/uptime; cat /proc/self/timens_offsets";
    let c = t.bundle(spec.args(&["sh", "-c", script]).namespace(json!({"type": "time"})).patch(offsets));
    own(&c, HOST_ID);
    let uptime = c.run().ok().stdout;
    t.assert_nothing_left();
    let mut lines = uptime.lines();
    let secs: f64 = lines.next().unwrap().parse().unwrap();
    let host: f64 = fs::read_to_string("/proc/uptime").unwrap().split('.').next().unwrap().parse().unwrap();
    assert!((secs - host - 1_000_000.0).abs() < 5.0, "{secs} is not {host} + 1000000");
    let offsets: Vec<Vec<&str>> = lines.map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(offsets, [vec!["monotonic", "2000000", "0"], vec!["boottime", "1000000", "5"]]);
}

// ---------------------------------------------------------------------------------------------------------------------
// user namespaces

#[test]
fn user_mappings_are_written_as_configured() {
    let t = Test::new();
    let maps =
        json!([{"containerID": 0, "hostID": 700_000, "size": 10}, {"containerID": 10, "hostID": 800_000, "size": 5}]);
    let c = t.bundle(
        long(spec())
            .namespace(json!({"type": "user"}))
            .patch(json!({"linux": {"uidMappings": maps, "gidMappings": maps}})),
    );
    own(&c, 700_000);
    c.up();
    for file in ["uid_map", "gid_map"] {
        let text = fs::read_to_string(format!("/proc/{}/{file}", c.pid())).unwrap();
        let rows: Vec<Vec<u32>> =
            text.lines().map(|line| line.split_whitespace().map(|n| n.parse().unwrap()).collect()).collect();
        assert_eq!(rows, [vec![0, 700_000, 10], vec![10, 800_000, 5]]);
    }
    assert_eq!(uid_of(c.pid()), 700_000);
    c.kill_and_delete();
    t.assert_nothing_left();
}

#[test]
fn root_in_a_user_namespace_is_nobody_on_the_host() {
    let t = Test::new();
    let c = t.bundle(sh("id -u; id -g; touch /tmp/mine; stat -c %u /tmp/mine").userns(HOST_ID, 65536).writable());
    own(&c, HOST_ID);
    let out = c.run().ok();
    assert_eq!(out.stdout, "0\n0\n0\n");
    let meta = fs::metadata(c.rootfs().join("tmp/mine")).unwrap();
    assert_eq!(
        (std::os::unix::fs::MetadataExt::uid(&meta), std::os::unix::fs::MetadataExt::gid(&meta)),
        (HOST_ID, HOST_ID)
    );
    t.assert_nothing_left();
}

#[test]
fn a_user_namespace_container_has_its_full_filesystem() {
    let t = Test::new();
    let script = "cat /proc/sys/kernel/hostname; ls /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty /dev/ptmx; \
                  echo x > /dev/null; head -c 3 /dev/zero | wc -c; ls /sys/class >/dev/null && echo sys; touch /dev/shm/x && echo shm";
    let c = t.bundle(sh(script).userns(HOST_ID, 65536));
    own(&c, HOST_ID);
    let out = c.run().ok();
    assert!(out.stdout.starts_with("box\n") && out.stdout.ends_with("3\nsys\nshm\n"), "{out:?}");
    t.assert_nothing_left();
}

#[test]
fn an_ordinary_user_in_a_user_namespace_is_mapped() {
    let t = Test::new();
    let c =
        t.bundle(long(spec()).userns(HOST_ID, 65536).patch(json!({"process": {"user": {"uid": 1000, "gid": 1000}}})));
    own(&c, HOST_ID);
    c.up();
    assert_eq!(uid_of(c.pid()), HOST_ID + 1000);
    assert_eq!(c.exec_with(&["--user", "5:6"], &["sh", "-c", "id -u; id -g"]).ok().stdout, "5\n6\n");
    c.kill_and_delete();
    t.assert_nothing_left();
}

#[test]
fn a_user_namespace_may_share_the_hosts_network() {
    let t = Test::new();
    let c = t.bundle(
        sh("ls /sys/class/net >/dev/null && echo sysfs; ls /sys/fs/cgroup")
            .userns(HOST_ID, 65536)
            .without_mount("/sys/fs/cgroup")
            .without_namespace("network")
            .patch(json!({"process": {}})),
    );
    own(&c, HOST_ID);
    // sysfs cannot be mounted here: a runtime binds the host's instead, without its cgroups, or says what it cannot do.
    let out = c.run();
    if out.code == 0 {
        assert_eq!(out.line(), "sysfs");
    } else {
        out.fails().says(&["/sys"]);
        assert_ne!(peer(), Peer::Rustbox, "the fallback is to bind the host's sysfs");
    }
    t.assert_nothing_left();
}

#[test]
fn an_existing_user_namespace_is_joined_by_path() {
    not_under!(Runc, "wants mappings too");
    not_under!(Crun, "differs");
    let t = Test::new();
    let first = t.bundle(long(spec()).userns(HOST_ID, 65536));
    own(&first, HOST_ID);
    first.up();
    let path = |file: &str| format!("/proc/{}/ns/{file}", first.pid());
    let second = t.bundle(
        long(spec())
            .namespace(json!({"type": "user", "path": path("user")}))
            .namespace(json!({"type": "network", "path": path("net")})),
    );
    own(&second, HOST_ID);
    second.up();
    assert_eq!(namespace(&second.pid().to_string(), "user"), namespace(&first.pid().to_string(), "user"));
    assert_eq!(uid_of(second.pid()), HOST_ID);
}

fn own(c: &Container, id: u32) {
    use std::os::unix::fs::lchown;
    for dir in ["", "proc", "sys", "dev", "etc", "tmp"] {
        lchown(c.rootfs().join(dir), Some(id), Some(id)).unwrap();
    }
}

fn uid_of(pid: i32) -> u32 {
    std::os::unix::fs::MetadataExt::uid(&fs::metadata(format!("/proc/{pid}")).unwrap())
}

/// Root of a user namespace, as a rootless engine calls its runtime: neither the host's cgroups nor /run are its own.
fn run_by_rootless_root(t: &Test, c: &Container<'_>) -> Out {
    let home = t.path("home");
    fs::create_dir(&home).unwrap();
    std::os::unix::fs::chown(&home, Some(HOST_ID), Some(HOST_ID)).unwrap();
    let id = HOST_ID.to_string();
    let script = "XDG_RUNTIME_DIR=$1 exec setpriv --reuid=$2 --regid=$2 --clear-groups unshare -Ur \"$3\" run --bundle \"$4\" \"$5\"";
    let mut command = std::process::Command::new("/bin/sh");
    command.args(["-c", script, "sh"]).arg(&home).arg(id).arg(binary()).arg(&c.bundle).arg(&c.id);
    t.finish(command)
}

#[test]
fn rootless_root_runs_without_the_cgroups_that_are_not_its_own() {
    rustbox_only!();
    let t = Test::new();
    let mounts = json!([
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"]},
    ]);
    let c = t.bundle(sh("id -u; hostname").patch(json!({"linux": {"cgroupsPath": ""}, "mounts": mounts})));
    own(&c, HOST_ID);
    assert_eq!(run_by_rootless_root(&t, &c).ok().stdout, "0\nbox\n");
    assert_eq!(fs::read_dir(t.path("home/rustbox")).unwrap().count(), 0, "the state is in XDG_RUNTIME_DIR, and gone");
    t.assert_nothing_left();
}

#[test]
fn rootless_root_is_refused_a_limit_that_it_has_no_cgroup_for() {
    rustbox_only!();
    let t = Test::new();
    let c = t.bundle(sh("true").patch(json!({"linux": {"cgroupsPath": "", "resources": {"pids": {"limit": 20}}}})));
    own(&c, HOST_ID);
    run_by_rootless_root(&t, &c).fails().says(&["linux.resources.pids", "cgroup"]);
    t.assert_nothing_left();
}

#[test]
fn rootless_root_has_a_standing_of_its_own_and_not_the_hosts() {
    rustbox_only!();
    let t = Test::new();
    let mounts = json!([{"destination": "/proc", "type": "proc", "source": "proc"}]);
    let c = t.bundle(sh("echo ok").patch(json!({"linux": {"cgroupsPath": ""}, "mounts": mounts})));
    own(&c, HOST_ID);
    // The host's own, which its root alone may read.
    let (host, home) = (t.path("host"), t.path("home"));
    fs::create_dir_all(host.join("rustbox")).unwrap();
    fs::set_permissions(host.join("rustbox"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::create_dir_all(home.join(".local/state/rustbox")).unwrap();
    std::os::unix::fs::chown(&home, Some(HOST_ID), Some(HOST_ID)).unwrap();
    let passwd = t.path("passwd");
    fs::write(&passwd, format!("root:x:0:0::/root:\nx:x:{HOST_ID}:{HOST_ID}::{}:\n", home.display())).unwrap();
    let script = "mount --bind \"$1\" /var/lib && mount --bind \"$7\" /etc/passwd && unset RUSTBOX_STATE_DIR HOME && export XDG_RUNTIME_DIR=$2 $8 && \
        exec setpriv --reuid=$3 --regid=$3 --clear-groups unshare -Ur \"$4\" run --bundle \"$5\" \"$6\"";
    let run = |variable: &str| {
        let mut command = std::process::Command::new("unshare");
        command.args(["-m", "sh", "-c", script, "sh"]).args([&host, &home]).arg(HOST_ID.to_string());
        command.arg(binary()).arg(&c.bundle).arg(&c.id).arg(&passwd).arg(variable);
        t.finish(command)
    };
    // podman gives some commands no HOME: it is the same place.
    for variable in [&format!("HOME={}", home.display()), "UNRELATED=1"] {
        let out = run(variable).ok();
        // Where no cgroup can be had at all, which is so on cgroup v2, that is told, and nothing else.
        let told = out.stderr.lines().filter(|line| !line.contains("has no cgroup of its own")).count();
        assert_eq!((out.stdout.as_str(), told), ("ok\n", 0), "{variable}: {}", out.stderr);
    }
    // A standing that cannot be understood is never taken for a healthy one.
    fs::write(home.join(".local/state/rustbox/health.json"), "garbage").unwrap();
    run(&format!("HOME={}", home.display())).fails().says(&["quarantined", "health.json"]);
    run("UNRELATED=1").fails().says(&["quarantined", "health.json"]);
    t.assert_nothing_left();
}

#[test]
fn the_message_queues_of_a_user_namespace_belong_to_its_root() {
    not_under!(Crun, "refuses hybrid");
    let spec = sh("stat -c %u:%g /dev/mqueue; readlink /proc/self/ns/ipc").userns(HOST_ID, 65536);
    let out = output_of(spec);
    let host = fs::read_link("/proc/self/ns/ipc").unwrap();
    let (owner, ipc) = out.split_once('\n').unwrap();
    assert_eq!(owner, "0:0");
    assert_ne!(ipc, host.to_str().unwrap(), "the IPC namespace is the host's");
}

/// The kernel makes a network namespace while the program starts, which takes another processor: a scheduler that packs
/// work on few would leave the helper behind its parent.
#[test]
fn the_helper_is_sent_to_another_processor_and_may_come_back() {
    rustbox_only!();
    let t = Test::new();
    let c = t.bundle(sh("true"));
    let trace = t.path("trace");
    let traced =
        format!("exec strace -f -qq -e trace=clone,sched_getaffinity,sched_setaffinity -o {} \"$@\"", trace.display());
    t.shell(&traced, &["run", "--bundle", c.bundle.to_str().unwrap(), &c.id]).ok();
    let calls = fs::read_to_string(&trace).unwrap();
    let list = |line: &str| line[line.find('[').unwrap()..=line.find(']').unwrap()].to_owned();
    let helper = calls.lines().find(|line| line.contains("flags=CLONE_FILES)")).expect(&calls);
    let helper = format!("sched_setaffinity({}, ", helper.rsplit(' ').next().unwrap());
    let given: Vec<String> = calls.lines().filter(|line| line.contains(&helper)).map(list).collect();
    let own = list(calls.lines().find(|line| line.contains("sched_getaffinity")).expect(&calls));
    let others = own.trim_matches(['[', ']']).split(' ').count() - 1;
    match given.as_slice() {
        // Where there is no other the first is refused.
        [there, back] => {
            assert!(there.split(' ').filter(|it| *it != "[]").count() == others && *back == own, "{calls}")
        }
        other => panic!("{other:?}: {calls}"),
    }
}
