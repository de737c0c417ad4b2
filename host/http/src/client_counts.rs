//! Counts by client in a fixed number of counters, chosen by a keyed hash of the client's network.
//!
//! Gain: no lock, and nothing grows with the number of clients. Price: two clients may share a
//! counter. This module does not know: what is counted.

use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;

use crate::limiter::Limiter;
use crate::semantics::client_network::client_network;

/// What each client uses.
pub struct ClientCounts {
    counters: Box<[Limiter]>,
    hasher: RandomState,
}

impl ClientCounts {
    /// So many counters, at least one.
    pub fn new(counters: usize) -> Self {
        let counters = (0..counters.max(1)).map(|_| Limiter::default()).collect();
        Self { counters, hasher: RandomState::new() }
    }

    /// The counter of a client.
    pub fn of(&self, client: IpAddr) -> &Limiter {
        &self.counters[self.hasher.hash_one(client_network(client)) as usize % self.counters.len()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_ipv6_network_is_one_client() {
        let counts = ClientCounts::new(1024);
        let at = |text: &str| text.parse().map(|client| std::ptr::from_ref(counts.of(client)));
        assert_eq!(at("2001:db8::1"), at("2001:db8::2"));
        assert_eq!(at("192.0.2.1"), at("::ffff:192.0.2.1"));
    }
}
