//! Canaries: tiny programs whose verdicts are known, judged as any submission is. A worker that gets one of them wrong
//! would get submissions wrong.

use std::time::Instant;

use schemars::JsonSchema;
use serde::Serialize;

use crate::container::root::Root;
use crate::error::{Error, Result};
use crate::judge::language::Library;
use crate::judge::limits::LimitSource;
use crate::judge::run::{Judge, Request, Subject, fresh_id};
use crate::judge::verdict::Status;

const MIB: u64 = 1 << 20;

/// One program, its limits, and what it must come to.
struct Canary {
    name: &'static str,
    code: &'static str,
    limits: fn(LimitSource) -> LimitSource,
    expected: Status,
}

/// All in the shell, the one language that every worker has.
const CANARIES: [Canary; 6] = [
    Canary { name: "ok", code: "echo ok", limits: |limits| limits, expected: Status::Ok },
    Canary {
        name: "tle",
        code: "while :; do :; done",
        limits: |limits| LimitSource { time: Some(100), ..limits },
        expected: Status::Tle,
    },
    Canary {
        name: "mle",
        code: "x=0123456789abcdef; while :; do x=$x$x; done",
        limits: |limits| LimitSource { memory: Some(16 * MIB), ..limits },
        expected: Status::Mle,
    },
    Canary { name: "re", code: "exit 3", limits: |limits| limits, expected: Status::Re },
    Canary {
        name: "ple",
        code: "sleep 9 & sleep 9 & sleep 9 & sleep 9 & sleep 9 &",
        limits: |limits| LimitSource { processes: Some(4), ..limits },
        expected: Status::Ple,
    },
    Canary { name: "sv", code: "exec /usr/sbin/chroot /tmp true", limits: |limits| limits, expected: Status::Sv },
];

/// What became of a canary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The verdict is the one it must be.
    Passed,
    /// It is another one, or there is none.
    Failed,
    /// This host cannot judge, and says so: nothing was run.
    Refused,
}

/// One canary's run.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Sung {
    /// Which.
    pub canary: &'static str,
    /// The verdict that it must come to.
    pub expected: &'static str,
    /// The verdict, or why there is none.
    pub got: String,
    /// Whether that is right.
    pub outcome: Outcome,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
}

impl Sung {
    /// In words: `tle came to OK, not TLE`.
    pub fn words(&self) -> String {
        format!("{} came to {}, not {}", self.canary, self.got, self.expected)
    }
}

/// Runs all of them, one after the other.
pub fn sing(root: &Root, systemd_cgroup: bool) -> Vec<Sung> {
    CANARIES
        .iter()
        .map(|canary| {
            let begun = Instant::now();
            let (got, outcome) = match canary.judge(root, systemd_cgroup) {
                Ok((status, words)) if status == canary.expected => (words, Outcome::Passed),
                Ok((_, words)) => (words, Outcome::Failed),
                Err(Error::Refused(why)) => (format!("a refusal: {why}"), Outcome::Refused),
                Err(error) => (format!("an error: {error}"), Outcome::Failed),
            };
            let took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
            Sung { canary: canary.name, expected: canary.expected.as_str(), got, outcome, took_ms }
        })
        .collect()
}

impl Canary {
    fn judge(&self, root: &Root, systemd_cgroup: bool) -> Result<(Status, String)> {
        let library = Library::find();
        let language = library.language("sh", &library.base()?)?;
        // A wall time that no loaded machine reaches: what is slow is not wrong.
        let limits = (self.limits)(LimitSource { wall_time: Some(30_000), ..LimitSource::default() });
        let id = format!("canary-{}-{}", self.name, fresh_id());
        let subject = Subject::Source { language: Box::new(language), text: self.code.as_bytes().to_owned() };
        let request = Request { limits, no_cache: true, ..Request::new(id, subject) };
        let judged = Judge::new(root, systemd_cgroup)?.rehearsing().judge(request, None)?;
        let run = judged.judgement.run;
        match run.cleanup.as_ref().filter(|cleanup| !cleanup.proved) {
            Some(cleanup) => Err(Error::Other(format!("its cleanup is not proved: {}", cleanup.left.join("; ")))),
            None => Ok((run.status, format!("{} ({})", run.status.as_str(), run.cause.explain()))),
        }
    }
}
