//! Lists the judge's language bundles, so that the binary carries them; names its first instruction.

use std::fmt::Write;
use std::path::{Path, PathBuf};

fn main() {
    let manifest = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let bundles = manifest.join("bundles");
    println!("cargo::rerun-if-changed={}", bundles.display());
    let target = |what: &str| std::env::var(format!("CARGO_CFG_TARGET_{what}")).unwrap_or_default();
    if target("ARCH") == "x86_64" && target("ENV") == "gnu" {
        println!("cargo::rustc-link-arg-bin=rustbox=-Wl,-e,rustbox_entry");
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

fn entries(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(directory)
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}
