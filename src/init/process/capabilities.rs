//! `process.capabilities`: five sets as bit masks, and the order in which the kernel takes them.
//!
//! A document without `capabilities` gives none, to root too: the specification leaves it open, and runc makes it so.
//! (An exec'ed process without them gets the container's; the engine passes those.)

use oci_spec::runtime::{Capabilities, Capability, LinuxCapabilities};

use crate::error::{At, Result};
use crate::sys::{Errno, capability, process};

/// The kernel's number of a capability (`include/uapi/linux/capability.h`).
pub const fn number(capability: Capability) -> u32 {
    match capability {
        Capability::Chown => 0,
        Capability::DacOverride => 1,
        Capability::DacReadSearch => 2,
        Capability::Fowner => 3,
        Capability::Fsetid => 4,
        Capability::Kill => 5,
        Capability::Setgid => 6,
        Capability::Setuid => 7,
        Capability::Setpcap => 8,
        Capability::LinuxImmutable => 9,
        Capability::NetBindService => 10,
        Capability::NetBroadcast => 11,
        Capability::NetAdmin => 12,
        Capability::NetRaw => 13,
        Capability::IpcLock => 14,
        Capability::IpcOwner => 15,
        Capability::SysModule => 16,
        Capability::SysRawio => 17,
        Capability::SysChroot => 18,
        Capability::SysPtrace => 19,
        Capability::SysPacct => 20,
        Capability::SysAdmin => 21,
        Capability::SysBoot => 22,
        Capability::SysNice => 23,
        Capability::SysResource => 24,
        Capability::SysTime => 25,
        Capability::SysTtyConfig => 26,
        Capability::Mknod => 27,
        Capability::Lease => 28,
        Capability::AuditWrite => 29,
        Capability::AuditControl => 30,
        Capability::Setfcap => 31,
        Capability::MacOverride => 32,
        Capability::MacAdmin => 33,
        Capability::Syslog => 34,
        Capability::WakeAlarm => 35,
        Capability::BlockSuspend => 36,
        Capability::AuditRead => 37,
        Capability::Perfmon => 38,
        Capability::Bpf => 39,
        Capability::CheckpointRestore => 40,
    }
}

/// CAP_SYS_ADMIN as a mask: what loading a filter without `noNewPrivileges` needs.
pub const SYS_ADMIN: u64 = 1 << number(Capability::SysAdmin);
/// CAP_SETPCAP as a mask: what dropping from the bounding set needs.
pub const SETPCAP: u64 = 1 << number(Capability::Setpcap);

/// The five sets as masks: bit n is capability n.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CapabilitySets {
    /// What this process and its descendants can ever gain by exec.
    pub bounding: u64,
    /// What is in force before the exec.
    pub effective: u64,
    /// What passes through the exec of files with inheritable bits.
    pub inheritable: u64,
    /// What may be put in force.
    pub permitted: u64,
    /// What passes through the exec of ordinary files by a user other than root.
    pub ambient: u64,
}

impl CapabilitySets {
    /// Reads the document's sets; none where there is none.
    pub fn new(document: Option<&LinuxCapabilities>) -> Self {
        let mask = |set: &Option<Capabilities>| set.iter().flatten().fold(0, |mask, one| mask | 1_u64 << number(*one));
        document.map_or_else(Self::default, |sets| CapabilitySets {
            bounding: mask(sets.bounding()),
            effective: mask(sets.effective()),
            inheritable: mask(sets.inheritable()),
            permitted: mask(sets.permitted()),
            ambient: mask(sets.ambient()),
        })
    }

    /// Takes out what cannot be: effective must be permitted (capabilities(7)), ambient must be permitted and
    /// inheritable. Returns what was taken out, in words.
    pub fn normalise(&mut self) -> Vec<String> {
        let mut warnings = Vec::new();
        let mut keep = |set: &mut u64, within: u64, words: &str| {
            warnings.extend(names(*set & !within).map(|name| format!("{name} {words}")));
            *set &= within;
        };
        // capset(2) refuses what is inheritable and neither was so before nor is in the bounding set.
        keep(&mut self.inheritable, self.bounding, "is inheritable but not in the bounding set: ignored");
        keep(&mut self.effective, self.permitted, "is effective but not permitted: ignored");
        keep(
            &mut self.ambient,
            self.permitted & self.inheritable,
            "is ambient but not permitted and inheritable: ignored",
        );
        warnings
    }

    /// Limits the sets to what the runtime has itself; returns what it cannot give, in words.
    pub fn limit(&mut self, have: u64) -> Vec<String> {
        let asked = self.effective | self.permitted | self.inheritable | self.ambient;
        for set in [&mut self.effective, &mut self.permitted, &mut self.inheritable, &mut self.ambient] {
            *set &= have;
        }
        names(asked & !have).map(|name| format!("{name} cannot be given: the runtime does not have it")).collect()
    }

    /// Drops from the bounding set what is not to stay. Ends at the first number that the kernel does not know.
    ///
    /// # Errors
    /// `EPERM` without CAP_SETPCAP, if there is anything to drop.
    pub fn drop_bounding(&self) -> Result<()> {
        for capability in (0..64).filter(|capability| self.bounding & 1 << capability == 0) {
            match process::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) {
                Ok(_) => {}
                Err(Errno::EINVAL) => break,
                // An unprivileged caller may still be born without it: then there is nothing to drop.
                Err(Errno::EPERM) if process::prctl(libc::PR_CAPBSET_READ, capability, 0, 0, 0) == Ok(0) => {}
                Err(errno) => return Err(errno).at("drop from the bounding set", capability),
            }
        }
        Ok(())
    }

    /// Sets effective, permitted and inheritable in one call, then the ambient set.
    ///
    /// # Errors
    /// `EPERM` for a capability that the caller has not.
    pub fn apply(&self) -> Result<()> {
        capability::capset(self.effective, self.permitted, self.inheritable).at("set", "capabilities")?;
        // The kernel keeps ambient within permitted and inheritable: where those share nothing it is empty now.
        if self.permitted & self.inheritable == 0 {
            return Ok(());
        }
        let ambient = libc::PR_CAP_AMBIENT;
        process::prctl(ambient, libc::PR_CAP_AMBIENT_CLEAR_ALL as u64, 0, 0, 0).at("clear", "ambient capabilities")?;
        for capability in (0..64).filter(|capability| self.ambient & 1 << capability != 0) {
            process::prctl(ambient, libc::PR_CAP_AMBIENT_RAISE as u64, capability, 0, 0)
                .at("raise ambient capability", capability)?;
        }
        Ok(())
    }
}

/// What the calling process has and so can give.
///
/// # Errors
/// As `capget(2)`.
pub fn permitted() -> Result<u64> {
    capability::capget().map(|(_, permitted, _)| permitted).at("get", "capabilities")
}

/// The names of a mask's capabilities.
fn names(mask: u64) -> impl Iterator<Item = String> {
    (0..64).filter(move |bit| mask & 1 << bit != 0).map(|bit| {
        ALL.iter()
            .find(|capability| number(**capability) == bit)
            .map_or_else(|| format!("capability {bit}"), |known| format!("CAP_{known}"))
    })
}

/// Every capability that the documents can name.
const ALL: [Capability; 41] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::DacReadSearch,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setpcap,
    Capability::LinuxImmutable,
    Capability::NetBindService,
    Capability::NetBroadcast,
    Capability::NetAdmin,
    Capability::NetRaw,
    Capability::IpcLock,
    Capability::IpcOwner,
    Capability::SysModule,
    Capability::SysRawio,
    Capability::SysChroot,
    Capability::SysPtrace,
    Capability::SysPacct,
    Capability::SysAdmin,
    Capability::SysBoot,
    Capability::SysNice,
    Capability::SysResource,
    Capability::SysTime,
    Capability::SysTtyConfig,
    Capability::Mknod,
    Capability::Lease,
    Capability::AuditWrite,
    Capability::AuditControl,
    Capability::Setfcap,
    Capability::MacOverride,
    Capability::MacAdmin,
    Capability::Syslog,
    Capability::WakeAlarm,
    Capability::BlockSuspend,
    Capability::AuditRead,
    Capability::Perfmon,
    Capability::Bpf,
    Capability::CheckpointRestore,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_agree_with_the_kernel() {
        for (index, capability) in ALL.iter().enumerate() {
            assert_eq!(number(*capability) as usize, index, "{capability}");
        }
        assert_eq!(names(SYS_ADMIN | 1 << 63).collect::<Vec<_>>(), ["CAP_SYS_ADMIN", "capability 63"]);
    }

    #[test]
    fn ambient_needs_permitted_and_inheritable() {
        let mut sets = CapabilitySets {
            ambient: 0b111,
            permitted: 0b011,
            inheritable: 0b110,
            bounding: 0b111,
            ..Default::default()
        };
        assert_eq!(sets.normalise().len(), 2);
        assert_eq!(sets.ambient, 0b010);
    }

    #[test]
    fn what_the_runtime_lacks_is_a_warning() {
        let mut sets = CapabilitySets { bounding: 3, effective: 3, permitted: 3, ..Default::default() };
        assert_eq!(sets.limit(1), ["CAP_DAC_OVERRIDE cannot be given: the runtime does not have it"]);
        assert_eq!((sets.effective, sets.permitted, sets.bounding), (1, 1, 3));
    }
}
