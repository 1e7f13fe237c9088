//! The names in a directory, by its descriptor alone.

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd};

use super::{Result, check};

/// Room for the names that one call gives; what a cgroup directory holds fits in.
const ROOM: usize = 32 << 10;
/// Where in a `struct linux_dirent64` its own length stands, the type, and the name.
const LENGTH: usize = 16;
const TYPE: usize = 18;
const NAME: usize = 19;

/// The directories in a directory whose filesystem tells types (`getdents64(2)`), but for itself and the one above. None
/// where it has been removed.
///
/// # Errors
/// As `getdents64(2)`.
pub fn directories(dir: BorrowedFd<'_>) -> Result<Vec<CString>> {
    let mut found = Vec::new();
    let mut buffer = vec![0_u8; ROOM];
    loop {
        // SAFETY: a valid descriptor and a buffer of the length given.
        let filled =
            check(unsafe { libc::syscall(libc::SYS_getdents64, dir.as_raw_fd(), buffer.as_mut_ptr(), buffer.len()) });
        match filled {
            Err(super::Errno::ENOENT) | Ok(0) => return Ok(found),
            filled => add_directories(&buffer[..filled? as usize], &mut found),
        }
    }
}

fn add_directories(mut entries: &[u8], found: &mut Vec<CString>) {
    while let Some(length) = entries.get(LENGTH..TYPE) {
        let length = usize::from(u16::from_ne_bytes([length[0], length[1]]));
        let Some((entry, rest)) = entries.split_at_checked(length.max(NAME)) else { return };
        entries = rest;
        match CStr::from_bytes_until_nul(&entry[NAME..]) {
            Ok(name) if entry[TYPE] == libc::DT_DIR && name != c"." && name != c".." => found.push(name.to_owned()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::os::fd::AsFd;

    use super::*;
    use crate::sys::path;

    #[test]
    fn the_directories_are_found_and_nothing_else() {
        let here = tempfile::tempdir().unwrap();
        // More than one call gives.
        let names: BTreeSet<_> = (0..500).map(|n| CString::new(format!("{n}{}", "x".repeat(200))).unwrap()).collect();
        for name in &names {
            fs::create_dir(here.path().join(name.to_str().unwrap())).unwrap();
        }
        fs::write(here.path().join("file"), "").unwrap();
        std::os::unix::fs::symlink("/", here.path().join("link")).unwrap();
        let open = |place| path::open(place, libc::O_RDONLY | libc::O_DIRECTORY).unwrap();
        assert_eq!(directories(open(here.path()).as_fd()).unwrap().into_iter().collect::<BTreeSet<_>>(), names);

        let gone = here.path().join("gone");
        fs::create_dir(&gone).unwrap();
        let handle = open(&gone);
        fs::remove_dir(&gone).unwrap();
        assert!(directories(handle.as_fd()).unwrap().is_empty());
    }
}
