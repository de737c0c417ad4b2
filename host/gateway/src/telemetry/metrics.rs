//! Every metric of the gateway, each declared once: field, type, name and help text.
//!
//! Label values are names from the configuration (route, filter, upstream) or from short fixed
//! lists. A path, a host or anything else that a client chooses never becomes a label, so the
//! number of series does not depend on the traffic. The library adds the prefix `witgate_` and
//! suffixes: `filter_calls` is exported as `witgate_filter_calls_total`. This module does not know:
//! where the numbers come from.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::buckets::{Buckets, TracedHistogram};
use super::labels::{
    BuildLabels, CallLabels, CapabilityLabels, CertificateFailureLabels, CertificateLabels, EndpointLabels,
    FailureLabels, FilesLabels, FilterLabels, FilterNameLabels, FilterVersionLabels, HandshakeLabels, InstanceLabels,
    ListenerRequestLabels, LoadFailureLabels, MirrorLabels, OtlpLabels, RELOAD_RESULTS, RateLimitLabels,
    ReleaseDecisionLabels, ReloadLabels, RequestLabels, RetryLabels, RouteClassLabels, RouteLabels, ShadowLabels,
    StoreLabels, StoreOperationLabels, UpstreamCertificateFailureLabels, UpstreamCertificateLabels, UpstreamLabels,
};
use super::series::{FilterSeries, RouteSeries, ShadowCounters};
use super::series_owners::Owners;
use super::trace::TraceExport;
use super::usage::{FilterFamilies, FilterUsage, RouteFamilies, RouteUsage};
use witgate_http::error::FilterFailure;

/// Declares the metrics: `field: type = default, "name" [unit] "help text";`. The default may be
/// left out. The help text is also the documentation of the field. The first lines
/// name the families that `new` creates series of.
macro_rules! metrics {
    (reloads of $reloads:ident; no_route of $requests:ident, $request_seconds:ident, $seconds:ident, $in_flight:ident, $received:ident, $sent:ident; $($field:ident: $type:ty $(= $default:expr)?, $name:literal $($unit:ident)? $help:literal;)*) => {
        /// Every metric of the gateway. Clones share the numbers.
        #[derive(Clone)]
        pub struct Metrics {
            registry: Arc<Registry>,
            owners: Owners,
            /// The series of requests that no route matches.
            pub no_route: Arc<RouteSeries>,
            $(#[doc = $help] pub $field: $type,)*
        }

        impl Metrics {
            /// All metrics at zero.
            pub fn new() -> Self {
                let mut registry = Registry::with_prefix("witgate");
                register_build_info(&mut registry);
                $(
                    let $field: $type = metrics!(@default $($default)?);
                    metrics!(@register registry, $name, $($unit)? $help, $field);
                )*
                RELOAD_RESULTS.iter().for_each(|result| drop($reloads.get_or_create(&ReloadLabels { result })));
                let owners = Owners::default();
                let owner = owners.add("-".into());
                let families = RouteFamilies {
                    seconds: $seconds.clone(),
                    in_flight: $in_flight.clone(),
                    received: $received.clone(),
                    sent: $sent.clone(),
                };
                let usage = RouteUsage::new(families, owner.clone());
                let no_route = RouteSeries::new("-".into(), &$requests, &$request_seconds, usage, owner);
                Self { registry: Arc::new(registry), owners, no_route: Arc::new(no_route), $($field,)* }
            }
        }
    };
    (@default) => { Default::default() };
    (@default $default:expr) => { $default };
    (@register $registry:ident, $name:literal, $help:literal, $field:ident) => {
        $registry.register($name, $help, $field.clone());
    };
    (@register $registry:ident, $name:literal, seconds $help:literal, $field:ident) => {
        $registry.register_with_unit($name, $help, Unit::Seconds, $field.clone());
    };
}

metrics! {
    reloads of reloads;
    no_route of requests, request_seconds, exchange_seconds, route_in_flight, received_bytes, sent_bytes;

    requests: Family<RequestLabels, Counter>,
        "requests" "Exchanges by route, method and status";
    request_seconds: Family<RouteLabels, TracedHistogram, Buckets> = Family::new_with_constructor(Buckets(REQUEST_SECONDS)),
        "request_duration" seconds "Time from a request's head to the response's head";
    exchange_seconds: Family<RouteClassLabels, TracedHistogram, Buckets> = Family::new_with_constructor(Buckets(REQUEST_SECONDS)),
        "exchange_duration" seconds "Time from a request's head to the end of the response";
    route_in_flight: Family<RouteLabels, Gauge>,
        "route_in_flight" "Exchanges of a route that have not ended";
    received_bytes: Family<RouteLabels, Counter>,
        "received_bytes" "Bytes of the bodies of requests";
    sent_bytes: Family<RouteLabels, Counter>,
        "sent_bytes" "Bytes of the bodies of responses";
    listener_requests: Family<ListenerRequestLabels, Counter>,
        "listener_requests" "Exchanges that ended, by listener and class of the status";
    in_flight: Gauge,
        "in_flight" "Exchanges whose response has not been sent completely";
    connections: Gauge,
        "connections" "Open client connections";
    refused_connections: Counter,
        "refused_connections" "Connections closed because their client had its share of connections open";
    evicted_connections: Counter,
        "evicted_connections" "Idle connections closed to make room for new ones";
    calls: Family<CallLabels, Counter>,
        "filter_calls" "Calls of filters";
    call_seconds: Family<CallLabels, TracedHistogram, Buckets> = Family::new_with_constructor(Buckets(CALL_SECONDS)),
        "filter_call_duration" seconds
        "Duration of one call of a filter, with the instantiation unless the instance was made ahead";
    calls_in_flight: Family<FilterVersionLabels, Gauge>,
        "filter_calls_in_flight" "Calls of filters that run";
    cpu_seconds: Family<FilterVersionLabels, Counter<f64, AtomicU64>>,
        "filter_cpu" seconds "Time in which calls of filters ran on their thread and did not wait";
    memory_peak: Family<FilterVersionLabels, Gauge>,
        "filter_memory_peak_bytes" "The most linear memory of an instance after a call";
    call_instances: Family<InstanceLabels, Counter>,
        "filter_call_instances" "Instances that served calls: new ones, or idle ones made ahead or kept";
    failures: Family<FailureLabels, Counter>,
        "filter_errors" "Failed calls of filters by kind";
    capability_calls: Family<CapabilityLabels, Counter>,
        "filter_capability_calls" "Calls of filters to capabilities of the gateway, by result";
    instances: Gauge,
        "instances" "Component instances alive";
    instances_kept: Family<FilterLabels, Gauge>,
        "filter_instances_kept" "Idle instances: kept after a call (reuse), or made ahead of the next call";
    log_lines_dropped: Counter,
        "filter_log_lines_dropped" "Log lines of filters dropped because the call had reached its limit";
    access_log_lines_dropped: Counter,
        "access_log_lines_dropped" "Lines of the access log dropped because its target was too slow";
    spans_exported: Counter,
        "trace_spans_exported" "Spans that the OTLP receiver accepted";
    spans_dropped: Counter,
        "trace_spans_dropped" "Spans dropped because the OTLP receiver was too slow, or refused them";
    otlp_exports: Family<OtlpLabels, Counter>,
        "metrics_exports" "Exports of metrics over OTLP, by result";
    dropped_lines: Counter = super::log::dropped_lines(),
        "log_lines_dropped" "Lines of the gateway's log dropped because the reader of standard error was too slow";
    load_failures: Family<LoadFailureLabels, Counter>,
        "filter_load_failures" "Filter files that the gateway refused";
    reloads: Family<ReloadLabels, Counter>,
        "reloads" "Reloads, by result";
    config_reloaded: Gauge,
        "config_last_reload_successful" "1 if the last reload of the configuration was applied, 0 if it was refused";
    config_serving_since: Gauge,
        "config_last_reload_success_timestamp" seconds "Unix time at which the present configuration went into service";
    filter_reloaded: Family<FilterNameLabels, Gauge>,
        "filter_last_reload_successful" "0 if the filter's last file was refused, else 1";
    filter_serving_since: Family<FilterNameLabels, Gauge>,
        "filter_last_reload_success_timestamp" seconds "Unix time at which the present version went into service";
    source_reached: Family<FilterNameLabels, Gauge>,
        "filter_source_reached" "0 if the last check of the filter's source on a server failed, else 1";
    files_checked: Family<FilesLabels, Gauge>,
        "files_checked_timestamp" seconds "Unix time at which the last check for changed files ended";
    filters: Family<FilterLabels, Gauge>,
        "filter_info" "1 for each loaded filter";
    release_step: Family<FilterNameLabels, Gauge>,
        "release_step" "The step of a filter's release, from 1; 0 if none runs";
    release_share: Family<FilterNameLabels, Gauge<f64, AtomicU64>>,
        "release_share" "The share of the exchanges that use the version that is released";
    release_decisions: Family<ReleaseDecisionLabels, Counter>,
        "release_decisions" "Decisions about releases of filters";
    shadowed: Family<ShadowLabels, Counter>,
        "release_shadow_exchanges" "Exchanges that the shadow of a release compared or dropped, by result";
    mirrored: Family<MirrorLabels, Counter>,
        "mirrored" "Copies of requests for a mirror, by result";
    upstream_connections: Counter<u64, AtomicU64>,
        "upstream_connections" "Connections opened to upstreams";
    upstream_requests: Family<UpstreamLabels, Counter>,
        "upstream_requests" "Attempts to send a request, by endpoint and result";
    upstream_retries: Family<RetryLabels, Counter>,
        "upstream_retries" "Retries, by result";
    ejections: Family<EndpointLabels, Counter>,
        "endpoint_ejections" "Times that an endpoint was ejected for its failures";
    endpoint_healthy: Family<EndpointLabels, Gauge>,
        "endpoint_healthy" "0 if the last health checks of the endpoint failed, else 1";
    endpoint_ejected: Family<EndpointLabels, Gauge>,
        "endpoint_ejected" "1 while the endpoint is ejected for its failures";
    endpoint_in_flight: Family<EndpointLabels, Gauge>,
        "endpoint_in_flight" "Requests whose response has not ended";
    endpoint_connections: Family<EndpointLabels, Gauge>,
        "endpoint_connections" "Open connections to the endpoint";
    endpoint_pending: Family<EndpointLabels, Gauge>,
        "endpoint_pending" "Requests that wait for a connection to the endpoint";
    store_operations: Family<StoreOperationLabels, Counter>,
        "store_operations" "Operations of shared stores by result";
    store_seconds: Family<StoreLabels, Histogram, Buckets> = Family::new_with_constructor(Buckets(CALL_SECONDS)),
        "store_operation_duration" seconds "Time that operations of a shared store took";
    store_up: Family<StoreLabels, Gauge>,
        "store_up" "1 while a shared store is in service, 0 while its circuit breaker is open";
    rate_limited: Family<RateLimitLabels, Counter>,
        "rate_limit_decisions" "Decisions of routes' rate limits by result";
    handshakes: Family<HandshakeLabels, Counter>,
        "tls_handshakes" "TLS handshakes with clients, by result";
    certificate_expiry: Family<CertificateLabels, Gauge>,
        "certificate_expiry_timestamp" seconds "Unix time at which a listener's certificate expires";
    upstream_certificate_expiry: Family<UpstreamCertificateLabels, Gauge>,
        "upstream_certificate_expiry_timestamp" seconds "Unix time at which a certificate used with an upstream expires";
    certificate_failures: Family<CertificateFailureLabels, Counter>,
        "certificate_load_failures" "Certificate files of a listener that the gateway refused";
    upstream_certificate_failures: Family<UpstreamCertificateFailureLabels, Counter>,
        "upstream_certificate_load_failures" "Certificate files of an upstream that the gateway refused";
}

const REQUEST_SECONDS: &[f64] = &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
const CALL_SECONDS: &[f64] = &[
    0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0,
];

impl Metrics {
    /// The series of a route.
    pub fn route(&self, name: Arc<str>) -> RouteSeries {
        let owner = self.owners.add(format!("route {name}"));
        let families = RouteFamilies {
            seconds: self.exchange_seconds.clone(),
            in_flight: self.route_in_flight.clone(),
            received: self.received_bytes.clone(),
            sent: self.sent_bytes.clone(),
        };
        let usage = RouteUsage::new(families, owner.clone());
        RouteSeries::new(name, &self.requests, &self.request_seconds, usage, owner)
    }

    /// The series of a filter in a route.
    pub fn filter(&self, name: Arc<str>, version: Arc<str>, digest: Arc<str>, on_error: &'static str) -> FilterSeries {
        let owner = self.owners.add(format!("filter {name} {version}"));
        let failures = FilterFailure::ALL.map(|kind| {
            let labels = FailureLabels { filter: name.clone(), version: version.clone(), kind: kind.label() };
            owner.series(&self.failures, &labels)
        });
        FilterSeries {
            name,
            version,
            digest,
            on_error,
            calls: self.calls.clone(),
            call_seconds: self.call_seconds.clone(),
            failures,
            log_lines_dropped: self.log_lines_dropped.clone(),
            phases: Default::default(),
            usage: FilterUsage::new(
                FilterFamilies {
                    busy: self.cpu_seconds.clone(),
                    memory_peak: self.memory_peak.clone(),
                    in_flight: self.calls_in_flight.clone(),
                    instances: self.call_instances.clone(),
                    capabilities: self.capability_calls.clone(),
                },
                owner.clone(),
            ),
            owner,
        }
    }

    /// Counts the exchanges that the shadow of a filter's release compares.
    pub fn shadow(&self, filter: &str) -> ShadowCounters {
        ShadowCounters { results: self.shadowed.clone(), filter: filter.into() }
    }

    /// The counters of the export of traces.
    pub(super) fn trace_export(&self) -> TraceExport {
        TraceExport { exported: self.spans_exported.clone(), dropped: self.spans_dropped.clone() }
    }

    /// Counts exports of metrics that the receiver accepted, and exports that failed.
    pub fn metrics_exports(&self) -> [Counter; 2] {
        ["ok", "failed"].map(|result| self.otlp_exports.get_or_create_owned(&OtlpLabels { result }))
    }

    /// The metrics as OpenMetrics text.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        if let Err(error) = encode(&mut text, &self.registry) {
            // Only the writer can fail, and a string never does.
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

fn register_build_info(registry: &mut Registry) {
    let build: Family<BuildLabels, Gauge> = Family::default();
    build.get_or_create(&BuildLabels { version: env!("CARGO_PKG_VERSION") }).set(1);
    registry.register("build_info", "The gateway's version", build);
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
}
