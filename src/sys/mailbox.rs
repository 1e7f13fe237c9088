//! One page shared by a process and the child it clones: a descriptor's number one way, a receipt the other, by plain
//! loads and stores.
//!
//! The child that has attached a seccomp filter may not be able to make *any* system call: the filter may ask an agent
//! about `write`, `sendmsg` or `futex`, and the agent waits for the very descriptor that the child is to hand over. So
//! it stores the number and spins.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

use super::{Errno, Result};

/// The page. Make it before the clone; both sides then hold the same memory.
#[derive(Debug)]
pub struct Mailbox {
    page: NonNull<Page>,
}

#[derive(Debug)]
#[repr(C)]
struct Page {
    /// The descriptor's number plus one, so that fresh (zero) memory says "nothing yet".
    posted: AtomicI32,
    receipt: AtomicU32,
}

const PAGE: usize = 4096;

impl Mailbox {
    /// Maps the page.
    pub fn new() -> Result<Self> {
        // SAFETY: a new anonymous mapping at an address the kernel chooses touches no existing memory.
        let at = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                PAGE,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if at == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        NonNull::new(at.cast::<Page>()).map(|page| Mailbox { page }).ok_or(Errno::ENOMEM)
    }

    fn page(&self) -> &Page {
        // SAFETY: the mapping is page-aligned, at least as large as `Page`, zero-initialised (valid for atomics), lives
        // as long as `self`, and is only ever accessed through atomics, by whichever process.
        unsafe { self.page.as_ref() }
    }

    /// The child's side: tells the number of its descriptor. Makes no system call.
    pub fn post(&self, fd: i32) {
        self.page().posted.store(fd + 1, Ordering::Release);
    }

    /// The parent's side: the number, once it is there.
    pub fn posted(&self) -> Option<i32> {
        self.page().posted.load(Ordering::Acquire).checked_sub(1).filter(|fd| *fd >= 0)
    }

    /// The parent's side: lets the child go on.
    pub fn acknowledge(&self) {
        self.page().receipt.store(1, Ordering::Release);
    }

    /// The child's side: spins until the parent has acknowledged, for `spins` rounds at most (each some tens of
    /// nanoseconds); false when it never did. Makes no system call: a clock may need one.
    pub fn wait_receipt(&self, spins: u64) -> bool {
        for _ in 0..spins {
            if self.page().receipt.load(Ordering::Acquire) != 0 {
                return true;
            }
            std::hint::spin_loop();
        }
        false
    }
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new`, is unmapped once, and no reference into it outlives `self`.
        unsafe { libc::munmap(self.page.as_ptr().cast(), PAGE) };
    }
}

/// Ends the process by an illegal instruction: the one way out that needs no system call. The signal is forced, so it
/// also ends the init of a pid namespace.
pub fn trap() -> ! {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: `ud2` only raises SIGILL; nothing after it runs.
    unsafe {
        std::arch::asm!("ud2", options(noreturn, nomem, nostack))
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: `udf` only raises SIGILL; nothing after it runs.
    unsafe {
        std::arch::asm!("udf #0", options(noreturn, nomem, nostack))
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    std::process::abort()
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::{AsFd, AsRawFd};
    use std::os::unix::net::UnixListener;
    use std::time::Duration;

    use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

    use super::*;
    use crate::seccomp::bpf::{LD, RET, jump, stmt};
    use crate::seccomp::notify::{Agent, container_process_state, deliver, load_and_post, take_listener};
    use crate::seccomp::{Filter, bpf};
    use crate::sys::pidfd;
    use crate::sys::seccomp::{action, notif_continue, notif_recv};

    /// Runs `child` in a copy of this process. The child of a threaded process must not allocate.
    fn fork(child: impl FnOnce() -> i32) -> (i32, std::os::fd::OwnedFd) {
        // SAFETY: the child runs only `child`, whose callers below allocate nothing, and then ends at once.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            let status = child();
            // SAFETY: ends the child without running the parent's exit handlers.
            unsafe { libc::_exit(status) }
        }
        assert!(pid > 0);
        (pid, pidfd::open(pid).expect("pidfd"))
    }

    /// Reaps a child: its exit status, or the negative number of its signal.
    fn reap(pid: i32) -> i32 {
        let mut status = 0;
        // SAFETY: writes one live integer.
        assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
        if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { -libc::WTERMSIG(status) }
    }

    #[test]
    fn a_profile_that_notifies_of_every_call_still_reaches_its_agent() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("agent");
        let socket = UnixListener::bind(&path).expect("bind");
        // Everything is notified, as with SCMP_ACT_NOTIFY as default action.
        let filter = Filter { program: vec![stmt(RET, action::USER_NOTIF)], notify: true, ..Filter::default() };
        let mailbox = Mailbox::new().expect("mailbox");
        let agent = Agent::connect(&path).expect("connected");
        let (pid, pidfd) = fork(|| match load_and_post(&filter, &mailbox) {
            Ok(()) => 7,
            Err(_) => 1,
        });
        let state = serde_json::json!({ "ociVersion": "1.2.0", "id": "x", "status": "creating", "pid": pid });
        let document = container_process_state("1.2.0", pid, Some("the metadata"), &state);
        deliver(&mailbox, pidfd.as_fd(), &agent, &document, Duration::from_secs(5)).expect("delivered");
        drop(agent);

        let (mut stream, _) = socket.accept().expect("accepted");
        let mut bytes = vec![0; 4096];
        let mut space = nix::cmsg_space!([i32; 1]);
        let (len, fds) = {
            let mut io = [std::io::IoSliceMut::new(&mut bytes)];
            let got =
                recvmsg::<()>(stream.as_raw_fd(), &mut io, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC).expect("got");
            let fds = got.cmsgs().expect("whole").find_map(|message| match message {
                ControlMessageOwned::ScmRights(fds) => Some(fds),
                _ => None,
            });
            (got.bytes, fds.expect("a descriptor"))
        };
        bytes.truncate(len);
        stream.read_to_end(&mut bytes).expect("the rest");
        let got: serde_json::Value = serde_json::from_slice(&bytes).expect("JSON");
        let want = serde_json::json!({
            "ociVersion": "1.2.0", "fds": ["seccompFd"], "pid": pid, "metadata": "the metadata", "state": state,
        });
        assert_eq!(got, want);

        assert_eq!(fds.len(), 1);
        // SAFETY: the kernel has just made this descriptor for us.
        let listener = unsafe { <std::os::fd::OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(fds[0]) };
        let notification = notif_recv(listener.as_fd()).expect("received").expect("one");
        assert_eq!(notification.pid, pid as u32);
        assert_eq!(i64::from(notification.data.nr), libc::SYS_exit_group, "the first call after the receipt");
        notif_continue(listener.as_fd(), notification.id).expect("goes on");
        assert_eq!(reap(pid), 7);
    }

    #[test]
    fn an_init_that_dies_or_dawdles_is_not_waited_for() {
        let mailbox = Mailbox::new().expect("mailbox");
        let (pid, pidfd) = fork(|| 0);
        let error = take_listener(&mailbox, pidfd.as_fd(), Duration::from_secs(30)).expect_err("died");
        assert!(error.to_string().contains("ended before"), "{error}");
        assert_eq!(reap(pid), 0);

        let (pid, pidfd) = fork(|| {
            std::thread::sleep(Duration::from_secs(30));
            0
        });
        let error = take_listener(&mailbox, pidfd.as_fd(), Duration::from_millis(50)).expect_err("dawdles");
        assert!(error.to_string().contains("within 50 ms"), "{error}");
        pidfd::send_signal(pidfd.as_fd(), libc::SIGKILL).expect("killed");
        assert!(pidfd::wait_end(pidfd.as_fd(), 5000).expect("ends"));
        assert_eq!(reap(pid), -libc::SIGKILL);
    }

    #[test]
    fn an_unanswered_child_ends_without_a_system_call() {
        let mailbox = Mailbox::new().expect("mailbox");
        // exit_group answers KILL: only the illegal instruction gives SIGILL.
        let kill_all = [
            stmt(LD, bpf::OFF_NR),
            jump(bpf::JEQ, libc::SYS_rt_sigreturn as u32, 1, 0),
            stmt(RET, action::KILL_PROCESS),
            stmt(RET, action::ALLOW),
        ];
        let (pid, _pidfd) = fork(|| {
            if crate::sys::seccomp::set_mode_filter(&kill_all, 0).is_err() {
                return 1;
            }
            if mailbox.wait_receipt(1000) { 2 } else { trap() }
        });
        assert_eq!(reap(pid), -libc::SIGILL);
    }
}
