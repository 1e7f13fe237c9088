//! Many tests of one submission: one compile, a verdict for each test, for each group, and for all.

pub mod cases;
pub mod checker;
pub mod compare;
pub mod report;

use super::cause::{Cause, Status};
use super::language::{Base, Language};
use super::limits::LimitSource;
use super::run::{Input, Judged, Prepared, Request, Subject};
use super::sandbox::Share;
use crate::error::{At, Result};
use crate::worker::metrics;
use cases::Case;
use checker::{Checker, Judging};
use report::{GroupResult, SuiteResult, TestResult};

/// When the rest is not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Stop {
    /// Every test is run
    #[default]
    Never,
    /// After a test that is not OK, the rest of its group is not run
    Group,
    /// After a test that is not OK, no other is run
    All,
}

/// Who decides whether a program that has done its part is right.
#[derive(Debug)]
pub enum Referee {
    /// Looks at the output.
    Checker(Checker),
    /// Talks with the program.
    Interactor(Box<Prepared>),
}

/// The tests, and what holds for each.
#[derive(Debug)]
pub struct Suite<'a> {
    /// The id of each sandbox, one after the other.
    pub id: String,
    /// The judge's sandbox.
    pub base: &'a Base,
    /// The tests.
    pub cases: Vec<Case>,
    /// Who decides.
    pub referee: Referee,
    /// What that is called in the result.
    pub referee_name: String,
    /// When the rest is not run.
    pub stop: Stop,
    /// Limits that the caller named.
    pub limits: LimitSource,
    /// `K=V`.
    pub env: Vec<String>,
    /// Host directories given to the sandbox.
    pub shares: Vec<Share>,
    /// Run without controls that the host cannot give.
    pub permissive: bool,
    /// Compile anew.
    pub no_cache: bool,
}

impl Suite<'_> {
    /// Compiles, then runs test after test, and tells of each as it ends.
    ///
    /// # Errors
    /// Where nothing could be run, a test's files cannot be read, or `tell` fails.
    pub fn run(
        &self,
        language: Language,
        text: Vec<u8>,
        judging: Judging<'_>,
        mut tell: impl FnMut(&TestResult) -> Result<()>,
    ) -> Result<SuiteResult> {
        let total = self.cases.len();
        let prepared = checker::prepare(language, text, |subject| judging(self.request(subject, Input::Empty)))?;
        let prepared = match prepared {
            Ok(prepared) => prepared,
            Err(failed) => {
                metrics::judged(&failed.judgement);
                return SuiteResult::new(
                    Some(failed.judgement),
                    Vec::new(),
                    self.groups(&[]),
                    total,
                    &self.referee_name,
                );
            }
        };
        let mut results: Vec<TestResult> = Vec::new();
        let mut compile = None;
        for case in &self.cases {
            if self.stopped(&results, case) {
                continue;
            }
            let mut judged = self.test(&prepared, case, judging)?;
            metrics::judged(&judged.judgement);
            // It stands once beside all tests.
            let compiled = judged.judgement.compile.take();
            compile = compile.or(compiled);
            let result = TestResult::new(&case.name, &case.group, judged.judgement);
            tell(&result)?;
            results.push(result);
        }
        let groups = self.groups(&results);
        let result = SuiteResult::new(None, results, groups, total, &self.referee_name)?;
        Ok(SuiteResult { compile, ..result })
    }

    fn test(&self, prepared: &Prepared, case: &Case, judging: Judging<'_>) -> Result<Judged> {
        let program = Box::new(prepared.clone());
        let (subject, input) = match &self.referee {
            Referee::Checker(_) => {
                let input = std::fs::File::open(&case.input).at("open", case.input.display())?;
                (Subject::Prepared(program), Input::File(input))
            }
            Referee::Interactor(interactor) => {
                let interactor = Box::new(checker::interactor(interactor, case));
                (Subject::Interactive { program, interactor }, Input::Empty)
            }
        };
        let mut judged = judging(self.request(subject, input))?;
        if let Referee::Checker(checker) = &self.referee
            && judged.judgement.run.status == Status::Ok
        {
            let output = std::mem::take(&mut judged.stdout);
            match checker.check(case, output, self.base, &self.id, judging)? {
                Some(checked) => judged.judgement.rule(checked),
                None => judged.judgement.cancelled(),
            }
        }
        Ok(judged)
    }

    fn stopped(&self, results: &[TestResult], next: &Case) -> bool {
        let failed = |result: &TestResult| result.judgement.run.status != Status::Ok;
        let cancelled = results.last().is_some_and(|result| result.judgement.run.cause == Cause::IeCancelled);
        cancelled
            || match self.stop {
                Stop::Never => false,
                Stop::Group => results.iter().any(|result| result.group == next.group && failed(result)),
                Stop::All => results.iter().any(failed),
            }
    }

    /// The groups in the order in which their first tests come.
    fn groups(&self, results: &[TestResult]) -> Vec<GroupResult> {
        let mut names: Vec<&str> = Vec::new();
        for case in &self.cases {
            if !names.contains(&case.group.as_str()) {
                names.push(&case.group);
            }
        }
        let of = |name: &&str| {
            let total = self.cases.iter().filter(|case| case.group == **name).count();
            let own: Vec<&TestResult> = results.iter().filter(|result| result.group == **name).collect();
            GroupResult::of(name, total, &own)
        };
        names.iter().map(of).collect()
    }

    fn request(&self, subject: Subject, stdin: Input) -> Request {
        Request {
            limits: self.limits.clone(),
            env: self.env.clone(),
            shares: self.shares.clone(),
            stdin,
            permissive: self.permissive,
            no_cache: self.no_cache,
            ..Request::new(&self.id, subject)
        }
    }
}
