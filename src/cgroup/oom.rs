//! Hearing of OOM situations in a container.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::poll::{PollFd, PollFlags};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::create::Cgroup;
use super::file::{Dir, keyed};
use super::layout::{Controller, Version};
use crate::error::{At, Result};
use crate::sys::{Errno, path};

/// Hears of OOM situations.
#[derive(Debug)]
pub struct OomWatch {
    dir: Dir,
    source: Source,
}

#[derive(Debug)]
enum Source {
    /// The kernel counts them (`admin-guide/cgroup-v1/memory`, section 9).
    V1(EventFd),
    /// `memory.events`, which polls as exceptional when it has changed since it was read; `kills` is what it counted then.
    V2 { events: OwnedFd, kills: u64 },
}

impl Cgroup {
    /// Watches for OOM situations from now on; nothing where no memory controller counts the container's memory.
    ///
    /// # Errors
    /// As the calls.
    pub fn watch_oom(&self) -> Result<Option<OomWatch>> {
        let Some(directory) = self.plan.directory(Controller::Memory) else { return Ok(None) };
        let dir = self.plan.limits_dir(directory);
        let source = match directory.version {
            Version::V1 => Source::V1(register(&dir)?),
            Version::V2 => {
                let events = dir.open("memory.events", libc::O_RDONLY)?;
                let kills = kills(&dir, &events)?;
                Source::V2 { events, kills }
            }
        };
        Ok(Some(OomWatch { dir, source }))
    }
}

impl OomWatch {
    /// How many situations there were since the last call. None is reported for a cgroup that is being removed.
    ///
    /// # Errors
    /// As `read(2)`.
    pub fn take(&mut self) -> Result<u64> {
        match &mut self.source {
            Source::V1(event) => match event.read() {
                // The kernel also signals the end of the cgroup.
                Ok(count) => Ok(if self.dir.has("memory.oom_control") { count } else { 0 }),
                Err(Errno::EAGAIN) => Ok(0),
                Err(errno) => Err(errno).at("read", "an eventfd"),
            },
            Source::V2 { events, kills: before } => {
                let now = match kills(&self.dir, events) {
                    // The cgroup is gone.
                    Err(error) if error.errno() == Some(Errno::ENODEV) => *before,
                    other => other?,
                };
                Ok(now.saturating_sub(std::mem::replace(before, now)))
            }
        }
    }

    /// What to poll for.
    pub fn poll_fd(&self) -> PollFd<'_> {
        match &self.source {
            Source::V1(event) => PollFd::new(event.as_fd(), PollFlags::POLLIN),
            Source::V2 { events, .. } => PollFd::new(events.as_fd(), PollFlags::POLLPRI),
        }
    }
}

fn register(dir: &Dir) -> Result<EventFd> {
    let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).at("make", "an eventfd")?;
    let control = dir.open("memory.oom_control", libc::O_RDONLY)?;
    let listener = dir.open("cgroup.event_control", libc::O_WRONLY)?;
    let line = format!("{} {}", event.as_fd().as_raw_fd(), control.as_raw_fd());
    path::write_once(listener.as_fd(), line.as_bytes()).at("write to", dir.file("cgroup.event_control").display())?;
    Ok(event)
}

/// Reads from the beginning: that also arms the next poll.
fn kills(dir: &Dir, events: &OwnedFd) -> Result<u64> {
    let mut buffer = [0; 1024];
    let length = nix::sys::uio::pread(events, &mut buffer, 0).at("read", dir.file("memory.events").display())?;
    Ok(keyed(&String::from_utf8_lossy(&buffer[..length]), "oom_kill").unwrap_or(0))
}
