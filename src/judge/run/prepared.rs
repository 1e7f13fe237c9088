//! A program that is ready to be run any number of times: compiled or not, a submission or one of the jury's programs.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use oci_spec::runtime::Spec;

use super::step::Whose;
use super::subject::CompileStep;
use crate::error::Result;
use crate::judge::language::{Base, Language};
use crate::judge::limits::LimitSource;
use crate::judge::sandbox::{BOX, Place};
use crate::judge::stage::Stage;
use crate::judge::toolchain::{self, Found};

/// A program that is ready to be run.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// The language's name, where it is of one.
    pub(super) language: Option<String>,
    /// The run step's configuration, and its limits.
    pub(super) config: Spec,
    pub(super) limits: LimitSource,
    /// What the sandbox shows besides what every sandbox does.
    pub(super) found: Option<Rc<Found>>,
    /// What lies in `/box`.
    pub(super) files: Vec<BoxFile>,
    /// The compile step it comes from.
    pub(super) compiled: Option<CompileStep>,
}

/// A file in `/box`.
#[derive(Debug, Clone)]
pub struct BoxFile {
    /// Its name there.
    pub name: String,
    /// What is in it.
    pub content: Content,
    /// Whether it may be executed.
    pub executable: bool,
}

/// What is in a file.
#[derive(Debug, Clone)]
pub enum Content {
    /// These bytes.
    Bytes(Rc<[u8]>),
    /// What is in a file of the host's at the time of the run.
    File(PathBuf),
}

impl BoxFile {
    /// A file to be read.
    pub fn new(name: &str, content: Content) -> BoxFile {
        BoxFile { name: name.to_owned(), content, executable: false }
    }
}

impl Prepared {
    /// The run step of a language with this file in `/box`.
    pub(super) fn of(language: &Language, found: Rc<Found>, file: BoxFile, compiled: Option<CompileStep>) -> Prepared {
        Prepared {
            language: Some(language.name.clone()),
            config: language.run.config.clone(),
            limits: language.run.limits.clone(),
            found: Some(found),
            files: vec![file],
            compiled,
        }
    }

    /// A source of a language without a compile step.
    ///
    /// # Errors
    /// [`Error::Refused`](crate::error::Error::Refused) where the toolchain is missing.
    pub fn source(language: &Language, text: &[u8]) -> Result<Prepared> {
        let found = Rc::new(toolchain::find(language)?);
        Ok(Prepared::of(language, found, BoxFile::new(&language.source, Content::Bytes(text.into())), None))
    }

    /// An executable file of the host's, in the sandbox under this name.
    pub fn program(base: &Base, name: &str, file: &Path) -> Prepared {
        let mut config = base.config.clone();
        if let Some(process) = config.process_mut() {
            process.set_args(Some(vec![format!("{BOX}/{name}")]));
        }
        let file = BoxFile { executable: true, ..BoxFile::new(name, Content::File(file.to_owned())) };
        Prepared {
            language: None,
            config,
            limits: LimitSource::default(),
            found: None,
            files: vec![file],
            compiled: None,
        }
    }

    /// The same with more files and more arguments.
    #[must_use]
    pub fn with(mut self, files: Vec<BoxFile>, args: Vec<String>) -> Prepared {
        self.files.extend(files);
        if let Some(process) = self.config.process_mut() {
            let given = process.args().iter().flatten().cloned();
            process.set_args(Some(given.chain(args).collect()));
        }
        self
    }

    /// Whose its program is: the toolchain's may have compiled something and still be what is executed.
    pub(super) fn whose(&self) -> Whose {
        let args = self.config.process().as_ref().and_then(|process| process.args().as_deref()).unwrap_or_default();
        let name = args.first().and_then(|path| path.strip_prefix(BOX)?.strip_prefix('/'));
        let made = self.files.iter().any(|file| file.executable && Some(file.name.as_str()) == name);
        if made && self.compiled.is_some() { Whose::Submission } else { Whose::Judge }
    }

    pub(super) fn places(&self) -> &[Place] {
        self.found.as_ref().map_or(&[], |found| &found.places)
    }

    /// Puts its files into a stage.
    pub(super) fn fill(&self, stage: &Stage) -> Result<()> {
        self.files.iter().try_for_each(|file| match &file.content {
            Content::Bytes(bytes) => stage.put_into_box(&file.name, bytes, file.executable),
            Content::File(path) => stage.copy_into_box(&file.name, path, file.executable),
        })
    }
}
