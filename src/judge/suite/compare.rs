//! The built-in checkers: whether an output is the expected one.

use crate::judge::evidence::{Checked, Ruling};

/// How much of a word or a line a message quotes, in bytes.
const QUOTED: usize = 40;

/// A checker that needs no program.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Comparison {
    /// Byte for byte.
    Exact,
    /// The same words; white space between them does not count.
    Tokens,
    /// The same words, numbers within this error, absolute or relative.
    Float(f64),
}

impl Comparison {
    /// The checker of that name: `exact`, `tokens`, `float:EPS`. `None`: it is no built-in one.
    pub fn named(text: &str) -> Option<Result<Comparison, String>> {
        match text {
            "exact" => Some(Ok(Comparison::Exact)),
            "tokens" => Some(Ok(Comparison::Tokens)),
            "float" => Some(Err("`float` needs its greatest error: `float:1e-6`".to_owned())),
            _ => {
                let eps = text.strip_prefix("float:")?;
                let valid = eps.parse::<f64>().ok().filter(|eps| eps.is_finite() && *eps >= 0.0);
                Some(valid.map(Comparison::Float).ok_or_else(|| format!("`{eps}` is no greatest error, such as 1e-6")))
            }
        }
    }

    /// Compares an output with the expected one.
    pub fn check(self, output: &[u8], answer: &[u8]) -> Checked {
        let difference = match self {
            Comparison::Exact => exact(output, answer),
            Comparison::Tokens => tokens(output, answer, |ours, theirs| ours == theirs),
            Comparison::Float(eps) => tokens(output, answer, |ours, theirs| close(ours, theirs, eps)),
        };
        match difference {
            None => Checked {
                ruling: Ruling::Accepted,
                message: String::new(),
                exit_code: None,
                points: None,
                ended_first: None,
            },
            Some((ruling, message)) => Checked { ruling, message, exit_code: None, points: None, ended_first: None },
        }
    }
}

impl std::fmt::Display for Comparison {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Comparison::Exact => f.write_str("exact"),
            Comparison::Tokens => f.write_str("tokens"),
            Comparison::Float(eps) => write!(f, "float:{eps:e}"),
        }
    }
}

type Difference = Option<(Ruling, String)>;

/// Where only white space differs, the presentation is wrong.
fn exact(output: &[u8], answer: &[u8]) -> Difference {
    if output == answer {
        return None;
    }
    let at =
        output.iter().zip(answer).position(|(ours, theirs)| ours != theirs).unwrap_or(output.len().min(answer.len()));
    let line = output[..at].iter().filter(|byte| **byte == b'\n').count() + 1;
    let same_words = tokens(output, answer, |ours, theirs| ours == theirs).is_none();
    let ruling = if same_words { Ruling::Presentation } else { Ruling::Wrong };
    let what = if same_words { "white space differs" } else { "differs" };
    Some((ruling, format!("line {line}, byte {}: {what}", at + 1)))
}

fn tokens(output: &[u8], answer: &[u8], same: impl Fn(&[u8], &[u8]) -> bool) -> Difference {
    let (mut ours, mut theirs) = (words(output), words(answer));
    let mut number = 0u64;
    loop {
        number += 1;
        let message = match (ours.next(), theirs.next()) {
            (None, None) => return None,
            (Some(ours), Some(theirs)) if same(ours, theirs) => continue,
            (Some(ours), Some(theirs)) => format!("word {number} is {}, not {}", quote(ours), quote(theirs)),
            (Some(ours), None) => format!("word {number} is {}, where the output should end", quote(ours)),
            (None, Some(theirs)) => format!("the output ends where word {number} should be {}", quote(theirs)),
        };
        return Some((Ruling::Wrong, message));
    }
}

fn words(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty())
}

/// Equal as words, or both finite numbers whose difference is at most `eps`, absolute or relative to the expected one.
fn close(ours: &[u8], theirs: &[u8], eps: f64) -> bool {
    let number = |word: &[u8]| {
        let digits = word.iter().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(byte));
        std::str::from_utf8(word).ok().filter(|_| digits)?.parse::<f64>().ok().filter(|value| value.is_finite())
    };
    match (number(ours), number(theirs)) {
        _ if ours == theirs => true,
        (Some(ours), Some(theirs)) => (ours - theirs).abs() <= eps * theirs.abs().max(1.0),
        _ => false,
    }
}

fn quote(word: &[u8]) -> String {
    let shown = String::from_utf8_lossy(&word[..word.len().min(QUOTED)]).into_owned();
    format!("`{}{}`", shown.escape_default(), if word.len() > QUOTED { "…" } else { "" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ruling(checker: Comparison, output: &str, answer: &str) -> Ruling {
        checker.check(output.as_bytes(), answer.as_bytes()).ruling
    }

    #[test]
    fn exact_counts_every_byte_and_tells_presentation_from_wrong() {
        let exact = |output, answer| ruling(Comparison::Exact, output, answer);
        assert_eq!(exact("1 2\n", "1 2\n"), Ruling::Accepted);
        assert_eq!(exact("1  2\n", "1 2\n"), Ruling::Presentation);
        assert_eq!(exact("1 2", "1 2\n"), Ruling::Presentation);
        assert_eq!(exact("1 3\n", "1 2\n"), Ruling::Wrong);
        let message = Comparison::Exact.check(b"1\n2\n", b"1\n3\n").message;
        assert_eq!(message, "line 2, byte 3: differs");
    }

    #[test]
    fn tokens_are_words_whatever_is_between_them() {
        let tokens = |output, answer| ruling(Comparison::Tokens, output, answer);
        assert_eq!(tokens(" 1\r\n\t2 ", "1 2"), Ruling::Accepted);
        assert_eq!(tokens("", "\n"), Ruling::Accepted);
        for (output, answer) in [("1 2 3", "1 2"), ("1", "1 2"), ("12", "1 2"), ("1.0", "1"), ("A", "a")] {
            assert_eq!(tokens(output, answer), Ruling::Wrong, "{output} {answer}");
        }
        let message = |output: &[u8], answer: &[u8]| Comparison::Tokens.check(output, answer).message;
        assert_eq!(message(b"1 x", b"1 y"), "word 2 is `x`, not `y`");
        assert_eq!(message(b"1", b"1 y"), "the output ends where word 2 should be `y`");
        assert_eq!(message(b"1 \xff", b"1"), "word 2 is `\\u{fffd}`, where the output should end");
        assert!(message(&[b'x'; 5000], b"1").len() < 200);
    }

    #[test]
    fn numbers_may_differ_by_an_absolute_or_a_relative_error() {
        let float = |output, answer| ruling(Comparison::Float(1e-3), output, answer);
        for (output, answer) in
            [("0.0005", "0"), ("1000.9", "1000"), ("1e3", "1000"), ("yes 1.0000", "yes 1"), ("-0", "0"), ("nan", "nan")]
        {
            assert_eq!(float(output, answer), Ruling::Accepted, "{output} {answer}");
        }
        for (output, answer) in [
            ("0.002", "0"),
            ("1002", "1000"),
            ("no 1", "yes 1"),
            ("nan", "1"),
            ("inf", "1"),
            ("1", "inf"),
            ("", "1"),
            ("0x1", "1"),
        ] {
            assert_eq!(float(output, answer), Ruling::Wrong, "{output} {answer}");
        }
    }

    #[test]
    fn names() {
        assert_eq!(Comparison::named("exact"), Some(Ok(Comparison::Exact)));
        assert_eq!(Comparison::named("float:1e-6"), Some(Ok(Comparison::Float(1e-6))));
        assert_eq!(Comparison::named("./checker"), None);
        for bad in ["float", "float:", "float:x", "float:-1", "float:inf", "float:nan"] {
            assert!(matches!(Comparison::named(bad), Some(Err(_))), "{bad}");
        }
    }
}
