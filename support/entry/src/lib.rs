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

use core::arch::{asm, naked_asm};
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicBool, Ordering};

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

/// The number of the descriptor that holds the read-only mount until nothing waits for its end any more. Far from those
/// that a caller hands down to the container, and within the first table of descriptors.
pub const HELD: i32 = 61;
/// [`HELD`] by its path.
const HELD_PATH: &core::ffi::CStr = c"/proc/self/fd/61";

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

/// Has the kernel make the program's writable pages at once: nearly all are written when it is relocated, and each would
/// cost a fault. Linux before 5.14 does nothing here.
///
/// # Safety
/// As [`segments`].
unsafe fn populate(environment: *const Word) {
    const MADVISE: usize = 28;
    const MADV_POPULATE_WRITE: usize = 23;
    let (mut first, mut last) = (usize::MAX, 0);
    // SAFETY: the caller's. Advice on what is not mapped is refused.
    unsafe {
        segments(environment, |segment| {
            if segment.flags & PF_W != 0 {
                first = if segment.start < first { segment.start } else { first };
                last = segment.start.wrapping_add(segment.in_memory);
            }
            true
        });
        if first < last {
            let start = first & !(PAGE - 1);
            call(MADVISE, [start, (last - start).next_multiple_of(PAGE), MADV_POPULATE_WRITE, 0, 0]);
        }
    }
}

const PAGE: usize = 4096;

/// `PF_*` of `<elf.h>`.
const PF_X: u32 = 1;
const PF_W: u32 = 2;
const PF_R: u32 = 4;

/// A part of the program that is mapped from its file.
struct Segment {
    /// Where it begins in memory.
    start: usize,
    /// Where it begins in the file.
    offset: usize,
    /// How many bytes of it are in the file; what is more is zero.
    in_file: usize,
    /// How many bytes it has in memory.
    in_memory: usize,
    /// `PF_*`.
    flags: u32,
}

/// Gives `each` the program's segments in order, until it says no; whether it never did, and there were any.
///
/// # Safety
/// `environment` is what the kernel has made: strings, a null, the auxiliary vector.
unsafe fn segments(environment: *const Word, mut each: impl FnMut(Segment) -> bool) -> bool {
    const PT_LOAD: u32 = 1;
    const PT_PHDR: u32 = 6;
    // SAFETY: the kernel ends each of the lists; the program headers, 56 bytes each, are mapped with the program.
    unsafe {
        let mut at = environment;
        while !(*at).is_null() {
            at = at.add(1);
        }
        let mut auxiliary: *const [usize; 2] = at.add(1).cast();
        let (mut headers, mut count) = (0, 0);
        while (*auxiliary)[0] != AT_NULL {
            match (*auxiliary)[0] {
                AT_PHDR => headers = (*auxiliary)[1],
                AT_PHNUM => count = (*auxiliary)[1],
                _ => {}
            }
            auxiliary = auxiliary.add(1);
        }
        // How far the program is from where it was linked for. The header that tells comes first, where there is one at all.
        let mut base = None;
        let mut n = 0;
        while n < count {
            // `Elf64_Phdr`: type and flags in the first word, then offset, address, physical address, sizes in file, memory.
            let [kind, offset, address, _, in_file, in_memory, _] = *(headers as *const [usize; 7]).add(n);
            if kind as u32 == PT_PHDR {
                base = Some(headers.wrapping_sub(address));
            } else if kind as u32 == PT_LOAD {
                let Some(base) = base else { return false };
                let start = base.wrapping_add(address);
                if !each(Segment { start, offset, in_file, in_memory, flags: (kind >> 32) as u32 }) {
                    return false;
                }
            }
            n += 1;
        }
        base.is_some()
    }
}

/// The keys of the auxiliary vector (`<linux/auxvec.h>`).
const AT_NULL: usize = 0;
const AT_PHDR: usize = 3;
const AT_PHNUM: usize = 5;

/// A string that ends in a null byte.
type Word = *const u8;

/// What the words call.
enum Called {
    /// `exec`, whose container is not looked at.
    Exec,
    /// `create` or `run` of a bundle.
    Create(Word),
    /// `run` of what is judged without a bundle: in a sandbox that has a user namespace and a network namespace.
    Judge,
    /// Nothing that enters a container, or nothing that is to be done.
    Other,
}

/// The command that the words call.
///
/// # Safety
/// `words` are `count` strings.
unsafe fn called(words: *const Word, count: usize) -> Called {
    let mut command = 0;
    let mut bundle: Word = c".".as_ptr().cast();
    let mut at = 1;
    while at < count {
        // SAFETY: below `count`.
        unsafe {
            let word = *words.add(at);
            if command == 0 && (starts(word, b"create\0") || starts(word, b"run\0")) {
                command = *word;
            } else if command == 0 && starts(word, b"exec\0") {
                return Called::Exec;
            } else if command == 0 && starts(word, b"--dry-run\0") {
                return Called::Other;
            } else if command == b'r' && (starts(word, b"--\0") || starts(word, b"--code") || starts(word, b"--source"))
            {
                return Called::Judge;
            } else if starts(word, b"-b\0") || starts(word, b"--bundle\0") {
                at += 1;
                if at < count {
                    bundle = *words.add(at);
                }
            } else if starts(word, b"--bundle=") {
                bundle = word.add(b"--bundle=".len());
            }
        }
        at += 1;
    }
    if command == 0 { Called::Other } else { Called::Create(bundle) }
}

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

/// What a configuration says of namespaces.
struct Wanted {
    /// It has a user namespace, or cannot be read.
    user: bool,
    /// It has a network namespace without a path.
    network: bool,
}

/// What the bundle's config.json says of namespaces.
///
/// # Safety
/// `bundle` is a string.
unsafe fn namespaces(bundle: Word) -> Wanted {
    const O_PATH_DIRECTORY: usize = 0o12_200_000;
    const O_NONBLOCK_NOCTTY: usize = 0o4_400;
    const PROT_READ: usize = 1;
    const MAP_PRIVATE: usize = 2;
    let unreadable = Wanted { user: true, network: false };
    // SAFETY: the kernel reads strings and fills a `stat`, whose size stands at its byte 48; the mapping is as long as it.
    unsafe {
        let dir = call(OPENAT, [AT_FDCWD, bundle as usize, O_PATH_DIRECTORY, 0, 0]);
        let file = call(OPENAT, [dir as usize, c"config.json".as_ptr() as usize, O_NONBLOCK_NOCTTY, 0, 0]);
        call(CLOSE, [dir as usize, 0, 0, 0, 0]);
        if file < 0 {
            return unreadable;
        }
        let mut stat = MaybeUninit::<[usize; 18]>::uninit();
        let known = call(FSTAT, [file as usize, stat.as_mut_ptr() as usize, 0, 0, 0]);
        let length = if known == 0 { *stat.as_ptr().cast::<usize>().add(6) } else { 0 };
        let text = map(0, length, PROT_READ, MAP_PRIVATE, file, 0);
        call(CLOSE, [file as usize, 0, 0, 0, 0]);
        if text < 0 {
            return unreadable;
        }
        let wanted = named(text as *const u8, length);
        call(MUNMAP, [text as usize, length, 0, 0, 0]);
        wanted
    }
}

/// What the text says of namespaces: `"type": "user"`, and `"type": "network"` in an object without `"path"`.
///
/// # Safety
/// `text` is as long as `length` says.
unsafe fn named(text: *const u8, length: usize) -> Wanted {
    let mut wanted = Wanted { user: false, network: false };
    // SAFETY: every index is compared with `length` first.
    let has = |at: usize, what: &[u8]| unsafe {
        let mut same = 0;
        while same < what.len() && at + same < length && *text.add(at + same) == *what.as_ptr().add(same) {
            same += 1;
        }
        same == what.len()
    };
    // SAFETY: the same.
    let byte = |at: usize| unsafe { if at < length { *text.add(at) } else { 0 } };
    // Since the last brace, there was a path, a new network.
    let (mut path, mut network) = (false, false);
    let mut at = 0;
    while at < length {
        if byte(at) == b'{' || byte(at) == b'}' {
            wanted.network |= network && !path;
            (path, network) = (false, false);
        } else if has(at, b"\"path\"") {
            path = true;
        } else if has(at, b"\"type\"") {
            let mut value = at + b"\"type\"".len();
            while byte(value).is_ascii_whitespace() || byte(value) == b':' {
                value += 1;
            }
            wanted.user |= has(value, b"\"user\"");
            network |= has(value, b"\"network\"");
        }
        at += 1;
    }
    wanted
}

const SELF: &core::ffi::CStr = c"/proc/self/exe";

/// Whether this is the host's root, executing a file on a mount that may be written.
fn may_be_written() -> bool {
    const ST_RDONLY: usize = 1;
    let mut statfs = MaybeUninit::<[usize; 15]>::uninit();
    // SAFETY: the kernel reads a string and fills a `statfs`, whose flags are its eleventh word.
    unsafe {
        call(GETEUID, [0; 5]) == 0
            && call(STATFS, [SELF.as_ptr() as usize, statfs.as_mut_ptr() as usize, 0, 0, 0]) == 0
            && *statfs.as_ptr().cast::<usize>().add(10) & ST_RDONLY == 0
    }
}

/// Makes this a program from a read-only mount of its file: by mapping it from there, or, where that cannot be, by executing
/// it once more. Returns, with nothing changed, where there is no privilege to mount.
///
/// # Safety
/// The words and the environment are as the kernel has made them.
unsafe fn become_read_only(words: *const Word, environment: *const Word) {
    const OPEN_TREE_CLONE_CLOEXEC: usize = 0o2_000_001;
    const AT_EMPTY_PATH: usize = 0x1000;
    const F_DUPFD: usize = 0;
    // `struct mount_attr`: MOUNT_ATTR_RDONLY to be set.
    let read_only: [u64; 4] = [1, 0, 0, 0];
    let empty = c"".as_ptr() as usize;
    // SAFETY: the kernel reads strings and `read_only`.
    unsafe {
        let tree = call(OPEN_TREE, [AT_FDCWD, SELF.as_ptr() as usize, OPEN_TREE_CLONE_CLOEXEC, 0, 0]);
        if tree < 0 {
            return;
        }
        let attributes = [tree as usize, empty, AT_EMPTY_PATH, read_only.as_ptr() as usize, size_of_val(&read_only)];
        if call(MOUNT_SETATTR, attributes) == 0 {
            // A detached mount ends with its last descriptor, and whoever closes that waits for RCU: it outlives an
            // execution, and is closed where there is time to wait.
            let held = call(FCNTL, [tree as usize, F_DUPFD, HELD as usize, 0, 0]);
            if held == HELD as isize && map_held(words, environment) {
                MAPPED.store(true, Ordering::Relaxed);
            } else {
                if held != HELD as isize {
                    call(CLOSE, [held as usize, 0, 0, 0, 0]);
                }
                let from = if held == HELD as isize { held } else { tree };
                call(EXECVEAT, [from as usize, empty, words as usize, environment as usize, AT_EMPTY_PATH]);
                call(CLOSE, [from as usize, 0, 0, 0, 0]);
            }
        }
        call(CLOSE, [tree as usize, 0, 0, 0, 0]);
    }
}

/// Maps every segment of this program anew, from the file behind [`HELD`], before anything is written to one, and makes that
/// its executable (`PR_SET_MM_MAP`, prctl(2)). The kernel does so only where it sees no mapping of the old one, so whoever
/// succeeds is as if executed from there. A third as long as an execution.
///
/// # Safety
/// As [`segments`], and `words` are those before the environment.
unsafe fn map_held(words: *const Word, environment: *const Word) -> bool {
    const PROT_READ: usize = 1;
    const PROT_WRITE: usize = 2;
    const PROT_EXEC: usize = 4;
    const MAP_PRIVATE_FIXED: usize = 0x12;
    const O_CLOEXEC: usize = 0o2_000_000;
    const PR_SET_MM: usize = 35;
    const PR_SET_MM_MAP: usize = 14;
    const EBUSY: isize = 16;
    // SAFETY: the same bytes come to be mapped where they are; behind them the kernel has made zeros, and so does this. The
    // kernel reads one `prctl_mm_map`.
    unsafe {
        let mut shape = shape(words, environment);
        let file = call(OPENAT, [AT_FDCWD, HELD_PATH.as_ptr() as usize, O_CLOEXEC, 0, 0]);
        if file < 0 {
            return false;
        }
        // Busy, as all is mapped from the old one: it is the one thing that is in the way. Where the kernel does not see
        // that, as for a file of an overlayfs, it would not see what is left either; asked with the old one, it changes nothing.
        let old = call(OPENAT, [AT_FDCWD, SELF.as_ptr() as usize, O_CLOEXEC, 0, 0]);
        shape.executable = old as u32;
        let asked = call(PRCTL, [PR_SET_MM, PR_SET_MM_MAP, &raw const shape as usize, size_of_val(&shape), 0]);
        call(CLOSE, [old as usize, 0, 0, 0, 0]);
        shape.executable = file as u32;
        let mapped = old >= 0
            && asked == -EBUSY
            && segments(environment, |segment| {
                let Segment { start, offset, in_file, in_memory, flags } = segment;
                let before = start % PAGE;
                let bit = |flag: u32, bit: usize| if flags & flag != 0 { bit } else { 0 };
                let protection = bit(PF_R, PROT_READ) | bit(PF_W, PROT_WRITE) | bit(PF_X, PROT_EXEC);
                if in_file == 0 {
                    return true;
                }
                let place = map(start - before, in_file + before, protection, MAP_PRIVATE_FIXED, file, offset - before);
                if place < 0 {
                    return false;
                }
                if in_memory > in_file {
                    let mut at = start + in_file;
                    while !at.is_multiple_of(PAGE) {
                        *(at as *mut u8) = 0;
                        at += 1;
                    }
                }
                true
            })
            && call(PRCTL, [PR_SET_MM, PR_SET_MM_MAP, &raw const shape as usize, size_of_val(&shape), 0]) == 0;
        call(CLOSE, [file as usize, 0, 0, 0, 0]);
        mapped
    }
}

/// `struct prctl_mm_map` of `<linux/prctl.h>`: where in memory the parts of a program are, for `/proc` to tell.
#[repr(C)]
struct Shape {
    code: [usize; 2],
    data: [usize; 2],
    brk: [usize; 2],
    stack: usize,
    arguments: [usize; 2],
    environment: [usize; 2],
    /// As it is.
    auxiliary: usize,
    auxiliary_size: u32,
    executable: u32,
}

/// The shape that the kernel has given this program.
///
/// # Safety
/// As [`map_held`].
unsafe fn shape(words: *const Word, environment: *const Word) -> Shape {
    const BRK: usize = 12;
    let (mut code, mut data) = ([0; 2], [0; 2]);
    // SAFETY: the caller's. The strings lie one behind the other: the words, then the environment.
    unsafe {
        segments(environment, |Segment { start, in_file, flags, .. }| {
            if flags & PF_X != 0 {
                code = [start, start + in_file];
            } else if flags & PF_W != 0 {
                data = [start, start + in_file];
            }
            true
        });
        let brk = call(BRK, [0; 5]) as usize;
        let mut last = environment.sub(2);
        let mut at = environment;
        while !(*at).is_null() {
            last = at;
            at = at.add(1);
        }
        let mut end = *last;
        while *end != 0 {
            end = end.add(1);
        }
        let end = end as usize + 1;
        let between = if at == environment { end } else { *environment as usize };
        Shape {
            code,
            data,
            brk: [brk; 2],
            stack: words as usize - size_of::<usize>(),
            arguments: [*words as usize, between],
            environment: [between, end],
            auxiliary: 0,
            auxiliary_size: 0,
            executable: 0,
        }
    }
}

/// Whether the program has been mapped from the mount that [`HELD`] holds.
static MAPPED: AtomicBool = AtomicBool::new(false);

/// Whether [`HELD`] holds the mount of the file that this program was mapped from before it started.
pub fn is_mapped() -> bool {
    MAPPED.load(Ordering::Relaxed)
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
