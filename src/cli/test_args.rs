//! Options of `run` that judge a submission by many tests.

use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::judge::suite::Stop;
use crate::judge::suite::checker::Wanted;

/// The tests, and what looks at the output.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Test options")]
pub struct TestArgs {
    /// Run the source on each `*.in` of this directory; `*.out` or `*.ans` beside it is the answer, a directory below is a group
    #[arg(long, value_name = "DIR")]
    pub tests: Option<PathBuf>,
    /// What says whether an output is right: `tokens`, `exact`, `float:EPS`, or a program that is called with the paths of input, output and answer, as testlib's are [default: tokens]
    #[arg(long, value_name = "CHECKER")]
    pub checker: Option<Wanted>,
    /// Let this program talk with the submission, each one's output the other's input; it is called with the paths of input, output and answer, as testlib's are
    #[arg(long, value_name = "PROGRAM", conflicts_with = "checker")]
    pub interactor: Option<PathBuf>,
    /// After a test that is not OK, do not run the rest: of all tests, or of its group [default: never; of all without a word]
    #[arg(long, value_name = "REST", num_args = 0..=1, require_equals = true, default_missing_value = "all")]
    pub fail_fast: Option<Stop>,
    /// Print each test's result as a line of JSON as it comes, then the result of all
    #[arg(long, conflicts_with = "json")]
    pub json_lines: bool,
}

impl TestArgs {
    /// Whether there are tests. Test options without them are a usage error.
    ///
    /// # Errors
    /// [`Error::Usage`].
    pub fn asked(&self) -> Result<bool> {
        if self.tests.is_some() {
            return Ok(true);
        }
        match self.checker.is_some() || self.interactor.is_some() || self.fail_fast.is_some() || self.json_lines {
            true => Err(Error::Usage(
                "`--checker`, `--interactor`, `--fail-fast` and `--json-lines` need `--tests`".to_owned(),
            )),
            false => Ok(false),
        }
    }
}
