//! Memory of the gateway: idle with three filters, under many connections, half a minute later, and
//! over many reloads.
//!
//! This is the resident memory of its process and their descendants.
//!
//! This module does not know: tables.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use harness::{Gateway, Setup};

use crate::load::{self, Driver, KEY, Target};
use crate::{machine, witgate};

const CONNECTIONS: usize = 500;
/// Time from the start until memory is read, so that memory freed after the start does not count.
const SETTLE: Duration = Duration::from_secs(20);
/// Time from the end of the load until memory is read again.
const REST: Duration = Duration::from_secs(30);
const RELOADS: usize = 100;
const REQUESTS: u64 = 10_000;

/// Resident memory in MiB.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    pub(crate) idle: f64,
    pub(crate) loaded: f64,
    pub(crate) after: f64,
}

/// A gateway that is idle after its load. Other measurements may run meanwhile.
pub(crate) struct RestingGateway {
    gateway: Gateway,
    idle: f64,
    loaded: f64,
    since: Instant,
}

/// Puts load on a gateway with two workers and three filters, through the TypeScript filter.
pub(crate) fn load(driver: &Driver, upstream: SocketAddr, length: Duration) -> Result<RestingGateway> {
    let languages = ["rust", "typescript", "python"];
    let filters: String = languages
        .map(|name| format!("  {name}: {{source: {name}.wasm, timeout: 1s, config: {{key: s3cret}}}}\n"))
        .concat();
    let routes: String =
        languages.map(|name| format!("  - {{match: {{path: /{name}}}, filters: [{name}], upstream: u}}\n")).concat();
    let yaml = format!("{}filters:\n{filters}routes:\n{routes}", witgate::upstreams(upstream));
    let setup = || -> Result<Setup> {
        let mut setup = Setup::new(&yaml)?.level("warn");
        for name in languages {
            setup = setup.with_guest(&format!("{name}.wasm"), &format!("{name}/api-key"))?;
        }
        Ok(setup)
    };
    // The first gateway compiles the filters. The measured one loads them from the cache, as it
    // does after a restart.
    setup()?.start()?;
    let gateway = setup()?.start()?;
    std::thread::sleep(SETTLE);
    let idle = machine::rss(gateway.id())?;
    let target = Target::new(gateway.address, "/typescript", KEY);
    let (peak, result) =
        peak_during(gateway.id(), || driver.run(load::closed_loop(&target, CONNECTIONS, length, u64::MAX)));
    result?;
    Ok(RestingGateway { gateway, idle, loaded: peak, since: Instant::now() })
}

impl RestingGateway {
    /// Waits for the remaining idle time, then reads the memory.
    pub(crate) fn finish(self) -> Result<Memory> {
        std::thread::sleep(REST.saturating_sub(self.since.elapsed()));
        Ok(Memory { idle: self.idle, loaded: self.loaded, after: machine::rss(self.gateway.id())? })
    }
}

/// Returns the highest memory of a process while `work` runs, in MiB.
fn peak_during<T>(id: u32, work: impl FnOnce() -> T) -> (f64, T) {
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let sampler = std::thread::spawn(move || {
        let mut peak = 0.0_f64;
        while !stopped.load(Ordering::Relaxed) {
            peak = peak.max(machine::rss(id).unwrap_or_default());
            std::thread::sleep(Duration::from_millis(50));
        }
        peak
    });
    let result = work();
    stop.store(true, Ordering::Relaxed);
    (sampler.join().unwrap_or_default(), result)
}

/// Memory in MiB after a tenth of the reloads, when caches are warm, and after all of them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Growth {
    pub(crate) early: f64,
    pub(crate) late: f64,
    pub(crate) reloads: usize,
    pub(crate) requests: u64,
}

/// Reloads two versions of a TypeScript filter in turn, with requests after each reload.
pub(crate) fn growth(driver: &Driver, upstream: SocketAddr, mut progress: impl FnMut(usize)) -> Result<Growth> {
    let first = std::fs::read(harness::repository().join("guests/dist/typescript/api-key.wasm"))?;
    // An empty custom section changes the digest, but not the filter.
    let second = [first.as_slice(), &[0, 5, 4, b'e', b'v', b'e', b'n']].concat();
    let yaml = format!(
        "{}filters: {{f: {{source: f.wasm, timeout: 1s, config: {{key: s3cret}}}}}}\nroutes: [{{filters: [f], upstream: u}}]",
        witgate::upstreams(upstream)
    );
    let gateway = Setup::new(&yaml)?.level("warn").with("f.wasm", &first)?.start()?;
    let target = Target::new(gateway.address, "/", KEY);
    let mut memory = vec![];
    for reload in 1..=RELOADS {
        let before = gateway.admin("/filters")?.text();
        gateway.replace("f.wasm", if reload % 2 == 1 { &second } else { &first })?;
        let began = Instant::now();
        while gateway.admin("/filters")?.text() == before {
            ensure!(began.elapsed() < Duration::from_secs(60), "reload {reload} did not happen");
            std::thread::sleep(Duration::from_millis(2));
        }
        let limit = Duration::from_secs(60);
        let answered = driver.run(load::closed_loop(&target, 64, limit, REQUESTS))?;
        ensure!(answered >= REQUESTS, "only {answered} responses after reload {reload}");
        memory.push(machine::rss(gateway.id())?);
        progress(reload);
    }
    let early = *memory.get(RELOADS / 10 - 1).context("too few readings")?;
    let late = *memory.last().context("no reading")?;
    Ok(Growth { early, late, reloads: RELOADS, requests: REQUESTS })
}
