//! `process.apparmorProfile` and `process.selinuxLabel`: what the security modules are told about the coming exec.

use std::path::Path;

use crate::error::{Error, Result};
use crate::init::procfs::Procfs;

/// Refuses a profile or label that this host's kernel cannot enforce. An empty one asks for nothing, and
/// `unconfined` is what a kernel without AppArmor gives.
///
/// # Errors
/// [`Error::Refused`] naming the missing security module.
pub fn check(apparmor: Option<&str>, selinux: Option<&str>) -> Result<()> {
    if let Some(profile) = apparmor.filter(|profile| *profile != "unconfined")
        && !std::fs::read("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with(b"Y"))
    {
        return Err(Error::Refused(format!("AppArmor profile `{profile}`: the kernel has no AppArmor enabled")));
    }
    if let Some(label) = selinux
        && !Path::new("/sys/fs/selinux/enforce").exists()
    {
        return Err(Error::Refused(format!("SELinux label `{label}`: the kernel has no SELinux enabled")));
    }
    Ok(())
}

/// Tells the modules under what profile and label the next exec of this thread runs.
///
/// # Errors
/// `EINVAL` or `ENOENT` for a profile that is not loaded, `EACCES` where the policy forbids the change.
pub fn write(procfs: &Procfs, apparmor: Option<&str>, selinux: Option<&str>) -> Result<()> {
    if let Some(profile) = apparmor.filter(|profile| *profile != "unconfined" || has_apparmor(procfs)) {
        let value = format!("exec {profile}");
        // The module's own file (Linux 5.8) works when several modules are stacked, the old one does not.
        match procfs.write("thread-self/attr/apparmor/exec", value.as_bytes()) {
            Err(error) if error.errno() == Some(nix::errno::Errno::ENOENT) => {
                procfs.write("thread-self/attr/exec", value.as_bytes())?;
            }
            written => written?,
        }
    }
    if let Some(label) = selinux {
        procfs.write("thread-self/attr/exec", label.as_bytes())?;
    }
    Ok(())
}

fn has_apparmor(procfs: &Procfs) -> bool {
    procfs.open_file("thread-self/attr/apparmor/exec", libc::O_WRONLY).is_ok()
}
