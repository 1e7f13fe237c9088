//! The metrics, as data: name, help, kind, label, and for what is counted the words of the file that hold it.
//!
//! A contract twice over: names and labels with dashboards and alerts, words with the files of earlier versions of this
//! program. Values of a label are only ever appended, within the room that their metric has; anything else needs another
//! [`LAYOUT`](super::file::LAYOUT). docs/metrics.md shows the table, and a test compares the two.

use std::ops::Range;

use crate::sys::calls::CALLS;

/// One metric.
#[derive(Debug)]
pub struct Metric {
    /// As it is exposed.
    pub name: &'static str,
    /// One line.
    pub help: &'static str,
    /// How it counts.
    pub kind: Kind,
    /// The label and its values; all of them are exposed from the start, so that the first event is seen as an increase.
    pub label: Option<(&'static str, &'static [&'static str])>,
}

/// How a metric counts.
#[derive(Debug)]
pub enum Kind {
    /// Events, in these words: one for each value of the label.
    Counter(Range<usize>),
    /// Durations, in these words: one for each bucket (not cumulative), the one above all bounds, the sum in µs.
    Histogram(Range<usize>, &'static [u64]),
    /// Looked up when it is asked for.
    Gauge,
}

impl Metric {
    /// The word of a label's value, or of the whole metric where it has no label.
    pub fn word(&self, value: &str) -> Option<usize> {
        let Kind::Counter(words) = &self.kind else { return None };
        let index = match self.label {
            Some((_, values)) => values.iter().position(|it| *it == value)?,
            None => 0,
        };
        Some(words.start + index)
    }

    /// How many words it uses; it has room for more.
    pub fn used(&self) -> usize {
        match &self.kind {
            Kind::Counter(_) => self.label.map_or(1, |(_, values)| values.len()),
            Kind::Histogram(_, bounds) => bounds.len() + 2,
            Kind::Gauge => 0,
        }
    }

    const fn counter(name: &'static str, words: Range<usize>, help: &'static str) -> Metric {
        Metric { name, help, kind: Kind::Counter(words), label: None }
    }

    const fn histogram(name: &'static str, words: Range<usize>, bounds: &'static [u64], help: &'static str) -> Metric {
        Metric { name, help, kind: Kind::Histogram(words, bounds), label: None }
    }

    const fn gauge(name: &'static str, help: &'static str) -> Metric {
        Metric { name, help, kind: Kind::Gauge, label: None }
    }

    const fn by(self, label: &'static str, values: &'static [&'static str]) -> Metric {
        Metric { label: Some((label, values)), ..self }
    }
}

/// Bounds of what takes milliseconds, µs.
const SHORT: &[u64] = &[
    1_000, 2_000, 3_000, 5_000, 7_500, 10_000, 15_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000,
];
/// Bounds of what a program takes, µs.
const LONG: &[u64] = &[
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_000_000,
    3_000_000,
    5_000_000,
    10_000_000,
    20_000_000,
    30_000_000,
    60_000_000,
    300_000_000,
];

/// Ends of sandboxes.
pub static CLEANUP: Metric = Metric::counter(
    "rustbox_cleanup_total",
    8..12,
    "Releases of containers and judged sandboxes, by whether they were proved to have left nothing",
)
.by("outcome", &["success", "failure"]);

/// How long these took.
pub static CLEANUP_DURATION: Metric = Metric::histogram(
    "rustbox_cleanup_duration_seconds",
    12..36,
    SHORT,
    "Time of a release, from its first signal to its last look",
);

/// How long a program waits for its sandbox.
pub static START_LATENCY: Metric = Metric::histogram(
    "rustbox_start_latency_seconds",
    36..60,
    SHORT,
    "Time from the begin of `run`, judged or not, or from the gate that `start` opens, to the exec of the program",
);

/// How long judged programs run.
pub static EXECUTION_DURATION: Metric = Metric::histogram(
    "rustbox_execution_duration_seconds",
    60..84,
    LONG,
    "Wall time of judged programs, from exec to exit",
);

/// Judged runs.
pub static EXECUTIONS: Metric =
    Metric::counter("rustbox_executions_total", 84..88, "Judged runs that came to a verdict");

/// The same, by verdict.
pub static BY_STATUS: Metric = Metric::counter("rustbox_executions_by_status", 88..112, "Judged runs by their verdict")
    .by("status", &["OK", "CE", "TLE", "MLE", "RE", "SIG", "PLE", "FSE", "OLE", "SV", "ABUSE", "IE", "WA", "PE"]);

/// The same, by cause.
pub static BY_CAUSE: Metric =
    Metric::counter("rustbox_verdict_cause_total", 112..192, "Judged runs by the cause of their verdict").by(
        "cause",
        &[
            "normal_exit",
            "re_nonzero_exit",
            "re_fatal_signal",
            "tle_cpu_judge",
            "tle_cpu_kernel",
            "tle_wall_judge",
            "mle_kernel_oom",
            "mle_exec",
            "ole_output",
            "fse_limit_exceeded",
            "ple_cgroup_pids",
            "sv_seccomp",
            "abuse_pids_rate",
            "ce_nonzero_exit",
            "ce_fatal_signal",
            "ce_time_limit",
            "ce_memory_limit",
            "ce_output_limit",
            "ce_file_size_limit",
            "ce_process_limit",
            "ce_forbidden_call",
            "ce_abuse",
            "ce_no_artefact",
            "ie_setup_failed",
            "ie_exec_failed",
            "ie_evidence_missing",
            "ie_supervisor_lost",
            "ie_cancelled",
            "ie_not_proved_gone",
            "ie_host_oom",
            "ie_oom_ambiguous",
            "wa_checker",
            "pe_checker",
            "ie_checker_failed",
            "tle_idle",
            "re_not_executable",
        ],
    );

/// The same, by who decided.
pub static BY_ACTOR: Metric =
    Metric::counter("rustbox_verdict_actor_total", 192..200, "Judged runs by who decided their end")
        .by("actor", &["judge", "kernel", "payload", "runtime"]);

/// Limits that ended a step.
pub static LIMIT_VIOLATIONS: Metric = Metric::counter(
    "rustbox_limit_violations_total",
    200..216,
    "Steps of judged runs, compile steps included, that a limit ended",
)
.by("resource", &["cpu", "wall", "memory", "output", "file_size", "processes"]);

/// Controls that runs did without.
pub static CONTROL_DEGRADED: Metric = Metric::counter(
    "rustbox_control_degraded_total",
    216..248,
    "Judged runs that --permissive let run without a control of the sandbox",
)
.by(
    "control",
    &[
        "memory",
        "pids",
        "cpuacct",
        "swap",
        "user_namespace",
        "pid_namespace",
        "mount_namespace",
        "network_namespace",
        "ipc_namespace",
        "uts_namespace",
        "cgroup_namespace",
        "seccomp",
        "pidfd",
        "privilege",
    ],
);

/// Processes that outlived what they belong to.
pub static ORPHANS: Metric = Metric::counter(
    "rustbox_orphan_processes_total",
    248..252,
    "Processes found alive after the container, hook or supervisor that they belong to",
);

/// Things outside of the container they belong to.
pub static CONTAINMENT: Metric = Metric::counter(
    "rustbox_containment_violations_total",
    252..256,
    "Things of a container that its release found outside of it: mounts in sight of the host, processes outside its cgroups",
);

/// Quarantines.
pub static QUARANTINE: Metric =
    Metric::counter("rustbox_quarantine_total", 256..272, "Times the worker was quarantined, by why")
        .by("reason", &["cleanup_failures", "orphan_process", "baseline", "resources", "operator"]);

/// Abuse.
pub static ABUSE: Metric = Metric::counter(
    "rustbox_abuse_pattern_total",
    272..288,
    "Steps of judged runs that were stopped for abuse, by its pattern",
)
.by("pattern", &["pids_rate"]);

/// The worker's health.
pub static WORKER_HEALTH: Metric =
    Metric::gauge("rustbox_worker_health", "1 for what `rustbox health` says of the worker now, 0 for the rest")
        .by("status", &["healthy", "unhealthy", "quarantined"]);

/// Failures before the next quarantine.
pub static FAILURES_IN_A_ROW: Metric =
    Metric::gauge("rustbox_consecutive_cleanup_failures", "Failed cleanups in a row; three quarantine the worker");

/// Live containers.
pub static ACTIVE: Metric =
    Metric::gauge("rustbox_active_containers", "Containers and judged sandboxes that live, or that a command works on");

/// Dead containers.
pub static STOPPED: Metric =
    Metric::gauge("rustbox_stopped_containers", "Containers that have stopped and wait for `delete`");

/// Leftovers.
pub static STALE: Metric =
    Metric::gauge("rustbox_stale_objects", "Things that commands which died have left (`health --verify-clean`)");

/// Which cgroups.
pub static BACKEND_CGROUP: Metric =
    Metric::gauge("rustbox_backend_cgroup", "1 for how this host mounts its cgroups, 0 for the rest")
        .by("version", &["v1", "v2", "hybrid", "none"]);

/// How processes are held.
pub static BACKEND_PIDFD: Metric =
    Metric::gauge("rustbox_backend_pidfd", "1 for how processes are told apart and waited for here, 0 for the rest")
        .by("mode", &["pidfd", "procfs", "none"]);

/// Which calls.
pub static BACKEND_CALL: Metric = Metric::gauge(
    "rustbox_backend_call",
    "1 for a newer system call that can be made here, 0 where something else is done",
)
.by("call", &CALL_NAMES);

/// The names of `sys::calls::CALLS`.
const CALL_NAMES: [&str; CALLS.len()] = {
    let mut names = [""; CALLS.len()];
    let mut at = 0;
    while at < names.len() {
        names[at] = CALLS[at].name;
        at += 1;
    }
    names
};

/// Changed back ends.
pub static BACKEND_CHANGES: Metric = Metric::gauge(
    "rustbox_backend_changes",
    "Back ends that are not those with which the last check passed (`health --check`)",
);

/// Missing controls.
pub static MISSING_CONTROLS: Metric =
    Metric::gauge("rustbox_missing_controls", "Controls of a judged run that this host cannot give");

/// The version.
pub static BUILD: Metric = Metric::gauge("rustbox_build_info", "1, with the version of the program that answers")
    .by("version", &[env!("CARGO_PKG_VERSION")]);

/// All of them, in the order of their exposition.
pub static TABLE: [&Metric; 25] = [
    &WORKER_HEALTH,
    &FAILURES_IN_A_ROW,
    &QUARANTINE,
    &CLEANUP,
    &CLEANUP_DURATION,
    &ORPHANS,
    &CONTAINMENT,
    &EXECUTIONS,
    &BY_STATUS,
    &BY_CAUSE,
    &BY_ACTOR,
    &LIMIT_VIOLATIONS,
    &ABUSE,
    &CONTROL_DEGRADED,
    &START_LATENCY,
    &EXECUTION_DURATION,
    &ACTIVE,
    &STOPPED,
    &STALE,
    &BACKEND_CGROUP,
    &BACKEND_PIDFD,
    &BACKEND_CALL,
    &BACKEND_CHANGES,
    &MISSING_CONTROLS,
    &BUILD,
];

/// The table as Markdown, for docs/metrics.md.
pub fn markdown() -> String {
    let mut text = String::from("| metric | type | label | unit | words | meaning |\n|---|---|---|---|---|---|\n");
    for metric in TABLE {
        let label = metric.label.map_or_else(
            || "-".to_owned(),
            |(name, values)| {
                // The version is another one in every release.
                let values = if std::ptr::eq(metric, &BUILD) { "…".to_owned() } else { values.join(" ") };
                format!("`{name}`: {values}")
            },
        );
        let seconds = |us: &u64| format!("{}", *us as f64 / 1e6);
        let (kind, unit, words, more) = match &metric.kind {
            Kind::Counter(words) => ("counter", "events", format!("{}–{}", words.start, words.end - 1), String::new()),
            Kind::Histogram(words, bounds) => (
                "histogram",
                "seconds",
                format!("{}–{}", words.start, words.end - 1),
                format!("; buckets up to {}", bounds.iter().map(seconds).collect::<Vec<_>>().join(" ")),
            ),
            Kind::Gauge => ("gauge", "-", "-".to_owned(), String::new()),
        };
        text += &format!("| `{}` | {kind} | {label} | {unit} | {words} | {}{more} |\n", metric.name, metric.help);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::words::WORDS;

    #[test]
    fn no_word_is_used_twice_and_all_are_there() {
        let mut owner = [None; WORDS];
        for metric in TABLE {
            let (Kind::Counter(words) | Kind::Histogram(words, _)) = &metric.kind else { continue };
            assert!(words.start >= super::super::file::HEADER && metric.used() <= words.len(), "{}", metric.name);
            for word in words.clone() {
                assert_eq!(owner[word].replace(metric.name), None, "{} takes a word of another's", metric.name);
            }
        }
    }

    #[test]
    fn every_word_of_a_verdict_has_its_place() {
        let schema: serde_json::Value =
            serde_json::from_str(include_str!("../../../docs/schemas/run.schema.json")).unwrap();
        for (name, metric) in [("Status", &BY_STATUS), ("Cause", &BY_CAUSE), ("Actor", &BY_ACTOR)] {
            for value in schema["$defs"][name]["enum"].as_array().unwrap() {
                assert!(metric.word(value.as_str().unwrap()).is_some(), "{name} {value} is not counted");
            }
        }
    }
}
