//! The rate limit of a route: counts requests by client, and tells clients what remains.
//!
//! The fields `RateLimit-Policy` and `RateLimit` are those of the RFC draft
//! draft-ietf-httpapi-ratelimit-headers; a refusal also has `Retry-After`. Values of headers,
//! cookies and notes are hashed before they become a key: they can be long, and they can be
//! credentials, which do not belong in a store. This module does not know: where requests are
//! counted.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use http::header::{self, HeaderName, HeaderValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

use crate::telemetry::RateLimitLabels;
use crate::upstream::cookie;
use witgate_config::{RateAlgorithm, RateKey};
use witgate_http::error::{Error, Kind};
use witgate_http::semantics::client_network::client_network;
use witgate_runtime::exchange::Exchange;
use witgate_runtime::limiter::{Algorithm, Decision, Policy, RateLimiter};

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
/// Bytes of the hash that stands for a value.
const HASH_BYTES: usize = 16;

/// The rate limit of one route.
pub struct RateLimit {
    key: RateKey,
    policy: Policy,
    limiter: Arc<dyn RateLimiter>,
    policy_field: HeaderValue,
    /// Allowed, limited, unavailable.
    counters: [Counter; 3],
}

impl RateLimit {
    /// Prepares a checked configuration. The error names what does not fit.
    pub fn new(
        settings: &witgate_config::RateLimit,
        limiter: Arc<dyn RateLimiter>,
        decisions: Family<RateLimitLabels, Counter>,
        route: Arc<str>,
    ) -> Result<Self, String> {
        let algorithm = match settings.algorithm {
            RateAlgorithm::SlidingWindow => Algorithm::SlidingWindow,
            RateAlgorithm::TokenBucket => Algorithm::TokenBucket,
        };
        let window_ms = u32::try_from(settings.window.as_millis()).unwrap_or(u32::MAX);
        let policy = Policy::new(algorithm, settings.limit, window_ms, settings.burst.unwrap_or(0))?;
        let seconds = ceil_seconds(window_ms);
        let field = format!("\"default\";q={};w={seconds}", policy.burst().max(policy.limit()));
        let counter = |result| decisions.get_or_create_owned(&RateLimitLabels { route: route.clone(), result });
        Ok(Self {
            key: settings.key.clone(),
            policy,
            limiter,
            policy_field: HeaderValue::try_from(field).map_err(|error| error.to_string())?,
            counters: [counter("allowed"), counter("limited"), counter("unavailable")],
        })
    }

    /// Whether requests are counted by the client's address alone.
    pub fn is_by_address(&self) -> bool {
        self.key == RateKey::ClientIp
    }

    /// Counts a request.
    pub async fn check(&self, exchange: &Exchange) -> Result<Decision, Error> {
        let key = self.key_of(exchange);
        match self.limiter.take(&key, 1, &self.policy).wait().await {
            Ok(decision) => {
                self.counters[usize::from(!decision.allowed)].inc();
                Ok(decision)
            }
            Err(error) => {
                self.counters[2].inc();
                Err(Error::new(Kind::StoreUnavailable, error.to_string()))
            }
        }
    }

    /// Sets the fields of the response to a request that was counted.
    pub fn describe(&self, decision: &Decision, headers: &mut HeaderMap) {
        headers.insert(RATE_LIMIT_POLICY, self.policy_field.clone());
        let field = format!("\"default\";r={};t={}", decision.remaining, ceil_seconds(decision.reset_ms));
        if let Ok(field) = HeaderValue::try_from(field) {
            headers.insert(RATE_LIMIT, field);
        }
        if !decision.allowed {
            headers.insert(header::RETRY_AFTER, ceil_seconds(decision.retry_after_ms).max(1).into());
        }
    }

    fn key_of(&self, exchange: &Exchange) -> String {
        let headers = &exchange.request.headers;
        let found = match &self.key {
            RateKey::ClientIp => None,
            RateKey::Header(name) => headers.get(name).map(|value| hashed('h', value.as_bytes())),
            RateKey::Cookie(name) => cookie(headers, name).map(|value| hashed('c', value)),
            RateKey::Note(name) => {
                exchange.notes.iter().find(|note| *note.name == **name).map(|note| hashed('n', note.value.as_bytes()))
            }
        };
        found.unwrap_or_else(|| format!("i{}", client_network(exchange.client.address.ip())))
    }
}

/// The failure of a request above the limit.
pub fn refusal() -> Error {
    Error::new(Kind::RateLimited, "the request is above the route's rate_limit")
}

fn hashed(kind: char, value: &[u8]) -> String {
    format!("{kind}{}", hex::encode(&blake3::hash(value).as_bytes()[..HASH_BYTES]))
}

fn ceil_seconds(milliseconds: u32) -> u64 {
    Duration::from_millis(milliseconds.into()).as_millis().div_ceil(1000) as u64
}
