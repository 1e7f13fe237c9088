//! One step of a judged run: one sandbox from its plan to its supervision, and from there to the proof that it is gone.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Instant;

use oci_spec::runtime::{LinuxNamespaceType, Spec};

use super::{Input, Run};
use crate::cgroup::{self, Controller};
use crate::container::create::begin;
use crate::container::created::Created;
use crate::container::delete::release;
use crate::container::namespaces::{Namespaces, host_id};
use crate::container::options::{JudgeOptions, Options};
use crate::container::root::Root;
use crate::error::{At, Error, Result};
use crate::init::channel::Channel;
use crate::init::reaper::{self, Reaper};
use crate::init::report::{Ended, Line};
use crate::judge::capture::{Capture, Stdin};
use crate::judge::evidence::{Cleanup, Evidence, Fault, FaultKind};
use crate::judge::limits::Limits;
use crate::judge::meter::Meter;
use crate::judge::sandbox;
use crate::judge::stage::Stage;
use crate::judge::supervisor::{Container, Job, Outcome, Watch};
use crate::seccomp::judge::JudgeFilter;
use crate::spec::Bundle;
use crate::sys::{Errno, attributes};

/// What one step is run with.
pub(super) struct StepPlan<'a> {
    /// The sandbox's id, where it is not the run's.
    pub(super) id: Option<String>,
    pub(super) spec: Spec,
    pub(super) bundle: PathBuf,
    pub(super) limits: Limits,
    pub(super) stdin: Input,
    pub(super) stdout: Output,
    pub(super) artefact: Option<&'a str>,
    /// Whose the program is.
    pub(super) program: Whose,
    pub(super) controllers: Option<&'a [Controller]>,
    /// Descriptors that the program gets as they are.
    pub(super) raw: Option<Raw>,
}

/// Descriptors of the caller's that the program gets as they are: nothing of them is read, counted or given away.
#[derive(Debug)]
pub(super) struct Raw {
    pub(super) stdin: OwnedFd,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
    /// So many from 3 on, besides.
    pub(super) inherit: u32,
}

/// Where standard output goes.
#[derive(Debug)]
pub enum Output {
    /// To the judge, counted and kept up to the limit.
    Captured,
    /// Into a pipe of the judge's, as another sandbox's input.
    Given(OwnedFd),
}

/// What one step came to.
#[derive(Debug)]
pub struct Stepped {
    pub(super) evidence: Evidence,
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: Vec<u8>,
    pub(super) artefact: Option<OwnedFd>,
    pub(super) artefact_missing: Option<String>,
    /// When the payload was reaped, CLOCK_MONOTONIC.
    pub(super) ended_ns: Option<u64>,
    /// How the payload ended, as its init saw it.
    pub(super) ended: Option<Ended>,
}

/// A step that has begun.
#[derive(Debug)]
pub enum Begun<'a> {
    /// Its sandbox is to be supervised.
    Sandbox(Box<Sandbox<'a>>),
    /// There is no sandbox: it could not be made.
    Over(Box<Stepped>),
}

/// A sandbox to be supervised, and what its release needs.
#[derive(Debug)]
pub struct Sandbox<'a> {
    /// For the supervisor.
    pub watch: Watch<'a>,
    /// For afterwards.
    pub ending: Ending<'a>,
}

/// Whose fault it is that a step's program cannot be executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    /// The judge's: it is the toolchain's, or of a bundle of languages.
    Judge,
    /// The caller's, who has named it.
    Caller,
    /// The submission's, which has made it.
    Submission,
}

/// What `execve(2)` answers for want of something that the host lacks, whatever the program is.
const HOSTS_FAULT: [libc::c_int; 5] = [libc::EAGAIN, libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::ETXTBSY];

/// What the release of a sandbox needs.
#[derive(Debug)]
pub struct Ending<'a> {
    root: &'a Root,
    /// What lies on the host for it.
    stage: Option<Stage>,
    program: Whose,
    degraded: Vec<String>,
}

impl<'a> Ending<'a> {
    /// Releases the sandbox when its supervision is over, with the proof.
    ///
    /// # Errors
    /// For invalid input: a program that the caller chose and that cannot be executed.
    pub fn end(self, container: Option<Container<'a>>, outcome: Outcome) -> Result<Stepped> {
        let root = self.root;
        let stepped = match container {
            Some(Container::Made(Created { directory, record, pidfd, .. })) => {
                let proof = release(root, directory, &record, Some(pidfd)).proof;
                let cleanup = Cleanup::from(&proof);
                Stepped::from(outcome, self.program, cleanup.proved).map(|mut stepped| {
                    stepped.evidence.cleanup = Some(cleanup);
                    stepped.evidence.control_degraded.clone_from(&self.degraded);
                    stepped
                })
            }
            Some(Container::Failed(error)) => not_created(error, self.program),
            Some(Container::Making(pending)) => {
                not_created(pending.abandon(Error::Other("the sandbox was given up".to_owned())), self.program)
            }
            None => Ok(Stepped::fault("the sandbox was lost".to_owned())),
        };
        self.unstage(stepped)
    }

    /// Ends with the stage, whatever the step came to. What cannot be removed belongs into the proof.
    fn unstage(self, stepped: Result<Stepped>) -> Result<Stepped> {
        let Some(stage) = self.stage else { return stepped };
        let place = stage.directory().display().to_string();
        let removed = stage.remove();
        let mut stepped = stepped?;
        let cleanup = stepped.evidence.cleanup.get_or_insert_with(Cleanup::default);
        match removed {
            Ok(()) => cleanup.checked.push(format!("stage `{place}`")),
            Err(error) => {
                cleanup.proved = false;
                cleanup.left.push(error.to_string());
            }
        }
        Ok(stepped)
    }
}

impl<'a> Run<'a> {
    /// Begins a step. The stage, where it has one, ends with it.
    pub(super) fn step(&self, plan: Result<StepPlan<'_>>, stage: Option<Stage>) -> Result<Begun<'a>> {
        let plan = match plan {
            Ok(plan) => plan,
            Err(error) => {
                let _ = stage.map(Stage::remove);
                return Err(error);
            }
        };
        let degraded = self.report.missing.iter().map(|name| (*name).to_owned()).collect();
        let ending = Ending { root: self.judge.root, stage, program: plan.program, degraded };
        match self.begin_step(plan) {
            Ok(watch) => Ok(Begun::Sandbox(Box::new(Sandbox { watch, ending }))),
            Err(error) => {
                let stepped = not_created(error, ending.program);
                ending.unstage(stepped).map(|stepped| Begun::Over(Box::new(stepped)))
            }
        }
    }

    fn begin_step(&self, plan: StepPlan<'_>) -> Result<Watch<'a>> {
        let StepPlan { id, spec, bundle, limits, stdin, stdout, artefact, controllers, raw, .. } = plan;
        let id = id.as_deref().unwrap_or(&self.id);
        let cgroup = cgroup::plan(
            &cgroup::Request {
                cgroups_path: spec.linux().as_ref().and_then(|linux| linux.cgroups_path().as_deref()),
                id,
                systemd: self.judge.systemd_cgroup,
                controllers,
                payload_leaf: true,
                ..cgroup::Request::default()
            },
            &self.judge.layout,
        )?;
        let (raw, inherit) = raw.map_or((None, 0), |raw| (Some((raw.stdin, raw.stdout, raw.stderr)), raw.inherit));
        let given = raw.is_some();
        let (raw_stdin, raw_stdout, raw_stderr) =
            raw.map_or((None, None, None), |(a, b, c)| (Some(a), Some(b), Some(c)));
        let stdin = raw_stdin.map_or(stdin, Input::Given);
        let stdout = raw_stdout.map_or(stdout, Output::Given);
        let (stdin, payload_stdin) = match stdin {
            Input::Empty => Stdin::empty()?,
            Input::Bytes(bytes) => Stdin::from_reader(&bytes[..])?,
            Input::File(file) => Stdin::from_reader(file)?,
            Input::Stream(source) => Stdin::passed(source)?,
            Input::Given(pipe) => (Stdin::Given, pipe),
        };
        let (stdout, payload_stdout) = match stdout {
            Output::Captured => {
                let (capture, pipe) = Capture::pipe(limits.output_bytes)?;
                (Some(capture), pipe)
            }
            Output::Given(pipe) => (None, pipe),
        };
        let (stderr, payload_stderr) = match raw_stderr {
            None => {
                let (capture, pipe) = Capture::pipe(limits.output_bytes)?;
                (Some(capture), pipe)
            }
            Some(file) => (None, file),
        };
        for stream in [&payload_stdin, &payload_stdout, &payload_stderr].into_iter().filter(|_| !given) {
            give(stream.as_fd(), &spec)?;
        }
        let (line, init_line) = Line::pair()?;
        let writable = sandbox::writable_tmpfs(&spec);
        let writable: Vec<CString> =
            writable.iter().filter_map(|path| CString::new(path.as_os_str().as_bytes()).ok()).collect();
        let artefact_path = artefact.and_then(|path| CString::new(path).ok());
        let filter = self.judge.filter.as_ref().filter(|_| !self.degraded("seccomp"));
        let reaper = Reaper {
            hook_filter: filter,
            line: &init_line,
            cgroup_namespace: Namespaces::plan(&spec).new & libc::CLONE_NEWCGROUP != 0,
            writable: &writable,
            file_size: limits.file_size_bytes,
            artefact: artefact_path.as_deref(),
        };
        let (argv0, search) = program(&spec);
        let announce = |_: &Channel| {
            let image = reaper::image_bytes(argv0.as_bytes(), search.as_bytes());
            reaper::announce(&init_line, image, limits.memory_bytes, || filter.map(JudgeFilter::load).transpose())
        };
        let options = Options {
            ungated: true,
            preserve_fds: inherit,
            judge: Some(JudgeOptions {
                stdio: [payload_stdin.as_fd(), payload_stdout.as_fd(), payload_stderr.as_fd()],
                reaper: &reaper,
                seccomp: &announce,
                cgroup,
            }),
            ..Options::default()
        };
        let begun = Instant::now();
        // Only the payload holds its ends from here on: this process's go with the end of this function.
        let container = begin(self.judge.root, id, &Bundle { dir: bundle, spec: spec.clone() }, options)?;
        match Meter::open(&container.record().cgroup) {
            Ok(meter) => Ok(Watch::new(Job { begun, container, line, meter, limits, stdin, stdout, stderr })),
            Err(error) => Err(container.abandon(error)),
        }
    }
}

/// An engine that could not make the sandbox: the caller's fault, a refusal, or an internal error.
fn not_created(error: Error, program: Whose) -> Result<Stepped> {
    match error {
        Error::Usage(_) | Error::State { .. } | Error::Refused(_) => Err(error),
        Error::Config { .. } if program == Whose::Caller => Err(error),
        Error::Unclean { left, .. } => {
            let mut stepped = Stepped::fault("the sandbox could not be made, nor proved gone".to_owned());
            stepped.evidence.cleanup = Some(Cleanup { proved: false, left, checked: Vec::new() });
            Ok(stepped)
        }
        error => {
            // `create` has proved that nothing remains, or would have said so.
            let mut stepped = Stepped::fault(error.to_string());
            stepped.evidence.cleanup = Some(Cleanup { proved: true, ..Cleanup::default() });
            Ok(stepped)
        }
    }
}

/// What a step of the judge's own sandbox asks for; the last only where it has cores of its own.
const CONTROLLERS: [Controller; 4] = [Controller::Memory, Controller::Pids, Controller::Cpuacct, Controller::Cpuset];

fn with_cores(spec: &Spec) -> bool {
    let resources = spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
    resources.and_then(|resources| resources.cpu().as_ref()).is_some_and(|cpu| cpu.cpus().is_some())
}

impl<'a> StepPlan<'a> {
    /// A step of the judge's own sandbox.
    pub(super) fn ours(spec: Spec, stage: &Stage, limits: &Limits, stdin: Input) -> StepPlan<'a> {
        StepPlan {
            id: None,
            controllers: Some(if with_cores(&spec) { &CONTROLLERS } else { &CONTROLLERS[..3] }),
            spec,
            bundle: stage.directory().to_owned(),
            limits: limits.clone(),
            stdin,
            stdout: Output::Captured,
            artefact: None,
            program: Whose::Judge,
            raw: None,
        }
    }

    pub(super) fn of(self, program: Whose) -> Self {
        StepPlan { program, ..self }
    }
}

impl Stepped {
    fn from(outcome: Outcome, program: Whose, proved: bool) -> Result<Stepped> {
        let Outcome { mut evidence, exec_failed, stdout, stderr, artefact, artefact_missing, ended_ns, ended, .. } =
            outcome;
        if let Some((errno, words)) = exec_failed.filter(|(_, words)| words.starts_with("exec")) {
            match program {
                Whose::Caller if proved => return Err(Error::Usage(words)),
                Whose::Submission if !HOSTS_FAULT.contains(&errno) => {
                    evidence.fault = None;
                    evidence.payload.not_executable = Some(words);
                }
                _ => {}
            }
        }
        Ok(Stepped { evidence, stdout, stderr, artefact, artefact_missing, ended_ns, ended })
    }

    /// A step about which only this is known.
    pub(super) fn only(evidence: Evidence) -> Stepped {
        Stepped {
            evidence,
            stdout: Vec::new(),
            stderr: Vec::new(),
            artefact: None,
            artefact_missing: None,
            ended_ns: None,
            ended: None,
        }
    }

    pub(super) fn fault(message: String) -> Stepped {
        let fault = Some(Fault { kind: FaultKind::Setup, message });
        Stepped::only(Evidence { fault, ..Evidence::default() })
    }
}

/// Gives a pipe of ours to the payload's user, so that it can open `/dev/stdin` and `/dev/stdout` anew. Here, because a
/// user namespace of the sandbox's own does not map the pipe's owner.
fn give(stream: BorrowedFd<'_>, spec: &Spec) -> Result<()> {
    let Some(uid) = host_uid(spec) else { return Ok(()) };
    match attributes::fchown(stream, uid, u32::MAX) {
        // Without privileges it stays ours; the descriptor itself works.
        Ok(()) | Err(Errno::EPERM | Errno::EINVAL) => Ok(()),
        Err(errno) => Err(errno).at("chown", "a standard stream"),
    }
}

/// The payload's user as the host knows it, where the configuration tells.
fn host_uid(spec: &Spec) -> Option<u32> {
    let uid = spec.process().as_ref()?.user().uid();
    let linux = spec.linux().as_ref()?;
    let mut namespaces = linux.namespaces().iter().flatten();
    if !namespaces.any(|namespace| namespace.typ() == LinuxNamespaceType::User) {
        return Some(uid);
    }
    host_id(linux.uid_mappings().as_deref().unwrap_or_default(), uid)
}

/// `args[0]` and the PATH of a configuration.
fn program(spec: &Spec) -> (String, String) {
    let process = spec.process().as_ref();
    let argv0 = process.and_then(|process| process.args().as_ref()?.first().cloned()).unwrap_or_default();
    let env = process.and_then(|process| process.env().as_ref());
    let path = env.and_then(|env| env.iter().rev().find_map(|variable| variable.strip_prefix("PATH=")));
    (argv0, path.unwrap_or("/bin:/usr/bin").to_owned())
}
