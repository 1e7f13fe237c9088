//! Images and volumes that want out: each case is named after what it stops.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::json;

use super::Case;
use super::basic::default_sandbox;
use super::sandbox::*;

pub const CASES: &[Case] = &[
    ("symlinked_proc_destination_is_refused", symlinked_proc),
    ("symlinked_sys_destination_is_refused", symlinked_sys),
    ("symlinked_parent_of_proc_is_refused", symlinked_parent_of_proc),
    ("absolute_symlink_destination_stays_inside", absolute_link),
    ("relative_symlink_destination_stays_inside", relative_link),
    ("dangling_symlink_destination_is_created_inside", dangling_link),
    ("dangling_symlink_to_a_file_is_created_inside", dangling_link_to_file),
    ("symlink_loop_is_refused", link_loop),
    ("dot_dot_destination_stays_inside", dot_dot),
    ("symlinked_dev_directory_stays_inside", symlinked_dev),
    ("symlinked_console_is_refused", symlinked_console),
    ("symlinked_masked_path_masks_inside", symlinked_mask),
    ("device_of_another_number_is_refused", other_device),
    ("device_path_of_a_symlink_is_refused", linked_device),
    ("symlinked_root_is_refused", symlinked_root),
    ("root_through_a_symlink_is_refused", root_through_link),
    ("missing_root_is_refused", missing_root),
    ("root_that_is_a_file_is_refused", file_root),
    ("no_handle_of_the_host_stays_open", no_handle_left),
];

fn link(sandbox: &Sandbox, target: &str, name: &str) -> Outcome {
    let path = sandbox.path(name);
    if fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_dir()) {
        fs::remove_dir(&path).map_err(|error| error.to_string())?;
    }
    symlink(target, path).map_err(|error| error.to_string())
}

fn symlinked_proc() -> Outcome {
    let sandbox = Sandbox::new();
    link(&sandbox, "/tmp", "proc")?;
    let why = sandbox.mount("/proc", "proc", "proc", &[]).refusal()?;
    let words = "$.mounts[0]: refused: `proc` must be mounted on ordinary directory: `/proc` is a link, or behind one";
    equal("the message", why, words.into())
}

fn symlinked_sys() -> Outcome {
    let sandbox = Sandbox::new();
    link(&sandbox, "tmp", "sys")?;
    let why = sandbox.mount("/sys", "sysfs", "sysfs", &["ro"]).refusal()?;
    ensure(why.contains("ordinary directory: `/sys` is a link"), why)
}

fn symlinked_parent_of_proc() -> Outcome {
    let sandbox = Sandbox::new();
    link(&sandbox, "tmp", "outer")?;
    let why = sandbox.mount("/outer/proc", "proc", "proc", &[]).refusal()?;
    ensure(why.contains("must be mounted on ordinary directory"), why)
}

fn absolute_link() -> Outcome {
    let sandbox = Sandbox::new();
    link(&sandbox, "/etc", "mnt")?;
    sandbox.mount("/proc", "proc", "proc", &[]).mount("/mnt", "tmpfs", "tmpfs", &[]).enter(|| {
        equal("the type of /etc", mounted("/etc")?.fstype, "tmpfs".into())?;
        equal("mounts on /mnt", mounts()?.iter().filter(|mount| mount.point == "/mnt").count(), 0)
    })
}

fn relative_link() -> Outcome {
    let sandbox = Sandbox::new();
    link(&sandbox, "../../../../../../etc", "mnt")?;
    sandbox
        .mount("/proc", "proc", "proc", &[])
        .mount("/mnt/deep/er", "tmpfs", "tmpfs", &[])
        .enter(|| equal("the type", mounted("/etc/deep/er")?.fstype, "tmpfs".into()))
}

fn dangling_link() -> Outcome {
    let sandbox = Sandbox::new();
    link(&sandbox, "/run/lock/x", "mnt")?;
    sandbox
        .mount("/proc", "proc", "proc", &[])
        .mount("/mnt", "tmpfs", "tmpfs", &[])
        .enter(|| equal("the type", mounted("/run/lock/x")?.fstype, "tmpfs".into()))
}

fn dangling_link_to_file() -> Outcome {
    let sandbox = Sandbox::new();
    fs::write(sandbox.bundle().join("resolv.conf"), "nameserver ::1\n").map_err(|error| error.to_string())?;
    link(&sandbox, "../run/resolv.conf", "etc/resolv.conf")?;
    sandbox
        .mount("/etc/resolv.conf", "", "resolv.conf", &["bind"])
        .enter(|| equal("the content", content("/run/resolv.conf")?, "nameserver ::1\n".into()))
}

fn link_loop() -> Outcome {
    let sandbox = Sandbox::new();
    link(&sandbox, "mnt", "mnt")?;
    let why = sandbox.mount("/mnt", "tmpfs", "tmpfs", &[]).refusal()?;
    ensure(why.contains("Too many symbolic links"), why)
}

fn dot_dot() -> Outcome {
    Sandbox::new()
        .mount("/proc", "proc", "proc", &[])
        .mount("/../../mnt/../tmp/./x", "tmpfs", "tmpfs", &[])
        .enter(|| equal("the type", mounted("/tmp/x")?.fstype, "tmpfs".into()))
}

fn symlinked_dev() -> Outcome {
    let sandbox = Sandbox::new();
    link(&sandbox, "/tmp", "dev")?;
    let before = fs::read_dir("/tmp").map_err(|error| error.to_string())?.count();
    sandbox.enter(|| equal("the mode", mode("/tmp/null")?, libc::S_IFCHR | 0o666))?;
    ensure(!fs::exists("/tmp/null").unwrap_or(true), "a node was made on the host")?;
    ensure(fs::read_dir("/tmp").map_err(|error| error.to_string())?.count() <= before, "something was made on the host")
}

fn symlinked_console() -> Outcome {
    let sandbox = Sandbox::new();
    fs::write(sandbox.path("etc/target"), "untouched").map_err(|error| error.to_string())?;
    symlink("/etc/target", sandbox.path("dev/console")).map_err(|error| error.to_string())?;
    sandbox.run(|rootfs| {
        use std::os::fd::AsFd;
        let words = |error: rustbox::Error| error.to_string();
        let terminal = fs::File::open("/dev/zero").map_err(|error| error.to_string())?;
        rootfs.mount(None, &mut || Ok(())).map_err(words)?;
        rootfs.enter().map_err(words)?;
        match rootfs.finish(Some(terminal.as_fd())) {
            Ok(()) => Err("nothing was refused".into()),
            Err(error) => equal("the message", error.to_string(), "refused: `/dev/console` is a symbolic link".into()),
        }
    })
}

fn symlinked_mask() -> Outcome {
    let sandbox = Sandbox::new();
    fs::write(sandbox.path("etc/secret"), "secret").map_err(|error| error.to_string())?;
    symlink("/etc/secret", sandbox.path("tmp/alias")).map_err(|error| error.to_string())?;
    sandbox
        .mount("/proc", "proc", "proc", &[])
        .set("/linux/maskedPaths", json!(["/tmp/alias", "/tmp/missing", "/etc/secret/below"]))
        .enter(|| equal("what is left", content("/etc/secret")?, String::new()))
}

fn other_device() -> Outcome {
    let sandbox = Sandbox::new();
    shell(&format!("mknod {} c 1 5", sandbox.path("dev/null").display()))?;
    let why = sandbox.refusal()?;
    equal("the message", why, "device `/dev/null`: what is there is not the device asked for".into())
}

fn linked_device() -> Outcome {
    let sandbox = Sandbox::new();
    symlink("/etc/target", sandbox.path("dev/null")).map_err(|error| error.to_string())?;
    let why = sandbox.refusal()?;
    equal("the message", why, "device `/dev/null`: what is there is not the device asked for".into())
}

fn symlinked_root() -> Outcome {
    let sandbox = Sandbox::new();
    symlink("rootfs", sandbox.bundle().join("link")).map_err(|error| error.to_string())?;
    let why = sandbox.set("/root/path", json!("link")).refusal()?;
    ensure(why.starts_with("$.root.path: ") && why.ends_with("is a symbolic link, or reached through one"), why)
}

fn root_through_link() -> Outcome {
    let sandbox = Sandbox::new();
    symlink("/", sandbox.bundle().join("link")).map_err(|error| error.to_string())?;
    let why = sandbox.set("/root/path", json!("link/etc")).refusal()?;
    ensure(why.starts_with("$.root.path: ") && why.ends_with("is a symbolic link, or reached through one"), why)
}

fn missing_root() -> Outcome {
    let why = Sandbox::new().set("/root/path", json!("nowhere")).refusal()?;
    ensure(why.starts_with("$.root.path: ") && why.ends_with("No such file or directory"), why)
}

fn file_root() -> Outcome {
    let why = Sandbox::new().set("/root/path", json!("rootfs/bin/busybox")).refusal()?;
    ensure(why.starts_with("$.root.path: ") && why.ends_with("is not a directory"), why)
}

/// CVE-2024-21626: a descriptor of the host's tree that outlives the set-up is a way out.
fn no_handle_left() -> Outcome {
    let before = fs::read_dir("/proc/self/fd").map_err(|error| error.to_string())?.count();
    default_sandbox().enter(|| {
        let now = fs::read_dir("/proc/self/fd").map_err(|error| error.to_string())?;
        let targets: Vec<String> = now
            .filter_map(Result::ok)
            // The test's own streams may well be files.
            .filter(|entry| !["0", "1", "2"].iter().any(|stream| entry.file_name() == *stream))
            .filter_map(|entry| fs::read_link(entry.path()).ok())
            .map(|target| target.display().to_string())
            .filter(|target| target.starts_with('/') && !target.starts_with("/dev/") && !target.starts_with("/proc/"))
            .collect();
        ensure(targets.is_empty(), format!("{targets:?}, of {before} before"))
    })
}
