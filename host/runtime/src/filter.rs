//! A filter that is ready to be called: compiled, and linked with the interfaces that it was
//! granted.
//!
//! Linking happens once, here; a call only copies the result (`instance.rs`). An interface that is
//! not granted is not in the linker, so no check at run time can be forgotten. A call's state
//! refers to its filter, and the filter's linker is typed by that state, so both are in this file.
//! This module does not know: HTTP, files, how calls are made.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Instant;

use tokio::sync::Semaphore;
use wasmtime::component::{HasSelf, InstancePre, Linker, ResourceTable};
use wasmtime_wasi::WasiCtx;
use wasmtime_wasi_http::WasiHttpCtx;

use crate::bindings::exports::witgate::gateway::{request_handler, response_handler};
use crate::bindings::witgate::gateway as wit;
use crate::capability_calls::CapabilityCalls;
use crate::clock::ActiveCalls;
use crate::component::ComponentInfo;
use crate::engine::{Artifact, Engine};
use crate::exchange::{Exchange, Journal};
use crate::keyvalue::KeyValue;
use crate::limiter::RateLimiter;
use crate::load_error::{LoadError, LoadErrorReason};
use crate::log_limit::LogLimit;
use crate::pool_range::PoolRange;
use crate::replay::Replay;
use crate::settings::{FilterSettings, Grant, check_imports, check_resources};
use crate::source_location::Interpreter;
use crate::stacks::Stacks;
use crate::store_limits::StoreLimits;
use crate::time_slices::LongCall;
use crate::waiting::WaitClock;
use crate::wasi_held::{self, HeldBytes};
use crate::wasi_http::{Holder, Outgoing};
use witgate_http::limiter::Limiter;
use witgate_http::text::bounded;

/// Machine code above this size is large. A filter in Rust has 0.2 MiB, QuickJS has 4 MiB, CPython
/// 33 MiB.
const LARGE_BYTES: usize = 1 << 20;
/// Handles of resources that one call may hold. Only WASI has resources.
pub(crate) const HANDLES_MAX: usize = 1000;
/// Random bytes that one WASI call returns.
pub(crate) const WASI_RANDOM_BYTES_MAX: u64 = 64 << 10;

/// A filter, ready to be instantiated any number of times on any thread.
pub struct Filter {
    /// The operator's settings.
    pub settings: FilterSettings,
    /// What the component's file declares.
    pub info: ComponentInfo,
    /// The version of the manifest, `-` without one.
    pub version: Arc<str>,
    /// The first 12 digits of the digest, for people.
    pub short_digest: Arc<str>,
    /// Bounds the log lines about failures of this filter.
    pub log_limit: LogLimit,
    pub(crate) interpreter: Interpreter,
    /// Whether its machine code displaces everything else from a processor's caches, as that of an
    /// interpreter does.
    pub is_large: bool,
    pub(crate) engine: wasmtime::Engine,
    pub(crate) pool_range: PoolRange,
    pub(crate) stacks: Stacks,
    /// The running calls of all filters.
    pub(crate) calls: Arc<ActiveCalls>,
    /// Its running calls, over all threads.
    pub(crate) running_calls: Limiter,
    /// Its running calls that have lasted longer than one epoch tick.
    pub(crate) long_calls: Arc<AtomicUsize>,
    /// Its permit for a long derivation of a key.
    pub(crate) derivation: Arc<Semaphore>,
    /// The number of its idle instances on all threads.
    pub(crate) idle: Limiter,
    /// The number of idle instances of all filters.
    pub(crate) idle_total: Limiter,
    pub(crate) pre: InstancePre<CallState>,
    pub(crate) request: Option<request_handler::GuestIndices>,
    pub(crate) response: Option<response_handler::GuestIndices>,
}

/// A phase of an exchange in which a filter is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The filter exports `handle-request`.
    Request,
    /// The filter exports `handle-response`.
    Response,
}

impl Phase {
    /// The value of the label `phase` in metrics and logs.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Response => "response",
        }
    }
}

impl Filter {
    /// Links an artifact under these settings.
    ///
    /// # Errors
    ///
    /// The component imports what is not granted, needs more than an instance may have, or has
    /// imports or exports whose types differ from the WIT.
    pub fn new(
        engine: &Engine,
        artifact: &Artifact,
        info: ComponentInfo,
        settings: FilterSettings,
    ) -> Result<Self, LoadError> {
        check_imports(&info, &settings)?;
        check_resources(artifact, &settings)?;
        let linker = linker(engine, &settings).map_err(|error| {
            LoadError::new(LoadErrorReason::Link, bounded(format_args!("{error:#}")))
                .with_source(error.into_boxed_dyn_error())
        })?;
        let pre = linker
            .instantiate_pre(&artifact.component)
            .map_err(|error| wrong_type("an import or export does not have the type that the WIT gives it", error))?;
        let wrong_handler = |error| wrong_type("a handler does not have the type that the WIT gives it", error);
        let request =
            info.request_phase.then(|| request_handler::GuestIndices::new(&pre)).transpose().map_err(wrong_handler)?;
        let response = info
            .response_phase
            .then(|| response_handler::GuestIndices::new(&pre))
            .transpose()
            .map_err(wrong_handler)?;
        let version = info.manifest.as_ref().map_or("-", |manifest| manifest.version.as_str()).into();
        let short_digest = info.digest[..12].into();
        Ok(Self {
            settings,
            info,
            version,
            short_digest,
            log_limit: LogLimit::new(),
            interpreter: Interpreter::default(),
            is_large: artifact.length() > LARGE_BYTES,
            engine: engine.inner().clone(),
            pool_range: engine.pool_range(),
            stacks: engine.stacks(),
            calls: engine.calls().clone(),
            running_calls: Limiter::default(),
            long_calls: Arc::default(),
            derivation: Arc::new(Semaphore::new(1)),
            idle: Limiter::default(),
            idle_total: engine.idle_total().clone(),
            pre,
            request,
            response,
        })
    }

    /// The same component under the same settings, with other services.
    ///
    /// # Errors
    ///
    /// The component cannot be linked.
    pub fn with_services(
        &self,
        engine: &Engine,
        store: Arc<dyn KeyValue>,
        limiter: Arc<dyn RateLimiter>,
    ) -> Result<Self, LoadError> {
        let settings = FilterSettings { store, limiter, http: None, ..self.settings.clone() };
        let artifact = Artifact { component: self.pre.component().clone() };
        Self::new(engine, &artifact, self.info.clone(), settings)
    }

    /// The number of its instances that wait for a call.
    pub fn idle_instances(&self) -> usize {
        self.idle.in_use()
    }

    /// Whether the filter has a request phase.
    #[inline]
    pub fn has_request_phase(&self) -> bool {
        self.request.is_some()
    }

    /// Whether the filter has a response phase.
    #[inline]
    pub fn has_response_phase(&self) -> bool {
        self.response.is_some()
    }

    /// The largest request body in bytes, if the filter declares that it needs the body: what its
    /// manifest asks for, within the operator's bound.
    #[inline]
    pub fn request_body_limit(&self) -> Option<usize> {
        self.info.manifest.as_ref()?.request?.body_limit().map(|limit| limit.min(self.settings.body_bytes))
    }

    /// The same for the response body.
    #[inline]
    pub fn response_body_limit(&self) -> Option<usize> {
        self.info.manifest.as_ref()?.response?.body_limit().map(|limit| limit.min(self.settings.body_bytes))
    }
}

fn wrong_type(what: &str, error: wasmtime::Error) -> LoadError {
    LoadError::new(LoadErrorReason::WrongWorld, bounded(format_args!("{what}: {error:#}")))
        .with_source(error.into_boxed_dyn_error())
}

fn linker(engine: &Engine, settings: &FilterSettings) -> wasmtime::Result<Linker<CallState>> {
    type State = HasSelf<CallState>;
    let mut linker = Linker::new(engine.inner());
    wit::types::add_to_linker::<_, State>(&mut linker, |state| state)?;
    wit::request::add_to_linker::<_, State>(&mut linker, |state| state)?;
    wit::request_edit::add_to_linker::<_, State>(&mut linker, |state| state)?;
    wit::response::add_to_linker::<_, State>(&mut linker, |state| state)?;
    wit::exchange::add_to_linker::<_, State>(&mut linker, |state| state)?;
    wit::log::add_to_linker::<_, State>(&mut linker, |state| state)?;
    wit::config::add_to_linker::<_, State>(&mut linker, |state| state)?;
    wit::clock::add_to_linker::<_, State>(&mut linker, |state| state)?;
    wit::random::add_to_linker::<_, State>(&mut linker, |state| state)?;
    if settings.grants(Grant::KeyValue) {
        wit::keyvalue::add_to_linker::<_, State>(&mut linker, |state| state)?;
    }
    if settings.grants(Grant::Limiter) {
        wit::limiter::add_to_linker::<_, State>(&mut linker, |state| state)?;
    }
    if settings.grants(Grant::Http) {
        wit::http::add_to_linker::<_, State>(&mut linker, |state| state)?;
    }
    if settings.grants(Grant::Crypto) {
        wit::crypto::add_to_linker::<_, State>(&mut linker, |state| state)?;
    }
    if settings.grants(Grant::Wasi) {
        // The asynchronous bindings: the synchronous ones block the thread and panic inside an
        // asynchronous runtime.
        wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
        if settings.grants(Grant::Http) {
            wasi_held::link(&mut linker)?;
        }
    }
    Ok(linker)
}

/// What a filter that was granted WASI has of it.
pub(crate) struct Wasi {
    pub(crate) ctx: WasiCtx,
    pub(crate) table: ResourceTable,
    pub(crate) http: WasiHttpCtx,
    /// Decides about the requests that it sends by `wasi:http`.
    pub(crate) outgoing: Outgoing,
    /// What it makes the gateway hold by `wasi:http`.
    pub(crate) held: HeldBytes,
}

impl Wasi {
    pub(crate) fn new() -> Self {
        let mut table = ResourceTable::new();
        table.set_max_capacity(HANDLES_MAX);
        // Otherwise a guest could create sockets, which use descriptors, but connect none.
        let mut ctx = WasiCtx::builder();
        let ctx = ctx.max_random_size(WASI_RANDOM_BYTES_MAX).allow_tcp(false).allow_udp(false);
        let (http, outgoing, held) = (WasiHttpCtx::new(), Outgoing::none(), HeldBytes::none());
        Self { ctx: ctx.build(), table, http, outgoing, held }
    }
}

/// The data of a store: the exchange, the guest's edits so far, and the limits of the instance.
pub(crate) struct CallState {
    pub(crate) filter: Arc<Filter>,
    pub(crate) phase: Phase,
    pub(crate) exchange: Box<Exchange>,
    pub(crate) journal: Journal,
    pub(crate) config: Arc<BTreeMap<String, String>>,
    pub(crate) log_lines: u32,
    pub(crate) log_lines_dropped: u32,
    pub(crate) keyvalue_calls: CapabilityCalls,
    pub(crate) limiter_calls: CapabilityCalls,
    pub(crate) outbound_calls: CapabilityCalls,
    /// Only if WASI is granted.
    pub(crate) wasi: Option<Wasi>,
    /// Set if the call's reads are recorded for another version, or come from such a record.
    pub(crate) replay: Option<Box<Replay>>,
    /// When the call must end.
    pub(crate) deadline: Instant,
    pub(crate) limits: StoreLimits,
    /// An address on the stack of the call.
    pub(crate) stack_address: usize,
    /// Set once the call met a tick.
    pub(crate) long_call: Option<LongCall>,
    /// How long the call waits for other services. Only if it may call them.
    pub(crate) waits: Option<Arc<WaitClock>>,
    /// Whether it has waited since the last tick that it met.
    pub(crate) has_waited: bool,
    /// The tick at which the call is ended for a sample.
    pub(crate) sampled_at: Option<u64>,
}

impl CallState {
    pub(crate) fn new(
        filter: &Arc<Filter>,
        phase: Phase,
        exchange: Box<Exchange>,
        config: &Arc<BTreeMap<String, String>>,
        deadline: Instant,
    ) -> Self {
        let mut state = Self {
            filter: filter.clone(),
            phase,
            exchange,
            journal: Journal::default(),
            config: config.clone(),
            log_lines: 0,
            log_lines_dropped: 0,
            keyvalue_calls: CapabilityCalls::default(),
            limiter_calls: CapabilityCalls::default(),
            outbound_calls: CapabilityCalls::default(),
            wasi: filter.settings.grants(Grant::Wasi).then(Wasi::new),
            replay: None,
            deadline,
            limits: StoreLimits::new(filter.settings.memory_bytes),
            stack_address: 0,
            long_call: None,
            waits: None,
            has_waited: false,
            sampled_at: None,
        };
        state.begin_calls();
        state
    }

    /// Begins to count the calls of other services, for a new exchange.
    pub(crate) fn begin_calls(&mut self) {
        self.waits = self.filter.settings.grants(Grant::Http).then(|| Arc::new(WaitClock::new()));
        if let Some(wasi) = &mut self.wasi {
            let grant = self.filter.settings.http.as_ref();
            wasi.outgoing = Outgoing::of_exchange(grant, self.waits.clone(), &self.exchange);
            let (client, budget) = (self.exchange.client.address.ip(), self.exchange.budget.clone());
            wasi.held.begin(&Holder { client, budget });
        }
    }

    /// The source of a call that must have no effect. `None` for a live call.
    pub(crate) fn replayed(&mut self) -> Option<&mut Replay> {
        self.replay.as_deref_mut().filter(|replay| replay.is_replaying())
    }

    /// The record of a live call, if it is recorded.
    pub(crate) fn recorded(&mut self) -> Option<&mut Replay> {
        self.replay.as_deref_mut().filter(|replay| !replay.is_replaying())
    }

    /// [`Self::replayed`], and the live store.
    pub(crate) fn replay_and_store(&mut self) -> (Option<&mut Replay>, &Arc<dyn KeyValue>) {
        (self.replay.as_deref_mut().filter(|replay| replay.is_replaying()), &self.filter.settings.store)
    }
}
