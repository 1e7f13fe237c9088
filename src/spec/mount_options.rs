//! The one table of mount options: what `mounts[].options` may say and what each word does.
//!
//! The words are those of the runtime spec ("Linux mount options") plus the ones that mount(8) and the other
//! runtimes know. The mounts code applies the table, `features` publishes its names; a word that is not in it is
//! data of the file system (`size=64k`), handed on as it is.

use libc::{
    MOUNT_ATTR_NOATIME, MOUNT_ATTR_NODEV, MOUNT_ATTR_NODIRATIME, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_NOSYMFOLLOW, MOUNT_ATTR_RDONLY, MOUNT_ATTR_RELATIME, MOUNT_ATTR_STRICTATIME, MS_BIND, MS_DIRSYNC,
    MS_I_VERSION, MS_LAZYTIME, MS_MANDLOCK, MS_NOATIME, MS_NODEV, MS_NODIRATIME, MS_NOEXEC, MS_NOSUID, MS_NOSYMFOLLOW,
    MS_POSIXACL, MS_PRIVATE, MS_RDONLY, MS_REC, MS_RELATIME, MS_REMOUNT, MS_SHARED, MS_SILENT, MS_SLAVE,
    MS_STRICTATIME, MS_SYNCHRONOUS, MS_UNBINDABLE,
};

/// All bits of the access-time field of `struct mount_attr` (`MOUNT_ATTR__ATIME`). It is an enumeration, not flags:
/// to set one mode the whole field must be in `attr_clr`, and zero means relatime.
pub const MOUNT_ATTR_ATIME_MASK: u64 = 0x70;

/// The `MS_` flags of which at most one can be in force.
const MS_ATIME_MODES: u64 = MS_NOATIME | MS_RELATIME | MS_STRICTATIME;

/// What one option word does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Sets these `MS_` flags; zero for `defaults`.
    Set(u64),
    /// Clears these `MS_` flags.
    Clear(u64),
    /// Changes the propagation once the mount is in place: one of the four `MS_` types, with `MS_REC` or without.
    Propagation(u64),
    /// Sets these `MOUNT_ATTR_` bits on the whole tree (`mount_setattr` with `AT_RECURSIVE`).
    SetTree(u64),
    /// Clears these `MOUNT_ATTR_` bits on the whole tree.
    ClearTree(u64),
    /// Asks for something that no flag of mount(2) expresses.
    Extension(Extension),
}

/// What the runtime does itself for a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extension {
    /// `tmpcopyup`: the new tmpfs starts with what the image holds at the destination.
    TmpCopyUp,
    /// `idmap`: the mount is id-mapped.
    Idmap,
    /// `ridmap`: the mount and those below it are id-mapped.
    RecursiveIdmap,
}

use Effect::{Clear, ClearTree, Extension as Ext, Propagation, Set, SetTree};

/// Every option word with its effect, sorted by word.
pub const MOUNT_OPTIONS: &[(&str, Effect)] = &[
    ("acl", Set(MS_POSIXACL)),
    ("async", Clear(MS_SYNCHRONOUS)),
    ("atime", Clear(MS_NOATIME)),
    ("bind", Set(MS_BIND)),
    ("defaults", Set(0)),
    ("dev", Clear(MS_NODEV)),
    ("diratime", Clear(MS_NODIRATIME)),
    ("dirsync", Set(MS_DIRSYNC)),
    ("exec", Clear(MS_NOEXEC)),
    ("idmap", Ext(Extension::Idmap)),
    ("iversion", Set(MS_I_VERSION)),
    ("lazytime", Set(MS_LAZYTIME)),
    ("loud", Clear(MS_SILENT)),
    ("mand", Set(MS_MANDLOCK)),
    ("noacl", Clear(MS_POSIXACL)),
    ("noatime", Set(MS_NOATIME)),
    ("nodev", Set(MS_NODEV)),
    ("nodiratime", Set(MS_NODIRATIME)),
    ("noexec", Set(MS_NOEXEC)),
    ("noiversion", Clear(MS_I_VERSION)),
    ("nolazytime", Clear(MS_LAZYTIME)),
    ("nomand", Clear(MS_MANDLOCK)),
    ("norelatime", Clear(MS_RELATIME)),
    ("nostrictatime", Clear(MS_STRICTATIME)),
    ("nosuid", Set(MS_NOSUID)),
    ("nosymfollow", Set(MS_NOSYMFOLLOW)),
    ("private", Propagation(MS_PRIVATE)),
    ("ratime", ClearTree(MOUNT_ATTR_NOATIME)),
    ("rbind", Set(MS_BIND | MS_REC)),
    ("rdev", ClearTree(MOUNT_ATTR_NODEV)),
    ("rdiratime", ClearTree(MOUNT_ATTR_NODIRATIME)),
    ("relatime", Set(MS_RELATIME)),
    ("remount", Set(MS_REMOUNT)),
    ("rexec", ClearTree(MOUNT_ATTR_NOEXEC)),
    ("ridmap", Ext(Extension::RecursiveIdmap)),
    ("rnoatime", SetTree(MOUNT_ATTR_NOATIME)),
    ("rnodev", SetTree(MOUNT_ATTR_NODEV)),
    ("rnodiratime", SetTree(MOUNT_ATTR_NODIRATIME)),
    ("rnoexec", SetTree(MOUNT_ATTR_NOEXEC)),
    ("rnorelatime", ClearTree(MOUNT_ATTR_RELATIME)),
    ("rnostrictatime", ClearTree(MOUNT_ATTR_STRICTATIME)),
    ("rnosuid", SetTree(MOUNT_ATTR_NOSUID)),
    ("rnosymfollow", SetTree(MOUNT_ATTR_NOSYMFOLLOW)),
    ("ro", Set(MS_RDONLY)),
    ("rprivate", Propagation(MS_PRIVATE | MS_REC)),
    ("rrelatime", SetTree(MOUNT_ATTR_RELATIME)),
    ("rro", SetTree(MOUNT_ATTR_RDONLY)),
    ("rrw", ClearTree(MOUNT_ATTR_RDONLY)),
    ("rshared", Propagation(MS_SHARED | MS_REC)),
    ("rslave", Propagation(MS_SLAVE | MS_REC)),
    ("rstrictatime", SetTree(MOUNT_ATTR_STRICTATIME)),
    ("rsuid", ClearTree(MOUNT_ATTR_NOSUID)),
    ("rsymfollow", ClearTree(MOUNT_ATTR_NOSYMFOLLOW)),
    ("runbindable", Propagation(MS_UNBINDABLE | MS_REC)),
    ("rw", Clear(MS_RDONLY)),
    ("shared", Propagation(MS_SHARED)),
    ("silent", Set(MS_SILENT)),
    ("slave", Propagation(MS_SLAVE)),
    ("strictatime", Set(MS_STRICTATIME)),
    ("suid", Clear(MS_NOSUID)),
    ("symfollow", Clear(MS_NOSYMFOLLOW)),
    ("sync", Set(MS_SYNCHRONOUS)),
    ("tmpcopyup", Ext(Extension::TmpCopyUp)),
    ("unbindable", Propagation(MS_UNBINDABLE)),
];

/// The effect of an option word; `None` when it is data for the file system.
pub fn lookup(word: &str) -> Option<Effect> {
    MOUNT_OPTIONS.binary_search_by(|(name, _)| name.cmp(&word)).ok().map(|at| MOUNT_OPTIONS[at].1)
}

/// A list of options taken together. Where two contradict each other, the later one holds, as in mount(8).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MountOptions {
    /// `MS_` flags to mount with.
    pub flags: u64,
    /// `MS_` flags that were named only to be absent (`rw`, `exec`): a bind mount that would otherwise
    /// keep its source's flag must drop it, and fails where the kernel locks it.
    pub cleared: u64,
    /// Propagation changes in the order given, each an `MS_` type with `MS_REC` or without.
    pub propagation: Vec<u64>,
    /// `MOUNT_ATTR_` bits to set on the whole tree.
    pub tree_set: u64,
    /// `MOUNT_ATTR_` bits to clear on the whole tree, applied before `tree_set` by the kernel.
    pub tree_clear: u64,
    /// `tmpcopyup` was given.
    pub tmpcopyup: bool,
    /// `idmap` or `ridmap` was given.
    pub idmap: Option<Idmap>,
    /// The rest, joined by commas: data for the file system.
    pub data: String,
}

/// How far an id mapping reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idmap {
    /// `idmap`: the mount alone.
    Mount,
    /// `ridmap`: the mount and those below it.
    Tree,
}

impl MountOptions {
    /// Reads a list of option words.
    pub fn parse<S: AsRef<str>>(words: &[S]) -> Self {
        let mut options = Self::default();
        for word in words {
            options.add(word.as_ref());
        }
        options
    }

    fn add(&mut self, word: &str) {
        match lookup(word) {
            Some(Set(bits)) => {
                if bits & MS_ATIME_MODES != 0 {
                    self.flags &= !MS_ATIME_MODES;
                }
                self.flags |= bits;
                self.cleared &= !bits;
            }
            Some(Clear(bits)) => {
                self.flags &= !bits;
                self.cleared |= bits;
            }
            Some(Propagation(kind)) => self.propagation.push(kind),
            Some(SetTree(bits)) => {
                self.clear_atime_of(bits);
                self.tree_set |= bits;
                // The access time is a field: its bits must all be cleared before one mode is set.
                self.tree_clear &= !bits | MOUNT_ATTR_ATIME_MASK;
            }
            Some(ClearTree(bits)) => {
                self.clear_atime_of(bits);
                self.tree_set &= !bits;
                self.tree_clear |= bits;
            }
            Some(Ext(Extension::TmpCopyUp)) => self.tmpcopyup = true,
            Some(Ext(Extension::Idmap)) => self.idmap = Some(Idmap::Mount),
            Some(Ext(Extension::RecursiveIdmap)) => self.idmap = Some(Idmap::Tree),
            None => {
                if !self.data.is_empty() {
                    self.data.push(',');
                }
                self.data.push_str(word);
            }
        }
    }

    fn clear_atime_of(&mut self, bits: u64) {
        // Relatime is zero, so `rrelatime` names the field without having a bit in it.
        if bits & !MOUNT_ATTR_ATIME_MASK == 0 {
            self.tree_set &= !MOUNT_ATTR_ATIME_MASK;
            self.tree_clear |= MOUNT_ATTR_ATIME_MASK;
        }
    }

    /// Whether this is a bind mount.
    pub fn is_bind(&self) -> bool {
        self.flags & MS_BIND != 0
    }

    /// Whether this is a recursive bind mount.
    pub fn is_recursive_bind(&self) -> bool {
        self.flags & (MS_BIND | MS_REC) == MS_BIND | MS_REC
    }

    /// Whether any option asks for `mount_setattr` on the whole tree.
    pub fn has_tree_attributes(&self) -> bool {
        self.tree_set != 0 || self.tree_clear != 0
    }
}

/// The `MOUNT_ATTR_` bits of those `MS_` flags that belong to the mount, not to its superblock.
///
/// The access-time modes become values of their field: to apply them clear [`MOUNT_ATTR_ATIME_MASK`] too.
pub fn attributes(flags: u64) -> u64 {
    const PAIRS: [(u64, u64); 8] = [
        (MS_RDONLY, MOUNT_ATTR_RDONLY),
        (MS_NOSUID, MOUNT_ATTR_NOSUID),
        (MS_NODEV, MOUNT_ATTR_NODEV),
        (MS_NOEXEC, MOUNT_ATTR_NOEXEC),
        (MS_NOATIME, MOUNT_ATTR_NOATIME),
        (MS_STRICTATIME, MOUNT_ATTR_STRICTATIME),
        (MS_NODIRATIME, MOUNT_ATTR_NODIRATIME),
        (MS_NOSYMFOLLOW, MOUNT_ATTR_NOSYMFOLLOW),
    ];
    PAIRS.iter().filter(|(ms, _)| flags & ms != 0).fold(0, |bits, (_, attr)| bits | attr)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &str) -> MountOptions {
        MountOptions::parse(&words.split_whitespace().collect::<Vec<_>>())
    }

    #[test]
    fn the_table_is_sorted_and_without_duplicates() {
        assert!(MOUNT_OPTIONS.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }

    #[test]
    fn every_flag_has_its_opposite() {
        for (name, effect) in MOUNT_OPTIONS {
            let opposite = |wanted: Effect| MOUNT_OPTIONS.iter().any(|(_, other)| *other == wanted);
            match *effect {
                Set(0) | Set(MS_REMOUNT) => {}
                Set(bits) if bits & MS_BIND != 0 => {}
                Set(MS_DIRSYNC) => {}
                Set(bits) => assert!(opposite(Clear(bits)), "{name}"),
                SetTree(bits) => assert!(opposite(ClearTree(bits)), "{name}"),
                ClearTree(bits) => assert!(opposite(SetTree(bits)), "{name}"),
                Clear(bits) => assert!(opposite(Set(bits)), "{name}"),
                Propagation(_) | Ext(_) => {}
            }
        }
    }

    #[test]
    fn the_later_of_two_contradicting_options_holds() {
        assert_eq!(parse("ro rw").flags, 0);
        assert_eq!(parse("ro rw").cleared, MS_RDONLY);
        assert_eq!(parse("rw ro").flags, MS_RDONLY);
        assert_eq!(parse("rw ro").cleared, 0);
        assert_eq!(parse("noatime strictatime").flags, MS_STRICTATIME);
        assert_eq!(parse("rro rrw").tree_set, 0);
        assert_eq!(parse("rrw rro"), parse("rro"));
    }

    #[test]
    fn access_time_of_a_tree_is_a_field_not_flags() {
        for (words, set) in [
            ("rnoatime", MOUNT_ATTR_NOATIME),
            ("rstrictatime", MOUNT_ATTR_STRICTATIME),
            ("rrelatime", 0),
            ("rnoatime rstrictatime", MOUNT_ATTR_STRICTATIME),
            ("rnoatime rrelatime", 0),
            ("rnoatime rro", MOUNT_ATTR_NOATIME | MOUNT_ATTR_RDONLY),
            ("rnoatime ratime", 0),
        ] {
            let options = parse(words);
            assert_eq!(options.tree_set, set, "{words}");
            assert_eq!(options.tree_clear, MOUNT_ATTR_ATIME_MASK, "{words}");
            assert!(options.has_tree_attributes());
        }
        assert_eq!(parse("rnodiratime").tree_clear, 0);
    }

    #[test]
    fn unknown_words_are_data_in_their_order() {
        let options = parse("nosuid size=64k rprivate mode=755 tmpcopyup");
        assert_eq!(options.data, "size=64k,mode=755");
        assert_eq!(options.propagation, [MS_PRIVATE | MS_REC]);
        assert!(options.tmpcopyup);
        assert!(!options.is_bind());
        assert!(parse("rbind").is_recursive_bind());
        assert!(!parse("bind").is_recursive_bind());
        assert_eq!(parse("rbind ridmap").idmap, Some(Idmap::Tree));
    }

    #[test]
    fn mount_flags_become_mount_attributes() {
        assert_eq!(attributes(MS_RDONLY | MS_NOSUID | MS_BIND | MS_SYNCHRONOUS), MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID);
    }
}
