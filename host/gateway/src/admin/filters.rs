//! `/filters`: the loaded filters as JSON, both versions of one that is released.
//!
//! This module does not know: how filters are loaded.

use std::time::SystemTime;

use super::reply::{Reply, json};
use crate::pipeline::snapshot::Shared;
use witgate_config::{Capability, FilterSource, StoreRef};

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
            let settings = snapshot.config.filters.get(name);
            let place = |capability, store: Option<&Option<StoreRef>>| {
                let is_granted = settings.is_some_and(|settings| settings.capabilities.contains(&capability));
                is_granted.then(|| shown_store(name, store.and_then(Option::as_ref)))
            };
            serde_json::json!({
                "name": name,
                "version": &*filter.version,
                "digest": filter.info.digest,
                "source": settings.map(|settings| shown_source(shared, &settings.source)),
                "size": filter.info.size,
                "request_phase": filter.has_request_phase(),
                "response_phase": filter.has_response_phase(),
                "reuse": filter.settings.reuse,
                "keyvalue": place(Capability::KeyValue, settings.map(|settings| &settings.keyvalue.store)),
                "limiter": place(Capability::Limiter, settings.map(|settings| &settings.limiter.store)),
                "http": settings.filter(|own| own.capabilities.contains(&Capability::Http)).map(|own| {
                    own.http.upstreams().collect::<std::collections::BTreeMap<_, _>>()
                }),
                "crypto": settings.filter(|own| own.capabilities.contains(&Capability::Crypto)).map(|own| {
                    own.keys.keys().collect::<Vec<_>>()
                }),
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

/// Where the filter comes from. For a location on a server, the version that was fetched last: the
/// digest that a tag leads to, and why the last check failed.
fn shown_source(shared: &Shared, source: &FilterSource) -> serde_json::Value {
    let status = source.remote().and_then(|location| shared.sources.status(location));
    let unix_seconds = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    match status {
        None => serde_json::json!({ "location": source.to_string() }),
        Some(status) => serde_json::json!({
            "location": source.to_string(),
            "sha256": status.sha256,
            "tag": status.tag,
            "checked_at": status.checked_at.map(unix_seconds),
            "failures": status.failures,
            "failure": status.failure,
        }),
    }
}

/// `memory`, or the name of the shared store and the namespace in it.
fn shown_store(filter: &str, store: Option<&StoreRef>) -> String {
    match store {
        None => "memory".into(),
        Some(StoreRef { store, namespace }) => format!("{store}/{}", namespace.as_deref().unwrap_or(filter)),
    }
}
