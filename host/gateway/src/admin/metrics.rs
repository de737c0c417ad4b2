//! `/metrics`: the metrics in the OpenMetrics text format.
//!
//! Gauges of the current state are set when they are read, so that requests do not pay for them.
//! Gauges with labels are cleared first, so that removed filters and endpoints disappear.
//!
//! This module does not know: how counters are incremented.

use http::StatusCode;

use super::reply::{Reply, reply};
use crate::control::reload::filter_labels;
use crate::pipeline::snapshot::Shared;

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All metrics.
pub(super) fn get(shared: &Shared) -> Reply {
    shared.metrics.instances.set(shared.engine.instances() as i64);
    shared.metrics.in_flight.set(shared.in_flight.in_use() as i64);
    shared.metrics.connections.set(shared.connections.in_use() as i64);
    set_idle_instances(shared);
    set_endpoints(shared);
    reply(StatusCode::OK, OPENMETRICS, shared.metrics.encode())
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
    for weighted in shared.snapshot.load().upstreams.values().flat_map(|cluster| &cluster.endpoints) {
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
