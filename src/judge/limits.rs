//! What a judged program may use, and how those limits are written by people.
//!
//! | option | annotation | default | enforced by |
//! |---|---|---|---|
//! | `--time` | `org.rustbox.limit.time` | 2 s | cgroup CPU time, RLIMIT_CPU as a backstop |
//! | `--wall-time` | `org.rustbox.limit.wall-time` | 3 × time + 1 s | timer of the supervisor, from exec |
//! | `--extra-time` | `org.rustbox.limit.extra-time` | 0 | how long past a time limit the program is left alive, to measure it |
//! | `--memory` | `org.rustbox.limit.memory` | 256 MiB | memory cgroup, swap included |
//! | `--processes` | `org.rustbox.limit.processes` | 64 | pids cgroup |
//! | `--output` | `org.rustbox.limit.output` | 64 MiB | bytes through each of stdout and stderr |
//! | `--file-size` | `org.rustbox.limit.file-size` | 64 MiB | RLIMIT_FSIZE; also the size of the work directory and of /tmp |
//! | `--open-files` | `org.rustbox.limit.open-files` | 256 | RLIMIT_NOFILE |
//! | `--stack` | `org.rustbox.limit.stack` | the memory limit, at most 64 MiB | RLIMIT_STACK |
//!
//! Command line over annotation over language over default. Extra time never changes a verdict: a program that
//! used more than its limit is judged by the limit, whenever it was killed.

use std::collections::HashMap;

use oci_spec::runtime::PosixRlimitType;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The prefix of the annotations that carry limits.
pub const ANNOTATION_PREFIX: &str = "org.rustbox.limit.";

const MIB: u64 = 1 << 20;
/// The longest time that a limit may name: a week.
const MAX_TIME_MS: u64 = 7 * 24 * 3600 * 1000;
/// Below this no dynamically linked program survives its exec.
const MIN_MEMORY: u64 = MIB;
/// The kernel itself copies up to a quarter of this for argv and envp.
const MIN_STACK: u64 = 128 << 10;

/// The resolved limits of one judged step. Times in milliseconds, sizes in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Limits {
    /// CPU time of the whole sandbox, user and system.
    pub cpu_time_ms: u64,
    /// Wall time from exec to exit.
    pub wall_time_ms: u64,
    /// How long past a time limit the program stays alive.
    pub extra_time_ms: u64,
    /// Memory of the whole sandbox: anonymous, page cache, tmpfs; no swap beyond it.
    pub memory_bytes: u64,
    /// Processes and threads alive at once.
    pub processes: u64,
    /// Bytes that may be written to stdout, and as many to stderr.
    pub output_bytes: u64,
    /// Size of one file, and of the work directory and of /tmp as a whole.
    pub file_size_bytes: u64,
    /// Open descriptors of one process.
    pub open_files: u64,
    /// Stack of the main thread.
    pub stack_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        LimitSource::default().resolve().unwrap_or(Limits {
            cpu_time_ms: 2000,
            wall_time_ms: 7000,
            extra_time_ms: 0,
            memory_bytes: 256 * MIB,
            processes: 64,
            output_bytes: 64 * MIB,
            file_size_bytes: 64 * MIB,
            open_files: 256,
            stack_bytes: 64 * MIB,
        })
    }
}

/// Limits as one source gives them: what it does not name is left to the next source.
/// Also the `[limits]` table of a `language.toml`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct LimitSource {
    /// CPU time, ms.
    #[serde(deserialize_with = "de::time")]
    pub time: Option<u64>,
    /// Wall time, ms.
    #[serde(deserialize_with = "de::time")]
    pub wall_time: Option<u64>,
    /// Extra time, ms.
    #[serde(deserialize_with = "de::time")]
    pub extra_time: Option<u64>,
    /// Memory, bytes.
    #[serde(deserialize_with = "de::size")]
    pub memory: Option<u64>,
    /// Processes and threads.
    pub processes: Option<u64>,
    /// Output per stream, bytes.
    #[serde(deserialize_with = "de::size")]
    pub output: Option<u64>,
    /// File size, bytes.
    #[serde(deserialize_with = "de::size")]
    pub file_size: Option<u64>,
    /// Open descriptors.
    pub open_files: Option<u64>,
    /// Stack, bytes.
    #[serde(deserialize_with = "de::size")]
    pub stack: Option<u64>,
}

impl LimitSource {
    /// What the `org.rustbox.limit.*` annotations say; an unknown name or a malformed value is an error
    /// that carries the annotation's JSON path.
    pub fn from_annotations(annotations: &HashMap<String, String>) -> Result<LimitSource> {
        let mut source = LimitSource::default();
        for (key, value) in annotations {
            let Some(name) = key.strip_prefix(ANNOTATION_PREFIX) else {
                continue;
            };
            let known =
                source.set(name, value).map_err(|reason| Error::config(format!("$.annotations['{key}']"), reason))?;
            if !known {
                return Err(Error::config(format!("$.annotations['{key}']"), "is not a limit that rustbox knows"));
            }
        }
        Ok(source)
    }

    /// Sets one limit by its option name; `Ok(false)` when there is no such limit.
    fn set(&mut self, name: &str, value: &str) -> Result<bool, String> {
        match name {
            "time" => self.time = Some(parse_time(value)?),
            "wall-time" => self.wall_time = Some(parse_time(value)?),
            "extra-time" => self.extra_time = Some(parse_time(value)?),
            "memory" => self.memory = Some(parse_size(value)?),
            "processes" => self.processes = Some(parse_count(value)?),
            "output" => self.output = Some(parse_size(value)?),
            "file-size" => self.file_size = Some(parse_size(value)?),
            "open-files" => self.open_files = Some(parse_count(value)?),
            "stack" => self.stack = Some(parse_size(value)?),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Whether no limit is named at all.
    pub fn is_empty(&self) -> bool {
        *self == LimitSource::default()
    }

    /// This source, and `below` where it says nothing.
    pub fn over(&self, below: &LimitSource) -> LimitSource {
        LimitSource {
            time: self.time.or(below.time),
            wall_time: self.wall_time.or(below.wall_time),
            extra_time: self.extra_time.or(below.extra_time),
            memory: self.memory.or(below.memory),
            processes: self.processes.or(below.processes),
            output: self.output.or(below.output),
            file_size: self.file_size.or(below.file_size),
            open_files: self.open_files.or(below.open_files),
            stack: self.stack.or(below.stack),
        }
    }

    /// Times and memory multiplied, for languages that need more of them.
    pub fn scaled(&self, time: f64, memory: f64) -> LimitSource {
        let scale = |value: Option<u64>, by: f64| value.map(|v| (v as f64 * by).round() as u64);
        LimitSource {
            time: scale(self.time, time),
            wall_time: scale(self.wall_time, time),
            memory: scale(self.memory, memory),
            ..self.clone()
        }
    }

    /// Fills in the defaults and checks every value.
    pub fn resolve(&self) -> Result<Limits> {
        let cpu_time_ms = self.time.unwrap_or(2000);
        let memory_bytes = self.memory.unwrap_or(256 * MIB);
        let limits = Limits {
            cpu_time_ms,
            wall_time_ms: self.wall_time.unwrap_or(cpu_time_ms.saturating_mul(3).saturating_add(1000).min(MAX_TIME_MS)),
            extra_time_ms: self.extra_time.unwrap_or(0),
            memory_bytes,
            processes: self.processes.unwrap_or(64),
            output_bytes: self.output.unwrap_or(64 * MIB),
            file_size_bytes: self.file_size.unwrap_or(64 * MIB),
            open_files: self.open_files.unwrap_or(256),
            stack_bytes: self.stack.unwrap_or((64 * MIB).min(memory_bytes)),
        };
        limits.validate()?;
        Ok(limits)
    }
}

impl Limits {
    /// The rlimits that hold them, soft and hard. CPU time is a backstop in whole seconds, past what the judge itself enforces.
    pub fn rlimits(&self) -> [(PosixRlimitType, u64, u64); 4] {
        let cpu = (self.cpu_time_ms + self.extra_time_ms).div_ceil(1000) + 1;
        [
            (PosixRlimitType::RlimitCpu, cpu, cpu + 1),
            (PosixRlimitType::RlimitFsize, self.file_size_bytes, self.file_size_bytes),
            (PosixRlimitType::RlimitNofile, self.open_files, self.open_files),
            (PosixRlimitType::RlimitStack, self.stack_bytes, self.stack_bytes),
        ]
    }

    /// Refuses what cannot work, naming the option.
    fn validate(&self) -> Result<()> {
        let refuse = |option: &str, reason: String| Err(Error::Usage(format!("`--{option}` {reason}")));
        for (option, value) in [("time", self.cpu_time_ms), ("wall-time", self.wall_time_ms)] {
            if value == 0 {
                return refuse(option, "must be at least 1 ms".into());
            }
        }
        for (option, value) in
            [("time", self.cpu_time_ms), ("wall-time", self.wall_time_ms), ("extra-time", self.extra_time_ms)]
        {
            if value > MAX_TIME_MS {
                return refuse(option, "must be at most a week".into());
            }
        }
        if self.memory_bytes < MIN_MEMORY {
            return refuse("memory", format!("must be at least 1 MiB, not {} bytes", self.memory_bytes));
        }
        if self.stack_bytes < MIN_STACK {
            return refuse("stack", format!("must be at least 128 KiB, not {} bytes", self.stack_bytes));
        }
        if !(1..=1 << 22).contains(&self.processes) {
            return refuse("processes", format!("must be between 1 and 4194304, not {}", self.processes));
        }
        if !(4..=1 << 20).contains(&self.open_files) {
            return refuse("open-files", format!("must be between 4 and 1048576, not {}", self.open_files));
        }
        for (option, value) in [
            ("memory", self.memory_bytes),
            ("output", self.output_bytes),
            ("file-size", self.file_size_bytes),
            ("stack", self.stack_bytes),
        ] {
            if value > i64::MAX as u64 / 2 {
                return refuse(option, "is more than the kernel can count".into());
            }
        }
        Ok(())
    }
}

/// Seconds with an optional fraction, or with a unit: `1.5`, `2s`, `500ms`. In milliseconds, rounded up.
pub fn parse_time(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let (number, per_unit) = match text.strip_suffix("ms") {
        Some(number) => (number, 1.0),
        None => (text.strip_suffix('s').unwrap_or(text), 1000.0),
    };
    let plain = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    match number.parse::<f64>() {
        Ok(value) if plain && value.is_finite() && value * per_unit <= MAX_TIME_MS as f64 => {
            Ok((value * per_unit - 1e-6).ceil().max(0.0) as u64)
        }
        Ok(_) if plain => Err(format!("`{text}` is longer than a week")),
        _ => Err(format!("`{text}` is not a time such as `1.5`, `2s` or `500ms`")),
    }
}

/// Bytes, or a number with a unit: `268435456`, `256M`, `64MiB`, `1g`. Units are powers of 1024.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let malformed = || format!("`{text}` is not a size such as `64M`, `64MiB` or `67108864`");
    let trimmed = text.trim();
    let digits = trimmed.bytes().take_while(u8::is_ascii_digit).count();
    let number: u64 = trimmed[..digits].parse().map_err(|_| malformed())?;
    let shift = match trimmed[digits..].trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(malformed()),
    };
    number
        .checked_mul(1 << shift)
        .filter(|bytes| *bytes <= i64::MAX as u64)
        .ok_or_else(|| format!("`{text}` is too large"))
}

fn parse_count(text: &str) -> Result<u64, String> {
    text.trim().parse().map_err(|_| format!("`{text}` is not a whole number"))
}

/// A size as people write it, for a setting that is no limit of a run.
pub(super) fn size<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    de::size(deserializer).map(Option::unwrap_or_default)
}

/// `language.toml` writes limits as the command line does; plain numbers are accepted too.
mod de {
    use serde::{Deserialize, Deserializer, de::Error};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Integer(u64),
        Float(f64),
        Text(String),
    }

    fn read<'de, D: Deserializer<'de>>(
        deserializer: D,
        parse: fn(&str) -> Result<u64, String>,
    ) -> Result<Option<u64>, D::Error> {
        let text = match Written::deserialize(deserializer)? {
            Written::Integer(value) => value.to_string(),
            Written::Float(value) => value.to_string(),
            Written::Text(text) => text,
        };
        parse(&text).map(Some).map_err(D::Error::custom)
    }

    pub(super) fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
        read(deserializer, super::parse_time)
    }

    pub(super) fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
        read(deserializer, super::parse_size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_seconds_unless_a_unit_says_otherwise() {
        for (text, ms) in
            [("1.5", 1500), ("2", 2000), ("2s", 2000), ("500ms", 500), ("0.0001", 1), ("0.001", 1), ("0", 0)]
        {
            assert_eq!(parse_time(text), Ok(ms), "{text}");
        }
        for text in ["", "s", "-1", "1h", "NaN", "inf", "1e3", "1.2.3", "0x10", "9999999999"] {
            assert!(parse_time(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_bytes_or_powers_of_1024() {
        for (text, bytes) in [
            ("67108864", 64 * MIB),
            ("64M", 64 * MIB),
            ("64MiB", 64 * MIB),
            ("64mb", 64 * MIB),
            ("1 g", 1 << 30),
            ("0", 0),
            ("7b", 7),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "M", "-1", "1.5M", "1X", "99999999999999999999", "9999999999G", "1MM"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn defaults_follow_from_each_other() {
        let limits = LimitSource::default().resolve().unwrap();
        assert_eq!((limits.cpu_time_ms, limits.wall_time_ms, limits.extra_time_ms), (2000, 7000, 0));
        assert_eq!((limits.memory_bytes, limits.stack_bytes), (256 * MIB, 64 * MIB));
        let small = LimitSource { memory: Some(16 * MIB), time: Some(500), ..Default::default() }.resolve().unwrap();
        assert_eq!((small.stack_bytes, small.wall_time_ms), (16 * MIB, 2500));
        assert_eq!(limits, Limits::default());
    }

    #[test]
    fn impossible_limits_name_their_option() {
        for (source, option) in [
            (LimitSource { time: Some(0), ..Default::default() }, "--time"),
            (LimitSource { wall_time: Some(0), ..Default::default() }, "--wall-time"),
            (LimitSource { memory: Some(10), ..Default::default() }, "--memory"),
            (LimitSource { processes: Some(0), ..Default::default() }, "--processes"),
            (LimitSource { open_files: Some(2), ..Default::default() }, "--open-files"),
            (LimitSource { stack: Some(1), ..Default::default() }, "--stack"),
        ] {
            let message = source.resolve().unwrap_err().to_string();
            assert!(message.contains(option), "{message}");
        }
    }

    #[test]
    fn annotations_are_read_and_unknown_ones_refused() {
        let map = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        let source = LimitSource::from_annotations(&map(&[
            ("org.rustbox.limit.time", "1.5"),
            ("org.rustbox.limit.memory", "64M"),
            ("io.kubernetes.cri.sandbox-id", "x"),
        ]))
        .unwrap();
        assert_eq!((source.time, source.memory, source.processes), (Some(1500), Some(64 * MIB), None));
        let unknown = LimitSource::from_annotations(&map(&[("org.rustbox.limit.tme", "1")])).unwrap_err();
        assert!(unknown.to_string().contains("$.annotations['org.rustbox.limit.tme']"), "{unknown}");
        assert!(LimitSource::from_annotations(&map(&[("org.rustbox.limit.time", "soon")])).is_err());
    }

    #[test]
    fn sources_stack_and_languages_scale() {
        let option = LimitSource { time: Some(1000), ..Default::default() };
        let language = LimitSource { time: Some(2000), processes: Some(8), ..Default::default() };
        let merged = option.over(&language);
        assert_eq!((merged.time, merged.processes), (Some(1000), Some(8)));
        assert_eq!(language.scaled(1.5, 2.0).time, Some(3000));
    }
}
