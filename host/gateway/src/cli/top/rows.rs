//! The rows of the tables: rates and percentiles between two readings.
//!
//! This module does not know: how rows are drawn.

use serde_json::Value;

use super::sample::Sample;

/// What is shown.
#[derive(Default)]
pub(super) struct Rows {
    /// One line about the process.
    pub(super) summary: String,
    /// A cell for each of [`ROUTE_COLUMNS`].
    pub(super) routes: Vec<Vec<String>>,
    /// A cell for each of [`FILTER_COLUMNS`].
    pub(super) filters: Vec<Vec<String>>,
    /// A cell for each of [`UPSTREAM_COLUMNS`].
    pub(super) upstreams: Vec<Vec<String>>,
}

pub(super) const ROUTE_COLUMNS: [&str; 7] = ["ROUTE", "REQ/S", "5XX/S", "P50", "P99", "IN FLIGHT", "SENT/S"];
pub(super) const FILTER_COLUMNS: [&str; 9] =
    ["FILTER", "VERSION", "STATE", "CALLS/S", "ERRORS/S", "P50", "P99", "CPU/CALL", "MEMORY"];
pub(super) const UPSTREAM_COLUMNS: [&str; 8] =
    ["UPSTREAM", "ENDPOINT", "STATE", "REQ/S", "FAILED/S", "IN FLIGHT", "CONNECTIONS", "PENDING"];

/// Two readings.
struct Interval<'s> {
    from: &'s Sample,
    to: &'s Sample,
    seconds: f64,
}

impl Rows {
    /// The rows for what happened from one reading to the next.
    pub(super) fn between(from: &Sample, to: &Sample) -> Self {
        let seconds = to.at.saturating_duration_since(from.at).as_secs_f64().max(0.001);
        let interval = Interval { from, to, seconds };
        let unmatched = (to.sum("witgate_requests_total", &[("route", "-")]) > 0.0).then_some("-");
        let routes = list(&to.routes).filter_map(|route| route["name"].as_str()).chain(unmatched);
        let endpoints = list(&to.upstreams)
            .flat_map(|upstream| list(&upstream["endpoints"]).map(move |endpoint| (upstream, endpoint)));
        Self {
            summary: interval.summary(),
            routes: routes.map(|name| interval.route(name)).collect(),
            filters: list(&to.filters).map(|filter| interval.filter(filter)).collect(),
            upstreams: endpoints.map(|(upstream, endpoint)| interval.endpoint(upstream, endpoint)).collect(),
        }
    }
}

impl Interval<'_> {
    fn summary(&self) -> String {
        let now = |name: &str| self.to.sum(name, &[]);
        format!(
            "{:.0} requests/s   {:.1} 5xx/s   {:.0} in flight   {:.0} connections   CPU {:.0}%   memory {}   {:.0} open files",
            self.rate("witgate_listener_requests_total", &[]),
            self.rate("witgate_listener_requests_total", &[("class", "5xx")]),
            now("witgate_in_flight"),
            now("witgate_connections"),
            self.rate("process_cpu_seconds_total", &[]) * 100.0,
            bytes(now("process_resident_memory_bytes")),
            now("process_open_fds"),
        )
    }

    fn route(&self, name: &str) -> Vec<String> {
        let labels = [("route", name)];
        let failed = [("route", name), ("class", "5xx")];
        vec![
            name.to_owned(),
            rate(self.rate("witgate_requests_total", &labels)),
            rate(self.rate("witgate_exchange_duration_seconds_count", &failed)),
            self.percentile(0.5, "witgate_request_duration_seconds", &labels),
            self.percentile(0.99, "witgate_request_duration_seconds", &labels),
            format!("{:.0}", self.to.sum("witgate_route_in_flight", &labels)),
            bytes(self.rate("witgate_sent_bytes_total", &labels)),
        ]
    }

    fn filter(&self, filter: &Value) -> Vec<String> {
        let (name, version) = (text(filter, "name"), text(filter, "version"));
        let labels = [("filter", &*name), ("version", &*version)];
        let calls = self.rate("witgate_filter_calls_total", &labels);
        let busy = self.rate("witgate_filter_cpu_seconds_total", &labels);
        let state = if filter["refused"].is_object() { "newer file refused".into() } else { text(filter, "state") };
        vec![
            name.clone(),
            version.clone(),
            state,
            rate(calls),
            rate(self.rate("witgate_filter_errors_total", &labels)),
            self.percentile(0.5, "witgate_filter_call_duration_seconds", &labels),
            self.percentile(0.99, "witgate_filter_call_duration_seconds", &labels),
            if calls > 0.0 { time(busy / calls) } else { "-".into() },
            bytes(self.to.sum("witgate_filter_memory_peak_bytes", &labels)),
        ]
    }

    fn endpoint(&self, upstream: &Value, endpoint: &Value) -> Vec<String> {
        let (name, address) = (text(upstream, "name"), text(endpoint, "endpoint"));
        let labels = [("upstream", &*name), ("endpoint", &*address)];
        let answered = [("upstream", &*name), ("endpoint", &*address), ("result", "ok")];
        let all = self.rate("witgate_upstream_requests_total", &labels);
        let state = match (endpoint["ejected_for_seconds"].as_f64(), endpoint["healthy"].as_bool()) {
            (Some(seconds), _) => format!("ejected, {seconds:.0} s"),
            (None, Some(false)) => "unhealthy".into(),
            (None, _) => "in service".into(),
        };
        let number = |key: &str| endpoint[key].as_u64().map_or("-".into(), |number| number.to_string());
        vec![
            name.clone(),
            address.clone(),
            state,
            rate(all),
            rate(all - self.rate("witgate_upstream_requests_total", &answered)),
            number("in_flight"),
            number("connections"),
            number("pending"),
        ]
    }

    /// The increase of a counter in a second.
    fn rate(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        // A counter that is smaller than before belongs to a new process.
        (self.to.sum(name, labels) - self.from.sum(name, labels)).max(0.0) / self.seconds
    }

    /// A percentile of what was measured meanwhile, interpolated as Prometheus does.
    fn percentile(&self, share: f64, name: &str, labels: &[(&str, &str)]) -> String {
        let before = self.from.buckets(name, labels);
        let mut buckets = self.to.buckets(name, labels);
        for (bound, count) in &mut buckets {
            let old = before.iter().find(|(known, _)| known == bound).map_or(0.0, |(_, count)| *count);
            *count = (*count - old).max(0.0);
        }
        let total = buckets.last().map_or(0.0, |(_, count)| *count);
        if total == 0.0 {
            return "-".into();
        }
        let (rank, mut lower, mut below) = (share * total, 0.0, 0.0);
        for (bound, count) in buckets {
            if count >= rank {
                let is_open = bound.is_infinite();
                let value = if is_open { lower } else { lower + (bound - lower) * (rank - below) / (count - below) };
                return if is_open { format!(">{}", time(value)) } else { time(value) };
            }
            (lower, below) = (bound, count);
        }
        "-".into()
    }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or("-").to_owned()
}

fn rate(per_second: f64) -> String {
    if per_second == 0.0 || per_second >= 10.0 { format!("{per_second:.0}") } else { format!("{per_second:.1}") }
}

fn time(seconds: f64) -> String {
    match seconds {
        seconds if seconds < 0.001 => format!("{:.0} us", seconds * 1e6),
        seconds if seconds < 1.0 => format!("{:.1} ms", seconds * 1e3),
        seconds => format!("{seconds:.1} s"),
    }
}

fn bytes(count: f64) -> String {
    match count {
        count if count < 1024.0 => format!("{count:.0} B"),
        count if count < 1024.0 * 1024.0 => format!("{:.1} KiB", count / 1024.0),
        count => format!("{:.1} MiB", count / 1024.0 / 1024.0),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn metrics(scale: u32) -> String {
        format!(
            "# TYPE witgate_requests counter\nwitgate_requests_total{{route=\"a\",status=\"200\"}} {0}\n\
             witgate_requests_total{{route=\"a\",status=\"500\"}} {0}\n\
             # TYPE witgate_request_duration_seconds histogram\n\
             witgate_request_duration_seconds_bucket{{le=\"0.01\",route=\"a\"}} {0}\n\
             witgate_request_duration_seconds_bucket{{le=\"+Inf\",route=\"a\"}} {1}\n",
            scale * 10,
            scale * 20
        )
    }

    #[test]
    fn rates_and_percentiles_are_of_the_interval() {
        let start = Instant::now();
        let (first, second) = (Sample::of(&metrics(1), start), Sample::of(&metrics(3), start + Duration::from_secs(2)));
        let interval = Interval { from: &first, to: &second, seconds: 2.0 };
        assert_eq!(interval.rate("witgate_requests_total", &[("route", "a")]), 20.0);
        assert_eq!(interval.percentile(0.25, "witgate_request_duration_seconds", &[("route", "a")]), "5.0 ms");
        assert_eq!(interval.percentile(0.99, "witgate_request_duration_seconds", &[("route", "a")]), ">10.0 ms");
        assert_eq!(interval.percentile(0.5, "witgate_request_duration_seconds", &[("route", "b")]), "-");
        let restarted = Interval { from: &second, to: &first, seconds: 2.0 };
        assert_eq!(restarted.rate("witgate_requests_total", &[]), 0.0);
    }
}
