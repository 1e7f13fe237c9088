//! The limits of a container that an engine runs: from its annotations, and never above what the engine gives it.

use std::collections::HashMap;

use oci_spec::runtime::{PosixRlimitType, Spec};

use crate::cgroup::Layout;
use crate::error::{Error, Result};
use crate::judge::capability;
use crate::judge::limits::{ANNOTATION_PREFIX, LimitSource, Limits};
use crate::judge::sandbox;

/// The limits that a configuration's annotations ask for, as [`enforce`] has put them into effect; `None` where there is
/// no such annotation. Limits that are not named have the judge's defaults, so that the same bundle is judged the same way
/// wherever it runs.
///
/// # Errors
/// [`Error::Config`] for an unknown annotation or a malformed value.
pub fn limits(spec: &Spec) -> Result<Option<Limits>> {
    let annotations: HashMap<String, String> = spec.annotations().clone().unwrap_or_default();
    if !annotations.keys().any(|key| key.starts_with(ANNOTATION_PREFIX)) {
        return Ok(None);
    }
    let mut limits = LimitSource::from_annotations(&annotations)?.resolve().map_err(|error| match error {
        Error::Usage(words) => Error::config("$.annotations", words),
        error => error,
    })?;
    let resources = spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
    let least = |limit: &mut u64, given: Option<i64>| {
        if let Some(given) = given.and_then(|given| u64::try_from(given).ok()).filter(|given| *given > 0) {
            *limit = (*limit).min(given);
        }
    };
    least(&mut limits.memory_bytes, resources.and_then(|it| it.memory().as_ref()).and_then(|memory| memory.limit()));
    least(&mut limits.processes, resources.and_then(|it| it.pids().as_ref()).map(|pids| pids.limit()));
    let rlimits = spec.process().as_ref().and_then(|process| process.rlimits().as_deref()).unwrap_or_default();
    for rlimit in rlimits {
        let limit = match rlimit.typ() {
            PosixRlimitType::RlimitFsize => &mut limits.file_size_bytes,
            PosixRlimitType::RlimitNofile => &mut limits.open_files,
            PosixRlimitType::RlimitStack => &mut limits.stack_bytes,
            _ => continue,
        };
        *limit = (*limit).min(rlimit.hard());
    }
    Ok(Some(limits))
}

/// Puts the limits that the kernel keeps into a configuration that asks for them: its memory and pids cgroups and its
/// rlimits. CPU time beyond the judge's is one of those, as a backstop; one second later, since it counts whole ones.
///
/// # Errors
/// As [`limits`].
pub fn enforce(spec: &mut Spec) -> Result<()> {
    let Some(limits) = limits(spec)? else { return Ok(()) };
    let Some(mut linux) = spec.linux().clone() else {
        return Err(Error::config("$.linux", "is missing: limits of a judge need cgroups"));
    };
    let mut resources = linux.resources().clone().unwrap_or_default();
    sandbox::limit_memory(&mut resources, limits.memory_bytes, capability::accounting(&Layout::probe()?))?;
    let bytes = limits.memory_bytes as i64;
    let mut memory = resources.memory().unwrap_or_default();
    // Both would let the program slow down or live on where it is to be judged.
    memory.set_disable_oom_killer(None);
    if memory.reservation().is_some_and(|reservation| reservation > bytes) {
        memory.set_reservation(Some(bytes));
    }
    resources.set_memory(Some(memory));
    let mut pids = resources.pids().unwrap_or_default();
    pids.set_limit(limits.processes as i64);
    resources.set_pids(Some(pids));
    linux.set_resources(Some(resources));
    spec.set_linux(Some(linux));

    match spec.process_mut() {
        Some(process) => sandbox::limit_process(process, limits.rlimits()),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(document: serde_json::Value) -> Spec {
        serde_json::from_value(document).unwrap()
    }

    #[test]
    fn without_an_annotation_nothing_is_limited() {
        let mut given = spec(serde_json::json!({"ociVersion": "1.0.2", "annotations": {"a": "b"}}));
        let before = given.clone();
        enforce(&mut given).unwrap();
        assert_eq!((limits(&given).unwrap(), given), (None, before));
    }

    #[test]
    fn the_engines_own_limits_hold_where_they_are_lower() {
        let mut given = spec(serde_json::json!({
            "ociVersion": "1.0.2",
            "annotations": {"org.rustbox.limit.memory": "64M", "org.rustbox.limit.processes": "10"},
            "process": {"cwd": "/", "args": ["true"], "user": {"uid": 0, "gid": 0},
                        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 10, "hard": 20}]},
            "linux": {"resources": {"memory": {"limit": 1 << 20}, "pids": {"limit": 100}}}
        }));
        enforce(&mut given).unwrap();
        let limits = limits(&given).unwrap().unwrap();
        assert_eq!((limits.memory_bytes, limits.processes, limits.open_files), (1 << 20, 10, 20));
        let resources = given.linux().as_ref().unwrap().resources().as_ref().unwrap();
        assert_eq!(resources.memory().unwrap().limit(), Some(1 << 20));
        assert_eq!(resources.pids().unwrap().limit(), 10);
    }

    #[test]
    fn a_malformed_annotation_is_named_by_its_path() {
        let given = spec(serde_json::json!({"ociVersion": "1.0.2", "annotations": {"org.rustbox.limit.time": "soon"}}));
        assert!(limits(&given).unwrap_err().to_string().contains("org.rustbox.limit.time"));
    }
}
