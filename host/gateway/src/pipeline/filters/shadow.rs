//! Calls the new version of a filter with the input of live calls, after the live exchange.
//!
//! The live exchange pays for a copy of the message's head. When its response is complete, a task
//! of its own calls the new version: in both phases, with what the live call read from the clock,
//! the stores and the random numbers. A thread keeps a bounded number of such exchanges; more are
//! dropped and counted. This module does not know: how effects are compared.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::releases::shadow::{Effect, Sample, ShadowResult, ShadowTraffic};
use crate::releases::step_traffic::StepTraffic;
use crate::telemetry::ShadowCounters;
use witgate_http::error::FilterFailure;
use witgate_runtime::call::{self, Action, CallResult};
use witgate_runtime::exchange::Exchange;
use witgate_runtime::filter::{Filter, Phase};
use witgate_runtime::replay::Replay;

/// Exchanges of one thread whose shadow is not complete. Each may hold a request and its response.
const PER_THREAD_MAX: usize = 16;

thread_local! {
    static IN_PROGRESS: Cell<usize> = const { Cell::new(0) };
}

/// The shadow of one filter in one exchange.
pub(super) struct ShadowRun {
    filter: Arc<Filter>,
    config: Arc<BTreeMap<String, String>>,
    traffic: Arc<StepTraffic>,
    counters: ShadowCounters,
    /// The live calls, in their order.
    calls: Vec<RecordedCall>,
    _place: Place,
}

/// A live call: what it got, and what it did.
struct RecordedCall {
    phase: Phase,
    input: Box<Exchange>,
    live: Effect,
    replay: Option<Box<Replay>>,
}

/// A live call that has not ended.
pub(super) struct Recording {
    input: Box<Exchange>,
    /// What the call reads.
    pub(super) replay: Option<Box<Replay>>,
}

/// One of the places of a thread.
struct Place;

impl Place {
    fn take() -> Option<Self> {
        let taken = IN_PROGRESS.get();
        (taken < PER_THREAD_MAX).then(|| {
            IN_PROGRESS.set(taken + 1);
            Self
        })
    }
}

impl Recording {
    /// What the call got.
    pub(super) fn input(&self) -> &Exchange {
        &self.input
    }

    /// The values of keys that the call read, before it changed them.
    pub(super) fn values(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.replay.iter().flat_map(|replay| replay.values())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        IN_PROGRESS.set(IN_PROGRESS.get().saturating_sub(1));
    }
}

impl ShadowRun {
    /// Chooses an exchange. `None` if it is not compared.
    pub(super) fn choose(
        filter: &Arc<Filter>,
        config: &Arc<BTreeMap<String, String>>,
        traffic: &Arc<StepTraffic>,
        counters: &ShadowCounters,
    ) -> Option<Self> {
        let shadow = traffic.shadow.as_ref().filter(|shadow| shadow.picks())?;
        let Some(place) = Place::take() else {
            shadow.count(ShadowResult::Dropped);
            counters.count(ShadowResult::Dropped.label());
            return None;
        };
        Some(Self {
            filter: filter.clone(),
            config: config.clone(),
            traffic: traffic.clone(),
            counters: counters.clone(),
            calls: vec![],
            _place: place,
        })
    }

    /// Whether the new version wants the response.
    pub(super) fn has_response_phase(&self) -> bool {
        self.filter.has_response_phase()
    }

    /// Copies the input of a live call.
    pub(super) fn begin(exchange: &Exchange) -> Recording {
        let mut input = exchange.copy();
        // The places of a thread bound what shadows hold, and the client does not pay for them.
        input.budget = None;
        Recording { input, replay: Some(Box::default()) }
    }

    /// Keeps a live call that ended. The error is the kind of its failure.
    pub(super) fn end(
        &mut self,
        recording: Recording,
        phase: Phase,
        after: &Exchange,
        outcome: Result<&Action, &'static str>,
    ) {
        let Recording { input, replay } = recording;
        let live = Effect::of(&input, after, outcome);
        self.calls.push(RecordedCall { phase, input, live, replay });
    }

    /// Calls the new version in a task of its own.
    pub(super) fn spawn(self) {
        if !self.calls.is_empty() {
            tokio::task::spawn_local(self.run());
        }
    }

    async fn run(self) {
        let traffic = self.traffic.clone();
        let counters = self.counters.clone();
        let Some(shadow) = &traffic.shadow else { return };
        let result = self.compare(shadow).await;
        shadow.count(result);
        counters.count(result.label());
    }

    async fn compare(mut self, shadow: &ShadowTraffic) -> ShadowResult {
        let (mut found, mut own_notes) = (vec![], vec![]);
        let owner = self.filter.settings.name.clone();
        let mut last = None;
        for RecordedCall { phase, mut input, live, replay } in std::mem::take(&mut self.calls) {
            if phase == Phase::Response {
                // The response phase finds the notes that this version left in the request phase.
                input.notes.retain(|note| note.owner != owner);
                input.notes.append(&mut own_notes);
            }
            let before = input.copy();
            let (after, effect) = match self.call(phase, input, &before, replay).await {
                Ok(called) => called,
                Err(result) => return result,
            };
            found.extend(Effect::difference(&live, &effect, phase.label()));
            own_notes = after.notes.iter().filter(|note| note.owner == owner).cloned().collect();
            last = Some(before);
        }
        match last {
            Some(exchange) if !found.is_empty() => {
                shadow.keep(Sample::new(&exchange, &found));
                ShadowResult::Different
            }
            _ => ShadowResult::Equal,
        }
    }

    /// Calls the new version. `before` is a copy of the input. The error says why that is not
    /// possible.
    async fn call(
        &self,
        phase: Phase,
        input: Box<Exchange>,
        before: &Exchange,
        replay: Option<Box<Replay>>,
    ) -> Result<(Box<Exchange>, Effect), ShadowResult> {
        let filter = &self.filter;
        let (has_phase, body_limit, body) = match phase {
            Phase::Request => (filter.has_request_phase(), filter.request_body_limit(), input.request.body.as_ref()),
            Phase::Response => {
                let body = input.response.as_ref().and_then(|response| response.body.as_ref());
                (filter.has_response_phase(), filter.response_body_limit(), body)
            }
        };
        if !has_phase {
            let effect = Effect::of(&input, &input, Ok(&Action::Proceed));
            return Ok((input, effect));
        }
        if body_limit.is_some_and(|limit| body.is_none_or(|body| body.len() > limit)) {
            return Err(ShadowResult::Skipped);
        }
        let mut replay = replay.map(|record| Box::new(record.into_source()));
        let timeout = filter.settings.timeout;
        let called = call::run_with(filter, phase, input, &self.config, timeout, &mut replay).await;
        let CallResult { exchange, outcome, took, .. } = called;
        let failure = outcome.as_ref().err().map(|failure| failure.kind);
        if failure == Some(FilterFailure::Saturated) {
            return Err(ShadowResult::Dropped);
        }
        let begins = phase == Phase::Request || !filter.has_request_phase();
        self.traffic.new.count(begins, failure.is_some(), took);
        let effect = Effect::of(before, &exchange, outcome.as_ref().map_err(|failure| failure.kind.label()));
        Ok((exchange, effect))
    }
}
