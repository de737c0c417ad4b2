//! A filter ready to be called: compiled, linked with exactly what it was granted, its limits beside it.
//!
//! Linking happens once, here; a call only copies the result (`instance.rs`). What is not granted is not in the linker at all, so there is no
//! check that could be forgotten at run time. Must not know: HTTP, files, who calls.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use wasmtime::component::{HasSelf, InstancePre, Linker};

use super::bindings::exports::witgate::gateway::{request_handler, response_handler};
use super::bindings::witgate::gateway as host;
use super::clock::Calls;
use super::component::{ComponentInfo, PACKAGE, is_interface};
use super::engine::{Artifact, Engine, TABLE_ELEMENTS_MAX};
use super::instance::Call;
use super::pool_range::PoolRange;
use crate::keyvalue::Store;
use crate::load_error::{LoadError, LoadErrorReason};
use crate::log_limit::LogLimit;

/// Compiled code of a large filter. One in Rust has 0.2 MiB, QuickJS 4 MiB, CPython 33 MiB.
const LARGE_BYTES: usize = 1 << 20;

/// What a filter may import beyond the base world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grant {
    /// `witgate:gateway/keyvalue`.
    KeyValue,
    /// WASI 0.2 without files, sockets, environment and arguments.
    Wasi,
}

/// What the operator decided about a filter.
#[derive(Clone)]
pub struct FilterSettings {
    /// The name in gateway.yaml.
    pub name: Arc<str>,
    /// For one call.
    pub timeout: Duration,
    /// Of linear memory, for one instance.
    pub memory_bytes: usize,
    /// How many calls an instance serves, one after the other.
    pub reuse: u32,
    /// Imports beyond the base.
    pub grants: BTreeSet<Grant>,
    /// Its key-value store; shared by all versions of the filter.
    pub store: Arc<Store>,
}

/// A filter, ready to be instantiated any number of times on any thread.
pub struct Filter {
    /// The operator's side.
    pub settings: FilterSettings,
    /// The file's side.
    pub info: ComponentInfo,
    /// The manifest's version, `-` without one.
    pub version: Arc<str>,
    /// The first 12 digits of the digest: for people.
    pub short_digest: Arc<str>,
    /// For lines about failures of this filter.
    pub log_limit: LogLimit,
    /// Whether its code is more than a processor's caches keep beside all else, as an interpreter's is.
    pub is_large: bool,
    pub(super) engine: wasmtime::Engine,
    pub(super) pool_range: PoolRange,
    /// The calls of all filters.
    pub(super) calls: Arc<Calls>,
    /// Its idle instances on all threads.
    pub(super) idle: AtomicUsize,
    /// The idle instances of all filters.
    pub(super) idle_total: Arc<AtomicUsize>,
    pub(super) pre: InstancePre<Call>,
    pub(super) request: Option<request_handler::GuestIndices>,
    pub(super) response: Option<response_handler::GuestIndices>,
}

impl Filter {
    /// Links an artifact under these settings.
    pub fn new(
        engine: &Engine,
        artifact: &Artifact,
        info: ComponentInfo,
        settings: FilterSettings,
    ) -> Result<Self, LoadError> {
        check_imports(&info, &settings)?;
        check_needs(artifact, &settings)?;
        let linker =
            linker(engine, &settings).map_err(|error| LoadError::new(LoadErrorReason::Link, format!("{error:#}")))?;
        let pre = linker.instantiate_pre(&artifact.component).map_err(|error| {
            LoadError::new(
                LoadErrorReason::WrongWorld,
                format!("an import or export does not have the type that the WIT gives it: {error:#}"),
            )
        })?;
        let wrong = |error: wasmtime::Error| {
            LoadError::new(
                LoadErrorReason::WrongWorld,
                format!("a handler does not have the type that the WIT gives it: {error:#}"),
            )
        };
        let request =
            info.request_phase.then(|| request_handler::GuestIndices::new(&pre)).transpose().map_err(wrong)?;
        let response =
            info.response_phase.then(|| response_handler::GuestIndices::new(&pre)).transpose().map_err(wrong)?;
        let version = info.manifest.as_ref().map_or("-", |manifest| manifest.version.as_str()).into();
        let short_digest = info.digest[..12].into();
        Ok(Self {
            settings,
            info,
            version,
            short_digest,
            log_limit: LogLimit::new(),
            is_large: artifact.length() > LARGE_BYTES,
            engine: engine.inner().clone(),
            pool_range: engine.pool_range(),
            calls: engine.calls().clone(),
            idle: AtomicUsize::new(0),
            idle_total: engine.idle_total().clone(),
            pre,
            request,
            response,
        })
    }

    /// Instances that wait for their next call.
    pub fn idle_instances(&self) -> usize {
        self.idle.load(Ordering::Relaxed)
    }

    /// Whether it has a request phase.
    pub fn has_request_phase(&self) -> bool {
        self.request.is_some()
    }

    /// Whether it has a response phase.
    pub fn has_response_phase(&self) -> bool {
        self.response.is_some()
    }

    /// The largest request body that it takes, where it wants one.
    pub fn request_body_limit(&self) -> Option<usize> {
        self.info.manifest.as_ref()?.request?.body_limit()
    }

    /// The largest response body that it takes, where it wants one.
    pub fn response_body_limit(&self) -> Option<usize> {
        self.info.manifest.as_ref()?.response?.body_limit()
    }
}

/// Checks a description's imports against the grants, before anything is compiled.
pub fn check_imports(info: &ComponentInfo, settings: &FilterSettings) -> Result<(), LoadError> {
    const BASE: [&str; 9] =
        ["types", "request", "request-edit", "response", "exchange", "log", "config", "clock", "random"];
    for import in &info.imports {
        let granted = |grant| settings.grants.contains(&grant);
        if BASE.iter().any(|interface| is_interface(import, interface)) {
            continue;
        }
        if is_interface(import, "keyvalue") {
            if !granted(Grant::KeyValue) {
                return Err(not_granted(import, &settings.name, "keyvalue"));
            }
        } else if import.starts_with("wasi:") {
            if !granted(Grant::Wasi) {
                return Err(not_granted(import, &settings.name, "wasi"));
            }
        } else if import.starts_with(PACKAGE) {
            return Err(LoadError::new(
                LoadErrorReason::WrongWorld,
                format!("the component imports {import}, which this gateway does not have: it speaks {PACKAGE}*@0.1.x"),
            ));
        } else {
            return Err(LoadError::new(
                LoadErrorReason::WrongWorld,
                format!(
                    "the component imports {import}, which no gateway offers: build it for the world gateway-filter"
                ),
            ));
        }
    }
    Ok(())
}

fn not_granted(import: &str, filter: &str, capability: &str) -> LoadError {
    LoadError::new(
        LoadErrorReason::NotGranted,
        format!(
            "the component imports {import}, which is not granted: if it should have it, add `capabilities: [{capability}]` to filters.{filter} in gateway.yaml"
        ),
    )
}

/// Refuses what could never be instantiated.
fn check_needs(artifact: &Artifact, settings: &FilterSettings) -> Result<(), LoadError> {
    let Some(needs) = artifact.component.resources_required() else {
        return Err(LoadError::new(
            LoadErrorReason::WrongWorld,
            "the component imports core modules or components: link them in",
        ));
    };
    // wasmtime gives pages.
    let memory = needs.max_initial_memory_size.unwrap_or(0).saturating_mul(64 << 10);
    if memory > settings.memory_bytes as u64 {
        return Err(LoadError::new(
            LoadErrorReason::Limits,
            format!(
                "the component starts with {} KiB of memory, above its limit of {} KiB: raise filters.{}.memory (at most 256MiB)",
                memory >> 10,
                settings.memory_bytes >> 10,
                settings.name
            ),
        ));
    }
    let table = needs.max_initial_table_size.unwrap_or(0);
    if table > TABLE_ELEMENTS_MAX as u64 {
        return Err(LoadError::new(
            LoadErrorReason::Limits,
            format!("a table of {table} elements is above the limit of {TABLE_ELEMENTS_MAX}"),
        ));
    }
    Ok(())
}

fn linker(engine: &Engine, settings: &FilterSettings) -> wasmtime::Result<Linker<Call>> {
    type Own = HasSelf<Call>;
    let mut linker = Linker::new(engine.inner());
    host::types::add_to_linker::<Call, Own>(&mut linker, |call| call)?;
    host::request::add_to_linker::<Call, Own>(&mut linker, |call| call)?;
    host::request_edit::add_to_linker::<Call, Own>(&mut linker, |call| call)?;
    host::response::add_to_linker::<Call, Own>(&mut linker, |call| call)?;
    host::exchange::add_to_linker::<Call, Own>(&mut linker, |call| call)?;
    host::log::add_to_linker::<Call, Own>(&mut linker, |call| call)?;
    host::config::add_to_linker::<Call, Own>(&mut linker, |call| call)?;
    host::clock::add_to_linker::<Call, Own>(&mut linker, |call| call)?;
    host::random::add_to_linker::<Call, Own>(&mut linker, |call| call)?;
    if settings.grants.contains(&Grant::KeyValue) {
        host::keyvalue::add_to_linker::<Call, Own>(&mut linker, |call| call)?;
    }
    if settings.grants.contains(&Grant::Wasi) {
        // The asynchronous bindings: the synchronous ones block the thread and panic inside a runtime.
        wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    }
    Ok(linker)
}
