//! `/upstreams`: the endpoints of each upstream with their status, as JSON.
//!
//! This module does not know: how endpoints are chosen.

use std::sync::Arc;

use super::reply::{Reply, json};
use crate::pipeline::snapshot::Shared;
use crate::upstream::{Cluster, WeightedEndpoint};

/// A list with an entry for each upstream, sorted by name.
pub(super) fn get(shared: &Shared) -> Reply {
    let list: Vec<_> = shared.snapshot.load().upstreams.iter().map(upstream).collect();
    json(&list.into())
}

fn upstream((name, cluster): (&String, &Arc<Cluster>)) -> serde_json::Value {
    let endpoints: Vec<_> = cluster.endpoints().list.iter().map(endpoint).collect();
    let component = cluster.component.as_ref().map(|component| {
        serde_json::json!({ "digest": component.info.digest, "size": component.info.size, "in_flight": component.in_flight() })
    });
    serde_json::json!({
        "name": name,
        "endpoints": endpoints,
        "unresolved": cluster.unresolved(),
        "component": component,
    })
}

fn endpoint(weighted: &WeightedEndpoint) -> serde_json::Value {
    let status = weighted.endpoint.status();
    serde_json::json!({
        "endpoint": &*weighted.endpoint.label,
        "host": weighted.endpoint.name(),
        "weight": weighted.weight,
        "healthy": status.healthy,
        "ejected_for_seconds": status.ejected_for.map(|time| time.as_secs_f64()),
        "failures": status.failures,
        "in_flight": status.in_flight,
        "connections": status.connections,
        "pending": status.pending,
    })
}
