//! Figures for the documentation: `just bench-calls` prints them. Nothing here is checked.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use harness::{Gateway, Setup, Upstream, wait_until};

use super::filters::{Pair, key_set};
use super::service::Service;

const REQUESTS: usize = 1000;
const ROUNDS: usize = 5;

/// The functions that are measured, and how often one handler calls them.
const FUNCTIONS: [(&str, &str, u32); 9] = [
    ("nothing", "an empty loop", 2000),
    ("keyvalue.get", "`keyvalue.get`, 64 bytes, in memory", 2000),
    ("keyvalue.set", "`keyvalue.set`, 64 bytes, in memory", 2000),
    ("limiter.take", "`limiter.take`, in memory", 2000),
    ("digest", "SHA-256 of 64 bytes", 2000),
    ("hmac", "HMAC-SHA-256 of 64 bytes, key in the filter", 2000),
    ("hmac.secret", "the same with a `secret` of the operator", 2000),
    ("verify", "ES256 `verify` with a `secret`", 200),
    ("http", "`http`: GET to an upstream on loopback, answer of 2 bytes", 60),
];
const LANGUAGES: [&str; 3] = ["rust", "typescript", "python"];
/// Handlers for each function, of which the fastest counts.
const HANDLERS: usize = 15;

/// Prints the table of docs/reference/capability-costs.md.
#[test]
#[ignore = "prints figures"]
fn cost_of_each_function() -> Result<()> {
    let (service, pair) = (Upstream::start()?, rcgen::KeyPair::generate()?.serialize_pem());
    let mut columns = vec![];
    for language in LANGUAGES {
        let yaml = format!(
            "upstreams: {{echo: {{builtin: echo, timeout: 60s}}, svc: {{endpoints: [\"http://{}\"], timeout: 60s}}}}\n\
             timeouts: {{filters: 20s}}\nfilters:\n  f:\n    source: f.wasm\n    timeout: 7s\n\
             \x20   capabilities: [keyvalue, limiter, http, crypto]\n\
             \x20   http: {{origins: {{\"http://svc\": {{upstream: svc}}}}, calls: 64, wait: 10s}}\n\
             \x20   crypto: {{keys: {{shared: \"hex:000102030405060708090a0b0c0d0e0f\", pair: {{file: pair.pem}}}}}}\n\
             routes: [{{filters: [f], upstream: echo}}]",
            service.address
        );
        let setup = Setup::new(&yaml)?.with("pair.pem", &pair)?.workers(1);
        let gateway = setup.with_guest("f.wasm", &format!("tests/{language}/costs"))?.start()?;
        let mut column = vec![];
        for (function, _, times) in FUNCTIONS {
            let mut best = f64::MAX;
            for _ in 0..HANDLERS {
                let response = gateway.get(&format!("/?what={function}&times={times}"), &[])?;
                let text = response.text();
                anyhow::ensure!(response.status == 200, "{language}: {function}: {text}");
                best = best.min(text.parse()?);
            }
            column.push(best);
        }
        columns.push(column);
    }
    println!("| function | Rust | TypeScript | Python |\n|---|---|---|---|");
    for (row, (_, name, _)) in FUNCTIONS.into_iter().enumerate() {
        // The loop itself is no cost of the function.
        let cost = |column: &Vec<f64>| if row == 0 { column[0] } else { (column[row] - column[0]).max(0.0) };
        let cells: Vec<String> = columns.iter().map(|column| format!("{:.1}", cost(column))).collect();
        println!("| {name} | {} |", cells.join(" | "));
    }
    Ok(())
}

/// A value of /proc/PID/status in KiB or as a number.
fn status(gateway: &Gateway, key: &str) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{}/status", gateway.id()))?;
    let line = text.lines().find_map(|line| line.strip_prefix(key)).context("no such line")?;
    Ok(line.trim_start_matches(':').split_whitespace().next().context("no value")?.parse()?)
}

#[test]
#[ignore = "prints figures"]
fn a_thousand_requests_wait_for_a_service() -> Result<()> {
    for guest in ["tests/rust/outbound", "typescript/policy-call"] {
        let service = Upstream::start()?;
        let yaml = format!(
            "limits: {{in_flight: 2000, in_flight_per_client: 2000}}\ntimeouts: {{filters: 5s}}\n\
             upstreams: {{echo: {{builtin: echo}}, svc: {{endpoints: [\"http://{}\"], timeout: 20s}}}}\n\
             filters:\n  f:\n    source: f.wasm\n    timeout: 4s\n    concurrency: 2000\n\
             \x20   capabilities: [http, crypto]\n    config: {{url: \"http://svc/delay/200\"}}\n\
             \x20   http: {{origins: {{\"http://svc\": {{upstream: svc}}}}, wait: 10s}}\n\
             routes: [{{filters: [f], upstream: echo}}]",
            service.address
        );
        let gateway = Setup::new(&yaml)?.level("warn").with_guest("f.wasm", guest)?.start()?;
        gateway.get("/", &[])?;
        let (idle, before) = (status(&gateway, "VmRSS")?, service.requests());
        let mut clients = (0..REQUESTS).map(|_| gateway.client()).collect::<Result<Vec<_>>>()?;
        let (began, mut most, mut threads) = (Instant::now(), 0, 0);
        for round in 0..ROUNDS {
            for client in &mut clients {
                client.begin("GET", "/", &[], b"")?;
            }
            wait_until("all requests have reached the service", || {
                most = most.max(status(&gateway, "VmRSS").unwrap_or(0));
                threads = threads.max(status(&gateway, "Threads").unwrap_or(0));
                service.requests() >= before + (round + 1) * REQUESTS
            });
            for client in &mut clients {
                client.read(false)?;
            }
        }
        let took = began.elapsed();
        println!(
            "{guest}: {:.0} requests per second, {threads} threads, {} MiB more than idle ({} KiB for each)",
            (REQUESTS * ROUNDS) as f64 / took.as_secs_f64(),
            (most - idle) >> 10,
            (most - idle) / REQUESTS as u64,
        );
    }
    Ok(())
}

#[test]
#[ignore = "prints figures"]
fn cost_of_a_token() -> Result<()> {
    for guest in ["typescript/jwt", "python/jwt"] {
        for pair in [Pair::rsa("a")?, Pair::ec("b")?] {
            let issuer = Service::start(&key_set(&[&pair]))?;
            let keys = format!(
                "capabilities: [keyvalue, http, crypto]\n    {}\n    config: {{jwks_url: \"http://svc/keys\", issuer: issuer, audience: api}}",
                super::filters::HTTP
            );
            let gateway = super::filters::start(guest, &issuer, &keys)?;
            let field = format!("authorization: Bearer {}", pair.token()?);
            let mut client = gateway.client()?;
            let mut send = |count: usize| -> Result<Duration> {
                let began = Instant::now();
                for _ in 0..count {
                    anyhow::ensure!(client.get("/", &[&field])?.status == 200);
                }
                Ok(began.elapsed())
            };
            send(200)?;
            let took = send(2000)?;
            println!(
                "{guest} {}: {:.0} µs per request, one after the other",
                pair.algorithm(),
                took.as_micros() as f64 / 2000.0
            );
        }
    }
    Ok(())
}
