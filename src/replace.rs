//! Files that appear whole or not at all.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::error::{At, Error, Result};

/// Writes a file by another name beside it and renames that; where it fails nothing of it stays. `mode` is the file's,
/// less the umask.
///
/// # Errors
/// As `open(2)`, `write(2)` and `rename(2)`; [`Error::Usage`] for a path that names no file.
pub fn replace(file: &Path, mode: u32, content: &[u8]) -> Result<()> {
    let name = file.file_name().ok_or_else(|| Error::Usage(format!("`{}` names no file", file.display())))?;
    let new = file.with_file_name(format!(".{}.{}", name.to_string_lossy(), std::process::id()));
    let written = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&new)
        .and_then(|mut out| out.write_all(content))
        .at("write", new.display())
        .and_then(|()| std::fs::rename(&new, file).at("replace", file.display()));
    written.inspect_err(|_| {
        let _ = std::fs::remove_file(&new);
    })
}
