//! Creates the counters of what a configuration names, and removes those of what it no longer
//! names.
//!
//! This module does not know: what is counted.

use std::collections::HashSet;

use crate::releases::decision::DecisionKind;
use crate::releases::loader::component_name;
use crate::telemetry::Metrics;
use crate::tls::CERTIFICATE_REASONS;
use witgate_config::Config;
use witgate_runtime::load_error::LoadErrorReason;

/// Creates what is missing. What exists keeps its value.
pub fn begin(metrics: &Metrics, config: &Config) {
    for listener in &config.listeners {
        metrics.begin_listener(&listener.name, reasons(listener.tls.is_some()));
    }
    for route in config.routes.iter().filter(|route| route.mirror.is_some()) {
        metrics.begin_mirror(&route.name);
    }
    for (name, filter) in &config.filters {
        let decisions = filter.release.is_some().then_some(DecisionKind::ALL.map(DecisionKind::label));
        metrics.begin_filter(name, LoadErrorReason::ALL.map(LoadErrorReason::label), decisions.into_iter().flatten());
    }
    for (name, _) in config.components() {
        metrics.begin_filter(&component_name(name), LoadErrorReason::ALL.map(LoadErrorReason::label), []);
    }
    for (name, upstream) in &config.upstreams {
        metrics.begin_upstream(name, reasons(upstream.tls.is_some()));
    }
}

/// Removes what `new` does not contain.
pub(super) fn forget(metrics: &Metrics, old: &Config, new: &Config) {
    for name in old.filters.keys().filter(|name| !new.filters.contains_key(*name)) {
        let decisions = DecisionKind::ALL.map(DecisionKind::label);
        metrics.forget_filter(name, LoadErrorReason::ALL.map(LoadErrorReason::label), decisions);
    }
    for name in old.upstreams.keys().filter(|name| !new.upstreams.contains_key(*name)) {
        metrics.forget_upstream(name, &CERTIFICATE_REASONS);
        metrics.forget_filter(&component_name(name), LoadErrorReason::ALL.map(LoadErrorReason::label), []);
    }
    let kept: HashSet<&str> = new.routes.iter().map(|route| route.name.as_str()).collect();
    for route in old.routes.iter().filter(|route| !kept.contains(route.name.as_str())) {
        metrics.forget_route(&route.name);
    }
}

fn reasons(has_tls: bool) -> &'static [&'static str] {
    if has_tls { &CERTIFICATE_REASONS } else { &[] }
}
