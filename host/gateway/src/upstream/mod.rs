//! Sends a request to an upstream: choose an endpoint → attempt → retry.
//!
//! This file is that sentence. `cluster.rs` is the upstream, `endpoint.rs` what the gateway knows of each endpoint, `balance.rs` chooses, `retry.rs` decides, `pool.rs` has this
//! thread's connections (`connect.rs` makes them, `resolve.rs` knows the addresses, `http1.rs` and `http2.rs` speak over them, `interim.rs` bounds what comes before an answer), `response_timeout.rs` measures the time to the response head, `deadline.rs` ends a body in time, `echo.rs` is the
//! upstream without a network. Filters are not called again: a retry sends what they made of the request. Must not know: routes, filters, clients.

mod balance;
mod cluster;
mod connect;
mod deadline;
mod echo;
mod endpoint;
mod h1;
mod h2;
mod interim;
mod pool;
mod resolve;
mod response_timeout;
mod retry;

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use smallvec::SmallVec;
use tokio::time::Instant;

use crate::telemetry::{Metrics, RetryLabels};
use balance::{ChooseError, Policy};
use response_timeout::ResponseTimeout;
pub use cluster::{Cluster, WeightedEndpoint, EndpointRegistry};
pub use connect::{TlsConfig, connect};
pub use endpoint::{EndpointStatus, Endpoint};
use pool::{AttemptError, Pool, Target};
use retry::{Budget, Cause};
use witgate_config::Balance;
use witgate_http::body::{Body, InterimSink};
use witgate_http::error::{Error, Kind};

/// This thread's way to all upstreams.
pub struct UpstreamClient {
    pool: Pool,
    per_thread: RefCell<HashMap<Arc<str>, PerThread>>,
    began: Instant,
    metrics: Metrics,
}

/// What this thread keeps of an upstream from one request to the next.
#[derive(Default)]
struct PerThread {
    generation: u64,
    turns: Vec<i64>,
    budget: Budget,
}

/// What a request brings with it.
pub struct SendOptions<'a> {
    /// The address that `{hash: client_ip}` looks at.
    pub client: IpAddr,
    /// The route's own time to the response's head, where it has one.
    pub timeout: Option<Duration>,
    /// Takes interim responses, where the client can.
    pub interim: Option<&'a InterimSink>,
}

/// How a try ended.
struct Outcome {
    result: Result<http::Response<Body>, Error>,
    /// The request, where it is whole and may be sent once more.
    request: Option<http::Request<Body>>,
}

/// What follows a try.
enum Next {
    Answer(Result<http::Response<Body>, Error>),
    Again(http::Request<Body>),
}

/// Endpoints that a request was sent to, in order.
type Tried = SmallVec<[usize; 4]>;

impl UpstreamClient {
    /// No connections yet.
    pub fn new(metrics: Metrics) -> Self {
        Self { pool: Pool::new(metrics.clone()), per_thread: RefCell::default(), began: Instant::now(), metrics }
    }

    /// Sends `request` and gives the response's head; its body streams.
    pub async fn send(
        &self,
        cluster: &Cluster,
        options: SendOptions<'_>,
        mut request: http::Request<Body>,
    ) -> Result<http::Response<Body>, Error> {
        if cluster.settings.target == witgate_config::UpstreamTarget::Echo {
            return echo::answer(request, options.timeout.unwrap_or(cluster.settings.timeout)).await;
        }
        let began = Instant::now();
        let deadline = began + options.timeout.unwrap_or(cluster.settings.timeout);
        let key = cluster.key(&request, options.client);
        self.with_per_thread(cluster, |per_thread| per_thread.budget.request(self.second(began)));
        let (mut tried, mut now) = (Tried::new(), began);
        loop {
            let place = self.choose(cluster, key, &tried)?;
            let outcome = self.attempt(cluster, place, (now, deadline), request, (tried.len(), options.interim)).await;
            tried.push(place);
            match self.next(cluster, outcome, &tried, deadline).await {
                Next::Answer(result) => return result.map(|response| ended(response, cluster, began)),
                Next::Again(whole) => (request, now) = (whole, Instant::now()),
            }
        }
    }

    /// Drops what was idle for too long, and what belongs to an upstream that is gone; called from time to time. Says how many idle connections are left.
    pub fn sweep<'g>(&self, clusters: impl Iterator<Item = &'g Arc<Cluster>>) -> usize {
        let (mut names, mut timeouts) = (HashSet::new(), HashMap::new());
        for cluster in clusters {
            names.insert(cluster.name.clone());
            timeouts.extend(cluster.endpoints.iter().map(|member| (member.endpoint.id, cluster.settings.idle_timeout)));
        }
        self.per_thread.borrow_mut().retain(|name, _| names.contains(name));
        self.pool.sweep(|id| timeouts.get(&id).copied())
    }

    fn choose(&self, cluster: &Cluster, key: Option<u64>, tried: &[usize]) -> Result<usize, Error> {
        let all = cluster.candidates();
        let chosen = match (&cluster.settings.balance, key) {
            (Balance::LeastRequests, _) => balance::choose(&all, tried, Policy::LeastRequests),
            (_, Some(key)) => balance::choose(&all, tried, Policy::Hash(key)),
            _ => self.with_per_thread(cluster, |per_thread| balance::choose(&all, tried, Policy::RoundRobin(&mut per_thread.turns))),
        };
        chosen.map_err(|refusal| match refusal {
            ChooseError::Saturated => Error::new(
                Kind::UpstreamSaturated,
                format!("upstream {}: every endpoint in service has limits.in_flight requests", cluster.name),
            ),
            ChooseError::NoEndpoint => {
                Error::new(Kind::UpstreamUnavailable, format!("upstream {}: no endpoint has a weight", cluster.name))
            }
        })
    }

    /// One try; what came of it is noted for the endpoint.
    async fn attempt(
        &self,
        cluster: &Cluster,
        place: usize,
        (now, deadline): (Instant, Instant),
        request: http::Request<Body>,
        (retried, interim): (usize, Option<&InterimSink>),
    ) -> Outcome {
        let (settings, endpoint) = (&cluster.settings, &cluster.endpoints[place].endpoint);
        let Some(entered) = endpoint.enter(settings.limits.in_flight) else {
            let detail = format!("upstream {}: {}: limits.in_flight requests", cluster.name, endpoint.label);
            return Outcome { result: Err(Error::new(Kind::UpstreamSaturated, detail)), request: Some(request) };
        };
        let retries = &settings.retries;
        // What the pool cannot give back: it answered, or its time was over.
        let keeps = retried < retries.attempts as usize && (retries.on_timeout || !retries.on_status.is_empty());
        let spare = (keeps && request.method().is_idempotent()).then(|| pool::copy(&request)).flatten();
        let left = deadline.saturating_duration_since(now);
        let time = retries.per_try_timeout.map_or(left, |time| left.min(time));
        let response_timeout = Rc::new(ResponseTimeout::default());
        let request = request.map(|body| response_timeout.watch_upload(body));
        let work = pin!(self.pool.attempt(Target { cluster, endpoint, interim, now: now.into_std() }, request));
        let outcome = match response_timeout.run(now, time, work).await {
            Some(Ok(response)) => {
                let guarded = response.map(|body| body.with_guard(Box::new(entered)));
                Outcome { result: Ok(guarded), request: spare }
            }
            Some(Err(AttemptError { error, sent, request })) => {
                let whole = request.filter(|request| !sent || request.method().is_idempotent());
                Outcome { result: Err(error), request: whole.or(spare) }
            }
            None => {
                let detail = format!("upstream {}: {}: no response in time", cluster.name, endpoint.label);
                Outcome { result: Err(Error::new(Kind::UpstreamTimeout, detail)), request: spare }
            }
        };
        note(cluster, endpoint, &outcome.result);
        outcome
    }

    /// Whether to try again, and when; returns after the pause.
    async fn next(&self, cluster: &Cluster, outcome: Outcome, tried: &[usize], deadline: Instant) -> Next {
        let Outcome { result, request } = outcome;
        if tried.len() > 1 {
            self.count_retry(cluster, if result.is_ok() { "ok" } else { "failed" });
        }
        let cause = match &result {
            Ok(response) => Cause::Status(response.status().as_u16()),
            Err(error) => Cause::of(error.kind),
        };
        let retries = &cluster.settings.retries;
        let retried = tried.len() as u32 - 1;
        let request = match request {
            Some(request) if retry::is_allowed(retries, retried, cause) => request,
            _ => return Next::Answer(result),
        };
        // The first retry goes to another endpoint, where there is one, which has no part in the trouble; else time is a part of the cure.
        let alone = cluster.endpoints.len() == 1;
        let pause = if retried == 0 && !alone {
            Duration::ZERO
        } else {
            retry::back_off(retries, retried + 1, fastrand::f64())
        };
        if Instant::now() + pause >= deadline {
            return Next::Answer(result);
        }
        if !self.with_per_thread(cluster, |per_thread| per_thread.budget.take(self.second(Instant::now()), retries.budget_percent)) {
            self.count_retry(cluster, "over_budget");
            return Next::Answer(result);
        }
        if let Err(error) = &result {
            tracing::debug!(upstream = &*cluster.name, detail = error.detail, "trying again");
        }
        // The answer is given up here, not after the pause: its connection may be needed.
        drop(result);
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        Next::Again(request)
    }

    /// The second for a budget, from far behind zero, so that the first window is empty.
    fn second(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.began).as_secs() + 1000
    }

    /// This thread's part of an upstream.
    fn with_per_thread<T>(&self, cluster: &Cluster, work: impl FnOnce(&mut PerThread) -> T) -> T {
        let mut all = self.per_thread.borrow_mut();
        let per_thread = match all.get_mut(&cluster.name) {
            Some(per_thread) => per_thread,
            None => all.entry(cluster.name.clone()).or_default(),
        };
        if per_thread.generation != cluster.generation {
            per_thread.generation = cluster.generation;
            // Each thread begins elsewhere: else all first requests would meet at the first endpoint.
            per_thread.turns = cluster.endpoints.iter().map(|member| fastrand::i64(0..=i64::from(member.weight))).collect();
        }
        work(per_thread)
    }

    fn count_retry(&self, cluster: &Cluster, result: &'static str) {
        self.metrics.upstream_retries.get_or_create(&RetryLabels { upstream: cluster.name.clone(), result }).inc();
    }
}

/// The response, over by `total_timeout`. A tunnel is none: it ends when it is silent.
fn ended(response: http::Response<Body>, cluster: &Cluster, began: Instant) -> http::Response<Body> {
    match cluster.settings.total_timeout {
        Some(time) if response.status() != StatusCode::SWITCHING_PROTOCOLS => {
            response.map(|body| deadline::with_deadline(body, (began + time).into_std()))
        }
        _ => response,
    }
}

/// Counts a try and judges its endpoint by it.
fn note(cluster: &Cluster, endpoint: &Endpoint, result: &Result<http::Response<Body>, Error>) {
    let (label, bad) = match result {
        Ok(response) => match response.status().as_u16() {
            502..=504 => ("5xx", true),
            500.. => ("5xx", false),
            _ => ("ok", false),
        },
        Err(error) => match Cause::of(error.kind) {
            _ if !error.kind.is_upstream() => ("client", false),
            _ if error.kind == Kind::UpstreamSaturated => ("limit", false),
            Cause::Connect => ("connect", true),
            Cause::Reset => ("reset", true),
            Cause::Timeout => ("timeout", true),
            _ => ("protocol", true),
        },
    };
    endpoint.count(label);
    match (bad, label, &cluster.settings.outlier) {
        (true, _, Some(outlier)) => endpoint.failed(outlier, || cluster.may_eject(outlier.max_ejected_percent)),
        // What was not sent whole says nothing.
        (false, "limit" | "client", _) | (true, _, None) => {}
        (false, ..) => endpoint.succeeded(),
    }
}
