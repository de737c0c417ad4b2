//! Memory of the gateway: idle with the three filters, under many connections, half a minute after; and over many reloads.
//!
//! Resident memory of its process and of those that it started. Must not know: tables.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use harness::{Gateway, Setup};

use crate::load::{self, Driver, KEY, Target};
use crate::{machine, witgate};

const CONNECTIONS: usize = 500;
/// After the start, before memory is read: what is let go of then is gone.
const SETTLE: Duration = Duration::from_secs(20);
/// After the load, before memory is read again.
const REST: Duration = Duration::from_secs(30);
const RELOADS: usize = 100;
const REQUESTS: u64 = 10_000;

/// MiB.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    pub(crate) idle: f64,
    pub(crate) loaded: f64,
    pub(crate) after: f64,
}

/// A gateway that rests after its load; other things may be measured meanwhile.
pub(crate) struct Resting {
    gateway: Gateway,
    idle: f64,
    loaded: f64,
    since: Instant,
}

/// Two workers, three filters, the load through the TypeScript one.
pub(crate) fn load(driver: &Driver, upstream: SocketAddr, length: Duration) -> Result<Resting> {
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
    // Once to compile what must be compiled; a gateway that did is not idle memory as after a restart.
    setup()?.start()?;
    let gateway = setup()?.start()?;
    std::thread::sleep(SETTLE);
    let idle = machine::rss(gateway.id())?;
    let target = Target::new(gateway.address, "/typescript", KEY);
    let (most, result) = highest(gateway.id(), || driver.run(load::closed(&target, CONNECTIONS, length, u64::MAX)));
    result?;
    Ok(Resting { gateway, idle, loaded: most, since: Instant::now() })
}

impl Resting {
    /// Waits for what is left of the rest.
    pub(crate) fn done(self) -> Result<Memory> {
        std::thread::sleep(REST.saturating_sub(self.since.elapsed()));
        Ok(Memory { idle: self.idle, loaded: self.loaded, after: machine::rss(self.gateway.id())? })
    }
}

/// The highest memory of a process while something is done.
fn highest<T>(id: u32, work: impl FnOnce() -> T) -> (f64, T) {
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let watch = std::thread::spawn(move || {
        let mut most = 0.0_f64;
        while !stopped.load(Ordering::Relaxed) {
            most = most.max(machine::rss(id).unwrap_or_default());
            std::thread::sleep(Duration::from_millis(50));
        }
        most
    });
    let done = work();
    stop.store(true, Ordering::Relaxed);
    (watch.join().unwrap_or_default(), done)
}

/// MiB after a tenth of the reloads, when all is warm, and after all.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Growth {
    pub(crate) early: f64,
    pub(crate) late: f64,
    pub(crate) reloads: usize,
    pub(crate) requests: u64,
}

/// Two versions of a TypeScript filter take turns, with requests between.
pub(crate) fn growth(driver: &Driver, upstream: SocketAddr, mut said: impl FnMut(usize)) -> Result<Growth> {
    let first = std::fs::read(harness::repository().join("guests/dist/typescript/api-key.wasm"))?;
    // An empty custom section: another digest, the same filter.
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
            ensure!(began.elapsed() < Duration::from_secs(60), "reload {reload} did not come");
            std::thread::sleep(Duration::from_millis(2));
        }
        let most = Duration::from_secs(60);
        let answered = driver.run(load::closed(&target, 64, most, REQUESTS))?;
        ensure!(answered >= REQUESTS, "only {answered} answers after reload {reload}");
        memory.push(machine::rss(gateway.id())?);
        said(reload);
    }
    let early = *memory.get(RELOADS / 10 - 1).context("no early reading")?;
    let late = *memory.last().context("no reading")?;
    Ok(Growth { early, late, reloads: RELOADS, requests: REQUESTS })
}
