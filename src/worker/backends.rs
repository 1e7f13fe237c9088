//! The back ends that this host gives: which cgroup version limits what, how processes are told apart, which namespaces and
//! filters there are. Remembered by each check that passes, and compared with what is there now: a controller that was
//! unmounted, or a host that came up with other cgroups, is seen before a submission meets it.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::cgroup::{Layout, Version};
use crate::error::Result;
use crate::judge::capability::{Report, Wanted, probe};
use crate::sys::calls::{self, Answer};

/// The back ends, as `health --json` prints them and `baseline.json` keeps them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Backends {
    /// `v1`, `v2`, `hybrid` or `none`.
    pub cgroup: String,
    /// The cgroup version that each controller is used in.
    pub controllers: BTreeMap<String, Version>,
    /// How processes are told apart and waited for: `pidfd`, `procfs` or `none`.
    pub pidfd: String,
    /// How everything in a sandbox is killed.
    pub kill: String,
    /// Each kind of namespace, and whether it can be made.
    pub namespaces: BTreeMap<String, bool>,
    /// `notify` or `none`.
    pub seccomp: String,
    /// Newer system calls that cannot be made: `missing` or `blocked` by a filter.
    #[serde(default)]
    pub calls: BTreeMap<String, Answer>,
    /// How orphans of containers without a pid namespace are found: `mount_namespace_id` or `none`.
    pub orphans: String,
}

/// A control that a judged run asks for and this host cannot give.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Degraded {
    /// Its name, as in the verdict's `control_degraded`.
    pub control: &'static str,
    /// What it is for, and why it is missing.
    pub reason: String,
}

/// Looks at the host; changes nothing.
///
/// # Errors
/// Where the cgroup mounts cannot be read.
pub fn look() -> Result<(Backends, Vec<Degraded>)> {
    let layout = Layout::probe()?;
    let report = probe(&layout, Wanted::everything());
    let controls = report.controls.iter().filter(|control| control.missing());
    let degraded =
        controls.map(|it| Degraded { control: it.name, reason: format!("{}: {}", it.purpose, it.by) }).collect();
    Ok((Backends::of(&layout, &report), degraded))
}

/// What the facts about calls begin with.
const CALL: &str = "system call ";

impl Backends {
    fn of(layout: &Layout, report: &Report) -> Backends {
        let mut controllers = BTreeMap::new();
        for hierarchy in &layout.hierarchies {
            for controller in &hierarchy.controllers {
                // A v1 hierarchy comes first, and is used where both have the controller.
                controllers.entry(controller.to_string()).or_insert(hierarchy.version);
            }
        }
        let namespaces = report.controls.iter().filter_map(|control| {
            let kind = control.name.strip_suffix("_namespace")?;
            Some((kind.to_owned(), control.available))
        });
        let has = |name: &str| report.controls.iter().any(|control| control.name == name && control.available);
        let numbered = crate::cleanup::orphans::mount_namespace(std::process::id().cast_signed()).is_some();
        Backends {
            cgroup: report.cgroup.to_owned(),
            controllers,
            pidfd: report.pidfd.to_owned(),
            kill: report.kill.to_owned(),
            namespaces: namespaces.collect(),
            seccomp: if has("seccomp") { "notify" } else { "none" }.to_owned(),
            calls: calls::look()
                .filter(|(_, answer)| *answer != Answer::There)
                .map(|(call, answer)| (call.name.to_owned(), answer))
                .collect(),
            orphans: if numbered { "mount_namespace_id" } else { "none" }.to_owned(),
        }
    }

    /// What has changed since another look, each in words.
    pub fn differences(&self, before: &Backends) -> Vec<String> {
        let (now, before) = (self.facts(), before.facts());
        let names: std::collections::BTreeSet<_> = now.keys().chain(before.keys()).collect();
        // Of the calls only those are kept that are not there.
        let without = |name: &str| if name.starts_with(CALL) { Answer::There.as_str() } else { "none" }.to_owned();
        let of =
            |facts: &BTreeMap<String, String>, name: &String| facts.get(name).cloned().unwrap_or_else(|| without(name));
        let pairs = names.into_iter().map(|name| (name, of(&before, name), of(&now, name)));
        pairs.filter(|(_, was, is)| was != is).map(|(name, was, is)| format!("{name} was {was} and is {is}")).collect()
    }

    /// Every fact by its name.
    fn facts(&self) -> BTreeMap<String, String> {
        let version = |version: &Version| match version {
            Version::V1 => "cgroup v1".to_owned(),
            Version::V2 => "cgroup v2".to_owned(),
        };
        let controllers = self.controllers.iter().map(|(name, it)| (format!("controller {name}"), version(it)));
        let word = |can: &bool| if *can { "to be had" } else { "not to be had" }.to_owned();
        let namespaces = self.namespaces.iter().map(|(name, can)| (format!("{name} namespace"), word(can)));
        let calls = self.calls.iter().map(|(name, it)| (format!("{CALL}{name}"), it.as_str().to_owned()));
        let single = [
            ("cgroup layout", &self.cgroup),
            ("pidfd", &self.pidfd),
            ("kill", &self.kill),
            ("seccomp", &self.seccomp),
            ("orphan detection", &self.orphans),
        ];
        let single = single.into_iter().map(|(name, value)| (name.to_owned(), value.clone()));
        controllers.chain(namespaces).chain(calls).chain(single).collect()
    }

    /// The controllers for a person: `memory v1, pids v1`.
    pub fn line(&self) -> String {
        let version = |version: &Version| if *version == Version::V1 { "v1" } else { "v2" };
        let controllers: Vec<_> = self.controllers.iter().map(|(name, it)| format!("{name} {}", version(it))).collect();
        let namespaces: Vec<_> =
            self.namespaces.iter().filter(|(_, can)| **can).map(|(name, _)| name.as_str()).collect();
        let calls: Vec<_> = self.calls.iter().map(|(name, it)| format!("; {name} {}", it.as_str())).collect();
        format!(
            "cgroup {} ({}); {}; namespaces {}; seccomp {}; orphans by {}{}",
            self.cgroup,
            controllers.join(", "),
            self.pidfd,
            namespaces.join(" "),
            self.seccomp,
            self.orphans,
            calls.concat()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_controller_and_a_changed_layout_are_named() {
        let (now, _) = look().unwrap();
        assert_eq!(now.differences(&now), Vec::<String>::new());
        let mut before = now.clone();
        before.cgroup = "v2".to_owned();
        before.controllers.insert("made_up".to_owned(), Version::V2);
        let told = now.differences(&before);
        assert!(told.iter().any(|it| it == "controller made_up was cgroup v2 and is none"), "{told:?}");
        assert_eq!(told.len(), 1 + usize::from(now.cgroup != "v2"), "{told:?}");
        let mut filtered = now.clone();
        filtered.calls.insert("clone3".to_owned(), Answer::Blocked);
        assert_eq!(filtered.differences(&now), ["system call clone3 was there and is blocked"]);
        assert!(filtered.line().ends_with("; clone3 blocked"), "{}", filtered.line());
        assert_eq!(serde_json::from_value::<Backends>(serde_json::to_value(&now).unwrap()).unwrap(), now);
    }
}
