//! `/filters`: the loaded filters as JSON.
//!
//! This module does not know: how filters are loaded.

use super::reply::{Reply, json};
use crate::pipeline::snapshot::Shared;

/// A list with an entry for each filter, sorted by name.
pub(super) fn get(shared: &Shared) -> Reply {
    let snapshot = shared.snapshot.load();
    let mut list: Vec<_> = snapshot
        .filters
        .iter()
        .map(|(name, filter)| {
            serde_json::json!({
                "name": name,
                "version": &*filter.version,
                "digest": filter.info.digest,
                "size": filter.info.size,
                "request_phase": filter.has_request_phase(),
                "response_phase": filter.has_response_phase(),
                "reuse": filter.settings.reuse,
                "instances_kept": filter.idle_instances(),
                "state": "serving",
            })
        })
        .collect();
    list.sort_by_key(|filter| filter["name"].to_string());
    json(&list.into())
}
