//! `linux.netDevices`: the host's interfaces change to the container's network namespace while init waits.

use std::collections::HashMap;
use std::os::fd::AsFd;

use oci_spec::runtime::{LinuxNetDevice, Spec};

use crate::error::{At, Error, Result};
use crate::init::channel::{Channel, Message, failure};
use crate::init::net_devices::{configure, move_all, names_are_free};
use crate::init::procfs::Procfs;
use crate::sys::clone::{CloneArgs, clone3};
use crate::sys::{pidfd, process};

/// The interfaces that the container gets, where it gets any.
pub fn wanted(spec: &Spec) -> Option<&HashMap<String, LinuxNetDevice>> {
    spec.linux().as_ref()?.net_devices().as_ref().filter(|devices| !devices.is_empty())
}

/// Moves the interfaces into the network namespace of `init` and configures them there.
///
/// A child of its own does it: the creator, which still has hooks to run, never leaves its namespace. Interfaces that
/// were moved before one fails go back, or away, with the container's namespace, as the kernel has it.
///
/// # Errors
/// As [`move_all`] and [`configure`], naming the interface.
pub(super) fn attach(devices: &HashMap<String, LinuxNetDevice>, procfs: &Procfs, init: libc::pid_t) -> Result<()> {
    // Not through `Procfs::open_file`, which follows no magic link: this one is the kernel's own.
    let name = crate::sys::path::c_path(format!("{init}/ns/net")).at("name", init)?;
    let target =
        crate::sys::path::openat(procfs.as_fd(), &name, libc::O_RDONLY, 0).at("open the network namespace of", init)?;
    let home = crate::sys::path::openat(procfs.as_fd(), c"self/ns/net", libc::O_RDONLY, 0)
        .at("open", "the runtime's network namespace")?;
    let (ours, theirs) = Channel::pair()?;
    let child = clone3(CloneArgs::default(), || {
        let enter =
            || process::setns(target.as_fd(), libc::CLONE_NEWNET).at("join", "the container's network namespace");
        let leave = || process::setns(home.as_fd(), libc::CLONE_NEWNET).at("join", "the runtime's network namespace");
        // The kernel moves an interface first and renames it then: one whose new name is taken would be lost.
        let done = enter()
            .and_then(|()| names_are_free(devices))
            .and_then(|()| leave())
            .and_then(|()| move_all(devices, target.as_fd()))
            .and_then(|moved| enter().and_then(|()| configure(&moved)));
        match done.and_then(|()| theirs.send(&Message::Ready)) {
            Ok(()) => 0,
            Err(error) => {
                let _ = theirs.send(&failure(&error));
                1
            }
        }
    })
    .at("clone", "the process that moves network devices")?;
    drop(theirs);
    let heard = ours.receive();
    pidfd::wait(child.pidfd.as_fd(), true).at("wait for", "the process that moves network devices")?;
    match heard? {
        Some(Message::Ready) => Ok(()),
        Some(Message::Failed(errno, text)) => Err(Error::Init { errno, text }),
        _ => Err(Error::Other("the process that moves network devices has ended".to_owned())),
    }
}
