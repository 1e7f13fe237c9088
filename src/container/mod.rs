//! The OCI life of a container.
