//! One file per command: arguments in, library calls, output out.
