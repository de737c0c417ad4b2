//! A component that is ready to be called, and the data of a call's store.
//!
//! The data refers to the component, and the component's linker is typed by the data, so both are
//! in this file. This module does not know: requests, responses.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Instant;

use wasmtime::component::{Linker, ResourceTable};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::p2::bindings::ProxyPre;
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use super::output::Output;
use crate::clock::ActiveCalls;
use crate::component::ComponentInfo;
use crate::engine::{Artifact, Engine};
use crate::failure::Failure;
use crate::filter::{HANDLES_MAX, WASI_RANDOM_BYTES_MAX};
use crate::load_error::{LoadError, LoadErrorReason};
use crate::log_limit::LogLimit;
use crate::outbound::HttpGrant;
use crate::settings::check_memory_and_tables;
use crate::stacks::Stacks;
use crate::store_limits::StoreLimits;
use crate::time_slices::LongCall;
use crate::wasi_held::{self, HeldBytes, HoldsBytes};
use crate::wasi_http::Outgoing;
use witgate_http::error::{Error, FilterFailure, Kind};
use witgate_http::limiter::Limiter;
use witgate_http::text::bounded;

/// What the operator decided about a component.
#[derive(Clone)]
pub struct HttpComponentSettings {
    /// The name of its upstream in gateway.yaml.
    pub name: Arc<str>,
    /// The largest linear memory of one instance, in bytes.
    pub memory_bytes: usize,
    /// Concurrent requests, over all threads.
    pub concurrency: usize,
    /// Its environment variables.
    pub env: Arc<[(String, String)]>,
    /// What it may call, if it may call anything.
    pub http: Option<HttpGrant>,
}

/// A component, ready to be instantiated any number of times on any thread.
pub struct HttpComponent {
    /// The operator's settings.
    pub settings: HttpComponentSettings,
    /// What the component's file declares.
    pub info: ComponentInfo,
    /// `component` and the first 12 digits of the digest, for people.
    pub label: Arc<str>,
    log_limit: Arc<LogLimit>,
    pub(super) engine: wasmtime::Engine,
    pub(super) stacks: Stacks,
    /// The running calls of all components.
    pub(super) calls: Arc<ActiveCalls>,
    /// Its own running calls, over all threads.
    pub(super) running_calls: Limiter,
    /// Its running calls that have lasted longer than one epoch tick.
    pub(super) long_calls: Arc<AtomicUsize>,
    pub(super) pre: ProxyPre<State>,
}

impl HttpComponent {
    /// Links an artifact under these settings.
    ///
    /// # Errors
    ///
    /// The component imports something other than WASI 0.2, needs more memory than an instance may
    /// have, or its handler has another type than `wasi:http@0.2`.
    pub fn new(
        engine: &Engine,
        artifact: &Artifact,
        info: ComponentInfo,
        settings: HttpComponentSettings,
    ) -> Result<Self, LoadError> {
        check_imports(&info)?;
        let key = format!("upstreams.{}.component.memory", settings.name);
        check_memory_and_tables(artifact, settings.memory_bytes, &key)?;
        let wrong = |what: &str, error: wasmtime::Error| {
            LoadError::new(LoadErrorReason::WrongWorld, bounded(format_args!("{what}: {error:#}")))
                .with_source(error.into_boxed_dyn_error())
        };
        let linker = linker(engine).map_err(|error| {
            LoadError::new(LoadErrorReason::Link, bounded(format_args!("{error:#}")))
                .with_source(error.into_boxed_dyn_error())
        })?;
        let pre = linker.instantiate_pre(&artifact.component).and_then(ProxyPre::new).map_err(|error| {
            wrong(
                "an import or the handler does not have the type of WASI 0.2; build it for wasi:http/proxy of WASI 0.2",
                error,
            )
        })?;
        Ok(Self {
            label: format!("component {}", &info.digest[..12]).into(),
            settings,
            info,
            log_limit: Arc::default(),
            engine: engine.inner().clone(),
            stacks: engine.stacks(),
            calls: engine.calls().clone(),
            running_calls: Limiter::default(),
            long_calls: Arc::default(),
            pre,
        })
    }

    /// The number of requests that it handles at this moment.
    pub fn in_flight(&self) -> usize {
        self.running_calls.in_use()
    }
}

/// Checks what a component exports and imports.
///
/// # Errors
///
/// It is not an HTTP handler, or it imports something other than WASI.
pub fn check_imports(info: &ComponentInfo) -> Result<(), LoadError> {
    let refuse = |message: String| Err(LoadError::new(LoadErrorReason::WrongWorld, message));
    if !info.handles_http {
        return refuse(
            "the component does not export wasi:http/incoming-handler@0.2: a filter belongs under filters, \
             and an upstream is built for the world wasi:http/proxy"
                .into(),
        );
    }
    match info.imports.iter().find(|import| !import.starts_with("wasi:")) {
        Some(import) => refuse(format!(
            "the component imports {import}, which upstreams do not have: build it for the world wasi:http/proxy"
        )),
        None => Ok(()),
    }
}

fn linker(engine: &Engine) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine.inner());
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasi_held::link(&mut linker)?;
    Ok(linker)
}

impl HttpComponent {
    /// The failure of an exchange, with the upstream's name for the log.
    pub(super) fn fail(&self, kind: Kind, detail: &str) -> Error {
        Error::new(kind, format!("upstream {}: {detail}", self.settings.name))
    }

    pub(super) fn failed(&self, failure: &Failure) -> Error {
        let kind = match failure.kind {
            FilterFailure::Saturated => Kind::UpstreamSaturated,
            FilterFailure::Deadline => Kind::UpstreamTimeout,
            _ => Kind::UpstreamClosed,
        };
        self.fail(kind, &format!("its component failed ({}): {}", failure.kind.label(), failure.detail))
    }
}

/// The data of one instance's store.
pub(super) struct State {
    pub(super) component: Arc<HttpComponent>,
    wasi: WasiCtx,
    http: WasiHttpCtx,
    /// Decides about the requests that the component sends.
    pub(super) hooks: Outgoing,
    /// What the component makes the gateway hold by `wasi:http`.
    pub(super) held: HeldBytes,
    table: ResourceTable,
    pub(super) limits: StoreLimits,
    /// When the call must end.
    pub(super) deadline: Instant,
    /// An address on the stack of the call; 0 before its first function.
    pub(super) stack_address: usize,
    /// Set when the call lasts longer than one epoch tick.
    pub(super) long_call: Option<LongCall>,
}

impl State {
    pub(super) fn new(component: &Arc<HttpComponent>, deadline: Instant) -> Self {
        let mut table = ResourceTable::new();
        table.set_max_capacity(HANDLES_MAX);
        let settings = &component.settings;
        let output = Output::new(&settings.name, &component.log_limit);
        let mut wasi = WasiCtx::builder();
        wasi.envs(&settings.env).max_random_size(WASI_RANDOM_BYTES_MAX).stdout(output.clone()).stderr(output);
        // Without this, a guest could create sockets, which use up file descriptors even though it
        // cannot connect them.
        wasi.allow_tcp(false).allow_udp(false);
        Self {
            component: component.clone(),
            wasi: wasi.build(),
            http: WasiHttpCtx::new(),
            hooks: Outgoing::none(),
            held: HeldBytes::none(),
            table,
            limits: StoreLimits::new(settings.memory_bytes),
            deadline,
            stack_address: 0,
            long_call: None,
        }
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for State {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { ctx: &mut self.http, table: &mut self.table, hooks: &mut self.hooks }
    }
}

impl HoldsBytes for State {
    fn held(&mut self) -> &mut HeldBytes {
        &mut self.held
    }
}
