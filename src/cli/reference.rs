//! The reference of the command line, docs/cli.md, generated from the command line's own definition.

use std::fmt::Write;

use clap::builder::{PossibleValue, StyledStr};
use clap::{Arg, Command, CommandFactory};

use crate::cli::{Cli, say};
use crate::error::Result;

/// Print the reference of the command line as Markdown
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Prints the reference.
///
/// # Errors
/// As `write(2)`.
pub fn main() -> Result<()> {
    say(&markdown())
}

/// The reference as Markdown: the options of every command, then each command with its own.
fn markdown() -> String {
    let mut cli = Cli::command();
    cli.build();
    let mut text = String::from(
        "# Command line\n\nWritten by `make cli`; the exit statuses are in [exit-status.md](exit-status.md).\n",
    );
    let _ = write!(text, "\n{}\n", paragraphs(cli.get_long_about().or(cli.get_about())));
    let _ = write!(text, "\n```\n{}\n```\n", usage(&mut cli));
    text.push_str(&tables(&cli, |_| true));
    for command in cli.get_subcommands_mut().filter(|command| !command.is_hide_set() && command.get_name() != "help") {
        let _ = write!(text, "\n## `rustbox {}`\n\n", command.get_name());
        let _ = write!(text, "{}.\n\n```\n{}\n```\n", paragraphs(command.get_about()), usage(command));
        text.push_str(&tables(command, |arg| !arg.is_global_set()));
    }
    text
}

fn paragraphs(words: Option<&StyledStr>) -> String {
    words.map(StyledStr::to_string).unwrap_or_default()
}

fn usage(command: &mut Command) -> String {
    let usage = command.render_usage().to_string();
    usage.trim_start_matches("Usage:").trim().to_owned()
}

/// One table per help heading, in the order of their first arguments.
fn tables(command: &Command, wanted: impl Fn(&Arg) -> bool) -> String {
    let listed = |arg: &&Arg| wanted(arg) && !arg.is_hide_set() && arg.get_id() != "help";
    let arguments: Vec<&Arg> = command.get_arguments().filter(listed).collect();
    let mut headings: Vec<Option<&str>> = Vec::new();
    for arg in &arguments {
        if !headings.contains(&arg.get_help_heading()) {
            headings.push(arg.get_help_heading());
        }
    }
    let mut text = String::new();
    for heading in headings {
        if let Some(heading) = heading {
            let _ = write!(text, "\n**{heading}**\n");
        }
        text.push_str("\n| | |\n|---|---|\n");
        for arg in arguments.iter().filter(|arg| arg.get_help_heading() == heading) {
            let _ = writeln!(text, "| {} | {} |", cell(&name(arg)), cell(&meaning(arg)));
        }
    }
    text
}

/// `-b`, `--bundle DIR`, or the placeholder of a positional argument.
fn name(arg: &Arg) -> String {
    let values = arg.get_value_names().unwrap_or_default().iter().map(|name| name.to_string()).collect::<Vec<_>>();
    let value = if arg.get_action().takes_values() { values.join(" ") } else { String::new() };
    if arg.is_positional() {
        return format!("`{value}`");
    }
    let short = arg.get_short_and_visible_aliases().unwrap_or_default().into_iter().map(|short| format!("`-{short}`"));
    let long = arg.get_long_and_visible_aliases().unwrap_or_default().into_iter().map(|long| match value.as_str() {
        "" => format!("`--{long}`"),
        value => format!("`--{long} {value}`"),
    });
    short.chain(long).collect::<Vec<_>>().join(", ")
}

fn meaning(arg: &Arg) -> String {
    let mut words = paragraphs(arg.get_help());
    if !arg.get_action().takes_values() {
        return words;
    }
    let possible: Vec<String> = arg
        .get_possible_values()
        .iter()
        .filter(|value| !value.is_hide_set())
        .map(PossibleValue::get_name)
        .map(|name| format!("`{name}`"))
        .collect();
    if !possible.is_empty() {
        let _ = write!(words, ": {}", possible.join(", "));
    }
    let defaults: Vec<String> =
        arg.get_default_values().iter().map(|value| format!("`{}`", value.to_string_lossy())).collect();
    if !defaults.is_empty() && !arg.is_hide_default_value_set() {
        let _ = write!(words, " (default {})", defaults.join(", "));
    }
    words
}

/// Text inside of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}
