//! `linux.timeOffsets`: the clocks of a new time namespace.

use oci_spec::runtime::Linux;

use super::procfs::Procfs;
use crate::error::{Error, Result};

/// The text for `/proc/<pid>/timens_offsets` (time_namespaces(7)), or nothing where no offset is asked for.
///
/// # Errors
/// A clock that has no offset, or nanoseconds of a second or more.
pub fn text(linux: &Linux) -> Result<Option<String>> {
    let Some(offsets) = linux.time_offsets().as_ref().filter(|offsets| !offsets.is_empty()) else { return Ok(None) };
    let mut lines: Vec<String> = Vec::with_capacity(offsets.len());
    for (clock, offset) in offsets {
        let pointer = || format!("$.linux.timeOffsets.{clock}");
        if clock != "monotonic" && clock != "boottime" {
            return Err(Error::config(pointer(), "is not `monotonic` or `boottime`"));
        }
        let nanoseconds = offset.nanosecs().unwrap_or(0);
        if nanoseconds >= 1_000_000_000 {
            return Err(Error::config(pointer() + ".nanosecs", "is a second or more"));
        }
        lines.push(format!("{clock} {} {nanoseconds}\n", offset.secs().unwrap_or(0)));
    }
    lines.sort_unstable();
    Ok(Some(lines.concat()))
}

/// Writes the offsets of the time namespace that the next children of a process, or of the caller, will be born in. To be
/// done after its `unshare(CLONE_NEWTIME)` and before the first process enters it.
///
/// # Errors
/// `EACCES` once a process is in it, `ERANGE` for a clock that would be negative.
pub fn write(procfs: &Procfs, pid: Option<i32>, text: &str) -> Result<()> {
    let process = pid.map_or_else(|| "self".to_owned(), |pid| pid.to_string());
    procfs.write(&format!("{process}/timens_offsets"), text.as_bytes())
}
