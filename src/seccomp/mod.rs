//! Seccomp filters: engines' profiles and the judge's own.
//!
//! | file | what |
//! |---|---|
//! | [`profile`] | `linux.seccomp` of config.json compiled by libseccomp |
//! | `enosys` | the prologue that answers ENOSYS to calls newer than a profile |
//! | [`notify`] | SCMP_ACT_NOTIFY: the listener goes to the agent |
//! | [`cache`] | compiled profiles on disk, by content |
//! | [`judge`], `tables` | the filters of a judged payload, and the record of a forbidden call |
//! | `judge_program` | the judge's filter as it is attached, generated |
//! | [`bpf`] | the few instructions of classic BPF and a decision tree of them |
//! | [`shorten`] | fewer instructions that say the same |

pub mod bpf;
pub mod cache;
pub mod enosys;
pub mod judge;
#[cfg(target_arch = "x86_64")]
mod judge_program;
pub mod notify;
pub mod profile;
#[cfg(test)]
mod properties;
pub mod shorten;
mod tables;

use std::os::fd::OwnedFd;
use std::path::PathBuf;

pub use cache::cached;
pub use profile::compile;

use crate::error::{At, Result};
use crate::sys::seccomp::{self as sys, Instruction};

/// A filter ready to be attached.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    /// The program.
    pub program: Vec<Instruction>,
    /// `SECCOMP_FILTER_FLAG_*` of seccomp(2), without NEW_LISTENER.
    pub flags: u32,
    /// Whether the program answers USER_NOTIF anywhere, so that [`Filter::load`] makes a listener.
    pub notify: bool,
    /// `linux.seccomp.listenerPath`.
    pub listener_path: Option<PathBuf>,
    /// `linux.seccomp.listenerMetadata`.
    pub listener_metadata: Option<String>,
    /// Names in the profile that no architecture of libseccomp's knows; they were skipped. Empty when the filter came
    /// from the cache.
    pub unknown: Vec<String>,
}

impl Filter {
    /// Whether the program lets a call of this architecture happen.
    pub fn allows(&self, call: libc::c_long, args: [u64; 6]) -> bool {
        matches!(self.answer(call, args), Some(sys::action::ALLOW | sys::action::LOG))
    }

    /// Whether the program answers such a call as if this kernel did not have it or did not allow it.
    pub fn denies(&self, call: libc::c_long, args: [u64; 6]) -> bool {
        let refusals = [libc::ENOSYS, libc::EPERM].map(|errno| Some(sys::action::ERRNO | errno as u32));
        refusals.contains(&self.answer(call, args))
    }

    fn answer(&self, call: libc::c_long, args: [u64; 6]) -> Option<u32> {
        let data = sys::Data { nr: call as i32, arch: profile::token(profile::native()), instruction_pointer: 0, args };
        bpf::run(&self.program, &data)
    }

    /// Attaches the filter to the calling thread. With [`Filter::notify`] returns the listener (close-on-exec).
    ///
    /// Needs `no_new_privs`, or CAP_SYS_ADMIN in the caller's user namespace: so call it after `no_new_privs` is set
    /// where the bundle asks for that, and before capabilities are dropped where it does not.
    pub fn load(&self) -> Result<Option<OwnedFd>> {
        let mut flags = self.flags;
        if self.notify {
            flags |= sys::FLAG_NEW_LISTENER;
            if flags & sys::FLAG_TSYNC != 0 {
                flags |= sys::FLAG_TSYNC_ESRCH;
            }
        }
        sys::set_mode_filter(&self.program, flags)
            .at("load seccomp filter of", format_args!("{} instructions, flags {flags:#x}", self.program.len()))
    }
}
