//! From a step's configuration and its limits to the OCI bundle of its sandbox.
//!
//! Pure: [`configure`] and [`restrict`] build the configuration. Effects: [`Stage`] makes the bundle's root file
//! system, a private tree of empty mount points, links as the host has them, and the files that go in.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

use oci_spec::runtime::Spec;
use serde_json::{Value, json};

use super::limits::Limits;
use crate::error::{At, Error, Result};

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

/// What instantiates a step, besides its configuration.
#[derive(Debug)]
pub struct Setting<'a> {
    /// The limits.
    pub limits: &'a Limits,
    /// The first host id of the sandbox's range, and the size of the range.
    pub ids: (u32, u32),
    /// Whether the range is mapped by a user namespace; else the payload has one of its ids on the host itself.
    pub user_namespace: bool,
    /// Host paths bound read-only, where they exist.
    pub paths: &'a [PathBuf],
    /// Inodes of each writable tmpfs.
    pub inodes: u64,
    /// `K=V`, after the bundle's own.
    pub env: &'a [String],
    /// Host directories given to the sandbox.
    pub shares: &'a [Share],
    /// The program, where the configuration has none.
    pub args: Option<&'a [String]>,
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
    for path in setting.paths {
        if std::fs::symlink_metadata(path).is_ok_and(|metadata| !metadata.is_symlink()) {
            push(&mut config["mounts"], bind(path, path, &["rbind", "ro", "nosuid", "nodev"]));
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
    extend(&mut config, setting.env, setting.shares, setting.args);
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
        let access = if share.writable { "rw" } else { "ro" };
        push(&mut config["mounts"], bind(&share.outside, &share.inside, &["rbind", access, "nosuid", "nodev"]));
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
    // A backstop in whole seconds, past what the judge itself enforces.
    let cpu = (limits.cpu_time_ms + limits.extra_time_ms).div_ceil(1000) + 1;
    let fixed = [
        ("RLIMIT_CPU", cpu, cpu + 1),
        ("RLIMIT_FSIZE", limits.file_size_bytes, limits.file_size_bytes),
        ("RLIMIT_NOFILE", limits.open_files, limits.open_files),
        ("RLIMIT_STACK", limits.stack_bytes, limits.stack_bytes),
        ("RLIMIT_CORE", 0, 0),
    ];
    let process = &mut config["process"];
    let mut rlimits: Vec<Value> = process["rlimits"].as_array().cloned().unwrap_or_default();
    rlimits.retain(|limit| !fixed.iter().any(|(name, ..)| limit["type"] == *name));
    rlimits.extend(fixed.iter().map(|(name, soft, hard)| json!({"type": name, "soft": soft, "hard": hard})));
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

/// The staged files of one sandbox: its bundle directory, and the root file system it uses.
///
/// The root file system holds nothing but mount points and the links that the host has, so sandboxes share one,
/// `<root>/.rootfs/<hash>`, which is made once and never changed; it is read-only in every sandbox and belongs to the
/// host's root. What goes into `/box` lies in the bundle directory and is bound. A sandbox with shares has mount points of
/// its own, and where the state root forbids execution `/box` must be copied into the sandbox: those get a private root.
#[derive(Debug)]
pub struct Stage {
    directory: PathBuf,
    rootfs: PathBuf,
    private: bool,
    boxed: std::cell::Cell<bool>,
}

/// How `/box` comes into a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BoxMount<'a> {
    /// It is empty, or part of the root file system.
    None,
    /// This directory is bound.
    Bind(&'a Path),
    /// What the root file system has there is copied up into a tmpfs.
    CopyUp,
}

impl Stage {
    /// Makes the bundle directory `<root>/.judge/<id>`, which must not exist, and the root file system where needed.
    ///
    /// # Errors
    /// [`Error::State`] where it exists: its id is in use; else what the file system answers.
    pub fn make(root: &Path, id: &str, paths: &[PathBuf], shares: &[Share]) -> Result<Stage> {
        // The sandbox's user is another one: what is made here must be open to it, whatever the caller's umask says.
        let umask = crate::sys::process::umask(0o022);
        let made = Stage::make_all(root, id, paths, shares);
        crate::sys::process::umask(umask);
        made
    }

    fn make_all(root: &Path, id: &str, paths: &[PathBuf], shares: &[Share]) -> Result<Stage> {
        let directory = Stage::place(root, id);
        make_directory(directory.parent().unwrap_or(root))?;
        match std::fs::create_dir(&directory) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                return Err(Error::state(id, "is in use"));
            }
            made => made.at("make", directory.display())?,
        }
        // From here on a failure takes back what was made.
        let private = !shares.is_empty() || forbids_exec(&directory);
        let rootfs = match private {
            true => directory.join("rootfs"),
            false => root.join(".rootfs").join(skeleton_name(paths)),
        };
        let stage = Stage { directory, rootfs, private, boxed: false.into() };
        let filled = match private {
            true => fill(&stage.rootfs, paths, shares),
            false => stage.share_skeleton(root, paths),
        };
        match filled {
            Ok(()) => Ok(stage),
            Err(error) => {
                let _ = stage.remove();
                Err(error)
            }
        }
    }

    /// The bundle directory of the sandbox `id`.
    pub fn place(root: &Path, id: &str) -> PathBuf {
        root.join(".judge").join(id)
    }

    /// Makes the shared root file system under a name of its own, unless it is there, and publishes it by rename.
    fn share_skeleton(&self, root: &Path, paths: &[PathBuf]) -> Result<()> {
        if self.rootfs.exists() {
            return Ok(());
        }
        make_directory(&root.join(".rootfs"))?;
        let new = self.directory.join("rootfs");
        fill(&new, paths, &[])?;
        match std::fs::rename(&new, &self.rootfs) {
            // Another run was faster. Neither is empty, so neither replaces the other.
            Err(_) if self.rootfs.exists() => std::fs::remove_dir_all(&new).at("remove", new.display()),
            published => published.at("publish", self.rootfs.display()),
        }
    }

    /// The bundle directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The root file system.
    pub fn rootfs(&self) -> &Path {
        &self.rootfs
    }

    /// How `/box` comes into the sandbox.
    pub fn box_mount(&self) -> BoxMount<'_> {
        match (self.boxed.get(), self.private) {
            (false, _) => BoxMount::None,
            (true, false) => BoxMount::Bind(&self.directory),
            (true, true) if forbids_exec(&self.directory) => BoxMount::CopyUp,
            (true, true) => BoxMount::None,
        }
    }

    /// Puts a file into `/box`.
    ///
    /// # Errors
    /// What the file system answers.
    pub fn put_into_box(&self, name: &str, content: &[u8], executable: bool) -> Result<()> {
        self.boxed.set(true);
        let directory = if self.private { self.rootfs.join("box") } else { self.directory.clone() };
        put(&directory.join(name), content, if executable { 0o555 } else { 0o444 })
    }

    /// Removes the stage of a sandbox whose supervisor died: for `delete`, which knows only the id.
    ///
    /// # Errors
    /// What the file system answers.
    pub fn discard(directory: &Path) -> Result<()> {
        match std::fs::remove_dir_all(directory) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            removed => removed.at("remove", directory.display()),
        }
    }

    /// Removes what belongs to this sandbox alone.
    ///
    /// # Errors
    /// What the file system answers.
    pub fn remove(self) -> Result<()> {
        std::fs::remove_dir_all(&self.directory).at("remove", self.directory.display())
    }
}

/// The name of the shared root file system: changes whenever its content would.
fn skeleton_name(paths: &[PathBuf]) -> String {
    use sha2::{Digest, Sha256};
    let mut hash = Sha256::new();
    hash.update([PASSWD, GROUP].concat());
    for path in paths {
        if let Ok(metadata) = std::fs::symlink_metadata(path) {
            let kind: &[u8] = if metadata.is_dir() { b"d" } else { b"f" };
            let target =
                if metadata.is_symlink() { std::fs::read_link(path).unwrap_or_default() } else { PathBuf::new() };
            for part in [path.as_os_str().as_bytes(), kind, target.as_os_str().as_bytes()] {
                hash.update(part);
                hash.update([0]);
            }
        }
    }
    hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

const PASSWD: &str = "root:x:0:0:root:/:/usr/sbin/nologin\nbox:x:1000:1000:box:/work:/bin/sh\n";
const GROUP: &str = "root:x:0:\nbox:x:1000:\n";

/// Makes a root file system: mount points, the host's links, the user database.
fn fill(rootfs: &Path, paths: &[PathBuf], shares: &[Share]) -> Result<()> {
    for name in ["", "proc", "dev", "tmp", "work", "box", "etc"] {
        let path = rootfs.join(name);
        std::fs::create_dir(&path).at("make", path.display())?;
    }
    put(&rootfs.join("etc/passwd"), PASSWD.as_bytes(), 0o444)?;
    put(&rootfs.join("etc/group"), GROUP.as_bytes(), 0o444)?;
    for path in paths {
        let Ok(metadata) = std::fs::symlink_metadata(path) else { continue };
        if metadata.is_symlink() {
            let place = place(rootfs, path)?;
            let target = std::fs::read_link(path).at("read the link", path.display())?;
            std::os::unix::fs::symlink(target, &place).at("make the link", place.display())?;
        } else {
            mount_point(rootfs, path, metadata.is_dir())?;
        }
    }
    for share in shares {
        let metadata = std::fs::metadata(&share.outside).at("stat", share.outside.display())?;
        mount_point(rootfs, &share.inside, metadata.is_dir())?;
    }
    Ok(())
}

/// A directory or an empty file to mount on. One that is there already will do.
fn mount_point(rootfs: &Path, path: &Path, directory: bool) -> Result<()> {
    let place = place(rootfs, path)?;
    if directory {
        return make_directory(&place);
    }
    match std::fs::OpenOptions::new().write(true).create_new(true).mode(0o444).open(&place) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        made => made.at("make", place.display()).map(drop),
    }
}

/// A path's place in the root file system, its parents made. Never through a link: then it could lie elsewhere.
fn place(rootfs: &Path, path: &Path) -> Result<PathBuf> {
    let mut place = rootfs.to_owned();
    let mut parts = path.strip_prefix("/").unwrap_or(path).components().peekable();
    while let Some(part) = parts.next() {
        place.push(part);
        if parts.peek().is_some() {
            make_directory(&place)?;
            if std::fs::symlink_metadata(&place).at("stat", place.display())?.is_symlink() {
                return Err(Error::Usage(format!("`{}` leads through a link of the toolchain", path.display())));
            }
        }
    }
    Ok(place)
}

/// Makes a directory; one that is there already will do.
fn make_directory(path: &Path) -> Result<()> {
    match std::fs::create_dir(path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        made => made.at("make", path.display()),
    }
}

fn put(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    use std::io::Write;
    let mut file =
        std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path).at("make", path.display())?;
    file.write_all(content).at("write", path.display())
}

/// Whether programs on this file system may be executed at all (`/run` often forbids it).
fn forbids_exec(directory: &Path) -> bool {
    use nix::sys::statvfs::{FsFlags, statvfs};
    statvfs(directory).is_ok_and(|fs| fs.flags().contains(FsFlags::ST_NOEXEC))
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
            paths: &[],
            inodes: 7,
            env: &[],
            shares: &[],
            args: None,
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
        let paths = [PathBuf::from("/usr"), PathBuf::from("/nowhere")];
        let setting = Setting { args: Some(&args), env: &env, paths: &paths, ..setting(&limits) };
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
        assert_eq!(writable_tmpfs(&spec), [PathBuf::from("/dev/shm"), PathBuf::from("/tmp"), PathBuf::from(WORK)]);
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
        assert_eq!((core.len(), &core[0]["hard"]), (1, &json!(0)));
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

    #[test]
    fn a_stage_has_links_as_the_host_and_mount_points() {
        let root = tempfile::tempdir().unwrap();
        let host = root.path().join("host");
        std::fs::create_dir(&host).unwrap();
        std::os::unix::fs::symlink("usr/bin", host.join("bin")).unwrap();
        std::fs::write(host.join("file"), "").unwrap();
        let paths = [host.join("bin"), host.join("file"), host.join("missing")];
        let share = |inside: &str| Share { inside: inside.into(), outside: host.clone(), writable: false };
        let stage = Stage::make(root.path(), "a", &paths, &[share("/data/here")]).unwrap();
        let at = |name: &str| stage.rootfs().join(host.strip_prefix("/").unwrap()).join(name);
        assert_eq!(std::fs::read_link(at("bin")).unwrap(), Path::new("usr/bin"));
        assert!(at("file").is_file() && !at("missing").exists());
        assert!(stage.rootfs().join("data/here").is_dir());
        let through = mount_point(stage.rootfs(), &host.join("bin/x"), true);
        assert!(matches!(through, Err(Error::Usage(_))), "never through a link");
        stage.put_into_box("main.sh", b"true", false).unwrap();
        assert!(stage.put_into_box("main.sh", b"x", false).is_err(), "never over something");
        assert!(matches!(Stage::make(root.path(), "a", &[], &[]), Err(Error::State { .. })));
        stage.remove().unwrap();
        assert!(!Stage::place(root.path(), "a").exists());
    }

    #[test]
    fn stages_share_a_root_file_system_as_long_as_the_host_is_the_same() {
        let root = tempfile::tempdir().unwrap();
        let paths = [root.path().join("dir")];
        let make = |id: &str| Stage::make(root.path(), id, &paths, &[]).unwrap();
        let (first, second) = (make("a"), make("b"));
        assert_eq!(first.rootfs(), second.rootfs());
        assert_eq!(first.box_mount(), BoxMount::None);
        first.put_into_box("x", b"", true).unwrap();
        assert_eq!(first.box_mount(), BoxMount::Bind(first.directory()));
        let rootfs = first.rootfs().to_owned();
        first.remove().unwrap();
        assert!(rootfs.join("proc").is_dir(), "it outlives its maker");
        std::fs::create_dir(&paths[0]).unwrap();
        assert_ne!(make("c").rootfs(), second.rootfs());
    }
}
