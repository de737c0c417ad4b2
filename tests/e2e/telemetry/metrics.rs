//! Metrics of exchanges and filter calls, and the bound on the number of series.

use std::process::Command;

use anyhow::{Context as _, Result};
use harness::wat::{filter, header_setter};
use harness::{Gateway, Setup, Upstream, repository, wait_until};

fn series(gateway: &Gateway) -> usize {
    let text = gateway.admin("/metrics").map(|response| response.text()).unwrap_or_default();
    text.lines().filter(|line| line.starts_with("witgate_")).count()
}

#[test]
fn exchanges_and_calls_are_measured() -> Result<()> {
    let upstream = Upstream::start()?;
    let yaml = format!(
        "filters: {{a: {{source: a.wasm}}, b: {{source: b.wasm, on_error: open}}}}\nupstreams: {{u: {}}}\n\
         routes: [{{name: api, filters: [a, b], upstream: u}}]",
        upstream.yaml()
    );
    let gateway = Setup::new(&yaml)?
        .with("a.wasm", header_setter("x-a", "1", "")?)?
        .with("b.wasm", filter("(unreachable)")?)?
        .start()?;
    let mut client = gateway.client()?;
    assert_eq!(client.send("POST", "/length", &[], &[b'x'; 1000])?.text(), "1000");
    assert_eq!(client.get("/status/503", &[])?.status, 503);
    let count = |line: &str, expected: f64| {
        wait_until(&format!("{line} {expected}"), || gateway.metric(line).is_ok_and(|value| value == expected));
    };
    count("witgate_listener_requests_total{listener=\"main\",class=\"5xx\"}", 1.0);
    count("witgate_exchange_duration_seconds_count{route=\"api\",class=\"2xx\"}", 1.0);
    count("witgate_received_bytes_total{route=\"api\"}", 1000.0);
    count("witgate_sent_bytes_total{route=\"api\"}", 4.0);
    count("witgate_route_in_flight{route=\"api\"}", 0.0);
    count("witgate_filter_calls_in_flight{filter=\"b\",version=\"-\"}", 0.0);
    let metric = |line: &str| gateway.metric(line);
    assert!(metric("witgate_filter_cpu_seconds_total{filter=\"a\",version=\"-\"}")? > 0.0);
    assert!(metric("witgate_filter_memory_peak_bytes{filter=\"a\",version=\"-\"}")? >= 65536.0);
    let instances = |kind| {
        metric(&format!("witgate_filter_call_instances_total{{filter=\"a\",version=\"-\",instance=\"{kind}\"}}"))
    };
    assert_eq!(instances("new")? + instances("idle")?, 2.0);
    client.begin("GET", "/delay/500", &[], b"")?;
    count("witgate_route_in_flight{route=\"api\"}", 1.0);
    client.read(false)?;
    count("witgate_route_in_flight{route=\"api\"}", 0.0);
    Ok(())
}

#[test]
fn clients_cannot_make_series() -> Result<()> {
    let yaml = "upstreams: {echo: {builtin: echo}}\nroutes: [{name: all, upstream: echo}]";
    let gateway = Setup::new(yaml)?.workers(1).start()?;
    let mut client = gateway.client()?;
    client.get("/", &[])?;
    client.send("INVENTED", "/", &[], b"")?;
    wait_until("the first series", || series(&gateway) > 0);
    let before = series(&gateway);
    for index in 0..2000 {
        client.get(&format!("/{index}?q={index}"), &[&format!("user-agent: {index}")])?;
    }
    for index in 0..20 {
        client.send(&format!("INVENTED{index}"), "/", &[], b"")?;
    }
    assert_eq!(series(&gateway), before);
    Ok(())
}

#[test]
fn the_recording_rules_are_valid() -> Result<()> {
    let rules = repository().join("deploy/prometheus/rules.yml");
    let output = Command::new("promtool").args(["check", "rules"]).arg(&rules).output();
    let output = output.context("promtool is missing: run `tests/tools/install promtool`")?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
