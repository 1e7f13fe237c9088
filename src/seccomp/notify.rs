//! SCMP_ACT_NOTIFY of config.json: the listener goes to the agent at `linux.seccomp.listenerPath`.
//!
//! Source: runtime-spec, config-linux.md, "The Container Process State". Three parties:
//!
//! | creator | init | agent |
//! |---|---|---|
//! | [`Agent::connect`] (before anything is made) | | accepts |
//! | makes the [`Mailbox`], clones init | attaches the filter ([`load_and_post`]), stores the listener's number, spins | |
//! | [`deliver`]: sees the number, takes the listener by pidfd::getfd(2), sends it with the state | | receives it |
//! | acknowledges | goes on to execve | answers |
//!
//! The process that `exec` adds to a container goes the same way as init.
//!
//! Init makes no system call between attaching the filter and the receipt, so a profile may notify any call at all:
//! `write`, `sendmsg`, `read` and `SCMP_ACT_NOTIFY` as default action included (runc refuses some of those).

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::socket::{Shutdown, shutdown};

use super::Filter;
use crate::error::{At, Error, Result};
use crate::sys::mailbox::{Mailbox, trap};

use crate::sys::{self, pidfd, socket};

/// How long the agent may take to accept, and to take the message.
const AGENT_PATIENCE: Duration = Duration::from_secs(10);

/// How long init may take to attach a filter that it has announced.
const ATTACH_PATIENCE: Duration = Duration::from_secs(10);

/// How many rounds init waits for its creator: about ten times longer than the creator may take.
const INIT_SPINS: u64 = 4_000_000_000;

/// What a process and its creator share so that a filter's listener reaches the agent.
#[derive(Debug)]
pub struct Handover {
    agent: Agent,
    mailbox: Mailbox,
}

impl Handover {
    /// For a filter that notifies: connects to the agent and maps the mailbox. Before anything is made.
    ///
    /// # Errors
    /// [`Error::Config`] without a listenerPath; as `connect(2)`, with the path.
    pub fn prepare(filter: &Filter) -> Result<Option<Handover>> {
        if !filter.notify {
            return Ok(None);
        }
        let missing = || Error::config("$.linux.seccomp.listenerPath", "is missing, but the filter notifies");
        let agent = Agent::connect(filter.listener_path.as_ref().ok_or_else(missing)?)?;
        Ok(Some(Handover { agent, mailbox: Mailbox::new().at("map", "a page shared with init")? }))
    }

    /// In the process itself: loads a filter, whether it notifies or not. `announce` is called before one that does is
    /// attached, and has the creator deliver it.
    ///
    /// # Errors
    /// As `seccomp(2)`.
    pub fn load(
        handover: Option<&Handover>,
        filter: Option<&Filter>,
        announce: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        match (filter, handover) {
            (Some(filter), Some(handover)) => {
                announce()?;
                load_and_post(filter, &handover.mailbox)
            }
            (Some(filter), None) => filter.load().map(drop),
            (None, _) => Ok(()),
        }
    }

    /// In its creator, once the process has announced the filter: as [`deliver`].
    ///
    /// # Errors
    /// Where the process ends or the agent does not take the message.
    pub fn deliver(&self, process: BorrowedFd<'_>, state: &[u8]) -> Result<()> {
        deliver(&self.mailbox, process, &self.agent, state, ATTACH_PATIENCE)
    }
}

/// The connection to the seccomp agent.
#[derive(Debug)]
pub struct Agent {
    socket: OwnedFd,
    path: PathBuf,
}

impl Agent {
    /// Connects. Do it before anything is made, so that a missing agent fails early and cheaply.
    pub fn connect(path: &Path) -> Result<Self> {
        // The bound on sending also bounds connect(2), when the agent's backlog is full.
        let socket = socket::connect(path, Some(AGENT_PATIENCE))
            .at("failed to connect with seccomp agent at", path.display())?;
        Ok(Agent { socket, path: path.to_owned() })
    }

    /// Sends the container process state with the listener attached, and ends the stream: init has a copy of the socket
    /// until it executes, so closing ours would not.
    pub fn send(&self, state: &[u8], listener: BorrowedFd<'_>) -> Result<()> {
        let step = "send the listener to the seccomp agent at";
        let at = |sent: sys::Result<usize>| sent.at(step, self.path.display());
        let mut sent = at(socket::send(self.socket.as_fd(), state, &[listener]))?;
        while sent < state.len() {
            sent += at(socket::send(self.socket.as_fd(), &state[sent..], &[]))?;
        }
        shutdown(self.socket.as_raw_fd(), Shutdown::Write).at(step, self.path.display())
    }
}

/// The container process state as JSON: `pid` is the process's in the runtime's pid namespace, `state` the container's
/// state.
pub fn container_process_state(
    oci_version: &str,
    pid: i32,
    metadata: Option<&str>,
    state: &serde_json::Value,
) -> Vec<u8> {
    let mut document = serde_json::json!({ "ociVersion": oci_version, "fds": ["seccompFd"], "pid": pid });
    if let Some(metadata) = metadata {
        document["metadata"] = metadata.into();
    }
    document["state"] = state.clone();
    document.to_string().into_bytes()
}

/// Init's side: attaches the filter; if it notifies, hands the listener over and waits for the receipt.
///
/// The last thing before execve: the listener stays open, close-on-exec, because even close(2) may be notified.
/// pidfd::getfd(2) needs ptrace access: a rootless creator needs init to be dumpable at this point.
pub fn load_and_post(filter: &Filter, mailbox: &Mailbox) -> Result<()> {
    let Some(listener) = filter.load()? else { return Ok(()) };
    // `into_raw_fd`: dropping the descriptor would be a system call.
    mailbox.post(listener.into_raw_fd());
    // No error can be reported here, as that would be a system call as well.
    if mailbox.wait_receipt(INIT_SPINS) { Ok(()) } else { trap() }
}

/// The creator's side: waits for init's listener, bounded by `timeout` and by init's end.
pub fn take_listener(mailbox: &Mailbox, init: BorrowedFd<'_>, timeout: Duration) -> Result<OwnedFd> {
    let deadline = Instant::now() + timeout;
    let mut nap = Duration::from_micros(20);
    loop {
        if let Some(fd) = mailbox.posted() {
            return pidfd::getfd(init, fd).at("take from init the seccomp listener", fd);
        }
        if pidfd::wait_end(init, 0).at("poll", "the init of the container")? && mailbox.posted().is_none() {
            return Err(Error::Other("init ended before it attached the seccomp filter".into()));
        }
        if Instant::now() >= deadline {
            return Err(Error::Other(format!("init attached no seccomp filter within {} ms", timeout.as_millis())));
        }
        std::thread::sleep(nap);
        nap = (nap * 2).min(Duration::from_millis(1));
    }
}

/// The creator's side, whole: takes the listener, sends it to the agent, lets init go on. After an error init still
/// waits: kill it.
pub fn deliver(mailbox: &Mailbox, init: BorrowedFd<'_>, agent: &Agent, state: &[u8], timeout: Duration) -> Result<()> {
    let listener = take_listener(mailbox, init, timeout)?;
    agent.send(state, listener.as_fd())?;
    mailbox.acknowledge();
    Ok(())
}
