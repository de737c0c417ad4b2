//! Traces over OTLP: spans and their parents, sampling, propagation, and a receiver that is away.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use harness::otlp::{OtlpReceiver, Span};
use harness::{Gateway, Setup, Upstream, wait_until, wait_up_to};
use rustix::process::Signal;

use super::eventful_gateway;

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const UNSAMPLED: &str = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
const ECHO: &str = "upstreams: {echo: {builtin: echo}}\nroutes: [{name: all, upstream: echo}]";

fn telemetry(receiver: &OtlpReceiver, more: &str) -> String {
    format!("telemetry: {{service_name: edge, otlp: {{endpoint: \"http://{}\"{more}}}", receiver.address)
}

/// The spans, once there are `count`.
#[track_caller]
fn wait_spans(receiver: &OtlpReceiver, count: usize) -> Vec<Span> {
    wait_until(&format!("{count} spans"), || receiver.received().spans.len() >= count);
    receiver.received().spans
}

#[test]
fn a_trace_has_the_request_each_filter_and_each_try() -> Result<()> {
    for (receiver, protocol) in [(OtlpReceiver::http()?, "http"), (OtlpReceiver::grpc()?, "grpc")] {
        let upstream = Upstream::start()?;
        let exporter =
            telemetry(&receiver, &format!(", protocol: {protocol}, headers: {{authorization: Bearer s3cret}}"));
        let gateway = eventful_gateway(&upstream, &format!("{exporter}, traces: {{sample: 0}}}}\n"))?;
        let mut client = gateway.client()?;
        for _ in 0..2 {
            let parent = format!("traceparent: {PARENT}");
            assert_eq!(client.send("POST", "/length", &[&parent], b"abcde")?.text(), "5");
        }
        // One of the two exchanges tried the endpoint that refuses first: 1 + 2 + 2 and 1 + 2 + 1.
        let spans = wait_spans(&receiver, 9);
        check_spans(&spans, &upstream.address.to_string());
        assert_eq!(receiver.received().authorization.as_deref(), Some("Bearer s3cret"), "{protocol}");
        let line = gateway.wait_accessed("\"trace_id\":\"4bf92f3577b34da6a3ce929d0e0e4736\"", 2).remove(0);
        assert!(line.contains("\"sampled\":true"), "{line}");
        wait_until("the spans are counted", || {
            gateway.metric("witgate_trace_spans_exported_total").is_ok_and(|spans| spans == 9.0)
        });
        assert!(gateway.logged("s3cret").is_empty(), "the header is a secret");
    }
    Ok(())
}

#[track_caller]
fn check_spans(spans: &[Span], serving: &str) {
    assert!(spans.iter().all(|span| span.trace == "4bf92f3577b34da6a3ce929d0e0e4736"));
    let servers: Vec<&Span> = spans.iter().filter(|span| span.kind == 2).collect();
    assert_eq!(servers.len(), 2);
    for server in &servers {
        assert_eq!((server.name.as_str(), server.parent.as_str()), ("POST api", "00f067aa0ba902b7"));
        let expected = [
            ("http.request.method", "POST"),
            ("http.response.status_code", "200"),
            ("url.path", "/length"),
            ("url.scheme", "http"),
            ("server.address", "test"),
            ("network.protocol.version", "1.1"),
            ("http.request.body.size", "5"),
        ];
        for (key, value) in expected {
            assert_eq!(server.attributes.get(key).map(String::as_str), Some(value), "{key}");
        }
        assert_eq!(server.resource.get("service.name").map(String::as_str), Some("edge"));
        assert!(server.resource.contains_key("service.version") && server.resource.contains_key("service.instance.id"));
        let children: Vec<&Span> = spans.iter().filter(|span| span.parent == server.id).collect();
        assert!((3..=4).contains(&children.len()));
        for child in children {
            let (from, to) = child.nanoseconds;
            assert!(from >= server.nanoseconds.0 && to <= server.nanoseconds.1 && from <= to, "{child:?}");
        }
    }
    let by_name = |name: &str| -> BTreeMap<String, String> {
        spans.iter().find(|span| span.name == name).map(|span| span.attributes.clone()).unwrap_or_default()
    };
    let (a, b) = (by_name("filter a"), by_name("filter b"));
    assert_eq!(
        (&*a["witgate.filter.version"], &*a["witgate.filter.action"], &*a["witgate.filter.edits"]),
        ("1.2.3", "proceed", "1")
    );
    assert!(a["witgate.filter.memory_bytes"].parse::<u64>().is_ok_and(|bytes| bytes >= 64 << 10));
    assert_eq!((&*b["witgate.filter.action"], &*b["error.type"]), ("trap", "trap"));
    let mut tries: Vec<&Span> = spans.iter().filter(|span| span.kind == 3).collect();
    tries.sort_by_key(|span| span.nanoseconds.0);
    assert_eq!(tries.len(), 3);
    let failed = tries.iter().find(|span| span.is_error).map(|span| &span.attributes);
    assert_eq!(failed.and_then(|attributes| attributes.get("error.type")).map(String::as_str), Some("connect"));
    let again = tries.iter().find(|span| span.attributes.contains_key("http.request.resend_count"));
    let again = again.map(|span| &span.attributes);
    let port = serving.rsplit(':').next().unwrap_or_default();
    assert_eq!(again.and_then(|attributes| attributes.get("server.port")).map(String::as_str), Some(port));
}

#[test]
fn failures_and_slow_exchanges_are_exported_without_a_sample() -> Result<()> {
    let (receiver, upstream) = (OtlpReceiver::http()?, Upstream::start()?);
    let yaml = format!(
        "{}, traces: {{sample: 0, slow: 100ms}}}}\nupstreams: {{u: {}}}\nroutes: [{{name: all, upstream: u}}]",
        telemetry(&receiver, ""),
        upstream.yaml()
    );
    let mut gateway = Setup::new(&yaml)?.start()?;
    assert_eq!(gateway.get("/fine", &[UNSAMPLED])?.status, 200);
    assert_eq!(gateway.get("/delay/150", &[UNSAMPLED])?.status, 200);
    assert_eq!(gateway.get("/status/503", &[])?.status, 503);
    gateway.signal(Signal::TERM)?;
    assert!(gateway.wait(Duration::from_secs(20))?.success(), "the end of the gateway sends what waits");
    let spans = receiver.received().spans;
    let mut paths: Vec<_> = spans.iter().filter_map(|span| span.attributes.get("url.path").cloned()).collect();
    paths.sort();
    assert_eq!(paths, ["/delay/150", "/status/503"]);
    Ok(())
}

/// Trace, span and flags of a `traceparent`.
fn parts(traceparent: &str) -> Vec<&str> {
    traceparent.split('-').skip(1).collect()
}

#[test]
fn the_upstream_gets_the_span_of_its_try() -> Result<()> {
    let receiver = OtlpReceiver::http()?;
    let echo = Setup::new(ECHO)?.start()?;
    let forward = |telemetry: &str| -> Result<Gateway> {
        let upstream = format!("{{endpoints: [\"http://{}\"]}}", echo.address);
        Setup::new(&format!("{telemetry}\nupstreams: {{u: {upstream}}}\nroutes: [{{name: all, upstream: u}}]"))?.start()
    };
    let traced = forward(&format!("{}, traces: {{sample: 1}}}}", telemetry(&receiver, "")))?;
    let fields = [&*format!("traceparent: {PARENT}"), "tracestate: a=b", "baggage: c=d"];
    let response = traced.get("/", &fields)?;
    let sent = response.echoed("traceparent").context("no traceparent")?;
    assert_eq!((parts(&sent)[0], parts(&sent)[2]), ("4bf92f3577b34da6a3ce929d0e0e4736", "01"));
    let spans = wait_spans(&receiver, 2);
    let client = spans.iter().find(|span| span.kind == 3).context("no client span")?;
    assert_eq!(client.id, parts(&sent)[1]);
    assert_eq!((response.echoed("tracestate"), response.echoed("baggage")), (Some("a=b".into()), Some("c=d".into())));
    let response = traced.get("/", &["traceparent: nonsense", "tracestate: a=b"])?;
    let sent = response.echoed("traceparent").context("no traceparent")?;
    assert_eq!(Some(parts(&sent)[0]), response.header("x-request-id"), "a new trace has the exchange's id");
    assert_eq!(response.echoed("tracestate"), None);
    let untraced = forward("")?;
    let response = untraced.get("/", &fields)?;
    assert_eq!(response.echoed("traceparent").as_deref(), Some(PARENT), "without traces the field passes unchanged");
    assert_eq!((response.echoed("tracestate"), response.echoed("baggage")), (Some("a=b".into()), Some("c=d".into())));
    assert_eq!(untraced.get("/", &[])?.echoed("traceparent"), None);
    Ok(())
}

#[test]
fn a_receiver_that_is_away_costs_spans_and_delays_no_exchange() -> Result<()> {
    let refusing = harness::refusing_address()?;
    let yaml = format!("telemetry: {{otlp: {{endpoint: \"http://{refusing}\"}}, traces: {{sample: 1}}}}\n{ECHO}");
    let gateway = Setup::new(&yaml)?.start()?;
    let mut client = gateway.client()?;
    for _ in 0..50 {
        assert_eq!(client.get("/", &[])?.status, 200);
    }
    wait_up_to(Duration::from_secs(30), "lost spans are counted", || {
        gateway.metric("witgate_trace_spans_dropped_total").is_ok_and(|spans| spans >= 50.0)
    });
    gateway.wait_logged("traces cannot be exported", 1);
    Ok(())
}
