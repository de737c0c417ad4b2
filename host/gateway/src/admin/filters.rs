//! `/filters`: the loaded filters as JSON, both versions of one that is released.
//!
//! This module does not know: how filters are loaded.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use serde::Serialize;
use utoipa::ToSchema;

use super::reply::{Reply, serialized};
use crate::pipeline::snapshot::Shared;
use crate::telemetry::Reload;
use witgate_config::{Capability, Filter as Settings, FilterSource, StoreRef};
use witgate_runtime::filter::Filter;

/// A loaded version of a filter.
#[derive(Serialize, ToSchema)]
pub(super) struct ShownFilter {
    /// The filter's name.
    name: String,
    /// The version of its manifest, `-` without one.
    version: String,
    /// The SHA-256 of the component.
    digest: String,
    /// Where it comes from.
    source: Option<ShownSource>,
    /// The size of the component in bytes.
    size: u64,
    /// Whether it handles requests.
    request_phase: bool,
    /// Whether it handles responses.
    response_phase: bool,
    /// How many calls one instance serves.
    reuse: u64,
    /// Where its key-value entries are: `memory`, or the name of a store and the namespace there.
    /// Null without the grant.
    keyvalue: Option<String>,
    /// Where its rate limiter counts, in the same form.
    limiter: Option<String>,
    /// The upstream of each origin that it may call. Null without the grant.
    http: Option<BTreeMap<String, String>>,
    /// The names of the keys that it may use. Null without the grant.
    crypto: Option<Vec<String>>,
    /// Idle instances.
    instances_kept: u64,
    /// `serving` or `releasing`.
    state: &'static str,
    /// Since when, as Unix time in seconds.
    serving_since: Option<u64>,
    /// Why a newer component was refused.
    refused: Option<RefusedComponent>,
}

/// A component that was refused.
#[derive(Serialize, ToSchema)]
pub(super) struct RefusedComponent {
    /// When, as Unix time in seconds.
    at: u64,
    /// Why.
    reason: String,
}

/// Where a component comes from. All but `location` is about locations on servers.
#[derive(Serialize, ToSchema)]
pub(super) struct ShownSource {
    /// The path or the location, without the query of a URL.
    location: String,
    /// The SHA-256 of the component that was fetched last.
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
    /// The digest that a tag leads to, or an entity tag.
    #[serde(skip_serializing_if = "Option::is_none")]
    tag: Option<String>,
    /// When the last check ended, as Unix time in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    checked_at: Option<u64>,
    /// Checks that failed in sequence.
    #[serde(skip_serializing_if = "Option::is_none")]
    failures: Option<u32>,
    /// Why the last check failed. Absent if it did not.
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<String>,
}

/// A list with an entry for each version, sorted by the filter's name.
pub(super) fn get(shared: &Shared) -> Reply {
    let snapshot = shared.snapshot.load();
    let reloads = shared.reloads.get();
    let serving = snapshot.filters.iter().map(|(name, filter)| (name, filter, "serving"));
    let canaries = snapshot.canaries.iter().map(|(name, canary)| (name, &canary.filter, "releasing"));
    let mut list: Vec<ShownFilter> = serving
        .chain(canaries)
        .map(|(name, filter, state)| {
            let settings = snapshot.config.filters.get(name);
            let reload = reloads.filters.get(name).map(|own| &own.reload);
            let source = settings.map(|settings| shown_source(shared, &settings.source));
            ShownFilter { source, state, ..describe(name, filter, settings, reload) }
        })
        .collect();
    list.sort_by(|one, other| one.name.cmp(&other.name));
    serialized(&list)
}

fn describe(name: &str, filter: &Arc<Filter>, settings: Option<&Settings>, reload: Option<&Reload>) -> ShownFilter {
    let granted = |capability| settings.filter(|settings| settings.capabilities.contains(&capability));
    let refused = reload.and_then(|reload| reload.refused.as_ref());
    ShownFilter {
        name: name.to_owned(),
        version: filter.version.to_string(),
        digest: filter.info.digest.clone(),
        source: None,
        size: filter.info.size as u64,
        request_phase: filter.has_request_phase(),
        response_phase: filter.has_response_phase(),
        reuse: filter.settings.reuse.into(),
        keyvalue: granted(Capability::KeyValue).map(|own| shown_store(name, own.keyvalue.store.as_ref())),
        limiter: granted(Capability::Limiter).map(|own| shown_store(name, own.limiter.store.as_ref())),
        http: granted(Capability::Http)
            .map(|own| own.http.upstreams().map(|(origin, upstream)| (origin.to_owned(), upstream)).collect()),
        crypto: granted(Capability::Crypto).map(|own| own.keys.keys().cloned().collect()),
        instances_kept: filter.idle_instances() as u64,
        state: "",
        serving_since: reload.map(|reload| unix_seconds(reload.serving_since)),
        refused: refused
            .map(|refused| RefusedComponent { at: unix_seconds(refused.at), reason: refused.reason.clone() }),
    }
}

/// Where a component comes from. For a location on a server, the version that was fetched last: the
/// digest that a tag leads to, and why the last check failed.
pub(super) fn shown_source(shared: &Shared, source: &FilterSource) -> ShownSource {
    let status = source.remote().and_then(|location| shared.sources.status(location));
    let location = source.to_string();
    match status {
        None => ShownSource { location, sha256: None, tag: None, checked_at: None, failures: None, failure: None },
        Some(status) => ShownSource {
            location,
            sha256: status.sha256,
            tag: status.tag,
            checked_at: status.checked_at.map(unix_seconds),
            failures: Some(status.failures),
            failure: status.failure,
        },
    }
}

/// `memory`, or the name of the shared store and the namespace in it.
fn shown_store(filter: &str, store: Option<&StoreRef>) -> String {
    match store {
        None => "memory".into(),
        Some(StoreRef { store, namespace }) => format!("{store}/{}", namespace.as_deref().unwrap_or(filter)),
    }
}

fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}
