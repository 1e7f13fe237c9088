//! Namespaces as the kernel tells them apart.

use std::os::fd::{AsRawFd, BorrowedFd};

use super::{Result, check};

/// `NS_GET_MNTNS_ID` of `linux/nsfs.h`: `_IOR(0xb7, 5, __u64)`.
const GET_MOUNT_NAMESPACE_ID: libc::c_ulong = 0x8008_b705;

/// The number of a mount namespace, given out once per boot, unlike the inode number, which the next one may have.
///
/// # Errors
/// `ENOTTY` before Linux 6.11, and where `namespace` is no mount namespace.
pub fn mount_namespace_id(namespace: BorrowedFd<'_>) -> Result<u64> {
    let mut id = 0_u64;
    // SAFETY: a valid descriptor and eight bytes, which the kernel writes.
    check(unsafe { libc::ioctl(namespace.as_raw_fd(), GET_MOUNT_NAMESPACE_ID, &raw mut id) }.into())?;
    Ok(id)
}
