//! `process.scheduler`, `process.ioPriority`, `process.execCPUAffinity`, `linux.memoryPolicy`, `linux.personality`.

use oci_spec::runtime::{
    IOPriorityClass, LinuxIOPriority, LinuxMemoryPolicy, LinuxPersonality, LinuxPersonalityDomain, LinuxSchedulerFlag,
    LinuxSchedulerPolicy, MemoryPolicyFlagType, MemoryPolicyModeType, Scheduler,
};

use crate::error::{Error, Result};
use crate::spec::{PERSONALITY_FLAGS, number_list};
use crate::sys::attributes::SchedAttr;

/// Gives `process.scheduler` the kernel's form.
pub fn scheduler(document: &Scheduler) -> SchedAttr {
    let policy = *document.policy();
    let number = match policy {
        LinuxSchedulerPolicy::SchedOther => libc::SCHED_OTHER,
        LinuxSchedulerPolicy::SchedFifo => libc::SCHED_FIFO,
        LinuxSchedulerPolicy::SchedRr => libc::SCHED_RR,
        LinuxSchedulerPolicy::SchedBatch => libc::SCHED_BATCH,
        // Reserved in the kernel's header, and no kernel has it: sched_setattr says EINVAL.
        LinuxSchedulerPolicy::SchedIso => 4,
        LinuxSchedulerPolicy::SchedIdle => libc::SCHED_IDLE,
        LinuxSchedulerPolicy::SchedDeadline => libc::SCHED_DEADLINE,
    };
    let flags = document.flags().iter().flatten().fold(0, |flags, flag| {
        flags
            | match flag {
                LinuxSchedulerFlag::SchedResetOnFork => 0x01,
                LinuxSchedulerFlag::SchedFlagReclaim => 0x02,
                LinuxSchedulerFlag::SchedFlagDLOverrun => 0x04,
                LinuxSchedulerFlag::SchedFlagKeepPolicy => 0x08,
                LinuxSchedulerFlag::SchedFlagKeepParams => 0x10,
                LinuxSchedulerFlag::SchedFlagUtilClampMin => 0x20,
                LinuxSchedulerFlag::SchedFlagUtilClampMax => 0x40,
            }
    });
    SchedAttr {
        policy: number as u32,
        flags,
        nice: document.nice().unwrap_or(0),
        priority: document.priority().unwrap_or(0) as u32,
        runtime: document.runtime().unwrap_or(0),
        deadline: document.deadline().unwrap_or(0),
        period: document.period().unwrap_or(0),
        ..SchedAttr::default()
    }
}

/// The value for `ioprio_set(2)`: class and level.
pub fn io_priority(document: LinuxIOPriority) -> i32 {
    let class = match document.class() {
        IOPriorityClass::IoprioClassRt => 1,
        IOPriorityClass::IoprioClassBe => 2,
        IOPriorityClass::IoprioClassIdle => 3,
    };
    class << 13 | document.priority() as i32
}

/// The value for `personality(2)`: domain and flags.
pub fn personality(document: &LinuxPersonality) -> u64 {
    let domain = match document.domain() {
        LinuxPersonalityDomain::PerLinux => 0,
        LinuxPersonalityDomain::PerLinux32 => 8,
    };
    let named = |(name, _): &&(&str, u64)| document.flags().iter().flatten().any(|flag| flag == name);
    PERSONALITY_FLAGS.iter().filter(named).fold(domain, |value, (_, bit)| value | bit)
}

/// A NUMA memory policy as `set_mempolicy(2)` takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryPolicy {
    /// `MPOL_*` with its flags.
    pub mode: i32,
    /// Bit n is node n; empty for none.
    pub nodes: Vec<u64>,
}

/// Gives `linux.memoryPolicy` the kernel's form.
///
/// # Errors
/// [`Error::Config`] for a node beyond every machine's.
pub fn memory_policy(document: &LinuxMemoryPolicy) -> Result<MemoryPolicy> {
    let flags = document.flags().iter().flatten().fold(0, |flags, flag| {
        flags
            | match flag {
                MemoryPolicyFlagType::MpolFNumaBalancing => 1 << 13,
                MemoryPolicyFlagType::MpolFRelativeNodes => 1 << 14,
                MemoryPolicyFlagType::MpolFStaticNodes => 1 << 15,
            }
    });
    let mode = match document.mode() {
        MemoryPolicyModeType::MpolDefault => 0,
        MemoryPolicyModeType::MpolPreferred => 1,
        MemoryPolicyModeType::MpolBind => 2,
        MemoryPolicyModeType::MpolInterleave => 3,
        MemoryPolicyModeType::MpolLocal => 4,
        MemoryPolicyModeType::MpolPreferredMany => 5,
        MemoryPolicyModeType::MpolWeightedInterleave => 6,
    };
    let nodes = match document.nodes().as_deref() {
        None | Some("") => Vec::new(),
        Some(list) => mask("$.linux.memoryPolicy.nodes", list)?,
    };
    Ok(MemoryPolicy { mode: mode | flags, nodes })
}

/// A list of processors or nodes as a mask.
///
/// # Errors
/// [`Error::Config`] with the JSON path given, where a number is beyond every machine's.
pub fn mask(pointer: &str, list: &str) -> Result<Vec<u64>> {
    number_list::mask(list).map_err(|why| Error::config(pointer, why))
}
