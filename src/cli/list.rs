//! `rustbox list`.

use crate::cli::{Global, say};
use crate::container::list::list;
use crate::error::{Error, Result};

/// How `list` and `ps` print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Columns for a person
    Table,
    /// JSON
    Json,
}

/// List the containers
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How to print them
    #[arg(short, long, default_value = "table")]
    pub format: Format,
    /// Print only their names
    #[arg(short, long)]
    pub quiet: bool,
}

/// Runs `list`.
///
/// # Errors
/// Where the state root cannot be read.
pub fn main(global: &Global, args: &Args) -> Result<()> {
    let (reports, unreadable) = list(&global.open_root()?)?;
    for error in unreadable {
        global.log().warn(&error.to_string());
    }
    if args.quiet {
        return reports.iter().try_for_each(|report| say(&report.id));
    }
    if args.format == Format::Json {
        let text = serde_json::to_string(&reports).map_err(|error| Error::Other(format!("print JSON: {error}")))?;
        return say(&text);
    }
    let mut rows = vec![["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned)];
    rows.extend(reports.iter().map(|report| {
        [
            report.id.clone(),
            report.pid.to_string(),
            report.status.to_string(),
            report.bundle.display().to_string(),
            report.created.clone(),
            report.owner.clone(),
        ]
    }));
    say(&table(&rows))
}

/// Rows as columns of even width.
pub fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let width = rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
            line.push_str(&format!("{cell:width$}   "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}
