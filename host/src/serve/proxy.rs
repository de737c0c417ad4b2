//! One exchange: route → (CORS) → filters (request) → (rewrite) → upstream → filters (response, reversed) → client.
//!
//! This file is that sentence and nothing else; each step is in `stage/`. Decided here: an answer made by a filter or by the gateway passes the response
//! phase of the filters whose request phase completed; a response phase that fails replaces the answer by an error, which passes no further filter;
//! the upstream is asked at most as often as the connection pool says, filters are called once. Must not know: sockets, files, wasm.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use http::header::{self, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, Method, Version};
use hyper::body::Incoming;

use crate::body::{Body, Guard};
use crate::config::Action;
use crate::error::{Error, Kind};
use crate::exchange::{Client, Exchange, Request, Response, is_hop_by_hop};
use crate::snapshot::{Route, Shared, Snapshot};
use crate::stage::filters::{Completed, Decision, Holds, Pass, select};
use crate::stage::route::matches;
use crate::stage::upstream::Pools;
use crate::stage::{redirect, respond, rewrite};
use crate::telemetry::{RequestLabels, RouteLabels, method_label};

/// Answers one request. `busy` is kept until the answer's body has been sent.
pub async fn handle(
    shared: &Arc<Shared>,
    pools: &Pools,
    client: &Arc<Client>,
    request: http::Request<Incoming>,
    busy: Guard,
) -> http::Response<Body> {
    let began = Instant::now();
    let snapshot = shared.snapshot.load_full();
    let method = method_label(request.method());
    let (name, response) = match InFlight::enter(shared, snapshot.config.limits.in_flight) {
        Err(error) => (None, failed(&error, "-", None)),
        Ok(in_flight) => {
            let (route, response) = exchange(shared, &snapshot, pools, client, request).await;
            let guard: Guard = Box::new((in_flight, busy));
            (route.map(|route| route.name.clone()), response.map(|body| body.guarded(guard)))
        }
    };
    let route = name.unwrap_or_else(|| "-".into());
    let seconds = began.elapsed().as_secs_f64();
    let status = response.status().as_u16();
    shared.metrics.request_seconds.get_or_create(&RouteLabels { route: route.clone() }).observe(seconds);
    tracing::debug!(target: "access", route = &*route, method, status, seconds, client = %client.address, "exchange");
    shared.metrics.requests.get_or_create(&RequestLabels { route, method, status }).inc();
    response
}

async fn exchange<'a>(
    shared: &Arc<Shared>,
    snapshot: &'a Snapshot,
    pools: &Pools,
    client: &Arc<Client>,
    request: http::Request<Incoming>,
) -> (Option<&'a Route>, http::Response<Body>) {
    let (request, mut body) = match take_apart(request) {
        Ok(taken) => taken,
        Err(error) => return (None, failed(&error, "-", None)),
    };
    let Some(route) = snapshot.route(&request) else {
        let error = Error::new(Kind::NoRoute, format!("{} {}", request.method, request.target.path()));
        return (None, failed(&error, "-", None));
    };
    let origin = route.cors.as_ref().map(|cors| cors.origin(&request.headers));
    if let Some(answer) = route.cors.as_ref().and_then(|cors| cors.preflight(&request.method, &request.headers)) {
        return (Some(route), respond::finish(answer, Body::empty()));
    }
    let pass = Pass {
        chain: &route.chain,
        budget: snapshot.config.timeouts.filters,
        body_timeout: snapshot.config.timeouts.request_body,
        held: &shared.held,
        held_max: snapshot.config.limits.buffered_bytes,
        metrics: &shared.metrics,
    };
    let exchange = Box::new(Exchange {
        id: exchange_id(),
        client: client.clone(),
        route: route.name.clone(),
        request,
        response: None,
        notes: vec![],
    });

    let selected = select(&route.chain, |when| matches(when, &exchange.request));
    let mut holds = Holds::new();
    let (mut exchange, completed, decision) = pass.request(exchange, &mut body, &selected, &mut holds).await;
    let mut streamed = Body::empty();
    let outcome = match decision {
        Ok(Decision::Answer(reply)) => Ok(respond::to_reply(reply)),
        Ok(Decision::Proceed) => {
            match answer(pools, route, &mut exchange, body, pass.has_response_phase(&completed)).await {
                Ok((response, body)) => {
                    streamed = body;
                    Ok(response)
                }
                Err(error) => Err(error),
            }
        }
        Err(error) => Err(error),
    };
    exchange.response = Some(outcome.unwrap_or_else(|error| {
        report(&error, &route.name, Some(&exchange));
        respond::to_error(&error)
    }));
    let mut response = response_phase(&pass, exchange, &mut streamed, &completed, &mut holds).await;
    if let Some((cors, origin)) = route.cors.as_ref().zip(origin) {
        cors.finish(&origin, &mut response.headers);
    }
    let finished = respond::finish(response, streamed);
    (Some(route), if holds.is_empty() { finished } else { finished.map(|body| body.guarded(Box::new(holds))) })
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
    pools: &Pools,
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
    let response = pools.send(&forward.name, &forward.upstream, request).await?;
    let (mut head, body) = response.into_parts();
    strip_connection_fields(&mut head.headers);
    Ok((Response { status: head.status, headers: head.headers, local: false, body: None }, body))
}

/// The request as the upstream gets it. Where a response phase follows, which may look at the request, the exchange keeps a copy.
fn to_upstream(exchange: &mut Exchange, body: Body, keep: bool) -> http::Request<Body> {
    let own = &mut exchange.request;
    let mut request = http::Request::new(own.body.clone().map_or(body, Body::full));
    *request.method_mut() = own.method.clone();
    *request.uri_mut() = own.target.clone().into();
    *request.headers_mut() = if keep { own.headers.clone() } else { std::mem::take(&mut own.headers) };
    request
}

/// Splits what hyper delivers into what filters see and the body; one place for what a request must have.
fn take_apart(request: http::Request<Incoming>) -> Result<(Request, Body), Error> {
    let (mut head, body) = request.into_parts();
    let bad = |why: &str| Error::new(Kind::BadRequest, why.to_owned());
    if head.method == Method::CONNECT {
        return Err(bad("CONNECT is not served"));
    }
    strip_connection_fields(&mut head.headers);
    // The target's authority wins over the field (RFC 9112, section 3.2.2); HTTP/2 has only the former.
    if let Some(authority) = head.uri.authority() {
        head.headers.insert(header::HOST, host_value(authority)?);
    }
    match head.headers.get_all(header::HOST).iter().count() {
        1 => {}
        // HTTP/1.0 knows no host; what goes on is HTTP/1.1 and has an empty one.
        0 if head.version <= Version::HTTP_10 => {
            head.headers.insert(header::HOST, HeaderValue::from_static(""));
        }
        _ => return Err(bad("a request has exactly one host (RFC 9112, section 3.2)")),
    }
    let target = head.uri.into_parts().path_and_query.unwrap_or_else(|| PathAndQuery::from_static("/"));
    if !target.path().starts_with('/') && target.path() != "*" {
        return Err(bad("the request's path does not begin with a slash"));
    }
    let request = Request { method: head.method, tls: false, target, headers: head.headers, body: None };
    Ok((request, Body::stream(body)))
}

fn host_value(authority: &Authority) -> Result<HeaderValue, Error> {
    if authority.as_str().contains('@') {
        return Err(Error::new(Kind::BadRequest, "the target has user information"));
    }
    HeaderValue::from_str(authority.as_str())
        .map_err(|_| Error::new(Kind::BadRequest, "the target's host is not valid"))
}

/// Removes what concerns one connection only, and what `connection` names (RFC 9110, section 7.6.1). A peer cannot remove `host` or framing that way.
fn strip_connection_fields(headers: &mut HeaderMap) {
    if headers.contains_key(header::CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(header::CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
            .filter(|name| !matches!(*name, header::HOST | header::CONTENT_LENGTH | header::AUTHORIZATION))
            .collect();
        for name in named {
            headers.remove(name);
        }
    }
    for name in [header::CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE, header::TE, header::TRAILER] {
        debug_assert!(is_hop_by_hop(&name));
        headers.remove(name);
    }
    headers.remove("keep-alive");
    headers.remove("proxy-connection");
}

/// An answer to what failed before there was an exchange to filter.
fn failed(error: &Error, route: &str, exchange: Option<&Exchange>) -> http::Response<Body> {
    report(error, route, exchange);
    respond::finish(respond::to_error(error), Body::empty())
}

/// Failures of filters have their own line (`stage/filters.rs`); a client's mistakes are not worth one at the usual level.
fn report(error: &Error, route: &str, exchange: Option<&Exchange>) {
    let id = exchange.map(Exchange::id_text);
    match error.kind {
        Kind::Filter(_) => {}
        Kind::UpstreamConnect
        | Kind::UpstreamProtocol
        | Kind::UpstreamTimeout
        | Kind::ResponseTooLarge
        | Kind::Internal => {
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
    fn nominated_fields_go_but_not_those_a_peer_must_not_remove() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "x-a, close, host, content-length"),
            ("x-a", "1"),
            ("x-b", "2"),
            ("host", "h"),
            ("content-length", "3"),
            ("keep-alive", "1"),
            ("te", "trailers"),
        ] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        strip_connection_fields(&mut headers);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["content-length", "host", "x-b"]);
    }

    #[test]
    fn ids_differ() {
        let ids: std::collections::HashSet<u128> = (0..10_000).map(|_| exchange_id()).collect();
        assert_eq!(ids.len(), 10_000);
    }
}
