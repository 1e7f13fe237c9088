//! Init's way into the container's cgroups, which the creator makes meanwhile.

use crate::cgroup;
use crate::error::{At, Error, Result};
use crate::init::channel::{Channel, Message};
use crate::init::creator_ended;
use crate::sys::process as calls;

/// Enters the cgroups when they have been made; gives those that the payload enters.
///
/// `own_namespace`: init makes its own cgroup namespace.
///
/// # Errors
/// Of the system call that fails, or where the creator has ended.
pub(super) fn enter(channel: &Channel, own_namespace: bool) -> Result<cgroup::Entry> {
    let Some((Message::Cgroups(own, payload, into), mut tasks)) = channel.receive_with()? else {
        return Err(creator_ended());
    };
    let (own, payload) = (usize::from(own), usize::from(payload));
    if tasks.len() != own + payload + usize::from(into) {
        return Err(Error::Other("not every way into the cgroups has arrived".to_owned()));
    }
    let into = if into { tasks.pop() } else { None };
    let payload = cgroup::Entry { tasks: tasks.split_off(own), into };
    cgroup::Entry { tasks, into: None }.enter()?;
    if own_namespace {
        // Only now: a cgroup namespace's root is the cgroup that its creator is in.
        calls::unshare(libc::CLONE_NEWCGROUP).at("unshare", "the cgroup namespace")?;
    }
    Ok(payload)
}
