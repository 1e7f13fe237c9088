//! A network namespace that is made ahead, on another processor, while the program starts.
//!
//! The kernel takes 0.6 ms for one, of a container's life of 5, and can make it before anything else is known. A thread does
//! it that is the kernel's alone: without thread-local memory, the C library or the allocator, so that the process may be
//! copied while it works. Where it is not wanted after all, it ends with the process.

use core::arch::asm;
use core::cell::UnsafeCell;
use core::ffi::c_int;
use core::sync::atomic::{AtomicI32, AtomicU32, Ordering};

use super::{CLOSE, FCNTL, call};

/// The lowest number that the descriptor gets: none that a caller hands down to the container.
const AT_LEAST: usize = 62;
/// It needs a few frames.
const STACK: usize = 16 << 10;

/// What the two threads share.
#[repr(C, align(16))]
struct Shared {
    stack: UnsafeCell<[u8; STACK]>,
    /// The thread, until the kernel clears it at its end (`CLONE_CHILD_CLEARTID`).
    thread: AtomicU32,
    /// The descriptor; zero, there is none.
    namespace: AtomicI32,
}

// SAFETY: the stack is the thread's alone, the rest is atomic.
unsafe impl Sync for Shared {}

static SHARED: Shared =
    Shared { stack: UnsafeCell::new([0; STACK]), thread: AtomicU32::new(0), namespace: AtomicI32::new(0) };

/// Its address, which may be asked for before the program is relocated.
fn shared() -> *const Shared {
    let address;
    // SAFETY: only computes an address.
    unsafe { asm!("lea {}, [rip + {}]", out(reg) address, sym SHARED, options(pure, nomem, nostack)) };
    address
}

/// Begins to make it, where the standard streams are open, of which the thread would otherwise take a number.
pub(super) fn begin() {
    const F_GETFD: usize = 1;
    const RT_SIGPROCMASK: usize = 14;
    const SIG_SETMASK: usize = 2;
    let all = u64::MAX;
    let mut before = 0_u64;
    let size = size_of::<u64>();
    let mut stream = 0;
    // SAFETY: the kernel reads and writes the masks; the thread gets a stack of its own, which nobody else uses.
    unsafe {
        while stream < 3 {
            if call(FCNTL, [stream, F_GETFD, 0, 0, 0]) < 0 {
                return;
            }
            stream += 1;
        }
        // No handler of this process may run on the thread, and no signal that it waits for may go there.
        let masks = [SIG_SETMASK, &raw const all as usize, &raw mut before as usize, size, 0];
        if call(RT_SIGPROCMASK, masks) == 0 {
            start();
            call(RT_SIGPROCMASK, [SIG_SETMASK, &raw const before as usize, 0, size, 0]);
        }
    }
}

/// Starts the thread.
///
/// # Safety
/// Once.
unsafe fn start() {
    const CLONE: isize = 56;
    // CLONE_VM, _FILES, _SIGHAND, _THREAD, _SYSVSEM, _PARENT_SETTID, _CHILD_CLEARTID of `<linux/sched.h>`.
    const FLAGS: usize = 0x100 | 0x400 | 0x800 | 0x1_0000 | 0x4_0000 | 0x10_0000 | 0x20_0000;
    let shared = shared();
    // SAFETY: the new thread begins behind the call with its own stack, whose end is aligned to 16, goes to `work`, and
    // never comes back. A call that fails starts none.
    unsafe {
        let thread = (*shared).thread.as_ptr();
        let stack = shared.cast::<u8>().add(STACK);
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "call {work}",
            "ud2",
            "2:",
            work = sym work,
            inlateout("rax") CLONE => _,
            in("rdi") FLAGS,
            in("rsi") stack,
            in("rdx") thread,
            in("r10") thread,
            in("r8") 0,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
}

/// The thread: makes the namespace, brings its loopback interface up, leaves a handle of it.
extern "C" fn work() -> ! {
    const UNSHARE: usize = 272;
    const SOCKET: usize = 41;
    const IOCTL: usize = 16;
    const EXIT: usize = 60;
    const CLONE_NEWNET: usize = 0x4000_0000;
    const AF_UNIX: usize = 1;
    const SOCK_DGRAM_CLOEXEC: usize = 0o2_000_002;
    const SIOCSIFFLAGS: usize = 0x8914;
    // `<linux/sockios.h>`, Linux 4.9: a handle of the socket's network namespace, which an exec closes.
    const SIOCGSKNS: usize = 0x894c;
    const F_DUPFD_CLOEXEC: usize = 1030;
    // `struct ifreq`: the name in 16 bytes, then the flags, IFF_UP.
    let request: [u64; 5] = [u16::from_le_bytes(*b"lo") as u64, 0, 1, 0, 0];
    // SAFETY: the kernel reads the request; the descriptors are this thread's.
    unsafe {
        if call(UNSHARE, [CLONE_NEWNET, 0, 0, 0, 0]) == 0 {
            let socket = call(SOCKET, [AF_UNIX, SOCK_DGRAM_CLOEXEC, 0, 0, 0]);
            let up = call(IOCTL, [socket as usize, SIOCSIFFLAGS, &raw const request as usize, 0, 0]);
            let namespace = call(IOCTL, [socket as usize, SIOCGSKNS, 0, 0, 0]);
            if up == 0 && namespace >= 0 {
                let kept = call(FCNTL, [namespace as usize, F_DUPFD_CLOEXEC, AT_LEAST, 0, 0]);
                (*shared()).namespace.store(if kept > 0 { kept as i32 } else { 0 }, Ordering::Release);
            }
            if namespace >= 0 {
                call(CLOSE, [namespace as usize, 0, 0, 0, 0]);
            }
            if socket >= 0 {
                call(CLOSE, [socket as usize, 0, 0, 0, 0]);
            }
        }
        loop {
            call(EXIT, [0; 5]);
        }
    }
}

/// Waits until it is made, and takes the descriptor; the next caller gets none. `None` where none was begun, or it failed.
pub fn take() -> Option<c_int> {
    const FUTEX: usize = 202;
    const FUTEX_WAIT: usize = 0;
    // SAFETY: a static; the kernel compares a word of it.
    unsafe {
        let shared = &*shared();
        loop {
            let thread = shared.thread.load(Ordering::Acquire);
            if thread == 0 {
                break;
            }
            call(FUTEX, [shared.thread.as_ptr() as usize, FUTEX_WAIT, thread as usize, 0, 0]);
        }
        let namespace = shared.namespace.swap(0, Ordering::AcqRel);
        (namespace > 0).then_some(namespace)
    }
}
