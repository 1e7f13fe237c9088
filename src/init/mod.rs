//! What runs inside the clone, in order, until the program is executed.
//!
//! The creator has decided and opened everything before the clone; init is a copy of it that only
//! carries out. It talks to the creator over a [`channel`] and waits at a gate for `start`.

mod ahead;
mod cgroups;
pub mod channel;
pub mod console;
pub mod intel_rdt;
pub mod keyring;
pub mod loopback;
pub mod net_devices;
pub mod pid_namespace;
pub mod process;
pub mod procfs;
pub mod reaper;
pub mod report;
pub mod rootfs;
mod start;
pub mod sysctl;
pub mod time_offsets;
pub mod user_namespace;
pub mod uts;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use oci_spec::runtime::{Hook, Spec};

use crate::cgroup;
use crate::container::hooks::{Kind, Runner, path_alone};
use crate::container::namespaces::{Join, Namespaces};
use crate::container::report::Report;
use crate::container::spawn;
use crate::container::state::{Record, Status};
use crate::error::{At, Error, Result};
use crate::init::ahead::Ahead;
use crate::init::channel::{Channel, Message, failure};
use crate::init::process::ProcessPlan;
use crate::init::procfs::Procfs;
use crate::init::reaper::Payload;
use crate::init::rootfs::Rootfs;
use crate::sys::process as calls;
use crate::sys::wait::{self, close_copies};

/// Everything init needs.
#[expect(missing_debug_implementations, reason = "holds functions")]
pub struct Init<'a> {
    /// What is recorded of the container.
    pub record: &'a Record,
    /// Its configuration.
    pub spec: &'a Spec,
    /// Init's end of the line to the creator.
    pub channel: Channel,
    /// Init's ends of the FIFOs by which `start` opens the gate and hears of the exec.
    pub gate: Option<Gate>,
    /// The namespaces; `staged`: those to be joined have been joined by the stage.
    pub namespaces: &'a Namespaces,
    /// See `namespaces`.
    pub staged: bool,
    /// The cgroup that init is in from the beginning: born there on v2, while on v1 it goes there first of all.
    pub birth: &'a cgroup::Entry,
    /// Init's copy of the lock on the container's directory: until it is where whoever releases the container finds it, nobody
    /// may begin to. After that a copy must not outlive the creator.
    pub lock: BorrowedFd<'a>,
    /// Init was born in the new network namespace.
    pub network_made: bool,
    /// The root filesystem, planned and opened.
    pub rootfs: &'a mut Rootfs,
    /// The program and its attributes.
    pub process: ProcessPlan,
    /// Kernel parameters to be set.
    pub sysctl: &'a [sysctl::Parameter],
    /// The time namespace is to be made here; whether its creator gives it offsets.
    pub time_namespace: Option<bool>,
    /// procfs as the creator sees it.
    pub procfs: &'a Procfs,
    /// Where the terminal's master is sent, for a process with a terminal.
    pub console_socket: Option<BorrowedFd<'a>>,
    /// Standard input, output and error, where not the creator's own.
    pub stdio: Option<[BorrowedFd<'a>; 3]>,
    /// Join a new session keyring.
    pub new_keyring: bool,
    /// The creator runs hooks once the mounts are made.
    pub creator_hooks: bool,
    /// Loads the seccomp filter, where there is one.
    pub seccomp: Option<&'a Loader<'a>>,
    /// The filter notifies: it is loaded before the gate, while the creator can take the listener.
    pub seccomp_before_gate: bool,
    /// Makes init a tiny process 1 that runs the program as its child.
    pub reaper: Option<&'a dyn Reaper>,
}

/// Loads a seccomp filter into the calling thread; the line is for what the creator must know of it.
pub type Loader<'a> = dyn Fn(&Channel) -> Result<()> + 'a;

/// Init's ends of the gate.
#[derive(Debug)]
pub struct Gate {
    /// A byte from `start` opens it.
    pub open: OwnedFd,
    /// Takes the words of a failed exec; its end tells of a successful one.
    pub answer: OwnedFd,
}

/// A process 1 that is not the program itself.
pub trait Reaper {
    /// Forks the program's process, which enters the cgroups of the payload and calls `program`: that waits for `start`, where
    /// nobody has, and returns only where it fails.
    ///
    /// # Errors
    /// As `clone3(2)`.
    fn make(&self, payload: &cgroup::Entry, program: &mut dyn FnMut() -> Error) -> Result<Payload>;

    /// The line by which the payload's process speaks to the supervisor.
    fn line(&self) -> BorrowedFd<'_>;

    /// Loads the filter of a hook that is executed before the payload.
    ///
    /// # Errors
    /// As `seccomp(2)`.
    fn filter_hook(&self) -> Result<()>;

    /// Reaps until all is over. Returns init's exit status.
    fn reap(&self, payload: Payload) -> i32;
}

impl Init<'_> {
    /// Runs in the clone; the status that it ends with where no program was executed.
    pub fn run(self) -> i32 {
        // Its descriptors are closed under their owners, which must not be dropped.
        let mut init = std::mem::ManuallyDrop::new(self);
        let (payload, ahead) = match init.set_up() {
            Ok(done) => done,
            Err(error) => return init.fail_creation(&error),
        };
        match init.namespaces.late_pid().map(|join| init.go_on_inside(join)) {
            None => init.go_on(&payload, ahead),
            Some(Ok(())) => 0,
            Some(Err(error)) => init.fail_creation(&error),
        }
    }

    /// Everything up to the entered root file system; gives the cgroups that the payload enters, and the payload where it is
    /// made ahead.
    fn set_up(&mut self) -> Result<(cgroup::Entry, Option<Ahead>)> {
        self.birth.enter()?;
        let entered = self.birth.tasks.iter().map(AsFd::as_fd).chain([self.lock]);
        close_copies(&entered.collect::<Vec<_>>());
        let user_namespace = self.namespaces.has(libc::CLONE_NEWUSER);
        if !user_namespace {
            self.process.outside(Some(self.procfs), None)?;
        }
        if !self.staged {
            self.namespaces.enter()?;
        }
        if user_namespace {
            self.enter_user_namespace()?;
        }
        if self.namespaces.new & libc::CLONE_NEWUSER != 0 && self.namespaces.new & libc::CLONE_NEWIPC != 0 {
            calls::unshare(libc::CLONE_NEWIPC).at("unshare", "the IPC namespace")?;
        }
        if let Some(offsets) = self.time_namespace {
            calls::unshare(libc::CLONE_NEWTIME).at("unshare", "the time namespace")?;
            if offsets {
                self.channel.send(&Message::Clocks)?;
            }
        }
        self.take_stdio()?;
        if self.namespaces.late_pid().is_none() {
            calls::setsid().at("start", "a new session")?;
        }
        if self.new_keyring {
            keyring::join(&self.record.id)?;
        }
        if self.namespaces.new & libc::CLONE_NEWNET != 0 && !self.network_made {
            calls::unshare(libc::CLONE_NEWNET).at("unshare", "the network namespace")?;
            loopback::up()?;
        }
        uts::set_names(self.spec)?;
        if self.rootfs.is_lent() {
            self.borrow()?;
        }
        self.namespaces.enter_mount()?;
        let pid_namespace = self.namespaces.late_pid().map(|join| join.opened()).transpose()?;
        let own_namespace = self.own_cgroup_namespace();
        let (channel, spec, process) = (&self.channel, self.spec, &mut self.process);
        let mut payload = None;
        let mut enter = || {
            if payload.is_none() {
                drop_early(process, spec)?;
                payload = Some(cgroups::enter(channel, own_namespace)?);
            }
            Ok(())
        };
        // Whoever releases a container whose creator has died finds init by a cgroup, and a mount may take forever.
        if self.birth.is_empty() {
            enter()?;
        }
        self.rootfs.mount(pid_namespace, &mut enter)?;
        enter()?;
        let payload = payload.unwrap_or_default();
        let ahead = self.make_ahead(&payload)?;
        self.create_hooks()?;
        self.rootfs.enter()?;
        self.rootfs.make_directory(self.process.cwd.to_bytes())?;
        let console = self.console()?;
        self.rootfs.finish(console.as_ref().map(|slave| slave.as_fd()))?;
        sysctl::write(self.procfs, self.sysctl)?;
        Ok((payload, ahead))
    }

    /// Has a child born into a joined pid namespace, which goes on in the caller's place.
    fn go_on_inside(&mut self, join: &Join) -> Result<()> {
        let line = self.channel.try_clone()?;
        let mut keep = vec![line.as_fd(), self.channel.as_fd()];
        keep.extend(self.gate.iter().flat_map(|gate| [gate.open.as_fd(), gate.answer.as_fd()]));
        keep.extend(calls::handed_down(3 + self.process.preserve_fds()));
        if self.process.needs_procfs() {
            keep.push(self.procfs.as_fd());
        }
        pid_namespace::leave_host(join, &keep)?;
        // There is no reaper in here, and so no payload of its own.
        spawn::introduce(0, &line, || {
            if let Err(error) = self.process.label(self.procfs) {
                return self.fail_creation(&error);
            }
            // It is the host's, and others in here may look into this process.
            wait::close_copies(&[self.procfs.as_fd()]);
            self.go_on(&cgroup::Entry::default(), None)
        })
    }

    /// Takes on the program's identity, tells the creator, and attaches a filter that notifies.
    fn get_ready(&mut self) -> Result<()> {
        if self.namespaces.late_pid().is_some() {
            // Only now: a session ends with the process that leads it.
            calls::setsid().at("start", "a new session")?;
        }
        if self.process.terminal {
            console::control()?;
        }
        if self.reaper.is_none() {
            self.become_user()?;
        }
        self.channel.send(&Message::Ready)?;
        match self.seccomp {
            Some(load) if self.seccomp_before_gate && !self.process.seccomp_early() => load(&self.channel),
            _ => Ok(()),
        }
    }

    /// Takes what the creator has opened for the root file system.
    fn borrow(&mut self) -> Result<()> {
        let mut ways = Vec::new();
        loop {
            match self.channel.receive_with()? {
                Some((Message::Ways, some)) if some.is_empty() => break,
                Some((Message::Ways, some)) => ways.extend(some),
                _ => return Err(creator_ended()),
            }
        }
        self.rootfs.borrow(ways);
        Ok(())
    }

    /// Whether init makes its own cgroup namespace. A payload of its own makes its own: from within one of init's it could
    /// not be born beside init, where the hierarchy is mounted with `nsdelegate`; but what is mounted of the cgroups here
    /// must not show the host's.
    fn own_cgroup_namespace(&self) -> bool {
        let mounted =
            |mount: &oci_spec::runtime::Mount| mount.typ().as_deref().is_some_and(|it| it.starts_with("cgroup"));
        self.namespaces.new & libc::CLONE_NEWCGROUP != 0
            && (self.reaper.is_none() || self.spec.mounts().iter().flatten().any(mounted))
    }

    /// In a user namespace of the container, init acts as its root.
    fn enter_user_namespace(&mut self) -> Result<()> {
        if self.namespaces.new & libc::CLONE_NEWUSER != 0 {
            drop_early(&mut self.process, self.spec)?;
            self.expect(&Message::Mapped)?;
        }
        calls::setresgid(0).at("become", "group 0 of the user namespace")?;
        calls::setresuid(0).at("become", "user 0 of the user namespace")
    }

    fn take_stdio(&self) -> Result<()> {
        for (number, fd) in self.stdio.iter().flatten().enumerate() {
            calls::dup_to(*fd, number as i32).at("take", "the standard streams")?;
        }
        Ok(())
    }

    fn create_hooks(&self) -> Result<()> {
        if self.creator_hooks {
            self.channel.send(&Message::Mounted)?;
            self.expect(&Message::HooksRun)?;
        }
        let hooks = self.spec.hooks().as_ref().and_then(|hooks| hooks.create_container().as_deref());
        // Hooks that change the root file system expect to begin in it.
        self.run_hooks(Kind::CreateContainer, hooks, &path_alone(), &|| self.rootfs.change_directory())
    }

    fn run_hooks(
        &self,
        kind: Kind,
        hooks: Option<&[Hook]>,
        default_env: &[String],
        prepare: &dyn Fn() -> Result<()>,
    ) -> Result<()> {
        let Some(hooks) = hooks.filter(|hooks| !hooks.is_empty()) else { return Ok(()) };
        let creating = kind == Kind::CreateContainer;
        let status = if creating { Status::Creating } else { Status::Created };
        let state = Report::for_hooks(self.record, status, std::process::id() as libc::pid_t);
        // They are processes of the container, so they end with it; before it is on record it ends with its creator.
        let caller = creating.then(|| self.channel.as_fd());
        let prepare = Some(prepare);
        Runner { kind, state: &state, default_env, prepare, on_start: &mut |_| Ok(()), caller }.run(hooks).map(drop)
    }

    /// Makes the terminal inside the container and sends its master out.
    fn console(&self) -> Result<Option<OwnedFd>> {
        if !self.process.terminal {
            return Ok(None);
        }
        let socket = self
            .console_socket
            .ok_or_else(|| Error::config("$.process.terminal", "is true, but no --console-socket was given"))?;
        console::attach(&self.process, socket).map(Some)
    }

    fn expect(&self, message: &Message) -> Result<()> {
        match self.channel.receive()? {
            Some(received) if received == *message => Ok(()),
            _ => Err(creator_ended()),
        }
    }

    /// Reports an error before the gate to the creator.
    fn fail_creation(&self, error: &Error) -> i32 {
        // Where even this fails the creator is gone, and so is everyone who could read it.
        let _ = self.channel.send(&failure(error));
        1
    }
}

/// Uses a wait for the creator: drops what the program may not have, unless init executes a hook before, which may.
fn drop_early(process: &mut ProcessPlan, spec: &Spec) -> Result<()> {
    let hooks = spec.hooks().as_ref();
    let points = hooks.map_or([&None, &None], |hooks| [hooks.create_container(), hooks.start_container()]);
    if points.into_iter().flatten().any(|hooks| !hooks.is_empty()) { Ok(()) } else { process.drop_bounding() }
}

fn creator_ended() -> Error {
    Error::Other("the creator has ended".to_owned())
}
