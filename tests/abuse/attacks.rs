//! All attacks at the same time on one serving thread (`just attacks`): what a neighbour and the
//! operator notice.
//!
//! `ATTACK_SECONDS` is the length; the default is short enough for every run of the tests. The
//! attacks are rows in `attacks/rows.rs`. This module does not know: any particular attack.

mod rows;

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use harness::tls::{Authority, TlsClient};
use harness::wat::responder;
use harness::{Gateway, Setup, Upstream, refusing_address};

use super::measure::memory;
use super::slow::raise_file_limit;
use rows::{Attack, Target, attacks, filters, routes};

/// The length if `ATTACK_SECONDS` is not set.
const SECONDS: u64 = 12;
/// The bounds that must hold.
const RSS_MAX: u64 = 400 << 20;
const LOG_BYTES_PER_SECOND_MAX: f64 = (1 << 20) as f64;
const RELOAD_MAX: Duration = Duration::from_secs(2);
/// A machine that also runs the attacks delays a neighbour by itself.
const P99_MAX: Duration = Duration::from_millis(250);

/// What was measured beside the attacks.
#[derive(Default)]
struct Effects {
    neighbours: Vec<Duration>,
    /// Neighbours that were not answered with 200.
    failed: Vec<String>,
    filter_reloads: Vec<Duration>,
    certificate_reloads: Vec<Duration>,
    rss_max: u64,
}

/// The gateway, the address of its plain-text listener, and the authority of its certificate.
fn start(upstream: &Upstream) -> Result<(Gateway, SocketAddr, Authority)> {
    let authority = Authority::new("ca")?;
    let issued = authority.issue(&["a.test"])?;
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let mut yaml = format!(
        "upstreams:\n  u: {{endpoints: [\"http://{}\"]}}\n  refused: {{endpoints: [\"http://{}\"], outlier: off}}\n",
        upstream.address,
        refusing_address()?
    );
    yaml.push_str("filters:\n  version: {source: version.wasm}\n");
    for (name, _) in filters()? {
        yaml.push_str(&format!("  {name}: {{source: {name}.wasm, timeout: 100ms}}\n"));
    }
    yaml.push_str("routes:\n  - {upstream: u}\n  - {match: {path: /version}, filters: [version], upstream: u}\n");
    yaml.push_str(&routes()?);
    let mut setup = Setup::new(&yaml)?
        .workers(1)
        .level("info")
        .at(address)
        .listener("name: plain}, {address: \"127.0.0.1:0\", tls: {certificates: [{certificate: a.pem, key: a.key}]}")
        .with("a.pem", &issued.certificate)?
        .with("a.key", &issued.key)?
        .with("version.wasm", responder(200, None, "v0")?)?;
    for (name, component) in filters()? {
        setup = setup.with(&format!("{name}.wasm"), component)?;
    }
    Ok((setup.start()?, address, authority))
}

/// Sends requests as a neighbour, now and then on a new connection.
fn send_neighbours(address: SocketAddr, is_over: &AtomicBool) -> (Vec<Duration>, Vec<String>) {
    let (mut times, mut failed, mut client) = (vec![], vec![], None);
    while !is_over.load(Ordering::Relaxed) {
        let began = Instant::now();
        let mut send = || -> Result<u16> {
            let mut connected = client.take().map_or_else(|| harness::Client::connect(address), Ok)?;
            let status = connected.get("/neighbour", &[])?.status;
            client = (times.len() % 20 > 0).then_some(connected);
            Ok(status)
        };
        match send() {
            Ok(200) => times.push(began.elapsed()),
            Ok(status) => failed.push(format!("status {status} after {:?}", began.elapsed())),
            Err(error) => failed.push(format!("{error:#} after {:?}", began.elapsed())),
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    (times, failed)
}

/// Replaces a filter and a certificate again and again. Returns the times until they served.
fn reload(target: &Target, authority: &Authority, secure: SocketAddr) -> Result<(Vec<Duration>, Vec<Duration>)> {
    let (mut of_filters, mut of_certificates) = (vec![], vec![]);
    let client = TlsClient::new(authority)?.without_resumption();
    let until = |serves: &mut dyn FnMut() -> bool| {
        let began = Instant::now();
        while !serves() && began.elapsed() < 5 * RELOAD_MAX {
            std::thread::sleep(Duration::from_millis(10));
        }
        began.elapsed()
    };
    while !target.is_over.load(Ordering::Relaxed) {
        let body = format!("v{}", of_filters.len() + 1);
        target.gateway.replace("version.wasm", responder(200, None, &body)?)?;
        of_filters.push(until(&mut || {
            let response = harness::Client::connect(target.address).and_then(|mut client| client.get("/version", &[]));
            response.is_ok_and(|response| response.text() == body)
        }));
        let issued = authority.issue(&["a.test"])?;
        target.gateway.replace("a.key", &issued.key)?;
        target.gateway.replace("a.pem", &issued.certificate)?;
        of_certificates.push(until(&mut || {
            client.connect(secure, "a.test").is_ok_and(|(_, handshake)| handshake.certificate == issued.sha256)
        }));
        std::thread::sleep(Duration::from_millis(500));
    }
    Ok((of_filters, of_certificates))
}

/// Runs all attacks and everything that is measured beside them. Also returns how often each attack
/// ran.
fn run(target: &Target, attacks: &[Attack], authority: &Authority, length: Duration) -> Result<(Effects, Vec<usize>)> {
    let counts: Vec<AtomicUsize> = attacks.iter().map(|_| AtomicUsize::new(0)).collect();
    let mut effects = Effects::default();
    std::thread::scope(|scope| -> Result<()> {
        for (attack, count) in attacks.iter().zip(&counts) {
            for _ in 0..attack.threads {
                scope.spawn(|| count.fetch_add((attack.run)(target) as usize, Ordering::Relaxed));
            }
        }
        let neighbours = scope.spawn(|| send_neighbours(target.address, target.is_over));
        let reloads = scope.spawn(|| reload(target, authority, target.gateway.address));
        let began = Instant::now();
        while began.elapsed() < length {
            // An error means that the gateway has ended, which the caller reports.
            effects.rss_max = effects.rss_max.max(memory(target.gateway, "VmRSS:").unwrap_or(u64::MAX));
            std::thread::sleep(Duration::from_millis(100));
        }
        target.is_over.store(true, Ordering::Relaxed);
        (effects.neighbours, effects.failed) = neighbours.join().unwrap();
        (effects.filter_reloads, effects.certificate_reloads) = reloads.join().unwrap()?;
        Ok(())
    })?;
    effects.neighbours.sort_unstable();
    Ok((effects, counts.into_iter().map(AtomicUsize::into_inner).collect()))
}

/// Prints the tables and returns what is out of bounds.
///
/// A short run does not judge times: on a machine that also runs other tests, they say little.
fn report(
    effects: &Effects,
    attacks: &[Attack],
    counts: &[usize],
    log_rate: f64,
    is_short: bool,
) -> Result<Vec<String>> {
    println!("| kind | attack | threads | rounds |\n|---|---|---|---|");
    for (attack, count) in attacks.iter().zip(counts) {
        println!("| {} | {} | {} | {count} |", attack.kind, attack.name, attack.threads);
    }
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let of =
        |part: usize| effects.neighbours.get((effects.neighbours.len() * part / 100).min(effects.neighbours.len() - 1));
    ensure!(!effects.neighbours.is_empty(), "no neighbour was served: {:?}", effects.failed.first());
    let quantile = |part| of(part).copied().unwrap_or_default();
    let slowest = |times: &[Duration]| times.iter().max().copied().unwrap_or(Duration::MAX);
    let (filter, certificate) = (slowest(&effects.filter_reloads), slowest(&effects.certificate_reloads));
    println!("\n| effect | value |\n|---|---|");
    println!("| neighbours served, failed | {}, {} |", effects.neighbours.len(), effects.failed.len());
    println!(
        "| neighbours P50, P99, slowest | {:.1}, {:.1}, {:.1} ms |",
        ms(quantile(50)),
        ms(quantile(99)),
        ms(quantile(100))
    );
    println!("| resident memory | {} MiB |", effects.rss_max >> 20);
    println!("| log | {:.0} KiB/s |", log_rate / 1024.0);
    println!("| slowest of {} reloads of a filter | {:.0} ms |", effects.filter_reloads.len(), ms(filter));
    println!(
        "| slowest of {} reloads of a certificate | {:.0} ms |",
        effects.certificate_reloads.len(),
        ms(certificate)
    );
    let checks = [
        (
            effects.failed.is_empty(),
            format!("{} neighbours failed: {:?}", effects.failed.len(), effects.failed.first()),
        ),
        (is_short || quantile(99) <= P99_MAX, format!("the P99 of neighbours is {:?}", quantile(99))),
        (effects.rss_max <= RSS_MAX, format!("{} MiB are resident", effects.rss_max >> 20)),
        (log_rate <= LOG_BYTES_PER_SECOND_MAX, format!("the log has {log_rate:.0} bytes per second")),
        (is_short || filter <= RELOAD_MAX, format!("a filter was in service after {filter:?}")),
        (is_short || certificate <= RELOAD_MAX, format!("a certificate was in service after {certificate:?}")),
    ];
    Ok(checks.into_iter().filter_map(|(holds, what)| (!holds).then_some(what)).collect())
}

#[test]
fn all_attacks_together_stay_within_bounds() -> Result<()> {
    raise_file_limit()?;
    let _measuring = super::MEASURING.lock();
    let seconds = std::env::var("ATTACK_SECONDS").ok().map(|text| text.parse()).transpose()?;
    let (length, is_short) = (Duration::from_secs(seconds.unwrap_or(SECONDS)), seconds.is_none());
    let upstream = Upstream::start()?;
    let (mut gateway, address, authority) = start(&upstream)?;
    let (attacks, is_over) = (attacks(), AtomicBool::new(false));
    let silent_connections = if is_short { 3000 } else { 10_050 };
    let target = Target { gateway: &gateway, address, silent_connections, is_over: &is_over };
    let (effects, counts) = run(&target, &attacks, &authority, length)?;
    let log_bytes: usize = gateway.logged("").iter().map(String::len).sum();
    let mut faults = report(&effects, &attacks, &counts, log_bytes as f64 / length.as_secs_f64(), is_short)?;
    gateway.signal(rustix::process::Signal::TERM)?;
    let status = gateway.wait(Duration::from_secs(60)).context("the gateway has ended")?;
    if !status.success() {
        faults.push(format!("the gateway ended with {status}"));
    }
    ensure!(faults.is_empty(), "out of bounds:\n{}", faults.join("\n"));
    Ok(())
}
