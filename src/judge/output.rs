//! What a judged run prints: one JSON object, or a short summary for a person.
//!
//! Output that is not UTF-8 is printed with U+FFFD in place of what is not, and without loss as base64 beside it
//! (`stdout_base64`, `stderr_base64`: present exactly when needed).

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::evidence::{Checked, Cleanup, Evidence, Fault, FaultKind, WaitStatus};
use super::limits::Limits;
use super::verdict::{Status, Verdict, classify};

/// The version of the object's layout.
pub const SCHEMA_VERSION: u32 = 1;

/// `enforced`, `degraded` or `off`, by control.
pub type Controls = BTreeMap<Cow<'static, str>, Cow<'static, str>>;

/// One judged step, as it is printed.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Step {
    /// The verdict.
    pub status: Status,
    /// Why.
    pub cause: super::verdict::Cause,
    /// Who ended it.
    pub actor: super::verdict::Actor,
    /// The same run may well end differently on a healthier or quieter machine.
    #[serde(default)]
    pub retryable: bool,
    /// The exit code; `null` unless it exited.
    pub exit_code: Option<i32>,
    /// The signal; `null` unless one ended it.
    pub signal: Option<i32>,
    /// CPU time of the sandbox, ms; `null`: unknown.
    pub cpu_time_ms: Option<f64>,
    /// Wall time from exec to exit, ms; `null`: unknown.
    pub wall_time_ms: Option<f64>,
    /// Highest memory charge, bytes; `null`: unknown.
    pub memory_peak_bytes: Option<u64>,
    /// The output, as far as it was kept.
    pub stdout: String,
    /// The same without loss, where it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdout_base64: Option<String>,
    /// The error output, as far as it was kept.
    pub stderr: String,
    /// The same without loss, where it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr_base64: Option<String>,
    /// More was written than kept.
    pub stdout_truncated: bool,
    /// More was written than kept.
    pub stderr_truncated: bool,
    /// The limits that held.
    pub limits: Limits,
    /// By control, what became of it.
    pub controls: Controls,
    /// What was seen.
    pub evidence: Evidence,
    /// What the proof found.
    pub cleanup: Option<Cleanup>,
}

/// A compile step, as it is printed.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Compiled {
    /// The step; where it is from the cache, as it was then.
    #[serde(flatten)]
    pub step: Step,
    /// Nothing was compiled: the program was made earlier, of the same source by the same compiler.
    pub cached: bool,
}

/// A judged run, as it is printed.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Judgement {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The sandbox's id.
    pub id: String,
    /// The language; `null` for a program or a bundle.
    pub language: Option<String>,
    /// The run step, or what stands for it where it never was.
    #[serde(flatten)]
    pub run: Step,
    /// The compile step, where there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compile: Option<Compiled>,
    /// What the verdict would have been without the internal error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provisional: Option<Box<Verdict>>,
    /// In words, where there is more to say.
    #[serde(skip)]
    pub detail: Option<String>,
}

impl Step {
    /// Puts a step together.
    pub fn new(
        verdict: &Verdict,
        evidence: Evidence,
        limits: Limits,
        controls: Controls,
        stdout: &[u8],
        stderr: &[u8],
    ) -> Step {
        let ms = |us: Option<u64>| us.map(|us| us as f64 / 1000.0);
        let wait_status = evidence.payload.wait_status;
        let truncated = |total: Option<u64>, kept: &[u8]| total.is_some_and(|total| total > kept.len() as u64);
        let (stdout_text, stdout_base64) = text(stdout);
        let (stderr_text, stderr_base64) = text(stderr);
        Step {
            status: verdict.status,
            cause: verdict.cause,
            actor: verdict.actor,
            retryable: verdict.retryable,
            exit_code: wait_status.and_then(WaitStatus::code),
            signal: wait_status.and_then(WaitStatus::signal),
            cpu_time_ms: ms(evidence.cgroup.cpu_us.or(evidence.payload.rusage_cpu_us)),
            wall_time_ms: ms(evidence.payload.wall_us),
            memory_peak_bytes: evidence.cgroup.memory_peak_bytes,
            stdout: stdout_text,
            stdout_base64,
            stderr: stderr_text,
            stderr_base64,
            stdout_truncated: truncated(evidence.streams.stdout_bytes, stdout),
            stderr_truncated: truncated(evidence.streams.stderr_bytes, stderr),
            limits,
            controls,
            cleanup: evidence.cleanup.clone(),
            evidence,
        }
    }
}

impl Judgement {
    /// Adds what a checker said, and judges again.
    pub fn rule(&mut self, checked: Checked) {
        self.run.evidence.checker = Some(checked);
        self.judge_again();
    }

    /// The checker was cancelled, so that nothing is known of the output.
    pub fn cancelled(&mut self) {
        self.run.evidence.fault =
            Some(Fault { kind: FaultKind::Cancelled, message: "the checker was cancelled".to_owned() });
        self.judge_again();
    }

    fn judge_again(&mut self) {
        let verdict = classify(&self.run.evidence, &self.run.limits);
        (self.run.status, self.run.cause, self.run.actor) = (verdict.status, verdict.cause, verdict.actor);
        self.run.retryable = verdict.retryable;
        (self.provisional, self.detail) = (verdict.provisional, verdict.detail);
    }

    /// The summary for a person: the verdict and why, then the figures.
    pub fn summary(&self) -> String {
        let run = &self.run;
        let mut line = format!("{}: {}", run.status.as_str(), run.cause.explain());
        if let Some(detail) = &self.detail {
            line.push_str(&format!(" ({detail})"));
        }
        let mut figures = Vec::new();
        if let Some(code) = run.exit_code.filter(|code| *code != 0) {
            figures.push(format!("exit code {code}"));
        }
        if let Some(ms) = run.cpu_time_ms {
            figures.push(format!("CPU {:.3} s of {:.3}", ms / 1000.0, run.limits.cpu_time_ms as f64 / 1000.0));
        }
        if let Some(ms) = run.wall_time_ms {
            figures.push(format!("wall {:.3} s", ms / 1000.0));
        }
        if let Some(bytes) = run.memory_peak_bytes {
            let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
            figures.push(format!("memory {:.1} MiB of {:.0}", mib(bytes), mib(run.limits.memory_bytes)));
        }
        let degraded: Vec<&str> =
            run.controls.iter().filter(|(_, state)| *state == "degraded").map(|(name, _)| &**name).collect();
        if !degraded.is_empty() {
            figures.push(format!("without {}", degraded.join(", ")));
        }
        if !figures.is_empty() {
            line.push_str(&format!("\n    {}", figures.join(", ")));
        }
        if let Some(cleanup) = run.cleanup.as_ref().filter(|cleanup| !cleanup.proved) {
            line.push_str(&format!("\n    not proved gone: {}; see `rustbox health`", cleanup.left.join("; ")));
        }
        line
    }
}

/// As text, and as base64 where text would lose something.
fn text(bytes: &[u8]) -> (String, Option<String>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (text.to_owned(), None),
        Err(_) => (String::from_utf8_lossy(bytes).into_owned(), Some(base64(bytes))),
    }
}

/// RFC 4648, section 4, with padding.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().fold(0u32, |group, byte| group << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for index in 0..4 {
            let sextet = (group >> (18 - 6 * index)) & 63;
            text.push(if index <= chunk.len() { ALPHABET[sextet as usize] as char } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_follows_the_test_vectors_of_rfc_4648() {
        for (bytes, encoded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(bytes.as_bytes()), encoded);
        }
    }

    #[test]
    fn nothing_is_lost_of_output_that_is_not_text() {
        assert_eq!(text(b"plain"), ("plain".to_owned(), None));
        assert_eq!(text(b"a\xff"), ("a\u{fffd}".to_owned(), Some("Yf8=".to_owned())));
    }
}
