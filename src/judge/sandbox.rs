//! From a step's configuration and its limits to the OCI bundle of its sandbox.
//!
//! Pure: [`configure`] and [`restrict`] build the configuration. The effects are those of [`super::stage`].

use std::path::{Component, Path, PathBuf};

use oci_spec::runtime::{PosixRlimitType, Spec};
use serde_json::{Value, json};

use super::limits::Limits;
use super::stage::BoxMount;
use crate::error::{Error, Result};

/// The directory in the sandbox that holds what the judge puts in, read-only.
pub const BOX: &str = "/box";
/// The working directory, a private tmpfs.
pub const WORK: &str = "/work";

/// A host directory or file given to the sandbox (`--dir IN=OUT[:rw]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// On the host, absolute.
    pub inside: PathBuf,
    /// In the sandbox, absolute.
    pub outside: PathBuf,
    /// Whether the program may write to it.
    pub writable: bool,
}

impl std::str::FromStr for Share {
    type Err = String;

    /// `IN=OUT[:rw|:ro]`: OUT is the host's path, IN the sandbox's; one path alone stands for both.
    fn from_str(text: &str) -> Result<Self, String> {
        let (paths, writable) = match text.rsplit_once(':') {
            Some((paths, "rw")) => (paths, true),
            Some((paths, "ro")) => (paths, false),
            _ => (text, false),
        };
        let (inside, outside) = paths.split_once('=').unwrap_or((paths, paths));
        let plain = |path: &str| {
            let path = PathBuf::from(path);
            let climbs = path.components().any(|part| matches!(part, Component::ParentDir));
            (path.is_absolute() && !climbs).then_some(path)
        };
        match (plain(inside), plain(outside)) {
            (Some(inside), Some(outside)) if inside != Path::new("/") => Ok(Share { inside, outside, writable }),
            _ => Err(format!("`{text}` is not IN=OUT[:rw] with absolute paths")),
        }
    }
}

/// A host directory or file that a sandbox shows read-only, where the host has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// On the host.
    pub outside: PathBuf,
    /// In the sandbox.
    pub inside: PathBuf,
    /// What the host had there.
    pub kind: Kind,
}

/// What a place is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Not there.
    Missing,
    /// A link on the host, shown under its own name: it must be one in the sandbox, to this.
    Link(PathBuf),
    /// A directory.
    Directory,
    /// A file.
    File,
}

impl Place {
    /// Shown under its own name.
    pub fn same(path: PathBuf) -> Place {
        let kind = match std::fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_symlink() => std::fs::read_link(&path).map_or(Kind::Missing, Kind::Link),
            other => Kind::of(other),
        };
        Place { inside: path.clone(), outside: path, kind }
    }

    /// Shown under another name: what a link leads to.
    pub fn elsewhere(outside: PathBuf, inside: PathBuf) -> Place {
        let kind = Kind::of(std::fs::metadata(&outside));
        Place { outside, inside, kind }
    }
}

impl Kind {
    fn of(metadata: std::io::Result<std::fs::Metadata>) -> Kind {
        match metadata {
            Ok(metadata) if metadata.is_dir() => Kind::Directory,
            Ok(_) => Kind::File,
            Err(_) => Kind::Missing,
        }
    }
}

/// What instantiates a step, besides its configuration.
#[derive(Debug)]
pub struct Setting<'a> {
    /// The limits.
    pub limits: &'a Limits,
    /// The first host id of the sandbox's range, and the size of the range.
    pub ids: (u32, u32),
    /// Whether the range is mapped by a user namespace; else the payload has one of its ids on the host itself.
    pub user_namespace: bool,
    /// Bound read-only, where the host has them.
    pub places: &'a [Place],
    /// Inodes of each writable tmpfs.
    pub inodes: u64,
    /// `K=V`, after the bundle's own.
    pub env: &'a [String],
    /// Host directories given to the sandbox.
    pub shares: &'a [Share],
    /// The program, where the configuration has none.
    pub args: Option<&'a [String]>,
    /// Only on these cores, as a cpuset writes them.
    pub cpus: Option<&'a str>,
    /// The root file system, absolute.
    pub rootfs: &'a Path,
    /// How `/box` comes in.
    pub box_mount: BoxMount<'a>,
    /// The cgroup resources that the host can limit.
    pub resources: Resources,
}

/// Cgroup resources that the host can limit; a degraded one is left out.
#[derive(Debug, Clone, Copy)]
pub struct Resources {
    /// Memory.
    pub memory: bool,
    /// Swap.
    pub swap: bool,
    /// Processes.
    pub pids: bool,
}

/// Builds the configuration of a judge sandbox from a template.
///
/// # Errors
/// [`Error::Config`] where the template is no OCI configuration.
pub fn configure(template: &Value, setting: &Setting<'_>) -> Result<Spec> {
    let mut config = template.clone();
    for mount in config["mounts"].as_array_mut().into_iter().flatten() {
        let limited = ["/tmp", "/dev/shm", WORK].iter().any(|place| mount["destination"] == *place);
        if mount["type"] == "tmpfs" && limited {
            // One page more than the largest file, so that the file size limit is met before the disk is full.
            let size = setting.limits.file_size_bytes.saturating_add(4096).max(4096);
            push(&mut mount["options"], json!(format!("size={size}")));
            push(&mut mount["options"], json!(format!("nr_inodes={}", setting.inodes)));
        }
    }
    for place in setting.places {
        if matches!(place.kind, Kind::Directory | Kind::File) {
            push(&mut config["mounts"], bind(&place.outside, &place.inside, &["rbind", "rro", "rnosuid", "rnodev"]));
        }
    }
    config["root"]["path"] = json!(setting.rootfs);
    match setting.box_mount {
        BoxMount::None => {}
        BoxMount::Bind(directory) => {
            push(&mut config["mounts"], bind(directory, Path::new(BOX), &["bind", "ro", "nosuid", "nodev"]))
        }
        BoxMount::CopyUp => {
            let options = ["tmpcopyup", "ro", "nosuid", "nodev", "mode=755"];
            let mount = json!({"destination": BOX, "type": "tmpfs", "source": "tmpfs", "options": options});
            push(&mut config["mounts"], mount);
        }
    }
    fill_in(&mut config["process"], setting.limits);
    extend(&mut config, setting.env, setting.shares, setting.args);
    if let Some(cpus) = setting.cpus {
        config["linux"]["resources"]["cpu"]["cpus"] = json!(cpus);
    }
    let (first, size) = setting.ids;
    if setting.user_namespace {
        let mapping = json!([{"containerID": 0, "hostID": first, "size": size}]);
        config["linux"]["uidMappings"] = mapping.clone();
        config["linux"]["gidMappings"] = mapping;
    } else {
        without_user_namespace(&mut config, first);
    }
    restrict(&mut config, setting.limits, setting.resources);
    serde_json::from_value(config).map_err(|error| Error::config("bundles", error.to_string()))
}

/// Writes the limits into the bundle's own arguments and environment: some runtimes must be told what they may use.
fn fill_in(process: &mut Value, limits: &Limits) {
    for list in ["args", "env"] {
        for text in process[list].as_array_mut().into_iter().flatten() {
            let Some(template) = text.as_str().filter(|text| text.contains("${")) else { continue };
            let filled = template
                .replace("${memory}", &limits.memory_bytes.to_string())
                .replace("${memory-mib}", &(limits.memory_bytes >> 20).to_string())
                .replace("${stack}", &limits.stack_bytes.to_string());
            *text = json!(filled);
        }
    }
}

/// Moves the payload's user into the range of host ids that the sandbox has leased: never an id of somebody else's.
fn without_user_namespace(config: &mut Value, first: u32) {
    if let Some(namespaces) = config["linux"]["namespaces"].as_array_mut() {
        namespaces.retain(|namespace| namespace["type"] != "user");
    }
    let user = &mut config["process"]["user"];
    let [uid, gid] = ["uid", "gid"].map(|key| user[key].as_u64().unwrap_or(0) + u64::from(first));
    user["uid"] = json!(uid);
    user["gid"] = json!(gid);
    for option in
        config["mounts"].as_array_mut().into_iter().flatten().filter_map(|it| it["options"].as_array_mut()).flatten()
    {
        match option.as_str().and_then(|text| text.split_once('=')) {
            Some(("uid", _)) => *option = json!(format!("uid={uid}")),
            Some(("gid", _)) => *option = json!(format!("gid={gid}")),
            _ => {}
        }
    }
}

/// Adds what the caller gives: environment, host directories, the program.
pub fn extend(config: &mut Value, env: &[String], shares: &[Share], args: Option<&[String]>) {
    if let Some(args) = args {
        config["process"]["args"] = json!(args);
    }
    for variable in env {
        push(&mut config["process"]["env"], json!(variable));
    }
    for share in shares {
        // Of the whole tree: a file system that is mounted below the directory would keep its own access.
        let access = if share.writable { "rw" } else { "rro" };
        push(&mut config["mounts"], bind(&share.outside, &share.inside, &["rbind", access, "rnosuid", "rnodev"]));
    }
}

/// Lays the limits over any configuration, a user's own bundle too: cgroup resources and rlimits, no new privileges, no
/// terminal.
pub fn restrict(config: &mut Value, limits: &Limits, host: Resources) {
    let resources = &mut config["linux"]["resources"];
    if host.memory {
        resources["memory"]["limit"] = json!(limits.memory_bytes);
        if host.swap {
            // Counts memory and swap together: equal, so that there is none.
            resources["memory"]["swap"] = json!(limits.memory_bytes);
        }
    }
    if host.pids {
        resources["pids"]["limit"] = json!(limits.processes);
    }
    let own = [
        // 0 would still start the host's handler where `core_pattern` is a pipe; 1 is the kernel's word for no core at all.
        (PosixRlimitType::RlimitCore, 1, 1),
        // The caller's may allow a program to starve the host.
        (PosixRlimitType::RlimitNice, 0, 0),
        (PosixRlimitType::RlimitRtprio, 0, 0),
    ];
    let fixed = limits.rlimits().into_iter().chain(own);
    let fixed: Vec<Value> = fixed.map(|(typ, soft, hard)| json!({"type": typ, "soft": soft, "hard": hard})).collect();
    let process = &mut config["process"];
    let mut rlimits: Vec<Value> = process["rlimits"].as_array().cloned().unwrap_or_default();
    rlimits.retain(|limit| fixed.iter().all(|own| limit["type"] != own["type"]));
    rlimits.extend(fixed);
    process["rlimits"] = Value::Array(rlimits);
    process["noNewPrivileges"] = json!(true);
    process["terminal"] = json!(false);
}

/// The writable tmpfs of a configuration: where the payload can fill a disk.
pub fn writable_tmpfs(spec: &Spec) -> Vec<PathBuf> {
    let mounts = spec.mounts().as_deref().unwrap_or_default();
    let writable = mounts.iter().filter(|mount| {
        let read_only = mount.options().iter().flatten().any(|option| option == "ro");
        mount.typ().as_deref() == Some("tmpfs") && !read_only && mount.destination() != Path::new("/dev")
    });
    writable.map(|mount| mount.destination().clone()).collect()
}

fn bind(from: &Path, to: &Path, options: &[&str]) -> Value {
    json!({"destination": to, "type": "bind", "source": from, "options": options})
}

/// Appends to a list, which is made where there is none.
fn push(list: &mut Value, value: Value) {
    match list {
        Value::Array(list) => list.push(value),
        other => *other = json!([value]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::language::Library;

    const ALL: Resources = Resources { memory: true, swap: true, pids: true };

    fn setting(limits: &Limits) -> Setting<'_> {
        Setting {
            limits,
            ids: (7000, 65536),
            user_namespace: true,
            places: &[],
            inodes: 7,
            env: &[],
            shares: &[],
            args: None,
            cpus: None,
            rootfs: Path::new("/rootfs"),
            box_mount: BoxMount::None,
            resources: ALL,
        }
    }

    #[test]
    fn limits_become_resources_rlimits_and_mount_options() {
        let limits = Limits { file_size_bytes: 8192, cpu_time_ms: 1500, extra_time_ms: 600, ..Limits::default() };
        let base = Library::embedded().base().unwrap();
        let args = ["/bin/true".to_owned()];
        let env = ["A=b".to_owned()];
        let elsewhere = Place::elsewhere("/usr".into(), "/toolchain/x".into());
        let places = [Place::same("/usr".into()), Place::same("/nowhere".into()), elsewhere];
        let setting = Setting { args: Some(&args), env: &env, places: &places, ..setting(&limits) };
        let spec = configure(&base.config, &setting).unwrap();
        let resources = spec.linux().as_ref().unwrap().resources().as_ref().unwrap();
        let memory = resources.memory().as_ref().unwrap();
        assert_eq!((memory.limit(), memory.swap()), (Some(256 << 20), Some(256 << 20)));
        assert_eq!(spec.linux().as_ref().unwrap().uid_mappings().as_ref().unwrap()[0].host_id(), 7000);
        let process = spec.process().as_ref().unwrap();
        assert!(process.env().as_ref().unwrap().contains(&"A=b".to_owned()));
        let cpu = &process.rlimits().as_ref().unwrap()[0];
        assert_eq!((cpu.soft(), cpu.hard()), (4, 5));
        let mounts = spec.mounts().as_ref().unwrap();
        let work = mounts.iter().find(|mount| mount.destination() == Path::new(WORK)).unwrap();
        let options = work.options().as_ref().unwrap();
        for option in ["size=12288", "nr_inodes=7", "nosuid", "nodev"] {
            assert!(options.contains(&option.to_owned()), "{option}");
        }
        assert!(mounts.iter().any(|mount| mount.destination() == Path::new("/usr")));
        assert!(!mounts.iter().any(|mount| mount.destination() == Path::new("/nowhere")));
        let moved = mounts.iter().find(|mount| mount.destination() == Path::new("/toolchain/x")).unwrap();
        assert_eq!(moved.source().as_deref(), Some(Path::new("/usr")));
        assert_eq!(writable_tmpfs(&spec), [PathBuf::from("/dev/shm"), PathBuf::from("/tmp"), PathBuf::from(WORK)]);
    }

    #[test]
    fn a_bundle_may_name_the_limits_and_a_program_may_not() {
        let limits = Limits { memory_bytes: 64 << 20, stack_bytes: 1 << 20, ..Limits::default() };
        let template = json!({"process": {"args": ["x", "-m${memory},${memory-mib},${other}"], "env": ["S=${stack}"]}});
        let env = ["E=${stack}".to_owned()];
        let mut config = template.clone();
        fill_in(&mut config["process"], &limits);
        extend(&mut config, &env, &[], None);
        assert_eq!(config["process"]["args"][1], "-m67108864,64,${other}");
        assert_eq!(config["process"]["env"], json!(["S=1048576", "E=${stack}"]));
    }

    #[test]
    fn without_a_user_namespace_the_payload_still_has_ids_of_its_own() {
        let limits = Limits::default();
        let base = Library::embedded().base().unwrap();
        let spec = configure(&base.config, &Setting { user_namespace: false, ..setting(&limits) }).unwrap();
        let namespaces = spec.linux().as_ref().unwrap().namespaces().as_ref().unwrap();
        assert!(!namespaces.iter().any(|it| it.typ() == oci_spec::runtime::LinuxNamespaceType::User));
        assert_eq!(spec.process().as_ref().unwrap().user().uid(), 8000);
        let mounts = spec.mounts().as_ref().unwrap();
        let work = mounts.iter().find(|mount| mount.destination() == Path::new(WORK)).unwrap();
        assert!(work.options().as_ref().unwrap().contains(&"uid=8000".to_owned()));
    }

    #[test]
    fn a_bundle_of_the_user_keeps_its_own_rlimits_but_not_ours() {
        let mut config = json!({"process": {"noNewPrivileges": false, "rlimits": [
            {"type": "RLIMIT_NPROC", "soft": 1, "hard": 1}, {"type": "RLIMIT_CORE", "soft": 9, "hard": 9}]}});
        restrict(&mut config, &Limits::default(), ALL);
        let rlimits = config["process"]["rlimits"].as_array().unwrap();
        assert!(rlimits.iter().any(|limit| limit["type"] == "RLIMIT_NPROC"));
        let core: Vec<_> = rlimits.iter().filter(|limit| limit["type"] == "RLIMIT_CORE").collect();
        assert_eq!((core.len(), &core[0]["hard"]), (1, &json!(1)));
        assert_eq!(config["process"]["noNewPrivileges"], true);
    }

    #[test]
    fn shares_are_in_equals_out_with_absolute_paths() {
        let share: Share = "/data=/srv/data:rw".parse().unwrap();
        assert_eq!((share.inside, share.outside, share.writable), ("/data".into(), "/srv/data".into(), true));
        assert!(!"/data".parse::<Share>().unwrap().writable);
        for bad in ["", "data=/x", "/x=data", "/=/x", "/x=/../y", "/x/../y=/z"] {
            assert!(bad.parse::<Share>().is_err(), "{bad}");
        }
    }
}
