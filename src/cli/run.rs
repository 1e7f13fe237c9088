//! `rustbox run`: a container in the foreground, or detached; with judge options, a verdict.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use crate::cli::create::BundleArgs;
use crate::cli::judge_args::JudgeArgs;
use crate::cli::test_args::TestArgs;
use crate::cli::{Global, report, run_judge};
use crate::container::console;
use crate::container::created::Created;
use crate::container::notify_socket;
use crate::container::options::Options;
use crate::container::run::{foreground, launch, wants_terminal};
use crate::error::{Error, Result};
use crate::spec;

/// Run a container, or judge a submission
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Options of the bundle.
    #[command(flatten)]
    pub bundle: BundleArgs,
    /// Return once the program is started
    #[arg(short, long)]
    pub detach: bool,
    /// Do not delete the container when its program has ended
    #[arg(long)]
    pub keep: bool,
    /// Name of the container
    #[arg(value_name = "ID")]
    pub id: Option<String>,
    /// Options of the judge.
    #[command(flatten)]
    pub judge: JudgeArgs,
    /// Write the verdict and everything that it was derived from here, for `verdict --replay`
    #[arg(long, value_name = "FILE", conflicts_with = "tests", help_heading = "Judge options")]
    pub evidence: Option<PathBuf>,
    /// Options for many tests.
    #[command(flatten)]
    pub tests: TestArgs,
}

/// Runs `run`.
pub fn main(global: &Global, args: Args) -> u8 {
    match args.judge.asked() {
        Ok(true)
            if args.detach
                || args.keep
                || args.bundle.pid_file.is_some()
                || args.bundle.console_socket.is_some()
                || args.bundle.config != Path::new("config.json") =>
        {
            let words = "a judged run knows no --detach, --keep, --pid-file, --console-socket and --config".to_owned();
            return report(global, &Error::Usage(words));
        }
        Ok(true) => return run_judge::main(global, &args),
        Ok(false) if args.evidence.is_some() => {
            let words = "`--evidence` is of a judged run; `rustbox verdict ID` has that of a container".to_owned();
            return report(global, &Error::Usage(words));
        }
        Ok(false) => match args.tests.asked() {
            Ok(false) => {}
            Ok(true) => return report(global, &Error::Usage("`--tests` needs `--source` or `--code`".to_owned())),
            Err(error) => return report(global, &error),
        },
        Err(error) => return report(global, &error),
    }
    match container(global, &args) {
        Ok(status) => status,
        Err(error) => report(global, &error),
    }
}

fn container(global: &Global, args: &Args) -> Result<u8> {
    let id = args.id.as_deref().ok_or_else(|| {
        let judged = "or something to judge: --source FILE, --code TEXT or -- ARGV";
        Error::Usage(format!("run needs the ID of the container, {judged}"))
    })?;
    spec::validate_id(id)?;
    global.standing().admit()?;
    let mut bundle = args.bundle.load(global)?;
    super::exe::protect(&bundle.spec)?;
    if !args.detach && args.bundle.console_socket.is_none() && wants_terminal(&bundle) {
        let mut process = bundle.spec.process().clone().unwrap_or_default();
        console::size_like_the_callers(&mut process);
        bundle.spec.set_process(Some(process));
    }
    let notify = notify_socket::offer(&mut bundle.spec);
    let log = global.log();
    let mut warn = |text: String| log.warn(&text);
    let options = Options { notify, warn: Some(&mut warn), ..args.bundle.options(global)? };
    let root = global.open_root()?;
    if args.detach {
        let Created { directory, pidfd, proxy, .. } = launch(&root, id, &bundle, options)?;
        drop(directory);
        return proxy.map_or(Ok(0), |proxy| proxy.wait(pidfd.as_fd()).map(|()| 0));
    }
    let ran = foreground(&root, id, &bundle, options, args.keep)?;
    ran.warnings.iter().for_each(|warning| log.warn(&warning.to_string()));
    ran.proof.map(|proof| proof.require()).transpose()?;
    Ok(ran.ended.status())
}
