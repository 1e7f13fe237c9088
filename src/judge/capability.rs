//! What this host can do for a judged run: one look, as data, for `--dry-run`, for refusing, and for degrading.

use std::ffi::CStr;
use std::path::Path;

use schemars::JsonSchema;
use serde::Serialize;

use super::toolchain::Toolchain;
use crate::cgroup::{Controller, Hierarchy, Layout, Version};
use crate::sys::{calls, path, pidfd, seccomp};

/// One control of a judged run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Control {
    /// A contract: the name in `controls`, in `control_degraded` and in refusals.
    pub name: &'static str,
    /// What it is for.
    pub purpose: &'static str,
    /// Whether the run asks for it.
    pub configured: bool,
    /// Whether the host can give it.
    pub available: bool,
    /// What gives it, or what is missing.
    pub by: String,
}

impl Control {
    /// Asked for and not to be had.
    pub fn missing(&self) -> bool {
        self.configured && !self.available
    }
}

/// The capability report.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Report {
    /// `v1`, `v2`, `hybrid` or `none`.
    pub cgroup: &'static str,
    /// How processes are told apart and waited for.
    pub pidfd: &'static str,
    /// How everything in a sandbox is killed.
    pub kill: &'static str,
    /// The controls.
    pub controls: Vec<Control>,
    /// Names of the controls that are asked for and missing.
    pub missing: Vec<&'static str>,
    /// Newer system calls, where not all can be made (`--dry-run` only).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calls: Option<String>,
    /// What the language needs of the host, where a language is asked for (`--dry-run` only).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub toolchain: Option<Toolchain>,
}

/// What a run asks for that not every run does.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// Namespaces, as `CLONE_NEW*` flags.
    pub namespaces: i32,
    /// The judge's system call filter.
    pub seccomp: bool,
}

impl Wanted {
    /// What the judge's own sandbox asks for.
    pub fn everything() -> Self {
        Wanted { namespaces: NAMESPACES.iter().fold(0, |all, (flag, ..)| all | flag), seccomp: true }
    }
}

const NAMESPACES: [(i32, &str, &str, &str); 7] = [
    (libc::CLONE_NEWUSER, "user_namespace", "host ids of its own", "user"),
    (libc::CLONE_NEWPID, "pid_namespace", "sees and signals only itself", "pid"),
    (libc::CLONE_NEWNS, "mount_namespace", "a file system of its own", "mnt"),
    (libc::CLONE_NEWNET, "network_namespace", "no network", "net"),
    (libc::CLONE_NEWIPC, "ipc_namespace", "no shared memory with the host", "ipc"),
    (libc::CLONE_NEWUTS, "uts_namespace", "a host name of its own", "uts"),
    (libc::CLONE_NEWCGROUP, "cgroup_namespace", "does not see the host's cgroups", "cgroup"),
];

/// Looks at the host; makes and changes nothing.
pub fn probe(layout: &Layout, wanted: Wanted) -> Report {
    let mut controls = Vec::with_capacity(16);
    for (name, purpose, controller) in [
        ("memory", "memory limit", Controller::Memory),
        ("pids", "process limit", Controller::Pids),
        ("cpuacct", "CPU time", Controller::Cpuacct),
    ] {
        let by = provider(layout, controller);
        controls.push(Control {
            name,
            purpose,
            configured: true,
            available: by.is_some(),
            by: by.unwrap_or_else(|| "no controller".to_owned()),
        });
    }
    let (swap, by) = swap(layout);
    controls.push(Control {
        name: "swap",
        purpose: "no swap beyond the memory limit",
        configured: true,
        available: swap,
        by,
    });
    for (flag, name, purpose, file) in NAMESPACES {
        let (available, by) = namespace(flag, file);
        controls.push(Control { name, purpose, configured: wanted.namespaces & flag != 0, available, by });
    }
    let notify = seccomp::action_avail(seccomp::action::USER_NOTIF);
    controls.push(Control {
        name: "seccomp",
        purpose: "forbidden system calls",
        configured: wanted.seccomp,
        available: notify,
        by: if notify { "user notification and an allow-list" } else { "no user notification in this kernel" }
            .to_owned(),
    });
    let pidfd = calls::is_there("pidfd_open");
    let held = pidfd::open(std::process::id() as libc::pid_t).is_ok();
    let signal = calls::is_there("pidfd_send_signal");
    controls.push(Control {
        name: "pidfd",
        purpose: "no signal ever reaches another process",
        configured: true,
        available: held && signal,
        by: match (held && signal, pidfd) {
            (true, true) => "pidfd_open",
            (true, false) => "the process's directory in procfs",
            (false, _) if held => "no pidfd_send_signal: a pid may be another's by then",
            (false, _) => "neither pidfd_open nor procfs",
        }
        .to_owned(),
    });
    let root = nix::unistd::geteuid().is_root();
    controls.push(Control {
        name: "privilege",
        purpose: "makes cgroups and leases host ids",
        configured: true,
        available: root,
        by: if root { "root" } else { "not root" }.to_owned(),
    });
    let kill = layout.hierarchies.iter().any(|it| it.version == Version::V2);
    let missing = controls.iter().filter(|control| control.missing()).map(|control| control.name).collect();
    Report {
        cgroup: layout.name(),
        pidfd: match (held && signal, pidfd) {
            (true, true) => "pidfd",
            (true, false) => "procfs",
            (false, _) => "none",
        },
        kill: if kill {
            "init of the pid namespace, then cgroup.kill"
        } else {
            "init of the pid namespace, then freeze and kill"
        },
        controls,
        missing,
        calls: None,
        toolchain: None,
    }
}

impl Report {
    /// As a table for people.
    pub fn table(&self) -> String {
        let mut text = format!("cgroups {}, {}; kill by {}\n\n", self.cgroup, self.pidfd, self.kill);
        text.push_str(&format!("{:<18} {:<11} {:<10} {:<40} {}\n", "CONTROL", "CONFIGURED", "AVAILABLE", "BY", "FOR"));
        for control in &self.controls {
            let word = |yes: bool| if yes { "yes" } else { "no" };
            let available = if control.missing() { "MISSING" } else { word(control.available) };
            text.push_str(&format!(
                "{:<18} {:<11} {:<10} {:<40} {}\n",
                control.name,
                word(control.configured),
                available,
                control.by,
                control.purpose
            ));
        }
        if !self.missing.is_empty() {
            text.push_str(&format!("\nmissing: {} (refused, unless --permissive)\n", self.missing.join(", ")));
        }
        if let Some(calls) = &self.calls {
            text.push_str(&format!("\nsystem calls: {calls}\n"));
        }
        if let Some(toolchain) = &self.toolchain {
            text.push_str(&format!("\n{}\n", toolchain.line()));
        }
        text
    }
}

fn provider(layout: &Layout, controller: Controller) -> Option<String> {
    let v1 = layout.hierarchies.iter().find(|it| it.version == Version::V1 && it.controllers.contains(&controller));
    if let Some(hierarchy) = v1 {
        return Some(format!("cgroup v1 {}", hierarchy.root.display()));
    }
    // On v2 the time is counted by the core, with or without the cpu controller; but a hybrid host's v2 directory is not
    // the payload's.
    let v2 = layout.hierarchies.iter().find(|it| it.version == Version::V2)?;
    let counted = controller == Controller::Cpuacct && layout.is_unified();
    (counted || v2.controllers.contains(&controller)).then(|| format!("cgroup v2 {}", v2.root.display()))
}

/// Whether swap beyond the memory limit is impossible, and why.
fn swap(layout: &Layout) -> (bool, String) {
    if no_swap() {
        return (true, "the machine has no swap".to_owned());
    }
    if accounting(layout).swap {
        return (true, "cgroup swap limit".to_owned());
    }
    (false, "swap is on and not accounted".to_owned())
}

fn no_swap() -> bool {
    std::fs::read_to_string("/proc/swaps").is_ok_and(|text| text.lines().count() <= 1)
}

/// What the memory controller limits besides memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Accounting {
    /// Swap, so that `resources.memory.swap` can be set.
    pub swap: bool,
    /// The buffers of sockets by a limit of their own (`resources.memory.kernelTCP`, cgroup v1), because they are not
    /// among the memory. On v2 they are.
    pub sockets: bool,
}

/// What the memory controller limits.
pub fn accounting(layout: &Layout) -> Accounting {
    let controls = |hierarchy: &&Hierarchy| hierarchy.controllers.contains(&Controller::Memory);
    match layout.hierarchies.iter().find(controls) {
        Some(hierarchy) if hierarchy.version == Version::V1 => {
            let has = |file| hierarchy.root.join(file).exists();
            Accounting { swap: has("memory.memsw.limit_in_bytes"), sockets: has("memory.kmem.tcp.limit_in_bytes") }
        }
        // The root has no such file; any child shows what the kernel accounts.
        Some(_) => Accounting { swap: !no_swap(), sockets: false },
        None => Accounting::default(),
    }
}

fn namespace(flag: i32, file: &str) -> (bool, String) {
    // The link and not what it leads to, which the kernel would have to make.
    if std::fs::symlink_metadata(Path::new("/proc/self/ns").join(file)).is_err() {
        return (false, "not in this kernel".to_owned());
    }
    if flag == libc::CLONE_NEWUSER {
        let allowed = |path: &str| std::fs::read_to_string(path).map_or(true, |text| text.trim() != "0");
        if !allowed("/proc/sys/user/max_user_namespaces") {
            return (false, "user.max_user_namespaces is 0".to_owned());
        }
        if let Some(place) = masked_proc() {
            return (false, format!("`{place}` is masked here, so proc cannot be mounted in one"));
        }
    }
    (true, "clone".to_owned())
}

/// A place of /proc that something is mounted on, as in a container: then the kernel lets no user namespace mount
/// proc, which would show what is hidden (`mount_too_revealing()`). Asked by mount id of what engines mask, which is
/// cheaper than mountinfo.
fn masked_proc() -> Option<&'static str> {
    const PLACES: [&CStr; 14] = [
        c"/proc/acpi",
        c"/proc/asound",
        c"/proc/bus",
        c"/proc/fs",
        c"/proc/interrupts",
        c"/proc/irq",
        c"/proc/kcore",
        c"/proc/keys",
        c"/proc/latency_stats",
        c"/proc/scsi",
        c"/proc/sched_debug",
        c"/proc/sys",
        c"/proc/sysrq-trigger",
        c"/proc/timer_list",
    ];
    let proc = path::mount_id_of(c"/proc").ok()?;
    let masked = |place: &&CStr| path::mount_id_of(place).is_ok_and(|mount| mount != proc);
    PLACES.into_iter().find(masked)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::Hierarchy;

    fn control<'a>(report: &'a Report, name: &str) -> &'a Control {
        report.controls.iter().find(|control| control.name == name).unwrap()
    }

    #[test]
    fn a_missing_controller_is_named() {
        let memory = Hierarchy {
            version: Version::V1,
            root: "/sys/fs/cgroup/memory".into(),
            controllers: vec![Controller::Memory],
        };
        let report = probe(&Layout::new(vec![memory]), Wanted::everything());
        assert!(control(&report, "memory").available);
        assert!(report.missing.contains(&"pids") && report.missing.contains(&"cpuacct"));
        assert!(report.table().contains("MISSING"));
    }

    #[test]
    fn what_is_not_asked_for_is_never_missing() {
        let report = probe(&Layout::new(Vec::new()), Wanted { namespaces: 0, seccomp: false });
        assert!(!report.missing.contains(&"user_namespace") && !report.missing.contains(&"seccomp"));
    }

    #[test]
    fn v2_counts_cpu_time_without_a_controller() {
        let v2 = Hierarchy { version: Version::V2, root: "/sys/fs/cgroup".into(), controllers: vec![Controller::Pids] };
        let report = probe(&Layout::new(vec![v2]), Wanted::everything());
        assert!(control(&report, "cpuacct").available && !control(&report, "memory").available);
    }
}
