//! A page of a file as 64-bit words that any number of processes add to, by mapping it: no lock, so nobody waits for a
//! writer that is stopped or dead, and what was added stays when the writer is killed.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Errno, Result, check};

/// Bytes of the page.
pub const BYTES: usize = 4096;
/// Words of the page.
pub const WORDS: usize = BYTES / 8;

/// The page, mapped to be added to.
#[derive(Debug)]
pub struct Words(Mapping);

impl Words {
    /// Maps the first page of a file that is at least so long and open for reading and writing. No child inherits it.
    ///
    /// # Errors
    /// As `mmap(2)`; `EFAULT` where the file system has no room for the page (see `madvise(2)`, `MADV_POPULATE_WRITE`),
    /// which would otherwise end the process at the first word that is written.
    pub fn map(file: BorrowedFd<'_>) -> Result<Words> {
        let mapping = Mapping::new(file, libc::PROT_READ | libc::PROT_WRITE)?;
        for advice in [libc::MADV_POPULATE_WRITE, libc::MADV_DONTFORK] {
            // SAFETY: the range is exactly our own mapping; neither advice changes its contents.
            check(unsafe { libc::madvise(mapping.0.as_ptr().cast(), BYTES, advice) }.into())?;
        }
        Ok(Words(mapping))
    }

    /// Adds to a word, wrapping around.
    ///
    /// # Panics
    /// Where there is no such word.
    pub fn add(&self, index: usize, amount: u64) {
        self.0.words()[index].fetch_add(amount, Ordering::Relaxed);
    }

    /// The words as they are now, each by itself.
    pub fn load(&self) -> [u64; WORDS] {
        self.0.load()
    }
}

/// The first page of a file that is at least so long, as it is now: each word is whole.
///
/// # Errors
/// As `mmap(2)`.
pub fn read(file: BorrowedFd<'_>) -> Result<[u64; WORDS]> {
    Ok(Mapping::new(file, libc::PROT_READ)?.load())
}

#[derive(Debug)]
struct Mapping(NonNull<[AtomicU64; WORDS]>);

// SAFETY: the mapping belongs to no thread, and is only accessed through atomics.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(file: BorrowedFd<'_>, protection: i32) -> Result<Mapping> {
        // SAFETY: a new mapping at an address the kernel chooses touches no existing memory.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), BYTES, protection, libc::MAP_SHARED, file.as_raw_fd(), 0) };
        if at == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        NonNull::new(at.cast()).map(Mapping).ok_or(Errno::ENOMEM)
    }

    fn words(&self) -> &[AtomicU64; WORDS] {
        // SAFETY: the mapping is page-aligned, exactly as large as the array, lives as long as `self`, and is only ever
        // accessed through atomics, by whichever process; any bytes are valid atomics. Where it is mapped for reading
        // only, `load` makes nothing but relaxed loads of 8 bytes, which std allows on such memory. A file that
        // is cut short meanwhile ends the process by SIGBUS: only its owner could, who is checked to be us.
        unsafe { self.0.as_ref() }
    }

    fn load(&self) -> [u64; WORDS] {
        std::array::from_fn(|index| self.words()[index].load(Ordering::Relaxed))
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new`, is unmapped once, and no reference into it outlives `self`.
        unsafe { libc::munmap(self.0.as_ptr().cast(), BYTES) };
    }
}
