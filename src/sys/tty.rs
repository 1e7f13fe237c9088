//! Terminals: making pairs, controlling terminals, sizes.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::{Result, check};

/// `struct winsize` without the pixels, which nobody fills in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Lines.
    pub rows: u16,
    /// Characters per line.
    pub columns: u16,
}

/// The other end of a pseudo-terminal's master, unlocked and opened without any path (`TIOCGPTPEER`, Linux 4.13):
/// whatever is mounted on `/dev/pts/N` by then, this is the real one.
///
/// # Errors
/// `ENOTTY` where `master` is no such master.
pub fn peer(master: BorrowedFd<'_>) -> Result<OwnedFd> {
    let unlocked: libc::c_int = 0;
    // SAFETY: a valid descriptor and one int, which the kernel reads.
    check(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlocked) }.into())?;
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: a valid descriptor; the argument is a number.
    let fd = check(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags) }.into())?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Makes the terminal the controlling one of the session that the caller leads.
///
/// # Errors
/// `EPERM` where the caller leads no session or the terminal belongs to another one.
pub fn control(terminal: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: a valid descriptor; the argument is a number.
    check(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY, 0) }.into()).map(drop)
}

/// The terminal's size.
///
/// # Errors
/// `ENOTTY` where it is none.
pub fn size(terminal: BorrowedFd<'_>) -> Result<Size> {
    let mut size = std::mem::MaybeUninit::<libc::winsize>::zeroed();
    // SAFETY: a valid descriptor and room for one `winsize`.
    check(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCGWINSZ, size.as_mut_ptr()) }.into())?;
    // SAFETY: all-zero is a valid `winsize`, and the kernel has filled it in.
    let size = unsafe { size.assume_init() };
    Ok(Size { rows: size.ws_row, columns: size.ws_col })
}

/// Sets the terminal's size; the foreground process group gets SIGWINCH where it differs.
///
/// # Errors
/// `ENOTTY` where it is none.
pub fn set_size(terminal: BorrowedFd<'_>, size: Size) -> Result<()> {
    let size = libc::winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: a valid descriptor and one `winsize`, which the kernel reads.
    check(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) }.into()).map(drop)
}
