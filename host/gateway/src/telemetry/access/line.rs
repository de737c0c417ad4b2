//! A line of the access log as JSON.
//!
//! The configuration chooses groups of fields. Text that a client, a filter or an upstream shaped
//! is escaped and bounded by `json`. This module does not know: which exchanges are logged.

use http::{HeaderName, HeaderValue, header};

use super::super::attempt::UpstreamRecord;
use super::super::json::{JsonObject, micros, timestamp};
use super::super::record::{CLIENT_GONE, CallOutcome, End, ExchangeRecord, FilterCall};
use witgate_config::AccessField;
use witgate_http::body::Direction;

/// The most bytes of a path, of a query and of a failure's detail.
const LONG_MAX: usize = 2 << 10;
/// The most bytes of any other text.
const SHORT_MAX: usize = 512;
/// Fields of a request whose values are secrets.
pub const SECRET_HEADERS: [HeaderName; 4] =
    [header::AUTHORIZATION, header::PROXY_AUTHORIZATION, header::COOKIE, HeaderName::from_static("x-api-key")];

/// Appends the line, without a line feed.
pub(super) fn write(out: &mut Vec<u8>, fields: &[AccessField], record: &ExchangeRecord, end: &End) {
    write_with(out, fields, (record, end), |line| {
        if !record.headers.is_empty() {
            write_headers(line, record.headers.iter().map(|(name, value)| (name.as_str(), shown(name, value))));
        }
    });
}

/// Appends a line that ends with what `more` writes.
pub(super) fn write_with(
    out: &mut Vec<u8>,
    fields: &[AccessField],
    (record, end): (&ExchangeRecord, &End),
    more: impl FnOnce(&mut JsonObject<'_>),
) {
    let mut line = JsonObject::new(out);
    for field in fields {
        write_field(&mut line, *field, record, end);
    }
    more(&mut line);
    line.end();
}

/// The fields of the request. Their values are bounded here and must not be secrets.
pub(super) fn write_headers<'h>(line: &mut JsonObject<'_>, headers: impl Iterator<Item = (&'h str, &'h [u8])>) {
    line.map("headers", headers, SHORT_MAX);
}

fn write_field(line: &mut JsonObject<'_>, field: AccessField, record: &ExchangeRecord, end: &End) {
    match field {
        AccessField::Time => line.plain("time", |out| timestamp(out, end.at - end.duration)),
        AccessField::Id => write_ids(line, record),
        AccessField::Trace => {
            if let Some(trace) = &record.trace {
                line.hex("trace_id", trace.trace_id, 32);
                line.hex("span_id", trace.span_id.into(), 16);
                line.bool("sampled", trace.is_sampled);
            }
        }
        AccessField::Client => {
            line.text("client", record.client().ip_text.as_bytes(), SHORT_MAX);
            if record.named_client.is_some() {
                line.text("peer", record.peer.ip_text.as_bytes(), SHORT_MAX);
            }
        }
        AccessField::Listener => line.text("listener", record.listener.as_bytes(), SHORT_MAX),
        AccessField::Protocol => line.text("protocol", record.protocol_label(), SHORT_MAX),
        AccessField::Tls => write_tls(line, record),
        AccessField::Method => {
            if let Some(method) = &record.method {
                line.text("method", method.as_str(), SHORT_MAX);
            }
        }
        AccessField::Host => {
            if let Some(host) = &record.host {
                line.text("host", host.as_bytes(), SHORT_MAX);
            }
        }
        AccessField::Path => {
            if let Some(target) = &record.target {
                line.text("path", target.path(), LONG_MAX);
            }
        }
        AccessField::Query => {
            if let Some(query) = record.target.as_ref().and_then(|target| target.query()) {
                line.text("query", query, LONG_MAX);
            }
        }
        AccessField::Route => line.text("route", record.route_name(), SHORT_MAX),
        AccessField::Status => {
            if let Some(status) = record.status {
                line.number("status", status.as_u16().into());
            }
        }
        AccessField::Bytes => {
            line.number("received", record.traffic.received());
            line.number("sent", record.traffic.sent());
        }
        AccessField::Duration => line.micros("duration_us", end.duration),
        AccessField::Times => write_times(line, record, end),
        AccessField::Upstream => write_upstream(line, &record.upstream),
        AccessField::Filters => {
            if !record.calls.is_empty() {
                line.list("filters", &record.calls, write_call);
            }
        }
        AccessField::Notes => {
            if !record.notes.is_empty() {
                let pairs = record.notes.iter().map(|note| (note.name.as_str(), note.value.as_bytes()));
                line.map("notes", pairs, SHORT_MAX);
            }
        }
        AccessField::Failure => write_failure(line, record),
    }
}

fn write_ids(line: &mut JsonObject<'_>, record: &ExchangeRecord) {
    line.text("id", record.request_id.as_bytes(), SHORT_MAX);
    if record.foreign_request_id().is_some() {
        line.hex("exchange", record.id, 32);
    }
}

fn write_tls(line: &mut JsonObject<'_>, record: &ExchangeRecord) {
    let Some(tls) = &record.peer.tls else { return };
    line.text("tls", tls.version, SHORT_MAX);
    if let Some(name) = &tls.server_name {
        line.text("sni", name, SHORT_MAX);
    }
    if let Some(peer) = &tls.peer {
        line.text("client_sha256", &peer.sha256, SHORT_MAX);
    }
}

/// The parts of the duration: to the response's head, in filters, to the upstream's head, and from
/// the response's head to its end, which is the upstream's body and the client together.
fn write_times(line: &mut JsonObject<'_>, record: &ExchangeRecord, end: &End) {
    let head = record.head_after.unwrap_or(end.duration);
    line.micros("head_us", head);
    if !record.calls.is_empty() {
        line.number("filters_us", record.calls.iter().map(|call| micros(call.duration)).sum());
    }
    if let Some(time) = record.upstream.attempts.last().and_then(|attempt| attempt.connect) {
        line.micros("connect_us", time);
    }
    if let Some(time) = record.upstream.head_after {
        line.micros("upstream_us", time);
    }
    line.micros("body_us", end.duration.saturating_sub(head));
}

fn write_upstream(line: &mut JsonObject<'_>, upstream: &UpstreamRecord) {
    let Some(last) = upstream.attempts.last() else { return };
    line.text("endpoint", last.endpoint.as_bytes(), SHORT_MAX);
    line.list("tries", &upstream.attempts, |object, attempt| {
        object.text("endpoint", attempt.endpoint.as_bytes(), SHORT_MAX);
        object.text("result", attempt.result, SHORT_MAX);
        if let Some(connect) = attempt.connect {
            object.micros("connect_us", connect);
        }
        object.micros("us", attempt.duration);
    });
}

fn write_call(object: &mut JsonObject<'_>, call: &FilterCall) {
    object.text("filter", call.filter.name.as_bytes(), SHORT_MAX);
    object.text("version", call.filter.version.as_bytes(), SHORT_MAX);
    object.text("phase", call.phase.label(), SHORT_MAX);
    match &call.outcome {
        CallOutcome::Failed { kind, detail, .. } => {
            object.text("outcome", kind.label(), SHORT_MAX);
            object.text("detail", detail, LONG_MAX);
        }
        outcome => object.text("outcome", outcome.label(), SHORT_MAX),
    }
    object.micros("us", call.duration);
}

fn write_failure(line: &mut JsonObject<'_>, record: &ExchangeRecord) {
    if let Some(error) = &record.failure {
        line.text("failure", error.kind.label(), SHORT_MAX);
        line.text("detail", &error.detail, LONG_MAX);
    } else if record.status.is_none() {
        line.text("failure", "client-gone", SHORT_MAX);
        line.text("detail", CLIENT_GONE, SHORT_MAX);
    } else if let Some((direction, kind)) = record.traffic.broken() {
        line.text("failure", kind.label(), SHORT_MAX);
        let detail = match direction {
            Direction::Received => "the request body ended early",
            Direction::Sent => "the response body ended early",
        };
        line.text("detail", detail, SHORT_MAX);
    } else if record.has_client_left() {
        line.text("failure", "client-gone", SHORT_MAX);
        line.text("detail", "the client left during the response body", SHORT_MAX);
    } else if record.status.is_some_and(|status| status.is_server_error()) {
        let (kind, detail) = record.status_origin();
        line.text("failure", kind, SHORT_MAX);
        line.text("detail", detail, SHORT_MAX);
    }
}

/// The value of a field, unless it is a secret.
fn shown<'v>(name: &HeaderName, value: &'v HeaderValue) -> &'v [u8] {
    if SECRET_HEADERS.contains(name) || value.is_sensitive() { b"redacted" } else { value.as_bytes() }
}
