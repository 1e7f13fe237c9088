//! `rustbox languages`.

use schemars::JsonSchema;
use serde::Serialize;

use crate::cli::list::table;
use crate::cli::{Global, report, say, say_json};
use crate::error::Result;
use crate::judge::language::{Language, Library};
use crate::judge::toolchain::{self, Toolchain};

/// List the languages of the judge, and what this host has of them
///
/// Each language's probe is run, and nothing else. A language is a directory of bundles: $RUSTBOX_BUNDLES names another
/// place for them.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit status: 0 all named are found (or none was named), 1 one is missing, 2 usage.")]
pub struct Args {
    /// Print them as JSON
    #[arg(long)]
    pub json: bool,
    /// Only these, by name or alias [default: all]
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
}

/// One language, as it is printed.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Entry {
    title: String,
    aliases: Vec<String>,
    extensions: Vec<String>,
    compiled: bool,
    #[serde(flatten)]
    toolchain: Toolchain,
}

/// Runs `languages`.
pub fn main(global: &Global, args: &Args) -> u8 {
    match entries(args).and_then(|entries| print(args, &entries).map(|()| entries)) {
        Ok(entries) if !args.names.is_empty() && entries.iter().any(|entry| !entry.toolchain.found) => 1,
        Ok(_) => 0,
        Err(error) => report(global, &error),
    }
}

fn entries(args: &Args) -> Result<Vec<Entry>> {
    let library = Library::find();
    let base = library.base()?;
    let names = if args.names.is_empty() { library.names()? } else { args.names.clone() };
    let languages = names.iter().map(|name| library.language(name, &base)).collect::<Result<Vec<Language>>>()?;
    // A JVM takes its time to say which it is: all at once.
    let probed: Vec<Toolchain> = std::thread::scope(|scope| {
        let probes: Vec<_> = languages.iter().map(|language| scope.spawn(|| toolchain::probe(language))).collect();
        let missing = |language| toolchain::unknown(language, "the probe could not be run");
        probes
            .into_iter()
            .zip(&languages)
            .map(|(probe, language)| probe.join().unwrap_or_else(|_| missing(language)))
            .collect()
    });
    let entry = |(language, toolchain): (Language, Toolchain)| Entry {
        compiled: language.compile.is_some(),
        title: language.title,
        aliases: language.aliases,
        extensions: language.extensions,
        toolchain,
    };
    Ok(languages.into_iter().zip(probed).map(entry).collect())
}

fn print(args: &Args, entries: &[Entry]) -> Result<()> {
    if args.json {
        return say_json(&entries);
    }
    let mut rows = vec![["NAME", "LANGUAGE", "EXTENSIONS", "ALIASES", "HERE"].map(str::to_owned)];
    rows.extend(entries.iter().map(|entry| {
        [
            entry.toolchain.language.clone(),
            entry.title.clone(),
            entry.extensions.join(" "),
            entry.aliases.join(" "),
            entry.toolchain.state(),
        ]
    }));
    say(&table(&rows))
}
