//! Sends a request to an upstream: choose an endpoint, attempt, retry.
//!
//! This file holds these three steps; each module does one part of them. `cluster` is an upstream
//! with its endpoints, `host` an entry of its configuration, `registry` all of these, and
//! `endpoint` the shared state of one endpoint. `balance` chooses, `retry` decides, `verdict`
//! classifies results, and `health` checks endpoints in the background. `pool` keeps this thread's
//! connections; `connect` makes them, `resolve` finds the addresses of names, and `h1` and `h2`
//! send one exchange over one. `websocket_accept` proves an upgrade, `interim` bounds interim
//! responses, `response_timeout` and `deadline` limit time, `component` calls a component instead
//! of a server, and `echo` is the built-in upstream. A retry does not call the filters again: it
//! sends the request that they made. This module does not know: routes, filters, clients.

mod balance;
mod cluster;
mod component;
mod connect;
mod deadline;
mod echo;
mod endpoint;
mod h1;
mod h2;
mod health;
mod host;
mod interim;
pub mod outbound;
mod pool;
mod registry;
mod resolve;
mod response_timeout;
mod retry;
mod verdict;
mod websocket_accept;

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use smallvec::SmallVec;
use tokio::time::Instant;

use crate::telemetry::{
    AttemptRecord, Metrics, RetryLabels, TRACEPARENT, TraceContext, UpstreamRecord, count_known, new_span_id,
};
pub(crate) use balance::hash;
use balance::{ChooseError, Policy};
pub use cluster::{Cluster, EndpointSet, WeightedEndpoint};
pub(crate) use cluster::{cookie, cookies};
pub use endpoint::{Endpoint, EndpointStatus};
pub use health::run_health_checks;
use pool::{AttemptError, Pool, Target};
pub use registry::EndpointRegistry;
use response_timeout::ResponseTimeout;
use retry::{Cause, RetryBudget};
use verdict::{AttemptResult, Verdict};
use witgate_config::{Balance, UpstreamTarget};
use witgate_http::body::{Body, InterimSink};
use witgate_http::body_budget::Budget;
use witgate_http::error::{Error, Kind};
use witgate_runtime::http_component::Holder;

/// Sends the requests of one thread to all upstreams.
pub struct UpstreamClient {
    pool: Pool,
    /// By the upstream's name.
    per_thread: RefCell<HashMap<Arc<str>, PerThread>>,
    started: Instant,
    metrics: Metrics,
}

/// The state of one upstream that a thread keeps between requests.
#[derive(Default)]
struct PerThread {
    /// The set of endpoints that `round_robin` belongs to.
    generation: u64,
    round_robin: Vec<i64>,
    budget: RetryBudget,
}

/// How to send one request.
pub struct SendOptions<'a> {
    /// The client's address, for `{hash: client_ip}`.
    pub client: IpAddr,
    /// The route's limit on the time to the response's head. If none, the upstream's applies.
    pub timeout: Option<Duration>,
    /// Receives interim responses, if the client can take them.
    pub interim: Option<&'a InterimSink>,
    /// Where the bodies of a component's own requests count.
    pub budget: Option<&'a Arc<Budget>>,
    /// The exchange's place in a trace. Each attempt has a span of its own.
    pub trace: Option<TraceContext>,
    /// Receives what each attempt did.
    pub record: &'a mut UpstreamRecord,
}

/// One attempt with its result.
struct AttemptOutcome {
    result: Result<http::Response<Body>, Error>,
    /// The request, if it is complete and may be sent again.
    request: Option<http::Request<Body>>,
}

/// What follows an attempt.
enum Next {
    Return(Result<http::Response<Body>, Error>),
    Retry(http::Request<Body>),
}

/// Indices of the endpoints that a request was sent to, in order.
type Tried = SmallVec<[usize; 4]>;

impl UpstreamClient {
    /// Creates a client without connections.
    pub fn new(metrics: Metrics) -> Self {
        Self { pool: Pool::new(metrics.clone()), per_thread: RefCell::default(), started: Instant::now(), metrics }
    }

    /// Sends `request` and returns the response's head with a body that streams.
    pub async fn send(
        &self,
        cluster: &Cluster,
        options: SendOptions<'_>,
        mut request: http::Request<Body>,
    ) -> Result<http::Response<Body>, Error> {
        match (&cluster.settings.target, &cluster.component) {
            (UpstreamTarget::Endpoints(_), _) => {}
            // Boxed, because the future of a call is large and most clusters have servers.
            (_, Some(component)) => {
                let started = Instant::now();
                let SendOptions { client, timeout, budget, record, .. } = options;
                let holder = Holder { client, budget: budget.cloned() };
                let answer = component::answer(cluster, component, (started, timeout), holder, record, request);
                return Box::pin(answer).await.map(|response| limit_total_time(response, cluster, started));
            }
            _ => return echo::answer(request, options.timeout.unwrap_or(cluster.settings.timeout)).await,
        }
        let started = Instant::now();
        options.record.started = Some(started.into_std());
        let set = cluster.resolved().await?;
        let deadline = started + options.timeout.unwrap_or(cluster.settings.timeout);
        let key = cluster.hash_key(&request, options.client);
        self.with_per_thread(cluster, &set, |state| state.budget.count_request(self.budget_second(started)));
        let (mut tried, mut now, mut other_addresses) = (Tried::new(), started, 0);
        loop {
            let index = self.choose(cluster, &set, key, &tried)?;
            tried.push(index);
            let connect_time = Cell::new(None);
            let span_id = options.trace.map_or(0, |trace| name_span(&trace, &mut request));
            let times = (now, deadline, &connect_time);
            let attempt = self.attempt((cluster, &set), &tried, times, request, options.interim).await;
            let ended = Instant::now();
            options.record.head_after = Some(ended - started);
            options.record.attempts.push(AttemptRecord {
                endpoint: set.list[index].endpoint.label.clone(),
                result: AttemptResult::of(attempt.result.as_ref().map(http::Response::status)).label(),
                connect: connect_time.get(),
                duration: ended - now,
                started: now.into_std(),
                status: attempt.result.as_ref().ok().map(|response| response.status().as_u16()),
                span_id,
            });
            match self.next((cluster, &set), attempt, &tried, &mut other_addresses, deadline).await {
                Next::Return(result) => return result.map(|response| limit_total_time(response, cluster, started)),
                Next::Retry(again) => (request, now) = (again, Instant::now()),
            }
        }
    }

    /// Drops connections that were idle for too long, and the state of upstreams that `clusters`
    /// does not contain. Returns the number of idle connections that are left. The thread calls
    /// this periodically.
    pub fn sweep<'c>(&self, clusters: impl Iterator<Item = &'c Arc<Cluster>>) -> usize {
        let (mut names, mut idle_timeouts) = (HashSet::new(), HashMap::new());
        for cluster in clusters {
            names.insert(cluster.name.clone());
            let timeout = cluster.settings.idle_timeout;
            idle_timeouts.extend(cluster.endpoints().list.iter().map(|weighted| (weighted.endpoint.id, timeout)));
        }
        self.per_thread.borrow_mut().retain(|name, _| names.contains(name));
        self.pool.sweep(|id| idle_timeouts.get(&id).copied())
    }

    /// Returns the index of the endpoint for the next attempt.
    fn choose(&self, cluster: &Cluster, set: &EndpointSet, key: Option<u64>, tried: &[usize]) -> Result<usize, Error> {
        let candidates = set.candidates(cluster.settings.limits.in_flight);
        let chosen = match (&cluster.settings.balance, key) {
            (Balance::LeastRequests, _) => balance::choose(&candidates, tried, Policy::LeastRequests),
            (_, Some(key)) => balance::choose(&candidates, tried, Policy::Hash(key)),
            _ => self.with_per_thread(cluster, set, |state| {
                balance::choose(&candidates, tried, Policy::RoundRobin(&mut state.round_robin))
            }),
        };
        chosen.map_err(|error| match error {
            ChooseError::Saturated => Error::new(
                Kind::UpstreamSaturated,
                format!("upstream {}: every endpoint in service has reached limits.in_flight", cluster.name),
            ),
            ChooseError::NoEndpoint => Error::new(
                Kind::UpstreamUnavailable,
                format!("upstream {}: no endpoint has a weight above 0", cluster.name),
            ),
        })
    }

    /// Sends the request to the last of `tried` and records the result for that endpoint.
    async fn attempt(
        &self,
        (cluster, set): (&Cluster, &EndpointSet),
        tried: &[usize],
        (now, deadline, connect_time): (Instant, Instant, &Cell<Option<Duration>>),
        request: http::Request<Body>,
        interim: Option<&InterimSink>,
    ) -> AttemptOutcome {
        let retried = tried.len() - 1;
        let (settings, endpoint) = (&cluster.settings, &set.list[tried[retried]].endpoint);
        let Some(permit) = endpoint.begin_request(settings.limits.in_flight) else {
            let detail = format!("upstream {}: endpoint {} has reached limits.in_flight", cluster.name, endpoint.label);
            return AttemptOutcome { result: Err(Error::new(Kind::UpstreamSaturated, detail)), request: Some(request) };
        };
        let retries = &settings.retries;
        // The pool cannot return the request after a response or a timeout, so a copy is kept if
        // such a result may be retried.
        let needs_copy = retried < retries.attempts as usize && (retries.on_timeout || !retries.on_status.is_empty());
        let copy = (needs_copy && request.method().is_idempotent()).then(|| pool::try_clone(&request)).flatten();
        let left = deadline.saturating_duration_since(now);
        let time = retries.per_try_timeout.map_or(left, |time| left.min(time));
        let timeout = Rc::new(ResponseTimeout::default());
        let request = request.map(|body| timeout.watch_upload(body));
        let work =
            pin!(self.pool.attempt(Target { cluster, endpoint, interim, now: now.into_std(), connect_time }, request));
        let attempt = match timeout.run(now, time, work).await {
            Some(Ok(mut response)) => {
                response.body_mut().add_guard(permit);
                AttemptOutcome { result: Ok(response), request: copy }
            }
            Some(Err(AttemptError { error, sent, request })) => {
                let request = request.filter(|request| !sent || request.method().is_idempotent());
                AttemptOutcome { result: Err(error), request: request.or(copy) }
            }
            None => {
                self.pool.timed_out(endpoint, now);
                let detail = format!(
                    "upstream {}: {}: no response head within {time:?} (timeout or retries.per_try_timeout)",
                    cluster.name, endpoint.label
                );
                AttemptOutcome { result: Err(Error::new(Kind::UpstreamTimeout, detail)), request: copy }
            }
        };
        record((cluster, set), endpoint, &attempt.result);
        attempt
    }

    /// Decides whether to retry. Returns after the pause before the retry.
    ///
    /// If no connection was made to one address of a name, another address of it is tried at once,
    /// as every client of a name does: this is not a retry. `other_addresses` counts these
    /// attempts.
    async fn next(
        &self,
        (cluster, set): (&Cluster, &EndpointSet),
        attempt: AttemptOutcome,
        tried: &[usize],
        other_addresses: &mut u32,
        deadline: Instant,
    ) -> Next {
        let AttemptOutcome { result, request } = attempt;
        let retried = (tried.len() as u32 - 1).saturating_sub(*other_addresses);
        if retried > 0 {
            self.count_retry(cluster, if result.is_ok() { "ok" } else { "failed" });
        }
        let cause = match &result {
            Ok(response) => Cause::Status(response.status().as_u16()),
            Err(error) => Cause::of(error.kind),
        };
        let retries = &cluster.settings.retries;
        let request = match request {
            Some(request) if is_unconnected(&result) && set.has_other_address(tried) && Instant::now() < deadline => {
                *other_addresses += 1;
                return Next::Retry(request);
            }
            Some(request) if retry::may_retry(retries, retried, cause) => request,
            _ => return Next::Return(result),
        };
        // The first retry goes to another endpoint, which may well be healthy, so it needs no
        // pause. Without another endpoint, the pause gives this one time to recover.
        let has_others = set.list.len() > 1;
        let pause = if retried == 0 && has_others {
            Duration::ZERO
        } else {
            retry::back_off(retries, retried + 1, fastrand::f64())
        };
        let now = Instant::now();
        if now + pause >= deadline {
            return Next::Return(result);
        }
        let percent = retries.budget_percent;
        if !self.with_per_thread(cluster, set, |state| state.budget.try_take(self.budget_second(now), percent)) {
            self.count_retry(cluster, "over_budget");
            return Next::Return(result);
        }
        if let Err(error) = &result {
            tracing::debug!(upstream = &*cluster.name, detail = error.detail, "retrying");
        }
        // Dropped before the pause, so that another request can use its connection.
        drop(result);
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        Next::Retry(request)
    }

    /// Returns the time on the retry budget's clock, in seconds. It starts above the budget's
    /// window, so that the empty counts of second 0 are not recent.
    fn budget_second(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.started).as_secs() + 1000
    }

    fn with_per_thread<T>(&self, cluster: &Cluster, set: &EndpointSet, work: impl FnOnce(&mut PerThread) -> T) -> T {
        let mut all = self.per_thread.borrow_mut();
        let state = match all.get_mut(&cluster.name) {
            Some(state) => state,
            None => all.entry(cluster.name.clone()).or_default(),
        };
        if state.generation != set.generation {
            state.generation = set.generation;
            // Random, so that the first requests of all threads do not meet at the first endpoint.
            let counters = set.list.iter().map(|weighted| fastrand::i64(0..=i64::from(weighted.weight)));
            state.round_robin = counters.collect();
        }
        work(state)
    }

    fn count_retry(&self, cluster: &Cluster, result: &'static str) {
        count_known(&self.metrics.upstream_retries, &RetryLabels { upstream: cluster.name.clone(), result });
    }
}

/// Makes the upstream's span a child of this attempt's span.
fn name_span(trace: &TraceContext, request: &mut http::Request<Body>) -> u64 {
    let span_id = new_span_id();
    request.headers_mut().insert(TRACEPARENT, trace.traceparent(span_id));
    span_id
}

/// Ends the response's body at `total_timeout`. A tunnel has its own idle timeout instead.
fn limit_total_time(response: http::Response<Body>, cluster: &Cluster, started: Instant) -> http::Response<Body> {
    match cluster.settings.total_timeout {
        Some(time) if response.status() != StatusCode::SWITCHING_PROTOCOLS => {
            response.map(|body| deadline::with_deadline(body, (started + time).into_std()))
        }
        _ => response,
    }
}

/// Whether an attempt ended without a connection.
fn is_unconnected<T>(result: &Result<T, Error>) -> bool {
    let is_limit = |kind| kind == Kind::UpstreamSaturated;
    result.as_ref().is_err_and(|error| Cause::of(error.kind) == Cause::Connect && !is_limit(error.kind))
}

/// Counts an attempt and updates the outlier detection of its endpoint.
fn record((cluster, set): (&Cluster, &EndpointSet), endpoint: &Endpoint, result: &Result<http::Response<Body>, Error>) {
    let result = AttemptResult::of(result.as_ref().map(http::Response::status));
    endpoint.count(result);
    match (result.verdict(), &cluster.settings.outlier) {
        (Verdict::Success, _) => endpoint.record_success(),
        (Verdict::Failure, Some(outlier)) => {
            endpoint.record_failure(outlier, || set.may_eject(outlier.max_ejected_percent));
        }
        (Verdict::Failure, None) | (Verdict::Unknown, _) => {}
    }
}
