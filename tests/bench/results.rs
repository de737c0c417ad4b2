//! All that one run read, and the few figures that are made of it.
//!
//! Must not know: how it was measured, how it looks.

use std::collections::BTreeMap;

use crate::cases::{CASES, Case, Readings, median, minimum};
use crate::memory::{Growth, Memory};
use crate::scaling::Scaling;
use crate::swap::Swap;

/// One run.
#[derive(Debug, Default)]
pub(crate) struct Results {
    /// By case.
    pub(crate) readings: BTreeMap<&'static str, Readings>,
    /// Cases without readings, and why.
    pub(crate) missing: BTreeMap<&'static str, String>,
    pub(crate) versions: Vec<String>,
    pub(crate) memory: Option<Memory>,
    pub(crate) growth: Option<Growth>,
    pub(crate) swaps: Vec<Swap>,
    pub(crate) scaling: Option<Scaling>,
    pub(crate) run: Run,
}

/// How and where.
#[derive(Debug, Default)]
pub(crate) struct Run {
    pub(crate) command: String,
    pub(crate) machine: String,
    pub(crate) commit: String,
    /// How noisy it was, in words.
    pub(crate) noise: String,
    pub(crate) rounds: usize,
    pub(crate) seconds: f64,
    /// The load's own error, µs: P99.
    pub(crate) late: Vec<f64>,
}

impl Results {
    fn of(&self, id: &str) -> Option<&Readings> {
        self.readings.get(id)
    }

    /// CPU per request: the minimum of the rounds, since noise only adds.
    pub(crate) fn cpu(&self, id: &str) -> Option<f64> {
        minimum(&self.of(id)?.cpu)
    }

    /// CPU per request: the median of the rounds.
    pub(crate) fn cpu_median(&self, id: &str) -> Option<f64> {
        median(&self.of(id)?.cpu)
    }

    /// CPU per request above the same gateway's plain case, of minima.
    pub(crate) fn over_plain(&self, case: &Case) -> Option<f64> {
        let plain = CASES.iter().find(|plain| plain.gateway == case.gateway)?;
        (plain.id != case.id).then_some(())?;
        Some(self.cpu(case.id)? - self.cpu(plain.id)?)
    }

    /// Latency in open loop: medians of the rounds.
    pub(crate) fn p50(&self, id: &str) -> Option<f64> {
        median(&self.of(id)?.p50)
    }

    /// Latency in open loop: medians of the rounds.
    pub(crate) fn p99(&self, id: &str) -> Option<f64> {
        median(&self.of(id)?.p99)
    }

    /// Requests a second in closed loop: median.
    pub(crate) fn rate(&self, id: &str) -> Option<f64> {
        median(&self.of(id)?.rate)
    }

    /// A case's CPU as a multiple of another's.
    pub(crate) fn times(&self, id: &str, other: &str) -> Option<f64> {
        Some(self.cpu(id)? / self.cpu(other)?)
    }

    /// A language's swap.
    pub(crate) fn swap(&self, language: &str) -> Option<&Swap> {
        self.swaps.iter().find(|swap| swap.language == language)
    }

    /// Why a case has no readings.
    pub(crate) fn why_missing(&self, id: &str) -> String {
        self.missing.get(id).cloned().unwrap_or_else(|| "not asked for".into())
    }
}
