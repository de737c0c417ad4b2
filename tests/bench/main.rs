//! Gateway CPU per request, first reading: plain proxy and the `api-key` filter in each language, 64 keep-alive connections, 1 KB answers.
//!
//! The number is what the gateway's process used (utime + stime of /proc/PID/stat) over what it answered: load and upstream run beside it and
//! are not in it, though they take its cores' caches. Rounds alternate between the cases, so that noise of the machine falls on all; median and minimum are
//! printed. Ratios between cases count, not the microseconds of a machine.
#![allow(clippy::unwrap_used, missing_docs)]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use harness::{Gateway, Setup};

const CONNECTIONS: usize = 64;
const ROUNDS: usize = 7;
const ROUND: Duration = Duration::from_secs(2);
/// Fields of a browser's request, so that a filter has something to look through.
const FIELDS: &str = "user-agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36\r\naccept: text/html,application/xhtml+xml\r\naccept-encoding: gzip, br\r\naccept-language: en-GB,en;q=0.9\r\ncache-control: no-cache\r\ncookie: session=abcdef0123456789; theme=dark\r\nx-api-key: s3cret\r\nauthorization: Bearer eyJhbGciOiJIUzI1NiJ9.e30.abc\r\n";

/// An upstream that answers 1 KB to whatever head arrives: small enough not to be what is measured.
fn upstream() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let answer =
        format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 1024\r\n\r\n{}", "x".repeat(1024));
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let answer = answer.clone();
            std::thread::spawn(move || {
                let Ok(mut out) = stream.try_clone() else { return };
                let _ = stream.set_nodelay(true);
                let mut input = BufReader::new(stream);
                let mut line = String::new();
                while input.read_line(&mut line).is_ok_and(|read| read > 0) {
                    if line == "\r\n" && out.write_all(answer.as_bytes()).is_err() {
                        return;
                    }
                    line.clear();
                }
            });
        }
    });
    Ok(address)
}

/// CPU of a process so far, in microseconds.
fn cpu(id: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat"))?;
    let fields: Vec<&str> = stat.rsplit(')').next().context("stat")?.split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
    Ok(ticks * 10_000.0)
}

/// Resident memory in MiB.
fn rss(id: u32) -> Result<f64> {
    let statm = std::fs::read_to_string(format!("/proc/{id}/statm"))?;
    Ok(statm.split(' ').nth(1).context("statm")?.parse::<f64>()? * 4096.0 / 1048576.0)
}

/// Requests answered in a round over all connections.
fn load(address: SocketAddr, path: &str) -> Result<u64> {
    let (stop, answered) = (AtomicBool::new(false), AtomicU64::new(0));
    let request = format!("GET {path} HTTP/1.1\r\nhost: bench.test\r\n{FIELDS}\r\n");
    std::thread::scope(|scope| -> Result<()> {
        let threads: Vec<_> = (0..CONNECTIONS)
            .map(|_| {
                scope.spawn(|| -> Result<()> {
                    let stream = TcpStream::connect(address)?;
                    stream.set_nodelay(true)?;
                    let mut out = stream.try_clone()?;
                    let mut input = BufReader::with_capacity(4096, stream);
                    let (mut line, mut body) = (String::new(), vec![0; 1024]);
                    while !stop.load(Ordering::Relaxed) {
                        out.write_all(request.as_bytes())?;
                        line.clear();
                        input.read_line(&mut line)?;
                        ensure!(line.starts_with("HTTP/1.1 200"), "{line}");
                        while line != "\r\n" {
                            line.clear();
                            input.read_line(&mut line)?;
                        }
                        input.read_exact(&mut body)?;
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(())
                })
            })
            .collect();
        let began = Instant::now();
        while began.elapsed() < ROUND {
            std::thread::sleep(Duration::from_millis(20));
        }
        stop.store(true, Ordering::Relaxed);
        threads.into_iter().try_for_each(|thread| thread.join().unwrap())
    })?;
    Ok(answered.load(Ordering::Relaxed))
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// What is compared, by the route's name: the filter's file.
const FILTERS: [(&str, &str); 5] = [
    ("rust", "rust/api-key"),
    ("typescript", "typescript/api-key"),
    ("python", "python/api-key"),
    ("typescript-unflattened", "tests/typescript/unflattened/api-key"),
    ("python-unflattened", "tests/python/unflattened/api-key"),
];

/// Two filters of a language of which the first answers 401 to a bare request and the second lets it pass.
const SWAPS: [(&str, &str, &str); 3] = [
    ("Rust", "rust/api-key", "rust/security-headers"),
    ("TypeScript", "typescript/api-key", "typescript/rate-limit"),
    ("Python", "python/api-key", "python/redact"),
];

/// From a file's replacement to the first answer of the new version on a connection that was there before, in milliseconds.
fn swap(gateway: &Gateway, guest: &str, status: u16) -> Result<f64> {
    let bytes = std::fs::read(harness::repository().join(format!("guests/dist/{guest}.wasm")))?;
    let mut client = gateway.client()?;
    let port = client.local()?;
    ensure!(client.get("/", &[])?.status != status, "the old version must answer otherwise");
    gateway.replace("f.wasm", bytes)?;
    let began = Instant::now();
    while client.get("/", &[])?.status != status {
        ensure!(began.elapsed() < Duration::from_secs(120), "the new version did not come");
    }
    ensure!(client.local()? == port, "the connection stays");
    Ok(began.elapsed().as_secs_f64() * 1e3)
}

fn swaps() -> Result<()> {
    println!("\n| swap, ms to the first new answer | cold | from the cache |\n|---|---|---|");
    for (language, first, second) in SWAPS {
        let (mut cold, mut cached) = (vec![], vec![]);
        for _ in 0..3 {
            let yaml = "upstreams: {echo: {builtin: echo}}\nfilters: {f: {source: f.wasm, capabilities: [keyvalue]}}\nroutes: [{filters: [f], upstream: echo}]";
            let bytes = std::fs::read(harness::repository().join(format!("guests/dist/{first}.wasm")))?;
            let gateway = Setup::new(yaml)?.level("warn").with("f.wasm", bytes)?.start()?;
            cold.push(swap(&gateway, second, 200)?);
            cached.push(swap(&gateway, first, 401)?);
        }
        println!("| {language} | {:.0} | {:.0} |", median(&mut cold), median(&mut cached));
    }
    Ok(())
}

fn main() -> Result<()> {
    swaps()?;
    let upstream = upstream()?;
    let filters: String = FILTERS
        .iter()
        .map(|(name, _)| format!("  {name}: {{source: {name}.wasm, config: {{key: s3cret}}}}\n"))
        .collect();
    let routes: String = FILTERS
        .iter()
        .map(|(name, _)| format!("  - {{match: {{path: /{name}}}, filters: [{name}], upstream: u}}\n"))
        .collect();
    let yaml = format!(
        "upstreams: {{u: {{endpoints: [\"http://{upstream}\"]}}}}\nfilters:\n{filters}routes:\n  - {{match: {{path: /plain}}, upstream: u}}\n{routes}"
    );
    let mut setup = Setup::new(&yaml)?.workers(1).level("warn");
    for (name, guest) in FILTERS {
        setup = setup.with_guest(&format!("{name}.wasm"), guest)?;
    }
    let gateway: Gateway = setup.start()?;
    let cases: Vec<String> =
        std::iter::once("/plain".to_owned()).chain(FILTERS.iter().map(|(name, _)| format!("/{name}"))).collect();
    println!("idle: {:.0} MiB RSS with the filters loaded", rss(gateway.id())?);
    let mut readings: Vec<Vec<f64>> = vec![vec![]; cases.len()];
    let mut rates: Vec<Vec<f64>> = vec![vec![]; cases.len()];
    for round in 0..=ROUNDS {
        for (index, path) in cases.iter().enumerate() {
            let before = cpu(gateway.id())?;
            let answered = load(gateway.address, path)?;
            // The first round only warms up.
            if round > 0 {
                readings[index].push((cpu(gateway.id())? - before) / answered as f64);
                rates[index].push(answered as f64 / ROUND.as_secs_f64());
            }
        }
    }
    println!("after load: {:.0} MiB RSS\n", rss(gateway.id())?);
    println!("| case | median µs | minimum µs | over plain µs | requests/s (median) |\n|---|---|---|---|---|");
    let plain = median(&mut readings[0]);
    for (index, path) in cases.iter().enumerate() {
        let middle = median(&mut readings[index]);
        println!(
            "| {} | {middle:.1} | {:.1} | {:.1} | {:.0} |",
            &path[1..],
            readings[index][0],
            middle - plain,
            median(&mut rates[index])
        );
    }
    Ok(())
}
