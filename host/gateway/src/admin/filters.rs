//! `/filters`: the loaded filters as JSON, both versions of one that is released.
//!
//! This module does not know: how filters are loaded.

use std::time::SystemTime;

use super::reply::{Reply, json};
use crate::pipeline::snapshot::Shared;

/// A list with an entry for each version, sorted by the filter's name.
pub(super) fn get(shared: &Shared) -> Reply {
    let snapshot = shared.snapshot.load();
    let reloads = shared.reloads.get();
    let unix_seconds = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let serving = snapshot.filters.iter().map(|(name, filter)| (name, filter, "serving"));
    let canaries = snapshot.canaries.iter().map(|(name, canary)| (name, &canary.filter, "releasing"));
    let mut list: Vec<_> = serving
        .chain(canaries)
        .map(|(name, filter, state)| {
            let reload = reloads.filters.get(name).map(|own| &own.reload);
            let refused = reload.and_then(|reload| reload.refused.as_ref());
            serde_json::json!({
                "name": name,
                "version": &*filter.version,
                "digest": filter.info.digest,
                "size": filter.info.size,
                "request_phase": filter.has_request_phase(),
                "response_phase": filter.has_response_phase(),
                "reuse": filter.settings.reuse,
                "instances_kept": filter.idle_instances(),
                "state": state,
                "serving_since": reload.map(|reload| unix_seconds(reload.serving_since)),
                "refused": refused.map(|refused| {
                    serde_json::json!({ "at": unix_seconds(refused.at), "reason": refused.reason })
                }),
            })
        })
        .collect();
    list.sort_by_key(|filter| filter["name"].to_string());
    json(&list.into())
}
