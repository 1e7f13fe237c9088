//! The tests of a problem: `*.in`, each with its `*.out` or `*.ans` beside it; a directory below is a group.

use std::cmp::Ordering;
use std::path::{Path, PathBuf};

use crate::error::{At, Error, Result};

/// How deep groups may lie in each other: a loop of links ends somewhere.
const DEPTH: usize = 8;

/// One test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// Its path below the directory, without `.in`.
    pub name: String,
    /// The directory it lies in, below the directory of all; empty for that one itself.
    pub group: String,
    /// Standard input.
    pub input: PathBuf,
    /// What is expected, where there is such a file.
    pub answer: Option<PathBuf>,
}

/// All tests of a directory, numbers in their names in the order of numbers; those of the directory itself come first.
///
/// # Errors
/// [`Error::Usage`] where there are none; with `answers`, where one has no answer.
pub fn find(directory: &Path, answers: bool) -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    collect(directory, "", 0, &mut cases)?;
    if cases.is_empty() {
        return Err(Error::Usage(format!("`{}` holds no tests: no file ends in `.in`", directory.display())));
    }
    if let Some(case) = cases.iter().find(|case| answers && case.answer.is_none()) {
        let name = &case.name;
        return Err(Error::Usage(format!(
            "test `{name}` of `{}` has no answer: no `{name}.out` or `{name}.ans`",
            directory.display()
        )));
    }
    Ok(cases)
}

fn collect(directory: &Path, group: &str, depth: usize, cases: &mut Vec<Case>) -> Result<()> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory).at("open", directory.display())? {
        // A name that is no text can be none of ours.
        names.extend(entry.at("read", directory.display())?.file_name().into_string());
    }
    names.sort_by(|a, b| by_number(a, b));
    let mut groups = Vec::new();
    for name in names {
        let path = directory.join(&name);
        let Ok(metadata) = std::fs::metadata(&path) else { continue };
        if metadata.is_dir() {
            groups.push(name);
            continue;
        }
        let Some(stem) = name.strip_suffix(".in").filter(|stem| !stem.is_empty()) else { continue };
        if !metadata.is_file() {
            return Err(Error::Usage(format!("`{}` is not a regular file", path.display())));
        }
        let answer =
            [".out", ".ans"].map(|end| directory.join(format!("{stem}{end}"))).into_iter().find(|it| it.is_file());
        cases.push(Case { name: join(group, stem), group: group.to_owned(), input: path, answer });
    }
    for name in groups.iter().filter(|name| depth < DEPTH && !name.starts_with('.')) {
        collect(&directory.join(name), &join(group, name), depth + 1, cases)?;
    }
    Ok(())
}

fn join(group: &str, name: &str) -> String {
    if group.is_empty() { name.to_owned() } else { format!("{group}/{name}") }
}

/// `2` before `10`: runs of digits are compared as numbers.
fn by_number(a: &str, b: &str) -> Ordering {
    let (mut left, mut right) = (a.as_bytes(), b.as_bytes());
    while let (Some(x), Some(y)) = (left.first(), right.first()) {
        if x.is_ascii_digit() && y.is_ascii_digit() {
            let (m, n) = (digits(left), digits(right));
            // Without leading zeros the longer number is the greater one.
            let order = value(m).len().cmp(&value(n).len()).then_with(|| value(m).cmp(value(n)));
            if order.is_ne() {
                return order;
            }
            (left, right) = (&left[m.len()..], &right[n.len()..]);
        } else if x != y {
            return x.cmp(y);
        } else {
            (left, right) = (&left[1..], &right[1..]);
        }
    }
    left.len().cmp(&right.len()).then_with(|| a.cmp(b))
}

fn digits(text: &[u8]) -> &[u8] {
    &text[..text.iter().take_while(|byte| byte.is_ascii_digit()).count()]
}

fn value(digits: &[u8]) -> &[u8] {
    &digits[digits.iter().take_while(|byte| **byte == b'0').count()..]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(files: &[&str]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for file in files {
            let path = directory.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        directory
    }

    #[test]
    fn tests_are_in_the_order_of_their_numbers_and_groups_are_directories() {
        let directory = directory(&[
            "10.in",
            "10.ans",
            "2.in",
            "2.out",
            "sub2/1.in",
            "sub2/1.out",
            "sub10/a.in",
            "sub10/a.out",
            "notes.txt",
            ".in",
            ".git/x.in",
        ]);
        let cases = find(directory.path(), true).unwrap();
        let names: Vec<_> = cases.iter().map(|case| (case.name.as_str(), case.group.as_str())).collect();
        assert_eq!(names, [("2", ""), ("10", ""), ("sub2/1", "sub2"), ("sub10/a", "sub10")]);
        assert_eq!(cases[1].answer, Some(directory.path().join("10.ans")));
    }

    #[test]
    fn no_tests_and_no_answer_are_said() {
        let error = |files: &[&str]| find(directory(files).path(), true).unwrap_err().to_string();
        assert!(error(&["1.out"]).contains("holds no tests"));
        assert!(error(&["g/1.in"]).contains("`g/1.out` or `g/1.ans`"));
        assert!(find(directory(&["1.in"]).path(), false).unwrap()[0].answer.is_none());
        assert!(find(Path::new("/nowhere"), true).unwrap_err().to_string().contains("/nowhere"));
    }

    #[test]
    fn a_loop_of_links_ends() {
        let directory = directory(&["1.in"]);
        std::os::unix::fs::symlink(".", directory.path().join("loop")).unwrap();
        assert!(find(directory.path(), false).unwrap().len() <= DEPTH + 1);
    }

    #[test]
    fn numbers_have_an_order() {
        for (less, more) in
            [("2", "10"), ("a9b", "a10b"), ("01", "1x"), ("1", "a"), ("a", "ab"), ("1", "01"), ("9", "010")]
        {
            let expected = if less == "1" && more == "01" { Ordering::Greater } else { Ordering::Less };
            assert_eq!(by_number(less, more), expected, "{less} {more}");
            assert_eq!(by_number(more, less), expected.reverse());
        }
    }
}
