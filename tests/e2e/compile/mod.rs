//! Compilation of filters: limits, the compiler process and the cache. This file has the setup and
//! the measurements that the topics share.

mod cache;
mod limits;
mod process;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use harness::wat::responder;
use harness::{Gateway, Setup};

const YAML: &str =
    "filters: {f: {source: f.wasm}}\nupstreams: {echo: {builtin: echo}}\nroutes: [{filters: [f], upstream: echo}]";
/// The longest time for a compilation on a busy machine.
const COMPILE_MAX: Duration = Duration::from_secs(120);

/// A gateway whose filter responds `one`. `more` are further top-level keys.
pub(super) fn start(more: &str) -> Result<Gateway> {
    Setup::new(&format!("{more}\n{YAML}"))?.with("f.wasm", responder(200, None, "one")?)?.start()
}

/// Whether the gateway responds with this body.
pub(super) fn responds_with(gateway: &Gateway, text: &str) -> bool {
    gateway.get("/", &[]).is_ok_and(|response| response.text() == text)
}

/// Resident memory of the gateway in MiB.
pub(super) fn resident_mib(gateway: &Gateway) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.id()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("/proc has no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
}

/// The P50 and P99 latency of requests on one connection while `work` runs.
pub(super) fn latencies(gateway: &Gateway, work: impl FnOnce() -> Result<()>) -> Result<(Duration, Duration)> {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let neighbour = scope.spawn(|| -> Result<Vec<Duration>> {
            let (mut client, mut all) = (gateway.client()?, vec![]);
            while !stop.load(Ordering::Relaxed) {
                let began = Instant::now();
                let response = client.get("/", &[])?;
                all.push(began.elapsed());
                ensure!(
                    (response.status, response.text().as_str()) == (200, "one"),
                    "the old version must stay in service"
                );
                std::thread::sleep(Duration::from_micros(500));
            }
            Ok(all)
        });
        let done = work();
        stop.store(true, Ordering::Relaxed);
        let mut all = neighbour.join().unwrap()?;
        done?;
        all.sort_unstable();
        Ok((all[all.len() / 2], all[all.len() * 99 / 100]))
    })
}

/// The P50 and P99 latency during one second without a compilation.
pub(super) fn idle_latencies(gateway: &Gateway) -> Result<(Duration, Duration)> {
    latencies(gateway, || {
        std::thread::sleep(Duration::from_secs(1));
        Ok(())
    })
}
