//! The `rustbox` command: parse, dispatch, exit code.

fn main() {}
