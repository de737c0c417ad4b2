//! Request smuggling from HTTP/2 to HTTP/1: no request may reach an upstream in a form that two
//! parsers could read differently.
//!
//! Each case uses its own connection. Then a control request uses another connection, so that
//! everything before it has arrived at the upstream. The gateway has one thread, so all cases share
//! its connections to the upstream, and surplus bytes of one case would reach the next.

mod cases;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use harness::frames::{End, Frames};
use harness::{Client, Gateway, Setup};

use cases::{Case, Expect};
use harness::recording_upstream::{Received, RecordingUpstream};
use harness::strict_http1;

/// The minimum number of cases.
const CASES_MIN: usize = 64;

/// Sends one case. Returns how the stream ended and what the upstream received.
fn run(gateway: &Gateway, upstream: &RecordingUpstream, case: &Case) -> Result<(End, Vec<Received>)> {
    let mut frames = Frames::connect(gateway.address)?;
    // Sending fails if the gateway refuses the request early and closes.
    let _ = frames.send(&case.bytes());
    let end = frames.end(1, Duration::from_secs(3))?;
    drop(frames);
    let response = Client::connect(gateway.address)?.get("/control", &[])?;
    ensure!(response.text() == "saw GET /control", "the control request got {} {}", response.status, response.text());
    let began = Instant::now();
    let mut received = upstream.take();
    ensure!(began.elapsed() < Duration::from_secs(4), "a partial request stays open at the upstream");
    let control = received
        .iter()
        .position(|received| matches!(received, Received::Request(message) if message.target() == "/control"));
    received.remove(control.context("the upstream did not receive the control request")?);
    Ok((end, received))
}

/// Returns what is wrong with the outcome, or `None`.
fn fault(case: &Case, end: End, received: &[Received]) -> Option<String> {
    let requests: Vec<_> = received
        .iter()
        .filter_map(|received| if let Received::Request(message) = received { Some(message) } else { None })
        .collect();
    if let Some(Received::Malformed(why, bytes)) =
        received.iter().find(|received| matches!(received, Received::Malformed(..)))
    {
        return Some(format!("malformed: {why}: {}", bytes[..bytes.len().min(300)].escape_ascii()));
    }
    let refused = end.is_refusal() && requests.is_empty() && (received.is_empty() || case.may_begin());
    let forwarded = end == End::Status(200) && received.len() == 1 && requests.len() == 1;
    match case.expect {
        Expect::Refused if refused => None,
        Expect::Unambiguous if refused || forwarded || (received.is_empty() && matches!(end, End::Status(_))) => None,
        Expect::Forwarded(check) if forwarded && check(requests[0]) => None,
        Expect::Refused => Some("must be refused".to_owned()),
        Expect::Unambiguous => Some("must be refused or forwarded completely".to_owned()),
        Expect::Forwarded(_) => Some("must be forwarded with the expected content".to_owned()),
    }
}

fn shown(received: &[Received]) -> String {
    let one = |received: &Received| match received {
        Received::Request(message) => format!("{} {:.40}", message.start[0], message.target()),
        Received::Truncated(bytes) => format!("{} bytes, truncated", bytes.len()),
        Received::Malformed(why, _) => format!("MALFORMED {why:.60}"),
    };
    if received.is_empty() { "nothing".to_owned() } else { received.iter().map(one).collect::<Vec<_>>().join(" + ") }
}

#[test]
fn no_ambiguous_request_reaches_an_http_1_upstream() -> Result<()> {
    let upstream = RecordingUpstream::start()?;
    let yaml = format!("upstreams: {{u: {{endpoints: [\"http://{}\"]}}}}\nroutes: [{{upstream: u}}]", upstream.address);
    let gateway = Setup::new(&yaml)?.workers(1).level("warn").start()?;
    let cases = cases::all();
    ensure!(cases.len() >= CASES_MIN, "only {} cases", cases.len());
    let mut faults = vec![];
    println!("| case | reaction | upstream received |\n|---|---|---|");
    for case in &cases {
        match run(&gateway, &upstream, case) {
            Ok((end, received)) => {
                println!("| {} | {end:?} | {} |", case.name, shown(&received));
                if let Some(why) = fault(case, end, &received) {
                    faults.push(format!("{}: {end:?}, upstream received {}: {why}", case.name, shown(&received)));
                }
            }
            Err(error) => faults.push(format!("{}: {error:#}", case.name)),
        }
    }
    println!("{} cases, {} failed", cases.len(), faults.len());
    ensure!(faults.is_empty(), "{} of {} cases failed:\n{}", faults.len(), cases.len(), faults.join("\n"));
    Ok(())
}

// The other tests rely on the parser to reject ambiguous requests.
#[test]
fn the_strict_parser_rejects_ambiguous_requests() {
    for bytes in [
        "GET / HTTP/1.1\r\nhost: a\r\nx: 1\nb: 2\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\ncontent_length: 1\r\n\r\n",
        "GET /a b HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nte: gzip\r\n\r\n",
    ] {
        assert!(matches!(strict_http1::request(bytes.as_bytes()), strict_http1::Parsed::Invalid(_)), "{bytes:?}");
    }
}
