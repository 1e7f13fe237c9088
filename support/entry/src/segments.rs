//! What of the program is mapped from its file.

use super::{Word, call};

/// The keys of the auxiliary vector (`<linux/auxvec.h>`).
const AT_NULL: usize = 0;
const AT_PHDR: usize = 3;
const AT_PHNUM: usize = 5;

/// Has the kernel make the program's writable pages at once: nearly all are written when it is relocated, and each would
/// cost a fault. Linux before 5.14 does nothing here.
///
/// # Safety
/// As [`segments`].
pub(super) unsafe fn populate(environment: *const Word) {
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

pub(super) const PAGE: usize = 4096;

/// `PF_*` of `<elf.h>`.
pub(super) const PF_X: u32 = 1;
pub(super) const PF_W: u32 = 2;
pub(super) const PF_R: u32 = 4;

/// A part of the program that is mapped from its file.
pub(super) struct Segment {
    /// Where it begins in memory.
    pub(super) start: usize,
    /// Where it begins in the file.
    pub(super) offset: usize,
    /// How many bytes of it are in the file; what is more is zero.
    pub(super) in_file: usize,
    /// How many bytes it has in memory.
    pub(super) in_memory: usize,
    /// `PF_*`.
    pub(super) flags: u32,
}

/// Gives `each` the program's segments in order, until it says no; whether it never did, and there were any.
///
/// # Safety
/// `environment` is what the kernel has made: strings, a null, the auxiliary vector.
pub(super) unsafe fn segments(environment: *const Word, mut each: impl FnMut(Segment) -> bool) -> bool {
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
