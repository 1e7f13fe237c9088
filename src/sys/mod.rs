//! The system calls. The only module with `unsafe`; every function here is safe to call.
#![allow(unsafe_code)]

pub use nix::errno::Errno;

/// The result of a system call.
pub type Result<T> = std::result::Result<T, Errno>;
