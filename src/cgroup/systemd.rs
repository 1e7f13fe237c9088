//! The systemd driver's `cgroupsPath`: `slice:prefix:name`.

use std::path::Path;

use super::plan::Request;
use crate::error::{Error, Result};

/// A transient scope, as engines ask for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// The slice the scope is put in, such as `system.slice` or `user-1000.slice`.
    pub slice: String,
    /// The scope's name, such as `libpod-0123.scope`.
    pub name: String,
}

impl Unit {
    /// Parses `slice:prefix:name`. An empty slice is `system.slice`; a name that ends in `.slice` or an empty prefix stands
    /// as it is; without a path the scope is `rustbox-<id>.scope`.
    ///
    /// # Errors
    /// [`Error::Config`] for anything else.
    pub fn parse(path: Option<&Path>, id: &str) -> Result<Self> {
        let text = match path.map(|path| path.to_str().ok_or(path)) {
            None | Some(Ok("")) => {
                return Ok(Unit { slice: "system.slice".to_owned(), name: format!("rustbox-{id}.scope") });
            }
            Some(Ok(text)) => text,
            Some(Err(path)) => return Err(fault(path, "is not UTF-8")),
        };
        let parts: Vec<_> = text.split(':').collect();
        let [slice, prefix, name] = parts[..] else {
            return Err(fault(Path::new(text), "is not of the form `slice:prefix:name`"));
        };
        let slice = if slice.is_empty() { "system.slice" } else { slice };
        if !valid_slice(slice) {
            return Err(fault(Path::new(text), "names a slice that systemd would not take"));
        }
        let bad = |part: &str| part.contains('/') || part == "." || part == "..";
        if name.is_empty() || bad(name) || bad(prefix) {
            return Err(fault(Path::new(text), "names a unit that systemd would not take"));
        }
        let name = match prefix {
            _ if name.ends_with(".slice") => name.to_owned(),
            "" => format!("{name}.scope"),
            prefix => format!("{prefix}-{name}.scope"),
        };
        Ok(Unit { slice: slice.to_owned(), name })
    }

    /// The directory of the slice: `a-b.slice` lies in `a.slice` (systemd.slice(5)).
    pub fn slice_path(&self) -> String {
        let stem = self.slice.trim_end_matches(".slice");
        if stem == "-" {
            return String::new();
        }
        let mut path = String::new();
        for (at, _) in stem.match_indices('-').chain([(stem.len(), "")]) {
            path.push('/');
            path.push_str(&stem[..at]);
            path.push_str(".slice");
        }
        path
    }
}

fn valid_slice(slice: &str) -> bool {
    let Some(stem) = slice.strip_suffix(".slice") else { return false };
    stem == "-" || !stem.contains('/') && stem.split('-').all(|part| !part.is_empty() && part != "..")
}

fn fault(path: &Path, reason: &str) -> Error {
    Error::config("$.linux.cgroupsPath", format!("`{}` {reason} (systemd driver)", path.display()))
}

/// Why the systemd driver cannot be used: a wrong path first, then the host.
pub(super) fn refuse(request: &Request<'_>) -> Error {
    match Unit::parse(request.cgroups_path, request.id) {
        Err(error) => error,
        // sd_booted(3): this directory exists exactly where systemd is the init system.
        Ok(unit) if !Path::new("/run/systemd/system").is_dir() => Error::Refused(format!(
            "systemd cgroup driver for `{}`: systemd does not run on this host; use the cgroupfs driver",
            unit.name
        )),
        Ok(unit) => Error::Refused(format!(
            "systemd cgroup driver for `{}`: this version does not speak to systemd; use the cgroupfs driver",
            unit.name
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Unit> {
        Unit::parse(Some(Path::new(text)), "id")
    }

    #[test]
    fn slice_prefix_and_name() {
        let unit = parse("machine-a.slice:libpod:0123").unwrap();
        assert_eq!((unit.slice.as_str(), unit.name.as_str()), ("machine-a.slice", "libpod-0123.scope"));
        assert_eq!(unit.slice_path(), "/machine.slice/machine-a.slice");
        assert_eq!(parse(":cri:x").unwrap().slice, "system.slice");
        assert_eq!(parse("-.slice:cri:x").unwrap().slice_path(), "");
        assert_eq!(parse("a.slice::x").unwrap().name, "x.scope");
        assert_eq!(Unit::parse(None, "web").unwrap().name, "rustbox-web.scope");
    }

    #[test]
    fn what_systemd_would_not_take_is_refused() {
        for text in
            ["/a/b", "a:b", "a:b:c", "a.slice:b:", "a--b.slice:p:n", "a/b.slice:p:n", "a.slice:p:../n", "../.slice:p:n"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_refusal_names_the_unit() {
        let request = Request { cgroups_path: Some(Path::new("a.slice:p:n")), systemd: true, ..Request::default() };
        assert!(refuse(&request).to_string().contains("`p-n.scope`"));
    }
}
