//! Bridges between what documents may say and what the types of `oci-spec` 0.10 hold.
//!
//! Two kinds: *cleaning* a document that would not parse although the runtime spec allows it, done only after a
//! failure, and *normalising* a parsed one so that "empty" and "absent" are one thing to the rest of the program,
//! as they are in Go's types, in which the engines write these documents.

use oci_spec::runtime::{Capability, Linux, LinuxNamespace, LinuxResources, Process, Spec};
use serde_json::Value;

use super::idmap_option;

/// Cleans a `config.json`.
pub(super) fn clean_config(config: &mut Value) {
    drop_nulls(config);
    if let Some(process) = config.get_mut("process") {
        clean_process(process);
    }
    if let Some(resources) = config.pointer_mut("/linux/resources") {
        clean_resources(resources);
    }
}

/// Cleans a process document.
pub(super) fn clean_process(process: &mut Value) {
    drop_nulls(process);
    drop_unknown_capabilities(process);
    rename_scheduler_flags(process);
    if let Some(affinity) = process.get_mut("execCPUAffinity").and_then(Value::as_object_mut) {
        // The schema's pattern is `^[0-9, -]*$`; the type's has neither spaces nor the empty list.
        affinity.retain(|_, list| list.as_str().is_none_or(|list| !list.trim().is_empty()));
        for list in affinity.values_mut() {
            if let Some(text) = list.as_str() {
                *list = Value::String(text.replace(' ', ""));
            }
        }
    }
    if let Some(object) = process.as_object_mut() {
        // Required by the type; optional by the schema, where all its members are.
        object.entry("user").or_insert_with(|| Value::Object(Default::default()));
    }
}

/// Cleans a resources document.
pub(super) fn clean_resources(resources: &mut Value) {
    drop_nulls(resources);
    for limit in members_of(resources, "hugepageLimits") {
        // An unsigned number by the spec, a signed one in the type: all above means "no limit" to the kernel.
        if limit.get("limit").and_then(Value::as_u64).is_some_and(|bytes| bytes > i64::MAX as u64) {
            limit["limit"] = Value::from(i64::MAX);
        }
    }
    for rule in members_of(resources, "devices") {
        if let Some(rule) = rule.as_object_mut()
            && rule.get("type").and_then(Value::as_str) == Some("")
        {
            rule.shift_remove("type");
        }
    }
}

fn members_of<'a>(object: &'a mut Value, name: &str) -> impl Iterator<Item = &'a mut Value> {
    object.get_mut(name).and_then(Value::as_array_mut).into_iter().flatten()
}

/// `null` is "absent" to Go's decoder, whatever the type.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(object) => {
            object.retain(|_, member| !member.is_null());
            object.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

/// "Any value which cannot be mapped to a relevant kernel interface […] MUST be logged as a warning by the runtime.
/// Runtimes SHOULD NOT fail" (config, `process.capabilities`).
fn drop_unknown_capabilities(process: &mut Value) {
    let Some(sets) = process.get_mut("capabilities").and_then(Value::as_object_mut) else { return };
    for (set, names) in sets {
        let Some(names) = names.as_array_mut() else { continue };
        names.retain(|name| {
            let unknown = name.is_string() && serde_json::from_value::<Capability>(name.clone()).is_err();
            if unknown {
                tracing::warn!("ignoring unknown capability {name} in `process.capabilities.{set}`");
            }
            !unknown
        });
    }
}

/// Two flags have other names in the type than in the spec.
fn rename_scheduler_flags(process: &mut Value) {
    let Some(scheduler) = process.get_mut("scheduler") else { return };
    for flag in members_of(scheduler, "flags") {
        match flag.as_str() {
            Some("SCHED_FLAG_RESET_ON_FORK") => *flag = Value::from("SCHED_RESET_ON_FORK"),
            Some("SCHED_FLAG_DL_OVERRUN") => *flag = Value::from("SCHED_FLAG_D_L_OVERRUN"),
            _ => {}
        }
    }
}

/// Normalises a configuration.
pub(super) fn config(spec: &mut Spec) {
    for name in [Spec::hostname_mut, Spec::domainname_mut] {
        drop_empty(name(spec));
    }
    if let Some(process) = spec.process_mut() {
        self::process(process);
    }
    if let Some(linux) = spec.linux_mut() {
        self::linux(linux);
    }
    if spec.mounts().iter().flatten().any(idmap_option::is_given) {
        let linux = spec.linux().clone();
        for mount in spec.mounts_mut().iter_mut().flatten() {
            idmap_option::normalise(mount, linux.as_ref());
        }
    }
}

fn linux(linux: &mut Linux) {
    drop_empty(linux.rootfs_propagation_mut());
    drop_empty(linux.mount_label_mut());
    if linux.cgroups_path().as_ref().is_some_and(|path| path.as_os_str().is_empty()) {
        linux.set_cgroups_path(None);
    }
    for namespace in linux.namespaces_mut().iter_mut().flatten() {
        if namespace.path().as_ref().is_some_and(|path| path.as_os_str().is_empty()) {
            LinuxNamespace::set_path(namespace, None);
        }
    }
    if let Some(resources) = linux.resources_mut() {
        self::resources(resources);
    }
}

/// Normalises a process document.
pub(super) fn process(process: &mut Process) {
    if process.apparmor_profile().as_deref() == Some("") {
        process.set_apparmor_profile(None);
    }
    if process.selinux_label().as_deref() == Some("") {
        process.set_selinux_label(None);
    }
}

/// Normalises a resources document.
pub(super) fn resources(resources: &mut LinuxResources) {
    let Some(cpu) = resources.cpu_mut() else { return };
    if cpu.cpus().as_deref() == Some("") {
        cpu.set_cpus(None);
    }
    if cpu.mems().as_deref() == Some("") {
        cpu.set_mems(None);
    }
}

fn drop_empty(text: &mut Option<String>) {
    if text.as_deref() == Some("") {
        *text = None;
    }
}
