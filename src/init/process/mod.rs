//! `process` of config.json (and of exec's process document): from words to numbers, then to system calls.
//!
//! [`ProcessPlan::new`] is pure: it turns a document that [`crate::spec::validate_process`] has passed into what the
//! kernel takes. The effects come in the order in which the kernel allows them:
//!
//! | when | who | what |
//! |---|---|---|
//! | before the gate opens | parent, or child without a user namespace of its own | [`ProcessPlan::outside`]: oom_score_adj, rlimits |
//! | in the entered root file system | child | [`ProcessPlan::apply`]: everything up to the identity and capabilities |
//! | | child | [`ProcessPlan::resolve`]: finds the program, so that `create` can report that there is none |
//! | after the gate | child | [`ProcessPlan::exec`]: last filter, exec |

mod apply;
pub mod capabilities;
pub mod environment;
mod exec;
pub mod labels;
pub mod scheduling;

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;

use oci_spec::runtime::{Box as ConsoleSize, Linux, LinuxCapabilities, PosixRlimitType, Process, Spec};

use crate::error::{Error, Result};
use crate::sys::attributes::SchedAttr;
use capabilities::CapabilitySets;
use scheduling::MemoryPolicy;

/// What the plan must know of the container besides its `process`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Setting<'a> {
    /// The process will run in a user namespace that is not the runtime's: then its rlimits and oom_score_adj are set
    /// from outside, where the privileges for it are.
    pub user_namespace: bool,
    /// The runtime itself runs in a user namespace that is not the machine's first.
    pub below_user_namespace: bool,
    /// The process joins a running container ([`Linux`] is that container's).
    pub exec: bool,
    /// The capabilities of the runtime ([`capabilities::permitted`]); nothing in a new user namespace, which has all.
    pub have: Option<u64>,
    /// What stands in for a missing `process.capabilities` of an exec: the container's.
    pub container_capabilities: Option<&'a LinuxCapabilities>,
    /// How many descriptors from 3 on the program inherits (`--preserve-fds` and socket activation together).
    pub preserve_fds: u32,
    /// How many of them are sockets in the sense of sd_listen_fds(3): adds LISTEN_FDS and LISTEN_PID.
    pub listen_fds: u32,
    /// Whether the caller's supplementary groups stay: [`KEEP_GROUPS`] among the container's annotations.
    pub keep_groups: bool,
    /// Whether pipes that the program gets as stdin, stdout and stderr are given to its user, so that it can open
    /// `/dev/stdout`. Only pipes, never devices or files of the host.
    pub own_stdio: bool,
}

/// Whether the container keeps the supplementary groups of whoever starts a process in it.
pub fn keeps_groups(spec: &Spec) -> bool {
    spec.annotations().as_ref().is_some_and(|annotations| annotations.contains_key(KEEP_GROUPS))
}

/// The annotation by which podman's `--group-add keep-groups` asks a runtime to leave the groups alone, so that a volume that
/// the caller may read through one of them stays readable. Its presence counts.
pub const KEEP_GROUPS: &str = "run.oci.keep_original_groups";

/// Loads the container's filter into the calling process.
pub type SeccompLoader<'a> = &'a mut dyn FnMut() -> Result<()>;

/// One resource limit: `RLIMIT_*`, soft, hard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rlimit {
    /// `RLIMIT_*`.
    pub resource: u32,
    /// What is enforced.
    pub soft: u64,
    /// The ceiling of `soft`.
    pub hard: u64,
}

/// All that is asked of one process, in the kernel's terms.
#[derive(Debug, Clone)]
pub struct ProcessPlan {
    /// The arguments, never empty.
    pub argv: Vec<CString>,
    /// The environment; HOME may be added by [`ProcessPlan::apply`].
    pub envp: Vec<CString>,
    /// The working directory, absolute in the container.
    pub cwd: CString,
    /// In the container's user namespace.
    pub uid: u32,
    /// In the container's user namespace.
    pub gid: u32,
    /// All supplementary groups: empty drops the caller's.
    pub additional_gids: Vec<u32>,
    /// The caller's supplementary groups stay, whatever `additional_gids` are.
    pub keep_groups: bool,
    /// The file mode creation mask.
    pub umask: u32,
    /// The five sets.
    pub capabilities: CapabilitySets,
    /// In the document's order.
    pub rlimits: Vec<Rlimit>,
    /// Whether exec can no longer give privileges; also decides when the filter is loaded.
    pub no_new_privileges: bool,
    /// −1000 to 1000.
    pub oom_score_adj: Option<i32>,
    /// Policy and its attributes.
    pub scheduler: Option<SchedAttr>,
    /// Class << 13 | level.
    pub io_priority: Option<i32>,
    /// Domain and flags.
    pub personality: Option<u64>,
    /// NUMA policy.
    pub memory_policy: Option<MemoryPolicy>,
    /// The processors to run on until the cgroup is entered (exec only); bit n is processor n.
    pub initial_affinity: Option<Vec<u64>>,
    /// The processors to run on after that (exec only).
    pub final_affinity: Option<Vec<u64>>,
    /// Profile for the exec.
    pub apparmor: Option<String>,
    /// Label for the exec.
    pub selinux: Option<String>,
    /// Whether the process has a terminal of its own.
    pub terminal: bool,
    /// The terminal's size, if it is given.
    pub console_size: Option<ConsoleSize>,
    /// What could not be given and is no reason to refuse, in words.
    pub warnings: Vec<String>,
    bounding_dropped: bool,
    prepared: bool,
    labelled: bool,
    signals_default: bool,
    any_user_namespace: bool,
    preserve_fds: u32,
    own_stdio: bool,
    program: Option<CString>,
}

impl ProcessPlan {
    /// Plans a valid process document. Pure.
    ///
    /// # Errors
    /// [`Error::Config`] with the JSON path of the fault.
    pub fn new(process: &Process, linux: Option<&Linux>, setting: &Setting<'_>) -> Result<ProcessPlan> {
        let args = process.args().as_deref().unwrap_or_default();
        let c_string =
            |pointer: String, text: &[u8]| CString::new(text).map_err(|_| Error::config(pointer, "has a NUL byte"));
        let argv = args
            .iter()
            .enumerate()
            .map(|(index, word)| c_string(format!("$.process.args[{index}]"), word.as_bytes()))
            .collect::<Result<Vec<_>>>()?;
        let mut envp = environment::plan(process.env().as_deref().unwrap_or_default())?;
        if setting.listen_fds > 0 {
            // sd_listen_fds(3). The program is process 1 of its namespace, and an exec'ed one never gets sockets.
            envp.extend(CString::new(format!("LISTEN_FDS={}", setting.listen_fds)));
            envp.push(c"LISTEN_PID=1".to_owned());
        }

        let document = process.capabilities().as_ref().or(setting.container_capabilities);
        let mut capabilities = CapabilitySets::new(document);
        let mut warnings = capabilities.normalise();
        if let Some(have) = setting.have.filter(|_| !setting.user_namespace) {
            warnings.extend(capabilities.limit(have));
        }

        let affinity = process.exec_cpu_affinity().as_ref().filter(|_| setting.exec);
        let processors = |field: &str, list: Option<&String>| {
            list.filter(|list| !list.is_empty())
                .map(|list| scheduling::mask(&format!("$.process.execCPUAffinity.{field}"), list))
                .transpose()
        };
        let user = process.user();
        let label = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        Ok(ProcessPlan {
            argv,
            envp,
            cwd: c_string("$.process.cwd".into(), process.cwd().as_os_str().as_bytes())?,
            uid: user.uid(),
            gid: user.gid(),
            additional_gids: user.additional_gids().clone().unwrap_or_default(),
            keep_groups: setting.keep_groups,
            // The mask that a shell's user would have; runc's too.
            umask: user.umask().unwrap_or(0o022),
            capabilities,
            rlimits: rlimits(process),
            no_new_privileges: process.no_new_privileges().unwrap_or(false),
            oom_score_adj: process.oom_score_adj(),
            scheduler: process.scheduler().as_ref().map(scheduling::scheduler),
            io_priority: process.io_priority().map(scheduling::io_priority),
            personality: linux.and_then(|linux| linux.personality().as_ref()).map(scheduling::personality),
            memory_policy: linux
                .and_then(|linux| linux.memory_policy().as_ref())
                .map(scheduling::memory_policy)
                .transpose()?,
            initial_affinity: processors("initial", affinity.and_then(|lists| lists.initial().as_ref()))?,
            final_affinity: processors("final", affinity.and_then(|lists| lists.cpu_affinity_final().as_ref()))?,
            apparmor: label(process.apparmor_profile()),
            selinux: label(process.selinux_label()),
            terminal: process.terminal().unwrap_or(false),
            console_size: process.console_size().filter(|size| size.height() > 0 || size.width() > 0),
            warnings,
            bounding_dropped: false,
            prepared: false,
            labelled: false,
            signals_default: false,
            any_user_namespace: setting.user_namespace || setting.below_user_namespace,
            preserve_fds: setting.preserve_fds,
            own_stdio: setting.own_stdio,
            program: None,
        })
    }

    /// Refuses what the host's kernel cannot give at all. Costs nothing for a process without security labels.
    ///
    /// # Errors
    /// [`Error::Refused`] naming the missing control.
    pub fn check_host(&self) -> Result<()> {
        labels::check(self.apparmor.as_deref(), self.selinux.as_deref())
    }

    /// How many descriptors from 3 on the program inherits.
    pub fn preserve_fds(&self) -> u32 {
        self.preserve_fds
    }

    /// Whether [`ProcessPlan::apply`] must be given a procfs.
    pub fn needs_procfs(&self) -> bool {
        (self.apparmor.is_some() || self.selinux.is_some()) && !self.labelled
    }

    /// Whether a child of a process that the plan has been applied to is as it is: `SCHED_DEADLINE` lets none be made, and
    /// SCHED_FLAG_RESET_ON_FORK says what it says (sched(7)).
    pub fn is_inherited(&self) -> bool {
        const SCHED_FLAG_RESET_ON_FORK: u64 = 1;
        self.scheduler
            .is_none_or(|attr| attr.policy != libc::SCHED_DEADLINE as u32 && attr.flags & SCHED_FLAG_RESET_ON_FORK == 0)
    }

    /// Whether the filter is loaded by [`ProcessPlan::apply`], while there is still CAP_SYS_ADMIN, and not just
    /// before exec: seccomp(2) asks for one of the two, that or no_new_privs.
    pub fn seccomp_early(&self) -> bool {
        !self.no_new_privileges
    }
}

fn rlimits(process: &Process) -> Vec<Rlimit> {
    let limits = process.rlimits().iter().flatten();
    let planned = limits.map(|limit| {
        let resource = match limit.typ() {
            PosixRlimitType::RlimitCpu => libc::RLIMIT_CPU,
            PosixRlimitType::RlimitFsize => libc::RLIMIT_FSIZE,
            PosixRlimitType::RlimitData => libc::RLIMIT_DATA,
            PosixRlimitType::RlimitStack => libc::RLIMIT_STACK,
            PosixRlimitType::RlimitCore => libc::RLIMIT_CORE,
            PosixRlimitType::RlimitRss => libc::RLIMIT_RSS,
            PosixRlimitType::RlimitNproc => libc::RLIMIT_NPROC,
            PosixRlimitType::RlimitNofile => libc::RLIMIT_NOFILE,
            PosixRlimitType::RlimitMemlock => libc::RLIMIT_MEMLOCK,
            PosixRlimitType::RlimitAs => libc::RLIMIT_AS,
            PosixRlimitType::RlimitLocks => libc::RLIMIT_LOCKS,
            PosixRlimitType::RlimitSigpending => libc::RLIMIT_SIGPENDING,
            PosixRlimitType::RlimitMsgqueue => libc::RLIMIT_MSGQUEUE,
            PosixRlimitType::RlimitNice => libc::RLIMIT_NICE,
            PosixRlimitType::RlimitRtprio => libc::RLIMIT_RTPRIO,
            PosixRlimitType::RlimitRttime => libc::RLIMIT_RTTIME,
        };
        Rlimit { resource, soft: limit.soft(), hard: limit.hard() }
    });
    planned.collect()
}
