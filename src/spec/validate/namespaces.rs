//! `linux.namespaces` and what hangs on them: the id mappings and the time offsets.

use oci_spec::runtime::{Linux, LinuxIdMapping, LinuxNamespaceType, User};

use super::{Fact, Host, member, no_nul, sorted};
use crate::error::{Error, Result};

/// The extents that the kernel takes in one mapping (user_namespaces(7)).
const MAX_EXTENTS: usize = 340;

/// Which namespaces the container has of its own: new ones, or joined ones that the runtime is not in itself.
#[derive(Debug, Default)]
pub(super) struct Namespaces<'a> {
    pub mount: bool,
    pub network: bool,
    pub uts: bool,
    pub user: bool,
    /// The mappings of a user namespace that is made, not joined.
    mappings: Option<(&'a [LinuxIdMapping], &'a [LinuxIdMapping])>,
}

impl<'a> Namespaces<'a> {
    /// Checks the list, the mappings and the time offsets.
    pub fn check(linux: Option<&'a Linux>, host: &Host) -> Result<Self> {
        let list = linux.and_then(|linux| linux.namespaces().as_deref()).unwrap_or_default();
        let mut own = Namespaces::default();
        let (mut user, mut time) = (None, None);
        for (index, namespace) in list.iter().enumerate() {
            let refuse = |member: &str, why: &str| {
                Err(Error::config(format!("$.linux.namespaces[{index}].{member}"), why.to_owned()))
            };
            let kind = namespace.typ();
            if list[..index].iter().any(|other| other.typ() == kind) {
                // The types' own words: `Display` has the names of /proc/<pid>/ns.
                let name = serde_json::to_value(kind).unwrap_or_default();
                return refuse("type", &format!("{name} is given twice"));
            }
            let path = namespace.path().as_deref().filter(|path| !path.as_os_str().is_empty());
            if let Some(path) = path {
                if !path.is_absolute() {
                    return refuse("path", "is not an absolute path");
                }
                no_nul(&format!("$.linux.namespaces[{index}].path"), path)?;
            }
            let missing = match kind {
                LinuxNamespaceType::User => !host.has(Fact::UserNamespace),
                LinuxNamespaceType::Cgroup => !host.has(Fact::CgroupNamespace),
                LinuxNamespaceType::Time => !host.has(Fact::TimeNamespace),
                _ => false,
            };
            if missing {
                return refuse("type", "is a namespace that the host's kernel does not have");
            }
            let separate = |name: &str| !path.is_some_and(|path| host.shares(name, path));
            match kind {
                LinuxNamespaceType::Mount => own.mount = separate("mnt"),
                LinuxNamespaceType::Network => own.network = separate("net"),
                LinuxNamespaceType::Uts => own.uts = separate("uts"),
                LinuxNamespaceType::User => {
                    own.user = true;
                    user = Some(path.is_some());
                }
                LinuxNamespaceType::Time => time = Some(path.is_some()),
                _ => {}
            }
        }
        own.mappings = mappings(linux, user)?;
        time_offsets(linux, time)?;
        if !own.user && !host.has(Fact::Root) {
            return Err(Error::config("$.linux.namespaces", "needs a user namespace where the caller is not root"));
        }
        Ok(own)
    }

    /// Whether the new user namespace maps an id; true where there is none, or a joined one whose maps are not known.
    pub fn maps(&self, user: bool, id: u32) -> bool {
        self.mappings.is_none_or(|(uids, gids)| maps(if user { uids } else { gids }, id))
    }

    /// Refuses ids that a new user namespace does not map: setresuid(2) would, much later.
    pub fn check_user(&self, user: &User) -> Result<()> {
        let Some((uids, gids)) = self.mappings else { return Ok(()) };
        let refuse = |member: String, id: u32, side: &str| {
            let why = format!("{id} is not mapped by `$.linux.{side}`");
            Err(Error::config(format!("$.process.user.{member}"), why))
        };
        if !maps(uids, user.uid()) {
            return refuse("uid".into(), user.uid(), "uidMappings");
        }
        if !maps(gids, user.gid()) {
            return refuse("gid".into(), user.gid(), "gidMappings");
        }
        for (index, gid) in user.additional_gids().iter().flatten().enumerate() {
            if !maps(gids, *gid) {
                return refuse(format!("additionalGids[{index}]"), *gid, "gidMappings");
            }
        }
        Ok(())
    }
}

fn maps(mappings: &[LinuxIdMapping], id: u32) -> bool {
    mappings.iter().any(|extent| id.checked_sub(extent.container_id()).is_some_and(|offset| offset < extent.size()))
}

type Mappings<'a> = (&'a [LinuxIdMapping], &'a [LinuxIdMapping]);

/// `user` says whether there is a user namespace and if so whether it is joined by path.
fn mappings<'a>(linux: Option<&'a Linux>, user: Option<bool>) -> Result<Option<Mappings<'a>>> {
    let side = |name: &str| {
        let list = linux.and_then(|linux| match name {
            "uidMappings" => linux.uid_mappings().as_deref(),
            _ => linux.gid_mappings().as_deref(),
        });
        list.unwrap_or_default()
    };
    let (uids, gids) = (side("uidMappings"), side("gidMappings"));
    for (name, list) in [("uidMappings", uids), ("gidMappings", gids)] {
        let pointer = format!("$.linux.{name}");
        match user {
            None if !list.is_empty() => return Err(Error::config(pointer, "needs a user namespace")),
            Some(false) if list.is_empty() => {
                return Err(Error::config(pointer, "is missing, and a new user namespace needs it"));
            }
            _ => check_mappings(&pointer, list)?,
        }
    }
    match user {
        Some(true) if uids.is_empty() != gids.is_empty() => {
            let missing = if uids.is_empty() { "uidMappings" } else { "gidMappings" };
            Err(Error::config(format!("$.linux.{missing}"), "is missing, while the other side is given"))
        }
        Some(false) => Ok(Some((uids, gids))),
        _ => Ok(None),
    }
}

/// The kernel's rules for a mapping: no empty, wrapping or overlapping extents, on either side.
pub(super) fn check_mappings(pointer: &str, list: &[LinuxIdMapping]) -> Result<()> {
    if list.len() > MAX_EXTENTS {
        return Err(Error::config(pointer, format!("has {} entries; the kernel takes {MAX_EXTENTS}", list.len())));
    }
    type First = fn(&LinuxIdMapping) -> u32;
    let sides: [(&str, First); 2] =
        [("containerID", |extent| extent.container_id()), ("hostID", |extent| extent.host_id())];
    for (index, extent) in list.iter().enumerate() {
        if extent.size() == 0 {
            return Err(Error::config(format!("{pointer}[{index}].size"), "is zero"));
        }
        for (name, first) in sides {
            let end = |extent: &LinuxIdMapping| u64::from(first(extent)) + u64::from(extent.size());
            if end(extent) > u64::from(u32::MAX) {
                return Err(Error::config(format!("{pointer}[{index}].size"), format!("ends beyond the last {name}")));
            }
            let overlaps =
                |other: &LinuxIdMapping| u64::from(first(other)) < end(extent) && u64::from(first(extent)) < end(other);
            if let Some(other) = list[..index].iter().position(overlaps) {
                return Err(Error::config(format!("{pointer}[{index}].{name}"), format!("overlaps entry {other}")));
            }
        }
    }
    Ok(())
}

/// `time` says whether there is a time namespace and if so whether it is joined by path.
fn time_offsets(linux: Option<&Linux>, time: Option<bool>) -> Result<()> {
    const AT: &str = "$.linux.timeOffsets";
    let Some(offsets) = linux.and_then(|linux| linux.time_offsets().as_ref()) else { return Ok(()) };
    if offsets.is_empty() {
        return Ok(());
    }
    match time {
        None => return Err(Error::config(AT, "needs a time namespace")),
        Some(true) => return Err(Error::config(AT, "cannot change a time namespace that is joined by path")),
        Some(false) => {}
    }
    // Half of what the kernel's clock can hold, in seconds (`KTIME_SEC_MAX / 2`).
    const MAX_SECONDS: i64 = i64::MAX / 1_000_000_000 / 2;
    for (clock, offset) in sorted(offsets) {
        let at = || format!("{AT}{}", member(clock));
        if !matches!(clock.as_str(), "boottime" | "monotonic") {
            return Err(Error::config(at(), "is not `boottime` or `monotonic`"));
        }
        if offset.secs().is_some_and(|seconds| !(-MAX_SECONDS..=MAX_SECONDS).contains(&seconds)) {
            return Err(Error::config(at() + ".secs", "is beyond what the clock can hold"));
        }
        if offset.nanosecs().is_some_and(|nanoseconds| nanoseconds > 999_999_999) {
            return Err(Error::config(at() + ".nanosecs", "is a second or more"));
        }
    }
    Ok(())
}
