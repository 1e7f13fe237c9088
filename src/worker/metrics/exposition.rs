//! The metrics as text, for Prometheus: in its own format, or in OpenMetrics'.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, prometheus_text, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::table::{self, Kind, Metric, TABLE};
use crate::error::{Error, Result};
use crate::sys::words::WORDS;

/// The text's format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The Prometheus text format 0.0.4.
    Text,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

impl Format {
    /// The media type.
    pub fn content_type(self) -> &'static str {
        match self {
            Format::Text => prometheus_text::CONTENT_TYPE,
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// What is not counted but looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Now {
    /// The worker's status, as a label.
    pub status: &'static str,
    /// Failed cleanups in a row.
    pub failures_in_a_row: u64,
    /// Containers that live.
    pub active: u64,
    /// Containers that have stopped.
    pub stopped: u64,
    /// What dead commands have left.
    pub stale: u64,
    /// Back ends that are not those of the last check that passed.
    pub changed: u64,
    /// Missing controls.
    pub missing: u64,
    /// How cgroups are mounted, as a label.
    pub cgroup: &'static str,
    /// How processes are held, as a label.
    pub pidfd: &'static str,
    /// Calls that can be made, as labels.
    pub calls: Vec<&'static str>,
}

impl Now {
    /// The value of a gauge, of one value of its label where it has one.
    fn gauge(&self, metric: &Metric, value: &str) -> u64 {
        let is = |now: &str| u64::from(now == value);
        let gauges = [
            (&table::WORKER_HEALTH, is(self.status)),
            (&table::FAILURES_IN_A_ROW, self.failures_in_a_row),
            (&table::ACTIVE, self.active),
            (&table::STOPPED, self.stopped),
            (&table::STALE, self.stale),
            (&table::BACKEND_CGROUP, is(self.cgroup)),
            (&table::BACKEND_PIDFD, is(self.pidfd)),
            (&table::BACKEND_CALL, u64::from(self.calls.contains(&value))),
            (&table::BACKEND_CHANGES, self.changed),
            (&table::MISSING_CONTROLS, self.missing),
            (&table::BUILD, 1),
        ];
        gauges.into_iter().find(|(it, _)| it.name == metric.name).map_or(0, |(_, now)| now)
    }
}

/// The text.
///
/// # Errors
/// None that is known: the encoder writes into memory.
pub fn expose(words: [u64; WORDS], now: Now, format: Format) -> Result<String> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Exposition { words, now }));
    let mut out = String::new();
    match format {
        Format::Text => prometheus_text::encode(&mut out, &registry),
        Format::OpenMetrics => text::encode(&mut out, &registry),
    }
    .map_err(|error| Error::Other(format!("encode the metrics: {error}")))?;
    Ok(out)
}

#[derive(Debug)]
struct Exposition {
    words: [u64; WORDS],
    now: Now,
}

impl Collector for Exposition {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        for metric in TABLE {
            // The encoder appends the suffix of counters.
            let (name, suffixed) = match metric.name.strip_suffix("_total") {
                Some(name) => (name, true),
                None => (metric.name, false),
            };
            let kind = match &metric.kind {
                Kind::Counter(_) if suffixed => MetricType::Counter,
                // Both formats know counters by their suffix only.
                Kind::Counter(_) => MetricType::Unknown,
                Kind::Histogram(..) => MetricType::Histogram,
                Kind::Gauge => MetricType::Gauge,
            };
            let mut encoder = encoder.encode_descriptor(name, metric.help, None, kind)?;
            match metric.label {
                Some((label, values)) => {
                    for value in values {
                        let labels = [(label, *value)];
                        self.one(metric, value, encoder.encode_family(&labels)?)?;
                    }
                }
                None => self.one(metric, "", encoder)?,
            }
        }
        Ok(())
    }
}

impl Exposition {
    fn one(&self, metric: &Metric, value: &str, mut encoder: MetricEncoder<'_>) -> std::fmt::Result {
        match &metric.kind {
            Kind::Counter(_) => {
                let count = metric.word(value).map_or(0, |word| self.words[word]);
                if metric.name.ends_with("_total") {
                    encoder.encode_counter::<NoLabelSet, _, u64>(&count, None)
                } else {
                    encoder.encode_gauge(&count)
                }
            }
            Kind::Histogram(words, bounds) => {
                let bounds = bounds.iter().map(|us| *us as f64 / 1e6).chain([f64::INFINITY]);
                let buckets: Vec<(f64, u64)> = bounds.zip(self.words[words.clone()].iter().copied()).collect();
                let sum = self.words[words.start + buckets.len()] as f64 / 1e6;
                let count = buckets.iter().map(|(_, count)| count).sum();
                encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
            }
            Kind::Gauge => encoder.encode_gauge(&self.now.gauge(metric, value)),
        }
    }
}
