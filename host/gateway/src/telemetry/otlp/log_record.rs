//! A line of the access log, or of the gateway's own log, as a log record.
//!
//! The line is JSON already, and it is bounded and without secrets, so the record is made from it
//! on the thread that sends. Names follow OpenTelemetry's semantic conventions where they have one;
//! the others begin with `witgate.`. This module does not know: how a line is written.

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValueList};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, SeverityNumber};
use serde_json::{Map, Value as Json};

use super::super::json::parse_timestamp;
use super::resource::attribute;

/// Fields with a name in the semantic conventions.
const NAMES: [(&str, &str); 11] = [
    ("client", "client.address"),
    ("failure", "error.type"),
    ("host", "server.address"),
    ("id", "witgate.request_id"),
    ("method", "http.request.method"),
    ("path", "url.path"),
    ("peer", "network.peer.address"),
    ("query", "url.query"),
    ("received", "http.request.body.size"),
    ("sent", "http.response.body.size"),
    ("status", "http.response.status_code"),
];

/// The record of a line of the access log. `None` if the line is not JSON.
pub(super) fn access_record(line: &[u8], now_nanos: u64) -> Option<LogRecord> {
    let fields: Map<String, Json> = serde_json::from_slice(line).ok()?;
    let body = summary(&fields);
    let severity = severity(&fields);
    Some(record(fields, body, severity, ("witgate.access", now_nanos)))
}

/// The record of a line of the gateway's own log. `None` if the line is not JSON.
pub(super) fn own_record(line: &[u8], now_nanos: u64) -> Option<LogRecord> {
    let mut fields: Map<String, Json> = serde_json::from_slice(line).ok()?;
    let mut text = |name: &str| match fields.remove(name) {
        Some(Json::String(text)) => text,
        _ => String::new(),
    };
    let (level, body) = (text("level"), text("message"));
    let severity = match level.as_str() {
        "ERROR" => (SeverityNumber::Error, "ERROR"),
        "WARN" => (SeverityNumber::Warn, "WARN"),
        "DEBUG" => (SeverityNumber::Debug, "DEBUG"),
        "TRACE" => (SeverityNumber::Trace, "TRACE"),
        _ => (SeverityNumber::Info, "INFO"),
    };
    Some(record(fields, body, severity, ("witgate.log", now_nanos)))
}

fn record(
    mut fields: Map<String, Json>,
    body: String,
    (severity, text): (SeverityNumber, &str),
    (event_name, now_nanos): (&str, u64),
) -> LogRecord {
    let time = fields.remove("time").and_then(|time| parse_timestamp(time.as_str()?));
    let id = |value: Option<Json>| hex::decode(value?.as_str()?).ok();
    let (trace_id, span_id) = (id(fields.remove("trace_id")), id(fields.remove("span_id")));
    let is_sampled = fields.remove("sampled").is_some_and(|sampled| sampled == true);
    let named = |(name, value): (String, Json)| {
        let known = NAMES.iter().find(|(own, _)| *own == name).map(|(_, known)| (*known).to_owned());
        Some(attribute(known.unwrap_or_else(|| format!("witgate.{name}")), any_value(value)?))
    };
    LogRecord {
        time_unix_nano: time.unwrap_or(now_nanos),
        observed_time_unix_nano: now_nanos,
        severity_number: severity.into(),
        severity_text: text.into(),
        body: Some(AnyValue { value: Some(Value::StringValue(body)) }),
        attributes: fields.into_iter().filter_map(named).collect(),
        flags: is_sampled.into(),
        trace_id: trace_id.unwrap_or_default(),
        span_id: span_id.unwrap_or_default(),
        event_name: event_name.into(),
        ..LogRecord::default()
    }
}

/// Method, path and status, as far as the line has them.
fn summary(fields: &Map<String, Json>) -> String {
    let text = |name: &str| match fields.get(name) {
        Some(Json::String(text)) => Some(text.clone()),
        Some(Json::Number(number)) => Some(number.to_string()),
        _ => None,
    };
    let parts: Vec<String> = ["method", "path", "status"].into_iter().filter_map(text).collect();
    parts.join(" ")
}

fn severity(fields: &Map<String, Json>) -> (SeverityNumber, &'static str) {
    if fields.get("status").and_then(Json::as_u64).is_some_and(|status| status >= 500) {
        (SeverityNumber::Error, "ERROR")
    } else if fields.contains_key("failure") {
        (SeverityNumber::Warn, "WARN")
    } else {
        (SeverityNumber::Info, "INFO")
    }
}

/// A line has lists of objects, not deeper ones, so the recursion is bounded.
fn any_value(value: Json) -> Option<Value> {
    Some(match value {
        Json::Null => return None,
        Json::Bool(value) => Value::BoolValue(value),
        Json::Number(number) => match number.as_i64() {
            Some(number) => Value::IntValue(number),
            None => Value::DoubleValue(number.as_f64()?),
        },
        Json::String(text) => Value::StringValue(text),
        Json::Array(items) => {
            let values = items.into_iter().filter_map(any_value).map(|value| AnyValue { value: Some(value) });
            Value::ArrayValue(ArrayValue { values: values.collect() })
        }
        Json::Object(fields) => {
            let values = fields.into_iter().filter_map(|(name, value)| Some(attribute(name, any_value(value)?)));
            Value::KvlistValue(KeyValueList { values: values.collect() })
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_becomes_a_record() {
        let line = br#"{"time":"1970-01-01T00:00:01.500Z","id":"ab","trace_id":"0f","span_id":"01","sampled":true,
            "method":"GET","path":"/a","status":502,"filters":[{"filter":"f","us":7}],"failure":"trap"}"#;
        let record = access_record(line, 9).unwrap_or_default();
        assert_eq!((record.time_unix_nano, record.observed_time_unix_nano), (1_500_000_000, 9));
        assert_eq!((record.trace_id, record.span_id, record.flags), (vec![15], vec![1], 1));
        assert_eq!((record.severity_number, record.severity_text.as_str()), (17, "ERROR"));
        assert_eq!(record.body.and_then(|body| body.value), Some(Value::StringValue("GET /a 502".into())));
        let names: Vec<_> = record.attributes.iter().map(|attribute| attribute.key.as_str()).collect();
        let expected = [
            "error.type",
            "witgate.filters",
            "witgate.request_id",
            "http.request.method",
            "url.path",
            "http.response.status_code",
        ];
        assert_eq!(names, expected);
        assert!(access_record(b"not json", 9).is_none());
    }

    #[test]
    fn a_line_of_the_own_log_becomes_a_record() {
        let line =
            br#"{"time":"1970-01-01T00:00:01.500Z","level":"WARN","message":"an exchange failed","route":"api"}"#;
        let record = own_record(line, 9).unwrap_or_default();
        assert_eq!((record.time_unix_nano, record.severity_number), (1_500_000_000, 13));
        assert_eq!(record.body.and_then(|body| body.value), Some(Value::StringValue("an exchange failed".into())));
        let names: Vec<_> = record.attributes.iter().map(|attribute| attribute.key.as_str()).collect();
        assert_eq!((names, record.event_name.as_str()), (vec!["witgate.route"], "witgate.log"));
    }
}
