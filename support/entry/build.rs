//! Finds out whether the C library is one whose start is known (`src/library.rs`).

use std::io::Write;
use std::process::{Command, Stdio};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(known_start)");
    let target = |what: &str| std::env::var(format!("CARGO_CFG_TARGET_{what}")).unwrap_or_default();
    let fixed = target("FEATURE").split(',').any(|feature| feature == "crt-static");
    if fixed && target("ARCH") == "x86_64" && target("ENV") == "gnu" && version().as_deref() == Some("2 36") {
        println!("cargo::rustc-cfg=known_start");
    }
}

/// The C library's version, by its headers, which one package has with the archive.
fn version() -> Option<String> {
    println!("cargo::rerun-if-env-changed=RUSTC_LINKER");
    let compiler = std::env::var_os("RUSTC_LINKER").unwrap_or_else(|| "cc".into());
    let mut child = Command::new(compiler)
        .args(["-E", "-P", "-x", "c", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    child.stdin.take()?.write_all(b"#include <features.h>\n__GLIBC__ __GLIBC_MINOR__\n").ok()?;
    let output = child.wait_with_output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.lines().last()?.trim().to_owned())
}
