//! Calls of filters that lead back to the filter: they end, and no client can feign them.

use std::net::{SocketAddr, TcpListener};

use anyhow::Result;
use harness::{Gateway, Setup, Upstream};

/// A gateway whose filter calls the server at `to` for each request.
fn calling(to: SocketAddr) -> Result<Setup> {
    let yaml = format!(
        "timeouts: {{filters: 2s}}\n\
         upstreams: {{echo: {{builtin: echo}}, other: {{endpoints: [\"http://{to}\"], timeout: 5s}}}}\n\
         filters:\n  f:\n    source: f.wasm\n    capabilities: [http, crypto]\n    config: {{url: \"http://other/\"}}\n\
         \x20   http: {{origins: {{\"http://other\": {{upstream: other}}}}, wait: 5s}}\n\
         routes: [{{filters: [f], upstream: echo}}]"
    );
    Setup::new(&yaml)?.with_guest("f.wasm", "tests/rust/outbound")
}

fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

fn requests(gateway: &Gateway) -> Result<f64> {
    let text = gateway.admin("/metrics")?.text();
    let lines = text.lines().filter(|line| line.starts_with("witgate_requests_total"));
    Ok(lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
}

#[test]
fn a_loop_through_the_gateway_ends_with_508() -> Result<()> {
    let address = free_address()?;
    let gateway = calling(address)?.at(address).start()?;
    let text = gateway.get("/", &[])?.text();
    assert!(text.starts_with("200 ") && text.contains("508"), "{text}");
    assert_eq!(text.matches("200 ").count(), 2, "{text}");
    let logged = gateway.wait_logged("does a call lead back to this route?", 1);
    assert_eq!(logged.len(), 1);
    Ok(())
}

#[test]
fn a_loop_over_two_gateways_ends_with_508() -> Result<()> {
    let (one, two) = (free_address()?, free_address()?);
    let (first, second) = (calling(two)?.at(one).start()?, calling(one)?.at(two).start()?);
    let text = first.get("/", &[])?.text();
    assert!(text.starts_with("200 ") && text.contains("508"), "{text}");
    let (at_first, at_second) = (requests(&first)?, requests(&second)?);
    assert!(at_first <= 4.0 && at_second <= 4.0, "{at_first} and {at_second} requests");
    Ok(())
}

#[test]
fn a_client_cannot_feign_a_loop_of_calls() -> Result<()> {
    let service = Upstream::start()?;
    let gateway = calling(service.address)?.start()?;
    let mark = format!("1.1 witgate (call {})", "5".repeat(32));
    for feigned in ["1.1 witgate (call)", "1.1 witgate (call 5)", &mark, "1.0 other (x, 1.1 witgate (call))"] {
        let via = format!("via: {}", [feigned; 12].join(", "));
        assert_eq!(gateway.get("/", &[&via])?.text(), "200 2 ok", "{feigned}");
    }
    // Entries of forwarded requests count against the request itself, before any filter runs.
    let calls = service.requests();
    assert_eq!(gateway.get("/", &[&format!("via: {}", ["1.1 witgate"; 8].join(", "))])?.status, 508);
    assert_eq!(service.requests(), calls);
    Ok(())
}

#[test]
fn a_client_cannot_make_the_next_gateway_refuse_a_call() -> Result<()> {
    let behind = Setup::new("upstreams: {u: {builtin: echo}}\nroutes: [{upstream: u}]")?.start()?;
    let gateway = calling(behind.address)?.start()?;
    for entries in 0..8 {
        let via = format!("via: 1.0 other{}", ", 1.1 witgate".repeat(entries));
        let text = gateway.get("/", &[&via])?.text();
        assert!(text.starts_with("200 "), "{entries} entries: {text}");
    }
    Ok(())
}
