//! Resolves an endpoint's host name to addresses and keeps them until they expire.
//!
//! A lookup starts when a connection needs an address, never on a timer, so names of unused
//! upstreams are not looked up. The first caller waits for the answer. Later callers get the last
//! answer at once, while a new lookup runs if it has expired. If DNS fails, the last good answer
//! stays in use. The resolver's configuration and /etc/hosts are read for each lookup, so changes
//! of them are seen. This module does not know: connections, who asks.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::ResolverConfig;
use hickory_resolver::net::runtime::TokioRuntimeProvider;

/// The least age at which an answer expires, whatever its time to live is, and the time for which a
/// failure is remembered.
const AGE_MIN: Duration = Duration::from_secs(1);
/// Addresses of one name that are kept. A connection never tries more.
const ADDRESSES_MAX: usize = 16;

/// The addresses of one host, shared by all threads.
pub(super) struct HostAddresses {
    host: String,
    port: u16,
    /// The upstream's name, for log lines.
    upstream: Arc<str>,
    /// Set if the host is an IP address.
    literal: Option<Arc<[SocketAddr]>>,
    resolved: ArcSwapOption<Resolved>,
    is_renewing: AtomicBool,
    /// Locked during the first lookup. Holds the time and the reason of the last failure.
    first_lookup: tokio::sync::Mutex<Option<(Instant, String)>>,
    is_failing: AtomicBool,
}

struct Resolved {
    addresses: Arc<[SocketAddr]>,
    expires: Instant,
}

impl HostAddresses {
    /// Looks up nothing yet.
    pub(super) fn new(host: &str, port: u16, upstream: Arc<str>) -> Self {
        let literal = host.parse::<IpAddr>().ok();
        Self {
            host: host.to_owned(),
            port,
            upstream,
            literal: literal.map(|address| [SocketAddr::new(address, port)].into()),
            resolved: ArcSwapOption::empty(),
            is_renewing: AtomicBool::new(false),
            first_lookup: tokio::sync::Mutex::default(),
            is_failing: AtomicBool::new(false),
        }
    }

    /// Returns at least one address. An answer is used for its time to live, at most `age_max`. The
    /// error says why the host has no address.
    pub(super) async fn get(self: &Arc<Self>, age_max: Duration) -> Result<Arc<[SocketAddr]>, String> {
        if let Some(literal) = &self.literal {
            return Ok(literal.clone());
        }
        if let Some(resolved) = self.resolved.load_full() {
            if resolved.expires <= Instant::now() && !self.is_renewing.swap(true, Relaxed) {
                let this = self.clone();
                tokio::spawn(async move {
                    // `look_up` logs an error, and the last answer stays in use.
                    let _ = this.look_up(age_max).await;
                    this.is_renewing.store(false, Relaxed);
                });
            }
            return Ok(resolved.addresses.clone());
        }
        // A task of its own, so that a caller's timeout does not cancel a lookup that others can
        // use.
        let this = self.clone();
        tokio::spawn(async move { this.look_up_first(age_max).await }).await.map_err(|error| error.to_string())?
    }

    /// Gets the first answer. All callers share one lookup, and for a moment after a failure no new
    /// lookup starts.
    async fn look_up_first(&self, age_max: Duration) -> Result<Arc<[SocketAddr]>, String> {
        let mut last_failure = self.first_lookup.lock().await;
        if let Some(resolved) = self.resolved.load_full() {
            return Ok(resolved.addresses.clone());
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
    async fn look_up(&self, age_max: Duration) -> Result<Arc<[SocketAddr]>, String> {
        let (upstream, host) = (&*self.upstream, &*self.host);
        match query(host, self.port).await {
            Ok((addresses, valid_until)) => {
                let now = Instant::now();
                let expires = valid_until.clamp(now + AGE_MIN, now + age_max.max(AGE_MIN));
                let before = self.resolved.swap(Some(Arc::new(Resolved { addresses: addresses.clone(), expires })));
                if self.is_failing.swap(false, Relaxed) {
                    tracing::info!(upstream, host, "the name is resolved again");
                } else if before.is_some_and(|before| before.addresses != addresses) {
                    tracing::info!(upstream, host, ?addresses, "the name resolves to other addresses");
                }
                Ok(addresses)
            }
            Err(why) => {
                let last = self.resolved.load_full();
                if !self.is_failing.swap(true, Relaxed) {
                    let serves_on = last.is_some();
                    tracing::warn!(upstream, host, why, serves_on, "the name cannot be resolved");
                }
                if let Some(last) = last {
                    let expires = Instant::now() + AGE_MIN;
                    self.resolved.store(Some(Arc::new(Resolved { addresses: last.addresses.clone(), expires })));
                }
                Err(why)
            }
        }
    }
}

/// Asks /etc/hosts, then DNS, as the system's resolver configuration says. Returns the addresses
/// and the instant at which they expire.
async fn query(host: &str, port: u16) -> Result<(Arc<[SocketAddr]>, Instant), String> {
    let builder = TokioResolver::builder_tokio().unwrap_or_else(|error| {
        tracing::debug!(%error, "no usable /etc/resolv.conf: names are looked up in /etc/hosts only");
        let no_servers = ResolverConfig::from_parts(None, vec![], vec![]);
        TokioResolver::builder_with_config(no_servers, TokioRuntimeProvider::default())
    });
    let resolver = builder.build().map_err(|error| error.to_string())?;
    let found = resolver.lookup_ip(host).await.map_err(|error| error.to_string())?;
    let mut addresses: Vec<SocketAddr> = vec![];
    for address in found.iter().map(|address| SocketAddr::new(address, port)).take(ADDRESSES_MAX) {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    if addresses.is_empty() {
        return Err(format!("{host} has no address"));
    }
    Ok((addresses.into(), found.valid_until()))
}
