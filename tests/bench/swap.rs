//! From a new filter's file to its first answer, and what traffic feels while it is compiled.
//!
//! A gateway that has loaded another filter of the language gets a new one: cold, then the old one back from the cache. For the traffic, gateway
//! and compiler share one core, which is the worst case; the load has the other. Must not know: tables.

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

/// Two filters of a language of which the first answers 401 to a bare request and the second lets it pass.
const SWAPS: [(&str, &str, &str); 3] = [
    ("Rust", "rust/api-key", "rust/security-headers"),
    ("TypeScript", "typescript/api-key", "typescript/rate-limit"),
    ("Python", "python/api-key", "python/redact"),
];
/// A compiler that takes longer is an error.
const COMPILE_MAX: Duration = Duration::from_secs(120);
const QUIET: Duration = Duration::from_secs(4);
const RATE: u32 = 1000;
const CONNECTIONS: u32 = 32;

/// Medians of one language.
#[derive(Debug, Clone)]
pub(crate) struct Swap {
    pub(crate) language: &'static str,
    /// Milliseconds.
    pub(crate) cold: f64,
    /// Milliseconds.
    pub(crate) cached: f64,
    /// P99 of traffic through another filter before, µs; of all rounds together, as the next two: a quick compiler leaves few requests in each.
    pub(crate) quiet: f64,
    /// The same while a process of the idle class does nothing on the gateway's core but run, µs: the machine's own part.
    pub(crate) crowded: f64,
    /// The same while the new filter is compiled, µs.
    pub(crate) busy: f64,
}

/// All languages.
pub(crate) fn swaps(
    driver: &Driver,
    upstream: SocketAddr,
    cores: Cores,
    rounds: usize,
    mut said: impl FnMut(&str),
) -> Result<Vec<Swap>> {
    let mut swaps = vec![];
    for (language, first, second) in SWAPS {
        let (mut cold, mut cached, mut quiet, mut crowded, mut busy) = (vec![], vec![], vec![], vec![], vec![]);
        for _ in 0..rounds {
            said(language);
            let gateway = start(upstream, first)?;
            cold.push(swap(&gateway, second, 200)?);
            cached.push(swap(&gateway, first, 401)?);
            drop(gateway);
            let gateway = start(upstream, first)?;
            machine::pin(gateway.id(), &[cores.gateway])?;
            let target = Target::new(gateway.address, "/traffic", KEY);
            let calm = || driver.run(load::open(&target, CONNECTIONS, RATE, QUIET, Arc::default()));
            quiet.append(&mut calm()?.answers);
            let spinner = Spinner::start(cores.gateway)?;
            crowded.append(&mut calm()?.answers);
            drop(spinner);
            busy.append(&mut meanwhile(driver, &gateway, &target, second)?);
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

/// A process that takes what others leave of a core, as the compiler does.
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
        // It does not end by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A gateway with nothing compiled but this filter and that of the traffic.
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

/// From a file's replacement to the first answer of the new version on a connection that was there before, in milliseconds.
fn swap(gateway: &Gateway, guest: &str, status: u16) -> Result<f64> {
    let mut client = gateway.client()?;
    let port = client.local_addr()?;
    ensure!(client.get("/", &[])?.status != status, "the old version must answer otherwise");
    let bytes = bytes(guest)?;
    gateway.replace("f.wasm", bytes)?;
    let began = Instant::now();
    answers(&mut client, status, Duration::from_micros(500))?;
    ensure!(client.local_addr()? == port, "the connection stays");
    Ok(began.elapsed().as_secs_f64() * 1e3)
}

/// Waits for the new version's status; with pauses, since the compiler needs the cores.
fn answers(client: &mut Client, status: u16, pause: Duration) -> Result<()> {
    let began = Instant::now();
    while client.get("/", &[])?.status != status {
        ensure!(began.elapsed() < COMPILE_MAX, "the new version did not come");
        std::thread::sleep(pause);
    }
    Ok(())
}

/// Latencies from the file's replacement until the new version answers.
fn meanwhile(driver: &Driver, gateway: &Gateway, target: &Target, guest: &str) -> Result<Vec<f64>> {
    let stop = Arc::new(AtomicBool::new(false));
    let mut client = gateway.client()?;
    let bytes = bytes(guest)?;
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            // The load's connections are open and warm by then.
            std::thread::sleep(load::WARM_UP + Duration::from_millis(100));
            let replaced = gateway.replace("f.wasm", bytes);
            let live = replaced.and_then(|()| answers(&mut client, 200, Duration::from_millis(20)));
            stop.store(true, Ordering::Relaxed);
            live
        });
        let seen = driver.run(load::open(target, CONNECTIONS, RATE, COMPILE_MAX, stop.clone()));
        stop.store(true, Ordering::Relaxed);
        match watch.join() {
            Ok(live) => live?,
            Err(_) => anyhow::bail!("the watch ended"),
        }
        Ok(seen?.answers)
    })
}
