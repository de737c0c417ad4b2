//! The operator's settings for a filter, and whether a component fits them.
//!
//! A component is refused here before anything is compiled or linked for it. This module does not
//! know: configuration files, HTTP.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::component::{ComponentInfo, PACKAGE, VERSION, is_interface, no_filter};
use crate::crypto::SecretKey;
use crate::engine::Artifact;
use crate::keyvalue::KeyValue;
use crate::limiter::RateLimiter;
use crate::load_error::{LoadError, LoadErrorReason};
use crate::outbound::HttpGrant;
use crate::store_limits::TABLE_ELEMENTS_MAX;

/// The interfaces that every filter may import.
const BASE: [&str; 9] =
    ["types", "request", "request-edit", "response", "exchange", "log", "config", "clock", "random"];

/// The interfaces that need a grant.
const SERVICES: [(&str, Grant); 4] =
    [("keyvalue", Grant::KeyValue), ("limiter", Grant::Limiter), ("http", Grant::Http), ("crypto", Grant::Crypto)];

/// The packages of WASI 0.2 that are linked with [`Grant::Wasi`].
const WASI_PACKAGES: [&str; 6] =
    ["wasi:cli/", "wasi:clocks/", "wasi:filesystem/", "wasi:io/", "wasi:random/", "wasi:sockets/"];

/// What a filter may import beyond the base world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grant {
    /// `witgate:gateway/keyvalue`.
    KeyValue,
    /// `witgate:gateway/limiter`.
    Limiter,
    /// `witgate:gateway/http`.
    Http,
    /// `witgate:gateway/crypto`.
    Crypto,
    /// WASI 0.2 without files, sockets, environment and arguments; with [`Grant::Http`] also
    /// `wasi:http`.
    Wasi,
}

/// What the operator decided about a filter.
#[derive(Clone)]
pub struct FilterSettings {
    /// The name in gateway.yaml.
    pub name: Arc<str>,
    /// The longest time of one call.
    pub timeout: Duration,
    /// The largest linear memory of one instance, in bytes.
    pub memory_bytes: usize,
    /// The largest body that the filter may read or make, in bytes.
    pub body_bytes: usize,
    /// Concurrent calls, over all threads.
    pub concurrency: usize,
    /// The number of calls that one instance serves, one after the other.
    pub reuse: u32,
    /// Imports beyond the base world.
    pub grants: BTreeSet<Grant>,
    /// The key-value store. All versions of the filter share it.
    pub store: Arc<dyn KeyValue>,
    /// The rate limiter. All versions of the filter share its counts.
    pub limiter: Arc<dyn RateLimiter>,
    /// What it may call, if it may call anything.
    pub http: Option<HttpGrant>,
    /// Its keys, by name.
    pub keys: Arc<BTreeMap<String, SecretKey>>,
}

impl FilterSettings {
    pub(crate) fn grants(&self, grant: Grant) -> bool {
        self.grants.contains(&grant)
    }
}

/// Checks the imports of a component against the grants.
///
/// # Errors
///
/// The component imports an interface that is not granted or that the gateway does not have, or it
/// is not a filter.
pub fn check_imports(info: &ComponentInfo, settings: &FilterSettings) -> Result<(), LoadError> {
    if !info.request_phase && !info.response_phase {
        return Err(no_filter(info));
    }
    for import in &info.imports {
        if BASE.iter().any(|interface| is_interface(import, interface)) {
            continue;
        }
        if let Some((capability, grant)) = SERVICES.iter().find(|(interface, _)| is_interface(import, interface)) {
            if !settings.grants(*grant) {
                return Err(not_granted(import, &settings.name, capability));
            }
        } else if import.starts_with("wasi:") {
            check_wasi(import, settings)?;
        } else {
            let why = if import.starts_with(PACKAGE) {
                format!("which this gateway does not have: it speaks {PACKAGE}*@0.1.x")
            } else {
                "which no gateway offers: build it for the world gateway-filter".into()
            };
            let message = format!("the component imports {import}, {why}");
            return Err(LoadError::new(LoadErrorReason::WrongWorld, message));
        }
    }
    Ok(())
}

fn check_wasi(import: &str, settings: &FilterSettings) -> Result<(), LoadError> {
    let is_http = import.starts_with("wasi:http/");
    let is_known = is_http || WASI_PACKAGES.iter().any(|package| import.starts_with(package));
    if !is_known || !import.contains("@0.2.") {
        let service = SERVICES.iter().find(|(service, _)| import.starts_with(&format!("wasi:{service}/")));
        let instead = service.map_or_else(String::new, |(name, _)| {
            format!("; import {PACKAGE}{name}@{VERSION}0 instead, with `capabilities: [{name}]`")
        });
        let message = format!(
            "the component imports {import}, which this gateway does not have: it has wasi:http and the command world of WASI 0.2{instead}"
        );
        return Err(LoadError::new(LoadErrorReason::WrongWorld, message));
    }
    if !settings.grants(Grant::Wasi) {
        let alternative = if is_http { "wasi, http" } else { "wasi" };
        return Err(not_granted(import, &settings.name, alternative));
    }
    if is_http && !settings.grants(Grant::Http) {
        return Err(not_granted(import, &settings.name, "http"));
    }
    Ok(())
}

fn not_granted(import: &str, filter: &str, capability: &str) -> LoadError {
    let message = format!(
        "the component imports {import}, which is not granted: if it should have it, add `capabilities: [{capability}]` to filters.{filter} in gateway.yaml"
    );
    LoadError::new(LoadErrorReason::NotGranted, message)
}

/// Refuses a component that can never be instantiated within the settings.
pub(crate) fn check_resources(artifact: &Artifact, settings: &FilterSettings) -> Result<(), LoadError> {
    check_memory_and_tables(artifact, settings.memory_bytes, &format!("filters.{}.memory", settings.name))
}

/// Refuses a component that needs more memory at its start than it may have, or larger tables than
/// the pool has. `key` is the memory limit's in gateway.yaml.
pub(crate) fn check_memory_and_tables(artifact: &Artifact, memory_bytes: usize, key: &str) -> Result<(), LoadError> {
    let Some(required) = artifact.component.resources_required() else {
        let message = "the component imports core modules or components: link them in";
        return Err(LoadError::new(LoadErrorReason::WrongWorld, message));
    };
    // wasmtime counts in pages of 64 KiB.
    let memory = required.max_initial_memory_size.unwrap_or(0).saturating_mul(64 << 10);
    if memory > memory_bytes as u64 {
        let message = format!(
            "the component starts with {} KiB of memory, above its limit of {} KiB: raise {key} (at most 256MiB)",
            memory >> 10,
            memory_bytes >> 10
        );
        return Err(LoadError::new(LoadErrorReason::Limits, message));
    }
    let table = required.max_initial_table_size.unwrap_or(0);
    if table > TABLE_ELEMENTS_MAX as u64 {
        let message = format!("a table of {table} elements is above the limit of {TABLE_ELEMENTS_MAX}");
        return Err(LoadError::new(LoadErrorReason::Limits, message));
    }
    Ok(())
}
