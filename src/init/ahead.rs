//! A judged payload's process, which waits for init's word: what is its own to do is done beside init, and nothing of the host
//! is held by either when the first program is executed in the sandbox.
//!
//! | made | where | goes on |
//! |---|---|---|
//! | when the mounts are made, beside init that enters the root and finishes it | mostly | when the root is complete |
//! | when the root is complete | where hooks, a terminal or another way into the root come first | when the hooks have run |
//!
//! The first begins as init, in its mount namespace and with the root that it has then; it makes sure that its root is the
//! container's before it looks anything up. While the second still holds anything of the host no hook begins.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::fcntl::OFlag;
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::reaper::Payload;
use super::{Init, Reaper};
use crate::cgroup;
use crate::error::{At, Result};
use crate::sys::{Errno, process, wait};

/// A payload that waits for init's word.
#[derive(Debug)]
pub(super) struct Ahead {
    payload: Payload,
    word: EventFd,
}

impl Ahead {
    /// Tells it to go on.
    ///
    /// # Errors
    /// As `write(2)`.
    pub(super) fn tell(&self) -> Result<()> {
        self.word.write(1).at("tell", "the payload to go on").map(drop)
    }

    /// The process, for who reaps it.
    pub(super) fn into_payload(self) -> Payload {
        // Its descriptor is closed with all others.
        std::mem::forget(self.word);
        self.payload
    }

    /// What init needs of it.
    fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        [self.payload.signals(), self.word.as_fd()]
    }
}

impl Init<'_> {
    /// Makes the payload's process where nothing is to happen before it that is not init's own doing.
    pub(super) fn make_ahead(&mut self, payload: &cgroup::Entry) -> Result<Option<Ahead>> {
        let Some(reaper) = self.reaper.filter(|_| self.may_be_ahead()) else { return Ok(None) };
        let word = event()?;
        let payload = reaper.make(payload, &mut || {
            let followed = self.make_own().and_then(|()| hear(&word)).and_then(|()| self.rootfs.check_entered());
            followed.map_or_else(|error| error, |()| self.become_program(false))
        })?;
        Ok(Some(Ahead { payload, word }))
    }

    fn may_be_ahead(&self) -> bool {
        self.gate.is_none()
            && self.spec.hooks().is_none()
            && !self.process.terminal
            && !self.process.seccomp_early()
            && self.namespaces.late_pid().is_none()
            && self.rootfs.takes_others_along()
    }

    /// Makes the payload's process in the complete root, and returns when it holds nothing of the host any more; `started`
    /// where init waits for `start` before it tells it to go on.
    pub(super) fn make_late(&mut self, reaper: &dyn Reaper, payload: &cgroup::Entry, started: bool) -> Result<Ahead> {
        let word = event()?;
        let (held, holds) = nix::unistd::pipe2(OFlag::O_CLOEXEC).at("make", "a pipe from the payload")?;
        let payload = reaper.make(payload, &mut || {
            // The end of the pipe is closed with what is of the host.
            let left = self.make_own().and_then(|()| self.leave_host(&[word.as_fd()])).and_then(|()| hear(&word));
            left.map_or_else(|error| error, |()| self.become_program(started))
        })?;
        drop(holds);
        while let Err(Errno::EINTR) = nix::unistd::read(held.as_raw_fd(), &mut [0]) {}
        Ok(Ahead { payload, word })
    }

    /// In the payload's process: what needs no root file system.
    fn make_own(&mut self) -> Result<()> {
        self.process.prepare(Some(self.procfs))?;
        self.process.default_signals()
    }

    /// In init, before anything is executed in its pid namespace that could look into it.
    pub(super) fn retire(&self, reaper: &dyn Reaper, ahead: &Ahead) -> Result<()> {
        process::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0).at("make", "init undumpable")?;
        let mut keep = vec![self.channel.as_fd(), reaper.line()];
        keep.extend(ahead.descriptors());
        wait::close_all_but(&keep).at("close", "descriptors")
    }
}

fn event() -> Result<EventFd> {
    EventFd::from_flags(EfdFlags::EFD_CLOEXEC).at("make", "an eventfd")
}

/// Waits for the word; where init ends instead, so does this process.
fn hear(word: &EventFd) -> Result<()> {
    loop {
        match word.read() {
            Err(Errno::EINTR) => {}
            heard => return heard.at("hear", "that the payload may go on").map(drop),
        }
    }
}
