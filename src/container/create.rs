//! `create`: validate, record, make, wait until init stands at the gate.
//!
//! Everything is decided and opened before the clone. Nothing that outlives this process is made
//! before the record that names it is on disk, and whatever fails afterwards is released and proved gone.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use oci_spec::runtime::{LinuxIdMapping, Spec};

use crate::cgroup;
use crate::container::birth_network::BirthNetwork;
use crate::container::created::Created;
use crate::container::hooks::Kind;
use crate::container::identity::ProcessId;
use crate::container::namespaces::host_id;
use crate::container::net_devices;
use crate::container::options::Options;
use crate::container::pending::{Pending, known, undo};
use crate::container::plan::{Plan, has_creator_hooks};
use crate::container::record::InitRecord;
use crate::container::report::Report;
use crate::container::root::Root;
use crate::container::running_hook;
use crate::container::spawn::{Birth, Conversation, introduced, look_at, spawn};
use crate::container::state::{Directory, Status};
use crate::error::{At, Error, Result};
use crate::init::channel::{Channel, Message};
use crate::init::{Gate, Init, Loader};
use crate::seccomp::notify::Handover;
use crate::spec::{self, Bundle};
use crate::sys;
use crate::sys::clone::Child;
use crate::sys::process::EffectiveUser;

/// Creates a container.
///
/// # Errors
/// What is wrong with the bundle or refused by the kernel; then nothing of the container remains, or
/// [`Error::Unclean`] says what does.
pub fn create(root: &Root, id: &str, bundle: &Bundle, options: Options<'_>) -> Result<Created> {
    begin(root, id, bundle, options)?.finish()
}

/// The first half of a [`create`]: returns while init sets itself up, so that a caller with other sandboxes can look after
/// those meanwhile. [`Pending::channel`] is readable when [`Pending::finish`] need not wait.
///
/// # Errors
/// As [`create`].
pub fn begin<'r>(root: &'r Root, id: &str, bundle: &Bundle, options: Options<'_>) -> Result<Pending<'r>> {
    spec::validate_id(id)?;
    let spec = &bundle.spec;
    spec::validate(spec, &spec::Host::probe().with_systemd(options.systemd_cgroup))?;
    let mut plan = Plan::new(root, id, bundle, options)?;
    plan.open()?;
    let directory = root.claim(&plan.record, spec)?;
    match plan.make(&directory, spec) {
        Ok(made) => {
            let Plan { options, record, handover, seccomp, namespaces, .. } = plan;
            Ok(Pending {
                alone: record.own_pid_namespace || namespaces.new & libc::CLONE_NEWNS == 0,
                root,
                directory,
                record,
                channel: made.channel,
                identity: made.identity,
                child: made.child,
                init_file: made.init_file,
                hooks_ran: made.hooks_ran,
                pid_file: options.pid_file,
                notifier: handover.zip(seccomp),
            })
        }
        Err(failed) => {
            let Failed { error, init, hooks_ran, entered } = *failed;
            let mut record = plan.record;
            if !entered {
                record.cgroup = record.cgroup.unentered();
            }
            Err(undo(root, directory, &record, init, hooks_ran, plan.options.pid_file.as_deref(), error))
        }
    }
}

struct Made {
    child: Child,
    identity: Option<ProcessId>,
    channel: Channel,
    init_file: OwnedFd,
    hooks_ran: bool,
}

struct Failed {
    error: Error,
    init: Option<OwnedFd>,
    hooks_ran: bool,
    /// A process of the container may have been in its cgroups.
    entered: bool,
}

impl Plan<'_> {
    fn make(&mut self, directory: &Directory, spec: &Spec) -> Result<Made, Box<Failed>> {
        let early = |error| Box::new(Failed { error, init: None, hooks_ran: false, entered: false });
        let resources = spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
        let begun = self.record.cgroup.begin(resources).map_err(early)?;
        self.record_cgroup(begun.plan(), directory).map_err(early)?;
        let gate = self.gate(directory).map_err(early)?;
        let (channel, line) = Channel::pair().map_err(early)?;
        let init_file = directory.begin_init().map_err(early)?;

        let hooks = spec.hooks().as_ref();
        // Init also waits at this point where interfaces have to arrive before its own hooks run, and where it is not yet
        // the process that will be limited.
        let creator_hooks = hooks.is_some_and(has_creator_hooks)
            || net_devices::wanted(spec).is_some()
            || self.namespaces.late_pid().is_some();
        let creators = [channel.as_fd(), init_file.as_fd()];
        let mut child = self
            .clone_init(spec, begun.birth(), gate, (&channel, &creators, directory.fd()), line, creator_hooks)
            .map_err(|error| Box::new(Failed { entered: true, ..*early(begun.explain(error)) }))?;
        let identity = look_at(child.pid);
        let mut hooks_ran = false;
        let accompanied = self
            .accompany(&channel, &mut child, spec, (directory, begun), creator_hooks, &mut hooks_ran)
            .and_then(|()| {
                let identity = identity.filter(|init| init.pid == child.pid);
                if !self.record.unattended {
                    return Ok(identity);
                }
                let init = known(identity, child.pid)?;
                let starting = InitRecord { process: init, mount_namespace: None, starting: true };
                directory.record_init(&init_file, starting)?;
                Conversation { channel: &channel, child: &child.pidfd }.tell(&Message::Start, &[])?;
                Ok(Some(init))
            });
        match accompanied {
            Ok(identity) => Ok(Made { child, identity, channel, init_file, hooks_ran }),
            Err(error) => Err(Box::new(Failed { error, init: Some(child.pidfd), hooks_ran, entered: true })),
        }
    }

    fn gate(&self, directory: &Directory) -> Result<Option<Gate>> {
        if self.options.ungated {
            return Ok(None);
        }
        let open = |name: &CStr| directory.open_fifo(name);
        Ok(Some(Gate { open: open(c"gate")?, answer: open(c"answer")? }))
    }

    fn clone_init(
        &mut self,
        spec: &Spec,
        birth: &cgroup::Entry,
        gate: Option<Gate>,
        (channel, creators, lock): (&Channel, &[BorrowedFd<'_>], BorrowedFd<'_>),
        line: Channel,
        creator_hooks: bool,
    ) -> Result<Child> {
        let owner = self.owner(spec);
        let Plan {
            options, record, namespaces, rootfs, process, sysctl, time_offsets, seccomp, procfs, handover, ..
        } = self;
        let seccomp = seccomp.as_ref();
        let load = |channel: &Channel| Handover::load(handover.as_ref(), seccomp, || channel.send(&Message::Filter));
        let judge = options.judge.as_ref();
        let loader: Option<&Loader<'_>> = match judge {
            Some(judge) => Some(judge.seccomp),
            None if seccomp.is_some() => Some(&load),
            None => None,
        };
        // A new time namespace is entered by the next clone; with a new user namespace it is made inside.
        let new_time = namespaces.new & libc::CLONE_NEWTIME != 0;
        let in_user_namespace = namespaces.new & libc::CLONE_NEWUSER != 0;
        let offsets = time_offsets.as_deref().unwrap_or("");
        let write_offsets = || {
            if offsets.is_empty() { Ok(()) } else { crate::init::time_offsets::write(procfs, None, offsets) }
        };
        let stage_offsets: Option<&dyn Fn() -> Result<()>> =
            if new_time && !in_user_namespace { Some(&write_offsets) } else { None };
        let staged = namespaces.needs_stage() || stage_offsets.is_some();
        // Taken in any case, so that nobody waits for it longer than that.
        let begun = sys::entry::network().filter(|_| !staged);
        let judged = options.judge.is_some();
        let network = begun.and_then(|begun| BirthNetwork::prepare(begun, namespaces, spec, procfs, judged));
        let network_made = network.is_some();
        let stage_line = line.try_clone()?;
        let place = Birth { cgroup: birth.into.as_ref().map(AsFd::as_fd), owner, network };
        spawn(namespaces, stage_offsets, place, channel, stage_line, creators, || {
            Init {
                record,
                spec,
                channel: line,
                gate,
                namespaces,
                staged,
                birth,
                lock,
                network_made,
                rootfs,
                process: process.clone(),
                sysctl,
                time_namespace: (new_time && in_user_namespace).then_some(time_offsets.is_some()),
                procfs,
                console_socket: options.console_socket.as_ref().map(AsFd::as_fd),
                stdio: judge.map(|judge| judge.stdio),
                new_keyring: !options.no_new_keyring,
                creator_hooks,
                seccomp: loader,
                seccomp_before_gate: seccomp.is_some_and(|filter| filter.notify),
                reaper: judge.map(|judge| judge.reaper),
            }
            .run()
        })
    }

    /// Who owns a judge's sandbox's new user namespace: its own root, so that what it uses up of what the kernel gives each
    /// user it takes neither from another one nor from the host. Who is not root can be nobody else.
    fn owner(&self, spec: &Spec) -> Option<libc::uid_t> {
        let new = self.namespaces.new & libc::CLONE_NEWUSER != 0 && !self.namespaces.needs_stage();
        let own = self.options.judge.is_some() && new && nix::unistd::geteuid().is_root();
        if own { namespace_root(spec).map(|(uid, _)| uid) } else { None }
    }

    /// Records the cgroup again where somebody has made or removed a directory of it since: what is not the container's is
    /// not its to kill.
    fn record_cgroup(&mut self, plan: &cgroup::Plan, directory: &Directory) -> Result<()> {
        if *plan == self.record.cgroup {
            return Ok(());
        }
        self.record.cgroup = plan.clone();
        directory.rewrite(&self.record)
    }

    /// Makes the rest of the cgroup, while init makes namespaces, and hands over the ways in.
    fn finish_cgroup(
        &mut self,
        begun: cgroup::Begun,
        conversation: &Conversation<'_>,
        directory: &Directory,
        (spec, pid): (&Spec, libc::pid_t),
    ) -> Result<()> {
        let resources = spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
        let cgroup = begun.around(pid).finish(resources)?;
        self.record_cgroup(cgroup.plan(), directory)?;
        let own = cgroup.init_entry()?.tasks;
        let payload = match self.options.judge {
            Some(_) => cgroup.payload_entry(namespace_root(spec))?,
            None => cgroup::Entry::default(),
        };
        let ways: Vec<_> = own.iter().chain(&payload.tasks).chain(&payload.into).map(AsFd::as_fd).collect();
        let count = |tasks: &[OwnedFd]| u8::try_from(tasks.len()).unwrap_or(u8::MAX);
        let counts = Message::Cgroups(count(&own), count(&payload.tasks), payload.into.is_some());
        conversation.tell(&counts, &ways)
    }

    /// The creator's part while init sets itself up.
    fn accompany(
        &mut self,
        channel: &Channel,
        child: &mut Child,
        spec: &Spec,
        (directory, begun): (&Directory, cgroup::Begun),
        creator_hooks: bool,
        hooks_ran: &mut bool,
    ) -> Result<()> {
        if let Some(warn) = &mut self.options.warn {
            self.process.warnings.drain(..).for_each(warn);
        }
        let conversation = Conversation { channel, child: &child.pidfd };
        let pid = child.pid;
        let linux = spec.linux().as_ref();
        if self.namespaces.has(libc::CLONE_NEWUSER) {
            // Here are the privileges for them, and init has none in the first user namespace any more. Before it becomes
            // another user there, which makes its files the host's root's.
            // A creator that lacks some privilege on the host has it over what is its own.
            let owner = self.owner(spec).map_or(Ok(None), EffectiveUser::take);
            let owner = owner.at("become", "the owner of the sandbox's user namespace")?;
            let limited = self.process.outside(Some(&self.procfs), Some(pid));
            owner.map_or(Ok(()), EffectiveUser::give_back).at("give up", "the sandbox's user namespace")?;
            limited?;
        }
        if self.namespaces.new & libc::CLONE_NEWUSER != 0 {
            crate::init::user_namespace::write_mappings(&self.procfs, pid, linux, self.options.rootless)?;
            conversation.tell(&Message::Mapped, &[])?;
            if self.namespaces.new & libc::CLONE_NEWTIME != 0
                && let Some(offsets) = &self.time_offsets
            {
                // Init goes on meanwhile, and waits for its cgroups before it makes a process.
                conversation.expect(&Message::Clocks)?;
                crate::init::time_offsets::write(&self.procfs, Some(pid), offsets)?;
            }
        }
        if self.rootfs.is_lent() {
            conversation.lend(&self.rootfs.lend(child)?)?;
        }
        self.finish_cgroup(begun, &conversation, directory, (spec, pid))?;
        // Init now has more to do than this process.
        sys::entry::let_go();
        if let Some(rdt) = linux.and_then(|linux| linux.intel_rdt().as_ref()) {
            crate::init::intel_rdt::set_up(&self.record.id, rdt, pid)?;
        }
        if creator_hooks {
            conversation.expect(&Message::Mounted)?;
            if let Some(devices) = net_devices::wanted(spec) {
                net_devices::attach(devices, &self.procfs, pid)?;
            }
            *hooks_ran = true;
            let hooks = spec.hooks().as_ref();
            let state = Report::for_hooks(&self.record, Status::Creating, pid);
            let prestart = hooks.and_then(|hooks| hooks.prestart().as_deref()).unwrap_or_default();
            let create_runtime = hooks.and_then(|hooks| hooks.create_runtime().as_deref()).unwrap_or_default();
            running_hook::run(directory.fd(), Kind::Prestart, prestart, &state)?;
            running_hook::run(directory.fd(), Kind::CreateRuntime, create_runtime, &state)?;
            conversation.tell(&Message::HooksRun, &[])?;
        } else {
            *hooks_ran = spec.hooks().as_ref().is_some_and(|hooks| hooks.create_container().is_some());
        }
        if self.namespaces.late_pid().is_some() {
            // Another process goes on, in the pid namespace that is joined.
            *child = introduced(channel, child)?;
        }
        Ok(())
    }
}

/// The host's ids of root in the container's own user namespace.
fn namespace_root(spec: &Spec) -> Option<(u32, u32)> {
    let linux = spec.linux().as_ref()?;
    let root = |mappings: &Option<Vec<LinuxIdMapping>>| host_id(mappings.as_deref().unwrap_or_default(), 0);
    Some((root(linux.uid_mappings())?, root(linux.gid_mappings())?))
}
