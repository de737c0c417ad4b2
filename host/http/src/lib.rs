//! HTTP as the gateway treats it whatever the route: semantics, message framing, bodies, and how slow a peer may be.
//!
//! This crate does not know: sockets, WebAssembly, configuration.

pub mod body;
pub mod error;
pub mod h1;
pub mod h2;
pub mod semantics;
pub mod text;
pub mod throughput;
