//! `/routes`: each route with its chain of filters and where its requests go, as JSON.
//!
//! This module does not know: how a route is chosen.

use serde::Serialize;
use utoipa::ToSchema;

use super::reply::{Reply, serialized};
use crate::pipeline::snapshot::Shared;
use witgate_config::Route;

/// A route.
#[derive(Serialize, ToSchema)]
pub(super) struct ShownRoute {
    /// The route's name.
    name: String,
    /// The names of its filters, in the order of the request phase.
    filters: Vec<String>,
    /// Where its requests go.
    upstreams: Vec<ShownTarget>,
}

/// An upstream of a route.
#[derive(Serialize, ToSchema)]
pub(super) struct ShownTarget {
    /// The upstream's name.
    name: String,
    /// Its share of the requests in proportion to the weights of the others.
    weight: u32,
}

/// A list with an entry for each route, in the order of gateway.yaml.
pub(super) fn get(shared: &Shared) -> Reply {
    let list: Vec<ShownRoute> = shared.snapshot.load().config.routes.iter().map(route).collect();
    serialized(&list)
}

fn route(route: &Route) -> ShownRoute {
    let targets = route.upstreams().iter();
    ShownRoute {
        name: route.name.clone(),
        filters: route.filters.iter().map(|entry| entry.filter.clone()).collect(),
        upstreams: targets.map(|one| ShownTarget { name: one.upstream.clone(), weight: one.weight }).collect(),
    }
}
