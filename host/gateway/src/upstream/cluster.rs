//! An upstream as it is served: its settings, its endpoints' endpoints, and what its balancing needs to know of a request.
//!
//! A snapshot holds clusters; the endpoints in them come from a registry that outlives snapshots. Must not know: connections.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use http::HeaderMap;
use http::header;
use smallvec::SmallVec;

use super::balance::{Candidate, Availability, hash};
use super::endpoint::Endpoint;
use crate::net::tls::ClientTls;
use crate::telemetry::Metrics;
use witgate_config::{Balance, HashKey, Protocol, UpstreamTarget, Upstream};
use witgate_http::body::Body;

/// An upstream, ready to be options.
pub struct Cluster {
    /// Its name in gateway.yaml.
    pub name: Arc<str>,
    /// Its settings.
    pub settings: Upstream,
    /// How to speak TLS to it; none for plain text.
    pub tls: Option<Arc<ClientTls>>,
    /// Its endpoints; none for a built-in.
    pub endpoints: Vec<WeightedEndpoint>,
    /// Threads that ask it.
    pub(super) workers: usize,
    /// Unlike that of any other cluster of this process.
    pub(super) generation: u64,
}

/// An endpoint of a cluster.
pub struct WeightedEndpoint {
    /// What the gateway knows of it.
    pub endpoint: Arc<Endpoint>,
    /// Its share.
    pub weight: u32,
    seed: u64,
}

impl Cluster {
    /// Puts an upstream's settings and its endpoints' endpoints together. `workers` is the number of serving threads.
    pub fn new(name: &str, settings: &Upstream, tls: Option<Arc<ClientTls>>, workers: usize, registry: &EndpointRegistry) -> Self {
        let name: Arc<str> = name.into();
        let member = |member: &witgate_config::EndpointConfig| {
            let endpoint = registry.endpoint(&name, &member.address, settings.protocol);
            WeightedEndpoint { weight: member.weight, seed: hash(endpoint.label.as_bytes()), endpoint }
        };
        let endpoints = match &settings.target {
            UpstreamTarget::Endpoints(list) => list.iter().map(member).collect(),
            UpstreamTarget::Echo => vec![],
        };
        Self { endpoints, settings: settings.clone(), tls, workers, generation: next_id(), name }
    }

    /// What the choice of an endpoint looks at.
    pub(super) fn candidates(&self) -> SmallVec<[Candidate; 8]> {
        let max = self.settings.limits.in_flight;
        let seen = |member: &WeightedEndpoint| {
            let endpoint = &member.endpoint;
            let availability = match (endpoint.is_in_service(), endpoint.has_room(max)) {
                (false, _) => Availability::OutOfService,
                (true, false) => Availability::Full,
                (true, true) => Availability::Available,
            };
            Candidate { weight: member.weight, availability, in_flight: endpoint.in_flight(), seed: member.seed }
        };
        self.endpoints.iter().map(seen).collect()
    }

    /// Whether one more endpoint may be ejected: `max_ejected_percent` of them, rounded down.
    pub(super) fn may_eject(&self, max_percent: u32) -> bool {
        let ejected = self.endpoints.iter().filter(|member| member.endpoint.is_ejected()).count();
        (ejected + 1) * 100 <= self.endpoints.len() * max_percent as usize
    }

    /// The number that decides a request's endpoint; none where the upstream is not balanced by one or the request has no such key.
    pub(super) fn key(&self, request: &http::Request<Body>, client: IpAddr) -> Option<u64> {
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

/// The value of a cookie (RFC 6265, section 5.4).
fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h [u8]> {
    let pairs = headers.get_all(header::COOKIE).iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
    pairs.map(<[u8]>::trim_ascii).find_map(|pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

type Key = (Arc<str>, witgate_config::EndpointAddress, Protocol);

/// The endpoints of all endpoints, for as long as a configuration names them.
pub struct EndpointRegistry {
    endpoints: Mutex<HashMap<Key, Arc<Endpoint>>>,
    metrics: Metrics,
}

impl EndpointRegistry {
    /// Knows no endpoint.
    pub fn new(metrics: Metrics) -> Self {
        Self { endpoints: Mutex::default(), metrics }
    }

    fn endpoint(&self, upstream: &Arc<str>, address: &witgate_config::EndpointAddress, protocol: Protocol) -> Arc<Endpoint> {
        let mut endpoints = self.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (upstream.clone(), address.clone(), protocol);
        let made = || Arc::new(Endpoint::new(next_id(), upstream.clone(), address.clone(), &self.metrics));
        endpoints.entry(key).or_insert_with(made).clone()
    }

    /// Forgets endpoints that no cluster has, and their numbers.
    pub fn retain<'g>(&self, clusters: impl Iterator<Item = &'g Arc<Cluster>>) {
        let used: Vec<u64> = clusters.flat_map(|cluster| cluster.endpoints.iter().map(|member| member.endpoint.id)).collect();
        let mut endpoints = self.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
        let mut gone = vec![];
        endpoints.retain(|_, endpoint| {
            let keep = used.contains(&endpoint.id);
            if !keep {
                gone.push(endpoint.clone());
            }
            keep
        });
        for endpoint in gone {
            // The same place by another protocol keeps its numbers.
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
