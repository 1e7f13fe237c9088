//! `rustbox spec`.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

use oci_spec::runtime::{LinuxNamespaceType, Spec};

use crate::cgroup::Layout;
use crate::cli::Global;
use crate::error::{At, Error, Result};
use crate::spec::default_spec;

/// Write a config.json to start from
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Directory that gets the config.json
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    pub bundle: PathBuf,
    /// Name of the file, or a path of its own
    #[arg(short, long, value_name = "FILE", default_value = "config.json")]
    pub file: PathBuf,
}

/// Runs `spec`.
///
/// # Errors
/// Where there is a config.json already.
pub fn main(global: &Global, args: &Args) -> Result<()> {
    let path = args.bundle.join(&args.file);
    let mut spec = default_spec(global.asks_rootless());
    if !Layout::probe()?.is_unified() {
        without_cgroup_namespace(&mut spec);
    }
    let mut text = serde_json::to_string_pretty(&spec).map_err(|error| Error::Other(format!("print JSON: {error}")))?;
    text.push('\n');
    let mut file = File::options().write(true).create_new(true).open(&path).at("create", path.display())?;
    file.write_all(text.as_bytes()).at("write", path.display())
}

/// On cgroup v1, runc and the engines show a container its place among the host's cgroups; tools in it may look for it.
fn without_cgroup_namespace(spec: &mut Spec) {
    let Some(linux) = spec.linux_mut() else { return };
    let mut namespaces = linux.namespaces().clone().unwrap_or_default();
    namespaces.retain(|namespace| namespace.typ() != LinuxNamespaceType::Cgroup);
    linux.set_namespaces(Some(namespaces));
}
