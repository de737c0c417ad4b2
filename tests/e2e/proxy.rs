//! Proxying without filters: routing, connections, bodies, upstream failures, limits.

use std::process::Command;

use anyhow::Result;
use harness::{Client, Gateway, Setup, Upstream};

/// A gateway whose routes use the echo upstream.
fn echo(routes: &str) -> Result<Gateway> {
    Setup::new(&format!("upstreams: {{echo: {{builtin: echo}}}}\nroutes: {routes}"))?.start()
}

/// A gateway that forwards every request to `upstream`. `more` are further top-level keys.
fn gateway_to(upstream: &Upstream, more: &str) -> Result<Gateway> {
    Setup::new(&format!("{more}\nupstreams: {{u: {}}}\nroutes: [{{name: all, upstream: u}}]", upstream.yaml()))?.start()
}

#[test]
fn routes_by_host_path_and_method() -> Result<()> {
    let gateway =
        echo("[{match: {path: /a, methods: [GET]}, upstream: echo}, {match: {host: x.test}, upstream: echo}]")?;
    let mut client = gateway.client()?;
    assert_eq!(client.get("/a/b?c=1", &[])?.json()["query"], "c=1");
    let refused = client.send("POST", "/a", &[], b"")?;
    assert_eq!((refused.status, refused.header("allow")), (405, Some("GET")));
    assert_eq!(client.send("POST", "/b", &[], b"")?.status, 404);
    assert_eq!(client.get("/b", &[])?.status, 404);
    let mut other = gateway.client()?;
    other.write(b"GET http://x.test/b HTTP/1.1\r\nhost: ignored\r\n\r\n")?;
    let response = other.read(false)?;
    assert_eq!((response.status, response.echoed("host").as_deref()), (200, Some("x.test")));
    Ok(())
}

#[test]
fn an_error_response_reveals_no_internals() -> Result<()> {
    let response = echo("[{match: {path: /a}, upstream: echo}]")?.get("/b", &[])?;
    let id = response.header("x-request-id").unwrap_or_default();
    let body = format!("{{\"error\":\"no route for this request\",\"request_id\":\"{id}\"}}\n");
    assert_eq!(response.text(), body);
    let status = format!("witgate; error=destination_not_found; details=\"no-route\"; request-id=\"{id}\"");
    assert_eq!(response.header("proxy-status"), Some(&*status));
    Ok(())
}

#[test]
fn upstream_connections_are_reused() -> Result<()> {
    let upstream = Upstream::start()?;
    let gateway = gateway_to(&upstream, "")?;
    let mut client = gateway.client()?;
    for _ in 0..50 {
        assert_eq!(client.get("/", &[])?.text(), "ok");
    }
    assert_eq!(upstream.connections(), 1);
    Ok(())
}

#[test]
fn bodies_pass_in_both_directions() -> Result<()> {
    let upstream = Upstream::start()?;
    let gateway = gateway_to(&upstream, "")?;
    let mut client = gateway.client()?;
    let large = vec![b'y'; 10 << 20];
    assert_eq!(client.send("POST", "/length", &[], &large)?.text(), large.len().to_string());
    assert_eq!(client.get("/bytes/10000000", &[])?.body.len(), 10_000_000);
    assert_eq!(client.get("/chunked", &[])?.text(), "abcde");
    client.write(
        b"POST /length HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n",
    )?;
    assert_eq!(client.read(false)?.text(), "7");
    let head = client.send("HEAD", "/", &[], b"")?;
    assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, Some("2"), 0));
    Ok(())
}

#[test]
fn hop_by_hop_fields_are_not_forwarded() -> Result<()> {
    let upstream = Upstream::start()?;
    let gateway = gateway_to(&upstream, "")?;
    let response = gateway.get("/nominated", &[])?;
    assert_eq!((response.header("x-secret"), response.header("keep-alive")), (None, None));
    let echo = echo("[{upstream: echo}]")?;
    let response = echo.get("/", &["connection: x-a, keep-alive", "x-a: 1", "te: trailers", "x-b: 2"])?;
    assert_eq!(
        (response.echoed("x-a"), response.echoed("te"), response.echoed("x-b").as_deref()),
        (None, None, Some("2"))
    );
    Ok(())
}

#[test]
fn upstream_failures_map_to_their_status() -> Result<()> {
    let upstream = Upstream::start()?;
    let gateway = gateway_to(&upstream, "timeouts: {filters: 50ms}")?;
    assert_eq!(gateway.get("/status/503", &[])?.status, 503);
    assert_eq!(gateway.get("/reset", &[])?.status, 502);
    assert_eq!(gateway.get("/delay/3000", &[])?.status, 504);
    assert!(gateway.get("/cut", &[]).is_err(), "a truncated body must not end cleanly");
    let free = harness::refusing_address()?;
    let refused =
        Setup::new(&format!("upstreams: {{u: {{endpoints: [\"http://{free}\"]}}}}\nroutes: [{{upstream: u}}]"))?
            .start()?;
    let response = refused.get("/", &[])?;
    assert_eq!((response.status, response.text().contains(&free.to_string())), (502, false));
    assert!(refused.wait_logged("an exchange failed", 1)[0].contains(&free.to_string()));
    Ok(())
}

#[test]
fn requests_above_the_in_flight_limit_get_retry_after() -> Result<()> {
    let upstream = Upstream::start()?;
    let gateway = gateway_to(&upstream, "limits: {in_flight: 1}")?;
    let mut slow = gateway.client()?;
    slow.begin("GET", "/delay/500", &[], b"")?;
    harness::wait_until("the first request is in flight", || {
        gateway.metric("witgate_in_flight").is_ok_and(|n| n == 1.0)
    });
    let response = gateway.get("/", &[])?;
    assert_eq!((response.status, response.header("retry-after")), (503, Some("1")));
    assert_eq!(slow.read(false)?.text(), "late");
    // The gateway releases the slot after it sent the last byte. The client may read that byte
    // earlier.
    harness::wait_until("the slot is free", || gateway.metric("witgate_in_flight").is_ok_and(|n| n == 0.0));
    assert_eq!(gateway.get("/", &[])?.status, 200);
    Ok(())
}

#[test]
fn slow_and_idle_clients_are_disconnected() -> Result<()> {
    let gateway = Setup::new(
        "timeouts: {request_head: 200ms, idle: 400ms}\nupstreams: {e: {builtin: echo}}\nroutes: [{upstream: e}]",
    )?
    .start()?;
    let mut half = gateway.client()?;
    half.write(b"GET / HTTP/1.1\r\nhos")?;
    let mut idle = gateway.client()?;
    assert_eq!(idle.get("/", &[])?.status, 200);
    assert_eq!(half.read(false)?.status, 408);
    assert!(half.is_closed() && idle.is_closed());
    Ok(())
}

#[test]
fn malformed_requests_are_refused() -> Result<()> {
    let gateway = echo("[{upstream: echo}]")?;
    for (request, status) in [
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", 400),
        ("CONNECT a:1 HTTP/1.1\r\nhost: a\r\n\r\n", 405),
        ("GET / HTTP/1.1\r\nhost : a\r\n\r\n", 400),
    ] {
        let mut client = Client::connect(gateway.address)?;
        client.write(request.as_bytes())?;
        assert_eq!(client.read(false)?.status, status, "{request:?}");
    }
    Ok(())
}

#[test]
fn two_gateways_do_not_share_a_port() -> Result<()> {
    let gateway = echo("[{upstream: echo}]")?;
    let yaml = "upstreams: {echo: {builtin: echo}}\nroutes: [{upstream: echo}]";
    let error = Setup::new(yaml)?.at(gateway.address).start().err().map(|error| error.to_string()).unwrap_or_default();
    assert!(error.contains("in use") && error.contains(&gateway.address.to_string()), "{error}");
    Ok(())
}

#[test]
fn http_1_0_gets_a_response_and_a_close() -> Result<()> {
    let gateway = echo("[{upstream: echo}]")?;
    let mut client = gateway.client()?;
    client.write(b"GET /old HTTP/1.0\r\n\r\n")?;
    let response = client.read(false)?;
    assert_eq!((response.status, response.echoed("host").as_deref()), (200, Some("")));
    assert!(client.is_closed());
    Ok(())
}

#[test]
fn http2_works_without_tls() -> Result<()> {
    let gateway = echo("[{upstream: echo}]")?;
    let url = format!("http://{}/h2", gateway.address);
    let output = Command::new("curl")
        .args(["-s", "--max-time", "10", "--http2-prior-knowledge", "-w", "%{http_version}", "-d", "abc", &url])
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        text.ends_with('2') && text.contains("\"body\": \"abc\""),
        "{text} {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

#[test]
fn metric_labels_contain_no_paths() -> Result<()> {
    let gateway = echo("[{name: all, upstream: echo}]")?;
    for path in ["/users/1", "/users/2", "/users/3"] {
        gateway.get(path, &[])?;
    }
    gateway.client()?.send("BREW", "/pot", &[], b"")?;
    assert_eq!(gateway.metric("witgate_requests_total{route=\"all\",method=\"GET\",status=\"200\"}")?, 3.0);
    assert_eq!(gateway.metric("witgate_requests_total{route=\"all\",method=\"other\",status=\"200\"}")?, 1.0);
    assert!(!gateway.admin("/metrics")?.text().contains("users"));
    assert_eq!(
        (gateway.admin("/healthz")?.status, gateway.admin("/readyz")?.status, gateway.admin("/x")?.status),
        (200, 200, 404)
    );
    Ok(())
}
