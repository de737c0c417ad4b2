//! Metrics and the access log over OTLP, and a receiver that is away.

use std::time::Duration;

use anyhow::{Context as _, Result};
use harness::otlp::{OtlpReceiver, Point, Received};
use harness::{Setup, Upstream, refusing_address, wait_until, wait_up_to};

/// The data point with this name and this attribute.
fn point(received: &Received, name: &str, (key, value): (&str, &str)) -> Option<Point> {
    let has = |point: &&Point| point.name == name && point.attributes.get(key).is_some_and(|own| own == value);
    received.points.iter().find(has).cloned()
}

#[test]
fn metrics_and_the_access_log_arrive_over_both_transports() -> Result<()> {
    for (receiver, protocol) in [(OtlpReceiver::http()?, "http"), (OtlpReceiver::grpc()?, "grpc")] {
        let upstream = Upstream::start()?;
        let yaml = format!(
            "telemetry: {{service_name: edge, metrics: {{interval: 1s}}, traces: {{sample: 1}}, otlp: {{\
             endpoint: \"http://{}\", protocol: {protocol}, headers: {{authorization: Bearer s3cret}}}}}}\n\
             upstreams: {{u: {}}}\nroutes: [{{name: api, upstream: u}}]",
            receiver.address,
            upstream.yaml()
        );
        let gateway = Setup::new(&yaml)?.access("{to: otlp}").start()?;
        assert_eq!(gateway.get("/length?token=s3cret", &["cookie: s3cret"])?.status, 200);
        assert_eq!(gateway.get("/status/503", &[])?.status, 503);
        wait_until("the records arrive", || receiver.received().logs.len() == 2);
        let logs = receiver.received().logs;
        let [served, failed] = [&logs[0], &logs[1]];
        assert_eq!((served.body.as_str(), served.severity.as_str()), ("GET /length 200", "INFO"), "{protocol}");
        assert_eq!((failed.body.as_str(), failed.severity.as_str()), ("GET /status/503 503", "ERROR"));
        for (key, value) in [
            ("http.request.method", "GET"),
            ("url.path", "/length"),
            ("server.address", "test"),
            ("witgate.route", "api"),
        ] {
            assert_eq!(served.attributes.get(key).map(String::as_str), Some(value), "{key} of {served:?}");
        }
        assert_eq!((served.trace.len(), served.resource["service.name"].as_str()), (32, "edge"));
        assert!(served.nanoseconds > 1_700_000_000_000_000_000, "{served:?}");
        wait_until("the metrics have both requests", || {
            let requests = point(&receiver.received(), "witgate_request_duration_seconds", ("route", "api"));
            requests.is_some_and(|requests| requests.value == 2.0)
        });
        let received = receiver.received();
        let requests = point(&received, "witgate_requests", ("status", "503")).context("no requests")?;
        assert_eq!((requests.value, requests.attributes["method"].as_str()), (1.0, "GET"));
        let times = point(&received, "witgate_request_duration_seconds", ("route", "api")).context("no times")?;
        assert_eq!(times.unit, "s");
        // A bucket names its last trace, and both requests may be in one.
        let is_known = |trace: &String| [&served.trace, &failed.trace].contains(&trace);
        assert!(times.exemplars.iter().any(is_known), "{times:?}");
        assert!(received.points.iter().any(|point| point.name == "process_resident_memory_bytes"));
        assert_eq!(received.authorization.as_deref(), Some("Bearer s3cret"));
        assert!(!format!("{logs:?}{:?}", received.points).contains("s3cret"), "secrets are left out");
    }
    Ok(())
}

#[test]
fn a_receiver_that_is_away_delays_no_request() -> Result<()> {
    let yaml = format!(
        "telemetry: {{metrics: {{interval: 1s}}, otlp: {{endpoint: \"http://{}\"}}}}\n\
         upstreams: {{echo: {{builtin: echo}}}}\nroutes: [{{upstream: echo}}]",
        refusing_address()?
    );
    let gateway = Setup::new(&yaml)?.access("{to: otlp}").start()?;
    assert_eq!(gateway.get("/", &[])?.status, 200);
    wait_up_to(Duration::from_secs(30), "what is lost is counted", || {
        gateway.metric("witgate_access_log_lines_dropped_total").is_ok_and(|lines| lines == 1.0)
            && gateway.metric("witgate_metrics_exports_total{result=\"failed\"}").is_ok_and(|exports| exports >= 2.0)
    });
    assert_eq!(gateway.wait_logged("metrics cannot be exported", 1).len(), 1, "the first failure is logged");
    gateway.wait_logged("the access log cannot be exported", 1);
    Ok(())
}

#[test]
fn what_is_exported_needs_a_receiver() -> Result<()> {
    let yaml = "telemetry: {metrics: {}}\nupstreams: {echo: {builtin: echo}}\nroutes: [{upstream: echo}]";
    let (code, text) = Setup::new(yaml)?.access("{to: otlp}").check()?;
    assert_eq!(code, Some(1));
    for error in ["telemetry.metrics: needs a receiver", "log.access.to: otlp needs a receiver"] {
        assert!(text.contains(error), "{error} is not in {text}");
    }
    Ok(())
}

#[test]
fn the_own_log_arrives_beside_standard_error() -> Result<()> {
    let receiver = OtlpReceiver::http()?;
    let yaml = format!(
        "telemetry: {{service_name: edge, otlp: {{endpoint: \"http://{}\"}}}}\n\
         upstreams: {{u: {{endpoints: [\"http://{}\"]}}}}\nroutes: [{{name: api, upstream: u}}]",
        receiver.address,
        refusing_address()?
    );
    // At this level the libraries that send log each of their steps, which must not be exported.
    let gateway = Setup::new(&yaml)?.level("trace").access("off, otlp: true").start()?;
    let failed = gateway.get("/", &[])?;
    let find = || receiver.received().logs.into_iter().find(|log| log.body == "an exchange failed");
    wait_until("the record arrives", || find().is_some());
    let record = find().context("no record")?;
    assert_eq!((record.severity.as_str(), record.resource["service.name"].as_str()), ("WARN", "edge"));
    let attribute = |key: &str| record.attributes.get(key).map(String::as_str);
    assert_eq!((attribute("witgate.kind"), attribute("witgate.route")), (Some("upstream-connect"), Some("api")));
    assert_eq!(attribute("witgate.exchange"), failed.header("x-request-id"));
    gateway.wait_logged("an exchange failed", 1);
    let foreign = receiver.received().logs.into_iter().find(|log| format!("{log:?}").contains("hyper"));
    assert!(foreign.is_none(), "{foreign:?}");
    Ok(())
}

#[test]
fn an_own_log_that_cannot_be_sent_does_not_cause_lines() -> Result<()> {
    let yaml = format!(
        "telemetry: {{otlp: {{endpoint: \"http://{}\"}}}}\nupstreams: {{u: {{endpoints: [\"http://{0}\"]}}}}\n\
         routes: [{{name: api, upstream: u}}]",
        refusing_address()?
    );
    let gateway = Setup::new(&yaml)?.level("warn").access("off, otlp: true").start()?;
    let dropped = || gateway.metric("witgate_log_lines_dropped_total").unwrap_or_default();
    for count in 1..=3 {
        assert_eq!(gateway.get("/", &[])?.status, 502);
        wait_until("the line is counted as lost", || dropped() >= f64::from(count));
    }
    assert_eq!(gateway.logged("the log cannot be exported").len(), 1, "only the first failure is logged");
    // Own lines at the start may be among them, but none that the export caused.
    assert!(dropped() <= 5.0, "{}", dropped());
    Ok(())
}
