//! The running state as one immutable value: what a request sees from its first byte to its last.
//!
//! A reload builds a new snapshot beside the old one and swaps a pointer; exchanges in flight keep theirs, so a version is never changed
//! under a request, and an old filter's memory goes when its last exchange does. No I/O here. Must not know: how changes are noticed, how connections are served.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use arc_swap::ArcSwap;

use crate::net::tls::ClientTls;
use crate::pipeline::cors;
use crate::pipeline::filters::Link;
use crate::pipeline::limits::InFlight;
use crate::pipeline::mirror::Mirror;
use crate::pipeline::route::Router;
use crate::telemetry::{Metrics, RouteCounts};
use crate::tls::ServerTls;
use crate::upstream::{Cluster, EndpointRegistry};
use witgate_config::{Config, Upstream};
use witgate_http::body::BufferBudget;
use witgate_runtime::engine::Engine;
use witgate_runtime::exchange::Request;
use witgate_runtime::filter::Filter;

/// The filters of a configuration, by name.
pub type Filters = HashMap<String, Arc<Filter>>;

/// TLS of the upstreams that have it, by name.
pub type Clients = HashMap<String, Arc<ClientTls>>;

/// One consistent state of the gateway.
pub struct Snapshot {
    /// What was asked for.
    pub config: Arc<Config>,
    /// What was loaded for it.
    pub filters: Filters,
    /// How to speak TLS to its upstreams.
    pub clients: Clients,
    /// Its upstreams, by name.
    pub upstreams: BTreeMap<String, Arc<Cluster>>,
    router: Router,
    routes: Vec<Route>,
}

/// A route, ready to serve.
pub struct Route {
    /// For logs, metrics and filters.
    pub name: Arc<str>,
    /// In request order.
    pub chain: Vec<Link>,
    /// What was asked for: how it matches, what it rewrites.
    pub config: witgate_config::Route,
    /// Where requests go, by weight; empty where the route answers itself.
    forwards: Vec<Forward>,
    /// For browsers on other sites.
    pub cors: Option<cors::Policy>,
    /// How many exchanges it may have at once.
    pub in_flight: Option<InFlight>,
    /// Of its exchanges.
    pub counts: RouteCounts,
    /// Which requests are copied, and where the copies go.
    pub mirror: Option<(Mirror, Arc<Cluster>)>,
}

/// An upstream of a route.
pub struct Forward {
    /// Where it is.
    pub upstream: Arc<Cluster>,
    /// Its share.
    weight: u32,
}

impl Route {
    /// Where this request goes; none where the route answers itself.
    pub fn forward(&self) -> Option<&Forward> {
        match &self.forwards[..] {
            [] => None,
            [one] => Some(one),
            many => {
                let mut at = fastrand::u32(0..many.iter().map(|one| one.weight).sum::<u32>().max(1));
                many.iter().find(|one| {
                    let taken = at < one.weight;
                    at = at.saturating_sub(one.weight);
                    taken
                })
            }
        }
    }
}

impl Snapshot {
    /// Puts a checked configuration, its loaded filters and what is known of its endpoints together; an error names a filter that is missing.
    pub fn new(config: Arc<Config>, filters: Filters, clients: Clients, registry: &EndpointRegistry) -> Result<Self, String> {
        let cluster = |(name, settings): (&String, &Upstream)| {
            let tls = clients.get(name).cloned();
            // Never plain text where TLS was asked for.
            if tls.is_none() && settings.tls.is_some() {
                return Err(format!("the certificates of upstream {name} are not loaded"));
            }
            Ok((name.clone(), Arc::new(Cluster::new(name, settings, tls, config.workers, registry))))
        };
        let upstreams: BTreeMap<_, _> = config.upstreams.iter().map(cluster).collect::<Result<_, String>>()?;
        let routes = config
            .routes
            .iter()
            .map(|route| build_route(&config, &filters, &upstreams, route))
            .collect::<Result<_, _>>()?;
        Ok(Self { router: Router::new(&config.routes), routes, filters, clients, upstreams, config })
    }

    /// The route that takes a request.
    pub fn route(&self, request: &Request) -> Option<&Route> {
        self.router.find(request).map(|index| &self.routes[index])
    }
}

fn build_route(
    config: &Config,
    filters: &Filters,
    upstreams: &BTreeMap<String, Arc<Cluster>>,
    route: &witgate_config::Route,
) -> Result<Route, String> {
    let chain = route.filters.iter().map(|link| {
        let filter = filters.get(&link.filter).ok_or_else(|| format!("filter {} is not loaded", link.filter))?;
        let settings =
            config.filters.get(&link.filter).ok_or_else(|| format!("filter {} is not configured", link.filter))?;
        Ok(Link {
            filter: filter.clone(),
            when: link.matches.clone(),
            config: Arc::new(link.config.clone()),
            on_error: settings.on_error,
            counts: Default::default(),
        })
    });
    let cluster = |name: &str| upstreams.get(name).cloned().ok_or_else(|| format!("upstream {name} is not configured"));
    let forwards =
        route.upstreams().iter().map(|one| Ok(Forward { upstream: cluster(&one.upstream)?, weight: one.weight }));
    let mirror =
        route.mirror.as_ref().map(|mirror| Ok::<_, String>((Mirror::new(mirror.percent), cluster(&mirror.upstream)?)));
    Ok(Route {
        name: route.name.as_str().into(),
        chain: chain.collect::<Result<_, String>>()?,
        forwards: forwards.collect::<Result<_, String>>()?,
        cors: route.cors.as_ref().map(cors::Policy::new),
        in_flight: route.limits.in_flight.map(InFlight::new),
        counts: RouteCounts::default(),
        mirror: mirror.transpose()?,
        config: route.clone(),
    })
}

/// What all threads share.
pub struct Shared {
    /// Swapped whole by a reload.
    pub snapshot: ArcSwap<Snapshot>,
    /// Told after each swap.
    pub swapped: tokio::sync::watch::Sender<()>,
    /// What is known of the endpoints; outlives snapshots.
    pub registry: EndpointRegistry,
    /// TLS of the listeners, in the order of the configuration's; none where one speaks plain text.
    pub listener_tls: Vec<Option<Arc<ServerTls>>>,
    /// Counted everywhere.
    pub metrics: Metrics,
    /// Exchanges that are not finished.
    pub in_flight: AtomicUsize,
    /// Client connections.
    pub connections: AtomicUsize,
    /// The same, by client.
    pub clients: Arc<crate::clients::Clients>,
    /// Bodies held in memory for filters.
    pub held: Arc<BufferBudget>,
    /// What runs the filters, and knows how many instances there are.
    pub engine: Engine,
    /// True once the gateway stops accepting.
    pub draining: tokio::sync::watch::Sender<bool>,
}

impl Shared {
    /// Puts a new state in place; exchanges in flight finish on the old one.
    pub fn swap(&self, snapshot: Snapshot) {
        let snapshot = Arc::new(snapshot);
        self.snapshot.store(snapshot.clone());
        self.registry.retain(snapshot.upstreams.values());
        self.swapped.send_replace(());
    }
}
