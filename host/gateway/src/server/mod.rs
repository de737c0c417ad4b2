//! Client connections: accepting, TLS, HTTP/1.1 and HTTP/2, and the limits on what a client can delay or flood.
//!
//! This module does not know: what happens to a request (`pipeline`), what changes the state (`control`).

pub mod connection;
mod flood;
mod h1;
mod h2;
mod handshake;
pub mod listener;
mod wire;
mod worker;
