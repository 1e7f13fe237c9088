//! From the entered root file system to the program: the wait for `start`, the last hooks, the user, the exec.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use oci_spec::runtime::Hook;

use super::ahead::Ahead;
use super::channel::{Message, failure};
use super::{Init, Reaper, creator_ended};
use crate::cgroup;
use crate::container::hooks::Kind;
use crate::error::{At, Error, Result};
use crate::sys::{Errno, path, process, wait};

impl Init<'_> {
    /// From the entered root file system on. `payload` are the cgroups that the payload enters, `ahead` is the payload where
    /// it has been made.
    pub(super) fn go_on(&mut self, payload: &cgroup::Entry, ahead: Option<Ahead>) -> i32 {
        if let Some(reaper) = self.reaper {
            return self.go_on_beside(reaper, payload, ahead);
        }
        if let Err(error) = self.get_ready() {
            return self.fail_creation(&error);
        }
        match self.wait_for_start() {
            Ok(true) => {}
            // The creator has died before init was on record.
            Ok(false) => return 1,
            Err(error) => return self.fail(&error),
        }
        let error = self.start_hooks().err().unwrap_or_else(|| self.execute());
        self.fail(&error)
    }

    /// The same for an init that is not the program, but beside it.
    fn go_on_beside(&mut self, reaper: &dyn Reaper, payload: &cgroup::Entry, ahead: Option<Ahead>) -> i32 {
        let hooks = self.hooks_at_start().is_some();
        let made = ahead.map_or_else(|| self.make_late(reaper, payload, hooks), Ok);
        let ready = made.and_then(|ahead| {
            // Where there are no hooks the payload itself waits for `start`.
            if !hooks {
                ahead.tell()?;
            }
            // Before init is ready, so before anything is executed in here.
            self.retire(reaper, &ahead)?;
            self.get_ready().map(|()| ahead)
        });
        let ahead = match ready {
            Ok(ahead) => ahead,
            Err(error) => return self.fail_creation(&error),
        };
        if hooks {
            match self.wait_for_start() {
                Ok(true) => {}
                Ok(false) => return 1,
                Err(error) => return self.fail(&error),
            }
            if let Err(error) = self.start_hooks().and_then(|()| ahead.tell()) {
                return self.fail(&error);
            }
        }
        reaper.reap(ahead.into_payload())
    }

    /// In the payload's process: becomes the user, waits for `start` where init has not, and becomes the program; returns only
    /// where that fails.
    pub(super) fn become_program(&mut self, started: bool) -> Error {
        let start = |init: &mut Self| if started { Ok(true) } else { init.wait_for_start() };
        match self.become_user().and_then(|()| start(self)) {
            Ok(true) => self.execute(),
            Ok(false) => creator_ended(),
            Err(error) => error,
        }
    }

    /// What is run in here between `start` and the program, if anything.
    fn hooks_at_start(&self) -> Option<&[Hook]> {
        let hooks = self.spec.hooks().as_ref()?.start_container().as_deref()?;
        (!hooks.is_empty()).then_some(hooks)
    }

    fn start_hooks(&self) -> Result<()> {
        let hooks = self.hooks_at_start();
        // The container's filter holds for all that runs in it; init itself may have it already.
        let early = self.process.seccomp_early();
        let loaded = if early { self.reaper.is_none() } else { self.seccomp_before_gate };
        let load = || match (self.reaper, self.seccomp) {
            (Some(reaper), _) => reaper.filter_hook(),
            (None, Some(load)) if !loaded => load(&self.channel),
            _ => Ok(()),
        };
        self.run_hooks(Kind::StartContainer, hooks, &[], &load)
    }

    /// Waits until the creator says so: true to go on, false where it has died.
    fn wait_for_start(&mut self) -> Result<bool> {
        let Some(gate) = &self.gate else {
            // Of what is left to do this needs no word.
            self.process.default_signals()?;
            // That it is on record needs no word of its own: either way init ends with its creator.
            return Ok(self.channel.receive()? == Some(Message::Start));
        };
        if self.channel.receive()? != Some(Message::Commit) {
            return Ok(false);
        }
        let mut byte = [0u8];
        loop {
            match nix::unistd::read(gate.open.as_raw_fd(), &mut byte) {
                Err(Errno::EINTR) => {}
                Ok(1) => return Ok(true),
                other => return other.at("read", "the gate").map(|_| false),
            }
        }
    }

    /// Takes on the program's identity and limits, and finds the program, if there is one, as that user.
    pub(super) fn become_user(&mut self) -> Result<()> {
        self.process.prepare(Some(self.procfs))?;
        self.leave_host(&[])?;
        let channel = &self.channel;
        match self.seccomp {
            Some(load) => self.process.apply(None, Some(&mut || load(channel)))?,
            None => self.process.apply(None, None)?,
        }
        if self.record.no_process { Ok(()) } else { self.process.resolve() }
    }

    /// Closes every descriptor but those that are no way to anywhere: from here on paths of the container are looked up, and
    /// one that leads through `/proc/self/fd`, by a link in the image, must not come to the host (the class of CVE-2024-21626).
    pub(super) fn leave_host(&self, also: &[BorrowedFd<'_>]) -> Result<()> {
        let mut keep = vec![self.channel.as_fd()];
        keep.extend(also);
        keep.extend(self.gate.iter().flat_map(|gate| [gate.open.as_fd(), gate.answer.as_fd()]));
        keep.extend(self.reaper.map(|reaper| reaper.line()));
        keep.extend(process::handed_down(3 + self.process.preserve_fds()));
        wait::close_all_but(&keep).at("close", "the descriptors of the host")
    }

    /// Turns the caller into the program; returns only where that fails.
    fn execute(&mut self) -> Error {
        let channel = &self.channel;
        match self.seccomp.filter(|_| !self.seccomp_before_gate) {
            Some(load) => self.process.exec(Some(&mut || load(channel))),
            None => self.process.exec(None),
        }
    }

    /// Reports an error after the gate to whoever has opened it.
    fn fail(&self, error: &Error) -> i32 {
        match &self.gate {
            Some(gate) => {
                let text = error.to_string();
                let _ = path::write_once(gate.answer.as_fd(), &text.as_bytes()[..text.len().min(4096)]);
            }
            None => {
                let _ = self.channel.send(&failure(error));
            }
        }
        match error.errno() {
            Some(Errno::ENOENT) => 127,
            Some(Errno::EACCES | Errno::ENOEXEC) => 126,
            _ => 1,
        }
    }
}
