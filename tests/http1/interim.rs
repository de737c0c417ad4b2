//! Interim responses and expectations in both directions, and what a client gets that is too slow or sends too much.

use std::time::Duration;

use anyhow::{Result, ensure};
use harness::{Gateway, Setup};

use super::wire::{Peer, Wire};

fn behind(peer: &Peer, more: &str) -> Result<Gateway> {
    let yaml = format!(
        "{more}\nupstreams: {{u: {{endpoints: [\"http://{}\"], timeout: 2s}}}}\nroutes: [{{upstream: u}}]",
        peer.address
    );
    Setup::new(&yaml)?.start()
}

const FINAL: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const EXPECTING: &str = "POST / HTTP/1.1\r\nHost: t.test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";

#[test]
fn a_client_that_waits_for_100_gets_it_from_the_upstream() -> Result<()> {
    let peer = Peer::start(|wire| {
        let head = wire.head()?;
        ensure!(head.field("expect").is_some_and(|value| value.eq_ignore_ascii_case("100-continue")), "{head:?}");
        wire.send("HTTP/1.1 100 Continue\r\n\r\n")?;
        ensure!(wire.request()?.body == b"hello");
        wire.send(FINAL)
    })?;
    let gateway = behind(&peer, "")?;
    let mut client = Wire::connect(gateway.address)?;
    client.send(EXPECTING)?;
    assert_eq!(client.response("POST")?.status(), 100);
    client.send("hello")?;
    assert_eq!(client.response("POST")?.body, b"ok");
    Ok(())
}

#[test]
fn a_refusal_instead_of_100_reaches_the_client_that_waits() -> Result<()> {
    for status in ["417 Expectation Failed", "413 Content Too Large", "401 Unauthorized", "200 OK"] {
        let peer = Peer::start(move |wire| {
            wire.head()?;
            wire.send(format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nno"))?;
            wire.until_closed(Duration::from_secs(10)).map(drop)
        })?;
        let gateway = behind(&peer, "")?;
        let mut client = Wire::connect(gateway.address)?;
        client.send(EXPECTING)?;
        let answer = client.response("POST")?;
        assert_eq!((answer.start[1].as_str(), &answer.body[..]), (&status[..3], &b"no"[..]), "no 100 before");
        // The body was not sent: the connection closes, or takes what comes next for the body.
        client.send("helloGET / HTTP/1.1\r\nHost: t.test\r\n\r\n").ok();
        if let Ok(next) = client.response("GET") {
            assert_eq!(next.start[1], status[..3], "the next request's own answer");
        }
    }
    Ok(())
}

#[test]
fn a_long_answer_instead_of_100_is_not_cut_for_want_of_the_body() -> Result<()> {
    let peer = Peer::start(|wire| {
        wire.head()?;
        wire.send("HTTP/1.1 401 Unauthorized\r\nContent-Length: 4\r\n\r\n")?;
        // Longer than the body is held back and than a client may be silent.
        for part in ["n", "o", "p", "e"] {
            std::thread::sleep(Duration::from_millis(500));
            wire.send(part)?;
        }
        Ok(())
    })?;
    let gateway = behind(&peer, "timeouts: {request_body: 300ms}")?;
    let mut client = Wire::connect(gateway.address)?;
    client.send(EXPECTING)?;
    assert_eq!(client.response("POST")?.body, b"nope");
    Ok(())
}

#[test]
fn a_client_that_does_not_wait_is_served_too() -> Result<()> {
    // Neither the client nor the upstream ever waits or says 100.
    let peer = Peer::start(|wire| {
        ensure!(wire.request()?.body == b"hello");
        wire.send(FINAL)
    })?;
    let gateway = behind(&peer, "")?;
    let mut client = Wire::connect(gateway.address)?;
    client.send(EXPECTING)?;
    client.send("hello")?;
    loop {
        let answer = client.response("POST")?;
        if answer.status() >= 200 {
            assert_eq!(answer.body, b"ok");
            return Ok(());
        }
    }
}

#[test]
fn interim_responses_reach_clients_of_http_1_1() -> Result<()> {
    let peer = Peer::start(|wire| {
        loop {
            wire.request()?;
            wire.send("HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nConnection: x-secret\r\nX-Secret: 1\r\n\r\n")?;
            wire.send("HTTP/1.1 102 Processing\r\n\r\n")?;
            wire.send(FINAL)?;
        }
    })?;
    let gateway = behind(&peer, "")?;
    let mut client = Wire::connect(gateway.address)?;
    for _ in 0..2 {
        client.send("GET / HTTP/1.1\r\nHost: t.test\r\n\r\n")?;
        let hints = client.response("GET")?;
        assert_eq!(
            (hints.status(), hints.field("link"), hints.field("x-secret")),
            (103, Some("</a.css>; rel=preload"), None)
        );
        assert_eq!((client.response("GET")?.status(), client.response("GET")?.status()), (102, 200));
    }
    // HTTP/1.0 knows none of them (RFC 9110, section 15.2).
    let mut old = Wire::connect(gateway.address)?;
    old.send("GET / HTTP/1.0\r\nHost: t.test\r\n\r\n")?;
    assert_eq!(old.response("GET")?.status(), 200);
    Ok(())
}

#[test]
fn an_early_hint_is_not_held_back() -> Result<()> {
    let (sender, receiver) = std::sync::mpsc::channel();
    let receiver = std::sync::Mutex::new(receiver);
    let peer = Peer::start(move |wire| {
        wire.request()?;
        wire.send("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n")?;
        // Not before the client has the hint.
        receiver.lock().ok().and_then(|receiver| receiver.recv_timeout(Duration::from_secs(5)).ok());
        wire.send(FINAL)
    })?;
    let gateway = behind(&peer, "")?;
    let mut client = Wire::connect(gateway.address)?;
    client.send("GET / HTTP/1.1\r\nHost: t.test\r\n\r\n")?;
    let hints = client.response("GET")?;
    assert_eq!(hints.status(), 103);
    sender.send(())?;
    assert_eq!(client.response("GET")?.status(), 200);
    Ok(())
}

#[test]
fn a_slow_head_is_answered_408() -> Result<()> {
    let peer = Peer::start(|wire| wire.request().map(drop))?;
    let gateway = behind(&peer, "timeouts: {request_head: 300ms}")?;
    for part in ["G", "GET / HTTP/1.1\r\n", "GET / HTTP/1.1\r\nHost: t.test\r\nX-A: b"] {
        let mut client = Wire::connect(gateway.address)?;
        client.send(part)?;
        let answer = client.response("GET")?;
        assert_eq!((answer.status(), answer.field("connection")), (408, Some("close")), "{part:?}");
        client.until_closed(Duration::from_secs(5))?;
    }
    // A byte now and then does not put the deadline off.
    let mut client = Wire::connect(gateway.address)?;
    let dripped = client.drip(&b"GET / HTTP/1.1\r\nX-A: bbbbbbbbbbbbbbbb"[..], Duration::from_millis(20));
    assert!(dripped.is_err() || client.response("GET")?.status() == 408);
    assert_eq!(peer.connections(), 0);
    Ok(())
}

#[test]
fn a_slow_body_is_answered_408() -> Result<()> {
    let peer = Peer::start(|wire| wire.request().map(drop))?;
    let gateway = behind(&peer, "timeouts: {request_body: 300ms, filters: 50ms}")?;
    for framing in ["Content-Length: 100\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"] {
        let mut client = Wire::connect(gateway.address)?;
        client.send(format!("POST / HTTP/1.1\r\nHost: t.test\r\n{framing}"))?;
        let answer = client.response("POST")?;
        assert_eq!(answer.status(), 408, "{framing:?}");
        client.until_closed(Duration::from_secs(5))?;
    }
    Ok(())
}

#[test]
fn the_time_of_an_upload_is_not_the_upstreams() -> Result<()> {
    // The upload takes longer than the upstream's timeout: it cannot answer what it does not have. From then on its time counts.
    let peer = Peer::start(|wire| {
        let request = wire.request()?;
        ensure!(request.body.len() == 30);
        if request.target() == "/stalls" {
            return wire.until_closed(Duration::from_secs(10)).map(drop);
        }
        wire.send(FINAL)
    })?;
    let yaml = format!(
        "timeouts: {{filters: 50ms}}\nupstreams: {{u: {{endpoints: [\"http://{}\"], timeout: 500ms, connect_timeout: 500ms}}}}\nroutes: [{{upstream: u}}]",
        peer.address
    );
    let gateway = Setup::new(&yaml)?.start()?;
    for (path, status) in [("/", 200), ("/stalls", 504)] {
        let mut client = Wire::connect(gateway.address)?;
        client.send(format!("POST {path} HTTP/1.1\r\nHost: t.test\r\nContent-Length: 30\r\n\r\n"))?;
        client.drip(&[b'x'; 30], Duration::from_millis(50))?;
        assert_eq!(client.response("POST")?.status(), status, "{path}");
    }
    Ok(())
}

#[test]
fn a_body_above_the_limit_is_refused() -> Result<()> {
    let (whole, cut) = (std::sync::mpsc::channel(), std::sync::Mutex::new(()));
    let sender = std::sync::Mutex::new(whole.0);
    let peer = Peer::start(move |wire| {
        let _one = cut.lock();
        let request = wire.request()?;
        sender.lock().map(|sender| sender.send(request.body.len()).is_ok()).ok();
        wire.send(FINAL)
    })?;
    let gateway = behind(&peer, "limits: {request_body_bytes: 1KiB}")?;
    let post = |framing: &str, body: &str, rest: bool| -> Result<u16> {
        let mut client = Wire::connect(gateway.address)?;
        client.send(format!("POST / HTTP/1.1\r\nHost: t.test\r\n{framing}\r\n\r\n{body}"))?;
        let answer = client.response("POST")?;
        if rest {
            // What the client may still send would be taken for a request.
            client.until_closed(Duration::from_secs(5))?;
        }
        Ok(answer.status())
    };
    let (fits, large) = ("x".repeat(1024), "x".repeat(1025));
    assert_eq!(post("Content-Length: 1024", &fits, false)?, 200);
    assert_eq!(post("Content-Length: 1025", &large, false)?, 413);
    assert_eq!(post("Content-Length: 1000000", "", true)?, 413, "before the body came");
    assert_eq!(post("Transfer-Encoding: chunked", &format!("400\r\n{fits}\r\n0\r\n\r\n"), false)?, 200);
    assert_eq!(post("Transfer-Encoding: chunked", &format!("401\r\n{large}\r\n0\r\n\r\n"), false)?, 413);
    assert_eq!(post("Content-Length: 1000000\r\nExpect: 100-continue", "", true)?, 413, "and no 100");
    drop(gateway);
    assert_eq!(whole.1.try_iter().collect::<Vec<_>>(), [1024, 1024], "no larger body ended cleanly");
    Ok(())
}
