//! Judging: limits, evidence, verdicts, languages, and the supervisor that ties them to the engine.

pub mod evidence;
pub mod limits;
pub mod verdict;
