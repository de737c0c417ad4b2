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

use std::time::{Duration, Instant};

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
