//! The line between the creator and init: one record per message, until init executes the program.
//!
//! Both ends close on exec, so for the creator the end of the line *is* the successful exec, and for
//! init the end of the line before [`Message::Commit`] means that the creator has died: it ends too.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::error::{At, Error, Result};
use crate::sys::Errno;
use crate::sys::socket::{self, MsgFlags};

/// The longest text of a message; longer ones are cut.
const TEXT: usize = 8 << 10;

/// What the two ends tell each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Init, or the stage before it, failed: the errno at the root (0: none) and the words.
    Failed(i32, String),
    /// The stage has made init: its pid; a pidfd comes with the message.
    Made(libc::pid_t),
    /// Namespaces and mounts exist, the old root is still there: the moment for createRuntime hooks.
    Mounted,
    /// The time namespace is made: the creator writes its offsets. Only where there is a new user namespace, because a
    /// process that cannot be dumped does not own its own files there.
    Clocks,
    /// A filter that notifies is attached next: the creator takes its listener through the mailbox.
    Filter,
    /// Init is complete up to the gate.
    Ready,
    /// Creator: the id mappings are written.
    Mapped,
    /// Creator: the cgroups exist, with their limits. The descriptors that come with it are the ways in: so many `tasks`
    /// files for init, so many for the payload, and the v2 directory of the payload where the flag says so.
    Cgroups(u8, u8, bool),
    /// Creator: handles of what is to be mounted, where init cannot reach it; none with the last.
    Ways,
    /// Creator: the hooks of the runtime's namespaces have run.
    HooksRun,
    /// Creator: init is on record and may outlive its creator.
    Commit,
    /// Creator: execute the program (only where there is no gate). To an unattended init it comes before [`Message::Ready`].
    Start,
}

/// One end of the line.
#[derive(Debug)]
pub struct Channel(OwnedFd);

impl Channel {
    /// Makes a line: the creator's end and init's.
    ///
    /// # Errors
    /// As `socketpair(2)`.
    pub fn pair() -> Result<(Channel, Channel)> {
        let (ours, theirs) = socket::line().at("make", "the line to init")?;
        Ok((Channel(ours), Channel(theirs)))
    }

    /// A second handle of this end.
    ///
    /// # Errors
    /// As `fcntl(2)`.
    pub fn try_clone(&self) -> Result<Channel> {
        self.0.try_clone().at("duplicate", "the line to init").map(Channel)
    }

    /// Sends a message, with the descriptors that the receiver expects.
    ///
    /// # Errors
    /// `EPIPE` where the other end is gone.
    pub fn send_with(&self, message: &Message, fds: &[BorrowedFd<'_>]) -> Result<()> {
        socket::send(self.as_fd(), &encode(message), fds).at("write to", "the line to init").map(drop)
    }

    /// Sends a message.
    ///
    /// # Errors
    /// `EPIPE` where the other end is gone.
    pub fn send(&self, message: &Message) -> Result<()> {
        self.send_with(message, &[])
    }

    /// Waits until the other end has closed; what it has said by then is still to be received. Until then nobody is woken for
    /// its words.
    ///
    /// # Errors
    /// As `poll(2)`.
    pub fn wait_end(&self) -> Result<()> {
        loop {
            match poll(&mut [PollFd::new(self.as_fd(), PollFlags::empty())], PollTimeout::NONE) {
                Err(Errno::EINTR) => {}
                polled => return polled.at("wait for", "the end of the line to init").map(drop),
            }
        }
    }

    /// The next message and the descriptors sent with it; `None` where the other end has closed.
    ///
    /// # Errors
    /// As `recvmsg(2)`.
    pub fn receive_with(&self) -> Result<Option<(Message, Vec<OwnedFd>)>> {
        let mut bytes = vec![0u8; TEXT + 8];
        let (length, fds) = loop {
            match socket::receive(self.as_fd(), &mut bytes, MsgFlags::empty()) {
                // The other end died with something unread, which is told once; its last words come after that.
                Err(Errno::ECONNRESET) => {}
                other => break other.at("read from", "the line to init")?,
            }
        };
        if length == 0 {
            return Ok(None);
        }
        match decode(&bytes[..length]) {
            Some(message) => Ok(Some((message, fds))),
            None => Err(Error::Other("the line to init carried a record of an unknown kind".to_owned())),
        }
    }

    /// The next message; `None` where the other end has closed.
    ///
    /// # Errors
    /// As `recvmsg(2)`.
    pub fn receive(&self) -> Result<Option<Message>> {
        Ok(self.receive_with()?.map(|(message, _)| message))
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn encode(message: &Message) -> Vec<u8> {
    let (kind, number, text) = match message {
        Message::Failed(errno, text) => (1u8, *errno, text.as_str()),
        Message::Made(pid) => (3, *pid, ""),
        Message::Mounted => (4, 0, ""),
        Message::Ready => (5, 0, ""),
        Message::Mapped => (6, 0, ""),
        Message::HooksRun => (7, 0, ""),
        Message::Commit => (8, 0, ""),
        Message::Start => (9, 0, ""),
        Message::Filter => (10, 0, ""),
        Message::Clocks => (12, 0, ""),
        Message::Ways => (13, 0, ""),
        Message::Cgroups(own, payload, into) => (11, i32::from_le_bytes([*own, *payload, u8::from(*into), 0]), ""),
    };
    let text = &text.as_bytes()[..text.len().min(TEXT)];
    let mut bytes = Vec::with_capacity(5 + text.len());
    bytes.push(kind);
    bytes.extend_from_slice(&number.to_le_bytes());
    bytes.extend_from_slice(text);
    bytes
}

fn decode(bytes: &[u8]) -> Option<Message> {
    let (&kind, rest) = bytes.split_first()?;
    let (number, text) = rest.split_first_chunk::<4>()?;
    let number = i32::from_le_bytes(*number);
    let text = || String::from_utf8_lossy(text).into_owned();
    Some(match kind {
        1 => Message::Failed(number, text()),
        3 => Message::Made(number),
        4 => Message::Mounted,
        5 => Message::Ready,
        6 => Message::Mapped,
        7 => Message::HooksRun,
        8 => Message::Commit,
        9 => Message::Start,
        10 => Message::Filter,
        11 => {
            let [own, payload, into, _] = number.to_le_bytes();
            Message::Cgroups(own, payload, into != 0)
        }
        12 => Message::Clocks,
        13 => Message::Ways,
        _ => return None,
    })
}

/// The message that tells the creator of an error.
pub fn failure(error: &Error) -> Message {
    Message::Failed(error.errno().map_or(0, |errno| errno as i32), error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_survives_the_line() {
        let (ours, theirs) = Channel::pair().unwrap();
        let all = [
            Message::Failed(libc::ENOENT, "exec `x`".to_owned()),
            Message::Made(7),
            Message::Mounted,
            Message::Clocks,
            Message::Ways,
            Message::Filter,
            Message::Ready,
            Message::Mapped,
            Message::Cgroups(12, 4, true),
            Message::HooksRun,
            Message::Commit,
            Message::Start,
        ];
        for message in all {
            theirs.send(&message).unwrap();
            assert_eq!(ours.receive().unwrap(), Some(message));
        }
        drop(theirs);
        assert_eq!(ours.receive().unwrap(), None);
    }

    #[test]
    fn last_words_arrive_from_an_end_that_closed_with_something_unread() {
        let (ours, theirs) = Channel::pair().unwrap();
        let words = Message::Failed(libc::EPERM, "mount".to_owned());
        theirs.send(&words).unwrap();
        ours.send(&Message::Commit).unwrap();
        drop(theirs);
        assert_eq!(ours.receive().unwrap(), Some(words));
        assert_eq!(ours.receive().unwrap(), None);
    }

    #[test]
    fn what_was_said_before_the_end_is_heard_after_it() {
        let (ours, theirs) = Channel::pair().unwrap();
        ours.send(&Message::Start).unwrap();
        theirs.send(&Message::Ready).unwrap();
        drop(theirs);
        ours.wait_end().unwrap();
        assert_eq!(ours.receive().unwrap(), Some(Message::Ready));
        assert_eq!(ours.receive().unwrap(), None);
    }

    #[test]
    fn a_text_that_is_too_long_is_cut_and_arrives() {
        let (ours, theirs) = Channel::pair().unwrap();
        theirs.send(&Message::Failed(1, "x".repeat(TEXT * 2))).unwrap();
        assert_eq!(ours.receive().unwrap(), Some(Message::Failed(1, "x".repeat(TEXT))));
    }
}
