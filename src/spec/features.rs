//! What `rustbox features` reports: what this binary implements, whatever the host has (runtime-spec, "Features
//! Structure"); only the capabilities and the supported seccomp flags ask the kernel.

use std::collections::HashMap;

use oci_spec::runtime::{
    ApparmorBuilder, Arch, CgroupBuilder, Features, FeaturesBuilder, IDMapBuilder, IntelRdtBuilder, LinuxFeature,
    LinuxFeatureBuilder, LinuxNamespaceType, LinuxSeccompAction, MemoryPolicyBuilder, MountExtensionsBuilder,
    NetDevicesBuilder, SeccompBuilder, SelinuxBuilder,
};

use super::load::{OCI_VERSION_MAX, OCI_VERSION_MIN};
use super::mount_options::MOUNT_OPTIONS;
use crate::sys;

/// The hook points, in the order in which a container's life meets them.
const HOOKS: [&str; 6] = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

const NAMESPACES: [LinuxNamespaceType; 8] = [
    LinuxNamespaceType::Cgroup,
    LinuxNamespaceType::Ipc,
    LinuxNamespaceType::Mount,
    LinuxNamespaceType::Network,
    LinuxNamespaceType::Pid,
    LinuxNamespaceType::Time,
    LinuxNamespaceType::User,
    LinuxNamespaceType::Uts,
];

const ACTIONS: [LinuxSeccompAction; 9] = [
    LinuxSeccompAction::ScmpActAllow,
    LinuxSeccompAction::ScmpActErrno,
    LinuxSeccompAction::ScmpActKill,
    LinuxSeccompAction::ScmpActKillProcess,
    LinuxSeccompAction::ScmpActKillThread,
    LinuxSeccompAction::ScmpActLog,
    LinuxSeccompAction::ScmpActNotify,
    LinuxSeccompAction::ScmpActTrace,
    LinuxSeccompAction::ScmpActTrap,
];

const OPERATORS: [&str; 7] =
    ["SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_LE", "SCMP_CMP_LT", "SCMP_CMP_MASKED_EQ", "SCMP_CMP_NE"];

const ARCHS: [Arch; 19] = [
    Arch::ScmpArchAarch64,
    Arch::ScmpArchArm,
    Arch::ScmpArchMips,
    Arch::ScmpArchMips64,
    Arch::ScmpArchMips64n32,
    Arch::ScmpArchMipsel,
    Arch::ScmpArchMipsel64,
    Arch::ScmpArchMipsel64n32,
    Arch::ScmpArchParisc,
    Arch::ScmpArchParisc64,
    Arch::ScmpArchPpc,
    Arch::ScmpArchPpc64,
    Arch::ScmpArchPpc64le,
    Arch::ScmpArchRiscv64,
    Arch::ScmpArchS390,
    Arch::ScmpArchS390x,
    Arch::ScmpArchX32,
    Arch::ScmpArchX86,
    Arch::ScmpArchX86_64,
];

const SECCOMP_FLAGS: [(&str, u32); 4] = [
    ("SECCOMP_FILTER_FLAG_TSYNC", sys::seccomp::FLAG_TSYNC),
    ("SECCOMP_FILTER_FLAG_SPEC_ALLOW", sys::seccomp::FLAG_SPEC_ALLOW),
    ("SECCOMP_FILTER_FLAG_LOG", sys::seccomp::FLAG_LOG),
    // Taken only together with a listener.
    ("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", sys::seccomp::FLAG_WAIT_KILLABLE_RECV | sys::seccomp::FLAG_NEW_LISTENER),
];

const MEMORY_MODES: [&str; 7] = [
    "MPOL_BIND",
    "MPOL_DEFAULT",
    "MPOL_INTERLEAVE",
    "MPOL_LOCAL",
    "MPOL_PREFERRED",
    "MPOL_PREFERRED_MANY",
    "MPOL_WEIGHTED_INTERLEAVE",
];

const MEMORY_FLAGS: [&str; 3] = ["MPOL_F_NUMA_BALANCING", "MPOL_F_RELATIVE_NODES", "MPOL_F_STATIC_NODES"];

/// Annotations whose value an untrusted author of a configuration must not choose. A dot at the end makes a prefix.
const UNSAFE_ANNOTATIONS: [&str; 1] = ["org.rustbox."];

/// The features document.
pub fn features() -> Features {
    FeaturesBuilder::default()
        .oci_version_min(OCI_VERSION_MIN)
        .oci_version_max(OCI_VERSION_MAX)
        .hooks(strings(&HOOKS))
        .mount_options(MOUNT_OPTIONS.iter().map(|(name, _)| (*name).to_owned()).collect::<Vec<_>>())
        .linux(linux())
        .annotations(annotations())
        .potentially_unsafe_config_annotations(strings(&UNSAFE_ANNOTATIONS))
        .build()
        .expect("every member has a default")
}

fn linux() -> LinuxFeature {
    const BUILT: &str = "every member has a default";
    LinuxFeatureBuilder::default()
        .namespaces(NAMESPACES)
        .capabilities(capabilities())
        .cgroup(
            CgroupBuilder::default()
                .v1(true)
                .v2(true)
                .systemd(true)
                .systemd_user(true)
                .rdma(true)
                .build()
                .expect(BUILT),
        )
        .seccomp(
            SeccompBuilder::default()
                .enabled(true)
                .actions(ACTIONS)
                .operators(strings(&OPERATORS))
                .archs(ARCHS)
                .known_flags(strings(&SECCOMP_FLAGS.map(|(name, _)| name)))
                .supported_flags(supported_flags())
                .build()
                .expect(BUILT),
        )
        .apparmor(ApparmorBuilder::default().enabled(true).build().expect(BUILT))
        .selinux(SelinuxBuilder::default().enabled(true).build().expect(BUILT))
        .intel_rdt(IntelRdtBuilder::default().enabled(true).schemata(true).monitoring(true).build().expect(BUILT))
        .memory_policy(
            MemoryPolicyBuilder::default()
                .modes(strings(&MEMORY_MODES))
                .flags(strings(&MEMORY_FLAGS))
                .build()
                .expect(BUILT),
        )
        .mount_extensions(
            MountExtensionsBuilder::default()
                .idmap(IDMapBuilder::default().enabled(true).build().expect(BUILT))
                .build()
                .expect(BUILT),
        )
        .net_devices(NetDevicesBuilder::default().enabled(true).build().expect(BUILT))
        .build()
        .expect(BUILT)
}

/// The seccomp flags that the running kernel takes.
fn supported_flags() -> Vec<String> {
    let supported = SECCOMP_FLAGS.iter().filter(|(_, flag)| sys::seccomp::flag_avail(*flag));
    supported.map(|(name, _)| (*name).to_owned()).collect()
}

/// The capabilities that the running kernel has, by number; all that are known where procfs does not tell.
fn capabilities() -> Vec<String> {
    let last = std::fs::read_to_string("/proc/sys/kernel/cap_last_cap")
        .ok()
        .and_then(|number| number.trim().parse().ok())
        .unwrap_or(u8::MAX);
    let mut known: Vec<_> = caps::all().into_iter().filter(|capability| capability.index() <= last).collect();
    known.sort_unstable_by_key(caps::Capability::index);
    known.iter().map(ToString::to_string).collect()
}

fn annotations() -> HashMap<String, String> {
    let seccomp = libseccomp::ScmpVersion::current();
    let mut annotations = HashMap::from([
        ("org.rustbox.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
        ("org.rustbox.checkpoint.enabled".to_owned(), "true".to_owned()),
        ("org.rustbox.commit".to_owned(), option_env!("RUSTBOX_COMMIT").unwrap_or("unknown").to_owned()),
    ]);
    if let Ok(version) = seccomp {
        annotations.insert("io.github.seccomp.libseccomp.version".to_owned(), version.to_string());
    }
    annotations
}

fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}
