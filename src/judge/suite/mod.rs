//! Many tests of one submission: one compile, a verdict for each test, for each group, and for all.

pub mod cases;
pub mod compare;
pub mod report;
