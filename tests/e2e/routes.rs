//! Route features: precedence, rewrite, redirect, respond, traffic split, mirror, limits, CORS and
//! compression.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use anyhow::{Context as _, Result};
use harness::{Gateway, Response, Setup, Upstream, wait_until, wat};

/// A gateway with these routes and the echo upstream.
fn gateway(routes: &str) -> Result<Gateway> {
    let more = "upstreams: {echo: {builtin: echo}}\n";
    Setup::new(&format!("{more}routes:\n{routes}"))?.start()
}

/// The path and query that the echo upstream received.
fn target(response: &Response) -> String {
    let json = response.json();
    let query = json["query"].as_str().map(|query| format!("?{query}")).unwrap_or_default();
    format!("{}{query}", json["path"].as_str().unwrap_or_default())
}

#[test]
fn empty_segments_of_a_path_are_merged_or_kept() -> Result<()> {
    let routes = "upstreams: {echo: {builtin: echo}}\nroutes:\n  - {match: {path: /old}, redirect: {prefix: /}}\n  - {match: {path: /v1}, rewrite: {prefix: /v2}, upstream: echo}\n  - {upstream: echo}\n";
    for (setting, expected) in [("true", "/a/http:/b/"), ("false", "/a/http://b//")] {
        let gateway = Setup::new(&format!("merge_slashes: {setting}\n{routes}"))?.start()?;
        let mut client = gateway.client()?;
        assert_eq!(target(&client.get("/a/http://b//", &[])?), expected);
        assert_eq!(target(&client.get("/v1/a/http://b//", &[])?), format!("/v2{expected}"));
        // A location that begins with two slashes would name another host.
        let location = client.get("/old//evil.test/x", &[])?.header("location").map(str::to_owned);
        assert_eq!(location.as_deref(), Some("/evil.test/x"));
    }
    Ok(())
}

#[test]
fn the_most_specific_route_wins() -> Result<()> {
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
fn filters_see_the_original_request_and_the_upstream_the_rewritten_one() -> Result<()> {
    let stamp = wat::header_setter("x-seen", "1", "")?;
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
fn redirects_send_the_configured_location() -> Result<()> {
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
    assert_eq!(claimed.status, 308, "an untrusted x-forwarded-proto must not count");
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
    // The expected count is 100. It is outside these bounds once in more than ten million runs.
    let share = b.requests();
    assert!((50..=160).contains(&share) && a.requests() == 400 - share, "{share}");
    assert_eq!(none.requests(), 0);
    Ok(())
}

#[test]
fn a_route_overrides_the_timeout() -> Result<()> {
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
fn cors_allows_the_configured_origins() -> Result<()> {
    let deny = wat::responder(401, None, "no")?;
    let cors =
        "cors: {origins: ['https://*.example'], methods: [PUT], headers: [x-a], expose: [x-b], credentials: true}";
    let yaml = format!(
        "upstreams: {{echo: {{builtin: echo}}}}\nfilters: {{deny: {{source: deny.wasm}}}}
routes: [{{match: {{methods: [PUT]}}, filters: [deny], upstream: echo, {cors}}}]"
    );
    let gateway = Setup::new(&yaml)?.with("deny.wasm", deny)?.start()?;
    let mut client = gateway.client()?;
    let preflight_fields = ["origin: https://a.example", "access-control-request-method: PUT"];
    let preflight = client.send("OPTIONS", "/", &preflight_fields, b"")?;
    let fields = |response: &Response| {
        let selected = response.headers.iter().filter(|(name, _)| name.starts_with("access-control"));
        let mut lines: Vec<_> =
            selected.map(|(name, value)| format!("{}: {value}", &name["access-control-".len()..])).collect();
        lines.sort();
        lines.join(", ")
    };
    assert_eq!(preflight.status, 204);
    assert_eq!(
        fields(&preflight),
        "allow-credentials: true, allow-headers: x-a, allow-methods: PUT, allow-origin: https://a.example, max-age: 600"
    );
    // A filter's own response has the fields too, so that a script can read the refusal.
    let refusal = client.send("PUT", "/", &["origin: https://a.example"], b"")?;
    assert_eq!((refusal.status, refusal.header("vary")), (401, Some("Origin")));
    assert_eq!(fields(&refusal), "allow-credentials: true, allow-origin: https://a.example, expose-headers: x-b");
    let other = client.send("OPTIONS", "/", &["origin: https://evil.test", preflight_fields[1]], b"")?;
    assert_eq!((other.status, fields(&other).as_str()), (403, ""));
    assert_eq!(
        client.send("OPTIONS", "/", &["origin: https://a.example", "access-control-request-method: GET"], b"")?.status,
        404
    );
    Ok(())
}

#[test]
fn a_mirror_gets_copies_and_does_not_affect_the_exchange() -> Result<()> {
    let (main, shadow) = (Upstream::start()?, Upstream::start()?);
    let gone = harness::refusing_address()?;
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
    wait_until("three copies were answered", || count("seen", "answered") == 3.0);
    assert_eq!((main.requests(), shadow.requests()), (3, 3));
    assert_eq!(client.send("POST", "/length", &[], &vec![b'x'; 100_000])?.text(), "100000");
    wait_until("the large body is not mirrored", || count("seen", "body-too-large") == 1.0);
    for _ in 0..3 {
        assert_eq!(client.get("/status/201", &[])?.status, 201);
    }
    wait_until("three copies failed", || count("lost", "failed") == 3.0);
    assert_eq!(shadow.requests(), 3);
    Ok(())
}

#[test]
fn a_route_has_its_own_limits() -> Result<()> {
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
    wait_until("the first request reached the upstream", || upstream.requests() > before);
    let second = gateway.get("/delay/0", &[])?;
    assert_eq!((second.status, second.header("retry-after")), (503, Some("1")));
    assert_eq!(gateway.get("/status/204", &[])?.status, 204, "the limit does not apply to other routes");
    assert_eq!(first.read(false)?.status, 200);
    // The client may read the response before the gateway releases the slot.
    wait_until("the slot is free", || gateway.get("/delay/0", &[]).is_ok_and(|next| next.status == 200));
    Ok(())
}

#[test]
fn responses_are_compressed_by_accept_encoding() -> Result<()> {
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
    assert_eq!(client.get("/", &[])?.text(), text, "the connection must still be in sync");
    Ok(())
}

#[test]
fn a_listener_redirects_to_https_before_any_route() -> Result<()> {
    let yaml = "trusted_proxies: [127.0.0.2]\nupstreams: {echo: {builtin: echo}}\nroutes:
  - {match: {host: test, path: /api}, upstream: echo}
  - {match: {path: /.well-known/acme-challenge/}, respond: {body: challenge}}
";
    let gateway = Setup::new(yaml)?.listener("redirect_to_https: {port: 8443}").start()?;
    let mut client = gateway.client()?;
    for path in ["/api?a=b", "/api/x", "/none"] {
        let response = client.send("POST", path, &["authorization: secret"], b"body")?;
        assert_eq!(response.status, 308, "{path}");
        assert_eq!(response.header("location"), Some(format!("https://test:8443{path}").as_str()));
    }
    let claimed = client.get("/api", &["x-forwarded-proto: https"])?;
    assert_eq!(claimed.status, 308, "an untrusted client's x-forwarded-proto does not count");
    assert_eq!(client.get("/.well-known/acme-challenge/token", &[])?.text(), "challenge");
    client.write(b"GET /api HTTP/1.0\r\n\r\n")?;
    assert_eq!(client.read(false)?.status, 400, "there is no host to redirect to");
    Ok(())
}

#[test]
fn fields_that_only_a_proxy_sets_are_removed() -> Result<()> {
    let sent = ["x-real-ip: 1.2.3.4", "x_real_ip: 1.2.3.4", "X-Forwarded-User: root", "proxy: evil", "x-own: 1"];
    let routes = "upstreams: {echo: {builtin: echo}}\nroutes: [{upstream: echo}]\n";
    for (settings, kept) in [
        ("", &["x-own"][..]),
        ("untrusted_fields: [x-own]\n", &["x-real-ip", "x-forwarded-user", "proxy"]),
        ("untrusted_fields: []\n", &["x-own", "x-real-ip", "x-forwarded-user", "proxy"]),
        ("trusted_proxies: [127.0.0.1]\n", &["x-own", "x-real-ip", "x-forwarded-user", "proxy"]),
    ] {
        let gateway = Setup::new(&format!("{settings}{routes}"))?.start()?;
        let response = gateway.get("/", &sent)?;
        for name in ["x-own", "x-real-ip", "x-forwarded-user", "proxy"] {
            assert_eq!(response.echoed(name).is_some(), kept.contains(&name), "{settings}: {name}");
        }
    }
    Ok(())
}

#[test]
fn compression_does_not_delay_events() -> Result<()> {
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
        // Send the next event only after the client read this one.
        let event = format!("data: {number}\n\n");
        upstream.write_all(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes())?;
        seen.push_str(&event);
        loop {
            encoded.extend(client.read_chunk()?.context("the stream ended early")?);
            let mut plain = vec![];
            // The decoder reports a missing end because the stream continues. Its output still
            // counts.
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
