//! Verdicts that outlive their containers: one file each, the newest thousand.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::error::{At, Error, Result};
use crate::replace::replace;

/// The directory below that of the worker's state.
pub const PLACE: &str = "verdicts";
/// How many are kept.
const KEPT: usize = 1000;
/// So many go at once, the oldest, so that not every verdict has to look for one.
const BATCH: usize = 100;

/// A name that any id fits into, for engines' state roots have containers of the same id.
fn file(log: &Path, root: &Path, id: &str) -> PathBuf {
    let mut hash = Sha256::new();
    hash.update(root.as_os_str().as_encoded_bytes());
    hash.update(b"\0");
    hash.update(id);
    let name: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    log.join(name + ".json")
}

/// Keeps a container's verdict, in place of an earlier one.
///
/// # Errors
/// As the calls, naming the file.
pub fn keep(log: &Path, root: &Path, id: &str, verdict: &Value) -> Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(log).at("make", log.display())?;
    let place = file(log, root, id);
    let text = serde_json::to_vec(verdict).map_err(|error| Error::Other(format!("serialise a verdict: {error}")))?;
    replace(&place, 0o600, &text)?;
    forget_the_oldest(log)
}

/// A container's verdict, where one is kept.
///
/// # Errors
/// Where it cannot be read.
pub fn find(log: &Path, root: &Path, id: &str) -> Result<Option<Value>> {
    let place = file(log, root, id);
    let text = match std::fs::read(&place) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        text => text.at("read", place.display())?,
    };
    let broken = |error| Error::Other(format!("the verdict in `{}` cannot be read: {error}", place.display()));
    serde_json::from_slice(&text).map(Some).map_err(broken)
}

fn forget_the_oldest(log: &Path) -> Result<()> {
    let names: Vec<PathBuf> =
        std::fs::read_dir(log).at("read", log.display())?.flatten().map(|entry| entry.path()).collect();
    if names.len() <= KEPT + BATCH {
        return Ok(());
    }
    // One that is gone meanwhile was forgotten by somebody else.
    let aged = names.into_iter().filter_map(|place| Some((place.symlink_metadata().ok()?.modified().ok()?, place)));
    let mut aged: Vec<_> = aged.collect();
    aged.sort();
    for (_, place) in aged.iter().take(aged.len().saturating_sub(KEPT)) {
        let _ = std::fs::remove_file(place);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_thousand_are_kept() {
        let log = tempfile::tempdir().unwrap();
        let root = Path::new("/run/rustbox");
        for number in 0..KEPT + BATCH + 1 {
            keep(log.path(), root, &number.to_string(), &Value::from(number)).unwrap();
        }
        assert_eq!(std::fs::read_dir(log.path()).unwrap().count(), KEPT);
        let newest = (KEPT + BATCH).to_string();
        assert_eq!(find(log.path(), root, &newest).unwrap(), Some(Value::from(KEPT + BATCH)));
        assert_eq!(find(log.path(), Path::new("/run/other"), &newest).unwrap(), None);
    }
}
