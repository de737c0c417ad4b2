//! HTTP/2 → HTTP/1: no request may reach an upstream in a form that two parsers could read differently.
//!
//! Each case has a connection of its own; then a plain request goes over another, so that everything before it has arrived. The gateway has one thread,
//! so the cases share its connections to the upstream: what one leaves there would be found at the next.

mod cases;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use harness::frames::{End, Frames};
use harness::{Client, Gateway, Setup};

use super::recorder::{Recorder, Seen};
use super::strict;
use cases::{Case, Expect};

/// The fewest cases; the reference figures have 64.
const CASES_MIN: usize = 64;

/// Sends one case; gives how the stream ended and what the upstream saw of it.
fn run(gateway: &Gateway, upstream: &Recorder, case: &Case) -> Result<(End, Vec<Seen>)> {
    let mut frames = Frames::connect(gateway.address)?;
    // A gateway that refuses early may close while the rest is being sent.
    let _ = frames.send(&case.bytes());
    let end = frames.end(1, Duration::from_secs(3))?;
    drop(frames);
    let response = Client::connect(gateway.address)?.get("/control", &[])?;
    ensure!(response.text() == "saw GET /control", "the next request got {} {}", response.status, response.text());
    let began = Instant::now();
    let mut seen = upstream.take();
    ensure!(began.elapsed() < Duration::from_secs(4), "half a request stays open at the upstream");
    let control = seen.iter().position(|seen| matches!(seen, Seen::Clean(message) if message.target() == "/control"));
    seen.remove(control.context("the upstream did not read the next request")?);
    Ok((end, seen))
}

/// What is wrong with the outcome, if anything.
fn fault(case: &Case, end: End, seen: &[Seen]) -> Option<String> {
    let whole: Vec<_> =
        seen.iter().filter_map(|seen| if let Seen::Clean(message) = seen { Some(message) } else { None }).collect();
    if let Some(Seen::Dirty(why, bytes)) = seen.iter().find(|seen| matches!(seen, Seen::Dirty(..))) {
        return Some(format!("dirty: {why}: {}", bytes[..bytes.len().min(300)].escape_ascii()));
    }
    let refused = end.is_refusal() && whole.is_empty() && (seen.is_empty() || case.may_begin());
    let forwarded = end == End::Status(200) && seen.len() == 1 && whole.len() == 1;
    match case.expect {
        Expect::Refused if refused => None,
        Expect::Clean if refused || forwarded || (seen.is_empty() && matches!(end, End::Status(_))) => None,
        Expect::Passes(check) if forwarded && check(whole[0]) => None,
        Expect::Refused => Some("must be refused".to_owned()),
        Expect::Clean => Some("must be refused or forwarded whole".to_owned()),
        Expect::Passes(_) => Some("must pass, and be read as meant".to_owned()),
    }
}

fn shown(seen: &[Seen]) -> String {
    let one = |seen: &Seen| match seen {
        Seen::Clean(message) => format!("{} {:.40}", message.start[0], message.target()),
        Seen::Cut(bytes) => format!("{} bytes, then cut", bytes.len()),
        Seen::Dirty(why, _) => format!("DIRTY {why:.60}"),
    };
    if seen.is_empty() { "nothing".to_owned() } else { seen.iter().map(one).collect::<Vec<_>>().join(" + ") }
}

#[test]
fn a_request_on_http_2_has_one_reading_on_http_1() -> Result<()> {
    let upstream = Recorder::start()?;
    let yaml = format!("upstreams: {{u: {{endpoints: [\"http://{}\"]}}}}\nroutes: [{{upstream: u}}]", upstream.address);
    let gateway = Setup::new(&yaml)?.workers(1).level("warn").start()?;
    let cases = cases::all();
    ensure!(cases.len() >= CASES_MIN, "only {} cases", cases.len());
    let mut faults = vec![];
    println!("| case | reaction | upstream saw |\n|---|---|---|");
    for case in &cases {
        match run(&gateway, &upstream, case) {
            Ok((end, seen)) => {
                println!("| {} | {end:?} | {} |", case.name, shown(&seen));
                if let Some(why) = fault(case, end, &seen) {
                    faults.push(format!("{}: {end:?}, upstream saw {}: {why}", case.name, shown(&seen)));
                }
            }
            Err(error) => faults.push(format!("{}: {error:#}", case.name)),
        }
    }
    println!("{} cases, {} failed", cases.len(), faults.len());
    ensure!(faults.is_empty(), "{} of {} cases failed:\n{}", faults.len(), cases.len(), faults.join("\n"));
    Ok(())
}

// The parser itself must find fault, or a clean result would mean nothing.
#[test]
fn the_strict_parser_is_strict() {
    for bytes in [
        "GET / HTTP/1.1\r\nhost: a\r\nx: 1\nb: 2\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\ncontent_length: 1\r\n\r\n",
        "GET /a b HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nte: gzip\r\n\r\n",
    ] {
        assert!(matches!(strict::request(bytes.as_bytes()), strict::Parsed::Bad(_)), "{bytes:?}");
    }
}
