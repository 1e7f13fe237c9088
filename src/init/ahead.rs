//! A judged payload's process, made while init enters the root file system and finishes it: two processors share the work.
//!
//! It begins as init, in the mount namespace and with the root that init has then. It is in the payload's cgroups and has all
//! that needs no path when init says that the root file system is complete; it makes sure that this is its own root by then,
//! becomes the user, and waits for `start`.

use nix::sys::eventfd::{EfdFlags, EventFd};

use super::reaper::Payload;
use super::{Init, creator_ended};
use crate::cgroup;
use crate::error::{At, Error, Result};
use crate::sys::Errno;

/// A payload that waits for its root file system.
#[derive(Debug)]
pub(super) struct Ahead {
    payload: Payload,
    root: EventFd,
}

impl Ahead {
    /// Tells it that the root file system is complete.
    ///
    /// # Errors
    /// As `write(2)`.
    pub(super) fn go_on(self) -> Result<Payload> {
        self.root.write(1).at("tell the payload of", "its root file system")?;
        Ok(self.payload)
    }
}

impl Init<'_> {
    /// Makes the payload's process where nothing is to happen before it that is not init's own doing.
    pub(super) fn make_ahead(&mut self, payload: &cgroup::Entry) -> Result<Option<Ahead>> {
        let Some(reaper) = self.reaper.filter(|_| self.may_be_ahead()) else { return Ok(None) };
        let root = EventFd::from_flags(EfdFlags::EFD_CLOEXEC).at("make", "an eventfd")?;
        let payload = reaper.make(payload, &mut || match self.follow(&root) {
            Ok(()) => self.become_program(),
            Err(error) => error,
        })?;
        Ok(Some(Ahead { payload, root }))
    }

    fn may_be_ahead(&self) -> bool {
        self.gate.is_none()
            && self.spec.hooks().is_none()
            && !self.process.terminal
            && !self.process.seccomp_early()
            && self.namespaces.late_pid().is_none()
            && self.rootfs.takes_others_along()
    }

    /// In the payload's process: what needs no root file system, until there is one.
    fn follow(&mut self, root: &EventFd) -> Result<()> {
        self.process.prepare(Some(self.procfs))?;
        self.process.default_signals()?;
        loop {
            match root.read() {
                Err(Errno::EINTR) => {}
                // Init has told it; where it ends instead, so does this process.
                Ok(1..) => return self.rootfs.check_entered(),
                Ok(0) => return Err(creator_ended()),
                Err(errno) => return Err(Error::sys("hear of", "the root file system", errno)),
            }
        }
    }
}
