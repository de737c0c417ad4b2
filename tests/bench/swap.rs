//! Filter swaps: the time from a new filter file to its first response, and the latency of other
//! traffic while the filter is compiled.
//!
//! A gateway that has loaded another filter of the language gets a new filter, which it must
//! compile. Then it gets the old one back, from the cache. For the traffic, gateway and compiler
//! share one core, which is the worst case, and the load has another.
//!
//! This module does not know: tables.

use std::net::SocketAddr;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use harness::{Client, Gateway, Setup};

use crate::cases::{median, percentile};
use crate::load::{self, Driver, KEY, Target};
use crate::machine::{self, Cores};

/// Two filters of each language. The first answers 401 to a request without fields, the second lets
/// it pass.
const SWAPS: [(&str, &str, &str); 3] = [
    ("Rust", "rust/api-key", "rust/security-headers"),
    ("TypeScript", "typescript/api-key", "typescript/rate-limit"),
    ("Python", "python/api-key", "python/redact"),
];
/// A compilation that takes longer is an error.
const COMPILE_MAX: Duration = Duration::from_secs(120);
const QUIET: Duration = Duration::from_secs(4);
const RATE: u32 = 1000;
const CONNECTIONS: u32 = 32;

/// Results of one language. Swap times are medians; P99s are over the traffic of all rounds
/// together, because a fast compiler leaves few requests in each round.
#[derive(Debug, Clone)]
pub(crate) struct Swap {
    pub(crate) language: &'static str,
    /// Time until a new filter responds that must be compiled, ms.
    pub(crate) cold: f64,
    /// Time until a filter responds that is in the cache, ms.
    pub(crate) cached: f64,
    /// P99 of traffic through another filter before the swap, µs.
    pub(crate) quiet: f64,
    /// P99 while a process of the idle class spins on the gateway's core, µs. This part is due to
    /// the machine.
    pub(crate) crowded: f64,
    /// P99 while the new filter is compiled, µs.
    pub(crate) busy: f64,
}

/// Measures all languages.
pub(crate) fn swaps(
    driver: &Driver,
    upstream: SocketAddr,
    cores: Cores,
    rounds: usize,
    mut progress: impl FnMut(&str),
) -> Result<Vec<Swap>> {
    let mut swaps = vec![];
    for (language, first, second) in SWAPS {
        let (mut cold, mut cached, mut quiet, mut crowded, mut busy) = (vec![], vec![], vec![], vec![], vec![]);
        for _ in 0..rounds {
            progress(language);
            let gateway = start(upstream, first)?;
            cold.push(swap(&gateway, second, 200)?);
            cached.push(swap(&gateway, first, 401)?);
            drop(gateway);
            let gateway = start(upstream, first)?;
            machine::pin(gateway.id(), &[cores.gateway])?;
            let target = Target::new(gateway.address, "/traffic", KEY);
            let measure = || driver.run(load::open_loop(&target, CONNECTIONS, RATE, QUIET, Arc::default()));
            quiet.append(&mut measure()?.responses);
            let spinner = Spinner::start(cores.gateway)?;
            crowded.append(&mut measure()?.responses);
            drop(spinner);
            busy.append(&mut latencies_during_swap(driver, &gateway, &target, second)?);
        }
        swaps.push(Swap {
            language,
            cold: median(&cold).unwrap_or_default(),
            cached: median(&cached).unwrap_or_default(),
            quiet: percentile(&quiet, 0.99).unwrap_or_default(),
            crowded: percentile(&crowded, 0.99).unwrap_or_default(),
            busy: percentile(&busy, 0.99).unwrap_or_default(),
        });
    }
    Ok(swaps)
}

/// A process of the idle class, as the compiler is, that spins on a core until it is dropped.
struct Spinner(Child);

impl Spinner {
    fn start(core: usize) -> Result<Self> {
        let spinner = Command::new("chrt").args(["--idle", "0", "sh", "-c", "while :; do :; done"]).spawn()?;
        machine::pin(spinner.id(), &[core])?;
        Ok(Self(spinner))
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a gateway that has compiled only this filter and the one of the traffic.
fn start(upstream: SocketAddr, guest: &str) -> Result<Gateway> {
    let yaml = format!(
        "timeouts: {{filters: 2s}}\nupstreams: {{echo: {{builtin: echo}}, u: {{endpoints: [\"http://{upstream}\"]}}}}\nfilters:\n  f: {{source: f.wasm, capabilities: [keyvalue]}}\n  t: {{source: t.wasm, timeout: 1s, config: {{key: s3cret}}}}\nroutes:\n  - {{filters: [f], upstream: echo}}\n  - {{match: {{path: /traffic}}, filters: [t], upstream: u}}\n",
    );
    let setup = Setup::new(&yaml)?.workers(1).level("warn").with("f.wasm", bytes(guest)?)?;
    setup.with("t.wasm", bytes("rust/api-key")?)?.start()
}

fn bytes(guest: &str) -> Result<Vec<u8>> {
    Ok(std::fs::read(harness::repository().join(format!("guests/dist/{guest}.wasm")))?)
}

/// Replaces the filter file. Returns the time until the first response of the new version on an
/// open connection, in milliseconds.
fn swap(gateway: &Gateway, guest: &str, status: u16) -> Result<f64> {
    let mut client = gateway.client()?;
    let port = client.local_addr()?;
    ensure!(client.get("/", &[])?.status != status, "the old version already answers {status}");
    let bytes = bytes(guest)?;
    gateway.replace("f.wasm", bytes)?;
    let began = Instant::now();
    wait_for_status(&mut client, status, Duration::from_micros(500))?;
    ensure!(client.local_addr()? == port, "the gateway closed the connection at the swap");
    Ok(began.elapsed().as_secs_f64() * 1e3)
}

/// Sends requests until the new version answers. Pauses in between, because the compiler needs the
/// cores.
fn wait_for_status(client: &mut Client, status: u16, pause: Duration) -> Result<()> {
    let began = Instant::now();
    while client.get("/", &[])?.status != status {
        ensure!(began.elapsed() < COMPILE_MAX, "the new version did not answer within {COMPILE_MAX:?}");
        std::thread::sleep(pause);
    }
    Ok(())
}

/// Measures latencies while the filter file is replaced, until the new version answers.
fn latencies_during_swap(driver: &Driver, gateway: &Gateway, target: &Target, guest: &str) -> Result<Vec<f64>> {
    let stop = Arc::new(AtomicBool::new(false));
    let mut client = gateway.client()?;
    let bytes = bytes(guest)?;
    std::thread::scope(|scope| {
        let swapper = scope.spawn(|| {
            // By then the load's connections have warmed up.
            std::thread::sleep(load::WARM_UP + Duration::from_millis(100));
            let replaced = gateway.replace("f.wasm", bytes);
            let result = replaced.and_then(|()| wait_for_status(&mut client, 200, Duration::from_millis(20)));
            stop.store(true, Ordering::Relaxed);
            result
        });
        let latencies = driver.run(load::open_loop(target, CONNECTIONS, RATE, COMPILE_MAX, stop.clone()));
        stop.store(true, Ordering::Relaxed);
        match swapper.join() {
            Ok(result) => result?,
            Err(_) => anyhow::bail!("the thread that swaps the filter panicked"),
        }
        Ok(latencies?.responses)
    })
}
