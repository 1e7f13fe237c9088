//! crun's mount option `idmap=uids=0-1-10#10-100-10;gids=…`, which podman hands on: turned into the members that the runtime
//! spec has for the same (crun(1), "idmap mount options").

use oci_spec::runtime::{Linux, LinuxIdMapping, LinuxIdMappingBuilder, Mount};

/// What the option begins with.
const PREFIX: &str = "idmap=";

/// Whether the mount has the option.
pub(super) fn is_given(mount: &Mount) -> bool {
    mount.options().iter().flatten().any(|word| word.starts_with(PREFIX))
}

/// Turns the option into `idmap`, `uidMappings` and `gidMappings`. One that cannot be read is left for validation to refuse.
pub(super) fn normalise(mount: &mut Mount, linux: Option<&Linux>) {
    let words = mount.options().as_deref().unwrap_or_default();
    let Some(at) = words.iter().position(|word| word.starts_with(PREFIX)) else { return };
    let mut uids = None;
    let mut gids = None;
    for part in words[at][PREFIX.len()..].split(';') {
        let (side, list, outer) = match part.split_once('=') {
            Some(("uids", list)) => (&mut uids, list, linux.and_then(|linux| linux.uid_mappings().as_deref())),
            Some(("gids", list)) => (&mut gids, list, linux.and_then(|linux| linux.gid_mappings().as_deref())),
            _ => return,
        };
        let mappings: Option<Vec<_>> = list.split('#').map(|text| triple(text, outer.unwrap_or_default())).collect();
        if side.is_some() || mappings.is_none() {
            return;
        }
        *side = mappings;
    }
    if uids.is_none() || gids.is_none() {
        return;
    }
    let mut words = words.to_vec();
    words[at] = "idmap".to_owned();
    mount.set_options(Some(words)).set_uid_mappings(uids).set_gid_mappings(gids);
}

/// `DISK-HOST-SIZE`; after an `@`, HOST is moved by as much as the container's user namespace moves DISK.
fn triple(text: &str, outer: &[LinuxIdMapping]) -> Option<LinuxIdMapping> {
    let (text, relative) = text.strip_prefix('@').map_or((text, false), |text| (text, true));
    let numbers: Vec<u32> = text.split('-').map(|number| number.parse().ok()).collect::<Option<_>>()?;
    let &[disk, mut host, size] = numbers.as_slice() else { return None };
    if relative {
        let around = outer
            .iter()
            .find(|mapping| disk.checked_sub(mapping.container_id()).is_some_and(|offset| offset < mapping.size()))?;
        let moved = i64::from(host) + i64::from(around.host_id()) - i64::from(around.container_id());
        host = u32::try_from(moved).ok()?;
    }
    LinuxIdMappingBuilder::default().container_id(disk).host_id(host).size(size).build().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normalised(option: &str) -> Mount {
        let linux = serde_json::json!({
            "uidMappings": [{"containerID": 0, "hostID": 0, "size": 1}, {"containerID": 1, "hostID": 2, "size": 1000}],
            "gidMappings": [{"containerID": 0, "hostID": 5, "size": 1000}],
        });
        let linux: Linux = serde_json::from_value(linux).unwrap();
        let mut mount = Mount::default();
        mount.set_options(Some(vec!["bind".into(), option.into(), "ro".into()]));
        normalise(&mut mount, Some(&linux));
        mount
    }

    #[test]
    fn the_option_becomes_mappings() {
        let mount = normalised("idmap=uids=0-1-10#10-100-5;gids=@7-3-10");
        assert_eq!(mount.options().as_deref().unwrap(), ["bind", "idmap", "ro"]);
        let numbers = |mappings: &Option<Vec<LinuxIdMapping>>| {
            let mappings = mappings.iter().flatten();
            mappings.map(|it| (it.container_id(), it.host_id(), it.size())).collect::<Vec<_>>()
        };
        assert_eq!(numbers(mount.uid_mappings()), [(0, 1, 10), (10, 100, 5)]);
        assert_eq!(numbers(mount.gid_mappings()), [(7, 8, 10)]);
        // The manual page's own example.
        assert_eq!(numbers(normalised("idmap=uids=@1-3-10;gids=0-0-1").uid_mappings()), [(1, 4, 10)]);
    }

    #[test]
    fn what_cannot_be_read_stays() {
        for option in [
            "idmap=",
            "idmap=uids=0-1-10",
            "idmap=uids=0-1;gids=0-1-2",
            "idmap=uids=0-1-10;gids=a-1-2",
            "idmap=uids=0-1-10;gids=@5000-1-2",
            "idmap=uids=0-1-10;uids=0-1-10",
            "idmap=uids=0-1-10;gids=0-1-10;pids=1-1-1",
        ] {
            let mount = normalised(option);
            assert_eq!(mount.options().as_deref().unwrap()[1], option);
            assert!(mount.uid_mappings().is_none() && mount.gid_mappings().is_none(), "{option}");
        }
    }
}
