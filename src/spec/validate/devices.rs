//! `linux.devices`.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use oci_spec::runtime::{LinuxDevice, LinuxDeviceType};

use crate::error::{Error, Result};

/// The kernel's device numbers: 12 bits of major, 20 of minor.
const MAX_MAJOR: i64 = (1 << 12) - 1;
const MAX_MINOR: i64 = (1 << 20) - 1;

pub(super) fn check(devices: &[LinuxDevice]) -> Result<()> {
    for (index, device) in devices.iter().enumerate() {
        let refuse = |member: &str, why: String| Err(Error::config(format!("$.linux.devices[{index}].{member}"), why));
        let path = device.path();
        if !path.is_absolute() {
            return refuse("path", "is not an absolute path".into());
        }
        if path == Path::new("/") || path.as_os_str().as_bytes().contains(&0) {
            return refuse("path", "is not the path of a file".into());
        }
        match device.typ() {
            LinuxDeviceType::A => return refuse("type", "`a` is not the type of a device".into()),
            LinuxDeviceType::P => {}
            _ => {
                for (name, number, max) in [("major", device.major(), MAX_MAJOR), ("minor", device.minor(), MAX_MINOR)]
                {
                    if !(0..=max).contains(&number) {
                        return refuse(name, format!("{number} is not between 0 and {max}"));
                    }
                }
            }
        }
        // Engines hand on the whole `st_mode`; its type bits say nothing new.
        if device.file_mode().is_some_and(|mode| mode & !(libc::S_IFMT | 0o7777) != 0) {
            return refuse("fileMode", "has bits beyond 07777 (4095)".into());
        }
        let same_node = |other: &LinuxDevice| {
            (other.typ(), other.major(), other.minor()) == (device.typ(), device.major(), device.minor())
        };
        if devices[..index].iter().any(|other| other.path() == path && !same_node(other)) {
            return refuse("path", format!("`{}` is given twice, with different devices", path.display()));
        }
    }
    Ok(())
}
