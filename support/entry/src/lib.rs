//! The program's first instructions, before the C library's own.
//!
//! A container of the host's root must be entered by a process whose binary cannot be reopened for writing
//! (CVE-2019-5736), so for `create`, `run` and `exec` the program is mapped anew, from a read-only, detached mount of
//! itself, or executed once more from there. Whatever comes before an execution is done twice, and nothing of the program
//! may be written before a mapping. So the decision is made here, from the words of the command line alone, and everything
//! else goes on at the usual entry.
//!
//! It may be wrong either way at the cost of time only: the parsed configuration decides (`cli::exe::protect`,
//! `container::create`).
//!
//! A container's new network namespace is begun here, too ([`network`]): nothing takes the kernel longer.
//!
//! Nothing is relocated yet: no function of another crate but inlined ones, no static that holds an address, no panic, no
//! thread-local. `no_builtins` keeps the compiler from putting calls of `memcmp` and the like in place of loops.
#![no_std]
#![no_builtins]
#![cfg(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu"))]

#[cfg(known_start)]
mod library;
pub mod network;
mod read_only;
mod segments;
mod words;

use core::arch::{asm, naked_asm};

pub use read_only::{HELD, is_mapped};
use read_only::{become_read_only, may_be_written};
use segments::populate;
use words::{Called, called, namespaces};

/// Whether the C library is one that can be started without its questions to the processor (`library`).
pub const KNOWN_START: bool = cfg!(known_start);

/// Defines the program's `main`, which the C library calls, by a function that gives the exit status.
///
/// The standard library's own takes 0.07 ms, most of it to learn from `/proc/self/maps` where the stack ends, for words
/// about an overflow. What else it does is left to the function: filling closed standard streams, ignoring SIGPIPE.
#[macro_export]
macro_rules! main {
    ($function:path) => {
        #[unsafe(no_mangle)]
        pub extern "C" fn main(_count: core::ffi::c_int, _words: *const *const core::ffi::c_char) -> core::ffi::c_int {
            let status = $function();
            // What was begun and never wanted does not outlive the program.
            let _ = $crate::network::take();
            // Flushes what is still to be printed.
            std::process::exit(status.into())
        }
    };
}

/// The program's entry, by the linker's `-e`: looks at the words, then starts the C library, by its own entry where its start
/// is not known.
///
/// # Safety
/// For the kernel to jump to, with the stack that it makes for a new program.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rustbox_entry() -> ! {
    // The stack is aligned to 16 and `rdx` belongs to the C library; two pushes keep both for the call.
    naked_asm!(
        "mov rdi, rsp", "push rdx", "push rdx", "call {early}", "pop rdx", "pop rdx", "jmp _start",
        early = sym early
    )
}

/// Makes the program one of a read-only mount where its words ask for it; then, or where that fails, starts the C library.
/// Returns where that is to be left to its own entry.
///
/// # Safety
/// `stack` is what the kernel has made: the count of words, the words, a null, the environment, a null.
unsafe extern "C" fn early(stack: *const usize) {
    // SAFETY: as above.
    unsafe {
        let count = *stack;
        let words: *const Word = stack.add(1).cast();
        match called(words, count) {
            Called::Judge => network::begin(),
            Called::Exec if may_be_written() => become_read_only(words, words.add(count + 1)),
            Called::Create(bundle) => {
                let wanted = namespaces(bundle);
                if !wanted.user && may_be_written() {
                    become_read_only(words, words.add(count + 1));
                }
                if wanted.network && !wanted.user {
                    network::begin();
                }
            }
            Called::Exec | Called::Other => {}
        }
        populate(words.add(count + 1));
        #[cfg(known_start)]
        library::start(stack);
    }
}

/// A string that ends in a null byte.
type Word = *const u8;

/// Whether a word begins with these bytes; with a null at their end, whether it is these.
///
/// # Safety
/// `word` is a string.
unsafe fn starts(word: Word, with: &[u8]) -> bool {
    let mut at = 0;
    while at < with.len() {
        // SAFETY: the loop has not passed the string's null, which none of `with` but its last byte equals.
        if unsafe { *word.add(at) != *with.as_ptr().add(at) } {
            return false;
        }
        at += 1;
    }
    true
}

/// A mapping of a file, as `mmap(2)`: its address, or the negative error.
///
/// # Safety
/// As `mmap(2)`.
unsafe fn map(address: usize, length: usize, protection: usize, flags: usize, file: isize, offset: usize) -> isize {
    let result;
    // SAFETY: the caller's, by the kernel's calling convention.
    unsafe {
        asm!("syscall", inlateout("rax") MMAP as isize => result, in("rdi") address, in("rsi") length,
            in("rdx") protection, in("r10") flags, in("r8") file, in("r9") offset,
            lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    result
}

/// A system call.
///
/// # Safety
/// As the call.
unsafe fn call(number: usize, arguments: [usize; 5]) -> isize {
    let [a, b, c, d, e] = arguments;
    let result;
    // SAFETY: the kernel's calling convention.
    unsafe {
        asm!("syscall", inlateout("rax") number as isize => result, in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d,
            in("r8") e, lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    result
}

const AT_FDCWD: usize = -100_isize as usize;
const CLOSE: usize = 3;
const FSTAT: usize = 5;
const MMAP: usize = 9;
const MUNMAP: usize = 11;
const FCNTL: usize = 72;
const GETEUID: usize = 107;
const PRCTL: usize = 157;
const STATFS: usize = 137;
const OPENAT: usize = 257;
const EXECVEAT: usize = 322;
const OPEN_TREE: usize = 428;
const MOUNT_SETATTR: usize = 442;
