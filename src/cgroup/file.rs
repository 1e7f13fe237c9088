//! One cgroup directory and its files: every read and write of this module goes through here.

use std::cell::RefCell;
use std::fmt::Display;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::error::{At, Error, Result};
use crate::sys::{Errno, path};

/// A directory of a cgroup hierarchy. Its files are named by path: a walk of five cached components costs
/// less than keeping a descriptor for directories of which one file is touched.
#[derive(Debug, Clone)]
pub(super) struct Dir {
    path: PathBuf,
    journal: Option<Journal>,
}

impl Dir {
    pub(super) fn new(path: impl Into<PathBuf>) -> Self {
        Dir { path: path.into(), journal: None }
    }

    /// The same directory, whose files are noted down before they are written.
    pub(super) fn noted(self, journal: Option<&Journal>) -> Self {
        Dir { journal: journal.cloned(), ..self }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Opens a file of this directory, close-on-exec.
    pub(super) fn open(&self, name: &str, flags: i32) -> Result<OwnedFd> {
        let file = self.file(name);
        path::open(&file, flags | libc::O_NOCTTY).at("open", file.display())
    }

    /// Opens the directory itself, for `CLONE_INTO_CGROUP` and for walking.
    pub(super) fn open_self(&self) -> Result<OwnedFd> {
        path::open(&self.path, libc::O_RDONLY | libc::O_DIRECTORY).at("open", self.path.display())
    }

    /// Writes a value in one `write`, as cgroupfs wants it. The error names the file and the value.
    pub(super) fn write(&self, name: &str, value: impl Display) -> Result<()> {
        let value = value.to_string();
        self.try_write(name, &value).map_err(|errno| {
            let object = self.file(name);
            let object = object.display();
            Error::sys("write to", format_args!("{object}` the value `{value}"), errno)
        })
    }

    /// The same with the bare errno, for callers that have a second way.
    pub(super) fn try_write(&self, name: &str, value: &str) -> Result<(), Errno> {
        if let Some(journal) = &self.journal
            && let Ok(before) = self.try_read(name)
        {
            journal.note(self.file(name), before);
        }
        let fd = path::open(self.file(name), libc::O_WRONLY | libc::O_NOCTTY)?;
        path::write_once(fd.as_fd(), value.as_bytes())
    }

    /// Writes only where the file exists; says whether it does.
    pub(super) fn write_if_there(&self, name: &str, value: impl Display) -> Result<bool> {
        match self.write(name, value) {
            Ok(()) => Ok(true),
            Err(error) if error.errno() == Some(Errno::ENOENT) => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub(super) fn try_read(&self, name: &str) -> Result<String, Errno> {
        let fd = path::open(self.file(name), libc::O_RDONLY | libc::O_NOCTTY)?;
        read(fd.as_fd())
    }

    /// Reads a file that the kernel shows in one piece (every one but lists of processes): a read that does not fill the
    /// buffer was the last, and no second one is needed to see the end.
    pub(super) fn value(&self, name: &str) -> Result<String> {
        let fd = self.open(name, libc::O_RDONLY)?;
        let mut buffer = [0; 4096];
        let length = nix::unistd::read(fd.as_raw_fd(), &mut buffer).at("read", self.file(name).display())?;
        if length == buffer.len() {
            return self.read(name);
        }
        String::from_utf8(buffer[..length].to_vec()).map_err(|_| Errno::EILSEQ).at("read", self.file(name).display())
    }

    /// Reads a whole file.
    pub(super) fn read(&self, name: &str) -> Result<String> {
        self.try_read(name).at("read", self.file(name).display())
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.file(name).exists()
    }

    /// A file that holds one number. `max` reads as `u64::MAX`.
    pub(super) fn number(&self, name: &str) -> Result<u64> {
        let text = self.value(name)?;
        parse_number(text.trim()).ok_or_else(|| {
            Error::Other(format!("`{}` holds `{}`, not a number", self.file(name).display(), text.trim()))
        })
    }

    /// The number behind `key` in a file of `key value` lines.
    pub(super) fn keyed(&self, name: &str, key: &str) -> Result<Option<u64>> {
        Ok(keyed(&self.value(name)?, key))
    }
}

/// What files held before an update wrote them, so that one that fails half-way can be undone.
#[derive(Debug, Clone, Default)]
pub(super) struct Journal(Rc<RefCell<Vec<(PathBuf, String)>>>);

impl Journal {
    /// Only the first value of a file is the one from before.
    fn note(&self, file: PathBuf, before: String) {
        let mut notes = self.0.borrow_mut();
        if !notes.iter().any(|(noted, _)| *noted == file) {
            notes.push((file, before));
        }
    }

    /// Writes the values from before, again and again as long as that helps: limits constrain each other. Returns the files
    /// that do not hold what they held before.
    pub(super) fn undo(&self) -> Vec<PathBuf> {
        let mut changed: Vec<_> = self.0.take();
        loop {
            let left: Vec<_> = changed.iter().rev().filter(|(file, before)| !put_back(file, before)).cloned().collect();
            if left.is_empty() || left.len() == changed.len() {
                return left.into_iter().map(|(file, _)| file).collect();
            }
            changed = left;
        }
    }
}

/// Whether the file holds this text, after writing it if need be: line by line, as files of a line per device take it.
fn put_back(file: &Path, before: &str) -> bool {
    let Some((dir, name)) = file.parent().map(Dir::new).zip(file.file_name().and_then(|name| name.to_str())) else {
        return false;
    };
    let same = || dir.try_read(name).is_ok_and(|now| now == before);
    if same() {
        return true;
    }
    // `memory.oom_control` shows more than it takes: the switch is the first line's number.
    let lines = before.lines().map(|line| line.strip_prefix("oom_kill_disable ").unwrap_or(line));
    for line in lines {
        // What counts is what the file shows afterwards.
        let _ = dir.try_write(name, line);
    }
    same()
}

/// Reads until the end: `cgroup.procs` and the like give at most a page per `read`.
pub(super) fn read(fd: std::os::fd::BorrowedFd<'_>) -> Result<String, Errno> {
    let bytes = path::read_all(fd, 16 << 20)?;
    String::from_utf8(bytes).map_err(|_| Errno::EILSEQ)
}

pub(super) fn parse_number(text: &str) -> Option<u64> {
    if text == "max" { Some(u64::MAX) } else { text.parse().ok() }
}

/// The number behind `key` in `key value` lines.
pub(super) fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(' ')?;
        (name == key).then(|| parse_number(value.trim()))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keyed_files_are_matched_by_the_whole_key() {
        let text = "oom 1\noom_kill 3\noom_group_kill max\n";
        assert_eq!(keyed(text, "oom"), Some(1));
        assert_eq!(keyed(text, "oom_kill"), Some(3));
        assert_eq!(keyed(text, "oom_group_kill"), Some(u64::MAX));
        assert_eq!(keyed(text, "kill"), None);
    }

    #[test]
    fn a_failed_write_names_the_file_the_value_and_the_errno() {
        let dir = tempfile::tempdir().unwrap();
        let error = Dir::new(dir.path()).write("memory.max", 5).unwrap_err().to_string();
        assert!(error.contains("memory.max` the value `5`: No such file"), "{error}");
    }
}
