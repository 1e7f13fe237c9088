//! One judged run from end to end: capabilities, ids, stage, engine, supervisor, proof, verdict; for a language with a
//! compile step, twice.

mod request;
mod step;

use std::io::Read;
use std::os::fd::OwnedFd;

use nix::sys::signalfd::SignalFd;
use oci_spec::runtime::Spec;
use serde_json::Value;

use super::capability::{self, Report, Wanted};
use super::evidence::{Compile, Evidence};
use super::language::{Base, Language, Library};
use super::lease::{self, Lease};
use super::limits::{LimitSource, Limits};
use super::output::{Compiled, Controls, Judgement, SCHEMA_VERSION, Step};
use super::sandbox::{self, BOX, Place, Setting, Share, WORK};
use super::stage::Stage;
use super::toolchain;
use super::verdict::{Status, Verdict, classify};
use crate::cgroup::Layout;
use crate::container::namespaces::Namespaces;
use crate::container::state::Root;
use crate::error::{At, Error, Result};
use crate::seccomp::judge::JudgeFilter;
use crate::spec::Bundle;
use crate::worker::metrics;
pub use request::{Input, Judged, Request, Subject, read_source};
use step::{StepPlan, Stepped};

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
    judge_and(request, metrics::judged)
}

/// Judges, and counts nothing: for canaries, which are nobody's submissions.
///
/// # Errors
/// As [`judge`].
pub fn rehearse(request: Request<'_>) -> Result<Judged> {
    judge_and(request, |_| ())
}

fn judge_and(request: Request<'_>, count: fn(&Judgement)) -> Result<Judged> {
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
    count(&judged.judgement);
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
    /// Something of a step's sandbox may be left.
    unproved: bool,
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
            unproved: false,
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
        let places = toolchain::find(language)?.places;
        let mut compiled = None;
        let mut artefact = None;
        self.lease()?;
        if let (Some(step), Some(name)) = (&language.compile, &language.artefact) {
            // The compiler has limits of its own: what the caller names is for the program.
            let limits = step.limits.resolve()?;
            let stage = self.stage(&places)?;
            let mut sources = std::iter::once((language.source.as_str(), text))
                .chain(language.files.iter().map(|(name, content)| (name.as_str(), content.as_bytes())));
            let spec = sources
                .try_for_each(|(name, content)| stage.put_into_box(name, content, false))
                .and_then(|()| self.configure(&stage, &step.config, &limits, None, &places));
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
        let stage = self.stage(&places)?;
        let put = match (&language.artefact, artefact) {
            (Some(name), Some(file)) => {
                read_artefact(file).and_then(|program| stage.put_into_box(name, &program, true))
            }
            _ => stage.put_into_box(&language.source, text, false),
        };
        let spec = put.and_then(|()| self.configure(&stage, &language.run.config, &limits, None, &places));
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
        // Who cannot be asked counts as alive.
        let alive = |owner: &lease::Owner| {
            owner.lives().unwrap_or(true) || root.join(&owner.id).exists() || Stage::place(&root, &owner.id).exists()
        };
        self.lease = Some(Lease::take(self.root.path(), &self.id, alive)?);
        Ok(())
    }

    fn stage(&self, extra: &[Place]) -> Result<Stage> {
        Stage::make(self.root.path(), &self.id, &self.places(extra), &self.shares)
    }

    fn places(&self, extra: &[Place]) -> Vec<Place> {
        self.base.paths.iter().cloned().map(Place::same).chain(extra.iter().cloned()).collect()
    }

    fn configure(
        &self,
        stage: &Stage,
        template: &Value,
        limits: &Limits,
        args: Option<&[String]>,
        extra: &[Place],
    ) -> Result<Spec> {
        let places = self.places(extra);
        sandbox::configure(
            template,
            &Setting {
                limits,
                ids: (self.lease.as_ref().map_or(lease::FIRST, Lease::base), lease::SIZE),
                user_namespace: !self.degraded("user_namespace"),
                places: &places,
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

    fn controls(&self) -> Controls {
        let state = |control: &capability::Control| match (control.configured, control.available) {
            (true, true) => "enforced",
            (true, false) => "degraded",
            (false, _) => "off",
        };
        self.report.controls.iter().map(|control| (control.name.into(), state(control).into())).collect()
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
                compile: compile_step.map(|step| Compiled { step, cached: false }),
                provisional: verdict.provisional,
                detail: verdict.detail,
            },
            stdout: stepped.stdout,
            stderr: stepped.stderr,
        }
    }

    fn release(self) -> Result<()> {
        if self.unproved {
            // Whoever had the ids next could meet what is left; recovery gives them back once that is gone.
            return Ok(());
        }
        self.lease.map_or(Ok(()), Lease::release)
    }
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
