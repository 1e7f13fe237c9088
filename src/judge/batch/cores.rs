//! Whole cores for the slots of a batch, by cpuset: what runs in a slot cannot leave its cores.
//!
//! A core is leased by the link `<root>/.cpus/<number>`, whose text names the batch's process and its start time, so that two
//! batches never have the same one; the lease of a dead batch is taken over. Without `exclusive`, slots that
//! find no free core share, as well as they can, with their own batch's others, or go where there is room.

use std::collections::BTreeSet;
use std::path::Path;

use crate::error::{At, Error, Result};
use crate::judge::lease::{self, Claim};

/// The directory of the leases, below the state root.
pub const PLACE: &str = ".cpus";

/// The cores of a batch, given back when this is dropped.
#[derive(Debug)]
pub struct Cores {
    claims: Vec<Claim>,
    slots: Vec<String>,
}

impl Cores {
    /// Leases `each` cores for every one of `slots`.
    ///
    /// # Errors
    /// [`Error::Refused`] where there are too few and each slot must have its own, or none at all.
    pub fn lease(root: &Path, each: usize, slots: usize, exclusive: bool) -> Result<Cores> {
        let allowed = allowed()?;
        let mut claims = Vec::new();
        let mut own = BTreeSet::new();
        for core in &allowed {
            if own.len() == each * slots {
                break;
            }
            if let Some(claim) = lease::claim(root, PLACE, *core)? {
                claims.push(claim);
                own.insert(*core);
            }
        }
        if exclusive && own.len() < each * slots {
            // What was claimed is given back with `claims`.
            return Err(Error::Refused(format!(
                "{slots} slots of {each} cores need {}, of {} here {} are free; see -j and --cpus",
                each * slots,
                allowed.len(),
                own.len()
            )));
        }
        // Nobody's own: everybody's.
        let cores: Vec<usize> = if own.is_empty() { allowed } else { own.into_iter().collect() };
        if cores.len() < each {
            return Err(Error::Refused(format!("a slot of {each} cores is more than the {} here", cores.len())));
        }
        let slots = (0..slots).map(|slot| list((0..each).map(|at| cores[(slot * each + at) % cores.len()])));
        Ok(Cores { claims, slots: slots.collect() })
    }

    /// The cores of a slot, as a cpuset writes them.
    pub fn of(&self, slot: usize) -> &str {
        self.slots.get(slot).map_or("", String::as_str)
    }

    /// How many are leased.
    pub fn len(&self) -> usize {
        self.claims.len()
    }

    /// Whether all are shared.
    pub fn is_empty(&self) -> bool {
        self.claims.is_empty()
    }
}

/// The cores that this process may use.
fn allowed() -> Result<Vec<usize>> {
    let set = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(0)).at("read", "the cores of this process")?;
    Ok((0..nix::sched::CpuSet::count()).filter(|core| set.is_set(*core).unwrap_or(false)).collect())
}

fn list(cores: impl Iterator<Item = usize>) -> String {
    let cores: BTreeSet<usize> = cores.collect();
    cores.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exclusive_cores_are_never_given_twice_and_shared_ones_are() {
        let root = tempfile::tempdir().unwrap();
        let all = allowed().unwrap().len();
        let first = Cores::lease(root.path(), 1, all, true).unwrap();
        assert_eq!(first.len(), all);
        let distinct: BTreeSet<&str> = (0..all).map(|slot| first.of(slot)).collect();
        assert_eq!(distinct.len(), all);
        assert!(matches!(Cores::lease(root.path(), 1, 1, true), Err(Error::Refused(_))));
        let shared = Cores::lease(root.path(), 1, all + 1, false).unwrap();
        assert!(shared.is_empty() && (0..=all).all(|slot| !shared.of(slot).is_empty()));
        drop(first);
        assert!(matches!(Cores::lease(root.path(), 1, all + 1, true), Err(Error::Refused(_))));
        let again = Cores::lease(root.path(), all, 1, true).unwrap();
        assert_eq!(again.len(), all, "a refused lease keeps nothing");
    }
}
