//! `rustbox ps`.

use crate::cli::list::Format;
use crate::cli::{Global, say};
use crate::error::{At, Error, Result};

/// List the processes of a container
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How to print them: a table of ps(1), or an array of pids
    #[arg(short, long, default_value = "table")]
    pub format: Format,
    /// Name of the container
    #[arg(value_name = "ID")]
    pub id: String,
    /// Options of ps(1)
    #[arg(value_name = "PS_OPTION", allow_hyphen_values = true, trailing_var_arg = true)]
    pub options: Vec<String>,
}

/// Runs `ps`.
///
/// # Errors
/// Where there is no such container, or ps(1) fails.
pub fn main(global: &Global, args: &Args) -> Result<()> {
    let (_, record) = global.open_root()?.look(&args.id)?;
    let pids = record.cgroup.open().procs()?;
    if args.format == Format::Json {
        let text = serde_json::to_string(&pids).map_err(|error| Error::Other(format!("print JSON: {error}")))?;
        return say(&text);
    }
    let options = if args.options.is_empty() { vec!["-ef".to_owned()] } else { args.options.clone() };
    let output = std::process::Command::new("ps").args(&options).output().at("execute", "ps")?;
    if !output.status.success() {
        return Err(Error::Other(format!("ps: {}", String::from_utf8_lossy(&output.stderr).trim_end())));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let mut lines = text.lines();
    let header = lines.next().unwrap_or_default();
    let column = header
        .split_whitespace()
        .position(|title| title == "PID")
        .ok_or_else(|| Error::Usage("the options of ps must print a PID column".to_owned()))?;
    say(header)?;
    for line in lines {
        let pid = line.split_whitespace().nth(column).and_then(|pid| pid.parse::<libc::pid_t>().ok());
        if pid.is_some_and(|pid| pids.contains(&pid)) {
            say(line)?;
        }
    }
    Ok(())
}
