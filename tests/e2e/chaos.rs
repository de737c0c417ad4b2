//! Endpoints, the store and filters die and certificates and filters are swapped, all under load.
//!
//! `just chaos` runs it for two minutes, or for as long as its argument says. A new version of the
//! filter is swapped in with each fault but the one that puts an invalid file in place. Criteria:
//! every 5xx has a cause that the test made; memory does not grow; descriptors and instances come
//! back to where they were. It needs minutes, so it is no part of the other tests.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use harness::redis::Redis;
use harness::tls::{Authority, TlsClient};
use harness::wat::module;
use harness::{Gateway, Setup, wait_up_to};
use serde_json::Value;

const THREADS: usize = 4;
/// Requests per second of all threads, unless CHAOS_RATE says another number.
const RATE: f64 = 1000.0;
/// The turn, of six, that puts an invalid file in the place of the filter.
const INVALID_FILTER: u32 = 4;
/// One fault follows the other at this interval.
const INTERVAL: Duration = Duration::from_secs(5);
/// Memory is compared from this share of the run on.
const WARM_UP: f64 = 0.25;
const ECHO: &str = "upstreams: {echo: {builtin: echo}}\nroutes: [{upstream: echo}]";

/// A filter that sets `x-version`, and traps if the path begins with `/trap`.
fn version(number: u32) -> Result<Vec<u8>> {
    let fields = format!(
        "(import \"witgate:gateway/request-edit@0.1.0\" \"set-header\" (func $set (param i32 i32 i32 i32)))
         (import \"witgate:gateway/request@0.1.0\" \"path\" (func $path (param i32)))
         (data (i32.const 3072) \"x-version\") (data (i32.const 3584) \"{number:04}\")"
    );
    // The path's bytes are at the address that `cabi_realloc` of the harness returns.
    let body = "(call $path (i32.const 2048))
        (if (i32.eq (i32.load (i32.load (i32.const 2048))) (i32.const 0x6172742f)) (then unreachable))
        (call $set (i32.const 3072) (i32.const 9) (i32.const 3584) (i32.const 4)) (i32.const 0)";
    module(&fields, body)
}

/// What the load saw.
#[derive(Default)]
struct Seen {
    statuses: BTreeMap<u16, u64>,
    /// Requests without a response, with the reason.
    broken: Vec<String>,
    /// Responses with 500 and above that the request did not ask for: their id, and all of them.
    failed: Vec<(String, String)>,
}

/// An endpoint: a process of its own, which can be killed.
struct Endpoint {
    gateway: Option<Gateway>,
    address: std::net::SocketAddr,
}

impl Endpoint {
    fn start() -> Result<Self> {
        let gateway = Setup::new(ECHO)?.level("error").workers(1).start()?;
        Ok(Self { address: gateway.address, gateway: Some(gateway) })
    }

    fn restart(&mut self) -> Result<()> {
        self.gateway = Some(Setup::new(ECHO)?.level("error").workers(1).at(self.address).start()?);
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sends requests until `stop`, one in each `period`: mostly GET, some POST, and some that make the
/// filter trap.
fn load(
    (index, period): (usize, Duration),
    gateway: std::net::SocketAddr,
    client: &TlsClient,
    seen: &Mutex<Seen>,
    stop: &AtomicBool,
) {
    let mut http = None;
    let mut next = Instant::now();
    for number in 0_usize.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        // New connections meet new certificates.
        if http.is_none() || number % 200 == 0 {
            http = client.connect(gateway, "a.test").map(|(http, _)| http).ok();
        }
        let Some(connection) = http.as_mut() else { continue };
        let (method, path, body): (&str, &str, &[u8]) = match number % 50 {
            7 => ("GET", "/trap", b""),
            11 | 31 => ("POST", "/orders", &[b'x'; 5000]),
            _ => ("GET", "/orders", b""),
        };
        let user = format!("x-user: {index}-{}", number % 10);
        match connection.send(method, path, &[&user], body) {
            Ok(response) => {
                let mut seen = lock(seen);
                *seen.statuses.entry(response.status).or_default() += 1;
                if response.status >= 500 && path != "/trap" {
                    let id = response.header("x-request-id").unwrap_or_default().to_owned();
                    seen.failed.push((id, format!("{method} {path}: {response:?}")));
                }
            }
            Err(error) => {
                lock(seen).broken.push(format!("{method} {path}: {error:#}"));
                http = None;
            }
        }
        // A request that took longer than a period delays those after it: no burst follows.
        next = (next + period).max(Instant::now());
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
}

/// Causes one fault, or ends it. The faults take turns.
fn next_fault(
    turn: u32,
    gateway: &Gateway,
    endpoints: &mut [Endpoint],
    redis: &mut Redis,
    ca: &Authority,
) -> Result<String> {
    Ok(match turn % 6 {
        0 => {
            let issued = ca.issue(&["a.test"])?;
            gateway.replace("0.pem", &issued.certificate)?;
            gateway.replace("0.key", &issued.key)?;
            "the certificate is replaced".into()
        }
        1 => {
            let index = turn as usize / 6 % endpoints.len();
            endpoints[index].gateway = None;
            format!("endpoint {} is killed", endpoints[index].address)
        }
        2 => "only the filter is replaced".into(),
        3 => {
            for endpoint in endpoints.iter_mut().filter(|endpoint| endpoint.gateway.is_none()) {
                endpoint.restart()?;
            }
            redis.kill()?;
            "the endpoint is back, Redis is killed".into()
        }
        INVALID_FILTER => {
            gateway.replace("f.wasm", "not a component")?;
            "an invalid filter is put in place".into()
        }
        _ => {
            redis.restart()?;
            "Redis and the filter are back".into()
        }
    })
}

fn resident_kib(process: u32) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse().ok())
}

fn descriptors(process: u32) -> usize {
    fs::read_dir(format!("/proc/{process}/fd")).map_or(0, Iterator::count)
}

/// The slope of a line through these points by least squares, as a share of their mean in 10
/// minutes.
fn slope(points: &[(f64, f64)]) -> f64 {
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let above: f64 = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum();
    let below: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
    above / below * 600.0 / y
}

/// Why an exchange failed, if it is a fault that the test made: a try met an endpoint that was
/// killed and had no other.
fn is_explained(line: &Value) -> bool {
    let tries = line["tries"].as_array().cloned().unwrap_or_default();
    let is_of_endpoint = |attempt: &Value| matches!(attempt["result"].as_str(), Some("connect" | "reset"));
    !tries.is_empty() && tries.iter().all(is_of_endpoint)
}

#[test]
fn faults_under_load_have_only_the_effects_that_they_must() -> Result<()> {
    let Some(seconds) = std::env::var("CHAOS_SECONDS").ok().and_then(|text| text.parse().ok()) else { return Ok(()) };
    let length = Duration::from_secs(seconds);
    let rate: f64 = std::env::var("CHAOS_RATE").ok().and_then(|text| text.parse().ok()).unwrap_or(RATE);
    let period = Duration::from_secs_f64(THREADS as f64 / rate);
    let (ca, mut redis) = (Authority::new("ca")?, Redis::start()?);
    let mut endpoints = (0..3).map(|_| Endpoint::start()).collect::<Result<Vec<_>>>()?;
    let urls: Vec<String> = endpoints.iter().map(|endpoint| format!("\"http://{}\"", endpoint.address)).collect();
    let yaml = format!(
        "reload: {{interval: 500ms}}\n\
         stores: {{shared: {{redis: {{url: \"{}\"}}, on_failure: local}}}}\n\
         filters: {{f: {{source: f.wasm}}}}\n\
         upstreams: {{u: {{endpoints: [{}], retries: {{attempts: 2}}, health_check: {{path: /, interval: 500ms}}}}}}\n\
         routes: [{{name: api, filters: [f], upstream: u, rate_limit: {{limit: 1000000, window: 1m, store: shared}}}}]",
        redis.url(),
        urls.join(", ")
    );
    let issued = ca.issue(&["a.test"])?;
    let gateway = Setup::new(&yaml)?
        .level("error")
        .access_log("")
        .with("f.wasm", version(0)?)?
        .with("0.pem", &issued.certificate)?
        .with("0.key", &issued.key)?
        .listener("tls: {certificates: [{certificate: 0.pem, key: 0.key}]}")
        .start()?;
    let client = TlsClient::new(&ca)?;
    ensure!(client.connect(gateway.address, "a.test")?.0.get("/orders", &[])?.status == 200);
    let before = descriptors(gateway.id());
    let instances = gateway.metric("witgate_instances")?;
    let (seen, stop) = (Arc::new(Mutex::new(Seen::default())), Arc::new(AtomicBool::new(false)));
    let mut memory = VecDeque::new();
    let began = Instant::now();
    thread::scope(|scope| -> Result<()> {
        for index in 0..THREADS {
            let (address, client, seen, stop) = (gateway.address, &client, &*seen, &*stop);
            scope.spawn(move || load((index, period), address, client, seen, stop));
        }
        let mut cause_faults = || -> Result<()> {
            for turn in 0_u32.. {
                let next = INTERVAL * (turn + 1);
                if turn % 6 != INVALID_FILTER {
                    gateway.replace("f.wasm", version(turn + 1)?)?;
                }
                if began.elapsed() + INTERVAL > length {
                    return Ok(());
                }
                println!(
                    "{:4} s  {}",
                    began.elapsed().as_secs(),
                    next_fault(turn, &gateway, &mut endpoints, &mut redis, &ca)?
                );
                while began.elapsed() < next {
                    memory.extend(resident_kib(gateway.id()).map(|kib| (began.elapsed().as_secs_f64(), kib)));
                    thread::sleep(Duration::from_millis(500));
                }
            }
            Ok(())
        };
        let caused = cause_faults();
        stop.store(true, Ordering::Relaxed);
        caused
    })?;
    let seen = lock(&seen);
    wait_up_to(Duration::from_secs(10), "the access log has all responses", || {
        gateway.accessed("").len() as u64 > seen.statuses.values().sum()
    });
    let log = fs::read_to_string(gateway.path("access.log"))?;
    let by_id: BTreeMap<String, Value> = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter_map(|line| Some((line["id"].as_str()?.to_owned(), line)))
        .collect();
    let unexplained: Vec<String> = seen
        .failed
        .iter()
        .filter(|(id, _)| !by_id.get(id).is_some_and(is_explained))
        .map(|(id, response)| by_id.get(id).map_or_else(|| response.clone(), Value::to_string))
        .collect();
    memory.retain(|(at, _)| *at > length.as_secs_f64() * WARM_UP);
    let memory: Vec<_> = memory.into_iter().collect();
    let slope = slope(&memory) * 100.0;
    let total: u64 = seen.statuses.values().sum();
    println!(
        "{total} responses in {seconds} s: {:?}\n{} 5xx that no request asked for, {} of them unexplained\n{} requests without a response\nmemory {:.1} MiB, {slope:+.2}% in 10 minutes",
        seen.statuses,
        seen.failed.len(),
        unexplained.len(),
        seen.broken.len(),
        memory.last().map_or(0.0, |(_, kib)| kib / 1024.0),
    );
    ensure!(unexplained.is_empty(), "unexplained failures:\n{}", unexplained.join("\n"));
    ensure!(seen.broken.is_empty(), "requests without a response:\n{}", seen.broken.join("\n"));
    let trapped = seen.statuses.get(&502).copied().context("no call trapped")?;
    ensure!(trapped > 0 && total > 100, "the load was too small");
    // A short run mostly sees caches fill.
    ensure!(seconds < 600 || slope < 1.0, "memory grows by {slope:.2}% in 10 minutes");
    wait_up_to(Duration::from_secs(60), "descriptors and instances are back", || {
        // Connections to upstreams may be kept: at most one for each endpoint, thread and load.
        let kept = THREADS * endpoints.len() * 2;
        descriptors(gateway.id()) <= before + kept
            && gateway.metric("witgate_instances").is_ok_and(|now| now <= instances + 2.0)
    });
    println!(
        "descriptors {before}, then {}; instances {instances}, then {}",
        descriptors(gateway.id()),
        gateway.metric("witgate_instances")?
    );
    Ok(())
}
