//! `list`: every container of a state root.

use std::os::fd::AsFd;

use crate::container::report::Report;
use crate::container::root::Root;
use crate::error::{Error, Result};

/// The reports of all containers, sorted by id, and what could not be read.
///
/// # Errors
/// Where the state root cannot be read.
pub fn list(root: &Root) -> Result<(Vec<Report>, Vec<Error>)> {
    let mut reports = Vec::new();
    let mut unreadable = Vec::new();
    for id in root.ids()? {
        match root.look(&id).and_then(|(dir, record)| Report::of(dir.as_fd(), &record)) {
            Ok(report) => reports.push(report),
            // Deleted between the two looks.
            Err(Error::State { reason, .. }) if reason == "does not exist" => {}
            Err(error) => unreadable.push(error),
        }
    }
    Ok((reports, unreadable))
}
