//! What the steps of an exchange decided, as the field `x-witgate-trace` for holders of the debug
//! token.
//!
//! It is a list of structured fields (RFC 9651) in the order of the steps. This module does not
//! know: who may see it.

use std::fmt::Write as _;

use http::HeaderValue;

use super::record::{CallOutcome, ExchangeRecord};

/// The most bytes of the field.
const FIELD_BYTES_MAX: usize = 4 << 10;

/// The decisions until the response's head was complete.
pub(crate) fn decisions(record: &ExchangeRecord) -> HeaderValue {
    let mut text = String::new();
    let mut add = |item: std::fmt::Arguments<'_>| {
        if text.len() < FIELD_BYTES_MAX {
            // Writing to a string does not fail.
            let _ = write!(text, "{}{item}", if text.is_empty() { "" } else { ", " });
        }
    };
    add(format_args!("route;name=\"{}\"", record.route_name()));
    for call in &record.calls {
        let action = match &call.outcome {
            CallOutcome::Failed { kind, .. } => kind.label(),
            outcome => outcome.label(),
        };
        let (name, version, phase) = (&call.filter.name, &call.filter.version, call.phase.label());
        let (edits, micros, busy) = (call.stats.edits, call.duration.as_micros(), call.stats.busy.as_micros());
        add(format_args!(
            "filter;name=\"{name}\";version=\"{version}\";phase={phase};action={action};edits={edits};us={micros};cpu_us={busy}"
        ));
    }
    for attempt in &record.upstream.attempts {
        let (endpoint, result, micros) = (&attempt.endpoint, attempt.result, attempt.duration.as_micros());
        add(format_args!("try;endpoint=\"{endpoint}\";result=\"{result}\";us={micros}"));
    }
    if let Some(error) = &record.failure {
        add(format_args!("failure;kind={}", error.kind.label()));
    }
    let micros = record.head_after.unwrap_or_default().as_micros();
    add(format_args!("total;us={micros}"));
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("total"))
}
