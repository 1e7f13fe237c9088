//! Seccomp filters: engines' profiles and the judge's own.
