//! `/upstreams`: the endpoints of each upstream with their status, as JSON.
//!
//! This module does not know: how endpoints are chosen.

use std::sync::Arc;

use serde::Serialize;
use utoipa::ToSchema;

use super::filters::{ShownSource, shown_source};
use super::reply::{Reply, serialized};
use crate::pipeline::snapshot::{Shared, Snapshot};
use crate::upstream::{Cluster, WeightedEndpoint};

/// An upstream.
#[derive(Serialize, ToSchema)]
pub(super) struct ShownUpstream {
    /// The upstream's name.
    name: String,
    /// The endpoints. A name with several addresses is several endpoints.
    endpoints: Vec<ShownEndpoint>,
    /// Names that have no address at present.
    unresolved: Vec<String>,
    /// The component that answers. Null: servers do.
    component: Option<ShownComponent>,
}

/// An endpoint and its status.
#[derive(Serialize, ToSchema)]
pub(super) struct ShownEndpoint {
    /// The address.
    endpoint: String,
    /// The name that it is an address of. Null: the configuration has the address itself.
    host: Option<String>,
    /// Its share of the requests in proportion to the weights of the others.
    weight: u32,
    /// What the last health checks say. Null: there are none.
    healthy: Option<bool>,
    /// For how long it is still out of service after failures.
    ejected_for_seconds: Option<f64>,
    /// Failures in a row.
    failures: u64,
    /// Requests in flight.
    in_flight: u64,
    /// Open connections.
    connections: u64,
    /// Requests that wait for a connection.
    pending: u64,
}

/// A component that answers.
#[derive(Serialize, ToSchema)]
pub(super) struct ShownComponent {
    /// Its SHA-256.
    digest: String,
    /// Its size in bytes.
    size: u64,
    /// Where it comes from.
    source: Option<ShownSource>,
    /// Requests in flight.
    in_flight: u64,
}

/// A list with an entry for each upstream, sorted by name.
pub(super) fn get(shared: &Shared) -> Reply {
    let snapshot = shared.snapshot.load();
    let list: Vec<ShownUpstream> =
        snapshot.upstreams.iter().map(|(name, cluster)| upstream(shared, &snapshot, name, cluster)).collect();
    serialized(&list)
}

fn upstream(shared: &Shared, snapshot: &Snapshot, name: &str, cluster: &Arc<Cluster>) -> ShownUpstream {
    let settings = snapshot.config.upstreams.get(name).and_then(|upstream| upstream.target.component());
    ShownUpstream {
        name: name.to_owned(),
        endpoints: cluster.endpoints().list.iter().map(endpoint).collect(),
        unresolved: cluster.unresolved(),
        component: cluster.component.as_ref().map(|component| ShownComponent {
            digest: component.info.digest.clone(),
            size: component.info.size as u64,
            source: settings.map(|settings| shown_source(shared, &settings.code.source)),
            in_flight: component.in_flight() as u64,
        }),
    }
}

fn endpoint(weighted: &WeightedEndpoint) -> ShownEndpoint {
    let status = weighted.endpoint.status();
    ShownEndpoint {
        endpoint: weighted.endpoint.label.to_string(),
        host: weighted.endpoint.name(),
        weight: weighted.weight,
        healthy: status.healthy,
        ejected_for_seconds: status.ejected_for.map(|time| time.as_secs_f64()),
        failures: status.failures.into(),
        in_flight: status.in_flight as u64,
        connections: status.connections as u64,
        pending: status.pending as u64,
    }
}
