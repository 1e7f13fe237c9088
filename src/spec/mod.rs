//! config.json: loading, validation, defaults and features.
