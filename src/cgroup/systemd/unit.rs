//! The systemd driver's `cgroupsPath`: `slice:prefix:name`.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::bus::Manager;
use crate::error::{Error, Result};

/// A transient scope, as engines ask for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    /// The slice the scope is put in, such as `system.slice` or `user-1000.slice`.
    pub slice: String,
    /// The scope's name, such as `libpod-0123.scope`.
    pub name: String,
    /// Whose manager makes it.
    pub manager: Manager,
    /// Its description, which no other unit has: what is not so described is another's and is let be.
    pub description: String,
    /// `org.systemd.property.*` annotations, by the property's name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub properties: BTreeMap<String, String>,
}

/// UNIT_NAME_MAX less the terminating NUL.
const LONGEST: usize = 255;

impl Unit {
    /// Parses `slice:prefix:name`. An empty slice is `system.slice` (`user.slice` of the user's manager); with an empty
    /// prefix the name stands as it is; without a path the scope is `rustbox-<id>.scope`.
    ///
    /// # Errors
    /// [`Error::Config`] for anything else.
    pub fn parse(path: Option<&Path>, id: &str, manager: Manager) -> Result<Self> {
        let default = match manager {
            Manager::System => "system.slice",
            Manager::User => "user.slice",
        };
        let text = match path.map(|path| path.to_str().ok_or(path)) {
            None => "",
            Some(Ok(text)) => text,
            Some(Err(path)) => return Err(fault(path, "is not UTF-8")),
        };
        let own = format!("{default}:rustbox:{id}");
        let text = if text.is_empty() { own.as_str() } else { text };
        let fault = |reason| Err(fault(Path::new(text), reason));
        let parts: Vec<_> = text.split(':').collect();
        let [slice, prefix, name] = parts[..] else { return fault("is not of the form `slice:prefix:name`") };
        let slice = if slice.is_empty() { default } else { slice };
        if !valid_slice(slice) {
            return fault("names a slice that systemd would not take");
        }
        if name.ends_with(".slice") {
            return fault("names a slice where a container needs a scope: only scopes are delegated");
        }
        let name = match prefix {
            "" => format!("{name}.scope"),
            prefix => format!("{prefix}-{name}.scope"),
        };
        if parts[2].is_empty() || name.starts_with('.') || !valid_name(&name) {
            return fault("names a unit that systemd would not take");
        }
        Ok(Unit { slice: slice.to_owned(), name, manager, description: String::new(), properties: BTreeMap::new() })
    }

    /// The directory of the scope below its manager's: `a-b.slice` lies in `a.slice` (systemd.slice(5)).
    pub fn path(&self) -> String {
        let mut path = String::new();
        let stem = self.slice.strip_suffix(".slice").unwrap_or(&self.slice);
        if stem != "-" {
            for (at, _) in stem.match_indices('-').chain([(stem.len(), "")]) {
                path.push_str(&stem[..at]);
                path.push_str(".slice/");
            }
        }
        path + &self.name
    }
}

/// systemd.unit(5), "Unit names".
fn valid_name(name: &str) -> bool {
    name.len() <= LONGEST && name.bytes().all(|it| it.is_ascii_alphanumeric() || b":-_.\\@".contains(&it))
}

fn valid_slice(slice: &str) -> bool {
    let Some(stem) = slice.strip_suffix(".slice") else { return false };
    valid_name(slice) && (stem == "-" || stem.split('-').all(|part| !part.is_empty() && !part.starts_with('.')))
}

fn fault(path: &Path, reason: &str) -> Error {
    Error::config("$.linux.cgroupsPath", format!("`{}` {reason} (systemd driver)", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Unit> {
        Unit::parse(Some(Path::new(text)), "id", Manager::System)
    }

    #[test]
    fn slice_prefix_and_name() {
        let unit = parse("machine-a.slice:libpod:0123").unwrap();
        assert_eq!((unit.slice.as_str(), unit.name.as_str()), ("machine-a.slice", "libpod-0123.scope"));
        assert_eq!(unit.path(), "machine.slice/machine-a.slice/libpod-0123.scope");
        assert_eq!(parse(":cri:x").unwrap().path(), "system.slice/cri-x.scope");
        assert_eq!(parse("-.slice:cri:x").unwrap().path(), "cri-x.scope");
        assert_eq!(parse("a.slice::x").unwrap().name, "x.scope");
        assert_eq!(parse("a.slice.slice::x").unwrap().path(), "a.slice.slice/x.scope");
        assert_eq!(Unit::parse(None, "web", Manager::System).unwrap().path(), "system.slice/rustbox-web.scope");
        assert_eq!(Unit::parse(None, "web", Manager::User).unwrap().slice, "user.slice");
    }

    #[test]
    fn what_systemd_would_not_take_is_refused() {
        let long = format!("a.slice:p:{}", "n".repeat(250));
        for text in [
            "/a/b",
            "a:b",
            "a:b:c",
            "a.slice:b:",
            "a--b.slice:p:n",
            "a/b.slice:p:n",
            "a.slice:p:../n",
            "../.slice:p:n",
            "..slice:p:n",
            ".slice:p:n",
            "a-..slice:p:n",
            "a.slice::",
            "a.slice:p:n m",
            "a.slice:p:n.slice",
            "a.slice::../../x",
            &long,
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.starts_with("$.linux.cgroupsPath: "), "{text}: {error}");
        }
    }
}
