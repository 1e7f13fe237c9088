//! The host's end of a terminal, for a foreground `run` or `exec` without a console socket: the caller's terminal
//! goes into raw mode and the bytes go to and fro until the program ends.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

use oci_spec::runtime::{BoxBuilder, Process};

use crate::container::foreground::{Signals, forward};
use crate::error::{At, Error, Result};
use crate::sys::process::Ended;
use crate::sys::socket::{self, MsgFlags};
use crate::sys::{attributes, pidfd, tty};

/// How much waits in each direction, in bytes. A pipe or terminal that polls writable takes this much without blocking
/// (`PIPE_BUF`, pipe(7)).
const BUFFER: usize = 4096;
/// How much of what the program has written just before its end is still passed on, in bytes.
const LAST_WORDS: usize = 1 << 20;

/// A console socket inside the program: the end to give to [`crate::init::console::attach`], and the one for [`receive`].
///
/// # Errors
/// As `socketpair(2)`.
pub fn socket() -> Result<(OwnedFd, OwnedFd)> {
    socket::stream().at("make", "console socket")
}

/// The master that comes over a console socket.
///
/// # Errors
/// As `recvmsg(2)`; [`Error::Other`] where the other end closed without sending one.
pub fn receive(from: BorrowedFd<'_>) -> Result<OwnedFd> {
    let mut name = [0_u8; 256];
    let (_, fds) =
        socket::receive(from, &mut name, MsgFlags::empty()).at("receive the terminal over", "the console socket")?;
    fds.into_iter().next().ok_or_else(|| Error::Other("the console socket closed without a terminal".into()))
}

/// Sizes a document's terminal like the caller's, where stdin is one: the program may ask before the proxy is up.
pub fn size_like_the_callers(process: &mut Process) {
    let size = attributes::standard(0).and_then(|stdin| tty::size(stdin).ok()).filter(|size| size.rows > 0);
    let console_size = size.and_then(|size| {
        BoxBuilder::default().height(u64::from(size.rows)).width(u64::from(size.columns)).build().ok()
    });
    if console_size.is_some() {
        process.set_console_size(console_size);
    }
}

/// Waits for the end of a child whose terminal's master comes over `socket`; bytes and signals are passed on meanwhile.
///
/// # Errors
/// As [`receive`], [`Proxy::run`] and `waitid(2)`.
pub fn wait(child: &OwnedFd, signals: &Signals, socket: BorrowedFd<'_>) -> Result<Ended> {
    let mut proxy = Proxy::new(receive(socket)?)?;
    proxy.run(child.as_fd(), signals.as_fd(), &mut || {
        let mut resized = false;
        for signal in signals.pending()? {
            resized |= signal == libc::SIGWINCH;
            forward(child, signal)?;
        }
        Ok(resized)
    })?;
    pidfd::wait(child.as_fd(), true)
        .at("wait for", "the container's first process")?
        .ok_or_else(|| Error::Other("a process with a terminal has ended without a status".into()))
}

/// A terminal in raw mode; it gets its former mode back when this is dropped.
struct RawMode {
    terminal: BorrowedFd<'static>,
    former: Termios,
}

impl RawMode {
    /// Nothing where the descriptor is no terminal.
    fn new(terminal: BorrowedFd<'static>) -> Result<Option<RawMode>> {
        let former = match tcgetattr(terminal) {
            Err(Errno::ENOTTY) => return Ok(None),
            done => done.at("get mode of", "the terminal")?,
        };
        let mut raw = former.clone();
        cfmakeraw(&mut raw);
        tcsetattr(terminal, SetArg::TCSADRAIN, &raw).at("set mode of", "the terminal")?;
        Ok(Some(RawMode { terminal, former }))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        let _ = tcsetattr(self.terminal, SetArg::TCSADRAIN, &self.former);
    }
}

/// The caller's stdin and stdout joined to a program's terminal.
pub struct Proxy {
    master: OwnedFd,
    input: Option<BorrowedFd<'static>>,
    output: Option<BorrowedFd<'static>>,
    to_master: Vec<u8>,
    to_output: Vec<u8>,
    master_open: bool,
    // Last, so that the terminal is restored after everything else.
    raw: Option<RawMode>,
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Proxy").field("master", &self.master).finish_non_exhaustive()
    }
}

impl Proxy {
    /// Joins the caller's standard streams to the terminal: sizes it like the caller's, if that is one, and puts that into
    /// raw mode until the proxy is dropped.
    ///
    /// # Errors
    /// As `ioctl(2)`.
    pub fn new(master: OwnedFd) -> Result<Proxy> {
        let flags = fcntl(master.as_raw_fd(), FcntlArg::F_GETFL).at("get flags of", "the terminal")?;
        let flags = OFlag::from_bits_retain(flags) | OFlag::O_NONBLOCK;
        fcntl(master.as_raw_fd(), FcntlArg::F_SETFL(flags)).at("set flags of", "the terminal")?;
        let input = attributes::standard(0);
        let raw = input.map(RawMode::new).transpose()?.flatten();
        let proxy = Proxy {
            master,
            input,
            output: attributes::standard(1),
            to_master: Vec::with_capacity(BUFFER),
            to_output: Vec::with_capacity(BUFFER),
            master_open: true,
            raw,
        };
        proxy.resize();
        Ok(proxy)
    }

    /// Gives the program's terminal the size of the caller's, if that is one.
    pub fn resize(&self) {
        if let Some(raw) = &self.raw
            && let Ok(size) = tty::size(raw.terminal)
            && size.rows > 0
        {
            let _ = tty::set_size(self.master.as_fd(), size);
        }
    }

    /// Passes bytes on until `ended` (the program's pidfd) is readable and what it has written is out.
    ///
    /// When `signals` (a signalfd) is readable, `on_signal` takes them; it says whether SIGWINCH was among them.
    ///
    /// # Errors
    /// As the calls, and whatever `on_signal` returns.
    pub fn run(
        &mut self,
        ended: BorrowedFd<'_>,
        signals: BorrowedFd<'_>,
        on_signal: &mut dyn FnMut() -> Result<bool>,
    ) -> Result<()> {
        loop {
            let ready = self.wait(ended, signals)?;
            if ready.signals && on_signal()? {
                self.resize();
            }
            self.step(&ready)?;
            if ready.ended {
                return self.finish();
            }
        }
    }

    fn wait(&self, ended: BorrowedFd<'_>, signals: BorrowedFd<'_>) -> Result<Ready> {
        let read_input = self.input.filter(|_| self.master_open && self.to_master.is_empty());
        let write_output = self.output.filter(|_| !self.to_output.is_empty());
        let mut master = PollFlags::empty();
        master.set(PollFlags::POLLIN, self.to_output.is_empty());
        master.set(PollFlags::POLLOUT, !self.to_master.is_empty());
        let mut entries = vec![PollFd::new(ended, PollFlags::POLLIN), PollFd::new(signals, PollFlags::POLLIN)];
        // Without interest the entry would still report a hang-up, again and again.
        let with_master = self.master_open && !master.is_empty();
        if with_master {
            entries.push(PollFd::new(self.master.as_fd(), master));
        }
        entries.extend(read_input.map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        entries.extend(write_output.map(|fd| PollFd::new(fd, PollFlags::POLLOUT)));
        loop {
            match poll(&mut entries, PollTimeout::NONE) {
                Err(Errno::EINTR) => continue,
                done => done.at("poll", "the terminal")?,
            };
            break;
        }
        let mut events = entries.iter().map(|entry| entry.revents().unwrap_or(PollFlags::empty()));
        let mut next =
            |present: bool| if present { events.next().unwrap_or(PollFlags::empty()) } else { PollFlags::empty() };
        Ok(Ready {
            ended: !next(true).is_empty(),
            signals: !next(true).is_empty(),
            master: next(with_master),
            input: !next(read_input.is_some()).is_empty(),
            output: !next(write_output.is_some()).is_empty(),
        })
    }

    fn step(&mut self, ready: &Ready) -> Result<()> {
        if ready.master.contains(PollFlags::POLLOUT) {
            write_some(self.master.as_fd(), &mut self.to_master)?;
        }
        if ready.master.intersects(PollFlags::POLLIN | PollFlags::POLLHUP) && self.to_output.is_empty() {
            self.read_master()?;
        }
        if let Some(output) = self.output.filter(|_| ready.output) {
            // A caller that no longer reads does not end the program.
            if write_some(output, &mut self.to_output).is_err() {
                self.output = None;
            }
        }
        if self.output.is_none() {
            self.to_output.clear();
        }
        if let Some(input) = self.input.filter(|_| ready.input) {
            match read_some(input, &mut self.to_master) {
                Ok(0) | Err(Errno::EIO) => self.input = None,
                Ok(_) | Err(Errno::EAGAIN) => {}
                Err(errno) => return Err(errno).at("read", "stdin"),
            }
        }
        Ok(())
    }

    /// Reads from the program. EIO says that nobody has its terminal open any more; only the program's end is the end.
    fn read_master(&mut self) -> Result<usize> {
        match read_some(self.master.as_fd(), &mut self.to_output) {
            Ok(length) => Ok(length),
            Err(Errno::EAGAIN) => Ok(0),
            Err(Errno::EIO) => {
                self.master_open = false;
                Ok(0)
            }
            Err(errno) => Err(errno).at("read", "the terminal"),
        }
    }

    /// Passes on what is left, but no more than a bounded amount: another process may go on writing.
    fn finish(&mut self) -> Result<()> {
        let mut passed = 0;
        while let Some(output) = self.output {
            if self.to_output.is_empty() && (passed >= LAST_WORDS || !self.master_open || self.read_master()? == 0) {
                break;
            }
            passed += self.to_output.len();
            if write_some(output, &mut self.to_output).is_err() {
                break;
            }
        }
        Ok(())
    }
}

/// What poll has said.
struct Ready {
    ended: bool,
    signals: bool,
    master: PollFlags,
    input: bool,
    output: bool,
}

fn read_some(fd: BorrowedFd<'_>, buffer: &mut Vec<u8>) -> nix::Result<usize> {
    let mut bytes = [0_u8; BUFFER];
    loop {
        match nix::unistd::read(fd.as_raw_fd(), &mut bytes) {
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
            Ok(length) => {
                buffer.extend_from_slice(&bytes[..length]);
                return Ok(length);
            }
        }
    }
}

/// Writes what it takes and keeps the rest.
fn write_some(fd: BorrowedFd<'_>, buffer: &mut Vec<u8>) -> Result<()> {
    match nix::unistd::write(fd, buffer) {
        Ok(length) => drop(buffer.drain(..length)),
        Err(Errno::EINTR | Errno::EAGAIN) => {}
        Err(errno) => return Err(errno).at("write", "the terminal"),
    }
    Ok(())
}
