//! `linux.seccomp` of config.json, compiled by libseccomp.
//!
//! libcontainer's translation is not used: it swaps mask and value of SCMP_CMP_MASKED_EQ, which opens Docker's default
//! profile to `clone(CLONE_NEWUSER)`; see `docs/decisions/0004-seccomp.md`.

use std::io::{Read, Seek, SeekFrom};

use libseccomp::{ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};
use nix::sys::memfd::{MemFdCreateFlag, memfd_create};
use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag, LinuxSeccompOperator, LinuxSyscall,
};

use super::{Filter, enosys};
use crate::error::{At, Error, Result};
use crate::seccomp::shorten::shorten;
use crate::sys::seccomp::{self as sys, Instruction};

/// More names than this and libseccomp builds a binary tree. Below it the tree gains nothing, and libseccomp 2.5 fails
/// on a tree of no rules.
const TREE_FROM: usize = 32;

/// The greatest errno that the kernel returns; it cuts greater ones down to it.
const MAX_ERRNO: u32 = 4095;

/// Compiles a profile. Takes 10–30 ms for an engine's default profile: [`super::cached`] is what to call.
///
/// Names that libseccomp does not know are skipped and listed in [`Filter::unknown`]; rules whose action is the
/// default action are skipped. Errors carry the JSON path of the fault.
pub fn compile(profile: &LinuxSeccomp) -> Result<Filter> {
    let mut filter = shell(profile)?;
    let default = action("$.linux.seccomp.defaultErrnoRet", profile.default_action(), profile.default_errno_ret())?;
    let mut context = ScmpFilterContext::new(default).map_err(|error| {
        Error::config("$.linux.seccomp.defaultAction", format!("is refused by libseccomp: {error}"))
    })?;
    for (i, arch) in profile.architectures().iter().flatten().enumerate() {
        context.add_arch(scmp_arch(*arch)).map_err(|error| {
            Error::config(
                format!("$.linux.seccomp.architectures[{i}]"),
                format!("`{arch}` cannot be filtered on this machine: {error}"),
            )
        })?;
    }
    let rules = profile.syscalls().as_deref().unwrap_or_default();
    if rules.iter().map(|rule| rule.names().len()).sum::<usize>() > TREE_FROM {
        // Only a better shape of the same program: libseccomp before 2.5 has no such attribute.
        let _ = context.set_ctl_optimize(2);
    }
    for (i, rule) in rules.iter().enumerate() {
        let at = format!("$.linux.seccomp.syscalls[{i}]");
        add(&mut context, &at, rule, default, &mut filter.unknown)?;
    }
    filter.program = enosys::prologue(profile);
    filter.program.extend(export(&context)?);
    filter.program = shorten(&filter.program);
    Ok(filter)
}

/// Everything of the filter but the program: flags, listener.
pub(super) fn shell(profile: &LinuxSeccomp) -> Result<Filter> {
    let rules = profile.syscalls().as_deref().unwrap_or_default();
    let notify = profile.default_action() == LinuxSeccompAction::ScmpActNotify
        || rules.iter().any(|rule| rule.action() == LinuxSeccompAction::ScmpActNotify);
    if notify && profile.listener_path().is_none() {
        return Err(Error::config("$.linux.seccomp.listenerPath", "is missing, and SCMP_ACT_NOTIFY needs it"));
    }
    let flags = match profile.flags() {
        Some(flags) => flags.iter().map(|flag| flag_bit(*flag)).fold(0, |a, b| a | b),
        // What runc and crun do when the profile is silent (an empty list is not silence).
        None => sys::FLAG_SPEC_ALLOW,
    };
    if flags & sys::FLAG_WAIT_KILLABLE_RECV != 0 && !notify {
        return Err(Error::config(
            "$.linux.seccomp.flags",
            "has SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, which only a profile with SCMP_ACT_NOTIFY can have",
        ));
    }
    Ok(Filter {
        flags,
        notify,
        listener_path: profile.listener_path().clone(),
        listener_metadata: profile.listener_metadata().clone(),
        ..Filter::default()
    })
}

fn flag_bit(flag: LinuxSeccompFilterFlag) -> u32 {
    match flag {
        LinuxSeccompFilterFlag::SeccompFilterFlagLog => sys::FLAG_LOG,
        LinuxSeccompFilterFlag::SeccompFilterFlagTsync => sys::FLAG_TSYNC,
        LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => sys::FLAG_SPEC_ALLOW,
        LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => sys::FLAG_WAIT_KILLABLE_RECV,
    }
}

fn add(
    context: &mut ScmpFilterContext,
    at: &str,
    rule: &LinuxSyscall,
    default: ScmpAction,
    unknown: &mut Vec<String>,
) -> Result<()> {
    let action = action(&format!("{at}.errnoRet"), rule.action(), rule.errno_ret())?;
    let args = rule.args().as_deref().unwrap_or_default();
    let comparisons = args
        .iter()
        .enumerate()
        .map(|(i, arg)| comparison(arg).ok_or_else(|| Error::config(format!("{at}.args[{i}].index"), "is not 0 to 5")))
        .collect::<Result<Vec<_>>>()?;
    if action == default {
        // libseccomp refuses a rule that changes nothing.
        return Ok(());
    }
    // libseccomp takes each argument once in a rule. Where a profile compares one twice, each comparison becomes a
    // rule of its own (any of them matches), as runc and crun do.
    let twice = args.iter().enumerate().any(|(i, arg)| args[..i].iter().any(|other| other.index() == arg.index()));
    for (i, name) in rule.names().iter().enumerate() {
        let Some(number) = resolve(name, Arch::ScmpArchNative) else {
            unknown.push(name.clone());
            continue;
        };
        let number = ScmpSyscall::from_raw_syscall(number);
        let added = if twice {
            comparisons.iter().try_for_each(|one| context.add_rule_conditional(action, number, &[*one]).map(drop))
        } else {
            context.add_rule_conditional(action, number, &comparisons).map(drop)
        };
        added.map_err(|error| {
            Error::config(format!("{at}.names[{i}]"), format!("`{name}` is refused by libseccomp: {error}"))
        })?;
    }
    Ok(())
}

/// The number of a call, or a negative pseudo number for one that only other architectures have.
pub(super) fn resolve(name: &str, arch: Arch) -> Option<i32> {
    ScmpSyscall::from_name_by_arch(name, scmp_arch(arch)).ok().map(ScmpSyscall::as_raw_syscall)
}

fn action(pointer: &str, action: LinuxSeccompAction, errno: Option<u32>) -> Result<ScmpAction> {
    let max = match action {
        LinuxSeccompAction::ScmpActErrno => MAX_ERRNO,
        LinuxSeccompAction::ScmpActTrace => u32::from(u16::MAX),
        // config-linux.md: an action that does not support an errno makes the runtime fail.
        _ if errno.is_some() => return Err(Error::config(pointer, format!("is not for the action `{action}`"))),
        _ => 0,
    };
    let errno = errno.unwrap_or(libc::EPERM as u32);
    if matches!(action, LinuxSeccompAction::ScmpActErrno | LinuxSeccompAction::ScmpActTrace) && errno > max {
        return Err(Error::config(pointer, format!("{errno} is greater than {max}")));
    }
    Ok(match action {
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => ScmpAction::KillThread,
        LinuxSeccompAction::ScmpActKillProcess => ScmpAction::KillProcess,
        LinuxSeccompAction::ScmpActTrap => ScmpAction::Trap,
        LinuxSeccompAction::ScmpActErrno => ScmpAction::Errno(errno as i32),
        LinuxSeccompAction::ScmpActNotify => ScmpAction::Notify,
        LinuxSeccompAction::ScmpActTrace => ScmpAction::Trace(errno as u16),
        LinuxSeccompAction::ScmpActLog => ScmpAction::Log,
        LinuxSeccompAction::ScmpActAllow => ScmpAction::Allow,
    })
}

/// `None`: the index is none of a system call's six arguments.
fn comparison(arg: &LinuxSeccompArg) -> Option<ScmpArgCompare> {
    let index = u32::try_from(arg.index()).ok().filter(|index| *index < 6)?;
    let (operator, value) = match arg.op() {
        LinuxSeccompOperator::ScmpCmpNe => (ScmpCompareOp::NotEqual, arg.value()),
        LinuxSeccompOperator::ScmpCmpLt => (ScmpCompareOp::Less, arg.value()),
        LinuxSeccompOperator::ScmpCmpLe => (ScmpCompareOp::LessOrEqual, arg.value()),
        LinuxSeccompOperator::ScmpCmpEq => (ScmpCompareOp::Equal, arg.value()),
        LinuxSeccompOperator::ScmpCmpGe => (ScmpCompareOp::GreaterEqual, arg.value()),
        LinuxSeccompOperator::ScmpCmpGt => (ScmpCompareOp::Greater, arg.value()),
        // `value` is the mask and `valueTwo` what the masked argument must equal: the order of libseccomp's own
        // SCMP_CMP_MASKED_EQ, where libcontainer has it the other way round.
        LinuxSeccompOperator::ScmpCmpMaskedEq => {
            (ScmpCompareOp::MaskedEqual(arg.value()), arg.value_two().unwrap_or_default())
        }
    };
    Some(ScmpArgCompare::new(index, operator, value))
}

/// The program of a filter: libseccomp 2.5 exports to a descriptor only.
///
/// # Errors
/// [`Error::Other`] with libseccomp's words.
pub fn export(context: &ScmpFilterContext) -> Result<Vec<Instruction>> {
    let mut file = std::fs::File::from(
        memfd_create(c"rustbox-seccomp", MemFdCreateFlag::MFD_CLOEXEC).at("memfd_create", "seccomp")?,
    );
    context.export_bpf(&file).map_err(|error| Error::Other(format!("libseccomp exports no program: {error}")))?;
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0)).at("rewind", "the seccomp program")?;
    file.read_to_end(&mut bytes).at("read", "the seccomp program")?;
    Ok(decode(&bytes))
}

/// The program in the bytes of `struct sock_filter`s, host byte order.
pub(super) fn decode(bytes: &[u8]) -> Vec<Instruction> {
    let (chunks, _) = bytes.as_chunks::<8>();
    chunks
        .iter()
        .map(|&[c0, c1, jt, jf, k0, k1, k2, k3]| Instruction {
            code: u16::from_ne_bytes([c0, c1]),
            jt,
            jf,
            k: u32::from_ne_bytes([k0, k1, k2, k3]),
        })
        .collect()
}

/// The kernel's `AUDIT_ARCH_*`: oci-spec's values are libseccomp's, which are the kernel's but for x32.
pub(super) fn token(arch: Arch) -> u32 {
    match arch {
        Arch::ScmpArchNative => super::bpf::NATIVE,
        Arch::ScmpArchX32 => Arch::ScmpArchX86_64 as u32,
        other => other as u32,
    }
}

/// The architecture this was built for.
pub(super) fn native() -> Arch {
    match super::bpf::NATIVE {
        0xc000_00b7 => Arch::ScmpArchAarch64,
        0xc000_00f3 => Arch::ScmpArchRiscv64,
        _ => Arch::ScmpArchX86_64,
    }
}

fn scmp_arch(arch: Arch) -> ScmpArch {
    match arch {
        Arch::ScmpArchNative => ScmpArch::Native,
        Arch::ScmpArchX86 => ScmpArch::X86,
        Arch::ScmpArchX86_64 => ScmpArch::X8664,
        Arch::ScmpArchX32 => ScmpArch::X32,
        Arch::ScmpArchArm => ScmpArch::Arm,
        Arch::ScmpArchAarch64 => ScmpArch::Aarch64,
        Arch::ScmpArchMips => ScmpArch::Mips,
        Arch::ScmpArchMips64 => ScmpArch::Mips64,
        Arch::ScmpArchMips64n32 => ScmpArch::Mips64N32,
        Arch::ScmpArchMipsel => ScmpArch::Mipsel,
        Arch::ScmpArchMipsel64 => ScmpArch::Mipsel64,
        Arch::ScmpArchMipsel64n32 => ScmpArch::Mipsel64N32,
        Arch::ScmpArchPpc => ScmpArch::Ppc,
        Arch::ScmpArchPpc64 => ScmpArch::Ppc64,
        Arch::ScmpArchPpc64le => ScmpArch::Ppc64Le,
        Arch::ScmpArchS390 => ScmpArch::S390,
        Arch::ScmpArchS390x => ScmpArch::S390X,
        Arch::ScmpArchParisc => ScmpArch::Parisc,
        Arch::ScmpArchParisc64 => ScmpArch::Parisc64,
        Arch::ScmpArchRiscv64 => ScmpArch::Riscv64,
        Arch::ScmpArchLoongarch64 => ScmpArch::Loongarch64,
        Arch::ScmpArchM68k => ScmpArch::M68k,
        Arch::ScmpArchSh => ScmpArch::Sh,
        Arch::ScmpArchSheb => ScmpArch::Sheb,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::seccomp::bpf::{self, run};
    use crate::sys::seccomp::{Data, action as answer};

    pub(crate) fn profile(json: serde_json::Value) -> LinuxSeccomp {
        serde_json::from_value(json).expect("a profile")
    }

    fn verdict(filter: &Filter, arch: Arch, name: &str, args: [u64; 6]) -> u32 {
        let nr = resolve(name, arch).expect(name);
        run(&filter.program, &Data { nr, arch: token(arch), instruction_pointer: 0, args }).expect("an answer")
    }

    fn one_rule(op: &str, value: u64, value_two: Option<u64>) -> Filter {
        compile(&profile(serde_json::json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{
                "names": ["getpriority"], "action": "SCMP_ACT_ERRNO", "errnoRet": 9,
                "args": [{"index": 1, "value": value, "valueTwo": value_two, "op": op}],
            }],
        })))
        .expect(op)
    }

    #[test]
    fn operators_compare_all_64_bits() {
        const BIG: u64 = 0x1_0000_0005;
        type Holds = fn(u64) -> bool;
        let cases: [(&str, Holds); 6] = [
            ("SCMP_CMP_NE", |v| v != BIG),
            ("SCMP_CMP_LT", |v| v < BIG),
            ("SCMP_CMP_LE", |v| v <= BIG),
            ("SCMP_CMP_EQ", |v| v == BIG),
            ("SCMP_CMP_GE", |v| v >= BIG),
            ("SCMP_CMP_GT", |v| v > BIG),
        ];
        for (op, holds) in cases {
            let filter = one_rule(op, BIG, None);
            for v in [0, 5, BIG - 1, BIG, BIG + 1, 0x2_0000_0000, u64::MAX] {
                let want = if holds(v) { bpf::errno(9) } else { answer::ALLOW };
                let got = verdict(&filter, Arch::ScmpArchNative, "getpriority", [0, v, 0, 0, 0, 0]);
                assert_eq!(got, want, "{op} {v:#x}");
            }
        }
    }

    #[test]
    fn masked_equal_masks_with_value_and_compares_with_value_two() {
        let filter = one_rule("SCMP_CMP_MASKED_EQ", 0xf0, Some(0x30));
        for (v, refused) in [(0x30, true), (0x3f, true), (0xf30, true), (0x70, false), (0, false), (0xf0, false)] {
            let want = if refused { bpf::errno(9) } else { answer::ALLOW };
            let got = verdict(&filter, Arch::ScmpArchNative, "getpriority", [0, v, 0, 0, 0, 0]);
            assert_eq!(got, want, "{v:#x}");
        }
    }

    /// The measurement behind `docs/decisions/0004-seccomp.md`: Docker's rule for clone in libcontainer's order and ours.
    #[test]
    fn the_order_of_mask_and_value_decides_about_user_namespaces() {
        const NAMESPACES: u64 = 2_114_060_288;
        let both = |mask, value| {
            let mut context = ScmpFilterContext::new(ScmpAction::Errno(1)).expect("context");
            let compare = ScmpArgCompare::new(0, ScmpCompareOp::MaskedEqual(mask), value);
            context.add_rule_conditional(ScmpAction::Allow, libc::SYS_clone as i32, &[compare]).expect("rule");
            let filter = Filter { program: export(&context).expect("exported"), ..Filter::default() };
            let with = |flags| verdict(&filter, Arch::ScmpArchNative, "clone", [flags, 0, 0, 0, 0, 0]);
            (with(libc::CLONE_NEWUSER as u64 | 17), with(17))
        };
        assert_eq!(both(NAMESPACES, 0), (bpf::errno(1), answer::ALLOW), "value is the mask");
        assert_eq!(both(0, NAMESPACES), (answer::ALLOW, answer::ALLOW), "valueTwo is the mask");
    }

    #[test]
    fn every_action_gives_its_answer() {
        let cases = [
            ("SCMP_ACT_KILL", None, answer::KILL_THREAD),
            ("SCMP_ACT_KILL_THREAD", None, answer::KILL_THREAD),
            ("SCMP_ACT_KILL_PROCESS", None, answer::KILL_PROCESS),
            ("SCMP_ACT_TRAP", None, answer::TRAP),
            ("SCMP_ACT_ERRNO", None, bpf::errno(1)),
            ("SCMP_ACT_ERRNO", Some(38), bpf::errno(38)),
            ("SCMP_ACT_TRACE", None, answer::TRACE | 1),
            ("SCMP_ACT_TRACE", Some(77), answer::TRACE | 77),
            ("SCMP_ACT_LOG", None, answer::LOG),
            ("SCMP_ACT_NOTIFY", None, answer::USER_NOTIF),
        ];
        for (action, errno, want) in cases {
            let filter = compile(&profile(serde_json::json!({
                "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/agent",
                "syscalls": [{"names": ["getpriority"], "action": action, "errnoRet": errno}],
            })))
            .expect(action);
            assert_eq!(verdict(&filter, Arch::ScmpArchNative, "getpriority", [0; 6]), want, "{action}");
            assert_eq!(verdict(&filter, Arch::ScmpArchNative, "getpid", [0; 6]), answer::ALLOW);
            assert_eq!(filter.notify, action == "SCMP_ACT_NOTIFY");
        }
    }

    #[test]
    fn a_default_action_with_its_errno() {
        let filter = compile(&profile(serde_json::json!({
            "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 6,
            "syscalls": [
                {"names": ["getpid", "close_range"], "action": "SCMP_ACT_ALLOW"},
                {"names": ["getppid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 6},
                {"names": ["no_such_call", "getuid"], "action": "SCMP_ACT_ALLOW"},
            ],
        })))
        .expect("compiles");
        assert_eq!(verdict(&filter, Arch::ScmpArchNative, "getpid", [0; 6]), answer::ALLOW);
        assert_eq!(verdict(&filter, Arch::ScmpArchNative, "getuid", [0; 6]), answer::ALLOW);
        assert_eq!(verdict(&filter, Arch::ScmpArchNative, "getppid", [0; 6]), bpf::errno(6));
        assert_eq!(verdict(&filter, Arch::ScmpArchNative, "getgid", [0; 6]), bpf::errno(6));
        assert_eq!(filter.unknown, ["no_such_call"]);
    }

    #[test]
    fn an_argument_compared_twice_matches_on_either() {
        let filter = compile(&profile(serde_json::json!({
            "defaultAction": "SCMP_ACT_ERRNO",
            "syscalls": [{"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [
                {"index": 0, "value": 0, "op": "SCMP_CMP_EQ"}, {"index": 0, "value": 8, "op": "SCMP_CMP_EQ"},
            ]}],
        })))
        .expect("compiles");
        for (v, want) in [(0, answer::ALLOW), (8, answer::ALLOW), (9, bpf::errno(1))] {
            let got = verdict(&filter, Arch::ScmpArchNative, "personality", [v, 0, 0, 0, 0, 0]);
            assert_eq!(got, want, "{v}");
        }
    }

    #[test]
    fn calls_newer_than_the_profile_get_enosys_on_every_architecture() {
        let filter = compile(&profile(serde_json::json!({
            "defaultAction": "SCMP_ACT_ERRNO",
            "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
            "syscalls": [{"names": ["read", "clone", "faccessat2"], "action": "SCMP_ACT_ALLOW"}],
        })))
        .expect("compiles");
        let at = |nr: u32, arch: Arch| {
            run(&filter.program, &Data { nr: nr as i32, arch: token(arch), ..Data::default() }).expect("an answer")
        };
        for arch in [Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32] {
            let bit = if arch == Arch::ScmpArchX32 { bpf::X32_BIT } else { 0 };
            assert_eq!(at(bit | 439, arch), answer::ALLOW, "{arch} faccessat2");
            assert_eq!(at(bit | 438, arch), bpf::errno(1), "{arch} pidfd_getfd is older and not allowed");
            assert_eq!(at(bit | 440, arch), bpf::errno(38), "{arch} process_madvise");
            assert_eq!(at(bit | 467, arch), bpf::errno(38), "{arch} open_tree_attr");
        }
        assert_eq!(at(1, Arch::ScmpArchAarch64), answer::KILL_THREAD, "not among the architectures");
    }

    #[test]
    fn no_enosys_where_the_default_lets_calls_happen() {
        for action in ["SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE"] {
            let filter = compile(&profile(serde_json::json!({
                "defaultAction": action, "syscalls": [{"names": ["read"], "action": "SCMP_ACT_KILL"}],
            })))
            .expect(action);
            let got = run(&filter.program, &Data { nr: 460, arch: bpf::NATIVE, ..Data::default() });
            assert_ne!(got, Some(bpf::errno(38)), "{action}");
        }
    }

    #[test]
    fn faults_carry_their_path() {
        let cases = [
            (serde_json::json!({"defaultAction": "SCMP_ACT_NOTIFY"}), "$.linux.seccomp.listenerPath"),
            (
                serde_json::json!({"defaultAction": "SCMP_ACT_KILL", "defaultErrnoRet": 1}),
                "$.linux.seccomp.defaultErrnoRet",
            ),
            (
                serde_json::json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
                    {"names": ["read"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5000}]}),
                "$.linux.seccomp.syscalls[0].errnoRet",
            ),
            (
                serde_json::json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
                    {"names": ["read"], "action": "SCMP_ACT_KILL", "args": [
                        {"index": 6, "value": 1, "op": "SCMP_CMP_EQ"}]}]}),
                "$.linux.seccomp.syscalls[0].args[0].index",
            ),
            (
                serde_json::json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_S390X"]}),
                "$.linux.seccomp.architectures[0]",
            ),
        ];
        for (json, pointer) in cases {
            let error = compile(&profile(json)).expect_err(pointer).to_string();
            assert!(error.starts_with(&format!("{pointer}:")), "{error}");
        }
    }
}
