//! Manual pages and shell completions, generated from the command line's own definition.

use std::path::{Path, PathBuf};

use clap::CommandFactory;
use clap_complete::Shell;

use crate::cli::{Cli, say};
use crate::error::{At, Result};

/// Write the manual pages
#[derive(Debug, clap::Args)]
pub struct ManArgs {
    /// Directory that gets them
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub dir: PathBuf,
}

/// Print a completion script
#[derive(Debug, clap::Args)]
pub struct CompletionArgs {
    /// The shell
    pub shell: Shell,
}

/// Writes one page per command.
///
/// # Errors
/// As `open(2)` and `write(2)`.
pub fn man(args: &ManArgs) -> Result<()> {
    let mut command = Cli::command();
    command.build();
    page(&command, "rustbox", &args.dir)?;
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        let name = format!("rustbox-{}", sub.get_name());
        page(&sub.clone().display_name(&name), &name, &args.dir)?;
    }
    Ok(())
}

fn page(command: &clap::Command, name: &str, dir: &Path) -> Result<()> {
    let path = dir.join(format!("{name}.8"));
    let mut text = Vec::new();
    let man = clap_mangen::Man::new(command.clone()).section("8");
    man.render(&mut text).at("render", path.display())?;
    std::fs::write(&path, text).at("write", path.display())
}

/// Prints the completion script.
///
/// # Errors
/// As `write(2)`.
pub fn completions(args: &CompletionArgs) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "rustbox", &mut script);
    say(&String::from_utf8_lossy(&script))
}
