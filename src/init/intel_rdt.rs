//! `linux.intelRdt`: cache and memory bandwidth allocation through resctrl (kernel: `filesystems/resctrl`;
//! runtime specification, "IntelRdt").

use std::collections::BTreeMap;
use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxIntelRdt;

use crate::error::{At, Error, Result};

/// Where everybody mounts it.
const MOUNT: &str = "/sys/fs/resctrl";

/// The directories that the runtime may make for a container, to be recorded before [`set_up`] makes them and to be
/// removed at the end.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Directories {
    /// The class of service, unless it is shared by `closID`.
    pub group: Option<PathBuf>,
    /// The monitoring group.
    pub monitoring: Option<PathBuf>,
}

/// Names the directories; refuses what this host cannot give.
///
/// # Errors
/// [`Error::Config`] for a closID that is no directory name, [`Error::Refused`] without a mounted resctrl.
pub fn plan(id: &str, document: &LinuxIntelRdt) -> Result<Directories> {
    plan_below(mounted()?, id, document)
}

fn mounted() -> Result<&'static Path> {
    let mount = Path::new(MOUNT);
    if mount.join("schemata").exists() {
        return Ok(mount);
    }
    Err(Error::Refused(format!("intelRdt: no resctrl file system is mounted on `{MOUNT}`")))
}

fn plan_below(mount: &Path, id: &str, document: &LinuxIntelRdt) -> Result<Directories> {
    let class = document.clos_id().as_deref();
    if let Some(name) = class
        && (name.is_empty() || name.contains(['/', '\0', '\n']) || name == "." || name == "..")
    {
        return Err(Error::config("$.linux.intelRdt.closID", "is no directory name"));
    }
    let group = mount.join(class.unwrap_or(id));
    Ok(Directories {
        monitoring: document.enable_monitoring().unwrap_or(false).then(|| group.join("mon_groups").join(id)),
        group: class.is_none().then_some(group),
    })
}

/// Puts process `pid` into its class, making and configuring that where needed. Its children follow.
///
/// # Errors
/// [`Error::Refused`] for a class that only `closID` names and nobody has made, and for one that exists with other
/// schemata than those asked for; else as `mkdir(2)` and `write(2)`, naming the file.
pub fn set_up(id: &str, document: &LinuxIntelRdt, pid: libc::pid_t) -> Result<()> {
    set_up_below(Path::new(MOUNT), id, document, pid)
}

fn set_up_below(mount: &Path, id: &str, document: &LinuxIntelRdt, pid: libc::pid_t) -> Result<()> {
    let class = document.clos_id().as_deref();
    let group = mount.join(class.unwrap_or(id));
    let wanted = lines(document);
    let made = match fs::create_dir(&group) {
        Ok(()) => true,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => false,
        Err(error) => return Err(Error::io("make the class of service", group.display(), &error)),
    };
    if made && class.is_some() && wanted.is_empty() {
        fs::remove_dir(&group).at("remove the class of service", group.display())?;
        return Err(Error::Refused(format!("intelRdt: no class of service `{}` has been set up", group.display())));
    }
    let schemata = group.join("schemata");
    if class.is_some() && !made && !wanted.is_empty() {
        let set = fs::read_to_string(&schemata).at("read", schemata.display())?;
        if !holds(&set, &wanted) {
            let words = format!("intelRdt: class of service `{}` exists with other schemata", group.display());
            return Err(Error::Refused(words));
        }
    } else if !wanted.is_empty() {
        // In one write: the kernel takes all lines of it, or names the first that it refuses in info/last_cmd_status.
        write(&schemata, &(wanted.join("\n") + "\n"))?;
    }
    write(&group.join("tasks"), &pid.to_string())?;
    if document.enable_monitoring().unwrap_or(false) {
        let monitoring = group.join("mon_groups").join(id);
        match fs::create_dir(&monitoring) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(Error::io("make the monitoring group", monitoring.display(), &error));
            }
            _ => write(&monitoring.join("tasks"), &pid.to_string())?,
        }
    }
    Ok(())
}

/// Removes the directories; one that is gone is no error.
///
/// # Errors
/// `EBUSY` and the like, naming what remains.
pub fn remove(directories: &Directories) -> Result<()> {
    for directory in [&directories.monitoring, &directories.group].into_iter().flatten() {
        match fs::remove_dir(directory) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(Error::io("remove the resctrl group", directory.display(), &error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// A container's class of service that is in force.
#[derive(Debug)]
pub struct Class(PathBuf);

/// The class of a container that was created with this document.
///
/// # Errors
/// [`Error::Refused`] where the container has none.
pub fn class(id: &str, document: Option<&LinuxIntelRdt>) -> Result<Class> {
    let document =
        document.ok_or_else(|| Error::Refused(format!("container `{id}` was created without `linux.intelRdt`")))?;
    Ok(Class(mounted()?.join(document.clos_id().as_deref().unwrap_or(id))))
}

impl Class {
    /// The lines of `schemata`.
    ///
    /// # Errors
    /// As `read(2)`.
    pub fn schemata(&self) -> Result<String> {
        let file = self.0.join("schemata");
        fs::read_to_string(&file).at("read", file.display())
    }

    /// Writes one line of `schemata`, such as `L3:0=ff`.
    ///
    /// # Errors
    /// As `write(2)`: `EINVAL` for a schema that the processor cannot have.
    pub fn set(&self, schema: &str) -> Result<()> {
        write(&self.0.join("schemata"), &format!("{schema}\n"))
    }
}

/// One write, as resctrl wants it.
fn write(file: &Path, text: &str) -> Result<()> {
    let mut opened = fs::OpenOptions::new().write(true).open(file).at("open", file.display())?;
    opened.write_all(text.as_bytes()).at("write to", format!("{}`, `{}", file.display(), text.trim_end()))
}

/// The lines to be written: those of `l3CacheSchema`, without its `MB:` lines where `memBwSchema` gives them, then that,
/// then `schemata`.
fn lines(document: &LinuxIntelRdt) -> Vec<&str> {
    let bandwidth = document.mem_bw_schema().as_deref().unwrap_or_default();
    let cache = document.l3_cache_schema().as_deref().unwrap_or_default().lines();
    let cache = cache.filter(|line| bandwidth.is_empty() || !line.trim_start().starts_with("MB:"));
    let more = document.schemata().iter().flatten().map(String::as_str);
    cache.chain(bandwidth.lines()).chain(more).map(str::trim).filter(|line| !line.is_empty()).collect()
}

/// Whether schemata as the kernel prints them have every value that is wanted.
fn holds(set: &str, wanted: &[&str]) -> bool {
    let set: BTreeMap<_, _> = set.lines().filter_map(resource).collect();
    wanted.iter().all(|line| {
        resource(line).is_some_and(|(name, wanted)| {
            set.get(name).is_some_and(|domains| wanted.iter().all(|(id, value)| domains.get(id) == Some(value)))
        })
    })
}

/// A line such as `L3:0=ffff;1=0f`: the resource, and per domain the value without leading zeros.
fn resource(line: &str) -> Option<(&str, BTreeMap<&str, String>)> {
    let (name, domains) = line.trim().split_once(':')?;
    let domains = domains.split(';').filter(|domain| !domain.trim().is_empty());
    let values = domains.map(|domain| {
        let (id, value) = domain.split_once('=')?;
        Some((id.trim(), value.trim().trim_start_matches('0').to_ascii_lowercase()))
    });
    Some((name.trim(), values.collect::<Option<_>>()?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn document(value: serde_json::Value) -> LinuxIntelRdt {
        serde_json::from_value(value).unwrap()
    }

    /// A directory that stands for resctrl: the files of a group are there before it is used.
    fn resctrl(groups: &[&str]) -> tempfile::TempDir {
        let mount = tempfile::tempdir().unwrap();
        for group in groups {
            fs::create_dir_all(mount.path().join(group)).unwrap();
            for file in ["schemata", "tasks"] {
                fs::write(mount.path().join(group).join(file), "").unwrap();
            }
        }
        mount
    }

    fn read(mount: &tempfile::TempDir, file: &str) -> String {
        fs::read_to_string(mount.path().join(file)).unwrap()
    }

    #[test]
    fn a_class_of_the_containers_own_is_configured_and_removed() {
        let mount = resctrl(&["c", "c/mon_groups/c"]);
        let wanted = document(json!({
            "l3CacheSchema": "L3:0=ff\nMB:0=10", "memBwSchema": "MB:0=70", "enableMonitoring": true
        }));
        let directories = plan_below(mount.path(), "c", &wanted).unwrap();
        assert_eq!(directories.group.as_deref(), Some(mount.path().join("c").as_path()));
        assert_eq!(directories.monitoring.as_deref(), Some(mount.path().join("c/mon_groups/c").as_path()));
        set_up_below(mount.path(), "c", &wanted, 42).unwrap();
        assert_eq!(read(&mount, "c/schemata"), "L3:0=ff\nMB:0=70\n");
        assert_eq!((read(&mount, "c/tasks"), read(&mount, "c/mon_groups/c/tasks")), ("42".into(), "42".into()));

        let gone = Directories { group: Some(mount.path().join("none")), monitoring: None };
        remove(&gone).unwrap();
        assert!(remove(&directories).unwrap_err().to_string().contains("mon_groups/c"));
    }

    #[test]
    fn a_shared_class_must_exist_or_be_described() {
        let mount = resctrl(&["gold"]);
        set_up_below(mount.path(), "c", &document(json!({"closID": "gold"})), 7).unwrap();
        assert_eq!(read(&mount, "gold/tasks"), "7");
        let error = set_up_below(mount.path(), "c", &document(json!({"closID": "silver"})), 7).unwrap_err();
        assert!(matches!(error, Error::Refused(_)), "{error}");
        assert!(!mount.path().join("silver").exists());
        assert_eq!(
            plan_below(mount.path(), "c", &document(json!({"closID": "gold"}))).unwrap(),
            Directories::default()
        );
    }

    #[test]
    fn a_shared_class_with_other_schemata_is_refused() {
        let mount = resctrl(&["gold"]);
        fs::write(mount.path().join("gold/schemata"), "    MB:0= 100;1=100\n    L3:0=00ff;1=ffff\n").unwrap();
        let ask = |schema: &str| {
            set_up_below(mount.path(), "c", &document(json!({"closID": "gold", "l3CacheSchema": schema})), 7)
        };
        ask("L3:0=FF;1=ffff").unwrap();
        ask("L3:1=ffff").unwrap();
        for other in ["L3:0=fe;1=ffff", "L2:0=ff", "L3:2=ff", "L3:garbage"] {
            assert!(matches!(ask(other), Err(Error::Refused(_))), "{other}");
        }
        assert_eq!(read(&mount, "gold/schemata"), "    MB:0= 100;1=100\n    L3:0=00ff;1=ffff\n");
    }
}
