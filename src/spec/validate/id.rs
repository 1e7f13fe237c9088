//! The container's id.

use crate::error::{Error, Result};

/// The longest id, in bytes.
const MAX: usize = 1024;

/// Checks an id: 1 to 1024 of `A-Z a-z 0-9 _ + - .`, since it names a directory, and no dot first: names in the state root
/// that begin with one are the runtime's own, and nobody looks for a container there.
///
/// # Errors
/// [`Error::Usage`] that says what is wrong with it.
pub fn validate_id(id: &str) -> Result<()> {
    let refuse = |why: &str| {
        let shown: String = id.chars().take(64).collect::<String>().escape_debug().collect();
        let dots = if id.chars().nth(64).is_some() { "…" } else { "" };
        Err(Error::Usage(format!("container id `{shown}{dots}` {why}")))
    };
    if id.is_empty() {
        return refuse("is empty");
    }
    if id.len() > MAX {
        return refuse("is longer than 1024 characters");
    }
    if id.starts_with('.') {
        return refuse("begins with a dot, as the runtime's own directories do; choose another");
    }
    if !id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_+-.".contains(&byte)) {
        return refuse("has a character other than `A-Z a-z 0-9 _ + - .`");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::validate_id;

    #[test]
    fn ids() {
        for good in ["a", "A_b+c-d.9", "a.", "-", "+.", &"x".repeat(1024)] {
            assert!(validate_id(good).is_ok(), "{good}");
        }
        for bad in
            ["", ".", "..", "...", ".hidden", "../x", "a/b", "a b", "a\0", "ä", "a,b", "a:b", "a\n", &"x".repeat(1025)]
        {
            assert!(validate_id(bad).is_err(), "{bad}");
        }
        let message = validate_id(&"/".repeat(2000)).unwrap_err().to_string();
        assert!(message.len() < 200 && message.contains('…'), "{message}");
    }
}
