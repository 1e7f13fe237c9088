//! The steps of a run, by what is judged: a program or a bundle has one, a language perhaps a compile step before it.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use super::step::{Output, StepPlan, Stepped};
use super::{Input, Judged, Next, Run, Subject};
use crate::error::{At, Error, Result};
use crate::judge::evidence::{Compile, Evidence};
use crate::judge::language::Language;
use crate::judge::limits::{LimitSource, Limits};
use crate::judge::output::Compiled;
use crate::judge::sandbox::{self, BOX, Place, WORK};
use crate::judge::verdict::{Status, classify};
use crate::spec::Bundle;

/// The compile step, when it is over.
pub(super) type CompileStep = Box<(Compile, Compiled)>;

/// Where a run is.
#[derive(Debug)]
pub(super) enum State {
    /// Not begun.
    Fresh(Subject),
    /// The source is compiled, within these limits.
    Compiling { language: Box<Language>, places: Rc<[Place]>, limits: Limits },
    /// The program runs, within these limits.
    Running { language: Option<Box<Language>>, limits: Limits, compiled: Option<CompileStep> },
    /// It has its verdict, or has come to none.
    Over,
}

impl<'a> Run<'a> {
    /// From one state to the next.
    pub(super) fn go_on(&mut self, mut stepped: Vec<Stepped>) -> Result<Next<'a>> {
        match (std::mem::replace(&mut self.state, State::Over), stepped.pop()) {
            (State::Fresh(Subject::Program(args)), None) => self.program(&args),
            (State::Fresh(Subject::Bundle(bundle)), None) => self.bundle(*bundle),
            (State::Fresh(Subject::Source { language, text }), None) => {
                // What is wrong with the limits of the program is told before anything runs.
                self.given.over(&language.run.limits).resolve()?;
                let places = self.judge.toolchain(&language)?;
                self.lease()?;
                match language.compile.is_some() {
                    true => self.compile(language, places, &text),
                    false => self.run_source(language, &places, &text),
                }
            }
            (State::Compiling { language, places, limits }, Some(stepped)) => {
                self.compiled(language, &places, limits, stepped)
            }
            (State::Running { language, limits, compiled }, Some(stepped)) => {
                Ok(done(self.finish(language.as_deref(), stepped, limits, compiled)))
            }
            _ => Err(Error::Other("the run was already judged".to_owned())),
        }
    }

    fn program(&mut self, args: &[String]) -> Result<Next<'a>> {
        let limits = self.given.resolve()?;
        self.lease()?;
        let stage = self.stage(&[])?;
        let stdin = self.stdin.take().unwrap_or(Input::Empty);
        let plan = self
            .configure(&stage, &self.judge.base.config, &limits, Some(args), &[])
            .map(|spec| StepPlan::ours(spec, &stage, &limits, stdin).chosen());
        let step = self.step(plan, Some(stage))?;
        self.state = State::Running { language: None, limits, compiled: None };
        Ok(Next::Steps(vec![step]))
    }

    fn compile(&mut self, language: Box<Language>, places: Rc<[Place]>, text: &[u8]) -> Result<Next<'a>> {
        let (Some(step), Some(name)) = (&language.compile, &language.artefact) else {
            return self.run_source(language, &places, text);
        };
        // The compiler has limits of its own: what the caller names is for the program.
        let limits = step.limits.resolve()?;
        let stage = self.stage(&places)?;
        let place = format!("{WORK}/{name}");
        let mut sources = std::iter::once((language.source.as_str(), text))
            .chain(language.files.iter().map(|(name, content)| (name.as_str(), content.as_bytes())));
        let plan = sources
            .try_for_each(|(name, content)| stage.put_into_box(name, content, false))
            .and_then(|()| self.configure(&stage, &step.config, &limits, None, &places))
            .map(|spec| StepPlan { artefact: Some(&place), ..StepPlan::ours(spec, &stage, &limits, Input::Empty) });
        let step = self.step(plan, Some(stage))?;
        self.state = State::Compiling { language, places, limits };
        Ok(Next::Steps(vec![step]))
    }

    fn compiled(
        &mut self,
        language: Box<Language>,
        places: &[Place],
        limits: Limits,
        mut stepped: Stepped,
    ) -> Result<Next<'a>> {
        let verdict = classify(&stepped.evidence, &limits);
        let artefact = stepped.artefact.take();
        let compile = Compile { verdict: Box::new(verdict.clone()), artefact: Some(artefact.is_some()) };
        if let Some(missing) = &stepped.artefact_missing {
            stepped.stderr.extend_from_slice(format!("rustbox: {missing}\n").as_bytes());
        }
        let cleanup = stepped.evidence.cleanup.clone();
        let step = self.step_output(&verdict, stepped, limits);
        let compiled = Some(Box::new((compile.clone(), Compiled { step, cached: false })));
        match (artefact.filter(|_| verdict.status == Status::Ok), &language.artefact) {
            (Some(file), Some(name)) => {
                let program = read_artefact(file)?;
                let name = name.clone();
                self.run_with(language, places, (&name, &program, true), compiled)
            }
            _ => {
                let evidence = Evidence { compile: Some(compile), cleanup, ..Evidence::default() };
                let limits = self.given.over(&language.run.limits).resolve()?;
                Ok(done(self.finish(Some(&language), Stepped::only(evidence), limits, compiled)))
            }
        }
    }

    fn run_source(&mut self, language: Box<Language>, places: &[Place], text: &[u8]) -> Result<Next<'a>> {
        let name = language.source.clone();
        self.run_with(language, places, (&name, text, false), None)
    }

    /// The run step, with this file in `/box`.
    fn run_with(
        &mut self,
        language: Box<Language>,
        places: &[Place],
        (name, content, executable): (&str, &[u8], bool),
        compiled: Option<CompileStep>,
    ) -> Result<Next<'a>> {
        let limits = self.given.over(&language.run.limits).resolve()?;
        let stage = self.stage(places)?;
        let stdin = self.stdin.take().unwrap_or(Input::Empty);
        let plan = stage
            .put_into_box(name, content, executable)
            .and_then(|()| self.configure(&stage, &language.run.config, &limits, None, places))
            .map(|spec| StepPlan::ours(spec, &stage, &limits, stdin));
        let step = self.step(plan, Some(stage))?;
        self.state = State::Running { language: Some(language), limits, compiled };
        Ok(Next::Steps(vec![step]))
    }

    fn bundle(&mut self, bundle: Bundle) -> Result<Next<'a>> {
        let annotations = bundle.spec.annotations().clone().unwrap_or_default();
        let limits = self.given.over(&LimitSource::from_annotations(&annotations)?).resolve()?;
        let mut config = serde_json::to_value(&bundle.spec).map_err(|error| Error::config("$", error.to_string()))?;
        sandbox::extend(&mut config, &self.env, &self.shares, None);
        let plan = StepPlan {
            spec: self.restricted(config, &limits)?,
            bundle: bundle.dir,
            limits: limits.clone(),
            stdin: self.stdin.take().unwrap_or(Input::Empty),
            stdout: Output::Captured,
            artefact: None,
            chosen: true,
            controllers: None,
        };
        let step = self.step(Ok(plan), None)?;
        self.state = State::Running { language: None, limits, compiled: None };
        Ok(Next::Steps(vec![step]))
    }
}

fn done<'a>(judged: Judged) -> Next<'a> {
    Next::Done(Box::new(judged))
}

fn read_artefact(file: OwnedFd) -> Result<Vec<u8>> {
    let mut program = Vec::new();
    std::fs::File::from(file).read_to_end(&mut program).at("read", format!("{BOX} artefact"))?;
    Ok(program)
}
