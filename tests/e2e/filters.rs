//! The filter chain: order, local responses, match rules, bodies, failing open and closed.

use anyhow::Result;
use harness::wat::{filter, header_setter, module, order_marker, responder, with_manifest};
use harness::{Gateway, Setup};

const TAIL: &str = "upstreams: {echo: {builtin: echo}}\nroutes:\n";

fn start(filters: &str, routes: &str, files: &[(&str, Vec<u8>)]) -> Result<Gateway> {
    let mut setup = Setup::new(&format!("filters:\n{filters}{TAIL}{routes}"))?;
    for (name, bytes) in files {
        setup = setup.with(name, bytes)?;
    }
    setup.start()
}

#[test]
fn requests_go_down_the_chain_and_responses_up() -> Result<()> {
    let files =
        [("a.wasm", order_marker("a", "")?), ("b.wasm", order_marker("b", "")?), ("c.wasm", order_marker("c", "")?)];
    let filters = "  a: {source: a.wasm}\n  b: {source: b.wasm}\n  c: {source: c.wasm}\n";
    let gateway = start(filters, "  - {filters: [a, b, c], upstream: echo}\n", &files)?;
    let response = gateway.get("/", &[])?;
    let up: Vec<&str> =
        response.headers.iter().filter(|field| field.0 == "x-order").map(|field| field.1.as_str()).collect();
    assert_eq!(up, ["c", "b", "a"]);
    let json = response.json();
    let down: Vec<_> = json["headers"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|field| field[0] == "x-order")
        .map(|field| field[1].clone())
        .collect();
    assert_eq!(down, ["a", "b", "c"]);
    Ok(())
}

#[test]
fn a_local_response_passes_only_the_filters_before_it() -> Result<()> {
    let files = [
        ("a.wasm", order_marker("a", "")?),
        ("b.wasm", responder(418, None, "short")?),
        ("c.wasm", order_marker("c", "")?),
    ];
    let filters = "  a: {source: a.wasm}\n  b: {source: b.wasm}\n  c: {source: c.wasm}\n";
    let gateway = start(filters, "  - {filters: [a, b, c], upstream: echo}\n", &files)?;
    let response = gateway.get("/", &[])?;
    let up: Vec<&str> =
        response.headers.iter().filter(|field| field.0 == "x-order").map(|field| field.1.as_str()).collect();
    assert_eq!((response.status, response.text().as_str(), up), (418, "short", vec!["a"]));
    Ok(())
}

#[test]
fn a_failed_filter_fails_closed_or_open_and_its_edits_are_dropped() -> Result<()> {
    let files = [("f.wasm", header_setter("x-a", "1", "(unreachable)")?)];
    let filters = "  closed: {source: f.wasm}\n  open: {source: f.wasm, on_error: open}\n";
    let routes = "  - {match: {path: /closed}, filters: [closed], upstream: echo}\n  - {match: {path: /open}, filters: [open], upstream: echo}\n";
    let gateway = start(filters, routes, &files)?;
    assert_eq!(gateway.get("/closed", &[])?.status, 502);
    let response = gateway.get("/open", &[])?;
    assert_eq!((response.status, response.echoed("x-a")), (200, None), "an edit before the trap is not applied");
    assert_eq!(gateway.metric("witgate_filter_errors_total{filter=\"open\",version=\"-\",kind=\"trap\"}")?, 1.0);
    Ok(())
}

#[test]
fn match_rules_decide_whether_a_filter_is_called() -> Result<()> {
    let files = [("f.wasm", header_setter("x-a", "1", "")?)];
    let routes = "  - {filters: [{filter: f, match: {methods: [POST], path: /in, header: x-go}}], upstream: echo}\n";
    let gateway = start("  f: {source: f.wasm}\n", routes, &files)?;
    let mut client = gateway.client()?;
    for (method, path, header, called) in [
        ("POST", "/in/x", "X-Go: 1", true),
        ("GET", "/in", "x-go: 1", false),
        ("POST", "/inner", "x-go: 1", false),
        ("POST", "/in", "x-no: 1", false),
    ] {
        let response = client.send(method, path, &[header], b"b")?;
        assert_eq!(response.echoed("x-a").is_some(), called, "{method} {path} {header}");
    }
    Ok(())
}

#[test]
fn the_time_budget_of_a_phase_ends_a_chain_of_slow_filters() -> Result<()> {
    let files = [("f.wasm", filter("(loop $l (br $l)) (unreachable)")?)];
    let yaml = "timeouts: {filters: 60ms}\nfilters:\n  f: {source: f.wasm, timeout: 50ms, on_error: open}\n";
    let mut setup = Setup::new(&format!("{yaml}{TAIL}  - {{filters: [f, f, f, f], upstream: echo}}\n"))?;
    for (name, bytes) in &files {
        setup = setup.with(name, bytes)?;
    }
    let gateway = setup.start()?;
    assert_eq!(gateway.get("/", &[])?.status, 200);
    // The first filter uses 50 of the 60 ms, the second one the rest.
    gateway.wait_logged("was used up before it", 2);
    assert_eq!(gateway.metric("witgate_filter_errors_total{filter=\"f\",version=\"-\",kind=\"deadline\"}")?, 4.0);
    Ok(())
}

#[test]
fn bodies_are_buffered_if_declared_and_bounded() -> Result<()> {
    let import = "(import \"witgate:gateway/request@0.1.0\" \"body\" (func $body (param i32)))";
    let reads = module(import, "(call $body (i32.const 1024)) (i32.const 0)")?;
    let manifest = r#"{"name":"f","version":"2.0.0","request":{"body":"buffer","body_bytes_max":1000}}"#;
    let files = [("with.wasm", with_manifest(reads.clone(), manifest)), ("without.wasm", reads)];
    let filters = "  with: {source: with.wasm, version: 2.0.0}\n  without: {source: without.wasm}\n";
    let routes = "  - {match: {path: /with}, filters: [with], upstream: echo}\n  - {match: {path: /without}, filters: [without], upstream: echo}\n";
    let gateway = start(filters, routes, &files)?;
    let mut client = gateway.client()?;
    assert_eq!(client.send("POST", "/with", &[], &[b'x'; 1000])?.json()["body"].as_str().map(str::len), Some(1000));
    assert_eq!(gateway.client()?.send("POST", "/with", &[], &[b'x'; 1001])?.status, 413);
    assert_eq!(gateway.client()?.send("POST", "/without", &[], b"x")?.status, 502, "the manifest declares no body");
    gateway.client()?.write(b"POST /with HTTP/1.1\r\nhost: t\r\ncontent-length: 100\r\n\r\npart")?;
    assert_eq!(client.get("/with", &[])?.status, 200, "a client that disconnects does not affect others");
    Ok(())
}

#[test]
fn buffered_bodies_of_all_exchanges_share_one_limit() -> Result<()> {
    let import = "(import \"witgate:gateway/request@0.1.0\" \"body\" (func $body (param i32)))";
    let manifest = r#"{"name":"f","version":"2.0.0","request":{"body":"buffer","body_bytes_max":1000000}}"#;
    let wasm = with_manifest(module(import, "(i32.const 0)")?, manifest);
    let yaml = format!(
        "limits: {{buffered_bytes: 64KiB}}\nfilters: {{f: {{source: f.wasm}}}}\n{TAIL}  - {{filters: [f], upstream: echo}}\n"
    );
    let gateway = Setup::new(&yaml)?.with("f.wasm", wasm)?.start()?;
    assert_eq!(gateway.client()?.send("POST", "/", &[], &[b'x'; 60_000])?.status, 200);
    let response = gateway.client()?.send("POST", "/", &[], &[b'x'; 70_000])?;
    assert_eq!((response.status, response.header("retry-after")), (503, Some("1")));
    assert_eq!(
        gateway.client()?.send("POST", "/", &[], &[b'x'; 60_000])?.status,
        200,
        "the buffer's bytes are released"
    );
    Ok(())
}
