//! `checkpoint`.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use super::criu::{Criu, Request};
use super::external::Description;
use super::wire::Message;
use super::{EXTERNAL_NAMESPACES, Images, require_root};
use crate::cgroup::{self, Controller, Version};
use crate::container::delete::{Deleted, release};
use crate::container::namespaces::Namespaces;
use crate::container::root::Root;
use crate::container::state::{Status, read_spec, status, waits};
use crate::error::{At, Error, Result};
use crate::sys::{descriptors, pidfd, process};

/// How long a container that CRIU has killed may take to be gone, in milliseconds.
const DEATH: i32 = 10_000;

/// What `checkpoint` is asked for.
#[derive(Debug, Clone)]
pub struct Dump {
    /// Where to, and how.
    pub images: Images,
    /// Images of an earlier pre-dump, relative to the images' directory.
    pub parent: Option<PathBuf>,
    /// The container goes on.
    pub leave_running: bool,
    /// Only memory is dumped, and the container goes on.
    pub pre_dump: bool,
    /// Descriptor that gets a zero byte once lazy pages can be asked for.
    pub status_fd: Option<i32>,
    /// Address and port of a page server that takes the memory.
    pub page_server: Option<(String, u16)>,
}

/// Dumps a running or paused container (one that was paused runs for a moment), and releases it unless it is to go on.
///
/// # Errors
/// [`Error::State`] where it does not run; CRIU's own words where it cannot. The container then goes on.
pub fn checkpoint(root: &Root, id: &str, dump: &Dump) -> Result<Option<Deleted>> {
    require_root()?;
    let directory = root.lock(id)?;
    let record = directory.record()?;
    let (now, live) = status(directory.fd(), &record)?;
    let (Status::Running | Status::Paused, Some(live)) = (now, live) else {
        return Err(Error::state(id, format!("cannot be checkpointed: it is {now}")));
    };
    if now == Status::Paused && waits(directory.fd(), &record) {
        return Err(Error::state(id, "cannot be checkpointed: it was paused before it was started"));
    }
    let spec = read_spec(directory.fd(), id)?;
    if let Some(parent) = &dump.parent {
        check_parent(&dump.images.directory, parent)?;
    }
    let opened = dump.images.open(true, "dump.log")?;
    let mut options = dump.images.message(&opened);
    options
        .number(2, live.process.pid.into())
        .flag(3, dump.leave_running)
        .bytes(13, record.rootfs.as_os_str().as_encoded_bytes());
    if let Some(path) = freezer(&record.cgroup) {
        options.bytes(44, path.as_os_str().as_encoded_bytes());
    }
    if let Some(parent) = &dump.parent {
        options.bytes(14, parent.as_os_str().as_encoded_bytes());
    }
    if dump.pre_dump || dump.parent.is_some() {
        options.flag(15, true);
    }
    if let Some(fd) = dump.status_fd {
        options.number(49, fd.into());
    }
    if let Some((address, port)) = &dump.page_server {
        options.message(11, Message::default().bytes(1, address.as_bytes()).number(2, (*port).into()));
    }
    let namespaces = Namespaces::plan(&spec);
    for (flag, name, label) in EXTERNAL_NAMESPACES {
        if let Some(path) = namespaces.path(flag) {
            let inode = nix::sys::stat::stat(path).at("stat", path.display())?.st_ino;
            options.bytes(37, format!("{name}[{inode}]:{label}").as_bytes());
        }
    }
    if !dump.pre_dump {
        let description = Description::of(live.process.pid, &spec, &record.streams)?;
        for point in &description.external {
            options.message(23, Message::default().bytes(1, point.as_bytes()).bytes(2, point.as_bytes()));
        }
        for file in description.files() {
            options.bytes(37, file.as_bytes());
        }
        description.write(&dump.images.directory)?;
    }
    let request = if dump.pre_dump { Request::PreDump } else { Request::Dump };
    let criu = Criu::start(&dump.images.criu, None, || {
        if let Some(fd) = dump.status_fd {
            process::inherited(fd).and_then(descriptors::keep_on_exec).at("keep descriptor", fd)?;
        }
        opened.open_again()
    })?;
    // containerd pauses a task before it asks for a checkpoint. CRIU cannot stop what is frozen already: it freezes it anew.
    let cgroup = record.cgroup.open();
    let paused = now == Status::Paused;
    if paused {
        cgroup.thaw()?;
    }
    let dumped = criu.request(request, &options, &opened.log, &mut |_| Ok(()));
    if paused && (dumped.is_err() || dump.leave_running || dump.pre_dump) {
        cgroup.freeze()?;
    }
    dumped?;
    if dump.leave_running || dump.pre_dump {
        return Ok(None);
    }
    pidfd::wait_end(live.pidfd.as_fd(), DEATH).at("wait for the end of", id)?;
    Ok(Some(release(root, directory, &record, Some(live.pidfd))))
}

/// The cgroup by which CRIU freezes the container at once; in one that others are in it would freeze them too.
fn freezer(plan: &cgroup::Plan) -> Option<&Path> {
    let v1 = plan.directory(Controller::Freezer).filter(|directory| directory.version == Version::V1);
    v1.or(plan.unified().filter(|_| plan.is_unified()))
        .filter(|directory| !directory.shared)
        .map(|directory| directory.path.as_path())
}

/// CRIU looks for the earlier images below the new ones' directory.
fn check_parent(images: &Path, parent: &Path) -> Result<()> {
    if parent.is_absolute() {
        return Err(Error::Usage("--parent-path must be relative to --image-path".to_owned()));
    }
    let place = images.join(parent);
    let found = std::fs::metadata(&place).at("open the images of --parent-path", place.display())?;
    if found.is_dir() {
        Ok(())
    } else {
        Err(Error::sys("open the images of --parent-path", place.display(), crate::sys::Errno::ENOTDIR))
    }
}
