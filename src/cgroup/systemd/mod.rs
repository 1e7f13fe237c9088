//! The systemd driver (`--systemd-cgroup`): the container's cgroup is a transient scope that a manager of systemd makes,
//! delegates and, when it is told to, takes away.
//!
//! The scope needs a process to begin with, so init cannot be born in it: it is handed over with the request. systemd gets
//! every limit that it has a property for, and the files are written beside, as for the cgroupfs driver: systemd may write
//! them again at any time, and then from its properties. See `docs/decisions/0011-systemd-driver.md`.

mod annotation;
mod bus;
mod properties;
mod unit;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use oci_spec::runtime::LinuxResources;
use zvariant::{OwnedObjectPath, Value};

pub use self::bus::Manager;
use self::bus::{Bus, Fault};
use self::properties::Property;
pub use self::unit::Unit;
use super::devices;
use super::layout::{Controller, Layout, Version};
use super::plan::{Directory, Plan, Request};
use crate::error::{At, Error, Result};

const EXISTS: &str = "org.freedesktop.systemd1.UnitExists";
const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";
/// From this version on `CPUWeight=idle` is known.
const KNOWS_IDLE: u32 = 252;

/// The name and arguments of one kind of unit: `a(sa(sv))`, which is always empty here.
type Auxiliary = Vec<(String, Vec<(String, Value<'static>)>)>;

/// Decides the scope and where its directories will be.
pub(super) fn plan(request: &Request<'_>, layout: &Layout) -> Result<Plan> {
    let manager = if request.unprivileged { Manager::User } else { Manager::System };
    let mut unit = Unit::parse(request.cgroups_path, request.id, manager)?;
    unit.properties = annotation::properties(request.annotations)?;
    if request.payload_leaf {
        return Err(Error::Refused(
            "the judge makes its own cgroups: use the cgroupfs driver, without `--systemd-cgroup`".to_owned(),
        ));
    }
    if manager == Manager::User && !layout.is_unified() {
        return Err(Error::Refused(
            "systemd cgroup driver without privilege needs cgroup v2: on v1 systemd delegates nothing to users"
                .to_owned(),
        ));
    }
    let own = Bus::connect(manager)?.property(None, "Manager", "ControlGroup").map_err(Error::from)?;
    unit.description = describe(request.id);
    let below = super::layout::safe_relative(&PathBuf::from(own).join(unit.path()))
        .ok_or_else(|| Error::Other("systemd is in a cgroup whose path climbs".to_owned()))?;
    let directories = layout.hierarchies.iter().map(|hierarchy| Directory {
        version: hierarchy.version,
        root: hierarchy.root.clone(),
        path: hierarchy.root.join(&below),
        controllers: hierarchy.controllers.clone(),
        existed: false,
        shared: false,
    });
    Ok(Plan { directories: directories.collect(), devices: true, unit: Some(unit), ..Plan::default() })
}

/// Names the container, and no other that has had its id.
fn describe(id: &str) -> String {
    let now = time::OffsetDateTime::now_utc().unix_timestamp_nanos();
    format!("rustbox container {id} ({}.{now})", std::process::id())
}

/// The version of the interface whose properties a plan's limits have.
fn version(plan: &Plan) -> Version {
    if plan.is_unified() { Version::V2 } else { Version::V1 }
}

/// The properties of limits; `weightless` as [`properties::limits`] has it is asked for only where it matters.
fn limits(bus: &mut Bus, plan: &Plan, resources: &LinuxResources) -> Result<Vec<Property>> {
    let idle = resources.cpu().as_ref().is_some_and(|cpu| cpu.idle() == Some(1));
    let weightless = idle && {
        let text = bus.property(None, "Manager", "Version").map_err(Error::from)?;
        let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
        digits.parse::<u32>().is_ok_and(|version| version >= KNOWS_IDLE)
    };
    properties::limits(resources, version(plan), weightless)
}

fn device_properties(unit: &Unit, resources: Option<&LinuxResources>) -> Result<Vec<Property>> {
    // Only the host's manager may load the program that rules devices.
    if unit.manager == Manager::User {
        return Ok(Vec::new());
    }
    let given = resources.and_then(|resources| resources.devices().as_deref()).unwrap_or_default();
    let names = std::fs::read_to_string("/proc/devices").at("read", "/proc/devices")?;
    Ok(properties::devices(&devices::rules(given)?, &names))
}

/// Has systemd make the scope around a process, and waits until it is there.
///
/// # Errors
/// [`Error::Refused`] where a unit of that name is there already; else what systemd says, or that it says nothing.
pub(super) fn start(unit: &Unit, plan: &Plan, pid: libc::pid_t, resources: Option<&LinuxResources>) -> Result<()> {
    let mut bus = Bus::connect(unit.manager)?;
    let mut list: Vec<Property> = Vec::new();
    let mut set = |name: &str, value: Value<'static>| list.push((name.to_owned(), value));
    set("Description", unit.description.clone().into());
    set("Slice", unit.slice.clone().into());
    set("PIDs", vec![pid.unsigned_abs()].into());
    set("Delegate", true.into());
    set("DefaultDependencies", false.into());
    // A scope that fails is then forgotten like one that ends.
    set("CollectMode", "inactive-or-failed".into());
    let io = if version(plan) == Version::V2 { "IOAccounting" } else { "BlockIOAccounting" };
    for accounting in ["CPUAccounting", "MemoryAccounting", "TasksAccounting", io] {
        set(accounting, true.into());
    }
    if let Some(resources) = resources {
        list.extend(limits(&mut bus, plan, resources)?);
    }
    list.extend(device_properties(unit, resources)?);
    for (name, text) in &unit.properties {
        let pointer = || format!("$.annotations.org.systemd.property.{name}");
        list.push(annotation::property(name, text).map_err(|reason| Error::config(pointer(), reason))?);
    }
    let body = (unit.name.as_str(), "replace", list, Auxiliary::new());
    let started = match bus.manager("StartTransientUnit", &body) {
        Err(Fault::Denied(name, _)) if name == EXISTS => {
            // One that has failed earlier stands in the way until it is forgotten.
            let _ = bus.manager("ResetFailedUnit", &(unit.name.as_str(),));
            bus.manager("StartTransientUnit", &body)
        }
        other => other,
    };
    let job: OwnedObjectPath = match started {
        Ok(reply) => reply.body()?,
        Err(Fault::Denied(name, _)) if name == EXISTS => {
            return Err(Error::Refused(format!(
                "unit `{0}` exists already: another container has its `cgroupsPath`; look with `systemctl status {0}`",
                unit.name
            )));
        }
        Err(fault) => return Err(in_words("start", unit, fault)),
    };
    bus.wait_for(&job, &format!("start `{}`", unit.name))?;
    // The two hierarchies in which systemd keeps its own books.
    let mut places =
        plan.directories.iter().filter(|it| it.version == Version::V2 || it.controllers.contains(&Controller::Systemd));
    if places.any(|directory| directory.path.exists()) {
        return Ok(());
    }
    Err(Error::Other(format!("systemd has started `{}`, but not in `{}`", unit.name, unit.slice)))
}

fn in_words(what: &str, unit: &Unit, fault: Fault) -> Error {
    Error::Context { context: format!("{what} unit `{}`", unit.name), source: Box::new(fault.into()) }
}

/// Tells systemd of changed limits.
///
/// # Errors
/// What systemd says.
pub(super) fn update(unit: &Unit, plan: &Plan, resources: &LinuxResources) -> Result<()> {
    let mut bus = Bus::connect(unit.manager)?;
    let mut list = limits(&mut bus, plan, resources)?;
    if resources.devices().is_some() {
        list.extend(device_properties(unit, Some(resources))?);
    }
    if list.is_empty() {
        return Ok(());
    }
    bus.manager("SetUnitProperties", &(unit.name.as_str(), true, list))
        .map(drop)
        .map_err(|fault| in_words("update", unit, fault))
}

/// The scope's object, where there is one and it is this container's.
fn look(bus: &mut Bus, unit: &Unit) -> Result<Option<OwnedObjectPath>> {
    let object: OwnedObjectPath = match bus.manager("GetUnit", &(unit.name.as_str(),)) {
        Ok(reply) => reply.body()?,
        Err(Fault::Denied(name, _)) if name == NO_SUCH_UNIT => return Ok(None),
        Err(fault) => return Err(in_words("look for", unit, fault)),
    };
    match bus.property(Some(&object), "Unit", "Description") {
        Ok(description) => Ok((description == unit.description).then_some(object)),
        // Gone meanwhile.
        Err(Fault::Denied(..)) => Ok(None),
        Err(fault) => Err(in_words("look at", unit, fault)),
    }
}

/// Whether the scope is there and is this container's: what has its name may be another's, with others in it.
///
/// # Errors
/// Where systemd cannot be asked.
pub(super) fn is_ours(unit: &Unit) -> Result<bool> {
    look(&mut Bus::connect(unit.manager)?, unit).map(|object| object.is_some())
}

/// Ends the scope, where it is this container's, and proves that it is gone.
///
/// # Errors
/// Where systemd cannot be asked, or the scope is still there after `patience`.
pub(super) fn stop(unit: &Unit, patience: Duration) -> Result<()> {
    let deadline = Instant::now() + patience;
    let mut bus = Bus::connect(unit.manager)?;
    bus.until(deadline);
    let mut pause = Duration::from_micros(200);
    let mut asked = false;
    while look(&mut bus, unit)?.is_some() {
        if !asked {
            asked = true;
            match bus.manager("StopUnit", &(unit.name.as_str(), "replace")) {
                Ok(reply) => bus.wait_for(&reply.body()?, &format!("stop `{}`", unit.name))?,
                Err(Fault::Denied(name, _)) if name == NO_SUCH_UNIT => return Ok(()),
                Err(fault) => return Err(in_words("stop", unit, fault)),
            }
            continue;
        }
        if Instant::now() >= deadline {
            return Err(Error::Other(format!(
                "unit `{0}` of systemd, which has been stopped and is still there; look with `systemctl status {0}`",
                unit.name
            )));
        }
        // systemd forgets a unit when it has nothing better to do.
        let _ = bus.manager("ResetFailedUnit", &(unit.name.as_str(),));
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
    Ok(())
}
