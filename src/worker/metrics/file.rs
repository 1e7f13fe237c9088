//! The file that holds the counts: one page, mapped by whoever adds to it. It survives the death of its writers, not of
//! the machine's power.
//!
//! | words | hold |
//! |---|---|
//! | 0 | `rustboxM` |
//! | 1 | [`LAYOUT`] |
//! | 2–7 | nothing |
//! | 8–511 | the counts, as [`super::table`] says |
//!
//! An empty file is a new one: its maker died. Whoever finds one fills it, under a lock, in one write.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use crate::error::{At, Error, Result};
use crate::sys::lock::{FlockArg, Lock};
use crate::sys::words::{self, BYTES, WORDS, Words};
use crate::sys::{Errno, path};

/// Version of the layout.
pub const LAYOUT: u64 = 1;
/// Words before the counts.
pub const HEADER: usize = 8;
/// Name of the file, in the worker's directory.
pub const NAME: &str = "metrics";

const MAGIC: u64 = u64::from_le_bytes(*b"rustboxM");
/// A new file is filled in microseconds; whoever holds its lock longer is stopped, and is not waited for.
const TRIES: u32 = 200;
const PAUSE: Duration = Duration::from_millis(1);

/// Why nothing can be counted.
#[derive(Debug)]
pub enum Trouble {
    /// There is no file, and this process may not make one.
    Forbidden(Error),
    /// There is one, and it cannot be used.
    Unusable(Error),
}

/// Opens the file to add to it, making it where it is missing.
///
/// # Errors
/// Where it cannot be made, belongs to somebody else, or is none of ours. It is never changed then.
pub fn open(file: &Path) -> Result<Words, Trouble> {
    let fd = match open_or_make(file) {
        Ok(fd) => fd,
        Err((step, errno @ (Errno::EACCES | Errno::EPERM | Errno::EROFS), true)) => {
            return Err(Trouble::Forbidden(Error::sys(step, file.display(), errno)));
        }
        Err((step, errno, _)) => return Err(Trouble::Unusable(Error::sys(step, file.display(), errno))),
    };
    fill_and_map(fd, file).map_err(Trouble::Unusable)
}

/// What is counted in the file; nothing where it was never made.
///
/// # Errors
/// Where it cannot be read or is none of ours.
pub fn read(file: &Path) -> Result<[u64; WORDS]> {
    let flags = libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let fd = match path::open(file, flags) {
        Err(Errno::ENOENT) => return Ok([0; WORDS]),
        fd => fd.at("open", file.display())?,
    };
    if check(&fd, file)? == 0 {
        return Ok([0; WORDS]);
    }
    let words = words::read(fd.as_fd()).at("map", file.display())?;
    check_header(&words, file)?;
    Ok(words)
}

/// The file, or the step that failed, why, and whether that was to make it.
fn open_or_make(file: &Path) -> Result<OwnedFd, (&'static str, Errno, bool)> {
    use std::os::unix::fs::DirBuilderExt;
    let flags = libc::O_RDWR | libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    match path::open(file, flags) {
        Err(Errno::ENOENT) => {}
        other => return other.map_err(|errno| ("open", errno, false)),
    }
    if let Some(place) = file.parent() {
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(place);
        made.map_err(|error| ("make the directory of", Errno::from_raw(error.raw_os_error().unwrap_or(0)), true))?;
    }
    let name = path::c_path(file).map_err(|errno| ("name", errno, false))?;
    path::openat(path::CWD, &name, flags | libc::O_CREAT, 0o600).map_err(|errno| ("make", errno, true))
}

fn fill_and_map(fd: OwnedFd, file: &Path) -> Result<Words> {
    let fd = if check(&fd, file)? == 0 { fill(fd, file)? } else { fd };
    let words = Words::map(fd.as_fd()).at("map", file.display())?;
    check_header(&words.load(), file)?;
    Ok(words)
}

/// The size of the file, 0 or that of the page, where it is fit to be used.
fn check(fd: &impl AsFd, file: &Path) -> Result<usize> {
    let unfit = |why: String| Err(Error::Other(format!("`{}` {why}", file.display())));
    let stat = path::fstat(fd.as_fd()).at("stat", file.display())?;
    if stat.st_mode & libc::S_IFMT != libc::S_IFREG {
        return unfit("is no regular file".to_owned());
    }
    // Its owner could cut it short under our hands.
    let me = nix::unistd::geteuid().as_raw();
    if stat.st_uid != me {
        return unfit(format!("belongs to user {}, not to {me}; remove it, or chown it", stat.st_uid));
    }
    if stat.st_mode & 0o022 != 0 {
        return unfit(format!("can be written by others (mode {:o}); chmod it to 600", stat.st_mode & 0o7777));
    }
    match usize::try_from(stat.st_size) {
        Ok(size @ (0 | BYTES)) => Ok(size),
        _ => unfit(format!("is {} bytes long, not {BYTES}; {NOT_OURS}", stat.st_size)),
    }
}

const NOT_OURS: &str = "it is no file of rustbox's metrics, or damaged: remove it, and they start from zero";

fn check_header(words: &[u64; WORDS], file: &Path) -> Result<()> {
    if words[0] != MAGIC {
        return Err(Error::Other(format!("`{}` does not begin as it should; {NOT_OURS}", file.display())));
    }
    if words[1] != LAYOUT {
        let version = words[1];
        return Err(Error::Other(format!("`{}` is of version {version}, this is {LAYOUT}", file.display())));
    }
    Ok(())
}

/// Fills a file that is empty, unless somebody else has by then.
fn fill(fd: OwnedFd, file: &Path) -> Result<OwnedFd> {
    let mut fd = fd;
    let mut tries = 0;
    let locked = loop {
        fd = match Lock::take(fd, FlockArg::LockExclusiveNonblock) {
            Ok(locked) => break locked,
            Err((fd, Errno::EWOULDBLOCK)) if tries < TRIES => fd,
            Err((_, errno)) => return Err(errno).at("lock", file.display()),
        };
        tries += 1;
        std::thread::sleep(PAUSE);
    };
    if check(&locked, file)? == 0 {
        let mut page = [0; BYTES];
        page[..8].copy_from_slice(&MAGIC.to_ne_bytes());
        page[8..16].copy_from_slice(&LAYOUT.to_ne_bytes());
        let written = nix::sys::uio::pwrite(&locked, &page, 0).at("write to", file.display())?;
        if written != BYTES {
            let _ = nix::unistd::ftruncate(&locked, 0);
            return Err(Error::sys("write to", file.display(), Errno::ENOSPC));
        }
    }
    locked.unlock().at("unlock", file.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hundred_writers_lose_nothing_from_the_first_moment_on() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("below").join(NAME);
        std::thread::scope(|scope| {
            for writer in 0..100 {
                let file = &file;
                scope.spawn(move || {
                    for _ in 0..200 {
                        let words = open(file).unwrap();
                        words.add(HEADER, 1);
                        words.add(HEADER + 1 + writer, 2);
                    }
                });
            }
        });
        let words = read(&file).unwrap();
        assert_eq!(words[HEADER], 20_000);
        assert!(words[HEADER + 1..HEADER + 101].iter().all(|word| *word == 400), "{words:?}");
    }

    #[test]
    fn what_was_never_made_or_whose_maker_died_counts_from_zero() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join(NAME);
        assert_eq!(read(&file).unwrap(), [0; WORDS]);
        std::fs::write(&file, "").unwrap();
        assert_eq!(read(&file).unwrap(), [0; WORDS]);
        open(&file).unwrap().add(HEADER, 7);
        assert_eq!(read(&file).unwrap()[HEADER], 7);
    }
}
