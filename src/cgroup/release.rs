//! The end of a cgroup: who is in it, killing them all, removing the directories, and proof.

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::backend::{Backend, backend};
use super::create::Cgroup;
use super::file::Dir;
use super::layout::{Controller, Version};
use super::plan::Directory;
use super::{systemd, tree};
use crate::error::{At, Error, Result};
use crate::sys::{Errno, pidfd};

/// First pause between two looks at something the kernel is finishing.
const FIRST_PAUSE: Duration = Duration::from_micros(50);
/// Longest such pause.
const LAST_PAUSE: Duration = Duration::from_millis(20);
/// How long one round of freezing may take before it is tried anew.
const KILL_ROUNDS: u32 = 100;

impl Cgroup {
    /// Every process in the cgroup and in those below it, as pids of the caller's pid namespace. A process whose
    /// pid is not visible there reads as 0 and is left out.
    ///
    /// # Errors
    /// As `open(2)` and `read(2)`; a directory that is gone holds nobody.
    pub fn procs(&self) -> Result<Vec<libc::pid_t>> {
        let mut pids = BTreeSet::new();
        if let Some(place) = self.plan.census() {
            tree::collect(&self.plan.directories[place].path, &mut pids)?;
        }
        Ok(pids.into_iter().collect())
    }

    /// Whether others were in the directory that says who is a member: then it does not say who is the container's.
    pub fn is_shared(&self) -> bool {
        match self.plan.unified() {
            Some(unified) => unified.shared,
            None => self.plan.directories.iter().any(|directory| directory.shared),
        }
    }

    /// Kills everything in the cgroup with SIGKILL, at once and against any fork bomb: by `cgroup.kill` where there
    /// is a v2 directory, else by freezing, signalling and thawing until it is empty. Returns
    /// without having killed (`false`) where the cgroup was shared, or never entered: who is there is not ours.
    ///
    /// The processes end on their own time; [`Cgroup::remove`] waits for them.
    ///
    /// # Errors
    /// As `write(2)`.
    pub fn kill(&self) -> Result<bool> {
        if self.plan.unentered || self.is_shared() {
            return Ok(false);
        }
        if let Some(unified) = self.plan.unified() {
            match Dir::new(&unified.path).try_write("cgroup.kill", "1") {
                Ok(()) => return Ok(true),
                Err(Errno::ENOENT) if !unified.path.exists() => return Ok(true),
                // Linux before 5.14.
                Err(Errno::ENOENT) => {}
                Err(errno) => return Err(errno).at("kill cgroup", unified.path.display()),
            }
        }
        if self.plan.directories.iter().any(|directory| directory.shared) {
            return Ok(false);
        }
        self.kill_one_by_one()?;
        Ok(true)
    }

    fn kill_one_by_one(&self) -> Result<()> {
        let mut pause = FIRST_PAUSE;
        for _ in 0..KILL_ROUNDS {
            // Nobody forks while frozen. Where freezing does not work, signalling until nobody is left does.
            let frozen = self.freeze().is_ok();
            let left = self.signal(libc::SIGKILL);
            if frozen {
                self.thaw()?;
            }
            if left? == 0 {
                return Ok(());
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(LAST_PAUSE);
        }
        Ok(())
    }

    /// Sends a signal to every process in the cgroup, through pidfds; says how many got it.
    ///
    /// # Errors
    /// As `pidfd_send_signal(2)`; a process that has just ended is no error.
    pub fn signal(&self, signal: i32) -> Result<usize> {
        let mut handles = Vec::new();
        for pid in self.procs()? {
            match pidfd::open(pid) {
                Ok(pidfd) => handles.push((pid, pidfd)),
                Err(Errno::ESRCH) => {}
                Err(errno) => return Err(errno).at("open pidfd of", pid),
            }
        }
        // A pid may have been given to another process between the listing and the pidfd: who is still listed now was
        // a member when the pidfd was made.
        let members = self.procs()?;
        let mut sent = 0;
        for (pid, pidfd) in handles.iter().filter(|(pid, _)| members.binary_search(pid).is_ok()) {
            match pidfd::send_signal(pidfd.as_fd(), signal) {
                Ok(()) => sent += 1,
                Err(Errno::ESRCH) => {}
                Err(errno) => return Err(errno).at("signal process", pid),
            }
        }
        Ok(sent)
    }

    /// Freezes everything in the cgroup and waits until it is frozen.
    ///
    /// # Errors
    /// [`Error::Refused`] where the host can freeze by neither interface; [`Error::Other`] when it does not come to rest
    /// in two seconds, and it is then thawed again.
    pub fn freeze(&self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(2);
        let mut pause = FIRST_PAUSE;
        let (backend, dir) = self.freezer()?;
        loop {
            // v1: a task that forks while the state goes to FROZEN may leave it at FREEZING for good; writing
            // again makes the kernel look again.
            backend.set_frozen(&dir, true)?;
            let frozen = backend.is_frozen(&dir)?;
            if frozen {
                return Ok(());
            }
            if Instant::now() >= deadline {
                self.thaw()?;
                return Err(Error::Other(format!("cgroup `{}` does not freeze", dir.path().display())));
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }

    /// Lets everything run again.
    ///
    /// # Errors
    /// As `write(2)`.
    pub fn thaw(&self) -> Result<()> {
        let (backend, dir) = self.freezer()?;
        backend.set_frozen(&dir, false)
    }

    /// Brings processes that somebody has moved to another v1 freezer back, and thaws them: a signal ends nobody who is
    /// frozen there.
    ///
    /// # Errors
    /// As `write(2)`.
    pub fn thaw_strays(&self) -> Result<()> {
        let freezer = self.plan.directory(Controller::Freezer).filter(|it| it.version == Version::V1 && !it.shared);
        let Some(freezer) = freezer.filter(|_| !self.plan.unentered && !self.is_shared()) else { return Ok(()) };
        let dir = Dir::new(&freezer.path);
        backend(Version::V1).set_frozen(&dir, false)?;
        // On v1 alone it is the freezer that says who is a member, and a stray has left just that.
        let mut pids = BTreeSet::new();
        for directory in self.plan.directories.iter().filter(|directory| !directory.shared) {
            tree::collect(&directory.path, &mut pids)?;
        }
        for pid in pids {
            match dir.try_write("cgroup.procs", &pid.to_string()) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(errno) => return Err(errno).at("thaw process", pid),
            }
        }
        Ok(())
    }

    /// Whether it has been frozen. What has no freezer of its own has not.
    ///
    /// # Errors
    /// As `read(2)`.
    pub fn is_frozen(&self) -> Result<bool> {
        let Ok((backend, dir)) = self.freezer() else { return Ok(false) };
        backend.is_freezing(&dir)
    }

    /// Freezing costs a tenth on v2 and a frozen v2 task can still be killed: it is preferred on hybrid hosts.
    fn freezer(&self) -> Result<(&'static dyn Backend, Dir)> {
        let v2 = self.plan.unified().map(|directory| Dir::new(&directory.path));
        if let Some(dir) = v2.filter(|dir| dir.has("cgroup.freeze")) {
            return Ok((backend(Version::V2), dir));
        }
        match self.plan.directory(Controller::Freezer) {
            Some(directory) if directory.version == Version::V1 => {
                Ok((backend(Version::V1), Dir::new(&directory.path)))
            }
            _ => Err(Error::Refused("this host has no freezer controller".to_owned())),
        }
    }

    /// The same as what it may be taken for at a release: where systemd has no scope of this container, whoever is in a
    /// cgroup of that name is another's.
    ///
    /// # Errors
    /// Where systemd cannot be asked; then too nobody in it may be killed.
    pub fn owned(&self) -> (Cgroup, Result<()>) {
        let ours = self.plan.unit.as_ref().map_or(Ok(true), systemd::is_ours);
        let plan = if matches!(ours, Ok(true)) { self.plan.clone() } else { self.plan.unentered() };
        (Cgroup::of(plan), ours.map(drop))
    }

    /// Has systemd take the scope away, where the container has one, and proves it gone.
    ///
    /// # Errors
    /// Where systemd cannot be asked, or the scope is still there after `patience`.
    pub fn stop_unit(&self, patience: Duration) -> Result<()> {
        match &self.plan.unit {
            Some(unit) => systemd::stop(unit, patience),
            None => Ok(()),
        }
    }

    /// Removes the directories, those that the container made inside them first, and waits for processes that are
    /// still ending, at most `patience` in all. That `rmdir` succeeds is the proof that no process is left in any.
    /// A shared directory stays where others are in it.
    ///
    /// # Errors
    /// [`Error::Other`] naming each directory that is left and a process in it; as `rmdir(2)` for anything but `EBUSY`.
    pub fn remove(&self, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        let mut pause = FIRST_PAUSE;
        let mut thawed = false;
        let mut left: Vec<_> = self.plan.directories.iter().rev().collect();
        loop {
            // A look at all that a container has made may take longer than there is time: the last one begins after that.
            let last = Instant::now() >= deadline;
            let mut busy = Vec::new();
            for directory in left {
                let gone = if directory.shared {
                    tree::rmdir(&directory.path)?;
                    true
                } else {
                    tree::remove(&directory.path)?
                };
                if !gone {
                    busy.push(directory);
                }
            }
            if busy.is_empty() {
                return Ok(());
            }
            left = busy;
            if last {
                let left: Vec<_> = left.iter().map(|directory| describe(&directory.path)).collect();
                return Err(Error::Other(format!("cgroup is still in use: {}", left.join("; "))));
            }
            if pause > Duration::from_millis(1) && !thawed {
                // A v1-frozen task does not die of SIGKILL. Somebody else froze it: we use v2 where it is.
                thawed = true;
                for directory in
                    left.iter().filter(|it| it.version == Version::V1 && it.controllers.contains(&Controller::Freezer))
                {
                    let _ = Dir::new(&directory.path).try_write("freezer.state", "THAWED");
                }
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }

    /// Removes the v1 directories that only the payload was in ([`Plan::payload_leaf`](super::Plan::payload_leaf)), where
    /// nobody is in them any more. What stays is for [`Cgroup::remove`].
    pub fn remove_payload(&self) {
        let plan = &self.plan;
        let ours = |it: &&Directory| plan.unit.is_none() && !it.shared && plan.is_payloads_alone(it);
        for directory in plan.directories.iter().filter(ours) {
            let _ = tree::rmdir(&directory.path);
        }
    }

    /// The directories that are still there, but for those that were there before: the proof's question.
    pub fn remaining(&self) -> Vec<PathBuf> {
        let ours = self.plan.directories.iter().filter(|directory| !directory.shared);
        ours.map(|directory| directory.path.clone()).filter(|path| path.exists()).collect()
    }
}

/// A busy directory in words, with one process that holds it.
fn describe(path: &Path) -> String {
    let mut pids = BTreeSet::new();
    let holder = match tree::collect(path, &mut pids).ok().and_then(|()| pids.first()) {
        Some(pid) => {
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            format!("process {pid} `{}`", name.trim())
        }
        None => "a process that is ending".to_owned(),
    };
    format!("`{}` by {holder}", path.display())
}
