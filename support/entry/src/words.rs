//! What the words of the command line call, and what the configuration says of namespaces that they name.

use core::mem::MaybeUninit;

use super::{AT_FDCWD, CLOSE, FSTAT, MUNMAP, OPENAT, Word, call, map, starts};

/// What the words call.
pub(super) enum Called {
    /// `exec`, whose container is not looked at.
    Exec,
    /// `create` or `run` of a bundle.
    Create(Word),
    /// `run` of what is judged without a bundle: in a sandbox that has a user namespace and a network namespace.
    Judge,
    /// Nothing that enters a container, or nothing that is to be done.
    Other,
}

/// The command that the words call.
///
/// # Safety
/// `words` are `count` strings.
pub(super) unsafe fn called(words: *const Word, count: usize) -> Called {
    let mut command = 0;
    let mut bundle: Word = c".".as_ptr().cast();
    let mut at = 1;
    while at < count {
        // SAFETY: below `count`.
        unsafe {
            let word = *words.add(at);
            if command == 0 && (starts(word, b"create\0") || starts(word, b"run\0")) {
                command = *word;
            } else if command == 0 && starts(word, b"exec\0") {
                return Called::Exec;
            } else if command == 0 && starts(word, b"--dry-run\0") {
                return Called::Other;
            } else if command == b'r' && (starts(word, b"--\0") || starts(word, b"--code") || starts(word, b"--source"))
            {
                return Called::Judge;
            } else if starts(word, b"-b\0") || starts(word, b"--bundle\0") {
                at += 1;
                if at < count {
                    bundle = *words.add(at);
                }
            } else if starts(word, b"--bundle=") {
                bundle = word.add(b"--bundle=".len());
            }
        }
        at += 1;
    }
    if command == 0 { Called::Other } else { Called::Create(bundle) }
}

/// What a configuration says of namespaces.
pub(super) struct Wanted {
    /// It has a user namespace, or cannot be read.
    pub(super) user: bool,
    /// It has a network namespace without a path.
    pub(super) network: bool,
}

/// What the bundle's config.json says of namespaces.
///
/// # Safety
/// `bundle` is a string.
pub(super) unsafe fn namespaces(bundle: Word) -> Wanted {
    const O_PATH_DIRECTORY: usize = 0o12_200_000;
    const O_NONBLOCK_NOCTTY: usize = 0o4_400;
    const PROT_READ: usize = 1;
    const MAP_PRIVATE: usize = 2;
    let unreadable = Wanted { user: true, network: false };
    // SAFETY: the kernel reads strings and fills a `stat`, whose size stands at its byte 48; the mapping is as long as it.
    unsafe {
        let dir = call(OPENAT, [AT_FDCWD, bundle as usize, O_PATH_DIRECTORY, 0, 0]);
        let file = call(OPENAT, [dir as usize, c"config.json".as_ptr() as usize, O_NONBLOCK_NOCTTY, 0, 0]);
        call(CLOSE, [dir as usize, 0, 0, 0, 0]);
        if file < 0 {
            return unreadable;
        }
        let mut stat = MaybeUninit::<[usize; 18]>::uninit();
        let known = call(FSTAT, [file as usize, stat.as_mut_ptr() as usize, 0, 0, 0]);
        let length = if known == 0 { *stat.as_ptr().cast::<usize>().add(6) } else { 0 };
        let text = map(0, length, PROT_READ, MAP_PRIVATE, file, 0);
        call(CLOSE, [file as usize, 0, 0, 0, 0]);
        if text < 0 {
            return unreadable;
        }
        let wanted = named(text as *const u8, length);
        call(MUNMAP, [text as usize, length, 0, 0, 0]);
        wanted
    }
}

/// What the text says of namespaces: `"type": "user"`, and `"type": "network"` in an object without `"path"`.
///
/// # Safety
/// `text` is as long as `length` says.
unsafe fn named(text: *const u8, length: usize) -> Wanted {
    let mut wanted = Wanted { user: false, network: false };
    // SAFETY: every index is compared with `length` first.
    let has = |at: usize, what: &[u8]| unsafe {
        let mut same = 0;
        while same < what.len() && at + same < length && *text.add(at + same) == *what.as_ptr().add(same) {
            same += 1;
        }
        same == what.len()
    };
    // SAFETY: the same.
    let byte = |at: usize| unsafe { if at < length { *text.add(at) } else { 0 } };
    // Since the last brace, there was a path, a new network.
    let (mut path, mut network) = (false, false);
    let mut at = 0;
    while at < length {
        if byte(at) == b'{' || byte(at) == b'}' {
            wanted.network |= network && !path;
            (path, network) = (false, false);
        } else if has(at, b"\"path\"") {
            path = true;
        } else if has(at, b"\"type\"") {
            let mut value = at + b"\"type\"".len();
            while byte(value).is_ascii_whitespace() || byte(value) == b':' {
                value += 1;
            }
            wanted.user |= has(value, b"\"user\"");
            network |= has(value, b"\"network\"");
        }
        at += 1;
    }
    wanted
}
