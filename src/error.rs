//! The one public error of the library: what was being done, to which object, and why it failed.

use nix::errno::Errno;

/// The result of every fallible function of the library.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a command failed. Printed once, with its chain, by the command line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The command line asks for something that makes no sense.
    #[error("{0}")]
    Usage(String),

    /// `config.json` (or another input document) is invalid; `pointer` is the JSON path of the fault.
    #[error("{pointer}: {reason}")]
    Config {
        /// JSON path of the fault, such as `$.linux.namespaces[2].type`.
        pointer: String,
        /// What is wrong with it.
        reason: String,
    },

    /// The container is not in a state that allows the operation, or does not exist.
    #[error("container `{id}` {reason}")]
    State {
        /// The container's id.
        id: String,
        /// For example `does not exist` or `cannot be started: it is stopped`.
        reason: String,
    },

    /// A system call failed.
    #[error("{step} `{object}`: {}", errno.desc())]
    Sys {
        /// What was being done, such as `open` or `write uid_map of`.
        step: &'static str,
        /// The object it was done to.
        object: String,
        /// The kernel's answer.
        errno: Errno,
    },

    /// The container's first process reported an error of its own.
    #[error("{text}")]
    Init {
        /// The errno at the root, or 0.
        errno: i32,
        /// The whole chain in words.
        text: String,
    },

    /// A control that the bundle or the judge asks for cannot be given by this host.
    #[error("refused: {0}")]
    Refused(String),

    /// The worker takes no work.
    #[error("this worker is quarantined, {0}; see `rustbox health`")]
    Quarantined(String),

    /// Something that should be gone after a release remains; the proof names it.
    #[error("cleanup of `{id}` is not proved: {}", left.join("; "))]
    Unclean {
        /// The container's id.
        id: String,
        /// Each leftover in words.
        left: Vec<String>,
        /// How many of them are processes.
        orphans: usize,
    },

    /// Anything else, in words that name the object.
    #[error("{0}")]
    Other(String),

    /// An error with what was being done around it.
    #[error("{context}: {source}")]
    Context {
        /// What was being done.
        context: String,
        /// What failed.
        source: Box<Error>,
    },
}

impl Error {
    /// A failed system call: `Error::sys("open", path, errno)`.
    pub fn sys(step: &'static str, object: impl std::fmt::Display, errno: Errno) -> Self {
        Error::Sys { step, object: object.to_string(), errno }
    }

    /// A failed I/O operation of the standard library.
    pub fn io(step: &'static str, object: impl std::fmt::Display, error: &std::io::Error) -> Self {
        match error.raw_os_error() {
            Some(code) => Error::sys(step, object, Errno::from_raw(code)),
            None => Error::Other(format!("{step} `{object}`: {error}")),
        }
    }

    /// An invalid document: `Error::config("$.root.path", "is empty")`.
    pub fn config(pointer: impl Into<String>, reason: impl Into<String>) -> Self {
        Error::Config { pointer: pointer.into(), reason: reason.into() }
    }

    /// A container in the wrong state.
    pub fn state(id: &str, reason: impl Into<String>) -> Self {
        Error::State { id: id.to_owned(), reason: reason.into() }
    }

    /// The errno at the root of the chain, where there is one.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Error::Sys { errno, .. } => Some(*errno),
            Error::Init { errno, .. } if *errno != 0 => Some(Errno::from_raw(*errno)),
            Error::Context { source, .. } => source.errno(),
            _ => None,
        }
    }
}

/// Adds what was being done to an error: `load(path).context(|| format!("bundle `{path}`"))?`.
pub trait Context<T> {
    /// Wraps the error, if there is one.
    fn context(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Context<T> for Result<T> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::Context { context: what(), source: Box::new(source) })
    }
}

/// Names the step and the object of a bare errno: `sys::mkdir(p).at("mkdir", p)?`.
pub trait At<T> {
    /// Turns the errno into [`Error::Sys`].
    fn at(self, step: &'static str, object: impl std::fmt::Display) -> Result<T>;
}

impl<T> At<T> for std::result::Result<T, Errno> {
    fn at(self, step: &'static str, object: impl std::fmt::Display) -> Result<T> {
        self.map_err(|errno| Error::sys(step, object, errno))
    }
}

impl<T> At<T> for std::io::Result<T> {
    fn at(self, step: &'static str, object: impl std::fmt::Display) -> Result<T> {
        self.map_err(|error| Error::io(step, object, &error))
    }
}
