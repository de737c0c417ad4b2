//! What filters keep between calls: the key-value stores and rate limiters of the gateway.
//!
//! A store outlives the versions of its filter, so a new release finds the entries of the last.
//! This module does not know: how filters are loaded or called.

mod limiter;
mod redis;

use std::collections::HashMap;
use std::sync::Arc;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use self::redis::{Leases, RedisClient, RedisKeyValue, RedisLimiter};
use crate::net::tls::ClientTls;
use crate::telemetry::Metrics;
pub use limiter::MemoryLimiter;
pub use redis::{NOTICE_BYTES_MAX, Notices, RedisDecisions};
use witgate_config::{Config, Filter, Route, StoreRef};
use witgate_runtime::keyvalue::KeyValue;
use witgate_runtime::limiter::RateLimiter;
use witgate_runtime::memory_store::{Limits, MemoryStore};

/// Keys that the rate limit of a route counts in memory.
const ROUTE_KEYS_MAX: usize = 100_000;

/// TLS of the shared stores that use it, by the store's name.
pub type StoreTls = HashMap<String, Arc<ClientTls>>;

/// The rate limiters of the routes that have one, by the route's name.
pub type RouteLimiters = HashMap<String, Arc<dyn RateLimiter>>;

/// All stores: what each filter and route has in memory, and the connections to shared stores.
#[derive(Default)]
pub struct Stores {
    filters: HashMap<String, InMemory>,
    routes: HashMap<String, Arc<MemoryLimiter>>,
    shared: HashMap<String, Arc<RedisClient>>,
    /// Runs the connections, once there is one.
    thread: Option<StoreThread>,
}

/// What a filter keeps between calls.
#[derive(Clone)]
pub struct FilterState {
    /// Its key-value store.
    pub store: Arc<dyn KeyValue>,
    /// Its rate limiter.
    pub limiter: Arc<dyn RateLimiter>,
}

struct InMemory {
    store: Arc<MemoryStore>,
    limiter: Arc<MemoryLimiter>,
    limiter_keys: usize,
}

/// A thread with a runtime, which ends when this is dropped.
struct StoreThread {
    handle: Handle,
    _end: oneshot::Sender<()>,
}

impl Stores {
    /// Begins to connect to the shared stores of a configuration. A store whose settings are
    /// unchanged keeps its connection.
    ///
    /// # Errors
    ///
    /// The system provides no thread for the connections.
    pub fn connect(&mut self, config: &Config, tls: &StoreTls, metrics: &Metrics) -> Result<(), String> {
        for (name, settings) in &config.stores {
            let tls = tls.get(name);
            if self.shared.get(name).is_some_and(|client| client.serves(settings, tls)) {
                continue;
            }
            // Never send a password in plain text to a server that should have TLS.
            if tls.is_none() && settings.redis.tls.is_some() {
                return Err(format!("the certificates of store {name} are not loaded"));
            }
            let thread = match self.thread.take() {
                Some(thread) => thread,
                None => StoreThread::start().map_err(|error| format!("the thread of the stores: {error}"))?,
            };
            let client = RedisClient::new(name, settings.clone(), tls.cloned(), metrics.store(name));
            thread.handle.spawn(RedisClient::keep_connected(Arc::downgrade(&client)));
            self.thread = Some(thread);
            self.shared.insert(name.clone(), client);
        }
        Ok(())
    }

    /// The state of a filter. [`Self::connect`] must have seen its shared stores.
    pub fn filter(&mut self, name: &str, filter: &Filter) -> FilterState {
        let limits = Limits { keys_max: filter.keyvalue.keys, bytes_max: filter.keyvalue.bytes };
        let (store, limiter) = self.in_memory(name, limits, filter.limiter.keys);
        FilterState {
            store: match self.shared(name, filter.keyvalue.store.as_ref()) {
                None => store,
                Some((client, namespace)) => {
                    Arc::new(RedisKeyValue { client, namespace, keys_max: limits.keys_max, local: store })
                }
            },
            limiter: match self.shared(name, filter.limiter.store.as_ref()) {
                None => limiter,
                Some((client, namespace)) => {
                    let prefix = format!("witgate:f:{namespace}:l:").into();
                    redis_limiter(client, prefix, limiter, filter.limiter.lease)
                }
            },
        }
    }

    /// The limiters of all routes that have a rate limit.
    pub fn routes(&mut self, config: &Config) -> RouteLimiters {
        let limited = config.routes.iter().filter(|route| route.rate_limit.is_some());
        limited.map(|route| (route.name.clone(), self.route(route))).collect()
    }

    /// Where gateways share decisions about the releases of each filter whose `release.store` is
    /// one of these.
    pub fn decision_stores(&self, config: &Config) -> Vec<(String, RedisDecisions)> {
        let of_filter = |(name, filter): (&String, &Filter)| {
            let client = self.shared.get(filter.release.as_ref()?.store.as_ref()?.shared()?)?.clone();
            Some((name.clone(), RedisDecisions { client, key: format!("witgate:release:{name}").into() }))
        };
        config.filters.iter().filter_map(of_filter).collect()
    }

    fn route(&mut self, route: &Route) -> Arc<dyn RateLimiter> {
        let new = || Arc::new(MemoryLimiter::new(ROUTE_KEYS_MAX));
        let local = self.routes.entry(route.name.clone()).or_insert_with(new).clone();
        let store = route.rate_limit.as_ref().and_then(|rate_limit| rate_limit.store.as_ref());
        match store.and_then(|name| self.shared.get(name)) {
            None => local,
            Some(client) => {
                let prefix = format!("witgate:r:{}:l:", route.name).into();
                redis_limiter(client.clone(), prefix, local, route.rate_limit.as_ref().and_then(|own| own.lease))
            }
        }
    }

    /// Creates it if there is none, or if its limits differ: to shrink a store in use, the gateway
    /// would have to choose entries to remove.
    fn in_memory(
        &mut self,
        filter: &str,
        limits: Limits,
        limiter_keys: usize,
    ) -> (Arc<MemoryStore>, Arc<MemoryLimiter>) {
        let new_store = || Arc::new(MemoryStore::new(limits));
        let new_limiter = || Arc::new(MemoryLimiter::new(limiter_keys));
        let own = self.filters.entry(filter.to_owned()).or_insert_with(|| InMemory {
            store: new_store(),
            limiter: new_limiter(),
            limiter_keys,
        });
        if own.store.limits() != limits {
            own.store = new_store();
        }
        if own.limiter_keys != limiter_keys {
            (own.limiter, own.limiter_keys) = (new_limiter(), limiter_keys);
        }
        (own.store.clone(), own.limiter.clone())
    }

    fn shared(&self, filter: &str, store: Option<&StoreRef>) -> Option<(Arc<RedisClient>, Arc<str>)> {
        let store = store?;
        let client = self.shared.get(&store.store)?.clone();
        Some((client, store.namespace.as_deref().unwrap_or(filter).into()))
    }

    /// Drops what this configuration does not contain.
    pub fn retain(&mut self, config: &Config, metrics: &Metrics) {
        self.filters.retain(|name, _| config.filters.contains_key(name));
        self.routes.retain(|name, _| config.routes.iter().any(|route| route.name == *name));
        self.shared.retain(|name, _| {
            let is_configured = config.stores.contains_key(name);
            if !is_configured {
                metrics.forget_store(name);
            }
            is_configured
        });
    }
}

fn redis_limiter(
    client: Arc<RedisClient>,
    prefix: Arc<str>,
    local: Arc<MemoryLimiter>,
    lease: Option<u32>,
) -> Arc<dyn RateLimiter> {
    let leases = lease.map(|units| Leases::new(units, client.settings.timeout));
    Arc::new(RedisLimiter { client, prefix, local, leases })
}

impl StoreThread {
    fn start() -> std::io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (end, ended) = oneshot::channel::<()>();
        std::thread::Builder::new().name("stores".into()).spawn(move || {
            // Returns an error when the sender is dropped, which is the sign to end.
            let _ = runtime.block_on(ended);
        })?;
        Ok(Self { handle, _end: end })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> anyhow::Result<Config> {
        let text = format!("upstreams: {{u: {{builtin: echo}}}}\nroutes: [{{upstream: u}}]\n{text}");
        Config::parse(&text, "f", std::path::Path::new("/")).map_err(|errors| anyhow::anyhow!("{errors}"))
    }

    #[test]
    fn a_filter_keeps_its_store_while_its_limits_stay() -> anyhow::Result<()> {
        let config = parse("filters: {a: {source: a, keyvalue: {keys: 2}}, b: {source: b, keyvalue: {keys: 3}}}")?;
        let (a, b) = (&config.filters["a"], &config.filters["b"]);
        let same = |one: &FilterState, other: &FilterState| Arc::ptr_eq(&one.store, &other.store);
        let mut stores = Stores::default();
        let first = stores.filter("a", a);
        assert!(same(&first, &stores.filter("a", a)));
        assert!(Arc::ptr_eq(&first.limiter, &stores.filter("a", a).limiter));
        assert!(!same(&first, &stores.filter("b", a)));
        assert!(!same(&first, &stores.filter("a", b)));
        assert!(Arc::ptr_eq(&first.limiter, &stores.filter("a", b).limiter), "the limiter has a bound of its own");
        stores.filter("c", b);
        stores.retain(&config, &Metrics::new());
        assert_eq!(stores.filters.len(), 2);
        Ok(())
    }

    #[test]
    fn a_shared_store_that_cannot_be_reached_fails_as_the_operator_says() -> anyhow::Result<()> {
        for (on_failure, expected) in [("error", None), ("local", Some(Some(b"v".to_vec()))), ("open", Some(None))] {
            let config = parse(&format!(
                "stores: {{s: {{redis: {{url: \"redis://127.0.0.1:1\"}}, on_failure: {on_failure}}}}}\n\
                 filters: {{a: {{source: a, keyvalue: {{store: s}}, limiter: {{store: s}}}}}}"
            ))?;
            let mut stores = Stores::default();
            stores.connect(&config, &StoreTls::new(), &Metrics::new()).map_err(anyhow::Error::msg)?;
            let state = stores.filter("a", &config.filters["a"]);
            let runtime = Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let set = state.store.set("k", b"v", None).wait().await;
                assert_eq!(set.is_ok(), expected.is_some(), "{on_failure}: {set:?}");
                assert_eq!(state.store.get("k").wait().await.ok(), expected, "{on_failure}");
            });
        }
        Ok(())
    }
}
