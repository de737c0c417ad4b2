//! Limits on requests: time for the header section and the body, and the size of the body.

use std::time::Duration;

use anyhow::{Result, ensure};
use harness::Setup;

use super::raw::{RawConnection, ScriptedUpstream, gateway_to};

/// The response of the upstream.
const FINAL: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[test]
fn a_slow_header_section_gets_408() -> Result<()> {
    let upstream = ScriptedUpstream::start(|connection| connection.read_request().map(drop))?;
    let gateway = gateway_to(&upstream, "timeouts: {request_head: 300ms}")?;
    for part in ["G", "GET / HTTP/1.1\r\n", "GET / HTTP/1.1\r\nHost: t.test\r\nX-A: b"] {
        let mut client = RawConnection::connect(gateway.address)?;
        client.send(part)?;
        let response = client.read_response("GET")?;
        assert_eq!((response.status(), response.field("connection")), (408, Some("close")), "{part:?}");
        client.wait_closed(Duration::from_secs(5))?;
    }
    // Slow progress does not extend the deadline.
    let mut client = RawConnection::connect(gateway.address)?;
    let sent = client.send_bytewise(&b"GET / HTTP/1.1\r\nX-A: bbbbbbbbbbbbbbbb"[..], Duration::from_millis(20));
    assert!(sent.is_err() || client.read_response("GET")?.status() == 408);
    assert_eq!(upstream.connections(), 0);
    Ok(())
}

#[test]
fn a_stalled_body_gets_408() -> Result<()> {
    let upstream = ScriptedUpstream::start(|connection| connection.read_request().map(drop))?;
    let gateway = gateway_to(&upstream, "timeouts: {request_body: 300ms, filters: 50ms}")?;
    for framing in ["Content-Length: 100\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"] {
        let mut client = RawConnection::connect(gateway.address)?;
        client.send(format!("POST / HTTP/1.1\r\nHost: t.test\r\n{framing}"))?;
        let response = client.read_response("POST")?;
        assert_eq!(response.status(), 408, "{framing:?}");
        client.wait_closed(Duration::from_secs(5))?;
    }
    Ok(())
}

#[test]
fn the_upstream_timeout_begins_when_the_request_is_complete() -> Result<()> {
    // The upload takes longer than the upstream's timeout, which must not count that time: the
    // upstream cannot respond to an incomplete request.
    let upstream = ScriptedUpstream::start(|connection| {
        let request = connection.read_request()?;
        ensure!(request.body.len() == 30);
        if request.target() == "/stalls" {
            return connection.wait_closed(Duration::from_secs(10)).map(drop);
        }
        connection.send(FINAL)
    })?;
    let yaml = format!(
        "timeouts: {{filters: 50ms}}\nupstreams: {{u: {{endpoints: [\"http://{}\"], timeout: 500ms, connect_timeout: 500ms}}}}\nroutes: [{{upstream: u}}]",
        upstream.address
    );
    let gateway = Setup::new(&yaml)?.start()?;
    for (path, status) in [("/", 200), ("/stalls", 504)] {
        let mut client = RawConnection::connect(gateway.address)?;
        client.send(format!("POST {path} HTTP/1.1\r\nHost: t.test\r\nContent-Length: 30\r\n\r\n"))?;
        client.send_bytewise(&[b'x'; 30], Duration::from_millis(50))?;
        assert_eq!(client.read_response("POST")?.status(), status, "{path}");
    }
    Ok(())
}

#[test]
fn a_body_above_the_limit_gets_413() -> Result<()> {
    let (sender, bodies) = std::sync::mpsc::channel();
    let sender = std::sync::Mutex::new(sender);
    let turn = std::sync::Mutex::new(());
    let upstream = ScriptedUpstream::start(move |connection| {
        let _guard = turn.lock();
        let request = connection.read_request()?;
        sender.lock().map(|sender| sender.send(request.body.len()).is_ok()).ok();
        connection.send(FINAL)
    })?;
    let gateway = gateway_to(&upstream, "limits: {request_body_bytes: 1KiB}")?;
    let post = |framing: &str, body: &str, closes: bool| -> Result<u16> {
        let mut client = RawConnection::connect(gateway.address)?;
        client.send(format!("POST / HTTP/1.1\r\nHost: t.test\r\n{framing}\r\n\r\n{body}"))?;
        let response = client.read_response("POST")?;
        if closes {
            // The gateway must close: it would read the rest of the body as a request.
            client.wait_closed(Duration::from_secs(5))?;
        }
        Ok(response.status())
    };
    let (fits, large) = ("x".repeat(1024), "x".repeat(1025));
    assert_eq!(post("Content-Length: 1024", &fits, false)?, 200);
    assert_eq!(post("Content-Length: 1025", &large, false)?, 413);
    assert_eq!(post("Content-Length: 1000000", "", true)?, 413, "refused before the body arrived");
    assert_eq!(post("Transfer-Encoding: chunked", &format!("400\r\n{fits}\r\n0\r\n\r\n"), false)?, 200);
    assert_eq!(post("Transfer-Encoding: chunked", &format!("401\r\n{large}\r\n0\r\n\r\n"), false)?, 413);
    assert_eq!(post("Content-Length: 1000000\r\nExpect: 100-continue", "", true)?, 413, "refused without a 100");
    drop(gateway);
    assert_eq!(bodies.try_iter().collect::<Vec<_>>(), [1024, 1024], "no larger body reached the upstream completely");
    Ok(())
}
