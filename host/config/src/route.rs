//! `routes:`: from a request to filters and an upstream, or to an answer of the gateway's own.
//!
//! Types and their sections; what a route does to messages on the way is in `policy.rs`, what a request must look like in `conditions.rs`. References to
//! upstreams and filters are checked by `rules.rs`. Must not know: how a route is found, how a policy works.

use std::collections::BTreeMap;
use std::time::Duration;

use super::conditions::{Match, conditions};
use super::policy::{
    Compression, Cors, Mirror, Redirect, DirectResponse, Rewrite, RouteLimits, compression, cors, mirror, redirect, respond,
    rewrite, route_limits,
};
use super::read::{Errors, Section};
use super::sections::{HOUR, MILLISECOND, filter_config, host, name};
use super::tree::{Node, Value};

const WEIGHT_MAX: u32 = 10_000;

/// From a request to what answers it.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// For logs and metrics; unique. Default `route-1`, `route-2`, …
    pub name: String,
    /// Host without port, lower case; none for any. `*.example.com` for any name below.
    pub host: Option<String>,
    /// What else a request must look like.
    pub matches: Match,
    /// In request order.
    pub filters: Vec<RouteFilter>,
    /// What answers.
    pub action: Action,
    /// From the request's start to the response's head, instead of the upstream's.
    pub timeout: Option<Duration>,
    /// Bounds of this route alone.
    pub limits: RouteLimits,
    /// What the upstream gets to see instead.
    pub rewrite: Rewrite,
    /// A copy of the requests.
    pub mirror: Option<Mirror>,
    /// For browsers on other sites.
    pub cors: Option<Cors>,
    /// Of responses.
    pub compression: Option<Compression>,
}

impl Route {
    /// The upstreams that it sends requests to; none where it answers itself.
    pub fn upstreams(&self) -> &[WeightedUpstream] {
        match &self.action {
            Action::Forward(upstreams) => upstreams,
            _ => &[],
        }
    }
}

/// What answers a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// `upstream: a`, or `upstreams: [{name: a, weight: 90}, …]`: one of them, by weight. At least one.
    Forward(Vec<WeightedUpstream>),
    /// `redirect:`
    Redirect(Redirect),
    /// `respond:`
    Respond(DirectResponse),
}

/// An upstream and its share of a route's requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WeightedUpstream {
    /// A key of [`super::Config::upstreams`].
    pub upstream: String,
    /// Its share of the sum of all weights; 0 to 10,000, not all 0. Default 1.
    pub weight: u32,
}

/// A filter in a route's chain.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteFilter {
    /// A key of [`super::Config::filters`].
    pub filter: String,
    /// When to call it at all.
    pub matches: Match,
    /// The filter's config with the route's over it.
    pub config: BTreeMap<String, String>,
}

/// Reads the list.
pub(super) fn routes(top: &Section) -> Vec<Route> {
    top.nodes("routes").iter().enumerate().map(|(index, node)| route(index, node, top.errors)).collect()
}

fn route(index: usize, node: &Node, errors: &Errors) -> Route {
    let section = Section::new(Some(node), format!("routes[{index}]"), errors);
    let when = section.section("match");
    let route = Route {
        name: section.scalar("name", name).unwrap_or_else(|| format!("route-{}", index + 1)),
        host: when.scalar("host", host),
        matches: conditions(&when),
        filters: section.nodes("filters").iter().enumerate().map(|(at, node)| link(&section, at, node)).collect(),
        action: action(&section),
        timeout: section.duration("timeout", MILLISECOND, HOUR),
        limits: route_limits(section.section("limits")),
        rewrite: rewrite(section.section("rewrite")),
        mirror: section.get("mirror").map(|_| mirror(section.section("mirror"))),
        cors: section.get("cors").map(|_| cors(section.section("cors"))),
        compression: section.get("compression").map(|_| compression(section.section("compression"))),
    };
    when.finish();
    section.finish();
    route
}

fn action(section: &Section) -> Action {
    const KEYS: [&str; 4] = ["upstream", "upstreams", "redirect", "respond"];
    let given: Vec<&str> = KEYS.into_iter().filter(|key| section.get(key).is_some()).collect();
    if given.is_empty() {
        section.error(section.line, "upstream", "is missing: name one of the upstreams (or write redirect or respond)");
    } else if given.len() > 1 {
        let message =
            format!("a route has one of upstream, upstreams, redirect and respond, not {}", given.join(" and "));
        section.error(section.line, given[1], message);
    }
    match given.first().copied() {
        Some("redirect") => Action::Redirect(redirect(section.section("redirect"))),
        Some("respond") => Action::Respond(respond(section.section("respond"))),
        Some("upstreams") => Action::Forward(weighted(section)),
        _ => Action::Forward(vec![WeightedUpstream { upstream: section.text("upstream").unwrap_or_default(), weight: 1 }]),
    }
}

fn weighted(route: &Section) -> Vec<WeightedUpstream> {
    let read = |(at, node)| {
        let section = Section::new(Some(node), route.at(&format!("upstreams[{at}]")), route.errors);
        let weighted = WeightedUpstream {
            upstream: section.text("name").unwrap_or_default(),
            weight: section.number("weight", 0, WEIGHT_MAX).unwrap_or(1),
        };
        if section.get("name").is_none() {
            section.error(section.line, "name", "is missing: name one of the upstreams");
        }
        section.finish();
        weighted
    };
    let upstreams: Vec<WeightedUpstream> = route.nodes("upstreams").iter().enumerate().map(read).collect();
    if upstreams.iter().all(|one| one.weight == 0) {
        route.error(route.line, "upstreams", "has no upstream with a weight above 0");
    }
    upstreams
}

/// `api-key`, or `{filter: api-key, match: …, config: …}`. The route's config is laid over the filter's by `rules.rs`.
fn link(route: &Section, at: usize, node: &Node) -> RouteFilter {
    if let Value::Scalar { text, .. } = &node.value {
        return RouteFilter { filter: text.clone(), matches: Match::default(), config: BTreeMap::new() };
    }
    let section = Section::new(Some(node), route.at(&format!("filters[{at}]")), route.errors);
    let when = section.section("match");
    let link = RouteFilter {
        filter: section.text("filter").unwrap_or_default(),
        matches: conditions(&when),
        config: filter_config(&section),
    };
    if section.get("filter").is_none() {
        section.error(section.line, "filter", "is missing: name one of the filters");
    }
    when.finish();
    section.finish();
    link
}
