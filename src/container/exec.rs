//! `exec`: one more process in a container.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use nix::sys::resource::{Resource, getrlimit};
use oci_spec::runtime::{Process, Spec};

use crate::cgroup;
use crate::container::foreground::Ending;
use crate::container::identity;
use crate::container::namespaces::Namespaces;
use crate::container::report::Report;
use crate::container::root::Root;
use crate::container::spawn::introduced;
use crate::container::state::{Live, Record, Status, read_spec, status};
use crate::error::{At, Error, Result};
use crate::init::channel::{Channel, Message, failure};
use crate::init::console;
use crate::init::process::{ProcessPlan, Setting, keeps_groups};
use crate::init::procfs::Procfs;
use crate::seccomp::notify::{Handover, container_process_state};
use crate::seccomp::{self, Filter};
use crate::spec::{Host, validate_process};
use crate::sys::clone::{CLONE3_SIZE, Child, CloneArgs, clone3};
use crate::sys::mount_at::fchdir;
use crate::sys::{calls, entry, path, pidfd, process, wait};

/// How long the death of a process is waited for that has not executed its program, in milliseconds.
const DEATH: i32 = 1000;

/// What `exec` is asked for, beyond the process.
#[derive(Debug, Default)]
pub struct Options {
    /// File that gets the pid of the new process.
    pub pid_file: Option<PathBuf>,
    /// Socket that gets the master of its terminal.
    pub console_socket: Option<OwnedFd>,
    /// Number of descriptors from 3 on that the program inherits.
    pub preserve_fds: u32,
    /// Allow it in a paused container, where it runs once that is resumed.
    pub ignore_paused: bool,
    /// Where below the container's cgroups it goes.
    pub cgroups: cgroup::SubCgroups,
}

/// A container that gets one more process.
#[derive(Debug)]
pub struct Target {
    dir: OwnedFd,
    record: Record,
    /// The configuration that it was created with.
    pub spec: Spec,
}

impl Target {
    /// Opens a container.
    ///
    /// # Errors
    /// [`Error::State`] where there is no such container.
    pub fn open(root: &Root, id: &str) -> Result<Target> {
        let (dir, record) = root.look(id)?;
        let spec = read_spec(dir.as_fd(), id)?;
        Ok(Target { dir, record, spec })
    }
}

/// Starts a process in a running container; it is a child of the caller. `ending` are signals that end the wait for its
/// program.
///
/// # Errors
/// [`Error::State`] where the container does not run; else why the program could not be executed.
pub fn exec(
    root: &Root,
    target: &Target,
    document: &Process,
    options: &Options,
    ending: Option<&Ending>,
) -> Result<Child> {
    let Target { dir, record, spec } = target;
    let id = &record.id;
    let (now, live) = status(dir.as_fd(), record)?;
    let Some(live) = live.filter(|_| now != Status::Stopped) else {
        return Err(Error::state(id, format!("cannot execute a process: it is {now}")));
    };
    if now == Status::Paused && !options.ignore_paused {
        return Err(Error::state(id, "cannot exec in a paused container; resume it first"));
    }
    // Frozen before its end, an init that sets itself up may still see the host.
    if now == Status::Paused && record.unattended && !identity::has_executed(live.process)? {
        return Err(Error::state(id, "cannot exec in a container whose creation is paused; resume it first"));
    }
    validate_process(document, "$", &Host::probe())?;
    let linux = spec.linux().as_ref();
    let namespaces = Namespaces::plan(spec);
    let setting = Setting {
        user_namespace: namespaces.has(libc::CLONE_NEWUSER),
        below_user_namespace: crate::sys::process::in_user_namespace(),
        exec: true,
        have: None,
        container_capabilities: spec.process().as_ref().and_then(|process| process.capabilities().as_ref()),
        preserve_fds: options.preserve_fds,
        listen_fds: 0,
        keep_groups: keeps_groups(spec),
        own_stdio: true,
    };
    let plan = ProcessPlan::new(document, linux, &setting)?;
    let filter = match linux.and_then(|linux| linux.seccomp().as_ref()) {
        Some(profile) => Some(seccomp::cached(&root.path().join(".seccomp"), profile)?),
        None => None,
    };
    let handover = filter.as_ref().map(Handover::prepare).transpose()?.flatten();
    let joiner = Joiner { record, namespaces, plan, filter, handover, procfs: Procfs::open()?, ending };
    joiner.spawn(&live, options)
}

struct Joiner<'a> {
    record: &'a Record,
    namespaces: Namespaces,
    plan: ProcessPlan,
    filter: Option<Filter>,
    handover: Option<Handover>,
    procfs: Procfs,
    ending: Option<&'a Ending>,
}

impl Joiner<'_> {
    /// Two clones. A stage, which no process of the container can see, enters the cgroups and the namespaces, closes what
    /// it holds of the host and becomes what the program will be; its child is born into the pid namespace with nothing to
    /// be looked into or taken over (CVE-2016-9962), and no privilege that the program would not have, whatever
    /// capabilities the container's processes have.
    fn spawn(mut self, init: &Live, options: &Options) -> Result<Child> {
        let entry = self.record.cgroup.open().entry_below(&options.cgroups, init.process.pid)?;
        let (channel, line) = Channel::pair()?;
        self.plan.set_initial_affinity()?;
        let root = self.root(init)?;
        let cgroup = entry.into.as_ref().map(AsFd::as_fd);
        let stage = clone3(CloneArgs { cgroup, ..CloneArgs::default() }, || {
            let Err(error) = self.stage(&init.pidfd, &entry, root.as_ref(), &line, options);
            let _ = line.send(&failure(&error));
            wait::exit_now(1)
        })
        .at("clone a process for", &self.record.id)?;
        drop(line);
        self.wait_for(&[channel.as_fd(), stage.pidfd.as_fd()]).inspect_err(|_| end(&stage))?;
        let child = introduced(&channel, &stage)?;
        let started = self.accompany(&channel, &child, init, options);
        started.inspect_err(|_| end(&child)).map(|()| child)
    }

    /// Waits for a word of the new process, or a signal that ends the caller.
    fn wait_for(&self, lines: &[BorrowedFd<'_>]) -> Result<()> {
        self.ending.map_or(Ok(()), |ending| ending.wait_for(lines))
    }

    /// The root of a container without a new mount namespace, where its init is by chroot(2): whoever joins it has to enter it.
    fn root(&self, init: &Live) -> Result<Option<OwnedFd>> {
        if self.namespaces.new & libc::CLONE_NEWNS != 0 {
            return Ok(None);
        }
        let name = path::c_path(format!("{}/root", init.process.pid)).at("name", &self.record.id)?;
        let root = path::openat(self.procfs.as_fd(), &name, libc::O_PATH | libc::O_DIRECTORY, 0);
        let root = root.at("open the root of", &self.record.id)?;
        // As long as it lives the pid is its own.
        if pidfd::wait_end(init.pidfd.as_fd(), 0).at("look at", &self.record.id)? {
            return Err(Error::state(&self.record.id, "has ended"));
        }
        Ok(Some(root))
    }

    fn accompany(&self, channel: &Channel, child: &Child, init: &Live, options: &Options) -> Result<()> {
        // The pid is recorded before the program may run.
        if let Some(file) = &options.pid_file {
            super::pid_file::write(file, child.pid)?;
        }
        let _ = channel.send(&Message::Commit);
        let heard = self.executed(channel, child, init);
        if heard.is_err()
            && let Some(file) = &options.pid_file
        {
            let _ = std::fs::remove_file(file);
        }
        heard
    }

    /// Waits for the exec; on the way to it the listener of a filter that notifies goes to the agent.
    fn executed(&self, channel: &Channel, child: &Child, init: &Live) -> Result<()> {
        // There is time for it while the stage joins the namespaces.
        entry::let_go();
        self.wait_for(&[channel.as_fd()])?;
        let mut said = channel.receive()?;
        if let (Some(Message::Filter), Some(handover)) = (&said, &self.handover) {
            let state = Report::new(self.record, Status::Running, init.process.pid).value();
            let metadata = self.filter.as_ref().and_then(|filter| filter.listener_metadata.as_deref());
            let document = container_process_state(&self.record.oci_version, child.pid, metadata, &state);
            handover.deliver(child.pidfd.as_fd(), &document)?;
            self.wait_for(&[channel.as_fd()])?;
            said = channel.receive()?;
        }
        match said {
            None => Ok(()),
            Some(Message::Failed(errno, text)) => Err(Error::Init { errno, text }),
            Some(other) => {
                Err(Error::Other(format!("the new process said {other:?} instead of executing the program")))
            }
        }
    }

    /// The stage: everything up to the process that the container sees. Ends its process where it succeeds.
    fn stage(
        &mut self,
        init: &OwnedFd,
        entry: &cgroup::Entry,
        root: Option<&OwnedFd>,
        line: &Channel,
        options: &Options,
    ) -> Result<std::convert::Infallible> {
        entry.enter()?;
        // While it has the creator's privileges.
        self.plan.outside(Some(&self.procfs), None)?;
        process::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0).at("make", "the joining process undumpable")?;
        let flags = self.namespaces.join.iter().fold(self.namespaces.new, |flags, join| flags | join.flag);
        if flags != 0 {
            pidfd::join_namespaces(init.as_fd(), flags).at("join the namespaces of", &self.record.id)?;
        }
        if self.namespaces.has(libc::CLONE_NEWUSER) {
            process::setresgid(0).at("become", "group 0 of the user namespace")?;
            process::setresuid(0).at("become", "user 0 of the user namespace")?;
        }
        if let Some(root) = root {
            fchdir(root.as_fd()).at("enter the root of", &self.record.id)?;
            nix::unistd::chroot(c".").at("chroot to the root of", &self.record.id)?;
        }
        let mut keep = vec![line.as_fd()];
        keep.extend(options.console_socket.as_ref().map(AsFd::as_fd));
        keep.extend(process::handed_down(3 + options.preserve_fds));
        if self.plan.needs_procfs() {
            keep.push(self.procfs.as_fd());
        }
        wait::close_all_but(&keep).at("close", "the descriptors of the host")?;
        if self.plan.needs_procfs() {
            self.plan.label(&self.procfs)?;
            wait::close_copies(&[self.procfs.as_fd()]);
        }
        // Without the call it is looked up by way of /proc/self, where only the child is.
        let attached = self.plan.terminal && calls::is_there("openat2");
        if attached {
            attach(&self.plan, options)?;
        }
        let become_early = attached == self.plan.terminal && self.may_become_early()?;
        if become_early {
            let filter = self.filter.as_ref();
            let mut load = || Handover::load(None, filter, || Ok(()));
            self.plan.apply(None, filter.is_some().then_some(&mut load as _))?;
            // The change of ids may have undone it.
            process::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0).at("make", "the joining process undumpable")?;
        }
        process::wipe_environment();
        let arguments = CloneArgs { sibling: true, ..CloneArgs::default() };
        let child = clone3(arguments, || {
            let terminal = (self.plan.terminal && !attached).then_some(options);
            let error = self.become_program(line, become_early, terminal);
            let _ = line.send(&failure(&error));
            wait::exit_now(1)
        })
        .at("clone a process for", &self.record.id)?;
        line.send_with(&Message::Made(child.pid), &[child.pidfd.as_fd()])?;
        wait::exit_now(0)
    }

    /// Whether the stage may become what the program will be, and its child still be made and get as far as the program. Not
    /// with a filter that must be loaded with privileges and stands in the way, or that notifies; not with a policy
    /// that children do not get; and not where the user may have so few processes that the stage would be one too many.
    fn may_become_early(&self) -> Result<bool> {
        const FEW: u64 = 1024;
        let (processes, _) = getrlimit(Resource::RLIMIT_NPROC).at("get", "RLIMIT_NPROC")?;
        if processes < FEW || !self.plan.is_inherited() {
            return Ok(false);
        }
        let Some(filter) = self.filter.as_ref().filter(|_| self.plan.seccomp_early()) else { return Ok(true) };
        let first = |call, argument: u64| filter.allows(call, [argument, 0, 0, 0, 0, 0]);
        let second = |call, argument: u64| filter.allows(call, [0, argument, 0, 0, 0, 0]);
        let plain = [libc::SYS_sendmsg, libc::SYS_recvmsg, libc::SYS_setsid, libc::SYS_close, libc::SYS_exit_group];
        let parent = (libc::CLONE_PARENT | libc::CLONE_PIDFD) as u64;
        Ok(!filter.notify
            && plain.into_iter().all(|call| filter.allows(call, [0; 6]))
            && first(libc::SYS_prctl, libc::PR_SET_DUMPABLE as u64)
            && (!self.plan.terminal || second(libc::SYS_ioctl, libc::TIOCSCTTY))
            && (second(libc::SYS_clone3, CLONE3_SIZE)
                || (filter.denies(libc::SYS_clone3, [0, CLONE3_SIZE, 0, 0, 0, 0]) && first(libc::SYS_clone, parent))))
    }

    /// In the container: becomes the program; returns only where that fails.
    fn become_program(&mut self, line: &Channel, became_early: bool, terminal: Option<&Options>) -> Error {
        let filter = self.filter.take();
        let handover = self.handover.take();
        let mut load = || Handover::load(handover.as_ref(), filter.as_ref(), || line.send(&Message::Filter));
        let filtered = filter.is_some();
        let ready = match line.receive() {
            Ok(Some(Message::Commit)) => self.lead_session(terminal),
            _ => Err(Error::Other("the creator has ended".to_owned())),
        };
        match ready
            .and_then(
                |()| if became_early { Ok(()) } else { self.plan.apply(None, filtered.then_some(&mut load as _)) },
            )
            .and_then(|()| self.plan.resolve())
        {
            Ok(()) => self.plan.exec(filtered.then_some(&mut load as _)),
            Err(error) => error,
        }
    }

    fn lead_session(&self, terminal: Option<&Options>) -> Result<()> {
        process::setsid().at("start", "a new session")?;
        if let Some(options) = terminal {
            attach(&self.plan, options)?;
        }
        if self.plan.terminal { console::control() } else { Ok(()) }
    }
}

/// Makes the terminal and takes it for the standard streams.
fn attach(plan: &ProcessPlan, options: &Options) -> Result<()> {
    let socket = options
        .console_socket
        .as_ref()
        .ok_or_else(|| Error::config("$.terminal", "is true, but no --console-socket was given"))?;
    console::attach(plan, socket.as_fd())?;
    wait::close_copies(&[socket.as_fd()]);
    Ok(())
}

/// Kills a process of ours that has not executed its program, and reaps it: one that is frozen by a v1 freezer not before it
/// is thawed, which is not waited for.
fn end(child: &Child) {
    let _ = pidfd::send_signal(child.pidfd.as_fd(), libc::SIGKILL);
    if pidfd::wait_end(child.pidfd.as_fd(), DEATH) == Ok(true) {
        let _ = pidfd::wait(child.pidfd.as_fd(), false);
    }
}
