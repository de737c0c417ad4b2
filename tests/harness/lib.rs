//! The harness: the real binary in a folder of its own, a plain HTTP/1.1 client, an upstream that does as it is told, and filters from WAT text.
//!
//! Nothing sleeps for a guessed time: what must become true is polled with a deadline, and a failure shows the gateway's whole log.

mod client;
pub mod frames;
mod gateway;
pub mod tls;
mod upstream;
pub mod wat;

pub use client::{Client, Response};
pub use gateway::{Gateway, Setup, repository};
pub use upstream::{Mood, Upstream};

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Result;
use rustix::net::{AddressFamily, SocketType};

/// An address that refuses connections for as long as this process lives: bound, so that nobody else gets the port, and not listened on.
pub fn nobody() -> Result<SocketAddr> {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None)?;
    rustix::net::bind(&socket, &SocketAddr::from(([127, 0, 0, 1], 0)))?;
    let address = rustix::net::getsockname(&socket)?.try_into()?;
    std::mem::forget(socket);
    Ok(address)
}

/// Polls until `condition` holds; panics with `what` after ten seconds.
#[track_caller]
pub fn wait_until(what: &str, condition: impl FnMut() -> bool) {
    wait_up_to(Duration::from_secs(10), what, condition);
}

/// Polls until `condition` holds; panics with `what` after `limit`.
#[track_caller]
pub fn wait_up_to(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let until = Instant::now() + limit;
    while !condition() {
        assert!(Instant::now() < until, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
