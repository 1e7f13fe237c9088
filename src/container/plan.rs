//! What is decided, and opened, before anything of a container is made.

use std::borrow::Cow;
use std::path::Path;

use oci_spec::runtime::{Hooks, Spec};

use crate::cgroup;
use crate::container::namespaces::Namespaces;
use crate::container::net_devices;
use crate::container::options::{Options, listen_fds};
use crate::container::root::Root;
use crate::container::state::{Record, new_record, streams};
use crate::error::Result;
use crate::init::process::{ProcessPlan, Setting, capabilities, keeps_groups};
use crate::init::procfs::Procfs;
use crate::init::rootfs::{CgroupView, Rootfs, RootfsContext};
use crate::judge::monitor;
use crate::seccomp;
use crate::seccomp::notify::Handover;
use crate::spec::{self, Bundle};
use crate::sys::process;

/// All that is decided before anything is made.
pub(super) struct Plan<'a> {
    pub(super) options: Options<'a>,
    pub(super) record: Record,
    pub(super) namespaces: Namespaces,
    pub(super) rootfs: Rootfs,
    pub(super) process: ProcessPlan,
    pub(super) sysctl: Vec<crate::init::sysctl::Parameter>,
    pub(super) time_offsets: Option<String>,
    pub(super) seccomp: Option<seccomp::Filter>,
    pub(super) handover: Option<Handover>,
    pub(super) procfs: Procfs,
}

impl<'a> Plan<'a> {
    pub(super) fn new(root: &Root, id: &str, bundle: &Bundle, options: Options<'a>) -> Result<Plan<'a>> {
        let spec = &bundle.spec;
        let linux = spec.linux().as_ref();
        let namespaces = Namespaces::plan(spec);
        let below_user_namespace = process::in_user_namespace();
        let mut cgroup = match &options.judge {
            Some(judge) => judge.cgroup.clone(),
            None => cgroup::plan(
                &cgroup::Request {
                    cgroups_path: linux.and_then(|linux| linux.cgroups_path().as_deref()),
                    id,
                    systemd: options.systemd_cgroup,
                    unprivileged: options.rootless || below_user_namespace,
                    annotations: spec.annotations().as_ref(),
                    ..cgroup::Request::default()
                },
                &cgroup::Layout::probe()?,
            )?,
        };
        cgroup.survey()?;
        let user_namespace = namespaces.has(libc::CLONE_NEWUSER);
        let rootfs = Rootfs::plan(
            spec,
            &bundle.dir,
            &RootfsContext {
                userns: user_namespace || below_user_namespace,
                userns_path: namespaces.path(libc::CLONE_NEWUSER).map(Path::to_owned),
                new_mount_ns: namespaces.has(libc::CLONE_NEWNS),
                cgroup_ns: namespaces.has(libc::CLONE_NEWCGROUP),
                no_pivot: options.no_pivot,
                cgroup: CgroupView::of(&cgroup),
            },
        )?;
        let process = match spec::process(spec) {
            Err(_) if !options.ungated => Cow::Owned(spec::no_process()),
            given => Cow::Borrowed(given?),
        };
        let listen_fds = listen_fds();
        let setting = Setting {
            user_namespace,
            below_user_namespace,
            have: if user_namespace { None } else { Some(capabilities::permitted()?) },
            preserve_fds: options.preserve_fds + listen_fds,
            listen_fds,
            keep_groups: keeps_groups(spec),
            own_stdio: true,
            ..Setting::default()
        };
        let mut process = ProcessPlan::new(&process, linux, &setting)?;
        process.warnings.extend(cgroup.occupied().or_else(|| cgroup.without()));
        process.check_host()?;
        let seccomp = match linux.and_then(|linux| linux.seccomp().as_ref()) {
            Some(profile) if options.judge.is_none() => Some(seccomp::cached(&root.path().join(".seccomp"), profile)?),
            _ => None,
        };
        let own_pid_namespace = namespaces.new & libc::CLONE_NEWPID != 0;
        let mut record = new_record(id, &bundle.dir, rootfs.path().to_owned(), spec, cgroup, own_pid_namespace)?;
        record.ungated = options.ungated;
        record.notify.clone_from(&options.notify);
        if options.judge.is_none() {
            record.streams = streams(spec);
        }
        record.resctrl = linux
            .and_then(|linux| linux.intel_rdt().as_ref())
            .map(|rdt| crate::init::intel_rdt::plan(id, rdt))
            .transpose()?;
        record.unattended = unattended(&record, &options, &namespaces, seccomp.as_ref(), spec);
        Ok(Plan {
            record,
            sysctl: linux.map(crate::init::sysctl::plan).transpose()?.unwrap_or_default(),
            time_offsets: linux.map(crate::init::time_offsets::text).transpose()?.flatten(),
            procfs: Procfs::open()?,
            namespaces,
            rootfs,
            process,
            seccomp,
            handover: None,
            options,
        })
    }

    /// Opens what must exist: namespaces, the root filesystem, sources of mounts.
    pub(super) fn open(&mut self) -> Result<()> {
        self.handover = self.seccomp.as_ref().map(Handover::prepare).transpose()?.flatten();
        self.namespaces.open()?;
        self.rootfs.open(self.namespaces.new & libc::CLONE_NEWNS != 0 && self.namespaces.has(libc::CLONE_NEWUSER))
    }
}

/// Whether init may go on to the program by itself: nobody stands at a gate, and nothing is to be done for it, or with it,
/// once it is ready and before the program is executed.
fn unattended(
    record: &Record,
    options: &Options<'_>,
    namespaces: &Namespaces,
    seccomp: Option<&seccomp::Filter>,
    spec: &Spec,
) -> bool {
    let hooks = spec.hooks().as_ref();
    let in_between = |hooks: &Hooks| has_creator_hooks(hooks) || hooks.create_container().is_some();
    options.ungated
        && options.judge.is_none()
        && options.pid_file.is_none()
        && record.notify.is_none()
        && record.own_pid_namespace
        && !monitor::asked(record)
        && !hooks.is_some_and(in_between)
        && net_devices::wanted(spec).is_none()
        && namespaces.late_pid().is_none()
        && !seccomp.is_some_and(|filter| filter.notify)
}

/// Whether the creator runs hooks once the mounts are made.
pub(super) fn has_creator_hooks(hooks: &Hooks) -> bool {
    let prestart = hooks.prestart();
    [prestart, hooks.create_runtime()].into_iter().flatten().any(|hooks| !hooks.is_empty())
}
