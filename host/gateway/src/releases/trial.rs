//! A step of a release while it runs: which exchanges use the new version, and how both versions
//! do.
//!
//! Each step has its own counters, so that a step is judged by what happened in it. They are
//! written only while a release runs. This module does not know: when a step ends.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::split::Split;

/// One step.
#[derive(Debug)]
pub struct Trial {
    /// Which exchanges use the new version.
    pub split: Split,
    /// The version in service before.
    pub old: Figures,
    /// The version that is released.
    pub new: Figures,
}

/// Counts what one version did.
#[derive(Debug, Default)]
pub struct Figures {
    requests: AtomicU64,
    failures: AtomicU64,
    nanoseconds: AtomicU64,
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
}

impl Trial {
    /// A step in which nothing happened yet.
    pub fn new(split: Split) -> Self {
        Self { split, old: Figures::default(), new: Figures::default() }
    }
}

impl Figures {
    /// Counts a call. A request may have two, and only the first one `begins` it.
    pub fn count(&self, begins: bool, failed: bool, duration: Duration) {
        self.nanoseconds.fetch_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.failures.fetch_add(failed.into(), Ordering::Relaxed);
        self.requests.fetch_add(begins.into(), Ordering::Relaxed);
    }

    /// The counts at this moment.
    pub fn sums(&self) -> Sums {
        Sums {
            requests: self.requests.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
            duration: Duration::from_nanos(self.nanoseconds.load(Ordering::Relaxed)),
        }
    }
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
