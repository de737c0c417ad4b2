//! `routes:`: which requests pass through which filters, and who answers them.
//!
//! `consistency.rs` checks that the upstreams and filters of a route exist. This module does not
//! know: how a route is found.

pub(crate) mod action;
pub(crate) mod basic_auth;
pub(crate) mod clear_text;
pub(crate) mod compression;
pub(crate) mod conditions;
pub(crate) mod cors;
pub(crate) mod jwt;
pub(crate) mod policies;
pub(crate) mod rate_limit;
pub(crate) mod rewrite;
pub(crate) mod unreachable;

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use crate::error_pages::{self, ErrorPage};
use crate::filters::{Filter, read_config};
use crate::references::FilterConfig;
use crate::values::{HOUR, MILLISECOND, host, name};
use crate::yaml::{Node, Section, Value};
use action::{DirectResponse, Redirect, RedirectPath};
use basic_auth::BasicAuth;
use compression::Compression;
use conditions::{Match, PathMatch};
use cors::Cors;
use jwt::{Jwt, TokenPlace};
use policies::{ClientNetworks, ForwardAuth, HeaderPolicy};
use rate_limit::RateLimit;
use rewrite::{PathRewrite, Rewrite};

const WEIGHT_MAX: u32 = 10_000;

/// Which requests pass through which filters, and who answers them.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// Its label in logs and metrics; unique. Default `route-1`, `route-2`, …
    pub name: String,
    /// The host without port, lower case; `None` for any. `*.example.com` is any name below
    /// example.com.
    pub host: Option<String>,
    /// Further conditions on the request.
    pub matches: Match,
    /// In the order of request processing.
    pub filters: Vec<RouteFilter>,
    /// Who answers.
    pub action: Action,
    /// From the start of the request to the head of the response. Default the upstream's
    /// `timeout`; 1 ms to 1 h. It is above `timeouts.filters`.
    pub timeout: Option<Duration>,
    /// Bounds on this route alone.
    pub limits: RouteLimits,
    /// How many requests a client may send in a time.
    pub rate_limit: Option<RateLimit>,
    /// Changes to the request that the upstream receives.
    pub rewrite: Rewrite,
    /// Where copies of the requests go.
    pub mirror: Option<Mirror>,
    /// Which other sites browsers may let use the route.
    pub cors: Option<Cors>,
    /// Which responses the gateway compresses.
    pub compression: Option<Compression>,
    /// Which clients may use the route.
    pub clients: ClientNetworks,
    /// Changes of header fields.
    pub headers: HeaderPolicy,
    /// Who may use the route, by name and password.
    pub basic_auth: Option<BasicAuth>,
    /// Which signed tokens may use the route.
    pub jwt: Option<Jwt>,
    /// An upstream that decides whether a request may pass.
    pub forward_auth: Option<ForwardAuth>,
    /// Bodies for failures: those of the route, then those of the whole file.
    pub error_pages: Vec<ErrorPage>,
}

/// Who answers a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// `upstream: a`, or `upstreams: [{name: a, weight: 90}, …]`: one of them, by weight. At least
    /// one.
    Forward(Vec<WeightedUpstream>),
    /// `redirect:`: the gateway redirects the client.
    Redirect(Redirect),
    /// `respond:`: the gateway answers.
    Respond(DirectResponse),
}

/// An upstream and its share of a route's requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WeightedUpstream {
    /// A name in `upstreams:`.
    pub upstream: String,
    /// In proportion to the sum of all weights. Default 1; 0 to 10,000, and not all are 0.
    pub weight: u32,
}

/// A filter in a route.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteFilter {
    /// A name in `filters:`.
    pub filter: String,
    /// The gateway calls the filter only for requests with these conditions.
    pub matches: Match,
    /// The filter's config, with the keys of the route's config replaced or added.
    pub config: FilterConfig,
}

/// Where copies of requests go. The gateway discards the responses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// A name in `upstreams:`.
    pub upstream: String,
    /// The share of requests that are copied. Default 100; 1 to 100.
    pub percent: u8,
}

/// Bounds on one route.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RouteLimits {
    /// Bytes of a request's body; the gateway answers 413 above it. At most 1 TiB.
    pub request_body_bytes: Option<usize>,
    /// Concurrent exchanges; the gateway answers 503 above it. The count starts again after a
    /// reload. 1 to 1,000,000.
    pub in_flight: Option<usize>,
    /// Bytes of bodies that the gateway holds in memory for the filters of the route. Default three
    /// quarters of `limits.buffered_bytes`. 64 KiB to 64 GiB.
    pub buffered_bytes: Option<usize>,
}

/// Reads the list. The config of a filter in a route extends the filter's own.
pub(crate) fn read(top: &Section, filters: &BTreeMap<String, Filter>) -> Vec<Route> {
    let routes = top.each("routes", |index, section| Route::read(index, section, filters));
    if routes.is_empty() {
        top.error_at(&["routes"], "there is no route: no request could be served");
    }
    let mut names = HashSet::new();
    for (index, route) in routes.iter().enumerate() {
        if !names.insert(&route.name) {
            let message = format!("{}: another route has this name", route.name);
            top.error_at(&[&format!("routes[{index}]"), "name"], message);
        }
    }
    routes
}

/// Gives each filter the configurations that routes make for it: whoever loads the filter checks
/// all of them.
pub(crate) fn collect_configs(routes: &[Route], filters: &mut BTreeMap<String, Filter>) {
    for route in routes {
        for RouteFilter { filter, config, .. } in &route.filters {
            if let Some(filter) = filters.get_mut(filter).filter(|filter| filter.config != *config) {
                filter.route_configs.push((route.name.clone(), config.clone()));
            }
        }
    }
}

impl Route {
    fn read(index: usize, section: &Section, filters: &BTreeMap<String, Filter>) -> Self {
        let (host, matches) = match section.get("match") {
            Some(Node { value: Value::Scalar { text, .. }, line }) => {
                let text = witgate_http::text::quoted(text);
                let advice =
                    if text.starts_with("\"/") { "{path: /api}" } else { "{host: api.example.com, path: /api}" };
                section.error(*line, "match", format!("{text}: conditions are a mapping, such as {advice}"));
                (None, Match::default())
            }
            _ => section.nested("match", |section| (section.scalar("host", host), Match::read(section))),
        };
        let chain = section.nodes("filters").iter().enumerate();
        let route = Self {
            name: section.scalar("name", name).unwrap_or_else(|| format!("route-{}", index + 1)),
            host,
            matches,
            filters: chain.map(|(index, node)| RouteFilter::read(section, index, node, filters)).collect(),
            action: Action::read(section),
            timeout: section.duration("timeout", MILLISECOND, HOUR),
            limits: section.nested("limits", RouteLimits::read),
            rate_limit: section.optional("rate_limit", RateLimit::read),
            rewrite: section.nested("rewrite", Rewrite::read),
            mirror: section.optional("mirror", Mirror::read),
            cors: section.optional("cors", Cors::read),
            compression: section.optional("compression", Compression::read),
            clients: section.nested("clients", ClientNetworks::read),
            headers: section.nested("headers", HeaderPolicy::read),
            basic_auth: section.optional("basic_auth", BasicAuth::read),
            jwt: section.optional("jwt", Jwt::read),
            forward_auth: section.optional("forward_auth", ForwardAuth::read),
            error_pages: error_pages::read(section),
        };
        route.check(section);
        route
    }

    /// The upstreams that requests go to; empty if the gateway answers itself.
    pub fn upstreams(&self) -> &[WeightedUpstream] {
        if let Action::Forward(upstreams) = &self.action { upstreams } else { &[] }
    }

    /// Checks the rules between the route's own keys.
    fn check(&self, section: &Section) {
        if self.basic_auth.is_some() && self.jwt.as_ref().is_some_and(|jwt| jwt.token == TokenPlace::Authorization) {
            let message = "basic_auth and jwt both need the field authorization: use two routes, or jwt.token";
            section.error_at(&["jwt"], message);
        }
        if self.upstreams().is_empty() && (self.rewrite != Rewrite::default() || self.mirror.is_some()) {
            let message =
                "rewrite and mirror apply to requests to an upstream, but this route has no upstream: remove them";
            section.error_at(&["rewrite"], message);
        }
        if matches!(self.matches.path, None | Some(PathMatch::Prefix(_))) {
            return;
        }
        let message =
            "replaces the prefix that the route matches, but this route matches no prefix: write match.path as /prefix";
        if matches!(&self.action, Action::Redirect(Redirect { path: Some(RedirectPath::Prefix(_)), .. })) {
            section.error_at(&["redirect", "prefix"], message);
        }
        if matches!(self.rewrite.path, Some(PathRewrite::Prefix(_))) {
            section.error_at(&["rewrite", "prefix"], message);
        }
    }
}

impl Action {
    fn read(route: &Section) -> Self {
        const KEYS: [&str; 4] = ["upstream", "upstreams", "redirect", "respond"];
        let present: Vec<&str> = KEYS.into_iter().filter(|key| route.has(key)).collect();
        if present.is_empty() {
            route.require("upstream", "name one of the upstreams (or write redirect or respond)");
        } else if present.len() > 1 {
            let present_keys = present.join(" and ");
            let message = format!("a route has one of upstream, upstreams, redirect and respond, not {present_keys}");
            route.error(route.line(), present[1], message);
        }
        match present.first().copied() {
            Some("redirect") => Self::Redirect(route.nested("redirect", Redirect::read)),
            Some("respond") => Self::Respond(route.nested("respond", DirectResponse::read)),
            Some("upstreams") => Self::Forward(WeightedUpstream::read_list(route)),
            _ => {
                let upstream = route.string("upstream").unwrap_or_default();
                Self::Forward(vec![WeightedUpstream { upstream, weight: 1 }])
            }
        }
    }
}

impl WeightedUpstream {
    fn read_list(route: &Section) -> Vec<Self> {
        let upstreams = route.each("upstreams", |_, section| {
            section.require("name", "name one of the upstreams");
            Self {
                upstream: section.string("name").unwrap_or_default(),
                weight: section.number("weight", 0, WEIGHT_MAX).unwrap_or(1),
            }
        });
        if upstreams.iter().all(|upstream| upstream.weight == 0) {
            route.error(route.line(), "upstreams", "has no upstream with a weight above 0");
        }
        upstreams
    }
}

impl RouteFilter {
    /// `api-key`, or `{filter: api-key, match: …, config: …}`.
    fn read<'a>(route: &Section<'a>, index: usize, node: &'a Node, filters: &BTreeMap<String, Filter>) -> Self {
        let mut route_filter = match &node.value {
            Value::Scalar { .. } => {
                let filter = route.value(&format!("filters[{index}]"), node, |text| Ok(text.to_owned()));
                Self { filter: filter.unwrap_or_default(), matches: Match::default(), config: FilterConfig::default() }
            }
            _ => route.item("filters", index, node, |section| {
                section.require("filter", "name one of the filters");
                Self {
                    filter: section.string("filter").unwrap_or_default(),
                    matches: section.nested("match", Match::read),
                    config: read_config(section),
                }
            }),
        };
        if let Some(filter) = filters.get(&route_filter.filter) {
            let own = std::mem::replace(&mut route_filter.config, filter.config.clone());
            route_filter.config.extend(own.into_inner());
        }
        route_filter
    }
}

impl Mirror {
    fn read(section: &Section) -> Self {
        section.require("upstream", "name one of the upstreams");
        Self {
            upstream: section.string("upstream").unwrap_or_default(),
            percent: section.number("percent", 1, 100).unwrap_or(100),
        }
    }
}

impl RouteLimits {
    fn read(section: &Section) -> Self {
        Self {
            request_body_bytes: section.size("request_body_bytes", 0, 1 << 40),
            in_flight: section.number("in_flight", 1, 1_000_000),
            buffered_bytes: section.size("buffered_bytes", 64 << 10, 64 << 30),
        }
    }
}
