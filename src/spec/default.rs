//! The configuration that `rustbox spec` writes: a shell in `rootfs`, the same in substance as `runc spec`.

use oci_spec::runtime::Spec;
use serde_json::{Value, json};

use super::load::OCI_VERSION_MAX;

/// The default configuration; `rootless` maps the caller to the container's root and shares the network.
pub fn default_spec(rootless: bool) -> Spec {
    serde_json::from_value(default_document(rootless)).expect("the default document is a configuration")
}

/// The same as a document whose members stand in the order of the runtime spec: what `rustbox spec` prints, byte for
/// byte the same each time (`Spec` holds capabilities in a hash set).
pub fn default_document(rootless: bool) -> Value {
    let capabilities = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"];
    json!({
        "ociVersion": OCI_VERSION_MAX,
        "process": {
            "terminal": true,
            "user": { "uid": 0, "gid": 0 },
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {
                "bounding": capabilities,
                "effective": capabilities,
                "permitted": capabilities,
            },
            "rlimits": [{ "type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024 }],
            "noNewPrivileges": true,
        },
        "root": { "path": "rootfs", "readonly": true },
        "hostname": "rustbox",
        "mounts": mounts(rootless),
        "linux": linux(rootless),
    })
}

fn mounts(rootless: bool) -> Value {
    let mount = |destination: &str, kind: &str, source: &str, options: &[&str]| {
        let mut mount = json!({ "destination": destination, "type": kind, "source": source });
        if !options.is_empty() {
            mount["options"] = json!(options);
        }
        mount
    };
    // Only id 0 is mapped for a rootless caller: group 5 (tty) does not exist there.
    let pts: &[&str] = match rootless {
        true => &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"],
        false => &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
    };
    // A new sysfs needs a network namespace of the container's own, which the rootless configuration has not.
    let sys = match rootless {
        true => mount("/sys", "none", "/sys", &["rbind", "nosuid", "noexec", "nodev", "ro"]),
        false => mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
    };
    Value::Array(vec![
        mount("/proc", "proc", "proc", &[]),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount("/dev/pts", "devpts", "devpts", pts),
        mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        sys,
        mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
    ])
}

fn linux(rootless: bool) -> Value {
    let namespaces: &[&str] = match rootless {
        true => &["pid", "ipc", "uts", "mount", "cgroup", "user"],
        false => &["pid", "network", "ipc", "uts", "mount", "cgroup"],
    };
    let mut linux = json!({});
    if rootless {
        let map = |id: u32| json!([{ "containerID": 0, "hostID": id, "size": 1 }]);
        linux["uidMappings"] = map(nix::unistd::geteuid().as_raw());
        linux["gidMappings"] = map(nix::unistd::getegid().as_raw());
    } else {
        linux["resources"] = json!({ "devices": [{ "allow": false, "access": "rwm" }] });
    }
    linux["namespaces"] = namespaces.iter().map(|kind| json!({ "type": kind })).collect();
    linux["maskedPaths"] = json!([
        "/proc/acpi",
        "/proc/asound",
        "/proc/kcore",
        "/proc/keys",
        "/proc/latency_stats",
        "/proc/timer_list",
        "/proc/timer_stats",
        "/proc/sched_debug",
        "/sys/firmware",
        "/proc/scsi",
    ]);
    linux["readonlyPaths"] = json!(["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]);
    linux
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_survives_the_way_through_a_file() {
        for rootless in [false, true] {
            let text = serde_json::to_vec(&default_document(rootless)).unwrap();
            assert_eq!(super::super::parse_spec(&text).unwrap(), default_spec(rootless));
        }
    }
}
