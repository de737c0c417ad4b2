//! The spans of one exchange: the request, each call of a filter, each request that a filter sent,
//! each try of the upstream.
//!
//! Names follow OpenTelemetry's stable semantic conventions for HTTP; what they do not name begins
//! with `witgate.`. This module does not know: which exchanges are exported, where spans go.

use std::time::{Duration, Instant, SystemTime};

use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use super::super::attempt::AttemptRecord;
use super::super::labels::method_label;
use super::super::record::{CallOutcome, End, ExchangeRecord, FilterCall};
use super::super::sent::SentRequest;
use super::context::{TraceContext, new_span_id};
use witgate_http::text::bounded;

/// What the spans of one exchange share.
struct Builder<'a> {
    record: &'a ExchangeRecord,
    trace: TraceContext,
    scope: &'a InstrumentationScope,
    end: &'a End,
}

/// The spans of an exchange that ended.
pub(super) fn spans(
    record: &ExchangeRecord,
    trace: TraceContext,
    scope: &InstrumentationScope,
    end: &End,
) -> Vec<SpanData> {
    let builder = Builder { record, trace, scope, end };
    let mut spans = Vec::with_capacity(1 + record.calls.len() + record.upstream.attempts.len());
    spans.push(builder.request());
    for call in &record.calls {
        let id = new_span_id();
        spans.push(builder.call(id, call));
        spans.extend(call.sent.iter().flat_map(|sent| builder.sent(id, sent)));
    }
    let method = record.method_label();
    spans.extend(
        record.upstream.attempts.iter().enumerate().map(|(index, attempt)| builder.attempt(method, index, attempt)),
    );
    spans
}

impl Builder<'_> {
    fn request(&self) -> SpanData {
        let record = self.record;
        let method = record.method_label();
        let mut attributes = vec![
            KeyValue::new("http.request.method", if method == "other" { "_OTHER" } else { method }),
            KeyValue::new("url.scheme", if record.peer.tls.is_some() { "https" } else { "http" }),
            KeyValue::new("network.protocol.name", "http"),
            KeyValue::new("network.protocol.version", record.protocol_label().trim_start_matches("HTTP/").to_owned()),
            KeyValue::new("client.address", record.client().address.ip().to_string()),
            KeyValue::new("network.peer.address", record.peer.address.ip().to_string()),
            KeyValue::new("http.request.body.size", size(record.traffic.received())),
            KeyValue::new("http.response.body.size", size(record.traffic.sent())),
            KeyValue::new("witgate.listener", record.listener.to_string()),
            KeyValue::new("witgate.route", record.route_name().to_owned()),
            KeyValue::new("witgate.request_id", text(record.request_id.as_bytes())),
        ];
        if method == "other" {
            let own = record.method.as_ref().map(|method| bounded(method.as_str())).unwrap_or_default();
            attributes.push(KeyValue::new("http.request.method_original", own));
        }
        if let Some(target) = &record.target {
            attributes.push(KeyValue::new("url.path", bounded(target.path())));
        }
        if let Some(host) = &record.host {
            attributes.push(KeyValue::new("server.address", text(host.as_bytes())));
        }
        if let Some(status) = record.status {
            attributes.push(KeyValue::new("http.response.status_code", i64::from(status.as_u16())));
        }
        let error = record.error_type();
        let status = match &error {
            // A client's mistake is not an error of the server (semantic conventions, HTTP spans).
            Some((kind, detail)) if record.is_failed() => {
                attributes.push(KeyValue::new("error.type", kind.clone()));
                Status::error(detail.clone())
            }
            Some((kind, _)) => {
                attributes.push(KeyValue::new("witgate.failure", kind.clone()));
                Status::Unset
            }
            None => Status::Unset,
        };
        let name = format!("{} {}", if method == "other" { "HTTP" } else { method }, record.route_name());
        let mut span = self.span(self.trace.span_id, name, SpanKind::Server, (record.started, self.end.duration));
        span.parent_span_id = self.trace.parent.map_or(SpanId::INVALID, |id| SpanId::from_bytes(id.to_be_bytes()));
        span.parent_span_is_remote = self.trace.parent.is_some();
        (span.attributes, span.status) = (attributes, status);
        span
    }

    fn call(&self, id: u64, call: &FilterCall) -> SpanData {
        let name = format!("filter {}", call.filter.name);
        let times = (call.stats.began.unwrap_or(self.record.started), call.duration);
        let mut span = self.span(id, name, SpanKind::Internal, times);
        let action = match &call.outcome {
            CallOutcome::Failed { kind, .. } => kind.label(),
            outcome => outcome.label(),
        };
        span.attributes = vec![
            KeyValue::new("witgate.filter.name", call.filter.name.to_string()),
            KeyValue::new("witgate.filter.version", call.filter.version.to_string()),
            KeyValue::new("witgate.filter.digest", call.filter.digest.to_string()),
            KeyValue::new("witgate.filter.phase", call.phase.label()),
            KeyValue::new("witgate.filter.action", action),
            KeyValue::new("witgate.filter.edits", i64::from(call.stats.edits)),
            KeyValue::new("witgate.filter.cpu_us", size(call.stats.busy.as_micros() as u64)),
            KeyValue::new("witgate.filter.memory_bytes", size(call.stats.memory_bytes as u64)),
            KeyValue::new("witgate.filter.instance", if call.stats.is_reused { "idle" } else { "new" }),
        ];
        if let CallOutcome::Failed { kind, detail, .. } = &call.outcome {
            span.attributes.push(KeyValue::new("error.type", kind.label()));
            span.status = Status::error(bounded(detail));
        }
        span
    }

    /// The tries of a request that a filter sent, below the span of its call.
    fn sent(&self, call: u64, sent: &SentRequest) -> impl Iterator<Item = SpanData> {
        sent.attempts.iter().enumerate().map(move |(index, attempt)| {
            let mut span = self.attempt(method_label(&sent.method), index, attempt);
            span.parent_span_id = SpanId::from_bytes(call.to_be_bytes());
            span.attributes.push(KeyValue::new("url.full", bounded(&sent.url)));
            span.attributes.push(KeyValue::new("witgate.upstream.name", sent.upstream.to_string()));
            span
        })
    }

    fn attempt(&self, method: &'static str, index: usize, attempt: &AttemptRecord) -> SpanData {
        let name = if method == "other" { "HTTP" } else { method };
        let kind = SpanKind::Client;
        let mut span = self.span(attempt.span_id, name.to_owned(), kind, (attempt.started, attempt.duration));
        let (host, port) = attempt.endpoint.rsplit_once(':').unwrap_or((&attempt.endpoint, ""));
        span.attributes = vec![
            KeyValue::new("http.request.method", if method == "other" { "_OTHER" } else { method }),
            KeyValue::new("server.address", host.trim_matches(['[', ']']).to_owned()),
            KeyValue::new("witgate.upstream.result", attempt.result),
        ];
        if let Ok(port) = port.parse::<u16>() {
            span.attributes.push(KeyValue::new("server.port", i64::from(port)));
        }
        if let Some(connect) = attempt.connect {
            span.attributes.push(KeyValue::new("witgate.upstream.connect_us", size(connect.as_micros() as u64)));
        }
        if index > 0 {
            span.attributes.push(KeyValue::new("http.request.resend_count", index as i64));
        }
        if let Some(status) = attempt.status {
            span.attributes.push(KeyValue::new("http.response.status_code", i64::from(status)));
        }
        match attempt.status {
            Some(status) if status < 400 => {}
            Some(status) => {
                span.attributes.push(KeyValue::new("error.type", status.to_string()));
                span.status = Status::error("");
            }
            None => {
                span.attributes.push(KeyValue::new("error.type", attempt.result));
                span.status = Status::error(attempt.result);
            }
        }
        span
    }

    /// A span below the request's span, without attributes.
    fn span(&self, id: u64, name: String, span_kind: SpanKind, (began, took): (Instant, Duration)) -> SpanData {
        let start_time = self.system_time(began);
        SpanData {
            span_context: SpanContext::new(
                TraceId::from_bytes(self.trace.trace_id.to_be_bytes()),
                SpanId::from_bytes(id.to_be_bytes()),
                TraceFlags::SAMPLED,
                false,
                TraceState::NONE,
            ),
            parent_span_id: SpanId::from_bytes(self.trace.span_id.to_be_bytes()),
            parent_span_is_remote: false,
            span_kind,
            name: name.into(),
            start_time,
            end_time: start_time + took,
            attributes: vec![],
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: self.scope.clone(),
        }
    }

    /// The exchange read one clock while it ran; the other is read at its end.
    fn system_time(&self, at: Instant) -> SystemTime {
        let since_start = at.saturating_duration_since(self.record.started);
        self.end.at - self.end.duration.saturating_sub(since_start)
    }
}

fn size(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn text(bytes: &[u8]) -> String {
    bounded(String::from_utf8_lossy(bytes))
}
