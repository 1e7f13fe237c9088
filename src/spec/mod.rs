//! config.json: loading, validation, defaults and features.

mod default;
pub mod features;
mod idmap_option;
mod load;
pub mod mount_options;
mod normalise;
pub(crate) mod number_list;
mod shape;
mod validate;

pub use default::{default_document, default_spec};
pub use features::features;
pub use load::{
    Bundle, MAX_DOCUMENT, OCI_VERSION_MAX, OCI_VERSION_MIN, load, load_from, load_process, load_resources,
    parse_process, parse_resources, parse_spec,
};
pub(crate) use load::{member, pointer};
pub use validate::{Fact, Host, PERSONALITY_FLAGS, validate, validate_id, validate_process, validate_resources};

use oci_spec::runtime::{Process, Spec};

use crate::error::{Error, Result};

/// The process to run, which the runtime spec requires once `start` is called.
///
/// # Errors
/// [`Error::Config`] when the configuration has none.
pub fn process(spec: &Spec) -> Result<&Process> {
    spec.process().as_ref().ok_or_else(missing_process)
}

/// Why a container without `process` cannot be started.
pub fn missing_process() -> Error {
    Error::config("$.process", "is missing, so there is nothing to start")
}

/// What the first process of a container without `process` is made ready for, which `start` will refuse: root without
/// capabilities.
pub fn no_process() -> Process {
    let mut process = Process::default();
    process.set_args(Some(vec!["none".to_owned()])).set_cwd("/".into()).set_capabilities(None).set_terminal(None);
    process
}
