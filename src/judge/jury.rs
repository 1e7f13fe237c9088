//! What the jury's own programs say, checkers and interactors, by testlib's conventions.
//!
//! | exit code | ruling |
//! |---|---|
//! | 0 | accepted |
//! | 1 | wrong |
//! | 2, 4, 8 | presentation: of the wrong form, more than was asked for, ended too early |
//! | 7 | points: the first number that it writes on stderr |
//! | 3, anything else, a signal, a limit | failed: nothing is learned about the submission |
//! | SIGPIPE | presentation: whom it was talking to had left |
//!
//! What it writes on stderr is its message.

use super::cause::Status;
use super::evidence::{Checked, Ruling};
use super::output::Step;

/// How much of what it says is kept, in bytes.
const MESSAGE: usize = 1024;

/// What the end of a checker or of an interactor means.
pub fn ruling(role: &str, step: &Step, stderr: &[u8]) -> Checked {
    let said = String::from_utf8_lossy(&stderr[..stderr.len().min(MESSAGE)]).trim().to_owned();
    let code = step.exit_code.filter(|_| matches!(step.status, Status::Ok | Status::Re));
    let left_alone = step.status == Status::Sig && step.signal == Some(libc::SIGPIPE);
    let ruling = match code {
        Some(0) => Ruling::Accepted,
        Some(1) => Ruling::Wrong,
        Some(2 | 4 | 8) => Ruling::Presentation,
        Some(7) => Ruling::Points,
        None if left_alone => Ruling::Presentation,
        _ => Ruling::Failed,
    };
    let points = if ruling == Ruling::Points { first_number(&said) } else { None };
    let message = match (ruling, code) {
        (Ruling::Failed, Some(code)) => format!("the {role} exited with {code}: {said}"),
        (Ruling::Failed, None) => format!("the {role} ended with {}: {}", step.status.as_str(), step.cause.explain()),
        (_, None) => format!("the program left while the {role} was talking"),
        _ => said,
    };
    Checked { ruling, message, exit_code: step.exit_code, points, ended_first: None }
}

fn first_number(text: &str) -> Option<f64> {
    text.split_whitespace().find_map(|word| word.parse::<f64>().ok().filter(|number| number.is_finite()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_the_first_number_that_is_said() {
        assert_eq!(first_number("points 12.5 of 20"), Some(12.5));
        assert_eq!(first_number("well done"), None);
        assert_eq!(first_number("nan inf 3"), Some(3.0));
    }
}
