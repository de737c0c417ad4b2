//! What a gateway does with requests and responses that are right: fields it adds, replaces and keeps, interim responses, order, limits.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Result, ensure};
use harness::{Gateway, Setup};

use super::strict::Message;
use super::wire::{Peer, Wire};

/// An upstream that keeps the requests it saw and gives each the same answer.
struct Keeping {
    peer: Peer,
    seen: Arc<Mutex<Vec<Message>>>,
}

impl Keeping {
    fn start(answer: &'static str) -> Result<Self> {
        let seen: Arc<Mutex<Vec<Message>>> = Arc::default();
        let keep = seen.clone();
        let peer = Peer::start(move |wire| {
            loop {
                let request = wire.request()?;
                keep.lock().map(|mut seen| seen.push(request)).ok();
                wire.send(answer)?;
                if !answer.contains("Content-Length") && !answer.contains("chunked") {
                    return Ok(());
                }
            }
        })?;
        Ok(Self { peer, seen })
    }

    fn last(&self) -> Message {
        self.seen.lock().ok().and_then(|seen| seen.last().cloned()).unwrap_or_default()
    }

    fn count(&self) -> usize {
        self.seen.lock().map(|seen| seen.len()).unwrap_or(0)
    }
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn behind(peer: &Peer, more: &str) -> Result<Gateway> {
    let yaml = format!(
        "{more}\nupstreams: {{u: {{endpoints: [\"http://{}\"], timeout: 2s}}}}\nroutes: [{{upstream: u}}]",
        peer.address
    );
    Setup::new(&yaml)?.start()
}

/// One request on a connection of its own; the final response.
fn exchange(gateway: &Gateway, line: &str, lines: &[&str]) -> Result<Message> {
    let mut client = Wire::connect(gateway.address)?;
    let fields: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    client.send(format!("{line}\r\nHost: t.test\r\n{fields}\r\n"))?;
    client.response(line.split(' ').next().unwrap_or_default())
}

/// All lines of a list field as one list.
fn list(message: &Message, name: &str) -> Vec<String> {
    message.all(name).join(",").split(',').map(|one| one.trim().to_owned()).filter(|one| !one.is_empty()).collect()
}

#[test]
fn via_tells_the_way_of_requests() -> Result<()> {
    let upstream = Keeping::start("HTTP/1.1 200 OK\r\nVia: 1.0 behind\r\nContent-Length: 0\r\n\r\n")?;
    let gateway = behind(&upstream.peer, "")?;
    let answer = exchange(&gateway, "GET / HTTP/1.1", &["Via: 1.0 before"])?;
    assert_eq!(list(&upstream.last(), "via"), ["1.0 before", "1.1 witgate"]);
    // A gateway may add itself to responses (RFC 9110, section 7.6.3); this one does not.
    assert_eq!(list(&answer, "via"), ["1.0 behind"]);
    exchange(&gateway, "GET / HTTP/1.0", &[])?;
    assert_eq!(list(&upstream.last(), "via"), ["1.0 witgate"], "the version is the one that was received");
    Ok(())
}

const CLAIMS: [&str; 4] = [
    "X-Forwarded-For: 192.0.2.1",
    "X-Forwarded-Proto: https",
    "X-Forwarded-Host: claimed.test",
    "Forwarded: for=192.0.2.1;proto=https;host=claimed.test",
];

#[test]
fn what_a_stranger_claims_of_its_way_is_replaced() -> Result<()> {
    let upstream = Keeping::start(OK)?;
    for more in ["", "trusted_proxies: [\"192.0.2.0/24\"]"] {
        let gateway = behind(&upstream.peer, more)?;
        for claims in [&CLAIMS[..], &[], &["X-Forwarded-For: 192.0.2.1", "X-Forwarded-For: 192.0.2.2"]] {
            exchange(&gateway, "GET / HTTP/1.1", claims)?;
            let seen = upstream.last();
            assert_eq!(seen.all("x-forwarded-for"), ["127.0.0.1"]);
            assert_eq!((seen.all("x-forwarded-proto"), seen.all("x-forwarded-host")), (vec!["http"], vec!["t.test"]));
            let forwarded = list(&seen, "forwarded").join(",");
            assert!(!forwarded.contains("192.0.2") && !forwarded.contains("claimed"), "{forwarded}");
        }
    }
    Ok(())
}

#[test]
fn what_a_trusted_proxy_says_of_the_way_is_kept() -> Result<()> {
    let upstream = Keeping::start(OK)?;
    let gateway = behind(&upstream.peer, "trusted_proxies: [\"10.0.0.0/8\", \"127.0.0.0/8\"]")?;
    exchange(&gateway, "GET / HTTP/1.1", &CLAIMS)?;
    let seen = upstream.last();
    assert_eq!(list(&seen, "x-forwarded-for"), ["192.0.2.1", "127.0.0.1"]);
    assert_eq!((seen.all("x-forwarded-proto"), seen.all("x-forwarded-host")), (vec!["https"], vec!["claimed.test"]));
    let forwarded = list(&seen, "forwarded");
    assert!(forwarded.is_empty() || forwarded[0].contains("192.0.2.1"), "{forwarded:?}");
    assert!(forwarded.is_empty() || forwarded.last().is_some_and(|last| last.contains("127.0.0.1")), "{forwarded:?}");
    Ok(())
}

#[test]
fn each_request_has_an_id() -> Result<()> {
    let upstream = Keeping::start(OK)?;
    let gateway = behind(&upstream.peer, "")?;
    let mut ids = vec![];
    for _ in 0..3 {
        exchange(&gateway, "GET / HTTP/1.1", &[])?;
        ids.extend(upstream.last().field("x-request-id").map(str::to_owned));
    }
    ids.dedup();
    assert_eq!(ids.len(), 3, "{ids:?}");
    assert!(ids.iter().all(|id| id.len() >= 8), "{ids:?}");
    Ok(())
}

#[test]
fn fields_that_the_upstream_nominates_stay_on_its_connection() -> Result<()> {
    let upstream = Keeping::start(
        "HTTP/1.1 200 OK\r\nConnection: x-secret, Set-Cookie2\r\nX-Secret: 1\r\nSet-Cookie2: a\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nUpgrade: h2c\r\nX-Kept: 2\r\nContent-Length: 2\r\n\r\nok",
    )?;
    let answer = exchange(&behind(&upstream.peer, "")?, "GET / HTTP/1.1", &[])?;
    for name in ["x-secret", "set-cookie2", "keep-alive", "proxy-connection", "upgrade"] {
        assert_eq!(answer.field(name), None, "{name}");
    }
    assert_eq!((answer.field("x-kept"), &answer.body[..]), (Some("2"), &b"ok"[..]));
    Ok(())
}

#[test]
fn a_nominated_framing_field_of_a_response_still_frames_it() -> Result<()> {
    let upstream = Keeping::start("HTTP/1.1 200 OK\r\nConnection: content-length\r\nContent-Length: 2\r\n\r\nok")?;
    let gateway = behind(&upstream.peer, "")?;
    let answer = exchange(&gateway, "GET / HTTP/1.1", &[])?;
    assert!(answer.status() == 502 || answer.body == b"ok", "{answer:?}");
    Ok(())
}

#[test]
fn every_answer_has_a_date() -> Result<()> {
    let upstream = Keeping::start(OK)?;
    let gateway = behind(&upstream.peer, "")?;
    let refused = {
        let mut client = Wire::connect(gateway.address)?;
        client.send("GET / HTTP/9.9\r\n\r\n")?;
        client.response("GET")?
    };
    for answer in [exchange(&gateway, "GET / HTTP/1.1", &[])?, refused] {
        let date = answer.all("date");
        assert!(date.len() == 1 && date[0].ends_with(" GMT"), "{answer:?}");
    }
    let dated = Keeping::start("HTTP/1.1 200 OK\r\nDate: Tue, 15 Nov 1994 08:12:31 GMT\r\nContent-Length: 0\r\n\r\n")?;
    let answer = exchange(&behind(&dated.peer, "")?, "GET / HTTP/1.1", &[])?;
    assert_eq!(answer.all("date"), ["Tue, 15 Nov 1994 08:12:31 GMT"]);
    Ok(())
}

#[test]
fn a_refusal_says_that_it_closes() -> Result<()> {
    let upstream = Keeping::start(OK)?;
    let gateway = behind(&upstream.peer, "")?;
    let mut client = Wire::connect(gateway.address)?;
    client.send("GET / HTTP/1.1\r\nHost: t.test\r\nContent-Length: x\r\n\r\n")?;
    let answer = client.response("GET")?;
    assert_eq!((answer.status(), answer.field("connection")), (400, Some("close")));
    assert!(answer.field("proxy-status").is_some_and(|said| said.contains("error=http_request_error")), "{answer:?}");
    client.until_closed(Duration::from_secs(5))?;
    Ok(())
}

#[test]
fn pipelined_requests_are_answered_in_order() -> Result<()> {
    let peer = Peer::start(|wire| {
        loop {
            let request = wire.request()?;
            let path = request.target().to_owned();
            // The first is the slowest: an answer that overtook it would be here before.
            let slow = if path == "/0" { 100 } else { 0 };
            std::thread::sleep(Duration::from_millis(slow));
            wire.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{path}", path.len()))?;
        }
    })?;
    let gateway = behind(&peer, "")?;
    let mut client = Wire::connect(gateway.address)?;
    let all: String =
        (0..10).map(|n| format!("POST /{n} HTTP/1.1\r\nHost: t.test\r\nContent-Length: 3\r\n\r\nabc")).collect();
    client.send(all)?;
    for n in 0..10 {
        assert_eq!(client.response("POST")?.body, format!("/{n}").as_bytes());
    }
    Ok(())
}

#[test]
fn http_1_0_gets_what_it_can_read() -> Result<()> {
    let chunked = Keeping::start("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")?;
    let gateway = behind(&chunked.peer, "")?;
    for connection in ["Connection: close", "Connection: keep-alive"] {
        let answer = exchange(&gateway, "GET / HTTP/1.0", &[connection])?;
        assert_eq!((answer.field("transfer-encoding"), &answer.body[..]), (None, &b"ok"[..]), "{connection}");
    }
    let sized = Keeping::start(OK)?;
    let gateway = behind(&sized.peer, "")?;
    let mut client = Wire::connect(gateway.address)?;
    for _ in 0..2 {
        client.send("GET / HTTP/1.0\r\nHost: t.test\r\nConnection: keep-alive\r\n\r\n")?;
        let answer = client.response("GET")?;
        let kept = answer.field("connection").map(str::to_ascii_lowercase);
        assert_eq!((answer.status(), kept.as_deref()), (200, Some("keep-alive")));
    }
    client.send("GET / HTTP/1.0\r\nHost: t.test\r\n\r\n")?;
    client.response("GET")?;
    client.until_closed(Duration::from_secs(5))?;
    Ok(())
}

#[test]
fn close_is_heard_and_answered() -> Result<()> {
    let upstream = Keeping::start(OK)?;
    let gateway = behind(&upstream.peer, "")?;
    let mut client = Wire::connect(gateway.address)?;
    client.send("GET / HTTP/1.1\r\nHost: t.test\r\nConnection: close\r\n\r\n")?;
    let answer = client.response("GET")?;
    assert_eq!((answer.status(), answer.field("connection")), (200, Some("close")));
    client.until_closed(Duration::from_secs(5))?;
    Ok(())
}

#[test]
fn head_has_fields_and_no_body() -> Result<()> {
    let upstream = Keeping::start("HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n")?;
    let gateway = behind(&upstream.peer, "")?;
    let mut client = Wire::connect(gateway.address)?;
    for _ in 0..2 {
        client.send("HEAD / HTTP/1.1\r\nHost: t.test\r\n\r\n")?;
        let answer = client.response("HEAD")?;
        assert_eq!((answer.status(), answer.field("content-length")), (200, Some("1234")));
    }
    let none = Setup::new("upstreams: {e: {builtin: echo}}\nroutes: [{match: {path: /a}, upstream: e}]")?.start()?;
    let mut client = Wire::connect(none.address)?;
    for _ in 0..2 {
        client.send("HEAD /b HTTP/1.1\r\nHost: t.test\r\n\r\n")?;
        assert_eq!(client.response("HEAD")?.status(), 404);
        assert!(client.bytes.is_empty(), "a body: {}", client.bytes.escape_ascii());
    }
    Ok(())
}

#[test]
fn trailers_pass_and_what_frames_does_not() -> Result<()> {
    let upstream = Keeping::start(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 7\r\nContent-Length: 9\r\nSet-Cookie: a=b\r\n\r\n",
    )?;
    let gateway = behind(&upstream.peer, "")?;
    let mut client = Wire::connect(gateway.address)?;
    client.send("POST / HTTP/1.1\r\nHost: t.test\r\nConnection: TE\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nX-Sum: 5\r\nAuthorization: x\r\n\r\n")?;
    let answer = client.response("POST")?;
    let sum = |value: &str| vec![("x-sum".to_owned(), value.to_owned())];
    ensure!((answer.status(), &answer.body[..]) == (200, b"ok"), "{answer:?}");
    assert_eq!((upstream.last().trailers, answer.trailers), (sum("5"), sum("7")));
    Ok(())
}

#[test]
fn one_path_for_router_and_upstream() -> Result<()> {
    let (admin, public) = (Keeping::start(OK)?, Keeping::start(OK)?);
    let gateway = Setup::new(&format!(
        "upstreams: {{a: {{endpoints: [\"http://{}\"]}}, p: {{endpoints: [\"http://{}\"]}}}}\nroutes: [{{match: {{path: /admin}}, upstream: a}}, {{upstream: p}}]",
        admin.peer.address, public.peer.address
    ))?
    .start()?;
    let paths = [
        "/admin/x",
        "/public/../admin/x",
        "/./admin/x",
        "//admin/x",
        "/%61dmin/x",
        "/public/%2e%2e/admin/x",
        "/public/.%2E/admin//x",
        "/a/b/../../admin/x",
        "/admin/../admin/x",
        "/admin/y/../x",
        "/%2e/admin/x",
        "http://t.test/public/../admin/x",
        "http://t.test//admin/x",
    ];
    for (count, path) in paths.iter().enumerate() {
        let answer = exchange(&gateway, &format!("GET {path} HTTP/1.1"), &[])?;
        assert_eq!((answer.status(), admin.count(), public.count()), (200, count + 1, 0), "{path}");
        assert_eq!(admin.last().target(), "/admin/x", "{path}");
    }
    for path in ["/admin/../public", "/admin/%2e%2e/public", "/adminx", "/public/admin/x", "/admin%2fx"] {
        exchange(&gateway, &format!("GET {path} HTTP/1.1"), &[])?;
        assert_eq!(admin.count(), paths.len(), "{path} went to /admin");
    }
    Ok(())
}
