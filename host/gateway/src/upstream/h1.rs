//! HTTP/1.1 to an endpoint: one exchange at a time over one connection.
//!
//! The exchange's own task writes the request and reads the response, so a request costs no channel
//! and no wake-up of another task. The price is that a connection cannot notice by itself that the
//! upstream closed it: the pool checks it before each use. Sending goes on while the response
//! arrives, because an upstream may answer before it has read the whole request. A response is
//! parsed as strictly as a request: an ambiguous one ends the exchange. This module does not know:
//! endpoints, retries, routes.

mod connection;
mod download;
mod upload;

use std::future::poll_fn;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::header::{self, HeaderValue};
use http::{StatusCode, Version};

use super::interim::InterimResponses;
use super::websocket_accept::accept_value;
pub(super) use connection::{Connection, GiveBack};
use connection::{invalid_response, upstream_error};
use download::Download;
use upload::Upload;
use witgate_http::body::{Body, InterimSink};
use witgate_http::error::{Error, Kind};
use witgate_http::h1::Framing;
use witgate_http::h1::head::{Limits, ResponseHead, is_persistent, parse_response};
use witgate_http::h1::incoming::IncomingHead;
use witgate_runtime::exchange::Upgrade;

/// Header lines of a response.
const FIELDS_MAX: usize = 200;

/// How to send one request.
#[derive(Clone, Copy)]
pub(super) struct Options<'a> {
    /// The connection was idle before.
    pub(super) reused: bool,
    /// Receives interim responses.
    pub(super) interim: Option<&'a InterimSink>,
    /// How long the upstream may be silent in the middle of a body; the caller limits the time to
    /// the head.
    pub(super) body_idle: Option<Duration>,
    /// Bounds the response's head.
    pub(super) head_bytes: usize,
}

/// An exchange that failed before the response's head was complete.
pub(super) struct ExchangeError {
    pub(super) error: Error,
    /// Whether a byte of the response had arrived: then the upstream has seen the request.
    pub(super) answered: bool,
    /// Whether a byte of the request was written.
    pub(super) sent: bool,
    /// The request as it was, if its body is in memory.
    pub(super) request: Option<http::Request<Body>>,
}

/// Sends `request` and waits for the response's head. The response's body streams, and gives the
/// connection back at its end.
pub(super) async fn exchange(
    mut connection: Box<Connection>,
    Options { reused, interim, body_idle, head_bytes }: Options<'_>,
    request: http::Request<Body>,
    give_back: GiveBack,
) -> Result<http::Response<Body>, ExchangeError> {
    let limits = Limits { head_bytes, target_bytes: head_bytes, fields: FIELDS_MAX };
    let (mut request, body) = request.into_parts();
    let upgrade = request.extensions.get::<Upgrade>().cloned();
    let retry_body = body.try_clone();
    let mut upload = Upload::begin(&mut connection, &mut request, body, upgrade.as_ref());
    let (mut incoming, mut interims) = (IncomingHead::default(), InterimResponses::new(interim));
    let received = poll_fn(|context| {
        if let Poll::Ready(Err(error)) = upload.poll(&mut connection, context) {
            return Poll::Ready(Err(error));
        }
        poll_head(&mut connection, &limits, &mut incoming, &mut upload, &mut interims, context)
    });
    let mut answered = true;
    let received = received.await.and_then(|head| {
        let framing = head.framing(&request.method).map_err(invalid_response)?;
        if reused && is_idle_timeout(&head) && retry_body.is_some() && request.method.is_idempotent() {
            answered = false;
            return Err(Error::new(Kind::UpstreamClosed, "it said 408 while the request was on its way"));
        }
        let key = request.headers.get(header::SEC_WEBSOCKET_KEY);
        let framing = switch_protocol(&head, framing, upgrade.as_ref(), key, &mut upload)?;
        Ok((head, framing))
    });
    let (head, framing) = match received {
        Ok(received) => received,
        Err(error) => {
            let request = retry_body.map(|body| http::Request::from_parts(request, body));
            let answered = answered && incoming.has_received();
            return Err(ExchangeError { error, answered, sent: upload.has_sent(), request });
        }
    };
    upload.stop_waiting_for_continue();
    let is_tunnel = head.status == StatusCode::SWITCHING_PROTOCOLS;
    let reusable = is_persistent(&head.headers, head.version) && !is_tunnel && framing != Framing::UntilClose;
    // The client's side decides how long a tunnel may be silent, because it sees both directions.
    let body_idle = body_idle.filter(|_| !is_tunnel);
    let give_back = Some(give_back).filter(|_| reusable);
    let mut download = Download::new(connection, upload, framing, body_idle, give_back);
    let body = if framing == Framing::None {
        download.finish();
        Body::empty()
    } else {
        Body::stream(Box::pin(download))
    };
    let mut response = http::Response::new(body);
    *response.status_mut() = head.status;
    *response.headers_mut() = head.headers;
    Ok(response)
}

/// Whether a response only closes an idle connection: the upstream sent it before it saw the
/// request, which may be sent once more (RFC 9110, section 15.5.9).
fn is_idle_timeout(head: &ResponseHead) -> bool {
    head.status == StatusCode::REQUEST_TIMEOUT && !is_persistent(&head.headers, head.version)
}

/// The head of the final response. Interim responses go to the client; `100` starts the body.
fn poll_head(
    connection: &mut Connection,
    limits: &Limits,
    incoming: &mut IncomingHead,
    upload: &mut Upload,
    interims: &mut InterimResponses<'_>,
    context: &mut Context<'_>,
) -> Poll<Result<ResponseHead, Error>> {
    loop {
        let head = ready!(incoming.poll(&mut connection.io, limits, context))
            .map_err(|error| upstream_error(error, "it closed before its response"))?;
        let head = parse_response(head).map_err(invalid_response)?;
        if !head.status.is_informational() || head.status == StatusCode::SWITCHING_PROTOCOLS {
            return Poll::Ready(Ok(head));
        }
        interims.forward(head.status, head.headers)?;
        if head.status == StatusCode::CONTINUE {
            upload.continue_body();
            context.waker().wake_by_ref();
        }
    }
}

/// Decides whether the protocol changes, and returns the framing of the response's body. Fails if
/// the upstream changed the protocol without being asked.
fn switch_protocol(
    head: &ResponseHead,
    framing: Framing,
    upgrade: Option<&Upgrade>,
    websocket_key: Option<&HeaderValue>,
    upload: &mut Upload,
) -> Result<Framing, Error> {
    if head.status != StatusCode::SWITCHING_PROTOCOLS {
        if upgrade.is_some() {
            upload.cancel_tunnel();
        }
        return Ok(framing);
    }
    let is_requested = |protocol: &HeaderValue| {
        let requested = upgrade.map(|Upgrade(protocol)| protocol.as_bytes()).unwrap_or_default();
        !requested.is_empty() && protocol.as_bytes().eq_ignore_ascii_case(requested)
    };
    if !head.headers.get(header::UPGRADE).is_some_and(is_requested) || head.version != Version::HTTP_11 {
        return Err(Error::new(Kind::UpstreamProtocol, "it changed the protocol, which the request had not asked for"));
    }
    if let Some(key) = websocket_key
        && upgrade.is_some_and(|Upgrade(protocol)| protocol.as_bytes().eq_ignore_ascii_case(b"websocket"))
    {
        check_accept(head, key)?;
    }
    upload.start_tunnel();
    Ok(Framing::UntilClose)
}

/// Refuses a switch to WebSocket that does not answer the request's key (RFC 6455, section 4.1): a
/// server that does not speak WebSocket, or a cache, sent it.
fn check_accept(head: &ResponseHead, key: &HeaderValue) -> Result<(), Error> {
    let accepts: Vec<_> = head.headers.get_all(header::SEC_WEBSOCKET_ACCEPT).iter().collect();
    let why = match accepts[..] {
        [accept] if accept.as_bytes() == accept_value(key.as_bytes()).as_bytes() => return Ok(()),
        [] => "its 101 has no sec-websocket-accept",
        [_] => "the sec-websocket-accept of its 101 does not belong to the request's key",
        _ => "its 101 has several sec-websocket-accept fields",
    };
    Err(Error::new(Kind::UpstreamProtocol, why))
}
