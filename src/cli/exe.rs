//! The runtime's own binary, as the container may come to see it (CVE-2019-5736).
//!
//! A process that enters a container is, until it executes the program, a process of this binary:
//! `/proc/<pid>/exe` names it, and root in the container could reopen it for writing, or have it executed
//! by naming `/proc/self/exe` as its program. So for a container whose root is the host's root, the
//! runtime first executes itself from a private, detached, read-only mount of its own file: whatever
//! the container reopens cannot be written. Containers with a user namespace of their own do not own the
//! file and do not pay for this.
//!
//! [`protect`] decides it, by the parsed configuration. [`protect_early`] does it before anything has been parsed, where
//! a look at the words suffices: what was done before a program executes itself is done twice.

use std::ffi::{OsStr, OsString};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use oci_spec::runtime::{LinuxNamespaceType, Spec};

use crate::error::{At, Result};
use crate::sys::mount::{MOUNT_ATTR_RDONLY, MountAttr, OPEN_TREE_CLONE, mount_setattr, open_tree};
use crate::sys::{Errno, path, process};

/// Executes this program again from a read-only mount, unless the container needs no such protection
/// or this is already the second time.
///
/// # Errors
/// Where the host offers no way to do so.
pub fn protect(spec: &Spec) -> Result<()> {
    let namespaces = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
    let user_namespace = namespaces.into_iter().flatten().any(|ns| ns.typ() == LinuxNamespaceType::User);
    if user_namespace { Ok(()) } else { execute_read_only() }
}

/// [`protect`] for a command that does not know yet which containers it will make, and cannot begin again later.
///
/// # Errors
/// As [`protect`].
pub fn protect_always() -> Result<()> {
    execute_read_only()
}

/// [`protect`] for a command line that makes a container of the host's root as far as its words tell. It may be wrong
/// either way: the command itself decides, and an error here is one that it meets again and reports.
pub fn protect_early(arguments: &[OsString]) {
    if enters_as_host_root(arguments) {
        let _ = execute_read_only();
    }
}

fn enters_as_host_root(arguments: &[OsString]) -> bool {
    let mut bundle = Path::new(".");
    let mut command = None;
    let mut words = arguments.iter().skip(1).map(|word| word.as_bytes());
    while let Some(word) = words.next() {
        match word {
            b"create" | b"run" | b"exec" if command.is_none() => command = Some(word),
            // What is judged without a bundle has a user namespace.
            b"--" | b"--code" | b"--source" if command == Some(b"run") => return false,
            b"-b" | b"--bundle" => bundle = words.next().map_or(bundle, |dir| Path::new(OsStr::from_bytes(dir))),
            _ => {
                if let Some(dir) = word.strip_prefix(b"--bundle=") {
                    bundle = Path::new(OsStr::from_bytes(dir));
                } else if word.starts_with(b"--code=") || word.starts_with(b"--source=") {
                    return false;
                }
            }
        }
        if command == Some(b"exec") {
            return true;
        }
    }
    command.is_some() && std::fs::read(bundle.join("config.json")).is_ok_and(|text| !names_user_namespace(&text))
}

/// Whether the text has `"type": "user"` somewhere.
fn names_user_namespace(text: &[u8]) -> bool {
    const TYPE: &[u8] = b"\"type\"";
    text.windows(TYPE.len()).enumerate().filter(|(_, window)| *window == TYPE).any(|(at, _)| {
        let value = text[at + TYPE.len()..].trim_ascii_start();
        value.strip_prefix(b":").is_some_and(|value| value.trim_ascii_start().starts_with(b"\"user\""))
    })
}

fn execute_read_only() -> Result<()> {
    const SELF: &std::ffi::CStr = c"/proc/self/exe";
    if !nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    let exe = path::openat(path::CWD, SELF, libc::O_PATH, 0).at("open", "/proc/self/exe")?;
    if path::is_read_only(exe.as_fd()).at("statvfs", "/proc/self/exe")? {
        return Ok(());
    }
    let tree = match open_tree(path::CWD, SELF, OPEN_TREE_CLONE) {
        // Root of a user namespace, which does not own the file in the first place.
        Err(Errno::EPERM) => return Ok(()),
        other => other.at("clone the mount of", "/proc/self/exe")?,
    };
    let read_only = MountAttr { attr_set: MOUNT_ATTR_RDONLY, ..MountAttr::default() };
    mount_setattr(tree.as_fd(), 0, &read_only).at("make read-only", "/proc/self/exe")?;
    let argv = process::StringVector::from_os(std::env::args_os())?;
    let envp = process::StringVector::from_environment(std::env::vars_os())?;
    Err(crate::Error::sys("execute", "/proc/self/exe", process::execve_fd(tree.as_fd(), &argv, &envp)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        std::iter::once("rustbox").chain(line.split_whitespace()).map(OsString::from).collect()
    }

    #[test]
    fn the_words_tell_who_enters_a_container_as_the_hosts_root() {
        let bundles = tempfile::tempdir().unwrap();
        for (name, namespaces) in [("host", r#"{"type":"pid"}"#), ("mapped", "{\n\t\"type\" :\t\"user\"\n}")] {
            std::fs::create_dir(bundles.path().join(name)).unwrap();
            let text = format!(r#"{{"process":{{"user":{{"uid":0}}}},"linux":{{"namespaces":[{namespaces}]}}}}"#);
            std::fs::write(bundles.path().join(name).join("config.json"), text).unwrap();
        }
        let dir = bundles.path().display();
        for (expected, line) in [
            (true, format!("--root r create -b {dir}/host c")),
            (true, format!("run --bundle={dir}/host c")),
            (true, format!("run c --bundle {dir}/host")),
            (true, "exec c true".to_owned()),
            (false, format!("create -b {dir}/mapped c")),
            (false, format!("create -b {dir}/missing c")),
            (false, format!("run -b {dir}/host -- /bin/true")),
            (false, format!("run -b {dir}/host --code=true")),
            (false, format!("state -b {dir}/host c")),
            (false, "--version".to_owned()),
        ] {
            assert_eq!(enters_as_host_root(&words(&line)), expected, "{line}");
        }
    }
}
