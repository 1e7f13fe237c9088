//! What the `rustbox-entry` crate has begun before the C library, where the words of the command line have asked for it:
//! the read-only mount that this program is mapped or executed from, of which one descriptor is left, because a detached mount ends
//! with its last one, and the end waits for RCU; and a network namespace.

#[cfg(all(target_arch = "x86_64", target_env = "gnu"))]
mod begun {
    use std::ffi::CStr;
    use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd};
    use std::sync::atomic::{AtomicBool, Ordering};

    use rustbox_entry::HELD;

    static IS_HELD: AtomicBool = AtomicBool::new(false);

    /// Takes over the descriptor, where there is one, and does what the standard library does before its `main`.
    pub fn adopt() {
        super::super::descriptors::fill_standard_streams();
        // SAFETY: sets a disposition; no handler is installed.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
        // SAFETY: the kernel gives every program the address of the name that it was executed by, a string that stays.
        let name = unsafe { CStr::from_ptr(libc::getauxval(libc::AT_EXECFN) as *const libc::c_char) };
        let executed = name.to_bytes().strip_prefix(b"/dev/fd/");
        let ours = rustbox_entry::is_mapped() || executed.is_some_and(|number| number == HELD.to_string().as_bytes());
        // SAFETY: only looked at; that it may not be open is what is asked.
        if ours && matches!(super::super::path::is_read_only(unsafe { BorrowedFd::borrow_raw(HELD) }), Ok(true)) {
            // SAFETY: passes no memory.
            unsafe { libc::fcntl(HELD, libc::F_SETFD, libc::FD_CLOEXEC) };
            IS_HELD.store(true, Ordering::Relaxed);
        }
    }

    /// Closes it, where it is still open. A process that is about to enter a container does so first, its creator where it
    /// would only wait.
    pub fn let_go() {
        if IS_HELD.swap(false, Ordering::Relaxed) {
            // SAFETY: nobody else has it: see `adopt`.
            unsafe { libc::close(HELD) };
        }
    }

    /// A new network namespace of the caller's user namespace, its loopback interface up: once, where one was begun and
    /// could be made.
    pub fn network() -> Option<OwnedFd> {
        // SAFETY: the child has made the descriptor for whoever takes it, and it is given once.
        rustbox_entry::network::take().map(|namespace| unsafe { OwnedFd::from_raw_fd(namespace) })
    }
}

#[cfg(not(all(target_arch = "x86_64", target_env = "gnu")))]
mod begun {
    /// There is none on this architecture.
    pub fn adopt() {}

    /// There is none on this architecture.
    pub fn let_go() {}

    /// There is none on this architecture.
    pub fn network() -> Option<std::os::fd::OwnedFd> {
        None
    }
}

pub use begun::{adopt, let_go, network};
