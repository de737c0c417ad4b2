//! Scaling: the throughput of two workers divided by that of one.
//!
//! On four cores it measures filtered requests, with two cores each for load and gateway. With
//! fewer cores the load would compete with the second worker. Then it measures filter calls without
//! HTTP, on two threads and on one (the example `instances` of the gateway).
//!
//! This module does not know: tables.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use harness::Setup;

use crate::load::{self, Driver, KEY, Target};
use crate::{machine, upstream};

const CONNECTIONS: usize = 64;

/// The factor, and whether it was measured with requests or with calls alone.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scaling {
    pub(crate) factor: f64,
    pub(crate) of_requests: bool,
}

/// Measures requests on four cores, or else calls alone.
pub(crate) fn scaling(four: Option<[usize; 4]>, length: Duration) -> Result<Scaling> {
    let Some([first, second, third, fourth]) = four else { return scaling_of_calls() };
    let one = rate(&[first], [third, fourth], length)?;
    let two = rate(&[first, second], [third, fourth], length)?;
    Ok(Scaling { factor: two / one, of_requests: true })
}

/// Runs the example `instances`.
fn scaling_of_calls() -> Result<Scaling> {
    let program = harness::repository().join("target/release/examples/instances");
    let output = Command::new(&program).arg("--scaling").output();
    let output = output.with_context(|| format!("cannot run {}, which `just bench` builds", program.display()))?;
    let stdout = String::from_utf8_lossy(&output.stdout);
    let factor = stdout.trim().parse().with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    Ok(Scaling { factor, of_requests: false })
}

/// Requests per second through the TypeScript filter, with a worker on each of the gateway's cores.
fn rate(gateway: &[usize], load: [usize; 2], length: Duration) -> Result<f64> {
    let loads: Vec<_> = load.iter().map(|core| Load::new(*core)).collect::<Result<_>>()?;
    let endpoints: Vec<String> = loads.iter().map(|load| format!("\"http://{}\"", load.upstream)).collect();
    let yaml = format!(
        "timeouts: {{filters: 2s}}\nupstreams: {{u: {{endpoints: [{}], idle_connections: 512}}}}\nfilters: {{f: {{source: f.wasm, timeout: 1s, config: {{key: s3cret}}}}}}\nroutes: [{{filters: [f], upstream: u}}]",
        endpoints.join(", ")
    );
    let setup = Setup::new(&yaml)?.workers(gateway.len()).level("warn");
    let running = setup.with_guest("f.wasm", "typescript/api-key")?.start()?;
    machine::pin(running.id(), gateway)?;
    let target = Target::new(running.address, "/", KEY);
    let threads: Vec<_> = loads
        .into_iter()
        .map(|load| {
            let target = target.clone();
            std::thread::spawn(move || load.run(&target, length))
        })
        .collect();
    let mut answered = 0;
    for thread in threads {
        answered += thread.join().ok().context("the load's thread panicked")??;
    }
    if answered == 0 {
        bail!("the gateway gave no response");
    }
    Ok(answered as f64 / length.as_secs_f64())
}

/// Load and upstream for one thread.
struct Load {
    driver: Driver,
    upstream: SocketAddr,
}

impl Load {
    fn new(core: usize) -> Result<Self> {
        let driver = Driver::new(core)?;
        let upstream = driver.run(upstream::start())?;
        Ok(Self { driver, upstream })
    }

    fn run(self, target: &Target, length: Duration) -> Result<u64> {
        self.driver.run(load::closed_loop(target, CONNECTIONS / 2, length, u64::MAX))
    }
}
