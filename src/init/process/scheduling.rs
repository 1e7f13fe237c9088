//! `process.scheduler`, `process.ioPriority`, `process.execCPUAffinity`, `linux.memoryPolicy`, `linux.personality`.

use oci_spec::runtime::{
    IOPriorityClass, LinuxIOPriority, LinuxMemoryPolicy, LinuxPersonality, LinuxPersonalityDomain, LinuxSchedulerFlag,
    LinuxSchedulerPolicy, MemoryPolicyFlagType, MemoryPolicyModeType, Scheduler,
};

use crate::error::{Error, Result};
use crate::sys::attributes::SchedAttr;

/// Processors and NUMA nodes above this are refused; the kernel's own limits are 8,192 and 1,024.
const LIST_LIMIT: u32 = 8192;

/// Checks `process.scheduler` as sched(7) does and gives it the kernel's form.
///
/// # Errors
/// [`Error::Config`] for a value that the policy has no use for.
pub fn scheduler(document: &Scheduler) -> Result<SchedAttr> {
    let refuse = |field: &str, reason: &str| Error::config(format!("$.process.scheduler.{field}"), reason);
    let policy = *document.policy();
    let nice = document.nice().unwrap_or(0);
    if !(-20..=19).contains(&nice) {
        return Err(refuse("nice", "is not between -20 and 19"));
    }
    let priority = document.priority().unwrap_or(0);
    let real_time = matches!(policy, LinuxSchedulerPolicy::SchedFifo | LinuxSchedulerPolicy::SchedRr);
    if priority != 0 && !real_time {
        return Err(refuse("priority", "is only for SCHED_FIFO and SCHED_RR"));
    }
    if real_time && !(1..=99).contains(&priority) {
        return Err(refuse("priority", "is not between 1 and 99"));
    }
    let times = [document.runtime(), document.deadline(), document.period()].map(|time| time.unwrap_or(0));
    if policy != LinuxSchedulerPolicy::SchedDeadline
        && let Some(at) = times.iter().position(|time| *time != 0)
    {
        return Err(refuse(["runtime", "deadline", "period"][at], "is only for SCHED_DEADLINE"));
    }
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
    Ok(SchedAttr {
        policy: number as u32,
        flags,
        nice,
        priority: priority as u32,
        runtime: times[0],
        deadline: times[1],
        period: times[2],
        ..SchedAttr::default()
    })
}

/// The value for `ioprio_set(2)`: class and level.
///
/// # Errors
/// [`Error::Config`] for a level that is not between 0 and 7.
pub fn io_priority(document: LinuxIOPriority) -> Result<i32> {
    let level = document.priority();
    if !(0..=7).contains(&level) {
        return Err(Error::config("$.process.ioPriority.priority", "is not between 0 and 7"));
    }
    let class = match document.class() {
        IOPriorityClass::IoprioClassRt => 1,
        IOPriorityClass::IoprioClassBe => 2,
        IOPriorityClass::IoprioClassIdle => 3,
    };
    Ok(class << 13 | level as i32)
}

/// The value for `personality(2)`: domain and flags by their names in personality(2).
///
/// # Errors
/// [`Error::Config`] for an unknown flag.
pub fn personality(document: &LinuxPersonality) -> Result<u64> {
    let domain: u64 = match document.domain() {
        LinuxPersonalityDomain::PerLinux => 0,
        LinuxPersonalityDomain::PerLinux32 => 8,
    };
    document.flags().iter().flatten().enumerate().try_fold(domain, |value, (index, flag)| {
        let bit = match flag.as_str() {
            "UNAME26" => 0x002_0000,
            "ADDR_NO_RANDOMIZE" => 0x004_0000,
            "FDPIC_FUNCPTRS" => 0x008_0000,
            "MMAP_PAGE_ZERO" => 0x010_0000,
            "ADDR_COMPAT_LAYOUT" => 0x020_0000,
            "READ_IMPLIES_EXEC" => 0x040_0000,
            "ADDR_LIMIT_32BIT" => 0x080_0000,
            "SHORT_INODE" => 0x100_0000,
            "WHOLE_SECONDS" => 0x200_0000,
            "STICKY_TIMEOUTS" => 0x400_0000,
            "ADDR_LIMIT_3GB" => 0x800_0000,
            _ => return Err(Error::config(format!("$.linux.personality.flags[{index}]"), "is unknown")),
        };
        Ok(value | bit)
    })
}

/// A NUMA memory policy as `set_mempolicy(2)` takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryPolicy {
    /// `MPOL_*` with its flags.
    pub mode: i32,
    /// Bit n is node n; empty for none.
    pub nodes: Vec<u64>,
}

/// Checks `linux.memoryPolicy` by the rules of set_mempolicy(2).
///
/// # Errors
/// [`Error::Config`] for a combination that the kernel would refuse.
pub fn memory_policy(document: &LinuxMemoryPolicy) -> Result<MemoryPolicy> {
    const NUMA_BALANCING: i32 = 1 << 13;
    const RELATIVE_NODES: i32 = 1 << 14;
    const STATIC_NODES: i32 = 1 << 15;
    let refuse = |field: &str, reason: &str| Err(Error::config(format!("$.linux.memoryPolicy.{field}"), reason));
    let mode = document.mode();
    let flags = document.flags().iter().flatten().fold(0, |flags, flag| {
        flags
            | match flag {
                MemoryPolicyFlagType::MpolFNumaBalancing => NUMA_BALANCING,
                MemoryPolicyFlagType::MpolFRelativeNodes => RELATIVE_NODES,
                MemoryPolicyFlagType::MpolFStaticNodes => STATIC_NODES,
            }
    });
    let nodes = match document.nodes().as_deref().map(str::trim) {
        None | Some("") => Vec::new(),
        Some(list) => list_mask("$.linux.memoryPolicy.nodes", list)?,
    };
    if flags & NUMA_BALANCING != 0 && mode != MemoryPolicyModeType::MpolBind {
        return refuse("flags", "has MPOL_F_NUMA_BALANCING, which is only for MPOL_BIND");
    }
    if flags & STATIC_NODES != 0 && flags & RELATIVE_NODES != 0 {
        return refuse("flags", "has both MPOL_F_STATIC_NODES and MPOL_F_RELATIVE_NODES");
    }
    let number = match mode {
        MemoryPolicyModeType::MpolDefault => 0,
        MemoryPolicyModeType::MpolPreferred => 1,
        MemoryPolicyModeType::MpolBind => 2,
        MemoryPolicyModeType::MpolInterleave => 3,
        MemoryPolicyModeType::MpolLocal => 4,
        MemoryPolicyModeType::MpolPreferredMany => 5,
        MemoryPolicyModeType::MpolWeightedInterleave => 6,
    };
    match mode {
        MemoryPolicyModeType::MpolDefault | MemoryPolicyModeType::MpolLocal => {
            if !nodes.is_empty() {
                return refuse("nodes", "must be empty for this mode");
            }
            if flags != 0 {
                return refuse("flags", "must be empty for this mode");
            }
        }
        MemoryPolicyModeType::MpolPreferred if nodes.is_empty() && flags != 0 => {
            return refuse("flags", "must be empty for MPOL_PREFERRED without nodes");
        }
        MemoryPolicyModeType::MpolPreferred => {}
        _ if nodes.is_empty() => return refuse("nodes", "must not be empty for this mode"),
        _ => {}
    }
    Ok(MemoryPolicy { mode: number | flags, nodes })
}

/// A list such as `0-3,7` as a mask, bit n for number n.
///
/// # Errors
/// [`Error::Config`] with `pointer` for anything else, and for numbers above the kernel's limits.
pub fn list_mask(pointer: &str, list: &str) -> Result<Vec<u64>> {
    let mut mask = Vec::new();
    for part in list.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let range = first.trim().parse::<u32>().ok().zip(last.trim().parse::<u32>().ok());
        let (first, last) = range
            .filter(|(first, last)| first <= last && *last < LIST_LIMIT)
            .ok_or_else(|| Error::config(pointer, format!("has `{part}`, which is no number or range")))?;
        mask.resize(mask.len().max(last as usize / 64 + 1), 0_u64);
        for number in first..=last {
            mask[number as usize / 64] |= 1 << (number % 64);
        }
    }
    if mask.is_empty() { Err(Error::config(pointer, "names nothing")) } else { Ok(mask) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        assert_eq!(list_mask("$", "0-3,7").unwrap(), [0b1000_1111]);
        assert_eq!(list_mask("$", "63,64").unwrap(), [1 << 63, 1]);
        for bad in ["", ",", "3-1", "a", "1-", "-1", "8192"] {
            assert!(list_mask("$", bad).is_err(), "{bad}");
        }
    }
}
