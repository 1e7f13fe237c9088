//! What dead commands have left below a state root. Looks at everything, changes nothing.
//!
//! | what | stale when |
//! |---|---|
//! | container | its creator died before its first process was on record; it is of another boot; it is judged and its supervisor is dead; its directory holds no record any more |
//! | monitor of a judged container | it is dead, and the container runs |
//! | hook | it runs, and no command holds its container's lock |
//! | process | it is in the mount namespace of a container whose first process is dead, and in no container's cgroups |
//! | half-written state directory | the process in its name is dead |
//! | stage and ids of a judged sandbox | the supervisor that the ids are leased to is dead, and there is no container |
//! | cgroup named after such a sandbox | the same |
//! | cores of a batch | its process is dead |
//! | temporary file of the filter cache | nobody has the pid in its name |
//! | mount below the state root | it lies below nothing that lives |
//!
//! A stopped container waits for its engine's `delete`: it is counted, and is no leftover.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::Serialize;

pub use super::leftover::{Kind, Leftover};
use crate::cgroup::{self, Layout};
use crate::cleanup::{mounts, orphans};
use crate::container::identity::{self, ProcessId};
use crate::container::record::never_started;
use crate::container::root::Root;
use crate::container::running_hook;
use crate::container::state::{Record, Status, read_record, status};
use crate::error::{At, Error, Result};
use crate::judge::batch::cores::PLACE;
use crate::judge::{lease, monitor};
use crate::sys::lock::{FlockArg, Lock};
use crate::sys::{Errno, path};

/// What a look over the worker found.
#[derive(Debug, Clone, Default, Serialize, JsonSchema)]
pub struct Survey {
    /// There are no leftovers.
    pub clean: bool,
    /// The state root that was looked at.
    pub root: PathBuf,
    /// Containers that live, or that a command is working on.
    pub live: Vec<String>,
    /// Containers that have stopped and wait for `delete`.
    pub stopped: Vec<String>,
    /// What was left, what must go first first.
    pub leftovers: Vec<Leftover>,
}

impl Survey {
    /// For a person: a line for each leftover, and the sum.
    pub fn table(&self) -> String {
        let mut text: String = self.leftovers.iter().map(|leftover| format!("left    {leftover}\n")).collect();
        let verdict = match self.leftovers.len() {
            0 => "clean".to_owned(),
            left => format!("not clean: {left} left"),
        };
        let (live, stopped) = (self.live.len(), self.stopped.len());
        text.push_str(&format!("{verdict} in `{}`; {live} live, {stopped} stopped\n", self.root.display()));
        text
    }
}

/// What becomes of a container's directory.
pub(super) enum Finding {
    Gone,
    Lives,
    Stopped,
    Left(Kind, String),
}

/// Looks over all of a state root.
///
/// # Errors
/// What the file system answers; what disappears meanwhile is no error.
pub fn survey(root: &Root) -> Result<Survey> {
    let mut survey = Survey { root: root.path().to_owned(), ..Survey::default() };
    for id in root.ids()? {
        let place = root.path().join(&id);
        let Examined { finding, creator, orphans } = examine(root, &id)?;
        for orphan in orphans {
            let reason = format!("`{}` is in none of its container's cgroups, and that has ended", orphan.name);
            let proc = PathBuf::from(format!("/proc/{}", orphan.process.pid));
            let leftover = Leftover::new(Kind::Process, orphan.process.pid, reason);
            survey.leftovers.insert(0, leftover.of(&id, Some(orphan.process)).aged(&proc));
        }
        match finding {
            Finding::Gone => {}
            Finding::Lives => survey.live.push(id),
            Finding::Stopped => survey.stopped.push(id),
            Finding::Left(kind, reason) => {
                if kind == Kind::Monitor {
                    survey.live.push(id.clone());
                }
                survey.leftovers.push(Leftover::new(kind, &id, reason).of(&id, creator).aged(&place));
            }
        }
    }
    half_written(root, &mut survey)?;
    judged(root, &mut survey)?;
    cores(root, &mut survey)?;
    temporary(root, &mut survey)?;
    mounted(root, &mut survey)?;
    survey.clean = survey.leftovers.is_empty();
    Ok(survey)
}

/// What a container's directory says.
struct Examined {
    finding: Finding,
    creator: Option<ProcessId>,
    orphans: Vec<orphans::Orphan>,
}

impl From<Finding> for Examined {
    fn from(finding: Finding) -> Self {
        Examined { finding, creator: None, orphans: Vec::new() }
    }
}

/// Looks at a container's directory beside whoever may be working on it.
fn examine(root: &Root, id: &str) -> Result<Examined> {
    let dir = match root.open_directory(id) {
        Ok(dir) => dir,
        Err(Error::State { reason, .. }) if reason == "does not exist" => return Ok(Finding::Gone.into()),
        Err(error) => return Ok(Finding::Left(Kind::UnreadableState, error.to_string()).into()),
    };
    let Some(dir) = lock(dir, id)? else { return Ok(Finding::Lives.into()) };
    let record = match read_record(dir.as_fd(), id) {
        Ok(record) => record,
        Err(error) => return Ok(without_record(&root.path().join(id), error).into()),
    };
    let finding = judge(dir.as_fd(), &record)?;
    let orphans = match finding {
        Finding::Stopped | Finding::Left(Kind::Container, _) => orphans::find(root, dir.as_fd(), &record)?,
        _ => Vec::new(),
    };
    Ok(Examined { finding, creator: Some(record.creator), orphans })
}

/// Locks a container's directory to look at it; nothing where a command works on it. A creator that has died may have left
/// a child that holds the lock until it notices: that one is waited for.
fn lock(mut dir: OwnedFd, id: &str) -> Result<Option<Lock>> {
    let patience = Instant::now() + Duration::from_secs(1);
    loop {
        dir = match Lock::take(dir, FlockArg::LockSharedNonblock) {
            Ok(dir) => return Ok(Some(dir)),
            Err((dir, Errno::EWOULDBLOCK)) => dir,
            Err((_, errno)) => return Err(errno).at("lock the state directory of", id),
        };
        let orphaned = match read_record(dir.as_fd(), id) {
            Ok(record) => identity::open(record.creator)?.is_none() && never_started(dir.as_fd(), id)?,
            Err(_) => false,
        };
        if !orphaned || Instant::now() >= patience {
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A directory whose record cannot be read: gone meanwhile, emptied by a `delete` that died at its last step, or broken.
fn without_record(place: &Path, error: Error) -> Finding {
    let broken = |error: &dyn std::fmt::Display| Finding::Left(Kind::UnreadableState, error.to_string());
    match std::fs::read_dir(place).map(|mut entries| entries.next().is_none()) {
        Ok(true) => Finding::Left(Kind::EmptyState, "its delete died at the last step".to_owned()),
        Ok(false) => broken(&error),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Finding::Gone,
        Err(error) => broken(&error),
    }
}

/// Whether a recorded container that no command is working on is stale.
pub(super) fn judge(dir: std::os::fd::BorrowedFd<'_>, record: &Record) -> Result<Finding> {
    let left = |reason: String| Ok(Finding::Left(Kind::Container, reason));
    if record.boot_id != identity::boot_id()? {
        return left("it is of another boot".to_owned());
    }
    let creator = record.creator.pid;
    if identity::open(record.creator)?.is_none() {
        if never_started(dir, &record.id)? {
            return left(format!("its creator, process {creator}, died while creating it"));
        }
        // Only a judged sandbox has limits that leave its first process out.
        if record.cgroup.payload_leaf {
            return left(format!("its supervisor, process {creator}, is dead"));
        }
    }
    if let Some(hook) = running_hook::running(dir, record)? {
        return Ok(Finding::Left(Kind::Hook, format!("{hook}, runs and its runtime is dead")));
    }
    Ok(match status(dir, record)? {
        (Status::Stopped, _) => Finding::Stopped,
        (Status::Running | Status::Paused, _) => match monitor::missing(dir, record)? {
            Some(lost) => Finding::Left(Kind::Monitor, format!("its monitor, process {}, is dead", lost.pid)),
            None => Finding::Lives,
        },
        _ => Finding::Lives,
    })
}

/// State directories that were never published: `.new-<pid>-<start time>`.
fn half_written(root: &Root, survey: &mut Survey) -> Result<()> {
    for name in names(root.path())? {
        let Some(maker) = name.strip_prefix(".new-") else { continue };
        let Ok(process) = maker.replacen('-', " ", 1).parse::<ProcessId>() else { continue };
        let place = root.path().join(&name);
        if identity::open(process)?.is_none() && place.exists() {
            let leftover = Leftover::new(Kind::HalfWritten, place.display(), "its maker is dead").aged(&place);
            survey.leftovers.push(Leftover { process: Some(process), ..leftover });
        }
    }
    Ok(())
}

/// Stages, leases and cgroups of judged sandboxes that have no container.
fn judged(root: &Root, survey: &mut Survey) -> Result<()> {
    // A lease is taken before its stage is made and released after: looked at in the other order, none is missed.
    let stages = names(&root.path().join(".judge"))?;
    let leases = lease::all(root.path())?;
    let mut lives = BTreeSet::new();
    for owner in leases.iter().filter_map(|found| found.owner.as_ref()) {
        if owner.lives()? || root.path().join(&owner.id).exists() {
            lives.insert(owner.id.as_str());
        }
    }
    let supervisor = |id: &str| {
        let owners = leases.iter().filter_map(|found| found.owner.as_ref());
        owners.filter(|owner| owner.id == id).map(|owner| owner.supervisor).next()
    };
    let reason = "its supervisor is dead";
    let mut orphans = BTreeSet::new();
    for id in &stages {
        let place = root.path().join(".judge").join(id);
        if !lives.contains(id.as_str()) && !root.path().join(id).exists() && place.exists() {
            let leftover = Leftover::new(Kind::Stage, place.display(), reason).of(id, supervisor(id)).aged(&place);
            survey.leftovers.push(leftover);
            orphans.insert(id.as_str());
        }
    }
    for found in &leases {
        let place = root.path().join(".ids").join(&found.name);
        let leftover = Leftover::new(Kind::Ids, place.display(), reason).aged(&place);
        match &found.owner {
            Some(owner) if lives.contains(owner.id.as_str()) => {}
            // Released since it was read: its supervisor has ended as it should.
            _ if place.symlink_metadata().is_err() => {}
            Some(owner) => {
                survey.leftovers.push(leftover.of(&owner.id, Some(owner.supervisor)));
                orphans.insert(owner.id.as_str());
            }
            None => survey.leftovers.push(Leftover { reason: "it names nobody".to_owned(), ..leftover }),
        }
    }
    let layout = if orphans.is_empty() { None } else { Some(Layout::probe()?) };
    for id in orphans {
        let plan = layout.as_ref().map(|layout| cgroup::plan(&cgroup::Request { id, ..Default::default() }, layout));
        for directory in plan.transpose()?.into_iter().flat_map(|plan| plan.directories) {
            if directory.path.exists() {
                let leftover = Leftover::new(Kind::Cgroup, directory.path.display(), reason).of(id, supervisor(id));
                survey.leftovers.push(leftover.aged(&directory.path));
            }
        }
    }
    Ok(())
}

/// Cores that are leased to a batch which is dead.
fn cores(root: &Root, survey: &mut Survey) -> Result<()> {
    for found in lease::all_in(root.path(), PLACE)? {
        let place = root.path().join(PLACE).join(&found.name);
        let leftover = |reason: &str| Leftover::new(Kind::Cores, place.display(), reason).aged(&place);
        match &found.owner {
            Some(owner) if owner.lives()? => {}
            Some(owner) => {
                let process = Some(owner.supervisor);
                survey.leftovers.push(Leftover { process, ..leftover("its batch is dead") });
            }
            None => survey.leftovers.push(leftover("it names nobody")),
        }
    }
    Ok(())
}

/// Temporary files of the filter cache: `<name>.<pid>.tmp`.
fn temporary(root: &Root, survey: &mut Survey) -> Result<()> {
    let place = root.path().join(".seccomp");
    for name in names(&place)? {
        let Some((_, pid)) = name.strip_suffix(".tmp").and_then(|name| name.rsplit_once('.')) else { continue };
        let Ok(pid) = pid.parse() else { continue };
        let file = place.join(&name);
        if identity::identify(pid)?.is_none() && file.exists() {
            let reason = format!("its writer, process {pid}, is dead");
            survey.leftovers.push(Leftover::new(Kind::Temporary, file.display(), reason).aged(&file));
        }
    }
    Ok(())
}

/// Mounts below the root that belong to nothing that lives, the deepest first of all.
fn mounted(root: &Root, survey: &mut Survey) -> Result<()> {
    let lives = |mount: &Path| {
        let below = mount.strip_prefix(root.path()).unwrap_or(mount);
        let owner = owner(root, mount);
        let holds = |leftover: &Leftover| leftover.owner.as_ref() == Some(&owner);
        // A stage's owner may have no container at this moment.
        survey.live.contains(&owner) || survey.stopped.contains(&owner) || {
            below.starts_with(".judge") && !survey.leftovers.iter().any(holds)
        }
    };
    let mut mounts = mounts::points_below(&[root.path()])?;
    mounts.retain(|mount| !lives(mount));
    // The last one mounted is on top.
    mounts.reverse();
    mounts.sort_by_key(|mount| std::cmp::Reverse(mount.components().count()));
    let found = mounts.iter().map(|mount| {
        let owner = owner(root, mount);
        let leftover = Leftover::new(Kind::Mount, mount.display(), "it belongs to nothing that lives");
        if owner.is_empty() { leftover } else { leftover.of(&owner, None) }
    });
    let processes = survey.leftovers.iter().take_while(|it| it.kind == Kind::Process).count();
    survey.leftovers.splice(processes..processes, found);
    Ok(())
}

/// The container or sandbox that a mount below the root lies in.
fn owner(root: &Root, mount: &Path) -> String {
    let below = mount.strip_prefix(root.path()).unwrap_or(mount);
    let owner = below.strip_prefix(".judge").unwrap_or(below).components().next();
    owner.map(|name| name.as_os_str().to_string_lossy().into_owned()).unwrap_or_default()
}

/// The names in a directory, sorted; none where there is no directory.
fn names(place: &Path) -> Result<Vec<String>> {
    let entries = match std::fs::read_dir(place) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.at("read", place.display())?,
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry.at("read", place.display())?.file_name().into_string());
    }
    names.sort();
    Ok(names)
}

/// Opens a state root to look at it: `None` where there is none, which is clean.
///
/// # Errors
/// As `open(2)`.
pub fn open_root(place: &Path) -> Result<Option<Root>> {
    match path::open(place, libc::O_PATH | libc::O_DIRECTORY) {
        Err(Errno::ENOENT) => Ok(None),
        _ => Root::open(place).map(Some),
    }
}

/// Looks over the state root at this place, which need not be there.
///
/// # Errors
/// As [`open_root`] and [`survey`].
pub fn look(place: &Path) -> Result<Survey> {
    match open_root(place)? {
        Some(root) => survey(&root),
        None => Ok(Survey { clean: true, root: place.to_owned(), ..Survey::default() }),
    }
}
