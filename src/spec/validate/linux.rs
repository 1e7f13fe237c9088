//! `linux`, as far as no other file of this directory has it.

use std::collections::HashMap;

use oci_spec::runtime::{
    Linux, LinuxIntelRdt, LinuxMemoryPolicy, LinuxNetDevice, LinuxPersonality, MemoryPolicyFlagType,
    MemoryPolicyModeType,
};

use super::namespaces::Namespaces;
use super::{Fact, Host, cgroup, devices, member, resources, seccomp, sorted};
use crate::error::{Error, Result};
use crate::spec::number_list;

pub(super) fn check(linux: &Linux, namespaces: &Namespaces, host: &Host) -> Result<()> {
    devices::check(linux.devices().as_deref().unwrap_or_default())?;
    if let Some(devices) = linux.net_devices() {
        net_devices(devices, namespaces, host)?;
    }
    if let Some(path) = linux.cgroups_path() {
        cgroup::check_path(path, host.systemd())?;
    }
    if let Some(resources) = linux.resources() {
        resources::check(resources, "$.linux.resources", false)?;
    }
    paths(linux, namespaces)?;
    if let Some(seccomp) = linux.seccomp() {
        if !host.has(Fact::Seccomp) {
            return Err(Error::config("$.linux.seccomp", "is set, but the host's kernel has no seccomp filters"));
        }
        seccomp::check(seccomp)?;
    }
    crate::init::sysctl::plan(linux)?;
    if linux.sysctl().as_ref().is_some_and(|sysctl| !sysctl.is_empty()) {
        joined_sysctl(linux, host)?;
    }
    if linux.mount_label().as_deref().is_some_and(|label| !label.is_empty()) && !host.has(Fact::Selinux) {
        return Err(Error::config("$.linux.mountLabel", "is set, but the host has no SELinux"));
    }
    if let Some(rdt) = linux.intel_rdt() {
        intel_rdt(rdt, host)?;
    }
    if let Some(policy) = linux.memory_policy() {
        memory_policy(policy)?;
    }
    linux.personality().as_ref().map_or(Ok(()), personality)
}

/// `rootfsPropagation`, `maskedPaths` and `readonlyPaths`.
fn paths(linux: &Linux, namespaces: &Namespaces) -> Result<()> {
    const WHY: &str = "needs a mount namespace";
    if let Some(word) = linux.rootfs_propagation().as_deref().filter(|word| !word.is_empty()) {
        const AT: &str = "$.linux.rootfsPropagation";
        if !matches!(word.strip_prefix('r').unwrap_or(word), "private" | "shared" | "slave" | "unbindable") {
            return Err(Error::config(AT, format!("`{word}` is unknown")));
        }
        if !namespaces.mount {
            return Err(Error::config(AT, WHY));
        }
    }
    for (name, paths) in [("maskedPaths", linux.masked_paths()), ("readonlyPaths", linux.readonly_paths())] {
        let paths = paths.as_deref().unwrap_or_default();
        if !paths.is_empty() && !namespaces.mount {
            return Err(Error::config(format!("$.linux.{name}"), WHY));
        }
        for (index, path) in paths.iter().enumerate() {
            let refuse = |why: &str| Err(Error::config(format!("$.linux.{name}[{index}]"), why));
            if !path.starts_with('/') {
                return refuse("is not an absolute path");
            }
            if path.contains('\0') {
                return refuse("has a NUL byte");
            }
        }
    }
    Ok(())
}

/// A namespace joined by a path that turns out to be the runtime's own is the host's: a parameter written there
/// would be the host's parameter.
fn joined_sysctl(linux: &Linux, host: &Host) -> Result<()> {
    use oci_spec::runtime::LinuxNamespaceType::{Ipc, Network, Uts};
    for namespace in linux.namespaces().iter().flatten() {
        let Some(path) = namespace.path() else { continue };
        let (name, prefixes): (_, &[&str]) = match namespace.typ() {
            Network => ("net", &["net"]),
            Ipc => ("ipc", &["fs", "kernel"]),
            Uts => ("uts", &["kernel"]),
            _ => continue,
        };
        if !host.shares(name, path) {
            continue;
        }
        for (parameter, _) in linux.sysctl().as_ref().map(sorted).unwrap_or_default() {
            let first = parameter.split(['.', '/']).next().unwrap_or_default();
            let uts = parameter.ends_with("domainname");
            if prefixes.contains(&first) && (first != "kernel" || uts == (name == "uts")) {
                let at = format!("$.linux.sysctl.{parameter}");
                return Err(Error::config(at, format!("would change the host: `{}` is its own", path.display())));
            }
        }
    }
    Ok(())
}

fn net_devices(devices: &HashMap<String, LinuxNetDevice>, namespaces: &Namespaces, host: &Host) -> Result<()> {
    const AT: &str = "$.linux.netDevices";
    if devices.is_empty() {
        return Ok(());
    }
    if !namespaces.network {
        return Err(Error::config(AT, "needs a network namespace"));
    }
    if !host.has(Fact::Root) {
        return Err(Error::config(AT, "needs a caller that is root"));
    }
    let mut seen = Vec::with_capacity(devices.len());
    for (host_name, device) in sorted(devices) {
        let at = format!("{AT}{}", member(host_name));
        interface_name(host_name).map_err(|why| Error::config(at.clone(), why))?;
        let name = device.name().as_deref().filter(|name| !name.is_empty());
        if let Some(name) = name {
            interface_name(name).map_err(|why| Error::config(format!("{at}.name"), why))?;
        }
        let name = name.unwrap_or(host_name);
        if seen.contains(&name) {
            return Err(Error::config(at, format!("takes the name `{name}`, which another device has")));
        }
        seen.push(name);
    }
    Ok(())
}

/// `dev_valid_name` of the kernel.
fn interface_name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() || name.len() > 15 {
        return Err("is not a name of 1 to 15 bytes");
    }
    if name == "." || name == ".." || name.contains(['/', ':', '\0']) || name.contains(char::is_whitespace) {
        return Err("is not the name of a network device");
    }
    Ok(())
}

fn intel_rdt(rdt: &LinuxIntelRdt, host: &Host) -> Result<()> {
    let refuse = |member: &str, why: &str| Err(Error::config(format!("$.linux.intelRdt.{member}"), why));
    if let Some(class) = rdt.clos_id().as_deref() {
        if class.is_empty() || class.len() > 255 {
            return refuse("closID", "is not a name of 1 to 255 bytes");
        }
        // It is made a directory of resctrl, where some names are the kernel's own.
        if class.contains(['/', '\n', '\0']) || matches!(class, "." | ".." | "info" | "mon_groups" | "mon_data") {
            return refuse("closID", "is not a name for a class of service");
        }
    }
    for (index, line) in rdt.schemata().iter().flatten().enumerate() {
        if line.contains('\n') || !line.contains(':') {
            return refuse(&format!("schemata[{index}]"), "is not one line of a schema");
        }
    }
    for (name, prefix, schema) in
        [("l3CacheSchema", "L3", rdt.l3_cache_schema()), ("memBwSchema", "MB:", rdt.mem_bw_schema())]
    {
        let Some(schema) = schema.as_deref().filter(|schema| !schema.is_empty()) else { continue };
        if !schema.starts_with(prefix) || (name == "memBwSchema" && schema.contains('\n')) {
            return refuse(name, &format!("is not a line that starts with `{prefix}`"));
        }
    }
    if !host.has(Fact::Resctrl) {
        return Err(Error::config("$.linux.intelRdt", "is set, but the host has no resctrl at `/sys/fs/resctrl`"));
    }
    Ok(())
}

/// The rules of set_mempolicy(2).
fn memory_policy(policy: &LinuxMemoryPolicy) -> Result<()> {
    use MemoryPolicyFlagType::{MpolFNumaBalancing, MpolFRelativeNodes, MpolFStaticNodes};
    use MemoryPolicyModeType::{MpolBind, MpolDefault, MpolLocal, MpolPreferred, MpolPreferredMany};
    let refuse = |member: &str, why: &str| Err(Error::config(format!("$.linux.memoryPolicy.{member}"), why));
    let mode = policy.mode();
    let nodes = policy.nodes().as_deref().unwrap_or_default();
    let flags = policy.flags().as_deref().unwrap_or_default();
    match mode {
        MpolDefault | MpolLocal if !nodes.is_empty() => {
            return refuse("nodes", &format!("must be empty with `{mode}`"));
        }
        MpolDefault | MpolLocal | MpolPreferred => {}
        _ if nodes.is_empty() => return refuse("nodes", &format!("is missing, and `{mode}` needs it")),
        _ => {}
    }
    if !nodes.is_empty() {
        number_list::check(nodes).or_else(|why| refuse("nodes", &why))?;
    }
    for (index, flag) in flags.iter().enumerate() {
        let at = format!("flags[{index}]");
        let other = match flag {
            MpolFStaticNodes => MpolFRelativeNodes,
            MpolFRelativeNodes => MpolFStaticNodes,
            MpolFNumaBalancing if matches!(mode, MpolBind | MpolPreferredMany) => continue,
            MpolFNumaBalancing => return refuse(&at, "is only for `MPOL_BIND` and `MPOL_PREFERRED_MANY`"),
        };
        if flags[..index].contains(&other) {
            return refuse(&at, &format!("cannot be together with `{other}`"));
        }
        if nodes.is_empty() {
            return refuse(&at, "needs `nodes`");
        }
    }
    Ok(())
}

/// The flags of personality(2) by name.
pub const PERSONALITY_FLAGS: [(&str, u64); 11] = [
    ("UNAME26", 0x002_0000),
    ("ADDR_NO_RANDOMIZE", 0x004_0000),
    ("FDPIC_FUNCPTRS", 0x008_0000),
    ("MMAP_PAGE_ZERO", 0x010_0000),
    ("ADDR_COMPAT_LAYOUT", 0x020_0000),
    ("READ_IMPLIES_EXEC", 0x040_0000),
    ("ADDR_LIMIT_32BIT", 0x080_0000),
    ("SHORT_INODE", 0x100_0000),
    ("WHOLE_SECONDS", 0x200_0000),
    ("STICKY_TIMEOUTS", 0x400_0000),
    ("ADDR_LIMIT_3GB", 0x800_0000),
];

fn personality(personality: &LinuxPersonality) -> Result<()> {
    for (index, flag) in personality.flags().iter().flatten().enumerate() {
        if !PERSONALITY_FLAGS.iter().any(|(name, _)| name == flag) {
            return Err(Error::config(format!("$.linux.personality.flags[{index}]"), format!("`{flag}` is unknown")));
        }
    }
    Ok(())
}
