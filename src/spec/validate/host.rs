//! What a rule needs to know about the machine.

use std::cell::Cell;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Something the host's kernel has or lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fact {
    /// The runtime runs as the root of its user namespace.
    Root,
    /// AppArmor is enabled.
    Apparmor,
    /// SELinux is enabled.
    Selinux,
    /// The kernel has seccomp filters.
    Seccomp,
    /// The resctrl file system is mounted where everybody mounts it.
    Resctrl,
    /// The kernel has user namespaces.
    UserNamespace,
    /// The kernel has cgroup namespaces.
    CgroupNamespace,
    /// The kernel has time namespaces.
    TimeNamespace,
}

const FACTS: usize = Fact::TimeNamespace as usize + 1;

/// The facts, each looked up once and only when it is needed: one system call at most.
#[derive(Clone, Debug)]
pub struct Host {
    facts: [Cell<Option<bool>>; FACTS],
    systemd: bool,
    compare_namespaces: bool,
}

impl Host {
    /// The machine that this runs on, not looked at yet.
    pub fn probe() -> Self {
        Host { facts: Default::default(), systemd: false, compare_namespaces: true }
    }

    /// A machine that has everything, for tests and for checking a document meant for another machine.
    pub fn capable() -> Self {
        let facts = std::array::from_fn(|_| Cell::new(Some(true)));
        Host { facts, systemd: false, compare_namespaces: false }
    }

    /// Whether `cgroupsPath` is meant for the systemd driver (`--systemd-cgroup`).
    #[must_use]
    pub fn with_systemd(mut self, systemd: bool) -> Self {
        self.systemd = systemd;
        self
    }

    /// States a fact instead of looking it up.
    #[must_use]
    pub fn with(self, fact: Fact, holds: bool) -> Self {
        self.facts[fact as usize].set(Some(holds));
        self
    }

    /// Whether the host has it.
    pub fn has(&self, fact: Fact) -> bool {
        let known = &self.facts[fact as usize];
        known.get().unwrap_or_else(|| {
            let holds = look_up(fact);
            known.set(Some(holds));
            holds
        })
    }

    pub(super) fn systemd(&self) -> bool {
        self.systemd
    }

    /// Whether a path names the namespace that the runtime itself is in; `name` is the one below `/proc/self/ns`.
    pub(super) fn shares(&self, name: &str, path: &Path) -> bool {
        if !self.compare_namespaces {
            return false;
        }
        let identity = |path: &Path| std::fs::metadata(path).map(|file| (file.dev(), file.ino())).ok();
        let own = identity(&Path::new("/proc/self/ns").join(name));
        own.is_some() && own == identity(path)
    }
}

fn look_up(fact: Fact) -> bool {
    // Of a namespace the link and not what it leads to, which the kernel would have to make.
    let exists = |path: &str| std::fs::symlink_metadata(path).is_ok();
    match fact {
        Fact::Root => nix::unistd::geteuid().is_root(),
        Fact::Apparmor => {
            std::fs::read("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with(b"Y"))
        }
        Fact::Selinux => exists("/sys/fs/selinux/enforce"),
        Fact::Seccomp => exists("/proc/sys/kernel/seccomp/actions_avail"),
        Fact::Resctrl => exists("/sys/fs/resctrl/schemata"),
        Fact::UserNamespace => exists("/proc/self/ns/user"),
        Fact::CgroupNamespace => exists("/proc/self/ns/cgroup"),
        Fact::TimeNamespace => exists("/proc/self/ns/time"),
    }
}
