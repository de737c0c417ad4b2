//! The running state as one immutable value: what a request sees from its first byte to its last.
//!
//! A reload builds a new snapshot beside the old one and swaps a pointer. Exchanges in flight keep
//! the old snapshot, so no version changes under a request; the last of them frees its filters.
//! This module does no I/O. It does not know: how changes are noticed, how connections are served.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;

use crate::clients::Clients;
use crate::net::tls::ClientTls;
use crate::pipeline::basic_auth::passwords::PasswordChecks;
use crate::pipeline::cors;
use crate::pipeline::filters::{CanaryEntry, ChainEntry};
use crate::pipeline::jwt::TokenPolicy;
use crate::pipeline::jwt::key_cache::KeyCaches;
use crate::pipeline::mirror::Mirror;
use crate::pipeline::rate_limit::RateLimit;
use crate::pipeline::route::Router;
use crate::pipeline::trailers::TrailerRules;
use crate::releases::remote::RemoteSources;
use crate::releases::shared::GatewayNotice;
use crate::releases::version_registry::{Canary, Releases};
use crate::state::RouteLimiters;
use crate::telemetry::{FilterSeries, Metrics, ReloadStatus, RouteSeries, Telemetry};
use crate::tls::{CertificateList, ServerTls};
use crate::upstream::{Cluster, EndpointRegistry};
use witgate_config::{Config, ForwardAuth, OnError, Upstream};
use witgate_http::body_budget::{Budget, HeldBytes, HeldLimits};
use witgate_http::error::Error;
use witgate_http::limiter::Limiter;
use witgate_runtime::engine::Engine;
use witgate_runtime::exchange::Request;
use witgate_runtime::filter::Filter;
use witgate_runtime::http_component::HttpComponent;

/// The filters of a configuration, by name.
pub type Filters = HashMap<String, Arc<Filter>>;

/// New versions that serve a share of the exchanges, by the filter's name.
pub type Canaries = HashMap<String, Canary>;

/// TLS of those upstreams that have it, by name.
pub type UpstreamTls = HashMap<String, Arc<ClientTls>>;

/// Components that answer as upstreams, by the upstream's name.
pub type Components = HashMap<String, Arc<HttpComponent>>;

/// What the upstreams of a configuration need beyond their settings.
#[derive(Clone, Default)]
pub struct UpstreamParts {
    /// TLS of those that have it.
    pub tls: UpstreamTls,
    /// Those that are components.
    pub components: Components,
}

/// One consistent state of the gateway.
pub struct Snapshot {
    /// The configuration.
    pub config: Arc<Config>,
    /// The filters that were loaded for it.
    pub filters: Filters,
    /// Their new versions, while these are released.
    pub canaries: Canaries,
    /// The rate limiters of its routes, by the route's name.
    pub route_limiters: RouteLimiters,
    /// TLS and components of the upstreams.
    pub upstream_parts: UpstreamParts,
    /// The upstreams, by name.
    pub upstreams: BTreeMap<String, Arc<Cluster>>,
    router: Router,
    routes: Vec<Route>,
}

/// A route, ready to serve.
pub struct Route {
    /// The route's name.
    pub name: Arc<str>,
    /// Counts the route's exchanges.
    pub series: Arc<RouteSeries>,
    /// The filters, in request order.
    pub chain: Vec<ChainEntry>,
    /// The configuration of the route.
    pub config: witgate_config::Route,
    /// Where requests go, by weight. Empty for a route that answers itself.
    clusters: Vec<WeightedCluster>,
    /// How many requests a client may send in a time.
    pub rate_limit: Option<RateLimit>,
    /// For browsers on other sites.
    pub cors: Option<cors::Policy>,
    /// Exchanges of the route, if their number is bounded.
    pub in_flight: Limiter,
    /// What the exchanges of the route may hold in memory for filters. A reload starts to count at
    /// 0.
    pub budget: Arc<Budget>,
    /// Copies some of the requests to another upstream.
    pub mirror: Option<Mirror>,
    /// Which trailers are removed.
    pub trailers: TrailerRules,
    /// Checks signed tokens.
    pub jwt: Option<TokenPolicy>,
    /// Decides whether a request may pass.
    pub forward_auth: Option<(ForwardAuth, Arc<Cluster>)>,
}

struct WeightedCluster {
    cluster: Arc<Cluster>,
    weight: u32,
}

impl Route {
    /// Picks an upstream at random, by weight. None if the route answers itself.
    pub fn pick_cluster(&self) -> Option<&Cluster> {
        match &self.clusters[..] {
            [] => None,
            [one] => Some(&*one.cluster),
            many => {
                let mut at = fastrand::u32(0..many.iter().map(|one| one.weight).sum::<u32>().max(1));
                let picked = many.iter().find(|one| {
                    let is_picked = at < one.weight;
                    at = at.saturating_sub(one.weight);
                    is_picked
                });
                picked.map(|one| &*one.cluster)
            }
        }
    }
}

impl Snapshot {
    /// Puts together a checked configuration, its loaded filters with their new versions, the rate
    /// limiters, and the known endpoints. An error names what is missing.
    pub fn new(
        config: Arc<Config>,
        (filters, canaries, route_limiters): (Filters, Canaries, RouteLimiters),
        upstream_parts: UpstreamParts,
        registry: &EndpointRegistry,
        metrics: &Metrics,
        (held, key_caches): (&HeldBytes, &KeyCaches),
    ) -> Result<Self, String> {
        let cluster = |(name, settings): (&String, &Upstream)| {
            let (tls, component) = (upstream_parts.tls.get(name), upstream_parts.components.get(name));
            // An upstream with TLS never gets plain text.
            if tls.is_none() && settings.tls.is_some() {
                return Err(format!("the certificates of upstream {name} are not loaded"));
            }
            if component.is_none() && settings.target.component().is_some() {
                return Err(format!("the component of upstream {name} is not loaded"));
            }
            let parts = (tls.cloned(), component.cloned());
            Ok((name.clone(), Arc::new(Cluster::new(name, settings, parts, config.workers, registry))))
        };
        let upstreams: BTreeMap<_, _> = config.upstreams.iter().map(cluster).collect::<Result<_, String>>()?;
        let routes = config
            .routes
            .iter()
            .map(|route| {
                build_route(
                    &config,
                    (&filters, &canaries),
                    &route_limiters,
                    &upstreams,
                    metrics,
                    (held, key_caches),
                    route,
                )
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            router: Router::new(&config.routes),
            routes,
            filters,
            canaries,
            route_limiters,
            upstream_parts,
            upstreams,
            config,
        })
    }

    /// The name and digest of each filter.
    pub fn served_filters(&self) -> impl Iterator<Item = (&str, &str)> {
        self.filters.iter().map(|(name, filter)| (name.as_str(), filter.info.digest.as_str()))
    }

    /// The methods that a request without a route could have had.
    pub fn allowed_methods(&self, request: &Request) -> Vec<&str> {
        self.router.allowed_methods(request)
    }

    /// The route that matches a request.
    ///
    /// # Errors
    ///
    /// The request is too long for a regular expression of the routes.
    pub fn route(&self, request: &Request) -> Result<Option<&Route>, Error> {
        self.router.check(request)?;
        Ok(self.router.find(request).map(|index| &self.routes[index]))
    }
}

fn build_route(
    config: &Config,
    filters: (&Filters, &Canaries),
    limiters: &RouteLimiters,
    upstreams: &BTreeMap<String, Arc<Cluster>>,
    metrics: &Metrics,
    (held, key_caches): (&HeldBytes, &KeyCaches),
    route: &witgate_config::Route,
) -> Result<Route, String> {
    let name: Arc<str> = route.name.as_str().into();
    let cluster = |name: &str| upstreams.get(name).cloned().ok_or_else(|| format!("upstream {name} is not configured"));
    let chain = route.filters.iter().map(|entry| build_entry(config, filters, metrics, entry));
    let clusters = route
        .upstreams()
        .iter()
        .map(|one| Ok(WeightedCluster { cluster: cluster(&one.upstream)?, weight: one.weight }));
    let mirror = route.mirror.as_ref().map(|mirror| {
        Ok::<_, String>(Mirror::new(mirror.percent, cluster(&mirror.upstream)?, metrics.mirrored.clone(), name.clone()))
    });
    let auth = route.forward_auth.as_ref().map(|auth| Ok::<_, String>((auth.clone(), cluster(&auth.upstream)?)));
    let rate_limit = route.rate_limit.as_ref().map(|settings| {
        let limiter = limiters.get(&route.name).ok_or_else(|| format!("route {name} has no rate limiter"))?;
        RateLimit::new(settings, limiter.clone(), metrics.rate_limited.clone(), name.clone())
    });
    let jwt = route.jwt.as_ref().map(|settings| TokenPolicy::new(settings, key_caches, cluster));
    Ok(Route {
        jwt: jwt.transpose().map_err(|why| format!("route {name}: jwt: {why}"))?,
        forward_auth: auth.transpose()?,
        rate_limit: rate_limit.transpose()?,
        series: Arc::new(metrics.route(name.clone())),
        chain: chain.collect::<Result<_, String>>()?,
        clusters: clusters.collect::<Result<_, String>>()?,
        cors: route.cors.as_ref().map(cors::Policy::new),
        in_flight: Limiter::default(),
        budget: Arc::new(Budget::new(held, bounds(config, route))),
        mirror: mirror.transpose()?,
        trailers: TrailerRules::new(config, route),
        config: route.clone(),
        name,
    })
}

/// What the exchanges of a route may hold in memory.
fn bounds(config: &Config, route: &witgate_config::Route) -> HeldLimits {
    let limits = &config.limits;
    HeldLimits {
        all: limits.buffered_bytes,
        route: route.limits.buffered_bytes.unwrap_or_else(|| limits.buffered_bytes_of_route()),
        client: limits.buffered_bytes_per_client,
    }
}

fn build_entry(
    config: &Config,
    (filters, canaries): (&Filters, &Canaries),
    metrics: &Metrics,
    entry: &witgate_config::RouteFilter,
) -> Result<ChainEntry, String> {
    let name = &entry.filter;
    let filter = filters.get(name).ok_or_else(|| format!("filter {name} is not loaded"))?;
    let settings = config.filters.get(name).ok_or_else(|| format!("filter {name} is not configured"))?;
    let on_error = if settings.on_error == OnError::Open { "open" } else { "closed" };
    let route_config = |filter: &Filter| {
        let mut config = entry.config.clone().into_inner();
        if let Some(manifest) = &filter.info.manifest {
            manifest.add_defaults(&mut config);
        }
        Arc::new(config)
    };
    let canary = canaries.get(name).map(|Canary { filter, traffic }| {
        let (series, config) = (new_series(metrics, filter, on_error), route_config(filter));
        let shadow_counters = metrics.shadow(name);
        Box::new(CanaryEntry { filter: filter.clone(), config, series, traffic: traffic.clone(), shadow_counters })
    });
    Ok(ChainEntry {
        filter: filter.clone(),
        when: entry.matches.clone(),
        config: route_config(filter),
        on_error: settings.on_error,
        series: new_series(metrics, filter, on_error),
        canary,
    })
}

fn new_series(metrics: &Metrics, filter: &Filter, on_error: &'static str) -> Arc<FilterSeries> {
    let (name, version, digest) = (filter.settings.name.clone(), filter.version.clone(), filter.short_digest.clone());
    Arc::new(metrics.filter(name, version, digest, on_error))
}

/// What the gateways share about releases, by the filter's name.
pub type SharedReleases = Mutex<HashMap<String, StoreView>>;

/// What the decision store of one filter had when it was read last.
#[derive(Debug, Clone)]
pub struct StoreView {
    /// The name of the store.
    pub store: String,
    /// Why it does not answer.
    pub error: Option<String>,
    /// The gateways that use it.
    pub gateways: Vec<GatewayNotice>,
}

/// What all threads share.
pub struct Shared {
    /// The name of this gateway among those that share a store: `HOST/PROCESS`.
    pub gateway_name: String,
    /// What the gateways share about releases.
    pub shared_releases: SharedReleases,
    /// Replaced as a whole by a reload.
    pub snapshot: ArcSwap<Snapshot>,
    /// The versions of the filters. Held during a swap, so that no swap undoes another.
    pub releases: Mutex<Releases>,
    /// The sources of filters on servers.
    pub sources: Arc<RemoteSources>,
    /// Notified after each swap.
    pub swapped: tokio::sync::watch::Sender<()>,
    /// What is known of the endpoints. It outlives snapshots.
    pub registry: EndpointRegistry,
    /// TLS of the listeners, in the order of the configuration. None for a plain-text listener.
    pub listener_tls: Vec<Option<Arc<ServerTls>>>,
    /// The certificates in service, for operators.
    pub certificates: CertificateList,
    /// The metrics.
    pub metrics: Metrics,
    /// Where records of exchanges go. It has the same metrics.
    pub telemetry: Telemetry,
    /// What became of the last reloads.
    pub reloads: ReloadStatus,
    /// Exchanges whose response has not been sent completely.
    pub in_flight: Limiter,
    /// Client connections.
    pub connections: Limiter,
    /// Connections and exchanges, by client.
    pub clients: Arc<Clients>,
    /// Notified when a thread needs room for a connection and has no idle one to evict.
    pub needs_room: tokio::sync::watch::Sender<()>,
    /// The limit of open files.
    pub files_max: usize,
    /// Bytes of bodies in memory for filters.
    pub held: HeldBytes,
    /// Checks of the passwords of `basic_auth`.
    pub passwords: PasswordChecks,
    /// The keys of the issuers of tokens.
    pub key_caches: KeyCaches,
    /// Runs the filters, and knows how many instances there are.
    pub engine: Engine,
    /// True once the gateway is about to drain and still accepts connections.
    pub leaving: AtomicBool,
    /// True once the gateway stops accepting connections.
    pub draining: tokio::sync::watch::Sender<bool>,
}

impl Shared {
    /// Puts a new state in place. Exchanges in flight finish with the old one.
    pub fn swap(&self, snapshot: Snapshot) {
        let snapshot = Arc::new(snapshot);
        self.snapshot.store(snapshot.clone());
        Cluster::retain_used(&self.registry, snapshot.upstreams.values());
        self.swapped.send_replace(());
    }
}
