//! The system calls. The only module with `unsafe`; every function here is safe to call.
//!
//! What nix offers is used as nix offers it; here is what it lacks, in the shape the engine wants:
//! descriptors that close themselves, paths relative to descriptors, errors as bare [`Errno`].
#![allow(unsafe_code)]

pub mod attributes;
pub mod bpf;
pub mod calls;
pub mod capability;
pub mod clone;
pub mod descriptors;
pub mod directory;
pub mod entry;
pub mod epoll;
pub mod lock;
pub mod mailbox;
pub mod mount;
pub mod mount_at;
pub mod mountinfo;
pub mod namespace;
pub mod path;
pub mod pidfd;
pub mod proc_handle;
pub mod process;
pub mod processors;
pub mod seccomp;
pub mod socket;
pub mod stage;
pub mod tty;
pub mod wait;
mod walk;
pub mod words;
pub mod xattr;

pub use nix::errno::Errno;

/// The result of a system call.
pub type Result<T, E = Errno> = std::result::Result<T, E>;

/// Turns the C convention (-1 and errno) into a result.
pub(crate) fn check(value: libc::c_long) -> Result<libc::c_long> {
    if value == -1 { Err(Errno::last()) } else { Ok(value) }
}
