//! Languages: one directory each, an OCI configuration per step and a `language.toml`. A new language is a new
//! directory, no Rust.
//!
//! ```text
//! base.json           the judge's sandbox as an OCI configuration
//! base.toml           what every sandbox binds from the host
//! <name>/language.toml   source name, extensions, toolchain, limits
//! <name>/run.json        laid over base.json (objects merged, env appended, the rest replaced)
//! <name>/compile.json    the same for the compile step, where there is one
//! <name>/<file>          what `files` in language.toml names: beside the source in the compile step
//! ```
//!
//! In `args` and `env` of either configuration `${memory}`, `${memory-mib}` and `${stack}` stand for the limits that hold.
//!
//! The binary carries the directory; `$RUSTBOX_BUNDLES` or `<prefix>/share/rustbox/bundles` takes its place.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::limits::LimitSource;
use crate::error::{At, Context, Error, Result};

/// The files below `bundles/`, by their path there.
static EMBEDDED: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/bundles.rs"));

/// Where language bundles come from.
#[derive(Debug, Clone)]
pub struct Library {
    /// `None`: the ones in the binary.
    directory: Option<PathBuf>,
}

/// `base.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Base {
    /// Host paths bound read-only; what the host lacks is left out.
    pub paths: Vec<PathBuf>,
    /// Inodes of the work directory and of /tmp, each.
    pub inodes: u64,
    /// The greatest size of the cache of compiled programs, bytes.
    #[serde(default, deserialize_with = "super::limits::size")]
    pub cache: u64,
    /// Files that change whenever packages of the host do: with them what was compiled earlier is no longer used.
    #[serde(default)]
    pub packages: Vec<PathBuf>,
    /// Limits of the jury's programs, checkers and interactors.
    #[serde(default)]
    pub jury: LimitSource,
    /// `base.json`.
    #[serde(skip)]
    pub config: Spec,
}

/// `language.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    name: String,
    title: String,
    #[serde(default)]
    aliases: Vec<String>,
    extensions: Vec<String>,
    source: String,
    #[serde(default)]
    artefact: Option<String>,
    #[serde(default)]
    files: Vec<String>,
    toolchain: Toolchain,
    #[serde(default)]
    limits: LimitSource,
    #[serde(default)]
    multipliers: Multipliers,
    #[serde(default)]
    compile: CompileManifest,
}

/// What a language needs of the host.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Toolchain {
    /// Host paths bound read-only besides those of [`Base`]. The last component may hold one `*`.
    #[serde(default)]
    pub paths: Vec<PathBuf>,
    /// A directory that a command names, where it is not the same on every host.
    #[serde(default)]
    pub directory: Option<Directory>,
    /// A command that succeeds where the toolchain is installed, and prints its version.
    pub probe: Vec<String>,
    /// Programs without which nothing is tried; the probe's own where none is named.
    #[serde(default)]
    pub needs: Vec<String>,
    /// What to install where it does not: packages of Debian.
    #[serde(default)]
    pub install: Vec<String>,
    /// A command that reads what every run of the language reads, so that no submission is charged for it.
    #[serde(default)]
    pub warm: Vec<String>,
}

/// A directory of the host that a command names: a toolchain in somebody's home, say.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Directory {
    /// Prints the directory as its first line. Run with the caller's PATH and home.
    pub command: Vec<String>,
    /// Where else its program is looked for, after the caller's PATH; `~/` is the caller's home.
    #[serde(default)]
    pub search: Vec<String>,
    /// Where the sandbox has it, read-only.
    pub at: PathBuf,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct CompileManifest {
    limits: LimitSource,
}

/// Factors on the default limits, never on what the caller asked for.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Multipliers {
    time: f64,
    memory: f64,
}

impl Default for Multipliers {
    fn default() -> Self {
        Multipliers { time: 1.0, memory: 1.0 }
    }
}

/// A language, ready to be instantiated.
#[derive(Debug, Clone)]
pub struct Language {
    /// The directory's name.
    pub name: String,
    /// For people.
    pub title: String,
    /// What the source is called in the sandbox, below `/box`.
    pub source: String,
    /// What the compile step leaves in `/work`, and the run step finds in `/box`.
    pub artefact: Option<String>,
    /// Files of the bundle that the compile step finds beside the source: name and content.
    pub files: Vec<(String, String)>,
    /// Other names of it.
    pub aliases: Vec<String>,
    /// Extensions of its source files.
    pub extensions: Vec<String>,
    /// What it needs of the host.
    pub toolchain: Toolchain,
    /// The compile step, where there is one.
    pub compile: Option<Step>,
    /// The run step.
    pub run: Step,
}

/// One step of a language.
#[derive(Debug, Clone)]
pub struct Step {
    /// The whole OCI configuration, limits and identities still missing.
    pub config: Spec,
    /// The step's own limits.
    pub limits: LimitSource,
}

impl Library {
    /// `$RUSTBOX_BUNDLES`, else `<prefix>/share/rustbox/bundles` beside the binary's `<prefix>/bin`, else the binary's own.
    pub fn find() -> Library {
        if let Some(directory) = std::env::var_os("RUSTBOX_BUNDLES").filter(|value| !value.is_empty()) {
            return Library { directory: Some(directory.into()) };
        }
        let installed = std::env::current_exe().ok().and_then(|exe| {
            let prefix = exe.parent().filter(|bin| bin.ends_with("bin"))?.parent()?;
            Some(prefix.join("share/rustbox/bundles")).filter(|path| path.join("base.json").exists())
        });
        Library { directory: installed }
    }

    /// The ones in the binary.
    pub fn embedded() -> Library {
        Library { directory: None }
    }

    fn read(&self, file: &str) -> Result<Option<String>> {
        match &self.directory {
            None => Ok(EMBEDDED.iter().find(|(name, _)| *name == file).map(|(_, text)| (*text).to_owned())),
            Some(directory) => {
                let path = directory.join(file);
                match std::fs::read_to_string(&path) {
                    Ok(text) => Ok(Some(text)),
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
                    Err(error) => Err(error).at("read", path.display()),
                }
            }
        }
    }

    fn require(&self, file: &str) -> Result<String> {
        self.read(file)?.ok_or_else(|| Error::Other(format!("language bundle file `{file}` does not exist")))
    }

    fn json<T: DeserializeOwned>(&self, file: &str) -> Result<Option<T>> {
        let Some(text) = self.read(file)? else { return Ok(None) };
        serde_json::from_str(&text)
            .map(Some)
            .map_err(|error| Error::config(format!("bundles/{file}"), error.to_string()))
    }

    fn toml<T: DeserializeOwned>(&self, file: &str) -> Result<T> {
        let text = self.require(file)?;
        toml::from_str(&text).map_err(|error| Error::config(format!("bundles/{file}"), error.message().to_owned()))
    }

    /// The judge's sandbox without a language.
    pub fn base(&self) -> Result<Base> {
        let mut base: Base = self.toml("base.toml")?;
        base.config = self
            .json("base.json")?
            .ok_or_else(|| Error::Other("language bundle file `base.json` does not exist".to_owned()))?;
        Ok(base)
    }

    /// The names of all languages, sorted.
    pub fn names(&self) -> Result<Vec<String>> {
        let mut names = BTreeSet::new();
        match &self.directory {
            None => names.extend(EMBEDDED.iter().filter_map(|(file, _)| {
                let (name, file) = file.split_once('/')?;
                (file == "language.toml").then(|| name.to_owned())
            })),
            Some(directory) => {
                for entry in std::fs::read_dir(directory).at("read", directory.display())? {
                    let entry = entry.at("read", directory.display())?;
                    if entry.path().join("language.toml").exists() {
                        names.extend(entry.file_name().into_string().ok());
                    }
                }
            }
        }
        Ok(names.into_iter().collect())
    }

    /// The language of that name or alias.
    pub fn language(&self, name: &str, base: &Base) -> Result<Language> {
        let plain = !name.is_empty() && !name.contains(['/', '\0']) && !name.starts_with('.');
        if plain && self.read(&format!("{name}/language.toml"))?.is_some() {
            return self.load(name, base);
        }
        let names = self.names()?;
        for candidate in &names {
            if self.manifest(candidate)?.aliases.iter().any(|alias| alias == name) {
                return self.load(candidate, base);
            }
        }
        Err(Error::Usage(format!("language `{name}` is unknown; there are {}", names.join(", "))))
    }

    /// The language that a source file's extension names.
    pub fn language_of(&self, source: &Path, base: &Base) -> Result<Language> {
        let extension = source.extension().and_then(|extension| extension.to_str()).unwrap_or("");
        for name in self.names()? {
            if self.manifest(&name)?.extensions.iter().any(|known| known == extension) {
                return self.load(&name, base);
            }
        }
        Err(Error::Usage(format!("the extension of `{}` names no language; say --language", source.display())))
    }

    fn manifest(&self, name: &str) -> Result<Manifest> {
        self.toml(&format!("{name}/language.toml"))
    }

    fn load(&self, name: &str, base: &Base) -> Result<Language> {
        let manifest = self.manifest(name)?;
        let template = serde_json::to_value(&base.config)
            .map_err(|error| Error::config("bundles/base.json", error.to_string()))?;
        let step = |file: &str, limits: &LimitSource| -> Result<Option<Step>> {
            let Some(patch) = self.json(&format!("{name}/{file}"))? else { return Ok(None) };
            let invalid = |error: serde_json::Error| Error::config(format!("bundles/{name}/{file}"), error.to_string());
            let mut config = template.clone();
            overlay(&mut config, patch);
            Ok(Some(Step { config: serde_json::from_value(config).map_err(invalid)?, limits: limits.clone() }))
        };
        let defaults = LimitSource::default().resolve().context(|| "default limits".to_owned())?;
        let defaults = LimitSource {
            time: Some(defaults.cpu_time_ms),
            memory: Some(defaults.memory_bytes),
            ..LimitSource::default()
        };
        let scaled = manifest.limits.over(&defaults).scaled(manifest.multipliers.time, manifest.multipliers.memory);
        let compile = step("compile.json", &manifest.compile.limits)?;
        if compile.is_some() != manifest.artefact.is_some() {
            let path = format!("bundles/{name}/language.toml");
            return Err(Error::config(path, "a compile step needs an artefact, and an artefact a compile step"));
        }
        for file in std::iter::once(&manifest.source).chain(&manifest.artefact).chain(&manifest.files) {
            if file.is_empty() || file.contains('/') || file.starts_with('.') {
                return Err(Error::config(
                    format!("bundles/{name}/language.toml"),
                    format!("`{file}` is not a plain file name"),
                ));
            }
        }
        let files = manifest.files.into_iter().map(|file| {
            let content = self.require(&format!("{name}/{file}"))?;
            Ok((file, content))
        });
        Ok(Language {
            files: files.collect::<Result<_>>()?,
            aliases: manifest.aliases,
            extensions: manifest.extensions,
            run: step("run.json", &scaled)?
                .ok_or_else(|| Error::Other(format!("language bundle file `{name}/run.json` does not exist")))?,
            compile,
            name: manifest.name,
            title: manifest.title,
            source: manifest.source,
            artefact: manifest.artefact,
            toolchain: manifest.toolchain,
        })
    }
}

/// Lays `patch` over `base`: objects are merged, `env` and `mounts` are appended to, everything else is replaced.
fn overlay(base: &mut Value, patch: Value) {
    match (base, patch) {
        (Value::Object(base), Value::Object(patch)) => {
            for (key, value) in patch {
                match base.get_mut(&key) {
                    Some(Value::Array(list)) if key == "env" || key == "mounts" => match value {
                        Value::Array(more) => list.extend(more),
                        other => *list = vec![other],
                    },
                    Some(below) => overlay(below, value),
                    None => {
                        base.insert(key, value);
                    }
                }
            }
        }
        (base, patch) => *base = patch,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_embedded_language_loads_and_is_a_valid_configuration() {
        let library = Library::embedded();
        let base = library.base().unwrap();
        let names = library.names().unwrap();
        assert_eq!(names, ["c", "cpp", "go", "java", "javascript", "python", "rust", "sh", "typescript"]);
        for name in names {
            let language = library.language(&name, &base).unwrap();
            assert_eq!(language.name, name);
            for step in language.compile.iter().chain([&language.run]) {
                let process = step.config.process().as_ref().unwrap();
                assert!(!process.args().as_ref().unwrap().is_empty());
                assert_eq!(process.no_new_privileges(), Some(true));
                step.limits.resolve().unwrap();
            }
        }
    }

    #[test]
    fn languages_are_found_by_alias_and_extension() {
        let library = Library::embedded();
        let base = library.base().unwrap();
        assert_eq!(library.language("c++", &base).unwrap().name, "cpp");
        assert_eq!(library.language_of(Path::new("x/a.py"), &base).unwrap().name, "python");
        assert_eq!(library.language_of(Path::new("a.cc"), &base).unwrap().name, "cpp");
        for unknown in ["cobol", "", "../c", ".", "c/../c"] {
            assert!(matches!(library.language(unknown, &base), Err(Error::Usage(_))), "{unknown}");
        }
        assert!(matches!(library.language_of(Path::new("a.txt"), &base), Err(Error::Usage(_))));
    }

    #[test]
    fn a_directory_is_a_new_language_without_any_rust() {
        let directory = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| {
            let path = directory.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write(
            "base.json",
            r#"{"ociVersion":"1.2.0","process":{"env":["A=1"],"cwd":"/","user":{"uid":1,"gid":1}},"mounts":[]}"#,
        );
        write("base.toml", "paths = []\ninodes = 10");
        write(
            "awk/language.toml",
            "name='awk'\ntitle='AWK'\nextensions=['awk']\nsource='p.awk'\n[toolchain]\nprobe=['awk']\n[multipliers]\ntime=2.0",
        );
        write("awk/run.json", r#"{"process":{"args":["awk","-f","/box/p.awk"],"env":["B=2"]}}"#);
        let library = Library { directory: Some(directory.path().to_owned()) };
        let base = library.base().unwrap();
        let awk = library.language("awk", &base).unwrap();
        let process = awk.run.config.process().as_ref().unwrap();
        assert_eq!(process.env().as_ref().unwrap(), &["A=1", "B=2"]);
        assert_eq!(process.cwd(), Path::new("/"));
        assert_eq!(awk.run.limits.resolve().unwrap().cpu_time_ms, 4000);
        write("awk/language.toml", "name='awk'\nnonsense=1");
        let error = library.language("awk", &base).unwrap_err().to_string();
        assert!(error.contains("bundles/awk/language.toml"), "{error}");
    }
}
