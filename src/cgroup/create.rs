//! Making the directories, and the way into them.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxResources;

use super::file::Dir;
use super::layout::{Controller, Version};
use super::limits::{self, Occasion};
use super::plan::{Directory, PAYLOAD, Plan};
use super::systemd;
use crate::error::{At, Error, Result};
use crate::sys::mount_at::chown_at;
use crate::sys::{Errno, path};

/// A container's cgroup that exists.
#[derive(Debug, Clone)]
pub struct Cgroup {
    pub(super) plan: Plan,
    /// The directory that the first process was born in, by its place in the plan.
    birthplace: Option<usize>,
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
    /// Whether it leads nowhere.
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty() && self.into.is_none()
    }

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
#[derive(Debug, Default)]
struct Made(Vec<PathBuf>);

impl Drop for Made {
    fn drop(&mut self) {
        for path in self.0.iter().rev() {
            // What has a process in it, or cannot be removed now, is found by the proof, from the record.
            let _ = std::fs::remove_dir(path);
        }
    }
}

/// A cgroup of which the part exists that its first process is in from the beginning: the directory that says who belongs
/// to the container. The rest is made while that process does what needs no cgroup yet.
#[derive(Debug)]
pub struct Begun {
    plan: Plan,
    birthplace: Option<usize>,
    birth: Entry,
    made: Made,
    first: Option<libc::pid_t>,
}

impl Plan {
    /// Finds out which directories are there already, so that the record knows before anything is made.
    ///
    /// A cgroup that is there and has no processes is taken over, as runc does. One with processes is *shared*: it is
    /// joined, its limits are set, but neither [`Cgroup::kill`] nor [`Cgroup::remove`] touches what was in it.
    ///
    /// # Errors
    /// [`Error::Refused`] for one that is frozen; else as `read(2)`.
    pub fn survey(&mut self) -> Result<()> {
        if self.unit.is_some() {
            // systemd makes no unit that is there already.
            return Ok(());
        }
        self.directories.iter_mut().filter(|directory| directory.path.exists()).try_for_each(found)
    }

    /// Makes the directory that says who belongs to the container; that of v2 with the controllers that the limits need.
    ///
    /// # Errors
    /// As [`Plan::create`].
    pub fn begin(&self, resources: Option<&LinuxResources>) -> Result<Begun> {
        let mut made = Made::default();
        let mut plan = self.clone();
        let inits = |place: &usize| !plan.is_payloads_alone(&plan.directories[*place]);
        let birthplace = plan.census().filter(|place| plan.unit.is_none() && inits(place));
        let Some(directory) = birthplace.map(|place| &mut plan.directories[place]) else {
            return Ok(Begun { plan, birthplace: None, birth: Entry::default(), made, first: None });
        };
        make(directory, &mut made, false)?;
        let tasks = match directory.version {
            Version::V1 => vec![Dir::new(&directory.path).open("tasks", libc::O_WRONLY)?],
            Version::V2 => Vec::new(),
        };
        if plan.has_leaves() {
            for directory in &plan.directories {
                for leaf in [INIT, PAYLOAD_LEAF] {
                    make_dir(&directory.path.join(leaf), &mut made)?;
                }
            }
        }
        // Before anybody is inside: a controller that comes later moves those who are, and waits for RCU as it does so.
        limits::enable(&plan, resources)?;
        let birth = Entry { tasks, into: plan.open_birthplace(INIT)? };
        Ok(Begun { plan, birthplace, birth, made, first: None })
    }

    /// Makes the directories and applies the limits.
    ///
    /// The plan of the returned cgroup differs from this one where a directory has come or gone since [`Plan::survey`]:
    /// record it again.
    ///
    /// # Errors
    /// [`Error::Refused`] for a limit whose controller the host lacks; else as `mkdir(2)` and `write(2)`, naming the file
    /// and the value. On failure everything made is removed first.
    pub fn create(&self, resources: Option<&LinuxResources>) -> Result<Cgroup> {
        self.begin(resources)?.finish(resources)
    }

    /// The cgroup that [`Plan::create`] made earlier, perhaps in another process.
    pub fn open(&self) -> Cgroup {
        Cgroup::of(self.clone())
    }
}

impl Begun {
    /// What it consists of, with what was found so far.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Where the first process is born, or goes before anything else. Leads nowhere with the systemd driver.
    pub fn birth(&self) -> &Entry {
        &self.birth
    }

    /// What a failed birth here means, where the kernel's word is about the cgroup.
    pub fn explain(&self, error: Error) -> Error {
        let (Some(_), Some(unified)) = (&self.birth.into, self.plan.unified()) else { return error };
        let reason = match error.errno() {
            Some(Errno::EBUSY) => {
                "gives controllers to its children, and cgroup v2 then lets no process into it: choose a \
                 `linux.cgroupsPath` below it"
            }
            Some(Errno::EOPNOTSUPP) => {
                "is below a threaded one, and cgroup v2 then lets no process into it: choose a `linux.cgroupsPath` elsewhere"
            }
            _ => return error,
        };
        Error::Refused(format!("the cgroup `{}` {reason}", unified.path.display()))
    }

    /// The same around a process, which a scope of systemd needs to begin with.
    pub fn around(self, first: libc::pid_t) -> Self {
        Begun { first: Some(first), ..self }
    }

    /// Makes the other directories, or has systemd make the scope, and applies all limits.
    ///
    /// # Errors
    /// As [`Plan::create`].
    pub fn finish(self, resources: Option<&LinuxResources>) -> Result<Cgroup> {
        let Begun { mut plan, birthplace, mut made, first, .. } = self;
        if let Some(unit) = &plan.unit {
            let first =
                first.ok_or_else(|| Error::Refused("a scope of systemd needs a process of its own".to_owned()))?;
            systemd::start(unit, &plan, first, resources)?;
            limits::enable(&plan, resources)?;
        }
        let by_systemd = plan.unit.is_some();
        for (place, directory) in plan.directories.iter_mut().enumerate() {
            if birthplace != Some(place) {
                make(directory, &mut made, by_systemd)?;
            }
        }
        match resources {
            Some(resources) => limits::apply(&plan, resources, Occasion::Create)?,
            None => limits::apply_devices(&plan, &[])?,
        }
        made.0.clear();
        Ok(Cgroup { plan, birthplace })
    }
}

/// The leaf of the first process on v2, where the payload has a leaf of its own.
pub(super) const INIT: &str = "init";
/// The leaf of the payload on v2.
pub(super) const PAYLOAD_LEAF: &str = "payload";

/// Makes one directory of the plan, and its parents where they are missing. Those stay, as with every runtime: another
/// container may be about to be put there.
fn make(directory: &mut Directory, made: &mut Made, by_systemd: bool) -> Result<()> {
    let fresh = match make_dir(&directory.path, made) {
        Err(error) if error.errno() == Some(Errno::ENOENT) => {
            let mut missing: Vec<&Path> =
                directory.path.ancestors().skip(1).take_while(|it| *it != directory.root && !it.exists()).collect();
            missing.reverse();
            for parent in missing {
                if make_dir(parent, made)? {
                    init_cpuset(directory, parent)?;
                }
            }
            make_dir(&directory.path, made)?
        }
        other => other?,
    };
    match (fresh, directory.existed) {
        // The scope has been made around the container's own process.
        _ if by_systemd => {}
        (true, _) => (directory.existed, directory.shared) = (false, false),
        (false, true) => {}
        (false, false) => found(directory)?,
    }
    let path = directory.path.clone();
    init_cpuset(directory, &path)
}

/// Notes that a directory is there, and whether somebody is in it.
fn found(directory: &mut Directory) -> Result<()> {
    directory.existed = true;
    directory.shared = super::tree::any_process(&directory.path)?;
    refuse_frozen(directory)
}

/// A process that enters a frozen cgroup stops there, and the creator would wait for it.
fn refuse_frozen(directory: &Directory) -> Result<()> {
    let dir = Dir::new(&directory.path);
    let frozen = match directory.version {
        Version::V2 => dir.try_read("cgroup.freeze").is_ok_and(|it| it.trim() == "1"),
        Version::V1 => dir.try_read("freezer.state").is_ok_and(|it| it.trim() != "THAWED"),
    };
    if frozen {
        Err(Error::Refused(format!("container's cgroup unexpectedly frozen: `{}`", directory.path.display())))
    } else {
        Ok(())
    }
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
    /// The cgroup that consists of this.
    pub(super) fn of(plan: Plan) -> Cgroup {
        Cgroup { plan, birthplace: None }
    }

    /// What it consists of, with what was found when it was made.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Opens the way in for a new process: the container's first one, or one that `exec` adds.
    ///
    /// # Errors
    /// As `open(2)`.
    pub fn entry(&self) -> Result<Entry> {
        let tasks = self.open_tasks(|_, directory| !self.plan.is_payloads_alone(directory))?;
        Ok(Entry { tasks, into: self.plan.open_birthplace(INIT)? })
    }

    /// The `tasks` files for the first process, but for where it was born ([`Begun::birth`]).
    ///
    /// # Errors
    /// As `open(2)`.
    pub fn init_entry(&self) -> Result<Entry> {
        let inits = |directory: &Directory| !self.plan.is_payloads_alone(directory);
        let tasks = self.open_tasks(|place, directory| self.birthplace != Some(place) && inits(directory))?;
        Ok(Entry { tasks, into: None })
    }

    /// Opens what is left to enter for the payload, where the first process stays outside of its limits
    /// ([`Plan::payload_leaf`]). On v1 the payload has inherited the other hierarchies from the first process.
    ///
    /// On v2 it is the first process whom the kernel asks for permission to have a child born there: `root` are its ids,
    /// where they are not this process's. It needs to write `cgroup.procs` of the leaf and of what that has in common with
    /// its own (`cgroup-v2`, "Delegation Containment"). The payload has other ids, or could go nowhere but there.
    ///
    /// # Errors
    /// As `open(2)` and `chown(2)`.
    pub fn payload_entry(&self, root: Option<(u32, u32)>) -> Result<Entry> {
        let into = if self.plan.has_leaves() { self.plan.open_birthplace(PAYLOAD_LEAF)? } else { None };
        if let (Some(leaf), Some(common), Some((user, group))) = (&into, self.plan.unified(), root) {
            let common = Dir::new(&common.path).open_self()?;
            for directory in [leaf, &common] {
                chown_at(directory.as_fd(), c"cgroup.procs", Some(user), Some(group))
                    .at("give the way in to", PAYLOAD_LEAF)?;
            }
        }
        Ok(Entry { tasks: self.open_tasks(|_, directory| is_payload(directory))?, into })
    }

    fn open_tasks(&self, wanted: impl Fn(usize, &Directory) -> bool) -> Result<Vec<OwnedFd>> {
        let directories = self.plan.directories.iter().enumerate();
        let directories = directories.filter(|(place, it)| it.version == Version::V1 && wanted(*place, it));
        directories.map(|(_, directory)| Dir::new(&directory.path).open("tasks", libc::O_WRONLY)).collect()
    }
}

impl Plan {
    /// The payload has a v2 leaf of its own.
    fn has_leaves(&self) -> bool {
        self.payload_leaf && self.is_unified()
    }

    /// Whether only the payload is in a directory, and the first process stays outside. On v2 each has a leaf in it.
    pub(super) fn is_payloads_alone(&self, directory: &Directory) -> bool {
        self.payload_leaf && directory.version == Version::V1 && is_payload(directory)
    }

    /// Opens the v2 directory for `CLONE_INTO_CGROUP`: this leaf of it, where it has leaves.
    fn open_birthplace(&self, leaf: &str) -> Result<Option<OwnedFd>> {
        let Some(unified) = self.unified() else { return Ok(None) };
        let path = if self.has_leaves() { unified.path.join(leaf) } else { unified.path.clone() };
        Dir::new(path).open_self().map(Some)
    }
}

fn is_payload(directory: &Directory) -> bool {
    directory.controllers.iter().any(|controller| PAYLOAD.contains(controller))
}
