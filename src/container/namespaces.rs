//! Which namespaces a container gets: new ones in the clone, others joined by path (`linux.namespaces`).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use oci_spec::runtime::{LinuxIdMapping, LinuxNamespaceType, Spec};

use crate::error::{At, Result};
use crate::sys::{path, process};

/// A namespace to be joined.
#[derive(Debug)]
pub struct Join {
    /// Its `CLONE_NEW*` flag.
    pub flag: i32,
    /// The path that the configuration names.
    pub path: PathBuf,
    fd: Option<OwnedFd>,
}

/// The namespaces of a container.
#[derive(Debug, Default)]
pub struct Namespaces {
    /// `CLONE_NEW*` flags of the new ones.
    pub new: i32,
    /// The ones joined, in the order in which they are joined: the user namespace first, the mount namespace last.
    pub join: Vec<Join>,
}

impl Namespaces {
    /// Reads them from a validated configuration.
    pub fn plan(spec: &Spec) -> Namespaces {
        let mut namespaces = Namespaces::default();
        let listed = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
        for namespace in listed.into_iter().flatten() {
            let flag = flag(namespace.typ());
            match namespace.path() {
                Some(path) if !path.as_os_str().is_empty() => {
                    namespaces.join.push(Join { flag, path: path.clone(), fd: None });
                }
                _ => namespaces.new |= flag,
            }
        }
        namespaces.join.sort_by_key(|join| match join.flag {
            libc::CLONE_NEWUSER => 0,
            libc::CLONE_NEWNS => 2,
            _ => 1,
        });
        namespaces
    }

    /// Whether the container has a namespace of this kind that is not the runtime's own.
    pub fn has(&self, flag: i32) -> bool {
        self.new & flag != 0 || self.joins(flag)
    }

    /// Whether a namespace of this kind is joined by path.
    pub fn joins(&self, flag: i32) -> bool {
        self.join.iter().any(|join| join.flag == flag)
    }

    /// The path of the namespace of this kind that is joined.
    pub fn path(&self, flag: i32) -> Option<&std::path::Path> {
        self.join.iter().find(|join| join.flag == flag).map(|join| join.path.as_path())
    }

    /// Opens the namespaces to be joined, before anything is made.
    ///
    /// # Errors
    /// As `open(2)`, with the path.
    pub fn open(&mut self) -> Result<()> {
        for join in &mut self.join {
            join.fd = Some(path::open(&join.path, libc::O_RDONLY).at("open the namespace", join.path.display())?);
        }
        Ok(())
    }

    /// Whether a helper process must stand between the creator and init: the clone that makes init
    /// has to happen inside joined namespaces, which the creator itself must not enter.
    ///
    /// With a user namespace joined, the new namespaces must belong to it. With a new one, those joined
    /// belong to another user namespace and have to be joined before the new one is entered.
    pub fn needs_stage(&self) -> bool {
        self.joins(libc::CLONE_NEWUSER) || (self.new & libc::CLONE_NEWUSER != 0 && !self.join.is_empty())
    }

    /// The pid namespace that init joins when it is set up ([`crate::init::pid_namespace`]).
    pub fn late_pid(&self) -> Option<&Join> {
        let late = self.new & libc::CLONE_NEWUSER == 0;
        self.join.iter().find(|join| late && join.flag == libc::CLONE_NEWPID)
    }

    /// Joins them, all but the mount namespace and [`Namespaces::late_pid`].
    ///
    /// # Errors
    /// As `setns(2)`, with the path; `EINVAL` where the file is a namespace of another kind.
    pub fn enter(&self) -> Result<()> {
        let later = self.late_pid().map_or(libc::CLONE_NEWNS, |join| join.flag | libc::CLONE_NEWNS);
        self.join.iter().filter(|join| join.flag & later == 0).try_for_each(Join::enter)
    }

    /// Joins the mount namespace, where one is to be joined.
    ///
    /// # Errors
    /// As [`Namespaces::enter`].
    pub fn enter_mount(&self) -> Result<()> {
        self.join.iter().filter(|join| join.flag == libc::CLONE_NEWNS).try_for_each(Join::enter)
    }
}

impl Join {
    /// Joins it. The caller itself stays where it is in the case of a pid namespace; its children are born there.
    ///
    /// # Errors
    /// As [`Namespaces::enter`].
    pub fn enter(&self) -> Result<()> {
        process::setns(self.opened()?, self.flag).at("join the namespace", self.path.display())
    }

    /// Its descriptor.
    ///
    /// # Errors
    /// Where [`Namespaces::open`] was not called.
    pub fn opened(&self) -> Result<BorrowedFd<'_>> {
        let missing = || crate::Error::Other(format!("namespace `{}` was not opened", self.path.display()));
        self.fd.as_ref().map(AsFd::as_fd).ok_or_else(missing)
    }
}

/// The `CLONE_NEW*` flag of a kind of namespace.
pub fn flag(kind: LinuxNamespaceType) -> i32 {
    match kind {
        LinuxNamespaceType::Mount => libc::CLONE_NEWNS,
        LinuxNamespaceType::Cgroup => libc::CLONE_NEWCGROUP,
        LinuxNamespaceType::Uts => libc::CLONE_NEWUTS,
        LinuxNamespaceType::Ipc => libc::CLONE_NEWIPC,
        LinuxNamespaceType::User => libc::CLONE_NEWUSER,
        LinuxNamespaceType::Pid => libc::CLONE_NEWPID,
        LinuxNamespaceType::Network => libc::CLONE_NEWNET,
        LinuxNamespaceType::Time => libc::CLONE_NEWTIME,
    }
}

/// What an id of the container is on the host.
pub fn host_id(mappings: &[LinuxIdMapping], id: u32) -> Option<u32> {
    mappings.iter().find_map(|mapping| {
        let offset = id.checked_sub(mapping.container_id()).filter(|offset| *offset < mapping.size())?;
        mapping.host_id().checked_add(offset)
    })
}
