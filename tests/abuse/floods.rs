//! Floods: the gateway ends each of them or bounds its cost, and serves normal traffic meanwhile.
//!
//! Frames that no honest client sends by the thousand end the connection. Back-pressure limits what
//! an honest client may do: many requests, small chunks.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use harness::frames::{End, Frames, block, flag, frame, get, headers, kind, settings};
use harness::{Gateway, Upstream};

use super::flood_writer::{self, FLOOD_MAX, FloodResult};
use super::measure::{GROWTH_MAX, HEAD, Measurement};

/// Runs a flood. Returns its outcome for the table, or an error if the gateway did not limit it.
type Attack = fn(&Gateway) -> Result<String>;

const ATTACKS: &[(&str, Attack)] = &[
    ("rapid reset", rapid_reset),
    ("rapid reset, one at a time", slow_reset),
    ("RST_STREAM on closed streams", late_resets),
    ("CONTINUATION with fields", continuation_full),
    ("CONTINUATION, empty", continuation_empty),
    ("HPACK bomb", hpack_bomb),
    ("PING", ping),
    ("PING, responses not read", ping_unread),
    ("SETTINGS", settings_flood),
    ("SETTINGS, responses not read", settings_unread),
    ("PRIORITY", priority),
    ("WINDOW_UPDATE of the connection", window_update),
    ("WINDOW_UPDATE of a stream", stream_window_update),
    ("empty DATA", empty_data),
    ("padding without DATA", padding),
    ("unknown frames", unknown),
    ("zero window, many responses", zero_window),
    ("half HEADERS", half_headers),
    ("preface only", preface_only),
    ("nothing at all", nothing),
    ("h1: pipelining, responses not read", pipelining),
    ("h1: chunks of one byte", tiny_chunks),
    ("h1: chunk extension without end", chunk_extension),
    ("h1: fields without end", endless_fields),
    ("h1: trailers without end", endless_trailers),
    ("h1: request line without end", endless_line),
];

#[test]
fn floods_are_ended_or_bounded() -> Result<()> {
    super::slow::raise_file_limit()?;
    let _measuring = super::MEASURING.lock();
    let upstream = Upstream::start()?;
    let gateway = super::gateway(&upstream)?;
    let mut faults = vec![];
    println!("{HEAD}");
    for (name, attack) in ATTACKS {
        let measurement = Measurement::begin(&gateway)?;
        let outcome = attack(&gateway);
        let impact = measurement.end(&gateway).with_context(|| (*name).to_owned());
        match (outcome, impact) {
            (Ok(outcome), Ok(impact)) => {
                println!("{}", impact.row(name, &outcome));
                if impact.growth > GROWTH_MAX {
                    faults.push(format!("{name}: memory grew by {} KiB", impact.growth >> 10));
                }
                if impact.took > FLOOD_MAX + Duration::from_secs(1) {
                    faults.push(format!("{name}: lasted {:?}", impact.took));
                }
            }
            (Err(error), impact) => {
                println!(
                    "{}",
                    impact.map_or_else(|error| format!("| {name} | {error:#} |"), |impact| impact.row(name, "FAILED"))
                );
                faults.push(format!("{name}: {error:#}"));
            }
            (_, Err(error)) => faults.push(format!("{error:#}")),
        }
    }
    harness::wait_until("nothing is in flight", || gateway.metric("witgate_in_flight").is_ok_and(|n| n == 0.0));
    ensure!(
        faults.is_empty(),
        "the gateway did not limit {} of {} floods:\n{}",
        faults.len(),
        ATTACKS.len(),
        faults.join("\n")
    );
    Ok(())
}

/// Requires that the gateway ended the connection.
fn must_end(result: &FloodResult) -> Result<String> {
    ensure!(
        !matches!(result.end, End::Open | End::Status(_)),
        "the gateway did not end the flood: {}",
        result.summary()
    );
    Ok(result.summary())
}

/// Repeats a frame, a hundred at a time, and reads the responses.
fn repeat(gateway: &Gateway, opening: &[u8], frame: &[u8]) -> Result<String> {
    let many = frame.repeat(100);
    must_end(&flood_writer::frames(Frames::connect(gateway.address)?, opening, |_| Some(many.clone()))?)
}

/// A request that stays in flight, so that the connection is not idle and no idle timeout ends the
/// flood in place of its limit.
fn slow_request() -> Vec<u8> {
    headers(1, &get("/delay/8000"), true)
}

/// The same without reading the responses.
fn repeat_unread(gateway: &Gateway, frame: &[u8]) -> Result<String> {
    let mut frames = Frames::connect(gateway.address)?;
    frames.send(&slow_request())?;
    let many = frame.repeat(100);
    let result = flood_writer::bytes(frames.socket().try_clone()?, false, |_| Some(many.clone()))?;
    must_end(&result)
}

/// RST_STREAM with CANCEL.
fn reset(stream: u32) -> Vec<u8> {
    frame(kind::RST_STREAM, 0, stream, &8_u32.to_be_bytes())
}

fn rapid_reset(gateway: &Gateway) -> Result<String> {
    let request = get("/delay/200");
    let result = flood_writer::frames(Frames::connect(gateway.address)?, b"", |n| {
        let streams = (0..50).map(|at| 2 * (50 * n + at) + 1);
        Some(streams.flat_map(|stream| [headers(stream, &request, true), reset(stream)].concat()).collect())
    })?;
    must_end(&result)
}

fn slow_reset(gateway: &Gateway) -> Result<String> {
    let request = get("/delay/200");
    let result = flood_writer::frames(Frames::connect(gateway.address)?, b"", |n| {
        std::thread::sleep(Duration::from_micros(500));
        let stream = n / 2 * 2 + 1;
        Some(if n % 2 == 0 { headers(stream, &request, true) } else { reset(stream) })
    })?;
    must_end(&result)
}

fn late_resets(gateway: &Gateway) -> Result<String> {
    repeat(gateway, &[headers(1, &get("/"), true), reset(1)].concat(), &reset(1))
}

fn continuation_full(gateway: &Gateway) -> Result<String> {
    let opening = frame(kind::HEADERS, flag::END_STREAM, 1, &get("/"));
    let fields = frame(kind::CONTINUATION, 0, 1, &block([("x-a", "v".repeat(8000).as_str())]));
    let result = flood_writer::frames(Frames::connect(gateway.address)?, &opening, |_| Some(fields.clone()))?;
    must_end(&result)
}

fn continuation_empty(gateway: &Gateway) -> Result<String> {
    let opening = frame(kind::HEADERS, flag::END_STREAM, 1, &get("/"));
    repeat(gateway, &opening, &frame(kind::CONTINUATION, 0, 1, b""))
}

/// Adds one entry of 3,000 bytes to the dynamic table and references it with one byte each, so that
/// 12 KB expand to 36 MB. The requests are complete, so the gateway can refuse each with a
/// response.
fn hpack_bomb(gateway: &Gateway) -> Result<String> {
    // A literal with incremental indexing: 0x40, name, value.
    let mut entry = block([("x-bomb", "v".repeat(3000).as_str())]);
    entry[0] = 0x40;
    let bomb = [get("/"), entry, vec![0xbe; 12_000]].concat();
    let mut frames = Frames::connect(gateway.address)?;
    let mut ends = vec![];
    for n in 0..20 {
        if frames.send(&headers(2 * n + 1, &bomb, true)).is_err() {
            break;
        }
        let end = frames.end(2 * n + 1, Duration::from_secs(2))?;
        ends.push(end);
        ensure!(end.is_refusal(), "request {n} was not refused: {end:?}");
        if matches!(end, End::GoAway(_) | End::Closed) {
            break;
        }
    }
    Ok(format!("{:?} ({} requests)", ends[0], ends.len()))
}

fn ping(gateway: &Gateway) -> Result<String> {
    repeat(gateway, &slow_request(), &frame(kind::PING, 0, 0, b"12345678"))
}

fn ping_unread(gateway: &Gateway) -> Result<String> {
    repeat_unread(gateway, &frame(kind::PING, 0, 0, b"12345678"))
}

fn settings_flood(gateway: &Gateway) -> Result<String> {
    repeat(gateway, &slow_request(), &settings(&[(3, 100)]))
}

fn settings_unread(gateway: &Gateway) -> Result<String> {
    repeat_unread(gateway, &settings(&[]))
}

fn priority(gateway: &Gateway) -> Result<String> {
    repeat(gateway, &slow_request(), &frame(kind::PRIORITY, 0, 3, &[0, 0, 0, 1, 16]))
}

fn window_update(gateway: &Gateway) -> Result<String> {
    repeat(gateway, &slow_request(), &frame(kind::WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes()))
}

fn stream_window_update(gateway: &Gateway) -> Result<String> {
    repeat(gateway, &slow_request(), &frame(kind::WINDOW_UPDATE, 0, 1, &1_u32.to_be_bytes()))
}

fn post(path: &str) -> Vec<u8> {
    block([(":method", "POST"), (":scheme", "http"), (":authority", "test"), (":path", path)])
}

fn empty_data(gateway: &Gateway) -> Result<String> {
    repeat(gateway, &headers(1, &post("/length"), false), &frame(kind::DATA, 0, 1, b""))
}

fn padding(gateway: &Gateway) -> Result<String> {
    let padded = [&[255_u8][..], &[0; 255]].concat();
    let (opening, one) = (headers(1, &post("/length"), false), frame(kind::DATA, flag::PADDED, 1, &padded));
    // Either flow control stops the flood, or the minimum rate of the body ends it.
    let result = flood_writer::frames(Frames::connect(gateway.address)?, &opening, |_| Some(one.repeat(20)))?;
    must_end(&result)
}

fn unknown(gateway: &Gateway) -> Result<String> {
    repeat(gateway, &slow_request(), &frame(0xfa, 0, 0, b"unknown"))
}

/// Requests many large responses with a window of zero, so that the gateway may send no body.
fn zero_window(gateway: &Gateway) -> Result<String> {
    let mut frames = Frames::with_settings(gateway.address, &[(1, 0), (4, 0)])?;
    let requests: Vec<u8> = (0..90).flat_map(|n| headers(2 * n + 1, &get("/bytes/3000000"), true)).collect();
    frames.send(&requests)?;
    let end = frames.end(1, FLOOD_MAX)?;
    // The status may arrive, but the gateway must not keep the body for ever.
    ensure!(!matches!(end, End::Open | End::Status(_)), "the gateway keeps the stream: {end:?}");
    Ok(format!("{end:?}"))
}

/// Sends these bytes and nothing more, not even an acknowledgement of SETTINGS. The gateway must
/// close.
fn must_close_after(gateway: &Gateway, bytes: &[u8]) -> Result<String> {
    let mut frames = Frames::without_preface(gateway.address)?;
    frames.send(bytes)?;
    let began = Instant::now();
    while frames.read(began + FLOOD_MAX).context("the connection is still open")?.is_some() {}
    Ok(format!("closed after {:.1} s", began.elapsed().as_secs_f64()))
}

fn half_headers(gateway: &Gateway) -> Result<String> {
    let half = frame(kind::HEADERS, flag::END_STREAM, 1, &get("/"));
    must_close_after(gateway, &[harness::frames::PREFACE, &settings(&[]), &half].concat())
}

fn preface_only(gateway: &Gateway) -> Result<String> {
    must_close_after(gateway, harness::frames::PREFACE)
}

fn nothing(gateway: &Gateway) -> Result<String> {
    must_close_after(gateway, b"")
}

fn pipelining(gateway: &Gateway) -> Result<String> {
    let many = b"GET /bytes/10000 HTTP/1.1\r\nhost: test\r\n\r\n".repeat(200);
    let result = flood_writer::bytes(TcpStream::connect(gateway.address)?, false, |_| Some(many.clone()))?;
    must_end(&result)
}

/// Floods the chunked body of a POST request.
fn chunked(gateway: &Gateway, chunk: impl FnMut(u32) -> Option<Vec<u8>>) -> Result<FloodResult> {
    let mut stream = TcpStream::connect(gateway.address)?;
    let head = b"POST /length HTTP/1.1\r\nhost: test\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n";
    std::io::Write::write_all(&mut stream, head)?;
    flood_writer::bytes(stream, true, chunk)
}

/// Unusual but valid: all 300,000 chunks must arrive, in bounded memory.
fn tiny_chunks(gateway: &Gateway) -> Result<String> {
    let result = chunked(gateway, |n| match n {
        0..300 => Some(b"1\r\nx\r\n".repeat(1000)),
        300 => Some(b"0\r\n\r\n".to_vec()),
        _ => None,
    })?;
    let received = String::from_utf8_lossy(&result.received);
    ensure!(received.ends_with("300000") || received.contains(" 4"), "{}: {received:.200}", result.summary());
    Ok(format!("{:.15}, {}", received, result.summary()))
}

/// Requires that the gateway refused with a 4xx, or closed, before the end of the flood.
fn must_refuse(result: &FloodResult) -> Result<String> {
    let received = String::from_utf8_lossy(&result.received);
    ensure!(result.end == End::Closed, "the gateway did not end the flood: {}", result.summary());
    ensure!(received.is_empty() || received.starts_with("HTTP/1.1 4"), "{received:.100}");
    Ok(format!("{:.12}, {}", received, result.summary()))
}

fn chunk_extension(gateway: &Gateway) -> Result<String> {
    must_refuse(&chunked(gateway, |n| Some(if n == 0 { b"1;".to_vec() } else { vec![b'e'; 10_000] }))?)
}

fn endless_trailers(gateway: &Gateway) -> Result<String> {
    must_refuse(&chunked(gateway, |n| Some(if n == 0 { b"0\r\n".to_vec() } else { b"x-a: 1\r\n".repeat(1000) }))?)
}

/// A head that begins with `first` and continues with `more` without an end.
fn endless(gateway: &Gateway, first: &str, more: &str) -> Result<String> {
    let more = more.repeat(1000);
    must_refuse(&flood_writer::bytes(TcpStream::connect(gateway.address)?, true, |n| {
        Some(if n == 0 { first } else { &more }.into())
    })?)
}

fn endless_fields(gateway: &Gateway) -> Result<String> {
    endless(gateway, "GET / HTTP/1.1\r\nhost: test\r\n", "x-a: 1\r\n")
}

fn endless_line(gateway: &Gateway) -> Result<String> {
    endless(gateway, "GET /", "aaaaaaaaaa")
}
