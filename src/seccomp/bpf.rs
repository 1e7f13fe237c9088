//! Classic BPF as seccomp uses it: the few instructions, and a balanced decision tree over system call numbers.

use std::collections::BTreeMap;

use crate::sys::seccomp::{Data, Instruction, action};

/// Load a 32-bit word of `struct seccomp_data`.
pub const LD: u16 = 0x20;
/// `A & k`.
pub const AND: u16 = 0x54;
/// Jump always, by `k`.
pub const JA: u16 = 0x05;
/// Jump if `A == k`.
pub const JEQ: u16 = 0x15;
/// Jump if `A > k`, unsigned.
pub const JGT: u16 = 0x25;
/// Jump if `A >= k`, unsigned.
pub const JGE: u16 = 0x35;
/// Jump if `A & k`.
pub const JSET: u16 = 0x45;
/// Return `k`.
pub const RET: u16 = 0x06;

/// Offset of the system call number.
pub const OFF_NR: u32 = 0;
/// Offset of the architecture.
pub const OFF_ARCH: u32 = 4;

/// The bit that marks an x32 call on x86_64.
pub const X32_BIT: u32 = 0x4000_0000;

/// `AUDIT_ARCH_*` of the machine this was built for.
#[cfg(target_arch = "x86_64")]
pub const NATIVE: u32 = 0xc000_003e;
/// `AUDIT_ARCH_*` of the machine this was built for.
#[cfg(target_arch = "aarch64")]
pub const NATIVE: u32 = 0xc000_00b7;
/// `AUDIT_ARCH_*` of the machine this was built for.
#[cfg(target_arch = "riscv64")]
pub const NATIVE: u32 = 0xc000_00f3;

/// Offset of the low 32 bits of argument `index` on a little-endian machine.
pub const fn off_arg_low(index: u32) -> u32 {
    16 + 8 * index
}

/// An instruction without a jump.
pub const fn stmt(code: u16, k: u32) -> Instruction {
    Instruction { code, jt: 0, jf: 0, k }
}

/// A conditional jump.
pub const fn jump(code: u16, k: u32, jt: u8, jf: u8) -> Instruction {
    Instruction { code, jt, jf, k }
}

/// `SECCOMP_RET_ERRNO` with `errno`.
pub const fn errno(errno: i32) -> u32 {
    action::ERRNO | (errno as u32 & 0xffff)
}

/// What a decision tree answers for a range of numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leaf {
    /// Return this action.
    Return(u32),
    /// Go on behind the tree.
    Fall,
}

/// A run of numbers, from `first` to the next range's first, with one answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// First number of the run.
    pub first: u32,
    /// Answer of every number in it.
    pub leaf: Leaf,
}

/// Turns single numbers into runs; numbers not named get `default`. A number named twice keeps its first answer.
pub fn ranges(named: &[(u32, Leaf)], default: Leaf) -> Vec<Range> {
    // Nearly all numbers are small: each has its place, which takes no sorting.
    let mut low = [None; 512];
    let mut high = BTreeMap::new();
    for (nr, leaf) in named {
        match low.get_mut(*nr as usize) {
            Some(place) => *place = place.or(Some(*leaf)),
            None => drop(high.entry(*nr).or_insert(*leaf)),
        }
    }
    let low = (0..).zip(low).filter_map(|(nr, leaf)| Some((nr, leaf?)));
    let mut out = vec![Range { first: 0, leaf: default }];
    let mut next = 0u32;
    let mut push = |first: u32, leaf: Leaf| match out.last_mut() {
        Some(last) if last.leaf == leaf => {}
        Some(last) if last.first == first => last.leaf = leaf,
        _ => out.push(Range { first, leaf }),
    };
    for (nr, leaf) in low.chain(high) {
        if nr > next {
            push(next, default);
        }
        push(nr, leaf);
        next = nr.saturating_add(1);
    }
    push(next, default);
    // Replacing the very first range may have made it equal to its successor.
    out.dedup_by(|b, a| a.leaf == b.leaf);
    out
}

/// Emits a balanced tree of comparisons over `ranges` (the accumulator holds the number), [`Leaf::Fall`] continuing
/// right behind the emitted code.
///
/// The kernel emulates a new filter for every number to learn which are always allowed, so depth counts at load time:
/// a linear chain of 300 comparisons costs 50 times as much there as this.
pub fn tree(ranges: &[Range]) -> Vec<Instruction> {
    let mut code = Vec::with_capacity(ranges.len() * 3);
    let mut falls = Vec::new();
    emit(ranges, &mut code, &mut falls);
    let end = code.len();
    for at in falls {
        code[at].k = (end - at - 1) as u32;
    }
    code
}

fn emit(ranges: &[Range], code: &mut Vec<Instruction>, falls: &mut Vec<usize>) {
    if let [range] = ranges {
        match range.leaf {
            Leaf::Return(action) => code.push(stmt(RET, action)),
            Leaf::Fall => {
                falls.push(code.len());
                code.push(stmt(JA, 0));
            }
        }
        return;
    }
    let (low, high) = ranges.split_at(ranges.len() / 2);
    let at = code.len();
    code.push(jump(JGE, high[0].first, 0, 0));
    emit(low, code, falls);
    let skip = code.len() - at - 1;
    match u8::try_from(skip) {
        Ok(skip) => code[at].jt = skip,
        Err(_) => {
            // Too far for a conditional jump: `jge` over a long jump instead. Inserting moves what follows by one.
            code[at] = jump(JGE, high[0].first, 0, 1);
            code.insert(at + 1, stmt(JA, skip as u32));
            for fall in falls.iter_mut().filter(|fall| **fall > at) {
                *fall += 1;
            }
        }
    }
    emit(high, code, falls);
}

/// Evaluates a program as the kernel does: `None` for anything the kernel's checker would refuse. By it filters are tested.
pub fn run(program: &[Instruction], data: &Data) -> Option<u32> {
    let mut words = [0u32; 16];
    words[0] = data.nr as u32;
    words[1] = data.arch;
    words[2] = data.instruction_pointer as u32;
    words[3] = (data.instruction_pointer >> 32) as u32;
    for (i, arg) in data.args.iter().enumerate() {
        words[4 + 2 * i] = *arg as u32;
        words[5 + 2 * i] = (*arg >> 32) as u32;
    }
    let (mut a, mut x, mut mem) = (0u32, 0u32, [0u32; 16]);
    let mut pc = 0usize;
    loop {
        let i = program.get(pc)?;
        pc += 1;
        let branch = |holds: bool| usize::from(if holds { i.jt } else { i.jf });
        match i.code {
            LD if i.k % 4 == 0 => a = *words.get(i.k as usize / 4)?,
            AND => a &= i.k,
            JA => pc += i.k as usize,
            JEQ => pc += branch(a == i.k),
            JGT => pc += branch(a > i.k),
            JGE => pc += branch(a >= i.k),
            JSET => pc += branch(a & i.k != 0),
            0x02 => *mem.get_mut(i.k as usize)? = a,
            0x60 => a = *mem.get(i.k as usize)?,
            0x07 => x = a,
            0x87 => a = x,
            RET => return Some(i.k),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(program: &[Instruction], nr: u32) -> Option<u32> {
        run(program, &Data { nr: nr as i32, arch: NATIVE, ..Data::default() })
    }

    #[test]
    fn runs_are_merged_and_gaps_get_the_default() {
        let allow = Leaf::Return(action::ALLOW);
        let got = ranges(&[(0, allow), (1, allow), (2, allow), (5, Leaf::Fall)], Leaf::Return(errno(38)));
        let want = [(0, allow), (3, Leaf::Return(errno(38))), (5, Leaf::Fall), (6, Leaf::Return(errno(38)))];
        assert_eq!(got, want.map(|(first, leaf)| Range { first, leaf }));
    }

    #[test]
    fn one_answer_is_one_range() {
        let allow = Leaf::Return(action::ALLOW);
        assert_eq!(ranges(&[(0, allow), (7, allow)], allow), [Range { first: 0, leaf: allow }]);
    }

    #[test]
    fn a_tree_with_long_jumps_answers_like_a_table() {
        // Every number another answer: 600 ranges, so conditional jumps overflow at the upper levels.
        let named: Vec<(u32, Leaf)> = (0..600)
            .map(|nr| (nr, if nr % 7 == 3 { Leaf::Fall } else { Leaf::Return(errno(nr as i32 + 1)) }))
            .collect();
        let mut program = vec![stmt(LD, OFF_NR)];
        program.extend(tree(&ranges(&named, Leaf::Return(action::ALLOW))));
        program.push(stmt(RET, action::TRAP));
        for nr in 0..700 {
            let want = match named.get(nr as usize) {
                Some((_, Leaf::Return(action))) => *action,
                Some((_, Leaf::Fall)) => action::TRAP,
                None => action::ALLOW,
            };
            assert_eq!(answer(&program, nr), Some(want), "number {nr}");
        }
    }
}
