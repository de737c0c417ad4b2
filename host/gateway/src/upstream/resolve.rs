//! Resolves a name of an upstream to addresses and keeps them until they expire.
//!
//! A look-up starts when a request or a health check needs an address, never on a timer, so names
//! of unused upstreams are not looked up. The first caller waits for the answer. Later callers use
//! the last answer, while a new look-up runs if it has expired. If DNS fails, the last good answer
//! stays in use. The resolver's configuration and /etc/hosts are read for each look-up, so changes
//! of them are seen. This module does not know: connections, who asks.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ProtocolConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::RData;
use hickory_resolver::proto::rr::rdata::SRV;

use witgate_config::{AddressKind, EndpointAddress};

/// The least age at which an answer expires, whatever its time to live is, and the time for which a
/// failure is remembered.
const AGE_MIN: Duration = Duration::from_secs(1);
/// Addresses of one name that are used.
const ADDRESSES_MAX: usize = 64;
/// Targets of SRV records that are looked up.
const SRV_TARGETS_MAX: usize = 64;

/// Servers that resolve names. Empty: those of the system.
pub(super) type Servers = Arc<[SocketAddr]>;

/// Sorted, at least one, all different.
pub(super) type Answer = Arc<[Target]>;

/// An address of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Target {
    pub(super) address: SocketAddr,
    /// Its share beside the other addresses of the name.
    pub(super) weight: u32,
}

/// The addresses of one name, shared by all threads.
pub(super) struct HostAddresses {
    name: EndpointAddress,
    servers: Servers,
    /// The upstream's name, for log lines.
    upstream: Arc<str>,
    resolved: ArcSwapOption<Resolved>,
    is_renewing: AtomicBool,
    /// Locked during the first look-up. Holds the time and the reason of the last failure.
    first_lookup: tokio::sync::Mutex<Option<(Instant, String)>>,
    is_failing: AtomicBool,
}

struct Resolved {
    answer: Answer,
    expires: Instant,
}

impl HostAddresses {
    /// Looks up nothing yet.
    pub(super) fn new(name: &EndpointAddress, upstream: Arc<str>, servers: Servers) -> Self {
        Self {
            name: name.clone(),
            servers,
            upstream,
            resolved: ArcSwapOption::empty(),
            is_renewing: AtomicBool::new(false),
            first_lookup: tokio::sync::Mutex::default(),
            is_failing: AtomicBool::new(false),
        }
    }

    /// The last answer.
    pub(super) fn known(&self) -> Option<Answer> {
        self.resolved.load().as_ref().map(|resolved| resolved.answer.clone())
    }

    /// Starts a look-up if there is no answer or it has expired. An answer is used for its time to
    /// live, at most `age_max`.
    pub(super) fn renew(self: &Arc<Self>, now: Instant, age_max: Duration) {
        let is_fresh = self.resolved.load().as_ref().is_some_and(|resolved| resolved.expires > now);
        if is_fresh || self.is_renewing.swap(true, Relaxed) {
            return;
        }
        let this = self.clone();
        tokio::spawn(async move {
            // A failure is logged, and the last answer stays in use.
            let _ = this.look_up_once(age_max).await;
            this.is_renewing.store(false, Relaxed);
        });
    }

    /// Waits for the first answer. The error says why the name has no address.
    pub(super) async fn resolve(self: &Arc<Self>, age_max: Duration) -> Result<(), String> {
        if self.resolved.load().is_some() {
            return Ok(());
        }
        // A task of its own, so that a caller's timeout does not cancel a look-up that others can
        // use.
        let this = self.clone();
        tokio::spawn(async move { this.look_up_once(age_max).await }).await.map_err(|error| error.to_string())?
    }

    /// Looks up the name unless another caller just did. All callers share one look-up, and for a
    /// moment after a failure no new one starts.
    async fn look_up_once(&self, age_max: Duration) -> Result<(), String> {
        let mut last_failure = self.first_lookup.lock().await;
        if self.resolved.load().as_ref().is_some_and(|resolved| resolved.expires > Instant::now()) {
            return Ok(());
        }
        if let Some((at, why)) = &*last_failure
            && at.elapsed() < AGE_MIN
        {
            return Err(why.clone());
        }
        let result = self.look_up(age_max).await;
        *last_failure = result.as_ref().err().map(|why| (Instant::now(), why.clone()));
        result
    }

    /// Looks up the name, stores the answer and logs what changed.
    async fn look_up(&self, age_max: Duration) -> Result<(), String> {
        let (upstream, host) = (&*self.upstream, &*self.name.host);
        let last = self.known();
        match query(&self.name, &self.servers).await {
            Ok((answer, valid_until)) => {
                let now = Instant::now();
                let expires = valid_until.clamp(now + AGE_MIN, now + age_max.max(AGE_MIN));
                let is_same = last.as_ref().is_some_and(|last| **last == *answer);
                if self.is_failing.swap(false, Relaxed) {
                    tracing::info!(upstream, host, "the name is resolved again");
                } else if last.is_some() && !is_same {
                    let addresses: Vec<_> = answer.iter().map(|target| target.address).collect();
                    tracing::info!(upstream, host, ?addresses, "the name resolves to other addresses");
                }
                // The same value, so that the endpoints are not put together again.
                let answer = last.filter(|_| is_same).unwrap_or_else(|| answer.into());
                self.resolved.store(Some(Arc::new(Resolved { answer, expires })));
                Ok(())
            }
            Err(why) => {
                if !self.is_failing.swap(true, Relaxed) {
                    tracing::warn!(upstream, host, why, serves_on = last.is_some(), "the name cannot be resolved");
                }
                if let Some(answer) = last {
                    let expires = Instant::now() + AGE_MIN;
                    self.resolved.store(Some(Arc::new(Resolved { answer, expires })));
                }
                Err(why)
            }
        }
    }
}

/// Asks /etc/hosts, then DNS. Returns the addresses and the instant at which they expire.
async fn query(name: &EndpointAddress, servers: &[SocketAddr]) -> Result<(Vec<Target>, Instant), String> {
    let resolver = resolver(servers)?;
    let (mut targets, valid_until) = match name.kind {
        AddressKind::Srv => query_services(&resolver, &name.host).await?,
        AddressKind::Host | AddressKind::Unix => {
            let found = resolver.lookup_ip(&*name.host).await.map_err(|error| error.to_string())?;
            let target = |ip| Target { address: SocketAddr::new(ip, name.port), weight: 1 };
            (found.iter().map(target).collect(), found.valid_until())
        }
    };
    // Sorted, so that an answer in another order is the same answer.
    targets.sort_unstable();
    targets.dedup_by_key(|target| target.address);
    targets.truncate(ADDRESSES_MAX);
    if targets.is_empty() { Err(format!("{} has no address", name.host)) } else { Ok((targets, valid_until)) }
}

/// The addresses of the SRV records with the lowest priority (RFC 2782). A target that has no
/// address is left out.
async fn query_services(resolver: &TokioResolver, name: &str) -> Result<(Vec<Target>, Instant), String> {
    let found = resolver.srv_lookup(name).await.map_err(|error| error.to_string())?;
    let mut valid_until = found.valid_until();
    let record = |rdata: &RData| if let RData::SRV(record) = rdata { Some(record.clone()) } else { None };
    let records: Vec<SRV> = found.answers().iter().filter_map(|answer| record(&answer.data)).collect();
    let priority = records.iter().map(|record| record.priority).min();
    let mut targets = vec![];
    for record in records.iter().filter(|record| Some(record.priority) == priority).take(SRV_TARGETS_MAX) {
        // The root as target means that the service does not exist here.
        if record.target.is_root() {
            continue;
        }
        match resolver.lookup_ip(record.target.clone()).await {
            Ok(addresses) => {
                valid_until = valid_until.min(addresses.valid_until());
                let weight = u32::from(record.weight.max(1));
                targets.extend(addresses.iter().map(|ip| Target { address: SocketAddr::new(ip, record.port), weight }));
            }
            Err(error) => tracing::debug!(%error, target = %record.target, "a target of SRV records has no address"),
        }
    }
    Ok((targets, valid_until))
}

fn resolver(servers: &[SocketAddr]) -> Result<TokioResolver, String> {
    let with_config = |servers: Vec<NameServerConfig>| {
        let config = ResolverConfig::from_parts(None, vec![], servers);
        TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
    };
    let builder = if servers.is_empty() {
        TokioResolver::builder_tokio().unwrap_or_else(|error| {
            tracing::debug!(%error, "no usable /etc/resolv.conf: names are looked up in /etc/hosts only");
            with_config(vec![])
        })
    } else {
        with_config(servers.iter().map(|server| name_server(*server)).collect())
    };
    builder.build().map_err(|error| error.to_string())
}

fn name_server(server: SocketAddr) -> NameServerConfig {
    let connection = |protocol| {
        let mut connection = ConnectionConfig::new(protocol);
        connection.port = server.port();
        connection
    };
    let connections = [ProtocolConfig::Udp, ProtocolConfig::Tcp].map(connection).into();
    NameServerConfig::new(server.ip(), true, connections)
}
