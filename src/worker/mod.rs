//! The worker: all containers of one state root, and what dead commands have left of others.
//!
//! [`survey`] looks and changes nothing; [`recover`] removes what is provably stale and looks again. A command that lives is
//! recognised by its lock, or by its pid and start time, so both are safe at any time. [`standing`] remembers whether the
//! worker can be trusted; [`backends`], [`headroom`] and [`canary`] tell whether the host can be;
//! [`metrics`] counts what happens.

pub mod backends;
pub mod canary;
pub mod check;
pub mod headroom;
pub mod health;
pub mod history;
pub mod leftover;
pub mod metrics;
pub mod recover;
pub mod standing;
pub mod status;
pub mod store;
pub mod survey;

pub use recover::{Recovered, recover};
pub use standing::Standing;
pub use survey::{Kind, Leftover, Survey, survey};

/// The time, RFC 3339.
pub(crate) fn now() -> crate::Result<String> {
    use time::format_description::well_known::Rfc3339;
    let now = time::OffsetDateTime::now_utc().format(&Rfc3339);
    now.map_err(|error| crate::Error::Other(format!("format the time: {error}")))
}
