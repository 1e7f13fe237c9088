//! `process`, of a configuration or of an exec.

use std::os::unix::ffi::OsStrExt;

use oci_spec::runtime::{LinuxCapabilities, LinuxSchedulerPolicy, Process, Scheduler, User};

use super::{Fact, Host, environment_entry};
use crate::error::{Error, Result};
use crate::spec::number_list;

/// Checks a process document; `at` is its JSON path: `$.process` in a configuration, `$` for exec.
///
/// # Errors
/// [`Error::Config`] for the first fault.
pub fn validate_process(process: &Process, at: &str, host: &Host) -> Result<()> {
    let refuse = |member: &str, why: String| Err(Error::config(format!("{at}.{member}"), why));
    command(process, at)?;
    user(process.user(), at)?;
    if process.terminal() == Some(true)
        && let Some(size) = process.console_size()
    {
        // `struct winsize` counts in unsigned shorts; without a terminal the member must be ignored.
        for (name, value) in [("height", size.height()), ("width", size.width())] {
            if value > u64::from(u16::MAX) {
                return refuse(&format!("consoleSize.{name}"), format!("{value} is above 65535"));
            }
        }
    }
    if let Some(capabilities) = process.capabilities() {
        self::capabilities(capabilities, at)?;
    }
    let rlimits = process.rlimits().as_deref().unwrap_or_default();
    for (index, limit) in rlimits.iter().enumerate() {
        if rlimits[..index].iter().any(|other| other.typ() == limit.typ()) {
            return refuse(&format!("rlimits[{index}].type"), format!("`{}` is given twice", limit.typ()));
        }
        if limit.soft() > limit.hard() {
            let why = format!("{} of {} is above the hard limit {}", limit.soft(), limit.typ(), limit.hard());
            return refuse(&format!("rlimits[{index}].soft"), why);
        }
    }
    if let Some(adjustment) = process.oom_score_adj()
        && !(-1000..=1000).contains(&adjustment)
    {
        return refuse("oomScoreAdj", format!("{adjustment} is not between -1000 and 1000"));
    }
    if let Some(profile) = process.apparmor_profile().as_deref()
        && !matches!(profile, "" | "unconfined")
        && !host.has(Fact::Apparmor)
    {
        return refuse("apparmorProfile", "is set, but the host has no AppArmor".into());
    }
    if process.selinux_label().as_deref().is_some_and(|label| !label.is_empty()) && !host.has(Fact::Selinux) {
        return refuse("selinuxLabel", "is set, but the host has no SELinux".into());
    }
    if let Some(priority) = process.io_priority()
        && !(0..=7).contains(&priority.priority())
    {
        return refuse("ioPriority.priority", format!("{} is not between 0 and 7", priority.priority()));
    }
    if let Some(scheduler) = process.scheduler() {
        self::scheduler(scheduler, at)?;
    }
    if let Some(affinity) = process.exec_cpu_affinity() {
        for (name, list) in [("initial", affinity.initial()), ("final", affinity.cpu_affinity_final())] {
            if let Some(list) = list.as_deref().filter(|list| !list.is_empty()) {
                number_list::check(list).or_else(|why| refuse(&format!("execCPUAffinity.{name}"), why))?;
            }
        }
    }
    Ok(())
}

fn command(process: &Process, at: &str) -> Result<()> {
    let refuse = |member: &str, why: &str| Err(Error::config(format!("{at}.{member}"), why));
    let Some(args) = process.args() else {
        return refuse("args", "is missing");
    };
    match args.first() {
        None => return refuse("args", "is empty"),
        Some(program) if program.is_empty() => return refuse("args[0]", "is empty"),
        Some(_) => {}
    }
    if let Some(index) = args.iter().position(|word| word.contains('\0')) {
        return refuse(&format!("args[{index}]"), "has a NUL byte");
    }
    for (index, entry) in process.env().iter().flatten().enumerate() {
        environment_entry(entry).or_else(|why| refuse(&format!("env[{index}]"), why))?;
    }
    if !process.cwd().is_absolute() {
        return refuse("cwd", "is not an absolute path");
    }
    if process.cwd().as_os_str().as_bytes().contains(&0) {
        return refuse("cwd", "has a NUL byte");
    }
    Ok(())
}

fn user(user: &User, at: &str) -> Result<()> {
    let refuse = |member: &str, why: &str| Err(Error::config(format!("{at}.user.{member}"), why));
    // setresuid(2) takes -1 for "leave it": the process would keep the runtime's own.
    const NO_CHANGE: u32 = u32::MAX;
    if user.uid() == NO_CHANGE {
        return refuse("uid", "4294967295 is no id");
    }
    if user.gid() == NO_CHANGE {
        return refuse("gid", "4294967295 is no id");
    }
    let groups = user.additional_gids().as_deref().unwrap_or_default();
    if groups.len() > 65536 {
        return refuse("additionalGids", "has more than the kernel's 65536 groups");
    }
    if let Some(index) = groups.iter().position(|gid| *gid == NO_CHANGE) {
        return refuse(&format!("additionalGids[{index}]"), "4294967295 is no id");
    }
    if user.umask().is_some_and(|mask| mask > 0o777) {
        return refuse("umask", "has bits beyond 0777 (511)");
    }
    Ok(())
}

/// capset(2) refuses effective capabilities that are not permitted.
fn capabilities(sets: &LinuxCapabilities, at: &str) -> Result<()> {
    let permitted = sets.permitted().as_ref();
    let lacking = sets
        .effective()
        .iter()
        .flatten()
        .filter(|capability| !permitted.is_some_and(|set| set.contains(capability)))
        .min_by_key(|capability| capability.to_string());
    match lacking {
        Some(capability) => Err(Error::config(
            format!("{at}.capabilities.effective"),
            format!("has `CAP_{capability}`, which is not in `permitted`"),
        )),
        None => Ok(()),
    }
}

/// The rules of sched_setattr(2), which would refuse these only in the container's process.
fn scheduler(scheduler: &Scheduler, at: &str) -> Result<()> {
    use LinuxSchedulerPolicy::{SchedDeadline, SchedFifo, SchedIso, SchedRr};
    let refuse = |member: &str, why: String| Err(Error::config(format!("{at}.scheduler.{member}"), why));
    let policy = *scheduler.policy();
    if policy == SchedIso {
        return refuse("policy", "`SCHED_ISO` is not implemented by Linux".into());
    }
    if let Some(nice) = *scheduler.nice()
        && !(-20..=19).contains(&nice)
    {
        return refuse("nice", format!("{nice} is not between -20 and 19"));
    }
    let priority = scheduler.priority().unwrap_or(0);
    if matches!(policy, SchedFifo | SchedRr) {
        if !(1..=99).contains(&priority) {
            return refuse("priority", format!("{priority} is not between 1 and 99, as `{policy}` needs"));
        }
    } else if priority != 0 {
        return refuse("priority", "is only for SCHED_FIFO and SCHED_RR".into());
    }
    let times = [("runtime", scheduler.runtime()), ("deadline", scheduler.deadline()), ("period", scheduler.period())];
    if policy != SchedDeadline {
        return match times.into_iter().find(|(_, time)| time.is_some_and(|time| time != 0)) {
            Some((name, _)) => refuse(name, "is only for SCHED_DEADLINE".into()),
            None => Ok(()),
        };
    }
    let [runtime, deadline, period] = times.map(|(_, time)| time.unwrap_or(0));
    // A kernel granule is 1024 ns; the top bit would overflow its arithmetic (`__checkparam_dl`).
    if runtime < 1024 {
        return refuse("runtime", format!("{runtime} ns is below the kernel's 1024"));
    }
    if deadline < runtime || deadline >= 1 << 63 {
        return refuse("deadline", format!("{deadline} ns is below the runtime or too large"));
    }
    if period != 0 && (period < deadline || period >= 1 << 63) {
        return refuse("period", format!("{period} ns is below the deadline or too large"));
    }
    Ok(())
}
