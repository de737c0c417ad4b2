//! Connections to upstreams that are kept: what one answer left behind must never reach the next request; what was not answered is tried again only if that is safe.

use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use harness::{Gateway, Setup, wait_until};

use super::wire::{Peer, Wire};

/// A gateway with one thread, so that the second request meets the first one's connection.
fn behind(peer: &Peer) -> Result<Gateway> {
    let yaml = format!(
        "timeouts: {{filters: 50ms}}\nupstreams: {{u: {{endpoints: [\"http://{}\"], timeout: 2s}}}}\nroutes: [{{upstream: u}}]",
        peer.address
    );
    Setup::new(&yaml)?.workers(1).level("error").start()
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// The first request's method, the answer to it with too many bytes, and the body that its client must see.
const LEFTOVERS: &[(&str, &str, &str, u16, &str)] = &[
    (
        "body longer than its length",
        "GET",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison",
        200,
        "hello",
    ),
    ("garbage behind the body", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello, and more", 200, "hello"),
    (
        "an answer behind the last chunk",
        "GET",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison",
        200,
        "hello",
    ),
    (
        "an answer behind length 0",
        "GET",
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison",
        200,
        "",
    ),
    (
        "HEAD with body",
        "HEAD",
        "HTTP/1.1 200 OK\r\nContent-Length: 45\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison",
        200,
        "",
    ),
    (
        "HEAD with chunks",
        "HEAD",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        200,
        "",
    ),
    (
        "204 with body",
        "GET",
        "HTTP/1.1 204 No Content\r\nContent-Length: 45\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison",
        204,
        "",
    ),
    (
        "204 with chunks",
        "GET",
        "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        204,
        "",
    ),
    ("204 with body and no length", "GET", "HTTP/1.1 204 No Content\r\n\r\nhello", 204, ""),
    (
        "304 with body",
        "GET",
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 45\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison",
        304,
        "",
    ),
    (
        "two answers at once, close",
        "GET",
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison",
        200,
        "hello",
    ),
];

#[test]
fn what_an_answer_leaves_behind_reaches_nobody() -> Result<()> {
    for (name, method, answer, status, body) in LEFTOVERS {
        let peer = Peer::start(move |wire| {
            let first = wire.number == 1;
            for request in 0.. {
                wire.request()?;
                wire.send(if first && request == 0 { (*answer).to_owned() } else { ok("second") })?;
            }
            Ok(())
        })?;
        let gateway = behind(&peer)?;
        let mut client = Wire::connect(gateway.address)?;
        client.send(format!("{method} / HTTP/1.1\r\nHost: t.test\r\n\r\n"))?;
        let got = client.response(method)?;
        // A 204 or 304 with a body may be refused as a whole.
        if status < &204 || got.status() != 502 {
            ensure!((got.status(), &got.body[..]) == (*status, body.as_bytes()), "{name}: {got:?}");
        }
        for _ in 0..3 {
            let mut client = Wire::connect(gateway.address)?;
            client.send("GET / HTTP/1.1\r\nHost: t.test\r\n\r\n")?;
            let got = client.response("GET")?;
            ensure!(got.status() == 200 && got.body == b"second", "{name}: the next client got {got:?}");
        }
    }
    Ok(())
}

#[test]
fn an_answer_to_nobody_closes_the_connection() -> Result<()> {
    // An idle connection says 408 and closes, as some servers do: that is nobody's answer.
    let peer = Peer::start(|wire| {
        wire.request()?;
        wire.send(ok("first"))?;
        if wire.number == 1 {
            return wire.send("HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
        wire.until_closed(Duration::from_secs(10)).map(drop)
    })?;
    let gateway = behind(&peer)?;
    for _ in 0..2 {
        let got = gateway.get("/", &[])?;
        ensure!((got.status, got.text().as_str()) == (200, "first"), "{got:?}");
    }
    Ok(())
}

/// The second request of the first connection is read and not answered, or not even read: the connection closes. `seen` counts requests, and then the close.
fn closing_when_reused(seen: &Arc<AtomicUsize>, read: bool) -> Result<Peer> {
    let seen = seen.clone();
    Peer::start(move |wire| {
        for request in 0.. {
            if wire.number == 1 && request == 1 {
                if read {
                    wire.request()?;
                } else {
                    wire.stream.shutdown(Shutdown::Both)?;
                }
                seen.fetch_add(1, Ordering::Relaxed);
                return Ok(());
            }
            wire.request()?;
            seen.fetch_add(1, Ordering::Relaxed);
            wire.send(ok("answer"))?;
        }
        Ok(())
    })
}

#[test]
fn a_kept_connection_that_closes_is_replaced() -> Result<()> {
    for method in ["GET", "PUT", "POST"] {
        let seen: Arc<AtomicUsize> = Arc::default();
        let peer = closing_when_reused(&seen, false)?;
        let gateway = behind(&peer)?;
        let mut client = gateway.client()?;
        for _ in 0..5 {
            let body: &[u8] = if method == "GET" { b"" } else { b"body" };
            let got = client.send(method, "/", &[], body)?;
            // A request that was written to a closing connection is only safe to repeat if it is idempotent (RFC 9110, section 9.2.2).
            ensure!(got.status == 200 || (method == "POST" && got.status == 502), "{method}: {got:?}");
            // Closed, not closing: a body that passes by exists once, so PUT could not be repeated either.
            wait_until("the first connection is closed", || seen.load(Ordering::Relaxed) >= 2);
        }
    }
    Ok(())
}

#[test]
fn a_request_that_was_read_and_not_answered_is_repeated_only_if_idempotent() -> Result<()> {
    for (method, status) in [("GET", 200), ("POST", 502)] {
        let seen = Arc::default();
        let peer = closing_when_reused(&seen, true)?;
        let gateway = behind(&peer)?;
        let mut client = gateway.client()?;
        let body: &[u8] = if method == "GET" { b"" } else { b"body" };
        client.send(method, "/", &[], body)?;
        let got = client.send(method, "/", &[], body)?;
        ensure!(got.status == status, "{method}: {got:?}");
        let (requests, expected) = (seen.load(Ordering::Relaxed), if method == "GET" { 3 } else { 2 });
        ensure!(requests == expected, "{method}: the upstream saw {requests} requests");
    }
    Ok(())
}

#[test]
fn an_answer_before_the_body_was_read_is_passed_on() -> Result<()> {
    // The upstream answers after the head and reads no more: with close, with a reset, and keeping the connection.
    for (name, close) in [("close", true), ("keep", false)] {
        let peer = Peer::start(move |wire| {
            wire.head()?;
            let connection = if close { "Connection: close\r\n" } else { "" };
            wire.send(format!("HTTP/1.1 413 Content Too Large\r\n{connection}Content-Length: 4\r\n\r\nmuch"))?;
            if close { Ok(()) } else { wire.until_closed(Duration::from_secs(10)).map(drop) }
        })?;
        let gateway = behind(&peer)?;
        let mut client = Wire::connect(gateway.address)?;
        client.send("POST / HTTP/1.1\r\nHost: t.test\r\nContent-Length: 1000000\r\n\r\n")?;
        client.send(vec![b'x'; 100_000])?;
        let got = client.response("POST")?;
        ensure!((got.status(), &got.body[..]) == (413, b"much"), "{name}: {got:?}");
        ensure!(gateway.get("/", &[])?.status == 413, "{name}: the next request");
    }
    Ok(())
}

#[test]
fn a_clients_faults_are_not_held_against_an_endpoint() -> Result<()> {
    let answering = || {
        Peer::start(|wire| {
            loop {
                wire.request()?;
                wire.send(ok(&wire.stream.local_addr()?.to_string()))?;
            }
        })
    };
    let peers = [answering()?, answering()?];
    let yaml = format!(
        "timeouts: {{filters: 50ms, request_body: 100ms}}\nupstreams: {{u: {{endpoints: [\"http://{}\", \"http://{}\"], timeout: 2s, outlier: {{failures: 2, eject: 1m, max_ejected_percent: 50}}}}}}\nroutes: [{{upstream: u}}]",
        peers[0].address, peers[1].address
    );
    let gateway = Setup::new(&yaml)?.workers(1).level("error").start()?;
    let head = "POST / HTTP/1.1\r\nHost: t.test\r\n";
    for _ in 0..6 {
        // A broken chunk, a body that stops, and a client that goes in the middle of one.
        for rest in ["Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nx\r\n", "Content-Length: 100\r\n\r\nhello"] {
            let mut client = Wire::connect(gateway.address)?;
            client.send([head, rest].concat())?;
            ensure!(matches!(client.response("POST")?.status(), 400 | 408));
        }
        let mut client = Wire::connect(gateway.address)?;
        client.send([head, "Content-Length: 100\r\n\r\nhello"].concat())?;
    }
    let answers: Vec<String> = (0..8).map(|_| Ok(gateway.get("/", &[])?.text())).collect::<Result<_>>()?;
    for peer in &peers {
        ensure!(answers.contains(&peer.address.to_string()), "{} was ejected: {answers:?}", peer.address);
    }
    Ok(())
}

#[test]
fn a_client_that_goes_takes_the_upstream_exchange_with_it() -> Result<()> {
    const LIMIT: Duration = Duration::from_millis(100);
    let answers: [(&str, &str); 3] = [
        ("before the head", ""),
        ("within the body", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello"),
        ("within chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"),
    ];
    for (name, answer) in answers {
        let (gone, noticed) = (std::sync::mpsc::channel::<Instant>(), std::sync::mpsc::channel::<Instant>());
        let noticed_by = std::sync::Mutex::new(noticed.0);
        let peer = Peer::start(move |wire| {
            wire.request()?;
            wire.send(answer)?;
            wire.until_closed(Duration::from_secs(10))?;
            let at = Instant::now();
            noticed_by.lock().map(|sender| sender.send(at).is_ok()).ok();
            Ok(())
        })?;
        let gateway = behind(&peer)?;
        let mut client = Wire::connect(gateway.address)?;
        client.send("GET / HTTP/1.1\r\nHost: t.test\r\n\r\n")?;
        harness::wait_until("the upstream has it", || {
            gateway.metric("witgate_in_flight").is_ok_and(|n| n == 1.0) && peer.connections() == 1
        });
        if !answer.is_empty() {
            while !client.bytes.windows(5).any(|five| five == b"hello") {
                client.fill(Duration::from_secs(5))?;
            }
        }
        drop(client);
        gone.0.send(Instant::now())?;
        let took = noticed.1.recv_timeout(Duration::from_secs(5))?.duration_since(gone.1.recv()?);
        println!("client gone {name}: upstream cancelled after {took:?}");
        ensure!(took < LIMIT, "{name}: the upstream's connection ended {took:?} after the client's");
        harness::wait_until("nothing is in flight", || gateway.metric("witgate_in_flight").is_ok_and(|n| n == 0.0));
    }
    Ok(())
}
