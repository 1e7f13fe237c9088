//! `process.env` and what the runtime adds to it: HOME from the container's user database, socket activation.

use std::collections::HashMap;
use std::ffi::CString;

use crate::error::{Error, Result};
use crate::sys::path;

/// The largest user database that is read, in bytes; the container's image decides what is in it.
const PASSWD_LIMIT: usize = 1 << 20;

/// Turns the document's variables into C strings. Of variables that appear twice the last one counts, as everywhere
/// in the container world (execve would pass both, and programs would see the first).
///
/// # Errors
/// [`Error::Config`] for an entry with a NUL byte.
pub fn plan(document: &[String]) -> Result<Vec<CString>> {
    let mut place: HashMap<&str, usize> = HashMap::with_capacity(document.len());
    let mut variables: Vec<CString> = Vec::with_capacity(document.len() + 3);
    for (index, entry) in document.iter().enumerate() {
        let name = entry.split_once('=').map_or(entry.as_str(), |(name, _)| name);
        let nul = |_| Error::config(format!("$.process.env[{index}]"), "has a NUL byte");
        let variable = CString::new(entry.as_str()).map_err(nul)?;
        match place.insert(name, variables.len()) {
            Some(earlier) => {
                place.insert(name, earlier);
                variables[earlier] = variable;
            }
            None => variables.push(variable),
        }
    }
    Ok(variables)
}

/// The value of a variable.
pub fn get<'a>(variables: &'a [CString], name: &str) -> Option<&'a [u8]> {
    variables.iter().find_map(|variable| variable.to_bytes().strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

/// The home directory of `uid` by the container's `/etc/passwd`, else `/`. The caller's root directory is the container's.
///
/// Whatever the image has put there (a FIFO, a device, gigabytes) neither blocks nor fails the container.
pub fn home_of(uid: u32) -> CString {
    let home = read_passwd().and_then(|passwd| {
        passwd.split(|byte| *byte == b'\n').find_map(|line| {
            let mut fields = line.split(|byte| *byte == b':');
            let id = std::str::from_utf8(fields.nth(2)?).ok()?;
            (id.parse() == Ok(uid)).then(|| fields.nth(2).unwrap_or_default().to_vec())
        })
    });
    let mut variable = b"HOME=".to_vec();
    match home {
        Some(home) if !home.is_empty() && !home.contains(&0) => variable.extend_from_slice(&home),
        _ => variable.push(b'/'),
    }
    CString::new(variable).unwrap_or_else(|_| c"HOME=/".to_owned())
}

fn read_passwd() -> Option<Vec<u8>> {
    use std::os::fd::AsFd;
    // O_NONBLOCK: the open of a FIFO without a writer returns at once.
    let file = path::open("/etc/passwd", libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY).ok()?;
    let regular = path::fstat(file.as_fd()).is_ok_and(|stat| stat.st_mode & libc::S_IFMT == libc::S_IFREG);
    regular.then(|| path::read_all(file.as_fd(), PASSWD_LIMIT).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_two_counts() {
        let words = ["A=1", "B=2", "A=3"].map(String::from);
        assert_eq!(plan(&words).unwrap(), [c"A=3".to_owned(), c"B=2".to_owned()]);
    }

    #[test]
    fn what_is_no_c_string_names_its_place() {
        let error = plan(&["X=1".into(), "A=\0".into()]).unwrap_err();
        assert_eq!(error.to_string(), "$.process.env[1]: has a NUL byte");
    }

    #[test]
    fn a_name_is_not_a_prefix() {
        let variables = [c"PATHS=x".to_owned(), c"PATH=/bin".to_owned()];
        assert_eq!(get(&variables, "PATH"), Some(&b"/bin"[..]));
        assert_eq!(get(&variables, "PAT"), None);
    }
}
