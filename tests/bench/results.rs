//! The readings of one run, and the figures derived from them.
//!
//! This module does not know: how readings are made or shown.

use std::collections::BTreeMap;

use crate::cases::{CASES, Case, Readings, median, minimum};
use crate::memory::{Growth, Memory};
use crate::scaling::Scaling;
use crate::swap::Swap;
use crate::transfers::Transfers;

/// The results of one run.
#[derive(Debug, Default)]
pub(crate) struct Results {
    /// The readings of each case.
    pub(crate) readings: BTreeMap<&'static str, Readings>,
    /// Cases without readings, and the reasons.
    pub(crate) missing: BTreeMap<&'static str, String>,
    pub(crate) versions: Vec<String>,
    pub(crate) memory: Option<Memory>,
    pub(crate) growth: Option<Growth>,
    pub(crate) swaps: Vec<Swap>,
    pub(crate) scaling: Option<Scaling>,
    pub(crate) transfers: Transfers,
    pub(crate) run: Run,
}

/// How and where the run took place.
#[derive(Debug, Default)]
pub(crate) struct Run {
    pub(crate) command: String,
    pub(crate) machine: String,
    pub(crate) commit: String,
    /// A description of how noisy the machine was.
    pub(crate) noise: String,
    pub(crate) rounds: usize,
    pub(crate) seconds: f64,
    /// The load's own error: the P99 of each open loop, µs.
    pub(crate) late: Vec<f64>,
}

impl Results {
    fn of(&self, id: &str) -> Option<&Readings> {
        self.readings.get(id)
    }

    /// CPU per request in µs: the minimum of the rounds, because noise only adds.
    pub(crate) fn cpu(&self, id: &str) -> Option<f64> {
        minimum(&self.of(id)?.cpu)
    }

    /// CPU per request in µs: the median of the rounds.
    pub(crate) fn cpu_median(&self, id: &str) -> Option<f64> {
        median(&self.of(id)?.cpu)
    }

    /// CPU per request above the case without a filter of the same gateway, in µs (minima).
    pub(crate) fn over_plain(&self, case: &Case) -> Option<f64> {
        let plain = CASES.iter().find(|plain| plain.gateway == case.gateway)?;
        (plain.id != case.id).then_some(())?;
        Some(self.cpu(case.id)? - self.cpu(plain.id)?)
    }

    /// Median latency in the open loop in µs: the median of the rounds.
    pub(crate) fn p50(&self, id: &str) -> Option<f64> {
        median(&self.of(id)?.p50)
    }

    /// 99th percentile of latency in the open loop in µs: the median of the rounds.
    pub(crate) fn p99(&self, id: &str) -> Option<f64> {
        median(&self.of(id)?.p99)
    }

    /// Requests per second in the closed loop: the median of the rounds.
    pub(crate) fn rate(&self, id: &str) -> Option<f64> {
        median(&self.of(id)?.rate)
    }

    /// The ratio of one case's CPU to another's.
    pub(crate) fn ratio(&self, id: &str, other: &str) -> Option<f64> {
        Some(self.cpu(id)? / self.cpu(other)?)
    }

    /// The swap of a language.
    pub(crate) fn swap(&self, language: &str) -> Option<&Swap> {
        self.swaps.iter().find(|swap| swap.language == language)
    }

    /// The reason why a case has no readings.
    pub(crate) fn why_missing(&self, id: &str) -> String {
        self.missing.get(id).cloned().unwrap_or_else(|| "not requested".into())
    }
}
