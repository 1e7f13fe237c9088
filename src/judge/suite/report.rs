//! What many tests come to: a result for each, for each group, and for all; as JSON, and as a table that grows.

use schemars::JsonSchema;
use serde::Serialize;

use crate::error::{Error, Result};
use crate::judge::cause::{Actor, Cause, Status};
use crate::judge::limits::Limits;
use crate::judge::output::{Compiled, Controls, Judgement, SCHEMA_VERSION};

/// How much of a program's output a test's result holds, in bytes.
pub const EXCERPT: usize = 4096;

/// One test, as it is printed: the verdict of its run, and what makes it a test.
#[derive(Debug, Serialize, JsonSchema)]
pub struct TestResult {
    /// Its name: the path below the directory, without `.in`.
    pub test: String,
    /// Its group; empty for the directory itself.
    pub group: String,
    /// 1 for OK and 0 for anything else, or what the checker gave.
    pub score: f64,
    /// The run. Its output is cut to 4 KiB.
    #[serde(flatten)]
    pub judgement: Judgement,
}

/// A directory of tests, as it is printed.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct GroupResult {
    /// The directory; empty for the one of all.
    pub group: String,
    /// Of the first test that is not OK; `null` where none was run.
    pub status: Option<Status>,
    /// How many tests there are.
    pub total: usize,
    /// How many are OK.
    pub passed: usize,
    /// How many were not run.
    pub skipped: usize,
    /// Every test is OK.
    pub all: bool,
    /// The lowest score of a test; 0 where one was not run.
    pub min: f64,
}

/// All tests, as they are printed.
#[derive(Debug, Serialize, JsonSchema)]
pub struct SuiteResult {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The id that the sandboxes had.
    pub id: String,
    /// The language.
    pub language: Option<String>,
    /// Of the first test that is not OK, or of the compile step.
    pub status: Status,
    /// Why.
    pub cause: Cause,
    /// Who decided.
    pub actor: Actor,
    /// The test that decided; `null` where all are OK, or none was run.
    pub decided_by: Option<String>,
    /// How many tests there are.
    pub total: usize,
    /// How many are OK.
    pub passed: usize,
    /// How many were not run.
    pub skipped: usize,
    /// The scores of all tests together.
    pub score: f64,
    /// The longest CPU time of a test, ms.
    pub cpu_time_ms: Option<f64>,
    /// The longest wall time of a test, ms.
    pub wall_time_ms: Option<f64>,
    /// The highest memory charge of a test, bytes.
    pub memory_peak_bytes: Option<u64>,
    /// The checker, or the interactor, as it was asked for.
    pub checker: String,
    /// The limits of each test.
    pub limits: Limits,
    /// By control, what became of it.
    pub controls: Controls,
    /// The compile step, where there was one: one for all tests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compile: Option<Compiled>,
    /// By group, in the order of the tests.
    pub groups: Vec<GroupResult>,
    /// By test; left out where each was printed as it came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tests: Option<Vec<TestResult>>,
}

impl TestResult {
    /// The result of a test.
    pub fn new(test: &str, group: &str, mut judgement: Judgement) -> TestResult {
        let run = &mut judgement.run;
        for (text, base64, truncated) in [
            (&mut run.stdout, &mut run.stdout_base64, &mut run.stdout_truncated),
            (&mut run.stderr, &mut run.stderr_base64, &mut run.stderr_truncated),
        ] {
            if text.len() > EXCERPT {
                text.truncate(text.floor_char_boundary(EXCERPT));
                *base64 = None;
                *truncated = true;
            }
        }
        let points = run.evidence.checker.as_ref().and_then(|checked| checked.points);
        let score = match run.status {
            Status::Ok => points.unwrap_or(1.0),
            _ => 0.0,
        };
        TestResult { test: test.to_owned(), group: group.to_owned(), score, judgement }
    }

    /// A row of the table.
    pub fn row(&self, width: usize) -> String {
        let run = &self.judgement.run;
        let seconds = |ms: Option<f64>| ms.map_or_else(|| "?".to_owned(), |ms| format!("{:.3}", ms / 1000.0));
        let memory =
            run.memory_peak_bytes.map_or_else(|| "?".to_owned(), |it| format!("{:.1}", it as f64 / f64::from(1 << 20)));
        let why = match (&self.judgement.detail, run.status) {
            (_, Status::Ok) => self.points(),
            (Some(detail), Status::Wa | Status::Pe) => detail.clone(),
            (Some(detail), _) => format!("{} ({detail})", run.cause.explain()),
            (None, _) => run.cause.explain().to_owned(),
        };
        row(
            width,
            [&self.test, run.status.as_str(), &seconds(run.cpu_time_ms), &seconds(run.wall_time_ms), &memory, &why],
        )
    }

    fn points(&self) -> String {
        let checked = self.judgement.run.evidence.checker.as_ref();
        checked.and_then(|checked| checked.points).map_or_else(String::new, |points| format!("{points} points"))
    }
}

/// The head of the table.
pub fn head(width: usize) -> String {
    row(width, ["TEST", "VERDICT", "CPU s", "WALL s", "MEMORY MiB", ""])
}

fn row(width: usize, [name, verdict, cpu, wall, memory, why]: [&str; 6]) -> String {
    let line = format!("{name:width$}  {verdict:<7}  {cpu:>8}  {wall:>8}  {memory:>10}  {why}");
    line.lines().next().unwrap_or_default().trim_end().to_owned()
}

impl GroupResult {
    /// What the tests of a group came to.
    pub fn of(group: &str, total: usize, results: &[&TestResult]) -> GroupResult {
        let failed = results.iter().find(|result| result.judgement.run.status != Status::Ok);
        let passed = results.iter().filter(|result| result.judgement.run.status == Status::Ok).count();
        let skipped = total - results.len();
        let lowest = results.iter().map(|result| result.score).fold(f64::INFINITY, f64::min);
        GroupResult {
            group: group.to_owned(),
            status: failed.or(results.first()).map(|result| result.judgement.run.status),
            total,
            passed,
            skipped,
            all: passed == total,
            min: if skipped > 0 || results.is_empty() { 0.0 } else { lowest },
        }
    }
}

impl SuiteResult {
    /// What all tests came to; `failed` is the judgement of a compile step that failed.
    ///
    /// # Errors
    /// Where there is nothing to put together.
    pub fn new(
        failed: Option<Judgement>,
        results: Vec<TestResult>,
        groups: Vec<GroupResult>,
        total: usize,
        checker: &str,
    ) -> Result<SuiteResult> {
        let wrong = results.iter().find(|result| result.judgement.run.status != Status::Ok);
        let decisive = wrong.or(results.first()).map(|result| &result.judgement).or(failed.as_ref());
        let decisive = decisive.ok_or_else(|| Error::Other("no test was run".to_owned()))?;
        let most =
            |of: fn(&Judgement) -> Option<f64>| results.iter().filter_map(|it| of(&it.judgement)).reduce(f64::max);
        Ok(SuiteResult {
            schema_version: SCHEMA_VERSION,
            id: decisive.id.clone(),
            language: decisive.language.clone(),
            status: decisive.run.status,
            cause: decisive.run.cause,
            actor: decisive.run.actor,
            decided_by: wrong.map(|result| result.test.clone()),
            total,
            passed: results.iter().filter(|result| result.judgement.run.status == Status::Ok).count(),
            skipped: total - results.len(),
            score: results.iter().map(|result| result.score).sum(),
            cpu_time_ms: most(|it| it.run.cpu_time_ms),
            wall_time_ms: most(|it| it.run.wall_time_ms),
            memory_peak_bytes: results.iter().filter_map(|it| it.judgement.run.memory_peak_bytes).max(),
            checker: checker.to_owned(),
            limits: decisive.run.limits.clone(),
            controls: decisive.run.controls.clone(),
            groups,
            compile: failed.and_then(|judgement| judgement.compile),
            tests: Some(results),
        })
    }

    /// The last lines for a person: the groups where there are several, then the whole.
    pub fn summary(&self, width: usize) -> String {
        let mut text = String::new();
        if self.groups.len() > 1 {
            for group in &self.groups {
                let name = if group.group.is_empty() { "." } else { &group.group };
                let status = group.status.map_or("-", Status::as_str);
                let GroupResult { passed, total, min, .. } = group;
                text.push_str(&format!("{name:width$}  {status:<7}  {passed} of {total}, lowest score {min}\n"));
            }
        }
        let why = match &self.decided_by {
            Some(test) => format!("{}, in test {test}", self.cause.explain()),
            None => self.cause.explain().to_owned(),
        };
        let skipped = if self.skipped > 0 { format!(", {} not run", self.skipped) } else { String::new() };
        let (passed, total) = (self.passed, self.total);
        text.push_str(&format!("{}: {why}\n    {passed} of {total} tests passed{skipped}", self.status.as_str()));
        text
    }
}
