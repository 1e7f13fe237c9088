//! `linux.netDevices`: interfaces of the host that move into the container's network namespace.
//!
//! libcontainer's netlink client does the talking. The kernel takes an interface down and its addresses away when it
//! changes namespaces; the permanent global ones are given back inside, as the specification wants.

use std::collections::HashMap;
use std::os::fd::{AsRawFd, BorrowedFd};

use libcontainer::network::NetworkError;
use libcontainer::network::address::AddressClient;
use libcontainer::network::cidr::CidrAddress;
use libcontainer::network::link::LinkClient;
use libcontainer::network::network_device::{
    dev_change_net_namespace, resolve_device_name, setup_addresses_in_network_namespace,
};
use libcontainer::network::wrapper::create_network_client;
use oci_spec::runtime::LinuxNetDevice;

use crate::error::{Error, Result};
use crate::sys::Errno;

/// The longest name of an interface, in bytes (`IFNAMSIZ` without the NUL).
const NAME_LIMIT: usize = 15;

/// An interface that has been moved and is not yet configured.
#[derive(Debug)]
pub struct Moved {
    name: String,
    addresses: Vec<CidrAddress>,
}

/// Checks the names, sorted so that every run moves them in one order. Pure.
///
/// # Errors
/// [`Error::Config`] for a name that no interface can have, or two that would be the same inside.
pub fn plan(devices: &HashMap<String, LinuxNetDevice>) -> Result<Vec<(&String, &LinuxNetDevice)>> {
    let mut sorted: Vec<_> = devices.iter().collect();
    sorted.sort_unstable_by_key(|(name, _)| *name);
    let mut inside: Vec<&str> = Vec::new();
    for (name, device) in &sorted {
        let new_name = resolve_device_name(device, name);
        for (part, word) in [(name.as_str(), "is"), (new_name, "has as `name`")] {
            let bad = part.is_empty() || part.len() > NAME_LIMIT || part == "." || part == "..";
            if bad || part.contains(['/', ':', '%', '\0']) || part.contains(char::is_whitespace) {
                return Err(Error::config(
                    format!("$.linux.netDevices.{name}"),
                    format!("{word} no valid interface name"),
                ));
            }
        }
        if inside.contains(&new_name) {
            return Err(Error::config(format!("$.linux.netDevices.{name}"), "has a name that another one has"));
        }
        inside.push(new_name);
    }
    Ok(sorted)
}

/// Checks that no interface of the caller's namespace, the target, has one of the names that the moved ones will have.
///
/// # Errors
/// `EEXIST` for a name that is taken; as netlink says.
pub fn names_are_free(devices: &HashMap<String, LinuxNetDevice>) -> Result<()> {
    for (name, device) in plan(devices)? {
        let mut links = LinkClient::new(create_network_client()).map_err(|error| failed("look for", name, &error))?;
        if links.get_by_name(resolve_device_name(device, name)).is_ok() {
            return Err(Error::sys("move network device", name, Errno::EEXIST));
        }
    }
    Ok(())
}

/// Moves the interfaces into the namespace of `target`. The caller is in the namespace that they are in, privileged in both.
///
/// # Errors
/// `ENODEV` for an interface that is not there, `EPERM`, `EEXIST` for a name that is taken inside.
pub fn move_all(devices: &HashMap<String, LinuxNetDevice>, target: BorrowedFd<'_>) -> Result<Vec<Moved>> {
    plan(devices)?
        .into_iter()
        .map(|(name, device)| {
            let addresses = dev_change_net_namespace(name, target.as_raw_fd(), device)
                .map_err(|error| failed("move network device", name, &error))?;
            Ok(Moved { name: resolve_device_name(device, name).to_owned(), addresses })
        })
        .collect()
}

/// Gives the moved interfaces their addresses back and brings them up. The caller is in the target namespace.
///
/// # Errors
/// As netlink says.
pub fn configure(moved: &[Moved]) -> Result<()> {
    if moved.is_empty() {
        return Ok(());
    }
    let fail = |name: &str| {
        let name = name.to_owned();
        move |error: NetworkError| failed("configure network device", &name, &error)
    };
    for device in moved {
        let name = &device.name;
        let mut links = LinkClient::new(create_network_client()).map_err(fail(name))?;
        let mut addresses = AddressClient::new(create_network_client()).map_err(fail(name))?;
        let index = links.get_by_name(name).map_err(fail(name))?.header.index;
        setup_addresses_in_network_namespace(&device.addresses, index, name, &mut addresses).map_err(fail(name))?;
        links.set_up(index).map_err(fail(name))?;
    }
    Ok(())
}

fn failed(step: &'static str, name: &str, error: &NetworkError) -> Error {
    match error {
        NetworkError::Nix(errno) => Error::sys(step, name, Errno::from_raw(*errno as i32)),
        NetworkError::IO(error) => Error::io(step, name, error),
        other => Error::Other(format!("{step} `{name}`: {other}")),
    }
}
