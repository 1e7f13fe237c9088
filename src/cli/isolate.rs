//! `rustbox isolate`, and this program under the name `isolate`: isolate's command line.

use std::ffi::OsString;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use crate::cgroup::{Controller, Layout};
use crate::cli::{Global, run_judge, say};
use crate::error::{At, Error, Result};
use crate::judge::isolate::meta::{self, Outcome};
use crate::judge::isolate::rules::Rules;
use crate::judge::isolate::store::{Locked, Owner};
use crate::judge::isolate::{self, Bounds, Program, Ran, Streams};
use crate::judge::limits::parse_time;

/// Run a program in a box, as isolate does: the same options, meta-file and exit codes
///
/// `--init` makes a box and prints its directory, whose `box` the program sees as /box; `--run -- PROGRAM` runs in it, as
/// often as you like; `--cleanup` removes it. Exit codes: 0 the program ended well, 1 it failed or met a limit, 2 the
/// sandbox failed. Under the name `isolate` (a symlink) the command's name is left out.
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("action").required(true).args(["init", "run", "cleanup", "print_cg_root"])))]
pub struct Args {
    /// Make the box, empty, and print its directory
    #[arg(long)]
    init: bool,
    /// Run the program in the box
    #[arg(long)]
    run: bool,
    /// Remove the box
    #[arg(long)]
    cleanup: bool,
    /// Print where control groups are
    #[arg(long)]
    print_cg_root: bool,
    /// Number of the box
    #[arg(short, long, value_name = "ID", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..1000))]
    box_id: u32,
    /// Write what the run came to to FILE, a `key:value` a line; `-` is standard output
    #[arg(short = 'M', long, value_name = "FILE")]
    meta: Option<PathBuf>,
    /// Standard input from a file of the box
    #[arg(short = 'i', long, value_name = "FILE")]
    stdin: Option<PathBuf>,
    /// Standard output to a file of the box
    #[arg(short = 'o', long, value_name = "FILE")]
    stdout: Option<PathBuf>,
    /// Standard error to a file of the box
    #[arg(short = 'r', long, value_name = "FILE", conflicts_with = "stderr_to_stdout")]
    stderr: Option<PathBuf>,
    /// Standard error to where standard output goes
    #[arg(long)]
    stderr_to_stdout: bool,
    /// Working directory, in /box
    #[arg(short, long, value_name = "DIR")]
    chdir: Option<PathBuf>,
    /// Address space of each process, KiB
    #[arg(short, long, value_name = "KIB")]
    mem: Option<u64>,
    /// CPU time, seconds
    #[arg(short, long, value_name = "S", value_parser = parse_time)]
    time: Option<u64>,
    /// Wall time, seconds
    #[arg(short, long, value_name = "S", value_parser = parse_time)]
    wall_time: Option<u64>,
    /// How long past a time limit the program is left alive, seconds
    #[arg(short = 'x', long, value_name = "S", value_parser = parse_time)]
    extra_time: Option<u64>,
    /// Stack, KiB
    #[arg(short = 'k', long, value_name = "KIB")]
    stack: Option<u64>,
    /// Open files; 0 is no limit
    #[arg(short = 'n', long, value_name = "N", default_value_t = 64)]
    open_files: u64,
    /// Size of a file, KiB
    #[arg(short = 'f', long, value_name = "KIB")]
    fsize: Option<u64>,
    /// Refused: see --fsize, and docs/isolate.md
    #[arg(short, long, value_name = "BLOCKS,INODES")]
    quota: Option<String>,
    /// Size of a core dump, KiB
    #[arg(long, value_name = "KIB", default_value_t = 0)]
    core: u64,
    /// Processes and threads; without N no limit [default: 1]
    #[arg(short, long, value_name = "N", num_args = 0..=1, require_equals = true, default_missing_value = "0")]
    processes: Option<u64>,
    /// Give the program the variable VAR as it is here, or as said
    #[arg(short = 'E', long, value_name = "VAR[=VALUE]")]
    env: Vec<String>,
    /// Give the program all variables
    #[arg(short = 'e', long)]
    full_env: bool,
    /// Show a directory: IN, IN=OUT, or IN= to leave it out; options: rw dev noexec maybe fs tmp norec
    #[arg(short, long, value_name = "IN[=OUT][:OPTION]")]
    dir: Vec<String>,
    /// Begin without the usual directories
    #[arg(short = 'D', long)]
    no_default_dirs: bool,
    /// Memory and time of all processes together (they are always measured so; this is about the meta-file)
    #[arg(long)]
    cg: bool,
    /// Memory of all processes together, KiB
    #[arg(long, value_name = "KIB", requires = "cg")]
    cg_mem: Option<u64>,
    /// Share the host's network
    #[arg(long)]
    share_net: bool,
    /// Let the program inherit descriptors
    #[arg(long)]
    inherit_fds: bool,
    /// Accepted: a terminal works without it
    #[arg(long)]
    tty_hack: bool,
    /// Keep links, pipes, sockets and devices that the program leaves in the box
    #[arg(long)]
    special_files: bool,
    /// Wait for whoever uses the box
    #[arg(long)]
    wait: bool,
    /// Whose the box's files are
    #[arg(long, value_name = "UID", requires = "as_gid")]
    as_uid: Option<u32>,
    /// Whose the box's files are
    #[arg(long, value_name = "GID", requires = "as_uid")]
    as_gid: Option<u32>,
    /// Say nothing about the run
    #[arg(short, long)]
    silent: bool,
    /// Say more
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,
    /// The program and its arguments
    #[arg(trailing_var_arg = true, value_name = "PROGRAM")]
    program: Vec<String>,
}

/// What isolate's `getopt` takes and clap does not: under the name `isolate` the command is left out, and `-p5` has its
/// number without `=`.
pub fn rewrite(arguments: Vec<OsString>) -> Vec<OsString> {
    let named = arguments.first().is_some_and(|name| Path::new(name).file_name() == Some("isolate".as_ref()));
    if !named && !arguments.iter().skip(1).any(|word| word == "isolate") {
        return arguments;
    }
    let mut words = arguments.into_iter();
    let mut all: Vec<OsString> = words.next().into_iter().collect();
    if named {
        all.push("isolate".into());
    }
    let mut program = false;
    for word in words {
        program |= word == "--";
        let count = word
            .to_str()
            .and_then(|word| word.strip_prefix("-p"))
            .filter(|rest| !program && !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()));
        all.push(count.map_or_else(|| word.clone(), |count| format!("--processes={count}").into()));
    }
    all
}

/// Runs `isolate`.
pub fn main(global: &Global, args: &Args) -> u8 {
    act(global, args).unwrap_or_else(|error| {
        global.log().error(&error.to_string());
        if let Some(file) = args.meta.as_deref().filter(|_| args.run)
            && let Err(error) = write_meta(file, &meta::failed(&error.to_string()))
        {
            global.log().error(&error.to_string());
        }
        2
    })
}

fn act(global: &Global, args: &Args) -> Result<u8> {
    if args.print_cg_root {
        return cgroup_root().and_then(|root| say(&root.display().to_string())).map(|()| 0);
    }
    if args.quota.is_some() {
        return Err(Error::Usage("--quota cannot be had here: limit a file by --fsize".to_owned()));
    }
    if !nix::unistd::geteuid().is_root() {
        return Err(Error::Refused("isolate needs root".to_owned()));
    }
    let state = global.worker_path();
    let mut locked = Locked::take(&state, args.box_id, args.wait)?;
    let owner = Owner {
        uid: args.as_uid.unwrap_or_else(|| nix::unistd::getuid().as_raw()),
        gid: args.as_gid.unwrap_or_else(|| nix::unistd::getgid().as_raw()),
    };
    if args.init {
        locked.init(owner)?;
        return say(&locked.place().display().to_string()).map(|()| 0);
    }
    if args.cleanup {
        return locked.cleanup().map(|()| 0);
    }
    run(global, args, &locked)
}

fn run(global: &Global, args: &Args, locked: &Locked) -> Result<u8> {
    if args.program.is_empty() {
        return Err(Error::Usage("there is no program to run".to_owned()));
    }
    if let Some(file) = &args.meta {
        // A name that cannot be written costs nothing yet.
        write_meta(file, "")?;
    }
    global.standing().admit()?;
    let program = program(args)?;
    let cancel = run_judge::cancellation()?;
    let root = global.open_root()?;
    let Ran { judged, limits, not_returned } =
        isolate::run(&root, locked, &program, global.systemd_cgroup(), Some(cancel.as_fd()))?;
    run_judge::account(global, &global.standing(), true, &judged);
    let step = &judged.judgement.run;
    let outcome = Outcome::of(step, judged.judgement.detail.as_deref(), &limits);
    let not_returned = not_returned.map(|error| error.to_string());
    if let Some(file) = &args.meta {
        write_meta(file, &meta::file(&outcome, step, judged.ended.as_ref(), args.cg, not_returned.as_deref()))?;
    }
    if let Some(why) = &not_returned {
        global.log().error(why);
    }
    if !args.silent {
        eprintln!("{}", outcome.line(step));
    }
    if args.verbose > 0 {
        eprintln!("{}", judged.judgement.summary());
    }
    Ok(outcome.exit_code())
}

/// The program that the options mean.
///
/// # Errors
/// [`Error::Usage`] for a directory rule that is none.
pub fn program(args: &Args) -> Result<Program> {
    let mut rules = if args.no_default_dirs { Rules::default() } else { Rules::standard()? };
    args.dir.iter().try_for_each(|text| rules.set(text))?;
    let kib = |value: Option<u64>| value.map(|kib| kib.saturating_mul(1024));
    Ok(Program {
        id: args.box_id,
        args: args.program.clone(),
        env: environment(args),
        chdir: args.chdir.clone(),
        bounds: Bounds {
            time: args.time,
            wall_time: args.wall_time,
            extra_time: args.extra_time,
            address_space: kib(args.mem),
            memory: kib(args.cg_mem),
            stack: kib(args.stack),
            open_files: Some(args.open_files).filter(|count| *count > 0),
            file_size: kib(args.fsize),
            core: args.core.saturating_mul(1024),
            processes: Some(args.processes.unwrap_or(1)).filter(|count| *count > 0),
        },
        streams: Streams {
            stdin: args.stdin.clone(),
            stdout: args.stdout.clone(),
            stderr: args.stderr.clone(),
            stderr_to_stdout: args.stderr_to_stdout,
        },
        rules,
        share_net: args.share_net,
        inherit: if args.inherit_fds { inherited()? } else { 0 },
        special_files: args.special_files,
    })
}

/// What the program finds in its environment: isolate's one variable, and what was asked for, the last word counting.
fn environment(args: &Args) -> Vec<String> {
    let here = |name: &str| std::env::var(name).ok().map(|value| format!("{name}={value}"));
    let mut all = vec!["LIBC_FATAL_STDERR_=1".to_owned()];
    if args.full_env {
        all.extend(std::env::vars().map(|(name, value)| format!("{name}={value}")));
    }
    all.extend(args.env.iter().filter_map(|rule| if rule.contains('=') { Some(rule.clone()) } else { here(rule) }));
    let name = |variable: &String| variable.split('=').next().map(str::to_owned);
    let mut last: Vec<String> = Vec::new();
    for variable in all {
        last.retain(|known| name(known) != name(&variable));
        last.push(variable);
    }
    last
}

/// How many descriptors from 3 on the caller has left open for the program.
fn inherited() -> Result<u32> {
    use nix::fcntl::{FcntlArg, FdFlag, fcntl};
    let mut last = 2;
    for entry in std::fs::read_dir("/proc/self/fd").at("read", "/proc/self/fd")?.flatten() {
        let Some(fd) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        if fcntl(fd, FcntlArg::F_GETFD).is_ok_and(|flags| flags & FdFlag::FD_CLOEXEC.bits() == 0) {
            last = last.max(fd);
        }
    }
    Ok(u32::try_from(last - 2).unwrap_or(0))
}

fn cgroup_root() -> Result<PathBuf> {
    let layout = Layout::probe()?;
    let memory = layout.hierarchies.iter().find(|it| it.controllers.contains(&Controller::Memory));
    let root = memory.or_else(|| layout.hierarchies.first()).map(|it| it.root.clone());
    root.ok_or_else(|| Error::Refused("there are no control groups here".to_owned()))
}

fn write_meta(file: &Path, text: &str) -> Result<()> {
    if file == Path::new("-") {
        return if text.is_empty() { Ok(()) } else { say(text) };
    }
    std::fs::write(file, text).at("write", file.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_of_isolate_is_taken_as_it_is() {
        let words = |text: &str| text.split(' ').map(OsString::from).collect::<Vec<_>>();
        let said = |text: &str| rewrite(words(text));
        assert_eq!(said("/opt/isolate --run -p5 -- x -p5"), words("/opt/isolate isolate --run --processes=5 -- x -p5"));
        assert_eq!(said("rustbox isolate -p --run"), words("rustbox isolate -p --run"));
        assert_eq!(said("rustbox run -p5"), words("rustbox run -p5"));
    }
}
