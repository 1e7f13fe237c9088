//! Paths relative to descriptors: `openat2` with its resolve flags, and the `*at` family.

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::{Errno, Result, check};

/// `openat2(2)`: the descriptor is the root; `..` and absolute links stay below it.
pub const RESOLVE_IN_ROOT: u64 = 0x10;
/// `openat2(2)`: nothing may lead out of the descriptor's subtree.
pub const RESOLVE_BENEATH: u64 = 0x08;
/// `openat2(2)`: no symbolic link at all.
pub const RESOLVE_NO_SYMLINKS: u64 = 0x04;
/// `openat2(2)`: no `/proc/<pid>/fd`-like links.
pub const RESOLVE_NO_MAGICLINKS: u64 = 0x02;
/// `openat2(2)`: no crossing of mount points.
pub const RESOLVE_NO_XDEV: u64 = 0x01;

/// The current directory, for the `dir` of the calls below.
pub const CWD: BorrowedFd<'static> = {
    // SAFETY: AT_FDCWD is not a descriptor that could be closed; every call below accepts it, and
    // the only value that `BorrowedFd` forbids is -1.
    unsafe { BorrowedFd::borrow_raw(libc::AT_FDCWD) }
};

/// A NUL-terminated copy of a path.
///
/// # Errors
/// `EINVAL` where the path holds a NUL byte.
pub fn c_path(path: impl AsRef<OsStr>) -> Result<CString> {
    CString::new(path.as_ref().as_bytes()).map_err(|_| Errno::EINVAL)
}

/// `openat2(2)`; before Linux 5.6, and where a filter keeps the caller from it, the same look-up component by component.
/// `O_CLOEXEC` is always added.
///
/// # Errors
/// As `openat2(2)`: `ELOOP` and `EXDEV` for what the resolve flags forbid.
pub fn openat2(dir: BorrowedFd<'_>, path: &CStr, flags: i32, mode: u32, resolve: u64) -> Result<OwnedFd> {
    #[repr(C)]
    struct OpenHow {
        flags: u64,
        mode: u64,
        resolve: u64,
    }
    let how = OpenHow { flags: (flags | libc::O_CLOEXEC) as u32 as u64, mode: mode.into(), resolve };
    loop {
        // SAFETY: a valid descriptor, a NUL-terminated string and an open_how of the size given.
        let fd = check(unsafe {
            libc::syscall(libc::SYS_openat2, dir.as_raw_fd(), path.as_ptr(), &raw const how, size_of::<OpenHow>())
        });
        match fd {
            // A rename or mount elsewhere raced with a scoped look-up; the kernel asks to try again.
            Err(Errno::EAGAIN) if resolve != 0 => continue,
            // Of the call itself, or of the file: then the walk comes to the same end.
            Err(Errno::ENOSYS | Errno::EPERM) => match super::walk::openat2(dir, path, flags, mode, resolve) {
                Err(Errno::EAGAIN) => continue,
                other => return other,
            },
            Err(errno) => return Err(errno),
            // SAFETY: the kernel has just made this descriptor for us.
            Ok(fd) => return Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) }),
        }
    }
}

/// `openat(2)`. `O_CLOEXEC` is always added.
///
/// # Errors
/// As `openat(2)`.
pub fn openat(dir: BorrowedFd<'_>, path: &CStr, flags: i32, mode: u32) -> Result<OwnedFd> {
    // SAFETY: a valid descriptor and a NUL-terminated string that outlive the call.
    let fd = unsafe { libc::openat(dir.as_raw_fd(), path.as_ptr(), flags | libc::O_CLOEXEC, mode) };
    let fd = check(fd.into())?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Opens an ordinary path of the host.
///
/// # Errors
/// As `open(2)`.
pub fn open(path: impl AsRef<Path>, flags: i32) -> Result<OwnedFd> {
    openat(CWD, &c_path(path.as_ref())?, flags, 0)
}

/// `mkdirat(2)`.
///
/// # Errors
/// As `mkdirat(2)`.
pub fn mkdirat(dir: BorrowedFd<'_>, path: &CStr, mode: u32) -> Result<()> {
    // SAFETY: a valid descriptor and a NUL-terminated string that outlive the call.
    check(unsafe { libc::mkdirat(dir.as_raw_fd(), path.as_ptr(), mode) }.into()).map(drop)
}

/// `mknodat(2)`; `mode` holds the type.
///
/// # Errors
/// As `mknodat(2)`.
pub fn mknodat(dir: BorrowedFd<'_>, path: &CStr, mode: u32, device: u64) -> Result<()> {
    // SAFETY: a valid descriptor and a NUL-terminated string that outlive the call.
    check(unsafe { libc::mknodat(dir.as_raw_fd(), path.as_ptr(), mode, device) }.into()).map(drop)
}

/// `symlinkat(2)`: makes `path` below `dir` a link to `target`.
///
/// # Errors
/// As `symlinkat(2)`.
pub fn symlinkat(target: &CStr, dir: BorrowedFd<'_>, path: &CStr) -> Result<()> {
    // SAFETY: a valid descriptor and NUL-terminated strings that outlive the call.
    check(unsafe { libc::symlinkat(target.as_ptr(), dir.as_raw_fd(), path.as_ptr()) }.into()).map(drop)
}

/// `unlinkat(2)`; `flags` is 0 or `AT_REMOVEDIR`.
///
/// # Errors
/// As `unlinkat(2)`.
pub fn unlinkat(dir: BorrowedFd<'_>, path: &CStr, flags: i32) -> Result<()> {
    // SAFETY: a valid descriptor and a NUL-terminated string that outlive the call.
    check(unsafe { libc::unlinkat(dir.as_raw_fd(), path.as_ptr(), flags) }.into()).map(drop)
}

/// `renameat2(2)` with `RENAME_NOREPLACE`: publishes a directory or file that must not exist yet.
///
/// # Errors
/// `EEXIST` where the new name is taken; else as `renameat2(2)`.
pub fn rename_noreplace(dir: BorrowedFd<'_>, old: &CStr, new: &CStr) -> Result<()> {
    // SAFETY: a valid descriptor and NUL-terminated strings that outlive the call.
    let done = unsafe {
        libc::renameat2(dir.as_raw_fd(), old.as_ptr(), dir.as_raw_fd(), new.as_ptr(), libc::RENAME_NOREPLACE)
    };
    check(done.into()).map(drop)
}

/// `renameat(2)` within one directory.
///
/// # Errors
/// As `renameat(2)`.
pub fn rename(dir: BorrowedFd<'_>, old: &CStr, new: &CStr) -> Result<()> {
    // SAFETY: a valid descriptor and NUL-terminated strings that outlive the call.
    let done = unsafe { libc::renameat(dir.as_raw_fd(), old.as_ptr(), dir.as_raw_fd(), new.as_ptr()) };
    check(done.into()).map(drop)
}

/// `fstat(2)`.
///
/// # Errors
/// As `fstat(2)`.
pub fn fstat(fd: BorrowedFd<'_>) -> Result<libc::stat> {
    let mut stat = std::mem::MaybeUninit::uninit();
    // SAFETY: a valid descriptor and room for one `stat`.
    check(unsafe { libc::fstat(fd.as_raw_fd(), stat.as_mut_ptr()) }.into())?;
    // SAFETY: the call succeeded, so the kernel has filled it in.
    Ok(unsafe { stat.assume_init() })
}

/// `fstatat(2)`; `flags` are `AT_*`.
///
/// # Errors
/// As `fstatat(2)`.
pub fn fstatat(dir: BorrowedFd<'_>, name: &CStr, flags: i32) -> Result<libc::stat> {
    let mut stat = std::mem::MaybeUninit::uninit();
    // SAFETY: a valid descriptor, a C string, and room for one `stat`.
    check(unsafe { libc::fstatat(dir.as_raw_fd(), name.as_ptr(), stat.as_mut_ptr(), flags) }.into())?;
    // SAFETY: the call succeeded, so the kernel has filled it in.
    Ok(unsafe { stat.assume_init() })
}

/// `fstatfs(2)`.
///
/// # Errors
/// As `fstatfs(2)`.
pub fn fstatfs(fd: BorrowedFd<'_>) -> Result<libc::statfs> {
    let mut stat = std::mem::MaybeUninit::uninit();
    // SAFETY: a valid descriptor and room for one `statfs`.
    check(unsafe { libc::fstatfs(fd.as_raw_fd(), stat.as_mut_ptr()) }.into())?;
    // SAFETY: the call succeeded, so the kernel has filled it in.
    Ok(unsafe { stat.assume_init() })
}

/// The `ST_*` flags of the mount that `fd` lies on and of its filesystem (`fstatvfs(3)`).
///
/// # Errors
/// As `fstatvfs(3)`.
pub fn mount_flags(fd: BorrowedFd<'_>) -> Result<libc::c_ulong> {
    let mut stat = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: a valid descriptor and room for one `statvfs`.
    check(unsafe { libc::fstatvfs(fd.as_raw_fd(), stat.as_mut_ptr()) }.into())?;
    // SAFETY: the call succeeded, so it has been filled in.
    Ok(unsafe { stat.assume_init() }.f_flag)
}

/// Whether the mount that `fd` lies on, or its filesystem, is read-only.
///
/// # Errors
/// As [`mount_flags`].
pub fn is_read_only(fd: BorrowedFd<'_>) -> Result<bool> {
    Ok(mount_flags(fd)? & libc::ST_RDONLY != 0)
}

/// The id of the mount that `fd` lies on (`statx(2)`, `STATX_MNT_ID`); before Linux 5.8 procfs tells it.
///
/// # Errors
/// As `statx(2)`, and as `open(2)` of `/proc/self/fdinfo`.
pub fn mount_id(fd: BorrowedFd<'_>) -> Result<u64> {
    match statx_mount_id(fd, c"", libc::AT_EMPTY_PATH)? {
        Some(id) => Ok(id),
        None => mount_id_by_procfs(fd),
    }
}

/// The id where the kernel tells it.
fn statx_mount_id(directory: BorrowedFd<'_>, path: &CStr, flags: i32) -> Result<Option<u64>> {
    const STATX_MNT_ID: u32 = 0x1000;
    let mut stat = std::mem::MaybeUninit::<libc::statx>::uninit();
    // SAFETY: a valid descriptor, a NUL-terminated string and room for one `statx`.
    let done = unsafe { libc::statx(directory.as_raw_fd(), path.as_ptr(), flags, STATX_MNT_ID, stat.as_mut_ptr()) };
    match check(done.into()) {
        Ok(_) => {
            // SAFETY: the call succeeded, so the kernel has filled it in.
            let stat = unsafe { stat.assume_init() };
            Ok((stat.stx_mask & STATX_MNT_ID != 0).then_some(stat.stx_mnt_id))
        }
        Err(Errno::ENOSYS | Errno::EPERM) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn mount_id_by_procfs(fd: BorrowedFd<'_>) -> Result<u64> {
    info(fd, "mnt_id:")?.try_into().map_err(|_| Errno::ENOSYS)
}

/// [`mount_id`] of what a path names, links not followed.
///
/// # Errors
/// As `open(2)`, and as [`mount_id`].
pub fn mount_id_of(path: &CStr) -> Result<u64> {
    match statx_mount_id(CWD, path, libc::AT_SYMLINK_NOFOLLOW | libc::AT_NO_AUTOMOUNT)? {
        Some(id) => Ok(id),
        None => mount_id_by_procfs(openat(CWD, path, libc::O_PATH | libc::O_NOFOLLOW, 0)?.as_fd()),
    }
}

/// A number that procfs tells of an open descriptor (`/proc/self/fdinfo`, proc(5)).
pub(super) fn info(fd: BorrowedFd<'_>, field: &str) -> Result<i64> {
    // What a stage has opened is the host's procfs, while `/proc` may be the container's by now.
    let file = match super::stage::with(|stage| stage.info(fd)) {
        Some(file) => file?,
        None => {
            let name = c_path(format!("/proc/self/fdinfo/{}", fd.as_raw_fd()))?;
            openat(CWD, &name, libc::O_RDONLY | libc::O_NOFOLLOW, 0)?
        }
    };
    // Without it nothing can be told; a file that somebody else made would tell anything.
    if fstatfs(file.as_fd())?.f_type != libc::PROC_SUPER_MAGIC {
        return Err(Errno::ENOSYS);
    }
    let text = read_all(file.as_fd(), 1 << 16)?;
    let line = std::str::from_utf8(&text).unwrap_or_default().lines().find_map(|line| line.strip_prefix(field));
    line.and_then(|value| value.trim().parse().ok()).ok_or(Errno::ENOSYS)
}

/// `readlinkat(2)` of `path` below `dir` (`""` for `dir` itself, opened with `O_PATH | O_NOFOLLOW`).
///
/// # Errors
/// As `readlinkat(2)`; `ENAMETOOLONG` where the target is longer than `PATH_MAX`.
pub fn readlinkat(dir: BorrowedFd<'_>, path: &CStr) -> Result<Vec<u8>> {
    let mut target = vec![0u8; libc::PATH_MAX as usize];
    // SAFETY: a valid descriptor, a NUL-terminated string and a buffer of the length given.
    let length =
        check(unsafe { libc::readlinkat(dir.as_raw_fd(), path.as_ptr(), target.as_mut_ptr().cast(), target.len()) }
            as i64)? as usize;
    if length == target.len() {
        return Err(Errno::ENAMETOOLONG);
    }
    target.truncate(length);
    Ok(target)
}

/// Reads what is left of a small file, at most `limit` bytes.
///
/// # Errors
/// As `read(2)`; `EFBIG` where there is more.
pub fn read_all(fd: BorrowedFd<'_>, limit: usize) -> Result<Vec<u8>> {
    let mut content = Vec::with_capacity(4096.min(limit + 1));
    loop {
        if content.len() > limit {
            return Err(Errno::EFBIG);
        }
        if content.capacity() == content.len() {
            content.reserve(content.len().max(4096));
        }
        let room = content.spare_capacity_mut();
        // SAFETY: a valid descriptor and a buffer of the length given.
        let n = unsafe { libc::read(fd.as_raw_fd(), room.as_mut_ptr().cast(), room.len()) };
        match check(n as i64) {
            Err(Errno::EINTR) => continue,
            Err(errno) => return Err(errno),
            Ok(0) => return Ok(content),
            // SAFETY: the kernel has filled in that many bytes of the spare capacity.
            Ok(n) => unsafe { content.set_len(content.len() + n as usize) },
        }
    }
}

/// Whether all of a file is in the page cache (`cachestat(2)`).
///
/// # Errors
/// `ENOSYS` before Linux 6.5, `EOPNOTSUPP` for files of huge pages.
pub fn is_cached(file: BorrowedFd<'_>) -> Result<bool> {
    const PAGE: u64 = 4096;
    /// Its number, the same on every architecture.
    const CACHESTAT: libc::c_long = 451;
    // `struct cachestat_range` of `<linux/mman.h>`: all of the file.
    let range = [0_u64, 0];
    // `struct cachestat`: pages in the cache, dirty, being written, evicted, evicted lately.
    let mut counts = [0_u64; 5];
    // SAFETY: a valid descriptor; the kernel reads one structure and fills the other, both of the sizes that it has.
    let done = unsafe { libc::syscall(CACHESTAT, file.as_raw_fd(), range.as_ptr(), counts.as_mut_ptr(), 0_u32) };
    check(done)?;
    Ok(counts[0] >= (fstat(file)?.st_size as u64).div_ceil(PAGE))
}

/// Reads a small file of the host or below `dir`.
///
/// # Errors
/// As `open(2)` and [`read_all`].
pub fn read_at(dir: BorrowedFd<'_>, path: &CStr, limit: usize) -> Result<Vec<u8>> {
    read_all(openat(dir, path, libc::O_RDONLY, 0)?.as_fd(), limit)
}

/// Writes all of `content` in one `write(2)`, as files of procfs, sysfs and cgroupfs want it.
///
/// # Errors
/// As `write(2)`; `EIO` where the kernel took only a part.
pub fn write_once(fd: BorrowedFd<'_>, content: &[u8]) -> Result<()> {
    loop {
        // SAFETY: a valid descriptor and a buffer of the length given.
        let n = unsafe { libc::write(fd.as_raw_fd(), content.as_ptr().cast(), content.len()) };
        match check(n as i64) {
            Err(Errno::EINTR) => continue,
            Err(errno) => return Err(errno),
            Ok(n) if n as usize == content.len() => return Ok(()),
            Ok(_) => return Err(Errno::EIO),
        }
    }
}
