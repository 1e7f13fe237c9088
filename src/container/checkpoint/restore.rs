//! `restore`.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;

use oci_spec::runtime::Spec;

use super::criu::{Criu, Notice, Request};
use super::external::Description;
use super::wire::Message;
use super::{EXTERNAL_NAMESPACES, Images, Opened, require_root};
use crate::cgroup;
use crate::container::delete::poststop;
use crate::container::hooks::Kind;
use crate::container::identity;
use crate::container::namespaces::Namespaces;
use crate::container::pid_file;
use crate::container::record::InitRecord;
use crate::container::report::Report;
use crate::container::root::Root;
use crate::container::running_hook;
use crate::container::state::{Directory, Record, Status, new_record, streams};
use crate::error::{At, Error, Result};
use crate::init::rootfs::{CgroupView, Rootfs, RootfsContext};
use crate::spec::{self, Bundle};
use crate::sys::clone::{CloneArgs, clone3};
use crate::sys::mount::{
    AT_RECURSIVE, MOUNT_ATTR_RDONLY, MountAttr, OPEN_TREE_CLONE, mount, mount_setattr, move_mount, open_tree,
};
use crate::sys::process::Ended;
use crate::sys::wait::exit_now;
use crate::sys::{Errno, descriptors, path, pidfd, process, socket};
use crate::{cleanup, init};

/// What `restore` is asked for.
#[derive(Debug)]
pub struct Restore {
    /// Where from, and how.
    pub images: Images,
    /// File that gets the pid of the container's first process.
    pub pid_file: Option<PathBuf>,
    /// Socket that gets the master of the container's terminal.
    pub console_socket: Option<OwnedFd>,
    /// `cgroupsPath` is `slice:prefix:name` for systemd.
    pub systemd_cgroup: bool,
    /// `TYPE:NAME` of a security profile that replaces the one in the images.
    pub lsm_profile: Option<String>,
    /// SELinux context of mounts that replaces the one in the images.
    pub lsm_mount_context: Option<String>,
}

/// A container that runs again. Its first process is a child of the caller.
#[derive(Debug)]
pub struct Restored {
    /// Its directory, locked.
    pub directory: Directory,
    /// What is recorded of it.
    pub record: Record,
    /// A handle of its first process.
    pub pidfd: OwnedFd,
}

/// Restores a container from its bundle and the images of a checkpoint.
///
/// # Errors
/// What is wrong with the bundle, or CRIU's own words; then nothing of the container remains, or [`Error::Unclean`] says what
/// does.
pub fn restore(root: &Root, id: &str, bundle: &Bundle, restore: &Restore) -> Result<Restored> {
    require_root()?;
    spec::validate_id(id)?;
    spec::validate(&bundle.spec, &spec::Host::probe())?;
    let opened = restore.images.open(false, "restore.log")?;
    let description = Description::read(&restore.images.directory)?;
    let mut plan = Plan::new(id, bundle, restore)?;
    let directory = root.claim(&plan.record, &bundle.spec)?;
    match plan.make(&directory, &opened, &description) {
        Ok(pidfd) => Ok(Restored { directory, record: plan.record, pidfd }),
        Err(error) => {
            if let Some(file) = &restore.pid_file {
                let _ = std::fs::remove_file(file);
            }
            let Plan { mut record, init, init_file, hooks_ran, .. } = plan;
            if init_file.is_none() {
                record.cgroup = record.cgroup.unentered();
            }
            let proof = cleanup::release(root, directory, &record, init, |directory| {
                if hooks_ran {
                    let _ = poststop(directory, &record);
                }
            });
            Err(proof.after(error))
        }
    }
}

struct Plan<'a> {
    bundle: &'a Bundle,
    asked: &'a Restore,
    namespaces: Namespaces,
    rootfs: Rootfs,
    record: Record,
    /// The restored process, as soon as it is known.
    init: Option<OwnedFd>,
    /// Where it is recorded; made before anything enters the cgroups.
    init_file: Option<OwnedFd>,
    hooks_ran: bool,
}

impl<'a> Plan<'a> {
    fn new(id: &str, bundle: &'a Bundle, asked: &'a Restore) -> Result<Plan<'a>> {
        let spec = &bundle.spec;
        let cgroups_path = spec.linux().as_ref().and_then(|linux| linux.cgroups_path().as_deref());
        if asked.systemd_cgroup {
            return Err(Error::Refused(
                "restore makes its cgroups before there is a process: use it without `--systemd-cgroup`".to_owned(),
            ));
        }
        let request = cgroup::Request { cgroups_path, id, ..cgroup::Request::default() };
        let mut cgroup = cgroup::plan(&request, &cgroup::Layout::probe()?)?;
        cgroup.survey()?;
        let namespaces = Namespaces::plan(spec);
        if !namespaces.has(libc::CLONE_NEWNS) {
            return Err(Error::config("$.linux.namespaces", "has no mount namespace, and criu restores mounts in one"));
        }
        let context = RootfsContext {
            userns: namespaces.has(libc::CLONE_NEWUSER),
            userns_path: namespaces.path(libc::CLONE_NEWUSER).map(Into::into),
            new_mount_ns: true,
            cgroup_ns: namespaces.has(libc::CLONE_NEWCGROUP),
            no_pivot: false,
            cgroup: CgroupView::of(&cgroup),
        };
        let rootfs = Rootfs::plan(spec, &bundle.dir, &context)?;
        let own_pid_namespace = namespaces.new & libc::CLONE_NEWPID != 0;
        let mut record = new_record(id, &bundle.dir, rootfs.path().to_owned(), spec, cgroup, own_pid_namespace)?;
        record.ungated = true;
        record.streams = streams(spec);
        Ok(Plan { bundle, asked, namespaces, rootfs, record, init: None, init_file: None, hooks_ran: false })
    }

    fn make(&mut self, directory: &Directory, opened: &Opened, description: &Description) -> Result<OwnedFd> {
        let spec = &self.bundle.spec;
        let resources = spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
        let cgroup = self.record.cgroup.create(resources)?;
        if *cgroup.plan() != self.record.cgroup {
            self.record.cgroup = cgroup.plan().clone();
            directory.rewrite(&self.record)?;
        }
        self.rootfs.make_mount_points()?;
        self.namespaces.open()?;
        let entry = cgroup.entry()?;
        let sources = description.sources(&self.as_mounted(spec), &self.bundle.dir, &self.record.cgroup)?;

        let joined: Vec<_> = EXTERNAL_NAMESPACES
            .iter()
            .filter_map(|(flag, _, label)| Some((*label, self.namespaces.path(*flag)?)))
            .map(|(label, file)| Ok((label, path::open(file, libc::O_RDONLY).at("open", file.display())?)))
            .collect::<Result<_>>()?;
        let rootfs = self.rootfs.path().to_owned();
        self.init_file = Some(directory.begin_init()?);
        let criu = Criu::start(&self.asked.images.criu, entry.into.as_ref().map(AsFd::as_fd), || {
            entry.enter()?;
            for (label, fd) in &joined {
                descriptors::keep_on_exec(fd.as_fd()).at("keep", label)?;
            }
            own_mounts(&rootfs)?;
            opened.open_again()
        })?;

        let mut options = self.asked.images.message(opened);
        options.flag(6, true).bytes(13, rootfs.as_os_str().as_encoded_bytes()).flag(26, true);
        for (point, source) in &sources {
            let mut external = Message::default();
            external.bytes(1, point.as_bytes()).bytes(2, source.as_os_str().as_encoded_bytes());
            options.message(23, &external);
        }
        let inherited = description.inherited().chain(joined.iter().map(|(label, fd)| (*label, fd.as_raw_fd())));
        for (key, fd) in inherited {
            options.message(27, Message::default().bytes(1, key.as_bytes()).number(2, fd.into()));
        }
        for (controller, path) in own_cgroups(criu.pid())? {
            options.message(25, Message::default().bytes(1, controller.as_bytes()).bytes(2, path.as_bytes()));
        }
        for (field, text) in [(53, &self.asked.lsm_profile), (63, &self.asked.lsm_mount_context)] {
            if let Some(text) = text {
                options.bytes(field, text.as_bytes());
            }
        }
        let pid =
            criu.request(Request::Restore, &options, &opened.log, &mut |notice| self.notified(directory, notice))?;
        self.init.take().ok_or_else(|| Error::Other(format!("criu restored process {pid} without a word before")))
    }

    /// The configuration with the destinations that the images know: a link in the root file system was followed.
    fn as_mounted(&self, spec: &Spec) -> Spec {
        let mut spec = spec.clone();
        for mount in spec.mounts_mut().iter_mut().flatten() {
            mount.set_destination(self.rootfs.resolve(mount.destination()));
        }
        spec
    }

    fn notified(&mut self, directory: &Directory, notice: Notice) -> Result<()> {
        match notice.step.as_str() {
            "setup-namespaces" => {
                let hooks = self.bundle.spec.hooks().as_ref();
                let state = Report::for_hooks(&self.record, Status::Creating, notice.pid);
                let prestart = hooks.and_then(|hooks| hooks.prestart().as_deref()).unwrap_or_default();
                let create_runtime = hooks.and_then(|hooks| hooks.create_runtime().as_deref()).unwrap_or_default();
                self.hooks_ran = true;
                running_hook::run(directory.fd(), Kind::Prestart, prestart, &state)?;
                running_hook::run(directory.fd(), Kind::CreateRuntime, create_runtime, &state).map(drop)
            }
            "orphan-pts-master" => {
                let (Some(console), Some(master)) = (&self.asked.console_socket, &notice.fd) else {
                    return Err(Error::Refused(
                        "the checkpoint has a terminal, and there is no console socket".to_owned(),
                    ));
                };
                socket::send(console.as_fd(), init::console::MULTIPLEXER.as_bytes(), &[master.as_fd()])
                    .at("send the terminal over", "the console socket")
                    .map(drop)
            }
            "post-restore" => {
                let pidfd = pidfd::open(notice.pid).at("open a pidfd of", notice.pid)?;
                if self.bundle.spec.root().as_ref().and_then(|root| root.readonly()) == Some(true) {
                    read_only_root(&pidfd)?;
                }
                self.init = Some(pidfd);
                let init = identity::identify(notice.pid)?
                    .ok_or_else(|| Error::Other("the restored process has ended".to_owned()))?;
                if let Some(file) = &self.asked.pid_file {
                    pid_file::write(file, notice.pid)?;
                }
                let unopened = || Error::Other("criu restored a process before it was asked to".to_owned());
                let alone = self.record.own_pid_namespace || self.namespaces.new & libc::CLONE_NEWNS == 0;
                let mount_namespace = if alone { None } else { cleanup::orphans::mount_namespace(notice.pid) };
                let init = InitRecord { process: init, mount_namespace, starting: false };
                directory.record_init(self.init_file.as_ref().ok_or_else(unopened)?, init)
            }
            _ => Ok(()),
        }
    }
}

/// Gives the process a mount namespace in which the root file system is a mount, as CRIU wants it. Nothing of it is left when
/// CRIU has ended.
fn own_mounts(rootfs: &std::path::Path) -> Result<()> {
    process::unshare(libc::CLONE_NEWNS).at("unshare", "the mount namespace")?;
    mount(None, c"/", None, libc::MS_REC | libc::MS_SLAVE, None).at("make a slave", "/")?;
    let place = path::open(rootfs, libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW).at("open", rootfs.display())?;
    let tree =
        open_tree(place.as_fd(), c"", OPEN_TREE_CLONE | AT_RECURSIVE).at("open the tree of", rootfs.display())?;
    move_mount(tree.as_fd(), place.as_fd()).at("bind", rootfs.display())
}

/// Makes the root mount read-only again: CRIU restores the flags of every mount but this one. The processes do not run yet.
fn read_only_root(init: &OwnedFd) -> Result<()> {
    let read_only = MountAttr { attr_set: MOUNT_ATTR_RDONLY, ..MountAttr::default() };
    let set = || {
        pidfd::join_namespaces(init.as_fd(), libc::CLONE_NEWNS)?;
        let root = path::open("/", libc::O_PATH | libc::O_DIRECTORY)?;
        mount_setattr(root.as_fd(), 0, &read_only)
    };
    let helper = clone3(CloneArgs::default(), || exit_now(set().err().map_or(0, |errno| errno as i32)))
        .at("clone", "a process that makes the root read-only")?;
    match pidfd::wait(helper.pidfd.as_fd(), true).at("wait for", "the process that makes the root read-only")? {
        Some(Ended::Exited(0)) => Ok(()),
        Some(Ended::Exited(errno)) => Err(Error::sys("make read-only", "the restored root", Errno::from_raw(errno))),
        _ => Err(Error::Other("the process that makes the root read-only has been killed".to_owned())),
    }
}

/// The cgroups that CRIU is in now: what it restores goes there.
fn own_cgroups(pid: libc::pid_t) -> Result<Vec<(String, String)>> {
    let file = format!("/proc/{pid}/cgroup");
    let text = std::fs::read_to_string(&file).at("read", &file)?;
    let line = |line: &str| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?.to_owned(), fields.next()?.to_owned());
        Some(controllers.split(',').map(|controller| (controller.to_owned(), path.clone())).collect::<Vec<_>>())
    };
    Ok(text.lines().filter_map(line).flatten().collect())
}
