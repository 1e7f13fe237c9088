//! Makes this a program of a read-only mount: by mapping it from there, or by executing it once more.

use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicBool, Ordering};

use super::segments::{PAGE, PF_R, PF_W, PF_X, Segment, segments};
use super::{
    AT_FDCWD, CLOSE, EXECVEAT, FCNTL, GETEUID, MOUNT_SETATTR, OPEN_TREE, OPENAT, PRCTL, STATFS, Word, call, map,
};

/// The number of the descriptor that holds the read-only mount until nothing waits for its end any more. Far from those
/// that a caller hands down to the container, and within the first table of descriptors.
pub const HELD: i32 = 61;
/// [`HELD`] by its path.
const HELD_PATH: &core::ffi::CStr = c"/proc/self/fd/61";

const SELF: &core::ffi::CStr = c"/proc/self/exe";

/// Whether this is the host's root, executing a file on a mount that may be written.
pub(super) fn may_be_written() -> bool {
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
pub(super) unsafe fn become_read_only(words: *const Word, environment: *const Word) {
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
