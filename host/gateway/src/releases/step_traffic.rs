//! A step of a release while it runs: which exchanges use the new version, and how both versions
//! do.
//!
//! Each step has its own counters, so that a step is judged by what happened in it. They are
//! written only while a release runs. This module does not know: when a step ends.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::shadow::ShadowTraffic;
use super::split::Split;

/// Each doubling of the duration has 8 buckets of one width. A percentile is at most 12.5% above
/// the true one.
const BITS_PER_DOUBLING: u32 = 3;
/// Durations below 1,024 ns are in the first bucket.
const FIRST_BIT: u32 = 10;
/// From 1 µs to 67 s.
const DOUBLINGS: u32 = 26;
const BUCKETS: usize = (DOUBLINGS << BITS_PER_DOUBLING) as usize;

/// The exchanges of one step.
#[derive(Debug)]
pub struct StepTraffic {
    /// Which exchanges use the new version.
    pub split: Split,
    /// The version in service before.
    pub old: Figures,
    /// The version that is released.
    pub new: Figures,
    /// Set in the shadow step, in which the new version serves no exchange.
    pub shadow: Option<ShadowTraffic>,
}

/// Counts what one version did. The alignment keeps the counters, which all threads write, out of
/// the cache lines that they only read, and those of one version out of those of the other.
#[derive(Debug)]
#[repr(align(128))]
pub struct Figures {
    requests: AtomicU64,
    failures: AtomicU64,
    nanoseconds: AtomicU64,
    /// Calls by their duration.
    durations: Box<[AtomicU64; BUCKETS]>,
}

/// What one version did until one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sums {
    /// Requests that reached the version.
    pub requests: u64,
    /// Requests with a failed call.
    pub failures: u64,
    /// The duration of all calls.
    pub duration: Duration,
    /// 95% of the calls took no longer. `None` without a call.
    pub p95: Option<Duration>,
}

impl StepTraffic {
    /// A step in which nothing happened yet.
    pub fn new(split: Split, shadow: Option<ShadowTraffic>) -> Self {
        Self { split, old: Figures::default(), new: Figures::default(), shadow }
    }
}

impl Default for Figures {
    fn default() -> Self {
        let durations = Box::new([const { AtomicU64::new(0) }; BUCKETS]);
        Self { requests: AtomicU64::new(0), failures: AtomicU64::new(0), nanoseconds: AtomicU64::new(0), durations }
    }
}

impl Figures {
    /// Counts a call. A request may have two, and only the first one `begins` it.
    pub fn count(&self, begins: bool, failed: bool, duration: Duration) {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
        self.durations[bucket(nanoseconds)].fetch_add(1, Ordering::Relaxed);
        if failed {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
        if begins {
            self.requests.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The counts at this moment.
    pub fn sums(&self) -> Sums {
        Sums {
            requests: self.requests.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
            duration: Duration::from_nanos(self.nanoseconds.load(Ordering::Relaxed)),
            p95: self.percentile(95),
        }
    }

    /// The upper bound of the bucket that contains the percentile.
    fn percentile(&self, percent: u64) -> Option<Duration> {
        let counts: Vec<u64> = self.durations.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        let rank = (counts.iter().sum::<u64>() * percent).div_ceil(100);
        let mut below = 0;
        let found = counts.iter().position(|count| {
            below += count;
            rank > 0 && below >= rank
        })?;
        let (doubling, part) = (found as u32 >> BITS_PER_DOUBLING, found as u64 % (1 << BITS_PER_DOUBLING));
        let nanoseconds = ((1 << BITS_PER_DOUBLING) + part + 1) << (doubling + FIRST_BIT - BITS_PER_DOUBLING);
        Some(Duration::from_nanos(nanoseconds))
    }
}

/// The bucket of a duration: the position of its first bit, and the bits behind it.
fn bucket(nanoseconds: u64) -> usize {
    let nanoseconds = nanoseconds.max(1 << FIRST_BIT);
    let first = nanoseconds.ilog2();
    let part = (nanoseconds >> (first - BITS_PER_DOUBLING)) as usize % (1 << BITS_PER_DOUBLING);
    ((((first - FIRST_BIT) as usize) << BITS_PER_DOUBLING) + part).min(BUCKETS - 1)
}

impl Sums {
    /// The share of failed requests. 0 without a request.
    pub fn failure_ratio(self) -> f64 {
        if self.requests == 0 { 0.0 } else { self.failures as f64 / self.requests as f64 }
    }

    /// The mean time of a request in its calls. `None` without a request.
    pub fn mean(self) -> Option<Duration> {
        (self.requests > 0).then(|| self.duration.div_f64(self.requests as f64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_percentile_is_near_the_true_one() {
        let figures = Figures::default();
        assert_eq!(figures.sums().p95, None);
        for micros in 1..=1000 {
            figures.count(true, false, Duration::from_micros(micros));
        }
        let p95 = figures.sums().p95.unwrap_or_default().as_micros();
        assert!((950..=1040).contains(&p95), "{p95}");
        figures.count(true, false, Duration::ZERO);
        figures.count(true, false, Duration::from_secs(3600));
    }

    #[test]
    fn a_slow_tail_moves_the_percentile_and_hardly_the_mean() {
        let figures = Figures::default();
        for call in 0..1000 {
            figures.count(true, false, Duration::from_millis(if call % 10 == 0 { 20 } else { 1 }));
        }
        let sums = figures.sums();
        assert!(sums.p95 > Some(Duration::from_millis(19)) && sums.mean() < Some(Duration::from_millis(3)), "{sums:?}");
    }
}
