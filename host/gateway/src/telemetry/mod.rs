//! What the gateway counts, and how it logs.
//!
//! Labels are names from the configuration (route, filter, upstream) or from short fixed lists: never a path, a host or
//! anything else that a client chooses, so a scrape stays small whatever the traffic. Must not know: where the numbers come from.

mod labels;
mod log;

use std::fmt::Write as _;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use labels::BuildLabels;
pub use labels::{
    CallLabels, CertificateFailureLabels, CertificateLabels, EndpointLabels, FailureLabels, FilterLabels,
    HandshakeLabels, LoadFailureLabels, MirrorLabels, ReloadLabels, RequestLabels, RetryLabels, RouteLabels,
    UPSTREAM_RESULTS, UpstreamCertificateFailureLabels, UpstreamCertificateLabels, UpstreamLabels, method_label,
};
pub use log::init_log;

/// A histogram over fixed bounds, in seconds.
#[derive(Clone)]
pub struct Buckets(&'static [f64]);

impl MetricConstructor<Histogram> for Buckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(self.0.iter().copied())
    }
}

const REQUEST_SECONDS: &[f64] = &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
const CALL_SECONDS: &[f64] = &[
    0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0,
];

/// Every metric of the gateway; cloning shares them.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    /// Exchanges by route, method and status.
    pub requests: Family<RequestLabels, Counter>,
    /// From a request's head to the end of the response's head, by route.
    pub request_seconds: Family<RouteLabels, Histogram, Buckets>,
    /// Exchanges that are not finished.
    pub in_flight: Gauge,
    /// Client connections.
    pub connections: Gauge,
    /// Connections closed because their client had too many.
    pub refused_connections: Counter,
    /// Calls of filters.
    pub calls: Family<CallLabels, Counter>,
    /// Their durations, instantiation included.
    pub call_seconds: Family<CallLabels, Histogram, Buckets>,
    /// Failed calls.
    pub failures: Family<FailureLabels, Counter>,
    /// Component instances alive.
    pub instances: Gauge,
    /// Those that wait for another call, of filters that may reuse them.
    pub instances_kept: Family<FilterLabels, Gauge>,
    /// Lines that filters logged above their bound.
    pub log_lines_dropped: Counter,
    /// Files that were refused.
    pub load_failures: Family<LoadFailureLabels, Counter>,
    /// Attempts to put a new state in place.
    pub reloads: Family<ReloadLabels, Counter>,
    /// 1 for each filter that is loaded.
    pub filters: Family<FilterLabels, Gauge>,
    /// Copies of requests.
    pub mirrored: Family<MirrorLabels, Counter>,
    /// Connections to upstreams.
    pub upstream_connections: Counter<u64, AtomicU64>,
    /// Tries, by endpoint and how they ended.
    pub upstream_requests: Family<UpstreamLabels, Counter>,
    /// Retries, by how they ended.
    pub upstream_retries: Family<RetryLabels, Counter>,
    /// Times that an endpoint was left out for its failures.
    pub ejections: Family<EndpointLabels, Counter>,
    /// 1 where a health check said so last, or nothing was said; else 0.
    pub endpoint_healthy: Family<EndpointLabels, Gauge>,
    /// 1 while an endpoint is left out for its failures.
    pub endpoint_ejected: Family<EndpointLabels, Gauge>,
    /// Requests whose response has not ended.
    pub endpoint_in_flight: Family<EndpointLabels, Gauge>,
    /// Open connections.
    pub endpoint_connections: Family<EndpointLabels, Gauge>,
    /// Requests that wait for a connection.
    pub endpoint_pending: Family<EndpointLabels, Gauge>,
    /// TLS handshakes with clients.
    pub handshakes: Family<HandshakeLabels, Counter>,
    /// When listeners' certificates end, Unix time.
    pub certificate_expiry: Family<CertificateLabels, Gauge>,
    /// When upstreams' certificates end, Unix time.
    pub upstream_certificate_expiry: Family<UpstreamCertificateLabels, Gauge>,
    /// Listeners' certificate files that were refused.
    pub certificate_failures: Family<CertificateFailureLabels, Counter>,
    /// Upstreams' certificate files that were refused.
    pub upstream_certificate_failures: Family<UpstreamCertificateFailureLabels, Counter>,
}

impl Metrics {
    /// All metrics at zero.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("witgate");
        let build: Family<BuildLabels, Gauge> = Family::default();
        build.get_or_create(&BuildLabels { version: env!("CARGO_PKG_VERSION") }).set(1);
        registry.register("build_info", "The gateway's version", build);
        let metrics = Self {
            registry: Arc::default(),
            requests: Family::default(),
            request_seconds: Family::new_with_constructor(Buckets(REQUEST_SECONDS)),
            in_flight: Gauge::default(),
            connections: Gauge::default(),
            refused_connections: Counter::default(),
            calls: Family::default(),
            call_seconds: Family::new_with_constructor(Buckets(CALL_SECONDS)),
            failures: Family::default(),
            instances: Gauge::default(),
            instances_kept: Family::default(),
            log_lines_dropped: Counter::default(),
            load_failures: Family::default(),
            reloads: Family::default(),
            filters: Family::default(),
            mirrored: Family::default(),
            upstream_connections: Counter::default(),
            upstream_requests: Family::default(),
            upstream_retries: Family::default(),
            ejections: Family::default(),
            endpoint_healthy: Family::default(),
            endpoint_ejected: Family::default(),
            endpoint_in_flight: Family::default(),
            endpoint_connections: Family::default(),
            endpoint_pending: Family::default(),
            handshakes: Family::default(),
            certificate_expiry: Family::default(),
            upstream_certificate_expiry: Family::default(),
            certificate_failures: Family::default(),
            upstream_certificate_failures: Family::default(),
        };
        registry.register("requests", "Exchanges by route, method and status", metrics.requests.clone());
        registry.register_with_unit(
            "request_duration",
            "From a request's head to the response's head",
            Unit::Seconds,
            metrics.request_seconds.clone(),
        );
        registry.register("in_flight", "Exchanges that are not finished", metrics.in_flight.clone());
        registry.register("connections", "Client connections", metrics.connections.clone());
        registry.register(
            "refused_connections",
            "Connections above limits.connections_per_client",
            metrics.refused_connections.clone(),
        );
        registry.register("filter_calls", "Calls of filters", metrics.calls.clone());
        registry.register_with_unit(
            "filter_call_duration",
            "One call of a filter, what its instance takes included where it was not made ahead",
            Unit::Seconds,
            metrics.call_seconds.clone(),
        );
        registry.register("filter_errors", "Failed calls of filters by kind", metrics.failures.clone());
        registry.register("instances", "Component instances alive", metrics.instances.clone());
        registry.register(
            "filter_instances_kept",
            "Instances that wait for a call: kept for it (`reuse`), or made ahead",
            metrics.instances_kept.clone(),
        );
        registry.register(
            "filter_log_lines_dropped",
            "Lines that filters logged above their bound",
            metrics.log_lines_dropped.clone(),
        );
        registry.register("filter_load_failures", "Filter files that were refused", metrics.load_failures.clone());
        registry.register("reloads", "Attempts to put a new state in place", metrics.reloads.clone());
        registry.register("filter_info", "1 for each filter that is loaded", metrics.filters.clone());
        registry.register("mirrored", "Copies of requests for a mirror", metrics.mirrored.clone());
        registry.register(
            "upstream_connections",
            "Connections opened to upstreams",
            metrics.upstream_connections.clone(),
        );
        metrics.register_endpoints(&mut registry);
        metrics.register_certificates(&mut registry);
        Self { registry: Arc::new(registry), ..metrics }
    }

    fn register_certificates(&self, registry: &mut Registry) {
        registry.register("tls_handshakes", "TLS handshakes with clients", self.handshakes.clone());
        registry.register_with_unit(
            "certificate_expiry_timestamp",
            "When the certificate ends, Unix time",
            Unit::Seconds,
            self.certificate_expiry.clone(),
        );
        registry.register_with_unit(
            "upstream_certificate_expiry_timestamp",
            "When a certificate used with an upstream ends, Unix time",
            Unit::Seconds,
            self.upstream_certificate_expiry.clone(),
        );
        registry.register(
            "certificate_load_failures",
            "Certificate files of a listener that were refused",
            self.certificate_failures.clone(),
        );
        registry.register(
            "upstream_certificate_load_failures",
            "Certificate files of an upstream that were refused",
            self.upstream_certificate_failures.clone(),
        );
    }

    fn register_endpoints(&self, registry: &mut Registry) {
        registry.register("upstream_requests", "Tries, by endpoint and how they ended", self.upstream_requests.clone());
        registry.register("upstream_retries", "Retries, by how they ended", self.upstream_retries.clone());
        registry.register(
            "endpoint_ejections",
            "Times that an endpoint was left out for its failures",
            self.ejections.clone(),
        );
        let gauges = [
            ("endpoint_healthy", "0 where the last health checks say that it is not", &self.endpoint_healthy),
            ("endpoint_ejected", "1 while an endpoint is left out for its failures", &self.endpoint_ejected),
            ("endpoint_in_flight", "Requests whose response has not ended", &self.endpoint_in_flight),
            ("endpoint_connections", "Open connections", &self.endpoint_connections),
            ("endpoint_pending", "Requests that wait for a connection", &self.endpoint_pending),
        ];
        for (name, help, gauge) in gauges {
            registry.register(name, help, gauge.clone());
        }
    }

    /// Forgets the numbers of an endpoint that is gone.
    pub fn forget_endpoint(&self, endpoint: &EndpointLabels) {
        self.ejections.remove(endpoint);
        for result in UPSTREAM_RESULTS {
            let EndpointLabels { upstream, endpoint } = endpoint.clone();
            self.upstream_requests.remove(&UpstreamLabels { upstream, endpoint, result });
        }
    }

    /// OpenMetrics text.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        if let Err(error) = encode(&mut text, &self.registry) {
            // Only the writer can fail, and a string does not.
            let _ = write!(text, "# {error}");
        }
        text
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// The numbers of one route's exchanges, looked up once: finding a metric by its labels takes as long as much of the rest of an exchange.
#[derive(Default)]
pub struct RouteCounts {
    seconds: OnceLock<Histogram>,
    /// By method and status, in the order in which they came; what finds no place is looked up.
    requests: [OnceLock<(&'static str, u16, Counter)>; 8],
}

impl RouteCounts {
    /// Counts an exchange of this route.
    pub fn count(&self, metrics: &Metrics, route: &Arc<str>, method: &'static str, status: u16, seconds: f64) {
        let found = || metrics.request_seconds.get_or_create_owned(&RouteLabels { route: route.clone() });
        self.seconds.get_or_init(found).observe(seconds);
        let found = || metrics.requests.get_or_create_owned(&RequestLabels { route: route.clone(), method, status });
        for place in &self.requests {
            let own = place.get_or_init(|| (method, status, found()));
            if own.0 == method && own.1 == status {
                own.2.inc();
                return;
            }
        }
        found().inc();
    }
}

/// The numbers of a filter's calls in one phase, looked up once.
#[derive(Default)]
pub struct CallCounts(OnceLock<(Histogram, Counter)>);

impl CallCounts {
    /// Counts a call.
    pub fn count(&self, metrics: &Metrics, labels: impl FnOnce() -> CallLabels, seconds: f64) {
        let (durations, calls) = self.0.get_or_init(|| {
            let labels = labels();
            (metrics.call_seconds.get_or_create_owned(&labels), metrics.calls.get_or_create_owned(&labels))
        });
        durations.observe(seconds);
        calls.inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_have_the_names_that_dashboards_use() {
        let metrics = Metrics::new();
        let labels = RequestLabels { route: "api".into(), method: "GET", status: 200 };
        metrics.requests.get_or_create(&labels).inc();
        let text = metrics.encode();
        assert!(text.contains(r#"witgate_requests_total{route="api",method="GET",status="200"} 1"#), "{text}");
        assert!(text.contains("witgate_build_info{"), "{text}");
        assert!(text.ends_with("# EOF\n"), "{text}");
    }

    #[test]
    fn exchanges_are_counted_whatever_their_number_of_statuses() {
        let (metrics, counts, route) = (Metrics::new(), RouteCounts::default(), Arc::from("api"));
        for status in 200..220 {
            counts.count(&metrics, &route, "GET", status, 0.1);
            counts.count(&metrics, &route, "GET", status, 0.1);
        }
        let text = metrics.encode();
        for status in 200..220 {
            assert!(text.contains(&format!("route=\"api\",method=\"GET\",status=\"{status}\"}} 2")), "{text}");
        }
        assert!(text.contains("witgate_request_duration_seconds_count{route=\"api\"} 40"), "{text}");
    }
}
