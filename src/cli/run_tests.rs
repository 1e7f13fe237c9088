//! `rustbox run --tests`: a submission and its tests in, a verdict for each and for all out.

use std::io::{IsTerminal, Write};
use std::os::fd::AsFd;
use std::path::Path;

use indicatif::ProgressBar;

use crate::cli::judge_args::JudgeArgs;
use crate::cli::test_args::TestArgs;
use crate::cli::{Global, progress, run_judge, say, say_json};
use crate::error::{Error, Result};
use crate::judge::run::{self, Judge, Subject};
use crate::judge::suite::checker::{self, Checker, Wanted};
use crate::judge::suite::compare::Comparison;
use crate::judge::suite::report::{self, SuiteResult, TestResult};
use crate::judge::suite::{Referee, Suite, cases};

/// Judges, prints as the results come, and gives the exit status: that of the verdict of all.
///
/// # Errors
/// Where nothing could be run.
pub fn run(global: &Global, args: &JudgeArgs, tests: &TestArgs, id: Option<&str>) -> Result<i32> {
    let standing = global.standing();
    let healthy = standing.admit()?;
    let request = args.request(Path::new("."))?;
    let Subject::Source { language, text } = request.subject else {
        return Err(Error::Usage("`--tests` needs `--source` or `--code`".to_owned()));
    };
    if args.names_streams() {
        return Err(Error::Usage(
            "`--tests` knows no --stdin, --stdout and --stderr: each test has its own".to_owned(),
        ));
    }
    let directory = tests.tests.as_deref().unwrap_or(Path::new("."));
    let wanted = tests.checker.clone().unwrap_or(Wanted::Comparison(Comparison::Tokens));
    let compares = tests.interactor.is_none() && matches!(wanted, Wanted::Comparison(_));
    let cases = cases::find(directory, compares)?;
    let cancel = run_judge::cancellation()?;
    let root = global.open_root()?;
    let judge = Judge::new(&root, global.systemd_cgroup())?.with_cache(global.cache_directory());
    let id = id.map_or_else(run::fresh_id, str::to_owned);
    let judging = |request| {
        let judged = judge.judge(request, Some(cancel.as_fd()))?;
        run_judge::account(global, &standing, healthy, &judged);
        Ok(judged)
    };
    let referee = match &tests.interactor {
        Some(path) => {
            checker::tool(path, "interactor", judge.base(), &id, &judging).map(Box::new).map(Referee::Interactor)
        }
        None => Checker::prepare(&wanted, judge.base(), &id, &judging).map(Referee::Checker),
    };
    let suite = Suite {
        id,
        base: judge.base(),
        cases,
        referee: referee?,
        referee_name: tests.interactor.as_ref().map_or_else(|| wanted.to_string(), |path| path.display().to_string()),
        stop: tests.fail_fast.unwrap_or_default(),
        limits: request.limits,
        env: request.env,
        shares: request.shares,
        permissive: request.permissive,
        no_cache: request.no_cache,
    };
    let show = Show::new(args.json, tests.json_lines, &suite);
    let result = suite.run(*language, text, &judging, |result| show.test(result))?;
    show.end(result)
}

/// How the results are shown.
struct Show {
    json: bool,
    lines: bool,
    width: usize,
    bar: ProgressBar,
}

impl Show {
    fn new(json: bool, lines: bool, suite: &Suite<'_>) -> Show {
        let width = suite.cases.iter().map(|case| case.name.chars().count()).max().unwrap_or(0).max(4);
        // Where the rows themselves appear on a terminal they are progress enough.
        let hidden = !json && !lines && std::io::stdout().is_terminal();
        let bar = progress::bar(hidden, Some(suite.cases.len() as u64), "{pos} of {len} tests {wide_bar} {msg}");
        Show { json, lines, width, bar }
    }

    fn test(&self, result: &TestResult) -> Result<()> {
        if self.bar.position() == 0 && !self.json && !self.lines {
            say(&report::head(self.width))?;
        }
        self.bar.set_message(result.judgement.run.status.as_str());
        self.bar.inc(1);
        match (self.json, self.lines) {
            (true, _) => Ok(()),
            (_, true) => line(result),
            _ => say(&result.row(self.width)),
        }
    }

    fn end(self, mut result: SuiteResult) -> Result<i32> {
        self.bar.finish_and_clear();
        let status = result.status.exit_status();
        if self.json {
            say_json(&result)?;
        } else if self.lines {
            result.tests = None;
            line(&result)?;
        } else {
            // What the compiler says, of warnings too.
            let compiler = result.compile.iter().map(|compile| &compile.step);
            for text in compiler.flat_map(|step| [&step.stdout, &step.stderr]).filter(|text| !text.is_empty()) {
                // Where it cannot be written nobody reads it.
                let _ = write!(std::io::stderr(), "{text}");
            }
            say(&result.summary(self.width))?;
        }
        Ok(status)
    }
}

fn line(value: &impl serde::Serialize) -> Result<()> {
    say(&serde_json::to_string(value).map_err(|error| Error::Other(format!("print JSON: {error}")))?)
}
