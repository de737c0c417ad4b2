//! `/routes`: each route with its chain of filters and where its requests go, as JSON.
//!
//! This module does not know: how a route is chosen.

use witgate_config::Route;

use super::reply::{Reply, json};
use crate::pipeline::snapshot::Shared;

/// A list with an entry for each route, in the order of gateway.yaml.
pub(super) fn get(shared: &Shared) -> Reply {
    let list: Vec<_> = shared.snapshot.load().config.routes.iter().map(route).collect();
    json(&list.into())
}

fn route(route: &Route) -> serde_json::Value {
    let upstreams: Vec<_> =
        route.upstreams().iter().map(|one| serde_json::json!({ "name": one.upstream, "weight": one.weight })).collect();
    serde_json::json!({
        "name": route.name,
        "filters": route.filters.iter().map(|entry| &entry.filter).collect::<Vec<_>>(),
        "upstreams": upstreams,
    })
}
