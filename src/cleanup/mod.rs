//! Release, and the proof that nothing remains.
