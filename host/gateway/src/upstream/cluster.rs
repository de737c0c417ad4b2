//! An upstream with its settings and its endpoints.
//!
//! A snapshot of the configuration holds clusters. Their hosts come from the registry, which
//! outlives snapshots. The endpoints of a name change with the answers of DNS: a request works with
//! the set that it began with. This module does not know: connections.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use http::HeaderMap;
use http::header;
use smallvec::SmallVec;

use super::balance::{Availability, Candidate, hash};
use super::endpoint::{Endpoint, next_id};
use super::host::{Host, HostEndpoints};
use super::registry::EndpointRegistry;
use crate::net::tls::ClientTls;
use witgate_config::{Balance, EndpointConfig, HashKey, Upstream, UpstreamTarget};
use witgate_http::body::Body;
use witgate_http::error::{Error, Kind};
use witgate_runtime::http_component::HttpComponent;

/// An upstream that can take requests.
pub struct Cluster {
    /// Its name in gateway.yaml.
    pub name: Arc<str>,
    /// Its settings in gateway.yaml.
    pub settings: Upstream,
    /// How to speak TLS to it; none for plain text.
    pub tls: Option<Arc<ClientTls>>,
    /// What answers instead of servers, if it is a component.
    pub component: Option<Arc<HttpComponent>>,
    /// Empty for a built-in upstream.
    hosts: Vec<WeightedHost>,
    has_names: bool,
    current: ArcSwap<EndpointSet>,
    /// The number of serving threads.
    pub(super) workers: usize,
}

struct WeightedHost {
    host: Arc<Host>,
    weight: u32,
}

/// The endpoints of a cluster at one time.
pub struct EndpointSet {
    /// In the order of the configuration.
    pub list: Vec<WeightedEndpoint>,
    /// Unique in this process.
    pub(super) generation: u64,
    /// What the set was made from.
    hosts: Vec<Arc<HostEndpoints>>,
}

/// An endpoint of a cluster with its share of the requests.
pub struct WeightedEndpoint {
    /// The endpoint; clusters of older snapshots may share it.
    pub endpoint: Arc<Endpoint>,
    /// Its share; 0 means that it gets no requests.
    pub weight: u32,
    /// The number of its entry in the configuration. Addresses of one name have the same.
    pub(super) host: usize,
    /// A hash of its address.
    seed: u64,
}

impl Cluster {
    /// Builds the cluster with hosts from `registry`. `workers` is the number of serving threads.
    pub fn new(
        name: &str,
        settings: &Upstream,
        (tls, component): (Option<Arc<ClientTls>>, Option<Arc<HttpComponent>>),
        workers: usize,
        registry: &EndpointRegistry,
    ) -> Self {
        let name: Arc<str> = name.into();
        let weighted = |config: &EndpointConfig| {
            let host = registry.get_or_create(&name, &config.address, settings.protocol);
            WeightedHost { weight: config.weight, host }
        };
        let hosts: Vec<_> = match &settings.target {
            UpstreamTarget::Endpoints(list) => list.iter().map(weighted).collect(),
            UpstreamTarget::Echo | UpstreamTarget::Component(_) => vec![],
        };
        let has_names = hosts.iter().any(|weighted| weighted.host.is_name());
        let current = ArcSwap::from_pointee(EndpointSet::new(&hosts));
        Self { hosts, has_names, current, settings: settings.clone(), tls, component, workers, name }
    }

    /// The endpoints for the last answers of DNS.
    pub fn endpoints(&self) -> Arc<EndpointSet> {
        let current = self.current.load_full();
        let is_same =
            |(weighted, known): (&WeightedHost, &Arc<HostEndpoints>)| Arc::ptr_eq(&weighted.host.endpoints(), known);
        if !self.has_names || self.hosts.iter().zip(&current.hosts).all(is_same) {
            return current;
        }
        let changed = Arc::new(EndpointSet::new(&self.hosts));
        self.current.store(changed.clone());
        changed
    }

    /// Names that have no address yet.
    pub fn unresolved(&self) -> Vec<String> {
        let names = self.hosts.iter().filter(|weighted| weighted.host.endpoints().list.is_empty());
        names.map(|weighted| weighted.host.address.to_string()).collect()
    }

    /// Whether it has names that DNS resolves.
    pub(super) fn has_names(&self) -> bool {
        self.has_names
    }

    /// Starts to resolve names whose answers have expired.
    pub(super) fn renew(&self) {
        if self.has_names {
            let now = std::time::Instant::now();
            self.hosts.iter().for_each(|weighted| weighted.host.renew(now, self.settings.resolve_interval));
        }
    }

    /// Waits until one of the names has an address, within `connect_timeout`, if there is no
    /// endpoint otherwise.
    pub(super) async fn resolved(&self) -> Result<Arc<EndpointSet>, Error> {
        self.renew();
        let known = self.endpoints();
        if !known.list.is_empty() || !self.has_names {
            return Ok(known);
        }
        let fail = |why: String| Error::new(Kind::UpstreamDns, format!("upstream {}: {why}", self.name));
        let mut failure = None;
        let all = async {
            for weighted in &self.hosts {
                failure = weighted.host.resolve(self.settings.resolve_interval).await.err();
                if failure.is_none() {
                    return;
                }
            }
        };
        let time = self.settings.connect_timeout;
        if tokio::time::timeout(time, all).await.is_err() {
            return Err(fail(format!("its names were not resolved within {time:?}")));
        }
        match failure {
            Some(why) => Err(fail(why)),
            None => Ok(self.endpoints()),
        }
    }

    /// Tells the registry which hosts are used; it drops the others.
    pub fn retain_used<'c>(registry: &EndpointRegistry, clusters: impl Iterator<Item = &'c Arc<Self>>) {
        let used: HashSet<*const Host> =
            clusters.flat_map(|cluster| cluster.hosts.iter().map(|one| Arc::as_ptr(&one.host))).collect();
        registry.retain(|host| used.contains(&Arc::as_ptr(host)));
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

impl EndpointSet {
    fn new(hosts: &[WeightedHost]) -> Self {
        let mut list = vec![];
        let made_from: Vec<_> = hosts.iter().map(|weighted| weighted.host.endpoints()).collect();
        for (index, (weighted, endpoints)) in hosts.iter().zip(&made_from).enumerate() {
            for (endpoint, weight) in &endpoints.list {
                list.push(WeightedEndpoint {
                    seed: hash(endpoint.label.as_bytes()),
                    endpoint: endpoint.clone(),
                    weight: weighted.weight.saturating_mul(*weight),
                    host: index,
                });
            }
        }
        Self { list, generation: next_id(), hosts: made_from }
    }

    /// Returns what the choice of an endpoint needs to know, in the order of `list`.
    pub(super) fn candidates(&self, in_flight_max: Option<usize>) -> SmallVec<[Candidate; 8]> {
        let candidate = |weighted: &WeightedEndpoint| {
            let endpoint = &weighted.endpoint;
            let availability = match (endpoint.is_in_service(), endpoint.has_capacity(in_flight_max)) {
                (false, _) => Availability::OutOfService,
                (true, false) => Availability::Full,
                (true, true) => Availability::Available,
            };
            Candidate { weight: weighted.weight, availability, in_flight: endpoint.in_flight(), seed: weighted.seed }
        };
        self.list.iter().map(candidate).collect()
    }

    /// Whether one more endpoint may be ejected: `max_percent` of all, rounded down, may be.
    pub(super) fn may_eject(&self, max_percent: u32) -> bool {
        let ejected = self.list.iter().filter(|weighted| weighted.endpoint.is_ejected()).count();
        (ejected + 1) * 100 <= self.list.len() * max_percent as usize
    }

    /// Whether the name of a tried endpoint has an address that was not tried.
    pub(super) fn has_other_address(&self, tried: &[usize]) -> bool {
        let Some(host) = tried.last().map(|index| self.list[*index].host) else { return false };
        self.list.iter().enumerate().any(|(index, one)| one.host == host && one.weight > 0 && !tried.contains(&index))
    }
}

/// Returns the value of a cookie (RFC 6265, section 5.4). If there are several, the first.
pub(crate) fn cookie<'h>(headers: &'h HeaderMap, name: &'h str) -> Option<&'h [u8]> {
    cookies(headers, name).next()
}

/// Returns the values of all cookies with a name.
pub(crate) fn cookies<'h>(headers: &'h HeaderMap, name: &'h str) -> impl Iterator<Item = &'h [u8]> {
    let pairs = headers.get_all(header::COOKIE).iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
    pairs.map(<[u8]>::trim_ascii).filter_map(move |pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
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
