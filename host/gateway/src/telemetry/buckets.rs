//! Histograms with fixed upper bounds.
//!
//! Durations have exemplars: an observation that belongs to a recorded trace leaves the trace's id
//! in its bucket. Price: a second uncontended lock for each observation.
//! This module does not know: what is measured.

use std::time::SystemTime;

use prometheus_client::metrics::exemplar::HistogramWithExemplars;
use prometheus_client::metrics::family::MetricConstructor;
use prometheus_client::metrics::histogram::Histogram;

use super::labels::TraceLabels;

/// A histogram whose buckets name the last trace that was counted in them.
pub type TracedHistogram = HistogramWithExemplars<TraceLabels>;

/// Makes histograms with these upper bounds, in seconds.
#[derive(Clone)]
pub struct Buckets(pub(super) &'static [f64]);

impl MetricConstructor<Histogram> for Buckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(self.0.iter().copied())
    }
}

impl MetricConstructor<TracedHistogram> for Buckets {
    fn new_metric(&self) -> TracedHistogram {
        TracedHistogram::new(self.0.iter().copied())
    }
}

/// Counts a duration, and keeps the trace as the exemplar of its bucket.
pub(super) fn observe(histogram: &TracedHistogram, seconds: f64, trace: Option<TraceLabels>) {
    let at = trace.is_some().then(SystemTime::now);
    histogram.observe(seconds, trace, at);
}
