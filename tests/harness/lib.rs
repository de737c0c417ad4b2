//! The test harness: it starts the real binary in a temporary folder and provides a plain HTTP/1.1
//! client, a controllable upstream, and filters made from WAT text.
//!
//! Tests never sleep for a guessed time. They poll a condition until a deadline, and a failing test
//! prints the gateway's whole log.
//!
//! This crate does not know: the gateway's sources, any particular test.

mod client;
mod dns;
pub mod file_server;
pub mod frames;
mod gateway;
pub mod object_store;
pub mod otlp;
pub mod recording_upstream;
pub mod redis;
pub mod registry;
pub mod sigstore;
pub mod strict_http1;
pub mod tls;
mod upstream;
mod wait;
pub mod wat;

pub use client::{Client, Response};
pub use dns::Dns;
pub use gateway::{Gateway, Setup, binary, http_component, repository, witgate};
pub use upstream::{Behavior, Upstream};
pub use wait::{wait_until, wait_up_to};

use std::net::SocketAddr;

use anyhow::Result;
use rustix::net::{AddressFamily, SocketType};

/// An address that refuses connections until this process ends.
///
/// The socket stays bound, so that no other process gets the port, and never listens.
pub fn refusing_address() -> Result<SocketAddr> {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None)?;
    rustix::net::bind(&socket, &SocketAddr::from(([127, 0, 0, 1], 0)))?;
    let address = rustix::net::getsockname(&socket)?.try_into()?;
    std::mem::forget(socket);
    Ok(address)
}
