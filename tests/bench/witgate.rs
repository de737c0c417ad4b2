//! The gateway under test: the same filter in three languages, each on a route of its own, one worker.
//!
//! What a version of the gateway does not offer, or has not been built, is a reason in the table. Must not know: peers, tables.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use harness::{Gateway, Setup};

use crate::cases::Running;
use crate::machine;

/// The filter of the comparison, by case: the guest and what its configuration has beside source and key.
const FILTERS: [(&str, &str, &str); 7] = [
    ("rust", "rust/api-key", ""),
    ("typescript", "typescript/api-key", ""),
    ("python", "python/api-key", ""),
    ("typescript-reuse", "typescript/api-key", ", reuse: 1000000"),
    ("python-reuse", "python/api-key", ", reuse: 1000000"),
    ("typescript-unflattened", "tests/typescript/unflattened/api-key", ""),
    ("python-unflattened", "tests/python/unflattened/api-key", ""),
];

/// A running gateway and its cases.
pub(crate) struct Ours {
    pub(crate) gateway: Gateway,
    pub(crate) cases: Vec<Running>,
    /// Cases that cannot be had, and why.
    pub(crate) missing: Vec<(&'static str, String)>,
}

/// The beginning of the YAML.
pub(crate) fn upstreams(upstream: SocketAddr) -> String {
    // Time limits that a busy machine does not reach: what they cost does not depend on them.
    format!(
        "timeouts: {{filters: 2s}}\nupstreams: {{u: {{endpoints: [\"http://{upstream}\"], idle_connections: 512, connect_timeout: 5s}}}}\n"
    )
}

/// Starts it on a core, with all cases that this build offers.
pub(crate) fn start(upstream: SocketAddr, core: usize, workers: usize) -> Result<Ours> {
    let mut missing = vec![];
    let mut offered = vec![];
    for filter in FILTERS {
        match offers(upstream, filter) {
            Ok(()) => offered.push(filter),
            Err(error) => missing.push((filter.0, format!("{error:#}"))),
        }
    }
    // Once on all cores, so that what must be compiled is; then from the cache, on its core.
    setup(upstream, &offered, workers)?.start()?;
    let gateway = machine::on(core, || setup(upstream, &offered, workers)?.start())?;
    let ids = std::iter::once("plain").chain(offered.iter().map(|filter| filter.0));
    let (address, process) = (gateway.address, gateway.id());
    let cases = ids.map(|id| Running { id, address, path: format!("/{id}"), process }).collect();
    Ok(Ours { gateway, cases, missing })
}

fn setup(upstream: SocketAddr, offered: &[(&str, &str, &str)], workers: usize) -> Result<Setup> {
    let mut filters = String::new();
    let mut routes = String::from("routes:\n  - {match: {path: /plain}, upstream: u}\n");
    for (id, _, more) in offered {
        filters.push_str(&format!("  {id}: {{source: {id}.wasm, timeout: 1s, config: {{key: s3cret}}{more}}}\n"));
        routes.push_str(&format!("  - {{match: {{path: /{id}}}, filters: [{id}], upstream: u}}\n"));
    }
    let filters = if filters.is_empty() { filters } else { format!("filters:\n{filters}") };
    let mut setup = Setup::new(&format!("{}{filters}{routes}", upstreams(upstream)))?.workers(workers).level("warn");
    for (id, guest, _) in offered {
        setup = setup.with_guest(&format!("{id}.wasm"), guest)?;
    }
    Ok(setup)
}

/// Whether the guest was built and the gateway takes the configuration.
fn offers(upstream: SocketAddr, filter: (&str, &str, &str)) -> Result<()> {
    let (code, said) = setup(upstream, &[filter], 1)?.check()?;
    ensure!(!said.contains("reuse: unknown key"), "this version of the gateway has no `reuse`");
    let line = said.lines().find(|line| line.contains("filters.")).unwrap_or(&said);
    ensure!(code == Some(0), "the gateway does not take it: {}", line.trim());
    Ok(())
}
