//! One exchange: route → (CORS) → filters (request) → (rewrite, mirror) → upstream → filters (response, reversed) → (compress) → client.
//!
//! This file is that sentence and nothing else; each step is in `stage/`. Decided here: an answer made by a filter or by the gateway passes the response
//! phase of the filters whose request phase completed; a response phase that fails replaces the answer by an error, which passes no further filter;
//! the upstream is asked at most as often as the connection pool says, filters are called once. Must not know:
//! sockets, files, wasm.

use std::cell::Cell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::sync::{Arc, LazyLock};
use std::time::Instant;

use http::StatusCode;
use http::header::{self, HeaderValue};

use super::normalize::{self, Taken};
use crate::pipeline::compress::{self, Choice};
use crate::pipeline::cors::Origins;
use crate::pipeline::filters::{Completed, Decision, Holds, Pass, select};
use crate::pipeline::limits::Place;
use crate::pipeline::mirror::Copied;
use crate::pipeline::redirect;
use crate::pipeline::respond;
use crate::pipeline::rewrite;
use crate::pipeline::route::matches;
use crate::pipeline::snapshot::{Route, Shared, Snapshot};
use crate::telemetry::{MirrorLabels, RouteCounts, method_label};
use crate::upstream::{Asked, Pools};
use witgate_config::Action;
use witgate_http::body::{Body, Guard, Interim};
use witgate_http::error::{Error, Kind};
use witgate_http::semantics::fields::strip_connection_fields;
use witgate_http::throughput::others_first;
use witgate_runtime::exchange::{Client, Exchange, Request, Response, Upgrade, id_text};

/// What no route took.
static NO_ROUTE: LazyLock<Arc<str>> = LazyLock::new(|| "-".into());
/// Of what a mirror answers.
const MIRROR_ANSWER_BYTES_MAX: usize = 1 << 20;

/// Answers one request. `interim` passes interim responses to the client, where it can take them.
pub async fn handle(
    shared: &Arc<Shared>,
    pools: &Rc<Pools>,
    client: &Arc<Client>,
    request: http::Request<Body>,
    interim: Option<Interim>,
) -> http::Response<Body> {
    let began = Instant::now();
    let snapshot = shared.snapshot.load_full();
    let method = method_label(request.method());
    let (route, response) = match InFlight::enter(shared, snapshot.config.limits.in_flight) {
        Err(error) => (None, failed(&error, "-", None)),
        Ok(in_flight) => {
            let from = From { shared, pools, client, interim };
            let (route, response) = exchange(&from, &snapshot, request).await;
            let guard: Guard = Box::new(in_flight);
            (route, response.map(|body| body.guarded(guard)))
        }
    };
    account(shared, client, route, method, response.status().as_u16(), began);
    response
}

/// The answer to what is not a request at all: there is no exchange, but it is counted as one.
pub fn refused(shared: &Arc<Shared>, client: &Arc<Client>, error: &Error) -> http::Response<Body> {
    let response = failed(error, "-", None);
    account(shared, client, None, "other", response.status().as_u16(), Instant::now());
    response
}

fn account(shared: &Shared, client: &Client, route: Option<&Route>, method: &'static str, status: u16, began: Instant) {
    let seconds = began.elapsed().as_secs_f64();
    match route {
        Some(route) => route.counts.count(&shared.metrics, &route.name, method, status, seconds),
        None => RouteCounts::default().count(&shared.metrics, &NO_ROUTE, method, status, seconds),
    }
    let tls = client.tls.as_deref();
    tracing::debug!(
        target: "access",
        route = &**route.map_or(&*NO_ROUTE, |route| &route.name),
        method,
        status,
        seconds,
        client = %client.address,
        tls_version = tls.map(|tls| tls.version),
        sni = tls.and_then(|tls| tls.server_name.as_deref()),
        peer_sha256 = tls.and_then(|tls| tls.peer.as_ref()).map(|peer| peer.sha256.as_str()),
        "exchange"
    );
}

/// Where a request comes from, and what its exchange may use.
struct From<'a> {
    shared: &'a Arc<Shared>,
    pools: &'a Rc<Pools>,
    client: &'a Arc<Client>,
    interim: Option<Interim>,
}

async fn exchange<'a>(
    from: &From<'_>,
    snapshot: &'a Snapshot,
    request: http::Request<Body>,
) -> (Option<&'a Route>, http::Response<Body>) {
    let shared = from.shared;
    let id = exchange_id();
    let id_value = HeaderValue::try_from(id_text(id)).unwrap_or(HeaderValue::from_static("-"));
    let Taken { request, mut body, client, concerns_gateway } =
        match normalize::take(request, from.client, &snapshot.config, &id_value) {
            Ok(taken) => taken,
            Err(error) => return (None, failed(&error, "-", None)),
        };
    if concerns_gateway {
        return (None, respond::finish(respond::to_options(), Body::empty()));
    }
    let Some(route) = snapshot.route(&request) else {
        let error = Error::new(Kind::NoRoute, format!("{} {}", request.method, request.target.path()));
        return (None, failed(&error, "-", None));
    };
    let seen = Seen::new(route, &request);
    if let Some(answer) = route.cors.as_ref().and_then(|cors| cors.preflight(&request.method, &request.headers)) {
        return (Some(route), respond::finish(answer, Body::empty()));
    }
    // What a client sends after a change of protocol is no body: filters see an empty one.
    let tunnelled = request.upgrade.is_some().then(|| std::mem::take(&mut body));
    let place = match enter(route, &mut body) {
        Ok(place) => place,
        Err(error) => {
            report(&error, &route.name, None);
            return (Some(route), seen.finish(route, respond::to_error(&error), Body::empty()));
        }
    };
    let pass = Pass {
        chain: &route.chain,
        budget: snapshot.config.timeouts.filters,
        body_timeout: snapshot.config.timeouts.request_body,
        held: &shared.held,
        held_max: snapshot.config.limits.buffered_bytes,
        metrics: &shared.metrics,
    };
    let exchange = Box::new(Exchange { id, client, route: route.name.clone(), request, response: None, notes: vec![] });

    let selected = select(&route.chain, |when| matches(when, &exchange.request));
    let mut holds = Holds::new();
    let (mut exchange, completed, decision) = pass.request(exchange, &mut body, &selected, &mut holds).await;
    let mut streamed = Body::empty();
    let outcome = match decision {
        Ok(Decision::Answer(reply)) => Ok(respond::to_reply(reply)),
        Ok(Decision::Proceed) => {
            let keep = pass.has_response_phase(&completed);
            match answer(from, route, &mut exchange, tunnelled.unwrap_or(body), keep).await {
                Ok((response, body)) => {
                    streamed = body;
                    Ok(response)
                }
                Err(error) => Err(error),
            }
        }
        Err(error) => Err(error),
    };
    let response = outcome.unwrap_or_else(|error| {
        report(&error, &route.name, Some(&exchange));
        respond::to_error(&error)
    });
    let mut finished = if response.status == StatusCode::SWITCHING_PROTOCOLS {
        // The protocol has changed: what follows is neither a response nor any filter's business.
        respond::finish(response, streamed)
    } else {
        exchange.response = Some(response);
        let response = response_phase(&pass, exchange, &mut streamed, &completed, &mut holds).await;
        seen.finish(route, response, streamed)
    };
    if !holds.is_empty() {
        finished = finished.map(|body| body.guarded(Box::new(holds)));
    }
    if let Some(place) = place {
        finished = finished.map(|body| body.guarded(Box::new(place)));
    }
    (Some(route), finished)
}

/// The route's own bounds.
fn enter(route: &Route, body: &mut Body) -> Result<Option<Place>, Error> {
    if let Some(max) = route.config.limits.request_body_bytes {
        *body = normalize::within(std::mem::take(body), max as u64, "the route's limits.request_body_bytes")?;
    }
    route.in_flight.as_ref().map(|limit| limit.enter()).transpose()
}

/// What of the request decides how its answer leaves; filters may change the request meanwhile.
struct Seen {
    origin: Option<Origins>,
    coding: Option<Choice>,
}

impl Seen {
    fn new(route: &Route, request: &Request) -> Self {
        let compression = route.config.compression.as_ref();
        Self {
            origin: route.cors.as_ref().map(|cors| cors.origin(&request.headers)),
            coding: compression.map(|policy| compress::choose(policy, &request.method, &request.headers)),
        }
    }

    /// The last steps: nothing of the gateway changes the answer after them.
    fn finish(self, route: &Route, mut response: Response, streamed: Body) -> http::Response<Body> {
        if let (Some(cors), Some(origin)) = (&route.cors, &self.origin) {
            cors.finish(origin, &mut response.headers);
        }
        let finished = respond::finish(response, streamed);
        match (&route.config.compression, self.coding) {
            (Some(policy), Some(coding)) => compress::apply(policy, coding, finished),
            _ => finished,
        }
    }
}

async fn response_phase(
    pass: &Pass<'_>,
    exchange: Box<Exchange>,
    streamed: &mut Body,
    completed: &Completed,
    holds: &mut Holds,
) -> Response {
    let (mut exchange, result) = pass.response(exchange, streamed, completed, holds).await;
    let response = exchange.response.take();
    match (result, response) {
        (Ok(()), Some(response)) => {
            if response.body.is_some() {
                *streamed = Body::empty();
            }
            response
        }
        (Ok(()), None) => respond::to_error(&Error::new(Kind::Internal, "no response after the response phase")),
        (Err(error), _) => {
            report(&error, &exchange.route, Some(&exchange));
            *streamed = Body::empty();
            respond::to_error(&error)
        }
    }
}

/// Asks the upstream; a route without one answers itself.
async fn answer(
    from: &From<'_>,
    route: &Route,
    exchange: &mut Exchange,
    body: Body,
    keep: bool,
) -> Result<(Response, Body), Error> {
    let matched = route.config.when.path.as_ref();
    let Some(forward) = route.forward() else {
        let answer = match &route.config.action {
            Action::Redirect(to) => redirect::redirect(to, matched, &exchange.request, rewrite::with_prefix)?,
            Action::Respond(reply) => redirect::respond(reply),
            Action::Forward(_) => return Err(Error::new(Kind::Internal, "a route without an upstream")),
        };
        return Ok((answer, Body::empty()));
    };
    let mut request = to_upstream(exchange, body, keep);
    rewrite::apply(&route.config.rewrite, matched, &mut request)?;
    let request = mirrored(from, route, exchange.client.address.ip(), request);
    let client = exchange.client.address.ip();
    let asked = Asked { client, timeout: route.config.timeout, interim: from.interim.as_ref() };
    // Requests leave one after the other.
    others_first().await;
    let response = from.pools.send(&forward.upstream, asked, request).await?;
    let (mut head, body) = response.into_parts();
    let protocol = head.headers.remove(header::UPGRADE);
    strip_connection_fields(&mut head.headers);
    if let (StatusCode::SWITCHING_PROTOCOLS, Some(protocol)) = (head.status, protocol) {
        head.headers.insert(header::UPGRADE, protocol);
    }
    Ok((Response { status: head.status, headers: head.headers, local: false, body: None }, body))
}

/// Sends a copy of the request to the route's mirror, beside the exchange: whatever becomes of it is only counted.
fn mirrored(from: &From<'_>, route: &Route, client: IpAddr, request: http::Request<Body>) -> http::Request<Body> {
    let Some((mirror, to)) = route.mirror.as_ref().filter(|_| request.extensions().get::<Upgrade>().is_none()) else {
        return request;
    };
    let (pools, to, metrics, route) = (from.pools.clone(), to.clone(), from.shared.metrics.clone(), route.name.clone());
    let count = move |result| {
        metrics.mirrored.get_or_create(&MirrorLabels { route, result }).inc();
    };
    mirror.copy(request, move |copied| {
        let (copy, permit) = match copied {
            Copied::Ready(copy, permit) => (copy, permit),
            Copied::BodyTooLarge => return count("body-too-large"),
            Copied::Busy => return count("busy"),
        };
        tokio::task::spawn_local(async move {
            let asked = Asked { client, timeout: None, interim: None };
            let answer = pools.send(&to, asked, *copy).await;
            let is_answered = answer.is_ok();
            // Read, so that the connection can be used again; only what is sensible to read.
            if let Ok(answer) = answer {
                let _ = tokio::time::timeout(to.terms.timeout, answer.into_body().read(MIRROR_ANSWER_BYTES_MAX)).await;
            }
            count(if is_answered { "answered" } else { "failed" });
            drop(permit);
        });
    })
}

/// The request as the upstream gets it. Where a response phase follows, which may look at the request, the exchange keeps a copy.
fn to_upstream(exchange: &mut Exchange, body: Body, keep: bool) -> http::Request<Body> {
    let own = &mut exchange.request;
    let own_body = own.body.clone().filter(|_| own.upgrade.is_none());
    let mut request = http::Request::new(own_body.map_or(body, Body::full));
    *request.method_mut() = own.method.clone();
    *request.uri_mut() = own.target.clone().into();
    *request.headers_mut() = if keep { own.headers.clone() } else { std::mem::take(&mut own.headers) };
    if let Some(upgrade) = own.upgrade.take() {
        request.extensions_mut().insert(upgrade);
    }
    request
}

/// Marks the answer to a request that was not valid: what else comes on that connection is not read.
#[derive(Clone)]
pub(crate) struct Distrust;

/// An answer to what failed before there was an exchange to filter.
fn failed(error: &Error, route: &str, exchange: Option<&Exchange>) -> http::Response<Body> {
    report(error, route, exchange);
    let mut response = respond::finish(respond::to_error(error), Body::empty());
    if error.kind == Kind::BadRequest {
        response.extensions_mut().insert(Distrust);
    }
    response
}

/// Failures of filters have their own line (`stage/filters.rs`); a client's mistakes are not worth one at the usual level.
fn report(error: &Error, route: &str, exchange: Option<&Exchange>) {
    let id = exchange.map(Exchange::id_text);
    match error.kind {
        Kind::Filter(_) => {}
        kind if kind.is_upstream() || kind == Kind::Internal => {
            tracing::warn!(
                kind = error.kind.label(),
                route,
                exchange = id,
                detail = error.detail,
                "an exchange failed"
            );
        }
        _ => tracing::debug!(
            kind = error.kind.label(),
            route,
            exchange = id,
            detail = error.detail,
            "an exchange failed"
        ),
    }
}

/// An id that no other exchange has: it names, it does not protect, so a fast generator seeded by the system's is enough.
fn exchange_id() -> u128 {
    thread_local! {
        static STATE: Cell<u128> = Cell::new(seed());
    }
    fn seed() -> u128 {
        let mut bytes = [0; 16];
        // Without the system's generator the ids of two threads may meet, which harms nobody.
        let _ = getrandom::fill(&mut bytes);
        u128::from_le_bytes(bytes) | 1
    }
    STATE.with(|state| {
        // A multiplicative generator modulo 2^128 (L'Ecuyer's multiplier), its halves folded for the low bits.
        let next = state.get().wrapping_mul(0xda94_2042_e4dd_58b5_u128);
        state.set(next);
        next ^ (next >> 64)
    })
}

/// Counts an exchange until its answer's body has been sent.
struct InFlight(Arc<Shared>);

impl InFlight {
    fn enter(shared: &Arc<Shared>, max: usize) -> Result<Self, Error> {
        let before = shared.in_flight.fetch_add(1, Ordering::Relaxed);
        let entered = Self(shared.clone());
        if before >= max {
            return Err(Error::new(Kind::Saturated, format!("{before} exchanges in flight, the limit is {max}")));
        }
        Ok(entered)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_differ() {
        let ids: std::collections::HashSet<u128> = (0..10_000).map(|_| exchange_id()).collect();
        assert_eq!(ids.len(), 10_000);
    }
}
