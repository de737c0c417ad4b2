//! One reading of a gateway: its metrics and its lists.
//!
//! This module does not know: what is shown.

use std::collections::BTreeMap;
use std::time::Instant;

use serde_json::Value;

use crate::cli::admin_client::Target;
use crate::telemetry::parse_metrics;

type Labels = BTreeMap<String, String>;

/// What the gateway said at one moment.
pub(super) struct Sample {
    pub(super) at: Instant,
    /// By the name of a series and its labels.
    values: BTreeMap<String, Vec<(Labels, f64)>>,
    pub(super) routes: Value,
    pub(super) filters: Value,
    pub(super) upstreams: Value,
}

impl Sample {
    /// Asks the gateway.
    pub(super) fn read(target: &Target) -> Result<Self, String> {
        let body = |path: &str| {
            let answer = target.get(path)?;
            if answer.status == 200 { Ok(answer.body) } else { Err(answer.text()) }
        };
        let list =
            |path: &str| serde_json::from_slice(&body(path)?).map_err(|error| format!("{path} is not JSON: {error}"));
        let metrics = body("/metrics")?;
        let (at, values) = (Instant::now(), values(&String::from_utf8_lossy(&metrics)));
        Ok(Self { at, values, routes: list("/routes")?, filters: list("/filters")?, upstreams: list("/upstreams")? })
    }

    /// The sum of a metric's series with these labels.
    pub(super) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        // `Iterator::sum` of no numbers is -0.
        self.series(name, labels).fold(0.0, |sum, (_, value)| sum + value)
    }

    /// The bounds and the counts of a histogram's buckets, summed over series with these labels.
    pub(super) fn buckets(&self, name: &str, labels: &[(&str, &str)]) -> Vec<(f64, f64)> {
        let mut buckets: Vec<(f64, f64)> = vec![];
        for (own, value) in self.series(&format!("{name}_bucket"), labels) {
            let bound = own.get("le").and_then(|le| le.parse().ok()).unwrap_or(f64::INFINITY);
            match buckets.iter_mut().find(|(known, _)| *known == bound) {
                Some((_, count)) => *count += value,
                None => buckets.push((bound, value)),
            }
        }
        buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
        buckets
    }

    fn series<'s>(
        &'s self,
        name: &str,
        labels: &'s [(&'s str, &'s str)],
    ) -> impl Iterator<Item = (&'s BTreeMap<String, String>, f64)> {
        let has = move |own: &BTreeMap<String, String>| {
            labels.iter().all(|(name, value)| own.get(*name).is_some_and(|own| own == value))
        };
        let all = self.values.get(name).into_iter().flatten();
        all.filter(move |(own, _)| has(own)).map(|(own, value)| (own, *value))
    }
}

fn values(text: &str) -> BTreeMap<String, Vec<(Labels, f64)>> {
    let mut values: BTreeMap<String, Vec<_>> = BTreeMap::new();
    for sample in parse_metrics(text).into_iter().flat_map(|family| family.samples) {
        let labels = sample.labels.iter().map(|(name, value)| ((*name).to_owned(), value.clone().into_owned()));
        values.entry(sample.name.to_owned()).or_default().push((labels.collect(), sample.value));
    }
    values
}

#[cfg(test)]
impl Sample {
    /// A reading of this text, without lists.
    pub(super) fn of(text: &str, at: Instant) -> Self {
        Self { at, values: values(text), routes: Value::Null, filters: Value::Null, upstreams: Value::Null }
    }
}
