//! Judging: limits, evidence, verdicts, languages, and the supervisor that ties them to the engine.

pub mod batch;
pub mod cache;
pub mod calibrate;
pub mod capability;
pub mod capture;
pub mod cause;
pub mod evidence;
pub mod isolate;
pub mod jury;
pub mod language;
pub mod lease;
pub mod limits;
pub mod meter;
pub mod monitor;
pub mod noise;
pub mod output;
pub mod replay;
pub mod run;
pub mod sandbox;
pub mod stage;
pub mod suite;
pub mod supervisor;
pub mod toolchain;
pub mod verdict;
