//! One file per command: arguments in, library calls, output out.

pub mod batch;
pub mod batch_job;
pub mod calibrate;
pub mod checkpoint;
pub mod command;
pub mod create;
pub mod delete;
pub mod events;
pub mod exe;
pub mod exec;
pub mod features;
pub mod global;
pub mod health;
pub mod isolate;
pub mod judge_args;
pub mod kill;
pub mod languages;
pub mod list;
pub mod log;
pub mod manual;
pub mod metrics;
pub mod pause;
pub mod progress;
pub mod ps;
pub mod reference;
pub mod restore;
pub mod run;
pub mod run_judge;
pub mod run_tests;
pub mod schema;
pub mod spec;
pub mod start;
pub mod state;
pub mod test_args;
mod units;
pub mod update;
pub mod verdict;

use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser};

use crate::error::Error;
use crate::sys::Errno;
use crate::sys::calls;
use crate::sys::entry;
use crate::worker::Standing;
use crate::worker::metrics::{self as counts, file::Trouble};
use crate::worker::standing::Cause;
pub use command::Command;
pub use global::Global;

/// The version of the runtime specification that this program implements.
pub const SPEC_VERSION: &str = "1.3.0";

/// The last line is crun's way to say what a build can do.
const VERSION: &str = concat!(
    "version ",
    env!("CARGO_PKG_VERSION"),
    "\nspec: 1.3.0\n+SYSTEMD +SELINUX +APPARMOR +CAP +SECCOMP +EBPF +CRIU"
);

/// An OCI container runtime that can judge what it runs.
///
/// As a runtime it takes the command line of runc: containerd, podman and Docker call it as they call any other.
/// As a judge, `rustbox run --source FILE` runs a submission in a sandbox and prints a verdict with its evidence.
#[derive(Debug, Parser)]
#[command(name = "rustbox", version = VERSION, disable_version_flag = true, max_term_width = 100, propagate_version = false, subcommand_required = true, arg_required_else_help = true)]
pub struct Cli {
    #[command(flatten)]
    version: Version,
    /// Options of every command.
    #[command(flatten)]
    pub global: Global,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Args)]
struct Version {
    /// Print the versions of the program and of the specification
    #[arg(short = 'v', visible_short_alias = 'V', long, action = clap::ArgAction::Version)]
    version: Option<bool>,
}

/// Runs the command line and gives its exit status.
pub fn main() -> u8 {
    entry::adopt();
    let arguments = global::join_rootless(isolate::rewrite(std::env::args_os().collect()));
    let (global, command) = match parse(&arguments) {
        Ok(parsed) => parsed,
        Err(error) => {
            // Where even this cannot be printed, nobody is there to read it.
            let _ = error.print();
            let shown = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            return if shown { 0 } else { usage_status(&arguments) };
        }
    };
    if let Err(error) = global.log().open() {
        log::complain(&error.to_string());
        return 1;
    }
    global.log().debug(|| format!("command: {command:?}"));
    let place = global.clone();
    counts::count_in(move || place.metrics_file());
    let status = dispatch(&global, command);
    match counts::trouble() {
        Some(Trouble::Unusable(error)) => global.log().warn(&format!("nothing is counted: {error}")),
        // Whoever runs it without a place of its own need not hear of it each time.
        Some(Trouble::Forbidden(error)) => global.log().debug(|| format!("nothing is counted: {error}")),
        None => {}
    }
    status
}

fn dispatch(global: &Global, command: Command) -> u8 {
    let done = match command {
        Command::Create(args) => create::main(global, args),
        Command::Start(args) => start::main(global, &args),
        Command::State(args) => state::main(global, &args),
        Command::Kill(args) => kill::main(global, &args),
        Command::Delete(args) => delete::main(global, &args),
        Command::Run(args) => return run::main(global, *args),
        Command::Isolate(args) => return isolate::main(global, &args),
        Command::Batch(args) => return batch::main(global, &args),
        Command::Exec(args) => return exec::main(global, *args),
        Command::Languages(args) => return languages::main(global, &args),
        Command::Calibrate(args) => return calibrate::main(global, &args),
        Command::Verdict(args) => return verdict::main(global, &args),
        Command::Health(args) => return health::main(global, &args),
        Command::Metrics(args) => metrics::main(global, &args),
        Command::List(args) => list::main(global, &args),
        Command::Ps(args) => ps::main(global, &args),
        Command::Pause(args) => pause::main(global, &args, true),
        Command::Resume(args) => pause::main(global, &args, false),
        Command::Update(args) => update::main(global, &args),
        Command::Events(args) => events::main(global, &args),
        Command::Checkpoint(args) => checkpoint::main(global, &args),
        Command::Restore(args) => return restore::main(global, &args),
        Command::Spec(args) => spec::main(global, &args),
        Command::Features(_) => features::main(),
        Command::Man(args) => manual::man(&args),
        Command::Schema(args) => schema::main(&args),
        Command::Reference(_) => reference::main(),
        Command::Completions(args) => manual::completions(&args),
    };
    match done {
        Ok(()) => 0,
        Err(error) => report(global, &error),
    }
}

/// Parses the line for the command that its words seem to call, as if there were no other. Where that fails the whole
/// definition decides, about help and errors; but the version is the same with either.
fn parse(arguments: &[OsString]) -> Result<(Global, Command), clap::Error> {
    if let Some(called) = Command::called(arguments) {
        return Ok(called);
    }
    let definition = clap::Command::new("rustbox").version(VERSION).disable_version_flag(true);
    match Version::augment_args(Global::augment_args(definition)).try_get_matches_from(arguments) {
        Err(error) if error.kind() == ErrorKind::DisplayVersion => Err(error),
        _ => Cli::try_parse_from(arguments).map(|Cli { global, command, .. }| (global, command)),
    }
}

/// The exit status of a command line that makes no sense: each command has its own.
fn usage_status(arguments: &[OsString]) -> u8 {
    let known = Cli::command().ignore_errors(true).try_get_matches_from(arguments);
    match known.ok().as_ref().and_then(|matches| matches.subcommand_name()) {
        Some("health") => health::USAGE,
        _ => 2,
    }
}

/// Says an error once, on stderr and in the log, and gives the exit status that belongs to it.
pub fn report(global: &Global, error: &Error) -> u8 {
    global.log().error(&error.to_string());
    if let Some((id, left, orphans)) = unclean(error)
        && let Err(error) = not_clean(&global.standing(), id, &left, orphans)
    {
        global.log().warn(&error.to_string());
    }
    if let Some(Errno::ENOSYS | Errno::EPERM) = error.errno()
        && let Some(calls) = calls::lacking()
    {
        global.log().warn(&format!("this kernel, or a filter around this process, lacks system calls: {calls}"));
    }
    match error {
        Error::Usage(_) => 2,
        Error::Quarantined(_) => 4,
        _ => 1,
    }
}

/// Counts a cleanup that was not proved. One orphan is enough for a quarantine: whatever moved it may have moved others.
///
/// # Errors
/// Where it cannot be written down.
fn not_clean(standing: &Standing, id: &str, left: &str, orphans: usize) -> crate::Result<()> {
    standing.cleanup_failed(id, left)?;
    if orphans > 0 {
        standing.condemn(Cause::OrphanProcess, "a process has outlived its container", left)?;
    }
    Ok(())
}

/// The container of an unproved cleanup, what is left of it in words, and how many of that are processes.
fn unclean(error: &Error) -> Option<(&str, String, usize)> {
    match error {
        Error::Unclean { id, left, orphans } => Some((id, left.join("; "), *orphans)),
        Error::Context { source, .. } => unclean(source),
        _ => None,
    }
}

/// Writes a line to stdout.
///
/// # Errors
/// As `write(2)`, for instance `EPIPE`.
pub fn say(text: &str) -> crate::Result<()> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.write_all(if text.ends_with('\n') { b"" } else { b"\n" }))
        .and_then(|()| out.flush())
        .map_err(|error| Error::io("write to", "stdout", &error))
}

/// Prints a value as indented JSON.
///
/// # Errors
/// As [`say`].
pub fn say_json(value: &impl serde::Serialize) -> crate::Result<()> {
    use std::io::Write;
    // Written as it is made: a program's output may be large, and would be held once more.
    let mut out = std::io::BufWriter::with_capacity(64 << 10, std::io::stdout().lock());
    serde_json::to_writer_pretty(&mut out, value).map_err(|error| match error.io_error_kind() {
        Some(_) => Error::io("write to", "stdout", &error.into()),
        None => Error::Other(format!("print JSON: {error}")),
    })?;
    out.write_all(b"\n").and_then(|()| out.flush()).map_err(|error| Error::io("write to", "stdout", &error))
}
