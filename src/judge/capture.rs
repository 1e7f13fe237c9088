//! The payload's standard streams: what it may write is counted and kept up to the limit, what it reads comes from memory
//! or is passed on from a pipe. No descriptor of the host's reaches it.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::fcntl::{FcntlArg, OFlag, SealFlag, fcntl};
use nix::sys::memfd::{MemFdCreateFlag, memfd_create};

use crate::error::{At, Result};
use crate::sys::Errno;

const CHUNK: usize = 64 << 10;
/// Most programs write less than this; a larger buffer would cost a page fault for each of its pages.
const FIRST_CHUNK: usize = 4 << 10;

/// One output stream.
#[derive(Debug)]
pub struct Capture {
    pipe: OwnedFd,
    kept: Vec<u8>,
    limit: u64,
    total: u64,
    open: bool,
    chunk: usize,
}

impl Capture {
    /// A pipe: the capture, and the end for the payload.
    ///
    /// # Errors
    /// As `pipe2(2)`.
    pub fn pipe(limit: u64) -> Result<(Capture, OwnedFd)> {
        let (ours, theirs) = nix::unistd::pipe2(OFlag::O_CLOEXEC).at("make", "a pipe")?;
        nonblocking(&ours)?;
        Ok((Capture { pipe: ours, kept: Vec::new(), limit, total: 0, open: true, chunk: FIRST_CHUNK }, theirs))
    }

    /// Takes what is there. False once the stream has ended. A stream that fills faster than it is emptied is left
    /// after a few rounds, so that limits are still looked at.
    ///
    /// # Errors
    /// As `read(2)`.
    pub fn drain(&mut self) -> Result<bool> {
        let mut buffer = Vec::new();
        for _ in 0..16 {
            buffer.resize(self.chunk, 0);
            match nix::unistd::read(self.pipe.as_raw_fd(), &mut buffer) {
                Ok(0) => {
                    self.open = false;
                    return Ok(false);
                }
                Ok(length) => {
                    let room = self.limit.saturating_sub(self.total).min(length as u64) as usize;
                    self.kept.extend_from_slice(&buffer[..room]);
                    self.total += length as u64;
                    if length == buffer.len() {
                        self.chunk = CHUNK;
                    }
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(true),
                Err(errno) => return Err(errno).at("read", "the payload's output"),
            }
        }
        Ok(true)
    }

    /// Whether the payload, or something it has left, may still write.
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// Gives up on a stream that does not end.
    pub fn close(&mut self) {
        self.open = false;
    }

    /// Whether more was written than allowed.
    pub fn over(&self) -> bool {
        self.total > self.limit
    }

    /// Bytes written, counted past what was kept.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// What was kept: the first bytes, up to the limit.
    pub fn into_kept(self) -> Vec<u8> {
        self.kept
    }
}

impl AsFd for Capture {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}

/// Standard input.
#[derive(Debug)]
pub enum Stdin {
    /// Nothing, or all of it already in the payload's descriptor.
    Given,
    /// Passed on from a pipe or terminal of the caller's.
    Passed(Passed),
}

/// Bytes on their way from the caller's standard input to the payload's.
#[derive(Debug)]
pub struct Passed {
    source: Option<OwnedFd>,
    pipe: Option<OwnedFd>,
    buffer: Vec<u8>,
    sent: usize,
    total: u64,
}

impl Stdin {
    /// Bytes that are all known: a sealed memfd, which the payload cannot change and nobody else shares.
    ///
    /// # Errors
    /// As `memfd_create(2)`.
    pub fn from_reader(mut content: impl Read) -> Result<(Stdin, OwnedFd)> {
        let flags = MemFdCreateFlag::MFD_CLOEXEC | MemFdCreateFlag::MFD_ALLOW_SEALING;
        let mut file = File::from(memfd_create(c"stdin", flags).at("make", "a memfd for stdin")?);
        std::io::copy(&mut content, &mut file).at("copy", "stdin")?;
        file.rewind().at("rewind", "stdin")?;
        let seals = SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_SEAL;
        fcntl(file.as_raw_fd(), FcntlArg::F_ADD_SEALS(seals)).at("seal", "stdin")?;
        Ok((Stdin::Given, file.into()))
    }

    /// No input: a pipe that nobody writes to.
    ///
    /// # Errors
    /// As `pipe2(2)`.
    pub fn empty() -> Result<(Stdin, OwnedFd)> {
        let (theirs, _) = nix::unistd::pipe2(OFlag::O_CLOEXEC).at("make", "a pipe")?;
        Ok((Stdin::Given, theirs))
    }

    /// Passes on what `source` (a pipe, socket or terminal) yields, as it comes.
    ///
    /// # Errors
    /// As `pipe2(2)`.
    pub fn passed(source: OwnedFd) -> Result<(Stdin, OwnedFd)> {
        let (theirs, ours) = nix::unistd::pipe2(OFlag::O_CLOEXEC).at("make", "a pipe")?;
        nonblocking(&ours)?;
        let passed = Passed { source: Some(source), pipe: Some(ours), buffer: Vec::new(), sent: 0, total: 0 };
        Ok((Stdin::Passed(passed), theirs))
    }

    /// Bytes passed on; unknown where the payload was given a file of its own.
    pub fn bytes(&self) -> Option<u64> {
        match self {
            Stdin::Given => None,
            Stdin::Passed(passed) => Some(passed.total),
        }
    }
}

impl Passed {
    /// The descriptor to wait for: the source while there is room (readable), else the pipe (writable).
    pub fn awaited(&self) -> Option<(std::os::fd::BorrowedFd<'_>, bool)> {
        match (&self.pipe, &self.source) {
            (Some(pipe), _) if self.sent < self.buffer.len() => Some((pipe.as_fd(), true)),
            (Some(_), Some(source)) => Some((source.as_fd(), false)),
            _ => None,
        }
    }

    /// Moves one chunk, when [`Passed::awaited`] is ready. Never an error: a payload that closes its input, or a source
    /// that fails, ends the passing.
    pub fn advance(&mut self) {
        if let Some(source) = self.source.as_ref().filter(|_| self.sent == self.buffer.len()) {
            self.sent = 0;
            self.buffer.resize(CHUNK, 0);
            let read = nix::unistd::read(source.as_raw_fd(), &mut self.buffer);
            self.buffer.truncate(read.unwrap_or(0));
            if !matches!(read, Ok(1..) | Err(Errno::EINTR | Errno::EAGAIN)) {
                self.source = None;
            }
        }
        self.flush();
        if self.source.is_none() && self.sent == self.buffer.len() {
            self.pipe = None;
        }
    }

    fn flush(&mut self) {
        let Some(pipe) = &self.pipe else { return };
        if self.sent < self.buffer.len() {
            match nix::unistd::write(pipe, &self.buffer[self.sent..]) {
                Ok(length) => {
                    self.sent += length;
                    self.total += length as u64;
                }
                Err(Errno::EINTR | Errno::EAGAIN) => {}
                Err(_) => {
                    self.pipe = None;
                    self.source = None;
                }
            }
        }
    }
}

fn nonblocking(fd: &OwnedFd) -> Result<()> {
    fcntl(fd.as_raw_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).at("fcntl", "a pipe").map(drop)
}

/// Writes everything, for output at the end of a run.
///
/// # Errors
/// As `write(2)`.
pub fn write_all(mut to: impl Write, bytes: &[u8], name: &str) -> Result<()> {
    to.write_all(bytes).and_then(|()| to.flush()).at("write to", name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capture_keeps_up_to_its_limit_and_counts_past_it() {
        let (mut capture, pipe) = Capture::pipe(5).unwrap();
        assert!(capture.drain().unwrap());
        File::from(pipe).write_all(b"0123456789").unwrap();
        assert!(!capture.drain().unwrap());
        assert!(capture.over() && !capture.is_open());
        assert_eq!((capture.total(), capture.into_kept()), (10, b"01234".to_vec()));
    }

    #[test]
    fn exactly_the_limit_is_not_over_it() {
        let (mut capture, pipe) = Capture::pipe(5).unwrap();
        File::from(pipe).write_all(b"01234").unwrap();
        while capture.drain().unwrap() {}
        assert!(!capture.over());
    }

    #[test]
    fn given_input_is_sealed() {
        let (_, fd) = Stdin::from_reader(&b"hello"[..]).unwrap();
        let mut file = File::from(fd);
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
        assert!(file.write_all(b"x").is_err());
        let (_, fd) = Stdin::empty().unwrap();
        assert_eq!(File::from(fd).read(&mut [0]).unwrap(), 0);
    }

    #[test]
    fn passed_input_arrives_whole_and_ends() {
        let (from, mut to) = std::io::pipe().unwrap();
        let (stdin, payload) = Stdin::passed(from.into()).unwrap();
        let Stdin::Passed(mut passed) = stdin else { panic!() };
        to.write_all(&[7; 5000]).unwrap();
        drop(to);
        while let Some((_, _)) = passed.awaited() {
            passed.advance();
        }
        let mut all = Vec::new();
        drop(passed.pipe.take());
        File::from(payload).read_to_end(&mut all).unwrap();
        assert_eq!(all, [7; 5000]);
    }
}
