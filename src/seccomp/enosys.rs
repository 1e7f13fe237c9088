//! The prologue that answers ENOSYS to system calls newer than the profile.
//!
//! A profile lists what its author knew. A C library probes newer calls first (`clone3`, `faccessat2`, `openat2`) and
//! falls back on ENOSYS only; a profile's default EPERM makes it fail instead. So a number greater than the greatest
//! that the profile mentions for that architecture gets ENOSYS, as runc has done since 1.0.0-rc93. It is left out
//! where the default action lets calls happen, asks somebody who can answer ENOSYS himself (a tracer, an agent), or
//! answers ENOSYS already.

use oci_spec::runtime::{Arch, LinuxSeccomp, LinuxSeccompAction};

use super::bpf::{self, JA, JEQ, JGE, JGT, LD, RET, X32_BIT, jump, stmt};
use super::profile::{native, resolve, token};
use crate::sys::seccomp::Instruction;

const EM_S390: u32 = 0x16;

/// The prologue for `profile`; empty where none is wanted. It falls through into the profile's own program.
pub fn prologue(profile: &LinuxSeccomp) -> Vec<Instruction> {
    let wanted = match profile.default_action() {
        LinuxSeccompAction::ScmpActAllow
        | LinuxSeccompAction::ScmpActLog
        | LinuxSeccompAction::ScmpActTrace
        | LinuxSeccompAction::ScmpActNotify => false,
        LinuxSeccompAction::ScmpActErrno => profile.default_errno_ret() != Some(libc::ENOSYS as u32),
        _ => true,
    };
    if !wanted {
        return Vec::new();
    }
    // libseccomp's filters always cover the native architecture, listed or not.
    let mut archs = vec![native()];
    for arch in profile.architectures().iter().flatten() {
        let arch = if *arch == Arch::ScmpArchNative { native() } else { *arch };
        if !archs.contains(&arch) {
            archs.push(arch);
        }
    }
    let last: Vec<(Arch, u32)> = archs.into_iter().filter_map(|arch| Some((arch, greatest(profile, arch)?))).collect();

    let mut blocks: Vec<(u32, Vec<Instruction>)> = Vec::new();
    for (arch, max) in last.iter().filter(|(arch, _)| *arch != Arch::ScmpArchX32) {
        let mut block = vec![stmt(LD, bpf::OFF_NR)];
        if *arch == Arch::ScmpArchX86_64 {
            // The x32 numbers share x86_64's architecture token and stand above its own.
            match last.iter().find(|(arch, _)| *arch == Arch::ScmpArchX32) {
                Some((_, x32)) => block.extend([jump(JGE, X32_BIT, 0, 1), jump(JGT, *x32, 1, 2)]),
                None => block.push(jump(JGE, X32_BIT, 2, 0)),
            }
        }
        if token(*arch) & 0xffff == EM_S390 {
            // Number 0 is how s390 passes large numbers the kernel does not know.
            block.extend([jump(JEQ, 0, 0, 1), stmt(RET, bpf::errno(libc::ENOSYS))]);
        }
        block.extend([jump(JGT, *max, 0, 1), stmt(RET, bpf::errno(libc::ENOSYS)), stmt(JA, 0)]);
        blocks.push((token(*arch), block));
    }

    let mut code = vec![stmt(LD, bpf::OFF_ARCH)];
    let mut falls = Vec::new();
    for (token, block) in blocks {
        code.push(jump(JEQ, token, 0, block.len() as u8));
        code.extend(block);
        falls.push(code.len() - 1);
    }
    let end = code.len();
    for at in falls {
        code[at].k = (end - at - 1) as u32;
    }
    code
}

/// The greatest number that the profile mentions for `arch`.
fn greatest(profile: &LinuxSeccomp, arch: Arch) -> Option<u32> {
    let names = profile.syscalls().iter().flatten().flat_map(|rule| rule.names());
    names.filter_map(|name| u32::try_from(resolve(name, arch)?).ok()).max()
}
