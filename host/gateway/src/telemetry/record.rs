//! The record of one exchange: who asked for what, what each step did, and how it ended.
//!
//! The pipeline fills the record step by step, and `emit` passes it on. This file has the data and
//! what can be concluded from it.
//! The record owns what it holds, without copies of text: the host and the path share the bytes of
//! the head, names are reference counted. The price is about 800 bytes for each open exchange.
//! This module does not know: how a step works.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};
use smallvec::SmallVec;

use super::attempt::UpstreamRecord;
use super::exchange_id::new_exchange_id;
use super::labels::method_label;
use super::sent::{SentRequest, SentRequests};
use super::series::{FilterSeries, RouteSeries};
use super::trace::context::{TraceContext, is_in_share};
use witgate_http::body::Traffic;
use witgate_http::error::{Error, FilterFailure, Kind};
use witgate_runtime::call::CallStats;
use witgate_runtime::exchange::{Client, ExchangeNote, id_digits};
use witgate_runtime::filter::Phase;

/// The detail of an exchange that has no status.
pub(super) const CLIENT_GONE: &str = "the client left, or reset its stream, before the response";

/// What happened in one exchange.
pub struct ExchangeRecord {
    /// Tells the exchange apart in log lines.
    pub id: u128,
    /// The id that client and upstream know: the exchange's id as text, or the one that a trusted
    /// proxy gave the request.
    pub request_id: HeaderValue,
    /// The place in a trace, if traces are on.
    pub trace: Option<TraceContext>,
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
    /// Fields of the request that the access log contains.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// All fields of the request, if somebody reads a tap.
    pub tapped_headers: Option<Box<HeaderMap>>,
    /// The route. None if none matched.
    pub route: Option<Arc<RouteSeries>>,
    /// The status of the response.
    pub status: Option<StatusCode>,
    /// Bytes of both bodies.
    pub traffic: Rc<Traffic>,
    /// The calls of filters, in the order in which they ended.
    pub calls: SmallVec<[FilterCall; 2]>,
    /// The notes that filters attached.
    pub notes: Vec<ExchangeNote>,
    /// What the running filter has sent to other services, if traces are on and filters may send.
    pub sent: Option<Arc<SentRequests>>,
    /// What the upstream did.
    pub upstream: UpstreamRecord,
    /// What failed first. A failed call of a filter is also among `calls`.
    pub failure: Option<Error>,
    /// When the request's head was complete.
    pub started: Instant,
    /// From then to the complete head of the response.
    pub head_after: Option<Duration>,
}

/// How an exchange ended, as far as only its end tells.
pub(super) struct End {
    /// From the request's head to the end of the response.
    pub(super) duration: Duration,
    /// The time at the end.
    pub(super) at: SystemTime,
}

/// One call of a filter.
pub struct FilterCall {
    /// Names the filter and its version.
    pub filter: Arc<FilterSeries>,
    /// Which handler was called.
    pub phase: Phase,
    /// Duration of the call, instantiation included.
    pub duration: Duration,
    /// What the call used.
    pub stats: CallStats,
    /// How the call ended.
    pub outcome: CallOutcome,
    /// Log lines of the filter that were dropped.
    pub log_lines_dropped: u32,
    /// What it sent to other services. Empty if traces are off.
    pub sent: Vec<SentRequest>,
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

impl CallOutcome {
    /// How a call that did not fail ended; `failed` for one that did.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Proceeded => "proceed",
            Self::Responded => "respond",
            Self::Failed { .. } => "failed",
        }
    }
}

impl ExchangeRecord {
    /// The record of a request that begins.
    pub fn new(listener: &Rc<str>, peer: &Arc<Client>, protocol: Version) -> Self {
        let id = new_exchange_id();
        Self {
            id,
            request_id: HeaderValue::from_bytes(&id_digits(id)).unwrap_or(HeaderValue::from_static("-")),
            trace: None,
            listener: listener.clone(),
            peer: peer.clone(),
            named_client: None,
            protocol,
            method: None,
            host: None,
            target: None,
            headers: vec![],
            tapped_headers: None,
            route: None,
            status: None,
            traffic: Rc::default(),
            calls: SmallVec::new(),
            notes: vec![],
            sent: None,
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

    /// Whether the exchange failed other than by a mistake of the client.
    pub(super) fn is_failed(&self) -> bool {
        let is_clients = |kind: Kind| !(kind.is_upstream() || kind.status().is_server_error());
        let has_error = self.failure.as_ref().is_some_and(|error| !is_clients(error.kind));
        let is_broken = self.traffic.broken().is_some_and(|(_, kind)| !is_clients(kind));
        has_error || is_broken || self.status.is_some_and(|status| status.is_server_error())
    }

    /// Whether the client left while the response's body was sent.
    pub(super) fn has_client_left(&self) -> bool {
        let has_body = !matches!(self.status.map(|status| status.as_u16()), Some(101 | 204 | 304));
        has_body && self.method != Some(Method::HEAD) && !self.traffic.has_sent_all()
    }

    /// Why the exchange failed, whoever is to blame: a label, and the detail.
    pub(super) fn error_type(&self) -> Option<(String, String)> {
        if let Some(Error { kind, detail }) = &self.failure {
            return Some((kind.label().to_owned(), detail.clone()));
        }
        if let Some((_, kind)) = self.traffic.broken() {
            return Some((kind.label().to_owned(), "a body ended early".into()));
        }
        match self.status {
            None => Some(("client-gone".into(), CLIENT_GONE.into())),
            Some(status) if status.is_server_error() => Some((status.as_str().to_owned(), self.status_origin().1)),
            Some(_) => None,
        }
    }

    /// Who chose the status of an exchange without a failure: a label, and the same in words.
    pub(super) fn status_origin(&self) -> (&'static str, String) {
        let answers = |call: &&FilterCall| matches!(call.outcome, CallOutcome::Responded);
        match (self.calls.iter().rfind(answers), self.upstream.attempts.last()) {
            (Some(call), _) => ("filter-status", format!("filter {} sent this status", call.filter.name)),
            (None, Some(attempt)) => ("upstream-status", format!("endpoint {} sent this status", attempt.endpoint)),
            (None, None) => ("route-status", "the route sent this status".into()),
        }
    }

    /// Whether the exchange is in a share of all exchanges.
    pub(super) fn is_in_share(&self, share: f64) -> bool {
        is_in_share(self.id, share)
    }

    /// The request id of a trusted proxy, if it is not the exchange's id.
    pub(super) fn foreign_request_id(&self) -> Option<&str> {
        let text = self.request_id.to_str().ok()?;
        (text.as_bytes() != id_digits(self.id)).then_some(text)
    }

    /// The version of HTTP as text.
    pub(super) fn protocol_label(&self) -> &'static str {
        match self.protocol {
            Version::HTTP_2 => "HTTP/2",
            Version::HTTP_10 => "HTTP/1.0",
            _ => "HTTP/1.1",
        }
    }

    pub(super) fn route_name(&self) -> &str {
        self.route.as_ref().map_or("-", |route| &route.name)
    }

    pub(super) fn method_label(&self) -> &'static str {
        self.method.as_ref().map_or("other", method_label)
    }
}
