//! `mounts`.

use oci_spec::runtime::{Mount, Spec};

use super::namespaces::{Namespaces, check_mappings};
use super::{Fact, Host, no_nul};
use crate::error::{Error, Result};
use crate::spec::mount_options::MountOptions;

/// Checks `mounts` and whether the root file system can be changed at all.
pub(super) fn check(spec: &Spec, namespaces: &Namespaces, host: &Host) -> Result<()> {
    let mounts = spec.mounts().as_deref().unwrap_or_default();
    if !namespaces.mount {
        // Mounting in the runtime's own namespace would leave the mounts on the host.
        const WHY: &str = "needs a mount namespace";
        if !mounts.is_empty() {
            return Err(Error::config("$.mounts", WHY));
        }
        if spec.root().as_ref().is_some_and(|root| root.readonly() == Some(true)) {
            return Err(Error::config("$.root.readonly", WHY));
        }
    }
    for (index, mount) in mounts.iter().enumerate() {
        self::mount(mount, &format!("$.mounts[{index}]"), namespaces, host)?;
    }
    Ok(())
}

fn mount(mount: &Mount, at: &str, namespaces: &Namespaces, host: &Host) -> Result<()> {
    let refuse = |member: &str, why: &str| Err(Error::config(format!("{at}.{member}"), why));
    // A relative destination is deprecated, yet valid: it "MUST be interpreted as relative to `/`" (config, "Mounts").
    if mount.destination().as_os_str().is_empty() {
        return refuse("destination", "is empty");
    }
    no_nul(&format!("{at}.destination"), mount.destination())?;
    if let Some(source) = mount.source() {
        no_nul(&format!("{at}.source"), source)?;
    }
    let words = mount.options().as_deref().unwrap_or_default();
    if let Some(index) = words.iter().position(|word| word.contains('\0')) {
        return refuse(&format!("options[{index}]"), "has a NUL byte");
    }
    if let Some(index) = words.iter().position(|word| word.starts_with("idmap=")) {
        return refuse(&format!("options[{index}]"), "is not `idmap=uids=DISK-HOST-SIZE;gids=DISK-HOST-SIZE`");
    }
    let options = MountOptions::parse(words);
    let kind = mount.typ().as_deref().unwrap_or_default();
    if kind.contains('\0') {
        return refuse("type", "has a NUL byte");
    }
    // The way of mount(8) and of old configurations to say it.
    let bind = options.is_bind() || kind == "bind";
    let changes = options.flags & libc::MS_REMOUNT != 0 || !options.propagation.is_empty();
    if bind && mount.source().as_ref().is_none_or(|source| source.as_os_str().is_empty()) {
        return refuse("source", "is missing, and a bind mount needs it");
    }
    if !bind && !changes && matches!(kind, "" | "none") {
        return refuse("type", "is missing, and this is not a bind mount");
    }
    let word = |names: &[&str]| {
        let index = words.iter().position(|word| names.contains(&word.as_str())).unwrap_or_default();
        format!("options[{index}]")
    };
    if options.tmpcopyup && (bind || kind != "tmpfs") {
        return refuse(&word(&["tmpcopyup"]), "is for tmpfs only");
    }
    id_mappings(mount, at, bind, options.idmap.is_some(), &word(&["idmap", "ridmap"]), namespaces, host)?;
    if !host.has(Fact::Root) && !bind {
        unmapped_owner(words, at, namespaces)?;
    }
    Ok(())
}

fn id_mappings(
    mount: &Mount,
    at: &str,
    bind: bool,
    asked: bool,
    word: &str,
    namespaces: &Namespaces,
    host: &Host,
) -> Result<()> {
    let refuse = |member: &str, why: &str| Err(Error::config(format!("{at}.{member}"), why));
    let uids = mount.uid_mappings().as_deref().unwrap_or_default();
    let gids = mount.gid_mappings().as_deref().unwrap_or_default();
    if uids.is_empty() != gids.is_empty() {
        let missing = if uids.is_empty() { "uidMappings" } else { "gidMappings" };
        return refuse(missing, "is missing, while the other side is given");
    }
    let given = !uids.is_empty();
    if !given && !asked {
        return Ok(());
    }
    let place = if given { "uidMappings" } else { word };
    if !bind {
        return refuse(place, "is for bind mounts only");
    }
    if !host.has(Fact::Root) {
        return refuse(place, "needs a caller that is root");
    }
    if !given && !namespaces.user {
        return refuse(word, "has neither mappings nor a user namespace to take them from");
    }
    check_mappings(&format!("{at}.uidMappings"), uids)?;
    check_mappings(&format!("{at}.gidMappings"), gids)
}

/// A rootless caller's file systems cannot belong to ids that its namespace does not map: mount(2) says only EINVAL.
fn unmapped_owner(words: &[String], at: &str, namespaces: &Namespaces) -> Result<()> {
    for (index, word) in words.iter().enumerate() {
        let Some((name @ ("uid" | "gid"), Ok(id))) = word.split_once('=').map(|(name, id)| (name, id.parse())) else {
            continue;
        };
        if !namespaces.maps(name == "uid", id) {
            return Err(Error::config(
                format!("{at}.options[{index}]"),
                format!("`{word}` is an id that is not mapped"),
            ));
        }
    }
    Ok(())
}
