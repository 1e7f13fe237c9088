//! Judging a stored run again: the JSON object that `run --json` printed goes in, the verdict of its evidence comes out.
//!
//! The compile step is judged again too, and its verdict of now stands in for the stored one in the evidence of the run.

use std::io::Read;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::cause::{Actor, Cause, Status};
use super::evidence::{Compile, Evidence};
use super::limits::Limits;
use super::output::SCHEMA_VERSION;
use super::verdict::{Verdict, classify};
use crate::error::{Error, Result};
use crate::spec::{member, pointer};

/// What is read of a stored run or of its compile step; the rest, such as the output, is not even kept.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Stored {
    schema_version: Value,
    id: Value,
    status: Value,
    cause: Value,
    actor: Value,
    limits: Value,
    evidence: Value,
    compile: Option<Box<Stored>>,
}

/// The three words of a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Words {
    /// The verdict.
    pub status: Status,
    /// Why.
    pub cause: Cause,
    /// Who ended it.
    pub actor: Actor,
}

impl From<&Verdict> for Words {
    fn from(verdict: &Verdict) -> Self {
        Words { status: verdict.status, cause: verdict.cause, actor: verdict.actor }
    }
}

impl std::fmt::Display for Words {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({}, by the {})", self.status.as_str(), word(self.cause), word(self.actor))
    }
}

/// A step of a stored run, judged again.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Rejudged {
    /// What the evidence says.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// What was stored.
    pub stored: Words,
    /// The two agree.
    pub same: bool,
}

/// A stored run, judged again.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Replay {
    /// The sandbox's id; `null` where none was stored.
    pub id: Option<String>,
    /// The run.
    #[serde(flatten)]
    pub run: Rejudged,
    /// The compile step, where it was stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compile: Option<Rejudged>,
}

impl Replay {
    /// Each disagreement in words; empty where the evidence gives the verdict that was stored.
    pub fn differences(&self) -> Vec<String> {
        let steps = [Some(("the run", &self.run)), self.compile.as_ref().map(|step| ("the compile step", step))];
        let differing = steps.into_iter().flatten().filter(|(_, step)| !step.same);
        let words = |(of, step): (&str, &Rejudged)| {
            format!("the stored verdict of {of} is {}, its evidence gives {}", step.stored, Words::from(&step.verdict))
        };
        differing.map(words).collect()
    }
}

/// Judges a stored run again. The same evidence gives the same verdict.
///
/// # Errors
/// [`Error::Config`] with the JSON path of what is wrong with it, or for a layout of another version.
pub fn replay(stored: impl Read) -> Result<Replay> {
    let mut reader = serde_json::Deserializer::from_reader(std::io::BufReader::new(stored));
    let read = Stored::deserialize(&mut reader).and_then(|document| reader.end().map(|()| document));
    let document = read.map_err(|error| Error::config("$", format!("is no stored run: {error}")))?;
    if document.schema_version != SCHEMA_VERSION {
        let reason = match &document.schema_version {
            Value::Null => "is missing".to_owned(),
            other => format!("is {other}, not {SCHEMA_VERSION}"),
        };
        return Err(Error::config("$.schema_version", reason));
    }
    let compile = document.compile.as_ref().map(|step| step.rejudge("$.compile", None)).transpose()?;
    let run = document.rejudge("$", compile.as_ref().map(|step| &step.verdict))?;
    Ok(Replay { id: document.id.as_str().map(str::to_owned), run, compile })
}

impl Stored {
    fn rejudge(&self, at: &str, compiled: Option<&Verdict>) -> Result<Rejudged> {
        let stored = Words {
            status: exact(format!("{at}.status"), &self.status)?,
            cause: exact(format!("{at}.cause"), &self.cause)?,
            actor: exact(format!("{at}.actor"), &self.actor)?,
        };
        let limits: Limits = exact(format!("{at}.limits"), &self.limits)?;
        let mut evidence: Evidence = exact(format!("{at}.evidence"), &self.evidence)?;
        if let (Some(Compile { verdict, .. }), Some(now)) = (&mut evidence.compile, compiled) {
            **verdict = now.clone();
        }
        let verdict = classify(&evidence, &limits);
        Ok(Rejudged { same: Words::from(&verdict) == stored, verdict, stored })
    }
}

/// Reads a part of the document. Nothing may be missing from it: evidence that is not there is no evidence, not even
/// that it is unknown.
fn exact<T: DeserializeOwned + Serialize>(at: String, value: &Value) -> Result<T> {
    let part: T = serde_path_to_error::deserialize(value).map_err(|error| {
        let inside = pointer(error.path());
        Error::config(format!("{at}{}", &inside[1..]), error.inner().to_string())
    })?;
    let whole = serde_json::to_value(&part).map_err(|error| Error::config(&at, error.to_string()))?;
    match lacking(value, &whole, &at) {
        Some(missing) => Err(Error::config(missing, "is missing")),
        None => Ok(part),
    }
}

/// The path of the first member of `whole` that is not in `part`.
fn lacking(part: &Value, whole: &Value, at: &str) -> Option<String> {
    whole.as_object()?.iter().find_map(|(key, value)| {
        let at = format!("{at}{}", member(key));
        match part.get(key) {
            Some(inner) => lacking(inner, value, &at),
            None => Some(at),
        }
    })
}

/// A word of the JSON.
fn word(value: impl Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}
