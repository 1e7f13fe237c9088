//! config.json: loading, validation, defaults and features.

mod default;
pub mod features;
mod load;
pub mod mount_options;
mod normalise;
mod shape;

pub use default::{default_document, default_spec};
pub use features::features;
pub use load::{
    Bundle, MAX_DOCUMENT, OCI_VERSION_MAX, OCI_VERSION_MIN, load, load_process, load_resources, parse_process,
    parse_resources, parse_spec,
};
