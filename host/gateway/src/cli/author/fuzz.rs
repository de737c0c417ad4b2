//! `witgate test --fuzz`: sends generated requests. The filter must neither fail nor exceed its
//! limits.
//!
//! A request is an example with random changes, so that it gets past the first checks of a filter,
//! or has nothing in common with one. A failure is made smaller and printed as an example.
//! This module does not know: how an example is run.

use std::time::{Duration, Instant};

use fastrand::Rng;
use serde_json::{Value, json};
use witgate_examples::{Action, Example, ExampleResponse, Expectation, FieldLines, Outcome};

use super::load::{Loaded, block_on};
use super::report::{mebibytes, milliseconds};
use crate::cli::output::print;

const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY", "X"];
const FIELDS: [&str; 14] = [
    "accept",
    "authorization",
    "content-type",
    "cookie",
    "origin",
    "user-agent",
    "x-api-key",
    "x-forwarded-for",
    "host",
    "if-none-match",
    "range",
    "accept-language",
    "x-request-id",
    "x",
];
const VALUES: [&str; 16] = [
    "",
    "0",
    "-1",
    "99999999999999999999",
    "1.5e300",
    "null",
    "true",
    "application/json",
    "Bearer a.b.c",
    "a=b; c=\"d\"",
    "../../etc/passwd",
    "%00%ff",
    "ünïcode €😀",
    "{\"a\":[1,{}]}",
    "[[[[[[[[",
    "'; --",
];
const PATHS: [&str; 8] =
    ["/", "/a/b/c", "/%F0%9F%98%80", "/a?b=c&b=d", "/?", "/a//b/", "/very/long/%2e%2e/path", "/x?q=%00%ff&=&&"];
/// The kinds of failures that say nothing about the filter.
const NOT_THE_FILTER: [&str; 2] = ["saturated", "body-too-large"];
/// Attempts to make a failing request smaller.
const SHRINK_MAX: usize = 200;

/// What the generated requests found.
pub(super) struct Fuzzed {
    requests: u64,
    slowest: Duration,
    memory_bytes: usize,
    failure: Option<Failure>,
}

/// A request that makes the filter fail, and how it fails.
struct Failure {
    smallest: Example,
    kind: String,
    detail: String,
}

impl Fuzzed {
    /// Prints the result as text. A quiet run prints a failure only.
    pub(super) fn print_text(&self, quiet: bool) -> Result<(), String> {
        let Some(failure) = &self.failure else {
            let (slowest, memory) = (milliseconds(self.slowest), mebibytes(self.memory_bytes));
            let Self { requests, .. } = self;
            let text = format_args!(
                "fuzz        ok, {requests} requests; the slowest took {slowest}, the largest memory was {memory}"
            );
            return if quiet { Ok(()) } else { print(text) };
        };
        let text = serde_json::to_string_pretty(&failure.smallest).map_err(|error| error.to_string())?;
        print("This request makes the filter fail. Save it as a .json file in the folder examples:")?;
        text.lines().try_for_each(print)
    }

    pub(super) fn to_json(&self) -> Value {
        let failure = self.failure.as_ref();
        json!({
            "passed": failure.is_none(),
            "requests": self.requests,
            "slowest_milliseconds": self.slowest.as_secs_f64() * 1e3,
            "memory_bytes": self.memory_bytes,
            "failure": failure.map(|failure| {
                json!({ "kind": failure.kind, "detail": failure.detail, "example": failure.smallest })
            }),
        })
    }

    /// The failure as an error.
    pub(super) fn verdict(&self) -> Result<(), String> {
        self.failure.as_ref().map_or(Ok(()), |failure| {
            let Failure { kind, detail, .. } = failure;
            Err(format!("request {} made the filter fail with {kind}: {detail}", self.requests))
        })
    }
}

/// Runs generated requests for `length`, or until the filter fails.
pub(super) fn fuzz(loaded: &Loaded, examples: &[Example], length: Duration) -> Result<Fuzzed, String> {
    let mut rng = Rng::new();
    let began = Instant::now();
    let mut fuzzed = Fuzzed { requests: 0, slowest: Duration::ZERO, memory_bytes: 0, failure: None };
    while began.elapsed() < length {
        let request = generate(&mut rng, examples);
        fuzzed.requests += 1;
        // A generated value may be impossible in HTTP. Then the client could not send it either.
        let Ok(outcome) = block_on(loaded.runner.run(&request))? else { continue };
        fuzzed.slowest = fuzzed.slowest.max(outcome.took);
        fuzzed.memory_bytes = fuzzed.memory_bytes.max(outcome.memory_bytes);
        if is_failure(&outcome) {
            fuzzed.failure = Some(explain(loaded, &request, outcome)?);
            break;
        }
    }
    Ok(fuzzed)
}

fn is_failure(outcome: &Outcome) -> bool {
    outcome.failure.as_ref().is_some_and(|(kind, _)| !NOT_THE_FILTER.contains(&kind.as_str()))
}

/// Finds the smallest request that fails.
fn explain(loaded: &Loaded, request: &Example, outcome: Outcome) -> Result<Failure, String> {
    let mut smallest = shrink(loaded, request)?;
    smallest.name = "a generated request".into();
    smallest.expect = Expectation { action: Some(Action::Proceed), ..Expectation::default() };
    let (kind, detail) = outcome.failure.unwrap_or_default();
    Ok(Failure { smallest, kind, detail })
}

/// Removes parts of a request as long as it fails.
fn shrink(loaded: &Loaded, request: &Example) -> Result<Example, String> {
    let fails = |example: &Example| -> Result<bool, String> {
        Ok(block_on(loaded.runner.run(example))?.is_ok_and(|outcome| is_failure(&outcome)))
    };
    let mut smallest = request.clone();
    let mut attempts = 0;
    let mut parts: Vec<String> = request.request.headers.keys().cloned().collect();
    parts.extend([":path", ":method", ":body", ":upstream"].map(str::to_owned));
    for part in parts {
        attempts += 1;
        let mut smaller = smallest.clone();
        match part.as_str() {
            ":path" => smaller.request.path = None,
            ":method" => smaller.request.method = None,
            ":body" => (smaller.request.body, smaller.request.json) = (None, None),
            ":upstream" => smaller.upstream = None,
            name => drop(smaller.request.headers.remove(name)),
        }
        if attempts < SHRINK_MAX && fails(&smaller)? {
            smallest = smaller;
        }
    }
    Ok(smallest)
}

fn generate(rng: &mut Rng, examples: &[Example]) -> Example {
    let mut example = rng.choice(examples).cloned().unwrap_or_default();
    example.repeat = 1;
    let request = &mut example.request;
    if rng.u8(..4) == 0 {
        request.method = rng.choice(METHODS).map(str::to_owned);
    }
    if rng.u8(..3) == 0 {
        request.path = rng.choice(PATHS).map(str::to_owned);
    }
    let own: Vec<String> = request.headers.keys().cloned().collect();
    for _ in 0..rng.usize(..4) {
        let is_own = !own.is_empty() && rng.bool();
        let name =
            if is_own { own[rng.usize(..own.len())].clone() } else { FIELDS[rng.usize(..FIELDS.len())].to_owned() };
        if is_own && rng.u8(..3) == 0 {
            request.headers.remove(&name);
        } else {
            let lines = (0..rng.usize(1..3)).map(|_| text(rng)).collect();
            request.headers.insert(name, FieldLines::Several(lines));
        }
    }
    if rng.bool() {
        (request.body, request.json, request.base64) = (None, None, None);
        match rng.u8(..4) {
            0 => request.body = Some(text(rng).repeat(rng.usize(1..200))),
            1 => request.json = Some(json_value(rng, 0)),
            2 => {
                let json = json_value(rng, 0).to_string();
                request.body = Some(mutated(rng, &json));
            }
            _ => {}
        }
    }
    if rng.bool() {
        let count = rng.usize(..3);
        let field = |rng: &mut Rng| FIELDS[rng.usize(..FIELDS.len())].to_owned();
        example.upstream = Some(ExampleResponse {
            status: Some(rng.u16(200..600)),
            headers: (0..count).map(|_| (field(rng), FieldLines::One(text(rng)))).collect(),
            json: Some(json_value(rng, 0)),
            ..ExampleResponse::default()
        });
    }
    example
}

fn text(rng: &mut Rng) -> String {
    match rng.u8(..8) {
        0 => (0..rng.usize(..2000)).map(|_| rng.char('!'..='~')).collect(),
        1 => (0..rng.usize(..40)).map(|_| rng.char('\u{20}'..='\u{2fff}')).filter(|c| !c.is_control()).collect(),
        _ => VALUES[rng.usize(..VALUES.len())].to_owned(),
    }
}

fn json_value(rng: &mut Rng, depth: usize) -> Value {
    match rng.u8(..if depth < 5 { 8 } else { 5 }) {
        0 => Value::Null,
        1 => rng.bool().into(),
        2 => rng.i64(..).into(),
        3 => json!(rng.f64() * 1e9),
        4 => text(rng).into(),
        5 => (0..rng.usize(..4)).map(|_| json_value(rng, depth + 1)).collect::<Vec<_>>().into(),
        _ => (0..rng.usize(..4))
            .map(|_| (text(rng), json_value(rng, depth + 1)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
    }
}

/// The text with some characters removed or doubled.
fn mutated(rng: &mut Rng, text: &str) -> String {
    let mut changed = String::new();
    for c in text.chars() {
        match rng.u8(..40) {
            0 => {}
            1 => changed.extend([c, c]),
            _ => changed.push(c),
        }
    }
    changed
}
