//! What the whole gateway knows of one endpoint: whether it is well, whether it is left out, how much it has to do.
//!
//! One value for all threads, kept over reloads: a health that was measured once is not measured anew because a filter changed. Numbers are atomics without order
//! between them, since each decides for itself and a decision that is a request late does no harm. Must not know: requests, connections.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;
use tokio::sync::Notify;

use super::resolve::Addresses;
use crate::telemetry::{EndpointLabels, Metrics, UpstreamLabels};
use witgate_config::OutlierDetection;

/// An ejection is at most this many times the first one's length.
const EJECTION_GROWTH_MAX: u32 = 16;

const UNKNOWN: u8 = 0;
const HEALTHY: u8 = 1;
const UNHEALTHY: u8 = 2;

/// An endpoint of an upstream.
pub struct Endpoint {
    /// Unlike any other's of this process.
    pub id: u64,
    /// The upstream's name.
    pub upstream: Arc<str>,
    /// Where it is.
    pub address: witgate_config::EndpointAddress,
    /// The same as text, for labels and messages.
    pub label: Arc<str>,
    pub(super) addresses: Addresses,
    health: AtomicU8,
    failures: AtomicU32,
    ejected_until: AtomicU64,
    ejections: AtomicU32,
    on_probation: AtomicBool,
    in_flight: AtomicUsize,
    connections: AtomicUsize,
    pending: AtomicUsize,
    /// Told when a connection ends.
    pub(super) freed: Notify,
    answered: Counter,
    metrics: Metrics,
}

/// What there is to see of an endpoint at one moment.
#[derive(Debug, Clone, Copy)]
pub struct EndpointStatus {
    /// What health checks found; none where there are none yet.
    pub healthy: Option<bool>,
    /// How much longer it is left out.
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
    pub(super) fn new(id: u64, upstream: Arc<str>, address: witgate_config::EndpointAddress, metrics: &Metrics) -> Self {
        let label: Arc<str> = address.to_string().into();
        let labels = UpstreamLabels { upstream: upstream.clone(), endpoint: label.clone(), result: "ok" };
        Self {
            id,
            addresses: Addresses::new(&address),
            answered: metrics.upstream_requests.get_or_create(&labels).clone(),
            upstream,
            address,
            label,
            health: AtomicU8::new(UNKNOWN),
            failures: AtomicU32::new(0),
            ejected_until: AtomicU64::new(0),
            ejections: AtomicU32::new(0),
            on_probation: AtomicBool::new(false),
            in_flight: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            pending: AtomicUsize::new(0),
            freed: Notify::new(),
            metrics: metrics.clone(),
        }
    }

    /// Whether neither a health check nor its failures keep it out of service.
    pub fn is_in_service(&self) -> bool {
        self.health.load(Relaxed) != UNHEALTHY && !self.is_ejected()
    }

    pub(super) fn is_ejected(&self) -> bool {
        let until = self.ejected_until.load(Relaxed);
        until != 0 && now_ms() < until
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.load(Relaxed)
    }

    pub(super) fn pending(&self) -> usize {
        self.pending.load(Relaxed)
    }

    /// What `/upstreams` and the gauges show.
    pub fn status(&self) -> EndpointStatus {
        let left = self.ejected_until.load(Relaxed).saturating_sub(now_ms());
        EndpointStatus {
            healthy: match self.health.load(Relaxed) {
                UNKNOWN => None,
                health => Some(health == HEALTHY),
            },
            ejected_for: (left > 0).then(|| Duration::from_millis(left)),
            failures: self.failures.load(Relaxed),
            in_flight: self.in_flight(),
            connections: self.connections.load(Relaxed),
            pending: self.pending(),
        }
    }

    /// A health check's verdict. Returns whether it is a new one. An endpoint that became healthy is no longer ejected: it was options, just now.
    pub fn set_health(&self, healthy: bool) -> bool {
        let before = self.health.swap(if healthy { HEALTHY } else { UNHEALTHY }, Relaxed);
        if healthy && before == UNHEALTHY {
            self.failures.store(0, Relaxed);
            self.ejections.store(0, Relaxed);
            self.ejected_until.store(0, Relaxed);
            self.on_probation.store(false, Relaxed);
        }
        before != if healthy { HEALTHY } else { UNHEALTHY }
    }

    /// Nobody asks it any more.
    pub fn forget_health(&self) {
        self.health.store(UNKNOWN, Relaxed);
    }

    /// It answered.
    pub(super) fn succeeded(&self) {
        // Almost always 0: a line that is only read is shared by all threads.
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

    /// It failed; after enough failures in a row it is ejected, if `may_eject`.
    pub(super) fn failed(&self, outlier: &OutlierDetection, may_eject: impl FnOnce() -> bool) {
        let failures = self.failures.fetch_add(1, Relaxed).saturating_add(1);
        let (now, seen) = (now_ms(), self.ejected_until.load(Relaxed));
        if failures < outlier.failures || now < seen || !may_eject() {
            return;
        }
        let served = Duration::from_millis(now.saturating_sub(seen));
        let count = if seen == 0 { 1 } else { ejection_count(self.ejections.load(Relaxed), served, outlier.eject) };
        let length = ejection_length(outlier.eject, count);
        let until = now + length.as_millis() as u64;
        if self.ejected_until.compare_exchange(seen, until, Relaxed, Relaxed).is_err() {
            return;
        }
        self.ejections.store(count, Relaxed);
        self.on_probation.store(true, Relaxed);
        // Back in service the first failure ejects it again.
        self.failures.store(outlier.failures.saturating_sub(1).max(1), Relaxed);
        self.metrics.ejections.get_or_create(&self.labels()).inc();
        tracing::warn!(
            upstream = &*self.upstream,
            endpoint = &*self.label,
            failures,
            seconds = length.as_secs_f64(),
            "an endpoint is ejected"
        );
    }

    /// Counts how a try ended: `ok`, or a word of a fixed list.
    pub(super) fn count(&self, result: &'static str) {
        if result == "ok" {
            self.answered.inc();
            return;
        }
        let labels = UpstreamLabels { upstream: self.upstream.clone(), endpoint: self.label.clone(), result };
        self.metrics.upstream_requests.get_or_create(&labels).inc();
    }

    /// The labels of its gauges.
    pub fn labels(&self) -> EndpointLabels {
        EndpointLabels { upstream: self.upstream.clone(), endpoint: self.label.clone() }
    }

    /// Whether another request may begin.
    pub(super) fn has_room(&self, max: Option<usize>) -> bool {
        max.is_none_or(|max| self.in_flight() < max)
    }

    /// Counts a request until the guard is dropped; none above `max`.
    pub(super) fn enter(self: &Arc<Self>, max: Option<usize>) -> Option<EndpointPermit> {
        EndpointPermit::new(self, Number::InFlight, max)
    }

    /// Counts a connection; none above `max`.
    pub(super) fn open(self: &Arc<Self>, max: Option<usize>) -> Option<EndpointPermit> {
        EndpointPermit::new(self, Number::Connections, max)
    }

    /// Counts a request that waits for a connection; none above `max`.
    pub(super) fn wait(self: &Arc<Self>, max: usize) -> Option<EndpointPermit> {
        EndpointPermit::new(self, Number::Pending, Some(max))
    }

    const fn counter(&self, number: Number) -> &AtomicUsize {
        match number {
            Number::InFlight => &self.in_flight,
            Number::Connections => &self.connections,
            Number::Pending => &self.pending,
        }
    }
}

/// What is permit of an endpoint.
#[derive(Clone, Copy)]
enum Number {
    InFlight,
    Connections,
    Pending,
}

/// One of a bounded number, given back when dropped.
pub(super) struct EndpointPermit {
    endpoint: Arc<Endpoint>,
    number: Number,
}

impl EndpointPermit {
    fn new(endpoint: &Arc<Endpoint>, number: Number, max: Option<usize>) -> Option<Self> {
        let counter = endpoint.counter(number);
        let more = |count: usize| max.is_none_or(|max| count < max).then_some(count + 1);
        counter.fetch_update(Relaxed, Relaxed, more).ok()?;
        Some(Self { endpoint: endpoint.clone(), number })
    }
}

impl Drop for EndpointPermit {
    fn drop(&mut self) {
        self.endpoint.counter(self.number).fetch_sub(1, Relaxed);
        if matches!(self.number, Number::Connections) {
            self.endpoint.freed.notify_one();
        }
    }
}

/// Which ejection in a row this is: the row ends once an endpoint served for longer than it can be ejected.
fn ejection_count(before: u32, served: Duration, eject: Duration) -> u32 {
    if served >= eject.saturating_mul(EJECTION_GROWTH_MAX) { 1 } else { before.saturating_add(1) }
}

/// Twice as long each time, up to a bound.
fn ejection_length(eject: Duration, count: u32) -> Duration {
    eject.saturating_mul((1_u32 << count.saturating_sub(1).min(31)).min(EJECTION_GROWTH_MAX))
}

/// Milliseconds since the first call, from 1.
fn now_ms() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_millis() as u64 + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint() -> Arc<Endpoint> {
        let address = witgate_config::EndpointAddress { host: "127.0.0.1".into(), port: 1, tls: false };
        Arc::new(Endpoint::new(1, "u".into(), address, &Metrics::new()))
    }

    #[test]
    fn failures_in_a_row_eject_and_the_first_one_after_the_return_ejects_for_longer() {
        let (endpoint, outlier) =
            (endpoint(), OutlierDetection { failures: 3, eject: Duration::from_millis(1), max_ejected_percent: 100 });
        for _ in 0..9 {
            endpoint.failed(&outlier, || true);
            endpoint.failed(&outlier, || true);
            endpoint.succeeded();
        }
        assert!(endpoint.status().ejected_for.is_none(), "never three in a row");
        (0..3).for_each(|_| endpoint.failed(&outlier, || false));
        assert!(endpoint.is_in_service(), "too many others are out");
        endpoint.failed(&outlier, || true);
        assert_eq!(endpoint.ejections.load(Relaxed), 1);
        while endpoint.is_ejected() {
            std::hint::spin_loop();
        }
        endpoint.failed(&outlier, || true);
        assert_eq!(endpoint.ejections.load(Relaxed), 2);
    }

    #[test]
    fn ejections_grow_to_a_bound_and_are_forgiven() {
        let base = Duration::from_secs(10);
        let lengths: Vec<_> = (1..8).map(|count| ejection_length(base, count).as_secs()).collect();
        assert_eq!(lengths, [10, 20, 40, 80, 160, 160, 160]);
        assert_eq!(ejection_length(Duration::MAX, u32::MAX), Duration::MAX);
        assert_eq!(ejection_count(7, Duration::from_secs(159), base), 8);
        assert_eq!(ejection_count(7, Duration::from_secs(160), base), 1);
    }

    #[test]
    fn a_good_check_ends_an_ejection() {
        let (endpoint, outlier) =
            (endpoint(), OutlierDetection { failures: 1, eject: Duration::from_secs(60), max_ejected_percent: 100 });
        assert!(endpoint.set_health(false) && !endpoint.set_health(false));
        endpoint.failed(&outlier, || true);
        assert!(endpoint.is_ejected());
        assert!(endpoint.set_health(true) && endpoint.is_in_service());
    }

    #[test]
    fn what_is_counted_is_given_back() {
        let endpoint = endpoint();
        let first = endpoint.enter(Some(1));
        assert!(first.is_some() && endpoint.enter(Some(1)).is_none() && !endpoint.has_room(Some(1)));
        drop(first);
        assert!(endpoint.enter(Some(1)).is_some() && endpoint.in_flight() == 0);
    }
}
