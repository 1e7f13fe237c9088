//! `linux.sysctl`: kernel parameters of the container's own namespaces.

use oci_spec::runtime::{Linux, LinuxNamespaceType};

use super::procfs::Procfs;
use crate::error::{Error, Result};

/// Parameters that belong to the IPC namespace, besides `fs.mqueue.*`.
const IPC: [&str; 8] = [
    "kernel/msgmax",
    "kernel/msgmnb",
    "kernel/msgmni",
    "kernel/sem",
    "kernel/shmall",
    "kernel/shmmax",
    "kernel/shmmni",
    "kernel/shm_rmid_forced",
];

/// One parameter: its path below `/proc/sys` and the value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// Relative to the root of procfs, such as `sys/net/ipv4/ip_forward`.
    pub path: String,
    /// As it is written.
    pub value: String,
}

/// Checks `linux.sysctl` and names the files, sorted so that every run writes them in one order.
///
/// Only parameters of a namespace that the container does not share with the runtime are allowed: the others would
/// change the host.
///
/// # Errors
/// [`Error::Config`] for a parameter that is not namespaced, whose namespace is not the container's own, or whose
/// name is not a path below `/proc/sys`.
pub fn plan(linux: &Linux) -> Result<Vec<Parameter>> {
    let Some(sysctl) = linux.sysctl() else { return Ok(Vec::new()) };
    let own = |kind: LinuxNamespaceType| {
        linux.namespaces().as_ref().is_some_and(|all| all.iter().any(|namespace| namespace.typ() == kind))
    };
    let mut parameters = Vec::with_capacity(sysctl.len());
    for (name, value) in sysctl {
        let refuse = |reason: &str| Error::config(format!("$.linux.sysctl.{name}"), reason);
        let path = path_of(name);
        if path.split('/').any(|part| part.is_empty() || part == "." || part == "..") || path.contains('\0') {
            return Err(refuse("is not the name of a kernel parameter"));
        }
        let (kind, words) = if IPC.contains(&path.as_str()) || path.starts_with("fs/mqueue/") {
            (LinuxNamespaceType::Ipc, "needs an IPC namespace of the container's own")
        } else if path.starts_with("net/") {
            (LinuxNamespaceType::Network, "needs a network namespace of the container's own")
        } else if path.starts_with("user/") {
            (LinuxNamespaceType::User, "needs a user namespace of the container's own")
        } else if path == "kernel/domainname" {
            (LinuxNamespaceType::Uts, "needs a UTS namespace of the container's own")
        } else if path == "kernel/hostname" {
            return Err(refuse("conflicts with `hostname`"));
        } else {
            return Err(refuse("is not in a separate kernel namespace"));
        };
        if !own(kind) {
            return Err(refuse(words));
        }
        parameters.push(Parameter { path: format!("sys/{path}"), value: value.clone() });
    }
    parameters.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    Ok(parameters)
}

/// The rule of sysctl(8): the first separator decides. In `net.ipv4.conf.eth0/1.forwarding` dots separate and a slash
/// stands for a dot; in `net/ipv4/conf/eth0.1/forwarding` it is the other way round.
fn path_of(name: &str) -> String {
    match name.find(['.', '/']) {
        Some(first) if name.as_bytes()[first] == b'.' => name
            .chars()
            .map(|letter| match letter {
                '.' => '/',
                '/' => '.',
                other => other,
            })
            .collect(),
        _ => name.to_owned(),
    }
}

/// Writes the parameters. The caller is in the container's namespaces; any procfs will do, because the kernel
/// chooses the namespace by the writer.
///
/// # Errors
/// As `write(2)`, naming the file.
pub fn write(procfs: &Procfs, parameters: &[Parameter]) -> Result<()> {
    parameters.iter().try_for_each(|parameter| procfs.write(&parameter.path, parameter.value.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::path_of;

    #[test]
    fn the_first_separator_decides() {
        assert_eq!(path_of("net.ipv4.ip_forward"), "net/ipv4/ip_forward");
        assert_eq!(path_of("net/ipv4/conf/eth0.1/forwarding"), "net/ipv4/conf/eth0.1/forwarding");
        assert_eq!(path_of("net.ipv4.conf.eth0/1.forwarding"), "net/ipv4/conf/eth0.1/forwarding");
    }
}
