//! The gateway under test: one worker, and the same filter in three languages, each on its own
//! route.
//!
//! If a case is not built, or this version of the gateway does not support it, the table says so.
//!
//! This module does not know: peers, tables.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use harness::{Gateway, Setup};

use crate::cases::RunningCase;
use crate::machine;

/// The filters: case, guest, and more of its configuration than source and key.
const FILTERS: [(&str, &str, &str); 7] = [
    ("rust", "rust/api-key", ""),
    ("typescript", "typescript/api-key", ""),
    ("python", "python/api-key", ""),
    ("typescript-reuse", "typescript/api-key", ", reuse: 1000000"),
    ("python-reuse", "python/api-key", ", reuse: 1000000"),
    ("typescript-unoptimized", "tests/typescript/unoptimized/api-key", ""),
    ("python-unoptimized", "tests/python/unoptimized/api-key", ""),
];

/// A running gateway and its cases.
pub(crate) struct Witgate {
    pub(crate) gateway: Gateway,
    pub(crate) cases: Vec<RunningCase>,
    /// Cases that cannot be measured, and the reasons.
    pub(crate) missing: Vec<(&'static str, String)>,
}

/// The first part of the gateway's configuration.
pub(crate) fn upstreams(upstream: SocketAddr) -> String {
    // The timeouts are long enough for a busy machine. Their length does not change their cost.
    format!(
        "timeouts: {{filters: 2s}}\nupstreams: {{u: {{endpoints: [\"http://{upstream}\"], idle_connections: 512, connect_timeout: 5s}}}}\n"
    )
}

/// Starts the gateway on a core, with all cases that are built and supported.
pub(crate) fn start(upstream: SocketAddr, core: usize, workers: usize) -> Result<Witgate> {
    let mut missing = vec![];
    let mut available = vec![];
    for filter in FILTERS {
        match check(upstream, filter) {
            Ok(()) => available.push(filter),
            Err(error) => missing.push((filter.0, format!("{error:#}"))),
        }
    }
    // The first start compiles the filters on all cores. The second loads them from the cache, on
    // one core.
    setup(upstream, &available, workers)?.start()?;
    let gateway = machine::run_on_core(core, || setup(upstream, &available, workers)?.start())?;
    let ids = std::iter::once("plain").chain(available.iter().map(|filter| filter.0));
    let (address, process) = (gateway.address, gateway.id());
    let cases = ids.map(|id| RunningCase { id, address, path: format!("/{id}"), process }).collect();
    Ok(Witgate { gateway, cases, missing })
}

/// Starts the gateway on a core with the filters of these cases, without other cases. `change`
/// alters the set-up, and `yaml` has further keys.
pub(crate) fn start_with(
    upstream: SocketAddr,
    core: usize,
    ids: &[&str],
    change: impl Fn(Setup) -> Setup,
    yaml: &str,
) -> Result<Gateway> {
    let filters: Vec<_> = FILTERS.into_iter().filter(|filter| ids.contains(&filter.0)).collect();
    let start = || change(setup_with(upstream, &filters, 1, yaml)?).start();
    // The first start compiles, as above.
    start()?;
    machine::run_on_core(core, start)
}

fn setup(upstream: SocketAddr, available: &[(&str, &str, &str)], workers: usize) -> Result<Setup> {
    setup_with(upstream, available, workers, "")
}

fn setup_with(upstream: SocketAddr, available: &[(&str, &str, &str)], workers: usize, yaml: &str) -> Result<Setup> {
    let mut filters = String::new();
    let mut routes = String::from("routes:\n  - {match: {path: /plain}, upstream: u}\n");
    for (id, _, more) in available {
        filters.push_str(&format!("  {id}: {{source: {id}.wasm, timeout: 1s, config: {{key: s3cret}}{more}}}\n"));
        routes.push_str(&format!("  - {{match: {{path: /{id}}}, filters: [{id}], upstream: u}}\n"));
    }
    let filters = if filters.is_empty() { filters } else { format!("filters:\n{filters}") };
    let mut setup =
        Setup::new(&format!("{yaml}{}{filters}{routes}", upstreams(upstream)))?.workers(workers).level("warn");
    for (id, guest, _) in available {
        setup = setup.with_guest(&format!("{id}.wasm"), guest)?;
    }
    Ok(setup)
}

/// Fails if the guest is not built, or if the gateway refuses the configuration.
fn check(upstream: SocketAddr, filter: (&str, &str, &str)) -> Result<()> {
    let (code, output) = setup(upstream, &[filter], 1)?.check()?;
    ensure!(!output.contains("reuse: unknown key"), "this version of the gateway does not support `reuse`");
    let line = output.lines().find(|line| line.contains("filters.")).unwrap_or(&output);
    ensure!(code == Some(0), "the gateway refuses the configuration: {}", line.trim());
    Ok(())
}
