//! Each request that fails leaves one line of the access log, with the kind of the failure.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use harness::frames::{self, End, Frames};
use harness::wat::filter;
use harness::{Client, Gateway, Setup, Upstream, refusing_address};
use serde_json::Value;

/// What is sent, the status, the kind, and the beginning of the line's path.
type Case<'a> = (&'a str, u16, &'a str, &'a str);

fn gateway(upstream: &Upstream) -> Result<Gateway> {
    let yaml = format!(
        "timeouts: {{request_head: 300ms, request_body: 300ms, filters: 60ms}}\nlimits: {{request_body_bytes: 1KiB}}\n\
         filters: {{trap: {{source: trap.wasm, timeout: 20ms}}, endless: {{source: endless.wasm, timeout: 20ms}}}}\n\
         upstreams:\n\
         \x20 u: {{endpoints: [\"http://{0}\"], timeout: 200ms}}\n\
         \x20 plain: {{endpoints: [\"https://{0}\"], connect_timeout: 200ms}}\n\
         \x20 refused: {{endpoints: [\"http://{1}\"]}}\n\
         routes:\n\
         - {{match: {{host: t, path: /trap}}, filters: [trap], upstream: u}}\n\
         - {{match: {{host: t, path: /endless}}, filters: [endless], upstream: u}}\n\
         - {{match: {{host: t, path: /refused}}, upstream: refused}}\n\
         - {{match: {{host: t, path: /tls}}, upstream: plain}}\n\
         - {{match: {{host: t, path: /denied}}, upstream: u, clients: {{deny: [127.0.0.0/8]}}}}\n\
         - {{match: {{host: t, methods: [GET, POST]}}, upstream: u}}\n",
        upstream.address,
        refusing_address()?,
    );
    Setup::new(&yaml)?
        .access_log("")
        .with("trap.wasm", filter("unreachable")?)?
        .with("endless.wasm", filter("(loop (br 0)) (i32.const 0)")?)?
        .start()
}

/// The lines of the access log from the one at `from` on, once there is one.
fn next_lines(gateway: &Gateway, from: usize) -> Result<Vec<Value>> {
    let lines = gateway.wait_accessed("{", from + 1);
    lines[from..].iter().map(|line| serde_json::from_str(line).with_context(|| line.clone())).collect()
}

#[test]
fn each_failure_is_one_line_with_its_kind() -> Result<()> {
    let upstream = Upstream::start()?;
    let gateway = gateway(&upstream)?;
    let long_line = format!("GET /{} HTTP/1.1\r\nhost: t\r\n\r\n", "x".repeat(40_000));
    let long_head = format!("GET /u HTTP/1.1\r\nhost: t\r\nx: {}\r\n\r\n", "x".repeat(70_000));
    let cases: [Case<'_>; 20] = [
        ("GET /a b HTTP/1.1\r\nhost: t\r\n\r\n", 400, "bad-request", "/a"),
        ("GET /u HTTP/1.1\r\nbroken\r\n\r\n", 400, "bad-request", "/u"),
        ("GET /u HTTP/1.1\r\n\r\n", 400, "bad-request", "/u"),
        ("GET /u?secret HTTP/1.1\r\nhost: t", 408, "client-timeout", "/u"),
        ("POST /length HTTP/1.1\r\nhost: t\r\ncontent-length: 9\r\n\r\nabc", 408, "client-timeout", "/length"),
        ("POST /u HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", 400, "bad-request", "/u"),
        ("POST /u HTTP/1.1\r\nhost: t\r\ncontent-length: 9000\r\n\r\n", 413, "body-too-large", "/u"),
        (&long_line, 414, "uri-too-long", "/x"),
        (&long_head, 431, "head-too-large", "/u"),
        ("GET /u HTTP/1.1\r\nhost: t\r\nexpect: much\r\n\r\n", 417, "expectation-failed", "/u"),
        ("GET /u HTTP/3.0\r\nhost: t\r\n\r\n", 505, "version", "/u"),
        ("TRACE /u HTTP/1.1\r\nhost: t\r\n\r\n", 405, "method-not-allowed", "/u"),
        ("PUT /u HTTP/1.1\r\nhost: t\r\ncontent-length: 0\r\n\r\n", 405, "method-not-allowed", "/u"),
        ("GET /none HTTP/1.1\r\nhost: none\r\n\r\n", 404, "no-route", "/none"),
        ("GET /denied HTTP/1.1\r\nhost: t\r\n\r\n", 403, "forbidden", "/denied"),
        ("GET /trap HTTP/1.1\r\nhost: t\r\n\r\n", 502, "trap", "/trap"),
        ("GET /endless HTTP/1.1\r\nhost: t\r\n\r\n", 504, "deadline", "/endless"),
        ("GET /refused HTTP/1.1\r\nhost: t\r\n\r\n", 502, "upstream-connect", "/refused"),
        ("GET /delay/900 HTTP/1.1\r\nhost: t\r\n\r\n", 504, "upstream-timeout", "/delay/900"),
        ("GET /status/503 HTTP/1.1\r\nhost: t\r\n\r\n", 503, "upstream-status", "/status/503"),
    ];
    for (count, (request, status, kind, path)) in cases.iter().enumerate() {
        let shown = &request[..request.len().min(60)];
        let mut client = Client::connect(gateway.address)?;
        client.write(request.as_bytes())?;
        let response = client.read(false).with_context(|| shown.to_owned())?;
        let lines = next_lines(&gateway, count)?;
        ensure!(lines.len() == 1, "{shown}: {lines:?}");
        let line = &lines[0];
        ensure!(response.status == *status && line["status"] == *status, "{shown}: {response:?}\n{line}");
        ensure!(line["failure"] == *kind && line["detail"].as_str().is_some_and(|text| !text.is_empty()), "{line}");
        ensure!(
            line["path"].as_str().is_some_and(|own| own.starts_with(path)) && !line.to_string().contains("secret"),
            "{line}"
        );
        ensure!(line["id"].as_str() == response.header("x-request-id"), "{response:?}\n{line}");
    }
    Ok(())
}

#[test]
fn a_malformed_http2_request_is_a_line_although_its_stream_is_reset() -> Result<()> {
    let upstream = Upstream::start()?;
    let gateway = gateway(&upstream)?;
    let mut client = Frames::connect(gateway.address)?;
    let fields = [(":method", "GET"), (":scheme", "http"), (":authority", "t"), (":path", "/u/x"), ("x-a", " padded")];
    client.send(&frames::headers(1, &frames::block(fields), true))?;
    let end = client.end(1, Duration::from_secs(3))?;
    ensure!(matches!(end, End::Reset(_)), "{end:?}");
    let lines = next_lines(&gateway, 0)?;
    ensure!(lines.len() == 1 && lines[0]["failure"] == "bad-request" && lines[0]["path"] == "/u/x", "{lines:?}");
    ensure!(lines[0]["status"].is_null() && lines[0]["protocol"] == "HTTP/2" && lines[0]["host"] == "t", "{lines:?}");
    Ok(())
}
