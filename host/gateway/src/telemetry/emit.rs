//! Passes the record of an exchange on, at two moments.
//!
//! [`OpenRecord::emit_head`] turns it into metrics and log lines once the response's head is
//! complete; dropping the record emits what only the end of the response body can tell. Every
//! consumer of an exchange's data (metrics, log lines, the access log, traces, the last failures)
//! belongs into `emit_head` or `emit_end`, and nowhere else. This module does not know: how a step
//! works.

use std::ops::{Deref, DerefMut};
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use http::{HeaderMap, StatusCode, Version};

use super::labels::{TraceId, TraceLabels, status_label};
use super::log_limit::WARNINGS;
use super::record::{CallOutcome, End, ExchangeRecord};
use super::series::RouteSeries;
use super::sinks::Telemetry;
use super::usage::count_of_listener;
use witgate_http::error::{Error, Kind};
use witgate_runtime::exchange::{Client, id_text};

/// The record of an exchange that is open. Its drop passes it on.
pub struct OpenRecord {
    record: ExchangeRecord,
    telemetry: Rc<Telemetry>,
}

impl Deref for OpenRecord {
    type Target = ExchangeRecord;

    fn deref(&self) -> &ExchangeRecord {
        &self.record
    }
}

impl DerefMut for OpenRecord {
    fn deref_mut(&mut self) -> &mut ExchangeRecord {
        &mut self.record
    }
}

impl OpenRecord {
    /// The record of a request that begins.
    pub fn new(telemetry: &Rc<Telemetry>, listener: &Rc<str>, peer: &Arc<Client>, protocol: Version) -> Self {
        telemetry.metrics.no_route.begin();
        Self { record: ExchangeRecord::new(listener, peer, protocol), telemetry: telemetry.clone() }
    }

    /// Notes the route. Until then the exchange counts among those without one.
    pub fn set_route(&mut self, route: &Arc<RouteSeries>) {
        self.telemetry.metrics.no_route.leave();
        route.begin();
        self.record.route = Some(route.clone());
    }

    fn series(&self) -> &RouteSeries {
        self.route.as_ref().unwrap_or(&self.telemetry.metrics.no_route)
    }

    /// Begins the exchange's span, if traces are on. The request's fields then name it.
    pub fn begin_trace(&mut self, headers: &mut HeaderMap) {
        if let Some(tracer) = &*self.telemetry.tracer.load() {
            self.trace = Some(tracer.begin(headers, self.id));
        }
    }

    /// Keeps those fields of the request that the access log and the readers of taps get.
    pub fn keep_headers(&mut self, headers: &HeaderMap) {
        if let Some(access) = &*self.telemetry.access.load() {
            let kept = access.settings().headers.iter();
            self.headers.extend(kept.filter_map(|name| Some((name.clone(), headers.get(name)?.clone()))));
        }
        if self.telemetry.taps.has_readers() {
            self.tapped_headers = Some(Box::new(headers.clone()));
        }
    }

    /// Counts the exchange and writes its log lines. `status` is what the client gets.
    pub fn emit_head(&mut self, status: StatusCode) {
        let duration = self.started.elapsed();
        (self.status, self.head_after) = (Some(status), Some(duration));
        self.emit_calls();
        self.emit_failure();
        let (method, status, seconds) = (self.method_label(), status_label(status), duration.as_secs_f64());
        self.series().count(method, status, seconds, self.exemplar());
    }

    /// The trace that a histogram may name: one that is exported for certain.
    fn exemplar(&self) -> Option<TraceLabels> {
        let trace = self.trace.filter(|trace| trace.is_sampled || self.is_failed())?;
        Some(TraceLabels { trace_id: TraceId(trace.trace_id) })
    }

    /// Counts the calls of filters, and logs those that failed.
    fn emit_calls(&self) {
        for call in &self.calls {
            let filter = &*call.filter;
            filter.count_call(call.phase, call.duration.as_secs_f64(), self.exemplar());
            filter.count_usage(&call.stats);
            if call.log_lines_dropped > 0 {
                filter.count_dropped_lines(call.log_lines_dropped);
            }
            let CallOutcome::Failed { kind, detail, is_logged } = &call.outcome else { continue };
            filter.count_failure(*kind);
            let kind = kind.label();
            if *is_logged {
                tracing::error!(
                    filter = &*filter.name,
                    version = &*filter.version,
                    digest = &*filter.digest,
                    kind,
                    phase = call.phase.label(),
                    route = self.route_name(),
                    exchange = id_text(self.id),
                    request_id = self.foreign_request_id(),
                    on_error = filter.on_error,
                    detail,
                    "a filter failed"
                );
            }
        }
    }

    /// Logs a failure that is not a filter's: those have their own line. The line of a client's
    /// mistake is a debug line, so that clients cannot fill the log.
    fn emit_failure(&self) {
        let Some(Error { kind, detail }) = &self.failure else { return };
        let (route, request_id, label) = (self.route_name(), self.foreign_request_id(), kind.label());
        match kind {
            Kind::Filter(_) => {}
            kind if kind.is_upstream() || *kind == Kind::Internal => {
                let endpoint = self.upstream.attempts.last().map_or("-", |attempt| &attempt.endpoint);
                // A client can repeat the request without limit.
                let Some(suppressed) = WARNINGS.allow(&format!("{route} {endpoint}")) else { return };
                tracing::warn!(
                    kind = label,
                    route,
                    exchange = id_text(self.id),
                    request_id,
                    detail,
                    suppressed = (suppressed > 0).then_some(suppressed),
                    "an exchange failed"
                );
            }
            _ => {
                tracing::debug!(
                    kind = label,
                    route,
                    exchange = id_text(self.id),
                    request_id,
                    detail,
                    "an exchange failed"
                );
            }
        }
    }

    /// Passes the record on once the response body has been sent, or the client has left.
    fn emit_end(&self) {
        let duration = self.started.elapsed();
        let status = self.status.map(|status| status.as_u16());
        let metrics = &self.telemetry.metrics;
        count_of_listener(&metrics.listener_requests, &self.listener, status);
        self.series().end(status, duration.as_secs_f64(), self.exemplar(), &self.traffic);
        let access = self.telemetry.access.load();
        let has_readers = self.telemetry.taps.has_readers();
        let is_kept = self.error_is_kept();
        if access.is_none() && self.trace.is_none() && !has_readers && !is_kept {
            return;
        }
        let end = End { duration, at: SystemTime::now() };
        if let Some(access) = &*access {
            access.log(self, &end);
        }
        if self.trace.is_some()
            && let Some(tracer) = &*self.telemetry.tracer.load()
        {
            tracer.record(self, &end);
        }
        if is_kept {
            self.telemetry.failures.keep(self, &end);
        }
        if has_readers {
            self.telemetry.taps.send(self, &end);
        }
    }

    /// Whether the exchange is kept among the last failures.
    fn error_is_kept(&self) -> bool {
        self.failure.is_some() || self.is_failed()
    }
}

impl Drop for OpenRecord {
    fn drop(&mut self) {
        // No response's head was sent: the calls of filters still count, and so does a failure.
        if self.status.is_none() {
            self.emit_calls();
            self.emit_failure();
        }
        self.emit_end();
    }
}

#[cfg(test)]
mod tests {
    use super::super::Metrics;
    use super::super::record::FilterCall;
    use super::*;
    use std::time::Duration;
    use witgate_http::error::FilterFailure;
    use witgate_runtime::call::CallStats;
    use witgate_runtime::filter::Phase;

    fn record(metrics: &Metrics) -> OpenRecord {
        let telemetry = Rc::new(Telemetry::new(metrics.clone()));
        let peer = Arc::new(Client::new(([192, 0, 2, 1], 1).into()));
        let mut record = OpenRecord::new(&telemetry, &"main".into(), &peer, Version::HTTP_11);
        record.set_route(&Arc::new(metrics.route("api".into())));
        let filter = Arc::new(metrics.filter("f".into(), "1".into(), "abc".into(), "closed"));
        let outcome = CallOutcome::Failed { kind: FilterFailure::Trap, detail: String::new(), is_logged: false };
        let (duration, stats) = (Duration::from_millis(1), CallStats::default());
        let phase = Phase::Request;
        record.calls.push(FilterCall { filter, phase, duration, stats, outcome, log_lines_dropped: 3, sent: vec![] });
        record
    }

    /// The series that a record counts in.
    fn series(record: &OpenRecord) -> (Option<Arc<RouteSeries>>, Vec<Arc<super::super::FilterSeries>>) {
        (record.route.clone(), record.calls.iter().map(|call| call.filter.clone()).collect())
    }

    const CALL: &str = r#"witgate_filter_calls_total{filter="f",version="1",phase="request"} 1"#;
    const FAILED_CALL: &str = r#"witgate_filter_errors_total{filter="f",version="1",kind="trap"} 1"#;

    #[test]
    fn an_exchange_and_its_calls_are_counted_once() {
        let metrics = Metrics::new();
        let mut record = record(&metrics);
        // A snapshot keeps the series.
        let _series = series(&record);
        record.emit_head(StatusCode::BAD_GATEWAY);
        drop(record);
        let text = metrics.encode();
        for line in [
            CALL,
            FAILED_CALL,
            "witgate_filter_log_lines_dropped_total 3",
            r#"witgate_requests_total{route="api",method="other",status="502"} 1"#,
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
    }

    #[test]
    fn calls_count_also_if_the_client_leaves_before_the_response() {
        let metrics = Metrics::new();
        let record = record(&metrics);
        let _series = series(&record);
        drop(record);
        let text = metrics.encode();
        assert!(text.contains(CALL) && text.contains(FAILED_CALL), "{text}");
        assert!(!text.contains("witgate_requests_total{"), "{text}");
    }

    #[test]
    fn the_first_failure_stays() {
        let mut record = record(&Metrics::new());
        record.fail(Error::new(Kind::UpstreamClosed, ""));
        record.fail(Error::new(Kind::Filter(FilterFailure::Trap), ""));
        assert_eq!(record.failure.as_ref().map(|error| error.kind), Some(Kind::UpstreamClosed));
    }
}
