//! The record of one exchange: who asked for what, what each step did, and how it ended.
//!
//! The pipeline fills the record step by step. [`ExchangeRecord::emit_head`] turns it into metrics
//! and log lines once the response's head is complete; dropping the record emits what only the end
//! of the response body can tell. Every consumer of an exchange's data (metrics, log lines, an
//! access log, traces) belongs into `emit_head` or `emit_end`, and nowhere else.
//! The record owns what it holds, without copies of text: the host and the path share the bytes of
//! the head, names are reference counted. The price is about 600 bytes for each open exchange.
//! This module does not know: how a step works.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::uri::PathAndQuery;
use http::{HeaderValue, Method, StatusCode, Version};
use smallvec::SmallVec;

use super::labels::method_label;
use super::metrics::Metrics;
use super::series::{FilterSeries, RouteSeries};
use witgate_http::body::Traffic;
use witgate_http::error::{Error, FilterFailure, Kind};
use witgate_runtime::exchange::{Client, id_text};
use witgate_runtime::filter::Phase;

/// What happened in one exchange.
pub struct ExchangeRecord {
    /// Tells the exchange apart in log lines. None if no request could be read.
    pub id: Option<u128>,
    /// The name of the listener.
    pub listener: Rc<str>,
    /// The peer of the connection.
    pub peer: Arc<Client>,
    /// The client, if a trusted proxy named another one than the peer.
    pub named_client: Option<Arc<Client>>,
    /// The version of HTTP that the client speaks.
    pub protocol: Version,
    /// The method. None if no request could be read.
    pub method: Option<Method>,
    /// The host that the client asked for.
    pub host: Option<HeaderValue>,
    /// The normalized path, and the query.
    pub target: Option<PathAndQuery>,
    /// The route. None if none matched.
    pub route: Option<Arc<RouteSeries>>,
    /// The status of the response.
    pub status: Option<StatusCode>,
    /// Bytes of both bodies.
    pub traffic: Rc<Traffic>,
    /// The calls of filters, in the order in which they ended.
    pub calls: SmallVec<[FilterCall; 2]>,
    /// What the upstream did.
    pub upstream: UpstreamRecord,
    /// What failed first. A failed call of a filter is also among `calls`.
    pub failure: Option<Error>,
    /// When the request's head was complete.
    pub started: Instant,
    /// From then to the complete head of the response.
    pub head_after: Option<Duration>,
}

/// One call of a filter.
pub struct FilterCall {
    /// Names the filter and its version.
    pub filter: Arc<FilterSeries>,
    /// Which handler was called.
    pub phase: Phase,
    /// Duration of the call, instantiation included.
    pub duration: Duration,
    /// How the call ended.
    pub outcome: CallOutcome,
    /// Log lines of the filter that were dropped.
    pub log_lines_dropped: u32,
}

/// How a call of a filter ended.
pub enum CallOutcome {
    /// The filter let the exchange go on.
    Proceeded,
    /// The filter answered the request or replaced the response.
    Responded,
    /// The call failed.
    Failed {
        /// For status and metrics.
        kind: FilterFailure,
        /// For the log: the guest's own message, or the trap with its backtrace.
        detail: String,
        /// Whether the filter's limit of log lines allows a line.
        is_logged: bool,
    },
}

/// What the upstream did.
#[derive(Default)]
pub struct UpstreamRecord {
    /// Each attempt to send the request. An attempt's result is the reason for the next one.
    pub attempts: SmallVec<[AttemptRecord; 1]>,
    /// When the request filters were done. None if the upstream was not asked.
    pub started: Option<Instant>,
    /// From then to the complete head of the upstream's response, all attempts included.
    pub head_after: Option<Duration>,
}

/// One attempt to send a request to an endpoint.
pub struct AttemptRecord {
    /// Host and port.
    pub endpoint: Arc<str>,
    /// One of `UPSTREAM_RESULTS`.
    pub result: &'static str,
    /// Time that a new connection took. None if an open one was used.
    pub connect: Option<Duration>,
    /// Time to the response's head, or to the failure.
    pub duration: Duration,
}

impl ExchangeRecord {
    /// The record of a request that begins.
    pub fn new(listener: &Rc<str>, peer: &Arc<Client>, protocol: Version) -> Self {
        Self {
            id: None,
            listener: listener.clone(),
            peer: peer.clone(),
            named_client: None,
            protocol,
            method: None,
            host: None,
            target: None,
            route: None,
            status: None,
            traffic: Rc::default(),
            calls: SmallVec::new(),
            upstream: UpstreamRecord::default(),
            failure: None,
            started: Instant::now(),
            head_after: None,
        }
    }

    /// The client: whom a trusted proxy named, else the peer.
    pub fn client(&self) -> &Arc<Client> {
        self.named_client.as_ref().unwrap_or(&self.peer)
    }

    /// Notes why the exchange failed. The first failure stays, since later ones follow from it.
    pub fn fail(&mut self, error: Error) {
        self.failure.get_or_insert(error);
    }

    /// Counts the exchange and writes its log lines. `status` is what the client gets.
    pub fn emit_head(&mut self, status: StatusCode, metrics: &Metrics) {
        let duration = self.started.elapsed();
        (self.status, self.head_after) = (Some(status), Some(duration));
        self.emit_calls();
        self.emit_failure();
        let (method, status, seconds) = (self.method_label(), status.as_u16(), duration.as_secs_f64());
        self.route.as_ref().unwrap_or(&metrics.no_route).count(method, status, seconds);
        let tls = self.peer.tls.as_deref();
        tracing::debug!(
            target: "access",
            route = self.route_name(),
            method,
            status,
            seconds,
            client = %self.peer.address,
            tls_version = tls.map(|tls| tls.version),
            sni = tls.and_then(|tls| tls.server_name.as_deref()),
            peer_sha256 = tls.and_then(|tls| tls.peer.as_ref()).map(|peer| peer.sha256.as_str()),
            "exchange"
        );
    }

    /// Counts the calls of filters, and logs those that failed.
    fn emit_calls(&self) {
        for call in &self.calls {
            let filter = &*call.filter;
            filter.count_call(call.phase, call.duration.as_secs_f64());
            if call.log_lines_dropped > 0 {
                filter.count_dropped_lines(call.log_lines_dropped);
            }
            let CallOutcome::Failed { kind, detail, is_logged } = &call.outcome else { continue };
            let kind = kind.label();
            filter.count_failure(kind);
            if *is_logged {
                tracing::error!(
                    filter = &*filter.name,
                    version = &*filter.version,
                    digest = &*filter.digest,
                    kind,
                    phase = call.phase.label(),
                    route = self.route_name(),
                    exchange = self.id.map(id_text),
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
        let (route, id, label) = (self.route_name(), self.id.map(id_text), kind.label());
        match kind {
            Kind::Filter(_) => {}
            kind if kind.is_upstream() || *kind == Kind::Internal => {
                tracing::warn!(kind = label, route, exchange = id, detail, "an exchange failed");
            }
            _ => tracing::debug!(kind = label, route, exchange = id, detail, "an exchange failed"),
        }
    }

    /// Writes what is known once the response body has been sent, or the client has left.
    fn emit_end(&self) {
        tracing::trace!(
            target: "access",
            exchange = self.id.map(id_text),
            listener = &*self.listener,
            protocol = ?self.protocol,
            client = %self.client().address,
            method = self.method.as_ref().map(Method::as_str),
            host = self.host.as_ref().and_then(|host| host.to_str().ok()),
            target = self.target.as_ref().map(PathAndQuery::as_str),
            route = self.route_name(),
            status = self.status.map(|status| status.as_u16()),
            received = self.traffic.received(),
            sent = self.traffic.sent(),
            calls = self.calls.len(),
            attempts = self.upstream.attempts.len(),
            endpoint = self.upstream.attempts.last().map(|attempt| &*attempt.endpoint),
            connect_seconds = self.upstream.attempts.last().and_then(|attempt| attempt.connect).map(|time| time.as_secs_f64()),
            upstream_seconds = self.upstream.head_after.map(|time| time.as_secs_f64()),
            seconds = self.started.elapsed().as_secs_f64(),
            "exchange ended"
        );
    }

    fn route_name(&self) -> &str {
        self.route.as_ref().map_or("-", |route| &route.name)
    }

    fn method_label(&self) -> &'static str {
        self.method.as_ref().map_or("other", method_label)
    }
}

impl Drop for ExchangeRecord {
    fn drop(&mut self) {
        // The client left before the response's head: the calls of filters still count.
        if self.status.is_none() {
            self.emit_calls();
        }
        self.emit_end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(metrics: &Metrics) -> ExchangeRecord {
        let peer = Arc::new(Client::new(([192, 0, 2, 1], 1).into()));
        let mut record = ExchangeRecord::new(&"main".into(), &peer, Version::HTTP_11);
        record.route = Some(Arc::new(metrics.route("api".into())));
        let filter = Arc::new(metrics.filter("f".into(), "1".into(), "abc".into(), "closed"));
        let outcome = CallOutcome::Failed { kind: FilterFailure::Trap, detail: String::new(), is_logged: false };
        let duration = Duration::from_millis(1);
        record.calls.push(FilterCall { filter, phase: Phase::Request, duration, outcome, log_lines_dropped: 3 });
        record
    }

    const CALL: &str = r#"witgate_filter_calls_total{filter="f",version="1",phase="request"} 1"#;
    const FAILED_CALL: &str = r#"witgate_filter_errors_total{filter="f",version="1",kind="trap"} 1"#;

    #[test]
    fn an_exchange_and_its_calls_are_counted_once() {
        let metrics = Metrics::new();
        let mut record = record(&metrics);
        record.emit_head(StatusCode::BAD_GATEWAY, &metrics);
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
        drop(record(&metrics));
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
