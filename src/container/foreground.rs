//! Waiting for a process in the foreground: signals go to it, its end comes back.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::error::{At, Error, Result};
use crate::sys::process::Ended;
use crate::sys::{Errno, pidfd};

/// How long a process may take to execute its program once a signal has come that ends the command otherwise.
const PATIENCE: Duration = Duration::from_secs(1);

/// The signals that reach a foreground command, taken from before the clone on so that none is lost.
#[derive(Debug)]
pub struct Signals(SignalFd);

impl Signals {
    /// Blocks every signal that can be forwarded and takes it through a descriptor.
    ///
    /// # Errors
    /// As `signalfd(2)`.
    pub fn take() -> Result<Signals> {
        let mut mask = SigSet::all();
        for synchronous in [Signal::SIGSEGV, Signal::SIGBUS, Signal::SIGILL, Signal::SIGFPE, Signal::SIGTRAP] {
            mask.remove(synchronous);
        }
        mask.thread_block().at("block", "signals")?;
        SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .at("open", "a signalfd")
            .map(Signals)
    }

    /// The signals that have come, as numbers.
    ///
    /// # Errors
    /// As `read(2)`.
    pub fn pending(&self) -> Result<Vec<i32>> {
        let mut numbers = Vec::new();
        while let Some(info) = self.0.read_signal().at("read", "a signalfd")? {
            numbers.push(info.ssi_signo as i32);
        }
        Ok(numbers)
    }

    /// Its descriptor, readable when a signal has come.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Those that end the command while there is nobody to pass them on to.
    ///
    /// # Errors
    /// As `signalfd(2)`.
    pub fn ending(&self) -> Result<Ending> {
        let mask = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGHUP]);
        SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).at("open", "a signalfd").map(Ending)
    }
}

/// SIGTERM, SIGINT, SIGQUIT and SIGHUP, which [`Signals`] has taken. They are only looked at, and stay for the process that
/// they are passed on to.
#[derive(Debug)]
pub struct Ending(SignalFd);

impl Ending {
    /// Waits for a word of a process on its way to its program: until one of `lines` is readable. Where a signal has come the
    /// process must get there soon; it may be stopped, or frozen, by the container.
    ///
    /// # Errors
    /// [`Error::Other`] that names the signal, where it does not; as `poll(2)`.
    pub fn wait_for(&self, lines: &[BorrowedFd<'_>]) -> Result<()> {
        let readable = |fds: &[BorrowedFd<'_>], timeout| {
            let mut fds: Vec<_> = fds.iter().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)).collect();
            loop {
                match poll(&mut fds, timeout) {
                    Err(Errno::EINTR) => {}
                    Err(errno) => return Err(errno).at("wait for", "the new process"),
                    Ok(_) => return Ok(fds[..lines.len()].iter().any(|fd| fd.any() == Some(true))),
                }
            }
        };
        if readable(&[lines, &[self.0.as_fd()]].concat(), PollTimeout::NONE)?
            || readable(lines, PollTimeout::try_from(PATIENCE).unwrap_or(PollTimeout::MAX))?
        {
            return Ok(());
        }
        let signal = self.0.read_signal().at("read", "a signalfd")?.map_or(0, |info| info.ssi_signo);
        Err(Error::Other(format!(
            "signal {signal} came, and the new process has not executed its program: it may be stopped or frozen, and was killed"
        )))
    }
}

/// Waits for the end of a child, forwarding every signal but those about children and terminals that
/// stay with the runtime itself.
///
/// # Errors
/// As `poll(2)` and `waitid(2)`.
pub fn wait(child: &OwnedFd, signals: &Signals) -> Result<Ended> {
    loop {
        let mut fds = [PollFd::new(child.as_fd(), PollFlags::POLLIN), PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).at("poll", "the container's first process"),
        }
        for signal in signals.pending()? {
            forward(child, signal)?;
        }
        if let Some(ended) = pidfd::wait(child.as_fd(), false).at("wait for", "the container's first process")? {
            return Ok(ended);
        }
    }
}

/// Passes a signal on to the process, unless it concerns the runtime alone.
///
/// # Errors
/// As `pidfd_send_signal(2)`; a process that has just ended is no error.
pub fn forward(child: &OwnedFd, signal: i32) -> Result<()> {
    if matches!(signal, libc::SIGCHLD | libc::SIGURG | libc::SIGWINCH) {
        return Ok(());
    }
    match pidfd::send_signal(child.as_fd(), signal) {
        Err(Errno::ESRCH) => Ok(()),
        other => other.at("forward a signal to", "the container's first process"),
    }
}
