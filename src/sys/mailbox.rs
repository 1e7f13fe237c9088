//! One page shared by a process and the child it clones: a descriptor's number one way, a receipt the other, by plain
//! loads and stores.
//!
//! The child that has attached a seccomp filter may not be able to make *any* system call: the filter may ask an agent
//! about `write`, `sendmsg` or `futex`, and the agent waits for the very descriptor that the child is to hand over. So
//! it stores the number and spins.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

use super::{Errno, Result};

/// The page. Make it before the clone; both sides then hold the same memory.
#[derive(Debug)]
pub struct Mailbox {
    page: NonNull<Page>,
}

#[derive(Debug)]
#[repr(C)]
struct Page {
    /// The descriptor's number plus one, so that fresh (zero) memory says "nothing yet".
    posted: AtomicI32,
    receipt: AtomicU32,
}

const PAGE: usize = 4096;

impl Mailbox {
    /// Maps the page.
    pub fn new() -> Result<Self> {
        // SAFETY: a new anonymous mapping at an address the kernel chooses touches no existing memory.
        let at = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                PAGE,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if at == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        NonNull::new(at.cast::<Page>()).map(|page| Mailbox { page }).ok_or(Errno::ENOMEM)
    }

    fn page(&self) -> &Page {
        // SAFETY: the mapping is page-aligned, at least as large as `Page`, zero-initialised (valid for atomics), lives
        // as long as `self`, and is only ever accessed through atomics, by whichever process.
        unsafe { self.page.as_ref() }
    }

    /// The child's side: tells the number of its descriptor. Makes no system call.
    pub fn post(&self, fd: i32) {
        self.page().posted.store(fd + 1, Ordering::Release);
    }

    /// The parent's side: the number, once it is there.
    pub fn posted(&self) -> Option<i32> {
        self.page().posted.load(Ordering::Acquire).checked_sub(1).filter(|fd| *fd >= 0)
    }

    /// The parent's side: lets the child go on.
    pub fn acknowledge(&self) {
        self.page().receipt.store(1, Ordering::Release);
    }

    /// The child's side: spins until the parent has acknowledged, for `spins` rounds at most (each some tens of
    /// nanoseconds); false when it never did. Makes no system call: a clock may need one.
    pub fn wait_receipt(&self, spins: u64) -> bool {
        for _ in 0..spins {
            if self.page().receipt.load(Ordering::Acquire) != 0 {
                return true;
            }
            std::hint::spin_loop();
        }
        false
    }
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new`, is unmapped once, and no reference into it outlives `self`.
        unsafe { libc::munmap(self.page.as_ptr().cast(), PAGE) };
    }
}

/// Ends the process by an illegal instruction: the one way out that needs no system call. The signal is forced, so it
/// also ends the init of a pid namespace.
pub fn trap() -> ! {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: `ud2` only raises SIGILL; nothing after it runs.
    unsafe {
        std::arch::asm!("ud2", options(noreturn, nomem, nostack))
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: `udf` only raises SIGILL; nothing after it runs.
    unsafe {
        std::arch::asm!("udf #0", options(noreturn, nomem, nostack))
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    std::process::abort()
}
