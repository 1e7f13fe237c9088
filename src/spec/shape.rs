//! What the runtime spec requires and the types of `oci-spec` let pass.
//!
//! `oci-spec` fills a missing member with a default where Go's types do: a limit without `hard` becomes a limit of
//! zero, a mapping without `size` an empty one. Once parsed the difference is lost, so these few members are looked
//! at in the text itself, in a pass that skips everything else. The same pass sees sections for other platforms.

use std::collections::HashMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::error::{Error, Result};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Config {
    pub oci_version: Option<String>,
    #[serde(rename = "root")]
    _root: Option<Root>,
    #[serde(rename = "process")]
    _process: Option<Process>,
    #[serde(rename = "mounts")]
    _mounts: Option<Vec<Mount>>,
    linux: Option<Linux>,
    solaris: Option<IgnoredAny>,
    windows: Option<IgnoredAny>,
    vm: Option<IgnoredAny>,
    zos: Option<IgnoredAny>,
    freebsd: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Root {
    #[serde(rename = "path")]
    _path: IgnoredAny,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Process {
    #[serde(rename = "consoleSize")]
    _console_size: Option<ConsoleSize>,
    #[serde(rename = "rlimits")]
    _rlimits: Option<Vec<Rlimit>>,
    #[serde(rename = "ioPriority")]
    _io_priority: Option<IoPriority>,
}

#[derive(Deserialize)]
struct ConsoleSize {
    #[serde(rename = "height")]
    _height: IgnoredAny,
    #[serde(rename = "width")]
    _width: IgnoredAny,
}

#[derive(Deserialize)]
struct Rlimit {
    #[serde(rename = "type")]
    _typ: IgnoredAny,
    #[serde(rename = "soft")]
    _soft: IgnoredAny,
    #[serde(rename = "hard")]
    _hard: IgnoredAny,
}

#[derive(Deserialize)]
struct IoPriority {
    #[serde(rename = "class")]
    _class: IgnoredAny,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mount {
    #[serde(rename = "uidMappings")]
    _uid_mappings: Option<Vec<IdMapping>>,
    #[serde(rename = "gidMappings")]
    _gid_mappings: Option<Vec<IdMapping>>,
}

#[derive(Deserialize)]
struct IdMapping {
    #[serde(rename = "containerID")]
    _container_id: IgnoredAny,
    #[serde(rename = "hostID")]
    _host_id: IgnoredAny,
    #[serde(rename = "size")]
    _size: IgnoredAny,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Linux {
    #[serde(rename = "uidMappings")]
    _uid_mappings: Option<Vec<IdMapping>>,
    #[serde(rename = "gidMappings")]
    _gid_mappings: Option<Vec<IdMapping>>,
    devices: Option<Vec<Device>>,
    #[serde(rename = "resources")]
    _resources: Option<Resources>,
}

#[derive(Deserialize)]
struct Device {
    #[serde(rename = "path")]
    _path: IgnoredAny,
    #[serde(rename = "type")]
    typ: Option<String>,
    major: Option<IgnoredAny>,
    minor: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Resources {
    #[serde(rename = "devices")]
    _devices: Option<Vec<DeviceRule>>,
    #[serde(rename = "blockIO")]
    _block_io: Option<BlockIo>,
    #[serde(rename = "hugepageLimits")]
    _hugepage_limits: Option<Vec<HugepageLimit>>,
    #[serde(rename = "network")]
    _network: Option<Network>,
    #[serde(rename = "rdma")]
    _rdma: Option<HashMap<String, IgnoredAny>>,
}

#[derive(Deserialize)]
struct DeviceRule {
    #[serde(rename = "allow")]
    _allow: IgnoredAny,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BlockIo {
    #[serde(rename = "weightDevice")]
    _weight: Option<Vec<DeviceNumber>>,
    #[serde(rename = "throttleReadBpsDevice")]
    _read_bps: Option<Vec<DeviceNumber>>,
    #[serde(rename = "throttleWriteBpsDevice")]
    _write_bps: Option<Vec<DeviceNumber>>,
    #[serde(rename = "throttleReadIOPSDevice")]
    _read_iops: Option<Vec<DeviceNumber>>,
    #[serde(rename = "throttleWriteIOPSDevice")]
    _write_iops: Option<Vec<DeviceNumber>>,
}

#[derive(Deserialize)]
struct DeviceNumber {
    #[serde(rename = "major")]
    _major: IgnoredAny,
    #[serde(rename = "minor")]
    _minor: IgnoredAny,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct HugepageLimit {
    #[serde(rename = "pageSize")]
    _page_size: IgnoredAny,
    #[serde(rename = "limit")]
    _limit: IgnoredAny,
}

#[derive(Deserialize)]
struct Network {
    #[serde(rename = "priorities")]
    _priorities: Option<Vec<Priority>>,
}

#[derive(Deserialize)]
struct Priority {
    #[serde(rename = "name")]
    _name: IgnoredAny,
    #[serde(rename = "priority")]
    _priority: IgnoredAny,
}

impl Config {
    /// The rules that are not the mere presence of a member.
    pub fn check(&self) -> Result<()> {
        let sections = [
            ("solaris", &self.solaris),
            ("windows", &self.windows),
            ("vm", &self.vm),
            ("zos", &self.zos),
            ("freebsd", &self.freebsd),
        ];
        // What another platform's section asks for would silently not be given: "Runtimes MUST generate an error
        // when […] unsupported values are encountered" (config, "Valid values").
        if let Some((name, _)) = sections.into_iter().find(|(_, section)| section.is_some()) {
            return Err(Error::config(format!("$.{name}"), "is for another platform; this runtime runs on Linux"));
        }
        let devices = self.linux.iter().flat_map(|linux| &linux.devices).flatten();
        for (index, device) in devices.enumerate() {
            // Without a type it is that which is missing, as the next pass will say.
            if matches!(device.typ.as_deref(), None | Some("p")) {
                continue;
            }
            for (name, number) in [("major", &device.major), ("minor", &device.minor)] {
                if number.is_none() {
                    return Err(Error::config(format!("$.linux.devices[{index}].{name}"), "is missing"));
                }
            }
        }
        Ok(())
    }
}
