//! One judged run from end to end: capabilities, ids, stage, engine, supervisor, proof, verdict; for a language with a
//! compile step, twice.
//!
//! A [`Run`] is a state machine: it says which sandboxes it wants next, is told what has come of them, and in the end has its
//! verdict. Whoever drives it ([`Jobs`]) drives any number of them. What all runs of a process have in common is found out
//! once, by [`Judge::new`].

mod interact;
mod jobs;
mod prepared;
mod request;
mod step;
mod subject;

use std::cell::RefCell;
use std::collections::HashMap;
use std::os::fd::BorrowedFd;
use std::rc::Rc;

use oci_spec::runtime::Spec;

use super::cache::Cache;
use super::capability::{self, Accounting, Report, Wanted};
use super::evidence::Cleanup;
use super::language::{Base, Language, Library};
use super::lease::{self, Lease};
use super::limits::{LimitSource, Limits};
use super::output::{Controls, Judgement, SCHEMA_VERSION, Step};
use super::sandbox::{self, Place, Setting, Share};
use super::stage::Stage;
use super::toolchain::{self, Found};
use super::verdict::{Verdict, classify};
use crate::cgroup::Layout;
use crate::container::namespaces::Namespaces;
use crate::container::root::Root;
use crate::error::{At, Error, Result};
use crate::seccomp::judge::JudgeFilter;
use crate::worker::metrics;
pub use jobs::{Event, JobKey, Jobs, to_the_end};
pub use prepared::{BoxFile, Content, Prepared};
pub use request::{Input, Judged, Ready, Request, Subject, read_source};
pub use step::{Begun, Output, Stepped};

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

/// What all judged runs of a process have in common: what the host can do, the judge's sandbox, its filter.
#[derive(Debug)]
pub struct Judge<'a> {
    root: &'a Root,
    systemd_cgroup: bool,
    layout: Layout,
    /// For the judge's own sandbox.
    report: Rc<Report>,
    base: Base,
    filter: Option<JudgeFilter>,
    /// Whether the runs are counted; a canary is nobody's submission.
    counted: bool,
    /// Where the toolchain of each language is that was asked for: finding it may run a program.
    toolchains: RefCell<HashMap<String, Rc<Found>>>,
    cache: Option<Cache>,
}

impl<'a> Judge<'a> {
    /// What a limit of memory can be laid on.
    pub fn accounting(&self) -> Accounting {
        capability::accounting(&self.layout)
    }

    /// Finds it out.
    ///
    /// # Errors
    /// Where the host cannot be looked at, or the language bundles are damaged.
    pub fn new(root: &'a Root, systemd_cgroup: bool) -> Result<Judge<'a>> {
        let layout = Layout::probe()?;
        let report = report(None, &layout);
        let filter = if report.missing.contains(&"seccomp") { None } else { Some(JudgeFilter::new()?) };
        let base = Library::find().base()?;
        Ok(Judge {
            root,
            systemd_cgroup,
            layout,
            report: Rc::new(report),
            base,
            filter,
            counted: true,
            toolchains: RefCell::default(),
            cache: None,
        })
    }

    /// The same, and counts no run: for canaries, which are nobody's submissions.
    #[must_use]
    pub fn rehearsing(self) -> Judge<'a> {
        Judge { counted: false, ..self }
    }

    /// With a cache of compiled programs in this directory.
    #[must_use]
    pub fn with_cache(self, directory: std::path::PathBuf) -> Judge<'a> {
        Judge { cache: Some(Cache::new(directory, self.base.cache)), ..self }
    }

    /// The judge's own sandbox.
    pub fn base(&self) -> &Base {
        &self.base
    }

    /// Where a language's toolchain is.
    fn toolchain(&self, language: &Language) -> Result<Rc<Found>> {
        if let Some(found) = self.toolchains.borrow().get(&language.name) {
            return Ok(Rc::clone(found));
        }
        let found = Rc::new(toolchain::find(language)?);
        self.toolchains.borrow_mut().insert(language.name.clone(), Rc::clone(&found));
        Ok(found)
    }

    /// What the host can do for a subject.
    fn report_for(&self, subject: &Subject) -> Result<Rc<Report>> {
        let Subject::Bundle(bundle) = subject else { return Ok(Rc::clone(&self.report)) };
        let namespaces = Namespaces::plan(&bundle.spec).new;
        if namespaces & libc::CLONE_NEWPID == 0 {
            return Err(Error::config("$.linux.namespaces", "has no new pid namespace, which judging needs"));
        }
        Ok(Rc::new(report(Some(namespaces), &self.layout)))
    }

    /// Judges one run, to its end. `cancel` is readable when it is to be cancelled.
    ///
    /// # Errors
    /// Where nothing was run: [`Error::Usage`] and [`Error::Config`] for invalid input, [`Error::Refused`] for a control
    /// that is missing. Whatever fails later is a verdict.
    pub fn judge(&self, request: Request, cancel: Option<BorrowedFd<'_>>) -> Result<Judged> {
        to_the_end(Run::new(self, request)?, cancel)
    }
}

/// What a run wants next.
#[derive(Debug)]
pub enum Next<'a> {
    /// That these are supervised, side by side.
    Steps(Vec<Begun<'a>>),
    /// Nothing: it is judged.
    Done(Box<Judged>),
}

/// A run under way: what outlives a step and is released at the end.
#[derive(Debug)]
pub struct Run<'a> {
    judge: &'a Judge<'a>,
    id: String,
    state: subject::State,
    given: LimitSource,
    env: Vec<String>,
    shares: Vec<Share>,
    stdin: Option<Input>,
    cpus: Option<String>,
    /// Whether a program that was compiled earlier will do.
    cached: bool,
    report: Rc<Report>,
    lease: Option<Lease>,
    /// It is part of many, and whoever asked for those counts it.
    uncounted: bool,
    /// The interactor's.
    partner: Option<Lease>,
    /// Something of a step's sandbox may be left.
    unproved: bool,
}

impl<'a> Run<'a> {
    /// A run that can begin.
    ///
    /// # Errors
    /// As [`Judge::judge`].
    pub fn new(judge: &'a Judge<'a>, request: Request) -> Result<Run<'a>> {
        let report = judge.report_for(&request.subject)?;
        if request.permissive && report.missing.contains(&"privilege") {
            return Err(Error::Refused(
                "judging needs root, with `--permissive` too: without a cgroup of its own a program's CPU time and memory are unknown"
                    .to_owned(),
            ));
        }
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
        let part = |subject: &Subject| {
            matches!(subject, Subject::Compile { .. } | Subject::Prepared(_) | Subject::Interactive { .. })
        };
        let uncounted = part(&request.subject);
        Ok(Run {
            judge,
            id: request.id,
            uncounted,
            state: subject::State::Fresh(request.subject),
            given: request.limits,
            env: request.env,
            shares: request.shares,
            stdin: Some(request.stdin),
            cpus: request.cpus,
            cached: !request.no_cache,
            report,
            lease: None,
            partner: None,
            unproved: false,
        })
    }

    /// What it wants first.
    ///
    /// # Errors
    /// As [`Judge::judge`].
    pub fn begin(&mut self) -> Result<Next<'a>> {
        self.go_on(Vec::new())
    }

    /// What it wants next, told what has come of what it wanted, in its order.
    ///
    /// # Errors
    /// As [`Judge::judge`].
    pub fn advance(&mut self, stepped: Result<Vec<Stepped>>) -> Result<Next<'a>> {
        let stepped = stepped?;
        let proved = |cleanup: &Option<Cleanup>| cleanup.as_ref().is_none_or(|cleanup| cleanup.proved);
        self.unproved |= stepped.iter().any(|stepped| !proved(&stepped.evidence.cleanup));
        self.go_on(stepped)
    }

    /// Leases host ids.
    fn lease(&mut self) -> Result<()> {
        if self.lease.is_none() {
            self.lease = Some(self.take_lease(&self.id)?);
        }
        Ok(())
    }

    fn take_lease(&self, id: &str) -> Result<Lease> {
        let root = self.judge.root.path().to_owned();
        // Who cannot be asked counts as alive.
        let alive = |owner: &lease::Owner| {
            owner.lives().unwrap_or(true) || root.join(&owner.id).exists() || Stage::place(&root, &owner.id).exists()
        };
        Lease::take(self.judge.root.path(), id, alive)
    }

    fn stage(&self, extra: &[Place]) -> Result<Stage> {
        Stage::make(self.judge.root.path(), &self.id, &self.places(extra), &self.shares)
    }

    fn places(&self, extra: &[Place]) -> Vec<Place> {
        self.judge.base.paths.iter().cloned().map(Place::same).chain(extra.iter().cloned()).collect()
    }

    fn configure(
        &self,
        stage: &Stage,
        template: &Spec,
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
                inodes: self.judge.base.inodes,
                env: &self.env,
                shares: &self.shares,
                args,
                cpus: self.cpus.as_deref(),
                rootfs: stage.rootfs(),
                box_mount: stage.box_mount(),
                resources: self.resources(),
            },
        )
    }

    fn restricted(&self, mut spec: Spec, limits: &Limits) -> Result<Spec> {
        if let Some(cpus) = &self.cpus {
            sandbox::confine(&mut spec, cpus)?;
        }
        sandbox::restrict(&mut spec, limits, self.resources())?;
        Ok(spec)
    }

    fn resources(&self) -> sandbox::Resources {
        sandbox::Resources {
            memory: (!self.degraded("memory")).then(|| self.judge.accounting()),
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
        language: Option<String>,
        mut stepped: Stepped,
        limits: Limits,
        compiled: Option<subject::CompileStep>,
    ) -> Judged {
        let (compile, compile_step) = compiled.map(|compiled| *compiled).unzip();
        stepped.evidence.compile = compile;
        let verdict = classify(&stepped.evidence, &limits);
        let run = Step::new(&verdict, stepped.evidence, limits, self.controls(), &stepped.stdout, &stepped.stderr);
        Judged {
            judgement: Judgement {
                schema_version: SCHEMA_VERSION,
                id: self.id.clone(),
                language,
                run,
                compile: compile_step,
                provisional: verdict.provisional,
                detail: verdict.detail,
            },
            stdout: stepped.stdout,
            stderr: stepped.stderr,
            prepared: None,
            ended: stepped.ended,
        }
    }

    /// Counts its verdict, where that is of a submission.
    fn count(&self, judged: &Judged) {
        if self.judge.counted && !self.uncounted {
            metrics::judged(&judged.judgement);
        }
    }

    /// Gives back what it holds, when it has ended.
    ///
    /// # Errors
    /// What the file system answers.
    pub fn release(self) -> Result<()> {
        if self.unproved {
            // Whoever had the ids next could meet what is left; recovery gives them back once that is gone.
            return Ok(());
        }
        [self.lease, self.partner].into_iter().flatten().try_for_each(Lease::release)
    }
}

/// A sandbox id that nobody has: for a run whose caller names none.
pub fn fresh_id() -> String {
    let now = crate::sys::wait::monotonic_ns();
    format!("judge-{}-{now:x}", std::process::id())
}
