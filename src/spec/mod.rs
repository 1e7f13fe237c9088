//! config.json: loading, validation, defaults and features.

pub mod mount_options;
