//! The chain of filters of a route: which run, in what order, and what a failure does.
//!
//! Request phase in the order written, response phase reversed. A filter takes part in the response phase only if its request phase
//! completed (or it has none and the chain came past it): one that was not called, or that failed, has not seen the request, so its response
//! half would work on notes that are not there. Rules (`match:`) look at the request as the client sent it, before any filter's edits, so that an
//! operator can tell from a request alone which filters it meets. Must not know: routing, upstreams, sockets.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use smallvec::SmallVec;

use crate::telemetry::{CallCounts, CallLabels, FailureLabels, Metrics};
use witgate_config::{Match, OnError};
use witgate_http::body::{Body, BufferBudget, BufferPermit, ReadError};
use witgate_http::error::{Error, FilterFailure, Kind};
use witgate_http::throughput::yield_to_ready_tasks;
use witgate_runtime::exchange::{Exchange, Reply};
use witgate_runtime::instance::{self, Action, CallResult, Failure, Phase};
use witgate_runtime::filter::Filter;

/// A filter in a route's chain.
pub struct Link {
    /// The filter, at the version that the snapshot holds.
    pub filter: Arc<Filter>,
    /// When to call it.
    pub when: Match,
    /// Its configuration on this route.
    pub config: Arc<BTreeMap<String, String>>,
    /// What its failure does.
    pub on_error: OnError,
    /// Of its calls on this route, in the request and in the response phase.
    pub counts: [CallCounts; 2],
}

/// What a pass over the chain needs.
pub struct Pass<'a> {
    /// The route's chain, in request order.
    pub chain: &'a [Link],
    /// For all calls of one phase together.
    pub budget: Duration,
    /// To receive a body that a filter wants whole.
    pub body_timeout: Duration,
    /// Bodies in memory, over all exchanges.
    pub held: &'a Arc<BufferBudget>,
    /// How many bytes of them there may be.
    pub held_max: usize,
    /// Where calls are counted.
    pub metrics: &'a Metrics,
}

/// Which links take part in the response phase; one flag for each link of the chain.
pub type Completed = SmallVec<[bool; 8]>;

/// What the exchange holds of the bodies' budget; kept until its answer has been sent.
pub type Holds = SmallVec<[BufferPermit; 2]>;

/// How the request phase ended.
pub enum Decision {
    /// On to the upstream.
    Proceed,
    /// A filter answered.
    Answer(Reply),
}

impl Pass<'_> {
    /// Runs the request phase over the links that `selected` names. `body` is read where a filter wants it.
    ///
    /// The exchange comes back with the edits of every filter that completed, whatever the end.
    pub async fn request(
        &self,
        mut exchange: Box<Exchange>,
        body: &mut Body,
        selected: &Completed,
        holds: &mut Holds,
    ) -> (Box<Exchange>, Completed, Result<Decision, Error>) {
        let mut completed: Completed = selected.iter().map(|_| false).collect();
        if !selected.contains(&true) {
            return (exchange, completed, Ok(Decision::Proceed));
        }
        let began = Instant::now();
        let mut waited = Duration::ZERO;
        for (index, link) in self.chain.iter().enumerate() {
            if !selected[index] {
                continue;
            }
            if !link.filter.has_request_phase() {
                completed[index] = true;
                continue;
            }
            if link.filter.request_body_limit().is_some() && exchange.request.body.is_none() {
                let reading = Instant::now();
                match self.read_request_body(index, selected, body).await {
                    Ok((bytes, hold)) => {
                        exchange.request.body = Some(bytes);
                        holds.push(hold);
                    }
                    Err(error) => return (exchange, completed, Err(error)),
                }
                // A slow client must not use up the filters' time.
                waited += reading.elapsed();
            }
            let left = self.budget.saturating_sub(began.elapsed().saturating_sub(waited));
            let called = self.call(link, Phase::Request, exchange, left).await;
            exchange = called.exchange;
            match called.outcome {
                Ok(Action::Proceed) => completed[index] = true,
                Ok(Action::Answer(reply)) => return (exchange, completed, Ok(Decision::Answer(reply))),
                Err(_) if link.on_error == OnError::Open => {}
                Err(failure) => return (exchange, completed, Err(to_error(link, &failure))),
            }
        }
        (exchange, completed, Ok(Decision::Proceed))
    }

    /// Whether any link that completed has a response phase.
    pub fn has_response_phase(&self, completed: &Completed) -> bool {
        self.chain.iter().zip(completed).any(|(link, completed)| *completed && link.filter.has_response_phase())
    }

    /// Runs the response phase over the links that completed, last first. `body` is read where a filter wants it.
    pub async fn response(
        &self,
        mut exchange: Box<Exchange>,
        body: &mut Body,
        completed: &Completed,
        holds: &mut Holds,
    ) -> (Box<Exchange>, Result<(), Error>) {
        if !self.has_response_phase(completed) {
            return (exchange, Ok(()));
        }
        let began = Instant::now();
        let mut waited = Duration::ZERO;
        for (link, _) in self.chain.iter().zip(completed).rev().filter(|(_, completed)| **completed) {
            if !link.filter.has_response_phase() {
                continue;
            }
            let unread = exchange.response.as_ref().is_some_and(|response| response.body.is_none());
            if let Some(limit) = link.filter.response_body_limit().filter(|_| unread) {
                let reading = Instant::now();
                match self.read_response_body(limit, body).await {
                    Ok((bytes, hold)) => {
                        holds.push(hold);
                        if let Some(response) = &mut exchange.response {
                            response.body = Some(bytes);
                        }
                    }
                    Err(error) => return (exchange, Err(error)),
                }
                waited += reading.elapsed();
            }
            let left = self.budget.saturating_sub(began.elapsed().saturating_sub(waited));
            let called = self.call(link, Phase::Response, exchange, left).await;
            exchange = called.exchange;
            match called.outcome {
                Ok(Action::Proceed) => {}
                Ok(Action::Answer(reply)) => exchange.answer(reply),
                Err(_) if link.on_error == OnError::Open => {}
                Err(failure) => return (exchange, Err(to_error(link, &failure))),
            }
        }
        (exchange, Ok(()))
    }

    /// One call, counted and, where it failed, logged.
    async fn call(&self, link: &Link, phase: Phase, exchange: Box<Exchange>, left: Duration) -> CallResult {
        let filter = &link.filter;
        let deadline = filter.settings.timeout.min(left);
        let called = if deadline.is_zero() {
            let detail = format!("the budget of {:?} for all filters of the phase was used up before it", self.budget);
            let failure = Failure { kind: FilterFailure::Deadline, detail };
            CallResult { exchange, outcome: Err(failure), took: Duration::ZERO, log_lines_dropped: 0 }
        } else {
            called(link, phase, exchange, deadline).await
        };
        let labels =
            || CallLabels { filter: filter.settings.name.clone(), version: filter.version.clone(), phase: phase.label() };
        let counts = &link.counts[usize::from(phase == Phase::Response)];
        counts.count(self.metrics, labels, called.took.as_secs_f64());
        if called.log_lines_dropped > 0 {
            self.metrics.log_lines_dropped.inc_by(called.log_lines_dropped.into());
        }
        if let Err(failure) = &called.outcome {
            self.report(link, phase, &called.exchange, failure);
        }
        called
    }

    fn report(&self, link: &Link, phase: Phase, exchange: &Exchange, failure: &Failure) {
        let filter = &link.filter;
        let kind = failure.kind.label();
        let labels = FailureLabels { filter: filter.settings.name.clone(), version: filter.version.clone(), kind };
        self.metrics.failures.get_or_create(&labels).inc();
        if filter.log_limit.allow() {
            tracing::error!(
                filter = &*filter.settings.name,
                version = &*filter.version,
                digest = &*filter.short_digest,
                kind,
                phase = phase.label(),
                route = &*exchange.route,
                exchange = exchange.id_text(),
                on_error = if link.on_error == OnError::Open { "open" } else { "closed" },
                detail = failure.detail,
                "a filter failed"
            );
        }
    }

    /// Reads the request's body up to the smallest limit of the filters that will see it.
    async fn read_request_body(
        &self,
        from: usize,
        selected: &Completed,
        body: &mut Body,
    ) -> Result<(Bytes, BufferPermit), Error> {
        let wanting = self.chain.iter().zip(selected).skip(from).filter(|(_, selected)| **selected);
        let limit = wanting.filter_map(|(link, _)| link.filter.request_body_limit()).min().unwrap_or(0);
        match self.read_body(limit, body).await {
            Ok(read) => Ok(read),
            Err(Unread::TooLarge) => Err(Error::new(
                Kind::BodyTooLarge,
                format!("the request body is larger than the {limit} bytes that a filter takes"),
            )),
            Err(Unread::Broken(error)) => Err(error),
            Err(Unread::Late) => {
                Err(Error::new(Kind::ClientTimeout, format!("the request body took more than {:?}", self.body_timeout)))
            }
            Err(Unread::NoRoom) => Err(self.no_room()),
        }
    }

    async fn read_response_body(&self, limit: usize, body: &mut Body) -> Result<(Bytes, BufferPermit), Error> {
        match self.read_body(limit, body).await {
            Ok(read) => Ok(read),
            Err(Unread::TooLarge) => Err(Error::new(
                Kind::ResponseTooLarge,
                format!("the response body is larger than the {limit} bytes that a filter takes"),
            )),
            Err(Unread::Broken(error)) => Err(error),
            Err(Unread::Late) => Err(Error::new(
                Kind::UpstreamTimeout,
                format!("the response body took more than {:?}", self.body_timeout),
            )),
            Err(Unread::NoRoom) => Err(self.no_room()),
        }
    }

    async fn read_body(&self, limit: usize, body: &mut Body) -> Result<(Bytes, BufferPermit), Unread> {
        let hold = self.held.try_reserve(body.buffer_size(limit), self.held_max).ok_or(Unread::NoRoom)?;
        match tokio::time::timeout(self.body_timeout, std::mem::take(body).read(limit)).await {
            Ok(Ok(bytes)) => Ok((bytes, hold)),
            Ok(Err(ReadError::TooLarge)) => Err(Unread::TooLarge),
            Ok(Err(ReadError::Broken(error))) => Err(Unread::Broken(error)),
            Err(_) => Err(Unread::Late),
        }
    }

    fn no_room(&self) -> Error {
        Error::new(
            Kind::Saturated,
            format!("bodies in memory would be more than limits.buffered_bytes ({})", self.held_max),
        )
    }
}

/// Calls of large filters that are due at once follow each other, and so does what comes before and after them: each finds its code and data in the
/// processor's caches, which the other would have taken.
async fn called(link: &Link, phase: Phase, exchange: Box<Exchange>, deadline: Duration) -> CallResult {
    let filter = &link.filter;
    if !filter.is_large {
        return instance::call(filter, phase, exchange, &link.config, deadline).await;
    }
    yield_to_ready_tasks().await;
    let called = instance::call(filter, phase, exchange, &link.config, deadline).await;
    yield_to_ready_tasks().await;
    called
}

/// Why a filter does not get its body.
enum Unread {
    TooLarge,
    Broken(Error),
    Late,
    NoRoom,
}

/// The links whose rules take this request.
pub fn select(chain: &[Link], takes: impl Fn(&Match) -> bool) -> Completed {
    chain.iter().map(|link| takes(&link.when)).collect()
}

fn to_error(link: &Link, failure: &Failure) -> Error {
    Error::new(
        Kind::Filter(failure.kind),
        format!("filter {} {}: {}", link.filter.settings.name, link.filter.version, failure.detail),
    )
}
