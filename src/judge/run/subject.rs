//! The steps of a run, by what is judged: a program or a bundle has one, a language perhaps a compile step before it, and a
//! program with an interactor two side by side.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use super::prepared::{BoxFile, Content, Prepared};
use super::request::Ready;
use super::step::{Output, Raw, StepPlan, Stepped, Whose};
use super::{Input, Judged, Next, Run, Subject};
use crate::error::{At, Error, Result};
use crate::judge::cache::{Key, KeyBuilder};
use crate::judge::evidence::{Compile, Evidence};
use crate::judge::language::Language;
use crate::judge::limits::{LimitSource, Limits};
use crate::judge::output::{self, Compiled};
use crate::judge::sandbox::{self, BOX, WORK};
use crate::judge::toolchain::Found;
use crate::judge::verdict::{Status, classify};
use crate::spec::Bundle;

/// The compile step, when it is over.
pub(super) type CompileStep = Box<(Compile, Compiled)>;

/// Where a run is.
#[derive(Debug)]
pub(super) enum State {
    /// Not begun.
    Fresh(Subject),
    /// The source is compiled.
    Compiling(Box<Compiling>),
    /// The program runs, within these limits.
    Running { language: Option<String>, limits: Limits, compiled: Option<CompileStep> },
    /// The program and the interactor run, within these limits.
    Interacting { language: Option<String>, limits: [Limits; 2], compiled: Option<CompileStep> },
    /// The program runs, within these limits, with streams that the judge does not read.
    Unread { limits: Limits },
    /// It has its verdict, or has come to none.
    Over,
}

/// A compile step under way.
#[derive(Debug)]
pub(super) struct Compiling {
    language: Box<Language>,
    limits: Limits,
    found: Rc<Found>,
    /// Where the program is kept.
    key: Option<Key>,
    /// It is not to be run.
    only: bool,
}

impl<'a> Run<'a> {
    /// From one state to the next.
    pub(super) fn go_on(&mut self, mut stepped: Vec<Stepped>) -> Result<Next<'a>> {
        let last = stepped.pop();
        match (std::mem::replace(&mut self.state, State::Over), last, stepped.pop()) {
            (State::Fresh(Subject::Program(args)), None, None) => self.program(&args),
            (State::Fresh(Subject::Bundle(bundle)), None, None) => self.bundle(*bundle),
            (State::Fresh(Subject::Ready(ready)), None, None) => self.complete(*ready),
            (State::Fresh(Subject::Source { language, text }), None, None) => self.source(language, &text, false),
            (State::Fresh(Subject::Compile { language, text }), None, None) => self.source(language, &text, true),
            (State::Fresh(Subject::Prepared(prepared)), None, None) => self.run_prepared(*prepared),
            (State::Fresh(Subject::Interactive { program, interactor }), None, None) => {
                self.interact(*program, *interactor)
            }
            (State::Compiling(compiling), Some(stepped), None) => self.compiled(*compiling, stepped),
            (State::Running { language, limits, compiled }, Some(stepped), None) => {
                Ok(done(self.finish(language, stepped, limits, compiled)))
            }
            (State::Unread { limits }, Some(mut stepped), None) => {
                stepped.evidence.streams.joined = true;
                Ok(done(self.finish(None, stepped, limits, None)))
            }
            (State::Interacting { language, limits, compiled }, Some(interactor), Some(program)) => {
                Ok(done(self.interacted(language, limits, compiled, program, interactor)))
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
            .map(|spec| StepPlan::ours(spec, &stage, &limits, stdin).of(Whose::Caller));
        let step = self.step(plan, Some(stage))?;
        self.state = State::Running { language: None, limits, compiled: None };
        Ok(Next::Steps(vec![step]))
    }

    /// A source is compiled, where its language asks for it and the cache has no program of it.
    fn source(&mut self, language: Box<Language>, text: &[u8], only: bool) -> Result<Next<'a>> {
        // What is wrong with the limits of the program is told before anything runs.
        self.given.over(&language.run.limits).resolve()?;
        if language.compile.is_none() {
            let file = BoxFile::new(&language.source, Content::Bytes(text.into()));
            return self.run_prepared(Prepared::of(&language, self.judge.toolchain(&language)?, file, None));
        }
        let found = self.judge.toolchain(&language)?;
        let key = self.key(&language, &found, text);
        if let (Some(cache), Some(key)) = (&self.judge.cache, &key)
            && let Some(((compile, step), artefact)) = cache.load::<(Compile, output::Step)>(key)
        {
            let compiled = Box::new((compile, Compiled { step, cached: true }));
            return self.ready(&language, found, artefact, compiled, only);
        }
        self.compile(language, found, text, key, only)
    }

    fn compile(
        &mut self,
        language: Box<Language>,
        found: Rc<Found>,
        text: &[u8],
        key: Option<Key>,
        only: bool,
    ) -> Result<Next<'a>> {
        let (Some(step), Some(name)) = (&language.compile, &language.artefact) else {
            return Err(Error::Other(format!("language `{}` has no compile step", language.name)));
        };
        // The compiler has limits of its own: what the caller names is for the program.
        let limits = step.limits.resolve()?;
        self.lease()?;
        let stage = self.stage(&found.places)?;
        let place = format!("{WORK}/{name}");
        let mut sources = std::iter::once((language.source.as_str(), text))
            .chain(language.files.iter().map(|(name, content)| (name.as_str(), content.as_bytes())));
        let plan = sources
            .try_for_each(|(name, content)| stage.put_into_box(name, content, false))
            .and_then(|()| self.configure(&stage, &step.config, &limits, None, &found.places))
            .map(|spec| StepPlan { artefact: Some(&place), ..StepPlan::ours(spec, &stage, &limits, Input::Empty) });
        let step = self.step(plan, Some(stage))?;
        self.state = State::Compiling(Box::new(Compiling { language, limits, found, key, only }));
        Ok(Next::Steps(vec![step]))
    }

    fn compiled(&mut self, compiling: Compiling, mut stepped: Stepped) -> Result<Next<'a>> {
        let Compiling { language, limits, found, key, only } = compiling;
        let verdict = classify(&stepped.evidence, &limits);
        let artefact = stepped.artefact.take();
        let compile = Compile { verdict: Box::new(verdict.clone()), artefact: Some(artefact.is_some()) };
        if let Some(missing) = &stepped.artefact_missing {
            stepped.stderr.extend_from_slice(format!("rustbox: {missing}\n").as_bytes());
        }
        let cleanup = stepped.evidence.cleanup.clone();
        let step = self.step_output(&verdict, stepped, limits);
        match artefact.filter(|_| verdict.status == Status::Ok) {
            Some(file) => {
                let program = read_artefact(file)?;
                if let (Some(cache), Some(key)) = (&self.judge.cache, &key) {
                    cache.store(key, &(&compile, &step), &program);
                }
                let compiled = Box::new((compile, Compiled { step, cached: false }));
                self.ready(&language, found, program, compiled, only)
            }
            None => {
                let evidence = Evidence { compile: Some(compile.clone()), cleanup, ..Evidence::default() };
                let limits = self.given.over(&language.run.limits).resolve()?;
                let compiled = Some(Box::new((compile, Compiled { step, cached: false })));
                Ok(done(self.finish(Some(language.name), Stepped::only(evidence), limits, compiled)))
            }
        }
    }

    /// The program is there: it is run, or handed out.
    fn ready(
        &mut self,
        language: &Language,
        found: Rc<Found>,
        artefact: Vec<u8>,
        compiled: CompileStep,
        only: bool,
    ) -> Result<Next<'a>> {
        let name = language.artefact.as_deref().unwrap_or_default();
        let file = BoxFile { executable: true, ..BoxFile::new(name, Content::Bytes(artefact.into())) };
        let prepared = Prepared::of(language, found, file, Some(compiled.clone()));
        if !only {
            return self.run_prepared(prepared);
        }
        let limits = self.given.over(&language.run.limits).resolve()?;
        let evidence = Evidence { cleanup: compiled.1.step.cleanup.clone(), ..Evidence::default() };
        let judged = self.finish(Some(language.name.clone()), Stepped::only(evidence), limits, Some(compiled));
        Ok(done(Judged { prepared: Some(prepared), ..judged }))
    }

    /// What a compile step depends on; `None` where it cannot be told.
    fn key(&self, language: &Language, found: &Found, text: &[u8]) -> Option<Key> {
        let step = language.compile.as_ref().filter(|_| self.cached && self.shares.is_empty())?;
        self.judge.cache.as_ref()?;
        // Its maps sorted, which those of the configuration are not.
        let config = serde_json::to_value(&step.config).ok()?;
        let key = KeyBuilder::default()
            .part(language.name.as_bytes())
            .part(language.source.as_bytes())
            .part(language.artefact.as_deref().unwrap_or_default().as_bytes())
            .part(text)
            .part(config.to_string().as_bytes())
            .part(format!("{:?}", step.limits).as_bytes())
            .part(self.report.missing.join(" ").as_bytes());
        let key =
            language.files.iter().fold(key, |key, (name, content)| key.part(name.as_bytes()).part(content.as_bytes()));
        let key = self.env.iter().fold(key.part(b"env"), |key, variable| key.part(variable.as_bytes()));
        let shown = found.places.iter().fold(key.part(b"places"), |key, place| {
            key.part(place.inside.as_os_str().as_encoded_bytes()).file(&place.outside)
        });
        let files = found.programs.iter().chain(&self.judge.base.packages);
        Some(files.fold(shown.part(b"files"), |key, file| key.file(file)).finish())
    }

    /// The run step of what is ready.
    fn run_prepared(&mut self, prepared: Prepared) -> Result<Next<'a>> {
        let limits = self.given.over(&prepared.limits).resolve()?;
        self.lease()?;
        let stage = self.stage(prepared.places())?;
        let stdin = self.stdin.take().unwrap_or(Input::Empty);
        let plan = prepared
            .fill(&stage)
            .and_then(|()| self.configure(&stage, &prepared.config, &limits, None, prepared.places()))
            .map(|spec| StepPlan::ours(spec, &stage, &limits, stdin).of(prepared.whose()));
        let step = self.step(plan, Some(stage))?;
        self.state = State::Running { language: prepared.language, limits, compiled: prepared.compiled };
        Ok(Next::Steps(vec![step]))
    }

    fn bundle(&mut self, bundle: Bundle) -> Result<Next<'a>> {
        let annotations = bundle.spec.annotations().clone().unwrap_or_default();
        let limits = self.given.over(&LimitSource::from_annotations(&annotations)?).resolve()?;
        let mut spec = bundle.spec;
        sandbox::extend(&mut spec, &self.env, &self.shares, None)?;
        let plan = StepPlan {
            id: None,
            spec: self.restricted(spec, &limits)?,
            bundle: bundle.dir,
            limits: limits.clone(),
            stdin: self.stdin.take().unwrap_or(Input::Empty),
            stdout: Output::Captured,
            artefact: None,
            program: Whose::Caller,
            controllers: None,
            raw: None,
        };
        let step = self.step(Ok(plan), None)?;
        self.state = State::Running { language: None, limits, compiled: None };
        Ok(Next::Steps(vec![step]))
    }
}

impl<'a> Run<'a> {
    /// A configuration that is complete, with its limits and streams.
    fn complete(&mut self, ready: Ready) -> Result<Next<'a>> {
        let Ready { spec, limits, bundle, stdin, stdout, stderr, inherit } = ready;
        let plan = StepPlan {
            id: None,
            spec,
            bundle,
            limits: limits.clone(),
            stdin: Input::Empty,
            stdout: Output::Captured,
            artefact: None,
            program: Whose::Caller,
            controllers: None,
            raw: Some(Raw { stdin, stdout, stderr, inherit }),
        };
        let step = self.step(Ok(plan), None)?;
        self.state = State::Unread { limits };
        Ok(Next::Steps(vec![step]))
    }
}

pub(super) fn done<'a>(judged: Judged) -> Next<'a> {
    Next::Done(Box::new(judged))
}

fn read_artefact(file: OwnedFd) -> Result<Vec<u8>> {
    let mut program = Vec::new();
    std::fs::File::from(file).read_to_end(&mut program).at("read", format!("{BOX} artefact"))?;
    Ok(program)
}
