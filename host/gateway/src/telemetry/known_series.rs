//! Counters whose labels are known before anything is counted.
//!
//! They exist at 0 from the moment that the configuration names a route, a filter, an upstream, a
//! store or a listener. Otherwise the first failure would create its series with the value 1, and
//! `increase()` would not see it. Each `begin_…` has a `forget_…` that removes what it created, and
//! `count_known` (`series_owners.rs`) never creates them again: what an old exchange counts is
//! lost. Series of routes and filter versions have owners instead.
//! This module does not know: when a configuration changes.

use super::labels::{
    CertificateFailureLabels, EndpointLabels, HANDSHAKE_RESULTS, HandshakeLabels, ListenerRequestLabels,
    LoadFailureLabels, MIRROR_RESULTS, MirrorLabels, RATE_LIMIT_RESULTS, RETRY_RESULTS, RateLimitLabels,
    ReleaseDecisionLabels, RetryLabels, SHADOW_RESULTS, STATUS_CLASSES, STORE_OPERATIONS, STORE_RESULTS, ShadowLabels,
    StoreLabels, StoreOperationLabels, UPSTREAM_RESULTS, UpstreamCertificateFailureLabels, UpstreamLabels,
};
use super::metrics::Metrics;
use super::series::StoreSeries;

impl Metrics {
    /// A listener. It exists until the gateway ends. `reasons` are those for which certificates
    /// can be refused; empty without TLS.
    pub fn begin_listener(&self, listener: &str, reasons: &[&'static str]) {
        for class in STATUS_CLASSES {
            drop(self.listener_requests.get_or_create(&ListenerRequestLabels { listener: listener.into(), class }));
        }
        if reasons.is_empty() {
            return;
        }
        for result in HANDSHAKE_RESULTS {
            drop(self.handshakes.get_or_create(&HandshakeLabels { listener: listener.into(), result }));
        }
        for reason in reasons {
            let labels = CertificateFailureLabels { listener: listener.into(), reason };
            drop(self.certificate_failures.get_or_create(&labels));
        }
    }

    /// A route with a mirror. Its other counters begin with its snapshot.
    pub fn begin_mirror(&self, route: &str) {
        for result in MIRROR_RESULTS {
            drop(self.mirrored.get_or_create(&MirrorLabels { route: route.into(), result }));
        }
    }

    /// No configuration names the route any more.
    pub fn forget_route(&self, route: &str) {
        for result in MIRROR_RESULTS {
            self.mirrored.remove(&MirrorLabels { route: route.into(), result });
        }
        for result in RATE_LIMIT_RESULTS {
            self.rate_limited.remove(&RateLimitLabels { route: route.into(), result });
        }
    }

    /// A filter: the reasons for which its file can be refused, and the decisions about its
    /// releases.
    pub fn begin_filter(
        &self,
        filter: &str,
        reasons: impl IntoIterator<Item = &'static str>,
        decisions: impl IntoIterator<Item = &'static str>,
    ) {
        for reason in reasons {
            drop(self.load_failures.get_or_create(&LoadFailureLabels { filter: filter.into(), reason }));
        }
        for decision in decisions {
            drop(self.release_decisions.get_or_create(&ReleaseDecisionLabels { filter: filter.into(), decision }));
        }
    }

    /// No configuration names the filter any more.
    pub fn forget_filter(
        &self,
        filter: &str,
        reasons: impl IntoIterator<Item = &'static str>,
        decisions: impl IntoIterator<Item = &'static str>,
    ) {
        for reason in reasons {
            self.load_failures.remove(&LoadFailureLabels { filter: filter.into(), reason });
        }
        for decision in decisions {
            self.release_decisions.remove(&ReleaseDecisionLabels { filter: filter.into(), decision });
        }
        for result in SHADOW_RESULTS {
            self.shadowed.remove(&ShadowLabels { filter: filter.into(), result });
        }
    }

    /// Counts a refused file of a filter.
    pub fn count_load_failure(&self, filter: &str, reason: &'static str) {
        self.load_failures.get_or_create(&LoadFailureLabels { filter: filter.into(), reason }).inc();
    }

    /// An upstream. `reasons` are those for which its certificates can be refused; empty without
    /// TLS.
    pub fn begin_upstream(&self, upstream: &str, reasons: &[&'static str]) {
        for result in RETRY_RESULTS {
            drop(self.upstream_retries.get_or_create(&RetryLabels { upstream: upstream.into(), result }));
        }
        for reason in reasons {
            let labels = UpstreamCertificateFailureLabels { upstream: upstream.into(), reason };
            drop(self.upstream_certificate_failures.get_or_create(&labels));
        }
    }

    /// No configuration names the upstream any more.
    pub fn forget_upstream(&self, upstream: &str, reasons: &[&'static str]) {
        for result in RETRY_RESULTS {
            self.upstream_retries.remove(&RetryLabels { upstream: upstream.into(), result });
        }
        for reason in reasons {
            let labels = UpstreamCertificateFailureLabels { upstream: upstream.into(), reason };
            self.upstream_certificate_failures.remove(&labels);
        }
    }

    /// An endpoint.
    pub fn begin_endpoint(&self, labels: &EndpointLabels) {
        drop(self.ejections.get_or_create(labels));
        for result in UPSTREAM_RESULTS {
            let EndpointLabels { upstream, endpoint } = labels.clone();
            drop(self.upstream_requests.get_or_create(&UpstreamLabels { upstream, endpoint, result }));
        }
    }

    /// No configuration names the endpoint any more.
    pub fn forget_endpoint(&self, endpoint: &EndpointLabels) {
        self.ejections.remove(endpoint);
        for result in UPSTREAM_RESULTS {
            let EndpointLabels { upstream, endpoint } = endpoint.clone();
            self.upstream_requests.remove(&UpstreamLabels { upstream, endpoint, result });
        }
    }

    /// The series of a shared store.
    pub fn store(&self, name: &str) -> StoreSeries {
        let labels = StoreLabels { store: name.into() };
        for labels in store_operations(name) {
            drop(self.store_operations.get_or_create(&labels));
        }
        StoreSeries {
            duration: self.store_seconds.get_or_create_owned(&labels),
            up: self.store_up.get_or_create_owned(&labels),
            operations: self.store_operations.clone(),
            name: labels.store,
        }
    }

    /// No configuration names the store any more.
    pub fn forget_store(&self, name: &str) {
        let labels = StoreLabels { store: name.into() };
        self.store_up.remove(&labels);
        self.store_seconds.remove(&labels);
        for labels in store_operations(name) {
            self.store_operations.remove(&labels);
        }
    }
}

fn store_operations(name: &str) -> impl Iterator<Item = StoreOperationLabels> {
    let labels = move |operation, result| StoreOperationLabels { store: name.into(), operation, result };
    STORE_OPERATIONS.into_iter().flat_map(move |operation| STORE_RESULTS.map(|result| labels(operation, result)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_begins_at_zero_is_forgotten() {
        let metrics = Metrics::new();
        let empty = metrics.encode();
        let endpoint = EndpointLabels { upstream: "u".into(), endpoint: "e".into() };
        let (reasons, decisions) = (["garbled"], ["started"]);
        metrics.begin_mirror("r");
        metrics.begin_filter("f", reasons, decisions);
        metrics.begin_upstream("u", &reasons);
        metrics.begin_endpoint(&endpoint);
        drop(metrics.store("s"));
        let text = metrics.encode();
        for line in [
            "mirrored_total{route=\"r\",result=\"busy\"}",
            "filter_load_failures_total{filter=\"f\",reason=\"garbled\"}",
            "release_decisions_total{filter=\"f\",decision=\"started\"}",
            "upstream_retries_total{upstream=\"u\",result=\"over_budget\"}",
            "upstream_certificate_load_failures_total{upstream=\"u\",reason=\"garbled\"}",
            "endpoint_ejections_total{upstream=\"u\",endpoint=\"e\"}",
            "upstream_requests_total{upstream=\"u\",endpoint=\"e\",result=\"timeout\"}",
            "store_operations_total{store=\"s\",operation=\"get-many\",result=\"refused\"}",
        ] {
            assert!(text.contains(&format!("witgate_{line} 0\n")), "{line} is not in {text}");
        }
        metrics.forget_route("r");
        metrics.forget_filter("f", reasons, decisions);
        metrics.forget_upstream("u", &reasons);
        metrics.forget_endpoint(&endpoint);
        metrics.forget_store("s");
        assert_eq!(metrics.encode(), empty);
    }
}
