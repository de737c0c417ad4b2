//! The series of one route, and of one filter in one route.
//!
//! Looking a series up by its labels hashes and compares strings, under a lock that all threads
//! share. That takes as long as much of the rest of an exchange, so each series is looked up once
//! and kept here. The price is some memory for each route and filter.
//! This module does not know: what a route or a filter does.

use std::sync::{Arc, OnceLock};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

use super::buckets::{Buckets, TracedHistogram, observe};
use super::labels::{CallLabels, RequestLabels, RouteLabels, ShadowLabels, StoreOperationLabels, TraceLabels};
use super::series_owners::{Owner, count_known};
use super::usage::{FilterUsage, RouteUsage, RunningCall};
use witgate_http::body::Traffic;
use witgate_http::error::FilterFailure;
use witgate_runtime::call::CallStats;
use witgate_runtime::filter::Phase;

/// The series of one route's exchanges.
pub struct RouteSeries {
    /// The route's name, `-` for requests that no route matches.
    pub name: Arc<str>,
    requests: Family<RequestLabels, Counter>,
    request_seconds: Family<RouteLabels, TracedHistogram, Buckets>,
    usage: RouteUsage,
    owner: Arc<Owner>,
    duration: OnceLock<TracedHistogram>,
    /// The first combinations of method and status that occurred. Later ones are looked up.
    counters: [OnceLock<(&'static str, u16, Counter)>; 8],
}

/// The series of one filter's calls in one route, and what names the filter in log lines.
pub struct FilterSeries {
    /// The filter's name in gateway.yaml.
    pub name: Arc<str>,
    /// The manifest's version, `-` without a manifest.
    pub version: Arc<str>,
    /// The first 12 digits of the file's SHA-256.
    pub digest: Arc<str>,
    /// `open` or `closed`: what happens to the exchange when a call fails.
    pub on_error: &'static str,
    pub(super) calls: Family<CallLabels, Counter>,
    pub(super) call_seconds: Family<CallLabels, TracedHistogram, Buckets>,
    /// In the order of `FilterFailure::ALL`.
    pub(super) failures: [Counter; FilterFailure::ALL.len()],
    pub(super) log_lines_dropped: Counter,
    pub(super) owner: Arc<Owner>,
    /// The series of the request phase and of the response phase.
    pub(super) phases: [OnceLock<(TracedHistogram, Counter)>; 2],
    pub(super) usage: FilterUsage,
}

/// Counts the exchanges that the shadow of one filter compares.
#[derive(Clone)]
pub struct ShadowCounters {
    pub(super) results: Family<ShadowLabels, Counter>,
    pub(super) filter: Arc<str>,
}

impl ShadowCounters {
    /// Counts an exchange. `result` is from a fixed list.
    pub fn count(&self, result: &'static str) {
        self.results.get_or_create(&ShadowLabels { filter: self.filter.clone(), result }).inc();
    }
}

/// The series of a shared store.
pub struct StoreSeries {
    /// 1 while the store is in service.
    pub up: Gauge,
    pub(super) name: Arc<str>,
    pub(super) duration: Histogram,
    pub(super) operations: Family<StoreOperationLabels, Counter>,
}

impl RouteSeries {
    pub(super) fn new(
        name: Arc<str>,
        requests: &Family<RequestLabels, Counter>,
        request_seconds: &Family<RouteLabels, TracedHistogram, Buckets>,
        usage: RouteUsage,
        owner: Arc<Owner>,
    ) -> Self {
        usage.begin_failures(&name);
        Self {
            name,
            requests: requests.clone(),
            request_seconds: request_seconds.clone(),
            usage,
            owner,
            duration: OnceLock::new(),
            counters: Default::default(),
        }
    }

    /// An exchange of this route begins.
    pub(super) fn begin(&self) {
        self.usage.begin(&self.name);
    }

    /// An exchange goes on to another route.
    pub(super) fn leave(&self) {
        self.usage.leave(&self.name);
    }

    /// An exchange of this route ended. It has no status if the client left before the response.
    pub(super) fn end(&self, status: Option<u16>, seconds: f64, trace: Option<TraceLabels>, traffic: &Traffic) {
        self.usage.end(&self.name, status, (seconds, trace), traffic);
    }

    /// Counts an exchange of this route. `trace` is the recorded trace that it belongs to.
    pub fn count(&self, method: &'static str, status: u16, seconds: f64, trace: Option<TraceLabels>) {
        let duration = || self.owner.series(&self.request_seconds, &RouteLabels { route: self.name.clone() });
        observe(self.duration.get_or_init(duration), seconds, trace);
        let labels = || RequestLabels { route: self.name.clone(), method, status };
        let counter = || self.owner.series(&self.requests, &labels());
        for slot in &self.counters {
            let own = slot.get_or_init(|| (method, status, counter()));
            if own.0 == method && own.1 == status {
                own.2.inc();
                return;
            }
        }
        counter().inc();
    }
}

impl FilterSeries {
    /// A call begins. It runs until the value is dropped.
    pub fn begin_call(&self) -> RunningCall<'_> {
        self.usage.begin(&self.name, &self.version)
    }

    /// Counts what a call used.
    pub(super) fn count_usage(&self, stats: &CallStats) {
        self.usage.count(&self.name, &self.version, stats);
    }

    /// Counts a call.
    pub(super) fn count_call(&self, phase: Phase, seconds: f64, trace: Option<TraceLabels>) {
        let (duration, calls) = self.phases[usize::from(phase == Phase::Response)].get_or_init(|| {
            let labels = CallLabels { filter: self.name.clone(), version: self.version.clone(), phase: phase.label() };
            (self.owner.series(&self.call_seconds, &labels), self.owner.series(&self.calls, &labels))
        });
        observe(duration, seconds, trace);
        calls.inc();
    }

    /// Counts log lines of a call that were dropped.
    pub(super) fn count_dropped_lines(&self, lines: u32) {
        self.log_lines_dropped.inc_by(lines.into());
    }

    /// Counts a failed call.
    pub(super) fn count_failure(&self, kind: FilterFailure) {
        if let Some(index) = FilterFailure::ALL.iter().position(|one| *one == kind) {
            self.failures[index].inc();
        }
    }
}

impl StoreSeries {
    /// Counts an operation. `seconds` is its duration if it was sent.
    pub fn count(&self, operation: &'static str, result: &'static str, seconds: Option<f64>) {
        let labels = StoreOperationLabels { store: self.name.clone(), operation, result };
        count_known(&self.operations, &labels);
        if let Some(seconds) = seconds {
            self.duration.observe(seconds);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Metrics;

    #[test]
    fn exchanges_are_counted_whatever_their_number_of_statuses() {
        let metrics = Metrics::new();
        let series = metrics.route("api".into());
        for status in 200..220 {
            series.count("GET", status, 0.1, None);
            series.count("GET", status, 0.1, None);
        }
        let text = metrics.encode();
        for status in 200..220 {
            assert!(text.contains(&format!("route=\"api\",method=\"GET\",status=\"{status}\"}} 2")), "{text}");
        }
        assert!(text.contains("witgate_request_duration_seconds_count{route=\"api\"} 40"), "{text}");
    }
}
