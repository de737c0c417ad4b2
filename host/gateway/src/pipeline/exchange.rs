//! Runs the steps of one exchange in this order: in-flight limits → normalize → redirect to https →
//! route → client networks → CORS preflight → rate limit (by address) → basic_auth → jwt →
//! forward_auth → rate limit (by another key) → limits of the route → request filters →
//! header edits → rewrite → mirror → upstream → response filters → rate-limit and CORS fields →
//! header edits → compress → client.
//!
//! Most steps are files beside this one. This file decides three things:
//! - Every response except a 101 goes through the response phase of each filter whose request phase
//!   ran, whether the upstream, a filter or the gateway made the response.
//! - A response phase that fails replaces the response by an error, which passes no further filter.
//! - Filters are called once, however often the request is sent to the upstream.
//!
//! Each step notes in the [`ExchangeRecord`] what it did; metrics and log lines are made from the
//! record. This module does not know: sockets, files, WebAssembly.

use std::rc::Rc;
use std::sync::Arc;

use http::uri::PathAndQuery;
use http::{HeaderValue, Method, StatusCode, header};
use smallvec::SmallVec;

use crate::clients::ClientPermit;
use crate::pipeline::compress::{self, NegotiatedCoding};
use crate::pipeline::cors::AllowedOrigin;
use crate::pipeline::filters::{ChainEntry, ChainRun, Decision};
use crate::pipeline::https::ListenerPolicy;
use crate::pipeline::normalize::{self, NormalizedRequest};
use crate::pipeline::rate_limit::RateLimit;
use crate::pipeline::snapshot::{Route, Shared, Snapshot};
use crate::pipeline::{
    basic_auth, debug, forward, forward_auth, limits, policies, rate_limit, redirect, respond, rewrite, route,
};
use crate::telemetry::{ExchangeRecord, OpenRecord, Telemetry, decisions};
use crate::upstream::outbound::TracedSender;
use crate::upstream::{SendOptions, UpstreamClient};
use witgate_config::{Action, ErrorPage};
use witgate_http::body::{Body, Direction, InterimSink};
use witgate_http::error::{Error, Kind};
use witgate_http::limiter::{Limiter, Permit};
use witgate_http::semantics::path::Slashes;
use witgate_http::throughput::yield_to_ready_tasks;
use witgate_runtime::exchange::{Client, Exchange, Request, Response};
use witgate_runtime::limiter;
use witgate_runtime::outbound::HttpSender;

/// Where a request comes from, and what its exchange may use.
pub struct RequestContext<'a> {
    /// What all threads share.
    pub shared: &'a Arc<Shared>,
    /// Where the exchange's record goes.
    pub telemetry: &'a Rc<Telemetry>,
    /// This thread's connections to upstreams.
    pub upstream_client: &'a Rc<UpstreamClient>,
    /// The listener's name.
    pub listener: &'a Rc<str>,
    /// The listener's settings.
    pub policy: &'a ListenerPolicy,
    /// The peer of the connection.
    pub peer: &'a Arc<Client>,
    /// Exchanges of that peer, if its share is limited.
    pub client_in_flight: Option<&'a Limiter>,
    /// Passes interim responses to the client. None if the client cannot receive them.
    pub interim: Option<InterimSink>,
}

/// Marks the response to an invalid request: the server must not read another request from the
/// connection, because it cannot tell where the invalid one ends.
#[derive(Clone)]
pub(crate) struct CloseConnection;

/// The part of an exchange that lives until the response body has been sent.
struct OpenExchange {
    record: OpenRecord,
    permits: SmallVec<[Permit; 3]>,
    /// Keeps the count of a client that a trusted proxy named.
    named_client: Option<ClientPermit>,
}

/// Answers one request.
pub async fn handle(context: RequestContext<'_>, mut request: http::Request<Body>) -> http::Response<Body> {
    let shared = context.shared;
    let snapshot = shared.snapshot.load_full();
    let mut open = OpenExchange::new(&context, request.version());
    open.record.method = Some(request.method().clone());
    // The log shows these values if the request is refused before `describe`.
    open.record.host = request.headers().get(header::HOST).cloned();
    open.record.target = request.uri().path_and_query().cloned();
    let shows_decisions = debug::take_token(request.headers_mut(), snapshot.config.telemetry.debug_token.as_ref());
    let is_grpc = respond::grpc::is_call(request.version(), request.headers());
    let mut response = match limits::enter(&shared.in_flight, context.client_in_flight, &snapshot.config.limits) {
        Ok((gateway, client)) => {
            open.permits.push(gateway);
            open.permits.extend(client);
            exchange(&context, &snapshot, request, &mut open).await
        }
        Err(error) => refuse(&mut open.record, error, &snapshot.config.error_pages),
    };
    context.policy.add_hsts(response.headers_mut());
    finish_head(&mut open.record, &mut response);
    if shows_decisions {
        response.headers_mut().insert(debug::X_WITGATE_TRACE, decisions(&open.record));
    }
    if is_grpc {
        response = respond::grpc::finish(response, open.record.failure.as_ref().map(|error| error.kind));
    }
    response.body_mut().count_bytes(&open.record.traffic, Direction::Sent);
    response.body_mut().add_guard(open);
    response
}

/// Responds to bytes that are not a valid request; `head` has the first of them. Counts as an
/// exchange.
pub fn refuse_invalid(context: RequestContext<'_>, head: &[u8], error: Error) -> http::Response<Body> {
    let mut open = OpenExchange::new(&context, http::Version::HTTP_11);
    describe_invalid(&mut open.record, head);
    let snapshot = context.shared.snapshot.load();
    let mut response = refuse(&mut open.record, error, &snapshot.config.error_pages);
    finish_head(&mut open.record, &mut response);
    response.body_mut().count_bytes(&open.record.traffic, Direction::Sent);
    response.body_mut().add_guard(open);
    response
}

/// Counts a malformed request, whose stream the server resets.
pub fn count_reset<B>(context: RequestContext<'_>, request: &http::Request<B>, error: Error) {
    let mut open = OpenExchange::new(&context, request.version());
    open.record.method = Some(request.method().clone());
    open.record.host = request.uri().authority().and_then(|host| HeaderValue::from_str(host.as_str()).ok());
    open.record.target = request.uri().path_and_query().cloned();
    open.record.fail(error);
}

/// Adds `x-request-id` and records the response's head.
fn finish_head(record: &mut OpenRecord, response: &mut http::Response<Body>) {
    response.headers_mut().insert(normalize::X_REQUEST_ID, record.request_id.clone());
    record.emit_head(response.status());
}

impl OpenExchange {
    fn new(context: &RequestContext<'_>, protocol: http::Version) -> Box<Self> {
        let record = OpenRecord::new(context.telemetry, context.listener, context.peer, protocol);
        Box::new(Self { record, permits: SmallVec::new(), named_client: None })
    }
}

/// Normalizes the request, finds its route, runs the steps of that route and finishes the response.
async fn exchange(
    context: &RequestContext<'_>,
    snapshot: &Snapshot,
    request: http::Request<Body>,
    open: &mut OpenExchange,
) -> http::Response<Body> {
    let record = &mut open.record;
    let pages = &snapshot.config.error_pages;
    let id = record.id;
    let normalized = normalize::normalize(request, context.peer, &snapshot.config, &record.request_id);
    let NormalizedRequest { mut request, mut body, client, is_for_gateway, passed, edited_fields } = match normalized {
        Ok(normalized) => normalized,
        Err(error) => return refuse(record, error, pages),
    };
    describe(record, &request, &client);
    record.keep_headers(&request.headers);
    record.begin_trace(&mut request.headers);
    if record.named_client.is_some() {
        open.named_client = context.shared.clients.exchanges(client.address.ip());
        let in_flight = open.named_client.as_ref().map(|named| &named.in_flight);
        match limits::enter_client(&context.shared.in_flight, in_flight, &snapshot.config.limits) {
            Ok(permit) => open.permits.extend(permit),
            Err(error) => {
                // Release the permits: a client that reads this response slowly must not occupy
                // slots that other clients need.
                open.permits.clear();
                return refuse(record, error, pages);
            }
        }
    }
    if is_for_gateway {
        return respond::finish(respond::to_options(), Body::empty());
    }
    if let Some(to) = &context.policy.redirect_to_https {
        match redirect::to_https(to, &request) {
            Ok(None) => {}
            Ok(Some(to_https)) => return respond::finish(to_https, Body::empty()),
            Err(error) => return refuse(record, error, pages),
        }
    }
    let route = match snapshot.route(&request) {
        Ok(Some(route)) => route,
        Ok(None) => return refuse_unrouted(record, &request, &snapshot.allowed_methods(&request), pages),
        Err(error) => return refuse(record, error, pages),
    };
    record.set_route(&route.series);
    if let Err(error) = policies::check_client(&route.config.clients, client.address.ip()) {
        let mut refusal = refuse(record, error, &route.config.error_pages);
        policies::edit(&route.config.headers.response, refusal.headers_mut());
        return refusal;
    }
    if let Some(mut answer) = route.cors.as_ref().and_then(|cors| cors.preflight(&request.method, &request.headers)) {
        policies::edit(&route.config.headers.response, &mut answer.headers);
        return respond::finish(answer, Body::empty());
    }
    let mut policy = ResponsePolicy::new(route, &request);
    body.count_bytes(&record.traffic, Direction::Received);
    let budget = (!route.chain.is_empty()).then(|| route.budget.clone());
    let name = route.name.clone();
    let mut exchange = Box::new(Exchange {
        id,
        client,
        route: name,
        request,
        response: None,
        notes: vec![],
        budget,
        edited_fields,
        passed,
        captured_log: None,
        sender: traced_sender(record, &route.chain),
    });
    if let Some(refusal) = admit(context, route, &mut policy, &mut exchange, record).await {
        return policy.finish(route, refusal, Body::empty());
    }
    let (response, body) = match filter_and_forward(context, snapshot, route, exchange, body, open).await {
        Ok(answered) => answered,
        Err(error) => (fail(&mut open.record, error, &route.config.error_pages), Body::empty()),
    };
    policy.finish(route, response, body)
}

/// Lets the calls of filters become spans, if traces are on.
fn traced_sender(record: &mut ExchangeRecord, chain: &[ChainEntry]) -> Option<Arc<dyn HttpSender>> {
    let trace = record.trace.filter(|_| chain.iter().any(|entry| entry.filter.settings.http.is_some()))?;
    let sent = record.sent.insert(Arc::default()).clone();
    Some(Arc::new(TracedSender { trace, sent }))
}

/// The steps that decide whether a request may pass. Returns the response to one that may not.
async fn admit(
    context: &RequestContext<'_>,
    route: &Route,
    policy: &mut ResponsePolicy,
    exchange: &mut Exchange,
    record: &mut ExchangeRecord,
) -> Option<Response> {
    let pages = &route.config.error_pages;
    // A limit by address comes first, so that it also bounds how many passwords a client tries.
    if let Some(rate_limit) = route.rate_limit.as_ref().filter(|limit| limit.is_by_address())
        && let Err(error) = policy.limit_rate(rate_limit, exchange).await
    {
        return Some(fail(record, error, pages));
    }
    let client = exchange.client.address.ip();
    if let Some(auth) = &route.config.basic_auth
        && let Err(error) =
            basic_auth::check(auth, &context.shared.passwords, client, &mut exchange.request.headers).await
    {
        let challenge = basic_auth::challenge(auth).filter(|_| error.kind == Kind::Unauthorized);
        let mut refusal = fail(record, error, pages);
        refusal.headers.extend(challenge.map(|challenge| (header::WWW_AUTHENTICATE, challenge)));
        return Some(refusal);
    }
    if let Some(jwt) = &route.jwt
        && let Err(error) = jwt.check(context.upstream_client, exchange).await
    {
        let challenge = jwt.challenge(&exchange.request.headers);
        let challenge = Some(challenge).filter(|_| error.kind == Kind::Unauthorized);
        let mut refusal = fail(record, error, pages);
        refusal.headers.extend(challenge.map(|challenge| (header::WWW_AUTHENTICATE, challenge)));
        return Some(refusal);
    }
    if let Some((auth, cluster)) = &route.forward_auth {
        match forward_auth::ask(auth, cluster, context.upstream_client, exchange).await {
            Ok(None) => {}
            Ok(Some(refusal)) => return Some(refusal),
            Err(error) => return Some(fail(record, error, pages)),
        }
    }
    // Other keys can be fields or notes that the steps above have set. Before the filters: a
    // request above the limit must not cost a call.
    if let Some(rate_limit) = route.rate_limit.as_ref().filter(|limit| !limit.is_by_address())
        && let Err(error) = policy.limit_rate(rate_limit, exchange).await
    {
        return Some(fail(record, error, pages));
    }
    None
}

/// Runs the request filters, gets the response and runs the response filters.
async fn filter_and_forward(
    context: &RequestContext<'_>,
    snapshot: &Snapshot,
    route: &Route,
    exchange: Box<Exchange>,
    mut body: Body,
    open: &mut OpenExchange,
) -> Result<(Response, Body), Error> {
    // After an upgrade the client sends another protocol: filters see an empty body.
    let tunnel = exchange.request.upgrade.is_some().then(|| std::mem::take(&mut body));
    if let Some(max) = route.config.limits.request_body_bytes {
        body = body.limited(max as u64, "the route's limits.request_body_bytes")?;
    }
    if let Some(max) = route.config.limits.in_flight {
        open.permits.push(limits::enter_route(&route.in_flight, max)?);
    }
    let client = exchange.client.address.ip();
    let mut run = ChainRun::new(&route.chain, &snapshot.config, &route.budget, client, &context.telemetry.taps);
    run.select(
        |when| route::matches(when, &exchange.request),
        |traffic| traffic.split.picks_new(&exchange.request.headers, client, exchange.id),
    );

    let (mut exchange, decision) = run.request(exchange, &mut body, &mut open.record).await;
    let answered = match decision {
        Ok(Decision::Respond(reply)) => Ok((respond::to_reply(reply), Body::empty())),
        Ok(Decision::Proceed) => {
            let copies_headers = run.has_response_phase();
            let to = (route, normalize::slashes(&snapshot.config));
            respond_or_forward(context, to, &mut exchange, tunnel.unwrap_or(body), copies_headers, &mut open.record)
                .await
        }
        Err(error) => Err(error),
    };
    let pages = &route.config.error_pages;
    let (response, mut body) = answered.unwrap_or_else(|error| (fail(&mut open.record, error, pages), Body::empty()));
    // After a 101 the bytes belong to another protocol, so response filters are not called.
    let response = if response.status == StatusCode::SWITCHING_PROTOCOLS {
        Ok(response)
    } else {
        exchange.response = Some(response);
        exchange.edited_fields = body.buffered().is_none().then(Vec::new);
        run.response(exchange, &mut body, &mut open.record).await
    };
    run.end();
    Ok((response?, body))
}

/// Returns the response of `redirect` or `respond` if the route has one. Otherwise forwards the
/// request and returns the upstream's response.
async fn respond_or_forward(
    context: &RequestContext<'_>,
    (route, slashes): (&Route, Slashes),
    exchange: &mut Exchange,
    body: Body,
    copies_headers: bool,
    record: &mut ExchangeRecord,
) -> Result<(Response, Body), Error> {
    let path_match = route.config.matches.path.as_ref();
    let Some(cluster) = route.pick_cluster() else {
        let response = match &route.config.action {
            Action::Redirect(to) => redirect::redirect(to, path_match, &exchange.request, rewrite::with_prefix)?,
            Action::Respond(reply) => redirect::respond(reply),
            Action::Forward(_) => {
                let detail = format!("route {}: it has no upstream, redirect or respond", route.name);
                return Err(Error::new(Kind::Internal, detail));
            }
        };
        return Ok((response, Body::empty()));
    };
    let client = exchange.client.address.ip();
    let body = match exchange.edited_fields.take() {
        Some(edited) => route.trailers.guard_request(body, edited),
        None => body,
    };
    let mut request = forward::to_upstream(exchange, body, copies_headers);
    policies::edit(&route.config.headers.request, request.headers_mut());
    rewrite::apply(&route.config.rewrite, path_match, slashes, &mut request)?;
    if let Some(mirror) = &route.mirror {
        request = mirror.send_copy(context.upstream_client, client, &route.budget, request);
    }
    // Other ready tasks run first, so that the requests of all of them are written in one group.
    yield_to_ready_tasks().await;
    let timeout = route.config.timeout;
    let trace = record.trace;
    let interim = context.interim.as_ref();
    let budget = Some(&route.budget);
    let options = SendOptions { client, timeout, interim, budget, trace, record: &mut record.upstream };
    let response = context.upstream_client.send(cluster, options, request).await?;
    Ok(forward::from_upstream(response))
}

/// The CORS origin and the content coding of the response, and the decision of the rate limit.
///
/// The first two depend on the request as the client sent it, so they are computed before filters
/// can edit it.
struct ResponsePolicy {
    origin: Option<AllowedOrigin>,
    coding: Option<NegotiatedCoding>,
    /// Set by the rate limit of the route.
    rate: Option<limiter::Decision>,
}

impl ResponsePolicy {
    fn new(route: &Route, request: &Request) -> Self {
        let compression = route.config.compression.as_ref();
        Self {
            origin: route.cors.as_ref().map(|cors| cors.origin(&request.headers)),
            coding: compression.map(|policy| compress::negotiate(policy, &request.method, &request.headers)),
            rate: None,
        }
    }

    /// Counts the request. The error is the refusal of a request above the limit.
    async fn limit_rate(&mut self, rate_limit: &RateLimit, exchange: &Exchange) -> Result<(), Error> {
        let decision = rate_limit.check(exchange).await?;
        self.rate = Some(decision);
        if decision.allowed { Ok(()) } else { Err(rate_limit::refusal()) }
    }

    /// Applies the last changes to the response; no later step may change it.
    fn finish(self, route: &Route, mut response: Response, body: Body) -> http::Response<Body> {
        if response.status == StatusCode::SWITCHING_PROTOCOLS {
            return respond::finish(response, body);
        }
        if let (Some(rate_limit), Some(decision)) = (&route.rate_limit, &self.rate) {
            rate_limit.describe(decision, &mut response.headers);
        }
        if let (Some(cors), Some(origin)) = (&route.cors, &self.origin) {
            cors.apply(origin, &mut response.headers);
        }
        policies::edit(&route.config.headers.response, &mut response.headers);
        let body = if body.buffered().is_none() { route.trailers.guard_response(body) } else { body };
        let finished = respond::finish(response, body);
        match (&route.config.compression, self.coding) {
            (Some(policy), Some(coding)) => compress::apply(policy, coding, finished),
            _ => finished,
        }
    }
}

/// Records host, target and client. `named_client` is set only if a trusted proxy named a client
/// other than the peer.
fn describe(record: &mut ExchangeRecord, request: &Request, client: &Arc<Client>) {
    record.host = request.headers.get(header::HOST).cloned();
    record.target = Some(request.target.clone());
    if let Some(id) = request.headers.get(normalize::X_REQUEST_ID) {
        record.request_id = id.clone();
    }
    if !Arc::ptr_eq(client, &record.peer) {
        record.named_client = Some(client.clone());
    }
}

/// Records method and path, as far as the first line of what is not a request has them.
fn describe_invalid(record: &mut ExchangeRecord, head: &[u8]) {
    let line = head.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ');
    record.method = words.next().and_then(|word| Method::from_bytes(word).ok());
    record.target = words.next().and_then(|word| PathAndQuery::try_from(word).ok());
}

/// Records the error and returns its response; closes the connection after an invalid request.
fn refuse(record: &mut ExchangeRecord, error: Error, pages: &[ErrorPage]) -> http::Response<Body> {
    let is_invalid = error.kind == Kind::BadRequest;
    let mut response = respond::finish(fail(record, error, pages), Body::empty());
    if is_invalid {
        response.extensions_mut().insert(CloseConnection);
    }
    response
}

/// Refuses a request without a route: 405 if a route matches with another method, else 404.
fn refuse_unrouted(
    record: &mut ExchangeRecord,
    request: &Request,
    allowed: &[&str],
    pages: &[ErrorPage],
) -> http::Response<Body> {
    let detail = format!("{} {}", request.method, request.target.path());
    if allowed.is_empty() {
        return refuse(record, Error::new(Kind::NoRoute, detail), pages);
    }
    let allowed = allowed.join(", ");
    let error = Error::new(Kind::MethodNotAllowed, format!("{detail}: routes match it for {allowed}"));
    let mut response = refuse(record, error, pages);
    if let Ok(allowed) = HeaderValue::try_from(allowed) {
        response.headers_mut().insert(header::ALLOW, allowed);
    }
    response
}

/// Records the error and returns its response.
fn fail(record: &mut ExchangeRecord, error: Error, pages: &[ErrorPage]) -> Response {
    let response = respond::to_error(&error, record.request_id.to_str().unwrap_or_default(), pages);
    record.fail(error);
    response
}
