//! The files of a worker's standing, kept whole through crashes, power loss, a full disk and many writers.
//!
//! | file of the state directory | holds |
//! |---|---|
//! | `health.json` | why the worker is not healthy; there is none while it is, so that asking costs one `open(2)` |
//! | `history.jsonl` | every change, one JSON object a line, appended |
//! | `history.broken` | lines of the history that nobody could understand, set aside by a recovery |
//! | `baseline.json` | the back ends with which the worker last passed its check |
//! | `reserve` | nothing; its blocks are given up when the disk is full, so that a quarantine can still be written down |
//!
//! Writers take turns by a lock on the directory. A file is replaced by rename, and brought to disk first.

use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::error::{At, Error, Result};
use crate::sys::lock::{FlockArg, Lock};
use crate::sys::{Errno, path};

/// Bytes set aside for the day when the disk is full: the state, some lines of history, and what a file system rounds up.
const RESERVE_BYTES: usize = 64 << 10;
const RESERVE: &str = "reserve";

/// The state directory, which need not exist.
#[derive(Debug, Clone)]
pub struct Store {
    directory: PathBuf,
}

/// The right to change the files, until it is dropped.
#[derive(Debug)]
pub struct Turn {
    _lock: Lock,
}

impl Store {
    /// That of this directory.
    pub fn new(directory: PathBuf) -> Store {
        Store { directory }
    }

    /// Path of one of its files.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Where it is.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// What a file holds; `None` where there is none.
    ///
    /// # Errors
    /// As `read(2)`.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let file = self.file(name);
        match std::fs::read(&file) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            text => text.at("read", file.display()).map(Some),
        }
    }

    /// Waits for the turn to change something; makes the directory where it is missing.
    ///
    /// # Errors
    /// What the file system answers.
    pub fn turn(&self) -> Result<Turn> {
        let place = &self.directory;
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(place).at("make", place.display())?;
        let directory = path::open(place, libc::O_RDONLY | libc::O_DIRECTORY).at("open", place.display())?;
        let lock = Lock::take(directory, FlockArg::LockExclusive).map_err(|(_, errno)| errno);
        Ok(Turn { _lock: lock.at("lock", place.display())? })
    }

    /// Sets blocks aside, where they are not; whether the disk had them.
    pub fn reserve(&self, _turn: &Turn) -> bool {
        let file = self.file(RESERVE);
        if std::fs::metadata(&file).is_ok_and(|metadata| metadata.len() >= RESERVE_BYTES as u64) {
            return true;
        }
        // Written, not truncated to that length: a hole has no blocks.
        let made = new_file(&file).and_then(|mut out| out.write_all(&vec![0; RESERVE_BYTES]));
        if made.is_err() {
            let _ = std::fs::remove_file(&file);
        }
        made.is_ok()
    }

    /// Replaces a file, whole or not at all.
    ///
    /// # Errors
    /// As `write(2)` and `rename(2)`.
    pub fn replace(&self, turn: &Turn, name: &str, text: &[u8]) -> Result<()> {
        let (new, file) = (self.file(&format!("{name}.new")), self.file(name));
        self.with_reserve(turn, || {
            new_file(&new)
                .and_then(|mut out| out.write_all(text).and_then(|()| out.sync_all()))
                .at("write", new.display())
        })?;
        std::fs::rename(&new, &file).at("replace", file.display())?;
        self.sync()
    }

    /// Removes a file.
    ///
    /// # Errors
    /// As `unlink(2)`.
    pub fn remove(&self, _turn: &Turn, name: &str) -> Result<()> {
        let file = self.file(name);
        std::fs::remove_file(&file).at("remove", file.display())?;
        self.sync()
    }

    /// Appends a line. One that a crash has cut short before it spoils itself only.
    ///
    /// # Errors
    /// As `write(2)`; then nothing of the line stays.
    pub fn append(&self, turn: &Turn, name: &str, line: &[u8]) -> Result<()> {
        let file = self.file(name);
        self.with_reserve(turn, || {
            let mut out = std::fs::OpenOptions::new()
                .read(true)
                .append(true)
                .create(true)
                .mode(0o600)
                .open(&file)
                .at("open", file.display())?;
            let length = out.metadata().at("stat", file.display())?.len();
            let mut text = Vec::with_capacity(line.len() + 2);
            if length > 0 && last_byte(&out, length).at("read", file.display())? != b'\n' {
                text.push(b'\n');
            }
            text.extend_from_slice(line);
            text.push(b'\n');
            out.write_all(&text)
                .and_then(|()| out.sync_data())
                .inspect_err(|_| {
                    // Half a line would be a broken one.
                    let _ = out.set_len(length);
                })
                .at("append to", file.display())
        })
    }

    /// Does it, and does it again without the reserve where the disk is full.
    fn with_reserve(&self, _turn: &Turn, mut work: impl FnMut() -> Result<()>) -> Result<()> {
        match work() {
            Err(error) if full(&error) && std::fs::remove_file(self.file(RESERVE)).is_ok() => work(),
            done => done,
        }
    }

    fn sync(&self) -> Result<()> {
        let place = self.directory.display();
        std::fs::File::open(&self.directory).and_then(|directory| directory.sync_all()).at("sync", place)
    }
}

fn full(error: &Error) -> bool {
    matches!(error.errno(), Some(Errno::ENOSPC | Errno::EDQUOT))
}

fn new_file(place: &Path) -> std::io::Result<std::fs::File> {
    std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(place)
}

fn last_byte(file: &std::fs::File, length: u64) -> std::io::Result<u8> {
    use std::os::unix::fs::FileExt;
    let mut byte = [0];
    file.read_exact_at(&mut byte, length - 1).map(|()| byte[0])
}
