//! Lists the judge's language bundles, so that the binary carries them; names its first instruction, and the functions
//! that are to lie beside each other.

use std::fmt::Write;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

fn main() {
    let manifest = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let bundles = manifest.join("bundles");
    println!("cargo::rerun-if-changed={}", bundles.display());
    let target = |what: &str| std::env::var(format!("CARGO_CFG_TARGET_{what}")).unwrap_or_default();
    if target("ARCH") == "x86_64" && target("ENV") == "gnu" {
        println!("cargo::rustc-link-arg-bin=rustbox=-Wl,-e,rustbox_entry");
    }
    if std::env::var("PROFILE").as_deref() == Ok("release") {
        place_functions(&manifest.join("support/order/functions.txt"));
        strip();
    }
    let mut files = vec!["base.json".to_owned(), "base.toml".to_owned()];
    for language in entries(&bundles) {
        if bundles.join(&language).join("language.toml").exists() {
            let inside = entries(&bundles.join(&language));
            files.extend(inside.into_iter().map(|file| format!("{language}/{file}")));
        }
    }
    let mut listing = String::from("&[\n");
    for file in files {
        let path = bundles.join(&file);
        writeln!(listing, "    ({file:?}, include_str!({:?})),", path.to_str().expect("a UTF-8 path")).expect("memory");
    }
    listing.push_str("]\n");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets it"));
    std::fs::write(out.join("bundles.rs"), listing).expect("OUT_DIR is writable");
}

/// Has the linker place the functions that most commands execute beside each other (docs/decisions/0015), where it can:
/// LLVM's, which is rustc's own. Names of another compiler's are not found, which costs time and memory, nothing else.
fn place_functions(order: &Path) {
    println!("cargo::rerun-if-changed={}", order.display());
    let flags = [format!("-Wl,--symbol-ordering-file={}", order.display()), "-Wl,--no-warn-symbol-ordering".to_owned()];
    if links(&flags) {
        for flag in flags {
            println!("cargo::rustc-link-arg-bin=rustbox={flag}");
        }
    }
}

/// Leaves the symbols out, unless `make order` asks for them.
fn strip() {
    println!("cargo::rerun-if-env-changed=RUSTBOX_SYMBOLS");
    if std::env::var_os("RUSTBOX_SYMBOLS").is_none() {
        println!("cargo::rustc-link-arg-bin=rustbox=-Wl,--strip-all");
    }
}

/// Whether a program can be linked with these flags.
fn links(flags: &[String]) -> bool {
    let variable = |name: &str| std::env::var_os(name).expect("cargo sets it");
    let encoded = std::env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    let mut compiler = Command::new(variable("RUSTC"));
    compiler.args(["-", "--crate-name=probe", "--crate-type=bin", "--target"]).arg(variable("TARGET"));
    compiler.arg("-o").arg(PathBuf::from(variable("OUT_DIR")).join("probe"));
    compiler.args(encoded.split('\u{1f}').filter(|flag| !flag.is_empty()));
    if let Some(linker) = std::env::var_os("RUSTC_LINKER") {
        let mut argument = std::ffi::OsString::from("-Clinker=");
        argument.push(linker);
        compiler.arg(argument);
    }
    compiler.args(flags.iter().map(|flag| format!("-Clink-arg={flag}")));
    let child = compiler.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let Ok(mut child) = child else { return false };
    let written = child.stdin.take().is_some_and(|mut source| source.write_all(b"fn main() {}").is_ok());
    written & child.wait().is_ok_and(|status| status.success())
}

fn entries(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(directory)
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}
