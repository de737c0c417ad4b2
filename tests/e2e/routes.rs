//! What a route does by itself: which one wins, rewrite, redirect, respond, split, mirror, limits, CORS, compression.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use anyhow::{Context as _, Result};
use harness::{Gateway, Response, Setup, Upstream, wait_until, wat};

fn gateway(routes: &str) -> Result<Gateway> {
    let more = "upstreams: {echo: {builtin: echo}}\n";
    Setup::new(&format!("{more}routes:\n{routes}"))?.start()
}

/// What the upstream saw as path and query.
fn target(response: &Response) -> String {
    let json = response.json();
    let query = json["query"].as_str().map(|query| format!("?{query}")).unwrap_or_default();
    format!("{}{query}", json["path"].as_str().unwrap_or_default())
}

#[test]
fn the_most_specific_route_takes_a_request() -> Result<()> {
    let gateway = gateway(
        "  - {match: {path: {exact: /a}}, respond: {body: exact}}
  - {match: {path: /a}, respond: {body: prefix}}
  - {match: {path: {regex: '^/[a-z]+/[0-9]+$'}}, respond: {body: regex}}
  - {match: {path: /a, headers: {x-canary: {present: true}}}, respond: {body: header}}
  - {match: {path: /a, query: {beta: '1'}, methods: [GET]}, respond: {body: query}}
  - {match: {host: '*.example.com'}, respond: {status: 404, body: wildcard}}
",
    )?;
    let mut client = gateway.client()?;
    for (path, fields, expected) in [
        ("/a", &[][..], "exact"),
        ("/a/b", &[], "prefix"),
        ("/a/1", &[], "prefix"),
        ("/b/1", &[], "regex"),
        ("/a/b", &["x-canary: 1"], "header"),
        ("/a/b?beta=1", &["x-canary: 1"], "query"),
        ("/a/b?beta=2", &[], "prefix"),
    ] {
        assert_eq!(client.get(path, fields)?.text(), expected, "{path} {fields:?}");
    }
    assert_eq!(client.get("/b", &[])?.status, 404);
    client.write(b"GET /a HTTP/1.1\r\nhost: x.example.com\r\n\r\n")?;
    let response = client.read(false)?;
    assert_eq!((response.status, response.text().as_str()), (404, "wildcard"));
    assert_eq!(response.header("content-type"), Some("text/plain; charset=utf-8"));
    Ok(())
}

#[test]
fn the_upstream_sees_the_rewritten_request_and_filters_the_client_s() -> Result<()> {
    let stamp = wat::setting("x-seen", "1", "")?;
    let yaml = "upstreams: {echo: {builtin: echo}}
filters: {f: {source: f.wasm}}
routes:
  - {match: {path: /v1}, rewrite: {prefix: /internal, host: 'inner.example:81'}, upstream: echo,
     filters: [{filter: f, match: {path: /v1}}]}
  - {match: {path: /old}, rewrite: {path: {regex: '^/old/([0-9]+)$', replace: '/items/$1/x'}}, upstream: echo}
";
    let gateway = Setup::new(yaml)?.with("f.wasm", stamp)?.start()?;
    let mut client = gateway.client()?;
    let response = client.get("/v1/a?b=c", &[])?;
    assert_eq!(target(&response), "/internal/a?b=c");
    assert_eq!(response.echoed("host").as_deref(), Some("inner.example:81"));
    assert_eq!(response.echoed("x-seen").as_deref(), Some("1"));
    assert_eq!(target(&client.get("/old/12?q", &[])?), "/items/12/x?q");
    assert_eq!(target(&client.get("/old/x", &[])?), "/old/x");
    Ok(())
}

#[test]
fn a_redirect_leads_elsewhere() -> Result<()> {
    let gateway = gateway(
        "  - {match: {path: /secure, headers: {x-forwarded-proto: http}}, redirect: {status: 308, scheme: https}}
  - {match: {path: /docs}, redirect: {status: 301, host: 'docs.example:8443', prefix: /v2}}
  - {match: {path: {exact: /}}, redirect: {path: /welcome}}
",
    )?;
    let mut client = gateway.client()?;
    for (path, status, location) in [
        ("/secure/a?b", 308, "https://test/secure/a?b"),
        ("/docs/x", 301, "http://docs.example:8443/v2/x"),
        ("/?q=1", 302, "/welcome?q=1"),
    ] {
        let response = client.get(path, &[])?;
        assert_eq!((response.status, response.header("location")), (status, Some(location)), "{path}");
        assert_eq!(response.header("content-length"), Some("0"));
    }
    assert_eq!(client.send("POST", "/secure", &[], b"body")?.status, 308);
    let claimed = client.get("/secure", &["x-forwarded-proto: https"])?;
    assert_eq!(claimed.status, 308, "a client's word does not count");
    Ok(())
}

#[test]
fn requests_are_split_by_weight() -> Result<()> {
    let (a, b, none) = (Upstream::start()?, Upstream::start()?, Upstream::start()?);
    let yaml = format!(
        "upstreams: {{a: {}, b: {}, none: {}}}
routes: [{{upstreams: [{{name: a, weight: 3}}, {{name: none, weight: 0}}, {{name: b, weight: 1}}]}}]",
        a.yaml(),
        b.yaml(),
        none.yaml()
    );
    let gateway = Setup::new(&yaml)?.workers(1).start()?;
    let mut client = gateway.client()?;
    for _ in 0..400 {
        assert_eq!(client.get("/", &[])?.status, 200);
    }
    // A share of 1/4 in 400: outside of these bounds once in more than ten million runs.
    let share = b.requests();
    assert!((50..=160).contains(&share) && a.requests() == 400 - share, "{share}");
    assert_eq!(none.requests(), 0);
    Ok(())
}

#[test]
fn a_route_has_its_own_timeout() -> Result<()> {
    let upstream = Upstream::start()?;
    let yaml = format!(
        "timeouts: {{filters: 20ms}}\nupstreams: {{u: {}}}
routes: [{{match: {{path: /delay}}, timeout: 50ms, upstream: u}}, {{upstream: u}}]",
        upstream.yaml()
    );
    let gateway = Setup::new(&yaml)?.start()?;
    assert_eq!(gateway.get("/delay/1000", &[])?.status, 504);
    assert_eq!(gateway.get("/", &[])?.status, 200);
    Ok(())
}

#[test]
fn browsers_are_told_which_sites_may_use_a_route() -> Result<()> {
    let deny = wat::replying(401, None, "no")?;
    let cors =
        "cors: {origins: ['https://*.example'], methods: [PUT], headers: [x-a], expose: [x-b], credentials: true}";
    let yaml = format!(
        "upstreams: {{echo: {{builtin: echo}}}}\nfilters: {{deny: {{source: deny.wasm}}}}
routes: [{{match: {{methods: [PUT]}}, filters: [deny], upstream: echo, {cors}}}]"
    );
    let gateway = Setup::new(&yaml)?.with("deny.wasm", deny)?.start()?;
    let mut client = gateway.client()?;
    let ask = ["origin: https://a.example", "access-control-request-method: PUT"];
    let preflight = client.send("OPTIONS", "/", &ask, b"")?;
    let fields = |response: &Response| {
        let own = response.headers.iter().filter(|(name, _)| name.starts_with("access-control"));
        let mut own: Vec<_> =
            own.map(|(name, value)| format!("{}: {value}", &name["access-control-".len()..])).collect();
        own.sort();
        own.join(", ")
    };
    assert_eq!(preflight.status, 204);
    assert_eq!(
        fields(&preflight),
        "allow-credentials: true, allow-headers: x-a, allow-methods: PUT, allow-origin: https://a.example, max-age: 600"
    );
    // The filter's answer too: a script must be able to read that it is refused.
    let answer = client.send("PUT", "/", &["origin: https://a.example"], b"")?;
    assert_eq!((answer.status, answer.header("vary")), (401, Some("Origin")));
    assert_eq!(fields(&answer), "allow-credentials: true, allow-origin: https://a.example, expose-headers: x-b");
    let other = client.send("OPTIONS", "/", &["origin: https://evil.test", ask[1]], b"")?;
    assert_eq!((other.status, fields(&other).as_str()), (403, ""));
    assert_eq!(
        client.send("OPTIONS", "/", &["origin: https://a.example", "access-control-request-method: GET"], b"")?.status,
        404
    );
    Ok(())
}

#[test]
fn a_mirror_gets_copies_and_does_nothing_to_the_exchange() -> Result<()> {
    let (main, shadow) = (Upstream::start()?, Upstream::start()?);
    let gone = harness::nobody()?;
    let yaml = format!(
        "upstreams: {{main: {}, shadow: {}, gone: {{endpoints: [\"http://{gone}\"], timeout: 1s}}}}
routes:
  - {{name: seen, match: {{path: /length}}, upstream: main, mirror: {{upstream: shadow}}}}
  - {{name: lost, match: {{path: /status}}, upstream: main, mirror: {{upstream: gone}}}}
",
        main.yaml(),
        shadow.yaml()
    );
    let gateway = Setup::new(&yaml)?.start()?;
    let count = |route: &str, result: &str| {
        gateway.metric(&format!("witgate_mirrored_total{{route=\"{route}\",result=\"{result}\"}}")).unwrap_or(0.0)
    };
    let mut client = gateway.client()?;
    assert_eq!(client.get("/length", &[])?.text(), "0");
    assert_eq!(client.send("POST", "/length", &[], &[b'x'; 5000])?.text(), "5000");
    client.write(
        b"POST /length HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n",
    )?;
    assert_eq!(client.read(false)?.text(), "7");
    wait_until("three copies", || count("seen", "answered") == 3.0);
    assert_eq!((main.requests(), shadow.requests()), (3, 3));
    assert_eq!(client.send("POST", "/length", &[], &vec![b'x'; 100_000])?.text(), "100000");
    wait_until("a copy that is too large", || count("seen", "body-too-large") == 1.0);
    for _ in 0..3 {
        assert_eq!(client.get("/status/201", &[])?.status, 201);
    }
    wait_until("failed copies", || count("lost", "failed") == 3.0);
    assert_eq!(shadow.requests(), 3);
    Ok(())
}

#[test]
fn a_route_has_bounds_of_its_own() -> Result<()> {
    let upstream = Upstream::start()?;
    let yaml = format!(
        "upstreams: {{u: {}}}
routes:
  - {{match: {{path: /length}}, limits: {{request_body_bytes: 10}}, upstream: u}}
  - {{match: {{path: /delay}}, limits: {{in_flight: 1}}, upstream: u}}
  - {{upstream: u}}
",
        upstream.yaml()
    );
    let gateway = Setup::new(&yaml)?.start()?;
    assert_eq!(gateway.client()?.send("POST", "/length", &[], &[b'x'; 10])?.text(), "10");
    assert_eq!(gateway.client()?.send("POST", "/length", &[], &[b'x'; 11])?.status, 413);
    let mut chunked = gateway.client()?;
    chunked.write(
        b"POST /length HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n6\r\nabcdef\r\n6\r\nabcdef\r\n0\r\n\r\n",
    )?;
    assert_eq!(chunked.read(false)?.status, 413);
    let before = upstream.requests();
    let mut first = gateway.client()?;
    first.begin("GET", "/delay/500", &[], b"")?;
    wait_until("the first request at the upstream", || upstream.requests() > before);
    let second = gateway.get("/delay/0", &[])?;
    assert_eq!((second.status, second.header("retry-after")), (503, Some("1")));
    assert_eq!(gateway.get("/status/204", &[])?.status, 204, "other routes are not concerned");
    assert_eq!(first.read(false)?.status, 200);
    // A client may have its answer a moment before the gateway is done with it.
    wait_until("the first one's place is free", || gateway.get("/delay/0", &[]).is_ok_and(|next| next.status == 200));
    Ok(())
}

#[test]
fn a_response_is_compressed_as_the_client_wishes() -> Result<()> {
    let text = "0123456789".repeat(500);
    let gateway = gateway(&format!(
        "  - {{match: {{path: /short}}, respond: {{body: short}}, compression: {{}}}}
  - {{match: {{path: /only}}, respond: {{body: \"{text}\"}}, compression: {{encodings: [gzip]}}}}
  - {{respond: {{body: \"{text}\"}}, compression: {{}}}}
"
    ))?;
    let mut client = gateway.client()?;
    for (path, accept, encoding) in [
        ("/", "gzip, deflate, br, zstd", Some("zstd")),
        ("/", "gzip, br;q=0.5", Some("gzip")),
        ("/", "br", Some("br")),
        ("/", "deflate", None),
        ("/only", "zstd, gzip;q=0.1", Some("gzip")),
        ("/short", "gzip", None),
    ] {
        let response = client.get(path, &[&format!("accept-encoding: {accept}")])?;
        assert_eq!(response.header("content-encoding"), encoding, "{path} {accept}");
        let vary = (path != "/short").then_some("Accept-Encoding");
        assert_eq!(response.header("vary"), vary, "{path} {accept}");
        if encoding == Some("gzip") {
            let mut plain = String::new();
            flate2::read::GzDecoder::new(&response.body[..]).read_to_string(&mut plain)?;
            assert_eq!(plain, text);
        }
        assert_eq!(encoding.is_some(), response.body.len() < text.len() && path != "/short", "{path} {accept}");
    }
    let head = client.send("HEAD", "/", &["accept-encoding: gzip"], b"")?;
    assert_eq!((head.status, head.header("content-encoding")), (200, None));
    assert_eq!(client.get("/", &[])?.text(), text, "the connection is still in step");
    Ok(())
}

#[test]
fn an_event_is_not_held_back_by_compression() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let yaml = format!(
        "upstreams: {{u: {{endpoints: [\"http://{}\"], timeout: 5s}}}}\nroutes: [{{upstream: u, compression: {{encodings: [gzip]}}}}]",
        listener.local_addr()?
    );
    let gateway = Setup::new(&yaml)?.start()?;
    let mut client = gateway.client()?;
    client.begin("GET", "/events", &["accept-encoding: gzip"], b"")?;
    let (mut upstream, _) = listener.accept()?;
    let mut head = [0; 4096];
    anyhow::ensure!(upstream.read(&mut head)? > 0);
    upstream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")?;
    assert_eq!(client.read_head()?.header("content-encoding"), Some("gzip"));
    let (mut encoded, mut seen) = (vec![], String::new());
    for number in 1..=3 {
        // The next event is sent only when this one has been read.
        let event = format!("data: {number}\n\n");
        upstream.write_all(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes())?;
        seen.push_str(&event);
        loop {
            encoded.extend(client.read_chunk()?.context("the stream ended early")?);
            let mut plain = vec![];
            // The stream goes on, so the decoder misses its end; what it gave so far counts.
            let _ = flate2::read::GzDecoder::new(&encoded[..]).read_to_end(&mut plain);
            if plain == seen.as_bytes() {
                break;
            }
        }
    }
    upstream.write_all(b"0\r\n\r\n")?;
    while let Some(chunk) = client.read_chunk()? {
        encoded.extend(chunk);
    }
    let mut plain = String::new();
    flate2::read::GzDecoder::new(&encoded[..]).read_to_string(&mut plain)?;
    assert_eq!(plain, seen);
    Ok(())
}
