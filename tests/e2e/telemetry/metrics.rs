//! Metrics of exchanges and filter calls, and the bound on the number of series.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use harness::tls::{Authority, TlsClient};
use harness::wat::{component, filter, header_setter, with_manifest};
use harness::{Gateway, Setup, Upstream, repository, wait_until, wait_up_to};

/// The names of all series with their labels, but for those that begin with the first check of the
/// files.
fn series(gateway: &Gateway) -> BTreeSet<String> {
    let text = gateway.admin("/metrics").map(|response| response.text()).unwrap_or_default();
    let lines = text.lines().filter(|line| line.starts_with("witgate_") && !line.contains("files_checked"));
    lines.filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned())).collect()
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
fn calls_of_capabilities_are_counted() -> Result<()> {
    // The second key is longer than a key may be.
    let source = component(
        "include request-filter; import keyvalue;",
        "(module
           (import \"witgate:gateway/keyvalue@0.1.0\" \"get\" (func $get (param i32 i32 i32)))
           (memory (export \"memory\") 3)
           (func (export \"cabi_realloc\") (param i32 i32 i32 i32) (result i32) (i32.const 131072))
           (func (export \"witgate:gateway/request-handler@0.1.0#handle-request\") (result i32)
             (call $get (i32.const 4096) (i32.const 4) (i32.const 1024))
             (call $get (i32.const 4096) (i32.const 1000) (i32.const 1024))
             (i32.const 2048)))",
    )?;
    let yaml = "filters: {f: {source: f.wasm, capabilities: [keyvalue]}}\nupstreams: {echo: {builtin: echo}}\n\
                routes: [{filters: [f], upstream: echo}]";
    let gateway = Setup::new(yaml)?.with("f.wasm", source)?.start()?;
    for _ in 0..3 {
        assert_eq!(gateway.get("/", &[])?.status, 200);
    }
    for result in ["ok", "error"] {
        let labels = format!("{{filter=\"f\",version=\"-\",capability=\"keyvalue\",result=\"{result}\"}}");
        assert_eq!(gateway.metric(&format!("witgate_filter_capability_calls_total{labels}"))?, 3.0, "{result}");
    }
    Ok(())
}

#[test]
fn clients_cannot_make_series() -> Result<()> {
    const PATHS: usize = 100_000;
    let yaml = "upstreams: {echo: {builtin: echo}}\nroutes: [{name: all, match: {path: /known}, upstream: echo}]";
    let gateway = Setup::new(yaml)?.level("error").workers(1).start()?;
    let mut client = gateway.client()?;
    assert_eq!((client.get("/known/0", &[])?.status, client.get("/0", &[])?.status), (200, 404));
    client.send("INVENTED", "/", &[], b"")?;
    let ended = "witgate_listener_requests_total{listener=\"main\",class=\"4xx\"}";
    wait_until("the first exchanges have ended", || gateway.metric(ended).is_ok_and(|count| count == 2.0));
    let before = series(&gateway);
    // Pipelined, because this test is about the number and not about the pace.
    for batch in 0..PATHS / 100 {
        let path = |index: usize| {
            format!("/{}{}?q={index}", ["", "known/"][usize::from(index.is_multiple_of(100))], batch * 100 + index)
        };
        let requests = (0..100).map(|index| format!("HEAD {} HTTP/1.1\r\nhost: {batch}.test\r\n\r\n", path(index)));
        client.write(requests.collect::<String>().as_bytes())?;
        for _ in 0..100 {
            client.read(true)?;
        }
    }
    for index in 0..20 {
        client.send(&format!("INVENTED{index}"), "/", &[], b"")?;
    }
    // HEAD was not among the first requests: a series for each of its two statuses.
    assert_eq!(series(&gateway).difference(&before).count(), 2);
    assert_eq!(gateway.metric("witgate_requests_total{route=\"all\",method=\"HEAD\",status=\"200\"}")?, 1000.0);
    Ok(())
}

#[test]
fn names_of_handshakes_and_invented_statuses_make_no_series() -> Result<()> {
    let (ca, upstream) = (Authority::new("ca")?, Upstream::start()?);
    let issued = ca.issue(&["a.test"])?;
    let yaml = format!("upstreams: {{u: {}}}\nroutes: [{{name: api, upstream: u}}]", upstream.yaml());
    let gateway = Setup::new(&yaml)?
        .with("0.pem", &issued.certificate)?
        .with("0.key", &issued.key)?
        .listener("tls: {certificates: [{certificate: 0.pem, key: 0.key}]}")
        .start()?;
    let client = TlsClient::new(&ca)?;
    let (mut http, _) = client.connect(gateway.address, "a.test")?;
    for status in [200, 299, 499, 599] {
        assert_eq!(http.get(&format!("/status/{status}"), &[])?.status, status);
    }
    assert!(client.connect(gateway.address, "other.test").is_err());
    let ended = "witgate_listener_requests_total{listener=\"main\",class=\"5xx\"}";
    wait_until("the first exchanges have ended", || gateway.metric(ended).is_ok_and(|count| count == 1.0));
    let before = series(&gateway);
    for index in 0..300 {
        let _ = client.connect(gateway.address, &format!("h{index}.test"));
        let status = 400 + index % 200;
        if http::StatusCode::from_u16(status).is_ok_and(|status| status.canonical_reason().is_none()) {
            assert_eq!(http.get(&format!("/status/{status}"), &[])?.status, status);
        }
    }
    assert_eq!(series(&gateway).difference(&before).collect::<Vec<_>>(), Vec::<&String>::new());
    Ok(())
}

#[test]
fn versions_of_the_past_leave_no_series() -> Result<()> {
    const LAST: u32 = 12;
    let version = |number: u32| -> Result<Vec<u8>> {
        let manifest = format!(r#"{{"name":"f","version":"1.0.{number}","request":{{}}}}"#);
        Ok(with_manifest(header_setter("x-a", "1", "")?, &manifest))
    };
    let yaml = "reload: {interval: 100ms}\nfilters: {f: {source: f.wasm}}\nupstreams: {echo: {builtin: echo}}\n\
                routes: [{filters: [f], upstream: echo}]";
    let gateway = Setup::new(yaml)?.with("f.wasm", version(0)?)?.start()?;
    for number in 0..=LAST {
        gateway.replace("f.wasm", version(number)?)?;
        let calls = format!("witgate_filter_calls_total{{filter=\"f\",version=\"1.0.{number}\",phase=\"request\"}}");
        wait_until(&calls, || {
            assert!(gateway.get("/", &[]).is_ok_and(|response| response.status == 200));
            gateway.metric(&calls).is_ok_and(|count| count > 0.0)
        });
    }
    wait_up_to(Duration::from_secs(20), "only the last version has series", || {
        let all = series(&gateway);
        let of_past = all.iter().filter(|name| name.contains("version=\"1.0.") && !name.contains("version=\"1.0.12\""));
        let left: Vec<_> = of_past.collect();
        println!("left: {left:?}");
        left.is_empty()
    });
    Ok(())
}

#[test]
fn removed_routes_and_filters_leave_no_series() -> Result<()> {
    let route = |index: usize| {
        format!(
            "- {{name: r{index}, match: {{path: /{index}}}, filters: [f{index}], upstream: echo, mirror: {{upstream: u{index}}}, \
             rate_limit: {{limit: 5, window: 1m}}}}\n"
        )
    };
    let filter = |index: usize| format!("  f{index}: {{source: f.wasm, release: {{hold: 1h}}}}\n");
    let yaml = |count: usize| {
        let each = |write: &dyn Fn(usize) -> String| (0..count).map(write).collect::<String>();
        let upstream = |index: usize| format!("  u{index}: {{endpoints: [\"http://127.0.0.1:1\"]}}\n");
        let (filters, routes, upstreams) = (each(&filter), each(&route), each(&upstream));
        // Nothing listens there. A store counts all the same.
        let store =
            |index: usize| format!("  s{index}: {{redis: {{url: \"redis://127.0.0.1:1\"}}, on_failure: local}}\n");
        let stores: String = (0..count.min(3)).map(store).collect();
        let stores = if stores.is_empty() { stores } else { format!("stores:\n{stores}") };
        format!(
            "{stores}filters:\n  kept: {{source: f.wasm}}\n{filters}upstreams:\n  echo: {{builtin: echo}}\n{upstreams}\
             routes:\n- {{name: kept, match: {{path: /kept}}, filters: [kept], upstream: echo}}\n{routes}"
        )
    };
    let setup = Setup::new(&yaml(0))?.with("f.wasm", header_setter("x-a", "1", "")?)?;
    let (without, with) = (setup.text(&yaml(0)), setup.text(&yaml(100)));
    let gateway = setup.start()?;
    assert_eq!(gateway.get("/kept", &[])?.status, 200);
    let ended = "witgate_exchange_duration_seconds_count{route=\"kept\",class=\"2xx\"}";
    wait_until("the first exchange has ended", || gateway.metric(ended).is_ok_and(|count| count == 1.0));
    let before = series(&gateway);
    let reload = |text: &str, expected: usize| -> Result<()> {
        let routes = || gateway.admin("/routes").map_or(0, |response| response.json().as_array().map_or(0, Vec::len));
        gateway.replace("gateway.yaml", text)?;
        wait_until("the configuration is in service", || {
            let _ = gateway.signal(rustix::process::Signal::HUP);
            routes() == expected
        });
        Ok(())
    };
    reload(&with, 101)?;
    for index in 0..100 {
        assert_eq!(gateway.get(&format!("/{index}"), &[])?.status, 200);
    }
    assert!(series(&gateway).len() > before.len() + 100 * 20);
    reload(&without, 1)?;
    wait_up_to(Duration::from_secs(20), "the series of removed routes are gone", || {
        let now = series(&gateway);
        println!("left: {:?}", now.difference(&before).collect::<Vec<_>>());
        now == before
    });
    Ok(())
}

#[test]
fn counters_with_known_labels_begin_at_zero() -> Result<()> {
    let upstream = Upstream::start()?;
    let yaml = format!(
        "filters: {{f: {{source: f.wasm, release: {{hold: 1h}}}}}}\nupstreams: {{u: {}}}\n\
         routes: [{{name: api, filters: [f], upstream: u, mirror: {{upstream: u}}, rate_limit: {{limit: 5, window: 1m}}}}]",
        upstream.yaml()
    );
    let gateway = Setup::new(&yaml)?.with("f.wasm", header_setter("x-a", "1", "")?)?.start()?;
    let text = gateway.admin("/metrics")?.text();
    let endpoint = upstream.address;
    for line in [
        "reloads_total{result=\"refused\"}".to_owned(),
        "filter_errors_total{filter=\"f\",version=\"-\",kind=\"memory\"}".into(),
        "filter_load_failures_total{filter=\"f\",reason=\"proposal\"}".into(),
        "exchange_duration_seconds_count{route=\"api\",class=\"5xx\"}".into(),
        "listener_requests_total{listener=\"main\",class=\"5xx\"}".into(),
        "mirrored_total{route=\"api\",result=\"failed\"}".into(),
        "rate_limit_decisions_total{route=\"api\",result=\"limited\"}".into(),
        "upstream_retries_total{upstream=\"u\",result=\"failed\"}".into(),
        format!("upstream_requests_total{{upstream=\"u\",endpoint=\"{endpoint}\",result=\"connect\"}}"),
        format!("endpoint_ejections_total{{upstream=\"u\",endpoint=\"{endpoint}\"}}"),
        "release_decisions_total{filter=\"f\",decision=\"rolled_back\"}".into(),
    ] {
        assert!(text.contains(&format!("\nwitgate_{line} 0\n")), "witgate_{line} 0 is not in\n{text}");
    }
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
