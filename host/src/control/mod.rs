//! What changes the running state, on a thread of its own: files that change, signals, the admin listener.
//!
//! Publishes a new snapshot or starts a drain; never touches a connection.

pub mod admin;
pub mod artifacts;
pub mod cache;
pub mod certs;
pub mod compile;
pub mod functions;
pub mod handover;
pub mod health;
pub mod reload;
pub mod sealed;
pub mod signals;
pub mod sockets;
pub mod state;
pub mod systemd;
