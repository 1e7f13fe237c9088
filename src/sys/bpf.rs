//! `bpf(2)`: the device programs of cgroup v2. No maps, no helpers, no library.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::{Errno, Result, check};

const PROG_LOAD: libc::c_long = 5;
const PROG_ATTACH: libc::c_long = 8;
const PROG_DETACH: libc::c_long = 9;
const PROG_GET_FD_BY_ID: libc::c_long = 13;
const PROG_QUERY: libc::c_long = 16;
/// `BPF_PROG_TYPE_CGROUP_DEVICE`.
const TYPE_CGROUP_DEVICE: u32 = 15;
/// `BPF_CGROUP_DEVICE`.
const ATTACH_CGROUP_DEVICE: u32 = 6;
/// `BPF_F_ALLOW_MULTI`: programs of ancestors and of systemd stay in force beside this one.
const ALLOW_MULTI: u32 = 2;

/// One instruction, as the kernel's `struct bpf_insn` in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Insn {
    /// Operation.
    pub code: u8,
    /// Destination register in the low half, source register in the high half.
    pub registers: u8,
    /// Jump distance or memory offset.
    pub offset: i16,
    /// Immediate operand.
    pub immediate: i32,
}

#[repr(C)]
#[derive(Default)]
struct LoadAttr {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
}

#[repr(C)]
#[derive(Default)]
struct AttachAttr {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct QueryAttr {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    padding: u32,
}

#[repr(C)]
#[derive(Default)]
struct IdAttr {
    prog_id: u32,
    next_id: u32,
    open_flags: u32,
}

/// # Safety
/// `attr` is the structure that `command` reads, all of whose addresses are valid for the call.
unsafe fn bpf<T>(command: libc::c_long, attr: &mut T) -> Result<libc::c_long> {
    // SAFETY: the caller vouches for `attr`; its size is given, and the kernel takes the rest of the union as zero.
    check(unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) })
}

/// Loads a `BPF_PROG_TYPE_CGROUP_DEVICE` program.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN` in the initial user namespace, `EINVAL` where the verifier says no, `ENOSYS` without bpf.
pub fn load_cgroup_device(program: &[Insn]) -> Result<OwnedFd> {
    let mut name = [0; 16];
    name[..14].copy_from_slice(b"rustbox_device");
    let mut attr = LoadAttr {
        prog_type: TYPE_CGROUP_DEVICE,
        insn_cnt: u32::try_from(program.len()).map_err(|_| Errno::E2BIG)?,
        insns: program.as_ptr() as u64,
        // The program calls no GPL-only helper (none at all).
        license: c"Apache-2.0".as_ptr() as u64,
        prog_name: name,
        ..LoadAttr::default()
    };
    // SAFETY: the attribute of BPF_PROG_LOAD; instructions and licence outlive the call.
    let fd = unsafe { bpf(PROG_LOAD, &mut attr) }?;
    // SAFETY: a fresh descriptor that only we know; bpf descriptors are close-on-exec.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Attaches a device program to a cgroup and detaches those that were attached to it before, in that order: at no
/// moment is every device allowed.
///
/// # Errors
/// As `bpf(2)`.
pub fn attach_cgroup_device(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<()> {
    let old = attached_cgroup_devices(cgroup)?;
    let mut attr = AttachAttr {
        target_fd: cgroup.as_raw_fd() as u32,
        attach_bpf_fd: program.as_raw_fd() as u32,
        attach_type: ATTACH_CGROUP_DEVICE,
        attach_flags: ALLOW_MULTI,
    };
    // SAFETY: the attribute of BPF_PROG_ATTACH; both descriptors are open.
    unsafe { bpf(PROG_ATTACH, &mut attr) }?;
    for id in old {
        let mut attr = IdAttr { prog_id: id, ..IdAttr::default() };
        // SAFETY: the attribute of BPF_PROG_GET_FD_BY_ID.
        let fd = unsafe { bpf(PROG_GET_FD_BY_ID, &mut attr) }?;
        // SAFETY: a fresh descriptor that only we know.
        let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
        let mut attr = AttachAttr {
            target_fd: cgroup.as_raw_fd() as u32,
            attach_bpf_fd: fd.as_raw_fd() as u32,
            attach_type: ATTACH_CGROUP_DEVICE,
            attach_flags: 0,
        };
        // SAFETY: the attribute of BPF_PROG_DETACH; both descriptors are open.
        unsafe { bpf(PROG_DETACH, &mut attr) }?;
    }
    Ok(())
}

/// The ids of the device programs attached to this very cgroup.
///
/// # Errors
/// As `bpf(2)`; `ENOSPC` for more than 64.
pub fn attached_cgroup_devices(cgroup: BorrowedFd<'_>) -> Result<Vec<u32>> {
    let mut ids = [0u32; 64];
    let mut attr = QueryAttr {
        target_fd: cgroup.as_raw_fd() as u32,
        attach_type: ATTACH_CGROUP_DEVICE,
        prog_ids: ids.as_mut_ptr() as u64,
        prog_cnt: 64,
        ..QueryAttr::default()
    };
    // SAFETY: the attribute of BPF_PROG_QUERY; the array has the 64 places given and outlives the call.
    unsafe { bpf(PROG_QUERY, &mut attr) }?;
    Ok(ids[..attr.prog_cnt as usize].to_vec())
}
