//! `regex-lite` under the name of `regex`.
//!
//! oci-spec checks one field of `config.json` by a regular expression. With `regex` that brings Unicode tables whose
//! relocations every start of every command pays for; nothing here needs Unicode classes.

pub use regex_lite::*;
