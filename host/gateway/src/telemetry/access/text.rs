//! A line of the access log for people.
//!
//! It has a fixed order and leaves out what is usual; the JSON form has everything. This module
//! does not know: which exchanges are logged.

use std::io::Write as _;

use super::super::json::{escaped, timestamp};
use super::super::record::{CallOutcome, End, ExchangeRecord};

/// The most bytes of a text in the line.
const TEXT_MAX: usize = 512;

/// Appends the line, without a line feed.
pub(super) fn write(out: &mut Vec<u8>, record: &ExchangeRecord, end: &End) {
    timestamp(out, end.at - end.duration);
    out.push(b' ');
    out.extend_from_slice(record.client().ip_text.as_bytes());
    match record.status {
        // Writing to a vector does not fail.
        Some(status) => drop(write!(out, " {} ", status.as_u16())),
        None => out.extend_from_slice(b" --- "),
    }
    escaped(out, record.method.as_ref().map_or("-", http::Method::as_str).as_bytes(), TEXT_MAX);
    out.push(b' ');
    escaped(out, record.host.as_ref().map_or(&b""[..], |host| host.as_bytes()), TEXT_MAX);
    escaped(out, record.target.as_ref().map_or("-", |target| target.path()).as_bytes(), TEXT_MAX);
    let milliseconds = end.duration.as_secs_f64() * 1000.0;
    let _ = write!(out, " {milliseconds:.1}ms {}B route={}", record.traffic.sent(), record.route_name());
    for attempt in &record.upstream.attempts {
        let milliseconds = attempt.duration.as_secs_f64() * 1000.0;
        let _ = write!(out, " {}={},{milliseconds:.1}ms", attempt.endpoint, attempt.result);
    }
    for call in &record.calls {
        let outcome = match &call.outcome {
            CallOutcome::Failed { kind, .. } => kind.label(),
            outcome => outcome.label(),
        };
        let _ = write!(out, " {}@", call.filter.name);
        escaped(out, call.filter.version.as_bytes(), TEXT_MAX);
        let _ = write!(out, "={outcome},{}us", call.duration.as_micros());
    }
    if let Some(error) = &record.failure {
        let _ = write!(out, " {}: \"", error.kind.label());
        escaped(out, error.detail.as_bytes(), TEXT_MAX);
        out.push(b'"');
    }
    out.extend_from_slice(b" id=");
    escaped(out, record.request_id.as_bytes(), TEXT_MAX);
}
