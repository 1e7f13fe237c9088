//! The worker: all containers of one state root, and what dead commands have left of others.
//!
//! [`survey`] looks and changes nothing; [`recover`] removes what is provably stale and looks again. A command that lives is
//! recognised by its lock, or by its pid and start time, so both are safe at any time. [`standing`] remembers whether the
//! worker can be trusted; [`metrics`] counts what happens on it.

pub mod health;
pub mod metrics;
pub mod recover;
pub mod standing;
pub mod survey;

pub use recover::{Recovered, recover};
pub use standing::Standing;
pub use survey::{Kind, Leftover, Survey, survey};
