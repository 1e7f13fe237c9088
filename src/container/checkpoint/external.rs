//! The mounts of a container that belong to the host: CRIU saves their names only.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;
use procfs::FromRead;
use procfs::process::MountInfos;
use serde::{Deserialize, Serialize};

use super::DESCRIPTION;
use crate::cgroup;
use crate::error::{At, Error, Result};

/// What the images do not say, in a file of ours beside them.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Description {
    /// Mount points of what belongs to the host, by which CRIU asks for it.
    pub external: Vec<String>,
    /// What stdin, stdout and stderr of the container were, in CRIU's words: `pipe:[4711]`, or `file[MOUNT:INODE]` for a file
    /// of the host; empty for what is none of the host's.
    pub descriptors: Vec<String>,
}

impl Description {
    /// Looks at a container that was given these standard streams.
    pub(super) fn of(pid: libc::pid_t, spec: &Spec, streams: &[String]) -> Result<Description> {
        let host = mounts("/proc/self/mountinfo")?;
        let host: HashSet<_> = host.0.iter().map(|mount| mount.majmin.as_str()).collect();
        let container = mounts(&format!("/proc/{pid}/mountinfo"))?;
        let bound = |point: &Path| spec.mounts().iter().flatten().any(|it| is_bind(it) && it.destination() == point);
        // These have one instance for each namespace, so a mount of one's own and one of the host's look alike.
        let namespaced = |kind: &str| matches!(kind, "proc" | "sysfs" | "mqueue" | "cgroup" | "cgroup2");
        let external = container.0.iter().filter(|mount| {
            mount.mount_point != Path::new("/")
                && host.contains(mount.majmin.as_str())
                && (mount.root != "/" || bound(&mount.mount_point) || !namespaced(&mount.fs_type))
        });
        let external = external.map(|mount| mount.mount_point.to_string_lossy().into_owned()).collect();
        let known: HashSet<_> = container.0.iter().map(|mount| mount.mnt_id).collect();
        let descriptors =
            streams.iter().map(|it| if is_hosts(it, &known) { it.clone() } else { String::new() }).collect();
        Ok(Description { external, descriptors })
    }

    /// The standard streams that are files of the host.
    pub(super) fn files(&self) -> impl Iterator<Item = &str> {
        self.descriptors.iter().map(String::as_str).filter(|name| name.starts_with("file["))
    }

    /// The standard streams that the restored process takes from the one that restores, with their numbers.
    pub(super) fn inherited(&self) -> impl Iterator<Item = (&str, i32)> {
        let names = self.descriptors.iter().map(String::as_str).zip(0..);
        names.filter(|(name, _)| !name.is_empty())
    }

    /// Writes it beside the images.
    pub(super) fn write(&self, directory: &Path) -> Result<()> {
        let file = directory.join(DESCRIPTION);
        let text = serde_json::to_vec(self).map_err(|error| Error::Other(format!("print JSON: {error}")))?;
        std::fs::write(&file, text).at("write", file.display())
    }

    /// Reads it; images of another runtime have none.
    pub(super) fn read(directory: &Path) -> Result<Description> {
        let file = directory.join(DESCRIPTION);
        let text = match std::fs::read(&file) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let path = directory.display();
                return Err(Error::Refused(format!("`{path}` holds no checkpoint made by this runtime")));
            }
            other => other.at("read", file.display())?,
        };
        serde_json::from_slice(&text).map_err(|error| Error::Other(format!("`{}`: {error}", file.display())))
    }

    /// For each external mount its source on this host, by the bundle and the new cgroups.
    pub(super) fn sources(&self, spec: &Spec, bundle: &Path, cgroup: &cgroup::Plan) -> Result<Vec<(String, PathBuf)>> {
        let source = |point: &String| {
            let found = source(Path::new(point), spec, bundle, cgroup);
            found.map(|source| (point.clone(), source)).ok_or_else(|| {
                Error::Refused(format!(
                    "the checkpoint has a mount of the host on `{point}`, the configuration has none"
                ))
            })
        };
        self.external.iter().map(source).collect()
    }
}

/// Whether a stream of the host's cannot be restored from what the container has: a pipe, or a file on a mount that the
/// container does not have.
fn is_hosts(stream: &str, mounts: &HashSet<i32>) -> bool {
    let mount = stream.strip_prefix("file[").and_then(|rest| i32::from_str_radix(rest.split(':').next()?, 16).ok());
    stream.starts_with("pipe:[") || mount.is_some_and(|mount| !mounts.contains(&mount))
}

fn mounts(file: &str) -> Result<MountInfos> {
    MountInfos::from_file(file).map_err(|error| Error::Other(format!("read `{file}`: {error}")))
}

fn is_bind(mount: &oci_spec::runtime::Mount) -> bool {
    let mut options = mount.options().iter().flatten();
    mount.typ().as_deref() == Some("bind") || options.any(|option| option == "bind" || option == "rbind")
}

fn source(point: &Path, spec: &Spec, bundle: &Path, cgroup: &cgroup::Plan) -> Option<PathBuf> {
    let linux = spec.linux().as_ref();
    if linux.and_then(|linux| linux.masked_paths().as_ref()).into_iter().flatten().any(|it| Path::new(it) == point) {
        return Some(PathBuf::from("/dev/null"));
    }
    // The last mount over a place is the one that shows.
    let mount = spec.mounts().iter().flatten().rev().find(|mount| point.starts_with(mount.destination()))?;
    let rest = point.strip_prefix(mount.destination()).ok()?;
    if is_bind(mount) {
        let source = bundle.join(mount.source().as_ref()?);
        return Some(if rest.as_os_str().is_empty() { source } else { source.join(rest) });
    }
    if mount.typ().as_deref() == Some("cgroup") {
        let named = |directory: &&cgroup::Directory| Path::new(directory.root.file_name().unwrap_or_default()) == rest;
        let directory = cgroup.directories.iter().find(named).or(cgroup.unified().filter(|_| cgroup.is_unified()))?;
        return Some(directory.path.clone());
    }
    // A device that was bound because none could be made.
    let devices = linux.and_then(|linux| linux.devices().as_ref()).into_iter().flatten();
    let known = devices.map(|device| device.path().as_path()).any(|device| device == point);
    (known || mount.destination() == Path::new("/dev")).then(|| point.to_owned()).filter(|point| point.exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_those_of_the_configuration() {
        let spec: Spec = serde_json::from_value(serde_json::json!({
            "ociVersion": "1.0.2",
            "root": {"path": "rootfs"},
            "mounts": [
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
                {"destination": "/data", "type": "bind", "source": "shared", "options": ["rbind"]},
                {"destination": "/etc/hosts", "source": "/run/hosts", "options": ["bind", "ro"]},
                {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup"},
            ],
            "linux": {"maskedPaths": ["/proc/keys"]},
        }))
        .unwrap();
        let directory = |version, root: &str| cgroup::Directory {
            version,
            root: root.into(),
            path: Path::new(root).join("box"),
            controllers: Vec::new(),
            existed: false,
            shared: false,
        };
        let mut plan = cgroup::Plan::default();
        plan.directories.push(directory(cgroup::Version::V1, "/sys/fs/cgroup/cpu,cpuacct"));
        plan.directories.push(directory(cgroup::Version::V2, "/sys/fs/cgroup/unified"));
        let at = |point: &str| source(Path::new(point), &spec, Path::new("/bundle"), &plan);
        assert_eq!(at("/proc/keys"), Some("/dev/null".into()));
        assert_eq!(at("/data"), Some("/bundle/shared".into()));
        assert_eq!(at("/data/below"), Some("/bundle/shared/below".into()));
        assert_eq!(at("/etc/hosts"), Some("/run/hosts".into()));
        assert_eq!(at("/sys/fs/cgroup/cpu,cpuacct"), Some("/sys/fs/cgroup/cpu,cpuacct/box".into()));
        assert_eq!(at("/sys/fs/cgroup/unified"), Some("/sys/fs/cgroup/unified/box".into()));
        assert_eq!(at("/dev/null"), Some("/dev/null".into()));
        assert_eq!(at("/sys/fs/cgroup/pids"), None);
        assert_eq!(at("/database"), None);
    }
}
