//! Hostile filters on one worker thread: each call fails alone, and neighbours are served
//! meanwhile. A neighbour is a request on another connection of the same thread.
//!
//! Each case checks the client's status, the error kind in metrics and log, and the slowest
//! neighbour. A test binary of its own, because it measures latency and cargo runs test binaries
//! one after the other. It does not know: the gateway's sources.
#![allow(clippy::unwrap_used, missing_docs)]

mod buffered_bodies;
mod bulk;
mod calls;
mod cases;
mod crowd;
mod proposals;
mod resources;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use harness::wat::{filter, module, responder};
use harness::{Gateway, Setup, wait_until};

use cases::{Case, cases};

/// The longest time that a neighbour may take while a hostile call runs.
const NEIGHBOUR_MAX: Duration = Duration::from_millis(20);
const YAML: &str = "
upstreams: {echo: {builtin: echo}}
filters:
  hostile: {source: hostile.wasm, timeout: 100ms, memory: 4MiB}
routes:
  - {name: hostile, match: {path: /hostile}, filters: [hostile], upstream: echo}
  - {name: control, match: {path: /control}, upstream: echo}
";

/// Sends neighbour requests until `stop` is set. Returns their number and the slowest.
fn send_neighbours(gateway: &Gateway, stop: &AtomicBool) -> Result<(usize, Duration)> {
    let mut client = gateway.client()?;
    let (mut sent, mut slowest) = (0, Duration::ZERO);
    while !stop.load(Ordering::Relaxed) || sent < 3 {
        let began = Instant::now();
        let response = client.get("/control", &[])?;
        slowest = slowest.max(began.elapsed());
        ensure!(response.status == 200, "a neighbour got {}", response.status);
        sent += 1;
    }
    Ok((sent, slowest))
}

/// A hostile request and the neighbours during it.
struct Attack {
    status: u16,
    body: String,
    took: Duration,
    neighbours: usize,
    slowest_neighbour: Duration,
}

/// Sends one hostile request, with neighbours meanwhile.
fn attack(gateway: &Gateway) -> Result<Attack> {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let neighbours = scope.spawn(|| send_neighbours(gateway, &stop));
        let began = Instant::now();
        let response = gateway.get("/hostile", &[]);
        let took = began.elapsed();
        stop.store(true, Ordering::Relaxed);
        let (neighbours, slowest_neighbour) = neighbours.join().unwrap()?;
        let response = response?;
        Ok(Attack { status: response.status, body: response.text(), took, neighbours, slowest_neighbour })
    })
}

/// Attacks until the neighbours were quick, at most four times, and returns the best attack. A busy
/// machine may delay a neighbour by itself, so one quick attack is enough. Also returns their
/// number.
fn best_attack(gateway: &Gateway) -> Result<(Attack, u32)> {
    let mut best = attack(gateway)?;
    let mut attacks = 1;
    while best.slowest_neighbour > NEIGHBOUR_MAX && attacks < 4 {
        let again = attack(gateway)?;
        attacks += 1;
        if again.slowest_neighbour < best.slowest_neighbour {
            best = again;
        }
    }
    Ok((best, attacks))
}

/// Runs one case whose filter is in service, and prints its row.
fn check(gateway: &Gateway, case: &Case) -> Result<()> {
    let metric = format!("witgate_filter_errors_total{{filter=\"hostile\",version=\"-\",kind=\"{}\"}}", case.kind);
    let before = gateway.metric(&metric)?;
    let (Attack { status, body, took, neighbours, slowest_neighbour }, attacks) = best_attack(gateway)?;
    println!(
        "| {} | {status} | {} | {:.1} | {neighbours} | {:.2} |",
        case.name,
        case.kind,
        took.as_secs_f64() * 1e3,
        slowest_neighbour.as_secs_f64() * 1e3
    );
    ensure!(status == case.status, "status {status}, expected {}", case.status);
    ensure!(gateway.metric(&metric)? == before + f64::from(attacks), "the metric does not count it as {}", case.kind);
    ensure!(!body.contains("hostile") && !body.contains("wasm"), "the client reads private detail: {body}");
    ensure!(slowest_neighbour <= NEIGHBOUR_MAX, "a neighbour took {slowest_neighbour:?}");
    let expected = format!("\"kind\":\"{}\"", case.kind);
    wait_until("the log has a line with the kind and the digest", || {
        let lines = gateway.logged("a filter failed");
        lines.iter().any(|line| line.contains(&expected) && line.contains("\"digest\":"))
    });
    Ok(())
}

#[test]
fn a_hostile_filter_affects_only_its_own_request() -> Result<()> {
    let gateway = Setup::new(YAML)?.workers(1).with("hostile.wasm", filter("(i32.const 0)")?)?.start()?;
    ensure!(gateway.get("/hostile", &[])?.status == 200, "a harmless filter must pass");
    println!("| case | status | kind | took ms | neighbours | slowest ms |\n|---|---|---|---|---|---|");
    let digest_in_service =
        || gateway.admin("/filters").map(|response| response.json()[0]["digest"].to_string()).unwrap_or_default();
    let mut digests = std::collections::HashSet::from([digest_in_service()]);
    for case in cases() {
        let wasm = case.filter.as_ref().map_err(|error| anyhow!("{}: {error:#}", case.name))?;
        gateway.replace("hostile.wasm", wasm)?;
        wait_until(case.name, || digests.insert(digest_in_service()));
        check(&gateway, &case).context(case.name)?;
    }
    gateway.replace("hostile.wasm", responder(200, None, "tame")?)?;
    wait_until("a harmless filter is in service", || {
        gateway.get("/hostile", &[]).is_ok_and(|response| response.text() == "tame")
    });
    wait_until("no instance is left", || gateway.metric("witgate_instances").is_ok_and(|live| live == 0.0));
    Ok(())
}

#[test]
fn a_call_does_not_see_what_earlier_calls_wrote() -> Result<()> {
    // Each call writes a global, a page of memory and a table entry. It traps if it finds one
    // written.
    let leaky = module(
        "(global $g (mut i32) (i32.const 0)) (table $t 2 funcref) (elem declare func $f) (func $f)",
        "(if (i32.or (i32.or (global.get $g) (i32.load (i32.const 100000))) (i32.eqz (ref.is_null (table.get $t (i32.const 1))))) (then (unreachable)))
         (global.set $g (i32.const 1)) (memory.fill (i32.const 65536) (i32.const 255) (i32.const 65536))
         (table.set $t (i32.const 1) (ref.func $f)) (i32.const 0)",
    )?;
    let gateway = Setup::new(YAML)?.with("hostile.wasm", leaky)?.start()?;
    let mut client = gateway.client()?;
    for call in 0..500 {
        let status = client.get("/hostile", &[])?.status;
        ensure!(status == 200, "call {call} saw what an earlier call wrote: {status}");
    }
    Ok(())
}
