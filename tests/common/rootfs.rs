//! A root filesystem of one static busybox and its applets.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The applets that tests may call.
const APPLETS: &[&str] = &[
    "[", "awk", "basename", "cat", "chgrp", "chmod", "chown", "chroot", "chrt", "cp", "cut", "date", "dd", "df",
    "dirname", "echo", "env", "expr", "false", "find", "grep", "head", "hostname", "id", "ifconfig", "ionice", "ip",
    "kill", "ln", "ls", "md5sum", "mkdir", "mkfifo", "mknod", "mount", "mv", "nc", "nice", "nproc", "od", "pidof",
    "printf", "ps", "pwd", "readlink", "realpath", "rm", "rmdir", "sed", "seq", "setsid", "sh", "sleep", "sort",
    "stat", "stty", "sync", "sysctl", "tail", "tee", "test", "touch", "tr", "true", "tty", "umount", "uname",
    "unshare", "wc", "which", "xargs", "yes",
];

/// The host's busybox, copied once per build directory: containers get hard links of the copy, never of the host's file.
fn busybox() -> &'static Path {
    static COPY: OnceLock<PathBuf> = OnceLock::new();
    COPY.get_or_init(|| {
        let source = ["/bin/busybox", "/usr/bin/busybox"]
            .into_iter()
            .find(|path| Path::new(path).exists())
            .expect("a static busybox (package busybox-static)");
        let copy = Path::new(env!("CARGO_TARGET_TMPDIR")).join("busybox");
        let size = |path: &Path| fs::metadata(path).ok().map(|data| data.len());
        if size(Path::new(source)) != size(&copy) {
            let partial = copy.with_extension(std::process::id().to_string());
            fs::copy(source, &partial).unwrap();
            fs::set_permissions(&partial, fs::Permissions::from_mode(0o755)).unwrap();
            fs::rename(&partial, &copy).unwrap();
        }
        copy
    })
}

/// Makes a root filesystem at `path`.
pub fn make(path: &Path) {
    for dir in ["", "bin", "dev", "etc", "proc", "sys", "tmp"] {
        fs::create_dir(path.join(dir)).unwrap();
    }
    fs::set_permissions(path.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    let target = path.join("bin/busybox");
    if fs::hard_link(busybox(), &target).is_err() {
        fs::copy(busybox(), &target).unwrap();
    }
    for applet in APPLETS {
        symlink("busybox", path.join("bin").join(applet)).unwrap();
    }
    fs::write(path.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nworker:x:1000:1000:worker:/tmp:/bin/sh\n")
        .unwrap();
    fs::write(path.join("etc/group"), "root:x:0:\nworker:x:1000:\n").unwrap();
}
