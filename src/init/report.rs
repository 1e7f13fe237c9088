//! The line between the tiny init of a judged sandbox and its supervisor: fixed records over a `SOCK_SEQPACKET` pair.
//!
//! The supervisor's end is the sandbox's lifeline: when it closes, init ends, and with it the pid namespace.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::error::{At, Error, Result};
use crate::sys::Errno;
use crate::sys::socket::{self, MsgFlags};

/// The longest text of a record; longer ones are cut.
const TEXT: usize = 4096;
const NUMBERS: usize = 8;
const LENGTH: usize = 4 + NUMBERS * 8;

/// What init and the payload before its exec tell the supervisor, and the one thing it tells init.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// The payload will exec now.
    Exec(Exec),
    /// It could not: errno (0: none) and words.
    ExecFailed(i32, String),
    /// The payload has ended.
    Ended(Ended),
    /// The descriptor that comes along receives the forbidden calls.
    Listener,
    /// The compile step's artefact comes along; without a descriptor, why there is none.
    Artefact(String),
    /// Supervisor to init: kill everything but yourself, and report.
    Kill,
}

/// Just before the exec.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Exec {
    /// CLOCK_MONOTONIC.
    pub at_ns: u64,
    /// CPU time that the set-up of the payload's process has used inside its cgroups.
    pub setup_cpu_ns: u64,
    /// Sum of PT_LOAD; 0 where it is no ELF file.
    pub image_bytes: u64,
    /// Whether the exec is watched.
    pub watched: bool,
}

/// How the payload ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ended {
    /// CLOCK_MONOTONIC when it was reaped.
    pub at_ns: u64,
    /// The raw wait status.
    pub status: i32,
    /// Of it and its waited-for descendants.
    pub user_us: u64,
    /// Of it and its waited-for descendants.
    pub system_us: u64,
    /// Of the largest of them.
    pub max_rss_kib: u64,
    /// Of it and its waited-for descendants.
    pub voluntary_switches: u64,
    /// Of it and its waited-for descendants.
    pub forced_switches: u64,
    /// A watched exec completed.
    pub exec_completed: bool,
    /// Nobody but init was left in the namespace, so that the counters are final.
    pub alone: bool,
    /// Whether the places it could write to were looked at, and what was found.
    pub files: Option<FilesSeen>,
}

/// What the payload left in the places it could write to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FilesSeen {
    /// A regular file has reached the size limit.
    pub at_size_limit: bool,
    /// No free block.
    pub no_free_blocks: bool,
    /// No free inode.
    pub no_free_inodes: bool,
}

/// One end of the line.
#[derive(Debug)]
pub struct Line(OwnedFd);

impl AsFd for Line {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Line {
    /// The supervisor's end and init's.
    ///
    /// # Errors
    /// As `socketpair(2)`.
    pub fn pair() -> Result<(Line, Line)> {
        let (ours, theirs) = socket::line().at("make", "the line to the judge's init")?;
        Ok((Line(ours), Line(theirs)))
    }

    /// Sends a record, with a descriptor where the receiver expects one.
    ///
    /// # Errors
    /// `EPIPE` where the other end is gone.
    pub fn send(&self, report: &Report, fd: Option<BorrowedFd<'_>>) -> Result<()> {
        socket::send(self.as_fd(), &encode(report), fd.as_slice())
            .at("write to", "the line to the judge's init")
            .map(drop)
    }

    /// The next record and the descriptor that came with it, without waiting.
    ///
    /// # Errors
    /// As `recvmsg(2)`, or where the record is malformed.
    pub fn receive(&self) -> Result<Received> {
        let mut bytes = vec![0u8; LENGTH + TEXT];
        let (length, fds) = loop {
            match socket::receive(self.as_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT) {
                Err(Errno::EAGAIN) => return Ok(Received::Nothing),
                // The other end has closed with something unread, which is told once; its last words come after that.
                Err(Errno::ECONNRESET) => {}
                other => break other.at("read from", "the line to the judge's init")?,
            }
        };
        match length {
            0 => Ok(Received::Closed),
            length => decode(&bytes[..length])
                .map(|report| Received::Report(report, fds.into_iter().next()))
                .ok_or_else(|| Error::Other("the line to the judge's init carried a malformed record".to_owned())),
        }
    }
}

/// What [`Line::receive`] found.
#[derive(Debug)]
pub enum Received {
    /// No record is there yet.
    Nothing,
    /// A record, and its descriptor.
    Report(Report, Option<OwnedFd>),
    /// The other end is gone.
    Closed,
}

fn encode(report: &Report) -> Vec<u8> {
    let mut numbers = [0u64; NUMBERS];
    let mut text = "";
    let kind: u32 = match report {
        Report::Exec(exec) => {
            numbers[..4].copy_from_slice(&[exec.at_ns, exec.setup_cpu_ns, exec.image_bytes, exec.watched.into()]);
            1
        }
        Report::ExecFailed(errno, words) => {
            numbers[0] = *errno as u32 as u64;
            text = words;
            2
        }
        Report::Ended(ended) => {
            let files = ended.files.unwrap_or_default();
            let bits = u64::from(ended.exec_completed)
                | u64::from(ended.files.is_some()) << 1
                | u64::from(files.at_size_limit) << 2
                | u64::from(files.no_free_blocks) << 3
                | u64::from(files.no_free_inodes) << 4
                | u64::from(ended.alone) << 5;
            numbers = [
                ended.at_ns,
                ended.status as u32 as u64,
                ended.user_us,
                ended.system_us,
                bits,
                ended.max_rss_kib,
                ended.voluntary_switches,
                ended.forced_switches,
            ];
            3
        }
        Report::Listener => 4,
        Report::Artefact(words) => {
            text = words;
            5
        }
        Report::Kill => 6,
    };
    let text = &text.as_bytes()[..text.len().min(TEXT)];
    let mut bytes = Vec::with_capacity(LENGTH + text.len());
    bytes.extend_from_slice(&kind.to_le_bytes());
    for number in numbers {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    bytes.extend_from_slice(text);
    bytes
}

fn decode(bytes: &[u8]) -> Option<Report> {
    let (kind, rest) = bytes.split_first_chunk::<4>()?;
    let (numbers, text) = rest.split_first_chunk::<{ NUMBERS * 8 }>()?;
    let number = |index: usize| {
        let mut word = [0u8; 8];
        word.copy_from_slice(&numbers[index * 8..index * 8 + 8]);
        u64::from_le_bytes(word)
    };
    let text = || String::from_utf8_lossy(text).into_owned();
    Some(match u32::from_le_bytes(*kind) {
        1 => Report::Exec(Exec {
            at_ns: number(0),
            setup_cpu_ns: number(1),
            image_bytes: number(2),
            watched: number(3) != 0,
        }),
        2 => Report::ExecFailed(number(0) as u32 as i32, text()),
        3 => {
            let bits = number(4);
            let files = FilesSeen {
                at_size_limit: bits & 4 != 0,
                no_free_blocks: bits & 8 != 0,
                no_free_inodes: bits & 16 != 0,
            };
            Report::Ended(Ended {
                at_ns: number(0),
                status: number(1) as u32 as i32,
                user_us: number(2),
                system_us: number(3),
                max_rss_kib: number(5),
                voluntary_switches: number(6),
                forced_switches: number(7),
                exec_completed: bits & 1 != 0,
                alone: bits & 32 != 0,
                files: (bits & 2 != 0).then_some(files),
            })
        }
        4 => Report::Listener,
        5 => Report::Artefact(text()),
        6 => Report::Kill,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_record_survives_the_line() {
        let (ours, theirs) = Line::pair().unwrap();
        let seen = FilesSeen { at_size_limit: true, no_free_blocks: false, no_free_inodes: true };
        let all = [
            Report::Exec(Exec { at_ns: u64::MAX, setup_cpu_ns: 2, image_bytes: 3, watched: true }),
            Report::ExecFailed(libc::ENOENT, "exec `x`".to_owned()),
            Report::Ended(Ended {
                at_ns: 1,
                status: 0x8b,
                user_us: 2,
                system_us: 3,
                max_rss_kib: 4,
                voluntary_switches: 5,
                forced_switches: 6,
                exec_completed: true,
                alone: true,
                files: None,
            }),
            Report::Ended(Ended { files: Some(seen), ..Ended::default() }),
            Report::Listener,
            Report::Artefact(String::new()),
            Report::Kill,
        ];
        assert!(matches!(ours.receive().unwrap(), Received::Nothing));
        for report in all {
            theirs.send(&report, None).unwrap();
            let Received::Report(received, None) = ours.receive().unwrap() else { panic!("no record") };
            assert_eq!(received, report);
        }
        theirs.send(&Report::Listener, Some(theirs.as_fd())).unwrap();
        // Init ends without having read that it is to kill.
        ours.send(&Report::Kill, None).unwrap();
        assert!(matches!(ours.receive().unwrap(), Received::Report(Report::Listener, Some(_))));
        theirs.send(&Report::Ended(Ended::default()), None).unwrap();
        drop(theirs);
        assert!(matches!(ours.receive().unwrap(), Received::Report(Report::Ended(_), None)));
        assert!(matches!(ours.receive().unwrap(), Received::Closed));
    }
}
