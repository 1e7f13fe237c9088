//! Refusing an invalid configuration before anything is made, with the JSON path of the fault.
//!
//! One file per area of the runtime spec. Everything here is pure but for [`Host`], whose facts are looked up when
//! a rule first needs them.

mod cgroup;
mod devices;
mod host;
mod id;
mod linux;
mod mounts;
mod namespaces;
mod process;
mod resources;
mod seccomp;

use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use oci_spec::runtime::{Hook, Spec};

pub use host::{Fact, Host};
pub use id::validate_id;
pub use linux::PERSONALITY_FLAGS;
pub use process::validate_process;
pub use resources::validate_resources;

use super::load::member;
use crate::error::{Error, Result};
use namespaces::Namespaces;

/// Refuses a configuration that is invalid, or that asks for what the host's kernel does not have.
///
/// A configuration without `process` is valid: it can be created but not started (see [`super::process`]).
///
/// # Errors
/// [`Error::Config`] for the first fault found, in the order of the runtime spec.
pub fn validate(spec: &Spec, host: &Host) -> Result<()> {
    root(spec)?;
    let linux = spec.linux().as_ref();
    let namespaces = Namespaces::check(linux, host)?;
    if let Some(process) = spec.process() {
        validate_process(process, "$.process", host)?;
        namespaces.check_user(process.user())?;
    }
    names(spec, &namespaces)?;
    mounts::check(spec, &namespaces, host)?;
    hooks(spec)?;
    annotations(spec.annotations().as_ref())?;
    linux.map_or(Ok(()), |linux| linux::check(linux, &namespaces, host))
}

fn root(spec: &Spec) -> Result<()> {
    let Some(root) = spec.root() else {
        return Err(Error::config("$.root", "is missing"));
    };
    if root.path().as_os_str().is_empty() {
        return Err(Error::config("$.root.path", "is empty"));
    }
    no_nul("$.root.path", root.path())
}

/// `hostname` and `domainname`, in bytes: `__NEW_UTS_LEN` of the kernel is 64.
fn names(spec: &Spec, namespaces: &Namespaces) -> Result<()> {
    for (pointer, name) in [("$.hostname", spec.hostname()), ("$.domainname", spec.domainname())] {
        let Some(name) = name.as_deref().filter(|name| !name.is_empty()) else { continue };
        if name.len() > 64 {
            return Err(Error::config(pointer, format!("has {} bytes; the kernel takes 64", name.len())));
        }
        no_nul(pointer, name)?;
        if !namespaces.uts {
            return Err(Error::config(pointer, "needs a UTS namespace, or it would rename the host"));
        }
    }
    Ok(())
}

#[allow(deprecated, reason = "deprecated in the spec, yet runtimes must run prestart hooks")]
fn hooks(spec: &Spec) -> Result<()> {
    let Some(hooks) = spec.hooks() else { return Ok(()) };
    let points = [
        ("prestart", hooks.prestart()),
        ("createRuntime", hooks.create_runtime()),
        ("createContainer", hooks.create_container()),
        ("startContainer", hooks.start_container()),
        ("poststart", hooks.poststart()),
        ("poststop", hooks.poststop()),
    ];
    for (point, hooks) in points {
        for (index, hook) in hooks.iter().flatten().enumerate() {
            self::hook(hook, || format!("$.hooks.{point}[{index}]"))?;
        }
    }
    Ok(())
}

fn hook(hook: &Hook, at: impl Fn() -> String) -> Result<()> {
    if !hook.path().is_absolute() {
        return Err(Error::config(at() + ".path", "is not an absolute path"));
    }
    if hook.path().as_os_str().as_bytes().contains(&0) {
        return Err(Error::config(at() + ".path", "has a NUL byte"));
    }
    for (index, word) in hook.args().iter().flatten().enumerate() {
        if word.contains('\0') {
            return Err(Error::config(format!("{}.args[{index}]", at()), "has a NUL byte"));
        }
    }
    for (index, entry) in hook.env().iter().flatten().enumerate() {
        environment_entry(entry).map_err(|why| Error::config(format!("{}.env[{index}]", at()), why))?;
    }
    if hook.timeout().is_some_and(|seconds| seconds <= 0) {
        return Err(Error::config(at() + ".timeout", "is not above zero"));
    }
    Ok(())
}

fn annotations(annotations: Option<&HashMap<String, String>>) -> Result<()> {
    if annotations.is_some_and(|annotations| annotations.contains_key("")) {
        return Err(Error::config("$.annotations['']", "has an empty key"));
    }
    Ok(())
}

/// An entry of the environment: `NAME=VALUE` (environ(7)).
fn environment_entry(entry: &str) -> Result<(), &'static str> {
    match entry.find('=') {
        None => Err("has no `=`"),
        Some(0) => Err("has an empty name"),
        Some(_) if entry.contains('\0') => Err("has a NUL byte"),
        Some(_) => Ok(()),
    }
}

fn no_nul(pointer: &str, text: impl AsRef<Path>) -> Result<()> {
    if text.as_ref().as_os_str().as_bytes().contains(&0) {
        return Err(Error::config(pointer, "has a NUL byte"));
    }
    Ok(())
}

/// The members of a map by key, so that of several faults always the same one is named.
fn sorted<V>(map: &HashMap<String, V>) -> Vec<(&String, &V)> {
    let mut members: Vec<_> = map.iter().collect();
    members.sort_unstable_by_key(|(key, _)| *key);
    members
}
