//! What a directory holds (`getdents64(2)`).

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd};

use super::{Errno, Result, check};

/// What a name stands for, as far as it matters to whoever walks a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A link, a pipe, a socket or a device.
    Other,
}

/// A name of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name, in whatever bytes it has.
    pub name: CString,
    /// What it stands for; `None` where the file system does not say it in the list.
    pub kind: Option<Kind>,
}

impl Kind {
    /// By the mode of a file.
    pub fn of(mode: u32) -> Kind {
        match mode & libc::S_IFMT {
            libc::S_IFDIR => Kind::Directory,
            libc::S_IFREG => Kind::File,
            _ => Kind::Other,
        }
    }
}

/// All names that are left to read of an open directory, but `.` and `..`.
///
/// # Errors
/// As `getdents64(2)`; `EIO` for an answer that is none.
pub fn entries(directory: BorrowedFd<'_>) -> Result<Vec<Entry>> {
    let mut room = vec![0_u8; 32 << 10];
    let mut entries = Vec::new();
    loop {
        // SAFETY: a valid descriptor and a buffer of the length given.
        let length = check(unsafe {
            libc::syscall(libc::SYS_getdents64, directory.as_raw_fd(), room.as_mut_ptr(), room.len())
        })?;
        let mut rest = room.get(..length as usize).ok_or(Errno::EIO)?;
        if rest.is_empty() {
            return Ok(entries);
        }
        while !rest.is_empty() {
            let (record, others) = split_record(rest).ok_or(Errno::EIO)?;
            rest = others;
            let (kind, name) = parse(record).ok_or(Errno::EIO)?;
            if name != c"." && name != c".." {
                entries.push(Entry { name: name.to_owned(), kind });
            }
        }
    }
}

/// Where `struct linux_dirent64` has `d_reclen`, `d_type` and `d_name`.
const LENGTH: usize = 16;
const TYPE: usize = 18;
const NAME: usize = 19;

fn split_record(records: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = records.get(LENGTH..TYPE)?.try_into().ok().map(u16::from_ne_bytes)?;
    records.split_at_checked(length.max(1).into())
}

fn parse(record: &[u8]) -> Option<(Option<Kind>, &CStr)> {
    let kind = match *record.get(TYPE)? {
        libc::DT_UNKNOWN => None,
        libc::DT_DIR => Some(Kind::Directory),
        libc::DT_REG => Some(Kind::File),
        _ => Some(Kind::Other),
    };
    Some((kind, CStr::from_bytes_until_nul(record.get(NAME..)?).ok()?))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::os::fd::AsFd;

    use super::*;
    use crate::sys::path;

    #[test]
    fn all_names_are_found_with_what_they_stand_for() {
        let here = tempfile::tempdir().unwrap();
        // More than one call gives.
        let names: BTreeSet<_> = (0..500).map(|n| CString::new(format!("{n}{}", "x".repeat(200))).unwrap()).collect();
        for name in &names {
            fs::create_dir(here.path().join(name.to_str().unwrap())).unwrap();
        }
        fs::write(here.path().join("file"), "").unwrap();
        std::os::unix::fs::symlink("/", here.path().join("link")).unwrap();
        let open = |place| path::open(place, libc::O_RDONLY | libc::O_DIRECTORY).unwrap();
        let all = entries(open(here.path()).as_fd()).unwrap();
        let of = |kind| all.iter().filter(move |it| it.kind == Some(kind)).map(|it| it.name.clone());
        assert_eq!(of(Kind::Directory).collect::<BTreeSet<_>>(), names);
        assert_eq!(of(Kind::File).chain(of(Kind::Other)).collect::<Vec<_>>(), [c"file".to_owned(), c"link".to_owned()]);

        let gone = here.path().join("gone");
        fs::create_dir(&gone).unwrap();
        let handle = open(&gone);
        fs::remove_dir(&gone).unwrap();
        assert_eq!(entries(handle.as_fd()), Err(Errno::ENOENT));
    }
}
