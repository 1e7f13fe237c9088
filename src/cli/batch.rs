//! `rustbox batch`: jobs in, verdicts out, one JSON object a line.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use indicatif::ProgressBar;

use crate::cli::batch_job::Reader;
use crate::cli::{Global, exe, progress, run_judge};
use crate::error::{At, Error, Result};
use crate::judge::batch::cores::Cores;
use crate::judge::batch::input::Lines;
use crate::judge::batch::journal::Journal;
use crate::judge::batch::output::Results;
use crate::judge::batch::{self, Batch, Caller, Job, Summary};
use crate::judge::run::{Judge, Judged};
use crate::judge::supervisor::processors;
use crate::worker::standing::Standing;

/// Judge many submissions: one JSON object a line in, one verdict a line out, in the order in which they end
///
/// A job's keys are the long options of `run` with underscores: `code` or `source` (with `language`), or `argv`, or `bundle`
/// with `judge`; `stdin` (the text itself) or `stdin_file`; `time`, `memory`, `processes` …; and `id`, which its result has
/// too. A line that makes no sense has an `error` instead of a verdict, and the others run.
///
/// SIGINT and SIGTERM end what runs, prove it gone, and give it the verdict IE with the cause ie_cancelled.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How many jobs at a time [default: the number of cores]
    #[arg(short, long, value_name = "N")]
    jobs: Option<usize>,
    /// Append every job that is done to FILE, and skip what it names: to go on where a batch was stopped
    #[arg(long, value_name = "FILE")]
    journal: Option<PathBuf>,
    /// Give each of the jobs that run at a time N cores, which it cannot leave
    #[arg(long, value_name = "N")]
    cpus: Option<usize>,
    /// Refuse to begin where a core would be shared, with this batch's jobs or another's (needs --cpus)
    #[arg(long, requires = "cpus")]
    exclusive_cores: bool,
    /// Run without controls that this host cannot give, and say so in each verdict
    #[arg(long)]
    permissive: bool,
    /// No progress and no summary on stderr
    #[arg(short, long)]
    quiet: bool,
    /// The jobs [default: standard input]
    #[arg(value_name = "JOBS")]
    file: Option<PathBuf>,
}

/// Runs `batch`: 0 every line has a verdict, 1 some have an error instead, 2 usage, 3 some verdict is IE or the batch was
/// stopped, 4 refused.
pub fn main(global: &Global, args: &Args) -> u8 {
    run(global, args).unwrap_or_else(|error| {
        global.log().error(&error.to_string());
        run_judge::failure(&error)
    })
}

fn run(global: &Global, args: &Args) -> Result<u8> {
    if args.jobs == Some(0) || args.cpus == Some(0) {
        return Err(Error::Usage("`--jobs` and `--cpus` are at least 1".to_owned()));
    }
    // Before a job asks for it in the middle of others.
    exe::protect_always()?;
    let standing = global.standing();
    let healthy = standing.admit()?;
    let slots = args.jobs.unwrap_or_else(processors);
    let (lines, size) = jobs(args)?;
    let journal = args.journal.as_deref().map(Journal::open).transpose()?;
    let cancel = run_judge::cancellation()?;
    let root = global.open_root()?;
    let cores = args.cpus.map(|each| Cores::lease(root.path(), each, slots, args.exclusive_cores)).transpose()?;
    let judge = Judge::new(&root, global.systemd_cgroup())?.with_cache(global.cache_directory());
    let stdout = std::io::stdout().as_fd().try_clone_to_owned().at("take", "stdout")?;
    let batch = Batch { slots, lines, results: Results::new(stdout, false), journal, cores, cancel: &cancel };
    let mut caller = Worker { reader: Reader::new(args.permissive), global, standing, healthy, bar: bar(args, size) };
    let summary = batch::run(&judge, batch, &mut caller)?;
    caller.bar.finish_and_clear();
    if !args.quiet {
        // Where it cannot be written nobody reads it.
        let _ = writeln!(std::io::stderr(), "{}", summary.line());
    }
    Ok(match () {
        () if summary.refused.is_some() => 4,
        () if summary.cancelled || summary.unread || summary.verdicts.contains_key("IE") => 3,
        () if summary.errors > 0 => 1,
        () => 0,
    })
}

/// The jobs, and how many bytes they have where that is known.
fn jobs(args: &Args) -> Result<(Lines, Option<u64>)> {
    let Some(path) = args.file.as_ref().filter(|path| path.as_os_str() != "-") else {
        let own = File::from(std::io::stdin().as_fd().try_clone_to_owned().at("take", "stdin")?);
        let size = own.metadata().ok().filter(std::fs::Metadata::is_file).map(|metadata| metadata.len());
        return Ok((Lines::new(own.into(), size.is_some()), size));
    };
    // Never waiting for the writer of a FIFO: the reading waits.
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path).at("open", path.display())?;
    let metadata = file.metadata().at("stat", path.display())?;
    if metadata.is_dir() {
        return Err(Error::Usage(format!("`{}` is a directory", path.display())));
    }
    let size = metadata.is_file().then_some(metadata.len());
    Ok((Lines::new(file.into(), size.is_some()), size))
}

/// For a person who watches; hidden from everybody else.
fn bar(args: &Args, size: Option<u64>) -> ProgressBar {
    let template = match size {
        Some(_) => "{bar:30} {percent}% {elapsed_precise} {msg}",
        None => "{spinner} {elapsed_precise} {msg}",
    };
    progress::bar(args.quiet, size, template)
}

/// The worker as the batch's caller.
struct Worker<'a> {
    reader: Reader,
    global: &'a Global,
    standing: Standing,
    healthy: bool,
    bar: ProgressBar,
}

impl Caller for Worker<'_> {
    fn job(&mut self, line: &[u8]) -> Job {
        self.reader.job(line)
    }

    fn kind(&self, error: &Error) -> &'static str {
        // The same as of a run by itself.
        match run_judge::failure(error) {
            2 => "invalid",
            4 => "refused",
            _ => "internal",
        }
    }

    fn judged(&mut self, judged: &Judged) -> Result<()> {
        let proved = run_judge::account(self.global, &self.standing, self.healthy, judged);
        self.healthy = self.healthy && proved;
        // After a failed cleanup the worker may be quarantined.
        if proved { Ok(()) } else { self.standing.admit().map(drop) }
    }

    fn progress(&mut self, summary: &Summary, read: u64) {
        if !self.bar.is_hidden() {
            self.bar.set_message(summary.line());
            self.bar.set_position(read);
        }
    }
}
