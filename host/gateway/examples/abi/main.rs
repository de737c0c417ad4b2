//! `just bench-abi`: the cost of the same filter with three shapes of its interface. The results
//! are in docs/decisions/0001-plain-function-abi.md.
//!
//! It measures the CPU time of this thread for a complete call in a fresh instance (store,
//! instance, handler, clean-up), on the gateway's engine and pool. Rounds alternate between all
//! cases, so that noise of the machine affects all of them. Every case is checked before it is
//! measured. The guests (tests/fixtures/abi) are built as filters are.
//!
//! This program does not know: how a shape is called (`shapes.rs`), the gateway's own interface.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

mod fields;
mod shapes;

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName, HeaderValue};
use shapes::{Edit, Filter, Outcome, SHAPES};
use witgate_runtime::engine::Engine;

const LANGUAGES: [&str; 3] = ["rust", "typescript", "python"];
const ROUNDS: usize = 9;
const ROUND: Duration = Duration::from_millis(250);
/// Fields of a request: those of a browser alone, and those with proxies, a CDN and tracing.
const SIZES: [usize; 2] = [fields::FIELDS.len(), 40];

struct Case {
    fields: usize,
    shape: &'static str,
    filter: usize,
    /// Microseconds per call, one value for each round.
    costs: Vec<f64>,
}

fn main() {
    let engine = Engine::new(64).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut filters = vec![];
    let mut cases = vec![];
    for shape in SHAPES {
        for language in LANGUAGES {
            let filter = Filter::new(&engine, language, shape);
            runtime.block_on(check(&engine, &filter, &format!("{language}, {shape}")));
            cases.extend(SIZES.map(|fields| Case { fields, shape, filter: filters.len(), costs: vec![] }));
            filters.push(filter);
        }
    }
    println!("All {} guests pass the right key with the same edits, and refuse other keys with 401.\n", filters.len());
    // The first round is a warm-up.
    for number in 0..=ROUNDS {
        for case in &mut cases {
            let cost = runtime.block_on(round(&engine, &filters[case.filter], &request(case.fields)));
            if number > 0 {
                case.costs.push(cost);
            }
        }
    }
    table(cases);
}

/// Checks that a guest makes the right edits and refuses wrong keys.
async fn check(engine: &Engine, filter: &Filter, title: &str) {
    let edits = vec![
        Edit::Set("x-user".into(), "alice".into()),
        Edit::Remove("cookie".into()),
        Edit::Set("authorization".into(), "Bearer internal".into()),
    ];
    for fields in SIZES {
        let mut headers = request(fields);
        // Values that JSON escapes, and values that are not ASCII, must work in all shapes.
        headers.insert("sec-ch-ua", HeaderValue::from_static(r#""Chromium";v="131", "Not\A Brand""#));
        headers.insert("x-city", HeaderValue::from_bytes("Zürich 🏔".as_bytes()).unwrap());
        let passed = filter.call(engine, &Arc::new(headers.clone())).await;
        assert_eq!(passed, Outcome::Pass(edits.clone()), "{title}: the right key");
        headers.insert("x-api-key", HeaderValue::from_static("s3cret "));
        assert_eq!(filter.call(engine, &Arc::new(headers.clone())).await, Outcome::Refuse(401), "{title}: a wrong key");
        headers.remove("x-api-key");
        assert_eq!(filter.call(engine, &Arc::new(headers.clone())).await, Outcome::Refuse(401), "{title}: no key");
    }
}

/// CPU time per call over one round, in microseconds.
async fn round(engine: &Engine, filter: &Filter, headers: &HeaderMap) -> f64 {
    let headers = Arc::new(headers.clone());
    let (before, began, mut calls) = (processor_time(), Instant::now(), 0);
    while began.elapsed() < ROUND {
        let outcome = filter.call(engine, &headers).await;
        assert!(matches!(outcome, Outcome::Pass(edits) if edits.len() == 3));
        calls += 1;
    }
    (processor_time() - before).as_secs_f64() * 1e6 / f64::from(calls)
}

fn table(mut cases: Vec<Case>) {
    println!("µs of a call, median / minimum of {ROUNDS} rounds:\n");
    println!("| fields | shape | Rust | TypeScript | Python |\n|---|---|---|---|---|");
    for fields in SIZES {
        for shape in SHAPES {
            let row = cases.iter_mut().filter(|case| case.fields == fields && case.shape == shape);
            let cells: Vec<_> = row
                .map(|case| {
                    case.costs.sort_by(f64::total_cmp);
                    format!("{:.1} / {:.1}", case.costs[ROUNDS / 2], case.costs[0])
                })
                .collect();
            println!("| {fields} | {} | {} |", shapes::title(shape), cells.join(" | "));
        }
    }
}

/// A request with this many fields, filled up with fields that proxies add.
fn request(fields: usize) -> HeaderMap {
    let mut headers = fields::browser();
    for number in fields::FIELDS.len()..fields {
        let name = HeaderName::try_from(format!("x-trace-context-{number}")).unwrap();
        headers
            .insert(name, HeaderValue::try_from(format!("00-4bf92f3577b34da6a3ce929d0e0e47{number:02}-01")).unwrap());
    }
    headers
}

/// CPU time of this thread so far.
#[allow(unsafe_code)]
fn processor_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is valid for writes during the call.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    assert_eq!(result, 0);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
