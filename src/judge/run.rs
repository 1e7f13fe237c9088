//! One judged run from end to end: capabilities, ids, stage, engine, supervisor, proof, verdict; for a language with a
//! compile step, twice.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::sys::signalfd::SignalFd;
use oci_spec::runtime::Spec;
use serde_json::Value;

use super::capability::{self, Report, Wanted};
use super::capture::{Capture, Stdin};
use super::evidence::{Cleanup, Compile, Evidence, Fault, FaultKind};
use super::language::{Base, Language, Library};
use super::lease::{self, Lease};
use super::limits::{LimitSource, Limits};
use super::meter::Meter;
use super::output::{Judgement, SCHEMA_VERSION, Step};
use super::sandbox::{self, BOX, Setting, Share, Stage, WORK};
use super::supervisor::{Job, Outcome, supervise};
use super::verdict::{Status, Verdict, classify};
use crate::cgroup::{self, Controller, Layout};
use crate::container::create::{Created, JudgeOptions, Options, create};
use crate::container::delete::release;
use crate::container::namespaces::Namespaces;
use crate::container::state::Root;
use crate::error::{At, Error, Result};
use crate::init::channel::Channel;
use crate::init::reaper::{self, Reaper};
use crate::init::report::Line;
use crate::seccomp::judge::JudgeFilter;
use crate::spec::Bundle;

/// The largest source file.
const MAX_SOURCE: u64 = 64 << 20;

/// Drops what a judged run keeps outside its container, the stage and the leased ids: for `delete`, after its proof, where
/// the supervisor could not.
///
/// # Errors
/// What the file system answers.
pub fn discard(root: &Root, id: &str) -> Result<()> {
    let stage = Stage::place(root.path(), id);
    if !stage.exists() {
        return Ok(());
    }
    Stage::discard(&stage)?;
    lease::release_of(root.path(), id)
}

/// What is judged.
#[derive(Debug)]
pub enum Subject {
    /// Source text in a language.
    Source {
        /// Name or alias of the language.
        language: Box<Language>,
        /// The text.
        text: Vec<u8>,
    },
    /// A program of the host's toolchain directories.
    Program(Vec<String>),
    /// A bundle of the caller's.
    Bundle(Box<Bundle>),
}

/// A run to be judged.
#[derive(Debug)]
pub struct Request<'a> {
    /// Where containers' states are.
    pub root: &'a Root,
    /// The sandbox's id.
    pub id: String,
    /// What is judged.
    pub subject: Subject,
    /// Limits that the caller named.
    pub limits: LimitSource,
    /// `K=V`.
    pub env: Vec<String>,
    /// Host directories given to the sandbox.
    pub shares: Vec<Share>,
    /// Standard input.
    pub stdin: Input,
    /// Run without controls that the host cannot give.
    pub permissive: bool,
    /// Cgroups through systemd.
    pub systemd_cgroup: bool,
    /// Readable when the run is to be cancelled.
    pub cancel: Option<&'a SignalFd>,
}

/// Where standard input comes from.
#[derive(Debug)]
pub enum Input {
    /// Nothing.
    Empty,
    /// Bytes that are all there, copied into a sealed memfd.
    File(std::fs::File),
    /// A pipe, socket or terminal, passed on.
    Stream(OwnedFd),
}

/// A judged run: what is printed, and the program's own output.
#[derive(Debug)]
pub struct Judged {
    /// What is printed.
    pub judgement: Judgement,
    /// The first bytes of the program's stdout.
    pub stdout: Vec<u8>,
    /// The first bytes of the program's stderr.
    pub stderr: Vec<u8>,
}

/// Reads a source file.
///
/// # Errors
/// Where it cannot be read, is no regular file, or is too long.
pub fn read_source(path: &Path) -> Result<Vec<u8>> {
    let file = std::fs::File::open(path).at("open", path.display())?;
    if !file.metadata().at("stat", path.display())?.is_file() {
        return Err(Error::Usage(format!("`{}` is not a regular file", path.display())));
    }
    let mut text = Vec::new();
    file.take(MAX_SOURCE + 1).read_to_end(&mut text).at("read", path.display())?;
    if text.len() as u64 > MAX_SOURCE {
        return Err(Error::Usage(format!("`{}` is longer than 64 MiB", path.display())));
    }
    Ok(text)
}

/// What the host can do for this request.
pub fn report(request_namespaces: Option<i32>, layout: &Layout) -> Report {
    let wanted = match request_namespaces {
        Some(namespaces) => Wanted { namespaces, seccomp: true },
        None => Wanted::everything(),
    };
    capability::probe(layout, wanted)
}

/// Judges.
///
/// # Errors
/// Where nothing was run: [`Error::Usage`] and [`Error::Config`] for invalid input, [`Error::Refused`] for a control that
/// is missing. Whatever fails later is a verdict.
pub fn judge(request: Request<'_>) -> Result<Judged> {
    let layout = Layout::probe()?;
    let own_namespaces = match &request.subject {
        Subject::Bundle(bundle) => Some(Namespaces::plan(&bundle.spec).new),
        _ => None,
    };
    if own_namespaces.is_some_and(|flags| flags & libc::CLONE_NEWPID == 0) {
        return Err(Error::config("$.linux.namespaces", "has no new pid namespace, which judging needs"));
    }
    let report = report(own_namespaces, &layout);
    if !report.missing.is_empty() && !request.permissive {
        let missing: Vec<String> = report
            .controls
            .iter()
            .filter(|control| control.missing())
            .map(|control| format!("{} ({}: {})", control.name, control.purpose, control.by))
            .collect();
        return Err(Error::Refused(format!(
            "this host cannot give {}; see --dry-run and --permissive",
            missing.join(", ")
        )));
    }
    crate::spec::validate_id(&request.id)?;
    for share in &request.shares {
        std::fs::metadata(&share.outside).at("stat", share.outside.display())?;
    }
    let mut run = Run::new(request, layout, report)?;
    let judged = run.judge();
    let released = run.release();
    let judged = judged?;
    released?;
    Ok(judged)
}

/// A run under way: what outlives a step and is released at the end.
struct Run<'a> {
    root: &'a Root,
    id: String,
    subject: Option<Subject>,
    given: LimitSource,
    env: Vec<String>,
    shares: Vec<Share>,
    stdin: Option<Input>,
    systemd_cgroup: bool,
    cancel: Option<&'a SignalFd>,
    layout: Layout,
    report: Report,
    base: Base,
    filter: Option<JudgeFilter>,
    lease: Option<Lease>,
}

/// What one step is run with.
struct StepPlan<'a> {
    spec: Spec,
    bundle: PathBuf,
    limits: Limits,
    stdin: Input,
    artefact: Option<&'a str>,
    /// Whether the caller chose the program, so that a missing one is the caller's mistake.
    chosen: bool,
    controllers: Option<&'a [Controller]>,
}

/// What one step came to.
struct Stepped {
    evidence: Evidence,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    artefact: Option<OwnedFd>,
    artefact_missing: Option<String>,
}

impl<'a> Run<'a> {
    fn new(request: Request<'a>, layout: Layout, report: Report) -> Result<Run<'a>> {
        let degraded = |name: &str| report.missing.contains(&name);
        let filter = if degraded("seccomp") { None } else { Some(JudgeFilter::new()?) };
        let base = Library::find().base()?;
        Ok(Run {
            root: request.root,
            id: request.id,
            subject: Some(request.subject),
            given: request.limits,
            env: request.env,
            shares: request.shares,
            stdin: Some(request.stdin),
            systemd_cgroup: request.systemd_cgroup,
            cancel: request.cancel,
            layout,
            report,
            base,
            filter,
            lease: None,
        })
    }

    fn judge(&mut self) -> Result<Judged> {
        match self.subject.take() {
            Some(Subject::Source { language, text }) => self.source(&language, &text),
            Some(Subject::Program(args)) => {
                let limits = self.given.resolve()?;
                let template = self.base.config.clone();
                self.lease()?;
                let stage = self.stage(&[])?;
                let spec = self.configure(&stage, &template, &limits, Some(&args), &[]);
                let stdin = self.stdin.take().unwrap_or(Input::Empty);
                let stepped = spec.and_then(|spec| self.step(StepPlan::ours(spec, &stage, &limits, stdin).chosen()));
                let stepped = self.unstage(stage, stepped)?;
                Ok(self.finish(None, stepped, limits, None))
            }
            Some(Subject::Bundle(bundle)) => self.bundle(*bundle),
            None => Err(Error::Other("the run was already judged".to_owned())),
        }
    }

    fn source(&mut self, language: &Language, text: &[u8]) -> Result<Judged> {
        let limits = self.given.over(&language.run.limits).resolve()?;
        let mut compiled = None;
        let mut artefact = None;
        self.lease()?;
        if let (Some(step), Some(name)) = (&language.compile, &language.artefact) {
            // The compiler has limits of its own: what the caller names is for the program.
            let limits = step.limits.resolve()?;
            let stage = self.stage(&language.toolchain.paths)?;
            let spec = stage
                .put_into_box(&language.source, text, false)
                .and_then(|()| self.configure(&stage, &step.config, &limits, None, &language.toolchain.paths));
            let place = format!("{WORK}/{name}");
            let stepped = spec.and_then(|spec| {
                let plan = StepPlan::ours(spec, &stage, &limits, Input::Empty);
                self.step(StepPlan { artefact: Some(&place), ..plan })
            });
            let mut stepped = self.unstage(stage, stepped)?;
            let verdict = classify(&stepped.evidence, &limits);
            artefact = stepped.artefact.take();
            let compile = Compile { verdict: Box::new(verdict.clone()), artefact: Some(artefact.is_some()) };
            let failed = verdict.status != Status::Ok || artefact.is_none();
            if let Some(missing) = &stepped.artefact_missing {
                stepped.stderr.extend_from_slice(format!("rustbox: {missing}\n").as_bytes());
            }
            let cleanup = stepped.evidence.cleanup.clone();
            let step = self.step_output(&verdict, stepped, limits);
            compiled = Some((compile.clone(), step));
            if failed {
                let evidence = Evidence { compile: Some(compile), cleanup, ..Evidence::default() };
                let stepped = Stepped {
                    evidence,
                    stdout: Vec::new(),
                    stderr: Vec::new(),
                    artefact: None,
                    artefact_missing: None,
                };
                return Ok(self.finish(
                    Some(language),
                    stepped,
                    self.given.over(&language.run.limits).resolve()?,
                    compiled,
                ));
            }
        }
        let stage = self.stage(&language.toolchain.paths)?;
        let put = match (&language.artefact, artefact) {
            (Some(name), Some(file)) => {
                read_artefact(file).and_then(|program| stage.put_into_box(name, &program, true))
            }
            _ => stage.put_into_box(&language.source, text, false),
        };
        let spec =
            put.and_then(|()| self.configure(&stage, &language.run.config, &limits, None, &language.toolchain.paths));
        let stdin = self.stdin.take().unwrap_or(Input::Empty);
        let stepped = spec.and_then(|spec| self.step(StepPlan::ours(spec, &stage, &limits, stdin)));
        let stepped = self.unstage(stage, stepped)?;
        Ok(self.finish(Some(language), stepped, limits, compiled))
    }

    fn bundle(&mut self, bundle: Bundle) -> Result<Judged> {
        let annotations = bundle.spec.annotations().clone().unwrap_or_default();
        let limits = self.given.over(&LimitSource::from_annotations(&annotations)?).resolve()?;
        let mut config = serde_json::to_value(&bundle.spec).map_err(|error| Error::config("$", error.to_string()))?;
        sandbox::extend(&mut config, &self.env, &self.shares, None);
        let spec = self.restricted(config, &limits)?;
        let stdin = self.stdin.take().unwrap_or(Input::Empty);
        let stepped = self.step(StepPlan {
            spec,
            bundle: bundle.dir,
            limits: limits.clone(),
            stdin,
            artefact: None,
            chosen: true,
            controllers: None,
        })?;
        Ok(self.finish(None, stepped, limits, None))
    }

    /// Leases host ids.
    fn lease(&mut self) -> Result<()> {
        let root = self.root.path().to_owned();
        let alive = |owner: &str| root.join(owner).exists() || Stage::place(&root, owner).exists();
        self.lease = Some(Lease::take(self.root.path(), &self.id, alive)?);
        Ok(())
    }

    fn stage(&self, extra: &[PathBuf]) -> Result<Stage> {
        let paths: Vec<PathBuf> = self.base.paths.iter().chain(extra).cloned().collect();
        Stage::make(self.root.path(), &self.id, &paths, &self.shares)
    }

    fn configure(
        &self,
        stage: &Stage,
        template: &Value,
        limits: &Limits,
        args: Option<&[String]>,
        extra: &[PathBuf],
    ) -> Result<Spec> {
        let paths: Vec<PathBuf> = self.base.paths.iter().chain(extra).cloned().collect();
        sandbox::configure(
            template,
            &Setting {
                limits,
                ids: (self.lease.as_ref().map_or(lease::FIRST, Lease::base), lease::SIZE),
                user_namespace: !self.degraded("user_namespace"),
                paths: &paths,
                inodes: self.base.inodes,
                env: &self.env,
                shares: &self.shares,
                args,
                rootfs: stage.rootfs(),
                box_mount: stage.box_mount(),
                resources: self.resources(),
            },
        )
    }

    fn restricted(&self, mut config: Value, limits: &Limits) -> Result<Spec> {
        sandbox::restrict(&mut config, limits, self.resources());
        serde_json::from_value(config).map_err(|error| Error::config("$", error.to_string()))
    }

    fn resources(&self) -> sandbox::Resources {
        sandbox::Resources {
            memory: !self.degraded("memory"),
            swap: capability::swap_limit(&self.layout),
            pids: !self.degraded("pids"),
        }
    }

    fn degraded(&self, control: &str) -> bool {
        self.report.missing.contains(&control)
    }

    /// Ends with the stage, whatever the step came to. What cannot be removed belongs into the proof.
    fn unstage(&self, stage: Stage, stepped: Result<Stepped>) -> Result<Stepped> {
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

    /// Runs one sandbox and supervises it.
    fn step(&mut self, plan: StepPlan<'_>) -> Result<Stepped> {
        let StepPlan { spec, bundle, limits, stdin, artefact, chosen, controllers } = plan;
        let cgroup = cgroup::plan(
            &cgroup::Request {
                cgroups_path: spec.linux().as_ref().and_then(|linux| linux.cgroups_path().as_deref()),
                id: &self.id,
                systemd: self.systemd_cgroup,
                controllers,
                payload_leaf: true,
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
        let created = match create(self.root, &self.id, &bundle, options) {
            Ok(created) => created,
            Err(error) => return self.not_created(error, chosen),
        };
        // From here on only the payload holds its ends.
        drop((payload_stdin, payload_stdout, payload_stderr, init_line));
        let supervised = Meter::open(&created.record.cgroup).and_then(|meter| {
            created.start()?;
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

    fn controls(&self) -> BTreeMap<&'static str, &'static str> {
        let state = |control: &capability::Control| match (control.configured, control.available) {
            (true, true) => "enforced",
            (true, false) => "degraded",
            (false, _) => "off",
        };
        self.report.controls.iter().map(|control| (control.name, state(control))).collect()
    }

    fn step_output(&self, verdict: &Verdict, stepped: Stepped, limits: Limits) -> Step {
        Step::new(verdict, stepped.evidence, limits, self.controls(), &stepped.stdout, &stepped.stderr)
    }

    fn finish(
        &self,
        language: Option<&Language>,
        mut stepped: Stepped,
        limits: Limits,
        compiled: Option<(Compile, Step)>,
    ) -> Judged {
        let (compile, compile_step) = compiled.unzip();
        stepped.evidence.compile = compile;
        let verdict = classify(&stepped.evidence, &limits);
        let run = Step::new(&verdict, stepped.evidence, limits, self.controls(), &stepped.stdout, &stepped.stderr);
        Judged {
            judgement: Judgement {
                schema_version: SCHEMA_VERSION,
                id: self.id.clone(),
                language: language.map(|language| language.name.clone()),
                run,
                compile: compile_step,
                provisional: verdict.provisional,
                detail: verdict.detail,
            },
            stdout: stepped.stdout,
            stderr: stepped.stderr,
        }
    }

    fn release(self) -> Result<()> {
        self.lease.map_or(Ok(()), Lease::release)
    }
}

impl<'a> StepPlan<'a> {
    /// A step of the judge's own sandbox.
    fn ours(spec: Spec, stage: &Stage, limits: &Limits, stdin: Input) -> StepPlan<'a> {
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

    fn chosen(self) -> Self {
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

/// `args[0]` and the PATH of a configuration.
fn program(spec: &Spec) -> (String, String) {
    let process = spec.process().as_ref();
    let argv0 = process.and_then(|process| process.args().as_ref()?.first().cloned()).unwrap_or_default();
    let env = process.and_then(|process| process.env().as_ref());
    let path = env.and_then(|env| env.iter().rev().find_map(|variable| variable.strip_prefix("PATH=")));
    (argv0, path.unwrap_or("/bin:/usr/bin").to_owned())
}

fn read_artefact(file: OwnedFd) -> Result<Vec<u8>> {
    let mut program = Vec::new();
    std::fs::File::from(file).read_to_end(&mut program).at("read", format!("{BOX} artefact"))?;
    Ok(program)
}

/// A sandbox id that nobody has: for a run whose caller names none.
pub fn fresh_id() -> String {
    let now = crate::sys::wait::monotonic_ns();
    format!("judge-{}-{now:x}", std::process::id())
}
