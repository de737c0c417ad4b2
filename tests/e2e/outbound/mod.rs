//! Calls of filters to other services, and cryptography: what is granted, refused and bounded.

mod addresses;
mod figures;
mod filters;
mod loops;
mod service;
mod spans;
mod wasi;

use std::time::Duration;

use anyhow::Result;
use harness::{Gateway, Setup, Upstream};

/// A gateway with the fixture `outbound` as its only filter, which may call the upstream at
/// `http://svc`. `filter` has more keys of the filter, `http` more keys of its `http`.
fn start(upstream: &Upstream, filter: &str, http: &str) -> Result<Gateway> {
    let yaml = format!(
        "timeouts: {{filters: 2s}}\n\
         upstreams: {{echo: {{builtin: echo}}, svc: {{endpoints: [\"http://{}\"], timeout: 5s}}}}\n\
         filters:\n  f:\n    source: f.wasm\n    capabilities: [http, crypto]\n    {filter}\n\
         \x20   http: {{origins: {{\"http://svc\": {{upstream: svc}}}}, {http}}}\n\
         routes: [{{filters: [f], upstream: echo}}]",
        upstream.address
    );
    Setup::new(&yaml)?.with_guest("f.wasm", "tests/rust/outbound")?.start()
}

/// A service that answers with the request that it received.
fn echo_gateway() -> Result<Gateway> {
    Setup::new("upstreams: {echo: {builtin: echo}}\nroutes: [{upstream: echo}]")?.start()
}

/// What the filter says about a call of this URL.
fn call(gateway: &Gateway, query: &str, url: &str) -> Result<String> {
    Ok(gateway.get(&format!("/?{query}"), &[&format!("x-url: {url}")])?.text())
}

#[test]
fn a_filter_gets_the_response_of_a_granted_origin() -> Result<()> {
    let upstream = Upstream::start()?;
    let gateway = start(&upstream, "timeout: 200ms", "")?;
    assert_eq!(call(&gateway, "", "http://svc/any")?, "200 2 ok");
    assert_eq!(call(&gateway, "", "HTTP://SVC:80/status/404")?, "404 0 ");
    assert_eq!(call(&gateway, "", "http://svc/chunked")?, "200 5 abcde");
    assert_eq!(call(&gateway, "method=POST&bytes=1000", "http://svc/length")?, "200 4 1000");
    let requests = upstream.requests();
    assert_eq!(call(&gateway, "", "http://svc/status/302")?, "302 0 ", "a redirect is not followed");
    assert_eq!(upstream.requests() - requests, 1);
    for path in ["/reset", "/cut"] {
        let failed = call(&gateway, "method=POST", &format!("http://svc{path}"))?;
        assert!(
            failed.starts_with("unavailable: svc: the upstream did not send a complete, valid response"),
            "{failed}"
        );
    }
    let shown = gateway.admin("/filters")?.json()[0].clone();
    assert_eq!(shown["http"], serde_json::json!({"http://svc": "svc"}));
    Ok(())
}

#[test]
fn waiting_does_not_count_as_work_and_has_a_bound_of_its_own() -> Result<()> {
    let upstream = Upstream::start()?;
    let gateway = start(&upstream, "timeout: 150ms", "wait: 1500ms")?;
    assert_eq!(call(&gateway, "", "http://svc/delay/600")?, "200 4 late");
    let late = call(&gateway, "times=4", "http://svc/delay/600")?;
    assert!(late.starts_with("timeout: ") && late.contains("filters.f.http.wait"), "{late}");
    let own = call(&gateway, "timeout=100", "http://svc/delay/60000")?;
    assert!(own.starts_with("timeout: no complete response within 100ms"), "{own}");
    let halted = call(&gateway, "timeout=100", "http://svc/halt")?;
    assert!(halted.starts_with("timeout: "), "{halted}");
    // Work after the wait is still bounded.
    let spinning = gateway.get("/?op=spin", &["x-url: http://svc/delay/300"])?;
    assert_eq!(spinning.status, 504);
    Ok(())
}

#[test]
fn calls_are_bounded_in_number_and_size() -> Result<()> {
    let upstream = Upstream::start()?;
    let gateway = start(&upstream, "", "calls: 3, request_bytes: 1KiB, response_bytes: 10KiB")?;
    assert_eq!(call(&gateway, "times=3", "http://svc/")?, "200 2 ok");
    let many = call(&gateway, "times=4", "http://svc/")?;
    assert!(many.starts_with("limit: 4 calls in one handler; filters.f.http.calls is 3"), "{many}");
    let large = call(&gateway, "bytes=1025", "http://svc/")?;
    assert!(large.contains("filters.f.http.request_bytes is 1024"), "{large}");
    assert!(call(&gateway, "", "http://svc/bytes/10240")?.starts_with("200 10240 "));
    let large = call(&gateway, "", "http://svc/bytes/10241")?;
    assert!(large.starts_with("limit: ") && large.contains("http.response_bytes"), "{large}");
    // A flood of refused calls costs its own time and nobody else's.
    assert_eq!(gateway.get("/?op=flood&times=1000000", &[])?.status, 504);
    assert_eq!(call(&gateway, "", "http://svc/")?, "200 2 ok");
    Ok(())
}

#[test]
fn response_bytes_count_as_held_bytes() -> Result<()> {
    let upstream = Upstream::start()?;
    let yaml = format!(
        "limits: {{buffered_bytes: 1MiB, buffered_bytes_per_client: 1MiB}}\n\
         upstreams: {{echo: {{builtin: echo}}, svc: {{endpoints: [\"http://{}\"]}}}}\n\
         filters:\n  f:\n    source: f.wasm\n    capabilities: [http, crypto]\n\
         \x20   http: {{origins: {{\"http://svc\": {{upstream: svc}}}}, response_bytes: 4MiB}}\n\
         routes: [{{filters: [f], upstream: echo}}]",
        upstream.address
    );
    let gateway = Setup::new(&yaml)?.with_guest("f.wasm", "tests/rust/outbound")?.start()?;
    assert!(call(&gateway, "", "http://svc/bytes/500000")?.starts_with("200 500000 "));
    let above = call(&gateway, "", "http://svc/bytes/2000000")?;
    assert!(above.starts_with("limit: ") && above.contains("limits.buffered_bytes"), "{above}");
    harness::wait_until("the bytes are returned", || {
        gateway.metric("witgate_buffered_bytes").is_ok_and(|bytes| bytes == 0.0)
    });
    Ok(())
}

/// Calls that wait at the same time.
const WAITING: usize = 300;

#[test]
fn calls_that_wait_hold_no_thread() -> Result<()> {
    let upstream = Upstream::start()?;
    let gateway = start(&upstream, "timeout: 1s\n    concurrency: 1000", "wait: 20s")?;
    let mut clients = (0..WAITING).map(|_| gateway.client()).collect::<Result<Vec<_>>>()?;
    for client in &mut clients {
        client.begin("GET", "/", &["x-url: http://svc/delay/2000"], b"")?;
    }
    harness::wait_until("all calls wait", || upstream.requests() >= WAITING);
    let threads = std::fs::read_dir(format!("/proc/{}/task", gateway.id()))?.count();
    assert!(threads < 40, "{threads} threads");
    for mut client in clients {
        assert_eq!(client.read(false)?.text(), "200 4 late");
    }
    Ok(())
}

#[test]
fn a_client_that_leaves_ends_the_call() -> Result<()> {
    let upstream = Upstream::start()?;
    let gateway = start(&upstream, "", "wait: 60s")?;
    let mut client = gateway.client()?;
    client.begin("GET", "/", &["x-url: http://svc/halt"], b"")?;
    harness::wait_until("the call waits", || upstream.requests() == 1);
    drop(client);
    harness::wait_up_to(Duration::from_secs(20), "the instance is gone", || {
        gateway.metric("witgate_in_flight").is_ok_and(|number| number == 0.0)
    });
    Ok(())
}

#[test]
fn keys_of_the_operator_work_without_entering_the_filter() -> Result<()> {
    let upstream = Upstream::start()?;
    let pair = rcgen::KeyPair::generate()?.serialize_pem();
    let yaml = "upstreams: {echo: {builtin: echo}}\n\
         filters:\n  f:\n    source: f.wasm\n    capabilities: [http, crypto]\n    timeout: 2s\n\
         \x20   crypto: {keys: {shared: \"hex:000102030405060708090a0b0c0d0e0f\", pair: {file: pair.pem}, text: s3cret}}\n\
         timeouts: {filters: 5s}\nroutes: [{filters: [f], upstream: echo}]";
    let setup = Setup::new(yaml)?.with("pair.pem", &pair)?;
    let gateway = setup.with_guest("f.wasm", "tests/rust/outbound")?.start()?;
    let run = |query: &str| Ok::<_, anyhow::Error>(gateway.get(&format!("/?op=crypto&{query}"), &[])?.text());
    for (query, expected) in [
        ("what=hmac", "32"),
        ("what=hmac&key=text", "32"),
        ("what=sign&key=pair", "true"),
        ("what=seal", "20 Some([100, 97, 116, 97])"),
        ("what=derive&iterations=1000", "64"),
        ("what=derive&iterations=100000", "64"),
        ("what=digest", "20"),
    ] {
        assert_eq!(run(query)?, expected, "{query}");
    }
    for (query, expected) in [
        ("what=hmac&key=absent", "add it to filters.f.crypto.keys"),
        ("what=sign", "InvalidKey"),
        ("what=seal&key=text", "16 or 32 bytes, not 6"),
        ("what=derive&iterations=1000001", "not between 1 and 1000000"),
        ("what=derive&iterations=0", "not between 1 and 1000000"),
    ] {
        let refused = run(query)?;
        assert!(refused.contains(expected), "{query}: {refused}");
        assert!(!refused.contains("s3cret") && !refused.contains("00010203"), "{refused}");
    }
    assert_eq!(gateway.admin("/filters")?.json()[0]["crypto"], serde_json::json!(["pair", "shared", "text"]));
    drop(upstream);
    Ok(())
}

#[test]
fn a_filter_that_is_not_granted_a_service_is_refused() -> Result<()> {
    for (granted, expected) in [
        ("", "add `capabilities: [http]` to filters.f"),
        ("capabilities: [http]", "add `capabilities: [crypto]` to filters.f"),
        ("http: {}", "has no effect without `capabilities: [http]`"),
    ] {
        let yaml = format!(
            "upstreams: {{echo: {{builtin: echo}}}}\nfilters: {{f: {{source: f.wasm, {granted}}}}}\nroutes: [{{filters: [f], upstream: echo}}]"
        );
        let (code, text) = Setup::new(&yaml)?.with_guest("f.wasm", "tests/rust/outbound")?.check()?;
        assert!(code != Some(0) && text.contains(expected), "{granted}: {text}");
    }
    Ok(())
}
