//! The tiny init of a judged sandbox: PID 1 that is not the program.
//!
//! As PID 1 a program would be judged wrongly: `abort()` looks like SIGSEGV there, and SIGTERM, SIGALRM, SIGXFSZ and
//! SIGXCPU are ignored. So init forks the payload, reaps everything, reports the payload's raw wait status, and ends,
//! which ends the pid namespace. It also ends when the supervisor's end of the line closes: nothing survives the
//! supervisor. It stays outside the cgroups that limit the payload, and is not dumpable.
//!
//! ```text
//! supervisor ──Kill──► init ──clone──► payload: enters its cgroups, becomes the user, filter, Exec, execve
//!            ◄─Ended──      ◄─reaped──
//! ```

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::report::{Ended, Exec, FilesSeen, Line, Received, Report};
use crate::cgroup::Entry;
use crate::error::{At, Error, Result};
use crate::seccomp::judge::JudgeFilter;
use crate::sys::clone::{CloneArgs, clone3};
use crate::sys::wait::{self, Waited};
use crate::sys::{Errno, path, process};

/// What the tiny init needs to know; plain data, decided before the clone.
#[derive(Debug)]
pub struct Reaper<'a> {
    /// Init's end of the line.
    pub line: &'a Line,
    /// The payload's cgroup namespace begins at its own cgroups.
    pub cgroup_namespace: bool,
    /// Writable tmpfs that are looked at when the payload has ended badly.
    pub writable: &'a [CString],
    /// RLIMIT_FSIZE, bytes.
    pub file_size: u64,
    /// Path of the file to hand out when the payload has exited with 0.
    pub artefact: Option<&'a CStr>,
    /// For hooks that are executed before the payload: nobody is notified of what they do.
    pub hook_filter: Option<&'a JudgeFilter>,
}

/// The payload's process, and the signals that tell of its end.
#[derive(Debug)]
pub struct Payload {
    pid: libc::pid_t,
    signals: SignalFd,
}

impl Payload {
    /// Readable when a child has ended.
    pub(super) fn signals(&self) -> BorrowedFd<'_> {
        self.signals.as_fd()
    }
}

/// How deep and how far the look for files at the size limit goes.
const DEPTH: u32 = 6;
const ENTRIES: u32 = 4096;

impl super::Reaper for Reaper<'_> {
    fn make(&self, entry: &Entry, program: &mut dyn FnMut() -> Error) -> Result<Payload> {
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGCHLD);
        mask.thread_block().at("block", "SIGCHLD")?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let signals = SignalFd::with_flags(&mask, flags).at("open", "a signalfd")?;
        let arguments = CloneArgs { cgroup: entry.into.as_ref().map(AsFd::as_fd), ..CloneArgs::default() };
        let payload = clone3(arguments, || {
            let error = match self.become_payload(entry) {
                Ok(()) => program(),
                Err(error) => error,
            };
            self.tell_failure(&error);
            127
        })
        .at("clone", "the payload")?;
        Ok(Payload { pid: payload.pid, signals })
    }

    fn line(&self) -> BorrowedFd<'_> {
        self.line.as_fd()
    }

    fn filter_hook(&self) -> Result<()> {
        self.hook_filter.map_or(Ok(()), JudgeFilter::load_unheard)
    }

    /// Reaps and ends the process: descriptors have been closed under their owners, which must not be dropped.
    fn reap(&self, payload: Payload) -> i32 {
        let status = match self.supervise(payload) {
            Ok(()) => 0,
            Err(error) => {
                self.tell_failure(&error);
                1
            }
        };
        wait::exit_now(status)
    }
}

impl Reaper<'_> {
    /// Where nobody hears it, the supervisor is gone.
    fn tell_failure(&self, error: &Error) {
        let report = Report::ExecFailed(error.errno().map_or(0, |errno| errno as i32), error.to_string());
        let _ = self.line.send(&report, None);
    }

    fn supervise(&self, payload: Payload) -> Result<()> {
        let Payload { pid, signals } = payload;
        // Above all the supervisor's own end of the line, which init must see closing.
        wait::close_all_but(&[self.line.as_fd(), signals.as_fd()]).at("close", "descriptors")?;
        let mut ended = self.reap_until(pid, &signals)?;
        ended.alone = wait::kill_namespace() == Err(Errno::ESRCH);
        self.report(ended)
    }

    /// In the payload's process, before it becomes the user.
    fn become_payload(&self, entry: &Entry) -> Result<()> {
        entry.enter()?;
        if self.cgroup_namespace {
            process::unshare(libc::CLONE_NEWCGROUP).at("unshare", "the cgroup namespace")?;
        }
        process::setsid().at("start", "a new session")
    }

    /// Reaps whoever ends until the payload has, obeying the supervisor meanwhile.
    fn reap_until(&self, payload: libc::pid_t, signals: &SignalFd) -> Result<Ended> {
        let mut exec_completed = false;
        loop {
            let mut fds =
                [PollFd::new(self.line.as_fd(), PollFlags::POLLIN), PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno).at("poll", "the line to the supervisor"),
            }
            while let Some(_signal) = signals.read_signal().at("read", "a signalfd")? {}
            match self.line.receive()? {
                Received::Nothing => {}
                Received::Report(Report::Kill, _) => {
                    let _ = wait::kill_namespace();
                }
                // The supervisor has died, or speaks nonsense: the namespace ends with this process.
                Received::Report(..) | Received::Closed => wait::exit_now(1),
            }
            loop {
                match wait::wait_any_now() {
                    Ok(Some(waited)) if libc::WIFSTOPPED(waited.status) => {
                        // Only a watched exec stops here: SIGTRAP once it is complete, another signal if it never was.
                        let signal = libc::WSTOPSIG(waited.status);
                        exec_completed |= signal == libc::SIGTRAP;
                        let deliver = if signal == libc::SIGTRAP { 0 } else { signal };
                        let _ = wait::unwatch(waited.pid, deliver);
                    }
                    Ok(Some(waited)) if waited.pid == payload => return Ok(ended(waited, exec_completed)),
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(errno) => return Err(errno).at("wait for", "the payload"),
                }
            }
        }
    }

    fn report(&self, mut ended: Ended) -> Result<()> {
        if let Some(artefact) = self.artefact.filter(|_| ended.status == 0) {
            match open_artefact(artefact) {
                Ok(file) => self.line.send(&Report::Artefact(String::new()), Some(file.as_fd()))?,
                Err(error) => self.line.send(&Report::Artefact(error.to_string()), None)?,
            }
        }
        if ended.status != 0 {
            ended.files = Some(self.look());
        }
        self.line.send(&Report::Ended(ended), None)
    }

    /// Looks at the places that the payload could write to. Everything else in the namespace has been killed.
    fn look(&self) -> FilesSeen {
        let mut seen = FilesSeen::default();
        let mut left = ENTRIES;
        for place in self.writable {
            let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW;
            let Ok(fs) = path::openat(path::CWD, place, flags, 0).and_then(|fd| path::fstatfs(fd.as_fd())) else {
                continue;
            };
            seen.no_free_blocks |= fs.f_blocks > 0 && fs.f_bfree == 0;
            seen.no_free_inodes |= fs.f_files > 0 && fs.f_ffree == 0;
            let place = Path::new(std::ffi::OsStr::from_bytes(place.to_bytes()));
            seen.at_size_limit |= self.any_file_at_limit(place, DEPTH, &mut left);
        }
        seen
    }

    fn any_file_at_limit(&self, directory: &Path, depth: u32, left: &mut u32) -> bool {
        let Ok(entries) = std::fs::read_dir(directory) else { return false };
        for entry in entries.flatten() {
            if *left == 0 {
                return false;
            }
            *left -= 1;
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_file() && metadata.len() >= self.file_size {
                return true;
            }
            if metadata.is_dir() && depth > 0 && self.any_file_at_limit(&entry.path(), depth - 1, left) {
                return true;
            }
        }
        false
    }
}

fn ended(waited: Waited, exec_completed: bool) -> Ended {
    Ended {
        at_ns: wait::monotonic_ns(),
        status: waited.status,
        user_us: waited.user_us,
        system_us: waited.system_us,
        max_rss_kib: waited.max_rss_kib,
        voluntary_switches: waited.voluntary_switches,
        forced_switches: waited.forced_switches,
        exec_completed,
        alone: false,
        files: None,
    }
}

/// The artefact by a handle that is known to be a regular file: no link, no pipe, no device takes its place.
fn open_artefact(artefact: &CStr) -> Result<OwnedFd> {
    let name = artefact.to_string_lossy();
    let flags = libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    let resolve = path::RESOLVE_NO_SYMLINKS | path::RESOLVE_NO_MAGICLINKS;
    let file = path::openat2(path::CWD, artefact, flags, 0, resolve).at("open", &name)?;
    let stat = path::fstat(file.as_fd()).at("stat", &name)?;
    if stat.st_mode & libc::S_IFMT != libc::S_IFREG {
        return Err(Error::Other(format!("`{name}` is not a regular file")));
    }
    Ok(file)
}

/// What the payload's process does last before its exec: announces it, filter in place.
///
/// `load` attaches the filters and returns the listener of the notifying one, which is sent to the supervisor.
///
/// # Errors
/// As `load`, and where the supervisor is gone.
pub fn announce(
    line: &Line,
    image: Option<u64>,
    memory_limit: u64,
    load: impl FnOnce() -> Result<Option<OwnedFd>>,
) -> Result<()> {
    // An image larger than the memory limit may die inside exec, before anything is charged: watch.
    let watched = image.is_some_and(|bytes| bytes > memory_limit) && wait::watch_me().is_ok();
    let listener: Option<OwnedFd> = load()?;
    if let Some(listener) = listener {
        line.send(&Report::Listener, Some(listener.as_fd()))?;
    }
    let exec = Exec {
        at_ns: wait::monotonic_ns(),
        setup_cpu_ns: wait::process_cpu_ns(),
        image_bytes: image.unwrap_or(0),
        watched,
    };
    line.send(&Report::Exec(exec), None)
}

/// Sum of the PT_LOAD segments of the program that `argv0` names (looked up in `search`, a PATH, where it has no
/// slash); `None` for what is no ELF file of 64 bits.
pub fn image_bytes(argv0: &[u8], search: &[u8]) -> Option<u64> {
    let open = |bytes: &[u8]| {
        let path = CString::new(bytes).ok()?;
        let flags = libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY;
        path::openat(path::CWD, &path, flags, 0).ok()
    };
    let file = if argv0.contains(&b'/') {
        open(argv0)?
    } else {
        search.split(|byte| *byte == b':').find_map(|directory| open(&[directory, b"/", argv0].concat()))?
    };
    load_bytes(file.as_fd())
}

fn load_bytes(file: BorrowedFd<'_>) -> Option<u64> {
    const PT_LOAD: u32 = 1;
    const ELF64: &[u8] = b"\x7fELF\x02";
    let mut head = [0u8; 4096];
    let length = nix::sys::uio::pread(file, &mut head, 0).ok()?;
    let head = &head[..length];
    let u64_at = |at: usize| Some(u64::from_le_bytes(*head.get(at..)?.first_chunk::<8>()?));
    let u32_at = |at: usize| Some(u32::from_le_bytes(*head.get(at..)?.first_chunk::<4>()?));
    let u16_at = |at: usize| Some(u16::from_le_bytes(*head.get(at..)?.first_chunk::<2>()?));
    if !head.starts_with(ELF64) {
        return None;
    }
    let (start, size, count) = (u64_at(32)? as usize, usize::from(u16_at(54)?), usize::from(u16_at(56)?));
    let mut sum = 0u64;
    for index in 0..count {
        let header = start.checked_add(index.checked_mul(size)?)?;
        if u32_at(header)? == PT_LOAD {
            sum = sum.saturating_add(u64_at(header.checked_add(40)?)?);
        }
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_of_an_elf_file_is_its_load_segments() {
        let own = image_bytes(b"/proc/self/exe", b"").unwrap();
        assert!(own > 1 << 16, "{own}");
        assert!(image_bytes(b"sh", b"/nowhere:/bin").is_some());
        assert_eq!(image_bytes(b"/etc/passwd", b""), None);
        assert_eq!(image_bytes(b"no-such-program", b"/bin"), None);
    }

    #[test]
    fn only_a_regular_file_is_an_artefact() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| CString::new(directory.path().join(name).as_os_str().as_bytes()).unwrap();
        std::fs::write(directory.path().join("file"), "x").unwrap();
        std::os::unix::fs::symlink("file", directory.path().join("link")).unwrap();
        nix::unistd::mkfifo(at("pipe").as_c_str(), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(open_artefact(&at("file")).is_ok());
        for name in ["link", "pipe", "missing"] {
            assert!(open_artefact(&at(name)).is_err(), "{name}");
        }
        assert!(open_artefact(c"/dev/null").is_err());
    }
}
