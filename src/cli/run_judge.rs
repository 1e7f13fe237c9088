//! `rustbox run` with judge options: a submission in, a verdict out.

use std::borrow::Cow;
use std::fs::File;
use std::io::{IsTerminal, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::cgroup::Layout;
use crate::cli::judge_args::JudgeArgs;
use crate::cli::{Global, run, run_tests, say, say_json};
use crate::container::namespaces::Namespaces;
use crate::error::{At, Error, Result};
use crate::judge::capability::Report;
use crate::judge::output::Judgement;
use crate::judge::run::{self as judging, Judge, Judged, Request, Subject};
use crate::judge::toolchain;
use crate::replace::replace;
use crate::sys::Errno;
use crate::sys::calls;
use crate::worker::standing::Standing;

/// Judges, prints, and gives the exit status: 0 OK, 1 another verdict about the program, 2 usage or invalid input, 3 an
/// internal error, 4 refused.
pub fn main(global: &Global, run: &run::Args) -> u8 {
    let run::Args { judge: args, tests, evidence, id, .. } = run;
    let (bundle, id) = (&run.bundle.bundle, id.as_deref());
    let status = tests.asked().and_then(|many| match many {
        _ if global.dry_run => dry_run(args, bundle).map(|()| 0),
        true => run_tests::run(global, args, tests, id),
        false => judge_one(global, args, bundle, id, evidence.as_deref()),
    });
    match status {
        Ok(status) => u8::try_from(status).unwrap_or(3),
        Err(error) => {
            global.log().error(&error.to_string());
            failure(&error)
        }
    }
}

fn judge_one(
    global: &Global,
    args: &JudgeArgs,
    bundle: &Path,
    id: Option<&str>,
    evidence: Option<&Path>,
) -> Result<i32> {
    if let Some(file) = evidence {
        // Opened before anything runs, so that a wrong name costs nothing.
        File::options().append(true).create(true).open(file).at("open", file.display())?;
    }
    let standing = global.standing();
    let healthy = standing.admit()?;
    let judged = judge(global, args, bundle, id)?;
    account(global, &standing, healthy, &judged);
    if let Some(file) = evidence {
        store(file, &judged.judgement)?;
    }
    print(args, &judged)?;
    Ok(judged.judgement.run.status.exit_status())
}

/// Counts how the cleanup of a run went, for the worker's standing. Whether it was proved.
pub fn account(global: &Global, standing: &Standing, healthy: bool, judged: &Judged) -> bool {
    let cleanup = judged.judgement.run.cleanup.as_ref();
    let counted = match cleanup {
        Some(cleanup) if !cleanup.proved => {
            standing.cleanup_failed(&judged.judgement.id, &cleanup.left.join("; ")).map(drop)
        }
        Some(_) if !healthy => standing.cleanup_succeeded(),
        _ => Ok(()),
    };
    // The verdict stands whatever becomes of the count.
    if let Err(error) = counted {
        global.log().warn(&error.to_string());
    }
    cleanup.is_none_or(|cleanup| cleanup.proved)
}

/// The exit status of a run that came to no verdict.
pub fn failure(error: &Error) -> u8 {
    match error {
        Error::Usage(_) | Error::Config { .. } | Error::State { .. } => 2,
        Error::Refused(_) | Error::Quarantined(_) => 4,
        Error::Context { source, .. } => failure(source),
        // A file that the caller named; but what this process or the kernel has run out of is nobody's mistake.
        Error::Sys { step: "open" | "open bundle" | "read" | "stat", errno, .. } if !exhausted(*errno) => 2,
        _ => 3,
    }
}

fn exhausted(errno: Errno) -> bool {
    matches!(errno, Errno::ENOMEM | Errno::EMFILE | Errno::ENFILE | Errno::ENOSPC | Errno::EDQUOT | Errno::EINTR)
}

fn judge(global: &Global, args: &JudgeArgs, bundle: &Path, id: Option<&str>) -> Result<Judged> {
    let request = args.request(bundle)?;
    // Opened before anything runs, so that a wrong name costs nothing.
    for file in [&args.stdout, &args.stderr].into_iter().flatten() {
        File::create(file).at("open", file.display())?;
    }
    let cancel = cancellation()?;
    let root = global.open_root()?;
    let request = Request { id: id.map_or_else(judging::fresh_id, str::to_owned), ..request };
    let judge = Judge::new(&root, global.systemd_cgroup())?.with_cache(global.cache_directory());
    judge.judge(request, Some(cancel.as_fd()))
}

/// SIGINT, SIGTERM and SIGHUP as a descriptor.
///
/// # Errors
/// As `signalfd(2)`.
pub fn cancellation() -> Result<SignalFd> {
    let mut mask = SigSet::empty();
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().for_each(|signal| mask.add(signal));
    mask.thread_block().at("block", "signals")?;
    SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).at("open", "a signalfd")
}

fn print(args: &JudgeArgs, judged: &Judged) -> Result<()> {
    let write = |file: &Option<PathBuf>, bytes: &[u8]| match file {
        Some(file) => std::fs::write(file, bytes).at("write", file.display()).map(|()| true),
        None => Ok(false),
    };
    let stdout_written = write(&args.stdout, &judged.stdout)?;
    let stderr_written = write(&args.stderr, &judged.stderr)?;
    if args.json {
        return say_json(&judged.judgement);
    }
    if !stdout_written {
        std::io::stdout()
            .write_all(&shown(&judged.stdout, std::io::stdout().is_terminal()))
            .and_then(|()| std::io::stdout().flush())
            .at("write to", "stdout")?;
    }
    let mut stderr = std::io::stderr().lock();
    let terminal = stderr.is_terminal();
    let compiler = judged.judgement.compile.iter().map(|compile| &compile.step);
    let compiler = compiler.flat_map(|step| [step.stdout.as_bytes(), step.stderr.as_bytes()]);
    let program = if stderr_written { &[][..] } else { &judged.stderr[..] };
    for bytes in compiler.chain([program, judged.judgement.summary().as_bytes(), b"\n"]) {
        stderr.write_all(&shown(bytes, terminal)).at("write to", "stderr")?;
    }
    Ok(())
}

/// Stores what a verdict was derived from, whole or not at all.
fn store(file: &Path, judgement: &Judgement) -> Result<()> {
    let text = serde_json::to_string_pretty(judgement)
        .map_err(|error| Error::Other(format!("serialise the evidence: {error}")))?;
    replace(file, 0o666, (text + "\n").as_bytes())
}

/// What a program has written, for a terminal: without the control characters that could steer it, type into it or hide
/// what stands there. Files and pipes get every byte.
fn shown(bytes: &[u8], terminal: bool) -> Cow<'_, [u8]> {
    if !terminal {
        return Cow::Borrowed(bytes);
    }
    let text = String::from_utf8_lossy(bytes);
    let harmless = |c: char| matches!(c, '\n' | '\t') || !c.is_control();
    if matches!(text, Cow::Borrowed(_)) && text.chars().all(harmless) {
        return Cow::Borrowed(bytes);
    }
    let caret = |c: char| match c {
        c if harmless(c) => c.to_string(),
        '\u{7f}' => "^?".to_owned(),
        c if c < ' ' => format!("^{}", char::from(c as u8 | 0x40)),
        _ => char::REPLACEMENT_CHARACTER.to_string(),
    };
    Cow::Owned(text.chars().map(caret).collect::<String>().into_bytes())
}

/// `--dry-run run …`: the capability report; nothing is run but the language's probe for its toolchain.
fn dry_run(args: &JudgeArgs, bundle: &Path) -> Result<()> {
    let (namespaces, toolchain) = match args.subject(bundle)? {
        Subject::Bundle(bundle) => (Some(Namespaces::plan(&bundle.spec).new), None),
        Subject::Source { language, .. } => (None, Some(toolchain::probe(&language))),
        _ => (None, None),
    };
    let report = Report { toolchain, calls: calls::lacking(), ..judging::report(namespaces, &Layout::probe()?) };
    if args.json { say_json(&report) } else { say(&report.table()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_gets_no_control_characters_and_a_file_gets_them_all() {
        let hostile = b"a\x1b[2J\x07\r\x00\x7f\xc2\x9b\xff\n\tb".as_slice();
        assert_eq!(shown(hostile, false), hostile);
        assert_eq!(String::from_utf8_lossy(&shown(hostile, true)), "a^[[2J^G^M^@^?\u{fffd}\u{fffd}\n\tb");
        assert!(matches!(shown(b"\x9b2J", true), Cow::Owned(_)), "the escape of terminals of 8 bits");
        assert!(matches!(shown("gr\u{fc}n\n".as_bytes(), true), Cow::Borrowed(_)));
    }
}
