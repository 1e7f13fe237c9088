//! cgroup v1, v2, hybrid and systemd, behind one small trait.
//!
//! | step | what | effect |
//! |---|---|---|
//! | [`Layout::probe`] | how the host mounts its hierarchies | a few `statfs` |
//! | [`plan()`] | one directory per hierarchy, as data that goes into the container's record | none |
//! | [`Plan::create`] | `mkdir`, then the limits of `linux.resources`; on failure everything made is removed | yes |
//! | [`Cgroup::entry`] | descriptors through which a *new* process enters | opens files |
//! | [`Cgroup::kill`], [`Cgroup::remove`] | the end, bounded, with proof | yes |
//!
//! **Entering.** Nobody here ever writes another process's pid to `cgroup.procs`: that takes the kernel's
//! `cgroup_threadgroup_rwsem` for writing and waits for an RCU grace period, 7 to 30 ms on an idle machine. On v2 a
//! process is born inside (`CLONE_INTO_CGROUP`); on v1 the new process, still single-threaded, writes `0` to
//! each `tasks` file, which moves one thread and takes no global lock. See `docs/decisions/0002-enter-cgroups-from-inside.md`.

mod backend;
mod create;
mod devices;
mod file;
mod layout;
mod limits;
mod oom;
mod plan;
mod release;
pub mod stats;
mod sub;
pub mod systemd;
mod tree;
mod v1;
mod v2;

pub use create::{Begun, Cgroup, Entry};
pub use layout::{Controller, Hierarchy, Layout, Version};
pub use oom::OomWatch;
pub use plan::{Directory, Plan, Request, plan};
pub use sub::SubCgroups;
