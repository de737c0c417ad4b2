//! `just bench-instances`: the cost of a filter call without HTTP: store, instantiation, call and
//! clean-up.
//!
//! Without arguments it prints a table of the api-key filter in each language, with fresh and with
//! reused instances. `--parts` prints the parts of a call, for optimized and unoptimized guests.
//! `--scaling` prints the calls of two threads divided by those of one (TypeScript). `--corpus`
//! prints a table of the Python corpus in tests/fixtures, path by path.
//!
//! This is an example and not a bench target, because bench targets have another profile, for which
//! the runtime would be compiled again.
//!
//! This program does not know: how a call is made ([`witgate_runtime::call`]).
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "abi/fields.rs"]
mod fields;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Method;
use witgate::releases::loader::Loader;
use witgate_config::Config;
use witgate_runtime::call::{measure, run};
use witgate_runtime::engine::Engine;
use witgate_runtime::exchange::{Client, Exchange, Passed, Request};
use witgate_runtime::filter::{Filter, Phase};

const LANGUAGES: [&str; 3] = ["rust", "typescript", "python"];
const ROUNDS: usize = 7;
/// Calls of one instance, if it is reused.
const REUSE: u32 = 100_000;
const ROUND: Duration = Duration::from_millis(700);
const TIMEOUT: Duration = Duration::from_secs(1);
/// The paths of tests/fixtures/python/corpus.
const CORPUS: &str = "/nothing /headers /json_round /regex /dates /table /failures /text /classes /generators /containers /digests /chance /large /deep";
const BODY: &str = r#"{"name": "ann", "mail": "ann@example.com", "items": [{"id": 1, "tags": ["a", "b"]}, {"id": 2.5, "none": null}]}"#;

fn main() -> ExitCode {
    // The loader runs the compiler as a child process of the same binary.
    if std::env::args().nth(1).is_some_and(|command| command == "compile") {
        return witgate::cli::main();
    }
    let engine = Engine::new(64).unwrap();
    if std::env::args().any(|argument| argument == "--scaling") {
        let filter = filter(&engine, "guests/dist/typescript/api-key.wasm", 1);
        println!("{:.2}", scaling(&filter));
        return ExitCode::SUCCESS;
    }
    if std::env::args().any(|argument| argument == "--parts") {
        print_parts(&engine);
        return ExitCode::SUCCESS;
    }
    if std::env::args().any(|argument| argument == "--corpus") {
        print_corpus(&engine);
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

/// Prints a table of the parts of a call, of file sizes and of compile times, for optimized and
/// unoptimized guests.
fn print_parts(engine: &Engine) {
    println!("| api-key | store and instance, µs | call | drop | page faults per call | size, KiB | compile, s |");
    println!("|---|---|---|---|---|---|---|");
    for (title, file) in [
        ("Rust", "guests/dist/rust/api-key.wasm"),
        ("TypeScript, not optimized", "tests/fixtures/dist/typescript/unoptimized/api-key.wasm"),
        ("TypeScript", "guests/dist/typescript/api-key.wasm"),
        ("Python, not optimized", "tests/fixtures/dist/python/unoptimized/api-key.wasm"),
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

/// The parts of a call in a fresh instance, in microseconds: medians of all calls.
fn parts_of(filter: &Arc<Filter>) -> [f64; 3] {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let config = key();
    runtime.block_on(async {
        let mut exchange = exchange("/");
        let mut all = [const { vec![] }; 3];
        let began = Instant::now();
        while began.elapsed() < 3 * ROUND {
            let (took, back) = measure(filter, Phase::Request, exchange, &config).await.unwrap();
            exchange = back;
            all.iter_mut().zip(took).for_each(|(part, took)| part.push(took.as_secs_f64() * 1e6));
        }
        all.map(|mut part| {
            part.sort_by(f64::total_cmp);
            part[part.len() / 2]
        })
    })
}

/// Seconds to compile a file with an empty function cache.
fn compile_time(file: &str) -> f64 {
    let state = tempfile::tempdir().unwrap();
    let engine = Engine::new(1).unwrap();
    let began = Instant::now();
    load(&engine, file, 1, state.path());
    began.elapsed().as_secs_f64()
}

/// Prints a table of the paths of the Python corpus.
fn print_corpus(engine: &Engine) {
    let filter = filter(engine, "tests/fixtures/dist/python/corpus.wasm", 1);
    println!("| path | µs per call, median | minimum | page faults per call |");
    println!("|---|---|---|---|");
    for path in CORPUS.split_whitespace() {
        let (median, minimum, faults) = cost(&filter, path);
        println!("| {path} | {median:.1} | {minimum:.1} | {faults:.2} |");
    }
}

/// The cost of a call: median and minimum of the rounds in microseconds, and page faults per call.
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

/// Loads a filter of this repository as the gateway does, with a cache for the benchmark alone.
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
    let loader = Loader::new(engine.clone(), &config);
    let loaded = loader.load("f", &config.filters["f"]);
    loaded.unwrap_or_else(|error| panic!("{file}: {error}; run `just build-guests` and `just build-fixtures` first"))
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The configuration of the filter.
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
        budget: None,
        edited_fields: None,
        passed: Passed::default(),
        captured_log: None,
        sender: None,
    })
}

/// Calls the filter repeatedly for `length`. Returns the number of calls and the time that they
/// took.
fn calls(filter: &Arc<Filter>, path: &str, length: Duration) -> (u64, Duration) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let config = key();
    runtime.block_on(async {
        let mut exchange = exchange(path);
        let mut made = 0;
        let began = Instant::now();
        while began.elapsed() < length {
            let called = run(filter, Phase::Request, exchange, &config, TIMEOUT).await;
            assert!(called.outcome.is_ok(), "{path}: {:?}", called.outcome);
            exchange = called.exchange;
            made += 1;
        }
        (made, began.elapsed())
    })
}

/// Calls of two threads divided by those of one, in the best of alternating rounds. On two cores
/// any other process slows two threads down, but seldom one, so a median would measure the machine.
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

/// Minor page faults of this process so far (minflt of proc(5)).
fn faults() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    stat.rsplit(')').next().unwrap().split_whitespace().nth(7).unwrap().parse().unwrap()
}
