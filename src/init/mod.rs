//! What runs inside the clone, in order.
pub mod console;
pub mod intel_rdt;
pub mod keyring;
pub mod loopback;
pub mod net_devices;
pub mod process;
pub mod procfs;
pub mod reaper;
pub mod report;
pub mod rootfs;
pub mod sysctl;
pub mod time_offsets;
pub mod user_namespace;
pub mod uts;
