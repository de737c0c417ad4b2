//! Floods: each is cut or costs a bounded amount, while a neighbour on the same thread is served.
//!
//! Frames that no honest client sends by the thousand end the connection. What an honest client may do (many requests, small chunks) is held
//! by back-pressure instead.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use harness::frames::{End, Frames, block, flag, frame, get, headers, kind, settings};
use harness::{Gateway, Upstream};

use super::beside::{Beside, GROWTH_MAX, HEAD};
use super::pour::{self, POUR_MAX, Poured};

type Attack = fn(&Gateway) -> Result<String>;

const ATTACKS: &[(&str, Attack)] = &[
    ("rapid reset", rapid_reset),
    ("rapid reset, one at a time", patient_reset),
    ("RST_STREAM on closed streams", late_resets),
    ("CONTINUATION with fields", continuation_full),
    ("CONTINUATION, empty", continuation_empty),
    ("HPACK bomb", hpack_bomb),
    ("PING", ping),
    ("PING, answers not read", ping_unread),
    ("SETTINGS", settings_flood),
    ("SETTINGS, answers not read", settings_unread),
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
    ("h1: pipelining, answers not read", pipelining),
    ("h1: chunks of one byte", tiny_chunks),
    ("h1: chunk extension without end", chunk_extension),
    ("h1: fields without end", endless_fields),
    ("h1: trailers without end", endless_trailers),
    ("h1: request line without end", endless_line),
];

#[test]
fn a_flood_is_cut_or_bounded() -> Result<()> {
    super::slow::many_files()?;
    let _alone = super::ALONE.lock();
    let upstream = Upstream::start()?;
    let gateway = super::gateway(&upstream)?;
    let mut faults = vec![];
    println!("{HEAD}");
    for (name, attack) in ATTACKS {
        let beside = Beside::begin(&gateway)?;
        let outcome = attack(&gateway);
        let felt = beside.end(&gateway).with_context(|| (*name).to_owned());
        match (outcome, felt) {
            (Ok(outcome), Ok(felt)) => {
                println!("{}", felt.line(name, &outcome));
                if felt.growth > GROWTH_MAX {
                    faults.push(format!("{name}: memory grew by {} KiB", felt.growth >> 10));
                }
                if felt.took > POUR_MAX + Duration::from_secs(1) {
                    faults.push(format!("{name}: went on for {:?}", felt.took));
                }
            }
            (Err(error), felt) => {
                println!(
                    "{}",
                    felt.map_or_else(|error| format!("| {name} | {error:#} |"), |felt| felt.line(name, "FAILED"))
                );
                faults.push(format!("{name}: {error:#}"));
            }
            (_, Err(error)) => faults.push(format!("{error:#}")),
        }
    }
    harness::wait_until("nothing is in flight", || gateway.metric("witgate_in_flight").is_ok_and(|n| n == 0.0));
    ensure!(faults.is_empty(), "{} of {} floods were not held:\n{}", faults.len(), ATTACKS.len(), faults.join("\n"));
    Ok(())
}

/// The flood must have ended the connection.
fn cut(poured: &Poured) -> Result<String> {
    ensure!(!matches!(poured.end, End::Open | End::Status(_)), "goes on without end: {}", poured.shown());
    Ok(poured.shown())
}

/// The same frame for ever, a hundred at a time.
fn repeat(gateway: &Gateway, opening: &[u8], one: &[u8]) -> Result<String> {
    let many = one.repeat(100);
    cut(&pour::frames(Frames::connect(gateway.address)?, opening, |_| Some(many.clone()))?)
}

/// A request that is in flight meanwhile: the connection is not idle, so no deadline does the work of a limit.
fn busy() -> Vec<u8> {
    headers(1, &get("/delay/8000"), true)
}

/// The same without reading what comes back: until the gateway closes, or blocks and then closes.
fn repeat_unread(gateway: &Gateway, one: &[u8]) -> Result<String> {
    let mut frames = Frames::connect(gateway.address)?;
    frames.send(&busy())?;
    let many = one.repeat(100);
    let poured = pour::bytes(frames.socket().try_clone()?, false, |_| Some(many.clone()))?;
    cut(&poured)
}

fn reset(stream: u32) -> Vec<u8> {
    frame(kind::RST_STREAM, 0, stream, &8_u32.to_be_bytes())
}

fn rapid_reset(gateway: &Gateway) -> Result<String> {
    let request = get("/delay/200");
    let poured = pour::frames(Frames::connect(gateway.address)?, b"", |n| {
        let streams = (0..50).map(|at| 2 * (50 * n + at) + 1);
        Some(streams.flat_map(|stream| [headers(stream, &request, true), reset(stream)].concat()).collect())
    })?;
    cut(&poured)
}

fn patient_reset(gateway: &Gateway) -> Result<String> {
    let request = get("/delay/200");
    let poured = pour::frames(Frames::connect(gateway.address)?, b"", |n| {
        std::thread::sleep(Duration::from_micros(500));
        let stream = n / 2 * 2 + 1;
        Some(if n % 2 == 0 { headers(stream, &request, true) } else { reset(stream) })
    })?;
    cut(&poured)
}

fn late_resets(gateway: &Gateway) -> Result<String> {
    repeat(gateway, &[headers(1, &get("/"), true), reset(1)].concat(), &reset(1))
}

fn continuation_full(gateway: &Gateway) -> Result<String> {
    let opening = frame(kind::HEADERS, flag::END_STREAM, 1, &get("/"));
    let fields = frame(kind::CONTINUATION, 0, 1, &block([("x-a", "v".repeat(8000).as_str())]));
    let poured = pour::frames(Frames::connect(gateway.address)?, &opening, |_| Some(fields.clone()))?;
    cut(&poured)
}

fn continuation_empty(gateway: &Gateway) -> Result<String> {
    let opening = frame(kind::HEADERS, flag::END_STREAM, 1, &get("/"));
    repeat(gateway, &opening, &frame(kind::CONTINUATION, 0, 1, b""))
}

/// One entry of 3000 bytes in the table, named again by one byte each: 16 KiB become 45 MiB. Whole requests, so the answer is what bounds it.
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
        ensure!(end.is_refusal(), "request {n} of a bomb: {end:?}");
        if matches!(end, End::GoAway(_) | End::Closed) {
            break;
        }
    }
    Ok(format!("{:?} ({} requests)", ends[0], ends.len()))
}

fn ping(gateway: &Gateway) -> Result<String> {
    repeat(gateway, &busy(), &frame(kind::PING, 0, 0, b"12345678"))
}

fn ping_unread(gateway: &Gateway) -> Result<String> {
    repeat_unread(gateway, &frame(kind::PING, 0, 0, b"12345678"))
}

fn settings_flood(gateway: &Gateway) -> Result<String> {
    repeat(gateway, &busy(), &settings(&[(3, 100)]))
}

fn settings_unread(gateway: &Gateway) -> Result<String> {
    repeat_unread(gateway, &settings(&[]))
}

fn priority(gateway: &Gateway) -> Result<String> {
    repeat(gateway, &busy(), &frame(kind::PRIORITY, 0, 3, &[0, 0, 0, 1, 16]))
}

fn window_update(gateway: &Gateway) -> Result<String> {
    repeat(gateway, &busy(), &frame(kind::WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes()))
}

fn stream_window_update(gateway: &Gateway) -> Result<String> {
    repeat(gateway, &busy(), &frame(kind::WINDOW_UPDATE, 0, 1, &1_u32.to_be_bytes()))
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
    // Windows hold it up where nothing is given back; the body's minimum rate ends it otherwise.
    let poured = pour::frames(Frames::connect(gateway.address)?, &opening, |_| Some(one.repeat(20)))?;
    cut(&poured)
}

fn unknown(gateway: &Gateway) -> Result<String> {
    repeat(gateway, &busy(), &frame(0xfa, 0, 0, b"what is it"))
}

/// As many responses as streams are allowed, none of which the client's window lets through.
fn zero_window(gateway: &Gateway) -> Result<String> {
    let mut frames = Frames::with(gateway.address, &[(1, 0), (4, 0)])?;
    let requests: Vec<u8> = (0..90).flat_map(|n| headers(2 * n + 1, &get("/bytes/3000000"), true)).collect();
    frames.send(&requests)?;
    let end = frames.end(1, POUR_MAX)?;
    // A status alone may be here: the body must not be kept for ever.
    ensure!(!matches!(end, End::Open | End::Status(_)), "the stream is kept: {end:?}");
    Ok(format!("{end:?}"))
}

/// Sends this and nothing more, not even the acknowledgement of the gateway's SETTINGS.
fn closes(gateway: &Gateway, bytes: &[u8]) -> Result<String> {
    let mut frames = Frames::bare(gateway.address)?;
    frames.send(bytes)?;
    let began = Instant::now();
    while frames.read(began + POUR_MAX).context("still open")?.is_some() {}
    Ok(format!("closed after {:.1} s", began.elapsed().as_secs_f64()))
}

fn half_headers(gateway: &Gateway) -> Result<String> {
    let half = frame(kind::HEADERS, flag::END_STREAM, 1, &get("/"));
    closes(gateway, &[harness::frames::PREFACE, &settings(&[]), &half].concat())
}

fn preface_only(gateway: &Gateway) -> Result<String> {
    closes(gateway, harness::frames::PREFACE)
}

fn nothing(gateway: &Gateway) -> Result<String> {
    closes(gateway, b"")
}

fn pipelining(gateway: &Gateway) -> Result<String> {
    let many = b"GET /bytes/10000 HTTP/1.1\r\nhost: test\r\n\r\n".repeat(200);
    let poured = pour::bytes(TcpStream::connect(gateway.address)?, false, |_| Some(many.clone()))?;
    cut(&poured)
}

fn chunked(gateway: &Gateway, piece: impl FnMut(u32) -> Option<Vec<u8>>) -> Result<Poured> {
    let mut stream = TcpStream::connect(gateway.address)?;
    let head = b"POST /length HTTP/1.1\r\nhost: test\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n";
    std::io::Write::write_all(&mut stream, head)?;
    pour::bytes(stream, true, piece)
}

/// Honest, if odd: 300,000 chunks must arrive, in bounded memory.
fn tiny_chunks(gateway: &Gateway) -> Result<String> {
    let poured = chunked(gateway, |n| match n {
        0..300 => Some(b"1\r\nx\r\n".repeat(1000)),
        300 => Some(b"0\r\n\r\n".to_vec()),
        _ => None,
    })?;
    let back = String::from_utf8_lossy(&poured.back);
    ensure!(back.ends_with("300000") || back.contains(" 4"), "{}: {back:.200}", poured.shown());
    Ok(format!("{:.15}, {}", back, poured.shown()))
}

/// The gateway must answer with a refusal, or close, long before the flood is over.
fn refused(poured: &Poured) -> Result<String> {
    let back = String::from_utf8_lossy(&poured.back);
    ensure!(poured.end == End::Closed, "goes on without end: {}", poured.shown());
    ensure!(back.is_empty() || back.starts_with("HTTP/1.1 4"), "{back:.100}");
    Ok(format!("{:.12}, {}", back, poured.shown()))
}

fn chunk_extension(gateway: &Gateway) -> Result<String> {
    refused(&chunked(gateway, |n| Some(if n == 0 { b"1;".to_vec() } else { vec![b'e'; 10_000] }))?)
}

fn endless_trailers(gateway: &Gateway) -> Result<String> {
    refused(&chunked(gateway, |n| Some(if n == 0 { b"0\r\n".to_vec() } else { b"x-a: 1\r\n".repeat(1000) }))?)
}

fn endless(gateway: &Gateway, first: &str, more: &str) -> Result<String> {
    let more = more.repeat(1000);
    refused(&pour::bytes(TcpStream::connect(gateway.address)?, true, |n| {
        Some(if n == 0 { first } else { &more }.into())
    })?)
}

fn endless_fields(gateway: &Gateway) -> Result<String> {
    endless(gateway, "GET / HTTP/1.1\r\nhost: test\r\n", "x-a: 1\r\n")
}

fn endless_line(gateway: &Gateway) -> Result<String> {
    endless(gateway, "GET /", "aaaaaaaaaa")
}
