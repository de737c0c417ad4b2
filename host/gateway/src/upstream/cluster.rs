//! An upstream with its settings and its endpoints, and the registry of all endpoints.
//!
//! A snapshot of the configuration holds clusters. Their endpoints come from the registry, which
//! outlives snapshots. This module does not know: connections.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use http::HeaderMap;
use http::header;
use smallvec::SmallVec;

use super::balance::{Availability, Candidate, hash};
use super::endpoint::Endpoint;
use crate::net::tls::ClientTls;
use crate::telemetry::Metrics;
use witgate_config::{Balance, EndpointAddress, EndpointConfig, HashKey, Protocol, Upstream, UpstreamTarget};
use witgate_http::body::Body;

/// An upstream that can take requests.
pub struct Cluster {
    /// Its name in gateway.yaml.
    pub name: Arc<str>,
    /// Its settings in gateway.yaml.
    pub settings: Upstream,
    /// How to speak TLS to it; none for plain text.
    pub tls: Option<Arc<ClientTls>>,
    /// Its endpoints; empty for a built-in upstream.
    pub endpoints: Vec<WeightedEndpoint>,
    /// The number of serving threads.
    pub(super) workers: usize,
    /// Unique in this process.
    pub(super) generation: u64,
}

/// An endpoint of a cluster with its share of the requests.
pub struct WeightedEndpoint {
    /// The endpoint; clusters of older snapshots may share it.
    pub endpoint: Arc<Endpoint>,
    /// Its share; 0 means that it gets no requests.
    pub weight: u32,
    /// A hash of its address.
    seed: u64,
}

impl Cluster {
    /// Builds the cluster with endpoints from `registry`. `workers` is the number of serving
    /// threads.
    pub fn new(
        name: &str,
        settings: &Upstream,
        tls: Option<Arc<ClientTls>>,
        workers: usize,
        registry: &EndpointRegistry,
    ) -> Self {
        let name: Arc<str> = name.into();
        let weighted = |config: &EndpointConfig| {
            let endpoint = registry.get_or_create(&name, &config.address, settings.protocol);
            WeightedEndpoint { weight: config.weight, seed: hash(endpoint.label.as_bytes()), endpoint }
        };
        let endpoints = match &settings.target {
            UpstreamTarget::Endpoints(list) => list.iter().map(weighted).collect(),
            UpstreamTarget::Echo => vec![],
        };
        Self { endpoints, settings: settings.clone(), tls, workers, generation: next_id(), name }
    }

    /// Returns what the choice of an endpoint needs to know, in the order of `endpoints`.
    pub(super) fn candidates(&self) -> SmallVec<[Candidate; 8]> {
        let max = self.settings.limits.in_flight;
        let candidate = |weighted: &WeightedEndpoint| {
            let endpoint = &weighted.endpoint;
            let availability = match (endpoint.is_in_service(), endpoint.has_capacity(max)) {
                (false, _) => Availability::OutOfService,
                (true, false) => Availability::Full,
                (true, true) => Availability::Available,
            };
            Candidate { weight: weighted.weight, availability, in_flight: endpoint.in_flight(), seed: weighted.seed }
        };
        self.endpoints.iter().map(candidate).collect()
    }

    /// Whether one more endpoint may be ejected: `max_percent` of all, rounded down, may be.
    pub(super) fn may_eject(&self, max_percent: u32) -> bool {
        let ejected = self.endpoints.iter().filter(|weighted| weighted.endpoint.is_ejected()).count();
        (ejected + 1) * 100 <= self.endpoints.len() * max_percent as usize
    }

    /// Returns the hash that chooses a request's endpoint. Returns none if the upstream is not
    /// balanced by hash, or the request lacks the configured header or cookie.
    pub(super) fn hash_key(&self, request: &http::Request<Body>, client: IpAddr) -> Option<u64> {
        let Balance::Hash(key) = &self.settings.balance else { return None };
        match key {
            HashKey::Header(name) => request.headers().get(name).map(|value| hash(value.as_bytes())),
            HashKey::Cookie(name) => cookie(request.headers(), name).map(hash),
            HashKey::Path => Some(hash(request.uri().path().as_bytes())),
            HashKey::ClientIp => Some(match client.to_canonical() {
                IpAddr::V4(address) => hash(&address.octets()),
                IpAddr::V6(address) => hash(&address.octets()),
            }),
        }
    }
}

/// Returns the value of a cookie (RFC 6265, section 5.4).
fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h [u8]> {
    let pairs = headers.get_all(header::COOKIE).iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
    pairs.map(<[u8]>::trim_ascii).find_map(|pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

type RegistryKey = (Arc<str>, EndpointAddress, Protocol);

/// All endpoints that the configuration names.
pub struct EndpointRegistry {
    endpoints: Mutex<HashMap<RegistryKey, Arc<Endpoint>>>,
    metrics: Metrics,
}

impl EndpointRegistry {
    /// Creates an empty registry.
    pub fn new(metrics: Metrics) -> Self {
        Self { endpoints: Mutex::default(), metrics }
    }

    fn get_or_create(&self, upstream: &Arc<str>, address: &EndpointAddress, protocol: Protocol) -> Arc<Endpoint> {
        let mut endpoints = self.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (upstream.clone(), address.clone(), protocol);
        let create = || Arc::new(Endpoint::new(next_id(), upstream.clone(), address.clone(), &self.metrics));
        endpoints.entry(key).or_insert_with(create).clone()
    }

    /// Drops the endpoints that no cluster has, with their metrics.
    pub fn retain<'c>(&self, clusters: impl Iterator<Item = &'c Arc<Cluster>>) {
        let used: Vec<u64> = clusters.flat_map(|cluster| cluster.endpoints.iter().map(|one| one.endpoint.id)).collect();
        let mut endpoints = self.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
        let mut removed = vec![];
        endpoints.retain(|_, endpoint| {
            let keep = used.contains(&endpoint.id);
            if !keep {
                removed.push(endpoint.clone());
            }
            keep
        });
        for endpoint in removed {
            // The same address with another protocol has the same labels.
            if !endpoints.values().any(|other| other.labels() == endpoint.labels()) {
                self.metrics.forget_endpoint(&endpoint.labels());
            }
        }
    }
}

fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn a_cookie_is_found_among_others() {
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, HeaderValue::from_static("xuser=0; a=1"));
        headers.append(header::COOKIE, HeaderValue::from_static("user=7; user=8"));
        assert_eq!(cookie(&headers, "user"), Some(b"7".as_slice()));
        assert_eq!((cookie(&headers, "use"), cookie(&headers, "a")), (None, Some(b"1".as_slice())));
    }
}
