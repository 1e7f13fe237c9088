//! `rustbox schema`: the JSON Schemas of what the commands print, generated from the types that they print.

use std::path::PathBuf;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema};

use crate::cleanup::Proof;
use crate::cli::{languages, say_json};
use crate::container::events::Event;
use crate::container::report::Report as State;
use crate::error::{At, Error, Result};
use crate::judge::batch::Failure;
use crate::judge::calibrate::Calibration;
use crate::judge::capability::Report as Capabilities;
use crate::judge::monitor::Progress;
use crate::judge::output::Judgement;
use crate::judge::replay::Replay;
use crate::judge::suite::report::{SuiteResult, TestResult};
use crate::worker::check::Absolved;
use crate::worker::health::Health;
use crate::worker::survey::Survey;

/// Print the JSON Schema of what a command prints
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which [default: list their names]
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// Write all of them to this directory, as NAME.schema.json
    #[arg(long, value_name = "DIR", conflicts_with = "name")]
    dir: Option<PathBuf>,
}

/// One of the forms of `batch`'s lines.
#[derive(JsonSchema)]
#[schemars(untagged)]
#[expect(dead_code, reason = "only its schema is wanted")]
enum BatchLine<'a> {
    /// The verdict of a job.
    Judged(Box<Judgement>),
    /// A job that came to none.
    Failed(Failure<'a>),
}

/// One of the forms of what `verdict` prints.
#[derive(JsonSchema)]
#[schemars(untagged)]
#[expect(dead_code, reason = "only its schema is wanted")]
enum Verdict {
    /// The container has ended.
    Ended(Box<Judgement>),
    /// It runs.
    Running(Progress),
}

type Made = (&'static str, &'static str, fn() -> Schema);

/// Name, command, schema.
const SCHEMAS: [Made; 17] = [
    ("run", "run --json, run --evidence", schema::<Judgement>),
    ("tests", "run --tests --json", schema::<SuiteResult>),
    ("test", "run --tests --json-lines, each line but the last", schema::<TestResult>),
    ("batch", "batch, each line", schema::<BatchLine<'_>>),
    ("verdict", "verdict --json", schema::<Verdict>),
    ("replay", "verdict --replay --json", schema::<Replay>),
    ("calibrate", "calibrate --json", schema::<Calibration>),
    ("dry-run", "--dry-run run --json", schema::<Capabilities>),
    ("languages", "languages --json", schema::<Vec<languages::Entry>>),
    ("state", "state", schema::<State>),
    ("list", "list --format json", schema::<Vec<State>>),
    ("ps", "ps --format json", schema::<Vec<i32>>),
    ("delete", "delete --json", schema::<Proof>),
    ("events", "events, each line", schema::<Event<'_>>),
    ("health", "health --json, metrics --listen at /healthz", schema::<Health>),
    ("verify-clean", "health --verify-clean --json", schema::<Survey>),
    ("recover", "health --recover --json", schema::<Absolved>),
];

/// The schema of a type as it is printed: what is always there is required.
fn schema<T: JsonSchema>() -> Schema {
    SchemaSettings::draft2020_12().for_serialize().into_generator().into_root_schema_for::<T>()
}

fn document((_, command, schema): &Made) -> Schema {
    let mut document = schema();
    document.insert("title".to_owned(), format!("rustbox {command}").into());
    document
}

/// Prints or writes schemas, or lists them.
///
/// # Errors
/// [`Error::Usage`] for a name that is none; as `write(2)`.
pub fn main(args: &Args) -> Result<()> {
    if let Some(dir) = &args.dir {
        return SCHEMAS.iter().try_for_each(|made| {
            let file = dir.join(format!("{}.schema.json", made.0));
            let text = serde_json::to_string_pretty(&document(made))
                .map_err(|error| Error::Other(format!("print JSON: {error}")))?;
            std::fs::write(&file, text + "\n").at("write", file.display())
        });
    }
    let Some(name) = &args.name else {
        let width = SCHEMAS.iter().map(|(name, ..)| name.len()).max().unwrap_or_default();
        return SCHEMAS.iter().try_for_each(|(name, command, _)| super::say(&format!("{name:width$}  {command}")));
    };
    let known = SCHEMAS.iter().find(|(known, ..)| known == name);
    let made = known.ok_or_else(|| Error::Usage(format!("no schema `{name}`: `rustbox schema` lists them")))?;
    say_json(&document(made))
}
