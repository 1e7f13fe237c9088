//! A network namespace that is made ahead, on another processor, while the program starts.
//!
//! The kernel takes 0.6 ms for one, of a container's life of 5, and can make it before anything else is known. A child does
//! it that shares the table of descriptors and nothing else: with shared memory, each page that the program touches
//! meanwhile would be told to the other processor. Where it is not wanted after all, the program's end waits for it.

use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicI32, Ordering};

use super::{CLOSE, FCNTL, call};

/// The lowest number that the descriptor gets: none that a caller hands down to the container. Not zero, and with those
/// that follow it within an exit status.
const AT_LEAST: usize = 62;

/// The child, until somebody waits for it.
static CHILD: AtomicI32 = AtomicI32::new(0);

/// Begins to make it, where the standard streams are open, of which the child would otherwise take a number.
pub(super) fn begin() {
    const F_GETFD: usize = 1;
    const CLONE: usize = 56;
    // No signal tells of its end.
    const CLONE_FILES: usize = 0x400;
    let mut stream = 0;
    // SAFETY: the child goes on with a copy of this stack, and ends in `make`.
    unsafe {
        while stream < 3 {
            if call(FCNTL, [stream, F_GETFD, 0, 0, 0]) < 0 {
                return;
            }
            stream += 1;
        }
        match call(CLONE, [CLONE_FILES, 0, 0, 0, 0]) {
            0 => make(),
            child if child > 0 => {
                CHILD.store(child as i32, Ordering::Relaxed);
                move_over(child as usize);
            }
            _ => {}
        }
    }
}

/// Sends the child to another processor than this one: a scheduler that packs work on few of them (as of virtual machines)
/// would leave it behind its parent, which has a millisecond to work before it needs the child's. It may come back at once,
/// so that a processor that runs out of work can take it.
fn move_over(child: usize) {
    const SCHED_SETAFFINITY: usize = 203;
    const SCHED_GETAFFINITY: usize = 204;
    const GETCPU: usize = 309;
    // The kernel's largest mask has 8192 bits. Not filled here: that would be a call of `memset`.
    let mut mask = MaybeUninit::<[u64; 128]>::uninit();
    let words = mask.as_mut_ptr().cast::<u64>();
    let mut own = 0_u32;
    // SAFETY: the kernel writes a number, and as many bytes of the mask as it returns, and reads no more; the word is one of
    // those.
    unsafe {
        call(GETCPU, [&raw mut own as usize, 0, 0, 0, 0]);
        let size = call(SCHED_GETAFFINITY, [0, size_of_val(&mask), words as usize, 0, 0]).max(0) as usize;
        if own as usize / 64 < size / 8 {
            let word = words.add(own as usize / 64);
            let all = *word;
            *word = all & !(1 << (own % 64));
            // Refused where there is no other.
            call(SCHED_SETAFFINITY, [child, size, words as usize, 0, 0]);
            *word = all;
            call(SCHED_SETAFFINITY, [child, size, words as usize, 0, 0]);
        }
    }
}

/// The child: makes the namespace, brings its loopback interface up, ends with the number of a handle of it.
fn make() -> ! {
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
    let mut made = 0;
    // SAFETY: the kernel reads the request; the descriptors are this process's own but for the one that it hands over.
    unsafe {
        if call(UNSHARE, [CLONE_NEWNET, 0, 0, 0, 0]) == 0 {
            let socket = call(SOCKET, [AF_UNIX, SOCK_DGRAM_CLOEXEC, 0, 0, 0]);
            let up = call(IOCTL, [socket as usize, SIOCSIFFLAGS, &raw const request as usize, 0, 0]);
            let namespace = call(IOCTL, [socket as usize, SIOCGSKNS, 0, 0, 0]);
            if namespace >= 0 {
                let kept = call(FCNTL, [namespace as usize, F_DUPFD_CLOEXEC, AT_LEAST, 0, 0]);
                if up == 0 && kept > 0 && kept <= u8::MAX as isize {
                    made = kept as usize;
                } else if kept > 0 {
                    call(CLOSE, [kept as usize, 0, 0, 0, 0]);
                }
                call(CLOSE, [namespace as usize, 0, 0, 0, 0]);
            }
            if socket >= 0 {
                call(CLOSE, [socket as usize, 0, 0, 0, 0]);
            }
        }
        loop {
            call(EXIT, [made, 0, 0, 0, 0]);
        }
    }
}

/// Waits until it is made, and takes the descriptor; the next caller gets none. `None` where none was begun, or it failed.
pub fn take() -> Option<i32> {
    const WAIT4: usize = 61;
    const WALL: usize = 0x4000_0000;
    const EINTR: isize = -4;
    let child = CHILD.swap(0, Ordering::Relaxed);
    if child == 0 {
        return None;
    }
    let mut status = 0_i32;
    // SAFETY: room for a status.
    let waited = loop {
        let waited = unsafe { call(WAIT4, [child as usize, &raw mut status as usize, WALL, 0, 0]) };
        if waited != EINTR {
            break waited;
        }
    };
    // Killed by a signal, it has the number of that in the lower seven bits.
    let exited = waited == child as isize && status & 0x7f == 0;
    Some(status >> 8 & 0xff).filter(|made| exited && *made > 0)
}
