//! `--pid-file`.

use std::os::fd::AsFd;
use std::path::Path;

use crate::error::{At, Result};
use crate::sys::path;

/// Writes the pid as a file that appears whole, by rename.
pub(super) fn write(file: &Path, pid: libc::pid_t) -> Result<()> {
    let mut temporary = file.as_os_str().to_owned();
    temporary.push(format!(".{}", std::process::id()));
    let temporary = Path::new(&temporary);
    let written = path::openat(
        path::CWD,
        &path::c_path(temporary).at("name", temporary.display())?,
        libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW,
        0o644,
    )
    .and_then(|fd| path::write_once(fd.as_fd(), pid.to_string().as_bytes()))
    .at("write the pid file", file.display())
    .and_then(|()| std::fs::rename(temporary, file).at("write the pid file", file.display()));
    if written.is_err() {
        let _ = std::fs::remove_file(temporary);
    }
    written
}
