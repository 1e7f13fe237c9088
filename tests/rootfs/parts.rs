//! tmpcopyup, id mappings, devices, propagation of the root, cgroup mounts, and the ways in.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};

use rustbox::init::rootfs::{CgroupHierarchy, CgroupView};
use serde_json::json;

use super::Case;
use super::basic::default_sandbox;
use super::sandbox::*;

pub const CASES: &[Case] = &[
    ("tmpcopyup", tmpcopyup),
    ("tmpcopyup_is_for_tmpfs", tmpcopyup_elsewhere),
    ("user_namespace", user_namespace),
    ("user_namespace_shows_the_hosts_sysfs", userns_sysfs),
    ("user_namespace_below_a_closed_directory", userns_closed_parent),
    ("user_namespace_locks_flags_of_the_host", userns_locked),
    ("idmap_with_mappings", idmap),
    ("idmap_of_the_container", idmap_of_container),
    ("ridmap_reaches_below", ridmap),
    ("idmap_without_mappings_is_refused", idmap_without_mappings),
    ("devices_of_the_spec", devices),
    ("dev_that_is_a_bind_is_left_alone", bound_dev),
    ("console", console),
    ("rootfs_propagation", rootfs_propagation),
    ("unknown_propagation_is_refused", unknown_propagation),
    ("no_pivot", no_pivot),
    ("no_mount_namespace", no_mount_namespace),
    ("mounts_without_a_mount_namespace_are_refused", mounts_without_namespace),
    ("readonly_cgroup_v1_is_readonly_everywhere", cgroup_v1),
    ("cgroup_v2_is_bound", cgroup_v2),
    ("mask_covers_files_and_directories", masks),
    ("nothing_reaches_the_host", nothing_reaches_the_host),
];

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn tmpcopyup() -> Outcome {
    let sandbox = Sandbox::new();
    let at = |name: &str| sandbox.path(&format!("mnt/{name}"));
    fs::create_dir_all(at("dir/deeper")).map_err(text)?;
    fs::write(at("dir/deeper/file"), "content").map_err(text)?;
    fs::set_permissions(at("dir"), fs::Permissions::from_mode(0o1730)).map_err(text)?;
    fs::write(at("setuid"), "x").map_err(text)?;
    chown(at("setuid"), Some(12), Some(34)).map_err(text)?;
    fs::set_permissions(at("setuid"), fs::Permissions::from_mode(0o4751)).map_err(text)?;
    symlink("../nowhere", at("link")).map_err(text)?;
    shell(&format!(
        "mknod {0}/fifo p; mknod {0}/node c 1 3; touch -d @1000000000 {0}/setuid",
        sandbox.path("mnt").display()
    ))?;
    let attribute = std::process::Command::new("setfattr")
        .args(["-n", "trusted.rustbox", "-v", "kept"])
        .arg(at("dir/deeper/file"))
        .status()
        .is_ok_and(|status| status.success());
    fs::set_permissions(sandbox.path("mnt"), fs::Permissions::from_mode(0o750)).map_err(text)?;
    chown(sandbox.path("mnt"), Some(5), Some(6)).map_err(text)?;
    let image = sandbox.path("mnt/new");
    let sandbox =
        sandbox.mount("/proc", "proc", "proc", &[]).mount("/mnt", "tmpfs", "tmpfs", &["tmpcopyup", "ro", "size=1m"]);
    sandbox.enter(|| {
        let mnt = mounted("/mnt")?;
        equal("the type", mnt.fstype.clone(), "tmpfs".into())?;
        mnt.has("ro")?;
        let top = fs::metadata("/mnt").map_err(text)?;
        equal("mode and owner", (top.mode() & 0o7777, top.uid(), top.gid()), (0o750, 5, 6))?;
        equal("the content", content("/mnt/dir/deeper/file")?, "content".into())?;
        equal("the mode of dir", mode("/mnt/dir")? & 0o7777, 0o1730)?;
        let file = fs::metadata("/mnt/setuid").map_err(text)?;
        equal("setuid", (file.mode() & 0o7777, file.uid(), file.gid(), file.mtime()), (0o4751, 12, 34, 1_000_000_000))?;
        equal("the link", fs::read_link("/mnt/link").map_err(text)?.display().to_string(), "../nowhere".into())?;
        equal("the fifo", mode("/mnt/fifo")? & libc::S_IFMT, libc::S_IFIFO)?;
        equal("the node", fs::metadata("/mnt/node").map_err(text)?.rdev(), libc::makedev(1, 3))?;
        if attribute {
            let file = fs::File::open("/mnt/dir/deeper/file").map_err(text)?;
            let value = rustbox::sys::xattr::get(std::os::fd::AsFd::as_fd(&file), c"trusted.rustbox").map_err(text)?;
            equal("the attribute", value, b"kept".to_vec())?;
        }
        Ok(())
    })?;
    ensure(!fs::exists(image).unwrap_or(true), "the image was written")
}

fn tmpcopyup_elsewhere() -> Outcome {
    let why = Sandbox::new().mount("/mnt", "proc", "proc", &["tmpcopyup"]).refusal()?;
    ensure(why.starts_with("$.mounts[0].options: "), why)
}

fn mapped(sandbox: Sandbox) -> Sandbox {
    shell(&format!("chown -R 100000:100000 {}", sandbox.path("").display())).expect("give the root away");
    sandbox.with_user_namespace()
}

fn user_namespace() -> Outcome {
    let sandbox = mapped(default_sandbox());
    let volume = sandbox.bundle().join("volume");
    fs::create_dir(&volume).map_err(text)?;
    fs::set_permissions(&volume, fs::Permissions::from_mode(0o700)).map_err(text)?;
    fs::write(volume.join("file"), "here").map_err(text)?;
    // Only the creator can search the volume's directory.
    sandbox.mount("/etc/file", "", "volume/file", &["bind", "ro"]).enter(|| {
        equal("the content", content("/etc/file")?, "here".into())?;
        mounted("/etc/file")?.has("ro")
    })?;
    mapped(default_sandbox()).enter(|| {
        mounted("/")?.has("ro")?;
        equal("the mode of /dev/null", mode("/dev/null")?, libc::S_IFCHR | 0o666)?;
        fs::write("/dev/null", "x").map_err(text)?;
        mounted("/sys")?.has("ro nosuid nodev noexec")?;
        equal("the length of /proc/keys", content("/proc/keys")?.len(), 0)?;
        mounted("/proc/sys")?.has("ro")?;
        ensure(
            mounts()?.iter().all(|mount| mount.tags.iter().all(|tag| !tag.starts_with("shared"))),
            "something is shared",
        )
    })
}

fn userns_sysfs() -> Outcome {
    let mut sandbox = mapped(default_sandbox());
    sandbox.host_network = true;
    sandbox.enter(|| {
        equal("the type of /sys", mounted("/sys")?.fstype, "sysfs".into())?;
        mounted("/sys")?.has("ro nosuid nodev noexec")
    })
}

fn userns_closed_parent() -> Outcome {
    let sandbox = mapped(default_sandbox());
    fs::set_permissions(sandbox.bundle(), fs::Permissions::from_mode(0o700)).map_err(text)?;
    sandbox.enter(|| {
        mounted("/")?.has("ro")?;
        ensure(fs::exists("/bin/busybox").unwrap_or(false), "/bin is empty")?;
        ensure(!fs::exists("/usr").unwrap_or(true), "the host's root is in view")
    })
}

fn userns_locked() -> Outcome {
    let sandbox = Sandbox::new();
    let bundle = sandbox.bundle().display().to_string();
    in_private_namespace(|| {
        shell(&format!("mkdir {bundle}/volume && mount -t tmpfs -o nosuid,nodev,noexec,ro v {bundle}/volume"))?;
        mapped(sandbox.mount("/proc", "proc", "proc", &[]).mount("/mnt", "", "volume", &["bind", "nodiratime"]))
            .enter(|| mounted("/mnt")?.has("ro nosuid nodev noexec nodiratime"))
    })
}

fn volume_of(sandbox: &Sandbox, owner: u32) -> Outcome {
    let volume = sandbox.bundle().join("volume");
    fs::create_dir_all(volume.join("below")).map_err(text)?;
    fs::write(volume.join("file"), "x").map_err(text)?;
    chown(volume.join("file"), Some(owner), Some(owner + 1)).map_err(text)
}

fn owner_of(path: &str) -> Result<(u32, u32), String> {
    let meta = fs::metadata(path).map_err(text)?;
    Ok((meta.uid(), meta.gid()))
}

fn idmap() -> Outcome {
    let mut sandbox = Sandbox::new();
    volume_of(&sandbox, 3000)?;
    let mappings = json!([{"containerID": 3000, "hostID": 7000, "size": 10}]);
    for options in [json!(["bind", "idmap"]), json!(["bind"])] {
        sandbox.config["mounts"] = json!([{"destination": "/mnt", "source": "volume", "options": options,
            "uidMappings": mappings, "gidMappings": mappings}]);
        sandbox.enter(|| equal("the owner", owner_of("/mnt/file")?, (7000, 7001)))?;
    }
    Ok(())
}

fn idmap_of_container() -> Outcome {
    let sandbox = Sandbox::new();
    volume_of(&sandbox, 0)?;
    let mappings = json!([{"containerID": 0, "hostID": 100000, "size": 65536}]);
    mapped(sandbox)
        .set("/linux/uidMappings", mappings.clone())
        .set("/linux/gidMappings", mappings)
        .mount("/mnt", "", "volume", &["bind", "idmap"])
        .enter(|| equal("the owner", owner_of("/mnt/file")?, (0, 1)))
}

fn ridmap() -> Outcome {
    let sandbox = Sandbox::new();
    volume_of(&sandbox, 0)?;
    in_private_namespace(|| {
        let below = sandbox.bundle().join("volume/below").display().to_string();
        let other = sandbox.bundle().join("other").display().to_string();
        // Of the disk: a tmpfs maps no ids before Linux 6.3.
        shell(&format!(
            "mkdir {other} && mount --bind {other} {below} && touch {below}/file && chown 3:4 {below}/file"
        ))?;
        let mappings = json!([{"containerID": 0, "hostID": 500, "size": 10}]);
        for (option, owner) in [("ridmap", (503, 504)), ("idmap", (3, 4))] {
            let mut again = Sandbox::new();
            again.config["mounts"] = json!([{"destination": "/mnt", "source": sandbox.bundle().join("volume"),
                "options": ["rbind", option], "uidMappings": mappings, "gidMappings": mappings}]);
            again.enter(|| {
                equal("the owner", owner_of("/mnt/file")?, (500, 501))?;
                equal("the owner below", owner_of("/mnt/below/file")?, owner)
            })?;
        }
        Ok(())
    })
}

fn idmap_without_mappings() -> Outcome {
    let sandbox = Sandbox::new();
    volume_of(&sandbox, 0)?;
    let why = sandbox.mount("/mnt", "", "volume", &["bind", "idmap"]).refusal()?;
    ensure(why.starts_with("$.mounts[0].options: "), why)
}

fn devices() -> Outcome {
    let sandbox = default_sandbox().set(
        "/linux/devices",
        json!([
            {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o620, "uid": 7, "gid": 8},
            {"path": "/dev/disk/sda", "type": "b", "major": 8, "minor": 0, "fileMode": 0o660},
            {"path": "/dev/pipe", "type": "p", "fileMode": 0o644},
            {"path": "/dev/tty", "type": "u", "major": 5, "minor": 0, "fileMode": 0o600},
        ]),
    );
    sandbox.enter(|| {
        let fuse = fs::metadata("/dev/fuse").map_err(text)?;
        equal("fuse", (fuse.mode(), fuse.uid(), fuse.gid()), (libc::S_IFCHR | 0o620, 7, 8))?;
        equal("its number", fuse.rdev(), libc::makedev(10, 229))?;
        equal("sda", mode("/dev/disk/sda")?, libc::S_IFBLK | 0o660)?;
        equal("the pipe", mode("/dev/pipe")?, libc::S_IFIFO | 0o644)?;
        equal("tty, which replaces the default one", mode("/dev/tty")?, libc::S_IFCHR | 0o600)
    })
}

fn bound_dev() -> Outcome {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.bundle().join("devices")).map_err(text)?;
    let dir = sandbox.bundle().join("devices");
    let sandbox = sandbox.mount("/dev", "", "devices", &["bind"]);
    sandbox.enter(|| Ok(()))?;
    equal("files made in it", fs::read_dir(dir).map_err(text)?.count(), 0)
}

fn console() -> Outcome {
    let sandbox = default_sandbox();
    sandbox.run(|rootfs| {
        use std::os::fd::AsFd;
        rootfs.mount(None, &mut || Ok(())).map_err(text)?;
        rootfs.enter().map_err(text)?;
        let leader = nix::pty::posix_openpt(nix::fcntl::OFlag::O_RDWR).map_err(text)?;
        nix::pty::unlockpt(&leader).map_err(text)?;
        let follower = nix::pty::ptsname_r(&leader).map_err(text)?;
        ensure(follower.starts_with("/dev/pts/"), follower.clone())?;
        let follower = fs::File::open(&follower).map_err(text)?;
        rootfs.finish(Some(follower.as_fd())).map_err(text)?;
        let is = fs::metadata("/dev/console").map_err(text)?;
        equal("the number", is.rdev(), follower.metadata().map_err(text)?.rdev())?;
        equal("the type", mounted("/dev/console")?.fstype, "devpts".into())
    })
}

fn rootfs_propagation() -> Outcome {
    for (word, tag) in [
        ("shared", Some("shared:")),
        ("rshared", Some("shared:")),
        ("slave", None),
        ("rslave", None),
        ("private", None),
        ("rprivate", None),
        ("unbindable", Some("unbindable")),
        ("runbindable", Some("unbindable")),
    ] {
        let before = mounts()?.len();
        Sandbox::new()
            .mount("/proc", "proc", "proc", &[])
            .set("/linux/rootfsPropagation", json!(word))
            .enter(|| {
                let tags = mounted("/")?.tags;
                match tag {
                    Some(tag) => ensure(tags.iter().any(|is| is.starts_with(tag)), format!("{tags:?}")),
                    None => ensure(tags.is_empty(), format!("{tags:?}")),
                }
            })
            .map_err(|why| format!("{word}: {why}"))?;
        equal("the number of the host's mounts", mounts()?.len(), before)?;
    }
    // On a host whose root is shared, as systemd makes it.
    for (word, tag) in [("slave", "master:"), ("rslave", "master:"), ("rshared", "shared:"), ("", "master:")] {
        in_private_namespace(|| {
            shell("mount --make-rshared /")?;
            let before = mounts()?.len();
            let sandbox = Sandbox::new().mount("/proc", "proc", "proc", &[]);
            let sandbox = if word.is_empty() { sandbox } else { sandbox.set("/linux/rootfsPropagation", json!(word)) };
            sandbox.enter(|| {
                let tags = mounted("/")?.tags;
                ensure(tags.iter().any(|is| is.starts_with(tag)), format!("{tags:?}"))
            })?;
            equal("the number of the host's mounts", mounts()?.len(), before)
        })
        .map_err(|why| format!("{word} on a shared host: {why}"))?;
    }
    Ok(())
}

fn unknown_propagation() -> Outcome {
    let why = Sandbox::new().set("/linux/rootfsPropagation", json!("sideways")).refusal()?;
    equal("the message", why, "$.linux.rootfsPropagation: `sideways` is unknown".into())
}

fn no_pivot() -> Outcome {
    let mut sandbox = default_sandbox();
    sandbox.context.no_pivot = true;
    sandbox.enter(|| {
        ensure(fs::exists("/bin/busybox").unwrap_or(false), "/bin is empty")?;
        ensure(!fs::exists("/usr").unwrap_or(true), "the host's root is in view")?;
        equal(
            "procfs in view",
            mounts()?.iter().filter(|mount| mount.fstype == "proc" && mount.point == "/proc").count(),
            1,
        )?;
        mounted("/proc/sys")?.has("ro")
    })
}

fn no_mount_namespace() -> Outcome {
    let mut sandbox = Sandbox::new();
    sandbox.context.new_mount_ns = false;
    sandbox.enter(|| {
        ensure(fs::exists("/bin/busybox").unwrap_or(false), "/bin is empty")?;
        ensure(!fs::exists("/usr").unwrap_or(true), "the host's root is in view")?;
        equal("the mode of /dev/null", mode("/dev/null")?, libc::S_IFCHR | 0o666)
    })
}

fn mounts_without_namespace() -> Outcome {
    let mut sandbox = Sandbox::new().mount("/proc", "proc", "proc", &[]);
    sandbox.context.new_mount_ns = false;
    let why = sandbox.refusal()?;
    equal("the message", why, "$.mounts: needs a mount namespace of the container's own".into())
}

/// The v1 hierarchies of this host, each with a directory of the container's own; empty on a v2 host.
fn hierarchies(name: &str) -> Result<Vec<CgroupHierarchy>, String> {
    let mut all = Vec::new();
    for mount in mounts()? {
        let v2 = mount.fstype == "cgroup2";
        if mount.fstype != "cgroup" && !v2 || mount.options.iter().any(|option| option == "ro") {
            continue;
        }
        let directory = std::path::Path::new(&mount.point).join(name);
        fs::create_dir(&directory).map_err(text)?;
        let words: Vec<&str> = mount
            .super_options
            .iter()
            .map(String::as_str)
            .filter(|word| !["rw", "ro", "xattr"].contains(word))
            .collect();
        let controllers = if v2 { String::new() } else { words.join(",") };
        all.push(CgroupHierarchy { mountpoint: mount.point.into(), controllers, directory });
    }
    Ok(all)
}

fn cgroup_v1() -> Outcome {
    let name = format!("rustbox-rootfs-test-{}", std::process::id());
    let all = hierarchies(&name)?;
    let done = with_hierarchies(&all);
    for hierarchy in &all {
        fs::remove_dir(&hierarchy.directory).map_err(text)?;
    }
    done
}

fn with_hierarchies(all: &[CgroupHierarchy]) -> Outcome {
    if all.iter().all(|hierarchy| hierarchy.controllers.is_empty()) {
        return Ok(());
    }
    for namespaced in [false, true] {
        for readonly in [true, false] {
            let mut options = vec!["nosuid", "noexec", "nodev", "relatime"];
            options.extend(readonly.then_some("ro"));
            let mut sandbox = default_sandbox().mount("/sys/fs/cgroup", "cgroup", "cgroup", &options);
            sandbox.context.cgroup = CgroupView::V1 { hierarchies: all.to_vec() };
            sandbox.context.cgroup_ns = namespaced;
            sandbox
                .enter(|| {
                    for hierarchy in all {
                        let name = hierarchy.mountpoint.file_name().unwrap_or_default().to_string_lossy();
                        let point = format!("/sys/fs/cgroup/{name}");
                        mounted(&point)?.has(if readonly {
                            "ro nosuid noexec nodev"
                        } else {
                            "rw nosuid noexec nodev"
                        })?;
                        ensure(
                            fs::exists(format!("{point}/cgroup.procs")).unwrap_or(false),
                            format!("{point} is empty"),
                        )?;
                    }
                    mounted("/sys/fs/cgroup")?.has(if readonly { "ro" } else { "rw" })?;
                    if readonly && fs::exists("/sys/fs/cgroup/memory").unwrap_or(false) {
                        let error = fs::write("/sys/fs/cgroup/memory/memory.limit_in_bytes", "-1").err();
                        equal("raising the limit", error.and_then(|error| error.raw_os_error()), Some(libc::EROFS))?;
                    }
                    Ok(())
                })
                .map_err(|why| format!("namespaced {namespaced}, read-only {readonly}: {why}"))?;
        }
    }
    Ok(())
}

fn cgroup_v2() -> Outcome {
    let Some(point) = mounts()?.into_iter().find(|mount| mount.fstype == "cgroup2").map(|mount| mount.point) else {
        return Ok(());
    };
    for namespaced in [false, true] {
        let mut sandbox = default_sandbox().mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "ro"]);
        sandbox.context.cgroup = CgroupView::V2 { directory: point.clone().into() };
        sandbox.context.cgroup_ns = namespaced;
        sandbox.enter(|| {
            let mount = mounted("/sys/fs/cgroup")?;
            equal("the type", mount.fstype.clone(), "cgroup2".into())?;
            mount.has("ro nosuid")
        })?;
    }
    Ok(())
}

fn masks() -> Outcome {
    let sandbox = Sandbox::new();
    for name in ["one", "two"] {
        fs::create_dir(sandbox.path(name)).map_err(text)?;
        fs::write(sandbox.path(name).join("secret"), "secret").map_err(text)?;
        fs::write(sandbox.path(&format!("etc/{name}")), "secret").map_err(text)?;
    }
    sandbox
        .mount("/proc", "proc", "proc", &[])
        .set(
            "/linux/maskedPaths",
            json!(["/one", "/etc/one", "/two", "/etc/two", "/none", "/proc/self/fd", "/proc/version"]),
        )
        .set("/linux/readonlyPaths", json!(["/mnt", "/etc/group", "/none"]))
        .enter(|| {
            for name in ["one", "two"] {
                equal(name, fs::read_dir(format!("/{name}")).map_err(text)?.count(), 0)?;
                mounted(&format!("/{name}"))?.has("ro nosuid nodev noexec")?;
                equal(name, content(format!("/etc/{name}"))?, String::new())?;
            }
            equal("version", content("/proc/version")?, String::new())?;
            refuses_writes("/mnt", libc::EROFS)
        })
}

fn nothing_reaches_the_host() -> Outcome {
    in_private_namespace(|| {
        shell("mount --make-rshared /")?;
        let before = fs::read_to_string("/proc/self/mountinfo").map_err(text)?;
        let sandbox = default_sandbox();
        sandbox.enter(|| Ok(()))?;
        mapped(default_sandbox()).enter(|| Ok(()))?;
        equal("the host's mounts", fs::read_to_string("/proc/self/mountinfo").map_err(text)?, before)
    })
}
