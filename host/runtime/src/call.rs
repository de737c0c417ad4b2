//! One call of a filter: take or create an instance, run the handler, check the result, and keep or
//! drop the instance.
//!
//! The caller gets the exchange back however the call ends. The guest's edits are applied only if
//! it ended well, so a filter that fails half-way has changed nothing.
//!
//! A fresh instance serves each call, unless the operator granted `reuse`. Gain: no call can see
//! the data of another. Price: creating and dropping the instance, most of it outside of the call
//! (`instance_cache.rs`).
//! This module does not know: chains, routes, what a failure does to the exchange.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::{Duration, Instant};

use witgate_http::error::FilterFailure;
use witgate_http::text::bounded;

use crate::capability_calls::CapabilityCalls;
use crate::clock::PRECISE_BELOW;
use crate::exchange::{Exchange, Journal, Reply, checked_reply};
use crate::failure::{Failure, HostTrap};
use crate::filter::{CallState, Filter, Phase};
use crate::instance::{CallRemains, GuestAction, HandlerResult, Instance};
use crate::instance_cache;
use crate::replay::Replay;
use crate::time_slices;
use crate::waiting::WaitClock;

/// How often the timer of a call looks at one that waits for another service, at most.
const WAIT_CHECK_INTERVAL: Duration = Duration::from_millis(10);

/// How a call ended, and the exchange.
pub struct CallResult {
    /// The exchange, edited if the call ended well.
    pub exchange: Box<Exchange>,
    /// The filter's action, or why the call failed.
    pub outcome: Result<Action, Failure>,
    /// The time of instantiation and call.
    pub took: Duration,
    /// The part of it in which the call waited for other services. It does not count against the
    /// timeout.
    pub waited: Duration,
    /// What the call used.
    pub stats: CallStats,
    /// The log lines of the filter that were dropped because they were too many.
    pub log_lines_dropped: u32,
}

/// What a call used. All zero for a call that was not made.
#[derive(Debug, Clone, Copy, Default)]
pub struct CallStats {
    /// When the call began.
    pub began: Option<Instant>,
    /// The time in which the call ran on its thread; the rest of its duration it waited. The clock
    /// of the system is read and not the thread's, which would cost a system call.
    pub busy: Duration,
    /// Edits of the request or the response.
    pub edits: u32,
    /// The instance's linear memory after the call. It never shrinks, so this is its peak.
    pub memory_bytes: usize,
    /// Whether an idle instance served the call: a prewarmed one, or with `reuse` a used one.
    pub is_reused: bool,
    /// Calls of `keyvalue`, of `limiter` and of `http`.
    pub capability_calls: [CapabilityCalls; 3],
}

/// The action of a call that ended well.
#[derive(Debug)]
pub enum Action {
    /// `proceed`: the edits are applied.
    Proceed,
    /// `respond` or `replace`: the checked response of the filter. The edits are dropped.
    Answer(Reply),
}

/// Calls a handler of `filter`, which must have the phase. The call may take `timeout`.
pub async fn run(
    filter: &Arc<Filter>,
    phase: Phase,
    exchange: Box<Exchange>,
    config: &Arc<BTreeMap<String, String>>,
    timeout: Duration,
) -> CallResult {
    run_with(filter, phase, exchange, config, timeout, &mut None).await
}

/// As [`run`]. With a [`Replay`], what the call reads is recorded in it, or comes from it.
pub async fn run_with(
    filter: &Arc<Filter>,
    phase: Phase,
    exchange: Box<Exchange>,
    config: &Arc<BTreeMap<String, String>>,
    timeout: Duration,
    replay: &mut Option<Box<Replay>>,
) -> CallResult {
    // Before the measured time: drop the previous instance so that this call reuses its pool slot.
    instance_cache::drop_deferred();
    let _active = filter.calls.enter();
    let began = Instant::now();
    let Ok(_permit) = filter.running_calls.try_acquire(filter.settings.concurrency) else {
        let outcome = Err(Failure::concurrency(&filter.settings.name, filter.settings.concurrency));
        let stats = CallStats::default();
        let took = began.elapsed();
        return CallResult { exchange, outcome, took, waited: Duration::ZERO, stats, log_lines_dropped: 0 };
    };
    let deadline = deadline(filter, began, timeout);
    let idle = instance_cache::take(filter, config);
    let is_reused = idle.is_some();
    let mut instance = match idle {
        Some(idle) => idle.with_call(phase, exchange, config, deadline),
        None => Instance::new(filter, CallState::new(filter, phase, exchange, config, deadline)),
    };
    let waits = instance.waits();
    if let Some(replay) = replay.take() {
        instance.set_replay(replay);
    }
    let running = async {
        // Calls of a filter whose calls are long begin one after the other.
        if filter.long_calls.load(Ordering::Relaxed) > 0 {
            time_slices::next(filter.long_calls.clone()).await;
        }
        instance.run(filter, phase).await
    };
    let waiting = WaitTime::default();
    let returned = within(timeout, waits.as_deref(), waiting.measure(running)).await;
    let waited = waiting.total();
    let took = began.elapsed();
    instance.release_deep_stack(filter, took);
    let ended_well = matches!(returned, Some(Ok(Ok(_))));
    let returned = returned.map(|returned| {
        returned.map_err(|error| {
            // Nobody reads the place of a failure that is not logged.
            let places = filter.log_limit.has_line().then(|| instance.author_places(filter, &error)).flatten();
            Failure::at(&error, places.as_deref())
        })
    });
    let CallRemains { mut exchange, journal, log_lines_dropped, capability_calls, replay: used } =
        instance.take_remains();
    *replay = used;
    let (edits, memory_bytes) = (journal.edits(), instance.memory_bytes());
    let outcome = apply_result(filter, &mut exchange, journal, returned);
    // After a trap, a limit, a deadline or a guest's own error the instance's state is unknown.
    if ended_well && outcome.is_ok() && instance.is_reusable(filter) {
        instance_cache::keep(filter, instance);
    } else {
        instance_cache::defer_drop(instance);
    }
    let busy = took.saturating_sub(waited);
    let stats = CallStats { began: Some(began), busy, edits, memory_bytes, is_reused, capability_calls };
    let waited = waits.map_or(Duration::ZERO, |waits| waits.total());
    CallResult { exchange, outcome, took, waited, stats, log_lines_dropped }
}

/// Creates and drops an instance of `filter`, within its time and limits, to find out whether its
/// start functions succeed.
///
/// No handler is called. A start function that reads the request sees an empty one.
///
/// # Errors
///
/// The start functions would fail in the same way in every call.
pub async fn try_instantiate(filter: &Arc<Filter>, config: &Arc<BTreeMap<String, String>>) -> Result<(), Failure> {
    let phase = if filter.has_request_phase() { Phase::Request } else { Phase::Response };
    let timeout = filter.settings.timeout;
    let _active = filter.calls.enter();
    let deadline = deadline(filter, Instant::now(), timeout);
    let state = CallState::new(filter, phase, Box::new(Exchange::blank()), config, deadline);
    let mut instance = Instance::new(filter, state);
    match within(timeout, None, instance.prepare(filter)).await {
        Some(created) => created.map_err(Failure::from),
        None => Err(Failure::deadline()),
    }
}

/// The times of a call in a fresh instance: store and instance, the handler, and the drop.
///
/// For the benchmark: a served call reads the clock less often. `None` if the call failed.
pub async fn measure(
    filter: &Arc<Filter>,
    phase: Phase,
    exchange: Box<Exchange>,
    config: &Arc<BTreeMap<String, String>>,
) -> Option<([Duration; 3], Box<Exchange>)> {
    let _active = filter.calls.enter();
    let began = Instant::now();
    let deadline = deadline(filter, began, filter.settings.timeout);
    let mut instance = Instance::new(filter, CallState::new(filter, phase, exchange, config, deadline));
    instance.prepare(filter).await.ok()?;
    let created = Instant::now();
    instance.handle(filter, phase).await.ok()?.ok()?;
    let handled = Instant::now();
    let exchange = instance.into_exchange();
    Some(([created - began, handled - created, handled.elapsed()], exchange))
}

/// Applies the guest's edits if the call ended well, and returns how it ended. `returned` is `None`
/// if the deadline passed.
fn apply_result(
    filter: &Filter,
    exchange: &mut Exchange,
    journal: Journal,
    returned: Option<Result<HandlerResult, Failure>>,
) -> Result<Action, Failure> {
    let action = match returned {
        None => return Err(Failure::deadline()),
        Some(Err(failure)) => return Err(failure),
        Some(Ok(Err(message))) => return Err(Failure { kind: FilterFailure::Error, detail: bounded(message) }),
        Some(Ok(Ok(action))) => action,
    };
    match action {
        GuestAction::Proceed => {
            exchange.apply(journal);
            Ok(Action::Proceed)
        }
        GuestAction::Answer(response) => {
            let body_max = filter.settings.body_bytes;
            let reply = checked_reply(response.status, response.headers, response.body, body_max);
            let mut reply = reply.map_err(HostTrap::from)?;
            reply.body = exchange.hold(reply.body).map_err(HostTrap::from)?;
            exchange.apply_notes(journal);
            Ok(Action::Answer(reply))
        }
    }
}

/// The end of a call that begins at `began`. Requests fast ticks if slow ones would miss it.
fn deadline(filter: &Filter, began: Instant, timeout: Duration) -> Instant {
    if timeout < PRECISE_BELOW {
        filter.calls.request_fast_ticks();
    }
    began + timeout
}

/// Adds up how long a future waits between its polls. A future that is ready at its first poll, as
/// most calls are, reads no clock.
#[derive(Default)]
struct WaitTime {
    ended: Cell<Duration>,
    since: Cell<Option<Instant>>,
}

impl WaitTime {
    async fn measure<F: Future>(&self, future: F) -> F::Output {
        let mut future = pin!(future);
        poll_fn(|context| {
            self.end();
            let polled = future.as_mut().poll(context);
            if polled.is_pending() {
                self.since.set(Some(Instant::now()));
            }
            polled
        })
        .await
    }

    fn end(&self) {
        if let Some(since) = self.since.take() {
            self.ended.set(self.ended.get() + since.elapsed());
        }
    }

    /// The time until now.
    fn total(&self) -> Duration {
        self.end();
        self.ended.get()
    }
}

/// Awaits `future` for at most `timeout` and the time of its waits. `None` if the time is up.
///
/// A future that is ready at the first poll registers no timer. Each wait for a service has a bound
/// of its own, so the timer is not exact while one is running.
async fn within<F: Future>(timeout: Duration, waits: Option<&WaitClock>, future: F) -> Option<F::Output> {
    let began = tokio::time::Instant::now();
    let mut future = pin!(time_slices::in_turns(future));
    let first = poll_fn(|context| {
        Poll::Ready(match future.as_mut().poll(context) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        })
    });
    match first.await {
        Some(output) => Some(output),
        None => {
            let mut until = began + timeout;
            loop {
                if let Ok(output) = tokio::time::timeout_at(until, future.as_mut()).await {
                    return Some(output);
                }
                let waits = waits?;
                let extended = began + timeout + waits.total();
                if extended <= until {
                    return None;
                }
                let least = if waits.is_waiting() { WAIT_CHECK_INTERVAL } else { Duration::ZERO };
                until = extended.max(tokio::time::Instant::now() + least);
            }
        }
    }
}
