//! A private root directory and a clone that enters it.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustbox::init::rootfs::{Rootfs, RootfsContext};
use rustbox::sys::clone::{CloneArgs, clone3};
use rustbox::sys::pidfd;
use rustbox::sys::process::Ended;
use serde_json::{Value, json};

pub type Outcome = Result<(), String>;

/// A bundle with a root of its own.
pub struct Sandbox {
    dir: tempfile::TempDir,
    pub config: Value,
    pub context: RootfsContext,
    /// The container shares the host's network namespace.
    pub host_network: bool,
}

impl Sandbox {
    /// A bundle whose root holds a static busybox and the usual empty directories.
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("rustbox-rootfs-").tempdir().expect("make a bundle");
        let root = dir.path().join("rootfs");
        for name in ["bin", "proc", "sys", "dev", "etc", "tmp", "mnt"] {
            fs::create_dir_all(root.join(name)).expect("make a directory");
        }
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("open the bundle");
        fs::copy("/bin/busybox", root.join("bin/busybox")).expect("copy busybox");
        let config = json!({"ociVersion": "1.2.0", "root": {"path": "rootfs"}, "mounts": [], "linux": {}});
        Sandbox {
            dir,
            config,
            context: RootfsContext { new_mount_ns: true, ..RootfsContext::default() },
            host_network: false,
        }
    }

    /// The host's path of the bundle.
    pub fn bundle(&self) -> PathBuf {
        self.dir.path().canonicalize().expect("bundle")
    }

    /// The host's path of something in the root.
    pub fn path(&self, name: &str) -> PathBuf {
        self.bundle().join("rootfs").join(name)
    }

    /// Adds one entry of `mounts`.
    pub fn mount(mut self, destination: &str, kind: &str, source: &str, options: &[&str]) -> Self {
        let mut mount = json!({"destination": destination, "options": options});
        if !kind.is_empty() {
            mount["type"] = kind.into();
        }
        if !source.is_empty() {
            mount["source"] = source.into();
        }
        self.config["mounts"].as_array_mut().expect("mounts").push(mount);
        self
    }

    /// Sets something by JSON pointer, whose parent exists.
    pub fn set(mut self, pointer: &str, value: Value) -> Self {
        let (parent, name) = pointer.rsplit_once('/').expect("pointer");
        self.config.pointer_mut(parent).expect("parent")[name] = value;
        self
    }

    /// The container runs in a new user namespace, its root the host's 100000.
    pub fn with_user_namespace(mut self) -> Self {
        self.context.userns = true;
        self
    }

    /// Makes the root file system in a clone and runs `look` inside it.
    pub fn enter(&self, look: impl FnOnce() -> Outcome) -> Outcome {
        self.run(|rootfs| {
            let words = |error: rustbox::Error| error.to_string();
            rootfs.mount(None, &mut || Ok(())).map_err(words)?;
            rootfs.enter().map_err(words)?;
            rootfs.finish(None).map_err(words)?;
            look()
        })
    }

    /// Runs `body` in a clone with the namespaces of the case, after plan and open.
    pub fn run(&self, body: impl FnOnce(&mut Rootfs) -> Outcome) -> Outcome {
        let spec = serde_json::from_value(self.config.clone()).map_err(|error| error.to_string())?;
        let words = |error: rustbox::Error| error.to_string();
        let mut rootfs = Rootfs::plan(&spec, &self.bundle(), &self.context).map_err(words)?;
        rootfs.open(true).map_err(words)?;
        let (reader, mut writer) = std::io::pipe().map_err(|error| error.to_string())?;
        let (gate, mut opener) = std::io::pipe().map_err(|error| error.to_string())?;
        let mut namespaces = (libc::CLONE_NEWNS | libc::CLONE_NEWIPC | libc::CLONE_NEWPID) as u64;
        if !self.host_network {
            namespaces |= libc::CLONE_NEWNET as u64;
        }
        if self.context.userns {
            namespaces |= libc::CLONE_NEWUSER as u64;
        }
        if self.context.cgroup_ns {
            namespaces |= libc::CLONE_NEWCGROUP as u64;
        }
        let child = clone3(CloneArgs { namespaces, ..CloneArgs::default() }, || {
            let mut gate = &gate;
            let _ = gate.read(&mut [0]);
            if self.context.userns {
                let zero = || -> rustbox::sys::Result<()> {
                    rustbox::sys::process::setresgid(0)?;
                    rustbox::sys::process::setresuid(0)
                };
                if zero().is_err() {
                    return 2;
                }
            }
            match body(&mut rootfs) {
                Ok(()) => 0,
                Err(why) => {
                    let _ = writer.write_all(why.as_bytes());
                    1
                }
            }
        })
        .map_err(|errno| format!("clone: {errno}"))?;
        drop(gate);
        if self.context.userns {
            for map in ["uid_map", "gid_map"] {
                fs::write(format!("/proc/{}/{map}", child.pid), "0 100000 65536\n")
                    .map_err(|error| error.to_string())?;
            }
        }
        opener.write_all(b"x").map_err(|error| error.to_string())?;
        drop(writer);
        outcome(reader, child.pidfd.as_fd())
    }

    /// The error that the whole thing must end with.
    pub fn refusal(&self) -> Result<String, String> {
        match self.enter(|| Ok(())) {
            Ok(()) => Err("nothing was refused".to_owned()),
            Err(why) => Ok(why),
        }
    }
}

/// One line of mountinfo.
#[derive(Debug, Clone)]
pub struct Mounted {
    pub point: String,
    pub options: Vec<String>,
    pub tags: Vec<String>,
    pub fstype: String,
    pub super_options: Vec<String>,
}

/// The mounts as seen from inside; the last one on a mount point is the one in view.
pub fn mounts() -> Result<Vec<Mounted>, String> {
    let text = fs::read_to_string("/proc/self/mountinfo").map_err(|error| format!("mountinfo: {error}"))?;
    let words = |text: &str| -> Vec<String> { text.split(',').map(str::to_owned).collect() };
    let mut all = Vec::new();
    for line in text.lines() {
        let (left, right) = line.split_once(" - ").ok_or("a line of mountinfo has no separator")?;
        let left: Vec<&str> = left.split(' ').collect();
        let right: Vec<&str> = right.split(' ').collect();
        all.push(Mounted {
            point: left[4].to_owned(),
            options: words(left[5]),
            tags: left[6..].iter().map(|tag| tag.to_string()).collect(),
            fstype: right[0].to_owned(),
            super_options: words(right[2]),
        });
    }
    Ok(all)
}

/// The mount in view at a mount point.
pub fn mounted(point: &str) -> Result<Mounted, String> {
    mounts()?.into_iter().rfind(|mount| mount.point == point).ok_or_else(|| format!("nothing is mounted on {point}"))
}

impl Mounted {
    /// Fails unless every word of `words` is an option, and none that starts with `!` is.
    pub fn has(&self, words: &str) -> Outcome {
        for word in words.split_whitespace() {
            let (wanted, word) = match word.strip_prefix('!') {
                Some(word) => (false, word),
                None => (true, word),
            };
            if self.options.iter().any(|option| option == word) != wanted {
                return Err(format!(
                    "{}: `{word}` should {}be in {:?}",
                    self.point,
                    if wanted { "" } else { "not " },
                    self.options
                ));
            }
        }
        Ok(())
    }
}

/// Fails with `what` unless `holds`.
pub fn ensure(holds: bool, what: impl Into<String>) -> Outcome {
    if holds { Ok(()) } else { Err(what.into()) }
}

/// Fails unless the two are equal.
pub fn equal<T: PartialEq + std::fmt::Debug>(what: &str, is: T, should: T) -> Outcome {
    ensure(is == should, format!("{what} is {is:?}, not {should:?}"))
}

/// Permissions and type of a path, links not followed.
pub fn mode(path: &str) -> Result<u32, String> {
    Ok(fs::symlink_metadata(path).map_err(|error| format!("{path}: {error}"))?.mode())
}

/// The content of a file.
pub fn content(path: impl AsRef<Path>) -> Result<String, String> {
    let path = path.as_ref();
    fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// Fails unless writing a new file in `dir` fails with `errno`.
pub fn refuses_writes(dir: &str, errno: i32) -> Outcome {
    match fs::write(format!("{dir}/rustbox-write-probe"), "x") {
        Ok(()) => Err(format!("{dir} is writable")),
        Err(error) => equal(&format!("the error of writing in {dir}"), error.raw_os_error(), Some(errno)),
    }
}

/// Runs `body` in a clone with a mount namespace of its own, none of whose mounts reaches the host.
pub fn in_private_namespace(body: impl FnOnce() -> Outcome) -> Outcome {
    let (reader, mut writer) = std::io::pipe().map_err(|error| error.to_string())?;
    let args = CloneArgs { namespaces: libc::CLONE_NEWNS as u64, ..CloneArgs::default() };
    // Kept here until the child has ended: with it go the bundles that it owns.
    let mut body = Some(body);
    let child = clone3(args, || {
        let private = shell("mount --make-rprivate /");
        match private.and_then(|()| body.take().map_or(Ok(()), |body| body())) {
            Ok(()) => 0,
            Err(why) => {
                let _ = writer.write_all(why.as_bytes());
                1
            }
        }
    })
    .map_err(|errno| format!("clone: {errno}"))?;
    drop(writer);
    outcome(reader, child.pidfd.as_fd())
}

/// Runs a shell command of the host.
pub fn shell(command: &str) -> Outcome {
    let output = std::process::Command::new("/bin/sh").arg("-ec").arg(command).output();
    let output = output.map_err(|error| format!("{command}: {error}"))?;
    ensure(output.status.success(), format!("{command}: {}", String::from_utf8_lossy(&output.stderr)))
}

/// How the child went: what it has written, where it ended with 1.
fn outcome(mut reader: impl Read, child: std::os::fd::BorrowedFd<'_>) -> Outcome {
    let mut why = String::new();
    reader.read_to_string(&mut why).map_err(|error| error.to_string())?;
    match pidfd::wait(child, true) {
        Ok(Some(Ended::Exited(0))) => Ok(()),
        Ok(Some(Ended::Exited(1))) => Err(why),
        ended => Err(format!("the child ended with {ended:?}")),
    }
}
