//! Which processors this process runs on.

use nix::sched::{sched_getaffinity, sched_getcpu, sched_setaffinity};
use nix::unistd::Pid;

use super::Result;

/// The processor that the caller is on.
///
/// # Errors
/// As `getcpu(2)`.
pub fn current() -> Result<usize> {
    sched_getcpu()
}

/// Goes to another processor at once, and may come back. What is cloned afterwards inherits the mask that this sets, the
/// caller's own, as one that was asked for: a cpuset that is given more processors later gives it no more (Linux 6.2).
///
/// # Errors
/// As `sched_setaffinity(2)`: `EINVAL` where there is no other.
pub fn step_aside() -> Result<()> {
    let caller = Pid::from_raw(0);
    let all = sched_getaffinity(caller)?;
    let mut others = all;
    others.unset(current()?)?;
    sched_setaffinity(caller, &others)?;
    sched_setaffinity(caller, &all)
}
