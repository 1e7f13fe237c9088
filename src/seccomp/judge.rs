//! The judge's filter.
//!
//! One program decides about every call of a judged payload:
//!
//! - the **hostile set** is notified of (USER_NOTIF). A notification is the only proof of a forbidden call: a bare SIGSYS
//!   can be raised by the program itself;
//! - what C, C++, Rust, Go, Python, Java, Node and shell programs need is **allowed**;
//! - any other call is **refused** with ENOSYS, or EPERM where a library takes ENOSYS amiss: never death.
//!
//! It starts with a decision tree over ranges of numbers, made by [`super::bpf`]; the few calls whose arguments matter go on
//! behind it: to what they are notified of for, then to rules that seccompiler compiled. Every group of calls is explained
//! in `docs/seccomp.md`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

use super::bpf::{self, AND, JEQ, JSET, LD, Leaf, NATIVE, OFF_ARCH, OFF_NR, RET, jump, off_arg_low, stmt};
use super::shorten::shorten;
use super::tables;
use crate::error::{At, Error, Result};
use crate::sys::seccomp::{self as sys, Instruction, action};

/// `CLONE_NEW*` of every kind of namespace.
const CLONE_NEW: u32 = 0x7e02_0080;

/// Queries and settings of personality(2) that sanitizers, `setarch -R` and C libraries use: PER_LINUX, ADDR_NO_RANDOMIZE
/// and the query.
const PERSONALITIES: [u32; 3] = [0, 0x0004_0000, 0xffff_ffff];

/// Socket families that no isolated program has a use for, and that reach past a network namespace or are raw.
const HOSTILE_FAMILIES: [u32; 4] =
    [libc::AF_PACKET as u32, libc::AF_KEY as u32, libc::AF_VSOCK as u32, libc::AF_XDP as u32];

/// Socket options that attach a filter (socket(7), bpf(2)).
const SOCKET_FILTERS: [libc::c_int; 4] =
    [libc::SO_ATTACH_FILTER, libc::SO_ATTACH_BPF, libc::SO_ATTACH_REUSEPORT_CBPF, libc::SO_ATTACH_REUSEPORT_EBPF];

/// The part of socket(2)'s type that is not flags (`SOCK_TYPE_MASK` of the kernel).
const SOCK_TYPE_MASK: u32 = 0xf;

/// What [`program`] comes to, for the machine that is used most.
#[cfg(target_arch = "x86_64")]
const STORED: Option<&[Instruction]> = Some(super::judge_program::PROGRAM);
/// What [`program`] comes to is not stored for this machine.
#[cfg(not(target_arch = "x86_64"))]
const STORED: Option<&[Instruction]> = None;

/// The program, ready to be attached.
#[derive(Debug, Clone)]
pub struct JudgeFilter(Cow<'static, [Instruction]>);

impl JudgeFilter {
    /// The program of this machine: the stored one where there is one, else built, in some tens of microseconds.
    pub fn new() -> Result<Self> {
        match STORED {
            Some(stored) => Ok(JudgeFilter(Cow::Borrowed(stored))),
            None => program().map(|program| JudgeFilter(Cow::Owned(program))),
        }
    }

    /// Attaches it to the calling thread and returns the listener (close-on-exec). Needs `no_new_privs` or
    /// CAP_SYS_ADMIN. Afterwards seccomp(2) answers ENOSYS; sendmsg(2), write(2), close(2) and execve(2) are allowed, so
    /// the listener may be handed on by any of them.
    pub fn load(&self) -> Result<OwnedFd> {
        sys::set_mode_filter(&self.0, sys::FLAG_NEW_LISTENER | sys::FLAG_SPEC_ALLOW)
            .at("load seccomp filter", "of the judge")?
            .ok_or_else(|| Error::Other("the kernel made no seccomp listener".into()))
    }

    /// Attaches it to the calling thread without a listener: what nobody can be notified of answers ENOSYS.
    pub fn load_unheard(&self) -> Result<()> {
        sys::set_mode_filter(&self.0, sys::FLAG_SPEC_ALLOW).at("load seccomp filter", "of the judge's hooks").map(drop)
    }
}

/// The program that allows what programs need, notifies of the hostile set and refuses the rest with an errno.
pub fn program() -> Result<Vec<Instruction>> {
    let leaf = |calls: &'static [c_long], leaf: Leaf| calls.iter().map(move |nr| (*nr as u32, leaf));
    let enosys = bpf::errno(libc::ENOSYS);
    let arguments = by_argument()?;
    // The first answer of a call counts: what its arguments decide is not decided by its number.
    let mut named: Vec<(u32, Leaf)> = Vec::with_capacity(400);
    named.extend(leaf(&NOTIFIED_BY_ARGUMENT, Leaf::Fall));
    named.extend(arguments.keys().map(|nr| (*nr as u32, Leaf::Fall)));
    named.extend(leaf(tables::HOSTILE, Leaf::Return(action::USER_NOTIF)));
    named.extend(leaf(tables::ALLOWED, Leaf::Return(action::ALLOW)));
    named.extend(leaf(tables::REFUSED, Leaf::Return(bpf::errno(libc::EPERM))));

    // The numbers of x32, and negative ones, which no kernel has, are beyond the last that has another answer.
    let mut code = vec![stmt(LD, OFF_ARCH), jump(JEQ, NATIVE, 1, 0), stmt(RET, enosys), stmt(LD, OFF_NR)];
    code.extend(bpf::tree(&bpf::ranges(&named, Leaf::Return(enosys))));
    code.extend(hostile_arguments());
    let rules = SeccompFilter::new(
        arguments,
        SeccompAction::Errno(libc::EPERM as u32),
        SeccompAction::Allow,
        std::env::consts::ARCH.try_into().map_err(|error| Error::Other(format!("seccompiler: {error}")))?,
    )
    .and_then(BpfProgram::try_from)
    .map_err(|error| Error::Other(format!("seccompiler: {error}")))?;
    code.extend(rules.into_iter().map(|i| Instruction { code: i.code, jt: i.jt, jf: i.jf, k: i.k }));
    Ok(shorten(&code))
}

const ALLOW: Instruction = stmt(RET, action::ALLOW);

/// Calls that are hostile by an argument. They are allowed otherwise, but for socket(2), of which little is.
const NOTIFIED_BY_ARGUMENT: [c_long; 4] = [libc::SYS_clone, libc::SYS_unshare, libc::SYS_personality, libc::SYS_socket];

/// Notifies of calls that are hostile by an argument; the accumulator holds the number, and what is another's to decide goes
/// on behind it. The kernel takes the family, the persona and the flags as 32-bit values, whatever the upper half says.
fn hostile_arguments() -> Vec<Instruction> {
    let mut persona = vec![stmt(LD, off_arg_low(0))];
    persona.extend(one_of(&PERSONALITIES, &[ALLOW]));
    persona.push(stmt(RET, action::USER_NOTIF));
    let mut code = one_of(&[libc::SYS_socket as u32], &sockets());
    code.extend(one_of(&[libc::SYS_personality as u32], &persona));
    code.extend([
        jump(JEQ, libc::SYS_clone as u32, 1, 0),
        jump(JEQ, libc::SYS_unshare as u32, 0, 4),
        stmt(LD, off_arg_low(0)),
        jump(JSET, CLONE_NEW, 0, 1),
        stmt(RET, action::USER_NOTIF),
        ALLOW,
    ]);
    code
}

/// Decides about socket(2) by its three arguments.
fn sockets() -> Vec<Instruction> {
    let protocols = |own: i32| {
        let mut code = vec![stmt(LD, off_arg_low(2))];
        code.extend(one_of(&[0, own as u32], &[ALLOW]));
        code.push(stmt(RET, bpf::errno(libc::EPERM)));
        code
    };
    let mut kinds = vec![stmt(LD, off_arg_low(1)), stmt(AND, SOCK_TYPE_MASK)];
    // Only TCP and UDP: another protocol's name makes the kernel load its module.
    kinds.extend(one_of(&[libc::SOCK_STREAM as u32], &protocols(libc::IPPROTO_TCP)));
    kinds.extend(one_of(&[libc::SOCK_DGRAM as u32], &protocols(libc::IPPROTO_UDP)));
    kinds.push(stmt(RET, bpf::errno(libc::EPERM)));
    let mut code = vec![stmt(LD, off_arg_low(0))];
    code.extend(one_of(&HOSTILE_FAMILIES, &[stmt(RET, action::USER_NOTIF)]));
    code.extend(one_of(&[libc::AF_UNIX as u32], &[ALLOW]));
    // getifaddrs(3) and getaddrinfo(3) list the addresses; the other netlink protocols are attack surface.
    code.extend(one_of(&[libc::AF_NETLINK as u32], &protocols(libc::NETLINK_ROUTE)));
    code.extend(one_of(&[libc::AF_INET as u32, libc::AF_INET6 as u32], &kinds));
    code.push(stmt(RET, bpf::errno(libc::EPERM)));
    code
}

/// `then` where the accumulator is one of `values`, else what comes behind.
fn one_of(values: &[u32], then: &[Instruction]) -> Vec<Instruction> {
    let count = values.len();
    let jump = |(at, value): (usize, &u32)| {
        let last = at + 1 == count;
        jump(JEQ, *value, (count - at - 1) as u8, if last { then.len() as u8 } else { 0 })
    };
    values.iter().enumerate().map(jump).chain(then.iter().copied()).collect()
}

/// The calls whose arguments decide: allowed where a rule matches, else EPERM.
fn by_argument() -> Result<BTreeMap<i64, Vec<SeccompRule>>> {
    let is = |index, op, value: u64| SeccompCondition::new(index, SeccompCmpArgLen::Dword, op, value);
    let without = |index, flag: u64| is(index, SeccompCmpOp::MaskedEq(flag), 0);
    let rule = |conditions: Vec<std::result::Result<SeccompCondition, _>>| {
        conditions.into_iter().collect::<std::result::Result<Vec<_>, _>>().and_then(SeccompRule::new)
    };
    let core = u64::from(libc::RLIMIT_CORE);
    let rules = || {
        Ok::<_, seccompiler::BackendError>(BTreeMap::from([
            // Typing into a terminal that somebody else reads (CVE-2005-4890, CVE-2023-28339's class).
            (
                libc::SYS_ioctl,
                vec![rule(vec![is(1, SeccompCmpOp::Ne, libc::TIOCSTI), is(1, SeccompCmpOp::Ne, libc::TIOCLINUX)])?],
            ),
            // A filter of the program's own could answer before this one does. A core-scheduling cookie of its own keeps
            // everybody else from the sibling threads of its processor.
            (
                libc::SYS_prctl,
                vec![rule(vec![
                    is(0, SeccompCmpOp::Ne, libc::PR_SET_SECCOMP as u64),
                    is(0, SeccompCmpOp::Ne, libc::PR_SCHED_CORE as u64),
                ])?],
            ),
            // A limit of 0 would give a crash to the host's handler again, outside all limits (`core_pattern` as a pipe).
            (libc::SYS_setrlimit, vec![rule(vec![is(0, SeccompCmpOp::Ne, core)])?]),
            (
                libc::SYS_prlimit64,
                vec![
                    rule(vec![is(1, SeccompCmpOp::Ne, core)])?,
                    rule(vec![SeccompCondition::new(2, SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, 0)])?,
                ],
            ),
            // Compiled filters of sockets come out of one allowance of the machine's, without which this filter is not attached.
            (
                libc::SYS_setsockopt,
                vec![
                    rule(vec![is(1, SeccompCmpOp::Ne, libc::SOL_SOCKET as u64)])?,
                    rule(SOCKET_FILTERS.iter().map(|option| is(2, SeccompCmpOp::Ne, *option as u64)).collect())?,
                ],
            ),
            // The memory cgroup does not count huge pages of the host's pool.
            (libc::SYS_mmap, vec![rule(vec![without(3, libc::MAP_HUGETLB as u64)])?]),
            (libc::SYS_shmget, vec![rule(vec![without(2, libc::SHM_HUGETLB as u64)])?]),
            (libc::SYS_memfd_create, vec![rule(vec![without(1, libc::MFD_HUGETLB.into())])?]),
        ]))
    };
    rules().map_err(|error| Error::Other(format!("seccompiler: {error}")))
}

/// One forbidden call, as evidence.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Record {
    /// System call number.
    pub nr: i32,
    /// Its name, or `syscall_N` where libseccomp knows none.
    pub name: String,
    /// Architecture of the entry point: `x86_64`, or the `AUDIT_ARCH_*` number in hexadecimal.
    pub arch: String,
    /// The raw arguments.
    pub args: [u64; 6],
    /// The calling thread's id, in the supervisor's pid namespace; 0 where it is not visible there.
    pub pid: u32,
    /// Address of the instruction after the call.
    pub instruction_pointer: u64,
}

/// Reads the forbidden call that waits at `listener`; blocks until there is one, so poll first. `None`: its caller died
/// or was interrupted before it could be read, so poll again.
///
/// The caller is to kill the payload then. The call never goes on: closing the listener makes it fail with ENOSYS.
pub fn supervise(listener: BorrowedFd<'_>) -> Result<Option<Record>> {
    let Some(notification) = sys::notif_recv(listener.as_fd()).at("receive from", "the seccomp listener")? else {
        return Ok(None);
    };
    let data = notification.data;
    Ok(Some(Record {
        nr: data.nr,
        name: name(data.nr),
        arch: if data.arch == NATIVE { std::env::consts::ARCH.to_owned() } else { format!("{:#x}", data.arch) },
        args: data.args,
        pid: notification.pid,
        instruction_pointer: data.instruction_pointer,
    }))
}

/// The native name of a system call.
pub fn name(nr: i32) -> String {
    let newer = tables::NEWER.iter().find(|(newer, _)| *newer == c_long::from(nr));
    match newer {
        Some((_, name)) => (*name).to_owned(),
        None => libseccomp::ScmpSyscall::from_raw_syscall(nr).get_name().unwrap_or_else(|_| format!("syscall_{nr}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seccomp::bpf::{X32_BIT, run};
    use crate::sys::seccomp::Data;

    fn answer(nr: c_long, arch: u32, args: [u64; 6]) -> u32 {
        let data = Data { nr: nr as i32, arch, instruction_pointer: 0, args };
        run(&program().expect("built"), &data).expect("an answer")
    }

    fn zero(nr: c_long) -> u32 {
        answer(nr, NATIVE, [0; 6])
    }

    #[test]
    fn no_call_stands_in_two_lists() {
        let mut all: Vec<c_long> = [tables::ALLOWED, tables::HOSTILE, tables::REFUSED].concat();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }

    #[test]
    fn the_hostile_set_is_notified_of() {
        for nr in tables::HOSTILE {
            assert_eq!(zero(*nr), action::USER_NOTIF, "{nr}");
        }
        for family in HOSTILE_FAMILIES {
            let got = answer(libc::SYS_socket, NATIVE, [u64::from(family), 3, 0, 0, 0, 0]);
            assert_eq!(got, action::USER_NOTIF, "{family}");
        }
    }

    #[test]
    fn the_rest_is_allowed_or_refused_and_never_dies() {
        let named = |list: &[c_long], nr| list.contains(&nr);
        let conditional = by_argument().expect("rules");
        for nr in 0..600 {
            let by_argument = conditional.contains_key(&nr) || nr == libc::SYS_socket;
            let want = if named(tables::HOSTILE, nr) || by_argument {
                continue;
            } else if named(tables::ALLOWED, nr) {
                action::ALLOW
            } else if named(tables::REFUSED, nr) {
                bpf::errno(libc::EPERM)
            } else {
                bpf::errno(libc::ENOSYS)
            };
            assert_eq!(zero(nr), want, "{nr}");
        }
    }

    #[test]
    fn foreign_entry_points_are_refused_for_every_number() {
        let enosys = bpf::errno(libc::ENOSYS);
        for nr in (0..600).chain([-1]) {
            assert_eq!(answer(nr, 0x4000_0003, [0; 6]), enosys, "i386 {nr}");
            assert_eq!(answer(nr | c_long::from(X32_BIT), NATIVE, [0; 6]), enosys, "x32 {nr}");
        }
    }

    #[test]
    fn arguments_are_judged_by_the_half_the_kernel_reads() {
        let high = 1u64 << 32;
        let first = |nr, value| answer(nr, NATIVE, [value, 0, 0, 0, 0, 0]);
        let notify = action::USER_NOTIF;
        let allow = action::ALLOW;
        let eperm = bpf::errno(libc::EPERM);
        for flag in [
            libc::CLONE_NEWNS,
            libc::CLONE_NEWUSER,
            libc::CLONE_NEWPID,
            libc::CLONE_NEWNET,
            libc::CLONE_NEWIPC,
            libc::CLONE_NEWUTS,
            libc::CLONE_NEWCGROUP,
            0x80,
        ] {
            assert_eq!(first(libc::SYS_unshare, flag as u64), notify, "{flag:#x}");
            assert_eq!(first(libc::SYS_clone, flag as u64 | high | 17), notify, "{flag:#x}");
        }
        assert_eq!(first(libc::SYS_clone, 0x003d_0f00), allow, "a thread");
        assert_eq!(first(libc::SYS_clone, 17), allow, "a fork");
        assert_eq!(first(libc::SYS_unshare, libc::CLONE_FILES as u64), allow);
        assert_eq!(first(libc::SYS_personality, 0xffff_ffff), allow);
        assert_eq!(first(libc::SYS_personality, u64::MAX), allow);
        assert_eq!(first(libc::SYS_personality, 0x0004_0000), allow);
        assert_eq!(first(libc::SYS_personality, 0x0010_0000), notify);
        assert_eq!(first(libc::SYS_socket, 1), allow);
        let inet = |family, kind, protocol| answer(libc::SYS_socket, NATIVE, [family, kind, protocol, 0, 0, 0]);
        for family in [2, 10] {
            for (kind, protocol) in [(1, 0), (1, 6), (2, 0), (2, 17), (1 | 0x80800, 6), (2 | high, 0)] {
                assert_eq!(inet(family, kind, protocol), allow, "{family} {kind:#x} {protocol}");
            }
            for (kind, protocol) in [(3, 1), (5, 132), (1, 132), (1, 262), (2, 136), (6, 33), (2, 6), (2, 1), (0, 0)] {
                assert_eq!(inet(family, kind, protocol), eperm, "{family} {kind:#x} {protocol}");
            }
        }
        assert_eq!(first(libc::SYS_socket, 16), allow, "rtnetlink");
        assert_eq!(answer(libc::SYS_socket, NATIVE, [16, 3, 12, 0, 0, 0]), eperm, "netfilter");
        assert_eq!(first(libc::SYS_socket, 17 | high), notify);
        assert_eq!(first(libc::SYS_socket, 38), eperm, "AF_ALG");
        assert_eq!(answer(libc::SYS_ioctl, NATIVE, [0, libc::TIOCSTI | high, 0, 0, 0, 0]), eperm);
        assert_eq!(answer(libc::SYS_ioctl, NATIVE, [0, libc::TCGETS, 0, 0, 0, 0]), allow);
        assert_eq!(first(libc::SYS_prctl, 22), eperm);
        assert_eq!(first(libc::SYS_prctl, 62 | high), eperm, "PR_SCHED_CORE");
        assert_eq!(first(libc::SYS_setrlimit, 4 | high), eperm, "RLIMIT_CORE");
        assert_eq!(first(libc::SYS_setrlimit, 7), allow);
        let prlimit = |resource, new| answer(libc::SYS_prlimit64, NATIVE, [0, resource, new, 0, 0, 0]);
        assert_eq!(prlimit(4, 0), allow, "a query");
        assert_eq!(prlimit(4, 1), eperm);
        assert_eq!(prlimit(4, high), eperm);
        assert_eq!(prlimit(7, 1), allow);
        assert_eq!(answer(libc::SYS_mmap, NATIVE, [0, 0, 0, 0x40022, 0, 0]), eperm, "MAP_HUGETLB");
        assert_eq!(answer(libc::SYS_mmap, NATIVE, [0, 0, 0, 0x22, 0, 0]), allow);
        assert_eq!(answer(libc::SYS_memfd_create, NATIVE, [0, 4, 0, 0, 0, 0]), eperm, "MFD_HUGETLB");
        assert_eq!(answer(libc::SYS_memfd_create, NATIVE, [0, 3, 0, 0, 0, 0]), allow);
        assert_eq!(answer(libc::SYS_shmget, NATIVE, [0, 0, 0o4000, 0, 0, 0]), eperm, "SHM_HUGETLB");
        assert_eq!(answer(libc::SYS_shmget, NATIVE, [0, 0, 0o1600, 0, 0, 0]), allow);
        assert_eq!(first(libc::SYS_prctl, 15), allow);
    }

    /// The decision tree against an independent compiler of filters.
    #[test]
    fn the_tree_answers_as_libseccomp_would() {
        let mut context =
            libseccomp::ScmpFilterContext::new(libseccomp::ScmpAction::Errno(libc::ENOSYS)).expect("context");
        let mut add = |calls: &[c_long], answer| {
            for nr in calls {
                context.add_rule(answer, *nr as i32).expect("rule");
            }
        };
        add(tables::HOSTILE, libseccomp::ScmpAction::Notify);
        add(tables::ALLOWED, libseccomp::ScmpAction::Allow);
        add(tables::REFUSED, libseccomp::ScmpAction::Errno(libc::EPERM));
        let reference = crate::seccomp::profile::export(&context).expect("exported");
        let conditional: Vec<i64> =
            by_argument().expect("rules").into_keys().chain(NOTIFIED_BY_ARGUMENT.iter().copied()).collect();
        for nr in (0..600).filter(|nr| !conditional.contains(&i64::from(*nr))) {
            let data = Data { nr, arch: NATIVE, ..Data::default() };
            assert_eq!(run(&program().expect("built"), &data), run(&reference, &data), "{nr}");
        }
    }

    /// The stored program as source text.
    #[cfg(target_arch = "x86_64")]
    fn source(program: &[Instruction]) -> String {
        let mut text = "//! The judge's filter as [`super::judge::program`] builds it for x86_64: written by `make judge-filter`.\n\n\
             use crate::sys::seccomp::Instruction;\n\n\
             const fn i(code: u16, jt: u8, jf: u8, k: u32) -> Instruction {\n    Instruction { code, jt, jf, k }\n}\n\n\
             /// The program.\n#[rustfmt::skip]\npub(super) const PROGRAM: &[Instruction] = &[\n"
            .to_owned();
        for four in program.chunks(4) {
            let words = four.iter().map(|i| format!("i(0x{:02x}, {}, {}, 0x{:x}),", i.code, i.jt, i.jf, i.k));
            text += &format!("    {}\n", words.collect::<Vec<_>>().join(" "));
        }
        text + "];\n"
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn the_stored_program_is_the_built_one() {
        let built = source(&program().expect("built"));
        match std::env::var_os("RUSTBOX_JUDGE_FILTER") {
            Some(file) => std::fs::write(file, built).expect("written"),
            None => assert_eq!(include_str!("judge_program.rs"), built, "`make judge-filter` writes it"),
        }
        assert!(program().expect("built").len() < 256);
    }

    #[test]
    fn names() {
        assert_eq!(name(libc::SYS_ptrace as i32), "ptrace");
        assert_eq!(name(467), "open_tree_attr");
        assert_eq!(name(9999), "syscall_9999");
    }
}
