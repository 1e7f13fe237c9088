//! What a box shows of the host: isolate's directory rules, `in[=out][:option…]`.

use std::path::{Component, Path, PathBuf};

use crate::error::{Error, Result};

/// Where what is seen comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// The host's directory or file; relative: of the box.
    Bind(PathBuf),
    /// A file system without a device, of this type.
    FileSystem(String),
    /// A new directory that the program may write to.
    Temporary,
}

/// One directory of the sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// In the sandbox, below its root.
    pub inside: PathBuf,
    /// Where it comes from.
    pub kind: Kind,
    /// The program may write to it.
    pub writable: bool,
    /// Devices work.
    pub devices: bool,
    /// Nothing in it can be executed.
    pub noexec: bool,
    /// What the host lacks is left out.
    pub maybe: bool,
    /// Without what is mounted below it.
    pub single: bool,
}

/// Rules in the order in which they are mounted; one inside path has one rule.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules(Vec<Rule>);

impl Rules {
    /// isolate's own.
    ///
    /// # Errors
    /// None; they are well-formed.
    pub fn standard() -> Result<Rules> {
        let mut rules = Rules::default();
        for text in ["box=./box:rw", "bin", "dev:dev", "lib", "lib64:maybe", "proc=proc:fs", "tmp:tmp", "usr"] {
            rules.set(text)?;
        }
        Ok(rules)
    }

    /// Adds a rule, replaces the one of the same inside path, or (`in=`) takes it away.
    ///
    /// # Errors
    /// [`Error::Usage`].
    pub fn set(&mut self, text: &str) -> Result<()> {
        let wrong = |why: &str| Err(Error::Usage(format!("directory rule `{text}` {why}")));
        let (paths, options) = text.split_once(':').unwrap_or((text, ""));
        let (inside, outside) = match paths.split_once('=') {
            Some((inside, outside)) => (inside, Some(outside)),
            None => (paths, None),
        };
        let inside = inside.trim_start_matches('/').trim_end_matches('/');
        let plain = Path::new(inside).components().all(|part| matches!(part, Component::Normal(_)));
        if inside.is_empty() || !plain {
            return wrong("names no directory below the root of the sandbox");
        }
        let inside = PathBuf::from(inside);
        if outside == Some("") && options.is_empty() {
            self.0.retain(|rule| rule.inside != inside);
            return Ok(());
        }
        let source = outside.map_or_else(|| Path::new("/").join(&inside), PathBuf::from);
        let mut rule = Rule {
            inside,
            kind: Kind::Bind(source.clone()),
            writable: false,
            devices: false,
            noexec: false,
            maybe: false,
            single: false,
        };
        for option in options.split([':', ',']).filter(|option| !option.is_empty()) {
            match option {
                "rw" => rule.writable = true,
                "dev" => rule.devices = true,
                "noexec" => rule.noexec = true,
                "maybe" => rule.maybe = true,
                "norec" => rule.single = true,
                "fs" if outside.is_some() => rule.kind = Kind::FileSystem(source.display().to_string()),
                "tmp" if outside.is_none() => rule.kind = Kind::Temporary,
                "fs" => return wrong("names no file system after `=`"),
                "tmp" => return wrong("has an outside, which a temporary directory has not"),
                other => return wrong(&format!("has an option `{other}`, which is unknown")),
            }
        }
        let climbs = |path: &Path| path.components().any(|part| part == Component::ParentDir);
        if matches!(&rule.kind, Kind::Bind(source) if source.is_relative() && climbs(source)) {
            return wrong("leads out of the box by `..`");
        }
        match self.0.iter_mut().find(|known| known.inside == rule.inside) {
            Some(known) => *known = rule,
            None => self.0.push(rule),
        }
        Ok(())
    }

    /// All of them.
    pub fn all(&self) -> &[Rule] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(texts: &[&str]) -> Vec<Rule> {
        let mut rules = Rules::default();
        texts.iter().for_each(|text| rules.set(text).unwrap());
        rules.0
    }

    #[test]
    fn a_rule_has_an_inside_an_outside_and_options() {
        let plain = &rules(&["usr"])[0];
        assert_eq!((&plain.inside, &plain.kind), (&"usr".into(), &Kind::Bind("/usr".into())));
        let all = &rules(&["/data/in=/srv/data:rw:noexec,maybe:norec:dev"])[0];
        assert_eq!((&all.inside, &all.kind), (&"data/in".into(), &Kind::Bind("/srv/data".into())));
        assert!(all.writable && all.noexec && all.maybe && all.single && all.devices);
        assert_eq!(rules(&["proc=proc:fs"])[0].kind, Kind::FileSystem("proc".into()));
        assert_eq!(rules(&["tmp:tmp"])[0].kind, Kind::Temporary);
    }

    #[test]
    fn a_later_rule_replaces_one_or_takes_it_away() {
        let two = rules(&["usr", "etc", "usr=/opt/usr"]);
        assert_eq!((two.len(), &two[0].kind), (2, &Kind::Bind("/opt/usr".into())));
        assert_eq!(rules(&["usr", "etc", "usr="]).len(), 1);
        assert_eq!(Rules::standard().unwrap().all().len(), 8);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for text in ["", "/", "..", "a/../b", "a:nonsense", "a:fs", "a=b:tmp", "=x", "a=../x", "a=box/../../y:rw"] {
            assert!(Rules::default().set(text).is_err(), "{text}");
        }
    }
}
