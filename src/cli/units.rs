//! Numbers, sizes and durations of the command line, written as runc's callers write them.

use std::str::FromStr;
use std::time::Duration;

use crate::error::{Error, Result};

/// A number given for `--option`.
///
/// # Errors
/// [`Error::Usage`] naming the option and what was given for it.
pub fn number<T: FromStr>(option: &str, text: &Option<String>) -> Result<Option<T>> {
    text.as_deref().map(|text| text.parse().map_err(|_| invalid(option, text, "number"))).transpose()
}

/// A size in bytes given for `--option`: `67108864`, `64m`, `64MiB`, `0.5g`; powers of 1024. -1 is no limit.
///
/// # Errors
/// As [`number`].
pub fn size(option: &str, text: &Option<String>) -> Result<Option<i64>> {
    text.as_deref().map(|text| parse_size(text).ok_or_else(|| invalid(option, text, "size"))).transpose()
}

fn invalid(option: &str, text: &str, what: &str) -> Error {
    Error::Usage(format!("invalid value for --{option}: `{text}` is no {what}"))
}

fn parse_size(text: &str) -> Option<i64> {
    if text == "-1" {
        return Some(-1);
    }
    let digits = text.trim_end_matches(|it: char| it.is_ascii_alphabetic());
    let suffix = text[digits.len()..].to_ascii_lowercase();
    let unit = suffix.strip_suffix("ib").or(suffix.strip_suffix('b')).unwrap_or(&suffix);
    let power = match unit {
        "" if suffix != "ib" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return None,
    };
    let digits = digits.trim_end();
    let factor = 1024_i64.pow(power);
    if let Ok(whole) = digits.parse::<u64>() {
        return i64::try_from(whole).ok()?.checked_mul(factor);
    }
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let bytes = digits.parse::<f64>().ok().filter(|_| plain)? * factor as f64;
    (bytes < i64::MAX as f64).then_some(bytes as i64)
}

/// A duration as Go writes it: `5s`, `1h2m3.5s`, `300ms`, `0`. A negative one is none.
///
/// # Errors
/// [`Error::Usage`] with what was given.
pub fn duration(text: &str) -> std::result::Result<Duration, String> {
    parse_duration(text).ok_or_else(|| "is no duration such as `5s`, `300ms` or `1m30s`".to_owned())
}

fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    let mut total = 0.0;
    loop {
        let end = rest.find(|it: char| !it.is_ascii_digit() && it != '.')?;
        let value: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        // `ms` before `m`.
        let units = [
            ("ns", 1e-9),
            ("us", 1e-6),
            ("µs", 1e-6),
            ("μs", 1e-6),
            ("ms", 1e-3),
            ("s", 1.0),
            ("m", 60.0),
            ("h", 3600.0),
        ];
        let (unit, seconds) = units.into_iter().find(|(unit, _)| rest.starts_with(unit))?;
        total += value * seconds;
        rest = &rest[unit.len()..];
        if rest.is_empty() {
            return Duration::try_from_secs_f64(total).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024_with_or_without_a_suffix() {
        for (text, bytes) in [
            ("0", 0),
            ("67108864", 67_108_864),
            ("64m", 64 << 20),
            ("64M", 64 << 20),
            ("64MiB", 64 << 20),
            ("64 mb", 64 << 20),
            ("1.5g", 3 << 29),
            ("10b", 10),
            ("1p", 1 << 50),
            ("-1", -1),
        ] {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
        for text in [
            "",
            "m",
            "-2",
            "-1m",
            "1x",
            "1mm",
            "1ib",
            "nan",
            "inf",
            "1e3",
            "0x10",
            "1..2g",
            "9223372036854775808",
            "9000p",
            "١m",
        ] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }

    #[test]
    fn durations_are_gos() {
        for (text, milliseconds) in [
            ("5s", 5000),
            ("1m30s", 90_000),
            ("300ms", 300),
            ("1.5h", 5_400_000),
            (".5s", 500),
            ("0", 0),
            ("0s", 0),
            ("+1s", 1000),
            ("2000us", 2),
            ("2000µs", 2),
            ("3000000ns", 3),
        ] {
            assert_eq!(parse_duration(text).map(|it| it.as_millis()), Some(milliseconds), "{text}");
        }
        for text in ["", "5", "s", "-5s", "5x", "1s2", ".s", "1.2.3s", "5 s", "99999999999999999999h"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }
}
