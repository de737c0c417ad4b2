//! An upstream as it is served: its terms, its endpoints' states, and what its balancing needs to know of a request.
//!
//! A snapshot holds groups; the states in them come from a registry that outlives snapshots. Must not know: connections.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use http::HeaderMap;
use http::header;
use smallvec::SmallVec;

use super::balance::{Candidate, Standing, hash};
use super::endpoint::State;
use crate::net::tls::ClientTls;
use crate::telemetry::Metrics;
use witgate_config::{Balance, Endpoint, HashKey, Protocol, Target, Upstream};
use witgate_http::body::Body;

/// An upstream, ready to be asked.
pub struct Group {
    /// Its name in gateway.yaml.
    pub name: Arc<str>,
    /// Its terms.
    pub terms: Upstream,
    /// How to speak TLS to it; none for plain text.
    pub tls: Option<Arc<ClientTls>>,
    /// Its endpoints; none for a built-in.
    pub members: Vec<Member>,
    /// Threads that ask it.
    pub(super) workers: usize,
    /// Unlike that of any other group of this process.
    pub(super) generation: u64,
}

/// An endpoint of a group.
pub struct Member {
    /// What the gateway knows of it.
    pub state: Arc<State>,
    /// Its share.
    pub weight: u32,
    seed: u64,
}

impl Group {
    /// Puts an upstream's terms and its endpoints' states together. `workers` is the number of serving threads.
    pub fn new(name: &str, terms: &Upstream, tls: Option<Arc<ClientTls>>, workers: usize, registry: &Registry) -> Self {
        let name: Arc<str> = name.into();
        let member = |member: &witgate_config::Member| {
            let state = registry.state(&name, &member.endpoint, terms.protocol);
            Member { weight: member.weight, seed: hash(state.label.as_bytes()), state }
        };
        let members = match &terms.target {
            Target::Endpoints(list) => list.iter().map(member).collect(),
            Target::Echo => vec![],
        };
        Self { members, terms: terms.clone(), tls, workers, generation: next_id(), name }
    }

    /// What the choice of an endpoint looks at.
    pub(super) fn candidates(&self) -> SmallVec<[Candidate; 8]> {
        let max = self.terms.limits.in_flight;
        let seen = |member: &Member| {
            let state = &member.state;
            let standing = match (state.is_in_service(), state.has_room(max)) {
                (false, _) => Standing::Out,
                (true, false) => Standing::Full,
                (true, true) => Standing::Fit,
            };
            Candidate { weight: member.weight, standing, in_flight: state.in_flight(), seed: member.seed }
        };
        self.members.iter().map(seen).collect()
    }

    /// Whether one more endpoint may be ejected: `max_ejected_percent` of them, rounded down.
    pub(super) fn may_eject(&self, max_percent: u32) -> bool {
        let ejected = self.members.iter().filter(|member| member.state.is_ejected()).count();
        (ejected + 1) * 100 <= self.members.len() * max_percent as usize
    }

    /// The number that decides a request's endpoint; none where the upstream is not balanced by one or the request has no such key.
    pub(super) fn key(&self, request: &http::Request<Body>, client: IpAddr) -> Option<u64> {
        let Balance::Hash(key) = &self.terms.balance else { return None };
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

type Key = (Arc<str>, Endpoint, Protocol);

/// The states of all endpoints, for as long as a configuration names them.
pub struct Registry {
    states: Mutex<HashMap<Key, Arc<State>>>,
    metrics: Metrics,
}

impl Registry {
    /// Knows no endpoint.
    pub fn new(metrics: Metrics) -> Self {
        Self { states: Mutex::default(), metrics }
    }

    fn state(&self, upstream: &Arc<str>, endpoint: &Endpoint, protocol: Protocol) -> Arc<State> {
        let mut states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (upstream.clone(), endpoint.clone(), protocol);
        let made = || Arc::new(State::new(next_id(), upstream.clone(), endpoint.clone(), &self.metrics));
        states.entry(key).or_insert_with(made).clone()
    }

    /// Forgets endpoints that no group has, and their numbers.
    pub fn retain<'g>(&self, groups: impl Iterator<Item = &'g Arc<Group>>) {
        let used: Vec<u64> = groups.flat_map(|group| group.members.iter().map(|member| member.state.id)).collect();
        let mut states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        let mut gone = vec![];
        states.retain(|_, state| {
            let keep = used.contains(&state.id);
            if !keep {
                gone.push(state.clone());
            }
            keep
        });
        for state in gone {
            // The same place by another protocol keeps its numbers.
            if !states.values().any(|other| other.labels() == state.labels()) {
                self.metrics.forget_endpoint(&state.labels());
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
