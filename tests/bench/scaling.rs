//! What a second worker brings: filtered requests a second of two over those of one, where load and gateway have two cores each.
//!
//! Where they have not, the load would take what the second worker brings: then it is what a second thread brings to calls alone
//! (host/examples/instances.rs). Must not know: tables.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use harness::Setup;

use crate::load::{self, Driver, KEY, Target};
use crate::{machine, upstream};

const CONNECTIONS: usize = 64;

/// The factor, and whether it is that of whole requests.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scaling {
    pub(crate) factor: f64,
    pub(crate) of_requests: bool,
}

/// Measures it on four cores, or by calls alone.
pub(crate) fn scaling(four: Option<[usize; 4]>, length: Duration) -> Result<Scaling> {
    let Some([first, second, third, fourth]) = four else { return of_calls() };
    let one = rate(&[first], [third, fourth], length)?;
    let two = rate(&[first, second], [third, fourth], length)?;
    Ok(Scaling { factor: two / one, of_requests: true })
}

fn of_calls() -> Result<Scaling> {
    let program = harness::repository().join("target/release/examples/instances");
    let output = Command::new(&program).arg("--scaling").output();
    let output = output.with_context(|| format!("{}: `just bench` builds it", program.display()))?;
    let said = String::from_utf8_lossy(&output.stdout);
    let factor = said.trim().parse().with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    Ok(Scaling { factor, of_requests: false })
}

/// Requests a second through the TypeScript filter with a worker on each of these cores.
fn rate(gateway: &[usize], load: [usize; 2], length: Duration) -> Result<f64> {
    let upstreams: Vec<_> = load.iter().map(|core| one_load(*core)).collect::<Result<_>>()?;
    let endpoints: Vec<String> = upstreams.iter().map(|one| format!("\"http://{}\"", one.upstream)).collect();
    let yaml = format!(
        "timeouts: {{filters: 2s}}\nupstreams: {{u: {{endpoints: [{}], idle_connections: 512}}}}\nfilters: {{f: {{source: f.wasm, timeout: 1s, config: {{key: s3cret}}}}}}\nroutes: [{{filters: [f], upstream: u}}]",
        endpoints.join(", ")
    );
    let setup = Setup::new(&yaml)?.workers(gateway.len()).level("warn");
    let running = setup.with_guest("f.wasm", "typescript/api-key")?.start()?;
    machine::pin(running.id(), gateway)?;
    let target = Target::new(running.address, "/", KEY);
    let loads: Vec<_> = upstreams
        .into_iter()
        .map(|one| {
            let target = target.clone();
            std::thread::spawn(move || one.run(&target, length))
        })
        .collect();
    let mut answered = 0;
    for load in loads {
        answered += load.join().ok().context("the load ended")??;
    }
    if answered == 0 {
        bail!("no answer");
    }
    Ok(answered as f64 / length.as_secs_f64())
}

/// Load and upstream on a thread of their own.
struct Load {
    driver: Driver,
    upstream: SocketAddr,
}

fn one_load(core: usize) -> Result<Load> {
    let driver = Driver::new(core)?;
    let upstream = driver.run(upstream::start())?;
    Ok(Load { driver, upstream })
}

impl Load {
    fn run(self, target: &Target, length: Duration) -> Result<u64> {
        self.driver.run(load::closed(target, CONNECTIONS / 2, length, u64::MAX))
    }
}
