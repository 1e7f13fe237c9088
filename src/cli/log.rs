//! The log: lines in runc's two shapes, to a file, and errors to stderr as well. Without a file warnings go to stderr in plain
//! words, and what `--debug` asks for in one of the shapes.
//!
//! The subscriber is set up when the first line is logged, so a command that says nothing pays nothing.

use std::fmt;
use std::fs::File;
use std::path::Path;
use std::sync::{Mutex, Once};

use time::format_description::well_known::Rfc3339;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::cli::global::LogFormat;

/// Where a command says what went wrong.
#[derive(Debug, Clone, Copy)]
pub struct Log<'a> {
    /// Gets a line of everything.
    pub file: Option<&'a Path>,
    /// How lines are written.
    pub format: LogFormat,
    /// Also what is only interesting when something is being looked for.
    pub debug: bool,
}

impl Log<'_> {
    /// A failure of the command: to the file, and to stderr in plain words.
    pub fn error(&self, text: &str) {
        complain(text);
        if self.file.is_some() {
            self.set_up();
            tracing::error!("{text}");
        }
    }

    /// Something that went wrong without failing the command: to the file, and without one to stderr, which may be the
    /// container's as well: an engine would take it for what the program says.
    pub fn warn(&self, text: &str) {
        if self.file.is_some() {
            self.set_up();
            tracing::warn!("{text}");
        } else {
            complain(&format!("warning: {text}"));
        }
    }

    /// Something that only matters when something is being looked for.
    pub fn debug(&self, text: impl FnOnce() -> String) {
        if self.debug {
            self.set_up();
            tracing::debug!("{}", text());
        }
    }

    /// Whether the log can be written to: a command whose log is lost does not begin.
    ///
    /// # Errors
    /// As `open(2)`, with the path.
    pub fn open(&self) -> crate::Result<()> {
        use crate::error::At;
        match self.file {
            Some(path) => {
                File::options().append(true).create(true).open(path).at("open the log", path.display()).map(drop)
            }
            None => Ok(()),
        }
    }

    /// Sets up the subscriber once.
    fn set_up(&self) {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            let sink: Box<dyn std::io::Write + Send> = match self.file {
                None => Box::new(std::io::stderr()),
                Some(path) => match File::options().append(true).create(true).open(path) {
                    Ok(file) => Box::new(file),
                    Err(error) => {
                        complain(&format!("warning: open the log `{}`: {error}", path.display()));
                        return;
                    }
                },
            };
            let level = if self.debug { Level::DEBUG } else { Level::INFO };
            let subscriber = tracing_subscriber::fmt()
                .with_max_level(level)
                .event_format(Shape(self.format))
                .with_writer(Mutex::new(sink))
                .finish();
            // Only a second call could fail, and there is none.
            let _ = tracing::subscriber::set_global_default(subscriber);
        });
    }
}

/// A line on stderr, in one write. Where it cannot be written nobody reads it, and that is no reason to end in the middle of
/// something, as `eprintln!` does.
pub fn complain(text: &str) {
    use std::io::Write;
    let _ = std::io::stderr().write_all(format!("rustbox: {text}\n").as_bytes());
}

/// runc's two shapes of a line.
struct Shape(LogFormat);

impl<S, N> FormatEvent<S, N> for Shape
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut text = Text(String::new());
        event.record(&mut text);
        let level = match *event.metadata().level() {
            Level::ERROR => "error",
            Level::WARN => "warning",
            Level::INFO => "info",
            Level::DEBUG | Level::TRACE => "debug",
        };
        let time = time::OffsetDateTime::now_utc();
        let time = time.replace_nanosecond(0).unwrap_or(time).format(&Rfc3339).map_err(|_| fmt::Error)?;
        let quoted = serde_json::to_string(&text.0).map_err(|_| fmt::Error)?;
        match self.0 {
            LogFormat::Json => writeln!(writer, r#"{{"level":"{level}","msg":{quoted},"time":"{time}"}}"#),
            LogFormat::Text => writeln!(writer, r#"time="{time}" level={level} msg={quoted}"#),
        }
    }
}

/// Collects an event's message.
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}
