//! Judges a step of a release: go on, wait, or roll back.
//!
//! One pure function over two sets of figures. Failures are judged at any time: the new version
//! fails the gate as soon as it would fail it even if all requests up to the minimum succeeded.
//! The latency is judged at the end of a hold, because first calls are slow. This module does not
//! know: versions, clocks.

use std::time::Duration;

use super::shadow::ShadowCounts;
use super::step_traffic::Sums;
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
    /// What the shadow found, in the shadow step.
    pub shadow: Option<ShadowCounts>,
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
    if let (Some(shadow), Some(most)) = (step.shadow, gates.differences)
        && shadow.different as f64 > most.ratio() * shadow.compared.max(gates.requests) as f64
    {
        return Verdict::RollBack(format!("{}; {most} may differ", differences(shadow)));
    }
    if !step.hold_ended {
        return Verdict::Wait(format!("{} requests, {} failed, until the hold ends", new.requests, new.failures));
    }
    if new.requests < gates.requests {
        return Verdict::TooFew(format!("{} of the {} requests that a step needs", new.requests, gates.requests));
    }
    let mut figures = format!("{} requests, {} failed ({})", new.requests, new.failures, percent(new.failure_ratio()));
    if let Some(shadow) = step.shadow {
        figures = format!("{figures}; {}", differences(shadow));
    }
    let (Some(old_mean), Some(new_mean)) = (old.mean(), new.mean()) else {
        return Verdict::Advance(format!("{figures}; the old version had no requests to compare the time with"));
    };
    let mean = compare_times("a request", new_mean, old_mean);
    let tail = old.p95.zip(new.p95).map(|(old, new)| compare_times("at the 95th percentile", new, old));
    let too_slow = if mean.ratio > gates.latency_ratio {
        format!("{}; {} times are allowed", mean.words, gates.latency_ratio)
    } else if let Some(tail) = tail.as_ref().filter(|tail| tail.ratio > gates.p95_ratio) {
        format!("{}; {} times are allowed", tail.words, gates.p95_ratio)
    } else {
        let tail = tail.map(|tail| format!("; {}", tail.words)).unwrap_or_default();
        return Verdict::Advance(format!("{figures}; {}{tail}", mean.words));
    };
    let holds = step.slow_holds + 1;
    if holds < SLOW_HOLDS_MAX {
        Verdict::Slow(format!("{too_slow} (hold {holds} of {SLOW_HOLDS_MAX})"))
    } else {
        Verdict::RollBack(format!("{too_slow}, {SLOW_HOLDS_MAX} holds in a row"))
    }
}

fn differences(shadow: ShadowCounts) -> String {
    let ratio = shadow.different as f64 / shadow.compared.max(1) as f64;
    format!("{} of {} compared exchanges differ ({})", shadow.different, shadow.compared, percent(ratio))
}

/// How much longer the new version takes.
struct Slowness {
    ratio: f64,
    words: String,
}

fn compare_times(what: &str, new: Duration, old: Duration) -> Slowness {
    let ratio = new.as_secs_f64() / old.as_secs_f64().max(1e-9);
    Slowness { ratio, words: format!("{} {what}, {ratio:.2} times the old version's {}", shown(new), shown(old)) }
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

    const GATES: Gates =
        Gates { errors: Share(100), latency_ratio: 2.0, p95_ratio: 4.0, differences: Some(Share(100)), requests: 100 };

    fn sums(requests: u64, failures: u64, mean_us: u64) -> Sums {
        Sums { requests, failures, duration: Duration::from_micros(mean_us * requests), p95: None }
    }

    fn judged(old: Sums, new: Sums, hold_ended: bool, slow_holds: u32) -> Verdict {
        judge(&GATES, &Step { old, new, shadow: None, hold_ended, slow_holds })
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

    #[test]
    fn differences_roll_back_as_failures_do() {
        let judged = |compared, different| {
            let shadow = Some(ShadowCounts { compared, different, ..ShadowCounts::default() });
            judge(
                &GATES,
                &Step { old: sums(1000, 0, 100), new: sums(100, 0, 100), shadow, hold_ended: true, slow_holds: 0 },
            )
        };
        assert!(matches!(judged(1000, 10), Verdict::Advance(_)));
        let verdict = judged(10, 2);
        let Verdict::RollBack(why) = verdict else { panic!("{verdict:?}") };
        assert_eq!(why, "2 of 10 compared exchanges differ (20.00%); 1% may differ");
    }

    #[test]
    fn a_slow_tail_holds_although_the_mean_is_good() {
        let with = |p95| Sums { p95: Some(Duration::from_micros(p95)), ..sums(1000, 0, 100) };
        assert!(matches!(judged(with(150), with(600), true, 0), Verdict::Advance(_)));
        let verdict = judged(with(150), with(601), true, 0);
        let Verdict::Slow(why) = verdict else { panic!("{verdict:?}") };
        assert!(why.starts_with("0.601 ms at the 95th percentile, 4.01 times"), "{why}");
    }
}
