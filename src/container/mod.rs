//! The OCI life of a container.
pub mod console;
pub mod hooks;
