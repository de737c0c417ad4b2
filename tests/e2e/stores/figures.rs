//! Figures about a store that fails: `just bench-stores` prints them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use harness::redis::{DelayingProxy, Redis};
use harness::{Gateway, wait_until};

use super::{is_up, limited_to};

/// How long each fault lasts.
const FAULT: Duration = Duration::from_secs(4);
const CLIENTS: usize = 8;

/// What clients saw: statuses, and the times of requests.
#[derive(Default)]
struct Seen {
    statuses: Vec<u16>,
    times: Vec<Duration>,
}

impl Seen {
    fn row(mut self, policy: &str, fault: &str) -> String {
        self.times.sort();
        let at = |share: f64| {
            let index = (self.times.len() as f64 * share) as usize;
            self.times.get(index.min(self.times.len().saturating_sub(1))).map_or(0.0, Duration::as_secs_f64) * 1000.0
        };
        let count = |status: u16| self.statuses.iter().filter(|own| **own == status).count();
        format!(
            "| {fault} | {policy} | {} | {} | {} | {:.1} | {:.1} | {:.1} |",
            count(200),
            count(429),
            count(503),
            at(0.5),
            at(0.99),
            at(1.0)
        )
    }
}

/// Sends requests over both gateways until `fault` returns.
fn under_load(gateways: &[Gateway; 2], fault: impl FnOnce() -> Result<()>) -> Result<Seen> {
    let is_over = AtomicBool::new(false);
    let send = |gateway: &Gateway| -> Result<Seen> {
        let (mut client, mut seen) = (gateway.client()?, Seen::default());
        while !is_over.load(Ordering::Relaxed) {
            let began = Instant::now();
            seen.statuses.push(client.get("/", &[])?.status);
            seen.times.push(began.elapsed());
        }
        Ok(seen)
    };
    let send = &send;
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|number| scope.spawn(move || send(&gateways[number % 2]))).collect();
        let ended = fault();
        is_over.store(true, Ordering::Relaxed);
        let mut all = Seen::default();
        for client in clients {
            let seen = client.join().unwrap()?;
            all.statuses.extend(seen.statuses);
            all.times.extend(seen.times);
        }
        ended.map(|()| all)
    })
}

/// The limit of the route is far above the load, so that each 429 or 503 comes from the store.
#[test]
#[ignore = "prints figures"]
fn requests_while_the_store_fails() -> Result<()> {
    println!("| store | on_failure | 200 | 429 | 503 | P50 ms | P99 ms | max ms |\n|---|---|---|---|---|---|---|---|");
    for policy in ["error", "local", "open"] {
        let mut redis = Redis::start()?;
        let proxy = DelayingProxy::start(redis.address)?;
        let start = || limited_to(proxy.address, &format!(", timeout: 20ms, on_failure: {policy}"), "limit: 1000000");
        let gateways = [start()?, start()?];
        let back = |what: &str| wait_until(what, || gateways.iter().all(is_up));
        back("both are connected");
        let wait = || -> Result<()> {
            std::thread::sleep(FAULT);
            Ok(())
        };
        println!("{}", under_load(&gateways, wait)?.row(policy, "works"));
        proxy.set_delay(Duration::from_millis(200));
        println!("{}", under_load(&gateways, wait)?.row(policy, "answers after 200 ms"));
        proxy.set_delay(Duration::ZERO);
        back("the store is fast again");
        let killed = under_load(&gateways, || {
            redis.kill()?;
            wait()
        })?;
        println!("{}", killed.row(policy, "killed"));
        redis.restart()?;
        back("the store is back");
        let flapping = under_load(&gateways, || {
            let began = Instant::now();
            while began.elapsed() < FAULT {
                redis.kill()?;
                std::thread::sleep(Duration::from_millis(300));
                redis.restart()?;
                std::thread::sleep(Duration::from_millis(300));
            }
            Ok(())
        })?;
        println!("{}", flapping.row(policy, "killed and restarted every 600 ms"));
        back("the store is used again");
        println!("{}", under_load(&gateways, wait)?.row(policy, "revived"));
    }
    Ok(())
}
