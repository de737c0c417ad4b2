//! HTTP for both sides of the gateway: semantics, HTTP/1 and HTTP/2 messages, bodies, the minimum
//! throughput of a peer, and limits on what is in use and on what is held in memory at the same
//! time.
//!
//! This crate does not know: sockets, WebAssembly, configuration.

pub mod body;
pub mod body_budget;
pub mod client_counts;
pub mod error;
pub mod h1;
pub mod h2;
pub mod limiter;
pub mod pipe;
pub mod semantics;
pub mod text;
pub mod throughput;
