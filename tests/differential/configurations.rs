//! Valid configurations by chance: strategies over the specification's own types.
//!
//! Only what this kernel and a root without `CAP_SYS_RESOURCE` can have, so that a refusal is a finding too.

use std::collections::HashMap;

use oci_spec::runtime::*;
use proptest::option::weighted;
use proptest::prelude::*;
use proptest::sample::{Index, select, subsequence};

/// The calls that the probe can make, which filters are about.
const CALLS: &[&str] = &[
    "getppid",
    "personality",
    "umask",
    "getpriority",
    "sethostname",
    "mknod",
    "mkdir",
    "chroot",
    "unshare",
    "unshare-user",
    "keyctl",
    "dup",
    "lseek",
    "lseek-1",
    "lseek-2",
    "mount",
    "setuid",
    "kexec_load",
    "bpf",
    "ptrace",
];

/// Of these, what a filter may name.
const FILTERED: &[&str] = &[
    "getppid",
    "personality",
    "getpriority",
    "sethostname",
    "mknod",
    "mkdir",
    "chroot",
    "unshare",
    "keyctl",
    "dup",
    "lseek",
    "mount",
    "setuid",
    "kexec_load",
    "bpf",
    "ptrace",
    "no_such_call",
];

/// What a bundle and the test around it have, for configurations to name.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// A process in network, IPC and UTS namespaces of its own, which containers may join.
    pub holder: u32,
    /// A directory with a file and a directory in it, to be bound.
    pub source: String,
    /// What is found by it belongs to the test.
    pub mark: String,
}

/// A configuration, and what the probe is asked about it.
pub fn configurations(around: &Surroundings) -> impl Strategy<Value = Spec> + use<> {
    let around = around.clone();
    (
        (process(), weighted(0.5, any::<bool>()), weighted(0.4, select(&["box", "a.b.c", "x"]))),
        (weighted(0.1, select(&["domain", "example.org"])), namespaces(around.holder), mounts(around.source.clone())),
        (weighted(0.7, resources()), devices(), paths(), paths(), weighted(0.35, seccomp())),
        (weighted(0.3, select(&["private", "rprivate", "slave", "rslave", "unbindable"])), sysctls(), personality()),
        weighted(0.3, Just(HashMap::from([("org.example.note".to_owned(), "free text".to_owned())]))),
    )
        .prop_map(move |(one, two, three, four, annotations)| {
            let (mut process, readonly, hostname) = one;
            let (domainname, namespaces, mounts) = two;
            let (resources, devices, masked, readonly_paths, seccomp) = three;
            let (propagation, sysctls, personality) = four;
            let new = |kind| namespaces.iter().any(|it| it.typ() == kind && it.path().is_none());
            let user = new(LinuxNamespaceType::User);

            let mut linux = Linux::default();
            if user {
                let ids = |host| {
                    LinuxIdMappingBuilder::default().host_id(host).container_id(0u32).size(65536u32).build().unwrap()
                };
                linux.set_uid_mappings(Some(vec![ids(200_000u32)]));
                linux.set_gid_mappings(Some(vec![ids(300_000u32)]));
            }
            let sysctls = sysctls.into_iter().filter(|(name, _)| {
                new(if name.starts_with("net.") { LinuxNamespaceType::Network } else { LinuxNamespaceType::Ipc })
            });
            // A node is bound from the host in a user namespace, where only the host's own names exist.
            let devices: Vec<_> = devices.into_iter().filter(|_| !user).collect();
            let seen = masked.iter().chain(&readonly_paths).cloned().collect::<Vec<_>>();
            process.set_args(Some(arguments(process.args().as_ref().unwrap(), seen, &devices)));
            process.env_mut().as_mut().unwrap().push(around.mark.clone());
            linux
                .set_sysctl(Some(sysctls.collect()))
                .set_resources(resources)
                .set_devices(Some(devices))
                .set_masked_paths(Some(masked))
                .set_readonly_paths(Some(readonly_paths))
                .set_seccomp(seccomp)
                .set_rootfs_propagation(propagation.map(str::to_owned))
                .set_personality(personality);
            let mut spec = Spec::default();
            let named = |name: Option<&str>| name.filter(|_| new(LinuxNamespaceType::Uts)).map(str::to_owned);
            spec.set_hostname(named(hostname)).set_domainname(named(domainname));
            let mounts = mounts.into_iter().filter(|it| possible(it, user, &namespaces));
            linux.set_namespaces(Some(namespaces.clone()));
            let root = RootBuilder::default().path("rootfs").readonly(readonly.unwrap_or(false)).build().unwrap();
            // crun 1.8.1 knows no later version.
            spec.set_version("1.0.2".to_owned())
                .set_root(Some(root))
                .set_mounts(Some(mounts.collect()))
                .set_annotations(annotations)
                .set_process(Some(process))
                .set_linux(Some(linux));
            spec
        })
}

/// A new user namespace may not mount what it does not own, and makes no mount point in a root that is another's.
fn possible(mount: &Mount, user: bool, namespaces: &[LinuxNamespace]) -> bool {
    let new = |kind| namespaces.iter().any(|it| it.typ() == kind && it.path().is_none());
    match mount.typ().as_deref() {
        _ if !user => true,
        Some("mqueue") => new(LinuxNamespaceType::Ipc),
        _ => mount.destination().to_str() != Some("/made/by/runtime"),
    }
}

fn arguments(program: &[String], paths: Vec<String>, devices: &[LinuxDevice]) -> Vec<String> {
    let devices = devices.iter().map(|it| it.path().display().to_string());
    let devices = devices.chain(["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/tty"].map(str::to_owned));
    let mut args = program.to_vec();
    args.extend(paths.into_iter().chain(devices).map(|path| format!("path={path}")));
    args.extend(["/data", "/tmp", "/sys/fs/cgroup"].map(|path| format!("path={path}")));
    let files = [
        "net/ipv4/ip_forward",
        "net/ipv4/ip_unprivileged_port_start",
        "net/core/somaxconn",
        "net/ipv4/ping_group_range",
        "kernel/msgmax",
        "kernel/shmmni",
        "fs/mqueue/msg_max",
    ];
    args.extend(files.map(|file| format!("file=/proc/sys/{file}")));
    args.extend(CALLS.iter().map(|call| format!("call={call}")));
    args
}

// --- process ---

fn process() -> impl Strategy<Value = Process> {
    let program = select(&["/bin/probe", "probe"]);
    let env = select(&[
        "HOME=/tmp",
        "A=1",
        "A=2",
        "EMPTY=",
        "PAIR=a=b",
        "LETTERS=äöü",
        "TERM=xterm",
        "PATH=/sbin:/bin",
        "LANG=C",
        "with space=x",
    ]);
    (
        (program, proptest::collection::vec(env, 0..6), select(&["/", "/", "/tmp", "/etc/dir", "/bin/../tmp"]), user()),
        (
            weighted(0.8, capabilities()),
            weighted(0.6, any::<bool>()),
            rlimits(),
            weighted(0.3, select(&[0, 100, 500, 1000])),
        ),
        (weighted(0.1, scheduler()), weighted(0.1, io_priority())),
    )
        .prop_map(
            |((program, env, cwd, user), (capabilities, no_new_privileges, rlimits, oom), (scheduler, io_priority))| {
                let mut process = Process::default();
                let env = ["PATH=/bin"].into_iter().chain(env).map(str::to_owned).collect();
                process
                    .set_terminal(None)
                    .set_user(user)
                    .set_args(Some(vec![program.to_owned()]))
                    .set_env(Some(env))
                    .set_cwd(cwd.into())
                    .set_capabilities(capabilities)
                    .set_no_new_privileges(no_new_privileges)
                    .set_rlimits(Some(rlimits))
                    .set_oom_score_adj(oom)
                    .set_scheduler(scheduler)
                    .set_io_priority(io_priority)
                    .set_apparmor_profile(None)
                    .set_selinux_label(None);
                process
            },
        )
}

fn user() -> impl Strategy<Value = User> {
    let groups = weighted(0.4, subsequence(vec![0u32, 5, 10, 1000, 65534], 0..4));
    (
        select(&[0, 0, 0, 1, 1000, 65534]),
        select(&[0, 0, 1, 1000]),
        groups,
        weighted(0.4, select(&[0o22, 0o77, 0o27, 0, 0o777])),
    )
        .prop_map(|(uid, gid, groups, umask): (u32, u32, _, Option<u32>)| {
            let mut user = User::default();
            user.set_uid(uid).set_gid(gid).set_additional_gids(groups).set_umask(umask);
            user
        })
}

/// Sets within each other as the kernel wants them: effective and ambient in permitted, ambient in inheritable too, and
/// all of them in bounding.
fn capabilities() -> impl Strategy<Value = LinuxCapabilities> {
    use Capability::*;
    let pool = vec![
        AuditWrite,
        Chown,
        DacOverride,
        Kill,
        Mknod,
        NetAdmin,
        NetBindService,
        NetRaw,
        Setgid,
        Setuid,
        SysAdmin,
        SysChroot,
        SysPtrace,
        Fowner,
    ];
    (subsequence(pool, 0..=14), proptest::collection::vec(any::<Index>(), 0..30), any::<[bool; 4]>()).prop_map(
        |(bounding, picks, given)| {
            let part = |from: &[Capability], skip: usize| -> Vec<Capability> {
                if from.is_empty() {
                    return Vec::new();
                }
                let mut some: Vec<_> = picks.iter().skip(skip).step_by(3).map(|pick| *pick.get(from)).collect();
                some.sort_by_key(|it| format!("{it:?}"));
                some.dedup();
                some
            };
            let permitted = part(&bounding, 0);
            let inheritable = part(&bounding, 1);
            let both: Vec<_> = permitted.iter().filter(|it| inheritable.contains(it)).copied().collect();
            let set = |list: Vec<Capability>, given: bool| given.then(|| list.into_iter().collect::<Capabilities>());
            let mut capabilities = LinuxCapabilities::default();
            capabilities
                .set_effective(set(part(&permitted, 2), given[0]))
                .set_ambient(set(part(&both, 0), given[1] && given[2]))
                .set_inheritable(set(inheritable, given[1]))
                .set_permitted(set(permitted, given[0] || given[2]))
                .set_bounding(set(bounding, true));
            if given[1] && given[2] || given[0] || given[3] {
                capabilities
            } else {
                capabilities
                    .set_bounding(None)
                    .set_permitted(None)
                    .set_effective(None)
                    .set_inheritable(None)
                    .set_ambient(None);
                capabilities
            }
        },
    )
}

fn rlimits() -> impl Strategy<Value = Vec<PosixRlimit>> {
    use PosixRlimitType::*;
    let pool = vec![
        (RlimitNofile, 256, 1024),
        (RlimitNproc, 4096, 8192),
        (RlimitCore, 0, 1 << 20),
        (RlimitFsize, 1 << 30, 1 << 31),
        (RlimitStack, 8 << 20, 16 << 20),
        (RlimitMemlock, 32 << 10, 64 << 10),
        (RlimitCpu, 100, 200),
        (RlimitData, 1 << 30, 1 << 32),
        (RlimitSigpending, 50, 100),
        (RlimitMsgqueue, 1024, 4096),
        (RlimitNice, 0, 0),
        (RlimitRtprio, 0, 0),
        (RlimitLocks, 10, 20),
        (RlimitAs, 1 << 31, 1 << 32),
        (RlimitRss, 1 << 30, 1 << 31),
        (RlimitRttime, 1_000_000, 2_000_000),
    ];
    subsequence(pool, 0..5).prop_map(|chosen| {
        let limit = |(kind, soft, hard): (_, u64, u64)| {
            PosixRlimitBuilder::default().typ(kind).soft(soft).hard(hard).build().unwrap()
        };
        chosen.into_iter().map(limit).collect()
    })
}

fn scheduler() -> impl Strategy<Value = Scheduler> {
    use LinuxSchedulerPolicy::*;
    (select(vec![SchedOther, SchedBatch, SchedIdle]), 0..=19i32).prop_map(|(policy, nice)| {
        let mut scheduler = Scheduler::default();
        scheduler.set_policy(policy).set_nice(Some(nice).filter(|_| policy != SchedIdle));
        scheduler
    })
}

fn io_priority() -> impl Strategy<Value = LinuxIOPriority> {
    (select(vec![IOPriorityClass::IoprioClassBe, IOPriorityClass::IoprioClassIdle]), 0..8i64).prop_map(
        |(class, priority)| LinuxIOPriorityBuilder::default().class(class).priority(priority).build().unwrap(),
    )
}

// --- linux ---

fn namespaces(holder: u32) -> impl Strategy<Value = Vec<LinuxNamespace>> {
    use LinuxNamespaceType::*;
    let plain = |kind, name: &'static str| prop_oneof![6 => Just(Some((kind, None))), 1 => Just(None), 1 => Just(Some((kind, Some(format!("/proc/{holder}/ns/{name}")))))];
    (
        any::<Index>(),
        plain(Network, "net"),
        plain(Ipc, "ipc"),
        plain(Uts, "uts"),
        weighted(0.9, Just(())),
        weighted(0.5, Just(())),
        weighted(0.2, Just(())),
    )
        .prop_map(|(order, network, ipc, uts, pid, cgroup, user)| {
            let own = |kind| Some((kind, None));
            let mut chosen = if user.is_some() {
                vec![own(User), own(Pid), own(Network).filter(|_| network.is_some()), own(Ipc), own(Uts)]
            } else {
                vec![own(Pid).filter(|_| pid.is_some()), network, ipc, uts]
            };
            chosen.extend([own(Mount), own(Cgroup).filter(|_| cgroup.is_some())]);
            let mut list: Vec<LinuxNamespace> = chosen
                .into_iter()
                .flatten()
                .map(|(kind, path)| {
                    let mut namespace = LinuxNamespace::default();
                    namespace.set_typ(kind).set_path(path.map(Into::into));
                    namespace
                })
                .collect();
            let middle = order.index(list.len());
            list.rotate_left(middle);
            list
        })
}

fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> Mount {
    let mut mount = Mount::default();
    let options = options.iter().map(|it| (*it).to_owned()).collect();
    mount
        .set_destination(destination.into())
        .set_typ(Some(kind.to_owned()))
        .set_source(Some(source.into()))
        .set_options(Some(options));
    mount
}

fn mounts(source: String) -> impl Strategy<Value = Vec<Mount>> {
    let flags = |pool: &'static [&'static str]| subsequence(pool, 0..=pool.len().min(4));
    const DEV: &[&[&str]] = &[
        &["nosuid", "strictatime", "mode=755", "size=65536k"],
        &["mode=0755"],
        &["nosuid", "noexec", "mode=700", "size=1m"],
    ];
    const PTS: &[&[&str]] = &[
        &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"],
        &["newinstance", "ptmxmode=0666", "mode=0600"],
    ];
    const SHM: &[&[&str]] =
        &[&["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"], &["mode=1777"], &["ro", "size=4k"]];
    const FLAGS: &[&str] = &["nosuid", "nodev", "noexec", "ro", "noatime", "nodiratime"];
    let usual = (
        flags(&["nosuid", "noexec", "nodev"]),
        select(DEV),
        select(PTS),
        weighted(0.7, select(SHM)),
        weighted(0.6, flags(&["nosuid", "noexec", "nodev"])),
        weighted(0.7, flags(&["nosuid", "noexec", "nodev", "ro"])),
        weighted(0.7, flags(&["nosuid", "noexec", "nodev", "ro", "relatime"])),
    );
    const PLACES: &[&str] = &["/data", "/tmp", "/made/by/runtime", "/data/directory"];
    let propagation =
        || select(&["", "", "", "rprivate", "private", "rslave", "slave", "shared", "rshared", "unbindable"]);
    let tmpfs = (
        select(PLACES),
        flags(FLAGS),
        select(&["", "size=1m", "size=64k", "mode=700", "mode=1777", "nr_inodes=100"]),
        propagation(),
    )
        .prop_map(|(at, flags, size, propagation)| {
            let options: Vec<_> = flags.into_iter().chain([size, propagation]).filter(|it| !it.is_empty()).collect();
            mount(at, "tmpfs", "tmpfs", &options)
        });
    let kinds = select(&[("bind", ""), ("rbind", ""), ("bind", "/directory"), ("rbind", "/directory")]);
    let bind = (select(PLACES), flags(FLAGS), kinds, propagation()).prop_map(
        move |(at, flags, (kind, below), propagation)| {
            let options: Vec<_> =
                [kind].into_iter().chain(flags).chain([propagation]).filter(|it| !it.is_empty()).collect();
            mount(at, "bind", &format!("{source}{below}"), &options)
        },
    );
    (usual, proptest::collection::vec(prop_oneof![tmpfs, bind], 0..4)).prop_map(
        |((proc, dev, pts, shm, mqueue, sys, cgroup), more)| {
            let mut list = vec![
                mount("/proc", "proc", "proc", &proc),
                mount("/dev", "tmpfs", "tmpfs", dev),
                mount("/dev/pts", "devpts", "devpts", pts),
            ];
            list.extend(shm.map(|options| mount("/dev/shm", "tmpfs", "shm", options)));
            list.extend(mqueue.map(|options| mount("/dev/mqueue", "mqueue", "mqueue", &options)));
            if let Some(options) = sys {
                list.push(mount("/sys", "sysfs", "sysfs", &options));
                list.extend(cgroup.map(|options| mount("/sys/fs/cgroup", "cgroup", "cgroup", &options)));
            }
            // A mount over its parent may have no such directory, and no room for one.
            let covered = more.iter().any(|it| it.destination().to_str() == Some("/data"));
            list.extend(more.into_iter().filter(|it| !covered || it.destination().to_str() != Some("/data/directory")));
            list
        },
    )
}

fn resources() -> impl Strategy<Value = LinuxResources> {
    let memory = (
        select(&[32i64 << 20, 64 << 20, 100_000_000, -1]),
        weighted(0.3, select(&[16i64 << 20, 1 << 20])),
        weighted(0.3, select(&[0u64, 10, 60, 100])),
        any::<bool>(),
    )
        .prop_map(|(limit, reservation, swappiness, swap)| {
            let mut memory = LinuxMemory::default();
            let swap = swap.then_some(if limit < 0 { -1 } else { limit * 2 });
            memory.set_limit(Some(limit)).set_reservation(reservation).set_swappiness(swappiness).set_swap(swap);
            memory
        });
    let cpu = (
        weighted(0.5, select(&[100u64, 512, 1024, 4096])),
        weighted(0.4, select(&[(50_000i64, 100_000u64), (20_000, 40_000), (-1, 100_000)])),
        weighted(0.3, select(&["0", "1", "0-1"])),
    )
        .prop_map(|(shares, quota, cpus)| {
            let mut cpu = LinuxCpu::default();
            cpu.set_shares(shares)
                .set_quota(quota.map(|it| it.0))
                .set_period(quota.map(|it| it.1))
                .set_cpus(cpus.map(str::to_owned));
            cpu
        });
    let pids = select(&[10i64, 100, 1000, -1, 0]);
    (weighted(0.5, memory), weighted(0.5, cpu), weighted(0.5, pids), device_rules()).prop_map(
        |(memory, cpu, pids, devices)| {
            let mut resources = LinuxResources::default();
            resources.set_memory(memory).set_cpu(cpu).set_devices(devices).set_pids(pids.map(|limit| {
                let mut pids = LinuxPids::default();
                pids.set_limit(limit);
                pids
            }));
            resources
        },
    )
}

fn device_rules() -> impl Strategy<Value = Option<Vec<LinuxDeviceCgroup>>> {
    // Nothing is denied but everything at first: v1 cannot take a part out of a wildcard.
    let rule = |allow, kind, major: Option<i64>, minor: Option<i64>, access: &str| {
        let mut rule = LinuxDeviceCgroup::default();
        rule.set_allow(allow).set_typ(Some(kind)).set_major(major).set_minor(minor).set_access(Some(access.to_owned()));
        rule
    };
    let pool = vec![
        rule(true, LinuxDeviceType::C, Some(10), Some(229), "rwm"),
        rule(true, LinuxDeviceType::C, Some(1), None, "r"),
        rule(true, LinuxDeviceType::B, None, None, "m"),
        rule(true, LinuxDeviceType::C, Some(10), None, "rw"),
    ];
    weighted(0.7, subsequence(pool, 0..4)).prop_map(move |rules| {
        rules.map(|rules| std::iter::once(rule(false, LinuxDeviceType::A, None, None, "rwm")).chain(rules).collect())
    })
}

fn devices() -> impl Strategy<Value = Vec<LinuxDevice>> {
    let device = |path: &str, kind, major, minor, mode: Option<u32>, owner: Option<u32>| {
        let mut device = LinuxDevice::default();
        device
            .set_path(path.into())
            .set_typ(kind)
            .set_major(major)
            .set_minor(minor)
            .set_file_mode(mode)
            .set_uid(owner)
            .set_gid(owner);
        device
    };
    let pool = vec![
        device("/dev/mine", LinuxDeviceType::C, 1, 5, Some(0o640), Some(7)),
        device("/dev/deep/down", LinuxDeviceType::C, 1, 3, Some(0o666), None),
        device("/dev/disk", LinuxDeviceType::B, 7, 0, None, Some(0)),
        device("/dev/pipe", LinuxDeviceType::P, 0, 0, Some(0o600), Some(1000)),
        device("/dev/fuse", LinuxDeviceType::C, 10, 229, Some(0o666), None),
    ];
    weighted(0.4, subsequence(pool, 0..4)).prop_map(Option::unwrap_or_default)
}

fn paths() -> impl Strategy<Value = Vec<String>> {
    let pool = vec![
        "/proc/kcore",
        "/proc/keys",
        "/proc/timer_list",
        "/proc/sys",
        "/proc/sysrq-trigger",
        "/proc/bus",
        "/proc/irq",
        "/sys/firmware",
        "/no/such/path",
        "/etc/secret",
        "/etc/dir",
        "/proc/no-such-file",
    ];
    subsequence(pool, 0..6).prop_map(|paths| paths.into_iter().map(str::to_owned).collect())
}

fn seccomp() -> impl Strategy<Value = LinuxSeccomp> {
    use LinuxSeccompAction::*;
    use LinuxSeccompOperator::*;
    let argument = (
        select(vec![ScmpCmpNe, ScmpCmpLt, ScmpCmpLe, ScmpCmpEq, ScmpCmpGe, ScmpCmpGt, ScmpCmpMaskedEq]),
        0u64..3,
        0u64..3,
    )
        .prop_map(|(operator, value, second)| {
            let argument = LinuxSeccompArgBuilder::default().index(2usize).value(value).op(operator);
            if operator == ScmpCmpMaskedEq { argument.value_two(second) } else { argument }.build().unwrap()
        });
    let actions = select(vec![
        ScmpActErrno,
        ScmpActErrno,
        ScmpActErrno,
        ScmpActKillProcess,
        ScmpActKill,
        ScmpActTrap,
        ScmpActLog,
        ScmpActAllow,
    ]);
    let rule =
        (subsequence(FILTERED, 1..4), actions, weighted(0.5, select(&[1u32, 13, 38, 122])), weighted(0.4, argument));
    let architectures = select(vec![
        vec![],
        vec![Arch::ScmpArchX86_64],
        vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32],
    ]);
    let default = select(vec![ScmpActAllow, ScmpActAllow, ScmpActAllow, ScmpActLog]);
    (proptest::collection::vec(rule, 0..5), architectures, default).prop_map(|(rules, architectures, default)| {
        let mut named = Vec::new();
        let mut list = Vec::new();
        for (names, action, errno, argument) in rules {
            // One rule for a call, as which of two holds is libseccomp's to say; one equal to the default is refused by it.
            let names: Vec<String> =
                names.into_iter().map(str::to_owned).filter(|name| !named.contains(name)).collect();
            if names.is_empty() || action == default {
                continue;
            }
            named.extend(names.iter().cloned());
            let mut rule = LinuxSyscall::default();
            rule.set_names(names)
                .set_action(action)
                .set_errno_ret(errno.filter(|_| action == ScmpActErrno))
                .set_args(argument.map(|it| vec![it]));
            list.push(rule);
        }
        let mut seccomp = LinuxSeccomp::default();
        seccomp.set_default_action(default).set_architectures(Some(architectures)).set_syscalls(Some(list));
        seccomp
    })
}

fn sysctls() -> impl Strategy<Value = HashMap<String, String>> {
    let pool = vec![
        ("net.ipv4.ip_forward", "1"),
        ("net.ipv4.ip_unprivileged_port_start", "80"),
        ("net.core.somaxconn", "333"),
        ("net.ipv4.ping_group_range", "0 1000"),
        ("kernel.msgmax", "16384"),
        ("kernel.shmmni", "1000"),
        ("fs.mqueue.msg_max", "20"),
    ];
    weighted(0.4, subsequence(pool, 0..4)).prop_map(|chosen| {
        chosen.unwrap_or_default().into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    })
}

fn personality() -> impl Strategy<Value = Option<LinuxPersonality>> {
    let domain = select(vec![LinuxPersonalityDomain::PerLinux, LinuxPersonalityDomain::PerLinux32]);
    weighted(0.1, domain).prop_map(|domain| {
        domain.map(|domain| {
            let mut personality = LinuxPersonality::default();
            personality.set_domain(domain);
            personality
        })
    })
}
