//! Options of `run` that make it a judged run.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::error::{At, Error, Result};
use crate::judge::language::Library;
use crate::judge::limits::{LimitSource, parse_size, parse_time};
use crate::judge::run::{self, Input, Request, Subject};
use crate::judge::sandbox::Share;
use crate::spec;

/// What to judge, and within which limits.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Judge options")]
pub struct JudgeArgs {
    /// Judge this source text
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["source", "judge", "argv"])]
    code: Option<String>,
    /// Judge this source file
    #[arg(long, value_name = "FILE", conflicts_with_all = ["judge", "argv"])]
    source: Option<PathBuf>,
    /// Language of the source [default: sh for --code, by the extension for --source]
    #[arg(long, value_name = "NAME")]
    language: Option<String>,
    /// Judge the bundle
    #[arg(long, conflicts_with = "argv")]
    judge: bool,
    /// Standard input; `-` is the caller's [default: empty]
    #[arg(long, value_name = "FILE")]
    stdin: Option<PathBuf>,
    /// Write the program's output here
    #[arg(long, value_name = "FILE")]
    pub stdout: Option<PathBuf>,
    /// Write the program's error output here
    #[arg(long, value_name = "FILE")]
    pub stderr: Option<PathBuf>,
    /// CPU time in seconds [default: 2]
    #[arg(long, value_name = "S", value_parser = parse_time)]
    time: Option<u64>,
    /// Wall time in seconds [default: 3 × time + 1]
    #[arg(long, value_name = "S", value_parser = parse_time)]
    wall_time: Option<u64>,
    /// How long past a time limit the program is left alive; never changes the verdict [default: 0]
    #[arg(long, value_name = "S", value_parser = parse_time)]
    extra_time: Option<u64>,
    /// Memory, swap included: bytes, or with K, M, G [default: 256M]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    memory: Option<u64>,
    /// Processes and threads [default: 64]
    #[arg(long, value_name = "N")]
    processes: Option<u64>,
    /// Bytes on stdout, and as many on stderr [default: 64M]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    output: Option<u64>,
    /// Size of a file, of the work directory and of /tmp [default: 64M]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    file_size: Option<u64>,
    /// Open files of a process [default: 256]
    #[arg(long, value_name = "N")]
    open_files: Option<u64>,
    /// Stack [default: the memory limit, at most 64M]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    stack: Option<u64>,
    /// Add to the program's environment
    #[arg(long, value_name = "K=V")]
    pub env: Vec<String>,
    /// Show the host's directory OUT in the sandbox as IN
    #[arg(long, value_name = "IN=OUT[:rw]")]
    pub dir: Vec<Share>,
    /// Print the verdict as one JSON object
    #[arg(long)]
    pub json: bool,
    /// Run without controls that this host cannot give, and say so in the verdict
    #[arg(long)]
    pub permissive: bool,
    /// Compile anew, even where the same source was compiled before
    #[arg(long)]
    no_cache: bool,
    /// Judge this program of the host
    #[arg(last = true, value_name = "ARGV")]
    argv: Vec<String>,
}

impl JudgeArgs {
    /// Whether something is to be judged. Judge options without it are a usage error.
    ///
    /// # Errors
    /// [`Error::Usage`].
    pub fn asked(&self) -> Result<bool> {
        if self.code.is_some() || self.source.is_some() || self.judge || !self.argv.is_empty() {
            if self.language.is_some() && self.code.is_none() && self.source.is_none() {
                return Err(Error::Usage("`--language` needs `--code` or `--source`".to_owned()));
            }
            return Ok(true);
        }
        let other = self.language.is_some() || self.json || self.permissive || self.no_cache || self.names_streams();
        if other || !self.limits().is_empty() || !self.env.is_empty() || !self.dir.is_empty() {
            let words = "judge options need something to judge: `--code`, `--source`, `--judge` or `-- ARGV`";
            return Err(Error::Usage(words.to_owned()));
        }
        Ok(false)
    }

    /// Whether a standard stream was named.
    pub fn names_streams(&self) -> bool {
        [&self.stdin, &self.stdout, &self.stderr].into_iter().any(Option::is_some)
    }

    /// The limits that were named.
    pub fn limits(&self) -> LimitSource {
        LimitSource {
            time: self.time,
            wall_time: self.wall_time,
            extra_time: self.extra_time,
            memory: self.memory,
            processes: self.processes,
            output: self.output,
            file_size: self.file_size,
            open_files: self.open_files,
            stack: self.stack,
        }
    }

    /// All of it as a request: what is to be judged, read, and its standard input, opened. The id is for the caller to set.
    ///
    /// # Errors
    /// [`Error::Usage`], and where something cannot be read.
    pub fn request(&self, bundle: &Path) -> Result<Request> {
        if !self.asked()? {
            return Err(Error::Usage("there is nothing to judge".to_owned()));
        }
        if let Some(wrong) = self.env.iter().find(|variable| !variable.contains('=') || variable.starts_with('=')) {
            return Err(Error::Usage(format!("`--env {wrong}` is not K=V")));
        }
        // First: that a source is missing is said before anything is read from standard input.
        let request = Request::new(String::new(), self.subject(bundle)?);
        Ok(Request {
            limits: self.limits(),
            env: self.env.clone(),
            shares: self.dir.clone(),
            stdin: self.input()?,
            permissive: self.permissive,
            no_cache: self.no_cache,
            ..request
        })
    }

    /// What is to be judged, read.
    ///
    /// # Errors
    /// Where it cannot be read, or its language is unknown.
    pub fn subject(&self, bundle: &Path) -> Result<Subject> {
        let library = Library::find();
        let language = |by_default: &dyn Fn(&Library) -> Result<_>| match &self.language {
            Some(name) => library.base().and_then(|base| library.language(name, &base)),
            None => by_default(&library),
        };
        if let Some(text) = &self.code {
            let language = language(&|library| library.language("sh", &library.base()?))?;
            return Ok(Subject::Source { language: Box::new(language), text: text.clone().into_bytes() });
        }
        if let Some(file) = &self.source {
            let language = language(&|library| library.language_of(file, &library.base()?))?;
            return Ok(Subject::Source { language: Box::new(language), text: run::read_source(file)? });
        }
        if self.judge {
            let bundle = spec::load(bundle)?;
            super::exe::protect(&bundle.spec)?;
            return Ok(Subject::Bundle(Box::new(bundle)));
        }
        Ok(Subject::Program(self.argv.clone()))
    }

    /// Standard input, opened.
    ///
    /// # Errors
    /// Where it cannot be.
    pub fn input(&self) -> Result<Input> {
        let Some(path) = &self.stdin else { return Ok(Input::Empty) };
        if path.as_os_str() == "-" {
            let own = std::io::stdin().as_fd().try_clone_to_owned().at("take", "stdin")?;
            let file = File::from(own);
            return Ok(match file.metadata().at("stat", "stdin")?.is_file() {
                true => Input::File(file),
                false => Input::Stream(file.into()),
            });
        }
        // Never waiting for the writer of a FIFO: the run's time limits hold for that too.
        let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path).at("open", path.display())?;
        let kind = file.metadata().at("stat", path.display())?.file_type();
        match () {
            () if kind.is_file() => Ok(Input::File(file)),
            () if kind.is_fifo() || kind.is_char_device() => Ok(Input::Stream(file.into())),
            () => Err(Error::Usage(format!("`{}` cannot be standard input", path.display()))),
        }
    }
}
