//! The OCI life of a container (runtime specification, "Lifecycle").

pub mod birth_network;
pub mod checkpoint;
pub mod console;
pub mod create;
pub mod created;
pub mod delete;
pub mod events;
pub mod exec;
pub mod foreground;
pub mod hooks;
pub mod identity;
pub mod kill;
pub mod list;
pub mod namespaces;
mod net_devices;
pub mod notify_socket;
pub mod options;
pub mod pending;
mod pid_file;
mod plan;
pub mod record;
pub mod report;
pub mod run;
pub mod running_hook;
pub mod spawn;
pub mod start;
pub mod state;
