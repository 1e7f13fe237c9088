//! What a language needs of the host: where it is, whether it is there, which version.
//!
//! A run looks only for the programs and for the directory that a command names (`[toolchain.directory]`); the probe runs
//! for `--dry-run` and `languages`.

use std::ffi::OsString;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;

use super::language::{Directory, Language};
use super::sandbox::Place;
use crate::error::{Error, Result};
use crate::sys::path::is_cached;
use crate::sys::pidfd;

/// How long a probe may take: a version is printed in milliseconds, a JVM may need a second.
const PATIENCE: Duration = Duration::from_secs(10);
/// How much of a probe's output is looked at, in bytes.
const OUTPUT: u64 = 16 << 10;

/// What the probe of a language has found.
#[derive(Debug, Clone, Serialize, JsonSchema)]
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

/// Where a language's toolchain is on this host.
#[derive(Debug, Clone)]
pub struct Found {
    /// What the sandbox shows besides what every sandbox does.
    pub places: Vec<Place>,
    /// The programs it needs, as the host has them.
    pub programs: Vec<PathBuf>,
}

/// Finds a language's toolchain without running it.
///
/// # Errors
/// [`Error::Refused`] with what to install where it is not here.
pub fn find(language: &Language) -> Result<Found> {
    let install = installation(&language.toolchain.install);
    let found = seek(language).map_err(|reason| {
        Error::Refused(format!("the toolchain of language `{}` is missing: {reason}{install}", language.name))
    })?;
    warm(language, &found);
    Ok(found)
}

/// Brings into the page cache what every run of the language reads, where it is not: the kernel charges a page of a file to
/// whoever reads it first, and that is not to be the first submission after a boot. Nothing depends on it but that figure.
fn warm(language: &Language, found: &Found) {
    let Some((program, arguments)) = language.toolchain.warm.split_first() else { return };
    let path = search_path(language, &found.places);
    let Some(program) = look_up(program, &path) else { return };
    let Ok(mut file) = std::fs::File::open(&program) else { return };
    // All of it, so that the next look says so; a kernel that cannot be asked is left alone.
    if is_cached(file.as_fd()) == Ok(false) && std::io::copy(&mut file, &mut std::io::sink()).is_ok() {
        let mut command = Command::new(program);
        command.args(arguments).env_clear().env("PATH", path);
        let _ = run(command);
    }
}

fn seek(language: &Language) -> Result<Found, String> {
    let toolchain = &language.toolchain;
    let mut places: Vec<Place> = toolchain.paths.iter().flat_map(|path| expand(path)).map(Place::same).collect();
    if let Some(directory) = &toolchain.directory {
        let printed = locate(directory).map_err(|reason| format!("`{}`: {reason}", directory.command.join(" ")))?;
        places.push(Place::elsewhere(printed, directory.at.clone()));
    }
    let needs = if toolchain.needs.is_empty() { toolchain.probe.get(..1) } else { Some(&toolchain.needs[..]) };
    let path = search_path(language, &places);
    let mut programs = Vec::new();
    for name in needs.unwrap_or_default() {
        programs.push(look_up(name, &path).ok_or_else(|| format!("`{name}`: No such file or directory"))?);
    }
    Ok(Found { places, programs })
}

fn installation(packages: &[String]) -> String {
    if packages.is_empty() { String::new() } else { format!("; install {}", packages.join(", ")) }
}

/// The PATH of the language's first step with what the sandbox shows elsewhere put back to where the host has it.
fn search_path(language: &Language, places: &[Place]) -> OsString {
    let config = language.compile.as_ref().map_or(&language.run.config, |step| &step.config);
    let env = config.process().as_ref().and_then(|process| process.env().as_deref()).unwrap_or_default();
    // The last one counts, as in the sandbox.
    let mut variables = env.iter().rev();
    let path = variables.find_map(|variable| variable.strip_prefix("PATH=")).unwrap_or("/usr/bin:/bin");
    let outside = |directory: &str| {
        let directory = Path::new(directory);
        let moved =
            places.iter().find_map(|place| Some(place.outside.join(directory.strip_prefix(&place.inside).ok()?)));
        moved.unwrap_or_else(|| directory.to_owned())
    };
    std::env::join_paths(path.split(':').map(outside)).unwrap_or_default()
}

/// A program on a PATH.
fn look_up(name: &str, path: &std::ffi::OsStr) -> Option<PathBuf> {
    let executable = |path: &PathBuf| {
        std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
    };
    if name.contains('/') {
        return Some(PathBuf::from(name)).filter(executable);
    }
    std::env::split_paths(path).map(|directory| directory.join(name)).find(executable)
}

/// A path whose last component may hold a `*`: what there is.
fn expand(path: &Path) -> Vec<PathBuf> {
    let pattern = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.split_once('*'));
    let (Some((start, end)), Some(parent)) = (pattern, path.parent()) else { return vec![path.to_owned()] };
    let names = std::fs::read_dir(parent)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok());
    let fits = |name: &String| name.len() >= start.len() + end.len() && name.starts_with(start) && name.ends_with(end);
    let mut found: Vec<PathBuf> = names.filter(fits).map(|name| parent.join(name)).collect();
    found.sort();
    found
}

/// Runs the command that names a directory.
fn locate(directory: &Directory) -> Result<PathBuf, String> {
    let home = std::env::var_os("HOME").filter(|home| !home.is_empty()).or_else(|| {
        // Services often run without one.
        nix::unistd::geteuid().is_root().then(|| OsString::from("/root"))
    });
    let caller = std::env::var_os("PATH").unwrap_or_default();
    let more = directory.search.iter().filter_map(|place| match (place.strip_prefix("~/"), &home) {
        (Some(below), Some(home)) => Some(Path::new(home).join(below)),
        (Some(_), None) => None,
        (None, _) => Some(PathBuf::from(place)),
    });
    let path = std::env::join_paths(std::env::split_paths(&caller).chain(more)).unwrap_or_default();
    let Some((name, arguments)) = directory.command.split_first() else {
        return Err("the command is empty".to_owned());
    };
    let program = look_up(name, &path).ok_or_else(|| format!("`{name}` is not here"))?;
    let mut command = Command::new(program);
    command.args(arguments).env_clear().env("PATH", &path);
    command.envs(home.map(|home| ("HOME", home)));
    // Which of several toolchains is the caller's choice.
    let chosen =
        ["RUSTUP_HOME", "RUSTUP_TOOLCHAIN"].into_iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
    command.envs(chosen);
    let printed = PathBuf::from(run(command)?.unwrap_or_default());
    match printed.is_absolute() && printed != Path::new("/") && printed.is_dir() {
        true => Ok(printed),
        false => Err(format!("`{}` is no directory", printed.display())),
    }
}

/// Runs a language's probe with the PATH of its sandbox and nothing else of the caller's environment.
pub fn probe(language: &Language) -> Toolchain {
    let probe = &language.toolchain.probe;
    let result = seek(language).and_then(|found| {
        let path = search_path(language, &found.places);
        let (program, arguments) = probe.split_first().ok_or("the probe is empty")?;
        let program = look_up(program, &path).ok_or_else(|| format!("`{program}`: No such file or directory"))?;
        let mut command = Command::new(program);
        command.args(arguments).env_clear().env("PATH", path);
        run(command)
    });
    match result {
        Ok(version) => Toolchain { found: true, version, reason: None, ..unknown(language, "") },
        Err(reason) => unknown(language, &reason),
    }
}

/// A toolchain that cannot be told to be here.
pub fn unknown(language: &Language, reason: &str) -> Toolchain {
    Toolchain {
        language: language.name.clone(),
        found: false,
        version: None,
        probe: language.toolchain.probe.clone(),
        reason: Some(reason.to_owned()),
        install: language.toolchain.install.clone(),
    }
}

/// The first line of what a command prints, or why there is none.
fn run(mut command: Command) -> Result<Option<String>, String> {
    let said = |error: std::io::Error| match error.raw_os_error() {
        Some(code) => nix::errno::Errno::from_raw(code).desc().to_owned(),
        None => error.to_string(),
    };
    command.current_dir("/");
    // What it says goes into files, so that neither a flood of it nor a child that lives on is waited for.
    let file = || nix::sys::memfd::memfd_create(c"probe", nix::sys::memfd::MemFdCreateFlag::MFD_CLOEXEC);
    let (mut out, mut err) = match (file(), file()) {
        (Ok(out), Ok(err)) => (std::fs::File::from(out), std::fs::File::from(err)),
        (Err(errno), _) | (_, Err(errno)) => return Err(errno.desc().to_owned()),
    };
    command.stdin(Stdio::null()).stdout(out.try_clone().map_err(said)?).stderr(err.try_clone().map_err(said)?);
    let mut child = command.spawn().map_err(said)?;
    let pidfd = pidfd::open(child.id() as libc::pid_t).map_err(|errno| errno.desc().to_owned())?;
    let ended = pidfd::wait_end(pidfd.as_fd(), PATIENCE.as_millis() as i32).unwrap_or(false);
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
        format!("toolchain of {}: {}", self.language, self.state())
    }

    /// The version, or what is missing and what to install.
    pub fn state(&self) -> String {
        let Toolchain { version, probe, reason, install, .. } = self;
        match reason {
            None => version.clone().unwrap_or_else(|| "found".to_owned()),
            Some(reason) => format!("MISSING: `{}`: {reason}{}", probe.join(" "), installation(install)),
        }
    }
}
