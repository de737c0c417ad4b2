//! One entry of `endpoints:` and the endpoints that it stands for: an IP address or a socket is one
//! endpoint, a name has one for each of its addresses.
//!
//! When a name is resolved again, an address that stays keeps its endpoint with all its state. This
//! module does not know: balancing, connections.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use super::endpoint::{Endpoint, SocketTarget};
use super::resolve::{Answer, HostAddresses, Servers};
use crate::telemetry::Metrics;
use witgate_config::{AddressKind, EndpointAddress};

/// An entry of `endpoints:`, shared by all snapshots that have it.
pub(super) struct Host {
    pub(super) address: EndpointAddress,
    upstream: Arc<str>,
    /// None if there is nothing to resolve.
    addresses: Option<Arc<HostAddresses>>,
    endpoints: ArcSwap<HostEndpoints>,
    updating: Mutex<()>,
    metrics: Metrics,
}

/// The endpoints of a host at one time.
#[derive(Default)]
pub(super) struct HostEndpoints {
    answer: Option<Answer>,
    /// With the weight in an SRV record, else 1.
    pub(super) list: Vec<(Arc<Endpoint>, u32)>,
}

impl Host {
    /// Resolves nothing yet.
    pub(super) fn new(upstream: &Arc<str>, address: &EndpointAddress, servers: &Servers, metrics: &Metrics) -> Self {
        let socket = match (address.kind, address.host.parse::<IpAddr>()) {
            (AddressKind::Unix, _) => Some(SocketTarget::Unix(PathBuf::from(&address.host))),
            (AddressKind::Host, Ok(ip)) => Some(SocketTarget::Tcp(SocketAddr::new(ip, address.port))),
            _ => None,
        };
        let addresses = || Arc::new(HostAddresses::new(address, upstream.clone(), servers.clone()));
        let endpoint = |socket| (Arc::new(Endpoint::new(upstream.clone(), address.clone(), socket, metrics)), 1);
        Self {
            addresses: socket.is_none().then(addresses),
            endpoints: ArcSwap::from_pointee(HostEndpoints {
                answer: None,
                list: socket.into_iter().map(endpoint).collect(),
            }),
            address: address.clone(),
            upstream: upstream.clone(),
            updating: Mutex::default(),
            metrics: metrics.clone(),
        }
    }

    /// Whether its endpoints can change.
    pub(super) fn is_name(&self) -> bool {
        self.addresses.is_some()
    }

    /// The endpoints for the last answer of DNS. Empty if there is none yet.
    pub(super) fn endpoints(&self) -> Arc<HostEndpoints> {
        let current = self.endpoints.load_full();
        let Some(addresses) = &self.addresses else { return current };
        if is_same(&addresses.known(), &current.answer) { current } else { self.update(addresses) }
    }

    fn update(&self, addresses: &HostAddresses) -> Arc<HostEndpoints> {
        let _one_at_a_time = self.updating.lock().unwrap_or_else(PoisonError::into_inner);
        let (answer, before) = (addresses.known(), self.endpoints.load_full());
        if is_same(&answer, &before.answer) {
            return before;
        }
        let mut list = vec![];
        for target in answer.iter().flat_map(|answer| answer.iter()) {
            let socket = SocketTarget::Tcp(target.address);
            let kept = before.list.iter().find(|(endpoint, _)| endpoint.socket == socket);
            let endpoint = kept.map(|(endpoint, _)| endpoint.clone()).unwrap_or_else(|| {
                Arc::new(Endpoint::new(self.upstream.clone(), self.address.clone(), socket, &self.metrics))
            });
            list.push((endpoint, target.weight));
        }
        for (gone, _) in &before.list {
            if !list.iter().any(|(endpoint, _)| Arc::ptr_eq(endpoint, gone)) {
                self.metrics.forget_endpoint(&gone.labels());
            }
        }
        let updated = Arc::new(HostEndpoints { answer, list });
        self.endpoints.store(updated.clone());
        updated
    }

    /// Starts a look-up if the last answer has expired. Does not wait for it.
    pub(super) fn renew(&self, now: Instant, age_max: Duration) {
        if let Some(addresses) = &self.addresses {
            addresses.renew(now, age_max);
        }
    }

    /// Waits for the first answer of DNS. The error says why the name has no address.
    pub(super) async fn resolve(&self, age_max: Duration) -> Result<(), String> {
        match &self.addresses {
            Some(addresses) => addresses.resolve(age_max).await,
            None => Ok(()),
        }
    }
}

fn is_same(one: &Option<Answer>, other: &Option<Answer>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => Arc::ptr_eq(one, other),
        (None, None) => true,
        _ => false,
    }
}
