//! The smuggling corpus: ambiguous and invalid requests, each on a connection of its own, and what an upstream gets of them.
//!
//! A case passes if nothing reached the upstream but what has one reading, and if the reaction is one that its row allows. A canary request behind most
//! cases shows where the gateway saw their end. `cargo test --test http1 smuggling -- --nocapture` prints the table.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use harness::Setup;

use super::case::{Case, Check, Want};
use super::corpus;
use super::recorder::{Recorder, Seen};
use super::strict::{self, Message, Parsed};

const CANARY: &[u8] = b"GET /canary HTTP/1.1\r\nHost: canary.test\r\n\r\n";
/// Gateways side by side, each with a recorder of its own.
const LANES: usize = 4;
/// Above every timeout of the configuration.
const HANGS_AFTER: Duration = Duration::from_secs(5);

/// Longer cases are not sent in pieces.
const PIECES_MAX: usize = 600;

/// What the client got.
struct Got {
    answers: Vec<Message>,
    closed: bool,
    broken: Option<String>,
}

#[test]
fn nothing_with_two_readings_reaches_an_upstream() -> Result<()> {
    let cases = corpus::all();
    assert!(cases.iter().filter(|case| !case.sweep).count() >= 250, "the corpus became small");
    // All at once; then those by hand byte by byte, for the reaction must not depend on how the bytes arrive.
    let by_hand = cases.iter().enumerate().filter(|(_, case)| !case.sweep && case.bytes.len() <= PIECES_MAX);
    let runs: Vec<Run> =
        (0..cases.len()).map(|index| (index, false)).chain(by_hand.map(|(index, _)| (index, true))).collect();
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

/// A case, and whether its bytes come one by one.
type Run = (usize, bool);
type Verdict = (Run, Result<String, String>);

fn lane(cases: &[Case], runs: &[Run], next: &AtomicUsize, results: &Mutex<Vec<Verdict>>) -> Result<()> {
    let recorder = Recorder::start()?;
    let yaml = format!(
        "timeouts: {{request_head: 600ms, request_body: 600ms, idle: 2s, filters: 50ms}}\nupstreams: {{u: {{endpoints: [\"http://{}\"], timeout: 2s}}}}\nroutes: [{{upstream: u}}]",
        recorder.address
    );
    let gateway = Setup::new(&yaml)?.level("error").start()?;
    loop {
        let Some(run) = runs.get(next.fetch_add(1, Ordering::Relaxed)) else { return Ok(()) };
        let case = &cases[run.0];
        let got = send(gateway.address, case, run.1)?;
        let verdict = judge(case, &got, &recorder.take());
        if let Ok(mut results) = results.lock() {
            results.push((*run, verdict));
        }
    }
}

/// Sends the case and its canary, in one write or `in_pieces`; reads until the canary is answered, the connection ends, or it hangs.
fn send(address: SocketAddr, case: &Case, in_pieces: bool) -> Result<Got> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_millis(500)))?;
    let mut bytes = case.bytes.clone();
    if case.canary {
        bytes.extend_from_slice(CANARY);
    }
    // A gateway that has refused may have closed already.
    let _ = bytes.chunks(if in_pieces { 1 } else { bytes.len() }).try_for_each(|piece| stream.write_all(piece));
    let (mut received, mut block, mut closed) = (vec![], vec![0; 64 << 10], false);
    let until = Instant::now() + HANGS_AFTER;
    while !closed && Instant::now() < until {
        match stream.read(&mut block) {
            Ok(0) => closed = true,
            Ok(read) => received.extend_from_slice(&block[..read]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
            Err(_) => closed = true,
        }
        let (answers, _) = answers(&received, &case.method(), false);
        let last = answers.last();
        let done = |last: &Message| if case.canary { is_canary(last) } else { last.status() < 300 };
        if last.is_some_and(done) {
            break;
        }
    }
    let (answers, broken) = answers(&received, &case.method(), closed);
    Ok(Got { answers, closed, broken })
}

/// The final answers in these bytes, and what is wrong with what follows them.
fn answers(bytes: &[u8], method: &str, ended: bool) -> (Vec<Message>, Option<String>) {
    let (mut answers, mut at) = (vec![], 0);
    while at < bytes.len() {
        let method = if answers.is_empty() { method } else { "GET" };
        match strict::response(&bytes[at..], method, ended) {
            Parsed::Whole(message, length) => {
                at += length;
                if message.status() >= 200 {
                    answers.push(message);
                }
            }
            Parsed::Part(_) => return (answers, ended.then(|| "an answer was cut".to_owned())),
            Parsed::Bad(why) => return (answers, Some(why)),
        }
    }
    (answers, None)
}

fn is_canary(answer: &Message) -> bool {
    answer.body == b"saw GET /canary"
}

/// Whether an answer was the recorder's.
fn is_upstream(answer: &Message) -> bool {
    answer.body.starts_with(b"saw ") || answer.field("proxy-status").is_none() && answer.status() == 200
}

/// The reaction in a word or two, or why it is wrong.
fn judge(case: &Case, got: &Got, seen: &[Seen]) -> Result<String, String> {
    let mut whole = vec![];
    let (mut body_cut, mut head_cut) = (false, false);
    for seen in seen {
        match seen {
            Seen::Clean(message) => whole.push(message),
            // A body that broke in the case before this one may end its connection only now.
            Seen::Cut(bytes) if bytes.starts_with(b"POST /body ") => body_cut = true,
            Seen::Cut(_) => head_cut = true,
            Seen::Dirty(why, bytes) => return Err(format!("DIRTY: {why}: {}", bytes.escape_ascii())),
        }
    }
    if let Some(why) = &got.broken {
        return Err(format!("the client got what is not HTTP: {why}"));
    }
    let answered = got.answers.iter().any(is_canary);
    let canaries = whole.iter().filter(|message| message.target() == "/canary").count();
    if canaries != usize::from(answered) || (answered && !got.answers.last().is_some_and(is_canary)) {
        return Err(format!("DESYNC: {canaries} canaries upstream, answered: {answered}"));
    }
    if !got.closed && !answered && (case.canary || got.answers.is_empty()) {
        return Err("HANG: neither closed nor answered".to_owned());
    }
    let own: Vec<&Message> = whole.into_iter().filter(|message| message.target() != "/canary").collect();
    let first = got.answers.first();
    let status = first.map_or(0, Message::status);
    let refused = own.is_empty();
    match case.want {
        _ if head_cut => Err("a request was begun and broken off".to_owned()),
        Want::Reject if !refused || answered || !got.closed => Err(format!("not rejected: {status}{}", shown(&own))),
        Want::Refuse if !refused => Err(format!("not refused: {status}{}", shown(&own))),
        Want::Cut if !own.is_empty() || answered || !got.closed => {
            Err(format!("came to an end: {status}{}", shown(&own)))
        }
        Want::Cut => refusal(case, first, true).map(|said| format!("{said}{}", if body_cut { ", cut" } else { "" })),
        Want::Forward if refused => Err(format!("refused: {status}")),
        _ if refused => refusal(case, first, false).map(|said| said + if got.closed { ", closed" } else { "" }),
        _ => forwarded(case, &own, got).map(|()| format!("forwarded as {}", own[0].target())),
    }
}

/// A refusal's status; `silent`: closing without an answer is right too.
fn refusal(case: &Case, first: Option<&Message>, silent: bool) -> Result<String, String> {
    let Some(answer) = first else {
        return if silent { Ok("closed".to_owned()) } else { Err("closed without an answer".to_owned()) };
    };
    let status = answer.status();
    let right = match case.statuses {
        [] => (400..500).contains(&status) || matches!(status, 501 | 505),
        some => some.contains(&status),
    };
    if right { Ok(status.to_string()) } else { Err(format!("status {status}, not {:?}", case.statuses)) }
}

fn forwarded(case: &Case, own: &[&Message], got: &Got) -> Result<(), String> {
    let upstream = got.answers.iter().filter(|answer| is_upstream(answer) && !is_canary(answer)).count();
    if upstream != own.len() {
        return Err(format!("{} requests upstream, {upstream} answers of it", own.len()));
    }
    let mut targets = own.iter().map(|message| message.target());
    let first = own[0];
    targets.next();
    for check in &case.checks {
        let right = match check {
            Check::Target(some) => some.contains(&first.target()),
            Check::Method(method) => first.start[0] == *method,
            Check::Body(body) => first.body == *body,
            Check::Absent(name) => first.field(name).is_none(),
            Check::Field(name, value) => first.all(name) == [*value],
            Check::Next(target) => targets.next() == Some(target),
        };
        if !right {
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

/// Prints the table; fails with every case that is not right.
fn report(cases: &[Case], results: &[Verdict]) -> Result<()> {
    let (mut wrong, mut sums) = (vec![], BTreeMap::<String, BTreeMap<&str, usize>>::new());
    for ((index, in_pieces), verdict) in results {
        let case = &cases[*index];
        let row = format!("{:<58} {:<20} {:?}", case.name, case.why, case.want);
        match verdict {
            Ok(_) if *in_pieces => {}
            Ok(reaction) if case.sweep => {
                let group = case.name.rsplit_once(' ').map_or("", |(group, _)| group).to_owned();
                *sums.entry(group).or_default().entry(reaction).or_default() += 1;
            }
            Ok(reaction) => println!("{row}: {reaction}"),
            Err(why) => wrong.push(format!("{row}{}: {why}", if *in_pieces { ", in pieces" } else { "" })),
        }
    }
    for (group, reactions) in sums {
        println!("{group:<58} {reactions:?}");
    }
    let dirty =
        wrong.iter().filter(|line| ["DIRTY", "DESYNC", "SMUGGLED"].iter().any(|word| line.contains(word))).count();
    let swept = cases.iter().filter(|case| case.sweep).count();
    println!(
        "smuggling: {} cases by hand (and byte by byte), {swept} by sweep; of {} runs {} as they should be, {} not, of which dirty {dirty}",
        cases.len() - swept,
        results.len(),
        results.len() - wrong.len(),
        wrong.len()
    );
    assert!(wrong.is_empty(), "{} cases are wrong:\n{}", wrong.len(), wrong.join("\n"));
    Ok(())
}
