//! Keep-alive connections to upstreams: surplus bytes of a response never reach another request, a
//! request without a response is retried only if that is safe, and a client that disconnects
//! cancels its upstream request.

use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use harness::{Gateway, Setup, wait_until};

use super::raw::{RawConnection, ScriptedUpstream};

/// A gateway with one thread, so that the second request reuses the first one's connection.
fn single_thread_gateway(upstream: &ScriptedUpstream) -> Result<Gateway> {
    let yaml = format!(
        "timeouts: {{filters: 50ms}}\nupstreams: {{u: {{endpoints: [\"http://{}\"], timeout: 2s}}}}\nroutes: [{{upstream: u}}]",
        upstream.address
    );
    Setup::new(&yaml)?.workers(1).level("error").start()
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// Title, the first request's method, a response with surplus bytes, and the status and body that
/// the client must receive.
const SURPLUS: &[(&str, &str, &str, u16, &str)] = &[
    (
        "body longer than Content-Length",
        "GET",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison",
        200,
        "hello",
    ),
    ("garbage after the body", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello, and more", 200, "hello"),
    (
        "a response after the last chunk",
        "GET",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison",
        200,
        "hello",
    ),
    (
        "a response after Content-Length 0",
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
    ("204 with body, without Content-Length", "GET", "HTTP/1.1 204 No Content\r\n\r\nhello", 204, ""),
    (
        "304 with body",
        "GET",
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 45\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison",
        304,
        "",
    ),
    (
        "two responses at once, with close",
        "GET",
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison",
        200,
        "hello",
    ),
];

#[test]
fn surplus_bytes_of_a_response_reach_no_other_request() -> Result<()> {
    for (name, method, response, status, body) in SURPLUS {
        let upstream = ScriptedUpstream::start(move |connection| {
            let first = connection.number == 1;
            for request in 0.. {
                connection.read_request()?;
                connection.send(if first && request == 0 { (*response).to_owned() } else { ok("second") })?;
            }
            Ok(())
        })?;
        let gateway = single_thread_gateway(&upstream)?;
        let mut client = RawConnection::connect(gateway.address)?;
        client.send(format!("{method} / HTTP/1.1\r\nHost: t.test\r\n\r\n"))?;
        let got = client.read_response(method)?;
        // The gateway may refuse a 204 or 304 with a body.
        if status < &204 || got.status() != 502 {
            ensure!((got.status(), &got.body[..]) == (*status, body.as_bytes()), "{name}: {got:?}");
        }
        for _ in 0..3 {
            let mut client = RawConnection::connect(gateway.address)?;
            client.send("GET / HTTP/1.1\r\nHost: t.test\r\n\r\n")?;
            let got = client.read_response("GET")?;
            ensure!(got.status() == 200 && got.body == b"second", "{name}: the next client got {got:?}");
        }
    }
    Ok(())
}

#[test]
fn an_unsolicited_response_closes_the_connection() -> Result<()> {
    // Some servers send a 408 on an idle connection before they close it. It responds to no
    // request.
    let upstream = ScriptedUpstream::start(|connection| {
        connection.read_request()?;
        connection.send(ok("first"))?;
        if connection.number == 1 {
            return connection.send("HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
        connection.wait_closed(Duration::from_secs(10)).map(drop)
    })?;
    let gateway = single_thread_gateway(&upstream)?;
    for _ in 0..2 {
        let got = gateway.get("/", &[])?;
        ensure!((got.status, got.text().as_str()) == (200, "first"), "{got:?}");
    }
    Ok(())
}

/// An upstream that closes its first connection at the second request, after it has read the
/// request or before. `seen` counts the requests, and the close.
fn closing_when_reused(seen: &Arc<AtomicUsize>, read: bool) -> Result<ScriptedUpstream> {
    let seen = seen.clone();
    ScriptedUpstream::start(move |connection| {
        for request in 0.. {
            if connection.number == 1 && request == 1 {
                if read {
                    connection.read_request()?;
                } else {
                    connection.stream.shutdown(Shutdown::Both)?;
                }
                seen.fetch_add(1, Ordering::Relaxed);
                return Ok(());
            }
            connection.read_request()?;
            seen.fetch_add(1, Ordering::Relaxed);
            connection.send(ok("response"))?;
        }
        Ok(())
    })
}

#[test]
fn a_closed_keep_alive_connection_is_replaced() -> Result<()> {
    for method in ["GET", "PUT", "POST"] {
        let seen: Arc<AtomicUsize> = Arc::default();
        let upstream = closing_when_reused(&seen, false)?;
        let gateway = single_thread_gateway(&upstream)?;
        let mut client = gateway.client()?;
        for _ in 0..5 {
            let body: &[u8] = if method == "GET" { b"" } else { b"body" };
            let got = client.send(method, "/", &[], body)?;
            // A request that was written to a closing connection may be retried only if it is
            // idempotent (RFC 9110, section 9.2.2).
            ensure!(got.status == 200 || (method == "POST" && got.status == 502), "{method}: {got:?}");
            // Wait for the close. A streamed body cannot be sent twice, so the gateway could not
            // retry the PUT on a connection that is still closing.
            wait_until("the first connection is closed", || seen.load(Ordering::Relaxed) >= 2);
        }
    }
    Ok(())
}

#[test]
fn a_request_without_a_response_is_retried_only_if_idempotent() -> Result<()> {
    for (method, status) in [("GET", 200), ("POST", 502)] {
        let seen = Arc::default();
        let upstream = closing_when_reused(&seen, true)?;
        let gateway = single_thread_gateway(&upstream)?;
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
fn a_response_before_the_end_of_the_request_body_is_forwarded() -> Result<()> {
    // The upstream responds after the header section and reads no more. It closes the connection or
    // keeps it open.
    for (name, close) in [("close", true), ("keep-alive", false)] {
        let upstream = ScriptedUpstream::start(move |connection| {
            connection.read_request_head()?;
            let close_field = if close { "Connection: close\r\n" } else { "" };
            connection.send(format!("HTTP/1.1 413 Content Too Large\r\n{close_field}Content-Length: 4\r\n\r\nmuch"))?;
            if close { Ok(()) } else { connection.wait_closed(Duration::from_secs(10)).map(drop) }
        })?;
        let gateway = single_thread_gateway(&upstream)?;
        let mut client = RawConnection::connect(gateway.address)?;
        client.send("POST / HTTP/1.1\r\nHost: t.test\r\nContent-Length: 1000000\r\n\r\n")?;
        client.send(vec![b'x'; 100_000])?;
        let got = client.read_response("POST")?;
        ensure!((got.status(), &got.body[..]) == (413, b"much"), "{name}: {got:?}");
        ensure!(gateway.get("/", &[])?.status == 413, "{name}: the next request");
    }
    Ok(())
}

#[test]
fn client_errors_do_not_eject_an_endpoint() -> Result<()> {
    let start = || {
        ScriptedUpstream::start(|connection| {
            loop {
                connection.read_request()?;
                connection.send(ok(&connection.stream.local_addr()?.to_string()))?;
            }
        })
    };
    let peers = [start()?, start()?];
    let yaml = format!(
        "timeouts: {{filters: 50ms, request_body: 100ms}}\nupstreams: {{u: {{endpoints: [\"http://{}\", \"http://{}\"], timeout: 2s, outlier: {{failures: 2, eject: 1m, max_ejected_percent: 50}}}}}}\nroutes: [{{upstream: u}}]",
        peers[0].address, peers[1].address
    );
    let gateway = Setup::new(&yaml)?.workers(1).level("error").start()?;
    let head = "POST / HTTP/1.1\r\nHost: t.test\r\n";
    for _ in 0..6 {
        // An invalid chunk, a body that stops, and a client that disconnects inside the body.
        for rest in ["Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nx\r\n", "Content-Length: 100\r\n\r\nhello"] {
            let mut client = RawConnection::connect(gateway.address)?;
            client.send([head, rest].concat())?;
            ensure!(matches!(client.read_response("POST")?.status(), 400 | 408));
        }
        let mut client = RawConnection::connect(gateway.address)?;
        client.send([head, "Content-Length: 100\r\n\r\nhello"].concat())?;
    }
    let responses: Vec<String> = (0..8).map(|_| Ok(gateway.get("/", &[])?.text())).collect::<Result<_>>()?;
    for upstream in &peers {
        ensure!(responses.contains(&upstream.address.to_string()), "{} was ejected: {responses:?}", upstream.address);
    }
    Ok(())
}

#[test]
fn a_client_disconnect_cancels_the_upstream_request() -> Result<()> {
    const CANCEL_MAX: Duration = Duration::from_millis(100);
    let responses: [(&str, &str); 3] = [
        ("before the header section", ""),
        ("inside the body", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello"),
        ("inside a chunked body", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"),
    ];
    for (name, response) in responses {
        let (sender, closed_at) = std::sync::mpsc::channel::<Instant>();
        let sender = std::sync::Mutex::new(sender);
        let upstream = ScriptedUpstream::start(move |connection| {
            connection.read_request()?;
            connection.send(response)?;
            connection.wait_closed(Duration::from_secs(10))?;
            let at = Instant::now();
            sender.lock().map(|sender| sender.send(at).is_ok()).ok();
            Ok(())
        })?;
        let gateway = single_thread_gateway(&upstream)?;
        let mut client = RawConnection::connect(gateway.address)?;
        client.send("GET / HTTP/1.1\r\nHost: t.test\r\n\r\n")?;
        harness::wait_until("the upstream has the request", || {
            gateway.metric("witgate_in_flight").is_ok_and(|n| n == 1.0) && upstream.connections() == 1
        });
        if !response.is_empty() {
            while !client.bytes.windows(5).any(|five| five == b"hello") {
                client.receive(Duration::from_secs(5))?;
            }
        }
        drop(client);
        let disconnected_at = Instant::now();
        let took = closed_at.recv_timeout(Duration::from_secs(5))?.saturating_duration_since(disconnected_at);
        println!("client disconnects {name}: upstream request cancelled after {took:?}");
        ensure!(took < CANCEL_MAX, "{name}: the upstream's connection was closed {took:?} after the client's");
        harness::wait_until("nothing is in flight", || gateway.metric("witgate_in_flight").is_ok_and(|n| n == 0.0));
    }
    Ok(())
}
