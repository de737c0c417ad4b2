//! Changes of the running state: reload, signals, sockets, takeover.
//!
//! This module does not know: how requests are answered.

pub mod admin_socket;
pub mod config_source;
pub mod file_watcher;
pub mod known_series;
mod references;
pub mod reload;
pub mod reload_jobs;
pub mod rollout;
mod share;
pub mod signals;
pub mod sockets;
pub mod supervisor;
pub mod systemd;
pub mod takeover;
