//! rustbox: an OCI low-level container runtime that can judge what it runs.
//!
//! There is one engine. Every sandbox, judged or not, is an OCI bundle that goes through the same
//! create → start → wait → delete path; a judged run adds a supervisor and a verdict to it.
//!
//! | module | room of |
//! |---|---|
//! | [`spec`] | loading and validating `config.json`, defaults, features |
//! | [`container`] | the OCI life: state on disk, create, start, exec, kill, delete, list |
//! | [`init`] | what runs inside the clone, in order |
//! | [`cgroup`] | cgroup v1, v2, hybrid, systemd |
//! | [`seccomp`] | filters for engines' profiles and for the judge |
//! | [`cleanup`] | release and the proof that nothing remains |
//! | [`judge`] | limits, supervisor, evidence, verdicts, languages |
//! | [`replace`] | files that appear whole or not at all |
//! | [`subtree`] | walking and removing trees that others have made |
//! | [`worker`] | health, what dead commands have left, recovery, metrics |
//! | [`cli`] | one file per command |
//! | [`sys`] | the system calls: the only module with `unsafe` |
//!
//! Before all of it runs `support/entry`, which must come before the C library and so is a crate of its own.

pub mod cgroup;
pub mod cleanup;
pub mod cli;
pub mod container;
pub mod error;
pub mod init;
pub mod judge;
pub mod replace;
pub mod seccomp;
pub mod spec;
pub mod subtree;
pub mod sys;
pub mod worker;

pub use error::{At, Context, Error, Result};
