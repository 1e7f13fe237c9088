//! Compiled programs on disk, by the content they were made of: many tests and many runs of one submission cost one
//! compile.
//!
//! | part of the key | why |
//! |---|---|
//! | source, the bundle's files | what is compiled |
//! | the compile step's configuration, limits and environment | how |
//! | the toolchain's programs as files (device, inode, size, time of change), the package database | by what |
//! | this program's version, the controls that are missing | where |
//!
//! Only successful compiles are kept, each in one file that carries its key and its checksum: a torn, damaged or renamed file
//! is removed, and the source compiled again. A file gets its name only when it is whole, so a crash leaves nothing, and of
//! two writers one is late and does nothing. The directory and its files belong to the caller and are writable by nobody
//! else; what a sandbox sees is a copy. The least recently used files go when the cache is full.

use std::fs::{DirBuilder, File, Metadata, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Changes whenever the layout of the files does.
const FORMAT: &str = concat!("rustbox compiled 1 ", env!("CARGO_PKG_VERSION"));
/// Key, length of the record, checksum.
const HEADER: usize = 32 + 8 + 32;

/// What a compile step depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key([u8; 32]);

/// Puts a [`Key`] together.
#[derive(Debug)]
pub struct KeyBuilder(Sha256);

impl Default for KeyBuilder {
    fn default() -> Self {
        KeyBuilder(Sha256::new()).part(FORMAT.as_bytes())
    }
}

impl KeyBuilder {
    /// One more part. Each carries its length, so that no two lists of parts read alike.
    pub fn part(mut self, bytes: &[u8]) -> Self {
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
        self
    }

    /// A file of the host by its identity, not its content; one that is not there is a part too.
    pub fn file(self, path: &Path) -> Self {
        let real = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let seen = std::fs::metadata(&real)
            .map(|it| [it.dev(), it.ino(), it.size(), it.mtime() as u64, it.mtime_nsec() as u64, it.ctime() as u64]);
        let numbers: Vec<u8> = seen.unwrap_or_default().iter().flat_map(|number| number.to_le_bytes()).collect();
        self.part(std::os::unix::ffi::OsStrExt::as_bytes(real.as_os_str())).part(&numbers)
    }

    /// The key.
    pub fn finish(self) -> Key {
        Key(self.0.finalize().into())
    }
}

impl Key {
    fn name(&self) -> String {
        self.0.iter().take(20).map(|byte| format!("{byte:02x}")).collect()
    }
}

/// The cache of one worker.
#[derive(Debug, Clone)]
pub struct Cache {
    directory: PathBuf,
    /// Bytes of all files together.
    limit: u64,
}

impl Cache {
    /// The cache in this directory, which need not exist.
    pub fn new(directory: PathBuf, limit: u64) -> Cache {
        Cache { directory, limit }
    }

    /// What was stored under a key: the record and the artefact. Trouble with the cache is a miss.
    pub fn load<T: for<'de> Deserialize<'de>>(&self, key: &Key) -> Option<(T, Vec<u8>)> {
        if !trusted(&self.directory) {
            return None;
        }
        let path = self.directory.join(key.name());
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(&path).ok()?;
        let loaded = read(&file, key, self.limit);
        match &loaded {
            // Used now; the oldest go first.
            Some(_) => drop(file.set_modified(SystemTime::now())),
            None => drop(std::fs::remove_file(&path)),
        }
        loaded
    }

    /// Stores a record and an artefact under a key. Whoever needs the artefact has it: a cache that is full or cannot be
    /// written only costs the next one its time.
    pub fn store<T: Serialize>(&self, key: &Key, record: &T, artefact: &[u8]) {
        let Ok(record) = serde_json::to_vec(record) else { return };
        let _ = self.write(key, &record, artefact);
    }

    fn write(&self, key: &Key, record: &[u8], artefact: &[u8]) -> std::io::Result<()> {
        let size = (HEADER + record.len() + artefact.len()) as u64;
        if size > self.limit / 4 {
            return Ok(());
        }
        match DirBuilder::new().recursive(true).mode(0o700).create(&self.directory) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        if !trusted(&self.directory) {
            return Err(std::io::ErrorKind::PermissionDenied.into());
        }
        self.make_room(size)?;
        // Without a name until it is whole.
        let mut file =
            OpenOptions::new().write(true).mode(0o600).custom_flags(libc::O_TMPFILE).open(&self.directory)?;
        for part in
            [&key.0[..], &(record.len() as u64).to_le_bytes(), &checksum(key, record, artefact), record, artefact]
        {
            file.write_all(part)?;
        }
        let unnamed = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
        let name = self.directory.join(key.name());
        let follow = nix::fcntl::AtFlags::AT_SYMLINK_FOLLOW;
        nix::unistd::linkat(None, Path::new(&unnamed), None, &name, follow).map_err(std::io::Error::from)
    }

    /// Removes the least recently used files until `size` bytes more fit.
    fn make_room(&self, size: u64) -> std::io::Result<()> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(&self.directory)? {
            let entry = entry?;
            // Removed by another meanwhile.
            let Ok(meta) = entry.metadata() else { continue };
            files.push((meta.mtime(), meta.mtime_nsec(), meta.len(), entry.path()));
        }
        let mut total = files.iter().map(|(_, _, length, _)| length).sum::<u64>() + size;
        files.sort();
        for (_, _, length, path) in files {
            if total <= self.limit {
                break;
            }
            let _ = std::fs::remove_file(path);
            total -= length;
        }
        Ok(())
    }
}

fn read<T: for<'de> Deserialize<'de>>(mut file: &File, key: &Key, limit: u64) -> Option<(T, Vec<u8>)> {
    let meta = file.metadata().ok()?;
    if !meta.is_file() || !private(&meta) || meta.len() > limit || meta.len() < HEADER as u64 {
        return None;
    }
    let mut header = [0; HEADER];
    file.read_exact(&mut header).ok()?;
    let length = u64::from_le_bytes(header[32..40].try_into().ok()?);
    if header[..32] != key.0 || length > meta.len() - HEADER as u64 {
        return None;
    }
    let mut record = vec![0; length as usize];
    file.read_exact(&mut record).ok()?;
    let mut artefact = Vec::with_capacity((meta.len() - HEADER as u64 - length) as usize);
    file.read_to_end(&mut artefact).ok()?;
    if header[40..] != checksum(key, &record, &artefact) {
        return None;
    }
    Some((serde_json::from_slice(&record).ok()?, artefact))
}

fn checksum(key: &Key, record: &[u8], artefact: &[u8]) -> [u8; 32] {
    Sha256::new().chain_update(key.0).chain_update(record).chain_update(artefact).finalize().into()
}

/// Whether nobody but the caller can put a file there.
fn trusted(directory: &Path) -> bool {
    std::fs::symlink_metadata(directory).is_ok_and(|meta| meta.is_dir() && private(&meta))
}

fn private(meta: &Metadata) -> bool {
    meta.uid() == nix::unistd::geteuid().as_raw() && meta.mode() & 0o022 == 0
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn key(source: &str) -> Key {
        KeyBuilder::default().part(source.as_bytes()).finish()
    }

    fn cache(limit: u64) -> (tempfile::TempDir, Cache) {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::new(directory.path().join("compiled"), limit);
        (directory, cache)
    }

    fn load(cache: &Cache, source: &str) -> Option<(String, Vec<u8>)> {
        cache.load(&key(source))
    }

    #[test]
    fn what_was_stored_is_found_by_its_key_alone() {
        let (_directory, cache) = cache(1 << 20);
        assert_eq!(load(&cache, "a"), None);
        cache.store(&key("a"), &"record", b"artefact");
        assert_eq!(load(&cache, "a"), Some(("record".to_owned(), b"artefact".to_vec())));
        assert_eq!(load(&cache, "b"), None);
        cache.store(&key("a"), &"late", b"late");
        assert_eq!(load(&cache, "a").unwrap().0, "record", "the first one stays");
        let parts =
            |parts: &[&str]| parts.iter().fold(KeyBuilder::default(), |key, part| key.part(part.as_bytes())).finish();
        assert_ne!(parts(&["ab", "c"]), parts(&["a", "bc"]));
    }

    #[test]
    fn a_toolchain_that_changes_is_another_key() {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("cc");
        let key = || KeyBuilder::default().file(&program).finish();
        let missing = key();
        std::fs::write(&program, "1").unwrap();
        let first = key();
        assert_ne!(missing, first);
        assert_eq!(first, key());
        std::fs::write(&program, "22").unwrap();
        assert_ne!(first, key());
    }

    #[test]
    fn what_is_damaged_or_not_private_is_compiled_again() {
        let (_directory, cache) = cache(1 << 20);
        cache.store(&key("a"), &"record", b"artefact");
        let path = cache.directory.join(key("a").name());
        let good = std::fs::read(&path).unwrap();
        let mut flipped = good.clone();
        *flipped.last_mut().unwrap() ^= 1;
        let mut long = good.clone();
        long[32..40].fill(0xff);
        for bad in [&flipped[..], &good[..good.len() - 1], &good[..20], &[], &long] {
            std::fs::write(&path, bad).unwrap();
            assert_eq!(load(&cache, "a"), None);
            assert!(!path.exists(), "removed, so that it can be stored again");
        }
        cache.store(&key("a"), &"record", b"artefact");
        std::fs::rename(&path, cache.directory.join(key("b").name())).unwrap();
        assert_eq!(load(&cache, "b"), None, "another's file under its name");
        cache.store(&key("a"), &"record", b"artefact");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o622)).unwrap();
        assert_eq!(load(&cache, "a"), None);
        std::fs::set_permissions(&cache.directory, std::fs::Permissions::from_mode(0o777)).unwrap();
        cache.store(&key("c"), &"record", b"artefact");
        assert_eq!(std::fs::read_dir(&cache.directory).unwrap().count(), 0);
    }

    #[test]
    fn the_least_recently_used_go_when_it_is_full() {
        let (_directory, cache) = cache(8 << 10);
        let store = |name: &str| cache.store(&key(name), &name, &[0; 1500]);
        let used = |name: &str, seconds: u64| {
            let file = File::options().write(true).open(cache.directory.join(key(name).name())).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds)).unwrap();
        };
        for (index, name) in ["a", "b", "c", "d", "e"].into_iter().enumerate() {
            store(name);
            used(name, index as u64);
        }
        assert!(load(&cache, "a").is_some(), "used just now");
        store("f");
        assert!(load(&cache, "a").is_some() && load(&cache, "f").is_some());
        assert!(load(&cache, "b").is_none());
        cache.store(&key("huge"), &"huge", &[0; 4 << 10]);
        assert!(load(&cache, "huge").is_none());
        let total: u64 =
            std::fs::read_dir(&cache.directory).unwrap().map(|it| it.unwrap().metadata().unwrap().len()).sum();
        assert!(total <= 8 << 10);
    }

    #[test]
    fn many_writers_and_readers_see_only_whole_entries() {
        let (_directory, cache) = cache(1 << 20);
        std::thread::scope(|scope| {
            for thread in 0..8u8 {
                let cache = &cache;
                scope.spawn(move || {
                    for round in 0..40 {
                        let name = format!("{}", round % 5);
                        if let Some((record, artefact)) = load(cache, &name) {
                            assert_eq!((record.as_str(), artefact.len()), (name.as_str(), 5000));
                            assert!(artefact.windows(2).all(|pair| pair[0] == pair[1]));
                        }
                        cache.store(&key(&name), &name, &[thread; 5000]);
                    }
                });
            }
        });
        assert_eq!(std::fs::read_dir(&cache.directory).unwrap().count(), 5);
    }
}
