//! Sends a request to an upstream: choose an endpoint → attempt → retry.
//!
//! This file is that sentence. `group.rs` is the upstream, `endpoint.rs` what the gateway knows of each endpoint, `balance.rs` chooses, `retry.rs` decides, `pool.rs` has this
//! thread's connections (`connect.rs` makes them, `resolve.rs` knows the addresses, `http1.rs` and `http2.rs` speak over them, `interim.rs` bounds what comes before an answer), `clock.rs` knows whose time it is, `deadline.rs` ends a body in time, `echo.rs` is the
//! upstream without a network. Filters are not called again: a retry sends what they made of the request. Must not know: routes, filters, clients.

mod balance;
mod clock;
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
use balance::{Refusal, Way};
use clock::Clock;
pub use cluster::{Group, Member, Registry};
pub use connect::{Secured, connect};
pub use endpoint::{Sight, State};
use pool::{Attempt, Pool, To};
use retry::{Budget, Cause};
use witgate_config::{Balance, Target};
use witgate_http::body::{Body, Interim};
use witgate_http::error::{Error, Kind};

/// This thread's way to all upstreams.
pub struct Pools {
    pool: Pool,
    own: RefCell<HashMap<Arc<str>, Own>>,
    began: Instant,
    metrics: Metrics,
}

/// What this thread keeps of an upstream from one request to the next.
#[derive(Default)]
struct Own {
    generation: u64,
    turns: Vec<i64>,
    budget: Budget,
}

/// What a request brings with it.
pub struct Asked<'a> {
    /// The address that `{hash: client_ip}` looks at.
    pub client: IpAddr,
    /// The route's own time to the response's head, where it has one.
    pub timeout: Option<Duration>,
    /// Takes interim responses, where the client can.
    pub interim: Option<&'a Interim>,
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

impl Pools {
    /// No connections yet.
    pub fn new(metrics: Metrics) -> Self {
        Self { pool: Pool::new(metrics.clone()), own: RefCell::default(), began: Instant::now(), metrics }
    }

    /// Sends `request` and gives the response's head; its body streams.
    pub async fn send(
        &self,
        group: &Group,
        asked: Asked<'_>,
        mut request: http::Request<Body>,
    ) -> Result<http::Response<Body>, Error> {
        if group.terms.target == Target::Echo {
            return echo::answer(request, asked.timeout.unwrap_or(group.terms.timeout)).await;
        }
        let began = Instant::now();
        let deadline = began + asked.timeout.unwrap_or(group.terms.timeout);
        let key = group.key(&request, asked.client);
        self.with_own(group, |own| own.budget.request(self.second(began)));
        let (mut tried, mut now) = (Tried::new(), began);
        loop {
            let place = self.choose(group, key, &tried)?;
            let outcome = self.attempt(group, place, (now, deadline), request, (tried.len(), asked.interim)).await;
            tried.push(place);
            match self.next(group, outcome, &tried, deadline).await {
                Next::Answer(result) => return result.map(|response| ended(response, group, began)),
                Next::Again(whole) => (request, now) = (whole, Instant::now()),
            }
        }
    }

    /// Drops what was idle for too long, and what belongs to an upstream that is gone; called from time to time. Says how many idle connections are left.
    pub fn sweep<'g>(&self, groups: impl Iterator<Item = &'g Arc<Group>>) -> usize {
        let (mut names, mut timeouts) = (HashSet::new(), HashMap::new());
        for group in groups {
            names.insert(group.name.clone());
            timeouts.extend(group.members.iter().map(|member| (member.state.id, group.terms.idle_timeout)));
        }
        self.own.borrow_mut().retain(|name, _| names.contains(name));
        self.pool.sweep(|id| timeouts.get(&id).copied())
    }

    fn choose(&self, group: &Group, key: Option<u64>, tried: &[usize]) -> Result<usize, Error> {
        let all = group.candidates();
        let chosen = match (&group.terms.balance, key) {
            (Balance::LeastRequests, _) => balance::choose(&all, tried, Way::Least),
            (_, Some(key)) => balance::choose(&all, tried, Way::Key(key)),
            _ => self.with_own(group, |own| balance::choose(&all, tried, Way::Turn(&mut own.turns))),
        };
        chosen.map_err(|refusal| match refusal {
            Refusal::Full => Error::new(
                Kind::UpstreamSaturated,
                format!("upstream {}: every endpoint in service has limits.in_flight requests", group.name),
            ),
            Refusal::Nobody => {
                Error::new(Kind::UpstreamUnavailable, format!("upstream {}: no endpoint has a weight", group.name))
            }
        })
    }

    /// One try; what came of it is noted for the endpoint.
    async fn attempt(
        &self,
        group: &Group,
        place: usize,
        (now, deadline): (Instant, Instant),
        request: http::Request<Body>,
        (retried, interim): (usize, Option<&Interim>),
    ) -> Outcome {
        let (terms, state) = (&group.terms, &group.members[place].state);
        let Some(entered) = state.enter(terms.limits.in_flight) else {
            let detail = format!("upstream {}: {}: limits.in_flight requests", group.name, state.label);
            return Outcome { result: Err(Error::new(Kind::UpstreamSaturated, detail)), request: Some(request) };
        };
        let retries = &terms.retries;
        // What the pool cannot give back: it answered, or its time was over.
        let keeps = retried < retries.attempts as usize && (retries.on_timeout || !retries.on_status.is_empty());
        let spare = (keeps && request.method().is_idempotent()).then(|| pool::copy(&request)).flatten();
        let left = deadline.saturating_duration_since(now);
        let time = retries.per_try_timeout.map_or(left, |time| left.min(time));
        let clock = Rc::new(Clock::default());
        let request = request.map(|body| clock.watch(body));
        let work = pin!(self.pool.attempt(To { group, state, interim, now: now.into_std() }, request));
        let outcome = match clock.in_time(now, time, work).await {
            Some(Ok(response)) => {
                let guarded = response.map(|body| body.guarded(Box::new(entered)));
                Outcome { result: Ok(guarded), request: spare }
            }
            Some(Err(Attempt { error, sent, request })) => {
                let whole = request.filter(|request| !sent || request.method().is_idempotent());
                Outcome { result: Err(error), request: whole.or(spare) }
            }
            None => {
                let detail = format!("upstream {}: {}: no response in time", group.name, state.label);
                Outcome { result: Err(Error::new(Kind::UpstreamTimeout, detail)), request: spare }
            }
        };
        note(group, state, &outcome.result);
        outcome
    }

    /// Whether to try again, and when; returns after the pause.
    async fn next(&self, group: &Group, outcome: Outcome, tried: &[usize], deadline: Instant) -> Next {
        let Outcome { result, request } = outcome;
        if tried.len() > 1 {
            self.count_retry(group, if result.is_ok() { "ok" } else { "failed" });
        }
        let cause = match &result {
            Ok(response) => Cause::Status(response.status().as_u16()),
            Err(error) => Cause::of(error.kind),
        };
        let retries = &group.terms.retries;
        let retried = tried.len() as u32 - 1;
        let request = match request {
            Some(request) if retry::is_allowed(retries, retried, cause) => request,
            _ => return Next::Answer(result),
        };
        // The first retry goes to another endpoint, where there is one, which has no part in the trouble; else time is a part of the cure.
        let alone = group.members.len() == 1;
        let pause = if retried == 0 && !alone {
            Duration::ZERO
        } else {
            retry::back_off(retries, retried + 1, fastrand::f64())
        };
        if Instant::now() + pause >= deadline {
            return Next::Answer(result);
        }
        if !self.with_own(group, |own| own.budget.take(self.second(Instant::now()), retries.budget_percent)) {
            self.count_retry(group, "over_budget");
            return Next::Answer(result);
        }
        if let Err(error) = &result {
            tracing::debug!(upstream = &*group.name, detail = error.detail, "trying again");
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
    fn with_own<T>(&self, group: &Group, work: impl FnOnce(&mut Own) -> T) -> T {
        let mut all = self.own.borrow_mut();
        let own = match all.get_mut(&group.name) {
            Some(own) => own,
            None => all.entry(group.name.clone()).or_default(),
        };
        if own.generation != group.generation {
            own.generation = group.generation;
            // Each thread begins elsewhere: else all first requests would meet at the first endpoint.
            own.turns = group.members.iter().map(|member| fastrand::i64(0..=i64::from(member.weight))).collect();
        }
        work(own)
    }

    fn count_retry(&self, group: &Group, result: &'static str) {
        self.metrics.upstream_retries.get_or_create(&RetryLabels { upstream: group.name.clone(), result }).inc();
    }
}

/// The response, over by `total_timeout`. A tunnel is none: it ends when it is silent.
fn ended(response: http::Response<Body>, group: &Group, began: Instant) -> http::Response<Body> {
    match group.terms.total_timeout {
        Some(time) if response.status() != StatusCode::SWITCHING_PROTOCOLS => {
            response.map(|body| deadline::within(body, (began + time).into_std()))
        }
        _ => response,
    }
}

/// Counts a try and judges its endpoint by it.
fn note(group: &Group, state: &State, result: &Result<http::Response<Body>, Error>) {
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
    state.count(label);
    match (bad, label, &group.terms.outlier) {
        (true, _, Some(outlier)) => state.failed(outlier, || group.may_eject(outlier.max_ejected_percent)),
        // What was not sent whole says nothing.
        (false, "limit" | "client", _) | (true, _, None) => {}
        (false, ..) => state.succeeded(),
    }
}
