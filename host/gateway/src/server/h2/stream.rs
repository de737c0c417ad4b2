//! One HTTP/2 stream: a request, its exchange and its response.
//!
//! The request becomes one that HTTP/1.1 could have carried, so that the pipeline handles both
//! versions alike; the response takes the opposite way. This module does not know: connections,
//! what happens to a request.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::header::{self, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use http_body::Body as _;

use crate::pipeline::exchange;
use crate::pipeline::respond::grpc::TrailersOnly;
use crate::server::flood::FrameStats;
use crate::server::worker::{ConnectionSettings, Worker};
use witgate_http::body::{Body, InterimSink};
use witgate_http::error::{Error, Kind};
use witgate_http::h2::{Incoming, IncomingState, Outgoing, PeerPolicy, StreamCounts};
use witgate_http::semantics::fields::{check_http2, is_continue};
use witgate_http::throughput::MinRate;
use witgate_runtime::exchange::{Client, Upgrade};

/// How long a stream stays open after a response before the end of its request.
const LINGER_TIME: Duration = Duration::from_secs(1);

/// In the head of a response, it is a response of gRPC without messages (`Trailers-Only`). Clients
/// show its fields to their callers, and a `content-length` is none of them.
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// What a stream knows of its connection.
pub(super) type StreamContext = Rc<(Worker, Arc<Client>, ConnectionSettings, Rc<RefCell<FrameStats>>)>;

/// Serves one request. `may_linger` says whether the connection may keep the stream after an early
/// response; it is dropped when the stream ends. It resets the stream if the request is malformed
/// or the response fails.
pub(super) async fn serve_stream(
    context: StreamContext,
    mut request: http::Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    may_linger: impl Fn() -> bool,
) {
    let (worker, client, settings, stats) = &*context;
    if let Err(why) = check_http2(request.headers()) {
        let error = Error::new(Kind::BadRequest, format!("a malformed HTTP/2 request, which was reset: {why}"));
        exchange::count_reset(worker.context(client, None), &request, error);
        return respond.send_reset(Reason::PROTOCOL_ERROR);
    }
    let mut owes_continue = expects_continue(&mut request);
    let policy = |min_rate| PeerPolicy { min_rate, broken: Kind::ClientGone, slow: Kind::ClientTimeout };
    let (mut receive, mut send) = (policy(settings.receive), policy(settings.send));
    // A tunnel may be silent for longer than a body.
    let tunnel_rate = MinRate { stall: settings.timeouts.tunnel, bytes_per_second: 0, ..settings.receive };
    if *request.method() == Method::CONNECT {
        (receive.min_rate, send.min_rate) = (tunnel_rate, tunnel_rate);
    }
    let is_head = request.method() == Method::HEAD;
    let number = respond.stream_id().as_u32();
    let (interim_sink, interim) = interim_queue();
    let counts = || stats.borrow().field_counts.later_blocks(number);
    // Forgets the blocks of the stream when it ends.
    let _blocks = counts();
    let (request, is_tunnel, incoming) = into_exchange_request(request, receive, counts());
    let response = {
        let mut exchange = pin!(exchange::handle(worker.context(client, Some(interim_sink)), request));
        let finished = poll_fn(|context| {
            let polled = exchange.as_mut().poll(context);
            if incoming.is_malformed.get() {
                return Poll::Ready(Err(Some(Reason::PROTOCOL_ERROR)));
            }
            if owes_continue && incoming.is_awaited.get() {
                owes_continue = false;
                let mut interim = http::Response::new(());
                *interim.status_mut() = StatusCode::CONTINUE;
                // If the stream is closed, the final response reports it.
                let _ = respond.send_informational(interim);
            }
            for response in interim.borrow_mut().drain(..) {
                // If the stream is closed, `poll_reset` or the final response reports it.
                let _ = respond.send_informational(response);
            }
            match polled {
                Poll::Ready(response) => Poll::Ready(Ok(response)),
                // If the client resets the stream, the exchange is dropped.
                Poll::Pending => respond.poll_reset(context).map(|_| Err(None)),
            }
        });
        finished.await
    };
    let response = match response {
        Ok(response) => response,
        Err(malformed) => return malformed.into_iter().for_each(|reason| respond.send_reset(reason)),
    };
    // A response before the end of the request means a dialogue, as in gRPC streams. Either side
    // may then be silent for as long as in a tunnel.
    incoming.min_rate.set(Some(tunnel_rate));
    let has_switched = is_tunnel && response.status() == StatusCode::SWITCHING_PROTOCOLS;
    let (response, body) = into_h2_response(response, is_tunnel, is_head);
    let has_body = !is_head && !matches!(response.status().as_u16(), 204 | 304) && !body.is_end_stream();
    let Ok(mut stream) = respond.send_response(response, !has_body) else { return };
    if has_body {
        let mut outgoing = Outgoing::new(body, stream, send).tunnel(has_switched);
        let sent = poll_fn(|context| {
            let sent = outgoing.poll_send(context);
            if incoming.is_malformed.get() { Poll::Ready(None) } else { sent.map(Some) }
        });
        match sent.await {
            Some(Ok(())) => {}
            Some(Err(error)) => {
                return tracing::debug!(detail = error.detail, "a response body ended early");
            }
            None => return respond.send_reset(Reason::PROTOCOL_ERROR),
        }
        stream = outgoing.into_stream();
    } else {
        // Ends the exchange: its permits and its record do not wait for the client.
        drop(body);
    }
    if !incoming.has_ended.get() && !has_switched && may_linger() {
        // Dropping the stream resets it with NO_ERROR, which asks the client to stop sending (RFC
        // 9113, section 8.1). Some clients drop a response that they have not read yet when they
        // see a reset, so they get time to read it, or to reset the stream themselves. Until then
        // the `h2` crate discards what they send, at most a stream's window.
        let _ = tokio::time::timeout(LINGER_TIME, poll_fn(|context| stream.poll_reset(context))).await;
    }
}

/// Whether the client waits for `100 Continue` before it sends the body (RFC 9110, section 10.1.1).
/// It gets one when the exchange waits for the body: an HTTP/1.1 upstream has asked for it then, or
/// took too long to decide. A request that is refused before gets none. The pipeline refuses any
/// other expectation.
fn expects_continue(request: &mut http::Request<RecvStream>) -> bool {
    let expects = request.headers().get(header::EXPECT).is_some_and(is_continue);
    if expects && request.body().is_end_stream() {
        request.headers_mut().remove(header::EXPECT);
        return false;
    }
    expects
}

type InterimResponses = Rc<RefCell<Vec<http::Response<()>>>>;

/// A queue for interim responses. The exchange fills it, and the stream empties it after each poll
/// of the exchange.
fn interim_queue() -> (InterimSink, InterimResponses) {
    let queue = InterimResponses::default();
    let sink_queue = queue.clone();
    let sink: InterimSink = Rc::new(move |status, headers| {
        let mut response = http::Response::new(());
        *response.status_mut() = status;
        *response.headers_mut() = headers.clone();
        // An interim response has no content-length (RFC 9110, section 8.6).
        response.headers_mut().remove(header::CONTENT_LENGTH);
        sink_queue.borrow_mut().push(response);
    });
    (sink, queue)
}

/// Returns the request for the exchange and whether it opens a tunnel. An extended CONNECT for
/// WebSocket becomes a GET with an upgrade (RFC 8441, section 5). Any other CONNECT stays, and the
/// pipeline refuses it.
fn into_exchange_request(
    request: http::Request<RecvStream>,
    policy: PeerPolicy,
    counts: StreamCounts,
) -> (http::Request<Body>, bool, Rc<IncomingState>) {
    let (mut head, stream) = request.into_parts();
    let incoming = Incoming::new(stream, &head.headers, policy, counts);
    let state = incoming.state();
    let body = Body::stream(Box::pin(incoming));
    let protocol = head.extensions.remove::<h2::ext::Protocol>();
    let is_tunnel = head.method == Method::CONNECT && protocol.is_some_and(|protocol| protocol.as_str() == "websocket");
    if is_tunnel {
        head.method = Method::GET;
        head.extensions.insert(Upgrade(HeaderValue::from_static("websocket")));
        head.headers.insert(header::SEC_WEBSOCKET_KEY, websocket_key());
    }
    (http::Request::from_parts(head, body), is_tunnel, state)
}

/// A random `sec-websocket-key`, which HTTP/1.1 requires and HTTP/2 does not have: 16 bytes in
/// base64. The last of its 22 letters carries only two bits (RFC 6455, section 4.1).
fn websocket_key() -> HeaderValue {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut key: [u8; 24] = std::array::from_fn(|_| LETTERS[fastrand::usize(..64)]);
    key[21] = b"AQgw"[fastrand::usize(..4)];
    key[22..].copy_from_slice(b"==");
    HeaderValue::from_bytes(&key).unwrap_or_else(|_| HeaderValue::from_static("AAAAAAAAAAAAAAAAAAAAAA=="))
}

/// Converts a response to HTTP/2: status 200 opens a tunnel, and fields about the connection do not
/// exist.
fn into_h2_response(response: http::Response<Body>, is_tunnel: bool, is_head: bool) -> (http::Response<()>, Body) {
    let (mut head, body) = response.into_parts();
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        head.status = if is_tunnel { StatusCode::OK } else { StatusCode::BAD_GATEWAY };
        head.headers.remove(header::SEC_WEBSOCKET_ACCEPT);
        head.headers.remove(header::UPGRADE);
    } else if let Some(length) = body.size_hint().exact()
        && !is_head
        && !matches!(head.status.as_u16(), 204 | 304)
        && head.extensions.get::<TrailersOnly>().is_none()
        && !(length == 0 && head.headers.contains_key(GRPC_STATUS))
    {
        head.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    } else if head.status == StatusCode::NO_CONTENT {
        // A 204 has no content-length (RFC 9110, section 8.6).
        head.headers.remove(header::CONTENT_LENGTH);
    }
    if !head.headers.contains_key(header::DATE)
        && let Ok(date) = HeaderValue::from_str(&httpdate::fmt_http_date(std::time::SystemTime::now()))
    {
        head.headers.insert(header::DATE, date);
    }
    head.headers.remove(header::CONNECTION);
    head.headers.remove(HeaderName::from_static("keep-alive"));
    (http::Response::from_parts(head, ()), body)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 9110, section 8.6. Clients such as curl reset the stream otherwise.
    #[test]
    fn interim_and_204_responses_have_no_content_length() {
        let mut response = http::Response::new(Body::empty());
        response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(5));
        let (sink, interim) = interim_queue();
        sink(StatusCode::EARLY_HINTS, response.headers());
        assert!(interim.borrow().iter().all(|response| response.headers().is_empty()));
        let mut trailers_only = http::Response::new(Body::empty());
        trailers_only.headers_mut().insert(GRPC_STATUS, HeaderValue::from(9));
        let (trailers_only, _) = into_h2_response(trailers_only, false, false);
        assert!(!trailers_only.headers().contains_key(header::CONTENT_LENGTH));
        *response.status_mut() = StatusCode::NO_CONTENT;
        let (response, _) = into_h2_response(response, false, false);
        assert!(!response.headers().contains_key(header::CONTENT_LENGTH));
    }
}
