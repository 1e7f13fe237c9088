//! `rustbox metrics`: what was counted, and what is now, for Prometheus.

use std::os::fd::AsFd;
use std::path::PathBuf;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::cgroup::Layout;
use crate::cli::{Global, say};
use crate::error::{At, Error, Result};
use crate::judge::capability::{self, Wanted};
use crate::replace::replace;
use crate::sys::calls::{self, Answer};
use crate::worker::health::{Health, Host};
use crate::worker::metrics::serve::{Request, Response, listen, serve};
use crate::worker::metrics::{Format, Now, expose, file, table};
use crate::worker::standing::Status;
use crate::worker::survey::look;

/// Print the metrics of this worker in Prometheus' text format, or serve them
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("how").args(["listen", "textfile", "describe"])))]
pub struct Args {
    /// Serve /metrics and /healthz by HTTP until SIGTERM, for instance at 127.0.0.1:9754; port 0 takes any
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<String>,
    /// Replace this file as a whole, for the textfile collector of Prometheus' node exporter
    #[arg(long, value_name = "FILE")]
    pub textfile: Option<PathBuf>,
    /// Print the table of all metrics as Markdown
    #[arg(long, hide = true)]
    pub describe: bool,
}

/// Runs `metrics`.
///
/// # Errors
/// Where the file of the counts or the worker cannot be read, or the address or file not be used.
pub fn main(global: &Global, args: &Args) -> Result<()> {
    if args.describe {
        return say(&table::markdown());
    }
    if let Some(address) = &args.listen {
        return serve_at(global, address);
    }
    let text = text(global, Format::Text)?;
    match &args.textfile {
        // The collector, which is another user, reads what ends in `.prom`; what this writes first does not.
        Some(file) => replace(file, 0o644, text.as_bytes()),
        None => say(&text),
    }
}

fn health(global: &Global) -> Result<Health> {
    let (standing, survey) = (global.standing(), look(&global.root_path())?);
    Health::of(&standing, &survey, Host::look(&standing, &survey)?)
}

fn text(global: &Global, format: Format) -> Result<String> {
    let words = file::read(&global.metrics_file())?;
    let health = health(global)?;
    let host = capability::probe(&Layout::probe()?, Wanted::everything());
    let now = Now {
        status: health.status.as_str(),
        failures_in_a_row: health.consecutive_cleanup_failures.into(),
        active: health.live as u64,
        stopped: health.stopped as u64,
        stale: health.leftovers as u64,
        changed: health.changed.len() as u64,
        missing: health.degraded.len() as u64,
        cgroup: host.cgroup,
        pidfd: host.pidfd,
        calls: calls::look().filter(|(_, answer)| *answer == Answer::There).map(|(call, _)| call.name).collect(),
    };
    expose(words, now, format)
}

fn serve_at(global: &Global, address: &str) -> Result<()> {
    let mut mask = SigSet::empty();
    [Signal::SIGTERM, Signal::SIGINT].into_iter().for_each(|signal| mask.add(signal));
    mask.thread_block().at("block", "signals")?;
    let stop = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC).at("open", "a signalfd")?;
    let listener = listen(address)?;
    let bound = listener.local_addr().at("look at", "the listener")?;
    say(&format!("listening at http://{bound}/metrics"))?;
    serve(&listener, stop.as_fd(), |request| answer(global, request))
}

fn answer(global: &Global, request: &Request) -> Response {
    let failed = |error: Error| {
        global.log().error(&error.to_string());
        Response::line("500 Internal Server Error", &error.to_string())
    };
    match request.path.as_str() {
        "/metrics" => {
            let format = match request.accept.contains("application/openmetrics-text") {
                true => Format::OpenMetrics,
                false => Format::Text,
            };
            text(global, format)
                .map(|body| Response { status: "200 OK", content_type: format.content_type(), body })
                .unwrap_or_else(failed)
        }
        "/healthz" => health(global).and_then(|health| verdict(&health)).unwrap_or_else(failed),
        _ => Response::line("404 Not Found", "there are /metrics and /healthz"),
    }
}

/// As `health` exits: 200 where it says healthy, else 503; in both cases with what `health --json` prints.
fn verdict(health: &Health) -> Result<Response> {
    let status = match health.status {
        Status::Healthy => "200 OK",
        Status::Unhealthy | Status::Quarantined => "503 Service Unavailable",
    };
    let body = serde_json::to_string_pretty(health).map_err(|error| Error::Other(format!("print JSON: {error}")))?;
    Ok(Response { status, content_type: "application/json", body: body + "\n" })
}
