//! How valid HTTP/1 messages pass the gateway: connection fields, `Date`, pipelining, HTTP/1.0,
//! `HEAD`, trailers, and one normalized path for routing and forwarding.

use std::time::Duration;

use anyhow::{Result, ensure};
use harness::Setup;

use super::fixed_response::{FixedResponse, OK, exchange};
use super::raw::{RawConnection, ScriptedUpstream, gateway_to};

#[test]
fn response_fields_listed_in_connection_are_removed() -> Result<()> {
    let upstream = FixedResponse::start(
        "HTTP/1.1 200 OK\r\nConnection: x-secret, Set-Cookie2\r\nX-Secret: 1\r\nSet-Cookie2: a\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nUpgrade: h2c\r\nX-Kept: 2\r\nContent-Length: 2\r\n\r\nok",
    )?;
    let response = exchange(&upstream.gateway("")?, "GET / HTTP/1.1", &[])?;
    for name in ["x-secret", "set-cookie2", "keep-alive", "proxy-connection", "upgrade"] {
        assert_eq!(response.field(name), None, "{name}");
    }
    assert_eq!((response.field("x-kept"), &response.body[..]), (Some("2"), &b"ok"[..]));
    Ok(())
}

#[test]
fn a_response_that_lists_content_length_in_connection_keeps_its_framing() -> Result<()> {
    let upstream =
        FixedResponse::start("HTTP/1.1 200 OK\r\nConnection: content-length\r\nContent-Length: 2\r\n\r\nok")?;
    let gateway = upstream.gateway("")?;
    let response = exchange(&gateway, "GET / HTTP/1.1", &[])?;
    assert!(response.status() == 502 || response.body == b"ok", "{response:?}");
    Ok(())
}

#[test]
fn every_response_has_one_date() -> Result<()> {
    let upstream = FixedResponse::start(OK)?;
    let gateway = upstream.gateway("")?;
    let refused = {
        let mut client = RawConnection::connect(gateway.address)?;
        client.send("GET / HTTP/9.9\r\n\r\n")?;
        client.read_response("GET")?
    };
    for response in [exchange(&gateway, "GET / HTTP/1.1", &[])?, refused] {
        let date = response.all("date");
        assert!(date.len() == 1 && date[0].ends_with(" GMT"), "{response:?}");
    }
    let dated =
        FixedResponse::start("HTTP/1.1 200 OK\r\nDate: Tue, 15 Nov 1994 08:12:31 GMT\r\nContent-Length: 0\r\n\r\n")?;
    let response = exchange(&dated.gateway("")?, "GET / HTTP/1.1", &[])?;
    assert_eq!(response.all("date"), ["Tue, 15 Nov 1994 08:12:31 GMT"]);
    Ok(())
}

#[test]
fn an_error_response_that_closes_says_so() -> Result<()> {
    let upstream = FixedResponse::start(OK)?;
    let gateway = upstream.gateway("")?;
    let mut client = RawConnection::connect(gateway.address)?;
    client.send("GET / HTTP/1.1\r\nHost: t.test\r\nContent-Length: x\r\n\r\n")?;
    let response = client.read_response("GET")?;
    assert_eq!((response.status(), response.field("connection")), (400, Some("close")));
    assert!(
        response.field("proxy-status").is_some_and(|value| value.contains("error=http_request_error")),
        "{response:?}"
    );
    client.wait_closed(Duration::from_secs(5))?;
    Ok(())
}

#[test]
fn pipelined_requests_are_answered_in_order() -> Result<()> {
    let upstream = ScriptedUpstream::start(|connection| {
        loop {
            let request = connection.read_request()?;
            let path = request.target().to_owned();
            // The first response is the slowest, so one out of order would arrive before it.
            let slow = if path == "/0" { 100 } else { 0 };
            std::thread::sleep(Duration::from_millis(slow));
            connection.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{path}", path.len()))?;
        }
    })?;
    let gateway = gateway_to(&upstream, "")?;
    let mut client = RawConnection::connect(gateway.address)?;
    let all: String =
        (0..10).map(|n| format!("POST /{n} HTTP/1.1\r\nHost: t.test\r\nContent-Length: 3\r\n\r\nabc")).collect();
    client.send(all)?;
    for n in 0..10 {
        assert_eq!(client.read_response("POST")?.body, format!("/{n}").as_bytes());
    }
    Ok(())
}

#[test]
fn http_1_0_clients_get_no_chunked_coding_and_may_keep_the_connection() -> Result<()> {
    let chunked = FixedResponse::start("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")?;
    let gateway = chunked.gateway("")?;
    for connection in ["Connection: close", "Connection: keep-alive"] {
        let response = exchange(&gateway, "GET / HTTP/1.0", &[connection])?;
        assert_eq!((response.field("transfer-encoding"), &response.body[..]), (None, &b"ok"[..]), "{connection}");
    }
    let sized = FixedResponse::start(OK)?;
    let gateway = sized.gateway("")?;
    let mut client = RawConnection::connect(gateway.address)?;
    for _ in 0..2 {
        client.send("GET / HTTP/1.0\r\nHost: t.test\r\nConnection: keep-alive\r\n\r\n")?;
        let response = client.read_response("GET")?;
        let kept = response.field("connection").map(str::to_ascii_lowercase);
        assert_eq!((response.status(), kept.as_deref()), (200, Some("keep-alive")));
    }
    client.send("GET / HTTP/1.0\r\nHost: t.test\r\n\r\n")?;
    client.read_response("GET")?;
    client.wait_closed(Duration::from_secs(5))?;
    Ok(())
}

#[test]
fn connection_close_is_confirmed_and_closes() -> Result<()> {
    let upstream = FixedResponse::start(OK)?;
    let gateway = upstream.gateway("")?;
    let mut client = RawConnection::connect(gateway.address)?;
    client.send("GET / HTTP/1.1\r\nHost: t.test\r\nConnection: close\r\n\r\n")?;
    let response = client.read_response("GET")?;
    assert_eq!((response.status(), response.field("connection")), (200, Some("close")));
    client.wait_closed(Duration::from_secs(5))?;
    Ok(())
}

#[test]
fn responses_to_head_have_no_body() -> Result<()> {
    let upstream = FixedResponse::start("HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n")?;
    let gateway = upstream.gateway("")?;
    let mut client = RawConnection::connect(gateway.address)?;
    for _ in 0..2 {
        client.send("HEAD / HTTP/1.1\r\nHost: t.test\r\n\r\n")?;
        let response = client.read_response("HEAD")?;
        assert_eq!((response.status(), response.field("content-length")), (200, Some("1234")));
    }
    let unrouted =
        Setup::new("upstreams: {e: {builtin: echo}}\nroutes: [{match: {path: /a}, upstream: e}]")?.start()?;
    let mut client = RawConnection::connect(unrouted.address)?;
    for _ in 0..2 {
        client.send("HEAD /b HTTP/1.1\r\nHost: t.test\r\n\r\n")?;
        assert_eq!(client.read_response("HEAD")?.status(), 404);
        assert!(client.bytes.is_empty(), "the response to HEAD has a body: {}", client.bytes.escape_ascii());
    }
    Ok(())
}

#[test]
fn trailers_are_forwarded_except_fields_for_framing_or_authentication() -> Result<()> {
    let upstream = FixedResponse::start(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 7\r\nContent-Length: 9\r\nSet-Cookie: a=b\r\n\r\n",
    )?;
    let gateway = upstream.gateway("")?;
    let mut client = RawConnection::connect(gateway.address)?;
    client.send("POST / HTTP/1.1\r\nHost: t.test\r\nConnection: TE\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nX-Sum: 5\r\nAuthorization: x\r\n\r\n")?;
    let response = client.read_response("POST")?;
    let sum = |value: &str| vec![("x-sum".to_owned(), value.to_owned())];
    ensure!((response.status(), &response.body[..]) == (200, b"ok"), "{response:?}");
    assert_eq!((upstream.last().trailers, response.trailers), (sum("5"), sum("7")));
    Ok(())
}

#[test]
fn router_and_upstream_see_the_same_normalized_path() -> Result<()> {
    let (admin, public) = (FixedResponse::start(OK)?, FixedResponse::start(OK)?);
    let gateway = Setup::new(&format!(
        "upstreams: {{a: {{endpoints: [\"http://{}\"]}}, p: {{endpoints: [\"http://{}\"]}}}}\nroutes: [{{match: {{path: /admin}}, upstream: a}}, {{upstream: p}}]",
        admin.address(), public.address()
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
        let response = exchange(&gateway, &format!("GET {path} HTTP/1.1"), &[])?;
        assert_eq!((response.status(), admin.count(), public.count()), (200, count + 1, 0), "{path}");
        assert_eq!(admin.last().target(), "/admin/x", "{path}");
    }
    for path in ["/admin/../public", "/admin/%2e%2e/public", "/adminx", "/public/admin/x", "/admin%2fx"] {
        exchange(&gateway, &format!("GET {path} HTTP/1.1"), &[])?;
        assert_eq!(admin.count(), paths.len(), "{path} was routed to /admin");
    }
    Ok(())
}

/// Old servers fill the field of a chunk's size with spaces.
#[test]
fn sizes_of_chunks_from_an_upstream_may_be_padded() -> Result<()> {
    let upstream =
        FixedResponse::start("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5     \r\nhello\r\n0     \r\n\r\n")?;
    let response = exchange(&upstream.gateway("")?, "GET / HTTP/1.1", &[])?;
    assert_eq!((response.status(), &response.body[..]), (200, &b"hello"[..]));
    Ok(())
}

/// Clients of HTTP/1.0 know no interim responses (RFC 9110, section 10.1.1).
#[test]
fn an_expectation_of_http_1_0_does_not_reach_the_upstream() -> Result<()> {
    let upstream = FixedResponse::start(OK)?;
    let gateway = upstream.gateway("")?;
    let mut client = RawConnection::connect(gateway.address)?;
    client.send("POST / HTTP/1.0\r\nHost: t.test\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi")?;
    assert_eq!(client.read_response("POST")?.status(), 200);
    assert_eq!((upstream.last().field("expect"), &upstream.last().body[..]), (None, &b"hi"[..]));
    Ok(())
}

#[test]
fn a_trusted_proxy_s_request_id_is_one_line() -> Result<()> {
    let upstream = FixedResponse::start(OK)?;
    let gateway = upstream.gateway("trusted_proxies: [127.0.0.1]")?;
    let response = exchange(&gateway, "GET / HTTP/1.1", &["X-Request-Id: first", "X-Request-Id: second"])?;
    assert_eq!((upstream.last().all("x-request-id"), response.field("x-request-id")), (vec!["first"], Some("first")));
    Ok(())
}
