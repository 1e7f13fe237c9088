//! The `rustbox` command: parse, dispatch, exit code.
#![cfg_attr(all(target_arch = "x86_64", target_env = "gnu"), no_main)]

#[cfg(all(target_arch = "x86_64", target_env = "gnu"))]
rustbox_entry::main!(rustbox::cli::main);

#[cfg(not(all(target_arch = "x86_64", target_env = "gnu")))]
fn main() -> std::process::ExitCode {
    rustbox::cli::main().into()
}
