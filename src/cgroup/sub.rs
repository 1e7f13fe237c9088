//! Entering a container that has been running: `exec`, and its `--cgroup`.

use std::path::{Path, PathBuf};

use super::create::{Cgroup, Entry};
use super::file::Dir;
use super::layout::{Controller, Version, safe_relative};
use super::plan::Directory;
use crate::error::{At, Error, Result};

/// Where below the container's own cgroups a process goes: nowhere below, unless said.
#[derive(Debug, Clone, Default)]
pub struct SubCgroups {
    all: Option<PathBuf>,
    named: Vec<(Controller, PathBuf)>,
}

impl SubCgroups {
    /// Parses runc's `[CONTROLLER[,CONTROLLER…]:]PATH`; several only with controllers.
    ///
    /// # Errors
    /// [`Error::Usage`] for anything else, a path that climbs among it.
    pub fn parse(arguments: &[String]) -> Result<Self> {
        let mut subs = SubCgroups::default();
        for argument in arguments {
            let refuse = |why: &str| Error::Usage(format!("--cgroup `{argument}` {why}"));
            let (controllers, path) = match argument.split_once(':') {
                Some((controllers, path)) => (Some(controllers), path),
                None => (None, argument.as_str()),
            };
            let safe = safe_relative(Path::new(path)).filter(|_| !path.contains([':', '\0']));
            let path = safe.ok_or_else(|| {
                Error::Usage(format!("--cgroup `{}`: {path} is not a sub cgroup path", argument.escape_debug()))
            })?;
            let Some(controllers) = controllers else {
                if arguments.len() > 1 {
                    return Err(refuse("names no controller, but there are several"));
                }
                subs.all = Some(path);
                continue;
            };
            for name in controllers.split(',') {
                let controller = Controller::parse(name).ok_or_else(|| refuse("names an unknown controller"))?;
                if subs.named.iter().any(|(other, _)| *other == controller) {
                    return Err(refuse("names a controller again"));
                }
                subs.named.push((controller, path.clone()));
            }
        }
        Ok(subs)
    }

    fn of(&self, directory: &Directory) -> Option<&Path> {
        let named = self.named.iter().find(|(controller, _)| directory.controllers.contains(controller));
        named.map(|(_, path)| path).or(self.all.as_ref()).map(PathBuf::as_path)
    }
}

impl Cgroup {
    /// Opens the way in for one more process of a container whose first process is `init`.
    ///
    /// A v2 cgroup that has handed controllers to its children takes no process: what runs there is then one of its
    /// children's, the first process's to be exact, as with runc.
    ///
    /// # Errors
    /// As `open(2)`: `ENOENT` for a cgroup below that is not there. [`Error::Refused`] for a controller that the container does
    /// not have.
    pub fn entry_below(&self, subs: &SubCgroups, init: libc::pid_t) -> Result<Entry> {
        if let Some((controller, _)) = subs.named.iter().find(|(it, _)| self.v1(*it).is_none()) {
            return Err(Error::Refused(format!("the container has no cgroup v1 hierarchy of `{controller}`")));
        }
        let mut entry = Entry::default();
        for directory in &self.plan.directories {
            let sub = subs.of(directory);
            let place = sub.map_or_else(|| directory.path.clone(), |sub| directory.path.join(sub));
            match directory.version {
                Version::V1 => entry.tasks.push(Dir::new(place).open("tasks", libc::O_WRONLY)?),
                Version::V2 if sub.is_none() && hands_down(&place) => {
                    entry.into = Some(Dir::new(beside(directory, init)?).open_self()?);
                }
                Version::V2 => entry.into = Some(Dir::new(place).open_self()?),
            }
        }
        Ok(entry)
    }

    fn v1(&self, controller: Controller) -> Option<&Directory> {
        self.plan.directory(controller).filter(|directory| directory.version == Version::V1)
    }
}

/// Whether the cgroup's children have controllers ("no internal process constraint", kernel: `admin-guide/cgroup-v2`).
fn hands_down(place: &Path) -> bool {
    Dir::new(place).value("cgroup.subtree_control").is_ok_and(|controllers| !controllers.trim().is_empty())
}

/// The cgroup that the process is in, which is the container's or below it.
fn beside(directory: &Directory, init: libc::pid_t) -> Result<PathBuf> {
    let file = format!("/proc/{init}/cgroup");
    let text = std::fs::read_to_string(&file).at("read", &file)?;
    let own = text.lines().find_map(|line| line.strip_prefix("0::")).and_then(|own| safe_relative(Path::new(own)));
    let place = own.map(|own| directory.root.join(own)).filter(|place| place.starts_with(&directory.path));
    place.ok_or_else(|| Error::Other(format!("process {init} has left the container's cgroup")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<SubCgroups> {
        SubCgroups::parse(&arguments.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn a_path_for_all_or_one_for_each_controller() {
        assert_eq!(parse(&["a/b"]).unwrap().all, Some("a/b".into()));
        assert_eq!(parse(&["/"]).unwrap().all, Some("".into()));
        let subs = parse(&["cpu,cpuacct:x", "memory:/y"]).unwrap();
        let named: Vec<_> =
            subs.named.iter().map(|(it, path)| (it.name(Version::V1), path.to_str().unwrap())).collect();
        assert_eq!(named, [("cpu", "x"), ("cpuacct", "x"), ("memory", "y")]);
    }

    #[test]
    fn what_is_no_cgroup_below_is_a_usage_error() {
        for arguments in [
            &["../x"][..],
            &["a/../../b"],
            &["cpu:../x"],
            &["nope:x"],
            &["cpu:a:b"],
            &["a", "b"],
            &["cpu:a", "b"],
            &["cpu:a", "cpu:b"],
        ] {
            assert!(matches!(parse(arguments), Err(Error::Usage(_))), "{arguments:?}");
        }
    }
}
