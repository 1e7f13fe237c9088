//! The loopback interface of a new network namespace.

use crate::error::{At, Result};

/// Brings `lo` up: three system calls. The kernel gives it 127.0.0.1/8 and ::1 by itself when it comes up.
///
/// # Errors
/// `EPERM` without CAP_NET_ADMIN in the namespace's user namespace.
pub fn up() -> Result<()> {
    crate::sys::attributes::interface_up(c"lo").at("bring up", "lo")
}
