//! Request smuggling: ambiguous and invalid requests, each on its own connection, and what reaches
//! the upstream.
//!
//! A case passes if the upstream received only bytes that all parsers read alike, and if the
//! gateway reacted as the case expects. After most cases a canary request follows, whose response
//! shows where the gateway saw the end of the case. `cargo test --test http1 smuggling --
//! --nocapture` prints the table.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use harness::Setup;

use super::case::{Case, Check, Expect};
use super::corpus;
use harness::recording_upstream::{Received, RecordingUpstream};
use harness::strict_http1::{self, Message, Parsed};

const CANARY: &[u8] = b"GET /canary HTTP/1.1\r\nHost: canary.test\r\n\r\n";
/// Gateways that run in parallel, each with its own upstream.
const LANES: usize = 4;
/// A connection without a reaction for this long hangs. Longer than all timeouts of the gateway.
const HANGS_AFTER: Duration = Duration::from_secs(5);

/// Cases with more bytes than this are not sent byte by byte.
const BYTEWISE_MAX: usize = 600;

/// What the client received.
struct ClientResult {
    /// Final responses.
    responses: Vec<Message>,
    closed: bool,
    /// Why the bytes after the last response are invalid.
    invalid: Option<String>,
}

#[test]
fn no_ambiguous_request_reaches_an_upstream() -> Result<()> {
    let cases = corpus::all();
    assert!(
        cases.iter().filter(|case| !case.sweep).count() >= 250,
        "the corpus has fewer than 250 cases outside of sweeps"
    );
    // First every case in one write. Then the cases outside of sweeps byte by byte, because the
    // reaction must not depend on how the bytes arrive.
    let bytewise = cases.iter().enumerate().filter(|(_, case)| !case.sweep && case.bytes.len() <= BYTEWISE_MAX);
    let runs: Vec<Run> =
        (0..cases.len()).map(|index| (index, false)).chain(bytewise.map(|(index, _)| (index, true))).collect();
    let (next, results) = (AtomicUsize::new(0), Mutex::new(vec![]));
    std::thread::scope(|scope| {
        let lanes: Vec<_> = (0..LANES).map(|_| scope.spawn(|| lane(&cases, &runs, &next, &results))).collect();
        lanes.into_iter().try_for_each(|lane| lane.join().unwrap_or_else(|_| bail!("a lane panicked")))
    })?;
    let mut results = results.into_inner().unwrap_or_default();
    results.sort_by_key(|result| (result.0.1, result.0.0));
    assert_eq!(results.len(), runs.len());
    report(&cases, &results)
}

/// The index of a case, and whether it is sent byte by byte.
type Run = (usize, bool);
type Verdict = (Run, Result<String, String>);

/// Runs cases on one gateway until none is left.
fn lane(cases: &[Case], runs: &[Run], next: &AtomicUsize, results: &Mutex<Vec<Verdict>>) -> Result<()> {
    let upstream = RecordingUpstream::start()?;
    let yaml = format!(
        "timeouts: {{request_head: 600ms, request_body: 600ms, idle: 2s, filters: 50ms}}\nupstreams: {{u: {{endpoints: [\"http://{}\"], timeout: 2s}}}}\nroutes: [{{upstream: u}}]",
        upstream.address
    );
    let gateway = Setup::new(&yaml)?.level("error").start()?;
    loop {
        let Some(run) = runs.get(next.fetch_add(1, Ordering::Relaxed)) else { return Ok(()) };
        let case = &cases[run.0];
        let client = send(gateway.address, case, run.1)?;
        let verdict = judge(case, &client, &upstream.take());
        if let Ok(mut results) = results.lock() {
            results.push((*run, verdict));
        }
    }
}

/// Sends the case and its canary. Reads until the canary is answered, or the connection is closed
/// or hangs.
fn send(address: SocketAddr, case: &Case, bytewise: bool) -> Result<ClientResult> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_millis(500)))?;
    let mut bytes = case.bytes.clone();
    if case.canary {
        bytes.extend_from_slice(CANARY);
    }
    // Writing fails if the gateway has already rejected the request and closed.
    let _ = bytes.chunks(if bytewise { 1 } else { bytes.len() }).try_for_each(|part| stream.write_all(part));
    let (mut received, mut block, mut closed) = (vec![], vec![0; 64 << 10], false);
    let until = Instant::now() + HANGS_AFTER;
    while !closed && Instant::now() < until {
        match stream.read(&mut block) {
            Ok(0) => closed = true,
            Ok(read) => received.extend_from_slice(&block[..read]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
            Err(_) => closed = true,
        }
        let (responses, _) = responses(&received, &case.method(), false);
        let last = responses.last();
        let done = |last: &Message| if case.canary { is_canary(last) } else { last.status() < 300 };
        if last.is_some_and(done) {
            break;
        }
    }
    let (responses, invalid) = responses(&received, &case.method(), closed);
    Ok(ClientResult { responses, closed, invalid })
}

/// Parses the final responses. Also returns why the bytes after them are invalid, if they are.
fn responses(bytes: &[u8], method: &str, ended: bool) -> (Vec<Message>, Option<String>) {
    let (mut responses, mut at) = (vec![], 0);
    while at < bytes.len() {
        let method = if responses.is_empty() { method } else { "GET" };
        match strict_http1::response(&bytes[at..], method, ended) {
            Parsed::Complete(message, length) => {
                at += length;
                if message.status() >= 200 {
                    responses.push(message);
                }
            }
            Parsed::Partial(_) => return (responses, ended.then(|| "a response is truncated".to_owned())),
            Parsed::Invalid(why) => return (responses, Some(why)),
        }
    }
    (responses, None)
}

fn is_canary(response: &Message) -> bool {
    response.body == b"saw GET /canary"
}

/// Whether the upstream sent this response.
fn is_from_upstream(response: &Message) -> bool {
    response.body.starts_with(b"saw ") || response.field("proxy-status").is_none() && response.status() == 200
}

/// Returns the reaction in a few words, or why it is wrong.
fn judge(case: &Case, client: &ClientResult, received: &[Received]) -> Result<String, String> {
    let mut requests = vec![];
    let (mut body_truncated, mut head_truncated) = (false, false);
    for received in received {
        match received {
            Received::Request(message) => requests.push(message),
            // The previous case may have left a truncated body, whose connection ends only later.
            Received::Truncated(bytes) if bytes.starts_with(b"POST /body ") => body_truncated = true,
            Received::Truncated(_) => head_truncated = true,
            Received::Malformed(why, bytes) => return Err(format!("MALFORMED: {why}: {}", bytes.escape_ascii())),
        }
    }
    if let Some(why) = &client.invalid {
        return Err(format!("the client received invalid HTTP: {why}"));
    }
    let answered = client.responses.iter().any(is_canary);
    let canaries = requests.iter().filter(|message| message.target() == "/canary").count();
    if canaries != usize::from(answered) || (answered && !client.responses.last().is_some_and(is_canary)) {
        return Err(format!("DESYNC: the upstream received {canaries} canaries, answered: {answered}"));
    }
    if !client.closed && !answered && (case.canary || client.responses.is_empty()) {
        return Err("HANG: the connection is neither closed nor answered".to_owned());
    }
    let own: Vec<&Message> = requests.into_iter().filter(|message| message.target() != "/canary").collect();
    let first = client.responses.first();
    let status = first.map_or(0, Message::status);
    let refused = own.is_empty();
    match case.expect {
        _ if head_truncated => Err("the upstream received a truncated header section".to_owned()),
        Expect::Reject if !refused || answered || !client.closed => {
            Err(format!("not rejected: {status}{}", shown(&own)))
        }
        Expect::LocalReply if !refused => Err(format!("not refused: {status}{}", shown(&own))),
        Expect::AbortBody if !own.is_empty() || answered || !client.closed => {
            Err(format!("the request was completed: {status}{}", shown(&own)))
        }
        Expect::AbortBody => refusal(case, first, true)
            .map(|reaction| format!("{reaction}{}", if body_truncated { ", body aborted" } else { "" })),
        Expect::Forward if refused => Err(format!("refused: {status}")),
        _ if refused => {
            refusal(case, first, false).map(|reaction| reaction + if client.closed { ", closed" } else { "" })
        }
        _ => forwarded(case, &own, client).map(|()| format!("forwarded as {}", own[0].target())),
    }
}

/// Checks the status of a refusal. With `may_be_silent`, closing without a response is correct too.
fn refusal(case: &Case, first: Option<&Message>, may_be_silent: bool) -> Result<String, String> {
    let Some(response) = first else {
        return if may_be_silent { Ok("closed".to_owned()) } else { Err("closed without a response".to_owned()) };
    };
    let status = response.status();
    let is_expected = match case.statuses {
        [] => (400..500).contains(&status) || matches!(status, 501 | 505),
        some => some.contains(&status),
    };
    if is_expected { Ok(status.to_string()) } else { Err(format!("status {status}, not {:?}", case.statuses)) }
}

/// Checks the requests that the upstream received.
fn forwarded(case: &Case, own: &[&Message], client: &ClientResult) -> Result<(), String> {
    let upstream =
        client.responses.iter().filter(|response| is_from_upstream(response) && !is_canary(response)).count();
    if upstream != own.len() {
        return Err(format!(
            "the upstream received {} requests, the client received {upstream} of its responses",
            own.len()
        ));
    }
    let mut targets = own.iter().map(|message| message.target());
    let first = own[0];
    targets.next();
    for check in &case.checks {
        let holds = match check {
            Check::Target(some) => some.contains(&first.target()),
            Check::Method(method) => first.start[0] == *method,
            Check::Body(body) => first.body == *body,
            Check::Absent(name) => first.field(name).is_none(),
            Check::Field(name, value) => first.all(name) == [*value],
            Check::Next(target) => targets.next() == Some(target),
        };
        if !holds {
            return Err(format!("{check:?} does not hold:{}", shown(own)));
        }
    }
    match targets.next() {
        Some(more) => Err(format!("SMUGGLED: {more}")),
        None => Ok(()),
    }
}

fn shown(own: &[&Message]) -> String {
    own.iter()
        .map(|message| format!(" {:?} {:?} {}", message.start, message.fields, message.body.escape_ascii()))
        .collect()
}

/// Prints the table. Fails with a list of the cases that failed.
fn report(cases: &[Case], results: &[Verdict]) -> Result<()> {
    let (mut failures, mut sums) = (vec![], BTreeMap::<String, BTreeMap<&str, usize>>::new());
    for ((index, bytewise), verdict) in results {
        let case = &cases[*index];
        let row = format!("{:<58} {:<20} {:?}", case.name, case.rule, case.expect);
        match verdict {
            Ok(_) if *bytewise => {}
            Ok(reaction) if case.sweep => {
                let group = case.name.rsplit_once(' ').map_or("", |(group, _)| group).to_owned();
                *sums.entry(group).or_default().entry(reaction).or_default() += 1;
            }
            Ok(reaction) => println!("{row}: {reaction}"),
            Err(why) => failures.push(format!("{row}{}: {why}", if *bytewise { ", byte by byte" } else { "" })),
        }
    }
    for (group, reactions) in sums {
        println!("{group:<58} {reactions:?}");
    }
    let dangerous = failures
        .iter()
        .filter(|line| ["MALFORMED", "DESYNC", "SMUGGLED"].iter().any(|word| line.contains(word)))
        .count();
    let swept = cases.iter().filter(|case| case.sweep).count();
    println!(
        "smuggling: {} single cases, {swept} cases in sweeps; {} runs, {} passed, {} failed, {dangerous} of them malformed, desynchronized or smuggled",
        cases.len() - swept,
        results.len(),
        results.len() - failures.len(),
        failures.len()
    );
    assert!(failures.is_empty(), "{} cases failed:\n{}", failures.len(), failures.join("\n"));
    Ok(())
}
