//! seccomp(2) and the user-notification ioctls.
//!
//! Source: `seccomp(2)`, `seccomp_unotify(2)`, the kernel's `Documentation/userspace-api/seccomp_filter.rst`.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::{Errno, Result};

/// Apply the filter to every thread of the process.
pub const FLAG_TSYNC: u32 = 1;
/// Log every action but "allow".
pub const FLAG_LOG: u32 = 1 << 1;
/// Leave the speculative-store-bypass mitigation off.
pub const FLAG_SPEC_ALLOW: u32 = 1 << 2;
/// Return a listener for the filter's notifications.
pub const FLAG_NEW_LISTENER: u32 = 1 << 3;
/// Make a failing TSYNC answer ESRCH, so that it can be combined with a new listener (Linux 5.7).
pub const FLAG_TSYNC_ESRCH: u32 = 1 << 4;
/// Once a notification is received only a fatal signal interrupts its call (Linux 5.19).
pub const FLAG_WAIT_KILLABLE_RECV: u32 = 1 << 5;

/// A filter's answers, strictest first: of several filters' answers the kernel takes the first in this order.
pub mod action {
    /// Kill the process.
    pub const KILL_PROCESS: u32 = 0x8000_0000;
    /// Kill the thread.
    pub const KILL_THREAD: u32 = 0;
    /// Send SIGSYS.
    pub const TRAP: u32 = 0x0003_0000;
    /// Fail with the errno in the low 16 bits.
    pub const ERRNO: u32 = 0x0005_0000;
    /// Ask the listener.
    pub const USER_NOTIF: u32 = 0x7fc0_0000;
    /// Tell the tracer.
    pub const TRACE: u32 = 0x7ff0_0000;
    /// Log and allow.
    pub const LOG: u32 = 0x7ffc_0000;
    /// Allow.
    pub const ALLOW: u32 = 0x7fff_0000;
}

/// One classic BPF instruction, laid out as the kernel's `struct sock_filter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Instruction {
    /// Operation.
    pub code: u16,
    /// Instructions to skip when the comparison holds.
    pub jt: u8,
    /// Instructions to skip when it does not.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

const _: () = assert!(size_of::<Instruction>() == size_of::<libc::sock_filter>());
const _: () = assert!(align_of::<Instruction>() == align_of::<libc::sock_filter>());

/// What a filter sees of a system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Data {
    /// System call number.
    pub nr: i32,
    /// `AUDIT_ARCH_*` of the entry point that was used.
    pub arch: u32,
    /// Address of the instruction after the call.
    pub instruction_pointer: u64,
    /// The raw arguments.
    pub args: [u64; 6],
}

/// A system call that waits for the listener's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Notification {
    /// Cookie that names this notification in the other ioctls.
    pub id: u64,
    /// Thread id of the caller, in the reader's pid namespace; 0 when it is not visible there.
    pub pid: u32,
    /// Always 0.
    pub flags: u32,
    /// The call.
    pub data: Data,
}

#[repr(C)]
struct Response {
    id: u64,
    val: i64,
    error: i32,
    flags: u32,
}

const SET_MODE_FILTER: libc::c_uint = 1;
const GET_ACTION_AVAIL: libc::c_uint = 2;

/// Attaches `program` to the calling thread; with [`FLAG_NEW_LISTENER`] returns the listener (close-on-exec).
///
/// EACCES: the caller has neither `no_new_privs` nor CAP_SYS_ADMIN in its user namespace. EINVAL: the program or a flag
/// is not acceptable to this kernel. EBUSY: a listener was asked for and an attached filter already has one.
/// ESRCH, ECANCELED: another thread could not be synchronised.
pub fn set_mode_filter(program: &[Instruction], flags: u32) -> Result<Option<OwnedFd>> {
    let len = u16::try_from(program.len()).map_err(|_| Errno::EINVAL)?;
    let fprog = libc::sock_fprog { len, filter: program.as_ptr().cast::<libc::sock_filter>().cast_mut() };
    // SAFETY: `fprog` points to `len` instructions whose layout is asserted above; the kernel only reads them, and
    // they outlive the call.
    let ret = unsafe { libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER, flags, &raw const fprog) };
    let ret = Errno::result(ret)?;
    if flags & FLAG_NEW_LISTENER != 0 {
        // SAFETY: with NEW_LISTENER a non-negative answer is a new descriptor that nobody else owns.
        return Ok(Some(unsafe { OwnedFd::from_raw_fd(ret as libc::c_int) }));
    }
    // TSYNC without TSYNC_ESRCH answers the id of a thread that could not be synchronised.
    if ret > 0 { Err(Errno::ESRCH) } else { Ok(None) }
}

/// Whether the kernel knows the action (`action::…`).
pub fn action_avail(action: u32) -> bool {
    // SAFETY: the kernel reads four bytes from a live u32.
    let ret = unsafe { libc::syscall(libc::SYS_seccomp, GET_ACTION_AVAIL, 0, &raw const action) };
    ret == 0
}

/// Whether the kernel accepts the flag (`FLAG_…`), asked by offering a null program: EFAULT says yes, EINVAL no.
pub fn flag_avail(flag: u32) -> bool {
    // SAFETY: a null program is never dereferenced by the caller's side; the kernel answers EFAULT before it attaches.
    let ret = unsafe { libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER, flag, std::ptr::null::<libc::sock_fprog>()) };
    ret < 0 && Errno::last() == Errno::EFAULT
}

/// Room for the notifications and responses of kernels that know more fields than we do.
const ROOM: usize = 512;

#[repr(C, align(8))]
struct Room<T> {
    known: T,
    unknown: [u8; ROOM],
}

const IOC_WRITE: u64 = 1;
const IOC_READ: u64 = 2;

const fn ioc(direction: u64, nr: u64, size: usize) -> u64 {
    (direction << 30) | ((size as u64) << 16) | ((b'!' as u64) << 8) | nr
}

/// Receives the next notification; blocks until there is one (poll the listener first). `None`: the caller died or was
/// interrupted before the notification could be read.
pub fn notif_recv(listener: BorrowedFd<'_>) -> Result<Option<Notification>> {
    let mut room = Room { known: Notification::default(), unknown: [0; ROOM] };
    let request = ioc(IOC_READ | IOC_WRITE, 0, size_of::<Notification>());
    // SAFETY: the kernel writes one zeroed `struct seccomp_notif`; the room is larger than any kernel's.
    let ret = unsafe { libc::ioctl(listener.as_raw_fd(), request as libc::Ioctl, &raw mut room) };
    match Errno::result(ret) {
        Ok(_) => Ok(Some(room.known)),
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Lets the call of notification `id` go on. Never a security decision: the arguments may change meanwhile.
pub fn notif_continue(listener: BorrowedFd<'_>, id: u64) -> Result<()> {
    send(listener, Response { id, val: 0, error: 0, flags: 1 })
}

fn send(listener: BorrowedFd<'_>, response: Response) -> Result<()> {
    let mut room = Room { known: response, unknown: [0; ROOM] };
    let request = ioc(IOC_READ | IOC_WRITE, 1, size_of::<Response>());
    // SAFETY: the kernel reads one `struct seccomp_notif_resp` from the room.
    let ret = unsafe { libc::ioctl(listener.as_raw_fd(), request as libc::Ioctl, &raw mut room) };
    Errno::result(ret).map(drop)
}
