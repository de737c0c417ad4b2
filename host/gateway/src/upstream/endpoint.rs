//! The state of one endpoint that all threads share: health, ejection, and counts of current work.
//!
//! An endpoint outlives reloads, so a reload does not discard what health checks found. The numbers
//! are relaxed atomics: each decision reads one of them, and a decision that is one request late
//! does no harm. This module does not know: requests, connections.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;
use tokio::sync::Notify;

use super::verdict::AttemptResult;
use crate::telemetry::{EndpointLabels, Metrics, UpstreamLabels, count_known};
use witgate_config::{AddressKind, EndpointAddress, OutlierDetection};
use witgate_http::limiter::{Limiter, Permit};

/// An ejection lasts at most this many times as long as the first one.
const EJECTION_GROWTH_MAX: u32 = 16;

const UNKNOWN: u8 = 0;
const HEALTHY: u8 = 1;
const UNHEALTHY: u8 = 2;

/// The address of a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SocketTarget {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl fmt::Display for SocketTarget {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(formatter),
            Self::Unix(path) => write!(formatter, "unix:{}", path.display()),
        }
    }
}

/// One endpoint of an upstream.
pub struct Endpoint {
    /// Unique in this process.
    pub id: u64,
    /// The upstream's name.
    pub upstream: Arc<str>,
    /// As the configuration names it. Several endpoints share a name with several addresses.
    pub(super) address: EndpointAddress,
    pub(super) socket: SocketTarget,
    /// The socket's address as text, for labels and messages.
    pub label: Arc<str>,
    health: AtomicU8,
    /// Failures in a row.
    failures: AtomicU32,
    /// In milliseconds of [`now_ms`]; 0 if it was never ejected.
    ejected_until_ms: AtomicU64,
    /// Ejections in a row.
    ejections: AtomicU32,
    /// Set from an ejection until the next success.
    on_probation: AtomicBool,
    in_flight: Limiter,
    connections: Limiter,
    pending: Limiter,
    /// Notified after each connection that ends.
    pub(super) connection_ended: Arc<Notify>,
    answered: Counter,
    metrics: Metrics,
}

/// The state of an endpoint at one moment, for `/upstreams` and the gauges.
#[derive(Debug, Clone, Copy)]
pub struct EndpointStatus {
    /// The verdict of the health checks; none if there is none yet.
    pub healthy: Option<bool>,
    /// The remaining time of its ejection; none if it is not ejected.
    pub ejected_for: Option<Duration>,
    /// Failures in a row.
    pub failures: u32,
    /// Requests whose response has not ended.
    pub in_flight: usize,
    /// Open connections.
    pub connections: usize,
    /// Requests that wait for a connection.
    pub pending: usize,
}

impl Endpoint {
    pub(super) fn new(upstream: Arc<str>, address: EndpointAddress, socket: SocketTarget, metrics: &Metrics) -> Self {
        let label: Arc<str> = socket.to_string().into();
        metrics.begin_endpoint(&EndpointLabels { upstream: upstream.clone(), endpoint: label.clone() });
        let result = AttemptResult::Answered.label();
        let labels = UpstreamLabels { upstream: upstream.clone(), endpoint: label.clone(), result };
        Self {
            id: next_id(),
            answered: metrics.upstream_requests.get_or_create(&labels).clone(),
            upstream,
            address,
            socket,
            label,
            health: AtomicU8::new(UNKNOWN),
            failures: AtomicU32::new(0),
            ejected_until_ms: AtomicU64::new(0),
            ejections: AtomicU32::new(0),
            on_probation: AtomicBool::new(false),
            in_flight: Limiter::default(),
            connections: Limiter::default(),
            pending: Limiter::default(),
            connection_ended: Arc::default(),
            metrics: metrics.clone(),
        }
    }

    /// The name in the configuration, if it is resolved to addresses.
    pub fn name(&self) -> Option<String> {
        let name = self.address.to_string();
        (name != *self.label).then_some(name)
    }

    /// What a request that the gateway makes says in its `host` field.
    pub(super) fn authority(&self) -> String {
        match self.address.kind {
            AddressKind::Unix => "localhost".to_owned(),
            AddressKind::Host | AddressKind::Srv => self.address.to_string(),
        }
    }

    /// Whether it may take requests: it is neither unhealthy nor ejected.
    pub fn is_in_service(&self) -> bool {
        self.health.load(Relaxed) != UNHEALTHY && !self.is_ejected()
    }

    pub(super) fn is_ejected(&self) -> bool {
        let until = self.ejected_until_ms.load(Relaxed);
        until != 0 && now_ms() < until
    }

    /// Requests of all threads whose response has not ended.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.in_use()
    }

    /// Requests of all threads that wait for a connection.
    pub(super) fn pending(&self) -> usize {
        self.pending.in_use()
    }

    /// Reads the current state.
    pub fn status(&self) -> EndpointStatus {
        let ejected_ms = self.ejected_until_ms.load(Relaxed).saturating_sub(now_ms());
        EndpointStatus {
            healthy: match self.health.load(Relaxed) {
                UNKNOWN => None,
                health => Some(health == HEALTHY),
            },
            ejected_for: (ejected_ms > 0).then(|| Duration::from_millis(ejected_ms)),
            failures: self.failures.load(Relaxed),
            in_flight: self.in_flight(),
            connections: self.connections.in_use(),
            pending: self.pending(),
        }
    }

    /// Stores the verdict of the health checks and returns whether it changed. An unhealthy
    /// endpoint that becomes healthy also ends its ejection, because the check has just reached it.
    pub(super) fn set_health(&self, healthy: bool) -> bool {
        let verdict = if healthy { HEALTHY } else { UNHEALTHY };
        let before = self.health.swap(verdict, Relaxed);
        if healthy && before == UNHEALTHY {
            self.failures.store(0, Relaxed);
            self.ejections.store(0, Relaxed);
            self.ejected_until_ms.store(0, Relaxed);
            self.on_probation.store(false, Relaxed);
        }
        before != verdict
    }

    /// Forgets the verdict, for an endpoint that is not checked any more.
    pub(super) fn clear_health(&self) {
        self.health.store(UNKNOWN, Relaxed);
    }

    /// Ends a row of failures.
    pub(super) fn record_success(&self) {
        // The count is almost always 0, and a cache line that is only read stays shared by all
        // cores.
        if self.failures.load(Relaxed) != 0 {
            self.failures.store(0, Relaxed);
            if !self.is_ejected() && self.on_probation.swap(false, Relaxed) {
                tracing::info!(
                    upstream = &*self.upstream,
                    endpoint = &*self.label,
                    "an ejected endpoint answers again"
                );
            }
        }
    }

    /// Counts a failure. Ejects the endpoint after enough failures in a row, if `may_eject` allows
    /// it.
    pub(super) fn record_failure(&self, outlier: &OutlierDetection, may_eject: impl FnOnce() -> bool) {
        let failures = self.failures.fetch_add(1, Relaxed).saturating_add(1);
        let (now, last_end) = (now_ms(), self.ejected_until_ms.load(Relaxed));
        if failures < outlier.failures || now < last_end || !may_eject() {
            return;
        }
        let served = Duration::from_millis(now.saturating_sub(last_end));
        let count = if last_end == 0 { 1 } else { ejection_count(self.ejections.load(Relaxed), served, outlier.eject) };
        let length = ejection_length(outlier.eject, count);
        let until = now + length.as_millis() as u64;
        if self.ejected_until_ms.compare_exchange(last_end, until, Relaxed, Relaxed).is_err() {
            // Another thread ejects it.
            return;
        }
        self.ejections.store(count, Relaxed);
        self.on_probation.store(true, Relaxed);
        // The first failure after the ejection ejects it again.
        self.failures.store(outlier.failures.saturating_sub(1).max(1), Relaxed);
        count_known(&self.metrics.ejections, &self.labels());
        tracing::warn!(
            upstream = &*self.upstream,
            endpoint = &*self.label,
            failures,
            seconds = length.as_secs_f64(),
            "an endpoint is ejected"
        );
    }

    /// Counts how an attempt ended.
    pub(super) fn count(&self, result: AttemptResult) {
        if result == AttemptResult::Answered {
            self.answered.inc();
            return;
        }
        let (upstream, endpoint) = (self.upstream.clone(), self.label.clone());
        let labels = UpstreamLabels { upstream, endpoint, result: result.label() };
        count_known(&self.metrics.upstream_requests, &labels);
    }

    /// The labels of its gauges.
    pub fn labels(&self) -> EndpointLabels {
        EndpointLabels { upstream: self.upstream.clone(), endpoint: self.label.clone() }
    }

    /// Whether another request may begin.
    pub(super) fn has_capacity(&self, in_flight_max: Option<usize>) -> bool {
        in_flight_max.is_none_or(|max| self.in_flight() < max)
    }

    /// Counts a request until the permit is dropped. Returns none above `max`.
    pub(super) fn begin_request(&self, max: Option<usize>) -> Option<Permit> {
        acquire(&self.in_flight, max)
    }

    /// Counts a connection until the permit is dropped. Returns none above `max`.
    pub(super) fn begin_connection(&self, max: Option<usize>) -> Option<ConnectionPermit> {
        let permit = acquire(&self.connections, max)?;
        Some(ConnectionPermit { _permit: permit, _notify: NotifyOnDrop(self.connection_ended.clone()) })
    }

    /// Counts a request that waits for a connection. Returns none above `max`.
    pub(super) fn begin_wait(&self, max: usize) -> Option<Permit> {
        self.pending.try_acquire(max).ok()
    }
}

fn acquire(limiter: &Limiter, max: Option<usize>) -> Option<Permit> {
    match max {
        Some(max) => limiter.try_acquire(max).ok(),
        None => Some(limiter.acquire()),
    }
}

/// Counts a connection while it lives.
pub(super) struct ConnectionPermit {
    // Fields drop in this order: a waiter that is notified must find the permit returned.
    _permit: Permit,
    _notify: NotifyOnDrop,
}

struct NotifyOnDrop(Arc<Notify>);

impl Drop for NotifyOnDrop {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

/// The number of this ejection in its row. A row ends once the endpoint has served for as long as
/// the longest ejection.
fn ejection_count(before: u32, served: Duration, eject: Duration) -> u32 {
    if served >= eject.saturating_mul(EJECTION_GROWTH_MAX) { 1 } else { before.saturating_add(1) }
}

/// The length of ejection number `count` in a row: it doubles each time, up to a bound.
fn ejection_length(eject: Duration, count: u32) -> Duration {
    eject.saturating_mul((1_u32 << count.saturating_sub(1).min(31)).min(EJECTION_GROWTH_MAX))
}

/// A number that is unique in this process.
pub(super) fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Relaxed)
}

/// Milliseconds since the first call, starting at 1.
fn now_ms() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_millis() as u64 + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint() -> Endpoint {
        let (kind, socket) = (AddressKind::Host, SocketAddr::from(([127, 0, 0, 1], 1)));
        let address = EndpointAddress { kind, host: "127.0.0.1".into(), port: 1, tls: false };
        Endpoint::new("u".into(), address, SocketTarget::Tcp(socket), &Metrics::new())
    }

    #[test]
    fn failures_in_a_row_eject_and_the_first_failure_after_it_ejects_again() {
        let (endpoint, outlier) =
            (endpoint(), OutlierDetection { failures: 3, eject: Duration::from_millis(1), max_ejected_percent: 100 });
        for _ in 0..9 {
            endpoint.record_failure(&outlier, || true);
            endpoint.record_failure(&outlier, || true);
            endpoint.record_success();
        }
        assert!(endpoint.status().ejected_for.is_none(), "there were never three in a row");
        (0..3).for_each(|_| endpoint.record_failure(&outlier, || false));
        assert!(endpoint.is_in_service(), "too many others are ejected");
        endpoint.record_failure(&outlier, || true);
        assert_eq!(endpoint.ejections.load(Relaxed), 1);
        while endpoint.is_ejected() {
            std::hint::spin_loop();
        }
        endpoint.record_failure(&outlier, || true);
        assert_eq!(endpoint.ejections.load(Relaxed), 2);
    }

    #[test]
    fn ejections_grow_to_a_bound_and_start_again_after_long_service() {
        let base = Duration::from_secs(10);
        let lengths: Vec<_> = (1..8).map(|count| ejection_length(base, count).as_secs()).collect();
        assert_eq!(lengths, [10, 20, 40, 80, 160, 160, 160]);
        assert_eq!(ejection_length(Duration::MAX, u32::MAX), Duration::MAX);
        assert_eq!(ejection_count(7, Duration::from_secs(159), base), 8);
        assert_eq!(ejection_count(7, Duration::from_secs(160), base), 1);
    }

    #[test]
    fn a_passed_health_check_ends_an_ejection() {
        let (endpoint, outlier) =
            (endpoint(), OutlierDetection { failures: 1, eject: Duration::from_secs(60), max_ejected_percent: 100 });
        assert!(endpoint.set_health(false) && !endpoint.set_health(false));
        endpoint.record_failure(&outlier, || true);
        assert!(endpoint.is_ejected());
        assert!(endpoint.set_health(true) && endpoint.is_in_service());
    }

    #[test]
    fn a_dropped_permit_is_returned() {
        let endpoint = endpoint();
        let first = endpoint.begin_request(Some(1));
        assert!(first.is_some() && endpoint.begin_request(Some(1)).is_none() && !endpoint.has_capacity(Some(1)));
        drop(first);
        assert!(endpoint.begin_request(Some(1)).is_some() && endpoint.in_flight() == 0);
    }
}
