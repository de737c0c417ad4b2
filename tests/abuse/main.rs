//! What an attacker does with a connection, and what it costs: floods, and connections that go slowly on purpose. By itself, since it measures.
#![allow(clippy::unwrap_used, missing_docs)]

mod beside;
mod floods;
mod pour;
mod slow;

use std::sync::Mutex;

use anyhow::Result;
use harness::{Gateway, Setup, Upstream};

/// Held by the test that measures.
static ALONE: Mutex<()> = Mutex::new(());

/// Short deadlines, so that the suite is short; the rules are those of any configuration.
const TIMEOUTS: &str = "timeouts: {request_head: 1s, request_body: 2s, idle: 3s, send: 2s, filters: 500ms}";

/// One thread: an attack and its neighbours share it.
fn gateway(upstream: &Upstream) -> Result<Gateway> {
    let yaml = format!(
        "{TIMEOUTS}\nlimits: {{in_flight: 4096, min_bytes_per_second: 240}}\nupstreams: {{u: {{endpoints: [\"http://{}\"], timeout: 15s}}}}\nroutes: [{{upstream: u}}]",
        upstream.address
    );
    let gateway = Setup::new(&yaml)?.workers(1).level("error").start()?;
    // What it allocates once is not an attack's growth.
    for _ in 0..200 {
        gateway.get("/bytes/100000", &[])?;
    }
    Ok(gateway)
}
