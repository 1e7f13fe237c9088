//! Whether the host has what a language needs: for `--dry-run`, which runs the bundle's `probe`, and only that.

use std::io::Read;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use super::language::Language;
use crate::sys::process;

/// How long a probe may take: a version is printed in milliseconds, a JVM may need a second.
const PATIENCE: Duration = Duration::from_secs(10);
/// How much of a probe's output is looked at, in bytes.
const OUTPUT: u64 = 16 << 10;

/// What the probe of a language has found.
#[derive(Debug, Clone, Serialize)]
pub struct Toolchain {
    /// The language's name.
    pub language: String,
    /// The probe succeeded.
    pub found: bool,
    /// The first line that it printed; `null` where it printed none or failed.
    pub version: Option<String>,
    /// The probe: program and arguments.
    pub probe: Vec<String>,
    /// Why it failed, in words; `null` where it succeeded.
    pub reason: Option<String>,
    /// What to install where it failed, as the bundle names it: packages of Debian.
    pub install: Vec<String>,
}

/// Runs a language's probe with the PATH of its sandbox and nothing else of the caller's environment.
pub fn probe(language: &Language) -> Toolchain {
    let config = language.compile.as_ref().map_or(&language.run.config, |step| &step.config);
    let env = config.pointer("/process/env").and_then(Value::as_array);
    let mut variables = env.into_iter().flatten().filter_map(Value::as_str);
    let path = variables.find_map(|variable| variable.strip_prefix("PATH=")).unwrap_or("/usr/bin:/bin");
    let result = run(&language.toolchain.probe, path);
    let (version, reason) = match result {
        Ok(version) => (version, None),
        Err(reason) => (None, Some(reason)),
    };
    Toolchain {
        language: language.name.clone(),
        found: reason.is_none(),
        version,
        probe: language.toolchain.probe.clone(),
        reason,
        install: language.toolchain.install.clone(),
    }
}

/// The first line of what a command prints, or why there is none.
fn run(argv: &[String], path: &str) -> Result<Option<String>, String> {
    let Some((program, arguments)) = argv.split_first() else { return Err("the probe is empty".to_owned()) };
    let said = |error: std::io::Error| match error.raw_os_error() {
        Some(code) => nix::errno::Errno::from_raw(code).desc().to_owned(),
        None => error.to_string(),
    };
    let mut command = Command::new(program);
    command.args(arguments).env_clear().env("PATH", path).current_dir("/");
    // What it says goes into files, so that neither a flood of it nor a child that lives on is waited for.
    let file = || nix::sys::memfd::memfd_create(c"probe", nix::sys::memfd::MemFdCreateFlag::MFD_CLOEXEC);
    let (mut out, mut err) = match (file(), file()) {
        (Ok(out), Ok(err)) => (std::fs::File::from(out), std::fs::File::from(err)),
        (Err(errno), _) | (_, Err(errno)) => return Err(errno.desc().to_owned()),
    };
    command.stdin(Stdio::null()).stdout(out.try_clone().map_err(said)?).stderr(err.try_clone().map_err(said)?);
    let mut child = command.spawn().map_err(said)?;
    let pidfd = process::pidfd_open(child.id() as libc::pid_t).map_err(|errno| errno.desc().to_owned())?;
    let ended = process::wait_end(pidfd.as_fd(), PATIENCE.as_millis() as i32).unwrap_or(false);
    if !ended {
        let _ = child.kill();
    }
    let status = child.wait().map_err(said)?;
    let first_line = |file: &mut std::fs::File| {
        let mut bytes = Vec::new();
        let _ = std::io::Seek::rewind(file).and_then(|()| file.take(OUTPUT).read_to_end(&mut bytes));
        let text = String::from_utf8_lossy(&bytes).into_owned();
        text.lines().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned)
    };
    let (out, err) = (first_line(&mut out), first_line(&mut err));
    match () {
        () if !ended => Err(format!("did not end within {} s", PATIENCE.as_secs())),
        // Some print their version on stderr.
        () if status.success() => Ok(out.or(err)),
        () => Err(err.map_or_else(|| status.to_string(), |line| format!("{status}: {line}"))),
    }
}

impl Toolchain {
    /// A line for people.
    pub fn line(&self) -> String {
        let Toolchain { language, version, probe, reason, install, .. } = self;
        match reason {
            None => format!("toolchain of {language}: {}", version.as_deref().unwrap_or("found")),
            Some(reason) => {
                let install = match install.is_empty() {
                    true => String::new(),
                    false => format!("; install {}", install.join(", ")),
                };
                format!("toolchain of {language}: MISSING: `{}`: {reason}{install}", probe.join(" "))
            }
        }
    }
}
