//! The effects on the calling process, in the order that the kernel's rules leave.

use std::os::fd::{AsFd, AsRawFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::capabilities::SYS_ADMIN;
use super::{ProcessPlan, SeccompLoader, environment, labels};
use crate::error::{At, Error, Result};
use crate::init::procfs::{Procfs, write_oom_score_adj};
use crate::sys::path::CWD;
use crate::sys::{Errno, attributes, capability, descriptors, path, process};

impl ProcessPlan {
    /// Sets oom_score_adj and rlimits, which may need privileges in the first user namespace: of the caller
    /// (`pid` is nothing), or of a child of the caller in a user namespace of its own.
    ///
    /// # Errors
    /// `EACCES` for a lower oom_score_adj, `EPERM` for a higher hard limit, without CAP_SYS_RESOURCE.
    pub fn outside(&self, procfs: Option<&Procfs>, pid: Option<i32>) -> Result<()> {
        if let Some(value) = self.oom_score_adj {
            let opened = if procfs.is_none() { Some(Procfs::open()?) } else { None };
            if let Some(procfs) = procfs.or(opened.as_ref()) {
                write_oom_score_adj(procfs, pid, value)?;
            }
        }
        self.rlimits.iter().try_for_each(|limit| {
            attributes::prlimit(pid.unwrap_or(0), limit.resource, limit.soft, limit.hard)
                .at("set rlimit", rlimit_name(limit.resource))
        })
    }

    /// Sets the processors that an exec'ed process runs on before it enters the container's cgroup.
    ///
    /// # Errors
    /// `EINVAL` where the caller may use none of them.
    pub fn set_initial_affinity(&self) -> Result<()> {
        match &self.initial_affinity {
            Some(mask) => attributes::sched_setaffinity(0, mask).at("set", "execCPUAffinity.initial"),
            None => Ok(()),
        }
    }

    /// Makes the caller what the plan says, all but the exec. It is single-threaded, its root directory is the
    /// container's, and nothing of the host's is reachable but its open descriptors.
    ///
    /// `seccomp` loads the filter, if there is one; it is called here only if [`ProcessPlan::seccomp_early`].
    ///
    /// # Errors
    /// The first step that fails, by name.
    pub fn apply(&mut self, procfs: Option<&Procfs>, seccomp: Option<SeccompLoader<'_>>) -> Result<()> {
        let early = seccomp.filter(|_| self.seccomp_early());
        self.prepare(procfs)?;
        if self.own_stdio {
            self.take_own_null()?;
        }

        // First with the runtime's privileges, then, if those do not suffice (a root-squashed network file system),
        // with the user's: runc's order, which containers rely on both ways.
        let entered = match attributes::chdir(&self.cwd) {
            Err(Errno::EACCES) => false,
            done => done.at("chdir to cwd", self.cwd.to_string_lossy()).map(|()| true)?,
        };

        self.drop_bounding()?;
        self.change_ids(early.is_some())?;
        if !entered {
            attributes::chdir(&self.cwd).at("chdir to cwd", self.cwd.to_string_lossy())?;
        }
        self.check_cwd()?;

        if let Some(load) = early {
            if self.uid != 0 {
                // The change of ids has taken the privileges out of force, not away: see change_ids.
                capability::capset(SYS_ADMIN, self.capabilities.permitted | SYS_ADMIN, self.capabilities.inheritable)
                    .at("keep CAP_SYS_ADMIN for", "seccomp")?;
            }
            load()?;
        }
        self.capabilities.apply()?;

        if environment::get(&self.envp, "HOME").is_none_or(<[u8]>::is_empty) {
            self.envp.retain(|variable| variable.as_bytes() != b"HOME=");
            self.envp.push(environment::home_of(self.uid));
        }
        Ok(())
    }

    /// What of [`ProcessPlan::apply`] needs neither the root file system nor the user, once: it may come before the root
    /// file system is entered.
    ///
    /// # Errors
    /// As [`ProcessPlan::apply`].
    pub fn prepare(&mut self, procfs: Option<&Procfs>) -> Result<()> {
        if std::mem::replace(&mut self.prepared, true) {
            return Ok(());
        }
        self.set_scheduling()?;
        match procfs {
            Some(procfs) => self.label(procfs)?,
            None if self.needs_procfs() => return Err(Error::Refused("security labels need procfs".into())),
            None => {}
        }
        process::umask(self.umask);
        if self.no_new_privileges {
            process::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0).at("set", "no_new_privs")?;
        }
        if self.own_stdio && self.uid != 0 {
            self.give_stdio()?;
        }
        // Not a descriptor of the host's may reach the program (CVE-2024-21626), whoever opened it and however. The
        // runtime's own, such as the gate, stay usable until the exec.
        descriptors::close_on_exec_from(3 + self.preserve_fds).at("close on exec", "descriptors")
    }

    /// Tells the security modules of the coming exec, once.
    ///
    /// # Errors
    /// As [`labels::write`].
    pub fn label(&mut self, procfs: &Procfs) -> Result<()> {
        if self.needs_procfs() {
            labels::write(procfs, self.apparmor.as_deref(), self.selinux.as_deref())?;
            self.labelled = true;
        }
        Ok(())
    }

    /// Drops from the bounding set what is not to stay; once. The caller keeps what it has until it executes something, so
    /// this may come long before the rest of [`ProcessPlan::apply`] where nothing else is executed before.
    ///
    /// # Errors
    /// As [`CapabilitySets::drop_bounding`](super::capabilities::CapabilitySets::drop_bounding).
    pub fn drop_bounding(&mut self) -> Result<()> {
        if !std::mem::replace(&mut self.bounding_dropped, true) {
            self.capabilities.drop_bounding()?;
        }
        Ok(())
    }

    fn set_scheduling(&self) -> Result<()> {
        if let Some(attr) = self.scheduler {
            attributes::sched_setattr(attr).at("set", "scheduler")?;
        }
        if let Some(value) = self.io_priority {
            process::ioprio_set(value).at("set", "ioPriority")?;
        }
        if let Some(policy) = &self.memory_policy {
            attributes::set_mempolicy(policy.mode, &policy.nodes).at("set", "memoryPolicy")?;
        }
        if let Some(mask) = &self.final_affinity {
            attributes::sched_setaffinity(0, mask).at("set", "execCPUAffinity.final")?;
        }
        if let Some(persona) = self.personality {
            process::personality(persona).at("set", "personality")?;
        }
        Ok(())
    }

    /// Groups before the user, because the user's change takes CAP_SETGID away.
    fn change_ids(&self, load_filter: bool) -> Result<()> {
        let kept = self.capabilities.permitted | self.capabilities.inheritable;
        if self.uid != 0 && (kept != 0 || load_filter) {
            process::prctl(libc::PR_SET_KEEPCAPS, 1, 0, 0, 0).at("set", "keepcaps")?;
        }
        let set_groups = if self.keep_groups { Ok(()) } else { process::setgroups(&self.additional_gids) };
        match set_groups {
            // `deny` in /proc/self/setgroups, as for every user namespace whose gid_map an unprivileged user wrote
            // (user_namespaces(7)). The kernel then keeps the caller's groups, whatever a runtime wants.
            Err(Errno::EPERM) if self.any_user_namespace && self.additional_gids.is_empty() => {}
            Err(Errno::EPERM) if self.any_user_namespace => {
                return Err(Error::Refused("additionalGids: setgroups is denied in this user namespace".into()));
            }
            done => done.at("setgroups", format_args!("{:?}", self.additional_gids))?,
        }
        process::setresgid(self.gid).at("setresgid", self.gid)?;
        process::setresuid(self.uid).at("setresuid", self.uid)
    }

    /// Gives the pipes among stdin, stdout and stderr to the user, so that it can open `/dev/stdout` anew. Devices and
    /// files stay as they are: `/dev/null` there is the host's.
    fn give_stdio(&self) -> Result<()> {
        for number in 0..3 {
            let Some(fd) = attributes::standard(number) else { continue };
            let stat = path::fstat(fd).at("stat standard stream", number)?;
            if stat.st_mode & libc::S_IFMT != libc::S_IFIFO || stat.st_uid == self.uid {
                continue;
            }
            match attributes::fchown(fd, self.uid, stat.st_gid) {
                // An owner that this user namespace does not map cannot be changed; the descriptor itself works.
                Ok(()) | Err(Errno::EPERM | Errno::EINVAL) => {}
                Err(errno) => return Err(errno).at("chown standard stream", number),
            }
        }
        Ok(())
    }

    /// Opens the container's null device where a standard stream is the host's: the container's root may own that node, and could
    /// change its mode for everybody. Where the container's is none, the stream stays what it is.
    fn take_own_null(&self) -> Result<()> {
        let null = |flags: i32| {
            // Somebody in the container may put a pipe there meanwhile, which is not waited for.
            let flags = flags | libc::O_NOFOLLOW | libc::O_NOCTTY | libc::O_NONBLOCK;
            let opened = path::openat(CWD, c"/dev/null", flags, 0).ok()?;
            path::fstat(opened.as_fd()).is_ok_and(|stat| is_null(&stat)).then_some(opened)
        };
        for number in 0..3 {
            let Some(fd) = attributes::standard(number) else { continue };
            if !is_null(&path::fstat(fd).at("stat standard stream", number)?) {
                continue;
            }
            let access = attributes::access_mode(fd).at("look at standard stream", number)?;
            // Looked at before it is opened: opening something else might wait.
            if let Some(own) = null(libc::O_PATH).map(drop).and_then(|()| null(access)) {
                fcntl(own.as_raw_fd(), FcntlArg::F_SETFL(OFlag::empty())).at("let wait", "/dev/null")?;
                process::dup_to(own.as_fd(), number as i32).at("open /dev/null as standard stream", number)?;
            }
        }
        Ok(())
    }

    /// CVE-2024-21626: a working directory below a leaked descriptor is outside of the container's root, and the
    /// kernel says so.
    fn check_cwd(&self) -> Result<()> {
        match attributes::getcwd() {
            Ok(words) if words.starts_with(b"/") => Ok(()),
            Ok(_) | Err(Errno::ENOENT) => Err(Error::Refused(format!(
                "cwd `{}` is outside of the container's root file system",
                self.cwd.to_string_lossy()
            ))),
            Err(errno) => Err(errno).at("getcwd", self.cwd.to_string_lossy()),
        }
    }
}

fn is_null(stat: &libc::stat) -> bool {
    stat.st_mode & libc::S_IFMT == libc::S_IFCHR && stat.st_rdev == libc::makedev(1, 3)
}

/// The name of a resource limit, for messages.
fn rlimit_name(resource: u32) -> String {
    const NAMES: [&str; 16] = [
        "CPU",
        "FSIZE",
        "DATA",
        "STACK",
        "CORE",
        "RSS",
        "NPROC",
        "NOFILE",
        "MEMLOCK",
        "AS",
        "LOCKS",
        "SIGPENDING",
        "MSGQUEUE",
        "NICE",
        "RTPRIO",
        "RTTIME",
    ];
    NAMES.get(resource as usize).map_or_else(|| resource.to_string(), |name| format!("RLIMIT_{name}"))
}
