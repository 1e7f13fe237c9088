//! The results of a batch on their way to a reader that may be slow, or gone: never waiting where others wait too.

use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use crate::error::{At, Result};
use crate::sys::Errno;

/// A pipe that is writable takes this much at once without waiting (`PIPE_BUF`).
const PIECE: usize = 4096;

/// Bytes to be written.
#[derive(Debug)]
pub struct Results {
    to: OwnedFd,
    queue: VecDeque<u8>,
    /// Writing never has to wait: a regular file.
    always: bool,
    closed: bool,
}

impl Results {
    /// To this descriptor; `always` where it never has to be waited for.
    pub fn new(to: OwnedFd, always: bool) -> Results {
        Results { to, queue: VecDeque::new(), always, closed: false }
    }

    /// Queues a line.
    ///
    /// # Errors
    /// As `write(2)`.
    pub fn line(&mut self, line: &str) -> Result<()> {
        if self.closed {
            return Ok(());
        }
        self.queue.extend(line.as_bytes());
        self.queue.push_back(b'\n');
        if self.always { self.write_all() } else { Ok(()) }
    }

    /// Writing never has to wait, now that this is known.
    pub fn always_ready(&mut self) {
        self.always = true;
    }

    /// Bytes that still wait.
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// The reader is gone: what waits is dropped, and what comes too.
    pub fn close(&mut self) {
        self.closed = true;
        self.queue = VecDeque::new();
    }

    /// Writes a piece, when the descriptor is writable. False where nobody reads any more.
    ///
    /// # Errors
    /// As `write(2)`.
    pub fn write(&mut self) -> Result<bool> {
        let (front, _) = self.queue.as_slices();
        let piece = &front[..front.len().min(PIECE)];
        match nix::unistd::write(&self.to, piece) {
            Ok(count) => {
                self.queue.drain(..count);
                Ok(true)
            }
            Err(Errno::EINTR | Errno::EAGAIN) => Ok(true),
            Err(Errno::EPIPE) => {
                self.close();
                Ok(false)
            }
            Err(errno) => Err(errno).at("write to", "stdout"),
        }
    }

    fn write_all(&mut self) -> Result<()> {
        while !self.queue.is_empty() {
            let bytes = self.queue.make_contiguous();
            match nix::unistd::write(&self.to, bytes) {
                Ok(count) => drop(self.queue.drain(..count)),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno).at("write to", format!("descriptor {}", self.to.as_raw_fd())),
            }
        }
        Ok(())
    }
}

impl AsFd for Results {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.to.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_arrive_in_pieces_and_a_reader_that_leaves_ends_them() {
        let (from, to) = std::io::pipe().unwrap();
        let mut results = Results::new(to.into(), false);
        let long = "x".repeat(10_000);
        results.line(&long).unwrap();
        assert_eq!(results.waiting(), 10_001);
        while results.waiting() > 0 {
            assert!(results.write().unwrap());
        }
        let mut text = vec![0; 10_001];
        std::io::Read::read_exact(&mut &from, &mut text).unwrap();
        assert_eq!(text, (long + "\n").as_bytes());
        drop(from);
        results.line("a").unwrap();
        assert!(!results.write().unwrap());
        results.line("b").unwrap();
        assert_eq!(results.waiting(), 0);
    }
}
