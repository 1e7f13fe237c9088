//! Limits, supervisor, evidence, verdicts and languages.
