//! Hooks: programs that an engine has run at fixed points of a container's life (runtime-spec, config.md, "POSIX-platform
//! Hooks").
//!
//! A hook gets the container's state on its stdin. The state is written before the hook exists, into a pipe that holds
//! it (or a memory file, if it is large), so that a hook that never reads it, or closes it, neither blocks nor
//! signals the runtime. The hook's end is seen by its pidfd, never by the end of its output, which a daemon that it left
//! behind may hold open for ever.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::pipe2;
use oci_spec::runtime::Hook;

use crate::error::{At, Context, Error, Result};
use crate::sys::clone::{Child, CloneArgs, clone3};
use crate::sys::process::{Ended, StringVector};
use crate::sys::{attributes, descriptors, path, pidfd, process, wait};

/// How much of a hook's output is kept, per stream, in bytes. The rest is read and dropped.
const OUTPUT_LIMIT: usize = 16 << 10;
/// The capacity of a new pipe (pipe(7)).
const PIPE_CAPACITY: usize = 64 << 10;
/// How long a killed hook may take to end: it may be inside the kernel, on a dead network file system for example.
const KILL_WAIT: Duration = Duration::from_secs(5);

/// The hook points in the order of the container's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Deprecated: as createRuntime, called just before it.
    Prestart,
    /// In the runtime's namespaces, after those of the container are made and before pivot_root.
    CreateRuntime,
    /// In the container's namespaces, before pivot_root.
    CreateContainer,
    /// In the container, just before its program.
    StartContainer,
    /// In the runtime's namespaces, after the program has started.
    Poststart,
    /// In the runtime's namespaces, after the container is gone.
    Poststop,
}

impl Kind {
    /// The name in config.json.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Prestart => "prestart",
            Kind::CreateRuntime => "createRuntime",
            Kind::CreateContainer => "createContainer",
            Kind::StartContainer => "startContainer",
            Kind::Poststart => "poststart",
            Kind::Poststop => "poststop",
        }
    }

    /// Whether a failure ends the container; after poststop it is a warning, and the remaining hooks
    /// still run (runtime-spec 1.2, runtime.md, "Lifecycle"; before 1.2 poststart only warned).
    pub const fn is_fatal(self) -> bool {
        !matches!(self, Kind::Poststop)
    }
}

/// What a list of hooks is run with.
pub struct Runner<'a> {
    /// Which list.
    pub kind: Kind,
    /// The state of the container as JSON.
    pub state: &'a [u8],
    /// The environment of hooks that have none of their own: [`path_alone`] for a program of the host.
    pub default_env: &'a [String],
    /// What the hook's process does just before its program begins.
    pub prepare: Option<&'a dyn Fn() -> Result<()>>,
    /// Told the pid of every hook before its program begins; an error here keeps it from beginning.
    pub on_start: &'a mut dyn FnMut(libc::pid_t) -> Result<()>,
    /// The line to whoever wants them run: when its other end closes, the hook is killed.
    pub caller: Option<BorrowedFd<'a>>,
}

impl std::fmt::Debug for Runner<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Runner").field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl Runner<'_> {
    /// Runs the hooks one after the other. Returns the failures that are no reason to end: always empty for
    /// a kind that is fatal.
    ///
    /// # Errors
    /// The first failure of a kind that is fatal, such as ``createRuntime hook #0 `/path`: exit status 1: its stderr``.
    pub fn run(&mut self, hooks: &[Hook]) -> Result<Vec<Error>> {
        let mut warnings = Vec::new();
        for (index, hook) in hooks.iter().enumerate() {
            let done = run_program(hook, self.state, self.default_env, self.prepare, self.on_start, self.caller)
                .context(|| format!("{} hook #{index} `{}`", self.kind.name(), hook.path().display()));
            match done {
                Err(error) if self.kind.is_fatal() => return Err(error),
                Err(error) => warnings.push(error),
                Ok(()) => {}
            }
        }
        Ok(warnings)
    }
}

/// The caller's PATH and nothing else of its environment: a script finds its programs, and does the same under every caller.
pub fn path_alone() -> Vec<String> {
    std::env::var("PATH").map(|path| format!("PATH={path}")).into_iter().collect()
}

/// Runs one program as hooks are run: `stdin` is all its input, a missing `env` is `default_env`, the timeout is in seconds.
/// `on_start` is told its pid before it begins, and its process then calls `prepare`; it is killed when the other end of
/// `caller` closes.
///
/// # Errors
/// How it failed, with what it wrote to stderr: `exit status 1: no such thing`, `exec: Permission denied`,
/// `timed out after 1 s and was killed`.
pub fn run_program(
    hook: &Hook,
    stdin: &[u8],
    default_env: &[String],
    prepare: Option<&dyn Fn() -> Result<()>>,
    on_start: &mut dyn FnMut(libc::pid_t) -> Result<()>,
    caller: Option<BorrowedFd<'_>>,
) -> Result<()> {
    if !hook.path().is_absolute() {
        return Err(Error::Other("the path is not absolute".into()));
    }
    let deadline = match hook.timeout() {
        None => None,
        Some(seconds) => {
            let seconds = u64::try_from(seconds).ok().filter(|seconds| *seconds > 0);
            let seconds = seconds.ok_or_else(|| Error::Other("the timeout is not above zero".into()))?;
            Instant::now().checked_add(Duration::from_secs(seconds))
        }
    };
    let (mut child, mut pipes) = spawn(hook, stdin, default_env, prepare, on_start)?;
    let ended = child.wait(&mut pipes, deadline, caller)?;
    let stderr = String::from_utf8_lossy(&pipes.stderr.kept);
    let words = match (ended, pipes.failure()) {
        (Followed::Late, _) => format!("timed out after {} s and was killed", hook.timeout().unwrap_or_default()),
        (Followed::Forsaken, _) => "was killed, because the runtime has ended".to_owned(),
        (Followed::Ended(_), Some(errno)) => format!("exec: {}", errno.desc()),
        (Followed::Ended(Ended::Exited(0)), None) => return Ok(()),
        (Followed::Ended(Ended::Exited(status)), None) => format!("exit status {status}"),
        (Followed::Ended(Ended::Signaled(libc::SIGSYS, _)), None) => "killed for a bad system call".to_owned(),
        (Followed::Ended(Ended::Signaled(signal, _)), None) => format!("killed by signal {signal}"),
    };
    let stderr = stderr.trim();
    Err(Error::Other(if stderr.is_empty() { words } else { format!("{words}: {stderr}") }))
}

fn spawn(
    hook: &Hook,
    stdin: &[u8],
    default_env: &[String],
    prepare: Option<&dyn Fn() -> Result<()>>,
    on_start: &mut dyn FnMut(libc::pid_t) -> Result<()>,
) -> Result<(HookProcess, Pipes)> {
    let c_string = |text: &[u8]| CString::new(text).map_err(|_| Error::Other("has a NUL byte".into()));
    let program = c_string(hook.path().as_os_str().as_bytes())?;
    let args = match hook.args().as_deref() {
        None | Some([]) => vec![program.clone()],
        Some(args) => args.iter().map(|word| c_string(word.as_bytes())).collect::<Result<_>>()?,
    };
    let env = hook.env().as_deref().unwrap_or(default_env);
    let argv = StringVector::new(args);
    let envp = StringVector::new(env.iter().map(|word| c_string(word.as_bytes())).collect::<Result<_>>()?);

    let stdin = input(stdin)?;
    let pipe = || pipe2(OFlag::O_CLOEXEC).at("make", "pipe");
    let ((out_read, out_write), (err_read, err_write)) = (pipe()?, pipe()?);
    let ((fail_read, fail_write), (gate_read, gate_write)) = (pipe()?, pipe()?);

    let child = clone3(CloneArgs::default(), || {
        let begin = || -> std::result::Result<Errno, Errno> {
            // Also end when the runtime does: the gate's other end, of which this is a copy, must go first. A hook of the host
            // has no use for anything else either, and least for the container's lock, which recovery would wait for.
            match prepare {
                Some(_) => nix::unistd::close(std::os::fd::AsRawFd::as_raw_fd(&gate_write))?,
                None => {
                    wait::close_all_but(&[&gate_read, &stdin, &out_write, &err_write, &fail_write].map(AsFd::as_fd))?
                }
            }
            if path::read_all(gate_read.as_fd(), 8)?.is_empty() {
                return Err(Errno::ECANCELED);
            }
            // A group of its own, so that a hook that hangs can be ended with what it has started.
            nix::unistd::setpgid(nix::unistd::Pid::from_raw(0), nix::unistd::Pid::from_raw(0))?;
            process::dup_to(stdin.as_fd(), 0)?;
            process::dup_to(out_write.as_fd(), 1)?;
            process::dup_to(err_write.as_fd(), 2)?;
            descriptors::close_on_exec_from(3)?;
            attributes::default_signals()?;
            attributes::unblock_signals()?;
            if let Some(prepare) = prepare {
                prepare().map_err(|error| error.errno().unwrap_or(Errno::ECANCELED))?;
            }
            Ok(process::execve(&program, &argv, &envp))
        };
        let (Ok(errno) | Err(errno)) = begin();
        let _ = path::write_once(fail_write.as_fd(), &(errno as i32).to_ne_bytes());
        127
    })
    .at("clone", "hook")?;
    // Whatever goes wrong from here on, the child is killed before its program begins.
    let child = HookProcess { child, reaped: false };
    on_start(child.child.pid)?;
    path::write_once(gate_write.as_fd(), b"1").at("start", "hook")?;
    let pipes = Pipes { stdout: Output::new(out_read), stderr: Output::new(err_read), failure: fail_read };
    Ok((child, pipes))
}

/// A descriptor to read all of `content` from.
fn input(content: &[u8]) -> Result<OwnedFd> {
    if content.len() <= PIPE_CAPACITY {
        let (read, write) = pipe2(OFlag::O_CLOEXEC).at("make", "pipe")?;
        path::write_once(write.as_fd(), content).at("write", "state")?;
        return Ok(read);
    }
    let flags = nix::sys::memfd::MemFdCreateFlag::MFD_CLOEXEC;
    let file = nix::sys::memfd::memfd_create(c"state", flags).at("make", "memory file")?;
    let mut file = std::fs::File::from(file);
    std::io::Write::write_all(&mut file, content).at("write", "state")?;
    std::io::Seek::rewind(&mut file).at("rewind", "state")?;
    Ok(file.into())
}

/// What ended a hook.
enum Followed {
    /// Its own end, or a signal of somebody else's.
    Ended(Ended),
    /// Its deadline.
    Late,
    /// The end of whoever wanted it run.
    Forsaken,
}

/// A hook that is killed and reaped if it is dropped while it runs.
struct HookProcess {
    child: Child,
    reaped: bool,
}

impl HookProcess {
    /// Waits for the end, or kills it where something else comes first.
    fn wait(
        &mut self,
        pipes: &mut Pipes,
        deadline: Option<Instant>,
        caller: Option<BorrowedFd<'_>>,
    ) -> Result<Followed> {
        if let Some(cut) = pipes.follow(self.child.pidfd.as_fd(), deadline, caller)? {
            return self.kill().map(|()| cut);
        }
        let ended = pidfd::wait(self.child.pidfd.as_fd(), true).at("wait for", "hook")?;
        self.reaped = true;
        ended.map(Followed::Ended).ok_or_else(|| Error::sys("wait for", "hook", Errno::ECHILD))
    }

    /// Kills it with its process group, and reaps it, in bounded time.
    fn kill(&mut self) -> Result<()> {
        self.reaped = true;
        // It is not reaped yet, so its pid, and the group of that number, cannot be another's.
        let _ = nix::sys::signal::killpg(nix::unistd::Pid::from_raw(self.child.pid), nix::sys::signal::Signal::SIGKILL);
        let _ = pidfd::send_signal(self.child.pidfd.as_fd(), libc::SIGKILL);
        let wait = i32::try_from(KILL_WAIT.as_millis()).unwrap_or(i32::MAX);
        if !pidfd::wait_end(self.child.pidfd.as_fd(), wait).at("wait for", "hook")? {
            return Err(Error::Other(format!("process {} does not end after SIGKILL", self.child.pid)));
        }
        pidfd::wait(self.child.pidfd.as_fd(), true).at("wait for", "hook").map(drop)
    }
}

impl Drop for HookProcess {
    fn drop(&mut self) {
        if !self.reaped {
            let _ = self.kill();
        }
    }
}

/// The parent's ends of a hook's pipes.
struct Pipes {
    stdout: Output,
    stderr: Output,
    failure: OwnedFd,
}

impl Pipes {
    /// Reads the output until the process ends; or says what came before that.
    fn follow(
        &mut self,
        pidfd: BorrowedFd<'_>,
        deadline: Option<Instant>,
        caller: Option<BorrowedFd<'_>>,
    ) -> Result<Option<Followed>> {
        loop {
            let timeout = match deadline {
                None => PollTimeout::NONE,
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    // Rounded up: a poll of zero milliseconds just before the deadline would spin.
                    let left = i32::try_from(left.as_micros().div_ceil(1000)).unwrap_or(i32::MAX);
                    PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
                }
            };
            let mut entries = vec![PollFd::new(pidfd, PollFlags::POLLIN)];
            let open = [&self.stdout, &self.stderr].map(|output| output.file.is_some());
            for output in [&self.stdout, &self.stderr] {
                entries.extend(output.file.as_ref().map(|file| PollFd::new(file.as_fd(), PollFlags::POLLIN)));
            }
            // No event is asked for: POLLHUP comes unasked, and what there is to read is not for the hook's sake.
            entries.extend(caller.map(|caller| PollFd::new(caller, PollFlags::empty())));
            let count = match poll(&mut entries, timeout) {
                Err(Errno::EINTR) => continue,
                done => done.at("poll", "hook")?,
            };
            let mut ready = entries.iter().map(|entry| entry.any().unwrap_or(false));
            let ended = ready.next().unwrap_or(false);
            let [out, err] = open.map(|open| open && ready.next().unwrap_or(false));
            let forsaken = ready.next().unwrap_or(false);
            drop(ready);
            if out {
                self.stdout.read()?;
            }
            if err {
                self.stderr.read()?;
            }
            if ended {
                // What it wrote before its end is in the pipes by now.
                self.stdout.drain()?;
                self.stderr.drain()?;
                return Ok(None);
            }
            if forsaken {
                return Ok(Some(Followed::Forsaken));
            }
            if count == 0 && deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Ok(Some(Followed::Late));
            }
        }
    }

    /// Why the program was not executed, if it was not. After the process's end.
    fn failure(&self) -> Option<Errno> {
        let bytes = path::read_all(self.failure.as_fd(), 8).ok()?;
        Some(Errno::from_raw(i32::from_ne_bytes(bytes.try_into().ok()?)))
    }
}

/// One output stream, kept up to [`OUTPUT_LIMIT`].
struct Output {
    file: Option<OwnedFd>,
    kept: Vec<u8>,
}

impl Output {
    fn new(file: OwnedFd) -> Self {
        Output { file: Some(file), kept: Vec::new() }
    }

    /// Reads once; poll has said that there is something, or the end.
    fn read(&mut self) -> Result<bool> {
        let Some(file) = &self.file else { return Ok(false) };
        let mut buffer = [0_u8; 4096];
        match nix::unistd::read(std::os::fd::AsRawFd::as_raw_fd(file), &mut buffer) {
            Ok(0) => {
                self.file = None;
                Ok(false)
            }
            Ok(length) => {
                let room = OUTPUT_LIMIT.saturating_sub(self.kept.len()).min(length);
                self.kept.extend_from_slice(&buffer[..room]);
                Ok(true)
            }
            Err(Errno::EINTR) => Ok(true),
            Err(errno) => Err(errno).at("read", "hook's output"),
        }
    }

    /// Reads what is there now and no more than one pipe holds.
    fn drain(&mut self) -> Result<()> {
        for _ in 0..PIPE_CAPACITY / 4096 {
            let Some(file) = &self.file else { break };
            let mut entry = [PollFd::new(file.as_fd(), PollFlags::POLLIN)];
            if !matches!(poll(&mut entry, PollTimeout::ZERO), Ok(1)) || !self.read()? {
                break;
            }
        }
        Ok(())
    }
}
