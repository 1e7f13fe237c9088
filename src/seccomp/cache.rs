//! Compiled profiles on disk, by content.
//!
//! libseccomp needs 10–30 ms for an engine's default profile, which is several times what the rest of a container's
//! life costs, and engines send the same profile every time. The cache is never trusted further than its owner: the
//! directory and the file must belong to the caller and be writable by nobody else, and the file carries its key, its
//! length and its own checksum, so a torn, corrupt or renamed file is compiled again.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use oci_spec::runtime::LinuxSeccomp;
use sha2::{Digest, Sha256};

use super::Filter;
use super::profile::{compile, decode, shell};
use crate::error::Result;
use crate::sys::seccomp::Instruction;

/// Changes whenever this module or the compiler of profiles would give other bytes for the same profile.
const FORMAT: &str = concat!("rustbox seccomp cache 2 ", env!("CARGO_PKG_VERSION"));

/// Files kept in one cache directory; the oldest go first.
pub const MAX_FILES: usize = 64;

/// Greatest file that is read, in bytes: a program has at most 4096 instructions of 8 bytes (BPF_MAXINSNS).
const MAX_BYTES: u64 = HEADER as u64 + 4096 * 8;

const HEADER: usize = 32 + 4 + 32;

type Key = [u8; 32];

/// [`compile`], or what it gave last time for the same content. Trouble with the cache never fails the call: the
/// profile is compiled then.
pub fn cached(dir: &Path, profile: &LinuxSeccomp) -> Result<Filter> {
    let key = key(profile);
    let path = dir.join(hex(&key[..16]));
    if trusted_dir(dir)
        && let Some(program) = read(&path, &key)
    {
        return Ok(Filter { program, ..shell(profile)? });
    }
    let filter = compile(profile)?;
    // The container needs the filter, not the cache: a full or read-only disk only costs the next one its time.
    let _ = write(dir, &path, &key, &filter.program);
    Ok(filter)
}

/// SHA-256 of what the program depends on: actions, architectures and rules, this format, libseccomp and the machine.
fn key(profile: &LinuxSeccomp) -> Key {
    let mut hash = Sha256::new();
    // Each string is preceded by its length, each list by its count, so no two profiles read alike.
    let mut bytes = Vec::with_capacity(8192);
    let text = |bytes: &mut Vec<u8>, text: &str| {
        bytes.extend((text.len() as u32).to_ne_bytes());
        bytes.extend(text.as_bytes());
    };
    let optional = |bytes: &mut Vec<u8>, value: Option<u64>| {
        bytes.push(u8::from(value.is_some()));
        bytes.extend(value.unwrap_or_default().to_ne_bytes());
    };
    text(&mut bytes, FORMAT);
    text(&mut bytes, &libseccomp::ScmpVersion::current().map(|version| version.to_string()).unwrap_or_default());
    text(&mut bytes, std::env::consts::ARCH);
    bytes.push(profile.default_action() as u8);
    optional(&mut bytes, profile.default_errno_ret().map(u64::from));
    let archs = profile.architectures().as_deref().unwrap_or_default();
    bytes.extend((archs.len() as u32).to_ne_bytes());
    for arch in archs {
        bytes.extend((*arch as u32).to_ne_bytes());
    }
    let rules = profile.syscalls().as_deref().unwrap_or_default();
    bytes.extend((rules.len() as u32).to_ne_bytes());
    for rule in rules {
        bytes.push(rule.action() as u8);
        optional(&mut bytes, rule.errno_ret().map(u64::from));
        bytes.extend((rule.names().len() as u32).to_ne_bytes());
        for name in rule.names() {
            text(&mut bytes, name);
        }
        let args = rule.args().as_deref().unwrap_or_default();
        bytes.extend((args.len() as u32).to_ne_bytes());
        for arg in args {
            bytes.extend((arg.index() as u64).to_ne_bytes());
            bytes.extend(arg.value().to_ne_bytes());
            optional(&mut bytes, arg.value_two());
            bytes.push(arg.op() as u8);
        }
    }
    hash.update(&bytes);
    hash.finalize().into()
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// Whether nobody but the caller can put a file there.
fn trusted_dir(dir: &Path) -> bool {
    fs::symlink_metadata(dir).is_ok_and(|meta| meta.is_dir() && private(&meta))
}

fn private(meta: &fs::Metadata) -> bool {
    meta.uid() == nix::unistd::geteuid().as_raw() && meta.mode() & 0o022 == 0
}

fn read(path: &Path, key: &Key) -> Option<Vec<Instruction>> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let mut file = OpenOptions::new().read(true).custom_flags(flags).open(path).ok()?;
    let meta = file.metadata().ok()?;
    if !meta.is_file() || !private(&meta) || meta.len() > MAX_BYTES || meta.len() < HEADER as u64 {
        return None;
    }
    let mut bytes = vec![0; meta.len() as usize];
    file.read_exact(&mut bytes).ok()?;
    let (header, body) = bytes.split_at(HEADER);
    let sound = header[..32] == key[..]
        && header[32..36] == (body.len() as u32).to_ne_bytes()
        && header[36..] == checksum(key, body)[..]
        && body.len().is_multiple_of(8)
        && !body.is_empty();
    sound.then(|| decode(body))
}

fn checksum(key: &Key, body: &[u8]) -> Key {
    Sha256::new().chain_update(key).chain_update(body).finalize().into()
}

fn write(dir: &Path, path: &Path, key: &Key, program: &[Instruction]) -> std::io::Result<()> {
    match DirBuilder::new().recursive(true).mode(0o700).create(dir) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    if !trusted_dir(dir) {
        return Err(std::io::ErrorKind::PermissionDenied.into());
    }
    let body: Vec<u8> = program
        .iter()
        .flat_map(|i| {
            let ([c0, c1], [k0, k1, k2, k3]) = (i.code.to_ne_bytes(), i.k.to_ne_bytes());
            [c0, c1, i.jt, i.jf, k0, k1, k2, k3]
        })
        .collect();
    let mut bytes = Vec::with_capacity(HEADER + body.len());
    bytes.extend(key);
    bytes.extend((body.len() as u32).to_ne_bytes());
    bytes.extend(checksum(key, &body));
    bytes.extend(&body);

    make_room(dir)?;
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    let written = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&temporary)
        .and_then(|mut file| file.write_all(&bytes))
        .and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// Removes the oldest files until one more fits. Temporary files that a killed writer left count and go like others.
fn make_room(dir: &Path) -> std::io::Result<()> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let meta = entry.metadata()?;
        files.push((meta.mtime(), meta.mtime_nsec(), entry.path()));
    }
    if files.len() < MAX_FILES {
        return Ok(());
    }
    files.sort();
    for (_, _, path) in &files[..=files.len() - MAX_FILES] {
        fs::remove_file(path)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seccomp::profile::tests::profile;
    use std::os::unix::fs::PermissionsExt;

    fn small(errno: u32) -> LinuxSeccomp {
        profile(serde_json::json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["getpriority"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno}],
        }))
    }

    fn only_file(dir: &Path) -> std::path::PathBuf {
        let mut files: Vec<_> = fs::read_dir(dir).expect("dir").map(|entry| entry.expect("entry").path()).collect();
        assert_eq!(files.len(), 1, "{files:?}");
        files.remove(0)
    }

    #[test]
    fn a_hit_gives_what_the_compiler_gave() {
        let dir = tempfile::tempdir().expect("tempdir");
        let dir = dir.path().join("seccomp");
        let first = cached(&dir, &small(5)).expect("miss");
        let file = only_file(&dir);
        let meta = fs::metadata(&file).expect("file");
        assert_eq!(meta.mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&dir).expect("dir").mode() & 0o777, 0o700);
        assert_eq!(cached(&dir, &small(5)).expect("hit"), first);
        assert_eq!(fs::metadata(&file).expect("file").ino(), meta.ino(), "not written again");
        assert_ne!(key(&small(5)), key(&small(6)));
    }

    #[test]
    fn a_damaged_file_is_compiled_again() {
        let dir = tempfile::tempdir().expect("tempdir");
        let dir = dir.path().join("seccomp");
        let first = cached(&dir, &small(5)).expect("miss");
        let file = only_file(&dir);
        let good = fs::read(&file).expect("file");
        let mut flipped = good.clone();
        *flipped.last_mut().expect("bytes") ^= 1;
        for bad in [&flipped[..], &good[..good.len() - 8], &good[..10], &[], &[&good[..], &[0; 8]].concat()] {
            fs::write(&file, bad).expect("damage");
            assert_eq!(cached(&dir, &small(5)).expect("again"), first);
            assert_eq!(fs::read(&file).expect("file"), good, "repaired");
        }
        let other = cached(&dir, &small(6)).expect("other");
        let other_path = dir.join(hex(&key(&small(6))[..16]));
        fs::copy(&file, &other_path).expect("a sound file under another's name");
        assert_eq!(cached(&dir, &small(6)).expect("again"), other);
    }

    #[test]
    fn what_others_can_write_is_not_believed() {
        let dir = tempfile::tempdir().expect("tempdir");
        let dir = dir.path().join("seccomp");
        let program = cached(&dir, &small(5)).expect("miss").program;
        let path = only_file(&dir);
        let key = key(&small(5));
        assert!(read(&path, &key).is_some());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o620)).expect("chmod");
        assert!(read(&path, &key).is_none(), "group-writable");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("chmod");
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o777)).expect("chmod");
        assert!(!trusted_dir(&dir));
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).expect("chmod");
        if nix::unistd::geteuid().is_root() {
            std::os::unix::fs::chown(&path, Some(65534), None).expect("chown");
            assert!(read(&path, &key).is_none(), "somebody else's file");
            std::os::unix::fs::chown(&path, Some(0), None).expect("chown");
            std::os::unix::fs::chown(&dir, Some(65534), None).expect("chown");
            assert!(!trusted_dir(&dir));
            std::os::unix::fs::chown(&dir, Some(0), None).expect("chown");
        }
        let target = dir.join("target");
        fs::rename(&path, &target).expect("rename");
        std::os::unix::fs::symlink(&target, &path).expect("symlink");
        assert!(read(&path, &key).is_none(), "symlink");
        assert_eq!(cached(&dir, &small(5)).expect("compiled").program, program);
    }

    #[test]
    fn a_cache_that_cannot_be_written_costs_nothing_but_time() {
        let dir = tempfile::tempdir().expect("tempdir");
        let file = dir.path().join("file");
        fs::write(&file, "").expect("file");
        let filter = cached(&file, &small(5)).expect("compiled");
        assert_eq!(filter, compile(&small(5)).expect("compiled"));
    }

    #[test]
    fn the_number_of_files_is_bounded() {
        let dir = tempfile::tempdir().expect("tempdir");
        for errno in 0..MAX_FILES as u32 + 9 {
            cached(dir.path(), &small(errno)).expect("compiled");
        }
        assert!(fs::read_dir(dir.path()).expect("dir").count() <= MAX_FILES);
        assert!(read(&dir.path().join(hex(&key(&small(72))[..16])), &key(&small(72))).is_some(), "the newest stays");
    }
}
