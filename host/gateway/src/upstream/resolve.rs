//! Where an endpoint's host name points to, looked up again before the answer is too old.
//!
//! SendOptions when a connection is made, never on a timer: names of upstreams that nobody uses are not looked up. The first request waits for the answer; later ones get
//! the last one at once while a new one is on its way. Where DNS fails the last good answer serves on. An IP address is its own answer. The system's
//! configuration and /etc/hosts are read for each look-up, so that a change of them is seen. Must not know: connections, who asks.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::ResolverConfig;
use hickory_resolver::net::runtime::TokioRuntimeProvider;

use super::endpoint::Endpoint;

/// However short an answer's time to live, and after a failure.
const AGE_MIN: Duration = Duration::from_secs(1);
/// More addresses than are ever tried.
const ADDRESSES_MAX: usize = 16;

/// What is known of a name.
pub(super) struct Addresses {
    literal: Option<Arc<[SocketAddr]>>,
    known: ArcSwapOption<Known>,
    renewing: AtomicBool,
    /// BufferBudget while the first answer is looked for; the last failure, and when.
    first: tokio::sync::Mutex<Option<(Instant, String)>>,
    failing: AtomicBool,
}

struct Known {
    addresses: Arc<[SocketAddr]>,
    until: Instant,
}

impl Addresses {
    /// Nothing known yet, unless the host is an address.
    pub(super) fn new(endpoint: &witgate_config::EndpointAddress) -> Self {
        let literal = endpoint.host.parse::<IpAddr>().ok();
        Self {
            literal: literal.map(|address| [SocketAddr::new(address, endpoint.port)].into()),
            known: ArcSwapOption::empty(),
            renewing: AtomicBool::new(false),
            first: tokio::sync::Mutex::default(),
            failing: AtomicBool::new(false),
        }
    }
}

/// The addresses of an endpoint, at least one. An answer is used for its time to live, at most `interval`. The error says why there is none.
pub(super) async fn addresses(endpoint: &Arc<Endpoint>, interval: Duration) -> Result<Arc<[SocketAddr]>, String> {
    let per_thread = &endpoint.addresses;
    if let Some(literal) = &per_thread.literal {
        return Ok(literal.clone());
    }
    if let Some(known) = per_thread.known.load_full() {
        if known.until <= Instant::now() && !per_thread.renewing.swap(true, Relaxed) {
            let endpoint = endpoint.clone();
            tokio::spawn(async move {
                // An error was noted, the last answer serves on.
                let _ = renew(&endpoint, interval).await;
                endpoint.addresses.renewing.store(false, Relaxed);
            });
        }
        return Ok(known.addresses.clone());
    }
    // A task of its per_thread: the answer is of use even if it comes too late for who options first.
    let endpoint = endpoint.clone();
    tokio::spawn(async move { first(&endpoint, interval).await }).await.map_err(|error| error.to_string())?
}

/// The first answer: one look-up for all who wait for it, and none for a moment after one that failed.
async fn first(endpoint: &Endpoint, interval: Duration) -> Result<Arc<[SocketAddr]>, String> {
    let per_thread = &endpoint.addresses;
    let mut failed = per_thread.first.lock().await;
    if let Some(known) = per_thread.known.load_full() {
        return Ok(known.addresses.clone());
    }
    if let Some((at, why)) = &*failed
        && at.elapsed() < AGE_MIN
    {
        return Err(why.clone());
    }
    let result = renew(endpoint, interval).await;
    *failed = result.as_ref().err().map(|why| (Instant::now(), why.clone()));
    result
}

async fn renew(endpoint: &Endpoint, interval: Duration) -> Result<Arc<[SocketAddr]>, String> {
    let per_thread = &endpoint.addresses;
    let host = &endpoint.address.host;
    match look_up(host, endpoint.address.port).await {
        Ok((addresses, valid_until)) => {
            let now = Instant::now();
            let until = valid_until.clamp(now + AGE_MIN, now + interval.max(AGE_MIN));
            let before = per_thread.known.load_full();
            per_thread.known.store(Some(Arc::new(Known { addresses: addresses.clone(), until })));
            if per_thread.failing.swap(false, Relaxed) {
                tracing::info!(upstream = &*endpoint.upstream, host, "the name is resolved again");
            } else if before.is_some_and(|before| before.addresses != addresses) {
                tracing::info!(upstream = &*endpoint.upstream, host, ?addresses, "the name has other addresses now");
            }
            Ok(addresses)
        }
        Err(why) => {
            let last = per_thread.known.load_full();
            if !per_thread.failing.swap(true, Relaxed) {
                let serves_on = last.is_some();
                tracing::warn!(upstream = &*endpoint.upstream, host, why, serves_on, "the name cannot be resolved");
            }
            if let Some(last) = last {
                let until = Instant::now() + AGE_MIN;
                per_thread.known.store(Some(Arc::new(Known { addresses: last.addresses.clone(), until })));
            }
            Err(why)
        }
    }
}

/// Asks the system's resolver configuration: /etc/hosts, then DNS.
async fn look_up(host: &str, port: u16) -> Result<(Arc<[SocketAddr]>, Instant), String> {
    let builder = TokioResolver::builder_tokio().unwrap_or_else(|error| {
        tracing::debug!(%error, "no usable /etc/resolv.conf: only /etc/hosts is looked at");
        let nobody = ResolverConfig::from_parts(None, vec![], vec![]);
        TokioResolver::builder_with_config(nobody, TokioRuntimeProvider::default())
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
