//! Makes a program shorter that says the same: the kernel translates every instruction when a filter is attached, in a third
//! of a microsecond each, and that is on the way of every start.
//!
//! Jumps of classic BPF lead forward only, so one pass from the end to the beginning knows where each of them comes to.

use super::bpf::{JA, JEQ, JGE, JGT, JSET, RET};
use crate::sys::seccomp::Instruction;

/// The part of an operation that says which kind it is of.
const CLASS: u16 = 7;

/// How far a conditional jump reaches.
const REACH: usize = u8::MAX as usize;

/// The same program without jumps to jumps, without answers that stand there twice, and without what nobody comes to.
///
/// `program` is one that the kernel takes; others come back as they are.
pub fn shorten(program: &[Instruction]) -> Vec<Instruction> {
    let unknown = |i: &Instruction| i.code & CLASS == JA & CLASS && ![JA, JEQ, JGT, JGE, JSET].contains(&i.code);
    if program.iter().any(unknown) {
        return program.to_vec();
    }
    let mut program = program.to_vec();
    loop {
        let Some(shorter) = step(&program) else { return program };
        if shorter == program {
            return program;
        }
        program = shorter;
    }
}

/// Where an instruction goes on: at one place, at one of two, or nowhere.
fn ways(at: usize, instruction: Instruction) -> [Option<usize>; 2] {
    match instruction.code {
        code if code & CLASS == RET & CLASS => [None, None],
        JA => [Some(at + 1 + instruction.k as usize), None],
        JEQ | JGT | JGE | JSET => {
            [Some(at + 1 + usize::from(instruction.jt)), Some(at + 1 + usize::from(instruction.jf))]
        }
        _ => [Some(at + 1), None],
    }
}

/// One round; nothing where the program is none.
fn step(program: &[Instruction]) -> Option<Vec<Instruction>> {
    let mut code = program.to_vec();
    for at in (0..code.len()).rev() {
        let here = code[at];
        // What is further on is done, so that a jump there is to the end of its chain.
        match (here.code, ways(at, here)) {
            (JA, [Some(to), _]) => {
                let there = *code.get(to)?;
                match there.code {
                    RET => code[at] = there,
                    JA => code[at].k += 1 + there.k,
                    _ => {}
                }
            }
            (_, [Some(yes), Some(no)]) => {
                let (yes, no) = (arrive(&code, at, yes)?, arrive(&code, at, no)?);
                if yes == no {
                    code[at] = Instruction { code: JA, jt: 0, jf: 0, k: u32::try_from(yes - at - 1).ok()? };
                } else {
                    code[at].jt = u8::try_from(yes - at - 1).ok()?;
                    code[at].jf = u8::try_from(no - at - 1).ok()?;
                }
            }
            _ => {}
        }
    }
    drop_dead(&code)
}

/// Where a conditional jump at `at` that leads to `to` may lead as well: over a jump, and to the last of the answers like
/// the one it leads to, which the most jumps reach.
fn arrive(code: &[Instruction], at: usize, to: usize) -> Option<usize> {
    let there = *code.get(to)?;
    let last = code.len().min(at + 1 + REACH + 1);
    Some(match there.code {
        JA => Some(to + 1 + there.k as usize).filter(|further| *further < last).unwrap_or(to),
        RET => (to..last).rev().find(|place| code[*place] == there).unwrap_or(to),
        _ => to,
    })
}

/// Leaves out what is not reached, and jumps to what is next then.
fn drop_dead(code: &[Instruction]) -> Option<Vec<Instruction>> {
    let mut reached = vec![false; code.len()];
    *reached.first_mut()? = true;
    for at in 0..code.len() {
        if reached[at] {
            for way in ways(at, code[at]).into_iter().flatten() {
                *reached.get_mut(way)? = true;
            }
        }
    }
    // From the end, because a jump may become one to the next by what is left out between.
    let mut kept = reached;
    for at in (0..code.len()).rev() {
        if let (JA, [Some(to), _]) = (code[at].code, ways(at, code[at])) {
            kept[at] &= kept[at + 1..to].iter().any(|between| *between);
        }
    }
    // What is left out was on the way to what follows it.
    let place: Vec<usize> = kept
        .iter()
        .scan(0, |next, kept| {
            let here = *next;
            *next += usize::from(*kept);
            Some(here)
        })
        .collect();
    let moved = |at: usize, to: usize| u32::try_from(place[to] - place[at] - 1).ok();
    let mut out = Vec::with_capacity(code.len());
    for at in (0..code.len()).filter(|at| kept[*at]) {
        let mut instruction = code[at];
        match (instruction.code, ways(at, instruction)) {
            (JA, [Some(to), _]) => instruction.k = moved(at, to)?,
            (_, [Some(yes), Some(no)]) => {
                instruction.jt = u8::try_from(moved(at, yes)?).ok()?;
                instruction.jf = u8::try_from(moved(at, no)?).ok()?;
            }
            _ => {}
        }
        out.push(instruction);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::bpf::{AND, LD, NATIVE, OFF_NR, jump, run, stmt};
    use super::*;
    use crate::sys::seccomp::Data;

    #[test]
    fn answers_are_shared_and_jumps_go_straight_on() {
        let program = [
            stmt(LD, OFF_NR),
            jump(JEQ, 1, 0, 1),
            stmt(JA, 1),
            stmt(JA, 1),
            stmt(RET, 7),
            jump(JEQ, 2, 0, 1),
            stmt(RET, 7),
            stmt(RET, 9),
        ];
        let want = [stmt(LD, OFF_NR), jump(JEQ, 1, 1, 0), jump(JEQ, 2, 0, 1), stmt(RET, 7), stmt(RET, 9)];
        assert_eq!(shorten(&program), want);
    }

    #[test]
    fn what_is_no_program_comes_back_as_it_is() {
        let by_register = vec![jump(JEQ | 8, 0, 0, 0), stmt(RET, 0), stmt(RET, 0)];
        let wrong = [vec![], vec![jump(JEQ, 1, 9, 0)], vec![stmt(LD, OFF_NR)], vec![stmt(JA, 1), stmt(RET, 0)]];
        for program in wrong.into_iter().chain([by_register]) {
            assert_eq!(shorten(&program), program);
        }
    }

    /// Any program that goes forward and ends: few answers and few values, so that much of it is alike.
    fn a_program() -> impl Strategy<Value = Vec<Instruction>> {
        let instruction = prop_oneof![
            (0u32..2).prop_map(|word| stmt(LD, word * 4)),
            Just(stmt(AND, 0xff)),
            (0u32..700).prop_map(|k| stmt(JA, k)),
            (prop::sample::select(vec![JEQ, JGT, JGE, JSET]), 0u32..9, any::<u8>(), any::<u8>())
                .prop_map(|(code, k, jt, jf)| jump(code, k, jt, jf)),
            (0u32..3).prop_map(|k| stmt(RET, k)),
        ];
        prop::collection::vec(instruction, 1..600).prop_map(|mut code| {
            let end = code.len();
            for (at, instruction) in code.iter_mut().enumerate() {
                let left = end - at;
                match instruction.code {
                    JA => instruction.k %= left as u32,
                    JEQ | JGT | JGE | JSET => {
                        instruction.jt = (usize::from(instruction.jt) % left) as u8;
                        instruction.jf = (usize::from(instruction.jf) % left) as u8;
                    }
                    _ => {}
                }
            }
            code.push(stmt(RET, 0));
            code
        })
    }

    proptest! {
        #[test]
        fn a_shorter_program_says_the_same(program in a_program()) {
            let shorter = shorten(&program);
            prop_assert!(shorter.len() <= program.len());
            for nr in 0..12 {
                let data = Data { nr, arch: NATIVE, ..Data::default() };
                prop_assert_eq!(run(&shorter, &data), run(&program, &data), "number {}", nr);
            }
        }
    }
}
