//! One call of a filter: a fresh instance, the handler, and the instance's way to its end (`between.rs`), or to the next call (`reuse.rs`) where the operator granted that.
//!
//! The exchange moves into the store for the call and comes back whatever happens; the guest's edits are applied only when it answered
//! well. The call runs on a fiber that gives way at every tick of the engine's clock but the first, so a looping guest holds up nobody, and that looks at each whether its
//! deadline is over. Must not know: chains, routes, what a failure does to the exchange.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use wasmtime::component::ResourceTable;
use wasmtime::{PoolConcurrencyLimitError, Store, Trap, UpdateDeadline};
use wasmtime_wasi::WasiCtx;

use super::bindings::exports::witgate::gateway::{request_handler, response_handler};
use super::bindings::witgate::gateway::types;
use super::clock::PRECISE_BELOW;
use super::filter::{Filter, Grant};
use super::instance_cache;
use super::store_limits::{StoreLimits, HostTrap};
use crate::exchange::{Exchange, Journal, Reply, checked_reply};
use witgate_http::error::FilterFailure;

/// Bytes that one host call may take from the guest: a body of a filter, with room for its fields.
const HOSTCALL_BYTES_MAX: usize = 4 << 20;
/// The same where the filter may replace bodies of up to 8 MiB.
const HOSTCALL_BODY_BYTES_MAX: usize = 9 << 20;
/// Handles of resources (WASI only: the gateway's own interfaces have none).
const HANDLES_MAX: usize = 1000;
const RANDOM_BYTES_MAX: u64 = 64 << 10;

thread_local! {
    /// What stands in for the exchange in an instance that is in no call.
    static SPARE: Cell<Option<Box<Exchange>>> = const { Cell::new(None) };
}

/// Which handler to call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// `handle-request`.
    Request,
    /// `handle-response`.
    Response,
}

impl Phase {
    /// The metrics' label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Response => "response",
        }
    }
}

/// How a call that ended well ended.
#[derive(Debug)]
pub enum Action {
    /// `proceed`: the edits are applied.
    Proceed,
    /// `respond` or `replace`: the answer, checked; the edits are dropped.
    Answer(Reply),
}

/// How a call ended badly. The exchange is as it was before.
#[derive(Debug)]
pub struct Failure {
    /// For status and metrics.
    pub kind: FilterFailure,
    /// For the log: the guest's words, or the trap with its backtrace.
    pub detail: String,
}

/// What came of a call.
pub struct CallResult {
    /// The exchange, edited if the call ended well.
    pub exchange: Box<Exchange>,
    /// How it ended.
    pub outcome: Result<Action, Failure>,
    /// Instantiation and call.
    pub took: Duration,
    /// Lines that the filter logged above its bound.
    pub log_lines_dropped: u32,
}

/// Calls a handler of `filter`, in a fresh instance unless its operator granted another. `deadline` is how long the call may take.
///
/// The filter must have the phase.
pub async fn call(
    filter: &Arc<Filter>,
    phase: Phase,
    exchange: Box<Exchange>,
    config: &Arc<BTreeMap<String, String>>,
    deadline: Duration,
) -> CallResult {
    // It was in the place in the pool that this call will have. Its time is not this call's.
    instance_cache::drop_deferred();
    let _under_way = filter.calls.enter();
    let began = Instant::now();
    let until = end(filter, began, deadline);
    let mut instance = match instance_cache::take(filter, config) {
        Some(kept) => kept.with(phase, exchange, config, until),
        None => Instance::new(filter, Call::new(filter, phase, exchange, config, until)),
    };
    let result = within(deadline, instance.run(filter, phase)).await;
    // A trap, a limit, a deadline or an error of the guest's own: who knows what state it is in.
    let ended_well = matches!(result, Some(Ok(Ok(_))));
    let (exchange, journal, log_lines_dropped) = instance.take_out();
    let (exchange, outcome) = conclude(exchange, journal, result);
    if ended_well && outcome.is_ok() && instance.may_stay(filter) {
        instance_cache::keep(filter, instance);
    } else {
        instance_cache::defer_drop(instance);
    }
    CallResult { exchange, outcome, took: began.elapsed(), log_lines_dropped }
}

/// Makes an instance of `filter` and lets it go again, within its own time and limits: what its start functions do then, they would do in every call.
///
/// No handler is called, so nothing of a filter's work happens; a start function that asks for the request sees an empty one.
pub async fn try_instantiate(filter: &Arc<Filter>, config: &Arc<BTreeMap<String, String>>) -> Result<(), Failure> {
    let phase = if filter.has_request_phase() { Phase::Request } else { Phase::Response };
    let deadline = filter.settings.timeout;
    let _under_way = filter.calls.enter();
    let call = Call::new(filter, phase, Box::new(Exchange::blank()), config, end(filter, Instant::now(), deadline));
    let mut instance = Instance::new(filter, call);
    match within(deadline, instance.prepare(filter, phase)).await {
        Some(made) => made.map_err(|error| failure(&error)),
        None => Err(too_late()),
    }
}

/// What the parts of a call of a fresh instance take: store and instance, the handler, the end of both. For the benchmark: a call that is served
/// looks at the clock less often. None where the call did not end well.
pub async fn measure(
    filter: &Arc<Filter>,
    phase: Phase,
    exchange: Box<Exchange>,
    config: &Arc<BTreeMap<String, String>>,
) -> Option<([Duration; 3], Box<Exchange>)> {
    let _under_way = filter.calls.enter();
    let began = Instant::now();
    let until = end(filter, began, filter.settings.timeout);
    let mut instance = Instance::new(filter, Call::new(filter, phase, exchange, config, until));
    instance.prepare(filter, phase).await.ok()?;
    let made = Instant::now();
    instance.handle(filter, phase).await.ok()?.ok()?;
    let handled = Instant::now();
    let exchange = instance.store.into_data().exchange;
    Some(([made - began, handled - made, handled.elapsed()], exchange))
}

/// A store with the filter's instance in it, which comes with the first call.
pub(super) struct Instance {
    store: Store<Call>,
    handlers: Option<Handlers>,
    calls: u32,
}

/// The instance, and its handlers once they were asked for.
struct Handlers {
    instance: wasmtime::component::Instance,
    request: Option<request_handler::Guest>,
    response: Option<response_handler::Guest>,
}

/// What the guest's handler returned: none where the deadline came first.
type Returned = Option<wasmtime::Result<Result<RawAction, String>>>;

enum RawAction {
    Proceed,
    Answer(types::Response),
}

impl Instance {
    fn new(filter: &Filter, call: Call) -> Self {
        let mut store = Store::new(&filter.engine, call);
        store.limiter(|call| &mut call.limits);
        store.set_max_component_handles(HANDLES_MAX);
        store.epoch_deadline_callback(|mut context| {
            let call = context.data_mut();
            if Instant::now() >= call.until {
                return Err(HostTrap::new(FilterFailure::Deadline, "its time was up").into());
            }
            call.filter.calls.request_fast_ticks();
            // tokio's own yield, not the future's waker: it lets the I/O driver run before the guest does again.
            Ok(UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now())))
        });
        Self { store, handlers: None, calls: 0 }
    }

    /// One for a call that is still to come, which gives it all that is its own ([`Self::with`]). None where none can be had now; the filter must not start code.
    pub(super) fn prewarmed(filter: &Arc<Filter>, config: &Arc<BTreeMap<String, String>>) -> Option<Self> {
        let phase = Phase::Request;
        let call = Call::new(filter, phase, spare(), config, Instant::now());
        let mut instance = Self::new(filter, call);
        let made = pin!(instance.prepare(filter, phase)).poll(&mut Context::from_waker(Waker::noop()));
        matches!(made, Poll::Ready(Ok(()))).then_some(instance)
    }

    /// Its filter, and the configuration of the last call.
    pub(super) fn filter_and_config(&self) -> (Arc<Filter>, Arc<BTreeMap<String, String>>) {
        let call = self.store.data();
        (call.filter.clone(), call.config.clone())
    }

    /// The same instance with another call: nothing of the host's side is left of the one before.
    fn with(
        mut self,
        phase: Phase,
        exchange: Box<Exchange>,
        config: &Arc<BTreeMap<String, String>>,
        until: Instant,
    ) -> Self {
        let call = self.store.data_mut();
        SPARE.set(Some(std::mem::replace(&mut call.exchange, exchange)));
        call.phase = phase;
        call.config.clone_from(config);
        call.until = until;
        self
    }

    /// What a call leaves, once it ended; the instance holds nothing of the exchange any more.
    fn take_out(&mut self) -> (Box<Exchange>, Journal, u32) {
        let call = self.store.data_mut();
        call.log_lines = 0;
        (
            std::mem::replace(&mut call.exchange, spare()),
            std::mem::take(&mut call.journal),
            std::mem::take(&mut call.log_lines_dropped),
        )
    }

    /// Ends it: its memory becomes what the next call will find.
    pub(super) fn finish(self) {
        SPARE.set(Some(self.store.into_data().exchange));
    }

    fn may_stay(&self, filter: &Filter) -> bool {
        self.calls < filter.settings.reuse && self.store.data().limits.has_room()
    }

    async fn run(&mut self, filter: &Filter, phase: Phase) -> wasmtime::Result<Result<RawAction, String>> {
        self.calls += 1;
        self.prepare(filter, phase).await?;
        self.handle(filter, phase).await
    }

    /// Allowances of the call, and the instance where there is none yet.
    async fn prepare(&mut self, filter: &Filter, phase: Phase) -> wasmtime::Result<()> {
        let Self { store, handlers, .. } = self;
        let body = if phase == Phase::Request { filter.request_body_limit() } else { filter.response_body_limit() };
        store.set_hostcall_fuel(if body.is_some() { HOSTCALL_BODY_BYTES_MAX } else { HOSTCALL_BYTES_MAX });
        // The first tick may come at once: it says nothing about how long the call has run.
        store.set_epoch_deadline(2);
        if handlers.is_none() {
            let instance = filter.pre.instantiate_async(&mut *store).await?;
            store.data_mut().limits.begin();
            *handlers = Some(Handlers { instance, request: None, response: None });
        }
        Ok(())
    }

    async fn handle(&mut self, filter: &Filter, phase: Phase) -> wasmtime::Result<Result<RawAction, String>> {
        let Self { store, handlers: Some(handlers), .. } = self else {
            return Err(wasmtime::Error::msg("there is no instance"));
        };
        match (phase, &filter.request, &filter.response) {
            (Phase::Request, Some(indices), _) => {
                let handler = match &mut handlers.request {
                    Some(handler) => handler,
                    empty => empty.insert(indices.load(&mut *store, &handlers.instance)?),
                };
                Ok(handler.call_handle_request(store).await?.map(|action| match action {
                    types::RequestAction::Proceed => RawAction::Proceed,
                    types::RequestAction::Respond(response) => RawAction::Answer(response),
                }))
            }
            (Phase::Response, _, Some(indices)) => {
                let handler = match &mut handlers.response {
                    Some(handler) => handler,
                    empty => empty.insert(indices.load(&mut *store, &handlers.instance)?),
                };
                Ok(handler.call_handle_response(store).await?.map(|action| match action {
                    types::ResponseAction::Proceed => RawAction::Proceed,
                    types::ResponseAction::Replace(response) => RawAction::Answer(response),
                }))
            }
            _ => Err(wasmtime::Error::msg("the filter does not have this phase")),
        }
    }
}

/// Applies what the guest asked for if it ended well, and says how it ended.
fn conclude(
    mut exchange: Box<Exchange>,
    journal: Journal,
    result: Returned,
) -> (Box<Exchange>, Result<Action, Failure>) {
    let returned = match result {
        None => Err(too_late()),
        Some(Err(error)) => Err(failure(&error)),
        Some(Ok(Err(message))) => Err(Failure { kind: FilterFailure::Error, detail: message }),
        Some(Ok(Ok(action))) => Ok(action),
    };
    let outcome = match returned {
        Ok(RawAction::Proceed) => {
            exchange.apply(journal);
            Ok(Action::Proceed)
        }
        Ok(RawAction::Answer(raw)) => match checked_reply(raw.status, raw.headers, raw.body) {
            Ok(reply) => {
                exchange.apply_notes(journal);
                Ok(Action::Answer(reply))
            }
            Err(refusal) => {
                let stop = HostTrap::from(refusal);
                Err(Failure { kind: stop.kind, detail: stop.message })
            }
        },
        Err(failure) => Err(failure),
    };
    (exchange, outcome)
}

/// When a call must be over. The clock hurries for one that slow ticks would let go on.
fn end(filter: &Filter, began: Instant, deadline: Duration) -> Instant {
    if deadline < PRECISE_BELOW {
        filter.calls.request_fast_ticks();
    }
    began + deadline
}

fn spare() -> Box<Exchange> {
    SPARE.take().unwrap_or_else(|| Box::new(Exchange::blank()))
}

fn too_late() -> Failure {
    Failure { kind: FilterFailure::Deadline, detail: "its time was up while it waited".into() }
}

fn failure(error: &wasmtime::Error) -> Failure {
    let kind = if let Some(stop) = error.downcast_ref::<HostTrap>() {
        stop.kind
    } else if error.is::<PoolConcurrencyLimitError>() {
        FilterFailure::Saturated
    } else if error.downcast_ref::<Trap>().is_none()
        && error.root_cause().to_string().contains("fuel allocated for hostcalls")
    {
        // wasmtime's type for this is private: its words are all there is.
        FilterFailure::Limit
    } else {
        FilterFailure::Trap
    };
    // Not `{:?}`: that would resolve the host's own stack, which takes long on a thread that serves. The guest's stack is part of the chain.
    Failure { kind, detail: format!("{error:#}") }
}

/// Awaits `future` for at most `deadline`; none when it was up. A future that is ready at once costs no timer.
async fn within<F: Future>(deadline: Duration, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let first = poll_fn(|context| {
        Poll::Ready(match future.as_mut().poll(context) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        })
    });
    match first.await {
        Some(output) => Some(output),
        None => tokio::time::timeout(deadline, future).await.ok(),
    }
}

/// What a store holds: the exchange, what the guest asked for so far, and its limits.
pub(super) struct Call {
    pub(super) filter: Arc<Filter>,
    pub(super) phase: Phase,
    pub(super) exchange: Box<Exchange>,
    pub(super) journal: Journal,
    pub(super) config: Arc<BTreeMap<String, String>>,
    pub(super) log_lines: u32,
    pub(super) log_lines_dropped: u32,
    pub(super) wasi: Option<(WasiCtx, ResourceTable)>,
    until: Instant,
    limits: StoreLimits,
}

impl Call {
    fn new(
        filter: &Arc<Filter>,
        phase: Phase,
        exchange: Box<Exchange>,
        config: &Arc<BTreeMap<String, String>>,
        until: Instant,
    ) -> Self {
        let wasi = filter.settings.grants.contains(&Grant::Wasi).then(|| {
            let mut table = ResourceTable::new();
            table.set_max_capacity(HANDLES_MAX);
            (WasiCtx::builder().max_random_size(RANDOM_BYTES_MAX).build(), table)
        });
        Self {
            filter: filter.clone(),
            phase,
            exchange,
            journal: Journal::default(),
            config: config.clone(),
            log_lines: 0,
            log_lines_dropped: 0,
            wasi,
            until,
            limits: StoreLimits::new(filter.settings.memory_bytes),
        }
    }
}
