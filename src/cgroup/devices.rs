//! `linux.resources.devices`: an ordered list of rules, as v1 exceptions and as a v2 program.
//!
//! The meaning is the same on both: for each kind of access the *last* rule that matches the device decides, and what no
//! rule matches is denied. v1 can only hold exceptions from one default, so the list is folded
//! into that form first; v2 runs the list itself, backwards.

use std::fmt;

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

use crate::error::{Error, Result};
use crate::sys::bpf::Insn;

/// `BPF_DEVCG_ACC_MKNOD`, `_READ`, `_WRITE`.
const MKNOD: u8 = 1;
const READ: u8 = 2;
const WRITE: u8 = 4;
const ALL: u8 = MKNOD | READ | WRITE;

/// Block or character: the values of `BPF_DEVCG_DEV_*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Block = 1,
    Char = 2,
}

/// One rule. `None` matches everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rule {
    pub allow: bool,
    pub kind: Option<Kind>,
    pub major: Option<u32>,
    pub minor: Option<u32>,
    pub access: u8,
}

impl Rule {
    const fn allow(kind: Kind, major: Option<u32>, minor: Option<u32>, access: u8) -> Self {
        Rule { allow: true, kind: Some(kind), major, minor, access }
    }

    /// The kinds of access, as `rwm`.
    pub(super) fn letters(&self) -> String {
        let letters = [(READ, 'r'), (WRITE, 'w'), (MKNOD, 'm')];
        letters.into_iter().filter(|(bit, _)| self.access & bit != 0).map(|(_, letter)| letter).collect()
    }

    fn is_everything(&self) -> bool {
        self.kind.is_none() && self.major.is_none() && self.minor.is_none() && self.access == ALL
    }

    fn same_devices(&self, other: &Rule) -> bool {
        (self.kind, self.major, self.minor) == (other.kind, other.major, other.minor)
    }

    /// Whether some device matches both.
    fn overlaps(&self, other: &Rule) -> bool {
        fn meet<T: PartialEq>(a: Option<T>, b: Option<T>) -> bool {
            a.is_none() || b.is_none() || a == b
        }
        meet(self.kind, other.kind) && meet(self.major, other.major) && meet(self.minor, other.minor)
    }

    /// Whether every device that `other` matches is matched by this rule.
    fn covers(&self, other: &Rule) -> bool {
        fn within<T: PartialEq>(outer: Option<T>, inner: Option<T>) -> bool {
            outer.is_none() || outer == inner
        }
        within(self.kind, other.kind) && within(self.major, other.major) && within(self.minor, other.minor)
    }
}

/// As the v1 files take it: `c 1:3 rwm`.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |value: Option<u32>| value.map_or("*".to_owned(), |value| value.to_string());
        let kind = match self.kind {
            Some(Kind::Block) => 'b',
            Some(Kind::Char) => 'c',
            None => 'a',
        };
        write!(f, "{kind} {}:{} {}", number(self.major), number(self.minor), self.letters())
    }
}

/// What every container may do, whatever its rules: the runtime specification's default devices, the pseudo-terminals,
/// making device nodes (not opening them), and /dev/net/tun, as runc and crun have it.
const DEFAULT: [Rule; 11] = [
    Rule::allow(Kind::Char, None, None, MKNOD),
    Rule::allow(Kind::Block, None, None, MKNOD),
    Rule::allow(Kind::Char, Some(1), Some(3), ALL),
    Rule::allow(Kind::Char, Some(1), Some(5), ALL),
    Rule::allow(Kind::Char, Some(1), Some(7), ALL),
    Rule::allow(Kind::Char, Some(1), Some(8), ALL),
    Rule::allow(Kind::Char, Some(1), Some(9), ALL),
    Rule::allow(Kind::Char, Some(5), Some(0), ALL),
    Rule::allow(Kind::Char, Some(5), Some(2), ALL),
    Rule::allow(Kind::Char, Some(136), None, ALL),
    Rule::allow(Kind::Char, Some(10), Some(200), ALL),
];

/// The container's rules with the defaults appended.
pub(super) fn rules(devices: &[LinuxDeviceCgroup]) -> Result<Vec<Rule>> {
    let mut rules = Vec::with_capacity(devices.len() + DEFAULT.len());
    for (index, device) in devices.iter().enumerate() {
        rules
            .push(rule(device).map_err(|reason| Error::config(format!("$.linux.resources.devices[{index}]"), reason))?);
    }
    rules.extend(DEFAULT);
    Ok(rules)
}

fn rule(device: &LinuxDeviceCgroup) -> Result<Rule, String> {
    let kind = match device.typ() {
        None | Some(LinuxDeviceType::A) => None,
        Some(LinuxDeviceType::B) => Some(Kind::Block),
        Some(LinuxDeviceType::C | LinuxDeviceType::U) => Some(Kind::Char),
        Some(LinuxDeviceType::P) => return Err("`type` p: a FIFO is not under the control of cgroups".to_owned()),
    };
    // -1 is a wildcard to runc and to the engines.
    let number = |name: &str, value: Option<i64>| match value {
        None | Some(-1) => Ok(None),
        // The kernel's dev_t has 12 and 20 bits.
        Some(value @ 0..=0xf_ffff) => Ok(Some(value as u32)),
        Some(value) => Err(format!("`{name}` {value} is no device number")),
    };
    let mut access = 0;
    for letter in device.access().as_deref().unwrap_or("rwm").chars() {
        access |= match letter {
            'r' => READ,
            'w' => WRITE,
            'm' => MKNOD,
            _ => return Err(format!("`access` has `{letter}`: only r, w and m are known")),
        };
    }
    if access == 0 {
        return Err("`access` is empty".to_owned());
    }
    let (major, minor) = (number("major", device.major())?, number("minor", device.minor())?);
    Ok(Rule { allow: device.allow(), kind, major, minor, access })
}

/// A default and the exceptions from it, as a v1 cgroup holds them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Exceptions {
    /// Whether what no exception matches is allowed.
    pub allow: bool,
    /// What is otherwise.
    pub rules: Vec<Rule>,
}

/// Folds an ordered list into a default and exceptions.
///
/// # Errors
/// [`Error::Refused`] for a list that v1 cannot hold, such as `allow c 5:*` and then `deny c 5:1`: the kernel would
/// take the second line and do nothing.
pub(super) fn exceptions(rules: &[Rule]) -> Result<Exceptions> {
    let mut list = Exceptions { allow: false, rules: Vec::new() };
    for rule in rules {
        if rule.is_everything() {
            list = Exceptions { allow: rule.allow, rules: Vec::new() };
            continue;
        }
        // In the kernel, `a` means everything whatever follows it: write such a rule for both kinds.
        let kinds: &[Kind] = match &rule.kind {
            Some(kind) => std::slice::from_ref(kind),
            None => &[Kind::Block, Kind::Char],
        };
        for kind in kinds {
            let rule = Rule { kind: Some(*kind), ..*rule };
            if rule.allow == list.allow {
                list.take_back(&rule)?;
            } else {
                list.add(rule);
            }
        }
    }
    Ok(list)
}

impl Exceptions {
    fn add(&mut self, rule: Rule) {
        if self.rules.iter().any(|it| it.covers(&rule) && it.access & rule.access == rule.access) {
            return;
        }
        match self.rules.iter_mut().find(|it| it.same_devices(&rule)) {
            Some(known) => known.access |= rule.access,
            None => self.rules.push(rule),
        }
    }

    /// A rule that agrees with the default takes exceptions back.
    fn take_back(&mut self, rule: &Rule) -> Result<()> {
        for known in &mut self.rules {
            if rule.covers(known) {
                known.access &= !rule.access;
            } else if rule.overlaps(known) && rule.access & known.access != 0 {
                return Err(Error::Refused(format!(
                    "cgroup v1 cannot {} `{rule}` out of the rule `{known}` before it",
                    if rule.allow { "allow" } else { "deny" }
                )));
            }
        }
        self.rules.retain(|it| it.access != 0);
        Ok(())
    }
}

// Registers of the program.
const RESULT: u8 = 0;
const CONTEXT: u8 = 1;
const TYPE: u8 = 2;
/// Kinds of access asked for and not yet allowed.
const WANTED: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
const SCRATCH: u8 = 6;

// Operations: class | operation | operand kind.
const LOAD_WORD: u8 = 0x61;
const MOV_IMM: u8 = 0xb7;
const MOV_REG: u8 = 0xbf;
const AND_IMM: u8 = 0x57;
const SHIFT_RIGHT_IMM: u8 = 0x77;
const JUMP_IF_EQUAL_IMM: u8 = 0x15;
const JUMP_IF_NOT_EQUAL_IMM: u8 = 0x55;
const EXIT: u8 = 0x95;

const fn insn(code: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> Insn {
    Insn { code, registers: destination | source << 4, offset, immediate }
}

/// Compiles the rules to a `BPF_PROG_TYPE_CGROUP_DEVICE` program that returns 1 to allow.
///
/// The context is `struct bpf_cgroup_dev_ctx`: access in the high and type in the low half of the first word, then major,
/// then minor. The rules are tried from the last to the first. An allowing rule strikes its kinds of access
/// off the wanted ones; a denying rule that meets one still wanted denies.
pub(super) fn compile(rules: &[Rule]) -> Vec<Insn> {
    let mut program = vec![
        insn(LOAD_WORD, TYPE, CONTEXT, 0, 0),
        insn(MOV_REG, WANTED, TYPE, 0, 0),
        insn(AND_IMM, TYPE, 0, 0, 0xffff),
        insn(SHIFT_RIGHT_IMM, WANTED, 0, 0, 16),
        insn(LOAD_WORD, MAJOR, CONTEXT, 4, 0),
        insn(LOAD_WORD, MINOR, CONTEXT, 8, 0),
    ];
    for rule in rules.iter().rev() {
        let tests = [
            rule.kind.map(|kind| (TYPE, kind as i32)),
            rule.major.map(|major| (MAJOR, major as i32)),
            rule.minor.map(|minor| (MINOR, minor as i32)),
        ];
        let access = i32::from(rule.access);
        let action = match (rule.allow, rule.access) {
            (allow, ALL) => vec![insn(MOV_IMM, RESULT, 0, 0, allow.into()), insn(EXIT, 0, 0, 0, 0)],
            (true, _) => vec![
                insn(AND_IMM, WANTED, 0, 0, !access),
                insn(JUMP_IF_NOT_EQUAL_IMM, WANTED, 0, 2, 0),
                insn(MOV_IMM, RESULT, 0, 0, 1),
                insn(EXIT, 0, 0, 0, 0),
            ],
            (false, _) => vec![
                insn(MOV_REG, SCRATCH, WANTED, 0, 0),
                insn(AND_IMM, SCRATCH, 0, 0, access),
                insn(JUMP_IF_EQUAL_IMM, SCRATCH, 0, 2, 0),
                insn(MOV_IMM, RESULT, 0, 0, 0),
                insn(EXIT, 0, 0, 0, 0),
            ],
        };
        let mut ahead = tests.iter().flatten().count() + action.len();
        for (register, value) in tests.into_iter().flatten() {
            ahead -= 1;
            program.push(insn(JUMP_IF_NOT_EQUAL_IMM, register, 0, ahead as i16, value));
        }
        program.extend(action);
        // The verifier refuses what cannot be reached: behind a rule that always decides, nothing follows.
        if rule.is_everything() {
            return program;
        }
    }
    program.extend([insn(MOV_IMM, RESULT, 0, 0, 0), insn(EXIT, 0, 0, 0, 0)]);
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a program as the kernel would, for the operations used here.
    fn run(program: &[Insn], kind: Kind, major: u32, minor: u32, access: u8) -> bool {
        let context = [u32::from(access) << 16 | kind as u32, major, minor];
        let mut registers = [0u64; 11];
        let mut at = 0usize;
        loop {
            let Insn { code, registers: pair, offset, immediate } = program[at];
            let (to, from) = (usize::from(pair & 15), usize::from(pair >> 4));
            let value = immediate as i64 as u64;
            let mut jump = false;
            match code {
                LOAD_WORD => registers[to] = u64::from(context[offset as usize / 4]),
                MOV_IMM => registers[to] = value,
                MOV_REG => registers[to] = registers[from],
                AND_IMM => registers[to] &= value,
                SHIFT_RIGHT_IMM => registers[to] >>= value,
                JUMP_IF_EQUAL_IMM => jump = registers[to] == value,
                JUMP_IF_NOT_EQUAL_IMM => jump = registers[to] != value,
                EXIT => return registers[0] == 1,
                _ => panic!("unknown operation {code:#x}"),
            }
            at = (at as i64 + 1 + if jump { i64::from(offset) } else { 0 }) as usize;
        }
    }

    /// The meaning, said plainly.
    fn meaning(rules: &[Rule], kind: Kind, major: u32, minor: u32, access: u8) -> bool {
        [MKNOD, READ, WRITE].into_iter().filter(|bit| access & bit != 0).all(|bit| {
            let device = Rule { allow: true, kind: Some(kind), major: Some(major), minor: Some(minor), access: bit };
            rules
                .iter()
                .rev()
                .find(|rule| rule.covers(&device) && rule.access & bit != 0)
                .is_some_and(|rule| rule.allow)
        })
    }

    fn parse(text: &str) -> Rule {
        let fields: Vec<_> = text.split([' ', ':']).collect();
        let number = |text: &str| text.parse().ok();
        let kind = match fields[1] {
            "b" => Some(Kind::Block),
            "c" => Some(Kind::Char),
            _ => None,
        };
        let access = fields[4].chars().map(|it| [MKNOD, READ, WRITE]["mrw".find(it).unwrap()]).sum();
        Rule { allow: fields[0] == "+", kind, major: number(fields[2]), minor: number(fields[3]), access }
    }

    fn lists() -> Vec<Vec<Rule>> {
        let lists: &[&[&str]] = &[
            &[],
            &["- a *:* rwm"],
            &["+ a *:* rwm"],
            &["+ a *:* rwm", "- c 1:3 w", "- b *:* rw", "+ b 8:0 r"],
            &["- a *:* rwm", "+ c *:* rm", "+ c 1:3 w", "+ b 8:* rwm", "- b 8:* w"],
            &["+ c 1:3 rwm", "- a *:* rwm", "+ a 1:* r"],
            &["- a *:* rwm", "+ c 5:* rwm", "- c 5:1 rw", "+ c 5:1 r"],
        ];
        lists.iter().map(|list| list.iter().map(|text| parse(text)).collect()).collect()
    }

    fn all_questions() -> impl Iterator<Item = (Kind, u32, u32, u8)> {
        let kinds = [Kind::Block, Kind::Char].into_iter();
        kinds.flat_map(|kind| {
            [1, 5, 8, 136].into_iter().flat_map(move |major| {
                (0..5).flat_map(move |minor| (1..=ALL).map(move |access| (kind, major, minor, access)))
            })
        })
    }

    #[test]
    fn the_program_means_what_the_list_means() {
        for list in lists() {
            let program = compile(&list);
            for (kind, major, minor, access) in all_questions() {
                let question = format!("{list:?}: {kind:?} {major}:{minor} {access}");
                let expected = meaning(&list, kind, major, minor, access);
                assert_eq!(run(&program, kind, major, minor, access), expected, "{question}");
            }
        }
    }

    #[test]
    fn v1_exceptions_mean_what_the_list_means() {
        for list in lists() {
            let Ok(folded) = exceptions(&list) else { continue };
            for (kind, major, minor, access) in all_questions() {
                // The kernel: an access is an exception if every bit of it is in one rule. Single bits avoid
                // that difference.
                for bit in [MKNOD, READ, WRITE].into_iter().filter(|bit| access & bit != 0) {
                    let device =
                        Rule { allow: true, kind: Some(kind), major: Some(major), minor: Some(minor), access: bit };
                    let excepted = folded.rules.iter().any(|rule| rule.covers(&device) && rule.access & bit != 0);
                    let expected = meaning(&list, kind, major, minor, bit);
                    assert_eq!(excepted != folded.allow, expected, "{list:?}: {kind:?} {major}:{minor} {bit}");
                }
            }
        }
    }

    #[test]
    fn what_v1_cannot_hold_is_refused() {
        let list = [parse("+ c 5:* rwm"), parse("- c 5:1 rw")];
        assert!(exceptions(&list).unwrap_err().to_string().contains("`c 5:1 rw` out of the rule `c 5:* rwm`"));
    }

    #[test]
    fn an_engines_list_and_the_defaults_are_written_once() {
        let mut list = vec![parse("- a *:* rwm"), parse("+ c 1:3 rwm"), parse("+ c *:* m")];
        list.extend(DEFAULT);
        let folded = exceptions(&list).unwrap();
        assert_eq!((folded.allow, folded.rules.len()), (false, DEFAULT.len()));
        assert_eq!(folded.rules[0].to_string(), "c 1:3 rwm");
    }

    #[test]
    fn a_bad_rule_is_named_by_its_json_path() {
        let mut device = LinuxDeviceCgroup::default();
        device.set_access(Some("rx".to_owned()));
        let error = rules(&[LinuxDeviceCgroup::default(), device]).unwrap_err().to_string();
        assert!(error.starts_with("$.linux.resources.devices[1]: `access` has `x`"), "{error}");
    }
}
