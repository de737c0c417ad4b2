//! `--telemetry`: what telemetry costs, in CPU time for each request.
//!
//! Two gateways with the same routes take turns in one run: one without access log and traces, and
//! one that writes the access log as JSON to a file, exports 10% of the traces to a receiver and is
//! scraped every second. Metrics are counted in both. The lowest of the rounds counts, because
//! noise only adds.
//!
//! This module does not know: other gateways, tables of a full run.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use harness::otlp::OtlpReceiver;
use harness::{Client, Gateway};

use crate::cases::minimum;
use crate::load::{self, CONNECTIONS, Driver, KEY, Target};
use crate::machine::{self, Cores};
use crate::options::Lengths;
use crate::witgate;

/// The most that everything together may cost.
const OVERHEAD_MAX: f64 = 0.08;
/// The cases: no filter, and a filter in TypeScript.
const CASES: [&str; 2] = ["plain", "typescript"];

/// Measures and prints. Fails if a target is missed.
pub(crate) fn measure(driver: &Driver, upstream: std::net::SocketAddr, cores: Cores, lengths: Lengths) -> Result<()> {
    let receiver = OtlpReceiver::http()?;
    let yaml = format!("telemetry: {{otlp: {{endpoint: \"http://{}\"}}, traces: {{sample: 0.1}}}}\n", receiver.address);
    let without = witgate::start_with(upstream, cores.gateway, &CASES[1..], |setup| setup, "")?;
    let with = witgate::start_with(upstream, cores.gateway, &CASES[1..], |setup| setup.access_log(""), &yaml)?;
    let stop = Arc::new(AtomicBool::new(false));
    scrape(&with, &stop);
    let gateways = [&without, &with];
    let mut missed = vec![];
    for id in CASES {
        let mut readings = [vec![], vec![]];
        // The first round is a warm-up.
        for round in 0..=lengths.closed_rounds {
            for (gateway, readings) in gateways.iter().zip(&mut readings) {
                let target = Target::new(gateway.address, &format!("/{id}"), KEY);
                let before = machine::cpu(gateway.id())?;
                let answered = driver.run(load::closed_loop(&target, CONNECTIONS, lengths.closed, u64::MAX))?;
                ensure!(answered > 0, "the gateway gave no response");
                let used = (machine::cpu(gateway.id())? - before) / answered as f64;
                if round > 0 {
                    readings.push(used);
                }
            }
        }
        let [off, on] = readings.map(|readings| minimum(&readings).unwrap_or(f64::NAN));
        let overhead = on / off - 1.0;
        println!("{id}: {off:.1} µs of CPU per request without telemetry, {on:.1} µs with: {:+.1}%", overhead * 100.0);
        if overhead.is_nan() || overhead > OVERHEAD_MAX {
            missed.push(id);
        }
    }
    stop.store(true, Ordering::Relaxed);
    let lines = std::fs::read(with.path("access.log"))?.iter().filter(|byte| **byte == b'\n').count();
    println!("{lines} lines of the access log, {} spans exported", receiver.received().spans.len());
    ensure!(missed.is_empty(), "above {:.0}%: {}", OVERHEAD_MAX * 100.0, missed.join(", "));
    Ok(())
}

/// Scrapes the gateway every second, as Prometheus does at most.
fn scrape(gateway: &Gateway, stop: &Arc<AtomicBool>) {
    let (admin, stop) = (gateway.admin, stop.clone());
    std::thread::spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            // A scrape that fails is made up for by the next.
            let _ = Client::connect(admin).and_then(|mut client| client.get("/metrics", &[]));
            std::thread::sleep(Duration::from_secs(1));
        }
    });
}
