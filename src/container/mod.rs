//! The OCI life of a container.
pub mod hooks;
