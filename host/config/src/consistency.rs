//! Rules between top-level keys: references, and the order of timeouts.
//!
//! A filter must give up before the budget of all filters is used up, and the budget must end
//! before the timeout of the upstream. Otherwise the gateway would blame the wrong part for a
//! timeout. A filter may also use at most half of an upstream's timeout, so that time remains for
//! a retry. This module does not know: YAML.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use crate::filters::{Capability, Filter};
use crate::outbound::{Destination, FilterHttp};
use crate::routes::jwt::JwtKeys;
use crate::routes::{Route, RouteFilter};
use crate::stores::SharedStore;
use crate::upstreams::Upstream;
use crate::upstreams::endpoints::UpstreamTarget;
use crate::yaml::{Section, nearest};

/// Checks the rules between keys and reports violations to `top`. `budget` is `timeouts.filters`.
pub(crate) fn check(
    top: &Section,
    budget: Duration,
    upstreams: &BTreeMap<String, Upstream>,
    filters: &BTreeMap<String, Filter>,
    routes: &[Route],
) {
    for (index, route) in routes.iter().enumerate() {
        check_references(top, &format!("routes[{index}]"), route, upstreams, filters);
    }
    check_budget(top, budget, upstreams, filters);
    check_route_timeouts(top, budget, upstreams, filters, routes);
}

/// The upstreams and filters of a route exist. An empty name was reported as missing.
fn check_references(
    top: &Section,
    path: &str,
    route: &Route,
    upstreams: &BTreeMap<String, Upstream>,
    filters: &BTreeMap<String, Filter>,
) {
    let mut references: Vec<(String, &str)> = match route.upstreams() {
        [one] => vec![("upstream".into(), &one.upstream)],
        many => many.iter().enumerate().map(|(at, one)| (format!("upstreams[{at}]"), one.upstream.as_str())).collect(),
    };
    references.extend(route.mirror.iter().map(|mirror| ("mirror".into(), mirror.upstream.as_str())));
    references.extend(route.forward_auth.iter().map(|auth| ("forward_auth".into(), auth.upstream.as_str())));
    if let Some(JwtKeys::Fetched(jwks)) = route.jwt.as_ref().map(|jwt| &jwt.keys) {
        references.push(("jwt.jwks.upstream".into(), &jwks.upstream));
    }
    for (key, name) in references {
        if !name.is_empty() && !upstreams.contains_key(name) {
            top.error_at(&[path, &key], unknown("upstream", name, upstreams));
        }
    }
    for (index, RouteFilter { filter, .. }) in route.filters.iter().enumerate() {
        if !filter.is_empty() && !filters.contains_key(filter) {
            top.error_at(&[path, &format!("filters[{index}]")], unknown("filter", filter, filters));
        }
    }
}

/// The upstreams that filters and components may call exist, and a filter that may call services
/// has some.
pub(crate) fn check_calls(top: &Section, upstreams: &BTreeMap<String, Upstream>, filters: &BTreeMap<String, Filter>) {
    let check = |path: &[&str], http: &FilterHttp| {
        for (origin, destination) in &http.origins {
            if let Destination::Upstream(name) = destination
                && !upstreams.contains_key(name)
            {
                top.error_at(&[path, &["http", "origins", origin]].concat(), unknown("upstream", name, upstreams));
            }
        }
    };
    for (name, upstream) in upstreams {
        if let UpstreamTarget::Component(component) = &upstream.target {
            check(&["upstreams", name, "component"], &component.code.http);
        }
    }
    for (filter_name, filter) in filters {
        check(&["filters", filter_name], &filter.http);
        if filter.capabilities.contains(&Capability::Http) && filter.http.origins.is_empty() {
            let message = "grants http, but no origin: each call will be denied; list origins under http.origins";
            top.warn_at(&["filters", filter_name, "capabilities"], message);
        }
    }
}

/// The stores that filters and routes name exist, and no two filters share a namespace.
pub(crate) fn check_stores(
    top: &Section,
    stores: &BTreeMap<String, SharedStore>,
    filters: &BTreeMap<String, Filter>,
    routes: &[Route],
) {
    let mut spaces: BTreeMap<(&str, &str, &str), &str> = BTreeMap::new();
    for (name, filter) in filters {
        let parts = [("keyvalue", &filter.keyvalue.store), ("limiter", &filter.limiter.store)];
        for (key, store) in parts.into_iter().filter_map(|(key, store)| Some((key, store.as_ref()?))) {
            if !stores.contains_key(&store.store) {
                top.error_at(&["filters", name, key, "store"], unknown("store", &store.store, stores));
            }
            let namespace = store.namespace.as_deref().unwrap_or(name);
            if let Some(other) = spaces.insert((key, &store.store, namespace), name) {
                let message = format!(
                    "{namespace}: filter {other} has this namespace in the same store, so each could read what the other writes: choose another"
                );
                top.error_at(&["filters", name, key, "namespace"], message);
            }
        }
    }
    for (name, filter) in filters {
        let store = filter.release.as_ref().and_then(|release| release.store.as_ref()?.shared());
        if let Some(store) = store.filter(|store| !stores.contains_key(*store)) {
            top.error_at(&["filters", name, "release", "store"], unknown("store", store, stores));
        }
    }
    for (index, route) in routes.iter().enumerate() {
        let store = route.rate_limit.as_ref().and_then(|rate_limit| rate_limit.store.as_ref());
        if let Some(store) = store.filter(|store| !stores.contains_key(*store)) {
            let path = [&format!("routes[{index}]"), "rate_limit", "store"];
            top.error_at(&path, unknown("store", store, stores));
        }
    }
}

/// Filter timeout < budget of all filters < upstream timeout.
fn check_budget(
    top: &Section,
    budget: Duration,
    upstreams: &BTreeMap<String, Upstream>,
    filters: &BTreeMap<String, Filter>,
) {
    for (name, filter) in filters {
        if filter.timeout >= budget {
            let message = format!(
                "{:?} is not below timeouts.filters ({budget:?}), the budget of all filters of a phase: lower it, or raise the budget",
                filter.timeout
            );
            top.error_at(&["filters", name, "timeout"], message);
        }
    }
    for (name, upstream) in upstreams {
        if upstream.target != UpstreamTarget::Echo && budget >= upstream.timeout {
            top.error_at(&["upstreams", name, "timeout"], not_above_budget(upstream.timeout, budget));
        }
    }
}

/// Budget of all filters < route timeout, and filter timeout ≤ half of the time for the upstream.
fn check_route_timeouts(
    top: &Section,
    budget: Duration,
    upstreams: &BTreeMap<String, Upstream>,
    filters: &BTreeMap<String, Filter>,
    routes: &[Route],
) {
    let mut reported = HashSet::new();
    for (index, route) in routes.iter().enumerate() {
        let forwards = route.upstreams().iter().filter_map(|one| upstreams.get_key_value(&one.upstream));
        for (name, upstream) in forwards {
            if let Some(timeout) = route.timeout.filter(|timeout| *timeout <= budget) {
                top.error_at(&[&format!("routes[{index}]"), "timeout"], not_above_budget(timeout, budget));
            }
            let timeout = route.timeout.unwrap_or(upstream.timeout);
            for RouteFilter { filter: filter_name, .. } in &route.filters {
                let Some(filter) = filters.get(filter_name) else { continue };
                if filter.timeout * 2 > timeout && reported.insert((filter_name, name)) {
                    let message = format!(
                        "{:?} is more than half of the timeout of upstream {name} ({timeout:?}), which leaves no time for a retry: set it to {:?} or less",
                        filter.timeout,
                        timeout / 2
                    );
                    top.error_at(&["filters", filter_name, "timeout"], message);
                }
            }
        }
    }
}

fn not_above_budget(timeout: Duration, budget: Duration) -> String {
    format!("{timeout:?} is not above timeouts.filters ({budget:?}): raise it, or lower the budget")
}

fn unknown<T>(kind: &str, name: &str, known: &BTreeMap<String, T>) -> String {
    let names: Vec<&str> = known.keys().map(String::as_str).collect();
    match nearest(name, &names) {
        Some(near) => format!("{name}: there is no such {kind}: did you mean {near}?"),
        None if names.is_empty() => format!("{name}: there is no such {kind}: define it under {kind}s"),
        None => format!("{name}: there is no such {kind}: the {kind}s are {}", names.join(", ")),
    }
}
