//! What a call of a filter costs by itself: store, instantiation, call, clean-up, without HTTP around it. `just bench-instances`.
//!
//! An example and not a bench target: those have a profile of their own, and the runtime would be built again. Prints a table for the api-key
//! filter in each language, in fresh instances and in one that is reused; with `--scaling` only how many times the calls of one thread two threads make (TypeScript). Must not know: how a
//! call is made ([`witgate::wasm::instance`]).
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use witgate::config::Config;
use witgate::control::artifacts::Loader;
use witgate::exchange::{Client, Exchange, Request};
use witgate::wasm::engine::Engine;
use witgate::wasm::instance::{Action, Phase, call};
use witgate::wasm::pool::Filter;

const LANGUAGES: [&str; 3] = ["rust", "typescript", "python"];
/// Calls of one instance, where it is reused.
const REUSE: u32 = 1_000_000;
const ROUNDS: usize = 7;
const ROUND: Duration = Duration::from_millis(700);
const TIMEOUT: Duration = Duration::from_secs(1);
/// Fields of a browser's request.
const FIELDS: [(&str, &str); 9] = [
    ("host", "bench.test"),
    ("user-agent", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36"),
    ("accept", "text/html,application/xhtml+xml"),
    ("accept-encoding", "gzip, br"),
    ("accept-language", "en-GB,en;q=0.9"),
    ("cache-control", "no-cache"),
    ("cookie", "session=abcdef0123456789; theme=dark"),
    ("x-api-key", "s3cret"),
    ("authorization", "Bearer eyJhbGciOiJIUzI1NiJ9.e30.abc"),
];

fn main() -> ExitCode {
    // The loader compiles in a child process of the same binary.
    if std::env::args().nth(1).is_some_and(|command| command == "compile") {
        return witgate::cli::main();
    }
    let engine = Engine::new(64).unwrap();
    if std::env::args().any(|argument| argument == "--scaling") {
        let filter = filter(&engine, "typescript", 1);
        println!("{:.2}", scaling(&filter));
        return ExitCode::SUCCESS;
    }
    println!("| api-key | µs per call, median | minimum | page faults per call | calls of two threads ÷ one |");
    println!("|---|---|---|---|---|");
    for (language, reuse) in LANGUAGES.into_iter().flat_map(|language| [(language, 1), (language, REUSE)]) {
        let filter = filter(&engine, language, reuse);
        calls(&filter, ROUND);
        let before = faults();
        let mut count = 0;
        let mut costs: Vec<f64> = (0..ROUNDS)
            .map(|_| {
                let (made, took) = calls(&filter, ROUND);
                count += made;
                took.as_secs_f64() * 1e6 / made as f64
            })
            .collect();
        let faults = (faults() - before) / count as f64;
        costs.sort_by(f64::total_cmp);
        let (median, minimum) = (costs[ROUNDS / 2], costs[0]);
        let kind = if reuse > 1 { ", reused" } else { "" };
        println!("| {language}{kind} | {median:.1} | {minimum:.1} | {faults:.2} | {:.2} |", scaling(&filter));
    }
    ExitCode::SUCCESS
}

/// The api-key filter of a language, loaded as the gateway loads it; its cache is the benchmark's own.
fn filter(engine: &Engine, language: &str, reuse: u32) -> Arc<Filter> {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let yaml = format!(
        "state: {{directory: target/bench-state}}\nupstreams: {{echo: {{builtin: echo}}}}\nroutes: [{{filters: [f], upstream: echo, timeout: 15s}}]\n\
         timeouts: {{filters: 2s}}\nfilters: {{f: {{source: guests/dist/{language}/api-key.wasm, timeout: 1s, reuse: {reuse}}}}}"
    );
    let config = Config::parse(&yaml, "bench", &repository).unwrap();
    let mut loader = Loader::new(engine.clone(), &config, Arc::new(AtomicI64::new(0)));
    let loaded = loader.load("f", &config.filters["f"]);
    Arc::new(loaded.unwrap_or_else(|error| panic!("{language}: {error}; run `just build-guests` first")))
}

fn exchange() -> Box<Exchange> {
    let headers: HeaderMap = FIELDS
        .into_iter()
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
        .collect();
    Box::new(Exchange {
        id: 1,
        client: Arc::new(Client::new(([127, 0, 0, 1], 1234).into())),
        route: "bench".into(),
        request: Request {
            method: Method::GET,
            tls: false,
            target: "/".parse().unwrap(),
            headers,
            body: None,
            upgrade: None,
        },
        response: None,
        notes: vec![],
    })
}

/// Calls, one after the other, for a time: how many, and how long they took.
fn calls(filter: &Arc<Filter>, length: Duration) -> (u64, Duration) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let config = Arc::new(BTreeMap::from([("key".to_owned(), "s3cret".to_owned())]));
    runtime.block_on(async {
        let mut exchange = exchange();
        let mut made = 0;
        let began = Instant::now();
        while began.elapsed() < length {
            let called = call(filter, Phase::Request, exchange, &config, TIMEOUT).await;
            assert!(matches!(called.outcome, Ok(Action::Proceed)), "{:?}", called.outcome);
            exchange = called.exchange;
            made += 1;
        }
        (made, began.elapsed())
    })
}

/// Calls of two threads over those of one in the same time: the median of rounds that alternate.
fn scaling(filter: &Arc<Filter>) -> f64 {
    let rate = |threads: usize| -> f64 {
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..threads).map(|_| scope.spawn(|| calls(filter, ROUND))).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .map(|(made, took)| made as f64 / took.as_secs_f64())
                .sum()
        })
    };
    let mut factors: Vec<f64> = (0..ROUNDS).map(|_| rate(2) / rate(1)).collect();
    factors.sort_by(f64::total_cmp);
    factors[ROUNDS / 2]
}

/// Page faults of this process so far (minflt of proc(5)).
fn faults() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    stat.rsplit(')').next().unwrap().split_whitespace().nth(7).unwrap().parse().unwrap()
}
