//! A rate limiter on a server: one script per decision, with the clock of the server.
//!
//! So gateways with different clocks agree, and all of them together allow exactly what the policy
//! says. With leases a question takes units for later requests, too (`leases.rs`).
//! This module does not know: connections, who asks.

use std::sync::{Arc, LazyLock};
use std::time::Instant;

use redis::Script;
use redis::aio::MultiplexedConnection;

use super::client::RedisClient;
use super::leases::{Leases, Step};
use crate::state::limiter::MemoryLimiter;
use witgate_config::OnStoreFailure;
use witgate_runtime::keyvalue::Outcome;
use witgate_runtime::limiter::{Algorithm, Decision, LimiterError, Policy, RateLimiter};

static TAKE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/take.lua")));

/// The counts below one prefix.
pub(in crate::state) struct RedisLimiter {
    pub(in crate::state) client: Arc<RedisClient>,
    /// Such as `witgate:f:NAMESPACE:l:`.
    pub(in crate::state) prefix: Arc<str>,
    /// Takes the place of the server with `on_failure: local`.
    pub(in crate::state) local: Arc<MemoryLimiter>,
    /// For sliding windows, if the operator wants leases.
    pub(in crate::state) leases: Option<Leases>,
}

impl RedisLimiter {
    async fn decide(&self, key: &str, cost: u32, policy: &Policy) -> Result<Decision, String> {
        let Some(leases) = self.leases.as_ref().filter(|_| policy.algorithm() == Algorithm::SlidingWindow) else {
            return Ok(self.ask(key, cost, policy, cost).await?.1);
        };
        let asked = Instant::now();
        let wanted = match leases.spend(key, cost, policy, asked) {
            Step::Decided(decision) => return Ok(decision),
            Step::Ask(wanted) => wanted,
        };
        let (taken, decision) = self.ask(key, cost, policy, wanted).await?;
        if wanted > cost {
            leases.keep((key, cost, policy), (asked, Instant::now()), taken, &decision);
        }
        Ok(decision)
    }

    /// The units that the server gave, at most `wanted`, and its decision about `cost`.
    async fn ask(&self, key: &str, cost: u32, policy: &Policy, wanted: u32) -> Result<(u32, Decision), String> {
        let is_bucket = policy.algorithm() == Algorithm::TokenBucket;
        let (limit, window, burst) = (policy.limit(), policy.window_ms(), policy.burst());
        let kind = if is_bucket { 'b' } else { 'w' };
        let stored = format!("{}{kind}{limit}/{window}/{burst}:{key}", self.prefix);
        let (lifetime, key_of_call) = (policy.lifetime_ms(), stored.clone());
        let ask = |mut connection: MultiplexedConnection| async move {
            let mut call = TAKE.key(key_of_call);
            call.arg(u8::from(is_bucket)).arg(limit).arg(window).arg(burst).arg(cost).arg(lifetime).arg(wanted);
            call.invoke_async::<(i64, i64, i64, i64, i64)>(&mut connection).await
        };
        let (allowed, remaining, reset, retry, taken) = self.client.run("take", &stored, ask).await?;
        let narrow = |number: i64| u32::try_from(number.clamp(0, u32::MAX.into())).unwrap_or(u32::MAX);
        let decision = Decision {
            allowed: allowed == 1,
            remaining: narrow(remaining).min(burst),
            reset_ms: narrow(reset),
            retry_after_ms: narrow(retry),
        };
        Ok((narrow(taken).min(wanted), decision))
    }
}

impl RateLimiter for RedisLimiter {
    fn take<'a>(&'a self, key: &'a str, cost: u32, policy: &'a Policy) -> Outcome<'a, Decision, LimiterError> {
        Outcome::Pending(Box::pin(async move {
            let why = match self.decide(key, cost, policy).await {
                Ok(decision) => return Ok(decision),
                Err(why) => why,
            };
            match self.client.settings.on_failure {
                OnStoreFailure::Error => Err(LimiterError::Unavailable(why)),
                OnStoreFailure::Local => Ok(self.local.take_now(key, cost, policy)),
                OnStoreFailure::Open => {
                    Ok(Decision { allowed: true, remaining: policy.burst(), reset_ms: 0, retry_after_ms: 0 })
                }
            }
        }))
    }
}
