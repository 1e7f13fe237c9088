//! Finding the program and becoming it.

use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::{ProcessPlan, SeccompLoader, environment};
use crate::error::{At, Error, Result};
use crate::sys::process::{self, StringVector};
use crate::sys::{Errno, attributes};

/// Where execvp(3) looks when there is no PATH.
const DEFAULT_PATH: &[u8] = b"/bin:/usr/bin";

impl ProcessPlan {
    /// Finds `args[0]`: by itself if it has a slash, else in the PATH of the process's own environment. To be called
    /// after [`ProcessPlan::apply`], because the process's user must be able to execute it. Nothing ever runs through
    /// a shell, as execvp(3) would do with a file of no known format.
    ///
    /// # Errors
    /// ``exec: `x`: executable file not found in $PATH``, or the errno for a path with a slash (also `EACCES`
    /// for a file of the PATH that may not be executed, if nothing else is found, and for a directory).
    pub fn resolve(&mut self) -> Result<()> {
        let name = self.argv[0].to_bytes();
        if name.contains(&b'/') {
            let program = self.argv[0].clone();
            executable(&program).map_err(|errno| failed(&program, errno))?;
            self.program = Some(program);
            return Ok(());
        }
        let mut refusal = None;
        for directory in environment::get(&self.envp, "PATH").unwrap_or(DEFAULT_PATH).split(|byte| *byte == b':') {
            // As in execvp(3), an empty element is the working directory.
            let directory = if directory.is_empty() { &b"."[..] } else { directory };
            let candidate = Path::new(OsStr::from_bytes(directory)).join(OsStr::from_bytes(name));
            let Ok(candidate) = CString::new(candidate.as_os_str().as_bytes()) else { continue };
            match executable(&candidate) {
                Ok(()) => {
                    self.program = Some(candidate);
                    return Ok(());
                }
                Err(Errno::EACCES) if refusal.is_none() && is_file(&candidate) => refusal = Some(candidate),
                Err(_) => {}
            }
        }
        Err(match refusal {
            Some(candidate) => failed(&candidate, Errno::EACCES),
            None => Error::Other(format!(
                "exec: `{}`: executable file not found in $PATH: No such file or directory",
                self.argv[0].to_string_lossy()
            )),
        })
    }

    /// Gives every signal its default action, once.
    ///
    /// # Errors
    /// As [`attributes::default_signals`].
    pub fn default_signals(&mut self) -> Result<()> {
        if !self.signals_default {
            attributes::default_signals().at("reset", "signals")?;
            self.signals_default = true;
        }
        Ok(())
    }

    /// Becomes the program; returns only if that fails. `seccomp` loads the filter, if there is one and it has not been
    /// loaded by [`ProcessPlan::apply`].
    pub fn exec(&mut self, seccomp: Option<SeccompLoader<'_>>) -> Error {
        if self.program.is_none()
            && let Err(error) = self.resolve()
        {
            return error;
        }
        let program = self.program.clone().unwrap_or_default();
        // All memory is made ready first: the filter may allow no more than execve.
        let argv = StringVector::new(std::mem::take(&mut self.argv));
        let envp = StringVector::new(std::mem::take(&mut self.envp));
        if let Err(error) = self.default_signals().and_then(|()| attributes::unblock_signals().at("unblock", "signals"))
        {
            return error;
        }
        if let Some(load) = seccomp.filter(|_| !self.seccomp_early())
            && let Err(error) = load()
        {
            return error;
        }
        failed(&program, process::execve(&program, &argv, &envp))
    }
}

/// In small letters, as Go writes an errno: by `permission denied` and `no such file or directory` Docker's client knows
/// that it has to end with 126 and 127.
fn failed(program: &CString, errno: Errno) -> Error {
    let text = format!("exec `{}`: {}", program.to_string_lossy(), errno.desc().to_lowercase());
    Error::Init { errno: errno as i32, text }
}

/// Whether `execve` can begin with it: it is there, not a directory, and the effective user may execute it.
fn executable(program: &CString) -> std::result::Result<(), Errno> {
    attributes::may_access(program, libc::X_OK)?;
    if is_file(program) { Ok(()) } else { Err(Errno::EACCES) }
}

fn is_file(program: &CString) -> bool {
    attributes::mode_of(program).is_ok_and(|mode| mode & libc::S_IFMT == libc::S_IFREG)
}
