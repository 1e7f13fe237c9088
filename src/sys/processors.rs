//! Which processors a process runs on.

use nix::sched::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};
use nix::unistd::Pid;

use super::{Errno, Result};

/// The processor that the caller is on.
///
/// # Errors
/// As `getcpu(2)`.
pub fn current() -> Result<usize> {
    sched_getcpu()
}

/// Sends a process that waits for the caller's processor to another one, from where it may come back.
///
/// Since Linux 6.2 a mask that a process was given goes on binding it when its cpuset gets more processors, and its children
/// with it. So it is given every processor that there may ever be, which binds nobody; and nothing is done where the caller,
/// whose mask it has inherited, may not use each that may ever be online: that may have been asked for.
///
/// # Errors
/// As `sched_setaffinity(2)`: `EINVAL` where there is no other processor.
pub fn send_away(process: Pid) -> Result<()> {
    let may_use = sched_getaffinity(Pid::from_raw(0))?;
    if !(0..CpuSet::count()).filter(|cpu| may_use.is_set(*cpu) == Ok(true)).eq(0..possible()?) {
        return Ok(());
    }
    let (mut others, mut every) = (may_use, CpuSet::new());
    others.unset(current()?)?;
    (0..CpuSet::count()).try_for_each(|cpu| every.set(cpu))?;
    sched_setaffinity(process, &others)?;
    sched_setaffinity(process, &every)
}

/// How many processors there may ever be.
fn possible() -> Result<usize> {
    let count = nix::unistd::sysconf(nix::unistd::SysconfVar::_NPROCESSORS_CONF)?;
    count.and_then(|count| usize::try_from(count).ok()).ok_or(Errno::ENOSYS)
}
