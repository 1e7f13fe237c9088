//! The commands, as one table.
//!
//! A command's options are described only when it is the one that was called, and the other commands not at all where
//! the line makes sense: describing all takes longer than everything else between the start of this program and its first
//! call for a container.

use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::{ArgMatches, Args, FromArgMatches, Subcommand};

use super::{
    batch, calibrate, checkpoint, create, delete, events, exec, features, health, isolate, kill, languages, list,
    manual, metrics, pause, ps, reference, restore, run, schema, spec, start, state, update, verdict,
};

macro_rules! commands {
    ($($(#[doc = $about:literal])+ $(#[$hidden:ident])? $variant:ident($name:literal, $args:ty),)+) => {
        /// The commands.
        #[derive(Debug)]
        pub enum Command {
            $($(#[doc = $about])+ $variant($args),)+
        }

        impl Command {
            /// Adds to a definition the one command that the first of the words to be any command's name calls, unless
            /// that word is the value of an option.
            pub fn augment_called(definition: clap::Command, words: &[OsString]) -> clap::Command {
                let called = words.iter().skip(1).find_map(|word| match word.to_str() {
                    $(Some($name) => Some(<$args>::augment_args(clap::Command::new($name))),)+
                    _ => None,
                });
                definition.subcommands(called)
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
    /// Judge a stored run again, by its evidence
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
