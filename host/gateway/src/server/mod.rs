//! Client connections: from `accept` through TLS to HTTP/1.1 or HTTP/2.
//!
//! `listener` runs the serving threads and accepts connections, `connection` finds out who the
//! client is and which protocol it speaks, and `h1` or `h2` serves its requests. Slow clients and
//! floods of frames end here. This module does not know: what happens to a request (`pipeline`),
//! what changes the state (`control`).

pub mod connection;
mod flood;
mod h1;
mod h2;
mod handshake;
mod idle_connections;
mod linger;
pub mod listener;
mod worker;
