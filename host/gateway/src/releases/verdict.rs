//! Judges a step of a release: go on, wait, or roll back.
//!
//! One pure function over two sets of figures. Failures are judged at any time: the new version
//! fails the gate as soon as it would fail it even if all requests up to the minimum succeeded.
//! The latency is judged at the end of a hold, because first calls are slow. This module does not
//! know: versions, clocks.

use std::time::Duration;

use super::trial::Sums;
use witgate_config::Gates;

/// Holds in a row that a version may be too slow.
pub const SLOW_HOLDS_MAX: u32 = 3;

/// What to do with a step. The text gives the reason with its figures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The hold has not ended.
    Wait(String),
    /// The step is passed.
    Advance(String),
    /// Too few requests: the step goes on until there are enough.
    TooFew(String),
    /// Too slow: another hold begins.
    Slow(String),
    /// The new version goes out of service.
    RollBack(String),
}

/// The step that is judged.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    /// What the old version did. If it gets no requests any more, in the step before.
    pub old: Sums,
    /// What the new version did.
    pub new: Sums,
    /// Whether the hold has ended.
    pub hold_ended: bool,
    /// Holds of this step in which the new version was too slow.
    pub slow_holds: u32,
}

/// Judges a step.
pub fn judge(gates: &Gates, step: &Step) -> Verdict {
    let Step { old, new, .. } = step;
    let allowed = gates.errors.ratio() + old.failure_ratio();
    if new.failures as f64 > allowed * new.requests.max(gates.requests) as f64 {
        return Verdict::RollBack(format!(
            "{} of {} requests failed ({}); the old version failed {} and may be exceeded by {}",
            new.failures,
            new.requests,
            percent(new.failure_ratio()),
            percent(old.failure_ratio()),
            gates.errors,
        ));
    }
    if !step.hold_ended {
        return Verdict::Wait(format!("{} requests, {} failed, until the hold ends", new.requests, new.failures));
    }
    if new.requests < gates.requests {
        return Verdict::TooFew(format!("{} of the {} requests that a step needs", new.requests, gates.requests));
    }
    let figures = format!("{} requests, {} failed ({})", new.requests, new.failures, percent(new.failure_ratio()));
    let (Some(old_mean), Some(new_mean)) = (old.mean(), new.mean()) else {
        return Verdict::Advance(format!("{figures}; the old version had no requests to compare the time with"));
    };
    let ratio = new_mean.as_secs_f64() / old_mean.as_secs_f64().max(1e-9);
    let times = format!("{} a request, {ratio:.2} times the old version's {}", shown(new_mean), shown(old_mean));
    if ratio <= gates.latency_ratio {
        return Verdict::Advance(format!("{figures}; {times}"));
    }
    let holds = step.slow_holds + 1;
    let too_slow = format!("{times}; {} times are allowed", gates.latency_ratio);
    if holds < SLOW_HOLDS_MAX {
        Verdict::Slow(format!("{too_slow} (hold {holds} of {SLOW_HOLDS_MAX})"))
    } else {
        Verdict::RollBack(format!("{too_slow}, {SLOW_HOLDS_MAX} holds in a row"))
    }
}

fn percent(ratio: f64) -> String {
    format!("{:.2}%", ratio * 100.0)
}

fn shown(time: Duration) -> String {
    format!("{:.3} ms", time.as_secs_f64() * 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use witgate_config::Share;

    const GATES: Gates = Gates { errors: Share(100), latency_ratio: 2.0, requests: 100 };

    fn sums(requests: u64, failures: u64, mean_us: u64) -> Sums {
        Sums { requests, failures, duration: Duration::from_micros(mean_us * requests) }
    }

    fn judged(old: Sums, new: Sums, hold_ended: bool, slow_holds: u32) -> Verdict {
        judge(&GATES, &Step { old, new, hold_ended, slow_holds })
    }

    #[test]
    fn failures_roll_back_at_any_time_and_without_a_minimum() {
        let old = sums(1000, 0, 100);
        assert!(matches!(judged(old, sums(1, 1, 100), false, 0), Verdict::Wait(_)), "1 of at least 100 is allowed");
        let verdict = judged(old, sums(20, 2, 100), false, 0);
        let Verdict::RollBack(why) = verdict else { panic!("{verdict:?}") };
        assert!(why.starts_with("2 of 20 requests failed (10.00%)"), "{why}");
        assert!(matches!(judged(old, sums(1000, 10, 100), true, 0), Verdict::Advance(_)));
        assert!(matches!(judged(old, sums(1000, 11, 100), true, 0), Verdict::RollBack(_)));
    }

    #[test]
    fn failures_that_the_old_version_has_too_do_not_count() {
        assert!(matches!(judged(sums(1000, 50, 100), sums(1000, 55, 100), true, 0), Verdict::Advance(_)));
        assert!(matches!(judged(sums(1000, 50, 100), sums(1000, 61, 100), true, 0), Verdict::RollBack(_)));
    }

    #[test]
    fn few_requests_wait_and_slow_ones_hold_before_they_roll_back() {
        let old = sums(1000, 0, 100);
        assert!(matches!(judged(old, sums(99, 0, 100), true, 0), Verdict::TooFew(_)));
        assert!(matches!(judged(old, sums(100, 0, 300), false, 0), Verdict::Wait(_)));
        assert!(matches!(judged(old, sums(100, 0, 200), true, 0), Verdict::Advance(_)));
        assert!(matches!(judged(old, sums(100, 0, 300), true, 0), Verdict::Slow(_)));
        assert!(matches!(judged(old, sums(100, 0, 300), true, 2), Verdict::RollBack(_)));
        assert!(matches!(judged(Sums::default(), sums(100, 0, 300), true, 0), Verdict::Advance(_)));
    }
}
