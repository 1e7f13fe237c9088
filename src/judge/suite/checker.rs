//! Checkers: one of the built-in comparisons, or a program in a sandbox of its own that is called as testlib's are.
//!
//! `checker INPUT OUTPUT ANSWER`; its word is its exit code ([`jury`]).

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::cases::Case;
use super::compare::Comparison;
use crate::error::{At, Error, Result};
use crate::judge::cause::Cause;
use crate::judge::evidence::Checked;
use crate::judge::jury;
use crate::judge::language::{Base, Language, Library};
use crate::judge::limits::LimitSource;
use crate::judge::run::{BoxFile, Content, Judged, Prepared, Request, Subject, read_source};
use crate::judge::sandbox::{BOX, WORK};

/// What was asked for.
#[derive(Debug, Clone, PartialEq)]
pub enum Wanted {
    /// A comparison.
    Comparison(Comparison),
    /// A program, or its source.
    Program(PathBuf),
}

impl std::str::FromStr for Wanted {
    type Err = String;

    /// `exact`, `tokens`, `float:EPS`, or the path of a program.
    fn from_str(text: &str) -> Result<Self, String> {
        match Comparison::named(text) {
            Some(comparison) => comparison.map(Wanted::Comparison),
            None if text.is_empty() => Err("names no checker".to_owned()),
            None => Ok(Wanted::Program(text.into())),
        }
    }
}

impl std::fmt::Display for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Wanted::Comparison(comparison) => comparison.fmt(f),
            Wanted::Program(path) => path.display().fmt(f),
        }
    }
}

/// Runs a request and gives what it came to.
pub type Judging<'a> = &'a dyn Fn(Request) -> Result<Judged>;

/// A checker that can be used.
#[derive(Debug)]
pub enum Checker {
    /// A comparison.
    Comparison(Comparison),
    /// A program.
    Program(Box<Prepared>),
}

impl Checker {
    /// Makes it ready; where it is a source, compiles it.
    ///
    /// # Errors
    /// [`Error::Usage`] where there is no such program, or its source cannot be compiled.
    pub fn prepare(wanted: &Wanted, base: &Base, id: &str, judging: Judging<'_>) -> Result<Checker> {
        match wanted {
            Wanted::Comparison(comparison) => Ok(Checker::Comparison(*comparison)),
            Wanted::Program(path) => tool(path, "checker", base, id, judging).map(|it| Checker::Program(Box::new(it))),
        }
    }

    /// What it says of the output of a test. `None`: it was cancelled.
    ///
    /// # Errors
    /// Where the answer cannot be read, or the checker's sandbox could not even be asked for.
    pub fn check(
        &self,
        case: &Case,
        output: Vec<u8>,
        base: &Base,
        id: &str,
        judging: Judging<'_>,
    ) -> Result<Option<Checked>> {
        let program = match self {
            Checker::Comparison(comparison) => {
                let answer = case.answer.as_ref().map(|path| std::fs::read(path).at("read", path.display()));
                return Ok(Some(comparison.check(&output, &answer.transpose()?.unwrap_or_default())));
            }
            Checker::Program(program) => program.as_ref().clone(),
        };
        let output = BoxFile::new("output", Content::Bytes(output.into()));
        let args = ["input", "output", "answer"].map(|name| format!("{BOX}/{name}"));
        let program = program.with([vec![output], files(case)].concat(), args.to_vec());
        let judged = judging(request(id, Subject::Prepared(Box::new(program)), base.jury.clone()))?;
        let run = &judged.judgement.run;
        Ok((run.cause != Cause::IeCancelled).then(|| jury::ruling("checker", run, &judged.stderr)))
    }
}

/// An interactor, called with the paths of the input, of the file for its output, and of the answer.
pub fn interactor(program: &Prepared, case: &Case) -> Prepared {
    let args = [format!("{BOX}/input"), format!("{WORK}/output"), format!("{BOX}/answer")];
    program.clone().with(files(case), args.to_vec())
}

/// What a test gives to a checker or to an interactor.
fn files(case: &Case) -> Vec<BoxFile> {
    let answer = case.answer.clone().map_or(Content::Bytes([].into()), Content::File);
    vec![BoxFile::new("input", Content::File(case.input.clone())), BoxFile::new("answer", answer)]
}

/// A run for the jury: within limits of its own, whatever those of the submission are.
fn request(id: &str, subject: Subject, limits: LimitSource) -> Request {
    Request { limits, ..Request::new(id, subject) }
}

/// One of the jury's programs: an executable file as it is, anything else by its language.
///
/// # Errors
/// [`Error::Usage`].
pub fn tool(path: &Path, role: &str, base: &Base, id: &str, judging: Judging<'_>) -> Result<Prepared> {
    let metadata = std::fs::metadata(path).at("open", path.display())?;
    if !metadata.is_file() {
        return Err(Error::Usage(format!("the {role} `{}` is not a regular file", path.display())));
    }
    if metadata.permissions().mode() & 0o111 != 0 {
        return Ok(Prepared::program(base, role, path));
    }
    let language = Library::find().language_of(path, base).map_err(|_| {
        Error::Usage(format!("the {role} `{}` is neither executable nor of a known language", path.display()))
    })?;
    match prepare(language, read_source(path)?, |subject| judging(request(id, subject, LimitSource::default())))? {
        Ok(prepared) => Ok(prepared),
        Err(judged) => {
            let step = judged.judgement.compile.as_ref().map(|compile| &compile.step);
            let said = step.map(|step| format!("{}{}", step.stdout, step.stderr)).unwrap_or_default();
            let explain = judged.judgement.run.cause.explain();
            let path = path.display();
            Err(Error::Usage(format!("the {role} `{path}` cannot be compiled: {explain}\n{}", said.trim_end())))
        }
    }
}

/// A source, ready to be run; or the judged compile step that failed.
///
/// # Errors
/// Where nothing could be run.
pub fn prepare(
    language: Language,
    text: Vec<u8>,
    judging: impl Fn(Subject) -> Result<Judged>,
) -> Result<Result<Prepared, Box<Judged>>> {
    if language.compile.is_none() {
        return Prepared::source(&language, &text).map(Ok);
    }
    let mut judged = judging(Subject::Compile { language: Box::new(language), text })?;
    Ok(judged.prepared.take().ok_or_else(|| Box::new(judged)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_comparison_and_everything_else_a_path() {
        assert_eq!("tokens".parse(), Ok(Wanted::Comparison(Comparison::Tokens)));
        assert_eq!("./check".parse(), Ok(Wanted::Program("./check".into())));
        assert!("".parse::<Wanted>().is_err() && "float:".parse::<Wanted>().is_err());
    }
}
