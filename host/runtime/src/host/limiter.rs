//! `limiter`: checks the bounds of the contract and asks the filter's limiter.
//!
//! The function is asynchronous for the same reason as those of `keyvalue`. This module does not
//! know: where counts are kept.

use wasmtime::Result;

use crate::bindings::witgate::gateway::limiter;
use crate::filter::CallState;
use crate::keyvalue::check_key;
use crate::limiter::{Algorithm, LimiterError, Policy};

impl limiter::Host for CallState {
    async fn take(
        &mut self,
        key: String,
        cost: u32,
        policy: limiter::Policy,
    ) -> Result<Result<limiter::Decision, limiter::Error>> {
        let result = take(self, key, cost, &policy).await;
        Ok(self.limiter_calls.count(result))
    }
}

async fn take(
    state: &mut CallState,
    key: String,
    cost: u32,
    policy: &limiter::Policy,
) -> Result<limiter::Decision, limiter::Error> {
    check_key(&key).map_err(|_| limiter::Error::TooLarge)?;
    let algorithm = match policy.algorithm {
        limiter::Algorithm::SlidingWindow => Algorithm::SlidingWindow,
        limiter::Algorithm::TokenBucket => Algorithm::TokenBucket,
    };
    let policy =
        Policy::new(algorithm, policy.limit, policy.window_ms, policy.burst).map_err(limiter::Error::Invalid)?;
    policy.check_cost(cost).map_err(limiter::Error::Invalid)?;
    let decision = match state.replayed() {
        Some(replay) => replay.decide(&key, cost, &policy),
        None => state.filter.settings.limiter.take(&key, cost, &policy).wait().await?,
    };
    if let Some(record) = state.recorded() {
        record.record_decision(&key, cost, &policy, decision);
    }
    Ok(limiter::Decision {
        allowed: decision.allowed,
        remaining: decision.remaining,
        reset_ms: decision.reset_ms,
        retry_after_ms: decision.retry_after_ms,
    })
}

impl From<LimiterError> for limiter::Error {
    fn from(error: LimiterError) -> Self {
        match error {
            LimiterError::TooLarge => Self::TooLarge,
            LimiterError::Unavailable(why) => Self::Unavailable(why),
        }
    }
}
