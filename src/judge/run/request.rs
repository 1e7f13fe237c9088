//! What a judged run is asked for, and what comes of it.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;

use super::prepared::Prepared;
use crate::error::{At, Error, Result};
use crate::init::report::Ended;
use crate::judge::language::Language;
use crate::judge::limits::{LimitSource, Limits};
use crate::judge::output::Judgement;
use crate::judge::sandbox::Share;
use crate::spec::Bundle;

/// The largest source file.
const MAX_SOURCE: u64 = 64 << 20;

/// What is judged.
#[derive(Debug)]
pub enum Subject {
    /// Source text in a language.
    Source {
        /// Name or alias of the language.
        language: Box<Language>,
        /// The text.
        text: Vec<u8>,
    },
    /// The same, only to be compiled.
    Compile {
        /// The language; it has a compile step.
        language: Box<Language>,
        /// The text.
        text: Vec<u8>,
    },
    /// A program that is ready.
    Prepared(Box<Prepared>),
    /// A program that talks with an interactor.
    Interactive {
        /// The program.
        program: Box<Prepared>,
        /// The interactor.
        interactor: Box<Prepared>,
    },
    /// A program of the host's toolchain directories.
    Program(Vec<String>),
    /// A bundle of the caller's.
    Bundle(Box<Bundle>),
    /// A configuration that is complete.
    Ready(Box<Ready>),
}

/// A configuration that is complete, with its limits and streams.
#[derive(Debug)]
pub struct Ready {
    /// The configuration; what the limits ask of it is in it.
    pub spec: Spec,
    /// What the supervisor holds it to.
    pub limits: Limits,
    /// The directory that its relative paths are of.
    pub bundle: PathBuf,
    /// Standard input, as it is.
    pub stdin: OwnedFd,
    /// Standard output, as it is: nothing of it is read or counted.
    pub stdout: OwnedFd,
    /// The same for standard error.
    pub stderr: OwnedFd,
    /// So many descriptors from 3 on are inherited.
    pub inherit: u32,
}

/// A run to be judged.
#[derive(Debug)]
pub struct Request {
    /// The sandbox's id.
    pub id: String,
    /// What is judged.
    pub subject: Subject,
    /// Limits that the caller named.
    pub limits: LimitSource,
    /// `K=V`.
    pub env: Vec<String>,
    /// Host directories given to the sandbox.
    pub shares: Vec<Share>,
    /// Standard input.
    pub stdin: Input,
    /// Run without controls that the host cannot give.
    pub permissive: bool,
    /// Only on these cores, as a cpuset writes them.
    pub cpus: Option<String>,
    /// Compile anew, whatever the cache holds.
    pub no_cache: bool,
}

impl Request {
    /// A strict run with nothing on standard input and nothing of the caller's; a compiled program may come from the cache.
    pub fn new(id: impl Into<String>, subject: Subject) -> Request {
        Request {
            id: id.into(),
            subject,
            limits: LimitSource::default(),
            env: Vec::new(),
            shares: Vec::new(),
            stdin: Input::Empty,
            permissive: false,
            cpus: None,
            no_cache: false,
        }
    }
}

/// Where standard input comes from.
#[derive(Debug)]
pub enum Input {
    /// Nothing.
    Empty,
    /// These bytes.
    Bytes(Vec<u8>),
    /// Bytes that are all there, copied into a sealed memfd.
    File(std::fs::File),
    /// A pipe, socket or terminal, passed on.
    Stream(OwnedFd),
    /// A pipe of the judge's, which another sandbox writes to.
    Given(OwnedFd),
}

/// A judged run: what is printed, and the program's own output.
#[derive(Debug)]
pub struct Judged {
    /// What is printed.
    pub judgement: Judgement,
    /// The first bytes of the program's stdout.
    pub stdout: Vec<u8>,
    /// The first bytes of the program's stderr.
    pub stderr: Vec<u8>,
    /// What was compiled, where that was all that was asked for.
    pub prepared: Option<Prepared>,
    /// How the program ended, as its init saw it.
    pub ended: Option<Ended>,
}

/// Reads a source file.
///
/// # Errors
/// Where it cannot be read, is no regular file, or is too long.
pub fn read_source(path: &Path) -> Result<Vec<u8>> {
    // Never waiting for the writer of a FIFO.
    let file = std::fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let file = file.at("open", path.display())?;
    if !file.metadata().at("stat", path.display())?.is_file() {
        return Err(Error::Usage(format!("`{}` is not a regular file", path.display())));
    }
    let mut text = Vec::new();
    file.take(MAX_SOURCE + 1).read_to_end(&mut text).at("read", path.display())?;
    if text.len() as u64 > MAX_SOURCE {
        return Err(Error::Usage(format!("`{}` is longer than 64 MiB", path.display())));
    }
    Ok(text)
}
