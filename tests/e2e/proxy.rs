//! Without filters: routing, connections, bodies, failures of the upstream, limits.

use std::io::Write as _;
use std::process::Command;

use anyhow::Result;
use harness::{Client, Gateway, Setup, Upstream};

fn echo(routes: &str) -> Result<Gateway> {
    Setup::new(&format!("upstreams: {{echo: {{builtin: echo}}}}\nroutes: {routes}"))?.start()
}

fn behind(upstream: &Upstream, more: &str) -> Result<Gateway> {
    Setup::new(&format!("{more}\nupstreams: {{u: {}}}\nroutes: [{{name: all, upstream: u}}]", upstream.yaml()))?.start()
}

#[test]
fn routes_by_host_path_and_method() -> Result<()> {
    let gateway =
        echo("[{match: {path: /a, methods: [GET]}, upstream: echo}, {match: {host: x.test}, upstream: echo}]")?;
    let mut client = gateway.client()?;
    assert_eq!(client.get("/a/b?c=1", &[])?.json()["query"], "c=1");
    assert_eq!(client.send("POST", "/a", &[], b"")?.status, 404);
    assert_eq!(client.get("/b", &[])?.status, 404);
    let mut other = gateway.client()?;
    other.write(b"GET http://x.test/b HTTP/1.1\r\nhost: ignored\r\n\r\n")?;
    let response = other.read(false)?;
    assert_eq!((response.status, response.echoed("host").as_deref()), (200, Some("x.test")));
    Ok(())
}

#[test]
fn an_answer_of_the_gateway_says_little_to_the_client() -> Result<()> {
    let response = echo("[{match: {path: /a}, upstream: echo}]")?.get("/b", &[])?;
    assert_eq!(response.text(), "{\"error\":\"no route for this request\"}\n");
    assert_eq!(response.header("proxy-status"), Some("witgate; error=destination_not_found; details=\"no-route\""));
    Ok(())
}

#[test]
fn upstream_connections_are_kept() -> Result<()> {
    let upstream = Upstream::start()?;
    let gateway = behind(&upstream, "")?;
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
    let gateway = behind(&upstream, "")?;
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
fn fields_of_one_connection_stay_on_it() -> Result<()> {
    let upstream = Upstream::start()?;
    let gateway = behind(&upstream, "")?;
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
fn what_an_upstream_does_wrong_has_its_status() -> Result<()> {
    let upstream = Upstream::start()?;
    let gateway = behind(&upstream, "timeouts: {filters: 50ms}")?;
    assert_eq!(gateway.get("/status/503", &[])?.status, 503);
    assert_eq!(gateway.get("/reset", &[])?.status, 502);
    assert_eq!(gateway.get("/delay/3000", &[])?.status, 504);
    assert!(gateway.get("/cut", &[]).is_err(), "a body that was cut never ends cleanly");
    let free = harness::nobody()?;
    let refused =
        Setup::new(&format!("upstreams: {{u: {{endpoints: [\"http://{free}\"]}}}}\nroutes: [{{upstream: u}}]"))?
            .start()?;
    let response = refused.get("/", &[])?;
    assert_eq!((response.status, response.text().contains(&free.to_string())), (502, false));
    assert!(refused.wait_logged("an exchange failed", 1)[0].contains(&free.to_string()));
    Ok(())
}

#[test]
fn requests_above_the_limit_are_told_to_come_back() -> Result<()> {
    let upstream = Upstream::start()?;
    let gateway = behind(&upstream, "limits: {in_flight: 1}")?;
    let mut slow = gateway.client()?;
    slow.begin("GET", "/delay/500", &[], b"")?;
    harness::wait_until("the first is in flight", || gateway.metric("witgate_in_flight").is_ok_and(|n| n == 1.0));
    let response = gateway.get("/", &[])?;
    assert_eq!((response.status, response.header("retry-after")), (503, Some("1")));
    assert_eq!(slow.read(false)?.text(), "late");
    // The place is given back once the last byte was sent, which the client may read a moment earlier.
    harness::wait_until("its place is free", || gateway.metric("witgate_in_flight").is_ok_and(|n| n == 0.0));
    assert_eq!(gateway.get("/", &[])?.status, 200);
    Ok(())
}

#[test]
fn a_client_that_lets_the_gateway_wait_is_cut() -> Result<()> {
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
fn requests_that_are_not_http_are_refused() -> Result<()> {
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
fn http_1_0_is_answered_and_closed() -> Result<()> {
    let gateway = echo("[{upstream: echo}]")?;
    let mut client = gateway.client()?;
    client.write(b"GET /old HTTP/1.0\r\n\r\n")?;
    let response = client.read(false)?;
    assert_eq!((response.status, response.echoed("host").as_deref()), (200, Some("")));
    assert!(client.is_closed());
    Ok(())
}

#[test]
fn http2_without_tls_is_spoken() -> Result<()> {
    let gateway = echo("[{upstream: echo}]")?;
    let url = format!("http://{}/h2", gateway.address);
    let output = Command::new("curl")
        .args(["-s", "--max-time", "10", "--http2-prior-knowledge", "-w", "%{http_version}", "-d", "abc", &url])
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        said.ends_with('2') && said.contains("\"body\": \"abc\""),
        "{said} {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

#[test]
fn paths_do_not_become_labels() -> Result<()> {
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
    std::io::stdout().flush()?;
    Ok(())
}
