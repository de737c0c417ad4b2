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
        if check_key(&key).is_err() {
            return Ok(Err(limiter::Error::TooLarge));
        }
        let algorithm = match policy.algorithm {
            limiter::Algorithm::SlidingWindow => Algorithm::SlidingWindow,
            limiter::Algorithm::TokenBucket => Algorithm::TokenBucket,
        };
        let policy = match Policy::new(algorithm, policy.limit, policy.window_ms, policy.burst) {
            Ok(policy) => policy,
            Err(why) => return Ok(Err(limiter::Error::Invalid(why))),
        };
        if let Err(why) = policy.check_cost(cost) {
            return Ok(Err(limiter::Error::Invalid(why)));
        }
        let decision = match self.filter.settings.limiter.take(&key, cost, &policy).wait().await {
            Ok(decision) => decision,
            Err(error) => return Ok(Err(error.into())),
        };
        Ok(Ok(limiter::Decision {
            allowed: decision.allowed,
            remaining: decision.remaining,
            reset_ms: decision.reset_ms,
            retry_after_ms: decision.retry_after_ms,
        }))
    }
}

impl From<LimiterError> for limiter::Error {
    fn from(error: LimiterError) -> Self {
        match error {
            LimiterError::TooLarge => Self::TooLarge,
            LimiterError::Unavailable(why) => Self::Unavailable(why),
        }
    }
}
