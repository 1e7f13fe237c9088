//! From a step's configuration and its limits to the OCI bundle of its sandbox.
//!
//! Pure: [`configure`] and [`restrict`] build the configuration. The effects are those of [`super::stage`].

use std::path::{Component, Path, PathBuf};

use oci_spec::runtime::{
    Linux, LinuxIdMappingBuilder, LinuxNamespaceType, LinuxResources, Mount, PosixRlimit, PosixRlimitBuilder,
    PosixRlimitType, Process, Spec,
};

use super::capability::Accounting;
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
    /// Memory, with what else can be limited by it.
    pub memory: Option<Accounting>,
    /// Processes.
    pub pids: bool,
}

/// Builds the configuration of a judge sandbox from a template.
///
/// # Errors
/// [`Error::Config`] where the template has no `process`, or an id or limit is too large for its field.
pub fn configure(template: &Spec, setting: &Setting<'_>) -> Result<Spec> {
    let mut spec = template.clone();
    let mounts = spec.mounts_mut().get_or_insert_default();
    for mount in mounts.iter_mut() {
        let limited = ["/tmp", "/dev/shm", WORK].iter().any(|place| mount.destination() == Path::new(place));
        if mount.typ().as_deref() == Some("tmpfs") && limited {
            // One page more than the largest file, so that the file size limit is met before the disk is full.
            let size = setting.limits.file_size_bytes.saturating_add(4096).max(4096);
            let options = mount.options_mut().get_or_insert_default();
            options.extend([format!("size={size}"), format!("nr_inodes={}", setting.inodes)]);
        }
    }
    for place in setting.places {
        if matches!(place.kind, Kind::Directory | Kind::File) {
            mounts.push(bind(&place.outside, &place.inside, &["rbind", "rro", "rnosuid", "rnodev"]));
        }
    }
    match setting.box_mount {
        BoxMount::None => {}
        BoxMount::Bind(directory) => {
            mounts.push(bind(directory, Path::new(BOX), &["bind", "ro", "nosuid", "nodev"]));
        }
        BoxMount::CopyUp => {
            let options = ["tmpcopyup", "ro", "nosuid", "nodev", "mode=755"];
            mounts.push(mount("tmpfs", Path::new("tmpfs"), Path::new(BOX), &options));
        }
    }
    spec.root_mut().get_or_insert_default().set_path(setting.rootfs.to_owned());
    fill_in(process(&mut spec)?, setting.limits);
    extend(&mut spec, setting.env, setting.shares, setting.args)?;
    if let Some(cpus) = setting.cpus {
        confine(&mut spec, cpus)?;
    }
    let (first, size) = setting.ids;
    if setting.user_namespace {
        let mapping = LinuxIdMappingBuilder::default().host_id(first).size(size).build();
        let mapping = mapping.map_err(|error| Error::config("linux.uidMappings", error.to_string()))?;
        linux(&mut spec)?.set_uid_mappings(Some(vec![mapping])).set_gid_mappings(Some(vec![mapping]));
    } else {
        without_user_namespace(&mut spec, first)?;
    }
    restrict(&mut spec, setting.limits, setting.resources)?;
    Ok(spec)
}

fn process(spec: &mut Spec) -> Result<&mut Process> {
    spec.process_mut().as_mut().ok_or_else(|| Error::config("process", "is missing: nothing to judge"))
}

fn linux(spec: &mut Spec) -> Result<&mut Linux> {
    let place = spec.linux_mut();
    if place.is_none() {
        // An empty object, which is not the library's default.
        let empty = serde_json::from_str("{}").map_err(|error| Error::config("linux", error.to_string()))?;
        *place = Some(empty);
    }
    place.as_mut().ok_or_else(|| Error::config("linux", "is missing"))
}

/// Only on these cores, as a cpuset writes them.
///
/// # Errors
/// As [`configure`].
pub fn confine(spec: &mut Spec, cpus: &str) -> Result<()> {
    let resources = linux(spec)?.resources_mut().get_or_insert_default();
    resources.cpu_mut().get_or_insert_default().set_cpus(Some(cpus.to_owned()));
    Ok(())
}

/// Writes the limits into the bundle's own arguments and environment: some runtimes must be told what they may use.
fn fill_in(process: &mut Process, limits: &Limits) {
    let fill = |text: &String| {
        if !text.contains("${") {
            return text.clone();
        }
        text.replace("${memory}", &limits.memory_bytes.to_string())
            .replace("${memory-mib}", &(limits.memory_bytes >> 20).to_string())
            .replace("${stack}", &limits.stack_bytes.to_string())
    };
    let args = process.args().as_ref().map(|args| args.iter().map(fill).collect());
    let env = process.env().as_ref().map(|env| env.iter().map(fill).collect());
    process.set_args(args).set_env(env);
}

/// Moves the payload's user into the range of host ids that the sandbox has leased: never an id of somebody else's.
fn without_user_namespace(spec: &mut Spec, first: u32) -> Result<()> {
    if let Some(namespaces) = linux(spec)?.namespaces_mut() {
        namespaces.retain(|namespace| namespace.typ() != LinuxNamespaceType::User);
    }
    let user = process(spec)?.user_mut();
    let moved = |id: u32| {
        id.checked_add(first).ok_or_else(|| Error::config("process.user", format!("{id} is outside of the leased ids")))
    };
    let (uid, gid) = (moved(user.uid())?, moved(user.gid())?);
    user.set_uid(uid).set_gid(gid);
    for option in spec.mounts_mut().iter_mut().flatten().filter_map(|mount| mount.options_mut().as_mut()).flatten() {
        match option.split_once('=') {
            Some(("uid", _)) => *option = format!("uid={uid}"),
            Some(("gid", _)) => *option = format!("gid={gid}"),
            _ => {}
        }
    }
    Ok(())
}

/// Adds what the caller gives: environment, host directories, the program.
///
/// # Errors
/// [`Error::Config`] where there is no `process`.
pub fn extend(spec: &mut Spec, env: &[String], shares: &[Share], args: Option<&[String]>) -> Result<()> {
    let process = process(spec)?;
    if let Some(args) = args {
        process.set_args(Some(args.to_vec()));
    }
    process.env_mut().get_or_insert_default().extend_from_slice(env);
    for share in shares {
        // Of the whole tree: a file system that is mounted below the directory would keep its own access.
        let access = if share.writable { "rw" } else { "rro" };
        let mount = bind(&share.outside, &share.inside, &["rbind", access, "rnosuid", "rnodev"]);
        spec.mounts_mut().get_or_insert_default().push(mount);
    }
    Ok(())
}

/// Lays the limits over any configuration, a user's own bundle too: cgroup resources and rlimits, no new privileges, no
/// terminal.
///
/// # Errors
/// As [`configure`].
pub fn restrict(spec: &mut Spec, limits: &Limits, host: Resources) -> Result<()> {
    let resources = linux(spec)?.resources_mut().get_or_insert_default();
    if let Some(accounting) = host.memory {
        limit_memory(resources, limits.memory_bytes, accounting)?;
    }
    if host.pids {
        resources.pids_mut().get_or_insert_default().set_limit(whole("linux.resources.pids.limit", limits.processes)?);
    }
    let own = [
        // 0 would still start the host's handler where `core_pattern` is a pipe; 1 is the kernel's word for no core at all.
        (PosixRlimitType::RlimitCore, 1, 1),
        // The caller's may allow a program to starve the host.
        (PosixRlimitType::RlimitNice, 0, 0),
        (PosixRlimitType::RlimitRtprio, 0, 0),
    ];
    let process = process(spec)?;
    limit_process(process, limits.rlimits().into_iter().chain(own))?;
    process.set_no_new_privileges(Some(true)).set_terminal(Some(false));
    Ok(())
}

/// Lays resource limits (type, soft, hard) over those of a process, in the place of its own of the same types.
///
/// # Errors
/// As [`rlimit`].
pub fn limit_process(
    process: &mut Process,
    limits: impl IntoIterator<Item = (PosixRlimitType, u64, u64)>,
) -> Result<()> {
    let mut rlimits = process.rlimits().clone().unwrap_or_default();
    for (typ, soft, hard) in limits {
        rlimits.retain(|limit| limit.typ() != typ);
        rlimits.push(rlimit(typ, soft, hard)?);
    }
    process.set_rlimits(Some(rlimits));
    Ok(())
}

/// Limits memory, and what the kernel does not count as such but lets grow with it.
///
/// # Errors
/// As [`configure`].
pub fn limit_memory(resources: &mut LinuxResources, bytes: u64, accounting: Accounting) -> Result<()> {
    let bytes = whole("linux.resources.memory.limit", bytes)?;
    let mut memory = resources.memory().unwrap_or_default();
    memory.set_limit(Some(bytes));
    // Counts memory and swap together: equal, so that there is none.
    memory.set_swap(accounting.swap.then_some(bytes));
    if accounting.sockets {
        memory.set_kernel_tcp(Some(bytes));
    }
    resources.set_memory(Some(memory));
    Ok(())
}

/// A resource limit of a process.
///
/// # Errors
/// [`Error::Config`] where the library cannot build one.
pub fn rlimit(typ: PosixRlimitType, soft: u64, hard: u64) -> Result<PosixRlimit> {
    let rlimit = PosixRlimitBuilder::default().typ(typ).soft(soft).hard(hard).build();
    rlimit.map_err(|error| Error::config("process.rlimits", error.to_string()))
}

fn whole(path: &str, number: u64) -> Result<i64> {
    i64::try_from(number).map_err(|_| Error::config(path, format!("{number} is too large")))
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

fn bind(from: &Path, to: &Path, options: &[&str]) -> Mount {
    mount("bind", from, to, options)
}

fn mount(kind: &str, from: &Path, to: &Path, options: &[&str]) -> Mount {
    let mut mount = Mount::default();
    mount.set_typ(Some(kind.to_owned())).set_source(Some(from.to_owned())).set_destination(to.to_owned());
    mount.set_options(Some(options.iter().map(|&option| option.to_owned()).collect()));
    mount
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::judge::language::Library;

    fn spec(process: serde_json::Value) -> Spec {
        let mut config = json!({"ociVersion": "1.2.0", "process": {"cwd": "/", "user": {"uid": 0, "gid": 0}}});
        config["process"].as_object_mut().unwrap().extend(process.as_object().unwrap().clone());
        serde_json::from_value(config).unwrap()
    }

    const ALL: Resources = Resources { memory: Some(Accounting { swap: true, sockets: true }), pids: true };

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
        assert_eq!(
            (memory.limit(), memory.swap(), memory.kernel_tcp()),
            (Some(256 << 20), Some(256 << 20), Some(256 << 20))
        );
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
        let mut spec = spec(json!({"args": ["x", "-m${memory},${memory-mib},${other}"], "env": ["S=${stack}"]}));
        let env = ["E=${stack}".to_owned()];
        fill_in(process(&mut spec).unwrap(), &limits);
        extend(&mut spec, &env, &[], None).unwrap();
        let process = process(&mut spec).unwrap();
        assert_eq!(process.args().as_ref().unwrap()[1], "-m67108864,64,${other}");
        assert_eq!(process.env().as_ref().unwrap(), &["S=1048576", "E=${stack}"]);
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
        let mut spec = spec(json!({"noNewPrivileges": false, "terminal": true, "rlimits": [
            {"type": "RLIMIT_NPROC", "soft": 1, "hard": 1}, {"type": "RLIMIT_CORE", "soft": 9, "hard": 9}]}));
        restrict(&mut spec, &Limits::default(), ALL).unwrap();
        let process = process(&mut spec).unwrap();
        let of = |typ| process.rlimits().iter().flatten().copied().filter(move |limit| limit.typ() == typ);
        assert_eq!(
            of(PosixRlimitType::RlimitNproc).collect::<Vec<_>>(),
            [rlimit(PosixRlimitType::RlimitNproc, 1, 1).unwrap()]
        );
        assert_eq!(
            of(PosixRlimitType::RlimitCore).collect::<Vec<_>>(),
            [rlimit(PosixRlimitType::RlimitCore, 1, 1).unwrap()]
        );
        assert_eq!((process.no_new_privileges(), process.terminal()), (Some(true), Some(false)));
        assert!(spec.linux().as_ref().unwrap().namespaces().is_none(), "nothing that the bundle does not ask for");
    }

    #[test]
    fn what_cannot_be_judged_is_refused() {
        let mut nothing: Spec = serde_json::from_value(json!({"ociVersion": "1.2.0"})).unwrap();
        let error = restrict(&mut nothing, &Limits::default(), ALL).unwrap_err().to_string();
        assert!(error.contains("process"), "{error}");
        let limits = Limits { memory_bytes: u64::MAX, ..Limits::default() };
        let error = restrict(&mut spec(json!({})), &limits, ALL).unwrap_err().to_string();
        assert!(error.contains("linux.resources.memory.limit"), "{error}");
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
