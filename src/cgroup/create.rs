//! Making the directories, and the way into them.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxResources;

use super::file::Dir;
use super::layout::{Controller, Version};
use super::limits::{self, Occasion};
use super::plan::{Directory, PAYLOAD, Plan};
use crate::error::{Error, Result};
use crate::sys::{Errno, path};

/// A container's cgroup that exists.
#[derive(Debug, Clone)]
pub struct Cgroup {
    pub(super) plan: Plan,
}

/// The way into a cgroup for one new process.
///
/// The creator opens it, so that permissions are checked against the creator: a child that already lives in a new
/// user namespace may still use it (the kernel checks the opener's credentials, CVE-2021-4197).
#[derive(Debug, Default)]
pub struct Entry {
    /// The `tasks` files of v1 hierarchies. The process writes `0` to each while it has one thread.
    pub tasks: Vec<OwnedFd>,
    /// The v2 directory for `CLONE_INTO_CGROUP`.
    pub into: Option<OwnedFd>,
}

impl Entry {
    /// Moves the calling thread into every v1 hierarchy. For the new process, before it makes a cgroup
    /// namespace (whose root is the cgroup its maker is in at that moment) and before it has a second thread.
    ///
    /// # Errors
    /// As `write(2)`; `ENOSPC` means a cpuset without CPUs or memory nodes.
    pub fn enter(&self) -> Result<()> {
        for tasks in &self.tasks {
            path::write_once(tasks.as_fd(), b"0").map_err(|errno| {
                let link = std::fs::read_link(format!("/proc/self/fd/{}", tasks.as_raw_fd()));
                Error::sys("enter", link.unwrap_or_else(|_| PathBuf::from("tasks")).display(), errno)
            })?;
        }
        Ok(())
    }
}

/// Directories made so far; removed again, last first, unless kept.
#[derive(Default)]
struct Made(Vec<PathBuf>);

impl Drop for Made {
    fn drop(&mut self) {
        for path in self.0.iter().rev() {
            // Nothing has entered yet. What cannot be removed now is found by the proof, from the record.
            let _ = std::fs::remove_dir(path);
        }
    }
}

impl Plan {
    /// Makes the directories and applies the limits.
    ///
    /// A cgroup that is there already and has no processes is taken over, as runc does. One with processes is *shared*:
    /// it is joined, its limits are set, but neither [`Cgroup::kill`] nor [`Cgroup::remove`] touches what was in it.
    ///
    /// The plan of the returned cgroup knows which directories existed: record it again.
    ///
    /// # Errors
    /// [`Error::Refused`] for a limit whose controller the host lacks; else as `mkdir(2)` and `write(2)`, naming the file
    /// and the value. On failure everything made is removed first.
    pub fn create(&self, resources: Option<&LinuxResources>) -> Result<Cgroup> {
        let mut made = Made::default();
        let mut plan = self.clone();
        for directory in &mut plan.directories {
            make(directory, &mut made)?;
        }
        if plan.payload_leaf && plan.is_unified() {
            for directory in &plan.directories {
                for leaf in [INIT, PAYLOAD_LEAF] {
                    make_dir(&directory.path.join(leaf), &mut made)?;
                }
            }
        }
        limits::enable(&plan, resources)?;
        match resources {
            Some(resources) => limits::apply(&plan, resources, Occasion::Create)?,
            None => limits::apply_devices(&plan, &[])?,
        }
        made.0.clear();
        Ok(Cgroup { plan })
    }

    /// The cgroup that [`Plan::create`] made earlier, perhaps in another process.
    pub fn open(&self) -> Cgroup {
        Cgroup { plan: self.clone() }
    }
}

/// The leaf of the first process on v2, where the payload has a leaf of its own.
pub(super) const INIT: &str = "init";
/// The leaf of the payload on v2.
pub(super) const PAYLOAD_LEAF: &str = "payload";

/// Makes one directory of the plan, its parents where they are missing, and notes what was there before.
fn make(directory: &mut Directory, made: &mut Made) -> Result<()> {
    match make_dir(&directory.path, made) {
        Ok(true) => {}
        Ok(false) => {
            directory.existed = true;
            directory.shared = super::release::any_process(&directory.path)?;
            refuse_frozen(directory)?;
        }
        Err(error) if error.errno() == Some(Errno::ENOENT) => {
            let mut missing: Vec<&Path> =
                directory.path.ancestors().skip(1).take_while(|it| *it != directory.root && !it.exists()).collect();
            missing.reverse();
            let mut parents = Vec::with_capacity(missing.len());
            for parent in missing {
                if make_dir(parent, made)? {
                    init_cpuset(directory, parent)?;
                    parents.push(parent.to_owned());
                }
            }
            make_dir(&directory.path, made)?;
            directory.parents = parents;
        }
        Err(error) => return Err(error),
    }
    let path = directory.path.clone();
    init_cpuset(directory, &path)
}

/// A process that enters a frozen cgroup stops there, and the creator would wait for it.
fn refuse_frozen(directory: &Directory) -> Result<()> {
    let dir = Dir::new(&directory.path);
    let frozen = match directory.version {
        Version::V2 => dir.try_read("cgroup.freeze").is_ok_and(|it| it.trim() == "1"),
        Version::V1 => dir.try_read("freezer.state").is_ok_and(|it| it.trim() != "THAWED"),
    };
    if frozen { Err(Error::Refused(format!("cgroup `{}` is frozen", directory.path.display()))) } else { Ok(()) }
}

/// Makes a directory; says whether it was not there.
fn make_dir(path: &Path, made: &mut Made) -> Result<bool> {
    match path::mkdirat(
        path::CWD,
        path::c_path(path).map_err(|errno| Error::sys("mkdir", path.display(), errno))?.as_c_str(),
        0o755,
    ) {
        Ok(()) => {
            made.0.push(path.to_owned());
            Ok(true)
        }
        Err(Errno::EEXIST) => Ok(false),
        Err(errno) => Err(Error::sys("mkdir", path.display(), errno)),
    }
}

/// A new v1 cpuset has neither CPUs nor memory nodes, and entering it fails with ENOSPC: it gets its
/// parent's (kernel: `admin-guide/cgroup-v1/cpusets`, section 1.3). v2 inherits by itself.
fn init_cpuset(directory: &Directory, path: &Path) -> Result<()> {
    if directory.version == Version::V2 || !directory.controllers.contains(&Controller::Cpuset) {
        return Ok(());
    }
    let Some(parent) = path.parent() else { return Ok(()) };
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if directory.existed && !Dir::new(path).value(file)?.trim().is_empty() {
            continue;
        }
        let inherited = Dir::new(parent).value(file)?;
        if inherited.trim().is_empty() && parent != directory.root {
            // Somebody made the parent and left it so.
            init_cpuset(directory, parent)?;
            Dir::new(path).write(file, Dir::new(parent).value(file)?.trim())?;
        } else {
            Dir::new(path).write(file, inherited.trim())?;
        }
    }
    Ok(())
}

impl Cgroup {
    /// What it consists of, with what was found when it was made.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Opens the way in for a new process: the container's first one, or one that `exec` adds.
    ///
    /// # Errors
    /// As `open(2)`.
    pub fn entry(&self) -> Result<Entry> {
        self.open_entry(|directory| !(self.plan.payload_leaf && is_payload(directory)), INIT)
    }

    /// Opens what is left to enter for the payload, where the first process stays outside of its limits
    /// ([`Plan::payload_leaf`]). On v1 the payload has inherited the other hierarchies from the first process.
    ///
    /// # Errors
    /// As `open(2)`.
    pub fn payload_entry(&self) -> Result<Entry> {
        let mut entry = self.open_entry(is_payload, PAYLOAD_LEAF)?;
        if !self.plan.is_unified() {
            entry.into = None;
        }
        Ok(entry)
    }

    fn open_entry(&self, wanted: impl Fn(&Directory) -> bool, leaf: &str) -> Result<Entry> {
        let mut entry = Entry { tasks: Vec::with_capacity(self.plan.directories.len()), into: None };
        for directory in &self.plan.directories {
            match directory.version {
                Version::V1 if wanted(directory) => {
                    entry.tasks.push(Dir::new(&directory.path).open("tasks", libc::O_WRONLY)?);
                }
                Version::V1 => {}
                Version::V2 if self.plan.payload_leaf && self.plan.is_unified() => {
                    entry.into = Some(Dir::new(directory.path.join(leaf)).open_self()?);
                }
                Version::V2 => entry.into = Some(Dir::new(&directory.path).open_self()?),
            }
        }
        Ok(entry)
    }
}

fn is_payload(directory: &Directory) -> bool {
    directory.controllers.iter().any(|controller| PAYLOAD.contains(controller))
}
