//! Attacks on connections, and their cost: floods, and connections that are slow on purpose.
//!
//! A test binary of its own, because it measures memory and time and cargo runs test binaries one
//! after the other. It does not know: the gateway's sources.
#![allow(clippy::unwrap_used, missing_docs)]

mod attacks;
mod flood_writer;
mod floods;
mod measure;
mod slow;
mod slow_readers;

use std::sync::Mutex;

use anyhow::Result;
use harness::{Gateway, Setup, Upstream};

/// Serializes the tests, so that only one of them measures at a time.
static MEASURING: Mutex<()> = Mutex::new(());

/// Short timeouts keep the suite short.
const TIMEOUTS: &str = "timeouts: {request_head: 1s, request_body: 2s, idle: 3s, send: 2s, filters: 500ms}";

/// A gateway with one worker thread, which an attack shares with normal traffic.
fn gateway(upstream: &Upstream) -> Result<Gateway> {
    let yaml = format!(
        "{TIMEOUTS}\nlimits: {{in_flight: 4096, min_bytes_per_second: 240}}\nupstreams: {{u: {{endpoints: [\"http://{}\"], timeout: 15s}}}}\nroutes: [{{upstream: u}}]",
        upstream.address
    );
    let gateway = Setup::new(&yaml)?.workers(1).level("error").start()?;
    // Memory that the gateway allocates only once must not count as growth under an attack.
    for _ in 0..200 {
        gateway.get("/bytes/100000", &[])?;
    }
    Ok(gateway)
}
