//! The capability sets of the calling thread, as bit masks.

use super::{Result, check};

/// `struct __user_cap_header_struct` of `<linux/capability.h>`.
#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

/// `_LINUX_CAPABILITY_VERSION_3`, of the calling thread: two data elements of three words each.
const HEADER: Header = Header { version: 0x2008_0522, pid: 0 };

/// `capget(2)`: the effective, permitted and inheritable masks.
///
/// # Errors
/// As `capget(2)`.
pub fn capget() -> Result<(u64, u64, u64)> {
    let (mut header, mut data) = (HEADER, [0_u32; 6]);
    // SAFETY: for version 3 the kernel writes two elements of three words each, which `data` holds.
    check(unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) })?;
    let join = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    Ok((join(data[0], data[3]), join(data[1], data[4]), join(data[2], data[5])))
}

/// `capset(2)`: sets the effective, permitted and inheritable masks.
///
/// # Errors
/// `EPERM` for a capability that may not be gained.
pub fn capset(effective: u64, permitted: u64, inheritable: u64) -> Result<()> {
    let header = HEADER;
    let low = |mask: u64| mask as u32;
    let high = |mask: u64| (mask >> 32) as u32;
    let data = [low(effective), low(permitted), low(inheritable), high(effective), high(permitted), high(inheritable)];
    // SAFETY: a version-3 header and its two data elements of three words each.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) }).map(drop)
}
