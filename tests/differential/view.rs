//! What a container of one runtime looks like, from inside and from the host, as a flat list: key → value.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::{Test, leftovers};

/// Key → value. A refused configuration has the one key `refused`.
pub type View = BTreeMap<String, String>;

/// A runtime and how it is called.
#[derive(Clone, Debug)]
pub struct Runtime {
    pub name: &'static str,
    pub program: PathBuf,
    /// The first words of every command line.
    pub words: &'static [&'static str],
}

/// The bundle, and what the host has around its containers.
#[derive(Debug)]
pub struct Stage<'t> {
    test: &'t Test,
    pub probe: PathBuf,
    /// Namespace links of the test itself and of the holder, by which those of a container are told apart.
    pub own: Vec<String>,
    pub held: Vec<String>,
}

/// The files of each controller that say what was asked for.
const CGROUP_FILES: &[&str] = &[
    "memory/memory.limit_in_bytes",
    "memory/memory.memsw.limit_in_bytes",
    "memory/memory.soft_limit_in_bytes",
    "memory/memory.swappiness",
    "memory/memory.oom_control",
    "memory/memory.use_hierarchy",
    "cpu/cpu.shares",
    "cpu/cpu.cfs_quota_us",
    "cpu/cpu.cfs_period_us",
    "cpuset/cpuset.cpus",
    "cpuset/cpuset.mems",
    "pids/pids.max",
    "devices/devices.list",
    "freezer/freezer.state",
];

/// Lines of /proc/self/status that change from run to run.
const UNSTEADY: &[&str] = &["Vm", "Rss", "FDSize", "SigQ", "voluntary", "nonvoluntary", "State", "Hugetlb"];
const PIDS: &[&str] = &["Tgid", "Pid", "PPid", "NStgid", "NSpid", "NSpgid", "NSsid"];

impl<'t> Stage<'t> {
    pub fn new(test: &'t Test, holder: u32) -> Self {
        let probe = test.path("probe");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/differential/probe.c");
        let built = Command::new("gcc").args(["-O1", "-static", "-o"]).args([&probe, Path::new(source)]).status();
        assert!(built.expect("gcc").success(), "the probe cannot be built");
        let links = |pid: &str| {
            let entries = fs::read_dir(format!("/proc/{pid}/ns")).unwrap();
            entries.map(|it| fs::read_link(it.unwrap().path()).unwrap().display().to_string()).collect()
        };
        // Of this thread: it has a mount namespace of its own.
        Stage { test, probe, own: links("thread-self"), held: links(&holder.to_string()) }
    }

    /// The root file system and what is bound into it, as new.
    fn files(&self, bundle: &Path) {
        // crun has given it away, maybe; it is the test's own.
        std::os::unix::fs::chown("/dev/null", Some(0), Some(0)).unwrap();
        let source = self.test.path("source");
        let _ = fs::remove_dir_all(&source);
        fs::create_dir_all(source.join("directory")).unwrap();
        fs::write(source.join("file"), "bound").unwrap();
        let rootfs = bundle.join("rootfs");
        let _ = fs::remove_dir_all(&rootfs);
        for directory in ["bin", "data/directory", "dev", "etc/dir", "proc", "sys", "tmp"] {
            fs::create_dir_all(rootfs.join(directory)).unwrap();
        }
        fs::set_permissions(rootfs.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
        fs::hard_link(&self.probe, rootfs.join("bin/probe")).unwrap();
        symlink("bin", rootfs.join("sbin")).unwrap();
        fs::write(rootfs.join("etc/secret"), "secret").unwrap();
        fs::write(rootfs.join("etc/dir/entry"), "").unwrap();
        fs::write(rootfs.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nworker:x:1000:1000:worker:/tmp:/bin/sh\n")
            .unwrap();
    }

    /// The view of a container of this configuration. Each runtime gets the same paths, names and cgroups, one after the
    /// other, so that nothing differs because of them.
    pub fn view(&self, runtime: &Runtime, number: usize, config: &str) -> View {
        let bundle = self.test.path("bundle");
        fs::create_dir_all(&bundle).unwrap();
        self.files(&bundle);
        fs::write(bundle.join("config.json"), config).unwrap();
        let id = format!("rbt-{}-{number}", self.test.tag);
        let root = self.test.dir.join(format!("state-{}", runtime.name));
        let command = |words: &[&str]| {
            let mut command = Command::new(&runtime.program);
            command.args(runtime.words).arg("--root").arg(&root).args(words);
            command
        };
        let running =
            self.test.spawn(command(&["run", "--detach", "--bundle", bundle.to_str().unwrap(), &id]), Stdio::null());
        let stdout = running.stdout_path();
        let out = running.wait();
        let mut view = View::new();
        if out.code == 0 {
            let text = until_end(&stdout);
            self.inside(&text, &mut view);
            self.cgroups(&format!("rustbox-test-{}-{number}", self.test.tag), &mut view);
        }
        let deleted = self.test.finish(command(&["delete", "--force", &id]));
        if out.code != 0 {
            // Each has words of its own for the reason: only that there is one is compared.
            view.insert("refused".to_owned(), format!("refused: {}", out.stderr.trim()));
            return view;
        }
        // A peer that has left something is not what is under test.
        if runtime.name == "rustbox" {
            assert_eq!(deleted.code, 0, "rustbox does not delete: {deleted:?}");
            // Of this one: crun has its cgroups left now and then.
            let name = format!("{}-{number}", self.test.tag);
            let left = leftovers::find(&self.test.tag, &self.test.dir, &root);
            let left: Vec<_> = left.iter().filter(|it| it.ends_with(&name)).collect();
            assert!(left.is_empty(), "rustbox leaves {left:?}: {config}");
        }
        tree(&bundle.join("rootfs"), "", &mut view);
        view
    }

    fn inside(&self, text: &str, view: &mut View) {
        let own_pids = text.lines().any(|line| line == "pid=1");
        for line in text.lines() {
            let Some((key, value)) = line.split_once('=') else { continue };
            let value = value.replace("\\n", "\n").replace("\\\\", "\\");
            match key {
                "proc.mountinfo" => mounts(&value, view),
                "proc.status" => {
                    let steady = value.lines().filter_map(|line| line.split_once(":\t")).filter(|(name, _)| {
                        !UNSTEADY.iter().any(|it| name.starts_with(it)) && (own_pids || !PIDS.contains(name))
                    });
                    view.extend(steady.map(|(name, value)| (format!("status.{name}"), value.trim().to_owned())));
                }
                "proc.limits" => view.extend(value.lines().skip(1).map(|line| {
                    let (name, rest) = line.split_at_checked(26).unwrap_or((line, ""));
                    (format!("limit.{}", name.trim()), rest.split_whitespace().take(2).collect::<Vec<_>>().join(" "))
                })),
                "proc.cgroup" => view.extend(value.lines().filter_map(|line| {
                    let (_, rest) = line.split_once(':')?;
                    let (controllers, path) = rest.split_once(':')?;
                    Some((format!("cgroup.{controllers}"), path.to_owned()))
                })),
                "pid" => {
                    view.insert(key.to_owned(), if own_pids { "1" } else { "the host's" }.to_owned());
                }
                _ if key.starts_with("namespace.") => {
                    let kind = match value {
                        link if self.own.contains(&link) => "the host's",
                        link if self.held.contains(&link) => "the one to join",
                        _ => "new",
                    };
                    view.insert(key.to_owned(), kind.to_owned());
                }
                _ => {
                    view.insert(key.to_owned(), value);
                }
            }
        }
    }

    fn cgroups(&self, name: &str, view: &mut View) {
        for file in CGROUP_FILES {
            let (controller, file) = file.split_once('/').unwrap();
            if let Ok(value) = fs::read_to_string(format!("/sys/fs/cgroup/{controller}/{name}/{file}")) {
                let mut steady: Vec<_> = value.lines().filter(|line| !line.starts_with("oom_kill ")).collect();
                // Exceptions of the device cgroup have no order.
                steady.sort_unstable();
                view.insert(format!("cgroup-file.{file}"), steady.join(", "));
            }
        }
    }
}

/// What the probe has written when it is done, or has died.
fn until_end(stdout: &Path) -> String {
    let begun = Instant::now();
    loop {
        let text = String::from_utf8_lossy(&fs::read(stdout).unwrap()).into_owned();
        if text.ends_with("end=\n") {
            return text;
        }
        if begun.elapsed() > Duration::from_secs(20) {
            eprintln!("the probe has not reached its end: {text}");
            return text;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Mounts by mount point; one on top of another at the same point has `#2` behind it.
fn mounts(text: &str, view: &mut View) {
    let fields = text.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let by_id: BTreeMap<&str, Vec<&str>> = fields.map(|fields| (fields[0], fields)).collect();
    let below = |fields: &Vec<&str>| by_id.get(fields[1]).filter(|parent| parent[0] != fields[0]);
    let depth = |fields: &Vec<&str>| std::iter::successors(below(fields), |it| below(it)).count();
    // The kernel lists them by age, which is not the order in which they lie.
    let mut all: Vec<_> = by_id.values().collect();
    all.sort_by_key(|fields| (fields[4], depth(fields)));
    let mut points: Vec<&str> = Vec::new();
    for fields in all {
        let dash = fields.iter().position(|field| *field == "-").unwrap();
        let count = points.iter().filter(|point| **point == fields[4]).count();
        points.push(fields[4]);
        let name = if count == 0 { fields[4].to_owned() } else { format!("{}#{}", fields[4], count + 1) };
        let mut propagation: Vec<_> = fields[6..dash].iter().map(|it| it.split(':').next().unwrap()).collect();
        propagation.sort_unstable();
        let mut tell = |what: &str, value: String| view.insert(format!("mount.{name}.{what}"), value);
        tell("root", fields[3].to_owned());
        tell("options", fields[5].to_owned());
        tell("propagation", propagation.join(","));
        tell("type", fields[dash + 1].to_owned());
        tell("source", fields[dash + 2].to_owned());
        tell("super", fields[dash + 3..].join(" "));
        tell("parent", below(fields).map_or("none", |parent| parent[4]).to_owned());
    }
    view.insert("mounts".to_owned(), points.join(" "));
}

/// What is left in the root file system on the host: mount points that were made, with their modes and owners.
fn tree(directory: &Path, below: &str, view: &mut View) {
    let mut entries: Vec<_> = fs::read_dir(directory).unwrap().map(Result::unwrap).collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let data = entry.path().symlink_metadata().unwrap();
        let kind = data.file_type();
        let kind = match () {
            () if kind.is_dir() => "directory",
            () if kind.is_symlink() => "link",
            () if kind.is_file() => "file",
            () if kind.is_char_device() || kind.is_block_device() => "device",
            () => "other",
        };
        let name = format!("{below}/{}", entry.file_name().to_string_lossy());
        view.insert(
            format!("rootfs.{name}"),
            format!("{kind} {:04o} {}:{}", data.mode() & 0o7777, data.uid(), data.gid()),
        );
        if data.is_dir() {
            tree(&entry.path(), &name, view);
        }
    }
}
