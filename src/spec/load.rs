//! Reading `config.json` and the other input documents, with the JSON path of whatever is wrong in them.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxResources, Process, Spec};
use serde::de::DeserializeOwned;

use super::{normalise, shape};
use crate::error::{At, Error, Result};

/// No document may be longer, in bytes. The largest real ones (an engine's seccomp profile included) have 100 KiB.
pub const MAX_DOCUMENT: u64 = 16 << 20;

/// The oldest version of the runtime spec whose documents are understood.
pub const OCI_VERSION_MIN: &str = "1.0.0";
/// The newest version of the runtime spec that was read when this was written.
pub const OCI_VERSION_MAX: &str = "1.3.0";

/// A bundle: the directory and what its `config.json` says.
#[derive(Clone, Debug)]
pub struct Bundle {
    /// Absolute, without symbolic links.
    pub dir: PathBuf,
    /// The parsed configuration; not validated yet.
    pub spec: Spec,
}

/// Reads a bundle's `config.json`.
///
/// # Errors
/// The bundle or the file is missing, cannot be read or is too long; the document is not JSON, has a value of the
/// wrong type, lacks a required one, or is of an unknown version of the spec.
pub fn load(dir: &Path) -> Result<Bundle> {
    load_from(dir, Path::new("config.json"))
}

/// Reads a bundle whose configuration has another name, or lies elsewhere.
///
/// # Errors
/// As [`load`].
pub fn load_from(dir: &Path, config: &Path) -> Result<Bundle> {
    let dir = std::fs::canonicalize(dir).at("open bundle", dir.display())?;
    let path = dir.join(config);
    let spec = parse_spec(&read_config(&path)?)?;
    Ok(Bundle { dir, spec })
}

/// Parses the text of a `config.json`.
pub fn parse_spec(text: &[u8]) -> Result<Spec> {
    let shape: shape::Config = parse(text)?;
    check_version(shape.oci_version.as_deref())?;
    shape.check()?;
    let mut spec = parse_lenient(text, normalise::clean_config)?;
    normalise::config(&mut spec);
    Ok(spec)
}

/// Reads a process document for `exec --process`; its JSON paths start at the process (`$.args[0]`).
pub fn load_process(path: &Path) -> Result<Process> {
    parse_process(&read(path)?)
}

/// Parses the text of a process document.
pub fn parse_process(text: &[u8]) -> Result<Process> {
    parse::<shape::Process>(text)?;
    let mut process = parse_lenient(text, normalise::clean_process)?;
    normalise::process(&mut process);
    Ok(process)
}

/// Reads a resources document for `update --resources`; `-` is standard input.
pub fn load_resources(path: &Path) -> Result<LinuxResources> {
    let text = if path == Path::new("-") {
        read_limited(std::io::stdin().lock(), Path::new("standard input"), 4096)?
    } else {
        read(path)?
    };
    parse_resources(&text)
}

/// Parses the text of a resources document.
pub fn parse_resources(text: &[u8]) -> Result<LinuxResources> {
    parse::<shape::Resources>(text)?;
    let mut resources = parse_lenient(text, normalise::clean_resources)?;
    normalise::resources(&mut resources);
    Ok(resources)
}

/// Reads `config.json`, which must be a regular file: a FIFO without a writer must not hang the runtime.
fn read_config(path: &Path) -> Result<Vec<u8>> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
        .at("open", path.display())?;
    let metadata = file.metadata().at("stat", path.display())?;
    if !metadata.is_file() {
        return Err(Error::Other(format!("open `{}`: is not a regular file", path.display())));
    }
    read_limited(file, path, metadata.len())
}

/// Reads a whole file, or a pipe (a shell's `<(…)`).
fn read(path: &Path) -> Result<Vec<u8>> {
    let file = File::open(path).at("open", path.display())?;
    let metadata = file.metadata().at("stat", path.display())?;
    if metadata.is_dir() {
        return Err(Error::sys("read", path.display(), nix::errno::Errno::EISDIR));
    }
    read_limited(file, path, metadata.len())
}

fn read_limited(reader: impl Read, path: &Path, expected: u64) -> Result<Vec<u8>> {
    let mut text = Vec::with_capacity(expected.min(MAX_DOCUMENT) as usize + 1);
    reader.take(MAX_DOCUMENT + 1).read_to_end(&mut text).at("read", path.display())?;
    if text.len() as u64 > MAX_DOCUMENT {
        return Err(Error::Other(format!("read `{}`: is longer than {} MiB", path.display(), MAX_DOCUMENT >> 20)));
    }
    Ok(text)
}

/// Parses; on failure parses again to learn the JSON path, which costs too much to track every time.
fn parse<T: DeserializeOwned>(text: &[u8]) -> Result<T> {
    serde_json::from_slice(text).map_err(|first| located::<T>(text, &first))
}

/// Parses; if that fails for the shape of a value, tries once more with what the spec tolerates and the types of
/// `oci-spec` do not (see [`normalise`]) taken out.
fn parse_lenient<T: DeserializeOwned>(text: &[u8], clean: fn(&mut serde_json::Value)) -> Result<T> {
    let first = match serde_json::from_slice(text) {
        Ok(document) => return Ok(document),
        Err(error) => error,
    };
    // A value keeps the last of two equal keys, so it would hide this fault.
    if first.is_data() && !first.to_string().starts_with("duplicate field") {
        let mut value: serde_json::Value = parse(text)?;
        clean(&mut value);
        return serde_path_to_error::deserialize(value)
            .map_err(|error| Error::config(pointer(error.path()), error.inner().to_string()));
    }
    Err(located::<T>(text, &first))
}

fn located<T: DeserializeOwned>(text: &[u8], first: &serde_json::Error) -> Error {
    if first.is_syntax() || first.is_eof() {
        return Error::config("$", format!("is not JSON: {first}"));
    }
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    match serde_path_to_error::deserialize::<_, T>(&mut deserializer) {
        Err(error) => Error::config(pointer(error.path()), error.inner().to_string()),
        Ok(_) => Error::config("$", first.to_string()),
    }
}

/// A path of serde's as a JSON path: `$.linux.sysctl['net.ipv4.ip_forward']`.
pub(crate) fn pointer(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    let mut pointer = String::from("$");
    for segment in path {
        match segment {
            Segment::Seq { index } => pointer.push_str(&format!("[{index}]")),
            Segment::Map { key } => pointer.push_str(&member(key)),
            Segment::Enum { variant } => pointer.push_str(&member(variant)),
            Segment::Unknown => {}
        }
    }
    pointer
}

/// The step of a JSON path to a member: `.name`, or `['odd name']`.
pub(crate) fn member(key: &str) -> String {
    let plain = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if plain { format!(".{key}") } else { format!("['{}']", key.escape_debug()) }
}

/// `ociVersion`: a semantic version of major 1. Minor versions only add, and what is unknown must be ignored
/// (runtime-spec, "Extensibility"), so a newer minor version is no reason to refuse.
fn check_version(version: Option<&str>) -> Result<()> {
    const AT: &str = "$.ociVersion";
    let Some(version) = version else {
        return Err(Error::config(AT, "is missing"));
    };
    let supported = format!("supported are {OCI_VERSION_MIN} to {OCI_VERSION_MAX}");
    let Some(major) = semver_major(version) else {
        return Err(Error::config(AT, format!("`{version}` is not a semantic version; {supported}")));
    };
    if major != "1" {
        return Err(Error::config(AT, format!("`{version}` is not supported; {supported}")));
    }
    Ok(())
}

/// The major number of a version such as `1.0.2-rc.1+build`, if it is one (semver.org 2.0.0).
fn semver_major(version: &str) -> Option<&str> {
    let (rest, build) = version.split_once('+').map_or((version, None), |(rest, build)| (rest, Some(build)));
    let (core, pre) = rest.split_once('-').map_or((rest, None), |(core, pre)| (core, Some(pre)));
    let mut numbers = core.split('.');
    let (major, minor, patch) = (numbers.next()?, numbers.next()?, numbers.next()?);
    let number = |n: &str| {
        !n.is_empty() && n.len() <= 9 && n.bytes().all(|b| b.is_ascii_digit()) && (n == "0" || !n.starts_with('0'))
    };
    let label = |label: &str| {
        label.split('.').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'))
    };
    let whole = numbers.next().is_none() && [major, minor, patch].into_iter().all(number);
    (whole && pre.is_none_or(label) && build.is_none_or(label)).then_some(major)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        for good in ["1.0.0", "1.0.2-dev", "1.0.0-rc5", "1.1.0-rc.2", "1.2.1+dev", "1.3.0", "1.99.0"] {
            assert!(check_version(Some(good)).is_ok(), "{good}");
        }
        for bad in ["", "1", "1.0", "v1.0.0", "1.0.0.0", "01.0.0", "1.0.x", "1.0.0-", "1.0.0+", "0.5.0-dev", "2.0.0"] {
            assert!(check_version(Some(bad)).is_err(), "{bad}");
        }
        let message = check_version(Some("2.0.0")).unwrap_err().to_string();
        assert_eq!(message, "$.ociVersion: `2.0.0` is not supported; supported are 1.0.0 to 1.3.0");
    }

    #[test]
    fn members_of_a_path() {
        assert_eq!(member("linux"), ".linux");
        assert_eq!(member("net.core.somaxconn"), "['net.core.somaxconn']");
        assert_eq!(member(""), "['']");
    }
}
