//! What reads text, fed with anything: no panic, and what it accepts means the same when it is read again. `PROPTEST_CASES`
//! sets how many cases each property gets.

use std::collections::HashMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use rustbox::container::root::Root;
use rustbox::judge::capability::Accounting;
use rustbox::judge::evidence::Evidence;
use rustbox::judge::limits::{LimitSource, Limits, parse_size, parse_time};
use rustbox::judge::replay::replay;
use rustbox::judge::sandbox::{Resources, Share, restrict, writable_tmpfs};
use rustbox::judge::verdict::classify;
use rustbox::spec::mount_options::MountOptions;
use rustbox::spec::{self, Host};
use rustbox::worker::metrics::file as metrics;
use rustbox::worker::standing::Standing;

fn config() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }
}

/// Words that configurations, limits and records hold, and some that they must not.
fn a_word() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "",
            "/",
            "..",
            "/proc/self/fd/3",
            "a\0b",
            "a\nb",
            "rbind",
            "ro",
            "tmpfs",
            "proc",
            "user",
            "pid",
            "CAP_SYS_ADMIN",
            "RLIMIT_CORE",
            "SCMP_ACT_ERRNO",
            "1",
            "1.5",
            "500ms",
            "64M",
            "1e9",
            "-1",
            "18446744073709551616",
            "OK",
            "tle_cpu_judge",
            "judge",
        ])
        .prop_map(str::to_owned),
        "\\PC{0,12}",
        "[0-9]{1,22}(\\.[0-9]{1,3})?(ms|s|K|M|G|KiB|MiB)?",
    ]
}

fn a_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        a_word().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map(a_word(), inner, 0..4).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// What to do to a document: at the place that the number picks, set, remove or repeat something.
type Change = (prop::sample::Index, u8, Value);

fn changes() -> impl Strategy<Value = Vec<Change>> {
    prop::collection::vec((any::<prop::sample::Index>(), 0u8..4, a_value()), 1..5)
}

fn pointers(value: &Value, at: &str, found: &mut Vec<String>) {
    let mut inside = |key: String, inner: &Value| {
        let pointer = format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"));
        found.push(pointer.clone());
        pointers(inner, &pointer, found);
    };
    match value {
        Value::Object(map) => map.iter().for_each(|(key, inner)| inside(key.clone(), inner)),
        Value::Array(list) => list.iter().enumerate().for_each(|(index, inner)| inside(index.to_string(), inner)),
        _ => {}
    }
}

fn changed(mut document: Value, changes: &[Change]) -> Value {
    for (index, kind, value) in changes {
        let mut found = Vec::new();
        pointers(&document, "", &mut found);
        if found.is_empty() {
            return value.clone();
        }
        let pointer = index.get(&found).clone();
        let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
        let key = key.replace("~1", "/").replace("~0", "~");
        match (document.pointer_mut(parent), kind) {
            (Some(Value::Object(map)), 0) => drop(map.shift_remove(&key)),
            (Some(Value::Array(list)), 0) => drop(key.parse::<usize>().map(|at| list.remove(at))),
            (Some(Value::Array(list)), 1) => list.extend(list.clone()),
            _ => *document.pointer_mut(&pointer).expect("it was found") = value.clone(),
        }
    }
    document
}

/// A configuration with something of everything.
fn rich() -> Value {
    json!({
        "ociVersion": "1.2.0", "hostname": "box", "root": {"path": "rootfs", "readonly": true},
        "process": {
            "user": {"uid": 1000, "gid": 1000, "additionalGids": [5], "umask": 18}, "cwd": "/", "args": ["/bin/true"], "env": ["PATH=/bin"],
            "capabilities": {"bounding": ["CAP_KILL"], "effective": [], "inheritable": [], "permitted": [], "ambient": []},
            "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 64, "hard": 128}], "noNewPrivileges": true, "oomScoreAdj": 1,
            "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 4}, "scheduler": {"policy": "SCHED_BATCH", "nice": 3}
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "hidepid=2"]},
            {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["size=64k", "mode=1777"]},
            {"destination": "/x", "type": "bind", "source": "/usr", "options": ["rbind", "rro"]}
        ],
        "hooks": {"poststop": [{"path": "/bin/true", "args": ["true"], "env": ["A=b"], "timeout": 5}]},
        "annotations": {"org.rustbox.limit.time": "2", "org.rustbox.limit.memory": "64M"},
        "linux": {
            "namespaces": [{"type": "uts"}, {"type": "pid"}, {"type": "mount"}, {"type": "user"}, {"type": "time"}, {"type": "network"}],
            "uidMappings": [{"containerID": 0, "hostID": 100_000, "size": 65536}],
            "gidMappings": [{"containerID": 0, "hostID": 100_000, "size": 65536}],
            "devices": [{"path": "/dev/x", "type": "c", "major": 1, "minor": 3, "fileMode": 438}], "cgroupsPath": "/x",
            "resources": {"memory": {"limit": 67_108_864, "swap": 67_108_864}, "pids": {"limit": 32},
                          "cpu": {"shares": 512, "quota": 50_000, "period": 100_000, "cpus": "0-1"},
                          "devices": [{"allow": false, "access": "rwm"}], "unified": {"memory.high": "1000"}},
            "sysctl": {"net.ipv4.ip_forward": "1"}, "maskedPaths": ["/proc/kcore"], "readonlyPaths": ["/proc/sys"],
            "rootfsPropagation": "rslave", "personality": {"domain": "LINUX"}, "timeOffsets": {"boottime": {"secs": 1, "nanosecs": 1}},
            "seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["bpf"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1,
                        "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]}]}
        }
    })
}

/// A stored run, as `run --json` prints it.
fn stored(status: &str, cause: &str, evidence: &Value) -> Value {
    json!({"schema_version": 1, "id": "x", "status": status, "cause": cause, "actor": "payload", "limits": Limits::default(), "evidence": evidence})
}

/// Evidence that gives OK.
fn evidence() -> Value {
    let mut evidence = serde_json::to_value(Evidence::default()).unwrap();
    evidence["payload"] = json!({"wait_status": {"exited": {"code": 0}}, "wall_us": 1000, "rusage_cpu_us": 10, "image_bytes": 4096,
                                 "entered_user_mode": null});
    evidence["cgroup"]["cpu_us"] = json!(10);
    evidence["cgroup"]["pids_limit_hits"] = json!(0);
    evidence["cgroup"]["oom"] =
        json!({"version": "v1", "kills": 0, "event_fired": false, "failcnt": 0, "peak_at_limit": false});
    evidence["streams"] = json!({"stdin_bytes": 0, "stdout_bytes": 0, "stderr_bytes": 0});
    evidence["cleanup"] = json!({"proved": true, "checked": [], "left": []});
    evidence
}

#[test]
fn the_documents_that_are_changed_are_good_ones() {
    let spec = spec::parse_spec(rich().to_string().as_bytes()).unwrap();
    spec::validate(&spec, &Host::capable()).unwrap();
    assert!(replay(stored("OK", "normal_exit", &evidence()).to_string().as_bytes()).unwrap().run.same);
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_changed_configuration_is_refused_or_planned(changes in changes(), torn in prop::option::weighted(0.1, any::<prop::sample::Index>())) {
        let mut text = changed(rich(), &changes).to_string().into_bytes();
        if let Some(at) = torn {
            text.truncate(at.index(text.len()));
        }
        if let Ok(spec) = spec::parse_spec(&text) {
            let _ = spec::validate(&spec, &Host::capable());
            let _ = rustbox::container::namespaces::Namespaces::plan(&spec);
            let _ = writable_tmpfs(&spec);
            // What was understood is understood again.
            let again = spec::parse_spec(&serde_json::to_vec(&spec).unwrap());
            prop_assert!(again.is_ok(), "{:?}", again.err());
        }
        let _ = spec::parse_process(&text);
        let _ = spec::parse_resources(&text);
    }

    #[test]
    fn judge_limits_are_laid_over_any_document(changes in changes()) {
        if let Ok(mut spec) = serde_json::from_value::<oci_spec::runtime::Spec>(changed(rich(), &changes)) {
            let limits = Limits::default();
            let restricted = restrict(&mut spec, &limits, Resources { memory: Some(Accounting { swap: true, sockets: true }), pids: true });
            prop_assert_eq!(restricted.is_ok(), spec.process().is_some());
            if restricted.is_err() {
                return Ok(());
            }
            let config = serde_json::to_value(&spec).unwrap();
            for key in ["limit", "swap"] {
                prop_assert_eq!(&config["linux"]["resources"]["memory"][key], limits.memory_bytes);
            }
            prop_assert_eq!(&config["linux"]["resources"]["pids"]["limit"], limits.processes);
            prop_assert_eq!(&config["process"]["noNewPrivileges"], true);
            let core = config["process"]["rlimits"].as_array().unwrap().iter().filter(|limit| limit["type"] == "RLIMIT_CORE");
            prop_assert_eq!(core.map(|limit| limit["hard"].clone()).collect::<Vec<_>>(), [json!(1)]);
        }
    }

    #[test]
    fn times_and_sizes_are_numbers_or_refused(text in a_word(), number in 0u64..100_000) {
        if let Ok(ms) = parse_time(&text) {
            prop_assert!(ms <= 7 * 24 * 3600 * 1000);
        }
        let _ = parse_size(&text);
        prop_assert_eq!(parse_time(&format!("{number}ms")), Ok(number));
        prop_assert_eq!(parse_time(&format!("{number}.000s")), Ok(number * 1000));
        prop_assert_eq!(parse_size(&number.to_string()), Ok(number));
        prop_assert_eq!(parse_size(&format!("{number}K")), Ok(number << 10));
    }

    #[test]
    fn annotations_are_limits_or_refused(
        given in prop::collection::hash_map(
            prop::sample::select(vec!["time", "wall-time", "extra-time", "memory", "processes", "output", "file-size", "open-files", "stack", "x", ""]),
            a_word(), 0..6)
    ) {
        let annotations: HashMap<String, String> =
            given.iter().map(|(name, value)| (format!("org.rustbox.limit.{name}"), value.clone())).collect();
        if let Ok(source) = LimitSource::from_annotations(&annotations) {
            prop_assert!(!given.contains_key("x") && !given.contains_key(""));
            prop_assert_eq!(source.is_empty(), given.is_empty());
            if let Ok(limits) = source.resolve() {
                prop_assert!(limits.cpu_time_ms > 0 && limits.memory_bytes >= 1 << 20 && limits.processes >= 1);
            }
        }
    }

    #[test]
    fn mount_options_and_shares_take_any_words(words in prop::collection::vec(a_word(), 0..6)) {
        let _ = MountOptions::parse(&words);
        if let Ok(share) = words.join(":").parse::<Share>() {
            prop_assert!(share.inside.is_absolute() && share.outside.is_absolute());
            prop_assert!(![&share.inside, &share.outside].iter().any(|path| path.components().any(|part| part.as_os_str() == "..")));
        }
    }

    #[test]
    fn evidence_has_one_verdict_and_survives_being_stored(changes in changes()) {
        let document = changed(evidence(), &changes);
        let Ok(known) = serde_json::from_value::<Evidence>(document) else { return Ok(()) };
        let limits = Limits::default();
        let verdict = classify(&known, &limits);
        let again: Evidence = serde_json::from_str(&serde_json::to_string(&known).unwrap()).unwrap();
        prop_assert_eq!(&classify(&again, &limits), &verdict);
        let word = |value: Value| value.as_str().unwrap().to_owned();
        let mut document = stored(
            &word(serde_json::to_value(verdict.status).unwrap()),
            &word(serde_json::to_value(verdict.cause).unwrap()),
            &serde_json::to_value(&known).unwrap(),
        );
        document["actor"] = serde_json::to_value(verdict.actor).unwrap();
        // Where a compile step was stored beside it, that is judged again too, and none is here.
        if known.compile.is_none() {
            let replayed = replay(document.to_string().as_bytes());
            prop_assert!(replayed.as_ref().is_ok_and(|it| it.run.same), "{:?}\n{}", replayed, document);
        }
    }

    #[test]
    fn a_changed_stored_run_is_judged_again_or_refused(changes in changes(), torn in prop::option::weighted(0.1, any::<prop::sample::Index>())) {
        let mut text = changed(stored("OK", "normal_exit", &evidence()), &changes).to_string().into_bytes();
        if let Some(at) = torn {
            text.truncate(at.index(text.len()));
        }
        if let Ok(replayed) = replay(&text[..]) {
            prop_assert_eq!(replayed.run.same, replayed.differences().is_empty());
        }
    }

    #[test]
    fn what_the_worker_has_on_disk_may_be_anything(
        names in prop::sample::subsequence(vec!["state.json", "state", "history", "history.jsonl", "baseline.json", "failures"], 1..6),
        bytes in prop_oneof![prop::collection::vec(any::<u8>(), 0..400), changes().prop_map(|it| changed(json!([{"state": "healthy", "at": "x"}]), &it).to_string().into_bytes())],
        length in prop::sample::select(vec![0usize, 1, 4095, 4096, 8192]),
    ) {
        let place = tempfile::tempdir().unwrap();
        for name in names {
            std::fs::write(place.path().join(name), &bytes).unwrap();
        }
        let standing = Standing::new(place.path().to_owned());
        let _ = (standing.state(), standing.admit(), standing.history(), standing.mend_history(), standing.baseline::<Value>());
        let file = place.path().join("metrics");
        let page: Vec<u8> = bytes.iter().copied().cycle().take(if bytes.is_empty() { 0 } else { length }).collect();
        std::fs::write(&file, page).unwrap();
        let _ = metrics::read(&file);
    }

    #[test]
    fn a_containers_record_may_be_anything(
        bytes in prop_oneof![prop::collection::vec(any::<u8>(), 0..400), a_value().prop_map(|it| it.to_string().into_bytes())],
        names in prop::sample::subsequence(vec!["state.json", "config.json", "init", "hooks", "gate"], 1..5),
    ) {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("x");
        std::fs::create_dir(&directory).unwrap();
        for name in names {
            std::fs::write(directory.join(name), &bytes).unwrap();
        }
        let root = Root::open(place.path()).unwrap();
        let _ = root.ids();
        if let Ok((fd, record)) = root.look("x") {
            use std::os::fd::AsFd;
            let _ = rustbox::container::state::status(fd.as_fd(), &record);
        }
    }
}
