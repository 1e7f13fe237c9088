//! Differences, and the list of those that were looked at: `reviewed.toml`.

use std::cell::Cell;
use std::fmt;

use serde::Deserialize;

use crate::view::View;

/// One key that two runtimes answer differently; a key that one of them lacks is `-` there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    pub key: String,
    pub ours: String,
    pub theirs: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: rustbox `{}`, peer `{}`", self.key, self.ours, self.theirs)
    }
}

/// A difference that was looked at, with its reason. `*` stands for any text.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reviewed {
    pub against: String,
    pub key: String,
    #[serde(default = "any")]
    pub rustbox: String,
    #[serde(default = "any")]
    pub peer: String,
    pub reason: String,
    #[serde(skip)]
    pub used: Cell<u32>,
}

fn any() -> String {
    "*".to_owned()
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct List {
    pub difference: Vec<Reviewed>,
}

impl List {
    pub fn read() -> Self {
        let list: List = toml::from_str(include_str!("reviewed.toml")).expect("reviewed.toml");
        for entry in &list.difference {
            assert!(entry.reason.len() > 10, "no reason for {}", entry.key);
            assert!(["crun", "libcontainer"].contains(&entry.against.as_str()), "against whom: {}", entry.key);
        }
        list
    }

    /// The differences that nobody has looked at.
    pub fn unknown(&self, peer: &str, differences: Vec<Difference>) -> Vec<Difference> {
        let known = |difference: &Difference| {
            let entry = self.difference.iter().find(|entry| {
                entry.against == peer
                    && fits(&entry.key, &difference.key)
                    && fits(&entry.rustbox, &difference.ours)
                    && fits(&entry.peer, &difference.theirs)
            });
            entry.inspect(|entry| entry.used.set(entry.used.get() + 1)).is_some()
        };
        differences.into_iter().filter(|difference| !known(difference)).collect()
    }

    pub fn unused(&self, peer: &str) -> Vec<&Reviewed> {
        self.difference.iter().filter(|entry| entry.against == peer && entry.used.get() == 0).collect()
    }
}

/// Whether the text has the pattern's shape.
pub fn fits(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((before, after)) => text
            .strip_prefix(before)
            .is_some_and(|rest| (0..=rest.len()).any(|at| rest.is_char_boundary(at) && fits(after, &rest[at..]))),
    }
}

pub fn differences(ours: &View, theirs: &View) -> Vec<Difference> {
    let refused = |view: &View| view.get("refused").cloned();
    match (refused(ours), refused(theirs)) {
        (Some(_), Some(_)) => return Vec::new(),
        (None, None) => {}
        (one, other) => {
            let text = |it: Option<String>| it.unwrap_or_else(|| "runs".to_owned());
            return vec![Difference { key: "refused".to_owned(), ours: text(one), theirs: text(other) }];
        }
    }
    let mut keys: Vec<_> = ours.keys().chain(theirs.keys()).collect();
    keys.sort_unstable();
    keys.dedup();
    let value = |view: &View, key: &str| view.get(key).cloned().unwrap_or_else(|| "-".to_owned());
    keys.into_iter()
        .filter(|key| ours.get(*key) != theirs.get(*key))
        .map(|key| Difference { key: key.clone(), ours: value(ours, key), theirs: value(theirs, key) })
        .collect()
}
