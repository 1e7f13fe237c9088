//! The commands, as one table.
//!
//! A command's options are described only when it is the one that was called, and the other commands not at all where
//! the line makes sense: describing all takes longer than everything else between the start of this program and its first
//! call for a container. Nor is it then a command of another: clap copies what holds for all of them, and reads it twice.

use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::{ArgAction, ArgMatches, Args, FromArgMatches, Subcommand};

use super::global::Global;
use super::{
    batch, calibrate, checkpoint, create, delete, events, exec, features, health, isolate, kill, languages, list,
    manual, metrics, pause, ps, reference, restore, run, schema, spec, start, state, update, verdict,
};

/// Whether words are options of the definition with their values, and nothing else. What is not certain is not.
fn are_options(words: &[OsString], definition: &clap::Command) -> bool {
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let Some(option) = word.to_str().and_then(|word| word.strip_prefix("--")) else { return false };
        let (name, given) = option.split_once('=').map_or((option, false), |(name, _)| (name, true));
        let Some(argument) = definition.get_arguments().find(|it| it.get_long() == Some(name)) else { return false };
        // What may be repeated would add up over the command's name.
        if matches!(argument.get_action(), ArgAction::Append) {
            return false;
        }
        let takes = argument.get_action().takes_values() && !argument.is_require_equals_set();
        if takes && !given && words.next().is_none() {
            return false;
        }
    }
    true
}

macro_rules! commands {
    ($($(#[doc = $about:literal])+ $(#[$hidden:ident])? $variant:ident($name:literal, $args:ty),)+) => {
        /// The commands.
        #[derive(Debug)]
        pub enum Command {
            $($(#[doc = $about])+ $variant($args),)+
        }

        impl Command {
            /// Where the first of the words stands that is a command's name; the first of all is the program's.
            pub fn position(words: &[OsString]) -> Option<usize> {
                let is_name = |word: &OsString| word.to_str().is_some_and(Self::has_subcommand);
                words.iter().skip(1).position(is_name).map(|at| at + 1)
            }

            /// Reads a line that makes sense: the first of its words to be a command's name calls that, and what stands
            /// before are options of every command.
            pub fn called(words: &[OsString]) -> Option<(Global, Command)> {
                let at = Self::position(words)?;
                let definition = Global::augment_args(clap::Command::new("rustbox"));
                if !are_options(&words[1..at], &definition) {
                    return None;
                }
                let line = words[..at].iter().chain(&words[at + 1..]);
                match words[at].to_str()? {
                    $($name => {
                        let mut matches = <$args>::augment_args(definition).try_get_matches_from(line).ok()?;
                        let global = Global::from_arg_matches_mut(&mut matches).ok()?;
                        Some((global, Command::$variant(<$args>::from_arg_matches_mut(&mut matches).ok()?)))
                    })+
                    _ => None,
                }
            }
        }

        impl Subcommand for Command {
            fn augment_subcommands(command: clap::Command) -> clap::Command {
                command$(.subcommand(
                    clap::Command::new($name)
                        .about(concat!($($about),+).trim_ascii())
                        $(.$hidden(true))?
                        .defer(|it| <$args>::augment_args(it).about(concat!($($about),+).trim_ascii())),
                ))+
            }

            fn augment_subcommands_for_update(command: clap::Command) -> clap::Command {
                Self::augment_subcommands(command)
            }

            fn has_subcommand(name: &str) -> bool {
                [$($name),+].contains(&name)
            }
        }

        impl FromArgMatches for Command {
            fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
                Self::from_arg_matches_mut(&mut matches.clone())
            }

            fn from_arg_matches_mut(matches: &mut ArgMatches) -> Result<Self, clap::Error> {
                match matches.remove_subcommand() {
                    $(Some((name, mut sub)) if name == $name => {
                        <$args>::from_arg_matches_mut(&mut sub).map(Command::$variant)
                    })+
                    _ => Err(clap::Error::raw(ErrorKind::MissingSubcommand, "a command is missing\n")),
                }
            }

            fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
                *self = Self::from_arg_matches(matches)?;
                Ok(())
            }
        }
    };
}

commands! {
    /// Create a container from a bundle; its program waits for `start`
    Create("create", create::Args),
    /// Start the program of a created container
    Start("start", start::Args),
    /// Print the state of a container
    State("state", state::Args),
    /// Send a signal to a container
    Kill("kill", kill::Args),
    /// Delete a container and prove that nothing of it remains
    Delete("delete", delete::Args),
    /// Run a container, or judge a submission
    Run("run", Box<run::Args>),
    /// Judge many submissions: a job a line in, a verdict a line out
    Batch("batch", batch::Args),
    /// Run a program in a box as isolate does
    Isolate("isolate", Box<isolate::Args>),
    /// Run one more process in a container
    Exec("exec", Box<exec::Args>),
    /// List the languages of the judge, and what this host has of them
    Languages("languages", languages::Args),
    /// Measure what this machine's figures are worth, and print a report
    Calibrate("calibrate", calibrate::Args),
    /// Print the verdict of a container that an engine runs, or judge a stored run again
    Verdict("verdict", verdict::Args),
    /// Tell whether this worker can be trusted, find what dead commands have left of it, remove it and prove it gone
    Health("health", health::Args),
    /// Print the metrics of this worker in Prometheus' text format, or serve them
    Metrics("metrics", metrics::Args),
    /// List the containers
    List("list", list::Args),
    /// List the processes of a container
    Ps("ps", ps::Args),
    /// Freeze the processes of a container
    Pause("pause", pause::Args),
    /// Thaw the processes of a paused container
    Resume("resume", pause::Args),
    /// Change the resource limits of a container
    Update("update", Box<update::Args>),
    /// Print what a container uses, and its OOM situations
    Events("events", events::Args),
    /// Save a running container's processes by CRIU, and delete it
    Checkpoint("checkpoint", Box<checkpoint::Args>),
    /// Bring a container back from CRIU's images
    Restore("restore", Box<restore::Args>),
    /// Write a config.json to start from
    Spec("spec", spec::Args),
    /// Print what this runtime can do
    Features("features", features::Args),
    /// Write the manual pages
    #[hide]
    Man("man", manual::ManArgs),
    /// Print the JSON Schema of what a command prints
    Schema("schema", schema::Args),
    /// Print the reference of the command line as Markdown
    #[hide]
    Reference("reference", reference::Args),
    /// Print a completion script for a shell
    #[hide]
    Completions("completions", manual::CompletionArgs),
}
