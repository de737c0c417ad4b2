//! The rate limiter that the gateway provides to filters, its policies, and their arithmetic.
//!
//! [`Policy::decide`] is the arithmetic of both algorithms as a pure function over the few numbers
//! that a key has. The limiter in memory calls it; a remote limiter computes the same in a script,
//! so all intermediate values stay below 2^53, which a script's floating-point numbers hold
//! exactly. This module does not know: WIT, where counts are kept, clocks.

use std::fmt;

use crate::keyvalue::Outcome;

/// The most units of a policy.
pub const UNITS_MAX: u32 = 1_000_000;
/// The longest window in milliseconds: 31 days.
pub const WINDOW_MS_MAX: u32 = 31 * 24 * 60 * 60 * 1000;

/// The limiter of one filter or route. All threads share it.
pub trait RateLimiter: Send + Sync {
    /// Takes units of a key if the policy allows it; atomic. `cost` has passed
    /// [`Policy::check_cost`]. Each combination of key and policy has a count of its own.
    fn take<'a>(&'a self, key: &'a str, cost: u32, policy: &'a Policy) -> Outcome<'a, Decision, LimiterError>;
}

/// How units are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// Two windows, of which the previous one counts by the share that is still covered.
    SlidingWindow,
    /// A bucket that fills evenly.
    TokenBucket,
}

/// A limit whose numbers are within their bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Policy {
    algorithm: Algorithm,
    limit: u32,
    window_ms: u32,
    burst: u32,
}

/// The decision about a request for units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// Whether the units were taken.
    pub allowed: bool,
    /// The units that can be taken at this moment.
    pub remaining: u32,
    /// Milliseconds until the current window ends, or until the bucket is full.
    pub reset_ms: u32,
    /// Milliseconds until the same request can succeed; 0 if it was allowed.
    pub retry_after_ms: u32,
}

/// Why there is no decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LimiterError {
    /// The key is too large.
    TooLarge,
    /// The store cannot be reached; the text says why.
    Unavailable(String),
}

impl fmt::Display for LimiterError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge => formatter.write_str("the key is too large"),
            Self::Unavailable(why) => write!(formatter, "the store cannot be reached: {why}"),
        }
    }
}

impl std::error::Error for LimiterError {}

/// What is kept for a key. The default is that of a key that was never used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Sliding window: when the current window began. Token bucket: when the level was computed.
    /// Milliseconds of any clock.
    since_ms: u64,
    /// Sliding window: units of the current window. Token bucket: what is missing in the bucket,
    /// multiplied by `window_ms`.
    used: u64,
    /// Units of the previous window.
    previous: u64,
}

impl Policy {
    /// A policy. A `burst` of 0 stands for `limit`.
    ///
    /// # Errors
    ///
    /// A number is out of bounds; the text says which.
    pub fn new(algorithm: Algorithm, limit: u32, window_ms: u32, burst: u32) -> Result<Self, String> {
        let burst = if burst == 0 || algorithm == Algorithm::SlidingWindow { limit } else { burst };
        for (name, value, max) in
            [("limit", limit, UNITS_MAX), ("burst", burst, UNITS_MAX), ("window-ms", window_ms, WINDOW_MS_MAX)]
        {
            if value == 0 || value > max {
                return Err(format!("the policy's {name} is {value}, which is not between 1 and {max}"));
            }
        }
        Ok(Self { algorithm, limit, window_ms, burst })
    }

    /// How units are counted.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Units in a window.
    pub fn limit(&self) -> u32 {
        self.limit
    }

    /// The length of the window in milliseconds.
    pub fn window_ms(&self) -> u32 {
        self.window_ms
    }

    /// The most units that one call can take.
    pub fn burst(&self) -> u32 {
        self.burst
    }

    /// Checks that the policy can ever allow a cost.
    ///
    /// # Errors
    ///
    /// It cannot; the text says so.
    pub fn check_cost(&self, cost: u32) -> Result<(), String> {
        if cost <= self.burst {
            return Ok(());
        }
        Err(format!("a cost of {cost} is more than the {} units that the policy ever allows", self.burst))
    }

    /// Milliseconds after which an unused key is like a new one.
    pub fn lifetime_ms(&self) -> u64 {
        match self.algorithm {
            Algorithm::SlidingWindow => 2 * u64::from(self.window_ms),
            Algorithm::TokenBucket => {
                (u64::from(self.burst) * u64::from(self.window_ms)).div_ceil(u64::from(self.limit))
            }
        }
    }

    /// Decides about `cost` units at `now_ms` and changes the usage accordingly.
    pub fn decide(&self, usage: &mut Usage, now_ms: u64, cost: u32) -> Decision {
        match self.algorithm {
            Algorithm::SlidingWindow => self.slide(usage, now_ms, cost.into()),
            Algorithm::TokenBucket => self.fill(usage, now_ms, cost.into()),
        }
    }

    fn slide(&self, usage: &mut Usage, now_ms: u64, cost: u64) -> Decision {
        let (limit, window) = (u64::from(self.limit), u64::from(self.window_ms));
        // A clock that steps back counts as one that stands still.
        let mut elapsed = now_ms.saturating_sub(usage.since_ms);
        if elapsed >= 2 * window || (usage.used == 0 && usage.previous == 0) {
            *usage = Usage { since_ms: now_ms, ..Usage::default() };
            elapsed = 0;
        } else if elapsed >= window {
            *usage = Usage { since_ms: usage.since_ms + window, used: 0, previous: usage.used };
            elapsed -= window;
        }
        let carried = usage.previous * (window - elapsed) / window;
        let free = limit.saturating_sub(carried + usage.used);
        let reset = window - elapsed;
        if cost <= free {
            usage.used += cost;
            return decision(true, free - cost, reset, 0);
        }
        // The moment at which few enough units of the previous window count.
        let wait = |previous: u64, room: u64| (previous - room.min(previous)) * window / previous.max(1) + 1;
        let retry = if usage.used + cost <= limit {
            wait(usage.previous, limit - usage.used - cost).saturating_sub(elapsed)
        } else {
            reset + wait(usage.used, limit - cost)
        };
        decision(false, free, reset, retry.max(1))
    }

    fn fill(&self, usage: &mut Usage, now_ms: u64, cost: u64) -> Decision {
        let (limit, window, burst) = (u64::from(self.limit), u64::from(self.window_ms), u64::from(self.burst));
        let elapsed = now_ms.saturating_sub(usage.since_ms).min(self.lifetime_ms());
        let mut missing = usage.used.saturating_sub(elapsed * limit);
        let capacity = burst * window;
        let allowed = missing + cost * window <= capacity;
        let retry = if allowed { 0 } else { (missing + cost * window - capacity).div_ceil(limit) };
        if allowed {
            missing += cost * window;
        }
        *usage = Usage { since_ms: now_ms.max(usage.since_ms), used: missing, previous: 0 };
        decision(allowed, (capacity - missing.min(capacity)) / window, missing.div_ceil(limit), retry)
    }
}

fn decision(allowed: bool, remaining: u64, reset_ms: u64, retry_after_ms: u64) -> Decision {
    let narrow = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    Decision {
        allowed,
        remaining: narrow(remaining),
        reset_ms: narrow(reset_ms),
        retry_after_ms: narrow(retry_after_ms),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(algorithm: Algorithm, limit: u32, window_ms: u32, burst: u32) -> Policy {
        Policy::new(algorithm, limit, window_ms, burst).unwrap_or_else(|why| panic!("{why}"))
    }

    #[test]
    fn policies_and_costs_have_bounds() {
        use Algorithm::{SlidingWindow, TokenBucket};
        for (limit, window_ms, burst) in [(0, 1, 0), (UNITS_MAX + 1, 1, 0), (1, 0, 0), (1, WINDOW_MS_MAX + 1, 0)] {
            assert!(Policy::new(SlidingWindow, limit, window_ms, burst).is_err(), "{limit} {window_ms} {burst}");
        }
        assert!(Policy::new(TokenBucket, 1, 1, UNITS_MAX + 1).is_err());
        assert!(policy(TokenBucket, 1, 1, 5).check_cost(5).is_ok());
        assert!(policy(TokenBucket, 1, 1, 5).check_cost(6).is_err());
        assert!(policy(SlidingWindow, 2, 1, 5).check_cost(3).is_err());
    }

    #[test]
    fn a_window_allows_its_limit_and_slides() {
        let policy = policy(Algorithm::SlidingWindow, 4, 1000, 0);
        let mut usage = Usage::default();
        let mut take = |now, cost| policy.decide(&mut usage, now, cost);
        assert_eq!(take(5000, 3), decision(true, 1, 1000, 0));
        assert_eq!(take(5100, 1), decision(true, 0, 900, 0));
        let refused = take(5500, 1);
        assert_eq!((refused.allowed, refused.remaining, refused.reset_ms), (false, 0, 500));
        let later = take(5500 + u64::from(refused.retry_after_ms), 1);
        assert!(later.allowed, "{refused:?} {later:?}");
        // Half of the previous window counts.
        assert_eq!(take(6500, 0).remaining, 1);
        assert_eq!(take(9000, 4), decision(true, 0, 1000, 0));
    }

    #[test]
    fn a_refused_request_succeeds_when_it_is_told_to_come_back() {
        for algorithm in [Algorithm::SlidingWindow, Algorithm::TokenBucket] {
            let policy = policy(algorithm, 7, 1000, 9);
            let mut random = 1_u64;
            let (mut usage, mut now) = (Usage::default(), 1_000_000);
            for _ in 0..20_000 {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                now += (random >> 40) % 400;
                let cost = (random >> 20) as u32 % (policy.burst() + 1);
                let decided = policy.decide(&mut usage, now, cost);
                if !decided.allowed {
                    let mut copy = usage;
                    let again = policy.decide(&mut copy, now + u64::from(decided.retry_after_ms), cost);
                    assert!(again.allowed, "{algorithm:?} {usage:?} {decided:?}");
                }
                assert!(decided.remaining <= policy.burst());
            }
        }
    }

    #[test]
    fn a_bucket_holds_its_burst_and_fills_evenly() {
        let policy = policy(Algorithm::TokenBucket, 10, 1000, 20);
        let mut usage = Usage::default();
        let mut take = |now, cost| policy.decide(&mut usage, now, cost);
        assert_eq!(take(5000, 20), decision(true, 0, 2000, 0));
        assert_eq!(take(5050, 1), decision(false, 0, 1950, 50));
        assert_eq!(take(5100, 1), decision(true, 0, 2000, 0));
        assert_eq!(take(6100, 0).remaining, 10);
        assert_eq!(take(4000, 0).remaining, 10, "a clock that steps back takes nothing away");
        assert_eq!(take(99_000, 0), decision(true, 20, 0, 0));
    }

    #[test]
    fn the_largest_policies_do_not_overflow() {
        for algorithm in [Algorithm::SlidingWindow, Algorithm::TokenBucket] {
            let policy = policy(algorithm, UNITS_MAX, WINDOW_MS_MAX, UNITS_MAX);
            let mut usage = Usage::default();
            assert!(policy.decide(&mut usage, 1, UNITS_MAX).allowed);
            assert!(!policy.decide(&mut usage, 2, UNITS_MAX).allowed);
            assert!(policy.decide(&mut usage, u64::MAX, UNITS_MAX).allowed);
        }
    }
}
