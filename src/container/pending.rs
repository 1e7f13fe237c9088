//! The second half of `create`: a container whose init sets itself up, until init is on record.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use crate::cleanup;
use crate::container::created::Created;
use crate::container::delete::poststop;
use crate::container::identity::{self, ProcessId};
use crate::container::pid_file;
use crate::container::record::InitRecord;
use crate::container::report::Report;
use crate::container::root::Root;
use crate::container::spawn::Conversation;
use crate::container::state::{Directory, Record, Status};
use crate::error::{Error, Result};
use crate::init::channel::{Channel, Message};
use crate::seccomp;
use crate::seccomp::notify::{Handover, container_process_state};
use crate::sys::clone::Child;

/// Takes back what was made of a container that cannot be created.
pub(super) fn undo(
    root: &Root,
    directory: Directory,
    record: &Record,
    init: Option<OwnedFd>,
    hooks_ran: bool,
    pid_file: Option<&Path>,
    error: Error,
) -> Error {
    if let Some(file) = pid_file {
        let _ = std::fs::remove_file(file);
    }
    let proof = cleanup::release(root, directory, record, init, |directory| {
        if hooks_ran {
            let _ = poststop(directory, record);
        }
    });
    proof.after(error)
}

/// Init's identity: as it was looked at before, or now.
///
/// # Errors
/// Where it is gone.
pub(super) fn known(identity: Option<ProcessId>, pid: libc::pid_t) -> Result<ProcessId> {
    let gone = || Error::Other("the container's first process has ended unexpectedly".to_owned());
    identity.map_or_else(|| identity::identify(pid)?.ok_or_else(gone), Ok)
}

/// A container whose init sets itself up; it ends where this is dropped, but is then for recovery to release.
#[derive(Debug)]
pub struct Pending<'r> {
    pub(super) root: &'r Root,
    pub(super) directory: Directory,
    pub(super) record: Record,
    pub(super) channel: Channel,
    pub(super) child: Child,
    /// Init, looked at while it sets itself up.
    pub(super) identity: Option<ProcessId>,
    pub(super) init_file: OwnedFd,
    /// All its processes end with the first one, or are the host's mount namespace's.
    pub(super) alone: bool,
    pub(super) hooks_ran: bool,
    pub(super) pid_file: Option<PathBuf>,
    pub(super) notifier: Option<(Handover, seccomp::Filter)>,
}

impl Pending<'_> {
    /// Readable when init is ready, or has failed.
    pub fn channel(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }

    /// A handle of init.
    pub fn init(&self) -> BorrowedFd<'_> {
        self.child.pidfd.as_fd()
    }

    /// What is recorded of the container.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Waits until init stands at the gate, and records it.
    ///
    /// # Errors
    /// As [`create`].
    pub fn finish(self) -> Result<Created> {
        match self.conclude() {
            Ok(init) => {
                let Pending { directory, record, channel, child, .. } = self;
                Ok(Created { directory, record, init, pidfd: child.pidfd, proxy: None, channel })
            }
            Err(error) => Err(self.abandon(error)),
        }
    }

    /// Ends init and takes back what was made; gives the error with what remains, where something does.
    pub fn abandon(self, error: Error) -> Error {
        let Pending { root, directory, record, child, hooks_ran, pid_file, .. } = self;
        undo(root, directory, &record, Some(child.pidfd), hooks_ran, pid_file.as_deref(), error)
    }

    fn conclude(&self) -> Result<ProcessId> {
        let pid = self.child.pid;
        let conversation = Conversation { channel: &self.channel, child: &self.child.pidfd };
        if self.record.unattended {
            // It is on record, and its first word is read with its last.
            self.channel.wait_end()?;
            conversation.expect(&Message::Ready)?;
            let init = known(self.identity, pid)?;
            self.directory.record_start(&self.init_file, init)?;
            return Ok(init);
        }
        let mut take = || self.deliver_listener();
        conversation.expect_ready(if self.notifier.is_some() { Some(&mut take) } else { None })?;
        let init = known(self.identity, pid)?;
        if let Some(file) = &self.pid_file {
            pid_file::write(file, pid)?;
        }
        // Where no pid namespace ends them all, this says who belongs to the container.
        let mount_namespace = if self.alone { None } else { cleanup::orphans::mount_namespace(pid) };
        self.directory.record_init(&self.init_file, InitRecord { process: init, mount_namespace, starting: false })?;
        if !self.record.ungated {
            conversation.tell(&Message::Commit, &[])?;
        }
        Ok(init)
    }

    /// Takes the listener of the filter that init has attached, and sends it to the agent.
    fn deliver_listener(&self) -> Result<()> {
        let Some((handover, filter)) = &self.notifier else {
            return Err(Error::Other("init attaches a filter that nobody has asked for".to_owned()));
        };
        let pid = self.child.pid;
        let state = Report::new(&self.record, Status::Creating, pid).value();
        let metadata = filter.listener_metadata.as_deref();
        handover.deliver(self.init(), &container_process_state(&self.record.oci_version, pid, metadata, &state))
    }
}
