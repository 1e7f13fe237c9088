//! One conversation with CRIU.

use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::sys::signal::SigSet;

use super::wire::{self, Message, Value};
use crate::error::{At, Error, Result};
use crate::init::channel::{self, Channel, failure};
use crate::sys::clone::{Child, CloneArgs, clone3};
use crate::sys::process::{self, StringVector};
use crate::sys::socket::{self, MsgFlags};
use crate::sys::wait::exit_now;
use crate::sys::{Errno, descriptors, path, pidfd};

/// More than any message of CRIU.
const LIMIT: usize = 64 << 10;

/// `criu_req_type` of `rpc.proto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Request {
    Dump = 1,
    Restore = 2,
    PreDump = 4,
}

/// `criu_req_type` of a notification.
const NOTIFY: u64 = 6;

/// A step that CRIU has reached; it waits until it is answered.
#[derive(Debug)]
pub(super) struct Notice {
    /// `setup-namespaces`, `post-restore` and the like.
    pub step: String,
    /// Pid of the container's first process, where there is one.
    pub pid: libc::pid_t,
    /// The master of the container's terminal, in `orphan-pts-master`.
    pub fd: Option<OwnedFd>,
}

/// CRIU, waiting for a request.
#[derive(Debug)]
pub(super) struct Criu {
    line: OwnedFd,
    child: Child,
}

impl Criu {
    /// Starts CRIU. `enter` runs in its process before, `cgroup` is the v2 cgroup that it is born in.
    ///
    /// # Errors
    /// Where the program cannot be executed, or `enter` fails.
    pub(super) fn start(
        program: &OsStr,
        cgroup: Option<BorrowedFd<'_>>,
        enter: impl FnOnce() -> Result<()>,
    ) -> Result<Criu> {
        let path = find(program).ok_or_else(|| Error::sys("execute", program.display(), Errno::ENOENT))?;
        let executable = path::c_path(&path).at("execute", path.display())?;
        let envp = StringVector::from_environment(std::env::vars_os())?;
        let (ours, last_words) = Channel::pair()?;
        let child = clone3(CloneArgs { cgroup, ..CloneArgs::default() }, || {
            let ready = enter().and_then(|()| {
                // A foreground restore has blocked them, to take them by a descriptor.
                SigSet::empty().thread_set_mask().at("unblock", "signals")?;
                // CRIU looks up descriptors that it is told of in the process that made its line: in its own.
                let (ours, theirs) = socket::line().at("make", "the line to criu")?;
                last_words.send_with(&channel::Message::Ready, &[ours.as_fd()])?;
                descriptors::keep_on_exec(theirs.as_fd()).at("keep", "the line to criu")?;
                let number = CString::new(theirs.as_raw_fd().to_string());
                Ok((number.map_err(|_| Errno::EINVAL).at("name", "the line to criu")?, theirs))
            });
            let error = match ready {
                Ok((number, _line)) => {
                    let argv = StringVector::new(vec![c"criu".to_owned(), c"swrk".to_owned(), number]);
                    Error::sys("execute", path.display(), process::execve(&executable, &argv, &envp))
                }
                Err(error) => error,
            };
            let _ = last_words.send(&failure(&error));
            exit_now(1)
        })
        .at("clone", "a process for criu")?;
        drop(last_words);
        let heard = ours.receive_with().and_then(|first| Ok((first, ours.receive()?)));
        match heard? {
            (Some((channel::Message::Ready, mut lines)), None) if !lines.is_empty() => {
                Ok(Criu { line: lines.swap_remove(0), child })
            }
            (Some((channel::Message::Failed(errno, text), _)), _)
            | (_, Some(channel::Message::Failed(errno, text))) => {
                let _ = pidfd::wait(child.pidfd.as_fd(), true);
                Err(Error::Init { errno, text })
            }
            _ => Err(Error::Other("the process for criu has ended".to_owned())),
        }
    }

    /// Its pid.
    pub(super) fn pid(&self) -> libc::pid_t {
        self.child.pid
    }

    /// Makes the request and answers notifications until it is served; returns the restored process's pid, if any.
    ///
    /// # Errors
    /// What `notified` returns; else CRIU's own words from its log.
    pub(super) fn request(
        self,
        request: Request,
        options: &Message,
        log: &Path,
        notified: &mut dyn FnMut(Notice) -> Result<()>,
    ) -> Result<libc::pid_t> {
        let mut message = Message::default();
        message.number(1, request as i64).message(2, options).flag(3, true);
        self.send(&message)?;
        let mut failed = None;
        loop {
            let mut buffer = vec![0; LIMIT];
            let (length, fds) = match socket::receive(self.line.as_fd(), &mut buffer, MsgFlags::empty()) {
                Err(Errno::ECONNRESET) => (0, Vec::new()),
                other => other.at("read from", "the line to criu")?,
            };
            if length == 0 {
                return Err(failed.unwrap_or_else(|| complaint(request, None, log)));
            }
            let unknown = || Error::Other("criu sent a message that is none".to_owned());
            let fields = wire::fields(&buffer[..length]).ok_or_else(unknown)?;
            let number = |field| wire::last(&fields, field).and_then(Value::number);
            if number(1) != Some(NOTIFY) {
                let errno = number(7).map(|errno| Errno::from_raw(errno as i32)).filter(|it| *it != Errno::from_raw(0));
                return match (failed, number(2)) {
                    (Some(error), _) => Err(error),
                    (None, Some(1)) => Ok(restored(&fields)),
                    (None, _) => Err(complaint(request, errno, log)),
                };
            }
            let notice = notice(&fields, fds).ok_or_else(unknown)?;
            let done = if failed.is_none() { notified(notice) } else { Ok(()) };
            let mut answer = Message::default();
            answer.number(1, NOTIFY as i64).flag(3, failed.is_none() && done.is_ok());
            failed = failed.or(done.err());
            self.send(&answer)?;
        }
    }

    fn send(&self, message: &Message) -> Result<()> {
        match socket::send(self.line.as_fd(), message.as_bytes(), &[]) {
            // It has ended: that is what is read next.
            Err(Errno::EPIPE) => Ok(()),
            other => other.at("write to", "the line to criu").map(drop),
        }
    }
}

impl Drop for Criu {
    /// Without its line it ends; what it restored lives on.
    fn drop(&mut self) {
        let _ = nix::sys::socket::shutdown(self.line.as_raw_fd(), nix::sys::socket::Shutdown::Both);
        let _ = pidfd::wait(self.child.pidfd.as_fd(), true);
    }
}

/// `criu_resp.restore.pid`.
fn restored(fields: &[(u32, Value<'_>)]) -> libc::pid_t {
    wire::last(fields, 4)
        .and_then(Value::bytes)
        .and_then(wire::fields)
        .and_then(|restore| wire::last(&restore, 1)?.number())
        .map_or(0, |pid| pid as libc::pid_t)
}

/// `criu_resp.notify`.
fn notice(fields: &[(u32, Value<'_>)], fds: Vec<OwnedFd>) -> Option<Notice> {
    let notify = wire::fields(wire::last(fields, 5)?.bytes()?)?;
    Some(Notice {
        step: String::from_utf8_lossy(wire::last(&notify, 1)?.bytes()?).into_owned(),
        pid: wire::last(&notify, 2).and_then(Value::number).map_or(0, |pid| pid as libc::pid_t),
        fd: fds.into_iter().next(),
    })
}

/// The first error in CRIU's log is the cause, the others follow from it. (That it may not raise its own limit of open files is
/// an error to it, but keeps it from nothing.)
fn complaint(request: Request, errno: Option<Errno>, log: &Path) -> Error {
    let what = match request {
        Request::Dump => "dump",
        Request::Restore => "restore",
        Request::PreDump => "pre-dump",
    };
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let cause = text.lines().find_map(|line| {
        let (_, error) = line.split_once("Error (").filter(|(_, error)| !error.contains("RLIMIT_NOFILE"))?;
        error.split_once("): ").map(|(_, words)| words.trim().to_owned())
    });
    let cause = cause.or_else(|| errno.map(|errno| errno.desc().to_owned()));
    let cause = cause.unwrap_or_else(|| "it gave no reason; does `criu check` work on this kernel?".to_owned());
    Error::Other(format!("criu cannot {what}: {cause} (log file: {})", log.display()))
}

/// A program by its path, or by its name in PATH.
fn find(program: &OsStr) -> Option<PathBuf> {
    if program.as_bytes().contains(&b'/') {
        return Some(PathBuf::from(program));
    }
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/sbin:/usr/bin:/sbin:/bin".into());
    std::env::split_paths(&path).map(|directory| directory.join(program)).find(|file| file.is_file())
}
