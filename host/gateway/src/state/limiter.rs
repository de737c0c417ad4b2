//! The rate limiter in memory: exact for all threads of one gateway.
//!
//! The counts are in 16 shards with a mutex each, and a call holds one mutex for one access to a
//! hash map, never across an await. The number of keys is bounded, because clients choose them. A
//! full shard first removes keys whose time has passed, at most once a second; if none has, one key
//! is forgotten, which gives that key its whole limit again.
//! This module does not know: the arithmetic of a policy, WIT, configuration files.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use witgate_runtime::keyvalue::Outcome;
use witgate_runtime::limiter::{Decision, LimiterError, Policy, RateLimiter, Usage};

const SHARDS: usize = 16;
/// The shortest time between two searches of a full shard for keys whose time has passed.
const SWEEP_MS: u64 = 1000;

/// The counts of one filter or route.
pub struct MemoryLimiter {
    shards: [Mutex<Shard>; SHARDS],
    hasher: RandomState,
    /// The most keys of a shard.
    keys_max: usize,
    /// The moment from which milliseconds are counted.
    start: Instant,
}

#[derive(Default)]
struct Shard {
    counts: HashMap<(Policy, String), Count>,
    next_sweep_ms: u64,
}

struct Count {
    usage: Usage,
    expires_ms: u64,
}

impl MemoryLimiter {
    /// A limiter for about `keys_max` keys.
    pub fn new(keys_max: usize) -> Self {
        Self {
            shards: Default::default(),
            hasher: RandomState::new(),
            keys_max: keys_max.div_ceil(SHARDS),
            start: Instant::now(),
        }
    }

    /// Takes units of a key, as [`RateLimiter::take`] does.
    pub fn take_now(&self, key: &str, cost: u32, policy: &Policy) -> Decision {
        self.take_at(key, cost, policy, self.start.elapsed().as_millis() as u64)
    }

    fn take_at(&self, key: &str, cost: u32, policy: &Policy, now_ms: u64) -> Decision {
        let hash = self.hasher.hash_one((policy, key));
        let mut shard = lock(&self.shards[hash as usize % SHARDS]);
        let id = (*policy, key.to_owned());
        if let Some(count) = shard.counts.get_mut(&id) {
            count.expires_ms = now_ms.saturating_add(policy.lifetime_ms());
            return policy.decide(&mut count.usage, now_ms, cost);
        }
        if shard.counts.len() >= self.keys_max {
            shard.make_room(now_ms);
        }
        let mut usage = Usage::default();
        let decision = policy.decide(&mut usage, now_ms, cost);
        shard.counts.insert(id, Count { usage, expires_ms: now_ms.saturating_add(policy.lifetime_ms()) });
        decision
    }
}

impl Shard {
    /// Removes the keys whose time has passed, or any key.
    fn make_room(&mut self, now_ms: u64) {
        let before = self.counts.len();
        if now_ms >= self.next_sweep_ms {
            self.next_sweep_ms = now_ms + SWEEP_MS;
            self.counts.retain(|_, count| count.expires_ms > now_ms);
        }
        if self.counts.len() == before
            // The order of a hash map is random: nobody can choose whose count is forgotten.
            && let Some(any) = self.counts.keys().next().cloned()
        {
            self.counts.remove(&any);
        }
    }
}

impl RateLimiter for MemoryLimiter {
    fn take<'a>(&'a self, key: &'a str, cost: u32, policy: &'a Policy) -> Outcome<'a, Decision, LimiterError> {
        Outcome::Ready(Ok(self.take_now(key, cost, policy)))
    }
}

/// Ignores poisoning: a panic while the lock is held cannot leave the map half-changed.
fn lock(mutex: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use witgate_runtime::limiter::Algorithm;

    fn policy(limit: u32) -> Policy {
        Policy::new(Algorithm::SlidingWindow, limit, 60_000, 0).unwrap_or_else(|why| panic!("{why}"))
    }

    #[test]
    fn threads_together_take_exactly_the_limit() {
        let limiter = MemoryLimiter::new(100);
        let allowed: usize = std::thread::scope(|scope| {
            let take = || (0..500).filter(|_| limiter.take_now("k", 1, &policy(1000)).allowed).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap_or(0)).sum()
        });
        assert_eq!(allowed, 1000);
    }

    #[test]
    fn keys_and_policies_are_counted_separately() {
        let limiter = MemoryLimiter::new(100);
        for (key, limit) in [("a", 1), ("b", 1), ("a", 2)] {
            assert!(limiter.take_now(key, 1, &policy(limit)).allowed, "{key} {limit}");
        }
        assert!(!limiter.take_now("a", 1, &policy(1)).allowed);
    }

    #[test]
    fn the_number_of_keys_is_bounded() {
        let limiter = MemoryLimiter::new(160);
        for number in 0..10_000 {
            assert!(limiter.take_at(&number.to_string(), 1, &policy(1), number).allowed);
        }
        let keys: usize = limiter.shards.iter().map(|shard| lock(shard).counts.len()).sum();
        assert!(keys <= 160, "{keys}");
    }
}
