//! The journal of a batch: every job that is done, with its result, one line each, appended.
//!
//! ```text
//! {"job":"<hash of the job's line>","result":{…}}
//! ```
//!
//! It is the whole record: a batch that is started again with it skips what it names, so that after any number of crashes
//! every job has one result in it. A job is known by its whole line, its id included: one that was changed is another job.
//! What was cancelled is not done. A line that a crash has torn is dropped when the journal is opened again.
//!
//! A line is in the kernel's hands before the result is printed: the death of this process loses nothing. For the death of the
//! machine it is brought to disk at most once a second, and at the end; what is lost then is judged again.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use serde::Deserialize;
use serde::de::IgnoredAny;
use sha2::{Digest, Sha256};

use crate::error::{At, Error, Result};
use crate::sys::Errno;

/// How often it is brought to disk.
const SYNC: Duration = Duration::from_secs(1);

/// What names a job: the beginning of the hash of its line.
pub type JobHash = u128;

/// The name of a job.
pub fn hash(line: &[u8]) -> JobHash {
    let hash = Sha256::digest(line.trim_ascii());
    hash.iter().take(16).fold(0, |all, byte| all << 8 | u128::from(*byte))
}

/// An open journal, locked.
#[derive(Debug)]
pub struct Journal {
    file: Flock<File>,
    path: PathBuf,
    done: HashSet<JobHash>,
    /// When what was written since is to be brought to disk.
    due: Option<Instant>,
}

#[derive(Deserialize)]
struct Entry {
    job: String,
    #[expect(dead_code, reason = "it has to be there")]
    result: IgnoredAny,
}

impl Journal {
    /// Opens a journal, making it where there is none, and reads what is done.
    ///
    /// # Errors
    /// [`Error::Usage`] where another batch has it, or it is something else; else as `open(2)` and `read(2)`.
    pub fn open(path: &Path) -> Result<Journal> {
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .custom_flags(libc::O_NONBLOCK)
            .mode(0o644)
            .open(path)
            .at("open", path.display())?;
        if !file.metadata().at("stat", path.display())?.is_file() {
            return Err(Error::Usage(format!("journal `{}` is not a regular file", path.display())));
        }
        let file = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
            Errno::EWOULDBLOCK => Error::Usage(format!("journal `{}` is in use by another batch", path.display())),
            errno => Error::sys("lock", path.display(), errno),
        })?;
        let mut journal = Journal { file, path: path.to_owned(), done: HashSet::new(), due: None };
        journal.read()?;
        Ok(journal)
    }

    fn read(&mut self) -> Result<()> {
        let name = self.path.display().to_string();
        let mut reader = BufReader::new(&*self.file);
        let mut line = Vec::new();
        let mut whole = 0;
        for number in 1.. {
            line.clear();
            let length = reader.read_until(b'\n', &mut line).at("read", &name)?;
            if length == 0 || line.last() != Some(&b'\n') {
                break;
            }
            let entry: Entry = serde_json::from_slice(&line).map_err(|error| {
                Error::Usage(format!("line {number} of `{name}` is not of a journal of batch: {error}"))
            })?;
            self.done.insert(
                u128::from_str_radix(&entry.job, 16)
                    .map_err(|_| Error::Usage(format!("line {number} of `{name}` names no job of a batch")))?,
            );
            whole += length as u64;
        }
        // A crash in the middle of a line has left its beginning.
        self.file.set_len(whole).at("cut", &name)?;
        self.file.seek(SeekFrom::Start(whole)).at("seek", &name).map(drop)
    }

    /// Whether a job is done.
    pub fn has(&self, job: JobHash) -> bool {
        self.done.contains(&job)
    }

    /// How many are done.
    pub fn len(&self) -> usize {
        self.done.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.done.is_empty()
    }

    /// Notes a result.
    ///
    /// # Errors
    /// As `write(2)`, for instance `ENOSPC`.
    pub fn note(&mut self, job: JobHash, result: &str) -> Result<()> {
        let line = format!("{{\"job\":\"{job:032x}\",\"result\":{result}}}\n");
        self.file.write_all(line.as_bytes()).at("write to", self.path.display())?;
        self.done.insert(job);
        self.due.get_or_insert_with(|| Instant::now() + SYNC);
        Ok(())
    }

    /// When [`Journal::sync`] is due.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Brings to disk what was noted.
    ///
    /// # Errors
    /// As `fdatasync(2)`.
    pub fn sync(&mut self) -> Result<()> {
        self.due = None;
        self.file.sync_data().at("sync", self.path.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_noted_is_done_when_it_is_opened_again_and_a_torn_line_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal");
        let mut journal = Journal::open(&path).unwrap();
        let (first, second) = (hash(b"{\"id\":\"a\"}\n"), hash(b"{\"id\":\"b\"}"));
        assert!(journal.is_empty());
        journal.note(first, "{\"status\":\"OK\"}").unwrap();
        assert!(matches!(Journal::open(&path), Err(Error::Usage(_))), "one batch at a time");
        journal.sync().unwrap();
        drop(journal);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{text}{}", &text[..text.len() / 2])).unwrap();
        let mut journal = Journal::open(&path).unwrap();
        assert_eq!((journal.len(), journal.has(first), journal.has(second)), (1, true, false));
        journal.note(second, "{}").unwrap();
        drop(journal);
        assert_eq!(Journal::open(&path).unwrap().len(), 2);
        assert_eq!(hash(b"  x \r\n"), hash(b"x"), "blanks around a line do not count");
    }

    #[test]
    fn another_file_is_no_journal() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("jobs.jsonl");
        std::fs::write(&path, "{\"id\":\"a\",\"code\":\"x\"}\n").unwrap();
        assert!(matches!(Journal::open(&path), Err(Error::Usage(_))));
        assert!(std::fs::read_to_string(&path).unwrap().contains("code"), "and is left as it is");
        assert!(matches!(Journal::open(Path::new("/dev/null")), Err(Error::Usage(_))));
    }
}
