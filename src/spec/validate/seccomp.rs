//! `linux.seccomp`.

use std::os::unix::ffi::OsStrExt;

use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction};

use super::no_nul;
use crate::error::{Error, Result};

/// `sun_path` of a UNIX socket's address, without the terminating zero.
const MAX_SOCKET_PATH: usize = 107;

pub(super) fn check(seccomp: &LinuxSeccomp) -> Result<()> {
    use LinuxSeccompAction::ScmpActNotify;
    let refuse = |member: &str, why: &str| Err(Error::config(format!("$.linux.seccomp.{member}"), why));
    if seccomp.default_action() == ScmpActNotify {
        // The supervisor could not even be told of the sendmsg(2) that hands it the descriptor.
        return refuse("defaultAction", "`SCMP_ACT_NOTIFY` cannot be the default");
    }
    errno("$.linux.seccomp.defaultErrnoRet", seccomp.default_action(), seccomp.default_errno_ret())?;
    let mut notifies = None;
    for (index, call) in seccomp.syscalls().iter().flatten().enumerate() {
        let at = format!("syscalls[{index}]");
        if call.names().is_empty() {
            return refuse(&format!("{at}.names"), "is empty");
        }
        for (position, name) in call.names().iter().enumerate() {
            if name.is_empty() || name.contains('\0') {
                return refuse(&format!("{at}.names[{position}]"), "is not the name of a system call");
            }
            if name == "write" && call.action() == ScmpActNotify {
                return refuse(
                    &format!("{at}.names[{position}]"),
                    "SCMP_ACT_NOTIFY cannot be used for the write syscall: the runtime needs it",
                );
            }
        }
        if call.action() == ScmpActNotify {
            notifies.get_or_insert(index);
        }
        errno(&format!("$.linux.seccomp.{at}.errnoRet"), call.action(), call.errno_ret())?;
        for (position, arg) in call.args().iter().flatten().enumerate() {
            if arg.index() > 5 {
                return refuse(&format!("{at}.args[{position}].index"), "is above 5; a system call has six arguments");
            }
        }
    }
    match (seccomp.listener_path(), notifies) {
        (None, Some(index)) => {
            return refuse(&format!("syscalls[{index}].action"), "`SCMP_ACT_NOTIFY` needs `listenerPath`");
        }
        (Some(path), Some(_)) => {
            let bytes = path.as_os_str().as_bytes();
            no_nul("$.linux.seccomp.listenerPath", path)?;
            if bytes.is_empty() || bytes.len() > MAX_SOCKET_PATH {
                return refuse("listenerPath", "is not the path of a socket, of 1 to 107 bytes");
            }
        }
        // "If the SCMP_ACT_NOTIFY action is not used this value is ignored" (config-linux, "Seccomp").
        (_, None) => {}
    }
    if seccomp.listener_metadata().is_some() && seccomp.listener_path().is_none() {
        return refuse("listenerMetadata", "is set without `listenerPath`");
    }
    Ok(())
}

/// "When the action doesn't support an errno, the runtime MUST print and error and fail" (config-linux, "Seccomp").
fn errno(at: &str, action: LinuxSeccompAction, value: Option<u32>) -> Result<()> {
    let Some(value) = value else { return Ok(()) };
    let max = match action {
        LinuxSeccompAction::ScmpActErrno => 4095,
        LinuxSeccompAction::ScmpActTrace => u32::from(u16::MAX),
        _ => return Err(Error::config(at, format!("is set, but `{action}` returns none"))),
    };
    if value > max {
        return Err(Error::config(at, format!("{value} is above {max}")));
    }
    Ok(())
}
