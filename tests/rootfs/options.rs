//! Every option of the mount table, on a tmpfs and on a bind mount.

use std::fs;

use serde_json::json;

use super::Case;
use super::sandbox::*;

pub const CASES: &[Case] = &[
    ("flags_of_a_filesystem", flags_of_a_filesystem),
    ("flags_of_a_bind", flags_of_a_bind),
    ("bind_keeps_what_is_not_named", bind_keeps_what_is_not_named),
    ("recursive_attributes", recursive_attributes),
    ("plain_bind_is_not_recursive", plain_bind_is_not_recursive),
    ("bind_of_a_file_makes_a_file", bind_of_a_file),
    ("type_bind_needs_no_option", type_bind),
    ("bind_source_is_relative_to_the_bundle", relative_source),
    ("remount", remount),
    ("propagation_of_a_mount", propagation),
    ("tmpfs_takes_the_mode_of_the_directory", tmpfs_mode),
    ("readonly_tmpfs_takes_mount_points", readonly_tmpfs),
    ("data_reaches_the_filesystem", data),
    ("unknown_data_is_refused_with_the_mount", unknown_data),
    ("missing_type_is_refused", missing_type),
    ("missing_bind_source_is_refused", missing_source),
    ("nosymfollow", nosymfollow),
    ("overlay", overlay),
];

fn flags_of_a_filesystem() -> Outcome {
    for (options, has) in [
        (&["ro"][..], "ro"),
        (&["ro", "rw"], "rw"),
        (&["nosuid"], "nosuid"),
        (&["nosuid", "suid"], "!nosuid"),
        (&["nodev"], "nodev"),
        (&["nodev", "dev"], "!nodev"),
        (&["noexec"], "noexec"),
        (&["noexec", "exec"], "!noexec"),
        (&["noatime"], "noatime"),
        (&["noatime", "atime"], "!noatime relatime"),
        (&["nodiratime"], "nodiratime"),
        (&["nodiratime", "diratime"], "!nodiratime"),
        (&["strictatime"], "!noatime !relatime"),
        (&["relatime"], "relatime"),
        (&["nosymfollow"], "nosymfollow"),
        (&["nosymfollow", "symfollow"], "!nosymfollow"),
        (&["defaults"], "rw relatime"),
    ] {
        Sandbox::new()
            .mount("/proc", "proc", "proc", &[])
            .mount("/mnt", "tmpfs", "tmpfs", options)
            .enter(|| mounted("/mnt")?.has(has))
            .map_err(|why| format!("{options:?}: {why}"))?;
    }
    for (options, wanted) in [(&["sync"][..], "sync"), (&["dirsync"], "dirsync"), (&["lazytime"], "lazytime")] {
        Sandbox::new()
            .mount("/proc", "proc", "proc", &[])
            .mount("/mnt", "tmpfs", "tmpfs", options)
            .enter(|| {
                let options = mounted("/mnt")?.super_options;
                ensure(options.iter().any(|option| option == wanted), format!("{wanted} is not in {options:?}"))
            })
            .map_err(|why| format!("{options:?}: {why}"))?;
    }
    for options in
        [&["sync", "async"][..], &["mand", "nomand"], &["iversion", "noiversion"], &["lazytime", "nolazytime"]]
    {
        Sandbox::new()
            .mount("/proc", "proc", "proc", &[])
            .mount("/mnt", "tmpfs", "tmpfs", options)
            .enter(|| mounted("/mnt")?.has("rw"))
            .map_err(|why| format!("{options:?}: {why}"))?;
    }
    Ok(())
}

fn flags_of_a_bind() -> Outcome {
    for (options, has) in [
        (&["bind", "ro"][..], "ro"),
        (&["bind", "rw"], "rw"),
        (&["bind", "nosuid", "nodev", "noexec"], "nosuid nodev noexec rw"),
        (&["rbind", "ro", "nosuid"], "ro nosuid"),
        (&["bind", "noatime"], "noatime"),
        (&["bind", "strictatime"], "!noatime !relatime"),
        (&["bind", "nodiratime"], "nodiratime"),
        (&["bind", "nosymfollow"], "nosymfollow"),
    ] {
        let sandbox = Sandbox::new();
        fs::create_dir(sandbox.bundle().join("volume")).map_err(|error| error.to_string())?;
        sandbox
            .mount("/proc", "proc", "proc", &[])
            .mount("/mnt", "", "volume", options)
            .enter(|| {
                mounted("/mnt")?.has(has)?;
                if has.contains("ro ") || has == "ro" { refuses_writes("/mnt", libc::EROFS) } else { Ok(()) }
            })
            .map_err(|why| format!("{options:?}: {why}"))?;
    }
    Ok(())
}

/// A directory with a tmpfs on it and one below that, made for one case in a namespace of its own.
fn with_volume(
    sandbox: Sandbox,
    flags: &str,
    look: impl FnOnce() -> Outcome,
    after: impl FnOnce(Sandbox) -> Sandbox,
) -> Outcome {
    let volume = sandbox.bundle().join("volume");
    fs::create_dir(&volume).map_err(|error| error.to_string())?;
    let volume = volume.display().to_string();
    // The mounts are part of the case: a first root of the bundle's own list, seen by the second.
    let sandbox = after(sandbox);
    in_private_namespace(|| {
        shell(&format!(
            "mount -t tmpfs -o {flags} outer {volume} && mkdir {volume}/below && mount -t tmpfs inner {volume}/below"
        ))?;
        sandbox.enter(look)
    })
}

fn bind_keeps_what_is_not_named() -> Outcome {
    let volume = |options: &'static [&'static str], has: &'static str| {
        with_volume(
            Sandbox::new().mount("/proc", "proc", "proc", &[]),
            "nosuid,nodev,noatime",
            move || mounted("/mnt")?.has(has),
            |sandbox| sandbox.mount("/mnt", "", "volume", options),
        )
    };
    volume(&["bind", "ro"], "ro nosuid nodev noatime")?;
    volume(&["bind", "suid"], "rw !nosuid nodev")
}

fn recursive_attributes() -> Outcome {
    for (options, has, below) in [
        (&["rbind", "rro"][..], "ro", "ro"),
        (&["rbind", "ro"], "ro", "rw"),
        (&["rbind", "rro", "rrw"], "rw", "rw"),
        (&["rbind", "rnosuid", "rnodev", "rnoexec"], "nosuid nodev noexec", "nosuid nodev noexec"),
        (&["rbind", "rnoatime"], "noatime", "noatime"),
        (&["rbind", "rstrictatime"], "!relatime !noatime", "!relatime !noatime"),
        (&["rbind", "rnoatime", "rrelatime"], "relatime", "relatime"),
        (&["rbind", "rnodiratime"], "nodiratime", "nodiratime"),
        (&["rbind", "rnosymfollow"], "nosymfollow", "nosymfollow"),
        (&["rbind", "rsuid", "rdev", "rexec", "ratime", "rdiratime", "rsymfollow"], "!nosuid !nodev", "!nosuid"),
    ] {
        with_volume(
            Sandbox::new().mount("/proc", "proc", "proc", &[]),
            "nosuid",
            || {
                mounted("/mnt")?.has(has)?;
                mounted("/mnt/below")?.has(below)
            },
            |sandbox| sandbox.mount("/mnt", "", "volume", options),
        )
        .map_err(|why| format!("{options:?}: {why}"))?;
    }
    Ok(())
}

fn plain_bind_is_not_recursive() -> Outcome {
    with_volume(
        Sandbox::new().mount("/proc", "proc", "proc", &[]),
        "rw",
        || ensure(mounted("/mnt/below").is_err(), "the mount below came along"),
        |sandbox| sandbox.mount("/mnt", "", "volume", &["bind"]),
    )
}

fn bind_of_a_file() -> Outcome {
    let sandbox = Sandbox::new();
    fs::write(sandbox.bundle().join("hosts"), "127.0.0.1 localhost\n").map_err(|error| error.to_string())?;
    sandbox.mount("/etc/new/hosts", "", "hosts", &["bind", "ro"]).enter(|| {
        equal("the content", content("/etc/new/hosts")?, "127.0.0.1 localhost\n".into())?;
        let error = fs::write("/etc/new/hosts", "x").err().and_then(|error| error.raw_os_error());
        equal("the error of writing it", error, Some(libc::EROFS))
    })
}

fn type_bind() -> Outcome {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.bundle().join("volume")).map_err(|error| error.to_string())?;
    fs::write(sandbox.bundle().join("volume/file"), "here").map_err(|error| error.to_string())?;
    sandbox.mount("/mnt", "bind", "volume", &[]).enter(|| equal("the content", content("/mnt/file")?, "here".into()))
}

fn relative_source() -> Outcome {
    let sandbox = Sandbox::new();
    fs::write(sandbox.bundle().join("file"), "here").map_err(|error| error.to_string())?;
    sandbox
        .mount("/mnt/file", "none", "./file", &["rbind"])
        .enter(|| equal("the content", content("/mnt/file")?, "here".into()))
}

fn remount() -> Outcome {
    Sandbox::new()
        .mount("/proc", "proc", "proc", &[])
        .mount("/mnt", "tmpfs", "tmpfs", &["nosuid"])
        .mount("/mnt", "", "", &["remount", "bind", "ro"])
        .mount("/tmp", "tmpfs", "tmpfs", &["size=1m"])
        .mount("/tmp", "tmpfs", "tmpfs", &["remount", "size=2m", "noexec"])
        .enter(|| {
            mounted("/mnt")?.has("ro nosuid")?;
            let tmp = mounted("/tmp")?;
            tmp.has("noexec")?;
            ensure(tmp.super_options.iter().any(|option| option == "size=2048k"), format!("{:?}", tmp.super_options))
        })
}

fn propagation() -> Outcome {
    for (option, shared, unbindable) in [
        ("shared", true, false),
        ("rshared", true, false),
        ("private", false, false),
        ("rprivate", false, false),
        ("slave", false, false),
        ("rslave", false, false),
        ("unbindable", false, true),
        ("runbindable", false, true),
    ] {
        for (kind, source, bind) in [("tmpfs", "tmpfs", None), ("", "volume", Some("rbind"))] {
            let sandbox = Sandbox::new();
            fs::create_dir(sandbox.bundle().join("volume")).map_err(|error| error.to_string())?;
            let options: Vec<&str> = bind.into_iter().chain([option]).collect();
            sandbox
                .mount("/proc", "proc", "proc", &[])
                .mount("/mnt", kind, source, &options)
                .enter(|| {
                    let tags = mounted("/mnt")?.tags;
                    let tagged = |word: &str| tags.iter().any(|tag| tag.starts_with(word));
                    equal("shared", tagged("shared:"), shared)?;
                    equal("unbindable", tagged("unbindable"), unbindable)
                })
                .map_err(|why| format!("{options:?}: {why}"))?;
        }
    }
    Ok(())
}

fn tmpfs_mode() -> Outcome {
    use std::os::unix::fs::PermissionsExt;
    let sandbox = Sandbox::new();
    fs::set_permissions(sandbox.path("mnt"), fs::Permissions::from_mode(0o2750)).map_err(|error| error.to_string())?;
    sandbox
        .mount("/mnt", "tmpfs", "tmpfs", &["size=1m"])
        .mount("/tmp", "tmpfs", "tmpfs", &["mode=700"])
        .mount("/fresh", "tmpfs", "tmpfs", &[])
        .enter(|| {
            equal("the mode of /mnt", mode("/mnt")? & 0o7777, 0o2750)?;
            equal("the mode of /tmp", mode("/tmp")? & 0o7777, 0o700)?;
            equal("the mode of /fresh", mode("/fresh")? & 0o7777, 0o1777)
        })
}

fn readonly_tmpfs() -> Outcome {
    Sandbox::new()
        .mount("/proc", "proc", "proc", &[])
        .mount("/mnt", "tmpfs", "tmpfs", &["ro"])
        .mount("/mnt/a/b", "tmpfs", "tmpfs", &[])
        .mount("/mnt/c", "bind", "/bin", &["bind"])
        .enter(|| {
            mounted("/mnt")?.has("ro")?;
            mounted("/mnt/a/b")?.has("rw")?;
            refuses_writes("/mnt", libc::EROFS)?;
            fs::write("/mnt/a/b/file", "x").map_err(|error| error.to_string())
        })
}

fn data() -> Outcome {
    Sandbox::new()
        .mount("/proc", "proc", "proc", &["hidepid=2"])
        .mount("/mnt", "tmpfs", "tmpfs", &["size=64k", "nr_inodes=10", "mode=711", "uid=7", "gid=8"])
        .enter(|| {
            let options = mounted("/mnt")?.super_options;
            for wanted in ["size=64k", "nr_inodes=10", "mode=711", "uid=7", "gid=8"] {
                ensure(options.iter().any(|option| option == wanted), format!("{wanted} is not in {options:?}"))?;
            }
            let options = mounted("/proc")?.super_options;
            ensure(
                options.iter().any(|option| option.starts_with("hidepid=")),
                format!("hidepid is not in {options:?}"),
            )
        })
}

fn unknown_data() -> Outcome {
    let why = Sandbox::new()
        .mount("/proc", "proc", "proc", &[])
        .mount("/mnt", "tmpfs", "tmpfs", &["no-such-option"])
        .refusal()?;
    equal("the message", why, "$.mounts[1]: mount `tmpfs` on `/mnt`: Invalid argument".into())
}

fn missing_type() -> Outcome {
    let why = Sandbox::new().mount("/mnt", "", "tmpfs", &[]).refusal()?;
    ensure(why.starts_with("$.mounts[0].type: "), why)
}

fn missing_source() -> Outcome {
    let why = Sandbox::new().mount("/mnt", "", "no-such-volume", &["bind"]).refusal()?;
    ensure(why.starts_with("$.mounts[0]: open bind source `") && why.ends_with("No such file or directory"), why)
}

fn nosymfollow() -> Outcome {
    let sandbox = Sandbox::new();
    let volume = sandbox.bundle().join("volume");
    fs::create_dir(&volume).map_err(|error| error.to_string())?;
    std::os::unix::fs::symlink("/bin/busybox", volume.join("link")).map_err(|error| error.to_string())?;
    sandbox.mount("/mnt", "", "volume", &["bind", "nosymfollow"]).enter(|| {
        let error = fs::read("/mnt/link").err().and_then(|error| error.raw_os_error());
        equal("the error of following a link", error, Some(libc::ELOOP))
    })
}

fn overlay() -> Outcome {
    let sandbox = Sandbox::new();
    in_private_namespace(|| {
        let bundle = sandbox.bundle().display().to_string();
        shell(&format!(
            "mkdir {bundle}/o && mount -t tmpfs o {bundle}/o && cd {bundle}/o && mkdir low up work && echo low >low/file"
        ))?;
        let options = format!("lowerdir={bundle}/o/low,upperdir={bundle}/o/up,workdir={bundle}/o/work");
        let mut sandbox = Sandbox::new().mount("/proc", "proc", "proc", &[]);
        sandbox.config["mounts"].as_array_mut().expect("mounts").push(
            json!({"destination": "/mnt", "type": "overlay", "source": "overlay", "options": options.split(',').collect::<Vec<_>>()}),
        );
        sandbox.enter(|| {
            equal("the content", content("/mnt/file")?, "low\n".into())?;
            equal("the type", mounted("/mnt")?.fstype, "overlay".into())
        })
    })
}
