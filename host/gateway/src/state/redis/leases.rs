//! Units that a gateway has taken from a shared window and spends without asking the server.
//!
//! Gain: a hot key costs one question for `units` requests, and none while it is above its limit.
//! Price: units that a gateway holds are missing for the others until the window ends. A lease
//! ends with the window in which it was taken, so all gateways together never allow more than the
//! limit. They refuse too early by at most `units - 1` for each other gateway, because a gateway
//! holds one lease of a key and spends it before it takes another.
//! This module does not know: connections, scripts.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use witgate_runtime::limiter::{Decision, Policy};

const SHARDS: usize = 16;
/// The most keys of a shard. Others are counted without leases.
const KEYS_MAX: usize = 1024;

/// The leases of one limiter.
pub(in crate::state) struct Leases {
    /// The size of a lease.
    units: u32,
    /// How long a reply of the server is awaited before another request asks for a lease.
    reply_timeout: Duration,
    shards: [Mutex<HashMap<Id, Lease>>; SHARDS],
    hasher: RandomState,
}

type Id = (Policy, String);

/// What is known of a key. All of it ends at `ends`.
struct Lease {
    /// Units that are left.
    left: u32,
    /// What the server had left.
    remaining: u32,
    ends: Instant,
    /// The server refused this cost until this moment.
    refused: Option<(u32, Instant)>,
    /// When somebody asked for units.
    asked: Option<Instant>,
}

/// What to do about a request for units.
#[derive(Debug, PartialEq)]
pub(super) enum Step {
    /// It is decided.
    Decided(Decision),
    /// Ask the server for this many units.
    Ask(u32),
}

impl Leases {
    /// Leases of `units` each.
    pub(in crate::state) fn new(units: u32, reply_timeout: Duration) -> Self {
        Self { units, reply_timeout, shards: Default::default(), hasher: RandomState::new() }
    }

    /// Spends units of a lease, or says how many to ask for.
    pub(super) fn spend(&self, key: &str, cost: u32, policy: &Policy, now: Instant) -> Step {
        let id = (*policy, key.to_owned());
        let mut shard = self.shard(&id);
        if !shard.contains_key(&id) && shard.len() >= KEYS_MAX {
            shard.retain(|_, lease| lease.ends > now);
            if shard.len() >= KEYS_MAX {
                return Step::Ask(cost);
            }
        }
        let unknown = || Lease { left: 0, remaining: 0, ends: now + self.reply_timeout, refused: None, asked: None };
        let lease = shard.entry(id).or_insert_with(unknown);
        let reset_ms = milliseconds(lease.ends.saturating_duration_since(now));
        if lease.ends > now && lease.left >= cost {
            lease.left -= cost;
            let remaining = lease.remaining.saturating_add(lease.left).min(policy.burst());
            return Step::Decided(Decision { allowed: true, remaining, reset_ms, retry_after_ms: 0 });
        }
        if let Some((refused, until)) = lease.refused
            && cost >= refused
            && until > now
        {
            let retry_after_ms = milliseconds(until - now).max(1);
            let remaining = lease.remaining.min(cost.saturating_sub(1));
            return Step::Decided(Decision { allowed: false, remaining, reset_ms, retry_after_ms });
        }
        // Those who come while one asks take only what they need, so that one lease is held.
        if lease.asked.is_some_and(|asked| now.saturating_duration_since(asked) < self.reply_timeout) {
            return Step::Ask(cost);
        }
        lease.asked = Some(now);
        Step::Ask(self.units.max(cost))
    }

    /// Keeps the server's reply to a question for more than `cost` units. `times` are those of the
    /// question and of the reply.
    pub(super) fn keep(
        &self,
        (key, cost, policy): (&str, u32, &Policy),
        times: (Instant, Instant),
        taken: u32,
        decision: &Decision,
    ) {
        let id = (*policy, key.to_owned());
        let mut shard = self.shard(&id);
        let Some(lease) = shard.get_mut(&id) else { return };
        let (asked, now) = times;
        // The server decided after `asked`, so its window ends not before this moment.
        let ends = asked + Duration::from_millis(decision.reset_ms.into());
        // Units of a window that has ended must not live on in the next one.
        let left = if lease.ends > now { lease.left } else { 0 };
        let more = if decision.allowed { taken.saturating_sub(cost) } else { 0 };
        let until = asked + Duration::from_millis(decision.retry_after_ms.into());
        *lease = Lease {
            left: left.saturating_add(more),
            remaining: decision.remaining,
            ends,
            refused: (!decision.allowed).then_some((cost, until)),
            asked: None,
        };
    }

    fn shard(&self, id: &Id) -> MutexGuard<'_, HashMap<Id, Lease>> {
        let index = self.hasher.hash_one(id) as usize % SHARDS;
        self.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn milliseconds(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use witgate_runtime::limiter::{Algorithm, Usage};

    const REPLY_TIMEOUT: Duration = Duration::from_millis(50);

    fn policy(limit: u32) -> Policy {
        Policy::new(Algorithm::SlidingWindow, limit, 60_000, 0).unwrap_or_else(|why| panic!("{why}"))
    }

    /// The server: takes up to `wanted` units, as the script does.
    fn take(policy: &Policy, usage: &mut Usage, now_ms: u64, cost: u32, wanted: u32) -> (u32, Decision) {
        let decision = policy.decide(usage, now_ms, cost);
        if !decision.allowed {
            return (0, decision);
        }
        let more = wanted.saturating_sub(cost).min(decision.remaining);
        let decision = policy.decide(usage, now_ms, more);
        (cost + more, decision)
    }

    #[test]
    fn gateways_with_leases_stay_within_the_limit_and_its_bound() {
        let (units, limit) = (10, 100);
        let policy = policy(limit);
        let began = Instant::now();
        let gateways: Vec<Leases> = (0..3).map(|_| Leases::new(units, REPLY_TIMEOUT)).collect();
        let (mut usage, mut allowed, mut questions) = (Usage::default(), 0, 0);
        for request in 0..3000_u64 {
            // The third gateway asks rarely.
            let gateway = &gateways[if request % 100 == 0 { 2 } else { request as usize % 2 }];
            let decision = match gateway.spend("k", 1, &policy, began) {
                Step::Decided(decision) => decision,
                Step::Ask(wanted) => {
                    questions += 1;
                    let (taken, decision) = take(&policy, &mut usage, 1_000_000, 1, wanted);
                    gateway.keep(("k", 1, &policy), (began, began), taken, &decision);
                    decision
                }
            };
            allowed += u32::from(decision.allowed);
        }
        assert!((limit - 2 * (units - 1)..=limit).contains(&allowed), "{allowed}");
        assert!(questions <= limit / units + 3, "{questions}");
    }

    #[test]
    fn a_lease_ends_with_its_window_and_a_refusal_when_the_server_says() {
        let (leases, policy, now) = (Leases::new(5, REPLY_TIMEOUT), policy(10), Instant::now());
        assert_eq!(leases.spend("k", 1, &policy, now), Step::Ask(5));
        assert_eq!(leases.spend("k", 2, &policy, now), Step::Ask(2), "one lease at a time");
        let decision = Decision { allowed: true, remaining: 5, reset_ms: 1000, retry_after_ms: 0 };
        leases.keep(("k", 1, &policy), (now, now), 5, &decision);
        let later = now + Duration::from_millis(400);
        let spent = Decision { allowed: true, remaining: 8, reset_ms: 600, retry_after_ms: 0 };
        assert_eq!(leases.spend("k", 1, &policy, later), Step::Decided(spent));
        let end = now + Duration::from_secs(1);
        assert_eq!(leases.spend("k", 1, &policy, end), Step::Ask(5), "the window has ended");
        let refusal = Decision { allowed: false, remaining: 0, reset_ms: 1000, retry_after_ms: 300 };
        leases.keep(("k", 1, &policy), (end, end), 0, &refusal);
        let refused = leases.spend("k", 1, &policy, end + Duration::from_millis(100));
        assert!(matches!(&refused, Step::Decided(decision) if !decision.allowed && decision.retry_after_ms == 200));
        assert_eq!(leases.spend("k", 1, &policy, end + Duration::from_millis(300)), Step::Ask(5));
    }

    #[test]
    fn the_number_of_keys_is_bounded_and_an_answer_may_be_lost() {
        let (leases, policy, now) = (Leases::new(5, REPLY_TIMEOUT), policy(10), Instant::now());
        for number in 0..2 * SHARDS * KEYS_MAX {
            leases.spend(&number.to_string(), 1, &policy, now);
        }
        let held: usize = leases.shards.iter().map(|shard| shard.lock().map_or(0, |shard| shard.len())).sum();
        assert!(held <= SHARDS * KEYS_MAX, "{held}");
        let later = now + REPLY_TIMEOUT;
        assert_eq!(leases.spend("new", 1, &policy, later), Step::Ask(5), "those that ended make room");
        assert_eq!(leases.spend("new", 1, &policy, later), Step::Ask(1));
        assert_eq!(leases.spend("new", 1, &policy, later + REPLY_TIMEOUT), Step::Ask(5), "the answer did not come");
    }
}
