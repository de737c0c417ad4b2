//! `witgate tap`: prints the exchanges of a running gateway as they end.
//!
//! The gateway selects them and hides secrets. A line for people has the explanation of the failure
//! below it. This module does not know: how exchanges are selected.

use std::fmt::Write as _;
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::admin_client::TargetOptions;
use super::output;

/// The options of `tap`.
#[derive(Args)]
pub(super) struct Options {
    #[command(flatten)]
    gateway: TargetOptions,
    /// Only exchanges of this route
    #[arg(long, value_name = "NAME")]
    route: Option<String>,
    /// Only these statuses: 5xx, 404, 500-599, or several with commas
    #[arg(long, value_name = "STATUS")]
    status: Option<String>,
    /// Only exchanges that took at least so many milliseconds
    #[arg(long, value_name = "MS")]
    slower: Option<u64>,
    /// Print the fields of each request too
    #[arg(long)]
    headers: bool,
    /// Print a JSON object for each exchange
    #[arg(long)]
    json: bool,
}

pub(super) fn run(options: Options) -> Result<(), String> {
    let path = path(&options);
    let Options { gateway, headers, json, .. } = options;
    let target = gateway.target()?;
    target.stream(&path, |line| {
        if line.is_empty() {
            return Ok(());
        }
        if json {
            return output::print(line);
        }
        let value = serde_json::from_str(line).map_err(|error| format!("{}: {error}", target.endpoint))?;
        describe(&value, headers).lines().try_for_each(output::print)
    })?;
    output::print_error("the gateway has ended the stream");
    Ok(())
}

fn path(options: &Options) -> String {
    let slower = options.slower.map(|millis| millis.to_string());
    let pairs = [("route", &options.route), ("status", &options.status), ("slower", &slower)];
    let pairs = pairs.into_iter().filter_map(|(key, value)| Some(format!("{key}={}", encoded(value.as_ref()?))));
    format!("/tap?{}", pairs.collect::<Vec<_>>().join("&"))
}

/// Percent-encoded, but for characters that mean themselves.
fn encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._,".contains(&byte) {
            out.push(byte.into());
        } else {
            // Writing to a string does not fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// An exchange in one line, with its failure and its fields in further lines.
fn describe(exchange: &Value, with_headers: bool) -> String {
    if let Some(lost) = exchange["lost"].as_u64() {
        return format!("… {lost} exchanges were not shown: this terminal was too slow");
    }
    let text = |name: &str| exchange[name].as_str().unwrap_or_default();
    let time = text("time").split(['T', 'Z']).nth(1).unwrap_or_default();
    let status = exchange["status"].as_u64().map_or("---".to_owned(), |status| status.to_string());
    let took = duration(exchange["duration_us"].as_u64().unwrap_or_default());
    let (method, host, path, route) = (text("method"), text("host"), text("path"), text("route"));
    let mut out = format!("{time} {status} {method} {host}{path} {took} route={route}");
    // Writing to a string does not fail.
    for attempt in exchange["tries"].as_array().into_iter().flatten() {
        let (endpoint, result) = (attempt["endpoint"].as_str(), attempt["result"].as_str());
        let took = duration(attempt["us"].as_u64().unwrap_or_default());
        let _ = write!(out, " {}={},{took}", endpoint.unwrap_or_default(), result.unwrap_or_default());
    }
    for call in exchange["filters"].as_array().into_iter().flatten() {
        let part = |name: &str| call[name].as_str().unwrap_or_default();
        let took = duration(call["us"].as_u64().unwrap_or_default());
        let _ = write!(out, " {}@{}={},{took}", part("filter"), part("version"), part("outcome"));
    }
    let _ = write!(out, " id={}", text("id"));
    if let Some(what) = exchange["what"].as_str() {
        let _ = write!(out, "\n    {what}");
    }
    for (name, value) in exchange["headers"].as_object().filter(|_| with_headers).into_iter().flatten() {
        let _ = write!(out, "\n    {name}: {}", value.as_str().unwrap_or_default());
    }
    out
}

fn duration(micros: u64) -> String {
    let time = Duration::from_micros(micros);
    if micros < 1000 { format!("{micros}us") } else { format!("{:.1}ms", time.as_secs_f64() * 1000.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exchange_is_described_in_a_line() {
        let exchange = serde_json::json!({"time": "2026-01-31T23:59:59.123Z", "status": 502, "method": "GET",
            "host": "h", "path": "/a", "duration_us": 2500, "route": "r", "id": "7",
            "tries": [{"endpoint": "e:1", "result": "connect", "us": 900}],
            "filters": [{"filter": "f", "version": "1", "outcome": "proceed", "us": 80}],
            "what": "GET h/a got status 502", "headers": {"accept": "*/*"}});
        let line = "23:59:59.123 502 GET h/a 2.5ms route=r e:1=connect,900us f@1=proceed,80us id=7";
        assert_eq!(describe(&exchange, false), format!("{line}\n    GET h/a got status 502"));
        assert!(describe(&exchange, true).ends_with("\n    accept: */*"));
        assert!(describe(&serde_json::json!({"lost": 7}), false).starts_with("… 7 exchanges"));
        assert_eq!(encoded("a b&c/5xx,404"), "a%20b%26c%2F5xx,404");
    }
}
