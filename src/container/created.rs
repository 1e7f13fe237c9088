//! A created container as its creator sees it: init stands at the gate.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::container::identity::{self, ProcessId};
use crate::container::notify_socket::Proxy;
use crate::container::state::{Directory, Record};
use crate::error::{Error, Result};
use crate::init::channel::{Channel, Message};

/// A created container: init stands at the gate and is on record.
#[derive(Debug)]
pub struct Created {
    /// Its directory, locked.
    pub directory: Directory,
    /// What is recorded of it.
    pub record: Record,
    /// Its first process.
    pub init: ProcessId,
    /// A handle of its first process.
    pub pidfd: OwnedFd,
    /// Waits for the program to be ready, where it can say so; made by [`launch`](crate::container::run::launch).
    pub proxy: Option<Proxy>,
    pub(super) channel: Channel,
}

impl Created {
    /// Starts a container that has no gate, where that has not been done, and waits for the exec.
    ///
    /// # Errors
    /// Why the program could not be executed.
    pub fn start(&self) -> Result<()> {
        let opened = if self.record.unattended { Ok(()) } else { self.open_gate() };
        // Where init has ended, it may have said why. Its silence is no exec.
        self.heard().and(opened)?;
        if identity::has_executed(self.init)? { Ok(()) } else { Err(never_executed()) }
    }

    /// Lets init go on to the exec, without waiting for it: [`Created::channel`] is readable when it has happened.
    ///
    /// # Errors
    /// Where init has ended.
    pub fn open_gate(&self) -> Result<()> {
        self.channel.send(&Message::Start)
    }

    /// The creator's end of the line to init.
    pub fn channel(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }

    /// Hears whether the exec has succeeded.
    ///
    /// # Errors
    /// Why the program could not be executed.
    pub fn heard(&self) -> Result<()> {
        match self.channel.receive()? {
            None => Ok(()),
            Some(Message::Failed(errno, text)) => Err(Error::Init { errno, text }),
            Some(other) => Err(Error::Other(format!("init said {other:?} instead of executing the program"))),
        }
    }
}

/// The error of an init whose line has ended without a word, although it has executed nothing.
pub(super) fn never_executed() -> Error {
    Error::Other("the container's first process has ended before it executed the program".to_owned())
}
