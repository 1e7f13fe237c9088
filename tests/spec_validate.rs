//! config.json: what loads, what is refused and at which JSON path, held against the published schemas.

#[path = "spec_validate/schema.rs"]
mod schema;

use std::path::{Path, PathBuf};

use rustbox::Error;
use rustbox::spec::{self, Fact, Host};
use serde_json::{Value, json};

/// The runtime spec's schemas and sample documents, kept outside the project; `None`, loudly, where they are absent.
fn reference() -> Option<PathBuf> {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/reference");
    let dir = std::env::var_os("RUSTBOX_REFERENCE").map_or_else(|| PathBuf::from(beside), PathBuf::from);
    let schemas = dir.join("runtime-spec-schema");
    if !schemas.is_dir() {
        eprintln!("SKIPPED: `{}` is absent; set RUSTBOX_REFERENCE to the reference data", schemas.display());
        return None;
    }
    Some(schemas)
}

fn samples(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut samples: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), std::fs::read(&path).unwrap()))
        .collect();
    samples.sort();
    samples
}

/// Merges a patch into a document (RFC 7386): objects member by member, `null` removes, all else replaces.
fn merge(document: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *document = patch.clone();
        return;
    };
    if !document.is_object() {
        *document = json!({});
    }
    for (key, change) in patch {
        if change.is_null() {
            document.as_object_mut().unwrap().shift_remove(key);
        } else {
            merge(&mut document[key], change);
        }
    }
}

fn patched(patch: &Value) -> Vec<u8> {
    let mut document = spec::default_document(false);
    merge(&mut document, patch);
    serde_json::to_vec(&document).unwrap()
}

/// Loads and validates the default configuration with a change.
fn verdict(patch: &Value, host: &Host) -> Result<(), Error> {
    spec::validate(&spec::parse_spec(&patched(patch))?, host)
}

fn pointer_of(error: Error) -> String {
    match error {
        Error::Config { pointer, reason } => {
            assert!(!reason.is_empty());
            pointer
        }
        other => panic!("not a fault of the configuration: {other}"),
    }
}

/// Every case is refused at the path it names.
fn refused(cases: &[(&str, Value)], host: &Host) {
    let mut wrong = Vec::new();
    for (expected, patch) in cases {
        match verdict(patch, host) {
            Ok(()) => wrong.push(format!("{expected}: accepted {patch}")),
            Err(error) => {
                let text = error.to_string();
                if pointer_of(error) != *expected {
                    wrong.push(format!("{expected}: {text}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn accepted(patches: &[Value], host: &Host) {
    for patch in patches {
        if let Err(error) = verdict(patch, host) {
            panic!("{patch}: {error}");
        }
    }
}

/// The default namespaces and more.
fn with_namespaces(more: &[Value], mut patch: Value) -> Value {
    let mut list = spec::default_document(false)["linux"]["namespaces"].as_array().unwrap().clone();
    list.extend_from_slice(more);
    merge(&mut patch, &json!({ "linux": { "namespaces": list } }));
    patch
}

fn without_namespace(kind: &str, mut patch: Value) -> Value {
    let mut list = spec::default_document(false)["linux"]["namespaces"].as_array().unwrap().clone();
    list.retain(|namespace| namespace["type"] != kind);
    merge(&mut patch, &json!({ "linux": { "namespaces": list } }));
    patch
}

fn in_user_namespace(patch: Value) -> Value {
    let mut all = json!({ "linux": {
        "uidMappings": [{ "containerID": 0, "hostID": 100000, "size": 65536 }],
        "gidMappings": [{ "containerID": 0, "hostID": 100000, "size": 65536 }],
    } });
    merge(&mut all, &patch);
    with_namespaces(&[json!({ "type": "user" })], all)
}

fn resources(resources: Value) -> Value {
    json!({ "linux": { "resources": resources } })
}

fn seccomp(mut profile: Value) -> Value {
    if profile.get("defaultAction").is_none() {
        profile["defaultAction"] = json!("SCMP_ACT_ALLOW");
    }
    json!({ "linux": { "seccomp": profile } })
}

fn mount(mount: Value) -> Value {
    json!({ "mounts": [mount] })
}

#[test]
fn the_default_configurations_are_valid() {
    let spec = spec::default_spec(false);
    spec::validate(&spec, &Host::capable()).unwrap();
    spec::validate(&spec, &Host::probe()).unwrap();
    let rootless = spec::default_spec(true);
    spec::validate(&rootless, &Host::capable().with(Fact::Root, false)).unwrap();
}

#[test]
fn root_process_and_names() {
    let host = Host::capable();
    refused(
        &[
            ("$.root", json!({ "root": null })),
            ("$.root", json!({ "root": { "path": null } })),
            ("$.root.path", json!({ "root": { "path": "" } })),
            ("$.root.path", json!({ "root": { "path": 5 } })),
            ("$.root.path", json!({ "root": { "path": "root\0fs" } })),
            ("$.root.readonly", json!({ "root": { "readonly": "yes" } })),
            ("$.process.args", json!({ "process": { "args": null } })),
            ("$.process.args", json!({ "process": { "args": [] } })),
            ("$.process.args", json!({ "process": { "args": "sh" } })),
            ("$.process.args[0]", json!({ "process": { "args": [""] } })),
            ("$.process.args[0]", json!({ "process": { "args": [7] } })),
            ("$.process.args[1]", json!({ "process": { "args": ["sh", "a\0b"] } })),
            ("$.process", json!({ "process": { "cwd": null } })),
            ("$.process.cwd", json!({ "process": { "cwd": "" } })),
            ("$.process.cwd", json!({ "process": { "cwd": "tmp" } })),
            ("$.process.cwd", json!({ "process": { "cwd": "/a\0" } })),
            ("$.process.env[1]", json!({ "process": { "env": ["A=1", "B"] } })),
            ("$.process.env[0]", json!({ "process": { "env": ["=1"] } })),
            ("$.process.env[0]", json!({ "process": { "env": ["A=\0"] } })),
            ("$.process.user.uid", json!({ "process": { "user": { "uid": -1 } } })),
            ("$.process.user.uid", json!({ "process": { "user": { "uid": 4294967295u32 } } })),
            ("$.process.user.gid", json!({ "process": { "user": { "gid": 4294967295u32 } } })),
            ("$.process.user.umask", json!({ "process": { "user": { "umask": 512 } } })),
            ("$.process.user.additionalGids[1]", json!({ "process": { "user": { "additionalGids": [1, "x"] } } })),
            (
                "$.process.user.additionalGids[0]",
                json!({ "process": { "user": { "additionalGids": [4294967295u32] } } }),
            ),
            (
                "$.process.rlimits[0].type",
                json!({ "process": { "rlimits": [{ "type": "RLIMIT_X", "soft": 1, "hard": 1 }] } }),
            ),
            ("$.process.rlimits[0]", json!({ "process": { "rlimits": [{ "type": "RLIMIT_CPU", "soft": 1 }] } })),
            (
                "$.process.rlimits[0].soft",
                json!({ "process": { "rlimits": [{ "type": "RLIMIT_CPU", "soft": 2, "hard": 1 }] } }),
            ),
            (
                "$.process.rlimits[1].type",
                json!({ "process": { "rlimits": [
                    { "type": "RLIMIT_CPU", "soft": 1, "hard": 1 }, { "type": "RLIMIT_CPU", "soft": 2, "hard": 2 },
                ] } }),
            ),
            ("$.process.oomScoreAdj", json!({ "process": { "oomScoreAdj": 1001 } })),
            ("$.process.oomScoreAdj", json!({ "process": { "oomScoreAdj": -1001 } })),
            (
                "$.process.capabilities.effective",
                json!({ "process": { "capabilities": { "effective": ["CAP_SYS_ADMIN"] } } }),
            ),
            ("$.process.capabilities.bounding[0]", json!({ "process": { "capabilities": { "bounding": [1] } } })),
            ("$.process.consoleSize", json!({ "process": { "consoleSize": { "height": 5 } } })),
            ("$.process.consoleSize.width", json!({ "process": { "consoleSize": { "height": 5, "width": 65536 } } })),
            ("$.process.ioPriority", json!({ "process": { "ioPriority": { "priority": 1 } } })),
            ("$.process.ioPriority.class", json!({ "process": { "ioPriority": { "class": "IOPRIO_CLASS_X" } } })),
            (
                "$.process.ioPriority.priority",
                json!({ "process": { "ioPriority": { "class": "IOPRIO_CLASS_BE", "priority": 8 } } }),
            ),
            ("$.process.scheduler.policy", json!({ "process": { "scheduler": { "policy": "SCHED_X" } } })),
            ("$.process.scheduler.policy", json!({ "process": { "scheduler": { "policy": "SCHED_ISO" } } })),
            (
                "$.process.scheduler.nice",
                json!({ "process": { "scheduler": { "policy": "SCHED_OTHER", "nice": 20 } } }),
            ),
            (
                "$.process.scheduler.priority",
                json!({ "process": { "scheduler": { "policy": "SCHED_OTHER", "priority": 1 } } }),
            ),
            ("$.process.scheduler.priority", json!({ "process": { "scheduler": { "policy": "SCHED_FIFO" } } })),
            (
                "$.process.scheduler.runtime",
                json!({ "process": { "scheduler": { "policy": "SCHED_RR", "priority": 1, "runtime": 5 } } }),
            ),
            ("$.process.scheduler.runtime", json!({ "process": { "scheduler": { "policy": "SCHED_DEADLINE" } } })),
            (
                "$.process.scheduler.period",
                json!({ "process": { "scheduler": {
                    "policy": "SCHED_DEADLINE", "runtime": 100000, "deadline": 200000, "period": 150000,
                } } }),
            ),
            (
                "$.process.scheduler.flags[0]",
                json!({ "process": { "scheduler": { "policy": "SCHED_OTHER", "flags": ["X"] } } }),
            ),
            ("$.process.execCPUAffinity.initial", json!({ "process": { "execCPUAffinity": { "initial": "3-1" } } })),
            ("$.process.execCPUAffinity.final", json!({ "process": { "execCPUAffinity": { "final": "a" } } })),
            ("$.hostname", json!({ "hostname": "x".repeat(65) })),
            ("$.hostname", json!({ "hostname": "a\0" })),
            ("$.hostname", without_namespace("uts", json!({}))),
            ("$.domainname", json!({ "domainname": "x".repeat(65) })),
            ("$.domainname", without_namespace("uts", json!({ "hostname": null, "domainname": "d" }))),
        ],
        &host,
    );
    accepted(
        &[
            json!({ "process": null }),
            json!({ "process": { "user": null, "terminal": false, "consoleSize": { "height": 1, "width": 99999 } } }),
            json!({ "process": { "capabilities": { "bounding": ["CAP_FROM_THE_FUTURE", "CAP_KILL"] } } }),
            json!({ "process": { "scheduler": {
                "policy": "SCHED_OTHER", "nice": -20, "flags": ["SCHED_FLAG_RESET_ON_FORK", "SCHED_FLAG_DL_OVERRUN"],
            } } }),
            json!({ "process": { "execCPUAffinity": { "initial": "", "final": "0-1, 3" } } }),
            json!({ "hostname": "x".repeat(64), "unknown": { "member": 1 } }),
            without_namespace("uts", json!({ "hostname": "" })),
        ],
        &host,
    );
}

#[test]
fn what_the_host_lacks() {
    let profile = json!({ "process": { "apparmorProfile": "p" } });
    let label = json!({ "process": { "selinuxLabel": "l" } });
    refused(&[("$.process.apparmorProfile", profile.clone())], &Host::capable().with(Fact::Apparmor, false));
    refused(&[("$.process.selinuxLabel", label.clone())], &Host::capable().with(Fact::Selinux, false));
    refused(
        &[("$.linux.mountLabel", json!({ "linux": { "mountLabel": "l" } }))],
        &Host::capable().with(Fact::Selinux, false),
    );
    refused(&[("$.linux.seccomp", seccomp(json!({})))], &Host::capable().with(Fact::Seccomp, false));
    refused(
        &[("$.linux.intelRdt", json!({ "linux": { "intelRdt": {} } }))],
        &Host::capable().with(Fact::Resctrl, false),
    );
    let time = with_namespaces(&[json!({ "type": "time" })], json!({}));
    refused(&[("$.linux.namespaces[6].type", time)], &Host::capable().with(Fact::TimeNamespace, false));
    let user = in_user_namespace(json!({}));
    refused(&[("$.linux.namespaces[6].type", user)], &Host::capable().with(Fact::UserNamespace, false));
    let rootless = Host::capable().with(Fact::Root, false);
    refused(&[("$.linux.namespaces", json!({}))], &rootless);
    let pts = json!([{ "destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["gid=70000"] }]);
    refused(&[("$.mounts[0].options[0]", in_user_namespace(json!({ "mounts": pts })))], &rootless);
    accepted(&[profile, label, seccomp(json!({}))], &Host::capable());
}

#[test]
fn mounts() {
    let host = Host::capable();
    let map = json!([{ "containerID": 0, "hostID": 1000, "size": 1 }]);
    refused(
        &[
            ("$.mounts[0]", mount(json!({ "type": "tmpfs" }))),
            ("$.mounts[0].destination", mount(json!({ "destination": "", "type": "tmpfs" }))),
            ("$.mounts[0].destination", mount(json!({ "destination": "/\0", "type": "tmpfs" }))),
            ("$.mounts[0].type", mount(json!({ "destination": "/a" }))),
            ("$.mounts[0].source", mount(json!({ "destination": "/a", "options": ["bind"] }))),
            ("$.mounts[0].source", mount(json!({ "destination": "/a", "type": "bind" }))),
            ("$.mounts[0].options[1]", mount(json!({ "destination": "/a", "type": "tmpfs", "options": ["ro", "\0"] }))),
            (
                "$.mounts[0].options[1]",
                mount(json!({ "destination": "/a", "type": "proc", "options": ["ro", "tmpcopyup"] })),
            ),
            (
                "$.mounts[0].options[1]",
                mount(json!({ "destination": "/a", "source": "/a", "options": ["bind", "idmap"] })),
            ),
            (
                "$.mounts[0].gidMappings",
                mount(json!({ "destination": "/a", "source": "/a", "options": ["bind"], "uidMappings": map })),
            ),
            (
                "$.mounts[0].uidMappings",
                mount(json!({ "destination": "/a", "type": "tmpfs", "uidMappings": map, "gidMappings": map })),
            ),
            (
                "$.mounts[0].gidMappings[0].size",
                mount(json!({
                    "destination": "/a", "source": "/a", "options": ["bind", "idmap"], "uidMappings": map,
                    "gidMappings": [{ "containerID": 0, "hostID": 0, "size": 0 }],
                })),
            ),
            (
                "$.mounts[0].gidMappings[0]",
                mount(json!({
                    "destination": "/a", "source": "/a", "options": ["bind"], "uidMappings": map,
                    "gidMappings": [{ "containerID": 0, "hostID": 0 }],
                })),
            ),
            ("$.mounts", without_namespace("mount", json!({}))),
            ("$.root.readonly", without_namespace("mount", json!({ "mounts": null }))),
        ],
        &host,
    );
    let bind = json!({ "destination": "/a", "source": "/a", "options": ["bind", "idmap"] });
    accepted(
        &[
            mount(json!({ "destination": "relative", "type": "tmpfs" })),
            mount(json!({ "destination": "/a", "options": ["remount", "ro"] })),
            mount(json!({ "destination": "/a", "source": "b", "type": "none", "options": ["rbind", "rro"] })),
            in_user_namespace(mount(bind)),
        ],
        &host,
    );
}

#[test]
fn namespaces_mappings_and_time() {
    let host = Host::capable();
    let extents = |list: Value| in_user_namespace(json!({ "linux": { "uidMappings": list } }));
    let offsets =
        |offsets: Value| with_namespaces(&[json!({ "type": "time" })], json!({ "linux": { "timeOffsets": offsets } }));
    refused(
        &[
            ("$.linux.namespaces[6].type", with_namespaces(&[json!({ "type": "pid" })], json!({}))),
            ("$.linux.namespaces[6].type", with_namespaces(&[json!({ "type": "moon" })], json!({}))),
            ("$.linux.namespaces[6]", with_namespaces(&[json!({ "path": "/x" })], json!({}))),
            ("$.linux.namespaces[6].path", with_namespaces(&[json!({ "type": "time", "path": "ns" })], json!({}))),
            ("$.linux.uidMappings", with_namespaces(&[json!({ "type": "user" })], json!({}))),
            ("$.linux.gidMappings", in_user_namespace(json!({ "linux": { "gidMappings": null } }))),
            (
                "$.linux.gidMappings",
                with_namespaces(
                    &[json!({ "type": "user", "path": "/proc/1/ns/user" })],
                    json!({ "linux": { "uidMappings": [{ "containerID": 0, "hostID": 0, "size": 1 }] } }),
                ),
            ),
            (
                "$.linux.uidMappings",
                json!({ "linux": { "uidMappings": [{ "containerID": 0, "hostID": 0, "size": 1 }] } }),
            ),
            ("$.linux.uidMappings[0].size", extents(json!([{ "containerID": 0, "hostID": 0, "size": 0 }]))),
            ("$.linux.uidMappings[0]", extents(json!([{ "containerID": 0, "hostID": 0 }]))),
            ("$.linux.uidMappings[0].size", extents(json!([{ "containerID": 1, "hostID": 0, "size": 4294967295u32 }]))),
            (
                "$.linux.uidMappings[1].hostID",
                extents(json!([
                    { "containerID": 0, "hostID": 0, "size": 10 }, { "containerID": 10, "hostID": 9, "size": 1 },
                ])),
            ),
            (
                "$.linux.uidMappings[1].containerID",
                extents(json!([
                    { "containerID": 5, "hostID": 0, "size": 1 }, { "containerID": 0, "hostID": 9, "size": 10 },
                ])),
            ),
            (
                "$.linux.uidMappings",
                extents((0..341).map(|id| json!({ "containerID": id, "hostID": id, "size": 1 })).collect()),
            ),
            ("$.process.user.uid", in_user_namespace(json!({ "process": { "user": { "uid": 65536 } } }))),
            (
                "$.process.user.additionalGids[0]",
                in_user_namespace(json!({ "process": { "user": { "additionalGids": [70000] } } })),
            ),
            ("$.linux.timeOffsets", json!({ "linux": { "timeOffsets": { "boottime": { "secs": 1 } } } })),
            (
                "$.linux.timeOffsets",
                with_namespaces(
                    &[json!({ "type": "time", "path": "/proc/1/ns/time" })],
                    json!({ "linux": { "timeOffsets": { "boottime": { "secs": 1 } } } }),
                ),
            ),
            ("$.linux.timeOffsets.realtime", offsets(json!({ "realtime": { "secs": 1 } }))),
            ("$.linux.timeOffsets.monotonic.nanosecs", offsets(json!({ "monotonic": { "nanosecs": 1000000000 } }))),
            ("$.linux.timeOffsets.monotonic.secs", offsets(json!({ "monotonic": { "secs": i64::MAX } }))),
        ],
        &host,
    );
    accepted(
        &[
            in_user_namespace(json!({})),
            extents(json!([{ "containerID": 0, "hostID": 0, "size": 4294967295u32 }])),
            offsets(json!({ "boottime": { "secs": -5, "nanosecs": 999999999 } })),
            with_namespaces(&[json!({ "type": "user", "path": "/proc/1/ns/user" })], json!({})),
            with_namespaces(&[json!({ "type": "time", "path": "" })], json!({})),
        ],
        &host,
    );
}

#[test]
fn devices_paths_and_cgroup() {
    let host = Host::capable();
    let device = |device: Value| json!({ "linux": { "devices": [device] } });
    refused(
        &[
            ("$.linux.devices[0]", device(json!({ "path": "/dev/x" }))),
            ("$.linux.devices[0].type", device(json!({ "path": "/dev/x", "type": "z", "major": 1, "minor": 1 }))),
            ("$.linux.devices[0].type", device(json!({ "path": "/dev/x", "type": "a", "major": 1, "minor": 1 }))),
            ("$.linux.devices[0].major", device(json!({ "path": "/dev/x", "type": "c", "minor": 1 }))),
            ("$.linux.devices[0].minor", device(json!({ "path": "/dev/x", "type": "c", "major": 1 }))),
            ("$.linux.devices[0].major", device(json!({ "path": "/dev/x", "type": "c", "major": -1, "minor": 1 }))),
            (
                "$.linux.devices[0].minor",
                device(json!({ "path": "/dev/x", "type": "c", "major": 1, "minor": 1048576 })),
            ),
            ("$.linux.devices[0].path", device(json!({ "path": "dev/x", "type": "p" }))),
            ("$.linux.devices[0].path", device(json!({ "path": "/", "type": "p" }))),
            ("$.linux.devices[0].fileMode", device(json!({ "path": "/dev/x", "type": "p", "fileMode": 0o1000000 }))),
            (
                "$.linux.devices[1].path",
                json!({ "linux": { "devices": [
                    { "path": "/dev/x", "type": "c", "major": 1, "minor": 1 },
                    { "path": "/dev/x", "type": "c", "major": 1, "minor": 2 },
                ] } }),
            ),
            ("$.linux.cgroupsPath", json!({ "linux": { "cgroupsPath": "/a/../../b" } })),
            ("$.linux.cgroupsPath", json!({ "linux": { "cgroupsPath": "/a\nb" } })),
            ("$.linux.rootfsPropagation", json!({ "linux": { "rootfsPropagation": "sideways" } })),
            ("$.linux.maskedPaths[1]", json!({ "linux": { "maskedPaths": ["/proc/x", "proc/y"] } })),
            ("$.linux.readonlyPaths[0]", json!({ "linux": { "readonlyPaths": ["proc"] } })),
            (
                "$.linux.maskedPaths",
                without_namespace("mount", json!({ "mounts": null, "root": { "readonly": false } })),
            ),
        ],
        &host,
    );
    let systemd = host.clone().with_systemd(true);
    let path = |path: &str| json!({ "linux": { "cgroupsPath": path } });
    refused(
        &["/a/b", "a:b", "a.slice:b:", "a:b:c", "-a.slice:b:c", "a/b.slice:c:d", "a.slice:b:c/d", "a--b.slice:c:d"]
            .map(|bad| ("$.linux.cgroupsPath", path(bad))),
        &systemd,
    );
    accepted(&["system.slice:rustbox:id", ":rustbox:id", "-.slice:r:i", "a-b.slice::i"].map(path), &systemd);
    accepted(
        &[
            path("/a/b"),
            path("relative"),
            device(json!({ "path": "/dev/x", "type": "c", "major": 1, "minor": 1, "fileMode": 0o020666 })),
            device(json!({ "path": "/dev/x", "type": "p" })),
            json!({ "linux": { "rootfsPropagation": "rslave" } }),
        ],
        &host,
    );
}

#[test]
fn resource_limits() {
    let host = Host::capable();
    let cases = [
        ("memory.limit", json!({ "memory": { "limit": -2 } })),
        ("memory.kernelTCP", json!({ "memory": { "kernelTCP": -2 } })),
        ("memory.swap", json!({ "memory": { "limit": 100, "swap": 99 } })),
        ("memory.swap", json!({ "memory": { "swap": 99 } })),
        ("memory.swap", json!({ "memory": { "limit": -1, "swap": 99 } })),
        ("memory.swappiness", json!({ "memory": { "swappiness": 101 } })),
        ("memory.swappiness", json!({ "memory": { "swappiness": -1 } })),
        ("memory.limit", json!({ "memory": { "limit": "1G" } })),
        ("cpu.shares", json!({ "cpu": { "shares": 1 } })),
        ("cpu.shares", json!({ "cpu": { "shares": 262145 } })),
        ("cpu.quota", json!({ "cpu": { "quota": 999 } })),
        ("cpu.quota", json!({ "cpu": { "quota": -2 } })),
        ("cpu.period", json!({ "cpu": { "period": 999 } })),
        ("cpu.period", json!({ "cpu": { "period": 1000001 } })),
        ("cpu.burst", json!({ "cpu": { "quota": 1000, "burst": 1001 } })),
        ("cpu.idle", json!({ "cpu": { "idle": 2 } })),
        ("cpu.realtimeRuntime", json!({ "cpu": { "realtimeRuntime": 11, "realtimePeriod": 10 } })),
        ("cpu.cpus", json!({ "cpu": { "cpus": "1-" } })),
        ("cpu.mems", json!({ "cpu": { "mems": "x" } })),
        ("pids.limit", json!({ "pids": { "limit": -2 } })),
        ("pids.limit", json!({ "pids": { "limit": 4194305 } })),
        ("blockIO.weight", json!({ "blockIO": { "weight": 9 } })),
        ("blockIO.leafWeight", json!({ "blockIO": { "leafWeight": 1001 } })),
        ("blockIO.weightDevice[0]", json!({ "blockIO": { "weightDevice": [{ "major": 8 }] } })),
        (
            "blockIO.weightDevice[0].weight",
            json!({ "blockIO": { "weightDevice": [{ "major": 8, "minor": 0, "weight": 5 }] } }),
        ),
        (
            "blockIO.throttleReadBpsDevice[0].major",
            json!({ "blockIO": { "throttleReadBpsDevice": [{ "major": -8, "minor": 0, "rate": 5 }] } }),
        ),
        ("hugepageLimits[0].pageSize", json!({ "hugepageLimits": [{ "pageSize": "64kB", "limit": 1 }] })),
        ("hugepageLimits[0].pageSize", json!({ "hugepageLimits": [{ "pageSize": "0MB", "limit": 1 }] })),
        ("hugepageLimits[0]", json!({ "hugepageLimits": [{ "pageSize": "2MB" }] })),
        ("hugepageLimits[0].limit", json!({ "hugepageLimits": [{ "pageSize": "2MB", "limit": -1 }] })),
        (
            "hugepageLimits[1].pageSize",
            json!({ "hugepageLimits": [{ "pageSize": "2MB", "limit": 1 }, { "pageSize": "2MB", "limit": 2 }] }),
        ),
        ("network.classID", json!({ "network": { "classID": -1 } })),
        ("network.priorities[0].name", json!({ "network": { "priorities": [{ "name": "a b", "priority": 1 }] } })),
        ("rdma.mlx5_1", json!({ "rdma": { "mlx5_1": {} } })),
        ("rdma['a/b']", json!({ "rdma": { "a/b": { "hcaHandles": 1 } } })),
        ("unified['../memory.max']", json!({ "unified": { "../memory.max": "1" } })),
        ("unified.memory", json!({ "unified": { "memory": "1" } })),
        ("unified['memory.max']", json!({ "unified": { "memory.max": 1 } })),
        ("devices[0]", json!({ "devices": [{ "access": "rwm" }] })),
        ("devices[0].access", json!({ "devices": [{ "allow": true, "access": "rwx" }] })),
        ("devices[0].type", json!({ "devices": [{ "allow": true, "type": "p", "access": "rwm" }] })),
        ("devices[0].major", json!({ "devices": [{ "allow": true, "type": "c", "major": -2 }] })),
    ];
    let cases = cases.map(|(at, fault)| (format!("$.linux.resources.{at}"), resources(fault)));
    let cases: Vec<_> = cases.iter().map(|(at, patch)| (at.as_str(), patch.clone())).collect();
    refused(&cases, &host);
    accepted(
        &[
            resources(json!({ "memory": { "limit": -1, "swap": -1, "swappiness": 100 } })),
            resources(json!({ "cpu": { "shares": 0, "quota": -1, "cpus": "", "idle": 1 }, "pids": { "limit": -1 } })),
            resources(json!({ "hugepageLimits": [{ "pageSize": "1GB", "limit": 18446744073709551615u64 }] })),
            resources(json!({ "devices": [{ "allow": true, "type": "", "major": -1, "minor": null }] })),
            resources(json!({ "unified": { "memory.high": "1" }, "network": { "priorities": null } })),
        ],
        &host,
    );
    // An update may name one of two limits that must fit together.
    let update = |text: &str| spec::validate_resources(&spec::parse_resources(text.as_bytes()).unwrap());
    update(r#"{"memory":{"swap":1000000}}"#).unwrap();
    assert_eq!(pointer_of(update(r#"{"cpu":{"quota":1}}"#).unwrap_err()), "$.cpu.quota");
}

#[test]
fn seccomp_and_sysctl() {
    let host = Host::capable();
    let rule = |rule: Value| seccomp(json!({ "syscalls": [rule] }));
    let sysctl = |name: &str| json!({ "linux": { "sysctl": { name: "1" } } });
    refused(
        &[
            ("$.linux.seccomp", json!({ "linux": { "seccomp": { "syscalls": [] } } })),
            ("$.linux.seccomp.defaultAction", seccomp(json!({ "defaultAction": "SCMP_ACT_SING" }))),
            ("$.linux.seccomp.defaultAction", seccomp(json!({ "defaultAction": "SCMP_ACT_NOTIFY" }))),
            ("$.linux.seccomp.defaultErrnoRet", seccomp(json!({ "defaultErrnoRet": 1 }))),
            (
                "$.linux.seccomp.defaultErrnoRet",
                seccomp(json!({ "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 4096 })),
            ),
            ("$.linux.seccomp.architectures[0]", seccomp(json!({ "architectures": ["SCMP_ARCH_PDP11"] }))),
            ("$.linux.seccomp.flags[0]", seccomp(json!({ "flags": ["SECCOMP_FILTER_FLAG_X"] }))),
            ("$.linux.seccomp.listenerMetadata", seccomp(json!({ "listenerMetadata": "x" }))),
            ("$.linux.seccomp.syscalls[0]", rule(json!({ "action": "SCMP_ACT_ERRNO" }))),
            ("$.linux.seccomp.syscalls[0].names", rule(json!({ "names": [], "action": "SCMP_ACT_ERRNO" }))),
            ("$.linux.seccomp.syscalls[0].names[0]", rule(json!({ "names": [""], "action": "SCMP_ACT_ERRNO" }))),
            ("$.linux.seccomp.syscalls[0].action", rule(json!({ "names": ["read"], "action": "SCMP_ACT_X" }))),
            ("$.linux.seccomp.syscalls[0].action", rule(json!({ "names": ["read"], "action": "SCMP_ACT_NOTIFY" }))),
            (
                "$.linux.seccomp.syscalls[0].errnoRet",
                rule(json!({ "names": ["read"], "action": "SCMP_ACT_LOG", "errnoRet": 1 })),
            ),
            (
                "$.linux.seccomp.syscalls[0].args[0].index",
                rule(
                    json!({ "names": ["read"], "action": "SCMP_ACT_ERRNO", "args": [{ "index": 6, "value": 0, "op": "SCMP_CMP_EQ" }] }),
                ),
            ),
            (
                "$.linux.seccomp.syscalls[0].args[0].op",
                rule(
                    json!({ "names": ["read"], "action": "SCMP_ACT_ERRNO", "args": [{ "index": 0, "value": 0, "op": "EQ" }] }),
                ),
            ),
            (
                "$.linux.seccomp.syscalls[0].names[0]",
                seccomp(
                    json!({ "listenerPath": "/run/x", "syscalls": [{ "names": ["write"], "action": "SCMP_ACT_NOTIFY" }] }),
                ),
            ),
            ("$.linux.sysctl.vm.swappiness", sysctl("vm.swappiness")),
            ("$.linux.sysctl.kernel.hostname", sysctl("kernel.hostname")),
            ("$.linux.sysctl.kernel/pid_max", sysctl("kernel/pid_max")),
            ("$.linux.sysctl.net/../kernel/core_pattern", sysctl("net/../kernel/core_pattern")),
            ("$.linux.sysctl.net.ipv4.ip_forward", without_namespace("network", sysctl("net.ipv4.ip_forward"))),
            ("$.linux.sysctl.kernel.shmmax", without_namespace("ipc", sysctl("kernel.shmmax"))),
            ("$.linux.sysctl.fs.mqueue.msg_max", without_namespace("ipc", sysctl("fs.mqueue.msg_max"))),
            (
                "$.linux.sysctl.kernel.domainname",
                without_namespace("uts", {
                    let mut patch = sysctl("kernel.domainname");
                    merge(&mut patch, &json!({ "hostname": "" }));
                    patch
                }),
            ),
        ],
        &host,
    );
    accepted(
        &[
            sysctl("net/ipv4/conf/eth0.1/forwarding"),
            sysctl("kernel.msgmax"),
            sysctl("kernel.domainname"),
            seccomp(
                json!({ "listenerPath": "/run/x", "syscalls": [{ "names": ["mkdir"], "action": "SCMP_ACT_NOTIFY" }] }),
            ),
        ],
        &host,
    );
    // A namespace joined by path may turn out to be the host's.
    let joined = |path: &str| {
        let network = json!({ "type": "network", "path": path });
        let mut patch = without_namespace("network", sysctl("net.ipv4.ip_forward"));
        patch["linux"]["namespaces"].as_array_mut().unwrap().push(network);
        patch
    };
    accepted(&[joined("/proc/self/ns/uts")], &Host::probe());
    refused(&[("$.linux.sysctl.net.ipv4.ip_forward", joined("/proc/self/ns/net"))], &Host::probe());
}

#[test]
fn the_rest_of_linux_hooks_and_annotations() {
    let host = Host::capable();
    let hook = |hook: Value| json!({ "hooks": { "poststop": [hook] } });
    let policy = |policy: Value| json!({ "linux": { "memoryPolicy": policy } });
    let net = |devices: Value| json!({ "linux": { "netDevices": devices } });
    let rdt = |rdt: Value| json!({ "linux": { "intelRdt": rdt } });
    refused(
        &[
            ("$.hooks.poststop[0]", hook(json!({}))),
            ("$.hooks.poststop[0].path", hook(json!({ "path": "true" }))),
            ("$.hooks.poststop[0].timeout", hook(json!({ "path": "/bin/true", "timeout": 0 }))),
            ("$.hooks.poststop[0].env[0]", hook(json!({ "path": "/bin/true", "env": ["A"] }))),
            ("$.hooks.poststop[0].args[0]", hook(json!({ "path": "/bin/true", "args": ["\0"] }))),
            ("$.annotations['']", json!({ "annotations": { "": "x" } })),
            ("$.annotations.a", json!({ "annotations": { "a": 1 } })),
            ("$.linux.memoryPolicy.mode", policy(json!({ "mode": "MPOL_X" }))),
            ("$.linux.memoryPolicy.nodes", policy(json!({ "mode": "MPOL_BIND" }))),
            ("$.linux.memoryPolicy.nodes", policy(json!({ "mode": "MPOL_LOCAL", "nodes": "0" }))),
            ("$.linux.memoryPolicy.nodes", policy(json!({ "mode": "MPOL_BIND", "nodes": "a" }))),
            (
                "$.linux.memoryPolicy.flags[0]",
                policy(json!({ "mode": "MPOL_INTERLEAVE", "nodes": "0", "flags": ["MPOL_F_NUMA_BALANCING"] })),
            ),
            (
                "$.linux.memoryPolicy.flags[1]",
                policy(
                    json!({ "mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES", "MPOL_F_RELATIVE_NODES"] }),
                ),
            ),
            ("$.linux.netDevices['a/b']", net(json!({ "a/b": {} }))),
            ("$.linux.netDevices.eth0.name", net(json!({ "eth0": { "name": "a_name_that_is_long" } }))),
            ("$.linux.netDevices.eth1", net(json!({ "eth0": { "name": "eth1" }, "eth1": {} }))),
            ("$.linux.netDevices", without_namespace("network", net(json!({ "eth0": {} })))),
            ("$.linux.intelRdt.closID", rdt(json!({ "closID": "../x" }))),
            ("$.linux.intelRdt.memBwSchema", rdt(json!({ "memBwSchema": "L3:0=f" }))),
            ("$.linux.personality.domain", json!({ "linux": { "personality": { "domain": "BSD" } } })),
            (
                "$.linux.personality.flags[0]",
                json!({ "linux": { "personality": { "domain": "LINUX", "flags": ["X"] } } }),
            ),
            ("$.ociVersion", json!({ "ociVersion": null })),
            ("$.ociVersion", json!({ "ociVersion": "2.0.0" })),
            ("$.ociVersion", json!({ "ociVersion": "latest" })),
            ("$.windows", json!({ "windows": { "layerFolders": [] } })),
            ("$.vm", json!({ "vm": { "kernel": { "path": "/k" } } })),
            ("$.freebsd", json!({ "freebsd": {} })),
        ],
        &host,
    );
    accepted(
        &[
            hook(json!({ "path": "/bin/true", "timeout": 5, "args": ["true"] })),
            policy(json!({ "mode": "MPOL_PREFERRED" })),
            net(json!({ "eth0": { "name": "" }, "eth1": { "name": "lan" } })),
            rdt(json!({ "closID": "guaranteed", "l3CacheSchema": "L3:0=f", "memBwSchema": "MB:0=50" })),
            json!({ "linux": { "personality": { "domain": "LINUX32", "flags": ["ADDR_NO_RANDOMIZE"] } } }),
            json!({ "ociVersion": "1.9.0", "linux": { "sysctl": {} } }),
        ],
        &host,
    );
}

#[test]
fn text_that_is_no_configuration() {
    let pointer = |text: &str| pointer_of(spec::parse_spec(text.as_bytes()).unwrap_err());
    for text in ["", "{", "[", "{]", "null", "[]", "{} {}", "{\"ociVersion\":\"1.0.0\",}", "\u{feff}{}"] {
        assert!(pointer(text).starts_with('$'), "{text}");
    }
    assert_eq!(pointer(r#"{"ociVersion":"1.0.0","root":{"path":"a","path":"b"}}"#), "$.root");
    assert_eq!(pointer(r#"{"ociVersion":"1.0.0","hostname":"a","hostname":"b"}"#), "$");
    let message = spec::parse_spec(&patched(&json!({ "process": { "args": [3] } }))).unwrap_err().to_string();
    assert!(message.starts_with("$.process.args[0]: invalid type: integer `3`, expected a string"), "{message}");
}

#[test]
fn process_documents_of_exec() {
    let process =
        spec::parse_process(br#"{"cwd":"/","args":["id"],"capabilities":{"bounding":["CAP_NEW","CAP_KILL"]}}"#);
    let process = process.unwrap();
    assert_eq!(process.capabilities().as_ref().unwrap().bounding().as_ref().unwrap().len(), 1);
    spec::validate_process(&process, "$", &Host::capable()).unwrap();
    let error = spec::parse_process(br#"{"cwd":"/","args":[1]}"#).unwrap_err();
    assert_eq!(pointer_of(error), "$.args[0]");
    let empty = spec::parse_process(br#"{"cwd":"/","args":[]}"#).unwrap();
    assert_eq!(pointer_of(spec::validate_process(&empty, "$", &Host::capable()).unwrap_err()), "$.args");
}

#[test]
fn bundles_that_cannot_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let message = |path: &Path| spec::load(path).unwrap_err().to_string();
    let missing = dir.path().join("none");
    assert_eq!(message(&missing), format!("open bundle `{}`: No such file or directory", missing.display()));
    let config = dir.path().canonicalize().unwrap().join("config.json");
    assert_eq!(message(dir.path()), format!("open `{}`: No such file or directory", config.display()));
    std::fs::create_dir(&config).unwrap();
    assert!(message(dir.path()).ends_with("is not a regular file"));
    std::fs::remove_dir(&config).unwrap();
    // A FIFO without a writer must not hang.
    nix::unistd::mkfifo(&config, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(message(dir.path()).ends_with("is not a regular file"));
    std::fs::remove_file(&config).unwrap();
    std::fs::File::create(&config).unwrap().set_len((16 << 20) + 1).unwrap();
    assert!(message(dir.path()).ends_with("is longer than 16 MiB"));
    std::fs::write(&config, spec::default_document(false).to_string()).unwrap();
    assert!(message(&config).contains("Not a directory"));
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(".", &link).unwrap();
    let bundle = spec::load(&link).unwrap();
    assert_eq!(bundle.dir, dir.path().canonicalize().unwrap());
    assert_eq!(bundle.spec, spec::default_spec(false));
}

#[test]
fn published_samples() {
    let Some(schemas) = reference() else { return };
    let host = Host::capable();
    let verdict = |text: &[u8]| spec::parse_spec(text).and_then(|spec| spec::validate(&spec, &host));
    for (name, text) in samples(&schemas.join("test/config/bad")) {
        assert!(verdict(&text).is_err(), "bad/{name} is accepted");
    }
    for (name, text) in samples(&schemas.join("test/config/good")) {
        let refusal = verdict(&text).err().map(pointer_of);
        let expected = match name.as_str() {
            // For other platforms.
            "freebsd-minimal.json" | "freebsd-example.json" => Some("$.freebsd"),
            "zos-minimal.json" => Some("$.zos"),
            // They are older than 1.0.0; below, the rest of the one for Linux.
            "spec-example.json" | "zos-example.json" => Some("$.ociVersion"),
            // It moves interfaces, yet has no network namespace: valid by the schema alone.
            "linux-netdevice.json" => Some("$.linux.netDevices"),
            _ => None,
        };
        assert_eq!(refusal.as_deref(), expected, "good/{name}");
        let mut document: Value = serde_json::from_slice(&text).unwrap();
        if name == "spec-example.json" {
            document["ociVersion"] = json!("1.0.0");
        } else if name == "linux-netdevice.json" {
            document["linux"]["namespaces"] = json!([{ "type": "network" }]);
        } else {
            continue;
        }
        verdict(&serde_json::to_vec(&document).unwrap()).unwrap_or_else(|error| panic!("good/{name}: {error}"));
    }
}

#[test]
fn documents_of_ours_fit_the_schemas() {
    let Some(schemas) = reference() else { return };
    let mut checker = schema::Checker::new(&schemas);
    for rootless in [false, true] {
        checker.check("config-schema.json", &spec::default_document(rootless)).unwrap();
        let written = serde_json::to_value(spec::default_spec(rootless)).unwrap();
        checker.check("config-schema.json", &written).unwrap();
    }
    checker.check("features-schema.json", &serde_json::to_value(spec::features()).unwrap()).unwrap();
    // The checker itself does see faults.
    for (dir, file) in [("config", "config-schema.json"), ("features", "features-schema.json")] {
        for (name, text) in samples(&schemas.join(format!("test/{dir}/good"))) {
            let document = serde_json::from_slice(&text).unwrap();
            checker.check(file, &document).unwrap_or_else(|why| panic!("{name}: {why}"));
        }
        for (name, text) in samples(&schemas.join(format!("test/{dir}/bad"))) {
            let Ok(document) = serde_json::from_slice(&text) else { continue };
            assert!(checker.check(file, &document).is_err(), "{name}");
        }
    }
}

#[test]
fn features_tell_the_truth_about_options_and_capabilities() {
    let features = spec::features();
    let options = features.mount_options().as_ref().unwrap();
    for name in ["rro", "ridmap", "tmpcopyup", "nosymfollow", "rslave", "bind"] {
        assert!(options.iter().any(|option| option == name), "{name}");
    }
    let linux = features.linux().as_ref().unwrap();
    let seccomp = linux.seccomp().as_ref().unwrap();
    let (known, supported) = (seccomp.known_flags().as_ref().unwrap(), seccomp.supported_flags().as_ref().unwrap());
    assert!(supported.iter().all(|flag| known.contains(flag)), "{supported:?}");
    assert!(supported.iter().any(|flag| flag == "SECCOMP_FILTER_FLAG_LOG"), "{supported:?}");
    println!("seccomp flags that the kernel takes: {supported:?}");
    let capabilities = linux.capabilities().clone().unwrap();
    let last: usize = std::fs::read_to_string("/proc/sys/kernel/cap_last_cap").unwrap().trim().parse().unwrap();
    assert_eq!(capabilities.len(), last + 1);
    assert_eq!(capabilities[0], "CAP_CHOWN");
    assert_eq!(capabilities[21], "CAP_SYS_ADMIN");
}
