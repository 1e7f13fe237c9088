//! The container's session keyring.

use std::ffi::CString;

use nix::errno::Errno;

use crate::error::{At, Error, Result};
use crate::sys::{attributes, process};

/// KEY_USR_SEARCH: lets the container's user find keys in its own session keyring.
const USER_SEARCH: u32 = 0x0008_0000;

/// Joins a new session keyring named `_ses.<id>`, so that the container does not share the caller's keys.
/// The name is the one that other runtimes use, because `keyctl` shows it.
///
/// A kernel without keyrings (ENOSYS) and a full quota (EDQUOT, one key per container counts against the user)
/// are tolerated, as runc does: the container then keeps the caller's session keyring. Returns whether it joined.
///
/// # Errors
/// As `keyctl(2)`.
pub fn join(id: &str) -> Result<bool> {
    let name = format!("_ses.{id}");
    let c_name = CString::new(name.as_str()).map_err(|_| Error::state(id, "has a NUL byte in its name"))?;
    let serial = match process::join_session_keyring(&c_name) {
        Ok(serial) => serial,
        Err(Errno::ENOSYS | Errno::EDQUOT) => return Ok(false),
        Err(errno) => return Err(Error::sys("join session keyring", name, errno)),
    };
    let mask = attributes::key_permissions(serial).at("describe keyring", &name)?;
    attributes::set_key_permissions(serial, mask | USER_SEARCH).at("set permissions of keyring", &name)?;
    Ok(true)
}
