//! `/metrics`: the metrics as Prometheus text, or as OpenMetrics for a scraper that asks for it.
//!
//! Gauges of the current state are set when they are read, so that requests do not pay for them.
//! Gauges with labels are cleared first, so that removed filters and endpoints disappear.
//!
//! This module does not know: how counters are incremented.

use std::time::SystemTime;

use http::{HeaderMap, StatusCode, header};

use super::process;
use super::reply::{Reply, reply};
use crate::control::rollout::filter_labels;
use crate::pipeline::snapshot::Shared;
use crate::telemetry::{FilterNameLabels, from_openmetrics};

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All metrics as Prometheus text.
pub(super) fn get(shared: &Shared) -> Reply {
    reply(StatusCode::OK, PROMETHEUS, from_openmetrics(&openmetrics(shared)))
}

/// All metrics as OpenMetrics text.
pub(super) fn get_openmetrics(shared: &Shared) -> Reply {
    reply(StatusCode::OK, OPENMETRICS, openmetrics(shared))
}

/// Whether a request prefers OpenMetrics to plain text (RFC 9110, section 12.5.1).
pub(super) fn wants_openmetrics(headers: &HeaderMap) -> bool {
    let weight = |kind: &str| {
        let lines = headers.get_all(header::ACCEPT).iter().filter_map(|line| line.to_str().ok());
        let mut members = lines.flat_map(|line| line.split(',')).map(|member| member.split(';').map(str::trim_ascii));
        let mut parameters =
            members.find_map(|mut parts| (parts.next()?.eq_ignore_ascii_case(kind)).then_some(parts))?;
        let q = parameters.find_map(|part| part.strip_prefix("q="));
        Some(q.map_or(1.0, |q| q.parse::<f32>().unwrap_or(0.0)))
    };
    let openmetrics = weight("application/openmetrics-text").unwrap_or(0.0);
    openmetrics > 0.0 && openmetrics >= weight("text/plain").unwrap_or(0.0)
}

/// The metrics as OpenMetrics text, with those of the current state.
pub(crate) fn openmetrics(shared: &Shared) -> String {
    shared.metrics.instances.set(shared.engine.instances() as i64);
    shared.metrics.in_flight.set(shared.in_flight.in_use() as i64);
    shared.metrics.connections.set(shared.connections.in_use() as i64);
    set_idle_instances(shared);
    set_endpoints(shared);
    set_reloads(shared);
    set_sources(shared);
    let text = shared.metrics.encode();
    format!("{}{}# EOF\n", text.trim_end_matches("# EOF\n"), process::metrics())
}

/// The last reload of the configuration and of each filter.
fn set_reloads(shared: &Shared) {
    let (metrics, last) = (&shared.metrics, shared.reloads.get());
    let seconds = |time: SystemTime| {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
    };
    if let Some(config) = &last.config {
        metrics.config_reloaded.set(i64::from(config.refused.is_none()));
        metrics.config_serving_since.set(seconds(config.serving_since));
    }
    metrics.filter_reloaded.clear();
    metrics.filter_serving_since.clear();
    for (name, filter) in &last.filters {
        let labels = FilterNameLabels { filter: name.as_str().into() };
        metrics.filter_reloaded.get_or_create(&labels).set(i64::from(filter.reload.refused.is_none()));
        metrics.filter_serving_since.get_or_create(&labels).set(seconds(filter.reload.serving_since));
    }
}

/// Whether the last check of each source on a server succeeded.
fn set_sources(shared: &Shared) {
    let gauge = &shared.metrics.source_reached;
    gauge.clear();
    for (name, filter) in &shared.snapshot.load().config.filters {
        let Some(status) = filter.source.remote().and_then(|location| shared.sources.status(location)) else {
            continue;
        };
        let labels = FilterNameLabels { filter: name.as_str().into() };
        gauge.get_or_create(&labels).set(i64::from(status.failure.is_none()));
    }
}

/// Only filters with `reuse` have idle instances.
fn set_idle_instances(shared: &Shared) {
    let gauge = &shared.metrics.instances_kept;
    gauge.clear();
    for (name, filter) in shared.snapshot.load().filters.iter().filter(|(_, filter)| filter.settings.reuse > 1) {
        gauge.get_or_create(&filter_labels(name, filter)).set(filter.idle_instances() as i64);
    }
}

fn set_endpoints(shared: &Shared) {
    let metrics = &shared.metrics;
    let gauges = [
        &metrics.endpoint_healthy,
        &metrics.endpoint_ejected,
        &metrics.endpoint_in_flight,
        &metrics.endpoint_connections,
        &metrics.endpoint_pending,
    ];
    for gauge in gauges {
        gauge.clear();
    }
    let snapshot = shared.snapshot.load();
    let sets: Vec<_> = snapshot.upstreams.values().map(|cluster| cluster.endpoints()).collect();
    for weighted in sets.iter().flat_map(|set| &set.list) {
        let (labels, status) = (weighted.endpoint.labels(), weighted.endpoint.status());
        let values = [
            i64::from(status.healthy != Some(false)),
            i64::from(status.ejected_for.is_some()),
            status.in_flight as i64,
            status.connections as i64,
            status.pending as i64,
        ];
        for (gauge, value) in gauges.into_iter().zip(values) {
            gauge.get_or_create(&labels).set(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn the_scraper_chooses_the_format() {
        for (accept, expected) in [
            (None, false),
            (Some("*/*"), false),
            (Some("text/plain"), false),
            (Some("application/openmetrics-text"), true),
            (Some("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1"), true),
            (Some("application/openmetrics-text; version=1.0.0; q=0.3, text/plain;q=0.5"), false),
            (Some("application/openmetrics-text;q=0"), false),
        ] {
            let accept = accept.map(|accept| (header::ACCEPT, HeaderValue::from_static(accept)));
            assert_eq!(wants_openmetrics(&accept.into_iter().collect()), expected, "{expected}");
        }
    }
}
