//! `/proc/<pid>/mountinfo` (proc(5)), as bytes: a mount point is no text, and who may mount a FUSE file system may name it.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// A mount, as far as the proof of a cleanup looks at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mounted {
    /// Its id in this mount namespace.
    pub id: u64,
    /// The id of the mount that it is mounted on; its own for the root.
    pub parent: u64,
    /// Where it is mounted.
    pub point: PathBuf,
    /// The type of its file system.
    pub fstype: String,
}

/// Every mount of the table, in the order in which they were mounted; else the number of the first line, from 1 on, that is
/// none: what cannot be understood must not be taken for nothing.
///
/// # Errors
/// The number of that line.
pub fn parse(table: &[u8]) -> Result<Vec<Mounted>, usize> {
    parse_where(table, |_| true)
}

/// The same of the mounts whose point, as the kernel writes it, is `wanted`; of the others only that they have one is looked at.
///
/// # Errors
/// As [`parse`].
pub fn parse_where(table: &[u8], wanted: impl Fn(&[u8]) -> bool) -> Result<Vec<Mounted>, usize> {
    let lines = table.split(|byte| *byte == b'\n').enumerate().filter(|(_, line)| !line.is_empty());
    let point = |line: &'_ [u8]| {
        let start = 1 + line.iter().enumerate().filter(|(_, byte)| **byte == b' ').nth(3)?.0;
        let end = start + line[start..].iter().position(|byte| *byte == b' ')?;
        (line[start] == b'/').then(|| wanted(&line[start..end]))
    };
    let chosen = lines.filter_map(|(index, line)| match point(line) {
        None => Some(Err(index + 1)),
        Some(false) => None,
        Some(true) => Some(mounted(line).ok_or(index + 1)),
    });
    chosen.collect()
}

/// `36 35 98:0 /root /mount/point rw,noatime shared:1 … - ext4 /dev/root rw,errors=continue`; the optional fields end with a dash
/// of its own.
fn mounted(line: &[u8]) -> Option<Mounted> {
    let mut fields = line.split(|byte| *byte == b' ');
    let mut id = || std::str::from_utf8(fields.next()?).ok()?.parse().ok();
    let (id, parent) = (id()?, id()?);
    let point = fields.nth(2)?;
    let mut behind = fields.skip(1).skip_while(|field| *field != b"-").skip(1);
    let fstype = behind.next().filter(|fstype| !fstype.is_empty())?;
    point.starts_with(b"/").then(|| Mounted {
        id,
        parent,
        point: PathBuf::from(OsString::from_vec(unescape(point))),
        fstype: String::from_utf8_lossy(&unescape(fstype)).into_owned(),
    })
}

/// Decodes the octal escapes of the kernel: `\040` is a space.
pub fn unescape(field: &[u8]) -> Vec<u8> {
    let digit = |byte: u8| (b'0'..=b'7').contains(&byte).then(|| u32::from(byte - b'0'));
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        let escaped = match tail {
            [a, b, c, ..] if *first == b'\\' => {
                digit(*a).zip(digit(*b)).zip(digit(*c)).and_then(|((a, b), c)| u8::try_from(a * 64 + b * 8 + c).ok())
            }
            _ => None,
        };
        plain.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &tail[3..] } else { tail };
    }
    plain
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use proptest::prelude::*;

    use super::*;

    /// What the kernel does with a path (`mangle_path` with " \t\n\\#").
    fn escape(path: &[u8]) -> Vec<u8> {
        let one = |byte: &u8| match byte {
            b' ' | b'\t' | b'\n' | b'\\' | b'#' => format!("\\{byte:03o}").into_bytes(),
            byte => vec![*byte],
        };
        path.iter().flat_map(one).collect()
    }

    fn line(point: &[u8], optional: &str, fstype: &str) -> Vec<u8> {
        let (head, tail) = (b"36 35 98:0 / ".as_slice(), format!(" rw,noatime{optional} - {fstype} none rw\n"));
        [head, &escape(point), tail.as_bytes()].concat()
    }

    #[test]
    fn octal_escapes_are_decoded() {
        assert_eq!(unescape(br"/a\040b\134c"), br"/a b\c");
        assert_eq!(unescape(br"/plain\"), br"/plain\");
        assert_eq!(unescape(br"\777\08"), br"\777\08");
    }

    #[test]
    fn a_line_that_is_none_is_named() {
        let good = line(b"/a", "", "tmpfs");
        for bad in [
            "36 35",
            "36 x 98:0 / /a rw - tmpfs none rw",
            "-6 35 98:0 / /a rw - tmpfs none rw",
            "36 35 98:0 / relative rw - tmpfs none rw",
            "36 35 98:0 / /a rw shared:1",
            "36 35 98:0 / /a rw - ",
        ] {
            assert_eq!(parse(&[&good, bad.as_bytes(), b"\n"].concat()), Err(2), "{bad}");
        }
        assert_eq!(parse(b""), Ok(Vec::new()));
    }

    #[test]
    fn of_what_nobody_wants_the_point_is_looked_at() {
        let table = [line(b"/a", "", "tmpfs"), line(b"/a b", " shared:1", "proc"), line(b"/c", "", "ext4")].concat();
        let points = |wanted: &dyn Fn(&[u8]) -> bool| {
            let mounts = parse_where(&table, wanted).unwrap();
            mounts.into_iter().map(|mount| mount.point).collect::<Vec<_>>()
        };
        assert_eq!(points(&|_| false), Vec::<PathBuf>::new());
        assert_eq!(points(&|point| point == br"/a\040b"), [PathBuf::from("/a b")]);
        assert_eq!(points(&|_| true), ["/a", "/a b", "/c"].map(PathBuf::from));
        for bad in ["36 35", "36 35 98:0 / relative rw - tmpfs none rw", "36 35 98:0 / ", "36 35 98:0 / /a"] {
            assert_eq!(parse_where(&[&table, bad.as_bytes(), b"\n"].concat(), |_| false), Err(4), "{bad}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn every_mount_point_is_read_as_the_kernel_wrote_it(
            points in prop::collection::vec(prop::collection::vec(1u8..=255, 0..40), 0..6),
            optional in prop::sample::select(vec!["", " shared:1", " shared:1 master:2", " unbindable", " new-kind:x"]),
        ) {
            let points: Vec<Vec<u8>> = points.into_iter().map(|name| [b"/".as_slice(), &name].concat()).collect();
            let table: Vec<u8> = points.iter().flat_map(|point| line(point, optional, "fuse.x")).collect();
            let parsed = parse(&table).expect("well formed");
            let read: Vec<&[u8]> = parsed.iter().map(|mount| mount.point.as_os_str().as_bytes()).collect();
            prop_assert_eq!(read, points);
            prop_assert!(parsed.iter().all(|mount| mount.fstype == "fuse.x"));
        }

        #[test]
        fn no_bytes_make_it_panic(table in prop::collection::vec(prop::sample::select(b" \n\\/-0179:ar\xff\0".to_vec()), 0..300)) {
            let _ = parse(&table);
        }
    }
}
