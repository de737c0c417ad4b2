//! What a call of a filter costs by itself: store, instantiation, call, clean-up, without HTTP around it. `just bench-instances`.
//!
//! An example and not a bench target: those have a profile of their own, and the runtime would be built again. Prints a table for the api-key
//! filter in each language, in fresh instances and in one that is reused; with `--flatten` the parts of a call, flattened and not; with `--scaling` only how many times the calls of one thread two threads make (TypeScript); with `--corpus` for each path
//! of the Python corpus in tests/fixtures. Must not know: how a
//! call is made ([`witgate::wasm::instance`]).
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "abi/fields.rs"]
mod fields;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Method;
use witgate::config::Config;
use witgate::control::artifacts::Loader;
use witgate::exchange::{Client, Exchange, Request};
use witgate::wasm::engine::Engine;
use witgate::wasm::instance::{Phase, call, parts};
use witgate::wasm::pool::Filter;

const LANGUAGES: [&str; 3] = ["rust", "typescript", "python"];
const ROUNDS: usize = 7;
/// Calls of one instance, where it is reused.
const REUSE: u32 = 100_000;
const ROUND: Duration = Duration::from_millis(700);
const TIMEOUT: Duration = Duration::from_secs(1);
/// See tests/fixtures/python/corpus.
const CORPUS: &str = "/nothing /headers /json_round /regex /dates /table /failures /text /classes /generators /containers /digests /chance /large /deep";
const BODY: &str = r#"{"name": "ann", "mail": "ann@example.com", "items": [{"id": 1, "tags": ["a", "b"]}, {"id": 2.5, "none": null}]}"#;

fn main() -> ExitCode {
    // The loader compiles in a child process of the same binary.
    if std::env::args().nth(1).is_some_and(|command| command == "compile") {
        return witgate::cli::main();
    }
    let engine = Engine::new(64).unwrap();
    if std::env::args().any(|argument| argument == "--scaling") {
        let filter = filter(&engine, "guests/dist/typescript/api-key.wasm", 1);
        println!("{:.2}", scaling(&filter));
        return ExitCode::SUCCESS;
    }
    if std::env::args().any(|argument| argument == "--flatten") {
        flattening(&engine);
        return ExitCode::SUCCESS;
    }
    if std::env::args().any(|argument| argument == "--corpus") {
        corpus(&engine);
        return ExitCode::SUCCESS;
    }
    println!("| api-key | µs per call, median | minimum | page faults per call | calls of two threads ÷ one |");
    println!("|---|---|---|---|---|");
    for (language, reuse) in LANGUAGES.into_iter().flat_map(|language| [(language, 1), (language, REUSE)]) {
        let filter = filter(&engine, &format!("guests/dist/{language}/api-key.wasm"), reuse);
        let (median, minimum, faults) = cost(&filter, "/");
        let kind = if reuse > 1 { ", reused" } else { "" };
        println!("| {language}{kind} | {median:.1} | {minimum:.1} | {faults:.2} | {:.2} |", scaling(&filter));
    }
    ExitCode::SUCCESS
}

/// A table of the parts of a call, flattened and not, and of what the files weigh and take to compile.
fn flattening(engine: &Engine) {
    println!("| api-key | store and instance, µs | call | drop | page faults per call | size, KiB | compile, s |");
    println!("|---|---|---|---|---|---|---|");
    for (title, file) in [
        ("Rust", "guests/dist/rust/api-key.wasm"),
        ("TypeScript, not flattened", "tests/fixtures/dist/typescript/unflattened/api-key.wasm"),
        ("TypeScript", "guests/dist/typescript/api-key.wasm"),
        ("Python, not flattened", "tests/fixtures/dist/python/unflattened/api-key.wasm"),
        ("Python", "guests/dist/python/api-key.wasm"),
    ] {
        let filter = filter(engine, file, 1);
        let (_, _, faults) = cost(&filter, "/");
        let [made, called, ended] = parts_of(&filter);
        let bytes = std::fs::metadata(repository().join(file)).unwrap().len();
        let compiled = compile_time(file);
        println!("| {title} | {made:.1} | {called:.1} | {ended:.1} | {faults:.1} | {} | {compiled:.1} |", bytes >> 10);
    }
}

/// Microseconds of the parts of a fresh call: medians of all calls of the rounds.
fn parts_of(filter: &Arc<Filter>) -> [f64; 3] {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let config = key();
    runtime.block_on(async {
        let mut exchange = exchange("/");
        let mut all = [const { vec![] }; 3];
        let began = Instant::now();
        while began.elapsed() < 3 * ROUND {
            let (took, back) = parts(filter, Phase::Request, exchange, &config).await.unwrap();
            exchange = back;
            all.iter_mut().zip(took).for_each(|(part, took)| part.push(took.as_secs_f64() * 1e6));
        }
        all.map(|mut part| {
            part.sort_by(f64::total_cmp);
            part[part.len() / 2]
        })
    })
}

/// Seconds that a compiler which knows no function of the file takes for it.
fn compile_time(file: &str) -> f64 {
    let state = tempfile::tempdir().unwrap();
    let engine = Engine::new(1).unwrap();
    let began = Instant::now();
    load(&engine, file, 1, state.path());
    began.elapsed().as_secs_f64()
}

/// A table of the paths of the Python corpus.
fn corpus(engine: &Engine) {
    let filter = filter(engine, "tests/fixtures/dist/python/corpus.wasm", 1);
    println!("| path | µs per call, median | minimum | page faults per call |");
    println!("|---|---|---|---|");
    for path in CORPUS.split_whitespace() {
        let (median, minimum, faults) = cost(&filter, path);
        println!("| {path} | {median:.1} | {minimum:.1} | {faults:.2} |");
    }
}

/// Microseconds of a call, median and minimum of the rounds, and page faults of one.
fn cost(filter: &Arc<Filter>, path: &str) -> (f64, f64, f64) {
    calls(filter, path, ROUND);
    let before = faults();
    let mut count = 0;
    let mut costs: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let (made, took) = calls(filter, path, ROUND);
            count += made;
            took.as_secs_f64() * 1e6 / made as f64
        })
        .collect();
    let faults = (faults() - before) / count as f64;
    costs.sort_by(f64::total_cmp);
    (costs[ROUNDS / 2], costs[0], faults)
}

/// A filter of this repository, loaded as the gateway loads it; its cache is the benchmark's own.
fn filter(engine: &Engine, file: &str, reuse: u32) -> Arc<Filter> {
    load(engine, file, reuse, Path::new("target/bench-state"))
}

fn load(engine: &Engine, file: &str, reuse: u32, state: &Path) -> Arc<Filter> {
    let yaml = format!(
        "state: {{directory: {}}}\nupstreams: {{echo: {{builtin: echo}}}}\nroutes: [{{filters: [f], upstream: echo, timeout: 15s}}]\n\
         timeouts: {{filters: 2s}}\nfilters: {{f: {{source: {file}, timeout: 1s, reuse: {reuse}}}}}",
        state.display()
    );
    let config = Config::parse(&yaml, "bench", &repository()).unwrap();
    let mut loader = Loader::new(engine.clone(), &config);
    let loaded = loader.load("f", &config.filters["f"]);
    loaded.unwrap_or_else(|error| panic!("{file}: {error}; run `just build-guests` and `just build-fixtures` first"))
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// What the filter is configured with on its route.
fn key() -> Arc<BTreeMap<String, String>> {
    Arc::new(BTreeMap::from([("key".to_owned(), "s3cret".to_owned())]))
}

fn exchange(path: &str) -> Box<Exchange> {
    let headers = fields::browser();
    Box::new(Exchange {
        id: 1,
        client: Arc::new(Client::new(([127, 0, 0, 1], 1234).into())),
        route: "bench".into(),
        request: Request {
            method: Method::GET,
            tls: false,
            target: path.parse().unwrap(),
            headers,
            body: Some(BODY.into()),
            upgrade: None,
        },
        response: None,
        notes: vec![],
    })
}

/// Calls, one after the other, for a time: how many, and how long they took.
fn calls(filter: &Arc<Filter>, path: &str, length: Duration) -> (u64, Duration) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let config = key();
    runtime.block_on(async {
        let mut exchange = exchange(path);
        let mut made = 0;
        let began = Instant::now();
        while began.elapsed() < length {
            let called = call(filter, Phase::Request, exchange, &config, TIMEOUT).await;
            assert!(called.outcome.is_ok(), "{path}: {:?}", called.outcome);
            exchange = called.exchange;
            made += 1;
        }
        (made, began.elapsed())
    })
}

/// Calls of two threads over those of one in the same time: the best rounds of each, which alternate. With two cores, any other process that runs takes from the two threads and
/// seldom from the one, so a median would tell of the machine.
fn scaling(filter: &Arc<Filter>) -> f64 {
    let rate = |threads: usize| -> f64 {
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..threads).map(|_| scope.spawn(|| calls(filter, "/", ROUND))).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .map(|(made, took)| made as f64 / took.as_secs_f64())
                .sum()
        })
    };
    let (mut one, mut two) = (0.0_f64, 0.0_f64);
    for _ in 0..ROUNDS {
        two = two.max(rate(2));
        one = one.max(rate(1));
    }
    two / one
}

/// Page faults of this process so far (minflt of proc(5)).
fn faults() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    stat.rsplit(')').next().unwrap().split_whitespace().nth(7).unwrap().parse().unwrap()
}
