//! Calls of filters in traces: spans below the filter's call, and the fields that the service gets.

use anyhow::{Context as _, Result};
use harness::otlp::{OtlpReceiver, Span};
use harness::{Gateway, Setup, Upstream, wait_until};

const PARENT: &str = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// A gateway whose filter calls `http://svc` at this address. `more` are further top-level keys.
fn start(address: &str, more: &str, http: &str) -> Result<Gateway> {
    let yaml = format!(
        "{more}timeouts: {{filters: 5s}}\n\
         upstreams: {{echo: {{builtin: echo}}, svc: {{endpoints: [\"http://{address}\"], timeout: 10s}}}}\n\
         filters:\n  f:\n    source: f.wasm\n    timeout: 4s\n    capabilities: [http, crypto]\n\
         \x20   http: {{origins: {{\"http://svc\": {{upstream: svc}}}}{http}}}\n\
         routes: [{{name: api, filters: [f], upstream: echo}}]"
    );
    Setup::new(&yaml)?.with_guest("f.wasm", "tests/rust/outbound")?.start()
}

fn traced(receiver: &OtlpReceiver) -> String {
    format!("telemetry: {{otlp: {{endpoint: \"http://{}\"}}, traces: {{sample: 1}}}}\n", receiver.address)
}

/// The spans of calls, once there are so many.
#[track_caller]
fn client_spans(receiver: &OtlpReceiver, count: usize) -> Vec<Span> {
    let clients = || receiver.received().spans.into_iter().filter(|span| span.kind == 3).collect::<Vec<_>>();
    wait_until(&format!("{count} spans of calls"), || clients().len() >= count);
    clients()
}

#[test]
fn a_call_is_a_span_below_the_filters_call_and_the_service_gets_it_as_parent() -> Result<()> {
    let (receiver, service) = (OtlpReceiver::http()?, super::echo_gateway()?);
    let gateway = start(&service.address.to_string(), &traced(&receiver), "")?;
    let url = "x-url: http://svc/users?token=s3cret";
    let answer = gateway.get("/", &[PARENT, "tracestate: a=b", "x-request-id: r1", url])?.text();
    let spans = client_spans(&receiver, 1);
    let [span] = &spans[..] else { panic!("{spans:?}") };
    let all = receiver.received().spans;
    let call = all.iter().find(|span| span.name == "filter f").context("no span of the filter")?;
    assert_eq!((&*span.name, &*span.trace, &span.parent), ("GET", TRACE, &call.id));
    for (key, value) in [
        ("http.request.method", "GET"),
        ("http.response.status_code", "200"),
        ("server.address", "127.0.0.1"),
        ("url.full", "http://svc/users"),
        ("witgate.upstream.name", "svc"),
        ("witgate.upstream.result", "ok"),
    ] {
        assert_eq!(span.attributes.get(key).map(String::as_str), Some(value), "{key}");
    }
    assert!(!span.is_error && !span.attributes.values().any(|value| value.contains("s3cret")));
    let (from, to) = span.nanoseconds;
    assert!(call.nanoseconds.0 <= from && from <= to && to <= call.nanoseconds.1, "{span:?} {call:?}");
    assert!(answer.contains(&format!("00-{TRACE}-{}-01", span.id)), "{answer}");
    assert!(answer.contains("a=b"), "{answer}");
    Ok(())
}

#[test]
fn failed_and_many_calls_are_spans_with_a_bound() -> Result<()> {
    let receiver = OtlpReceiver::http()?;
    let refusing = harness::refusing_address()?.to_string();
    let gateway = start(&refusing, &traced(&receiver), ", calls: 64")?;
    let failed = super::call(&gateway, "", "http://svc/")?;
    assert!(failed.starts_with("unavailable: "), "{failed}");
    let spans = client_spans(&receiver, 1);
    assert!(spans.iter().all(|span| span.is_error), "{spans:?}");
    assert_eq!(spans[0].attributes.get("error.type").map(String::as_str), Some("connect"));
    // A call that is not granted is no request.
    super::call(&gateway, "", "http://other/")?;
    let (receiver, service) = (OtlpReceiver::http()?, Upstream::start()?);
    let gateway = start(&service.address.to_string(), &traced(&receiver), ", calls: 64, wait: 10s")?;
    assert_eq!(super::call(&gateway, "times=40", "http://svc/")?, "200 2 ok");
    let late = super::call(&gateway, "timeout=100", "http://svc/delay/2000")?;
    assert!(late.starts_with("timeout: "), "{late}");
    let spans = client_spans(&receiver, 33);
    assert_eq!(spans.len(), 32 + 1, "at most 32 calls of an exchange are spans");
    let slow = spans.iter().find(|span| span.is_error).context("no span of the call that took too long")?;
    let kind = slow.attributes.get("error.type").map(String::as_str);
    assert!(matches!(kind, Some("timeout" | "canceled")), "{kind:?}");
    Ok(())
}

#[test]
fn without_traces_the_fields_pass_unchanged_and_a_filter_may_set_its_own() -> Result<()> {
    let service = super::echo_gateway()?;
    let gateway = start(&service.address.to_string(), "", "")?;
    let headers = [PARENT, "tracestate: a=b", "x-url: http://svc/"];
    let answer = gateway.get("/", &headers)?.text();
    assert!(answer.contains(PARENT.trim_start_matches("traceparent: ")) && answer.contains("a=b"), "{answer}");
    let own = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-00";
    let answer = gateway.get(&format!("/?field=traceparent&value={own}"), &headers)?.text();
    assert!(answer.contains(own) && !answer.contains("a=b") && !answer.contains(TRACE), "{answer}");
    Ok(())
}
