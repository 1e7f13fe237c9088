//! The default bundle, and each option by itself.

use std::fs;
use std::os::unix::fs::MetadataExt;

use serde_json::json;

use super::Case;
use super::sandbox::*;

pub const CASES: &[Case] = &[("default_bundle", default_bundle), ("mount_at_the_root_becomes_the_root", mount_at_root)];

/// The mounts, masks and read-only paths that `runc spec` writes, without the cgroup mount.
pub fn default_sandbox() -> Sandbox {
    Sandbox::new()
        .mount("/proc", "proc", "proc", &[])
        .mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"])
        .mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        )
        .mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"])
        .mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"])
        .mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"])
        .set(
            "/linux/maskedPaths",
            json!([
                "/proc/acpi",
                "/proc/asound",
                "/proc/kcore",
                "/proc/keys",
                "/proc/latency_stats",
                "/proc/timer_list",
                "/proc/timer_stats",
                "/proc/sched_debug",
                "/sys/firmware",
                "/proc/scsi"
            ]),
        )
        .set("/linux/readonlyPaths", json!(["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]))
        .set("/root/readonly", json!(true))
}

fn default_bundle() -> Outcome {
    default_sandbox().enter(|| {
        mounted("/")?.has("ro")?;
        equal("the type of /proc", mounted("/proc")?.fstype, "proc".into())?;
        mounted("/dev")?.has("rw nosuid")?;
        mounted("/dev/pts")?.has("rw nosuid noexec")?;
        mounted("/dev/shm")?.has("rw nosuid noexec nodev")?;
        mounted("/dev/mqueue")?.has("rw nosuid noexec nodev")?;
        mounted("/sys")?.has("ro nosuid noexec nodev")?;
        equal("the mode of /dev", mode("/dev")? & 0o7777, 0o755)?;
        equal("the mode of /dev/shm", mode("/dev/shm")? & 0o7777, 0o1777)?;
        for (path, minor) in [("null", 3), ("zero", 5), ("full", 7), ("random", 8), ("urandom", 9)] {
            let path = format!("/dev/{path}");
            equal(&format!("the mode of {path}"), mode(&path)?, libc::S_IFCHR | 0o666)?;
            let number = fs::metadata(&path).map_err(|error| error.to_string())?.rdev();
            equal(&format!("the number of {path}"), number, libc::makedev(1, minor))?;
        }
        for (link, target) in [("fd", "/proc/self/fd"), ("stdin", "/proc/self/fd/0"), ("ptmx", "pts/ptmx")] {
            let read = fs::read_link(format!("/dev/{link}")).map_err(|error| error.to_string())?;
            equal(link, read.to_string_lossy().into_owned(), target.into())?;
        }
        refuses_writes("/", libc::EROFS)?;
        refuses_writes("/sys/firmware", libc::EROFS)?;
        equal("the length of /proc/keys", content("/proc/keys")?.len(), 0)?;
        mounted("/proc/sys")?.has("ro")?;
        ensure(fs::write("/proc/sys/kernel/hostname", "x").is_err(), "/proc/sys is writable")?;
        ensure(mounts()?.iter().all(|mount| mount.tags.is_empty()), "a mount has a propagation tag")?;
        ensure(!fs::exists("/proc/self/root/bin/bash").unwrap_or(true), "the host's root is in view")
    })
}

fn mount_at_root() -> Outcome {
    Sandbox::new()
        .mount("/", "tmpfs", "tmpfs", &["mode=755", "size=1m"])
        .mount("/proc", "proc", "proc", &[])
        .mount("/bin", "bind", "/bin", &["rbind", "ro"])
        .set("/root/readonly", json!(true))
        .enter(|| {
            equal("the type of /", mounted("/")?.fstype, "tmpfs".into())?;
            ensure(fs::exists("/bin/busybox").unwrap_or(false), "/bin is empty")?;
            refuses_writes("/", libc::EROFS)?;
            refuses_writes("/bin", libc::EROFS)?;
            ensure(!fs::exists("/etc").unwrap_or(true), "the image's root is in view")
        })
}
