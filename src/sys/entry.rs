//! The read-only mount that this program was executed from, where the words of its command line have asked for one.
//!
//! The execution itself is the `rustbox-entry` crate's: it comes before the C library. It leaves one descriptor open,
//! because a detached mount ends with its last one, and the end waits for RCU.

#[cfg(all(target_arch = "x86_64", target_env = "gnu"))]
mod held {
    use std::ffi::CStr;
    use std::os::fd::BorrowedFd;
    use std::sync::atomic::{AtomicBool, Ordering};

    use rustbox_entry::HELD;

    static IS_HELD: AtomicBool = AtomicBool::new(false);

    /// Takes over the descriptor, where there is one.
    pub fn adopt() {
        // SAFETY: the kernel gives every program the address of the name that it was executed by, a string that stays.
        let name = unsafe { CStr::from_ptr(libc::getauxval(libc::AT_EXECFN) as *const libc::c_char) };
        let ours =
            name.to_bytes().strip_prefix(b"/dev/fd/").is_some_and(|number| number == HELD.to_string().as_bytes());
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
}

#[cfg(not(all(target_arch = "x86_64", target_env = "gnu")))]
mod held {
    /// There is none on this architecture.
    pub fn adopt() {}

    /// There is none on this architecture.
    pub fn let_go() {}
}

pub use held::{adopt, let_go};
