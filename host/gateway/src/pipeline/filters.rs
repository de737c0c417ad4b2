//! The chain of filters of a route: which filters run, in what order, and what a failure does.
//!
//! The request phase runs in the order written, the response phase in reverse. A filter takes part
//! in the response phase only if its request phase completed, or if it has none and the chain
//! reached it: a filter that was not called, or that failed, has left no notes for its response
//! phase. Rules (`match:`) look at the request as the client sent it, before any filter's edits, so
//! that an operator can tell from a request alone which filters it meets.
//! This module does not know: routing, upstreams, sockets.

mod recording;
mod shadow;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use smallvec::SmallVec;

use self::recording::Recorder;
use self::shadow::{Recording, ShadowRun};
use crate::releases::step_traffic::{Figures, StepTraffic};
use crate::telemetry::{CallOutcome, ExchangeRecord, FilterCall, FilterSeries, ShadowCounters, Taps};
use witgate_config::{Config, Match, OnError};
use witgate_http::body::{Body, ReadError};
use witgate_http::body_budget::Budget;
use witgate_http::error::{Error, FilterFailure, Kind};
use witgate_http::throughput::yield_to_ready_tasks;
use witgate_runtime::call::{self, Action, CallResult, CallStats};
use witgate_runtime::exchange::{Exchange, Reply, Response};
use witgate_runtime::failure::Failure;
use witgate_runtime::filter::{Filter, Phase};
use witgate_runtime::replay::Replay;

/// A filter in a route's chain.
pub struct ChainEntry {
    /// The filter, at the version that the snapshot holds.
    pub filter: Arc<Filter>,
    /// When to call it.
    pub when: Match,
    /// Its configuration on this route.
    pub config: Arc<BTreeMap<String, String>>,
    /// What its failure does.
    pub on_error: OnError,
    /// Counts its calls on this route.
    pub series: Arc<FilterSeries>,
    /// The new version, while it is released.
    pub canary: Option<Box<CanaryEntry>>,
}

/// A new version of a filter, which serves a share of the exchanges.
pub struct CanaryEntry {
    /// The version.
    pub filter: Arc<Filter>,
    /// Its configuration on this route.
    pub config: Arc<BTreeMap<String, String>>,
    /// Counts its calls on this route.
    pub series: Arc<FilterSeries>,
    /// Which exchanges it serves, and how both versions do.
    pub traffic: Arc<StepTraffic>,
    /// Counts the exchanges that its shadow compared.
    pub shadow_counters: ShadowCounters,
}

/// What an exchange does with an entry of the chain. It is decided once, so that both phases of an
/// exchange use the same version.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Selection {
    /// The rules do not match.
    Skipped,
    /// The version in service.
    Stable,
    /// The version that is released.
    Canary,
}

/// The version of a filter that an exchange uses.
struct Selected<'a> {
    filter: &'a Arc<Filter>,
    series: &'a Arc<FilterSeries>,
    config: &'a Arc<BTreeMap<String, String>>,
    /// Counts the version's calls for the release.
    figures: Option<&'a Figures>,
}

impl ChainEntry {
    fn version(&self, selection: Selection) -> Selected<'_> {
        let stable = Selected { filter: &self.filter, series: &self.series, config: &self.config, figures: None };
        let Some(canary) = &self.canary else { return stable };
        match selection {
            Selection::Canary => Selected {
                filter: &canary.filter,
                series: &canary.series,
                config: &canary.config,
                figures: Some(&canary.traffic.new),
            },
            _ => Selected { figures: Some(&canary.traffic.old), ..stable },
        }
    }

    fn filter(&self, selection: Selection) -> &Arc<Filter> {
        match &self.canary {
            Some(canary) if selection == Selection::Canary => &canary.filter,
            _ => &self.filter,
        }
    }
}

/// One exchange's way through a chain.
pub struct ChainRun<'a> {
    chain: &'a [ChainEntry],
    /// The time for all calls of one phase together.
    budget: Duration,
    /// The time to receive a body that a filter wants whole.
    body_timeout: Duration,
    /// What the exchanges of the route may hold in memory.
    memory: &'a Arc<Budget>,
    client: IpAddr,
    /// For each entry: whether it is called, and which version.
    selected: SmallVec<[Selection; 8]>,
    /// One flag for each entry: whether it takes part in the response phase.
    completed: SmallVec<[bool; 8]>,
    /// New versions that are called with the same input after the exchange, by their entry.
    shadows: Vec<(usize, ShadowRun)>,
    /// Makes examples of the calls, while somebody records.
    recorder: Option<Recorder>,
}

/// How the request phase ended.
pub enum Decision {
    /// The request goes on to the upstream.
    Proceed,
    /// A filter answered.
    Respond(Reply),
}

/// Why a filter does not get the body that it asked for.
enum BodyReadError {
    TooLarge,
    Broken(Error),
    Timeout,
}

impl<'a> ChainRun<'a> {
    /// A run that has selected no filter yet. Its bodies count in `memory`, for this client.
    pub fn new(
        chain: &'a [ChainEntry],
        config: &Config,
        memory: &'a Arc<Budget>,
        client: IpAddr,
        taps: &Arc<Taps>,
    ) -> Self {
        Self {
            chain,
            budget: config.timeouts.filters,
            body_timeout: config.timeouts.request_body,
            memory,
            client,
            selected: SmallVec::new(),
            completed: chain.iter().map(|_| false).collect(),
            shadows: vec![],
            recorder: if chain.is_empty() { None } else { Recorder::new(taps) },
        }
    }

    /// Selects the filters whose rules match. `picks_new` says whether the exchange uses the new
    /// version of a filter that is released.
    pub fn select(&mut self, matches: impl Fn(&Match) -> bool, picks_new: impl Fn(&StepTraffic) -> bool) {
        let select = |entry: &ChainEntry| match &entry.canary {
            _ if !matches(&entry.when) => Selection::Skipped,
            Some(canary) if picks_new(&canary.traffic) => Selection::Canary,
            _ => Selection::Stable,
        };
        self.selected = self.chain.iter().map(select).collect();
    }

    /// The entries with their selection, in the chain's order.
    fn entries(&self) -> impl DoubleEndedIterator<Item = (&'a ChainEntry, Selection)> + ExactSizeIterator {
        self.chain.iter().zip(self.selected.iter().copied())
    }

    /// Whether a filter that completed has a response phase.
    pub fn has_response_phase(&self) -> bool {
        let mut completed = self.entries().zip(&self.completed).filter(|(_, completed)| **completed);
        completed.any(|((entry, selection), _)| entry.filter(selection).has_response_phase())
            || self.shadows.iter().any(|(index, shadow)| self.completed[*index] && shadow.has_response_phase())
    }

    /// The response phase has ended: begins the shadows of this exchange, and passes on what was
    /// recorded.
    pub fn end(self) {
        self.shadows.into_iter().for_each(|(_, shadow)| shadow.spawn());
        if let Some(recorder) = self.recorder {
            recorder.send();
        }
    }

    /// Chooses whether a new version is called with the same input, and whether the call becomes an
    /// example. Copies the input if so.
    fn begin_recording(&mut self, index: usize, exchange: &Exchange) -> Option<Recording> {
        let entry = &self.chain[index];
        let shadow = entry.canary.as_ref().and_then(|canary| {
            ShadowRun::choose(&canary.filter, &canary.config, &canary.traffic, &canary.shadow_counters)
        });
        let has_shadow = shadow.is_some();
        self.shadows.extend(shadow.map(|shadow| (index, shadow)));
        let is_wanted =
            has_shadow || self.recorder.as_ref().is_some_and(|recorder| recorder.wants(&entry.filter.settings.name));
        is_wanted.then(|| ShadowRun::begin(exchange))
    }

    /// Copies the input of a response phase, if the exchange was chosen in the request phase.
    fn go_on_recording(&self, index: usize, exchange: &Exchange) -> Option<Recording> {
        let is_chosen = self.shadows.iter().any(|(own, _)| *own == index)
            || self.recorder.as_ref().is_some_and(|recorder| recorder.has(index));
        is_chosen.then(|| ShadowRun::begin(exchange))
    }

    /// Keeps a live call for its shadow and for those who record.
    fn keep_recording(
        &mut self,
        index: usize,
        recording: Option<Recording>,
        phase: Phase,
        after: &Exchange,
        result: &Result<Action, Error>,
    ) {
        let Some(recording) = recording else { return };
        // A full pool says nothing about the version in service either.
        if result.as_ref().is_err_and(|error| error.kind == Kind::Filter(FilterFailure::Saturated)) {
            return;
        }
        let name = &self.chain[index].filter.settings.name;
        if let Some(recorder) = &mut self.recorder
            && (recorder.has(index) || phase == Phase::Request && recorder.wants(name))
        {
            recorder.add((index, name), &recording, phase, after, result);
        }
        let outcome = result.as_ref().map_err(|error| error.kind.label());
        if let Some((_, shadow)) = self.shadows.iter_mut().find(|(own, _)| *own == index) {
            shadow.end(recording, phase, after, outcome);
        }
    }

    /// Runs the request phase of the selected filters. Reads `body` if a filter wants it.
    ///
    /// The exchange comes back with the edits of every filter that completed, also after a failure.
    pub async fn request(
        &mut self,
        mut exchange: Box<Exchange>,
        body: &mut Body,
        record: &mut ExchangeRecord,
    ) -> (Box<Exchange>, Result<Decision, Error>) {
        if self.selected.iter().all(|selection| *selection == Selection::Skipped) {
            return (exchange, Ok(Decision::Proceed));
        }
        let mut clock = PhaseClock::new(self.budget);
        for (index, entry) in self.chain.iter().enumerate() {
            let selection = self.selected[index];
            if selection == Selection::Skipped {
                continue;
            }
            let version = entry.version(selection);
            if !version.filter.has_request_phase() {
                let recording = self.begin_recording(index, &exchange);
                self.keep_recording(index, recording, Phase::Request, &exchange, &Ok(Action::Proceed));
                self.completed[index] = true;
                continue;
            }
            if version.filter.request_body_limit().is_some() && exchange.request.body.is_none() {
                let reading = Instant::now();
                match self.read_request_body(index, body).await {
                    Ok(bytes) => exchange.request.body = Some(bytes),
                    Err(error) => return (exchange, Err(error)),
                }
                clock.pause(reading);
            }
            let mut recording = self.begin_recording(index, &exchange);
            let result;
            let input = (exchange, recording.as_mut());
            (exchange, result) = call(&version, Phase::Request, input, &mut clock, record).await;
            self.keep_recording(index, recording, Phase::Request, &exchange, &result);
            match result {
                Ok(Action::Proceed) => self.completed[index] = true,
                Ok(Action::Answer(reply)) => return (exchange, Ok(Decision::Respond(reply))),
                Err(_) if entry.on_error == OnError::Open => {}
                Err(error) => return (exchange, Err(error)),
            }
        }
        (exchange, Ok(Decision::Proceed))
    }

    /// Runs the response phase of the filters that completed, last first, and gives the response.
    /// Reads `body` if a filter wants it.
    pub async fn response(
        &mut self,
        mut exchange: Box<Exchange>,
        body: &mut Body,
        record: &mut ExchangeRecord,
    ) -> Result<Response, Error> {
        if self.has_response_phase() {
            let mut clock = PhaseClock::new(self.budget);
            for (index, entry) in self.chain.iter().enumerate().rev() {
                if !self.completed[index] {
                    continue;
                }
                let version = entry.version(self.selected[index]);
                if !version.filter.has_response_phase() {
                    let recording = self.go_on_recording(index, &exchange);
                    self.keep_recording(index, recording, Phase::Response, &exchange, &Ok(Action::Proceed));
                    continue;
                }
                let is_streamed = exchange.response.as_ref().is_some_and(|response| response.body.is_none());
                if let Some(limit) = version.filter.response_body_limit().filter(|_| is_streamed) {
                    let reading = Instant::now();
                    let bytes = self.read_response_body(limit, body).await?;
                    if let Some(response) = &mut exchange.response {
                        response.body = Some(bytes);
                    }
                    clock.pause(reading);
                }
                let mut recording = self.go_on_recording(index, &exchange);
                let result;
                let input = (exchange, recording.as_mut());
                (exchange, result) = call(&version, Phase::Response, input, &mut clock, record).await;
                self.keep_recording(index, recording, Phase::Response, &exchange, &result);
                match result {
                    Ok(Action::Proceed) => {}
                    Ok(Action::Answer(reply)) => exchange.answer(reply),
                    Err(_) if entry.on_error == OnError::Open => {}
                    Err(error) => return Err(error),
                }
            }
        }
        record.notes = std::mem::take(&mut exchange.notes);
        if let Some(edited) = exchange.edited_fields.take() {
            *body = std::mem::take(body).without_trailers(edited);
        }
        exchange.response.take().ok_or_else(|| Error::new(Kind::Internal, "no response after the response phase"))
    }

    /// Reads the request's body up to the smallest limit of the filters that will see it.
    async fn read_request_body(&self, first: usize, body: &mut Body) -> Result<Bytes, Error> {
        let remaining = self.entries().skip(first).filter(|(_, selection)| *selection != Selection::Skipped);
        let limits = remaining.filter_map(|(entry, selection)| entry.filter(selection).request_body_limit());
        let limit = limits.min().unwrap_or(0);
        self.read_body(limit, body).await.map_err(|error| match error {
            BodyReadError::TooLarge => Error::new(
                Kind::BodyTooLarge,
                format!("the request body is larger than the {limit} bytes that a filter takes"),
            ),
            BodyReadError::Broken(error) => error,
            BodyReadError::Timeout => {
                Error::new(Kind::ClientTimeout, format!("the request body took more than {:?}", self.body_timeout))
            }
        })
    }

    async fn read_response_body(&self, limit: usize, body: &mut Body) -> Result<Bytes, Error> {
        self.read_body(limit, body).await.map_err(|error| match error {
            BodyReadError::TooLarge => Error::new(
                Kind::ResponseTooLarge,
                format!("the response body is larger than the {limit} bytes that a filter takes"),
            ),
            BodyReadError::Broken(error) => error,
            BodyReadError::Timeout => {
                Error::new(Kind::UpstreamTimeout, format!("the response body took more than {:?}", self.body_timeout))
            }
        })
    }

    async fn read_body(&self, limit: usize, body: &mut Body) -> Result<Bytes, BodyReadError> {
        let arriving = self.memory.arriving(self.client);
        match tokio::time::timeout(self.body_timeout, std::mem::take(body).read_counted(limit, arriving)).await {
            Ok(Ok(bytes)) => Ok(bytes),
            Ok(Err(ReadError::TooLarge)) => Err(BodyReadError::TooLarge),
            Ok(Err(ReadError::Broken(error))) => Err(BodyReadError::Broken(error)),
            Err(_) => Err(BodyReadError::Timeout),
        }
    }
}

/// The time that is left to the filters of one phase. A pause does not count: a slow client or a
/// service that a filter calls must not use up the filters' time.
struct PhaseClock {
    budget: Duration,
    started: Instant,
    paused: Duration,
}

impl PhaseClock {
    fn new(budget: Duration) -> Self {
        Self { budget, started: Instant::now(), paused: Duration::ZERO }
    }

    fn pause(&mut self, since: Instant) {
        self.paused += since.elapsed();
    }

    fn left(&self) -> Duration {
        self.budget.saturating_sub(self.started.elapsed().saturating_sub(self.paused))
    }
}

/// Calls a filter and notes the call in the record.
async fn call(
    version: &Selected<'_>,
    phase: Phase,
    (exchange, recording): (Box<Exchange>, Option<&mut Recording>),
    clock: &mut PhaseClock,
    record: &mut ExchangeRecord,
) -> (Box<Exchange>, Result<Action, Error>) {
    let filter = version.filter;
    let running = version.series.begin_call();
    let deadline = filter.settings.timeout.min(clock.left());
    let CallResult { exchange, outcome, took, waited, stats, log_lines_dropped } = if deadline.is_zero() {
        let detail = format!("the budget of {:?} for all filters of the phase was used up before it", clock.budget);
        let failure = Failure { kind: FilterFailure::Deadline, detail };
        let stats = CallStats { began: Some(Instant::now()), ..CallStats::default() };
        let (took, waited) = (Duration::ZERO, Duration::ZERO);
        CallResult { exchange, outcome: Err(failure), took, waited, stats, log_lines_dropped: 0 }
    } else {
        let mut none = None;
        let replay = recording.map_or(&mut none, |recording| &mut recording.replay);
        let result = invoke(version, phase, exchange, deadline, replay).await;
        count_for_release(version, phase, &result);
        result
    };
    drop(running);
    clock.paused += waited;
    let (result, outcome) = match outcome {
        Ok(Action::Proceed) => (Ok(Action::Proceed), CallOutcome::Proceeded),
        Ok(answer) => (Ok(answer), CallOutcome::Responded),
        Err(Failure { kind, detail }) => {
            let error = format!("filter {} {}: {detail}", filter.settings.name, filter.version);
            let is_logged = filter.log_limit.allow_line();
            (Err(Error::new(Kind::Filter(kind), error)), CallOutcome::Failed { kind, detail, is_logged })
        }
    };
    let series = version.series.clone();
    let sent = record.sent.as_ref().map_or_else(Vec::new, |sent| sent.take());
    record.calls.push(FilterCall { filter: series, phase, duration: took, stats, outcome, log_lines_dropped, sent });
    (exchange, result)
}

/// Counts a call if a release compares two versions. A full pool of instances says nothing about a
/// version.
fn count_for_release(version: &Selected<'_>, phase: Phase, result: &CallResult) {
    let Some(figures) = version.figures else { return };
    let failure = result.outcome.as_ref().err().map(|failure| failure.kind);
    if failure != Some(FilterFailure::Saturated) {
        let begins = phase == Phase::Request || !version.filter.has_request_phase();
        figures.count(begins, failure.is_some(), result.took);
    }
}

/// Calls of large filters (interpreters) that are due at the same time run one after the other,
/// and so does the other work of their exchanges. Each call then finds the filter's code and data
/// in the processor's caches. The price is one more poll of the task before and after the call.
async fn invoke(
    version: &Selected<'_>,
    phase: Phase,
    exchange: Box<Exchange>,
    deadline: Duration,
    replay: &mut Option<Box<Replay>>,
) -> CallResult {
    let filter = version.filter;
    if !filter.is_large {
        return call::run_with(filter, phase, exchange, version.config, deadline, replay).await;
    }
    yield_to_ready_tasks().await;
    let called = call::run_with(filter, phase, exchange, version.config, deadline, replay).await;
    yield_to_ready_tasks().await;
    called
}
