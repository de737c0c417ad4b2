//! An instance of a filter in its store: created, given a call, run, and dropped.
//!
//! The exchange moves into the store for the call, and moves out when the call ends. The call runs
//! on a fiber that yields at each tick of the engine's clock but the first, so a guest that loops
//! delays nobody; at each of these ticks it checks its deadline.
//!
//! Between calls a spare, blank exchange is in the store. Gain: one allocation per thread instead
//! of one per call. Price: a thread keeps one blank exchange.
//! This module does not know: when instances are kept or dropped, what a failure means.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use wasmtime::{Store, UpdateDeadline, WasmCoreDump};
use witgate_http::error::FilterFailure;

use crate::bindings::exports::witgate::gateway::{request_handler, response_handler};
use crate::bindings::witgate::gateway::types;
use crate::capability_calls::CapabilityCalls;
use crate::exchange::{Exchange, HELD_BYTES_MAX, Journal};
use crate::failure::{HostTrap, Sampled};
use crate::filter::{CallState, Filter, HANDLES_MAX, Phase};
use crate::replay::Replay;
use crate::stacks;
use crate::time_slices::{self, LongCall};
use crate::waiting::WaitClock;

/// Bytes that the guest may pass to the host in one function call, or with the result of its
/// handler: a body of at most 8 MiB with its header fields, or an error's text. The host copies
/// them before it checks them.
pub(crate) const HOSTCALL_BYTES_MAX: usize = HELD_BYTES_MAX;

thread_local! {
    /// The blank exchange for an instance that is in no call.
    static BLANK: Cell<Option<Box<Exchange>>> = const { Cell::new(None) };
}

/// A store and the filter's instance in it. The instance is created by the first call.
pub(crate) struct Instance {
    store: Store<CallState>,
    handlers: Option<Handlers>,
    calls: u32,
}

/// The instance, and its handlers once a call needed them.
struct Handlers {
    instance: wasmtime::component::Instance,
    request: Option<request_handler::Guest>,
    response: Option<response_handler::Guest>,
}

/// What a handler returned: an action, or the guest's error message.
pub(crate) type HandlerResult = Result<GuestAction, String>;

/// The action that the guest chose, unchecked.
pub(crate) enum GuestAction {
    Proceed,
    Answer(types::Response),
}

/// What a call leaves in the store.
pub(crate) struct CallRemains {
    pub(crate) exchange: Box<Exchange>,
    pub(crate) journal: Journal,
    pub(crate) log_lines_dropped: u32,
    pub(crate) capability_calls: [CapabilityCalls; 3],
    pub(crate) replay: Option<Box<Replay>>,
}

impl Instance {
    pub(crate) fn new(filter: &Filter, state: CallState) -> Self {
        let mut store = Store::new(&filter.engine, state);
        store.limiter(|state| &mut state.limits);
        store.set_max_component_handles(HANDLES_MAX);
        store.epoch_deadline_callback(|mut context| {
            let state = context.data_mut();
            if state.stack_address == 0 {
                // The first function of the call has just begun.
                state.stack_address = stacks::address();
                // The first tick may come at once, so it says nothing about how long the call has
                // run.
                return Ok(UpdateDeadline::Continue(state.sampled_at.unwrap_or(2)));
            }
            if state.sampled_at.is_some() {
                return Err(Sampled.into());
            }
            if Instant::now() >= state.deadline {
                let settings = &state.filter.settings;
                let message = format!(
                    "its time was up: filters.{}.timeout is {:?}, and timeouts.filters bounds all filters of an \
                    exchange; make it faster, or raise the timeout",
                    settings.name, settings.timeout
                );
                return Err(HostTrap::new(FilterFailure::Deadline, message).into());
            }
            // The ticks passed while the call waited, not while it ran.
            if std::mem::take(&mut state.has_waited) {
                return Ok(UpdateDeadline::Continue(2));
            }
            state.filter.calls.request_fast_ticks();
            state.long_call.get_or_insert_with(|| LongCall::new(&state.filter.long_calls));
            Ok(UpdateDeadline::YieldCustom(1, Box::pin(time_slices::next(state.filter.long_calls.clone()))))
        });
        Self { store, handlers: None, calls: 0 }
    }

    /// An instance for a later call, which supplies everything of its own ([`Self::with_call`]).
    /// `None` if the pool is full. The filter must not run code at instantiation.
    pub(crate) fn prewarmed(filter: &Arc<Filter>, config: &Arc<BTreeMap<String, String>>) -> Option<Self> {
        let phase = Phase::Request;
        let state = CallState::new(filter, phase, blank(), config, Instant::now());
        let mut instance = Self::new(filter, state);
        let created = pin!(instance.prepare(filter)).poll(&mut Context::from_waker(Waker::noop()));
        matches!(created, Poll::Ready(Ok(()))).then_some(instance)
    }

    /// The same instance with the state of another call. Nothing of the last call's host state
    /// remains.
    pub(crate) fn with_call(
        mut self,
        phase: Phase,
        exchange: Box<Exchange>,
        config: &Arc<BTreeMap<String, String>>,
        deadline: Instant,
    ) -> Self {
        let state = self.store.data_mut();
        BLANK.set(Some(std::mem::replace(&mut state.exchange, exchange)));
        state.phase = phase;
        state.config.clone_from(config);
        state.deadline = deadline;
        state.begin_calls();
        self
    }

    /// Records what the next call reads, or replays it. `take_remains` takes it out again.
    pub(crate) fn set_replay(&mut self, replay: Box<Replay>) {
        self.store.data_mut().replay = Some(replay);
    }

    /// Creates the instance if there is none, and calls the handler of the phase.
    pub(crate) async fn run(&mut self, filter: &Filter, phase: Phase) -> wasmtime::Result<HandlerResult> {
        self.calls += 1;
        self.prepare(filter).await?;
        self.handle(filter, phase).await
    }

    /// Sets the limits of a call, and creates the instance if there is none.
    pub(crate) async fn prepare(&mut self, filter: &Filter) -> wasmtime::Result<()> {
        let Self { store, handlers, .. } = self;
        store.set_hostcall_fuel(HOSTCALL_BYTES_MAX);
        store.data_mut().stack_address = 0;
        // The first function of the call calls the callback, which looks where the stack is.
        store.set_epoch_deadline(0);
        if handlers.is_none() {
            let instance = filter.pre.instantiate_async(&mut *store).await?;
            store.data_mut().limits.instantiated();
            *handlers = Some(Handlers { instance, request: None, response: None });
        }
        Ok(())
    }

    /// Calls the handler of the phase. [`Self::prepare`] must have created the instance.
    pub(crate) async fn handle(&mut self, filter: &Filter, phase: Phase) -> wasmtime::Result<HandlerResult> {
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
                    types::RequestAction::Proceed => GuestAction::Proceed,
                    types::RequestAction::Respond(response) => GuestAction::Answer(response),
                }))
            }
            (Phase::Response, _, Some(indices)) => {
                let handler = match &mut handlers.response {
                    Some(handler) => handler,
                    empty => empty.insert(indices.load(&mut *store, &handlers.instance)?),
                };
                Ok(handler.call_handle_response(store).await?.map(|action| match action {
                    types::ResponseAction::Proceed => GuestAction::Proceed,
                    types::ResponseAction::Replace(response) => GuestAction::Answer(response),
                }))
            }
            _ => Err(wasmtime::Error::msg("the filter does not have this phase")),
        }
    }

    /// Moves out what the last call left. The instance then holds nothing of its exchange.
    pub(crate) fn take_remains(&mut self) -> CallRemains {
        let state = self.store.data_mut();
        state.log_lines = 0;
        state.long_call = None;
        state.has_waited = false;
        CallRemains {
            exchange: std::mem::replace(&mut state.exchange, blank()),
            journal: std::mem::take(&mut state.journal),
            log_lines_dropped: std::mem::take(&mut state.log_lines_dropped),
            capability_calls: [&mut state.keyvalue_calls, &mut state.limiter_calls, &mut state.outbound_calls]
                .map(std::mem::take),
            replay: state.replay.take(),
        }
    }

    /// The clock of the call's waits for other services, if the filter may have them.
    pub(crate) fn waits(&self) -> Option<Arc<WaitClock>> {
        self.store.data().waits.clone()
    }

    /// The lines of the author's source that ran when the call ended with this error. `None` if the
    /// filter is not in a language with an interpreter, or if the error did not end running code.
    pub(crate) fn author_places(&self, filter: &Filter, error: &wasmtime::Error) -> Option<String> {
        filter.interpreter.places(self.largest_memory(error)?)
    }

    /// The interpreter, and all these lines, the innermost first.
    pub(crate) fn author_lines(
        &self,
        filter: &Filter,
        error: &wasmtime::Error,
    ) -> Option<(Option<&'static str>, Vec<String>)> {
        filter.interpreter.lines(self.largest_memory(error)?).map(|(name, lines)| (Some(name), lines))
    }

    fn largest_memory(&self, error: &wasmtime::Error) -> Option<&[u8]> {
        let memories = error.downcast_ref::<WasmCoreDump>()?.memories().iter();
        memories.map(|memory| memory.data(&self.store)).max_by_key(|memory| memory.len())
    }

    /// Linear memory of the instance.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.store.data().limits.memory_bytes()
    }

    /// Returns the memory of a deep stack to the system, after a call that took long enough to have
    /// used one. Without a call in progress, the stack belongs to the store and nobody uses it.
    pub(crate) fn release_deep_stack(&mut self, filter: &Filter, took: Duration) {
        let address = std::mem::take(&mut self.store.data_mut().stack_address);
        if took >= stacks::DEEP_CALL_MIN {
            filter.stacks.release_deep(address);
        }
    }

    /// Whether the instance may serve another call after one that ended well.
    pub(crate) fn is_reusable(&self, filter: &Filter) -> bool {
        let state = self.store.data();
        let has_room = state.limits.has_room() && state.wasi.as_ref().is_none_or(|wasi| wasi.held.has_room());
        self.calls < filter.settings.reuse && has_room
    }

    /// The filter, and the configuration of the last call.
    pub(crate) fn filter_and_config(&self) -> (Arc<Filter>, Arc<BTreeMap<String, String>>) {
        let state = self.store.data();
        (state.filter.clone(), state.config.clone())
    }

    /// Drops the instance: the pool restores the memory that the next instance will find.
    pub(crate) fn finish(self) {
        BLANK.set(Some(self.into_exchange()));
    }

    /// Drops the instance and returns the exchange of its last call.
    pub(crate) fn into_exchange(self) -> Box<Exchange> {
        self.store.into_data().exchange
    }
}

fn blank() -> Box<Exchange> {
    BLANK.take().unwrap_or_else(|| Box::new(Exchange::blank()))
}
