//! Interim (1xx) responses and `Expect: 100-continue` (RFC 9110, sections 10.1.1 and 15.2).

use std::time::Duration;

use anyhow::{Result, ensure};

use super::raw::{RawConnection, ScriptedUpstream, gateway_to};

const FINAL: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const EXPECTING: &str = "POST / HTTP/1.1\r\nHost: t.test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";

#[test]
fn the_100_of_the_upstream_reaches_a_client_that_waits_for_it() -> Result<()> {
    let upstream = ScriptedUpstream::start(|connection| {
        let head = connection.read_request_head()?;
        ensure!(head.field("expect").is_some_and(|value| value.eq_ignore_ascii_case("100-continue")), "{head:?}");
        connection.send("HTTP/1.1 100 Continue\r\n\r\n")?;
        ensure!(connection.read_request()?.body == b"hello");
        connection.send(FINAL)
    })?;
    let gateway = gateway_to(&upstream, "")?;
    let mut client = RawConnection::connect(gateway.address)?;
    client.send(EXPECTING)?;
    assert_eq!(client.read_response("POST")?.status(), 100);
    client.send("hello")?;
    assert_eq!(client.read_response("POST")?.body, b"ok");
    Ok(())
}

#[test]
fn a_final_response_instead_of_100_reaches_the_client() -> Result<()> {
    for status in ["417 Expectation Failed", "413 Content Too Large", "401 Unauthorized", "200 OK"] {
        let upstream = ScriptedUpstream::start(move |connection| {
            connection.read_request_head()?;
            connection.send(format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nno"))?;
            connection.wait_closed(Duration::from_secs(10)).map(drop)
        })?;
        let gateway = gateway_to(&upstream, "")?;
        let mut client = RawConnection::connect(gateway.address)?;
        client.send(EXPECTING)?;
        let response = client.read_response("POST")?;
        assert_eq!((response.start[1].as_str(), &response.body[..]), (&status[..3], &b"no"[..]), "no 100 comes first");
        // The client has not sent the body. So the gateway closes the connection, or reads the next
        // five bytes as the body.
        client.send("helloGET / HTTP/1.1\r\nHost: t.test\r\n\r\n").ok();
        if let Ok(next) = client.read_response("GET") {
            assert_eq!(next.start[1], status[..3], "the response to the next request");
        }
    }
    Ok(())
}

#[test]
fn a_slow_response_instead_of_100_is_not_cut_by_the_body_timeout() -> Result<()> {
    let upstream = ScriptedUpstream::start(|connection| {
        connection.read_request_head()?;
        connection.send("HTTP/1.1 401 Unauthorized\r\nContent-Length: 4\r\n\r\n")?;
        // In total longer than the timeout for the request body, which the client never sends.
        for part in ["n", "o", "p", "e"] {
            std::thread::sleep(Duration::from_millis(500));
            connection.send(part)?;
        }
        Ok(())
    })?;
    let gateway = gateway_to(&upstream, "timeouts: {request_body: 300ms}")?;
    let mut client = RawConnection::connect(gateway.address)?;
    client.send(EXPECTING)?;
    assert_eq!(client.read_response("POST")?.body, b"nope");
    Ok(())
}

#[test]
fn a_client_that_expects_100_but_does_not_wait_is_served() -> Result<()> {
    // The client sends the body at once, and the upstream sends no 100.
    let upstream = ScriptedUpstream::start(|connection| {
        ensure!(connection.read_request()?.body == b"hello");
        connection.send(FINAL)
    })?;
    let gateway = gateway_to(&upstream, "")?;
    let mut client = RawConnection::connect(gateway.address)?;
    client.send(EXPECTING)?;
    client.send("hello")?;
    loop {
        let response = client.read_response("POST")?;
        if response.status() >= 200 {
            assert_eq!(response.body, b"ok");
            return Ok(());
        }
    }
}

#[test]
fn interim_responses_reach_only_http_1_1_clients() -> Result<()> {
    let upstream = ScriptedUpstream::start(|connection| {
        loop {
            connection.read_request()?;
            connection.send("HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nConnection: x-secret\r\nX-Secret: 1\r\n\r\n")?;
            connection.send("HTTP/1.1 102 Processing\r\n\r\n")?;
            connection.send(FINAL)?;
        }
    })?;
    let gateway = gateway_to(&upstream, "")?;
    let mut client = RawConnection::connect(gateway.address)?;
    for _ in 0..2 {
        client.send("GET / HTTP/1.1\r\nHost: t.test\r\n\r\n")?;
        let hints = client.read_response("GET")?;
        assert_eq!(
            (hints.status(), hints.field("link"), hints.field("x-secret")),
            (103, Some("</a.css>; rel=preload"), None)
        );
        assert_eq!((client.read_response("GET")?.status(), client.read_response("GET")?.status()), (102, 200));
    }
    // HTTP/1.0 defines no interim responses (RFC 9110, section 15.2).
    let mut old = RawConnection::connect(gateway.address)?;
    old.send("GET / HTTP/1.0\r\nHost: t.test\r\n\r\n")?;
    assert_eq!(old.read_response("GET")?.status(), 200);
    Ok(())
}

#[test]
fn an_early_hint_is_forwarded_before_the_final_response() -> Result<()> {
    let (sender, receiver) = std::sync::mpsc::channel();
    let receiver = std::sync::Mutex::new(receiver);
    let upstream = ScriptedUpstream::start(move |connection| {
        connection.read_request()?;
        connection.send("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n")?;
        // Waits until the client has received the 103.
        receiver.lock().ok().and_then(|receiver| receiver.recv_timeout(Duration::from_secs(5)).ok());
        connection.send(FINAL)
    })?;
    let gateway = gateway_to(&upstream, "")?;
    let mut client = RawConnection::connect(gateway.address)?;
    client.send("GET / HTTP/1.1\r\nHost: t.test\r\n\r\n")?;
    let hints = client.read_response("GET")?;
    assert_eq!(hints.status(), 103);
    sender.send(())?;
    assert_eq!(client.read_response("GET")?.status(), 200);
    Ok(())
}
