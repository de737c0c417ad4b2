//! The spans of one exchange: the request, each call of a filter, each request that a filter sent,
//! each try of the upstream.
//!
//! They are written as the messages that a receiver of OTLP gets (opentelemetry.proto.trace.v1).
//! Names follow OpenTelemetry's stable semantic conventions for HTTP; what they do not name begins
//! with `witgate.`. This module does not know: which exchanges are exported, where spans go.

use std::time::{Duration, Instant, UNIX_EPOCH};

use super::super::attempt::AttemptRecord;
use super::super::labels::method_label;
use super::super::otlp::protobuf::{bytes, fixed32, fixed64, message, number, text};
use super::super::record::{CallOutcome, End, ExchangeRecord, FilterCall};
use super::super::sent::SentRequest;
use super::context::{TraceContext, new_span_id};

/// The field `spans` of `ScopeSpans`.
const SPANS: u8 = 2;
/// Fields of `Span`.
const ATTRIBUTES: u8 = 9;
const STATUS: u8 = 15;
/// Values of `Span.kind`.
const INTERNAL: u64 = 1;
const SERVER: u64 = 2;
const CLIENT: u64 = 3;
/// Values of `Span.flags`: the trace is recorded; whether the parent is remote is known, and it is.
const SAMPLED: u32 = 0x001;
const HAS_IS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;
/// The value of `Status.code` for an error.
const ERROR: u64 = 2;

/// Appends the spans of an exchange that ended, each as a field of the message `ScopeSpans`.
/// Returns their number.
pub(super) fn write_spans(out: &mut Vec<u8>, record: &ExchangeRecord, trace: TraceContext, end: &End) -> u64 {
    let exchange = Exchange { record, trace, end };
    let mut count = 1;
    message(out, SPANS, |span| exchange.request(span));
    for call in &record.calls {
        let id = new_span_id();
        message(out, SPANS, |span| exchange.call(span, id, call));
        count += 1 + call.sent.iter().map(|sent| exchange.sent(out, id, sent)).sum::<u64>();
    }
    let method = record.method_label();
    for (index, attempt) in record.upstream.attempts.iter().enumerate() {
        message(out, SPANS, |span| exchange.attempt(span, trace.span_id, (method, index), attempt));
        count += 1;
    }
    count
}

/// What the spans of one exchange share.
struct Exchange<'a> {
    record: &'a ExchangeRecord,
    trace: TraceContext,
    end: &'a End,
}

impl Exchange<'_> {
    fn request(&self, out: &mut Vec<u8>) {
        let record = self.record;
        self.ids(out, self.trace.span_id, self.trace.parent);
        let is_remote = if self.trace.parent.is_some() { IS_REMOTE } else { 0 };
        fixed32(out, 16, SAMPLED | HAS_IS_REMOTE | is_remote);
        message(out, 5, |name| {
            name.extend_from_slice(name_of_method(record.method_label()).as_bytes());
            name.push(b' ');
            name.extend_from_slice(record.route_name().as_bytes());
        });
        self.kind_and_times(out, SERVER, (record.started, self.end.duration));
        method_attribute(out, record.method_label());
        attribute(out, "url.scheme", if record.peer.tls.is_some() { "https" } else { "http" });
        attribute(out, "network.protocol.name", "http");
        attribute(out, "network.protocol.version", record.protocol_label().trim_start_matches("HTTP/"));
        attribute(out, "client.address", record.client().ip_text.as_bytes());
        attribute(out, "network.peer.address", record.peer.ip_text.as_bytes());
        integer(out, "http.request.body.size", record.traffic.received());
        integer(out, "http.response.body.size", record.traffic.sent());
        attribute(out, "witgate.listener", record.listener.as_bytes());
        attribute(out, "witgate.route", record.route_name());
        attribute(out, "witgate.request_id", record.request_id.as_bytes());
        if record.method_label() == "other" {
            let original = record.method.as_ref().map_or("", http::Method::as_str);
            attribute(out, "http.request.method_original", original);
        }
        if let Some(target) = &record.target {
            attribute(out, "url.path", target.path());
        }
        if let Some(host) = &record.host {
            attribute(out, "server.address", host.as_bytes());
        }
        if let Some(status) = record.status {
            integer(out, "http.response.status_code", status.as_u16().into());
        }
        match record.error_type() {
            // A client's mistake is not an error of the server (semantic conventions, HTTP spans).
            Some((kind, detail)) if record.is_failed() => {
                attribute(out, "error.type", kind);
                error(out, detail.as_bytes());
            }
            Some((kind, _)) => attribute(out, "witgate.failure", kind),
            None => {}
        }
    }

    fn call(&self, out: &mut Vec<u8>, id: u64, call: &FilterCall) {
        self.ids(out, id, Some(self.trace.span_id));
        fixed32(out, 16, SAMPLED | HAS_IS_REMOTE);
        message(out, 5, |name| {
            name.extend_from_slice(b"filter ");
            name.extend_from_slice(call.filter.name.as_bytes());
        });
        self.kind_and_times(out, INTERNAL, (call.stats.began.unwrap_or(self.record.started), call.duration));
        let action = match &call.outcome {
            CallOutcome::Failed { kind, .. } => kind.label(),
            outcome => outcome.label(),
        };
        attribute(out, "witgate.filter.name", call.filter.name.as_bytes());
        attribute(out, "witgate.filter.version", call.filter.version.as_bytes());
        attribute(out, "witgate.filter.digest", call.filter.digest.as_bytes());
        attribute(out, "witgate.filter.phase", call.phase.label());
        attribute(out, "witgate.filter.action", action);
        integer(out, "witgate.filter.edits", call.stats.edits.into());
        integer(out, "witgate.filter.cpu_us", call.stats.busy.as_micros() as u64);
        integer(out, "witgate.filter.memory_bytes", call.stats.memory_bytes as u64);
        attribute(out, "witgate.filter.instance", if call.stats.is_reused { "idle" } else { "new" });
        if let CallOutcome::Failed { kind, detail, .. } = &call.outcome {
            attribute(out, "error.type", kind.label());
            error(out, detail.as_bytes());
        }
    }

    /// The tries of a request that a filter sent, below the span of its call.
    fn sent(&self, out: &mut Vec<u8>, call: u64, sent: &SentRequest) -> u64 {
        for (index, attempt) in sent.attempts.iter().enumerate() {
            message(out, SPANS, |span| {
                self.attempt(span, call, (method_label(&sent.method), index), attempt);
                attribute(span, "url.full", &sent.url);
                attribute(span, "witgate.upstream.name", sent.upstream.as_bytes());
            });
        }
        sent.attempts.len() as u64
    }

    /// A try with this method, as the one with this index, below the span `parent`.
    fn attempt(&self, out: &mut Vec<u8>, parent: u64, (method, index): (&'static str, usize), attempt: &AttemptRecord) {
        self.ids(out, attempt.span_id, Some(parent));
        fixed32(out, 16, SAMPLED | HAS_IS_REMOTE);
        bytes(out, 5, name_of_method(method).as_bytes());
        self.kind_and_times(out, CLIENT, (attempt.started, attempt.duration));
        method_attribute(out, method);
        let (host, port) = attempt.endpoint.rsplit_once(':').unwrap_or((&attempt.endpoint, ""));
        attribute(out, "server.address", host.trim_matches(['[', ']']));
        attribute(out, "witgate.upstream.result", attempt.result);
        if let Ok(port) = port.parse::<u16>() {
            integer(out, "server.port", port.into());
        }
        if let Some(connect) = attempt.connect {
            integer(out, "witgate.upstream.connect_us", connect.as_micros() as u64);
        }
        if index > 0 {
            integer(out, "http.request.resend_count", index as u64);
        }
        if let Some(status) = attempt.status {
            integer(out, "http.response.status_code", status.into());
        }
        match attempt.status {
            Some(status) if status < 400 => {}
            Some(status) => {
                attribute(out, "error.type", status.to_string());
                error(out, b"");
            }
            None => {
                attribute(out, "error.type", attempt.result);
                error(out, attempt.result.as_bytes());
            }
        }
    }

    fn ids(&self, out: &mut Vec<u8>, id: u64, parent: Option<u64>) {
        bytes(out, 1, &self.trace.trace_id.to_be_bytes());
        bytes(out, 2, &id.to_be_bytes());
        if let Some(parent) = parent {
            bytes(out, 4, &parent.to_be_bytes());
        }
    }

    /// The exchange read one clock while it ran; the other is read at its end.
    fn kind_and_times(&self, out: &mut Vec<u8>, kind: u64, (began, took): (Instant, Duration)) {
        number(out, 6, kind);
        let since_start = began.saturating_duration_since(self.record.started);
        let start = self.end.at - self.end.duration.saturating_sub(since_start);
        let start = start.duration_since(UNIX_EPOCH).unwrap_or_default();
        for (field, time) in [(7, start), (8, start + took)] {
            fixed64(out, field, u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
        }
    }
}

/// A method as it stands in the names of spans.
fn name_of_method(label: &'static str) -> &'static str {
    if label == "other" { "HTTP" } else { label }
}

fn method_attribute(out: &mut Vec<u8>, label: &'static str) {
    attribute(out, "http.request.method", if label == "other" { "_OTHER" } else { label });
}

/// An attribute whose value is text.
fn attribute(out: &mut Vec<u8>, key: &str, value: impl AsRef<[u8]>) {
    message(out, ATTRIBUTES, |pair| {
        bytes(pair, 1, key.as_bytes());
        message(pair, 2, |any| text(any, 1, value.as_ref()));
    });
}

/// An attribute whose value is a number.
fn integer(out: &mut Vec<u8>, key: &str, value: u64) {
    message(out, ATTRIBUTES, |pair| {
        bytes(pair, 1, key.as_bytes());
        message(pair, 2, |any| number(any, 3, value.min(i64::MAX as u64)));
    });
}

/// The status of a span that failed.
fn error(out: &mut Vec<u8>, why: &[u8]) {
    message(out, STATUS, |status| {
        text(status, 2, why);
        number(status, 3, ERROR);
    });
}
