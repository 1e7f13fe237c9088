//! Configurations for tests: a default that is written here, not taken from the binary under test, and edits of it.

use serde_json::{Value, json};

/// A configuration under construction.
#[derive(Clone, Debug)]
pub struct Spec(pub Value);

/// The default configuration: `true` as root in new pid, network, ipc, uts and mount namespaces.
pub fn spec() -> Spec {
    let caps = json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    Spec(json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": {"uid": 0, "gid": 0},
            "args": ["true"],
            "env": ["PATH=/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {"bounding": caps, "effective": caps, "permitted": caps},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": true
        },
        "root": {"path": "rootfs", "readonly": true},
        "hostname": "box",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
             "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
             "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
             "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
            {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
             "options": ["nosuid", "noexec", "nodev", "relatime", "ro"]}
        ],
        "linux": {
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "namespaces": [{"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}],
            "maskedPaths": ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats",
                            "/proc/sched_debug", "/proc/scsi", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
        }
    }))
}

/// The default configuration with a shell script as its program.
pub fn sh(script: &str) -> Spec {
    spec().args(&["sh", "-c", script])
}

impl Spec {
    pub fn args(self, args: &[&str]) -> Self {
        self.set("/process/args", json!(args))
    }

    /// Sets one value by JSON pointer; the parents must exist.
    #[track_caller]
    pub fn set(mut self, pointer: &str, value: Value) -> Self {
        let (parent, key) = pointer.rsplit_once('/').expect("a JSON pointer");
        match self.0.pointer_mut(parent).unwrap_or_else(|| panic!("no {parent} in the configuration")) {
            Value::Array(list) => list[key.parse::<usize>().expect("an index")] = value,
            object => object[key] = value,
        }
        self
    }

    /// Removes one key by JSON pointer.
    #[track_caller]
    pub fn unset(mut self, pointer: &str) -> Self {
        let (parent, key) = pointer.rsplit_once('/').expect("a JSON pointer");
        self.0.pointer_mut(parent).and_then(Value::as_object_mut).expect("an object").shift_remove(key);
        self
    }

    /// Merges a document into the configuration (RFC 7396: objects merge, null removes, all else replaces).
    pub fn patch(mut self, patch: Value) -> Self {
        merge(&mut self.0, patch);
        self
    }

    fn list(&mut self, pointer: &str) -> &mut Vec<Value> {
        self.0.pointer_mut(pointer).and_then(Value::as_array_mut).expect("a list")
    }

    pub fn mount(mut self, mount: Value) -> Self {
        self.list("/mounts").push(mount);
        self
    }

    /// A bind mount with these options.
    pub fn bind(self, source: &str, destination: &str, options: &[&str]) -> Self {
        self.mount(json!({"source": source, "destination": destination, "type": "bind", "options": options}))
    }

    /// A tmpfs with these options.
    pub fn tmpfs(self, destination: &str, options: &[&str]) -> Self {
        self.mount(json!({"source": "tmpfs", "destination": destination, "type": "tmpfs", "options": options}))
    }

    pub fn without_mount(mut self, destination: &str) -> Self {
        self.list("/mounts").retain(|mount| mount["destination"] != destination);
        self
    }

    pub fn env(mut self, entry: &str) -> Self {
        self.list("/process/env").push(entry.into());
        self
    }

    pub fn namespace(mut self, namespace: Value) -> Self {
        let kind = namespace["type"].clone();
        let list = self.list("/linux/namespaces");
        list.retain(|other| other["type"] != kind);
        list.push(namespace);
        self
    }

    pub fn without_namespace(mut self, kind: &str) -> Self {
        self.list("/linux/namespaces").retain(|namespace| namespace["type"] != kind);
        self
    }

    pub fn caps(self, caps: &[&str]) -> Self {
        self.set("/process/capabilities", json!({"bounding": caps, "effective": caps, "permitted": caps}))
    }

    pub fn writable(self) -> Self {
        self.set("/root/readonly", json!(false))
    }

    /// A user namespace that maps container ids 0.. to host ids from `host`, `size` of them.
    pub fn userns(self, host: u32, size: u32) -> Self {
        let map = json!([{"containerID": 0, "hostID": host, "size": size}]);
        self.namespace(json!({"type": "user"})).patch(json!({"linux": {"uidMappings": map, "gidMappings": map}}))
    }

    /// The resources, merged.
    pub fn resources(self, resources: Value) -> Self {
        self.patch(json!({"linux": {"resources": resources}}))
    }

    /// One entry of one hook point: a shell script on the host.
    pub fn hook(mut self, point: &str, script: &str) -> Self {
        let hooks = self.0.as_object_mut().unwrap().entry("hooks").or_insert_with(|| json!({}));
        let list = hooks.as_object_mut().unwrap().entry(point).or_insert_with(|| json!([]));
        list.as_array_mut()
            .unwrap()
            .push(json!({"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"]}));
        self
    }

    /// The finished document, with the mark by which leftovers of a test are found.
    pub fn finish(mut self, tag: &str) -> Value {
        let mark = json!(format!("RUSTBOX_TEST={tag}"));
        if let Some(env) = self.0.pointer_mut("/process/env").and_then(Value::as_array_mut) {
            env.push(mark.clone());
        }
        if let Some(hooks) = self.0.get_mut("hooks").and_then(Value::as_object_mut) {
            for hook in hooks.values_mut().filter_map(Value::as_array_mut).flatten() {
                if let Some(env) = hook.get_mut("env").and_then(Value::as_array_mut) {
                    env.push(mark.clone());
                }
            }
        }
        self.0
    }
}

fn merge(target: &mut Value, patch: Value) {
    match patch {
        Value::Object(patch) => {
            if !target.is_object() {
                *target = json!({});
            }
            let object = target.as_object_mut().unwrap();
            for (key, value) in patch {
                if value.is_null() {
                    object.shift_remove(&key);
                } else {
                    merge(object.entry(key).or_insert(Value::Null), value);
                }
            }
        }
        other => *target = other,
    }
}
