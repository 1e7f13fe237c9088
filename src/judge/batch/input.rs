//! The jobs of a batch: one line at a time, read when there is room for one more, never waiting where others wait too.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use crate::error::{At, Result};
use crate::sys::Errno;

/// The longest line: 64 MiB of source, each byte of it escaped at worst to six.
pub const LONGEST: usize = 400 << 20;
const CHUNK: usize = 64 << 10;

/// The next line, as far as it is there.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    /// A line, its number from 1 on, without the line feed.
    Whole(u64, Vec<u8>),
    /// A line that is longer than [`LONGEST`]; it was passed over.
    TooLong(u64),
    /// There is none yet: wait until the descriptor is readable.
    NotYet,
    /// There is no more.
    End,
}

/// Lines from a file, a pipe or a terminal.
#[derive(Debug)]
pub struct Lines {
    source: OwnedFd,
    buffer: Vec<u8>,
    /// Before this, the buffer has been given out.
    begin: usize,
    /// Before this, there is no line feed.
    looked: usize,
    number: u64,
    read: u64,
    ended: bool,
    /// In a line that is too long.
    skipping: bool,
    /// Reading never waits: a regular file.
    always: bool,
    longest: usize,
}

impl Lines {
    /// Lines of `source`; `always` where it never has to be waited for.
    pub fn new(source: OwnedFd, always: bool) -> Lines {
        Lines {
            source,
            buffer: Vec::new(),
            begin: 0,
            looked: 0,
            number: 0,
            read: 0,
            ended: false,
            skipping: false,
            always,
            longest: LONGEST,
        }
    }

    /// Bytes read so far.
    pub fn read(&self) -> u64 {
        self.read
    }

    /// Lines given out so far.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Whether reading never has to wait, now that this is known.
    pub fn always_ready(&mut self) {
        self.always = true;
    }

    /// The next line that is not blank. Reads only where that does not wait; `ready` says that the descriptor is readable,
    /// and holds for one read.
    ///
    /// # Errors
    /// As `read(2)`.
    pub fn next(&mut self, ready: &mut bool) -> Result<Line> {
        loop {
            if let Some(at) = self.buffer[self.looked..].iter().position(|byte| *byte == b'\n') {
                let end = self.looked + at;
                if let Some(line) = self.take(end, end + 1) {
                    return Ok(line);
                }
                continue;
            }
            self.looked = self.buffer.len();
            if self.buffer.len() - self.begin > self.longest {
                self.skipping = true;
            }
            if self.skipping {
                self.buffer.clear();
                (self.begin, self.looked) = (0, 0);
            }
            if self.ended {
                if self.begin == self.buffer.len() && !self.skipping {
                    return Ok(Line::End);
                }
                let end = self.buffer.len();
                if let Some(line) = self.take(end, end) {
                    return Ok(line);
                }
                continue;
            }
            if !self.always && !std::mem::take(ready) {
                return Ok(Line::NotYet);
            }
            self.fill()?;
        }
    }

    /// Gives out the buffer up to `end`; nothing where that is blank.
    fn take(&mut self, end: usize, next: usize) -> Option<Line> {
        self.number += 1;
        let line = self.buffer[self.begin..end].to_vec();
        (self.begin, self.looked) = (next, next);
        if std::mem::take(&mut self.skipping) {
            return Some(Line::TooLong(self.number));
        }
        (!line.trim_ascii().is_empty()).then_some(Line::Whole(self.number, line))
    }

    fn fill(&mut self) -> Result<()> {
        self.buffer.drain(..self.begin);
        self.looked -= self.begin;
        self.begin = 0;
        let length = self.buffer.len();
        self.buffer.resize(length + CHUNK, 0);
        let read = nix::unistd::read(self.source.as_raw_fd(), &mut self.buffer[length..]);
        self.buffer.truncate(length + read.unwrap_or(0));
        match read {
            Ok(0) => self.ended = true,
            Ok(count) => self.read += count as u64,
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            Err(errno) => return Err(errno).at("read", "the jobs"),
        }
        Ok(())
    }
}

impl AsFd for Lines {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.source.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn lines(text: &[u8], longest: usize) -> Vec<Line> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text).unwrap();
        std::io::Seek::rewind(&mut file).unwrap();
        let mut lines = Lines { longest, ..Lines::new(file.into(), true) };
        let mut all = Vec::new();
        loop {
            match lines.next(&mut true).unwrap() {
                Line::End => return all,
                line => all.push(line),
            }
        }
    }

    #[test]
    fn blank_lines_are_passed_over_and_counted_and_the_last_needs_no_line_feed() {
        let whole = |number, text: &str| Line::Whole(number, text.as_bytes().to_vec());
        assert_eq!(lines(b"a\n\n  \nb\r\nc", 100), [whole(1, "a"), whole(4, "b\r"), whole(5, "c")]);
        assert_eq!(lines(b"", 100), []);
        assert_eq!(lines(b"\n", 100), []);
    }

    #[test]
    fn a_line_that_is_too_long_is_told_and_the_next_is_read() {
        let mut text = vec![b'x'; CHUNK * 3];
        text.extend_from_slice(b"\nnext\n");
        assert_eq!(lines(&text, CHUNK), [Line::TooLong(1), Line::Whole(2, b"next".to_vec())]);
        assert_eq!(lines(&vec![b'x'; CHUNK * 3], CHUNK), [Line::TooLong(1)]);
    }

    #[test]
    fn a_pipe_is_read_only_when_it_is_ready() {
        let (from, mut to) = std::io::pipe().unwrap();
        let mut lines = Lines::new(from.into(), false);
        assert_eq!(lines.next(&mut false).unwrap(), Line::NotYet);
        to.write_all(b"a\nb").unwrap();
        assert_eq!(lines.next(&mut true).unwrap(), Line::Whole(1, b"a".to_vec()));
        assert_eq!(lines.next(&mut false).unwrap(), Line::NotYet);
        drop(to);
        assert_eq!(lines.next(&mut true).unwrap(), Line::Whole(2, b"b".to_vec()));
        assert_eq!(lines.next(&mut false).unwrap(), Line::End);
    }
}
