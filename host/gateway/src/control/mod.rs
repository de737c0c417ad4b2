//! What changes the running state: reloads, signals, the sockets, and the hand-over to a new process.
//!
//! This module does not know: how requests are answered (`server`).

pub mod health;
pub mod reload;
pub mod signals;
pub mod sockets;
pub mod systemd;
pub mod takeover;
