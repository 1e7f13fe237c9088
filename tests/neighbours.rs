//! What stands beside `process`: names, parameters, loopback, keyring, terminal, user namespace mappings, network devices,
//! hooks' cousins. Each case is a process of its own (this binary again, single-threaded, without a test harness), because
//! it changes what it runs in.

use std::os::fd::{AsFd, AsRawFd};
use std::process::Command;

use oci_spec::runtime::{Linux, Process, Spec};
use rustbox::Error;
use rustbox::container::console as host_console;
use rustbox::init::process::{ProcessPlan, Setting};
use rustbox::init::procfs::Procfs;
use rustbox::init::{console, intel_rdt, keyring, loopback, net_devices, sysctl, time_offsets, user_namespace, uts};
use rustbox::sys::clone::{CloneArgs, clone3};
use rustbox::sys::{pidfd, process};
use serde_json::{Value, json};

fn linux(document: Value) -> Linux {
    serde_json::from_value(document).unwrap()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}")).trim().to_owned()
}

fn sh(script: &str) -> String {
    let output = Command::new("/bin/sh").args(["-ec", script]).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn names_are_set() {
    process::unshare(libc::CLONE_NEWUTS).unwrap();
    let spec: Spec =
        serde_json::from_value(json!({"ociVersion": "1.2.0", "hostname": "box", "domainname": "dom"})).unwrap();
    uts::set_names(&spec).unwrap();
    assert_eq!((read("/proc/sys/kernel/hostname"), read("/proc/sys/kernel/domainname")), ("box".into(), "dom".into()));
}

fn parameters_reach_only_own_namespaces() {
    let before = read("/proc/sys/kernel/msgmax");
    let own = json!([{"type": "ipc"}, {"type": "network"}]);
    let good = json!({"namespaces": own, "sysctl": {"kernel.msgmax": "4242", "net.ipv4.ip_forward": "1"}});
    let parameters = sysctl::plan(&linux(good)).unwrap();
    process::unshare(libc::CLONE_NEWIPC | libc::CLONE_NEWNET).unwrap();
    let procfs = Procfs::open().unwrap();
    sysctl::write(&procfs, &parameters).unwrap();
    assert_eq!((read("/proc/sys/kernel/msgmax"), read("/proc/sys/net/ipv4/ip_forward")), ("4242".into(), "1".into()));
    assert_ne!(before, "4242");

    for (name, namespaces) in [
        ("kernel.msgmax", json!([])),
        ("net.ipv4.ip_forward", json!([{"type": "ipc"}])),
        ("vm.swappiness", own.clone()),
        ("kernel.hostname", json!([{"type": "uts"}])),
        ("net.../../kernel/core_pattern", own.clone()),
        ("net/../kernel/core_pattern", own.clone()),
        ("kernel.core_pattern", own.clone()),
        ("", own),
    ] {
        let refused = sysctl::plan(&linux(json!({"namespaces": namespaces, "sysctl": {name: "1"}})));
        assert!(matches!(refused, Err(Error::Config { .. })), "{name}: {refused:?}");
    }
}

fn loopback_comes_up() {
    process::unshare(libc::CLONE_NEWNET).unwrap();
    loopback::up().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
}

fn the_keyring_has_the_containers_name() {
    assert!(keyring::join("name-of-it").unwrap());
    assert!(read("/proc/keys").contains("_ses.name-of-it"), "{}", read("/proc/keys"));
}

/// CVE-2025-31133, CVE-2025-52881: what is not procfs, or is mounted over a file of it, is not written.
fn impostors_in_proc_are_refused() {
    process::unshare(libc::CLONE_NEWNS).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let victim = directory.path().join("victim");
    std::fs::write(&victim, "untouched").unwrap();
    sh(&format!("mount --make-rprivate /; mount --bind {} /proc/sys/kernel/domainname", victim.display()));
    let procfs = Procfs::open().unwrap();
    let error = procfs.write("sys/kernel/domainname", b"x").unwrap_err();
    assert_eq!(error.errno(), Some(nix::errno::Errno::EXDEV), "{error}");
    assert_eq!(procfs.write("self/root/tmp/x", b"x").unwrap_err().errno(), Some(nix::errno::Errno::ELOOP));
    assert!(procfs.write("../etc/hostname", b"x").is_err());
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "untouched");
    sh("umount /proc/sys/kernel/domainname; mount -t tmpfs none /proc");
    assert!(matches!(Procfs::open(), Err(Error::Refused(_))));
    sh("umount /proc; mount --bind /proc/sys /proc");
    assert!(matches!(Procfs::open(), Err(Error::Refused(_))));
    sh("umount /proc");
}

fn mappings_are_written() {
    let procfs = Procfs::open().unwrap();
    let range = |size: u32| json!([{"containerID": 0, "hostID": 100_000, "size": size}]);
    let document = linux(json!({"uidMappings": range(10), "gidMappings": [
        {"containerID": 0, "hostID": 200_000, "size": 1}, {"containerID": 1, "hostID": 300_000, "size": 9}]}));
    let (waiter, gate) = nix::unistd::pipe().unwrap();
    let args = CloneArgs { namespaces: libc::CLONE_NEWUSER as u64, ..CloneArgs::default() };
    let child = clone3(args, || {
        nix::unistd::close(gate.as_raw_fd()).unwrap();
        let _ = nix::unistd::read(waiter.as_raw_fd(), &mut [0]);
        // Only a mapped process can become these.
        i32::from(process::setresgid(9).is_err() || process::setresuid(9).is_err())
    })
    .unwrap();
    user_namespace::write_mappings(&procfs, child.pid, Some(&document), false).unwrap();
    let words =
        |file: &str| read(&format!("/proc/{}/{file}", child.pid)).split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(words("uid_map"), "0 100000 10");
    assert_eq!(words("gid_map"), "0 200000 1 1 300000 9");
    assert_eq!(words("setgroups"), "allow");
    drop(gate);
    assert_eq!(pidfd::wait(child.pidfd.as_fd(), true).unwrap(), Some(process::Ended::Exited(0)));
}

/// A caller without privileges maps itself, and gives up setgroups for it; a range it does not own is the helper's to refuse.
fn an_unprivileged_caller_maps_itself() {
    process::setgroups(&[]).unwrap();
    process::setresgid(54_321).unwrap();
    process::setresuid(54_321).unwrap();
    process::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0).unwrap();
    let procfs = Procfs::open().unwrap();
    let ids = |host: u32, size: u32| json!([{"containerID": 0, "hostID": host, "size": size}]);
    for (document, ok) in [
        (json!({"uidMappings": ids(54_321, 1), "gidMappings": ids(54_321, 1)}), true),
        (json!({"uidMappings": ids(0, 1), "gidMappings": ids(0, 1)}), false),
        (json!({"uidMappings": ids(100_000, 5), "gidMappings": ids(100_000, 5)}), false),
        (json!({"uidMappings": ids(54_321, 1)}), false),
    ] {
        let (waiter, gate) = nix::unistd::pipe().unwrap();
        let args = CloneArgs { namespaces: libc::CLONE_NEWUSER as u64, ..CloneArgs::default() };
        let child = clone3(args, || {
            nix::unistd::close(gate.as_raw_fd()).unwrap();
            let _ = nix::unistd::read(waiter.as_raw_fd(), &mut [0]);
            0
        })
        .unwrap();
        let done = user_namespace::write_mappings(&procfs, child.pid, Some(&linux(document.clone())), true);
        assert_eq!(done.is_ok(), ok, "{document}: {done:?}");
        if ok {
            assert_eq!(read(&format!("/proc/{}/setgroups", child.pid)), "deny");
        }
        drop(gate);
        pidfd::wait(child.pidfd.as_fd(), true).unwrap();
    }
}

fn clocks_are_shifted() {
    let offsets = json!({"timeOffsets": {"monotonic": {"secs": 1000, "nanosecs": 5}, "boottime": {"secs": 2000}}});
    let text = time_offsets::text(&linux(offsets)).unwrap().unwrap();
    assert_eq!(text, "boottime 2000 0\nmonotonic 1000 5\n");
    assert!(time_offsets::text(&linux(json!({"timeOffsets": {"realtime": {"secs": 1}}}))).is_err());
    let before: f64 = read("/proc/uptime").split(' ').next().unwrap().parse().unwrap();
    process::unshare(libc::CLONE_NEWTIME).unwrap();
    time_offsets::write(&Procfs::open().unwrap(), None, &text).unwrap();
    // By itself: before Linux 6.3 nobody with another time namespace for its children can have one by vfork, as a shell is
    // started.
    let children = std::fs::File::open("/proc/self/ns/time_for_children").unwrap();
    process::setns(children.as_fd(), libc::CLONE_NEWTIME).unwrap();
    let after: f64 = read("/proc/uptime").split(' ').next().unwrap().parse().unwrap();
    assert!((1990.0..2100.0).contains(&(after - before)), "{before} {after}");
}

fn the_terminal_is_the_containers_and_only_the_slave_changes_hands() {
    use std::os::unix::fs::MetadataExt;
    let (near, far) = host_console::socket().unwrap();
    let document: Process = serde_json::from_value(json!({
        "user": {"uid": 1000, "gid": 1000}, "args": ["x"], "cwd": "/", "terminal": true,
        "consoleSize": {"height": 33, "width": 77},
    }))
    .unwrap();
    let plan = ProcessPlan::new(&document, None, &Setting::default()).unwrap();
    let before = std::fs::metadata("/dev/null").unwrap();
    let args = CloneArgs { namespaces: libc::CLONE_NEWNS as u64, ..CloneArgs::default() };
    let child = clone3(args, || {
        sh("mount --make-rprivate /; mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts /dev/pts");
        process::setsid().unwrap();
        let slave = console::attach(&plan, far.as_fd()).unwrap();
        console::control().unwrap();
        let stat = nix::sys::stat::fstat(slave.as_raw_fd()).unwrap();
        assert_eq!((stat.st_uid, stat.st_gid), (1000, 5));
        // The shell reads its terminal's name, size and controlling terminal, then a line from it.
        let script = "tty; stty size; read -r line </dev/tty; echo got $line; exit 7";
        let status = Command::new("/bin/sh").args(["-c", script]).status().unwrap();
        status.code().unwrap()
    })
    .unwrap();
    drop(far);
    let master = host_console::receive(near.as_fd()).unwrap();
    let mut seen = Vec::new();
    let mut buffer = [0; 1024];
    let mut asked = false;
    while let Ok(length @ 1..) = nix::unistd::read(master.as_raw_fd(), &mut buffer) {
        seen.extend_from_slice(&buffer[..length]);
        // Only after both lines: the terminal's echo could come between them.
        if !asked && String::from_utf8_lossy(&seen).contains("33 77\r\n") {
            nix::unistd::write(&master, b"hello\n").unwrap();
            asked = true;
        }
    }
    let seen = String::from_utf8_lossy(&seen).into_owned();
    assert!(seen.contains("/dev/pts/0\r\n33 77\r\n") && seen.contains("got hello\r\n"), "{seen}");
    assert_eq!(pidfd::wait(child.pidfd.as_fd(), true).unwrap(), Some(process::Ended::Exited(7)), "{seen}");
    let after = std::fs::metadata("/dev/null").unwrap();
    assert_eq!((before.uid(), before.gid(), before.mode()), (after.uid(), after.gid(), after.mode()));
}

fn what_is_not_devpts_gives_no_terminal() {
    process::unshare(libc::CLONE_NEWNS).unwrap();
    sh("mount --make-rprivate /; mount -t tmpfs none /dev/pts; mknod /dev/pts/ptmx c 1 3");
    let refused = console::Pair::open();
    assert!(matches!(refused, Err(Error::Refused(_))), "{refused:?}");
    sh("umount /dev/pts; mount -t tmpfs none /dev; ln -s /etc /dev/pts");
    assert_eq!(console::Pair::open().unwrap_err().errno(), Some(nix::errno::Errno::ELOOP));
}

/// The foreground's proxy: all output arrives, in order, up to the program's last byte, and nothing hangs.
fn the_proxy_passes_everything_on() {
    use nix::sys::signalfd::{SfdFlags, SigSet, SignalFd};
    let signals = SignalFd::with_flags(&SigSet::empty(), SfdFlags::SFD_CLOEXEC).unwrap();
    let (near, far) = host_console::socket().unwrap();
    let document: Process =
        serde_json::from_value(json!({"user": {"uid": 0, "gid": 0}, "args": ["x"], "cwd": "/", "terminal": true}))
            .unwrap();
    let plan = ProcessPlan::new(&document, None, &Setting::default()).unwrap();
    let child = clone3(CloneArgs::default(), || {
        process::setsid().unwrap();
        drop(console::attach(&plan, far.as_fd()).unwrap());
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "stty -onlcr; read -r word; seq 1 20000; echo end of $word"]);
        command.status().unwrap().code().unwrap()
    })
    .unwrap();
    drop(far);
    let master = host_console::receive(near.as_fd()).unwrap();
    host_console::Proxy::new(master).unwrap().run(child.pidfd.as_fd(), signals.as_fd(), &mut || Ok(false)).unwrap();
    assert_eq!(pidfd::wait(child.pidfd.as_fd(), true).unwrap(), Some(process::Ended::Exited(0)));
}

fn a_network_device_moves_with_its_address() {
    use std::collections::HashMap;
    process::unshare(libc::CLONE_NEWNET).unwrap();
    sh("ip link add rbhost type veth peer name rbpeer; ip addr add 192.0.2.7/24 dev rbhost; ip link set rbhost up");
    let devices: HashMap<String, _> = serde_json::from_value(json!({"rbhost": {"name": "eth7"}})).unwrap();
    let (waiter, gate) = nix::unistd::pipe().unwrap();
    let args = CloneArgs { namespaces: libc::CLONE_NEWNET as u64, ..CloneArgs::default() };
    let child = clone3(args, || {
        nix::unistd::close(gate.as_raw_fd()).unwrap();
        let _ = nix::unistd::read(waiter.as_raw_fd(), &mut [0]);
        0
    })
    .unwrap();
    let target = std::fs::File::open(format!("/proc/{}/ns/net", child.pid)).unwrap();
    let moved = net_devices::move_all(&devices, target.as_fd()).unwrap();
    // Without a process or handle in it the first namespace would go, and take the pair's other end with it.
    let _first = std::fs::File::open("/proc/self/ns/net").unwrap();
    process::setns(target.as_fd(), libc::CLONE_NEWNET).unwrap();
    net_devices::configure(&moved).unwrap();
    let shown = sh("ip -o -4 addr show dev eth7; ip -o link show dev eth7");
    assert!(shown.contains("192.0.2.7/24") && shown.contains("UP"), "{shown}");
    drop(gate);
    pidfd::wait(child.pidfd.as_fd(), true).unwrap();

    let none: HashMap<String, _> = serde_json::from_value(json!({"rbnone": {}})).unwrap();
    let error = net_devices::move_all(&none, target.as_fd()).unwrap_err();
    assert!(error.to_string().contains("rbnone"), "{error}");
    for bad in [json!({"a/b": {}}), json!({"x": {"name": "longer-than-fifteen"}}), json!({"x": {"name": "y"}, "y": {}})]
    {
        assert!(net_devices::plan(&serde_json::from_value(bad.clone()).unwrap()).is_err(), "{bad}");
    }
}

fn a_control_that_the_host_lacks_is_refused() {
    if !std::path::Path::new("/sys/fs/resctrl/schemata").exists() {
        let document = serde_json::from_value(json!({"closID": "a"})).unwrap();
        assert!(matches!(intel_rdt::plan("id", &document), Err(Error::Refused(_))));
    }
    let labelled = |field: &str| {
        let document = json!({"user": {"uid": 0, "gid": 0}, "args": ["x"], "cwd": "/", field: "profile"});
        ProcessPlan::new(&serde_json::from_value(document).unwrap(), None, &Setting::default()).unwrap().check_host()
    };
    if !std::path::Path::new("/sys/module/apparmor").exists() {
        assert!(matches!(labelled("apparmorProfile"), Err(Error::Refused(_))));
    }
    if !std::path::Path::new("/sys/fs/selinux/enforce").exists() {
        assert!(matches!(labelled("selinuxLabel"), Err(Error::Refused(_))));
    }
}

const TESTS: &[(&str, fn())] = &[
    ("names_are_set", names_are_set),
    ("parameters_reach_only_own_namespaces", parameters_reach_only_own_namespaces),
    ("loopback_comes_up", loopback_comes_up),
    ("the_keyring_has_the_containers_name", the_keyring_has_the_containers_name),
    ("impostors_in_proc_are_refused", impostors_in_proc_are_refused),
    ("mappings_are_written", mappings_are_written),
    ("an_unprivileged_caller_maps_itself", an_unprivileged_caller_maps_itself),
    ("clocks_are_shifted", clocks_are_shifted),
    (
        "the_terminal_is_the_containers_and_only_the_slave_changes_hands",
        the_terminal_is_the_containers_and_only_the_slave_changes_hands,
    ),
    ("what_is_not_devpts_gives_no_terminal", what_is_not_devpts_gives_no_terminal),
    ("the_proxy_passes_everything_on", the_proxy_passes_everything_on),
    ("a_network_device_moves_with_its_address", a_network_device_moves_with_its_address),
    ("a_control_that_the_host_lacks_is_refused", a_control_that_the_host_lacks_is_refused),
];

fn main() {
    if let Ok(case) = std::env::var("RUSTBOX_TEST_CASE") {
        let (_, test) = TESTS.iter().find(|(name, _)| *name == case).unwrap();
        return test();
    }
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    let (mut passed, mut failed) = (0, 0);
    for (name, _) in TESTS.iter().filter(|(name, _)| name.contains(&filter)) {
        let output = Command::new("timeout")
            .args(["--kill-after=1", "20"])
            .arg(std::env::current_exe().unwrap())
            .env("RUSTBOX_TEST_CASE", name)
            .stdin(if *name == "the_proxy_passes_everything_on" { word() } else { std::process::Stdio::null() })
            .output()
            .unwrap();
        let proxied = *name != "the_proxy_passes_everything_on" || everything(&output.stdout);
        let ok = output.status.success() && proxied;
        println!("test {name} ... {}", if ok { "ok" } else { "FAILED" });
        if !ok {
            println!("{}", String::from_utf8_lossy(&output.stderr));
        }
        *(if ok { &mut passed } else { &mut failed }) += 1;
    }
    let word = if failed == 0 { "ok" } else { "FAILED" };
    println!("\ntest result: {word}. {passed} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out\n");
    std::process::exit(if failed == 0 { 0 } else { 101 });
}

/// The proxy case's stdin: one line, then the end.
fn word() -> std::process::Stdio {
    let (read, write) = nix::unistd::pipe().unwrap();
    nix::unistd::write(&write, b"it\n").unwrap();
    read.into()
}

fn everything(stdout: &[u8]) -> bool {
    let numbers: String = (1..=20_000).map(|number| format!("{number}\n")).collect();
    let seen = String::from_utf8_lossy(stdout);
    let ok = seen.ends_with(&format!("{numbers}end of it\n"));
    if !ok {
        println!("{} bytes, ending {:?}", seen.len(), &seen[seen.len().saturating_sub(100)..]);
    }
    ok
}
