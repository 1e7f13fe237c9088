//! Unix sockets that carry descriptors: the lines to init, console sockets, seccomp agents.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::time::Duration;

use nix::sys::socket::{
    self, AddressFamily, ControlMessage, ControlMessageOwned, SockFlag, SockType, UnixAddr, recvmsg, sendmsg, sockopt,
};
use nix::sys::time::TimeVal;

use super::{Errno, Result};

pub use nix::sys::socket::MsgFlags;

/// Two ends of a line that keeps messages apart (`SOCK_SEQPACKET`).
///
/// # Errors
/// As `socketpair(2)`.
pub fn line() -> Result<(OwnedFd, OwnedFd)> {
    socket::socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
}

/// Two ends of a stream.
///
/// # Errors
/// As `socketpair(2)`.
pub fn stream() -> Result<(OwnedFd, OwnedFd)> {
    socket::socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)
}

/// A stream to whoever listens at `path`. `patience` bounds the connecting and every sending.
///
/// # Errors
/// As `connect(2)`; `ENAMETOOLONG` for a path that does not fit into an address.
pub fn connect(path: &Path, patience: Option<Duration>) -> Result<OwnedFd> {
    let stream = socket::socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    if let Some(patience) = patience {
        let patience = TimeVal::new(patience.as_secs() as i64, i64::from(patience.subsec_micros()));
        socket::setsockopt(&stream, sockopt::SendTimeout, &patience)?;
    }
    socket::connect(stream.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(stream)
}

/// Sends bytes, and descriptors with them; says how many bytes were taken.
///
/// # Errors
/// As `sendmsg(2)`: `EPIPE` (and no signal) where the other end is gone.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<usize> {
    let fds: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&fds)];
    let control = if fds.is_empty() { &rights[..0] } else { &rights[..] };
    loop {
        match sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(bytes)], control, MsgFlags::MSG_NOSIGNAL, None) {
            // It is gone and left something unread, which is told once.
            Err(Errno::ECONNRESET) => {}
            sent => return sent,
        }
    }
}

/// The most descriptors that are received with one message.
pub const MOST_FDS: usize = 32;

/// Receives into `buffer`: how many bytes came, none where the other end has closed, and the descriptors that came along
/// ([`MOST_FDS`] at most), close-on-exec.
///
/// # Errors
/// As `recvmsg(2)`: `EAGAIN` with `MSG_DONTWAIT` where nothing has come, `ECONNRESET` where the other end closed with
/// something unread.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8], flags: MsgFlags) -> Result<(usize, Vec<OwnedFd>)> {
    let mut space = nix::cmsg_space!([RawFd; MOST_FDS]);
    loop {
        let mut parts = [IoSliceMut::new(buffer)];
        let flags = flags | MsgFlags::MSG_CMSG_CLOEXEC;
        let message = match recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), flags) {
            Err(Errno::EINTR) => continue,
            other => other?,
        };
        let mut fds = Vec::new();
        for control in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(received) = control {
                // SAFETY: the kernel has just installed these descriptors for this process; nobody else owns them.
                fds.extend(received.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
            }
        }
        return Ok((message.bytes, fds));
    }
}
