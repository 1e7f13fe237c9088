//! One step of a judged run: one sandbox from its plan to the proof that it is gone.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Instant;

use oci_spec::runtime::{LinuxNamespaceType, Spec};

use super::{Input, Run};
use crate::cgroup::{self, Controller};
use crate::container::create::{Created, create};
use crate::container::delete::release;
use crate::container::namespaces::Namespaces;
use crate::container::options::{JudgeOptions, Options};
use crate::error::{At, Error, Result};
use crate::init::channel::Channel;
use crate::init::reaper::{self, Reaper};
use crate::init::report::Line;
use crate::judge::capture::{Capture, Stdin};
use crate::judge::evidence::{Cleanup, Evidence, Fault, FaultKind};
use crate::judge::limits::Limits;
use crate::judge::meter::Meter;
use crate::judge::sandbox;
use crate::judge::stage::Stage;
use crate::judge::supervisor::{Job, Outcome, supervise};
use crate::seccomp::judge::JudgeFilter;
use crate::spec::Bundle;
use crate::sys::{Errno, attributes};
use crate::worker::metrics;

/// What one step is run with.
pub(super) struct StepPlan<'a> {
    pub(super) spec: Spec,
    pub(super) bundle: PathBuf,
    pub(super) limits: Limits,
    pub(super) stdin: Input,
    pub(super) artefact: Option<&'a str>,
    /// Whether the caller chose the program, so that a missing one is the caller's mistake.
    pub(super) chosen: bool,
    pub(super) controllers: Option<&'a [Controller]>,
}

/// What one step came to.
pub(super) struct Stepped {
    pub(super) evidence: Evidence,
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: Vec<u8>,
    pub(super) artefact: Option<OwnedFd>,
    pub(super) artefact_missing: Option<String>,
}

impl Run<'_> {
    /// Ends with the stage, whatever the step came to. What cannot be removed belongs into the proof.
    pub(super) fn unstage(&mut self, stage: Stage, stepped: Result<Stepped>) -> Result<Stepped> {
        let place = stage.directory().display().to_string();
        let removed = stage.remove();
        let mut stepped = stepped?;
        let cleanup = stepped.evidence.cleanup.get_or_insert_with(Cleanup::default);
        self.unproved |= !cleanup.proved;
        match removed {
            Ok(()) => cleanup.checked.push(format!("stage `{place}`")),
            Err(error) => {
                cleanup.proved = false;
                cleanup.left.push(error.to_string());
            }
        }
        Ok(stepped)
    }

    /// Runs one sandbox and supervises it.
    pub(super) fn step(&mut self, plan: StepPlan<'_>) -> Result<Stepped> {
        let StepPlan { spec, bundle, limits, stdin, artefact, chosen, controllers } = plan;
        let cgroup = cgroup::plan(
            &cgroup::Request {
                cgroups_path: spec.linux().as_ref().and_then(|linux| linux.cgroups_path().as_deref()),
                id: &self.id,
                systemd: self.systemd_cgroup,
                controllers,
                payload_leaf: true,
                ..cgroup::Request::default()
            },
            &self.layout,
        )?;
        let (stdin, payload_stdin) = match stdin {
            Input::Empty => Stdin::empty()?,
            Input::File(file) => Stdin::from_reader(file)?,
            Input::Stream(source) => Stdin::passed(source)?,
        };
        let (stdout, payload_stdout) = Capture::pipe(limits.output_bytes)?;
        let (stderr, payload_stderr) = Capture::pipe(limits.output_bytes)?;
        for stream in [&payload_stdin, &payload_stdout, &payload_stderr] {
            give(stream.as_fd(), &spec)?;
        }
        let (line, init_line) = Line::pair()?;
        let writable = sandbox::writable_tmpfs(&spec);
        let writable: Vec<CString> =
            writable.iter().filter_map(|path| CString::new(path.as_os_str().as_bytes()).ok()).collect();
        let artefact_path = artefact.and_then(|path| CString::new(path).ok());
        let reaper = Reaper {
            line: &init_line,
            cgroup_namespace: Namespaces::plan(&spec).new & libc::CLONE_NEWCGROUP != 0,
            writable: &writable,
            file_size: limits.file_size_bytes,
            artefact: artefact_path.as_deref(),
        };
        let (argv0, search) = program(&spec);
        let filter = self.filter.as_ref();
        let announce = |_: &Channel| {
            let image = reaper::image_bytes(argv0.as_bytes(), search.as_bytes());
            reaper::announce(&init_line, image, limits.memory_bytes, || filter.map(JudgeFilter::load).transpose())
        };
        let options = Options {
            ungated: true,
            judge: Some(JudgeOptions {
                stdio: [payload_stdin.as_fd(), payload_stdout.as_fd(), payload_stderr.as_fd()],
                reaper: &reaper,
                seccomp: &announce,
                cgroup,
            }),
            ..Options::default()
        };
        let bundle = Bundle { dir: bundle, spec: spec.clone() };
        let begun = Instant::now();
        let created = match create(self.root, &self.id, &bundle, options) {
            Ok(created) => created,
            Err(error) => return self.not_created(error, chosen),
        };
        // From here on only the payload holds its ends.
        drop((payload_stdin, payload_stdout, payload_stderr, init_line));
        let supervised = Meter::open(&created.record.cgroup).and_then(|meter| {
            created.start()?;
            metrics::started(begun.elapsed());
            supervise(Job {
                line,
                init: created.pidfd.as_fd(),
                meter: &meter,
                limits: &limits,
                stdin,
                stdout,
                stderr,
                cancel: self.cancel.map(AsFd::as_fd),
            })
        });
        let Created { directory, record, pidfd, .. } = created;
        let proof = release(self.root, directory, &record, Some(pidfd)).proof;
        let cleanup = Cleanup {
            proved: proof.clean,
            checked: vec![
                format!("processes, by the {}", proof.processes_by),
                format!("{} cgroups", proof.cgroups_gone),
                "mounts".to_owned(),
                "state directory".to_owned(),
            ],
            left: proof.left,
        };
        let mut stepped = match supervised {
            Ok(outcome) => Stepped::from(outcome, chosen)?,
            Err(error) => Stepped::fault(error.to_string()),
        };
        stepped.evidence.cleanup = Some(cleanup);
        stepped.evidence.control_degraded = self.report.missing.iter().map(|name| (*name).to_owned()).collect();
        Ok(stepped)
    }

    /// An engine that could not make the sandbox: the caller's fault, a refusal, or an internal error.
    fn not_created(&self, error: Error, chosen: bool) -> Result<Stepped> {
        match error {
            Error::Usage(_) | Error::State { .. } | Error::Refused(_) => Err(error),
            Error::Config { .. } if chosen => Err(error),
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
}

impl<'a> StepPlan<'a> {
    /// A step of the judge's own sandbox.
    pub(super) fn ours(spec: Spec, stage: &Stage, limits: &Limits, stdin: Input) -> StepPlan<'a> {
        StepPlan {
            spec,
            bundle: stage.directory().to_owned(),
            limits: limits.clone(),
            stdin,
            artefact: None,
            chosen: false,
            controllers: Some(&[Controller::Memory, Controller::Pids, Controller::Cpuacct]),
        }
    }

    pub(super) fn chosen(self) -> Self {
        StepPlan { chosen: true, ..self }
    }
}

impl Stepped {
    fn from(outcome: Outcome, chosen: bool) -> Result<Stepped> {
        if let Some((_, words)) = outcome.exec_failed.filter(|(_, words)| chosen && words.starts_with("exec")) {
            return Err(Error::Usage(words));
        }
        let Outcome { evidence, stdout, stderr, artefact, artefact_missing, .. } = outcome;
        Ok(Stepped { evidence, stdout, stderr, artefact, artefact_missing })
    }

    fn fault(message: String) -> Stepped {
        let fault = Some(Fault { kind: FaultKind::Setup, message });
        Stepped {
            evidence: Evidence { fault, ..Evidence::default() },
            stdout: Vec::new(),
            stderr: Vec::new(),
            artefact: None,
            artefact_missing: None,
        }
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
    linux.uid_mappings().iter().flatten().find_map(|mapping| {
        let within = uid.checked_sub(mapping.container_id()).filter(|within| *within < mapping.size())?;
        mapping.host_id().checked_add(within)
    })
}

/// `args[0]` and the PATH of a configuration.
fn program(spec: &Spec) -> (String, String) {
    let process = spec.process().as_ref();
    let argv0 = process.and_then(|process| process.args().as_ref()?.first().cloned()).unwrap_or_default();
    let env = process.and_then(|process| process.env().as_ref());
    let path = env.and_then(|env| env.iter().rev().find_map(|variable| variable.strip_prefix("PATH=")));
    (argv0, path.unwrap_or("/bin:/usr/bin").to_owned())
}
