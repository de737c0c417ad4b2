//! All hosts that the configuration names. They outlive snapshots, so a reload keeps what is known
//! of their endpoints.
//!
//! This module does not know: requests, clusters.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::host::Host;
use super::resolve::Servers;
use crate::telemetry::Metrics;
use witgate_config::{EndpointAddress, Protocol};

type Key = (Arc<str>, EndpointAddress, Protocol);

/// All hosts that the configuration names.
pub struct EndpointRegistry {
    hosts: Mutex<HashMap<Key, Arc<Host>>>,
    servers: Servers,
    metrics: Metrics,
}

impl EndpointRegistry {
    /// Creates an empty registry. `servers` resolve names; without any, those of the system do.
    pub fn new(servers: &[std::net::SocketAddr], metrics: Metrics) -> Self {
        Self { hosts: Mutex::default(), servers: servers.into(), metrics }
    }

    pub(super) fn get_or_create(
        &self,
        upstream: &Arc<str>,
        address: &EndpointAddress,
        protocol: Protocol,
    ) -> Arc<Host> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (upstream.clone(), address.clone(), protocol);
        let create = || Arc::new(Host::new(upstream, address, &self.servers, &self.metrics));
        hosts.entry(key).or_insert_with(create).clone()
    }

    /// Drops the hosts that `is_used` does not know, with the metrics of their endpoints.
    pub(super) fn retain(&self, is_used: impl Fn(&Arc<Host>) -> bool) {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        let mut removed = vec![];
        hosts.retain(|_, host| {
            let keep = is_used(host);
            if !keep {
                removed.extend(host.endpoints().list.iter().map(|(endpoint, _)| endpoint.labels()));
            }
            keep
        });
        for labels in removed {
            let has_labels = |host: &Arc<Host>| host.endpoints().list.iter().any(|(other, _)| other.labels() == labels);
            // The same address with another protocol has the same labels.
            if !hosts.values().any(has_labels) {
                self.metrics.forget_endpoint(&labels);
            }
        }
    }
}
