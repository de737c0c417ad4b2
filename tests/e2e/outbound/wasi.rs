//! Filters that were built with WASI: their requests by wasi:http pass the same list of origins.

use anyhow::Result;
use harness::{Gateway, Setup, Upstream};

fn setup(upstream: &Upstream, filter: &str) -> Result<Setup> {
    let yaml = format!(
        "timeouts: {{filters: 5s}}\n\
         upstreams: {{echo: {{builtin: echo}}, svc: {{endpoints: [\"http://{}\"], timeout: 10s}}}}\n\
         filters: {{f: {{source: f.wasm, timeout: 2s{filter}}}}}\nroutes: [{{filters: [f], upstream: echo}}]",
        upstream.address
    );
    Setup::new(&yaml)?.with_http_component("f.wasm", "filter")
}

/// What the filter says about a request to this authority.
fn fetch(gateway: &Gateway, authority: &str, headers: &[&str]) -> Result<String> {
    Ok(gateway.get(&format!("/?{authority}"), headers)?.text())
}

#[test]
fn requests_by_wasi_http_pass_the_grants_and_bounds_of_http() -> Result<()> {
    let upstream = Upstream::start()?;
    let grants = ", capabilities: [wasi, http], http: {origins: {\"http://svc\": {upstream: svc}}, calls: 2}";
    let gateway = setup(&upstream, grants)?.start()?;
    assert_eq!(fetch(&gateway, "svc", &[])?, "200");
    for authority in [upstream.address.to_string().as_str(), "127.0.0.1", "2130706433", "other", "169.254.169.254"] {
        let refused = fetch(&gateway, authority, &[])?;
        assert!(matches!(&*refused, "ErrorCode::HttpRequestDenied" | "ErrorCode::HttpRequestUriInvalid"), "{refused}");
    }
    assert_eq!(fetch(&gateway, "svc", &["x-times: 2"])?, "200");
    assert_eq!(fetch(&gateway, "svc", &["x-times: 3"])?, "ErrorCode::ConnectionLimitReached");
    let via = "via: 1.1 witgate (call), 1.1 witgate (call), 1.1 witgate (call)";
    assert_eq!(fetch(&gateway, "svc", &[via])?, "200", "a client cannot feign a loop");
    assert_eq!(upstream.requests(), 1 + 2 + 2 + 1);
    Ok(())
}

#[test]
fn imports_that_are_not_granted_or_do_not_exist_are_refused_by_name() -> Result<()> {
    let upstream = Upstream::start()?;
    for (granted, expected) in [
        ("", "add `capabilities: [wasi"),
        (", capabilities: [wasi]", "add `capabilities: [http]` to filters.f"),
        (", capabilities: [http]", "add `capabilities: [wasi"),
    ] {
        let (code, text) = setup(&upstream, granted)?.check()?;
        assert!(code != Some(0) && text.contains("imports wasi:") && text.contains(expected), "{granted}: {text}");
    }
    let yaml = "upstreams: {echo: {builtin: echo}}\nfilters: {f: {source: f.wasm, capabilities: [wasi, keyvalue]}}\n\
                routes: [{filters: [f], upstream: echo}]";
    for (import, expected) in [
        ("wasi:keyvalue/store@0.2.0", "import witgate:gateway/keyvalue@0.1.0 instead, with `capabilities: [keyvalue]`"),
        ("wasi:nn/graph@0.2.0", "it has wasi:http and the command world of WASI 0.2"),
        ("wasi:clocks/wall-clock@0.3.0", "it has wasi:http and the command world of WASI 0.2"),
    ] {
        let filter = harness::wat::importing(import)?;
        let (code, text) = Setup::new(yaml)?.with("f.wasm", filter)?.check()?;
        assert!(code != Some(0) && text.contains(import) && text.contains(expected), "{import}: {text}");
    }
    Ok(())
}
