//! The `rustbox` command: parse, dispatch, exit code.

fn main() -> std::process::ExitCode {
    rustbox::cli::main(std::env::args_os())
}
