//! What a route does by itself: which one wins, rewrite, redirect, respond, split, CORS.

use anyhow::Result;
use harness::{Gateway, Response, Setup, Upstream, wat};

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
        "  - {match: {path: /secure}, redirect: {status: 308, scheme: https}}
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
